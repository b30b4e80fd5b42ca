//! The candidates: how each of them stores, reads, asks for, writes out and removes blobs.
//!
//! They are as small as is fair to each: one process, no leases, no repair. A put hashes what it gets, a get what it
//! reads. Not here: what is measured (`main.rs`).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};

use anyhow::{Context, Result, anyhow, ensure};
use blake3::Hash;
use rusqlite::{Connection, OptionalExtension, params};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags, Timespec, Timestamps};
use rustix::io::Errno;

const BATCH_ROWS: usize = 256;
const SEGMENT_BYTES: u64 = 64 << 20;
/// Blobs above this are files in every layout.
pub(crate) const SEGMENTED_BYTES: usize = 1 << 20;
/// Threads take this many items at a time.
const TAKEN_AT_ONCE: usize = 64;
/// SQLite's own default of 1,000 pages would sync the log every 4 MB: this is the kind side of the comparison.
const PRAGMAS: &str = "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA mmap_size=2147418112; \
                       PRAGMA wal_autocheckpoint=16384;";
pub(crate) const STEPS: [&str; 7] = ["stat", "open", "write", "fchmod", "futimens", "name", "close"];

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Layout {
    /// Files that get their name by `linkat`, or by a rename.
    Files {
        renamed: bool,
    },
    /// Rows up to this many bytes, files above.
    Rows {
        limit: usize,
        clustered: bool,
    },
    Segments,
}

pub(crate) const LAYOUTS: [(&str, Layout); 7] = [
    ("files, linkat", Layout::Files { renamed: false }),
    ("files, rename", Layout::Files { renamed: true }),
    ("rows <= 4 KiB", Layout::Rows { limit: 4 << 10, clustered: true }),
    ("rows <= 16 KiB", Layout::Rows { limit: 16 << 10, clustered: true }),
    ("rows <= 16 KiB, with rowid", Layout::Rows { limit: 16 << 10, clustered: false }),
    ("rows <= 64 KiB", Layout::Rows { limit: 64 << 10, clustered: true }),
    ("segments", Layout::Segments),
];

pub(crate) struct Blob {
    pub(crate) hash: Hash,
    pub(crate) bytes: Vec<u8>,
}

pub(crate) struct Store {
    layout: Layout,
    folder: PathBuf,
    pub(crate) objects: OwnedFd,
    temporary: AtomicUsize,
}

impl Store {
    pub(crate) fn create(layout: Layout, folder: &Path) -> Result<Self> {
        let objects = folder.join("objects/blake3");
        for byte in 0..=255u8 {
            cas_fs::create_dir_all(&objects.join(format!("{byte:02x}")))?;
        }
        cas_fs::create_dir_all(&objects.join("tmp"))?;
        let objects = open_dir(&objects)?;
        let store = Self { layout, folder: folder.to_owned(), objects, temporary: AtomicUsize::new(0) };
        let (columns, suffix) = match layout {
            Layout::Files { .. } => return Ok(store),
            Layout::Rows { clustered: true, .. } => ("bytes BLOB", "WITHOUT ROWID"),
            Layout::Rows { clustered: false, .. } => ("bytes BLOB", ""),
            Layout::Segments => ("segment INTEGER, offset INTEGER, length INTEGER", "WITHOUT ROWID"),
        };
        store.index()?.execute_batch(&format!("CREATE TABLE blob (digest BLOB PRIMARY KEY, {columns}) {suffix}"))?;
        Ok(store)
    }

    fn index(&self) -> Result<Connection> {
        let index = Connection::open(self.folder.join("index.db"))?;
        index.execute_batch(PRAGMAS)?;
        Ok(index)
    }

    fn is_file(&self, blob: &Blob) -> bool {
        match self.layout {
            Layout::Files { .. } => true,
            Layout::Rows { limit, .. } => blob.bytes.len() > limit,
            Layout::Segments => blob.bytes.len() > SEGMENTED_BYTES,
        }
    }

