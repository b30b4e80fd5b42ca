//! cosign takes what `cas` signs, and the other way round; `cargo xtask test --peers signing` builds its versions.
//!
//! What each of them does is a cell of a table, docs/interop/signing.md, which a run must find again: `CAS_UPDATE=1` writes it.
//! Names of other hosts lead to a listener here, so that a cell tells what dials out.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use super::registries::{Started, start_named};
use crate::Home;

const TABLE: &str = "docs/interop/signing.md";
const PASSWORD: &str = "a-password-of-tests";
const MANIFEST: &str =
    "[workspace]\n[image.one]\nlayers = [{ files = [\"site/**\"], path = \"site\", to = \"/srv\" }]\n";
const CUSTOM: &str = "https://example.com/check/v1";
const SLSA: &str = "https://slsa.dev/provenance/v1";
/// Of files that name nobody: without them cosign fetches those of the public services.
const NO_SERVICES: [&str; 5] =
    ["--signing-config", "no-services.json", "--trusted-root", "no-roots.json", "--new-bundle-format=true"];
/// What cosign 3 writes in place of this.
const NO_ROOTS: &str = r#"{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1"}"#;
/// Where cosign 2 looks for certificates of the public services, also when it needs none.
const ROOTS_HOST: &str = "tuf-repo-cdn.sigstore.dev";
const KINDS: [&str; 2] = ["ed25519", "ecdsa-p256"];

/// A proxy that lets nobody out, and remembers where they wanted to go.
struct Wall {
    address: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Wall {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let list = Arc::clone(&asked);
        // It ends with the process.
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let mut bytes = [0; 1024];
                let count = stream.read(&mut bytes).unwrap_or(0);
                let line = String::from_utf8_lossy(&bytes[..count]).lines().next().unwrap_or_default().to_owned();
                // `CONNECT host:443 HTTP/1.1`, or `GET http://host/…`.
                let place = line.split_whitespace().nth(1).unwrap_or_default().to_owned();
                list.lock().unwrap().push(place.trim_end_matches(":443").to_owned());
                let _ = stream.write_all(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            }
        });
        Self { address, asked }
    }

    /// Where somebody wanted to go since the last time.
    fn take(&self) -> Vec<String> {
        let mut asked = std::mem::take(&mut *self.asked.lock().unwrap());
        asked.sort();
        asked.dedup();
        asked
    }
}

/// A version of cosign, and what it is asked with.
struct Cosign<'a> {
    version: String,
    program: PathBuf,
    home: &'a Path,
    wall: &'a Wall,
}

impl Cosign<'_> {
    /// Whether its bundles are switched on by a flag.
    fn is_old(&self) -> bool {
        self.version.starts_with("2.")
    }

    /// That no certificate is believed, where it has to be told so.
    fn no_roots(&self) -> &'static [&'static str] {
        if self.is_old() { &["--trusted-root", "no-roots.json"] } else { &[] }
    }

    /// With a bundle, and without a service.
    fn no_services(&self) -> &'static [&'static str] {
        if self.is_old() { &["--tlog-upload=false", "--new-bundle-format=true"] } else { &NO_SERVICES }
    }

    fn run(&self, arguments: &[&str]) -> Result<Output, String> {
        let mut command = Command::new(&self.program);
        command.args(arguments).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", self.home).env("COSIGN_PASSWORD", PASSWORD).env("COSIGN_YES", "true");
        for name in ["HTTP_PROXY", "HTTPS_PROXY"] {
            command.env(name, &self.wall.address);
        }
        self.wall.take();
        let output = command.current_dir(self.home).stdin(Stdio::null()).output().unwrap();
        let mut dialled = self.wall.take();
        if self.is_old() {
            // It wants to have this, and goes on without.
            dialled.retain(|host| host != ROOTS_HOST);
        }
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if !dialled.is_empty() {
            return Err(format!("dials {}", dialled.join(", ")));
        }
        if output.status.success() { Ok(output) } else { Err(reason(&said)) }
    }
}

