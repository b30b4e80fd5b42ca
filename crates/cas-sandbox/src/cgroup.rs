//! Control groups: where this process may make one, and the one of a sandbox.
//!
//! A group is locked (`flock`) by the process that made it. So one that is not locked belongs to nobody, and whoever makes the
//! next one beside it removes it. Groups are made inside of the group of this process: its limits go on to hold.
//!
//! Of the unified hierarchy only groups are used that were handed over (`Delegate=` of systemd, a container of one's own): the
//! others belong to the one who manages the system.
//! Sources: Linux, Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/; systemd, docs/CGROUP_DELEGATION.md.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use cas_sys::Fork;
use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::limits::{Enforcement, Limit, Limits};

/// Begins the names of groups of sandboxes.
const PREFIX: &str = "cas-step-";
/// The group into which all processes of a group go that was handed over: no group has processes and groups with limits.
const OWN: &str = "cas-self";
/// Controllers that a sandbox needs.
const CONTROLLERS: [&str; 2] = ["memory", "pids"];
/// How often something is tried again that another process came between: a group that was taken for a left one before it was
/// locked, a group into which something was started while it was emptied.
const TRIES: u32 = 10;

/// The group of one sandbox, in one hierarchy or in two. It is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct Group {
    version: Enforcement,
    folders: Vec<Folder>,
}

impl Group {
    /// Makes a group with these limits.
    ///
    /// # Errors
    ///
    /// What the system says, mostly that this process may not or that there is no such hierarchy.
    pub(crate) fn make(limits: &Limits, version: Enforcement) -> io::Result<Self> {
        let parents = match version {
            Enforcement::CgroupV2 => vec![unified_parent()?],
            Enforcement::CgroupV1 => {
                let mounts = Mounts::read()?;
                CONTROLLERS.iter().map(|name| Ok(mounts.own(Some(name))?.path)).collect::<io::Result<_>>()?
            }
            Enforcement::Watched => return Err(Errno::OPNOTSUPP.into()),
        };
        let folders = parents.iter().map(|parent| Folder::make(parent, version)).collect::<io::Result<Vec<_>>>()?;
        let group = Self { version, folders };
        group.set(limits)?;
        Ok(group)
    }

    fn set(&self, limits: &Limits) -> io::Result<()> {
        let (memory, processes) = (self.memory(), self.processes());
        if let Some(bytes) = limits.memory_bytes {
            if self.version == Enforcement::CgroupV2 {
                memory.write("memory.max", bytes)?;
                memory.write("memory.oom.group", 1)?;
                // Absent where nothing is ever swapped.
                optional(memory.write("memory.swap.max", 0))?;
            } else {
                memory.write("memory.limit_in_bytes", bytes)?;
                optional(memory.write("memory.memsw.limit_in_bytes", bytes))?;
            }
        }
        if let Some(count) = limits.process_count {
            // Process 1 belongs to the sandbox, not to the command.
            processes.write("pids.max", count.saturating_add(1))?;
        }
        Ok(())
    }

    fn memory(&self) -> &Folder {
        &self.folders[0]
    }

    fn processes(&self) -> &Folder {
        self.folders.last().expect("a group has a folder")
    }

    /// Forks; the child is in the group once it has called [`Group::enter`].
    ///
    /// # Errors
    ///
    /// What the system says.
    pub(crate) fn fork(&self) -> io::Result<Fork> {
        match self.version {
            Enforcement::CgroupV2 => cas_sys::fork_into(&self.memory().folder),
            _ => cas_sys::fork(),
        }
    }

    /// Moves this process, which has one thread, into the group, if it is not there since its birth.
    ///
    /// To move another one, or a whole process, takes 12 ms, because all processors have to pass some point first.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub(crate) fn enter(&self) -> io::Result<()> {
        let files = self.folders.iter().filter_map(|folder| folder.tasks.as_ref());
        files.map(|tasks| rustix::io::write(tasks, b"0")).try_for_each(|written| Ok(written.map(drop)?))
    }

    /// The limit that processes of the group ran into, if any did.
    pub(crate) fn over(&self) -> Option<Limit> {
        let events = if self.version == Enforcement::CgroupV2 { "memory.events" } else { "memory.oom_control" };
        if self.memory().count(events, "oom_kill") > 0 {
            Some(Limit::Memory)
        } else if self.processes().count("pids.events", "max") > 0 {
            Some(Limit::Processes)
        } else {
            None
        }
    }
}

