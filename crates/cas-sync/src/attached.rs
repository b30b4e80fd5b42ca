//! What is attached to an image in a registry: documents that refer to it, and layers under a tag of cosign's older form.

use std::collections::BTreeMap;
use std::sync::Arc;

use cas_blob::Descriptor;
use cas_digest::{Digest, DigestFunction};
use cas_oci::{
    CONFIG_MEDIA_TYPE, EMPTY_CONTENT, EMPTY_MEDIA_TYPE, Links, MANIFEST_MEDIA_TYPE, Reference, Repository, digest_of,
};
use cas_registry::{Client, Content, Referrer, RegistryError};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::push::runtime;
use crate::source::root;
use crate::{ShippedBlob, SyncError};

/// How often a tag is written when others write it at the same time.
const ATTEMPTS: u32 = 5;

/// An image or artifact as a registry has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachable {
    /// Where.
    pub repository: Repository,
    /// What it is named by.
    pub blob: Descriptor,
    /// What it is said to be.
    pub media_type: String,
}

/// Something that is attached, or why it cannot be had.
#[derive(Debug)]
pub struct Attached {
    /// Where it is, for people.
    pub name: String,
    /// Its bytes, which have the digest that they are named by.
    pub content: Result<Vec<u8>, RegistryError>,
    /// Annotations of its layer.
    pub annotations: BTreeMap<String, String>,
}

/// Something to attach: a document that has an image as its subject, and what it names.
#[derive(Clone, Debug)]
pub struct Attachment {
    /// What it is about, where that is something else than what it is sent with: a document of it, or another attachment.
    pub subject: Option<Digest>,
    /// How it is listed.
    pub referrer: Referrer,
    /// The document.
    pub bytes: Vec<u8>,
    /// What it names.
    pub blobs: Vec<ShippedBlob>,
}

impl Attachment {
    /// A document that was made before, byte for byte, which is about `subject`. `blobs` is what it names.
    ///
    /// # Errors
    ///
    /// [`SyncError::Document`] for one that is no manifest.
    pub fn of_document(
        subject: Digest,
        blob: Descriptor,
        bytes: Vec<u8>,
        blobs: Vec<ShippedBlob>,
    ) -> Result<Self, SyncError> {
        let failed = |source| SyncError::Document { name: blob.digest.to_string(), source: Box::new(source) };
        let links = Links::parse(&bytes, None).map_err(failed)?;
        let text = |value: &Value| Some(value.as_str()?.to_owned());
        // It was read a moment ago.
        let manifest: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let own = text(&manifest["artifactType"]).filter(|text| !text.is_empty());
        let artifact_type = own.or(links.artifact_type).or_else(|| text(&manifest["config"]["mediaType"]));
        let told = manifest["annotations"].as_object().into_iter().flatten();
        let annotations = told.filter_map(|(name, value)| Some((name.clone(), text(value)?))).collect();
        let referrer = Referrer { blob, media_type: links.media_type, artifact_type, annotations };
        Ok(Self { subject: Some(subject), referrer, bytes, blobs })
    }

    /// A document of one layer. The same content gives the same one.
    #[must_use]
    pub fn of_content(
        subject: &Attachable,
        media_type: &str,
        content: &[u8],
        annotations: BTreeMap<String, String>,
    ) -> Self {
        let blob = |content: &[u8]| {
            let blob = Descriptor::of(DigestFunction::Sha256, content);
            ShippedBlob { blob, content: whole(content), source: None }
        };
        let (empty, layer) = (blob(EMPTY_CONTENT), blob(content));
        let layers = vec![(media_type.to_owned(), layer)];
        Self::new(subject, media_type, (EMPTY_MEDIA_TYPE, empty), layers, annotations)
    }

