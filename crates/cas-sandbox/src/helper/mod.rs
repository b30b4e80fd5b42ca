//! The helper: the program started again to make one sandbox, outside of every thread of its parent.
//!
//! Three processes: the **supervisor** (this module) makes the namespaces and watches time, cancellation and its parent;
//! its child [`init`] is process 1 of the sandbox, builds what is seen there and collects orphans; its child
//! [`command`] becomes the step. Killing process 1 makes the kernel kill all others of its pid namespace, and the
//! supervisor sees it as ended only when they are gone; that is how nothing outlives a run.
//!
//! Each of the three has one thread, so it may fork. A run that is bridged to the host has one process more, with threads: [`bridge`].

mod bridge;
mod check;
mod command;
mod family;
mod guard;
mod ids;
mod init;
mod pack;
mod plain;
mod probe;
mod program;
mod usage;
mod witness;
mod world;

use std::fs::File;
use std::io::{IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use cas_sys::Fork;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, pidfd_open, pidfd_send_signal, waitpid};
use rustix::thread::UnshareFlags;

use self::bridge::Bridge;
use self::guard::Guard;
use self::ids::Mapper;
use crate::helpers::MAX_DESCRIPTORS;
use crate::ids::IdMaps;
use crate::run::Streams;
use crate::wire::{self, Job, Order, Report, SetupFailure, Stage};

/// A part of making a sandbox that failed; becomes a report.
type Setup<T> = Result<T, SetupFailure>;

/// Ties a system error to what was tried.
trait At<T> {
    fn at(self, stage: Stage) -> Setup<T>;
    fn at_path(self, stage: Stage, path: &Path) -> Setup<T>;
}

impl<T, E: Into<std::io::Error>> At<T> for Result<T, E> {
    fn at(self, stage: Stage) -> Setup<T> {
        self.map_err(|error| SetupFailure { stage, errno: number(&error.into()), path: None })
    }

    fn at_path(self, stage: Stage, path: &Path) -> Setup<T> {
        self.map_err(|error| SetupFailure { stage, errno: number(&error.into()), path: Some(path.into()) })
    }
}

/// The error number of a system error; those that std makes up stand for malformed messages and arguments.
fn number(error: &std::io::Error) -> i32 {
    error.raw_os_error().unwrap_or(Errno::INVAL.raw_os_error())
}

/// Runs one sandbox as the runner that started this process says, and returns the process's exit code.
///
/// To be called first thing in `main`, before threads, when the first argument is
/// [`HELPER_ARGUMENT`](crate::HELPER_ARGUMENT). Standard input must be the runner's socket.
#[must_use]
pub fn sandbox_main() -> i32 {
    /// As for every wrong use of the program.
    const USAGE: i32 = 2;
    // Borrowed through a duplicate, so that the number 0 is never free and taken by something else.
    let Ok(socket) = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3) else { return USAGE };
    // A Ctrl-C on the terminal is for the runner, which then decides what ends. It fails for a group leader alone, and a
    // process started by another one is none.
    let _ = rustix::process::setsid();
    let (order, given) = match receive(&socket) {
        Ok(Some(received)) => received,
        // The runner changed its mind before it had sent all.
        Ok(None) => return 0,
        Err(_) => {
            // Nobody listens on standard input: somebody tried the hidden argument by hand.
            let _ = std::io::stderr().write_all(b"error: `__sandbox` is for cas itself to start\n");
            return USAGE;
        }
    };
    let ended = match order {
        Order::Run(job) => supervise(&job, &socket, given),
        Order::Plain(job) => plain::supervise(&job, &socket, given),
        Order::Pack { maps, upper } => with_ids(&maps, || pack::run(&upper, given.streams.stdout)),
        Order::Remove { maps, folder } => with_ids(&maps, || {
            let folder = folder.into_path();
            cas_fs::remove_tree(&folder).map_err(|error| error.source).at_path(Stage::Remove, &folder)
        }),
    };
    let (report, guard) = ended.unwrap_or_else(|failure| (Report::Setup(failure), None));
    let told = match wire::encode(&report) {
        // A runner that is gone needs no report.
        Ok(message) => {
            drop(File::from(socket).write_all(&message));
            0
        }
        Err(_) => 1,
    };
    // All processes are dead. The runner need not wait until the kernel has cleared away what they lived in.
    drop(guard);
    told
}