/// The last thing that a program says of its failure, without what differs from run to run.
fn reason(said: &str) -> String {
    let lines = || said.lines().map(str::trim).filter(|line| !line.is_empty());
    let last =
        lines().rfind(|line| line.starts_with("Error:") || line.starts_with("error:")).or_else(|| lines().next_back());
    let mut text = String::new();
    for word in last.unwrap_or_default().split_whitespace() {
        let is_shown = !word.contains("127.0.0.1") && !word.contains("sha256:") && !word.contains("/tmp/");
        let _ = write!(text, "{} ", if is_shown { word } else { "…" });
    }
    text.trim()
        .trim_start_matches("Error: ")
        .trim_start_matches("error: ")
        .replace('|', "/")
        .chars()
        .take(160)
        .collect()
}

fn cas(home: &Home, arguments: &[&str]) -> Result<Output, String> {
    let mut command = home.cas(arguments);
    command.env("CAS_KEYS", home.path("keys")).env("CAS_KEY_PASSWORD", PASSWORD);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(output) } else { Err(reason(&said)) }
}

#[track_caller]
fn must(result: Result<Output, String>) -> String {
    String::from_utf8_lossy(&result.unwrap_or_else(|error| panic!("{error}")).stdout).into_owned()
}

fn digest_of(said: &str) -> String {
    let start = said.find("sha256:").unwrap();
    said[start..start + 71].to_owned()
}

/// Rows by name, each with a cell for a column.
#[derive(Default)]
struct Rows(Vec<(String, BTreeMap<String, String>)>);

impl Rows {
    fn set<T>(&mut self, row: &str, column: &str, result: Result<T, String>) {
        let cell = result.map_or_else(|error| format!("no: {error}"), |_| "yes".to_owned());
        self.put(row, column, cell);
    }

    /// Where the right answer is no.
    fn refuses<T>(&mut self, row: &str, column: &str, result: Result<T, String>) {
        let cell = match result {
            Ok(_) => "TAKEN".to_owned(),
            Err(error) if error.starts_with("dials") => format!("no: {error}"),
            Err(_) => "refused".to_owned(),
        };
        self.put(row, column, cell);
    }

    fn put(&mut self, row: &str, column: &str, cell: String) {
        match self.0.iter_mut().find(|(name, _)| name == row) {
            Some((_, cells)) => drop(cells.insert(column.to_owned(), cell)),
            None => self.0.push((row.to_owned(), BTreeMap::from([(column.to_owned(), cell)]))),
        }
    }

    fn table(&self, columns: &[String]) -> String {
        let mut text = format!("| what | {} |\n|---|{}\n", columns.join(" | "), "---|".repeat(columns.len()));
        for (row, cells) in &self.0 {
            let cells: Vec<&str> = columns.iter().map(|column| cells.get(column).map_or("", String::as_str)).collect();
            let _ = writeln!(text, "| {row} | {} |", cells.join(" | "));
        }
        text
    }
}

/// One version, one kind of key, one registry.
struct Case<'a> {
    home: &'a Home,
    cosign: &'a Cosign<'a>,
    kind: &'a str,
    address: &'a str,
    column: String,
}

