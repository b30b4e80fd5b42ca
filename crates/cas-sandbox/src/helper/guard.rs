//! What holds the sandbox to its limits, seen from the supervisor.
//!
//! A group of the kernel's holds memory and processes where there is one, and is asked what it refused. What nothing holds is
//! looked at again and again. The first look comes late, so that short steps pay for none, and looking takes a bounded share of
//! the time: who is slow to look at is looked at less often.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use cas_sys::Fork;
use rustix::fs::{Mode, OFlags};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::usage::{self, Files, Levels, Processes};
use super::{At, Setup};
use crate::cgroup::Group;
use crate::limits::{Enforcement, Limit, Limits};
use crate::wire::{Bytes, Job, Stage};

/// Time between two looks at processes, and before the first one.
const LOOK: Duration = Duration::from_millis(100);
/// Time between two looks at all files if their file systems do not get fuller.
const LOOK_AT_FILES: Duration = Duration::from_secs(2);
/// How much longer than a look the pause behind it is, at least.
const PAUSE_FACTOR: u32 = 20;
/// The same where nothing tells that it is needed.
const IDLE_PAUSE_FACTOR: u32 = 50;

/// The limits of one sandbox, and what holds it to them.
pub(super) struct Guard {
    limits: Limits,
    group: Option<Group>,
    /// Where the sandbox writes.
    folders: Vec<OwnedFd>,
    /// File systems of the sandbox in memory.
    memory_mounts: Vec<&'static str>,
    page_bytes: u64,
    /// Which processes are looked at.
    processes: Processes,
    /// How full file systems were when the files were looked at.
    levels: Levels,
    files: Files,
    next_look: Instant,
    /// Not before this, and at that one anyway.
    files_between: (Instant, Instant),
}

impl Guard {
    /// Makes the group, and opens the folders.
    pub(super) fn new(job: &Job) -> Setup<Self> {
        let uppers = [Some(&job.root), job.source.as_ref()].into_iter().flatten().map(|layers| &layers.upper);
        let folders = uppers.chain(job.private.iter().map(|(host, _)| host));
        let memory_mounts = ["/dev/shm"].into_iter().chain(job.tmp_size_bytes.map(|_| "/tmp")).collect();
        Self::of(job.limits, folders, memory_mounts, Processes::OfSandbox)
    }

    /// The same for descendants of this process that have no sandbox, and are meant to write in a folder.
    pub(super) fn of_folder(limits: Limits, folder: &Bytes) -> Setup<Self> {
        Self::of(limits, std::iter::once(folder), Vec::new(), Processes::Descendants)
    }

