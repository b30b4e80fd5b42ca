//! What a document names, whatever it is of: an image, an artifact, or files that only whoever made them understands.
//!
//! For whoever copies a document and all behind it without looking into either. Not here: what an image is made of (`document`).

use cas_blob::Descriptor;
use cas_digest::Digest;
use serde::Deserialize;

use crate::document::{is_config, is_index, is_schema_1};
use crate::json::{self, Object};
use crate::reference::digest_of;
use crate::{DOCKER_MANIFEST_MEDIA_TYPE, INDEX_MEDIA_TYPE, MANIFEST_MEDIA_TYPE, ParseDocumentError};

/// More layers, or manifests of an index, than anything has.
const MAX_ITEMS: usize = 4096;

/// Media types that tell nothing.
const VAGUE_MEDIA_TYPES: [&str; 4] = ["", "application/json", "application/octet-stream", "text/plain"];

/// What a document names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Links {
    /// What the document is, in its own words or those of whoever named it.
    pub media_type: String,
    /// What its files are where they are no image: a media type (image-spec 1.1, manifest.md, "Guidelines for Artifact Usage").
    pub artifact_type: Option<String>,
    /// The document that it is about, where it is about one.
    pub subject: Option<Digest>,
    /// Manifests and indexes, with what they are said to be.
    pub documents: Vec<(Descriptor, String)>,
    /// Configurations, layers and other files.
    pub blobs: Vec<Descriptor>,
    /// Layers that are fetched from addresses of their own, and are in no registry.
    pub elsewhere: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    #[serde(default)]
    schema_version: u32,
    #[serde(default, deserialize_with = "crate::document::null_is_default")]
    media_type: String,
    #[serde(default, deserialize_with = "crate::document::null_is_default")]
    artifact_type: String,
    subject: Option<Object<RawLink>>,
    config: Option<Object<RawLink>>,
    layers: Option<Vec<Object<RawLink>>>,
    manifests: Option<Vec<Object<RawLink>>>,
    fs_layers: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawLink {
    #[serde(default, deserialize_with = "crate::document::null_is_default")]
    media_type: String,
    digest: String,
    size: u64,
    #[serde(default, deserialize_with = "crate::document::null_is_default")]
    urls: Vec<String>,
}

impl RawLink {
    fn blob(&self) -> Result<Descriptor, ParseDocumentError> {
        let digest = digest_of(&self.digest);
        let digest = digest.ok_or_else(|| ParseDocumentError::Digest { digest: self.digest.clone() })?;
        Ok(Descriptor { digest, size: self.size })
    }

    /// Whether it may not be given away (image-spec 1.0, "Non-Distributable Layers"; Docker's foreign layers).
    fn is_elsewhere(&self) -> bool {
        let is_told = self.media_type.contains(".nondistributable.") || self.media_type.contains(".foreign.");
        is_told && !self.urls.is_empty()
    }
}

