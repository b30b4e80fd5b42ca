//! Processes that make sandboxes: started, given their order, heard, ended.
//!
//! To start one and to end one takes as long as some steps do, and neither has to be waited for: while one works, the next is
//! started and waits for its order; and when one has reported, its run is over, whatever is left of the process.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown, sendmsg, shutdown};

use crate::cancel::Cancel;
use crate::error::SandboxError;
use crate::helper::timespec;
use crate::wire::{self, Order, Report};

/// Most descriptors that come with an order: three streams, where looked up paths, findings of checks and a name go,
/// one that tells when to stop, and sockets of ports.
pub(crate) const MAX_DESCRIPTORS: usize = 7 + MAX_PORTS;
/// Most ports of a sandbox that are passed connections.
pub const MAX_PORTS: usize = 64;

/// The helpers of a runner and its clones. Dropping it waits for the end of all.
#[derive(Debug, Default)]
pub(crate) struct Helpers(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Whether there was an order before: who gives one may well give no other.
    was_used: bool,
    ready: Option<Helper>,
    /// Those that have reported.
    ending: Vec<Child>,
}

impl Helpers {
    /// Gives an order to a helper, and waits for its report.
    pub(crate) fn give(
        &self,
        program: &Path,
        order: &Order,
        descriptors: Vec<OwnedFd>,
        cancel: &Cancel,
    ) -> Result<Report, SandboxError> {
        let message = wire::encode(order).map_err(SandboxError::Connection)?;
        let (ready, is_first) = {
            let mut state = self.state();
            state.ending.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
            let is_first = !std::mem::replace(&mut state.was_used, true);
            (state.ready.take(), is_first)
        };
        let mut helper = match ready.and_then(Helper::if_alive) {
            Some(helper) => helper,
            None => Helper::start(program)?,
        };
        let sent = send(&helper.socket, &message, &descriptors);
        // Ours are closed, so that whoever reads from a pipe sees its end.
        drop(descriptors);
        if !is_first {
            self.prepare(program);
        }
        match sent.and_then(|()| helper.receive(order.grace(), cancel)) {
            Ok(Some(report)) => {
                let child = helper.let_go();
                self.state().ending.push(child);
                Ok(report)
            }
            Ok(None) => {
                let status = helper.let_go().wait().map_err(SandboxError::Connection)?;
                Err(SandboxError::HelperEnded { status })
            }
            Err(error) => {
                let _ = helper.let_go().wait();
                Err(SandboxError::Connection(error))
            }
        }
    }

