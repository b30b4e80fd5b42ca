//! What surrounds a run of the maintainer scripts: what dpkg has to find before it, and what of a machine's life is taken
//! away after it. Rules: docs/formats/debian.md, Configured roots.
//!
//! Not here: the run itself (`cas-build`), and its order ([`crate::installation_order`]).

use std::collections::BTreeMap;

use cas_blob::Descriptor;
use cas_digest::DigestFunction;
use cas_tree::{Directory, Metadata, Node, RelPath};

use crate::Unpacked;
use crate::fixups::{AddedFile, FixUpError, add};

/// The largest number of a user or group while scripts run.
const MAX_ID: u32 = 65_535;

/// A package cannot be installed, because somebody owns its files who is not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "package `{package}` ships `{path}` for user or group {id}, and only 0 to {MAX_ID} are there when it is configured"
)]
pub struct OwnerError {
    /// Name and version of the package.
    pub package: String,
    /// The path, `.` for the root.
    pub path: String,
    /// The user or group.
    pub id: u32,
}

/// Finds an owner that the files of a package cannot be given: neither here nor by dpkg, which would say less.
///
/// # Errors
///
/// [`OwnerError`] for the first one.
pub fn check_owners(package: &Unpacked) -> Result<(), OwnerError> {
    let inside = package.tree.walk().filter_map(|(path, node)| Some((path.to_string(), node.metadata()?)));
    for (path, metadata) in std::iter::once((".".to_owned(), &package.tree.metadata)).chain(inside) {
        if let Some(id) = [metadata.uid, metadata.gid].into_iter().find(|id| *id > MAX_ID) {
            return Err(OwnerError { package: package.control.to_string(), path, id });
        }
    }
    Ok(())
}

/// No script starts a service: there is nothing to serve, and the sandbox ends with the scripts.
const POLICY_PATH: &str = "usr/sbin/policy-rc.d";
const POLICY: &str = "#!/bin/sh\nexit 101\n";

/// The file without which dpkg does not begin.
const DATABASE: &str = "var/lib/dpkg/status";

/// Paths that are gone afterwards: logs, locks, copies of what was there before, caches that hold times and inodes, and
/// identities.
const REMOVED: [&str; 22] = [
    "etc/.pwd.lock",
    "etc/group-",
    "etc/gshadow-",
    "etc/passwd-",
    "etc/shadow-",
    "etc/subgid-",
    "etc/subuid-",
    POLICY_PATH,
    "var/cache/debconf/config.dat-old",
    "var/cache/debconf/passwords.dat-old",
    "var/cache/debconf/templates.dat-old",
    "var/cache/ldconfig/aux-cache",
    "var/lib/dbus/machine-id",
    "var/lib/dpkg/available-old",
    "var/lib/dpkg/diversions-old",
    "var/lib/dpkg/lock",
    "var/lib/dpkg/lock-frontend",
    "var/lib/dpkg/statoverride-old",
    "var/lib/dpkg/status-old",
    "var/lib/dpkg/triggers/Lock",
    "var/lib/systemd/random-seed",
    "var/log/alternatives.log",
];

/// Folders whose content is gone afterwards, but for folders that packages ship there.
const EMPTIED: [&str; 4] = ["run", "tmp", "var/log/apt", "var/tmp"];

/// An empty one is given an identity when a machine starts (machine-id(5)).
const MACHINE_ID: &str = "etc/machine-id";

/// The user that steps run as, and its group.
const BUILDER: [(&str, &str); 2] =
    [("etc/group", "build:*:1000:\n"), ("etc/passwd", "build:*:1000:1000:build:/tmp:/bin/sh\n")];
/// Its number.
const BUILDER_ID: &str = "1000";

fn path(text: &str) -> RelPath {
    RelPath::new(text).expect("the tables hold paths")
}

/// Adds to the files of the essential packages what dpkg has to find.
///
/// # Errors
///
/// [`FixUpError`]
pub fn before_scripts(tree: &mut Directory, function: DigestFunction) -> Result<Vec<AddedFile>, FixUpError> {
    let mut added = Vec::new();
    for (at, content, mode) in [(DATABASE, "", 0o644), (POLICY_PATH, POLICY, 0o755)] {
        let blob = Descriptor::of(function, content.as_bytes());
        if add(tree, at, || Some(Node::file(blob, mode)))? {
            added.push(AddedFile { blob, content });
        }
    }
    Ok(added)
}

/// Takes away what scripts leave of the moment in which they ran. `shipped` is whether a package has a path.
pub fn after_scripts(tree: &mut Directory, function: DigestFunction, shipped: &dyn Fn(&RelPath) -> bool) {
    for at in REMOVED {
        if !matches!(tree.get(&path(at)), Some(Node::Directory(_))) {
            tree.remove(&path(at));
        }
    }
    for at in EMPTIED {
        let folder = path(at);
        let Some(inside) = tree.get_directory(&folder) else { continue };
        let paths: Vec<RelPath> = inside
            .walk()
            .map(|(inside, node)| (folder.join_path(&inside), node))
            .filter(|(whole, node)| !(matches!(node, Node::Directory(_)) && shipped(whole)))
            .map(|(whole, _)| whole)
            .collect();
        // What is below a path that is gone is gone with it.
        paths.iter().for_each(|path| drop(tree.remove(path)));
    }
    let machine_id = path(MACHINE_ID);
    if let Some((metadata, _)) = tree.get_file(&machine_id) {
        let node = Node::File { metadata: metadata.clone(), blob: Descriptor::of(function, b"") };
        tree.insert(&machine_id, node, &Metadata::root_owned(0o755)).expect("a file is in the place of a file");
    }
}

