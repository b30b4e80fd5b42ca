//! The canonical bytes of a tree: docs/formats/tree.md.
//!
//! There is one encoding for a tree. The decoder accepts that one alone, so that equal trees have equal digests whoever
//! wrote them, and has a limit for everything that outside bytes can make large.

use std::collections::BTreeMap;
use std::sync::Arc;

use cas_blob::Descriptor;
use cas_digest::{Digest, DigestFunction};

use crate::{DeviceKind, Directory, Metadata, Name, Node, RelPath, RelPathError};

const MAGIC: &[u8; 8] = b"castree\n";
const VERSION: u8 = 1;
/// Longest directory blob that is decoded: a million entries with long names.
pub const MAX_DIRECTORY_BYTES: u64 = 64 * 1024 * 1024;
/// Deepest tree: `PATH_MAX` allows 2,048 one-letter components, real trees stay under 100.
const MAX_DEPTH: usize = 1024;
/// Most nodes of a tree: ten times the largest source tree known to us.
const MAX_NODES: usize = 10_000_000;
/// Longest target of a symbolic link: Linux's limit.
const MAX_TARGET: usize = 4095;
/// Longest value of an extended attribute: Linux's limit.
const MAX_XATTR: usize = 64 * 1024;
/// Most extended attributes of one node.
const MAX_XATTRS: u64 = 1024;

const DIRECTORY: u8 = 1;
const FILE: u8 = 2;
const SYMLINK: u8 = 3;
const LINK: u8 = 4;
const CHARACTER_DEVICE: u8 = 5;
const BLOCK_DEVICE: u8 = 6;
const FIFO: u8 = 7;
const WHITEOUT: u8 = 8;

const OPAQUE: u8 = 1;

/// A tree as blobs.
#[derive(Clone, Debug)]
pub struct EncodedTree {
    /// Blob of the root directory: the digest of the tree.
    pub root: Descriptor,
    /// Every different directory blob, children before parents, the root last.
    pub directories: Vec<(Descriptor, Vec<u8>)>,
}

/// Why a tree has no encoding.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// A tree is encoded with BLAKE3 or SHA-256.
    #[error("trees are not encoded with `{0}`")]
    Function(DigestFunction),
    /// The content of a file is named by another function than the tree's.
    #[error("content of `{path}` is named by `{actual}`, the tree by `{expected}`")]
    ContentFunction {
        /// The file.
        path: RelPath,
        /// Function of the tree.
        expected: DigestFunction,
        /// Function of the content's digest.
        actual: DigestFunction,
    },
}

impl Directory {
    /// Encodes the tree and names it with `function`.
    ///
    /// # Errors
    ///
    /// [`EncodeError`]
    pub fn encode(&self, function: DigestFunction) -> Result<EncodedTree, EncodeError> {
        let code = function_code(function).ok_or(EncodeError::Function(function))?;
        let mut encoder = Encoder { function, code, directories: Vec::new(), known: BTreeMap::new() };
        let root = encoder.directory(self, None)?;
        Ok(EncodedTree { root, directories: encoder.directories })
    }
}

struct Encoder {
    function: DigestFunction,
    code: u8,
    directories: Vec<(Descriptor, Vec<u8>)>,
    known: BTreeMap<Descriptor, ()>,
}

