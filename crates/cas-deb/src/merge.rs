//! One tree out of the trees of packages.
//!
//! Packages are taken in the order of their names, each brought to the layout of a merged `/usr` first. A directory keeps
//! the rights that the first package gave it, as dpkg does. A file belongs to one package: where two ship different files
//! at one path, the one that declares `Replaces` for the other wins, and without that it is an error.
//!
//! Not here: what maintainer scripts would add ([`crate::fix_up`]).

use cas_tree::{Directory, EditError, MergeRule, Metadata, Name, Node, RelPath};

use crate::{Control, RelationFieldError, Relations};

/// Directories of the root that are links into `/usr`: for each whether it is there even if no package has files in it.
const MERGED: [(&str, bool); 6] =
    [("bin", true), ("lib", true), ("lib32", false), ("lib64", false), ("libx32", false), ("sbin", true)];

/// Why packages do not make one tree.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// Two packages ship different files at one path, and none of them replaces the other.
    #[error("packages `{first}` and `{second}` both ship `{path}`, and differ there")]
    Overlap {
        /// The path in the merged layout.
        path: RelPath,
        /// Name and version of the package that comes first.
        first: String,
        /// Name and version of the other.
        second: String,
    },
    /// A package ships different files at `/x/y` and `/usr/x/y`, which are one path in the merged layout.
    #[error("package `{package}` ships `{path}` twice, outside of `/usr` and in it")]
    MergedUsr {
        /// Name and version of the package.
        package: String,
        /// The path in `/usr`.
        path: RelPath,
    },
    /// A package is given twice.
    #[error("package `{name}` is there twice")]
    Twice {
        /// Its name.
        name: String,
    },
    /// A package has a file where a directory has to be, or a hard link to nothing.
    #[error("the files of package `{package}` do not make a tree")]
    Tree {
        /// Name and version of the package.
        package: String,
        /// What is wrong.
        source: EditError,
    },
    /// The `Replaces` of a package cannot be parsed.
    #[error(transparent)]
    Field(#[from] RelationFieldError),
}

/// A package with the files of its data archive.
#[derive(Clone, Debug)]
pub struct Unpacked {
    /// Its control file.
    pub control: Control,
    /// Its files, as they are in the archive.
    pub tree: Directory,
}

struct Placed {
    name: Box<str>,
    label: String,
    control: Control,
    replaces: Relations,
    tree: Directory,
}

impl Placed {
    fn replaces(&self, other: &Self) -> bool {
        self.replaces.flat().any(|relation| relation.name == other.name && relation.accepts(&other.control.version))
    }
}

/// Merges the files of packages into one tree with a merged `/usr`.
///
/// The order in which they are given does not matter.
///
/// # Errors
///
/// [`MergeError`]
pub fn merge(packages: impl IntoIterator<Item = Unpacked>) -> Result<Directory, MergeError> {
    let mut packages: Vec<Unpacked> = packages.into_iter().collect();
    packages.sort_by(|left, right| left.control.name.cmp(&right.control.name));
    let mut root = Directory::root();
    let mut placed: Vec<Placed> = Vec::with_capacity(packages.len());
    for Unpacked { control, tree } in packages {
        if placed.last().is_some_and(|last| last.name == control.name) {
            return Err(MergeError::Twice { name: control.name.into() });
        }
        let package = Placed {
            name: control.name.clone(),
            label: control.to_string(),
            replaces: control.replaces()?,
            tree: merge_usr(tree, &control)?,
            control,
        };
        let mut winner = None;
        let mut rule = |path: &RelPath, old: &Node, new: &Node| {
            if matches!((old, new), (Node::Directory(_), Node::Directory(_))) {
                return MergeRule::KeepOld;
            }
            let owner = owner(&placed, path, old);
            winner = owner.map(|owner| owner.label.clone());
            match owner.map(|owner| (package.replaces(owner), owner.replaces(&package))) {
                Some((true, false)) => MergeRule::KeepNew,
                Some((false, true)) => MergeRule::KeepOld,
                _ => MergeRule::Refuse,
            }
        };
        let merged = root.merge(&package.tree, &mut rule);
        if let Err(conflict) = merged {
            return Err(MergeError::Overlap {
                path: conflict.path,
                first: winner.unwrap_or_default(),
                second: package.label,
            });
        }
        placed.push(package);
    }
    for (name, always) in MERGED {
        let name = Name::new(name).expect("the table holds names");
        let inside = usr().join(&name);
        if root.get(&inside).is_none() && always {
            insert(&mut root, &inside, Node::Directory(Directory::root().into()), "the merged layout")?;
        }
        if root.get(&inside).is_some() {
            insert(&mut root, &RelPath::from(name), Node::symlink(inside.as_bytes()), "the merged layout")?;
        }
    }
    Ok(root)
}

