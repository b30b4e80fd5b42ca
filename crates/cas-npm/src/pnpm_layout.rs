//! Where pnpm puts packages: the layout of its isolated linker, for one package of the workspace.
//!
//! A package is in `node_modules/.pnpm/<snapshot>/node_modules/<name>`, what it depends on is linked beside it, packages
//! of the workspace have links, and `.pnpm/node_modules` has one link of each name for packages that look for what they
//! do not declare: of two packages the one that is reached by fewer steps, then the first by name.
//!
//! Differences to pnpm are in docs/formats/pnpm.md.

use std::collections::BTreeMap;

use crate::PnpmLockfile;
use crate::layout::{Layout, Owner, Programs, relative};
use crate::lockfile::{Location, LockfileError, MODULES, Part};
use crate::pnpm::{Direct, Reach, Snapshot, Target};

/// The folder of all packages.
const STORE: &str = "node_modules/.pnpm";

impl PnpmLockfile {
    pub(crate) fn layout(&self, folder: &str, part: Part, programs: &Programs) -> Result<Layout, LockfileError> {
        let reach = self.reach(folder, part)?;
        let members = reach.members.keys().map(|member| (*member, (*member).to_owned())).collect();
        let mut placer = Placer { lockfile: self, programs, members, layout: Layout::default() };
        let at_root = reach.members.get(folder).filter(|_| folder.is_empty());
        placer.add_store(&reach, at_root);
        for (member, direct) in &reach.members {
            let modules = if member.is_empty() { MODULES.to_owned() } else { format!("{member}/{MODULES}") };
            placer.add_links(&modules, direct);
        }
        Ok(placer.layout)
    }

    /// Packages of the workspace are left out, but links lead to where they will be, and what they need is there.
    pub(crate) fn portable_layout(
        &self,
        folder: &str,
        part: Part,
        programs: &Programs,
    ) -> Result<Layout, LockfileError> {
        let mut reach = self.reach(folder, part)?;
        let mut by_name: BTreeMap<&str, &Location> = BTreeMap::new();
        for direct in reach.members.values().chain(reach.snapshots.iter().map(|(_, direct)| direct)) {
            for (name, target) in direct {
                if let Target::Member(member) = target
                    && let Some(other) = by_name.insert(name, member)
                    && other != member
                {
                    return Err(LockfileError::TwoVersions { places: format!("`{other}` and `{member}`") });
                }
            }
        }
        for direct in reach.members.values_mut() {
            direct.retain(|_, target| matches!(target, Target::Snapshot(_)));
        }
        let members = by_name.iter().map(|(name, member)| (member.as_str(), format!("{MODULES}/{name}"))).collect();
        let mut placer = Placer { lockfile: self, programs, members, layout: Layout::default() };
        placer.add_store(&reach, reach.members.get(folder));
        placer.add_links(MODULES, &reach.members[folder]);
        for (name, member) in by_name {
            if member != folder {
                placer.add_links(&format!("{MODULES}/{name}/{MODULES}"), &reach.members[member.as_str()]);
            }
        }
        Ok(placer.layout)
    }
}

/// Puts things at their places.
struct Placer<'a> {
    lockfile: &'a PnpmLockfile,
    programs: &'a Programs,
    /// Where packages of the workspace are.
    members: BTreeMap<&'a str, Location>,
    layout: Layout,
}

