//! Reading documents of others: manifests, indexes and configurations, of OCI and of Docker's schema 2.
//!
//! OCI image-spec 1.1, manifest.md, image-index.md, config.md; Docker "Image Manifest Version 2, Schema 2". A document is kept
//! as its bytes; what is read here is a view of it, and nobody writes it again from that.

use std::collections::BTreeMap;

use cas_blob::Descriptor;
use cas_digest::{Digest, DigestFunction};
use serde::Deserialize;

use crate::json::{self, Object};
use crate::platform::Fitness;
use crate::reference::digest_of;
use crate::{INDEX_MEDIA_TYPE, ImageFormat, MANIFEST_MEDIA_TYPE, TargetPlatform};

/// Longest manifest, index or configuration that is read: what registries take.
pub const MAX_DOCUMENT_BYTES: u64 = 4 << 20;
/// More layers, or manifests of an index, than any image has.
const MAX_ITEMS: usize = 4096;
/// How much of a text of a document is shown.
const SHOWN_CHARACTERS: usize = 200;
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
    /// Variables.
    pub env: BTreeMap<String, String>,
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
    /// It is nested deeper than any document.
    #[error("it is nested more than {limit} deep")]
    Deep {
        /// How deep it may be.
        limit: usize,
    },
    /// It says that it is something else.
    #[error("it has the media type `{media_type}`, which is no image")]
    MediaType {
        /// What it says.
        media_type: String,
    },
    /// It is of files that are no image.
    #[error("it is an artifact of the type `{artifact_type}`, and no image")]
    Artifact {
        /// What it says that it is, with control characters shown as what they are.
        artifact_type: String,
    },
    /// It was made by an old Docker.
    #[error("it is a manifest of Docker's schema 1, which names nothing by its content")]
    Schema1,
    /// It can be read in two ways.
    #[error("it is a manifest and an index at once")]
    Ambiguous,
    /// Its media type is another one than what names it says.
    #[error("it was named as `{named}`, and says that it is `{media_type}`")]
    Disagrees {
        /// What names it says.
        named: String,
        /// What it says.
        media_type: String,
    },
    /// Its platform is none.
    #[error("it is for `{platform}`, which is no platform")]
    Platform {
        /// What it says, with control characters shown as what they are.
        platform: String,
    },
    /// No program can be given such a text.
    #[error("its `{field}` holds a NUL byte")]
    Nul {
        /// Where.
        field: &'static str,
    },
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
    artifact_type: Option<String>,
    config: Option<Object<RawDescriptor>>,
    layers: Option<Vec<Object<RawDescriptor>>>,
    manifests: Option<Vec<Object<RawDescriptor>>>,
    fs_layers: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDescriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
    platform: Option<Object<TargetPlatform>>,
    #[serde(default, deserialize_with = "null_is_default")]
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
    /// Reads a document. `media_type` is what was said of it where it came from; its own word counts, but where one of them is of
    /// an index and the other of a manifest, nobody knows what was meant (CVE-2021-41190).
    ///
    /// # Errors
    ///
    /// [`ParseDocumentError`]
    pub fn parse(bytes: &[u8], media_type: Option<&str>) -> Result<Self, ParseDocumentError> {
        let Object(raw): Object<RawDocument> = json::read(bytes, "manifest")?;
        if raw.fs_layers.is_some() || raw.schema_version == 1 {
            return Err(ParseDocumentError::Schema1);
        }
        // A document with both would be one thing to some programs and another to others (CVE-2021-41190).
        if raw.manifests.is_some() && (raw.layers.is_some() || raw.config.is_some()) {
            return Err(ParseDocumentError::Ambiguous);
        }
        if let (Some(own), Some(named)) = (raw.media_type.as_deref(), media_type)
            && let (Some(is_index), Some(is_named_index)) = (is_index(own), is_index(named))
            && is_index != is_named_index
        {
            let (named, media_type) = (named.to_owned(), own.to_owned());
            return Err(ParseDocumentError::Disagrees { named, media_type });
        }
        let media_type = raw.media_type.as_deref().or(media_type);
        let is_index = match (media_type.and_then(is_index), media_type) {
            (Some(is_index), _) => is_index,
            (_, Some(other)) if is_schema_1(other) => return Err(ParseDocumentError::Schema1),
            // Some servers and layouts do not know what they have.
            (_, None | Some("" | "application/json" | "application/octet-stream" | "text/plain")) => {
                raw.manifests.is_some()
            }
            (_, Some(other)) => return Err(ParseDocumentError::MediaType { media_type: other.to_owned() }),
        };
        let missing = |field: &'static str, what| ParseDocumentError::Syntax {
            what,
            source: serde::de::Error::missing_field(field),
        };
        if is_index {
            let manifests = raw.manifests.ok_or_else(|| missing("manifests", "index"))?;
            return Ok(Self::Index(items(manifests, "manifests")?));
        }
        let config = raw.config.ok_or_else(|| missing("config", "manifest"))?.0;
        if let Some(artifact_type) = raw.artifact_type.filter(|text| !text.is_empty() && !is_config(&config.media_type))
        {
            let artifact_type = artifact_type.chars().take(SHOWN_CHARACTERS).collect::<String>();
            let artifact_type = artifact_type.escape_debug().to_string();
            return Err(ParseDocumentError::Artifact { artifact_type });
        }
        let config = config.blob()?;
        let layers = raw.layers.ok_or_else(|| missing("layers", "manifest"))?;
        if layers.len() > MAX_ITEMS {
            return Err(ParseDocumentError::TooMany { what: "layers" });
        }
        let layer = |Object(raw): Object<RawDescriptor>| {
            Ok(LayerBlob { blob: raw.blob()?, media_type: raw.media_type, annotations: raw.annotations })
        };
        Ok(Self::Manifest(Manifest { config, layers: layers.into_iter().map(layer).collect::<Result<_, _>>()? }))
    }
}

