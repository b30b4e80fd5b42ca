//! Configuration and manifest (OCI image-spec 1.1, config.md and manifest.md).

use std::collections::BTreeMap;

use cas_blob::Descriptor;
use serde::Serialize;

use crate::{
    CONFIG_MEDIA_TYPE, CREATED, DOCKER_INDEX_MEDIA_TYPE, DOCKER_MANIFEST_MEDIA_TYPE, HistoryEntry, INDEX_MEDIA_TYPE,
    MANIFEST_MEDIA_TYPE, TargetPlatform,
};

/// What an image runs, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageConfig {
    /// User and perhaps group, by name or number.
    pub user: Option<String>,
    /// Ports, as `3000/tcp`.
    pub exposed_ports: Vec<String>,
    /// Variables.
    pub env: BTreeMap<String, String>,
    /// Program and first arguments; `None` where it is not said, an empty list where there is to be none.
    pub entrypoint: Option<Vec<String>>,
    /// Further arguments, or the program; as for `entrypoint`.
    pub cmd: Option<Vec<String>>,
    /// Absolute paths of folders whose content outlives a container.
    pub volumes: Vec<String>,
    /// Absolute path.
    pub working_dir: Option<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// What a container is ended with, as `SIGTERM`.
    pub stop_signal: Option<String>,
    /// How a container is asked whether it works.
    pub healthcheck: Option<Healthcheck>,
    /// When it was made, as RFC 3339 has it; `None` for the constant of all that has no time.
    pub created: Option<String>,
}

/// How a container is asked whether it works. Docker's, not OCI's: the specification reserves the field and gives it no meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Healthcheck {
    /// `CMD` with a program and its arguments, `CMD-SHELL` with a text for the shell, or `NONE`.
    pub test: Vec<String>,
    /// Nanoseconds between two of them; zero for the default, here and below.
    pub interval_ns: u64,
    /// Nanoseconds after which one has failed.
    pub timeout_ns: u64,
    /// Nanoseconds at the beginning in which failures do not count.
    pub start_period_ns: u64,
    /// Nanoseconds between two of them at the beginning.
    pub start_interval_ns: u64,
    /// How many must fail, one after the other.
    pub retries: u64,
}

/// Whose documents an image has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ImageFormat {
    /// OCI's, of image-spec 1.1.
    #[default]
    Oci,
    /// Docker's "Image Manifest Version 2, Schema 2", which has no annotations and no zstd.
    Docker,
}

impl ImageFormat {
    /// Media type of a manifest.
    #[must_use]
    pub const fn manifest_media_type(self) -> &'static str {
        match self {
            Self::Oci => MANIFEST_MEDIA_TYPE,
            Self::Docker => DOCKER_MANIFEST_MEDIA_TYPE,
        }
    }

    /// Media type of an index over several manifests.
    #[must_use]
    pub const fn index_media_type(self) -> &'static str {
        match self {
            Self::Oci => INDEX_MEDIA_TYPE,
            Self::Docker => DOCKER_INDEX_MEDIA_TYPE,
        }
    }

    /// Media type of a configuration.
    #[must_use]
    pub const fn config_media_type(self) -> &'static str {
        match self {
            Self::Oci => CONFIG_MEDIA_TYPE,
            Self::Docker => "application/vnd.docker.container.image.v1+json",
        }
    }

    /// Media type of a layer; `None` for one that the format cannot tell.
    #[must_use]
    pub const fn layer_media_type(self, kind: LayerKind) -> Option<&'static str> {
        match (self, kind) {
            (Self::Oci, kind) => Some(kind.media_type()),
            (Self::Docker, LayerKind::Plain) => Some("application/vnd.docker.image.rootfs.diff.tar"),
            (Self::Docker, LayerKind::Gzip) => Some("application/vnd.docker.image.rootfs.diff.tar.gzip"),
            (Self::Docker, LayerKind::Zstd) => None,
        }
    }
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
    #[serde(skip_serializing_if = "str::is_empty")]
    variant: &'a str,
    config: Execution<'a>,
    rootfs: RootFs,
    history: Vec<HistoryEntry>,
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
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    volumes: BTreeMap<&'a str, Empty>,
    #[serde(skip_serializing_if = "Option::is_none")]
    working_dir: Option<&'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_signal: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    healthcheck: Option<Check<'a>>,
}

