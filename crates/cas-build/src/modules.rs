//! What lockfiles of npm and pnpm give: packages from the registry, and `node_modules` of a package of the workspace.
//! Rules: docs/formats/npm.md, docs/formats/pnpm.md.
//!
//! A step's key has the name of a [`Subset`]: the part of the lockfile that its package reaches, with the trees of its
//! packages. `node_modules` are made of that alone, so equal names mean equal folders.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use cas_blob::Descriptor;
use cas_config::{Label, LockfileKind};
use cas_digest::Digest;
use cas_npm::{Layout, Lockfile, LockfileError, Manifest, ModulesLock, Owner, Part, PnpmLockfile, Programs};
use cas_store::Store;
use cas_tree::{Directory, Metadata, Node, RelPath};
use rayon::prelude::*;

use crate::inputs::Sources;
use crate::npm::{MAX_DOCUMENT_BYTES, MAX_FILE_BYTES, PACKAGE_JSON, Registry};
use crate::{BuildError, Packages, Workspace};

/// What a package of the workspace reaches.
#[derive(Debug)]
pub(crate) struct Subset {
    pub(crate) layout: Layout,
    /// Names it, and the trees of its packages.
    pub(crate) name: Digest,
}

/// A package that is in the store.
struct Fetched {
    tree: Descriptor,
    /// Its programs, where the lockfile does not name them.
    programs: Option<BTreeMap<String, String>>,
}

/// Reads a lockfile of the workspace.
pub(crate) fn read_lockfile(sources: &Sources<'_>, path: &RelPath) -> Result<Vec<u8>, BuildError> {
    let tree = sources.files(std::slice::from_ref(path))?;
    let none = || BuildError::NoLockfile { path: path.to_string() };
    let (_, blob) = tree.get_file(path).ok_or_else(none)?;
    Ok(sources.store.load(&blob, MAX_DOCUMENT_BYTES)?)
}

/// Every package of a lockfile that this machine can use.
pub(crate) fn packages(
    registry: &Registry<'_>,
    sources: &Sources<'_>,
    kind: LockfileKind,
    path: &RelPath,
) -> Result<Packages, BuildError> {
    let bytes = read_lockfile(sources, path)?;
    let at = path.to_string();
    let lockfile = match kind {
        LockfileKind::Pnpm => PnpmLockfile::parse(&bytes).map(ModulesLock::Pnpm),
        _ => Lockfile::parse(&bytes).map(ModulesLock::Npm),
    };
    let lockfile = lockfile.map_err(|source| BuildError::Lockfile { path: at.clone(), source })?;
    let found = lockfile.packages();
    let fetched: Result<Vec<Fetched>, BuildError> = found
        .par_iter()
        .map(|(_, package)| {
            let url = registry.tarball_url(&package.name, &package.version, &package.source);
            let what = format!("{}@{}", package.name, package.version);
            let tree = registry.package(&what, &url, &package.integrity).map_err(|error| match error {
                BuildError::Fetch(source) if source.is_not_found() => {
                    BuildError::NotInRegistry { package: what.clone(), path: at.clone(), source }
                }
                other => other,
            })?;
            // Of a package that is named only by what pins it, the name stands for its programs.
            let is_here = || Ok::<_, BuildError>(!registry.is_outline || registry.store.find_tree(&tree)?.is_some());
            let programs = match package.has_unnamed_programs && is_here()? {
                true => Some(programs_of(registry.store, &what, &tree)?),
                false => None,
            };
            Ok(Fetched { tree, programs })
        })
        .collect();
    let (mut trees, mut programs) = (BTreeMap::new(), Programs::new());
    for ((key, _), fetched) in found.iter().zip(fetched?) {
        trees.insert((*key).clone(), fetched.tree);
        if let Some(own) = fetched.programs {
            programs.insert(Owner::Package((*key).clone()), own);
        }
    }
    let folder = path.parent();
    if let ModulesLock::Pnpm(lockfile) = &lockfile {
        for member in lockfile.members() {
            if let Some(own) = manifest_of(sources.workspace, folder.as_ref(), member).map(Manifest::programs) {
                programs.insert(Owner::Member(member.clone()), own);
            }
        }
    }
    let text: String = trees.iter().map(|(key, name)| format!("{key} {name}\n")).collect();
    let name = Descriptor::of(registry.function, text.as_bytes());
    Ok(Packages { lockfile, folder, path: at, trees, programs, name, subsets: Mutex::default() })
}

/// The `package.json` of the package in a folder from the lockfile's on.
fn manifest_of<'a>(workspace: &'a Workspace, folder: Option<&RelPath>, member: &str) -> Option<&'a Manifest> {
    let member = RelPath::new(member).ok();
    let path = match (folder, member) {
        (None, member) => member,
        (Some(folder), None) => Some(folder.clone()),
        (Some(folder), Some(member)) => Some(folder.join_path(&member)),
    };
    workspace.packages.get(&path)?.npm.as_ref()
}