/// Whether a media type is of the configuration of an image.
pub(crate) fn is_config(media_type: &str) -> bool {
    [ImageFormat::Oci, ImageFormat::Docker].iter().any(|format| format.config_media_type() == media_type)
}

/// Whether a media type is of Docker's first manifest.
pub(crate) fn is_schema_1(media_type: &str) -> bool {
    media_type.starts_with(DOCKER_SCHEMA_1)
}

/// Whether a media type is of an index; `None` for what is neither that nor a manifest.
pub(crate) fn is_index(media_type: &str) -> Option<bool> {
    match media_type {
        MANIFEST_MEDIA_TYPE | DOCKER_MANIFEST_MEDIA_TYPE => Some(false),
        INDEX_MEDIA_TYPE | DOCKER_INDEX_MEDIA_TYPE => Some(true),
        _ => None,
    }
}

fn items(manifests: Vec<Object<RawDescriptor>>, what: &'static str) -> Result<Vec<IndexItem>, ParseDocumentError> {
    if manifests.len() > MAX_ITEMS {
        return Err(ParseDocumentError::TooMany { what });
    }
    let item = |Object(raw): Object<RawDescriptor>| {
        let blob = raw.blob()?;
        let platform = raw.platform.map(|platform| platform.0);
        let is_unknown = platform.as_ref().is_some_and(|platform| platform.os == "unknown");
        // BuildKit's attestations stand in the index beside what they are of.
        let is_attestation = is_unknown || raw.annotations.contains_key("vnd.docker.reference.type");
        let tag = raw.annotations.get("org.opencontainers.image.ref.name").cloned();
        Ok(IndexItem { media_type: raw.media_type, blob, platform, tag, is_attestation })
    };
    manifests.into_iter().map(item).collect()
}

/// The image of an index for a platform: the one of the highest variant that is not higher than that of the platform, and of
/// equal ones the first. No variant is the one that its architecture begins with, or `v7` of `arm`.
#[must_use]
pub fn choose<'a>(items: &'a [IndexItem], platform: &TargetPlatform) -> Option<&'a IndexItem> {
    let fitness = |item: &IndexItem| match &item.platform {
        _ if item.is_attestation => None,
        // It is the only one, or nobody can tell.
        None => (items.len() == 1).then_some(Fitness::Same),
        Some(found) => found.fitness(platform),
    };
    // The last of equal ones is the greatest for `max_by_key`.
    let fitting = items.iter().rev().filter_map(|item| Some((fitness(item)?, item)));
    fitting.max_by_key(|(fitness, _)| *fitness).map(|(_, item)| item)
}

#[derive(Deserialize)]
struct RawConfig {
    architecture: String,
    os: String,
    #[serde(default, deserialize_with = "null_is_default")]
    variant: String,
    rootfs: Object<RawRootFs>,
    config: Option<Object<RawExecution>>,
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
        let Object(raw): Object<RawConfig> = json::read(bytes, "configuration of an image")?;
        let platform = TargetPlatform { os: raw.os, architecture: raw.architecture, variant: raw.variant };
        if !platform.is_plain() {
            let platform = platform.to_string().chars().take(SHOWN_CHARACTERS).collect::<String>();
            return Err(ParseDocumentError::Platform { platform: platform.escape_debug().to_string() });
        }
        let diff_ids = raw.rootfs.0.diff_ids.unwrap_or_default();
        if diff_ids.len() > MAX_ITEMS {
            return Err(ParseDocumentError::TooMany { what: "layers" });
        }
        let diff_id = |text: String| {
            let digest = digest_of(&text).filter(|digest| digest.function() == DigestFunction::Sha256);
            digest.ok_or(ParseDocumentError::Digest { digest: text })
        };
        let diff_ids = diff_ids.into_iter().map(diff_id).collect::<Result<_, _>>()?;
        let env = raw.config.and_then(|config| config.0.env).unwrap_or_default();
        without_nul("Env", &env)?;
        Ok(Self { platform, diff_ids, env: variables(&env) })
    }
}

