//! `cas image tag` and `cas image rm`: names of images and artifacts in the store.

use std::collections::BTreeSet;

use cas_build::{BuildError, is_named, name_artifact, name_image, remove_name};
use cas_oci::is_name_with_tag;
use serde_json::json;

use crate::args::{Global, InputArgs};
use crate::commands::{Named, build_options, named, open_store, open_workspace, print, text};
use crate::exit::Exit;
use crate::image_look::has_transport;
use crate::render::Failure;

/// Refuses a name that an image of the store cannot be given.
pub(crate) fn check(name: &str) -> Result<(), Failure> {
    if is_name_with_tag(name) && !has_transport(name) {
        return Ok(());
    }
    let hint = "write `NAME:TAG` in small letters, as `team/app:1`; labels are the workspace's";
    Err(Failure::Usable(format!("`{name}` is not a name with a tag"), hint.to_owned()))
}

pub(crate) fn tag(global: &Global, source: &str, name: &str) -> Result<Exit, Failure> {
    check(name)?;
    let store = open_store(global)?;
    let found = match source.starts_with(['/', ':']) {
        true => named(global, &store, source, &build_options(None, &InputArgs::default()), true)?,
        false => match Named::of_store(&store, source) {
            Err(BuildError::UnknownImage { .. }) if has_transport(source) => {
                let hint = format!("bring the image into the store: `cas image import {source} --name {name}`");
                return Err(Failure::Usable(format!("`{source}` is a place, and no image in the store"), hint));
            }
            found => found?,
        },
    };
    let digest = match found {
        Named::Image(image) => name_image(&store, &image, name)?.document().digest,
        Named::Artifact(artifact) => name_artifact(&store, &artifact, name)?.manifest.digest,
    };
    let rows = [json!({ "name": name, "digest": digest.to_string() })];
    print(global, &rows, |row| format!("{} {}", text(&row["name"]), text(&row["digest"])))?;
    Ok(Exit::Done)
}

pub(crate) fn remove(global: &Global, names: &[String]) -> Result<Exit, Failure> {
    let store = open_store(global)?;
    let names = names.iter().map(|name| whole(global, name)).collect::<Result<BTreeSet<String>, Failure>>()?;
    let mut unknown = Vec::new();
    for name in &names {
        if !is_named(&store, name)? {
            unknown.push(format!("`{name}`"));
        }
    }
    if !unknown.is_empty() {
        let (are, images) = if unknown.len() == 1 { ("is", "image") } else { ("are", "images") };
        let message = format!("there {are} no {images} {} in the store; nothing was removed", unknown.join(", "));
        return Err(Failure::Usable(message, "`cas image ls` lists those that are there".to_owned()));
    }
    let mut rows = Vec::new();
    for name in &names {
        // Somebody else may have been faster.
        remove_name(&store, name)?;
        rows.push(json!({ "name": name }));
    }
    print(global, &rows, |row| format!("{} was removed", text(&row["name"])))?;
    Ok(Exit::Done)
}

/// A label of the package that is worked in, as the store has it; other names as they are.
fn whole(global: &Global, name: &str) -> Result<String, Failure> {
    if !name.starts_with(':') {
        return Ok(name.to_owned());
    }
    let (_, package) = open_workspace(global)?;
    Ok(format!("//{}{name}", package.map(|package| package.to_string()).unwrap_or_default()))
}
