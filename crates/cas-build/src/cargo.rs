//! What lockfiles of cargo give: a folder of all crates as cargo wants it, and the configuration that leads there.
//! Rules: docs/formats/cargo.md.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use cas_blob::{Descriptor, OpenBlob};
use cas_cargo::{CargoConfig, CargoLock, Downloads, LockedCrate, index_of};
use cas_config::Label;
use cas_digest::DigestFunction;
use cas_fetch::{FetchError, Fetcher};
use cas_store::{Store, StoreError};
use cas_tar::{Compression, ReadTarError, ReadTarLimits, decompress, read_tree};
use cas_tree::{Directory, Metadata, Node, RelPath};
use rayon::prelude::*;

use crate::download::{fetch_pinned, stored};
use crate::inputs::{Sources, in_package};
use crate::modules::read_lockfile;
use crate::outline::stand_in;
use crate::{BuildError, Crates};

/// Largest content of one crate; registries take 10 MiB of archive, some a little more.
const MAX_CRATE_BYTES: u64 = 1 << 30;
/// Longest configuration.
const MAX_CONFIG_BYTES: u64 = 1 << 20;
/// Where cargo looks for configuration, the old name first: it wins where both are.
const CONFIGS: [&str; 2] = [".cargo/config", ".cargo/config.toml"];
/// What cargo wants to find beside a crate.
const CHECKSUM_FILE: &str = ".cargo-checksum.json";
/// What cargo itself writes when it has unpacked a crate; no crate may have it.
const UNPACKED_FILE: &str = ".cargo-ok";

/// Registries of crates, and where crates go.
pub(crate) struct Registries<'a> {
    sources: &'a Sources<'a>,
    fetcher: &'a Fetcher,
    function: DigestFunction,
    /// Configuration that names mirrors, the nearest first.
    configs: Vec<CargoConfig>,
    /// Where registries keep archives, as far as it was asked for.
    downloads: Mutex<BTreeMap<String, Downloads>>,
    /// Whether crates that are not in the store are named by what pins them, and not fetched.
    is_outline: bool,
}

impl<'a> Registries<'a> {
    /// Registries as cargo would find them in the folder of a lockfile.
    pub(crate) fn new(
        sources: &'a Sources<'a>,
        fetcher: &'a Fetcher,
        cargo_home: Option<&Path>,
        lockfile: &RelPath,
    ) -> Result<Self, BuildError> {
        let root = &sources.workspace.root;
        let mut candidates: Vec<PathBuf> = Vec::new();
        let mut folder = lockfile.parent();
        loop {
            let at = folder.as_ref().map_or_else(|| root.clone(), |folder| root.join(folder.to_string()));
            candidates.extend(CONFIGS.map(|name| at.join(name)));
            match folder {
                Some(inner) => folder = inner.parent(),
                None => break,
            }
        }
        candidates
            .extend(cargo_home.into_iter().flat_map(|home| ["config", "config.toml"].map(|name| home.join(name))));
        let mut configs = Vec::new();
        for path in candidates {
            match cas_fs::read_limited(&path, MAX_CONFIG_BYTES) {
                Ok(bytes) => configs.push(parse(&bytes, path)?),
                // What is not there, or not for us to read, names no mirror.
                Err(_) => continue,
            }
        }
        let function = sources.workspace.section.digest_function;
        Ok(Self { sources, fetcher, function, configs, downloads: Mutex::default(), is_outline: false })
    }

    /// The same, but nothing is fetched.
    pub(crate) fn outlined(self) -> Self {
        Self { is_outline: true, ..self }
    }

