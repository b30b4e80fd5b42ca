//! Sending something to several registries: tags are looked at first and set last.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use cas_blob::Descriptor;
use cas_digest::Digest;
use cas_registry::{Client, Content, Delivery, Referrer, Tail, is_same};
use tokio::runtime::Runtime;

use crate::source::Following;
use crate::tag::LATEST;
use crate::tee::tee;
use crate::{Shipment, ShippedBlob, ShippedDocument, SyncError, TagClass, Target};

/// How many blobs are on their way at once, each to all registries that are written to.
const BLOBS_AT_ONCE: usize = 4;
/// A blob of this length is read once for all of them; shorter ones are sooner read again.
const SHARED_BYTES: u64 = 256 << 10;

/// How something is pushed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PushOptions {
    /// Tags that may be moved, if they are no versions or commits.
    pub moved: BTreeSet<String>,
    /// Nothing is sent.
    pub is_dry: bool,
    /// Whether the repository gets other tags beside these, so that `latest` is not alone.
    pub is_beside: bool,
}

/// Something to say while a push lasts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PushEvent<'a> {
    /// A blob is where it was to be.
    Delivered {
        /// Where.
        target: &'a Target,
        /// How long it is.
        size: u64,
        /// How it came there.
        delivery: Delivery,
    },
    /// All of a publication is everywhere, and tags come next.
    Sent,
    /// A tag names what is pushed.
    Tagged {
        /// Where.
        target: &'a Target,
        /// The tag.
        tag: &'a str,
    },
}

/// What happens to a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TagChange {
    /// It names what is pushed already.
    Same,
    /// It is new.
    New,
    /// It named something else.
    Moved(Digest),
}

/// A tag of what was pushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushedTag {
    /// The tag.
    pub tag: String,
    /// What happened to it.
    pub change: TagChange,
}

/// What a registry has now; of a dry run what it would have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// Where.
    pub target: Target,
    /// The tags, in their order.
    pub tags: Vec<PushedTag>,
    /// Blobs that were there, and their bytes.
    pub known: (usize, u64),
    /// Blobs that the registry took from another repository.
    pub mounted: (usize, u64),
    /// Blobs that were sent.
    pub sent: (usize, u64),
}

impl Pushed {
    fn new(target: &Target) -> Self {
        Self { target: target.clone(), tags: Vec::new(), known: (0, 0), mounted: (0, 0), sent: (0, 0) }
    }

    fn count(&mut self, delivery: Delivery, size: u64) {
        let counter = match delivery {
            Delivery::Known => &mut self.known,
            Delivery::Mounted => &mut self.mounted,
            Delivery::Sent => &mut self.sent,
        };
        *counter = (counter.0 + 1, counter.1 + size);
    }
}

/// One shipment on its way.
pub(crate) struct Pushing<'a> {
    pub(crate) runtime: &'a Runtime,
    pub(crate) client: &'a Client,
    pub(crate) shipment: &'a Shipment,
    pub(crate) options: &'a PushOptions,
    pub(crate) extras: &'a Extras<'a>,
    pub(crate) told: &'a (dyn Fn(PushEvent<'_>) + Sync),
}

/// Sends something to all targets. Tags are looked at before anything is sent; they are set when everything is everywhere.
///
/// # Errors
///
/// [`SyncError`]: for a tag that must not move nothing is sent anywhere; when a registry fails, no tag is set anywhere, and when one
/// fails while tags are set, the others have theirs.
pub fn push(
    client: &Client,
    shipment: &Shipment,
    targets: &[Target],
    options: &PushOptions,
    told: &(dyn Fn(PushEvent<'_>) + Sync),
) -> Result<Vec<Pushed>, SyncError> {
    push_on(&runtime()?, client, shipment, targets, options, &Extras::default(), told)
}

pub(crate) fn runtime() -> Result<Runtime, SyncError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.map_err(SyncError::Runtime)
}

/// What writes blobs from a byte on.
pub(crate) type Tails<'a> = dyn Fn(Descriptor) -> Tail + Sync + 'a;

/// What copies have beside a shipment.
#[derive(Default)]
pub(crate) struct Extras<'a> {
    pub(crate) tails: Option<&'a Tails<'a>>,
    /// What refers to documents of the shipment, which goes before the tags.
    pub(crate) following: &'a [Following],
}

