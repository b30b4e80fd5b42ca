//! Stores of images that other programs have: podman's and docker's, reached by these programs' own commands.
//!
//! An archive goes between, in the store's folder for scratch. What the programs make of it is theirs: podman keeps layers uncompressed
//! and compresses them anew, docker writes documents of its own. Rules: docs/formats/image-export.md.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use cas_oci::ImageSource;
use cas_store::Store;

use crate::export::Whole;
use crate::{BuildError, Image, archive};

/// How much of what a program said is told.
const SAID_CHARACTERS: usize = 2_000;

/// A program that keeps images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// podman, with the storage that CRI-O and buildah use too.
    Podman,
    /// docker's daemon.
    Docker,
}

impl Engine {
    /// The program behind a transport, in skopeo's words.
    #[must_use]
    pub fn of_transport(transport: &str) -> Option<Self> {
        match transport {
            "containers-storage" => Some(Self::Podman),
            "docker-daemon" => Some(Self::Docker),
            _ => None,
        }
    }

    /// The other way around.
    pub(crate) const fn transport(self) -> &'static str {
        match self {
            Self::Podman => "containers-storage",
            Self::Docker => "docker-daemon",
        }
    }

    const fn program(self) -> &'static str {
        match self {
            Self::Podman => "podman",
            Self::Docker => "docker",
        }
    }

    /// Gives an image to the program, under a name with a tag.
    pub(crate) fn load(self, store: &Store, image: &Image, name: &str) -> Result<(), BuildError> {
        let saved = Saved::new(store, self, name)?;
        match self {
            Self::Podman => archive::oci(store, &Whole::of_image(store, image)?, &[], &saved.file, name)?,
            Self::Docker => archive::docker(store, image, &saved.file, Some(name))?,
        }
        self.run(&["load".as_ref(), "-i".as_ref(), saved.file.as_os_str()])
    }

    /// Takes an image from the program. The archive goes with what is returned.
    ///
    /// # Errors
    ///
    /// [`BuildError::Engine`]
    pub fn save(self, store: &Store, name: &str) -> Result<Saved, BuildError> {
        let saved = Saved::new(store, self, name)?;
        let format: &[&str] = if self == Self::Podman { &["--format", "oci-archive"] } else { &[] };
        let mut arguments: Vec<&std::ffi::OsStr> = vec!["save".as_ref()];
        arguments.extend(format.iter().map(|word| std::ffi::OsStr::new(*word)));
        arguments.extend([std::ffi::OsStr::new("-o"), saved.file.as_os_str(), name.as_ref()]);
        self.run(&arguments)?;
        Ok(saved)
    }

    fn run(self, arguments: &[&std::ffi::OsStr]) -> Result<(), BuildError> {
        let program = self.program();
        let failed = |said: String| BuildError::Engine { program, said };
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null());
        let output = command.output().map_err(|error| failed(error.to_string()))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let said: String =
            said.trim().chars().filter(|character| !character.is_control() || *character == '\n').collect();
        Err(failed(said.chars().take(SAID_CHARACTERS).collect()))
    }
}

/// An archive between two stores, which goes when this does.
#[derive(Debug)]
pub struct Saved {
    folder: PathBuf,
    file: PathBuf,
    engine: Engine,
    name: String,
}

impl Saved {
    fn new(store: &Store, engine: Engine, name: &str) -> Result<Self, BuildError> {
        let folder = cas_fs::temporary_dir_in(store.scratch(), "engine-")?;
        let file = folder.join("image.tar");
        Ok(Self { folder, file, engine, name: name.to_owned() })
    }

    /// The archive as a place of images.
    #[must_use]
    pub fn source(&self) -> ImageSource {
        let path = self.file.display().to_string();
        match self.engine {
            Engine::Podman => ImageSource::Archive { path, tag: None },
            Engine::Docker => ImageSource::DockerArchive { path, tag: Some(self.name.clone()) },
        }
    }
}

impl Drop for Saved {
    fn drop(&mut self) {
        // What stays goes with the process's own folder.
        let _ = cas_fs::remove_tree(&self.folder);
    }
}
