//! The runner: prepares scratch folders, starts the helper, and waits for its report.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::{self, IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown, sendmsg, shutdown};

use crate::cancel::Cancel;
use crate::error::{SandboxError, StartError};
use crate::host::{self, Facts};
use crate::ids::IdMaps;
use crate::limits::Limit;
use crate::scratch::Skeleton;
use crate::spec::{Overlay, SECRETS_DIRECTORY, SOURCE_DIRECTORY, Spec, Users};
use crate::wire::{self, Bytes, Job, Order, Report, SetupFailure, Stage, Task};

/// Most of what is read of paths that were looked for.
const MAX_LOOKUP_BYTES: u64 = 8 << 20;

/// Starts sandboxes.
#[derive(Clone, Debug)]
pub struct Runner {
    /// The program that is started with [`HELPER_ARGUMENT`](crate::HELPER_ARGUMENT): normally the running one.
    pub helper: PathBuf,
}

/// Where the command's standard streams go.
///
/// A command can open its streams again under `/proc/self/fd`, and can tell a pipe from a file. So a step gets pipes:
/// with a file, it could see the file's path on the host and cut it.
#[derive(Debug)]
pub struct Streams {
    /// Standard input; `None` is `/dev/null`.
    pub stdin: Option<OwnedFd>,
    /// Standard output.
    pub stdout: OwnedFd,
    /// Standard error. For one stream of both, a second descriptor of the same pipe.
    pub stderr: OwnedFd,
}

impl Streams {
    /// Streams of a step: nothing to read, and two places to write.
    #[must_use]
    pub fn new(stdout: impl Into<OwnedFd>, stderr: impl Into<OwnedFd>) -> Self {
        Self { stdin: None, stdout: stdout.into(), stderr: stderr.into() }
    }
}

/// A run that took place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// How the command ended.
    pub ending: Ending,
    /// How long sandbox and command took.
    pub elapsed: Duration,
}

/// How a command ended. Whatever it had started is dead as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// By itself, with this code.
    Exited(i32),
    /// By this signal, which came from inside the sandbox or from the kernel.
    Signalled(i32),
    /// Killed because its time was over.
    TimedOut,
    /// Killed because the run was cancelled.
    Cancelled,
    /// Killed because it had more of something than its [`Limits`](crate::Limits) say, or ended after it had been refused more.
    OverLimit(Limit),
}

impl Runner {
    /// Starts sandboxes with the running program as helper, even if its file was replaced or removed meanwhile.
    ///
    /// Its `main` must call [`sandbox_main`](crate::sandbox_main) for the hidden argument.
    #[must_use]
    pub fn this_program() -> Self {
        Self { helper: PathBuf::from("/proc/self/exe") }
    }

    /// Runs a command in a sandbox and waits until it and all that it started have ended.
    ///
    /// Blocks the calling thread. The scratch folders of `spec` are made here and stay, for
    /// [`changes`](crate::changes()) and [`cas_fs::remove_tree`]. If the calling process dies, so does the
    /// command. The streams are closed when this returns, so whoever reads a pipe of them needs another thread.
    ///
    /// # Errors
    ///
    /// [`SandboxError`] when the command did not run; when it ran and failed, that is an [`Outcome`].
    pub fn run(&self, spec: &Spec, streams: Streams, cancel: &Cancel) -> Result<Outcome, SandboxError> {
        let task = Task::Command(spec.command.iter().map(Bytes::from).collect());
        self.run_task(spec, task, streams, None, cancel)
    }

    /// As [`Runner::run`], and tells which paths in [`SOURCE_DIRECTORY`](crate::SOURCE_DIRECTORY) the command and all that it
    /// started looked for, from there on, whether they are there or not. For finding out why a command failed: it is slower, and
    /// a process more is in the sandbox.
    ///
    /// # Errors
    ///
    /// [`SandboxError`], also on a kernel that cannot do it.
    pub fn run_watched(
        &self,
        spec: &Spec,
        streams: Streams,
        cancel: &Cancel,
    ) -> Result<(Outcome, BTreeSet<PathBuf>), SandboxError> {
        let task = Task::Command(spec.command.iter().map(Bytes::from).collect());
        let (reader, writer) = io::pipe().map_err(SandboxError::Connection)?;
        std::thread::scope(|scope| {
            let reading = scope.spawn(move || {
                let mut bytes = Vec::new();
                // It is for explanations: what cannot be read is not told.
                let _ = reader.take(MAX_LOOKUP_BYTES).read_to_end(&mut bytes);
                let paths = bytes.split(|byte| *byte == 0).filter_map(|path| {
                    let path = Path::new(OsStr::from_bytes(path)).strip_prefix(SOURCE_DIRECTORY).ok()?;
                    (path != Path::new("")).then(|| path.to_owned())
                });
                paths.collect()
            });
            let outcome = self.run_task(spec, task, streams, Some(writer.into()), cancel);
            let paths = reading.join().unwrap_or_default();
            Ok((outcome?, paths))
        })
    }

