//! A registry of images on loopback that asks who comes, and fails as it is told to.
//!
//! It serves what a test puts in, and what is pushed, by HTTP/1.1 and one request a connection, for as long as it lives.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

#[path = "registry_referrers.rs"]
mod referrers;
#[path = "registry_scopes.rs"]
mod scopes;
#[path = "registry_uploads.rs"]
mod uploads;

use uploads::Upload;

/// Who may read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Gate {
    /// Everybody.
    #[default]
    Open,
    /// Whoever sends this value of `Authorization`.
    Basic(String),
    /// Whoever sends a token, which everybody gets.
    Anonymous,
    /// Whoever sends a token, which those get who send this value of `Authorization`.
    Token(String),
    /// Whoever sends a token, which those get who send this identity token.
    Identity(String),
    /// Nobody, whatever is sent.
    Closed,
    /// Whoever sends a token, which everybody gets, and which is good for so many requests.
    Short(usize),
    /// Whoever sends a token with the right for what is asked, which everybody gets who asks for it.
    Scoped(Scopes),
}

/// How tokens hold rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scopes {
    /// All that were asked for.
    All,
    /// The last one alone.
    Last,
    /// All, and nobody is told what to ask for.
    Untold,
}

/// What goes wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A status with further header lines.
    Status(u16, Vec<String>),
    /// The body ends after some bytes.
    Cut(usize),
    /// Another body.
    Body(Vec<u8>),
    /// The whole body, whatever part was asked for.
    Whole,
    /// A body that does not end.
    Endless,
    /// No answer.
    Hang,
    /// The connection breaks off after some bytes of what is sent, which are kept.
    CutRequest(usize),
    /// All goes well, and nothing is kept.
    Forget,
    /// A status with a message.
    Refuse(u16, String),
}

/// A request as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// `GET /v2/…`, with the query.
    pub line: String,
    /// Header lines, names in lower case.
    pub headers: Vec<String>,
    /// What was sent.
    pub body: String,
}

impl Request {
    /// The value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

#[derive(Debug, Default)]
struct State {
    gate: Gate,
    /// Bodies and media types by path.
    documents: BTreeMap<String, (Vec<u8>, String)>,
    /// What goes wrong with paths that hold a text, and how often.
    faults: Vec<(String, Fault, usize)>,
    requests: Vec<Request>,
    /// Further header lines by path.
    headers: BTreeMap<String, String>,
    /// What is on its way here, by number.
    uploads: BTreeMap<usize, Vec<u8>>,
    /// How many have begun.
    upload_count: usize,
    /// How a registry behaves.
    manner: Manner,
    /// Tokens that were given, and requests with the last one.
    tokens: (usize, usize),
}

/// How a registry behaves; each is what a real one does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manner {
    /// Longest body that is taken, as before proxies; more is 413.
    pub most_bytes: Option<usize>,
    /// Shortest piece that is taken, but for the last one: `OCI-Chunk-Min-Length`.
    pub least_bytes: Option<usize>,
    /// Whether blobs are taken from other repositories.
    pub mounts: bool,
    /// Whether `Location` is a path alone.
    pub is_relative: bool,
    /// Whether pieces are answered with 201, as ECR has it.
    pub says_created: bool,
    /// Whether it says after each piece that it has ten bytes, whatever it has.
    pub stays: bool,
    /// What comes before the path of `Location`, in the place of this server.
    pub elsewhere: Option<String>,
    /// Whether it keeps lists of what refers to a manifest, as registries of the specification 1.1 do.
    pub lists_referrers: bool,
    /// How many of them are on a page; none is all.
    pub referrers_page: Option<usize>,
    /// What is answered in the place of such lists.
    pub referrers_status: Option<u16>,
    /// Whether paths that are not known lead to a page for people.
    pub has_pages: bool,
    /// Whether lists of what refers to a manifest are empty whatever is there.
    pub empty_lists: bool,
    /// Whether a tag `sha256-HEX` is the digest.
    pub tag_is_digest: bool,
    /// Whether `HEAD` tells no digest.
    pub hides_digest: bool,
    /// What is answered to `HEAD` of manifests.
    pub head_status: Option<u16>,
    /// What is answered to `GET` of manifests.
    pub get_status: Option<u16>,
    /// How many tags are on a page, whose next one has a word that says nothing.
    pub tags_page: Option<usize>,
    /// Longest body of a blob in one request, more is 413; pieces may be longer.
    pub most_whole: Option<usize>,
    /// Longest piece; more is 416.
    pub most_piece: Option<usize>,
    /// Bytes of a piece that are kept, of longer ones.
    pub keeps: Option<usize>,
    /// Bytes of a blob in one request after which the connection ends.
    pub drops_after: Option<usize>,
    /// Whether an upload without bytes has `Range: 0-0`.
    pub zero_range: bool,
    /// Whether pieces find no upload.
    pub no_pieces: bool,
    /// Whether there is no repository to push to.
    pub no_repositories: bool,
}

