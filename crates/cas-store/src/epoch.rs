//! Epochs: which objects are known to have reached the disk.
//!
//! An object's modification time, its mark, says in which epoch it was written. An epoch belongs to one session of one boot;
//! it is sealed once everything written in it was flushed. After a restart the objects of sealed epochs are trusted, all
//! others are suspect until they have been hashed. So building never waits for a disk, and no torn object is taken for a
//! whole one. The seconds of a mark stand for the boot (a random number), the nanoseconds count the boot's epochs.
//!
//! Losing the files of this module costs hashing, never wrong bytes. Format: docs/formats/store.md, "Epochs".

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use cas_digest::{Digest, DigestFunction};
use cas_fs::{FsError, Operation};

use crate::disk::{Access, Disk, LockMode, Mark, Replacement, Site, lock, read_file, replace_durably, write_all};

/// Mark of objects that were flushed before they got their name.
pub(crate) const DURABLE: Mark = Mark { seconds: 1, nanoseconds: 1 };

/// Boots are told apart by seconds from this on: a year that files of other makers do not have, nor those of tests.
pub(crate) const BOOTS: Range<u32> = 0x1000_0000..i32::MAX.cast_unsigned();
/// So many epochs a boot: nanoseconds of a second.
const LAST_EPOCH: u32 = 999_999_999;
/// The files are short: a line a boot.
const MAX_FILE_BYTES: usize = 16 * 1024 * 1024;
const HEADER: &str = "cas epochs 1";
/// Pauses to wait for the lock, which is held for a moment alone.
const PATIENCE: u32 = 5_000;

/// Ranges of epochs, both ends included, in order, apart by at least one.
type Ranges = Vec<(u32, u32)>;

/// The sealed epochs of each boot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sealed(BTreeMap<u32, Ranges>);

impl Sealed {
    fn contains(&self, mark: Mark) -> bool {
        let Ok(boot) = u32::try_from(mark.seconds) else { return false };
        self.0
            .get(&boot)
            .is_some_and(|ranges| ranges.iter().any(|(first, last)| (*first..=*last).contains(&mark.nanoseconds)))
    }

    /// The same with all epochs that a boot has begun, but for those that live sessions write in. Epochs are added by
    /// ranges: a damaged file may tell of a thousand million.
    pub(crate) fn with_all_but(&self, boot: &Boot, live: &[u32]) -> Self {
        let mut live: Vec<u32> = live.iter().copied().filter(|epoch| *epoch < boot.next).collect();
        live.sort_unstable();
        let mut with = self.clone();
        let mut first = 0;
        for end in live.into_iter().chain([boot.next]) {
            if first < end {
                with.add(boot.seconds, first, end - 1);
            }
            first = end + 1;
        }
        with
    }

    fn add(&mut self, boot: u32, first: u32, last: u32) {
        let ranges = self.0.entry(boot).or_default();
        let mut all: Ranges = std::mem::take(ranges);
        all.push((first, last));
        all.sort_unstable();
        for (first, last) in all {
            match ranges.last_mut() {
                Some((_, end)) if first <= end.saturating_add(1) => *end = (*end).max(last),
                _ => ranges.push((first, last)),
            }
        }
    }

    /// Keeps the boots of which an object was seen.
    pub(crate) fn retain(&mut self, seen: &dyn Fn(u32) -> bool) {
        self.0.retain(|boot, _| seen(*boot));
    }

    /// Text: header, a line a boot, the BLAKE3 of all before it.
    pub(crate) fn encode(&self) -> String {
        let mut text = format!("{HEADER}\n");
        for (boot, ranges) in &self.0 {
            write!(text, "{boot}").expect("strings take all");
            for (first, last) in ranges {
                write!(text, " {first}-{last}").expect("strings take all");
            }
            text.push('\n');
        }
        let check = Digest::of(DigestFunction::Blake3, text.as_bytes()).to_hex();
        text.push_str(&check);
        text.push('\n');
        text
    }

    /// The opposite; `None` for anything that is not whole and in order.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let body = text.strip_suffix('\n')?;
        let start = body.rfind('\n')? + 1;
        if Digest::of(DigestFunction::Blake3, &bytes[..start]).to_hex() != body[start..] {
            return None;
        }
        let mut lines = body[..start - 1].split('\n');
        if lines.next()? != HEADER {
            return None;
        }
        let mut boots: BTreeMap<u32, Ranges> = BTreeMap::new();
        for line in lines {
            let mut words = line.split(' ');
            let boot = words.next()?.parse().ok()?;
            if boots.last_key_value().is_some_and(|(last, _)| *last >= boot) {
                return None;
            }
            let mut ranges = Ranges::new();
            for word in words {
                let (first, last) = word.split_once('-')?;
                let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
                let in_order = ranges.last().is_none_or(|(_, end)| first > *end && first - *end > 1);
                if first > last || last > LAST_EPOCH || !in_order {
                    return None;
                }
                ranges.push((first, last));
            }
            boots.insert(boot, ranges);
        }
        Some(Self(boots))
    }
}

