//! Into which layers a tree is cut, so that a change of some packages leaves most layers as they are.
//!
//! The rules follow from the tree and a number of layers alone, and from what seldom changes in them: names, which of the packages are
//! the large ones, the power of two below a size. docs/formats/cut.md has them, `docs/benchmarks/bumps.md` what they gain. What they
//! read (`package`, `rules`, the limits of `image`) is part of the digest of images: a change of it is one of the rules, and the number
//! of the memos that keep what was cut goes up with it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use cas_blob::Descriptor;
use cas_digest::{Digest, DigestFunction};
use cas_tree::{Directory, Node, RelPath};

use crate::image::{Entry, Image, LayerFacts, What};
use crate::package::Packages;
use crate::rules::{APK_DATABASES, DPKG_STATUS, HIDDEN_LOCK, Want, wanted};

/// A tree is not cut into more layers than it has of these.
const BYTES_PER_LAYER: u64 = 256 << 10;
/// A smaller tree is one layer.
const MIN_TREE_BYTES: u64 = 1 << 20;
/// Files of this size leave the rest of their package.
const LARGE_FILE_BYTES: u64 = 1 << 20;
/// What an entry takes beside its content.
const ENTRY_BYTES: u64 = 512;
/// Layers of others count as a multiple of these, so that one more or less leaves everything else as it is.
const STEP: usize = 8;
/// The part of all layers that a root below the others gets: it changes less often than they do.
const ROOT_SHARE: usize = 5;
/// Weights from one power of two to the next at which pieces begin to have a layer alone, as multiples of 1/128.
const STEPS_OF_AN_OCTAVE: [u64; 4] = [128, 152, 181, 215];
/// Longest name of a package that is looked at: those that begin alike are one.
const MAX_NAME_LETTERS: usize = 200;
/// How much more often than others a package changes that somebody chose.
const CHOSEN_WEIGHT: u64 = 8;

/// Into how many layers a tree would be cut.
#[must_use]
pub fn layers_for(tree: &Directory) -> usize {
    let (mut bytes, mut note_count, mut other_count) = (0, 0, 0);
    for (path, node) in tree.walk() {
        match node {
            Node::Directory(_) => continue,
            Node::File { blob, .. } => bytes += blob.size,
            _ => {}
        }
        if is_note(&path) { note_count += 1 } else { other_count += 1 }
    }
    // Notes are apart from anything else.
    let least = if note_count > 0 && other_count > 0 { 2 } else { 1 };
    layers_of(bytes).max(least)
}

/// Into how many layers so many bytes are cut: a power of two.
const fn layers_of(bytes: u64) -> usize {
    if bytes < MIN_TREE_BYTES {
        return 1;
    }
    // More than an image can have is as good as that.
    let layers = bytes / BYTES_PER_LAYER;
    if layers >= 1 << 10 { 1 << 10 } else { 1 << layers.ilog2() }
}

/// How many layers each tree of an image gets. `most` is how many the image may have, `below` how many are there already;
/// `root` is what [`layers_for`] says of a root below the others, where there is one, `wanted` what it says of the others.
///
/// The root's share does not depend on the others, so that images over one root have equal layers of it.
#[must_use]
pub fn shares(most: usize, below: usize, root: Option<usize>, wanted: &[usize]) -> (usize, Vec<usize>) {
    let root = root.map_or(0, |wanted| wanted.min((most / ROOT_SHARE).max(1)));
    let mut left = most.saturating_sub(below.next_multiple_of(STEP)).saturating_sub(root);
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_by_key(|index| (wanted[*index], *index));
    let mut shares = vec![1; wanted.len()];
    for (done, index) in order.into_iter().enumerate() {
        // What small trees leave is for the larger ones.
        let share = wanted[index].min(left / (wanted.len() - done)).max(1);
        shares[index] = share;
        left = left.saturating_sub(share);
    }
    (root, shares)
}

/// The files that tell which packages a tree has.
pub fn telling(tree: &Directory) -> impl Iterator<Item = (RelPath, Descriptor)> + '_ {
    tree.walk().filter_map(|(path, node)| match node {
        Node::File { blob, .. } if wanted(&path) == Want::Whole => Some((path, *blob)),
        _ => None,
    })
}

