//! What a manifest or an index names, as far as a registry has to know it.
//!
//! OCI image-spec 1.1, manifest.md, image-index.md; Docker "Image Manifest Version 2, Schema 2". What is read here is a view: the bytes are
//! kept as they came. Pure.

use std::collections::BTreeMap;

use cas_blob::Descriptor;
use cas_digest::Digest;
use cas_oci::{
    DOCKER_INDEX_MEDIA_TYPE, DOCKER_MANIFEST_MEDIA_TYPE, INDEX_MEDIA_TYPE, MANIFEST_MEDIA_TYPE, digest_of,
    is_media_type,
};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

/// More than any image names.
const MAX_NEEDS: usize = 4096;
/// Largest size that something can have: what the index can hold, and more than any disk.
const MAX_SIZE: u64 = 1 << 62;
/// Annotations that are longer than this are not repeated in lists of referrers.
const MAX_LISTED_BYTES: usize = 1 << 20;
/// Layers that may be fetched from elsewhere alone.
const FOREIGN_LAYERS: [&str; 5] = [
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.foreign.diff.tar",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
];

/// Why a manifest is none that is taken.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ManifestError {
    #[error("it is no JSON of a manifest: {0}")]
    Syntax(String),
    #[error("neither its `mediaType` nor `Content-Type` says what it is")]
    NoType,
    #[error("`{0}` is no manifest or index of OCI or Docker's schema 2")]
    Type(String),
    #[error("it says that it is `{own}`, and `Content-Type` says `{named}`")]
    Disagrees { own: String, named: String },
    #[error("it is a manifest and an index at once")]
    Ambiguous,
    #[error("it has no `{0}`")]
    Lacks(&'static str),
    #[error("it names something by `{0}`, which is no SHA-256 or SHA-512")]
    Digest(String),
    #[error("it names something with a size that nothing has")]
    Size,
    #[error("it names more than {MAX_NEEDS} blobs or manifests")]
    Many,
    #[error("its `artifactType` is no media type")]
    ArtifactType,
}

/// Something that a manifest names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Need {
    pub(crate) blob: Descriptor,
    /// Whether it is a manifest itself.
    pub(crate) is_manifest: bool,
    /// Whether it may be elsewhere.
    pub(crate) may_be_missing: bool,
}

/// What a manifest says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) media_type: String,
    /// In the order in which it names them, each once.
    pub(crate) needs: Vec<Need>,
    pub(crate) subject: Option<Digest>,
    artifact_type: Option<String>,
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<RawDescriptor>,
    layers: Option<Vec<RawDescriptor>>,
    manifests: Option<Vec<RawDescriptor>>,
    subject: Option<RawDescriptor>,
    #[serde(default, deserialize_with = "null_is_none")]
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDescriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
    urls: Option<Vec<String>>,
}

fn null_is_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl RawDescriptor {
    fn blob(&self) -> Result<Descriptor, ManifestError> {
        let digest = digest_of(&self.digest);
        let digest = digest.ok_or_else(|| ManifestError::Digest(self.digest.chars().take(150).collect()))?;
        if self.size > MAX_SIZE { Err(ManifestError::Size) } else { Ok(Descriptor { digest, size: self.size }) }
    }
}

