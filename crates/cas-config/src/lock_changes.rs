//! What differs between two states of `cas.lock`, for people.

use std::collections::BTreeMap;

use cas_blob::Descriptor;

use crate::lock::{Lock, LockedDebian};

/// Digits of a digest that are shown.
const SHOWN_DIGITS: usize = 12;

/// Something that is pinned otherwise than before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockChange {
    /// The target's label.
    pub target: String,
    /// What of it: a package, or nothing for the whole.
    pub item: String,
    /// What was pinned; `None` for what is new.
    pub from: Option<String>,
    /// What is pinned; `None` for what is gone.
    pub to: Option<String>,
}

impl Lock {
    /// What a later state of this lock pins otherwise, by target and package.
    #[must_use]
    pub fn changes(&self, later: &Self) -> Vec<LockChange> {
        let mut changes = Vec::new();
        let debian = |lock: &Self| -> BTreeMap<(String, String), LockedDebian> {
            let entry = |entry: &LockedDebian| ((entry.target.clone(), entry.architecture.clone()), entry.clone());
            lock.debian.iter().map(entry).collect()
        };
        let (old, new) = (debian(self), debian(later));
        for ((target, architecture), from, to) in pairs(&old, &new) {
            let whole = |entry: &LockedDebian| {
                let count = entry.packages.len();
                format!("{count} package{} for {architecture}", if count == 1 { "" } else { "s" })
            };
            match (from, to) {
                (Some(from), Some(to)) => packages(target, from, to, &mut changes),
                (from, to) => changes.push(LockChange {
                    target: target.clone(),
                    item: String::new(),
                    from: from.map(whole),
                    to: to.map(whole),
                }),
            }
        }
        let mut others = |old: BTreeMap<String, String>, new: BTreeMap<String, String>| {
            for (target, from, to) in pairs(&old, &new).into_iter().filter(|(_, from, to)| from != to) {
                let (from, to) = (from.cloned(), to.cloned());
                changes.push(LockChange { target: target.clone(), item: String::new(), from, to });
            }
        };
        let images = |lock: &Self| -> BTreeMap<String, String> {
            let text = |entry: &crate::lock::LockedImage| format!("{} ({})", entry.request, short(&entry.document));
            lock.image.iter().map(|entry| (entry.target.clone(), text(entry))).collect()
        };
        others(images(self), images(later));
        let npm = |lock: &Self| -> BTreeMap<String, String> {
            let text = |entry: &crate::lock::LockedNpm| {
                let integrity: String = entry.integrity.chars().take("sha512-".len() + SHOWN_DIGITS).collect();
                format!("{} ({integrity})", entry.request)
            };
            lock.npm.iter().map(|entry| (entry.target.clone(), text(entry))).collect()
        };
        others(npm(self), npm(later));
        changes
    }
}

/// The packages of one target that differ.
fn packages(target: &str, from: &LockedDebian, to: &LockedDebian, changes: &mut Vec<LockChange>) {
    let by_name = |entry: &LockedDebian| -> BTreeMap<String, (String, Descriptor)> {
        entry.packages.iter().map(|package| (package.name.clone(), (package.version.clone(), package.blob))).collect()
    };
    let (old, new) = (by_name(from), by_name(to));
    for (name, from, to) in pairs(&old, &new).into_iter().filter(|(_, from, to)| from != to) {
        // One version with other bytes: a package that was built again.
        let is_rebuilt = from.zip(to).is_some_and(|(from, to)| from.0 == to.0);
        let text = |(version, blob): &(String, Descriptor)| match is_rebuilt {
            true => format!("{version} ({})", short(blob)),
            false => version.clone(),
        };
        let (from, to) = (from.map(text), to.map(text));
        changes.push(LockChange { target: target.to_owned(), item: name.clone(), from, to });
    }
}

fn short(blob: &Descriptor) -> String {
    let hex = blob.digest.to_hex();
    format!("{}:{}", blob.digest.function(), &hex[..SHOWN_DIGITS])
}

/// The keys of two maps with what each has.
fn pairs<'a, K: Ord, V>(
    old: &'a BTreeMap<K, V>,
    new: &'a BTreeMap<K, V>,
) -> Vec<(&'a K, Option<&'a V>, Option<&'a V>)> {
    let mut keys: Vec<&K> = old.keys().chain(new.keys()).collect();
    keys.sort_unstable();
    keys.dedup();
    keys.into_iter().map(|key| (key, old.get(key), new.get(key))).collect()
}

#[cfg(test)]
mod tests {
    use cas_digest::DigestFunction;
    use cas_tree::RelPath;

    use super::*;
    use crate::lock::{LockedImage, LockedNpm, LockedPackage};

    fn debian(target: &str, packages: &[(&str, &str, &str)]) -> LockedDebian {
        let package = |(name, version, content): &(&str, &str, &str)| LockedPackage {
            name: (*name).to_owned(),
            version: (*version).to_owned(),
            archive: 0,
            path: RelPath::new("pool/x.deb").expect("a path"),
            blob: Descriptor::of(DigestFunction::Sha256, content.as_bytes()),
        };
        LockedDebian {
            target: target.to_owned(),
            request: String::new(),
            architecture: "amd64".to_owned(),
            release_dates: vec![0],
            packages: packages.iter().map(package).collect(),
        }
    }

    #[test]
    fn every_kind_of_difference_is_told() {
        let image = |content: &[u8]| LockedImage {
            target: "//:base".to_owned(),
            request: "docker.io/library/node:22".to_owned(),
            document: Descriptor::of(DigestFunction::Sha256, content),
        };
        let npm = |version: &str| LockedNpm {
            target: "//:npm".to_owned(),
            request: format!("npm@{version}"),
            path: RelPath::new("npm.tgz").expect("a path"),
            integrity: "sha512-AAAAAAAAAAAAAAAAAAAA".to_owned(),
        };
        let old = Lock {
            debian: vec![
                debian("//:gone", &[("a", "1", "a")]),
                debian("//:node", &[("a", "1", "a"), ("b", "1", "b"), ("c", "1", "c"), ("d", "1", "d")]),
            ],
            image: vec![image(b"one")],
            npm: vec![npm("1")],
        };
        let new = Lock {
            debian: vec![debian("//:node", &[("a", "1", "a"), ("b", "2", "b2"), ("c", "1", "c2"), ("e", "1", "e")])],
            image: vec![image(b"two")],
            npm: vec![npm("2")],
        };
        let told: Vec<String> = old
            .changes(&new)
            .into_iter()
            .map(|LockChange { target, item, from, to }| {
                format!("{target} {item} {} > {}", from.unwrap_or_default(), to.unwrap_or_default())
            })
            .collect();
        assert_eq!(
            told,
            [
                "//:gone  1 package for amd64 > ",
                "//:node b 1 > 2",
                "//:node c 1 (sha256:2e7d2c03a950) > 1 (sha256:9c0abe51c6e6)",
                "//:node d 1 > ",
                "//:node e  > 1",
                "//:base  docker.io/library/node:22 (sha256:7692c3ad3540) > docker.io/library/node:22 (sha256:3fc4ccfe7458)",
                "//:npm  npm@1 (sha512-AAAAAAAAAAAA) > npm@2 (sha512-AAAAAAAAAAAA)",
            ]
        );
        assert_eq!(old.changes(&old), []);
    }
}
