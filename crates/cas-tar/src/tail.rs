//! What stands behind the frames of a layer with a table of contents.

use std::collections::BTreeMap;
use std::io::Write;

use crate::contents::{ContentsError, GroupIndex};
use crate::{Codec, LayerPlan, chunked, stargz};

/// Behind the frames: the table of contents, and where readers find it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tail {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// How many bytes of tar they hold.
    pub tar_length: u64,
    /// What the layer's descriptor in a manifest has to tell.
    pub annotations: BTreeMap<String, String>,
}

impl Tail {
    /// Makes the tail of a layer, from its plan and what its groups became; `None` for a codec that has none. `tar` gets what the
    /// tail adds to the uncompressed bytes.
    ///
    /// # Errors
    ///
    /// [`ContentsError`]
    pub fn new(
        codec: Codec,
        plan: &LayerPlan,
        groups: &[GroupIndex<'_>],
        tar: &mut dyn Write,
    ) -> Result<Option<Self>, ContentsError> {
        match codec {
            Codec::ZstdChunked3 => chunked::tail(plan, groups).map(Some),
            Codec::Stargz6 => stargz::tail(plan, groups, tar).map(Some),
            Codec::Identity | Codec::Gzip6 | Codec::Gzip9 | Codec::Zstd3 => Ok(None),
        }
    }
}