/// The same where the client's connections live.
pub(crate) fn push_on(
    runtime: &Runtime,
    client: &Client,
    shipment: &Shipment,
    targets: &[Target],
    options: &PushOptions,
    extras: &Extras<'_>,
    told: &(dyn Fn(PushEvent<'_>) + Sync),
) -> Result<Vec<Pushed>, SyncError> {
    let pushing = Pushing { runtime, client, shipment, options, extras, told };
    let mut states: Vec<State> = targets.iter().map(State::of).collect();
    pushing.each(&mut states, |state| pushing.look(&mut state.pushed));
    if let Some(error) = states.iter_mut().find_map(|state| state.failure.take()) {
        return Err(error);
    }
    pushing.send_blobs(&mut states);
    if options.is_dry {
        return finished(states, |failures, all| SyncError::Partial { failures, all });
    }
    if !pushing.goes_by_its_tag(&states) {
        pushing.each(&mut states, |state| pushing.send_documents(&state.pushed.target));
    }
    if states.iter().any(|state| state.failure.is_some()) {
        return finished(states, |failures, all| SyncError::Partial { failures, all });
    }
    pushing.each(&mut states, |state| pushing.set_tags(&state.pushed));
    finished(states, |failures, all| SyncError::PartialTags { failures, all })
}

/// How far a target is.
pub(crate) struct State {
    pub(crate) pushed: Pushed,
    pub(crate) failure: Option<SyncError>,
}

impl State {
    pub(crate) fn of(target: &Target) -> Self {
        Self { pushed: Pushed::new(target), failure: None }
    }
}

/// What all have, or what failed; one place that fails alone is told by itself.
pub(crate) fn finished(
    states: Vec<State>,
    partial: impl Fn(Vec<(String, Box<SyncError>)>, usize) -> SyncError,
) -> Result<Vec<Pushed>, SyncError> {
    let all = states.len();
    let (mut done, mut failures) = (Vec::new(), Vec::new());
    for State { pushed, failure } in states {
        match failure {
            None => done.push(pushed),
            Some(failure) if all == 1 => return Err(failure),
            Some(failure) => failures.push((pushed.target.to_string(), Box::new(failure))),
        }
    }
    if failures.is_empty() { Ok(done) } else { Err(partial(failures, all)) }
}

impl Pushing<'_> {
    /// Does something for each target that has not failed, side by side.
    pub(crate) fn each(&self, states: &mut [State], work: impl Fn(&mut State) -> Result<(), SyncError> + Sync) {
        std::thread::scope(|scope| {
            for state in states.iter_mut().filter(|state| state.failure.is_none()) {
                let work = &work;
                scope.spawn(move || state.failure = work(state).err());
            }
        });
    }

    /// What becomes of the tags.
    pub(crate) fn look(&self, pushed: &mut Pushed) -> Result<(), SyncError> {
        let Target { repository, tags } = &pushed.target;
        if tags[..] == [LATEST] && !self.options.is_beside {
            return Err(SyncError::OnlyLatest { repository: repository.to_string() });
        }
        for tag in tags {
            let change = match self.runtime.block_on(self.client.look(repository, tag))? {
                None => TagChange::New,
                Some(found) if self.is_root(&found) => TagChange::Same,
                Some(found) => match TagClass::of(tag) {
                    TagClass::Moving if self.options.moved.contains(tag) => TagChange::Moved(found),
                    class => {
                        let (repository, tag) = (repository.to_string(), tag.clone());
                        return Err(SyncError::Taken { repository, tag, found, class });
                    }
                },
            };
            pushed.tags.push(PushedTag { tag: tag.clone(), change });
        }
        Ok(())
    }

    /// Whether a digest is that of what is pushed, by whatever function.
    fn is_root(&self, found: &Digest) -> bool {
        let root = self.shipment.root();
        is_same(found, &root.blob.digest, &root.bytes)
    }

    /// Blob by blob: each is read once for all targets, which take it side by side; a target that has failed gets no more.
    pub(crate) fn send_blobs(&self, states: &mut [State]) {
        let jobs = Mutex::new(0..self.shipment.blobs.len());
        let states: Vec<Mutex<&mut State>> = states.iter_mut().map(Mutex::new).collect();
        std::thread::scope(|scope| {
            for _ in 0..BLOBS_AT_ONCE.min(self.shipment.blobs.len()) {
                scope.spawn(|| {
                    loop {
                        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).next();
                        let Some(blob) = job else { return };
                        self.send_to_all(&self.shipment.blobs[blob], &states);
                    }
                });
            }
        });
    }

    fn send_to_all(&self, blob: &ShippedBlob, states: &[Mutex<&mut State>]) {
        let is_well =
            |state: &&Mutex<&mut State>| state.lock().unwrap_or_else(PoisonError::into_inner).failure.is_none();
        let wanted: Vec<_> = states.iter().filter(is_well).collect();
        // What comes from elsewhere goes on from where it broke off, for each of them.
        let is_shared = wanted.len() > 1 && blob.blob.size >= SHARED_BYTES && !self.options.is_dry;
        let (contents, reader) = match is_shared && self.extras.tails.is_none() {
            true => {
                let (contents, reader) = tee(&blob.content, wanted.len());
                (contents, Some(reader))
            }
            false => (vec![Arc::clone(&blob.content); wanted.len()], None),
        };
        std::thread::scope(|scope| {
            if let Some(reader) = reader {
                scope.spawn(move || reader.run());
            }
            for (state, content) in wanted.into_iter().zip(contents) {
                scope.spawn(move || {
                    let lock = || state.lock().unwrap_or_else(PoisonError::into_inner);
                    let to = lock().pushed.target.clone();
                    let result = self.send_blob(blob, &content, &to);
                    let mut state = lock();
                    match result {
                        Ok(delivery) => {
                            let size = blob.blob.size;
                            state.pushed.count(delivery, size);
                            (self.told)(PushEvent::Delivered { target: &to, size, delivery });
                        }
                        Err(error) => drop(state.failure.get_or_insert(error)),
                    }
                });
            }
        });
    }

    fn send_blob(&self, blob: &ShippedBlob, content: &Content, to: &Target) -> Result<Delivery, SyncError> {
        let work = async {
            if self.options.is_dry {
                let is_known = self.client.has_blob(&to.repository, &blob.blob).await?;
                return Ok(if is_known { Delivery::Known } else { Delivery::Sent });
            }
            let tail = self.extras.tails.map(|tails| tails(blob.blob));
            let (repository, source) = (&to.repository, blob.source.as_ref());
            self.client.push_blob_with_tail(repository, &blob.blob, content, tail.as_ref(), source).await
        };
        self.runtime.block_on(work).map_err(SyncError::of_blob)
    }

    /// Whether one document is all that there is, for one place: it comes there with its first tag, or is there under that.
    fn goes_by_its_tag(&self, states: &[State]) -> bool {
        let [State { pushed, .. }] = states else { return false };
        self.shipment.documents.len() == 1 && self.extras.following.is_empty() && !pushed.tags.is_empty()
    }

    /// By digest, what is named before what names it.
    pub(crate) fn send_documents(&self, to: &Target) -> Result<(), SyncError> {
        self.shipment.documents.iter().try_for_each(|document| self.send_document(to, document))?;
        for Following { subject, referrer, documents } in self.extras.following {
            let [named @ .., last] = &documents[..] else { unreachable!("it has its own document") };
            named.iter().try_for_each(|document| self.send_document(to, document))?;
            let referrer = Referrer { media_type: last.media_type.clone(), ..referrer.clone() };
            let sent = self.client.push_referrer(&to.repository, subject, &referrer, &last.bytes);
            self.runtime.block_on(sent)?;
        }
        Ok(())
    }

    fn send_document(&self, to: &Target, document: &ShippedDocument) -> Result<(), SyncError> {
        let digest = &document.blob.digest;
        let work = async {
            if self.client.look(&to.repository, &digest.to_string()).await?.is_some() {
                return Ok(());
            }
            let (reference, media_type) = (digest.to_string(), &document.media_type);
            let sent = self.client.push_document(&to.repository, &reference, media_type, &document.bytes, digest);
            sent.await.map(drop)
        };
        Ok(self.runtime.block_on(work)?)
    }

    /// A tag that moves is looked at once more: nobody can do both at once.
    pub(crate) fn set_tags(&self, pushed: &Pushed) -> Result<(), SyncError> {
        let Target { repository, .. } = &pushed.target;
        let root = self.shipment.root();
        for PushedTag { tag, change } in pushed.tags.iter().filter(|tag| tag.change != TagChange::Same) {
            self.runtime.block_on(async {
                let now = self.client.look(repository, tag).await?;
                let is_as_seen = match (now, change) {
                    (Some(now), _) if self.is_root(&now) => return Ok(()),
                    (None, TagChange::New) => true,
                    (Some(now), TagChange::Moved(before)) => now == *before,
                    _ => false,
                };
                if !is_as_seen {
                    return Err(SyncError::Moved { repository: repository.to_string(), tag: tag.clone() });
                }
                let sent = self.client.push_document(repository, tag, &root.media_type, &root.bytes, &root.blob.digest);
                sent.await.map(drop).map_err(SyncError::from)
            })?;
            (self.told)(PushEvent::Tagged { target: &pushed.target, tag });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
