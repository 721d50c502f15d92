// SPDX-License-Identifier: GPL-2.0-only

//! What judges the tables of `iotable`, on the host only.
//!
//! It sees of `iotable` what the kernel layer sees, its public items, and plays the rest of the
//! world: memory, hardware, caches, drivers. The tests are in `tests/`.
//!
//! - [`arena`]: table memory that counts, poisons, and lets a test look between any two stores.
//! - [`explore`]: every state that hardware can meet during a call.
//! - [`hw`]: the hardware, written from the specifications. It never calls a
//!   [`Format`](iotable::fmt::Format).
//! - [`odd`]: a format made to break what is taken for granted elsewhere.
//! - [`protocol`]: whether the stores are a run of the system that is proved.
//! - [`iotlb`]: caches that keep as much as the specifications let them, and how drivers flush
//!   them.
//! - [`laws`]: the laws of [`iotable::fmt`], for any format.
//! - [`log`]: what an operation reports, checked while it does.
//! - [`model`]: what must be mapped, as a plain list of leaves.
//! - [`rig`]: a table with all of these watching every operation on it.
//! - [`runs`]: the model again, quick, and with the tables.
//! - [`lean`]: a table whose operations are judged where they touched it, for many of them.
//! - [`setups`]: the tables of the tests.
//! - [`sequence`]: random sequences of operations, on either.
//! - [`walked`]: what a walk reports, against what hardware can reach.

pub mod arena;
pub mod explore;
pub mod hw;
pub mod iotlb;
pub mod laws;
pub mod lean;
pub mod log;
pub mod model;
pub mod odd;
pub mod protocol;
pub mod rig;
pub mod runs;
pub mod sequence;
pub mod setups;
pub mod size;
pub mod walked;

#[cfg(test)]
mod tests;
