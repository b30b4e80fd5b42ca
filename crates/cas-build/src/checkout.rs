//! Outputs at their own places in the workspace, for editors and servers that run outside of steps. Rules and the format of
//! the record: docs/formats/checkout.md.
//!
//! Two promises: nothing of the user's is lost, and nothing that is written here is taken for a source. So a place must be
//! one that git ignores, or, without git, one where nothing else is; and what does not look as it was left is not touched
//! unless that is asked for. A record says what was left where, and how it looked. All is checked before anything changes.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cas_blob::Descriptor;
use cas_config::Label;
use cas_digest::{DigestFunction, HashingWriter};
use cas_fs::FsError;
use cas_snapshot::{Places, Standing};
use cas_store::Store;
use cas_tree::{Directory, Metadata, Node, RelPath};
use rayon::prelude::*;

use crate::inputs::in_package;
use crate::record::{Known, Record, What};
use crate::{BuildError, Output, Workspace, history_folder, modules};

/// Where files wait for their place: on the same file system, and never taken for sources.
const WORKSHOP: &str = "cas-out";
/// Name of the folders that package managers fill.
const MODULES: &str = "node_modules";
/// Most paths that an error tells.
const MAX_TOLD: usize = 8;

/// What is done with what is in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Force {
    /// It stays, and that is an error.
    No,
    /// It is replaced, and places hold just what targets give.
    Yes,
}

/// A place where an output is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Whose output.
    pub label: String,
    /// From the workspace's root on.
    pub path: RelPath,
    /// Files and links that were written.
    pub written_count: usize,
    /// Files and links that were removed.
    pub removed_count: usize,
}

/// Writes outputs to their places, as far as they are not there.
///
/// # Errors
///
/// [`BuildError::Role`] for a target that has no place in the workspace, [`BuildError::NotIgnored`],
/// [`BuildError::PlaceTracked`], [`BuildError::InTheWay`]; then nothing was changed.
pub fn checkout(
    workspace: &Workspace,
    store: &Store,
    outputs: &BTreeMap<Label, Output>,
    force: Force,
) -> Result<Vec<Place>, BuildError> {
    let mut wanted = Wanted::default();
    for (label, output) in outputs {
        wanted.add(workspace, store, label, output)?;
    }
    let session = Session::open(workspace, store)?;
    session.allow(&wanted)?;
    // What a target gave before and gives no more.
    let labels: BTreeSet<String> = outputs.keys().map(ToString::to_string).collect();
    let stale = session
        .record
        .roots
        .iter()
        .filter(|(path, label)| labels.contains(*label) && !wanted.roots.contains_key(*path));
    let stale: Vec<RelPath> = stale.map(|(path, _)| path.clone()).collect();
    let roots: Vec<RelPath> = wanted.roots.keys().cloned().chain(stale).collect();
    session.apply(&wanted, &roots, force)
}

/// Removes what was written for these targets, or for all; what else is in their folders stays.
///
/// # Errors
///
/// [`BuildError::InTheWay`] for what was changed since; then nothing was removed.
pub fn clean_checkout(
    workspace: &Workspace,
    store: &Store,
    labels: Option<&BTreeSet<String>>,
    force: Force,
) -> Result<Vec<Place>, BuildError> {
    let session = Session::open(workspace, store)?;
    let is_meant = |label: &String| labels.is_none_or(|labels| labels.contains(label));
    let roots = session.record.roots.iter().filter(|(_, label)| is_meant(label)).map(|(path, _)| path.clone());
    let roots: Vec<RelPath> = roots.collect();
    session.apply(&Wanted::default(), &roots, force)
}

/// Places that hold outputs of a workspace which is in no repository of git: they are no sources.
pub(crate) fn places(store: &Store, root: &Path) -> Vec<RelPath> {
    Record::read_roots(&history_folder(store, root)).into_keys().collect()
}