    /// Starts the helper of the next order, if there is none yet. If it cannot be, that order says so.
    fn prepare(&self, program: &Path) {
        let mut state = self.state();
        if state.ready.is_none() {
            state.ready = Helper::start(program).ok();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Helpers {
    fn drop(&mut self) {
        let state = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        let ready = state.ready.take().map(Helper::let_go);
        for mut child in state.ending.drain(..).chain(ready) {
            let _ = child.wait();
        }
    }
}

/// A helper that was started. It watches the socket, and ends with it.
#[derive(Debug)]
struct Helper {
    child: Child,
    socket: UnixStream,
}

impl Helper {
    fn start(program: &Path) -> Result<Self, SandboxError> {
        let (ours, theirs) = UnixStream::pair().map_err(SandboxError::Connection)?;
        // The socket is the helper's standard input, because that is the one way to hand over a descriptor for which
        // the standard library needs no code between fork and exec. The streams of a command come with its order, so that none
        // is held by a helper when the command is dead.
        let child = Command::new(program)
            .arg0("cas")
            .arg(crate::HELPER_ARGUMENT)
            .env_clear()
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|source| SandboxError::Helper { helper: program.to_owned(), source })?;
        Ok(Self { child, socket: ours })
    }

    /// One that was started for later may have been killed meanwhile.
    fn if_alive(mut self) -> Option<Self> {
        matches!(self.child.try_wait(), Ok(None)).then_some(self)
    }

    /// Ends it, so that waiting for it cannot take for ever.
    fn let_go(self) -> Child {
        // It may have ended by itself.
        let _ = shutdown(&self.socket, Shutdown::Both);
        self.child
    }

    /// Waits for the report. When the run is cancelled, process 1 of the sandbox asks the command to end, if there is time for that.
    fn receive(&mut self, grace: Option<Duration>, cancel: &Cancel) -> io::Result<Option<Report>> {
        let (mut is_asked, mut is_killed) = (false, false);
        let mut until: Option<Instant> = None;
        loop {
            let mut ready = vec![PollFd::new(&self.socket, PollFlags::IN)];
            let event = if is_asked { cancel.insisted() } else { cancel.event() };
            if !is_killed {
                ready.push(PollFd::from_borrowed_fd(event, PollFlags::IN));
            }
            let timeout = until.map(|until| timespec(until.saturating_duration_since(Instant::now())));
            match poll(&mut ready, timeout.as_ref()) {
                Err(Errno::INTR) => continue,
                other => other?,
            };
            if !ready[0].revents().is_empty() {
                return match wire::decode(&self.socket) {
                    // The helper died with something unread in its socket.
                    Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(None),
                    other => other,
                };
            }
            if let Some(grace) = grace.filter(|_| !is_asked) {
                is_asked = true;
                until = Instant::now().checked_add(grace);
                continue;
            }
            // The helper takes the end of what we send as the order to kill, and still answers.
            shutdown(&self.socket, Shutdown::Write)?;
            (is_killed, until) = (true, None);
        }
    }
}

/// Sends a message, with descriptors beside its first bytes.
fn send(socket: &UnixStream, message: &[u8], descriptors: &[OwnedFd]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut rest = message;
    let borrowed: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
    while !rest.is_empty() {
        let mut control = SendAncillaryBuffer::new(&mut space);
        if rest.len() == message.len() {
            let fits = control.push(SendAncillaryMessage::ScmRights(&borrowed));
            debug_assert!(fits, "there is space for as many as are ever sent");
        }
        match sendmsg(socket, &[IoSlice::new(rest)], &mut control, SendFlags::NOSIGNAL) {
            Ok(sent) => rest = &rest[sent..],
            Err(Errno::INTR) => {}
            // The helper has gone; what became of it is learned by waiting for it.
            Err(Errno::PIPE | Errno::CONNRESET) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::IdMaps;
    use crate::wire::Bytes;

    /// A program that takes the beginning of an order, notes that it did, and reports that it is done.
    fn program(folder: &Path) -> std::path::PathBuf {
        let path = folder.join("helper");
        let text = format!(
            "#!/bin/sh\nhead -c 4 | grep -q . || exit 0\necho $$ >> {0}/orders\nprintf '\\006\\000\\000\\000\"Done\"' >&0\ncat >/dev/null\n",
            folder.display()
        );
        cas_fs::write(&path, text.as_bytes()).expect("the folder is ours");
        cas_fs::set_mode(&path, 0o755).expect("the file is ours");
        path
    }

    #[test]
    fn a_helper_is_ready_from_the_second_order_on_and_replaced_when_it_was_killed() {
        let home = tempfile::tempdir().expect("the temporary folder is writable");
        let program = program(home.path());
        let helpers = Helpers::default();
        let cancel = Cancel::new().expect("there are descriptors left");
        let give = || {
            let maps = IdMaps::Own { uid: 0, gid: 0 };
            let order = Order::Remove { maps, folder: Bytes::from("/nonexistent") };
            helpers.give(&program, &order, Vec::new(), &cancel).expect("the helper reports")
        };
        let ready = || helpers.state().ready.as_ref().map(|helper| helper.child.id());
        assert_eq!(give(), Report::Done);
        assert_eq!(ready(), None, "there may be one order only");
        assert_eq!(give(), Report::Done);
        let waiting = ready().expect("there may be more orders");
        assert_eq!(give(), Report::Done);
        let orders = cas_fs::read_to_string(&home.path().join("orders")).expect("orders were noted");
        assert_eq!(orders.lines().last(), Some(waiting.to_string().as_str()));
        // Killed while it waits: the order goes to another one.
        let killed = ready().expect("the next one waits");
        let process = rustix::process::Pid::from_raw(i32::try_from(killed).expect("it is a process")).expect("as well");
        rustix::process::kill_process(process, rustix::process::Signal::KILL).expect("it is ours");
        while helpers.state().ready.as_mut().is_some_and(|helper| matches!(helper.child.try_wait(), Ok(None))) {
            std::thread::yield_now();
        }
        assert_eq!(give(), Report::Done);
        let orders = cas_fs::read_to_string(&home.path().join("orders")).expect("orders were noted");
        assert_eq!(orders.lines().count(), 4);
        assert!(orders.lines().all(|line| line != killed.to_string()));
        // None stays behind.
        let last = ready().expect("the next one waits");
        drop(helpers);
        assert!(!Path::new(&format!("/proc/{last}")).exists());
    }
}
