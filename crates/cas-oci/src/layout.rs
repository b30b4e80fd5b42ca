//! The image layout on disk (OCI image-spec 1.1, image-layout.md): its index.

use cas_blob::Descriptor;
use serde::{Deserialize, Serialize};

use crate::image::encode;
use crate::{INDEX_MEDIA_TYPE, MANIFEST_MEDIA_TYPE};

/// Content of the file `oci-layout`.
pub const LAYOUT_FILE: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// Annotation that holds the tag.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// A manifest that an index names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// Its tag.
    pub tag: Option<String>,
    /// Digest, as text, and size.
    pub digest: String,
    /// Size in bytes.
    pub size: u64,
}

impl IndexEntry {
    /// Names a manifest with a tag.
    #[must_use]
    pub fn new(tag: &str, manifest: &Descriptor) -> Self {
        Self { tag: Some(tag.to_owned()), digest: manifest.digest.to_string(), size: manifest.size }
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
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    annotations: std::collections::BTreeMap<String, String>,
}

/// The bytes of `index.json`.
#[must_use]
pub fn encode_index(entries: &[IndexEntry]) -> Vec<u8> {
    let manifests = entries
        .iter()
        .map(|entry| Entry {
            media_type: MANIFEST_MEDIA_TYPE.to_owned(),
            digest: entry.digest.clone(),
            size: entry.size,
            annotations: entry.tag.iter().map(|tag| (REF_NAME.to_owned(), tag.clone())).collect(),
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
    let entry = |entry: Entry| IndexEntry {
        tag: entry.annotations.get(REF_NAME).cloned(),
        digest: entry.digest,
        size: entry.size,
    };
    Ok(index.manifests.into_iter().map(entry).collect())
}

#[cfg(test)]
mod tests {
    use cas_digest::DigestFunction;

    use super::*;

    #[test]
    fn an_index_is_read_as_it_was_written() {
        let entry = IndexEntry::new("v1", &Descriptor::of(DigestFunction::Sha256, b"manifest"));
        let bytes = encode_index(std::slice::from_ref(&entry));
        assert_eq!(parse_index(&bytes).expect("it is one"), [entry]);
        oci_spec::image::ImageIndex::from_reader(&bytes[..]).expect("the specification's library reads it");
        assert!(parse_index(b"{}").is_err());
    }
}
