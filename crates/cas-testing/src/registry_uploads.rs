//! What is pushed to the registry of tests.

use std::io::{BufReader, Read, Take};
use std::net::TcpStream;
use std::sync::{Mutex, PoisonError};

use cas_digest::{Digest, DigestFunction};

use super::{Fault, Gate, Request, State, respond};

/// Whether a request is part of an upload.
pub(super) fn is_one(line: &str) -> bool {
    line.contains("/blobs/uploads/")
}

/// What a document or blob is named by.
pub(super) fn name(bytes: &[u8]) -> Digest {
    Digest::of(DigestFunction::Sha256, bytes)
}

/// A request that writes.
pub(super) struct Upload<'a> {
    pub(super) request: &'a Request,
    /// Of a document.
    pub(super) body: Vec<u8>,
    pub(super) state: &'a Mutex<State>,
    pub(super) fault: Option<Fault>,
    pub(super) own: &'a str,
}

impl Upload<'_> {
    pub(super) fn answer(self, stream: &mut TcpStream, reader: &mut Take<BufReader<TcpStream>>) -> std::io::Result<()> {
        let mut words = self.request.line.split(' ');
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let value = |key: &str| {
            query.split('&').find_map(|pair| Some(pair.strip_prefix(key)?.strip_prefix('=')?.replace("%3A", ":")))
        };
        if let Some(Fault::Status(status, more)) = &self.fault {
            std::io::copy(reader, &mut std::io::sink())?;
            return respond(stream, *status, more, b"busy");
        }
        if let Some(Fault::Hang) = &self.fault {
            std::thread::sleep(std::time::Duration::from_secs(120));
            return Ok(());
        }
        if !is_one(&self.request.line) {
            let forgets = self.fault == Some(Fault::Forget);
            return self.document(stream, path, forgets);
        }
        let repository = path.split("/blobs/uploads/").next().unwrap_or_default();
        let manner = self.lock().manner.clone();
        if manner.no_pieces && method == "PATCH" {
            std::io::copy(reader, &mut std::io::sink())?;
            return respond(stream, 404, &[], br#"{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN","message":"which"}]}"#);
        }
        if method == "POST" {
            std::io::copy(reader, &mut std::io::sink())?;
            if manner.no_repositories {
                return respond(stream, 404, &[], br#"{"errors":[{"code":"NAME_UNKNOWN","message":"not made"}]}"#);
            }
            if let (Some(digest), Some(from), true) = (value("mount"), value("from"), manner.mounts && self.may_read())
            {
                let mut state = self.lock();
                if let Some(found) = state.documents.get(&format!("/v2/{from}/blobs/{digest}")).cloned() {
                    state.documents.insert(format!("{repository}/blobs/{digest}"), found);
                    drop(state);
                    return respond(stream, 201, &[format!("Location: {repository}/blobs/{digest}")], b"");
                }
            }
            let number = {
                let mut state = self.lock();
                let number = state.upload_count;
                state.upload_count += 1;
                state.uploads.insert(number, Vec::new());
                number
            };
            let mut lines = vec![self.location(repository, number, 0)];
            lines.extend(manner.least_bytes.map(|bytes| format!("OCI-Chunk-Min-Length: {bytes}")));
            return respond(stream, 202, &lines, b"");
        }
        let number = path.rsplit('/').next().and_then(|text| text.parse::<usize>().ok()).unwrap_or(usize::MAX);
        let Some(mut kept) = self.lock().uploads.get(&number).cloned() else {
            return respond(stream, 404, &[], br#"{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN","message":"which"}]}"#);
        };
        if method == "GET" {
            let mut lines = vec![self.location(repository, number, kept.len())];
            lines.extend(manner.least_bytes.map(|bytes| format!("OCI-Chunk-Min-Length: {bytes}")));
            let is_told = !kept.is_empty() || manner.zero_range;
            lines.extend(is_told.then(|| format!("Range: 0-{}", kept.len().max(1) - 1)));
            return respond(stream, 204, &lines, b"");
        }
        let length = usize::try_from(reader.limit()).unwrap_or(usize::MAX);
        if manner.most_bytes.is_some_and(|most| length > most) {
            std::io::copy(reader, &mut std::io::sink())?;
            return respond(stream, 413, &[], b"");
        }
        if method == "PUT" && manner.most_whole.is_some_and(|most| length > most) {
            std::io::copy(reader, &mut std::io::sink())?;
            return respond(stream, 413, &[], b"");
        }
        if method == "PATCH" && manner.most_piece.is_some_and(|most| length > most) {
            std::io::copy(reader, &mut std::io::sink())?;
            return respond(stream, 416, &[self.location(repository, number, kept.len())], b"");
        }
        if let Some(count) = manner.drops_after.filter(|most| method == "PUT" && length > *most) {
            reader.take(count as u64).read_to_end(&mut kept)?;
            self.lock().uploads.insert(number, kept);
            return stream.shutdown(std::net::Shutdown::Both);
        }
        let range = self.request.header("content-range").and_then(|text| text.split_once('-')?.0.parse::<usize>().ok());
        let is_short = method == "PATCH" && manner.least_bytes.is_some_and(|least| length < least);
        if range.is_some_and(|start| start != kept.len()) && !manner.stays {
            std::io::copy(reader, &mut std::io::sink())?;
            return respond(stream, 416, &[self.location(repository, number, kept.len())], b"");
        }
        if let Some(Fault::CutRequest(count)) = self.fault {
            reader.take(count as u64).read_to_end(&mut kept)?;
            self.lock().uploads.insert(number, kept);
            return stream.shutdown(std::net::Shutdown::Both);
        }
        let before = kept.len();
        reader.read_to_end(&mut kept)?;
        kept.truncate(manner.keeps.filter(|_| method == "PATCH").map_or(kept.len(), |keeps| before + keeps));
        if method == "PATCH" {
            let lines = [
                self.location(repository, number, kept.len()),
                format!("Range: 0-{}", if manner.stays { 9 } else { kept.len().max(1) - 1 }),
            ];
            self.lock().uploads.insert(number, kept);
            return respond(stream, if manner.says_created { 201 } else { 202 }, &lines, b"");
        }
        let digest = value("digest").unwrap_or_default();
        let is_fine = digest.parse::<Digest>().is_ok_and(|digest| Digest::of(digest.function(), &kept) == digest);
        if !is_fine || is_short {
            return respond(stream, 400, &[], br#"{"errors":[{"code":"DIGEST_INVALID","message":"not that"}]}"#);
        }
        let mut state = self.lock();
        state.uploads.remove(&number);
        if self.fault != Some(Fault::Forget) {
            let kind = "application/octet-stream".to_owned();
            state.documents.insert(format!("{repository}/blobs/{digest}"), (kept, kind));
        }
        drop(state);
        respond(stream, 201, &[format!("Location: {repository}/blobs/{digest}")], b"")
    }

    /// A manifest is there when all that it names is.
    fn document(self, stream: &mut TcpStream, path: &str, forgets: bool) -> std::io::Result<()> {
        let (repository, reference) = path.split_once("/manifests/").unwrap_or((path, ""));
        let digest = name(&self.body);
        let media_type = self.request.header("content-type").unwrap_or_default().to_owned();
        let text = String::from_utf8_lossy(&self.body).into_owned();
        let mut state = self.lock();
        let is_index = media_type.contains("index") || media_type.contains("list");
        let kind = if is_index { "manifests" } else { "blobs" };
        let named = text.split("\"digest\":\"").skip(1).filter_map(|rest| rest.split('"').next());
        let missing =
            named.map(|word| format!("{repository}/{kind}/{word}")).find(|path| !state.documents.contains_key(path));
        if missing.is_some() && !text.contains("\"subject\"") {
            drop(state);
            return respond(
                stream,
                404,
                &[],
                br#"{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN","message":"not all is here"}]}"#,
            );
        }
        if reference.starts_with("sha256:") && reference != digest.to_string() {
            drop(state);
            return respond(stream, 400, &[], br#"{"errors":[{"code":"DIGEST_INVALID","message":"not that"}]}"#);
        }
        if !forgets {
            for reference in [reference.to_owned(), digest.to_string()] {
                let value = (self.body.clone(), media_type.clone());
                state.documents.insert(format!("{repository}/manifests/{reference}"), value);
            }
        }
        let mut lines = vec![format!("Docker-Content-Digest: {digest}")];
        if state.manner.lists_referrers && !state.manner.empty_lists {
            lines.extend(super::referrers::subject(&self.body).map(|subject| format!("OCI-Subject: {subject}")));
        }
        drop(state);
        respond(stream, 201, &lines, b"")
    }

    /// Whether whoever asks may read the source of a mount.
    fn may_read(&self) -> bool {
        let gate = self.lock().gate.clone();
        let source = self.request.line.split_once("from=").map_or("", |(_, rest)| rest);
        let source = source.split(['&', ' ']).next().unwrap_or_default();
        let sent = self.request.header("authorization").unwrap_or_default();
        !matches!(gate, Gate::Scoped(_)) || super::scopes::may(sent, source, "pull")
    }

    fn location(&self, repository: &str, number: usize, position: usize) -> String {
        let manner = self.lock().manner.clone();
        let host = match (manner.is_relative, manner.elsewhere) {
            (true, _) => String::new(),
            (_, Some(elsewhere)) => elsewhere,
            _ => format!("http://{}", self.own),
        };
        format!("Location: {host}{repository}/blobs/uploads/{number}?_state={position}")
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
