//! What to run, over which trees, and what it may see.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use rustix::thread::CpuSet;

use crate::helpers::MAX_PORTS;
use crate::host::HostCannot;
use crate::ids::{IdMaps, MANY};
use crate::limits::Limits;

/// Host name in every sandbox.
pub const HOST_NAME: &str = "cas";
/// Where a step's sources are, and its working directory unless it says otherwise.
pub const SOURCE_DIRECTORY: &str = "/src";
/// The one modification time of `format_version` 1, 1985-10-26T08:15:00Z: what the folders that a sandbox adds carry.
pub const EPOCH_SECONDS: i64 = 499_162_500;

/// Where a command finds its secrets, if it has any.
pub const SECRETS_DIRECTORY: &str = "/run/secrets";
/// Longest secret, in bytes.
pub const MAX_SECRET_BYTES: usize = 64 << 10;

/// Folders of the root that are the sandbox's own, or would show more of the host than a folder.
const OWN_PLACES: [&str; 3] = ["dev", "proc", "sys"];

/// User and group that a step runs as unless its specification says otherwise.
const DEFAULT_ID: u32 = 1000;

/// Read-only trees with a writable one on top.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlay {
    /// Folders that are shown and never written; the first one wins where two have a name. May be empty.
    pub lowers: Vec<PathBuf>,
    /// A folder of this run alone, made if missing. What the command writes is kept below it.
    ///
    /// Its file system must be able to be the upper part of an overlay: ext4, xfs, btrfs, or tmpfs since Linux 6.6, no
    /// network file system and no overlay. A folder serves one run: make a new one, or remove it first.
    pub scratch: PathBuf,
}

impl Overlay {
    /// Where the changes of the run are, for [`changes`](crate::changes()).
    #[must_use]
    pub fn upper(&self) -> PathBuf {
        self.scratch.join("upper")
    }

    /// The overlay's own working folder; it has to be beside the upper one.
    pub(crate) fn work(&self) -> PathBuf {
        self.scratch.join("work")
    }
}

/// What the command can reach beyond its sandbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// A loopback interface of its own and nothing else.
    #[default]
    None,
    /// The host's interfaces. Never for a build step: its result would depend on them.
    Host,
}

/// Which users and groups there are in a sandbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Users {
    /// The command's own alone.
    #[default]
    One,
    /// 0 to 65535. The command is user and group 0, with the rights over the others that installing packages needs; they
    /// reach nothing outside. Needs root, or subordinate ids (subuid(5)).
    Many,
}

impl Users {
    /// Looks whether the invoking user has them to give.
    ///
    /// # Errors
    ///
    /// [`HostCannot::ManyIds`] says what is missing.
    pub fn check(self) -> Result<(), HostCannot> {
        match self {
            Self::One => Ok(()),
            Self::Many => IdMaps::many().map(drop),
        }
    }
}

/// What a lower directory cannot tell of a path, because its files are all the invoking user's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The path, from the root on.
    pub inside: PathBuf,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// The twelve mode bits.
    pub mode: u32,
}

/// Something that a command may read and nobody may keep: a file in [`SECRETS_DIRECTORY`], in memory alone.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    /// Name of the file: one component of a path.
    pub name: String,
    /// What is in it, at most [`MAX_SECRET_BYTES`].
    pub content: Vec<u8>,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secret").field("name", &self.name).field("content", &"***").finish()
    }
}

/// A folder of the host that a command may read and write, and that stays when the sandbox is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Private {
    /// The folder, which is there.
    pub host: PathBuf,
    /// Where it is seen, from [`SOURCE_DIRECTORY`] on. What the sources have there is hidden by it.
    pub inside: PathBuf,
}

/// A folder or file of the host that a command sees somewhere else. What depends on it cannot be repeated: never for a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// What is shown, with all that is mounted below it.
    pub host: PathBuf,
    /// Where, from the root on; made where the root lacks it.
    pub inside: PathBuf,
    /// Whether the host has a folder there, not a file.
    pub is_folder: bool,
    /// Whether it cannot be written.
    pub is_read_only: bool,
}

