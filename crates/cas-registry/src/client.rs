//! The client: requests, tokens, trying again.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use cas_blob::Descriptor;
use cas_oci::{DOCKER_INDEX_MEDIA_TYPE, DOCKER_MANIFEST_MEDIA_TYPE, INDEX_MEDIA_TYPE, MANIFEST_MEDIA_TYPE, Repository};
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderName, HeaderValue, RANGE, RETRY_AFTER, WWW_AUTHENTICATE};
use reqwest::redirect::Policy;
use reqwest::{Method, Response, StatusCode};
use serde::Deserialize;

use crate::address::Endpoint;
use crate::challenge::{Challenge, challenges};
use crate::pause::told;
use crate::quirks::{Cope, Quirks};
use crate::{Access, Login, RegistryError, Whereabouts};

/// How often a request is made before its failure is the answer.
pub(crate) const ATTEMPTS: u32 = 4;
/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// Longest wait for the next bytes.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest pause that a server may ask for.
const MAX_PAUSE: Duration = Duration::from_secs(30);
/// How often it is asked whether to stop.
const STOP_INTERVAL: Duration = Duration::from_millis(100);
/// Longest answer that is read for what it says of an error or a token.
const MAX_ANSWER_BYTES: u64 = 256 << 10;

/// Asked whether to stop.
type Stop = Arc<dyn Fn() -> bool + Send + Sync>;

/// Asks registries. Tasks share one.
pub struct Client {
    offline: bool,
    /// Files of logins, looked at when a server wants to know who asks.
    pub(crate) logins: Vec<PathBuf>,
    pub(crate) mirrors: BTreeMap<String, String>,
    /// A login for one server, which counts in place of the files.
    pub(crate) given: Option<(Endpoint, Login)>,
    /// What is known of registries.
    pub(crate) quirks: Quirks,
    stop: Option<Stop>,
    pub(crate) whereabouts: Option<Arc<dyn Whereabouts>>,
    http: OnceLock<reqwest::Client>,
    /// The same, which follows no redirect.
    direct: OnceLock<reqwest::Client>,
    /// What was sent last to an endpoint with success, or is to be sent.
    tokens: Mutex<BTreeMap<Endpoint, HeaderValue>>,
}

/// A document as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// What it is named by.
    pub blob: Descriptor,
    /// What the server said that it is.
    pub media_type: Option<String>,
}

/// How a request ended that may be made again.
pub(crate) struct Failed {
    pub(crate) error: RegistryError,
    /// How long the server wants to be left alone.
    pub(crate) pause: Option<Duration>,
    pub(crate) may_help: bool,
}

/// A request.
pub(crate) struct Ask<'a> {
    method: Method,
    url: String,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// Made anew for each time that it is sent.
    body: Option<&'a (dyn Fn() -> reqwest::Body + Send + Sync)>,
    rights: Rights,
}

/// What a token is asked for, beside what the server says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rights {
    /// Whether more comes that writes into the repository.
    pub(crate) may_push: bool,
    /// Another repository that is read.
    pub(crate) source: Option<String>,
}

impl Rights {
    /// For writing into a repository.
    pub(crate) const fn of_push() -> Self {
        Self { may_push: true, source: None }
    }
}

impl<'a> Ask<'a> {
    pub(crate) fn new(method: Method, url: impl Into<String>) -> Self {
        Self { method, url: url.into(), headers: Vec::new(), body: None, rights: Rights::default() }
    }

    /// Reads a document, where it is one, or something else.
    pub(crate) fn get(url: impl Into<String>) -> Self {
        Self::new(Method::GET, url).accepting_documents()
    }

    /// Says which documents are known here, where it is for one.
    pub(crate) fn accepting_documents(mut self) -> Self {
        if self.url.contains("/manifests/") {
            for media_type in
                [MANIFEST_MEDIA_TYPE, INDEX_MEDIA_TYPE, DOCKER_MANIFEST_MEDIA_TYPE, DOCKER_INDEX_MEDIA_TYPE]
            {
                self = self.header(ACCEPT, media_type);
            }
        }
        self
    }

    /// With a header, whose text must be one.
    pub(crate) fn header(mut self, name: HeaderName, value: &str) -> Self {
        self.headers.extend(HeaderValue::from_str(value).ok().map(|value| (name, value)));
        self
    }

    /// What follows a byte alone, which a server may ignore.
    pub(crate) fn from(self, from: Option<u64>) -> Self {
        match from {
            Some(from) => self.header(RANGE, &format!("bytes={from}-")),
            None => self,
        }
    }

    pub(crate) fn body(mut self, body: &'a (dyn Fn() -> reqwest::Body + Send + Sync)) -> Self {
        self.body = Some(body);
        self
    }

    /// For pushing.
    pub(crate) fn rights(mut self, rights: Rights) -> Self {
        self.rights = rights;
        self
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("offline", &self.offline).field("mirrors", &self.mirrors).finish_non_exhaustive()
    }
}