    /// `lap` is told when each of [`STEPS`] is done.
    pub(crate) fn put_file(&self, blob: &Blob, durable: bool, mut lap: impl FnMut(usize)) -> Result<()> {
        let name = name(&blob.hash);
        if self.has_file(&name)? {
            return Ok(());
        }
        lap(0);
        let temporary = match self.layout {
            Layout::Files { renamed: true } => Some(format!("tmp/{}", self.temporary.fetch_add(1, Ordering::Relaxed))),
            _ => None,
        };
        let kind = if temporary.is_some() { OFlags::CREATE | OFlags::EXCL } else { OFlags::TMPFILE };
        let path = temporary.as_deref().unwrap_or(".");
        let flags = kind | OFlags::WRONLY | OFlags::CLOEXEC;
        let mut file = File::from(rustix::fs::openat(&self.objects, path, flags, Mode::from_raw_mode(0o600))?);
        lap(1);
        file.write_all(&blob.bytes)?;
        lap(2);
        rustix::fs::fchmod(&file, Mode::from_raw_mode(0o444))?;
        lap(3);
        rustix::fs::futimens(&file, &constant_times())?;
        lap(4);
        if durable {
            rustix::fs::fdatasync(&file)?;
        }
        match temporary {
            Some(path) => rustix::fs::renameat(&self.objects, path, &self.objects, &name)?,
            None => {
                let source = format!("/proc/self/fd/{}", file.as_raw_fd());
                rustix::fs::linkat(CWD, source, &self.objects, &name, AtFlags::SYMLINK_FOLLOW)?;
            }
        }
        lap(5);
        drop(file);
        lap(6);
        Ok(())
    }

    fn has_file(&self, name: &str) -> Result<bool> {
        present(rustix::fs::statx(&self.objects, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::SIZE))
    }

    /// Hashes and stores: files by every thread, rows by one writer beside them.
    pub(crate) fn put<'t>(&self, blobs: &'t [Blob], threads: usize) -> Result<()> {
        let checked = |blob: &Blob| ensure_is(blob.hash, &blob.bytes);
        if matches!(self.layout, Layout::Files { .. }) {
            return each(
                blobs,
                threads,
                || Ok(()),
                |(), blob| {
                    checked(blob)?;
                    self.put_file(blob, false, |_| {})
                },
            );
        }
        if threads == 1 {
            let mut writer = Writer::new(self)?;
            for blob in blobs {
                checked(blob)?;
                if self.is_file(blob) {
                    self.put_file(blob, false, |_| {})?;
                } else {
                    writer.push(&blob.hash, &blob.bytes)?;
                }
            }
            return writer.finish();
        }
        let (sender, receiver) = sync_channel::<&'t Blob>(2 * BATCH_ROWS);
        std::thread::scope(|scope| {
            let writing = scope.spawn(move || {
                let mut writer = Writer::new(self)?;
                receiver.iter().try_for_each(|blob| writer.push(&blob.hash, &blob.bytes))?;
                writer.finish()
            });
            let send = |sender: &mut SyncSender<&'t Blob>, blob: &'t Blob| -> Result<()> {
                checked(blob)?;
                if self.is_file(blob) {
                    self.put_file(blob, false, |_| {})
                } else {
                    sender.send(blob).map_err(|_| anyhow!("the writer stopped"))
                }
            };
            let sent = each(blobs, threads, || Ok(sender.clone()), send);
            drop(sender);
            writing.join().expect("the writer does not panic")?;
            sent
        })
    }

    pub(crate) fn reader(&self) -> Result<Reader<'_>> {
        let index = if matches!(self.layout, Layout::Files { .. }) { None } else { Some(self.index()?) };
        Ok(Reader { store: self, index, segments: BTreeMap::new(), buffer: Vec::new() })
    }

    /// Removes blobs, without giving back the bytes of rows and segments.
    pub(crate) fn collect(&self, victims: &[&Blob], threads: usize) -> Result<()> {
        each(
            victims,
            threads,
            || Ok(()),
            |(), blob| {
                if self.is_file(blob) {
                    rustix::fs::unlinkat(&self.objects, name(&blob.hash), AtFlags::empty())?;
                }
                Ok(())
            },
        )?;
        if matches!(self.layout, Layout::Files { .. }) {
            return Ok(());
        }
        let index = self.index()?;
        for batch in victims.chunks(BATCH_ROWS) {
            index.execute_batch("BEGIN IMMEDIATE")?;
            for blob in batch.iter().filter(|blob| !self.is_file(blob)) {
                index.prepare_cached("DELETE FROM blob WHERE digest = ?")?.execute([blob.hash.as_slice()])?;
            }
            index.execute_batch("COMMIT")?;
        }
        Ok(index.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")?)
    }

    /// Gives bytes back: `VACUUM`, or new segments in the place of those of which less than half is alive.
    pub(crate) fn shrink(&self) -> Result<()> {
        match self.layout {
            Layout::Files { .. } => return Ok(()),
            Layout::Rows { .. } => {
                return Ok(self.index()?.execute_batch("VACUUM; PRAGMA wal_checkpoint(TRUNCATE)")?);
            }
            Layout::Segments => {}
        }
        let mut writer = Writer::new(self)?;
        let rows: Vec<(Vec<u8>, u32, i64, i64)> = writer
            .index
            .prepare("SELECT digest, segment, offset, length FROM blob ORDER BY segment, offset")?
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?
            .collect::<Result<_, _>>()?;
        let mut removed = Vec::new();
        for alive in rows.chunk_by(|left, right| left.1 == right.1) {
            let path = segment_path(&self.folder, alive[0].1);
            let file = cas_fs::open(&path)?;
            if 2 * alive.iter().map(|row| row.3.cast_unsigned()).sum::<u64>() >= file.metadata()?.len() {
                continue;
            }
            for (digest, _, offset, length) in alive {
                let mut bytes = vec![0; usize::try_from(*length)?];
                file.read_exact_at(&mut bytes, offset.cast_unsigned())?;
                writer.push(&Hash::from_slice(digest)?, &bytes)?;
            }
            removed.push(path);
        }
        writer.finish()?;
        Ok(removed.iter().try_for_each(|path| cas_fs::remove_file(path))?)
    }
}

