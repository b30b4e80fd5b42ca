//! The runner: prepares scratch folders, gives the order to a helper, and tells its report.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, mpsc};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with, sockopt};

use crate::cancel::Cancel;
use crate::error::{SandboxError, StartError};
use crate::helpers::{Helpers, MAX_PORTS};
use crate::host::{self, Facts};
use crate::ids::IdMaps;
use crate::limits::Limit;
use crate::scratch::Skeleton;
use crate::sealed::Sealed;
use crate::spec::{Network, Overlay, SECRETS_DIRECTORY, SOURCE_DIRECTORY, Spec, SpecError, Users};
use crate::wire::{self, Bytes, Finding, Job, Order, Report, SetupFailure, Stage, Task};

/// Most of what is read of paths that were looked for.
const MAX_LOOKUP_BYTES: u64 = 8 << 20;
/// Longest name that is told of.
const MAX_NAME_BYTES: usize = 256;

/// Starts sandboxes. Clones share the processes that do it; one that serves many runs has the next one ready.
#[derive(Clone, Debug)]
pub struct Runner {
    program: PathBuf,
    helpers: Arc<Helpers>,
    /// For runs in which something changes the root while a program is started; made when there is one.
    sealed: Arc<OnceLock<Sealed>>,
}

/// What a run has beside its streams; in the order in which their descriptors are sent.
#[derive(Default)]
struct More {
    lookups: Option<OwnedFd>,
    findings: Option<OwnedFd>,
    /// Ports inside, and descriptors: one for a name, and a socket for each port.
    bridge: Option<(Vec<u16>, Vec<OwnedFd>)>,
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

/// A port of a sandbox without a network, and where the host is listened at for it.
///
/// The socket has its port from the beginning, so that one that is taken by others is told before a long work; it listens when the
/// sandbox is made. Whoever connects before is refused, as by a program that has not begun, and does not wait at a port where
/// nobody is.
#[derive(Debug)]
pub struct Port {
    socket: OwnedFd,
    inside: u16,
}

impl Port {
    /// Takes a port of the host's loopback, 0 for a free one, for a port of the sandbox's.
    ///
    /// # Errors
    ///
    /// What the system says, as when another program has the port.
    pub fn bind(host: u16, inside: u16) -> io::Result<Self> {
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        // As for every server: connections of one that has ended keep nobody from the port.
        sockopt::set_socket_reuseaddr(&socket, true)?;
        rustix::net::bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, host))?;
        // Until it listens, another socket that may reuse addresses could take the same port.
        sockopt::set_socket_reuseaddr(&socket, false)?;
        Ok(Self { socket, inside })
    }

    /// Where the host will be listened at.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn address(&self) -> io::Result<SocketAddr> {
        let address = rustix::net::getsockname(&self.socket)?;
        Ok(SocketAddr::try_from(address)?)
    }

    /// The port of the sandbox's loopback to which its connections are passed.
    #[must_use]
    pub fn inside(&self) -> u16 {
        self.inside
    }
}

