//! `cas push` to generic packages of GitLab: the files of an artifact, and their checksums.

use std::collections::BTreeMap;
use std::sync::Arc;

use cas_build::Whole;
use cas_registry::{GENERIC_SCHEME, GenericPackage, PackageToken};
use cas_sync::{PushedPackage, push_package};
use serde_json::{Value, json};

use crate::args::Global;
use crate::args_remote::PushArgs;
use crate::commands::{Named, build_options, cancel_on_signals, logins, named, open_store, print, text, variable};
use crate::exit::Exit;
use crate::push::shipment;
use crate::render::{self, Failure};

/// The packages that destinations are, where they are some; all of them are then.
pub(crate) fn packages(destinations: &[String]) -> Result<Option<Vec<GenericPackage>>, Failure> {
    if !destinations.iter().any(|text| text.starts_with(GENERIC_SCHEME)) {
        return Ok(None);
    }
    if let Some(other) = destinations.iter().find(|text| !text.starts_with(GENERIC_SCHEME)) {
        let hint =
            "push to it by a command of its own: tags are set when all registries have all, and packages have no tags";
        return Err(Failure::Usable(format!("`{other}` is no package, and others are"), hint.to_owned()));
    }
    let parsed = destinations
        .iter()
        .map(|text| text.parse::<GenericPackage>().map_err(|error| Failure::Usable(error.to_string(), error.hint())));
    parsed.collect::<Result<_, _>>().map(Some)
}

pub(crate) fn run(global: &Global, args: &PushArgs, packages: &[GenericPackage]) -> Result<Exit, Failure> {
    if let Some(tag) = args.tags.move_tag.first() {
        let hint = "leave the option out; a version of a package never becomes another one";
        return Err(Failure::Usable(format!("`--move-tag {tag}`, and packages have no tags"), hint.to_owned()));
    }
    let store = Arc::new(open_store(global)?);
    let artifact = match named(global, &store, &args.image, &build_options(None, &args.input), true)? {
        Named::Artifact(artifact) => artifact,
        Named::Image(image) => {
            let hint = "packages are made of the files of an artifact; images go to registries";
            return Err(Failure::Usable(format!("`{}` is an image", image.reference), hint.to_owned()));
        }
    };
    let shipment = shipment(&store, Whole::of_artifact(&store, &artifact)?)?;
    let digest = shipment.root().blob.digest.to_string();
    let signals = cancel_on_signals()?;
    let client = signals.client(logins(), BTreeMap::new());
    let mut rows = Vec::new();
    let mut summaries = Vec::new();
    for package in packages {
        let done = push_package(&client, &shipment, package, job_token(&package.host), args.tags.dry_run)
            .map_err(Failure::Sync)?;
        rows.push(row(&artifact.reference, &digest, &done, args.tags.dry_run));
        summaries.push(summary(&done, args.tags.dry_run));
    }
    print(global, &rows, |row| {
        format!("{} {} {}", text(&row["name"]), text(&row["digest"]), text(&row["destination"]))
    })?;
    summaries.iter().for_each(|summary| render::note(summary));
    Ok(Exit::Done)
}

/// The token of the job of a pipeline that this runs in, for the server that the pipeline is of alone.
fn job_token(host: &str) -> Option<PackageToken> {
    let value = |name: &str| variable(name).and_then(|value| value.into_string().ok()).filter(|text| !text.is_empty());
    let own = value("CI_SERVER_FQDN").or_else(|| value("CI_SERVER_HOST"))?;
    value("CI_JOB_TOKEN").filter(|_| own == host).and_then(|token| PackageToken::of_job(&token))
}

fn row(name: &str, digest: &str, done: &PushedPackage, is_dry: bool) -> Value {
    let files = done.files.iter().map(|file| {
        json!({
            "name": file.name,
            "digest": file.blob.digest.to_string(),
            "size": file.blob.size,
            "state": if file.is_known { "known" } else { "sent" },
        })
    });
    json!({
        "name": name,
        "digest": digest,
        "destination": done.package.to_string(),
        "dry_run": is_dry,
        "files": files.collect::<Vec<_>>(),
    })
}

fn summary(done: &PushedPackage, is_dry: bool) -> String {
    let known = done.files.iter().filter(|file| file.is_known).count();
    let sent = render::counted((done.files.len() - known) as u64, "file");
    let (would, were) = if is_dry { ("would be sent", "are there") } else { ("sent and read back", "were there") };
    format!("{}: {sent} {would}, {} {were}", done.package, render::counted(known as u64, "file"))
}
