//! `cargo xtask bumps`: what a bump of dependencies costs in layers. Writes `docs/benchmarks/bumps.md`.
//!
//! Builds the image of `testdata/bumps` at each recorded state, one after the other in one store, and counts bytes: of blobs that
//! are new, and of what had to be, the changed files alone in a layer of the same codec. Bytes depend on no machine. The store stays in
//! `target/bumps`, so packages are fetched once.

mod archive;
mod report;
mod split;
mod state;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cas_tar::{Codec, LayerPlan};
use cas_testing::MemoryStore;
use cas_tree::Directory;
use serde_json::{Map, Value};

use archive::Measure;
use split::{Packages, Split};
use state::{Files, Manifest};

use crate::run::{Failure, cargo, workspace};

/// What is compared: the compression, the image's target, the codec.
const CODECS: [(&str, &str, Codec); 3] =
    [("gzip", "gzip", Codec::Gzip6), ("zstd", "zstd", Codec::Zstd3), ("zstd:chunked", "chunked", Codec::ZstdChunked3)];
/// Lockfiles of npm, and of the base at the last of them; what was bumped.
const BUMPS: [(&str, &str); 10] = [
    ("01", "patch of a small package"),
    ("02", "patch of a package with large files"),
    ("03", "seven at once"),
    ("04", "one that others need"),
    ("05", "a removal"),
    ("06", "an addition"),
    ("07", "express, major"),
    ("08", "the service's own version"),
    ("09", "everything within its ranges"),
    ("10", "zod, major"),
];
const BASE_BUMPS: [(&str, &str); 3] = [("base-1", "small libraries"), ("base-2", "node"), ("base-3", "perl")];
const FIRST_BASE: &str = "base-0";
/// The ways of cutting that are simulated.
const SPLITS: [Split; 22] = [
    Split::Hash(1),
    Split::Hash(4),
    Split::Hash(8),
    Split::Hash(16),
    Split::Hash(32),
    Split::Hash(64),
    Split::LargestAlone { alone: 4, hashed: 4 },
    Split::LargestAlone { alone: 8, hashed: 8 },
    Split::LargestAlone { alone: 16, hashed: 16 },
    Split::LargestAlone { alone: 32, hashed: 32 },
    Split::AloneFrom { bytes: 1 << 20, hashed: 16 },
    Split::AloneFrom { bytes: 256 << 10, hashed: 16 },
    Split::AloneFrom { bytes: 256 << 10, hashed: 32 },
    Split::FilesFrom { file_bytes: 256 << 10, bytes: 256 << 10, hashed: 32 },
    Split::FilesFrom { file_bytes: 128 << 10, bytes: 128 << 10, hashed: 32 },
    Split::FilesAndLargest { file_bytes: 256 << 10, alone: 48, hashed: 40 },
    Split::FilesAndLargest { file_bytes: 512 << 10, alone: 64, hashed: 40 },
    Split::FilesAndLargest { file_bytes: 1 << 20, alone: 80, hashed: 32 },
    Split::Each,
    Split::EachFilesFrom { file_bytes: 256 << 10 },
    Split::EachFilesFrom { file_bytes: 64 << 10 },
    Split::EachFilesFrom { file_bytes: 16 << 10 },
];
/// Where the image has its modules.
const MODULES: &[u8] = b"app/node_modules/";
/// Exit code of `cas` when a remote refused, or is not there.
const REMOTE: i32 = 4;

/// The image at a state of its dependencies.
struct State {
    /// In the order of [`CODECS`].
    manifests: Vec<Manifest>,
    files: Files,
    modules: Packages,
    /// Which of the layers have modules.
    modules_layers: BTreeSet<usize>,
    /// All layers as trees.
    trees: Vec<Directory>,
}

/// What a bump costs with one codec.
struct Cost {
    /// The changed files alone.
    changed: u64,
    /// Blobs of the image.
    today: u64,
    new_layer_count: usize,
    /// In the order of [`SPLITS`].
    simulated: Vec<u64>,
}

/// What a bump changed, whatever the codec.
struct Change {
    name: &'static str,
    what: &'static str,
    is_base: bool,
    package_count: usize,
    changed_package_count: usize,
    modules_bytes: u64,
    /// Contents of packages that changed and are still there.
    changed_packages_bytes: u64,
    changed_files_count: usize,
    changed_files_bytes: u64,
    /// In the order of [`CODECS`].
    costs: Vec<Cost>,
}

