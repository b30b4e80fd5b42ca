//! What the store asks of a file system: few operations, so that a model can stand in for the real one.
//!
//! Every operation that decides about what survives a crash (syncs, and names that appear or change) carries its [`Site`].
//! The crash simulator switches each site off in turn and must then find a violation; a scan of the sources keeps anybody
//! from naming, renaming or syncing behind its back.
//!
//! Not here: what the files mean. Trees written out for sandboxes are files of another kind (`roots`), only their
//! publication goes through here.

mod host;
#[cfg(test)]
pub(crate) mod model;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use cas_fs::{DirEntry, FsError, Operation};

pub(crate) use host::{HostDisk, is_no_file};

/// A place in the code whose order against others decides about what survives a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Site {
    /// The name of an object appears.
    LinkObject,
    /// The same where files cannot be without a name.
    RenameObject,
    /// Content of a durable object, before its name.
    SyncObject,
    /// Content of an object that somebody put without waiting, before it counts as durable.
    SyncStanding,
    /// Name of a durable object, before the caller hears of it.
    SyncObjectFolder,
    /// A damaged object leaves.
    Quarantine,
    /// All content and names of the epochs that are about to be sealed.
    SyncEpochs,
    /// The list of sealed epochs.
    SyncSeal,
    /// The new list takes the place of the old one.
    RenameSeal,
    /// That name, before the epochs count as sealed.
    SyncSealFolder,
    /// The number of the next epoch.
    RenameBoot,
    /// Content of a pin.
    SyncPin,
    /// A pin appears.
    RenamePin,
    /// The name of a pin, before the caller hears of it.
    SyncPinFolder,
    /// The removal of a pin's name, before the caller hears of it.
    SyncPinRemoval,
    /// A tree written out appears.
    RenameRoot,
    /// A tree written out leaves its place before it is taken apart.
    TrashRoot,
    /// The folders of a new store, before it says that it is one.
    SyncLayout,
    /// The description of the store.
    SyncFormat,
    /// The description appears.
    RenameFormat,
    /// Its name.
    SyncFormatFolder,
}

impl Site {
    /// All sites.
    #[cfg(test)]
    pub(crate) const ALL: [Self; 21] = [
        Self::LinkObject,
        Self::RenameObject,
        Self::SyncObject,
        Self::SyncStanding,
        Self::SyncObjectFolder,
        Self::Quarantine,
        Self::SyncEpochs,
        Self::SyncSeal,
        Self::RenameSeal,
        Self::SyncSealFolder,
        Self::RenameBoot,
        Self::SyncPin,
        Self::RenamePin,
        Self::SyncPinFolder,
        Self::SyncPinRemoval,
        Self::RenameRoot,
        Self::TrashRoot,
        Self::SyncLayout,
        Self::SyncFormat,
        Self::RenameFormat,
        Self::SyncFormatFolder,
    ];
}

/// The modification time of an object, which says in which epoch it was written: seconds and nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Mark {
    pub(crate) seconds: i64,
    pub(crate) nanoseconds: u32,
}

/// What is known of a name without reading content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) size: u64,
    /// Bytes that it takes on the disk.
    pub(crate) allocated: u64,
    pub(crate) mark: Mark,
    /// Seconds of the last change of the inode, a link to it included.
    pub(crate) changed: i64,
    /// Seconds of the last use that was noted; see [`Disk::touch`].
    pub(crate) used: i64,
    pub(crate) inode: u64,
}

impl Stat {
    /// Whether this is the file that was looked at before, with no change since.
    pub(crate) fn is_same(&self, before: &Self) -> bool {
        self.inode == before.inode && self.changed == before.changed
    }
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// It must be there, for reading.
    Read,
    /// Made when it is not there, for reading and writing.
    Write,
    /// It must not be there, for reading and writing.
    New,
}

/// How a file is locked against other processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LockMode {
    Shared,
    Exclusive,
}

/// Free room of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) bytes: u64,
    pub(crate) total_bytes: u64,
    pub(crate) inodes: u64,
    /// Zero where the file system has no fixed number of inodes.
    pub(crate) total_inodes: u64,
}

