//! A process beside the command that asks it again and again whether it works, and tells when the answer changes.
//!
//! It is started by process 1 when all rights are given up, and ends with the sandbox. The command could kill it, as it could lie:
//! then nothing more is told.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use cas_sys::Fork;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, kill_process_group, pidfd_open, waitpid};

use super::{At, Setup, command};
use crate::run::Streams;
use crate::wire::{CheckJob, HEALTHY, Stage, UNHEALTHY};

/// What is known.
struct Health {
    is_healthy: Option<bool>,
    /// Failures since the last success, as far as they count.
    failures: u64,
}

/// Starts the process. Its answers go to `told`.
pub(super) fn start(job: &CheckJob, told: OwnedFd) -> Setup<()> {
    match cas_sys::fork().at(Stage::Fork)? {
        Fork::Child => run(job, told),
        Fork::Parent(_) => Ok(()),
    }
}

/// Does not return: is killed with the sandbox.
fn run(job: &CheckJob, told: OwnedFd) -> ! {
    let mut told = File::from(told);
    let started = Instant::now();
    let mut health = Health { is_healthy: None, failures: 0 };
    loop {
        let is_starting = |health: &Health| {
            health.is_healthy.is_none() && started.elapsed() < Duration::from_millis(job.start_period_ms)
        };
        let pause = if is_starting(&health) { job.start_interval_ms } else { job.interval_ms };
        std::thread::sleep(Duration::from_millis(pause));
        let does_work = works(job);
        let change = health.change(does_work, is_starting(&health), job.retries);
        // A runner that is gone needs to be told nothing.
        if let Some(is_healthy) = change {
            let _ = told.write_all(&[if is_healthy { HEALTHY } else { UNHEALTHY }]);
        }
    }
}

impl Health {
    /// Takes in what was found; gives what is known now if that is something else than before.
    fn change(&mut self, does_work: bool, is_starting: bool, retries: u64) -> Option<bool> {
        self.failures = if does_work || is_starting { 0 } else { self.failures + 1 };
        let found = if does_work {
            true
        } else if self.failures >= retries.max(1) {
            false
        } else {
            return None;
        };
        (self.is_healthy.replace(found) != Some(found)).then_some(found)
    }
}

/// Runs the check, as the command was run, but without streams; whether it ended well and in time.
fn works(job: &CheckJob) -> bool {
    let null = || rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
    let (Ok(stdout), Ok(stderr), Ok(writer)) = (null(), null(), null()) else { return false };
    match cas_sys::fork() {
        Ok(Fork::Child) => {
            let streams = Streams { stdin: None, stdout, stderr };
            command::run(&job.program, writer, streams, || command::filter(None))
        }
        Ok(Fork::Parent(child)) => ends_well(child, Duration::from_millis(job.timeout_ms)),
        Err(_) => false,
    }
}

fn ends_well(child: Pid, timeout: Duration) -> bool {
    let until = Instant::now() + timeout;
    let process = pidfd_open(child, PidfdFlags::empty());
    let is_over = |process: &OwnedFd| loop {
        let left = until.saturating_duration_since(Instant::now());
        let left =
            Timespec { tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX), tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::new(&process.as_fd(), PollFlags::IN)], Some(&left)) {
            Err(rustix::io::Errno::INTR) => {}
            other => return other.is_ok_and(|count| count > 0),
        }
    };
    let is_in_time = process.is_ok_and(|process| is_over(&process));
    // It leads its session; what it left running is of no use either.
    let _ = kill_process_group(child, Signal::KILL);
    let _ = rustix::process::kill_process(child, Signal::KILL);
    let status = waitpid(Some(child), WaitOptions::empty());
    is_in_time && status.is_ok_and(|found| found.is_some_and(|(_, status)| status.exit_status() == Some(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_success_counts_at_once_and_failures_in_a_row() {
        let mut health = Health { is_healthy: None, failures: 0 };
        for (does_work, is_starting, expected) in [
            (false, true, None),
            (false, true, None),
            (false, true, None), // not at the beginning
            (false, false, None),
            (true, false, Some(true)),
            (true, false, None),
            (false, false, None),
            (true, false, None),
            (false, false, None),
            (false, false, Some(false)),
            (false, false, None),
            (true, false, Some(true)),
        ] {
            assert_eq!(health.change(does_work, is_starting, 2), expected, "{does_work} {is_starting}");
        }
    }
}