/// A way of cutting, at the last state of the modules.
struct Cut {
    layer_count: usize,
    /// Bytes of all layers of modules, in the order of [`CODECS`].
    bytes: Vec<u64>,
}

/// Builds, counts, and writes the page.
pub(crate) fn run() -> Result<bool, Failure> {
    if !cargo(&["build", "--locked", "--bin", "cas"]).status()?.success() {
        return Ok(false);
    }
    let root = workspace();
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let place = Place {
        cas: target.join("debug/cas"),
        recorded: root.join("testdata/bumps"),
        folder: target.join("bumps"),
        contents: MemoryStore::default(),
    };
    let first = place.state("00", FIRST_BASE)?.ok_or("the first state could not be fetched")?;
    let counts = (first.manifests[0].layers.len(), first.modules_layers.len());
    let mut measures: Vec<Measure<'_>> =
        CODECS.iter().map(|(_, _, codec)| Measure::new(*codec, &place.contents)).collect();
    check(&first, &mut measures)?;
    let mut changes = Vec::new();
    let mut before = first;
    for (name, what) in BUMPS {
        let after = place.state(name, FIRST_BASE)?.ok_or_else(|| format!("state {name} could not be fetched"))?;
        changes.push(compare((name, what, false), &before, &after, &mut measures)?);
        before = after;
    }
    let mut cuts = Vec::new();
    for by in SPLITS {
        let layers = split::split(&before.modules, by);
        cuts.push(Cut { layer_count: layers.len(), bytes: sums(&mut measures, &layers)? });
    }
    let last = BUMPS[BUMPS.len() - 1].0;
    for (name, what) in BASE_BUMPS {
        let Some(after) = place.state(last, name)? else {
            println!("left out: packages of {name} could not be fetched");
            break;
        };
        changes.push(compare((name, what, true), &before, &after, &mut measures)?);
        before = after;
    }
    let page = report::page(counts, &changes, &cuts);
    print!("{page}");
    let path = root.join("docs/benchmarks/bumps.md");
    fs::write(&path, page)?;
    println!("written to {}", path.display());
    Ok(true)
}

/// Fails unless layers are measured here as `cas` makes them.
fn check(state: &State, measures: &mut [Measure<'_>]) -> Result<(), Failure> {
    for layer in &state.modules_layers {
        let plan = LayerPlan::new(&state.trees[*layer])?;
        for (measure, manifest) in measures.iter_mut().zip(&state.manifests) {
            let (measured, built) = (measure.size(&plan)?, manifest.layers[*layer].size);
            if measured != built {
                return Err(format!("a layer of {built} bytes was measured as {measured}").into());
            }
        }
    }
    Ok(())
}

/// Bytes of layers with each codec.
fn sums<'a>(measures: &mut [Measure<'_>], layers: impl IntoIterator<Item = &'a Packages>) -> Result<Vec<u64>, Failure> {
    let mut sums = vec![0; measures.len()];
    for layer in layers {
        let files = layer.values().flat_map(|files| files.iter());
        let plan = LayerPlan::new(&state::tree(files)?)?;
        for (sum, measure) in sums.iter_mut().zip(&mut *measures) {
            *sum += measure.size(&plan)?;
        }
    }
    Ok(sums)
}