    /// A document of a configuration and layers, with the media types of both.
    #[must_use]
    pub fn new(
        subject: &Attachable,
        artifact_type: &str,
        config: (&str, ShippedBlob),
        layers: Vec<(String, ShippedBlob)>,
        annotations: BTreeMap<String, String>,
    ) -> Self {
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST_MEDIA_TYPE,
            "artifactType": artifact_type,
            "config": descriptor(config.0, &config.1.blob),
            "layers": layers.iter().map(|(kind, layer)| descriptor(kind, &layer.blob)).collect::<Vec<_>>(),
            "subject": descriptor(&subject.media_type, &subject.blob),
            "annotations": annotations,
        });
        let bytes = manifest.to_string().into_bytes();
        let blob = Descriptor::of(DigestFunction::Sha256, &bytes);
        let (media_type, artifact_type) = (MANIFEST_MEDIA_TYPE.to_owned(), Some(artifact_type.to_owned()));
        let referrer = Referrer { blob, media_type, artifact_type, annotations };
        let blobs = [config.1].into_iter().chain(layers.into_iter().map(|(_, layer)| layer)).collect();
        Self { subject: None, referrer, bytes, blobs }
    }
}

/// A layer under the tag of cosign's older form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OlderForm {
    /// The tag.
    pub tag: String,
    /// What the layer is.
    pub media_type: String,
    /// Its bytes.
    pub content: Vec<u8>,
    /// What is said of it: the signature.
    pub annotations: BTreeMap<String, String>,
}

/// Attaches things and looks for them, one after the other.
#[derive(Debug)]
pub struct Attachments<'a> {
    pub(crate) runtime: Runtime,
    pub(crate) client: &'a Client,
}

impl<'a> Attachments<'a> {
    /// For a client.
    ///
    /// # Errors
    ///
    /// [`SyncError::Runtime`]
    pub fn new(client: &'a Client) -> Result<Self, SyncError> {
        Ok(Self { runtime: runtime()?, client })
    }

    /// What a name stands for now: a tag is asked for once, and the digest counts from then on.
    ///
    /// # Errors
    ///
    /// [`SyncError::Registry`]
    pub fn find(&self, reference: &Reference) -> Result<Attachable, SyncError> {
        let repository = reference.repository.clone();
        let fetched = self.runtime.block_on(root(self.client, reference))?;
        let media_type = fetched.media_type.unwrap_or_else(|| MANIFEST_MEDIA_TYPE.to_owned());
        // Signatures are over SHA-256, whatever the registry calls it by.
        let blob = match reference.digest {
            Some(_) => fetched.blob,
            None => Descriptor::of(DigestFunction::Sha256, &fetched.bytes),
        };
        Ok(Attachable { repository, blob, media_type })
    }

    /// Attaches a document of one layer; tells its manifest. The same content gives the same manifest.
    ///
    /// # Errors
    ///
    /// [`SyncError::Registry`]
    pub fn attach(
        &self,
        subject: &Attachable,
        media_type: &str,
        content: &[u8],
        annotations: BTreeMap<String, String>,
    ) -> Result<Digest, SyncError> {
        let attachment = Attachment::of_content(subject, media_type, content, annotations);
        self.runtime.block_on(self.send(&subject.repository, &subject.blob.digest, &attachment))?;
        Ok(attachment.referrer.blob.digest)
    }

    /// Sends what is attached, blobs before the document that names them.
    pub(crate) async fn send(
        &self,
        repository: &Repository,
        subject: &Digest,
        attachment: &Attachment,
    ) -> Result<(), SyncError> {
        let Attachment { referrer, bytes, blobs, .. } = attachment;
        for blob in blobs {
            let sent = self.client.push_blob(repository, &blob.blob, &blob.content, blob.source.as_ref());
            sent.await.map_err(SyncError::of_blob)?;
        }
        self.client.push_referrer(repository, subject, referrer, bytes).await?;
        Ok(())
    }

    /// The documents of a type that are attached.
    ///
    /// # Errors
    ///
    /// [`SyncError::Registry`]
    pub fn listed(&self, subject: &Attachable, artifact_type: &str) -> Result<Vec<Digest>, SyncError> {
        let Attachable { repository, blob, .. } = subject;
        let listed = self.client.referrers(repository, &blob.digest, Some(artifact_type));
        let listed = self.runtime.block_on(listed)?.into_iter();
        let listed = listed.filter(|referrer| referrer.artifact_type.as_deref() == Some(artifact_type));
        Ok(listed.map(|referrer| referrer.blob.digest).collect())
    }

