// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the command line says.

use std::path::PathBuf;

use lexopt::prelude::*;

use crate::Result;

pub(crate) const PAGE: u64 = 4096;
/// Guest memory is converted in, and copied inside of, chunks of this size.
pub(crate) const CHUNK: u64 = 2 << 20;

pub(crate) const HELP: &str = "\
Usage: vmm MODE [OPTION...] PCI-ADDRESS...

Shares memory with NVMe disks as the VMM of a confidential guest does. The disks must be bound to vfio-pci; their first 8 MiB
are overwritten. Other devices are attached to the same IOAS and stay idle.

Modes:
  convert  share all memory, convert random parts to private and back while the disks copy; with both strategies
  cost     what one hole costs: by split, by mapping again what is around it, and with how many mappings in the IOAS
  gaps     what the disks notice: copies and the longest gap, with and without splits
  wear     what conversions leave behind after 1, 100, ... of them, with and without joins: mappings, page tables, and
           what a DMA to any address costs a model of an IOMMU

Options:
  --memory SIZE        guest memory (default 4G)
  --backing SIZE       memory that is really there, mapped again and again to make --memory (default 1G)
  --pages 4K|2M|1G     pages it is made of: memfd, or memfd on hugetlb (default 1G)
  --strategy NAME      pages: every page mapped by an ioctl of its own; split; or both (default)
  --conversions N      how many parts become private, and shared again (default 1000)
  --join               strategy split: what is shared again becomes a part of the mapping that it was cut out of
  --sizes MIN..MAX     their size, a power of two from 4K to 2M (default 4K..2M). Up to 1M they lie in one half of every 2M,
                       and the disks copy in the other; else the disks have every second 2M for themselves
  --follow FILE        convert what FILE lists instead; see below
  --seed N             of all that is random (default 1)
  --hwpts N            page tables for the same IOAS: devices are spread over them (default 1)
  --idle               the disks do not copy
  --rounds N           of gaps and cost (default 8)
  --samples FILE       gaps: copies in every 20 ms, for a picture
  --areas N            cost: mappings in the IOAS up to this number (default 100000)
  --json FILE          results, one JSON object

A list of conversions has a line for each, in order, with offsets into guest memory; # starts a comment:
  private OFFSET LENGTH
  shared  OFFSET LENGTH
Numbers are decimal or 0x..., and may end in K, M, G or T. Memory is shared at the start. 2M to 4M, 6M to 8M and so on are the
disks', unless --idle.
";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Convert,
    Cost,
    Gaps,
    Wear,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Strategy {
    Pages,
    Split,
}

impl Strategy {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pages => "pages",
            Self::Split => "split",
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) mode: Mode,
    pub(crate) addresses: Vec<String>,
    pub(crate) memory: u64,
    pub(crate) backing: u64,
    pub(crate) pages: u64,
    pub(crate) strategies: Vec<Strategy>,
    pub(crate) conversions: u64,
    pub(crate) sizes: (u64, u64),
    pub(crate) join: bool,
    pub(crate) follow: Option<PathBuf>,
    pub(crate) seed: u64,
    pub(crate) hwpts: usize,
    pub(crate) idle: bool,
    pub(crate) rounds: u64,
    pub(crate) samples: Option<PathBuf>,
    pub(crate) areas: u64,
    pub(crate) json: Option<PathBuf>,
}

impl Options {
    /// `None` if only help is wanted.
    pub(crate) fn parse(mut args: lexopt::Parser) -> Result<Option<Self>> {
        let mut mode = None;
        let mut o = Self {
            mode: Mode::Convert,
            addresses: Vec::new(),
            memory: 4 << 30,
            backing: 1 << 30,
            pages: 1 << 30,
            strategies: vec![Strategy::Pages, Strategy::Split],
            conversions: 1000,
            sizes: (PAGE, CHUNK),
            join: false,
            follow: None,
            seed: 1,
            hwpts: 1,
            idle: false,
            rounds: 8,
            samples: None,
            areas: 100_000,
            json: None,
        };
        while let Some(arg) = args.next().map_err(usage)? {
            match arg {
                Short('h') | Long("help") => return Ok(None),
                Long("memory") => o.memory = size_of_arg(&mut args)?,
                Long("backing") => o.backing = size_of_arg(&mut args)?,
                Long("pages") => o.pages = size_of_arg(&mut args)?,
                Long("strategy") => o.strategies = strategies(&text(&mut args)?)?,
                Long("conversions") => o.conversions = number(&text(&mut args)?)?,
                Long("sizes") => o.sizes = sizes(&text(&mut args)?)?,
                Long("join") => o.join = true,
                Long("follow") => o.follow = Some(args.value().map_err(usage)?.into()),
                Long("seed") => o.seed = number(&text(&mut args)?)?,
                Long("hwpts") => o.hwpts = number(&text(&mut args)?)?.clamp(1, 64) as usize,
                Long("idle") => o.idle = true,
                Long("rounds") => o.rounds = number(&text(&mut args)?)?.max(1),
                Long("samples") => o.samples = Some(args.value().map_err(usage)?.into()),
                Long("areas") => o.areas = number(&text(&mut args)?)?.max(1),
                Long("json") => o.json = Some(args.value().map_err(usage)?.into()),
                Value(v) if mode.is_none() => mode = Some(self::mode(&v.to_string_lossy())?),
                Value(v) => o.addresses.push(v.to_string_lossy().into_owned()),
                other => return Err(usage(other.unexpected())),
            }
        }
        o.mode = mode.ok_or("say what to do: convert, cost, gaps or wear; --help tells more")?;
        o.check()?;
        Ok(Some(o))
    }

