//! `cas serve --registry`: our own pushes, those of others, and requests that nobody should send.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cas_digest::{Digest, DigestFunction};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{Home, text};

const MANIFEST: &str = "[workspace]\n\
    [image.web]\nplatforms = [\"linux/amd64\", \"linux/arm64\"]\nlayers = [{ files = [\"site/**\"], path = \"site\", to = \"/srv\" }]\n\
    [image.one]\nlayers = [{ files = [\"site/**\"], path = \"site\", to = \"/srv\" }]\n\
    [artifact.docs]\ntype = \"application/vnd.example.docs\"\nfiles = [{ path = \"site\" }]\n";
const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
const LIMIT: Duration = Duration::from_secs(60);

fn home() -> Home {
    let home = Home::new(MANIFEST);
    home.write("site/index.html", "<p>one</p>\n");
    home
}

/// A server that ends with the test, over a store of its own.
pub(crate) struct Served {
    child: Child,
    port: u16,
}

impl Served {
    fn command(home: &Home, arguments: &[&str]) -> Command {
        let mut command = home.command(&["serve", "--registry"]);
        command.args(arguments).env("CAS_HOME", home.folder.path().join("served"));
        command
    }

    pub(crate) fn start(home: &Home, arguments: &[&str]) -> Self {
        let file = home.folder.path().join("port");
        let _ = fs::remove_file(&file);
        let mut command = Self::command(home, &["--listen", "127.0.0.1:0", "--port-file"]);
        command.arg(&file).args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let start = Instant::now();
        loop {
            if let Ok(port) = fs::read_to_string(&file) {
                return Self { child, port: port.trim().parse().unwrap() };
            }
            assert!(child.try_wait().unwrap().is_none() && start.elapsed() < LIMIT, "the server does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn to(&self, rest: &str) -> String {
        format!("127.0.0.1:{}/{rest}", self.port)
    }

    fn ask(&self, method: &str, target: &str, headers: &str, body: &[u8]) -> Answer {
        let mut stream = self.begin(method, target, &format!("{headers}Content-Length: {}\r\n", body.len()));
        // A server that has refused may have gone.
        let _ = stream.write_all(body);
        answer(stream)
    }

    /// The head of a request; its body is to follow.
    fn begin(&self, method: &str, target: &str, headers: &str) -> TcpStream {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let host = if headers.contains("Host:") { "" } else { "Host: localhost\r\n" };
        write!(stream, "{method} {target} HTTP/1.1\r\n{host}Connection: close\r\n{headers}\r\n").unwrap();
        stream
    }

    fn get(&self, target: &str) -> Answer {
        self.ask("GET", target, "", b"")
    }

    fn put_blob(&self, name: &str, bytes: &[u8]) -> Digest {
        let digest = sha256(bytes);
        let put = self.ask("POST", &format!("/v2/{name}/blobs/uploads/?digest={digest}"), "", bytes);
        assert_eq!(put.status, 201, "{}", text(&put.body));
        digest
    }

    /// Where a new upload goes on.
    fn upload(&self, name: &str) -> String {
        let begun = self.ask("POST", &format!("/v2/{name}/blobs/uploads/"), "", b"");
        assert_eq!(begun.status, 202, "{}", text(&begun.body));
        begun.header("location").unwrap()
    }

    fn ends(mut self, signal: Signal) -> Option<i32> {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        self.child.wait().unwrap().code()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> Option<String> {
        let line = self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then_some(value)
        });
        line.map(|value| value.trim().to_owned())
    }

    #[track_caller]
    fn is(&self, status: u16, code: &str) {
        let body: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        assert_eq!((self.status, body["errors"][0]["code"].as_str()), (status, Some(code)), "{}", text(&self.body));
    }
}

fn answer(mut stream: TcpStream) -> Answer {
    let mut bytes = Vec::new();
    // What came before a break is looked at.
    let _ = stream.read_to_end(&mut bytes);
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or_else(|| panic!("{}", text(&bytes)));
    let head = text(&bytes[..end]);
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head, body: bytes[end + 4..].to_vec() }
}

