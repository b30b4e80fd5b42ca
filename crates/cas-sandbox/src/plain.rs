//! Commands that run on the host as it is, in a folder of their own: the weaker tiers.
//!
//! Nothing is hidden and nothing is mounted. What holds is told by docs/formats/sandbox.md, "Weaker tiers"; of it the invariant is
//! that a run is over for its caller only when all that the command started is dead. What was written is found by [`Before`].

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::cancel::Cancel;
use crate::error::SandboxError;
use crate::landlock::Landlock;
use crate::limits::Limits;
use crate::run::{Outcome, Runner, Streams, ending};
use crate::spec::{SpecError, check_processors, check_program};
use crate::wire::{Bytes, Order, PlainJob, Program, Task};

#[cfg(doc)]
use crate::Before;

/// A command on the host as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plain {
    /// A folder of this run alone, which is there: what the command writes is meant to be below it, and its size is watched.
    pub folder: PathBuf,
    /// With Landlock: what else of the host it may read and execute, absolute paths that are there; then system calls are filtered,
    /// too. `None` for all that the user may.
    pub confined_to: Option<Vec<PathBuf>>,
    /// Program and arguments. A program without `/` is searched in the `PATH` of `environment`.
    pub command: Vec<OsString>,
    /// The whole environment; nothing is added.
    pub environment: BTreeMap<OsString, OsString>,
    /// Working directory: an absolute path of the host.
    pub working_directory: PathBuf,
    /// After how long the command, with all that it started, is killed.
    pub timeout: Option<Duration>,
    /// How much it may use.
    pub limits: Limits,
    /// Numbers of the processors that it runs on; empty for all that the caller may use.
    pub processors: Vec<usize>,
    /// Whether its addresses are random.
    pub aslr: bool,
}

impl Plain {
    fn check(&self) -> Result<(), SpecError> {
        check_program(&self.command, &self.environment, &self.working_directory)?;
        check_processors(&self.processors)?;
        let mut paths = std::iter::once(&self.folder).chain(self.confined_to.iter().flatten());
        match paths.find(|path| !path.is_absolute()) {
            None => Ok(()),
            Some(path) => Err(SpecError::RelativePath { path: path.clone() }),
        }
    }
}

impl Runner {
    /// Runs a command on the host as it is, and waits until it and all that it started have ended. Without supplementary
    /// rights: root has none of its capabilities there.
    ///
    /// Blocks the calling thread. If the calling process dies, so does the command. The streams are closed when this returns.
    ///
    /// # Errors
    ///
    /// [`SandboxError`] when the command did not run; when it ran and failed, that is an [`Outcome`].
    pub fn run_plain(&self, plain: &Plain, streams: Streams, cancel: &Cancel) -> Result<Outcome, SandboxError> {
        let started = Instant::now();
        plain.check()?;
        if plain.confined_to.is_some() {
            Landlock::of_kernel()?;
        }
        let Streams { stdin, stdout, stderr } = streams;
        let task = Task::Command(plain.command.iter().map(Bytes::from).collect());
        let job = PlainJob {
            program: Program {
                processors: plain.processors.clone(),
                aslr: plain.aslr,
                ..Program::new(task, &plain.environment, &plain.working_directory)
            },
            folder: Bytes::from(&plain.folder),
            confined_to: plain.confined_to.as_ref().map(|paths| paths.iter().map(Bytes::from).collect()),
            timeout_ms: plain.timeout.map(|timeout| u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX)),
            limits: plain.limits,
            has_stdin: stdin.is_some(),
        };
        let order = Order::Plain(Box::new(job));
        let report = self.give(&order, (stdout, stderr), stdin, cancel)?;
        let ending = ending(report, &|failure| failure.into_error())?;
        Ok(Outcome { ending, elapsed: started.elapsed() })
    }
}