/// Counts what is new after a bump.
fn compare(
    (name, what, is_base): (&'static str, &'static str, bool),
    before: &State,
    after: &State,
    measures: &mut [Measure<'_>],
) -> Result<Change, Failure> {
    println!("== {name}");
    let changed = state::changed(&before.files, &after.files);
    let changed_plan = LayerPlan::new(&state::tree(&changed)?)?;
    let packages = &after.modules;
    let changed_packages = split::changed_packages(&before.modules, &after.modules);
    let mut simulated = Vec::new();
    for by in SPLITS {
        let (old, new) = (split::split(&before.modules, by), split::split(&after.modules, by));
        simulated.push(sums(measures, split::new_layers(&old, &new))?);
    }
    let mut costs = Vec::new();
    for (index, measure) in measures.iter_mut().enumerate() {
        let (old, new) = (&before.manifests[index], &after.manifests[index]);
        let is_new = |layer: &&state::Blob| !old.layers.contains(layer);
        // What a simulation leaves as it is.
        let others = new.layers.iter().enumerate().filter(|(layer, _)| !after.modules_layers.contains(layer));
        let others: u64 = others.map(|(_, layer)| layer).filter(is_new).map(|layer| layer.size).sum();
        costs.push(Cost {
            changed: measure.size(&changed_plan)?,
            today: new.new_bytes(old),
            new_layer_count: new.layers.iter().filter(is_new).count(),
            simulated: simulated.iter().map(|sums| others + sums[index]).collect(),
        });
    }
    let still_there = changed_packages.iter().filter_map(|name| packages.get(name));
    Ok(Change {
        name,
        what,
        is_base,
        package_count: packages.keys().filter(|name| !name.is_empty()).count(),
        changed_package_count: changed_packages.len(),
        modules_bytes: packages.values().map(|files| state::content_bytes(files.values())).sum(),
        changed_packages_bytes: still_there.map(|files| state::content_bytes(files.values())).sum(),
        changed_files_count: changed.values().filter(|thing| matches!(thing, state::Thing::File(..))).count(),
        changed_files_bytes: state::content_bytes(changed.values()),
        costs,
    })
}

/// Where images are built.
struct Place {
    cas: PathBuf,
    recorded: PathBuf,
    folder: PathBuf,
    contents: MemoryStore,
}

impl Place {
    /// Builds the images at a state and reads them; `None` where a package cannot be had.
    fn state(&self, modules: &str, base: &str) -> Result<Option<State>, Failure> {
        println!("building {modules}, {base}");
        let place = self.folder.join("workspace");
        if place.exists() {
            fs::remove_dir_all(&place)?;
        }
        fs::create_dir_all(place.join("src"))?;
        for (from, to) in [
            ("cas.toml", "cas.toml"),
            ("src/server.js", "src/server.js"),
            (&format!("{modules}.json"), "package-lock.json"),
            (&format!("{base}.lock"), "cas.lock"),
        ] {
            fs::copy(self.recorded.join(from), place.join(to))?;
        }
        fs::write(place.join("package.json"), package_json(&fs::read(place.join("package-lock.json"))?)?)?;
        let mut command = Command::new(&self.cas);
        command.arg("--store").arg(self.folder.join("store")).args(["build", "--locked"]).env_remove("CI");
        command.args(CODECS.map(|(_, target, _)| format!(":{target}"))).current_dir(&place).stdin(Stdio::null());
        let output = command.output()?;
        if output.status.code() == Some(REMOTE) {
            eprint!("{}", String::from_utf8_lossy(&output.stderr));
            return Ok(None);
        }
        if !output.status.success() {
            return Err(format!("{command:?} failed: {}", String::from_utf8_lossy(&output.stderr)).into());
        }
        self.read(&place.join("cas-out")).map(Some)
    }

    fn read(&self, outputs: &Path) -> Result<State, Failure> {
        let manifests = CODECS.iter().map(|(_, target, _)| Manifest::read(&outputs.join(target)));
        let manifests = manifests.collect::<Result<Vec<Manifest>, Failure>>()?;
        if manifests.iter().any(|manifest| manifest.diff_ids != manifests[0].diff_ids) {
            return Err("images of different compression hold different files".into());
        }
        // Of the compressions zstd is read fastest.
        let zstd = CODECS.iter().position(|(name, ..)| *name == "zstd").ok_or("zstd is one of the codecs")?;
        let trees = manifests[zstd].trees(&outputs.join(CODECS[zstd].1), &self.contents)?;
        let has_modules = |tree: &Directory| tree.walk().any(|(path, _)| is_module(path.as_bytes()));
        let modules_layers = trees.iter().enumerate().filter(|(_, tree)| has_modules(tree));
        let modules_layers: BTreeSet<usize> = modules_layers.map(|(layer, _)| layer).collect();
        if modules_layers.is_empty() {
            return Err("no layer has modules".into());
        }
        let files = state::files(&trees);
        let modules = files.iter().filter(|(path, _)| is_module(path));
        let modules = split::by_package(modules.map(|(path, thing)| (path.clone(), thing.clone())).collect());
        Ok(State { manifests, files, modules, modules_layers, trees })
    }
}

fn is_module(path: &[u8]) -> bool {
    path.starts_with(MODULES)
}

/// The `package.json` that a lockfile was made for.
fn package_json(lockfile: &[u8]) -> Result<Vec<u8>, Failure> {
    let lockfile: Value = serde_json::from_slice(lockfile)?;
    let root = lockfile["packages"][""].as_object().ok_or("the lockfile has no part for the package itself")?;
    let mut package = Map::new();
    for key in ["name", "version", "dependencies"] {
        package.insert(key.to_owned(), root.get(key).ok_or_else(|| format!("the lockfile has no `{key}`"))?.clone());
    }
    let mut text = serde_json::to_vec_pretty(&package)?;
    text.push(b'\n');
    Ok(text)
}
