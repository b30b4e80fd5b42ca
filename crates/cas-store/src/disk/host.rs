//! The real file system.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use cas_fs::{DirEntry, FsError, Operation};
use rustix::fs::{AtFlags, CWD, Dir, FileType, FlockOperation, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT};
use rustix::io::Errno;

use super::{Access, Disk, LockMode, Mark, Room, Site, Stat};

/// How long one pause is.
const PAUSE: Duration = Duration::from_millis(2);

/// Fewer files than this, and a second thread costs more than it saves.
const FILES_A_THREAD: usize = 128;

/// The real file system of this machine.
#[derive(Debug)]
pub(crate) struct HostDisk;

fn times(mark: Mark) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: mark.seconds, tv_nsec: i64::from(mark.nanoseconds) },
    }
}

/// What the system says of a link that is not followed; here of everything that is read and is no file.
const NO_FILE: Errno = Errno::LOOP;

/// Whether an error says that there is something that is no file.
pub(crate) fn is_no_file(error: &FsError) -> bool {
    error.source.raw_os_error() == Some(NO_FILE.raw_os_error())
}

fn stat_of(stat: &rustix::fs::Stat) -> Stat {
    Stat {
        size: stat.st_size.cast_unsigned(),
        allocated: stat.st_blocks.cast_unsigned() * 512,
        mark: Mark { seconds: stat.st_mtime, nanoseconds: u32::try_from(stat.st_mtime_nsec).unwrap_or(u32::MAX) },
        changed: stat.st_ctime,
        used: stat.st_atime,
        inode: stat.st_ino,
    }
}

/// Opens a folder for what is below it: resolving a short path from there is faster than a long one each time.
fn open_below(folder: &Path) -> Result<Option<OwnedFd>, FsError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match rustix::fs::open(folder, flags, Mode::empty()) {
        Ok(handle) => Ok(Some(handle)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(FsError::new(Operation::Open, folder, error.into())),
    }
}

/// Looks at a name in an open folder; whether it is a folder, too.
fn stat_in(handle: impl AsFd, folder: &Path, name: &OsStr) -> Result<Option<(Stat, bool)>, FsError> {
    match rustix::fs::statat(handle, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some((stat_of(&stat), FileType::from_raw_mode(stat.st_mode) == FileType::Directory))),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(FsError::new(Operation::Stat, &folder.join(name), error.into())),
    }
}

/// Number of cores. Asked for once: the answer takes several files of the kernel to be read.
fn cores() -> usize {
    static CORES: OnceLock<usize> = OnceLock::new();
    *CORES.get_or_init(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get))
}

/// Does something to each, by as many threads as there are cores, with at least so many for each.
///
/// The threads are its own. Those of a shared pool may all wait for a lock that the caller holds, and the caller for them.
fn in_parallel<T: Sync, R: Send>(
    all: &[T],
    a_thread: usize,
    work: &(impl Fn(&T) -> Result<R, FsError> + Sync),
) -> Result<Vec<R>, FsError> {
    if all.len() <= a_thread {
        return all.iter().map(work).collect();
    }
    let part = all.len().div_ceil(cores()).max(a_thread);
    let (own, others) = all.split_at(part.min(all.len()));
    std::thread::scope(|scope| {
        let others: Vec<_> = others
            .chunks(part)
            .map(|part| scope.spawn(move || part.iter().map(work).collect::<Result<Vec<R>, FsError>>()))
            .collect();
        let mut results: Vec<R> = own.iter().map(work).collect::<Result<_, _>>()?;
        for other in others {
            results.extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        }
        Ok(results)
    })
}

fn list_in(folder: &Path) -> Result<Vec<(DirEntry, Stat)>, FsError> {
    let Some(handle) = open_below(folder)? else { return Ok(Vec::new()) };
    let failed = |error: Errno| FsError::new(Operation::List, folder, error.into());
    let mut listed = Vec::new();
    for entry in Dir::read_from(&handle).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name == "." || name == ".." {
            continue;
        }
        if let Some((stat, is_dir)) = stat_in(&handle, folder, name)? {
            listed.push((DirEntry { name: name.to_owned(), is_dir }, stat));
        }
    }
    Ok(listed)
}