/// The boot that runs, as `epoch/boot` says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Boot {
    id: String,
    pub(crate) seconds: u32,
    pub(crate) next: u32,
}

impl Boot {
    /// Reads the file; `None` for seconds that no boot has: objects of this one would be taken for flushed ones.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?.strip_suffix('\n')?;
        let mut words = text.split(' ');
        let boot = Self {
            id: words.next()?.to_owned(),
            seconds: words.next()?.parse().ok()?,
            next: words.next()?.parse().ok()?,
        };
        (words.next().is_none() && BOOTS.contains(&boot.seconds) && boot.next <= LAST_EPOCH).then_some(boot)
    }

    pub(crate) fn encode(&self) -> String {
        format!("{} {} {}\n", self.id, self.seconds, self.next)
    }
}

/// The epoch that this session writes in.
#[derive(Debug, Default)]
struct Current {
    mark: Option<Mark>,
}

/// The epochs of a store, and the one of this session.
#[derive(Debug)]
pub(crate) struct Epochs<D: Disk> {
    disk: Arc<D>,
    /// `epoch/`: `boot`, `sealed`, `lock`.
    folder: PathBuf,
    /// Folders of all sessions, and of this one.
    sessions: PathBuf,
    session: PathBuf,
    /// Of this session's boot; what it wrote is trusted as long as the machine runs.
    boot: u32,
    boot_id: String,
    /// Sealed in earlier boots: that does not change any more.
    sealed: Sealed,
    /// Opened before anything was written, so that it hears of every write that fails.
    file_system: D::File,
    current: RwLock<Current>,
    /// Held by the one thread that seals.
    sealing: Mutex<()>,
}

/// Permission to publish objects with a mark. As long as it lives its epoch is not sealed.
#[derive(Debug)]
pub(crate) struct Writing<'a> {
    pub(crate) mark: Mark,
    _guard: RwLockReadGuard<'a, Current>,
}

impl<D: Disk> Epochs<D> {
    /// Begins with the files in `folder`; `session` is this session's folder among those in `sessions`.
    pub(crate) fn open(disk: Arc<D>, folder: &Path, sessions: &Path, session: &Path) -> Result<Self, FsError> {
        let file_system = disk.open_folder(folder)?;
        // Where boots cannot be told apart, each session is one: nothing that was not sealed is trusted.
        let boot_id = disk.boot().unwrap_or_else(|| format!("{:016x}", disk.random()));
        let guard = epoch_lock(&*disk, folder)?;
        let sealed = read_sealed(&*disk, folder)?;
        let boot = current_boot(&*disk, folder, session, &boot_id, &sealed)?;
        drop(guard);
        Ok(Self {
            disk,
            folder: folder.to_owned(),
            sessions: sessions.to_owned(),
            session: session.to_owned(),
            boot: boot.seconds,
            boot_id,
            sealed,
            file_system,
            current: RwLock::default(),
            sealing: Mutex::default(),
        })
    }

    /// Whether an object with this mark is known to be whole: written in this boot, or flushed before.
    pub(crate) fn trusts(&self, mark: Mark) -> bool {
        mark == DURABLE || mark.seconds == i64::from(self.boot) || self.sealed.contains(mark)
    }

    /// Whether an object with this mark was written or read in this boot.
    pub(crate) fn is_of_this_boot(&self, mark: Mark) -> bool {
        mark.seconds == i64::from(self.boot)
    }

    /// Number of this boot.
    pub(crate) fn boot(&self) -> u32 {
        self.boot
    }

    /// Whether an object with this mark is known to survive a loss of power.
    pub(crate) fn is_durable(&self, mark: Mark) -> bool {
        mark == DURABLE || self.sealed.contains(mark)
    }

