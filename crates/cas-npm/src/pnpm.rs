//! `pnpm-lock.yaml` of versions 6 and 9: which packages there are, and what a package of the workspace reaches.
//!
//! A lockfile has *importers*, the packages of the workspace, and *snapshots*, packages of the registry together with
//! what stands for their peers: `name@1.0.0(peer@2.0.0)`. Several snapshots may be of one package. Version 6 has both in
//! one list, with a slash before each name.
//!
//! Not here: where all that is put (`pnpm_layout`).

use std::collections::{BTreeMap, BTreeSet};

use cas_digest::{Digest, DigestFunction};
use cas_tree::RelPath;
use serde::Deserialize;
use serde_json::Value;

use crate::lockfile::{Location, LockedPackage, LockfileError, PackageSource, Part};
use crate::manifest::is_package_name;
use crate::platform::{OneOrMany, fits};
use crate::workspace::resolve;
use crate::yaml::documents;
use crate::{DependencyKind, Integrity, Manifest};

/// Longest lockfile that is read, in bytes. Those of 15,000 packages have 10 MiB.
const MAX_BYTES: usize = 64 << 20;
/// Longest name of a folder in `.pnpm`, as pnpm has it where it is not told another.
const MAX_FOLDER_BYTES: usize = 120;
/// Hexadecimal digits that stand for the rest of a longer one.
const FOLDER_HASH_DIGITS: usize = 32;

/// What a dependency leads to.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    Snapshot(String),
    Member(Location),
}

#[derive(Clone, Debug)]
struct Dependency {
    kind: DependencyKind,
    /// The range of `package.json`.
    specifier: String,
    target: Target,
}

#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    /// Key of its package.
    pub(crate) package: String,
    /// Name of its folder in `.pnpm`.
    pub(crate) folder: String,
    dependencies: BTreeMap<String, Target>,
    /// Names that may be missing.
    optional_dependencies: BTreeSet<String>,
    /// Whether this machine can use it, or must.
    is_usable: bool,
}

/// A lockfile of pnpm.
#[derive(Clone, Debug)]
pub struct PnpmLockfile {
    importers: BTreeMap<Location, BTreeMap<String, Dependency>>,
    snapshots: BTreeMap<String, Snapshot>,
    /// Those that this machine can use, by name and version.
    packages: BTreeMap<String, LockedPackage>,
    /// Names whose ranges the workspace overrides.
    overridden: BTreeSet<String>,
}

mod raw {
    use super::{BTreeMap, Deserialize, OneOrMany, Value};

    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    pub(super) struct Lockfile {
        pub(super) importers: Option<BTreeMap<String, Importer>>,
        #[serde(default)]
        pub(super) packages: BTreeMap<String, Package>,
        pub(super) snapshots: Option<BTreeMap<String, Snapshot>>,
        #[serde(default)]
        pub(super) overrides: BTreeMap<String, Value>,
        // Version 6 has the only importer of a workspace of one package so.
        #[serde(flatten)]
        pub(super) own: Importer,
    }

    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    pub(super) struct Importer {
        pub(super) dependencies: BTreeMap<String, Dependency>,
        pub(super) dev_dependencies: BTreeMap<String, Dependency>,
        pub(super) optional_dependencies: BTreeMap<String, Dependency>,
    }

    #[derive(Deserialize)]
    pub(super) struct Dependency {
        pub(super) specifier: String,
        pub(super) version: String,
    }

    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    pub(super) struct Package {
        pub(super) name: Option<String>,
        pub(super) version: Option<String>,
        pub(super) resolution: Resolution,
        pub(super) os: OneOrMany,
        pub(super) cpu: OneOrMany,
        pub(super) libc: OneOrMany,
        pub(super) has_bin: bool,
        // Version 6 has these here, version 9 in the snapshots.
        #[serde(flatten)]
        pub(super) snapshot: Snapshot,
    }

    #[derive(Clone, Default, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    pub(super) struct Snapshot {
        pub(super) dependencies: BTreeMap<String, String>,
        pub(super) optional_dependencies: BTreeMap<String, String>,
        pub(super) optional: bool,
    }

    #[derive(Default, Deserialize)]
    #[serde(default)]
    pub(super) struct Resolution {
        #[serde(rename = "type")]
        pub(super) kind: Option<String>,
        pub(super) integrity: Option<String>,
        pub(super) tarball: Option<String>,
        pub(super) repo: Option<String>,
        pub(super) directory: Option<String>,
    }
}

