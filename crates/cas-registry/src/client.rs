//! The client: requests, tokens, trying again.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use base64::Engine;
use cas_blob::Descriptor;
use cas_digest::{Digest, DigestFunction};
use cas_oci::{
    DOCKER_INDEX_MEDIA_TYPE, DOCKER_MANIFEST_MEDIA_TYPE, INDEX_MEDIA_TYPE, MANIFEST_MEDIA_TYPE, MAX_DOCUMENT_BYTES,
    Repository, digest_of,
};
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, RANGE, RETRY_AFTER, WWW_AUTHENTICATE};
use reqwest::{Response, StatusCode};
use serde::Deserialize;

use crate::address::{Endpoint, is_loopback};
use crate::body::Body;
use crate::challenge::{Challenge, challenges};
use crate::{Credentials, Login, RegistryError};

/// How often a request is made before its failure is the answer.
const ATTEMPTS: u32 = 4;
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
    logins: Vec<PathBuf>,
    mirrors: BTreeMap<String, String>,
    stop: Option<Stop>,
    http: OnceLock<reqwest::Client>,
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

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
}

/// How a request ended that may be made again.
pub(crate) struct Failed {
    pub(crate) error: RegistryError,
    pause: Option<Duration>,
    may_help: bool,
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
        Self { offline: false, logins, mirrors, stop: None, http: OnceLock::new(), tokens }
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
        let endpoint = Endpoint::of(repository, &self.mirrors);
        let url = endpoint.url("manifests", path);
        let mut attempt = 1;
        loop {
            let result = match self.send(&endpoint, name, &url, None).await {
                Ok(response) => self.read_document(&endpoint, name, response, digest).await,
                Err(error) => return Err(error),
            };
            match result {
                Err(RegistryError::Transport { .. }) if attempt < ATTEMPTS => {
                    self.unless_stopped(tokio::time::sleep(pause(attempt))).await?;
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
        let endpoint = Endpoint::of(repository, &self.mirrors);
        let name = format!("{repository}@{}", blob.digest);
        let url = endpoint.url("blobs", &blob.digest.to_string());
        let response = self.send(&endpoint, &name, &url, None).await?;
        Ok(Body::new(self, endpoint, name, url, response, blob.size))
    }

    /// A response with a good status. `from` asks for what follows that byte alone, which a server may ignore.
    pub(crate) async fn send(
        &self,
        endpoint: &Endpoint,
        name: &str,
        url: &str,
        from: Option<u64>,
    ) -> Result<Response, RegistryError> {
        if self.offline {
            return Err(RegistryError::Offline { name: name.to_owned() });
        }
        let mut attempt = 1;
        loop {
            let sent = self.unless_stopped(self.authorized(endpoint, name, url, from)).await?;
            match sent {
                Ok(response) => return Ok(response),
                Err(failed) if attempt == ATTEMPTS || !failed.may_help => return Err(failed.error),
                Err(failed) => {
                    let pause = failed.pause.unwrap_or_else(|| pause(attempt)).min(MAX_PAUSE);
                    self.unless_stopped(tokio::time::sleep(pause)).await?;
                    attempt += 1;
                }
            }
        }
    }

    /// One request, and a second one with what the server then wants to know.
    async fn authorized(
        &self,
        endpoint: &Endpoint,
        name: &str,
        url: &str,
        from: Option<u64>,
    ) -> Result<Response, Failed> {
        let first = self.once(endpoint, name, url, from).await?;
        if first.status() != StatusCode::UNAUTHORIZED {
            return self.judged(endpoint, name, first).await;
        }
        let headers = first.headers().get_all(WWW_AUTHENTICATE);
        let wanted: Vec<Challenge> =
            headers.iter().filter_map(|value| value.to_str().ok()).flat_map(challenges).collect();
        let proof = self.prove(endpoint, &wanted).await.map_err(|error| {
            let may_help = matches!(error, RegistryError::Transport { .. } | RegistryError::Token { .. });
            Failed { error, pause: None, may_help }
        })?;
        let Some(proof) = proof else { return self.judged(endpoint, name, first).await };
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner).insert(endpoint.clone(), proof);
        let second = self.once(endpoint, name, url, from).await?;
        self.judged(endpoint, name, second).await
    }

    async fn once(&self, endpoint: &Endpoint, name: &str, url: &str, from: Option<u64>) -> Result<Response, Failed> {
        let failed = |error| Failed { error: transport(endpoint, name, error), pause: None, may_help: true };
        let mut request = self.http().map_err(failed)?.get(url);
        if url.contains("/manifests/") {
            for media_type in
                [MANIFEST_MEDIA_TYPE, INDEX_MEDIA_TYPE, DOCKER_MANIFEST_MEDIA_TYPE, DOCKER_INDEX_MEDIA_TYPE]
            {
                request = request.header(ACCEPT, media_type);
            }
        }
        if let Some(from) = from {
            request = request.header(RANGE, format!("bytes={from}-"));
        }
        let token = self.tokens.lock().unwrap_or_else(PoisonError::into_inner).get(endpoint).cloned();
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, token);
        }
        request.send().await.map_err(failed)
    }

    /// The response, or what a bad status means.
    async fn judged(&self, endpoint: &Endpoint, name: &str, response: Response) -> Result<Response, Failed> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let pause = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let said = said(response).await;
        let (name, origin, status) = (name.to_owned(), endpoint.origin.clone(), status.as_u16());
        let is_known = self.tokens.lock().unwrap_or_else(PoisonError::into_inner).contains_key(endpoint);
        let error = match status {
            404 | 410 => RegistryError::NotFound { name, origin, status },
            401 | 403 => RegistryError::Denied { name, origin, status, said, is_known },
            _ => RegistryError::Status { name, origin, status, said },
        };
        Err(Failed { error, pause: pause.map(Duration::from_secs), may_help: status == 429 || status >= 500 })
    }

    /// What to send to a server that wants to know who asks; `None` when there is nothing.
    async fn prove(&self, endpoint: &Endpoint, wanted: &[Challenge]) -> Result<Option<HeaderValue>, RegistryError> {
        let bearer = wanted.iter().find(|challenge| matches!(challenge, Challenge::Bearer { .. }));
        let Some(challenge) = bearer.or(wanted.first()) else { return Ok(None) };
        let login = Credentials::read(self.logins.iter().cloned())?.find(&endpoint.repository)?;
        match challenge {
            Challenge::Basic => match login {
                Some(Login::Password { user, password }) => Ok(Some(basic(&user, &password))),
                _ => Ok(None),
            },
            Challenge::Bearer { realm, service, scope } => {
                let token = self.token(endpoint, realm, service.as_deref(), scope.as_deref(), login.as_ref()).await?;
                let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
                    .map_err(|_| RegistryError::Token { realm: realm.clone(), said: "it is no text".to_owned() })?;
                value.set_sensitive(true);
                Ok(Some(value))
            }
        }
    }

    /// A token for reading a repository (distribution, "Token Authentication Specification" and "OAuth2 Token Authentication").
    async fn token(
        &self,
        endpoint: &Endpoint,
        realm: &str,
        service: Option<&str>,
        scope: Option<&str>,
        login: Option<&Login>,
    ) -> Result<String, RegistryError> {
        let url = reqwest::Url::parse(realm).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let url =
            url.ok_or_else(|| RegistryError::Token { realm: realm.to_owned(), said: "it is no address".to_owned() })?;
        // Whoever speaks in clear with a server has nothing to hide from its neighbours.
        let is_clear = url.scheme() == "http" && !url.host_str().is_some_and(is_loopback);
        if is_clear && endpoint.origin.starts_with("https:") {
            return Err(RegistryError::Realm { origin: endpoint.origin.clone(), realm: realm.to_owned() });
        }
        let own = format!("repository:{}:pull", endpoint.repository.path);
        let scope = scope.filter(|scope| !scope.is_empty()).unwrap_or(&own);
        let http = self.http().map_err(|error| transport(endpoint, realm, error))?;
        let request = match login {
            Some(Login::IdentityToken(token)) => {
                let mut form = url::form();
                form.add("grant_type", "refresh_token");
                form.add("client_id", "cas");
                form.add("service", service.unwrap_or_default());
                form.add("scope", scope);
                form.add("refresh_token", token);
                http.post(url).header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(form.finish())
            }
            login => {
                let mut url = url;
                {
                    let mut query = url.query_pairs_mut();
                    if let Some(service) = service {
                        query.append_pair("service", service);
                    }
                    // Some servers list several rights with spaces between.
                    for scope in scope.split(' ').filter(|scope| !scope.is_empty()) {
                        query.append_pair("scope", scope);
                    }
                }
                let request = http.get(url);
                match login {
                    Some(Login::Password { user, password }) => request.header(AUTHORIZATION, basic(user, password)),
                    _ => request,
                }
            }
        };
        let response = request.send().await.map_err(|error| transport(endpoint, realm, error))?;
        let (status, realm) = (response.status(), || realm.to_owned());
        if !status.is_success() {
            return Err(match status.as_u16() {
                status @ (401 | 403) => RegistryError::Denied {
                    name: endpoint.repository.to_string(),
                    origin: endpoint.origin.clone(),
                    status,
                    said: said(response).await,
                    is_known: login.is_some(),
                },
                status => RegistryError::Token {
                    realm: realm(),
                    said: format!("HTTP status {status}{}", said(response).await),
                },
            });
        }
        let bytes = read_limited(response, MAX_ANSWER_BYTES).await.ok().flatten().unwrap_or_default();
        let answer: Option<TokenAnswer> = serde_json::from_slice(&bytes).ok();
        let token = answer.and_then(|answer| answer.token.or(answer.access_token)).filter(|token| !token.is_empty());
        token.ok_or_else(|| RegistryError::Token { realm: realm(), said: "its answer holds none".to_owned() })
    }

    fn http(&self) -> Result<&reqwest::Client, reqwest::Error> {
        if let Some(client) = self.http.get() {
            return Ok(client);
        }
        // Fails when another thread, or the program itself, was first; that one is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .user_agent(concat!("cas/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .build()?;
        Ok(self.http.get_or_init(|| client))
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

/// Text of a form (WHATWG URL, `application/x-www-form-urlencoded`), by way of the query of an address.
mod url {
    pub(super) struct Form(reqwest::Url);

    pub(super) fn form() -> Form {
        Form(reqwest::Url::parse("http://form.invalid/").expect("it is an address"))
    }

    impl Form {
        pub(super) fn add(&mut self, name: &str, value: &str) {
            self.0.query_pairs_mut().append_pair(name, value);
        }

        pub(super) fn finish(self) -> String {
            self.0.query().unwrap_or_default().to_owned()
        }
    }
}

fn pause(attempt: u32) -> Duration {
    Duration::from_millis(250) * 4u32.pow(attempt - 1)
}

pub(crate) fn transport(endpoint: &Endpoint, name: &str, error: reqwest::Error) -> RegistryError {
    // The error would print the address as it is, with what it carries.
    let source = Box::new(error.without_url());
    RegistryError::Transport { name: name.to_owned(), origin: endpoint.origin.clone(), source }
}

fn basic(user: &str, password: &str) -> HeaderValue {
    let text = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    let mut value = HeaderValue::from_str(&format!("Basic {text}")).expect("base64 is a header's text");
    value.set_sensitive(true);
    value
}

/// Reads a body; `None` when it is longer.
async fn read_limited(mut response: Response, limit: u64) -> Result<Option<Vec<u8>>, reqwest::Error> {
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
async fn said(response: Response) -> String {
    let bytes = read_limited(response, MAX_ANSWER_BYTES).await.ok().flatten().unwrap_or_default();
    let errors: Option<Errors> = serde_json::from_slice(&bytes).ok();
    let Some(first) = errors.and_then(|errors| errors.errors.into_iter().next()) else { return String::new() };
    let text = format!("{} {}", first.code, first.message);
    let text: String = text.trim().chars().filter(|character| !character.is_control()).take(200).collect();
    if text.is_empty() { text } else { format!(": {text}") }
}