impl Volume {
    /// Whether something of the host can be shown at a path of the root: a clean one, and none of the sandbox's own places.
    #[must_use]
    pub fn can_be_at(inside: &Path) -> bool {
        is_inside(inside) && !OWN_PLACES.iter().any(|place| inside.starts_with(place))
    }
}

/// Whether a path is below the root and clean.
fn is_inside(path: &Path) -> bool {
    path.components().all(|part| matches!(part, Component::Normal(_))) && path != Path::new("")
}

/// A second command, run again and again in the sandbox of the first one, that tells by its exit code whether that one works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Program and arguments; environment, user and working directory are those of the first command.
    pub command: Vec<OsString>,
    /// Time before the first one, and between two.
    pub interval: Duration,
    /// Time after which one is killed with all of its process group, and has failed.
    pub timeout: Duration,
    /// Time at the beginning in which failures do not count, as long as there was no success.
    pub start_period: Duration,
    /// In the place of the interval, for as long as failures do not count.
    pub start_interval: Duration,
    /// How many must fail in a row, at least one.
    pub retries: u64,
}

/// How a command is asked to end when its run is cancelled, and how long it is waited for then. What has none is killed at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stop {
    /// Number of the signal that the command is sent, it alone.
    signal: i32,
    /// After how long it is killed, with all that it started.
    pub grace: Duration,
}

impl Stop {
    /// By the signal that an image names: a name with or without `SIG`, `SIGRTMIN+N`, `SIGRTMAX-N` or a number; `None` for another text.
    #[must_use]
    pub fn new(signal: &str, grace: Duration) -> Option<Self> {
        cas_sys::signal_number(signal).map(|signal| Self { signal, grace })
    }

    /// The number of its signal.
    #[must_use]
    pub fn signal(&self) -> i32 {
        self.signal
    }
}

/// A command and the world it runs in. The rest of that world is fixed, see docs/formats/sandbox.md.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// The root file system.
    pub root: Overlay,
    /// What is at [`SOURCE_DIRECTORY`], if that is a tree of its own.
    pub source: Option<Overlay>,
    /// Folders and files of the host that are shown at their own paths, read-only, with all that is mounted below them. The
    /// root must have a folder or file at each, to be covered by it. A step that sees one depends on the host.
    pub host_paths: Vec<PathBuf>,
    /// Parts of the host that are shown elsewhere, each after those that are above it.
    pub volumes: Vec<Volume>,
    /// Folders that there are even if the root lacks them, each a path from the root on.
    pub folders: Vec<PathBuf>,
    /// What it may read and nobody may keep.
    pub secrets: Vec<Secret>,
    /// Folders that stay from one run to the next. Only with [`Spec::source`].
    pub private: Vec<Private>,
    /// Program and arguments. A program without `/` is searched in the `PATH` of `environment`.
    pub command: Vec<OsString>,
    /// The whole environment; nothing is added.
    pub environment: BTreeMap<OsString, OsString>,
    /// Working directory, an absolute path in the sandbox that must exist there.
    pub working_directory: PathBuf,
    /// User id that the command sees as its own. All files of the invoking user appear as this user's.
    pub uid: u32,
    /// Group id that the command sees as its own.
    pub gid: u32,
    /// Which other ids there are. With many, both of the command are 0.
    pub users: Users,
    /// What is put right in the root before the command starts; with many users alone. It then is among the changes.
    pub owners: Vec<Owner>,
    /// What asks the command whether it works; told of by [`Runner::run_served`](crate::Runner::run_served) alone.
    pub check: Option<Check>,
    /// How it is asked to end; `None` for killing it at once.
    pub stop: Option<Stop>,
    /// What the command can reach.
    pub network: Network,
    /// After how long the command, with all that it started, is killed.
    pub timeout: Option<Duration>,
    /// How much it may use.
    pub limits: Limits,
    /// Numbers of the processors that it runs on, of [`processors`](crate::processors()); empty for all that the caller may use.
    pub processors: Vec<usize>,
    /// Whether the kernel chooses addresses of programs at random, as it does unless told otherwise.
    pub aslr: bool,
    /// Makes `/tmp` a memory file system of at most this size. Else it is part of the root.
    pub tmp_size_bytes: Option<u64>,
}

