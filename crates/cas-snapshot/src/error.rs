//! Why the workspace could not be read.

use std::path::PathBuf;

use cas_fs::FsError;
use cas_tree::RelPath;

/// Why the workspace could not be read. `E` is the error of whoever keeps the content.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError<E: std::error::Error + 'static> {
    /// A file or folder cannot be read.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// A symbolic link leads out of the workspace.
    #[error("symbolic link `{path}` leads to `{target}`, outside of the workspace")]
    LeavesWorkspace {
        /// The link.
        path: RelPath,
        /// What it holds.
        target: String,
    },
    /// Something that is not a file, folder or symbolic link.
    #[error("`{path}` is a {kind}, which cannot be an input")]
    Special {
        /// Where.
        path: RelPath,
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
    #[error("`{path}` changes while it is being read")]
    Unstable {
        /// The file.
        path: RelPath,
    },
    /// A file changed between its reading and the end of the build.
    #[error("`{path}` changed during the build")]
    Changed {
        /// The file.
        path: RelPath,
    },
    /// A `.gitignore` file holds a pattern that is not one, or a folder cannot be walked.
    #[error("could not list the files of the workspace: {0}")]
    Walk(ignore::Error),
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
    /// The content could not be kept.
    #[error("could not store `{path}`")]
    Ingest {
        /// The file.
        path: RelPath,
        /// What the keeper said.
        source: E,
    },
}

impl<E: std::error::Error + 'static> SnapshotError<E> {
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
