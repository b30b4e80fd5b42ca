//! Writing: blobs and documents, each looked for afterwards (OCI distribution-spec 1.1, "Push").
//!
//! A blob goes in one request where the server lets it; what broke off goes on from where the server says that it stopped.

use std::sync::PoisonError;
use std::time::Duration;

use cas_blob::Descriptor;
use cas_digest::{Digest, DigestFunction};
use cas_oci::{Repository, digest_of};
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderName, LOCATION, RANGE};
use reqwest::{Method, Response, StatusCode, Url};

use crate::RegistryError;
use crate::address::Endpoint;
use crate::client::{ATTEMPTS, Ask, Client, Failed, Rights};
use crate::quirks::Cope;
use crate::sending::{Content, Failure, Tail, body};
use crate::whereabouts::{MIN_REMEMBERED_BYTES, Whereabouts};

/// How much goes in one request to servers that take no more at once.
const CHUNK_BYTES: u64 = 64 << 20;

/// How a blob came to be in a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// It was there.
    Known,
    /// The server took it from another repository of its own.
    Mounted,
    /// It was sent.
    Sent,
}

/// A repository that is written into, and the blob that is meant.
struct Upload<'a> {
    endpoint: Endpoint,
    name: String,
    blob: &'a Descriptor,
    content: &'a Content,
    tail: Option<&'a Tail>,
    rights: Rights,
    failure: Failure,
}

impl Client {
    /// What a tag or a digest names in a repository, as the server says; `None` where it names nothing. Mirrors are not asked.
    ///
    /// # Errors
    ///
    /// [`RegistryError`]
    pub async fn look(&self, repository: &Repository, reference: &str) -> Result<Option<Digest>, RegistryError> {
        let endpoint = self.endpoint(repository);
        let name = named(repository, reference);
        let ask = || {
            let ask = Ask::new(Method::HEAD, endpoint.url("manifests", reference)).accepting_documents();
            ask.rights(Rights::of_push())
        };
        let read = async || Ok(Some(self.resolve_at(&endpoint, repository, reference).await?.blob.digest));
        if !self.quirks.has(Cope::HeadFirst) {
            return read().await;
        }
        let response = match self.send(&endpoint, &name, &ask()).await {
            Ok(response) => response,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(RegistryError::Status { status, .. }) if self.quirks.has(Cope::NoHead(status)) => {
                return match read().await {
                    Err(error) if error.is_not_found() => Ok(None),
                    other => other,
                };
            }
            Err(error) => return Err(error),
        };
        match header(&response, &HeaderName::from_static("docker-content-digest")).and_then(digest_of) {
            Some(digest) => Ok(Some(digest)),
            // It is there, and only its bytes tell what it is.
            None if self.quirks.has(Cope::NoDigest) => read().await,
            None => Err(RegistryError::Answer { name, origin: endpoint.origin, said: "no digest".to_owned() }),
        }
    }

    /// Whether a repository has a blob. Mirrors are not asked.
    ///
    /// # Errors
    ///
    /// [`RegistryError`]
    pub async fn has_blob(&self, repository: &Repository, blob: &Descriptor) -> Result<bool, RegistryError> {
        let endpoint = self.endpoint(repository);
        let rights = Rights::of_push();
        self.has(&endpoint, &format!("{repository}@{}", blob.digest), blob, &rights).await
    }

    /// Sends a blob, unless it is there; `source` is another repository of the same server that may have it. Without one, what is remembered counts
    /// ([`Self::remembering`]).
    ///
    /// # Errors
    ///
    /// [`RegistryError`]
    pub async fn push_blob(
        &self,
        repository: &Repository,
        blob: &Descriptor,
        content: &Content,
        source: Option<&Repository>,
    ) -> Result<Delivery, RegistryError> {
        self.push_blob_with_tail(repository, blob, content, None, source).await
    }

    /// The same, where `tail` writes what an upload that broke off still lacks.
    ///
    /// # Errors
    ///
    /// [`RegistryError`]
    pub async fn push_blob_with_tail(
        &self,
        repository: &Repository,
        blob: &Descriptor,
        content: &Content,
        tail: Option<&Tail>,
        source: Option<&Repository>,
    ) -> Result<Delivery, RegistryError> {
        let known = source.filter(|source| source.host == repository.host && *source != repository);
        let remembered = if known.is_none() { self.remembered(repository, blob) } else { None };
        let is_remembered = remembered.is_some();
        let mut upload = Upload {
            endpoint: self.endpoint(repository),
            name: format!("{repository}@{}", blob.digest),
            blob,
            content,
            tail,
            rights: Rights { may_push: true, source: known.map(|known| known.path.clone()).or(remembered) },
            failure: Failure::default(),
        };
        let delivered = match self.deliver(&upload).await {
            Err(error) if upload.rights.source.is_some() && self.may_be_the_mount(&error, is_remembered) => {
                upload.rights.source = None;
                self.deliver(&upload).await
            }
            other => other,
        };
        if let (Ok(_), Some(whereabouts)) = (&delivered, self.whereabouts_of(blob)) {
            whereabouts.note(repository, blob);
        }
        delivered
    }