/// The package whose node stands at a path of the merged tree.
fn owner<'placed>(placed: &'placed [Placed], path: &RelPath, node: &Node) -> Option<&'placed Placed> {
    let ships = |package: &&Placed| package.tree.get(path).is_some();
    let same = |package: &&Placed| package.tree.get(path) == Some(node);
    placed.iter().rev().find(same).or_else(|| placed.iter().rev().find(ships))
}

fn usr() -> RelPath {
    RelPath::new("usr").expect("it is a name")
}

fn insert(tree: &mut Directory, path: &RelPath, node: Node, package: &str) -> Result<(), MergeError> {
    tree.insert(path, node, &Metadata::root_owned(0o755))
        .map_err(|source| MergeError::Tree { package: package.to_owned(), source })
}

/// Where a path of a package is in the merged layout.
fn merged_path(path: &RelPath) -> Option<RelPath> {
    let first = path.components().next()?;
    MERGED.iter().any(|(name, _)| name.as_bytes() == first).then(|| usr().join_path(path))
}

/// Moves what a package ships in `/bin`, `/lib` and the like to where it is in the merged layout.
fn merge_usr(tree: Directory, control: &Control) -> Result<Directory, MergeError> {
    let mut moved = Vec::new();
    for (name, _) in MERGED {
        match tree.entry(name.as_bytes()) {
            None => {}
            Some(Node::Directory(_)) => moved.push(name),
            // The links themselves, which base-files has shipped since Debian 13, are made at the end.
            Some(Node::Symlink { target, .. }) if is_merged_link(target, name) => moved.push(name),
            Some(_) => {
                let path = usr().join(&Name::new(name).expect("the table holds names"));
                return Err(MergeError::MergedUsr { package: control.to_string(), path });
            }
        }
    }
    if moved.is_empty() {
        return Ok(tree);
    }
    let package = control.to_string();
    let mut result = tree.clone();
    for name in moved {
        result.remove(&RelPath::new(name).expect("the table holds names"));
    }
    for (path, node) in tree.walk() {
        let Some(inside) = merged_path(&path) else { continue };
        let node = match node {
            Node::Link { .. } => continue,
            Node::Symlink { .. } if path.parent().is_none() => continue,
            Node::Directory(directory) => {
                if result.get_directory(&inside).is_some() {
                    continue;
                }
                Node::Directory(Directory::new(directory.metadata.clone()).into())
            }
            node => node.clone(),
        };
        match result.get(&inside) {
            Some(old) if *old == node => {}
            Some(_) => return Err(MergeError::MergedUsr { package, path: inside }),
            None => insert(&mut result, &inside, node, &package)?,
        }
    }
    // Names of one file may be on both sides; removing one side has made files of the links to it.
    for (path, target) in tree.links() {
        let (inside, target_inside) = (merged_path(&path), merged_path(&target));
        if inside.is_none() && target_inside.is_none() {
            continue;
        }
        let (inside, target) = (inside.unwrap_or(path), target_inside.unwrap_or(target));
        match result.get(&inside) {
            Some(old) if result.file_of(old) != result.get_file(&target) => {
                return Err(MergeError::MergedUsr { package, path: inside });
            }
            _ => insert(&mut result, &inside, Node::Link { target }, &package)?,
        }
    }
    Ok(result)
}

