// SPDX-License-Identifier: GPL-2.0-only

//! The tables that tests use, and arbitrary ones.

#![forbid(unsafe_code)]

use super::odd::ENC;
use super::rig::Setup;
use iotable::fmt::amdv1::features as amdv1;
use iotable::fmt::armv8::features as armv8;
use iotable::fmt::riscv_64::Riscv64;
use iotable::fmt::vtdss::Vtdss;
use iotable::fmt::x86_64::X86_64;
use iotable::fmt::{Features, Params};

/// The one list of formats: calls `$with!` with the name of each, its hardware, and the function of
/// this module that makes its usual table. [`Choice`] has a function of the name, for any table.
macro_rules! for_each_format {
    ($with:ident) => {
        $with! {
            vtdss: $crate::hw::Vtd, vtd;
            x86_64: $crate::hw::X86, x86;
            amdv1: $crate::hw::Amd<false>, amd;
            amdv1_mock: $crate::hw::Amd<true>, mock;
            riscv_64: $crate::hw::Riscv, riscv;
            armv8_4k: $crate::hw::Arm<12>, arm_4k;
            armv8_16k: $crate::hw::Arm<14>, arm_16k;
            armv8_64k: $crate::hw::Arm<16>, arm_64k;
            odd: $crate::hw::OddHw<true, true>, odd;
        }
    };
}
pub(crate) use for_each_format;

/// 3 levels, as VT-d's driver begins.
pub fn vtd() -> Setup {
    Setup::plain(2)
}

/// The odd format with all that it has, on coherent hardware.
pub fn odd() -> Setup {
    Setup {
        params: Params {
            features: Features::SIGN_EXTEND
                .with(Features::FLUSH_RANGE_NO_GAPS)
                .with(Features::DETAILED_GATHER),
            enc_mask: ENC,
        },
        ..Setup::plain(3)
    }
}

/// 4 levels with an upper half, as VT-d uses its first stage.
pub fn x86() -> Setup {
    Setup::plain(3).with(Features::SIGN_EXTEND.with(Features::FLUSH_RANGE))
}

/// As the AMD driver begins: 3 levels, all 64 bits, tables and memory encrypted.
pub fn amd() -> Setup {
    Setup::plain(2)
        .with(Features::DYNAMIC_TOP.with(Features::FULL_VA))
        .with(amdv1::ENCRYPT_TABLES.with(amdv1::FORCE_COHERENCE))
        .encrypted(47)
}

/// As iommufd's selftest begins.
pub fn mock() -> Setup {
    Setup::plain(2).with(Features::DYNAMIC_TOP)
}

/// Sv39, with all extensions.
pub fn riscv() -> Setup {
    Setup::plain(2)
        .with(Features::SIGN_EXTEND.with(Features::DETAILED_GATHER))
        .with(Riscv64::SVNAPOT_64K.with(Riscv64::SVPBMT))
}

/// Stage 1 with 3 levels, as the driver has them in a kernel with pages of 4K whose own addresses
/// have 39 bits.
pub fn arm_4k() -> Setup {
    Setup::plain(2).with(Features::DETAILED_GATHER.with(Features::FLUSH_RANGE_NO_GAPS))
}

/// 4 levels, the highest of which has two items.
pub fn arm_16k() -> Setup {
    Setup {
        top_level: 3,
        ..arm_4k()
    }
}

/// 3 levels, the highest of which has 64 of 8192 items: stage 2 of an SMMU with FWB.
pub fn arm_64k() -> Setup {
    arm_4k().with(armv8::S2.with(armv8::S2FWB))
}

/// These stay in AMD's, or a small hole takes a table for every item.
const AMD_SIZES: u64 = 0x3_81c0_e070_3800;

/// These stay in the odd format, for the same reason.
const ODD_SIZES: u64 = (1 << 12) | (1 << 17) | (1 << 18) | (1 << 23) | (1 << 24) | (1 << 31);

/// An arbitrary number that makes choices. All 0: the plainest table.
#[derive(Clone, Copy, Debug)]
pub struct Choice(u64);

impl Choice {
    /// From any number.
    pub fn new(n: u64) -> Self {
        Choice(n)
    }

