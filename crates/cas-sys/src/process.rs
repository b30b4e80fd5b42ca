//! Fork, exec and what a program inherits through them.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::ptr;

use rustix::process::Pid;

/// `CLONE_INTO_CGROUP` of <linux/sched.h>; the libc crate's constant is of a type that does not hold it everywhere.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Which side of a [`fork`] this is.
#[derive(Clone, Copy, Debug)]
pub enum Fork {
    /// The process that called; holds the child's id.
    Parent(Pid),
    /// The new process.
    Child,
}

/// Duplicates the calling process, which must have one thread.
///
/// In a process with threads the child could find any lock of the other threads held for ever, so that is refused.
///
/// # Errors
///
/// [`io::ErrorKind::Unsupported`] when the process has several threads, else what the system says.
pub fn fork() -> io::Result<Fork> {
    check_single_thread()?;
    // SAFETY: with one thread nothing else can hold a lock or be half-way through a change, so the child may do
    // whatever its parent may.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Fork::Child),
        raw => Ok(Fork::Parent(Pid::from_raw(raw).expect("fork returns a positive id to the parent"))),
    }
}

/// As [`fork`], with the child in the control group (of the unified hierarchy) whose folder is given.
///
/// Linux 5.7. The C library learns nothing of it: what it remembers of its thread's id is that of the parent, which matters to
/// `pthread` calls on the own thread alone.
///
/// # Errors
///
/// As [`fork`]; also when the process may not move others into that group, or the group takes none.
pub fn fork_into(group: impl AsFd) -> io::Result<Fork> {
    check_single_thread()?;
    let group = u64::try_from(group.as_fd().as_raw_fd()).expect("an open descriptor has a number");
    // The kernel's `clone_args`, version 2: flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls,
    // set_tid, set_tid_size, cgroup.
    let exit_signal = u64::from(libc::SIGCHLD.unsigned_abs());
    let arguments: [u64; 11] = [CLONE_INTO_CGROUP, 0, 0, 0, exit_signal, 0, 0, 0, 0, 0, group];
    // SAFETY: no flag shares anything, and there is no stack of its own: it is a fork, for which `fork` gives the reasons. The
    // kernel reads as many bytes as the array has.
    let raw = crate::check(unsafe {
        libc::syscall(libc::SYS_clone3, arguments.as_ptr(), std::mem::size_of_val(&arguments))
    })?;
    match i32::try_from(raw).ok().and_then(Pid::from_raw) {
        None => Ok(Fork::Child),
        Some(child) => Ok(Fork::Parent(child)),
    }
}

fn check_single_thread() -> io::Result<()> {
    // The kernel counts threads as links of this folder, beside the folder's own two.
    if rustix::fs::stat("/proc/self/task")?.st_nlink == 3 { Ok(()) } else { Err(io::ErrorKind::Unsupported.into()) }
}

/// Replaces the program of the process; returns only when that failed.
pub fn exec(program: &CStr, arguments: &[CString], environment: &[CString]) -> io::Error {
    fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
        strings.iter().map(|s| s.as_ptr()).chain([ptr::null()]).collect()
    }
    let (arguments, environment) = (pointers(arguments), pointers(environment));
    // SAFETY: all are NUL-terminated strings, and both arrays end with a null pointer; they outlive the call.
    unsafe { libc::execve(program.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
    io::Error::last_os_error()
}

/// Ends the process at once, without running destructors or exit handlers: for children of [`fork`].
pub fn exit(code: i32) -> ! {
    // SAFETY: the call does not return and reads no memory.
    unsafe { libc::_exit(code) }
}

/// Gives every signal its default action and unblocks all.
///
/// A program inherits ignored and blocked signals, for example from `nohup` or from a build server.
///
/// # Errors
///
/// What the system says.
pub fn reset_signals() -> io::Result<()> {
    /// Signals are numbered from 1 to 64 on every Linux but MIPS.
    const LAST_SIGNAL: libc::c_int = 64;
    /// Bytes of the kernel's signal set.
    const SET_SIZE: usize = 8;
    // The kernel's own structure: handler (0 is the default action), flags, restorer, mask. Not the C library's call,
    // because that refuses the two signals of its threads, which can be inherited as ignored all the same.
    let default = [0u64; 4];
    for signal in 1..=LAST_SIGNAL {
        // SAFETY: `default` has the size of the kernel's structure, lives through the call and installs no handler. KILL
        // and STOP cannot be set and give EINVAL; they have their default action anyway.
        unsafe {
            libc::syscall(libc::SYS_rt_sigaction, signal, &raw const default, ptr::null_mut::<u64>(), SET_SIZE);
        }
    }
    // SAFETY: `mask` is written by the first call before the second reads it.
    crate::check(
        unsafe {
            let mut mask: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut mask);
            libc::sigprocmask(libc::SIG_SETMASK, &raw const mask, ptr::null_mut())
        }
        .into(),
    )?;
    Ok(())
}

/// Gives a descriptor that can be read when a child has ended since it was read last, without waiting; each read takes what there
/// is. From then on the signal that tells so is blocked, also in programs that are started, unless they undo it.
///
/// A child that ended before tells nothing: look for that one behind this call.
///
/// # Errors
///
/// What the system says.
pub fn child_ends() -> io::Result<OwnedFd> {
    // SAFETY: `mask` is written by the first call before the others read it, and lives through them. The descriptor is a new one
    // that nobody else has.
    unsafe {
        let mut mask: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut mask);
        libc::sigaddset(&raw mut mask, libc::SIGCHLD);
        crate::check(libc::sigprocmask(libc::SIG_BLOCK, &raw const mask, ptr::null_mut()).into())?;
        let descriptor = libc::signalfd(-1, &raw const mask, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        crate::check(descriptor.into())?;
        Ok(OwnedFd::from_raw_fd(descriptor))
    }
}

/// Ignores the signal that stops whoever writes to the terminal, or takes it, from the background. Programs that are started
/// from now on inherit that.
///
/// # Errors
///
/// What the system says.
pub fn ignore_terminal_output_signal() -> io::Result<()> {
    // SAFETY: no handler is installed, so that nothing runs in the signal's context.
    let before = unsafe { libc::signal(libc::SIGTTOU, libc::SIG_IGN) };
    if before == libc::SIG_ERR { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sets the plain Linux personality, because what `setarch` and debuggers change (address layout, reported kernel) is inherited; with
/// or without random addresses of programs that are started from now on.
///
/// # Errors
///
/// What the system says.
pub fn set_personality(has_random_addresses: bool) -> io::Result<()> {
    let personality = if has_random_addresses { 0 } else { libc::ADDR_NO_RANDOMIZE.cast_unsigned() };
    // SAFETY: the call takes an integer; it affects programs that are started later.
    crate::check(unsafe { libc::personality(personality.into()) }.into())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A test harness has threads, so this is the case that must be refused.
    #[test]
    fn fork_is_refused_beside_other_threads() {
        let (sender, receiver) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || receiver.recv());
        assert_eq!(fork().expect_err("there are two threads").kind(), io::ErrorKind::Unsupported);
        assert_eq!(fork_into(io::stdin()).expect_err("there are two threads").kind(), io::ErrorKind::Unsupported);
        drop(sender);
        assert!(other.join().expect("does not panic").is_err());
    }

    #[test]
    fn exec_returns_why_it_failed() {
        let error = exec(c"/nonexistent/program", &[c"program".to_owned()], &[]);
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
    }
}
