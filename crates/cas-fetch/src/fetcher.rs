//! The client.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use reqwest::blocking::{Client, Response};
use reqwest::header::RETRY_AFTER;

use crate::error::{FetchError, redact};

/// How often a request is made before its failure is the answer.
const ATTEMPTS: u32 = 4;
/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// Longest wait for the next bytes.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest pause that a server may ask for.
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// Asked whether to stop.
type Stop = Arc<dyn Fn() -> bool + Send + Sync>;

/// Fetches files. Threads share one.
pub struct Fetcher {
    offline: bool,
    client: OnceLock<Client>,
    stop: Option<Stop>,
    mirrors: BTreeMap<String, String>,
}

impl std::fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fetcher").field("offline", &self.offline).finish_non_exhaustive()
    }
}

/// A body that ends with an error when it is to stop.
struct Stoppable<R> {
    body: R,
    stop: Option<Stop>,
}

impl<R: Read> Read for Stoppable<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.stop.as_ref().is_some_and(|stop| stop()) {
            return Err(io::Error::other("interrupted"));
        }
        self.body.read(buffer)
    }
}

impl Fetcher {
    /// A fetcher that uses the network.
    #[must_use]
    pub const fn new() -> Self {
        Self { offline: false, client: OnceLock::new(), stop: None, mirrors: BTreeMap::new() }
    }

    /// One that refuses every address, local files too: what is not in the store is not there.
    #[must_use]
    pub const fn offline() -> Self {
        Self { offline: true, client: OnceLock::new(), stop: None, mirrors: BTreeMap::new() }
    }

    /// The same, which gives up when `stop` says so: nothing is asked again, bodies end with an error.
    #[must_use]
    pub fn until(mut self, stop: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        self.stop = Some(Arc::new(stop));
        self
    }

    /// The same, which fetches from elsewhere what begins with a host, or a host and a path: `host/path` leads to an address.
    #[must_use]
    pub fn through(mut self, mirrors: BTreeMap<String, String>) -> Self {
        self.mirrors = mirrors;
        self
    }

    /// Where an address leads: the longest beginning of whole parts counts.
    fn mirrored(&self, url: &str) -> Option<String> {
        let place = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"))?;
        let matches =
            |from: &str| place.strip_prefix(from).filter(|rest| rest.is_empty() || rest.starts_with(['/', '?']));
        let found = self.mirrors.iter().filter_map(|(from, to)| Some((from.len(), to, matches(from)?)));
        let (_, to, rest) = found.max_by_key(|(length, ..)| *length)?;
        Some(format!("{to}{rest}"))
    }

    fn stoppable<R: Read + Send + 'static>(&self, body: R) -> Box<dyn Read + Send> {
        Box::new(Stoppable { body, stop: self.stop.clone() })
    }

    /// Opens what is at `url`: `http`, `https` or `file`.
    ///
    /// The request is made again when the server cannot be reached, is overloaded or broken. A body that breaks off is an
    /// error of the reader.
    ///
    /// # Errors
    ///
    /// [`FetchError`]
    pub fn get(&self, url: &str) -> Result<Box<dyn Read + Send>, FetchError> {
        if self.offline {
            return Err(FetchError::Offline { url: redact(url) });
        }
        let mirrored = self.mirrored(url);
        let url = mirrored.as_deref().unwrap_or(url);
        if let Some(path) = url.strip_prefix("file://") {
            if !path.starts_with('/') {
                return Err(FetchError::Address { url: url.to_owned() });
            }
            let file =
                cas_fs::open(Path::new(path)).map_err(|source| FetchError::File { url: url.to_owned(), source })?;
            return Ok(self.stoppable(file));
        }
        if !url.starts_with("http://") && !url.starts_with("https://") {
            return Err(FetchError::Address { url: redact(url) });
        }
        let mut attempt = 1;
        loop {
            match self.request(url) {
                Ok(response) => return Ok(self.stoppable(response)),
                Err((error, pause)) => {
                    let stopped = self.stop.as_ref().is_some_and(|stop| stop());
                    if attempt == ATTEMPTS || stopped || !error.is_retryable() {
                        return Err(error);
                    }
                    let pause = pause.unwrap_or_else(|| Duration::from_millis(250) * 4u32.pow(attempt - 1));
                    std::thread::sleep(pause.min(MAX_PAUSE));
                    attempt += 1;
                }
            }
        }
    }

    fn request(&self, url: &str) -> Result<Response, (FetchError, Option<Duration>)> {
        let transport = |error: reqwest::Error| {
            // The error would print the address as it is, with its credentials.
            let source = Box::new(error.without_url());
            (FetchError::Transport { url: redact(url), source }, None)
        };
        let client = self.client().map_err(transport)?;
        let response = client.get(url).send().map_err(transport)?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let pause = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let status = status.as_u16();
        let url = redact(url);
        let error = match status {
            404 | 410 => FetchError::NotFound { url, status },
            _ => FetchError::Status { url, status },
        };
        Err((error, pause.map(Duration::from_secs)))
    }

    fn client(&self) -> Result<&Client, reqwest::Error> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let builder = Client::builder()
            .tls_backend_preconfigured(cas_tls::config())
            .user_agent(concat!("cas/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(READ_TIMEOUT);
        let client = builder.build()?;
        Ok(self.client.get_or_init(|| client))
    }
}