impl Spec {
    /// A command over a root, with the defaults of a step: an empty environment, user and group 1000, no network.
    ///
    /// The working directory is `/src`, which is made where the root lacks it.
    #[must_use]
    pub fn new(root: Overlay, command: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        Self {
            root,
            source: None,
            host_paths: Vec::new(),
            volumes: Vec::new(),
            folders: Vec::new(),
            secrets: Vec::new(),
            private: Vec::new(),
            command: command.into_iter().map(Into::into).collect(),
            environment: BTreeMap::new(),
            working_directory: PathBuf::from(SOURCE_DIRECTORY),
            uid: DEFAULT_ID,
            gid: DEFAULT_ID,
            users: Users::One,
            owners: Vec::new(),
            check: None,
            stop: None,
            network: Network::None,
            timeout: None,
            limits: Limits::default(),
            processors: Vec::new(),
            aslr: true,
            tmp_size_bytes: None,
        }
    }

    /// Finds what no system call could carry, before anything is started.
    pub(crate) fn check(&self) -> Result<(), SpecError> {
        check_program(&self.command, &self.environment, &self.working_directory)?;
        if let Some(check) = &self.check {
            check_program(&check.command, &self.environment, &self.working_directory)?;
        }
        if let Some(secret) = self.secrets.iter().find(|secret| !secret.can_be_shown()) {
            return Err(SpecError::Secret { name: secret.name.clone() });
        }
        if let Some(private) = self.private.iter().find(|private| !is_inside(&private.inside)) {
            return Err(SpecError::Private { path: private.inside.clone() });
        }
        if let Some(volume) = self.volumes.iter().find(|volume| !Volume::can_be_at(&volume.inside)) {
            return Err(SpecError::Volume { path: volume.inside.clone() });
        }
        if let Some(path) = self.folders.iter().find(|path| !is_inside(path)) {
            return Err(SpecError::Folder { path: path.clone() });
        }
        if let Some(owner) = self.owners.iter().find(|owner| !is_inside(&owner.inside)) {
            return Err(SpecError::Owner { path: owner.inside.clone() });
        }
        for Owner { inside, uid, gid, .. } in &self.owners {
            if let Some(id) = [uid, gid].into_iter().find(|id| **id >= MANY) {
                return Err(SpecError::OwnerId { path: inside.clone(), id: *id });
            }
        }
        let is_plain = self.users == Users::One && self.owners.is_empty();
        if !is_plain && (self.users == Users::One || self.uid != 0 || self.gid != 0) {
            return Err(SpecError::Users);
        }
        let overlays = || std::iter::once(&self.root).chain(&self.source);
        let private = self.private.iter().map(|private| &private.host);
        let private = private.chain(self.volumes.iter().map(|volume| &volume.host));
        let host_paths = self.host_paths.iter().chain(private).map(PathBuf::as_path);
        let mut paths = overlays().flat_map(Overlay::paths).chain(host_paths);
        if let Some(path) = paths.find(|path| !path.is_absolute()) {
            return Err(SpecError::RelativePath { path: path.to_owned() });
        }
        check_processors(&self.processors)?;
        // The mapping of ids has no name for this one: it means "no id".
        if self.uid == u32::MAX || self.gid == u32::MAX {
            return Err(SpecError::Id);
        }
        Ok(())
    }
}

/// Finds what of a command no system call could carry.
pub(crate) fn check_program(
    command: &[OsString],
    environment: &BTreeMap<OsString, OsString>,
    working_directory: &Path,
) -> Result<(), SpecError> {
    if command.first().is_none_or(|program| program.is_empty()) {
        return Err(SpecError::NoCommand);
    }
    if let Some(argument) = command.iter().find(|argument| has_nul(argument)) {
        return Err(SpecError::NulInArgument { argument: argument.clone() });
    }
    for (name, value) in environment {
        if name.is_empty() || name.as_bytes().contains(&b'=') || has_nul(name) || has_nul(value) {
            return Err(SpecError::Variable { name: name.clone() });
        }
    }
    if !working_directory.is_absolute() || has_nul(working_directory.as_os_str()) {
        return Err(SpecError::WorkingDirectory { path: working_directory.to_owned() });
    }
    Ok(())
}

