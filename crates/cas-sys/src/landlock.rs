//! Landlock: a process gives up rights over the host, for itself and for all that it starts.
//!
//! The kernel's interface grows by versions; a program handles what its kernel knows and says what is therefore not held.
//! Source: Documentation/userspace-api/landlock.rst and `include/uapi/linux/landlock.h`, as of version 7 (Linux 6.15).
//!
//! Held from version 1 (Linux 5.13): reading, writing, making, removing and executing files. 2: moving between directories, which
//! version 1 refuses. 3: cutting files. 4: TCP. 5: `ioctl` of devices. 6: signals and abstract sockets. Never: looking whether a
//! path is there and what it is, changing mode, owner, times and attributes of files, sockets with a path, UDP.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// The last version whose rights are known here.
const NEWEST_VERSION: u32 = 7;

/// What may be done with a file, or with all files beneath a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading.
    Read,
    /// Reading and executing.
    Execute,
    /// All but making devices.
    Write,
    /// Reading and writing what is there, and its `ioctl`s.
    Device,
}

/// Rights over files, `LANDLOCK_ACCESS_FS_*`.
mod right {
    pub(super) const EXECUTE: u64 = 1 << 0;
    pub(super) const WRITE_FILE: u64 = 1 << 1;
    pub(super) const READ_FILE: u64 = 1 << 2;
    pub(super) const READ_DIR: u64 = 1 << 3;
    pub(super) const MAKE_CHAR: u64 = 1 << 6;
    pub(super) const MAKE_BLOCK: u64 = 1 << 11;
    pub(super) const REFER: u64 = 1 << 13;
    pub(super) const TRUNCATE: u64 = 1 << 14;
    pub(super) const IOCTL_DEV: u64 = 1 << 15;
    /// Those that a file can have that is no directory.
    pub(super) const OF_FILES: u64 = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV;
}

/// `LANDLOCK_ACCESS_NET_BIND_TCP` and `LANDLOCK_ACCESS_NET_CONNECT_TCP`.
const TCP: u64 = 0b11;
/// `LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET` and `LANDLOCK_SCOPE_SIGNAL`.
const SCOPES: u64 = 0b11;
/// `LANDLOCK_CREATE_RULESET_VERSION`.
const ASK_VERSION: u32 = 1;
/// `LANDLOCK_RULE_PATH_BENEATH`.
const PATH_BENEATH: libc::c_int = 1;

/// `struct landlock_ruleset_attr`. An older kernel takes the longer structure if what it does not know is zero.
#[repr(C)]
struct RulesetAttributes {
    files: u64,
    network: u64,
    scopes: u64,
}

/// `struct landlock_path_beneath_attr`.
#[repr(C, packed)]
struct PathBeneath {
    rights: u64,
    parent: i32,
}

/// All rights over files that a version knows.
const fn all_rights(version: u32) -> u64 {
    match version {
        0 => 0,
        1 => right::REFER - 1,
        2 => right::TRUNCATE - 1,
        3 | 4 => right::IOCTL_DEV - 1,
        _ => (right::IOCTL_DEV << 1) - 1,
    }
}

impl Access {
    const fn rights(self) -> u64 {
        use right::{EXECUTE, IOCTL_DEV, MAKE_BLOCK, MAKE_CHAR, READ_DIR, READ_FILE, TRUNCATE, WRITE_FILE};
        match self {
            Self::Read => READ_FILE | READ_DIR,
            Self::Execute => READ_FILE | READ_DIR | EXECUTE,
            Self::Write => !(MAKE_CHAR | MAKE_BLOCK | IOCTL_DEV),
            Self::Device => READ_FILE | WRITE_FILE | TRUNCATE | IOCTL_DEV,
        }
    }
}

/// The version of the kernel's interface, 1 or more.
///
/// # Errors
///
/// `ENOSYS` when the kernel was built without it, `EOPNOTSUPP` when it was not switched on at boot; a container's filter may
/// say something else.
pub fn landlock_version() -> io::Result<u32> {
    // SAFETY: to ask for the version no structure is read.
    let version = crate::check(unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<RulesetAttributes>(), 0usize, ASK_VERSION)
    })?;
    Ok(u32::try_from(version).unwrap_or(0))
}