/// The one that writes rows, in transactions of [`BATCH_ROWS`].
struct Writer<'a> {
    store: &'a Store,
    index: Connection,
    open_rows: usize,
    segment: Option<(u32, File, u64)>,
    buffer: Vec<u8>,
}

impl<'a> Writer<'a> {
    fn new(store: &'a Store) -> Result<Self> {
        Ok(Self { store, index: store.index()?, open_rows: 0, segment: None, buffer: Vec::new() })
    }

    fn push(&mut self, hash: &Hash, bytes: &[u8]) -> Result<()> {
        if self.open_rows == 0 {
            self.index.execute_batch("BEGIN IMMEDIATE")?;
        }
        if self.store.layout == Layout::Segments {
            let (number, mut offset) = self.segment_for(bytes.len() as u64)?;
            // A record tells what it is, so that a lost index can be made again.
            self.buffer.extend_from_slice(hash.as_slice());
            self.buffer.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
            self.buffer.extend_from_slice(bytes);
            offset += 40;
            let mut insert = self.index.prepare_cached("INSERT OR REPLACE INTO blob VALUES (?, ?, ?, ?)")?;
            insert.execute(params![hash.as_slice(), number, offset.cast_signed(), i64::try_from(bytes.len())?])?;
        } else {
            let mut insert = self.index.prepare_cached("INSERT OR IGNORE INTO blob VALUES (?, ?)")?;
            insert.execute(params![hash.as_slice(), bytes])?;
        }
        self.open_rows += 1;
        if self.open_rows == BATCH_ROWS {
            self.commit()?;
        }
        Ok(())
    }

    /// The segment with room for `length` more bytes, and where they go.
    fn segment_for(&mut self, length: u64) -> Result<(u32, u64)> {
        if self.segment.as_ref().is_none_or(|(_, _, end)| end + length > SEGMENT_BYTES) {
            self.flush()?;
            let mut number = self.segment.as_ref().map_or(0, |(number, ..)| number + 1);
            while cas_fs::exists(&segment_path(&self.store.folder, number))? {
                number += 1;
            }
            self.segment = Some((number, cas_fs::create_new(&segment_path(&self.store.folder, number), 0o600)?, 0));
        }
        let (number, _, end) = self.segment.as_mut().context("a segment was just made")?;
        let start = *end;
        *end += 40 + length;
        Ok((*number, start))
    }

    fn flush(&mut self) -> Result<()> {
        if let Some((_, file, _)) = &mut self.segment {
            file.write_all(&self.buffer)?;
        }
        self.buffer.clear();
        Ok(())
    }

    fn commit(&mut self) -> Result<()> {
        self.flush()?;
        if self.open_rows > 0 {
            self.index.execute_batch("COMMIT")?;
        }
        self.open_rows = 0;
        Ok(())
    }

    fn finish(mut self) -> Result<()> {
        self.commit()?;
        Ok(self.index.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")?)
    }
}

/// What one thread needs for reading.
pub(crate) struct Reader<'a> {
    store: &'a Store,
    index: Option<Connection>,
    segments: BTreeMap<u32, File>,
    buffer: Vec<u8>,
}