/// What is to be at which places.
#[derive(Default)]
struct Wanted {
    /// With labels.
    roots: BTreeMap<RelPath, String>,
    nodes: BTreeMap<RelPath, Node>,
}

impl Wanted {
    fn add(&mut self, workspace: &Workspace, store: &Store, label: &Label, output: &Output) -> Result<(), BuildError> {
        let package = label.package.as_ref();
        let own = RelPath::new(label.name.as_bytes()).expect("a target's name is one");
        let own = in_package(package, &own);
        let (tree, roots) = match output {
            Output::Files(files) if !files.paths.is_empty() => (files.tree(store)?.clone(), files.paths.clone()),
            Output::Download(download) => {
                let name = RelPath::new(&download.file_name).expect("a download's name is one");
                (one(&own.join_path(&name), Node::file(download.blob, 0o644))?, vec![own])
            }
            Output::Package(package) => {
                let mut tree = Directory::root();
                tree.graft(&own, package.tree.clone(), &Metadata::root_owned(0o755))
                    .map_err(|source| BuildError::Place { source })?;
                (tree, vec![own])
            }
            Output::Packages(packages) => {
                let tree = modules::whole(store, packages, workspace)?;
                let mut roots = Vec::new();
                module_folders(&tree, None, &mut roots);
                (tree, roots)
            }
            other => {
                let kind = if matches!(other, Output::Files(_)) { "target without outputs" } else { other.kind() };
                return Err(BuildError::Role { label: label.to_string(), kind, role: "checked out" });
            }
        };
        for root in roots {
            self.put(&tree, &root, label)?;
        }
        Ok(())
    }

    /// Whether a file or link is to be at a path.
    fn is_leaf(&self, path: &RelPath) -> bool {
        self.nodes.get(path).is_some_and(|node| !matches!(node, Node::Directory(_)))
    }

    fn put(&mut self, tree: &Directory, root: &RelPath, label: &Label) -> Result<(), BuildError> {
        let Some(node) = tree.get(root) else { return Ok(()) };
        self.insert(tree, root.clone(), node, label)?;
        if let Some(directory) = node.as_directory() {
            for (path, node) in directory.walk() {
                self.insert(tree, root.join_path(&path), node, label)?;
            }
        }
        self.roots.insert(root.clone(), label.to_string());
        Ok(())
    }

    fn insert(&mut self, tree: &Directory, path: RelPath, node: &Node, label: &Label) -> Result<(), BuildError> {
        let node = match (node, tree.file_of(node)) {
            (Node::Directory(_), _) => Node::Directory(Arc::new(Directory::new(Metadata::root_owned(0o755)))),
            (_, Some((metadata, blob))) => Node::file(blob, if metadata.mode & 0o100 != 0 { 0o755 } else { 0o644 }),
            (Node::Symlink { target, .. }, None) => Node::symlink(target),
            // No output of a step has anything else, and no package that was unpacked.
            _ => return Ok(()),
        };
        match self.nodes.get(&path) {
            Some(other) if *other != node => Err(BuildError::InputConflict { label: label.to_string(), path }),
            _ => {
                self.nodes.insert(path, node);
                Ok(())
            }
        }
    }
}

fn one(path: &RelPath, node: Node) -> Result<Directory, BuildError> {
    let mut tree = Directory::root();
    tree.insert(path, node, &Metadata::root_owned(0o755)).map_err(|source| BuildError::Place { source })?;
    Ok(tree)
}

/// The `node_modules` of packages of the workspace, not those of packages in them.
fn module_folders(directory: &Directory, at: Option<&RelPath>, found: &mut Vec<RelPath>) {
    for (name, node) in directory.entries() {
        let path = at.map_or_else(|| RelPath::from(name.clone()), |at| at.join(name));
        match node.as_directory() {
            Some(below) if name.as_bytes() != MODULES.as_bytes() => module_folders(below, Some(&path), found),
            _ => found.push(path),
        }
    }
}