/// The programs that a package names, from the store where they were read before.
fn programs_of(store: &Store, what: &str, tree: &Descriptor) -> Result<BTreeMap<String, String>, BuildError> {
    let damaged =
        |source: Box<dyn std::error::Error + Send + Sync>| BuildError::Package { package: what.to_owned(), source };
    let key = tree.to_string();
    if let Some(value) = store.memo("npm-programs", key.as_bytes())?
        && let Ok(programs) = serde_json::from_slice(&value)
    {
        return Ok(programs);
    }
    let path = RelPath::new(PACKAGE_JSON).expect("it is a name");
    let (_, blob) = store.load_tree(tree)?.get_file(&path).ok_or_else(|| damaged("it has no `package.json`".into()))?;
    let manifest = Manifest::parse(&store.load(&blob, MAX_FILE_BYTES)?).map_err(|error| damaged(Box::new(error)))?;
    let programs = manifest.programs();
    let value = serde_json::to_vec(&programs).map_err(|error| damaged(Box::new(error)))?;
    store.put_memo("npm-programs", key.as_bytes(), &value)?;
    Ok(programs)
}

/// What the package of a target reaches.
pub(crate) fn subset(packages: &Packages, workspace: &Workspace, label: &Label) -> Result<Arc<Subset>, BuildError> {
    let known = || packages.subsets.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(subset) = known().get(&label.package) {
        return Ok(Arc::clone(subset));
    }
    let folder = own_folder(packages, workspace, label)?;
    let layout_of = |folder: &str| {
        let layout = packages.lockfile.layout(folder, Part::All, &packages.programs);
        layout.map_err(|source| BuildError::Lockfile { path: packages.path.clone(), source })
    };
    let mut layout = layout_of(&folder)?;
    // Every package finds what the lockfile's own folder has in `node_modules`: tools of all are installed there.
    if !folder.is_empty() {
        layout.add(layout_of("")?);
    }
    let name = name_of(packages, &layout);
    let subset = Arc::new(Subset { layout, name });
    known().insert(label.package.clone(), Arc::clone(&subset));
    Ok(subset)
}

/// Names everything that `node_modules` are made of.
fn name_of(packages: &Packages, layout: &Layout) -> Digest {
    let mut text = String::new();
    let mut line = |parts: [&str; 3]| {
        for part in parts {
            // Lengths keep one part from looking like two.
            text.push_str(&format!("{}:{part} ", part.len()));
        }
        text.push('\n');
    };
    line(["folder", &packages.folder.as_ref().map(ToString::to_string).unwrap_or_default(), ""]);
    for (place, key) in &layout.packages {
        line(["package", place, &packages.trees.get(key).map(ToString::to_string).unwrap_or_default()]);
    }
    for (place, target) in &layout.links {
        line(["link", place, target]);
    }
    for (place, target) in &layout.programs {
        line(["program", place, target]);
    }
    for place in &layout.executables {
        line(["executable", place, ""]);
    }
    Digest::of(packages.name.digest.function(), text.as_bytes())
}

/// `node_modules` of the package of a target, with paths of the workspace.
pub(crate) fn tree(
    store: &Store,
    packages: &Packages,
    workspace: &Workspace,
    label: &Label,
) -> Result<Directory, BuildError> {
    in_folder(packages, assemble(store, packages, &subset(packages, workspace, label)?.layout)?)
}

/// A tree with paths from the lockfile's folder on as one of the workspace.
fn in_folder(packages: &Packages, tree: Directory) -> Result<Directory, BuildError> {
    match &packages.folder {
        None => Ok(tree),
        Some(at) => {
            let mut whole = Directory::root();
            whole.graft(at, tree, &Metadata::root_owned(0o755)).map_err(|source| BuildError::Place { source })?;
            Ok(whole)
        }
    }
}

/// `node_modules` of all packages of the workspace that a lockfile was made for, with paths of the workspace.
///
/// A lockfile says where everything is, so that what packages reach fits together.
pub(crate) fn whole(store: &Store, packages: &Packages, workspace: &Workspace) -> Result<Directory, BuildError> {
    let failed = |source| BuildError::Lockfile { path: packages.path.clone(), source };
    let layout_of = |folder: &str| packages.lockfile.layout(folder, Part::All, &packages.programs).map_err(failed);
    let mut layout = layout_of("")?;
    for package in workspace.packages.iter().filter(|(_, package)| package.npm.is_some()).map(|(folder, _)| folder) {
        let label = Label { package: package.clone(), name: "package".into() };
        match own_folder(packages, workspace, &label) {
            Ok(folder) => layout.add(layout_of(&folder)?),
            // Packages that the lockfile knows nothing of have others, or none.
            Err(
                BuildError::OutsideLockfile { .. } | BuildError::Lockfile { source: LockfileError::Unmet { .. }, .. },
            ) => {}
            Err(other) => return Err(other),
        }
    }
    in_folder(packages, assemble(store, packages, &layout)?)
}