fn sha256(bytes: &[u8]) -> Digest {
    Digest::of(DigestFunction::Sha256, bytes)
}

fn noise(length: u32) -> Vec<u8> {
    (0..length / 4).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}

/// Removes all that nobody needs from the store that is served.
fn clear(home: &Home) {
    let mut command = home.command(&["store", "gc", "--min-age", "0s", "--keep", "0s", "--max-size", "0"]);
    let output = command.env("CAS_HOME", home.folder.path().join("served")).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
}

fn json(home: &Home, arguments: &[&str]) -> Value {
    let output = home.cas(&[&["--format", "json"], arguments].concat());
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{arguments:?}: {}", text(&output.stderr)))
}

#[test]
fn what_is_pushed_is_read_back_by_us_and_by_skopeo() {
    let home = home();
    fs::write(home.workspace().join("site/noise"), noise(1_600_000)).unwrap();
    let served = Served::start(&home, &[]);
    let has_skopeo = Command::new("skopeo").arg("--version").output().is_ok();
    if !has_skopeo {
        eprintln!("SKIPPED: skopeo is missing");
    }
    for (name, path) in [(":web", "a/web"), (":one", "one"), (":docs", "a/b/docs")] {
        let (version, stable) = (served.to(&format!("{path}:1.0.0")), served.to(&format!("{path}:stable")));
        let pushed = json(&home, &["push", name, &version, &stable]);
        let digest = pushed["results"][0]["digest"].as_str().unwrap_or_else(|| panic!("{pushed}")).to_owned();
        let again = json(&home, &["push", name, &version, &stable]);
        assert_eq!((&again["results"][1]["tag"], &again["results"][0]["sent"]["blobs"]), (&"same".into(), &0.into()));
        let manifest = served.get(&format!("/v2/{path}/manifests/stable"));
        assert_eq!(sha256(&manifest.body).to_string(), digest);
        assert_eq!(manifest.header("docker-content-digest"), Some(digest.clone()));
        // Of several platforms, an import takes the one of this machine.
        if name == ":one" {
            let imported = json(&home, &["image", "import", &format!("docker://{version}"), "--name", "back:1"]);
            assert_eq!(imported["results"][0]["digest"], digest.as_str(), "{imported}");
        }
        if has_skopeo {
            let layout = format!("oci:{}:x", home.folder.path().join(path.replace('/', "-")).display());
            let copy = |from: &str, to: &str| {
                let copied = Command::new("skopeo")
                    .args(["copy", "--all", "--src-tls-verify=false", "--dest-tls-verify=false", from, to])
                    .output()
                    .unwrap();
                assert!(copied.status.success(), "{}", text(&copied.stderr));
            };
            copy(&format!("docker://{stable}"), &layout);
            copy(&layout, &format!("docker://{}", served.to(&format!("skopeo/{path}:1.0.0"))));
            let back = served.get(&format!("/v2/skopeo/{path}/manifests/1.0.0"));
            assert_eq!(back.header("docker-content-digest"), Some(digest));
        }
    }
    home.write("site/index.html", "<p>two</p>\n");
    let output = home.cas(&["push", ":one", &served.to("one:1.0.0")]);
    assert_eq!(output.status.code(), Some(7), "{}", text(&output.stderr));
    // What was pushed is there after the end, and collections of others take nothing of it.
    assert_eq!(served.ends(Signal::TERM), Some(0));
    clear(&home);
    let served = Served::start(&home, &[]);
    let imported =
        json(&home, &["image", "import", &format!("docker://{}", served.to("a/web:1.0.0")), "--name", "b:1"]);
    assert_eq!(imported["exit"], "done", "{imported}");
    let again = Served::command(&home, &["--listen", "127.0.0.1:0"]).output().unwrap();
    assert_eq!(again.status.code(), Some(5), "{}", text(&again.stderr));
    assert!(text(&again.stderr).contains("another server has"), "{}", text(&again.stderr));
    assert_eq!(served.ends(Signal::INT), Some(0));
}