fn is_merged_link(target: &[u8], name: &str) -> bool {
    let target = target.strip_prefix(b"/").unwrap_or(target);
    target.strip_prefix(b"usr/").is_some_and(|rest| rest == name.as_bytes())
}

#[cfg(test)]
mod tests {
    use cas_blob::Descriptor;
    use cas_digest::DigestFunction;

    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::new(text).expect("a path")
    }

    /// A tree from short forms: `path` is a file that holds its own path, `path=text` one that holds a text,
    /// `path->target` a symbolic link, `path=>path` a hard link, `path/mode` a directory.
    fn tree(entries: &[&str]) -> Directory {
        let mut tree = Directory::root();
        for entry in entries {
            let file = |text: &str| Node::file(Descriptor::of(DigestFunction::Blake3, text.as_bytes()), 0o644);
            let (at, node) = if let Some((at, target)) = entry.split_once("->") {
                (at, Node::symlink(target))
            } else if let Some((at, target)) = entry.split_once("=>") {
                (at, Node::Link { target: path(target) })
            } else if let Some((at, text)) = entry.split_once('=') {
                (at, file(text))
            } else if let Some((at, mode)) = entry.rsplit_once('/').filter(|(_, mode)| mode.parse::<u32>().is_ok()) {
                let mode = u32::from_str_radix(mode, 8).expect("a mode");
                (at, Node::Directory(Directory::new(Metadata::root_owned(mode)).into()))
            } else {
                (*entry, file(entry))
            };
            tree.insert(&path(at), node, &Metadata::root_owned(0o755)).expect("nothing is in the way");
        }
        tree
    }

    fn package(control: &str, entries: &[&str]) -> Unpacked {
        let (name, replaces) = control.split_once(" replaces ").unwrap_or((control, ""));
        let control = format!("Package: {name}\nVersion: 1\nArchitecture: all\nReplaces: {replaces}\n");
        Unpacked { control: Control::parse(control.as_bytes()).expect("a control file"), tree: tree(entries) }
    }

    fn listing(tree: &Directory) -> Vec<String> {
        tree.walk()
            .filter_map(|(path, node)| match node {
                Node::Directory(_) => None,
                Node::Symlink { target, .. } => Some(format!("{path} -> {}", String::from_utf8_lossy(target))),
                Node::Link { target } => Some(format!("{path} => {target}")),
                _ => Some(path.to_string()),
            })
            .collect()
    }

    const LINKS: [&str; 3] = ["bin -> usr/bin", "lib -> usr/lib", "sbin -> usr/sbin"];

    #[test]
    fn the_layout_is_merged() {
        let merged = merge([
            package("z", &["usr/bin/z", "lib64/ld.so->/lib/ld.so", "sbin/z-init"]),
            package("a", &["bin/sh->dash", "bin/dash", "usr/lib/a/x", "lib/a/y"]),
        ])
        .expect("they fit");
        assert_eq!(
            listing(&merged),
            [
                LINKS[0],
                LINKS[1],
                "lib64 -> usr/lib64",
                LINKS[2],
                "usr/bin/dash",
                "usr/bin/sh -> dash",
                "usr/bin/z",
                "usr/lib/a/x",
                "usr/lib/a/y",
                "usr/lib64/ld.so -> /lib/ld.so",
                "usr/sbin/z-init",
            ]
        );
        // The links themselves in a package, as in Debian 13, change nothing.
        let modern = merge([package("base", &["bin->usr/bin", "lib->/usr/lib", "sbin->usr/sbin"])]).expect("they fit");
        assert_eq!(listing(&modern), LINKS);
        assert_eq!(modern, merge([]).expect("nothing is a tree, too"));
    }

    #[test]
    fn hard_links_follow_their_files() {
        let merged = merge([package("bzip2", &["bin/b", "bin/c=>bin/b", "usr/bin/a=>bin/b", "usr/bin/d=>bin/c"])])
            .expect("fits");
        assert_eq!(
            listing(&merged),
            [
                LINKS[0],
                LINKS[1],
                LINKS[2],
                "usr/bin/a",
                "usr/bin/b => usr/bin/a",
                "usr/bin/c => usr/bin/a",
                "usr/bin/d => usr/bin/a"
            ]
        );
    }

    #[test]
    fn one_package_may_not_use_both_sides_for_different_files() {
        let same = merge([package("a", &["bin/x=1", "usr/bin/x=1"])]).expect("they are equal");
        assert_eq!(listing(&same), [LINKS[0], LINKS[1], LINKS[2], "usr/bin/x"]);
        for entries in [&["bin/x=1", "usr/bin/x=2"][..], &["bin"], &["bin->elsewhere"]] {
            let error = merge([package("a", entries)]).expect_err("they differ");
            assert!(matches!(error, MergeError::MergedUsr { .. }), "{entries:?} {error}");
        }
        let error = merge([package("a", &["bin/x=1", "usr/bin/x=2"])]).expect_err("they differ");
        assert_eq!(error.to_string(), "package `a 1` ships `usr/bin/x` twice, outside of `/usr` and in it");
    }

    #[test]
    fn a_file_belongs_to_one_package() {
        let content = |merged: &Directory| merged.get_file(&path("usr/bin/x")).expect("it is there").1;
        let of = |text: &str| Descriptor::of(DigestFunction::Blake3, text.as_bytes());
        for (first, second, expected) in [
            (package("a", &["usr/bin/x=1"]), package("b", &["bin/x=1"]), Ok("1")),
            (package("a", &["usr/bin/x=1"]), package("b replaces a", &["bin/x=2"]), Ok("2")),
            (package("a replaces b (<< 2)", &["usr/bin/x=1"]), package("b", &["bin/x=2"]), Ok("1")),
            (package("a replaces b (>> 2)", &["usr/bin/x=1"]), package("b", &["bin/x=2"]), Err(())),
            (package("a replaces b", &["usr/bin/x=1"]), package("b replaces a", &["bin/x=2"]), Err(())),
            (package("a", &["usr/bin/x=1"]), package("b", &["bin/x=2"]), Err(())),
            (package("a", &["usr/bin/x=1"]), package("b", &["bin/x->y"]), Err(())),
            (package("a", &["usr/bin/x=1"]), package("b", &["bin/x/y"]), Err(())),
        ] {
            let both = [merge([first.clone(), second.clone()]), merge([second, first])];
            for merged in both {
                match (merged, expected) {
                    (Ok(merged), Ok(expected)) => assert_eq!(content(&merged), of(expected)),
                    (Err(error), Err(())) => {
                        assert_eq!(
                            error.to_string(),
                            "packages `a 1` and `b 1` both ship `usr/bin/x`, and differ there"
                        );
                    }
                    (merged, expected) => panic!("{merged:?} {expected:?}"),
                }
            }
        }
        assert!(matches!(merge([package("a", &[]), package("a", &[])]), Err(MergeError::Twice { .. })));
    }

    #[test]
    fn the_owner_is_the_one_that_won_before() {
        let error = merge([
            package("a", &["usr/bin/x=1"]),
            package("b replaces a", &["usr/bin/x=2"]),
            package("c replaces a", &["usr/bin/x=3"]),
        ])
        .expect_err("the third does not replace the second");
        assert_eq!(error.to_string(), "packages `b 1` and `c 1` both ship `usr/bin/x`, and differ there");
    }

    #[test]
    fn a_directory_keeps_the_rights_of_the_first_package() {
        let merged = merge([package("b", &["tmp/0755"]), package("a", &["tmp/1777"])]).expect("they fit");
        assert_eq!(merged.get_directory(&path("tmp")).expect("it is there").metadata.mode, 0o1777);
    }
}
