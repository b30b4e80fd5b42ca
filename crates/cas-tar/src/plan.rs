//! What an archive of a tree holds, entry by entry, cut into groups.

use std::collections::{BTreeMap, VecDeque};

use cas_blob::Descriptor;
use cas_digest::{Digest, DigestFunction};
use cas_tree::{DeviceKind, Directory, Metadata, Node, RelPath, Walk};

use crate::group::Group;
use crate::header::{BLOCK_BYTES, EntryError, Header, pad};
use crate::{npm, stargz};

/// A file of this size is a group of its own; a group that has it looks for a border.
const LARGE_BYTES: u64 = 1 << 20;
/// A group is not longer, but for one large file.
const MAX_GROUP_BYTES: u64 = 4 << 20;
/// Of 256 values of a path's digest, those that are a border: one entry in eight.
const BORDER: u8 = 32;
const MAX_SHORT_DEVICE: u32 = 0o7_777_777;

/// Which normal form an archive has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// A layer of an image.
    Layer1,
    /// An npm tarball.
    Npm1,
}

impl Profile {
    /// The name in recipes.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Layer1 => "layer-1",
            Self::Npm1 => "npm-1",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        [Self::Layer1, Self::Npm1].into_iter().find(|profile| profile.name() == name)
    }
}

/// The groups of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerPlan {
    /// In the order of the archive; at least one.
    pub groups: Vec<Group>,
}

impl LayerPlan {
    /// Plans the layer that holds `tree`: all of [`LayerGroups`].
    ///
    /// # Errors
    ///
    /// [`EntryError`] for what a layer cannot tell.
    pub fn new(tree: &Directory) -> Result<Self, EntryError> {
        LayerGroups::new(tree).collect::<Result<_, _>>().map(|groups| Self { groups })
    }

    /// Plans the layer that holds `tree` as eStargz has it: all of [`LayerGroups::stargz`].
    ///
    /// # Errors
    ///
    /// [`EntryError`] for what such a layer cannot tell.
    pub fn stargz(tree: &Directory, landmark: Descriptor) -> Result<Self, EntryError> {
        LayerGroups::stargz(tree, landmark)?.collect::<Result<_, _>>().map(|groups| Self { groups })
    }

    /// Uncompressed length in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.groups.iter().map(Group::size).sum()
    }
}

/// The groups of the layer that holds a tree, one after the other: headers of a large tree need not be in memory together.
///
/// At least one. Nothing follows an error, which is about what a layer cannot tell.
#[derive(Debug)]
pub struct LayerGroups<'tree> {
    tree: &'tree Directory,
    walk: Walk<'tree>,
    builder: Builder,
    /// What stands behind the last entry.
    end: &'static [u8],
    is_over: bool,
}

impl<'tree> LayerGroups<'tree> {
    /// Of the plain layer.
    #[must_use]
    pub fn new(tree: &'tree Directory) -> Self {
        Self::behind(Builder::default(), tree, &[0; 2 * BLOCK_BYTES])
    }

    /// Of the layer as eStargz has it: the landmark before all else, and no end, because the table of contents follows. `landmark`
    /// names the bytes [`LANDMARK`](crate::LANDMARK).
    ///
    /// # Errors
    ///
    /// [`EntryError`] for names that the format has for itself.
    pub fn stargz(tree: &'tree Directory, landmark: Descriptor) -> Result<Self, EntryError> {
        for name in stargz::OWN_NAMES {
            if tree.entries().any(|(own, _)| own.as_bytes() == name.as_bytes()) {
                return Err(EntryError::StargzName { path: name.to_owned() });
            }
        }
        let mut builder = Builder::default();
        stargz::landmark(&mut builder, landmark);
        Ok(Self::behind(builder, tree, &[]))
    }

    fn behind(mut builder: Builder, tree: &'tree Directory, end: &'static [u8]) -> Self {
        whiteouts(&mut builder, None, tree);
        Self { tree, walk: tree.walk(), builder, end, is_over: false }
    }
}

impl Iterator for LayerGroups<'_> {
    type Item = Result<Group, EntryError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(group) = self.builder.closed.pop_front() {
                return Some(Ok(group));
            }
            if self.is_over {
                return None;
            }
            match self.walk.next() {
                Some((path, node)) => {
                    if let Err(error) = add_node(&mut self.builder, self.tree, &path, node) {
                        self.is_over = true;
                        return Some(Err(error));
                    }
                }
                None => {
                    self.builder.tail(self.end);
                    self.builder.end();
                    self.is_over = true;
                }
            }
        }
    }
}

/// Adds the entry of a node, and the whiteouts in it.
fn add_node(builder: &mut Builder, tree: &Directory, path: &RelPath, node: &Node) -> Result<(), EntryError> {
    if matches!(node, Node::Whiteout) {
        return Ok(());
    }
    if path.name().as_bytes().starts_with(b".wh.") {
        return Err(EntryError::WhiteoutName { path: path.to_string() });
    }
    let mut header = Vec::new();
    let content = layer_header(path, node, tree, &mut header)?;
    builder.entry(path.as_bytes(), &header, content);
    if let Node::Directory(directory) = node {
        whiteouts(builder, Some(path), directory);
    }
    Ok(())
}

/// Plans an npm tarball of files, given in the order that npm has: path below the package, UTF-8, mode, content.
///
/// The whole tarball is one group: tarballs are small, and one stream is what npm's own look like.
#[must_use]
pub fn npm_plan(files: &[(RelPath, u32, Descriptor)]) -> LayerPlan {
    let mut group = Group::default();
    for (path, mode, blob) in files {
        group.push_bytes(&npm::header(&format!("package/{path}"), *mode, blob.size));
        group.push_content(*blob);
        let mut bytes = Vec::new();
        pad(&mut bytes, blob.size);
        group.push_bytes(&bytes);
    }
    group.push_bytes(&[0; 2 * BLOCK_BYTES]);
    LayerPlan { groups: vec![group] }
}

