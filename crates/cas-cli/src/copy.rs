//! `cas copy` and `cas tag`.

use std::collections::BTreeMap;
use std::sync::Arc;

use cas_build::{Destination, Platforms, Referring, Whole, export_with_referring};
use cas_oci::{ImageSource, Reference, is_tag};
use cas_store::Store;
use cas_sync::{Attachment, Copied, CopyOptions, Parcel, ParcelAttachments, Publishing, Shipment, Target};
use serde_json::json;

use crate::args::Global;
use crate::args_remote::{CopyArgs, TagArgs};
use crate::commands::{cancel_on_signals, logins, open_store};
use crate::exit::Exit;
use crate::image::destination;
use crate::image_convert::mirrors;
use crate::image_look::{Taken, has_transport, taken_whole};
use crate::push::{check_moved, print_pushed, shipment};
use crate::render::{self, Failure};
use crate::whereabouts::{remembering, remembering_if_there};

/// What a registry has goes straight to others; what has to do with places of this machine goes by way of the store.
pub(crate) fn copy(global: &Global, args: &CopyArgs) -> Result<Exit, Failure> {
    let is_place = |text: &&String| has_transport(text) && !text.starts_with("docker://");
    let (places, names): (Vec<&String>, Vec<&String>) = args.destinations.iter().partition(is_place);
    let places: Vec<(&String, Destination)> =
        places.into_iter().map(|text| Ok((text, destination(global, text)?))).collect::<Result<_, Failure>>()?;
    let targets = Target::parse_all(names.into_iter().map(String::as_str))
        .map_err(|error| Failure::Usable(error.to_string(), error.hint()))?;
    check_moved(&targets, &args.tags.move_tag)?;
    let source = reference(&args.source)?;
    let mut copied = match &source {
        Some(source) if !targets.is_empty() => Some(straight(global, args, source, &targets)?),
        _ => None,
    };
    let mut rows = Vec::new();
    let (mut beside, mut stays, mut lost) = (0, Vec::new(), Vec::new());
    let is_kept = !places.is_empty() && !args.tags.dry_run;
    if is_kept || (source.is_none() && !targets.is_empty()) {
        let store = Arc::new(open_store(global)?);
        // A tag may have moved since it was copied.
        let source = source.map(|source| match &copied {
            Some(copied) => Reference { tag: None, digest: Some(copied.root.digest), ..source },
            None => source,
        });
        let taken = taken(global, args, source.as_ref(), &store)?;
        if source.is_none() && !targets.is_empty() {
            copied = Some(stored(args, &store, &taken, &targets)?);
        }
        let digest = Whole::of(&store, &taken.found)?.digest().to_string();
        for (text, place) in places.iter().filter(|_| is_kept) {
            export_with_referring(&store, &taken.found, &taken.referring, place)?;
            rows.push(json!({ "name": args.source, "digest": digest, "destination": text, "dry_run": false }));
            match place {
                Destination::Layout { .. } | Destination::Archive { .. } => beside = taken.referring.len(),
                _ if !taken.referring.is_empty() => stays.push(text.as_str()),
                _ => {}
            }
        }
        lost = taken.lost;
    }
    let digest = copied.as_ref().map(|copied| copied.root.digest.to_string()).unwrap_or_default();
    let done = copied.as_ref().map(|copied| &copied.done[..]).unwrap_or_default();
    print_pushed(global, &args.source, &digest, done, args.tags.dry_run, rows)?;
    for blob in copied.iter().flat_map(|copied| &copied.elsewhere) {
        render::note(&format!("layer `{}` is in no registry, and stays where its address says", blob.digest));
    }
    let count = copied.as_ref().map_or(0, |copied| copied.referrers).max(beside);
    if count > 0 {
        let come = if args.tags.dry_run { "would come" } else { "came" };
        render::note(&format!("{} {come} along", render::counted(count as u64, "signature or other referrer")));
    }
    for place in stays {
        render::note(&format!("note: signatures and other referrers are not in `{place}`, which has an image alone"));
    }
    lost.extend(copied.into_iter().flat_map(|copied| copied.lost));
    lost.sort();
    lost.dedup();
    for digest in lost {
        render::note(&format!("`{digest}` is listed as referring to it, and is not there or cannot be read"));
    }
    Ok(Exit::Done)
}

/// The name in a registry that a text is; `None` for a place on this machine.
pub(crate) fn reference(text: &str) -> Result<Option<Reference>, Failure> {
    if text.starts_with("//") || text.starts_with(':') {
        let hint = format!("`cas push {text} HOST/NAME:TAG` sends what is built here");
        return Err(Failure::Usable(format!("`{text}` is a target, and in no registry"), hint));
    }
    match text.parse::<ImageSource>() {
        Ok(ImageSource::Registry(reference)) => Ok(Some(reference)),
        Ok(_) => Ok(None),
        Err(_) if has_transport(text) && !text.starts_with("docker://") => Ok(None),
        Err(error) => Err(Failure::Usable(error.to_string(), error.hint())),
    }
}