impl Links {
    /// Reads what a document names. `media_type` is what was said of it where it came from; its own word counts.
    ///
    /// # Errors
    ///
    /// [`ParseDocumentError`]: also where the document is an index by one word and a manifest by another.
    pub fn parse(bytes: &[u8], media_type: Option<&str>) -> Result<Self, ParseDocumentError> {
        let Object(raw): Object<Raw> = json::read(bytes, "manifest")?;
        let own = Some(&*raw.media_type).filter(|text| !text.is_empty());
        let told = own.or(media_type);
        if raw.fs_layers.is_some() || raw.schema_version == 1 || told.is_some_and(is_schema_1) {
            return Err(ParseDocumentError::Schema1);
        }
        let has_manifests = raw.manifests.is_some();
        if has_manifests && (raw.layers.is_some() || raw.config.is_some()) {
            return Err(ParseDocumentError::Ambiguous);
        }
        if let (Some(own), Some(named)) = (own, media_type)
            && let (Some(is_own_index), Some(is_named_index)) = (is_index(own), is_index(named))
            && is_own_index != is_named_index
        {
            return Err(ParseDocumentError::Disagrees { named: named.to_owned(), media_type: own.to_owned() });
        }
        // What is in there decides where nobody says what it is, and must be what is said.
        let told = told.filter(|text| is_index(text).is_some());
        if told.and_then(is_index).is_some_and(|is_index| is_index != has_manifests) {
            let (named, other) = if has_manifests { ("manifest", "index") } else { ("index", "manifest") };
            return Err(ParseDocumentError::Disagrees { named: named.to_owned(), media_type: other.to_owned() });
        }
        let default = if has_manifests { INDEX_MEDIA_TYPE } else { MANIFEST_MEDIA_TYPE };
        let media_type = told.unwrap_or(default).to_owned();
        let subject = raw.subject.map(|Object(subject)| subject.blob()).transpose()?.map(|subject| subject.digest);
        let (documents, blobs, elsewhere) = (Vec::new(), Vec::new(), Vec::new());
        let mut links = Self { media_type, artifact_type: None, subject, documents, blobs, elsewhere };
        let listed = raw.manifests.into_iter().flatten().chain(raw.layers.into_iter().flatten());
        let listed: Vec<RawLink> = listed.map(|Object(link)| link).collect();
        if listed.len() > MAX_ITEMS {
            return Err(ParseDocumentError::TooMany { what: if has_manifests { "manifests" } else { "layers" } });
        }
        if let Some(Object(config)) = raw.config {
            links.blobs.push(config.blob()?);
            // Without a type of its own an artifact has that of its configuration. Some old images do not know what they have.
            let is_plain = is_config(&config.media_type) || VAGUE_MEDIA_TYPES.contains(&&*config.media_type);
            let kinds = [raw.artifact_type, config.media_type].into_iter().find(|kind| !kind.is_empty());
            links.artifact_type = kinds.filter(|_| !is_plain);
        } else if !has_manifests {
            let source = serde::de::Error::missing_field("config");
            return Err(ParseDocumentError::Syntax { what: "manifest", source });
        }
        for link in listed {
            let blob = link.blob()?;
            // Caches of BuildKit are indexes of layers.
            let is_document = has_manifests && (link.media_type.is_empty() || is_index(&link.media_type).is_some());
            match is_document {
                true => links.documents.push((blob, link.media_type)),
                false if link.is_elsewhere() => links.elsewhere.push(blob),
                false => links.blobs.push(blob),
            }
        }
        Ok(links)
    }

    /// Whether the document is an index.
    #[must_use]
    pub fn is_index(&self) -> bool {
        ![MANIFEST_MEDIA_TYPE, DOCKER_MANIFEST_MEDIA_TYPE].contains(&&*self.media_type)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DOCKER_INDEX_MEDIA_TYPE, Document};

    const DIGEST: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    /// Sizes of documents, blobs and what is elsewhere, with the media type.
    fn links(text: &str, told: Option<&str>) -> Result<(String, [Vec<u64>; 3]), String> {
        let sizes = |blobs: &[Descriptor]| blobs.iter().map(|blob| blob.size).collect::<Vec<_>>();
        let found = Links::parse(text.replace("DIGEST", DIGEST).as_bytes(), told).map_err(|error| error.to_string())?;
        let documents: Vec<Descriptor> = found.documents.iter().map(|(blob, _)| *blob).collect();
        assert_eq!(found.is_index(), text.contains("manifests"));
        Ok((found.media_type, [sizes(&documents), sizes(&found.blobs), sizes(&found.elsewhere)]))
    }