    pub(crate) fn run_task(
        &self,
        spec: &Spec,
        task: Task,
        streams: Streams,
        lookups: Option<OwnedFd>,
        cancel: &Cancel,
    ) -> Result<Outcome, SandboxError> {
        let started = Instant::now();
        spec.check()?;
        let maps = IdMaps::of(spec)?;
        let secrets = Path::new(SECRETS_DIRECTORY).strip_prefix("/").expect("it is absolute");
        let more: &[&Path] = if spec.secrets.is_empty() { &[] } else { &[secrets] };
        spec.root.prepare(Skeleton::MountPoints, more)?;
        if let Some(source) = &spec.source {
            let private: Vec<&Path> = spec.private.iter().map(|private| private.inside.as_path()).collect();
            source.prepare(Skeleton::Empty, &private)?;
        }
        let job = Job::new(spec, maps, task, streams.stdin.is_some(), lookups.is_some());
        let Streams { stdin, stdout, stderr } = streams;
        let descriptors = stdin.into_iter().chain(lookups).collect();
        let order = Order::Run(Box::new(job));
        let report = self.give(&order, descriptors, (Stdio::from(stdout), Stdio::from(stderr)), cancel)?;
        let ending = ending(report, &|failure| explain(failure, spec.users, &spec.root.scratch))?;
        Ok(Outcome { ending, elapsed: started.elapsed() })
    }

    /// Writes what a command of [`Users::Many`] changed as the archive of an image's layer, with owners, rights and
    /// attributes as the command saw them. The sandbox must have ended.
    ///
    /// Blocks until the other end of `sink` has read all.
    ///
    /// # Errors
    ///
    /// [`SandboxError`]
    pub fn pack(&self, overlay: &Overlay, sink: OwnedFd, cancel: &Cancel) -> Result<(), SandboxError> {
        let order = |maps| Order::Pack { maps, upper: Bytes::from(&overlay.upper()) };
        self.give_with_many(order, Stdio::from(sink), &overlay.scratch, cancel)
    }

    /// Removes a folder in which commands of [`Users::Many`] wrote: an ordinary user cannot remove what is another's.
    ///
    /// # Errors
    ///
    /// [`SandboxError`]
    pub fn remove(&self, folder: &Path) -> Result<(), SandboxError> {
        let cancel = Cancel::new().map_err(SandboxError::Connection)?;
        let order = |maps| Order::Remove { maps, folder: Bytes::from(folder) };
        self.give_with_many(order, Stdio::null(), folder, &cancel)
    }

    fn give_with_many(
        &self,
        order: impl FnOnce(IdMaps) -> Order,
        output: Stdio,
        folder: &Path,
        cancel: &Cancel,
    ) -> Result<(), SandboxError> {
        match self.give(&order(IdMaps::many()?), Vec::new(), (output, Stdio::null()), cancel)? {
            Report::Setup(failure) => Err(explain(failure, Users::Many, folder)),
            _ => Ok(()),
        }
    }

    /// Starts a helper and waits for its report.
    pub(crate) fn give(
        &self,
        order: &Order,
        descriptors: Vec<OwnedFd>,
        (stdout, stderr): (Stdio, Stdio),
        cancel: &Cancel,
    ) -> Result<Report, SandboxError> {
        let message = wire::encode(order).map_err(SandboxError::Connection)?;
        let (ours, theirs) = UnixStream::pair().map_err(SandboxError::Connection)?;
        // The socket is the helper's standard input, because that is the one way to hand over a descriptor for which
        // the standard library needs no code between fork and exec.
        let child = Command::new(&self.helper)
            .arg0("cas")
            .arg(crate::HELPER_ARGUMENT)
            .env_clear()
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(stdout)
            .stderr(stderr)
            .spawn()
            .map_err(|source| SandboxError::Helper { helper: self.helper.clone(), source })?;
        Helper { child, socket: ours }.converse(&message, descriptors, cancel)
    }
}

