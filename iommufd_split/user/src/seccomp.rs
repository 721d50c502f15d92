// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The ioctls of this crate, for seccomp filters.
//!
//! Filters are per thread, so the ioctls are listed by what a thread does. Each list is all that
//! the crate calls there, and nothing else is in it; what the VMM calls by itself comes in
//! addition, such as `IOMMU_IOAS_ALLOC` to make an IOAS and `IOMMU_DESTROY` where the last owner of
//! one goes: a [`SharedMemory`](crate::SharedMemory) can be that.
//!
//! ```
//! use iommufd_split::seccomp::Role;
//!
//! // The second argument of ioctl() has to be one of these.
//! let mut allowed = Role::Convert.ioctls().to_vec();
//! // A thread that plugs in devices as well.
//! allowed.extend(Role::SetUp.ioctls());
//! assert!(allowed.contains(&0x3b96));
//! ```

use iommufd_bindings::iommufd::{
    IOMMUFD_CMD_GET_HW_INFO, IOMMUFD_CMD_HWPT_GET_DIRTY_BITMAP, IOMMUFD_CMD_IOAS_MAP,
    IOMMUFD_CMD_IOAS_MAP_FILE, IOMMUFD_CMD_IOAS_UNMAP, IOMMUFD_TYPE,
};

use crate::{IOMMUFD_CMD_IOAS_JOIN, IOMMUFD_CMD_IOAS_SPLIT};

/// What a thread does with this crate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Role {
    /// Asks IOMMUs what they can: [`SharedMemory::new`](crate::SharedMemory::new),
    /// [`SharedMemory::with_granularity`](crate::SharedMemory::with_granularity),
    /// [`SharedMemory::accepts`](crate::SharedMemory::accepts),
    /// [`Tracker::ioas_for`](crate::Tracker::ioas_for), [`can_split`](crate::can_split()),
    /// [`can_carve`](crate::can_carve()), [`can_restore`](crate::can_restore()).
    SetUp,
    /// Shares memory and takes it away: every other method of [`SharedMemory`](crate::SharedMemory)
    /// and [`Tracker`](crate::Tracker), [`split`](crate::split()), [`carve`](crate::carve()),
    /// [`join`](crate::join()), [`restore`](crate::restore()). Also [`try_split`](crate::try_split()) and
    /// [`SharedMemory::by_trial`](crate::SharedMemory::by_trial), which call `memfd_create` and
    /// `ftruncate`, too.
    Convert,
    /// Reads dirty bits: [`read_dirty`](crate::read_dirty()),
    /// [`Tracker::read_dirty`](crate::Tracker::read_dirty).
    Migrate,
}

impl Role {
    /// All of them.
    pub const ALL: &'static [Self] = &[Self::SetUp, Self::Convert, Self::Migrate];

    /// The numbers of the ioctls, the second argument of `ioctl()`.
    pub const fn ioctls(self) -> &'static [u64] {
        match self {
            Self::SetUp => SET_UP,
            Self::Convert => CONVERT,
            Self::Migrate => MIGRATE,
        }
    }
}

const SET_UP: &[u64] = &[
    number(IOMMUFD_CMD_GET_HW_INFO),
    number(IOMMUFD_CMD_IOAS_SPLIT),
    number(IOMMUFD_CMD_IOAS_JOIN),
];
const CONVERT: &[u64] = &[
    number(IOMMUFD_CMD_IOAS_MAP),
    number(IOMMUFD_CMD_IOAS_MAP_FILE),
    number(IOMMUFD_CMD_IOAS_UNMAP),
    number(IOMMUFD_CMD_IOAS_SPLIT),
    number(IOMMUFD_CMD_IOAS_JOIN),
];
const MIGRATE: &[u64] = &[number(IOMMUFD_CMD_HWPT_GET_DIRTY_BITMAP)];

