//! Images to registries, from them and between them, beside skopeo, crane and regctl; mirrors beside regsync and `skopeo sync`;
//! signatures.
//!
//! The registry is Debian's docker-registry for everybody. What it takes itself is a part of each time, the same one for all.

mod clients;
mod mirrors;
mod server;
mod signatures;

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use self::clients::{Client, Place};
use self::server::Server;
use super::image::subject::{Cell, by, megabytes, timed};
use super::{Bench, output, peak_kib, random, remove};
use crate::run::Failure;

/// Images: what they are called, their layers, and bytes of each.
const IMAGES: [(&str, usize, usize); 2] = [("250 MB", 5, 50_000_000), ("2 GB", 8, 250_000_000)];
const TINY_IMAGES: [(&str, usize, usize); 1] = [("tiny", 3, 100_000)];
/// No run of a job is begun when the ones before it took so long.
const JOB: Duration = Duration::from_secs(20);

pub(super) fn registry(bench: &mut Bench) -> Result<(), Failure> {
    let clients = Client::known(bench)?;
    let mut text = String::new();
    let images = if bench.is_small { &TINY_IMAGES[..] } else { &IMAGES[..] };
    for &image in images {
        println!("an image of {}", image.0);
        text.push_str(&transfers(bench, &clients, image)?);
    }
    text.push_str(&mirrors::section(bench, &clients)?);
    text.push_str(&signatures::section(bench)?);
    bench.head("Images and registries")?;
    bench.write(HEAD);
    bench.write(&text);
    let versions: Vec<String> = clients.iter().map(Client::version).collect();
    bench.write(&format!("{}, docker-registry {}.", versions.join(", "), server::version()?));
    Ok(())
}

const HEAD: &str = "\
Each program sends an image to an empty registry, sends it again, sends it to a second repository of the registry that has it, fetches it to an empty layout on the disk, and
brings it from one registry to an empty one. cas and skopeo remember which repository has a blob, and have the registry take it from there. `cas` sends
what it built, from its store, and fetches to a layout by `cas copy`; the others send the layout that `cas image export` wrote. The registry is Debian's
docker-registry; its own work is in every time. Memory is the most that the process had resident. *Cas by it* is the time of cas by that of the peer.

A job is begun once more, up to five runs, while it took less than 20 s in all; a cell says if it had fewer.
";

/// What a client does with an image.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Job {
    Push,
    Again,
    Second,
    Pull,
    Copy,
}

impl Job {
    const ALL: [Self; 5] = [Self::Push, Self::Again, Self::Second, Self::Pull, Self::Copy];

    fn name(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::Again => "push again",
            Self::Second => "push to a second repository",
            Self::Pull => "pull to a layout",
            Self::Copy => "registry to registry",
        }
    }
}