    /// A number below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        let chosen = self.0 % n;
        self.0 /= n;
        chosen
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }

    fn flag(&mut self) -> bool {
        self.below(2) == 1
    }

    fn level(&mut self, lowest: u64, highest: u64) -> u8 {
        (lowest + self.below(highest - lowest + 1)) as u8
    }

    /// Leaf sizes to leave out: often none.
    fn some_sizes(&mut self) -> u64 {
        if self.below(5) < 2 {
            return 0;
        }
        // What is left of the number, in all bits.
        let n = self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        n ^ n.rotate_left(29) ^ n.rotate_left(47)
    }

    /// Intel's second stage.
    pub fn vtdss(&mut self) -> Setup {
        let features = self.of(&[
            Features::default(),
            Features::default(),
            Features::DMA_INCOHERENT,
            Vtdss::FORCE_COHERENCE,
            Vtdss::FORCE_WRITEABLE,
            Features::DMA_INCOHERENT.with(Vtdss::FORCE_COHERENCE),
        ]);
        let top = self.level(2, 4);
        let without = self.of(&[0, 0, 0, 0, 0, 0, 1 << 30, 1 << 12]);
        Setup::plain(top).with(features).without(without)
    }

    /// First stage tables as VT-d has them, and as AMD has them for what has no PASID.
    pub fn x86_64(&mut self) -> Setup {
        let (top_level, sign, va_lg2) =
            self.of(&[(3, true, 48), (4, true, 57), (3, false, 47), (4, false, 56)]);
        let mut setup = Setup { top_level, ..x86() };
        if !sign {
            setup.params.features.0 &= !Features::SIGN_EXTEND.0;
        }
        if self.flag() {
            setup = setup.with(Features::DMA_INCOHERENT);
        }
        if self.flag() {
            setup = setup.with(X86_64::AMD_ENCRYPT_TABLES).encrypted(47);
        }
        let without = self.of(&[0, 0, 0, 0, 0, 0, 1 << 30, 1 << 12]);
        setup.space(va_lg2).without(without)
    }

    /// AMD's host tables.
    pub fn amdv1(&mut self) -> Setup {
        let va_lg2 = self.of(&[64, 64, 32, 48, 57]);
        let mut setup = amd().space(va_lg2);
        if va_lg2 != 64 {
            setup.params.features.0 &= !Features::FULL_VA.0;
        }
        if !self.flag() {
            setup.params.enc_mask = 0;
            setup.params.features.0 &= !amdv1::ENCRYPT_TABLES.0;
        }
        setup.top_level = self.level(1, 5);
        setup.without(self.some_sizes() & !AMD_SIZES)
    }

    /// Those of iommufd's selftest.
    pub fn amdv1_mock(&mut self) -> Setup {
        let va_lg2 = self.of(&[56, 56, 32, 47]);
        let mut setup = mock().space(va_lg2);
        setup.top_level = self.level(1, 4);
        setup.without(self.some_sizes() & !AMD_SIZES)
    }

    /// RISC-V.
    pub fn riscv_64(&mut self) -> Setup {
        let mut setup = riscv();
        setup.top_level = self.level(2, 4);
        if self.flag() {
            setup.params.features.0 &= !Riscv64::SVNAPOT_64K.0;
        }
        if self.flag() {
            setup.params.features.0 &= !Riscv64::SVPBMT.0;
        }
        let without = self.of(&[0, 0, 0, 0, 0, 0, 1 << 48, 1 << 12]);
        setup.without(without)
    }

    /// Arm, with a granule of 4K.
    pub fn armv8_4k(&mut self) -> Setup {
        let (top_level, va_lg2) = self.of(&[(2, 39), (3, 48), (1, 30), (3, 44), (2, 36)]);
        self.arm(top_level, va_lg2, 1 << 30)
    }

    /// Arm, with a granule of 16K.
    pub fn armv8_16k(&mut self) -> Setup {
        let (top_level, va_lg2) = self.of(&[(2, 47), (3, 48), (1, 36), (2, 40)]);
        self.arm(top_level, va_lg2, 1 << 25)
    }

    /// Arm, with a granule of 64K.
    pub fn armv8_64k(&mut self) -> Setup {
        let (top_level, va_lg2) = self.of(&[(1, 42), (2, 48), (2, 44), (1, 36)]);
        self.arm(top_level, va_lg2, 1 << 29)
    }

    fn arm(&mut self, top_level: u8, va_lg2: u32, block: u64) -> Setup {
        let features = self.of(&[
            Features::default(),
            armv8::S2,
            armv8::S2.with(armv8::S2FWB),
            Features::DMA_INCOHERENT,
            Features::DMA_INCOHERENT.with(armv8::S2),
        ]);
        let setup = Setup {
            top_level,
            ..arm_4k()
        };
        let without = self.of(&[0, 0, 0, 0, 0, 0, block]);
        setup.space(va_lg2).with(features).without(without)
    }

    /// The odd format.
    pub fn odd(&mut self) -> Setup {
        let mut setup = odd();
        if self.flag() {
            setup = setup.with(Features::DMA_INCOHERENT);
        }
        if self.flag() {
            setup.params.features.0 &= !Features::SIGN_EXTEND.0;
        }
        if self.flag() {
            setup.params.enc_mask = 0;
        }
        setup.without(self.some_sizes() & !ODD_SIZES)
    }
}
