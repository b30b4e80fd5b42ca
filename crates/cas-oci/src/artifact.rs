//! Manifests of artifacts: files that are no layers (OCI image-spec 1.1, manifest.md, "Guidelines for Artifact Usage").

use std::collections::BTreeMap;

use cas_blob::Descriptor;
use cas_digest::DigestFunction;
use serde::Serialize;

use crate::MANIFEST_MEDIA_TYPE;
use crate::image::encode;

/// Media type of what stands where there is nothing.
pub const EMPTY_MEDIA_TYPE: &str = "application/vnd.oci.empty.v1+json";
/// Its content.
pub const EMPTY_CONTENT: &[u8] = b"{}";
/// The same in the base64 of a descriptor's `data`.
const EMPTY_DATA: &str = "e30=";
/// Annotation that is the name of a file, for those who take an artifact apart (OCI image-spec 1.1, annotations.md).
pub const TITLE_ANNOTATION: &str = "org.opencontainers.image.title";
/// Longest type and longest subtype of a media type (RFC 6838, 4.2).
const MAX_NAME_BYTES: usize = 127;

/// A blob as the manifest of an artifact names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArtifactBlob {
    /// What it is.
    pub media_type: String,
    /// Its bytes, named by SHA-256.
    pub blob: Descriptor,
    /// What is told of it beside that.
    pub annotations: BTreeMap<String, String>,
}

impl ArtifactBlob {
    /// What stands where there is nothing.
    #[must_use]
    pub fn empty() -> Self {
        let blob = Descriptor::of(DigestFunction::Sha256, EMPTY_CONTENT);
        Self { media_type: EMPTY_MEDIA_TYPE.to_owned(), blob, annotations: BTreeMap::new() }
    }
}