    /// The mark for objects that are published now.
    pub(crate) fn write(&self) -> Result<Writing<'_>, FsError> {
        loop {
            let guard = self.current.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(mark) = guard.mark {
                return Ok(Writing { mark, _guard: guard });
            }
            drop(guard);
            let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
            if current.mark.is_none() {
                current.mark = Some(self.allocate()?);
            }
        }
    }

    /// Whether there is anything that a seal would make durable: of this session, or of one that ended.
    pub(crate) fn is_sealable(&self) -> Result<bool, FsError> {
        if self.current.read().unwrap_or_else(PoisonError::into_inner).mark.is_some() {
            return Ok(true);
        }
        let _guard = epoch_lock(&*self.disk, &self.folder)?;
        let Some(boot) = read_boot(&*self.disk, &self.folder)? else { return Ok(false) };
        let (sealed, live) = (read_sealed(&*self.disk, &self.folder)?, self.live_epochs()?);
        Ok(boot.seconds == self.boot && sealed.with_all_but(&boot, &live) != sealed)
    }

    /// Which marks are those of sealed epochs, as of now.
    #[cfg(test)]
    pub(crate) fn sealed_now(&self) -> impl Fn(Mark) -> bool {
        let sealed = read_sealed(&*self.disk, &self.folder).unwrap();
        move |mark| mark == DURABLE || sealed.contains(mark)
    }

    fn allocate(&self) -> Result<Mark, FsError> {
        let _guard = epoch_lock(&*self.disk, &self.folder)?;
        let sealed = read_sealed(&*self.disk, &self.folder)?;
        let mut boot = current_boot(&*self.disk, &self.folder, &self.session, &self.boot_id, &sealed)?;
        if boot.seconds != self.boot || boot.next >= LAST_EPOCH {
            // Another session saw a flush fail and began anew, or the file was lost. What this one writes is never sealed.
            let random = u32::try_from(self.disk.random() % u64::from(LAST_EPOCH)).expect("it is below the limit");
            return Ok(Mark { seconds: i64::from(self.boot), nanoseconds: random });
        }
        let epoch = boot.next;
        // First the session's claim, then the counter: a crash between the two leaves a number that is claimed twice at most
        // by sessions of which one is dead.
        let claim = self.session.join("epoch");
        let file = self.disk.open(&claim, Access::Write)?.expect("a missing file is made");
        let text = format!("{:010} {epoch:010}\n", self.boot);
        write_all(&*self.disk, &file, 0, text.as_bytes())
            .map_err(|error| FsError::new(Operation::Write, &claim, error))?;
        boot.next += 1;
        write_boot(&*self.disk, &self.folder, &self.session, &boot)?;
        Ok(Mark { seconds: i64::from(self.boot), nanoseconds: epoch })
    }

    /// Flushes everything and records that this session's epoch, and those of sessions that are gone, have reached the
    /// disk. What is put from now on belongs to a new epoch.
    ///
    /// # Errors
    ///
    /// [`FsError`] when a flush failed: the data may be lost although later flushes succeed, so none of this boot's epochs
    /// is sealed any more, and the caller must give up the store.
    pub(crate) fn seal(&self) -> Result<(), FsError> {
        let _one = self.sealing.lock().unwrap_or_else(PoisonError::into_inner);
        // Waits for those who are publishing; from now on they take a new number.
        self.current.write().unwrap_or_else(PoisonError::into_inner).mark = None;
        let (boot, live) = {
            let _guard = epoch_lock(&*self.disk, &self.folder)?;
            let Some(boot) = read_boot(&*self.disk, &self.folder)? else { return Ok(()) };
            (boot, self.live_epochs()?)
        };
        if boot.id != self.boot_id || boot.seconds != self.boot {
            return Ok(());
        }
        if let Err(error) = self.disk.sync_all(Site::SyncEpochs, &self.file_system) {
            // That the flush failed is what the caller has to know, whatever comes of this: nothing was sealed.
            let _ = self.abandon_boot();
            return Err(FsError::new(Operation::Sync, &self.folder, error));
        }
        let _guard = epoch_lock(&*self.disk, &self.folder)?;
        if read_boot(&*self.disk, &self.folder)?.is_none_or(|now| now.seconds != self.boot) {
            return Ok(());
        }
        let before = read_sealed(&*self.disk, &self.folder)?;
        let sealed = before.with_all_but(&boot, &live);
        if sealed == before { Ok(()) } else { self.write_sealed(&sealed) }
    }

    /// Forgets the boots of which no object is left.
    pub(crate) fn forget_boots(&self, seen: &dyn Fn(u32) -> bool) -> Result<(), FsError> {
        let _guard = epoch_lock(&*self.disk, &self.folder)?;
        let mut sealed = read_sealed(&*self.disk, &self.folder)?;
        let before = sealed.clone();
        // Others may have begun anew since this session started.
        let now = read_boot(&*self.disk, &self.folder)?.map(|boot| boot.seconds);
        sealed.retain(&|boot| boot == self.boot || Some(boot) == now || seen(boot));
        if sealed == before { Ok(()) } else { self.write_sealed(&sealed) }
    }

    fn write_sealed(&self, sealed: &Sealed) -> Result<(), FsError> {
        let temporary = self.session.join("sealed");
        self.disk.remove(&temporary)?;
        let sites = Replacement { sync: Site::SyncSeal, rename: Site::RenameSeal, sync_folder: Site::SyncSealFolder };
        replace_durably(&*self.disk, &temporary, &self.folder.join("sealed"), sealed.encode().as_bytes(), sites)
    }

    /// The numbers that running sessions write in.
    fn live_epochs(&self) -> Result<Vec<u32>, FsError> {
        let mut live = Vec::new();
        for entry in self.disk.list(&self.sessions)? {
            let session = self.sessions.join(&entry.name);
            if session == self.session || !is_live(&*self.disk, &session)? {
                continue;
            }
            let Some(bytes) = read_file(&*self.disk, &session.join("epoch"), 64)? else { continue };
            if let Some((boot, epoch)) = decode_claim(&bytes)
                && boot == self.boot
            {
                live.push(epoch);
            }
        }
        Ok(live)
    }

    /// Lets nobody seal an epoch of this boot any more.
    fn abandon_boot(&self) -> Result<(), FsError> {
        let _guard = epoch_lock(&*self.disk, &self.folder)?;
        let sealed = read_sealed(&*self.disk, &self.folder)?;
        let mut boot = new_boot(&*self.disk, &self.boot_id, &sealed);
        while boot.seconds == self.boot {
            boot = new_boot(&*self.disk, &self.boot_id, &sealed);
        }
        write_boot(&*self.disk, &self.folder, &self.session, &boot)
    }
}

