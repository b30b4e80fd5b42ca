//! Trees written out as folders: what a sandbox shows as its lower, read-only part.
//!
//! A root has one inode per path but for the tree's own hard links: files that share an inode by accident look like hard
//! links to an archiver inside a step. It is never linked to objects, so a step that finds a way to write harms no blob.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use cas_blob::{Descriptor, OpenBlob};
use cas_fs::{FsError, Operation};
use cas_tree::{Directory, EPOCH_SECONDS, Node, RelPath};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};

use crate::{Store, StoreError};

pub(crate) struct Roots<'a> {
    pub(crate) folder: PathBuf,
    pub(crate) store: &'a Store,
}

impl Store {
    /// Writes the tree out, unless that was done before, and returns the folder. It must not be written.
    ///
    /// # Errors
    ///
    /// [`StoreError::Missing`] when content is not here, [`StoreError::Node`] for devices, fifos and whiteouts,
    /// [`StoreError::Fs`].
    pub fn materialize(&self, name: &Descriptor, tree: &Directory) -> Result<PathBuf, StoreError> {
        self.roots().get_or_make(name, tree)
    }

    /// Writes the tree into the new folder `target`, with the constant time and the modes of the tree.
    ///
    /// # Errors
    ///
    /// As for [`Store::materialize`]; the folder is then incomplete.
    pub fn write_tree(&self, tree: &Directory, target: &Path) -> Result<(), StoreError> {
        write_tree(self, tree, target)
    }
}

impl Roots<'_> {
    fn get_or_make(&self, name: &Descriptor, tree: &Directory) -> Result<PathBuf, StoreError> {
        let path = self.folder.join(format!("{}-{}", name.digest.function(), name.digest.to_hex()));
        if cas_fs::exists(&path)? {
            return Ok(path);
        }
        let temporary = cas_fs::temporary_dir_in(self.store.scratch(), "root-")?;
        let target = temporary.join("root");
        write_tree(self.store, tree, &target)?;
        match cas_fs::rename(&target, &path) {
            Ok(()) => {}
            // Another process was faster; its root is equal.
            Err(_) if cas_fs::exists(&path)? => {}
            Err(error) => return Err(error.into()),
        }
        cas_fs::remove_tree(&temporary)?;
        Ok(path)
    }
}

fn write_tree(store: &Store, tree: &Directory, target: &Path) -> Result<(), StoreError> {
    cas_fs::create_dir_with_mode(target, 0o700)?;
    let mut buffer = vec![0; 256 * 1024];
    write_entries(store, tree, None, target, &mut buffer)?;
    finish_directory(target, tree.metadata.mode)?;
    Ok(())
}

fn write_entries(
    store: &Store,
    directory: &Directory,
    path: Option<&RelPath>,
    target: &Path,
    buffer: &mut [u8],
) -> Result<(), StoreError> {
    for (name, node) in directory.entries() {
        let at = target.join(OsStr::from_bytes(name.as_bytes()));
        let path = path.map_or_else(|| RelPath::from(name.clone()), |path| path.join(name));
        let refuse = |kind| StoreError::Node { path: path.clone(), kind };
        match node {
            Node::Directory(child) => {
                cas_fs::create_dir_with_mode(&at, 0o700)?;
                write_entries(store, child, Some(&path), &at, buffer)?;
                finish_directory(&at, child.metadata.mode)?;
            }
            Node::File { metadata, blob } => write_file(store, blob, metadata.mode, &at, buffer)?,
            Node::Symlink { target, .. } => {
                cas_fs::symlink(Path::new(OsStr::from_bytes(target)), &at)?;
                set_time(&at)?;
            }
            Node::Link { target: file } => {
                // The file comes first in order, so it has been written; its path is under the same top folder.
                let depth = path.components().count();
                let root = at.ancestors().nth(depth).expect("a path is as deep as it has components");
                cas_fs::hard_link(&root.join(OsStr::from_bytes(file.as_bytes())), &at)?;
            }
            Node::Device { .. } => return Err(refuse("device")),
            Node::Fifo { .. } => return Err(refuse("fifo")),
            Node::Whiteout => return Err(refuse("whiteout")),
        }
    }
    Ok(())
}

fn write_file(store: &Store, blob: &Descriptor, mode: u32, at: &Path, buffer: &mut [u8]) -> Result<(), StoreError> {
    let mut source = store.open_blob(blob)?;
    let mut file = cas_fs::create_new(at, 0o600)?;
    loop {
        let count = match source.read(buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(source) => return Err(StoreError::Read { blob: *blob, source }),
        };
        file.write_all(&buffer[..count]).map_err(|error| FsError::new(Operation::Write, at, error))?;
    }
    let at_error = |error: rustix::io::Errno| FsError::new(Operation::SetMode, at, error.into());
    rustix::fs::fchmod(file.as_fd(), rustix::fs::Mode::from_raw_mode(mode)).map_err(at_error)?;
    rustix::fs::futimens(file.as_fd(), &constant_times()).map_err(at_error)?;
    Ok(())
}

fn finish_directory(path: &Path, mode: u32) -> Result<(), FsError> {
    cas_fs::set_mode(path, mode)?;
    set_time(path)
}

fn set_time(path: &Path) -> Result<(), FsError> {
    rustix::fs::utimensat(CWD, path, &constant_times(), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|error| FsError::new(Operation::SetMode, path, error.into()))
}

fn constant_times() -> Timestamps {
    let time = Timespec { tv_sec: i64::from(EPOCH_SECONDS), tv_nsec: 0 };
    Timestamps { last_access: time, last_modification: time }
}
