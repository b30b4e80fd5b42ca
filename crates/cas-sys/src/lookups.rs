//! System calls that look for files by path, told to another process before they are made: seccomp's user notification.
//!
//! Whoever listens sees which call it is and with which arguments, and lets it go on. Nothing is decided by what is seen: the
//! process may change its memory between the look and the call. Linux 5.5.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use libc::{sock_filter, sock_fprog};

use crate::filter::{JUMP_EQUAL, LOAD, OFFSET_OF_AUDIT, OFFSET_OF_NUMBER, RETURN, statement, unless};

/// `AUDIT_ARCH_*` of `<linux/audit.h>`. What other interfaces of the kernel do is not seen.
#[cfg(target_arch = "x86_64")]
const AUDIT: u32 = 0xC000_003E;
#[cfg(target_arch = "aarch64")]
const AUDIT: u32 = 0xC000_00B7;

/// Calls whose first argument is a path.
#[cfg(target_arch = "x86_64")]
const BY_PATH: &[libc::c_long] =
    &[libc::SYS_open, libc::SYS_stat, libc::SYS_lstat, libc::SYS_access, libc::SYS_readlink, libc::SYS_execve];
#[cfg(target_arch = "aarch64")]
const BY_PATH: &[libc::c_long] = &[libc::SYS_execve];
/// Calls whose first argument is a folder's descriptor, and the second one a path.
const BY_FOLDER: &[libc::c_long] = &[
    libc::SYS_openat,
    libc::SYS_newfstatat,
    libc::SYS_readlinkat,
    libc::SYS_faccessat,
    libc::SYS_statx,
    libc::SYS_openat2,
    libc::SYS_faccessat2,
    libc::SYS_execveat,
];

/// `SECCOMP_IOCTL_NOTIF_RECV` and `SECCOMP_IOCTL_NOTIF_SEND` of `<linux/seccomp.h>`.
const RECEIVE: libc::Ioctl = 0xC050_2100_u32 as libc::Ioctl;
const ANSWER: libc::Ioctl = 0xC018_2101_u32 as libc::Ioctl;

/// A call that is about to look for a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lookup {
    /// Names it for [`let_go_on`].
    pub id: u64,
    /// The process, by its number where the listener is.
    pub process: u32,
    /// Descriptor of the folder that the path begins at; `None` for the working directory.
    pub folder: Option<i32>,
    /// Where in the process's memory the path is.
    pub address: u64,
}

fn number(call: libc::c_long) -> u32 {
    u32::try_from(call).expect("system calls have small numbers")
}

fn program() -> Vec<sock_filter> {
    let notify = statement(RETURN, libc::SECCOMP_RET_USER_NOTIF);
    let allow = statement(RETURN, libc::SECCOMP_RET_ALLOW);
    let mut program =
        vec![statement(LOAD, OFFSET_OF_AUDIT), sock_filter { code: JUMP_EQUAL, jt: 1, jf: 0, k: AUDIT }, allow];
    program.push(statement(LOAD, OFFSET_OF_NUMBER));
    for call in BY_PATH.iter().chain(BY_FOLDER) {
        program.extend([unless(JUMP_EQUAL, number(*call)), notify]);
    }
    program.push(allow);
    program
}

/// From now on, for the process and all that it starts, each look for a file waits until whoever has the returned
/// descriptor lets it go on; without anybody there such calls fail with `ENOSYS`.
///
/// # Errors
///
/// `EACCES` unless "no new privileges" was set before; `EINVAL` before Linux 5.0.
pub fn tell_lookups() -> io::Result<OwnedFd> {
    let mut statements = program();
    let filter = sock_fprog {
        len: u16::try_from(statements.len()).expect("a program has a few dozen statements"),
        filter: statements.as_mut_ptr(),
    };
    let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
    // SAFETY: `filter` points at `len` statements, which the kernel copies before the call returns.
    let descriptor = crate::check(unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const filter)
    })?;
    let descriptor = i32::try_from(descriptor).map_err(io::Error::other)?;
    // SAFETY: the kernel just made it for this process, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Waits for the next one. `None` for a call that ended meanwhile or is of no interest.
///
/// # Errors
///
/// What the system says; `ENOENT` when the process ended while it was asked.
pub fn next_lookup(listener: BorrowedFd<'_>) -> io::Result<Option<Lookup>> {
    // SAFETY: all its fields are numbers; the kernel wants it zeroed.
    let mut told: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: the structure is of the size that is part of the request's number, and lives through the call.
    crate::check(unsafe { libc::ioctl(listener.as_raw_fd(), RECEIVE, &raw mut told) }.into())?;
    let [first, second, ..] = told.data.args;
    let call = libc::c_long::from(told.data.nr);
    let id = told.id;
    let process = told.pid;
    if BY_PATH.contains(&call) {
        return Ok(Some(Lookup { id, process, folder: None, address: first }));
    }
    // The kernel looks at the lower half alone.
    #[expect(clippy::cast_possible_truncation, reason = "a descriptor is an `int`")]
    let folder = (first as u32).cast_signed();
    Ok(Some(Lookup { id, process, folder: (folder != libc::AT_FDCWD).then_some(folder), address: second }))
}

/// Lets a call go on.
///
/// # Errors
///
/// What the system says; `ENOENT` when the process has ended.
pub fn let_go_on(listener: BorrowedFd<'_>, id: u64) -> io::Result<()> {
    #[expect(clippy::cast_possible_truncation, reason = "the flag is 1")]
    let flags = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32;
    let answer = libc::seccomp_notif_resp { id, val: 0, error: 0, flags };
    // SAFETY: the structure is of the size that is part of the request's number, and lives through the call.
    crate::check(unsafe { libc::ioctl(listener.as_raw_fd(), ANSWER, &raw const answer) }.into())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The request's number has the size of its structure.
    #[test]
    fn structures_have_the_size_that_the_kernel_expects() {
        assert_eq!(size_of::<libc::seccomp_notif>(), 0x50);
        assert_eq!(size_of::<libc::seccomp_notif_resp>(), 0x18);
    }

    #[test]
    fn calls_with_paths_are_told_and_others_are_not() {
        let run = |audit: u32, number: u32| -> u32 {
            let program = program();
            let (mut at, mut loaded) = (0, 0);
            loop {
                let statement = program[at];
                at += 1;
                match statement.code {
                    LOAD => loaded = if statement.k == OFFSET_OF_AUDIT { audit } else { number },
                    JUMP_EQUAL => at += usize::from(if loaded == statement.k { statement.jt } else { statement.jf }),
                    _ => return statement.k,
                }
            }
        };
        for call in BY_PATH.iter().chain(BY_FOLDER) {
            assert_eq!(run(AUDIT, number(*call)), libc::SECCOMP_RET_USER_NOTIF, "{call}");
            assert_eq!(run(AUDIT ^ 1, number(*call)), libc::SECCOMP_RET_ALLOW, "{call} of another interface");
        }
        for call in [libc::SYS_read, libc::SYS_write, libc::SYS_sendmsg, libc::SYS_exit_group, libc::SYS_close] {
            assert_eq!(run(AUDIT, number(call)), libc::SECCOMP_RET_ALLOW, "{call}");
        }
    }
}
