//! What other ways to cut modules into layers would cost: trees in, trees out.
//!
//! This is a simulation. It decides nothing in `cas`; it shows what simpler rules than those of docs/formats/cut.md would give.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use cas_digest::{Digest, DigestFunction};

use super::state::{Files, Thing, content_bytes};

/// Files by the package that they belong to; what belongs to none has the empty name.
pub(crate) type Packages = BTreeMap<String, Rc<Files>>;

/// How the files of modules are cut into layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Split {
    /// As many layers as told; which one a package is in follows from its name alone.
    Hash(u64),
    /// The packages with the most bytes have a layer each, the others as [`Split::Hash`].
    LargestAlone { alone: usize, hashed: u64 },
    /// Packages of at least so many bytes have a layer each, the others as [`Split::Hash`].
    AloneFrom { bytes: u64, hashed: u64 },
    /// Files of at least so many bytes have a layer each, what is left of their packages as [`Split::AloneFrom`].
    FilesFrom { file_bytes: u64, bytes: u64, hashed: u64 },
    /// Files of at least so many bytes have a layer each, what is left of their packages as [`Split::LargestAlone`].
    FilesAndLargest { file_bytes: u64, alone: usize, hashed: u64 },
    /// Each package has a layer.
    Each,
    /// Files of at least so many bytes have a layer each, and what is left of each package.
    EachFilesFrom { file_bytes: u64 },
}

impl std::fmt::Display for Split {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Hash(count) => write!(formatter, "{count} by hash"),
            Self::LargestAlone { alone, hashed } => write!(formatter, "{alone} largest alone, {hashed} by hash"),
            Self::AloneFrom { bytes, hashed } => {
                write!(formatter, "from {} KiB on alone, {hashed} by hash", bytes >> 10)
            }
            Self::FilesFrom { file_bytes, bytes, hashed } => {
                let (file, package) = (file_bytes >> 10, bytes >> 10);
                write!(
                    formatter,
                    "files from {file} KiB on alone, packages from {package} KiB on alone, {hashed} by hash"
                )
            }
            Self::FilesAndLargest { file_bytes, alone, hashed } => {
                let file = file_bytes >> 10;
                write!(formatter, "files from {file} KiB on alone, {alone} largest alone, {hashed} by hash")
            }
            Self::EachFilesFrom { file_bytes } => {
                write!(formatter, "files from {} KiB on alone, each package alone", file_bytes >> 10)
            }
            Self::Each => write!(formatter, "each package alone"),
        }
    }
}

/// The name of the package that a path belongs to; `None` for what belongs to none, as `.bin`.
///
/// A package that is installed below another one belongs to itself.
pub(crate) fn package_of(path: &[u8]) -> Option<String> {
    let parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
    let modules = parts.iter().rposition(|part| *part == b"node_modules")?;
    let part = |at: usize| parts.get(modules + at).map(|part| String::from_utf8_lossy(part).into_owned());
    let first = part(1)?;
    match first.chars().next()? {
        '.' => None,
        '@' => Some(format!("{first}/{}", part(2)?)),
        _ => Some(first),
    }
}

/// Sorts files by package. Directories that packages are in are left out: each layer makes its own.
pub(crate) fn by_package(modules: Files) -> Packages {
    let mut packages: BTreeMap<String, Files> = BTreeMap::new();
    for (path, thing) in modules {
        let package = package_of(&path);
        if package.is_none() && matches!(thing, Thing::Directory(_)) {
            continue;
        }
        packages.entry(package.unwrap_or_default()).or_default().insert(path, thing);
    }
    packages.into_iter().map(|(name, files)| (name, Rc::new(files))).collect()
}

/// Takes large files out of their packages: each has an own name, that of the package and its path.
fn without_large_files(packages: &Packages, from_bytes: u64) -> (Packages, Packages) {
    let is_large = |thing: &Thing| matches!(thing, Thing::File(_, blob) if blob.size >= from_bytes);
    let (mut rest, mut large) = (Packages::new(), Packages::new());
    for (name, files) in packages {
        if !files.values().any(is_large) {
            rest.insert(name.clone(), Rc::clone(files));
            continue;
        }
        let mut small = Files::new();
        for (path, thing) in files.iter() {
            if is_large(thing) {
                let name = format!("{name}: {}", String::from_utf8_lossy(path));
                large.insert(name, Rc::new([(path.clone(), thing.clone())].into()));
            } else {
                small.insert(path.clone(), thing.clone());
            }
        }
        if !small.is_empty() {
            rest.insert(name.clone(), Rc::new(small));
        }
    }
    (rest, large)
}

