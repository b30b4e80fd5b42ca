//! Layers put over a tree entry by entry, with what a program gets that unpacks them into a folder.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::{Directory, Metadata, Name, Node, RelPath};

/// Longest chain of symbolic links on the way to a folder: Linux's `MAXSYMLINKS`.
const MAX_LINKS: usize = 40;

/// Deepest path: what walks a tree goes down into it, and no image comes near.
pub const MAX_DEPTH: usize = 256;

/// Why an entry has no place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnpackError {
    /// Something that is neither a directory nor a symbolic link stands on the way.
    #[error("`{path}` is not a directory")]
    NotADirectory {
        /// The path that would have to be one.
        path: RelPath,
    },
    /// Symbolic links lead to each other.
    #[error("too many symbolic links on the way to `{path}`")]
    Loop {
        /// The entry.
        path: RelPath,
    },
    /// Symbolic links lead deeper than a path can say, or than [`MAX_DEPTH`].
    #[error("symbolic links on the way to `{path}` lead to a path that is too long")]
    TooLong {
        /// The entry.
        path: RelPath,
    },
    /// A hard link names nothing that can have further names.
    #[error("hard link `{path}` names `{target}`, which is no file there")]
    DanglingLink {
        /// The link.
        path: RelPath,
        /// What it names.
        target: RelPath,
    },
}

/// A tree that layers are unpacked into.
///
/// Rules: OCI image-spec 1.1, layer.md, and where it is silent what containerd, umoci and podman agree on. A symbolic link on
/// the way to an entry is followed within the tree; one at its place is replaced. A directory over a directory keeps what is in
/// there; anything else takes the whole place. Whiteouts remove what lower layers put there, never what their own layer did,
/// whichever comes first in the archive.
#[derive(Debug)]
pub struct Unpacking {
    tree: Directory,
    /// Names of files that have, or had, several: which file each is of. The tree holds a file at each of them.
    names: BTreeMap<RelPath, u64>,
    file_count: u64,
    /// Where the layer put something, and the directories on the way there.
    own: BTreeSet<RelPath>,
    /// Directories in which nothing of lower layers is left; `None` for the root.
    hidden: BTreeSet<Option<RelPath>>,
    /// Where the last entry's folder led; `None` inside for the root.
    last: Option<(RelPath, Option<RelPath>)>,
}

impl Unpacking {
    /// Goes on with a tree.
    #[must_use]
    pub fn new(mut tree: Directory) -> Self {
        let links: Vec<(RelPath, RelPath)> = tree.links().collect();
        let (mut names, mut file_count) = (BTreeMap::new(), 0);
        for (path, target) in links {
            let Some(file) = tree.get(&target).cloned() else { continue };
            let number = *names.entry(target).or_insert_with(|| {
                file_count += 1;
                file_count
            });
            names.insert(path.clone(), number);
            tree.insert_raw(&path, file);
        }
        Self { tree, names, file_count, own: BTreeSet::new(), hidden: BTreeSet::new(), last: None }
    }

    /// What follows is of another layer.
    pub fn next_layer(&mut self) {
        self.own.clear();
        self.hidden.clear();
    }

    /// What is at a path now, with symbolic links on the way followed as for an entry.
    ///
    /// # Errors
    ///
    /// [`UnpackError`] when the way leads nowhere.
    pub fn get(&self, path: &RelPath) -> Result<Option<&Node>, UnpackError> {
        let place = match path.parent() {
            None => path.clone(),
            Some(parent) => within(self.resolve(&parent, path)?.as_ref(), path),
        };
        Ok(self.tree.get(&place))
    }

    /// Rights and owners of the root.
    pub fn root(&mut self, metadata: Metadata) {
        self.tree.metadata = metadata;
    }

