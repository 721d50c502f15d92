// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Mode `gaps`: phases with and without conversions by turns, while the disks copy all the time.

use std::collections::HashSet;
use std::fmt::Write;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::convert::time;
use crate::copier::Copies;
use crate::list::{pick, Conversion, Random};
use crate::machine::{Machine, Memory};
use crate::options::{Options, Strategy, CHUNK};
use crate::{write, Result};

const PHASE: Duration = Duration::from_millis(1500);
const SAMPLE: Duration = Duration::from_millis(20);
/// Pause between two conversions.
const PAUSE: Duration = Duration::from_millis(4);

struct Phase {
    splitting: bool,
    copies_per_second: f64,
    longest_gap: Duration,
    /// Part of the time that the ioctls took.
    in_ioctls: f64,
    conversions: u64,
    /// Large IOPTEs that were split, each of them one that the disks use.
    splits: u64,
}

/// Which large IOPTEs are gone, by their offset.
#[derive(Default)]
struct Cut {
    gigabytes: HashSet<u64>,
    chunks: HashSet<u64>,
}

impl Cut {
    /// How many more go when this becomes private.
    fn add(&mut self, c: &Conversion, pages: u64) -> u64 {
        let gigabyte = pages == 1 << 30 && self.gigabytes.insert(c.offset >> 30);
        let chunk = pages >= CHUNK && c.length < CHUNK && self.chunks.insert(c.offset / CHUNK);
        u64::from(gigabyte) + u64::from(chunk)
    }
}

struct Run<'a, 'm> {
    options: &'a Options,
    machine: &'a mut Machine<'m>,
    copies: &'a Copies,
    random: Random,
    cut: Cut,
    start: Instant,
    samples: String,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    if options.idle {
        return Err("--idle leaves nothing to measure in mode gaps".into());
    }
    if options.memory < 2 * options.backing || !options.halves() {
        return Err(
            "mode gaps wants --memory of at least two times --backing, and --sizes up to 1M".into(),
        );
    }
    let memory = Memory::new(options)?;
    let mut machine = Machine::new(options, &memory, Strategy::Split)?;
    machine.share_all()?;
    let disks = machine.disks()?;
    let copies = Copies::new(disks.len());
    let (phases, samples) = std::thread::scope(|scope| {
        let _running = copies.start(scope, &memory, disks, options);
        let mut run = Run {
            options,
            machine: &mut machine,
            copies: &copies,
            random: Random(options.seed),
            cut: Cut::default(),
            start: Instant::now(),
            samples: String::new(),
        };
        // The first phase warms up.
        let mut phases = Vec::new();
        run.phase(false)?;
        for _ in 0..options.rounds {
            run.make_large()?;
            phases.push(run.phase(false)?);
            phases.push(run.phase(true)?);
        }
        Ok::<_, String>((phases, run.samples))
    })?;
    write(&options.samples, || samples)?;
    report(options, &phases, copies.bad())
}

impl Run<'_, '_> {
    /// Maps everything again, a part at a time while the disks are elsewhere: large IOPTEs for the
    /// next phase.
    fn make_large(&mut self) -> Result<()> {
        let backing = self.machine.memory.backing;
        for copy in 0..self.machine.memory.size / backing {
            self.copies.avoid(copy);
            self.machine.carve(copy * backing, backing)?;
            self.machine.share(copy * backing, backing)?;
        }
        self.copies.avoid(u64::MAX);
        self.cut = Cut::default();
        Ok(())
    }

    fn phase(&mut self, splitting: bool) -> Result<Phase> {
        let begin = Instant::now();
        let first = self.finished();
        let spent = self.machine.sharing.time + self.machine.carving.time;
        self.copies.watch_gaps();
        let (mut conversions, mut splits) = (0, 0);
        let (mut sampled, mut copies_then, mut splits_then) = (begin, first, 0);
        while begin.elapsed() < PHASE {
            if splitting {
                let c = pick(&mut self.random, self.options);
                splits += self.cut.add(&c, self.options.pages);
                conversions += 1;
                self.machine.carve(c.offset, c.length)?;
                std::thread::sleep(PAUSE);
                self.machine.share(c.offset, c.length)?;
            }
            std::thread::sleep(PAUSE);
            let width = sampled.elapsed();
            if width >= SAMPLE {
                let now = self.finished();
                let rate = (now - copies_then) as f64 / width.as_secs_f64();
                let at = self.start.elapsed().as_secs_f64();
                let _ = writeln!(self.samples, "{at:.3} {rate:.0} {}", splits - splits_then);
                (sampled, copies_then, splits_then) = (Instant::now(), now, splits);
            }
        }
        let longest_gap = self.copies.longest_gap();
        let took = begin.elapsed().as_secs_f64();
        Ok(Phase {
            splitting,
            copies_per_second: (self.finished() - first) as f64 / took,
            longest_gap,
            in_ioctls: (self.machine.sharing.time + self.machine.carving.time - spent)
                .as_secs_f64()
                / took,
            conversions,
            splits,
        })
    }

    fn finished(&self) -> u64 {
        self.copies.finished.load(Ordering::Relaxed)
    }
}

fn report(options: &Options, phases: &[Phase], bad: u64) -> Result<()> {
    println!(
        "{:<12}{:>12}{:>16}{:>16}{:>14}{:>12}",
        "phase", "copies/s", "longest gap", "in ioctls", "conversions", "splits"
    );
    for p in phases {
        println!(
            "{:<12}{:>12.0}{:>16}{:>15.2}%{:>14}{:>12}",
            if p.splitting { "splitting" } else { "quiet" },
            p.copies_per_second,
            time(p.longest_gap.as_secs_f64()),
            p.in_ioctls * 100.0,
            p.conversions,
            p.splits
        );
    }
    let of = |splitting: bool, value: fn(&Phase) -> f64| {
        let mut all: Vec<f64> = phases
            .iter()
            .filter(|p| p.splitting == splitting)
            .map(value)
            .collect();
        all.sort_unstable_by(f64::total_cmp);
        all
    };
    let median = |v: &[f64]| v[v.len() / 2];
    let (quiet, busy) = (
        of(false, |p| p.copies_per_second),
        of(true, |p| p.copies_per_second),
    );
    let (quiet_gap, busy_gap) = (
        of(false, |p| p.longest_gap.as_secs_f64()),
        of(true, |p| p.longest_gap.as_secs_f64()),
    );
    let splits: u64 = phases.iter().map(|p| p.splits).sum();
    let text = format!(
        "splits={splits} throughput={:.3} quiet_spread={:.3} gap_ratio={:.2} in_ioctls={:.4} bad={bad}",
        median(&busy) / median(&quiet),
        (quiet[quiet.len() - 1] - quiet[0]) / median(&quiet),
        median(&busy_gap) / median(&quiet_gap),
        median(&of(true, |p| p.in_ioctls)),
    );
    println!("vmm: gaps {text}");
    write(&options.json, || {
        let fields: Vec<String> = text
            .split(' ')
            .filter_map(|f| f.split_once('='))
            .map(|(k, v)| format!("\"{k}\":{v}"))
            .collect();
        format!("{{{}}}\n", fields.join(","))
    })?;
    if bad > 0 || splits == 0 {
        return Err(format!(
            "{bad} copies went wrong, {splits} splits were made"
        ));
    }
    Ok(())
}