/// Cuts modules into layers; empty ones are left out.
pub(crate) fn split(packages: &Packages, by: Split) -> Vec<Packages> {
    let (file_bytes, by) = match by {
        Split::FilesFrom { file_bytes, bytes, hashed } => (file_bytes, Split::AloneFrom { bytes, hashed }),
        Split::FilesAndLargest { file_bytes, alone, hashed } => (file_bytes, Split::LargestAlone { alone, hashed }),
        Split::EachFilesFrom { file_bytes } => (file_bytes, Split::Each),
        by => return split_packages(packages, by),
    };
    let (rest, large) = without_large_files(packages, file_bytes);
    let alone = large.into_iter().map(|file| Packages::from([file]));
    split_packages(&rest, by).into_iter().chain(alone).collect()
}

/// Cuts modules into layers of whole packages.
fn split_packages(packages: &Packages, by: Split) -> Vec<Packages> {
    let sizes: BTreeMap<&str, u64> =
        packages.iter().map(|(name, files)| (name.as_str(), content_bytes(files.values()))).collect();
    let (alone, hashed): (BTreeSet<&str>, u64) = match by {
        Split::Hash(count) => (BTreeSet::new(), count),
        Split::LargestAlone { alone, hashed } | Split::FilesAndLargest { alone, hashed, .. } => {
            let mut order: Vec<(&str, u64)> = sizes.into_iter().collect();
            order.sort_by_key(|(name, size)| (std::cmp::Reverse(*size), *name));
            (order.into_iter().take(alone).map(|(name, _)| name).collect(), hashed)
        }
        Split::AloneFrom { bytes, hashed } | Split::FilesFrom { bytes, hashed, .. } => {
            (sizes.into_iter().filter(|(_, size)| *size >= bytes).map(|(name, _)| name).collect(), hashed)
        }
        Split::Each | Split::EachFilesFrom { .. } => (sizes.into_keys().collect(), 1),
    };
    let mut layers: BTreeMap<(Option<&str>, u64), Packages> = BTreeMap::new();
    for (name, files) in packages {
        let layer = if alone.contains(name.as_str()) { (Some(name.as_str()), 0) } else { (None, bucket(name, hashed)) };
        layers.entry(layer).or_default().insert(name.clone(), Rc::clone(files));
    }
    layers.into_values().collect()
}

/// Which of `count` layers a name leads to.
fn bucket(name: &str, count: u64) -> u64 {
    let digest = Digest::of(DigestFunction::Blake3, name.as_bytes());
    let head = digest.value().iter().take(8).fold(0u64, |head, byte| (head << 8) | u64::from(*byte));
    head % count
}

/// The layers that are new since the ones before.
pub(crate) fn new_layers<'a>(before: &[Packages], after: &'a [Packages]) -> Vec<&'a Packages> {
    after.iter().filter(|layer| !before.contains(layer)).collect()
}