    /// Puts something at a path; of a directory its rights and owners alone.
    ///
    /// # Errors
    ///
    /// [`UnpackError`]; nothing but directories on the way was changed then.
    pub fn put(&mut self, path: &RelPath, node: Node) -> Result<(), UnpackError> {
        let path = self.place(path)?;
        match (node, self.tree.node_mut(&path)) {
            (Node::Directory(new), Some(Node::Directory(old))) => {
                Arc::make_mut(old).metadata = new.metadata.clone();
            }
            (node, old) => {
                let is_replaced = old.is_some();
                let node = match node {
                    Node::Directory(new) => Node::Directory(Arc::new(Directory::new(new.metadata.clone()))),
                    node => node,
                };
                if is_replaced {
                    self.forget(&path);
                }
                self.tree.insert_raw(&path, node);
            }
        }
        self.note(&path);
        Ok(())
    }

    /// Gives what is at `target` a further name. Devices, pipes and symbolic links have none in a tree: they are put twice.
    ///
    /// # Errors
    ///
    /// [`UnpackError`]
    pub fn link(&mut self, path: &RelPath, target: &RelPath) -> Result<(), UnpackError> {
        let dangling = || UnpackError::DanglingLink { path: path.clone(), target: target.clone() };
        let found = match target.parent() {
            None => target.clone(),
            Some(parent) => within(self.resolve(&parent, target)?.as_ref(), target),
        };
        let node = self.tree.get(&found).cloned().filter(|node| !matches!(node, Node::Directory(_)));
        let node = node.ok_or_else(dangling)?;
        let place = self.place(path)?;
        if place == found {
            self.note(&place);
            return Ok(());
        }
        let number = matches!(node, Node::File { .. }).then(|| {
            *self.names.entry(found.clone()).or_insert_with(|| {
                self.file_count += 1;
                self.file_count
            })
        });
        self.put(&place, node)?;
        if let Some(number) = number {
            self.names.insert(place, number);
        }
        Ok(())
    }

    /// Removes what lower layers put at a path.
    ///
    /// # Errors
    ///
    /// [`UnpackError`]
    pub fn whiteout(&mut self, path: &RelPath) -> Result<(), UnpackError> {
        let path = match path.parent() {
            None => path.clone(),
            Some(parent) => within(self.resolve(&parent, path)?.as_ref(), path),
        };
        if self.own.contains(&path) {
            self.hide(Some(&path));
        } else if self.tree.get(&path).is_some() {
            self.forget(&path);
            self.tree.remove_raw(&path);
        }
        Ok(())
    }

    /// Removes what lower layers put into a directory; `None` for the root.
    ///
    /// # Errors
    ///
    /// [`UnpackError`]
    pub fn opaque(&mut self, directory: Option<&RelPath>) -> Result<(), UnpackError> {
        let directory = match directory {
            None => None,
            Some(path) => self.resolve(path, path)?,
        };
        self.hide(directory.as_ref());
        Ok(())
    }

    /// The tree: hard links name the first of their names.
    #[must_use]
    pub fn finish(mut self) -> Directory {
        let mut first: BTreeMap<u64, RelPath> = BTreeMap::new();
        for (path, number) in self.names {
            match first.get(&number) {
                Some(target) => self.tree.insert_raw(&path, Node::Link { target: target.clone() }),
                None => drop(first.insert(number, path)),
            }
        }
        self.tree
    }

    /// Removes below a directory what the layer did not put there.
    fn hide(&mut self, directory: Option<&RelPath>) {
        let mut pending = vec![directory.cloned()];
        while let Some(at) = pending.pop() {
            // What was hidden once is the layer's own.
            if !self.hidden.insert(at.clone()) {
                continue;
            }
            let directory = match &at {
                None => Some(&self.tree),
                Some(path) => self.tree.get_directory(path).map(|directory| &**directory),
            };
            let Some(directory) = directory else { continue };
            let place = |name: &Name| at.as_ref().map_or_else(|| RelPath::from(name.clone()), |path| path.join(name));
            let below: Vec<(RelPath, bool)> =
                directory.entries().map(|(name, node)| (place(name), node.as_directory().is_some())).collect();
            for (path, is_directory) in below {
                if self.own.contains(&path) {
                    pending.extend(is_directory.then_some(Some(path)));
                } else {
                    self.forget(&path);
                    self.tree.remove_raw(&path);
                }
            }
        }
    }

