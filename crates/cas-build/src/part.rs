//! Parts of outputs, where somebody wants them: in a layer of an image, in a root.

use cas_config::{ImageLayer, Label};
use cas_npm::Part;
use cas_snapshot::Globs;
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
        let whole = |tree: &Directory| Ok((placed(&without(tree, None, &wanted.exclude)?, to)?, to.cloned()));
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
    let outputs = &without(outputs, package.as_ref(), &wanted_part.exclude)?;
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

/// A tree without what globs match, which are of paths in the package; folders of which nothing is left go too.
pub(crate) fn without(
    tree: &Directory,
    package: Option<&RelPath>,
    exclude: &[String],
) -> Result<Directory, BuildError> {
    let mut left = tree.clone();
    if exclude.is_empty() {
        return Ok(left);
    }
    let globs = Globs::new(exclude)?;
    let mut last: Option<RelPath> = None;
    for (path, _) in tree.walk() {
        let below = match package {
            Some(package) => path.strip_prefix(package),
            None => Some(path.clone()),
        };
        let is_gone = last.as_ref().is_some_and(|last| path.strip_prefix(last).is_some());
        if is_gone || !below.is_some_and(|below| globs.matches(below.as_bytes())) {
            continue;
        }
        left.remove(&path);
        let mut above = path.parent();
        while let Some(folder) = above.filter(|folder| Some(folder) != package) {
            if left.get_directory(&folder).is_none_or(|folder| !folder.is_empty()) {
                break;
            }
            left.remove(&folder);
            above = folder.parent();
        }
        last = Some(path);
    }
    Ok(left)
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

#[cfg(test)]
mod tests {
    use cas_blob::Descriptor;
    use cas_digest::DigestFunction;

    use super::*;

    #[test]
    fn what_is_left_out_takes_its_folders_along() {
        let blob = Descriptor::empty(DigestFunction::Sha256);
        for (package, exclude, expected) in [
            (None, &[][..], "app dist.map app/a app/a/x app/a/x.map app/b app/b/y.map empty"),
            (None, &["**/*.map"], "app app/a app/a/x empty"),
            (None, &["app/a"], "app app/b app/b/y.map dist.map empty"),
            (None, &["app/a/*", "app/b/**"], "dist.map empty"),
            (None, &["empty"], "app app/a app/a/x app/a/x.map app/b app/b/y.map dist.map"),
            (Some("app"), &["a"], "app app/b app/b/y.map dist.map empty"),
            // The package itself stays, and what is no part of it.
            (Some("app"), &["**"], "app dist.map empty"),
            (Some("app"), &["*.map"], "app app/a app/a/x app/a/x.map app/b app/b/y.map dist.map empty"),
        ] {
            let mut tree = Directory::root();
            let parents = Metadata::root_owned(0o755);
            for name in ["app/a/x", "app/a/x.map", "app/b/y.map", "dist.map"] {
                let path = RelPath::new(name).expect("it is a path");
                tree.insert(&path, Node::file(blob, 0o644), &parents).expect("no name is below a file");
            }
            let empty = Node::Directory(Directory::root().into());
            tree.insert(&RelPath::new("empty").expect("it is a path"), empty, &parents).expect("nothing is there");
            let package = package.map(|package| RelPath::new(package).expect("it is a path"));
            let exclude: Vec<String> = exclude.iter().map(|text| (*text).to_owned()).collect();
            let left = without(&tree, package.as_ref(), &exclude).expect("they are patterns");
            let mut names: Vec<String> = left.walk().map(|(path, _)| path.to_string()).collect();
            let mut expected: Vec<&str> = expected.split(' ').collect();
            names.sort();
            expected.sort_unstable();
            assert_eq!(names, expected, "{package:?} {exclude:?}");
        }
        assert!(without(&Directory::root(), None, &["{a".to_owned()]).is_err());
    }
}
