//! What a command changed in a folder that it wrote in directly, found by what was there before it ran.
//!
//! Where no overlay keeps changes apart, files are told by number, size, mode and times. Whoever writes a folder for a command gives
//! its files one old modification time; so a file that was written is told from that by its time alone, however coarse the clock
//! is, and one whose time was put back by the time of its last change, which nobody can set.
//!
//! Not here: contents, which whoever keeps them reads anyway; what was changed within a file of an unchanged name, which is
//! a change of that file.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use cas_tree::RelPath;

use crate::changes::{Change, ChangesError, Found, Kind, visit};

/// The state of a folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Before(BTreeMap<RelPath, Entry>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    kind: Kind,
    mode: u32,
    /// Of a directory nothing: what is in it tells for itself.
    stamp: Option<Stamp>,
}

/// What of a file differs once it was written. Times are seconds and nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Before {
    /// Looks at a folder before a command runs in it.
    ///
    /// # Errors
    ///
    /// [`ChangesError`]
    pub fn of(folder: &Path) -> Result<Self, ChangesError> {
        look(folder).map(Self)
    }

    /// What is different in the folder now, each directory before what it holds, names in the order of their bytes.
    ///
    /// A directory whose mode or time changed is no change. One that took the place of something else is written; of one that is
    /// gone what was in it is not told again. As with [`changes`](crate::changes()) what is reported can be read: rights of the
    /// owner that are missing are added on the way, and the mode that the command left is in the result.
    ///
    /// # Errors
    ///
    /// [`ChangesError`]
    pub fn changes(&self, folder: &Path) -> Result<Vec<Change>, ChangesError> {
        let now = look(folder)?;
        let mut all: Vec<&RelPath> = self.0.keys().chain(now.keys()).collect();
        all.sort_unstable();
        all.dedup();
        let is_directory = |path: &RelPath| now.get(path).is_some_and(|entry| entry.kind == Kind::Directory);
        let change = |path: &RelPath| match (self.0.get(path), now.get(path)) {
            (Some(before), Some(now)) if before.is_as(now) => None,
            (_, Some(Entry { kind, mode, .. })) => {
                Some(Change::Written { path: path.clone(), kind: *kind, mode: *mode })
            }
            (_, None) => {
                let is_told = path.parent().is_some_and(|parent| !is_directory(&parent));
                (!is_told).then(|| Change::Removed { path: path.clone() })
            }
        };
        Ok(all.into_iter().filter_map(change).collect())
    }
}

impl Entry {
    fn is_as(&self, now: &Self) -> bool {
        self.kind == now.kind && (self.kind == Kind::Directory || self == now)
    }
}

fn look(folder: &Path) -> Result<BTreeMap<RelPath, Entry>, ChangesError> {
    let mut entries = BTreeMap::new();
    visit(folder, &mut |path, _, Found { kind, mode, metadata }| {
        let stamp = (*kind != Kind::Directory).then(|| Stamp {
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        });
        entries.insert(path, Entry { kind: *kind, mode: *mode, stamp });
        Ok(())
    })?;
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_to_a_folder_is_found() {
        let home = tempfile::tempdir().expect("the temporary folder is writable");
        let at = |name: &str| home.path().join(name);
        let write = |name: &str, text: &str| cas_fs::write(&at(name), text.as_bytes()).expect("folder is there");
        let old = rustix::fs::Timespec { tv_sec: crate::EPOCH_SECONDS, tv_nsec: 0 };
        let age = |name: &str| {
            let times = rustix::fs::Timestamps { last_access: old, last_modification: old };
            rustix::fs::utimensat(rustix::fs::CWD, at(name), &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)
                .expect("our file");
        };
        for folder in ["gone/inner", "kept", "replaced"] {
            cas_fs::create_dir_all(&at(folder)).expect("free name");
        }
        for name in ["a", "a b", "becomes", "gone/inner/f", "kept/same", "kept/mode", "kept/put-back", "replaced/f"] {
            write(name, "1");
            age(name);
        }
        let before = Before::of(home.path()).expect("readable");
        assert_eq!(before.changes(home.path()).expect("readable"), []);
        write("a", "2");
        write("a.new", "2");
        cas_fs::remove_tree(&at("gone")).expect("ours");
        cas_fs::remove_tree(&at("replaced")).expect("ours");
        cas_fs::symlink(Path::new("kept"), &at("replaced")).expect("free name");
        cas_fs::remove_tree(&at("becomes")).expect("ours");
        cas_fs::create_dir(&at("becomes")).expect("free name");
        cas_fs::create_dir(&at("kept/new")).expect("free name");
        write("kept/new/locked", "x");
        cas_fs::set_mode(&at("kept/new/locked"), 0).expect("ours");
        cas_fs::set_mode(&at("kept/mode"), 0o755).expect("ours");
        // Longer than the tick of any clock of a file system.
        std::thread::sleep(std::time::Duration::from_millis(20));
        write("kept/put-back", "2");
        age("kept/put-back");
        let lines: Vec<String> = before
            .changes(home.path())
            .expect("readable")
            .into_iter()
            .map(|change| match change {
                Change::Written { path, kind: Kind::Symlink, .. } => format!("Symlink {path}"),
                Change::Written { path, kind: Kind::Directory, .. } => format!("Directory {path}"),
                Change::Written { path, kind, mode } => format!("{kind:?} {path} {:o}", mode & 0o700),
                Change::Removed { path } => format!("removed {path}"),
                Change::Opaque { path } => format!("opaque {path}"),
            })
            .collect();
        assert_eq!(
            lines,
            [
                "File a 600",
                "File a.new 600",
                "Directory becomes",
                "removed gone",
                "File kept/mode 700",
                "Directory kept/new",
                "File kept/new/locked 0",
                "File kept/put-back 600",
                "Symlink replaced",
            ]
        );
        assert_eq!(cas_fs::read(&at("kept/new/locked")).expect("made readable"), b"x");
    }
}
