//! Reading documents of others: manifests, indexes and configurations, of OCI and of Docker's schema 2.
//!
//! OCI image-spec 1.1, manifest.md, image-index.md, config.md; Docker "Image Manifest Version 2, Schema 2". A document is kept
//! as its bytes; what is read here is a view of it, and nobody writes it again from that.

use std::collections::BTreeMap;

use cas_blob::Descriptor;
use cas_digest::{Digest, DigestFunction};
use serde::Deserialize;

use crate::reference::digest_of;
use crate::{INDEX_MEDIA_TYPE, MANIFEST_MEDIA_TYPE, TargetPlatform};

/// Longest manifest, index or configuration that is read: what registries take.
pub const MAX_DOCUMENT_BYTES: u64 = 4 << 20;
/// More layers, or manifests of an index, than any image has.
const MAX_ITEMS: usize = 4096;
/// Docker's manifest.
pub const DOCKER_MANIFEST_MEDIA_TYPE: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker's index.
pub const DOCKER_INDEX_MEDIA_TYPE: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker's first manifest, which has no digests of configurations.
const DOCKER_SCHEMA_1: &str = "application/vnd.docker.distribution.manifest.v1";

/// What a document is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    /// One image.
    Manifest(Manifest),
    /// Images for several platforms.
    Index(Vec<IndexItem>),
}

/// The manifest of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The configuration.
    pub config: Descriptor,
    /// The layers, the lowest first.
    pub layers: Vec<LayerBlob>,
}

/// A layer of a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerBlob {
    /// Its media type, as the manifest has it.
    pub media_type: String,
    /// Its bytes as they are sent.
    pub blob: Descriptor,
    /// What the manifest tells of it beside that.
    pub annotations: BTreeMap<String, String>,
}

/// A manifest, or another index, that an index names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexItem {
    /// Its media type.
    pub media_type: String,
    /// The document.
    pub blob: Descriptor,
    /// What it is for, where that is told.
    pub platform: Option<TargetPlatform>,
    /// Its tag, in an image layout.
    pub tag: Option<String>,
    /// Whether it tells of another manifest, and is no image to run.
    pub is_attestation: bool,
}

/// What of a configuration matters to whoever unpacks the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigView {
    /// What the image is for.
    pub platform: TargetPlatform,
    /// Digests of the uncompressed layers.
    pub diff_ids: Vec<Digest>,
    /// Variables, `NAME=VALUE`.
    pub env: Vec<String>,
}

