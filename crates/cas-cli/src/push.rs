//! `cas push`.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use cas_build::{BuildError, Part, Whole};
use cas_oci::{MAX_DOCUMENT_BYTES, Repository};
use cas_registry::Content;
use cas_store::Store;
use cas_sync::{
    Attachable, Attachment, Parcel, ParcelAttachments, Publishing, Pushed, Shipment, ShippedBlob, ShippedDocument,
    TagChange, Target, push,
};
use serde_json::{Value, json};

use crate::args::Global;
use crate::args_remote::PushArgs;
use crate::commands::{
    Named, Options, build_options, cancel_on_signals, logins, named, one_target, open_store, open_workspace, print,
    text,
};
use crate::exit::Exit;
use crate::push_package::packages;
use crate::render::{self, Failure};
use crate::template;
use crate::whereabouts::remembering;

pub(crate) fn run(global: &Global, args: &PushArgs) -> Result<Exit, Failure> {
    let destinations = template::destinations(global, &args.image, &args.destinations)?;
    let packages = packages(&destinations)?;
    if args.input.offline {
        return Err(Failure::Usable("a push needs the network".to_owned(), "leave `--offline` out".to_owned()));
    }
    if let Some(packages) = packages {
        return crate::push_package::run(global, args, &packages);
    }
    let targets = Target::parse_all(destinations.iter().map(String::as_str))
        .map_err(|error| Failure::Usable(error.to_string(), error.hint()))?;
    check_moved(&targets, &args.tags.move_tag)?;
    let store = Arc::new(open_store(global)?);
    let options = build_options(None, &args.input);
    let (name, shipment) = match named(global, &store, &args.image, &options, true)? {
        Named::Image(image) => (image.reference.clone(), shipment(&store, Whole::of_image(&store, &image)?)?),
        Named::Artifact(artifact) => {
            (artifact.reference.clone(), shipment(&store, Whole::of_artifact(&store, &artifact)?)?)
        }
    };
    let digest = shipment.root().blob.digest.to_string();
    let attached = match (args.with_inputs, args.tags.dry_run) {
        (true, false) => vec![inputs(global, &store, args, &shipment, &options)?],
        _ => Vec::new(),
    };
    let signals = cancel_on_signals()?;
    let client = remembering(signals.client(logins(), BTreeMap::new()), &store);
    if !attached.is_empty() {
        let attached = targets.iter().map(|_| ParcelAttachments { referrers: attached.clone(), older: None }).collect();
        let parcel = Parcel { shipment, targets, moved: args.tags.options().moved };
        let publishing = Publishing::look(&client, vec![parcel]).map_err(Failure::Sync)?;
        let done = publishing.send(&[attached], &|_| ()).map_err(Failure::Sync)?.concat();
        print_pushed(global, &name, &digest, &done, false, Vec::new())?;
        return Ok(Exit::Done);
    }
    let done = push(&client, &shipment, &targets, &args.tags.options(), &|_| ()).map_err(Failure::Sync)?;
    print_pushed(global, &name, &digest, &done, args.tags.dry_run, Vec::new())?;
    Ok(Exit::Done)
}

/// What a rebuild of a target needs.
fn inputs(
    global: &Global,
    store: &Arc<Store>,
    args: &PushArgs,
    shipment: &Shipment,
    options: &Options,
) -> Result<Attachment, Failure> {
    let (workspace, package) = open_workspace(global)?;
    let label = one_target(&workspace, package.as_ref(), &args.image)?;
    let described = crate::provenance::described(&workspace, store, &label, options)?;
    crate::inputs::attachment(store, &described, &subject(shipment))
}

/// A shipment as what something refers to.
pub(crate) fn subject(shipment: &Shipment) -> Attachable {
    let root = shipment.root();
    // The repository is that of each place.
    let repository = Repository { host: String::new(), path: String::new() };
    Attachable { repository, blob: root.blob, media_type: root.media_type.clone() }
}

