//! What refers to a manifest: signatures, statements and whatever else has it as its `subject` (OCI distribution-spec 1.1).
//!
//! Registries that know `subject` are asked at `referrers/DIGEST`. For those that do not there is a tag with an index, which
//! whoever pushes keeps by hand: read, added to, written and looked at again. The protocol cannot compare and set there.

use std::collections::BTreeMap;

use cas_blob::Descriptor;
use cas_digest::Digest;
use cas_oci::{EMPTY_MEDIA_TYPE, INDEX_MEDIA_TYPE, MAX_DOCUMENT_BYTES, Repository, digest_of};
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{Method, Url};
use serde_json::{Value, json};

use crate::RegistryError;
use crate::address::Endpoint;
use crate::client::{ATTEMPTS, Ask, Client, read_limited, transport};
use crate::pages::Next;
use crate::quirks::Cope;

/// Pages that are read of one list.
const MAX_PAGES: usize = 64;
/// Referrers of one manifest that are read: whoever may write there may add any number of them.
pub const MAX_REFERRERS: usize = 4096;
/// How often the index at the tag is read and written before somebody else's writes win.
const WRITE_ATTEMPTS: u32 = 5;
/// Digits of a digest that a tag has room for.
const MAX_TAG_DIGITS: usize = 64;

/// A manifest that refers to another one. Nothing of it is proved: it helps to choose what is fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Referrer {
    /// What the manifest is.
    pub media_type: String,
    /// The manifest.
    pub blob: Descriptor,
    /// What it holds.
    pub artifact_type: Option<String>,
    /// What is told of it.
    pub annotations: BTreeMap<String, String>,
}

/// How a referrer is found again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Linked {
    /// The registry keeps the list.
    ByRegistry,
    /// An index at a tag names it.
    ByTag,
}

/// One page of a list, and where the next one is.
type Page = (Vec<Value>, Option<String>);

/// The tag whose index names what refers to a manifest, where the registry keeps no list.
#[must_use]
pub fn referrers_tag(digest: &Digest) -> String {
    let digits: String = digest.to_hex().chars().take(MAX_TAG_DIGITS).collect();
    format!("{}-{digits}", digest.function().name())
}

impl Referrer {
    /// Reads an entry of an index; `None` for what names no manifest.
    fn of(item: &Value) -> Option<Self> {
        let text = |key: &str| item.get(key).and_then(Value::as_str).map(str::to_owned);
        let digest = digest_of(item.get("digest")?.as_str()?)?;
        let texts = item.get("annotations").and_then(Value::as_object);
        let texts = texts.into_iter().flatten();
        let annotations = texts.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect();
        Some(Self {
            media_type: text("mediaType")?,
            blob: Descriptor { digest, size: item.get("size")?.as_u64()? },
            artifact_type: text("artifactType").filter(|kind| !kind.is_empty()),
            annotations,
        })
    }

    fn to_json(&self) -> Value {
        let mut item = json!({
            "mediaType": self.media_type,
            "digest": self.blob.digest.to_string(),
            "size": self.blob.size,
        });
        if let Some(kind) = &self.artifact_type {
            item["artifactType"] = json!(kind);
        }
        if !self.annotations.is_empty() {
            item["annotations"] = json!(self.annotations);
        }
        item
    }
}