/// The variables of texts `NAME=VALUE`; of those with one name the last. Others are left out, as when a program starts with them.
pub(crate) fn variables(texts: &[String]) -> BTreeMap<String, String> {
    let pairs = texts.iter().filter_map(|text| text.split_once('=')).filter(|(name, _)| !name.is_empty());
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Fails where a text would end early for the system.
pub(crate) fn without_nul<'a>(
    field: &'static str,
    texts: impl IntoIterator<Item = &'a String>,
) -> Result<(), ParseDocumentError> {
    match texts.into_iter().any(|text| text.contains('\0')) {
        true => Err(ParseDocumentError::Nul { field }),
        false => Ok(()),
    }
}

/// An image of an archive that `docker save` wrote.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct SavedImage {
    /// File of its configuration.
    pub config: String,
    /// Its names.
    #[serde(default, deserialize_with = "null_is_default")]
    pub repo_tags: Vec<String>,
    /// Files of its layers, the lowest first.
    pub layers: Vec<String>,
}

pub(crate) fn null_is_default<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: Default + Deserialize<'de>,
    D: serde::Deserializer<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Reads the `manifest.json` of such an archive.
///
/// # Errors
///
/// [`ParseDocumentError`]
pub fn parse_saved(bytes: &[u8]) -> Result<Vec<SavedImage>, ParseDocumentError> {
    let images: Vec<Object<SavedImage>> = json::read(bytes, "list of saved images")?;
    let images: Vec<SavedImage> = images.into_iter().map(|image| image.0).collect();
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
            platform("linux", "arm", r#","variant":"v5""#),
            platform("linux", "arm", ""),
            platform("linux", "arm", r#","variant":"v6""#),
            platform("linux", "riscv64", r#","variant":"rva22u64""#),
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
        for (architecture, variant, expected) in [
            ("amd64", "", Some(9)),
            ("amd64", "v1", Some(9)),
            ("amd64", "v3", Some(9)),
            // The first of the two that mean the same.
            ("arm64", "", Some(2)),
            ("arm64", "v8", Some(2)),
            ("arm64", "v8.2", Some(2)),
            ("arm64", "v9", Some(1)),
            ("arm64", "v7", None),
            // None is `v7`; what is higher runs nowhere below.
            ("arm", "v5", Some(4)),
            ("arm", "v6", Some(6)),
            ("arm", "v7", Some(5)),
            ("arm", "", Some(5)),
            ("arm", "v8", Some(5)),
            ("arm", "v4", None),
            ("riscv64", "", None),
            ("riscv64", "rva22u64", Some(7)),
            ("riscv64", "rva23u64", None),
        ] {
            assert_eq!(chosen(architecture, variant), expected.map(Some), "{architecture} {variant}");
        }
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
            (r#"[2,null,{"digest":"DIGEST","size":1},[],null,null]"#, "it is no manifest"),
            (r#"{"config":["","DIGEST",1,null,{}],"layers":[]}"#, "it is no manifest"),
            (r#"{"config":{"digest":"DIGEST","size":1},"layers":[["","DIGEST",1,null,{}]]}"#, "it is no manifest"),
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
            (
                r#"{"artifactType":"a/b\u001b","config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":"DIGEST","size":2},"layers":[]}"#,
                "it is an artifact of the type `a/b\\u{1b}`, and no image",
            ),
        ] {
            assert_eq!(document(text).expect_err(text).to_string(), expected, "{text}");
        }
        let many = format!(r#"{{"manifests":[{}]}}"#, vec![r#"{"digest":"DIGEST","size":1}"#; 4097].join(","));
        assert_eq!(document(&many).expect_err("they are many").to_string(), "it names more than 4096 manifests");
    }

    /// BuildKit's attestations are such images.
    #[test]
    fn an_image_may_have_an_artifact_type() {
        let config = r#"{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"DIGEST","size":2}"#;
        let text = format!(r#"{{"artifactType":"a/b","config":{config},"layers":[]}}"#);
        assert!(matches!(document(&text), Ok(Document::Manifest(_))));
    }

    #[test]
    fn configurations_and_saved_images_are_read() {
        let text = format!(
            r#"{{"architecture":"arm64","os":"linux","variant":"v8","config":{{"Env":["A=1"]}},"rootfs":{{"type":"layers","diff_ids":["{DIGEST}"]}}}}"#
        );
        let config = ConfigView::parse(text.as_bytes()).expect("it is one");
        assert_eq!(
            (config.platform.to_string().as_str(), config.env),
            ("linux/arm64/v8", BTreeMap::from([("A".to_owned(), "1".to_owned())]))
        );
        assert_eq!(config.diff_ids[0].to_string(), DIGEST);
        assert!(ConfigView::parse(br#"{"architecture":"a","os":"linux"}"#).is_err());
        let none = br#"{"architecture":"a","os":"linux","rootfs":{"type":"layers","diff_ids":null},"config":null}"#;
        assert_eq!(ConfigView::parse(none).expect("it has none").diff_ids, []);
        let saved =
            parse_saved(br#"[{"Config":"a.json","RepoTags":null,"Layers":["b/layer.tar"]}]"#).expect("it is one");
        assert_eq!((saved[0].repo_tags.len(), &*saved[0].layers[0]), (0, "b/layer.tar"));
    }
}