/// The folder of a group, locked.
#[derive(Debug)]
struct Folder {
    parent: OwnedFd,
    name: String,
    folder: OwnedFd,
    /// Of the older hierarchies: by what a thread moves here. It counts who opened it, and when.
    tasks: Option<OwnedFd>,
}

impl Folder {
    fn make(parent: &Path, version: Enforcement) -> io::Result<Self> {
        let parent = rustix::fs::open(parent, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        remove_left(&parent);
        let id = rustix::process::getpid().as_raw_nonzero();
        for number in 0.. {
            let name = format!("{PREFIX}{id}-{number}");
            match rustix::fs::mkdirat(&parent, &name, Mode::RWXU | Mode::RGRP | Mode::XGRP | Mode::ROTH | Mode::XOTH) {
                // Of a process of another pid namespace, or of another thread.
                Err(Errno::EXIST) => continue,
                other => other?,
            }
            match lock(&parent, &name) {
                Ok(folder) => {
                    let mut made = Self { parent, name, folder, tasks: None };
                    if version == Enforcement::CgroupV1 {
                        made.tasks = Some(made.open("tasks")?);
                    }
                    return Ok(made);
                }
                Err(Errno::NOENT | Errno::WOULDBLOCK) if number < TRIES => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    fn open(&self, file: &str) -> io::Result<OwnedFd> {
        Ok(rustix::fs::openat(&self.folder, file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?)
    }

    fn write(&self, file: &str, value: u64) -> io::Result<()> {
        rustix::io::write(self.open(file)?, value.to_string().as_bytes())?;
        Ok(())
    }

    /// The number behind a word in a file of such lines; 0 where the kernel does not tell.
    fn count(&self, file: &str, word: &str) -> u64 {
        let text = read_at(&self.folder, file).unwrap_or_default();
        let mut fields = text.lines().filter_map(|line| line.split_once(' '));
        fields.find(|(name, _)| *name == word).and_then(|(_, number)| number.parse().ok()).unwrap_or(0)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What stays, for want of a right or because a process is just ending, is removed by the next one.
        let _ = rustix::fs::unlinkat(&self.parent, &self.name, AtFlags::REMOVEDIR);
    }
}

fn lock(parent: &OwnedFd, name: &str) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = rustix::fs::openat(parent, name, flags, Mode::empty())?;
    rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive)?;
    Ok(folder)
}

/// Removes groups whose makers are dead.
fn remove_left(parent: &OwnedFd) {
    // It is done again by the next one: no failure counts.
    let Ok(entries) = rustix::fs::Dir::read_from(parent) else { return };
    for entry in entries.flatten() {
        if let Ok(name) = entry.file_name().to_str()
            && name.starts_with(PREFIX)
            && let Ok(_locked) = lock(parent, name)
        {
            let _ = rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR);
        }
    }
}

/// Takes an error that says that there is no such file as none.
fn optional(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn read_at(folder: &OwnedFd, file: &str) -> io::Result<String> {
    let file = rustix::fs::openat(folder, file, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    io::read_to_string(std::fs::File::from(file))
}

/// A folder of the unified hierarchy in which groups with limits can be made.
fn unified_parent() -> io::Result<PathBuf> {
    let own = Mounts::read()?.own(None)?;
    let parent = match own.path.parent() {
        // This process or one before it went there itself, see below.
        Some(parent) if own.path.file_name() == Some(OsStr::new(OWN)) => parent,
        _ if own.is_ours() => &own.path,
        _ => return Err(Errno::PERM.into()),
    };
    let has = |name: &str| -> io::Result<bool> {
        let text = cas_fs::read_to_string(&parent.join(name)).map_err(|error| error.source)?;
        Ok(CONTROLLERS.iter().all(|wanted| text.split_whitespace().any(|word| word == *wanted)))
    };
    if !has("cgroup.controllers")? {
        return Err(Errno::OPNOTSUPP.into());
    }
    for _ in 0..TRIES {
        if has("cgroup.subtree_control")? {
            return Ok(parent.to_owned());
        }
        match write(&parent.join("cgroup.subtree_control"), "+memory +pids") {
            // Processes are in it, among them those that were started while others were moved.
            Err(error) if error.raw_os_error() == Some(Errno::BUSY.raw_os_error()) => go_down(parent)?,
            other => other?,
        }
    }
    Err(Errno::BUSY.into())
}

/// Moves all processes of a group into one inside of it.
fn go_down(group: &Path) -> io::Result<()> {
    let own = group.join(OWN);
    match cas_fs::create_dir(&own) {
        Err(error) if !error.is_already_exists() => return Err(error.source),
        _ => {}
    }
    let processes = cas_fs::read_to_string(&group.join("cgroup.procs")).map_err(|error| error.source)?;
    for process in processes.lines() {
        match write(&own.join("cgroup.procs"), process) {
            // It ended meanwhile.
            Err(error) if error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => {}
            other => other?,
        }
    }
    Ok(())
}

/// Writes into a file that is there, at once.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let file = rustix::fs::openat(CWD, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(file, text.as_bytes())?;
    Ok(())
}

/// The group of this process in a hierarchy.
#[derive(Debug, PartialEq, Eq)]
struct Own {
    /// Its folder.
    path: PathBuf,
    /// Whether it is the uppermost one that this process can see.
    is_top: bool,
}

impl Own {
    /// Whether it was handed over, which systemd notes in an attribute: what may be written is not always for us to change.
    fn is_ours(&self) -> bool {
        let said = |name: &str| {
            let mut value = [0; 8];
            matches!(rustix::fs::getxattr(&self.path, name, &mut value), Ok(1) if value[0] == b'1')
        };
        // The first one since systemd 251; the second one can be read by root alone.
        self.is_top || said("user.delegate") || said("trusted.delegate")
    }
}

/// What the kernel tells of hierarchies: where they are mounted, and where this process is in them.
struct Mounts {
    mounts: String,
    groups: String,
}

impl Mounts {
    fn read() -> io::Result<Self> {
        let read = |path: &str| cas_fs::read_to_string(Path::new(path)).map_err(|error| error.source);
        Ok(Self { mounts: read("/proc/self/mountinfo")?, groups: read("/proc/self/cgroup")? })
    }

    /// The group of this process in the hierarchy of a controller, or in the unified one.
    fn own(&self, controller: Option<&str>) -> io::Result<Own> {
        self.find(controller).ok_or_else(|| Errno::NOENT.into())
    }

    fn find(&self, controller: Option<&str>) -> Option<Own> {
        let named = |list: &str| controller.is_none_or(|name| list.split(',').any(|word| word == name));
        // Number of the hierarchy, its controllers, path.
        let group = self.groups.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':');
            let (number, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
            ((number == "0") == controller.is_none() && named(controllers)).then_some(path)
        })?;
        let kind = if controller.is_some() { "cgroup" } else { "cgroup2" };
        // Six fields, others up to a dash, then type, source and options: proc_pid_mountinfo(5).
        let (root, point) = self.mounts.lines().find_map(|line| {
            let (mount, system) = line.split_once(" - ")?;
            let mount: Vec<&str> = mount.split(' ').collect();
            let system: Vec<&str> = system.split(' ').collect();
            let is_it = system.first() == Some(&kind) && system.get(2).is_some_and(|options| named(options));
            is_it.then_some((*mount.get(3)?, *mount.get(4)?))
        })?;
        // Above what is mounted, or beyond the namespace, there is no way to it.
        let inside = Path::new(group).strip_prefix(root).ok()?;
        if inside.components().any(|part| part.as_os_str() == "..") {
            return None;
        }
        let path = Path::new(OsStr::from_bytes(&unescaped(point))).join(inside);
        Some(Own { path, is_top: inside == Path::new("") })
    }
}

/// A path as in `mountinfo`, where a blank and some others are written as a backslash and three octal digits.
fn unescaped(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        let digits = behind.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if *first == b'\\' => {
                bytes.push(byte);
                rest = &behind[3..];
            }
            _ => {
                bytes.push(*first);
                rest = behind;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_groups_are_found_in_what_the_kernel_tells() {
        let hybrid = "30 24 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs ro,mode=755\n\
                      31 30 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
                      34 30 0:30 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
                      35 30 0:31 / /sys/fs/cgroup/my\\040memory rw - cgroup cgroup rw,memory\n";
        let container = "31 30 0:27 /docker/1f /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
        let pure = "25 20 0:22 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        for (mounts, groups, controller, expected) in [
            (hybrid, "4:memory:/a/b\n0::/\n", Some("memory"), Some(("/sys/fs/cgroup/my memory/a/b", false))),
            (hybrid, "2:cpuacct,cpu:/\n0::/\n", Some("cpu"), Some(("/sys/fs/cgroup/cpu,cpuacct/", true))),
            (hybrid, "4:memory:/a\n0::/x\n", None, Some(("/sys/fs/cgroup/unified/x", false))),
            (hybrid, "8:pids:/\n", Some("pids"), None),
            (hybrid, "4:memory:/a\n", None, None),
            (container, "4:memory:/docker/1f\n", Some("memory"), Some(("/sys/fs/cgroup/memory/", true))),
            (container, "4:memory:/docker/2e\n", Some("memory"), None),
            (pure, "0::/user.slice/run-1.scope\n", None, Some(("/sys/fs/cgroup/user.slice/run-1.scope", false))),
            (pure, "0::/../other\n", None, None),
            (pure, "0::/\n", Some("memory"), None),
        ] {
            let own = Mounts { mounts: mounts.to_owned(), groups: groups.to_owned() }.find(controller);
            let own = own.map(|own| (own.path.to_str().expect("it is text").to_owned(), own.is_top));
            assert_eq!(own, expected.map(|(path, is_top)| (path.to_owned(), is_top)), "{groups}");
        }
    }

    /// A kernel that does not swap, or does not count it, has no file for it.
    #[test]
    fn limits_are_set_with_and_without_a_file_for_swap() {
        let limits = Limits { memory_bytes: Some(4096), process_count: Some(7), ..Limits::default() };
        let (v1, v2) = (["memory.limit_in_bytes", "pids.max"], ["memory.max", "memory.oom.group", "pids.max"]);
        for (version, needed, swap) in [
            (Enforcement::CgroupV1, &v1[..], "memory.memsw.limit_in_bytes"),
            (Enforcement::CgroupV2, &v2, "memory.swap.max"),
        ] {
            for has_swap in [false, true] {
                let home = tempfile::tempdir().expect("the temporary folder is writable");
                let open = || rustix::fs::open(home.path(), OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
                let open = || open().expect("it was just made");
                let write = |name: &str| cas_fs::write(&home.path().join(name), b"").expect("it is ours");
                needed.iter().copied().chain(has_swap.then_some(swap)).for_each(write);
                let folder = Folder { parent: open(), name: "none".to_owned(), folder: open(), tasks: None };
                let group = Group { version, folders: vec![folder] };
                group.set(&limits).expect("the files that are needed are there");
                let read = |name: &str| cas_fs::read_to_string(&home.path().join(name)).ok();
                assert_eq!(read(needed[0]).as_deref(), Some("4096"));
                assert_eq!(read("pids.max").as_deref(), Some("8"), "process 1 is not the command's");
                assert_eq!(read(swap).is_some(), has_swap);
                cas_fs::remove_file(&home.path().join("pids.max")).expect("it is ours");
                assert!(group.set(&limits).is_err(), "a file that is needed is missing");
            }
        }
    }
}
