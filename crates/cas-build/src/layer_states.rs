//! What a layer was hashed to, group by group: the next layer in its place is hashed from the first change on.
//!
//! A memo of kind `layer-states`, keyed by profile, codec and place, names a blob of text. It saves work and decides nothing: a
//! group counts as unchanged by its key alone, which names its bytes.

use cas_blob::Descriptor;
use cas_digest::Digest;
use cas_store::Store;
use cas_tar::{Codec, Frame, FrameSummary, Profile};

use crate::BuildError;

/// Kind of the memos.
pub(crate) const STATES_MEMO: &str = "layer-states";
/// Longest record that is read.
const MAX_BYTES: u64 = 64 << 20;
const HEADER: &str = "cas-layer-states 2";

/// What is kept of a layer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LayerStates {
    pub(crate) groups: Vec<GroupState>,
}

/// What is kept of a group: what it became, and both digests as they were behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GroupState {
    pub(crate) key: Digest,
    pub(crate) frame: Frame,
    pub(crate) contents: Option<Descriptor>,
    pub(crate) tar: Vec<u8>,
    pub(crate) blob: Vec<u8>,
}

impl LayerStates {
    /// What was kept of the layer in a place, if anything.
    pub(crate) fn find(store: &Store, profile: Profile, codec: Codec, place: &str) -> Result<Option<Self>, BuildError> {
        let Some(value) = store.memo(STATES_MEMO, key(profile, codec, place).as_bytes())? else { return Ok(None) };
        let name = std::str::from_utf8(&value).ok().and_then(|text| text.parse::<Descriptor>().ok());
        let Some(name) = name.filter(|name| name.size <= MAX_BYTES) else { return Ok(None) };
        if !store.contains(&name)? {
            return Ok(None);
        }
        Ok(Self::decode(&store.load(&name, MAX_BYTES)?))
    }

    /// Keeps this for the next layer in a place.
    pub(crate) fn keep(&self, store: &Store, profile: Profile, codec: Codec, place: &str) -> Result<(), BuildError> {
        let name = store.put_bytes(cas_digest::DigestFunction::Blake3, &self.encode())?;
        Ok(store.put_memo(STATES_MEMO, key(profile, codec, place).as_bytes(), name.to_string().as_bytes())?)
    }

    fn encode(&self) -> Vec<u8> {
        let mut text = format!("{HEADER}\n");
        for GroupState { key, frame, contents, tar, blob } in &self.groups {
            let contents = contents.map_or_else(|| "-".to_owned(), |name| name.to_string());
            let FrameSummary { length, crc32 } = frame.summary;
            text.push_str(&format!(
                "{key} {} {length} {crc32:08x} {contents} {} {}\n",
                frame.blob,
                to_hex(tar),
                to_hex(blob)
            ));
        }
        text.into_bytes()
    }

    /// A record that makes no sense is none.
    fn decode(text: &[u8]) -> Option<Self> {
        let mut lines = std::str::from_utf8(text).ok()?.strip_suffix('\n')?.split('\n');
        (lines.next()? == HEADER).then_some(())?;
        let group = |line: &str| {
            let words: Vec<&str> = line.split(' ').collect();
            let [key, blob, length, crc32, contents, tar, state] = words[..] else { return None };
            let summary = FrameSummary { length: length.parse().ok()?, crc32: u32::from_str_radix(crc32, 16).ok()? };
            let contents = if contents == "-" { None } else { Some(contents.parse().ok()?) };
            let frame = Frame { blob: blob.parse().ok()?, summary };
            Some(GroupState { key: key.parse().ok()?, frame, contents, tar: of_hex(tar)?, blob: of_hex(state)? })
        };
        Some(Self { groups: lines.map(group).collect::<Option<_>>()? })
    }
}

fn key(profile: Profile, codec: Codec, place: &str) -> String {
    format!("{} {} {place}", profile.name(), codec.id())
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn of_hex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2)?, 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use cas_digest::DigestFunction;

    use super::*;

    #[test]
    fn what_is_kept_is_read_as_it_was_written() {
        let of = |text: &str| Descriptor::of(DigestFunction::Blake3, text.as_bytes());
        let group = |text: &str, contents| GroupState {
            key: of(text).digest,
            frame: Frame { blob: of(text), summary: FrameSummary { length: 7, crc32: 0xab } },
            contents,
            tar: vec![0, 255],
            blob: vec![16],
        };
        let states = LayerStates { groups: vec![group("a", None), group("b", Some(of("c")))] };
        let text = states.encode();
        assert_eq!(LayerStates::decode(&text), Some(states));
        assert_eq!(LayerStates::decode(&LayerStates::default().encode()), Some(LayerStates::default()));
        for wrong in [&text[..text.len() - 1], &text[1..], b"cas-layer-states 2\nx\n"] {
            assert_eq!(LayerStates::decode(wrong), None);
        }
    }
}