/// What a [`Check`](crate::Check) found, when that is something else than before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Whether the command works.
    pub is_healthy: bool,
    /// How the last check ended.
    pub ending: Ending,
    /// What it printed, at most the first 4 KiB; or why it did not start, in words.
    pub output: Vec<u8>,
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
    /// Killed because the run was cancelled, at once or after the time that it had to [stop](crate::Stop).
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
        Self::new("/proc/self/exe")
    }

    /// Starts sandboxes with a program that calls [`sandbox_main`](crate::sandbox_main) for
    /// [`HELPER_ARGUMENT`](crate::HELPER_ARGUMENT).
    #[must_use]
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), helpers: Arc::default(), sealed: Arc::default() }
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

    /// As [`Runner::run`] for a command that serves somebody. Its check is run beside it, and `on_health` is told each time that
    /// finds something else than before, on a thread of its own; the command waits for nobody who is told.
    ///
    /// Without a network it has a bridge to the host: connections to the ports are passed on, also those that are closed
    /// one way; whoever looks a name up is told that there is no such one, and the first name is given back. The command may listen at
    /// every port. At most [`MAX_PORTS`](crate::MAX_PORTS), and none with the host's network; of all the same 256 connections at once.
    ///
    /// # Errors
    ///
    /// [`SandboxError`]
    pub fn run_served(
        &self,
        spec: &Spec,
        streams: Streams,
        ports: Vec<Port>,
        on_health: &(dyn Fn(Health) + Sync),
        cancel: &Cancel,
    ) -> Result<(Outcome, Option<String>), SandboxError> {
        let task = Task::Command(spec.command.iter().map(Bytes::from).collect());
        let (reader, writer) = io::pipe().map_err(SandboxError::Connection)?;
        let findings = spec.check.is_some().then(|| writer.into());
        std::thread::scope(|scope| {
            let (told, tell) = mpsc::channel();
            // Process 1 waits for nobody who is told, so what it says is taken at once.
            scope.spawn(move || {
                let mut reader = reader;
                // What is no finding is the end: process 1 writes whole ones, and was killed within the last.
                while let Ok(Some(finding)) = wire::decode::<Finding>(&mut reader) {
                    if let Some(health) = health(finding) {
                        let _ = told.send(health);
                    }
                }
            });
            scope.spawn(move || tell.into_iter().for_each(on_health));
            if spec.network == Network::None {
                self.run_bridged(spec, task, streams, ports, findings, cancel)
            } else if ports.is_empty() {
                let more = More { findings, ..More::default() };
                self.run_with(spec, task, streams, more, cancel).map(|outcome| (outcome, None))
            } else {
                Err(SpecError::Bridge.into())
            }
        })
    }

    fn run_bridged(
        &self,
        spec: &Spec,
        task: Task,
        streams: Streams,
        ports: Vec<Port>,
        findings: Option<OwnedFd>,
        cancel: &Cancel,
    ) -> Result<(Outcome, Option<String>), SandboxError> {
        if ports.len() > MAX_PORTS {
            return Err(SpecError::Bridge.into());
        }
        let (mut reader, writer) = io::pipe().map_err(SandboxError::Connection)?;
        let (numbers, sockets): (Vec<u16>, Vec<OwnedFd>) =
            ports.into_iter().map(|port| (port.inside, port.socket)).unzip();
        let bridge = Some((numbers, std::iter::once(writer.into()).chain(sockets).collect()));
        let outcome = self.run_with(spec, task, streams, More { findings, bridge, ..More::default() }, cancel)?;
        // What was told was told before the end; the helper may still hold the other end for a moment.
        rustix::io::ioctl_fionbio(&reader, true).map_err(|errno| SandboxError::Connection(errno.into()))?;
        let mut name = [0; MAX_NAME_BYTES];
        let length = reader.read(&mut name).unwrap_or(0);
        let name = (length > 0).then(|| String::from_utf8_lossy(&name[..length]).into_owned());
        Ok((outcome, name))
    }

    pub(crate) fn run_task(
        &self,
        spec: &Spec,
        task: Task,
        streams: Streams,
        lookups: Option<OwnedFd>,
        cancel: &Cancel,
    ) -> Result<Outcome, SandboxError> {
        self.run_with(spec, task, streams, More { lookups, ..More::default() }, cancel)
    }

    fn run_with(
        &self,
        spec: &Spec,
        task: Task,
        streams: Streams,
        more: More,
        cancel: &Cancel,
    ) -> Result<Outcome, SandboxError> {
        let started = Instant::now();
        spec.check()?;
        let maps = IdMaps::of(spec)?;
        let secrets = Path::new(SECRETS_DIRECTORY).strip_prefix("/").expect("it is absolute");
        let secrets = (!spec.secrets.is_empty()).then_some(secrets);
        let places = |is_folder| {
            let volumes = spec.volumes.iter().filter(move |volume| volume.is_folder == is_folder);
            volumes.map(|volume| volume.inside.as_path())
        };
        let folders = spec.folders.iter().map(PathBuf::as_path).chain(secrets).chain(places(true));
        let (folders, files): (Vec<&Path>, Vec<&Path>) = (folders.collect(), places(false).collect());
        spec.root.prepare_with_files(Skeleton::MountPoints, &folders, &files)?;
        if let Some(source) = &spec.source {
            let private: Vec<&Path> = spec.private.iter().map(|private| private.inside.as_path()).collect();
            source.prepare(Skeleton::Empty, &private)?;
        }
        let More { lookups, findings, bridge } = more;
        let (ports, bridge) = bridge.unzip();
        let mut job = Job { bridge: ports, ..Job::new(spec, maps, task, streams.stdin.is_some(), lookups.is_some()) };
        // A check of which nobody is told is none.
        job.check.take_if(|_| findings.is_none());
        let Streams { stdin, stdout, stderr } = streams;
        let order = Order::Run(Box::new(job));
        let stop = spec.stop.as_ref().map(|_| cancel.event().try_clone_to_owned()).transpose();
        let stop = stop.map_err(SandboxError::Connection)?;
        let behind = stdin.into_iter().chain(lookups).chain(findings).chain(stop).chain(bridge.into_iter().flatten());
        let report = if spec.check.is_some() || !spec.volumes.is_empty() {
            let sealed = self.sealed()?;
            let descriptors = [stdout, stderr].into_iter().chain(behind).collect();
            sealed.helpers.give(&sealed.path(), &order, descriptors, cancel)?
        } else {
            self.give(&order, (stdout, stderr), behind, cancel)?
        };
        let ending = ending(report, &|failure| explain(failure, spec.users, &spec.root.scratch))?;
        Ok(Outcome { ending, elapsed: started.elapsed() })
    }

    /// The sealed copy of the program. For runs with a check, in which the command is there to swap what is started; and with volumes,
    /// where others can.
    fn sealed(&self) -> Result<&Sealed, SandboxError> {
        if let Some(sealed) = self.sealed.get() {
            return Ok(sealed);
        }
        let made = Sealed::of(&self.program).map_err(SandboxError::Seal)?;
        // Another thread may have been faster: then that one's is taken.
        Ok(self.sealed.get_or_init(|| made))
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
        self.give_with_many(order, sink, &overlay.scratch, cancel)
    }

    /// Removes a folder in which commands of [`Users::Many`] wrote: an ordinary user cannot remove what is another's.
    ///
    /// # Errors
    ///
    /// [`SandboxError`]
    pub fn remove(&self, folder: &Path) -> Result<(), SandboxError> {
        let cancel = Cancel::new().map_err(SandboxError::Connection)?;
        let order = |maps| Order::Remove { maps, folder: Bytes::from(folder) };
        self.give_with_many(order, null()?, folder, &cancel)
    }

    fn give_with_many(
        &self,
        order: impl FnOnce(IdMaps) -> Order,
        output: OwnedFd,
        folder: &Path,
        cancel: &Cancel,
    ) -> Result<(), SandboxError> {
        match self.give(&order(IdMaps::many()?), (output, null()?), None, cancel)? {
            Report::Setup(failure) => Err(explain(failure, Users::Many, folder)),
            _ => Ok(()),
        }
    }

    /// Gives an order, with two streams and other descriptors, and waits for the report.
    pub(crate) fn give(
        &self,
        order: &Order,
        (stdout, stderr): (OwnedFd, OwnedFd),
        more: impl IntoIterator<Item = OwnedFd>,
        cancel: &Cancel,
    ) -> Result<Report, SandboxError> {
        let descriptors = [stdout, stderr].into_iter().chain(more).collect();
        self.helpers.give(&self.program, order, descriptors, cancel)
    }
}

