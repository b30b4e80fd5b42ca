//! What runner and helper tell each other: one message each way over a socket, a little-endian length and JSON.
//!
//! Both ends are the same program, so the messages have no version. Paths and arguments are bytes on Linux; they travel
//! as text where they are UTF-8, else as a list of numbers.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString};
use std::fmt;
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::SandboxError;
use crate::ids::IdMaps;
use crate::limits::{Limit, Limits};
use crate::spec::{Check, Network, Overlay, Owner, SOURCE_DIRECTORY, Secret, Spec, Users, Volume};

/// Longest message in bytes: Linux limits arguments and environment to 2 MiB by default (6 MiB at most), and a byte that
/// is not UTF-8 takes four.
const MAX_MESSAGE: usize = 32 << 20;

/// Bytes of a path, an argument or a variable; without NUL, which the specification's check and the runner's paths give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bytes(pub(crate) Vec<u8>);

impl Bytes {
    pub(crate) fn to_c_string(&self) -> io::Result<CString> {
        Ok(CString::new(self.0.as_slice())?)
    }

    pub(crate) fn into_path(self) -> PathBuf {
        OsString::from_vec(self.0).into()
    }
}

impl<T: AsRef<OsStr> + ?Sized> From<&T> for Bytes {
    fn from(text: &T) -> Self {
        Self(text.as_ref().as_bytes().to_vec())
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => self.0.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOrNumbers;
        impl<'de> Visitor<'de> for TextOrNumbers {
            type Value = Bytes;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text or a list of bytes")
            }
            fn visit_str<E>(self, text: &str) -> Result<Bytes, E> {
                Ok(Bytes(text.as_bytes().to_vec()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut numbers: A) -> Result<Bytes, A::Error> {
                let mut bytes = Vec::new();
                while let Some(byte) = numbers.next_element()? {
                    bytes.push(byte);
                }
                Ok(Bytes(bytes))
            }
        }
        deserializer.deserialize_any(TextOrNumbers)
    }
}

/// A secret on its way, which shows nowhere.
#[derive(Serialize, Deserialize)]
pub(crate) struct SecretFile {
    pub(crate) name: String,
    pub(crate) content: Bytes,
}

impl fmt::Debug for SecretFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl From<&Secret> for SecretFile {
    fn from(secret: &Secret) -> Self {
        Self { name: secret.name.clone(), content: Bytes(secret.content.clone()) }
    }
}

/// What the helper is to do.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Run a command in a sandbox.
    Run(Box<Job>),
    /// Run a command on the host as it is.
    Plain(Box<PlainJob>),
    /// Write the archive of an upper directory to standard output.
    Pack { maps: IdMaps, upper: Bytes },
    /// Remove a folder with all that is in it.
    Remove { maps: IdMaps, folder: Bytes },
}

impl Order {
    /// How long a command that is asked to end is waited for; `None` where it is killed at once.
    pub(crate) fn grace(&self) -> Option<Duration> {
        match self {
            Self::Run(job) => job.stop.map(|(_, grace_ms)| Duration::from_millis(grace_ms)),
            Self::Plain(_) | Self::Pack { .. } | Self::Remove { .. } => None,
        }
    }
}

/// A path of the host, where it is shown, whether it is a folder, and whether it is read-only.
pub(crate) type VolumeRow = (Bytes, Bytes, bool, bool);
/// A path of the root, with user, group and mode that it is to have.
pub(crate) type OwnerRow = (Bytes, u32, u32, u32);

/// What a process becomes.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Program {
    pub(crate) task: Task,
    pub(crate) environment: Vec<(Bytes, Bytes)>,
    pub(crate) working_directory: Bytes,
    /// Numbers of the processors that it may use; empty for all.
    pub(crate) processors: Vec<usize>,
    pub(crate) aslr: bool,
}

impl Program {
    pub(crate) fn new(task: Task, environment: &BTreeMap<OsString, OsString>, working_directory: &Path) -> Self {
        let environment = environment.iter().map(|(name, value)| (Bytes::from(name), Bytes::from(value))).collect();
        let working_directory = Bytes::from(working_directory);
        Self { task, environment, working_directory, processors: Vec::new(), aslr: true }
    }
}

/// A command on the host as it is.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PlainJob {
    pub(crate) program: Program,
    /// Where it is meant to write.
    pub(crate) folder: Bytes,
    /// With Landlock, what else of the host it may read and execute.
    pub(crate) confined_to: Option<Vec<Bytes>>,
    pub(crate) timeout_ms: Option<u64>,
    pub(crate) limits: Limits,
    /// Whether the first message carries a descriptor for the command's standard input.
    pub(crate) has_stdin: bool,
}