/// Why a document cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ParseDocumentError {
    /// It is not JSON of this shape.
    #[error("it is no {what}")]
    Syntax {
        /// What it was to be.
        what: &'static str,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// It says that it is something else.
    #[error("it has the media type `{media_type}`, which is no image")]
    MediaType {
        /// What it says.
        media_type: String,
    },
    /// It was made by an old Docker.
    #[error("it is a manifest of Docker's schema 1, which names nothing by its content")]
    Schema1,
    /// It can be read in two ways.
    #[error("it is a manifest and an index at once")]
    Ambiguous,
    /// A digest is not one.
    #[error("it names something by `{digest}`, which is no SHA-256 or SHA-512")]
    Digest {
        /// What it says.
        digest: String,
    },
    /// It names more than any image has.
    #[error("it names more than {MAX_ITEMS} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDocument {
    #[serde(default)]
    schema_version: u32,
    media_type: Option<String>,
    config: Option<RawDescriptor>,
    layers: Option<Vec<RawDescriptor>>,
    manifests: Option<Vec<RawDescriptor>>,
    fs_layers: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDescriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
    platform: Option<TargetPlatform>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

impl RawDescriptor {
    fn blob(&self) -> Result<Descriptor, ParseDocumentError> {
        let digest = digest_of(&self.digest);
        let digest = digest.ok_or_else(|| ParseDocumentError::Digest { digest: self.digest.clone() })?;
        Ok(Descriptor { digest, size: self.size })
    }
}

impl Document {
    /// Reads a document. `media_type` is what was said of it where it came from; its own word counts.
    ///
    /// # Errors
    ///
    /// [`ParseDocumentError`]
    pub fn parse(bytes: &[u8], media_type: Option<&str>) -> Result<Self, ParseDocumentError> {
        let raw: RawDocument =
            serde_json::from_slice(bytes).map_err(|source| ParseDocumentError::Syntax { what: "manifest", source })?;
        if raw.fs_layers.is_some() || raw.schema_version == 1 {
            return Err(ParseDocumentError::Schema1);
        }
        // A document with both would be one thing to some programs and another to others (CVE-2021-41190).
        if raw.manifests.is_some() && (raw.layers.is_some() || raw.config.is_some()) {
            return Err(ParseDocumentError::Ambiguous);
        }
        let media_type = raw.media_type.as_deref().or(media_type);
        let is_index = match media_type {
            Some(MANIFEST_MEDIA_TYPE | DOCKER_MANIFEST_MEDIA_TYPE) => false,
            Some(INDEX_MEDIA_TYPE | DOCKER_INDEX_MEDIA_TYPE) => true,
            Some(other) if other.starts_with(DOCKER_SCHEMA_1) => return Err(ParseDocumentError::Schema1),
            // Some servers and layouts do not know what they have.
            None | Some("" | "application/json" | "application/octet-stream" | "text/plain") => raw.manifests.is_some(),
            Some(other) => return Err(ParseDocumentError::MediaType { media_type: other.to_owned() }),
        };
        let missing = |field: &'static str, what| ParseDocumentError::Syntax {
            what,
            source: serde::de::Error::missing_field(field),
        };
        if is_index {
            let manifests = raw.manifests.ok_or_else(|| missing("manifests", "index"))?;
            return Ok(Self::Index(items(manifests, "manifests")?));
        }
        let config = raw.config.ok_or_else(|| missing("config", "manifest"))?.blob()?;
        let layers = raw.layers.ok_or_else(|| missing("layers", "manifest"))?;
        if layers.len() > MAX_ITEMS {
            return Err(ParseDocumentError::TooMany { what: "layers" });
        }
        let layer = |raw: RawDescriptor| {
            Ok(LayerBlob { blob: raw.blob()?, media_type: raw.media_type, annotations: raw.annotations })
        };
        Ok(Self::Manifest(Manifest { config, layers: layers.into_iter().map(layer).collect::<Result<_, _>>()? }))
    }
}

fn items(manifests: Vec<RawDescriptor>, what: &'static str) -> Result<Vec<IndexItem>, ParseDocumentError> {
    if manifests.len() > MAX_ITEMS {
        return Err(ParseDocumentError::TooMany { what });
    }
    let item = |raw: RawDescriptor| {
        let blob = raw.blob()?;
        let is_unknown = raw.platform.as_ref().is_some_and(|platform| platform.os == "unknown");
        // BuildKit's attestations stand in the index beside what they are of.
        let is_attestation = is_unknown || raw.annotations.contains_key("vnd.docker.reference.type");
        let tag = raw.annotations.get("org.opencontainers.image.ref.name").cloned();
        Ok(IndexItem { media_type: raw.media_type, blob, platform: raw.platform, tag, is_attestation })
    };
    manifests.into_iter().map(item).collect()
}

/// The image of an index for a platform: one of the same variant before one of none, before any.
#[must_use]
pub fn choose<'a>(items: &'a [IndexItem], platform: &TargetPlatform) -> Option<&'a IndexItem> {
    let rank = |item: &IndexItem| match &item.platform {
        _ if item.is_attestation => None,
        // It is the only one, or nobody can tell.
        None => (items.len() == 1).then_some(0),
        Some(found) if found.os != platform.os || found.architecture != platform.architecture => None,
        Some(found) if found.variant == platform.variant => Some(0),
        Some(found) if found.variant.is_empty() => Some(1),
        Some(_) => Some(2),
    };
    items.iter().filter_map(|item| Some((rank(item)?, item))).min_by_key(|(rank, _)| *rank).map(|(_, item)| item)
}

