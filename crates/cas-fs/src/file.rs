//! Files and links.

use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::error::Context;
use crate::{FsError, Operation};

/// Opens a file for reading, following symlinks.
///
/// # Errors
///
/// [`FsError`] as for every function of this module.
pub fn open(path: &Path) -> Result<File, FsError> {
    File::open(path).at(Operation::Open, path)
}

/// Opens a file for reading, and fails when the last component is a symlink.
///
/// # Errors
///
/// [`FsError`], with `ELOOP` inside for a symlink.
pub fn open_no_follow(path: &Path) -> Result<File, FsError> {
    OpenOptions::new()
        .read(true)
        .custom_flags(
            rustix::fs::OFlags::NOFOLLOW.bits().cast_signed() | rustix::fs::OFlags::NONBLOCK.bits().cast_signed(),
        )
        .open(path)
        .at(Operation::Open, path)
}

/// Creates a file that must not exist yet, for reading and writing, with the given mode less the umask.
///
/// # Errors
///
/// [`FsError`]
pub fn create_new(path: &Path, mode: u32) -> Result<File, FsError> {
    OpenOptions::new().read(true).write(true).create_new(true).mode(mode).open(path).at(Operation::Create, path)
}

/// Reads a whole file. For files of our own making; what comes from outside goes through [`read_limited`].
///
/// # Errors
///
/// [`FsError`]
pub fn read(path: &Path) -> Result<Vec<u8>, FsError> {
    fs::read(path).at(Operation::Read, path)
}

/// Reads a whole file of at most `limit_bytes`. Nobody waits for the other end of a pipe, or for what a device has to say.
///
/// # Errors
///
/// [`FsError`], with [`std::io::ErrorKind::FileTooLarge`] inside when the file is longer, with
/// [`std::io::ErrorKind::InvalidInput`] for what is no file.
pub fn read_limited(path: &Path, limit_bytes: u64) -> Result<Vec<u8>, FsError> {
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).at(Operation::Open, path)?;
    let metadata = file.metadata().at(Operation::Stat, path)?;
    if !metadata.is_file() && !metadata.is_dir() && !is_null_device(&metadata) {
        let error = std::io::Error::new(std::io::ErrorKind::InvalidInput, "it is no file");
        return Err(FsError::new(Operation::Read, path, error));
    }
    read_to_limit(file, path, limit_bytes)
}

/// The same of a stream as well, like one that a shell makes of a command: waits for its end.
///
/// # Errors
///
/// [`FsError`], with [`std::io::ErrorKind::FileTooLarge`] inside when it is longer.
pub fn read_stream_limited(path: &Path, limit_bytes: u64) -> Result<Vec<u8>, FsError> {
    read_to_limit(open(path)?, path, limit_bytes)
}

/// Whether it is `/dev/null`, which a link in a file's place leads to where the file is to be empty.
fn is_null_device(metadata: &Metadata) -> bool {
    metadata.file_type().is_char_device() && metadata.rdev() == rustix::fs::makedev(1, 3)
}

fn read_to_limit(file: File, path: &Path, limit_bytes: u64) -> Result<Vec<u8>, FsError> {
    // A file that grows meanwhile is read to its end all the same.
    let announced_bytes = file.metadata().at(Operation::Stat, path)?.len().min(limit_bytes);
    let mut bytes = Vec::new();
    // Without the memory for it, reading fails in the ordinary way.
    let _ = usize::try_from(announced_bytes).map(|len| bytes.try_reserve_exact(len.saturating_add(1)));
    file.take(limit_bytes.saturating_add(1)).read_to_end(&mut bytes).at(Operation::Read, path)?;
    if bytes.len() as u64 > limit_bytes {
        return Err(FsError::new(
            Operation::Read,
            path,
            std::io::Error::new(std::io::ErrorKind::FileTooLarge, format!("longer than {limit_bytes} bytes")),
        ));
    }
    Ok(bytes)
}

/// Reads a whole file of UTF-8 text.
///
/// # Errors
///
/// [`FsError`]
pub fn read_to_string(path: &Path) -> Result<String, FsError> {
    fs::read_to_string(path).at(Operation::Read, path)
}

/// Writes a whole file, replacing what it held. A crash can leave it cut: see [`write_atomic`].
///
/// # Errors
///
/// [`FsError`]
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), FsError> {
    fs::write(path, bytes).at(Operation::Write, path)
}

/// Writes a whole file so that other processes, and a reader after a crash, see the old content or the new, never a part.
///
/// # Errors
///
/// [`FsError`]; the old content stays then.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), FsError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.{}.tmp", std::process::id()));
    let result = (|| {
        let mut file = File::create(&temporary).at(Operation::Create, &temporary)?;
        file.write_all(bytes).at(Operation::Write, &temporary)?;
        file.sync_all().at(Operation::Sync, &temporary)?;
        rename(&temporary, path)
    })();
    if result.is_err() {
        // The error above is what the caller needs to know; a stray temporary file is harmless.
        let _ = fs::remove_file(&temporary);
    }
    result
}

