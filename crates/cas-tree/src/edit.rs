//! Changing a tree: insert, remove, cut out, put in. Hard links stay whole through all of them.

use std::sync::Arc;

use crate::{Directory, Metadata, Node, RelPath};

/// Why a tree could not be changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// Something that is not a directory stands on the way.
    #[error("`{path}` is not a directory")]
    NotADirectory {
        /// The path that would have to be one.
        path: RelPath,
    },
    /// A hard link names no regular file of the tree.
    #[error("hard link `{path}` names `{target}`, which is not a regular file here")]
    DanglingLink {
        /// The link.
        path: RelPath,
        /// What it names.
        target: RelPath,
    },
}

impl Directory {
    /// Puts `node` at `path`, in the place of what was there, and makes missing directories with the metadata `parents`.
    ///
    /// A hard link may name any regular file or hard link of the tree: which of the names is the file is put in order.
    ///
    /// # Errors
    ///
    /// [`EditError`]; the tree is then as it was, but for parents that were made.
    pub fn insert(&mut self, path: &RelPath, node: Node, parents: &Metadata) -> Result<(), EditError> {
        if let Node::Link { target } = node {
            return self.insert_link(path, &target, parents);
        }
        self.make_parents(path, parents)?;
        if self.get(path).is_some() {
            self.promote_links_out_of(path);
        }
        self.insert_raw(path, node);
        Ok(())
    }

    /// Removes what is at `path`, and all below it. Hard links to files in there keep their content.
    pub fn remove(&mut self, path: &RelPath) -> Option<Node> {
        self.get(path)?;
        self.promote_links_out_of(path);
        self.remove_raw(path)
    }

    /// The directory at `path` as a tree of its own.
    ///
    /// A hard link in it to a file outside becomes a file.
    #[must_use]
    pub fn subtree(&self, path: &RelPath) -> Option<Self> {
        let directory = self.get_directory(path)?;
        let mut tree = Self::clone(directory);
        let links: Vec<(RelPath, RelPath)> = tree
            .walk()
            .filter_map(|(at, node)| match node {
                Node::Link { target } => Some((at, target.clone())),
                _ => None,
            })
            .collect();
        // The first name inside of a file that is outside takes the content, later ones name the first.
        let mut first: std::collections::BTreeMap<RelPath, RelPath> = std::collections::BTreeMap::new();
        for (at, target) in links {
            let node = match target.strip_prefix(path) {
                Some(target) => Node::Link { target },
                None => match first.get(&target) {
                    Some(first) => Node::Link { target: first.clone() },
                    None => {
                        let Some((metadata, blob)) = self.get_file(&target) else { continue };
                        first.insert(target, at.clone());
                        Node::File { metadata: metadata.clone(), blob }
                    }
                },
            };
            tree.insert_raw(&at, node);
        }
        Some(tree)
    }

    /// The directories and symbolic links of the tree: what paths lead through.
    #[must_use]
    pub fn without_files(&self) -> Self {
        let entries = self.entries.iter().filter_map(|(name, node)| match node {
            Node::Directory(directory) => Some((name.clone(), Node::Directory(Arc::new(directory.without_files())))),
            Node::Symlink { .. } => Some((name.clone(), node.clone())),
            _ => None,
        });
        Self { metadata: self.metadata.clone(), opaque: self.opaque, entries: entries.collect() }
    }

    /// Puts the whole of `tree` at `path`, in the place of what was there.
    ///
    /// # Errors
    ///
    /// [`EditError::NotADirectory`]
    pub fn graft(&mut self, path: &RelPath, tree: Self, parents: &Metadata) -> Result<(), EditError> {
        let mut tree = tree;
        let links: Vec<(RelPath, RelPath)> = tree.links().collect();
        for (at, target) in links {
            tree.insert_raw(&at, Node::Link { target: path.join_path(&target) });
        }
        self.insert(path, Node::Directory(Arc::new(tree)), parents)
    }

    /// Gives the directory at `path` other rights and owners; anything else stays as it is.
    pub fn set_directory_metadata(&mut self, path: &RelPath, metadata: Metadata) {
        if let Some(Node::Directory(directory)) = self.node_mut(path) {
            Arc::make_mut(directory).metadata = metadata;
        }
    }

