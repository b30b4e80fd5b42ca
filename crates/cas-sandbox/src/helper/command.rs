//! Process 2 of the sandbox, up to where it becomes the step's program.

use std::ffi::{CStr, CString};
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_setaffinity};

use super::{At, Setup, init, probe, program};
use crate::run::Streams;
use crate::wire::{Bytes, Program, Report, Stage, StartFailure, StartKind, Task};

/// File mode mask of every command.
const UMASK: u32 = 0o022;
/// Open files of every command, soft: what most systems start with. Some programs loop over all up to this number.
const OPEN_FILES: u64 = 1024;
/// Stack of every command, soft: Linux's default. The address layout and the length of arguments follow from it.
const STACK_BYTES: u64 = 8 << 20;
/// Where a program without `/` is searched when the environment has no `PATH`.
const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Exit code of a process whose failure was told over the pipe.
const FAILED: i32 = 127;

/// Does not return: becomes the command, or ends after telling why not. What else is to hold it is done by `confine`, last.
pub(super) fn run(job: &Program, writer: OwnedFd, streams: Streams, confine: impl FnOnce() -> Setup<()>) -> ! {
    let report = match prepare(job, streams).and_then(|()| confine()) {
        Err(failure) => Report::Setup(failure),
        Ok(()) => match &job.task {
            Task::Probe => match probe::run() {
                Ok(()) => cas_sys::exit(0),
                Err(failure) => Report::Setup(failure),
            },
            Task::Command(words) => Report::Start(start(job, words)),
        },
    };
    init::send(writer, &report);
    cas_sys::exit(FAILED)
}

/// Sets what a program inherits.
fn prepare(job: &Program, streams: Streams) -> Setup<()> {
    rustix::process::setsid().at(Stage::Streams)?;
    let stdin = match streams.stdin {
        Some(stdin) => stdin,
        None => rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).at(Stage::Streams)?,
    };
    rustix::stdio::dup2_stdin(stdin.as_fd()).at(Stage::Streams)?;
    rustix::stdio::dup2_stdout(streams.stdout.as_fd()).at(Stage::Streams)?;
    rustix::stdio::dup2_stderr(streams.stderr.as_fd()).at(Stage::Streams)?;
    // Includes the pipe to the supervisor, which therefore closes when the program starts.
    cas_sys::close_on_exec_from(3).at(Stage::Streams)?;
    limit(Resource::Core, Some(0), Some(0))?;
    limit(Resource::Nofile, Some(OPEN_FILES), None)?;
    limit(Resource::Stack, Some(STACK_BYTES), None)?;
    if !job.processors.is_empty() {
        let mut set = CpuSet::new();
        job.processors.iter().for_each(|number| set.set(*number));
        sched_setaffinity(None, &set).at(Stage::Processors)?;
    }
    rustix::process::umask(Mode::from_raw_mode(UMASK));
    cas_sys::set_personality(job.aslr).at(Stage::Signals)?;
    cas_sys::reset_signals().at(Stage::Signals)
}

/// Takes system calls away, and lets the witness see what is looked for.
pub(super) fn filter(witness: Option<&OwnedFd>) -> Setup<()> {
    cas_sys::filter_system_calls().at(Stage::Filter)?;
    // Last, because from then on looking for a file waits for the witness.
    match witness {
        None => Ok(()),
        Some(witness) => cas_sys::tell_lookups().and_then(|listener| hand_over(witness, &listener)).at(Stage::Filter),
    }
}

/// Sends a descriptor, and keeps none: the witness alone shall be able to listen.
fn hand_over(socket: &OwnedFd, descriptor: &OwnedFd) -> std::io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [descriptor.as_fd()];
    let fits = control.push(SendAncillaryMessage::ScmRights(&descriptors));
    debug_assert!(fits, "the space is that of one descriptor");
    sendmsg(socket, &[IoSlice::new(&[0])], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Sets a soft limit, as far as the hard one allows, and the hard one if given.
fn limit(resource: Resource, soft: Option<u64>, hard: Option<u64>) -> Setup<()> {
    let present = getrlimit(resource);
    let maximum = hard.or(present.maximum);
    let current = match (soft, maximum) {
        (Some(soft), Some(maximum)) => Some(soft.min(maximum)),
        (soft, _) => soft,
    };
    setrlimit(resource, Rlimit { current, maximum }).at(Stage::Limits)
}

/// Enters the working directory and executes the program; returns why that failed.
fn start(job: &Program, words: &[Bytes]) -> StartFailure {
    let fail = |kind, path: &[u8], errno: i32| StartFailure { kind, path: Bytes(path.to_vec()), errno };
    let directory = &job.working_directory.0;
    if let Err(errno) = rustix::process::chdir(directory.as_slice()) {
        return fail(StartKind::WorkingDirectory, directory, errno.raw_os_error());
    }
    let name = words.first().map(|word| word.0.as_slice()).unwrap_or_default();
    let strings = || -> std::io::Result<(Vec<CString>, Vec<CString>)> {
        let arguments = words.iter().map(Bytes::to_c_string).collect::<Result<_, _>>()?;
        let environment = job
            .environment
            .iter()
            .map(|(name, value)| Bytes([&name.0, b"=".as_slice(), &value.0].concat()).to_c_string())
            .collect::<Result<_, _>>()?;
        Ok((arguments, environment))
    };
    // The runner has refused what has a NUL in it.
    let Ok((arguments, environment)) = strings() else {
        return fail(StartKind::Other, name, Errno::INVAL.raw_os_error());
    };
    let mut refused = None;
    for candidate in candidates(job, name) {
        let Ok(path) = CString::new(candidate.as_slice()) else { continue };
        let error = match program::check(&path) {
            Ok(()) => cas_sys::exec(&path, &arguments, &environment),
            Err(errno) => errno.into(),
        };
        let errno = super::number(&error);
        let kind = match Errno::from_raw_os_error(errno) {
            // The kernel says the same of a missing program and of a program whose interpreter is missing.
            Errno::NOENT if exists(&path) => StartKind::InterpreterMissing,
            Errno::NOENT | Errno::NOTDIR => continue,
            // The search goes on behind a file that may not be executed, as a shell's does.
            Errno::ACCESS => {
                refused.get_or_insert(fail(StartKind::NotExecutable, &candidate, errno));
                continue;
            }
            Errno::NOEXEC => StartKind::WrongFormat,
            Errno::TOOBIG => StartKind::ArgumentsTooLong,
            _ => StartKind::Other,
        };
        return fail(kind, &candidate, errno);
    }
    refused.unwrap_or_else(|| fail(StartKind::NotFound, name, Errno::NOENT.raw_os_error()))
}

fn exists(path: &CStr) -> bool {
    rustix::fs::stat(path).is_ok()
}

/// The paths that a program's name can mean, in order.
fn candidates(job: &Program, name: &[u8]) -> Vec<Vec<u8>> {
    if name.contains(&b'/') {
        return vec![name.to_vec()];
    }
    let path = job.environment.iter().find(|(name, _)| name.0 == b"PATH").map_or(DEFAULT_PATH, |(_, value)| &value.0);
    path.split(|byte| *byte == b':')
        // An empty part is the working directory, by POSIX.
        .map(|directory| if directory.is_empty() { b".".as_slice() } else { directory })
        .map(|directory| Path::new(std::ffi::OsStr::from_bytes(directory)).join(std::ffi::OsStr::from_bytes(name)))
        .map(|path| path.into_os_string().as_bytes().to_vec())
        .collect()
}
