//! `--watch`: builds, waits for a change, and builds again.
//!
//! Each build is a process of its own, so that it begins with nothing but what is there now, `cas.toml` files included. A
//! build that is overtaken by a change goes to its end, because what it gives is kept by content, and is followed by another.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cas_build::Workspace;
use cas_snapshot::{Lookout, SnapshotError};
use rustix::process::{Pid, Signal, getpid, getppid, kill_process, set_parent_process_death_signal};
use signal_hook::consts::{SIGCHLD, SIGINT, SIGTERM};

use crate::args::Global;
use crate::commands::here;
use crate::exit::Exit;
use crate::render::{self, Failure};
use crate::signals::Signals;

/// The option of this.
const OPTION: &str = "--watch";
/// How long nothing must happen before a build begins, and how long is waited for that: editors and git write many files.
const QUIET: Duration = Duration::from_millis(60);
const MAX_BURST: Duration = Duration::from_secs(2);
/// How often a workspace is looked at that cannot be read.
const RETRY: Duration = Duration::from_secs(1);
/// How long a build may take to end when it is told to.
const GRACE: Duration = Duration::from_secs(10);
/// Paths that are told of.
const MAX_TOLD: usize = 3;

/// Makes this process end when the one that watches for it does.
pub(crate) fn end_with(parent: i32) -> Result<(), Failure> {
    let gone = || Failure::Usable("the process that watches is gone".to_owned(), String::new());
    set_parent_process_death_signal(Some(Signal::TERM))
        .map_err(|error| failed("follow the process that watches", error.into()))?;
    // It may have ended before.
    if getppid() == Pid::from_raw(parent) { Ok(()) } else { Err(gone()) }
}

/// Builds again and again, with this command line. `own` are files that builds write.
pub(crate) fn run(global: &Global, arguments: &[OsString], own: &[PathBuf]) -> Result<Exit, Failure> {
    let root = Workspace::find(&here(global))?;
    let signals = Signals::listen(&[SIGINT, SIGTERM, SIGCHLD]).map_err(|error| failed("watch for signals", error))?;
    let own: Vec<PathBuf> = own.iter().map(|path| absolute(&here(global).join(path))).collect();
    let mut lookout = Lookout::new(&root, &own)?;
    let mut watch = Watch { arguments, signals, lookout: &mut lookout, told: None, is_blind: false };
    // What is there at first is no change.
    let mut ended = watch.settle()?.0;
    while ended.is_none() {
        ended = watch.build()?;
        if ended.is_none() {
            ended = watch.wait()?;
        }
    }
    Ok(ended.unwrap_or(Exit::Interrupted))
}

struct Watch<'a> {
    arguments: &'a [OsString],
    signals: Signals,
    lookout: &'a mut Lookout,
    /// Why the workspace could not be read last time: told once.
    told: Option<String>,
    is_blind: bool,
}

impl Watch<'_> {
    /// Waits until nothing happens for a moment; returns what changed.
    fn settle(&mut self) -> Result<(Option<Exit>, Vec<PathBuf>), Failure> {
        let started = Instant::now();
        loop {
            let came = self.signals.wait(self.lookout.event(), Some(QUIET)).map_err(|error| failed("wait", error))?;
            if let Some(exit) = exit(&came.signals) {
                return Ok((Some(exit), Vec::new()));
            }
            self.lookout.drain();
            if !came.is_other_ready || started.elapsed() > MAX_BURST {
                break;
            }
        }
        let changed = match self.lookout.changes() {
            Ok(changed) => {
                self.told = None;
                changed
            }
            Err(error) => {
                self.tell(&error);
                Vec::new()
            }
        };
        if self.lookout.is_blind() && !self.is_blind {
            self.is_blind = true;
            render::note(
                "warning: the system watches no more folders for this user; the workspace is looked at every second",
            );
            render::note("hint: raise the limit `fs.inotify.max_user_watches` with sysctl");
        }
        Ok((None, changed))
    }

    fn tell(&mut self, error: &SnapshotError) {
        let text = error.to_string();
        if self.told.as_ref() != Some(&text) {
            render::note(&format!("error: {text}"));
            self.told = Some(text);
        }
    }

    /// Waits for a change, and tells of it.
    fn wait(&mut self) -> Result<Option<Exit>, Failure> {
        // What changed during the build has its event already.
        let (mut ended, mut changed) = self.settle()?;
        if changed.is_empty() && ended.is_none() {
            render::note("waiting for changes");
        }
        while changed.is_empty() && ended.is_none() {
            let timeout = if self.told.is_some() { Some(RETRY) } else { self.lookout.poll() };
            let came = self.signals.wait(self.lookout.event(), timeout).map_err(|error| failed("wait", error))?;
            ended = exit(&came.signals);
            if ended.is_none() {
                (ended, changed) = self.settle()?;
            }
        }
        if ended.is_none() {
            render::note(&format!("changed: {}", describe(&changed)));
        }
        Ok(ended)
    }

    /// Builds once.
    fn build(&self) -> Result<Option<Exit>, Failure> {
        let mut child = self.start().map_err(|error| failed("start a build", error))?;
        let mut ended: Option<(Exit, Instant)> = None;
        loop {
            if child.try_wait().map_err(|error| failed("wait for a build", error))?.is_some() {
                return Ok(ended.map(|(exit, _)| exit));
            }
            let left = ended.map(|(_, told)| GRACE.saturating_sub(told.elapsed()));
            if left.is_some_and(|left| left.is_zero()) {
                child.kill().map_err(|error| failed("end a build", error))?;
            }
            let came = self.signals.wait(None, left).map_err(|error| failed("wait", error))?;
            if let Some(exit) = exit(&came.signals).filter(|_| ended.is_none()) {
                ended = Some((exit, Instant::now()));
                // From the terminal it has the signal already, and does not mind another one.
                let _ = kill_process(Pid::from_child(&child), Signal::TERM);
            }
        }
    }

    fn start(&self) -> io::Result<Child> {
        // What is behind `--` is for tests.
        let arguments = self.arguments.get(1..).unwrap_or_default();
        let end = arguments.iter().position(|argument| argument == "--").unwrap_or(arguments.len());
        let (own, others) = arguments.split_at(end);
        let mut command = Command::new(Path::new("/proc/self/exe"));
        command.args(own.iter().filter(|argument| *argument != OPTION));
        command.arg("--watched-by").arg(getpid().as_raw_nonzero().get().to_string());
        command.args(others).stdin(Stdio::null()).spawn()
    }
}

fn exit(signals: &[i32]) -> Option<Exit> {
    signals.iter().find_map(|signal| match *signal {
        SIGINT => Some(Exit::Interrupted),
        SIGTERM => Some(Exit::Terminated),
        _ => None,
    })
}

fn describe(changed: &[PathBuf]) -> String {
    let told: Vec<String> = changed.iter().take(MAX_TOLD).map(|path| path.display().to_string()).collect();
    match changed.len().saturating_sub(MAX_TOLD) {
        0 => told.join(", "),
        more => format!("{} and {more} more", told.join(", ")),
    }
}

/// A path without links, also of a file that is not there yet.
fn absolute(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or(OsStr::new("."));
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    cas_fs::canonicalize(parent).map_or_else(|_| path.to_owned(), |parent| parent.join(name))
}

fn failed(what: &str, error: io::Error) -> Failure {
    Failure::Usable(format!("could not {what}: {error}"), String::new())
}