/// Cuts a tree into at most so many parts, each with what it is called. `contents` are those of the files that [`telling`] names,
/// as far as they could be read; what is not there tells nothing.
///
/// The parts over each other are the tree, in any order. A tree that removes something from what is below it stays whole.
#[must_use]
pub fn cut(tree: &Directory, contents: BTreeMap<RelPath, Vec<u8>>, most: usize) -> BTreeMap<String, Directory> {
    let takes_away = |node: &Node| match node {
        Node::Directory(directory) => directory.opaque,
        node => matches!(node, Node::Whiteout),
    };
    let most = most.min(layers_for(tree));
    if most < 2 || tree.opaque || tree.walk().any(|(_, node)| takes_away(node)) {
        return BTreeMap::from([(String::new(), tree.clone())]);
    }
    let pieces = Pieces::of(tree, contents);
    let layers = pieces.layers(most);
    // A link whose file is not there is not found in a tree that was checked; it would be of no part.
    tree.partition(&mut |path| {
        pieces.by_path.get(path).map_or_else(|| NOTES.to_owned(), |piece| layers[*piece].clone())
    })
}

/// What stays together.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Piece {
    /// What it is called where it is a layer.
    name: String,
    /// What leads to its layer where it is none: with a large file goes its package.
    home: String,
    bytes: u64,
    /// Whether somebody chose it, and not only what needs it: it changes when they say so, and without the rest.
    is_chosen: bool,
}

struct Pieces {
    pieces: Vec<Piece>,
    by_path: BTreeMap<RelPath, usize>,
}

impl Pieces {
    fn of(tree: &Directory, contents: BTreeMap<RelPath, Vec<u8>>) -> Self {
        let Owners { names, chosen } = Owners::of(tree, contents);
        let (mut pieces, mut by_path): (Vec<Piece>, BTreeMap<RelPath, usize>) = (Vec::new(), BTreeMap::new());
        let mut numbers: BTreeMap<String, usize> = BTreeMap::new();
        for (path, node) in tree.walk() {
            let size = match node {
                Node::Directory(directory) if !directory.is_empty() => continue,
                Node::Link { target } => {
                    if let Some(file) = by_path.get(target) {
                        pieces[*file].bytes += ENTRY_BYTES;
                    }
                    continue;
                }
                Node::File { blob, .. } => blob.size,
                _ => 0,
            };
            let home = names.get(&path).cloned().unwrap_or_else(|| unowned(&path));
            let is_alone = size >= LARGE_FILE_BYTES;
            let name = if is_alone { format!("{home} {path}") } else { home.clone() };
            let number = *numbers.entry(name.clone()).or_insert_with(|| {
                let is_chosen = chosen.contains(&home);
                pieces.push(Piece { name, home, bytes: 0, is_chosen });
                pieces.len() - 1
            });
            pieces[number].bytes += size + ENTRY_BYTES;
            by_path.insert(path, number);
        }
        Self { pieces, by_path }
    }

    /// The layer of each piece: large ones have one alone, the others share some, by their names.
    fn layers(&self, most: usize) -> Vec<String> {
        let has_notes = self.pieces.iter().any(|piece| piece.name == NOTES);
        let room = most.saturating_sub((most / 4).max(1) + usize::from(has_notes));
        let threshold = self.threshold(room);
        let alone = self.pieces.iter().filter(|piece| piece.name != NOTES && piece.weight() >= threshold).count();
        // In quarters, so that a piece more or less seldom changes it.
        let quarters = 3 - (4 * alone / most).min(2);
        let shared = (quarters * most / 4).min(most.saturating_sub(alone + usize::from(has_notes))).max(1);
        let layer = |piece: &Piece| {
            if piece.name == NOTES || piece.weight() >= threshold {
                piece.name.clone()
            } else {
                format!("others {:02}", bucket(&piece.home, shared))
            }
        };
        self.pieces.iter().map(layer).collect()
    }

