//! GitLab's generic packages on loopback, as far as its documentation tells of them, for one project and one token.

use std::collections::BTreeMap;
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cas_digest::{Digest, DigestFunction};
use serde_json::json;

use crate::registry::{Request, read_request, respond};

/// How it behaves beside what its documentation tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GitLabManner {
    /// Whether a file under a name that is there is refused, as a project may have it.
    pub refuses_duplicates: bool,
    /// Entries on a page of a list; none is all.
    pub page: Option<usize>,
    /// Whether files are at another address, which must not be told the token.
    pub redirects: bool,
    /// How many uploads are kept and answered with 502.
    pub loses_answers: usize,
    /// Whether a byte of what is kept is another one.
    pub damages: bool,
    /// Whether the list tells digests.
    pub hides_digests: bool,
}

/// Names and bytes.
pub type Files = Vec<(String, Vec<u8>)>;

#[derive(Debug, Default)]
struct State {
    /// The header and the value that are let in.
    token: (String, String),
    manner: GitLabManner,
    /// Files by package and version, in the order in which they came.
    files: BTreeMap<(String, String), Files>,
    requests: Vec<Request>,
}

/// A GitLab with the project `acme/tools`, whose number is 17.
#[derive(Debug)]
pub struct FakeGitLab {
    address: String,
    state: Arc<Mutex<State>>,
}

impl FakeGitLab {
    /// Starts one that lets in whoever sends this header with this value.
    ///
    /// # Panics
    ///
    /// When loopback has no port.
    #[must_use]
    pub fn start(header: &str, token: &str, manner: GitLabManner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
        let address = listener.local_addr().expect("it is bound").to_string();
        let token = (header.to_lowercase(), token.to_owned());
        let state = Arc::new(Mutex::new(State { token, manner, ..State::default() }));
        let (shared, own) = (Arc::clone(&state), address.clone());
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

    /// The requests so far.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.state().requests.clone()
    }

    /// Puts a file there.
    pub fn put(&self, package: &str, version: &str, name: &str, bytes: &[u8]) {
        let key = (package.to_owned(), version.to_owned());
        self.state().files.entry(key).or_default().push((name.to_owned(), bytes.to_vec()));
    }