impl Encoder {
    fn directory(&mut self, directory: &Directory, path: Option<&RelPath>) -> Result<Descriptor, EncodeError> {
        let mut out = Vec::with_capacity(64 + directory.entries.len() * 64);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&[VERSION, self.code, if directory.opaque { OPAQUE } else { 0 }]);
        put_metadata(&mut out, &directory.metadata);
        put_varint(&mut out, directory.entries.len() as u64);
        for (name, node) in &directory.entries {
            put_bytes(&mut out, name.as_bytes());
            match node {
                Node::Directory(child) => {
                    let child_path = match path {
                        Some(path) => path.join(name),
                        None => RelPath::from(name.clone()),
                    };
                    let child = self.directory(child, Some(&child_path))?;
                    out.push(DIRECTORY);
                    put_descriptor(&mut out, &child);
                }
                Node::File { metadata, blob } => {
                    if blob.digest.function() != self.function {
                        return Err(EncodeError::ContentFunction {
                            path: path.map_or_else(|| RelPath::from(name.clone()), |path| path.join(name)),
                            expected: self.function,
                            actual: blob.digest.function(),
                        });
                    }
                    out.push(FILE);
                    put_metadata(&mut out, metadata);
                    put_descriptor(&mut out, blob);
                }
                Node::Symlink { metadata, target } => {
                    out.push(SYMLINK);
                    put_metadata(&mut out, metadata);
                    put_bytes(&mut out, target);
                }
                Node::Link { target } => {
                    out.push(LINK);
                    put_bytes(&mut out, target.as_bytes());
                }
                Node::Device { metadata, kind, major, minor } => {
                    out.push(match kind {
                        DeviceKind::Character => CHARACTER_DEVICE,
                        DeviceKind::Block => BLOCK_DEVICE,
                    });
                    put_metadata(&mut out, metadata);
                    put_varint(&mut out, u64::from(*major));
                    put_varint(&mut out, u64::from(*minor));
                }
                Node::Fifo { metadata } => {
                    out.push(FIFO);
                    put_metadata(&mut out, metadata);
                }
                Node::Whiteout => out.push(WHITEOUT),
            }
        }
        let descriptor = Descriptor::of(self.function, &out);
        if self.known.insert(descriptor, ()).is_none() {
            self.directories.push((descriptor, out));
        }
        Ok(descriptor)
    }
}

const fn function_code(function: DigestFunction) -> Option<u8> {
    match function {
        DigestFunction::Blake3 => Some(1),
        DigestFunction::Sha256 => Some(2),
        DigestFunction::Sha512 | DigestFunction::Sha1 => None,
    }
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push((value & 0x7f) as u8);
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_descriptor(out: &mut Vec<u8>, descriptor: &Descriptor) {
    out.extend_from_slice(descriptor.digest.value());
    put_varint(out, descriptor.size);
}

fn put_metadata(out: &mut Vec<u8>, metadata: &Metadata) {
    put_varint(out, u64::from(metadata.mode));
    put_varint(out, u64::from(metadata.uid));
    put_varint(out, u64::from(metadata.gid));
    put_varint(out, metadata.xattrs.len() as u64);
    for (name, value) in &metadata.xattrs {
        put_bytes(out, name);
        put_bytes(out, value);
    }
}

/// Why bytes are not the canonical encoding of a directory.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// They do not begin as a directory blob does.
    #[error("not a tree: wrong magic")]
    Magic,
    /// A later version wrote them.
    #[error("tree has version {0}, this program knows version 1")]
    Version(u8),
    /// The digest function is unknown, or not that of the tree's digest.
    #[error("tree names digest function {0}, which is not the one of its digest")]
    Function(u8),
    /// They end too early.
    #[error("tree ends too early")]
    Truncated,
    /// Bytes follow the last entry.
    #[error("tree has {0} bytes after its last entry")]
    Trailing(usize),
    /// A number is not in its shortest form or too large.
    #[error("tree holds a number that is not canonical")]
    Number,
    /// Unknown flag bits or kind of entry.
    #[error("tree holds an unknown flag or kind: {0}")]
    Unknown(u8),
    /// Entries or attributes are not in strictly ascending order.
    #[error("tree is out of order at `{0}`")]
    Order(String),
    /// A name or path is not one.
    #[error("tree holds a bad path")]
    Path(#[from] RelPathError),
    /// A mode has more than 12 bits, or is not that of every symbolic link.
    #[error("tree holds mode {0:o}")]
    Mode(u64),
    /// A symbolic link is empty or too long.
    #[error("tree holds a symbolic link target of {0} bytes")]
    Target(usize),
    /// A hard link does not name a regular file before it.
    #[error("hard link `{path}` names `{target}`, which is no regular file before it")]
    Link {
        /// The link.
        path: RelPath,
        /// What it names.
        target: RelPath,
    },
    /// A limit of the format is passed.
    #[error("tree has more than {limit} {what}")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// How much is allowed.
        limit: u64,
    },
}

/// Why a tree could not be decoded: its bytes, or the place they are loaded from.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeTreeError<E: std::error::Error + 'static> {
    /// The bytes of a directory are wrong.
    #[error("directory `{digest}` is damaged")]
    Bytes {
        /// The directory's digest.
        digest: Digest,
        /// What is wrong.
        source: DecodeError,
    },
    /// A directory could not be loaded.
    #[error(transparent)]
    Load(E),
}

