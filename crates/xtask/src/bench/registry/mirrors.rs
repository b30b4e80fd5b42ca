//! A repository of many tags that is in two registries already: how long each program takes to see that, and what it asks.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::super::image::subject::{Cell, by, timed};
use super::super::{Bench, output, peak_kib, remove};
use super::clients::{Client, Place};
use super::server::Server;
use crate::run::Failure;

const TAGS: [usize; 2] = [200, 1000];
const TINY_TAGS: [usize; 1] = [5];
const REPOSITORY: &str = "mirrored";

/// What a program did.
struct Told {
    name: &'static str,
    first: Cell,
    again: Cell,
    peak: u64,
    /// Of the source and of the destination, for nothing to be done.
    requests: (usize, usize),
}

/// The section of the page.
pub(super) fn section(bench: &Bench, clients: &[Client]) -> Result<String, Failure> {
    let mut text = String::from(TEXT);
    for &tags in if bench.is_small { &TINY_TAGS[..] } else { &TAGS[..] } {
        println!("a mirror of {tags} tags");
        let told = mirror(bench, clients, tags)?;
        let _ = writeln!(text, "\n{tags} tags:\n\n{ROWS}");
        let first = told.first().map(|told| (told.first, told.again));
        for told in &told {
            let (from, to) = told.requests;
            let ratio = |own: Cell, which: fn((Cell, Cell)) -> Cell| match first {
                Some(cells) if told.name != "cas sync apply" => by(which(cells).time(), own.time()),
                _ => String::new(),
            };
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} | {from} | {to} | {} |",
                told.name,
                told.first.text(),
                ratio(told.first, |cells| cells.0),
                told.again.text(),
                ratio(told.again, |cells| cells.1),
                told.peak / 1024,
            );
        }
    }
    Ok(text)
}

const TEXT: &str = "
## Mirrors

A repository of small images, each tag with one of its own, that share a layer. *First* brings all of them from one docker-registry to another. *Again* finds everything in
place. Requests are counted in the logs of the registries: those of *again*, with those of connecting. cas looks for signatures and other referrers of each image, as it
does by itself; its pins are in a file beside the list. skopeo has `--all`, regsync what it has by itself.
";
const ROWS: &str = "| program | first | cas by it | again | cas by it | requests, source | requests, destination | MiB |\n|---|---|---|---|---|---|---|---|";

fn mirror(bench: &Bench, clients: &[Client], tags: usize) -> Result<Vec<Told>, Failure> {
    let source = Server::start(&bench.folder.join("source"))?;
    fill(bench, &clients[0], &source, tags)?;
    let mut all = Vec::new();
    for client in clients {
        let Some(name) = name(client) else { continue };
        let folder = bench.folder.join("destination");
        let destination = Server::start(&folder)?;
        let place = bench.folder.join("list");
        remove(&place)?;
        fs::create_dir_all(&place)?;
        write_list(client, &place, &source.address, &destination.address)?;
        let once = || command(client, &place, &destination.address);
        if let Client::Cas { .. } = client {
            output(plan(client, &place).as_mut().ok_or("cas is there")?)?;
        }
        let mut is_first = true;
        let first = timed(Duration::ZERO, || {
            is_first = false;
            Ok(once())
        })?;
        let before = (source.requests()?, destination.requests()?);
        let peak = peak_kib(&once())?;
        let after = (source.requests()?, destination.requests()?);
        let again = timed(if bench.is_small { Duration::ZERO } else { super::JOB }, || Ok(once()))?;
        let tag = format!("{}/{REPOSITORY}:t{}", destination.address, tags - 1);
        if destination.digest_of(&tag)?
            != source.digest_of(&format!("{}/{REPOSITORY}:t{}", source.address, tags - 1))?
        {
            return Err(format!("{name} did not bring the last tag").into());
        }
        println!("  {name}: {}, {}", first.text(), again.text());
        all.push(Told { name, first, again, peak, requests: (after.0 - before.0, after.1 - before.1) });
        drop(destination);
        remove(&folder)?;
    }
    drop(source);
    remove(&bench.folder.join("source"))?;
    remove(&bench.folder.join("store"))?;
    Ok(all)
}

fn name(client: &Client) -> Option<&'static str> {
    match client {
        Client::Cas { .. } => Some("cas sync apply"),
        Client::Skopeo => Some("skopeo sync"),
        Client::Regctl { .. } => Some("regsync"),
        Client::Crane(_) => None,
    }
}

/// Puts as many images into a repository as it is to have tags.
fn fill(bench: &Bench, cas: &Client, source: &Server, tags: usize) -> Result<(), Failure> {
    let (place, layout) = super::image(bench, 1, 10_000)?;
    let seed = format!("{}/{REPOSITORY}:seed", source.address);
    output(&mut cas.command(&Place::Target(&place), &Place::Registry(&seed)))?;
    let seed: serde_json::Value = serde_json::from_str(&source.manifest(&seed)?)?;
    for tag in 0..tags {
        let mut manifest = seed.clone();
        manifest["annotations"]["org.opencontainers.image.title"] = format!("number {tag}").into();
        source.put(REPOSITORY, &format!("t{tag}"), &serde_json::to_vec(&manifest)?)?;
    }
    remove(&place)?;
    remove(&layout)
}

/// What the program is told of the mirror.
fn write_list(client: &Client, place: &Path, source: &str, destination: &str) -> Result<(), Failure> {
    let text = match client {
        Client::Cas { .. } => {
            format!(
                "[[image]]\nfrom = \"{source}/{REPOSITORY}\"\nto = [\"{destination}/{REPOSITORY}\"]\ntags = [\"t*\"]\n"
            )
        }
        Client::Skopeo => {
            format!("{source}:\n  tls-verify: false\n  images-by-tag-regex:\n    {REPOSITORY}: ^t\n")
        }
        Client::Crane(_) => return Ok(()),
        Client::Regctl { .. } => {
            let host = |name: &str| format!("  - registry: {name}\n    tls: disabled\n");
            format!(
                "version: 1\ncreds:\n{}{}sync:\n  - source: {source}/{REPOSITORY}\n    target: {destination}/{REPOSITORY}\n    \
                 type: repository\n    tags:\n      allow: [\"t.*\"]\n",
                host(source),
                host(destination)
            )
        }
    };
    Ok(fs::write(place.join(file(client)), text)?)
}

fn file(client: &Client) -> &'static str {
    if client.is_cas() { "mirror.toml" } else { "mirror.yml" }
}

fn plan(client: &Client, place: &Path) -> Option<Command> {
    let Client::Cas { program, store } = client else { return None };
    let mut command = Command::new(program);
    command.arg("--store").arg(store).args(["sync", "plan", file(client)]).current_dir(place).env_remove("CI");
    Some(command)
}

fn command(client: &Client, place: &Path, destination: &str) -> Command {
    match client {
        Client::Cas { program, store } => {
            let mut command = Command::new(program);
            command.arg("--store").arg(store).args(["sync", "apply", file(client)]).current_dir(place).env_remove("CI");
            command
        }
        Client::Regctl { regsync, .. } => {
            let mut command = Command::new(regsync);
            command.args(["once", "--config"]).arg(place.join(file(client)));
            command
        }
        _ => {
            let mut command = Command::new("skopeo");
            command.args(["--insecure-policy", "sync", "--all", "--preserve-digests", "--src=yaml", "--dest=docker"]);
            command.arg("--dest-tls-verify=false").arg(place.join(file(client))).arg(destination);
            command
        }
    }
}