    fn of<'a>(
        limits: Limits,
        folders: impl Iterator<Item = &'a Bytes>,
        memory_mounts: Vec<&'static str>,
        processes: Processes,
    ) -> Setup<Self> {
        let group = match limits.enforcement {
            _ if !limits.has_group() => None,
            Some(Enforcement::Watched) => None,
            Some(version) => Some(Group::make(&limits, version).at(Stage::Group)?),
            None => [Enforcement::CgroupV2, Enforcement::CgroupV1]
                .into_iter()
                .find_map(|version| Group::make(&limits, version).ok()),
        };
        let folders = match limits.has_scratch() {
            true => folders.map(open_folder).collect::<Setup<_>>()?,
            false => Vec::new(),
        };
        let first = Instant::now() + LOOK;
        Ok(Self {
            limits,
            group,
            page_bytes: usage::page_bytes(),
            memory_mounts,
            processes,
            levels: Levels::now(&folders),
            folders,
            files: Files::default(),
            next_look: first,
            files_between: (first, Instant::now() + LOOK_AT_FILES),
        })
    }

    /// Forks the process that is to call [`Guard::enter`].
    pub(super) fn fork(&self) -> Setup<Fork> {
        self.group.as_ref().map_or_else(cas_sys::fork, Group::fork).at(Stage::Fork)
    }

    /// Puts this process under the limits, with all that it starts.
    pub(super) fn enter(&self) -> Setup<()> {
        self.group.as_ref().map_or(Ok(()), Group::enter).at(Stage::Group)
    }

    /// When to look again, if ever.
    pub(super) fn next_look(&self) -> Option<Instant> {
        (self.limits.has_group() || self.limits.has_scratch()).then_some(self.next_look)
    }

    /// The limit that the sandbox is over.
    pub(super) fn look(&mut self) -> Option<Limit> {
        let started = Instant::now();
        let is_watched = self.group.is_none() && self.limits.has_group() && self.processes.are_seen();
        let over = self
            .refused()
            .or_else(|| self.look_at_files(is_watched))
            .or_else(|| is_watched.then(|| self.look_at_processes()).flatten());
        let now = Instant::now();
        self.next_look = now + LOOK.max((now - started) * PAUSE_FACTOR);
        over
    }

    /// The limit that the kernel held it to.
    pub(super) fn refused(&self) -> Option<Limit> {
        self.group.as_ref().and_then(Group::over)
    }

    fn look_at_processes(&self) -> Option<Limit> {
        let (tasks, resident) = usage::tasks_and_resident_bytes(self.processes, self.page_bytes);
        if is_over(tasks, self.limits.process_count) {
            return Some(Limit::Processes);
        }
        let mounts = self.memory_mounts.iter().map(|path| usage::used_of_mount(path)).sum::<u64>();
        let in_files = mounts + self.files.memory_bytes;
        if !is_over(resident + in_files, self.limits.memory_bytes) {
            return None;
        }
        let (own, mapped) = usage::own_and_mapped_bytes(self.processes);
        // What is mapped may be in the files, or be all that is left of one.
        is_over(own + in_files.max(mapped), self.limits.memory_bytes).then_some(Limit::Memory)
    }

    fn look_at_files(&mut self, is_watched: bool) -> Option<Limit> {
        if !self.limits.has_scratch() && !is_watched {
            return None;
        }
        let (started, levels) = (Instant::now(), Levels::now(&self.folders));
        let (not_before, at_last) = self.files_between;
        if started < not_before || (started < at_last && !self.may_be_over(&levels, is_watched)) {
            return None;
        }
        raise_open_files();
        self.files = Files::now(&self.folders, self.processes);
        self.levels = levels;
        let now = Instant::now();
        let cost = now - started;
        self.files_between = (now + cost * PAUSE_FACTOR, now + LOOK_AT_FILES.max(cost * IDLE_PAUSE_FACTOR));
        if is_over(self.files.bytes, self.limits.scratch_bytes) {
            Some(Limit::ScratchBytes)
        } else if is_over(self.files.entries, self.limits.scratch_entries) {
            Some(Limit::ScratchEntries)
        } else if self.files.is_too_deep && self.limits.has_scratch() {
            Some(Limit::ScratchDepth)
        } else {
            None
        }
    }

    /// Whether half of what was left to the sandbox has been used by somebody.
    fn may_be_over(&self, levels: &Levels, is_watched: bool) -> bool {
        let is_scarce = |limit: Option<u64>, used: u64, before: u64, now: u64| {
            limit.is_some_and(|limit| now.saturating_sub(before) >= limit.saturating_sub(used) / 2)
        };
        let (limits, files, before) = (&self.limits, &self.files, &self.levels);
        is_scarce(limits.scratch_bytes, files.bytes, before.bytes, levels.bytes)
            || is_scarce(limits.scratch_entries, files.entries, before.entries, levels.entries)
            || (is_watched
                && is_scarce(limits.memory_bytes, files.memory_bytes, before.memory_bytes, levels.memory_bytes))
    }
}

fn is_over(amount: u64, limit: Option<u64>) -> bool {
    limit.is_some_and(|limit| amount > limit)
}

fn open_folder(path: &Bytes) -> Setup<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path.0.as_slice(), flags, Mode::empty()).at_path(Stage::OpenLayer, &path.clone().into_path())
}

/// A look at folders holds one open for each that is around another.
fn raise_open_files() {
    let present = getrlimit(Resource::Nofile);
    // With fewer, what is deep is not seen.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: present.maximum, maximum: present.maximum });
}
