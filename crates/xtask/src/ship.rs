//! An image on its way: pushed to a registry of this machine, signed, with what it was made of, verified down to its inputs, fetched
//! to a store that knows nothing, and run from there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::run::Failure;

const PROVENANCE: &str = "https://slsa.dev/provenance/v1";
/// Name of the key, and of the image where it is fetched to.
const NAME: &str = "shipped";
/// How long the registry may take to start.
const START: Duration = Duration::from_secs(20);

/// Makes a command of `cas` with a store: `None` is that of the workspace.
pub(crate) type Cas<'a> = &'a dyn Fn(Option<&Path>, &[&str]) -> Command;

/// A registry that ends with this.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What is shipped, and where it may leave files.
pub(crate) struct Ship<'a> {
    pub(crate) cas: Cas<'a>,
    pub(crate) folder: &'a Path,
    pub(crate) target: &'a str,
    pub(crate) version: &'a str,
}

impl Ship<'_> {
    /// Ships it; what the program of the image prints.
    pub(crate) fn run(&self, program: &[&str]) -> Result<String, Failure> {
        fs::create_dir_all(self.folder)?;
        let name = self.target.rsplit([':', '/']).next().unwrap_or(self.target);
        let (_server, address) = self.serve()?;
        let image = format!("{address}/shipped/{name}:{}", self.version);
        self.shown(None, &["key", "generate", "--plain", NAME])?;
        self.shown(None, &["push", self.target, &image])?;
        self.shown(None, &["sign", &image, "--key", NAME])?;
        let predicate = self.folder.join("provenance.json");
        fs::write(&predicate, self.said(None, &["provenance", "--predicate", self.target])?)?;
        let predicate = predicate.display().to_string();
        self.shown(None, &["attest", &image, "--predicate", &predicate, "--type", PROVENANCE, "--key", NAME])?;
        self.shown(None, &["verify", &image, "--key", NAME])?;
        self.shown(None, &["verify", &image, "--key", NAME, "--inputs"])?;
        let other = self.folder.join("store-of-others");
        let fetched = format!("{NAME}:{}", self.version);
        self.shown(Some(&other), &["pull", &image, "--name", &fetched])?;
        self.shown(Some(&other), &[&["run", &fetched, "--"], program].concat())
    }

    fn serve(&self) -> Result<(Server, String), Failure> {
        let (port, store) = (self.port(), self.folder.join("registry"));
        let file = port.display().to_string();
        let arguments = ["serve", "--registry", "--listen", "127.0.0.1:0", "--port-file", &file];
        println!("$ cas {}", arguments[..4].join(" "));
        let mut command = self.command(Some(&store), &arguments);
        let server = Server(command.stdout(Stdio::null()).stdin(Stdio::null()).spawn()?);
        let started = Instant::now();
        loop {
            match fs::read_to_string(&port) {
                Ok(text) if !text.trim().is_empty() => return Ok((server, format!("127.0.0.1:{}", text.trim()))),
                _ if started.elapsed() > START => return Err("the registry does not start".into()),
                _ => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    fn port(&self) -> PathBuf {
        self.folder.join("port")
    }

    fn command(&self, store: Option<&Path>, arguments: &[&str]) -> Command {
        let mut command = (self.cas)(store, arguments);
        command.env("CAS_KEYS", self.folder.join("keys")).env_remove("CAS_KEY_PASSWORD").env_remove("CI");
        command
    }

    /// What a command prints that ends well.
    fn said(&self, store: Option<&Path>, arguments: &[&str]) -> Result<String, Failure> {
        let output = self.command(store, arguments).stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
        if output.status.success() {
            return Ok(String::from_utf8(output.stdout)?);
        }
        print!("{}", String::from_utf8_lossy(&output.stdout));
        Err(format!("cas {} failed", arguments.join(" ")).into())
    }

    fn shown(&self, store: Option<&Path>, arguments: &[&str]) -> Result<String, Failure> {
        println!("$ cas {}", arguments.join(" "));
        let text = self.said(store, arguments)?;
        print!("{text}");
        Ok(text)
    }
}
