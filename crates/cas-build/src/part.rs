//! Parts of outputs, where somebody wants them: in a layer of an image, in a root.

use cas_config::{ImageLayer, Label};
use cas_npm::Part;
use cas_store::Store;
use cas_tree::{Directory, Metadata, Node, RelPath};

use crate::{BuildError, Output, Workspace, modules};

/// What is needed to find them.
pub(crate) struct Context<'a> {
    pub(crate) store: &'a Store,
    pub(crate) workspace: &'a Workspace,
    /// Who wants them.
    pub(crate) label: &'a Label,
    /// What they become: "a layer of an image".
    pub(crate) role: &'static str,
}

impl Context<'_> {
    /// The part of an output that `wanted` names, where it wants it.
    pub(crate) fn part(&self, from: &str, output: &Output, wanted: &ImageLayer) -> Result<Directory, BuildError> {
        self.placed_part(from, output, wanted).map(|(tree, _)| tree)
    }

    /// The same, and the uppermost place that is of the output and no folder on the way to it; `None` for the root.
    pub(crate) fn placed_part(
        &self,
        from: &str,
        output: &Output,
        wanted: &ImageLayer,
    ) -> Result<(Directory, Option<RelPath>), BuildError> {
        let to = wanted.to.as_ref();
        let whole = |tree: &Directory| Ok((placed(tree, to)?, to.cloned()));
        match output {
            Output::Download(download) => {
                let mut tree = Directory::root();
                let node = Node::file(download.blob, 0o644);
                let place = place(to, &download.file_name);
                tree.insert(&place, node, &Metadata::root_owned(0o755)).expect("the tree is empty");
                Ok((tree, Some(place)))
            }
            Output::Files(files) => files_at(from, files.tree(self.store)?, wanted),
            Output::Package(package) => whole(&package.tree),
            Output::Tarball(tarball) => whole(&tarball.tree),
            Output::Packages(packages) => {
                let part = if wanted.production { Part::Production } else { Part::All };
                whole(&modules::portable(self.store, packages, self.workspace, self.label, part)?)
            }
            Output::Toolchain(_) | Output::Image(_) | Output::Artifact(_) | Output::Crates(_) => {
                Err(BuildError::Role { label: from.to_owned(), kind: output.kind(), role: self.role })
            }
        }
    }
}

/// A tree where a layer wants it; without a place, at the root.
fn placed(tree: &Directory, to: Option<&RelPath>) -> Result<Directory, BuildError> {
    let Some(to) = to else { return Ok(tree.clone()) };
    let mut whole = Directory::root();
    let parents = Metadata::root_owned(0o755);
    whole.graft(to, tree.clone(), &parents).map_err(|source| BuildError::Place { source })?;
    Ok(whole)
}

/// The part of files, with paths from the workspace's root, that a layer takes, where it wants it, and the uppermost place that is of the
/// part. `from` is the label of the target whose package they are of.
pub(crate) fn files_at(
    from: &str,
    outputs: &Directory,
    wanted_part: &ImageLayer,
) -> Result<(Directory, Option<RelPath>), BuildError> {
    let package = package_of(from);
    let wanted = match (&package, &wanted_part.path) {
        (None, path) => path.clone(),
        (Some(package), None) => Some(package.clone()),
        (Some(package), Some(path)) => Some(package.join_path(path)),
    };
    let mut tree = Directory::root();
    let place = |source| BuildError::Place { source };
    let parents = Metadata::root_owned(0o755);
    let Some(wanted) = wanted else {
        return Ok((placed(outputs, wanted_part.to.as_ref())?, wanted_part.to.clone()));
    };
    match outputs.get(&wanted) {
        Some(Node::Directory(_)) => {
            let part = outputs.subtree(&wanted).expect("it is a directory");
            Ok((placed(&part, wanted_part.to.as_ref())?, wanted_part.to.clone()))
        }
        Some(node) => {
            let name = RelPath::from(wanted.name());
            let to = wanted_part.to.as_ref().map_or_else(|| name.clone(), |to| to.join_path(&name));
            tree.insert(&to, node.clone(), &parents).map_err(place)?;
            Ok((tree, Some(to)))
        }
        None => {
            let path = wanted_part.path.as_ref().map_or_else(String::new, ToString::to_string);
            Err(BuildError::NoSuchOutput { label: from.to_owned(), path })
        }
    }
}

/// The package of a label, as it is told; `None` for the root.
pub(crate) fn package_of(label: &str) -> Option<RelPath> {
    let (package, _) = label.strip_prefix("//")?.split_once(':')?;
    RelPath::new(package).ok()
}

/// A file keeps its name below a folder; the root is a folder.
fn place(to: Option<&RelPath>, file_name: &str) -> RelPath {
    let name = RelPath::new(file_name).expect("a download's name is one");
    match to {
        None => name,
        Some(to) => to.join_path(&name),
    }
}
