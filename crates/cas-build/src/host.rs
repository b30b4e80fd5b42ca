//! Toolchains that are the programs of the machine that builds. Rules: docs/formats/host.md.
//!
//! The honest way out where nothing hermetic is known: the machine's `/usr` and what belongs to it are shown read-only, the
//! rest is fixed as in every root. What tells one machine from another are an identity that the user gives and what probes
//! print; results are kept apart by both.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cas_blob::Descriptor;
use cas_config::Host;
use cas_digest::{Digest, DigestFunction};
use cas_sandbox::{Cancel, Limits, Overlay, Runner, Spec, Streams, Tier};
use cas_store::Store;
use cas_tree::{Directory, Metadata, Node, RelPath};

use crate::log::Recorder;
use crate::step::{PATH, base_environment, failure, for_sandbox};
use crate::toolchain::{HostParts, Toolchain};
use crate::world::{Place, PlainCommand, World};
use crate::{BuildError, Log};

/// What is shown of the machine's root, where it is there. Of certificates, the public ones: as root, a step may read what only root may.
const SHOWN: [&str; 23] = [
    "bin",
    "etc/alternatives",
    "etc/ca-certificates",
    "etc/fonts",
    "etc/ld.so.cache",
    "etc/ld.so.conf",
    "etc/ld.so.conf.d",
    "etc/mime.types",
    "etc/pki/ca-trust",
    "etc/pki/tls/cert.pem",
    "etc/pki/tls/certs",
    "etc/pki/tls/openssl.cnf",
    "etc/protocols",
    "etc/services",
    "etc/ssl/cert.pem",
    "etc/ssl/certs",
    "etc/ssl/openssl.cnf",
    "lib",
    "lib32",
    "lib64",
    "libx32",
    "sbin",
    "usr",
];
/// What a step has of its own, and can therefore not see of the machine.
const OWN: [&str; 5] = ["dev", "proc", "src", "sys", "tmp"];
/// What changes when packages of the machine are installed, by whatever manages them.
const PACKAGE_RECORDS: [&str; 4] =
    ["/var/lib/dpkg/status", "/lib/apk/db/installed", "/var/lib/rpm/rpmdb.sqlite", "/var/lib/pacman/local"];
/// Kind of the memos of what probes printed.
const PROBE_MEMO: &str = "probe-1";
/// How long a probe may take.
const PROBE_TIME: Duration = Duration::from_secs(60);
/// Longest output of a probe.
const MAX_PROBE_BYTES: u64 = 64 << 10;

/// What is known beside a section.
pub(crate) struct Context<'a> {
    pub(crate) store: &'a Store,
    pub(crate) function: DigestFunction,
    pub(crate) label: &'a str,
    /// How much of a sandbox probes get: the same as steps.
    pub(crate) tier: Tier,
    pub(crate) cancel: &'a Cancel,
}

/// The toolchain of this machine as `host` describes it.
pub(crate) fn toolchain(context: &Context<'_>, host: &Host) -> Result<Toolchain, BuildError> {
    let Context { store, function, label, .. } = *context;
    let Skeleton { mut tree, paths } = Skeleton::new(label, function, &host.paths)?;
    let added = cas_deb::fix_up(&mut tree, function).map_err(|error| BuildError::Place { source: error.source })?;
    for file in added {
        store.put_bytes(function, file.content.as_bytes())?;
    }
    let name = store.put_tree(&tree, function)?;
    let mut text = format!("host-1\n{name}\n");
    let mut add = |key: &str, value: &str| text.push_str(&format!("{key} {}:{value}\n", value.len()));
    for path in &paths {
        add("path", &path.to_string_lossy());
    }
    let mut identity = host.identity.clone().unwrap_or_default();
    add("identity", &identity);
    for probe in &host.probe {
        let printed = probed(context, probe, &Root { name, tree: &tree, paths: &paths })?;
        add("probe", probe);
        add("printed", &printed);
        identity.push_str(&format!("\n{probe}\n{printed}"));
    }
    let parts = HostParts { paths, identity };
    Ok(Toolchain::host(Descriptor::of(function, text.as_bytes()), parts, tree))
}

/// A tree with empty files and folders where parts of the machine will be shown.
struct Skeleton {
    tree: Directory,
    paths: Vec<PathBuf>,
}

impl Skeleton {
    fn new(label: &str, function: DigestFunction, extra: &[Box<str>]) -> Result<Self, BuildError> {
        let mut skeleton = Self { tree: Directory::root(), paths: Vec::new() };
        for name in SHOWN {
            let path = Path::new("/").join(name);
            match cas_fs::symlink_metadata(&path) {
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error.into()),
                // A link of the usual kind, like `/bin`, leads to what is shown.
                Ok(metadata) if metadata.is_symlink() => {
                    let target = cas_fs::read_link(&path)?;
                    skeleton.put(name, Node::symlink(target.as_os_str().as_bytes()))?;
                }
                Ok(metadata) => skeleton.show(&path, metadata.is_dir(), function)?,
            }
        }
        for path in extra {
            let host = Path::new(&**path);
            let refused = |why| BuildError::HostPath { label: label.to_owned(), path: host.to_owned(), why };
            let first = host.components().nth(1).map(|part| part.as_os_str().to_owned());
            if OWN.iter().any(|own| first.as_deref() == Some(OsStr::new(own))) {
                return Err(refused("steps have their own there"));
            }
            // What is below something that is shown is seen already.
            if skeleton.paths.iter().any(|shown| host.starts_with(shown)) {
                continue;
            }
            let metadata = match cas_fs::metadata(host) {
                Err(error) if error.is_not_found() => return Err(refused("it is not there")),
                other => other?,
            };
            if !metadata.is_dir() && !metadata.is_file() {
                return Err(refused("it is neither a folder nor a file"));
            }
            skeleton.show(host, metadata.is_dir(), function)?;
        }
        Ok(skeleton)
    }

    fn show(&mut self, path: &Path, is_dir: bool, function: DigestFunction) -> Result<(), BuildError> {
        let node = if is_dir {
            Node::Directory(Arc::new(Directory::new(Metadata::root_owned(0o755))))
        } else {
            Node::file(Descriptor::empty(function), 0o644)
        };
        let inside = path.strip_prefix("/").unwrap_or(path);
        self.put(&inside.to_string_lossy(), node)?;
        self.paths.push(path.to_owned());
        Ok(())
    }

    fn put(&mut self, path: &str, node: Node) -> Result<(), BuildError> {
        let path = RelPath::new(path).expect("absolute paths were checked when the manifest was read");
        self.tree.insert(&path, node, &Metadata::root_owned(0o755)).map_err(|source| BuildError::Place { source })
    }
}

