//! A process beside the command that sees which files are looked for in `/src`, and tells the runner.
//!
//! Only for a run whose result is thrown away: calls wait for it, it is in reach of the command's signals, and what it sees
//! of a process's memory may be changed a moment later.

use std::collections::HashSet;
use std::fs::File;
use std::io::{IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};

use cas_sys::Lookup;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use crate::spec::SOURCE_DIRECTORY;

/// Longest path that Linux takes, with its NUL.
const MAX_PATH: usize = 4096;
/// Most paths that are told.
const MAX_PATHS: usize = 20_000;

/// Does not return: ends when nobody is left who could look for anything, or is killed with the sandbox.
///
/// `commands` is where the command sends the descriptor to listen at, `lookups` where paths go, each with a NUL behind it.
pub(super) fn run(commands: &OwnedFd, lookups: OwnedFd) -> ! {
    if let Some(listener) = receive(commands) {
        // What cannot be told any more interests nobody any more.
        let _ = listen(&listener, &mut File::from(lookups));
    }
    cas_sys::exit(0)
}

fn receive(socket: &OwnedFd) -> Option<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0; 1];
    recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC).ok()?;
    control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    })
}

fn listen(listener: &OwnedFd, sink: &mut File) -> std::io::Result<()> {
    let mut known = HashSet::new();
    loop {
        let mut ready = [PollFd::new(listener, PollFlags::IN)];
        match poll(&mut ready, None) {
            Err(Errno::INTR) => continue,
            other => other?,
        };
        if !ready[0].revents().contains(PollFlags::IN) {
            return Ok(());
        }
        let lookup = match cas_sys::next_lookup(listener.as_fd()) {
            Ok(Some(lookup)) => lookup,
            Ok(None) => continue,
            // The process ended between the two calls.
            Err(error) if is_gone(&error) => continue,
            Err(error) => return Err(error),
        };
        let path = path_of(&lookup).filter(|path| path.starts_with(SOURCE_DIRECTORY));
        if let Some(path) = path.filter(|path| known.len() < MAX_PATHS && known.insert(path.clone())) {
            sink.write_all(path.as_os_str().as_bytes())?;
            sink.write_all(&[0])?;
        }
        go_on(listener.as_fd(), &lookup)?;
    }
}

fn go_on(listener: BorrowedFd<'_>, lookup: &Lookup) -> std::io::Result<()> {
    match cas_sys::let_go_on(listener, lookup.id) {
        Err(error) if is_gone(&error) => Ok(()),
        other => other,
    }
}

fn is_gone(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error().map(Errno::from_raw_os_error), Some(Errno::NOENT | Errno::INTR))
}

/// The path from the root on, without `.` and `..`; links are not looked at.
fn path_of(lookup: &Lookup) -> Option<PathBuf> {
    let process = PathBuf::from(format!("/proc/{}", lookup.process));
    let memory = cas_fs::open(&process.join("mem")).ok()?;
    let mut bytes = vec![0; MAX_PATH];
    let count = memory.read_at(&mut bytes, lookup.address).ok()?;
    let end = bytes[..count].iter().position(|byte| *byte == 0)?;
    let path = Path::new(std::ffi::OsStr::from_bytes(&bytes[..end]));
    if end == 0 {
        return None;
    }
    let begin = match (path.is_absolute(), lookup.folder) {
        (true, _) => PathBuf::from("/"),
        (false, None) => cas_fs::read_link(&process.join("cwd")).ok()?,
        (false, Some(folder)) => cas_fs::read_link(&process.join("fd").join(folder.to_string())).ok()?,
    };
    let mut whole = PathBuf::new();
    for part in begin.join(path).components() {
        match part {
            Component::ParentDir => drop(whole.pop()),
            Component::CurDir => {}
            part => whole.push(part),
        }
    }
    Some(whole)
}
