//! Reading the content of files, several at once, each only when its digest is not known and only when it holds still.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;

use cas_blob::Descriptor;
use cas_digest::{Digest, DigestFunction, Hasher};
use cas_fs::{FsError, Operation};
use rayon::prelude::*;
use rustix::fs::{AtFlags, OFlags};
use rustix::io::Errno;

use crate::cache::{Held, Kind};
use crate::snapshot::{FileAt, Picked, Snapshot, rel_path};
use crate::stamp::{Begun, Stamp};
use crate::text::Text;
use crate::walk::{join, open_below, to_content};
use crate::{KeepError, SnapshotError};

/// How often a file that changes under the reader is read again before that is an error.
const ATTEMPTS: usize = 3;
/// Bytes read at once: enough that the call costs nothing beside hashing, and fits a core's second cache.
const BUFFER_BYTES: usize = 256 * 1024;
/// A file of this size is read by all threads: others may be at their end, and it alone would keep one busy.
const PARTED_BYTES: u64 = 4 << 20;
/// Files that one task reads: those of one folder follow each other and share its descriptor.
const FILES_A_TASK: usize = 32;

impl Snapshot {
    /// Reads those of the picked files whose digest is not known.
    ///
    /// # Errors
    ///
    /// [`SnapshotError`] for what cannot be an input, with its path.
    pub fn read(&self, picked: &Picked) -> Result<(), SnapshotError> {
        let mut unknown = Vec::new();
        let mut special = None;
        let mut index = 0;
        self.each(picked, |path, name, kind| {
            match kind {
                Kind::File(Held { content: None, .. }) | Kind::Symlink(Held { content: None, .. }) => {
                    unknown.push(picked.0[index]);
                }
                Kind::Special => {
                    special.get_or_insert_with(|| join(path, name));
                }
                _ => {}
            }
            index += 1;
        });
        if let Some(path) = special {
            return Err(self.special(&path)?);
        }
        self.in_parallel(&unknown, |reader, file| {
            let held = match reader.kind(file) {
                Kind::Symlink(_) => reader.read_symlink(file)?,
                _ => reader.read_file(file)?,
            };
            self.learn(file, held);
            Ok(())
        })
    }