/// Lists of users and groups. The last two have no numbers, and go by the first two.
pub const USER_LISTS: [&str; 4] = ["etc/group", "etc/passwd", "etc/gshadow", "etc/shadow"];

/// Orders the rows of [`USER_LISTS`], given in that order as far as they are there, by number: the order in which scripts made
/// them says nothing. The user of steps is added to the first two where its number is free.
pub fn order_users(lists: &mut [Option<String>; 4]) {
    for (list, (_, builder)) in lists.iter_mut().zip(BUILDER) {
        let Some(text) = list else { continue };
        let mut rows: Vec<&str> = text.lines().collect();
        if rows.iter().all(|row| number(row) != Some(BUILDER_ID)) {
            rows.push(builder.trim_end());
        }
        rows.sort_by_key(|row| (number(row).and_then(|number| number.parse::<u32>().ok()), *row));
        *list = Some(joined(&rows));
    }
    let [group, passwd, gshadow, shadow] = lists;
    for (list, by) in [(gshadow, group), (shadow, passwd)] {
        let (Some(text), Some(by)) = (&*list, by) else { continue };
        let places: BTreeMap<&str, usize> = by.lines().enumerate().map(|(at, row)| (name(row), at)).collect();
        let mut rows: Vec<&str> = text.lines().collect();
        rows.sort_by_key(|row| (places.get(name(row)).copied().unwrap_or(usize::MAX), *row));
        *list = Some(joined(&rows));
    }
}

fn name(row: &str) -> &str {
    row.split(':').next().unwrap_or_default()
}

fn number(row: &str) -> Option<&str> {
    row.split(':').nth(2)
}

fn joined(rows: &[&str]) -> String {
    rows.iter().map(|row| format!("{row}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(tree: &mut Directory, at: &str, content: &str) {
        let blob = Descriptor::of(DigestFunction::Blake3, content.as_bytes());
        tree.insert(&path(at), Node::file(blob, 0o444), &Metadata::root_owned(0o755)).expect("free names");
    }

    #[test]
    fn what_tells_of_the_run_is_taken_away_and_the_rest_stays() {
        let mut tree = Directory::root();
        let added = before_scripts(&mut tree, DigestFunction::Blake3).expect("there is room");
        assert_eq!(added.len(), 2);
        for at in
            ["etc/passwd-", "var/log/alternatives.log", "run/x/y", "run/lock/z", "tmp/a", "etc/machine-id", "kept"]
        {
            file(&mut tree, at, at);
        }
        after_scripts(&mut tree, DigestFunction::Blake3, &|at| *at == path("run/lock"));
        let names: Vec<String> = tree.walk().map(|(path, _)| path.to_string()).collect();
        let mut expected = vec!["etc", "etc/machine-id", "kept", "run", "run/lock", "tmp", "usr", "usr/sbin", "var"];
        expected.extend(["var/lib", "var/lib/dpkg", "var/lib/dpkg/status", "var/log"]);
        assert_eq!(names, expected);
        let (metadata, blob) = tree.get_file(&path("etc/machine-id")).expect("it is a file");
        assert_eq!((metadata.mode, blob.size), (0o444, 0));
    }

    #[test]
    fn owners_that_nobody_is_are_told_with_package_and_path() {
        let control = b"Package: a\nVersion: 1\nArchitecture: all\n";
        let control = crate::Control::parse(control).expect("it is one paragraph");
        let of = |uid, gid| {
            let mut tree = Directory::root();
            let metadata = Metadata { uid, gid, ..Metadata::root_owned(0o644) };
            let node = Node::File { metadata, blob: Descriptor::of(DigestFunction::Blake3, b"") };
            tree.insert(&path("srv/x"), node, &Metadata::root_owned(0o755)).expect("free names");
            check_owners(&Unpacked { control: control.clone(), tree })
        };
        let refused = |id| Err(OwnerError { package: "a 1".to_owned(), path: "srv/x".to_owned(), id });
        assert_eq!(of(65_535, 65_535), Ok(()));
        assert_eq!(of(65_536, 0), refused(65_536));
        assert_eq!(of(0, u32::MAX), refused(u32::MAX));
    }

    #[test]
    fn users_are_ordered_by_number_whatever_order_made_them() {
        let text = |rows: &[&str]| Some(joined(rows));
        let mut lists = [
            text(&["root:x:0:", "z:x:102:", "a:x:101:"]),
            text(&["root:x:0:0::/root:/bin/sh", "b:x:9:9::/:", "a:x:101:101::/:"]),
            text(&["a:!::", "root:*::", "z:!::"]),
            text(&["a:!:1::::::", "b:*:1::::::", "root:*:1::::::"]),
        ];
        order_users(&mut lists);
        let expected = [
            text(&["root:x:0:", "a:x:101:", "z:x:102:", "build:*:1000:"]),
            text(&[
                "root:x:0:0::/root:/bin/sh",
                "b:x:9:9::/:",
                "a:x:101:101::/:",
                "build:*:1000:1000:build:/tmp:/bin/sh",
            ]),
            text(&["root:*::", "a:!::", "z:!::"]),
            text(&["root:*:1::::::", "b:*:1::::::", "a:!:1::::::"]),
        ];
        assert_eq!(lists, expected);
        let mut again = expected.clone();
        order_users(&mut again);
        assert_eq!(again, expected, "a number that is taken stays whose it is");
        let mut none = [None, None, None, text(&["x:*:"])];
        order_users(&mut none);
        assert_eq!(none, [None, None, None, text(&["x:*:"])]);
    }
}
