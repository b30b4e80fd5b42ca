//! Reading foreign tar streams into trees, and layers over trees.
//!
//! Where entries go is decided here, in a tree that cannot be left.

use std::error::Error;
use std::io::{self, BufReader, Read};
use std::sync::Arc;

use cas_blob::Descriptor;
use cas_tree::{
    DeviceKind, Directory, EditError, MAX_DEPTH, Metadata, Node, RelPath, RelPathError, UnpackError, Unpacking,
};

use crate::entries::{Entries, Entry, Kind};

/// More entries than any real archive has.
pub(crate) const MAX_ENTRIES: u64 = 10_000_000;
/// Longest target of a symbolic link.
const MAX_TARGET_BYTES: usize = 4095;
/// What is read of a stream at once, where content does not ask for more.
const BUFFER_BYTES: usize = 64 << 10;
/// Longest extended attribute: Linux's `XATTR_SIZE_MAX`.
const MAX_XATTR_VALUE_BYTES: usize = 64 << 10;
/// Most bytes of extended attributes in one archive: all of them are in memory, and in the tree.
const MAX_XATTR_BYTES: u64 = 64 << 20;
/// How much of a name is shown in any case.
const MAX_SHOWN_CHARACTERS: usize = 300;
/// How much of a long name is shown.
const SHOWN_CHARACTERS: usize = 60;
/// Names with this before them remove what lower layers have (OCI image-spec 1.1, layer.md, Whiteouts).
const WHITEOUT: &[u8] = b".wh.";
/// This one removes all that lower layers have in its directory.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Others of these are for AUFS's own use.
const AUFS: &[u8] = b".wh..wh.";

/// What an archive may hold.
#[derive(Clone, Copy, Debug)]
pub struct ReadTarLimits {
    /// Sum of the sizes of regular files.
    pub content_bytes: u64,
}

/// Why an archive could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadTarError<E: Error + 'static> {
    /// The bytes are not a tar archive, or reading them failed.
    #[error("could not read the archive")]
    Archive(#[source] io::Error),
    /// A name that cannot be in a tree.
    #[error("the archive holds the name `{name}`")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        source: RelPathError,
    },
    /// A name that is deeper than any real one.
    #[error("the archive holds a name of more than {MAX_DEPTH} parts, which begins with `{name}`")]
    Depth {
        /// Its beginning.
        name: String,
    },
    /// An entry cannot be put where it belongs.
    #[error("entry `{path}` of the archive cannot be placed")]
    Place {
        /// The entry.
        path: RelPath,
        /// Why not.
        source: EditError,
    },
    /// An entry of a layer cannot be put over what is there.
    #[error("entry `{path}` of the layer cannot be placed")]
    Unpack {
        /// The entry.
        path: RelPath,
        /// Why not.
        source: UnpackError,
    },
    /// An entry of a kind that trees do not have.
    #[error("entry `{path}` of the archive has the unknown type `{kind}`")]
    Kind {
        /// The entry.
        path: String,
        /// The type flag.
        kind: char,
    },
    /// A field of an entry holds what it must not.
    #[error("entry `{path}` of the archive has a bad {field}")]
    Field {
        /// The entry.
        path: String,
        /// Which field.
        field: &'static str,
    },
    /// The archive is larger than its use allows.
    #[error("the archive holds more than {limit} {unit}, the limit of its use here")]
    TooLarge {
        /// The limit.
        limit: u64,
        /// Of what.
        unit: &'static str,
    },
    /// The content could not be kept.
    #[error("could not keep `{path}` of the archive")]
    Keep {
        /// The entry.
        path: String,
        /// Why not.
        source: E,
    },
}

/// Reads an archive into a tree. `keep` stores the content of a regular file and names it.
///
/// # Errors
///
/// [`ReadTarError`]
pub fn read_tree<E: Error + 'static>(
    source: &mut dyn Read,
    limits: ReadTarLimits,
    keep: &mut dyn FnMut(&mut dyn Read) -> Result<Descriptor, E>,
) -> Result<Directory, ReadTarError<E>> {
    let mut tree = Directory::root();
    let place = |path: &RelPath| {
        let path = path.clone();
        |source| ReadTarError::Place { path, source }
    };
    each(source, limits, &mut |_, _, content| keep(content), &mut |item, _| match item {
        Item::Root(metadata) => {
            tree.metadata = metadata;
            Ok(())
        }
        Item::Node(path, node) => {
            let node = match (node, tree.get_directory(&path)) {
                (Node::Directory(new), Some(old)) => {
                    let mut directory = Directory::clone(old);
                    directory.metadata = new.metadata.clone();
                    Node::Directory(Arc::new(directory))
                }
                (node, _) => node,
            };
            tree.insert(&path, node, &Metadata::root_owned(0o755)).map_err(place(&path))
        }
        // A link to itself names nothing new.
        Item::Link(path, target) if path == target => Ok(()),
        Item::Link(path, target) => {
            tree.insert(&path, Node::Link { target }, &Metadata::root_owned(0o755)).map_err(place(&path))
        }
    })?;
    Ok(tree)
}