    /// The layers of a type that are attached in documents of that type, at most `limit_bytes` each.
    ///
    /// # Errors
    ///
    /// [`SyncError::Registry`] when the list cannot be had.
    pub fn attached(
        &self,
        subject: &Attachable,
        media_type: &str,
        limit_bytes: u64,
        most: usize,
    ) -> Result<Vec<Attached>, SyncError> {
        self.runtime.block_on(async {
            let repository = &subject.repository;
            let referrers = self.client.referrers(repository, &subject.blob.digest, Some(media_type)).await?;
            let mut found = Vec::new();
            for referrer in referrers.iter().take(most) {
                let name = format!("referrer {}", referrer.blob.digest);
                match self.client.document(repository, &referrer.blob.digest).await {
                    Ok(fetched) => {
                        let layers = self.layers(repository, &fetched.bytes, media_type, limit_bytes, most).await;
                        found.extend(layers.into_iter().map(|layer| Attached { name: name.clone(), ..layer }));
                    }
                    Err(error @ RegistryError::Interrupted) => return Err(error.into()),
                    Err(error) => {
                        found.push(Attached { name, content: Err(error), annotations: BTreeMap::new() });
                    }
                }
            }
            Ok(found)
        })
    }

    /// The layers of a type under a tag; none when it is not there.
    ///
    /// # Errors
    ///
    /// [`SyncError::Registry`]
    pub fn tagged(
        &self,
        repository: &Repository,
        tag: &str,
        media_type: &str,
        limit_bytes: u64,
        most: usize,
    ) -> Result<Vec<Attached>, SyncError> {
        self.runtime.block_on(async {
            let fetched = match self.client.resolve(repository, tag).await {
                Ok(fetched) => fetched,
                Err(error) if error.is_not_found() => return Ok(Vec::new()),
                Err(error) => return Err(error.into()),
            };
            let layers = self.layers(repository, &fetched.bytes, media_type, limit_bytes, most).await;
            let named = |(index, layer)| Attached { name: format!("tag {tag}, layer {}", index + 1), ..layer };
            Ok(layers.into_iter().enumerate().map(named).collect())
        })
    }