/// `_IO(IOMMUFD_TYPE, command)`, where the bits of "no argument" are 0: everywhere but on Alpha,
/// MIPS, PowerPC and SPARC.
const fn number(command: u32) -> u64 {
    ((IOMMUFD_TYPE as u64) << 8) | command as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, ExitStatus};
    use std::sync::Arc;

    use iommufd_ioctls::IommuFd;
    use seccompiler::{
        apply_filter, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
        SeccompFilter, SeccompRule,
    };

    use crate::ioctls::page_size;
    use crate::{Clear, Granularity, Permissions, SharedMemory};

    const ROLE: &str = "IOMMUFD_SPLIT_TEST_ROLE";
    const ALLOWED: &str = "IOMMUFD_SPLIT_TEST_ALLOWED";

    #[test]
    fn numbers_are_the_documented_ones() {
        assert_eq!(Role::SetUp.ioctls(), [0x3b8a, 0x3b96, 0x3b97]);
        assert_eq!(
            Role::Convert.ioctls(),
            [0x3b85, 0x3b8f, 0x3b86, 0x3b96, 0x3b97]
        );
        assert_eq!(Role::Migrate.ioctls(), [0x3b8c]);
    }

    /// Each role does all it can do under a filter with its list, and dies under one with any of
    /// the list missing.
    #[test]
    fn the_lists_are_complete_and_have_nothing_else() {
        for (i, role) in Role::ALL.iter().enumerate() {
            let ended = under_filter(i, role.ioctls());
            assert!(ended.success(), "{role:?}: {ended}");
            for missing in role.ioctls() {
                let left: Vec<u64> = role
                    .ioctls()
                    .iter()
                    .copied()
                    .filter(|n| n != missing)
                    .collect();
                let ended = under_filter(i, &left);
                assert_eq!(
                    ended.signal(),
                    Some(libc::SIGSYS),
                    "{role:?} without {missing:#x}: {ended}"
                );
            }
        }
    }

    /// In a process of its own, as the kernel kills it for what is not allowed.
    fn under_filter(role: usize, allowed: &[u64]) -> ExitStatus {
        let allowed: Vec<String> = allowed.iter().map(u64::to_string).collect();
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "seccomp::tests::a_role", "--ignored", "--quiet"])
            .env(ROLE, role.to_string())
            .env(ALLOWED, allowed.join(" "))
            .output()
            .unwrap()
            .status
    }

    #[test]
    #[ignore = "is run by the_lists_are_complete_and_have_nothing_else"]
    fn a_role() {
        let role: usize = std::env::var(ROLE).unwrap().parse().unwrap();
        let allowed = std::env::var(ALLOWED).unwrap();
        let allowed: Vec<u64> = allowed
            .split_whitespace()
            .map(|n| n.parse().unwrap())
            .collect();
        // A device without ioctls.
        let iommufd = Arc::new(IommuFd::new_from_fd(File::open("/dev/null").unwrap()));
        let shared = |granularity| {
            SharedMemory::with_granularity(Arc::clone(&iommufd), 1, granularity).unwrap()
        };
        let whole = shared(Granularity::Whole);
        let pieces = shared(Granularity::Pieces(page_size()));
        let file = File::open("/dev/null").unwrap();
        let filter = ioctls_only(&allowed);
        // A thread of its own, as what tests print asks the terminal.
        let thread = std::thread::spawn(move || {
            let (length, read) = (page_size(), Permissions::Read);
            apply_filter(&filter).unwrap();
            match Role::ALL[role] {
                Role::SetUp => drop(SharedMemory::new(iommufd, 1, &[1]).unwrap()),
                Role::Convert => {
                    whole
                        .share_file(file.as_fd(), 0, 0, length, read)
                        .unwrap_err();
                    whole.map_memory(0, 0, length, read).unwrap_err();
                    whole.carve(0, length).unwrap_err();
                    pieces.carve(0, length).unwrap_err();
                    // This kernel cannot, so the tracker would not call it.
                    whole.fill(0, length).unwrap_err();
                }
                Role::Migrate => {
                    crate::read_dirty(&iommufd, 1, 0, length, Clear::Yes, |_, _| ()).unwrap_err();
                }
            }
        });
        thread.join().unwrap();
    }

    /// Every system call, and of the ioctls these. A rule matches what is none of them.
    fn ioctls_only(allowed: &[u64]) -> BpfProgram {
        let differs = |&number: &u64| {
            SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, number).unwrap()
        };
        // 0 is no ioctl: a rule needs a condition.
        let conditions = allowed.iter().chain([&0]).map(differs).collect();
        let rules =
            BTreeMap::from([(libc::SYS_ioctl, vec![SeccompRule::new(conditions).unwrap()])]);
        let arch = std::env::consts::ARCH.try_into().unwrap();
        SeccompFilter::new(
            rules,
            SeccompAction::Allow,
            SeccompAction::KillProcess,
            arch,
        )
        .unwrap()
        .try_into()
        .unwrap()
    }
}