/// A root with parts of the machine.
struct Root<'a> {
    name: Descriptor,
    tree: &'a Directory,
    paths: &'a [PathBuf],
}

/// What a probe prints: from memory, while nothing that it depends on looks different.
fn probed(context: &Context<'_>, probe: &str, root: &Root<'_>) -> Result<String, BuildError> {
    let store = context.store;
    let stamps = stamps(probe);
    let key = stamps.as_ref().map(|stamps| {
        // Where more can be seen, more can be printed.
        let tier = if context.tier.is_whole() { String::new() } else { format!("\nsandbox {}\n", context.tier) };
        let text = format!("{}\n{probe}\n{stamps}{tier}", root.name);
        Digest::of(DigestFunction::Blake3, text.as_bytes()).to_string()
    });
    if let Some(key) = &key
        && let Some(value) = store.memo(PROBE_MEMO, key.as_bytes())?
    {
        return Ok(String::from_utf8_lossy(&value).into_owned());
    }
    let printed = run(context, probe, root)?;
    if let Some(key) = key {
        store.put_memo(PROBE_MEMO, key.as_bytes(), printed.as_bytes())?;
    }
    Ok(printed)
}

/// States of the files that a probe's output depends on: its program, and what records installed packages. `None` when
/// there is none of them, so that it runs each time.
fn stamps(probe: &str) -> Option<String> {
    let word = probe.split_whitespace().next()?;
    let program = if word.contains('/') {
        Some(PathBuf::from(word))
    } else {
        PATH.split(':').map(|folder| Path::new(folder).join(word)).find(|path| cas_fs::metadata(path).is_ok())
    };
    let mut text = String::new();
    let records = PACKAGE_RECORDS.iter().map(PathBuf::from);
    for path in program.into_iter().chain(records) {
        // Links are followed: what they lead to is what runs.
        let Ok(real) = cas_fs::canonicalize(&path) else { continue };
        let Ok(metadata) = cas_fs::metadata(&real) else { continue };
        text.push_str(&format!(
            "{} {} {} {} {}.{} {}.{}\n",
            real.display(),
            metadata.dev(),
            metadata.ino(),
            metadata.size(),
            metadata.mtime(),
            metadata.mtime_nsec(),
            metadata.ctime(),
            metadata.ctime_nsec()
        ));
    }
    (!text.is_empty()).then_some(text)
}

fn run(context: &Context<'_>, probe: &str, root: &Root<'_>) -> Result<String, BuildError> {
    let scratch = cas_fs::temporary_dir_in(context.store.scratch(), "probe-")?;
    let result = run_in(context, probe, root, &scratch);
    let removed = cas_fs::remove_tree(&scratch);
    let printed = result?;
    removed?;
    Ok(printed)
}

fn run_in(context: &Context<'_>, probe: &str, root: &Root<'_>, scratch: &Path) -> Result<String, BuildError> {
    let Context { store, label, tier, cancel, .. } = *context;
    let (command, environment) = (["/bin/sh", "-euc", probe].map(str::to_owned), for_sandbox(base_environment()));
    let mut world = if tier.is_whole() {
        let lower = store.materialize(&root.name, root.tree)?;
        let overlay = Overlay { lowers: vec![lower], scratch: scratch.join("root") };
        Spec { environment, host_paths: root.paths.to_vec(), ..Spec::new(overlay, command) }.into()
    } else {
        let place = Place::Once(scratch.join("plain"));
        let write = |folder: &Path| Ok(cas_fs::create_dir(folder)?);
        let confined_to = (tier == Tier::Landlock).then(|| root.paths.to_vec());
        let (command, inside, private) = (command.to_vec(), PathBuf::new(), Vec::new());
        World::plain(
            label,
            place,
            PlainCommand { command, environment, inside, private, confined_to, aslr: true },
            write,
        )?
    };
    world.set_limits(Some(PROBE_TIME), Limits::default());
    let (recorder, stdout) = Recorder::start(&scratch.join("recording"), None)?;
    let stderr = stdout.try_clone().map_err(BuildError::Log)?;
    let outcome = world.run(&Runner::this_program(), Streams::new(stdout, stderr), cancel);
    let log: Log = recorder.finish(&scratch.join("log"))?;
    if let Some(how) = failure(&outcome?.ending, world.limits())? {
        return Err(BuildError::Probe { label: label.to_owned(), probe: probe.to_owned(), how, log: Box::new(log) });
    }
    let bytes = cas_fs::read_limited(&log.path, MAX_PROBE_BYTES)?;
    Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
}