    /// Whether something may have failed for the mount alone. What is remembered need not be so any more.
    fn may_be_the_mount(&self, error: &RegistryError, is_remembered: bool) -> bool {
        match error {
            RegistryError::Denied { status, .. } => is_remembered || self.quirks.has(Cope::MountRefused(*status)),
            RegistryError::NotFound { .. }
            | RegistryError::Status { .. }
            | RegistryError::Token { .. }
            | RegistryError::NotKept { .. }
            | RegistryError::Answer { .. } => is_remembered,
            _ => false,
        }
    }

    fn whereabouts_of(&self, blob: &Descriptor) -> Option<&dyn Whereabouts> {
        self.whereabouts.as_deref().filter(|_| blob.size >= MIN_REMEMBERED_BYTES)
    }

    /// Another repository of the same server that had a blob.
    fn remembered(&self, repository: &Repository, blob: &Descriptor) -> Option<String> {
        self.whereabouts_of(blob)?.find(&repository.host, blob).filter(|path| *path != repository.path)
    }

    async fn deliver(&self, upload: &Upload<'_>) -> Result<Delivery, RegistryError> {
        let has = || self.has(&upload.endpoint, &upload.name, upload.blob, &upload.rights);
        if has().await? {
            return Ok(Delivery::Known);
        }
        let mut attempt = 1;
        loop {
            let failed = match self.upload(upload).await? {
                // Some servers take what they do not keep.
                Ok(delivery) if !self.quirks.has(Cope::LookAfterwards) || has().await? => return Ok(delivery),
                Ok(_) => return Err(upload.not_kept()),
                Err(failed) => failed,
            };
            if let Some(source) = upload.failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
                return Err(RegistryError::Content { name: upload.name.clone(), source });
            }
            if attempt == ATTEMPTS || !failed.may_help {
                return Err(failed.error);
            }
            self.wait(failed.pause, attempt).await?;
            attempt += 1;
        }
    }

    /// Sends a document under a tag or its digest; everything that it names is to be there. Tells whether the server has seen that
    /// the document is about another one, where it says so.
    ///
    /// # Errors
    ///
    /// [`RegistryError`]
    pub async fn push_document(
        &self,
        repository: &Repository,
        reference: &str,
        media_type: &str,
        bytes: &[u8],
        digest: &Digest,
    ) -> Result<bool, RegistryError> {
        let endpoint = self.endpoint(repository);
        let name = named(repository, reference);
        let body = || reqwest::Body::from(bytes.to_vec());
        let ask = Ask::new(Method::PUT, endpoint.url("manifests", reference));
        let ask = ask.header(CONTENT_TYPE, media_type).rights(Rights::of_push()).body(&body);
        let response = self.send(&endpoint, &name, &ask).await?;
        let knows_subject = response.headers().contains_key("oci-subject");
        if !self.quirks.has(Cope::LookAfterwards) {
            return Ok(knows_subject);
        }
        match self.look(repository, reference).await? {
            Some(found) if is_same(&found, digest, bytes) => Ok(knows_subject),
            Some(found) => {
                Err(RegistryError::Mismatch { name, origin: endpoint.origin.clone(), actual: found.to_string() })
            }
            None => Err(RegistryError::NotKept { name, origin: endpoint.origin.clone() }),
        }
    }

    /// Whether the repository has a blob of that length.
    async fn has(
        &self,
        endpoint: &Endpoint,
        name: &str,
        blob: &Descriptor,
        rights: &Rights,
    ) -> Result<bool, RegistryError> {
        let ask = Ask::new(Method::HEAD, endpoint.url("blobs", &blob.digest.to_string()));
        match self.send(endpoint, name, &ask.rights(rights.clone())).await {
            Ok(response) => {
                let length = header(&response, &CONTENT_LENGTH).and_then(|text| text.parse::<u64>().ok());
                Ok(length.is_none_or(|length| length == blob.size))
            }
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn upload(&self, upload: &Upload<'_>) -> Result<Result<Delivery, Failed>, RegistryError> {
        let Upload { endpoint, name, blob, rights, .. } = upload;
        let mut url = endpoint.url("blobs", "uploads/");
        let mut separator = '?';
        if let Some(source) = &rights.source {
            url.push_str(&format!("?mount={}&from={source}", blob.digest));
            separator = '&';
        }
        if blob.digest.function() == DigestFunction::Sha512 {
            url.push_str(&format!("{separator}digest-algorithm=sha512"));
        }
        let body = || reqwest::Body::from(Vec::new());
        let ask = Ask::new(Method::POST, url).header(CONTENT_LENGTH, "0").rights(rights.clone()).body(&body);
        let begun = match self.send_once(endpoint, name, &ask).await? {
            Ok(response) => response,
            Err(failed) => return Ok(Err(failed)),
        };
        if begun.status() == StatusCode::CREATED && rights.source.is_some() {
            return Ok(Ok(Delivery::Mounted));
        }
        if rights.source.is_some() && !self.quirks.has(Cope::MountIgnored) {
            let (name, origin) = (name.clone(), endpoint.origin.clone());
            return Err(RegistryError::Answer { name, origin, said: "no mount".to_owned() });
        }
        let session = self.session(endpoint, name, &begun, &endpoint.url("blobs", "uploads/"))?;
        let whole = match self.quirks.has(Cope::WholeFirst) {
            true => self.finish(upload, &session, 0).await?,
            false => Err(Failed { error: upload.not_kept(), pause: Some(Duration::ZERO), may_help: true }),
        };
        let failed = match whole {
            Ok(()) => return Ok(Ok(Delivery::Sent)),
            Err(failed) => failed,
        };
        let has_failed = upload.has_failed();
        let is_too_long = self.shorter(&failed).is_some();
        if has_failed || !(failed.may_help || is_too_long) {
            // Servers behind one address may not know of each other's uploads.
            let is_lost = self.quirks.has(Cope::BeginAgain) && matches!(failed.error, RegistryError::NotFound { .. });
            return Ok(Err(Failed { may_help: failed.may_help || is_lost, ..failed }));
        }
        self.go_on(upload, session, failed).await
    }

    /// Sends the bytes from a position on, and ends the upload.
    async fn finish(&self, upload: &Upload<'_>, session: &Url, from: u64) -> Result<Result<(), Failed>, RegistryError> {
        let Upload { endpoint, name, blob, content, tail, failure, rights } = upload;
        let mut url = session.clone();
        url.query_pairs_mut().append_pair("digest", &blob.digest.to_string());
        let body = || body(content, *tail, from..blob.size, failure);
        let ask = Ask::new(Method::PUT, url.as_str()).header(CONTENT_TYPE, "application/octet-stream");
        let ask = ask.header(CONTENT_LENGTH, &(blob.size - from).to_string()).rights(rights.clone()).body(&body);
        Ok(self.send_once(endpoint, name, &ask).await?.map(drop))
    }

    /// After an upload broke off: in pieces from where the server says that it is, as long as it gets on.
    async fn go_on(
        &self,
        upload: &Upload<'_>,
        mut session: Url,
        mut failed: Failed,
    ) -> Result<Result<Delivery, Failed>, RegistryError> {
        let Upload { endpoint, name, blob, content, tail, failure, rights } = upload;
        let mut furthest = None;
        let mut longest = self.shorter(&failed).unwrap_or(CHUNK_BYTES);
        loop {
            self.wait(failed.pause, 1).await?;
            let ask = Ask::new(Method::GET, session.as_str()).rights(rights.clone());
            let Ok(status) = self.send_once(endpoint, name, &ask).await? else { return Ok(Err(failed)) };
            let position = self.position(&status);
            if furthest.is_some_and(|furthest| position <= furthest) {
                return Ok(Err(failed));
            }
            furthest = Some(position);
            session = self.session(endpoint, name, &status, session.as_str())?;
            let least = header(&status, &HeaderName::from_static("oci-chunk-min-length"));
            let most = least.and_then(|text| text.parse().ok()).unwrap_or(0).max(longest);
            let (mut from, mut sent) = (position, 0);
            let broken = loop {
                if from >= blob.size {
                    break match self.finish(upload, &session, blob.size).await? {
                        Ok(()) => return Ok(Ok(Delivery::Sent)),
                        Err(failed) => failed,
                    };
                }
                let to = blob.size.min(from + most);
                sent = to - from;
                let body = || body(content, *tail, from..to, failure);
                let ask = Ask::new(Method::PATCH, session.as_str()).header(CONTENT_TYPE, "application/octet-stream");
                let ask = ask.header(CONTENT_RANGE, &format!("{from}-{}", to - 1));
                let ask = ask.header(CONTENT_LENGTH, &(to - from).to_string()).rights(rights.clone()).body(&body);
                match self.send_once(endpoint, name, &ask).await? {
                    Ok(response)
                        if response.status() == StatusCode::CREATED && !self.quirks.has(Cope::CreatedPiece) =>
                    {
                        return Ok(Err(failed));
                    }
                    Ok(response) => {
                        session = self.session(endpoint, name, &response, session.as_str())?;
                        // What the server says counts, where it says something.
                        let told = header(&response, &RANGE).filter(|_| self.quirks.has(Cope::RangeCounts));
                        let now = told.map_or(to, |_| self.position(&response));
                        // Each piece must get it on, or this has no end.
                        if now <= from {
                            return Ok(Err(failed));
                        }
                        from = now;
                    }
                    Err(failed) => break failed,
                }
            };
            let has_failed = upload.has_failed();
            // It is where it was, and takes less at once.
            if let Some(bytes) = self.shorter(&broken).filter(|bytes| *bytes < longest.min(sent) && !has_failed) {
                (longest, furthest, failed) = (bytes, None, broken);
                continue;
            }
            // The server has lost the upload, or is elsewhere than it said: one from the beginning may do.
            let is_lost = self.quirks.has(Cope::BeginAgain)
                && matches!(broken.error, RegistryError::NotFound { .. } | RegistryError::Status { status: 416, .. });
            if has_failed || is_lost || !broken.may_help {
                return Ok(Err(Failed { may_help: broken.may_help || is_lost, ..broken }));
            }
            failed = broken;
        }
    }

    /// How much a server takes at once that has taken something for too long.
    fn shorter(&self, failed: &Failed) -> Option<u64> {
        match failed.error {
            RegistryError::Status { status, .. } => self.quirks.piece_bytes(status),
            _ => None,
        }
    }

    /// How many bytes a server has: `Range: 0-9` is ten, and nothing said is none.
    fn position(&self, response: &Response) -> u64 {
        let range = header(response, &RANGE).map(|text| text.strip_prefix("bytes=").unwrap_or(text));
        let end = range.and_then(|text| text.rsplit_once('-')?.1.trim().parse::<u64>().ok());
        let is_nothing = |end: u64| end == 0 && self.quirks.has(Cope::ZeroIsNothing);
        end.filter(|end| !is_nothing(*end)).map_or(0, |end| end + 1)
    }

    /// Where an upload goes on. A server behind another one may not know that it is reached in secret.
    pub(crate) fn session(
        &self,
        endpoint: &Endpoint,
        name: &str,
        response: &Response,
        base: &str,
    ) -> Result<Url, RegistryError> {
        let refused = |location: &str| RegistryError::Location {
            name: name.to_owned(),
            origin: endpoint.origin.clone(),
            location: location.to_owned(),
        };
        let base = Url::parse(base).map_err(|_| refused(base))?;
        let Some(location) = header(response, &LOCATION) else { return Ok(base) };
        let joined = match self.quirks.has(Cope::RelativeLocation) {
            true => base.join(location),
            false => Url::parse(location),
        };
        let mut url = joined.map_err(|_| refused(location))?;
        if base.scheme() == "https" && url.scheme() == "http" {
            if url.host_str() != base.host_str() {
                return Err(refused(location));
            }
            url.set_scheme("https").map_err(|()| refused(location))?;
            url.set_port(base.port()).map_err(|()| refused(location))?;
        }
        match url.scheme() {
            "http" | "https" => Ok(url),
            _ => Err(refused(location)),
        }
    }
}

impl Upload<'_> {
    /// Whether what was to be sent could not be read.
    fn has_failed(&self) -> bool {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    fn not_kept(&self) -> RegistryError {
        RegistryError::NotKept { name: self.name.clone(), origin: self.endpoint.origin.clone() }
    }
}

fn named(repository: &Repository, reference: &str) -> String {
    format!("{repository}{}{reference}", if digest_of(reference).is_some() { '@' } else { ':' })
}

pub(crate) fn header<'a>(response: &'a Response, name: &HeaderName) -> Option<&'a str> {
    response.headers().get(name).and_then(|value| value.to_str().ok())
}

/// Whether a server's name of a document is that of ours: it may use another function than we do.
#[must_use]
pub fn is_same(found: &Digest, digest: &Digest, bytes: &[u8]) -> bool {
    found == digest || (found.function() != digest.function() && *found == Digest::of(found.function(), bytes))
}