impl Default for Fetcher {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn the_longest_beginning_leads_to_its_mirror() {
        let mirrors = [
            ("registry.example.org", "https://mirror.example.net/npm"),
            ("registry.example.org/debian", "file:///srv/debian"),
        ];
        let owned = mirrors.map(|(from, to)| (from.to_owned(), to.to_owned()));
        let fetcher = Fetcher::new().through(owned.into());
        for (url, expected) in [
            ("https://registry.example.org/left-pad", Some("https://mirror.example.net/npm/left-pad")),
            ("http://registry.example.org/debian/dists/x", Some("file:///srv/debian/dists/x")),
            ("https://registry.example.org/debianish/x", Some("https://mirror.example.net/npm/debianish/x")),
            ("https://registry.example.org", Some("https://mirror.example.net/npm")),
            ("https://registry.example.org.evil/x", None),
            ("https://other.example.org/registry.example.org/", None),
            ("file:///registry.example.org/x", None),
        ] {
            assert_eq!(fetcher.mirrored(url).as_deref(), expected, "{url}");
        }
    }

    /// A server on loopback that gives one answer to each request, then ends.
    fn server(answers: &'static [&'static str]) -> (String, std::thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
        let address = format!("http://user:secret@{}", listener.local_addr().expect("it is bound"));
        let serve = move || {
            let mut requests = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().expect("a request comes");
                let mut reader = BufReader::new(stream.try_clone().expect("it is open"));
                let mut first = String::new();
                let mut line = String::new();
                while reader.read_line(&mut line).expect("it is open") > 2 {
                    if first.is_empty() {
                        first = line.trim().to_owned();
                    }
                    line.clear();
                }
                requests.push(first);
                stream.write_all(answer.as_bytes()).expect("it is open");
            }
            requests
        };
        (address, std::thread::spawn(serve))
    }

    const FULL: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi";
    const BUSY: &str = "HTTP/1.1 503 Busy\r\nRetry-After: 0\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    const GONE: &str = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    const CUT: &str = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\nhi";

    fn text(url: &str) -> Result<String, String> {
        let mut text = String::new();
        let mut body = Fetcher::new().get(url).map_err(|error| error.to_string())?;
        body.read_to_string(&mut text).map_err(|error| format!("body: {error}"))?;
        Ok(text)
    }

    #[test]
    fn a_busy_server_is_asked_again_and_a_missing_file_is_not() {
        let (address, thread) = server(&[BUSY, FULL]);
        assert_eq!(text(&format!("{address}/a?b")), Ok("hi".to_owned()));
        assert_eq!(thread.join().expect("it ended"), ["GET /a?b HTTP/1.1"; 2]);
        let (address, thread) = server(&[GONE]);
        let error = text(&format!("{address}/a")).expect_err("it is not there");
        assert!(error.ends_with("/a` does not exist there (HTTP status 404)"), "{error}");
        assert!(!error.contains("secret"), "{error}");
        thread.join().expect("it ended");
    }

    #[test]
    fn a_body_ends_when_it_is_to_stop() {
        let file = tempfile::NamedTempFile::new().expect("the temporary folder is writable");
        cas_fs::write(file.path(), b"local").expect("our file");
        let fetcher = Fetcher::new().until(|| true);
        let mut body = fetcher.get(&format!("file://{}", file.path().display())).expect("it is there");
        assert_eq!(body.read(&mut [0; 8]).expect_err("it was stopped").to_string(), "interrupted");
    }

    #[test]
    fn a_cut_body_is_an_error() {
        let (address, thread) = server(&[CUT]);
        assert!(text(&format!("{address}/a")).expect_err("it is cut").starts_with("body: "));
        thread.join().expect("it ended");
    }

    #[test]
    fn files_are_read_and_other_schemes_refused() {
        let file = tempfile::NamedTempFile::new().expect("the temporary folder is writable");
        cas_fs::write(file.path(), b"local").expect("our file");
        assert_eq!(text(&format!("file://{}", file.path().display())), Ok("local".to_owned()));
        assert!(Fetcher::new().get("file:///nowhere/x").err().is_some_and(|error| error.is_not_found()));
        assert!(matches!(Fetcher::new().get("ftp://host/x"), Err(FetchError::Address { .. })));
        assert!(matches!(Fetcher::offline().get("http://127.0.0.1:9/x"), Err(FetchError::Offline { .. })));
    }
}