#[derive(Deserialize)]
struct RawConfig {
    architecture: String,
    os: String,
    #[serde(default)]
    variant: String,
    rootfs: RawRootFs,
    config: Option<RawExecution>,
}

#[derive(Deserialize)]
struct RawRootFs {
    #[serde(default)]
    diff_ids: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct RawExecution {
    #[serde(rename = "Env", default)]
    env: Option<Vec<String>>,
}

impl ConfigView {
    /// Reads a configuration.
    ///
    /// # Errors
    ///
    /// [`ParseDocumentError`]
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseDocumentError> {
        let raw: RawConfig = serde_json::from_slice(bytes)
            .map_err(|source| ParseDocumentError::Syntax { what: "configuration of an image", source })?;
        let platform = TargetPlatform { os: raw.os, architecture: raw.architecture, variant: raw.variant };
        let diff_ids = raw.rootfs.diff_ids.unwrap_or_default();
        if diff_ids.len() > MAX_ITEMS {
            return Err(ParseDocumentError::TooMany { what: "layers" });
        }
        let diff_id = |text: String| {
            let digest = digest_of(&text).filter(|digest| digest.function() == DigestFunction::Sha256);
            digest.ok_or(ParseDocumentError::Digest { digest: text })
        };
        let diff_ids = diff_ids.into_iter().map(diff_id).collect::<Result<_, _>>()?;
        Ok(Self { platform, diff_ids, env: raw.config.and_then(|config| config.env).unwrap_or_default() })
    }
}

/// An image of an archive that `docker save` wrote.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct SavedImage {
    /// File of its configuration.
    pub config: String,
    /// Its names.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub repo_tags: Vec<String>,
    /// Files of its layers, the lowest first.
    pub layers: Vec<String>,
}

