//! Files of a git repository that say what is tracked, as pure values: the index, and the few settings that go with it.
//!
//! [`decode_index`] reads `index` and the shared index under it, [`Config`] and [`Attributes`] what changes files on their
//! way to the working tree, [`gitfile`] and [`commondir`] lead to the folders of worktrees and submodules. Formats, and what
//! is not read: docs/formats/git-index.md.
//!
//! Not here: finding repositories and opening files (`cas-snapshot`), objects and references, which nothing needs.

mod attributes;
mod config;
mod ewah;
mod index;
mod path;
mod pointer;
mod split;
#[cfg(test)]
mod tests;

pub use attributes::{AttributeLine, Attributes, Setting};
pub use config::{Config, ConfigError};
pub use index::{Decoded, Entry, Index, IndexError, MAX_INDEX_BYTES, Mode, ObjectFormat, decode_index};
pub use path::{LinkError, MAX_LINK_BYTES, commondir, gitfile};
pub use pointer::{MAX_POINTER_BYTES, is_lfs_pointer};
pub use split::SplitIndex;
