//! What images tell of where they come from: the commit, and the version of their package. Rules: docs/formats/cas-toml.md.
//!
//! It enters configurations of images alone, never a step, a layer or a key.

use std::collections::BTreeMap;
use std::path::Path;

use cas_config::{Image, Label, Stamp};
use cas_oci::ImageConfig;
use cas_snapshot::Head;
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

/// Adds to a configuration what its section wants told.
pub(crate) fn stamp(
    workspace: &Workspace,
    variables: &BTreeMap<String, String>,
    label: &Label,
    image: &Image,
    config: &mut ImageConfig,
) -> Result<(), BuildError> {
    if image.stamp.is_empty() {
        return Ok(());
    }
    let head = Head::of(&workspace.root, variables);
    for stamp in &image.stamp {
        match (stamp, &head) {
            (Stamp::Revision, Ok(head)) => {
                config.labels.insert(REVISION.to_owned(), revision(head));
                config.created = Some(rfc3339(head.time));
            }
            (Stamp::Version, head) => {
                let version = version(workspace, label, head.as_ref().ok())?;
                config.labels.insert(VERSION.to_owned(), version);
            }
            // Told once, below.
            (Stamp::Revision, Err(_)) => {}
        }
    }
    match head {
        Err(error) if image.stamp.contains(&Stamp::Revision) => Err(BuildError::Revision(error)),
        _ => Ok(()),
    }
}

/// What stands for what an image would tell, in one of two states that are compared: the commit, and what says the version.
pub(crate) fn words(
    sources: &Sources<'_>,
    variables: &BTreeMap<String, String>,
    label: &Label,
    image: &Image,
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
    if image.stamp.contains(&Stamp::Revision) {
        add_commit(&mut words);
    }
    if image.stamp.contains(&Stamp::Version) {
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

/// A time of the civil calendar, in UTC (days to dates by Howard Hinnant's `civil_from_days`).
pub(crate) fn rfc3339(unix_seconds: i64) -> String {
    let (days, seconds) = (unix_seconds.div_euclid(86_400), unix_seconds.rem_euclid(86_400));
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_dates_of_the_calendar() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (499_162_500, "1985-10-26T08:15:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (-1, "1969-12-31T23:59:59Z"),
        ] {
            assert_eq!(rfc3339(seconds), expected);
        }
    }
}
