//! What a live registry does, line by line, beside what the table of quirks knows of it.
//!
//! Looking is asked for by requests that read. Only with leave something is written: a blob of some bytes in one request and in pieces, a mount,
//! and two manifests, all of which are deleted again where the registry lets it. Nothing that is found holds a secret.
//!
//! Not here: how it is printed (`cas-cli`).

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use cas_blob::Descriptor;
use cas_digest::{Digest, DigestFunction};
use cas_oci::{
    ArtifactBlob, ArtifactManifest, EMPTY_CONTENT, INDEX_MEDIA_TYPE, MANIFEST_MEDIA_TYPE, Repository, digest_of,
};
use reqwest::header::{ACCEPT, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderName, LINK, WWW_AUTHENTICATE};
use reqwest::{Method, Response, Url};
use serde_json::Value;

use crate::address::Endpoint;
use crate::challenge::{Challenge, challenges};
use crate::client::{Ask, Client, Rights, now, read_limited, transport};
use crate::push::header;
use crate::quirks::{Hosted, QUIRKS};
use crate::{Content, Delivery, RegistryError};

/// Longest list of one tag, and longest manifest, that is looked into.
const MAX_BYTES: u64 = 4 << 20;
/// Longest piece that is written for the sake of looking.
const MAX_PIECE_BYTES: usize = 1 << 20;
/// What manifests that are written are.
const ARTIFACT_TYPE: &str = "application/vnd.cas.probe";

/// A line of what was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at.
    pub line: &'static str,
    /// What it is like.
    pub found: String,
    /// The row that knows of it, and what it says.
    pub expected: Option<(&'static str, &'static str)>,
}

impl Finding {
    /// Whether it is not as the row says.
    #[must_use]
    pub fn differs(&self) -> bool {
        self.expected.is_some_and(|(_, value)| value != self.found)
    }
}

/// What was found so far.
struct Findings {
    hosted: Option<Hosted>,
    lines: Vec<Finding>,
}

impl Findings {
    fn add(&mut self, line: &'static str, found: impl Into<String>) {
        let row = QUIRKS.iter().find(|row| {
            row.seen.is_some_and(|(seen, _)| seen == line)
                && self.hosted.is_some_and(|hosted| row.registries.contains(&hosted))
        });
        let expected = row.and_then(|row| Some((row.name, row.seen?.1)));
        self.lines.push(Finding { line, found: found.into(), expected });
    }
}

/// What is looked at, and where.
struct Place<'a> {
    endpoint: Endpoint,
    repository: &'a Repository,
    name: String,
    rights: Rights,
}

impl Place<'_> {
    fn ask(&self, method: Method, url: impl Into<String>) -> Ask<'static> {
        Ask::new(method, url).rights(self.rights.clone())
    }
}

impl Client {
    /// What a registry does, and with a repository what it does there; `hosted` says whose rows are compared. Writes with leave alone.
    ///
    /// # Errors
    ///
    /// [`RegistryError`] where it does not answer.
    pub async fn probe(
        &self,
        repository: &Repository,
        hosted: Option<Hosted>,
        may_write: bool,
    ) -> Result<Vec<Finding>, RegistryError> {
        let mut findings = Findings { hosted, lines: Vec::new() };
        let rights = if may_write { Rights::of_push() } else { Rights::default() };
        let name = repository.to_string();
        let place = Place { endpoint: self.endpoint(repository), repository, name, rights };
        self.probe_front(&place, &mut findings).await?;
        if !repository.path.is_empty() {
            self.probe_reading(&place, &mut findings).await?;
            if may_write {
                self.probe_writing(&place, &mut findings).await?;
            }
        }
        Ok(findings.lines)
    }

