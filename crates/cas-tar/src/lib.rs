//! Archives as recipes over trees: tar in a normal form, groups, frames, codecs; and reading foreign tar streams.
//!
//! A [`LayerPlan`] cuts the tar of a tree into groups of whole entries. What a group holds is told by pieces, bytes of
//! headers and names of contents, so a plan of any tree is small. [`copy_pieces`] gives a group's bytes, a [`Codec`] its
//! frame, and a [`Recipe`] lists the frames of an archive. Formats and the contract of bytes: docs/formats/layer.md.
//!
//! Every function is pure; parallelism and keeping of frames belong to the caller (`cas-build`). Not here: the order of
//! files in an npm tarball (`cas-npm`), manifests (`cas-oci`).

mod chunked;
mod codec;
mod contents;
#[cfg(test)]
mod contents_tests;
mod decompress;
mod entries;
mod group;
mod header;
mod npm;
mod plan;
mod read;
mod recipe;
mod scan;
mod seekable;
mod stargz;
mod stream;
mod tail;
#[cfg(test)]
mod tests;

pub use codec::{Codec, Encoded, Encoder, FrameSummary};
pub use contents::{ContentsError, GroupIndex};
pub use decompress::{Compression, decompress};
pub use group::{Group, Piece, copy_pieces};
pub use header::EntryError;
pub use plan::{LayerGroups, LayerPlan, Profile, npm_plan};
pub use read::{
    KeepContent, LayerEntry, LayerItem, ReadTarError, ReadTarLimits, Span, read_entries, read_layer, read_tree,
};
pub use recipe::{Frame, ParseRecipeError, Recipe, RecipeTail};
pub use scan::ScanForm;
pub use seekable::{ChunkIndex, ContentIndex};
pub use stargz::LANDMARK;
pub use stream::{LayerStream, StreamEntry};
pub use tail::Tail;
