//! Debian's docker-registry, and what the benchmark asks of it by itself.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::super::image::peers::is_there;
use super::super::output;
use crate::run::Failure;

const PROGRAM: &str = "docker-registry";
/// What a line of its log has for each request that it answered.
const ANSWERED: &str = "response completed";
/// How long it may take to start.
const START: Duration = Duration::from_secs(10);

/// A registry that ends with this.
pub(super) struct Server {
    process: Child,
    pub(super) address: String,
    log: PathBuf,
}

impl Server {
    /// Starts it with its files in a folder.
    pub(super) fn start(folder: &Path) -> Result<Self, Failure> {
        if !is_there(PROGRAM) {
            return Err("docker-registry is not installed; it is Debian's package of this name".into());
        }
        fs::create_dir_all(folder)?;
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let settings = folder.join("settings.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: info, formatter: json, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: {}, maxthreads: 100}}}}\nhttp: {{addr: {address}}}\n",
            folder.join("data").display()
        );
        fs::write(&settings, text)?;
        let log = folder.join("log");
        let mut command = Command::new(PROGRAM);
        command.arg("serve").arg(&settings).env("OTEL_TRACES_EXPORTER", "none").stdin(Stdio::null());
        command.stdout(fs::File::create(&log)?).stderr(fs::File::options().append(true).open(&log)?);
        let server = Self { process: command.spawn()?, address, log };
        let started = Instant::now();
        while TcpStream::connect(&server.address).is_err() {
            if started.elapsed() > START {
                return Err(format!("docker-registry did not start: {}", fs::read_to_string(&server.log)?).into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }

    /// How many requests it has answered.
    pub(super) fn requests(&self) -> Result<usize, Failure> {
        // What was answered last is on its way to the file.
        std::thread::sleep(Duration::from_millis(100));
        Ok(fs::read_to_string(&self.log)?.matches(ANSWERED).count())
    }

    /// The digest that a reference with a tag names.
    pub(super) fn digest_of(&self, reference: &str) -> Result<String, Failure> {
        let (name, tag) = self.parts(reference)?;
        let answer = self.ask("GET", &format!("/v2/{name}/manifests/{tag}"), ACCEPT, b"")?;
        let head = answer.split("\r\n\r\n").next().unwrap_or_default();
        let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with("docker-content-digest:"));
        Ok(line.and_then(|line| line.split_once(": ")).ok_or("no digest was told")?.1.to_owned())
    }

    /// The manifest that a reference with a tag names.
    pub(super) fn manifest(&self, reference: &str) -> Result<String, Failure> {
        let (name, tag) = self.parts(reference)?;
        let answer = self.ask("GET", &format!("/v2/{name}/manifests/{tag}"), ACCEPT, b"")?;
        Ok(answer.split_once("\r\n\r\n").ok_or("no manifest was told")?.1.to_owned())
    }

    /// Puts a manifest under a tag.
    pub(super) fn put(&self, name: &str, tag: &str, manifest: &[u8]) -> Result<(), Failure> {
        let header = "Content-Type: application/vnd.oci.image.manifest.v1+json\r\n";
        self.ask("PUT", &format!("/v2/{name}/manifests/{tag}"), header, manifest).map(drop)
    }

    fn parts<'a>(&self, reference: &'a str) -> Result<(&'a str, &'a str), Failure> {
        let rest = reference.strip_prefix(&format!("{}/", self.address)).ok_or("it is of another registry")?;
        Ok(rest.rsplit_once(':').ok_or("it has no tag")?)
    }

    /// One request, and the answer, which is a good one.
    fn ask(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Result<String, Failure> {
        let mut stream = TcpStream::connect(&self.address)?;
        let head = format!(
            "{method} {path} HTTP/1.0\r\nHost: {}\r\n{headers}Content-Length: {}\r\n\r\n",
            self.address,
            body.len()
        );
        stream.write_all(head.as_bytes())?;
        stream.write_all(body)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        match answer.split(' ').nth(1) {
            Some(status) if status.starts_with('2') => Ok(answer),
            _ => Err(format!("{method} {path}: {answer}").into()),
        }
    }
}

const ACCEPT: &str = "Accept: application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json\r\n";

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The version that it tells.
pub(super) fn version() -> Result<String, Failure> {
    let text = output(Command::new(PROGRAM).arg("--version"))?;
    Ok(text.split_whitespace().last().unwrap_or_default().to_owned())
}
