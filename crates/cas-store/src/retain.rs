//! What stays and what leaves when a store is cleared.
//!
//! Pins keep what they name for as long as they exist. Rows of the index (results of actions, memos) keep what they need
//! while they are used; then what nobody needs leaves once it is old enough. When room is wanted, more leaves: trees written
//! out, then what no row needs, then the rows that were not used for longest with what only they need. A row is forgotten
//! before what it needs is removed, so that nobody finds half of it.
//!
//! Marking fails closed: what cannot be read stops the collection before anything is removed. How removal gets along with
//! running builds is told in `collect` and `lease`.

use std::collections::HashMap;

use cas_blob::Descriptor;
use cas_digest::Digest;

use crate::collect::{Kind, Removed, Victim};
use crate::disk::{Disk, HostDisk};
use crate::index::{Index, Row};
use crate::mark::{Marker, NOBODY, Object, PINNED};
use crate::pins::Keep;
use crate::room::{Amount, Tally};
use crate::vault::Vault;
use crate::{StoreError, reserve};

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
    /// So much is to fit in afterwards, beside what the limits want.
    pub(crate) missing: Amount,
    /// At most so many bytes are to be left.
    pub(crate) most_bytes: Option<u64>,
    /// Nothing is removed.
    pub(crate) is_dry: bool,
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
    let tally = vault.begin_tally()?;
    let mut marker = Marker::list(vault, index)?;
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
    let mut rows = Rows::default();
    for (row, used) in index.rows()? {
        let by = u32::try_from(rows.kept.len() + 1).unwrap_or(NOBODY - 1);
        let is_old = age(now, used) > plan.retention.keep_seconds;
        let keeps = if is_old { None } else { needs(&row, &mut |blob| vault.peek_named(index, blob))? };
        match keeps {
            None => rows.doomed.push(row),
            Some(keeps) => {
                for keep in keeps {
                    // A row that needs what is gone is found out by whoever uses it.
                    marker.need(&keep, by)?;
                }
                rows.kept.push(row);
            }
        }
    }
    let objects = marker.objects;
    let mut roots = Vec::new();
    vault.each_root(&mut |digest, stat, amount| {
        roots.push((Victim { kind: Kind::Root, digest, stat }, amount));
        Ok(())
    })?;
    let held = objects
        .iter()
        .map(|object| amount_of(&object.victim))
        .chain(roots.iter().map(|(_, amount)| *amount))
        .fold(Amount::default(), Amount::add);
    let most = most_left(vault, plan, held, tally.as_ref())?;
    let choice = choose(&objects, &roots, now, plan.retention, held, most);
    if let Some(cut) = choice.cut {
        rows.doomed.extend(rows.kept.drain(cut as usize - 1..));
    }
    collected.rows = rows.doomed.len() as u64;
    if plan.is_dry {
        collected.objects = choice.objects.len() as u64;
        collected.roots = choice.roots.len() as u64;
        collected.bytes = held.less(choice.left).bytes;
        collected.bytes_left = choice.left.bytes;
        collected.objects_left = (objects.len() - choice.objects.len()) as u64;
        return Ok(collected);
    }
    // No row needs a root, so they go first and make room for what follows.
    let gone_roots = collection.remove(&choice.roots)?;
    let mut gone = Removed::default();
    let mut doomed = choice.objects;
    match index.remove_rows(&rows.doomed) {
        Err(error) if error.is_full() => {
            // Even forgetting takes room. What no row at all needs can go before.
            let (needless, rest) = part_needless(vault, index, needs, doomed)?;
            gone = collection.remove(&needless)?;
            doomed = rest;
            index.remove_rows(&rows.doomed)?;
        }
        result => result?,
    }
    gone.extend(collection.remove(&doomed)?);
    gone.removed.sort_unstable_by_key(|victim| victim.digest);
    if !gone.removed.is_empty() {
        let is_gone = |digest: &Digest| gone.removed.binary_search_by_key(digest, |victim| victim.digest).is_ok();
        index.remove_aliases_of(&is_gone)?;
    }
    let root_amounts: HashMap<Digest, Amount> = roots.iter().map(|(victim, amount)| (victim.digest, *amount)).collect();
    let removed = gone
        .removed
        .iter()
        .map(|victim| amount_of(victim))
        .chain(gone_roots.removed.iter().map(|victim| root_amounts[&victim.digest]))
        .fold(Amount::default(), Amount::add);
    collected.objects = gone.removed.len() as u64;
    collected.roots = gone_roots.removed.len() as u64;
    collected.spared = gone.spared + gone_roots.spared;
    collected.bytes = removed.bytes;
    collected.bytes_left = held.less(removed).bytes;
    collected.objects_left = objects.len() as u64 - collected.objects;
    let mut boots: HashMap<i64, u64> = HashMap::new();
    for victim in objects.iter().map(|object| &object.victim).chain(roots.iter().map(|(victim, _)| victim)) {
        *boots.entry(victim.stat.mark.seconds).or_default() += 1;
    }
    for victim in gone.removed.iter().chain(&gone_roots.removed) {
        *boots.entry(victim.stat.mark.seconds).or_default() -= 1;
    }
    // What was put meanwhile is of this boot, which is never forgotten.
    vault.epochs.forget_boots(&|boot| boots.get(&i64::from(boot)).is_some_and(|count| *count > 0))?;
    // Before another collection may begin, whose count would start from what this one has not written yet.
    vault.end_tally(tally, held.less(removed))?;
    collection.finish()?;
    reserve::fill(&*vault.disk, &vault.folder)?;
    Ok(collected)
}