    /// The smallest weight of a piece that has a layer alone, so that there are at most so many.
    ///
    /// It goes in steps: a piece that comes or goes leaves the others where they are, but for those between two steps, now and then.
    fn threshold(&self, most: usize) -> u64 {
        let mut weights: Vec<u64> = self.pieces.iter().filter(|piece| piece.name != NOTES).map(Piece::weight).collect();
        weights.sort_unstable_by_key(|weight| Reverse(*weight));
        // The heaviest of those that do not fit.
        let Some(first_out) = weights.get(most) else { return 0 };
        let mut steps =
            (0..50).flat_map(|octave| STEPS_OF_AN_OCTAVE.map(|step| (step << octave) / STEPS_OF_AN_OCTAVE[0]));
        steps.find(|step| step > first_out).unwrap_or(u64::MAX)
    }
}

impl Piece {
    /// Bytes, times how much more often it changes than others.
    fn weight(&self) -> u64 {
        self.bytes.saturating_mul(if self.is_chosen { CHOSEN_WEIGHT } else { 1 })
    }
}

/// What package managers note of all that they installed.
const NOTES: &str = "notes of packages";

/// What a file belongs to that no package has: its folder.
fn unowned(path: &RelPath) -> String {
    if is_note(path) || is_changelog(path) {
        return NOTES.to_owned();
    }
    let parent = path.parent().map(|parent| parent.to_string()).unwrap_or_default();
    let parts: Vec<&str> = parent.split('/').collect();
    // Below `usr` folders are by what is in them and not by package, down to where most packages have one of their own.
    let depth = match parts[..] {
        ["usr", "share", "doc", ..] => 4,
        ["usr", "share", ..] => 3,
        ["usr", ..] => 4,
        _ => parts.len(),
    };
    format!("in /{}", parts[..parts.len().min(depth)].join("/"))
}

/// Whether a file tells what changed in a package of Debian, so that it changes with any version of it. Where a database says whose
/// it is, it stays with its package.
fn is_changelog(path: &RelPath) -> bool {
    let text = std::str::from_utf8(path.as_bytes()).unwrap_or_default();
    let below = text.strip_prefix("usr/share/doc/").and_then(|below| below.split_once('/'));
    below.is_some_and(|(_, name)| name.starts_with("changelog.Debian"))
}

/// Whether a file says what is installed or needed, so that it changes when any package does.
fn is_note(path: &RelPath) -> bool {
    let text = std::str::from_utf8(path.as_bytes()).unwrap_or_default();
    if let Some((_, below)) = text.rsplit_once("node_modules/") {
        return text.ends_with(HIDDEN_LOCK) || below.starts_with(".bin/");
    }
    let name = text.rsplit('/').next().unwrap_or_default();
    SYSTEM_NOTES.contains(&text) || APK_DATABASES.contains(&text) || OWN_NOTES.contains(&name)
}

/// Notes of what a system has.
const SYSTEM_NOTES: [&str; 4] = [DPKG_STATUS, "var/lib/dpkg/status-old", "var/lib/dpkg/available", "etc/ld.so.cache"];
/// Notes of what a program needs, in any folder: a bump changes them and little else.
const OWN_NOTES: [&str; 8] = [
    "package.json",
    "package-lock.json",
    "npm-shrinkwrap.json",
    "yarn.lock",
    "pnpm-lock.yaml",
    "Cargo.lock",
    "requirements.txt",
    "poetry.lock",
];

/// Which of so many layers a name leads to.
fn bucket(name: &str, count: usize) -> u64 {
    let digest = Digest::of(DigestFunction::Blake3, name.as_bytes());
    let head = digest.value().iter().take(8).fold(0u64, |head, byte| (head << 8) | u64::from(*byte));
    head % count as u64
}

/// Whose files are.
#[derive(Default)]
struct Owners {
    /// Packages by the paths of their files, without versions.
    names: BTreeMap<RelPath, String>,
    /// Packages that no other one needs.
    chosen: BTreeSet<String>,
}

impl Owners {
    fn of(tree: &Directory, contents: BTreeMap<RelPath, Vec<u8>>) -> Self {
        if contents.is_empty() {
            return Self::default();
        }
        let image = image(tree, contents);
        let packages = Packages::of(&image);
        let name = |package: usize| {
            let package = &packages.packages[package];
            // A name can be anything that a file says.
            let name: String =
                package.name.chars().filter(|letter| !letter.is_control()).take(MAX_NAME_LETTERS).collect();
            format!("{} {name}", package.ecosystem)
        };
        let names = image.visible().filter_map(|(path, number)| Some((path, name(*packages.owners.get(&number)?))));
        let is_chosen = |package: &usize| {
            let package = &packages.packages[*package];
            package.ecosystem == "npm" && !packages.needed.contains(&package.name)
        };
        let chosen = (0..packages.packages.len()).filter(is_chosen).map(name).collect();
        Self { names: names.collect(), chosen }
    }
}

