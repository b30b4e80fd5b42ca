//! The world of a step: the whole sandbox, or a folder of the host. Rules: docs/formats/sandbox.md, "Weaker tiers".
//!
//! Not here: what is in it (`inputs`, `toolchain`), and what becomes of what was written (`capture`).

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cas_sandbox::{Before, Cancel, Change, ChangesError, Limits, Outcome, Plain, Private, Runner, Spec, Streams};
use cas_store::PrivateFolder;

use crate::BuildError;
use crate::step::SOURCE;

/// Where the whole sandbox has its `/tmp`, and where a step's environment says that it is.
const TMP: &str = "/tmp";

/// What a command will find.
pub(crate) enum World {
    /// Namespaces and a root of its own.
    Whole(Box<Spec>),
    /// The host.
    Plain(Box<PlainWorld>),
}

/// A folder of the host that stands in for what a sandbox would show.
pub(crate) struct PlainWorld {
    plain: Plain,
    before: Before,
    /// Folders that stay: they are moved into the sources while the command runs, because nothing can be mounted there.
    private: Vec<Private>,
    /// Keeps others out of a folder that is there for more than one run.
    place: Option<PrivateFolder>,
}

impl Drop for PlainWorld {
    fn drop(&mut self) {
        // What cannot be removed now is removed before the next run, which then says why it cannot be.
        let _ = self.place.as_ref().map(PrivateFolder::clear);
    }
}

/// Where a plain run has its folders.
pub(crate) enum Place {
    /// Of the step: at the same path in each run, since it may show in what a step makes.
    OfStep(PrivateFolder),
    /// Of one run, whose outputs nobody keeps.
    Once(PathBuf),
}

impl Place {
    /// The folder, which is empty.
    fn folder(&self) -> Result<PathBuf, BuildError> {
        match self {
            Self::OfStep(folder) => {
                folder.clear()?;
                Ok(folder.path())
            }
            Self::Once(folder) => {
                cas_fs::create_dir_all(folder)?;
                Ok(folder.clone())
            }
        }
    }
}

/// What runs on the host, and how.
pub(crate) struct PlainCommand {
    /// Program and arguments.
    pub(crate) command: Vec<String>,
    pub(crate) environment: BTreeMap<OsString, OsString>,
    /// Where in its sources it starts.
    pub(crate) inside: PathBuf,
    /// Folders that stay.
    pub(crate) private: Vec<Private>,
    /// With Landlock: what else it may read and execute.
    pub(crate) confined_to: Option<Vec<PathBuf>>,
    /// Whether its addresses are random.
    pub(crate) aslr: bool,
}

impl World {
    /// A command of `label` on the host: `write` makes the folder of its sources.
    pub(crate) fn plain(
        label: &str,
        place: Place,
        command: PlainCommand,
        write: impl FnOnce(&Path) -> Result<(), BuildError>,
    ) -> Result<Self, BuildError> {
        let PlainCommand { command, mut environment, inside, mut private, confined_to, aslr } = command;
        let folder = place.folder()?;
        let (sources, tmp) = (folder.join(SOURCE), folder.join("tmp"));
        cas_fs::create_dir(&tmp)?;
        write(&sources)?;
        // What is inside of another one comes and goes with it.
        private.sort_by(|a, b| a.inside.cmp(&b.inside));
        private.dedup_by(|inner, outer| inner.inside.starts_with(&outer.inside));
        for private in &private {
            let inside = sources.join(&private.inside);
            // As with a sandbox, which mounts it there: what the inputs have is hidden, and folders above are nothing new.
            cas_fs::remove_tree(&inside)?;
            cas_fs::create_dir_all(inside.parent().unwrap_or(&sources))?;
        }
        let before = Before::of(&sources).map_err(|source| BuildError::Capture { label: label.to_owned(), source })?;
        // The host's own is everybody's.
        for value in environment.values_mut().filter(|value| **value == OsStr::new(TMP)) {
            *value = tmp.clone().into_os_string();
        }
        // Without a component it would end in a slash.
        let working_directory = if inside == Path::new("") { sources } else { sources.join(inside) };
        let command = command.into_iter().map(Into::into).collect();
        let (timeout, limits, processors) = (None, Limits::default(), Vec::new());
        let plain =
            Plain { folder, confined_to, command, environment, working_directory, timeout, limits, processors, aslr };
        let place = match place {
            Place::OfStep(folder) => Some(folder),
            Place::Once(_) => None,
        };
        Ok(Self::Plain(Box::new(PlainWorld { plain, before, private, place })))
    }

    /// Sets how long the command may take, and how much it may use.
    pub(crate) fn set_limits(&mut self, timeout: Option<Duration>, limits: Limits) {
        let (own_timeout, own_limits) = match self {
            Self::Whole(spec) => (&mut spec.timeout, &mut spec.limits),
            Self::Plain(world) => (&mut world.plain.timeout, &mut world.plain.limits),
        };
        (*own_timeout, *own_limits) = (timeout, limits);
    }

    /// Sets which processors the command runs on; none for all.
    pub(crate) fn set_processors(&mut self, numbers: Vec<usize>) {
        match self {
            Self::Whole(spec) => spec.processors = numbers,
            Self::Plain(world) => world.plain.processors = numbers,
        }
    }

    /// How long it may take, and how much it may use.
    pub(crate) fn limits(&self) -> (Option<Duration>, &Limits) {
        match self {
            Self::Whole(spec) => (spec.timeout, &spec.limits),
            Self::Plain(world) => (world.plain.timeout, &world.plain.limits),
        }
    }

    pub(crate) fn run(&self, runner: &Runner, streams: Streams, cancel: &Cancel) -> Result<Outcome, BuildError> {
        match self {
            Self::Whole(spec) => Ok(runner.run(spec, streams, cancel)?),
            Self::Plain(world) => world.run(runner, streams, cancel),
        }
    }

    /// What the command changed in its sources, and the folder that holds it.
    pub(crate) fn changes(&self) -> Result<(PathBuf, Vec<Change>), ChangesError> {
        match self {
            Self::Whole(spec) => {
                let upper = spec.source.as_ref().expect("a step has sources").upper();
                let changes = cas_sandbox::changes(&upper)?;
                Ok((upper, changes))
            }
            Self::Plain(world) => {
                let sources = world.sources();
                let changes = world.before.changes(&sources)?;
                Ok((sources, changes))
            }
        }
    }
}

impl PlainWorld {
    fn sources(&self) -> PathBuf {
        self.plain.folder.join(SOURCE)
    }

    fn run(&self, runner: &Runner, streams: Streams, cancel: &Cancel) -> Result<Outcome, BuildError> {
        let sources = self.sources();
        for private in &self.private {
            cas_fs::rename(&private.host, &sources.join(&private.inside))?;
        }
        let outcome = runner.run_plain(&self.plain, streams, cancel);
        for private in &self.private {
            let inside = sources.join(&private.inside);
            match cas_fs::symlink_metadata(&inside) {
                Ok(metadata) if metadata.is_dir() => cas_fs::rename(&inside, &private.host)?,
                // A step that removed it starts with nothing next time.
                Ok(_) => cas_fs::remove_tree(&inside)?,
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(outcome?)
    }
}

impl From<Spec> for World {
    fn from(spec: Spec) -> Self {
        Self::Whole(Box::new(spec))
    }
}
