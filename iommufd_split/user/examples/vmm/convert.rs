// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Mode `convert`: the VMM's whole job, with both strategies.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::copier::Copies;
use crate::debugfs::nothing_is_left;
use crate::list::{conversions, Conversion, To};
use crate::machine::{KernelMemory, Machine, Memory, Spent};
use crate::options::{Options, Strategy};
use crate::{write, Result};

struct Outcome {
    strategy: Strategy,
    /// To share all memory at the start.
    boot: Spent,
    to_private: Spent,
    to_shared: Spent,
    /// The slowest conversion to private.
    slowest: Duration,
    /// To give the IOAS back.
    end: Duration,
    /// After everything was shared.
    boot_areas: u64,
    most_areas: u64,
    /// When all conversions are done.
    end_areas: u64,
    kernel: KernelMemory,
    copies: u64,
    copied: u64,
    bad: u64,
}

impl Outcome {
    fn total(&self) -> Duration {
        self.boot.time + self.to_private.time + self.to_shared.time + self.end
    }

    fn ioctls(&self) -> u64 {
        self.boot.ioctls + self.to_private.ioctls + self.to_shared.ioctls
    }

    /// Kernel memory except page tables, for each area.
    fn bytes_per_area(&self) -> f64 {
        self.kernel.slab as f64 / self.boot_areas.max(1) as f64
    }
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let list = conversions(options)?;
    let memory = Memory::new(options)?;
    let mut outcomes = Vec::new();
    // Splits first: the little memory that they leave in the kernel does not show beside what the
    // other strategy takes.
    for &strategy in options.strategies.iter().rev() {
        eprintln!(
            "vmm: strategy {}: {} MiB, {} conversions",
            strategy.name(),
            options.memory >> 20,
            list.len()
        );
        outcomes.push(once(options, &memory, &list, strategy)?);
    }
    outcomes.reverse();
    report(&outcomes);
    write(&options.json, || json(&outcomes))?;
    let bad: u64 = outcomes.iter().map(|o| o.bad).sum();
    let copies: u64 = outcomes.iter().map(|o| o.copies).sum();
    let ratio = match &outcomes[..] {
        [pages, split] => format!(
            " time_ratio={:.0} page_table_ratio={:.0}",
            pages.total().as_secs_f64() / split.total().as_secs_f64(),
            pages.kernel.page_tables as f64 / split.kernel.page_tables as f64
        ),
        _ => String::new(),
    };
    println!(
        "vmm: convert conversions={} copies={copies} bad={bad}{ratio}",
        list.len()
    );
    if bad > 0 {
        return Err(format!("{bad} copies went wrong"));
    }
    if !options.idle && copies == 0 {
        return Err("nothing was copied: the run says nothing about DMA".into());
    }
    Ok(())
}

fn once(
    options: &Options,
    memory: &Memory,
    list: &[Conversion],
    strategy: Strategy,
) -> Result<Outcome> {
    let before = KernelMemory::now()?;
    let mut machine = Machine::new(options, memory, strategy)?;
    machine.share_all()?;
    let boot = machine.sharing;
    let mut o = Outcome {
        strategy,
        boot,
        to_private: Spent::default(),
        to_shared: Spent::default(),
        slowest: Duration::ZERO,
        end: Duration::ZERO,
        boot_areas: machine.areas.count(),
        most_areas: machine.areas.count(),
        end_areas: 0,
        kernel: KernelMemory::now()?.since(&before),
        copies: 0,
        copied: 0,
        bad: 0,
    };
    let disks = if options.idle {
        Vec::new()
    } else {
        machine.disks()?
    };
    let beginning = machine.summary()?;
    let copies = Copies::new(disks.len());
    std::thread::scope(|scope| {
        let _running = copies.start(scope, memory, disks, options);
        convert_all(&mut machine, list, &mut o)?;
        copies.enough();
        Ok::<_, String>(())
    })?;
    o.end_areas = machine.areas.count();
    let end = machine.summary()?;
    if options.join && strategy == Strategy::Split && options.follow.is_none() {
        nothing_is_left(&beginning, &end)?;
    }
    o.to_private = machine.carving;
    o.to_shared = Spent {
        ioctls: machine.sharing.ioctls - boot.ioctls,
        time: machine.sharing.time - boot.time,
    };
    o.copies = copies.finished.load(Ordering::Relaxed);
    o.copied = copies.bytes.load(Ordering::Relaxed);
    o.bad = copies.bad();
    let since = Instant::now();
    machine.end()?;
    o.end = since.elapsed();
    Ok(o)
}