/// The tree as an image of one layer.
fn image(tree: &Directory, mut contents: BTreeMap<RelPath, Vec<u8>>) -> Image {
    let mut image = Image::new();
    image.begin_layer();
    for (path, node) in tree.walk() {
        let content = contents.remove(&path).unwrap_or_default();
        let (what, bytes) = match node {
            Node::Directory(directory) => {
                (What::Node(Node::Directory(Directory::new(directory.metadata.clone()).into())), 0)
            }
            Node::Link { target } => (What::Link(target.clone()), 0),
            Node::File { blob, .. } => (What::Node(node.clone()), blob.size),
            node => (What::Node(node.clone()), 0),
        };
        let entry = Entry { path: Some(path), what, bytes: bytes + ENTRY_BYTES, header_bytes: ENTRY_BYTES, content };
        // What has no place in there has no package.
        let _ = image.add(entry);
    }
    image.end_layer(LayerFacts::default());
    image
}

#[cfg(test)]
mod tests {
    use cas_tree::Metadata;

    use super::*;

    /// Files with what they hold; contents are told by their length and a letter.
    fn tree(files: &[(&str, u64, &str)]) -> Directory {
        let mut tree = Directory::root();
        for (path, size, content) in files {
            let blob = Descriptor { digest: Digest::of(DigestFunction::Blake3, content.as_bytes()), size: *size };
            let path = RelPath::new(*path).expect("a path");
            tree.insert(&path, Node::file(blob, 0o644), &Metadata::root_owned(0o755))
                .expect("no file is above another");
        }
        tree
    }

    fn manifests(tree: &Directory) -> BTreeMap<RelPath, Vec<u8>> {
        let manifest = |path: &RelPath| {
            let text = path.to_string();
            let name = crate::rules::npm_folder(&text)?.rsplit_once("node_modules/")?.1.to_owned();
            Some(format!("{{\"name\":\"{name}\",\"version\":\"1.0.0\"}}").into_bytes())
        };
        telling(tree).filter_map(|(path, _)| Some((path.clone(), manifest(&path)?))).collect()
    }

    fn parts(files: &[(&str, u64, &str)], most: usize) -> BTreeMap<String, Directory> {
        let tree = tree(files);
        let parts = cut(&tree, manifests(&tree), most);
        let mut again = Directory::root();
        parts.values().for_each(|part| again.apply_layer(part));
        assert_eq!(again, tree);
        assert!(parts.len() <= most.max(1), "{} of {most}", parts.len());
        parts
    }

    /// Packages of so many bytes each, with their `package.json`.
    fn modules(sizes: &[u64]) -> Vec<(String, u64, String)> {
        let mut files = Vec::new();
        for (number, size) in sizes.iter().enumerate() {
            files.push((format!("app/node_modules/p{number}/package.json"), 100, format!("m{number}")));
            files.push((format!("app/node_modules/p{number}/index.js"), *size, format!("i{number}")));
        }
        files
    }

    fn borrowed(files: &[(String, u64, String)]) -> Vec<(&str, u64, &str)> {
        files.iter().map(|(path, size, content)| (path.as_str(), *size, content.as_str())).collect()
    }

    #[test]
    fn layers_follow_the_size_in_steps() {
        for (bytes, expected) in [
            (0, 1),
            ((1 << 20) - 1, 1),
            (1 << 20, 4),
            ((2 << 20) - 1, 4),
            (2 << 20, 8),
            (50 << 20, 128),
            (u64::MAX, 1 << 10),
        ] {
            assert_eq!(layers_of(bytes), expected, "{bytes}");
        }
    }

