//! What a registry has under a name: documents read, and blobs that are read while they are sent.
//!
//! Documents are kept byte for byte, those of an index too, and an index of indexes within limits. A blob is compared with its
//! name on the way: its last bytes are not handed on before all of it is known to be right.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, Write};
use std::sync::Arc;

use cas_blob::Descriptor;
use cas_digest::{Digest, Hasher};
use cas_oci::{
    ConfigView, Document, IndexItem, Links, MAX_DOCUMENT_BYTES, Reference, Repository, TargetPlatform, choose,
};
use cas_registry::{Client, Content, Fetched, Referrer, RegistryError, Tail};
use tokio::runtime::Handle;

use crate::{CopyOptions, Shipment, ShippedBlob, ShippedDocument, SyncError};

/// Deepest chain of documents: indexes in indexes, and the manifest.
const MAX_DEPTH: usize = 4;
/// More documents than anything has.
const MAX_DOCUMENTS: usize = 4096;
/// All of them together, which are held until they are sent.
const MAX_ALL_BYTES: u64 = 256 << 20;

/// Deepest chain of what refers to what refers to a document: a signature of a list of contents of an image.
const MAX_FOLLOWING_DEPTH: usize = 3;

/// What was found under a name.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) shipment: Shipment,
    /// What refers to its documents, each after what it refers to.
    pub(crate) following: Vec<Following>,
    /// Layers that are in no registry.
    pub(crate) elsewhere: Vec<Descriptor>,
    /// What is listed as referring to a document, and is not there or cannot be read.
    pub(crate) lost: Vec<Digest>,
}

/// A manifest that refers to a document that is copied.
#[derive(Clone, Debug)]
pub(crate) struct Following {
    pub(crate) subject: Digest,
    pub(crate) referrer: Referrer,
    /// The manifest, after those that it names.
    pub(crate) documents: Vec<ShippedDocument>,
}

/// Reads what a name stands for, or of an index what it has for a platform.
pub(crate) async fn find(
    client: &Arc<Client>,
    reference: &Reference,
    options: &CopyOptions<'_>,
) -> Result<Found, SyncError> {
    let repository = &reference.repository;
    let mut reading = Reading {
        client,
        repository,
        name: reference.to_string(),
        all_bytes: 0,
        known: BTreeSet::new(),
        blobs: BTreeMap::new(),
        elsewhere: BTreeSet::new(),
    };
    let mut fetched = root(client, reference).await?;
    let mut told = fetched.media_type.clone();
    if let Some(wanted) = options.platform {
        (fetched, told) = reading.of_platform(fetched, told, wanted).await?;
    }
    let documents = reading.walk(fetched, told).await?;
    let (following, lost) = match options.referrers {
        true => reading.following(&documents).await?,
        false => (Vec::new(), Vec::new()),
    };
    let Reading { blobs, elsewhere, .. } = reading;
    let mut blobs: Vec<(Descriptor, usize)> = blobs.into_iter().collect();
    blobs.sort_by_key(|(_, number)| *number);
    let blobs = blobs.into_iter().map(|(blob, _)| ShippedBlob {
        blob,
        content: content(Arc::clone(client), Handle::current(), repository.clone(), blob),
        source: Some(repository.clone()),
    });
    let shipment = Shipment { documents, blobs: blobs.collect() };
    Ok(Found { shipment, following, elsewhere: elsewhere.into_iter().collect(), lost })
}

/// The document that a name stands for now.
pub(crate) async fn root(client: &Client, reference: &Reference) -> Result<Fetched, RegistryError> {
    match (&reference.digest, &reference.tag) {
        (Some(digest), _) => client.document(&reference.repository, digest).await,
        (None, tag) => client.resolve(&reference.repository, tag.as_deref().unwrap_or_default()).await,
    }
}

/// A document as it is sent on, alone.
pub(crate) fn alone(name: &str, fetched: Fetched) -> Result<ShippedDocument, SyncError> {
    let told = fetched.media_type.clone();
    opened(name, fetched, told).map(|opened| opened.document)
}

struct Opened {
    document: ShippedDocument,
    links: Links,
}

fn opened(name: &str, fetched: Fetched, told: Option<String>) -> Result<Opened, SyncError> {
    let name = || format!("{name} ({})", fetched.blob.digest);
    let links = Links::parse(&fetched.bytes, told.as_deref())
        .map_err(|source| SyncError::Document { name: name(), source: Box::new(source) })?;
    let media_type = links.media_type.clone();
    Ok(Opened { document: ShippedDocument { blob: fetched.blob, media_type, bytes: fetched.bytes }, links })
}

