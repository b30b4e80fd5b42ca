//! What an entry of a directory is.

use std::collections::BTreeMap;
use std::sync::Arc;

use cas_blob::Descriptor;

use crate::{Directory, RelPath};

/// Rights, owners and extended attributes of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Permission, set-id and sticky bits: the low 12 bits of a mode.
    pub mode: u32,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Extended attributes by name.
    pub xattrs: BTreeMap<Box<[u8]>, Box<[u8]>>,
}

impl Metadata {
    /// A node of user and group 0 with the given mode.
    #[must_use]
    pub const fn root_owned(mode: u32) -> Self {
        Self { mode: mode & 0o7777, uid: 0, gid: 0, xattrs: BTreeMap::new() }
    }
}

/// Whether a device passes characters or blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the two kinds of every Unix")]
pub enum DeviceKind {
    Character,
    Block,
}

/// An entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// A directory, shared between the trees that hold it.
    Directory(Arc<Directory>),
    /// A regular file.
    File {
        /// Rights and owners.
        metadata: Metadata,
        /// Its content.
        blob: Descriptor,
    },
    /// A symbolic link.
    Symlink {
        /// Owners; the mode is always `0777`.
        metadata: Metadata,
        /// What it holds: 1–4,095 bytes, not interpreted.
        target: Box<[u8]>,
    },
    /// A further name of the regular file at `target`, which comes before it in the order of the walk.
    Link {
        /// Path of the file, relative to the root of the tree.
        target: RelPath,
    },
    /// A device.
    Device {
        /// Rights and owners.
        metadata: Metadata,
        /// Characters or blocks.
        kind: DeviceKind,
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo {
        /// Rights and owners.
        metadata: Metadata,
    },
    /// Removes the name from what lies below, where the tree is a layer.
    Whiteout,
}

impl Node {
    /// A regular file of user and group 0.
    #[must_use]
    pub const fn file(blob: Descriptor, mode: u32) -> Self {
        Self::File { metadata: Metadata::root_owned(mode), blob }
    }

    /// A symbolic link of user and group 0.
    #[must_use]
    pub fn symlink(target: impl AsRef<[u8]>) -> Self {
        Self::Symlink { metadata: Metadata::root_owned(0o777), target: target.as_ref().into() }
    }

    /// Rights and owners, where the node has its own: a link has its file's, a whiteout none.
    #[must_use]
    pub fn metadata(&self) -> Option<&Metadata> {
        match self {
            Self::Directory(directory) => Some(&directory.metadata),
            Self::File { metadata, .. }
            | Self::Symlink { metadata, .. }
            | Self::Device { metadata, .. }
            | Self::Fifo { metadata } => Some(metadata),
            Self::Link { .. } | Self::Whiteout => None,
        }
    }

    /// The node with other rights and owners; links and whiteouts stay as they are.
    #[must_use]
    pub fn with_metadata(mut self, new: Metadata) -> Self {
        match &mut self {
            Self::Directory(directory) => Arc::make_mut(directory).metadata = new,
            Self::File { metadata, .. }
            | Self::Symlink { metadata, .. }
            | Self::Device { metadata, .. }
            | Self::Fifo { metadata } => *metadata = new,
            Self::Link { .. } | Self::Whiteout => {}
        }
        self
    }

    /// The directory, if it is one.
    #[must_use]
    pub fn as_directory(&self) -> Option<&Arc<Directory>> {
        match self {
            Self::Directory(directory) => Some(directory),
            _ => None,
        }
    }
}