/// How many packages differ: changed, new and removed ones.
pub(crate) fn changed_packages(before: &Packages, after: &Packages) -> BTreeSet<String> {
    let names = before.keys().chain(after.keys()).filter(|name| !name.is_empty());
    names.filter(|name| before.get(*name) != after.get(*name)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use cas_blob::Descriptor;
    use cas_tree::Metadata;

    use super::*;

    fn files(entries: &[(&str, &str)]) -> Files {
        let thing = |content: &str| {
            let blob = Descriptor::of(DigestFunction::Blake3, content.as_bytes());
            Thing::File(Metadata::root_owned(0o644), blob)
        };
        entries.iter().map(|(at, content)| (format!("app/node_modules/{at}").into_bytes(), thing(content))).collect()
    }

    fn modules(entries: &[(&str, &str)]) -> Packages {
        by_package(files(entries))
    }

    #[test]
    fn a_path_belongs_to_the_innermost_package() {
        for (text, expected) in [
            ("app/node_modules/a/index.js", Some("a")),
            ("app/node_modules/a", Some("a")),
            ("app/node_modules/@s/a/index.js", Some("@s/a")),
            ("app/node_modules/@s", None),
            ("app/node_modules/a/node_modules/b/index.js", Some("b")),
            ("app/node_modules/a/node_modules", None),
            ("app/node_modules/.bin/a", None),
            ("app/server.js", None),
        ] {
            assert_eq!(package_of(text.as_bytes()).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn every_file_is_in_one_layer_whatever_the_split() {
        let all =
            files(&[("a/x", "1"), ("b/x", "22"), ("@s/c/x", "333"), ("a/node_modules/b/y", "4"), (".bin/a", "5")]);
        for (by, layer_count) in [
            (Split::Hash(1), 1..=1),
            (Split::Hash(8), 1..=4),
            (Split::LargestAlone { alone: 1, hashed: 1 }, 2..=2),
            (Split::AloneFrom { bytes: 3, hashed: 1 }, 2..=3),
            (Split::FilesFrom { file_bytes: 2, bytes: 9, hashed: 1 }, 3..=3),
            (Split::FilesAndLargest { file_bytes: 2, alone: 1, hashed: 1 }, 4..=4),
            (Split::Each, 4..=4),
            (Split::EachFilesFrom { file_bytes: 2 }, 5..=5),
        ] {
            let layers = split(&by_package(all.clone()), by);
            assert!(layer_count.contains(&layers.len()), "{by}: {}", layers.len());
            let in_layers = || layers.iter().flat_map(BTreeMap::values).flat_map(|files| files.iter());
            let together: Files = in_layers().map(|(path, thing)| (path.clone(), thing.clone())).collect();
            assert_eq!(together, all, "{by}");
            assert_eq!(in_layers().count(), all.len(), "{by}");
        }
    }

    #[test]
    fn a_bump_makes_the_layer_of_its_package_new_and_no_other() {
        let before = modules(&[("a/x", "1"), ("b/x", "2"), ("c/x", "a large one"), ("d/x", "4")]);
        let after = modules(&[("a/x", "1"), ("b/x", "3"), ("c/x", "a large one"), ("d/x", "4")]);
        assert_eq!(changed_packages(&before, &after).into_iter().collect::<Vec<_>>(), ["b"]);
        for by in [
            Split::Hash(1),
            Split::Hash(4),
            Split::LargestAlone { alone: 1, hashed: 2 },
            Split::AloneFrom { bytes: 5, hashed: 2 },
            Split::Each,
        ] {
            let (old, new) = (split(&before, by), split(&after, by));
            let found = new_layers(&old, &new);
            assert_eq!(found.len(), 1, "{by}");
            assert!(found[0].contains_key("b"), "{by}");
            let shares = by != Split::Each && bucket("a", buckets(by)) == bucket("b", buckets(by));
            assert_eq!(found[0].contains_key("a"), shares, "{by}");
        }
    }

    #[test]
    fn a_large_file_stays_where_the_rest_of_its_package_changes() {
        let before = modules(&[("a/large", "as it was"), ("a/x", "1"), ("b/x", "1")]);
        let after = modules(&[("a/large", "as it was"), ("a/x", "2"), ("b/x", "1")]);
        let by = Split::EachFilesFrom { file_bytes: 5 };
        let (old, new) = (split(&before, by), split(&after, by));
        let found = new_layers(&old, &new);
        assert_eq!(found.len(), 1);
        let paths: Vec<&Vec<u8>> = found[0].values().flat_map(|files| files.keys()).collect();
        assert_eq!(paths, [b"app/node_modules/a/x"]);
    }

    fn buckets(by: Split) -> u64 {
        match by {
            Split::Hash(count) => count,
            Split::LargestAlone { hashed, .. }
            | Split::AloneFrom { hashed, .. }
            | Split::FilesFrom { hashed, .. }
            | Split::FilesAndLargest { hashed, .. } => hashed,
            Split::Each | Split::EachFilesFrom { .. } => 1,
        }
    }

    #[test]
    fn a_removed_package_costs_the_rest_of_its_layer() {
        let before = modules(&[("a/x", "1"), ("b/x", "2")]);
        let after = modules(&[("a/x", "1")]);
        assert_eq!(new_layers(&split(&before, Split::Hash(1)), &split(&after, Split::Hash(1))).len(), 1);
        assert_eq!(new_layers(&split(&before, Split::Each), &split(&after, Split::Each)).len(), 0);
        assert_eq!(changed_packages(&before, &after).len(), 1);
    }
}