    /// Adds a layer to the manifest under a tag, which keeps those that are there; the same one is there once.
    ///
    /// # Errors
    ///
    /// [`SyncError::Registry`], and [`SyncError::Moved`] when others write the tag all the time.
    pub fn tag(
        &self,
        repository: &Repository,
        tag: &str,
        media_type: &str,
        content: &[u8],
        annotations: &BTreeMap<String, String>,
    ) -> Result<(), SyncError> {
        let blob = Descriptor::of(DigestFunction::Sha256, content);
        let mut layer = descriptor(media_type, &blob);
        layer["annotations"] = json!(annotations);
        let is_same =
            |other: &Value| other["digest"] == layer["digest"] && other["annotations"] == layer["annotations"];
        self.runtime.block_on(async {
            self.client.push_blob(repository, &blob, &whole(content), None).await?;
            for _ in 0..ATTEMPTS {
                let (before, mut layers) = match self.client.resolve(repository, tag).await {
                    // What is no manifest is nobody's to replace.
                    Ok(fetched) if layers_of(&fetched.bytes).is_empty() => {
                        let (name, origin) = (format!("{repository}:{tag}"), repository.host.clone());
                        let said = "something else than signatures".to_owned();
                        return Err(RegistryError::Answer { name, origin, said }.into());
                    }
                    Ok(fetched) => (Some(fetched.blob.digest), layers_of(&fetched.bytes)),
                    Err(error) if error.is_not_found() => (None, Vec::new()),
                    Err(error) => return Err(error.into()),
                };
                if layers.iter().any(is_same) {
                    return Ok(());
                }
                layers.push(layer.clone());
                let (config, config_blob, bytes) = older_form(&layers);
                self.client.push_blob(repository, &config_blob, &whole(&config), None).await?;
                if self.client.look(repository, tag).await? != before {
                    continue;
                }
                let digest = Digest::of(DigestFunction::Sha256, &bytes);
                // What others wrote in between is read again.
                match self.client.push_document(repository, tag, MANIFEST_MEDIA_TYPE, &bytes, &digest).await {
                    Ok(_) | Err(RegistryError::Mismatch { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            let fetched = self.client.resolve(repository, tag).await?;
            match layers_of(&fetched.bytes).iter().any(is_same) {
                true => Ok(()),
                false => Err(SyncError::Moved { repository: repository.to_string(), tag: tag.to_owned() }),
            }
        })
    }

    async fn layers(
        &self,
        repository: &Repository,
        manifest: &[u8],
        media_type: &str,
        limit_bytes: u64,
        most: usize,
    ) -> Vec<Attached> {
        let mut found = Vec::new();
        let layers = layers_of(manifest);
        for layer in layers.iter().filter(|layer| layer["mediaType"] == media_type).take(most) {
            let annotations = layer["annotations"].as_object().into_iter().flatten();
            let annotations = annotations.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())));
            let content = self.content(repository, layer, limit_bytes).await;
            found.push(Attached { name: String::new(), content, annotations: annotations.collect() });
        }
        found
    }

    async fn content(
        &self,
        repository: &Repository,
        layer: &Value,
        limit_bytes: u64,
    ) -> Result<Vec<u8>, RegistryError> {
        let (name, origin) = (repository.to_string(), repository.host.clone());
        let blob = layer["digest"].as_str().and_then(digest_of).zip(layer["size"].as_u64());
        let Some((digest, size)) = blob else {
            let said = "a layer without a digest or a size".to_owned();
            return Err(RegistryError::Answer { name, origin, said });
        };
        let name = format!("{repository}@{digest}");
        if size > limit_bytes {
            return Err(RegistryError::TooLong { name, origin, limit: limit_bytes });
        }
        let mut body = self.client.blob(repository, &Descriptor { digest, size }).await?;
        let mut bytes = Vec::new();
        while let Some(chunk) = body.chunk().await? {
            bytes.extend_from_slice(chunk.as_ref());
            if bytes.len() as u64 > limit_bytes {
                return Err(RegistryError::TooLong { name, origin, limit: limit_bytes });
            }
        }
        let actual = Digest::of(digest.function(), &bytes);
        if actual != digest {
            return Err(RegistryError::Mismatch { name, origin, actual: actual.to_string() });
        }
        Ok(bytes)
    }
}

/// The configuration and manifest of signatures in the older form: those of an image whose layers they are.
fn older_form(layers: &[Value]) -> (Vec<u8>, Descriptor, Vec<u8>) {
    let contents: Vec<&Value> = layers.iter().map(|layer| &layer["digest"]).collect();
    let config = json!({
        "architecture": "", "config": {}, "os": "", "rootfs": { "type": "layers", "diff_ids": contents },
    });
    let config = config.to_string().into_bytes();
    let blob = Descriptor::of(DigestFunction::Sha256, &config);
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST_MEDIA_TYPE,
        "config": descriptor(CONFIG_MEDIA_TYPE, &blob),
        "layers": layers,
    });
    (config, blob, manifest.to_string().into_bytes())
}

fn layers_of(manifest: &[u8]) -> Vec<Value> {
    let manifest: Value = serde_json::from_slice(manifest).unwrap_or_default();
    manifest["layers"].as_array().cloned().unwrap_or_default()
}

fn descriptor(media_type: &str, blob: &Descriptor) -> Value {
    json!({ "mediaType": media_type, "digest": blob.digest.to_string(), "size": blob.size })
}

fn whole(bytes: &[u8]) -> Content {
    let bytes = bytes.to_vec();
    Arc::new(move |sink| sink.write_all(&bytes))
}