/// What is at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Found {
    what: Kind,
    looks: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Directory,
    File { is_executable: bool },
    Symlink,
    Other,
}

/// One checkout: nobody else writes outputs of this workspace meanwhile.
struct Session<'a> {
    workspace: &'a Workspace,
    store: &'a Store,
    folder: PathBuf,
    record: Record,
    places: Places,
    _lock: File,
}

impl<'a> Session<'a> {
    fn open(workspace: &'a Workspace, store: &'a Store) -> Result<Self, BuildError> {
        let folder = history_folder(store, &workspace.root);
        cas_fs::create_dir_all(&folder)?;
        let path = folder.join("checked-out.lock");
        let lock = match cas_fs::create_new(&path, 0o600) {
            Err(error) if error.is_already_exists() => cas_fs::open(&path)?,
            other => other?,
        };
        lock.lock().map_err(|error| FsError::new(cas_fs::Operation::Open, &path, error))?;
        let record = Record::read(&folder);
        let places = Places::open(&workspace.root)?;
        Ok(Self { workspace, store, folder, record, places, _lock: lock })
    }

    fn function(&self) -> DigestFunction {
        self.workspace.section.digest_function
    }

    fn at(&self, path: &RelPath) -> PathBuf {
        self.workspace.root.join(OsStr::from_bytes(path.as_bytes()))
    }

    /// Refuses places that are or would be sources.
    fn allow(&self, wanted: &Wanted) -> Result<(), BuildError> {
        for (path, label) in &wanted.roots {
            let is_dir = matches!(wanted.nodes.get(path), Some(Node::Directory(_)));
            match self.places.standing(path, is_dir)? {
                Standing::Ignored => {}
                Standing::Tracked => return Err(BuildError::PlaceTracked { label: label.clone(), path: path.clone() }),
                // Without git there is nothing that could be committed by mistake, and builds know these places.
                Standing::Listed if !self.places.has_repository() && self.is_free(path)? => {}
                Standing::Listed => return Err(BuildError::NotIgnored { label: label.clone(), path: path.clone() }),
            }
            let mut above = path.parent();
            while let Some(folder) = above {
                let is_fine = match cas_fs::symlink_metadata(&self.at(&folder)) {
                    Ok(metadata) => metadata.is_dir(),
                    Err(error) if error.is_not_found() => true,
                    Err(error) => return Err(error.into()),
                };
                if !is_fine {
                    return Err(BuildError::InTheWay { paths: format!("`{folder}`"), is_folder: true });
                }
                above = folder.parent();
            }
        }
        Ok(())
    }

