//! What stays and what leaves when a store is cleared.
//!
//! Pins keep what they name for as long as they exist. Rows of the index (results of actions, memos) keep what they need
//! while they are used; then what nobody needs leaves once it is old enough. When room is wanted, more leaves: trees written
//! out, then what no row needs, then the rows that were not used for longest with what only they need. A row is forgotten
//! before what it needs is removed, so that nobody finds half of it.
//!
//! Marking fails closed: what cannot be read stops the collection before anything is removed. How removal gets along with
//! running builds is told in `collect` and `lease`.

use std::collections::{HashMap, HashSet};

use cas_blob::Descriptor;
use cas_digest::Digest;
use cas_tree::MAX_DIRECTORY_BYTES;

use crate::collect::{Kind, Removed, Victim};
use crate::disk::{Disk, HostDisk};
use crate::index::{Index, Row};
use crate::lease::Record;
use crate::pins::Keep;
use crate::room::Amount;
use crate::vault::Vault;
use crate::{Quota, StoreError};

/// Loads a blob without keeping it from being removed; `None` when it is not here.
pub type Load<'a> = dyn FnMut(&Descriptor) -> Result<Option<Vec<u8>>, StoreError> + 'a;

/// What a row needs in the store to be of use. `None`: nothing helps it, it can be forgotten.
pub type Needs = fn(&Row, &mut Load<'_>) -> Result<Option<Vec<Keep>>, StoreError>;

/// How long what is not pinned stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// What no row needs stays for so many seconds after its last use.
    pub min_age_seconds: u64,
    /// Rows, and trees written out, stay for so many seconds after their last use.
    pub keep_seconds: u64,
}

impl Default for Retention {
    /// A day, and thirty days.
    fn default() -> Self {
        Self { min_age_seconds: 24 * 3600, keep_seconds: 30 * 24 * 3600 }
    }
}

/// What a collection did, or would do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Objects that were removed.
    pub objects: u64,
    /// Trees written out that were removed.
    pub roots: u64,
    /// Bytes on the disk of both.
    pub bytes: u64,
    /// Rows that were forgotten.
    pub rows: u64,
    /// Objects and trees that running builds use, and that stayed for that reason alone.
    pub spared: u64,
    /// Pins whose condition had ended.
    pub pins: u64,
    /// Bytes on the disk of what is left.
    pub bytes_left: u64,
    /// Objects that are left.
    pub objects_left: u64,
}

/// How a store is cleared.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) retention: Retention,
    /// At most so much is to be left.
    pub(crate) most: Option<Amount>,
    /// Nothing is removed.
    pub(crate) is_dry: bool,
}

/// Nobody needs it.
const NOBODY: u32 = u32::MAX;
/// A pin needs it.
const PINNED: u32 = 0;

/// An object, and who needs it: the number of the row that was used last, from 1 on.
struct Object {
    victim: Victim,
    needed_by: u32,
    /// For whom everything below it was marked: not for whoever needs its bytes alone.
    walked_by: u32,
}

struct Marker<'a> {
    vault: &'a Vault<HostDisk>,
    index: &'a Index,
    objects: Vec<Object>,
    by_record: HashMap<Record, u32>,
    /// Second names that pins know, for when the index was lost.
    names: HashMap<Descriptor, Descriptor>,
}

