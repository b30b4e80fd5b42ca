//! npm: packages from a registry, and tarballs. Rules: docs/formats/npm.md.
//!
//! Not here: what lockfiles give (`modules`).

use std::collections::BTreeMap;

use cas_blob::{Descriptor, OpenBlob};
use cas_config::{Label, LockedNpm, NpmPackage};
use cas_digest::{Digest, DigestFunction, HashingWriter};
use cas_fetch::{FetchError, Fetcher};
use cas_npm::{Integrity, Manifest, PackageSource, WorkspaceMember};
use cas_store::{Store, StoreError};
use cas_tar::{Codec, Compression, ReadTarLimits, decompress, npm_plan, read_tree};
use cas_tree::{Directory, Metadata, Name, Node, RelPath};
use serde::Deserialize;

use crate::assemble::Holds;
use crate::inputs::{Sources, in_package};
use crate::layer::LayerError;
use crate::outline::stand_in;
use crate::{BuildError, Package, Taints, Tarball, Workspace, layer};

/// Largest content of one package.
const MAX_PACKAGE_BYTES: u64 = 4 << 30;
/// Longest document of a registry.
pub(crate) const MAX_DOCUMENT_BYTES: u64 = 256 << 20;
/// Longest `package.json` or ignore file.
pub(crate) const MAX_FILE_BYTES: u64 = 4 << 20;
pub(crate) const PACKAGE_JSON: &str = "package.json";

/// A registry, and where its packages go.
pub(crate) struct Registry<'a> {
    pub(crate) store: &'a Store,
    pub(crate) fetcher: &'a Fetcher,
    pub(crate) function: DigestFunction,
    /// Its address.
    pub(crate) address: &'a str,
    /// Whether packages that are not in the store are named by what pins them, and not fetched.
    pub(crate) is_outline: bool,
}

impl Registry<'_> {
    /// The content of a tarball, from the store where it was unpacked before.
    pub(crate) fn package(&self, what: &str, url: &str, integrity: &Integrity) -> Result<Descriptor, BuildError> {
        let key = format!("1 {} {integrity}", self.function);
        if let Some(value) = self.store.memo("npm-package", key.as_bytes())?
            && let Some(name) = std::str::from_utf8(&value).ok().and_then(|text| text.parse().ok())
            && self.store.find_tree(&name)?.is_some()
        {
            return Ok(name);
        }
        if self.is_outline {
            return Ok(stand_in(self.function, "npm-package", &key));
        }
        let blob = self.fetch(url, integrity.0)?;
        let damaged =
            |source: Box<dyn std::error::Error + Send + Sync>| BuildError::Package { package: what.to_owned(), source };
        let file = self.store.open_blob(&blob).map_err(StoreError::from)?;
        let mut tar = decompress(file, Compression::Gzip, MAX_PACKAGE_BYTES.saturating_mul(2))
            .map_err(|error| damaged(Box::new(error)))?;
        let limits = ReadTarLimits { content_bytes: MAX_PACKAGE_BYTES };
        let keep = &mut |content: &mut dyn std::io::Read| self.store.put(self.function, content);
        let tree = read_tree(&mut tar, limits, keep).map_err(|error| damaged(Box::new(error)))?;
        let name = self.store.put_tree(&installed(&tree), self.function)?;
        self.store.put_memo("npm-package", key.as_bytes(), name.to_string().as_bytes())?;
        Ok(name)
    }

    /// Downloads a file that has this digest; its size is not announced.
    fn fetch(&self, url: &str, digest: Digest) -> Result<Descriptor, BuildError> {
        crate::download::fetch_pinned(self.store, self.fetcher, self.function, url, digest)
    }

    /// Address of a tarball. A lockfile's words for npm's own registry mean the registry that is configured.
    pub(crate) fn tarball_url(&self, name: &str, version: &str, source: &PackageSource) -> String {
        let address = self.address;
        match source {
            PackageSource::Registry => format!("{address}/{}", tarball_path(name, version)),
            PackageSource::Url(url) => {
                match url.strip_prefix(cas_fetch::defaults::NPM).and_then(|rest| rest.strip_prefix('/')) {
                    Some(path) => format!("{address}/{path}"),
                    None => url.clone(),
                }
            }
        }
    }

    /// What the registry says of a package.
    pub(crate) fn resolve(&self, target: &str, package: &NpmPackage) -> Result<LockedNpm, BuildError> {
        #[derive(Deserialize)]
        struct Document {
            #[serde(default)]
            versions: BTreeMap<String, Version>,
        }
        #[derive(Deserialize)]
        struct Version {
            dist: Dist,
        }
        #[derive(Deserialize)]
        struct Dist {
            integrity: Option<String>,
        }
        let what = format!("{}@{}", package.name, package.version);
        let damaged =
            |source: Box<dyn std::error::Error + Send + Sync>| BuildError::Package { package: what.clone(), source };
        let url = format!("{}/{}", self.address, package.name.replace('/', "%2f"));
        let body = std::io::Read::take(self.fetcher.get(&url)?, MAX_DOCUMENT_BYTES);
        let document: Document =
            serde_json::from_reader(std::io::BufReader::new(body)).map_err(|error| damaged(Box::new(error)))?;
        let version = document.versions.get(&*package.version);
        let version = version.ok_or_else(|| damaged("the registry has no such version".into()))?;
        let integrity = version.dist.integrity.as_deref().unwrap_or_default();
        let integrity: Integrity = integrity.parse().map_err(|error| damaged(Box::new(error)))?;
        let path =
            RelPath::new(tarball_path(&package.name, &package.version)).map_err(|error| damaged(Box::new(error)))?;
        Ok(LockedNpm { target: target.to_owned(), request: what, path, integrity: integrity.to_string() })
    }

    /// The content of a pinned package.
    pub(crate) fn pinned(&self, locked: &LockedNpm) -> Result<Package, BuildError> {
        let integrity: Integrity = locked
            .integrity
            .parse()
            .map_err(|error| BuildError::Package { package: locked.request.clone(), source: Box::new(error) })?;
        let url = format!("{}/{}", self.address, locked.path);
        let name = self.package(&locked.request, &url, &integrity).map_err(|error| match error {
            BuildError::Fetch(source) if source.is_not_found() => {
                BuildError::PackageGone { package: locked.request.clone(), source }
            }
            other => other,
        })?;
        Ok(Package { tree: self.store.load_tree(&name)?, name })
    }
}

