//! Scratch folders: their layout.
//!
//! Layout below [`Overlay::scratch`]: `upper` (changes), `work` (the overlay's own), `skeleton` (lowest lower directory,
//! with the mount points that the root may lack), `merged` (where the overlay is mounted first; empty for the host).

use std::path::{Path, PathBuf};

use cas_fs::{FsError, Operation};
use rustix::fs::{AtFlags, Timespec, Timestamps};

use crate::spec::{EPOCH_SECONDS, Overlay};

/// Rights of every directory that a sandbox adds, `/tmp` excepted.
const DIRECTORY_MODE: u32 = 0o755;
/// Rights of every file that a sandbox adds, to be covered.
const FILE_MODE: u32 = 0o644;
/// `/tmp`: everybody's, each with their own files.
const TMP_MODE: u32 = 0o1777;

/// Directories that every sandbox has, and their modes where the root does not have them.
///
/// Those that a run wants beside them come after them, each after those above it.
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
    pub(crate) fn prepare(&self, skeleton: Skeleton, more: &[&Path]) -> Result<(), FsError> {
        self.prepare_with_files(skeleton, more, &[])
    }

    /// The same, with empty files in the skeleton.
    ///
    /// # Errors
    ///
    /// As [`Overlay::prepare`].
    pub(crate) fn prepare_with_files(
        &self,
        skeleton: Skeleton,
        more: &[&Path],
        files: &[&Path],
    ) -> Result<(), FsError> {
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
        let folders = files.iter().filter_map(|path| path.parent()).filter(|path| *path != Path::new(""));
        for path in more.iter().copied().chain(folders) {
            let mut whole = self.skeleton();
            for part in path.components() {
                whole.push(part);
                match make_directory(&whole, DIRECTORY_MODE) {
                    // Two of them may share folders.
                    Err(error) if error.source.kind() == std::io::ErrorKind::AlreadyExists => {}
                    other => other?,
                }
            }
            // From the innermost on, because a new entry is a change of the folder above.
            while whole != self.skeleton() {
                set_epoch(&whole)?;
                whole.pop();
            }
        }
        for path in files {
            let file = self.skeleton().join(path);
            cas_fs::create_new(&file, FILE_MODE)?;
            set_epoch(&file)?;
            if let Some(folder) = file.parent() {
                set_epoch(folder)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scratch_folder_serves_one_run() {
        let home = tempfile::tempdir().expect("the temporary folder is writable");
        let overlay = Overlay { lowers: Vec::new(), scratch: home.path().join("scratch") };
        overlay.prepare(Skeleton::MountPoints, &[]).expect("the folder is new");
        assert!(overlay.prepare(Skeleton::MountPoints, &[]).expect_err("it was used").is_already_exists());
    }
}
