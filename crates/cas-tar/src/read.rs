//! Reading foreign tar streams into trees.
//!
//! Headers are read by the `tar` crate (from 0.4.46 on, which has the advisories of 2026 mended); where entries go is
//! decided here, in a tree that cannot be left, so no link is ever followed.

use std::error::Error;
use std::io::{self, Read};
use std::sync::Arc;

use cas_blob::Descriptor;
use cas_tree::{DeviceKind, Directory, EditError, Metadata, Node, RelPath, RelPathError};
use tar::EntryType;

/// More entries than any real archive has.
const MAX_ENTRIES: u64 = 10_000_000;
/// Longest target of a symbolic link.
const MAX_TARGET_BYTES: usize = 4095;

/// Whether `.wh.` names mean that something is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whiteouts {
    /// They are names like others.
    Plain,
    /// They are whiteouts (OCI image-spec 1.1, layer.md).
    Layer,
}

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
    /// An entry cannot be put where it belongs.
    #[error("entry `{path}` of the archive cannot be placed")]
    Place {
        /// The entry.
        path: RelPath,
        /// Why not.
        source: EditError,
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
    whiteouts: Whiteouts,
    limits: ReadTarLimits,
    keep: &mut dyn FnMut(&mut dyn Read) -> Result<Descriptor, E>,
) -> Result<Directory, ReadTarError<E>> {
    let mut archive = tar::Archive::new(source);
    let mut tree = Directory::root();
    let (mut count, mut bytes) = (0, 0u64);
    for entry in archive.entries().map_err(ReadTarError::Archive)? {
        let mut entry = entry.map_err(ReadTarError::Archive)?;
        count += 1;
        if count > MAX_ENTRIES {
            return Err(ReadTarError::TooLarge { limit: MAX_ENTRIES, unit: "entries" });
        }
        let raw = entry.path_bytes().into_owned();
        let text = String::from_utf8_lossy(&raw).into_owned();
        let metadata = metadata(&mut entry, &text)?;
        let kind = entry.header().entry_type();
        let Some(path) = clean(&raw, &text)? else {
            // The root: its rights count, whatever else is said of it does not.
            if kind == EntryType::Directory {
                tree.metadata = metadata;
            }
            continue;
        };
        if whiteouts == Whiteouts::Layer && place_whiteout(&mut tree, &path)? {
            continue;
        }
        let node = match kind {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                bytes = bytes.saturating_add(entry.size());
                if bytes > limits.content_bytes {
                    return Err(ReadTarError::TooLarge { limit: limits.content_bytes, unit: "bytes of content" });
                }
                let size = entry.size();
                let blob = keep(&mut entry).map_err(|source| ReadTarError::Keep { path: text.clone(), source })?;
                if blob.size != size {
                    return Err(ReadTarError::Archive(io::ErrorKind::UnexpectedEof.into()));
                }
                Node::File { metadata, blob }
            }
            EntryType::Directory => {
                let mut directory = tree.get_directory(&path).map_or_else(Directory::root, |old| Directory::clone(old));
                directory.metadata = metadata;
                Node::Directory(Arc::new(directory))
            }
            EntryType::Symlink => {
                let target = entry.link_name_bytes().unwrap_or_default().into_owned();
                if target.is_empty() || target.len() > MAX_TARGET_BYTES || target.contains(&0) {
                    return Err(ReadTarError::Field { path: text, field: "link target" });
                }
                Node::Symlink { metadata: Metadata { mode: 0o777, ..metadata }, target: target.into() }
            }
            EntryType::Link => {
                let target = entry.link_name_bytes().unwrap_or_default().into_owned();
                let target = clean(&target, &text)?
                    .ok_or_else(|| ReadTarError::Field { path: text.clone(), field: "link target" })?;
                // A link to itself names nothing new.
                if target == path {
                    continue;
                }
                Node::Link { target }
            }
            EntryType::Char | EntryType::Block => {
                let number = |value: io::Result<Option<u32>>| {
                    value
                        .ok()
                        .flatten()
                        .ok_or_else(|| ReadTarError::Field { path: text.clone(), field: "device number" })
                };
                Node::Device {
                    metadata,
                    kind: if kind == EntryType::Char { DeviceKind::Character } else { DeviceKind::Block },
                    major: number(entry.header().device_major())?,
                    minor: number(entry.header().device_minor())?,
                }
            }
            EntryType::Fifo => Node::Fifo { metadata },
            // Comments for the whole archive.
            EntryType::XGlobalHeader => continue,
            other => return Err(ReadTarError::Kind { path: text, kind: char::from(other.as_byte()) }),
        };
        tree.insert(&path, node, &Metadata::root_owned(0o755))
            .map_err(|source| ReadTarError::Place { path: path.clone(), source })?;
    }
    Ok(tree)
}

