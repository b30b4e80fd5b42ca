//! What a command changed, read from the upper directory of its overlay after the sandbox has ended.
//!
//! The kernel's notes there: a character device 0:0 is a removed name (a *whiteout*), the attribute
//! `user.overlay.opaque` = `y` says that a directory hides the lower one of that name, and `user.overlay.origin` says that
//! a directory is only there to hold changes. (Linux, Documentation/filesystems/overlayfs.rst.)
//!
//! Not here: whether what was written differs from what was there (a file written with its old content is reported), and
//! whether the step was allowed to (`cas-build`).

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use cas_fs::FsError;
use cas_tree::{RelPath, RelPathError};
use rustix::io::Errno;

use crate::limits::MAX_SCRATCH_DEPTH;

/// What is at a path now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory that the step made, or that replaced something else.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A device; a sandboxed command cannot make one.
    Device,
}

/// One change to the tree that a command saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The path was made, or changed, or only touched.
    Written {
        /// Relative to the root of the overlay.
        path: RelPath,
        /// What it is now.
        kind: Kind,
        /// The twelve mode bits that the step left.
        mode: u32,
    },
    /// The path is gone that the lower directories have.
    Removed {
        /// Relative to the root of the overlay.
        path: RelPath,
    },
    /// The directory hides what the lower directories have in it; what it holds follows.
    ///
    /// The kernel also marks new directories so: where the lower ones have no such directory, this says nothing.
    Opaque {
        /// Relative to the root of the overlay; the directory itself is reported as written before.
        path: RelPath,
    },
}

impl Change {
    /// The path that changed.
    #[must_use]
    pub fn path(&self) -> &RelPath {
        match self {
            Self::Written { path, .. } | Self::Removed { path } | Self::Opaque { path } => path,
        }
    }
}

/// Why changes could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ChangesError {
    /// A file operation failed.
    #[error("could not read what the step wrote")]
    Io(#[from] FsError),
    /// The step made more folders inside of each other than it may.
    #[error("step made more than {MAX_SCRATCH_DEPTH} folders inside of each other, in `{}`", top.display())]
    TooDeep {
        /// The uppermost of them, in the folder that it wrote to.
        top: PathBuf,
    },
    /// The step made a path that no tree can hold.
    #[error("step wrote a path that is too long, below `{}`", parent.display())]
    Path {
        /// The directory that it is in, in the upper directory.
        parent: PathBuf,
        /// What is wrong.
        source: RelPathError,
    },
}

/// Lists what a command changed in an overlay, each directory before what it holds, names in the order of their bytes.
///
/// A directory that is there only because something inside changed is no change; so a changed mode or time of a directory
/// is none either. Files and directories that lack their owner's right to read get it on the way, so that what is
/// reported can be read; the mode that the step left is in the result.
///
/// # Errors
///
/// [`ChangesError`]
pub fn changes(upper: &Path) -> Result<Vec<Change>, ChangesError> {
    let mut changes = Vec::new();
    visit(upper, &mut |path, file, found| {
        let written = Change::Written { path: path.clone(), kind: found.kind, mode: found.mode };
        match found.kind {
            Kind::Directory => {
                if attribute(file, ORIGIN)?.is_none() {
                    changes.push(written);
                }
                if attribute(file, OPAQUE)?.as_deref() == Some(b"y") {
                    changes.push(Change::Opaque { path });
                }
            }
            Kind::Device if found.metadata.file_type().is_char_device() && found.metadata.rdev() == 0 => {
                changes.push(Change::Removed { path });
            }
            _ => changes.push(written),
        }
        Ok(())
    })?;
    Ok(changes)
}

/// What is at a path of a folder that is walked.
pub(crate) struct Found {
    pub(crate) kind: Kind,
    /// The twelve mode bits before anything was added to them.
    pub(crate) mode: u32,
    pub(crate) metadata: std::fs::Metadata,
}

/// Gives all that is in a folder, each directory before what it holds, names in the order of their bytes: its path in the folder, the
/// same on the disk, and what it is. Files and directories get their owner's right to read first, if they lack it.
pub(crate) fn visit(
    folder: &Path,
    each: &mut dyn FnMut(RelPath, &Path, &Found) -> Result<(), ChangesError>,
) -> Result<(), ChangesError> {
    // An own stack: how deep directories go is the step's choice, and threads have small ones.
    let mut open = vec![(None::<RelPath>, names(folder)?)];
    while let Some((parent, remaining)) = open.last_mut() {
        let Some(name) = remaining.next() else {
            open.pop();
            continue;
        };
        let directory = on_disk(folder, parent.as_ref());
        let path =
            join(parent.as_ref(), &name).map_err(|source| ChangesError::Path { parent: directory.clone(), source })?;
        let file = directory.join(&name);
        let metadata = cas_fs::symlink_metadata(&file)?;
        let mode = metadata.permissions().mode() & 0o7777;
        let kind = match metadata.file_type() {
            found if found.is_dir() => Kind::Directory,
            found if found.is_file() => Kind::File,
            found if found.is_symlink() => Kind::Symlink,
            found if found.is_fifo() => Kind::Fifo,
            found if found.is_socket() => Kind::Socket,
            _ => Kind::Device,
        };
        match kind {
            Kind::Directory => grant(&file, mode, 0o700)?,
            Kind::File => grant(&file, mode, 0o400)?,
            _ => {}
        }
        each(path.clone(), &file, &Found { kind, mode, metadata })?;
        if kind == Kind::Directory {
            if open.len() > MAX_SCRATCH_DEPTH {
                let top = path.as_bytes().split(|byte| *byte == b'/').next().unwrap_or_default();
                return Err(ChangesError::TooDeep { top: OsStr::from_bytes(top).into() });
            }
            open.push((Some(path), names(&file)?));
        }
    }
    Ok(())
}

