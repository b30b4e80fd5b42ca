//! Uploads under way: files of the session's folder, and who writes to them.
//!
//! None of this outlives the process: its folder is removed by whoever opens the store next. So an upload is there with all that it was said to have, or
//! it is not there. What is at its end goes into the store, where it is hashed (`registry`).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cas_fs::{FsError, Operation};

use crate::refusal::Refusal;

/// Most uploads at once.
const MAX_UPLOADS: usize = 256;
/// How long one waits for more bytes.
const MAX_IDLE: Duration = Duration::from_secs(3600);
/// So much stays free beside what uploads write.
const MIN_FREE_BYTES: u64 = 256 << 20;
/// After so many bytes the free room is looked at again.
const ROOM_BYTES: u64 = 8 << 20;
const BUFFER_BYTES: usize = 64 * 1024;

/// All uploads.
#[derive(Debug)]
pub(crate) struct Uploads {
    folder: PathBuf,
    max_bytes: u64,
    table: Mutex<BTreeMap<String, Slot>>,
}

#[derive(Debug)]
enum Slot {
    Idle(Upload),
    /// Somebody writes to it.
    Busy,
}

#[derive(Debug)]
struct Upload {
    repository: String,
    path: PathBuf,
    length: u64,
    used: Instant,
}

impl Drop for Upload {
    fn drop(&mut self) {
        // What stays is removed with the folder.
        let _ = cas_fs::remove_file(&self.path);
    }
}

/// An upload that nobody else writes to until this is dropped.
#[derive(Debug)]
pub(crate) struct Taken {
    uploads: Arc<Uploads>,
    id: String,
    upload: Option<Upload>,
}

