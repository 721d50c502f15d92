// SPDX-License-Identifier: GPL-2.0-only

//! All interleavings of small operations on page tables, and all values that each load may see.
//!
//! The code under test is the crate `iotable` itself, in an environment whose items are loom's
//! atomics. Each test explores a model to its end, unless a comment names a
//! bound of its preemptions. A model with a
//! [`Broken`](env::Broken) environment is a control: it has to fail.
//!
//! `cargo test --release -p iotable-ordering -- --nocapture` prints the number of executions.

#![cfg(test)]

mod cases;
mod env;
mod model;
mod rig;
mod tiny;