/// How a command ended, by the report of its run.
pub(crate) fn ending(report: Report, explain: &dyn Fn(SetupFailure) -> SandboxError) -> Result<Ending, SandboxError> {
    Ok(match report {
        Report::Exited(code) => Ending::Exited(code),
        Report::Signalled(signal) => Ending::Signalled(signal),
        Report::TimedOut => Ending::TimedOut,
        Report::Cancelled => Ending::Cancelled,
        Report::OverLimit(limit) => Ending::OverLimit(limit),
        Report::Start(failure) => return Err(StartError::from_wire(failure).into()),
        Report::Setup(failure) => return Err(explain(failure)),
        Report::Done => unreachable!("a run ends in one of the other ways"),
    })
}

fn explain(failure: SetupFailure, users: Users, scratch: &Path) -> SandboxError {
    if let Some(cannot) = host::diagnose(&failure, users, scratch, &Facts::read(scratch)) {
        return cannot.into();
    }
    match (failure.stage, &failure.path, Errno::from_raw_os_error(failure.errno)) {
        // What resolving a path says about a symlink and about a file.
        (Stage::MountPoint, Some(path), Errno::LOOP | Errno::NOTDIR) => {
            SandboxError::MountPoint { path: path.clone().into_path() }
        }
        _ => failure.into_error(),
    }
}

/// A helper that was started. Letting go of it ends it: it watches the socket.
struct Helper {
    child: Child,
    socket: UnixStream,
}

impl Helper {
    fn converse(mut self, message: &[u8], descriptors: Vec<OwnedFd>, cancel: &Cancel) -> Result<Report, SandboxError> {
        let sent = send(&self.socket, message, &descriptors);
        // Ours are closed, so that whoever reads from a pipe sees its end.
        drop(descriptors);
        let report = sent.and_then(|()| self.receive(cancel));
        // Ends a helper that is still there, so that waiting cannot take for ever. It may have ended by itself.
        let _ = shutdown(&self.socket, Shutdown::Both);
        let status = self.child.wait().map_err(SandboxError::Connection)?;
        match report.map_err(SandboxError::Connection)? {
            Some(report) => Ok(report),
            None => Err(SandboxError::HelperEnded { status }),
        }
    }

    fn receive(&self, cancel: &Cancel) -> io::Result<Option<Report>> {
        let mut waits_for_cancel = true;
        loop {
            let mut ready = vec![PollFd::new(&self.socket, PollFlags::IN)];
            let event = cancel.event();
            if waits_for_cancel {
                ready.push(PollFd::from_borrowed_fd(event, PollFlags::IN));
            }
            match poll(&mut ready, None) {
                Err(Errno::INTR) => continue,
                other => other?,
            };
            if !ready[0].revents().is_empty() {
                return match wire::decode(&self.socket) {
                    // The helper died with something unread in its socket.
                    Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(None),
                    other => other,
                };
            }
            // The helper takes the end of what we send as the order to kill, and still answers.
            shutdown(&self.socket, Shutdown::Write)?;
            waits_for_cancel = false;
        }
    }
}

/// Sends a message, with descriptors beside its first bytes.
fn send(socket: &UnixStream, message: &[u8], descriptors: &[OwnedFd]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut rest = message;
    let borrowed: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
    let mut unsent = (!borrowed.is_empty()).then_some(borrowed.as_slice());
    while !rest.is_empty() {
        let mut control = SendAncillaryBuffer::new(&mut space);
        if let Some(descriptors) = unsent.take() {
            let fits = control.push(SendAncillaryMessage::ScmRights(descriptors));
            debug_assert!(fits, "the space is that of two descriptors");
        }
        match sendmsg(socket, &[IoSlice::new(rest)], &mut control, SendFlags::NOSIGNAL) {
            Ok(sent) => rest = &rest[sent..],
            Err(Errno::INTR) => {}
            // The helper has gone; what became of it is learned by waiting for it.
            Err(Errno::PIPE | Errno::CONNRESET) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
