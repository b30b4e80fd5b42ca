//! Room: limits that hold when something is put.
//!
//! A session claims room before it writes, in pieces that it uses up; so a limit is never passed, whatever other sessions
//! do. What everybody has claimed is counted in the file `usage`, under its lock. A session that dies leaves its claim
//! counted until the next count of the files themselves. Format: docs/formats/store.md, "Room".
//!
//! Not here: what leaves when there is no room (`retain`).

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use cas_fs::{FsError, Operation};

use crate::StoreError;
use crate::disk::{Access, Disk, LockMode, Room, lock, read_file, write_all};
use crate::epoch::is_live;
use crate::vault::Vault;

/// Room is claimed in pieces of this size, so that the shared count is not asked for every file.
const PIECE_BYTES: u64 = 16 << 20;
const PIECE_INODES: u64 = 1024;
/// A store with a small limit is not used up by the first piece.
const PIECES_A_STORE: u64 = 64;
/// Without another limit this much of the disk stays free: a part of it, and not more than so many bytes.
const FREE_PART: u64 = 20;
const MOST_FREE_BYTES: u64 = 1 << 30;
/// What one file takes is a multiple of this.
const BLOCK_BYTES: u64 = 4096;
/// Pauses to wait for the count, which others hold for a moment, or for as long as counting takes.
const PATIENCE: u32 = 30_000;

/// Bytes on the disk and files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Amount {
    pub(crate) bytes: u64,
    pub(crate) inodes: u64,
}

impl Amount {
    /// What a file of a length takes.
    pub(crate) const fn of_file(length: u64) -> Self {
        Self { bytes: length.div_ceil(BLOCK_BYTES) * BLOCK_BYTES, inodes: 1 }
    }

    pub(crate) const fn add(self, other: Self) -> Self {
        Self { bytes: self.bytes.saturating_add(other.bytes), inodes: self.inodes.saturating_add(other.inodes) }
    }

    pub(crate) const fn less(self, other: Self) -> Self {
        Self { bytes: self.bytes.saturating_sub(other.bytes), inodes: self.inodes.saturating_sub(other.inodes) }
    }

    /// The larger of both, for bytes and files each.
    fn larger(self, other: Self) -> Self {
        Self { bytes: self.bytes.max(other.bytes), inodes: self.inodes.max(other.inodes) }
    }

    const fn holds(self, other: Self) -> bool {
        self.bytes >= other.bytes && self.inodes >= other.inodes
    }

    /// Text of the file `usage`, of one length, so that it can be written in place.
    pub(crate) fn encode(self, boot: u32) -> String {
        format!("{boot:010} {:020} {:020}\n", self.bytes, self.inodes)
    }

    /// The opposite; `None` for another boot's or what makes no sense.
    pub(crate) fn decode(bytes: &[u8], boot: u32) -> Option<Self> {
        let mut words = std::str::from_utf8(bytes).ok()?.strip_suffix('\n')?.split(' ');
        if words.next()?.parse() != Ok(boot) {
            return None;
        }
        let amount = Self { bytes: words.next()?.parse().ok()?, inodes: words.next()?.parse().ok()? };
        words.next().is_none().then_some(amount)
    }
}

/// A count of the files that goes on beside others who put: what was known when it began.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    /// The shared count.
    pub(crate) usage: Option<Amount>,
    /// What running sessions had claimed.
    pub(crate) claimed: Amount,
}

/// Makes room: given how much is missing, frees at least that much if it can.
pub(crate) type MakeRoom = dyn Fn(Amount) -> Result<(), StoreError> + Send + Sync;

/// What a session has claimed and is not in the files yet.
#[derive(Clone, Copy, Debug, Default)]
struct Claimed {
    /// For what it will write.
    left: Amount,
    /// For what it is writing: no name leads there yet.
    writing: Amount,
}

/// Room for what this session writes.
#[derive(Default)]
pub(crate) struct Claims {
    claimed: Mutex<Claimed>,
    pub(crate) make_room: std::sync::OnceLock<Box<MakeRoom>>,
}

impl std::fmt::Debug for Claims {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Claims").field("claimed", &self.claimed).finish_non_exhaustive()
    }
}

impl<D: Disk> Vault<D> {
    /// Claims room before it is written to. What was used for longest leaves when there is none.
    ///
    /// # Errors
    ///
    /// [`StoreError::Quota`] when a limit would be passed and nothing more can leave.
    pub(crate) fn claim(&self, wanted: Amount) -> Result<(), StoreError> {
        let mut claimed = self.claimed();
        let mut attempts = 0;
        while !claimed.left.holds(wanted) {
            let Some(limit) = self.claim_piece(wanted.less(claimed.left), &mut claimed)? else { continue };
            match self.claims.make_room.get() {
                Some(make_room) if attempts == 0 => make_room(wanted)?,
                // What others wrote while the files were counted may have been counted twice.
                Some(_) if attempts == 1 && self.is_limited() => self.forget_usage()?,
                _ => return Err(StoreError::Quota { limit }),
            }
            attempts += 1;
        }
        claimed.left = claimed.left.less(wanted);
        claimed.writing = claimed.writing.add(wanted);
        Ok(())
    }

