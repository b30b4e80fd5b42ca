//! Signals as something to wait for beside others. They do nothing by themselves while somebody listens.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use signal_hook::SigId;

/// Listens for signals until it is dropped.
#[derive(Debug)]
pub(crate) struct Signals(Vec<Listener>);

#[derive(Debug)]
struct Listener {
    signal: i32,
    pipe: UnixStream,
    id: SigId,
}

/// What came.
#[derive(Debug, Default)]
pub(crate) struct Came {
    pub(crate) signals: Vec<i32>,
    /// Whether one of the others can be read.
    pub(crate) is_other_ready: bool,
}

impl Signals {
    pub(crate) fn listen(signals: &[i32]) -> io::Result<Self> {
        let listener = |signal: &i32| {
            let (pipe, writer) = UnixStream::pair()?;
            pipe.set_nonblocking(true)?;
            let id = signal_hook::low_level::pipe::register(*signal, writer)?;
            Ok(Listener { signal: *signal, pipe, id })
        };
        Ok(Self(signals.iter().map(listener).collect::<io::Result<_>>()?))
    }

    /// Waits until a signal came, `other` can be read, or the time is over.
    pub(crate) fn wait(&self, other: Option<BorrowedFd<'_>>, timeout: Option<Duration>) -> io::Result<Came> {
        let pipes = self.0.iter().map(|listener| listener.pipe.as_fd());
        let mut ready: Vec<PollFd<'_>> =
            pipes.chain(other).map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
        let timeout =
            timeout.map(|timeout| Timespec::try_from(timeout).unwrap_or(Timespec { tv_sec: 3600, tv_nsec: 0 }));
        match poll(&mut ready, timeout.as_ref()) {
            // A signal's pipe is ready then, and is read below.
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let is_other_ready = ready.get(self.0.len()).is_some_and(|other| !other.revents().is_empty());
        let mut signals = Vec::new();
        for listener in &self.0 {
            let mut bytes = [0; 64];
            // Many of one kind are one, as with the system itself.
            if (&listener.pipe).read(&mut bytes).is_ok_and(|count| count > 0) {
                signals.push(listener.signal);
            }
        }
        Ok(Came { signals, is_other_ready })
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        for listener in &self.0 {
            signal_hook::low_level::unregister(listener.id);
        }
    }
}