    /// Gives the node at `top` and all below it, or all below the root, the rights and owners that `change` tells.
    ///
    /// It is asked for every node that has its own; a hard link has its file's, also when that is elsewhere in the tree.
    pub fn change_metadata(&mut self, top: Option<&RelPath>, change: &mut dyn FnMut(&Node) -> Metadata) {
        match top {
            None => self.entries.values_mut().for_each(|node| change_node(node, change)),
            Some(path) => {
                if let Some(node) = self.node_mut(path) {
                    change_node(node, change);
                }
            }
        }
    }

    /// Makes every directory above `path` that is missing.
    pub(crate) fn make_parents(&mut self, path: &RelPath, parents: &Metadata) -> Result<(), EditError> {
        let mut directory = self;
        let mut components: Vec<&[u8]> = path.components().collect();
        components.pop();
        for (depth, component) in components.iter().enumerate() {
            let name = crate::Name::new(component).expect("components of a path are names");
            let node =
                directory.entries.entry(name).or_insert_with(|| Node::Directory(Arc::new(Self::new(parents.clone()))));
            let Node::Directory(child) = node else {
                let path = RelPath::new(components[..=depth].join(&b'/')).expect("a prefix of a path is a path");
                return Err(EditError::NotADirectory { path });
            };
            directory = Arc::make_mut(child);
        }
        Ok(())
    }

    /// The directory that holds `path`, for writing; `None` when it is missing.
    fn parent_mut(&mut self, path: &RelPath) -> Option<&mut Self> {
        let mut directory = self;
        let mut components: Vec<&[u8]> = path.components().collect();
        components.pop();
        for component in components {
            let Node::Directory(child) = directory.entries.get_mut(component)? else { return None };
            directory = Arc::make_mut(child);
        }
        Some(directory)
    }

    /// What is at `path`, for writing.
    pub(crate) fn node_mut(&mut self, path: &RelPath) -> Option<&mut Node> {
        self.parent_mut(path)?.entries.get_mut(path.name().as_bytes())
    }

    /// Replaces a node whose parents are there, without a look at hard links.
    pub(crate) fn insert_raw(&mut self, path: &RelPath, node: Node) {
        if let Some(parent) = self.parent_mut(path) {
            parent.entries.insert(path.name(), node);
        }
    }

    pub(crate) fn remove_raw(&mut self, path: &RelPath) -> Option<Node> {
        self.parent_mut(path)?.entries.remove(path.name().as_bytes())
    }
}

fn change_node(node: &mut Node, change: &mut dyn FnMut(&Node) -> Metadata) {
    if node.metadata().is_some() {
        let metadata = change(node);
        *node = std::mem::replace(node, Node::Whiteout).with_metadata(metadata);
    }
    if let Node::Directory(directory) = node {
        Arc::make_mut(directory).entries.values_mut().for_each(|node| change_node(node, change));
    }
}