    /// Every crate of a lockfile, for the target `label`.
    pub(crate) fn crates(&self, label: &Label, path: &RelPath) -> Result<Crates, BuildError> {
        let store = self.sources.store;
        let bytes = read_lockfile(self.sources, path)?;
        let at = path.to_string();
        let lock = CargoLock::parse(&bytes).map_err(|source| BuildError::CargoLock { path: at.clone(), source })?;
        let names: Vec<Descriptor> =
            lock.crates.par_iter().map(|one| self.unpacked(&at, one)).collect::<Result<_, _>>()?;
        let trees: BTreeMap<String, Descriptor> = lock.crates.iter().map(LockedCrate::folder).zip(names).collect();
        let target = RelPath::new(label.name.as_bytes()).expect("a target's name is one");
        let folder = in_package(label.package.as_ref(), &target);
        let registries: BTreeSet<&str> = lock.crates.iter().map(|one| one.registry.as_str()).collect();
        let config = self.config(path, &folder, &registries)?;
        let lockfile = (path.clone(), store.put_bytes(self.function, &bytes)?);
        let mut text = format!("{folder}\n{} {}\n{} {}\n", config.0, config.1, lockfile.0, lockfile.1);
        for (name, tree) in &trees {
            text.push_str(&format!("{name} {tree}\n"));
        }
        let name = Descriptor::of(self.function, text.as_bytes());
        Ok(Crates { folder, trees, config, lockfile, name })
    }

    /// The configuration that a step gets in the folder of the lockfile: that of the workspace, with other sources.
    fn config(
        &self,
        lockfile: &RelPath,
        folder: &RelPath,
        registries: &BTreeSet<&str>,
    ) -> Result<(RelPath, Descriptor), BuildError> {
        let (store, parent) = (self.sources.store, lockfile.parent());
        let [old, new] = CONFIGS.map(|name| in_package(parent.as_ref(), &RelPath::new(name).expect("it is a path")));
        let there = self.sources.files(&[old.clone(), new.clone()])?;
        let path = if there.get(&old).is_some() { old } else { new };
        let config = match there.get_file(&path) {
            None => CargoConfig::default(),
            Some((_, blob)) => {
                parse(&store.load(&blob, MAX_CONFIG_BYTES)?, self.sources.workspace.root.join(path.to_string()))?
            }
        };
        // From the folder that has `.cargo`: up to that of the target's package, which is above it or the same.
        let common = folder.parent();
        let below = match (&parent, &common) {
            (None, _) => 0,
            (Some(parent), None) => parent.components().count(),
            (Some(parent), Some(common)) => parent.components().count().saturating_sub(common.components().count()),
        };
        let directory = format!("{}{}", "../".repeat(below), folder.name());
        let text = config
            .with_directory(registries, &directory)
            .map_err(|source| BuildError::CargoConfig { path: path.to_string().into(), source })?;
        Ok((path, store.put_bytes(self.function, text.as_bytes())?))
    }

    /// The tree of a crate, from the store where it was unpacked before.
    fn unpacked(&self, lockfile: &str, one: &LockedCrate) -> Result<Descriptor, BuildError> {
        let store = self.sources.store;
        let key = format!("1 {} {} {}", self.function, one.folder(), one.checksum);
        if let Some(value) = store.memo("cargo-crate", key.as_bytes())?
            && let Some(name) = std::str::from_utf8(&value).ok().and_then(|text| text.parse().ok())
            && store.find_tree(&name)?.is_some()
        {
            return Ok(name);
        }
        if self.is_outline {
            return Ok(stand_in(self.function, "cargo-crate", &key));
        }
        let what = format!("{} {}", one.name, one.version);
        let blob = self.archive(lockfile, one)?;
        let damaged =
            |source: Box<dyn std::error::Error + Send + Sync>| BuildError::Package { package: what.clone(), source };
        let file = store.open_blob(&blob).map_err(StoreError::from)?;
        let mut tar = decompress(file, Compression::Gzip, MAX_CRATE_BYTES.saturating_mul(2))
            .map_err(|error| damaged(Box::new(error)))?;
        let limits = ReadTarLimits { content_bytes: MAX_CRATE_BYTES };
        let keep = &mut |content: &mut dyn Read| store.put(self.function, content);
        let whole = read_tree(&mut tar, limits, keep).map_err(|error| match error {
            // The archive is in order; the store is full, or fails.
            ReadTarError::Keep { path, source } if !matches!(source, StoreError::Source(_)) => {
                BuildError::Keep { path: format!("{path} of {what}"), source }
            }
            error => damaged(Box::new(error)),
        })?;
        let folder = RelPath::new(one.folder()).map_err(|error| damaged(Box::new(error)))?;
        let content = whole.subtree(&folder).ok_or_else(|| damaged(format!("it has no folder `{folder}`").into()))?;
        let manifest = RelPath::new("Cargo.toml").expect("it is a name");
        if content.get_file(&manifest).is_none() {
            return Err(damaged("it has no `Cargo.toml`".into()));
        }
        let checksum = format!("{{\"files\":{{}},\"package\":\"{}\"}}", one.checksum.to_hex());
        let checksum = store.put_bytes(self.function, checksum.as_bytes())?;
        let name = store.put_tree(&vendored(&content, checksum), self.function)?;
        store.put_memo("cargo-crate", key.as_bytes(), name.to_string().as_bytes())?;
        Ok(name)
    }

