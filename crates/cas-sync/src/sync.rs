//! Bringing tags of repositories to others, again and again: what they stand for is pinned, and what is there is left. Rules:
//! docs/formats/sync.md.
//!
//! Not here: files of what is brought (`sync_file`), which tags are meant (`tag_filter`), copying (`source`, `push`).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use cas_digest::Digest;
use cas_oci::{Reference, Repository};
use cas_registry::Client;
use tokio::runtime::Runtime;

use crate::push::{Extras, push_on, runtime};
use crate::source::{find, tail};
use crate::{CopyOptions, PushOptions, SyncError, SyncFile, SyncLock, SyncSection, TagClass, Target};

/// Requests and images on their way, over all hosts.
const MOST_AT_ONCE: usize = 64;

/// A tag that is brought to a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncItem {
    /// Where it is from.
    pub from: Repository,
    /// What it is called there and here.
    pub tag: String,
    /// What it stands for.
    pub digest: Digest,
    /// Where it goes.
    pub to: Repository,
    /// Whether what refers to it comes along.
    pub referrers: bool,
}

/// What a place has for a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ItemState {
    /// What is pinned.
    Same,
    /// Nothing.
    New,
    /// Something else, and the tag follows the pins.
    Moves(Digest),
    /// Something else, and the tag is one that never moves.
    Taken(Digest),
}

/// What became of an item.
pub type SyncOutcome = Result<ItemState, Arc<SyncError>>;

/// Pins the sections that have no pins, or all of them with `is_update`.
///
/// # Errors
///
/// [`SyncError`]: also for a tag that is named and not there.
pub fn resolve_sync(
    client: &Arc<Client>,
    file: &SyncFile,
    lock: &SyncLock,
    is_update: bool,
) -> Result<SyncLock, SyncError> {
    let runtime = runtime()?;
    let mut resolved = lock.clone();
    resolved.retain(file);
    for section in &file.sections {
        if is_update || lock.get(section).is_none() {
            let pins = resolve_section(&runtime, client, file, section)?;
            resolved.set(section, pins);
        }
    }
    Ok(resolved)
}

fn resolve_section(
    runtime: &Runtime,
    client: &Arc<Client>,
    file: &SyncFile,
    section: &SyncSection,
) -> Result<BTreeMap<String, Digest>, SyncError> {
    let from = &section.from;
    let absent = |tags: Vec<String>| SyncError::NoTag { repository: from.to_string(), tags: tags.join("`, `") };
    let tags: Vec<String> = if section.filter.needs_list() {
        let all = runtime.block_on(client.tags(from))?;
        let chosen = section.filter.choose(all.iter().map(String::as_str));
        if !chosen.missing.is_empty() {
            return Err(absent(chosen.missing.into_iter().collect()));
        }
        chosen.tags.into_iter().collect()
    } else {
        section.filter.choose(section.filter.named().iter().map(String::as_str)).tags.into_iter().collect()
    };
    let found: Mutex<BTreeMap<String, Option<Digest>>> = Mutex::default();
    let jobs = tags.into_iter().map(|tag| (BTreeSet::from([from.host.clone()]), tag)).collect();
    each(file, jobs, &|tag: String| {
        let digest = match &section.platform {
            None => runtime.block_on(client.look(from, &tag))?,
            Some(platform) => {
                let reference = Reference { repository: from.clone(), tag: Some(tag.clone()), digest: None };
                let what = CopyOptions { platform: Some(platform), referrers: false };
                Some(runtime.block_on(find(client, &reference, &what))?.shipment.root().blob.digest)
            }
        };
        found.lock().unwrap_or_else(PoisonError::into_inner).insert(tag, digest);
        Ok(())
    })?;
    let found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    // One that was listed a moment ago and is gone was named by nobody.
    let named = section.filter.named();
    let missing: Vec<String> = found
        .iter()
        .filter(|(tag, digest)| digest.is_none() && named.contains(*tag))
        .map(|(tag, _)| tag.clone())
        .collect();
    if !missing.is_empty() {
        return Err(absent(missing));
    }
    Ok(found.into_iter().filter_map(|(tag, digest)| Some((tag, digest?))).collect())
}