/// Finds processors that no set has a place for.
pub(crate) fn check_processors(processors: &[usize]) -> Result<(), SpecError> {
    match processors.iter().find(|number| **number >= CpuSet::MAX_CPU) {
        None => Ok(()),
        Some(number) => Err(SpecError::Processor { number: *number }),
    }
}

impl Secret {
    fn can_be_shown(&self) -> bool {
        let is_name =
            !self.name.is_empty() && !self.name.contains(['/', '\0']) && self.name != "." && self.name != "..";
        is_name && self.content.len() <= MAX_SECRET_BYTES
    }
}

impl Overlay {
    fn paths(&self) -> impl Iterator<Item = &Path> {
        self.lowers.iter().chain([&self.scratch]).map(PathBuf::as_path)
    }
}

fn has_nul(text: &OsStr) -> bool {
    text.as_bytes().contains(&0)
}

/// A specification that cannot be run anywhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// The command has no program.
    #[error("command is empty")]
    NoCommand,
    /// An argument cannot be passed to a program.
    #[error("argument `{}` holds a NUL byte", argument.display())]
    NulInArgument {
        /// The argument.
        argument: OsString,
    },
    /// An environment variable cannot be passed to a program.
    #[error("environment variable `{}` has an empty name, a `=` in its name, or a NUL byte", name.display())]
    Variable {
        /// Its name.
        name: OsString,
    },
    /// The working directory is not an absolute path.
    #[error("working directory `{}` is not an absolute path", path.display())]
    WorkingDirectory {
        /// The path.
        path: PathBuf,
    },
    /// A folder of the host is not given by an absolute path; the helper has another working directory.
    #[error("folder `{}` is not an absolute path", path.display())]
    RelativePath {
        /// The path.
        path: PathBuf,
    },
    /// A secret cannot be a file of its name, or is too long.
    #[error("secret `{name}` cannot be a file of that name, or is longer than {MAX_SECRET_BYTES} bytes")]
    Secret {
        /// Its name.
        name: String,
    },
    /// A folder that stays is not inside of the sources.
    #[error("folder `{}` is not one below `{SOURCE_DIRECTORY}`", path.display())]
    Private {
        /// The path.
        path: PathBuf,
    },
    /// A part of the host would hide what makes the sandbox one.
    #[error("nothing of the host can be shown at `/{}`: it is no path below the root, or in `/dev`, `/proc` or `/sys`", path.display())]
    Volume {
        /// The path.
        path: PathBuf,
    },
    /// There is nothing to bridge, or too much.
    #[error("connections are passed to a sandbox without a network alone, and to at most {MAX_PORTS} ports")]
    Bridge,
    /// A folder that is to be there is not below the root.
    #[error("folder `{}` is no path below the root", path.display())]
    Folder {
        /// The path.
        path: PathBuf,
    },
    /// What is to be put right is not below the root.
    #[error("`{}` is no path below the root", path.display())]
    Owner {
        /// The path.
        path: PathBuf,
    },
    /// What is to be put right would belong to somebody who is not there.
    #[error("`{}` cannot be given to user or group {id}: those of a sandbox are 0 to {}", path.display(), MANY - 1)]
    OwnerId {
        /// The path.
        path: PathBuf,
        /// The user or group.
        id: u32,
    },
    /// Owners are put right, and other users are there, for user and group 0 alone.
    #[error("many users, and owners of files, need a command of user and group 0")]
    Users,
    /// A set of processors has no place for this one.
    #[error("processor {number} is beyond the {} that a sandbox can be given", CpuSet::MAX_CPU)]
    Processor {
        /// Its number.
        number: usize,
    },
    /// 4294967295 is no user or group id.
    #[error("user or group id 4294967295 means none")]
    Id,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_system_call_can_carry_is_refused() {
        let overlay = || Overlay { lowers: vec!["/root".into()], scratch: "/scratch".into() };
        let good = Spec::new(overlay(), ["true"]);
        assert_eq!(good.check(), Ok(()));
        let changed = |change: &dyn Fn(&mut Spec)| {
            let mut spec = good.clone();
            change(&mut spec);
            spec.check()
        };
        let variable = |name: &str, value: &str| {
            changed(&|spec| {
                spec.environment.insert(name.into(), value.into());
            })
        };
        assert_eq!(changed(&|spec| spec.command.clear()), Err(SpecError::NoCommand));
        assert_eq!(changed(&|spec| spec.command = vec!["".into()]), Err(SpecError::NoCommand));
        let second = Duration::from_secs(1);
        let (interval, timeout, start_period, start_interval) = (second, second, second, second);
        let check = Check { command: Vec::new(), interval, timeout, start_period, start_interval, retries: 3 };
        assert_eq!(changed(&|spec| spec.check = Some(check.clone())), Err(SpecError::NoCommand));
        assert_eq!(
            changed(&|spec| spec.command.push("a\0b".into())),
            Err(SpecError::NulInArgument { argument: "a\0b".into() })
        );
        assert_eq!(variable("A", "1=2"), Ok(()));
        for (name, value) in [("", "x"), ("A=B", "x"), ("A\0", "x"), ("A", "x\0")] {
            assert_eq!(variable(name, value), Err(SpecError::Variable { name: name.into() }));
        }
        assert_eq!(
            changed(&|spec| spec.working_directory = "src".into()),
            Err(SpecError::WorkingDirectory { path: "src".into() })
        );
        assert_eq!(
            changed(&|spec| spec.source = Some(Overlay { scratch: "s".into(), ..overlay() })),
            Err(SpecError::RelativePath { path: "s".into() })
        );
        for (name, length, expected) in [
            ("TOKEN", MAX_SECRET_BYTES, true),
            ("TOKEN", MAX_SECRET_BYTES + 1, false),
            ("a/b", 1, false),
            ("..", 1, false),
            ("", 1, false),
        ] {
            let secret = Secret { name: name.to_owned(), content: vec![b'x'; length] };
            assert!(!format!("{secret:?}").contains('x'), "what it is shows nowhere");
            let result = changed(&|spec| spec.secrets = vec![secret.clone()]);
            assert_eq!(result.is_ok(), expected, "{name} of {length}");
        }
        for (inside, expected) in [("app/target", true), ("/app", false), ("../x", false), ("", false)] {
            let private = Private { host: "/store/private".into(), inside: inside.into() };
            assert_eq!(changed(&|spec| spec.private = vec![private.clone()]).is_ok(), expected, "{inside}");
        }
        assert_eq!(changed(&|spec| spec.uid = u32::MAX), Err(SpecError::Id));
        for (number, expected) in [(0, Ok(())), (1024, Err(SpecError::Processor { number: 1024 }))] {
            assert_eq!(changed(&|spec| spec.processors = vec![number]), expected);
        }
        let many = |ids, inside: &str| {
            changed(&|spec| {
                (spec.uid, spec.gid, spec.users) = (ids, ids, Users::Many);
                spec.owners = vec![Owner { inside: inside.into(), uid: 0, gid: 8, mode: 0o2775 }];
            })
        };
        assert_eq!(many(0, "var/mail"), Ok(()));
        assert_eq!(many(1000, "var/mail"), Err(SpecError::Users));
        assert_eq!(many(0, "/var/mail"), Err(SpecError::Owner { path: "/var/mail".into() }));
        for (uid, gid, expected) in [(65_535, 0, None), (65_536, 0, Some(65_536)), (0, u32::MAX, Some(u32::MAX))] {
            let result = changed(&|spec| {
                (spec.uid, spec.gid, spec.users) = (0, 0, Users::Many);
                spec.owners = vec![Owner { inside: "x".into(), uid, gid, mode: 0o755 }];
            });
            assert_eq!(result.err(), expected.map(|id| SpecError::OwnerId { path: "x".into(), id }));
        }
        let owner = Owner { inside: "x".into(), uid: 0, gid: 0, mode: 0o755 };
        assert_eq!(changed(&|spec| spec.owners = vec![owner.clone()]), Err(SpecError::Users));
    }
}
