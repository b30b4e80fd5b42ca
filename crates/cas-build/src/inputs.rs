//! What a step finds in `/src`: files of its package, outputs of what it depends on. Rules: docs/formats/step.md.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use cas_action::{ProjectError, Projection, project};
use cas_blob::{Descriptor, VerifyError};
use cas_config::{Command, Label};
use cas_digest::{Digest, DigestFunction};
use cas_snapshot::{KeepError, Picked, Selection, Snapshot, SnapshotError};
use cas_store::{Store, StoreError};
use cas_tree::{Directory, MergeRule, Metadata, Node, RelPath};

use crate::graph::{Edge, Every, Graph, TargetId};
use crate::recent::Recent;
use crate::schedule::Values;
use crate::trace::Trace;
use crate::{BuildError, Output, Taints, Workspace, checkout};

/// The manifest that comes with a dependency's outputs.
const PACKAGE_JSON: &str = "package.json";

/// What a step will find in `/src`, before any of it is read into a tree.
pub(crate) struct Plan {
    /// The files of the workspace, less what outputs replace.
    pub(crate) picked: Picked,
    /// Names everything that the inputs are made of: equal plans give equal inputs.
    pub(crate) name: Digest,
}

/// What a step depends on beside its toolchains, finished.
pub(crate) struct Given<'a> {
    pub(crate) graph: &'a Graph<'a>,
    pub(crate) values: &'a Values<Output>,
    pub(crate) label: &'a Label,
    /// Targets that it names.
    pub(crate) named: Vec<TargetId>,
    /// What its `^name`s stand for.
    pub(crate) every: &'a [Every],
}

impl Given<'_> {
    fn output(&self, target: TargetId) -> &Output {
        self.values.get(target)
    }

    /// Everything whose outputs are inputs, in order.
    pub(crate) fn all(&self) -> Vec<TargetId> {
        let reach = self.every.iter().flat_map(|every| self.graph.reach(self.label, &every.name));
        let mut all: Vec<TargetId> = self.named.iter().copied().chain(reach).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// What its inputs were made with.
    pub(crate) fn taints(&self) -> Taints {
        let every = self.every.iter().flat_map(|every| every.edges.iter().map(|edge| edge.target));
        Taints::of(self.named.iter().copied().chain(every).map(|target| self.output(target)))
    }
}

/// A package, and the patterns of its inputs where they are not the default ones.
type Selector = (Option<RelPath>, Option<Vec<String>>);

/// What is found out about sources once for all targets of a build.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// Digests of packages' manifests.
    manifests: Mutex<HashMap<Option<RelPath>, Digest>>,
    /// Files of packages, by what selects them: targets of a package mostly read the same.
    package_files: Mutex<HashMap<Selector, Picked>>,
    /// What others get through a target that waits for all with its name: see [`Sources::through`].
    through: Mutex<HashMap<TargetId, Digest>>,
    /// Whether files that the workspace gives to all are in the folder of a package.
    shares_packages_files: OnceLock<bool>,
    /// Places that hold outputs, where git does not tell that.
    checked_out: OnceLock<Vec<RelPath>>,
    /// For packages with others in their folder, those.
    nested: OnceLock<HashMap<Option<RelPath>, Vec<RelPath>>>,
    /// Trees of files that were picked.
    trees: Recent<Picked, Directory>,
    /// The same files in words.
    listed: Recent<Picked, Arc<Trace>>,
    /// Trees as executors see them.
    projections: Recent<(DigestFunction, Directory), Arc<Projection>>,
}

/// What a step finds in `/src`, with paths from the workspace's root.
pub(crate) struct Inputs {
    /// The part that comes from the workspace, whose content may not be in the store yet.
    pub(crate) picked: Picked,
    /// All of it.
    pub(crate) tree: Directory,
    /// What is not shared with other packages: written out for the build and removed afterwards.
    pub(crate) own: Directory,
    /// Large parts that other steps have as well, with their names: written out once.
    pub(crate) shared: Vec<(Descriptor, Arc<Directory>)>,
}

/// Trees of inputs that were written out in this build: steps with equal inputs read one copy.
///
/// They are in the process's own folder, and go with it.
#[derive(Debug, Default)]
pub(crate) struct WrittenInputs {
    names: Recent<(DigestFunction, Directory), Descriptor>,
    known: Mutex<BTreeMap<Descriptor, Arc<Mutex<Option<PathBuf>>>>>,
}

