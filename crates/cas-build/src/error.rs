//! Why a build failed.

use std::io;
use std::path::PathBuf;

use cas_blob::Descriptor;
use cas_config::{Diagnostic, LockError};
use cas_fetch::FetchError;
use cas_fs::FsError;
use cas_sandbox::SandboxError;
use cas_store::StoreError;
use cas_tar::ReadTarError;

/// Why a build failed.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// No folder from here up is a workspace.
    #[error("`{}` is not in a workspace: no `cas.toml` with `[workspace]` here or above", start.display())]
    NoWorkspace {
        /// Where the search began.
        start: PathBuf,
    },
    /// A `cas.toml` is wrong.
    #[error("`{}` is wrong", path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// Its text.
        text: String,
        /// What is wrong with it, in order.
        findings: Vec<Diagnostic>,
    },
    /// `cas.lock` cannot be used.
    #[error("`{}` cannot be used", path.display())]
    Lock {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: LockError,
    },
    /// `cas.lock` does not have what is needed, and may not be changed.
    #[error("`cas.lock` is not up to date: {entry} would change")]
    LockStale {
        /// The target.
        entry: String,
    },
    /// No such target.
    #[error("there is no target `{label}`")]
    UnknownTarget {
        /// What was asked for.
        label: String,
        /// One that it may be.
        near: Option<String>,
    },
    /// Targets need each other.
    #[error("targets need each other: {}", cycle.join(" → "))]
    Cycle {
        /// The labels, the first one again at the end.
        cycle: Vec<String>,
    },
    /// A target is used as what it is not.
    #[error("`{label}` is a {kind}, and cannot be {role}")]
    Role {
        /// The target.
        label: String,
        /// What it is.
        kind: &'static str,
        /// What it is used as.
        role: &'static str,
    },
    /// A kind of target that this version cannot build.
    #[error("`{label}` is a {kind}, which this version of cas cannot build")]
    NotAvailable {
        /// The target.
        label: String,
        /// What it is.
        kind: &'static str,
    },
    /// A pattern of `members` is not one.
    #[error("`{pattern}` of `members` is not a glob of folders")]
    Members {
        /// The pattern.
        pattern: String,
    },
    /// A Debian toolchain could not be made.
    #[error("could not make the toolchain of `{suite}`")]
    Debian {
        /// The suite.
        suite: String,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A package cannot be read.
    #[error("package `{package}` is damaged")]
    Package {
        /// Its name and version.
        package: String,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The origin no longer has a pinned package.
    #[error("the archive no longer has `{package}`, which `cas.lock` pins")]
    PackageGone {
        /// Its name and version.
        package: String,
        /// What the origin said.
        source: FetchError,
    },
    /// What was fetched is not what was announced.
    #[error("`{url}` is not what is pinned")]
    Mismatch {
        /// The address.
        url: String,
        /// What differs.
        source: StoreError,
    },
    /// A download failed.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file operation failed.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// The sandbox failed.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// An archive cannot be read.
    #[error(transparent)]
    ReadTar(#[from] ReadTarError<StoreError>),
    /// A tree cannot be a layer.
    #[error("layer {layer_index} of `{label}` cannot be written")]
    Layer {
        /// The image.
        label: String,
        /// Number of the layer, from 0.
        layer_index: usize,
        /// Why not.
        source: cas_tar::EntryError,
    },
    /// Compressing failed.
    #[error("could not compress a layer")]
    Compress(#[source] io::Error),
    /// A stored record makes no sense, or what it names is gone.
    #[error("`{what}` of the store is damaged or incomplete")]
    Record {
        /// What it is.
        what: Descriptor,
    },
    /// No image of this name.
    #[error("there is no image `{name}` in the store")]
    UnknownImage {
        /// The name.
        name: String,
    },
    /// The image says nothing of what to run.
    #[error("image `{name}` has neither entrypoint nor command")]
    NoCommand {
        /// The image.
        name: String,
    },
    /// The image's user is not in its `/etc/passwd`.
    #[error("image `{name}` runs as `{user}`, which its `/etc/passwd` does not have")]
    User {
        /// The image.
        name: String,
        /// The user.
        user: String,
    },
    /// The build was interrupted.
    #[error("interrupted")]
    Interrupted,
}

impl BuildError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoWorkspace { .. } => "write a `cas.toml` with `[workspace]`, or use `-C FOLDER`".to_owned(),
            Self::Lock { source, .. } => source.hint().to_owned(),
            Self::LockStale { .. } => "run `cas lock` and commit `cas.lock`".to_owned(),
            Self::UnknownTarget { near: Some(near), .. } => format!("did you mean `{near}`?"),
            Self::PackageGone { .. } => "run `cas lock --update` to pin what the archive has now".to_owned(),
            Self::Mismatch { .. } => {
                "nothing was kept; the origin or a proxy changed the file, or the digest is wrong".to_owned()
            }
            Self::Fetch(FetchError::Offline { .. }) => "build once without `--offline`".to_owned(),
            Self::UnknownImage { .. } => "`cas image ls` lists those that are there".to_owned(),
            Self::NoCommand { .. } => "give one: `cas run IMAGE -- COMMAND`".to_owned(),
            Self::Sandbox(error) => return error.hint().map(|hint| hint.to_string()),
            Self::Store(error) if error.is_full() => "make room on the disk of the store".to_owned(),
            _ => return None,
        })
    }
}