/// The two forms of references.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Six,
    Nine,
}

impl Form {
    /// The key of a list without what only one form has.
    fn key(self, key: &str) -> String {
        match self {
            Self::Six => key.strip_prefix('/').unwrap_or(key).to_owned(),
            Self::Nine => key.to_owned(),
        }
    }

    /// What the dependency `name` with this version leads to, if it is in the workspace relative to `folder`.
    fn target(self, folder: &str, name: &str, version: &str) -> Result<Target, LockfileError> {
        if let Some(path) = version.strip_prefix("link:") {
            let member = resolve(folder, path).ok_or_else(|| LockfileError::Path { path: version.to_owned() })?;
            return Ok(Target::Member(member));
        }
        let before_peers = version.split('(').next().unwrap_or(version);
        let is_whole = match self {
            Self::Six => before_peers.starts_with('/'),
            // `other@1.0.0` is a key, `https://host/@scope/x` is not.
            Self::Nine => {
                before_peers.find('@').is_some_and(|at| before_peers.find(':').is_none_or(|colon| at < colon))
            }
        };
        Ok(Target::Snapshot(if is_whole { self.key(version) } else { format!("{name}@{version}") }))
    }
}

impl PnpmLockfile {
    /// Reads a lockfile.
    ///
    /// # Errors
    ///
    /// [`LockfileError`]
    pub fn parse(bytes: &[u8]) -> Result<Self, LockfileError> {
        if bytes.len() > MAX_BYTES {
            return Err(LockfileError::TooLong);
        }
        let text = String::from_utf8_lossy(bytes);
        // What stands before the last document is about pnpm itself.
        let document = documents(text.strip_prefix('\u{feff}').unwrap_or(&text))?.pop().unwrap_or_default();
        // A version that is not known may be of any shape.
        let version = document.get("lockfileVersion").and_then(Value::as_str).unwrap_or_default();
        let form = match version.split('.').next() {
            Some("6") => Form::Six,
            Some("9") => Form::Nine,
            _ => return Err(LockfileError::PnpmVersion { version: version.to_owned() }),
        };
        let raw: raw::Lockfile = serde_json::from_value(document)?;
        let mut locked = BTreeMap::new();
        let mut inline = BTreeMap::new();
        let mut fitting = BTreeMap::new();
        for (key, package) in raw.packages {
            let key = form.key(&key);
            let id = without_peers(&key).to_owned();
            fitting.insert(id.clone(), fits(&package.os, &package.cpu, &package.libc));
            if form == Form::Six {
                inline.insert(key, package.snapshot.clone());
            }
            let package = Self::package(&id, package)?;
            locked.insert(id, package);
        }
        let mut snapshots = BTreeMap::new();
        for (key, snapshot) in raw.snapshots.unwrap_or(inline) {
            let id = without_peers(&key);
            if key.contains("(patch_hash=") {
                return Err(LockfileError::Patched { location: id.to_owned() });
            }
            if !locked.contains_key(id) {
                return Err(LockfileError::Unmet { location: key.clone(), dependency: id.to_owned() });
            }
            let mut dependencies = BTreeMap::new();
            for (name, version) in snapshot.dependencies.iter().chain(&snapshot.optional_dependencies) {
                known_name(name)?;
                dependencies.insert(name.clone(), form.target("", name, version)?);
            }
            let is_usable = fitting[id] || !snapshot.optional;
            let optional_dependencies = snapshot.optional_dependencies.into_keys().collect();
            let (package, folder) = (id.to_owned(), folder_name(&key));
            snapshots.insert(key, Snapshot { package, folder, dependencies, optional_dependencies, is_usable });
        }
        let usable: BTreeSet<&str> = snapshots
            .values()
            .filter(|snapshot| snapshot.is_usable)
            .map(|snapshot| snapshot.package.as_str())
            .collect();
        let packages = locked.into_iter().filter(|(id, _)| usable.contains(id.as_str())).collect();
        let mut importers = BTreeMap::new();
        for (folder, importer) in raw.importers.unwrap_or_else(|| BTreeMap::from([(".".to_owned(), raw.own)])) {
            let folder = if folder == "." { String::new() } else { folder };
            if !folder.is_empty() && RelPath::new(&folder).is_err() {
                return Err(LockfileError::Path { path: folder });
            }
            let dependencies = Self::importer(form, &folder, importer)?;
            importers.insert(folder, dependencies);
        }
        // A key of `overrides` is a name with a range of it, or of one that it is for: `a>b@1`.
        let name = |key: &String| {
            let last = key.rsplit('>').next().unwrap_or(key);
            let end = last.get(1..).and_then(|rest| rest.find('@')).map_or(last.len(), |at| at + 1);
            last[..end].to_owned()
        };
        let overridden = raw.overrides.keys().map(name).collect();
        Ok(Self { importers, snapshots, packages, overridden })
    }

