//! How long a layer of a tree is, with the codecs that `cas` uses.

use std::collections::BTreeMap;

use cas_digest::Digest;
use cas_tar::{Codec, Encoded, FrameSummary, GroupIndex, LayerPlan, Tail};
use cas_testing::MemoryStore;

use crate::run::Failure;

/// Measures layers of one codec. Groups that were compressed once are not compressed again.
pub(crate) struct Measure<'a> {
    codec: Codec,
    place: &'a MemoryStore,
    groups: BTreeMap<Digest, (u64, Encoded)>,
}

impl<'a> Measure<'a> {
    /// Contents are read from `place`.
    pub(crate) fn new(codec: Codec, place: &'a MemoryStore) -> Self {
        Self { codec, place, groups: BTreeMap::new() }
    }

    /// Length of the blob that a layer is.
    pub(crate) fn size(&mut self, plan: &LayerPlan) -> Result<u64, Failure> {
        let keys: Vec<Digest> = plan.groups.iter().map(cas_tar::Group::key).collect();
        for (key, group) in keys.iter().zip(&plan.groups) {
            if !self.groups.contains_key(key) {
                let (bytes, encoded) = self.codec.encode(group, self.place, Vec::new())?;
                self.groups.insert(*key, (bytes.len() as u64, encoded));
            }
        }
        let groups: Vec<&(u64, Encoded)> = keys.iter().map(|key| &self.groups[key]).collect();
        let summaries: Vec<FrameSummary> = groups.iter().map(|(_, encoded)| encoded.summary).collect();
        let indexes: Vec<GroupIndex<'_>> =
            groups.iter().map(|(size, encoded)| GroupIndex { size: *size, contents: &encoded.contents }).collect();
        let tail = Tail::new(self.codec, plan, &indexes, &mut std::io::sink())?.map_or(0, |tail| tail.bytes.len());
        let frames: u64 = groups.iter().map(|(size, _)| size).sum();
        Ok(frames + (self.codec.header().len() + self.codec.trailer(&summaries).len() + tail) as u64)
    }
}