impl Client {
    /// A client that uses the network. `logins` are files of credentials, the first one first.
    #[must_use]
    pub fn new(logins: Vec<PathBuf>, mirrors: BTreeMap<String, String>) -> Self {
        let tokens = Mutex::default();
        let (given, quirks, stop, whereabouts) = (None, Quirks::default(), None, None);
        let (http, direct) = (OnceLock::new(), OnceLock::new());
        Self { offline: false, logins, mirrors, given, quirks, stop, whereabouts, http, direct, tokens }
    }

    /// One that refuses every request: what is not in the store is not there.
    #[must_use]
    pub fn offline() -> Self {
        Self { offline: true, ..Self::new(Vec::new(), BTreeMap::new()) }
    }

    /// The same, which gives up when `stop` says so.
    #[must_use]
    pub fn until(mut self, stop: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        self.stop = Some(Arc::new(stop));
        self
    }

    /// The same, which remembers where blobs are.
    #[must_use]
    pub fn remembering(mut self, whereabouts: Arc<dyn Whereabouts>) -> Self {
        self.whereabouts = Some(whereabouts);
        self
    }

    /// One that has nothing but a login for one server.
    pub(crate) fn with_login(&self, endpoint: Endpoint, login: Login) -> Self {
        let given = Some((endpoint, login));
        Self { offline: self.offline, given, stop: self.stop.clone(), ..Self::new(Vec::new(), BTreeMap::new()) }
    }

    /// One that knows something else of registries.
    #[cfg(test)]
    pub(crate) fn knowing(self, quirks: Quirks) -> Self {
        Self { quirks, ..self }
    }

    /// Where a repository itself is asked for.
    pub(crate) fn endpoint(&self, repository: &Repository) -> Endpoint {
        Endpoint::of(repository, &BTreeMap::new(), &self.quirks)
    }

    /// Where it is read, which may be a mirror.
    pub(crate) fn mirrored(&self, repository: &Repository) -> Endpoint {
        Endpoint::of(repository, &self.mirrors, &self.quirks)
    }

