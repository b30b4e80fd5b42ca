//! Sandboxes as the `cas` binary makes them: what a step sees, what it leaves, and how it ends.
//!
//! The root is one static busybox. Root runs every test as itself and, in `everything_holds_for_an_ordinary_user_too`,
//! once more as another user.
#![expect(clippy::disallowed_methods, reason = "tests set up files and read their environment plainly")]
#![expect(clippy::unwrap_used, reason = "a failed helper fails its test, and the place tells which")]
#![expect(clippy::print_stderr, reason = "a skipped test says so")]

mod attacks;
mod changes;
mod checks;
mod cost;
mod endings;
mod host;
mod limits;
mod many;
mod plain;
mod user;
mod world;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use cas_sandbox::{Cancel, Ending, Outcome, Overlay, Runner, SandboxError, Spec, Streams};

/// Names by which the tests call busybox.
const APPLETS: [&str; 37] = [
    "sh",
    "cat",
    "ls",
    "id",
    "hostname",
    "env",
    "pwd",
    "touch",
    "rm",
    "mkdir",
    "mv",
    "chmod",
    "sleep",
    "nc",
    "ip",
    "kill",
    "ps",
    "readlink",
    "stat",
    "mount",
    "mknod",
    "setsid",
    "dd",
    "find",
    "tr",
    "dnsdomainname",
    "ulimit",
    "true",
    "head",
    "grep",
    "echo",
    "unshare",
    "chown",
    "mkfifo",
    "ln",
    "chroot",
    "nproc",
];

/// A root with busybox and a scratch area, removed at the end.
struct Home {
    directory: PathBuf,
    count: u32,
}

/// What a command did and printed.
struct Run {
    outcome: Outcome,
    stdout: String,
    stderr: String,
    spec: Spec,
}

impl Run {
    /// The output of a command that must have succeeded, without the last newline.
    #[track_caller]
    fn text(&self) -> &str {
        assert_eq!(self.outcome.ending, Ending::Exited(0), "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self.stdout.strip_suffix('\n').unwrap_or(&self.stdout)
    }
}

/// The root that all tests share, or `None` where busybox is missing.
fn busybox() -> Option<&'static Path> {
    static BUSYBOX: OnceLock<Option<PathBuf>> = OnceLock::new();
    BUSYBOX
        .get_or_init(|| {
            let found = ["/bin/busybox", "/usr/bin/busybox"].map(PathBuf::from).into_iter().find(|path| path.exists());
            assert!(
                found.is_some() || std::env::var_os("CI").is_none(),
                "busybox is missing: install the package busybox-static"
            );
            found
        })
        .as_deref()
}

/// The program under test; a copy of it where the build folder is out of reach for the user of the tests.
fn program() -> PathBuf {
    std::env::var_os("CAS_TEST_PROGRAM").map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_cas")), PathBuf::from)
}

/// One for all, so that nearly every run is by a helper that was ready before it.
fn runner() -> Runner {
    static RUNNER: OnceLock<Runner> = OnceLock::new();
    RUNNER.get_or_init(|| Runner::new(program())).clone()
}

impl Home {
    /// A new home, or `None` after saying that the test is skipped.
    fn new() -> Option<Self> {
        let Some(busybox) = busybox() else {
            eprintln!("SKIPPED: /bin/busybox is missing (Debian package busybox-static)");
            return None;
        };
        let directory = tempfile::Builder::new().prefix("cas-sandbox-").tempdir().unwrap().keep();
        let home = Self { directory, count: 0 };
        let bin = home.root().join("bin");
        fs::create_dir_all(&bin).unwrap();
        fs::copy(busybox, bin.join("busybox")).unwrap();
        for applet in APPLETS {
            std::os::unix::fs::symlink("busybox", bin.join(applet)).unwrap();
        }
        for path in [home.root(), bin] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        Some(home)
    }

    fn root(&self) -> PathBuf {
        self.directory.join("root")
    }

    /// A path in the home that no other call gave.
    fn fresh(&mut self, name: &str) -> PathBuf {
        self.count += 1;
        self.directory.join(format!("{name}-{}", self.count))
    }

    /// A specification over the busybox root.
    fn spec<S: AsRef<OsStr>>(&mut self, command: &[S]) -> Spec {
        let root = Overlay { lowers: vec![self.root()], scratch: self.fresh("scratch") };
        let mut spec = Spec::new(root, command.iter().map(AsRef::as_ref));
        spec.environment.insert("PATH".into(), "/bin".into());
        spec
    }

    /// A shell script over the busybox root.
    fn script(&mut self, script: &str) -> Spec {
        self.spec(&["sh", "-euc", script])
    }

    /// A script with a source tree: a lower directory with the given files.
    fn script_with_source(&mut self, script: &str, files: &[(&str, &str)]) -> Spec {
        let lower = self.fresh("inputs");
        fs::create_dir(&lower).unwrap();
        for (path, content) in files {
            let path = lower.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        let mut spec = self.script(script);
        spec.source = Some(Overlay { lowers: vec![lower], scratch: self.fresh("source-scratch") });
        spec
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // What commands of many users left is not this user's.
        if cas_fs::remove_tree(&self.directory).is_err()
            && let Err(error) = runner().remove(&self.directory)
        {
            eprintln!("could not remove {}: {error}", self.directory.display());
        }
    }
}

fn read_all(mut pipe: impl Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn try_run_with(runner: &Runner, spec: &Spec, cancel: &Cancel) -> Result<Run, SandboxError> {
    let (stdout_reader, stdout) = std::io::pipe().unwrap();
    let (stderr_reader, stderr) = std::io::pipe().unwrap();
    let (stdout_text, stderr_text) = (read_all(stdout_reader), read_all(stderr_reader));
    let outcome = runner.run(spec, Streams::new(stdout, stderr), cancel);
    let (stdout, stderr) = (stdout_text.join().unwrap(), stderr_text.join().unwrap());
    Ok(Run { outcome: outcome?, stdout, stderr, spec: spec.clone() })
}

fn try_run(spec: &Spec) -> Result<Run, SandboxError> {
    try_run_with(&runner(), spec, &Cancel::new().unwrap())
}

#[track_caller]
fn run(spec: &Spec) -> Run {
    match try_run(spec) {
        Ok(run) => run,
        Err(error) => panic!("{error}: {:?}", std::error::Error::source(&error)),
    }
}

/// An empty file, for streams that nobody reads.
fn null() -> File {
    File::options().write(true).open("/dev/null").unwrap()
}
