//! Attacks on the sandbox: the table of docs/formats/sandbox-attacks.md.
//!
//! Each row runs in each of [`modes`], as root and as an ordinary user (`user.rs` runs the suite again). Those that are system
//! calls are in one program, `attack.c`, which is compiled for the tests; it also runs outside of the sandbox, where it must
//! work. After each the host must be as it was.
//!
//! Not here: what fills the machine; FIFOs and sockets as outputs (`tests/build/steps.rs`).

mod calls;
mod ends;
mod roots;

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::OnceLock;

use cas_sandbox::{Spec, Users};

use crate::{Home, Run, null, run, runner};

/// A way to map ids, by what it changes in a specification. Root and ordinary users have each.
type Mode = (&'static str, fn(&mut Spec));

const ONE: Mode = ("one id", |_| {});
const MANY: Mode = ("many ids", |spec| (spec.uid, spec.gid, spec.users) = (0, 0, Users::Many));

/// Those that can be had here.
fn modes() -> Vec<Mode> {
    // Nothing is removed: it fails where many ids cannot be had.
    match runner().remove(Path::new("/nonexistent/of many ids")) {
        Ok(()) => vec![ONE, MANY],
        Err(error) => {
            let reason = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            eprintln!("SKIPPED: the mode of many ids: {error}: {reason}");
            vec![ONE]
        }
    }
}

/// How often a race is tried.
fn tries() -> u32 {
    if std::env::var_os("CAS_SOAK").is_some() { 1_000 } else { 50 }
}

/// Where the suite finds the programs when it runs as another user.
pub(crate) const PROGRAMS: &str = "CAS_TEST_ATTACKERS";
/// Their names: what attacks, a loader that attacks, and what stands for an older kernel.
pub(crate) const NAMES: [&str; 3] = ["attack", "loader", "without"];

/// The folder of the programs that attack, or `None` after saying that the test is skipped.
pub(crate) fn programs() -> Option<&'static Path> {
    static FOLDER: OnceLock<Option<PathBuf>> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| std::env::var_os(PROGRAMS).map(PathBuf::from).or_else(compile));
    if folder.is_none() {
        eprintln!("SKIPPED: no C compiler, or no C library to link statically (Debian packages gcc and libc6-dev)");
    }
    folder.as_deref()
}

fn compile() -> Option<PathBuf> {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sandbox/attacks");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("attackers");
    fs::create_dir_all(&folder).unwrap();
    let loader = ["-nostdlib", "-ffreestanding", "-fno-stack-protector", "-no-pie", "-fno-pie"];
    for name in NAMES {
        let flags = if name == "loader" { loader.as_slice() } else { &[] };
        // Under another name first: tests may run at the same time.
        let program = folder.join(format!("{name}-{}", std::process::id()));
        let mut compiler = Command::new("cc");
        compiler.args(["-static", "-O1", "-Wall"]).args(flags).arg("-o").arg(&program);
        let compiled = compiler.arg(sources.join(format!("{name}.c"))).status();
        let is_compiled = compiled.as_ref().is_ok_and(std::process::ExitStatus::success);
        assert!(is_compiled || std::env::var_os("CI").is_none(), "{name}.c does not compile: {compiled:?}");
        if !is_compiled {
            return None;
        }
        fs::rename(&program, folder.join(name)).unwrap();
    }
    Some(folder)
}

/// A home whose root has the attacker, and what of the host is attacked.
struct Stage {
    /// Before the home, in which it has its files: fields are dropped in order.
    host: Host,
    home: Home,
}

impl Stage {
    fn new() -> Option<Self> {
        let attacker = programs()?.join("attack");
        let home = Home::new()?;
        fs::copy(&attacker, home.root().join("bin/attack")).unwrap();
        let host = Host::new(&home, attacker);
        Some(Self { host, home })
    }

    /// Runs an attack in a sandbox, after changes to its specification.
    #[track_caller]
    fn attack(&mut self, name: &str, change: impl FnOnce(&mut Spec)) -> Run {
        let mut spec = self.home.spec(&["/bin/attack", name]);
        spec.environment.extend(self.host.variables().map(|(name, value)| (name.into(), value.into())));
        change(&mut spec);
        let run = run(&spec);
        self.host.is_untouched();
        run
    }
}

/// Things outside of the sandbox that an attack aims at.
struct Host {
    attacker: PathBuf,
    folder: PathBuf,
    victim: Child,
    abstract_name: String,
    _abstract_listener: UnixListener,
    listener: TcpListener,
    key: String,
    /// Open without being closed by exec, as a careless program would leave it to the sandbox.
    _leaked: File,
    marks: Vec<(PathBuf, Mark)>,
}

/// What shows that a file was changed, or a device's rights.
type Mark = (u32, u32, u64, i64, i64);

