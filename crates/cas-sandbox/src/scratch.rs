//! Scratch folders: their layout, and their removal whatever a step left in them.
//!
//! Layout below [`Overlay::scratch`]: `upper` (changes), `work` (the overlay's own), `skeleton` (lowest lower directory,
//! with the mount points that the root may lack), `merged` (where the overlay is mounted first; empty for the host).

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use cas_fs::{FsError, Operation};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Timespec, Timestamps};
use rustix::io::Errno;

use crate::spec::{EPOCH_SECONDS, Overlay};

/// Rights of every directory that a sandbox adds, `/tmp` excepted.
const DIRECTORY_MODE: u32 = 0o755;
/// `/tmp`: everybody's, each with their own files.
const TMP_MODE: u32 = 0o1777;

/// Directories that every sandbox has, and their modes where the root does not have them.
///
/// They come from a lower directory and not from the upper one, so that they are no change that the step made.
const MOUNT_POINTS: [(&str, u32); 4] =
    [("dev", DIRECTORY_MODE), ("proc", DIRECTORY_MODE), ("src", DIRECTORY_MODE), ("tmp", TMP_MODE)];

impl Overlay {
    pub(crate) fn skeleton(&self) -> PathBuf {
        self.scratch.join("skeleton")
    }

    pub(crate) fn mount_point(&self) -> PathBuf {
        self.scratch.join("merged")
    }

    /// Makes the folders of the scratch folder.
    ///
    /// # Errors
    ///
    /// [`FsError`]; also when the folder served a run before, because the changes of two runs would mix.
    pub(crate) fn prepare(&self, skeleton: Skeleton) -> Result<(), FsError> {
        cas_fs::create_dir_all(&self.scratch)?;
        for path in [self.upper(), self.work(), self.mount_point(), self.skeleton()] {
            make_directory(&path, DIRECTORY_MODE)?;
        }
        if skeleton == Skeleton::MountPoints {
            for (name, mode) in MOUNT_POINTS {
                let path = self.skeleton().join(name);
                make_directory(&path, mode)?;
                set_epoch(&path)?;
            }
        }
        // These two can be seen as the root of the overlay.
        set_epoch(&self.skeleton())?;
        set_epoch(&self.upper())
    }
}

/// What the lowest lower directory holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Skeleton {
    Empty,
    MountPoints,
}

/// Makes a directory with exactly this mode, whatever the umask.
fn make_directory(path: &Path, mode: u32) -> Result<(), FsError> {
    cas_fs::create_dir(path)?;
    cas_fs::set_mode(path, mode)
}

fn set_epoch(path: &Path) -> Result<(), FsError> {
    let time = Timespec { tv_sec: EPOCH_SECONDS, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(rustix::fs::CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|errno| FsError::new(Operation::Write, path, errno.into()))
}

/// Up to this depth directories are removed in place. A deeper one is moved up first, so that neither open descriptors
/// nor the stack limit how deep a step's folders may be.
const MAX_DEPTH: usize = 64;

/// Removes a scratch folder and all below it, whatever rights, depth and names a step gave. A missing one is done already.
///
/// Never follows a symlink. The sandbox that used the folder must have ended.
///
/// # Errors
///
/// [`FsError`] naming the folder; a part may be removed then.
pub fn remove_scratch(path: &Path) -> Result<(), FsError> {
    let failed = |errno: Errno| FsError::new(Operation::Remove, path, errno.into());
    match cas_fs::symlink_metadata(path) {
        Err(error) if error.is_not_found() => return Ok(()),
        Err(error) => return Err(error),
        Ok(metadata) if !metadata.is_dir() => return cas_fs::remove_file(path),
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

    fn open(path: &Path) -> OwnedFd {
        rustix::fs::open(path, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).expect("a directory")
    }

    #[test]
    fn whatever_rights_and_names_are_left_it_goes_and_links_are_not_followed() {
        let home = tempfile::tempdir().expect("the temporary folder is writable");
        let scratch = home.path().join("scratch");
        let outside = home.path().join("outside");
        cas_fs::create_dir_all(&scratch.join("a/b/c")).expect("free names");
        cas_fs::create_dir(&outside).expect("free name");
        cas_fs::write(&outside.join("kept"), b"x").expect("folder is there");
        cas_fs::symlink(&outside, &scratch.join("a/link")).expect("free name");
        cas_fs::write(&scratch.join("a/b/file"), b"x").expect("folder is there");
        for path in ["a/b/c", "a/b", "a"] {
            cas_fs::set_mode(&scratch.join(path), 0).expect("our folder");
        }
        remove_scratch(&scratch).expect("everything can be removed");
        remove_scratch(&scratch).expect("a missing folder is done already");
        assert!(!cas_fs::exists(&scratch).expect("parent is readable"));
        assert!(cas_fs::exists(&outside.join("kept")).expect("parent is readable"));
    }

    /// A path of these folders is longer than any call takes, and there are more of them than a process may open.
    #[test]
    fn folders_deeper_than_any_path_are_removed() {
        let home = tempfile::tempdir().expect("the temporary folder is writable");
        let scratch = home.path().join("scratch");
        cas_fs::create_dir(&scratch).expect("free name");
        let mut at = open(&scratch);
        for _ in 0..3000 {
            rustix::fs::mkdirat(&at, "deep", Mode::RWXU).expect("free name");
            at =
                rustix::fs::openat(&at, "deep", OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).expect("just made");
        }
        drop(at);
        remove_scratch(&scratch).expect("everything can be removed");
        assert!(!cas_fs::exists(&scratch).expect("parent is readable"));
    }

    #[test]
    fn a_scratch_folder_serves_one_run() {
        let home = tempfile::tempdir().expect("the temporary folder is writable");
        let overlay = Overlay { lowers: Vec::new(), scratch: home.path().join("scratch") };
        overlay.prepare(Skeleton::MountPoints).expect("the folder is new");
        assert!(overlay.prepare(Skeleton::MountPoints).expect_err("it was used").is_already_exists());
    }
}
