//! What a sandbox uses, as far as it can be seen from outside: its processes in its own `/proc`, its files in their folders.
//!
//! The supervisor's root is that of the sandbox as soon as process 1 has switched to it, because both are in one mount
//! namespace; the supervisor's pid namespace is the host's. Nothing here follows a path that a step could lead elsewhere.
//!
//! What ends or is removed while it is looked at is left out. Sums are never above what is used, so that nothing is killed for
//! pages and files that are shared. Sources: proc_pid_statm(5), proc_pid_smaps(5), proc_sysvipc(5).

use std::collections::BTreeSet;
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, StatFs};
use rustix::io::Errno;

use super::family;
use crate::limits::MAX_SCRATCH_DEPTH;

/// Unit of `st_blocks`.
const BLOCK_BYTES: u64 = 512;
/// Magic numbers of file systems in memory: `tmpfs`, which has shared memory too, and `hugetlbfs`.
const MEMORY_FILE_SYSTEMS: [u64; 2] = [0x0102_1994, 0x9584_58f6];

/// Which processes are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Processes {
    /// Those of the sandbox's own `/proc`.
    OfSandbox,
    /// Those that this process and its children started, by the host's.
    Descendants,
}

impl Processes {
    /// Whether `/proc` shows them. That of the sandbox does not have this process in it.
    pub(super) fn are_seen(self) -> bool {
        let is_own = rustix::fs::readlink("/proc/self", Vec::new()).err() == Some(Errno::NOENT);
        is_own == (self == Self::OfSandbox)
    }

    /// Their numbers there, without those that are the helper's own.
    fn list(self) -> Vec<u32> {
        if self == Self::Descendants {
            let own = rustix::process::getpgrp();
            let others = family::descendants().into_iter().filter(|member| member.group != own);
            return others.map(|member| member.process.as_raw_pid().unsigned_abs()).collect();
        }
        let Ok(entries) = open(CWD, "/proc").and_then(Dir::new) else { return Vec::new() };
        let number = |name: &str| name.parse().ok().filter(|number| *number != 1);
        entries.flatten().filter_map(|entry| entry.file_name().to_str().ok().and_then(number)).collect()
    }
}

/// Size of the machine's pages. To be asked for before the sandbox is made: a kernel before Linux 6.4 tells it in a file of this
/// process's own folder of `/proc`.
pub(super) fn page_bytes() -> u64 {
    rustix::param::page_size() as u64
}

/// Processes with threads, and an upper limit of the bytes that they have in memory: what several share counts for each.
pub(super) fn tasks_and_resident_bytes(processes: Processes, page_bytes: u64) -> (u64, u64) {
    let (mut tasks, mut pages) = (0, 0);
    for process in processes.list() {
        // A link for each thread, and two as every folder has.
        if let Ok(stat) = rustix::fs::stat(format!("/proc/{process}/task")) {
            #[allow(clippy::useless_conversion, reason = "the number has 32 bits on 64-bit Arm, and 64 on x86-64")]
            let link_count = u64::from(stat.st_nlink);
            tasks += link_count.saturating_sub(2).max(1);
        }
        let text = read(&format!("/proc/{process}/statm"));
        pages += text.split(' ').nth(1).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    }
    (tasks, pages * page_bytes)
}

/// Bytes of the processes that are nobody else's and no file's, and bytes of files in memory that they have mapped.
///
/// The kernel walks through all that is mapped for it, so it is only asked when there may be too much.
pub(super) fn own_and_mapped_bytes(processes: Processes) -> (u64, u64) {
    let (mut own, mut mapped) = (0, 0);
    for process in processes.list() {
        for line in read(&format!("/proc/{process}/smaps_rollup")).lines() {
            let Some((name, value)) = line.split_once(':') else { continue };
            let bytes =
                value.trim().strip_suffix(" kB").and_then(|number| number.parse::<u64>().ok()).unwrap_or(0) << 10;
            match name {
                "Pss_Anon" | "SwapPss" => own += bytes,
                "Pss_Shmem" => mapped += bytes,
                _ => {}
            }
        }
    }
    (own, mapped)
}

/// Bytes used of a file system in memory of the sandbox.
pub(super) fn used_of_mount(path: &str) -> u64 {
    rustix::fs::statfs(path).map_or(0, |stat| used_bytes(&stat))
}

fn used_bytes(stat: &StatFs) -> u64 {
    (stat.f_blocks.saturating_sub(stat.f_bfree)).saturating_mul(stat.f_frsize.unsigned_abs())
}