    fn importer(form: Form, folder: &str, raw: raw::Importer) -> Result<BTreeMap<String, Dependency>, LockfileError> {
        let mut dependencies = BTreeMap::new();
        for (kind, section) in [
            (DependencyKind::Development, raw.dev_dependencies),
            (DependencyKind::Production, raw.dependencies),
            (DependencyKind::Optional, raw.optional_dependencies),
        ] {
            for (name, raw::Dependency { specifier, version }) in section {
                known_name(&name)?;
                let target = form.target(folder, &name, &version)?;
                dependencies.insert(name, Dependency { kind, specifier, target });
            }
        }
        Ok(dependencies)
    }

    fn package(id: &str, raw: raw::Package) -> Result<LockedPackage, LockfileError> {
        let location = || id.to_owned();
        let unsupported = |source_url: String| LockfileError::Source { location: location(), source_url };
        let (name, version) = match id.get(1..).and_then(|rest| rest.find('@')) {
            Some(at) => (&id[..=at], &id[at + 2..]),
            None => return Err(LockfileError::Path { path: location() }),
        };
        let name = raw.name.unwrap_or_else(|| name.to_owned());
        known_name(&name)?;
        let raw::Resolution { kind, integrity, tarball, repo, directory } = raw.resolution;
        if let Some(kind) = kind {
            return Err(unsupported(
                repo.or(directory).map_or_else(|| kind.clone(), |place| format!("{kind} {place}")),
            ));
        }
        let source = match tarball {
            None => PackageSource::Registry,
            Some(url) if url.starts_with("https://") || url.starts_with("http://") => PackageSource::Url(url),
            Some(other) => return Err(unsupported(other)),
        };
        let integrity: Integrity = integrity
            .ok_or_else(|| LockfileError::Missing { location: location(), what: "integrity" })?
            .parse()
            .map_err(|source| LockfileError::Integrity { location: location(), source })?;
        let version = raw.version.unwrap_or_else(|| version.to_owned());
        if source == PackageSource::Registry
            && (version.is_empty() || version.contains(['/', '\\', '?', '#', '%', ':']))
        {
            return Err(unsupported(version));
        }
        let (bin, has_unnamed_programs, is_bound) = (BTreeMap::new(), raw.has_bin, !raw.cpu.is_empty());
        Ok(LockedPackage { name, version, source, integrity, bin, has_unnamed_programs, is_bound })
    }

    /// Every package that this machine can use, by name and version.
    pub fn packages(&self) -> impl Iterator<Item = (&String, &LockedPackage)> {
        self.packages.iter()
    }

    /// Folders of the packages of the workspace.
    pub fn members(&self) -> impl Iterator<Item = &Location> {
        self.importers.keys()
    }

    /// Checks that the lockfile was made for this `package.json` of the package in `folder` (empty for the lockfile's own).
    ///
    /// # Errors
    ///
    /// [`LockfileError::Stale`], [`LockfileError::Unmet`] for a package that it does not have.
    pub fn check(&self, folder: &str, manifest: &Manifest) -> Result<(), LockfileError> {
        let (_, importer) = self.importer_of(folder, manifest.name.as_deref().unwrap_or(folder))?;
        let package = || if folder.is_empty() { "package.json".to_owned() } else { format!("{folder}/package.json") };
        let mut left: BTreeSet<&str> = importer.keys().map(String::as_str).collect();
        for kind in DependencyKind::ALL {
            for (name, range) in &manifest.dependencies[&kind] {
                let is_elsewhere = DependencyKind::ALL
                    .iter()
                    .any(|other| *other != kind && manifest.dependencies[other].contains_key(name));
                let found = importer.get(&**name);
                left.remove(&**name);
                let is_same = match found {
                    // Peers are there when pnpm installs them by itself.
                    None => kind == DependencyKind::Peer,
                    Some(found) => found.specifier == **range || is_elsewhere || self.overridden.contains(&**name),
                };
                if !is_same {
                    return Err(LockfileError::Stale { package: package(), section: kind.section() });
                }
            }
        }
        match left.first() {
            None => Ok(()),
            Some(name) => Err(LockfileError::Stale { package: package(), section: importer[*name].kind.section() }),
        }
    }