impl Placer<'_> {
    fn place_of(&self, snapshot: &Snapshot) -> Location {
        format!("{STORE}/{}/{MODULES}/{}", snapshot.folder, self.lockfile.name_of(snapshot))
    }

    fn target_place(&self, target: &Target) -> Location {
        match target {
            Target::Member(member) => self.members.get(member.as_str()).unwrap_or(member).clone(),
            Target::Snapshot(key) => self.place_of(self.lockfile.snapshot(key)),
        }
    }

    /// Packages, what they depend on beside them, and what is hoisted; `at_root` is found without that.
    fn add_store(&mut self, reach: &Reach<'_>, at_root: Option<&Direct<'_>>) {
        for (snapshot, direct) in &reach.snapshots {
            let place = self.place_of(snapshot);
            let modules = format!("{STORE}/{}/{MODULES}", snapshot.folder);
            let bins = format!("{place}/{MODULES}/.bin");
            self.add_programs(&bins, &place, &Owner::Package(snapshot.package.clone()), &place);
            for (name, target) in direct {
                let link = format!("{modules}/{name}");
                if link != place {
                    self.layout.links.insert(link.clone(), relative(&link, &self.target_place(target)));
                    self.add_programs_of(&bins, &link, target);
                }
            }
            self.layout.packages.insert(place, snapshot.package.clone());
        }
        for direct in reach.members.values().chain(reach.snapshots.iter().map(|(_, direct)| direct)) {
            for (name, target) in direct {
                let link = format!("{STORE}/{MODULES}/{name}");
                let is_found = at_root.is_some_and(|root| root.contains_key(name));
                if matches!(target, Target::Snapshot(_)) && !is_found && !self.layout.links.contains_key(&link) {
                    let text = relative(&link, &self.target_place(target));
                    self.layout.links.insert(link, text);
                }
            }
        }
    }

    /// Links of a folder `node_modules`, and those to programs.
    fn add_links(&mut self, modules: &str, direct: &Direct<'_>) {
        for (name, target) in direct {
            let link = format!("{modules}/{name}");
            self.layout.links.insert(link.clone(), relative(&link, &self.target_place(target)));
            self.add_programs_of(&format!("{modules}/.bin"), &link, target);
        }
    }

    fn add_programs_of(&mut self, bins: &str, link: &str, target: &Target) {
        let owner = match target {
            Target::Member(member) => Owner::Member(member.clone()),
            Target::Snapshot(key) => Owner::Package(self.lockfile.snapshot(key).package.clone()),
        };
        self.add_programs(bins, link, &owner, &self.target_place(target));
    }

    /// Links in a folder `.bin`, by way of `link`, to programs of what is at `place`.
    fn add_programs(&mut self, bins: &str, link: &str, owner: &Owner, place: &str) {
        for (name, path) in self.programs.get(owner).into_iter().flatten() {
            let (bin, target) = (format!("{bins}/{name}"), format!("{link}/{path}"));
            self.layout.add_program(&bin, &target, &format!("{place}/{path}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTEGRITY: &str = "resolution: {integrity: sha1-2jmj7l5rSw0yVb/vlWAYkK/YBwk=}";

    /// Importers with ranges that are versions, and the same packages in both forms.
    fn lock(six: bool) -> PnpmLockfile {
        let slash = if six { "/" } else { "" };
        let importers = format!(
            "importers:\n  .:\n    devDependencies:\n      top: {{specifier: '1', version: 1.0.0}}\n  web:\n    dependencies:\n      ui: {{specifier: 'workspace:*', version: 'link:../ui'}}\n      '@s/b': {{specifier: '1', version: 1.0.0(ui@ui)}}\n    optionalDependencies:\n      gone: {{specifier: '1', version: 1.0.0}}\n\
             \n  ui:\n    dependencies:\n      web: {{specifier: 'workspace:*', version: 'link:../web'}}\n      a: {{specifier: 'npm:c@2', version: {slash}c@2.0.0}}\n    devDependencies:\n      never: {{specifier: '1', version: 1.0.0}}\n"
        );
        let package = |key: &str, rest: &str| format!("  '{slash}{key}':\n    {INTEGRITY}\n{rest}");
        let rows = [
            ("@s/b@1.0.0", "(ui@ui)", "    dependencies:\n      ui: link:ui\n      c: 1.0.0\n"),
            ("c@1.0.0", "", "    dependencies:\n      c: 1.0.0\n"),
            ("c@2.0.0", "", "    dependencies:\n      d: 1.0.0\n    optionalDependencies:\n      gone: 1.0.0\n"),
            ("d@1.0.0", "", "    dependencies:\n      c: 2.0.0\n"),
            ("gone@1.0.0", "", "    optional: true\n"),
            ("never@1.0.0", "", "    optional: false\n"),
            ("top@1.0.0", "", "    dependencies:\n      d: 1.0.0\n"),
        ];
        let os = |key: &str| if key.starts_with("gone") { "    os: [win32]\n" } else { "" };
        let lists: String = if six {
            let all = rows.map(|(key, peers, rest)| package(&format!("{key}{peers}"), &format!("{}{rest}", os(key))));
            format!("packages:\n{}", all.concat())
        } else {
            let snapshots = rows.map(|(key, peers, rest)| format!("  '{key}{peers}':\n{rest}"));
            format!(
                "packages:\n{}snapshots:\n{}",
                rows.map(|(key, _, _)| package(key, os(key))).concat(),
                snapshots.concat()
            )
        };
        let version = if six { "6.0" } else { "9.0" };
        PnpmLockfile::parse(format!("lockfileVersion: '{version}'\n{importers}{lists}").as_bytes())
            .expect("it is a lockfile")
    }

    fn links(layout: &Layout) -> Vec<String> {
        layout.links.iter().map(|(place, target)| format!("{} {target}", place.replace("node_modules", "N"))).collect()
    }

    #[test]
    fn both_forms_give_one_layout() {
        let layout = lock(false).layout("web", Part::All, &Programs::new()).expect("all is there");
        assert_eq!(
            links(&layout),
            [
                "N/.pnpm/@s+b@1.0.0_ui@ui/N/c ../../c@1.0.0/node_modules/c",
                "N/.pnpm/@s+b@1.0.0_ui@ui/N/ui ../../../../ui",
                "N/.pnpm/c@2.0.0/N/d ../../d@1.0.0/node_modules/d",
                "N/.pnpm/d@1.0.0/N/c ../../c@2.0.0/node_modules/c",
                "N/.pnpm/N/@s/b ../../@s+b@1.0.0_ui@ui/node_modules/@s/b",
                "N/.pnpm/N/a ../c@2.0.0/node_modules/c",
                // Both are one step away from packages that are: the first by name counts.
                "N/.pnpm/N/c ../c@1.0.0/node_modules/c",
                "N/.pnpm/N/d ../d@1.0.0/node_modules/d",
                "ui/N/a ../../node_modules/.pnpm/c@2.0.0/node_modules/c",
                "ui/N/web ../../web",
                "web/N/@s/b ../../../node_modules/.pnpm/@s+b@1.0.0_ui@ui/node_modules/@s/b",
                "web/N/ui ../../ui",
            ]
        );
        assert_eq!(lock(true).layout("web", Part::All, &Programs::new()).expect("all is there"), layout);
        // What the root has itself is not hoisted for it.
        let root = lock(false).layout("", Part::All, &Programs::new()).expect("all is there");
        assert!(
            root.links.contains_key("node_modules/top")
                && !root.links.contains_key("node_modules/.pnpm/node_modules/top")
        );
        assert!(lock(false).layout("none", Part::All, &Programs::new()).is_err());
        assert!(lock(true).packages().all(|(key, _)| key != "gone@1.0.0"));
    }

    #[test]
    fn a_folder_that_is_taken_elsewhere_is_whole() {
        let layout = lock(false).portable_layout("web", Part::Production, &Programs::new()).expect("all is there");
        let inside = |place: &str| place.starts_with("node_modules/");
        assert!(layout.links.keys().chain(layout.packages.keys()).all(|place| inside(place)));
        assert_eq!(layout.links["node_modules/@s/b"], "../.pnpm/@s+b@1.0.0_ui@ui/node_modules/@s/b");
        assert_eq!(layout.links["node_modules/ui/node_modules/a"], "../../.pnpm/c@2.0.0/node_modules/c");
        // The package of the workspace will be there.
        assert_eq!(layout.links["node_modules/.pnpm/@s+b@1.0.0_ui@ui/node_modules/ui"], "../../../ui");
    }
}