impl Uploads {
    pub(crate) fn new(session: &Path, max_bytes: u64) -> Result<Self, FsError> {
        let folder = session.join("uploads");
        cas_fs::create_dir_with_mode(&folder, 0o700)?;
        Ok(Self { folder, max_bytes, table: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Slot>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins one, and gives its name.
    pub(crate) fn begin(&self, repository: &str) -> Result<String, Refusal> {
        let id = name()?;
        let mut table = self.lock();
        table.retain(|_, slot| !matches!(slot, Slot::Idle(upload) if upload.used.elapsed() > MAX_IDLE));
        if table.len() >= MAX_UPLOADS {
            return Err(Refusal::ManyUploads { limit: MAX_UPLOADS });
        }
        let path = self.folder.join(&id);
        cas_fs::create_new(&path, 0o600)?;
        let upload = Upload { repository: repository.to_owned(), path, length: 0, used: Instant::now() };
        table.insert(id.clone(), Slot::Idle(upload));
        Ok(id)
    }

    /// Takes one of a repository.
    pub(crate) fn take(self: &Arc<Self>, repository: &str, id: &str) -> Result<Taken, Refusal> {
        let mut table = self.lock();
        let slot = table.get_mut(id).ok_or(Refusal::UnknownUpload)?;
        match std::mem::replace(slot, Slot::Busy) {
            Slot::Busy => Err(Refusal::BusyUpload),
            Slot::Idle(upload) if upload.repository != repository || upload.used.elapsed() > MAX_IDLE => {
                // Whoever has guessed a name learns nothing.
                *slot = Slot::Idle(upload);
                Err(Refusal::UnknownUpload)
            }
            Slot::Idle(upload) => Ok(Taken { uploads: Arc::clone(self), id: id.to_owned(), upload: Some(upload) }),
        }
    }

    /// Longest blob that is taken.
    pub(crate) const fn max_bytes(&self) -> u64 {
        self.max_bytes
    }
}

/// A name that nobody guesses.
fn name() -> Result<String, Refusal> {
    let mut bytes = [0; 16];
    let mut filled = 0;
    while filled < bytes.len() {
        let got = rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty());
        filled += got.map_err(|_| Refusal::Task)?;
    }
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

impl Taken {
    const fn upload(&self) -> &Upload {
        self.upload.as_ref().expect("it is given back when this is dropped")
    }

    /// Bytes that it has.
    pub(crate) const fn length(&self) -> u64 {
        self.upload().length
    }

    /// Adds bytes at the end. With `said` there must be so many, or nothing is added; else what came before a failure stays.
    pub(crate) fn append(&mut self, source: &mut dyn Read, said: Option<u64>) -> Result<(), Refusal> {
        let (max_bytes, start) = (self.uploads.max_bytes, self.length());
        let path = self.upload().path.clone();
        if said.is_some_and(|said| start.saturating_add(said) > max_bytes) {
            return Err(Refusal::LongBlob { limit: max_bytes });
        }
        let file = open_to_append(&path)?;
        let written = append(&file, &path, start, max_bytes, source);
        let result = match (&written.1, said) {
            (Ok(()), Some(said)) if written.0 != said => Err(Refusal::Length { said, sent: written.0 }),
            _ => written.1,
        };
        let kept = match &result {
            Ok(()) | Err(Refusal::Body(_)) if said.is_none() || result.is_ok() => start + written.0,
            _ => start,
        };
        // What is kept is what the client is told of.
        file.set_len(kept).map_err(|error| FsError::new(Operation::Write, &path, error))?;
        if let Some(upload) = &mut self.upload {
            upload.length = kept;
        }
        result
    }

    /// What it has, from the beginning.
    pub(crate) fn open(&self) -> Result<File, Refusal> {
        Ok(cas_fs::open(&self.upload().path)?)
    }

    /// Ends it, and removes what it has.
    pub(crate) fn end(mut self) {
        self.upload = None;
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut table = self.uploads.lock();
        match self.upload.take() {
            Some(upload) => {
                table.insert(self.id.clone(), Slot::Idle(Upload::used_now(upload)));
            }
            None => drop(table.remove(&self.id)),
        }
    }
}

impl Upload {
    fn used_now(mut upload: Self) -> Self {
        upload.used = Instant::now();
        upload
    }
}

fn open_to_append(path: &Path) -> Result<File, FsError> {
    File::options().append(true).open(path).map_err(|error| FsError::new(Operation::Open, path, error))
}

/// Copies; how many bytes came, and how it ended.
fn append(file: &File, path: &Path, start: u64, max_bytes: u64, source: &mut dyn Read) -> (u64, Result<(), Refusal>) {
    let mut buffer = vec![0; BUFFER_BYTES];
    let (mut written, mut looked) = (0_u64, None);
    let mut file = file;
    loop {
        let count = match source.read(&mut buffer) {
            Ok(0) => return (written, Ok(())),
            Ok(count) => count,
            Err(error) => return (written, Err(Refusal::Body(error))),
        };
        if start + written + count as u64 > max_bytes {
            return (written, Err(Refusal::LongBlob { limit: max_bytes }));
        }
        if looked.is_none_or(|looked| written - looked >= ROOM_BYTES) {
            looked = Some(written);
            if !has_room(file) {
                return (written, Err(Refusal::NoRoom));
            }
        }
        if let Err(error) = file.write_all(&buffer[..count]) {
            return (written, Err(FsError::new(Operation::Write, path, error).into()));
        }
        written += count as u64;
    }
}

/// Whether there is room for more; where that cannot be told, the write tells.
fn has_room(file: &File) -> bool {
    rustix::fs::fstatvfs(file.as_fd()).map_or(true, |room| room.f_bavail.saturating_mul(room.f_frsize) > MIN_FREE_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    /// Gives some bytes, then fails.
    struct Broken(usize);

    impl Read for Broken {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.0.min(buffer.len());
            self.0 -= count;
            buffer[..count].fill(b'x');
            if count == 0 { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(count) }
        }
    }

    fn uploads(max_bytes: u64) -> (tempfile::TempDir, Arc<Uploads>) {
        let folder = tempfile::tempdir().expect("the temporary folder is writable");
        let uploads = Uploads::new(folder.path(), max_bytes).expect("the folder is writable");
        (folder, Arc::new(uploads))
    }

    fn files(folder: &tempfile::TempDir) -> usize {
        cas_fs::read_dir(&folder.path().join("uploads")).expect("it is there").len()
    }

    #[test]
    fn what_came_before_a_break_stays_unless_a_length_was_said() {
        let (folder, uploads) = uploads(100);
        let id = uploads.begin("a").expect("there is room");
        let mut taken = uploads.take("a", &id).expect("it is there");
        assert!(matches!(uploads.take("a", &id), Err(Refusal::BusyUpload)));
        assert!(matches!(taken.append(&mut Broken(10), None), Err(Refusal::Body(_))));
        assert_eq!(taken.length(), 10);
        assert!(matches!(taken.append(&mut Broken(10), Some(20)), Err(Refusal::Body(_))));
        assert!(matches!(taken.append(&mut &b"more"[..], Some(3)), Err(Refusal::Length { said: 3, sent: 4 })));
        assert!(matches!(taken.append(&mut io::repeat(1), None), Err(Refusal::LongBlob { limit: 100 })));
        assert!(matches!(taken.append(&mut io::empty(), Some(u64::MAX)), Err(Refusal::LongBlob { .. })));
        assert_eq!(taken.length(), 10);
        taken.append(&mut &b"more"[..], Some(4)).expect("they fit");
        drop(taken);
        assert!(matches!(uploads.take("b", &id), Err(Refusal::UnknownUpload)));
        let taken = uploads.take("a", &id).expect("it is given back");
        let mut bytes = Vec::new();
        taken.open().expect("it is there").read_to_end(&mut bytes).expect("the disk works");
        assert_eq!(bytes, b"xxxxxxxxxxmore");
        assert_eq!(files(&folder), 1);
        taken.end();
        assert!(matches!(uploads.take("a", &id), Err(Refusal::UnknownUpload)));
        assert_eq!(files(&folder), 0);
    }

    #[test]
    fn there_are_so_many_uploads_and_old_ones_make_room() {
        let (folder, uploads) = uploads(100);
        let first = uploads.begin("a").expect("there is room");
        for _ in 1..MAX_UPLOADS {
            uploads.begin("a").expect("there is room");
        }
        assert!(matches!(uploads.begin("a"), Err(Refusal::ManyUploads { .. })));
        if let Some(Slot::Idle(upload)) = uploads.lock().get_mut(&first) {
            let Some(long_ago) = Instant::now().checked_sub(MAX_IDLE + Duration::from_secs(1)) else { return };
            upload.used = long_ago;
        }
        assert!(matches!(uploads.take("a", &first), Err(Refusal::UnknownUpload)));
        uploads.begin("a").expect("the old one has gone");
        assert_eq!(files(&folder), MAX_UPLOADS);
    }
}
