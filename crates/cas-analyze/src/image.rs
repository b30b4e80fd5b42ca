//! The layers of an image over each other, with what each entry came to.
//!
//! Which entry is visible in the end is decided by [`Unpacking`], as for roots: the nodes of its tree carry the number of
//! their entry as their owner, and nothing else of their metadata.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cas_blob::Descriptor;
use cas_tree::{Directory, Metadata, Name, Node, RelPath, UnpackError, Unpacking};

use crate::rules::{Want, wanted};
use crate::secret::{SecretKind, judge};

/// Longest file that is parsed.
pub const MAX_PARSED_BYTES: u64 = 64 << 20;
/// Most bytes that are kept of all files that are parsed.
const MAX_KEPT_BYTES: u64 = 512 << 20;
/// More entries than any real image has.
const MAX_ENTRIES: usize = 4_000_000;
/// Most bytes of names, targets of links, and extended attributes: all of them are in memory.
pub(crate) const MAX_TEXT_BYTES: usize = 256 << 20;
/// More layers than any real image has, as for documents.
pub(crate) const MAX_LAYERS: usize = 4096;
/// Longest chain of symbolic links on the way to a file.
const MAX_LINKS: usize = 40;
/// The group of nodes whose owner is the number of an entry. Others are of group 0.
const MARK: u32 = 1;

/// An entry of a layer.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its own name; of a whiteout with what makes it one. `None` is the root.
    pub path: Option<RelPath>,
    /// What it says.
    pub what: What,
    /// All that it takes of the uncompressed archive.
    pub bytes: u64,
    /// Of these, its headers.
    pub header_bytes: u64,
    /// Its content, as far as [`wanted`] asks for it.
    pub content: Vec<u8>,
}

/// What an entry says.
#[derive(Clone, Debug)]
pub enum What {
    /// Rights and owners of the root.
    Root(Metadata),
    /// Something is there; a directory is empty.
    Node(Node),
    /// What is at this path has a further name.
    Link(RelPath),
    /// What lower layers have at this path is gone.
    Whiteout(RelPath),
    /// What lower layers have in the directory of the entry is gone.
    Opaque,
    /// Nothing that matters here.
    Note,
}

/// What is known of a layer besides its entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LayerFacts {
    /// Digest of its blob.
    pub digest: String,
    /// Digest of its uncompressed bytes.
    pub diff_id: String,
    /// What made it, as the configuration has it.
    pub created_by: String,
    /// Whether it was made by `cas` of what a `cas.toml` says.
    pub is_own: bool,
    /// Length of its blob.
    pub compressed_bytes: u64,
    /// Length of its archive.
    pub bytes: u64,
}

/// What an entry came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is there in the end.
    Visible,
    /// The entry with this number is there in its place.
    Overwritten(usize),
    /// A layer removed it.
    Removed {
        /// Position of that layer.
        layer: usize,
    },
    /// A directory of which a later entry says the rights and owners.
    Covered,
    /// It is no file: the root, a whiteout, a note.
    Apart,
}

/// An entry with what it came to.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) layer: usize,
    pub(crate) path: Option<RelPath>,
    pub(crate) what: What,
    pub(crate) bytes: u64,
    pub(crate) header_bytes: u64,
    pub(crate) fate: Fate,
    pub(crate) secret: Option<SecretKind>,
    /// The entry that has the content: itself, but for further names.
    pub(crate) source: usize,
    /// The directory whose rights and owners it replaced.
    covers: Option<usize>,
}

impl Known {
    pub(crate) const fn is_directory(&self) -> bool {
        matches!(self.what, What::Node(Node::Directory(_)))
    }
}

/// A file that was not parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Position of its layer.
    pub layer: usize,
    /// The file.
    pub path: RelPath,
    /// Its length.
    pub bytes: u64,
    /// Why not.
    pub why: &'static str,
}

/// Why an entry could not be added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddError {
    /// It has no place.
    Unpack(UnpackError),
    /// There is more than any image has.
    TooMany {
        /// The limit.
        limit: usize,
        /// Of what.
        unit: &'static str,
    },
}

/// An image to look at: the lowest layer first, [`Image::begin_layer`], [`Image::add`] for each entry, [`Image::end_layer`].
#[derive(Debug)]
pub struct Image {
    pub(crate) layers: Vec<LayerFacts>,
    pub(crate) entries: Vec<Known>,
    pub(crate) skipped: Vec<Skipped>,
    /// For each whiteout what it alone removed.
    pub(crate) removed_by: BTreeMap<usize, Vec<usize>>,
    /// Names of the same file, by the entry that has its content, where there are several.
    pub(crate) names: BTreeMap<usize, Vec<usize>>,
    contents: BTreeMap<usize, Vec<u8>>,
    kept_bytes: u64,
    pub(crate) text_bytes: usize,
    tree: Directory,
    unpacking: Option<Unpacking>,
    /// Whiteouts of the layer by what they remove, and its opaque directories; `None` is the root.
    whiteouts: BTreeMap<RelPath, usize>,
    opaque: BTreeMap<Option<RelPath>, usize>,
}