impl WrittenInputs {
    /// The folder that holds the tree. It must not be written.
    pub(crate) fn folder(
        &self,
        store: &Store,
        tree: &Directory,
        function: DigestFunction,
    ) -> Result<PathBuf, BuildError> {
        let encode = || Ok::<_, StoreError>(tree.encode(function)?.root);
        let name = self.names.get_or(&(function, tree.clone()), encode)?;
        let slot = {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(known.entry(name).or_default())
        };
        // Held while the tree is written, so that it is written once.
        let mut folder = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(folder) = &*folder {
            return Ok(folder.clone());
        }
        let made = cas_fs::temporary_dir_in(store.scratch(), "inputs-")?.join("tree");
        store.write_tree(tree, &made)?;
        *folder = Some(made.clone());
        Ok(made)
    }
}

/// Where inputs come from.
pub(crate) struct Sources<'a> {
    pub(crate) workspace: &'a Workspace,
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) store: &'a Store,
    pub(crate) known: &'a Known,
}

impl Sources<'_> {
    /// What the inputs of a step are made of.
    pub(crate) fn plan(&self, command: &Command, given: &Given<'_>) -> Result<Plan, BuildError> {
        let label = given.label;
        let package = label.package.as_ref();
        // What the step makes is not what it reads: a stale copy in the workspace must not matter.
        let own = command.outputs.iter().map(|output| &output.value).chain(&command.scratch).chain(&command.cache);
        let mut replaced: Vec<RelPath> = own.map(|path| in_package(package, path)).collect();
        let mut text = Lines::default();
        for target in &given.named {
            replaced.extend(replaced_by(given.output(*target)));
            self.describe(&mut text, given, *target, Some(label))?;
        }
        for every in given.every {
            text.add(&["every", &every.name]);
            for edge in &every.edges {
                if edge.is_deep {
                    let through = self.through(given, edge.target)?;
                    text.add(&["through", &given.graph.label(edge.target).to_string(), &through.to_string()]);
                } else {
                    self.describe(&mut text, given, edge.target, Some(label))?;
                }
            }
            if self.may_replace(label, &every.name)? {
                let reach = given.graph.reach(label, &every.name);
                replaced.extend(reach.into_iter().flat_map(|target| replaced_by(given.output(target))));
            }
        }
        let picked = self.snapshot.without(&self.package_files(package, command.inputs.as_ref())?, &replaced);
        text.add(&["files", &self.snapshot.fingerprint(&picked)?.to_string()]);
        // `node_modules` is made for the manifest of the package, whatever its inputs are.
        text.add(&["own manifest", &self.manifest_name(package)?.to_string()]);
        let name = Digest::of(self.workspace.section.digest_function, text.0.as_bytes());
        Ok(Plan { picked, name })
    }

    /// Says what an output is, and what comes with it. `reader` is who gets it, where that is known.
    fn describe(
        &self,
        text: &mut Lines,
        given: &Given<'_>,
        target: TargetId,
        reader: Option<&Label>,
    ) -> Result<(), BuildError> {
        let (need, output) = (given.graph.label(target), given.output(target));
        let what = match output {
            Output::Files(files) => files.name.to_string(),
            Output::Download(download) => format!("{} {}", download.blob, download.file_name),
            Output::Package(package) => package.name.to_string(),
            Output::Packages(packages) => match reader {
                Some(reader) => crate::modules::subset(packages, self.workspace, reader)?.name.to_string(),
                None => packages.name.to_string(),
            },
            Output::Crates(crates) => crates.name.to_string(),
            Output::Tarball(tarball) => format!("{} {}", tarball.recipe.blob, tarball.file_name),
            Output::Toolchain(_) | Output::Image(_) | Output::Artifact(_) => return Err(no_input(need, output)),
        };
        text.add(&[&need.to_string(), output.kind(), &what]);
        if matches!(output, Output::Files(_)) && reader.is_none_or(|reader| reader.package != need.package) {
            text.add(&["manifest", &self.manifest_name(need.package.as_ref())?.to_string()]);
        }
        Ok(())
    }

    /// Notes what a step depends on.
    pub(crate) fn trace_needs(&self, trace: &mut Trace, given: &Given<'_>) -> Result<(), BuildError> {
        for target in given.all() {
            let mut text = Lines::default();
            self.describe(&mut text, given, target, Some(given.label))?;
            let name = Digest::of(self.workspace.section.digest_function, text.0.as_bytes());
            trace.add("dependency", given.graph.label(target).to_string(), name.to_string());
        }
        Ok(())
    }

    /// Notes what a step names itself: with a target that waits for others, all that it gets through it.
    pub(crate) fn trace_nearest(&self, trace: &mut Trace, given: &Given<'_>) -> Result<(), BuildError> {
        let mut add = |target: TargetId, text: &Lines| {
            let name = Digest::of(self.workspace.section.digest_function, text.0.as_bytes());
            trace.add("dependency", given.graph.label(target).to_string(), name.to_string());
        };
        let edges = given.every.iter().flat_map(|every| every.edges.iter().copied());
        let named = given.named.iter().map(|target| Edge { target: *target, is_deep: false });
        for edge in edges.chain(named) {
            let mut text = Lines::default();
            self.describe(&mut text, given, edge.target, Some(given.label))?;
            if edge.is_deep {
                text.add(&["through", &self.through(given, edge.target)?.to_string()]);
            }
            add(edge.target, &text);
        }
        Ok(())
    }

    /// Names what others get through a target that itself waits for all of its name: its own outputs, and what is behind it.
    fn through(&self, given: &Given<'_>, target: TargetId) -> Result<Digest, BuildError> {
        let lock = || self.known.through.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = lock().get(&target) {
            return Ok(*known);
        }
        let mut text = Lines::default();
        self.describe(&mut text, given, target, None)?;
        // It was planned with what is behind it, so those are known, and this goes no deeper.
        for edge in given.graph.behind(target) {
            if edge.is_deep {
                text.add(&["through", &self.through(given, edge.target)?.to_string()]);
            } else {
                self.describe(&mut text, given, edge.target, None)?;
            }
        }
        let name = Digest::of(self.workspace.section.digest_function, text.0.as_bytes());
        lock().insert(target, name);
        Ok(name)
    }

    /// Whether targets of this name in other packages can have outputs where a step has files of the workspace.
    fn may_replace(&self, label: &Label, name: &str) -> Result<bool, BuildError> {
        let has = |package: Option<RelPath>| self.workspace.target(&Label { package, name: name.into() }).is_some();
        let mut above = label.package.clone();
        while let Some(package) = above {
            above = package.parent();
            if has(above.clone()) {
                return Ok(true);
            }
        }
        if let Some(known) = self.known.shares_packages_files.get() {
            return Ok(*known);
        }
        let inputs = self.workspace.section.inputs.clone();
        let selection = Selection { inputs: Some(Vec::new()), workspace_inputs: inputs, ..Selection::default() };
        let shared = self.snapshot.select(&selection)?;
        let is_in_package = |path: RelPath| {
            let mut above = path.parent();
            while let Some(folder) = above {
                if self.workspace.packages.contains_key(&Some(folder.clone())) {
                    return true;
                }
                above = folder.parent();
            }
            false
        };
        let found = self.snapshot.paths(&shared).any(is_in_package);
        Ok(*self.known.shares_packages_files.get_or_init(|| found))
    }

    pub(crate) fn manifest(&self, package: Option<&RelPath>) -> Result<Picked, SnapshotError> {
        let manifest = RelPath::new(PACKAGE_JSON).expect("it is a name");
        self.snapshot.pick(&[in_package(package, &manifest)])
    }

    fn manifest_name(&self, package: Option<&RelPath>) -> Result<Digest, BuildError> {
        let lock = || self.known.manifests.lock().unwrap_or_else(PoisonError::into_inner);
        let key = package.cloned();
        if let Some(known) = lock().get(&key) {
            return Ok(*known);
        }
        let name = self.snapshot.fingerprint(&self.manifest(package)?)?;
        lock().insert(key, name);
        Ok(name)
    }

    /// The inputs that were planned for a step.
    pub(crate) fn of_step(&self, command: &Command, given: &Given<'_>, plan: &Plan) -> Result<Inputs, BuildError> {
        let label = given.label;
        let package = label.package.as_ref();
        let mut picked = plan.picked.clone();
        let mut own = self.known.trees.get_or(&picked, || self.snapshot.tree(&picked))?;
        let mut shared: Vec<(Descriptor, Arc<Directory>)> = Vec::new();
        let mut outputs = Directory::root();
        for target in given.all() {
            let (need, output) = (given.graph.label(target), given.output(target));
            let tree = match output {
                Output::Files(files) => {
                    let mut tree = files.tree(self.store)?.clone();
                    if need.package != label.package {
                        let manifest = self.manifest(need.package.as_ref())?;
                        graft(&mut tree, &self.snapshot.tree(&manifest)?, label)?;
                        picked = self.snapshot.union(&picked, &manifest);
                    }
                    tree
                }
                Output::Download(download) => {
                    let mut tree = Directory::root();
                    let name = RelPath::new(&download.file_name).expect("a download's name is one");
                    let folder = RelPath::new(need.name.as_bytes()).expect("a target's name is one");
                    let path = in_package(need.package.as_ref(), &folder.join_path(&name));
                    put(&mut tree, &path, Node::file(download.blob, 0o644))?;
                    tree
                }
                Output::Package(package) => {
                    let mut tree = Directory::root();
                    let folder = RelPath::new(need.name.as_bytes()).expect("a target's name is one");
                    let at = in_package(need.package.as_ref(), &folder);
                    tree.graft(&at, package.tree.clone(), &Metadata::root_owned(0o755))
                        .map_err(|source| BuildError::Place { source })?;
                    tree
                }
                Output::Packages(packages) => {
                    let tree = crate::modules::tree(self.store, packages, self.workspace, label)?;
                    let function = self.workspace.section.digest_function;
                    let name = tree.encode(function).map_err(StoreError::from)?.root;
                    shared.push((name, Arc::new(tree)));
                    continue;
                }
                Output::Crates(crates) => {
                    let tree = crate::cargo::tree(self.store, crates)?;
                    let function = self.workspace.section.digest_function;
                    let name = tree.encode(function).map_err(StoreError::from)?.root;
                    shared.push((name, Arc::new(tree)));
                    continue;
                }
                Output::Tarball(tarball) => {
                    let blob = crate::export::tarball_blob(self.store, tarball)?;
                    let folder = RelPath::new(need.name.as_bytes()).expect("a target's name is one");
                    let file = RelPath::new(&tarball.file_name).expect("name and version were checked");
                    let mut tree = Directory::root();
                    put(
                        &mut tree,
                        &in_package(need.package.as_ref(), &folder.join_path(&file)),
                        Node::file(blob, 0o644),
                    )?;
                    tree
                }
                Output::Toolchain(_) | Output::Image(_) | Output::Artifact(_) => return Err(no_input(need, output)),
            };
            graft(&mut outputs, &tree, label)?;
        }
        graft(&mut own, &outputs, label)?;
        // The folder that the step starts in, and those of its outputs.
        for path in package.into_iter().cloned().chain(
            command
                .outputs
                .iter()
                .filter_map(|output| output.value.parent().map(|parent| in_package(package, &parent))),
        ) {
            if own.get(&path).is_none() {
                put(&mut own, &path, Node::Directory(Arc::new(Directory::new(Metadata::root_owned(0o755)))))?;
            }
        }
        let mut tree = own.clone();
        for (_, part) in &shared {
            graft(&mut tree, part, label)?;
        }
        shared.sort_by_key(|(name, _)| *name);
        Ok(Inputs { picked, tree, own, shared })
    }

    /// The files of a package, and those that the workspace gives to all.
    pub(crate) fn package_files(
        &self,
        package: Option<&RelPath>,
        inputs: Option<&Vec<String>>,
    ) -> Result<Picked, BuildError> {
        let key = (package.cloned(), inputs.cloned());
        let known = || self.known.package_files.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(picked) = known().get(&key) {
            return Ok(picked.clone());
        }
        let picked = self.selected(package, inputs.cloned(), Vec::new(), self.workspace.section.inputs.clone())?;
        known().insert(key, picked.clone());
        Ok(picked)
    }

    fn selected(
        &self,
        package: Option<&RelPath>,
        inputs: Option<Vec<String>>,
        exclude: Vec<String>,
        workspace_inputs: Vec<String>,
    ) -> Result<Picked, BuildError> {
        let nested = self.known.nested.get_or_init(|| nested(self.workspace));
        let package = package.cloned();
        // A folder above is another package, too, but its files are not below this one.
        let other_packages = nested.get(&package).cloned().unwrap_or_default();
        let selected =
            self.snapshot.select(&Selection { package, other_packages, inputs, exclude, workspace_inputs })?;
        let checked_out = self.known.checked_out.get_or_init(|| match self.snapshot.has_repository() {
            // There `.gitignore` says what is no source.
            true => Vec::new(),
            false => checkout::places(self.store, &self.workspace.root),
        });
        Ok(if checked_out.is_empty() { selected } else { self.snapshot.without(&selected, checked_out) })
    }

    /// Files of a package that match patterns, without those that the workspace gives to all.
    pub(crate) fn own_picked(
        &self,
        package: Option<&RelPath>,
        patterns: &[String],
        exclude: &[String],
    ) -> Result<Picked, BuildError> {
        self.selected(package, Some(patterns.to_vec()), exclude.to_vec(), Vec::new())
    }

    /// The files at these paths, with their content in the store; those that the snapshot lacks are left out.
    pub(crate) fn files(&self, paths: &[RelPath]) -> Result<Directory, BuildError> {
        self.kept(&self.snapshot.pick(paths)?)
    }

    /// The tree of picked files, with their content in the store.
    pub(crate) fn kept(&self, picked: &Picked) -> Result<Directory, BuildError> {
        self.keep(picked)?;
        Ok(self.snapshot.tree(picked)?)
    }

    /// Picked files in words.
    pub(crate) fn listed(&self, picked: &Picked) -> Result<Arc<Trace>, BuildError> {
        self.known.listed.get_or(picked, || {
            let mut trace = Trace::default();
            trace.add_files(self.snapshot.listing(picked)?);
            Ok(Arc::new(trace))
        })
    }

    /// What an executor sees of a tree.
    pub(crate) fn projected(
        &self,
        tree: &Directory,
        function: DigestFunction,
    ) -> Result<Arc<Projection>, ProjectError> {
        self.known.projections.get_or(&(function, tree.clone()), || Ok(Arc::new(project(tree, function)?)))
    }

    /// Puts the content of picked files into the store.
    pub(crate) fn keep(&self, picked: &Picked) -> Result<(), BuildError> {
        let has = |blob: &Descriptor| self.store.contains(blob);
        let put = |content: &mut dyn std::io::Read, blob: &Descriptor| self.store.put_expected(content, blob).map(drop);
        self.snapshot.keep(picked, &has, &put).map_err(|error| match error {
            // The bytes are not those that were hashed a moment ago.
            KeepError::Keep {
                path,
                source: StoreError::Verify(VerifyError::Size { .. } | VerifyError::Digest { .. }),
            } => SnapshotError::Changed { path }.into(),
            KeepError::Keep { path, source } => {
                BuildError::Keep { path: String::from_utf8_lossy(&path).into_owned(), source }
            }
            KeepError::Snapshot(error) => error.into(),
            KeepError::Revision(error) => error.into(),
        })
    }
}