    /// Notes that the layer put something at a path.
    fn note(&mut self, path: &RelPath) {
        let mut at = Some(path.clone());
        while let Some(path) = at {
            at = path.parent();
            if !self.own.insert(path) {
                break;
            }
        }
    }

    /// What is at a path, and below it, is about to go.
    fn forget(&mut self, path: &RelPath) {
        self.last = None;
        let is_inside = |at: &RelPath| at == path || at.strip_prefix(path).is_some();
        let gone: Vec<RelPath> =
            self.names.range(path.clone()..).map(|(at, _)| at).take_while(|at| is_inside(at)).cloned().collect();
        for at in gone {
            self.names.remove(&at);
        }
    }

    /// Where an entry goes. The directories on the way are there afterwards.
    fn place(&mut self, path: &RelPath) -> Result<RelPath, UnpackError> {
        let Some(parent) = path.parent() else { return Ok(path.clone()) };
        if let Some((last, place)) = &self.last
            && *last == parent
        {
            return Ok(within(place.as_ref(), path));
        }
        let folder = self.resolve(&parent, path)?;
        let place = within(folder.as_ref(), path);
        self.tree
            .make_parents(&place, &Metadata::root_owned(0o755))
            .map_err(|_| UnpackError::NotADirectory { path: parent.clone() })?;
        self.last = Some((parent, folder));
        Ok(place)
    }

    /// Where the way to a folder leads, with symbolic links followed; it need not be there. `None` is the root.
    fn resolve(&self, folder: &RelPath, path: &RelPath) -> Result<Option<RelPath>, UnpackError> {
        let mut pending: VecDeque<Box<[u8]>> = folder.components().map(Into::into).collect();
        let mut done: Vec<Box<[u8]>> = Vec::new();
        let mut link_count = 0;
        let too_long = || UnpackError::TooLong { path: path.clone() };
        while let Some(component) = pending.pop_front() {
            match &*component {
                b"" | b"." => continue,
                b".." => {
                    done.pop();
                    continue;
                }
                _ => done.push(component),
            }
            let at = RelPath::new(done.join(&b'/')).map_err(|_| too_long())?;
            match self.tree.get(&at) {
                Some(Node::Symlink { target, .. }) => {
                    link_count += 1;
                    if link_count > MAX_LINKS {
                        return Err(UnpackError::Loop { path: path.clone() });
                    }
                    done.pop();
                    if target.starts_with(b"/") {
                        done.clear();
                    }
                    for part in target.split(|byte| *byte == b'/').rev() {
                        pending.push_front(part.into());
                    }
                }
                Some(Node::Directory(_)) | None => {}
                Some(_) => return Err(UnpackError::NotADirectory { path: at }),
            }
        }
        // The entry itself is one below.
        if done.len() >= MAX_DEPTH {
            return Err(too_long());
        }
        match done.is_empty() {
            true => Ok(None),
            false => RelPath::new(done.join(&b'/')).map(Some).map_err(|_| too_long()),
        }
    }
}