    /// Whether a server wanted to know who asks, and was told.
    pub(crate) fn has_proof(&self, endpoint: &Endpoint) -> bool {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner).contains_key(endpoint)
    }

    /// A response with a good status; a request without a body is made again where that may help.
    pub(crate) async fn send(&self, endpoint: &Endpoint, name: &str, ask: &Ask<'_>) -> Result<Response, RegistryError> {
        let mut attempt = 1;
        loop {
            match self.send_once(endpoint, name, ask).await? {
                Ok(response) => return Ok(response),
                Err(failed) if attempt == ATTEMPTS || !failed.may_help => return Err(failed.error),
                Err(failed) => {
                    self.wait(failed.pause, attempt).await?;
                    attempt += 1;
                }
            }
        }
    }

    /// The same without another attempt.
    pub(crate) async fn send_once(
        &self,
        endpoint: &Endpoint,
        name: &str,
        ask: &Ask<'_>,
    ) -> Result<Result<Response, Failed>, RegistryError> {
        if self.offline {
            return Err(RegistryError::Offline { name: name.to_owned() });
        }
        self.unless_stopped(self.authorized(endpoint, name, ask)).await
    }

    /// Waits before another attempt: as long as the server said, if it did.
    pub(crate) async fn wait(&self, told: Option<Duration>, attempt: u32) -> Result<(), RegistryError> {
        let pause = told.unwrap_or_else(|| pause(attempt)).min(MAX_PAUSE);
        self.unless_stopped(tokio::time::sleep(pause)).await
    }

    /// One request, and a second one with what the server then wants to know.
    async fn authorized(&self, endpoint: &Endpoint, name: &str, ask: &Ask<'_>) -> Result<Response, Failed> {
        let is_first = !self.has_proof(endpoint) || self.quirks.has(Cope::TokenAgain);
        let first = self.once(endpoint, name, ask).await?;
        // Other hosts are told nothing.
        if first.status() != StatusCode::UNAUTHORIZED || !endpoint.is_at(&ask.url) || !is_first {
            return self.judged(endpoint, name, ask, first).await;
        }
        let headers = first.headers().get_all(WWW_AUTHENTICATE);
        let wanted: Vec<Challenge> =
            headers.iter().filter_map(|value| value.to_str().ok()).flat_map(challenges).collect();
        let proof = self.prove(endpoint, &wanted, &ask.rights).await.map_err(|error| {
            let may_help = matches!(error, RegistryError::Transport { .. } | RegistryError::Token { .. });
            Failed { error, pause: None, may_help }
        })?;
        let Some(proof) = proof else { return self.judged(endpoint, name, ask, first).await };
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner).insert(endpoint.clone(), proof);
        let second = self.once(endpoint, name, ask).await?;
        self.judged(endpoint, name, ask, second).await
    }

    async fn once(&self, endpoint: &Endpoint, name: &str, ask: &Ask<'_>) -> Result<Response, Failed> {
        let failed = |error| Failed { error: transport(endpoint, name, error), pause: None, may_help: true };
        let mut request = self.http().map_err(failed)?.request(ask.method.clone(), &ask.url);
        for (name, value) in &ask.headers {
            request = request.header(name, value);
        }
        if let Some(body) = ask.body {
            request = request.body(body());
        }
        let token = self.tokens.lock().unwrap_or_else(PoisonError::into_inner).get(endpoint).cloned();
        if let Some(token) = token.filter(|_| endpoint.is_at(&ask.url)) {
            request = request.header(AUTHORIZATION, token);
        }
        request.send().await.map_err(failed)
    }

    /// The response, or what a bad status means.
    async fn judged(
        &self,
        endpoint: &Endpoint,
        name: &str,
        ask: &Ask<'_>,
        response: Response,
    ) -> Result<Response, Failed> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let header = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let is_asked = response.headers().contains_key(WWW_AUTHENTICATE);
        let said = said(response).await;
        let word = self.quirks.find(|cope| match cope {
            Cope::WaitInMessage(word) => Some(word),
            _ => None,
        });
        let pause = told(header.as_deref(), &said, word, now());
        let advice = self.quirks.advice(status.as_u16(), ask.method.as_str(), &ask.url, &said);
        let (name, origin, status) = (name.to_owned(), endpoint.origin.clone(), status.as_u16());
        let is_known = self.has_proof(endpoint);
        let error = match status {
            404 | 410 => RegistryError::NotFound { name, origin, status, advice },
            401 | 403 => {
                let access = if ask.rights.may_push { Access::Write } else { Access::Read };
                RegistryError::Denied { name, origin, status, said, access, is_known, is_asked, advice }
            }
            _ => RegistryError::Status { name, origin, status, said, advice },
        };
        // A server that says when to come again means it, whatever its status is.
        let may_help = status == 429 || status >= 500 || (status == 403 && pause.is_some());
        Err(Failed { error, pause, may_help })
    }

    pub(crate) fn http(&self) -> Result<&reqwest::Client, reqwest::Error> {
        Self::made(&self.http, Policy::default())
    }

    /// The same, which leaves it to whoever asks to follow redirects.
    pub(crate) fn direct(&self) -> Result<&reqwest::Client, reqwest::Error> {
        Self::made(&self.direct, Policy::none())
    }

    /// Whether the network may not be used.
    pub(crate) const fn is_offline(&self) -> bool {
        self.offline
    }

    fn made(place: &OnceLock<reqwest::Client>, policy: Policy) -> Result<&reqwest::Client, reqwest::Error> {
        if let Some(client) = place.get() {
            return Ok(client);
        }
        let builder = reqwest::Client::builder()
            .tls_backend_preconfigured(cas_tls::config())
            .user_agent(concat!("cas/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            // A root with this program alone has nobody who knows the name. Port 0 stands for that of the address.
            .resolve_to_addrs("localhost", &[(Ipv4Addr::LOCALHOST, 0).into(), (Ipv6Addr::LOCALHOST, 0).into()])
            .redirect(policy);
        let client = builder.build()?;
        Ok(place.get_or_init(|| client))
    }

    /// Waits for something, or for the word to stop.
    pub(crate) async fn unless_stopped<T>(&self, work: impl Future<Output = T>) -> Result<T, RegistryError> {
        let Some(stop) = &self.stop else { return Ok(work.await) };
        let mut work = std::pin::pin!(work);
        loop {
            if stop() {
                return Err(RegistryError::Interrupted);
            }
            if let Ok(done) = tokio::time::timeout(STOP_INTERVAL, &mut work).await {
                return Ok(done);
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a server may say until when it wants to be left alone")]
pub(crate) fn now() -> SystemTime {
    SystemTime::now()
}

fn pause(attempt: u32) -> Duration {
    Duration::from_millis(250) * 4u32.pow(attempt - 1)
}

pub(crate) fn transport(endpoint: &Endpoint, name: &str, error: reqwest::Error) -> RegistryError {
    // The error would print the address as it is, with what it carries.
    let source = Box::new(error.without_url());
    RegistryError::Transport { name: name.to_owned(), origin: endpoint.origin.clone(), source }
}

/// Reads a body; `None` when it is longer.
pub(crate) async fn read_limited(mut response: Response, limit: u64) -> Result<Option<Vec<u8>>, reqwest::Error> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() as u64 > limit {
            return Ok(None);
        }
    }
    Ok(Some(bytes))
}

#[derive(Deserialize)]
struct Errors {
    errors: Vec<OneError>,
}

#[derive(Deserialize)]
struct OneError {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// What a server says of an error, after a colon (distribution-spec, "Error Codes"); nothing where it is no such document.
pub(crate) async fn said(response: Response) -> String {
    let bytes = read_limited(response, MAX_ANSWER_BYTES).await.ok().flatten().unwrap_or_default();
    let errors: Option<Errors> = serde_json::from_slice(&bytes).ok();
    let Some(first) = errors.and_then(|errors| errors.errors.into_iter().next()) else { return String::new() };
    let text = format!("{} {}", first.code, first.message);
    let text: String = text.trim().chars().filter(|character| !character.is_control()).take(200).collect();
    if text.is_empty() { text } else { format!(": {text}") }
}