/// Times are nanoseconds; zero is the engine's default and left out, as Docker does.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Check<'a> {
    test: &'a [String],
    #[serde(skip_serializing_if = "is_zero")]
    interval: u64,
    #[serde(skip_serializing_if = "is_zero")]
    timeout: u64,
    #[serde(skip_serializing_if = "is_zero")]
    start_period: u64,
    #[serde(skip_serializing_if = "is_zero")]
    start_interval: u64,
    #[serde(skip_serializing_if = "is_zero")]
    retries: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
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
#[serde(rename_all = "camelCase")]
struct Manifest<'a> {
    schema_version: u32,
    media_type: &'static str,
    config: Reference<'a>,
    layers: Vec<Reference<'a>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
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

    /// A layer, in a format that may not tell how it is compressed. Docker's has no annotations.
    fn layer(format: ImageFormat, layer: &'a LayerReference) -> Option<Self> {
        let annotations = Some(&layer.annotations).filter(|all| format == ImageFormat::Oci && !all.is_empty());
        Some(Self { annotations, ..Self::new(format.layer_media_type(layer.kind)?, &layer.blob) })
    }
}

/// The bytes of a configuration. `inherited` is the history of the image below, whose layers are the lowest ones; layers that
/// it does not tell of are told of here.
#[must_use]
pub fn encode_config(
    platform: &TargetPlatform,
    config: &ImageConfig,
    inherited: &[HistoryEntry],
    layers: &[LayerReference],
) -> Vec<u8> {
    let told_count = inherited.iter().filter(|entry| !entry.empty_layer).count();
    let own = layers.iter().skip(told_count).map(|layer| HistoryEntry {
        created: Some(CREATED.to_owned()),
        created_by: Some(layer.created_by.clone()),
        ..HistoryEntry::default()
    });
    let healthcheck = config.healthcheck.as_ref().map(|check| Check {
        test: &check.test,
        interval: check.interval_ns,
        timeout: check.timeout_ns,
        start_period: check.start_period_ns,
        start_interval: check.start_interval_ns,
        retries: check.retries,
    });
    encode(&Config {
        created: config.created.as_deref().unwrap_or(CREATED),
        architecture: &platform.architecture,
        os: &platform.os,
        variant: &platform.variant,
        config: Execution {
            user: config.user.as_deref(),
            exposed_ports: config.exposed_ports.iter().map(|port| (port.as_str(), Empty {})).collect(),
            env: config.env.iter().map(|(name, value)| format!("{name}={value}")).collect(),
            entrypoint: config.entrypoint.as_deref().unwrap_or_default(),
            cmd: config.cmd.as_deref().unwrap_or_default(),
            volumes: config.volumes.iter().map(|path| (path.as_str(), Empty {})).collect(),
            working_dir: config.working_dir.as_deref(),
            labels: &config.labels,
            stop_signal: config.stop_signal.as_deref(),
            healthcheck,
        },
        rootfs: RootFs { kind: "layers", diff_ids: layers.iter().map(|layer| layer.diff_id.to_string()).collect() },
        history: inherited.iter().cloned().chain(own).collect(),
    })
}

/// The bytes of a manifest; `None` when its format cannot tell how a layer is compressed. Docker's has no annotations.
#[must_use]
pub fn encode_manifest(
    format: ImageFormat,
    config: &Descriptor,
    layers: &[LayerReference],
    annotations: &BTreeMap<String, String>,
) -> Option<Vec<u8>> {
    let is_docker = format == ImageFormat::Docker;
    let none = BTreeMap::new();
    Some(encode(&Manifest {
        schema_version: 2,
        media_type: format.manifest_media_type(),
        config: Reference::new(format.config_media_type(), config),
        layers: layers.iter().map(|layer| Reference::layer(format, layer)).collect::<Option<_>>()?,
        annotations: if is_docker { &none } else { annotations },
    }))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Index<'a> {
    schema_version: u32,
    media_type: &'static str,
    manifests: Vec<Item<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Item<'a> {
    media_type: &'static str,
    digest: String,
    size: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
    platform: ItemPlatform<'a>,
}

#[derive(Serialize)]
struct ItemPlatform<'a> {
    architecture: &'a str,
    os: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    variant: &'a str,
}