    /// The archive of a crate, from the store if it is there.
    pub(crate) fn archive(&self, lockfile: &str, one: &LockedCrate) -> Result<Descriptor, BuildError> {
        let store = self.sources.store;
        if let Some(blob) = stored(store, self.function, one.checksum)? {
            return Ok(blob);
        }
        let url = self.address(lockfile, one)?;
        fetch_pinned(store, self.fetcher, self.function, &url, one.checksum).map_err(|error| match error {
            BuildError::Fetch(source) if source.is_not_found() => {
                let package = format!("{} {}", one.name, one.version);
                BuildError::NotInRegistry { package, path: lockfile.to_owned(), source }
            }
            other => other,
        })
    }

    /// Where the archive of a crate is.
    fn address(&self, lockfile: &str, one: &LockedCrate) -> Result<String, BuildError> {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| BuildError::CargoIndex {
            path: lockfile.to_owned(),
            source,
        };
        // Held while it is asked for, so that each registry is asked once.
        let mut known = self.downloads.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(downloads) = known.get(&one.registry) {
            return Ok(downloads.address(one));
        }
        let index = index_of(&self.configs, &one.registry, cas_fetch::defaults::CRATES)
            .map_err(|error| failed(Box::new(error)))?;
        let url = format!("{index}/config.json");
        let mut bytes = Vec::new();
        self.fetcher
            .get(&url)?
            .take(Downloads::LIMIT_BYTES)
            .read_to_end(&mut bytes)
            .map_err(|source| FetchError::Transport { url: cas_fetch::redact(&url), source: Box::new(source) })?;
        let downloads = Downloads::parse(&bytes).map_err(|error| failed(Box::new(error)))?;
        let address = downloads.address(one);
        known.insert(one.registry.clone(), downloads);
        Ok(address)
    }
}

fn parse(bytes: &[u8], path: PathBuf) -> Result<CargoConfig, BuildError> {
    CargoConfig::parse(&String::from_utf8_lossy(bytes)).map_err(|source| BuildError::CargoConfig { path, source })
}

/// A crate as cargo finds it in a folder of crates: files alone, executable or not, and its checksum.
fn vendored(content: &Directory, checksum: Descriptor) -> Directory {
    let parents = Metadata::root_owned(0o755);
    let mut tree = Directory::root();
    for (path, node) in content.walk() {
        let is_cargos = path.parent().is_none()
            && (path.as_bytes() == CHECKSUM_FILE.as_bytes() || path.as_bytes() == UNPACKED_FILE.as_bytes());
        if let Some((metadata, blob)) = content.file_of(node)
            && !is_cargos
        {
            let mode = if metadata.mode & 0o111 != 0 { 0o755 } else { 0o644 };
            tree.insert(&path, Node::file(blob, mode), &parents).expect("it had this path");
        }
    }
    let path = RelPath::new(CHECKSUM_FILE).expect("it is a name");
    tree.insert(&path, Node::file(checksum, 0o644), &parents).expect("it is at the root");
    tree
}

/// The crates of a lockfile with what leads cargo there, with paths from the workspace's root.
pub(crate) fn tree(store: &Store, crates: &Crates) -> Result<Directory, BuildError> {
    let parents = Metadata::root_owned(0o755);
    let failed = |source| BuildError::Place { source };
    let mut folder = Directory::root();
    for (name, tree) in &crates.trees {
        let path = RelPath::new(name).expect("names of folders were checked");
        folder.graft(&path, store.load_tree(tree)?, &parents).map_err(failed)?;
    }
    let mut whole = Directory::root();
    whole.graft(&crates.folder, folder, &parents).map_err(failed)?;
    for (path, blob) in [&crates.config, &crates.lockfile] {
        whole.insert(path, Node::file(*blob, 0o644), &parents).map_err(failed)?;
    }
    Ok(whole)
}