/// Where nothing is read and nothing kept.
fn null() -> Result<OwnedFd, SandboxError> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let opened = rustix::fs::open("/dev/null", flags, Mode::empty());
    opened.map_err(|errno| SandboxError::Connection(errno.into()))
}

fn health(finding: Finding) -> Option<Health> {
    let Finding { is_healthy, ending, output } = finding;
    let ending = match ending {
        Report::Exited(code) => Ending::Exited(code),
        Report::Signalled(signal) => Ending::Signalled(signal),
        Report::TimedOut => Ending::TimedOut,
        // A check ends in no other way.
        _ => return None,
    };
    Some(Health { is_healthy, ending, output: output.0 })
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

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_port_is_taken_and_not_listened_at() {
        let port = Port::bind(0, 80).expect("there is a free port");
        let address = port.address().expect("it has one");
        assert!(address.ip().is_loopback() && address.port() > 0 && port.inside() == 80);
        let refused = TcpStream::connect(address).expect_err("nobody listens");
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        let twice = Port::bind(address.port(), 80).expect_err("it is taken, though nobody listens yet");
        assert_eq!(twice.kind(), io::ErrorKind::AddrInUse);
        let other = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
        let taken = Port::bind(other.local_addr().expect("it has one").port(), 80).expect_err("another one listens");
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
    }
}