fn straight(global: &Global, args: &CopyArgs, source: &Reference, targets: &[Target]) -> Result<Copied, Failure> {
    let (mirrors, _) = mirrors(global)?;
    let signals = cancel_on_signals()?;
    let client = Arc::new(remembering_if_there(signals.client(logins(), mirrors), global));
    let (options, what) =
        (args.tags.options(), CopyOptions { platform: args.platform.as_ref(), referrers: args.referrers });
    cas_sync::copy(&client, source, &what, targets, &options, &|_| ()).map_err(Failure::Sync)
}

fn platforms(args: &CopyArgs) -> Platforms {
    args.platform.clone().map_or(Platforms::All, Platforms::One)
}

/// Sends what is in a place of this machine.
fn stored(args: &CopyArgs, store: &Arc<Store>, taken: &Taken, targets: &[Target]) -> Result<Copied, Failure> {
    let shipment = shipment(store, Whole::of(store, &taken.found)?)?;
    let root = shipment.root().blob;
    let referrers = taken.referring.iter().map(|one| attachment(store, one)).collect::<Result<Vec<_>, _>>()?;
    let signals = cancel_on_signals()?;
    let client = remembering(signals.client(logins(), BTreeMap::new()), store);
    let (count, options) = (referrers.len(), args.tags.options());
    let done = if referrers.is_empty() || options.is_dry {
        cas_sync::push(&client, &shipment, targets, &options, &|_| ()).map_err(Failure::Sync)?
    } else {
        let attached = vec![ParcelAttachments { referrers, older: None }; targets.len()];
        let parcel = Parcel { shipment, targets: targets.to_vec(), moved: options.moved };
        let publishing = Publishing::look(&client, vec![parcel]).map_err(Failure::Sync)?;
        publishing.send(&[attached], &|_| ()).map_err(Failure::Sync)?.concat()
    };
    Ok(Copied { root, done, elsewhere: Vec::new(), referrers: count, lost: Vec::new() })
}

/// What refers to an image, as it is sent with it.
fn attachment(store: &Arc<Store>, one: &Referring) -> Result<Attachment, Failure> {
    let Shipment { documents, blobs } = shipment(store, Whole::of(store, &one.found)?)?;
    let [document] = <[_; 1]>::try_from(documents).map_err(|documents| {
        let digest = documents.last().map(|document| document.blob.digest.to_string()).unwrap_or_default();
        let message = format!("`{digest}` refers to it and is an index, which is not copied from a file");
        Failure::Usable(message, "`--referrers=false` leaves all that refers to it".to_owned())
    })?;
    Attachment::of_document(one.subject, document.blob, document.bytes, blobs).map_err(Failure::Sync)
}

/// What is to be kept, of a registry or of a place on this machine.
fn taken(global: &Global, args: &CopyArgs, source: Option<&Reference>, store: &Store) -> Result<Taken, Failure> {
    // What the store has by a name is not meant: `cas push` sends that.
    let text = source.map_or_else(|| args.source.clone(), |source| format!("docker://{source}"));
    let found = taken_whole(global, store, &text, &platforms(args), args.referrers)?;
    found.ok_or_else(|| Failure::Usage(format!("`{}` is no place of an image", args.source)))
}

pub(crate) fn tag(global: &Global, args: &TagArgs) -> Result<Exit, Failure> {
    let Some(source) = reference(&args.source)? else {
        let hint = "`cas image tag` names what is in the store";
        return Err(Failure::Usable(format!("`{}` is in no registry", args.source), hint.to_owned()));
    };
    for tag in &args.new {
        if !is_tag(tag) {
            let hint = "write the tag alone: at most 128 letters, digits, `.`, `_` and `-`";
            return Err(Failure::Usable(format!("`{tag}` is not a tag"), hint.to_owned()));
        }
    }
    let targets = [Target { repository: source.repository.clone(), tags: args.new.clone() }];
    check_moved(&targets, &args.tags.move_tag)?;
    let signals = cancel_on_signals()?;
    let client = signals.client(logins(), BTreeMap::new());
    let mut new: Vec<String> = Vec::new();
    args.new.iter().for_each(|tag| new.extend(Some(tag).filter(|tag| !new.contains(tag)).cloned()));
    let done = cas_sync::tag(&client, &source, &new, &args.tags.options()).map_err(Failure::Sync)?;
    let digest = done.root.digest.to_string();
    print_pushed(global, &args.source, &digest, &done.done, args.tags.dry_run, Vec::new())?;
    Ok(Exit::Done)
}
