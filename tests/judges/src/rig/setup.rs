// SPDX-License-Identifier: GPL-2.0-only

//! The choices for a table.

#![forbid(unsafe_code)]

use iotable::fmt::{Features, Format, Params};

/// The choices for a table.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Features and encryption.
    pub params: Params,
    /// Level of the top table.
    pub top_level: u8,
    /// log2 of the IOVA space, if it is not what the top table (or, if it can grow, the format)
    /// allows.
    pub va_lg2: Option<u32>,
    /// Leaf sizes to leave out of what the format offers.
    pub without: u64,
    /// Room for this many tables.
    pub slots: usize,
}

impl Setup {
    /// No features, and all sizes.
    pub fn plain(top_level: u8) -> Setup {
        Setup {
            params: Params::default(),
            top_level,
            va_lg2: None,
            without: 0,
            slots: 1024,
        }
    }

    /// With these features.
    pub fn with(mut self, features: Features) -> Setup {
        self.params.features = self.params.features.with(features);
        self
    }

    /// With `2^lg2` bytes of IOVA.
    pub fn space(mut self, lg2: u32) -> Setup {
        self.va_lg2 = Some(lg2);
        self
    }

    /// log2 of the OA space.
    pub fn oa_lg2<F: Format>(&self) -> u32 {
        match self.params.enc_mask {
            0 => F::MAX_OA_LG2,
            bit => bit.trailing_zeros(),
        }
    }

    /// With this encryption bit.
    pub fn encrypted(mut self, bit: u32) -> Setup {
        self.params.enc_mask = 1 << bit;
        self
    }

    /// Without these leaf sizes.
    pub fn without(mut self, sizes: u64) -> Setup {
        self.without = sizes;
        self
    }
}