/// A registry that a test fills.
#[derive(Debug)]
pub struct FakeRegistry {
    address: String,
    state: Arc<Mutex<State>>,
}

impl FakeRegistry {
    /// Starts one.
    ///
    /// # Panics
    ///
    /// When loopback has no port.
    #[must_use]
    pub fn start(gate: Gate) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
        let address = listener.local_addr().expect("it is bound").to_string();
        let state = Arc::new(Mutex::new(State { gate, ..State::default() }));
        let shared = Arc::clone(&state);
        let own = address.clone();
        // Threads end with the test's process, or when nobody has the state any more.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (Ok(stream), shared, own) = (stream, Arc::clone(&shared), own.clone()) else { continue };
                std::thread::spawn(move || {
                    // Whoever asked may have gone.
                    let _ = answer(stream, &shared, &own);
                });
            }
        });
        Self { address, state }
    }

    /// `127.0.0.1:PORT`
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves a body at a path, like `a/b/manifests/v1`.
    pub fn put(&self, path: &str, media_type: &str, body: &[u8]) {
        self.state().documents.insert(format!("/v2/{path}"), (body.to_vec(), media_type.to_owned()));
    }

    /// Adds a header line to what is at a path.
    pub fn header(&self, path: &str, line: &str) {
        self.state().headers.insert(format!("/v2/{path}"), line.to_owned());
    }

    /// Lets the next `count` requests whose lines hold a text go wrong.
    pub fn fail(&self, text: &str, fault: Fault, count: usize) {
        self.state().faults.push((text.to_owned(), fault, count));
    }

    /// What is at a path, if something is.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<Vec<u8>> {
        self.state().documents.get(&format!("/v2/{path}")).map(|(body, _)| body.clone())
    }

    /// Where something is.
    #[must_use]
    pub fn paths(&self) -> Vec<String> {
        self.state().documents.keys().cloned().collect()
    }

    /// Changes how uploads are taken.
    pub fn manner(&self, manner: Manner) {
        self.state().manner = manner;
    }

    /// The requests so far.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.state().requests.clone()
    }
}

/// The head of a request, and where its body is read.
pub(crate) fn read_request(stream: &TcpStream) -> std::io::Result<(Request, std::io::Take<BufReader<TcpStream>>)> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        lines.push(match line.split_once(": ") {
            Some((name, value)) => format!("{}: {value}", name.to_lowercase()),
            None => line.trim_end_matches(" HTTP/1.1").to_owned(),
        });
    }
    let line = if lines.is_empty() { String::new() } else { lines.remove(0) };
    let request = Request { line, headers: lines, body: String::new() };
    let length = request.header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    Ok((request, reader.take(length)))
}