/// A file system, a clock and a source of numbers.
pub(crate) trait Disk: fmt::Debug + Send + Sync + 'static {
    /// An open file. Dropping it closes it and gives up its lock.
    type File: fmt::Debug + Send + Sync;

    /// A file without a name on the file system of `folder`; `None` where there is no such thing.
    fn create_unnamed(&self, folder: &Path) -> Result<Option<Self::File>, FsError>;
    /// Opens a file. `None` when it must be there and is not.
    fn open(&self, path: &Path, access: Access) -> Result<Option<Self::File>, FsError>;
    /// Reads at an offset; may give fewer bytes, none at the end.
    fn read_at(&self, file: &Self::File, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
    /// Writes at an offset; may take fewer bytes.
    fn write_at(&self, file: &Self::File, offset: u64, bytes: &[u8]) -> io::Result<usize>;
    /// Makes an open file read-only for all and gives it its mark.
    fn finish(&self, file: &Self::File, mark: Mark) -> io::Result<()>;
    /// Looks at an open file.
    fn stat_file(&self, file: &Self::File) -> io::Result<Stat>;
    /// Looks at a name, without following a symlink. `None` when there is none.
    fn stat(&self, path: &Path) -> Result<Option<Stat>, FsError>;
    /// Gives a name a mark.
    fn mark(&self, path: &Path, mark: Mark) -> Result<(), FsError>;
    /// Notes a use in the access time. What the kernel writes there by itself is a use as well, and may be missing.
    fn touch(&self, path: &Path, seconds: i64) -> Result<(), FsError>;
    /// Takes room for an open file without writing it.
    fn allocate(&self, file: &Self::File, bytes: u64) -> io::Result<()>;
    /// Gives a file without a name one; `false` when something is there.
    fn link(&self, site: Site, file: &Self::File, path: &Path) -> Result<bool, FsError>;
    /// Renames a file or folder, in place of a file that is there.
    fn rename(&self, site: Site, from: &Path, to: &Path) -> Result<(), FsError>;
    /// Removes the name of a file; `false` when there was none.
    fn remove(&self, path: &Path) -> Result<bool, FsError>;
    /// Removes a folder with all that is in it.
    fn remove_tree(&self, path: &Path) -> Result<(), FsError>;
    /// The names in a folder, sorted.
    fn list(&self, folder: &Path) -> Result<Vec<DirEntry>, FsError>;

    /// [`Disk::stat`] of many paths below a folder. The real file system does this, and the next two, by several threads.
    fn stat_each(&self, folder: &Path, paths: &[String]) -> Result<Vec<Option<Stat>>, FsError> {
        paths.iter().map(|path| self.stat(&folder.join(path))).collect()
    }

    /// [`Disk::list`] of many folders, with the [`Disk::stat`] of each name, in any order. In a folder that is not there
    /// is nothing.
    fn list_each(&self, folders: &[PathBuf]) -> Result<Vec<Vec<(DirEntry, Stat)>>, FsError> {
        let list = |folder: &PathBuf| {
            let mut listed = Vec::new();
            let entries = match self.list(folder) {
                Err(error) if error.is_not_found() => Vec::new(),
                result => result?,
            };
            for entry in entries {
                if let Some(stat) = self.stat(&folder.join(&entry.name))? {
                    listed.push((entry, stat));
                }
            }
            Ok(listed)
        };
        folders.iter().map(list).collect()
    }

    /// [`Disk::remove`] of each of the files below a folder that are still the ones that were looked at.
    fn remove_each(&self, folder: &Path, files: &[(String, Stat)]) -> Result<Vec<bool>, FsError> {
        let remove = |(path, before): &(String, Stat)| {
            let path = folder.join(path);
            Ok(self.stat(&path)?.is_some_and(|stat| stat.is_same(before)) && self.remove(&path)?)
        };
        files.iter().map(remove).collect()
    }

    /// Makes a folder; `false` when it is there.
    fn create_folder(&self, path: &Path) -> Result<bool, FsError>;
    /// Waits until content and attributes of a file are durable.
    fn sync_file(&self, site: Site, file: &Self::File) -> io::Result<()>;
    /// Waits until the names in a folder are durable.
    fn sync_folder(&self, site: Site, path: &Path) -> Result<(), FsError>;
    /// Waits until everything on the file system of `file` is durable; reports each failure of its writes since `file`
    /// was opened.
    fn sync_all(&self, site: Site, file: &Self::File) -> io::Result<()>;
    /// Opens a folder, for [`Disk::sync_all`].
    fn open_folder(&self, path: &Path) -> Result<Self::File, FsError>;
    /// Locks an open file, or says at once that another process's lock is in the way.
    fn try_lock(&self, file: &Self::File, mode: LockMode) -> io::Result<bool>;
    /// What room there is on the file system of `folder`.
    fn room(&self, folder: &Path) -> Result<Room, FsError>;
    /// What tells this boot of the machine from all others; `None` when that cannot be told.
    fn boot(&self) -> Option<String>;
    /// Seconds since 1970.
    fn now(&self) -> i64;
    /// A number that nobody can expect.
    fn random(&self) -> u64;
    /// Waits a moment for another process.
    fn pause(&self);
}