    /// Who is let in, and who says so.
    async fn probe_front(&self, place: &Place<'_>, findings: &mut Findings) -> Result<(), RegistryError> {
        let host = Repository { path: String::new(), ..place.repository.clone() };
        let (endpoint, name) = (self.endpoint(&host), host.host.as_str());
        let url = format!("{}/v2/", endpoint.origin);
        let failed = |error| transport(&endpoint, name, error);
        // Without a word of who asks.
        let response = self.unless_stopped(self.http().map_err(failed)?.get(&url).send()).await?.map_err(failed)?;
        findings.add("api", response.status().as_u16().to_string());
        let told = response.headers().get_all(WWW_AUTHENTICATE);
        let wanted: Vec<Challenge> = told.iter().filter_map(|value| value.to_str().ok()).flat_map(challenges).collect();
        let kinds: Vec<&str> = wanted
            .iter()
            .map(|challenge| match challenge {
                Challenge::Basic => "Basic",
                Challenge::Bearer { .. } => "Bearer",
            })
            .collect();
        findings.add("authentication", if kinds.is_empty() { "none".to_owned() } else { kinds.join(", ") });
        for challenge in &wanted {
            if let Challenge::Bearer { realm, service, .. } = challenge {
                findings.add("token-service", service.as_deref().unwrap_or("none"));
                let host = Url::parse(realm).ok().and_then(|url| url.host_str().map(str::to_owned));
                findings.add("token-host", host.unwrap_or_else(|| "none".to_owned()));
            }
        }
        let asked = self.send_once(&endpoint, name, &Ask::get(url)).await?;
        let status = status_of(asked)?.0;
        findings.add(
            "login",
            match status {
                200 if self.has_proof(&endpoint) => "let in".to_owned(),
                200 => "not asked for".to_owned(),
                status => format!("refused ({status})"),
            },
        );
        Ok(())
    }

    /// What a repository tells to whoever reads.
    async fn probe_reading(&self, place: &Place<'_>, findings: &mut Findings) -> Result<(), RegistryError> {
        let Place { endpoint, name, .. } = place;
        let url = format!("{}/v2/{}/tags/list?n=1", endpoint.origin, endpoint.repository.path);
        let (status, response) = self.probe_ask(place, &place.ask(Method::GET, url)).await?;
        findings.add("tags", status.to_string());
        let tag = match response {
            Some(response) => {
                let has_more = response.headers().contains_key(LINK);
                let list = self.probe_json(place, response).await?;
                findings.add("pages", if has_more { "by Link" } else { "not seen" });
                list["tags"][0].as_str().map(str::to_owned)
            }
            None => None,
        };
        let unknown = Digest::of(DigestFunction::Sha512, b"cas registry probe");
        let ask = place.ask(Method::HEAD, endpoint.url("blobs", &unknown.to_string()));
        findings.add(
            "sha512",
            match self.probe_ask(place, &ask).await?.0 {
                200 | 404 => "yes".to_owned(),
                400 => "no".to_owned(),
                status => status.to_string(),
            },
        );
        let Some(tag) = tag else { return Ok(()) };
        let ask = place.ask(Method::HEAD, endpoint.url("manifests", &tag)).accepting_documents();
        let (status, response) = self.probe_ask(place, &ask).await?;
        findings.add("head", status.to_string());
        let digest = HeaderName::from_static("docker-content-digest");
        if let Some(response) = &response {
            findings.add("digest-header", if header(response, &digest).is_some() { "yes" } else { "no" });
        }
        let ask = place.ask(Method::GET, endpoint.url("manifests", &tag)).accepting_documents();
        let (_, Some(response)) = self.probe_ask(place, &ask).await? else { return Ok(()) };
        let told = header(&response, &digest).and_then(digest_of);
        let read = self.unless_stopped(read_limited(response, MAX_BYTES)).await?;
        let bytes = read.map_err(|error| transport(endpoint, name, error))?.unwrap_or_default();
        let digest = told.unwrap_or_else(|| Digest::of(DigestFunction::Sha256, &bytes));
        self.probe_referrers(place, &digest, findings).await?;
        let document: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let document = match document["manifests"][0]["digest"].as_str() {
            Some(child) => {
                let ask = place.ask(Method::GET, endpoint.url("manifests", child)).accepting_documents();
                match self.probe_ask(place, &ask).await?.1 {
                    Some(response) => self.probe_json(place, response).await?,
                    None => Value::Null,
                }
            }
            None => document,
        };
        if let Some(config) = document["config"]["digest"].as_str() {
            let ask = place.ask(Method::GET, endpoint.url("blobs", config)).from(Some(1));
            findings.add("range", self.probe_ask(place, &ask).await?.0.to_string());
        }
        Ok(())
    }

    async fn probe_referrers(
        &self,
        place: &Place<'_>,
        digest: &Digest,
        findings: &mut Findings,
    ) -> Result<(), RegistryError> {
        let url = place.endpoint.url("referrers", &digest.to_string());
        let (status, response) =
            self.probe_ask(place, &place.ask(Method::GET, url).header(ACCEPT, INDEX_MEDIA_TYPE)).await?;
        let is_index = |response: &Response| {
            header(response, &CONTENT_TYPE).is_some_and(|kind| kind.starts_with(INDEX_MEDIA_TYPE))
        };
        findings.add(
            "referrers",
            match response {
                Some(response) if !is_index(&response) => format!("{status}, no index"),
                _ => status.to_string(),
            },
        );
        Ok(())
    }

