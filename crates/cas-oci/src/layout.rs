//! The image layout on disk (OCI image-spec 1.1, image-layout.md): its index.

use std::collections::BTreeMap;

use cas_blob::Descriptor;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::INDEX_MEDIA_TYPE;
use crate::image::encode;

/// Content of the file `oci-layout`.
pub const LAYOUT_FILE: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// Annotation that holds the tag.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// A manifest, or another index, that an index names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// Its tag.
    pub tag: Option<String>,
    /// What it is.
    pub media_type: String,
    /// Digest, as text, and size.
    pub digest: String,
    /// Size in bytes.
    pub size: u64,
    /// What others said of it beside that, by the names of the fields.
    rest: BTreeMap<String, Value>,
    /// Annotations beside the tag.
    annotations: BTreeMap<String, String>,
}

impl IndexEntry {
    /// Names a document with a tag.
    #[must_use]
    pub fn new(tag: &str, media_type: &str, document: &Descriptor) -> Self {
        Self {
            tag: Some(tag.to_owned()),
            media_type: media_type.to_owned(),
            digest: document.digest.to_string(),
            size: document.size,
            rest: BTreeMap::new(),
            annotations: BTreeMap::new(),
        }
    }

    /// Names a document without a tag.
    #[must_use]
    pub fn untagged(media_type: &str, document: &Descriptor) -> Self {
        Self { tag: None, ..Self::new("", media_type, document) }
    }

    /// The same, of an artifact that is of this type.
    #[must_use]
    pub fn of_type(mut self, artifact_type: &str) -> Self {
        self.rest.insert("artifactType".to_owned(), Value::from(artifact_type));
        self
    }
}

/// Why an index cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("`index.json` is not an image index")]
pub struct ParseIndexError(#[from] serde_json::Error);

/// The index of a layout.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LayoutIndex {
    /// What it names, in its order.
    pub entries: Vec<IndexEntry>,
    /// What others said of it beside that, by the names of the fields.
    rest: BTreeMap<String, Value>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    schema_version: u32,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    media_type: String,
    #[serde(deserialize_with = "list")]
    manifests: Vec<Entry>,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    media_type: String,
    digest: String,
    size: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

/// A list, which libraries of Go write as `null` when it is empty.
fn list<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<Entry>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl LayoutIndex {
    /// Reads an `index.json`, for adding to it.
    ///
    /// # Errors
    ///
    /// [`ParseIndexError`]
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseIndexError> {
        let Index { manifests, rest, .. } = serde_json::from_slice(bytes)?;
        let entry = |mut entry: Entry| IndexEntry {
            tag: entry.annotations.remove(REF_NAME),
            media_type: entry.media_type,
            digest: entry.digest,
            size: entry.size,
            rest: entry.rest,
            annotations: entry.annotations,
        };
        Ok(Self { entries: manifests.into_iter().map(entry).collect(), rest })
    }

    /// The bytes of `index.json`. What was read of others is written again as it was said, in this form.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let entry = |entry: &IndexEntry| {
            let mut annotations = entry.annotations.clone();
            annotations.extend(entry.tag.iter().map(|tag| (REF_NAME.to_owned(), tag.clone())));
            let (media_type, digest, rest) = (entry.media_type.clone(), entry.digest.clone(), entry.rest.clone());
            Entry { media_type, digest, size: entry.size, annotations, rest }
        };
        let manifests = self.entries.iter().map(entry).collect();
        let (media_type, rest) = (INDEX_MEDIA_TYPE.to_owned(), self.rest.clone());
        encode(&Index { schema_version: 2, media_type, manifests, rest })
    }

    /// Names a document with a tag, and nothing else with that tag any more.
    pub fn set(&mut self, entry: IndexEntry) {
        self.entries.retain(|other| other.tag != entry.tag);
        self.entries.push(entry);
    }

    /// Names a document without a tag, unless it has one or is named already.
    pub fn add(&mut self, entry: IndexEntry) {
        if !self.entries.iter().any(|other| other.digest == entry.digest) {
            self.entries.push(entry);
        }
    }
}

#[cfg(test)]
mod tests {
    use cas_digest::DigestFunction;

    use super::*;

    #[test]
    fn an_index_is_read_as_it_was_written() {
        let manifest = Descriptor::of(DigestFunction::Sha256, b"manifest");
        let entry = IndexEntry::new("v1", crate::MANIFEST_MEDIA_TYPE, &manifest);
        let mut index = LayoutIndex::default();
        index.set(entry.clone());
        let bytes = index.encode();
        assert_eq!(LayoutIndex::parse(&bytes).expect("it is one"), index);
        oci_spec::image::ImageIndex::from_reader(&bytes[..]).expect("the specification's library reads it");
        for wrong in ["", "{}", r#"{"schemaVersion":2}"#, r#"{"schemaVersion":2,"manifests":[]"#] {
            assert!(LayoutIndex::parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
        let empty = LayoutIndex::parse(br#"{"schemaVersion":2,"manifests":null}"#).expect("it is one of Go");
        assert_eq!(empty, LayoutIndex::default());
        let mut typed = LayoutIndex::default();
        typed.set(entry.of_type("a/b"));
        assert!(String::from_utf8_lossy(&typed.encode()).contains(r#""artifactType":"a/b""#));
    }

    #[test]
    fn what_others_said_of_their_entries_stays() {
        let theirs = r#"{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"sha256:aa","size":7,"annotations":{"a":"b","org.opencontainers.image.ref.name":"v2"},"artifactType":"x/y","platform":{"architecture":"arm64","os":"linux","os.features":["x"]},"urls":["u"]},{"mediaType":"application/x","digest":"sha512:bb","size":8}"#;
        let document = |own: &str| {
            format!(
                r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{theirs}{own}],"annotations":{{"c":"d"}},"artifactType":"x/z"}}"#
            )
        };
        let mut index = LayoutIndex::parse(document("").as_bytes()).expect("it is one");
        assert_eq!(index.entries[0].tag.as_deref(), Some("v2"));
        assert_eq!(String::from_utf8(index.encode()).expect("it is a text"), document(""));
        let manifest = Descriptor::of(DigestFunction::Sha256, b"manifest");
        index.set(IndexEntry::new("v1", "application/y", &manifest));
        let own = format!(
            r#",{{"mediaType":"application/y","digest":"{}","size":8,"annotations":{{"org.opencontainers.image.ref.name":"v1"}}}}"#,
            manifest.digest
        );
        assert_eq!(String::from_utf8(index.encode()).expect("it is a text"), document(&own));
    }
}
