// SPDX-License-Identifier: GPL-2.0-only

//! Sequences from a seed, as many as it takes for a number of operations. How to run it:
//! `Cargo.toml`.

#![forbid(unsafe_code)]

use std::error::Error;
use std::panic::catch_unwind;
use std::time::Instant;

use iotable_judges::sequence::{Case, Counts, FORMATS, HEAD_BYTES, OP_BYTES};

/// Operations in the longest sequence.
const LONGEST: u64 = 4096;

/// What the command line asks for.
struct Args {
    ops: u64,
    seed: u64,
    /// One, or all.
    format: Option<usize>,
    files: Vec<String>,
}

fn args() -> Result<Args, Box<dyn Error>> {
    let mut args = Args {
        ops: 1_000_000,
        seed: 1,
        format: None,
        files: Vec::new(),
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word}: a value is missing"));
        match word.as_str() {
            "--ops" => args.ops = value()?.parse()?,
            "--seed" => args.seed = value()?.parse()?,
            "--format" => {
                let name = value()?;
                let number = FORMATS.iter().position(|format| **format == name);
                args.format = Some(number.ok_or(format!("formats: {FORMATS:?}"))?);
            }
            _ if word.starts_with('-') => Err(format!("{word} is not an option"))?,
            _ => args.files.push(word),
        }
    }
    Ok(args)
}

/// SplitMix64.
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut n = *state;
    n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

/// The `n`-th sequence of a seed. Short ones too.
fn bytes(seed: u64, format: usize, n: u64) -> Vec<u8> {
    let mut state = seed;
    state = random(&mut state) ^ n.wrapping_mul(FORMATS.len() as u64) ^ format as u64;
    let longest = LONGEST >> (random(&mut state) % 4);
    let ops = 1 + random(&mut state) % longest;
    let len = HEAD_BYTES + OP_BYTES * ops as usize;
    let mut bytes = Vec::with_capacity(len + 7);
    while bytes.len() < len {
        bytes.extend_from_slice(&random(&mut state).to_le_bytes());
    }
    bytes.truncate(len);
    bytes[0] = format as u8;
    bytes
}

fn run(bytes: &[u8]) -> Option<Counts> {
    let case = Case::new(bytes)?;
    catch_unwind(|| case.run()).ok()
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = args()?;
    for file in &args.files {
        let counts = run(&std::fs::read(file)?).ok_or(format!("{file}: failed"))?;
        println!("{file}: {counts}");
    }
    if !args.files.is_empty() {
        return Ok(());
    }
    let formats = match args.format {
        Some(format) => format..format + 1,
        None => 0..FORMATS.len(),
    };
    let count = formats.len() as u64;
    let mut total = Counts::NONE;
    let start = Instant::now();
    for format in formats {
        let mut done = Counts::NONE;
        let began = Instant::now();
        for n in 0.. {
            if done.ops >= args.ops.div_ceil(count) {
                break;
            }
            let bytes = bytes(args.seed, format, n);
            let Some(counts) = run(&bytes) else {
                let file = format!("crash-{}-{}-{n}", FORMATS[format], args.seed);
                std::fs::write(&file, &bytes)?;
                Err(format!("a sequence failed; it is in {file}"))?
            };
            done.add(&counts);
        }
        let s = began.elapsed().as_secs_f64();
        let format = FORMATS[format];
        println!("fuzz: format={format} {done} leaks=0 seconds={s:.1}");
        total.add(&done);
    }
    let s = start.elapsed().as_secs_f64();
    println!("fuzz: all {total} leaks=0 seconds={s:.1}");
    Ok(())
}
