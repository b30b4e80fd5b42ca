//! Files that keep others of the same mind out of a folder for a moment. Whoever does not ask reads on.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::error::Context;
use crate::{FsError, Operation};

/// Between two looks at whether the other one is done.
const PAUSE: Duration = Duration::from_millis(5);

/// Opens the file at `path`, makes it where it is not there, and waits until nobody else has it locked, about as long as `limit`.
/// Others wait until what is returned is dropped.
///
/// # Errors
///
/// [`FsError`], with [`std::io::ErrorKind::TimedOut`] inside when somebody else has it for longer.
pub fn lock(path: &Path, limit: Duration) -> Result<File, FsError> {
    let mut waited = Duration::ZERO;
    loop {
        let file = open(path)?;
        let is_locked = match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => true,
            Err(Errno::WOULDBLOCK | Errno::INTR) => false,
            Err(error) => return Err(FsError::new(Operation::Lock, path, error.into())),
        };
        // Who had it may have put another file in its place.
        if is_locked {
            let own = file.metadata().at(Operation::Stat, path)?;
            match crate::metadata(path) {
                Ok(named) if (named.dev(), named.ino()) == (own.dev(), own.ino()) => return Ok(file),
                Err(error) if !error.is_not_found() => return Err(error),
                Ok(_) | Err(_) => {}
            }
        }
        if waited >= limit {
            let error = std::io::Error::new(std::io::ErrorKind::TimedOut, "another program has it locked");
            return Err(FsError::new(Operation::Lock, path, error));
        }
        std::thread::sleep(PAUSE);
        waited += PAUSE;
    }
}

/// Where it may not be written, reading is enough on local disks.
fn open(path: &Path) -> Result<File, FsError> {
    let written = OpenOptions::new().read(true).append(true).create(true).open(path).at(Operation::Open, path);
    match written {
        Err(error) if error.is_about_rights() => File::open(path).map_err(|_| error),
        written => written,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_has_a_file_locked() {
        let folder = tempfile::tempdir().expect("the temporary folder is writable");
        let path = folder.path().join("lock");
        let first = lock(&path, Duration::ZERO).expect("nobody has it");
        let error = lock(&path, Duration::from_millis(20)).expect_err("it is locked");
        assert_eq!(error.source.kind(), std::io::ErrorKind::TimedOut);
        drop(first);
        let first = lock(&path, Duration::ZERO).expect("nobody has it any more");
        // Who waits for a file that is replaced has the new one then.
        std::thread::scope(|scope| {
            let second = scope.spawn(|| lock(&path, Duration::from_secs(60)));
            std::thread::sleep(Duration::from_millis(20));
            crate::write_atomic(&path, b"new").expect("the disk has room");
            drop(first);
            let second = second.join().expect("it does not panic").expect("nobody has it any more");
            let named = crate::metadata(&path).expect("it is there");
            assert_eq!(second.metadata().expect("it is open").ino(), named.ino());
        });
    }
}