    /// All files of a version, in the order in which they came.
    #[must_use]
    pub fn files(&self, package: &str, version: &str) -> Files {
        self.state().files.get(&(package.to_owned(), version.to_owned())).cloned().unwrap_or_default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn answer(mut stream: TcpStream, state: &Mutex<State>, own: &str) -> std::io::Result<()> {
    use std::io::Read;
    let (mut request, mut reader) = read_request(&stream)?;
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes)?;
    request.body = String::from_utf8_lossy(&bytes).into_owned();
    let (method, target) = request.line.split_once(' ').unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    state.requests.push(request.clone());
    let text = |text: &str| text.replace("%2B", "+");
    // What is kept elsewhere is for everybody who knows its address.
    if let Some(rest) = path.strip_prefix("/storage/") {
        let words: Vec<String> = rest.split('/').map(text).collect();
        let [package, version, name] = &words[..] else { return respond(&mut stream, 404, &[], b"") };
        let files = state.files.get(&(package.clone(), version.clone()));
        let found =
            files.and_then(|files| files.iter().rev().find(|(other, _)| other == name)).map(|file| file.1.clone());
        drop(state);
        return match found {
            Some(bytes) => respond(&mut stream, 200, &[], &bytes),
            None => respond(&mut stream, 404, &[], b""),
        };
    }
    if request.header(&state.token.0) != Some(state.token.1.as_str()) {
        drop(state);
        return respond(&mut stream, 401, &[], br#"{"message":"401 Unauthorized"}"#);
    }
    let projects = ["/api/v4/projects/acme%2Ftools/packages", "/api/v4/projects/17/packages"];
    let Some(rest) = projects.iter().find_map(|project| path.strip_prefix(project)) else {
        drop(state);
        return respond(&mut stream, 404, &[], br#"{"message":"404 Project Not Found"}"#);
    };
    let value = |key: &str| query.split('&').find_map(|pair| Some(text(pair.strip_prefix(key)?.strip_prefix('=')?)));
    let words: Vec<String> = rest.trim_start_matches('/').split('/').map(text).collect();
    let (list, single) = match (method, &words[..]) {
        ("GET", [empty]) if empty.is_empty() => {
            let wanted = value("package_name").unwrap_or_default();
            let packages = state.files.keys().enumerate().filter(|(_, (name, _))| name.contains(&wanted));
            let item = |(number, (name, version)): (usize, &(String, String))| json!({ "id": number + 100, "name": name, "version": version, "package_type": "generic" });
            (Some(packages.map(item).collect::<Vec<_>>()), None)
        }
        ("GET", [number, files]) if files == "package_files" => {
            let number = number.parse::<usize>().unwrap_or(0).wrapping_sub(100);
            let hides = state.manner.hides_digests;
            let files = state.files.values().nth(number).map(|files| {
                let item = |(name, bytes): &(String, Vec<u8>)| {
                    let digest = Digest::of(DigestFunction::Sha256, bytes).to_hex();
                    let digest = (!hides).then_some(digest);
                    json!({ "id": 1, "file_name": name, "size": bytes.len(), "file_sha256": digest })
                };
                files.iter().map(item).collect::<Vec<_>>()
            });
            (files, None)
        }
        (method, [generic, package, version, name]) if generic == "generic" => {
            (None, Some((method.to_owned(), package.clone(), version.clone(), name.clone())))
        }
        _ => (None, None),
    };
    if let Some(list) = list {
        let page = value("page").and_then(|page| page.parse::<usize>().ok()).unwrap_or(1).max(1);
        let per_page = state.manner.page.unwrap_or(100);
        let from = list.len().min((page - 1) * per_page);
        let to = list.len().min(from + per_page);
        let next = if to < list.len() { (page + 1).to_string() } else { String::new() };
        let body = json!(list[from..to]).to_string();
        drop(state);
        return respond(&mut stream, 200, &[format!("X-Next-Page: {next}")], body.as_bytes());
    }
    let Some((method, package, version, name)) = single else {
        drop(state);
        return respond(&mut stream, 404, &[], br#"{"error":"404 Not Found"}"#);
    };
    let key = (package.clone(), version.clone());
    let manner = state.manner.clone();
    let is_there = state.files.get(&key).is_some_and(|files| files.iter().any(|(other, _)| *other == name));
    if method == "PUT" {
        if manner.refuses_duplicates && is_there {
            drop(state);
            return respond(&mut stream, 400, &[], br#"{"message":"Duplicate package is not allowed"}"#);
        }
        let digest = Digest::of(DigestFunction::Sha256, &bytes).to_hex();
        if manner.damages && !bytes.is_empty() {
            bytes[0] ^= 1;
        }
        state.files.entry(key).or_default().push((name.clone(), bytes));
        let is_lost = manner.loses_answers > 0;
        state.manner.loses_answers = manner.loses_answers.saturating_sub(1);
        drop(state);
        let body = json!({ "id": 1, "file_name": name, "file_sha256": digest }).to_string();
        return match is_lost {
            true => respond(&mut stream, 502, &[], b""),
            false => respond(&mut stream, 201, &[], body.as_bytes()),
        };
    }
    let found = state.files.get(&key).and_then(|files| files.iter().rev().find(|(other, _)| *other == name));
    let found = found.map(|(_, bytes)| bytes.clone());
    drop(state);
    match found {
        Some(_) if manner.redirects => {
            let quoted = |text: &str| text.replace('+', "%2B");
            // Another host by its name, though it is this one.
            let port = own.rsplit(':').next().unwrap_or_default();
            let (package, version, name) = (quoted(&package), quoted(&version), quoted(&name));
            let line = format!("Location: http://localhost:{port}/storage/{package}/{version}/{name}");
            respond(&mut stream, 302, &[line], b"")
        }
        Some(bytes) => respond(&mut stream, 200, &[], &bytes),
        None => respond(&mut stream, 404, &[], br#"{"message":"404 Package Not Found"}"#),
    }
}