    #[test]
    fn shares_are_within_what_an_image_may_have() {
        for (most, below, root, wanted, expected) in [
            (100, 0, None, &[1, 128][..], (0, vec![1, 99])),
            (100, 0, Some(256), &[1, 128], (20, vec![1, 79])),
            (100, 0, Some(4), &[128], (4, vec![96])),
            // Another image over the same root has the same share of it.
            (100, 0, Some(256), &[1024, 1024, 1024], (20, vec![26, 27, 27])),
            (100, 3, None, &[128], (0, vec![92])),
            (100, 8, None, &[128], (0, vec![92])),
            (100, 9, None, &[128], (0, vec![84])),
            (100, 127, None, &[128, 4], (0, vec![1, 1])),
            (1, 0, Some(256), &[128], (1, vec![1])),
            (100, 0, None, &[], (0, vec![])),
            (100, 0, None, &[64, 4, 1024], (0, vec![48, 4, 48])),
        ] {
            assert_eq!(shares(most, below, root, wanted), expected, "{most} {below} {root:?} {wanted:?}");
        }
    }

    #[test]
    fn nothing_and_little_is_one_layer() {
        assert_eq!(parts(&[], 100).into_keys().collect::<Vec<_>>(), [""]);
        assert_eq!(parts(&[("a", 1000, "x"), ("b/c", 1000, "y")], 100).len(), 1);
        assert_eq!(parts(&[("a", 9 << 30, "x")], 1).into_keys().collect::<Vec<_>>(), [""]);
    }

    #[test]
    fn one_giant_file_is_one_layer() {
        assert_eq!(parts(&[("d/a", 9 << 30, "x")], 100).into_keys().collect::<Vec<_>>(), ["in /d d/a"]);
    }

    #[test]
    fn what_no_package_has_goes_by_its_folder() {
        for (path, expected) in [
            ("file", "in /"),
            ("a/file", "in /a"),
            ("srv/app/src/main/java/org/file", "in /srv/app/src/main/java/org"),
            ("usr/bin/file", "in /usr/bin"),
            ("usr/lib/x86_64-linux-gnu/file", "in /usr/lib/x86_64-linux-gnu"),
            ("usr/lib/x86_64-linux-gnu/perl/5.36.0/auto/file", "in /usr/lib/x86_64-linux-gnu/perl"),
            ("usr/share/locale/de/LC_MESSAGES/file", "in /usr/share/locale"),
            ("usr/share/perl/5.36.0/file", "in /usr/share/perl"),
            ("usr/share/doc/tar/file", "in /usr/share/doc/tar"),
            ("usr/share/doc/tar/examples/file", "in /usr/share/doc/tar"),
            ("usr/share/file", "in /usr/share"),
            ("usr/share/doc/tar/changelog.gz", "in /usr/share/doc/tar"),
            ("usr/share/doc/tar/changelog.Debian.gz", NOTES),
            ("usr/share/doc/tar/changelog.Debian.amd64.gz", NOTES),
            ("srv/usr/share/doc/tar/changelog.Debian.gz", "in /srv/usr/share/doc/tar"),
            ("etc/ld.so.cache", NOTES),
        ] {
            assert_eq!(unowned(&RelPath::new(path).expect("a path")), expected, "{path}");
        }
    }

    /// What changed in a package is told in its folder, beside what stays: that layer stays, too.
    #[test]
    fn a_new_version_leaves_the_documents_of_others() {
        let names: Vec<String> = (0..200).map(|number| format!("usr/share/doc/p{number}")).collect();
        let files = |version: &str| {
            let of = |name: &String| {
                let changes = if name.ends_with("/p7") { version.to_owned() } else { name.clone() };
                [
                    (format!("{name}/copyright"), 40_000, name.clone()),
                    (format!("{name}/changelog.Debian.gz"), 4000, changes),
                ]
            };
            names.iter().flat_map(of).collect::<Vec<_>>()
        };
        let (before, after) = (files("1"), files("2"));
        let (old, new) = (parts(&borrowed(&before), 24), parts(&borrowed(&after), 24));
        let changed: Vec<&String> =
            new.iter().filter(|(name, part)| old.get(*name) != Some(part)).map(|(name, _)| name).collect();
        assert_eq!(changed, [NOTES]);
    }

    #[test]
    fn what_takes_away_is_not_cut() {
        let mut tree = tree(&[("a/x", 1 << 30, "x"), ("b/y", 1 << 30, "y")]);
        tree.insert(&RelPath::new("c").expect("a path"), Node::Whiteout, &Metadata::root_owned(0o755))
            .expect("it is free");
        assert_eq!(cut(&tree, BTreeMap::new(), 100).len(), 1);
    }

