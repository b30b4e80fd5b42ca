//! Requests and responses: the protocol of OCI distribution-spec 1.1 over the [`Registry`].
//!
//! Bodies are streams in both directions (`transfer`); whatever blocks runs on threads that may. What the rules are is in `registry`, what paths
//! mean is in `route`.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{
    ACCEPT_RANGES, ALLOW, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, EXPECT, HOST, HeaderName, HeaderValue, LINK,
    LOCATION, ORIGIN, RANGE, RETRY_AFTER,
};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use axum::response::Response;
use cas_digest::Digest;
use cas_oci::{INDEX_MEDIA_TYPE, MAX_DOCUMENT_BYTES};
use http_body_util::BodyExt;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::range::{Wanted, piece, wanted};
use crate::refusal::Refusal;
use crate::registry::Registry;
use crate::route::{Page, Route, Version};
use crate::transfer::{self, PATIENCE};

const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
const UPLOAD: HeaderName = HeaderName::from_static("docker-upload-uuid");
const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
const SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
const TAG: HeaderName = HeaderName::from_static("oci-tag");
const FILTERS: HeaderName = HeaderName::from_static("oci-filters-applied");
/// How much of a body that nobody wants is read, so that the client gets to read why; and for how long.
const DRAINED_BYTES: u64 = 8 << 20;
const DRAINED_TIME: Duration = Duration::from_secs(5);
/// When a client that has to wait may come again.
const RETRY_SECONDS: u64 = 30;

/// Gets what failed on this side.
pub(crate) type Told = Box<dyn Fn(&dyn std::error::Error) + Send + Sync>;

/// What answers requests.
pub(crate) struct Service {
    pub(crate) registry: Arc<Registry>,
    /// Whether only this machine is to ask.
    pub(crate) is_local: bool,
    /// Who may hold a manifest in memory.
    pub(crate) manifests: Semaphore,
    /// Told what failed on this side.
    pub(crate) told: Told,
}

type Answer = Result<Response, Refusal>;

/// Answers a request.
pub(crate) async fn answer(State(service): State<Arc<Service>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let mut body = Some(body);
    match service.route(&parts, &mut body).await {
        Ok(response) => response,
        Err(refusal) => {
            if let Some(body) = body.take().filter(|_| !parts.headers.contains_key(EXPECT)) {
                drain(body).await;
            }
            if refusal.is_ours() {
                (service.told)(&refusal);
            }
            refused(&refusal, parts.method == Method::HEAD)
        }
    }
}

/// A client that still writes does not read.
async fn drain(mut body: Body) {
    let read = async {
        let mut length = 0;
        while let Some(Ok(frame)) = body.frame().await {
            length += frame.data_ref().map_or(0, |bytes| bytes.len() as u64);
            if length > DRAINED_BYTES {
                break;
            }
        }
    };
    // Who sends slowly does not get to read it.
    let _ = timeout(DRAINED_TIME, read).await;
}

fn refused(refusal: &Refusal, is_head: bool) -> Response {
    let (status, _) = refusal.status_and_code();
    let body = refusal.body();
    let mut response = respond(status);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    match refusal {
        Refusal::OutOfOrder { location, have, .. } => {
            set(headers, LOCATION, location);
            set(headers, RANGE, &range_of(*have));
        }
        Refusal::OutsideBlob { size } => set(headers, CONTENT_RANGE, &format!("bytes */{size}")),
        Refusal::ManyUploads { .. } => drop(headers.insert(RETRY_AFTER, HeaderValue::from(RETRY_SECONDS))),
        Refusal::Method | Refusal::NoDeletes => set(headers, ALLOW, "GET, HEAD, PUT, POST, PATCH"),
        _ => {}
    }
    if !is_head {
        *response.body_mut() = Body::from(body);
    }
    response
}

fn respond(status: u16) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(API_VERSION, HeaderValue::from_static("registry/2.0"));
    response
}

