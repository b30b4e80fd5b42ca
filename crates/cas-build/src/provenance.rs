//! What targets were made of, for whoever signs it or looks whether all of it is still there. Rules: docs/formats/provenance.md.
//!
//! Not here: how it is written (`cas-attest`), signing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use cas_action::{action_parts, directory_parts};
use cas_attest::{Input, LOCAL_BUILDER, Provenance, Subject};
use cas_blob::Descriptor;
use cas_cargo::CargoLock;
use cas_config::{Fetch, Label, LockedDebian, LockfileKind, RootSource, TargetKind, Toolchain};
use cas_digest::{Digest, DigestFunction};
use cas_npm::{Integrity, LockedPackage};
use cas_store::Store;
use cas_tree::{Node, RelPath};

use crate::builder::Aim;
use crate::cargo::Registries;
use crate::download::{self, fetch_pinned};
use crate::graph::{Graph, TargetId};
use crate::inputs::{Known, Sources, in_package};
use crate::schedule::Values;
use crate::{ArtifactPart, BuildError, Builder, ImageLayer, MANIFEST_FILE, Output, Packages, Taints, layer, modules};

/// Longest message of an action or a directory that is read.
pub(crate) const MAX_MESSAGE_BYTES: u64 = 256 << 20;
/// Longest `cas.toml`.
const MAX_MANIFEST_BYTES: u64 = 16 << 20;

/// Provenance of a target, with what it is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// What was made: for an image its index and its manifests.
    pub subjects: Vec<Subject>,
    /// What it was made of.
    pub provenance: Provenance,
    /// What a build asks for beside that, as far as the store has it: packages of a lockfile that nothing reaches.
    pub beside: BTreeSet<Input>,
}

/// Something that a provenance names and the store does not have.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Absent {
    /// `action`, or the kind of the input.
    pub kind: String,
    /// The label of the action, or the name of the input.
    pub name: String,
    /// What is not there: its digest, or a path below the action's input root.
    pub what: String,
}

impl Builder<'_> {
    /// Tells what a target was made of that was built before. No step is run; a tarball of a package whose SHA-256 nobody knows is
    /// fetched.
    ///
    /// # Errors
    ///
    /// As for [`Builder::build`]; a step without a result is one.
    pub fn provenance(&self, label: &Label) -> Result<Described, BuildError> {
        let graph = Graph::new(self.workspace, std::slice::from_ref(label))?;
        let snapshot = self.whole_snapshot()?;
        let (lock, steps) = (Mutex::new(self.workspace.lock.clone()), Mutex::default());
        let mut finished = self.go(&graph, Some(&snapshot), &BTreeSet::new(), &lock, &steps, Aim::Look);
        if let Some((_, error)) = finished.errors.pop_first() {
            return Err(error);
        }
        let (values, words) = (Values::of(finished.values), Mutex::default());
        let targets: Vec<TargetId> = graph.to_build().into_keys().collect();
        self.all_words(&graph, &snapshot, &lock, &values, &targets, &words)?;
        let words = words.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        let known = Known::default();
        let sources = Sources { workspace: self.workspace, snapshot: &snapshot, store: self.store, known: &known };
        let mut collector = Collector {
            builder: self,
            graph: &graph,
            values: &values,
            sources,
            packages: BTreeSet::new(),
            beside: BTreeSet::new(),
            manifests: BTreeSet::new(),
            paths: words.values().flat_map(|trace| trace.file_paths()).collect(),
            made: Provenance {
                target: label.to_string(),
                actions: BTreeMap::new(),
                codecs: BTreeSet::new(),
                digest_function: self.workspace.section.digest_function.name().to_owned(),
                hosts: BTreeSet::new(),
                incremental: BTreeSet::new(),
                sandboxes: BTreeSet::new(),
                inputs: BTreeSet::new(),
                builder: LOCAL_BUILDER.to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
            },
        };
        for target in targets {
            collector.target(target)?;
        }
        collector.files()?;
        let own = values.get(graph.find(label).expect("it is in the graph"));
        let taints = own.taints().cloned().unwrap_or_default();
        let Taints { hosts, incremental, sandboxes } = taints;
        let provenance = Provenance { hosts, incremental, sandboxes, ..collector.made };
        let beside = collector.beside;
        snapshot.verify_unchanged()?;
        Ok(Described { subjects: subjects(self.store, label, own)?, provenance, beside })
    }
}