    fn importer_of(&self, folder: &str, name: &str) -> Result<(&String, &BTreeMap<String, Dependency>), LockfileError> {
        let unmet = || LockfileError::Unmet { location: ".".to_owned(), dependency: name.to_owned() };
        self.importers.get_key_value(folder).ok_or_else(unmet)
    }

    /// What the package in `folder` depends on itself; that of others without what their developers need.
    fn direct(&self, folder: &str, kinds: &[DependencyKind]) -> Result<Direct<'_>, LockfileError> {
        let mut direct = BTreeMap::new();
        for (name, dependency) in self.importer_of(folder, folder)?.1 {
            let is_optional = dependency.kind == DependencyKind::Optional;
            if kinds.contains(&dependency.kind) && self.is_there(folder, name, &dependency.target, is_optional)? {
                direct.insert(name.as_str(), &dependency.target);
            }
        }
        Ok(direct)
    }

    /// Whether a dependency is installed: packages that are optional and not for this machine are not.
    fn is_there(&self, from: &str, name: &str, target: &Target, is_optional: bool) -> Result<bool, LockfileError> {
        match target {
            Target::Member(member) if self.importers.contains_key(member) => Ok(true),
            Target::Member(member) => Err(LockfileError::Link { location: from.to_owned(), target: member.clone() }),
            Target::Snapshot(key) => match self.snapshots.get(key) {
                Some(snapshot) => Ok(snapshot.is_usable),
                None if is_optional => Ok(false),
                None => Err(LockfileError::Unmet { location: from.to_owned(), dependency: name.to_owned() }),
            },
        }
    }

    /// Everything that the package in `folder` reaches, nearest first.
    pub(crate) fn reach(&self, folder: &str, part: Part) -> Result<Reach<'_>, LockfileError> {
        use DependencyKind::{Development, Optional, Production};
        let own: &[DependencyKind] = match part {
            Part::All => &[Production, Optional, Development],
            Part::Production => &[Production, Optional],
        };
        let mut reach = Reach::default();
        let mut seen: BTreeSet<&str> = BTreeSet::new();
        let mut members: Vec<(&str, &[DependencyKind])> = Vec::new();
        let mut next: BTreeSet<&str> = BTreeSet::new();
        let (folder, _) = self.importer_of(folder, folder)?;
        members.push((folder, own));
        loop {
            while let Some((member, kinds)) = members.pop() {
                if reach.members.contains_key(member) {
                    continue;
                }
                let direct = self.direct(member, kinds)?;
                for target in direct.values() {
                    match target {
                        Target::Member(other) => members.push((other, &[Production, Optional])),
                        Target::Snapshot(key) => drop(next.insert(key)),
                    }
                }
                reach.members.insert(member, direct);
            }
            if next.is_empty() {
                return Ok(reach);
            }
            // In each round those that are one step further away, by name.
            for key in std::mem::take(&mut next) {
                if !seen.insert(key) {
                    continue;
                }
                let snapshot = &self.snapshots[key];
                let mut direct = BTreeMap::new();
                for (name, target) in &snapshot.dependencies {
                    if self.is_there(key, name, target, snapshot.optional_dependencies.contains(name))? {
                        direct.insert(name.as_str(), target);
                        match target {
                            // A peer that the workspace itself provides.
                            Target::Member(other) => members.push((other, &[Production, Optional])),
                            Target::Snapshot(other) => drop(next.insert(other)),
                        }
                    }
                }
                reach.snapshots.push((snapshot, direct));
            }
        }
    }

    /// A snapshot that something reached leads to.
    pub(crate) fn snapshot(&self, key: &str) -> &Snapshot {
        &self.snapshots[key]
    }

    /// Name of the package of a snapshot that is usable.
    pub(crate) fn name_of(&self, snapshot: &Snapshot) -> &str {
        &self.packages[&snapshot.package].name
    }
}

