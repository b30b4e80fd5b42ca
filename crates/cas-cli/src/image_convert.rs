//! `cas image import` and `cas image convert`.

use std::collections::BTreeMap;
use std::sync::Arc;

use cas_build::{BuildError, Image, ImageRegistries, convert_image, export_image, import_image};
use cas_config::Compression;
use cas_digest::DigestFunction;
use cas_oci::ImageSource;
use cas_registry::Client;
use cas_store::Store;
use serde_json::json;

use crate::args::{ConvertArgs, Global, ImportImageArgs, InputArgs};
use crate::commands::{build_options, find, here, logins, open_store, open_workspace, print, text};
use crate::exit::Exit;
use crate::image::{destination, print_beside};
use crate::image_look::{engine_name, fetched, found, has_transport, wanted};
use crate::image_names;
use crate::render::{self, Failure};

/// Registries, with the workspace's mirrors where there is one, and the digest function of that.
pub(crate) fn registries(global: &Global, offline: bool) -> Result<(Arc<ImageRegistries>, DigestFunction), Failure> {
    let (mirrors, function) = mirrors(global)?;
    let client = if offline { Client::offline() } else { Client::new(logins(), mirrors) };
    Ok((Arc::new(ImageRegistries::new(client)), function))
}

/// The mirrors of the workspace, and its digest function, where there is one.
pub(crate) fn mirrors(global: &Global) -> Result<(BTreeMap<String, String>, DigestFunction), Failure> {
    match open_workspace(global) {
        Ok((workspace, _)) => Ok((workspace.mirrors, workspace.section.digest_function)),
        Err(Failure::Build(error)) if matches!(*error, BuildError::NoWorkspace { .. }) => {
            Ok((BTreeMap::new(), DigestFunction::Blake3))
        }
        Err(other) => Err(other),
    }
}

/// A place that holds no image is a wrong name, not a failure of the disk.
pub(crate) fn no_place(source: &ImageSource, error: BuildError) -> Failure {
    match error {
        BuildError::Fs(error) if error.is_not_found() => {
            let hint = "name a place that holds an image, or a target as `//package:name`";
            Failure::Usable(format!("there is no image `{source}`: {error}"), hint.to_owned())
        }
        other => other.into(),
    }
}

/// Brings an image of others into the store.
pub(crate) fn import(global: &Global, args: &ImportImageArgs) -> Result<Exit, Failure> {
    let store = open_store(global)?;
    let Some((source, _saved)) = found(&store, &args.source)? else {
        let hint = "name a place: `docker://HOST/NAME:TAG`, `oci:FOLDER[:TAG]`, `oci-archive:FILE`, `docker-archive:FILE`, `dir:FOLDER`, `tar:FILE`, `containers-storage:NAME:TAG` or `docker-daemon:NAME:TAG`";
        return Err(Failure::Usable(format!("`{}` is not an image of others", args.source), hint.to_owned()));
    };
    args.name.as_deref().map_or(Ok(()), image_names::check)?;
    // What another program keeps has a name there.
    let default = || {
        engine_name(&args.source)
            .map(str::to_owned)
            .or_else(|| source.default_name().filter(|name| !has_transport(name)))
    };
    let name = args.name.clone().or_else(default).ok_or_else(|| {
        let hint = "give it one: `--name NAME:TAG`, in small letters";
        Failure::Usable(format!("`{}` gives the image no name", args.source), hint.to_owned())
    })?;
    let (registries, function) = registries(global, args.which.offline)?;
    let platforms = wanted(&args.which);
    let image = import_image(&store, function, &source, &here(global), &registries, &platforms, &name)
        .map_err(|error| no_place(&source, error))?;
    let rows = [json!({ "name": image.reference, "digest": image.document().digest.to_string() })];
    print(global, &rows, |row| format!("{} {}", text(&row["name"]), text(&row["digest"])))?;
    Ok(Exit::Done)
}

/// Writes an image out with its layers in another format.
pub(crate) fn convert(global: &Global, args: &ConvertArgs) -> Result<Exit, Failure> {
    let destination = destination(global, &args.to)?;
    let compression = Compression::from_name(&args.compression).ok_or_else(|| {
        let known: Vec<&str> = Compression::NAMES.iter().map(|(name, _)| *name).collect();
        Failure::Usable(
            format!("unknown compression `{}`", args.compression),
            format!("write one of `{}`", known.join("`, `")),
        )
    })?;
    let store = open_store(global)?;
    let (image, function) = image(global, &store, args)?;
    let converted = convert_image(&store, function, &image, compression)?;
    if converted.is_docker_for_check && image.format != converted.image.format {
        render::note("the image has a check, which OCI's documents do not tell: it is written with Docker's");
    }
    if converted.drops_check {
        render::note(&format!(
            "the image has a check, and layers of `{}` need OCI's documents: podman drops the check",
            args.compression
        ));
    }
    if converted.is_already {
        render::note(&format!("all layers have the format `{}` already, and stay as they are", args.compression));
    }
    export_image(&store, &converted.image, &destination)?;
    let (before, after) = (image.document().digest, converted.image.document().digest);
    let rows = [json!({ "name": image.reference, "from": before.to_string(), "digest": after.to_string() })];
    print_beside(global, &destination, &rows, |row| {
        let (name, from, to) = (text(&row["name"]), text(&row["from"]), text(&row["digest"]));
        if from == to {
            return format!("{name} {from}");
        }
        format!("{name} {from} is {to} now; signatures and other referrers name the former")
    })?;
    Ok(Exit::Done)
}

/// The image that is meant, and the digest function of its files.
fn image(global: &Global, store: &Store, args: &ConvertArgs) -> Result<(Image, DigestFunction), Failure> {
    if let Some(found) = fetched(global, store, &args.image, &wanted(&args.which), args.which.offline)? {
        return Ok(found);
    }
    let (_, function) = registries(global, args.which.offline)?;
    let options = build_options(None, &InputArgs { offline: args.which.offline, ..InputArgs::default() });
    let image = find(global, store, &args.image, &options)?;
    let Some(wanted) = &args.which.platform else { return Ok((Image::clone(&image), function)) };
    Ok((image.of_platform(wanted)?.clone(), function))
}