impl Marker<'_> {
    /// Notes that `by` needs a blob; gives the object, `None` when it is not here.
    fn mark(&mut self, blob: &Descriptor, by: u32) -> Result<Option<&mut Object>, StoreError> {
        let mut found = self.by_record.get(&Record::object(&blob.digest));
        if found.is_none() {
            let primary = match self.names.get(blob) {
                Some(primary) => Some(*primary),
                None => self.index.alias(blob)?,
            };
            found = primary.and_then(|primary| self.by_record.get(&Record::object(&primary.digest)));
        }
        let Some(position) = found else { return Ok(None) };
        let object = &mut self.objects[*position as usize];
        object.needed_by = object.needed_by.min(by);
        Ok(Some(object))
    }

    /// Marks what is kept; gives a directory of a tree that is not here, if there is one.
    fn need(&mut self, keep: &Keep, by: u32) -> Result<Option<Descriptor>, StoreError> {
        match keep {
            Keep::Blob(blob) => {
                self.mark(blob, by)?;
                Ok(None)
            }
            Keep::Tree(tree) => self.mark_tree(tree, by),
        }
    }

    /// Marks a tree; gives a directory that is not here, if there is one. Files that are not here are left out.
    fn mark_tree(&mut self, root: &Descriptor, by: u32) -> Result<Option<Descriptor>, StoreError> {
        let mut waiting = vec![*root];
        let mut missing = None;
        while let Some(directory) = waiting.pop() {
            match self.mark(&directory, by)? {
                None => missing = missing.or(Some(directory)),
                // What is below it was marked for this one, or for one that stays longer.
                Some(object) if object.walked_by <= by => {}
                Some(object) => {
                    object.walked_by = by;
                    let bytes =
                        if directory.size > MAX_DIRECTORY_BYTES { None } else { self.vault.peek(&directory)? };
                    let references =
                        bytes.and_then(|bytes| cas_tree::references(&bytes, directory.digest.function()).ok());
                    let Some(references) = references else {
                        missing = missing.or(Some(directory));
                        continue;
                    };
                    for file in &references.files {
                        self.mark(file, by)?;
                    }
                    waiting.extend(references.directories);
                }
            }
        }
        Ok(missing)
    }
}

