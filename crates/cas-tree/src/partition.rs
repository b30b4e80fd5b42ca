//! Taking a tree apart into several that together are the whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::{Directory, Node, RelPath};

impl Directory {
    /// Takes the tree apart. `part_of` is asked for everything that is no directory, for empty directories, and for the file
    /// of a hard link in the place of the link, so that all names of a file are in one part.
    ///
    /// Each part has all directories on the way to what it holds, with their own metadata. Over each other the parts are the
    /// tree again, in any order. An empty tree has no parts.
    pub fn partition<K: Ord + Clone>(&self, part_of: &mut dyn FnMut(&RelPath) -> K) -> BTreeMap<K, Self> {
        self.taken_apart(None, part_of)
    }

    fn taken_apart<K: Ord + Clone>(
        &self,
        at: Option<&RelPath>,
        part_of: &mut dyn FnMut(&RelPath) -> K,
    ) -> BTreeMap<K, Self> {
        let mut parts: BTreeMap<K, Self> = BTreeMap::new();
        let mut put = |part: K, name: &crate::Name, node: Node| {
            let empty = || Self { metadata: self.metadata.clone(), opaque: self.opaque, entries: BTreeMap::new() };
            parts.entry(part).or_insert_with(empty).entries.insert(name.clone(), node);
        };
        for (name, node) in &self.entries {
            let path = at.map_or_else(|| RelPath::from(name.clone()), |at| at.join(name));
            match node {
                Node::Directory(directory) if !directory.is_empty() => {
                    let below = directory.taken_apart(Some(&path), part_of);
                    let is_whole = below.len() == 1;
                    for (part, tree) in below {
                        let tree = if is_whole { Arc::clone(directory) } else { Arc::new(tree) };
                        put(part, name, Node::Directory(tree));
                    }
                }
                Node::Link { target } => put(part_of(target), name, node.clone()),
                _ => put(part_of(&path), name, node.clone()),
            }
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use cas_blob::Descriptor;
    use cas_digest::{Digest, DigestFunction};

    use super::*;
    use crate::Metadata;

    fn tree() -> Directory {
        let mut tree = Directory::new(Metadata::root_owned(0o700));
        let parents = Metadata::root_owned(0o711);
        let file = |text: &str| {
            let digest = Digest::of(DigestFunction::Blake3, text.as_bytes());
            Node::file(Descriptor { digest, size: text.len() as u64 }, 0o644)
        };
        let mut put = |path: &str, node: Node| {
            tree.insert(&RelPath::new(path).expect("a path"), node, &parents).expect("nothing is in the way");
        };
        put("a/x", file("1"));
        put("a/y", file("2"));
        put("b/empty", Node::Directory(Arc::new(Directory::new(Metadata::root_owned(0o1777)))));
        put("b/link", Node::Link { target: RelPath::new("a/y").expect("a path") });
        put("z", Node::symlink("a/x"));
        tree
    }

    #[test]
    fn parts_over_each_other_are_the_tree() {
        let tree = tree();
        // Each name alone, all in one, by the first letter, and by the last.
        let ways: [&dyn Fn(&RelPath) -> u8; 4] = [
            &|path| path.as_bytes().iter().fold(0, |sum: u8, byte| sum.wrapping_mul(31).wrapping_add(*byte)),
            &|_| 0,
            &|path| path.as_bytes()[0],
            &|path| path.as_bytes()[path.as_bytes().len() - 1],
        ];
        for (number, way) in ways.iter().enumerate() {
            let parts = tree.partition(&mut |path| way(path));
            let names: usize = parts.values().map(|part| part.walk().filter(|(_, node)| is_leaf(node)).count()).sum();
            assert_eq!(names, 5, "way {number}");
            for order in [parts.values().collect::<Vec<_>>(), parts.values().rev().collect()] {
                let mut again = Directory::new(tree.metadata.clone());
                order.into_iter().for_each(|part| again.apply_layer(part));
                assert_eq!(again, tree, "way {number}");
            }
        }
        assert!(Directory::root().partition(&mut |_| 0).is_empty());
    }

    fn is_leaf(node: &Node) -> bool {
        node.as_directory().is_none_or(|directory| directory.is_empty())
    }

    #[test]
    fn all_names_of_a_file_are_in_one_part() {
        let parts = tree().partition(&mut |path| path.to_string());
        let names: Vec<String> = parts["a/y"].walk().map(|(path, _)| path.to_string()).collect();
        assert_eq!(names, ["a", "a/y", "b", "b/link"]);
        assert_eq!(
            parts["b/empty"].get_directory(&RelPath::new("b").expect("a path")).map(|b| b.metadata.mode),
            Some(0o711)
        );
    }
}
