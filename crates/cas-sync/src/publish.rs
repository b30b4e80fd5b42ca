//! Several shipments at several places, as one: all of them by digest, then what refers to them, and tags when all of that is
//! everywhere. Rules and order: docs/formats/publish.md.
//!
//! Not here: words in names, gates, keys (`cas-cli`), the rules of one shipment (`push`).

use std::collections::{BTreeMap, BTreeSet};

use cas_registry::Client;

use crate::attached::{Attachment, Attachments, OlderForm};
use crate::push::{Extras, Pushing, State, finished};
use crate::{PushEvent, PushOptions, Pushed, Shipment, SyncError, Target};

/// Something that is published.
#[derive(Debug)]
pub struct Parcel {
    /// What goes.
    pub shipment: Shipment,
    /// Where to.
    pub targets: Vec<Target>,
    /// Tags that may be moved.
    pub moved: BTreeSet<String>,
}

/// What refers to a parcel at one of its places.
#[derive(Clone, Debug, Default)]
pub struct ParcelAttachments {
    /// Documents that have it as their subject.
    pub referrers: Vec<Attachment>,
    /// A signature in the older form.
    pub older: Option<OlderForm>,
}

/// A publication whose tags were looked at.
pub struct Publishing<'a> {
    attachments: Attachments<'a>,
    parcels: Vec<Parcel>,
    /// For each parcel, for each of its targets.
    states: Vec<Vec<State>>,
}

impl std::fmt::Debug for Publishing<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publishing").field("parcels", &self.parcels).finish_non_exhaustive()
    }
}

impl<'a> Publishing<'a> {
    /// Looks at all tags; nothing is sent.
    ///
    /// # Errors
    ///
    /// [`SyncError`]: a registry that does not answer or lets nobody in, a tag that must not move.
    pub fn look(client: &'a Client, parcels: Vec<Parcel>) -> Result<Self, SyncError> {
        let states = parcels.iter().map(|parcel| parcel.targets.iter().map(State::of).collect()).collect();
        let mut own = Self { attachments: Attachments::new(client)?, parcels, states };
        own.each(false, &|_| (), |pushing, states| pushing.each(states, |state| pushing.look(&mut state.pushed)));
        let failure = own.states.iter_mut().flatten().find_map(|state| state.failure.take());
        failure.map_or(Ok(own), Err)
    }

    /// What each parcel would have sent to each of its places: blobs are looked for, and nothing is sent.
    ///
    /// # Errors
    ///
    /// [`SyncError`]
    pub fn plan(mut self) -> Result<Vec<Vec<Pushed>>, SyncError> {
        self.each(true, &|_| (), |pushing, states| pushing.send_blobs(states));
        self.finished(|failures, all| SyncError::Partial { failures, all })
    }

    /// Sends everything, and sets tags when everything is everywhere. `attached` is what refers to each parcel at each of its places.
    ///
    /// # Errors
    ///
    /// [`SyncError`]: when a registry fails, no tag is set anywhere, and when one fails while tags are set, the others have theirs.
    pub fn send(
        mut self,
        attached: &[Vec<ParcelAttachments>],
        told: &(dyn Fn(PushEvent<'_>) + Sync),
    ) -> Result<Vec<Vec<Pushed>>, SyncError> {
        self.each(false, told, |pushing, states| {
            pushing.send_blobs(states);
            pushing.each(states, |state| pushing.send_documents(&state.pushed.target));
        });
        if self.has_failed() {
            return self.finished(|failures, all| SyncError::Partial { failures, all });
        }
        let subjects = self.parcels.iter().zip(&mut self.states).zip(attached);
        for ((parcel, states), attached) in subjects {
            for (state, attached) in states.iter_mut().zip(attached) {
                state.failure = attach(&self.attachments, parcel, &state.pushed.target, attached).err();
            }
        }
        if self.has_failed() {
            return self.finished(|failures, all| SyncError::Partial { failures, all });
        }
        told(PushEvent::Sent);
        self.each(false, told, |pushing, states| pushing.each(states, |state| pushing.set_tags(&state.pushed)));
        self.finished(|failures, all| SyncError::PartialTags { failures, all })
    }

    /// Does something for each parcel, one after the other.
    fn each(&mut self, is_dry: bool, told: &(dyn Fn(PushEvent<'_>) + Sync), work: impl Fn(&Pushing<'_>, &mut [State])) {
        let Attachments { runtime, client } = &self.attachments;
        for (parcel, states) in self.parcels.iter().zip(&mut self.states) {
            let (shipment, moved) = (&parcel.shipment, parcel.moved.clone());
            let options = PushOptions { moved, is_dry, is_beside: false };
            let extras = Extras::default();
            work(&Pushing { runtime, client, shipment, options: &options, extras: &extras, told }, states);
        }
    }

    fn has_failed(&self) -> bool {
        self.states.iter().flatten().any(|state| state.failure.is_some())
    }

    /// What all have, parcel by parcel, or what failed.
    fn finished(
        self,
        partial: impl Fn(Vec<(String, Box<SyncError>)>, usize) -> SyncError,
    ) -> Result<Vec<Vec<Pushed>>, SyncError> {
        let counts: Vec<usize> = self.states.iter().map(Vec::len).collect();
        let mut done = finished(self.states.into_iter().flatten().collect(), partial)?.into_iter();
        Ok(counts.into_iter().map(|count| done.by_ref().take(count).collect()).collect())
    }
}

/// Attaches what is not there.
fn attach(
    attachments: &Attachments<'_>,
    parcel: &Parcel,
    target: &Target,
    attached: &ParcelAttachments,
) -> Result<(), SyncError> {
    let (repository, root) = (&target.repository, &parcel.shipment.root().blob.digest);
    attachments.runtime.block_on(async {
        let mut known = BTreeMap::new();
        for one in &attached.referrers {
            let subject = one.subject.as_ref().unwrap_or(root);
            if !known.contains_key(subject) {
                let listed = attachments.client.referrers(repository, subject, None).await?;
                known.insert(subject, listed.into_iter().map(|known| known.blob.digest).collect::<BTreeSet<_>>());
            }
            // What is listed was sent whole: its blobs go before it.
            if !known[subject].contains(&one.referrer.blob.digest) {
                attachments.send(repository, subject, one).await?;
            }
        }
        Ok::<_, SyncError>(())
    })?;
    match &attached.older {
        Some(OlderForm { tag, media_type, content, annotations }) => {
            attachments.tag(repository, tag, media_type, content, annotations)
        }
        None => Ok(()),
    }
}