/// What the names of the kernel's notes begin with.
pub(crate) const NOTES: &str = "user.overlay.";
pub(crate) const ORIGIN: &str = "user.overlay.origin";
pub(crate) const OPAQUE: &str = "user.overlay.opaque";

fn names(directory: &Path) -> Result<std::vec::IntoIter<std::ffi::OsString>, FsError> {
    let names: Vec<_> = cas_fs::read_dir(directory)?.into_iter().map(|entry| entry.name).collect();
    Ok(names.into_iter())
}

fn on_disk(upper: &Path, path: Option<&RelPath>) -> PathBuf {
    match path {
        Some(path) => upper.join(std::ffi::OsStr::from_bytes(path.as_bytes())),
        None => upper.to_owned(),
    }
}

fn join(parent: Option<&RelPath>, name: &std::ffi::OsStr) -> Result<RelPath, RelPathError> {
    match parent {
        Some(parent) => RelPath::new([parent.as_bytes(), b"/", name.as_bytes()].concat()),
        None => RelPath::new(name.as_bytes()),
    }
}

/// Adds rights of the owner that are missing.
fn grant(path: &Path, mode: u32, rights: u32) -> Result<(), FsError> {
    if mode & rights == rights { Ok(()) } else { cas_fs::set_mode(path, mode | rights) }
}

/// Reads an attribute of a path that is not a symlink. Those asked for say in their first bytes what is wanted of them.
fn attribute(path: &Path, name: &str) -> Result<Option<Vec<u8>>, FsError> {
    let mut value = [0; 256];
    match rustix::fs::lgetxattr(path, name, &mut value) {
        Ok(length) => Ok(Some(value[..length].to_vec())),
        // Longer than any value that is compared.
        Err(Errno::RANGE) => Ok(Some(Vec::new())),
        Err(Errno::NODATA | Errno::NOTSUP) => Ok(None),
        Err(errno) => Err(FsError::new(cas_fs::Operation::Read, path, errno.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(path: &Path, name: &str, value: &[u8]) {
        rustix::fs::setxattr(path, name, value, rustix::fs::XattrFlags::empty()).expect("user attributes work here");
    }

    /// An upper directory made by hand: the rows are what the kernel leaves, see tests/sandbox for its own.
    #[test]
    fn notes_of_the_kernel_are_read_and_order_is_that_of_bytes() {
        let home = tempfile::tempdir().expect("the temporary folder is writable");
        let upper = home.path();
        cas_fs::create_dir_all(&upper.join("copied/inner")).expect("free names");
        set(&upper.join("copied"), ORIGIN, b"\0");
        set(&upper.join("copied/inner"), ORIGIN, b"");
        cas_fs::create_dir(&upper.join("new")).expect("free name");
        set(&upper.join("new"), OPAQUE, b"y");
        cas_fs::create_dir(&upper.join("nested")).expect("free name");
        set(&upper.join("nested"), OPAQUE, b"x");
        cas_fs::write(&upper.join("new/file"), b"x").expect("folder is there");
        cas_fs::write(&upper.join("a b"), b"x").expect("folder is there");
        cas_fs::set_mode(&upper.join("a b"), 0o000).expect("our file");
        cas_fs::symlink(Path::new("/nowhere"), &upper.join("copied/link")).expect("free name");
        for (path, mode) in [("new/file", 0o644), ("nested", 0o755), ("new", 0o311)] {
            cas_fs::set_mode(&upper.join(path), mode).expect("our files");
        }
        let lines: Vec<String> = changes(upper)
            .expect("readable")
            .into_iter()
            .map(|change| match change {
                Change::Written { path, kind, mode } => format!("{kind:?} {path} {mode:o}"),
                Change::Removed { path } => format!("removed {path}"),
                Change::Opaque { path } => format!("opaque {path}"),
            })
            .collect();
        assert_eq!(
            lines,
            [
                "File a b 0",
                "Symlink copied/link 777",
                "Directory nested 755",
                "Directory new 311",
                "opaque new",
                "File new/file 644"
            ]
        );
        assert_eq!(cas_fs::read(&upper.join("a b")).expect("made readable"), b"x");
    }
}