fn transfers(bench: &Bench, clients: &[Client], (name, layers, size): (&str, usize, usize)) -> Result<String, Failure> {
    let (place, layout) = image(bench, layers, size)?;
    let first = Server::start(&bench.folder.join("first"))?;
    let bytes = super::count(&layout)?.1;
    let mut rows: Vec<Vec<(Cell, u64)>> = vec![Vec::new(); Job::ALL.len()];
    let mut digests = Vec::new();
    for client in clients {
        let mut number = 0;
        let mut fresh = |server: &Server| {
            number += 1;
            format!("{}/{}-{number}:1.0.0", server.address, client.name())
        };
        let kept = fresh(&first);
        let from = if client.is_cas() { Place::Target(&place) } else { Place::Layout(&layout) };
        for job in Job::ALL {
            let fetched = bench.folder.join("fetched");
            let mut second = None;
            // Programs remember what a registry has, so each run of these has one of its own.
            let mut empty = || -> Result<String, Failure> {
                drop(second.take());
                let folder = bench.folder.join("second");
                remove(&folder)?;
                let server = second.insert(Server::start(&folder)?);
                Ok(format!("{}/{}:1.0.0", server.address, client.name()))
            };
            let mut command = || -> Result<Command, Failure> {
                remove(&fetched)?;
                Ok(match job {
                    Job::Push => client.command(&from, &Place::Registry(&empty()?)),
                    Job::Second => client.command(&from, &Place::Registry(&fresh(&first))),
                    Job::Again => client.command(&from, &Place::Registry(&kept)),
                    Job::Pull => client.command(&Place::Registry(&kept), &Place::Layout(&fetched)),
                    Job::Copy => client.command(&Place::Registry(&kept), &Place::Registry(&empty()?)),
                })
            };
            if job == Job::Again {
                output(&mut command()?)?;
            }
            let peak = peak_kib(&command()?)?;
            let cell = timed(if bench.is_small { Duration::ZERO } else { JOB }, &mut command)?;
            println!("  {}, {}: {}, {} MiB", client.name(), job.name(), cell.text(), peak / 1024);
            rows[Job::ALL.iter().position(|own| *own == job).unwrap_or_default()].push((cell, peak));
        }
        digests.push(first.digest_of(&kept)?);
    }
    if digests.iter().any(|digest| *digest != digests[0]) {
        return Err(format!("the registry has different images: {digests:?}").into());
    }
    drop(first);
    for folder in ["first", "second", "fetched"] {
        remove(&bench.folder.join(folder))?;
    }
    remove(&place)?;
    remove(&layout)?;
    remove(&bench.folder.join("store"))?;
    let title =
        format!("\n## {name}\n\nOne image of {layers} layers, {} MB, which nothing compresses.\n\n", megabytes(bytes));
    Ok(title + &table(clients, &rows))
}

/// Rows of jobs, columns of clients.
fn table(clients: &[Client], rows: &[Vec<(Cell, u64)>]) -> String {
    let mut text = "| job |".to_owned();
    let mut rule = "|---|".to_owned();
    for client in clients {
        // Writing to a string cannot fail.
        let _ = write!(text, " {} | MiB |{}", client.name(), if client.is_cas() { "" } else { " cas by it |" });
        rule.push_str(if client.is_cas() { "---|---|" } else { "---|---|---|" });
    }
    let _ = writeln!(text, "\n{rule}");
    for (job, cells) in Job::ALL.iter().zip(rows) {
        let _ = write!(text, "| {} |", job.name());
        for (client, (cell, peak)) in clients.iter().zip(cells) {
            let _ = write!(text, " {} | {} |", cell.text(), peak / 1024);
            if !client.is_cas() {
                let _ = write!(text, " {} |", by(cells[0].0.time(), cell.time()));
            }
        }
        text.push('\n');
    }
    text
}

/// A workspace with an image, built, and the layout of it.
fn image(bench: &Bench, layers: usize, size: usize) -> Result<(PathBuf, PathBuf), Failure> {
    let place = bench.folder.join("workspace");
    fs::create_dir_all(&place)?;
    let mut entries = Vec::new();
    for layer in 0..layers {
        let name = format!("part-{layer}");
        fs::write(place.join(&name), noise(size, layer + 1))?;
        entries.push(format!("{{ files = [\"{name}\"], to = \"/\" }}"));
    }
    fs::write(place.join("cas.toml"), format!("[workspace]\n[image.i]\nlayers = [{}]\n", entries.join(", ")))?;
    let layout = bench.folder.join("layout");
    let to = format!("oci:{}:v1", layout.display());
    output(&mut bench.cas(&place, "store", &["build", ":i"]))?;
    output(&mut bench.cas(&place, "store", &["image", "export", ":i", &to]))?;
    Ok((place, layout))
}

/// Bytes that nothing compresses.
fn noise(size: usize, seed: usize) -> Vec<u8> {
    let mut random = random::Random(seed as u64);
    let words = std::iter::repeat_with(|| (random.next() >> 32).to_le_bytes()).take(size.div_ceil(4));
    words.flat_map(|word| [word[0], word[1], word[2], word[3]]).take(size).collect()
}
