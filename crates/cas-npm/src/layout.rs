//! What folders `node_modules` hold: packages, links and programs at their places, for one package of a workspace.
//!
//! A layout is the part of a lockfile that the package reaches, and nothing else of the lockfile is in it: what is made
//! of it changes only when that part does. Places are paths from the lockfile's folder on.
//!
//! Not here: the trees of packages (`cas-build`); where npm and pnpm put things is in [`crate::Lockfile`] and
//! [`crate::PnpmLockfile`].

use std::collections::{BTreeMap, BTreeSet};

use crate::lockfile::{Location, LockedPackage, Lockfile, LockfileError, MODULES, Part};
use crate::{Manifest, PnpmLockfile};

/// Places of packages, links and programs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// Packages by place: keys of [`ModulesLock::packages`].
    pub packages: BTreeMap<Location, String>,
    /// Symbolic links and their texts.
    pub links: BTreeMap<Location, String>,
    /// Links to programs in folders `.bin` and their texts; what is at the place already stays.
    pub programs: BTreeMap<Location, String>,
    /// Files that are made executable, if they are there.
    pub executables: BTreeSet<Location>,
}

impl Layout {
    /// Adds what another layout of the same lockfile has.
    pub fn add(&mut self, other: Self) {
        let Self { packages, links, programs, executables } = other;
        for (place, key) in packages {
            self.packages.entry(place).or_insert(key);
        }
        for (place, text) in links {
            self.links.entry(place).or_insert(text);
        }
        for (place, text) in programs {
            self.programs.entry(place).or_insert(text);
        }
        self.executables.extend(executables);
    }
}

/// Who brings programs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// A package, by its key.
    Package(String),
    /// A package of the workspace, by its folder from the lockfile's on.
    Member(Location),
}

/// Names and paths of programs. Lockfiles of npm have them, those of pnpm do not.
pub type Programs = BTreeMap<Owner, BTreeMap<String, String>>;

/// A lockfile of npm or pnpm.
#[derive(Clone, Debug)]
pub enum ModulesLock {
    /// `package-lock.json`
    Npm(Lockfile),
    /// `pnpm-lock.yaml`
    Pnpm(PnpmLockfile),
}

impl ModulesLock {
    /// Every package that this machine can use, by key: its place for npm, its name and version for pnpm.
    #[must_use]
    pub fn packages(&self) -> Vec<(&String, &LockedPackage)> {
        match self {
            Self::Npm(lockfile) => lockfile.packages().collect(),
            Self::Pnpm(lockfile) => lockfile.packages().collect(),
        }
    }

    /// Checks that the lockfile was made for this `package.json` of the package in `folder` (empty for the lockfile's own).
    ///
    /// # Errors
    ///
    /// [`LockfileError::Stale`], [`LockfileError::Unmet`] for a package that it does not have.
    pub fn check(&self, folder: &str, manifest: &Manifest) -> Result<(), LockfileError> {
        match self {
            Self::Npm(lockfile) => lockfile.check(folder, manifest),
            Self::Pnpm(lockfile) => lockfile.check(folder, manifest),
        }
    }

    /// What the package in `folder` reaches, at the places where the package manager would put it.
    ///
    /// # Errors
    ///
    /// [`LockfileError::Unmet`], [`LockfileError::Path`]
    pub fn layout(&self, folder: &str, part: Part, programs: &Programs) -> Result<Layout, LockfileError> {
        match self {
            Self::Npm(lockfile) => lockfile.layout(folder, part),
            Self::Pnpm(lockfile) => lockfile.layout(folder, part, programs),
        }
    }

    /// What the package in `folder` reaches, as one folder `node_modules` that can be taken elsewhere: packages of the
    /// workspace are not in it, but what they need is.
    ///
    /// # Errors
    ///
    /// Those of [`ModulesLock::layout`], and [`LockfileError::TwoVersions`].
    pub fn portable_layout(&self, folder: &str, part: Part, programs: &Programs) -> Result<Layout, LockfileError> {
        match self {
            Self::Npm(lockfile) => lockfile.portable_layout(folder, part),
            Self::Pnpm(lockfile) => lockfile.portable_layout(folder, part, programs),
        }
    }
}

impl Lockfile {
    fn layout(&self, folder: &str, part: Part) -> Result<Layout, LockfileError> {
        let reached = self.reached(folder, part)?;
        Ok(self.at_places(&reached.into_iter().map(|place| (place.clone(), place)).collect()))
    }