/// What a session's file `epoch` says: seconds of the boot and number of the epoch that it writes in.
pub(crate) fn decode_claim(bytes: &[u8]) -> Option<(u32, u32)> {
    let (boot, epoch) = std::str::from_utf8(bytes).ok()?.strip_suffix('\n')?.split_once(' ')?;
    Some((boot.parse().ok()?, epoch.parse().ok()?))
}

/// Whether a session's process runs: it holds the lock of its folder.
pub(crate) fn is_live<D: Disk>(disk: &D, session: &Path) -> Result<bool, FsError> {
    let path = session.join("lock");
    let Some(file) = disk.open(&path, Access::Read)? else { return Ok(false) };
    let free = disk.try_lock(&file, LockMode::Shared).map_err(|error| FsError::new(Operation::Open, &path, error))?;
    Ok(!free)
}

fn epoch_lock<D: Disk>(disk: &D, folder: &Path) -> Result<D::File, FsError> {
    let path = folder.join("lock");
    lock(disk, &path, LockMode::Exclusive, PATIENCE)?
        .ok_or_else(|| FsError::new(Operation::Open, &path, std::io::ErrorKind::TimedOut.into()))
}

fn read_sealed<D: Disk>(disk: &D, folder: &Path) -> Result<Sealed, FsError> {
    let bytes = read_file(disk, &folder.join("sealed"), MAX_FILE_BYTES)?;
    Ok(bytes.and_then(|bytes| Sealed::decode(&bytes)).unwrap_or_default())
}

fn read_boot<D: Disk>(disk: &D, folder: &Path) -> Result<Option<Boot>, FsError> {
    Ok(read_file(disk, &folder.join("boot"), 256)?.and_then(|bytes| Boot::decode(&bytes)))
}

fn new_boot<D: Disk>(disk: &D, id: &str, sealed: &Sealed) -> Boot {
    loop {
        let count = u64::from(BOOTS.end - BOOTS.start);
        let seconds = BOOTS.start + u32::try_from(disk.random() % count).expect("it is below the limit");
        if !sealed.0.contains_key(&seconds) {
            return Boot { id: id.to_owned(), seconds, next: 0 };
        }
    }
}

/// The boot in the file, or a new one when that is another one.
fn current_boot<D: Disk>(disk: &D, folder: &Path, session: &Path, id: &str, sealed: &Sealed) -> Result<Boot, FsError> {
    if let Some(boot) = read_boot(disk, folder)?
        && boot.id == id
    {
        return Ok(boot);
    }
    let boot = new_boot(disk, id, sealed);
    write_boot(disk, folder, session, &boot)?;
    Ok(boot)
}

fn write_boot<D: Disk>(disk: &D, folder: &Path, session: &Path, boot: &Boot) -> Result<(), FsError> {
    // Not flushed: after a restart it is another boot's, whatever is in it.
    let temporary = session.join("boot");
    disk.remove(&temporary)?;
    let file = disk.open(&temporary, Access::New)?.expect("a new file is made or an error");
    write_all(disk, &file, 0, boot.encode().as_bytes())
        .map_err(|error| FsError::new(Operation::Write, &temporary, error))?;
    disk.rename(Site::RenameBoot, &temporary, &folder.join("boot"))
}