#[test]
fn addresses_of_others_are_not_listened_at_unless_that_is_said() {
    let home = home();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = listener.local_addr().unwrap().to_string();
    for (arguments, code, said) in [
        (&["--listen", "0.0.0.0:0"][..], 2, "hint: `--allow-anyone` lets everybody"),
        (&["--listen", "[::]:0"], 2, "can be reached from other machines"),
        (&["--listen", &taken], 6, "cannot be listened at"),
        (&["--listen", "example.org:1"], 2, "invalid value"),
    ] {
        let output = Served::command(&home, arguments).output().unwrap();
        let stderr = text(&output.stderr);
        assert!(output.status.code() == Some(code) && stderr.contains(said), "{arguments:?}: {stderr}");
    }
    let file = home.folder.path().join("port");
    fs::write(home.folder.path().join("served/v1/registry.db"), [b'x'; 4096]).unwrap();
    let mut command = Served::command(&home, &["--listen", "127.0.0.1:0", "--port-file"]);
    let output = command.arg(&file).output().unwrap();
    assert_eq!(output.status.code(), Some(5), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("it is no index of a registry"), "{}", text(&output.stderr));
    assert!(!file.exists());
}

/// Nothing of an upload is left after the server was killed, and all that was acknowledged is.
#[test]
fn a_server_that_is_killed_during_an_upload_forgets_it_and_nothing_else() {
    let home = home();
    let mut served = Served::start(&home, &[]);
    let pushed = json(&home, &["push", ":one", &served.to("a:1.0.0")]);
    let (bytes, location) = (noise(4 << 20), served.upload("a"));
    let patched = served.ask("PATCH", &location, "", &bytes[..1 << 20]);
    assert_eq!((patched.status, patched.header("range")), (202, Some(format!("0-{}", (1 << 20) - 1))));
    // One by itself, and one in the middle of the body that goes straight into the store.
    let other = served.upload("a");
    let digest = sha256(&bytes);
    let length = format!("Content-Length: {}\r\n", bytes.len());
    let mut streams =
        [served.begin("PATCH", &location, &length), served.begin("PUT", &format!("{other}?digest={digest}"), &length)];
    streams.iter_mut().for_each(|stream| stream.write_all(&bytes[..2 << 20]).unwrap());
    served.child.kill().unwrap();
    served.child.wait().unwrap();
    drop((streams, served));
    let served = Served::start(&home, &[]);
    served.get(&location).is(404, "BLOB_UPLOAD_UNKNOWN");
    served.get(&format!("/v2/a/blobs/{digest}")).is(404, "BLOB_UNKNOWN");
    let sessions: Vec<_> = fs::read_dir(home.folder.path().join("served/v1/tmp")).unwrap().collect();
    assert_eq!(sessions.len(), 1, "{sessions:?}");
    let manifest = served.get("/v2/a/manifests/1.0.0");
    assert_eq!(sha256(&manifest.body).to_string(), pushed["results"][0]["digest"].as_str().unwrap());
    served.put_blob("a", &bytes);
    assert_eq!(served.get(&format!("/v2/a/blobs/{digest}")).body, bytes);
}