/// Clears a store: see the head of this module.
pub(crate) fn collect(
    vault: &Vault<HostDisk>,
    index: &Index,
    needs: Needs,
    plan: &Plan,
) -> Result<Collected, StoreError> {
    vault.spend_reserve_if_scarce()?;
    match index.write_uses() {
        // A use that is not noted makes a row leave earlier; a collection that fails makes no room.
        Err(error) if error.is_full() => {}
        result => result?,
    }
    // From here on whatever is leased is spared, so the list and the marks may be older than what others do meanwhile.
    let mut collection = vault.begin_collection()?;
    let now = vault.disk.now();
    let pins = vault.pins()?;
    let mut marker = list(vault, index)?;
    let mut collected = Collected::default();
    for pin in &pins {
        if let Some(path) = &pin.lifetime
            // What cannot be looked at may be there.
            && matches!(vault.disk.stat(path), Ok(None))
        {
            collected.pins += 1;
            if !plan.is_dry {
                vault.unpin(&pin.name)?;
            }
            continue;
        }
        marker.names.extend(pin.names.iter().copied());
        for keep in &pin.keeps {
            // Below a directory that is gone may be anything.
            if let Some(blob) = marker.need(keep, PINNED)? {
                return Err(StoreError::PinIncomplete { pin: pin.name.clone(), blob });
            }
        }
    }
    let age = |used: i64| now.saturating_sub(used).max(0).cast_unsigned();
    let mut doomed_rows = Vec::new();
    let mut rows = Vec::new();
    for (row, used) in index.rows()? {
        let by = u32::try_from(rows.len() + 1).unwrap_or(NOBODY - 1);
        if age(used) > plan.retention.keep_seconds {
            doomed_rows.push(row);
            continue;
        }
        let Some(keeps) = needs(&row, &mut |blob| vault.peek_named(index, blob))? else {
            doomed_rows.push(row);
            continue;
        };
        for keep in keeps {
            // A row that needs what is gone is found out by whoever uses it.
            marker.need(&keep, by)?;
        }
        rows.push(row);
    }
    let Marker { mut objects, .. } = marker;
    let mut roots = Vec::new();
    vault.each_root(&mut |digest, stat, amount| {
        roots.push((Victim { kind: Kind::Root, digest, stat }, amount));
        Ok(())
    })?;
    let amount_of = |object: &Object| Amount { bytes: object.victim.stat.allocated, inodes: 1 };
    let mut left = objects
        .iter()
        .map(amount_of)
        .chain(roots.iter().map(|(_, amount)| *amount))
        .fold(Amount::default(), Amount::add);
    let mut doomed = Vec::new();
    // First what is old: nobody pays for that.
    objects.retain(|object| {
        let last = object.victim.stat.used.max(object.victim.stat.changed);
        let goes = object.needed_by == NOBODY && age(last) > plan.retention.min_age_seconds;
        if goes {
            left = left.less(amount_of(object));
            doomed.push(object.victim);
        }
        !goes
    });
    let mut doomed_roots = Vec::new();
    roots.sort_by_key(|(victim, _)| victim.stat.used);
    roots.retain(|(victim, amount)| {
        let is_needless = plan.most.is_some_and(|most| exceeds(left, most));
        let goes = age(victim.stat.used) > plan.retention.keep_seconds || is_needless;
        if goes {
            left = left.less(*amount);
            doomed_roots.push((*victim, *amount));
        }
        !goes
    });
    if let Some(most) = plan.most {
        // Then what no row needs, the oldest first; then the rows, the ones that were not used for longest first.
        objects.sort_by_key(|object| (std::cmp::Reverse(object.needed_by), object.victim.stat.used));
        let mut cut = None;
        for object in &objects {
            let needed_by = object.needed_by;
            // A row goes with all that only it needs.
            if needed_by == PINNED || (!exceeds(left, most) && cut != Some(needed_by)) {
                break;
            }
            if needed_by != NOBODY {
                cut = Some(needed_by);
            }
            left = left.less(amount_of(object));
            doomed.push(object.victim);
        }
        if let Some(cut) = cut {
            doomed_rows.extend(rows.drain(cut as usize - 1..));
        }
    }
    collected.rows = doomed_rows.len() as u64;
    if plan.is_dry {
        collected.objects = doomed.len() as u64;
        collected.roots = doomed_roots.len() as u64;
        collected.bytes = doomed.iter().map(|victim| victim.stat.allocated).sum::<u64>()
            + doomed_roots.iter().map(|(_, amount)| amount.bytes).sum::<u64>();
        collected.bytes_left = left.bytes;
        return Ok(collected);
    }
    // No row needs a root, so they go first and make room for what follows.
    let root_victims: Vec<Victim> = doomed_roots.iter().map(|(victim, _)| *victim).collect();
    let gone_roots = collection.remove(&root_victims)?;
    let mut gone = Removed::default();
    match index.remove_rows(&doomed_rows) {
        Err(error) if error.is_full() => {
            // Even forgetting takes room. What no row at all needs can go before.
            let (needless, rest) = part_needless(vault, index, needs, doomed)?;
            gone = collection.remove(&needless)?;
            doomed = rest;
            index.remove_rows(&doomed_rows)?;
        }
        result => result?,
    }
    let gone_later = collection.remove(&doomed)?;
    gone.removed.extend(gone_later.removed);
    gone.spared += gone_later.spared;
    let sizes: HashMap<Record, Amount> =
        doomed_roots.iter().map(|(victim, amount)| (Record::root(&victim.digest), *amount)).collect();
    let root_amount = gone_roots.removed.iter().fold(Amount::default(), |sum, victim| {
        sum.add(sizes.get(&Record::root(&victim.digest)).copied().unwrap_or_default())
    });
    let object_amount = gone
        .removed
        .iter()
        .fold(Amount::default(), |sum, victim| sum.add(Amount { bytes: victim.stat.allocated, inodes: 1 }));
    let digests: HashSet<_> = gone.removed.iter().map(|victim| victim.digest).collect();
    if !digests.is_empty() {
        index.remove_aliases_of(&digests)?;
    }
    collected.objects = gone.removed.len() as u64;
    collected.roots = gone_roots.removed.len() as u64;
    collected.spared = gone.spared + gone_roots.spared;
    collected.bytes = object_amount.add(root_amount).bytes;
    let counted = vault.count()?;
    collected.bytes_left = counted.objects_amount.add(counted.roots_amount).bytes;
    collected.objects_left = counted.objects;
    let boots: HashSet<i64> = counted.boots;
    vault.epochs.forget_boots(&|boot| boots.contains(&i64::from(boot)))?;
    collection.finish()?;
    vault.count_anew()?;
    vault.fill_reserve()?;
    Ok(collected)
}