/// Every tag of a file with every place that it goes to, in the order of the file.
///
/// # Errors
///
/// [`SyncError::Unpinned`]
pub fn sync_items(file: &SyncFile, lock: &SyncLock) -> Result<Vec<SyncItem>, SyncError> {
    let mut items = Vec::new();
    for section in &file.sections {
        let unpinned = || SyncError::Unpinned { repository: section.from.to_string() };
        let pins = lock.get(section).ok_or_else(unpinned)?;
        for to in &section.to {
            items.extend(pins.iter().map(|(tag, digest)| SyncItem {
                from: section.from.clone(),
                tag: tag.clone(),
                digest: *digest,
                to: to.clone(),
                referrers: section.referrers,
            }));
        }
    }
    Ok(items)
}

/// Looks at what the places have: one request an item, in the order of the items.
///
/// # Errors
///
/// [`SyncError::Runtime`] alone: others are outcomes.
pub fn look_sync(client: &Arc<Client>, file: &SyncFile, items: &[SyncItem]) -> Result<Vec<SyncOutcome>, SyncError> {
    let runtime = runtime()?;
    let found: Mutex<BTreeMap<usize, SyncOutcome>> = Mutex::default();
    let jobs = (0..items.len()).map(|at| (BTreeSet::from([items[at].to.host.clone()]), at)).collect();
    each(file, jobs, &|at: usize| {
        let SyncItem { to, tag, digest, .. } = &items[at];
        let state = match runtime.block_on(client.look(to, tag)) {
            Ok(None) => Ok(ItemState::New),
            Ok(Some(found)) if found == *digest => Ok(ItemState::Same),
            Ok(Some(found)) if TagClass::of(tag) == TagClass::Moving => Ok(ItemState::Moves(found)),
            Ok(Some(found)) => Ok(ItemState::Taken(found)),
            Err(error) => Err(Arc::new(SyncError::from(error))),
        };
        found.lock().unwrap_or_else(PoisonError::into_inner).insert(at, state);
        Ok(())
    })?;
    let found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(found.into_values().collect())
}

/// Brings what is not there, tags of one image together, as the items were found. `told` hears of each item when it is done or has
/// failed; a failure ends nothing but itself. What became of the items, in their order.
///
/// # Errors
///
/// [`SyncError::Runtime`] alone: others are outcomes.
pub fn apply_sync(
    client: &Arc<Client>,
    file: &SyncFile,
    items: &[SyncItem],
    found: Vec<SyncOutcome>,
    told: &(dyn Fn(&SyncItem, &SyncOutcome) + Sync),
) -> Result<Vec<SyncOutcome>, SyncError> {
    let runtime = runtime()?;
    let mut outcomes = found;
    let mut groups: BTreeMap<(&Repository, &Repository, Digest), Vec<usize>> = BTreeMap::new();
    for (at, (item, outcome)) in items.iter().zip(&mut outcomes).enumerate() {
        match *outcome {
            Ok(ItemState::New | ItemState::Moves(_)) => {
                groups.entry((&item.from, &item.to, item.digest)).or_default().push(at);
                continue;
            }
            Ok(ItemState::Taken(found)) => {
                let (repository, tag) = (item.to.to_string(), item.tag.clone());
                let class = TagClass::of(&item.tag);
                *outcome = Err(Arc::new(SyncError::Taken { repository, tag, found, class }));
            }
            Ok(ItemState::Same) | Err(_) => {}
        }
        told(item, outcome);
    }
    let failed: Mutex<BTreeMap<usize, Arc<SyncError>>> = Mutex::default();
    let hosts = |from: &Repository, to: &Repository| BTreeSet::from([from.host.clone(), to.host.clone()]);
    let jobs = groups.into_iter().map(|((from, to, digest), members)| (hosts(from, to), (from, to, digest, members)));
    each(file, jobs.collect(), &|(from, to, digest, members): (&Repository, &Repository, Digest, Vec<usize>)| {
        let tags: Vec<String> = members.iter().map(|at| items[*at].tag.clone()).collect();
        let referrers = members.iter().any(|at| items[*at].referrers);
        let brought = bring(&runtime, client, (from, to), &digest, &tags, referrers).map_err(Arc::new);
        for at in members {
            match &brought {
                Ok(()) => told(&items[at], &outcomes[at]),
                Err(error) => {
                    told(&items[at], &Err(Arc::clone(error)));
                    failed.lock().unwrap_or_else(PoisonError::into_inner).insert(at, Arc::clone(error));
                }
            }
        }
        Ok(())
    })?;
    for (at, error) in failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        outcomes[at] = Err(error);
    }
    Ok(outcomes)
}