/// What something depends on, by the names that it uses.
pub(crate) type Direct<'a> = BTreeMap<&'a str, &'a Target>;

/// What a package reaches.
#[derive(Default)]
pub(crate) struct Reach<'a> {
    /// Packages of the workspace, itself too, with what each depends on.
    pub(crate) members: BTreeMap<&'a str, Direct<'a>>,
    /// Packages of the registry, nearest first.
    pub(crate) snapshots: Vec<(&'a Snapshot, Direct<'a>)>,
}

/// A key without what stands for peers.
fn without_peers(key: &str) -> &str {
    key.split('(').next().unwrap_or(key)
}

fn known_name(name: &str) -> Result<(), LockfileError> {
    if is_package_name(name) { Ok(()) } else { Err(LockfileError::Path { path: name.to_owned() }) }
}

/// The folder of a snapshot, as pnpm names it.
fn folder_name(key: &str) -> String {
    let mut name: String = key
        .chars()
        .map(|c| if matches!(c, '\\' | '/' | ':' | '*' | '?' | '"' | '<' | '>' | '|' | '#') { '+' } else { c })
        .collect();
    if name.contains('(') {
        name = name.strip_suffix(')').unwrap_or(&name).replace(")(", "_").replace(['(', ')'], "_");
    }
    if name.len() > MAX_FOLDER_BYTES || name.chars().any(char::is_uppercase) {
        let digest = Digest::of(DigestFunction::Sha256, name.as_bytes()).to_hex();
        let mut end = name.len().min(MAX_FOLDER_BYTES - FOLDER_HASH_DIGITS - 1);
        while !name.is_char_boundary(end) {
            end -= 1;
        }
        name = format!("{}_{}", &name[..end], &digest[..FOLDER_HASH_DIGITS]);
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The folders that pnpm 12.4 and 10.34 made.
    #[test]
    fn folders_have_the_names_that_pnpm_gives_them() {
        for (key, expected) in [
            ("lodash@4.17.21", "lodash@4.17.21"),
            ("@esbuild/linux-x64@0.21.5", "@esbuild+linux-x64@0.21.5"),
            ("use-sync-external-store@1.2.0(react@18.2.0)", "use-sync-external-store@1.2.0_react@18.2.0"),
            ("a@1.0.0(@b/c@1.0.0(d@2.0.0))(e@1.0.0)", "a@1.0.0_@b+c@1.0.0_d@2.0.0__e@1.0.0"),
        ] {
            assert_eq!(folder_name(key), expected);
        }
        assert_eq!(folder_name("JSONStream@1.3.5"), "JSONStream@1.3.5_fb8f73c374dcf7070ffed90b688edabd");
        assert_eq!(folder_name(&format!("x@1.0.0({})", "a".repeat(200))).len(), MAX_FOLDER_BYTES);
    }

    #[test]
    fn references_are_read_in_both_forms() {
        let text = |form: Form, name: &str, version: &str| match form.target("apps/web", name, version) {
            Ok(Target::Snapshot(key)) => key,
            Ok(Target::Member(member)) => format!("member {member}"),
            Err(error) => error.to_string(),
        };
        for (form, version, expected) in [
            (Form::Nine, "1.0.0", "x@1.0.0"),
            (Form::Nine, "1.0.0(@s/p@2.0.0)", "x@1.0.0(@s/p@2.0.0)"),
            (Form::Nine, "lodash@4.0.0", "lodash@4.0.0"),
            (Form::Nine, "@s/y@4.0.0(p@1.0.0)", "@s/y@4.0.0(p@1.0.0)"),
            (Form::Nine, "https://host/@s/x.tgz", "x@https://host/@s/x.tgz"),
            (Form::Six, "1.0.0(@s/p@2.0.0)", "x@1.0.0(@s/p@2.0.0)"),
            (Form::Six, "/@s/y@4.0.0", "@s/y@4.0.0"),
            (Form::Six, "link:../../libs/ui", "member libs/ui"),
            (Form::Nine, "link:../..", "member "),
            (Form::Nine, "link:../../..", "it names the path `link:../../..`"),
        ] {
            assert_eq!(text(form, "x", version), expected, "{version}");
        }
    }
}
