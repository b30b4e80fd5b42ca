//! Process 1 beside a command with a check: runs that again and again, and tells when it finds something else. And beside one that
//! is to be asked before it is killed: sends it the signal.
//!
//! Process 1 does it itself, in the loop in which it waits for the command: so nothing has to enter the sandbox from outside, the
//! command cannot end or stop it, and it ends with the command. A check is a fork of process 1, as the command is: same root,
//! rights, filter, limits and group. Whatever its path leads to by now, the command could have executed it itself, with one
//! exception, which `sealed.rs` is about.
//!
//! The rules are Docker's (moby, `daemon/health.go`).

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use cas_sys::Fork;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, kill_process_group, wait};

use super::{At, Setup, command, init, timespec};
use crate::error::StartError;
use crate::run::Streams;
use crate::wire::{self, Bytes, CheckJob, Finding, Report, Stage};

/// How much of what a check prints is kept, from its beginning.
const MAX_OUTPUT_BYTES: usize = 4 << 10;
/// How much is read between two looks at everything else.
const READ_BYTES: usize = 16 << 10;

/// How the command is asked to end.
pub(super) struct Stop {
    /// Number of the signal.
    pub(super) signal: i32,
    /// Can be read when it is time.
    pub(super) event: OwnedFd,
}

/// Waits for children until the command has ended, and meanwhile checks, and asks it to end.
pub(super) fn collect(command: Pid, check: Option<(&CheckJob, OwnedFd)>, mut stop: Option<Stop>) -> Setup<Report> {
    // Before the first look for ends: what ends behind that look is told.
    let ends = cas_sys::child_ends().at(Stage::Supervise)?;
    let mut checks = check.map(|(job, findings)| Checks::new(job, findings));
    loop {
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) if pid == command => return Ok(init::ending(status)),
                Ok(Some((pid, status))) => {
                    if let Some(checks) = &mut checks {
                        checks.ended(pid, status);
                    }
                }
                Ok(None) => break,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error).at(Stage::Supervise),
            }
        }
        let timeout = checks.as_mut().and_then(|checks| checks.proceed(Instant::now()));
        let mut ready = vec![PollFd::new(&ends, PollFlags::IN)];
        ready.extend(stop.as_ref().map(|stop| PollFd::new(&stop.event, PollFlags::IN)));
        let output = checks.as_ref().and_then(Checks::output);
        ready.extend(output.map(|output| PollFd::new(output, PollFlags::IN)));
        match poll(&mut ready, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error).at(Stage::Supervise),
        }
        let is_time = stop.is_some() && !ready[1].revents().is_empty();
        if let Some(stop) = stop.take_if(|_| is_time) {
            // It is a child that was not waited for, so that the number is no other's. What it lacks is the time that is waited for it.
            let _ = cas_sys::send_signal(command, stop.signal);
            // One that is about to end may well fail them.
            checks = None;
        }
        // Several ends are one message. Whether there is one does not matter: all children are looked at.
        let _ = rustix::io::read(&ends, &mut [0; 128]);
        if let Some(checks) = &mut checks {
            checks.read();
        }
    }
}

/// All checks of one command.
struct Checks<'a> {
    job: &'a CheckJob,
    findings: File,
    started: Instant,
    health: Health,
    running: Option<Running>,
    /// When the next one begins; never, if the clock does not go that far.
    next: Option<Instant>,
}

/// A check that has begun.
struct Running {
    process: Pid,
    /// When it is killed; `None` once it was.
    until: Option<Instant>,
    is_late: bool,
    /// Whether a failure counts.
    counts: bool,
    /// `None` once it is closed on the other side.
    output: Option<File>,
    kept: Vec<u8>,
    /// Where it tells that its program did not start.
    failure: File,
}

impl<'a> Checks<'a> {
    fn new(job: &'a CheckJob, findings: OwnedFd) -> Self {
        let started = Instant::now();
        let mut checks =
            Self { job, findings: File::from(findings), started, health: Health::default(), running: None, next: None };
        checks.next = checks.after_pause(started);
        checks
    }

    /// Starts or kills a check when it is time; how long nothing is to be done then.
    fn proceed(&mut self, now: Instant) -> Option<Timespec> {
        if self.running.is_none() && self.next.is_some_and(|next| next <= now) {
            let counts = !self.is_starting(now);
            match Running::start(self.job, counts) {
                Ok(running) => self.running = Some(running),
                Err(error) => {
                    self.found(counts, Report::Exited(-1), format!("it could not be started: {error}").into())
                }
            }
        }
        let late = self.running.as_mut().filter(|running| running.until.is_some_and(|until| until <= now));
        if let Some(running) = late {
            running.until = None;
            running.is_late = true;
            running.kill_group();
            // It has no group of its own yet if it is slow to begin.
            let _ = kill_process(running.process, Signal::KILL);
            running.read();
            let (counts, kept) = (running.counts, std::mem::take(&mut running.kept));
            // At once: it may be where no signal reaches it.
            self.found(counts, Report::TimedOut, kept);
        }
        let until = self.running.as_ref().map_or(self.next, |running| running.until)?;
        let left = until.saturating_duration_since(Instant::now());
        Some(timespec(left))
    }