fn bring(
    runtime: &Runtime,
    client: &Arc<Client>,
    (from, to): (&Repository, &Repository),
    digest: &Digest,
    tags: &[String],
    referrers: bool,
) -> Result<(), SyncError> {
    let reference = Reference { repository: from.clone(), tag: None, digest: Some(*digest) };
    let found = runtime.block_on(find(client, &reference, &CopyOptions { platform: None, referrers }))?;
    let target = Target { repository: to.clone(), tags: tags.to_vec() };
    // Tags that move follow the pins, and `latest` has the others beside it.
    let options = PushOptions { moved: tags.iter().cloned().collect(), is_beside: true, ..PushOptions::default() };
    let tails = |blob| tail(Arc::clone(client), runtime.handle().clone(), from.clone(), blob);
    let extras = Extras { tails: Some(&tails), following: &found.following };
    push_on(runtime, client, &found.shipment, &[target], &options, &extras, &|_| ()).map(drop)
}

/// Does jobs side by side, each when all of its hosts have room for it; the first failure ends what has not begun.
fn each<J: Send>(
    file: &SyncFile,
    jobs: VecDeque<(BTreeSet<String>, J)>,
    work: &(dyn Fn(J) -> Result<(), SyncError> + Sync),
) -> Result<(), SyncError> {
    struct State<J> {
        jobs: VecDeque<(BTreeSet<String>, J)>,
        busy: BTreeMap<String, usize>,
        failure: Option<SyncError>,
    }
    let workers = jobs.len().min(MOST_AT_ONCE);
    let state = Mutex::new(State { jobs, busy: BTreeMap::new(), failure: None });
    let freed = Condvar::new();
    let next = || {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if state.failure.is_some() || state.jobs.is_empty() {
                return None;
            }
            let has_room = |(hosts, _): &(BTreeSet<String>, J)| {
                hosts.iter().all(|host| state.busy.get(host).copied().unwrap_or(0) < file.at_once(host))
            };
            if let Some(at) = state.jobs.iter().position(has_room) {
                let (hosts, job) = state.jobs.remove(at).expect("it was found");
                for host in &hosts {
                    *state.busy.entry(host.clone()).or_default() += 1;
                }
                return Some((hosts, job));
            }
            state = freed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some((hosts, job)) = next() {
                    let result = work(job);
                    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
                    for host in &hosts {
                        *state.busy.entry(host.clone()).or_default() -= 1;
                    }
                    if let Err(error) = result {
                        state.failure.get_or_insert(error);
                    }
                    drop(state);
                    freed.notify_all();
                }
            });
        }
    });
    state.into_inner().unwrap_or_else(PoisonError::into_inner).failure.map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    #[test]
    fn no_host_has_more_to_do_at_once_than_the_file_says() {
        let file = SyncFile::parse("[host.one]\nat_once = 2\n").expect("it is one");
        let hosts = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<String>>();
        let (now, most, done) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        let jobs = (0..12).map(|number| (hosts(&["one", if number % 2 == 0 { "a" } else { "b" }]), number)).collect();
        let work = |_: i32| {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            // Long enough that more of them would be seen.
            std::thread::sleep(Duration::from_millis(20));
            now.fetch_sub(1, Ordering::SeqCst);
            done.fetch_add(1, Ordering::SeqCst);
            Ok(())
        };
        each(&file, jobs, &work).expect("nothing fails");
        assert!(done.load(Ordering::SeqCst) == 12 && most.load(Ordering::SeqCst) <= 2, "{done:?} {most:?}");
        // After a failure nothing new is begun.
        let begun = AtomicUsize::new(0);
        let jobs = (0..12).map(|number| (hosts(&["one"]), number)).collect();
        let failed = each(&file, jobs, &|_: i32| {
            begun.fetch_add(1, Ordering::SeqCst);
            Err(SyncError::Unpinned { repository: String::new() })
        });
        assert!(failed.is_err() && begun.load(Ordering::SeqCst) <= 2, "{begun:?}");
    }
}