struct Collector<'a> {
    builder: &'a Builder<'a>,
    graph: &'a Graph<'a>,
    values: &'a Values<Output>,
    sources: Sources<'a>,
    /// Of files of the workspace.
    paths: BTreeSet<RelPath>,
    /// Integrities of the packages of npm that are told already: targets share most of them.
    packages: BTreeSet<String>,
    /// Packages of npm that the store has, whether something reaches them or not.
    beside: BTreeSet<Input>,
    /// Of files that say what targets are: no step reads them.
    manifests: BTreeSet<RelPath>,
    made: Provenance,
}

impl Collector<'_> {
    fn add(&mut self, kind: &str, name: impl Into<String>, uri: Option<String>, size: u64, digests: &[Digest]) {
        let digests = digests.iter().map(|digest| (digest.function().name().to_owned(), digest.to_hex())).collect();
        self.made.inputs.insert(Input { kind: kind.to_owned(), name: name.into(), digests, size, uri });
    }

    fn target(&mut self, target: TargetId) -> Result<(), BuildError> {
        let store = self.builder.store;
        let (label, value) = (self.graph.label(target), self.values.get(target));
        let package = label.package.as_ref();
        self.manifests.insert(in_package(package, &RelPath::new(MANIFEST_FILE).expect("it is a name")));
        match (&self.graph.target(target).kind, value) {
            (TargetKind::Toolchain(Toolchain::Debian(_)), _) => {
                let (name, architecture) = (label.to_string(), crate::debian::architecture());
                let is_ours = |entry: &&LockedDebian| entry.target == name && entry.architecture == architecture;
                for package in
                    self.builder.workspace.lock.debian.iter().filter(is_ours).flat_map(|entry| &entry.packages)
                {
                    let uri = purl("deb/debian", &package.name, &package.version, &format!("?arch={architecture}"));
                    self.add("debian", &package.name, Some(uri), package.blob.size, &[package.blob.digest]);
                }
            }
            (TargetKind::Toolchain(Toolchain::Image(image)), _) if !matches!(image.source, RootSource::Target(_)) => {
                let name = label.to_string();
                for pin in self.builder.workspace.lock.image.iter().filter(|entry| entry.target == name) {
                    let document = store.name_with(DigestFunction::Sha256, &pin.document)?;
                    let uri = cas_fetch::redact(&pin.request);
                    self.add("image", name.clone(), Some(uri), document.size, &digests(&[document, pin.document]));
                }
            }
            (TargetKind::Fetch(Fetch::Url { url, digest }), Output::Download(download)) => {
                let named = store.name_with(DigestFunction::Sha256, &download.blob)?;
                let uri = cas_fetch::redact(&url.value);
                self.add("download", label.to_string(), Some(uri), named.size, &[named.digest, *digest]);
            }
            (TargetKind::Fetch(Fetch::Npm(_)), _) => {
                let name = label.to_string();
                for pin in self.builder.workspace.lock.npm.iter().filter(|entry| entry.target == name) {
                    let url = format!("{}/{}", self.builder.npm_registry, pin.path);
                    let damaged = |error| BuildError::Package { package: pin.request.clone(), source: Box::new(error) };
                    let integrity: Integrity = pin.integrity.parse().map_err(damaged)?;
                    let (name, version) = pin.request.rsplit_once('@').unwrap_or((&pin.request, ""));
                    self.npm(name, version, &url, &integrity)?;
                }
            }
            (TargetKind::Fetch(Fetch::Lockfile(path)), value) => {
                let path = in_package(package, &path.value);
                if LockfileKind::of(&path) == Some(LockfileKind::Cargo) && matches!(value, Output::Crates(_)) {
                    self.crates(&path)?;
                }
                self.paths.insert(path);
            }
            (_, Output::Files(files)) => {
                self.made.actions.insert(label.to_string(), files.action.to_string());
            }
            (_, Output::Image(image)) => {
                let images = image.index.iter().flat_map(|index| &index.images).chain([&**image]);
                for layer in images.flat_map(|image| &image.layers) {
                    if let ImageLayer::Made { recipe, .. } = layer {
                        self.codec(recipe)?;
                    }
                }
            }
            (_, Output::Artifact(artifact)) => {
                for part in &artifact.parts {
                    if let ArtifactPart::Folder { recipe, .. } = part {
                        self.codec(recipe)?;
                    }
                }
            }
            (_, Output::Tarball(tarball)) => {
                self.made.codecs.insert(tarball.recipe.codec.id().to_owned());
            }
            _ => {}
        }
        for need in self.graph.needs(target).targets() {
            if let Output::Packages(packages) = self.values.get(need) {
                self.packages(packages, target)?;
            }
        }
        Ok(())
    }

    fn codec(&mut self, recipe: &Descriptor) -> Result<(), BuildError> {
        if let Some(recipe) = layer::find(self.builder.store, recipe)? {
            self.made.codecs.insert(recipe.codec.id().to_owned());
        }
        Ok(())
    }

    /// The packages of a lockfile that a target reaches: a toolchain has them all.
    fn packages(&mut self, packages: &Packages, target: TargetId) -> Result<(), BuildError> {
        let known: BTreeMap<&String, &LockedPackage> = packages.lockfile.packages().into_iter().collect();
        let keys: BTreeSet<String> = match &self.graph.target(target).kind {
            TargetKind::Toolchain(_) => known.keys().map(|key| (*key).clone()).collect(),
            _ => {
                let subset = modules::subset(packages, self.builder.workspace, self.graph.label(target))?;
                subset.layout.packages.values().cloned().collect()
            }
        };
        let function = self.builder.workspace.section.digest_function;
        for package in known.values() {
            let integrity = package.integrity.0;
            let Some(blob) = download::stored(self.builder.store, function, integrity)? else { continue };
            let named = self.builder.store.name_with(DigestFunction::Sha256, &blob)?;
            let digests =
                [named.digest, integrity].map(|digest| (digest.function().name().to_owned(), digest.to_hex()));
            let (kind, name) = ("npm".to_owned(), format!("{}@{}", package.name, package.version));
            let uri = Some(purl("npm", &package.name, &package.version, ""));
            self.beside.insert(Input { kind, name, digests: digests.into(), size: named.size, uri });
        }
        for package in keys.iter().filter_map(|key| known.get(key)) {
            let url = self.builder.registry().tarball_url(&package.name, &package.version, &package.source);
            self.npm(&package.name, &package.version, &url, &package.integrity)?;
        }
        Ok(())
    }

    fn npm(&mut self, name: &str, version: &str, url: &str, integrity: &Integrity) -> Result<(), BuildError> {
        if !self.packages.insert(format!("{name}@{version} {integrity}")) {
            return Ok(());
        }
        let Builder { store, fetcher, .. } = *self.builder;
        let function = self.builder.workspace.section.digest_function;
        let blob = fetch_pinned(store, fetcher, function, url, integrity.0)?;
        let named = store.name_with(DigestFunction::Sha256, &blob)?;
        let uri = purl("npm", name, version, "");
        self.add("npm", format!("{name}@{version}"), Some(uri), named.size, &[named.digest, integrity.0]);
        Ok(())
    }

    /// The crates of a lockfile, which does not say how large they are.
    fn crates(&mut self, path: &RelPath) -> Result<(), BuildError> {
        let at = path.to_string();
        let bytes = modules::read_lockfile(&self.sources, path)?;
        let lock = CargoLock::parse(&bytes).map_err(|source| BuildError::CargoLock { path: at.clone(), source })?;
        let home = self.builder.cargo_home.as_deref();
        let registries = Registries::new(&self.sources, self.builder.fetcher, home, path)?;
        let sizes: Result<Vec<u64>, BuildError> =
            lock.crates.iter().map(|one| Ok(registries.archive(&at, one)?.size)).collect();
        for (one, size) in lock.crates.iter().zip(sizes?) {
            let uri = purl("cargo", &one.name, &one.version, "");
            self.add("cargo", format!("{}@{}", one.name, one.version), Some(uri), size, &[one.checksum]);
        }
        Ok(())
    }

    /// The files of the workspace.
    fn files(&mut self) -> Result<(), BuildError> {
        let store = self.builder.store;
        let paths: Vec<RelPath> = std::mem::take(&mut self.paths).into_iter().collect();
        let picked = self.sources.snapshot.pick(&paths)?;
        self.sources.kept(&picked)?;
        let function = self.builder.workspace.section.digest_function;
        for path in std::mem::take(&mut self.manifests) {
            let at = self.builder.workspace.root.join(path.to_string());
            let blob = store.put_bytes(function, &cas_fs::read_limited(&at, MAX_MANIFEST_BYTES)?)?;
            let named = store.name_with(DigestFunction::Sha256, &blob)?;
            self.add("source", path.to_string(), None, blob.size, &digests(&[named, blob]));
        }
        for (path, node) in self.sources.snapshot.listing(&picked)? {
            match node {
                Node::File { blob, .. } => {
                    let named = store.name_with(DigestFunction::Sha256, &blob)?;
                    self.add("source", path.to_string(), None, blob.size, &digests(&[named, blob]));
                }
                Node::Symlink { target, .. } => {
                    let named = Digest::of(DigestFunction::Sha256, &target);
                    self.add("link", path.to_string(), None, target.len() as u64, &[named]);
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn digests(names: &[Descriptor]) -> Vec<Digest> {
    names.iter().map(|name| name.digest).collect()
}

/// A package-url; `kind` has its namespace, where all have the same.
fn purl(kind: &str, name: &str, version: &str, rest: &str) -> String {
    let encode = |text: &str| {
        let mut out = String::new();
        for byte in text.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b'~' | b'/' | b':' => {
                    out.push(char::from(byte));
                }
                other => out.push_str(&format!("%{other:02X}")),
            }
        }
        out
    };
    format!("pkg:{kind}/{}@{}{rest}", encode(name), encode(version))
}

/// What a target made, as a statement names it.
fn subjects(store: &Store, label: &Label, output: &Output) -> Result<Vec<Subject>, BuildError> {
    let named = |blob: &Descriptor| -> Result<Subject, BuildError> {
        let digest = store.name_with(DigestFunction::Sha256, blob)?.digest;
        Ok(Subject { name: Some(label.to_string()), ..Subject::of(&digest) })
    };
    match output {
        Output::Image(image) => match &image.index {
            None => Ok(vec![named(&image.manifest)?]),
            Some(index) => {
                [index.blob].iter().chain(index.images.iter().map(|image| &image.manifest)).map(named).collect()
            }
        },
        Output::Artifact(artifact) => Ok(vec![named(&artifact.manifest)?]),
        Output::Tarball(tarball) => {
            let mut subject = Subject::of(&tarball.recipe.blob.digest);
            let integrity = tarball.integrity.0;
            subject.digests.insert(integrity.function().name().to_owned(), integrity.to_hex());
            Ok(vec![Subject { name: Some(tarball.file_name.clone()), ..subject }])
        }
        other => Err(BuildError::Role { label: label.to_string(), kind: other.kind(), role: "given a provenance" }),
    }
}

/// What of all that a provenance names the store does not have, in order. Nothing is fetched.
///
/// # Errors
///
/// What the store says.
pub fn absent_of(store: &Store, provenance: &Provenance) -> Result<Vec<Absent>, BuildError> {
    let mut absent = BTreeSet::new();
    // Directories are shared by steps, and looked at once.
    let mut seen = BTreeSet::new();
    for (label, action) in &provenance.actions {
        let mut tell = |what: String| {
            absent.insert(Absent { kind: "action".to_owned(), name: label.clone(), what });
        };
        match action.parse::<Descriptor>() {
            Ok(action) => absent_of_action(store, &action, &mut seen, &mut tell)?,
            Err(_) => tell(action.clone()),
        }
    }
    for input in &provenance.inputs {
        let names = input.digests.iter().filter_map(|(function, value)| {
            let function = DigestFunction::ALL.into_iter().find(|known| known.name() == function)?;
            Some(Descriptor { digest: Digest::from_hex(function, value).ok()?, size: input.size })
        });
        let mut is_here = input.kind == "link";
        for name in names {
            is_here = is_here || store.contains(&name)?;
        }
        if !is_here {
            let what = format!("sha256:{}", input.digests["sha256"]);
            absent.insert(Absent { kind: input.kind.clone(), name: input.name.clone(), what });
        }
    }
    Ok(absent.into_iter().collect())
}

fn absent_of_action(
    store: &Store,
    action: &Descriptor,
    seen: &mut BTreeSet<Descriptor>,
    tell: &mut dyn FnMut(String),
) -> Result<(), BuildError> {
    let function = action.digest.function();
    if !store.contains(action)? {
        tell(action.to_string());
        return Ok(());
    }
    let Some(parts) = action_parts(&store.load(action, MAX_MESSAGE_BYTES)?, function) else {
        tell(format!("{action}, which is no action"));
        return Ok(());
    };
    if !store.contains(&parts.command)? {
        tell(format!("its command, {}", parts.command));
    }
    let mut open = vec![(String::new(), parts.input_root)];
    while let Some((at, directory)) = open.pop() {
        if !seen.insert(directory) {
            continue;
        }
        let shown = if at.is_empty() { "/" } else { &at };
        if !store.contains(&directory)? {
            tell(format!("{shown}, {directory}"));
            continue;
        }
        let Some(parts) = directory_parts(&store.load(&directory, MAX_MESSAGE_BYTES)?, function) else {
            tell(format!("{shown}, {directory}, which is no directory"));
            continue;
        };
        let files: Vec<Descriptor> = parts.files.iter().map(|(_, file)| *file).collect();
        for ((name, file), is_here) in parts.files.iter().zip(store.contain(&files)?) {
            if !is_here {
                tell(format!("{at}/{name}, {file}"));
            }
        }
        open.extend(parts.directories.into_iter().map(|(name, child)| (format!("{at}/{name}"), child)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_have_addresses_as_the_specification_writes_them() {
        for (kind, name, version, rest, url) in [
            ("npm", "@scope/name", "1.0.0", "", "pkg:npm/%40scope/name@1.0.0"),
            ("npm", "left-pad", "1.3.0", "", "pkg:npm/left-pad@1.3.0"),
            (
                "deb/debian",
                "libc6",
                "2.36-9+deb12u9",
                "?arch=amd64",
                "pkg:deb/debian/libc6@2.36-9%2Bdeb12u9?arch=amd64",
            ),
            ("deb/debian", "libstdc++6", "1:2~rc1", "?arch=arm64", "pkg:deb/debian/libstdc%2B%2B6@1:2~rc1?arch=arm64"),
            ("cargo", "serde", "1.0.0", "", "pkg:cargo/serde@1.0.0"),
        ] {
            assert_eq!(purl(kind, name, version, rest), url);
        }
    }
}