/// Bytes of shared memory of the host, that of all sandboxes with it.
fn shared_memory_of_host() -> u64 {
    let text = read("/proc/meminfo");
    let line = text.lines().find_map(|line| line.strip_prefix("Shmem:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok()).unwrap_or(0) << 10
}

/// Bytes of System V shared memory: the supervisor is in the sandbox's namespace for it.
fn segments() -> u64 {
    const RESIDENT: usize = 14;
    let text = read("/proc/sysvipc/shm");
    let resident = |line: &str| line.split_whitespace().nth(RESIDENT)?.parse::<u64>().ok();
    text.lines().skip(1).filter_map(resident).sum()
}

/// How full the file systems are on which a sandbox writes, to see cheaply whether it can have written much.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Levels {
    pub(super) bytes: u64,
    pub(super) entries: u64,
    pub(super) memory_bytes: u64,
}

impl Levels {
    pub(super) fn now(folders: &[OwnedFd]) -> Self {
        let mut levels = Self { memory_bytes: shared_memory_of_host(), ..Self::default() };
        for stat in folders.iter().filter_map(|folder| rustix::fs::fstatfs(folder).ok()) {
            levels.bytes += used_bytes(&stat);
            levels.entries += stat.f_files.saturating_sub(stat.f_ffree);
        }
        levels
    }
}

/// The files of a sandbox.
#[derive(Debug, Default)]
pub(super) struct Files {
    /// What they take on disk.
    pub(super) bytes: u64,
    /// Their number, with folders.
    pub(super) entries: u64,
    /// What those without a name take in memory, and System V shared memory.
    pub(super) memory_bytes: u64,
    /// Whether folders are deeper in each other than they may be, so that not all was seen.
    pub(super) is_too_deep: bool,
    /// Device and number of files that can be met again.
    met: BTreeSet<(u64, u64)>,
}

impl Files {
    /// What there is below some folders, and what processes hold open that has no name any more.
    pub(super) fn now(folders: &[OwnedFd], processes: Processes) -> Self {
        let mut files = Self::default();
        for folder in folders {
            files.add_below(folder);
        }
        if processes.are_seen() {
            // Those of the host are of others, too.
            if processes == Processes::OfSandbox {
                files.memory_bytes += segments();
            }
            for process in processes.list() {
                files.add_open(process);
            }
        }
        files
    }

    fn add_below(&mut self, folder: &OwnedFd) {
        let Ok(first) = open(folder.as_fd(), ".") else { return };
        let names = self.list(&first);
        let mut stack = vec![(first, names)];
        while let Some((folder, names)) = stack.last_mut() {
            let Some(name) = names.pop() else {
                stack.pop();
                continue;
            };
            let Ok(inner) = open(folder.as_fd(), &name) else { continue };
            if stack.len() > MAX_SCRATCH_DEPTH {
                self.is_too_deep = true;
                continue;
            }
            let names = self.list(&inner);
            stack.push((inner, names));
        }
    }

    /// Adds the entries of a folder; gives the folders among them.
    fn list(&mut self, folder: &OwnedFd) -> Vec<CString> {
        let mut folders = Vec::new();
        let Ok(entries) = Dir::read_from(folder) else { return folders };
        for entry in entries.flatten() {
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let Ok(stat) = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            self.entries += 1;
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                folders.push(name.to_owned());
                self.bytes += stat.st_blocks.unsigned_abs() * BLOCK_BYTES;
            } else if stat.st_nlink == 1 || self.is_new(&stat) {
                self.bytes += stat.st_blocks.unsigned_abs() * BLOCK_BYTES;
            }
        }
        folders
    }

    /// Adds what a process has open and what has no name: removed, or made so.
    fn add_open(&mut self, process: u32) {
        let folder = format!("/proc/{process}/fd");
        let Ok(entries) = open(CWD, folder.as_str()).and_then(Dir::new) else { return };
        for entry in entries.flatten() {
            let Ok(name) = entry.file_name().to_str() else { continue };
            let path = format!("{folder}/{name}");
            let Ok(stat) = rustix::fs::stat(&path) else { continue };
            if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile
                || stat.st_nlink > 0
                || !self.is_new(&stat)
            {
                continue;
            }
            let bytes = stat.st_blocks.unsigned_abs() * BLOCK_BYTES;
            let kind = rustix::fs::statfs(&path).map_or(0, |stat| stat.f_type.unsigned_abs());
            if MEMORY_FILE_SYSTEMS.contains(&kind) {
                self.memory_bytes += bytes;
            } else {
                self.bytes += bytes;
                self.entries += 1;
            }
        }
    }

    fn is_new(&mut self, stat: &Stat) -> bool {
        self.met.insert((stat.st_dev, stat.st_ino))
    }
}

fn open(at: impl AsFd, name: impl rustix::path::Arg) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(at, name, flags, Mode::empty())
}

/// What is in a file of `/proc`; nothing if its process has ended.
fn read(path: &str) -> String {
    cas_fs::read_to_string(Path::new(path)).unwrap_or_default()
}
