//! Waiting for programs of others: until they end, are too late, or nobody wants them any more.

use std::io;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use cas_sandbox::Cancel;

/// How often it is looked whether a program has ended.
pub(crate) const LOOK: Duration = Duration::from_millis(10);

/// How a program ended.
pub(crate) enum Ended {
    /// By itself.
    With(ExitStatus),
    /// It took longer than it might.
    Late,
    /// Work was interrupted.
    Interrupted,
}

/// Waits for the end of a program; `end` ends one that is late or interrupted, with as much of what it started as belongs to it.
pub(crate) fn attend(
    child: &mut Child,
    timeout: Duration,
    cancel: &Cancel,
    end: impl Fn(&mut Child),
) -> io::Result<Ended> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Ended::With(status));
        }
        let (is_interrupted, is_late) = (cancel.is_cancelled(), start.elapsed() > timeout);
        if is_interrupted || is_late {
            end(child);
            child.wait()?;
            return Ok(if is_interrupted { Ended::Interrupted } else { Ended::Late });
        }
        std::thread::sleep(LOOK);
    }
}
