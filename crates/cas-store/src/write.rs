//! A tree as files: folders first, then files by several threads, then hard links, then times and rights of folders.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::Ordering;

use cas_blob::{Descriptor, OpenBlob};
use cas_fs::{FsError, Operation};
use cas_tree::{Directory, EPOCH_SECONDS, Metadata, Node, RelPath};
use rayon::prelude::*;
use rustix::fs::{AtFlags, CWD, Mode, Timespec, Timestamps};
use rustix::io::Errno;

use crate::objects::SMALL_BYTES;
use crate::{Store, StoreError};

/// Blocks of files from this size on are shared where the file system can; for a smaller one copying is cheaper.
const MIN_SHARED_BYTES: u64 = 32 * 1024;
const BUFFER_BYTES: usize = 256 * 1024;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Writes a tree into the new folder `target`.
pub(crate) fn write_tree(store: &Store, tree: &Directory, target: &Path) -> Result<(), StoreError> {
    cas_fs::create_dir_with_mode(target, 0o700)?;
    write_entries(store, tree, None, target)?;
    let links = tree.links();
    for (path, file) in links {
        // The file was written; its path is under the same top folder.
        cas_fs::hard_link(&at(target, &file), &at(target, &path))?;
    }
    finish(tree, target)?;
    Ok(())
}

fn at(target: &Path, path: &RelPath) -> std::path::PathBuf {
    target.join(OsStr::from_bytes(path.as_bytes()))
}

fn write_entries(
    store: &Store,
    directory: &Directory,
    path: Option<&RelPath>,
    target: &Path,
) -> Result<(), StoreError> {
    let entries: Vec<_> = directory.entries().collect();
    entries.par_iter().with_min_len(8).try_for_each(|(name, node)| {
        let target = target.join(OsStr::from_bytes(name.as_bytes()));
        let path = || path.map_or_else(|| RelPath::from((*name).clone()), |path| path.join(name));
        let refuse = |kind| StoreError::Node { path: path(), kind };
        match node {
            Node::Directory(child) => {
                cas_fs::create_dir_with_mode(&target, 0o700)?;
                write_entries(store, child, Some(&path()), &target)
            }
            Node::File { metadata, blob } => write_file(store, blob, metadata, &target),
            Node::Symlink { target: text, .. } => {
                cas_fs::symlink(Path::new(OsStr::from_bytes(text)), &target)?;
                Ok(set_time(&target)?)
            }
            Node::Link { .. } => Ok(()),
            Node::Device { .. } => Err(refuse("device")),
            Node::Fifo { .. } => Err(refuse("fifo")),
            Node::Whiteout => Err(refuse("whiteout")),
        }
    })
}

/// Rights and times of folders, from the deepest on: what is made in a folder moves its time.
fn finish(directory: &Directory, target: &Path) -> Result<(), FsError> {
    for (name, node) in directory.entries() {
        if let Node::Directory(child) = node {
            finish(child, &target.join(OsStr::from_bytes(name.as_bytes())))?;
        }
    }
    cas_fs::set_mode(target, directory.metadata.mode)?;
    set_time(target)
}

fn write_file(store: &Store, blob: &Descriptor, metadata: &Metadata, target: &Path) -> Result<(), StoreError> {
    let mut file = cas_fs::create_new(target, 0o600)?;
    if !share(store, blob, &file)? {
        copy(store, blob, &mut file, target)?;
    }
    let failed = |error: Errno| FsError::new(Operation::SetMode, target, error.into());
    rustix::fs::fchmod(file.as_fd(), Mode::from_raw_mode(metadata.mode)).map_err(failed)?;
    rustix::fs::futimens(file.as_fd(), &constant_times()).map_err(failed)?;
    Ok(())
}

/// Lets the file share the object's blocks; whether that could be done.
fn share(store: &Store, blob: &Descriptor, file: &File) -> Result<bool, StoreError> {
    if blob.size < MIN_SHARED_BYTES || !store.blocks_can_be_shared.load(Ordering::Relaxed) {
        return Ok(false);
    }
    // Nobody reads the bytes on this way, so they must have been checked.
    let Some(path) = store.checked_path(blob)? else { return Ok(false) };
    let object = cas_fs::open(&path)?;
    match rustix::fs::ioctl_ficlone(file, &object) {
        Ok(()) => Ok(true),
        Err(Errno::OPNOTSUPP | Errno::XDEV | Errno::INVAL | Errno::NOTTY | Errno::NOSYS) => {
            store.blocks_can_be_shared.store(false, Ordering::Relaxed);
            Ok(false)
        }
        // Copying tells what is wrong, or works.
        Err(_) => Ok(false),
    }
}

fn copy(store: &Store, blob: &Descriptor, file: &mut File, target: &Path) -> Result<(), StoreError> {
    let failed = |error| FsError::new(Operation::Write, target, error);
    if blob.size <= SMALL_BYTES as u64 {
        let bytes = store.load(blob, SMALL_BYTES as u64)?;
        return Ok(file.write_all(&bytes).map_err(failed)?);
    }
    let mut source = store.open_blob(blob)?;
    BUFFER.with_borrow_mut(|buffer| {
        buffer.resize(BUFFER_BYTES, 0);
        loop {
            let count = match source.read(buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(StoreError::Read { blob: *blob, source }),
            };
            file.write_all(&buffer[..count]).map_err(failed)?;
        }
    })
}

fn set_time(path: &Path) -> Result<(), FsError> {
    rustix::fs::utimensat(CWD, path, &constant_times(), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|error| FsError::new(Operation::SetMode, path, error.into()))
}

fn constant_times() -> Timestamps {
    let time = Timespec { tv_sec: i64::from(EPOCH_SECONDS), tv_nsec: 0 };
    Timestamps { last_access: time, last_modification: time }
}