fn tarball_path(name: &str, version: &str) -> String {
    let base = name.rsplit('/').next().unwrap_or(name);
    format!("{name}/-/{base}-{version}.tgz")
}

/// What npm makes of a tarball: its first folder is taken off, links are dropped, an ignore file of git is npm's.
fn installed(tree: &Directory) -> Directory {
    let mut package = Directory::root();
    for (path, node) in tree.walk() {
        let mut components: Vec<&[u8]> = path.components().collect();
        if components.len() < 2 || !matches!(node, Node::File { .. }) {
            continue;
        }
        let ignore_file =
            [&path.parent().map(|parent| parent.as_bytes().to_vec()).unwrap_or_default()[..], b"/.npmignore"].concat();
        if *components.last().expect("it has two") == b".gitignore" {
            if RelPath::new(ignore_file).is_ok_and(|npm| tree.get(&npm).is_some()) {
                continue;
            }
            components.pop();
            components.push(b".npmignore");
        }
        let path = RelPath::new(components[1..].join(&b'/')).expect("a part of a path is one");
        if let Some((metadata, blob)) = tree.file_of(node) {
            let mode = if metadata.mode & 0o111 != 0 { 0o755 } else { 0o644 };
            // Two first folders may hold one name: then the first stays.
            let _ = package
                .get(&path)
                .is_none()
                .then(|| package.insert(&path, Node::file(blob, mode), &Metadata::root_owned(0o755)));
        }
    }
    package
}

/// Packs a package: its files and the outputs of what it names.
///
/// `taints` are those of the outputs.
pub(crate) fn pack(
    sources: &Sources<'_>,
    label: &Label,
    outputs: &[Directory],
    taints: Taints,
) -> Result<Tarball, BuildError> {
    let store = sources.store;
    let function = sources.workspace.section.digest_function;
    let failed =
        |source: Box<dyn std::error::Error + Send + Sync>| BuildError::Pack { label: label.to_string(), source };
    let package = label.package.as_ref();
    let parents = Metadata::root_owned(0o755);
    let mut whole = sources.kept(&sources.package_files(package, None)?)?;
    for output in outputs {
        for (path, node) in output.walk() {
            // What a step made goes before a stale copy in the workspace.
            if !matches!(node, Node::Directory(_)) {
                whole.insert(&path, node.clone(), &parents).map_err(|source| BuildError::Place { source })?;
            }
        }
    }
    let mut files = match package {
        None => whole.clone(),
        Some(package) => whole.subtree(package).unwrap_or_else(Directory::root),
    };
    let path = RelPath::new(PACKAGE_JSON).expect("it is a name");
    let (_, blob) = files.get_file(&path).ok_or_else(|| failed("the package has no `package.json`".into()))?;
    let text = String::from_utf8(store.load(&blob, MAX_FILE_BYTES)?)
        .map_err(|_| failed("`package.json` is not UTF-8".into()))?;
    let manifest = Manifest::parse(text.as_bytes()).map_err(|error| failed(Box::new(error)))?;
    let missing = |what: &str| failed(format!("`package.json` has no `{what}`").into());
    let name = manifest.name.clone().ok_or_else(|| missing("name"))?;
    let version = manifest.version.clone().ok_or_else(|| missing("version"))?;
    if RelPath::new(&*version).is_err() || version.contains('/') {
        return Err(failed(format!("`{version}` is not a version").into()));
    }
    let members = sources.workspace.npm_members();
    let folder = package.map(ToString::to_string).unwrap_or_default();
    let rewritten =
        cas_npm::rewrite_workspace_ranges(&text, &folder, &members).map_err(|error| failed(Box::new(error)))?;
    let blob = store.put_bytes(function, rewritten.as_bytes())?;
    files.insert(&path, Node::file(blob, 0o644), &parents).map_err(|source| BuildError::Place { source })?;
    let outer = outer_rules(sources, package)?;
    let packed = cas_npm::packed_files(&manifest, &files, &outer, &mut |blob| store.load(blob, MAX_FILE_BYTES))
        .map_err(|error| failed(Box::new(error)))?;
    let mut tree = Directory::root();
    for file in &packed {
        tree.insert(&file.path, Node::file(file.blob, file.mode), &parents)
            .map_err(|source| BuildError::Place { source })?;
    }
    let list: Vec<_> = packed.into_iter().map(|file| (file.path, file.mode, file.blob)).collect();
    let (recipe, integrity) = tarball(store, &tree, &list, function)?;
    let file_name = format!("{}-{version}.tgz", name.trim_start_matches('@').replace('/', "-"));
    if Name::new(&file_name).is_err() {
        return Err(failed(format!("`{file_name}` is too long for a name").into()));
    }
    let paths = list.into_iter().map(|(path, _, _)| path).collect();
    Ok(Tarball { name: name.into(), version: version.into(), file_name, recipe, integrity, tree, paths, taints })
}