#[test]
fn uploads_go_on_where_they_broke_off_and_end_as_announced() {
    let home = home();
    let served = Served::start(&home, &["--max-blob-size", "1M"]);
    let bytes = noise(300_000);
    let digest = sha256(&bytes);
    let location = served.upload("a");
    assert_eq!(served.get(&location).header("range"), Some("0-0".to_owned()));
    let part =
        |range: &str, bytes: &[u8]| served.ask("PATCH", &location, &format!("Content-Range: {range}\r\n"), bytes);
    assert_eq!(part("0-99999", &bytes[..100_000]).status, 202);
    let wrong = part("200000-299999", &bytes[200_000..]);
    wrong.is(416, "BLOB_UPLOAD_INVALID");
    assert_eq!((wrong.header("range"), wrong.header("location")), (Some("0-99999".to_owned()), Some(location.clone())));
    part("100000-199998", &bytes[100_000..200_000]).is(400, "SIZE_INVALID");
    part("x", b"").is(400, "BLOB_UPLOAD_INVALID");
    // A client that goes away in the middle leaves what it has sent.
    let mut stream = served.begin("PATCH", &location, "Content-Length: 100000\r\n");
    stream.write_all(&bytes[100_000..150_000]).unwrap();
    drop(stream);
    let start = Instant::now();
    let status = loop {
        let status = served.get(&location);
        if status.status == 204 && status.header("range") != Some("0-99999".to_owned()) {
            break status;
        }
        assert!(start.elapsed() < LIMIT, "{}", status.head);
        std::thread::sleep(Duration::from_millis(10));
    };
    let range = status.header("range").unwrap();
    let from: usize = range.strip_prefix("0-").unwrap().parse::<usize>().unwrap() + 1;
    assert!((100_001..=150_000).contains(&from), "{range}");
    served.get(&location.replace("/a/", "/b/")).is(404, "BLOB_UPLOAD_UNKNOWN");
    served.ask("PUT", &location, "", &bytes[from..]).is(400, "UNSUPPORTED");
    let put = served.ask("PUT", &format!("{location}?digest={digest}"), "", &bytes[from..]);
    assert_eq!((put.status, put.header("docker-content-digest")), (201, Some(digest.to_string())));
    assert_eq!(served.get(&put.header("location").unwrap()).body, bytes);
    served.get(&location).is(404, "BLOB_UPLOAD_UNKNOWN");
    // Another digest ends an upload, in one request or in several, and nothing is there.
    let other = sha256(b"other");
    for first in [0, 10] {
        let location = served.upload("a");
        if first > 0 {
            assert_eq!(served.ask("PATCH", &location, "", &bytes[..first]).status, 202);
        }
        served.ask("PUT", &format!("{location}?digest={other}"), "", &bytes[first..]).is(400, "DIGEST_INVALID");
        served.get(&location).is(404, "BLOB_UPLOAD_UNKNOWN");
    }
    served.ask("POST", &format!("/v2/a/blobs/uploads/?digest={other}"), "", &bytes).is(400, "DIGEST_INVALID");
    served.get(&format!("/v2/a/blobs/{other}")).is(404, "BLOB_UNKNOWN");
    // Bodies of a length that nobody said, one of which has no end.
    let chunked = |bytes: &[u8]| [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat();
    let location = served.upload("a");
    let mut stream = served.begin("PUT", &format!("{location}?digest={digest}"), "Transfer-Encoding: chunked\r\n");
    stream.write_all(&[chunked(&bytes), b"0\r\n\r\n".to_vec()].concat()).unwrap();
    assert_eq!(answer(stream).status, 201);
    let location = served.upload("a");
    let mut stream = served.begin("PATCH", &location, "Transfer-Encoding: chunked\r\n");
    while stream.write_all(&chunked(&bytes)).is_ok() && start.elapsed() < LIMIT {}
    assert!(start.elapsed() < LIMIT, "it has an end");
    served.ask("PATCH", &location, "", &noise(1_200_000)).is(413, "SIZE_INVALID");
    served.ask("POST", &format!("/v2/a/blobs/uploads/?digest={other}"), "", &noise(1_200_000)).is(413, "SIZE_INVALID");
    assert_eq!(served.get(&location).header("range"), Some("0-0".to_owned()));
    assert_eq!(served.ask("DELETE", &location, "", b"").status, 204);
    served.get(&location).is(404, "BLOB_UPLOAD_UNKNOWN");
}

#[test]
fn parts_of_blobs_are_read() {
    let home = home();
    let served = Served::start(&home, &[]);
    let bytes = noise(1_000_000);
    let target = format!("/v2/a/blobs/{}", served.put_blob("a", &bytes));
    let head = served.ask("HEAD", &target, "", b"");
    assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, Some("1000000".to_owned()), 0));
    for (range, expected) in
        [("0-0", 0..1), ("999999-", 999_999..1_000_000), ("-5", 999_995..1_000_000), ("500-700000", 500..700_001)]
    {
        let part = served.ask("GET", &target, &format!("Range: bytes={range}\r\n"), b"");
        assert_eq!(part.status, 206, "{range}");
        let told = format!("bytes {}-{}/1000000", expected.start, expected.end - 1);
        assert_eq!(part.header("content-range"), Some(told));
        assert!(part.body == bytes[expected], "{range}");
    }
    let outside = served.ask("GET", &target, "Range: bytes=1000000-\r\n", b"");
    outside.is(416, "BLOB_UPLOAD_INVALID");
    assert_eq!(outside.header("content-range"), Some("bytes */1000000".to_owned()));
    assert!(served.ask("GET", &target, "Range: bytes=0-1,5-6\r\n", b"").body == bytes);
    let empty = served.put_blob("a", b"");
    let found = served.get(&format!("/v2/a/blobs/{empty}"));
    assert_eq!((found.status, found.header("content-length")), (200, Some("0".to_owned())));
}

