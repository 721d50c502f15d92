// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Mode `cost`: one hole of 2M, as the number of areas grows, and beside what a VMM without a split has to do for it.

use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use iommufd_split::Permissions;

use crate::convert::{count, time};
use crate::machine::{Machine, Memory, BASE};
use crate::options::{Options, Strategy, CHUNK, PAGE};
use crate::{write, Result};

/// How memory comes into the IOAS.
#[derive(Clone, Copy)]
enum Source {
    File,
    Address,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let memory = Memory::new(options)?;
    let mut machine = Machine::new(options, &memory, Strategy::Split)?;
    let growth = growth(options, &mut machine)?;
    println!("areas in the IOAS   split of 2M (median)");
    for (areas, took) in &growth {
        println!(
            "{:>17}   {:>20}",
            count(*areas as f64),
            time(took.as_secs_f64())
        );
    }
    drop(machine);

    println!(
        "\nhole of 2M in {} MiB, pages of {} KiB (median)",
        options.backing >> 20,
        options.pages >> 10
    );
    println!(
        "{:<12}{:>16}{:>28}",
        "mapped by", "SPLIT + UNMAP", "UNMAP + MAP of the rest"
    );
    let mut ratios = Vec::new();
    for (name, source) in [("file", Source::File), ("address", Source::Address)] {
        let machine = Machine::new(options, &memory, Strategy::Split)?;
        let (split, remap) = hole(options, &machine, source)?;
        let ratio = remap.as_secs_f64() / split.as_secs_f64();
        println!(
            "{name:<12}{:>16}{:>28}{ratio:>10.1} x",
            time(split.as_secs_f64()),
            time(remap.as_secs_f64())
        );
        ratios.push((name, split, remap));
    }
    let (first, last) = (growth[0].1, growth[growth.len() - 1].1);
    write(&options.json, || {
        let points: Vec<String> = growth
            .iter()
            .map(|(n, t)| format!("[{n},{}]", t.as_nanos()))
            .collect();
        let holes: Vec<String> = ratios
            .iter()
            .map(|(name, s, r)| {
                format!(
                    "\"{name}\":{{\"split_ns\":{},\"remap_ns\":{}}}",
                    s.as_nanos(),
                    r.as_nanos()
                )
            })
            .collect();
        format!(
            "{{\"areas_split_ns\":[{}],\"hole\":{{{}}}}}\n",
            points.join(","),
            holes.join(",")
        )
    })?;
    println!(
        "vmm: cost growth={:.2} from 1 to {} areas, remap_over_split file={:.1} address={:.1}",
        last.as_secs_f64() / first.as_secs_f64(),
        growth[growth.len() - 1].0,
        ratios[0].2.as_secs_f64() / ratios[0].1.as_secs_f64(),
        ratios[1].2.as_secs_f64() / ratios[1].1.as_secs_f64(),
    );
    Ok(())
}

/// Median time of a split in a fresh mapping, beside 0, 9, 99, ... others of one page each.
fn growth(options: &Options, machine: &mut Machine<'_>) -> Result<Vec<(u64, Duration)>> {
    let backing = machine.memory.backing;
    let pages = backing / PAGE;
    let mut others = 0;
    let mut points = Vec::new();
    let mut areas = 1;
    while areas <= options.areas {
        while others + 1 < areas {
            let iova = BASE + backing + others * PAGE;
            let offset = others % pages * PAGE;
            machine
                .ioas
                .map_file(machine.memory.file.as_raw_fd(), offset, PAGE, iova, true)
                .map_err(|e| format!("mapping {areas} pages: {e}"))?;
            others += 1;
        }
        let mut times = Vec::new();
        for round in 0..options.rounds * 4 {
            machine.share(0, backing)?;
            let at = (2 * round + 1) % (backing / CHUNK) * CHUNK;
            let since = Instant::now();
            iommufd_split::split(&machine.iommufd, machine.ioas.id(), BASE + at, CHUNK)
                .map_err(|e| e.to_string())?;
            times.push(since.elapsed());
            machine.carve(0, backing)?;
        }
        points.push((areas, median(&mut times)));
        areas *= 10;
    }
    Ok(points)
}

/// Median times of the two ways to make a hole in the middle.
fn hole(options: &Options, machine: &Machine<'_>, source: Source) -> Result<(Duration, Duration)> {
    let backing = machine.memory.backing;
    let middle = backing / CHUNK / 2 * CHUNK;
    let share = |offset: u64, length: u64| -> Result<()> {
        match source {
            Source::File => machine
                .shared
                .share_file(
                    machine.memory.file.as_fd(),
                    offset,
                    BASE + offset,
                    length,
                    Permissions::ReadWrite,
                )
                .map_err(|e| e.to_string()),
            Source::Address => machine.share_by_address(offset, length),
        }
    };
    let unmap = |offset: u64, length: u64| {
        machine
            .ioas
            .unmap(BASE + offset, length)
            .map_err(|e| e.to_string())
    };
    let behind = middle + CHUNK;
    let (mut splits, mut remaps) = (Vec::new(), Vec::new());
    for _ in 0..options.rounds {
        share(0, backing)?;
        let since = Instant::now();
        machine
            .shared
            .carve(BASE + middle, CHUNK)
            .map_err(|e| e.to_string())?;
        splits.push(since.elapsed());
        unmap(0, backing)?;

        share(0, backing)?;
        let since = Instant::now();
        unmap(0, backing)?;
        share(0, middle)?;
        share(behind, backing - behind)?;
        remaps.push(since.elapsed());
        unmap(0, backing)?;
    }
    Ok((median(&mut splits), median(&mut remaps)))
}

pub(crate) fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