    /// Gives the content of each picked file that `has` does not know to `put`, which must check that it is the blob's. What was kept
    /// once is not asked for again: steps of a package mostly read the same files, and what is kept stays while the snapshot is used.
    ///
    /// # Errors
    ///
    /// [`KeepError::Keep`] with what `put` said, and what the file said for a file that cannot be read any more.
    pub fn keep<E: std::error::Error + Send>(
        &self,
        picked: &Picked,
        has: &(dyn Fn(&Descriptor) -> Result<bool, E> + Sync),
        put: &(dyn Fn(&mut dyn Read, &Descriptor) -> Result<(), E> + Sync),
    ) -> Result<(), KeepError<E>> {
        self.read(picked)?;
        for index in &picked.0 {
            self.taken[*index as usize].store(true, Ordering::Relaxed);
        }
        let is_kept = |index: &u32| self.kept[*index as usize].load(Ordering::Relaxed);
        let left: Vec<u32> = picked.0.iter().copied().filter(|index| !is_kept(index)).collect();
        self.in_parallel(&left, |reader, file| {
            let Kind::File(held) = reader.kind(file) else { return Ok(()) };
            let blob = self.blob(&held);
            let failed = |source| KeepError::Keep { path: self.path_bytes(file), source };
            if has(&blob).map_err(failed)? {
                return Ok(());
            }
            let mut content = reader.open(file)?;
            put(&mut content, &blob).map_err(failed)
        })?;
        for index in left {
            self.kept[index as usize].store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Checks that no file whose content was kept holds something else now.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Changed`] with such a file.
    pub fn verify_unchanged(&self) -> Result<(), SnapshotError> {
        let taken = self.taken.iter().zip(0u32..).filter(|(taken, _)| taken.load(Ordering::Relaxed));
        let taken: Vec<u32> = taken.map(|(_, index)| index).collect();
        self.in_parallel(&taken, |reader, file| {
            let before = reader.kind(file);
            let (Kind::File(held) | Kind::Symlink(held)) = before else { return Ok(()) };
            let changed = || SnapshotError::Changed { path: self.path_bytes(file) };
            if reader.look(file)? == Some(held.stamp) {
                return Ok(());
            }
            // A link, a change of rights or a touch moves the stamp as well: the content tells.
            let now = match before {
                Kind::Symlink(_) => reader.read_symlink(file),
                _ => reader.read_file(file),
            };
            match now {
                Ok(now) if now.content == held.content && now.is_executable() == held.is_executable() => {
                    self.learn(file, now);
                    Ok(())
                }
                Ok(_) => Err(changed()),
                Err(SnapshotError::Fs(error)) if gone(&error) => Err(changed()),
                Err(error) => Err(error),
            }
        })
    }

    /// What a link holds, if that is still what it held.
    pub(crate) fn symlink_target(&self, path: &[u8], held: &Held) -> Result<Vec<u8>, SnapshotError> {
        if let Some(target) = self.links.get(path) {
            return Ok(target.clone());
        }
        let (folder, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(at) => (&path[..at], &path[at + 1..]),
            None => (&b""[..], path),
        };
        let target = rustix::fs::readlinkat(self.root.folder(folder)?, name, Vec::new())
            .map_err(|error| FsError::new(Operation::ReadLink, &self.root.at(path), error.into()))?
            .into_bytes();
        if Some(to_content(&Digest::of(self.function, &target))) == held.content {
            Ok(target)
        } else {
            Err(SnapshotError::Changed { path: path.to_vec() })
        }
    }

    fn special(&self, path: &[u8]) -> Result<SnapshotError, SnapshotError> {
        use rustix::fs::FileType;
        let at = self.root.at(path);
        let stat = rustix::fs::lstat(&at).map_err(|error| FsError::new(Operation::Stat, &at, error.into()))?;
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Socket => "socket",
            FileType::Fifo => "fifo",
            _ => "device",
        };
        Ok(SnapshotError::Special { path: path.to_vec(), kind })
    }

    fn learn(&self, file: FileAt, held: Held) {
        self.folders[file.folder as usize].change(|folder| {
            if let Kind::File(known) | Kind::Symlink(known) = &mut folder.names[file.name as usize].kind {
                *known = held;
            }
        });
    }

    fn in_parallel<E: Send>(
        &self,
        files: &[u32],
        with: impl Fn(&mut Reader<'_>, FileAt) -> Result<(), E> + Sync,
    ) -> Result<(), E> {
        let run = |files: &[u32], reader: &mut Reader<'_>| {
            files.iter().try_for_each(|index| with(reader, self.files[*index as usize]))
        };
        if files.len() <= 2 {
            // Waking other threads takes longer than a file or two.
            return run(files, &mut Reader::new(self));
        }
        let task = FILES_A_TASK.min(files.len().div_ceil(rayon::current_num_threads()));
        files.par_chunks(task).try_for_each_init(|| Reader::new(self), |reader, files| run(files, reader))
    }
}

fn gone(error: &FsError) -> bool {
    let code = error.source.raw_os_error();
    [Errno::NOENT, Errno::NOTDIR, Errno::LOOP, Errno::XDEV].iter().any(|gone| code == Some(gone.raw_os_error()))
}

/// One thread's way to files: its buffer, and the folder that it read from last.
struct Reader<'a> {
    snapshot: &'a Snapshot,
    folder: Option<(u32, OwnedFd)>,
    buffer: Vec<u8>,
}

impl<'a> Reader<'a> {
    fn new(snapshot: &'a Snapshot) -> Self {
        Self { snapshot, folder: None, buffer: Vec::new() }
    }

    fn kind(&self, file: FileAt) -> Kind {
        self.snapshot.folders[file.folder as usize].read().names[file.name as usize].kind
    }

    fn name(&self, file: FileAt) -> Text {
        self.snapshot.folders[file.folder as usize].read().names[file.name as usize].name.clone()
    }

    fn failed(&self, operation: Operation, file: FileAt, error: Errno) -> FsError {
        FsError::new(operation, &self.snapshot.root.at(&self.snapshot.path_bytes(file)), error.into())
    }

    fn folder(&mut self, file: FileAt) -> Result<BorrowedFd<'_>, FsError> {
        if self.folder.as_ref().is_none_or(|(folder, _)| *folder != file.folder) {
            let path = &self.snapshot.folders[file.folder as usize].path;
            self.folder = Some((file.folder, self.snapshot.root.folder(path)?));
        }
        Ok(self.folder.as_ref().expect("it was just set").1.as_fd())
    }

    fn open(&mut self, file: FileAt) -> Result<File, SnapshotError> {
        let name = self.name(file);
        match open_below(self.folder(file)?, &name, OFlags::RDONLY) {
            Ok(descriptor) => Ok(File::from(descriptor)),
            Err(error) => Err(self.failed(Operation::Open, file, error).into()),
        }
    }

    /// How a file looks now; `None` when it is gone.
    fn look(&mut self, file: FileAt) -> Result<Option<Stamp>, SnapshotError> {
        let name = self.name(file);
        let folder = match self.folder(file) {
            Ok(folder) => folder,
            Err(error) if gone(&error) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        match rustix::fs::statat(folder, &*name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(Stamp::of(&stat))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(self.failed(Operation::Stat, file, error).into()),
        }
    }

    fn is_trusted(&mut self, file: FileAt, stamp: &Stamp, begun: Begun) -> Result<bool, SnapshotError> {
        let snapshot = self.snapshot;
        Ok(snapshot.volumes.is_trusted(stamp, begun, self.folder(file)?))
    }

    fn read_file(&mut self, file: FileAt) -> Result<Held, SnapshotError> {
        for _ in 0..ATTEMPTS {
            let begun = Begun::now();
            let mut source = self.open(file)?;
            let look = |source: &File| rustix::fs::fstat(source).map(|stat| Stamp::of(&stat));
            let before = look(&source).map_err(|error| self.failed(Operation::Stat, file, error))?;
            let (digest, len) = self.hash(file, &mut source, before.size)?;
            // What is this short was read in one piece, which the buffer holds still.
            let is_pointer = len <= cas_git::MAX_POINTER_BYTES as u64
                && usize::try_from(len).is_ok_and(|len| cas_git::is_lfs_pointer(&self.buffer[..len]));
            let after = look(&source).map_err(|error| self.failed(Operation::Stat, file, error))?;
            if before == after && len == after.size {
                let is_trusted = self.is_trusted(file, &after, begun)?;
                return Ok(Held { stamp: after, content: Some(to_content(&digest)), is_trusted, is_pointer });
            }
        }
        Err(self.unstable(file))
    }

    fn hash(&mut self, file: FileAt, source: &mut File, size: u64) -> Result<(Digest, u64), SnapshotError> {
        if self.snapshot.function == DigestFunction::Blake3 && size >= PARTED_BYTES {
            // A file that ends early has changed, as the look after it shows.
            let read = |offset, part: &mut [u8]| match source.read_exact_at(part, offset) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    part.fill(0);
                    Ok(())
                }
                result => result,
            };
            let digest = cas_digest::hash_parts(size, &read).map_err(|error| {
                FsError::new(Operation::Read, &self.snapshot.root.at(&self.snapshot.path_bytes(file)), error)
            })?;
            return Ok((digest, size));
        }
        self.buffer.resize(BUFFER_BYTES, 0);
        let mut hasher = Hasher::new(self.snapshot.function);
        let mut len = 0;
        loop {
            match source.read(&mut self.buffer) {
                Ok(0) => return Ok((hasher.finish(), len)),
                Ok(count) => {
                    hasher.update(&self.buffer[..count]);
                    len += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let at = self.snapshot.root.at(&self.snapshot.path_bytes(file));
                    return Err(FsError::new(Operation::Read, &at, error).into());
                }
            }
        }
    }

    fn read_symlink(&mut self, file: FileAt) -> Result<Held, SnapshotError> {
        let name = self.name(file);
        for _ in 0..ATTEMPTS {
            let begun = Begun::now();
            let before = self.look(file)?;
            let target = rustix::fs::readlinkat(self.folder(file)?, &*name, Vec::new());
            let target = target.map_err(|error| self.failed(Operation::ReadLink, file, error))?.into_bytes();
            let Some(stamp) = self.look(file)?.filter(|after| before.as_ref() == Some(after)) else { continue };
            let path = self.snapshot.path_bytes(file);
            if leaves(rel_path(&path)?.components().count() - 1, &target) {
                let target = String::from_utf8_lossy(&target).into_owned();
                return Err(SnapshotError::LeavesWorkspace { path, target });
            }
            let content = Some(to_content(&Digest::of(self.snapshot.function, &target)));
            let is_trusted = self.is_trusted(file, &stamp, begun)?;
            return Ok(Held { stamp, content, is_trusted, is_pointer: false });
        }
        Err(self.unstable(file))
    }

    fn unstable(&self, file: FileAt) -> SnapshotError {
        SnapshotError::Unstable { path: self.snapshot.path_bytes(file) }
    }
}

/// Whether a link that stands `depth` folders deep leaves the workspace, going by the names alone.
fn leaves(mut depth: usize, target: &[u8]) -> bool {
    if target.first() == Some(&b'/') {
        return true;
    }
    for component in target.split(|b| *b == b'/') {
        match component {
            b"" | b"." => {}
            b".." => match depth.checked_sub(1) {
                Some(up) => depth = up,
                None => return true,
            },
            _ => depth += 1,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_may_climb_as_far_as_the_workspace() {
        for (depth, target, expected) in [
            (2, "../../c", false),
            (2, "../../../c", true),
            (0, "a/../b", false),
            (0, "..", true),
            (0, "/etc/passwd", true),
            (1, ".//x", false),
        ] {
            assert_eq!(leaves(depth, target.as_bytes()), expected, "{depth} -> {target}");
        }
    }
}
