//! A copy of the program in memory that nobody can change, for helpers of runs in which something changes the root or what is shown
//! in it while a program is started.
//!
//! Until a process of the sandbox has become its program, `/proc/self/exe` names the file of the helper. Who swaps a program for a
//! script in the moment after it was looked at (`helper/program.rs`) makes the kernel execute that file in the sandbox, with a
//! loader of the root. So it is none that the host has: a memory file, sealed against writing and growing.
//!
//! Not here: which runs need it (`run.rs`).

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::io::Errno;

use crate::helpers::Helpers;

/// The copy, and the helpers that are started from it.
#[derive(Debug)]
pub(crate) struct Sealed {
    file: OwnedFd,
    pub(crate) helpers: Helpers,
}

impl Sealed {
    /// Copies a program.
    pub(crate) fn of(program: &Path) -> io::Result<Self> {
        let mut from = File::from(rustix::fs::open(program, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?);
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        // Linux 6.3; before, each memory file can be executed.
        let created = match memfd_create("cas", flags | MemfdFlags::EXEC) {
            Err(Errno::INVAL) => memfd_create("cas", flags),
            other => other,
        };
        let mut to = File::from(created?);
        io::copy(&mut from, &mut to)?;
        let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
        fcntl_add_seals(&to, seals)?;
        Ok(Self { file: to.into(), helpers: Helpers::default() })
    }

    /// A path that leads this process and those that it forks to the copy.
    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::Command;

    use super::*;

    #[test]
    fn a_copy_runs_and_can_be_written_by_nobody() {
        let sealed = Sealed::of(Path::new("/bin/true")).expect("the program is there");
        let status = Command::new(sealed.path()).status().expect("it can be executed");
        assert!(status.success());
        let mut again = File::from(rustix::fs::open(sealed.path(), OFlags::WRONLY, Mode::empty()).expect("it is ours"));
        let refused = |result: io::Result<()>| result.expect_err("it is sealed").kind();
        assert_eq!(refused(again.write_all(b"x")), io::ErrorKind::PermissionDenied);
        assert_eq!(refused(again.set_len(0)), io::ErrorKind::PermissionDenied);
        assert_eq!(fcntl_add_seals(&again, SealFlags::FUTURE_WRITE), Err(Errno::PERM));
    }
}