impl Disk for HostDisk {
    type File = File;

    fn create_unnamed(&self, folder: &Path) -> Result<Option<File>, FsError> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        match rustix::fs::open(folder, flags, Mode::from_raw_mode(0o444)) {
            Ok(file) => Ok(Some(File::from(file))),
            Err(Errno::OPNOTSUPP | Errno::ISDIR) => Ok(None),
            Err(error) => Err(FsError::new(Operation::Create, folder, error.into())),
        }
    }

    fn open(&self, path: &Path, access: Access) -> Result<Option<File>, FsError> {
        let (flags, operation) = match access {
            // What is no file may be anything: nobody waits for the other end of a pipe.
            Access::Read => (OFlags::RDONLY | OFlags::NONBLOCK, Operation::Open),
            Access::Write => (OFlags::RDWR | OFlags::CREATE, Operation::Open),
            Access::New => (OFlags::RDWR | OFlags::CREATE | OFlags::EXCL, Operation::Create),
        };
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let failed = |error: Errno| FsError::new(operation, path, error.into());
        match rustix::fs::open(path, flags, Mode::from_raw_mode(0o600)) {
            Ok(file) if access == Access::Read => {
                let kind = FileType::from_raw_mode(rustix::fs::fstat(&file).map_err(failed)?.st_mode);
                if kind == FileType::RegularFile { Ok(Some(File::from(file))) } else { Err(failed(NO_FILE)) }
            }
            Ok(file) => Ok(Some(File::from(file))),
            Err(Errno::NOENT) if access == Access::Read => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    fn read_at(&self, file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        file.read_at(buffer, offset)
    }

    fn write_at(&self, file: &File, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        file.write_at(bytes, offset)
    }

    fn finish(&self, file: &File, mark: Mark) -> io::Result<()> {
        // The umask took bits away from the mode given at creation.
        rustix::fs::fchmod(file, Mode::from_raw_mode(0o444))?;
        rustix::fs::futimens(file, &times(mark))?;
        Ok(())
    }

    fn stat_file(&self, file: &File) -> io::Result<Stat> {
        Ok(stat_of(&rustix::fs::fstat(file)?))
    }

    fn stat(&self, path: &Path) -> Result<Option<Stat>, FsError> {
        Ok(stat_in(CWD, Path::new(""), path.as_os_str())?.map(|(stat, _)| stat))
    }

    fn mark(&self, path: &Path, mark: Mark) -> Result<(), FsError> {
        rustix::fs::utimensat(CWD, path, &times(mark), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| FsError::new(Operation::SetMode, path, error.into()))
    }

    fn touch(&self, path: &Path, seconds: i64) -> Result<(), FsError> {
        let times = Timestamps {
            last_access: Timespec { tv_sec: seconds, tv_nsec: 0 },
            last_modification: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        };
        rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| FsError::new(Operation::SetMode, path, error.into()))
    }

    fn allocate(&self, file: &File, bytes: u64) -> io::Result<()> {
        match rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, bytes) {
            // A file system that cannot is written to instead.
            Err(Errno::OPNOTSUPP) => super::write_all(self, file, 0, &vec![0; usize::try_from(bytes).unwrap_or(0)]),
            other => Ok(other?),
        }
    }

    fn link(&self, _: Site, file: &File, path: &Path) -> Result<bool, FsError> {
        // AT_EMPTY_PATH needs a capability before Linux 6.10; the way through /proc does not.
        let source = format!("/proc/self/fd/{}", file.as_raw_fd());
        match rustix::fs::linkat(CWD, &source, CWD, path, AtFlags::SYMLINK_FOLLOW) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            Err(error) => Err(FsError::new(Operation::Link, path, error.into())),
        }
    }

    fn rename(&self, _: Site, from: &Path, to: &Path) -> Result<(), FsError> {
        cas_fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> Result<bool, FsError> {
        match cas_fs::remove_file(path) {
            Ok(()) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn remove_tree(&self, path: &Path) -> Result<(), FsError> {
        cas_fs::remove_tree(path)
    }

    fn list(&self, folder: &Path) -> Result<Vec<DirEntry>, FsError> {
        cas_fs::read_dir(folder)
    }

    fn stat_each(&self, folder: &Path, paths: &[String]) -> Result<Vec<Option<Stat>>, FsError> {
        let Some(handle) = open_below(folder)? else { return Ok(vec![None; paths.len()]) };
        let stat = |path: &String| Ok(stat_in(&handle, folder, OsStr::new(path))?.map(|(stat, _)| stat));
        in_parallel(paths, FILES_A_THREAD, &stat)
    }

    fn list_each(&self, folders: &[PathBuf]) -> Result<Vec<Vec<(DirEntry, Stat)>>, FsError> {
        in_parallel(folders, 1, &|folder: &PathBuf| list_in(folder))
    }

    fn remove_each(&self, folder: &Path, files: &[(String, Stat)]) -> Result<Vec<bool>, FsError> {
        let Some(handle) = open_below(folder)? else { return Ok(vec![false; files.len()]) };
        let remove = |(path, before): &(String, Stat)| {
            if !stat_in(&handle, folder, OsStr::new(path))?.is_some_and(|(stat, _)| stat.is_same(before)) {
                return Ok(false);
            }
            match rustix::fs::unlinkat(&handle, path, AtFlags::empty()) {
                Ok(()) => Ok(true),
                Err(Errno::NOENT) => Ok(false),
                Err(error) => Err(FsError::new(Operation::Remove, &folder.join(path), error.into())),
            }
        };
        in_parallel(files, FILES_A_THREAD, &remove)
    }

    fn create_folder(&self, path: &Path) -> Result<bool, FsError> {
        match cas_fs::create_dir(path) {
            Ok(()) => Ok(true),
            Err(error) if error.is_already_exists() => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn sync_file(&self, _: Site, file: &File) -> io::Result<()> {
        file.sync_all()
    }

    fn sync_folder(&self, _: Site, path: &Path) -> Result<(), FsError> {
        self.open_folder(path)?.sync_all().map_err(|error| FsError::new(Operation::Sync, path, error))
    }

    fn sync_all(&self, _: Site, file: &File) -> io::Result<()> {
        Ok(rustix::fs::syncfs(file)?)
    }

    fn open_folder(&self, path: &Path) -> Result<File, FsError> {
        cas_fs::open(path)
    }

    fn try_lock(&self, file: &File, mode: LockMode) -> io::Result<bool> {
        let operation = match mode {
            LockMode::Shared => FlockOperation::NonBlockingLockShared,
            LockMode::Exclusive => FlockOperation::NonBlockingLockExclusive,
        };
        match rustix::fs::flock(file, operation) {
            Ok(()) => Ok(true),
            Err(Errno::WOULDBLOCK) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn room(&self, folder: &Path) -> Result<Room, FsError> {
        let room = rustix::fs::statvfs(folder).map_err(|error| FsError::new(Operation::Stat, folder, error.into()))?;
        Ok(Room {
            bytes: room.f_bavail * room.f_frsize,
            total_bytes: room.f_blocks * room.f_frsize,
            inodes: room.f_favail,
            total_inodes: room.f_files,
        })
    }

    fn boot(&self) -> Option<String> {
        let text = cas_fs::read_to_string(Path::new("/proc/sys/kernel/random/boot_id")).ok()?;
        let text = text.trim();
        (text.len() == 36).then(|| text.to_owned())
    }

    fn now(&self) -> i64 {
        rustix::time::clock_gettime(rustix::time::ClockId::Realtime).tv_sec
    }

    fn random(&self) -> u64 {
        let mut bytes = [0; 8];
        match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()) {
            Ok(8) => u64::from_le_bytes(bytes),
            // Kernels before 3.17 alone; the clock tells two starts apart.
            _ => rustix::time::clock_gettime(rustix::time::ClockId::Realtime).tv_nsec.cast_unsigned(),
        }
    }

    fn pause(&self) {
        std::thread::sleep(PAUSE);
    }
}