/// What one directory needs to be whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct References {
    /// The directories in it.
    pub directories: Vec<Descriptor>,
    /// Content of the files in it.
    pub files: Vec<Descriptor>,
}

/// What a directory's bytes refer to, one level deep.
///
/// # Errors
///
/// [`DecodeError`] when they are not a directory's.
pub fn references(bytes: &[u8], function: DigestFunction) -> Result<References, DecodeError> {
    let mut children = Vec::new();
    let directory = decode_directory(bytes, function, &mut children)?;
    let files = directory.entries.values().filter_map(|node| match node {
        Node::File { blob, .. } => Some(*blob),
        _ => None,
    });
    Ok(References { files: files.collect(), directories: children.into_iter().map(|(_, child)| child).collect() })
}

/// Decodes the tree named by `root`. `load` gives the bytes of each directory blob, verified.
///
/// # Errors
///
/// [`DecodeTreeError`]
pub fn decode<E: std::error::Error + 'static>(
    root: &Descriptor,
    load: &mut dyn FnMut(&Descriptor) -> Result<Vec<u8>, E>,
) -> Result<Directory, DecodeTreeError<E>> {
    let mut decoder = Decoder { load, known: BTreeMap::new(), node_count: 0 };
    let tree = decoder.directory(root, 0)?;
    for (path, target) in tree.links() {
        if target >= path || !matches!(tree.get(&target), Some(Node::File { .. })) {
            let source = DecodeError::Link { path, target };
            return Err(DecodeTreeError::Bytes { digest: root.digest, source });
        }
    }
    Ok(Arc::unwrap_or_clone(tree))
}

struct Decoder<'a, E> {
    load: &'a mut dyn FnMut(&Descriptor) -> Result<Vec<u8>, E>,
    /// Decoded directories with the number of nodes in them, so that a small file cannot unfold to a huge tree unnoticed.
    known: BTreeMap<Descriptor, (Arc<Directory>, usize)>,
    node_count: usize,
}

impl<E: std::error::Error + 'static> Decoder<'_, E> {
    fn directory(&mut self, descriptor: &Descriptor, depth: usize) -> Result<Arc<Directory>, DecodeTreeError<E>> {
        let damaged = |source| DecodeTreeError::Bytes { digest: descriptor.digest, source };
        if depth > MAX_DEPTH {
            return Err(damaged(DecodeError::Limit { what: "levels of directories", limit: MAX_DEPTH as u64 }));
        }
        if let Some((directory, count)) = self.known.get(descriptor).cloned() {
            self.count(count).map_err(damaged)?;
            return Ok(directory);
        }
        if descriptor.size > MAX_DIRECTORY_BYTES {
            return Err(damaged(DecodeError::Limit { what: "bytes in a directory", limit: MAX_DIRECTORY_BYTES }));
        }
        let bytes = (self.load)(descriptor).map_err(DecodeTreeError::Load)?;
        let before = self.node_count;
        let mut children = Vec::new();
        let mut directory = decode_directory(&bytes, descriptor.digest.function(), &mut children).map_err(damaged)?;
        self.count(directory.entries.len() + children.len()).map_err(damaged)?;
        for (name, child) in children {
            let child = self.directory(&child, depth + 1)?;
            directory.entries.insert(name, Node::Directory(child));
        }
        let directory = Arc::new(directory);
        self.known.insert(*descriptor, (directory.clone(), self.node_count - before));
        Ok(directory)
    }

    fn count(&mut self, count: usize) -> Result<(), DecodeError> {
        self.node_count = self.node_count.saturating_add(count);
        if self.node_count > MAX_NODES {
            return Err(DecodeError::Limit { what: "nodes", limit: MAX_NODES as u64 });
        }
        Ok(())
    }
}

