// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Mode `wear`: what is left of large mappings when parts of them have been private and are shared
//! again, with and without joins.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::convert::{bytes, count, time};
use crate::copier::Copies;
use crate::list::{pick, Random};
use crate::machine::{KernelMemory, Machine, Memory};
use crate::options::{Options, Strategy};
use crate::{write, Result};

/// After so many conversions, when everything is shared.
struct Point {
    conversions: u64,
    areas: u64,
    page_tables: i64,
}

struct Outcome {
    join: bool,
    points: Vec<Point>,
    /// To share a part again.
    average: Duration,
    slowest: Duration,
    copies: u64,
    bad: u64,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let memory = Memory::new(options)?;
    let mut outcomes = Vec::new();
    for join in [false, true] {
        let options = Options {
            join,
            ..options.clone()
        };
        outcomes.push(once(&options, &memory)?);
    }
    report(options, &outcomes);
    write(&options.json, || json(&outcomes))?;
    for o in &outcomes {
        println!(
            "vmm: wear {} conversions={} areas={} page_tables={} share_us={:.0} copies={} bad={}",
            name(o),
            o.points.last().map_or(0, |p| p.conversions),
            o.points.last().map_or(0, |p| p.areas),
            o.points.last().map_or(0, |p| p.page_tables),
            o.average.as_secs_f64() * 1e6,
            o.copies,
            o.bad
        );
    }
    if outcomes.iter().any(|o| o.bad > 0) {
        return Err("copies went wrong".into());
    }
    // A guest that has converted everything and back is as it was in the beginning.
    let worn = |o: &&Outcome| {
        let first = &o.points[0];
        o.points
            .iter()
            .any(|p| p.areas != first.areas || p.page_tables > first.page_tables)
    };
    match outcomes.iter().find(|o| o.join).filter(worn) {
        Some(_) => Err("joins leave mappings or page tables behind".into()),
        None => Ok(()),
    }
}

fn once(options: &Options, memory: &Memory) -> Result<Outcome> {
    let before = KernelMemory::now()?;
    let mut machine = Machine::new(options, memory, Strategy::Split)?;
    machine.share_all()?;
    let disks = if options.idle {
        Vec::new()
    } else {
        machine.disks()?
    };
    let copies = Copies::new(disks.len());
    let mut o = Outcome {
        join: options.join,
        points: Vec::new(),
        average: Duration::ZERO,
        slowest: Duration::ZERO,
        copies: 0,
        bad: 0,
    };
    std::thread::scope(|scope| {
        let _running = copies.start(scope, memory, disks, options);
        wear(options, &mut machine, &before, &mut o)?;
        copies.enough();
        Ok::<_, String>(())
    })?;
    if options.join {
        machine.is_as_in_the_beginning()?;
    }
    o.copies = copies.finished.load(Ordering::Relaxed);
    o.bad = copies.bad();
    machine.end()?;
    Ok(o)
}

fn wear(
    options: &Options,
    machine: &mut Machine<'_>,
    before: &KernelMemory,
    o: &mut Outcome,
) -> Result<()> {
    let mut random = Random(options.seed);
    let mut sharing = Duration::ZERO;
    let mut shown = Instant::now();
    for done in 0..=options.conversions {
        if done > 0 {
            let c = pick(&mut random, options);
            machine.carve(c.offset, c.length)?;
            let since = Instant::now();
            machine.share(c.offset, c.length)?;
            let took = since.elapsed();
            sharing += took;
            o.slowest = o.slowest.max(took);
        }
        if [0, 1, 100, 10_000, options.conversions].contains(&done) {
            o.points.push(Point {
                conversions: done,
                areas: machine.areas.count(),
                page_tables: KernelMemory::now()?.since(before).page_tables,
            });
        }
        if shown.elapsed() > Duration::from_secs(5) {
            shown = Instant::now();
            eprintln!(
                "vmm: {}: {done} of {} conversions",
                name(o),
                options.conversions
            );
        }
    }
    o.average = sharing / options.conversions.max(1) as u32;
    Ok(())
}

fn name(o: &Outcome) -> &'static str {
    if o.join {
        "joined"
    } else {
        "mapped"
    }
}

fn report(options: &Options, outcomes: &[Outcome]) {
    println!(
        "{} MiB, parts of {} to {} KiB that were private and are shared again",
        options.memory >> 20,
        options.sizes.0 >> 10,
        options.sizes.1 >> 10
    );
    println!("{:>11}{:>26}{:>30}", "", "areas", "page tables");
    print!("{:>11}", "conversions");
    for _ in 0..2 {
        for o in outcomes {
            print!("{:>14}", name(o));
        }
    }
    println!();
    for (i, point) in outcomes[0].points.iter().enumerate() {
        print!("{:>11}", point.conversions);
        for o in outcomes {
            print!("{:>14}", count(o.points[i].areas as f64));
        }
        for o in outcomes {
            print!("{:>14}", bytes(o.points[i].page_tables as f64));
        }
        println!();
    }
    for o in outcomes {
        println!(
            "to share a part again, {}: {} on average, {} at most",
            name(o),
            time(o.average.as_secs_f64()),
            time(o.slowest.as_secs_f64())
        );
    }
}

fn json(outcomes: &[Outcome]) -> String {
    let one = |o: &Outcome| {
        let points: Vec<String> = o
            .points
            .iter()
            .map(|p| format!("[{},{},{}]", p.conversions, p.areas, p.page_tables))
            .collect();
        format!(
            "\"{}\":{{\"conversions_areas_page_tables\":[{}],\"share_ns\":{},\"slowest_ns\":{}}}",
            name(o),
            points.join(","),
            o.average.as_nanos(),
            o.slowest.as_nanos()
        )
    };
    let all: Vec<String> = outcomes.iter().map(one).collect();
    format!("{{{}}}\n", all.join(","))
}