#[test]
fn requests_that_nobody_should_send_are_refused() {
    let home = home();
    let served = Served::start(&home, &[]);
    let empty = served.put_blob("a", b"{}");
    let named = |what: &str| format!(r#"{{"mediaType":"a/b","digest":"{what}","size":2}}"#);
    let manifest = format!(r#"{{"schemaVersion":2,"config":{},"layers":[]}}"#, named(&empty.to_string()));
    let missing = manifest.replace(&empty.to_string(), &sha256(b"x").to_string());
    let long = format!(r#"{{"a":"{}"}}"#, "x".repeat(5 << 20));
    let typed = format!("Content-Type: {IMAGE}\r\n");
    let moved = manifest.replace("2,", "2, ");
    assert_eq!(served.ask("PUT", "/v2/a/manifests/1.0.0", &typed, manifest.as_bytes()).status, 201);
    for (method, target, headers, body, status, code) in [
        ("PUT", "/v2/a/manifests/x", typed.as_str(), missing.as_str(), 400, "MANIFEST_BLOB_UNKNOWN"),
        ("PUT", "/v2/a/manifests/x", &typed, &long, 413, "MANIFEST_INVALID"),
        ("PUT", "/v2/a/manifests/x", &typed, "nothing", 400, "MANIFEST_INVALID"),
        ("PUT", "/v2/a/manifests/x", "Content-Type: text/html\r\n", &manifest, 400, "MANIFEST_INVALID"),
        ("PUT", "/v2/a/manifests/1.0.0", &typed, &moved, 409, "DENIED"),
        ("PUT", "/v2/a/../b/manifests/x", &typed, &manifest, 400, "NAME_INVALID"),
        ("PUT", "/v2/../../../etc/manifests/x", &typed, &manifest, 400, "NAME_INVALID"),
        ("PUT", "/v2/a/manifests/..%2f..%2fx", &typed, &manifest, 404, "UNSUPPORTED"),
        ("GET", "/v2/a/blobs/sha256:..%2f..%2f..%2fstore.json", "", "", 404, "UNSUPPORTED"),
        ("GET", "/v2/a/blobs/../../../../etc/passwd", "", "", 404, "UNSUPPORTED"),
        ("GET", "/v2/a/blobs/uploads/../../../x", "", "", 404, "UNSUPPORTED"),
        ("GET", "/v2/a%00/tags/list", "", "", 404, "UNSUPPORTED"),
        ("GET", "/v2/none/tags/list", "", "", 404, "NAME_UNKNOWN"),
        ("GET", "/v2/a/manifests/none", "", "", 404, "MANIFEST_UNKNOWN"),
        ("DELETE", "/v2/a/manifests/1.0.0", "", "", 405, "UNSUPPORTED"),
        ("PATCH", "/v2/a/manifests/1.0.0", "", "", 405, "UNSUPPORTED"),
        ("PUT", "/v2/", "", "", 405, "UNSUPPORTED"),
        ("GET", "/v2/", "Host: evil.example\r\n", "", 403, "DENIED"),
        ("GET", "/v2/", "Host: 127.0.0.1.evil.example:5000\r\n", "", 403, "DENIED"),
        ("GET", "/v2/", "Origin: http://localhost\r\n", "", 403, "DENIED"),
    ] {
        served.ask(method, target, headers, body.as_bytes()).is(status, code);
    }
    assert_eq!(served.get("/v2/").status, 200);
    assert_eq!(served.get("/v2/a/manifests/1.0.0").body, manifest.as_bytes());
    // A head without an end, and what is no HTTP, end by themselves.
    for start in [&b"GET /v2/ HTTP/1.1\r\nX: "[..], b"\x16\x03\x01\x02\x00\x01\x00"] {
        let mut stream = TcpStream::connect(("127.0.0.1", served.port)).unwrap();
        let _ = stream.write_all(start);
        let _ = stream.write_all(&vec![b'x'; 1 << 20]);
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        assert!(!bytes.starts_with(b"HTTP/1.1 200"), "{}", text(&bytes));
    }
    assert_eq!(served.get("/v2/").status, 200);
}

#[test]
fn one_blob_is_pushed_by_many_at_once() {
    let home = home();
    let served = Served::start(&home, &[]);
    let bytes = noise(2_000_000);
    let digest = sha256(&bytes);
    std::thread::scope(|scope| {
        let push = |number: usize| {
            let name = format!("r{}", number % 3);
            // Half of them in one piece, half of them in two.
            if number.is_multiple_of(2) {
                served.put_blob(&name, &bytes);
            } else {
                let location = served.upload(&name);
                assert_eq!(served.ask("PATCH", &location, "", &bytes[..1_000_000]).status, 202);
                let target = format!("{location}?digest={digest}");
                assert_eq!(served.ask("PUT", &target, "", &bytes[1_000_000..]).status, 201);
            }
            assert!(served.get(&format!("/v2/{name}/blobs/{digest}")).body == bytes);
        };
        (0..8).for_each(|number| drop(scope.spawn(move || push(number))));
    });
    // One upload has one writer.
    let location = served.upload("a");
    let mut stream = served.begin("PATCH", &location, "Content-Length: 10\r\n");
    stream.write_all(b"12345").unwrap();
    let start = Instant::now();
    while served.get(&location).status != 409 {
        assert!(start.elapsed() < LIMIT, "nobody writes");
        std::thread::sleep(Duration::from_millis(10));
    }
    served.ask("PATCH", &location, "", b"x").is(409, "BLOB_UPLOAD_INVALID");
    stream.write_all(b"67890").unwrap();
    assert_eq!(answer(stream).header("range"), Some("0-9".to_owned()));
}

/// A blob comes before the manifest that needs it, and others may clear the store in between.
#[test]
fn collections_beside_a_server_take_nothing_that_it_got() {
    let home = home();
    let served = Served::start(&home, &[]);
    let digest = served.put_blob("a", &noise(300_000));
    clear(&home);
    assert!(served.get(&format!("/v2/a/blobs/{digest}")).body == noise(300_000));
    let config = format!(r#"{{"mediaType":"a/b","digest":"{digest}","size":300000}}"#);
    let manifest = format!(r#"{{"schemaVersion":2,"config":{config},"layers":[]}}"#);
    let typed = format!("Content-Type: {IMAGE}\r\n");
    let other = served.put_blob("a", b"nobody needs it");
    assert_eq!(served.ask("PUT", "/v2/a/manifests/x", &typed, manifest.as_bytes()).status, 201);
    assert_eq!(served.ends(Signal::TERM), Some(0));
    clear(&home);
    let served = Served::start(&home, &[]);
    assert!(served.get(&format!("/v2/a/blobs/{digest}")).body == noise(300_000));
    served.get(&format!("/v2/a/blobs/{other}")).is(404, "BLOB_UNKNOWN");
}

#[test]
fn lists_have_an_order_and_parts() {
    let home = home();
    let served = Served::start(&home, &["--allow-deletes"]);
    let config = served.put_blob("a/b", b"{}");
    served.put_blob("Z".to_lowercase().as_str(), b"{}");
    let named = format!(r#"{{"mediaType":"a/b","digest":"{config}","size":2}}"#);
    let manifest = format!(r#"{{"schemaVersion":2,"config":{named},"layers":[]}}"#);
    let typed = format!("Content-Type: {IMAGE}\r\n");
    let subject = sha256(manifest.as_bytes());
    let tags = "b=&tag=b&tag=a&tag=C&tag=1.0.0";
    let put = served.ask("PUT", &format!("/v2/a/b/manifests/{subject}?{tags}"), &typed, manifest.as_bytes());
    assert_eq!((put.status, put.header("oci-tag")), (201, Some("b, a, C, 1.0.0".to_owned())));
    let list = |target: &str| {
        let found = served.get(target);
        let body: Value = serde_json::from_slice(&found.body).unwrap();
        (body, found.header("link"))
    };
    let (body, link) = list("/v2/a/b/tags/list");
    assert_eq!((body["tags"].to_string(), link), (r#"["1.0.0","C","a","b"]"#.to_owned(), None));
    let (body, link) = list("/v2/a/b/tags/list?n=3");
    assert_eq!(body["tags"].to_string(), r#"["1.0.0","C","a"]"#);
    let link = link.unwrap();
    assert_eq!(link, r#"</v2/a/b/tags/list?n=3&last=a>; rel="next""#);
    let (body, link) = list(link.split(['<', '>']).nth(1).unwrap());
    assert_eq!((body["tags"].to_string(), link), (r#"["b"]"#.to_owned(), None));
    assert_eq!(list("/v2/a/b/tags/list?n=0"), (serde_json::json!({ "name": "a/b", "tags": [] }), None));
    let (body, link) = list("/v2/_catalog?n=1");
    assert_eq!((body["repositories"].to_string(), link.is_some()), (r#"["a/b"]"#.to_owned(), true));
    // A manifest about another one is found by that.
    let about = format!(
        r#"{{"schemaVersion":2,"artifactType":"x/y","config":{named},"layers":[],"subject":{},"annotations":{{"k":"v"}}}}"#,
        format_args!(r#"{{"mediaType":"{IMAGE}","digest":"{subject}","size":{}}}"#, manifest.len())
    );
    let put = served.ask("PUT", "/v2/a/b/manifests/about", &typed, about.as_bytes());
    assert_eq!(put.header("oci-subject"), Some(subject.to_string()));
    let found = served.get(&format!("/v2/a/b/referrers/{subject}?artifactType=x%2Fy"));
    assert_eq!(found.header("oci-filters-applied"), Some("artifactType".to_owned()));
    assert_eq!(found.header("content-type"), Some("application/vnd.oci.image.index.v1+json".to_owned()));
    let body: Value = serde_json::from_slice(&found.body).unwrap();
    let descriptor = &body["manifests"][0];
    assert_eq!(descriptor["digest"], sha256(about.as_bytes()).to_string());
    assert_eq!((&descriptor["artifactType"], &descriptor["annotations"]["k"]), (&"x/y".into(), &"v".into()));
    let (body, _) = list(&format!("/v2/a/b/referrers/{subject}?artifactType=x/z"));
    assert_eq!(body["manifests"], serde_json::json!([]));
    let target = format!("/v2/a/b/manifests/{}", sha256(about.as_bytes()));
    assert_eq!(served.ask("DELETE", &target, "", b"").status, 202);
    assert_eq!(list(&format!("/v2/a/b/referrers/{subject}")).0["manifests"], serde_json::json!([]));
    served.ask("DELETE", &format!("/v2/a/b/blobs/{config}"), "", b"").is(409, "DENIED");
}
