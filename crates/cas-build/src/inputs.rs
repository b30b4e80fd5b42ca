//! What a step finds in `/src`: files of its package, outputs of what it depends on. Rules: docs/formats/step.md.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use cas_blob::{Descriptor, VerifyError};
use cas_config::{Command, Label};
use cas_digest::{Digest, DigestFunction};
use cas_snapshot::{KeepError, Picked, Selection, Snapshot, SnapshotError};
use cas_store::{Store, StoreError};
use cas_tree::{Directory, MergeRule, Metadata, Node, RelPath};

use crate::{BuildError, Output, Workspace};

/// The manifest that comes with a dependency's outputs.
const PACKAGE_JSON: &str = "package.json";

/// What a step will find in `/src`, before any of it is read into a tree.
pub(crate) struct Plan {
    /// The files of the workspace, less what outputs replace.
    picked: Picked,
    /// The manifests that come with dependencies' outputs.
    manifests: Vec<(Label, Picked)>,
    /// Names everything that the inputs are made of: equal plans give equal inputs.
    pub(crate) name: Digest,
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
        let name = tree.encode(function).map_err(StoreError::from)?.root;
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
}

impl Sources<'_> {
    /// What the inputs of a step are made of. `needs` are the outputs of what it depends on.
    pub(crate) fn plan(&self, label: &Label, command: &Command, needs: &[(Label, Output)]) -> Result<Plan, BuildError> {
        let package = label.package.as_ref();
        // What the step makes is not what it reads: a stale copy in the workspace must not matter.
        let own = command.outputs.iter().map(|output| &output.value).chain(&command.scratch);
        let mut replaced: Vec<RelPath> = own.map(|path| in_package(package, path)).collect();
        let mut manifests = Vec::new();
        let mut text = String::new();
        let line = |text: &mut String, parts: &[&str]| {
            for part in parts {
                // Lengths keep one part from looking like two.
                text.push_str(&format!("{}:{part} ", part.len()));
            }
            text.push('\n');
        };
        for (need, output) in needs {
            let what = match output {
                Output::Files(files) => {
                    replaced.extend(files.paths.iter().cloned());
                    if need.package != label.package {
                        manifests.push((need.clone(), self.manifest(need.package.as_ref())?));
                    }
                    files.name.to_string()
                }
                Output::Download(download) => format!("{} {}", download.blob, download.file_name),
                Output::Package(package) => package.name.to_string(),
                Output::Packages(packages) => crate::modules::subset(packages, self.workspace, label)?.name.to_string(),
                Output::Crates(crates) => {
                    // They bring both: the workspace's own configuration is part of the one that is made.
                    replaced.extend([crates.config.0.clone(), crates.lockfile.0.clone()]);
                    crates.name.to_string()
                }
                Output::Tarball(tarball) => format!("{} {}", tarball.recipe.blob, tarball.file_name),
                Output::Toolchain(_) | Output::Image(_) => {
                    let role = "an input of a step";
                    return Err(BuildError::Role { label: need.to_string(), kind: output.kind(), role });
                }
            };
            line(&mut text, &[&need.to_string(), output.kind(), &what]);
        }
        let picked = self.snapshot.without(&self.package_files(package, command.inputs.as_ref())?, &replaced);
        let fingerprint = |picked: &Picked| self.snapshot.fingerprint(picked).map(|digest| digest.to_string());
        line(&mut text, &["files", &fingerprint(&picked)?]);
        // `node_modules` is made for the manifest of the package, whatever its inputs are.
        line(&mut text, &["own manifest", &fingerprint(&self.manifest(package)?)?]);
        for (need, manifest) in &manifests {
            line(&mut text, &["manifest", &need.to_string(), &fingerprint(manifest)?]);
        }
        let name = Digest::of(self.workspace.section.digest_function, text.as_bytes());
        Ok(Plan { picked, manifests, name })
    }

    fn manifest(&self, package: Option<&RelPath>) -> Result<Picked, SnapshotError> {
        let manifest = RelPath::new(PACKAGE_JSON).expect("it is a name");
        self.snapshot.pick(&[in_package(package, &manifest)])
    }

    /// The inputs that were planned for a step.
    pub(crate) fn of_step(
        &self,
        label: &Label,
        command: &Command,
        needs: &[(Label, Output)],
        plan: &Plan,
    ) -> Result<Inputs, BuildError> {
        let package = label.package.as_ref();
        let mut picked = plan.picked.clone();
        let mut own = self.snapshot.tree(&picked)?;
        let mut shared: Vec<(Descriptor, Arc<Directory>)> = Vec::new();
        let mut given = Directory::root();
        for (need, output) in needs {
            let tree = match output {
                Output::Files(files) => {
                    let mut tree = files.tree.clone();
                    if let Some((_, manifest)) = plan.manifests.iter().find(|(other, _)| other == need) {
                        graft(&mut tree, &self.snapshot.tree(manifest)?, label)?;
                        picked = self.snapshot.union(&picked, manifest);
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
                Output::Toolchain(_) | Output::Image(_) => {
                    let role = "an input of a step";
                    return Err(BuildError::Role { label: need.to_string(), kind: output.kind(), role });
                }
            };
            graft(&mut given, &tree, label)?;
        }
        graft(&mut own, &given, label)?;
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
        let other_packages = self.workspace.packages.keys().flatten();
        let selection = Selection {
            package: package.cloned(),
            // A folder above is another package, too, but its files are not below this one.
            other_packages: other_packages
                .filter(|other| package.is_none_or(|package| other.strip_prefix(package).is_some()))
                .cloned()
                .collect(),
            inputs: inputs.cloned(),
            workspace_inputs: self.workspace.section.inputs.clone(),
        };
        Ok(self.snapshot.select(&selection)?)
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
        })
    }
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