/// Puts a layer over a tree: its whiteouts remove, everything else is put in. `keep` stores the content of a regular file and
/// names it. Bytes after the end of the archive are not read.
///
/// # Errors
///
/// [`ReadTarError`]; part of the layer is in the tree then.
pub fn read_layer<E: Error + 'static>(
    tree: &mut Unpacking,
    source: &mut dyn Read,
    limits: ReadTarLimits,
    keep: &mut dyn FnMut(&mut dyn Read) -> Result<Descriptor, E>,
) -> Result<(), ReadTarError<E>> {
    tree.next_layer();
    each(source, limits, &mut |_, _, content| keep(content), &mut |item, _| {
        let (path, thing) = match item {
            Item::Root(metadata) => {
                tree.root(metadata);
                return Ok(());
            }
            Item::Link(path, target) => (path, Err(target)),
            Item::Node(path, node) => (path, Ok(node)),
        };
        // Its name makes a whiteout, whatever it is: some are links to the first one.
        let done = match path.name().as_bytes() {
            OPAQUE => tree.opaque(path.parent().as_ref()),
            name if name.starts_with(AUFS) => Ok(()),
            name => match (name.strip_prefix(WHITEOUT), thing) {
                (Some(removed), _) => tree.whiteout(&beside(&path, removed)?),
                (None, Ok(node)) => tree.put(&path, node),
                (None, Err(target)) => tree.link(&path, &target),
            },
        };
        done.map_err(|source| ReadTarError::Unpack { path, source })
    })
}

/// Keeps the content of a regular file of an archive, told by its path and size, and names it.
pub type KeepContent<'a, E> = dyn FnMut(&RelPath, u64, &mut dyn Read) -> Result<Descriptor, E> + 'a;

/// Reads what a layer says, entry by entry, without a tree to put it over. `keep` is told the path and size of a regular file,
/// reads its content and names it. Bytes after the end of the archive are not read.
///
/// # Errors
///
/// [`ReadTarError`]
pub fn read_entries<E: Error + 'static>(
    source: &mut dyn Read,
    limits: ReadTarLimits,
    keep: &mut KeepContent<'_, E>,
    take: &mut dyn FnMut(LayerEntry) -> Result<(), ReadTarError<E>>,
) -> Result<(), ReadTarError<E>> {
    each(source, limits, keep, &mut |item, span| {
        let (path, what) = match item {
            Item::Root(metadata) => (None, LayerItem::Root(metadata)),
            Item::Node(path, node) => (Some(path), LayerItem::Node(node)),
            Item::Link(path, target) => (Some(path), LayerItem::Link(target)),
        };
        let what = match &path {
            None => what,
            Some(path) => match path.name().as_bytes() {
                OPAQUE => LayerItem::Opaque,
                name if name.starts_with(AUFS) => LayerItem::Note,
                name => match name.strip_prefix(WHITEOUT) {
                    Some(removed) => LayerItem::Whiteout(beside(path, removed)?),
                    None => what,
                },
            },
        };
        take(LayerEntry { path, what, span })
    })
}

/// An entry of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerEntry {
    /// Its own name; of a whiteout with what makes it one. `None` is the root.
    pub path: Option<RelPath>,
    /// What it says.
    pub what: LayerItem,
    /// How much of the archive it is.
    pub span: Span,
}

/// What an entry of a layer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LayerItem {
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
    /// A note of AUFS.
    Note,
}

/// How many bytes of an archive an entry takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its headers, with what extends them.
    pub header_bytes: u64,
    /// All of it: headers, content and padding.
    pub bytes: u64,
}