    fn output(&self) -> Option<&File> {
        self.running.as_ref()?.output.as_ref()
    }

    fn read(&mut self) {
        if let Some(running) = &mut self.running {
            running.read();
        }
    }

    /// Takes in that a process has ended, perhaps the check.
    fn ended(&mut self, process: Pid, status: WaitStatus) {
        let Some(mut running) = self.running.take_if(|running| running.process == process) else { return };
        // What it left in its group is of no use any more. The number is no other group's as long as this one has members.
        running.kill_group();
        running.read();
        if running.is_late {
            return;
        }
        let ending = init::ending(status);
        let output = match running.failure() {
            Some(why) => why.into_bytes(),
            None => running.kept,
        };
        self.found(running.counts, ending, output);
    }

    fn found(&mut self, counts: bool, ending: Report, output: Vec<u8>) {
        let does_work = ending == Report::Exited(0);
        if let Some(is_healthy) = self.health.change(does_work, counts, self.job.retries) {
            let finding = Finding { is_healthy, ending, output: Bytes(output) };
            if let Ok(message) = wire::encode(&finding) {
                // A runner that is gone needs to be told nothing.
                let _ = self.findings.write_all(&message);
            }
        }
        self.next = self.after_pause(Instant::now());
    }

    fn is_starting(&self, now: Instant) -> bool {
        let is_early = now.saturating_duration_since(self.started) < Duration::from_millis(self.job.start_period_ms);
        self.health.is_healthy.is_none() && is_early
    }

    fn after_pause(&self, now: Instant) -> Option<Instant> {
        let pause_ms = if self.is_starting(now) { self.job.start_interval_ms } else { self.job.interval_ms };
        now.checked_add(Duration::from_millis(pause_ms))
    }
}

impl Running {
    fn start(job: &CheckJob, counts: bool) -> std::io::Result<Self> {
        let (output, writer) = pipe_with(PipeFlags::CLOEXEC)?;
        let (failure, told) = pipe_with(PipeFlags::CLOEXEC)?;
        // Its readers alone: what the check writes to waits for room, as elsewhere.
        for reader in [&output, &failure] {
            rustix::io::ioctl_fionbio(reader, true)?;
        }
        let streams = Streams::new(writer.try_clone()?, writer);
        match cas_sys::fork()? {
            Fork::Child => command::run(&job.program, told, streams, || command::filter(None)),
            Fork::Parent(process) => Ok(Self {
                process,
                until: Instant::now().checked_add(Duration::from_millis(job.timeout_ms)),
                is_late: false,
                counts,
                output: Some(File::from(output)),
                kept: Vec::new(),
                failure: File::from(failure),
            }),
        }
    }

    /// Reads some of what is there, and keeps what fits.
    fn read(&mut self) {
        let Some(output) = &mut self.output else { return };
        let mut bytes = [0; READ_BYTES];
        match output.read(&mut bytes) {
            Ok(0) => self.output = None,
            Ok(length) => {
                let room = MAX_OUTPUT_BYTES - self.kept.len();
                self.kept.extend(&bytes[..length.min(room)]);
            }
            // There is nothing at the moment.
            Err(_) => {}
        }
    }

    /// Why its program did not start, if that is so.
    fn failure(&mut self) -> Option<String> {
        match wire::decode(&mut self.failure).ok()?? {
            Report::Start(failure) => {
                let error = StartError::from_wire(failure);
                let why = std::error::Error::source(&error).map(|why| format!(": {why}")).unwrap_or_default();
                Some(format!("{error}{why}"))
            }
            Report::Setup(failure) => Some(failure.into_error().to_string()),
            _ => None,
        }
    }

    /// Kills all of the session that it leads but what has left its group. There may be nobody.
    fn kill_group(&self) {
        let _ = kill_process_group(self.process, Signal::KILL);
    }
}

/// What is known.
#[derive(Default)]
struct Health {
    is_healthy: Option<bool>,
    /// Failures since the last success, as far as they count.
    failures: u64,
}

impl Health {
    /// Takes in what was found; gives what is known now if that is something else than before.
    fn change(&mut self, does_work: bool, counts: bool, retries: u64) -> Option<bool> {
        if does_work {
            self.failures = 0;
        } else if counts {
            self.failures = self.failures.saturating_add(1);
        }
        let found = does_work || self.failures < retries;
        // Failures that are too few say nothing.
        if !does_work && found {
            return None;
        }
        (self.is_healthy.replace(found) != Some(found)).then_some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_success_counts_at_once_and_failures_in_a_row() {
        let mut health = Health::default();
        for (does_work, counts, expected) in [
            (false, false, None),
            (false, false, None),
            (false, false, None), // not at the beginning
            (false, true, None),
            (true, true, Some(true)),
            (true, true, None),
            (false, true, None),
            (true, true, None),
            (false, true, None),
            (false, true, Some(false)),
            (false, true, None),
            (true, true, Some(true)),
        ] {
            assert_eq!(health.change(does_work, counts, 2), expected, "{does_work} {counts}");
        }
    }
}
