//! `cas pull`.

use cas_build::{Platforms, Pulled, pull};
use cas_oci::{ImageSource, Reference};
use rayon::prelude::*;
use serde_json::{Value, json};

use crate::args::{Format, Global};
use crate::args_remote::PullArgs;
use crate::commands::{here, open_store, print, text, watch_signals};
use crate::exit::Exit;
use crate::image_convert::registries;
use crate::image_file;
use crate::image_names;
use crate::inputs;
use crate::render::Failure;

pub(crate) fn run(global: &Global, args: &PullArgs) -> Result<Exit, Failure> {
    args.name.as_deref().map_or(Ok(()), image_names::check)?;
    if args.name.is_some() && args.sources.len() > 1 {
        let message = format!("`--name` is for one, and {} are to come", args.sources.len());
        return Err(Failure::Usable(message, "pull them one by one, or `cas image tag` them".to_owned()));
    }
    let mut sources: Vec<Reference> = Vec::new();
    for text in &args.sources {
        let source = reference(text)?;
        if !sources.contains(&source) {
            sources.push(source);
        }
    }
    let platforms = match (&args.platform, args.all) {
        (Some(platform), _) => Platforms::One(platform.clone()),
        (None, true) => Platforms::All,
        (None, false) => Platforms::Own,
    };
    watch_signals()?;
    let store = open_store(global)?;
    let (registries, function) = registries(global, false)?;
    let one = |source: &Reference| {
        let name = args.name.clone().unwrap_or_else(|| source.to_string());
        pull(&store, function, source, &here(global), &registries, &platforms, &name)
    };
    let done: Vec<_> = sources.par_iter().map(one).collect();
    let (mut rows, mut failure) = (Vec::new(), None);
    for pulled in done {
        match pulled {
            Ok(pulled) => rows.push(row(&pulled)),
            Err(error) => drop(failure.get_or_insert(error)),
        }
    }
    // What came is there, whatever became of the others; JSON is one document.
    if failure.is_none() || (!rows.is_empty() && global.format == Format::Text) {
        print(global, &rows, |row| format!("{} {}", text(&row["name"]), text(&row["digest"])))?;
    }
    if let Some(error) = failure {
        return Err(error.into());
    }
    if args.with_inputs {
        inputs::bring(global, &store, &sources)?;
    }
    Ok(Exit::Done)
}

fn row(pulled: &Pulled) -> Value {
    let mut row = json!({});
    match pulled {
        Pulled::Image(image) => {
            row["name"] = json!(image.reference);
            image_file::describe(image, &mut row);
        }
        Pulled::Artifact(artifact) => {
            row["name"] = json!(artifact.reference);
            image_file::describe_artifact(artifact, &mut row);
        }
    }
    row
}

/// The name in a registry that a text is.
fn reference(text: &str) -> Result<Reference, Failure> {
    match text.parse::<ImageSource>() {
        Ok(ImageSource::Registry(reference)) => Ok(reference),
        Ok(_) => {
            let hint = format!("`cas image import {text}` brings it into the store");
            Err(Failure::Usable(format!("`{text}` is in no registry"), hint))
        }
        Err(error) => Err(Failure::Usable(error.to_string(), error.hint())),
    }
}