/// Another name in the directory of a path.
fn beside<E: Error + 'static>(path: &RelPath, name: &[u8]) -> Result<RelPath, ReadTarError<E>> {
    let joined = match path.parent() {
        None => RelPath::new(name),
        Some(parent) => RelPath::new([parent.as_bytes(), b"/", name].concat()),
    };
    joined.map_err(|source| ReadTarError::Name { name: path.to_string(), source })
}

/// What an entry means.
enum Item {
    /// The root's own rights and owners.
    Root(Metadata),
    /// Something at a path; a directory is empty.
    Node(RelPath, Node),
    /// A further name of what is at the second path.
    Link(RelPath, RelPath),
}

/// Reads the entries of an archive one after another.
fn each<E: Error + 'static>(
    source: &mut dyn Read,
    limits: ReadTarLimits,
    keep: &mut KeepContent<'_, E>,
    take: &mut dyn FnMut(Item, Span) -> Result<(), ReadTarError<E>>,
) -> Result<(), ReadTarError<E>> {
    let mut entries = Entries::new(BufReader::with_capacity(BUFFER_BYTES, source));
    let (mut count, mut left, mut xattrs_left) = (0, limits.content_bytes, MAX_XATTR_BYTES);
    let mut start = 0;
    while let Some(entry) = entries.next_entry().map_err(ReadTarError::Archive)? {
        let (content_start, end) = entries.bounds();
        let span = Span { header_bytes: content_start - start, bytes: end - start };
        start = end;
        count += 1;
        if count > MAX_ENTRIES {
            return Err(ReadTarError::TooLarge { limit: MAX_ENTRIES, unit: "entries" });
        }
        let text = shown(&entry.name);
        let metadata = metadata(&entry, &text)?;
        let xattr_bytes: usize = metadata.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
        xattrs_left = xattrs_left
            .checked_sub(xattr_bytes as u64)
            .ok_or(ReadTarError::TooLarge { limit: MAX_XATTR_BYTES, unit: "bytes of extended attributes" })?;
        let Some(path) = clean(&entry.name, &text)? else {
            // The root: its rights count, whatever else is said of it does not.
            if entry.kind == Kind::Directory {
                take(Item::Root(metadata), span)?;
            }
            continue;
        };
        let node = match entry.kind {
            Kind::File => {
                let (size, limit) = (entry.size, limits.content_bytes);
                left = left.checked_sub(size).ok_or(ReadTarError::TooLarge { limit, unit: "bytes of content" })?;
                let kept = keep(&path, size, &mut entries.content());
                let blob = kept.map_err(|source| ReadTarError::Keep { path: text.clone(), source })?;
                if blob.size != size {
                    return Err(ReadTarError::Archive(io::ErrorKind::UnexpectedEof.into()));
                }
                Node::File { metadata, blob }
            }
            Kind::Directory => Node::Directory(Arc::new(Directory::new(metadata))),
            Kind::Symlink => {
                let target = entry.target;
                if target.is_empty() || target.len() > MAX_TARGET_BYTES || target.contains(&0) {
                    return Err(ReadTarError::Field { path: text, field: "link target" });
                }
                Node::Symlink { metadata: Metadata { mode: 0o777, ..metadata }, target: target.into() }
            }
            Kind::Link => {
                let target = clean(&entry.target, &shown(&entry.target))?;
                let target = target.ok_or(ReadTarError::Field { path: text, field: "link target" })?;
                take(Item::Link(path, target), span)?;
                continue;
            }
            Kind::Character | Kind::Block => {
                let kind = if entry.kind == Kind::Character { DeviceKind::Character } else { DeviceKind::Block };
                let (major, minor) = entry.device.ok_or(ReadTarError::Field { path: text, field: "device number" })?;
                Node::Device { metadata, kind, major, minor }
            }
            Kind::Fifo => Node::Fifo { metadata },
            Kind::Other(flag) => return Err(ReadTarError::Kind { path: text, kind: char::from(flag) }),
        };
        take(Item::Node(path, node), span)?;
    }
    Ok(())
}

/// A name as errors have it: the first of its characters, however many follow.
fn shown(name: &[u8]) -> String {
    let text = String::from_utf8_lossy(&name[..name.len().min(MAX_TARGET_BYTES)]);
    match text.char_indices().nth(MAX_SHOWN_CHARACTERS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into_owned(),
    }
}