#[cfg(test)]
mod tests {
    use cas_blob::Descriptor;
    use cas_digest::DigestFunction;

    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::new(text).expect("a path")
    }

    fn file(content: &str) -> Node {
        Node::file(Descriptor::of(DigestFunction::Blake3, content.as_bytes()), 0o644)
    }

    fn put(tree: &mut Directory, at: &str, node: Node) {
        tree.insert(&path(at), node, &Metadata::root_owned(0o755)).expect("nothing is in the way");
    }

    fn listing(tree: &Directory) -> Vec<String> {
        tree.walk()
            .map(|(path, node)| match node {
                Node::Directory(_) => format!("{path}/"),
                Node::Link { target } => format!("{path} => {target}"),
                _ => path.to_string(),
            })
            .collect()
    }

    #[test]
    fn parents_are_made_and_files_are_not_entered() {
        let mut tree = Directory::root();
        put(&mut tree, "a/b/c", file("c"));
        assert_eq!(listing(&tree), ["a/", "a/b/", "a/b/c"]);
        assert_eq!(
            tree.insert(&path("a/b/c/d"), file("d"), &Metadata::default()),
            Err(EditError::NotADirectory { path: path("a/b/c") })
        );
    }

    #[test]
    fn rights_change_from_a_place_on_and_not_beside_or_above_it() {
        let modes = |top: Option<&str>| {
            let mut tree = Directory::root();
            put(&mut tree, "a/b/c", file("c"));
            put(&mut tree, "a/b/link", Node::Link { target: path("a/b/c") });
            put(&mut tree, "a/other", file("o"));
            tree.change_metadata(top.map(path).as_ref(), &mut |node| {
                let old = node.metadata().expect("it has its own");
                Metadata { uid: old.uid + 7, ..old.clone() }
            });
            assert_eq!(tree.metadata.uid, 0, "the root is nobody's part");
            let owner = |node: &Node| node.metadata().map(|metadata| metadata.uid);
            tree.walk().map(|(path, node)| format!("{path} {:?}", owner(node).unwrap_or(1))).collect::<Vec<_>>()
        };
        assert_eq!(modes(Some("a/b")), ["a 0", "a/b 7", "a/b/c 7", "a/b/link 1", "a/other 0"]);
        assert_eq!(modes(Some("a/b/c")), ["a 0", "a/b 0", "a/b/c 7", "a/b/link 1", "a/other 0"]);
        assert_eq!(modes(None), ["a 7", "a/b 7", "a/b/c 7", "a/b/link 1", "a/other 7"]);
        assert_eq!(modes(Some("x")), ["a 0", "a/b 0", "a/b/c 0", "a/b/link 1", "a/other 0"]);
    }

    #[test]
    fn the_first_name_is_the_file_whatever_the_order_of_inserts() {
        let mut tree = Directory::root();
        put(&mut tree, "m", file("x"));
        put(&mut tree, "z", Node::Link { target: path("m") });
        put(&mut tree, "a", Node::Link { target: path("z") });
        assert_eq!(listing(&tree), ["a", "m => a", "z => a"]);
    }

    #[test]
    fn removing_the_file_leaves_its_further_names_whole() {
        let mut tree = Directory::root();
        put(&mut tree, "d/a", file("x"));
        put(&mut tree, "m", Node::Link { target: path("d/a") });
        put(&mut tree, "z", Node::Link { target: path("d/a") });
        tree.remove(&path("d"));
        assert_eq!(listing(&tree), ["m", "z => m"]);
        put(&mut tree, "m", file("other"));
        assert_eq!(listing(&tree), ["m", "z"]);
        let Node::File { blob, .. } = file("x") else { unreachable!() };
        assert_eq!(tree.get_file(&path("z")).expect("still there").1, blob);
    }

    #[test]
    fn cutting_out_and_putting_in_keeps_links_inside() {
        let mut tree = Directory::root();
        put(&mut tree, "a", file("x"));
        put(&mut tree, "d/one", file("y"));
        put(&mut tree, "d/two", Node::Link { target: path("d/one") });
        put(&mut tree, "d/out", Node::Link { target: path("a") });
        put(&mut tree, "d/out2", Node::Link { target: path("a") });
        let cut = tree.subtree(&path("d")).expect("it is a directory");
        assert_eq!(listing(&cut), ["one", "out", "out2 => out", "two => one"]);
        let mut other = Directory::root();
        other.graft(&path("p/q"), cut, &Metadata::root_owned(0o755)).expect("nothing is in the way");
        assert_eq!(listing(&other), ["p/", "p/q/", "p/q/one", "p/q/out", "p/q/out2 => p/q/out", "p/q/two => p/q/one"]);
    }

    #[test]
    fn paths_lead_through_what_is_no_file() {
        let mut tree = Directory::root();
        for at in ["d/a", "d/e/f", "z"] {
            put(&mut tree, at, file(at));
        }
        put(&mut tree, "d/hard", Node::Link { target: path("d/a") });
        put(&mut tree, "l", Node::symlink("d"));
        let private = Metadata::root_owned(0o700);
        tree.set_directory_metadata(&path("d/e"), private.clone());
        let left = tree.without_files();
        assert_eq!(listing(&left), ["d/", "d/e/", "l"]);
        assert_eq!(left.get_directory(&path("d/e")).map(|folder| &folder.metadata), Some(&private));
    }

    #[test]
    fn dangling_links_are_refused() {
        let mut tree = Directory::root();
        let error = tree.insert(&path("a"), Node::Link { target: path("b") }, &Metadata::default());
        assert_eq!(error, Err(EditError::DanglingLink { path: path("a"), target: path("b") }));
    }
}
