//! One image for four platforms beside four images for one each.
//!
//! No step is in them, since steps run on this machine alone: each platform has a base of its own files, and all have a
//! layer in common.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use cas_blob::Descriptor;
use cas_digest::DigestFunction;
use serde_json::{Value, json};

use super::super::{Bench, output, remove};
use super::shape::Shape;
use super::subject::{Cell, by, seconds, timed};
use super::synthetic;
use crate::run::Failure;

const PLATFORMS: [&str; 4] = ["amd64", "arm64", "ppc64le", "riscv64"];
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// The section of the page. `files` are those of each base and of the common layer.
pub(super) fn section(bench: &Bench, shape: Shape, files: usize, limit: Duration) -> Result<String, Failure> {
    println!("four platforms");
    let (layout, place) = (bench.folder.join("bases"), bench.folder.join("platforms"));
    bases(bench, &layout, files)?;
    let layer = match shape {
        Shape::Files | Shape::Split => {
            synthetic::fill(&place.join("in"), files, 99)?;
            shape.layer()
        }
        // A file is what comes without a step where files of packages are no layers.
        Shape::Step => "{ from = \":own\", to = \"/\" }".to_owned(),
    };
    let mut manifest = format!(
        "[workspace]\n[toolchain.base]\nimage = \"oci:{}:t\"\n{}",
        layout.display(),
        fetched(bench, "own", files, 99)?
    );
    let mut images = vec![("all".to_owned(), PLATFORMS.map(|platform| format!("\"linux/{platform}\"")).join(", "))];
    images.extend(PLATFORMS.map(|platform| (platform.to_owned(), format!("\"linux/{platform}\""))));
    for (name, platforms) in &images {
        manifest.push_str(&format!(
            "[image.{name}]\nbase = \":base\"\ncompression = \"zstd\"\nplatforms = [{platforms}]\nlayers = [{layer}]\n"
        ));
    }
    fs::create_dir_all(&place)?;
    fs::write(place.join("cas.toml"), manifest)?;
    // The lock is there before.
    output(&mut bench.cas(&place, "cold", &["build", ":all"]))?;
    let mut times = Vec::new();
    for (name, _) in &images {
        let cell = timed(limit, || {
            remove(&bench.folder.join("cold"))?;
            remove(&place.join("cas-out"))?;
            Ok(bench.cas(&place, "cold", &["build", &format!(":{name}")]))
        })?;
        times.push(cell);
    }
    remove(&bench.folder.join("cold"))?;
    let singles: Duration = times[1..].iter().filter_map(|cell| cell.time()).sum();
    let all = times[0];
    Ok(format!(
        "| one image for four platforms | four images, the sum | the first by the second |\n|---|---|---|\n| {} | {} | {} |\n",
        all.text(),
        seconds(singles),
        by(all.time(), Cell::Time(singles, 1).time())
    ))
}

/// A layout with an index of four images, each with a layer of its own.
fn bases(bench: &Bench, layout: &Path, files: usize) -> Result<(), Failure> {
    let maker = bench.folder.join("bases-maker");
    fs::create_dir_all(&maker)?;
    let mut manifest = "[workspace]\n".to_owned();
    for (number, platform) in (0_u64..).zip(PLATFORMS) {
        manifest.push_str(&fetched(bench, platform, files, number)?);
        manifest.push_str(&format!(
            "[image.i-{platform}]\nplatforms = [\"linux/{platform}\"]\nlayers = [{{ from = \":{platform}\", to = \"/\" }}]\n"
        ));
    }
    fs::write(maker.join("cas.toml"), manifest)?;
    for platform in PLATFORMS {
        let destination = format!("oci:{}:{platform}", layout.display());
        output(&mut bench.cas(&maker, "bases-store", &["build", &format!(":i-{platform}")]))?;
        output(&mut bench.cas(&maker, "bases-store", &["image", "export", &format!("//:i-{platform}"), &destination]))?;
    }
    let mut named: Value = serde_json::from_slice(&fs::read(layout.join("index.json"))?)?;
    let tag = "org.opencontainers.image.ref.name";
    let manifests: Vec<Value> = named["manifests"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|entry| {
            let platform = json!({ "os": "linux", "architecture": entry["annotations"][tag] });
            json!({ "mediaType": MANIFEST, "digest": entry["digest"], "size": entry["size"], "platform": platform })
        })
        .collect();
    if manifests.len() != PLATFORMS.len() {
        return Err("the layout of the bases does not have one image of each platform".into());
    }
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests }).to_string();
    let digest = Descriptor::of(DigestFunction::Sha256, index.as_bytes()).digest.to_hex();
    fs::write(layout.join("blobs/sha256").join(&digest), &index)?;
    named["manifests"] = json!([{ "mediaType": INDEX, "digest": format!("sha256:{digest}"), "size": index.len(),
                                  "annotations": { tag: "t" } }]);
    fs::write(layout.join("index.json"), named.to_string())?;
    remove(&bench.folder.join("bases-store"))
}

/// A target that is one file: an archive of made up files.
fn fetched(bench: &Bench, name: &str, files: usize, seed: u64) -> Result<String, Failure> {
    let folder = bench.folder.join("fetched");
    remove(&folder)?;
    synthetic::fill(&folder, files, seed)?;
    let archive = bench.folder.join(format!("{name}.files"));
    let mut tar = Command::new("tar");
    output(tar.args(["c", "--mtime=@0", "--sort=name", "-C"]).arg(&folder).arg("-f").arg(&archive).arg("."))?;
    let sum = output(Command::new("sha256sum").arg(&archive))?;
    let sha256 = sum.split_whitespace().next().unwrap_or_default();
    Ok(format!("[fetch.{name}]\nurl = \"file://{}\"\nsha256 = \"{sha256}\"\n", archive.display()))
}
