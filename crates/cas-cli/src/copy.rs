//! `cas copy` and `cas tag`.

use std::collections::BTreeMap;
use std::sync::Arc;

use cas_build::{Destination, Image, Platforms, Whole, export_image};
use cas_oci::{ImageSource, Reference, is_tag};
use cas_store::Store;
use cas_sync::{Attachments, Copied, CopyOptions, Target};
use serde_json::json;

use crate::args::Global;
use crate::args_remote::{CopyArgs, TagArgs};
use crate::commands::{cancel_on_signals, logins, open_store};
use crate::exit::Exit;
use crate::image::destination;
use crate::image_convert::mirrors;
use crate::image_look::{fetched, has_transport};
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
    let is_kept = !places.is_empty() && !args.tags.dry_run;
    if is_kept || (source.is_none() && !targets.is_empty()) {
        let store = Arc::new(open_store(global)?);
        // A tag may have moved since it was copied.
        let source = source.clone().map(|source| match &copied {
            Some(copied) => Reference { tag: None, digest: Some(copied.root.digest), ..source },
            None => source,
        });
        let image = image(global, args, source.as_ref(), &store)?;
        if source.is_none() && !targets.is_empty() {
            copied = Some(stored(args, &store, &image, &targets)?);
        }
        let digest = image.document().digest.to_string();
        for (text, place) in places.iter().filter(|_| is_kept) {
            export_image(&store, &image, place)?;
            rows.push(json!({ "name": args.source, "digest": digest, "destination": text, "dry_run": false }));
        }
    }
    let digest = copied.as_ref().map(|copied| copied.root.digest.to_string()).unwrap_or_default();
    let done = copied.as_ref().map(|copied| &copied.done[..]).unwrap_or_default();
    print_pushed(global, &args.source, &digest, done, args.tags.dry_run, rows)?;
    for blob in copied.iter().flat_map(|copied| &copied.elsewhere) {
        render::note(&format!("layer `{}` is in no registry, and stays where its address says", blob.digest));
    }
    if is_kept && args.referrers {
        tell_what_stays(global, &source)?;
    }
    let Some(copied) = copied else { return Ok(Exit::Done) };
    if copied.referrers > 0 {
        let come = if args.tags.dry_run { "would come" } else { "came" };
        let manifests = render::counted(copied.referrers as u64, "signature or other referrer");
        render::note(&format!("{manifests} {come} along"));
    }
    for digest in &copied.lost {
        render::note(&format!("`{digest}` is listed as referring to it, and is not there or cannot be read"));
    }
    Ok(Exit::Done)
}

/// Says how many signatures and other referrers are not in a place on this machine.
fn tell_what_stays(global: &Global, source: &Option<Reference>) -> Result<(), Failure> {
    let Some(source) = source else { return Ok(()) };
    let (mirrors, _) = mirrors(global)?;
    let signals = cancel_on_signals()?;
    let client = signals.client(logins(), mirrors);
    let attachments = Attachments::new(&client).map_err(Failure::Sync)?;
    // The copy is whole, whatever is known of the rest.
    let count = attachments.find(source).and_then(|found| attachments.count(&found)).unwrap_or(0);
    if count > 0 {
        let manifests = render::counted(count as u64, "signature or other referrer");
        let stay = if count == 1 { "stays" } else { "stay" };
        render::note(&format!("note: {manifests} {stay} in the registry: files and folders have the image alone"));
    }
    Ok(())
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
fn stored(args: &CopyArgs, store: &Arc<Store>, image: &Image, targets: &[Target]) -> Result<Copied, Failure> {
    let shipment = shipment(store, Whole::of_image(store, image)?)?;
    let signals = cancel_on_signals()?;
    let client = remembering(signals.client(logins(), BTreeMap::new()), store);
    let done = cas_sync::push(&client, &shipment, targets, &args.tags.options(), &|_| ()).map_err(Failure::Sync)?;
    Ok(Copied { root: shipment.root().blob, done, elsewhere: Vec::new(), referrers: 0, lost: Vec::new() })
}

/// What is to be kept, of a registry or of a place on this machine.
fn image(global: &Global, args: &CopyArgs, source: Option<&Reference>, store: &Store) -> Result<Image, Failure> {
    // What the store has by a name is not meant: `cas push` sends that.
    let text = source.map_or_else(|| args.source.clone(), |source| format!("docker://{source}"));
    let found = fetched(global, store, &text, &platforms(args), false)?;
    let found = found.map(|(image, _)| image);
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