/// Lines of parts, each with its length, which keeps one part from looking like two.
#[derive(Default)]
struct Lines(String);

impl Lines {
    fn add(&mut self, parts: &[&str]) {
        use std::fmt::Write as _;
        for part in parts {
            // Writing to a string cannot fail.
            let _ = write!(self.0, "{}:{part} ", part.len());
        }
        self.0.push('\n');
    }
}

fn no_input(need: &Label, output: &Output) -> BuildError {
    BuildError::Role { label: need.to_string(), kind: output.kind(), role: "an input of a step" }
}

/// Files of the workspace that an output takes the place of.
fn replaced_by(output: &Output) -> Vec<RelPath> {
    match output {
        Output::Files(files) => files.paths.clone(),
        // They bring both: the workspace's own configuration is part of the one that is made.
        Output::Crates(crates) => vec![crates.config.0.clone(), crates.lockfile.0.clone()],
        _ => Vec::new(),
    }
}

/// For each package with others in its folder, those.
fn nested(workspace: &Workspace) -> HashMap<Option<RelPath>, Vec<RelPath>> {
    let mut nested: HashMap<Option<RelPath>, Vec<RelPath>> = HashMap::new();
    for package in workspace.packages.keys().flatten() {
        let mut above = package.parent();
        loop {
            if workspace.packages.contains_key(&above) {
                nested.entry(above.clone()).or_default().push(package.clone());
            }
            let Some(folder) = above else { break };
            above = folder.parent();
        }
    }
    nested
}

/// A path of a package as one of the workspace.
pub(crate) fn in_package(package: Option<&RelPath>, path: &RelPath) -> RelPath {
    package.map_or_else(|| path.clone(), |package| package.join_path(path))
}

fn put(tree: &mut Directory, path: &RelPath, node: Node) -> Result<(), BuildError> {
    tree.insert(path, node, &Metadata::root_owned(0o755)).map_err(|source| BuildError::Place { source })
}

fn graft(tree: &mut Directory, other: &Directory, label: &Label) -> Result<(), BuildError> {
    tree.merge(other, &mut |_, _, _| MergeRule::Refuse)
        .map_err(|conflict| BuildError::InputConflict { label: label.to_string(), path: conflict.path })
}
