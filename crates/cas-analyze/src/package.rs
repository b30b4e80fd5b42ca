//! Which packages an image has, and which files are theirs: the databases of Debian, apk, npm and Python.
//!
//! Paths in databases are followed to where files are: `/bin/ls` of a list may be `usr/bin/ls`. A file belongs to the first
//! package that has it.

use std::collections::{BTreeMap, BTreeSet};

use cas_tree::RelPath;
use serde_json::Value;

use crate::image::{Image, Skipped};
use crate::rules::{APK_DATABASES, DPKG_INFO, DPKG_STATUS, DPKG_STATUS_D, HIDDEN_LOCK, npm_folder};

/// A package of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// `deb`, `apk`, `python` or `npm`.
    pub ecosystem: &'static str,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Where it is, for npm.
    pub(crate) folder: Option<RelPath>,
}

/// The packages of an image, and whose each file is.
#[derive(Debug, Default)]
pub(crate) struct Packages {
    pub(crate) packages: Vec<Package>,
    /// Positions of packages by the numbers of entries.
    pub(crate) owners: BTreeMap<usize, usize>,
    /// Names of npm packages that others of them depend on.
    pub(crate) needed: BTreeSet<String>,
    /// What did not parse.
    pub(crate) skipped: Vec<Skipped>,
}

impl Packages {
    pub(crate) fn of(image: &Image) -> Self {
        let mut packages = Self::default();
        packages.debian(image);
        packages.distroless(image);
        packages.apk(image);
        packages.python(image);
        packages.npm(image);
        packages
    }

    fn add(&mut self, ecosystem: &'static str, name: &str, version: &str) -> usize {
        let (name, version) = (name.to_owned(), version.to_owned());
        self.packages.push(Package { ecosystem, name, version, folder: None });
        self.packages.len() - 1
    }

    /// Gives a package what is at a path, but a directory: those are shared.
    fn own(&mut self, image: &Image, package: usize, path: &str) {
        let Ok(path) = RelPath::new(path.trim_start_matches('/')) else { return };
        if let Some(number) = image.find(&path)
            && !image.entries[number].is_directory()
        {
            self.owners.entry(number).or_insert(package);
        }
    }

    fn bad(&mut self, image: &Image, number: usize, path: &RelPath, why: &'static str) {
        let entry = &image.entries[number];
        self.skipped.push(Skipped { layer: entry.layer, path: path.clone(), bytes: entry.bytes, why });
    }

    fn debian(&mut self, image: &Image) {
        let Some(status) = text_at(image, DPKG_STATUS) else { return };
        let mut notes: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for name in image.names_in(DPKG_INFO.trim_end_matches('/')) {
            let name = name.to_string();
            if let Some((package, _)) = name.rsplit_once('.') {
                notes.entry(package.to_owned()).or_default().push(name);
            }
        }
        for paragraph in paragraphs(&status) {
            let (Some(name), Some(version)) = (paragraph.get("Package"), paragraph.get("Version")) else { continue };
            if paragraph.get("Status").is_some_and(|status| !status.ends_with(" installed")) {
                continue;
            }
            let package = self.add("deb", name, version);
            let architecture = paragraph.get("Architecture").copied().unwrap_or_default();
            for own in [(*name).to_owned(), format!("{name}:{architecture}")] {
                // What a paragraph said first counts: another of the same name has no files.
                for note in notes.remove(&own).into_iter().flatten() {
                    let path = format!("{DPKG_INFO}{note}");
                    if note.ends_with(".list") {
                        let list = text_at(image, &path).unwrap_or_default();
                        list.lines().for_each(|line| self.own(image, package, line));
                    }
                    self.own(image, package, &path);
                }
            }
        }
    }

    fn distroless(&mut self, image: &Image) {
        for name in image.names_in(DPKG_STATUS_D.trim_end_matches('/')) {
            let name = name.to_string();
            let path = format!("{DPKG_STATUS_D}{name}");
            if name.ends_with(".md5sums") {
                continue;
            }
            let Some(status) = text_at(image, &path) else { continue };
            let sums = format!("{path}.md5sums");
            // The files are those of the first paragraph; there is one alone in all that are about.
            let mut listed = text_at(image, &sums);
            for paragraph in paragraphs(&status) {
                let (Some(own), Some(version)) = (paragraph.get("Package"), paragraph.get("Version")) else { continue };
                let package = self.add("deb", own, version);
                for line in listed.take().unwrap_or_default().lines() {
                    if let Some((_, file)) = line.split_once("  ") {
                        self.own(image, package, file);
                    }
                }
                self.own(image, package, &path);
                self.own(image, package, &sums);
            }
        }
    }

