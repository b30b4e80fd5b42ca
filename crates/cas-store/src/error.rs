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
    /// The store is on a network file system.
    #[error("the store `{}` is on a network file system ({kind}), where locks and the index cannot be relied on", path.display())]
    Network {
        /// Folder of the store.
        path: PathBuf,
        /// What the file system is called.
        kind: &'static str,
    },
    /// Another user's store: what this one wrote there, the owner could not read.
    #[error("the store `{}` belongs to user {owner}, and this is user {user}", path.display())]
    Foreign {
        /// Folder of the store.
        path: PathBuf,
        /// Who owns it.
        owner: u32,
        /// Who runs this program.
        user: u32,
    },
    /// A newer program made the store.
    #[error("`{}` needs a newer program: it uses {}", path.display(), features.join(", "))]
    Newer {
        /// The description of the store.
        path: PathBuf,
        /// What this program does not know.
        features: Vec<String>,
    },
    /// The description of the store cannot be read.
    #[error("`{}` does not describe a store; when it is removed, the next command writes it again", path.display())]
    Description {
        /// The description of the store.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// Another process holds a lock for too long.
    #[error("another process holds the lock `{}`", path.display())]
    Busy {
        /// The lock.
        path: PathBuf,
    },
    /// The disk reported a failed write: what is in memory may not be what is on the disk.
    #[error("the disk of the store failed to keep what was written before; nothing more is written by this process")]
    Poisoned,
    /// Not a name of a pin.
    #[error("`{0}` is no name of a pin: letters, digits and `._-+@:/`, at most 200 bytes, not beginning with a dot")]
    PinName(String),
    /// A pin keeps more than its file can say.
    #[error("the pin `{0}` keeps too much for one pin: pin a tree, or use several")]
    PinTooLong(String),
    /// A directory of a pinned tree is gone, so nobody knows what the pin keeps.
    #[error("the pin `{pin}` keeps `{blob}`, which is not in the store: put it there again, or unpin")]
    PinIncomplete {
        /// Name of the pin.
        pin: String,
        /// The directory.
        blob: Descriptor,
    },
    /// A limit of the store would be passed, and nothing more can leave.
    #[error("the store is full: its limit is {limit_text}, and what it holds is in use or pinned", limit_text = limit)]
    Quota {
        /// The limit, in words.
        limit: String,
    },
    /// A pin cannot be read, so nobody knows what it keeps.
    #[error("the pin `{}` is damaged: remove it, or pin again what it kept", path.display())]
    Pin {
        /// Its file.
        path: PathBuf,
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

/// Whether the index is no file that this user may read and write: that is no damage, and no check mends it.
fn is_out_of_reach(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{CannotOpen, PermissionDenied, ReadOnly};
    matches!(error.sqlite_error_code(), Some(CannotOpen | PermissionDenied | ReadOnly))
}

impl StoreError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Quota { .. } => {
                "make room on the disk of the store, raise the limit with `cas store limit`, or end pins with `cas store pin rm`"
            }
            Self::Network { .. } => "name a folder on a local disk with `--store`, or use `--store-on-network`",
            Self::Foreign { .. } => "work as its owner, or name another folder with `--store`",
            Self::Newer { .. } => "use the newer program, or another folder with `--store`",
            Self::Index(error) if is_out_of_reach(error) => {
                "`index.db` of the store must be a file of yours that can be written: give it back with `chown` and `chmod u+rw`, or remove it, and results are computed again"
            }
            Self::Index(_) if !self.is_full() => {
                "run `cas store fsck`: a damaged index is begun anew, and results are computed again"
            }
            Self::Poisoned => "look at the disk's health, then run `cas store fsck --full`",
            Self::Busy { .. } => "wait for the other process, or end it",
            Self::Pin { .. } => "`cas store pin rm NAME` removes a pin; `cas store fsck` lists the damaged ones",
            Self::PinIncomplete { .. } => "build or pull it again, or use `cas store pin rm NAME`",
            Self::Missing(_) | Self::Read { .. } | Self::Tree { .. } => {
                "run the command again: what is missing is made again; `cas store fsck --full` looks at everything"
            }
            Self::Fs(error) | Self::Unusable { source: error, .. }
                if error.source.kind() == io::ErrorKind::PermissionDenied =>
            {
                "the store and all in it must be yours, and writable: give it back with `chown -R` and `chmod -R u+rwX`, or name another folder with `--store`"
            }
            Self::Fs(error) | Self::Unusable { source: error, .. }
                if error.source.kind() == io::ErrorKind::ReadOnlyFilesystem =>
            {
                "every command writes to the store: name a folder on a disk that can be written to with `--store`"
            }
            error if error.is_full() => {
                "make room on the disk of the store: `cas store gc --max-size SIZE` removes what was not used for longest"
            }
            _ => return None,
        })
    }

    /// Whether the disk, or a quota on it, is full.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let full =
            |error: &io::Error| matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        match self {
            Self::Quota { .. } => true,
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
            damaged @ OpenBlobError::Damaged { blob, .. } => {
                Self::Read { blob, source: io::Error::new(io::ErrorKind::InvalidData, damaged) }
            }
            OpenBlobError::Io { blob, source } => Self::Read { blob, source },
        }
    }
}
