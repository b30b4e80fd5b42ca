//! Putting one tree over another: union with a rule for conflicts, and layers with whiteouts.

use std::sync::Arc;

use crate::{Directory, Metadata, Name, Node, RelPath};

/// Which of two nodes at one path stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MergeRule {
    /// Nodes that differ are a conflict.
    Refuse,
    /// What the tree held stays.
    KeepOld,
    /// What is merged into the tree replaces it.
    KeepNew,
}

/// Two trees hold different nodes at one path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("both trees hold `{path}`, and differ there")]
pub struct Conflict {
    /// Where.
    pub path: RelPath,
    /// What the tree held.
    pub old: Node,
    /// What was to be merged.
    pub new: Node,
}

impl Directory {
    /// Adds everything that `other` holds.
    ///
    /// `rule` is asked where both hold different nodes; two directories are merged, and it is asked for their metadata
    /// alone. The metadata of the root stays the tree's own. Whiteouts are nodes like others here.
    ///
    /// # Errors
    ///
    /// [`Conflict`] when the rule says [`MergeRule::Refuse`]; the tree is then merged in part.
    pub fn merge(
        &mut self,
        other: &Self,
        rule: &mut dyn FnMut(&RelPath, &Node, &Node) -> MergeRule,
    ) -> Result<(), Box<Conflict>> {
        let has_links = other.links().next().is_some();
        merge_into(self, other, has_links, rule)?;
        if !has_links {
            return Ok(());
        }
        for (path, target) in other.links() {
            let Some(file) = other.get(&target).cloned() else { continue };
            // Where another file won at the target, this name keeps its own content.
            let same = self.get_file(&target) == other.file_of(&file);
            let node = if same { Node::Link { target } } else { file };
            if let Some(old) = self.get(&path)
                && self.file_of(old) != other.file_of(&node)
            {
                match rule(&path, old, &node) {
                    MergeRule::KeepOld => continue,
                    MergeRule::KeepNew => {}
                    MergeRule::Refuse => return Err(Box::new(Conflict { path, old: old.clone(), new: node })),
                }
            }
            self.insert(&path, node, &Metadata::root_owned(0o755))
                .expect("parents were merged and the target was found");
        }
        Ok(())
    }

    /// Applies a layer: its whiteouts remove, its opaque directories hide, everything else is put over the tree.
    ///
    /// # Panics
    ///
    /// Never: the rule used cannot refuse.
    pub fn apply_layer(&mut self, layer: &Self) {
        let mut whiteouts = Vec::new();
        let mut opaques = Vec::new();
        for (path, node) in layer.walk() {
            match node {
                Node::Whiteout => whiteouts.push(path),
                Node::Directory(directory) if directory.opaque => opaques.push(path),
                _ => {}
            }
        }
        let mut layer = layer.clone();
        for path in whiteouts {
            self.remove(&path);
            layer.remove(&path);
        }
        for path in opaques {
            self.remove(&path);
            if let Some(Node::Directory(directory)) = layer.get(&path).cloned() {
                layer.insert_raw(&path, Node::Directory(Arc::new(Self { opaque: false, ..Self::clone(&directory) })));
            }
        }
        if layer.opaque {
            self.entries.clear();
        }
        self.metadata = layer.metadata.clone();
        self.merge(&layer, &mut |_, _, _| MergeRule::KeepNew).expect("nothing is refused");
    }
}

fn merge_into(
    top: &mut Directory,
    other: &Directory,
    has_links: bool,
    rule: &mut dyn FnMut(&RelPath, &Node, &Node) -> MergeRule,
) -> Result<(), Box<Conflict>> {
    let mut pending: Vec<(Option<RelPath>, &Directory)> = vec![(None, other)];
    while let Some((parent, directory)) = pending.pop() {
        for (name, new) in &directory.entries {
            if matches!(new, Node::Link { .. }) {
                continue;
            }
            let path = join(parent.as_ref(), name);
            let Some(old) = top.get(&path) else {
                match new {
                    // Links are put in at the end, so a directory is entered rather than taken whole when there are any.
                    Node::Directory(child) if has_links => {
                        top.insert_raw(&path, Node::Directory(Arc::new(shallow(child))));
                        pending.push((Some(path), child));
                    }
                    _ => top.insert_raw(&path, new.clone()),
                }
                continue;
            };
            match (old, new) {
                (Node::Directory(left), Node::Directory(right)) => {
                    if left.metadata != right.metadata || left.opaque != right.opaque {
                        match rule(&path, old, new) {
                            MergeRule::KeepOld => {}
                            MergeRule::KeepNew => {
                                let mut merged = Directory::clone(left);
                                merged.metadata = right.metadata.clone();
                                merged.opaque = right.opaque;
                                top.insert_raw(&path, Node::Directory(Arc::new(merged)));
                            }
                            MergeRule::Refuse => return Err(refuse(path, old, new)),
                        }
                    }
                    pending.push((Some(path), right));
                }
                _ if old == new => {}
                (Node::Link { .. }, Node::File { .. }) if top.file_of(old) == other.file_of(new) => {}
                _ => match rule(&path, old, new) {
                    MergeRule::KeepOld => {}
                    MergeRule::KeepNew => {
                        top.promote_links_out_of(&path);
                        match new {
                            Node::Directory(child) if has_links => {
                                top.insert_raw(&path, Node::Directory(Arc::new(shallow(child))));
                                pending.push((Some(path), child));
                            }
                            _ => top.insert_raw(&path, new.clone()),
                        }
                    }
                    MergeRule::Refuse => return Err(refuse(path, old, new)),
                },
            }
        }
    }
    Ok(())
}