impl Default for Image {
    fn default() -> Self {
        Self::new()
    }
}

impl Image {
    /// An image without layers.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            layers: Vec::new(),
            entries: Vec::new(),
            skipped: Vec::new(),
            removed_by: BTreeMap::new(),
            names: BTreeMap::new(),
            contents: BTreeMap::new(),
            kept_bytes: 0,
            text_bytes: 0,
            tree: Directory::new(Metadata { mode: 0o755, uid: 0, gid: 0, xattrs: BTreeMap::new() }),
            unpacking: None,
            whiteouts: BTreeMap::new(),
            opaque: BTreeMap::new(),
        }
    }

    /// Begins a layer over those that are there.
    pub fn begin_layer(&mut self) {
        let mut unpacking = Unpacking::new(self.tree.clone());
        unpacking.next_layer();
        self.unpacking = Some(unpacking);
        self.whiteouts.clear();
        self.opaque.clear();
    }

    /// Adds an entry to the layer.
    ///
    /// # Errors
    ///
    /// [`AddError`]
    pub fn add(&mut self, entry: Entry) -> Result<(), AddError> {
        let Some(mut unpacking) = self.unpacking.take() else { return Ok(()) };
        let added = self.add_to(&mut unpacking, entry);
        self.unpacking = Some(unpacking);
        added
    }

    /// Ends the layer. `facts` are all that is known of it.
    pub fn end_layer(&mut self, facts: LayerFacts) {
        if let Some(unpacking) = self.unpacking.take() {
            let after = unpacking.finish();
            let before = std::mem::replace(&mut self.tree, after.clone());
            self.compare(None, &before, &after);
        }
        self.layers.push(facts);
    }

    fn add_to(&mut self, unpacking: &mut Unpacking, entry: Entry) -> Result<(), AddError> {
        let number = self.entries.len();
        if number >= MAX_ENTRIES {
            return Err(AddError::TooMany { limit: MAX_ENTRIES, unit: "entries" });
        }
        let layer = self.layers.len();
        if layer >= MAX_LAYERS {
            return Err(AddError::TooMany { limit: MAX_LAYERS, unit: "layers" });
        }
        let Entry { path, what, bytes, header_bytes, content } = entry;
        self.text_bytes += path.as_ref().map_or(0, |path| path.as_bytes().len()) + text_bytes(&what);
        if self.text_bytes > MAX_TEXT_BYTES {
            return Err(AddError::TooMany { limit: MAX_TEXT_BYTES, unit: "bytes of names and attributes" });
        }
        let mut known = Known {
            layer,
            path: path.clone(),
            what: what.clone(),
            bytes,
            header_bytes,
            fate: Fate::Visible,
            secret: None,
            source: number,
            covers: None,
        };
        match (what, path) {
            (What::Whiteout(removed), _) => {
                unpacking.whiteout(&removed).map_err(AddError::Unpack)?;
                self.whiteouts.entry(removed).or_insert(number);
                known.fate = Fate::Apart;
            }
            (What::Opaque, Some(path)) => {
                let directory = path.parent();
                unpacking.opaque(directory.as_ref()).map_err(AddError::Unpack)?;
                self.opaque.entry(directory).or_insert(number);
                known.fate = Fate::Apart;
            }
            (What::Node(node), Some(path)) => {
                if let Node::File { blob, .. } = &node {
                    known.secret = judge(&path, blob.size, &content);
                    self.keep(number, &path, blob, content);
                }
                let is_directory = matches!(node, Node::Directory(_));
                known.covers = self.replace(unpacking, &path, number, is_directory)?;
                unpacking.put(&path, marked(node, number)).map_err(AddError::Unpack)?;
            }
            (What::Link(target), Some(path)) => {
                let dangling = || UnpackError::DanglingLink { path: path.clone(), target: target.clone() };
                let found = unpacking.get(&target).map_err(AddError::Unpack)?.cloned();
                let node = found.filter(|node| node.as_directory().is_none());
                let node = node.ok_or_else(|| AddError::Unpack(dangling()))?;
                let old = mark(&node);
                let here = unpacking.get(&path).map_err(AddError::Unpack)?.and_then(mark);
                if old.is_some() && here == old {
                    // A link to itself names nothing new.
                    known.fate = Fate::Apart;
                } else {
                    if let Some(source) = old.map(|old| self.entries[old].source) {
                        known.source = source;
                        known.secret = self.entries[source].secret;
                        self.names.entry(source).or_insert_with(|| vec![source]).push(number);
                    }
                    self.replace(unpacking, &path, number, false)?;
                    unpacking.put(&path, marked(node, number)).map_err(AddError::Unpack)?;
                }
            }
            (What::Root(_) | What::Note, _) | (_, None) => known.fate = Fate::Apart,
        }
        self.entries.push(known);
        Ok(())
    }

    /// Notes what of the same layer an entry takes the place of; the directory that it goes on with.
    fn replace(
        &mut self,
        unpacking: &Unpacking,
        path: &RelPath,
        number: usize,
        is_directory: bool,
    ) -> Result<Option<usize>, AddError> {
        let Some(old) = unpacking.get(path).map_err(AddError::Unpack)? else { return Ok(None) };
        if is_directory && old.as_directory().is_some() {
            let covered = mark(old);
            if let Some(covered) = covered {
                self.entries[covered].fate = Fate::Covered;
            }
            return Ok(covered);
        }
        let layer = self.layers.len();
        let mut marks = Vec::new();
        collect(old, &mut marks);
        for old in marks {
            if self.entries[old].layer == layer {
                self.end(old, Fate::Overwritten(number));
            }
        }
        Ok(None)
    }

    /// Ends an entry, and those whose place it took without a trace.
    fn end(&mut self, number: usize, fate: Fate) -> Vec<usize> {
        let mut ended = Vec::new();
        let mut at = Some(number);
        while let Some(number) = at {
            self.entries[number].fate = fate;
            ended.push(number);
            at = self.entries[number].covers;
        }
        ended
    }

    /// Keeps what will be parsed.
    fn keep(&mut self, number: usize, path: &RelPath, blob: &Descriptor, content: Vec<u8>) {
        if wanted(path) != Want::Whole {
            return;
        }
        let why = if blob.size > MAX_PARSED_BYTES {
            "it is longer than 64 MiB"
        } else if self.kept_bytes + blob.size > MAX_KEPT_BYTES {
            "it is more than 512 MiB with what was kept before it"
        } else {
            self.kept_bytes += content.len() as u64;
            self.contents.insert(number, content);
            return;
        };
        self.skipped.push(Skipped { layer: self.layers.len(), path: path.clone(), bytes: blob.size, why });
    }

    /// Finds what a layer took away.
    fn compare(&mut self, at: Option<&RelPath>, before: &Directory, after: &Directory) {
        for (name, old) in before.entries() {
            let path = at.map_or_else(|| RelPath::from(name.clone()), |at| at.join(name));
            let new = after.entry(name.as_bytes());
            match (old, new) {
                (Node::Directory(old), Some(Node::Directory(new))) => {
                    if !Arc::ptr_eq(old, new) {
                        self.compare(Some(&path), old, new);
                    }
                }
                (old, Some(new)) if mark(old) == mark(new) => {}
                (old, new) => self.lose(&path, old, new),
            }
        }
    }

    fn lose(&mut self, path: &RelPath, old: &Node, new: Option<&Node>) {
        let layer = self.layers.len();
        let mut marks = Vec::new();
        collect(old, &mut marks);
        let fate = match new.and_then(mark) {
            Some(number) => Fate::Overwritten(number),
            None => Fate::Removed { layer },
        };
        let whiteout = if new.is_none() { self.whiteout_of(path) } else { None };
        for number in marks {
            let ended = self.end(number, fate);
            if let Some(whiteout) = whiteout {
                self.removed_by.entry(whiteout).or_default().extend(ended);
            }
        }
    }

    fn whiteout_of(&self, path: &RelPath) -> Option<usize> {
        let mut at = Some(path.clone());
        while let Some(path) = at {
            if let Some(number) = self.whiteouts.get(&path) {
                return Some(*number);
            }
            let parent = path.parent();
            if let Some(number) = self.opaque.get(&parent) {
                return Some(*number);
            }
            at = parent;
        }
        None
    }

    /// What is there in the end: paths with the numbers of their entries, in order.
    pub(crate) fn visible(&self) -> impl Iterator<Item = (RelPath, usize)> + '_ {
        self.tree.walk().filter_map(|(path, node)| Some((path, mark(node)?)))
    }

    /// Every path, also those that no entry tells of.
    pub(crate) fn paths(&self) -> impl Iterator<Item = (RelPath, Option<usize>)> + '_ {
        self.tree.walk().map(|(path, node)| (path, mark(node)))
    }

    /// The entry at a path, with symbolic links of folders followed.
    pub(crate) fn find(&self, path: &RelPath) -> Option<usize> {
        let direct = self.tree.get(path);
        match direct {
            Some(node) => mark(node),
            None => mark(self.tree.get(&self.place(path)?)?),
        }
    }

    /// Content that was kept of the entry.
    pub(crate) fn content(&self, number: usize) -> Option<&[u8]> {
        self.contents.get(&self.entries[number].source).map(Vec::as_slice)
    }

    /// Names in a folder.
    pub(crate) fn names_in(&self, path: &str) -> Vec<Name> {
        let directory = RelPath::new(path).ok().and_then(|path| self.tree.get_directory(&path));
        directory.map(|directory| directory.entries().map(|(name, _)| name.clone()).collect()).unwrap_or_default()
    }

    fn place(&self, path: &RelPath) -> Option<RelPath> {
        let mut pending: Vec<Vec<u8>> = path.components().rev().map(<[u8]>::to_vec).collect();
        let mut done: Vec<Vec<u8>> = Vec::new();
        let mut link_count = 0;
        while let Some(part) = pending.pop() {
            match &*part {
                b"" | b"." => continue,
                b".." => {
                    done.pop();
                    continue;
                }
                _ => done.push(part),
            }
            if pending.is_empty() {
                break;
            }
            // Below what is not there nothing is.
            let node = self.tree.get(&RelPath::new(done.join(&b'/')).ok()?)?;
            if let Node::Symlink { target, .. } = node {
                link_count += 1;
                if link_count > MAX_LINKS {
                    return None;
                }
                done.pop();
                if target.starts_with(b"/") {
                    done.clear();
                }
                pending.extend(target.split(|byte| *byte == b'/').rev().map(<[u8]>::to_vec));
            }
        }
        RelPath::new(done.join(&b'/')).ok()
    }

    /// How many bytes the archives have less without these entries: for each its own, and the content only where all
    /// names of the file are among them.
    pub(crate) fn savings<'a>(&'a self, set: &'a BTreeSet<usize>) -> impl Iterator<Item = (usize, u64)> + 'a {
        // A file can have very many names, so they are looked at once.
        let mut known = BTreeMap::new();
        set.iter().map(move |number| {
            let entry = &self.entries[*number];
            let stays = *known.entry(entry.source).or_insert_with(|| {
                let names = self.names.get(&entry.source);
                names.is_some_and(|names| names.iter().any(|name| !set.contains(name) && self.is_name(*name)))
            });
            (*number, if stays { entry.header_bytes } else { entry.bytes })
        })
    }

    /// Whether an entry can take the content of a file over.
    fn is_name(&self, number: usize) -> bool {
        self.entries[number].fate != Fate::Apart
    }

    /// What of `bytes` of a layer it is compressed, in proportion.
    pub(crate) fn compressed(&self, layer: usize, bytes: u64) -> u64 {
        let facts = &self.layers[layer];
        if facts.bytes == 0 {
            return 0;
        }
        let product = u128::from(bytes) * u128::from(facts.compressed_bytes) / u128::from(facts.bytes);
        u64::try_from(product).unwrap_or(facts.compressed_bytes)
    }
}

/// What an entry holds beside its path and content.
fn text_bytes(what: &What) -> usize {
    match what {
        What::Root(metadata) => attribute_bytes(metadata),
        What::Node(node) => {
            let target = if let Node::Symlink { target, .. } = node { target.len() } else { 0 };
            target + node.metadata().map_or(0, attribute_bytes)
        }
        What::Link(path) | What::Whiteout(path) => path.as_bytes().len(),
        What::Opaque | What::Note => 0,
    }
}

fn attribute_bytes(metadata: &Metadata) -> usize {
    metadata.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum()
}

/// A node that carries nothing but the number of its entry.
fn marked(node: Node, number: usize) -> Node {
    let uid = u32::try_from(number).expect("there are fewer entries");
    node.with_metadata(Metadata { uid, gid: MARK, ..Metadata::default() })
}

fn mark(node: &Node) -> Option<usize> {
    let Metadata { uid, gid: MARK, .. } = node.metadata()? else { return None };
    usize::try_from(*uid).ok()
}

/// The numbers of a node and all below it.
fn collect(node: &Node, into: &mut Vec<usize>) {
    into.extend(mark(node));
    if let Node::Directory(directory) = node {
        into.extend(directory.walk().filter_map(|(_, node)| mark(node)));
    }
}