fn answer(mut stream: TcpStream, state: &Mutex<State>, own: &str) -> std::io::Result<()> {
    let (mut request, mut reader) = read_request(&stream)?;
    let is_upload = uploads::is_one(&request.line);
    let mut sent_bytes = Vec::new();
    if !is_upload {
        reader.read_to_end(&mut sent_bytes)?;
        request.body = String::from_utf8_lossy(&sent_bytes).into_owned();
    }
    let path = request.line.split(' ').nth(1).unwrap_or_default().to_owned();
    let sent = request.header("authorization").unwrap_or_default();
    let (gate, is_let_in, document, fault, header) = {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        state.requests.push(request.clone());
        let is_let_in = match &state.gate {
            Gate::Open => true,
            Gate::Basic(value) => sent == value,
            Gate::Closed => false,
            Gate::Short(count) => {
                let is_last = state.tokens.0 > 0 && sent == format!("Bearer let-me-in-{}", state.tokens.0);
                is_last && state.tokens.1 < *count
            }
            Gate::Scoped(_) => scopes::is_let_in(&request.line, sent),
            _ => sent == "Bearer let-me-in",
        };
        state.tokens.1 += 1;
        let fault = state.faults.iter_mut().find(|(text, _, left)| *left > 0 && request.line.contains(text.as_str()));
        // Whoever is not let in sees none of it, but for those that give tokens.
        let fault = fault.filter(|_| is_let_in || path.starts_with("/token")).map(|(_, fault, left)| {
            *left -= 1;
            fault.clone()
        });
        let header = state.headers.get(&path).cloned();
        (state.gate.clone(), is_let_in, state.documents.get(&path).cloned(), fault, header)
    };
    if path.starts_with("/token") {
        if let Some(Fault::Status(status, more)) = &fault {
            return respond(&mut stream, *status, more, b"busy");
        }
        let is_let_in = match &gate {
            Gate::Anonymous => sent.is_empty(),
            Gate::Token(value) => sent == value,
            Gate::Short(_) => {
                let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
                state.tokens = (state.tokens.0 + 1, 0);
                let answer = format!(r#"{{"token": "let-me-in-{}"}}"#, state.tokens.0);
                drop(state);
                return respond(&mut stream, 200, &[], answer.as_bytes());
            }
            Gate::Scoped(kind) => {
                let answer = format!(r#"{{"token": "{}"}}"#, scopes::token(&path, *kind));
                return respond(&mut stream, 200, &[], answer.as_bytes());
            }
            Gate::Identity(token) => {
                request.line.starts_with("POST") && request.body.contains(&format!("refresh_token={token}"))
            }
            _ => false,
        };
        return match is_let_in {
            true => respond(&mut stream, 200, &[], br#"{"token": "let-me-in"}"#),
            false => respond(&mut stream, 401, &[], br#"{"errors":[{"code":"UNAUTHORIZED","message":"who are you"}]}"#),
        };
    }
    if !is_let_in {
        let challenge = match &gate {
            Gate::Basic(_) => "Basic realm=\"x\"".to_owned(),
            Gate::Scoped(kind) => scopes::challenge(&request.line, own, *kind),
            _ => format!("Bearer realm=\"http://{own}/token\",service=\"fake\",scope=\"repository:x:pull\""),
        };
        return respond(&mut stream, 401, &[format!("WWW-Authenticate: {challenge}")], b"{}");
    }
    if let Some(Fault::Refuse(status, said)) = &fault {
        std::io::copy(&mut reader, &mut std::io::sink())?;
        let answer = serde_json::json!({ "errors": [{ "code": "DENIED", "message": said }] }).to_string();
        return respond(&mut stream, *status, &[], answer.as_bytes());
    }
    if request.line.starts_with("DELETE ") {
        let is_there = is_upload || document.is_some();
        state.lock().unwrap_or_else(PoisonError::into_inner).documents.remove(&path);
        return respond(&mut stream, if is_there { 202 } else { 404 }, &[], b"");
    }
    if is_upload || request.line.starts_with("PUT ") {
        return Upload { request: &request, body: sent_bytes, state, fault, own }.answer(&mut stream, &mut reader);
    }
    let manner = state.lock().unwrap_or_else(PoisonError::into_inner).manner.clone();
    let is_head = request.line.starts_with("HEAD ");
    if path.contains("/manifests/")
        && let Some(status) = if is_head { manner.head_status } else { manner.get_status }
    {
        return respond(&mut stream, status, &["Retry-After: 0".to_owned()], b"");
    }
    if let Some(status) = manner.referrers_status.filter(|_| path.contains("/referrers/")) {
        return respond(&mut stream, status, &[], b"");
    }
    let same = path.split_once("/manifests/sha256-").filter(|_| manner.tag_is_digest);
    let same = same.map(|(repository, digits)| format!("{repository}/manifests/sha256:{digits}"));
    let same = same.and_then(|path| state.lock().unwrap_or_else(PoisonError::into_inner).documents.get(&path).cloned());
    let document = same.or(document).map(|(body, media_type)| (body, media_type, header));
    let document = document.or_else(|| tags(state, &path));
    let Some((body, media_type, header)) = document.or_else(|| referrers::listed(state, &path)) else {
        if manner.has_pages && !path.contains("/manifests/") && !path.contains("/blobs/") {
            return respond(&mut stream, 200, &["Content-Type: text/html".to_owned()], b"<html>");
        }
        return respond(&mut stream, 404, &[], br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"not here"}]}"#);
    };
    let mut headers = vec![format!("Content-Type: {media_type}")];
    headers.extend(header);
    if request.line.starts_with("HEAD ") {
        return match fault {
            Some(Fault::Status(status, more)) => respond(&mut stream, status, &more, b""),
            _ => {
                if !manner.hides_digest {
                    headers.push(format!("Docker-Content-Digest: {}", uploads::name(&body)));
                }
                head(&mut stream, 200, &headers, body.len())
            }
        };
    }
    let range = request.header("range").and_then(|text| text.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    match (fault, range) {
        (Some(Fault::Status(status, more)), _) => respond(&mut stream, status, &more, b"busy"),
        (Some(Fault::Body(other)), _) => respond(&mut stream, 200, &headers, &other),
        (Some(Fault::Cut(count)), None) => {
            head(&mut stream, 200, &headers, body.len())?;
            stream.write_all(&body[..count.min(body.len())])
        }
        (Some(Fault::Cut(count)), Some(from)) => {
            let rest: &[u8] = body.get(from..).unwrap_or_default();
            headers.push(format!("Content-Range: bytes {from}-{}/{}", body.len() - 1, body.len()));
            head(&mut stream, 206, &headers, rest.len())?;
            stream.write_all(&rest[..count.min(rest.len())])
        }
        (Some(Fault::Endless), _) => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
            loop {
                stream.write_all(&[b' '; 65536])?;
            }
        }
        (Some(Fault::Hang), _) => {
            std::thread::sleep(Duration::from_secs(120));
            Ok(())
        }
        (None, Some(from)) if from < body.len() => {
            headers.push(format!("Content-Range: bytes {from}-{}/{}", body.len() - 1, body.len()));
            respond(&mut stream, 206, &headers, &body[from..])
        }
        (Some(Fault::Whole | Fault::CutRequest(_) | Fault::Forget | Fault::Refuse(..)) | None, _) => {
            respond(&mut stream, 200, &headers, &body)
        }
    }
}

/// A page of the tags of a repository: its bytes, media type and further header line. `None` where no pages are made.
fn tags(state: &Mutex<State>, target: &str) -> Option<(Vec<u8>, String, Option<String>)> {
    let state = state.lock().unwrap_or_else(PoisonError::into_inner);
    let page = state.manner.tags_page?;
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let repository = path.strip_suffix("/tags/list")?;
    let from = query.split('&').find_map(|pair| pair.strip_prefix("next_page=x")?.parse().ok()).unwrap_or(0);
    let place = format!("{repository}/manifests/");
    let names = state.documents.keys().filter_map(|path| path.strip_prefix(&place));
    let names: Vec<&str> = names.filter(|name| !name.contains(':')).collect();
    let to = names.len().min(from + page);
    let more = (to < names.len()).then(|| format!("Link: <{path}?next_page=x{to}&n={page}>; rel=\"next\""));
    let list = serde_json::json!({ "name": "x", "tags": names.get(from..to).unwrap_or_default() });
    Some((list.to_string().into_bytes(), "application/json".to_owned(), more))
}

fn head(stream: &mut TcpStream, status: u16, headers: &[String], length: usize) -> std::io::Result<()> {
    let mut text = format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nConnection: close\r\n");
    for line in headers {
        text.push_str(&format!("{line}\r\n"));
    }
    stream.write_all(format!("{text}\r\n").as_bytes())
}

pub(crate) fn respond(stream: &mut TcpStream, status: u16, headers: &[String], body: &[u8]) -> std::io::Result<()> {
    head(stream, status, headers, body.len())?;
    stream.write_all(body)
}