/// Writes a whole file so that other processes see the old content or the new, never a part. A power loss may leave
/// neither: for what has a checksum and can be made again.
///
/// # Errors
///
/// [`FsError`]; the old content stays then.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), FsError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.{}.tmp", std::process::id()));
    let result = fs::write(&temporary, bytes).at(Operation::Write, &temporary).and_then(|()| rename(&temporary, path));
    if result.is_err() {
        // The error above is what the caller needs to know; a stray temporary file is harmless.
        let _ = fs::remove_file(&temporary);
    }
    result
}

/// Adds bytes to the end of a file that is there, in one write where the system takes it as one.
///
/// # Errors
///
/// [`FsError`]; a part may be written then.
pub fn append(path: &Path, bytes: &[u8]) -> Result<(), FsError> {
    // A pipe that nobody reads is an error.
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let mut file = OpenOptions::new().append(true).custom_flags(flags).open(path).at(Operation::Open, path)?;
    file.write_all(bytes).at(Operation::Write, path)
}

/// Sets the time of a file's last change to now.
///
/// # Errors
///
/// [`FsError`]
pub fn touch(path: &Path) -> Result<(), FsError> {
    use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW, utimensat};
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    let times = Timestamps { last_access: now, last_modification: now };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|error| FsError::new(Operation::Write, path, error.into()))
}

/// Copies content and mode of a file, by reflink where the file system can.
///
/// # Errors
///
/// [`FsError`]
pub fn copy(from: &Path, to: &Path) -> Result<u64, FsError> {
    fs::copy(from, to).at(Operation::Copy, to)
}

/// Gives a file a second name.
///
/// # Errors
///
/// [`FsError`]
pub fn hard_link(from: &Path, to: &Path) -> Result<(), FsError> {
    fs::hard_link(from, to).at(Operation::Link, to)
}

/// Creates a symlink at `path` that holds `target`.
///
/// # Errors
///
/// [`FsError`]
pub fn symlink(target: &Path, path: &Path) -> Result<(), FsError> {
    std::os::unix::fs::symlink(target, path).at(Operation::Symlink, path)
}

/// Reads what a symlink holds.
///
/// # Errors
///
/// [`FsError`]
pub fn read_link(path: &Path) -> Result<PathBuf, FsError> {
    fs::read_link(path).at(Operation::ReadLink, path)
}

/// Moves a file or folder, replacing a file of that name.
///
/// # Errors
///
/// [`FsError`]
pub fn rename(from: &Path, to: &Path) -> Result<(), FsError> {
    fs::rename(from, to).at(Operation::Rename, to)
}

/// Removes a file or symlink.
///
/// # Errors
///
/// [`FsError`]
pub fn remove_file(path: &Path) -> Result<(), FsError> {
    fs::remove_file(path).at(Operation::Remove, path)
}

/// Removes a file that somebody else may have removed already.
///
/// # Errors
///
/// [`FsError`]
pub fn remove_file_if_there(path: &Path) -> Result<(), FsError> {
    match remove_file(path) {
        Err(error) if error.is_not_found() => Ok(()),
        other => other,
    }
}

/// Looks at what a path leads to, following symlinks.
///
/// # Errors
///
/// [`FsError`]
pub fn metadata(path: &Path) -> Result<Metadata, FsError> {
    fs::metadata(path).at(Operation::Stat, path)
}

/// Looks at a path itself, not through a symlink.
///
/// # Errors
///
/// [`FsError`]
pub fn symlink_metadata(path: &Path) -> Result<Metadata, FsError> {
    fs::symlink_metadata(path).at(Operation::Stat, path)
}

/// Whether something has this name; a dangling symlink counts.
///
/// # Errors
///
/// [`FsError`] when it cannot be told.
pub fn exists(path: &Path) -> Result<bool, FsError> {
    match symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.is_not_found() || error.source.kind() == std::io::ErrorKind::NotADirectory => Ok(false),
        Err(error) => Err(error),
    }
}

/// Sets the twelve mode bits of a file or folder, following symlinks.
///
/// # Errors
///
/// [`FsError`]
pub fn set_mode(path: &Path, mode: u32) -> Result<(), FsError> {
    fs::set_permissions(path, Permissions::from_mode(mode)).at(Operation::SetMode, path)
}

/// Makes a path absolute and free of symlinks.
///
/// # Errors
///
/// [`FsError`]
pub fn canonicalize(path: &Path) -> Result<PathBuf, FsError> {
    fs::canonicalize(path).at(Operation::Canonicalize, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_null_device_is_an_empty_file_and_other_devices_are_none() {
        assert_eq!(read_limited(Path::new("/dev/null"), 9).expect("it is empty"), b"");
        let error = read_limited(Path::new("/dev/zero"), 9).expect_err("it has no end");
        assert_eq!(error.source.kind(), std::io::ErrorKind::InvalidInput);
    }
}