impl Case<'_> {
    /// A new image for each question, so that no answer is another one's.
    fn image(&self, name: &str) -> String {
        let version = self.cosign.version.replace('.', "-");
        let tag = format!("{}/{name}-{}-{version}:1.0.0", self.address, self.kind);
        // Another content, so that no digest is another question's.
        std::fs::create_dir_all(self.home.workspace().join("site")).unwrap();
        std::fs::write(self.home.workspace().join("site/index.html"), &tag).unwrap();
        must(cas(self.home, &["push", ":one", &tag]));
        let row = must(cas(self.home, &["--format", "json", "push", ":one", &tag]));
        format!("{}@{}", tag.trim_end_matches(":1.0.0"), digest_of(&row))
    }

    fn verify(&self, image: &str, public: &str, is_bundle: bool) -> Result<Output, String> {
        let mut words = vec!["verify", "--key", public, "--insecure-ignore-tlog=true", "--allow-http-registry=true"];
        words.push(if is_bundle { "--new-bundle-format=true" } else { "--new-bundle-format=false" });
        words.extend(self.cosign.no_roots());
        words.push(image);
        self.cosign.run(&words)
    }

    fn sign(&self, image: &str, key: &str, is_bundle: bool) -> Result<Output, String> {
        let mut words = vec!["sign", "--key", key, "--allow-http-registry=true"];
        match is_bundle {
            true => words.extend(self.cosign.no_services()),
            false => words.extend(["--tlog-upload=false", "--new-bundle-format=false"]),
        }
        if !self.cosign.is_old() && !is_bundle {
            words.push("--use-signing-config=false");
        }
        words.push(image);
        self.cosign.run(&words)
    }

    fn ask(&self, rows: &mut Rows) {
        let (home, cosign, column) = (self.home, self.cosign, self.column.as_str());
        let ours = format!("ours-{}", self.kind);
        let key = |name: &str, ending: &str| home.path(&format!("keys/{name}.{ending}")).display().to_string();
        let (private, public) = (key(&ours, "key"), key(&ours, "pub"));
        let other = key(&format!("other-{}", self.kind), "pub");

        let image = self.image("bundle");
        must(cas(home, &["sign", &image, "--key", &ours, "--no-legacy"]));
        rows.set("`cas sign`, `cosign verify` of the bundle", column, self.verify(&image, &public, true));
        rows.refuses("the same with another key", column, self.verify(&image, &other, true));

        let image = self.image("older");
        must(cas(home, &["sign", &image, "--key", &ours]));
        rows.set("`cas sign`, `cosign verify` of the older form", column, self.verify(&image, &public, false));
        rows.refuses("the same with another key, of the older form", column, self.verify(&image, &other, false));

        let attested = self.image("attested");
        std::fs::write(home.workspace().join("said.json"), "{\"fine\":true}").unwrap();
        for kind in [CUSTOM, SLSA] {
            must(cas(home, &["attest", &attested, "--key", &ours, "--type", kind, "--predicate", "said.json"]));
        }
        let verify_attested = |kind: &str, public: &str| {
            let words = ["verify-attestation", "--key", public, "--type", kind, "--insecure-ignore-tlog=true"];
            let more = ["--allow-http-registry=true", "--new-bundle-format=true", &attested];
            cosign.run(&[&words[..], cosign.no_roots(), &more[..]].concat())
        };
        rows.set("`cas attest`, `cosign verify-attestation --type URI`", column, verify_attested(CUSTOM, &public));
        let named = "`cas attest`, `cosign verify-attestation --type slsaprovenance1`";
        rows.set(named, column, verify_attested("slsaprovenance1", &public));
        rows.refuses("the same with another type", column, verify_attested("https://example.com/other", &public));

        for (is_bundle, name) in [(true, "the bundle"), (false, "the older form")] {
            let image = self.image(if is_bundle { "their-bundle" } else { "their-older" });
            let signed = self.sign(&image, &private, is_bundle);
            let mut words = vec!["verify", &image, "--key", &ours];
            if is_bundle {
                words.push("--unclaimed");
            }
            let verified = signed.as_ref().map(drop).map_err(|error| format!("cosign: {error}"));
            let verified = verified.and_then(|()| cas(home, &words).map(drop));
            rows.set(&format!("`cosign sign` with a key of `cas`, `cas verify` of {name}"), column, verified);
            if signed.is_ok() {
                let own = self.verify(&image, &public, is_bundle);
                rows.set(&format!("and `cosign verify` of {name} itself"), column, own);
            } else {
                rows.put(&format!("and `cosign verify` of {name} itself"), column, "–".to_owned());
            }
        }

        let image = self.image("their-attested");
        let predicate = home.workspace().join("said.json").display().to_string();
        let words = ["attest", "--key", &private, "--type", CUSTOM, "--predicate", &predicate];
        let more = ["--allow-http-registry=true", image.as_str()];
        let attested = cosign.run(&[&words[..], cosign.no_services(), &more].concat());
        let verified = attested
            .map_err(|error| format!("cosign: {error}"))
            .and_then(|_| cas(home, &["verify", &image, "--key", &ours, "--unclaimed", "--type", CUSTOM]));
        rows.set("`cosign attest` with a key of `cas`, `cas verify --type`", column, verified);

        rows.set("`cas key export --as pkcs8`, `cosign import-key-pair`, and back", column, self.their_import(&ours));
        let named = "`cosign generate-key-pair`, `cas key import`, `cas sign`, `cosign verify`";
        match self.kind {
            "ed25519" => rows.put(named, column, "– it makes no such keys".to_owned()),
            _ => rows.set(named, column, self.their_key()),
        }
    }

    /// Our key in the clear becomes one of cosign's, which becomes ours again.
    fn their_import(&self, ours: &str) -> Result<(), String> {
        let name = format!("{}-{}", self.kind, self.column_name());
        let plain = self.home.path(&format!("{name}.pem")).display().to_string();
        must(cas(self.home, &["key", "export", ours, "--as", "pkcs8", "--output", &plain]));
        let prefix = self.home.path(&format!("{name}-imported")).display().to_string();
        self.cosign.run(&["import-key-pair", "--key", &plain, "--output-key-prefix", &prefix])?;
        let own = format!("back-{name}");
        cas(self.home, &["key", "import", &format!("{prefix}.key"), "--name", &own])?;
        let id = |name: &str| must(cas(self.home, &["key", "export", name]));
        if id(&own) == id(ours) { Ok(()) } else { Err("another key came back".to_owned()) }
    }

    /// A key that cosign made signs here, and cosign verifies it with its own public file.
    fn their_key(&self) -> Result<(), String> {
        let name = format!("{}-{}", self.kind, self.column_name());
        let prefix = self.home.path(&format!("{name}-generated")).display().to_string();
        self.cosign.run(&["generate-key-pair", "--output-key-prefix", &prefix])?;
        let own = format!("theirs-{name}");
        cas(self.home, &["key", "import", &format!("{prefix}.key"), "--name", &own])?;
        let image = self.image("imported");
        cas(self.home, &["sign", &image, "--key", &own])?;
        self.verify(&image, &format!("{prefix}.pub"), true).map(drop)
    }

    fn column_name(&self) -> String {
        self.column.replace([' ', ',', '`'], "-")
    }
}

