//! Why the store could not do something.

use std::io;
use std::path::PathBuf;

use cas_blob::{Descriptor, OpenBlobError, VerifyError};
use cas_fs::FsError;
use cas_tree::{DecodeTreeError, EncodeError, RelPath};

/// Why the store could not do something.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store's folder cannot be used.
    #[error("the store `{}` cannot be used", path.display())]
    Unusable {
        /// Folder of the store.
        path: PathBuf,
        /// What stood in the way.
        source: FsError,
    },
    /// A file operation failed.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// The index failed.
    #[error("the index of the store failed")]
    Index(#[from] rusqlite::Error),
    /// A blob that must be there is not.
    #[error("blob `{0}` is not in the store")]
    Missing(Descriptor),
    /// Bytes are not the announced ones.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// Reading the bytes of a blob failed.
    #[error("could not read blob `{blob}`")]
    Read {
        /// The blob.
        blob: Descriptor,
        /// What the system, or the check of the bytes, said.
        source: io::Error,
    },
    /// The source of a blob failed.
    #[error("could not read what was to be stored")]
    Source(#[source] io::Error),
    /// A blob is longer than its use allows.
    #[error("blob `{blob}` is longer than {limit_bytes} bytes, the limit of its use here")]
    TooLong {
        /// The blob.
        blob: Descriptor,
        /// The limit.
        limit_bytes: u64,
    },
    /// A tree has no encoding.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// A stored tree cannot be decoded.
    #[error("tree `{root}` is damaged")]
    Tree {
        /// The tree.
        root: Descriptor,
        /// What is wrong with it.
        source: Box<DecodeTreeError<StoreError>>,
    },
    /// A node of a tree cannot be written to disk.
    #[error("`{path}` is a {kind}, which cannot be written to disk here")]
    Node {
        /// The node.
        path: RelPath,
        /// What it is.
        kind: &'static str,
    },
}

impl StoreError {
    /// Whether the disk, or a quota on it, is full.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let full =
            |error: &io::Error| matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        match self {
            Self::Fs(error) | Self::Unusable { source: error, .. } => error.is_full(),
            Self::Read { source, .. } | Self::Source(source) => full(source),
            Self::Verify(VerifyError::Write { source, .. }) => full(source),
            Self::Index(error) => error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull),
            _ => false,
        }
    }
}

impl From<OpenBlobError> for StoreError {
    fn from(error: OpenBlobError) -> Self {
        match error {
            OpenBlobError::Missing(blob) => Self::Missing(blob),
            OpenBlobError::Io { blob, source } => Self::Read { blob, source },
        }
    }
}
