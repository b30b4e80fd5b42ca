//! What tells that a file was written to, without reading it; and when that can be relied on.
//!
//! Multigrain timestamps, and what they leave open: docs/formats/snapshot.md, "When a stamp is trusted".

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::sync::{Mutex, PoisonError};

use rustix::fs::Stat;

use crate::walk::Root;
use crate::watch::Identity;

/// How long after its last change a stamp is ambiguous on a file system with coarse times: twice the coarsest one known, FAT's.
const AMBIGUOUS_SECONDS: i64 = 2;

/// The state of an inode: a write changes at least one part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) mode: u32,
    pub(crate) size: u64,
    /// Seconds and nanoseconds.
    pub(crate) modified: (i64, u32),
    /// Seconds and nanoseconds.
    pub(crate) changed: (i64, u32),
}

impl Stamp {
    pub(crate) fn of(stat: &Stat) -> Self {
        // The kernel gives nanoseconds below 10^9, so nothing is cut off; types differ by architecture.
        #[expect(clippy::cast_possible_truncation, reason = "nanoseconds are below 2^30")]
        #[allow(clippy::unnecessary_cast, reason = "the types differ by architecture")]
        let nanoseconds = |value| value as u32;
        Self {
            device: stat.st_dev,
            inode: stat.st_ino,
            mode: stat.st_mode,
            size: stat.st_size.cast_unsigned(),
            modified: (stat.st_mtime, nanoseconds(stat.st_mtime_nsec)),
            changed: (stat.st_ctime, nanoseconds(stat.st_ctime_nsec)),
        }
    }

    pub(crate) fn identity(&self) -> Identity {
        Identity { device: self.device, inode: self.inode }
    }
}

/// Which file systems' times are believed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trust {
    /// Those of local file systems.
    #[default]
    Local,
    /// Those of network, FUSE and overlay file systems too. Their times may be another machine's, and late.
    Network,
    /// None: every file is read.
    Nothing,
}

/// File systems whose inodes the kernel itself keeps, with its own clock. What is not listed is treated like a network's.
///
/// Magic numbers: `linux/magic.h`; ZFS, bcachefs and F2FS from their sources.
const LOCAL: [i64; 10] = [
    0xEF53,      // ext2, ext3, ext4
    0x5846_5342, // XFS
    0x9123_683E, // btrfs
    0x0102_1994, // tmpfs
    0xF2F5_2010, // F2FS
    0xCA45_1A4E, // bcachefs
    0x2FC1_2FC1, // ZFS
    0x8584_58F6, // ramfs
    0x3153_464A, // JFS
    0x5265_4973, // ReiserFS
];

/// What is known of a mounted file system.
#[derive(Clone, Copy, Debug)]
struct Volume {
    is_believed: bool,
    /// Whether a change after a look at the inode always moves its change time (Linux 6.13).
    is_multigrain: bool,
}

/// The file systems of a workspace, each looked at once.
#[derive(Debug)]
pub(crate) struct Volumes {
    trust: Trust,
    known: Mutex<BTreeMap<u64, Volume>>,
}

impl Volumes {
    pub(crate) fn new(trust: Trust) -> Self {
        Self { trust, known: Mutex::new(BTreeMap::new()) }
    }

    pub(crate) fn trust(&self) -> Trust {
        self.trust
    }

    /// Whether an inode that looked like this, in a folder that is open, looks otherwise after any write later than `begun`,
    /// which is from before its content was read.
    pub(crate) fn is_trusted(&self, stamp: &Stamp, begun: Begun, folder: BorrowedFd<'_>) -> bool {
        let volume = self.volume(stamp.device, folder);
        volume.is_believed && (volume.is_multigrain || begun.is_long_after(stamp))
    }

    /// Whether what was recorded of inodes of this file system may be used at all.
    pub(crate) fn is_believed(&self, device: u64, folder: BorrowedFd<'_>) -> bool {
        self.volume(device, folder).is_believed
    }

    /// Whether the times of what is directly in the workspace's root are believed.
    pub(crate) fn is_root_believed(&self, root: &Root) -> bool {
        let root = root.descriptor();
        rustix::fs::fstat(root).is_ok_and(|stat| self.is_believed(stat.st_dev, root))
    }

    fn volume(&self, device: u64, folder: BorrowedFd<'_>) -> Volume {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(volume) = known.get(&device) {
            return *volume;
        }
        // A file that is mounted by itself is on a file system of which its folder says nothing.
        if !rustix::fs::fstat(folder).is_ok_and(|stat| stat.st_dev == device) {
            return Volume { is_believed: self.trust == Trust::Network, is_multigrain: false };
        }
        *known.entry(device).or_insert_with(|| {
            let is_believed = match self.trust {
                Trust::Nothing => false,
                Trust::Network => true,
                #[allow(clippy::useless_conversion, reason = "the type differs by architecture")]
                Trust::Local => rustix::fs::fstatfs(folder).is_ok_and(|info| LOCAL.contains(&i64::from(info.f_type))),
            };
            Volume { is_believed, is_multigrain: is_believed && cas_fs::has_multigrain_times(folder) }
        })
    }
}

/// A moment before something is read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Begun(i64);

impl Begun {
    pub(crate) fn now() -> Self {
        Self(rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse).tv_sec)
    }

    /// Whether the last change is so long before that a write from then on gives another time. A time in the future never is.
    fn is_long_after(self, stamp: &Stamp) -> bool {
        stamp.changed.0.max(stamp.modified.0) < self.0.saturating_sub(AMBIGUOUS_SECONDS)
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn what_changed_lately_or_in_the_future_is_ambiguous() {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime).tv_sec;
        let at = |modified: i64, changed: i64| Stamp {
            device: 1,
            inode: 2,
            mode: 0o100_644,
            size: 3,
            modified: (modified, 0),
            changed: (changed, 0),
        };
        for (stamp, expected) in [
            (at(now - 100, now - 100), true),
            (at(now - 100, now), false),
            (at(now, now - 100), false),
            (at(now - 100, now + 3600), false),
            (at(now - 2, now - 2), false),
        ] {
            assert_eq!(Begun::now().is_long_after(&stamp), expected, "{stamp:?} at {now}");
        }
    }

    #[test]
    fn nothing_is_believed_when_asked_so() {
        let folder = tempfile::tempdir().expect("the temporary folder is writable");
        let folder = cas_fs::open(folder.path()).expect("it is there");
        let stamp = Stamp::of(&rustix::fs::fstat(&folder).expect("it is open"));
        let old = Stamp { modified: (1, 0), changed: (1, 0), ..stamp };
        let elsewhere = stamp.device ^ 1;
        assert!(!Volumes::new(Trust::Local).is_believed(elsewhere, folder.as_fd()), "a file that is mounted by itself");
        assert!(!Volumes::new(Trust::Nothing).is_trusted(&old, Begun::now(), folder.as_fd()));
        assert!(Volumes::new(Trust::Network).is_trusted(&old, Begun::now(), folder.as_fd()));
    }
}