/// Refuses a tag to move that nothing gets.
pub(crate) fn check_moved(targets: &[Target], moved: &[String]) -> Result<(), Failure> {
    let tags: Vec<&String> = targets.iter().flat_map(|target| &target.tags).collect();
    let Some(tag) = moved.iter().find(|tag| !tags.contains(tag)) else { return Ok(()) };
    let hint = "name a destination with that tag, or leave the option out";
    Err(Failure::Usable(format!("`--move-tag {tag}`, and no destination has that tag"), hint.to_owned()))
}

/// Prints what registries have now, and rows of other places after theirs.
pub(crate) fn print_pushed(
    global: &Global,
    name: &str,
    digest: &str,
    done: &[Pushed],
    is_dry: bool,
    others: Vec<Value>,
) -> Result<(), Failure> {
    let rows: Vec<Value> = done.iter().flat_map(|pushed| rows(name, digest, pushed, is_dry)).chain(others).collect();
    print(global, &rows, |row| {
        format!("{} {} {}", text(&row["name"]), text(&row["digest"]), text(&row["destination"]))
    })?;
    for pushed in done {
        render::note(&summary(pushed, is_dry));
    }
    Ok(())
}

/// A row for each tag, or one for what has none.
pub(crate) fn rows(name: &str, digest: &str, pushed: &Pushed, is_dry: bool) -> Vec<Value> {
    let count = |(blobs, bytes): (usize, u64)| json!({ "blobs": blobs, "bytes": bytes });
    let row = |destination: String, change: Option<TagChange>| {
        let mut row = json!({
            "name": name,
            "digest": digest,
            "destination": destination,
            "dry_run": is_dry,
            "sent": count(pushed.sent),
            "known": count(pushed.known),
            "mounted": count(pushed.mounted),
        });
        if let Some(change) = change {
            row["tag"] = json!(match change {
                TagChange::Same => "same",
                TagChange::New => "new",
                TagChange::Moved(_) => "moved",
            });
        }
        if let Some(TagChange::Moved(before)) = change {
            row["before"] = json!(before.to_string());
        }
        row
    };
    match &pushed.tags[..] {
        [] => vec![row(format!("{}@{digest}", pushed.target), None)],
        tags => tags.iter().map(|tag| row(format!("{}:{}", pushed.target, tag.tag), Some(tag.change))).collect(),
    }
}

pub(crate) fn summary(pushed: &Pushed, is_dry: bool) -> String {
    let blobs = |(count, bytes): (usize, u64)| format!("{} ({bytes} bytes)", render::counted(count as u64, "blob"));
    let mounted =
        if pushed.mounted.0 > 0 { format!(", {} taken from elsewhere", blobs(pushed.mounted)) } else { String::new() };
    let (would, were) = if is_dry { ("would be sent", "are there") } else { ("sent", "were there") };
    format!("{}: {} {would}{mounted}, {} {were}", pushed.target, blobs(pushed.sent), blobs(pushed.known))
}

/// What is sent: documents are small and read now, blobs when they are on their way.
pub(crate) fn shipment(store: &Arc<Store>, whole: Whole<'_>) -> Result<Shipment, Failure> {
    let mut documents = Vec::new();
    for (blob, media_type) in whole.documents() {
        let bytes = store.load(&blob, MAX_DOCUMENT_BYTES)?;
        documents.push(ShippedDocument { blob, media_type: media_type.to_owned(), bytes });
    }
    let blobs = whole.into_blobs().into_iter().map(|part| blob(Arc::clone(store), part)).collect();
    Ok(Shipment { documents, blobs })
}

fn blob(store: Arc<Store>, part: Part) -> ShippedBlob {
    let name = part.blob;
    let content: Content = Arc::new(move |sink| {
        part.write(&store, sink).map_err(|error| match error {
            // Who reads has gone, which is no fault of what is read.
            BuildError::Compress(error) => error,
            other => io::Error::other(other),
        })
    });
    ShippedBlob { blob: name, content, source: None }
}
