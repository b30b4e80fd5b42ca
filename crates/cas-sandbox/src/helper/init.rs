//! Process 1 of the sandbox: builds the world, gives up every right, starts the command and waits for it.
//!
//! It stays beside the command because a process 1 ignores most signals and inherits every orphan, which programs are
//! not written for. It is out of the command's reach: it cannot be traced, read or killed by it.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;

use cas_sys::Fork;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Pid, Signal, WaitOptions, WaitStatus, wait};
use rustix::thread::{CapabilitySet, CapabilitySets, UnshareFlags};

use super::check::Stop;
use super::guard::Guard;
use super::{At, Given, Setup, check, command, witness, world};
use crate::spec::HOST_NAME;
use crate::wire::{self, Job, Report, Stage};

/// Does not return: the process ends with the sandbox.
pub(super) fn run(job: &Job, writer: OwnedFd, given: Given, guard: &Guard) -> ! {
    let report = live(job, &writer, given, guard).unwrap_or_else(Report::Setup);
    send(writer, &report);
    cas_sys::exit(0)
}

/// Tells the supervisor. If it is gone, so is this process in a moment.
pub(super) fn send(writer: OwnedFd, report: &Report) {
    if let Ok(message) = wire::encode(report) {
        drop(File::from(writer).write_all(&message));
    }
}

fn live(job: &Job, writer: &OwnedFd, given: Given, guard: &Guard) -> Setup<Report> {
    tie_to_parent(writer)?;
    guard.enter()?;
    // Here and not before, so that the group of the sandbox is the uppermost one that is seen.
    cas_sys::enter_new_namespaces(UnshareFlags::NEWCGROUP).at(Stage::Namespaces)?;
    rustix::system::sethostname(HOST_NAME.as_bytes()).at(Stage::HostName)?;
    // What the kernel starts with; a host's own domain would be inherited.
    rustix::system::setdomainname(b"(none)").at(Stage::HostName)?;
    // Modes of what is made from here on are exactly those asked for.
    rustix::process::umask(Mode::empty());
    world::build(job)?;
    let Given { streams, lookups, findings, stop, .. } = given;
    // While it may still read the memory of others.
    let witness = lookups.map(start_witness).transpose()?;
    drop_capabilities(if job.keeps_rights { KEPT } else { CapabilitySet::empty() })?;
    rustix::thread::set_no_new_privs(true).at(Stage::Capabilities)?;
    // Closes `/proc/1/{exe,fd,mem,environ,…}` to the command, which has the same user id.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).at(Stage::Capabilities)?;
    let child = match cas_sys::fork().at(Stage::Fork)? {
        Fork::Child => match writer.try_clone() {
            Ok(writer) => command::run(&job.program, writer, streams, || command::filter(witness.as_ref())),
            Err(_) => cas_sys::exit(1),
        },
        Fork::Parent(child) => child,
    };
    // They may be pipes whose other ends wait for them to be closed.
    drop((streams, witness));
    let check = job.check.as_ref().zip(findings);
    let stop = job.stop.zip(stop).map(|((signal, _), event)| Stop { signal, event });
    if check.is_none() && stop.is_none() { collect(child) } else { check::collect(child, check, stop) }
}

/// Starts the process that sees what is looked for; gives the socket over which it wants to be told where to listen.
fn start_witness(lookups: OwnedFd) -> Setup<OwnedFd> {
    let flags = rustix::net::SocketFlags::CLOEXEC;
    let (ours, theirs) =
        rustix::net::socketpair(rustix::net::AddressFamily::UNIX, rustix::net::SocketType::STREAM, flags, None)
            .at(Stage::Fork)?;
    match cas_sys::fork().at(Stage::Fork)? {
        Fork::Child => {
            drop(ours);
            witness::run(&theirs, lookups)
        }
        Fork::Parent(_) => Ok(ours),
    }
}

/// Makes the kernel kill this process when its parent ends, however that happens. The parent holds the reading end.
pub(super) fn tie_to_parent(writer: &OwnedFd) -> Setup<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).at(Stage::Lifeline)?;
    // It may have ended before that call: then nobody holds the reading end any more.
    let mut ready = [PollFd::new(writer, PollFlags::empty())];
    poll(&mut ready, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).at(Stage::Lifeline)?;
    if ready[0].revents().contains(PollFlags::ERR) {
        return Err(Errno::PIPE).at(Stage::Lifeline);
    }
    Ok(())
}

/// What user 0 of many keeps: what installing packages needs. All of it is about users of the sandbox and their files: none
/// gives a right to mount, to trace, to make devices, or over networks and clocks.
const KEPT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::SYS_CHROOT);

/// Gives up all other capabilities for good: a program with inner user id 0 gets none of them either.
pub(super) fn drop_capabilities(kept: CapabilitySet) -> Setup<()> {
    for number in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if kept.contains(capability) {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            // The first number that this kernel does not know.
            Err(Errno::INVAL) => break,
            other => other.at(Stage::Capabilities)?,
        }
    }
    rustix::thread::clear_ambient_capability_set().at(Stage::Capabilities)?;
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, sets).at(Stage::Capabilities)
}

/// Waits for children, the adopted ones too, until the command has ended.
pub(super) fn collect(child: Pid) -> Setup<Report> {
    loop {
        match wait(WaitOptions::empty()) {
            Err(Errno::INTR) | Ok(None) => {}
            Ok(Some((pid, status))) if pid == child => return Ok(ending(status)),
            Ok(Some(_)) => {}
            Err(error) => return Err(error).at(Stage::Supervise),
        }
    }
}

pub(super) fn ending(status: WaitStatus) -> Report {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Report::Exited(code),
        (None, signal) => Report::Signalled(signal.unwrap_or_default()),
    }
}
