//! Why the workspace could not be read.

use std::path::PathBuf;

use cas_fs::FsError;

use crate::RevisionError;

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
    /// A file that git tracks is not there, because the checkout is sparse.
    #[error("`{}` is tracked by git, but the sparse checkout leaves it out", show(path))]
    Sparse {
        /// The file, or a folder with such files.
        path: Vec<u8>,
    },
    /// A submodule has no files.
    #[error("submodule `{}` is not checked out", show(path))]
    Submodule {
        /// Its folder.
        path: Vec<u8>,
    },
    /// The index of a git repository cannot be used.
    #[error("could not read git's index `{}`", path.display())]
    GitIndex {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: cas_git::IndexError,
    },
    /// The configuration of a git repository cannot be used.
    #[error("could not read git's configuration `{}`", path.display())]
    GitConfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: cas_git::ConfigError,
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
    #[error("input pattern `{pattern}` selects no file of {}", package_name(package))]
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
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::LeavesWorkspace { .. } => {
                "copy what it leads to into the workspace, or name the link in a .gitignore"
            }
            Self::Special { .. } => "name it in a .gitignore, or remove it",
            Self::Changed { .. } | Self::Unstable { .. } => {
                "results are kept for what their steps saw; build again when nothing writes to it, or leave it out with a .gitignore"
            }
            Self::Fs(error) if error.source.kind() == std::io::ErrorKind::PermissionDenied => {
                "give yourself the right to read it, or name it in a .gitignore"
            }
            Self::Sparse { path } => {
                let folder = path.iter().rposition(|byte| *byte == b'/').map_or(&b""[..], |at| &path[..at]);
                return Some(match folder {
                    b"" => "`git sparse-checkout disable` brings all files back".to_owned(),
                    _ => format!(
                        "`git sparse-checkout add {}` brings that folder back, `git sparse-checkout disable` all of them",
                        show(folder)
                    ),
                });
            }
            Self::Submodule { path } => return Some(format!("run `git submodule update --init {}`", show(path))),
            Self::GitIndex { source, .. } => source.hint(),
            Self::NoMatch { .. } => {
                "patterns go from the package's folder on, select no files that git ignores, and none of packages inside"
            }
            _ => return None,
        };
        Some(hint.to_owned())
    }
}

/// Why content could not be kept. `E` is the keeper's error.
#[derive(Debug, thiserror::Error)]
pub enum KeepError<E: std::error::Error + 'static> {
    /// The file cannot be read.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The revision cannot be read.
    #[error(transparent)]
    Revision(RevisionError),
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

/// The folder of a package, in words.
fn package_name(folder: &str) -> String {
    if folder.is_empty() { "the workspace's root".to_owned() } else { format!("`{folder}`") }
}

fn show(path: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(path)
}
