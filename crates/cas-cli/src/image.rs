//! `cas image`: which command does what, and those on images and artifacts of the store.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use cas_build::{Artifact, BuildError, Destination, Image, export_artifact, export_image, list_artifacts, list_images};
use serde_json::{Value, json};

use crate::args::{ExportArgs, Global, ImageCommand, InspectArgs};
use crate::commands::{Named, open_store, print, text};
use crate::exit::Exit;
use crate::image_look::taken;
use crate::render::{self, Failure};
use crate::{analyze, image_convert, image_diff, image_file, image_names};

/// Longest document that is printed.
const MAX_DOCUMENT_BYTES: u64 = 16 << 20;

pub(crate) fn run(global: &Global, command: ImageCommand) -> Result<Exit, Failure> {
    match command {
        ImageCommand::Ls => list(global),
        ImageCommand::Inspect(args) => inspect(global, &args),
        ImageCommand::Export(args) => export(global, &args),
        ImageCommand::Analyze(args) => analyze::run(global, &args),
        ImageCommand::Diff(args) => image_diff::run(global, &args),
        ImageCommand::Import(args) => image_convert::import(global, &args),
        ImageCommand::Tag { source, name } => image_names::tag(global, &source, &name),
        ImageCommand::Rm { names } => image_names::remove(global, &names),
        ImageCommand::Convert(args) => image_convert::convert(global, &args),
    }
}

fn list(global: &Global) -> Result<Exit, Failure> {
    let row = |image: &Image| {
        let mut row = json!({ "name": image.reference });
        image_file::describe(image, &mut row);
        row
    };
    let artifact = |artifact: &Artifact| {
        let mut row = json!({ "name": artifact.reference });
        image_file::describe_artifact(artifact, &mut row);
        row
    };
    let store = open_store(global)?;
    let mut rows: Vec<Value> = list_images(&store)?.iter().map(row).collect();
    rows.extend(list_artifacts(&store)?.iter().map(artifact));
    rows.sort_by(|one, other| text(&one["name"]).cmp(text(&other["name"])));
    print(global, &rows, |row| {
        let line = format!("{} {} {}", text(&row["name"]), text(&row["digest"]), text(&row["artifact_type"]));
        line.trim_end().to_owned()
    })?;
    Ok(Exit::Done)
}

fn inspect(global: &Global, args: &InspectArgs) -> Result<Exit, Failure> {
    let store = open_store(global)?;
    let found = taken(global, &store, &args.image, &args.which)?;
    let parse = |blob| -> Result<Value, Failure> {
        let bytes = store.load(&blob, MAX_DOCUMENT_BYTES)?;
        serde_json::from_slice(&bytes).map_err(|_| BuildError::Record { what: blob }.into())
    };
    let image = match found {
        Named::Image(image) => image,
        Named::Artifact(artifact) => {
            let document = json!({
                "name": artifact.reference,
                "digest": artifact.manifest.digest.to_string(),
                "artifact_type": artifact.artifact_type,
                "manifest": parse(artifact.manifest)?,
            });
            render::lines([serde_json::to_string_pretty(&document).expect("a value always has JSON")])?;
            return Ok(Exit::Done);
        }
    };
    let mut document = json!({
        "name": image.reference,
        "digest": image.document().digest.to_string(),
        "manifest": parse(image.manifest)?,
        "config": parse(image.config)?,
    });
    if let Some(index) = &image.index {
        document["index"] = parse(index.blob)?;
        let mut platforms = Vec::new();
        for one in image.all_platforms() {
            platforms.push(json!({
                "platform": one.platform.to_string(),
                "digest": one.manifest.digest.to_string(),
                "manifest": parse(one.manifest)?,
                "config": parse(one.config)?,
            }));
        }
        document["platforms"] = json!(platforms);
    }
    render::lines([serde_json::to_string_pretty(&document).expect("a value always has JSON")])?;
    Ok(Exit::Done)
}

fn export(global: &Global, args: &ExportArgs) -> Result<Exit, Failure> {
    let store = open_store(global)?;
    let destination = destination(global, &args.destination)?;
    let (name, digest) = match taken(global, &store, &args.image, &args.which)? {
        Named::Image(image) => {
            export_image(&store, &image, &destination)?;
            (image.reference.clone(), image.document().digest)
        }
        Named::Artifact(artifact) => {
            export_artifact(&store, &artifact, &destination)?;
            (artifact.reference.clone(), artifact.manifest.digest)
        }
    };
    let rows = [json!({ "name": name, "digest": digest.to_string() })];
    print_beside(global, &destination, &rows, |row| format!("{} {}", text(&row["name"]), text(&row["digest"])))?;
    Ok(Exit::Done)
}

/// Where an image is to go.
pub(crate) fn destination(global: &Global, text: &str) -> Result<Destination, Failure> {
    let destination = text.parse::<Destination>();
    let destination = destination.map_err(|error| Failure::Usable(error.to_string(), error.hint().to_owned()))?;
    Ok(match &global.directory {
        Some(folder) => destination.below(folder),
        None => destination,
    })
}

/// Prints rows, but not into an archive that went to standard output.
pub(crate) fn print_beside(
    global: &Global,
    destination: &Destination,
    rows: &[Value],
    line: impl Fn(&Value) -> String,
) -> Result<(), Failure> {
    let number = |path: &Path| cas_fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino())).ok();
    let own = number(Path::new("/proc/self/fd/1"));
    match destination.file().and_then(number).filter(|file| Some(*file) == own) {
        Some(_) => rows.iter().for_each(|row| render::note(&line(row))),
        None => print(global, rows, line)?,
    }
    Ok(())
}