/// All that is put into headers was checked to be plain.
fn set(headers: &mut axum::http::HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

fn with(mut response: Response, name: HeaderName, value: &str) -> Response {
    set(response.headers_mut(), name, value);
    response
}

/// A body of a length that is known, or its headers alone.
fn full(response: Response, content_type: &str, length: u64, body: Option<Body>) -> Response {
    let mut response = with(response, CONTENT_TYPE, content_type);
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    if let Some(body) = body {
        *response.body_mut() = body;
    }
    response
}

fn json_of(value: &serde_json::Value, content_type: &str) -> Response {
    let text = value.to_string();
    full(respond(200), content_type, text.len() as u64, Some(Body::from(text)))
}

/// Bytes of an upload, as the specification writes them. There is no way to write none.
fn range_of(length: u64) -> String {
    format!("0-{}", length.saturating_sub(1))
}

fn blob_location(name: &str, digest: &Digest) -> String {
    format!("/v2/{name}/blobs/{digest}")
}

fn upload_location(name: &str, id: &str) -> String {
    format!("/v2/{name}/blobs/uploads/{id}")
}

fn created(location: &str, digest: &Digest) -> Response {
    with(with(respond(201), LOCATION, location), CONTENT_DIGEST, &digest.to_string())
}

fn going_on(status: u16, name: &str, id: &str, length: u64) -> Response {
    let response = with(respond(status), LOCATION, &upload_location(name, id));
    with(with(response, RANGE, &range_of(length)), UPLOAD, id)
}

/// Where the next part of a list is.
fn next(path: &str, page: &Page, last: &str, more: &str) -> String {
    let coded = last.bytes().map(|byte| match byte {
        b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'.' | b'_' | b'-' => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    });
    let last: String = coded.collect();
    format!("<{path}?n={}&last={last}{more}>; rel=\"next\"", page.most)
}

/// Runs what blocks.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Refusal> + Send + 'static) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Refusal::Task)?
}

fn text_of<'a>(parts: &'a Parts, name: &HeaderName) -> Option<&'a str> {
    parts.headers.get(name).and_then(|value| value.to_str().ok())
}

fn length_of(parts: &Parts) -> Option<u64> {
    text_of(parts, &CONTENT_LENGTH).and_then(|text| text.parse().ok())
}