/// Cuts entries into groups.
#[derive(Debug, Default)]
pub(crate) struct Builder {
    /// Groups that take no more entries.
    closed: VecDeque<Group>,
    current: Group,
    /// The current group holds a large file and takes no other entry.
    is_full: bool,
}

impl Builder {
    fn entry(&mut self, path: &[u8], header: &[u8], content: Option<Descriptor>) {
        self.open(path, header, content);
        let mut padding = Vec::new();
        pad(&mut padding, content.map_or(0, |blob| blob.size));
        self.tail(&padding);
    }

    /// Begins an entry: its headers, and its content without padding.
    pub(crate) fn open(&mut self, path: &[u8], header: &[u8], content: Option<Descriptor>) {
        let size = content.map_or(0, |blob| blob.size);
        let large = size >= LARGE_BYTES;
        let total = header.len() as u64 + size + BLOCK_BYTES as u64;
        let border = || Digest::of(DigestFunction::Blake3, path).value()[0] < BORDER;
        let is_full = self.is_full || large || self.current.size() + total > MAX_GROUP_BYTES;
        if is_full || (self.current.size() >= LARGE_BYTES && border()) {
            self.close();
        }
        self.current.push_bytes(header);
        if let Some(blob) = content {
            self.current.push_content(blob);
        }
        self.is_full = large;
    }

    /// Adds to the last entry what follows it: padding, or the end of the archive.
    pub(crate) fn tail(&mut self, bytes: &[u8]) {
        self.current.push_bytes(bytes);
    }

    /// Fills the last block, which an archive that was cut there lacks.
    pub(crate) fn align(&mut self) {
        let mut padding = Vec::new();
        let size: u64 = self.closed.iter().chain([&self.current]).map(Group::size).sum();
        pad(&mut padding, size);
        self.tail(&padding);
    }

    /// Adds what follows the end of the archive, too long for memory.
    pub(crate) fn rest(&mut self, blob: Descriptor) {
        self.close();
        self.current.push_content(blob);
    }

    fn close(&mut self) {
        if self.current.size() > 0 {
            self.closed.push_back(std::mem::take(&mut self.current));
        }
    }

    /// Closes the last group; there is one even if nothing was added.
    fn end(&mut self) {
        self.close();
        if self.closed.is_empty() {
            self.closed.push_back(Group::default());
        }
    }

    pub(crate) fn finish(mut self) -> LayerPlan {
        self.end();
        LayerPlan { groups: self.closed.into() }
    }
}

/// The whiteouts of a directory, which come before its other entries.
fn whiteouts(builder: &mut Builder, parent: Option<&RelPath>, directory: &Directory) {
    let mut names = Vec::new();
    // Only a directory that exists in the archive can be told to be opaque there; the root is, too.
    if directory.opaque {
        names.push(b".wh..wh..opq".to_vec());
    }
    for (name, node) in directory.entries() {
        if matches!(node, Node::Whiteout) {
            names.push([b".wh.", name.as_bytes()].concat());
        }
    }
    let none = BTreeMap::new();
    for name in names {
        let name = parent.map_or_else(|| name.clone(), |parent| [parent.as_bytes(), b"/", &name[..]].concat());
        let mut header = Vec::new();
        Header::new(&name, b'0', &none).encode(&mut header);
        builder.entry(&name, &header, None);
    }
}

/// Writes the header of a node, and gives the content that follows.
///
/// A link has the rights of what it names: some readers give the file those of the last of its names.
fn layer_header(
    path: &RelPath,
    node: &Node,
    tree: &Directory,
    into: &mut Vec<u8>,
) -> Result<Option<Descriptor>, EntryError> {
    let none = BTreeMap::new();
    let plain = Metadata::default();
    let named = match node {
        Node::Link { target } => tree.get(target),
        node => Some(node),
    };
    let metadata = named.and_then(Node::metadata).unwrap_or(&plain);
    let mut name = path.as_bytes().to_vec();
    let type_flag = match node {
        Node::File { .. } => b'0',
        Node::Link { .. } => b'1',
        Node::Symlink { .. } => b'2',
        Node::Device { kind: DeviceKind::Character, .. } => b'3',
        Node::Device { kind: DeviceKind::Block, .. } => b'4',
        Node::Directory(_) => b'5',
        Node::Fifo { .. } => b'6',
        Node::Whiteout => return Err(EntryError::Whiteout { path: path.to_string() }),
    };
    if type_flag == b'5' {
        name.push(b'/');
    }
    let xattrs = if type_flag == b'1' { &none } else { &metadata.xattrs };
    let mut header =
        Header { mode: metadata.mode, uid: metadata.uid, gid: metadata.gid, ..Header::new(&name, type_flag, xattrs) };
    let mut content = None;
    match node {
        Node::File { blob, .. } => {
            header.size = blob.size;
            content = Some(*blob);
        }
        Node::Symlink { target, .. } => header.link_name = target,
        Node::Link { target } => header.link_name = target.as_bytes(),
        Node::Device { major, minor, .. } => {
            if *major > MAX_SHORT_DEVICE || *minor > MAX_SHORT_DEVICE {
                return Err(EntryError::DeviceNumber { path: path.to_string() });
            }
            header.device = (*major, *minor);
        }
        Node::Directory(_) | Node::Fifo { .. } | Node::Whiteout => {}
    }
    header.encode(into);
    Ok(content)
}