/// The bytes of an index over the manifests of several platforms, in their order (OCI image-spec 1.1, image-index.md). What
/// is said of the image is said of each of them; Docker's list has no annotations.
#[must_use]
pub fn encode_image_index(
    format: ImageFormat,
    manifests: &[(ImageFormat, &TargetPlatform, Descriptor)],
    annotations: &BTreeMap<String, String>,
) -> Vec<u8> {
    let none = BTreeMap::new();
    let annotations = if format == ImageFormat::Docker { &none } else { annotations };
    let manifests = manifests.iter().map(|(own, platform, manifest)| Item {
        media_type: own.manifest_media_type(),
        digest: manifest.digest.to_string(),
        size: manifest.size,
        annotations,
        platform: ItemPlatform { architecture: &platform.architecture, os: &platform.os, variant: &platform.variant },
    });
    encode(&Index { schema_version: 2, media_type: format.index_media_type(), manifests: manifests.collect() })
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
        let platform =
            TargetPlatform { os: "linux".to_owned(), architecture: "amd64".to_owned(), variant: String::new() };
        let config = ImageConfig {
            exposed_ports: vec!["80/tcp".to_owned()],
            env: BTreeMap::from([("B".to_owned(), "2".to_owned()), ("A".to_owned(), "1".to_owned())]),
            entrypoint: Some(vec!["node".to_owned()]),
            ..ImageConfig::default()
        };
        let bytes = encode_config(&platform, &config, &[], std::slice::from_ref(&layer));
        assert_eq!(
            String::from_utf8_lossy(&bytes),
            format!(
                r#"{{"created":"1985-10-26T08:15:00Z","architecture":"amd64","os":"linux","config":{{"ExposedPorts":{{"80/tcp":{{}}}},"Env":["A=1","B=2"],"Entrypoint":["node"]}},"rootfs":{{"type":"layers","diff_ids":["{}"]}},"history":[{{"created":"1985-10-26T08:15:00Z","created_by":"cas //:web"}}]}}"#,
                layer.diff_id
            )
        );
        let parsed = oci_spec::image::ImageConfiguration::from_reader(&bytes[..]).expect("the library reads it");
        assert_eq!(parsed.rootfs().diff_ids(), &[layer.diff_id.to_string()]);
        let config = Descriptor::of(DigestFunction::Sha256, &bytes);
        let annotations = BTreeMap::from([("b".to_owned(), "2".to_owned()), ("a".to_owned(), "1".to_owned())]);
        let manifest = encode_manifest(ImageFormat::Oci, &config, std::slice::from_ref(&layer), &annotations);
        let manifest = manifest.expect("OCI has zstd");
        assert!(String::from_utf8_lossy(&manifest).ends_with(r#"],"annotations":{"a":"1","b":"2"}}"#));
        let parsed = oci_spec::image::ImageManifest::from_reader(&manifest[..]).expect("the library reads it");
        assert_eq!(parsed.layers()[0].media_type(), &oci_spec::image::MediaType::ImageLayerZstd);
        assert_eq!(parsed.layers()[0].size(), blob.size);
        assert_eq!(parsed.layers()[0].annotations().as_ref().and_then(|all| all.get("a.b")), Some(&"1".to_owned()));
        assert_eq!(parsed.annotations().as_ref().map(|all| all.len()), Some(2));
        // Docker's has neither.
        assert_eq!(encode_manifest(ImageFormat::Docker, &config, std::slice::from_ref(&layer), &annotations), None);
        let layer = LayerReference { kind: LayerKind::Gzip, ..layer };
        let manifest = encode_manifest(ImageFormat::Docker, &config, &[layer], &annotations).expect("it has gzip");
        assert_eq!(
            String::from_utf8_lossy(&manifest),
            format!(
                r#"{{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json","config":{{"mediaType":"application/vnd.docker.container.image.v1+json","digest":"{}","size":{}}},"layers":[{{"mediaType":"application/vnd.docker.image.rootfs.diff.tar.gzip","digest":"{}","size":{}}}]}}"#,
                config.digest, config.size, blob.digest, blob.size
            )
        );
    }

    #[test]
    fn what_is_run_is_written_in_docker_s_words_and_the_history_below_is_kept() {
        let diff_id = Digest::of(DigestFunction::Sha256, b"tar");
        let layer = |created_by: &str| LayerReference {
            kind: LayerKind::Gzip,
            blob: Descriptor::of(DigestFunction::Sha256, b"layer"),
            diff_id,
            created_by: created_by.to_owned(),
            annotations: BTreeMap::new(),
        };
        let platform = TargetPlatform { os: "linux".into(), architecture: "arm64".into(), variant: "v8".into() };
        let check = Healthcheck {
            test: vec!["CMD-SHELL".to_owned(), "x".to_owned()],
            interval_ns: 30_000_000_000,
            timeout_ns: 0,
            start_period_ns: 5_000_000_000,
            start_interval_ns: 500_000_000,
            retries: 3,
        };
        let config = ImageConfig {
            entrypoint: Some(Vec::new()),
            volumes: vec!["/data".to_owned()],
            stop_signal: Some("SIGINT".to_owned()),
            healthcheck: Some(check),
            ..ImageConfig::default()
        };
        let below = [
            HistoryEntry { created_by: Some("ADD x".to_owned()), ..HistoryEntry::default() },
            HistoryEntry { comment: Some("c".to_owned()), empty_layer: true, ..HistoryEntry::default() },
        ];
        let bytes = encode_config(&platform, &config, &below, &[layer("below"), layer("cas //:own")]);
        assert_eq!(
            String::from_utf8_lossy(&bytes),
            format!(
                r#"{{"created":"{CREATED}","architecture":"arm64","os":"linux","variant":"v8","config":{{"Volumes":{{"/data":{{}}}},"StopSignal":"SIGINT","Healthcheck":{{"Test":["CMD-SHELL","x"],"Interval":30000000000,"StartPeriod":5000000000,"StartInterval":500000000,"Retries":3}}}},"rootfs":{{"type":"layers","diff_ids":["{diff_id}","{diff_id}"]}},"history":[{{"created_by":"ADD x"}},{{"comment":"c","empty_layer":true}},{{"created":"{CREATED}","created_by":"cas //:own"}}]}}"#
            )
        );
        oci_spec::image::ImageConfiguration::from_reader(&bytes[..]).expect("the library reads it");
        let read = crate::Inherited::parse(&bytes).expect("it is one of ours");
        let expected = ImageConfig { entrypoint: None, ..config };
        assert_eq!((read.config, read.history.len()), (expected, 3));
    }

    #[test]
    fn an_index_tells_the_platform_of_each_manifest() {
        let platforms = ["linux/amd64", "linux/arm64/v8"].map(|text| text.parse::<TargetPlatform>().expect(text));
        let manifest = Descriptor::of(DigestFunction::Sha256, b"manifest");
        let manifests = platforms.each_ref().map(|platform| (ImageFormat::Oci, platform, manifest));
        let annotations = BTreeMap::from([("a".to_owned(), "1".to_owned())]);
        let bytes = encode_image_index(ImageFormat::Oci, &manifests, &annotations);
        let digest = manifest.digest;
        assert_eq!(
            String::from_utf8_lossy(&bytes),
            format!(
                r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{digest}","size":8,"annotations":{{"a":"1"}},"platform":{{"architecture":"amd64","os":"linux"}}}},{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{digest}","size":8,"annotations":{{"a":"1"}},"platform":{{"architecture":"arm64","os":"linux","variant":"v8"}}}}]}}"#
            )
        );
        oci_spec::image::ImageIndex::from_reader(&bytes[..]).expect("the specification's library reads it");
        // An index names documents of both kinds.
        let mixed = [(ImageFormat::Docker, &platforms[0], manifest), manifests[1]];
        let text = String::from_utf8(encode_image_index(ImageFormat::Oci, &mixed, &annotations)).expect("it is text");
        assert!(text.contains(DOCKER_MANIFEST_MEDIA_TYPE) && text.contains(MANIFEST_MEDIA_TYPE), "{text}");
        let manifests = manifests.map(|(_, platform, manifest)| (ImageFormat::Docker, platform, manifest));
        let bytes = encode_image_index(ImageFormat::Docker, &manifests, &annotations);
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.contains(DOCKER_INDEX_MEDIA_TYPE) && !text.contains("annotations"), "{text}");
        assert!(matches!(crate::Document::parse(&bytes, None), Ok(crate::Document::Index(items)) if items.len() == 2));
    }
}