    /// Whether conversions keep to one half of every chunk, and the disks to the other. Else they
    /// have a chunk each by turns.
    pub(crate) fn halves(&self) -> bool {
        self.follow.is_none() && self.sizes.1 <= CHUNK / 2
    }

    fn check(&self) -> Result<()> {
        if self.addresses.is_empty() {
            return Err(
                "give the PCI address of at least one device that is bound to vfio-pci".into(),
            );
        }
        if ![PAGE, CHUNK, 1 << 30].contains(&self.pages) {
            return Err("--pages is 4K, 2M or 1G".into());
        }
        // One chunk in two is for the disks, and a copy needs two.
        let least = self.pages.max(4 * CHUNK * self.addresses.len() as u64);
        if !self.backing.is_multiple_of(least.next_power_of_two()) || self.backing == 0 {
            return Err(format!(
                "--backing has to be a multiple of {} bytes: whole pages, and room for each device",
                least.next_power_of_two()
            ));
        }
        if !self.memory.is_multiple_of(self.backing) || self.memory == 0 {
            return Err("--memory has to be a multiple of --backing".into());
        }
        Ok(())
    }
}

fn usage(e: lexopt::Error) -> String {
    format!("{e}; --help tells what there is")
}

fn text(args: &mut lexopt::Parser) -> Result<String> {
    args.value().and_then(|v| v.string()).map_err(usage)
}

fn size_of_arg(args: &mut lexopt::Parser) -> Result<u64> {
    number(&text(args)?)
}

fn mode(name: &str) -> Result<Mode> {
    match name {
        "convert" => Ok(Mode::Convert),
        "cost" => Ok(Mode::Cost),
        "gaps" => Ok(Mode::Gaps),
        "wear" => Ok(Mode::Wear),
        _ => Err(format!(
            "'{name}' is none of the modes convert, cost, gaps and wear"
        )),
    }
}

fn strategies(name: &str) -> Result<Vec<Strategy>> {
    match name {
        "pages" => Ok(vec![Strategy::Pages]),
        "split" => Ok(vec![Strategy::Split]),
        "both" => Ok(vec![Strategy::Pages, Strategy::Split]),
        _ => Err(format!("--strategy is pages, split or both, not '{name}'")),
    }
}

fn sizes(range: &str) -> Result<(u64, u64)> {
    let (min, max) = range.split_once("..").unwrap_or((range, range));
    let (min, max) = (number(min)?, number(max)?);
    let fits = |s: u64| s.is_power_of_two() && (PAGE..=CHUNK).contains(&s);
    if !fits(min) || !fits(max) || min > max {
        return Err(format!(
            "--sizes are powers of two from 4K to 2M, as in 4K..64K, not '{range}'"
        ));
    }
    Ok((min, max))
}

/// A number with an optional suffix: 4096, 0x1000, 4K.
pub(crate) fn number(text: &str) -> Result<u64> {
    let (digits, unit) = match text.as_bytes().last() {
        Some(b'K') => (&text[..text.len() - 1], 1 << 10),
        Some(b'M') => (&text[..text.len() - 1], 1 << 20),
        Some(b'G') => (&text[..text.len() - 1], 1 << 30),
        Some(b'T') => (&text[..text.len() - 1], 1 << 40),
        _ => (text, 1),
    };
    let parsed = match digits.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => digits.parse(),
    };
    parsed.ok().and_then(|n| n.checked_mul(unit)).ok_or(format!(
        "'{text}' is not a number (as 4096, 0x1000, 4K, 2M, 1G)"
    ))
}