    fn is_free(&self, path: &RelPath) -> Result<bool, BuildError> {
        if self.record.roots.contains_key(path) {
            return Ok(true);
        }
        match cas_fs::symlink_metadata(&self.at(path)) {
            Ok(_) => Ok(false),
            Err(error) if error.is_not_found() => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes these places hold what is wanted there.
    fn apply(mut self, wanted: &Wanted, roots: &[RelPath], force: Force) -> Result<Vec<Place>, BuildError> {
        let mut found = BTreeMap::new();
        for root in roots {
            scan(&self.workspace.root, root, &mut found)?;
        }
        let plan = self.plan(wanted, roots, &found, force)?;
        let before = self.record.roots.clone();
        // Whatever happens from here on, the next one knows what may be there.
        let function = self.function();
        let coming = plan.write.iter().filter_map(|path| known(path, &wanted.nodes[path], function, None));
        self.record.expect(&wanted.roots, coming);
        self.record.write(&self.folder)?;
        self.remove(&plan, wanted)?;
        self.write(&plan, wanted)?;
        self.note(wanted, roots, &found, &plan)?;
        let of = |root: &RelPath, paths: &[RelPath]| {
            paths.iter().filter(|path| *path == root || path.strip_prefix(root).is_some()).count()
        };
        let places = roots.iter().map(|root| Place {
            label: wanted.roots.get(root).or(before.get(root)).cloned().unwrap_or_default(),
            path: root.clone(),
            written_count: of(root, &plan.write),
            removed_count: of(root, &plan.remove),
        });
        Ok(places.collect())
    }

    /// What has to change; an error when something of the user's is in the way.
    fn plan(
        &self,
        wanted: &Wanted,
        roots: &[RelPath],
        found: &BTreeMap<RelPath, Found>,
        force: Force,
    ) -> Result<Plan, BuildError> {
        let judged: Vec<(&RelPath, Result<Fate, BuildError>)> =
            found.par_iter().map(|(path, found)| (path, self.judge(path, found, wanted))).collect();
        let (mut plan, mut in_the_way) = (Plan::default(), Vec::new());
        let mut kept: BTreeSet<&RelPath> = BTreeSet::new();
        for (path, fate) in judged {
            let is_ours = roots.iter().any(|root| {
                self.record.roots.contains_key(root) && (path == root || path.strip_prefix(root).is_some())
            });
            match fate? {
                Fate::Keep => {
                    kept.insert(path);
                }
                Fate::Folder | Fate::Replace => {}
                Fate::Remove => plan.remove.push(path.clone()),
                // Caches of tools, for instance: in a folder of ours they are nobody's concern, unless they are in the way.
                Fate::Foreign if is_ours && force == Force::No && !is_below_file(path, wanted) => {}
                Fate::Changed if force == Force::Yes && wanted.is_leaf(path) => {}
                Fate::Foreign | Fate::Changed if force == Force::Yes => plan.remove.push(path.clone()),
                Fate::Foreign | Fate::Changed => in_the_way.push(format!("`{path}`")),
            }
        }
        if !in_the_way.is_empty() {
            let more = in_the_way.len().saturating_sub(MAX_TOLD);
            in_the_way.truncate(MAX_TOLD);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            return Err(BuildError::InTheWay { paths: format!("{}{more}", in_the_way.join(", ")), is_folder: false });
        }
        let is_new = |(path, node): &(&RelPath, &Node)| !matches!(node, Node::Directory(_)) && !kept.contains(path);
        plan.write = wanted.nodes.iter().filter(is_new).map(|(path, _)| path.clone()).collect();
        // Folders that are not wanted go when they are empty; the deepest first.
        let is_left = |(path, found): &(&RelPath, &Found)| {
            found.what == Kind::Directory && !matches!(wanted.nodes.get(*path), Some(Node::Directory(_)))
        };
        plan.folders = found.iter().rev().filter(is_left).map(|(path, _)| path.clone()).collect();
        Ok(plan)
    }

    /// What becomes of what is at a path.
    fn judge(&self, path: &RelPath, found: &Found, wanted: &Wanted) -> Result<Fate, BuildError> {
        let wanted = wanted.nodes.get(path);
        if found.what == Kind::Directory {
            // Folders have nothing of their own: what is in them is judged itself.
            return Ok(Fate::Folder);
        }
        let known = self.record.paths.get(path).map(Vec::as_slice).unwrap_or_default();
        let looks_known = known.iter().find(|known| known.looks.as_deref() == Some(&found.looks));
        let content = match looks_known {
            Some(known) => Some(known.what.clone()),
            None => self.content(path, found.what)?,
        };
        let is_wanted = |content: &What| {
            wanted.and_then(|node| what(node, self.function())).is_some_and(|wanted| wanted == *content)
        };
        Ok(match content {
            Some(content) if is_wanted(&content) => Fate::Keep,
            Some(content) if known.iter().any(|known| known.what == content) => match wanted {
                Some(node) if !matches!(node, Node::Directory(_)) => Fate::Replace,
                _ => Fate::Remove,
            },
            _ if known.is_empty() && wanted.is_none() => Fate::Foreign,
            _ => Fate::Changed,
        })
    }

    fn content(&self, path: &RelPath, kind: Kind) -> Result<Option<What>, BuildError> {
        let at = self.at(path);
        Ok(match kind {
            Kind::File { is_executable } => {
                let mut writer = HashingWriter::new(std::io::sink(), &[self.function()]);
                let read = std::io::copy(&mut cas_fs::open_no_follow(&at)?, &mut writer);
                read.map_err(|error| FsError::new(cas_fs::Operation::Read, &at, error))?;
                let (_, digests, size) = writer.finish();
                Some(What::File { blob: Descriptor { digest: digests[0], size }, is_executable })
            }
            Kind::Symlink => {
                let target = cas_fs::read_link(&at)?;
                Some(What::Symlink { target: Descriptor::of(self.function(), target.as_os_str().as_bytes()) })
            }
            Kind::Directory | Kind::Other => None,
        })
    }

    fn remove(&self, plan: &Plan, wanted: &Wanted) -> Result<(), BuildError> {
        for path in &plan.remove {
            match cas_fs::remove_file(&self.at(path)) {
                Err(error) if !error.is_not_found() => return Err(error.into()),
                _ => {}
            }
        }
        for path in &plan.folders {
            match cas_fs::remove_dir(&self.at(path)) {
                Ok(()) => {}
                // Somebody else's files are in it, or somebody removed it.
                Err(error) if error.is_not_found() => {}
                Err(error) if !wanted.nodes.contains_key(path) && is_not_empty(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Writes what is new: first next to everything, then each to its place.
    fn write(&self, plan: &Plan, wanted: &Wanted) -> Result<(), BuildError> {
        let parents = Metadata::root_owned(0o755);
        let mut tree = Directory::root();
        let folders = wanted.nodes.keys().filter(|path| !wanted.is_leaf(path));
        for path in folders.chain(&plan.write) {
            tree.insert(path, wanted.nodes[path].clone(), &parents).map_err(|source| BuildError::Place { source })?;
        }
        if tree.is_empty() {
            return Ok(());
        }
        let workshop = self.workspace.root.join(WORKSHOP);
        cas_fs::create_dir_all(&workshop)?;
        let temporary = cas_fs::temporary_dir_in(&workshop, ".cas-")?;
        let new = temporary.join("new");
        let written = (|| {
            self.store.write_tree(&tree, &new)?;
            // Whoever waits for changes looks at this time, too.
            plan.write.par_iter().try_for_each(|path| cas_fs::touch(&new.join(OsStr::from_bytes(path.as_bytes()))))?;
            move_in(&tree, &new, &self.workspace.root)
        })();
        let removed = cas_fs::remove_tree(&temporary);
        written?;
        Ok(removed?)
    }

    /// Writes down what is there now.
    fn note(
        mut self,
        wanted: &Wanted,
        roots: &[RelPath],
        found: &BTreeMap<RelPath, Found>,
        plan: &Plan,
    ) -> Result<(), BuildError> {
        let is_written: BTreeSet<&RelPath> = plan.write.iter().collect();
        let function = self.function();
        let now: Result<Vec<_>, BuildError> = wanted
            .nodes
            .par_iter()
            .filter_map(|(path, node)| {
                let looks = match found.get(path).filter(|_| !is_written.contains(path)) {
                    Some(found) => Ok(found.looks.clone()),
                    None => look(&self.at(path)).map(|found| found.looks),
                };
                match looks {
                    Ok(looks) => known(path, node, function, Some(looks)).map(Ok),
                    // Removed again by somebody else.
                    Err(error) if error.is_not_found() => None,
                    Err(error) => Some(Err(error.into())),
                }
            })
            .collect();
        self.record.settle(roots, &wanted.roots, now?);
        Ok(self.record.write(&self.folder)?)
    }
}

/// What has to change.
#[derive(Debug, Default)]
struct Plan {
    /// Files and links that are written.
    write: Vec<RelPath>,
    /// Files and links that are removed.
    remove: Vec<RelPath>,
    /// Folders that are removed when nothing is in them.
    folders: Vec<RelPath>,
}

/// What becomes of what is there.
enum Fate {
    /// It is a folder.
    Folder,
    /// It is what is wanted.
    Keep,
    /// It is what was left there, and something else is wanted.
    Replace,
    /// It is what was left there, and nothing is wanted.
    Remove,
    /// Nothing was left there and nothing is wanted.
    Foreign,
    /// It is not what was left there.
    Changed,
}

/// Moves what was written to its place: a folder that is not there with all that is in it, else name by name.
fn move_in(directory: &Directory, from: &Path, to: &Path) -> Result<(), BuildError> {
    for (name, node) in directory.entries() {
        let name = OsStr::from_bytes(name.as_bytes());
        let (from, to) = (from.join(name), to.join(name));
        match node.as_directory() {
            Some(below) if cas_fs::symlink_metadata(&to).is_ok_and(|metadata| metadata.is_dir()) => {
                move_in(below, &from, &to)?;
            }
            _ => cas_fs::rename(&from, &to)?,
        }
    }
    Ok(())
}

/// Whether a path is below one where a file or link is wanted.
fn is_below_file(path: &RelPath, wanted: &Wanted) -> bool {
    let mut above = path.parent();
    while let Some(folder) = above {
        if wanted.is_leaf(&folder) {
            return true;
        }
        above = folder.parent();
    }
    false
}

fn is_not_empty(error: &FsError) -> bool {
    error.source.kind() == std::io::ErrorKind::DirectoryNotEmpty
}

/// What the record calls a node; `None` for a folder.
fn what(node: &Node, function: DigestFunction) -> Option<What> {
    match node {
        Node::File { blob, metadata } => Some(What::File { blob: *blob, is_executable: metadata.mode & 0o100 != 0 }),
        Node::Symlink { target, .. } => Some(What::Symlink { target: Descriptor::of(function, target) }),
        _ => None,
    }
}

fn known(path: &RelPath, node: &Node, function: DigestFunction, looks: Option<String>) -> Option<(RelPath, Known)> {
    Some((path.clone(), Known { what: what(node, function)?, looks }))
}

/// Everything that is at a path and below it.
fn scan(root: &Path, path: &RelPath, all: &mut BTreeMap<RelPath, Found>) -> Result<(), BuildError> {
    let at = |path: &RelPath| root.join(OsStr::from_bytes(path.as_bytes()));
    let mut open = vec![path.clone()];
    while let Some(path) = open.pop() {
        let found = match look(&at(&path)) {
            Ok(found) => found,
            Err(error) if error.is_not_found() => continue,
            Err(error) => return Err(error.into()),
        };
        if found.what == Kind::Directory {
            for entry in cas_fs::read_dir(&at(&path))? {
                let name = RelPath::new(entry.name.as_bytes()).map_err(|source| {
                    let path = [path.as_bytes(), b"/", entry.name.as_bytes()].concat();
                    cas_snapshot::SnapshotError::Path { path: OsStr::from_bytes(&path).into(), source }
                })?;
                open.push(path.join_path(&name));
            }
        }
        all.insert(path, found);
    }
    Ok(())
}

fn look(path: &Path) -> Result<Found, FsError> {
    let metadata = cas_fs::symlink_metadata(path)?;
    let kind = metadata.file_type();
    let what = match (kind.is_dir(), kind.is_file(), kind.is_symlink()) {
        (true, _, _) => Kind::Directory,
        (_, true, _) => Kind::File { is_executable: metadata.mode() & 0o100 != 0 },
        (_, _, true) => Kind::Symlink,
        _ => Kind::Other,
    };
    let looks = format!(
        "{}:{}:{:o}:{}:{}.{}:{}.{}",
        metadata.dev(),
        metadata.ino(),
        metadata.mode(),
        metadata.size(),
        metadata.mtime(),
        metadata.mtime_nsec(),
        metadata.ctime(),
        metadata.ctime_nsec()
    );
    Ok(Found { what, looks })
}