fn metadata<R: Read, E: Error + 'static>(
    entry: &mut tar::Entry<'_, R>,
    text: &str,
) -> Result<Metadata, ReadTarError<E>> {
    let bad = |field| ReadTarError::Field { path: text.to_owned(), field };
    let mut mode = entry.header().mode().map_err(|_| bad("mode"))?;
    mode &= 0o7777;
    let id = |value: io::Result<u64>, field| value.ok().and_then(|id| u32::try_from(id).ok()).ok_or_else(|| bad(field));
    // npm leaves the fields of the owner empty.
    let is_empty = |field: &[u8]| field.iter().all(|byte| matches!(byte, 0 | b' '));
    let header = entry.header();
    let mut metadata = Metadata {
        mode,
        uid: if is_empty(&header.as_old().uid) { 0 } else { id(header.uid(), "user id")? },
        gid: if is_empty(&header.as_old().gid) { 0 } else { id(header.gid(), "group id")? },
        xattrs: std::collections::BTreeMap::new(),
    };
    let Some(extensions) = entry.pax_extensions().map_err(ReadTarError::Archive)? else { return Ok(metadata) };
    for extension in extensions {
        let extension = extension.map_err(ReadTarError::Archive)?;
        let number = |field| {
            let text = extension.value().ok();
            text.and_then(|text| text.parse().ok()).ok_or_else(|| bad(field))
        };
        match extension.key_bytes() {
            b"uid" => metadata.uid = number("user id")?,
            b"gid" => metadata.gid = number("group id")?,
            key => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.")
                    && !name.is_empty()
                {
                    metadata.xattrs.insert(name.into(), extension.value_bytes().into());
                }
            }
        }
    }
    Ok(metadata)
}

/// The path of a name, or `None` for the root.
fn clean<E: Error + 'static>(raw: &[u8], text: &str) -> Result<Option<RelPath>, ReadTarError<E>> {
    let parts: Vec<&[u8]> = raw.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b".")).collect();
    if parts.is_empty() {
        return Ok(None);
    }
    RelPath::new(parts.join(&b'/')).map(Some).map_err(|source| ReadTarError::Name { name: text.to_owned(), source })
}

/// Puts in what a `.wh.` name means; whether it was one.
fn place_whiteout<E: Error + 'static>(tree: &mut Directory, path: &RelPath) -> Result<bool, ReadTarError<E>> {
    let name = path.name();
    let Some(removed) = name.as_bytes().strip_prefix(b".wh.") else { return Ok(false) };
    let place = |source| ReadTarError::Place { path: path.clone(), source };
    let parents = Metadata::root_owned(0o755);
    if removed == b".wh..opq" {
        match path.parent() {
            None => tree.opaque = true,
            Some(parent) => {
                let mut directory =
                    tree.get_directory(&parent).map_or_else(Directory::root, |old| Directory::clone(old));
                directory.opaque = true;
                tree.insert(&parent, Node::Directory(Arc::new(directory)), &parents).map_err(place)?;
            }
        }
        return Ok(true);
    }
    let bad = |source| ReadTarError::Name { name: path.to_string(), source };
    let target = match path.parent() {
        None => RelPath::new(removed).map_err(bad)?,
        Some(parent) => RelPath::new([parent.as_bytes(), b"/", removed].concat()).map_err(bad)?,
    };
    // A layer that also ships the name means the new one; the order within a layer says nothing.
    if tree.get(&target).is_none() {
        tree.insert(&target, Node::Whiteout, &parents).map_err(place)?;
    }
    Ok(true)
}