/// The directory without its entries.
fn shallow(directory: &Directory) -> Directory {
    Directory { metadata: directory.metadata.clone(), opaque: directory.opaque, entries: Default::default() }
}

fn join(parent: Option<&RelPath>, name: &Name) -> RelPath {
    match parent {
        Some(parent) => parent.join(name),
        None => RelPath::from(name.clone()),
    }
}

fn refuse(path: RelPath, old: &Node, new: &Node) -> Box<Conflict> {
    Box::new(Conflict { path, old: old.clone(), new: new.clone() })
}

#[cfg(test)]
mod tests {
    use cas_blob::Descriptor;
    use cas_digest::DigestFunction;

    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::new(text).expect("a path")
    }

    fn tree(files: &[(&str, &str)]) -> Directory {
        let mut tree = Directory::root();
        for (at, content) in files {
            let node = match content.strip_prefix("=>") {
                Some(target) => Node::Link { target: path(target) },
                None if *content == "whiteout" => Node::Whiteout,
                None => Node::file(Descriptor::of(DigestFunction::Blake3, content.as_bytes()), 0o644),
            };
            tree.insert(&path(at), node, &Metadata::root_owned(0o755)).expect("nothing is in the way");
        }
        tree
    }

    #[test]
    fn trees_unite_and_equal_nodes_are_no_conflict() {
        let mut left = tree(&[("a/x", "1"), ("b", "2")]);
        left.merge(&tree(&[("a/y", "3"), ("b", "2")]), &mut |_, _, _| MergeRule::Refuse).expect("nothing differs");
        assert_eq!(left, tree(&[("a/x", "1"), ("a/y", "3"), ("b", "2")]));
    }

    #[test]
    fn conflicts_are_named_and_ruled() {
        let right = tree(&[("a/x", "2")]);
        for (rule, expected) in
            [(MergeRule::KeepOld, Some("1")), (MergeRule::KeepNew, Some("2")), (MergeRule::Refuse, None)]
        {
            let mut left = tree(&[("a/x", "1")]);
            let result = left.merge(&right, &mut |_, _, _| rule);
            match expected {
                Some(content) => assert_eq!(left, tree(&[("a/x", content)])),
                None => assert_eq!(result.expect_err("they differ").path, path("a/x")),
            }
        }
    }

    #[test]
    fn links_of_a_merged_tree_keep_their_content_when_their_file_loses() {
        let mut left = tree(&[("f", "mine")]);
        left.merge(&tree(&[("f", "theirs"), ("g", "=>f"), ("h", "=>f")]), &mut |_, _, _| MergeRule::KeepOld)
            .expect("the rule decides");
        let content = |at: &str| left.get_file(&path(at)).expect("a file").1;
        assert_eq!(content("f"), Descriptor::of(DigestFunction::Blake3, b"mine"));
        assert_eq!(content("g"), Descriptor::of(DigestFunction::Blake3, b"theirs"));
        assert_eq!(content("h"), content("g"));
    }

    #[test]
    fn merged_links_stay_links() {
        let mut left = tree(&[("d/a", "1")]);
        left.merge(&tree(&[("d/b", "2"), ("d/c", "=>d/b")]), &mut |_, _, _| MergeRule::Refuse)
            .expect("nothing differs");
        assert_eq!(left, tree(&[("d/a", "1"), ("d/b", "2"), ("d/c", "=>d/b")]));
    }

    #[test]
    fn layers_remove_and_hide() {
        let mut base = tree(&[("a/x", "1"), ("a/y", "2"), ("b", "3"), ("c/old", "4")]);
        let mut layer = tree(&[("a/x", "whiteout"), ("b", "5"), ("c/new", "6")]);
        let mut opaque = Directory::clone(layer.get_directory(&path("c")).expect("it is there"));
        opaque.opaque = true;
        layer.insert_raw(&path("c"), Node::Directory(Arc::new(opaque)));
        base.apply_layer(&layer);
        assert_eq!(base, tree(&[("a/y", "2"), ("b", "5"), ("c/new", "6")]));
    }
}
