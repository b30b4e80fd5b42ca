//! Configuration and manifest (OCI image-spec 1.1, config.md and manifest.md).

use std::collections::BTreeMap;

use cas_blob::Descriptor;
use serde::Serialize;

use crate::{CONFIG_MEDIA_TYPE, CREATED, MANIFEST_MEDIA_TYPE};

/// What an image runs, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageConfig {
    /// User and perhaps group, by name or number.
    pub user: Option<String>,
    /// Ports, as `3000/tcp`.
    pub exposed_ports: Vec<String>,
    /// Variables.
    pub env: BTreeMap<String, String>,
    /// Program and first arguments.
    pub entrypoint: Vec<String>,
    /// Further arguments, or the program.
    pub cmd: Vec<String>,
    /// Absolute path.
    pub working_dir: Option<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// When it was made, as RFC 3339 has it; `None` for the constant of all that has no time.
    pub created: Option<String>,
}

/// What an image runs on, in Go's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    /// Like `amd64`.
    pub architecture: String,
    /// Like `linux`.
    pub os: String,
}

/// How a layer is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the formats' own names")]
pub enum LayerKind {
    Plain,
    Gzip,
    Zstd,
}

impl LayerKind {
    /// The kind that a media type of ours tells.
    #[must_use]
    pub fn of(media_type: &str) -> Option<Self> {
        [Self::Plain, Self::Gzip, Self::Zstd].into_iter().find(|kind| kind.media_type() == media_type)
    }

    /// The layer's media type (layer.md).
    #[must_use]
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Plain => "application/vnd.oci.image.layer.v1.tar",
            Self::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }
}

/// A layer as a manifest and a configuration name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerReference {
    /// How it is compressed.
    pub kind: LayerKind,
    /// The compressed bytes, named by SHA-256.
    pub blob: Descriptor,
    /// The uncompressed bytes: the diffID, a SHA-256.
    pub diff_id: cas_digest::Digest,
    /// What made it, for people.
    pub created_by: String,
    /// What its descriptor tells beside that, as where a table of contents is.
    pub annotations: BTreeMap<String, String>,
}

#[derive(Serialize)]
struct Config<'a> {
    created: &'a str,
    architecture: &'a str,
    os: &'a str,
    config: Execution<'a>,
    rootfs: RootFs,
    history: Vec<History<'a>>,
}

/// Go's field names, upper case as Docker had them.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Execution<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    exposed_ports: BTreeMap<&'a str, Empty>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    env: Vec<String>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    entrypoint: &'a [String],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    cmd: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    working_dir: Option<&'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: &'a BTreeMap<String, String>,
}

#[derive(Serialize)]
struct Empty {}

#[derive(Serialize)]
struct RootFs {
    #[serde(rename = "type")]
    kind: &'static str,
    diff_ids: Vec<String>,
}

#[derive(Serialize)]
struct History<'a> {
    created: &'a str,
    created_by: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Manifest<'a> {
    schema_version: u32,
    media_type: &'static str,
    config: Reference<'a>,
    layers: Vec<Reference<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Reference<'a> {
    pub(crate) media_type: &'static str,
    pub(crate) digest: String,
    pub(crate) size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) annotations: Option<&'a BTreeMap<String, String>>,
}

impl<'a> Reference<'a> {
    pub(crate) fn new(media_type: &'static str, blob: &Descriptor) -> Self {
        Self { media_type, digest: blob.digest.to_string(), size: blob.size, annotations: None }
    }

    fn layer(layer: &'a LayerReference) -> Self {
        let annotations = Some(&layer.annotations).filter(|annotations| !annotations.is_empty());
        Self { annotations, ..Self::new(layer.kind.media_type(), &layer.blob) }
    }
}

/// The bytes of a configuration.
#[must_use]
pub fn encode_config(platform: &Platform, config: &ImageConfig, layers: &[LayerReference]) -> Vec<u8> {
    encode(&Config {
        created: config.created.as_deref().unwrap_or(CREATED),
        architecture: &platform.architecture,
        os: &platform.os,
        config: Execution {
            user: config.user.as_deref(),
            exposed_ports: config.exposed_ports.iter().map(|port| (port.as_str(), Empty {})).collect(),
            env: config.env.iter().map(|(name, value)| format!("{name}={value}")).collect(),
            entrypoint: &config.entrypoint,
            cmd: &config.cmd,
            working_dir: config.working_dir.as_deref(),
            labels: &config.labels,
        },
        rootfs: RootFs { kind: "layers", diff_ids: layers.iter().map(|layer| layer.diff_id.to_string()).collect() },
        history: layers.iter().map(|layer| History { created: CREATED, created_by: &layer.created_by }).collect(),
    })
}

/// The bytes of a manifest.
#[must_use]
pub fn encode_manifest(config: &Descriptor, layers: &[LayerReference]) -> Vec<u8> {
    encode(&Manifest {
        schema_version: 2,
        media_type: MANIFEST_MEDIA_TYPE,
        config: Reference::new(CONFIG_MEDIA_TYPE, config),
        layers: layers.iter().map(Reference::layer).collect(),
    })
}

pub(crate) fn encode(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("strings and numbers in structs always have JSON")
}

#[cfg(test)]
mod tests {
    use cas_digest::{Digest, DigestFunction};

    use super::*;

    /// The bytes are a contract, and the specification's own library must read them.
    #[test]
    fn documents_have_one_form_that_others_read() {
        let blob = Descriptor::of(DigestFunction::Sha256, b"layer");
        let layer = LayerReference {
            kind: LayerKind::Zstd,
            blob,
            diff_id: Digest::of(DigestFunction::Sha256, b"tar"),
            created_by: "cas //:web".to_owned(),
            annotations: BTreeMap::from([("a.b".to_owned(), "1".to_owned())]),
        };
        let platform = Platform { architecture: "amd64".to_owned(), os: "linux".to_owned() };
        let config = ImageConfig {
            exposed_ports: vec!["80/tcp".to_owned()],
            env: BTreeMap::from([("B".to_owned(), "2".to_owned()), ("A".to_owned(), "1".to_owned())]),
            entrypoint: vec!["node".to_owned()],
            ..ImageConfig::default()
        };
        let bytes = encode_config(&platform, &config, std::slice::from_ref(&layer));
        assert_eq!(
            String::from_utf8_lossy(&bytes),
            format!(
                r#"{{"created":"1985-10-26T08:15:00Z","architecture":"amd64","os":"linux","config":{{"ExposedPorts":{{"80/tcp":{{}}}},"Env":["A=1","B=2"],"Entrypoint":["node"]}},"rootfs":{{"type":"layers","diff_ids":["{}"]}},"history":[{{"created":"1985-10-26T08:15:00Z","created_by":"cas //:web"}}]}}"#,
                layer.diff_id
            )
        );
        let parsed = oci_spec::image::ImageConfiguration::from_reader(&bytes[..]).expect("the library reads it");
        assert_eq!(parsed.rootfs().diff_ids(), &[layer.diff_id.to_string()]);
        let manifest = encode_manifest(&Descriptor::of(DigestFunction::Sha256, &bytes), &[layer]);
        let parsed = oci_spec::image::ImageManifest::from_reader(&manifest[..]).expect("the library reads it");
        assert_eq!(parsed.layers()[0].media_type(), &oci_spec::image::MediaType::ImageLayerZstd);
        assert_eq!(parsed.layers()[0].size(), blob.size);
        assert_eq!(parsed.layers()[0].annotations().as_ref().and_then(|all| all.get("a.b")), Some(&"1".to_owned()));
    }
}