/// A command and its sandbox.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) program: Program,
    pub(crate) root: Layers,
    pub(crate) source: Option<Layers>,
    pub(crate) host_paths: Vec<Bytes>,
    pub(crate) volumes: Vec<VolumeRow>,
    pub(crate) secrets: Vec<SecretFile>,
    /// Folders of the host, and where they are seen.
    pub(crate) private: Vec<(Bytes, Bytes)>,
    pub(crate) maps: IdMaps,
    pub(crate) owners: Vec<OwnerRow>,
    /// Whether the command keeps the rights of its user 0 over the others.
    pub(crate) keeps_rights: bool,
    pub(crate) host_network: bool,
    pub(crate) timeout_ms: Option<u64>,
    pub(crate) limits: Limits,
    pub(crate) tmp_size_bytes: Option<u64>,
    /// Whether the first message carries a descriptor for the command's standard input.
    pub(crate) has_stdin: bool,
    /// Whether it carries, behind that, one for the paths that are looked for.
    pub(crate) has_lookups: bool,
    /// What asks the command whether it works. It then carries, behind that, one for what was [found](Finding).
    pub(crate) check: Option<CheckJob>,
    /// Signal that asks the command to end, and how long it is waited for then. It then carries, behind that, a descriptor that can be
    /// read when it is time to.
    pub(crate) stop: Option<(i32, u64)>,
    /// Ports of the sandbox to which connections are passed. It then carries, behind that, a descriptor for a name that is looked up,
    /// and a socket for each port.
    pub(crate) bridge: Option<Vec<u16>>,
}

/// What runs in the sandbox.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Task {
    /// A program of the root.
    Command(Vec<Bytes>),
    /// The helper's own checks of what the overlay can do.
    Probe,
}

/// What is run beside the command, again and again.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct CheckJob {
    pub(crate) program: Program,
    pub(crate) interval_ms: u64,
    pub(crate) timeout_ms: u64,
    pub(crate) start_period_ms: u64,
    pub(crate) start_interval_ms: u64,
    pub(crate) retries: u64,
}

impl CheckJob {
    fn new(spec: &Spec, check: &Check) -> Self {
        let ms = milliseconds;
        Self {
            program: program(spec, Task::Command(check.command.iter().map(Bytes::from).collect())),
            // Not without a pause.
            interval_ms: ms(check.interval).max(1),
            timeout_ms: ms(check.timeout).max(1),
            start_period_ms: ms(check.start_period),
            start_interval_ms: ms(check.start_interval).max(1),
            retries: check.retries.max(1),
        }
    }
}

/// What a check found, when that is something else than before.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Finding {
    pub(crate) is_healthy: bool,
    /// How the last check ended, as a command ends.
    pub(crate) ending: Report,
    /// What it printed, or why it did not start.
    pub(crate) output: Bytes,
}

/// Folders of an overlay, as paths of the host.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Layers {
    pub(crate) lowers: Vec<Bytes>,
    pub(crate) upper: Bytes,
    pub(crate) work: Bytes,
    /// An empty folder on which the overlay is mounted first.
    pub(crate) mount_point: Bytes,
}

impl Layers {
    /// The overlay's folders, with further lower ones below all others.
    fn new(overlay: &Overlay, lowest: Option<PathBuf>) -> Self {
        Self {
            lowers: overlay.lowers.iter().chain(&lowest).map(Bytes::from).collect(),
            upper: Bytes::from(&overlay.upper()),
            work: Bytes::from(&overlay.work()),
            mount_point: Bytes::from(&overlay.mount_point()),
        }
    }
}

impl Job {
    /// A run of the specification's command; the specification has passed its check.
    pub(crate) fn new(spec: &Spec, maps: IdMaps, task: Task, has_stdin: bool, has_lookups: bool) -> Self {
        Self {
            program: program(spec, task),
            root: Layers::new(&spec.root, Some(spec.root.skeleton())),
            // An overlay needs a lower directory even if there is nothing to show.
            source: spec.source.as_ref().map(|source| {
                let has_skeleton = source.lowers.is_empty() || !spec.private.is_empty();
                Layers::new(source, has_skeleton.then(|| source.skeleton()))
            }),
            host_paths: spec.host_paths.iter().map(Bytes::from).collect(),
            volumes: (spec.volumes.iter())
                .map(|Volume { host, inside, is_folder, is_read_only }| {
                    (Bytes::from(host), Bytes::from(inside), *is_folder, *is_read_only)
                })
                .collect(),
            secrets: spec.secrets.iter().map(SecretFile::from).collect(),
            private: (spec.private.iter())
                .map(|private| {
                    (Bytes::from(&private.host), Bytes::from(&Path::new(SOURCE_DIRECTORY).join(&private.inside)))
                })
                .collect(),
            maps,
            owners: (spec.owners.iter())
                .map(|Owner { inside, uid, gid, mode }| (Bytes::from(inside), *uid, *gid, *mode))
                .collect(),
            keeps_rights: spec.users == Users::Many,
            host_network: spec.network == Network::Host,
            timeout_ms: spec.timeout.map(milliseconds),
            limits: spec.limits,
            tmp_size_bytes: spec.tmp_size_bytes,
            has_stdin,
            has_lookups,
            check: spec.check.as_ref().map(|check| CheckJob::new(spec, check)),
            stop: spec.stop.as_ref().map(|stop| (stop.signal(), milliseconds(stop.grace))),
            bridge: None,
        }
    }
}

/// What becomes a process of the specification's world.
fn program(spec: &Spec, task: Task) -> Program {
    Program {
        processors: spec.processors.clone(),
        aslr: spec.aslr,
        ..Program::new(task, &spec.environment, &spec.working_directory)
    }
}

