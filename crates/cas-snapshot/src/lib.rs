//! Digests the workspace: which files belong to it, and what they hold.
//!
//! [`Snapshot::take`] lists the files once, in order; [`Snapshot::tree`] reads those that a target selects, each at most
//! once, and gives their tree with paths from the workspace's root. Rules: docs/formats/snapshot.md.
//!
//! Not here: where content is kept (the caller's `ingest`), what a target selects by default (`cas-build`), git's index
//! and a cache of what was read before.

mod error;
mod list;
mod read;
mod select;
#[cfg(test)]
mod tests;

pub use error::SnapshotError;
pub use list::{Entry, EntryKind, Snapshot};
pub use select::Selection;