/// Rows of the index, the one that was used last first.
#[derive(Default)]
struct Rows {
    kept: Vec<Row>,
    doomed: Vec<Row>,
}

/// What is to leave.
struct Choice<'a> {
    objects: Vec<&'a Victim>,
    roots: Vec<&'a Victim>,
    /// The first row that leaves for want of room; all that were used before it leave as well.
    cut: Option<u32>,
    /// What is left when all of that is gone.
    left: Amount,
}

/// Chooses what leaves: what is old; and then, while more than `most` is left, what costs least to make again.
fn choose<'a>(
    objects: &'a [Object],
    roots: &'a [(Victim, Amount)],
    now: i64,
    retention: Retention,
    held: Amount,
    most: Option<Amount>,
) -> Choice<'a> {
    let mut choice = Choice { objects: Vec::new(), roots: Vec::new(), cut: None, left: held };
    let mut rest = Vec::new();
    for object in objects {
        let stat = &object.victim.stat;
        if object.needed_by == NOBODY && age(now, stat.used.max(stat.changed)) > retention.min_age_seconds {
            choice.left = choice.left.less(amount_of(&object.victim));
            choice.objects.push(&object.victim);
        } else if most.is_some() {
            rest.push(object);
        }
    }
    let mut by_use: Vec<&(Victim, Amount)> = roots.iter().collect();
    by_use.sort_by_key(|(victim, _)| victim.stat.used);
    for (victim, amount) in by_use {
        let is_needless = most.is_some_and(|most| exceeds(choice.left, most));
        if age(now, victim.stat.used) > retention.keep_seconds || is_needless {
            choice.left = choice.left.less(*amount);
            choice.roots.push(victim);
        }
    }
    let Some(most) = most else { return choice };
    // Then what no row needs, the oldest first; then the rows, the ones that were not used for longest first.
    rest.sort_by_key(|object| (std::cmp::Reverse(object.needed_by), object.victim.stat.used));
    for object in rest {
        let needed_by = object.needed_by;
        // A row goes with all that only it needs.
        if needed_by == PINNED || (!exceeds(choice.left, most) && choice.cut != Some(needed_by)) {
            break;
        }
        if needed_by != NOBODY {
            choice.cut = Some(needed_by);
        }
        choice.left = choice.left.less(amount_of(&object.victim));
        choice.objects.push(&object.victim);
    }
    choice
}

fn age(now: i64, used: i64) -> u64 {
    now.saturating_sub(used).max(0).cast_unsigned()
}

const fn amount_of(victim: &Victim) -> Amount {
    Amount { bytes: victim.stat.allocated, inodes: 1 }
}

/// Parts what no row needs, be it as old as it may, from the rest.
fn part_needless<'a>(
    vault: &Vault<HostDisk>,
    index: &Index,
    needs: Needs,
    doomed: Vec<&'a Victim>,
) -> Result<(Vec<&'a Victim>, Vec<&'a Victim>), StoreError> {
    let mut marker = Marker::list(vault, index)?;
    for (row, _) in index.rows()? {
        for keep in needs(&row, &mut |blob| vault.peek_named(index, blob))?.unwrap_or_default() {
            marker.need(&keep, PINNED)?;
        }
    }
    Ok(doomed.into_iter().partition(|victim| !marker.is_needed(&victim.digest)))
}

const fn exceeds(amount: Amount, most: Amount) -> bool {
    amount.bytes > most.bytes || amount.inodes > most.inodes
}

/// How much may be left: below the limits by a fifth, so that the next collection is not due at once. `None` when whatever is
/// not old may stay.
fn most_left(
    vault: &Vault<HostDisk>,
    plan: &Plan,
    held: Amount,
    tally: Option<&Tally>,
) -> Result<Option<Amount>, StoreError> {
    let (quota, missing) = (&vault.format.quota, plan.missing);
    let room = vault.disk.room(&vault.folder)?;
    // Free room that is missing has to come out of what the store holds.
    let wanted_free = vault.min_free(&room).saturating_add(missing.bytes);
    let short = wanted_free.saturating_sub(room.bytes);
    let by_free = if short == 0 { u64::MAX } else { held.bytes.saturating_sub(short.saturating_add(held.bytes / 20)) };
    // What sessions have claimed counts against the limits before it is written.
    let claimed = tally.map_or(held, |tally| tally.usage.unwrap_or_else(|| held.add(tally.claimed)));
    let part = |limit: Option<u64>, held: u64, claimed: u64, missing: u64| {
        limit.map_or(u64::MAX, |limit| {
            let excess = claimed.saturating_add(missing).saturating_sub(limit);
            (limit / 5 * 4).min(held.saturating_sub(excess))
        })
    };
    // Without being asked to, no more leaves than the limits want.
    let by_quota = Amount {
        bytes: part(quota.max_bytes, held.bytes, claimed.bytes, missing.bytes),
        inodes: part(quota.max_inodes, held.inodes, claimed.inodes, missing.inodes),
    };
    let bytes = by_quota.bytes.min(by_free).min(plan.most_bytes.unwrap_or(u64::MAX));
    let most = Amount { bytes, inodes: by_quota.inodes };
    Ok((most != Amount { bytes: u64::MAX, inodes: u64::MAX }).then_some(most))
}