/// Leaves this thread, and what it starts from now on, no files but those beneath the given ones, no TCP, and no signals to and no
/// abstract sockets of others; as far as the kernel's version holds that. Cannot be undone.
///
/// The thread must have given up new privileges.
///
/// # Errors
///
/// As [`landlock_version`], and what the system says.
pub fn restrict_to(beneath: &[(BorrowedFd<'_>, Access)]) -> io::Result<()> {
    let version = landlock_version()?.min(NEWEST_VERSION);
    let files = all_rights(version);
    let attributes = RulesetAttributes {
        files,
        network: if version >= 4 { TCP } else { 0 },
        scopes: if version >= 6 { SCOPES } else { 0 },
    };
    // SAFETY: the kernel reads as many bytes as the structure has, and gives a new descriptor that nobody else owns.
    let ruleset = unsafe {
        let raw = crate::check(libc::syscall(
            libc::SYS_landlock_create_ruleset,
            &raw const attributes,
            std::mem::size_of::<RulesetAttributes>(),
            0u32,
        ))?;
        OwnedFd::from_raw_fd(i32::try_from(raw).map_err(io::Error::other)?)
    };
    for (parent, access) in beneath {
        let stat = rustix::fs::fstat(parent)?;
        let is_directory = rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Directory;
        let possible = if is_directory { files } else { files & right::OF_FILES };
        let rule = PathBeneath { rights: access.rights() & possible, parent: parent.as_raw_fd() };
        // SAFETY: the kernel reads the packed structure, which lives through the call.
        crate::check(unsafe {
            libc::syscall(libc::SYS_landlock_add_rule, ruleset.as_raw_fd(), PATH_BENEATH, &raw const rule, 0u32)
        })?;
    }
    // SAFETY: the call takes integers.
    crate::check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0u32) })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use rustix::fs::{CWD, Mode, OFlags};

    use super::*;

    #[test]
    fn each_version_knows_more_rights() {
        for (version, count) in [(0, 0), (1, 13), (2, 14), (3, 15), (4, 15), (5, 16), (6, 16), (7, 16)] {
            assert_eq!(all_rights(version).count_ones(), count, "version {version}");
        }
    }

    /// In a thread of its own, since it cannot be undone.
    #[test]
    #[expect(clippy::print_stderr, reason = "a skipped test says so")]
    fn what_is_not_named_is_out_of_reach() {
        let version = match landlock_version() {
            Ok(version) => version,
            Err(error) => return eprintln!("SKIPPED: no Landlock: {error}"),
        };
        let folder = std::env::temp_dir().join(format!("cas-sys-landlock-{}", std::process::id()));
        rustix::fs::mkdir(&folder, Mode::RWXU).expect("the temporary folder is writable");
        let inside = folder.clone();
        let restricted = std::thread::spawn(move || {
            let open = |path: &std::path::Path, flags| rustix::fs::openat(CWD, path, flags, Mode::RWXU);
            let path = OFlags::PATH | OFlags::CLOEXEC;
            let own = open(&inside, path).expect("it is there");
            let null = open(std::path::Path::new("/dev/null"), path).expect("every host has it");
            rustix::thread::set_no_new_privs(true).expect("everybody may");
            restrict_to(&[(own.as_fd(), Access::Write), (null.as_fd(), Access::Device)]).expect("the rules are valid");
            let make = OFlags::CREATE | OFlags::WRONLY;
            let results = [
                open(&inside.join("made"), make).err(),
                open(std::path::Path::new("/dev/null"), OFlags::RDWR).err(),
                open(std::path::Path::new("/proc/version"), OFlags::RDONLY).err(),
                open(&std::env::temp_dir(), OFlags::RDONLY | OFlags::DIRECTORY).err(),
            ];
            let connected = std::net::TcpStream::connect("127.0.0.1:9").err().and_then(|error| error.raw_os_error());
            (results, connected)
        });
        let (results, connected) = restricted.join().expect("it does not panic");
        let denied = Some(rustix::io::Errno::ACCESS);
        assert_eq!(results, [None, None, denied, denied]);
        if version >= 4 {
            assert_eq!(connected, Some(libc::EACCES));
        }
        rustix::fs::unlink(folder.join("made")).expect("it was made");
        rustix::fs::rmdir(&folder).expect("it is empty");
    }
}