impl Manifest {
    /// Reads a manifest that came as `content_type`, whose parameters count for nothing.
    pub(crate) fn parse(bytes: &[u8], content_type: Option<&str>) -> Result<Self, ManifestError> {
        // Nesting has a limit there (128).
        let raw: Raw = serde_json::from_slice(bytes).map_err(|error| ManifestError::Syntax(error.to_string()))?;
        let named = content_type.map(|named| named.split(';').next().unwrap_or_default().trim());
        // What clients send that do not say what it is.
        let named = named.filter(|named| !matches!(*named, "" | "application/octet-stream" | "application/json"));
        let media_type = match (&raw.media_type, named) {
            (Some(own), Some(named)) if own != named => {
                return Err(ManifestError::Disagrees { own: own.clone(), named: named.to_owned() });
            }
            (Some(own), _) => own.clone(),
            (None, Some(named)) => named.to_owned(),
            (None, None) => return Err(ManifestError::NoType),
        };
        let is_index = match media_type.as_str() {
            MANIFEST_MEDIA_TYPE | DOCKER_MANIFEST_MEDIA_TYPE => false,
            INDEX_MEDIA_TYPE | DOCKER_INDEX_MEDIA_TYPE => true,
            _ => return Err(ManifestError::Type(media_type.chars().take(150).collect())),
        };
        if raw.manifests.is_some() && (raw.layers.is_some() || raw.config.is_some()) {
            return Err(ManifestError::Ambiguous);
        }
        let mut needs: Vec<Need> = Vec::new();
        let mut add = |descriptor: &RawDescriptor, is_manifest: bool| -> Result<(), ManifestError> {
            let is_foreign = FOREIGN_LAYERS.contains(&descriptor.media_type.as_str());
            let may_be_missing =
                !is_manifest && is_foreign && descriptor.urls.as_ref().is_some_and(|urls| !urls.is_empty());
            needs.push(Need { blob: descriptor.blob()?, is_manifest, may_be_missing });
            if needs.len() > MAX_NEEDS { Err(ManifestError::Many) } else { Ok(()) }
        };
        let mut artifact_type = raw.artifact_type.filter(|artifact_type| !artifact_type.is_empty());
        if artifact_type.as_ref().is_some_and(|artifact_type| !is_media_type(artifact_type)) {
            return Err(ManifestError::ArtifactType);
        }
        if is_index {
            let manifests = raw.manifests.as_ref().ok_or(ManifestError::Lacks("manifests"))?;
            manifests.iter().try_for_each(|manifest| add(manifest, true))?;
        } else {
            let config = raw.config.as_ref().ok_or(ManifestError::Lacks("config"))?;
            add(config, false)?;
            let layers = raw.layers.as_ref().ok_or(ManifestError::Lacks("layers"))?;
            layers.iter().try_for_each(|layer| add(layer, false))?;
            artifact_type =
                artifact_type.or_else(|| Some(config.media_type.clone()).filter(|name| is_media_type(name)));
        }
        let mut seen = std::collections::BTreeSet::new();
        needs.retain(|need| seen.insert(need.blob));
        let subject = raw.subject.as_ref().map(RawDescriptor::blob).transpose()?.map(|subject| subject.digest);
        Ok(Self { media_type, needs, subject, artifact_type, annotations: raw.annotations })
    }

