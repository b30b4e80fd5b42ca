//! `package-lock.json` of versions 2 and 3: which packages are where, and what a package of the workspace reaches.

use std::collections::{BTreeMap, BTreeSet};

use cas_tree::RelPath;
use serde::Deserialize;

use crate::manifest::is_package_name;
use crate::platform::fits;
use crate::yaml::YamlError;
use crate::{DependencyKind, Integrity, IntegrityError, Manifest};

/// Longest lockfile that is read, in bytes.
const MAX_BYTES: usize = 256 << 20;
/// The folder of installed packages.
pub(crate) const MODULES: &str = "node_modules";

/// Where a package is, from the lockfile's folder on: `node_modules/x`, `apps/web`; empty for the folder itself.
pub type Location = String;

/// What of a package's dependencies is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// What it needs to run.
    Production,
    /// What its developers need, too.
    All,
}

/// A package that is fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockedPackage {
    /// Its name in the registry.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Where it comes from.
    pub source: PackageSource,
    /// What its tarball must be.
    pub integrity: Integrity,
    /// Programs: name and path in the package. Empty for pnpm.
    pub bin: BTreeMap<String, String>,
    /// Whether it has programs that the lockfile does not name.
    pub has_unnamed_programs: bool,
    /// Whether it is for some processors alone.
    pub is_bound: bool,
}

/// Where a tarball comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PackageSource {
    /// The registry, by name and version.
    Registry,
    /// A registry that the lockfile names, or any other address.
    Url(String),
}

#[derive(Clone, Debug)]
enum Kind {
    /// The folder of a package of the workspace.
    Member,
    /// A link to such a folder.
    Link { target: Location },
    /// A package from elsewhere.
    Package(LockedPackage),
    /// What another package's tarball holds.
    Bundled,
}

#[derive(Clone, Debug)]
struct Entry {
    kind: Kind,
    dependencies: BTreeMap<DependencyKind, BTreeMap<String, String>>,
    /// Peers that may be missing.
    optional_peers: BTreeSet<String>,
    /// Whether this machine can use it.
    fits: bool,
    optional: bool,
    bin: BTreeMap<String, String>,
}

/// A lockfile.
#[derive(Clone, Debug)]
pub struct Lockfile {
    entries: BTreeMap<Location, Entry>,
}

