//! The upper directory of an overlay as the archive of a layer, read with the ids that the command had.
//!
//! From outside, an ordinary user could not read all that the command wrote, and would see other owners. What the notes of
//! the kernel mean is told in [`crate::changes()`]; here everything is kept: rights, owners, attributes, names of one file.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use cas_tar::{LayerStream, StreamEntry};
use cas_tree::Metadata;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, openat, readlinkat, statat};
use rustix::io::Errno;

use super::{At, Setup};
use crate::changes::{NOTES, OPAQUE, ORIGIN};
use crate::wire::{Bytes, Stage};

/// Names with this at their beginning mean something else in a layer.
const WHITEOUT: &[u8] = b".wh.";
/// Longest list of names of attributes: Linux's `XATTR_LIST_MAX`; and longest value, `XATTR_SIZE_MAX`.
const MAX_ATTRIBUTE_BYTES: usize = 64 << 10;
const BUFFER_BYTES: usize = 256 << 10;

/// Writes the layer.
pub(super) fn run(upper: &Bytes, output: OwnedFd) -> Setup<()> {
    let path = upper.clone().into_path();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = rustix::fs::open(&path, flags, Mode::empty()).at_path(Stage::Pack, &path)?;
    let output = BufWriter::with_capacity(BUFFER_BYTES, File::from(output));
    let mut packer = Packer { stream: LayerStream::new(output), names: BTreeMap::new() };
    if let Err((error, inside)) = packer.folders(folder) {
        return Err(error).at_path(Stage::Pack, OsStr::from_bytes(&inside).as_ref());
    }
    packer.stream.finish().at(Stage::Pack)
}

struct Packer<W> {
    stream: LayerStream<W>,
    /// The first name of each file with several, by device and inode.
    names: BTreeMap<(u64, u64), Vec<u8>>,
}

/// A folder that is being read.
struct Open {
    folder: OwnedFd,
    path: Vec<u8>,
    left: Names,
}

/// Names that are left, in the order of their bytes.
type Names = std::collections::btree_set::IntoIter<CString>;

/// What failed, and at which path.
type Failed = (std::io::Error, Vec<u8>);

impl<W: Write> Packer<W> {
    /// All that is in a folder, with an own stack: how deep it goes was the command's choice.
    fn folders(&mut self, top: OwnedFd) -> Result<(), Failed> {
        let left = names(&top).map_err(|error| (error, Vec::new()))?;
        let mut open = vec![Open { folder: top, path: Vec::new(), left }];
        while let Some(last) = open.last_mut() {
            let Some(name) = last.left.next() else {
                open.pop();
                continue;
            };
            let path = match last.path.as_slice() {
                b"" => name.to_bytes().to_vec(),
                above => [above, b"/", name.to_bytes()].concat(),
            };
            match self.entry(last.folder.as_fd(), &last.path, &name, &path) {
                Ok(None) => {}
                Ok(Some((folder, left))) => open.push(Open { folder, path, left }),
                Err(error) => return Err((error, path)),
            }
        }
        Ok(())
    }

    /// One entry; what is in it, if it is a folder.
    fn entry(
        &mut self,
        parent: BorrowedFd<'_>,
        above: &[u8],
        name: &CStr,
        path: &[u8],
    ) -> std::io::Result<Option<(OwnedFd, Names)>> {
        let stat = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::CharacterDevice && stat.st_rdev == 0 {
            self.stream.whiteout(above, name.to_bytes())?;
            return Ok(None);
        }
        if name.to_bytes().starts_with(WHITEOUT) {
            return Err(std::io::Error::other("names that begin with `.wh.` mean that something is removed"));
        }
        let mut metadata =
            Metadata { mode: stat.st_mode & 0o7777, uid: stat.st_uid, gid: stat.st_gid, xattrs: BTreeMap::new() };
        if kind != FileType::Directory && stat.st_nlink > 1 {
            let first = self.names.entry((stat.st_dev, stat.st_ino)).or_insert_with(|| path.to_vec());
            if first != path {
                self.stream.entry(path, &metadata, StreamEntry::Link(first))?;
                return Ok(None);
            }
        }
        let open = |flags| {
            let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            openat(parent, name, flags, Mode::empty())
        };
        match kind {
            FileType::Directory => {
                let folder = open(OFlags::DIRECTORY)?;
                let notes = attributes(&folder, &mut metadata)?;
                self.stream.entry(path, &metadata, StreamEntry::Directory)?;
                // The kernel marks new folders so as well; for them it says nothing.
                if notes.get(OPAQUE.as_bytes()).is_some_and(|value| value == b"y")
                    && !notes.contains_key(ORIGIN.as_bytes())
                {
                    self.stream.opaque(path)?;
                }
                let left = names(&folder)?;
                return Ok(Some((folder, left)));
            }
            FileType::RegularFile => {
                let file = open(OFlags::empty())?;
                attributes(&file, &mut metadata)?;
                self.stream.file(path, &metadata, size(&stat)?, std::fs::File::from(file))?;
            }
            FileType::Symlink => {
                let target = readlinkat(parent, name, Vec::new())?;
                self.stream.entry(path, &metadata, StreamEntry::Symlink(target.to_bytes()))?;
            }
            FileType::Fifo => self.stream.entry(path, &metadata, StreamEntry::Fifo)?,
            // A name in the file system for a process that is gone; archives have no kind for it.
            FileType::Socket => {}
            _ => return Err(std::io::Error::other("a device, which no command can make")),
        }
        Ok(None)
    }
}

fn size(stat: &Stat) -> std::io::Result<u64> {
    u64::try_from(stat.st_size).map_err(|_| std::io::ErrorKind::InvalidData.into())
}

/// The names in a folder, in the order of their bytes.
fn names(folder: &OwnedFd) -> std::io::Result<Names> {
    let mut names = BTreeSet::new();
    for entry in Dir::read_from(folder)? {
        let name = entry?.file_name().to_owned();
        if !matches!(name.to_bytes(), b"." | b"..") {
            names.insert(name);
        }
    }
    Ok(names.into_iter())
}

/// Adds the attributes of a file; gives the kernel's notes of the overlay, which are none of the file's own.
fn attributes(file: &OwnedFd, metadata: &mut Metadata) -> std::io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut list = vec![0; MAX_ATTRIBUTE_BYTES];
    let length = match rustix::fs::flistxattr(file, &mut list) {
        Err(Errno::NOTSUP) => 0,
        other => other?,
    };
    let (mut notes, mut value) = (BTreeMap::new(), vec![0; MAX_ATTRIBUTE_BYTES]);
    for name in list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let length = match rustix::fs::fgetxattr(file, name, &mut value) {
            // Listed, and not for everybody to read: the attribute of a security module.
            Err(Errno::NODATA | Errno::NOTSUP | Errno::PERM) => continue,
            other => other?,
        };
        if name.starts_with(NOTES.as_bytes()) {
            notes.insert(name.to_vec(), value[..length].to_vec());
        } else if name.starts_with(b"user.") || name == b"security.capability" || name.starts_with(b"system.posix_acl_")
        {
            metadata.xattrs.insert(name.into(), value[..length].into());
        }
    }
    Ok(notes)
}