/// A report; and what holds processes that are dead, if there were any.
type Ended = (Report, Option<Guard>);

/// What comes from the runner beside the order.
struct Given {
    streams: Streams,
    /// Where paths go that are looked for.
    lookups: Option<OwnedFd>,
    /// Where goes what a check found.
    findings: Option<OwnedFd>,
    /// What can be read when the command is to be asked to end.
    stop: Option<OwnedFd>,
    /// Where the first name goes that is looked up, and sockets that are bound on the host.
    bridge: Option<(OwnedFd, Vec<OwnedFd>)>,
}

fn receive(socket: &OwnedFd) -> std::io::Result<Option<(Order, Given)>> {
    // Descriptors come with the first byte.
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut first = [0; 1];
    let received = recvmsg(socket, &mut [IoSliceMut::new(&mut first)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    if received.bytes == 0 {
        return Ok(None);
    }
    let descriptors: Vec<OwnedFd> = control
        .drain()
        .flat_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => descriptors.collect(),
            _ => Vec::new(),
        })
        .collect();
    let rest = File::from(socket.try_clone()?);
    let Some(order) = wire::decode(std::io::Read::chain(&first[..], rest))? else { return Ok(None) };
    let (has_stdin, job) = match &order {
        Order::Run(job) => (job.has_stdin, Some(job)),
        Order::Plain(job) => (job.has_stdin, None),
        Order::Pack { .. } | Order::Remove { .. } => (false, None),
    };
    let (has_lookups, has_check, has_stop, has_bridge) = job.map_or((false, false, false, false), |job| {
        (job.has_lookups, job.check.is_some(), job.stop.is_some(), job.bridge.is_some())
    });
    // In this order, as far as the order says that they are there.
    let mut descriptors = descriptors.into_iter();
    let (Some(stdout), Some(stderr)) = (descriptors.next(), descriptors.next()) else {
        return Err(Errno::BADF.into());
    };
    let stdin = if has_stdin { descriptors.next() } else { None };
    let lookups = if has_lookups { descriptors.next() } else { None };
    let findings = if has_check { descriptors.next() } else { None };
    let stop = if has_stop { descriptors.next() } else { None };
    let bridge = if has_bridge { descriptors.next().map(|told| (told, descriptors.collect())) } else { None };
    Ok(Some((order, Given { streams: Streams { stdin, stdout, stderr }, lookups, findings, stop, bridge })))
}

fn supervise(job: &Job, socket: &OwnedFd, mut given: Given) -> Setup<Ended> {
    let deadline = job.timeout_ms.and_then(|timeout| Instant::now().checked_add(Duration::from_millis(timeout)));
    // Before the namespaces, in which groups and folders of the host are out of reach.
    let guard = Guard::new(job)?;
    enter_namespaces(job)?;
    let mut bridge = None;
    if let (Some((told, listeners)), Some(ports)) = (given.bridge.take(), &job.bridge) {
        let opened = Bridge::open(told, listeners, ports)?;
        let (lifeline, held) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).at(Stage::Fork)?;
        match cas_sys::fork().at(Stage::Fork)? {
            Fork::Child => {
                drop((given, held));
                opened.serve(lifeline)
            }
            Fork::Parent(process) => bridge = Some((process, held)),
        }
        cas_sys::enter_new_namespaces(UnshareFlags::NEWPID).at(Stage::Namespaces)?;
    }
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).at(Stage::Fork)?;
    match guard.fork()? {
        Fork::Child => {
            drop((reader, bridge));
            init::run(job, writer, given, &guard)
        }
        Fork::Parent(child) => {
            drop((writer, given));
            // With process 1 ends all of its namespace.
            watch(child, reader, socket, deadline, guard, || match bridge {
                None => Ok(()),
                Some((process, held)) => {
                    drop(held);
                    waitpid(Some(process), WaitOptions::empty()).at(Stage::Supervise).map(drop)
                }
            })
        }
    }
}