    /// What stands for it in a list of referrers.
    pub(crate) fn descriptor(&self, blob: &Descriptor) -> String {
        let mut descriptor = Map::new();
        descriptor.insert("mediaType".to_owned(), Value::from(self.media_type.as_str()));
        descriptor.insert("digest".to_owned(), Value::from(blob.digest.to_string()));
        descriptor.insert("size".to_owned(), Value::from(blob.size));
        if let Some(artifact_type) = &self.artifact_type {
            descriptor.insert("artifactType".to_owned(), Value::from(artifact_type.as_str()));
        }
        let length: usize = self.annotations.iter().map(|(name, value)| name.len() + value.len()).sum();
        if length > 0 && length <= MAX_LISTED_BYTES {
            let annotations = self.annotations.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str())));
            descriptor.insert("annotations".to_owned(), Value::Object(annotations.collect()));
        }
        Value::Object(descriptor).to_string()
    }

    /// What it is a kind of, for filters.
    pub(crate) fn artifact_type(&self) -> Option<&str> {
        self.artifact_type.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cas_digest::DigestFunction;

    fn item(content: &str, more: &str) -> String {
        let digest = Digest::of(DigestFunction::Sha256, content.as_bytes());
        format!(r#"{{"mediaType":"a/b","digest":"{digest}","size":{}{more}}}"#, content.len())
    }

    #[test]
    fn what_a_manifest_needs_is_found() {
        let (config, layer) = (item("{}", ""), item("layer", ""));
        let foreign = r#","urls":["https://example.org/x"]"#;
        let foreign = item("far", foreign).replace("a/b", FOREIGN_LAYERS[4]);
        let text = format!(
            r#"{{"schemaVersion":2,"config":{config},"layers":[{layer},{foreign},{layer}],"subject":{layer},"annotations":{{"k":"v"}},"x":1}}"#
        );
        let parsed = Manifest::parse(text.as_bytes(), Some("application/vnd.oci.image.manifest.v1+json; charset=x"));
        let parsed = parsed.expect("it is one");
        let of = |text: &str| Descriptor::of(DigestFunction::Sha256, text.as_bytes());
        let needs: Vec<_> =
            parsed.needs.iter().map(|need| (need.blob, need.is_manifest, need.may_be_missing)).collect();
        assert_eq!(needs, [(of("{}"), false, false), (of("layer"), false, false), (of("far"), false, true)]);
        assert_eq!(parsed.subject, Some(of("layer").digest));
        let blob = Descriptor::of(DigestFunction::Sha256, text.as_bytes());
        assert_eq!(
            parsed.descriptor(&blob),
            format!(
                r#"{{"annotations":{{"k":"v"}},"artifactType":"a/b","digest":"{}","mediaType":"{MANIFEST_MEDIA_TYPE}","size":{}}}"#,
                blob.digest, blob.size
            )
        );
        let text = format!(r#"{{"mediaType":"{INDEX_MEDIA_TYPE}","manifests":[{layer}],"annotations":null}}"#);
        let parsed = Manifest::parse(text.as_bytes(), None).expect("it is one");
        assert!(parsed.needs[0].is_manifest && parsed.artifact_type().is_none());
    }

    #[test]
    fn what_is_no_manifest_is_refused() {
        let layer = item("layer", "");
        let many = format!("[{}]", vec![layer.as_str(); MAX_NEEDS].join(","));
        let manifest = Some(MANIFEST_MEDIA_TYPE);
        for (text, content_type, expected) in [
            ("{}".to_owned(), None, ManifestError::NoType),
            ("{}".to_owned(), manifest, ManifestError::Lacks("config")),
            ("{}".to_owned(), Some(INDEX_MEDIA_TYPE), ManifestError::Lacks("manifests")),
            (format!(r#"{{"config":{layer}}}"#), manifest, ManifestError::Lacks("layers")),
            ("{}".to_owned(), Some("text/html"), ManifestError::Type("text/html".to_owned())),
            (format!(r#"{{"config":{layer},"layers":[],"manifests":[]}}"#), manifest, ManifestError::Ambiguous),
            (
                format!(r#"{{"mediaType":"{INDEX_MEDIA_TYPE}"}}"#),
                manifest,
                ManifestError::Disagrees { own: INDEX_MEDIA_TYPE.to_owned(), named: MANIFEST_MEDIA_TYPE.to_owned() },
            ),
            (
                r#"{"config":{"digest":"../x","size":1},"layers":[]}"#.to_owned(),
                manifest,
                ManifestError::Digest("../x".to_owned()),
            ),
            (format!(r#"{{"config":{layer},"layers":{many}}}"#), manifest, ManifestError::Many),
            (
                format!(
                    r#"{{"config":{},"layers":[]}}"#,
                    layer.replace(r#""size":5"#, r#""size":18446744073709551615"#)
                ),
                manifest,
                ManifestError::Size,
            ),
            (
                format!(r#"{{"artifactType":"x","config":{layer},"layers":[],"subject":{layer}}}"#),
                manifest,
                ManifestError::ArtifactType,
            ),
        ] {
            assert_eq!(
                Manifest::parse(text.as_bytes(), content_type),
                Err(expected),
                "{}",
                &text[..text.len().min(200)]
            );
        }
        for text in
            ["", "[]", "null", r#"{"config":{"digest":1}}"#, r#"{"layers":[],"layers":[]}"#, &"[".repeat(100_000)]
        {
            let found = Manifest::parse(text.as_bytes(), manifest);
            assert!(matches!(found, Err(ManifestError::Syntax(_) | ManifestError::Lacks(_))), "{found:?}");
        }
    }
}
