//! The error of file system operations.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// What was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is the operation that it names")]
pub enum Operation {
    Canonicalize,
    Copy,
    Create,
    CreateDirectory,
    Link,
    List,
    Lock,
    Open,
    Read,
    ReadLink,
    Remove,
    Rename,
    SetMode,
    Stat,
    Symlink,
    Sync,
    Write,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Canonicalize => "resolve",
            Self::Copy => "copy",
            Self::Create => "create",
            Self::CreateDirectory => "create folder",
            Self::Link => "link",
            Self::List => "list",
            Self::Lock => "lock",
            Self::Open => "open",
            Self::Read => "read",
            Self::ReadLink => "read link",
            Self::Remove => "remove",
            Self::Rename => "rename",
            Self::SetMode => "set the mode of",
            Self::Stat => "look at",
            Self::Symlink => "create symlink",
            Self::Sync => "flush",
            Self::Write => "write",
        })
    }
}

/// A failed operation on a path.
#[derive(Debug, thiserror::Error)]
#[error("could not {operation} `{}`", path.display())]
pub struct FsError {
    /// What was tried.
    pub operation: Operation,
    /// On which path.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

impl FsError {
    /// Ties a system error to the operation and the path it came from.
    #[must_use]
    pub fn new(operation: Operation, path: &Path, source: io::Error) -> Self {
        Self { operation, path: path.to_owned(), source }
    }

    /// Whether the path does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }

    /// Whether the path exists already.
    #[must_use]
    pub fn is_already_exists(&self) -> bool {
        self.source.kind() == io::ErrorKind::AlreadyExists
    }

    /// Whether rights are missing: this user's, or those of a file system that is mounted read-only.
    #[must_use]
    pub fn is_about_rights(&self) -> bool {
        matches!(self.source.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
    }

    /// Whether the file system, or a quota on it, is full.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self.source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }
}

/// Ties the error of a result to an operation and a path.
pub(crate) trait Context<T> {
    fn at(self, operation: Operation, path: &Path) -> Result<T, FsError>;
}

impl<T> Context<T> for io::Result<T> {
    fn at(self, operation: Operation, path: &Path) -> Result<T, FsError> {
        self.map_err(|source| FsError::new(operation, path, source))
    }
}