    /// Takes back a claim that is not used, for the session's next one.
    pub(crate) fn unclaim(&self, amount: Amount) {
        let mut claimed = self.claimed();
        claimed.left = claimed.left.add(amount);
        claimed.writing = claimed.writing.less(amount);
    }

    /// Ends a claim: what was written has its name.
    pub(crate) fn use_claim(&self, amount: Amount) {
        let mut claimed = self.claimed();
        claimed.writing = claimed.writing.less(amount);
    }

    fn claimed(&self) -> MutexGuard<'_, Claimed> {
        self.claims.claimed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Claims a piece that holds at least `wanted`; gives the limit that is in the way.
    fn claim_piece(&self, wanted: Amount, claimed: &mut Claimed) -> Result<Option<String>, StoreError> {
        let quota = &self.format.quota;
        let room = self.disk.room(&self.folder)?;
        let min_free = self.min_free(&room);
        let piece_bytes = PIECE_BYTES.min(quota.max_bytes.unwrap_or(u64::MAX) / PIECES_A_STORE).max(wanted.bytes);
        let piece_inodes = PIECE_INODES.min(quota.max_inodes.unwrap_or(u64::MAX) / PIECES_A_STORE).max(wanted.inodes);
        let mut piece = Amount { bytes: piece_bytes, inodes: piece_inodes };
        if room.bytes < min_free.saturating_add(piece.bytes) {
            piece = wanted;
            if room.bytes < min_free.saturating_add(piece.bytes) {
                return Ok(Some(format!("{min_free} bytes that stay free on its disk")));
            }
        }
        if !self.is_limited() {
            claimed.left = claimed.left.add(piece);
            return Ok(None);
        }
        let (max_bytes, max_inodes) = (quota.max_bytes.unwrap_or(u64::MAX), quota.max_inodes.unwrap_or(u64::MAX));
        let most = Amount { bytes: max_bytes, inodes: max_inodes };
        let mut reached = None;
        let path = self.session.path().join("claim");
        self.change_usage(&mut |usage| {
            if let Some(piece) = [piece, wanted].into_iter().find(|piece| most.holds(usage.add(*piece))) {
                // Whoever counts the files anew adds what is not in them yet: this much at most.
                self.write_amount(&path, claimed.left.add(claimed.writing).add(piece))?;
                claimed.left = claimed.left.add(piece);
                return Ok(usage.add(piece));
            }
            let is_bytes = usage.add(wanted).bytes > max_bytes;
            reached = Some(if is_bytes { format!("{max_bytes} bytes") } else { format!("{max_inodes} files") });
            Ok(usage)
        })?;
        Ok(reached)
    }

    /// Bytes that stay free on the store's disk.
    pub(crate) fn min_free(&self, room: &Room) -> u64 {
        self.format.quota.min_free_bytes.unwrap_or_else(|| (room.total_bytes / FREE_PART).min(MOST_FREE_BYTES))
    }

    /// Gives back what was claimed and not used, when the session ends.
    pub(crate) fn give_back(&self) -> Result<(), StoreError> {
        let claimed = std::mem::take(&mut *self.claimed());
        let left = claimed.left.add(claimed.writing);
        if left == Amount::default() || !self.is_limited() {
            return Ok(());
        }
        self.change_usage(&mut |usage| Ok(usage.less(left)))
    }

    /// Begins a count of the files themselves: what others leaked or lost is gone from the shared count after it. Nobody waits
    /// for it. `None` where nothing is limited.
    pub(crate) fn begin_tally(&self) -> Result<Option<Tally>, StoreError> {
        if !self.is_limited() {
            return Ok(None);
        }
        let mut tally = Tally::default();
        self.with_usage(&mut |usage| {
            tally = Tally { usage, claimed: self.all_claimed()? };
            Ok(usage)
        })?;
        Ok(Some(tally))
    }

    /// Ends the count: `counted` is what was here when the files were looked at, after the tally began, less what was removed
    /// since. What others claimed meanwhile is added, so nothing is missing; what they wrote as well may count twice until the
    /// next count.
    pub(crate) fn end_tally(&self, tally: Option<Tally>, counted: Amount) -> Result<(), StoreError> {
        let Some(tally) = tally else { return Ok(()) };
        self.with_usage(&mut |now| {
            let all = counted.add(tally.claimed);
            Ok(Some(match (tally.usage, now) {
                (Some(before), Some(now)) => all.add(now).less(before),
                // The shared count began after the tally, from the files as they were.
                (None, Some(now)) => all.larger(now),
                // Somebody set other limits meanwhile. The next one who claims counts.
                (Some(_), None) => return Ok(None),
                (None, None) => all,
            }))
        })
    }