    fn apk(&mut self, image: &Image) {
        for database in APK_DATABASES {
            let Some(text) = text_at(image, database) else { continue };
            for record in text.split("\n\n") {
                let field = |key: &str| record.lines().find_map(|line| line.strip_prefix(key));
                let (Some(name), Some(version)) = (field("P:"), field("V:")) else { continue };
                let package = self.add("apk", name, version);
                let mut folder = "";
                for line in record.lines() {
                    match line.split_once(':') {
                        Some(("F", path)) => folder = path,
                        Some(("R", file)) if folder.is_empty() => self.own(image, package, file),
                        Some(("R", file)) => self.own(image, package, &format!("{folder}/{file}")),
                        _ => {}
                    }
                }
            }
        }
    }

    fn python(&mut self, image: &Image) {
        for (path, number) in image.visible() {
            let text = path.to_string();
            let Some(folder) = text.strip_suffix(".dist-info/RECORD") else { continue };
            let Some(record) = image.content(number) else { continue };
            let (place, stem) = folder.rsplit_once('/').unwrap_or(("", folder));
            let Some((name, version)) = stem.split_once('-') else {
                self.bad(image, number, &path, "its folder has no name and version");
                continue;
            };
            let package = self.add("python", name, version);
            for line in String::from_utf8_lossy(record).lines() {
                // The name is quoted where a comma is in it.
                let file = match line.strip_prefix('"') {
                    Some(rest) => rest.split('"').next().unwrap_or_default(),
                    None => line.split(',').next().unwrap_or_default(),
                };
                if let Some(file) = joined(place, file) {
                    self.own(image, package, &file);
                }
            }
        }
    }

    fn npm(&mut self, image: &Image) {
        let mut folders: BTreeMap<RelPath, usize> = BTreeMap::new();
        let visible: Vec<(RelPath, usize)> = image.visible().collect();
        for (path, number) in &visible {
            let text = path.to_string();
            let Some(folder) = npm_folder(&text).and_then(|folder| RelPath::new(folder).ok()) else { continue };
            let Some(content) = image.content(*number) else { continue };
            let Ok(manifest) = serde_json::from_slice::<Value>(content) else {
                self.bad(image, *number, path, "it is no JSON");
                continue;
            };
            if let (Some(name), Some(version)) = (manifest["name"].as_str(), manifest["version"].as_str()) {
                let package = self.add("npm", name, version);
                let kinds =
                    ["dependencies", "optionalDependencies", "peerDependencies"].map(|kind| manifest[kind].as_object());
                self.needed.extend(kinds.into_iter().flatten().flat_map(|names| names.keys().cloned()));
                self.packages[package].folder = Some(folder.clone());
                folders.insert(folder, package);
            }
        }
        if folders.is_empty() {
            return;
        }
        for (path, number) in &visible {
            let mut at = path.parent();
            while let Some(folder) = at {
                if let Some(package) = folders.get(&folder)
                    && !image.entries[*number].is_directory()
                {
                    self.owners.entry(*number).or_insert(*package);
                    break;
                }
                at = folder.parent();
            }
        }
    }
}

/// Folders of npm packages that are for development alone, as the notes of npm have them.
pub(crate) fn development_folders(image: &Image, skipped: &mut Vec<Skipped>) -> BTreeSet<RelPath> {
    let mut folders = BTreeSet::new();
    let mut noted = BTreeSet::new();
    // What npm installed is surer than what it was to install.
    for is_hidden in [true, false] {
        for (path, number) in image.visible() {
            let text = path.to_string();
            let end = if is_hidden { HIDDEN_LOCK } else { "package-lock.json" };
            let Some(place) = text.strip_suffix(end).filter(|place| place.is_empty() || place.ends_with('/')) else {
                continue;
            };
            let Some(content) = image.content(number) else { continue };
            if !noted.insert(place.to_owned()) {
                continue;
            }
            let Ok(lock) = serde_json::from_slice::<Value>(content) else {
                let bytes = image.entries[number].bytes;
                let layer = image.entries[number].layer;
                skipped.push(Skipped { layer, path: path.clone(), bytes, why: "it is no JSON" });
                continue;
            };
            for (folder, package) in lock["packages"].as_object().into_iter().flatten() {
                if package["dev"].as_bool() == Some(true)
                    && let Ok(folder) = RelPath::new(format!("{place}{folder}"))
                {
                    folders.insert(folder);
                }
            }
        }
    }
    folders
}

/// A path below a folder, with `..` followed.
fn joined(place: &str, file: &str) -> Option<String> {
    let mut parts: Vec<&str> = if file.starts_with('/') { Vec::new() } else { place.split('/').collect() };
    for part in file.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

fn text_at(image: &Image, path: &str) -> Option<String> {
    let path = RelPath::new(path).ok()?;
    let content = image.content(image.find(&path)?)?;
    Some(String::from_utf8_lossy(content).into_owned())
}

/// Fields of the paragraphs of a status of dpkg; what is folded is left out.
fn paragraphs(text: &str) -> impl Iterator<Item = BTreeMap<&str, &str>> {
    text.split("\n\n").map(|paragraph| {
        let fields = paragraph.lines().filter(|line| !line.starts_with([' ', '\t']));
        fields.filter_map(|line| line.split_once(':')).map(|(key, value)| (key, value.trim())).collect()
    })
}