/// Recipe and integrity of a tarball.
fn tarball(
    store: &Store,
    tree: &Directory,
    files: &[(RelPath, u32, Descriptor)],
    function: DigestFunction,
) -> Result<(cas_tar::Recipe, Integrity), BuildError> {
    let name = store.put_tree(tree, function)?;
    let plan = npm_plan(files);
    let (_, recipe) = layer::recipe(store, cas_tar::Profile::Npm1, Codec::Gzip9, &name, Holds::Plan(&plan), None, 1)
        .map_err(|error| match error {
            LayerError::Build(error) => error,
            // Tarballs have no table of contents, which alone could refuse an entry here.
            LayerError::Entry(error) => BuildError::Compress(std::io::Error::other(error)),
        })?;
    let mut writer = HashingWriter::new(std::io::sink(), &[DigestFunction::Sha512]);
    layer::write(store, &recipe, &mut writer)?;
    let (_, digests, _) = writer.finish();
    Ok((recipe, Integrity(digests[0])))
}

/// The ignore files of the folders above a package, as npm reads them in a workspace; at the root, the other packages.
fn outer_rules(sources: &Sources<'_>, package: Option<&RelPath>) -> Result<Vec<String>, BuildError> {
    let Some(package) = package else {
        return Ok(sources.workspace.packages.keys().flatten().map(|folder| format!("/{folder}")).collect());
    };
    let folders = folders_above(package);
    let mut rules = Vec::new();
    for folder in folders {
        for path in ignore_files(folder.as_ref()) {
            if let Some((_, blob)) = sources.files(std::slice::from_ref(&path))?.get_file(&path) {
                rules.push(String::from_utf8_lossy(&sources.store.load(&blob, MAX_FILE_BYTES)?).into_owned());
                break;
            }
        }
    }
    Ok(rules)
}

/// The folders above a package, from the root on.
pub(crate) fn folders_above(package: &RelPath) -> Vec<Option<RelPath>> {
    let mut folders = vec![None];
    let mut above = Vec::new();
    let mut next = package.parent();
    while let Some(folder) = next {
        next = folder.parent();
        above.push(Some(folder));
    }
    folders.extend(above.into_iter().rev());
    folders
}

/// The files that tell npm what to leave out in a folder; the first one that is there counts.
pub(crate) fn ignore_files(folder: Option<&RelPath>) -> [RelPath; 2] {
    [".npmignore", ".gitignore"].map(|name| in_package(folder, &RelPath::new(name).expect("it is a name")))
}

impl Workspace {
    /// The npm packages of the workspace, by name.
    pub(crate) fn npm_members(&self) -> BTreeMap<String, WorkspaceMember> {
        self.packages
            .iter()
            .filter_map(|(folder, package)| {
                let npm = package.npm.as_ref()?;
                let folder = folder.as_ref().map(ToString::to_string).unwrap_or_default();
                let version = npm.version.as_deref().map(str::to_owned);
                Some((npm.name.as_deref()?.to_owned(), WorkspaceMember { folder, version }))
            })
            .collect()
    }
}

/// What a fetch says when the origin is not there.
pub(crate) fn transport(url: &str, source: std::io::Error) -> BuildError {
    BuildError::Fetch(FetchError::Transport { url: cas_fetch::redact(url), source: Box::new(source) })
}
