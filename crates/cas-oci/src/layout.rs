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

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    schema_version: u32,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    media_type: String,
    manifests: Vec<Entry>,
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

/// The bytes of `index.json`. What was read of others is written again as it was said, in this form.
#[must_use]
pub fn encode_index(entries: &[IndexEntry]) -> Vec<u8> {
    let manifests = entries
        .iter()
        .map(|entry| {
            let mut annotations = entry.annotations.clone();
            annotations.extend(entry.tag.iter().map(|tag| (REF_NAME.to_owned(), tag.clone())));
            let (media_type, digest, rest) = (entry.media_type.clone(), entry.digest.clone(), entry.rest.clone());
            Entry { media_type, digest, size: entry.size, annotations, rest }
        })
        .collect();
    encode(&Index { schema_version: 2, media_type: INDEX_MEDIA_TYPE.to_owned(), manifests })
}

/// Reads an `index.json`, for adding to it.
///
/// # Errors
///
/// [`ParseIndexError`]
pub fn parse_index(bytes: &[u8]) -> Result<Vec<IndexEntry>, ParseIndexError> {
    let index: Index = serde_json::from_slice(bytes)?;
    let entry = |mut entry: Entry| IndexEntry {
        tag: entry.annotations.remove(REF_NAME),
        media_type: entry.media_type,
        digest: entry.digest,
        size: entry.size,
        rest: entry.rest,
        annotations: entry.annotations,
    };
    Ok(index.manifests.into_iter().map(entry).collect())
}

#[cfg(test)]
mod tests {
    use cas_digest::DigestFunction;

    use super::*;

    #[test]
    fn an_index_is_read_as_it_was_written() {
        let manifest = Descriptor::of(DigestFunction::Sha256, b"manifest");
        let entry = IndexEntry::new("v1", crate::MANIFEST_MEDIA_TYPE, &manifest);
        let bytes = encode_index(std::slice::from_ref(&entry));
        assert_eq!(parse_index(&bytes).expect("it is one"), std::slice::from_ref(&entry));
        oci_spec::image::ImageIndex::from_reader(&bytes[..]).expect("the specification's library reads it");
        assert!(parse_index(b"{}").is_err());
        let typed = encode_index(&[entry.of_type("a/b")]);
        assert!(String::from_utf8_lossy(&typed).contains(r#""artifactType":"a/b""#));
    }

    #[test]
    fn what_others_said_of_their_entries_stays() {
        let text = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"sha256:aa","size":7,"annotations":{"a":"b","org.opencontainers.image.ref.name":"v2"},"artifactType":"x/y","platform":{"architecture":"arm64","os":"linux"}}]}"#;
        let entries = parse_index(text.as_bytes()).expect("it is one");
        assert_eq!(entries[0].tag.as_deref(), Some("v2"));
        assert_eq!(String::from_utf8(encode_index(&entries)).expect("it is a text"), text);
    }
}
