// SPDX-License-Identifier: GPL-2.0-only

//! Sequences that libFuzzer makes. How to run it: `Cargo.toml`.

#![no_main]
#![forbid(unsafe_code)]

use iotable_judges::sequence::{Case, Counts, FORMATS};
use libfuzzer_sys::fuzz_target;
use std::sync::Mutex;

/// After so many operations what was done is printed.
const REPORT: u64 = 10_000_000;

static DONE: Mutex<[Counts; FORMATS.len()]> = Mutex::new([Counts::NONE; FORMATS.len()]);

fuzz_target!(|bytes: &[u8]| {
    let Some(case) = Case::new(bytes) else {
        return;
    };
    let counts = case.run();
    let mut done = DONE.lock().unwrap();
    let before: u64 = done.iter().map(|counts| counts.ops).sum();
    done[case.format].add(&counts);
    if (before + counts.ops) / REPORT != before / REPORT {
        for (format, counts) in FORMATS.iter().zip(done.iter()) {
            eprintln!("fuzz: format={format} {counts}");
        }
    }
});
