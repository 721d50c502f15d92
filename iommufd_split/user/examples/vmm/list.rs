// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Conversions, random ones and recorded ones.

use std::path::Path;

use crate::options::{number, Options, CHUNK, PAGE};
use crate::Result;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum To {
    Private,
    Shared,
}

/// A part of guest memory changes hands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Conversion {
    pub(crate) to: To,
    /// Into guest memory, in bytes.
    pub(crate) offset: u64,
    /// In bytes.
    pub(crate) length: u64,
}

/// Splitmix64: the same list for the same seed, everywhere.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

/// What the options ask for.
pub(crate) fn conversions(options: &Options) -> Result<Vec<Conversion>> {
    match &options.follow {
        Some(path) => read(path, options),
        None => Ok(random(options)),
    }
}

/// As a confidential guest does it: parts that are private for a while.
fn random(options: &Options) -> Vec<Conversion> {
    let mut random = Random(options.seed);
    let most = (options.memory / CHUNK / 4).clamp(1, 8);
    let mut private: Vec<Conversion> = Vec::new();
    let mut list = Vec::new();
    while (list.len() as u64) < 2 * options.conversions {
        let left = 2 * options.conversions - list.len() as u64;
        let count = private.len() as u64;
        if count >= left || count >= most || count > most / 2 && random.below(2) == 0 {
            let i = random.below(count) as usize;
            let c = private.swap_remove(i);
            list.push(Conversion {
                to: To::Shared,
                ..c
            });
            continue;
        }
        let c = pick(&mut random, options);
        if private.iter().all(|p| p.offset / CHUNK != c.offset / CHUNK) {
            private.push(c);
            list.push(c);
        }
    }
    list
}

/// Some part of memory that is not the disks' becomes private.
pub(crate) fn pick(random: &mut Random, options: &Options) -> Conversion {
    let steps = (options.sizes.1 / options.sizes.0).ilog2() + 1;
    let length = options.sizes.0 << random.below(steps.into());
    let chunks = options.memory / CHUNK;
    let (chunk, room) = match options.halves() {
        true => (random.below(chunks), CHUNK / 2),
        false => (2 * random.below(chunks / 2), CHUNK),
    };
    let offset = chunk * CHUNK + random.below(room / length) * length;
    Conversion {
        to: To::Private,
        offset,
        length,
    }
}

fn read(path: &Path, options: &Options) -> Result<Vec<Conversion>> {
    let text = std::fs::read_to_string(path)
        .map_err(|e| format!("{} cannot be read: {e}", path.display()))?;
    let mut list = Vec::new();
    for (i, line) in text.lines().enumerate() {
        let words: Vec<&str> = line
            .split('#')
            .next()
            .unwrap_or("")
            .split_whitespace()
            .collect();
        if words.is_empty() {
            continue;
        }
        let c = parse(&words, options).map_err(|e| format!("{}:{}: {e}", path.display(), i + 1))?;
        list.push(c);
    }
    Ok(list)
}

fn parse(words: &[&str], options: &Options) -> Result<Conversion> {
    let [to, offset, length] = words else {
        return Err(format!(
            "{} words where 'private OFFSET LENGTH' has 3",
            words.len()
        ));
    };
    let to = match *to {
        "private" => To::Private,
        "shared" => To::Shared,
        other => return Err(format!("'{other}' is neither private nor shared")),
    };
    let (offset, length) = (number(offset)?, number(length)?);
    if offset % PAGE != 0 || length % PAGE != 0 || length == 0 {
        return Err("offset and length have to be whole pages of 4K, and the length not 0".into());
    }
    if offset
        .checked_add(length)
        .is_none_or(|end| end > options.memory)
    {
        return Err(format!(
            "the range ends behind the {:#x} bytes of --memory",
            options.memory
        ));
    }
    let even =
        (offset / CHUNK).is_multiple_of(2) && offset / CHUNK == (offset + length - 1) / CHUNK;
    if !options.idle && !even {
        return Err(
            "the disks copy in 2M to 4M, 6M to 8M and so on: not there, or with --idle".into(),
        );
    }
    Ok(Conversion { to, offset, length })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::areas::Areas;

    fn options(args: &[&str]) -> Options {
        let all = ["vmm", "convert"]
            .iter()
            .chain(args)
            .chain(&["0000:00:01.0"]);
        Options::parse(lexopt::Parser::from_iter(all))
            .unwrap()
            .unwrap()
    }

    #[test]
    fn random_lists_make_sense() {
        for (seed, sizes) in [
            ("1", "4K..1M"),
            ("2", "4K..2M"),
            ("3", "2M"),
            ("4", "64K..64K"),
        ] {
            let options = options(&["--seed", seed, "--conversions", "500", "--sizes", sizes]);
            let list = conversions(&options).unwrap();
            assert_eq!(list.len(), 1000);
            let mut areas = Areas::default();
            areas.map(0, options.memory);
            for c in &list {
                assert!((options.sizes.0..=options.sizes.1).contains(&c.length));
                assert_eq!(c.offset % c.length, 0);
                // The rest is the disks'.
                match options.halves() {
                    true => assert!(c.offset % CHUNK + c.length <= CHUNK / 2),
                    false => assert_eq!(c.offset / CHUNK % 2, 0),
                }
                assert_eq!(areas.mapped(c.offset, c.length), Some(c.to == To::Private));
                match c.to {
                    To::Private => areas.carve(c.offset, c.length),
                    To::Shared => areas.map(c.offset, c.length),
                }
            }
            assert_eq!(areas.mapped(0, options.memory), Some(true));
        }
    }

    #[test]
    fn little_memory_is_enough() {
        let options = options(&[
            "--memory",
            "16M",
            "--backing",
            "16M",
            "--pages",
            "4K",
            "--sizes",
            "2M",
        ]);
        assert_eq!(conversions(&options).unwrap().len(), 2000);
    }

    #[test]
    fn lines_are_read_or_refused() {
        let options = options(&["--memory", "1G", "--idle"]);
        let read = |line: &str| parse(&line.split_whitespace().collect::<Vec<_>>(), &options);
        let want = Conversion {
            to: To::Shared,
            offset: 0x1000,
            length: 2 << 20,
        };
        assert_eq!(read("shared 0x1000 2M"), Ok(want));
        assert!(read("private 1023M 1M").is_ok());
        for (line, text) in [
            ("private 0", "2 words"),
            ("open 0 4K", "neither"),
            ("private 0 4k", "not a number"),
            ("private 0 99999999999999999999", "not a number"),
            ("private 0 999999999999G", "not a number"),
            ("private 1 4K", "whole pages"),
            ("private 0 0", "not 0"),
            ("private 1023M 1028K", "behind"),
            ("private 0xfffffffffffff000 8K", "behind"),
        ] {
            let error = read(line).unwrap_err();
            assert!(error.contains(text), "{line}: {error}");
        }
        let busy = Options {
            idle: false,
            ..options.clone()
        };
        for line in ["private 2M 4K", "private 4092K 8K", "private 0 4M"] {
            let error = parse(&line.split(' ').collect::<Vec<_>>(), &busy).unwrap_err();
            assert!(error.contains("the disks copy"), "{line}: {error}");
        }
        assert!(parse(&["private", "4M", "2M"], &busy).is_ok());
    }
}