/// Decodes one directory blob; its subdirectories come out in `children`.
fn decode_directory(
    bytes: &[u8],
    function: DigestFunction,
    children: &mut Vec<(Name, Descriptor)>,
) -> Result<Directory, DecodeError> {
    let mut input = Input { bytes, function };
    if input.take(8)? != MAGIC {
        return Err(DecodeError::Magic);
    }
    match input.byte()? {
        VERSION => {}
        version => return Err(DecodeError::Version(version)),
    }
    let code = input.byte()?;
    if function_code(function) != Some(code) {
        return Err(DecodeError::Function(code));
    }
    let flags = input.byte()?;
    if flags & !OPAQUE != 0 {
        return Err(DecodeError::Unknown(flags));
    }
    let mut directory = Directory::new(input.metadata()?);
    directory.opaque = flags & OPAQUE != 0;
    let count = input.varint()?;
    let mut last: Option<Name> = None;
    for _ in 0..count {
        let name = Name::new(input.bytes(usize::MAX)?)?;
        if last.as_ref().is_some_and(|last| *last >= name) {
            return Err(DecodeError::Order(name.to_string()));
        }
        last = Some(name.clone());
        match input.byte()? {
            DIRECTORY => {
                let child = input.descriptor()?;
                children.push((name, child));
            }
            kind => {
                let node = input.leaf(kind)?;
                directory.entries.insert(name, node);
            }
        }
    }
    match input.bytes.len() {
        0 => Ok(directory),
        count => Err(DecodeError::Trailing(count)),
    }
}

struct Input<'a> {
    bytes: &'a [u8],
    function: DigestFunction,
}

impl<'a> Input<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.bytes.split_at_checked(count).ok_or(DecodeError::Truncated)?;
        self.bytes = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, DecodeError> {
        Ok(self.take(1)?[0])
    }

    fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(DecodeError::Number);
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                // A last byte of zero would be a second, longer form of the same number.
                return if byte == 0 && shift > 0 { Err(DecodeError::Number) } else { Ok(value) };
            }
        }
        Err(DecodeError::Number)
    }

    fn number(&mut self) -> Result<u32, DecodeError> {
        u32::try_from(self.varint()?).map_err(|_| DecodeError::Number)
    }

    fn bytes(&mut self, limit: usize) -> Result<&'a [u8], DecodeError> {
        let length = usize::try_from(self.varint()?).map_err(|_| DecodeError::Truncated)?;
        if length > limit {
            return Err(DecodeError::Limit { what: "bytes in an attribute", limit: limit as u64 });
        }
        self.take(length)
    }

    fn descriptor(&mut self) -> Result<Descriptor, DecodeError> {
        let value = self.take(self.function.digest_len())?;
        let digest = Digest::from_value(self.function, value).expect("as many bytes as the function's digests have");
        Ok(Descriptor { digest, size: self.varint()? })
    }

    fn metadata(&mut self) -> Result<Metadata, DecodeError> {
        let mode = self.varint()?;
        if mode > 0o7777 {
            return Err(DecodeError::Mode(mode));
        }
        let mode = u32::try_from(mode).map_err(|_| DecodeError::Mode(mode))?;
        let (uid, gid) = (self.number()?, self.number()?);
        let count = self.varint()?;
        if count > MAX_XATTRS {
            return Err(DecodeError::Limit { what: "extended attributes", limit: MAX_XATTRS });
        }
        let mut xattrs: BTreeMap<Box<[u8]>, Box<[u8]>> = BTreeMap::new();
        for _ in 0..count {
            let name = self.bytes(255)?;
            if xattrs.last_key_value().is_some_and(|(last, _)| **last >= *name) {
                return Err(DecodeError::Order(String::from_utf8_lossy(name).into_owned()));
            }
            xattrs.insert(name.into(), self.bytes(MAX_XATTR)?.into());
        }
        Ok(Metadata { mode, uid, gid, xattrs })
    }

    fn leaf(&mut self, kind: u8) -> Result<Node, DecodeError> {
        Ok(match kind {
            FILE => Node::File { metadata: self.metadata()?, blob: self.descriptor()? },
            SYMLINK => {
                let metadata = self.metadata()?;
                if metadata.mode != 0o777 {
                    return Err(DecodeError::Mode(u64::from(metadata.mode)));
                }
                let target = self.bytes(usize::MAX)?;
                if target.is_empty() || target.len() > MAX_TARGET {
                    return Err(DecodeError::Target(target.len()));
                }
                Node::Symlink { metadata, target: target.into() }
            }
            LINK => Node::Link { target: RelPath::new(self.bytes(usize::MAX)?)? },
            CHARACTER_DEVICE | BLOCK_DEVICE => Node::Device {
                metadata: self.metadata()?,
                kind: if kind == BLOCK_DEVICE { DeviceKind::Block } else { DeviceKind::Character },
                major: self.number()?,
                minor: self.number()?,
            },
            FIFO => Node::Fifo { metadata: self.metadata()? },
            WHITEOUT => Node::Whiteout,
            kind => return Err(DecodeError::Unknown(kind)),
        })
    }
}
