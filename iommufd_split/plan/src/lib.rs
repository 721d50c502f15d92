// SPDX-License-Identifier: GPL-2.0-only

//! Host build of the part of `IOMMU_IOAS_SPLIT` that is plain arithmetic.
//!
//! The kernel compiles the same file as a module of `split.rs`.

#![no_std]

#[path = "../../kernel/join_plan.rs"]
mod join_plan;
#[path = "../../kernel/split_plan.rs"]
mod split_plan;

pub use join_plan::{blocks, check_hole, follows, reach, JoinRequest};
pub use split_plan::{Cuts, Extent, Parts, Pinned, Pins, Refusal, Request, Shares, Slice};