/// Parts what no row needs, be it as old as it may, from the rest.
fn part_needless(
    vault: &Vault<HostDisk>,
    index: &Index,
    needs: Needs,
    doomed: Vec<Victim>,
) -> Result<(Vec<Victim>, Vec<Victim>), StoreError> {
    let mut marker = list(vault, index)?;
    for (row, _) in index.rows()? {
        for keep in needs(&row, &mut |blob| vault.peek_named(index, blob))?.unwrap_or_default() {
            marker.need(&keep, PINNED)?;
        }
    }
    let is_needed = |object: &Object| object.needed_by != NOBODY;
    let needed: HashSet<Digest> =
        marker.objects.iter().filter(|object| is_needed(object)).map(|object| object.victim.digest).collect();
    Ok(doomed.into_iter().partition(|victim| !needed.contains(&victim.digest)))
}

const fn exceeds(amount: Amount, most: Amount) -> bool {
    amount.bytes > most.bytes || amount.inodes > most.inodes
}

/// How much may be left so that `missing` fits: below the limits by a fifth, so that the next collection is not due at once.
pub(crate) fn target(vault: &Vault<HostDisk>, quota: &Quota, missing: Amount) -> Result<Amount, StoreError> {
    let room = vault.disk.room(&vault.folder)?;
    let usage = vault.count_usage()?;
    // Free room that is missing has to come out of what the store holds.
    let wanted_free = vault.min_free(&room).saturating_add(missing.bytes);
    let short = wanted_free.saturating_sub(room.bytes);
    let by_free =
        if short == 0 { u64::MAX } else { usage.bytes.saturating_sub(short.saturating_add(usage.bytes / 20)) };
    // What sessions have claimed counts against the limits before it is written.
    let mut claimed = usage;
    if quota.max_bytes.is_some() || quota.max_inodes.is_some() {
        vault.change_usage(&mut |known| {
            claimed = known;
            known
        })?;
    }
    let part = |limit: Option<u64>, held: u64, claimed: u64, missing: u64| {
        limit.map_or(u64::MAX, |limit| {
            let excess = claimed.saturating_add(missing).saturating_sub(limit);
            (limit / 5 * 4).min(held.saturating_sub(excess))
        })
    };
    Ok(Amount {
        bytes: part(quota.max_bytes, usage.bytes, claimed.bytes, missing.bytes).min(by_free),
        inodes: part(quota.max_inodes, usage.inodes, claimed.inodes, missing.inodes),
    })
}

/// Everything that is here, needed by nobody yet.
fn list<'a>(vault: &'a Vault<HostDisk>, index: &'a Index) -> Result<Marker<'a>, StoreError> {
    let mut objects = Vec::new();
    let mut by_record = HashMap::new();
    vault.each_object(&mut |digest, stat| {
        by_record.insert(Record::object(&digest), u32::try_from(objects.len()).unwrap_or(NOBODY));
        objects.push(Object {
            victim: Victim { kind: Kind::Object, digest, stat },
            needed_by: NOBODY,
            walked_by: NOBODY,
        });
        Ok(())
    })?;
    Ok(Marker { vault, index, objects, by_record, names: HashMap::new() })
}

impl Vault<HostDisk> {
    /// Bytes of a blob by any of its names, without a lease.
    fn peek_named(&self, index: &Index, blob: &Descriptor) -> Result<Option<Vec<u8>>, StoreError> {
        if let Some(bytes) = self.peek(blob)? {
            return Ok(Some(bytes));
        }
        match index.alias(blob)? {
            Some(primary) => self.peek(&primary),
            None => Ok(None),
        }
    }
}