struct Reading<'a> {
    client: &'a Arc<Client>,
    repository: &'a Repository,
    name: String,
    all_bytes: u64,
    /// Documents that were met.
    known: BTreeSet<Digest>,
    /// What documents name, in the order in which it was met.
    blobs: BTreeMap<Descriptor, usize>,
    elsewhere: BTreeSet<Descriptor>,
}

impl Reading<'_> {
    /// A document and those that it names and that are not known yet, each after what it names.
    async fn walk(&mut self, fetched: Fetched, told: Option<String>) -> Result<Vec<ShippedDocument>, SyncError> {
        let mut documents = Vec::new();
        self.known.insert(fetched.blob.digest);
        // Each is opened before those that it names, and closed after them.
        let mut open = vec![(self.opened(fetched, told)?, 0)];
        while let Some((last, next)) = open.last_mut() {
            let Some((blob, media_type)) = last.links.documents.get(*next).cloned() else {
                let Opened { document, links } = open.pop().expect("it is the last one").0;
                documents.push(document);
                for blob in links.blobs {
                    let number = self.blobs.len();
                    self.blobs.entry(blob).or_insert(number);
                }
                self.elsewhere.extend(links.elsewhere);
                continue;
            };
            *next += 1;
            if !self.known.insert(blob.digest) {
                continue;
            }
            if open.len() == MAX_DEPTH || self.known.len() > MAX_DOCUMENTS {
                return Err(self.nested());
            }
            let fetched = self.fetched(&blob).await?;
            open.push((self.opened(fetched, Some(media_type).filter(|text| !text.is_empty()))?, 0));
        }
        Ok(documents)
    }

    /// What refers to documents, and to that again.
    async fn following(&mut self, documents: &[ShippedDocument]) -> Result<(Vec<Following>, Vec<Digest>), SyncError> {
        let (mut following, mut lost) = (Vec::new(), Vec::new());
        // What is meant comes first.
        let mut open: VecDeque<(Digest, usize)> =
            documents.iter().rev().map(|document| (document.blob.digest, 0)).collect();
        while let Some((subject, depth)) = open.pop_front() {
            let listed = self.client.referrers(self.repository, &subject, None).await;
            let listed = listed.map_err(|error| match error {
                RegistryError::Interrupted => SyncError::Registry(error),
                source => SyncError::Referrers { name: format!("{}@{subject}", self.repository), source },
            })?;
            for referrer in listed {
                let digest = referrer.blob.digest;
                // Statements of BuildKit stand in the index as well.
                if !self.known.insert(digest) {
                    continue;
                }
                if depth == MAX_FOLLOWING_DEPTH || self.known.len() > MAX_DOCUMENTS {
                    return Err(self.nested());
                }
                let fetched = match self.fetched(&referrer.blob).await {
                    Err(SyncError::Registry(error)) if error.is_not_found() => {
                        lost.push(digest);
                        continue;
                    }
                    other => other?,
                };
                let told = Some(referrer.media_type.clone());
                match Links::parse(&fetched.bytes, told.as_deref()) {
                    Ok(links) if links.subject == Some(subject) => {}
                    // Lists are written by anybody.
                    Ok(_) => continue,
                    Err(_) => {
                        lost.push(digest);
                        continue;
                    }
                }
                let documents = self.walk(fetched, told).await?;
                open.push_back((digest, depth + 1));
                following.push(Following { subject, referrer, documents });
            }
        }
        Ok((following, lost))
    }

    fn nested(&self) -> SyncError {
        SyncError::Nested { name: self.name.clone(), depth: MAX_DEPTH, count: MAX_DOCUMENTS }
    }

    fn opened(&mut self, fetched: Fetched, told: Option<String>) -> Result<Opened, SyncError> {
        self.all_bytes += fetched.blob.size;
        if self.all_bytes > MAX_ALL_BYTES {
            return Err(self.nested());
        }
        opened(&self.name, fetched, told)
    }

    async fn fetched(&self, blob: &Descriptor) -> Result<Fetched, SyncError> {
        let fetched = self.client.document(self.repository, &blob.digest).await?;
        if fetched.blob.size == blob.size {
            return Ok(fetched);
        }
        let said = format!("an index names it with {} bytes, and it has {}", blob.size, fetched.blob.size);
        Err(SyncError::Named { name: format!("{}@{}", self.repository, blob.digest), said })
    }

    /// The manifest for a platform, and what it is said to be.
    async fn of_platform(
        &self,
        mut fetched: Fetched,
        mut told: Option<String>,
        wanted: &TargetPlatform,
    ) -> Result<(Fetched, Option<String>), SyncError> {
        let failed = |source| SyncError::Document { name: self.name.clone(), source: Box::new(source) };
        let refused = |known: Vec<String>| SyncError::Platform {
            name: self.name.clone(),
            wanted: wanted.to_string(),
            known: known.join("`, `"),
        };
        for _ in 0..MAX_DEPTH {
            let manifest = match Document::parse(&fetched.bytes, told.as_deref()).map_err(failed)? {
                Document::Manifest(manifest) => manifest,
                Document::Index(items) => {
                    let found = choose(&items, wanted).ok_or_else(|| refused(platforms(&items)))?;
                    fetched = self.fetched(&found.blob).await?;
                    told = Some(found.media_type.clone()).filter(|text| !text.is_empty());
                    continue;
                }
            };
            let config = self.small(&manifest.config).await?;
            let own = ConfigView::parse(&config).map_err(failed)?.platform;
            return if own.runs_where(wanted) { Ok((fetched, told)) } else { Err(refused(vec![own.to_string()])) };
        }
        Err(self.nested())
    }

    /// A configuration, whole.
    async fn small(&self, blob: &Descriptor) -> Result<Vec<u8>, SyncError> {
        let name = format!("{}@{}", self.repository, blob.digest);
        if blob.size > MAX_DOCUMENT_BYTES {
            let said = format!("it has {} bytes, and is named as a configuration", blob.size);
            return Err(SyncError::Named { name, said });
        }
        let mut body = self.client.blob(self.repository, blob).await?;
        let mut bytes = Vec::new();
        while let Some(chunk) = body.chunk().await? {
            bytes.extend_from_slice(chunk.as_ref());
            if bytes.len() as u64 > blob.size {
                break;
            }
        }
        compare(&name, blob, bytes.len() as u64, &Digest::of(blob.digest.function(), &bytes))?;
        Ok(bytes)
    }
}