    #[test]
    fn what_a_document_names_is_found_whatever_it_is_of() {
        let link = |size: u64, more: &str| format!(r#"{{"digest":"DIGEST","size":{size}{more}}}"#);
        let manifest = |config: &str, layers: &[String]| {
            let layers = layers.join(",");
            format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{layers}]}}"#)
        };
        let kind = |text: &str| format!(r#","mediaType":"{text}""#);
        let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
        let urls = r#","urls":["https://x.example/1"]"#;
        let image = manifest(&link(1, ""), &[link(2, ""), link(3, "")]);
        let artifact = image.replace("{\"schema", r#"{"artifactType":"application/vnd.x","schema"#);
        let index = format!(
            r#"{{"manifests":[{},{},{}]}}"#,
            link(5, &kind(MANIFEST_MEDIA_TYPE)),
            link(6, &kind("application/vnd.oci.image.layer.v1.tar")),
            link(7, "")
        );
        for (text, told, media_type, expected) in [
            (image.clone(), None, MANIFEST_MEDIA_TYPE, [vec![], vec![1, 2, 3], vec![]]),
            (
                image.clone(),
                Some(DOCKER_MANIFEST_MEDIA_TYPE),
                DOCKER_MANIFEST_MEDIA_TYPE,
                [vec![], vec![1, 2, 3], vec![]],
            ),
            (image, Some("text/plain"), MANIFEST_MEDIA_TYPE, [vec![], vec![1, 2, 3], vec![]]),
            (artifact, None, MANIFEST_MEDIA_TYPE, [vec![], vec![1, 2, 3], vec![]]),
            (
                manifest(&link(1, ""), &[link(2, &(kind(foreign) + urls)), link(3, &kind(foreign)), link(4, urls)]),
                None,
                MANIFEST_MEDIA_TYPE,
                [vec![], vec![1, 3, 4], vec![2]],
            ),
            (index.clone(), None, INDEX_MEDIA_TYPE, [vec![5, 7], vec![6], vec![]]),
            (index, Some(DOCKER_INDEX_MEDIA_TYPE), DOCKER_INDEX_MEDIA_TYPE, [vec![5, 7], vec![6], vec![]]),
        ] {
            assert_eq!(links(&text, told), Ok((media_type.to_owned(), expected)), "{text}");
        }
    }

    #[test]
    fn files_that_are_no_image_have_a_type() {
        for (own, config, expected) in [
            ("", "application/vnd.oci.image.config.v1+json", None),
            ("", "application/vnd.docker.container.image.v1+json", None),
            ("", "", None),
            ("", "application/octet-stream", None),
            ("application/vnd.x", "application/vnd.oci.image.config.v1+json", None),
            ("application/vnd.x", "application/vnd.oci.empty.v1+json", Some("application/vnd.x")),
            ("", "application/vnd.cncf.helm.config.v1+json", Some("application/vnd.cncf.helm.config.v1+json")),
        ] {
            let config = format!(r#"{{"mediaType":"{config}","digest":"{DIGEST}","size":1}}"#);
            let subject = format!(r#"{{"digest":"{DIGEST}","size":1}}"#);
            let text = format!(r#"{{"artifactType":"{own}","subject":{subject},"config":{config},"layers":[]}}"#);
            let found = Links::parse(text.as_bytes(), None).expect("it is one");
            assert_eq!(found.artifact_type.as_deref(), expected, "{text}");
            assert_eq!(found.subject.map(|digest| digest.to_string()).as_deref(), Some(DIGEST));
        }
    }

    #[test]
    fn what_could_be_two_things_is_refused() {
        for (text, told, said) in [
            (r#"{"schemaVersion":1}"#, None, "schema 1"),
            (r#"{"fsLayers":[]}"#, None, "schema 1"),
            ("{}", Some("application/vnd.docker.distribution.manifest.v1+prettyjws"), "schema 1"),
            (r#"{"manifests":[],"layers":[]}"#, None, "at once"),
            (r#"{"manifests":[]}"#, Some(MANIFEST_MEDIA_TYPE), "says that it is"),
            (r#"{"config":{"digest":"DIGEST","size":1},"layers":[]}"#, Some(INDEX_MEDIA_TYPE), "says that it is"),
            (r#"{"layers":[]}"#, None, "no manifest"),
            (r#"{"config":{"digest":"md5:1","size":1}}"#, None, "no SHA-256"),
            ("[]", None, "no manifest"),
        ] {
            let error = links(text, told).expect_err(text);
            assert!(error.contains(said), "{text}: {error}");
        }
        let named = format!(r#"{{"mediaType":"{INDEX_MEDIA_TYPE}","manifests":[]}}"#);
        assert!(links(&named, Some(MANIFEST_MEDIA_TYPE)).is_err(), "its own word is another one");
        let many = vec![format!(r#"{{"digest":"{DIGEST}","size":1}}"#); MAX_ITEMS + 1].join(",");
        assert!(links(&format!(r#"{{"manifests":[{many}]}}"#), None).is_err_and(|said| said.contains("more than")));
        // What an image is for `Document` is the same for both.
        let text = format!(r#"{{"manifests":[{{"digest":"{DIGEST}","size":1}}]}}"#);
        assert!(matches!(Document::parse(text.as_bytes(), None), Ok(Document::Index(items)) if items.len() == 1));
    }
}
