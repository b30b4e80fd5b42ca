//! Why the workspace could not be read.

use std::path::PathBuf;

use cas_fs::FsError;

/// Why the workspace could not be read. Paths are from its root on, but for those of operations.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// A file or folder cannot be read.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// A symbolic link leads out of the workspace.
    #[error("symbolic link `{}` leads to `{target}`, outside of the workspace", show(path))]
    LeavesWorkspace {
        /// The link.
        path: Vec<u8>,
        /// What it holds.
        target: String,
    },
    /// Something that is not a file, folder or symbolic link.
    #[error("`{}` is a {kind}, which cannot be an input", show(path))]
    Special {
        /// Where.
        path: Vec<u8>,
        /// What it is.
        kind: &'static str,
    },
    /// The path cannot be an input.
    #[error("`{}` cannot be an input", path.display())]
    Path {
        /// The path.
        path: PathBuf,
        /// What is wrong with it.
        source: cas_tree::RelPathError,
    },
    /// A file changed while it was read, again and again.
    #[error("`{}` changes while it is being read", show(path))]
    Unstable {
        /// The file.
        path: Vec<u8>,
    },
    /// A file changed between its reading and the end of the build.
    #[error("`{}` changed during the build", show(path))]
    Changed {
        /// The file.
        path: Vec<u8>,
    },
    /// A `.gitignore` file holds a pattern that is not one.
    #[error("line {line} of `{}` is not a pattern: {why}", path.display())]
    Gitignore {
        /// The file, from the workspace's root on.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong with it.
        why: String,
    },
    /// The patterns of `.gitignore` files are too many to be compiled.
    #[error("could not use the patterns of `.gitignore` files")]
    Patterns(#[source] ignore::Error),
    /// A pattern of `inputs` is not one.
    #[error("`{pattern}` is not a glob")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// Why not.
        source: globset::Error,
    },
    /// A pattern selects no file.
    #[error("input pattern `{pattern}` selects no file of `{package}`")]
    NoMatch {
        /// The pattern.
        pattern: String,
        /// Folder of the package, empty for the root.
        package: String,
    },
}

impl SnapshotError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::LeavesWorkspace { .. } => {
                Some("copy what it leads to into the workspace, or name the link in a .gitignore")
            }
            Self::Special { .. } => Some("name it in a .gitignore, or remove it"),
            Self::Changed { .. } | Self::Unstable { .. } => {
                Some("the result was not kept; build again when nothing writes to the workspace")
            }
            Self::Fs(error) if error.source.kind() == std::io::ErrorKind::PermissionDenied => {
                Some("give yourself the right to read it, or name it in a .gitignore")
            }
            _ => None,
        }
    }
}

/// Why content could not be kept. `E` is the keeper's error.
#[derive(Debug, thiserror::Error)]
pub enum KeepError<E: std::error::Error + 'static> {
    /// The file cannot be read.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The keeper failed.
    #[error("could not store `{}`", show(path))]
    Keep {
        /// The file, from the workspace's root on.
        path: Vec<u8>,
        /// What the keeper said.
        source: E,
    },
}

impl<E: std::error::Error + 'static> From<FsError> for KeepError<E> {
    fn from(error: FsError) -> Self {
        Self::Snapshot(error.into())
    }
}

fn show(path: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(path)
}