    #[test]
    fn a_change_of_a_package_changes_its_layer_alone() {
        let sizes: Vec<u64> = (1..=200).map(|number| number * 3000).collect();
        let before = modules(&sizes);
        let old = parts(&borrowed(&before), 64);
        assert!((36..=64).contains(&old.len()), "{}", old.len());
        // One that has a layer, and one that shares one; both grow a little.
        for (number, shares) in [(180, false), (3, true)] {
            let mut after = before.clone();
            let path = format!("app/node_modules/p{number}/index.js");
            let file = after.iter_mut().find(|(name, ..)| *name == path).expect("there is one");
            file.1 += 10;
            file.2.push('x');
            let new = parts(&borrowed(&after), 64);
            let changed: Vec<&String> =
                new.iter().filter(|(name, part)| old.get(*name) != Some(part)).map(|(name, _)| name).collect();
            assert_eq!(changed.len(), 1, "{changed:?}");
            assert_eq!(changed[0].starts_with("others "), shares, "{changed:?}");
        }
        // A further small one changes the layer that it shares.
        let mut after = before.clone();
        after.push(("app/node_modules/new/package.json".to_owned(), 100, "n".to_owned()));
        let new = parts(&borrowed(&after), 64);
        assert_eq!(new.values().filter(|part| !old.values().any(|old| old == *part)).count(), 1);
    }

    #[test]
    fn large_files_leave_their_package_and_notes_all_others() {
        let mut files = modules(&[3 << 20, 200_000, 200_000, 200_000]);
        files.push(("app/node_modules/p0/small.js".to_owned(), 10, "s".to_owned()));
        files.push(("app/node_modules/.package-lock.json".to_owned(), 10, "l".to_owned()));
        let names: Vec<String> = parts(&borrowed(&files), 100).into_keys().collect();
        assert!(names.contains(&"npm p0 app/node_modules/p0/index.js".to_owned()), "{names:?}");
        assert!(names.contains(&"notes of packages".to_owned()), "{names:?}");
        assert!(names.contains(&"npm p1".to_owned()), "{names:?}");
    }

    #[test]
    fn notes_leave_even_a_small_tree() {
        let names: Vec<String> =
            parts(&[("app/package.json", 100, "p"), ("app/server.js", 300, "s")], 100).into_keys().collect();
        assert_eq!(names, ["notes of packages", "others 00"]);
        assert_eq!(parts(&[("app/package.json", 100, "p")], 100).len(), 1);
        assert_eq!(parts(&[("app/package.json", 100, "p"), ("app/server.js", 300, "s")], 1).len(), 1);
    }

    /// Of packages of one size those that somebody chose have a layer, and the others share some.
    #[test]
    fn what_somebody_chose_comes_before_what_that_needs() {
        let files = modules(&[90_000; 100]);
        let tree = tree(&borrowed(&files));
        let mut contents = manifests(&tree);
        let needs: Vec<String> = (10..100).map(|number| format!("\"p{number}\":\"1\"")).collect();
        let path = RelPath::new("app/node_modules/p0/package.json").expect("a path");
        let text = format!("{{\"name\":\"p0\",\"version\":\"1.0.0\",\"dependencies\":{{{}}}}}", needs.join(","));
        contents.insert(path, text.into_bytes());
        let parts = cut(&tree, contents, 100);
        let alone: Vec<&String> = parts.keys().filter(|name| name.starts_with("npm ")).collect();
        assert_eq!(alone.len(), 10, "{alone:?}");
        assert!(alone.iter().all(|name| name.len() == "npm p0".len()), "{alone:?}");
    }

    #[test]
    fn names_of_one_file_stay_together() {
        let mut tree = tree(&[("a/x", 2 << 20, "x"), ("b/y", 3 << 20, "y"), ("c/z", 700_000, "z")]);
        let (link, target) = (RelPath::new("c/link").expect("a path"), RelPath::new("a/x").expect("a path"));
        tree.insert(&link, Node::Link { target }, &Metadata::root_owned(0o755)).expect("there is a file");
        let parts = cut(&tree, BTreeMap::new(), 100);
        let part = &parts["in /a a/x"];
        assert!(part.get(&link).is_some());
        assert_eq!(parts.values().filter(|part| part.get(&link).is_some()).count(), 1);
    }
}