/// Does something as the user 0 of many.
fn with_ids(maps: &IdMaps, action: impl FnOnce() -> Setup<()>) -> Setup<Ended> {
    let mapper = Mapper::prepare(maps)?;
    cas_sys::enter_new_namespaces(UnshareFlags::NEWUSER).at(Stage::Namespaces)?;
    mapper.finish()?;
    action().map(|()| (Report::Done, None))
}

fn enter_namespaces(job: &Job) -> Setup<()> {
    let mapper = Mapper::prepare(&job.maps)?;
    // Only root may, and only root needs to: what is left of them is hidden by the system call filter.
    let _ = rustix::thread::set_thread_groups(&[]);
    let mut namespaces = UnshareFlags::NEWUSER | UnshareFlags::NEWNS | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS;
    // The bridge is started before: what is started behind it is in it, and the kernel's first process there would be the bridge.
    if job.bridge.is_none() {
        namespaces |= UnshareFlags::NEWPID;
    }
    if !job.host_network {
        namespaces |= UnshareFlags::NEWNET;
    }
    cas_sys::enter_new_namespaces(namespaces).at(Stage::Namespaces)?;
    mapper.finish()?;
    if !job.host_network {
        cas_sys::raise_loopback().at(Stage::Loopback)?;
    }
    Ok(())
}

/// A time to wait, as the system has it; what is longer than it knows is for ever.
pub(crate) fn timespec(time: Duration) -> Timespec {
    Timespec::try_from(time).unwrap_or(Timespec { tv_sec: i64::MAX, tv_nsec: 0 })
}

/// Waits until the child has ended, process 1 of a sandbox, and then ends the rest, if any.
fn watch(
    child: Pid,
    reader: OwnedFd,
    socket: &OwnedFd,
    deadline: Option<Instant>,
    mut guard: Guard,
    end_rest: impl FnOnce() -> Setup<()>,
) -> Setup<Ended> {
    let process = pidfd_open(child, PidfdFlags::empty()).at(Stage::Supervise)?;
    let mut killed_as = None;
    loop {
        let mut ready = vec![PollFd::new(&process, PollFlags::IN)];
        let mut timeout = None;
        if killed_as.is_none() {
            ready.push(PollFd::new(socket, PollFlags::IN));
            let next = deadline.into_iter().chain(guard.next_look()).min();
            timeout = next.map(|next| next.saturating_duration_since(Instant::now()));
        }
        let timeout = timeout.map(timespec);
        let count = match poll(&mut ready, timeout.as_ref()) {
            Err(Errno::INTR) => continue,
            other => other.at(Stage::Supervise)?,
        };
        if !ready[0].revents().is_empty() {
            break;
        }
        killed_as = if count > 0 {
            // Nothing more is sent after the job: whatever comes is the end of the stream, that is, a cancelled run or a
            // dead runner.
            Some(Report::Cancelled)
        } else if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            Some(Report::TimedOut)
        } else {
            guard.look().map(Report::OverLimit)
        };
        if killed_as.is_none() {
            continue;
        }
        pidfd_send_signal(process.as_fd(), Signal::KILL).at(Stage::Supervise)?;
    }
    waitpid(Some(child), WaitOptions::empty()).at(Stage::Supervise)?;
    end_rest()?;
    if let Some(report) = killed_as {
        return Ok((report, Some(guard)));
    }
    // Whatever the command made of it: it was refused what other hosts give it.
    if let Some(limit) = guard.refused() {
        return Ok((Report::OverLimit(limit), Some(guard)));
    }
    // All writers are dead, so this does not block. The first message counts: a failure comes before an ending.
    let report = wire::decode(File::from(reader)).at(Stage::Supervise)?;
    // Process 1 was killed from outside, by the kernel for want of memory or by the administrator.
    Ok((report.unwrap_or(Report::Signalled(Signal::KILL.as_raw())), Some(guard)))
}
