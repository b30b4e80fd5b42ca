//! Reading: what a tag names, documents and blobs (OCI distribution-spec 1.1, "Pull").

use cas_blob::Descriptor;
use cas_digest::{Digest, DigestFunction};
use cas_oci::{MAX_DOCUMENT_BYTES, Repository, digest_of};
use reqwest::Response;
use reqwest::header::CONTENT_TYPE;

use crate::RegistryError;
use crate::address::Endpoint;
use crate::body::Body;
use crate::client::{ATTEMPTS, Ask, Client, Fetched, read_limited, transport};

impl Client {
    /// The manifest or index that a tag names.
    ///
    /// # Errors
    ///
    /// [`RegistryError`]
    pub async fn resolve(&self, repository: &Repository, tag: &str) -> Result<Fetched, RegistryError> {
        self.get(repository, &format!("{repository}:{tag}"), tag, None).await
    }

    /// A manifest or index by its digest.
    ///
    /// # Errors
    ///
    /// [`RegistryError`]
    pub async fn document(&self, repository: &Repository, digest: &Digest) -> Result<Fetched, RegistryError> {
        self.get(repository, &format!("{repository}@{digest}"), &digest.to_string(), Some(digest)).await
    }

    async fn get(
        &self,
        repository: &Repository,
        name: &str,
        path: &str,
        digest: Option<&Digest>,
    ) -> Result<Fetched, RegistryError> {
        self.get_at(&self.mirrored(repository), name, path, digest).await
    }

    /// What a tag names on this very server.
    pub(crate) async fn resolve_at(
        &self,
        endpoint: &Endpoint,
        repository: &Repository,
        tag: &str,
    ) -> Result<Fetched, RegistryError> {
        self.get_at(endpoint, &format!("{repository}:{tag}"), tag, None).await
    }

    async fn get_at(
        &self,
        endpoint: &Endpoint,
        name: &str,
        path: &str,
        digest: Option<&Digest>,
    ) -> Result<Fetched, RegistryError> {
        let url = endpoint.url("manifests", path);
        let mut attempt = 1;
        loop {
            let result = match self.send(endpoint, name, &Ask::get(url.as_str())).await {
                Ok(response) => self.read_document(endpoint, name, response, digest).await,
                Err(error) => return Err(error),
            };
            match result {
                Err(RegistryError::Transport { .. }) if attempt < ATTEMPTS => {
                    self.wait(None, attempt).await?;
                    attempt += 1;
                }
                other => return other,
            }
        }
    }

    async fn read_document(
        &self,
        endpoint: &Endpoint,
        name: &str,
        response: Response,
        digest: Option<&Digest>,
    ) -> Result<Fetched, RegistryError> {
        let (name, origin) = (|| name.to_owned(), || endpoint.origin.clone());
        let header = |key: &str| response.headers().get(key).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let media_type = header(CONTENT_TYPE.as_str());
        let media_type = media_type.map(|text| text.split(';').next().unwrap_or_default().trim().to_owned());
        let told = header("docker-content-digest").and_then(|text| digest_of(&text));
        let read = self.unless_stopped(read_limited(response, MAX_DOCUMENT_BYTES)).await?;
        let bytes = match read {
            Ok(Some(bytes)) => bytes,
            Ok(None) => {
                return Err(RegistryError::TooLong { name: name(), origin: origin(), limit: MAX_DOCUMENT_BYTES });
            }
            Err(error) => return Err(transport(endpoint, &name(), error)),
        };
        // What was asked for counts; for a tag it is what the server says, if it does.
        let expected = digest.or(told.as_ref());
        let function = expected.map_or(DigestFunction::Sha256, Digest::function);
        let actual = Digest::of(function, &bytes);
        if expected.is_some_and(|expected| *expected != actual) {
            return Err(RegistryError::Mismatch { name: name(), origin: origin(), actual: actual.to_string() });
        }
        let blob = Descriptor { digest: actual, size: bytes.len() as u64 };
        Ok(Fetched { bytes, blob, media_type })
    }

    /// The bytes of a blob, as they come: whoever keeps them compares them with its name.
    ///
    /// # Errors
    ///
    /// [`RegistryError`]
    pub async fn blob(&self, repository: &Repository, blob: &Descriptor) -> Result<Body<'_>, RegistryError> {
        self.blob_from(repository, blob, 0).await
    }

    /// The same from a byte on; a server that gives all of it is read up to there.
    ///
    /// # Errors
    ///
    /// [`RegistryError`]
    pub async fn blob_from(
        &self,
        repository: &Repository,
        blob: &Descriptor,
        from: u64,
    ) -> Result<Body<'_>, RegistryError> {
        let endpoint = self.mirrored(repository);
        let name = format!("{repository}@{}", blob.digest);
        let url = endpoint.url("blobs", &blob.digest.to_string());
        let ask = Ask::get(url.as_str()).from(Some(from).filter(|from| *from > 0));
        let response = self.send(&endpoint, &name, &ask).await?;
        Ok(Body::new(self, endpoint, name, url, response, blob.size, from))
    }
}