fn convert_all(machine: &mut Machine<'_>, list: &[Conversion], o: &mut Outcome) -> Result<()> {
    let mut shown = Instant::now();
    for (i, c) in list.iter().enumerate() {
        let wanted = c.to == To::Private;
        if machine.areas.mapped(c.offset, c.length) != Some(wanted) {
            let state = if wanted { "shared" } else { "private" };
            return Err(format!(
                "conversion {}: {:#x} bytes at {:#x} are not all {state}",
                i + 1,
                c.length,
                c.offset
            ));
        }
        match c.to {
            To::Private => {
                let took = machine.carve(c.offset, c.length)?;
                o.slowest = o.slowest.max(took);
            }
            To::Shared => machine.share(c.offset, c.length)?,
        }
        o.most_areas = o.most_areas.max(machine.areas.count());
        if shown.elapsed() > Duration::from_secs(5) {
            shown = Instant::now();
            eprintln!("vmm: {} of {} conversions", i + 1, list.len());
        }
    }
    Ok(())
}

type Row = (&'static str, fn(&Outcome) -> f64, fn(f64) -> String);

const ROWS: &[Row] = &[
    ("share all: ioctls", |o| o.boot.ioctls as f64, count),
    ("share all: time", |o| o.boot.time.as_secs_f64(), time),
    ("areas then", |o| o.boot_areas as f64, count),
    ("page tables then", |o| o.kernel.page_tables as f64, bytes),
    ("other kernel memory then", |o| o.kernel.slab as f64, bytes),
    ("  of it for each area", Outcome::bytes_per_area, bytes),
    ("to private: ioctls", |o| o.to_private.ioctls as f64, count),
    (
        "to private: time",
        |o| o.to_private.time.as_secs_f64(),
        time,
    ),
    ("to private: slowest", |o| o.slowest.as_secs_f64(), time),
    ("to shared: ioctls", |o| o.to_shared.ioctls as f64, count),
    ("to shared: time", |o| o.to_shared.time.as_secs_f64(), time),
    ("areas at most", |o| o.most_areas as f64, count),
    ("areas in the end", |o| o.end_areas as f64, count),
    ("give the IOAS back: time", |o| o.end.as_secs_f64(), time),
    ("all: ioctls", |o| o.ioctls() as f64, count),
    ("all: time", |o| o.total().as_secs_f64(), time),
    ("copies meanwhile", |o| o.copies as f64, count),
    ("bytes copied meanwhile", |o| o.copied as f64, bytes),
    ("copies gone wrong", |o| o.bad as f64, count),
];

fn report(outcomes: &[Outcome]) {
    print!("{:<28}", "");
    for o in outcomes {
        print!("{:>16}", o.strategy.name());
    }
    println!();
    for (name, value, show) in ROWS {
        print!("{name:<28}");
        for o in outcomes {
            print!("{:>16}", show(value(o)));
        }
        match outcomes {
            [pages, split] if value(split) > 0.0 && value(pages) > 0.0 => {
                println!("{:>12.1} x", value(pages) / value(split));
            }
            _ => println!(),
        }
    }
}

fn json(outcomes: &[Outcome]) -> String {
    let one = |o: &Outcome| {
        let fields: Vec<String> = ROWS
            .iter()
            .map(|(name, value, _)| {
                format!(
                    "\"{}\":{}",
                    name.trim().replace([':', ' '], "_").replace("__", "_"),
                    value(o)
                )
            })
            .collect();
        format!("\"{}\":{{{}}}", o.strategy.name(), fields.join(","))
    };
    let all: Vec<String> = outcomes.iter().map(one).collect();
    format!("{{{}}}\n", all.join(","))
}

pub(crate) fn count(n: f64) -> String {
    format!("{n:.0}")
}

pub(crate) fn time(seconds: f64) -> String {
    match seconds {
        s if s >= 1.0 => format!("{s:.2} s"),
        s if s >= 1e-3 => format!("{:.2} ms", s * 1e3),
        s => format!("{:.1} us", s * 1e6),
    }
}

pub(crate) fn bytes(n: f64) -> String {
    match n {
        n if n >= 1e9 => format!("{:.2} GiB", n / f64::from(1 << 30)),
        n if n >= 1e6 => format!("{:.1} MiB", n / f64::from(1 << 20)),
        n if n >= 1e4 => format!("{:.1} KiB", n / 1024.0),
        n => format!("{n:.0} B"),
    }
}