fn null_is_empty<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Reads the `manifest.json` of such an archive.
///
/// # Errors
///
/// [`ParseDocumentError`]
pub fn parse_saved(bytes: &[u8]) -> Result<Vec<SavedImage>, ParseDocumentError> {
    let images: Vec<SavedImage> = serde_json::from_slice(bytes)
        .map_err(|source| ParseDocumentError::Syntax { what: "list of saved images", source })?;
    match images.iter().any(|image| image.layers.len() > MAX_ITEMS) {
        true => Err(ParseDocumentError::TooMany { what: "layers" }),
        false => Ok(images),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    fn document(text: &str) -> Result<Document, ParseDocumentError> {
        Document::parse(text.replace("DIGEST", DIGEST).as_bytes(), None)
    }

    #[test]
    fn documents_of_oci_and_docker_are_read() {
        let layer = r#"{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"DIGEST","size":7,"urls":["https://x"]}"#;
        for media_type in [MANIFEST_MEDIA_TYPE, DOCKER_MANIFEST_MEDIA_TYPE] {
            let text = format!(
                r#"{{"schemaVersion":2,"mediaType":"{media_type}","config":{{"digest":"DIGEST","size":3}},"layers":[{layer}],"x":1}}"#
            );
            let Document::Manifest(manifest) = document(&text).expect("it is one") else { panic!("{text}") };
            assert_eq!((manifest.config.size, manifest.layers[0].blob.size), (3, 7));
        }
        let platform = |os: &str, architecture: &str, more: &str| {
            format!(
                r#"{{"digest":"DIGEST","size":7,"platform":{{"os":"{os}","architecture":"{architecture}"{more}}}}}"#
            )
        };
        let manifests = [
            platform("unknown", "unknown", ""),
            platform("linux", "arm64", r#","variant":"v9""#),
            platform("linux", "arm64", r#","variant":"v8""#),
            platform("linux", "arm64", ""),
            platform("windows", "amd64", r#","os.version":"10""#),
            platform("linux", "amd64", ""),
        ];
        let text = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, manifests.join(","));
        let Document::Index(items) = document(&text).expect("it is one") else { panic!("{text}") };
        let chosen = |architecture: &str, variant: &str| {
            let platform =
                TargetPlatform { os: "linux".into(), architecture: architecture.into(), variant: variant.into() };
            choose(&items, &platform).map(|chosen| items.iter().position(|item| std::ptr::eq(item, chosen)))
        };
        assert_eq!(chosen("amd64", ""), Some(Some(5)));
        assert_eq!(chosen("arm64", "v8"), Some(Some(2)));
        assert_eq!(chosen("arm64", "v7"), Some(Some(3)));
        assert_eq!(chosen("riscv64", ""), None);
        assert_eq!(
            choose(
                &items[..1],
                &TargetPlatform { os: "unknown".into(), architecture: "unknown".into(), variant: String::new() }
            ),
            None
        );
    }

    #[test]
    fn what_is_no_image_is_an_error() {
        for (text, expected) in [
            ("[]", "it is no manifest"),
            ("{}", "it is no manifest"),
            (r#"{"schemaVersion":1}"#, "it is a manifest of Docker's schema 1, which names nothing by its content"),
            (
                r#"{"schemaVersion":2,"fsLayers":[]}"#,
                "it is a manifest of Docker's schema 1, which names nothing by its content",
            ),
            (r#"{"manifests":[],"layers":[]}"#, "it is a manifest and an index at once"),
            (r#"{"manifests":[],"manifests":[]}"#, "it is no manifest"),
            (r#"{"mediaType":"text/html"}"#, "it has the media type `text/html`, which is no image"),
            (r#"{"config":{"digest":"DIGEST","size":-1},"layers":[]}"#, "it is no manifest"),
            (
                r#"{"config":{"digest":"md5:aa","size":1},"layers":[]}"#,
                "it names something by `md5:aa`, which is no SHA-256 or SHA-512",
            ),
            (
                r#"{"config":{"digest":"sha256:aa","size":1},"layers":[]}"#,
                "it names something by `sha256:aa`, which is no SHA-256 or SHA-512",
            ),
            (
                r#"{"mediaType":"application/vnd.oci.image.index.v1+json","config":{"digest":"DIGEST","size":1},"layers":[]}"#,
                "it is no index",
            ),
        ] {
            assert_eq!(document(text).expect_err(text).to_string(), expected, "{text}");
        }
        let many = format!(r#"{{"manifests":[{}]}}"#, vec![r#"{"digest":"DIGEST","size":1}"#; 4097].join(","));
        assert_eq!(document(&many).expect_err("they are many").to_string(), "it names more than 4096 manifests");
    }

    #[test]
    fn configurations_and_saved_images_are_read() {
        let text = format!(
            r#"{{"architecture":"arm64","os":"linux","variant":"v8","config":{{"Env":["A=1"]}},"rootfs":{{"type":"layers","diff_ids":["{DIGEST}"]}}}}"#
        );
        let config = ConfigView::parse(text.as_bytes()).expect("it is one");
        assert_eq!((config.platform.to_string().as_str(), config.env), ("linux/arm64/v8", vec!["A=1".to_owned()]));
        assert_eq!(config.diff_ids[0].to_string(), DIGEST);
        assert!(ConfigView::parse(br#"{"architecture":"a","os":"linux"}"#).is_err());
        let none = br#"{"architecture":"a","os":"linux","rootfs":{"type":"layers","diff_ids":null},"config":null}"#;
        assert_eq!(ConfigView::parse(none).expect("it has none").diff_ids, []);
        let saved =
            parse_saved(br#"[{"Config":"a.json","RepoTags":null,"Layers":["b/layer.tar"]}]"#).expect("it is one");
        assert_eq!((saved[0].repo_tags.len(), &*saved[0].layers[0]), (0, "b/layer.tar"));
    }
}