/// Writes all bytes at an offset.
pub(crate) fn write_all<D: Disk>(disk: &D, file: &D::File, mut offset: u64, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match disk.write_at(file, offset, bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                offset += count as u64;
                bytes = &bytes[count..];
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Fills as much of `buffer` as the file has at an offset, and tells how much.
pub(crate) fn read_full<D: Disk>(disk: &D, file: &D::File, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match disk.read_at(file, offset + filled as u64, &mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Reads a whole file of at most `limit` bytes. `None` when there is none, or when it is longer.
pub(crate) fn read_file<D: Disk>(disk: &D, path: &Path, limit: usize) -> Result<Option<Vec<u8>>, FsError> {
    let Some(file) = disk.open(path, Access::Read)? else { return Ok(None) };
    let at = |error| FsError::new(Operation::Read, path, error);
    let size = disk.stat_file(&file).map_err(at)?.size;
    if size > limit as u64 {
        return Ok(None);
    }
    let mut bytes = vec![0; usize::try_from(size).unwrap_or(limit)];
    let count = read_full(disk, &file, 0, &mut bytes).map_err(at)?;
    bytes.truncate(count);
    Ok(Some(bytes))
}

/// The three sites of a file that is replaced durably.
#[derive(Clone, Copy)]
pub(crate) struct Replacement {
    pub(crate) sync: Site,
    pub(crate) rename: Site,
    pub(crate) sync_folder: Site,
}

/// Puts a small file in the place of an older one: content, name, folder, each durable before the next.
pub(crate) fn replace_durably<D: Disk>(
    disk: &D,
    temporary: &Path,
    path: &Path,
    bytes: &[u8],
    sites: Replacement,
) -> Result<(), FsError> {
    let file = disk.open(temporary, Access::New)?.expect("a new file is made or an error");
    write_all(disk, &file, 0, bytes).map_err(|error| FsError::new(Operation::Write, temporary, error))?;
    disk.sync_file(sites.sync, &file).map_err(|error| FsError::new(Operation::Sync, temporary, error))?;
    disk.rename(sites.rename, temporary, path)?;
    disk.sync_folder(sites.sync_folder, path.parent().expect("files are in a folder"))
}

/// Waits for a lock for at most about `patience` pauses.
pub(crate) fn lock<D: Disk>(disk: &D, path: &Path, mode: LockMode, patience: u32) -> Result<Option<D::File>, FsError> {
    let file = disk.open(path, Access::Write)?.expect("a missing file is made");
    for _ in 0..patience {
        if disk.try_lock(&file, mode).map_err(|error| FsError::new(Operation::Open, path, error))? {
            return Ok(Some(file));
        }
        disk.pause();
    }
    Ok(None)
}
