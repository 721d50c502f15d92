// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Mode `wear`: what is left of large mappings when parts of them have been private and are shared
//! again, with and without joins.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::convert::{bytes, count, time};
use crate::copier::Copies;
use crate::debugfs::{nothing_is_left, Summary};
use crate::list::{pick, Random};
use crate::machine::{KernelMemory, Machine, Memory, BASE};
use crate::options::{Options, Strategy};
use crate::walk::{walks, Shape, Walks};
use crate::{write, Result};

/// After so many conversions, when everything is shared.
struct Point {
    conversions: u64,
    /// Of guest memory.
    mappings: u64,
    page_tables: i64,
    /// What the kernel has, if it tells.
    summary: Option<Summary>,
    /// In the first of the page tables, if the kernel lists its leaves.
    walks: Option<Walks>,
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
        let Some(last) = o.points.last() else {
            continue;
        };
        println!(
            "vmm: wear {} conversions={} mappings={} page_tables={} {} share_us={:.0} copies={} bad={}",
            name(o),
            last.conversions,
            last.mappings,
            last.page_tables,
            last.walks.as_ref().map_or("walks=?".into(), |w| format!(
                "walk_levels={:.3} iotlb_misses={:.3} levels_per_dma={:.3}",
                w.levels, w.misses, w.levels_per_dma
            )),
            o.average.as_secs_f64() * 1e6,
            o.copies,
            o.bad
        );
    }
    if outcomes.iter().any(|o| o.bad > 0) {
        return Err("copies went wrong".into());
    }
    // A guest that has converted everything and back is as it was in the beginning.
    for o in outcomes.iter().filter(|o| o.join) {
        let first = &o.points[0];
        for p in &o.points {
            nothing_is_left(&first.summary, &p.summary)
                .map_err(|e| format!("after {} conversions {e}", p.conversions))?;
            if p.page_tables > first.page_tables {
                return Err("joins leave memory of page tables behind".into());
            }
        }
    }
    Ok(())
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
    let mut shape = None;
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
            let summary = machine.summary()?;
            o.points.push(Point {
                conversions: done,
                mappings: machine.areas.count(),
                page_tables: KernelMemory::now()?.since(before).page_tables,
                walks: look(options, machine, summary.as_ref(), &mut shape)?,
                summary,
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

/// `shape` is found out in the beginning, before tables can be left over.
fn look(
    options: &Options,
    machine: &Machine<'_>,
    summary: Option<&Summary>,
    shape: &mut Option<Shape>,
) -> Result<Option<Walks>> {
    let (Some(debugfs), Some(summary)) = (&machine.debugfs, summary) else {
        return Ok(None);
    };
    let Some((&hwpt, Some(tables))) = summary.hwpts.first_key_value() else {
        return Ok(None);
    };
    let Some(leaves) = debugfs.leaves(hwpt)? else {
        return Ok(None);
    };
    let shape = match shape {
        Some(shape) => shape,
        None => shape.insert(
            Shape::new(tables, &leaves)
                .ok_or("the page table has tables that it does not need: how many levels?")?,
        ),
    };
    let range = BASE..BASE + options.memory;
    walks(shape, &leaves, range, options.seed).map(Some)
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
    println!(
        "{:>11}{:>8}{:>12}{:>14}{:>14}{:>14}{:>16}",
        "conversions",
        "",
        "mappings",
        "page tables",
        "walk: levels",
        "IOTLB misses",
        "levels per DMA"
    );
    for (i, point) in outcomes[0].points.iter().enumerate() {
        for o in outcomes {
            let p = &o.points[i];
            let walks = |show: fn(&Walks) -> String| p.walks.as_ref().map_or("?".into(), show);
            println!(
                "{:>11}{:>8}{:>12}{:>14}{:>14}{:>14}{:>16}",
                point.conversions,
                name(o),
                count(p.mappings as f64),
                bytes(p.page_tables as f64),
                walks(|w| format!("{:.3}", w.levels)),
                walks(|w| format!("{:.1} %", w.misses * 100.0)),
                walks(|w| format!("{:.3}", w.levels_per_dma)),
            );
        }
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
        let points: Vec<String> = o.points.iter().map(json_point).collect();
        format!(
            "\"{}\":{{\"points\":[{}],\"share_ns\":{},\"slowest_ns\":{}}}",
            name(o),
            points.join(","),
            o.average.as_nanos(),
            o.slowest.as_nanos()
        )
    };
    let all: Vec<String> = outcomes.iter().map(one).collect();
    format!("{{{}}}\n", all.join(","))
}

fn json_point(p: &Point) -> String {
    let walks = p.walks.as_ref().map_or(String::new(), |w| {
        format!(
            ",\"walk_levels\":{},\"iotlb_misses\":{},\"levels_per_dma\":{}",
            w.levels, w.misses, w.levels_per_dma
        )
    });
    format!(
        "{{\"conversions\":{},\"mappings\":{},\"page_tables\":{}{walks}}}",
        p.conversions, p.mappings, p.page_tables
    )
}