/// What a package needs in its `node_modules` when that folder is taken elsewhere: no links to other folders.
pub(crate) fn portable(
    store: &Store,
    packages: &Packages,
    workspace: &Workspace,
    label: &Label,
    part: Part,
) -> Result<Directory, BuildError> {
    let tree = assemble(store, packages, &portable_layout(packages, workspace, label, part)?)?;
    let modules = RelPath::new("node_modules").expect("it is a name");
    Ok(tree.subtree(&modules).unwrap_or_else(Directory::root))
}

/// A package of the same part that is for some processors alone, by its name.
pub(crate) fn bound(
    packages: &Packages,
    workspace: &Workspace,
    label: &Label,
    part: Part,
) -> Result<Option<String>, BuildError> {
    let layout = portable_layout(packages, workspace, label, part)?;
    let known: BTreeMap<_, _> = packages.lockfile.packages().into_iter().collect();
    let mut used = layout.packages.values().filter_map(|key| known.get(key));
    Ok(used.find(|package| package.is_bound).map(|package| package.name.clone()))
}

/// Names everything that [`portable`] is made of.
pub(crate) fn portable_name(
    packages: &Packages,
    workspace: &Workspace,
    label: &Label,
    part: Part,
) -> Result<Digest, BuildError> {
    Ok(name_of(packages, &portable_layout(packages, workspace, label, part)?))
}

fn portable_layout(
    packages: &Packages,
    workspace: &Workspace,
    label: &Label,
    part: Part,
) -> Result<Layout, BuildError> {
    let folder = own_folder(packages, workspace, label)?;
    packages.lockfile.portable_layout(&folder, part, &packages.programs).map_err(|error| match error {
        LockfileError::TwoVersions { places } => BuildError::TwoVersions { label: label.to_string(), places },
        source => BuildError::Lockfile { path: packages.path.clone(), source },
    })
}

/// The folder of a target's package, from the lockfile's on; the lockfile must have been made for its `package.json`.
fn own_folder(packages: &Packages, workspace: &Workspace, label: &Label) -> Result<String, BuildError> {
    let outside = || BuildError::OutsideLockfile { label: label.to_string(), path: packages.path.clone() };
    let folder = match (&packages.folder, &label.package) {
        (None, None) => String::new(),
        (None, Some(package)) => package.to_string(),
        (Some(at), Some(package)) if at == package => String::new(),
        (Some(at), package) => {
            package.as_ref().and_then(|package| package.strip_prefix(at)).ok_or_else(outside)?.to_string()
        }
    };
    let manifest = workspace.packages.get(&label.package).and_then(|package| package.npm.as_ref());
    packages
        .lockfile
        .check(&folder, manifest.ok_or_else(outside)?)
        .map_err(|source| BuildError::Lockfile { path: packages.path.clone(), source })?;
    Ok(folder)
}

/// Puts everything at its place.
fn assemble(store: &Store, packages: &Packages, layout: &Layout) -> Result<Directory, BuildError> {
    let parents = Metadata::root_owned(0o755);
    let failed = |source| BuildError::Place { source };
    // Parts of a lockfile are paths; together they may be too long for one.
    let path = |text: &str| {
        RelPath::new(text).map_err(|_| BuildError::Lockfile {
            path: packages.path.clone(),
            source: LockfileError::Path { path: text.to_owned() },
        })
    };
    let mut tree = Directory::root();
    // A package before those inside of it: the order of the places.
    for (place, key) in &layout.packages {
        if let Some(name) = packages.trees.get(key) {
            tree.graft(&path(place)?, store.load_tree(name)?, &parents).map_err(failed)?;
        }
    }
    for (place, target) in &layout.links {
        tree.insert(&path(place)?, Node::symlink(target), &parents).map_err(failed)?;
    }
    for (place, target) in &layout.programs {
        let place = path(place)?;
        if tree.get(&place).is_none() {
            tree.insert(&place, Node::symlink(target), &parents).map_err(failed)?;
        }
    }
    for place in &layout.executables {
        let file = path(place)?;
        if let Some((_, blob)) = tree.get_file(&file) {
            tree.insert(&file, Node::file(blob, 0o755), &parents).map_err(failed)?;
        }
    }
    Ok(tree)
}
