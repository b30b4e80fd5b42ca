//! Files for whoever asked for them, at a path that may be anything: a link is followed, a file replaced at once, a pipe or a
//! terminal written to. What cannot hold a file is refused, and nothing of `/dev` is ever replaced.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use crate::error::Context;
use crate::{FsError, Operation};

/// Most links that are followed, as many as the kernel follows.
const MAX_LINKS: usize = 40;

/// How bytes get to a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// A file is put in this place, which no link is at any more.
    File(PathBuf),
    /// What is there is written to.
    Stream(PathBuf),
}

/// Finds out how bytes get to a path.
///
/// # Errors
///
/// [`FsError`], with words inside for what cannot be written to: a folder, a disk, a socket.
pub fn delivery(path: &Path) -> Result<Delivery, FsError> {
    let refused =
        |kind: ErrorKind, what: &str| Err(FsError::new(Operation::Write, path, std::io::Error::new(kind, what)));
    match crate::metadata(path) {
        Ok(metadata) => {
            let kind = metadata.file_type();
            if kind.is_dir() {
                return refused(ErrorKind::IsADirectory, "it is a folder");
            }
            if kind.is_block_device() {
                return refused(ErrorKind::InvalidInput, "it is a disk");
            }
            if kind.is_socket() {
                return refused(ErrorKind::InvalidInput, "it is a socket");
            }
            if !kind.is_file() {
                return Ok(Delivery::Stream(path.to_owned()));
            }
        }
        Err(error) if error.is_not_found() => {}
        Err(error) => return Err(error),
    }
    let mut place = path.to_owned();
    for _ in 0..MAX_LINKS {
        match crate::symlink_metadata(&place) {
            Ok(metadata) if metadata.is_symlink() => {}
            Ok(_) => return Ok(Delivery::File(place)),
            Err(error) if error.is_not_found() => return Ok(Delivery::File(place)),
            Err(error) => return Err(error),
        }
        let folder = crate::canonicalize(folder_of(&place))?;
        // An open file of a process, as `/dev/stdout` leads to: the name may be another file's by now.
        if folder.starts_with("/proc") {
            return Ok(Delivery::Stream(path.to_owned()));
        }
        place = folder.join(crate::read_link(&place)?);
    }
    Err(FsError::new(Operation::Write, path, std::io::Error::other("too many links follow each other")))
}

/// The folder that a path is in.
#[must_use]
pub fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Opens what is written to; waits until somebody reads a pipe.
///
/// # Errors
///
/// [`FsError`]
pub fn open_stream(path: &Path) -> Result<File, FsError> {
    // What a file holds already, as that of a shell's `>>`, stays.
    OpenOptions::new().append(true).open(path).at(Operation::Open, path)
}

/// Writes a whole file, or to what is there that is no file. Folders that are missing are made.
///
/// # Errors
///
/// [`FsError`], as [`delivery`] has it and the system.
pub fn deliver(path: &Path, bytes: &[u8]) -> Result<(), FsError> {
    match delivery(path)? {
        Delivery::File(place) => {
            crate::create_dir_all(folder_of(&place))?;
            crate::write_atomic(&place, bytes)
        }
        Delivery::Stream(place) => open_stream(&place)?.write_all(bytes).at(Operation::Write, &place),
    }
}

/// Finds out whether [`deliver`] can work, as far as that can be known before; makes folders that are missing.
///
/// # Errors
///
/// [`FsError`]
pub fn try_delivery(path: &Path) -> Result<(), FsError> {
    let Delivery::File(place) = delivery(path)? else { return Ok(()) };
    let folder = folder_of(&place);
    crate::create_dir_all(folder)?;
    crate::remove_dir(&crate::temporary_dir_in(folder, ".tmp-")?)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    #[test]
    fn bytes_get_where_a_path_leads() {
        let home = tempfile::tempdir().expect("the temporary folder is writable");
        let at = |name: &str| home.path().join(name);
        for (link, target) in [("a", "b"), ("b", "deep/c"), ("round", "round")] {
            crate::symlink(Path::new(target), &at(link)).expect("the disk has room");
        }
        deliver(&at("a"), b"one").expect("folders are made");
        assert_eq!(crate::read(&at("deep/c")).expect("it is there"), b"one");
        deliver(&at("a"), b"two").expect("it is replaced");
        assert_eq!(crate::read(&at("deep/c")).expect("it is there"), b"two");
        assert!(crate::symlink_metadata(&at("a")).expect("it is there").is_symlink());
        let told = |path: &Path| deliver(path, b"x").expect_err("it is no place for a file").source.to_string();
        assert_eq!(told(home.path()), "it is a folder");
        assert!(told(&at("deep/c/d")).contains("Not a directory"), "{}", told(&at("deep/c/d")));
        let _ = told(&at("round"));
        mknodat(CWD, at("pipe"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).expect("a pipe needs no rights");
        try_delivery(&at("pipe")).expect("nobody reads, and nobody waits");
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut bytes = Vec::new();
                let read = crate::open(&at("pipe")).expect("it is there").read_to_end(&mut bytes);
                read.expect("the other end closes it");
                bytes
            });
            deliver(&at("pipe"), b"stream").expect("somebody reads");
            assert_eq!(reader.join().expect("it does not panic"), b"stream");
        });
        deliver(Path::new("/dev/null"), b"x").expect("it takes everything");
        assert!(crate::metadata(Path::new("/dev/null")).expect("it is there").file_type().is_char_device());
        let stdout = delivery(Path::new("/dev/stdout")).expect("it is open");
        assert_eq!(stdout, Delivery::Stream("/dev/stdout".into()));
    }
}