impl Host {
    fn new(home: &Home, attacker: PathBuf) -> Self {
        let folder = home.directory.join("host");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("secret"), "secret").unwrap();
        let leaked = File::open(&folder).unwrap();
        rustix::io::fcntl_setfd(leaked.as_fd(), rustix::io::FdFlags::empty()).unwrap();
        let unique = home.directory.file_name().unwrap().to_str().unwrap();
        let abstract_name = format!("cas-attack-{unique}");
        let address = SocketAddr::from_abstract_name(&abstract_name).unwrap();
        let key = folder.metadata().unwrap().ino() & 0x7FFF_FFFF;
        let mut host = Self {
            attacker,
            // Longer than any run of the tests: its end would look like a killed process.
            victim: Command::new("sleep").arg("604800").stdin(null()).stdout(null()).stderr(null()).spawn().unwrap(),
            _abstract_listener: UnixListener::bind_addr(&address).unwrap(),
            abstract_name,
            listener: TcpListener::bind("127.0.0.1:0").unwrap(),
            key: format!("{key:#x}"),
            _leaked: leaked,
            folder,
            marks: Vec::new(),
        };
        host.outside("make shared memory");
        host.marks = host.look(home);
        host
    }

    fn variables(&self) -> impl Iterator<Item = (&'static str, String)> {
        let port = self.listener.local_addr().unwrap().port();
        [
            ("SECRET", self.folder.join("secret").display().to_string()),
            ("BASE", "/".to_owned()),
            ("VICTIM", self.victim.id().to_string()),
            ("ABSTRACT", self.abstract_name.clone()),
            ("PORT", port.to_string()),
            ("KEY", self.key.clone()),
            ("FOLDER", "/src".to_owned()),
        ]
        .into_iter()
    }

    /// Runs an attack without a sandbox.
    fn outside(&self, name: &str) -> String {
        self.output(Command::new(&self.attacker).arg(name))
    }

    /// Runs an attack as the root of new namespaces, the way in which a sandbox begins.
    fn in_bare_namespaces(&self, name: &str) -> String {
        let flags = ["--user", "--map-root-user", "--mount", "--pid", "--fork", "--ipc", "--uts", "--net", "--cgroup"];
        self.output(Command::new("unshare").args(flags).arg("--mount-proc").arg("--").arg(&self.attacker).arg(name))
    }

    fn output(&self, command: &mut Command) -> String {
        let output = command.envs(self.variables()).current_dir(&self.folder).output().unwrap();
        for entry in fs::read_dir(&self.folder).unwrap().map(Result::unwrap) {
            if entry.file_name() != "secret" {
                fs::remove_file(entry.path()).unwrap();
            }
        }
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    }

    /// The root, the program of the sandbox and the secret by all that changes with them; devices by their rights.
    fn look(&self, home: &Home) -> Vec<(PathBuf, Mark)> {
        let mut marks = Vec::new();
        let mut folders = vec![home.root()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
                if fs::symlink_metadata(&entry).unwrap().is_dir() {
                    folders.push(entry.clone());
                }
                marks.push(entry);
            }
        }
        marks.extend([home.root(), self.folder.join("secret"), crate::program()]);
        let devices = ["null", "zero", "full", "random", "urandom", "tty"].map(|name| Path::new("/dev").join(name));
        let of_file = |path: PathBuf| {
            let metadata = fs::symlink_metadata(&path).unwrap();
            let time = (metadata.ctime(), metadata.ctime_nsec());
            (path, (metadata.mode(), metadata.uid(), metadata.size(), time.0, time.1))
        };
        let of_device = |path: PathBuf| {
            let metadata = fs::metadata(&path).unwrap();
            (path, (metadata.mode(), metadata.uid(), 0, 0, 0))
        };
        marks.into_iter().map(of_file).chain(devices.into_iter().map(of_device)).collect()
    }

    /// The victim lives, and no file has changed.
    #[track_caller]
    fn is_untouched(&mut self) {
        assert!(self.victim.try_wait().unwrap().is_none(), "the process outside was killed");
        for (path, before) in &self.marks {
            let metadata = fs::symlink_metadata(path).unwrap();
            let is_device = path.parent() == Some(Path::new("/dev"));
            let (size, time) =
                if is_device { (0, (0, 0)) } else { (metadata.size(), (metadata.ctime(), metadata.ctime_nsec())) };
            let now = (metadata.mode(), metadata.uid(), size, time.0, time.1);
            assert_eq!(*before, now, "{} was changed", path.display());
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.outside("remove shared memory");
        drop(self.victim.kill());
        drop(self.victim.wait());
    }
}

/// Makes a program that can be run.
fn executable(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// The page names every attack that is tried here, and no other.
#[test]
fn the_page_has_the_same_attacks() {
    let page = include_str!("../../../docs/formats/sandbox-attacks.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let tests = [include_str!("roots.rs"), include_str!("ends.rs")]
        .into_iter()
        .flat_map(|source| source.split("#[test]\nfn ").skip(1))
        .filter_map(|test| test.split('(').next());
    let attacks = calls::names().chain(tests);
    let (mut rows, mut attacks): (Vec<&str>, Vec<&str>) = (rows.collect(), attacks.collect());
    rows.sort_unstable();
    attacks.sort_unstable();
    assert_eq!(rows, attacks);
}