fn platforms(items: &[IndexItem]) -> Vec<String> {
    let images = items.iter().filter(|item| !item.is_attestation);
    images.filter_map(|item| Some(item.platform.as_ref()?.to_string())).collect()
}

fn compare(name: &str, blob: &Descriptor, size: u64, digest: &Digest) -> Result<(), SyncError> {
    let said = match size {
        size if size > blob.size => format!("it has more than {} bytes", blob.size),
        size if size < blob.size => format!("it ends after {size} of {} bytes", blob.size),
        _ if *digest != blob.digest => format!("its bytes are `{digest}`"),
        _ => return Ok(()),
    };
    Err(SyncError::Named { name: name.to_owned(), said })
}

/// The bytes of a blob, fetched when they are asked for.
fn content(client: Arc<Client>, runtime: Handle, repository: Repository, blob: Descriptor) -> Content {
    Arc::new(move |sink| {
        stream(&client, &runtime, &repository, &blob, sink).map_err(|error| match error {
            // Who reads has gone, which is no fault of what is read.
            Streaming::Sink(error) => error,
            Streaming::Source(error) => io::Error::other(error),
        })
    })
}

/// What an upload that broke off lacks of a blob. Its first bytes are not read again, so only whoever takes it can say whether all of it
/// is right together; its length is compared.
pub(crate) fn tail(client: Arc<Client>, runtime: Handle, repository: Repository, blob: Descriptor) -> Tail {
    Arc::new(move |from, sink| {
        let failed = |error: SyncError| io::Error::other(error);
        let body = runtime.block_on(client.blob_from(&repository, &blob, from));
        let mut body = body.map_err(|error| failed(error.into()))?;
        let mut size = from;
        while let Some(chunk) = runtime.block_on(body.chunk()).map_err(|error| failed(error.into()))? {
            size += chunk.as_ref().len() as u64;
            if size > blob.size {
                break;
            }
            sink.write_all(chunk.as_ref())?;
        }
        compare(&format!("{repository}@{}", blob.digest), &blob, size, &blob.digest).map_err(failed)
    })
}

enum Streaming {
    Source(SyncError),
    Sink(io::Error),
}

impl<E: Into<SyncError>> From<E> for Streaming {
    fn from(error: E) -> Self {
        Self::Source(error.into())
    }
}

fn stream(
    client: &Client,
    runtime: &Handle,
    repository: &Repository,
    blob: &Descriptor,
    sink: &mut dyn Write,
) -> Result<(), Streaming> {
    let mut body = runtime.block_on(client.blob(repository, blob))?;
    let (mut hasher, mut size, mut held) = (Hasher::new(blob.digest.function()), 0, None);
    while let Some(chunk) = runtime.block_on(body.chunk())? {
        size += chunk.as_ref().len() as u64;
        if size > blob.size {
            break;
        }
        hasher.update(chunk.as_ref());
        if let Some(before) = held.replace(chunk) {
            sink.write_all(before.as_ref()).map_err(Streaming::Sink)?;
        }
    }
    compare(&format!("{repository}@{}", blob.digest), blob, size, &hasher.finish())?;
    held.map_or(Ok(()), |last| sink.write_all(last.as_ref())).map_err(Streaming::Sink)
}