/// Whether a `Host` is a name of this machine.
fn is_this_machine(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

impl Service {
    async fn route(&self, parts: &Parts, body: &mut Option<Body>) -> Answer {
        // A page in a browser can reach this machine, by a name of its own or with an origin.
        let host = text_of(parts, &HOST).or_else(|| parts.uri.host());
        if self.is_local && host.is_some_and(|host| !is_this_machine(host)) {
            return Err(Refusal::Host);
        }
        if parts.headers.contains_key(ORIGIN) {
            return Err(Refusal::Origin);
        }
        let route = Route::parse(parts.uri.path(), parts.uri.query().unwrap_or_default())?;
        let method = &parts.method;
        let is_head = method == Method::HEAD;
        let is_get = method == Method::GET || is_head;
        match route {
            Route::Base if is_get => Ok(json_of(&json!({}), "application/json")),
            Route::Catalog { page } if is_get => self.catalog(page).await,
            Route::Tags { name, page } if is_get => self.tags(name, page).await,
            Route::Referrers { name, subject, artifact_type, page } if is_get => {
                self.referrers(name, subject, artifact_type, page).await
            }
            Route::Manifest { name, version, .. } if is_get => self.manifest(name, version, is_head).await,
            Route::Manifest { name, version, tags } if method == Method::PUT => {
                self.put_manifest(parts, body, name, version, tags).await
            }
            Route::Manifest { name, version, .. } if method == Method::DELETE => {
                let registry = Arc::clone(&self.registry);
                blocking(move || registry.remove_manifest(&name, &version)).await?;
                Ok(respond(202))
            }
            Route::Blob { name, digest } if is_get => self.blob(parts, name, digest, is_head).await,
            Route::Blob { name, digest } if method == Method::DELETE => {
                let registry = Arc::clone(&self.registry);
                blocking(move || registry.remove_blob(&name, &digest)).await?;
                Ok(respond(202))
            }
            Route::Uploads { name, digest, mount, from } if method == Method::POST => match (mount, digest) {
                (Some(mount), _) => self.mount(name, mount, from).await,
                // Nothing but a digest and a body: all of it at once.
                (None, Some(digest)) => self.put_whole(parts, body, name, digest).await,
                (None, None) => self.begin(name).await,
            },
            Route::Upload { name, id, .. } if is_get => {
                let uploads = Arc::clone(&self.registry.uploads);
                let length = blocking({
                    let (name, id) = (name.clone(), id.clone());
                    move || uploads.take(&name, &id).map(|taken| taken.length())
                });
                Ok(going_on(204, &name, &id, length.await?))
            }
            Route::Upload { name, id, .. } if method == Method::PATCH => self.append(parts, body, name, id).await,
            Route::Upload { name, id, digest } if method == Method::PUT => {
                let digest = digest.ok_or(Refusal::Query { name: "digest" })?;
                self.finish(parts, body, name, id, digest).await
            }
            Route::Upload { name, id, .. } if method == Method::DELETE => {
                let uploads = Arc::clone(&self.registry.uploads);
                blocking(move || uploads.take(&name, &id).map(crate::upload::Taken::end)).await?;
                Ok(respond(204))
            }
            _ => Err(Refusal::Method),
        }
    }

    async fn catalog(&self, page: Page) -> Answer {
        let registry = Arc::clone(&self.registry);
        let (names, has_more) = blocking({
            let page = page.clone();
            move || registry.repositories(&page)
        })
        .await?;
        let response = json_of(&json!({ "repositories": names }), "application/json");
        Ok(match names.last().filter(|_| has_more && page.most > 0) {
            Some(last) => with(response, LINK, &next("/v2/_catalog", &page, last, "")),
            None => response,
        })
    }

    async fn tags(&self, name: String, page: Page) -> Answer {
        let registry = Arc::clone(&self.registry);
        let (tags, has_more) = blocking({
            let (name, page) = (name.clone(), page.clone());
            move || registry.tags(&name, &page)
        })
        .await?;
        let response = json_of(&json!({ "name": name, "tags": tags }), "application/json");
        Ok(match tags.last().filter(|_| has_more && page.most > 0) {
            Some(last) => with(response, LINK, &next(&format!("/v2/{name}/tags/list"), &page, last, "")),
            None => response,
        })
    }

    async fn referrers(&self, name: String, subject: Digest, artifact_type: Option<String>, page: Page) -> Answer {
        let registry = Arc::clone(&self.registry);
        let found = blocking({
            let (name, page, artifact_type) = (name.clone(), page.clone(), artifact_type.clone());
            move || registry.referrers(&name, &subject, artifact_type.as_deref(), &page)
        })
        .await?;
        // What was pushed is given as it was kept, between the brackets of a list.
        let text = format!(
            r#"{{"schemaVersion":2,"mediaType":"{INDEX_MEDIA_TYPE}","manifests":[{}]}}"#,
            found.descriptors.join(",")
        );
        let mut response = full(respond(200), INDEX_MEDIA_TYPE, text.len() as u64, Some(Body::from(text)));
        let mut more = String::new();
        if let Some(artifact_type) = &artifact_type {
            response = with(response, FILTERS, "artifactType");
            let coded = artifact_type.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
            more = format!("&artifactType={coded}");
        }
        Ok(match found.more_after {
            Some(last) => with(response, LINK, &next(&format!("/v2/{name}/referrers/{subject}"), &page, &last, &more)),
            None => response,
        })
    }

    async fn manifest(&self, name: String, version: Version, is_head: bool) -> Answer {
        let registry = Arc::clone(&self.registry);
        let (kept, source) = blocking(move || {
            let kept = registry.manifest(&name, &version)?;
            let source = if is_head { None } else { Some(registry.read(&kept.blob)?) };
            Ok((kept, source))
        })
        .await?;
        let size = kept.blob.size;
        let body = source.map(|source| transfer::give(source, size, true));
        let response = full(respond(200), &kept.media_type, size, body);
        Ok(with(response, CONTENT_DIGEST, &kept.blob.digest.to_string()))
    }

    async fn put_manifest(
        &self,
        parts: &Parts,
        body: &mut Option<Body>,
        name: String,
        version: Version,
        tags: Vec<String>,
    ) -> Answer {
        let too_long = || Refusal::LongManifest { limit: MAX_DOCUMENT_BYTES };
        if length_of(parts).is_some_and(|length| length > MAX_DOCUMENT_BYTES) {
            return Err(too_long());
        }
        // It is in memory as a whole, so there are not many at once.
        let _permit = self.manifests.acquire().await.map_err(|_| Refusal::Task)?;
        let mut bytes = Vec::new();
        if let Some(body) = body {
            while let Some(frame) =
                timeout(PATIENCE, body.frame()).await.map_err(|_| Refusal::Body(std::io::ErrorKind::TimedOut.into()))?
            {
                let frame = frame.map_err(|error| Refusal::Body(std::io::Error::other(error)))?;
                bytes.extend_from_slice(frame.data_ref().map_or(&[][..], |bytes| bytes));
                if bytes.len() as u64 > MAX_DOCUMENT_BYTES {
                    return Err(too_long());
                }
            }
        }
        *body = None;
        let content_type = text_of(parts, &CONTENT_TYPE).map(str::to_owned);
        let registry = Arc::clone(&self.registry);
        let put = blocking({
            let (name, tags) = (name.clone(), tags.clone());
            move || registry.put_manifest(&name, &version, &tags, content_type.as_deref(), &bytes)
        })
        .await?;
        let mut response = created(&format!("/v2/{name}/manifests/{}", put.digest), &put.digest);
        if let Some(subject) = put.subject {
            response = with(response, SUBJECT, &subject.to_string());
        }
        Ok(if tags.is_empty() { response } else { with(response, TAG, &tags.join(", ")) })
    }

    async fn blob(&self, parts: &Parts, name: String, digest: Digest, is_head: bool) -> Answer {
        let registry = Arc::clone(&self.registry);
        let blob = blocking(move || registry.blob(&name, &digest)).await?;
        let whole = || with(with(respond(200), ACCEPT_RANGES, "bytes"), CONTENT_DIGEST, &digest.to_string());
        let content_type = "application/octet-stream";
        if is_head {
            return Ok(full(whole(), content_type, blob.size, None));
        }
        let registry = Arc::clone(&self.registry);
        match wanted(text_of(parts, &RANGE), blob.size) {
            Wanted::Nothing => Err(Refusal::OutsideBlob { size: blob.size }),
            Wanted::Whole => {
                let source = blocking(move || registry.read(&blob)).await?;
                Ok(full(whole(), content_type, blob.size, Some(transfer::give(source, blob.size, true))))
            }
            Wanted::Part(first, last) => {
                let source = blocking(move || registry.read_from(&blob, first)).await?;
                let length = last - first + 1;
                let response =
                    full(whole(), content_type, length, Some(transfer::give(Box::new(source), length, false)));
                let mut response = with(response, CONTENT_RANGE, &format!("bytes {first}-{last}/{}", blob.size));
                *response.status_mut() = StatusCode::PARTIAL_CONTENT;
                Ok(response)
            }
        }
    }

    async fn begin(&self, name: String) -> Answer {
        let uploads = Arc::clone(&self.registry.uploads);
        let id = blocking({
            let name = name.clone();
            move || uploads.begin(&name)
        })
        .await?;
        Ok(going_on(202, &name, &id, 0))
    }

    async fn mount(&self, name: String, digest: Digest, from: Option<String>) -> Answer {
        let registry = Arc::clone(&self.registry);
        let is_mounted = blocking({
            let name = name.clone();
            move || registry.mount(&name, &digest, from.as_deref())
        })
        .await?;
        // Where it cannot be mounted, it is sent.
        if is_mounted { Ok(created(&blob_location(&name, &digest), &digest)) } else { self.begin(name).await }
    }

    /// Takes a whole blob with one request.
    async fn put_whole(&self, parts: &Parts, body: &mut Option<Body>, name: String, digest: Digest) -> Answer {
        let registry = Arc::clone(&self.registry);
        let location = blob_location(&name, &digest);
        let Some(size) = length_of(parts) else {
            // Of a length that nobody knows yet.
            let id = blocking({
                let (registry, name) = (Arc::clone(&registry), name.clone());
                move || registry.uploads.begin(&name)
            })
            .await?;
            return self.finish(parts, body, name, id, digest).await;
        };
        if size > registry.uploads.max_bytes() {
            return Err(Refusal::LongBlob { limit: registry.uploads.max_bytes() });
        }
        let body = body.take().unwrap_or_default();
        let work = transfer::take(body, move |incoming| registry.put_blob(&name, &digest, size, incoming));
        work.await.map_err(|_| Refusal::Task)??;
        Ok(created(&location, &digest))
    }

    /// The length that a piece has, where it says so; it must follow what is there.
    fn check_piece(parts: &Parts, have: u64, location: &str) -> Result<Option<u64>, Refusal> {
        let Some(header) = parts.headers.get(CONTENT_RANGE) else { return Ok(None) };
        let (from, length) = header.to_str().ok().and_then(piece).ok_or(Refusal::ContentRange)?;
        if from != have {
            return Err(Refusal::OutOfOrder { location: location.to_owned(), have, from });
        }
        match length_of(parts) {
            Some(sent) if sent != length => Err(Refusal::Length { said: length, sent }),
            _ => Ok(Some(length)),
        }
    }

    async fn take_upload(&self, name: &str, id: &str) -> Result<crate::upload::Taken, Refusal> {
        let uploads = Arc::clone(&self.registry.uploads);
        let (name, id) = (name.to_owned(), id.to_owned());
        blocking(move || uploads.take(&name, &id)).await
    }

    async fn append(&self, parts: &Parts, body: &mut Option<Body>, name: String, id: String) -> Answer {
        let mut taken = self.take_upload(&name, &id).await?;
        let said = Self::check_piece(parts, taken.length(), &upload_location(&name, &id))?;
        let body = body.take().unwrap_or_default();
        let work = transfer::take(body, move |incoming| taken.append(incoming, said).map(|()| taken.length()));
        let length = work.await.map_err(|_| Refusal::Task)??;
        Ok(going_on(202, &name, &id, length))
    }

    async fn finish(&self, parts: &Parts, body: &mut Option<Body>, name: String, id: String, digest: Digest) -> Answer {
        let mut taken = self.take_upload(&name, &id).await?;
        let said = Self::check_piece(parts, taken.length(), &upload_location(&name, &id))?;
        let registry = Arc::clone(&self.registry);
        let location = blob_location(&name, &digest);
        let size = length_of(parts);
        let body = body.take().unwrap_or_default();
        let work = transfer::take(body, move |incoming| {
            match size {
                // All of it comes now, and its length is known: it need not be written twice.
                Some(size) if taken.length() == 0 && size > 0 => {
                    let result = registry.put_blob(&name, &digest, size, incoming);
                    // What broke off can be sent again.
                    if !matches!(result, Err(Refusal::Body(_) | Refusal::NoRoom)) {
                        taken.end();
                    }
                    result
                }
                _ => {
                    taken.append(incoming, said)?;
                    registry.finish(&name, &digest, taken)
                }
            }
        });
        work.await.map_err(|_| Refusal::Task)??;
        Ok(created(&location, &digest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_taken_for_it() {
        for (host, expected) in [
            ("localhost", true),
            ("LOCALHOST:5000", true),
            ("127.0.0.1:5000", true),
            ("127.1.2.3", true),
            ("[::1]:5000", true),
            ("[::1]", true),
            ("localhost.example.org", false),
            ("127.0.0.1.example.org:5000", false),
            ("192.168.0.1:5000", false),
            ("[::2]", false),
            ("::1", false),
            ("", false),
        ] {
            assert_eq!(is_this_machine(host), expected, "{host}");
        }
    }

    #[test]
    fn lists_go_on_where_they_stopped() {
        let page = Page { most: 2, after: String::new() };
        assert_eq!(next("/v2/_catalog", &page, "a/b", "&x=y"), "</v2/_catalog?n=2&last=a%2Fb&x=y>; rel=\"next\"");
    }
}