/// What the manifest of an artifact says.
#[derive(Clone, Debug)]
pub struct ArtifactManifest<'a> {
    /// What the artifact is.
    pub artifact_type: &'a str,
    /// Its configuration; [`ArtifactBlob::empty`] where it has none.
    pub config: &'a ArtifactBlob,
    /// Its files; without any, [`ArtifactBlob::empty`] stands for them.
    pub files: &'a [ArtifactBlob],
    /// The manifest or index that it is about: its media type, and the document.
    pub subject: Option<(&'a str, Descriptor)>,
    /// What is told of it.
    pub annotations: &'a BTreeMap<String, String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Manifest<'a> {
    schema_version: u32,
    media_type: &'a str,
    artifact_type: &'a str,
    config: Item<'a>,
    layers: Vec<Item<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<Item<'a>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Item<'a> {
    media_type: &'a str,
    digest: String,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    annotations: Option<&'a BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'static str>,
}

impl<'a> Item<'a> {
    fn new(media_type: &'a str, blob: &Descriptor) -> Self {
        Self { media_type, digest: blob.digest.to_string(), size: blob.size, annotations: None, data: None }
    }

    fn of(item: &'a ArtifactBlob) -> Self {
        let annotations = Some(&item.annotations).filter(|all| !all.is_empty());
        // Whoever reads the descriptor need not fetch two bytes.
        let data = (item.media_type == EMPTY_MEDIA_TYPE).then_some(EMPTY_DATA);
        Self { annotations, data, ..Self::new(&item.media_type, &item.blob) }
    }
}

/// The bytes of the manifest of an artifact.
#[must_use]
pub fn encode_artifact(manifest: &ArtifactManifest<'_>) -> Vec<u8> {
    let empty = [ArtifactBlob::empty()];
    let files = if manifest.files.is_empty() { &empty } else { manifest.files };
    encode(&Manifest {
        schema_version: 2,
        media_type: MANIFEST_MEDIA_TYPE,
        artifact_type: manifest.artifact_type,
        config: Item::of(manifest.config),
        layers: files.iter().map(Item::of).collect(),
        subject: manifest.subject.as_ref().map(|(media_type, document)| Item::new(media_type, document)),
        annotations: manifest.annotations,
    })
}

/// Whether a text is a media type without parameters, `type/subtype`, as RFC 6838 (4.2) has their names.
#[must_use]
pub fn is_media_type(text: &str) -> bool {
    let is_name = |name: &str| {
        let is_letter = |byte: u8| byte.is_ascii_alphanumeric();
        let is_fine = |byte: u8| is_letter(byte) || b"!#$&-^_.+".contains(&byte);
        name.len() <= MAX_NAME_BYTES && name.bytes().next().is_some_and(is_letter) && name.bytes().all(is_fine)
    };
    text.split_once('/').is_some_and(|(kind, subtype)| is_name(kind) && is_name(subtype))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes are a contract, and the specification's own library must read them.
    #[test]
    fn manifests_have_one_form_that_others_read() {
        let of = |text: &str| Descriptor::of(DigestFunction::Sha256, text.as_bytes());
        let one = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
        let (empty, none) = (ArtifactBlob::empty(), BTreeMap::new());
        let bare = ArtifactManifest {
            artifact_type: "application/vnd.x",
            config: &empty,
            files: &[],
            subject: None,
            annotations: &none,
        };
        let nothing = r#"{"mediaType":"application/vnd.oci.empty.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2,"data":"e30="}"#;
        let head = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","artifactType":"application/vnd.x","#;
        let text = String::from_utf8(encode_artifact(&bare)).expect("it is a text");
        assert_eq!(text, format!(r#"{head}"config":{nothing},"layers":[{nothing}]}}"#));
        let file = ArtifactBlob {
            media_type: "text/plain".to_owned(),
            blob: of("file"),
            annotations: one(TITLE_ANNOTATION, "a.txt"),
        };
        let config = ArtifactBlob {
            media_type: "application/json".to_owned(),
            blob: of("config"),
            annotations: BTreeMap::new(),
        };
        let annotations = BTreeMap::from([("b".to_owned(), "2".to_owned()), ("a".to_owned(), "1".to_owned())]);
        let whole = ArtifactManifest {
            config: &config,
            files: std::slice::from_ref(&file),
            subject: Some(("application/vnd.oci.image.index.v1+json", of("subject"))),
            annotations: &annotations,
            ..bare
        };
        let bytes = encode_artifact(&whole);
        assert_eq!(
            String::from_utf8_lossy(&bytes),
            format!(
                r#"{head}"config":{{"mediaType":"application/json","digest":"{}","size":6}},"layers":[{{"mediaType":"text/plain","digest":"{}","size":4,"annotations":{{"org.opencontainers.image.title":"a.txt"}}}}],"subject":{{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"{}","size":7}},"annotations":{{"a":"1","b":"2"}}}}"#,
                of("config").digest,
                of("file").digest,
                of("subject").digest
            )
        );
        for bytes in [bytes, text.into_bytes()] {
            let parsed = oci_spec::image::ImageManifest::from_reader(&bytes[..]).expect("the library reads it");
            assert_eq!(parsed.artifact_type().as_ref().map(ToString::to_string), Some("application/vnd.x".to_owned()));
            assert_eq!(parsed.layers().len(), 1);
        }
    }

    #[test]
    fn media_types_are_those_of_rfc_6838() {
        let long = "a".repeat(127);
        for (text, expected) in [
            ("application/vnd.example+json", true),
            ("text/plain", true),
            ("application/vnd.a!#$&-^_.+1", true),
            ("1/2", true),
            (&format!("{long}/{long}"), true),
            (&format!("{long}a/b"), false),
            (&format!("b/{long}a"), false),
            ("", false),
            ("text", false),
            ("/plain", false),
            ("text/", false),
            ("text/.plain", false),
            ("+text/plain", false),
            ("text/plain/x", false),
            ("text/plain; charset=utf-8", false),
            ("text/ plain", false),
            ("text/größe", false),
        ] {
            assert_eq!(is_media_type(text), expected, "{text}");
        }
    }
}
