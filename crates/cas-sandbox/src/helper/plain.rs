//! A run on the host as it is, in three processes as a sandbox has them.
//!
//! No namespace makes the kernel kill what a command started. So the **supervisor** is its *subreaper*: whose parent ends becomes
//! its child, wherever it has fled to (sessions, groups), and is killed until there is no child left. Between it and the
//! command is the **reaper**, which collects orphans while the command runs, and dies with the supervisor, as the
//! command does with the reaper.
//!
//! It holds no program that means harm: one can kill the supervisor first where nothing keeps signals from it.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use cas_sys::{Access, Fork};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{
    DumpableBehavior, Pid, PidfdFlags, Signal, WaitOptions, kill_process_group, pidfd_open, pidfd_send_signal, wait,
};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::family::{self, Member};
use super::guard::Guard;
use super::{At, Ended, Given, Setup, command, init, watch};
use crate::wire::{PlainJob, Report, Stage};

/// Time between two looks for processes that are still there, when all that were seen have been killed.
const PAUSE: Duration = Duration::from_millis(1);

pub(super) fn supervise(job: &PlainJob, socket: &OwnedFd, given: Given) -> Setup<Ended> {
    let deadline = job.timeout_ms.and_then(|timeout| Instant::now().checked_add(Duration::from_millis(timeout)));
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).at(Stage::Lifeline)?;
    // Closes the memory of the helper's processes to the command, if it is an ordinary user's.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).at(Stage::Lifeline)?;
    let guard = Guard::of_folder(job.limits, &job.folder)?;
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).at(Stage::Fork)?;
    match guard.fork()? {
        Fork::Child => {
            drop(reader);
            let report = reap(job, &writer, given, &guard).unwrap_or_else(Report::Setup);
            init::send(writer, &report);
            cas_sys::exit(0)
        }
        Fork::Parent(child) => {
            drop((writer, given));
            watch(child, reader, socket, deadline, guard, kill_descendants)
        }
    }
}

/// The reaper: gives up rights, starts the command and waits for it.
fn reap(job: &PlainJob, writer: &OwnedFd, given: Given, guard: &Guard) -> Setup<Report> {
    init::tie_to_parent(writer)?;
    guard.enter()?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).at(Stage::Lifeline)?;
    drop_rights()?;
    let (alive, lifeline) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).at(Stage::Fork)?;
    match cas_sys::fork().at(Stage::Fork)? {
        Fork::Child => {
            drop(alive);
            let tied = init::tie_to_parent(&lifeline);
            drop(lifeline);
            match writer.try_clone() {
                Ok(writer) => command::run(&job.program, writer, given.streams, || tied.and_then(|()| confine(job))),
                Err(_) => cas_sys::exit(1),
            }
        }
        Fork::Parent(child) => {
            drop((lifeline, given));
            let report = init::collect(child);
            drop(alive);
            report
        }
    }
}

/// What a confined command may use as well. Reading of `/proc` what is another's takes rights that Landlock has taken.
const USABLE: [(&str, Access); 7] = [
    ("/proc", Access::Read),
    ("/dev/null", Access::Device),
    ("/dev/zero", Access::Device),
    ("/dev/full", Access::Device),
    ("/dev/random", Access::Device),
    ("/dev/urandom", Access::Device),
    ("/dev/tty", Access::Device),
];

/// Gives up what the job does not name, for good.
fn confine(job: &PlainJob) -> Setup<()> {
    let Some(shown) = &job.confined_to else { return Ok(()) };
    let shown = shown.iter().map(|path| (path.clone().into_path(), Access::Execute));
    let own = std::iter::once((job.folder.clone().into_path(), Access::Write));
    let usable = USABLE.into_iter().map(|(path, access)| (PathBuf::from(path), access));
    let mut opened: Vec<(OwnedFd, Access)> = Vec::new();
    for (path, access) in own.chain(shown).chain(usable) {
        match rustix::fs::open(&path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
            // What is not there can be lacked.
            Err(Errno::NOENT) if access != Access::Write => {}
            other => opened.push((other.at_path(Stage::Confine, &path)?, access)),
        }
    }
    let rules: Vec<(BorrowedFd<'_>, Access)> = opened.iter().map(|(file, access)| (file.as_fd(), *access)).collect();
    cas_sys::restrict_to(&rules).at(Stage::Confine)?;
    command::filter(None)
}

/// Gives up all capabilities, and those that programs could bring.
fn drop_rights() -> Setup<()> {
    // Only who has this right can take others from programs that are started later; who has it not has none to pass on.
    let own = rustix::thread::capabilities(None).at(Stage::Capabilities)?;
    if own.effective.contains(CapabilitySet::SETPCAP) {
        init::drop_capabilities(CapabilitySet::empty())?;
    } else {
        rustix::thread::clear_ambient_capability_set().at(Stage::Capabilities)?;
        let none = CapabilitySet::empty();
        let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
        rustix::thread::set_capabilities(None, sets).at(Stage::Capabilities)?;
    }
    rustix::thread::set_no_new_privs(true).at(Stage::Capabilities)
}

/// Kills all descendants of this process, which is their subreaper, and waits for their ends.
fn kill_descendants() -> Setup<()> {
    let own_group = rustix::process::getpgrp();
    loop {
        let members = family::descendants();
        // A whole group at once, from which none can fork away. Groups of the command's sessions have no other members.
        for group in members.iter().map(|member| member.group).filter(|group| *group != own_group) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let open = |member: &Member| Some((member.process, pidfd_open(member.process, PidfdFlags::empty()).ok()?));
        let held: Vec<(Pid, OwnedFd)> = members.iter().filter_map(open).collect();
        // What was opened may be another one that has the number now; it is not below this process then.
        let still: BTreeSet<i32> = family::descendants().iter().map(|member| member.process.as_raw_pid()).collect();
        for (_, process) in held.iter().filter(|(number, _)| still.contains(&number.as_raw_pid())) {
            // It may have ended.
            let _ = pidfd_send_signal(process, Signal::KILL);
        }
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some(_)) | Err(Errno::INTR) => {}
                Ok(None) => break,
                // All that is left would be a child of this process.
                Err(Errno::CHILD) => return Ok(()),
                Err(error) => return Err(error).at(Stage::Supervise),
            }
        }
        std::thread::sleep(PAUSE);
    }
}