/// Why a lockfile cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LockfileError {
    /// It is longer than any real one.
    #[error("it is longer than {MAX_BYTES} bytes")]
    TooLong,
    /// It is not JSON of this shape.
    #[error("it is not a lockfile of this kind")]
    Syntax(#[from] serde_json::Error),
    /// It is not YAML as pnpm writes it.
    #[error(transparent)]
    Yaml(#[from] YamlError),
    /// Another version.
    #[error("it has version {version}; known are 2 and 3, which npm 7 and later write")]
    Version {
        /// The version.
        version: u64,
    },
    /// Another version of pnpm's.
    #[error("it has version `{version}`; known are 6 and 9, which pnpm 8 and later write")]
    PnpmVersion {
        /// The version.
        version: String,
    },
    /// A path that is not below the lockfile's folder, or is no place of a package.
    #[error("it names the path `{path}`")]
    Path {
        /// The path.
        path: String,
    },
    /// A link whose folder has no entry.
    #[error("`{location}` links to `{target}`, which it does not have")]
    Link {
        /// The link.
        location: Location,
        /// Where to.
        target: String,
    },
    /// A package without what is needed to fetch it.
    #[error("`{location}` has no {what}")]
    Missing {
        /// The package.
        location: Location,
        /// What is missing.
        what: &'static str,
    },
    /// An integrity that is not one.
    #[error("`{location}` has a bad integrity")]
    Integrity {
        /// The package.
        location: Location,
        /// Why.
        source: IntegrityError,
    },
    /// A package from a place that is not supported.
    #[error("`{location}` comes from `{source_url}`, which is not supported")]
    Source {
        /// The package.
        location: Location,
        /// The place.
        source_url: String,
    },
    /// A package that is changed after it was fetched.
    #[error("`{location}` is patched by `patchedDependencies`, which is not supported")]
    Patched {
        /// The package.
        location: Location,
    },
    /// One folder cannot hold both.
    #[error("{places} would be at one place")]
    TwoVersions {
        /// Two places of the lockfile.
        places: String,
    },
    /// It does not have what a package needs.
    #[error("it is out of date: `{location}` needs `{dependency}`, which it does not have")]
    Unmet {
        /// The package.
        location: Location,
        /// What it needs.
        dependency: String,
    },
    /// It was made for another `package.json`.
    #[error("it is out of date: `{section}` of `{package}` is another now")]
    Stale {
        /// The `package.json`.
        package: String,
        /// The section.
        section: &'static str,
    },
}

mod raw {
    use super::{BTreeMap, Deserialize};
    use crate::platform::OneOrMany;

    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    pub(super) struct Lockfile {
        #[serde(default)]
        pub(super) lockfile_version: u64,
        #[serde(default)]
        pub(super) packages: BTreeMap<String, Entry>,
    }

    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    pub(super) struct Entry {
        pub(super) name: Option<String>,
        pub(super) version: Option<String>,
        pub(super) resolved: Option<String>,
        pub(super) integrity: Option<String>,
        pub(super) link: bool,
        pub(super) in_bundle: bool,
        pub(super) optional: bool,
        pub(super) dev_optional: bool,
        pub(super) dependencies: BTreeMap<String, String>,
        pub(super) dev_dependencies: BTreeMap<String, String>,
        pub(super) optional_dependencies: BTreeMap<String, String>,
        pub(super) peer_dependencies: BTreeMap<String, String>,
        pub(super) peer_dependencies_meta: BTreeMap<String, PeerMeta>,
        pub(super) os: OneOrMany,
        pub(super) cpu: OneOrMany,
        pub(super) libc: OneOrMany,
        pub(super) bin: Bin,
    }

    #[derive(Default, Deserialize)]
    pub(super) struct PeerMeta {
        #[serde(default)]
        pub(super) optional: bool,
    }

    #[derive(Deserialize)]
    #[serde(untagged)]
    pub(super) enum Bin {
        One(String),
        Many(BTreeMap<String, String>),
    }

    impl Default for Bin {
        fn default() -> Self {
            Self::Many(BTreeMap::new())
        }
    }
}

impl Lockfile {
    /// Reads a lockfile.
    ///
    /// # Errors
    ///
    /// [`LockfileError`]
    pub fn parse(bytes: &[u8]) -> Result<Self, LockfileError> {
        if bytes.len() > MAX_BYTES {
            return Err(LockfileError::TooLong);
        }
        let raw: raw::Lockfile = serde_json::from_slice(bytes)?;
        if !matches!(raw.lockfile_version, 2 | 3) {
            return Err(LockfileError::Version { version: raw.lockfile_version });
        }
        let mut entries = BTreeMap::new();
        for (location, entry) in raw.packages {
            if !location.is_empty() && RelPath::new(&location).is_err() {
                return Err(LockfileError::Path { path: location });
            }
            let entry = Self::entry(&location, entry)?;
            entries.insert(location, entry);
        }
        for (location, entry) in &entries {
            if let Kind::Link { target } = &entry.kind
                && !entries.contains_key(target)
            {
                return Err(LockfileError::Link { location: location.clone(), target: target.clone() });
            }
        }
        Ok(Self { entries })
    }

    fn entry(location: &str, raw: raw::Entry) -> Result<Entry, LockfileError> {
        let fits = fits(&raw.os, &raw.cpu, &raw.libc);
        let is_bound = !raw.cpu.is_empty();
        let installed_name = name_at(location);
        if location.contains(MODULES) && installed_name.is_none() {
            return Err(LockfileError::Path { path: location.to_owned() });
        }
        let bin: BTreeMap<String, String> = match raw.bin {
            raw::Bin::Many(bin) => bin,
            raw::Bin::One(path) => {
                let name = installed_name.map_or(location, |name| name.rsplit('/').next().unwrap_or(name));
                BTreeMap::from([(name.to_owned(), path)])
            }
        };
        for (name, path) in &bin {
            if name.contains('/') || RelPath::new(name).is_err() || clean(path).is_none() {
                return Err(LockfileError::Path { path: path.clone() });
            }
        }
        let kind = match installed_name {
            None => Kind::Member,
            Some(_) if raw.link => {
                let target = raw.resolved.unwrap_or_default();
                if !target.is_empty() && RelPath::new(&target).is_err() {
                    return Err(LockfileError::Path { path: target });
                }
                Kind::Link { target }
            }
            Some(_) if raw.in_bundle => Kind::Bundled,
            Some(installed_name) => {
                let missing = |what| LockfileError::Missing { location: location.to_owned(), what };
                let name = raw.name.unwrap_or_else(|| installed_name.to_owned());
                if !is_package_name(&name) {
                    return Err(LockfileError::Path { path: name });
                }
                let source = match raw.resolved {
                    None => PackageSource::Registry,
                    Some(url) if url.starts_with("https://") || url.starts_with("http://") => PackageSource::Url(url),
                    Some(source_url) => {
                        return Err(LockfileError::Source { location: location.to_owned(), source_url });
                    }
                };
                let integrity = raw
                    .integrity
                    .ok_or_else(|| missing("integrity"))?
                    .parse()
                    .map_err(|source| LockfileError::Integrity { location: location.to_owned(), source })?;
                let version = raw.version.ok_or_else(|| missing("version"))?;
                if version.contains(['/', '\\', '?', '#', '%']) {
                    return Err(LockfileError::Path { path: version });
                }
                let bin = bin.clone();
                let has_unnamed_programs = false;
                Kind::Package(LockedPackage { name, version, source, integrity, bin, has_unnamed_programs, is_bound })
            }
        };
        let dependencies = BTreeMap::from([
            (DependencyKind::Production, raw.dependencies),
            (DependencyKind::Development, raw.dev_dependencies),
            (DependencyKind::Optional, raw.optional_dependencies),
            (DependencyKind::Peer, raw.peer_dependencies),
        ]);
        let optional_peers =
            raw.peer_dependencies_meta.into_iter().filter(|(_, meta)| meta.optional).map(|(name, _)| name).collect();
        Ok(Entry { kind, dependencies, optional_peers, fits, optional: raw.optional || raw.dev_optional, bin })
    }

    /// Every package that this machine can use, by place.
    pub fn packages(&self) -> impl Iterator<Item = (&Location, &LockedPackage)> {
        self.entries.iter().filter_map(|(location, entry)| match &entry.kind {
            Kind::Package(package) if entry.fits || !entry.optional => Some((location, package)),
            _ => None,
        })
    }

    /// Checks that the lockfile was made for this `package.json` of the package in `folder` (empty for the lockfile's own).
    ///
    /// # Errors
    ///
    /// [`LockfileError::Stale`], [`LockfileError::Unmet`] for a package that it does not have.
    pub fn check(&self, folder: &str, manifest: &Manifest) -> Result<(), LockfileError> {
        let Some(entry) = self.entries.get(folder) else {
            let dependency = manifest.name.as_deref().unwrap_or(folder).to_owned();
            return Err(LockfileError::Unmet { location: String::new(), dependency });
        };
        for kind in DependencyKind::ALL {
            // npm has optional dependencies in one section of the lockfile only.
            let optional = &manifest.dependencies[&DependencyKind::Optional];
            let now = manifest.dependencies[&kind]
                .iter()
                .filter(|(name, _)| kind != DependencyKind::Production || !optional.contains_key(*name))
                .map(|(name, range)| (&**name, &**range));
            let then = entry.dependencies[&kind].iter().map(|(name, range)| (name.as_str(), range.as_str()));
            if !now.eq(then) {
                let package =
                    if folder.is_empty() { "package.json".to_owned() } else { format!("{folder}/package.json") };
                return Err(LockfileError::Stale { package, section: kind.section() });
            }
        }
        Ok(())
    }

    /// What the package in `folder` reaches: places of packages and links.
    ///
    /// Packages that are optional and not for this machine are left out.
    ///
    /// # Errors
    ///
    /// [`LockfileError::Unmet`]
    pub fn reached(&self, folder: &str, part: Part) -> Result<BTreeSet<&Location>, LockfileError> {
        use DependencyKind::{Development, Optional, Peer, Production};
        let mut reached = BTreeSet::new();
        let mut open: Vec<(&str, &[DependencyKind])> = match part {
            Part::All => vec![(folder, &[Production, Optional, Peer, Development])],
            Part::Production => vec![(folder, &[Production, Optional, Peer])],
        };
        let mut seen = BTreeSet::from([folder]);
        while let Some((from, kinds)) = open.pop() {
            let Some(entry) = self.entries.get(from) else {
                return Err(LockfileError::Unmet { location: String::new(), dependency: from.to_owned() });
            };
            for kind in kinds {
                for dependency in entry.dependencies[kind].keys() {
                    let optional = *kind == Optional
                        || (*kind == Peer && entry.optional_peers.contains(dependency))
                        || entry.dependencies[&Optional].contains_key(dependency);
                    let Some((location, found)) = self.find(from, dependency) else {
                        if optional {
                            continue;
                        }
                        let location = from.to_owned();
                        return Err(LockfileError::Unmet { location, dependency: dependency.clone() });
                    };
                    if !found.fits && found.optional {
                        continue;
                    }
                    reached.insert(location);
                    let next = match &found.kind {
                        Kind::Link { target } => target,
                        _ => location,
                    };
                    if seen.insert(next) {
                        open.push((next, &[Production, Optional, Peer]));
                    }
                }
            }
        }
        Ok(reached)
    }

    /// Looks for a dependency as Node does: in the package's own `node_modules`, then in those of the folders above.
    fn find(&self, from: &str, dependency: &str) -> Option<(&Location, &Entry)> {
        let mut folder = from;
        loop {
            let name = if folder.is_empty() {
                format!("{MODULES}/{dependency}")
            } else {
                format!("{folder}/{MODULES}/{dependency}")
            };
            if !folder.ends_with(MODULES)
                && let Some(found) = self.entries.get_key_value(&name)
            {
                return Some(found);
            }
            if folder.is_empty() {
                return None;
            }
            folder = folder.rsplit_once('/').map_or("", |(above, _)| above);
        }
    }

    /// The package at a place.
    #[must_use]
    pub fn package(&self, location: &str) -> Option<&LockedPackage> {
        match &self.entries.get(location)?.kind {
            Kind::Package(package) => Some(package),
            _ => None,
        }
    }

    /// The folder that a place links to.
    #[must_use]
    pub fn link_target(&self, location: &str) -> Option<&str> {
        match &self.entries.get(location)?.kind {
            Kind::Link { target } => Some(target),
            _ => None,
        }
    }

    /// Programs of what is at a place: name, and clean path in the package.
    #[must_use]
    pub fn programs(&self, location: &str) -> Vec<(String, String)> {
        let Some(entry) = self.entries.get(location) else { return Vec::new() };
        let entry = match &entry.kind {
            Kind::Link { target } => &self.entries[target],
            _ => entry,
        };
        entry.bin.iter().filter_map(|(name, path)| Some((name.clone(), clean(path)?))).collect()
    }
}

/// The name of the package at a place: what follows the last `node_modules/`.
fn name_at(location: &str) -> Option<&str> {
    let after = match location.rfind(&format!("/{MODULES}/")) {
        Some(at) => &location[at + MODULES.len() + 2..],
        None => location.strip_prefix(MODULES)?.strip_prefix('/')?,
    };
    is_package_name(after).then_some(after)
}

/// A path in a package without `./`; `None` if it leaves the package.
pub(crate) fn clean(path: &str) -> Option<String> {
    let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    (!parts.is_empty() && !parts.contains(&"..")).then(|| parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(packages: &str) -> Result<Lockfile, LockfileError> {
        let integrity = Integrity(cas_digest::Digest::of(cas_digest::DigestFunction::Sha512, b"x"));
        let packages = packages.replace("OK", &format!("\"version\": \"1.0.0\", \"integrity\": \"{integrity}\""));
        Lockfile::parse(format!("{{\"lockfileVersion\": 3, \"packages\": {{{packages}}}}}").as_bytes())
    }

    fn reached(lock: &Lockfile, folder: &str, part: Part) -> Vec<String> {
        lock.reached(folder, part).expect("everything is there").into_iter().cloned().collect()
    }

    #[test]
    fn a_package_reaches_what_node_would_find() {
        let lock = lock(
            r#""": {"dependencies": {"ui": "*"}},
            "apps/web": {"dependencies": {"ui": "1", "a": "1"}, "devDependencies": {"dev": "1"}},
            "apps/web/node_modules/a": {OK, "dependencies": {"b": "1"}, "bin": "./cli.js"},
            "libs/ui": {"name": "@x/ui", "dependencies": {"a": "2"}, "devDependencies": {"never": "1"}, "peerDependencies": {"p": "1"}, "peerDependenciesMeta": {"p": {"optional": true}}},
            "node_modules/ui": {"resolved": "libs/ui", "link": true},
            "node_modules/a": {OK, "name": "real-a"},
            "node_modules/b": {OK, "optionalDependencies": {"win": "1", "lin": "1"}},
            "node_modules/win": {OK, "optional": true, "os": ["win32"]},
            "node_modules/lin": {OK, "optional": true, "os": ["!win32"], "libc": "glibc"},
            "node_modules/dev": {OK},
            "node_modules/never": {OK}"#,
        )
        .expect("it is a lockfile");
        assert_eq!(
            reached(&lock, "apps/web", Part::Production),
            ["apps/web/node_modules/a", "node_modules/a", "node_modules/b", "node_modules/lin", "node_modules/ui"]
        );
        assert_eq!(reached(&lock, "apps/web", Part::All)[3], "node_modules/dev");
        assert_eq!(reached(&lock, "", Part::All), ["node_modules/a", "node_modules/ui"]);
        assert_eq!(lock.package("node_modules/a").expect("there").name, "real-a");
        assert_eq!(lock.link_target("node_modules/ui"), Some("libs/ui"));
        assert_eq!(lock.programs("apps/web/node_modules/a"), [("a".to_owned(), "cli.js".to_owned())]);
        // What a machine cannot use is not fetched.
        assert!(lock.packages().all(|(location, _)| location != "node_modules/win"));
    }

    #[test]
    fn what_a_lockfile_must_not_say_is_an_error() {
        for (packages, message) in [
            (r#""../x": {}"#, "it names the path `../x`"),
            (r#""node_modules/../../x": {OK}"#, "it names the path `node_modules/../../x`"),
            (r#""/node_modules/x": {OK}"#, "it names the path `/node_modules/x`"),
            (r#""node_modules/x/y": {OK}"#, "it names the path `node_modules/x/y`"),
            (r#""node_modules/x": {"link": true, "resolved": "../x"}"#, "it names the path `../x`"),
            (
                r#""node_modules/x": {"link": true, "resolved": "y"}"#,
                "`node_modules/x` links to `y`, which it does not have",
            ),
            (r#""node_modules/x": {OK, "bin": {"../y": "a"}}"#, "it names the path `a`"),
            (r#""node_modules/x": {OK, "bin": {"y": "../a"}}"#, "it names the path `../a`"),
            (r#""node_modules/x": {OK, "name": "../y"}"#, "it names the path `../y`"),
            (r#""node_modules/x": {"version": "1"}"#, "`node_modules/x` has no integrity"),
            (r#""node_modules/x": {"integrity": "md5-x"}"#, "`node_modules/x` has a bad integrity"),
            (
                r#""node_modules/x": {OK, "resolved": "git+ssh://x"}"#,
                "`node_modules/x` comes from `git+ssh://x`, which is not supported",
            ),
        ] {
            assert_eq!(lock(packages).expect_err("it is wrong").to_string(), message, "{packages}");
        }
        let old = Lockfile::parse(b"{\"lockfileVersion\": 1, \"dependencies\": {}}").expect_err("too old");
        assert_eq!(old.to_string(), "it has version 1; known are 2 and 3, which npm 7 and later write");
    }

    #[test]
    fn a_lockfile_for_another_manifest_is_stale() {
        let lock = lock(r#""": {"dependencies": {"a": "1"}}, "node_modules/a": {OK, "dependencies": {"b": "1"}}"#)
            .expect("one");
        let check = |text: &str| {
            lock.check("", &Manifest::parse(text.as_bytes()).expect("a manifest")).map_err(|error| error.to_string())
        };
        assert_eq!(check(r#"{"dependencies": {"a": "1"}}"#), Ok(()));
        let stale = "it is out of date: `dependencies` of `package.json` is another now".to_owned();
        assert_eq!(check(r#"{"dependencies": {"a": "2"}}"#), Err(stale));
        let unmet = lock.reached("", Part::All).expect_err("b is missing").to_string();
        assert_eq!(unmet, "it is out of date: `node_modules/a` needs `b`, which it does not have");
    }
}
