//! How much a command may use, and what holds it to that.
//!
//! Held by the helper: [`crate::helper`]. Which numbers a step gets is decided by `cas-build`.

use std::fmt;

use rustix::thread::CpuSet;
use serde::{Deserialize, Serialize};

use crate::cgroup::Group;

/// Most folders inside of each other that a command may make, if it has a limit of bytes or entries: as many as a tree may have.
pub const MAX_SCRATCH_DEPTH: usize = 1024;

/// How much a command and all that it starts may use together. What is `None` has no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Memory in bytes, that of files in memory with it.
    pub memory_bytes: Option<u64>,
    /// Processes and threads at a time.
    pub process_count: Option<u64>,
    /// Bytes on disk of all that it writes, in folders that stay as well, and of files that it deleted and holds open.
    pub scratch_bytes: Option<u64>,
    /// Files and folders that it makes, in the same places.
    pub scratch_entries: Option<u64>,
    /// What is to hold memory and processes; `None` is the best that this host has, in the order of [`Enforcement`].
    pub enforcement: Option<Enforcement>,
}

impl Limits {
    /// Whether there is something for a group of processes to hold.
    pub(crate) fn has_group(&self) -> bool {
        self.memory_bytes.is_some() || self.process_count.is_some()
    }

    /// Whether what is written has a limit.
    pub(crate) fn has_scratch(&self) -> bool {
        self.scratch_bytes.is_some() || self.scratch_entries.is_some()
    }
}

/// Numbers of the processors that this thread may use, in their order; empty where they cannot be told, as on a machine with
/// more than 1024.
#[must_use]
pub fn processors() -> Vec<usize> {
    let allowed = rustix::thread::sched_getaffinity(None);
    allowed.map_or_else(|_| Vec::new(), |set| (0..CpuSet::MAX_CPU).filter(|number| set.is_set(*number)).collect())
}

/// What a command had more of than it may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Limit {
    /// [`Limits::memory_bytes`].
    Memory,
    /// [`Limits::process_count`].
    Processes,
    /// [`Limits::scratch_bytes`].
    ScratchBytes,
    /// [`Limits::scratch_entries`].
    ScratchEntries,
    /// Folders inside of each other, of which there may be [`MAX_SCRATCH_DEPTH`](crate::MAX_SCRATCH_DEPTH).
    ScratchDepth,
}

/// What holds memory and processes to their limits, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Enforcement {
    /// The kernel, by a control group of the unified hierarchy.
    CgroupV2,
    /// The kernel, by control groups of the hierarchies `memory` and `pids`.
    CgroupV1,
    /// The helper, which looks at the sandbox's `/proc` from outside. It is soft: what is quick enough can be over the limit for
    /// a moment before it is killed.
    Watched,
}

impl Enforcement {
    /// What this host has for this process, found out by making a group and removing it.
    #[must_use]
    pub fn best() -> Self {
        let limits = Limits { memory_bytes: Some(1 << 30), process_count: Some(1 << 10), ..Limits::default() };
        [Self::CgroupV2, Self::CgroupV1]
            .into_iter()
            .find(|enforcement| Group::make(&limits, *enforcement).is_ok())
            .unwrap_or(Self::Watched)
    }

    /// What makes it better on this host, if it is not good.
    #[must_use]
    pub fn hint(self) -> Option<String> {
        (self == Self::Watched).then(|| {
            let user = if rustix::process::geteuid().is_root() { "" } else { "--user " };
            format!(
                "start it with `systemd-run {user}--scope -p Delegate=yes cas …` for hard ones (cgroup v2, systemd 251)"
            )
        })
    }
}

impl fmt::Display for Enforcement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CgroupV2 => "cgroup v2",
            Self::CgroupV1 => "cgroup v1",
            Self::Watched => "soft, watched",
        })
    }
}
