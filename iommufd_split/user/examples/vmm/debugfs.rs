// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the kernel itself says about an IOAS, with CONFIG_IOMMUFD_DEBUGFS and for root.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use crate::options::number;
use crate::Result;

/// One page table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tables {
    /// That leaves may have, one bit each.
    pub(crate) page_sizes: u64,
    /// The top one included.
    pub(crate) tables: u64,
    /// Bytes of a leaf -> how many there are.
    pub(crate) leaves: BTreeMap<u64, u64>,
}

/// `None` for the tables of a HWPT that the kernel cannot walk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) mappings: u64,
    pub(crate) mapped_bytes: u64,
    pub(crate) hwpts: BTreeMap<u64, Option<Tables>>,
}

/// Whether the kernel has the mappings, leaves and tables again that it had then: not one more, not
/// one less. Nothing is compared if it does not tell.
pub(crate) fn nothing_is_left(then: &Option<Summary>, now: &Option<Summary>) -> Result<()> {
    match then == now {
        true => Ok(()),
        false => Err(format!(
            "joins leave something behind: there was {then:?}, and is {now:?}"
        )),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Leaf {
    pub(crate) iova: u64,
    pub(crate) size: u64,
}

/// The directory of an IOAS.
pub(crate) struct Debugfs(PathBuf);

impl Debugfs {
    /// `None` if the kernel shows no IOAS, or not to us.
    pub(crate) fn new(iommufd: &impl AsRawFd, ioas_id: u32) -> Option<Self> {
        let fdinfo = format!("/proc/self/fdinfo/{}", iommufd.as_raw_fd());
        let text = std::fs::read_to_string(fdinfo).ok()?;
        let number = text
            .lines()
            .find_map(|l| l.strip_prefix("iommufd-debugfs:"))?;
        let end = format!("-{}", number.trim());
        let path = std::fs::read_dir("/sys/kernel/debug/iommufd")
            .ok()?
            .filter_map(|entry| entry.ok())
            .find(|entry| entry.file_name().to_string_lossy().ends_with(&end))?
            .path()
            .join(format!("ioas-{ioas_id}"));
        path.is_dir().then_some(Self(path))
    }

    pub(crate) fn summary(&self) -> Result<Summary> {
        let path = self.0.join("summary");
        let text = std::fs::read_to_string(&path).map_err(|e| cannot(&path, &e))?;
        summary(&text).ok_or(cannot(&path, &"it is not as expected"))
    }

    /// Of one HWPT, in order. `None` if the kernel does not list them: it does so with
    /// CONFIG_IOMMU_DEBUGFS, as a leaf has a physical address.
    pub(crate) fn leaves(&self, hwpt: u64) -> Result<Option<Vec<Leaf>>> {
        let path = self.0.join("leaves");
        if !path.exists() {
            return Ok(None);
        }
        let file = File::open(&path).map_err(|e| cannot(&path, &e))?;
        // There may be millions.
        let lines = BufReader::with_capacity(1 << 20, file);
        leaves(lines, hwpt).map(Some).map_err(|e| cannot(&path, &e))
    }
}

fn cannot(path: &Path, e: &dyn std::fmt::Display) -> String {
    format!("{} cannot be read: {e}", path.display())
}

fn summary(text: &str) -> Option<Summary> {
    let mut s = Summary::default();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["mappings", n] => s.mappings = number(n).ok()?,
            ["mapped_bytes", n] => s.mapped_bytes = number(n).ok()?,
            // Nobody maps or unmaps while we read.
            ["changing", "0"] | ["pinned_pages", _] => {}
            ["hwpt", id, "unknown"] => {
                s.hwpts.insert(number(id).ok()?, None);
            }
            ["hwpt", id, ref rest @ ..] => {
                s.hwpts.insert(number(id).ok()?, Some(tables(rest)?));
            }
            _ => return None,
        }
    }
    Some(s)
}

fn tables(words: &[&str]) -> Option<Tables> {
    let mut t = Tables::default();
    let (pairs, []) = words.as_chunks() else {
        return None;
    };
    for &[key, value] in pairs {
        let value = number(value).ok()?;
        match key {
            "page_sizes" => t.page_sizes = value,
            "tables" => t.tables = value,
            "table_bytes" => {}
            size => {
                t.leaves.insert(number(size).ok()?, value);
            }
        }
    }
    Some(t)
}

fn leaves(mut lines: impl BufRead, hwpt: u64) -> Result<Vec<Leaf>> {
    let mut all = Vec::new();
    let mut line = String::new();
    loop {
        line.clear();
        if lines.read_line(&mut line).map_err(|e| e.to_string())? == 0 {
            return Ok(all);
        }
        if line.starts_with('#') {
            continue;
        }
        let mut words = line.split_whitespace().map(|w| number(w).ok());
        let mut next = || words.next().flatten();
        let (Some(id), Some(iova), Some(size)) = (next(), next(), next()) else {
            return Err(format!("'{}' is not a leaf", line.trim_end()));
        };
        if id == hwpt {
            all.push(Leaf { iova, size });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_is_read() {
        let text = "mappings 2\nmapped_bytes 1073737728\nchanging 0\npinned_pages 262143\n\
                    hwpt 4 page_sizes 0x40201000 tables 4 table_bytes 16384 4K 511 2M 510 1G 1\n\
                    hwpt 6 unknown\n";
        let want = Summary {
            mappings: 2,
            mapped_bytes: 1073737728,
            hwpts: BTreeMap::from([
                (
                    4,
                    Some(Tables {
                        page_sizes: 0x40201000,
                        tables: 4,
                        leaves: BTreeMap::from([(4 << 10, 511), (2 << 20, 510), (1 << 30, 1)]),
                    }),
                ),
                (6, None),
            ]),
        };
        assert_eq!(summary(text), Some(want.clone()));
        // One more of anything makes a difference.
        for (from, to) in [
            ("mappings 2", "mappings 3"),
            ("1073737728", "1073741824"),
            ("tables 4", "tables 5"),
            ("2M 510", "2M 511"),
            ("2M 510", "2M 510 64K 1"),
            ("6 unknown", "7 unknown"),
        ] {
            let other = summary(&text.replace(from, to)).unwrap();
            assert_ne!(other, want, "{to}");
        }
        for (from, to) in [
            ("changing 0", "changing 1"),
            ("1G 1", "1G"),
            ("4K 511", "4Q 511"),
            ("mappings", "maps"),
        ] {
            assert_eq!(summary(&text.replace(from, to)), None, "{to}");
        }
    }

    #[test]
    fn leaves_are_read() {
        let text = "# hwpt iova size oa attrs\n4 0x100000000 0x1000 0x5000 0x3\n\
                    5 0x0 0x200000 0x0 0x3\n4 0x100200000 0x200000 0x40000000 0x83\n";
        let leaf = |iova, size| Leaf { iova, size };
        let want = [leaf(4 << 30, 4 << 10), leaf((4 << 30) + (2 << 20), 2 << 20)];
        assert_eq!(leaves(text.as_bytes(), 4).unwrap(), want);
        assert_eq!(leaves(text.as_bytes(), 5).unwrap(), [leaf(0, 2 << 20)]);
        assert!(leaves("4 0x1000\n".as_bytes(), 4).is_err());
        assert!(leaves("# hwpt 4 unknown\n".as_bytes(), 4)
            .unwrap()
            .is_empty());
    }
}