#[test]
#[ignore = "cargo xtask test --peers signing"]
fn cosign_and_cas_verify_each_other() {
    let programs = std::env::var("CAS_COSIGN").expect("CAS_COSIGN is not set");
    let mut text = include_str!("signing.md").to_owned();
    let wall = Wall::start();
    for (registry, name) in [("`cas serve --registry`", "cas serve"), ("docker-registry 2.8", "docker-registry")] {
        let home = Home::new(MANIFEST);
        let started = start_named(&home, name).unwrap_or_else(|| panic!("{name} is missing: run `cargo xtask peers`"));
        let Started { address, _server } = started;
        for kind in KINDS {
            for name in ["ours", "other"] {
                must(cas(&home, &["key", "generate", &format!("{name}-{kind}"), "--type", kind]));
            }
        }
        let mut rows = Rows::default();
        let mut columns = Vec::new();
        for named in programs.split(';') {
            let (version, program) = named.split_once('=').expect("VERSION=PROGRAM");
            let folder = home.path(version);
            std::fs::create_dir(&folder).unwrap();
            let (version, program) = (version.to_owned(), PathBuf::from(program));
            let cosign = Cosign { version, program, home: &folder, wall: &wall };
            if cosign.is_old() {
                std::fs::write(folder.join("no-roots.json"), NO_ROOTS).unwrap();
            } else {
                must(cosign.run(&["signing-config", "create", "--out", "no-services.json"]));
                let nobody = ["--no-default-fulcio", "--no-default-rekor", "--no-default-ctfe", "--no-default-tsa"];
                must(cosign.run(&[&["trusted-root", "create", "--out", "no-roots.json"], &nobody[..]].concat()));
            }
            for kind in KINDS {
                let column = format!("{} {kind}", cosign.version);
                columns.push(column.clone());
                Case { home: &home, cosign: &cosign, kind, address: &address, column }.ask(&mut rows);
            }
        }
        let _ = write!(text, "\n## At {registry}\n\n{}", rows.table(&columns));
    }
    eprintln!("{text}");
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().find(|folder| folder.join(TABLE).parent().unwrap().exists());
    let path = path.unwrap().join(TABLE);
    if std::env::var_os("CAS_UPDATE").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    assert!(!text.contains("TAKEN"), "a key or type that was not asked for is taken");
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(text == expected, "{TABLE} says something else; CAS_UPDATE=1 writes it anew");
}
