//! The report: layers, packages, secrets, advice.

use std::collections::{BTreeMap, BTreeSet};

use cas_tree::RelPath;

use crate::advice::{Advice, advise, secrets, sort, telling};
use crate::image::{Fate, Image, LayerFacts, Skipped};
use crate::package::Packages;
use crate::rules::{cache, documentation, repository};
use crate::secret::SecretKind;
use crate::told::ToldSecret;

/// What an image holds and wastes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The lowest first.
    pub layers: Vec<LayerReport>,
    /// The largest first.
    pub packages: Vec<PackageShare>,
    /// Visible entries, but directories, that are of no package.
    pub unowned_bytes: u64,
    /// By layer and path.
    pub secrets: Vec<SecretFile>,
    /// Secrets that the configuration seems to tell, in its order.
    pub told: Vec<ToldSecret>,
    /// What matters most first.
    pub advice: Vec<Advice>,
    /// What was not parsed.
    pub skipped: Vec<Skipped>,
}

impl Report {
    /// All advice together: uncompressed, and compressed in proportion.
    #[must_use]
    pub fn savings(&self) -> (u64, u64) {
        self.advice.iter().fold((0, 0), |(bytes, compressed), advice| {
            (bytes + advice.saves_bytes, compressed + advice.saves_compressed_bytes)
        })
    }

    /// Adds what was found in the configuration, with what to do about each.
    pub fn add_told(&mut self, told: Vec<ToldSecret>) {
        let is_own = self.layers.iter().any(|layer| layer.facts.is_own);
        self.advice.extend(told.iter().map(|secret| telling(secret, is_own)));
        sort(&mut self.advice);
        self.told.extend(told);
    }
}

/// What a layer holds. The sums are independent of each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LayerReport {
    /// What is known of it.
    pub facts: LayerFacts,
    /// Number of its entries.
    pub entry_count: u64,
    /// Entries in whose place something else is.
    pub overwritten_bytes: u64,
    /// Entries that a later layer removes.
    pub removed_bytes: u64,
    /// Content that an earlier path has.
    pub duplicate_bytes: u64,
    /// Caches of package managers.
    pub cache_bytes: u64,
    /// What programs for version control keep.
    pub version_control_bytes: u64,
    /// Compilers and what goes with them.
    pub build_tool_bytes: u64,
    /// npm packages for development.
    pub development_bytes: u64,
    /// Documentation and texts of other languages.
    pub documentation_bytes: u64,
    /// Number of files that look like secrets.
    pub secret_count: u64,
}

/// What a package takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackageShare {
    /// `deb`, `apk`, `python` or `npm`.
    pub ecosystem: &'static str,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Visible files and links that are its own.
    pub file_count: u64,
    /// Their bytes in the archives.
    pub bytes: u64,
    /// The layers that they are in.
    pub layers: BTreeSet<usize>,
}

/// A file that looks like a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretFile {
    /// Position of its layer.
    pub layer: usize,
    /// The file.
    pub path: RelPath,
    /// What it looks like.
    pub kind: SecretKind,
    /// Whether it is there in the end.
    pub is_visible: bool,
}

/// Looks at an image.
#[must_use]
pub fn analyze(image: &Image) -> Report {
    let packages = Packages::of(image);
    let visible: Vec<(RelPath, usize)> = image.visible().collect();
    let advised = advise(image, &packages, &visible);
    let mut layers: Vec<LayerReport> =
        image.layers.iter().map(|facts| LayerReport { facts: facts.clone(), ..LayerReport::default() }).collect();
    for entry in &image.entries {
        layers[entry.layer].entry_count += 1;
    }
    let lost = |entry: &crate::image::Known| matches!(entry.fate, Fate::Removed { .. } | Fate::Overwritten(_));
    let gone: BTreeSet<usize> =
        image.entries.iter().enumerate().filter(|(_, entry)| lost(entry)).map(|(number, _)| number).collect();
    for (number, bytes) in image.savings(&gone) {
        let entry = &image.entries[number];
        let layer = &mut layers[entry.layer];
        match entry.fate {
            Fate::Removed { .. } => layer.removed_bytes += bytes,
            _ => layer.overwritten_bytes += bytes,
        }
    }
    for (number, bytes) in &advised.duplicates {
        layers[image.entries[*number].layer].duplicate_bytes += bytes;
    }
    let mut shares: Vec<PackageShare> = packages
        .packages
        .iter()
        .map(|package| PackageShare {
            ecosystem: package.ecosystem,
            name: package.name.clone(),
            version: package.version.clone(),
            file_count: 0,
            bytes: 0,
            layers: BTreeSet::new(),
        })
        .collect();
    let mut unowned_bytes = 0;
    for (path, number) in &visible {
        let entry = &image.entries[*number];
        if entry.is_directory() {
            continue;
        }
        let layer = &mut layers[entry.layer];
        let mut add = |is: bool, sum: &dyn Fn(&mut LayerReport) -> &mut u64| {
            if is {
                *sum(layer) += entry.bytes;
            }
        };
        add(cache(path).is_some(), &|layer| &mut layer.cache_bytes);
        add(repository(path).is_some(), &|layer| &mut layer.version_control_bytes);
        add(documentation(path).is_some(), &|layer| &mut layer.documentation_bytes);
        add(advised.development.contains(number), &|layer| &mut layer.development_bytes);
        add(advised.build_tools.contains(number), &|layer| &mut layer.build_tool_bytes);
        match packages.owners.get(number) {
            None => unowned_bytes += entry.bytes,
            Some(owner) => {
                let share = &mut shares[*owner];
                share.file_count += 1;
                share.bytes += entry.bytes;
                share.layers.insert(entry.layer);
            }
        }
    }
    let mut found = Vec::new();
    for (number, kind) in secrets(image) {
        let entry = &image.entries[number];
        layers[entry.layer].secret_count += 1;
        if let Some(path) = entry.path.clone() {
            found.push(SecretFile { layer: entry.layer, path, kind, is_visible: entry.fate == Fate::Visible });
        }
    }
    found.sort_by(|one, other| (one.layer, &one.path).cmp(&(other.layer, &other.path)));
    shares.sort_by(|one, other| {
        let key = |share: &PackageShare| (share.ecosystem, share.name.clone(), share.version.clone());
        other.bytes.cmp(&one.bytes).then_with(|| key(one).cmp(&key(other)))
    });
    let mut skipped: BTreeMap<(usize, RelPath), Skipped> = BTreeMap::new();
    for one in image.skipped.iter().chain(&packages.skipped).chain(&advised.skipped) {
        skipped.entry((one.layer, one.path.clone())).or_insert_with(|| one.clone());
    }
    Report {
        layers,
        packages: shares,
        unowned_bytes,
        secrets: found,
        told: Vec::new(),
        advice: advised.advice,
        skipped: skipped.into_values().collect(),
    }
}