/// The last component of a path in a folder.
fn within(folder: Option<&RelPath>, path: &RelPath) -> RelPath {
    let name = path.name();
    folder.map_or_else(|| RelPath::from(name.clone()), |folder| folder.join(&name))
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

    /// `d NAME`, `f NAME=CONTENT`, `l NAME=TARGET`, `h NAME=TARGET`, `w NAME`, `o NAME`, and `-` for the next layer.
    fn unpack(text: &str) -> Result<Directory, UnpackError> {
        let mut unpacking = Unpacking::new(Directory::root());
        for line in text.split(", ") {
            let (kind, rest) = line.split_at(1);
            let (name, value) = rest.trim().split_once('=').unwrap_or((rest.trim(), ""));
            match kind {
                "-" => unpacking = Unpacking::new(unpacking.finish()),
                "d" => unpacking
                    .put(&path(name), Node::Directory(Arc::new(Directory::new(Metadata::root_owned(0o700)))))?,
                "f" => unpacking.put(&path(name), file(value))?,
                "l" => unpacking.put(&path(name), Node::symlink(value))?,
                "h" => unpacking.link(&path(name), &path(value))?,
                "w" => unpacking.whiteout(&path(name))?,
                "o" => unpacking.opaque((name != "/").then(|| path(name)).as_ref())?,
                _ => panic!("{line}"),
            }
        }
        Ok(unpacking.finish())
    }

    fn listing(tree: &Directory) -> String {
        let lines: Vec<String> = tree
            .walk()
            .map(|(path, node)| match node {
                Node::Directory(directory) => format!("{path}/ {:o}", directory.metadata.mode),
                Node::Link { target } => format!("{path} => {target}"),
                Node::Symlink { target, .. } => format!("{path} -> {}", String::from_utf8_lossy(target)),
                _ => path.to_string(),
            })
            .collect();
        lines.join(", ")
    }

    #[test]
    fn layers_give_what_unpacking_into_a_folder_gives() {
        for (layers, expected) in [
            ("f a/b=1, -, f a/c=2", "a/ 755, a/b, a/c"),
            ("f a/b=1, -, d a", "a/ 700, a/b"),
            ("f a/b=1, -, f a=2", "a"),
            ("f a=1, -, d a, f a/b=1", "a/ 700, a/b"),
            // Whiteouts are for lower layers, wherever they stand.
            ("f a=1, f b=1, -, w a", "b"),
            ("f a=1, -, f a=2, w a", "a"),
            ("f a=1, -, w a, f a=2", "a"),
            ("f d/a=1, -, f d/b=1, w d", "d/ 755, d/b"),
            ("f d/a=1, -, w d, f d/b=1", "d/ 755, d/b"),
            ("f d/a=1, f d/e/f=1, -, f d/e/g=1, o d", "d/ 755, d/e/ 755, d/e/g"),
            ("f d/a=1, -, o d, f d/b=1", "d/ 755, d/b"),
            ("f a=1, -, f b=1, o /", "b"),
            ("w nothing, w no/thing, o no/where", ""),
            // Links on the way are followed, and stay in the tree.
            (
                "l lib=usr/lib, f usr/lib/a=1, -, f lib/b=1",
                "lib -> usr/lib, usr/ 755, usr/lib/ 755, usr/lib/a, usr/lib/b",
            ),
            ("l out=../../../etc, f out/x=1", "etc/ 755, etc/x, out -> ../../../etc"),
            ("l out=/etc, f out/x=1", "etc/ 755, etc/x, out -> /etc"),
            ("l here=., f here/x=1", "here -> ., x"),
            ("l lib=usr/lib, f usr/lib/a=1, -, w lib/a", "lib -> usr/lib, usr/ 755, usr/lib/ 755"),
            ("l lib=usr/lib, f usr/lib/a=1, -, o lib", "lib -> usr/lib, usr/ 755, usr/lib/ 755"),
            // One at the place itself is replaced.
            ("l lib=usr/lib, f usr/lib/a=1, -, d lib", "lib/ 700, usr/ 755, usr/lib/ 755, usr/lib/a"),
            ("l f=/etc/passwd, -, f f=1", "f"),
            // The way is asked anew when a link on it changed.
            ("d a, d b, l l=a, f l/x=1, l l=b, f l/y=1", "a/ 700, a/x, b/ 700, b/y, l -> b"),
        ] {
            assert_eq!(listing(&unpack(layers).expect("it has a place")), expected, "{layers}");
        }
    }

    #[test]
    fn hard_links_lead_into_lower_layers_and_survive_what_happens_to_other_names() {
        for (layers, expected) in [
            ("f a=1, h b=a", "a, b => a"),
            ("f m=1, h z=m, h a=z", "a, m => a, z => a"),
            ("f a=1, -, h b=a", "a, b => a"),
            ("f a=1, h b=a, -, f a=2", "a, b"),
            ("f a=1, h b=a, h c=b, -, w a", "b, c => b"),
            ("f d/a=1, h b=d/a, h c=b, -, f d=1", "b, c => b, d"),
            ("f a=1, h b=a, -, h a=b", "a, b => a"),
            ("f a=1, h a=a", "a"),
            (
                "l lib=usr/lib, f usr/lib/a=1, -, h lib/b=lib/a",
                "lib -> usr/lib, usr/ 755, usr/lib/ 755, usr/lib/a, usr/lib/b => usr/lib/a",
            ),
            // There are no further names of a link.
            ("l a=x, h b=a", "a -> x, b -> x"),
            ("f a/b=1, h a=a/b", "a"),
        ] {
            assert_eq!(listing(&unpack(layers).expect("it has a place")), expected, "{layers}");
        }
        let tree = unpack("f a=1, h b=a, -, f a=2").expect("it has a place");
        let Node::File { blob, .. } = file("1") else { unreachable!() };
        assert_eq!(tree.get_file(&path("b")).map(|(_, blob)| blob), Some(blob));
    }

    /// As often as a layer says so, and however many names of its own there are: it is looked at once.
    #[test]
    fn hiding_again_costs_nothing() {
        let mut unpacking = Unpacking::new(unpack("f d/lower=1").expect("it has a place"));
        for number in 0..3000 {
            unpacking.put(&path(&format!("d/e/{number}")), file("1")).expect("it has a place");
        }
        for _ in 0..200_000 {
            unpacking.opaque(Some(&path("d"))).expect("it has a place");
            unpacking.whiteout(&path("d/e")).expect("it has a place");
        }
        assert_eq!(unpacking.hidden.len(), 2);
        let tree = unpacking.finish();
        assert!(tree.get(&path("d/lower")).is_none() && tree.get(&path("d/e/2999")).is_some());
        // In the next layer it counts anew.
        let mut unpacking = Unpacking::new(tree);
        unpacking.opaque(Some(&path("d"))).expect("it has a place");
        unpacking.next_layer();
        unpacking.put(&path("d/x"), file("1")).expect("it has a place");
        unpacking.next_layer();
        unpacking.opaque(Some(&path("d"))).expect("it has a place");
        assert_eq!(listing(&unpacking.finish()), "d/ 755");
    }

    #[test]
    fn what_has_no_place_is_an_error() {
        for (layers, expected) in [
            ("f a=1, f a/b=1", "`a` is not a directory"),
            ("l a=f, f f=1, f a/b=1", "`f` is not a directory"),
            ("l a=b, l b=a, f a/x=1", "too many symbolic links on the way to `a/x`"),
            ("l a=a/a, f a/x=1", "too many symbolic links on the way to `a/x`"),
            ("h b=a", "hard link `b` names `a`, which is no file there"),
            ("d a, h b=a", "hard link `b` names `a`, which is no file there"),
        ] {
            assert_eq!(unpack(layers).expect_err(layers).to_string(), expected, "{layers}");
        }
        let long = format!(
            "l a={0}/{0}/{0}/{0}/{0}/{0}/{0}/{0}/{0}/{0}/{0}/{0}/{0}/{0}/{0}/{0}, f a/{0}/x=1",
            "n".repeat(255)
        );
        assert!(unpack(&long).expect_err("it is long").to_string().ends_with("lead to a path that is too long"));
    }
}
