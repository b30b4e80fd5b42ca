//! File system trees by content: nodes, edit, merge, canonical encoding.
//!
//! A tree is a [`Directory`]: its own metadata and its entries in the order of their names' bytes. Trees have no times and
//! name the content of files by descriptor, so two equal trees have one encoding and one digest (docs/formats/tree.md).
//! Directories are shared (`Arc`), so that copying a tree and editing one path costs that path alone.
//!
//! Of the names of one file the first in order is the file and the others are [`Node::Link`]s to it; every operation here
//! keeps that so.
//!
//! Not here: the bytes of files (`cas-store`), reading and writing folders (`cas-snapshot`, `cas-store`), archives
//! (`cas-tar`), what a remote executor sees of a tree (`cas-action`).

mod codec;
#[cfg(test)]
mod codec_tests;
mod directory;
mod edit;
mod links;
mod merge;
mod node;
mod partition;
mod path;
mod unpack;

pub use codec::{
    DecodeError, DecodeTreeError, EncodeError, EncodedTree, MAX_DIRECTORY_BYTES, References, decode, references,
};
pub use directory::{Directory, Walk};
pub use edit::EditError;
pub use merge::{Conflict, MergeRule};
pub use node::{DeviceKind, Metadata, Node};
pub use path::{Name, RelPath, RelPathError};
pub use unpack::{MAX_DEPTH, UnpackError, Unpacking};

/// Time that every shown entry of a tree carries, in seconds since 1970: 1985-10-26T08:15:00Z.
///
/// One constant of `format_version` 1. It is the time in npm's tarballs, is positive (some programs take 0 for "unset"),
/// fits every archive format, and lies before any source that is compared with it.
pub const EPOCH_SECONDS: u32 = 499_162_500;