    /// What a repository does with what is written, which is deleted again.
    async fn probe_writing(&self, place: &Place<'_>, findings: &mut Findings) -> Result<(), RegistryError> {
        let Place { endpoint, repository, .. } = place;
        let instant = now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let bytes = format!("cas registry probe {instant} {}", std::process::id()).into_bytes();
        let blob = Descriptor::of(DigestFunction::Sha256, &bytes);
        let content = |bytes: Vec<u8>| -> Content { Arc::new(move |sink| sink.write_all(&bytes)) };
        let pushed = self.push_blob(repository, &blob, &content(bytes), None).await;
        let is_there = pushed.is_ok();
        findings.add(
            "upload-whole",
            match pushed {
                Ok(Delivery::Sent | Delivery::Mounted) => "yes".to_owned(),
                Ok(Delivery::Known) => "known".to_owned(),
                Err(error) => format!("no ({})", status_of_error(error)?),
            },
        );
        let mut made: Vec<(&'static str, Digest)> = Vec::new();
        let pieces = self.probe_pieces(place, instant).await?;
        findings.add("upload-pieces", pieces.0);
        made.extend(pieces.1.map(|digest| ("blobs", digest)));
        if !is_there {
            return self.probe_deletes(place, made, findings).await;
        }
        made.push(("blobs", blob.digest));
        let url =
            format!("{}?mount={}&from={}", endpoint.url("blobs", "uploads/"), blob.digest, endpoint.repository.path);
        let empty = || reqwest::Body::from(Vec::new());
        let ask = place.ask(Method::POST, url).header(CONTENT_LENGTH, "0").body(&empty);
        let (status, response) = self.probe_ask(place, &ask).await?;
        findings.add(
            "mount",
            match status {
                201 => "yes".to_owned(),
                202 => "no".to_owned(),
                status => format!("no ({status})"),
            },
        );
        if status == 202
            && let Some(response) = response
        {
            let session = self.session(endpoint, &place.name, &response, &endpoint.url("blobs", "uploads/"))?;
            // Registries that cannot give it up forget it by themselves.
            self.probe_ask(place, &place.ask(Method::DELETE, session.as_str())).await?;
        }
        self.push_blob(
            repository,
            &Descriptor::of(DigestFunction::Sha256, EMPTY_CONTENT),
            &content(EMPTY_CONTENT.to_vec()),
            None,
        )
        .await?;
        let note = [("org.cas.probe".to_owned(), instant.to_string())].into();
        let manifest = |subject| {
            cas_oci::encode_artifact(&ArtifactManifest {
                artifact_type: ARTIFACT_TYPE,
                config: &ArtifactBlob::empty(),
                files: &[],
                subject,
                annotations: &note,
            })
        };
        let first = manifest(None);
        let first_blob = Descriptor::of(DigestFunction::Sha256, &first);
        let second = manifest(Some((MANIFEST_MEDIA_TYPE, first_blob)));
        let mut seen = "no".to_owned();
        for bytes in [&first, &second] {
            let digest = Digest::of(DigestFunction::Sha256, bytes);
            let body = || reqwest::Body::from(bytes.clone());
            let ask = place.ask(Method::PUT, endpoint.url("manifests", &digest.to_string()));
            let ask = ask.header(CONTENT_TYPE, MANIFEST_MEDIA_TYPE).body(&body);
            let (status, response) = self.probe_ask(place, &ask).await?;
            match response {
                Some(response) if response.headers().contains_key("oci-subject") => "yes".clone_into(&mut seen),
                Some(_) => {}
                None => seen = format!("no ({status})"),
            }
            made.push(("manifests", digest));
        }
        findings.add("subject", seen);
        if !findings.lines.iter().any(|finding| finding.line == "referrers") {
            self.probe_referrers(place, &first_blob.digest, findings).await?;
        }
        self.probe_deletes(place, made, findings).await
    }

    /// The status of a piece, where all of it ends well, and what was made.
    async fn probe_pieces(&self, place: &Place<'_>, instant: u128) -> Result<(String, Option<Digest>), RegistryError> {
        let Place { endpoint, name, .. } = place;
        let url = endpoint.url("blobs", "uploads/");
        let empty = || reqwest::Body::from(Vec::new());
        let ask = place.ask(Method::POST, url.as_str()).header(CONTENT_LENGTH, "0").body(&empty);
        let (status, Some(begun)) = self.probe_ask(place, &ask).await? else {
            return Ok(("no upload".to_owned(), None));
        };
        let least = header(&begun, &HeaderName::from_static("oci-chunk-min-length")).and_then(|text| text.parse().ok());
        let piece: usize = least.unwrap_or(0).max(64);
        let mut session = self.session(endpoint, name, &begun, &url)?;
        if piece > MAX_PIECE_BYTES {
            self.probe_ask(place, &place.ask(Method::DELETE, session.as_str())).await?;
            return Ok((format!("of {piece} bytes at least"), None));
        }
        let bytes: Vec<u8> = format!("pieces {instant} ").into_bytes().into_iter().cycle().take(2 * piece).collect();
        let digest = Digest::of(DigestFunction::Sha256, &bytes);
        let mut told = status;
        for from in [0, piece] {
            let body = || reqwest::Body::from(bytes[from..from + piece].to_vec());
            let ask = place.ask(Method::PATCH, session.as_str()).header(CONTENT_TYPE, "application/octet-stream");
            let ask = ask.header(CONTENT_RANGE, &format!("{from}-{}", from + piece - 1)).body(&body);
            let (status, response) = self.probe_ask(place, &ask).await?;
            let Some(response) = response else { return Ok((format!("no ({status})"), None)) };
            told = status;
            session = self.session(endpoint, name, &response, session.as_str())?;
        }
        session.query_pairs_mut().append_pair("digest", &digest.to_string());
        let ask = place.ask(Method::PUT, session.as_str()).header(CONTENT_LENGTH, "0").body(&empty);
        match self.probe_ask(place, &ask).await? {
            (_, Some(_)) => Ok((told.to_string(), Some(digest))),
            (status, None) => Ok((format!("no ({status})"), None)),
        }
    }

    /// Deletes what was made, the last one first, and tells what stays.
    async fn probe_deletes(
        &self,
        place: &Place<'_>,
        made: Vec<(&'static str, Digest)>,
        findings: &mut Findings,
    ) -> Result<(), RegistryError> {
        let (mut refused, mut left) = (None, Vec::new());
        for (kind, digest) in made.into_iter().rev() {
            let ask = place.ask(Method::DELETE, place.endpoint.url(kind, &digest.to_string()));
            // What is about a deleted manifest may go with it.
            match self.probe_ask(place, &ask).await?.0 {
                200 | 202 | 204 | 404 => {}
                status => {
                    refused = Some(status);
                    left.push(digest.to_string());
                }
            }
        }
        findings.add("delete", refused.map_or_else(|| "yes".to_owned(), |status| format!("no ({status})")));
        if !left.is_empty() {
            findings.add("left-behind", left.join(" "));
        }
        Ok(())
    }

    /// A status, with the response where it is a good one.
    async fn probe_ask(&self, place: &Place<'_>, ask: &Ask<'_>) -> Result<(u16, Option<Response>), RegistryError> {
        status_of(self.send_once(&place.endpoint, &place.name, ask).await?)
    }

    /// A document; what is none is nothing.
    async fn probe_json(&self, place: &Place<'_>, response: Response) -> Result<Value, RegistryError> {
        let read = self.unless_stopped(read_limited(response, MAX_BYTES)).await?;
        let bytes = read.map_err(|error| transport(&place.endpoint, &place.name, error))?.unwrap_or_default();
        Ok(serde_json::from_slice(&bytes).unwrap_or_default())
    }
}

fn status_of(answer: Result<Response, crate::client::Failed>) -> Result<(u16, Option<Response>), RegistryError> {
    match answer {
        Ok(response) => Ok((response.status().as_u16(), Some(response))),
        Err(failed) => status_of_error(failed.error).map(|status| (status, None)),
    }
}

/// The status that an error is, where the registry answered.
fn status_of_error(error: RegistryError) -> Result<u16, RegistryError> {
    match error {
        RegistryError::NotFound { status, .. }
        | RegistryError::Denied { status, .. }
        | RegistryError::Status { status, .. } => Ok(status),
        other => Err(other),
    }
}
