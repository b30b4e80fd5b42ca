//! `cas image`: which command does what, and those on images of the store.

use cas_build::{BuildError, Destination, DestinationError, Image, export_image, list_images};
use cas_oci::TargetPlatform;
use serde_json::{Value, json};

use crate::args::{Global, ImageCommand, InputArgs};
use crate::commands::{build_options, find, open_store, print, text};
use crate::exit::Exit;
use crate::render::{self, Failure};
use crate::{analyze, image_convert, image_diff, image_file};

/// Longest document that is printed.
const MAX_DOCUMENT_BYTES: u64 = 16 << 20;

pub(crate) fn run(global: &Global, command: ImageCommand) -> Result<Exit, Failure> {
    match command {
        ImageCommand::Ls => list(global),
        ImageCommand::Inspect { image } => inspect(global, &image),
        ImageCommand::Export { image, destination, platform } => {
            export(global, &image, &destination, platform.as_deref())
        }
        ImageCommand::Analyze(args) => analyze::run(global, &args),
        ImageCommand::Diff(args) => image_diff::run(global, &args),
        ImageCommand::Import(args) => image_convert::import(global, &args),
        ImageCommand::Convert(args) => image_convert::convert(global, &args),
    }
}

fn list(global: &Global) -> Result<Exit, Failure> {
    let row = |image: &Image| {
        let mut row = json!({ "name": image.reference });
        image_file::describe(image, &mut row);
        row
    };
    let rows: Vec<Value> = list_images(&open_store(global)?)?.iter().map(row).collect();
    print(global, &rows, |row| format!("{} {}", text(&row["name"]), text(&row["digest"])))?;
    Ok(Exit::Done)
}

fn inspect(global: &Global, name: &str) -> Result<Exit, Failure> {
    let store = open_store(global)?;
    let image = find(global, &store, name, &build_options(None, &InputArgs::default()))?;
    let parse = |blob| -> Result<Value, Failure> {
        let bytes = store.load(&blob, MAX_DOCUMENT_BYTES)?;
        serde_json::from_slice(&bytes).map_err(|_| BuildError::Record { what: blob }.into())
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

fn export(global: &Global, name: &str, destination: &str, platform: Option<&str>) -> Result<Exit, Failure> {
    let store = open_store(global)?;
    let destination: Destination =
        destination.parse().map_err(|error: DestinationError| Failure::Usage(error.to_string()))?;
    let platform = platform.map(str::parse::<TargetPlatform>).transpose();
    let platform = platform.map_err(|error| Failure::Usable(error.to_string(), error.hint()))?;
    let image = find(global, &store, name, &build_options(None, &InputArgs::default()))?;
    let chosen = match &platform {
        None => &*image,
        Some(wanted) => image.of_platform(wanted)?,
    };
    export_image(&store, chosen, &destination)?;
    let rows = [json!({ "name": image.reference, "digest": chosen.document().digest.to_string() })];
    print(global, &rows, |row| format!("{} {}", text(&row["name"]), text(&row["digest"])))?;
    Ok(Exit::Done)
}