fn metadata<E: Error + 'static>(entry: &Entry, text: &str) -> Result<Metadata, ReadTarError<E>> {
    let id = |id: u64, field| u32::try_from(id).map_err(|_| ReadTarError::Field { path: text.to_owned(), field });
    let mut xattrs = entry.xattrs.clone();
    // They are notes of overlayfs about its own layers, and would mean something in a folder that is one.
    xattrs.retain(|name, _| !name.starts_with(b"trusted.overlay.") && !name.starts_with(b"user.overlay."));
    if xattrs.values().any(|value| value.len() > MAX_XATTR_VALUE_BYTES) {
        return Err(ReadTarError::Field { path: text.to_owned(), field: "extended attribute" });
    }
    Ok(Metadata { mode: entry.mode, uid: id(entry.uid, "user id")?, gid: id(entry.gid, "group id")?, xattrs })
}

/// The path of a name, or `None` for the root.
fn clean<E: Error + 'static>(raw: &[u8], text: &str) -> Result<Option<RelPath>, ReadTarError<E>> {
    let parts: Vec<&[u8]> = raw.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b".")).collect();
    if parts.is_empty() {
        return Ok(None);
    }
    if parts.len() > MAX_DEPTH {
        return Err(ReadTarError::Depth { name: text.chars().take(SHOWN_CHARACTERS).collect() });
    }
    RelPath::new(parts.join(&b'/')).map(Some).map_err(|source| ReadTarError::Name { name: text.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use cas_digest::DigestFunction;

    use super::*;
    use crate::{LayerStream, StreamEntry};

    fn list(archive: &[u8]) -> Vec<LayerEntry> {
        let keep = &mut |_: &RelPath, _: u64, content: &mut dyn Read| {
            let mut bytes = Vec::new();
            content.read_to_end(&mut bytes)?;
            Ok::<_, io::Error>(Descriptor::of(DigestFunction::Sha256, &bytes))
        };
        let mut entries = Vec::new();
        let take = &mut |entry| {
            entries.push(entry);
            Ok(())
        };
        read_entries(&mut &archive[..], ReadTarLimits { content_bytes: 1 << 20 }, keep, take).expect("it is a layer");
        entries
    }

    /// What is cut out of an archive leaves one without that entry, whatever its headers need.
    #[test]
    fn entries_take_what_their_spans_say() {
        let root_owned = Metadata::root_owned;
        let xattrs = BTreeMap::from([((*b"user.x").into(), vec![7; 3000].into())]);
        let long = [b"d/".repeat(120), b"name".to_vec()].concat();
        let mut archive = Vec::new();
        let mut stream = LayerStream::new(&mut archive);
        stream.entry(b".", &root_owned(0o700), StreamEntry::Directory).expect("memory");
        stream.whiteout(b"a", b"gone").expect("memory");
        stream.opaque(b"a").expect("memory");
        stream.file(b"a/file", &root_owned(0o644), 513, &[1; 513][..]).expect("memory");
        stream.file(&long, &Metadata { xattrs, ..root_owned(0o644) }, 512, &[2; 512][..]).expect("memory");
        stream.entry(b"a/link", &root_owned(0o777), StreamEntry::Link(&long)).expect("memory");
        stream.entry(b"a/empty", &root_owned(0o644), StreamEntry::File(0)).expect("memory");
        stream.finish().expect("memory");
        let entries = list(&archive);
        let told: Vec<(bool, u64)> =
            entries.iter().map(|entry| (entry.path.is_none(), entry.span.bytes - entry.span.header_bytes)).collect();
        assert_eq!(told, [(true, 0), (false, 0), (false, 0), (false, 1024), (false, 512), (false, 0), (false, 0)]);
        let path = |text: &str| RelPath::new(text).expect("it is a path");
        assert_eq!(entries[1].what, LayerItem::Whiteout(path("a/gone")));
        assert_eq!((&entries[2].what, &entries[2].path), (&LayerItem::Opaque, &Some(path("a/.wh..wh..opq"))));
        assert_eq!(entries[3].span.header_bytes, 512);
        assert!(entries[4].span.header_bytes > 3000 + 1024, "{:?}", entries[4].span);
        assert_eq!(entries.iter().map(|entry| entry.span.bytes).sum::<u64>() + 1024, archive.len() as u64);
        let mut start = 0;
        for (index, entry) in entries.iter().enumerate() {
            let end = start + usize::try_from(entry.span.bytes).expect("it is short");
            let mut others = entries.clone();
            others.remove(index);
            assert_eq!(list(&[&archive[..start], &archive[end..]].concat()), others, "{:?}", entry.path);
            start = end;
        }
    }
}