    fn portable_layout(&self, folder: &str, part: Part) -> Result<Layout, LockfileError> {
        let reached = self.reached(folder, part)?;
        let own = if folder.is_empty() { format!("{MODULES}/") } else { format!("{folder}/{MODULES}/") };
        // Names by which packages of the workspace are linked.
        let links: BTreeMap<&str, &str> = reached
            .iter()
            .filter_map(|place| Some((self.link_target(place)?, place.strip_prefix("node_modules/")?)))
            .collect();
        let mut places: BTreeMap<Location, &Location> = BTreeMap::new();
        for place in reached {
            if self.link_target(place).is_some() {
                continue;
            }
            let to = if let Some(rest) = place.strip_prefix(&own).or_else(|| place.strip_prefix("node_modules/")) {
                format!("{MODULES}/{rest}")
            } else {
                let (member, rest) = place.split_once("/node_modules/").unwrap_or((place, ""));
                match links.get(member) {
                    Some(link) => format!("{MODULES}/{link}/{MODULES}/{rest}"),
                    None => continue,
                }
            };
            if let Some(other) = places.insert(to, place) {
                return Err(LockfileError::TwoVersions { places: format!("`{other}` and `{place}`") });
            }
        }
        Ok(self.at_places(&places))
    }

    /// The layout that has each of these places of the lockfile at another one.
    fn at_places(&self, places: &BTreeMap<Location, &Location>) -> Layout {
        let mut layout = Layout::default();
        for (to, from) in places {
            if let Some(target) = self.link_target(from) {
                layout.links.insert(to.clone(), relative(to, target));
            } else if self.package(from).is_some() {
                layout.packages.insert(to.clone(), (*from).clone());
            }
            let Some(at) = to.rfind("node_modules/") else { continue };
            let modules = &to[..at + MODULES.len() + 1];
            for (name, program) in self.programs(from) {
                layout.add_program(
                    &format!("{modules}.bin/{name}"),
                    &format!("{to}/{program}"),
                    &format!("{to}/{program}"),
                );
            }
        }
        layout
    }
}

impl Layout {
    /// Adds a link to the program at `target`, unless there is one of the name, and makes `file` executable.
    pub(crate) fn add_program(&mut self, place: &str, target: &str, file: &str) {
        if !self.programs.contains_key(place) {
            self.programs.insert(place.to_owned(), relative(place, target));
            self.executables.insert(file.to_owned());
        }
    }
}

/// The text of a link at `place` that leads to `target`, both from the same folder on; `target` may be empty for that folder.
pub(crate) fn relative(place: &str, target: &str) -> String {
    let from: Vec<&str> = place.split('/').collect();
    let to: Vec<&str> = target.split('/').filter(|part| !part.is_empty()).collect();
    let above = &from[..from.len() - 1];
    let common = above.iter().zip(&to).take_while(|(a, b)| a == b).count();
    let parts: Vec<&str> = above[common..].iter().map(|_| "..").chain(to[common..].iter().copied()).collect();
    if parts.is_empty() { ".".to_owned() } else { parts.join("/") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_from_their_folder() {
        for (place, target, expected) in [
            ("node_modules/ui", "libs/ui", "../libs/ui"),
            ("node_modules/@s/ui", "libs/ui", "../../libs/ui"),
            ("node_modules/.bin/x", "node_modules/x/cli.js", "../x/cli.js"),
            ("node_modules/root", "", ".."),
            ("a", "", "."),
        ] {
            assert_eq!(relative(place, target), expected, "{place} {target}");
        }
    }

    /// Places are those of the lockfile, whatever else is hoisted beside them; what is not reached does not show.
    #[test]
    fn a_layout_has_the_part_of_a_lockfile_that_is_reached() {
        let text = |extra: &str| {
            format!(
                r#"{{"lockfileVersion": 3, "packages": {{
                "": {{}}, "web": {{"dependencies": {{"ui": "*", "a": "1"}}}}, "ui": {{"dependencies": {{"a": "2"}}}},
                "node_modules/ui": {{"resolved": "ui", "link": true}},
                "node_modules/a": {{"version": "2.0.0", "integrity": "sha1-2jmj7l5rSw0yVb/vlWAYkK/YBwk=", "bin": {{"a": "./a.js"}}}},
                "web/node_modules/a": {{"version": "1.0.0", "integrity": "sha1-2jmj7l5rSw0yVb/vlWAYkK/YBwk="}},
                "node_modules/other": {{"version": "{extra}", "integrity": "sha1-2jmj7l5rSw0yVb/vlWAYkK/YBwk="}}}}}}"#
            )
        };
        let of = |extra: &str| Lockfile::parse(text(extra).as_bytes()).expect("it is a lockfile");
        let layout = of("1.0.0").layout("web", Part::All).expect("all is there");
        assert_eq!(layout, of("2.0.0").layout("web", Part::All).expect("all is there"));
        assert_eq!(layout.packages.keys().collect::<Vec<_>>(), ["node_modules/a", "web/node_modules/a"]);
        assert_eq!(layout.links["node_modules/ui"], "../ui");
        assert_eq!(layout.programs["node_modules/.bin/a"], "../a/a.js");
        assert!(layout.executables.contains("node_modules/a/a.js"));
        let portable = of("1.0.0").portable_layout("web", Part::All).expect_err("they differ");
        assert_eq!(portable.to_string(), "`node_modules/a` and `web/node_modules/a` would be at one place");
        assert_ne!(layout, of("1.0.0").layout("ui", Part::All).expect("all is there"));
    }
}
