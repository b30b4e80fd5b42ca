//! What images and artifacts tell of where they come from: the commit, and the version of their package. Rules:
//! docs/formats/cas-toml.md.
//!
//! It enters configurations of images and manifests of artifacts alone, never a step, a layer or a key.

use std::collections::BTreeMap;
use std::path::Path;

use cas_config::{Image, Label, Stamp};
use cas_oci::ImageConfig;
use cas_snapshot::Head;
use cas_time::rfc3339;
use cas_tree::RelPath;

use crate::inputs::{Sources, in_package};
use crate::trace::Trace;
use crate::{BuildError, Workspace};

/// Labels of the OCI image specification 1.1, annotations.md.
const REVISION: &str = "org.opencontainers.image.revision";
const VERSION: &str = "org.opencontainers.image.version";
/// Behind the name of a commit when the working tree has something else.
const CHANGED: &str = "-changed";
/// Longest manifest that is read.
const MAX_BYTES: u64 = 1 << 20;

/// What is told.
#[derive(Default)]
pub(crate) struct Told {
    /// By the names that labels and annotations share.
    pub(crate) labels: BTreeMap<String, String>,
    /// When the commit was made.
    pub(crate) created: Option<String>,
}

/// Adds to a configuration what its section wants told.
pub(crate) fn stamp(
    workspace: &Workspace,
    variables: &BTreeMap<String, String>,
    label: &Label,
    image: &Image,
    config: &mut ImageConfig,
) -> Result<(), BuildError> {
    let told = told(workspace, variables, label, &image.stamp)?;
    config.labels.extend(told.labels);
    config.created = told.created.or(config.created.take());
    Ok(())
}

/// What a target wants told.
pub(crate) fn told(
    workspace: &Workspace,
    variables: &BTreeMap<String, String>,
    label: &Label,
    stamps: &[Stamp],
) -> Result<Told, BuildError> {
    let mut told = Told::default();
    if stamps.is_empty() {
        return Ok(told);
    }
    let head = Head::of(&workspace.root, variables);
    for stamp in stamps {
        match (stamp, &head) {
            (Stamp::Revision, Ok(head)) => {
                told.labels.insert(REVISION.to_owned(), revision(head));
                told.created = Some(rfc3339(head.time));
            }
            (Stamp::Version, head) => {
                let version = version(workspace, label, head.as_ref().ok())?;
                told.labels.insert(VERSION.to_owned(), version);
            }
            // Told once, below.
            (Stamp::Revision, Err(_)) => {}
        }
    }
    match head {
        Err(error) if stamps.contains(&Stamp::Revision) => Err(BuildError::Revision(error)),
        _ => Ok(told),
    }
}

/// What stands for what a target would tell, in one of two states that are compared: the commit, and what says the version.
pub(crate) fn words(
    sources: &Sources<'_>,
    variables: &BTreeMap<String, String>,
    label: &Label,
    stamps: &[Stamp],
) -> Result<Trace, BuildError> {
    let workspace = sources.workspace;
    let mut words = Trace::default();
    let add_commit = |words: &mut Trace| {
        let commit = match &workspace.commit {
            Some(commit) => commit.clone(),
            None => Head::of(&workspace.root, variables).map_or_else(|error| error.to_string(), |head| revision(&head)),
        };
        words.add("commit", "", commit);
    };
    if stamps.contains(&Stamp::Revision) {
        add_commit(&mut words);
    }
    if stamps.contains(&Stamp::Version) {
        let said = own_versions(workspace, label);
        let manifest = RelPath::new("Cargo.toml").expect("it is a name");
        let manifests = [manifest.clone(), in_package(label.package.as_ref(), &manifest)];
        let picked = sources.snapshot.pick(&manifests)?;
        if said.is_empty() {
            // A `Cargo.toml` may say none, and then the nearest tag counts.
            add_commit(&mut words);
        }
        for (file, version) in said {
            words.add("version", file, version);
        }
        words.add("version", "Cargo.toml", sources.snapshot.fingerprint(&picked)?.to_string());
    }
    Ok(words)
}

fn own_versions(workspace: &Workspace, label: &Label) -> Vec<(&'static str, String)> {
    let Some(found) = workspace.packages.get(&label.package) else { return Vec::new() };
    let npm = found.npm.as_ref().and_then(|manifest| manifest.version.as_deref());
    let own = found.manifest.version.clone().map(|version| ("cas.toml", version));
    own.into_iter().chain(npm.map(|version| ("package.json", version.to_owned()))).collect()
}

/// The version of a target's package, as images tell it.
///
/// # Errors
///
/// [`BuildError::NoVersion`], [`BuildError::TwoOwnVersions`].
pub fn version_of(
    workspace: &Workspace,
    variables: &BTreeMap<String, String>,
    label: &Label,
) -> Result<String, BuildError> {
    version(workspace, label, Head::of(&workspace.root, variables).ok().as_ref())
}

/// The commit that the working tree is at, and whether that has something else.
///
/// # Errors
///
/// [`BuildError::Revision`] where there is none.
pub fn commit_of(workspace: &Workspace, variables: &BTreeMap<String, String>) -> Result<(String, bool), BuildError> {
    let head = Head::of(&workspace.root, variables).map_err(BuildError::Revision)?;
    Ok((head.commit, head.is_changed))
}

/// What is told of the commit that the working tree is at.
fn revision(head: &Head) -> String {
    format!("{}{}", head.commit, if head.is_changed { CHANGED } else { "" })
}

/// The version of a package: of its `cas.toml`, `package.json` or `Cargo.toml`, which have to agree; else by the nearest tag.
fn version(workspace: &Workspace, label: &Label, head: Option<&Head>) -> Result<String, BuildError> {
    let package = label.package.as_ref();
    let mut said = own_versions(workspace, label);
    said.extend(cargo_version(&workspace.root, package)?.map(|version| ("Cargo.toml", version)));
    if let [(one, version), others @ ..] = said.as_slice() {
        if let Some((other, another)) = others.iter().find(|(_, another)| another != version) {
            return Err(BuildError::TwoOwnVersions {
                label: label.to_string(),
                one: format!("{version} in `{one}`"),
                other: format!("{another} in `{other}`"),
            });
        }
        return Ok(version.clone());
    }
    let tag = head.and_then(|head| Some((head, head.tag.as_ref()?)));
    let tagged = tag.and_then(|(head, (tag, count))| {
        let version = tag.strip_prefix('v').unwrap_or(tag);
        cas_config::is_version(version).then(|| match count {
            0 => version.to_owned(),
            // What tells of the build has no part in the order of versions.
            count => {
                let sign = if version.contains('+') { '.' } else { '+' };
                format!("{version}{sign}{count}.g{}", &head.commit[..head.commit.len().min(12)])
            }
        })
    });
    tagged.ok_or_else(|| BuildError::NoVersion { label: label.to_string() })
}

fn cargo_version(root: &Path, package: Option<&RelPath>) -> Result<Option<String>, BuildError> {
    let read = |path: &Path| match cas_fs::read_limited(path, MAX_BYTES) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(BuildError::Fs(error)),
    };
    let of_root = read(&root.join("Cargo.toml"))?;
    let Some(package) = package else {
        return Ok(of_root.and_then(|text| cas_cargo::package_version(&text, None)));
    };
    let own = read(&root.join(package.to_string()).join("Cargo.toml"))?;
    Ok(own.and_then(|text| cas_cargo::package_version(&text, of_root.as_deref())))
}
