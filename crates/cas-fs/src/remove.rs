//! Removing folders, whatever is in them.
//!
//! What programs leave behind can have any rights and any depth; and none of it may lead somewhere else.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::{FsError, Operation};

/// Up to this depth directories are removed in place. A deeper one is moved up first, so that neither open descriptors
/// nor the stack limit how deep a step's folders may be.
const MAX_DEPTH: usize = 64;

/// Removes a folder and all below it, whatever rights, depth and names somebody gave. A missing path is done already.
///
/// Never follows a symlink. Nobody may be adding to the folder any more.
///
/// # Errors
///
/// [`FsError`] naming the folder; a part may be removed then.
pub fn remove_tree(path: &Path) -> Result<(), FsError> {
    crate::dir::forget_temporary(path);
    remove_folder(path)
}

/// The same, also of a temporary folder that is known to be there.
pub(crate) fn remove_folder(path: &Path) -> Result<(), FsError> {
    let failed = |errno: Errno| FsError::new(Operation::Remove, path, errno.into());
    match crate::symlink_metadata(path) {
        Err(error) if error.is_not_found() => return Ok(()),
        Err(error) => return Err(error),
        Ok(metadata) if !metadata.is_dir() => return crate::remove_file(path),
        Ok(_) => {}
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let parent = rustix::fs::open(parent, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(failed)?;
    let name = path.file_name().ok_or_else(|| failed(Errno::INVAL))?;
    let top = open_directory(&parent, name).map_err(failed)?;
    let mut remover = Remover { top: &top, moved: 0 };
    // Each round empties what the rounds before moved up.
    loop {
        let moved_before = remover.moved;
        remover.empty(&top, 0).map_err(failed)?;
        if remover.moved == moved_before {
            break;
        }
    }
    rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR).map_err(failed)
}

/// Opens a directory for listing and changing, giving its owner the rights to do so.
fn open_directory(parent: &OwnedFd, name: impl rustix::path::Arg + Copy) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let rights = Mode::RWXU;
    match rustix::fs::openat(parent, name, flags, Mode::empty()) {
        Ok(directory) => {
            // Listing needs the read right alone; removing what is inside needs the others.
            if !Mode::from_raw_mode(rustix::fs::fstat(&directory)?.st_mode).contains(rights) {
                rustix::fs::fchmod(&directory, rights)?;
            }
            Ok(directory)
        }
        Err(Errno::ACCESS) => {
            rustix::fs::chmodat(parent, name, rights, AtFlags::empty())?;
            rustix::fs::openat(parent, name, flags, Mode::empty())
        }
        Err(error) => Err(error),
    }
}

struct Remover<'a> {
    top: &'a OwnedFd,
    /// How many directories were moved up, for names that are not taken.
    moved: u64,
}

impl Remover<'_> {
    fn empty(&mut self, directory: &OwnedFd, depth: usize) -> rustix::io::Result<()> {
        let mut names = Vec::new();
        for entry in Dir::read_from(directory)? {
            let entry = entry?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                names.push((entry.file_name().to_owned(), entry.file_type()));
            }
        }
        for (name, kind) in &names {
            if !matches!(kind, FileType::Directory | FileType::Unknown) {
                rustix::fs::unlinkat(directory, name, AtFlags::empty())?;
                continue;
            }
            let child = match open_directory(directory, name.as_c_str()) {
                Ok(child) => child,
                Err(Errno::NOTDIR | Errno::LOOP) => {
                    rustix::fs::unlinkat(directory, name, AtFlags::empty())?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            if depth == MAX_DEPTH {
                drop(child);
                self.move_up(directory, name)?;
            } else {
                self.empty(&child, depth + 1)?;
                rustix::fs::unlinkat(directory, name, AtFlags::REMOVEDIR)?;
            }
        }
        Ok(())
    }

    fn move_up(&mut self, directory: &OwnedFd, name: &std::ffi::CStr) -> rustix::io::Result<()> {
        loop {
            self.moved += 1;
            let free = format!("moved-{}", self.moved);
            match rustix::fs::renameat_with(directory, name, self.top, &free, rustix::fs::RenameFlags::NOREPLACE) {
                Err(Errno::EXIST) => {}
                other => return other,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::temporary_dir_in;

    fn open(path: &Path) -> OwnedFd {
        rustix::fs::open(path, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).expect("a directory")
    }

    #[test]
    fn whatever_rights_and_names_are_left_it_goes_and_links_are_not_followed() {
        let home = temporary_dir_in(&std::env::temp_dir(), "cas-fs-test-").expect("the temporary folder is writable");
        let scratch = home.join("scratch");
        let outside = home.join("outside");
        crate::create_dir_all(&scratch.join("a/b/c")).expect("free names");
        crate::create_dir(&outside).expect("free name");
        crate::write(&outside.join("kept"), b"x").expect("folder is there");
        crate::symlink(&outside, &scratch.join("a/link")).expect("free name");
        crate::write(&scratch.join("a/b/file"), b"x").expect("folder is there");
        for path in ["a/b/c", "a/b", "a"] {
            crate::set_mode(&scratch.join(path), 0).expect("our folder");
        }
        remove_tree(&scratch).expect("everything can be removed");
        remove_tree(&scratch).expect("a missing folder is done already");
        assert!(!crate::exists(&scratch).expect("parent is readable"));
        assert!(crate::exists(&outside.join("kept")).expect("parent is readable"));
    }

    /// A path of these folders is longer than any call takes, and there are more of them than a process may open.
    #[test]
    fn folders_deeper_than_any_path_are_removed() {
        let home = temporary_dir_in(&std::env::temp_dir(), "cas-fs-test-").expect("the temporary folder is writable");
        let scratch = home.join("scratch");
        crate::create_dir(&scratch).expect("free name");
        let mut at = open(&scratch);
        for _ in 0..3000 {
            rustix::fs::mkdirat(&at, "deep", Mode::RWXU).expect("free name");
            at =
                rustix::fs::openat(&at, "deep", OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).expect("just made");
        }
        drop(at);
        remove_tree(&scratch).expect("everything can be removed");
        assert!(!crate::exists(&scratch).expect("parent is readable"));
    }
}
