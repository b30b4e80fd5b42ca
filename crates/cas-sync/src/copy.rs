//! What is in a registry goes to others, or gets further tags where it is.

use std::sync::Arc;

use cas_blob::Descriptor;
use cas_digest::Digest;
use cas_oci::{Reference, Repository, TargetPlatform};
use cas_registry::{Client, Finding, Hosted, Login};

use crate::push::{Extras, push_on, runtime};
use crate::source::{alone, find, root, tail};
use crate::tag::LATEST;
use crate::{PushEvent, PushOptions, Pushed, Shipment, SyncError, Target};

/// What was copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copied {
    /// The document that all registries have now.
    pub root: Descriptor,
    /// What became of each target.
    pub done: Vec<Pushed>,
    /// Layers that are fetched from addresses of their own, which are in no registry and were not looked for.
    pub elsewhere: Vec<Descriptor>,
    /// How many signatures and other manifests that refer to what was copied came along.
    pub referrers: usize,
    /// What is listed as one of them, and is not there or cannot be read.
    pub lost: Vec<Digest>,
}

/// What is copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopyOptions<'a> {
    /// Of several platforms the one for this; all where none is told.
    pub platform: Option<&'a TargetPlatform>,
    /// Whether what refers to it is copied, too.
    pub referrers: bool,
}

/// Sends what a registry has to others, byte for byte: an index with all that it names, or the manifest for one platform
/// alone, and what refers to any of that. Order and tags are those of [`push`](crate::push).
///
/// # Errors
///
/// [`SyncError`], as for a push; when the source gives something else than its documents name, no tag is set anywhere.
pub fn copy(
    client: &Arc<Client>,
    source: &Reference,
    what: &CopyOptions<'_>,
    targets: &[Target],
    options: &PushOptions,
    told: &(dyn Fn(PushEvent<'_>) + Sync),
) -> Result<Copied, SyncError> {
    only_latest(targets)?;
    let runtime = runtime()?;
    let found = runtime.block_on(find(client, source, what))?;
    let tails = |blob| tail(Arc::clone(client), runtime.handle().clone(), source.repository.clone(), blob);
    let extras = Extras { tails: Some(&tails), following: &found.following };
    let done = push_on(&runtime, client, &found.shipment, targets, options, &extras, told)?;
    let root = found.shipment.root().blob;
    let referrers = found.following.len();
    Ok(Copied { root, done, elsewhere: found.elsewhere, referrers, lost: found.lost })
}

/// Sets tags on what a registry has, by the rules of a push. `latest` may stand beside the tag that it was named by.
///
/// # Errors
///
/// [`SyncError`]
pub fn tag(client: &Client, source: &Reference, tags: &[String], options: &PushOptions) -> Result<Copied, SyncError> {
    let own = source.tag.as_ref().filter(|own| source.digest.is_none() && !tags.contains(own));
    let all = own.into_iter().chain(tags).cloned().collect();
    let target = Target { repository: source.repository.clone(), tags: all };
    only_latest(std::slice::from_ref(&target))?;
    let runtime = runtime()?;
    let name = source.to_string();
    let document = alone(&name, runtime.block_on(root(client, source))?)?;
    let shipment = Shipment { documents: vec![document], blobs: Vec::new() };
    let mut done = push_on(&runtime, client, &shipment, &[target], options, &Extras::default(), &|_| ())?;
    // It is as it was, and nobody has asked for it.
    done.iter_mut().for_each(|pushed| pushed.tags.retain(|pushed| Some(&pushed.tag) != own));
    Ok(Copied { root: shipment.root().blob, done, elsewhere: Vec::new(), referrers: 0, lost: Vec::new() })
}

/// Whether a registry takes a login: `false` where it lets everybody in and does not ask.
///
/// # Errors
///
/// [`SyncError::Registry`], and where no thread could be started.
pub fn try_login(client: &Client, host: &str, login: &Login) -> Result<bool, SyncError> {
    Ok(runtime()?.block_on(client.try_login(host, login))?)
}

/// What a registry does: [`Client::probe`].
///
/// # Errors
///
/// As [`try_login`].
pub fn probe(
    client: &Client,
    repository: &Repository,
    hosted: Option<Hosted>,
    may_write: bool,
) -> Result<Vec<Finding>, SyncError> {
    Ok(runtime()?.block_on(client.probe(repository, hosted, may_write))?)
}

/// Refuses, before anything is asked, what could get nothing but `latest`.
fn only_latest(targets: &[Target]) -> Result<(), SyncError> {
    match targets.iter().find(|target| target.tags[..] == [LATEST]) {
        Some(target) => Err(SyncError::OnlyLatest { repository: target.to_string() }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
