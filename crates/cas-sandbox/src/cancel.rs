//! Ending a run from another thread.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{EventfdFlags, eventfd};

/// A switch that ends all runs that hold it, now and later. Clones are the same switch.
#[derive(Clone, Debug)]
pub struct Cancel(Arc<Switch>);

#[derive(Debug)]
struct Switch {
    cancelled: AtomicBool,
    /// Readable for ever once the switch was thrown: it is written and never read.
    event: OwnedFd,
    /// As `event`, for the second time.
    insisted: OwnedFd,
}

impl Cancel {
    /// Makes a switch that is not thrown.
    ///
    /// # Errors
    ///
    /// When the process or the system has no descriptor left.
    pub fn new() -> io::Result<Self> {
        let event = || eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        Ok(Self(Arc::new(Switch { cancelled: AtomicBool::new(false), event: event()?, insisted: event()? })))
    }

    /// Ends the runs. May be called from any thread and from a signal handler, and again.
    pub fn cancel(&self) {
        if !self.0.cancelled.swap(true, Ordering::SeqCst) {
            // A counter that goes from 0 to 1 cannot overflow, the only way in which this write fails.
            let _ = rustix::io::write(&self.0.event, &1u64.to_ne_bytes());
        }
    }

    /// Ends the runs, and leaves none the time that it has to [stop](crate::Stop). May be called as [`Cancel::cancel`] may.
    pub fn insist(&self) {
        self.cancel();
        // The counter is far from its end, and if it were there, it could be read.
        let _ = rustix::io::write(&self.0.insisted, &1u64.to_ne_bytes());
    }

    /// Whether the switch was thrown.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::SeqCst)
    }

    /// A descriptor that becomes readable when the switch is thrown.
    pub(crate) fn event(&self) -> BorrowedFd<'_> {
        self.0.event.as_fd()
    }

    /// A descriptor that becomes readable when no time is left.
    pub(crate) fn insisted(&self) -> BorrowedFd<'_> {
        self.0.insisted.as_fd()
    }
}