impl Reader<'_> {
    pub(crate) fn load<T>(&mut self, blob: &Blob, then: impl FnOnce(&[u8]) -> Result<T>) -> Result<T> {
        self.buffer.resize(blob.bytes.len(), 0);
        if self.store.is_file(blob) {
            self.open(blob)?.read_exact(&mut self.buffer)?;
            return then(&self.buffer);
        }
        let index = self.index.as_ref().context("this layout has an index")?;
        if self.store.layout != Layout::Segments {
            let mut select = index.prepare_cached("SELECT bytes FROM blob WHERE digest = ?")?;
            let mut rows = select.query([blob.hash.as_slice()])?;
            return then(rows.next()?.context("the row is there")?.get_ref(0)?.as_blob()?);
        }
        let mut select = index.prepare_cached("SELECT segment, offset FROM blob WHERE digest = ?")?;
        let (number, offset): (u32, i64) =
            select.query_row([blob.hash.as_slice()], |row| Ok((row.get(0)?, row.get(1)?)))?;
        if !self.segments.contains_key(&number) {
            self.segments.insert(number, cas_fs::open(&segment_path(&self.store.folder, number))?);
        }
        self.segments[&number].read_exact_at(&mut self.buffer, offset.cast_unsigned())?;
        then(&self.buffer)
    }

    fn open(&self, blob: &Blob) -> Result<File> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.store.objects, name(&blob.hash), flags, Mode::empty())?.into())
    }

    pub(crate) fn has(&self, blob: &Blob) -> Result<bool> {
        match &self.index {
            Some(index) if !self.store.is_file(blob) => {
                let mut select = index.prepare_cached("SELECT 1 FROM blob WHERE digest = ?")?;
                Ok(select.query_row([blob.hash.as_slice()], |_| Ok(())).optional()?.is_some())
            }
            _ => self.store.has_file(&name(&blob.hash)),
        }
    }

    pub(crate) fn write_out(&mut self, blob: &Blob, tree: &OwnedFd, path: &Path, clone: bool) -> Result<()> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let mut target = File::from(rustix::fs::openat(tree, path, flags, Mode::from_raw_mode(0o644))?);
        if clone && self.store.is_file(blob) {
            rustix::fs::ioctl_ficlone(&target, self.open(blob)?)?;
        } else {
            self.load(blob, |bytes| Ok(target.write_all(bytes)?))?;
        }
        Ok(rustix::fs::futimens(&target, &constant_times())?)
    }
}

impl Blob {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        Self { hash: blake3::hash(&bytes), bytes }
    }
}

/// Does `work` on every item, in threads that each have a state of their own.
pub(crate) fn each<'t, T: Sync, S>(
    items: &'t [T],
    threads: usize,
    state: impl Fn() -> Result<S> + Sync,
    work: impl Fn(&mut S, &'t T) -> Result<()> + Sync,
) -> Result<()> {
    let next = AtomicUsize::new(0);
    let worker = || -> Result<()> {
        let mut own = state()?;
        loop {
            let start = next.fetch_add(TAKEN_AT_ONCE, Ordering::Relaxed);
            if start >= items.len() {
                return Ok(());
            }
            items[start..items.len().min(start + TAKEN_AT_ONCE)].iter().try_for_each(|item| work(&mut own, item))?;
        }
    };
    if threads == 1 {
        return worker();
    }
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        running.into_iter().try_for_each(|thread| thread.join().expect("workers do not panic"))
    })
}

pub(crate) fn name(hash: &Hash) -> String {
    let hex = hash.to_hex();
    [&hex[..2], "/", &hex[2..]].concat()
}

pub(crate) fn ensure_is(hash: Hash, bytes: &[u8]) -> Result<()> {
    ensure!(blake3::hash(bytes) == hash, "these are other bytes");
    Ok(())
}

pub(crate) fn present<T>(answer: rustix::io::Result<T>) -> Result<bool> {
    match answer {
        Ok(_) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn segment_path(folder: &Path, number: u32) -> PathBuf {
    folder.join(format!("{number}.segment"))
}

fn constant_times() -> Timestamps {
    let time = Timespec { tv_sec: 1_000_000_000, tv_nsec: 0 };
    Timestamps { last_access: time, last_modification: time }
}

pub(crate) fn open_dir(path: &Path) -> Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}