    /// What running sessions have claimed and may still write: this much at most.
    fn all_claimed(&self) -> Result<Amount, StoreError> {
        let mut claimed = Amount::default();
        let sessions = self.folder.join("tmp");
        for entry in self.disk.list(&sessions)? {
            let session = sessions.join(&entry.name);
            if is_live(&*self.disk, &session)?
                && let Some(bytes) = read_file(&*self.disk, &session.join("claim"), 64)?
                && let Some(claim) = Amount::decode(&bytes, self.epochs.boot())
            {
                claimed = claimed.add(claim);
            }
        }
        Ok(claimed)
    }

    fn is_limited(&self) -> bool {
        self.format.quota.max_bytes.is_some() || self.format.quota.max_inodes.is_some()
    }

    /// Reads the count of what all sessions claimed, and writes what `change` makes of it.
    pub(crate) fn change_usage(
        &self,
        change: &mut dyn FnMut(Amount) -> Result<Amount, StoreError>,
    ) -> Result<(), StoreError> {
        self.with_usage(&mut |known| {
            let usage = match known {
                Some(usage) => usage,
                None => {
                    let counted = self.count()?;
                    counted.objects_amount.add(counted.roots_amount).add(self.all_claimed()?)
                }
            };
            Ok(Some(change(usage)?))
        })
    }

    fn with_usage(
        &self,
        change: &mut dyn FnMut(Option<Amount>) -> Result<Option<Amount>, StoreError>,
    ) -> Result<(), StoreError> {
        let path = self.folder.join("usage");
        let lock_path = self.folder.join("usage.lock");
        let _lock = lock(&*self.disk, &lock_path, LockMode::Exclusive, PATIENCE)?
            .ok_or(StoreError::Busy { path: lock_path })?;
        let boot = self.epochs.boot();
        let known = read_file(&*self.disk, &path, 64)?.and_then(|bytes| Amount::decode(&bytes, boot));
        match change(known)? {
            after if after == known => Ok(()),
            Some(after) => self.write_amount(&path, after),
            None => Ok(()),
        }
    }

    fn write_amount(&self, path: &Path, amount: Amount) -> Result<(), StoreError> {
        let file = self.disk.open(path, Access::Write)?.expect("a missing file is made");
        write_all(&*self.disk, &file, 0, amount.encode(self.epochs.boot()).as_bytes())
            .map_err(|error| FsError::new(Operation::Write, path, error).into())
    }

    /// Forgets the count, because it did not go on while there was no limit.
    pub(crate) fn forget_usage(&self) -> Result<(), StoreError> {
        let lock_path = self.folder.join("usage.lock");
        let _lock = lock(&*self.disk, &lock_path, LockMode::Exclusive, PATIENCE)?
            .ok_or(StoreError::Busy { path: lock_path })?;
        self.disk.remove(&self.folder.join("usage"))?;
        Ok(())
    }
}

/// Number of objects by function and all bytes, for `cas store stat`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    pub(crate) objects: u64,
    pub(crate) content_bytes: u64,
    pub(crate) objects_amount: Amount,
    pub(crate) roots: u64,
    pub(crate) roots_amount: Amount,
    pub(crate) suspects: u64,
}

impl<D: Disk> Vault<D> {
    /// Counts objects and roots.
    pub(crate) fn count(&self) -> Result<Counted, StoreError> {
        let mut counted = Counted::default();
        self.each_object(&mut |_, stat| {
            counted.objects += 1;
            counted.content_bytes += stat.size;
            counted.objects_amount = counted.objects_amount.add(Amount { bytes: stat.allocated, inodes: 1 });
            counted.suspects += u64::from(!self.epochs.trusts(stat.mark));
            Ok(())
        })?;
        self.each_root(&mut |_, _, amount| {
            counted.roots += 1;
            counted.roots_amount = counted.roots_amount.add(amount);
            Ok(())
        })?;
        Ok(counted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_of_one_length_and_of_one_boot() {
        let amount = Amount { bytes: 123, inodes: 4 };
        let text = amount.encode(7);
        assert_eq!(text.len(), Amount { bytes: u64::MAX, inodes: u64::MAX }.encode(u32::MAX).len());
        assert_eq!(Amount::decode(text.as_bytes(), 7), Some(amount));
        assert_eq!(Amount::decode(text.as_bytes(), 8), None);
        assert_eq!(Amount::decode(&text.as_bytes()[..20], 7), None);
    }
}
