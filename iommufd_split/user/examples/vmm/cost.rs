// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Mode `cost`: one hole of 2M, as the number of areas grows, and beside what a VMM without a split
//! has to do for it.

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
        "{:<12}{:>16}{:>12}{:>28}",
        "mapped by", "SPLIT + UNMAP", "one call", "UNMAP + MAP of the rest"
    );
    let mut ratios = Vec::new();
    for (name, source) in [("file", Source::File), ("address", Source::Address)] {
        let machine = Machine::new(options, &memory, Strategy::Split)?;
        let [split, carve, remap] = hole(options, &machine, source)?;
        println!(
            "{name:<12}{:>16}{:>12}{:>28}{:>10.1} x",
            time(split.as_secs_f64()),
            time(carve.as_secs_f64()),
            time(remap.as_secs_f64()),
            over(remap, split)
        );
        ratios.push((name, split, carve, remap));
    }
    let (first, last) = (growth[0].1, growth[growth.len() - 1].1);
    write(&options.json, || {
        let points: Vec<String> = growth
            .iter()
            .map(|(n, t)| format!("[{n},{}]", t.as_nanos()))
            .collect();
        let holes: Vec<String> = ratios
            .iter()
            .map(|(name, s, c, r)| {
                format!(
                    "\"{name}\":{{\"split_ns\":{},\"carve_ns\":{},\"remap_ns\":{}}}",
                    s.as_nanos(),
                    c.as_nanos(),
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
        "vmm: cost growth={:.2} from 1 to {} areas, remap_over_split file={:.1} address={:.1}, \
         carve_over_split_unmap file={:.2} address={:.2}",
        over(last, first),
        growth[growth.len() - 1].0,
        over(ratios[0].3, ratios[0].1),
        over(ratios[1].3, ratios[1].1),
        over(ratios[0].2, ratios[0].1),
        over(ratios[1].2, ratios[1].1),
    );
    Ok(())
}

fn over(one: Duration, other: Duration) -> f64 {
    one.as_secs_f64() / other.as_secs_f64()
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

/// Median times of three ways to make a hole in the middle: split and unmap, both in one call, and
/// mapping the rest again.
fn hole(options: &Options, machine: &Machine<'_>, source: Source) -> Result<[Duration; 3]> {
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
    let (iommufd, ioas_id) = (&machine.iommufd, machine.ioas.id());
    let [mut splits, mut carves, mut remaps] = [const { Vec::new() }; 3];
    for _ in 0..options.rounds {
        share(0, backing)?;
        let since = Instant::now();
        iommufd_split::split(iommufd, ioas_id, BASE + middle, CHUNK).map_err(|e| e.to_string())?;
        unmap(middle, CHUNK)?;
        splits.push(since.elapsed());
        unmap(0, backing)?;

        share(0, backing)?;
        let since = Instant::now();
        iommufd_split::carve(iommufd, ioas_id, BASE + middle, CHUNK).map_err(|e| e.to_string())?;
        carves.push(since.elapsed());
        unmap(0, backing)?;

        share(0, backing)?;
        let since = Instant::now();
        unmap(0, backing)?;
        share(0, middle)?;
        share(behind, backing - behind)?;
        remaps.push(since.elapsed());
        unmap(0, backing)?;
    }
    Ok([
        median(&mut splits),
        median(&mut carves),
        median(&mut remaps),
    ])
}

pub(crate) fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