/// What is longer than the number can be is as good as for ever.
fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// How it went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Report {
    Exited(i32),
    Signalled(i32),
    TimedOut,
    Cancelled,
    /// Done, for what is no run.
    Done,
    OverLimit(Limit),
    Setup(SetupFailure),
    Start(StartFailure),
}

/// A sandbox that could not be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SetupFailure {
    pub(crate) stage: Stage,
    pub(crate) errno: i32,
    /// The path that it is about: of the host for overlays, of the sandbox for mount points.
    pub(crate) path: Option<Bytes>,
}

impl SetupFailure {
    /// The failure as it is, where nobody knows better.
    pub(crate) fn into_error(self) -> SandboxError {
        let source = io::Error::from_raw_os_error(self.errno);
        SandboxError::Setup { action: self.stage.to_string(), path: self.path.map(Bytes::into_path), source }
    }
}

/// Which part of making a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Stage {
    Receive,
    Group,
    Namespaces,
    IdMaps,
    Loopback,
    Bridge,
    Listen,
    Fork,
    Lifeline,
    HostName,
    Propagation,
    OpenLayer,
    MountOverlay,
    MountPoint,
    ShowHost,
    MountSecrets,
    MountPrivate,
    MountVolume,
    MountProc,
    HideProc,
    MountDev,
    Device,
    MountTmp,
    SwitchRoot,
    Confine,
    Capabilities,
    Filter,
    Streams,
    Limits,
    Processors,
    Signals,
    Supervise,
    Probe,
    Owners,
    Pack,
    Remove,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Receive => "take over the specification",
            Self::Group => "make a control group",
            Self::Namespaces => "make namespaces",
            Self::IdMaps => "map user and group",
            Self::Loopback => "bring up the loopback interface",
            Self::Bridge => "listen for names on the loopback interface",
            Self::Listen => "listen at a published port",
            Self::Fork => "start a process",
            Self::Lifeline => "tie the sandbox to its supervisor",
            Self::HostName => "set the host name",
            Self::Propagation => "detach the host's mounts",
            Self::OpenLayer => "open folder",
            Self::MountOverlay => "mount an overlay over",
            Self::MountPoint => "open mount point",
            Self::ShowHost => "show",
            Self::MountSecrets => "mount `/run/secrets`",
            Self::MountPrivate => "mount folder",
            Self::MountVolume => "show volume",
            Self::MountProc => "mount `/proc`",
            Self::HideProc => "hide parts of `/proc`",
            Self::MountDev => "mount `/dev`",
            Self::Device => "add device",
            Self::MountTmp => "mount `/tmp`",
            Self::SwitchRoot => "switch to the root",
            Self::Confine => "give up rights over the host's files",
            Self::Capabilities => "drop capabilities",
            Self::Filter => "filter system calls",
            Self::Streams => "set standard streams",
            Self::Limits => "set limits",
            Self::Processors => "choose processors",
            Self::Signals => "reset signals",
            Self::Supervise => "wait for the command",
            Self::Probe => "use the overlay",
            Self::Owners => "set owner and rights of",
            Self::Pack => "read what the command wrote at",
            Self::Remove => "remove",
        })
    }
}

/// A program that could not be started in a complete sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StartFailure {
    pub(crate) kind: StartKind,
    /// The program, as named or as found; or the working directory.
    pub(crate) path: Bytes,
    pub(crate) errno: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum StartKind {
    NotFound,
    NotExecutable,
    InterpreterMissing,
    WrongFormat,
    ArgumentsTooLong,
    WorkingDirectory,
    Other,
}

/// Puts the length before a message.
pub(crate) fn encode<T: Serialize>(message: &T) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, message)?;
    let length = bytes.len() - 4;
    if length > MAX_MESSAGE {
        return Err(io::Error::from_raw_os_error(rustix::io::Errno::TOOBIG.raw_os_error()));
    }
    let length = u32::try_from(length).expect("the limit is below 4 GiB");
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    Ok(bytes)
}

/// Reads one message; the stream may go on behind it. An end before the first byte is `None`.
pub(crate) fn decode<T: for<'de> Deserialize<'de>>(mut source: impl Read) -> io::Result<Option<T>> {
    let mut length = [0; 4];
    match source.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX_MESSAGE {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = vec![0; length];
    source.read_exact(&mut bytes)?;
    Ok(Some(serde_json::from_slice(&bytes)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_the_wire_with_bytes_that_are_not_text() {
        let report =
            Report::Start(StartFailure { kind: StartKind::NotFound, path: Bytes(b"/bin/caf\xe9".to_vec()), errno: 2 });
        let bytes = encode(&report).expect("short");
        assert_eq!(decode::<Report>(bytes.as_slice()).expect("whole"), Some(report));
        assert_eq!(decode::<Report>(&b""[..]).expect("an end is no error"), None);
        assert!(decode::<Report>(&bytes[..bytes.len() - 1]).is_err());
        assert!(decode::<Report>(&u32::MAX.to_le_bytes()[..]).is_err());
    }
}
