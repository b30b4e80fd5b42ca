//! Hard links: of the names of a file the first in order is the file, the others are links to it.

use crate::{Directory, EditError, Metadata, Node, RelPath};

impl Directory {
    /// Every hard link with the file that it names, in the order of the walk.
    pub fn links(&self) -> impl Iterator<Item = (RelPath, RelPath)> + '_ {
        self.walk().filter_map(|(path, node)| match node {
            Node::Link { target } => Some((path, target.clone())),
            _ => None,
        })
    }

    /// Gives the regular file at `target` a further name, and puts in order which name is the file.
    pub(crate) fn insert_link(
        &mut self,
        path: &RelPath,
        target: &RelPath,
        parents: &Metadata,
    ) -> Result<(), EditError> {
        let dangling = || EditError::DanglingLink { path: path.clone(), target: target.clone() };
        let first = match self.get(target) {
            Some(Node::Link { target }) => target.clone(),
            Some(Node::File { .. }) => target.clone(),
            _ => return Err(dangling()),
        };
        let Some(file @ Node::File { .. }) = self.get(&first).cloned() else { return Err(dangling()) };
        if *path == first {
            return Ok(());
        }
        self.make_parents(path, parents)?;
        if self.get(path).is_some() {
            self.promote_links_out_of(path);
        }
        if *path > first {
            self.insert_raw(path, Node::Link { target: first });
            return Ok(());
        }
        let further: Vec<RelPath> = self.links().filter(|(_, target)| *target == first).map(|(path, _)| path).collect();
        self.insert_raw(path, file);
        for name in further.iter().chain([&first]) {
            self.insert_raw(name, Node::Link { target: path.clone() });
        }
        Ok(())
    }

    /// Makes the tree independent of what stands at `path`, before that is removed or replaced.
    ///
    /// Where links from elsewhere name a file there, the first of them becomes the file.
    pub(crate) fn promote_links_out_of(&mut self, path: &RelPath) {
        let inside = |candidate: &RelPath| candidate == path || candidate.strip_prefix(path).is_some();
        let orphans: Vec<(RelPath, RelPath)> =
            self.links().filter(|(at, target)| inside(target) && !inside(at)).collect();
        let mut promoted: std::collections::BTreeMap<RelPath, RelPath> = std::collections::BTreeMap::new();
        for (at, target) in orphans {
            if let Some(first) = promoted.get(&target) {
                self.insert_raw(&at, Node::Link { target: first.clone() });
            } else if let Some(file) = self.get(&target).cloned() {
                self.insert_raw(&at, file);
                promoted.insert(target, at);
            }
        }
    }
}