impl Client {
    /// What refers to a manifest, each once, in the registry's order; of one type of artifact alone, if one is named, and then also
    /// what an index that was kept by hand has without a type.
    ///
    /// # Errors
    ///
    /// [`RegistryError`]; nothing that refers to it is no error.
    pub async fn referrers(
        &self,
        repository: &Repository,
        digest: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Vec<Referrer>, RegistryError> {
        let endpoint = self.mirrored(repository);
        let name = format!("{repository}@{digest}");
        let listed = self.listed(&endpoint, &name, digest, artifact_type).await?;
        let is_unknown = listed.is_none();
        let mut items = listed.unwrap_or_default();
        let is_by_tag = items.is_empty() && (is_unknown || self.quirks.has(Cope::EmptyLists));
        if is_by_tag {
            items = self.tagged(&endpoint, repository, digest).await?.unwrap_or_default();
        }
        // A list kept by hand may tell the type of the configuration, or none: then whoever reads the manifest sees what it is.
        let is_of = |kind: Option<&str>, wanted| match kind {
            None | Some(EMPTY_MEDIA_TYPE) if is_by_tag => true,
            kind => kind == Some(wanted),
        };
        let mut found: Vec<Referrer> = Vec::new();
        for referrer in items.iter().filter_map(Referrer::of) {
            let is_wanted = artifact_type.is_none_or(|wanted| is_of(referrer.artifact_type.as_deref(), wanted));
            if is_wanted && !found.iter().any(|other| other.blob.digest == referrer.blob.digest) {
                found.push(referrer);
            }
        }
        Ok(found)
    }

    /// Sends a manifest that has `subject`, so that it is found from there. What it names, and the blobs, are to be there.
    ///
    /// # Errors
    ///
    /// [`RegistryError`]; [`RegistryError::Contended`] when others always write in between.
    pub async fn push_referrer(
        &self,
        repository: &Repository,
        subject: &Digest,
        referrer: &Referrer,
        bytes: &[u8],
    ) -> Result<Linked, RegistryError> {
        let digest = &referrer.blob.digest;
        let is_seen = self.push_document(repository, &digest.to_string(), &referrer.media_type, bytes, digest).await?;
        if is_seen || !self.quirks.has(Cope::SubjectUnseen) {
            return Ok(Linked::ByRegistry);
        }
        let endpoint = self.endpoint(repository);
        let tag = referrers_tag(subject);
        let mut attempt = 1;
        loop {
            let mut items = self.tagged(&endpoint, repository, subject).await?.unwrap_or_default();
            let name = digest.to_string();
            if items.iter().any(|item| item.get("digest").and_then(Value::as_str) == Some(&name)) {
                return Ok(Linked::ByTag);
            }
            items.push(referrer.to_json());
            if items.len() > MAX_REFERRERS {
                return Err(too_many(&format!("{repository}@{subject}"), &endpoint));
            }
            let index = json!({ "schemaVersion": 2, "mediaType": INDEX_MEDIA_TYPE, "manifests": items }).to_string();
            let written = Digest::of(digest.function(), index.as_bytes());
            match self.push_document(repository, &tag, INDEX_MEDIA_TYPE, index.as_bytes(), &written).await {
                Ok(_) => return Ok(Linked::ByTag),
                // Somebody else was there; what they wrote may have ours or not.
                Err(RegistryError::Mismatch { .. } | RegistryError::NotKept { .. }) if attempt < WRITE_ATTEMPTS => {
                    self.wait(None, attempt.min(ATTEMPTS - 1)).await?;
                    attempt += 1;
                }
                Err(RegistryError::Mismatch { .. } | RegistryError::NotKept { .. }) => {
                    let name = format!("{repository}:{tag}");
                    return Err(RegistryError::Contended { name, origin: endpoint.origin.clone() });
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The registry's own list; `None` where it keeps none.
    async fn listed(
        &self,
        endpoint: &Endpoint,
        name: &str,
        digest: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Option<Vec<Value>>, RegistryError> {
        let base = endpoint.url("referrers", &digest.to_string());
        let mut url = match Url::parse_with_params(&base, artifact_type.map(|kind| ("artifactType", kind))) {
            Ok(url) if artifact_type.is_some() => url.to_string(),
            _ => base,
        };
        let mut all = Vec::new();
        for _ in 0..MAX_PAGES {
            let Some((items, next)) = self.page(endpoint, name, &url).await? else { return Ok(None) };
            all.extend(items);
            if all.len() > MAX_REFERRERS {
                return Err(too_many(name, endpoint));
            }
            match next {
                Some(next) => url = next,
                None => return Ok(Some(all)),
            }
        }
        Err(too_many(name, endpoint))
    }

    async fn page(&self, endpoint: &Endpoint, name: &str, url: &str) -> Result<Option<Page>, RegistryError> {
        let ask = Ask::new(Method::GET, url).header(ACCEPT, INDEX_MEDIA_TYPE);
        let response = match self.send(endpoint, name, &ask).await {
            Ok(response) => response,
            Err(error) if self.has_no_list(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        let header = |key| response.headers().get(key).and_then(|value| value.to_str().ok());
        let is_index = header(CONTENT_TYPE).is_some_and(|text| text.split(';').next() == Some(INDEX_MEDIA_TYPE));
        let next = Next::of(&response, url, endpoint);
        // Pages for people are no list.
        if !is_index && self.quirks.has(Cope::ListsAreIndexes) {
            return Ok(None);
        }
        let next = match next {
            Next::End => None,
            Next::Page(url) => Some(url),
            Next::Elsewhere(address) => {
                return Err(RegistryError::Page { name: name.to_owned(), origin: endpoint.origin.clone(), address });
            }
        };
        let read = self.unless_stopped(read_limited(response, MAX_DOCUMENT_BYTES)).await?;
        let bytes = read.map_err(|error| transport(endpoint, name, error))?.ok_or_else(|| RegistryError::TooLong {
            name: name.to_owned(),
            origin: endpoint.origin.clone(),
            limit: MAX_DOCUMENT_BYTES,
        })?;
        Ok(Some((manifests(&bytes).ok_or_else(|| no_index(name, endpoint))?, next)))
    }

    /// Whether a registry says by an error that it keeps no lists.
    fn has_no_list(&self, error: &RegistryError) -> bool {
        match error {
            RegistryError::NotFound { .. } => self.quirks.has(Cope::NoReferrers(404)),
            RegistryError::Status { status, .. } | RegistryError::Denied { status, is_asked: false, .. } => {
                self.quirks.has(Cope::NoReferrers(*status))
            }
            _ => false,
        }
    }

    /// What the index at the tag has; `None` without one.
    async fn tagged(
        &self,
        endpoint: &Endpoint,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Option<Vec<Value>>, RegistryError> {
        let tag = referrers_tag(digest);
        let fetched = match self.resolve_at(endpoint, repository, &tag).await {
            Ok(fetched) => fetched,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error),
        };
        if fetched.blob.digest == *digest && self.quirks.has(Cope::TagIsDigest) {
            return Ok(None);
        }
        let name = format!("{repository}:{tag}");
        let items = manifests(&fetched.bytes).ok_or_else(|| no_index(&name, endpoint))?;
        if items.len() > MAX_REFERRERS {
            return Err(too_many(&name, endpoint));
        }
        Ok(Some(items))
    }
}

/// The entries of an index; `None` for what is none.
fn manifests(bytes: &[u8]) -> Option<Vec<Value>> {
    match serde_json::from_slice::<Value>(bytes).ok()?.get_mut("manifests")?.take() {
        Value::Array(items) => Some(items),
        Value::Null => Some(Vec::new()),
        _ => None,
    }
}

fn too_many(name: &str, endpoint: &Endpoint) -> RegistryError {
    RegistryError::TooMany { name: name.to_owned(), origin: endpoint.origin.clone(), limit: MAX_REFERRERS }
}

fn no_index(name: &str, endpoint: &Endpoint) -> RegistryError {
    RegistryError::NoIndex { name: name.to_owned(), origin: endpoint.origin.clone() }
}
