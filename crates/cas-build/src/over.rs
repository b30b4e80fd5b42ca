//! A layer over what is below it: folders that are there keep what they are, and links to folders lead on.
//!
//! A layer tells every folder on the way to its files, and whoever unpacks it gives that folder the rights which the layer tells. So a layer that
//! only passes through a folder has to tell it as it is below; and a folder where a link is below would take the link's place. Rules:
//! docs/formats/cas-toml.md, "Folders below".

use cas_tree::{Directory, MergeRule, Metadata, Node, RelPath};

/// Most links that are followed for one path, as Linux has it.
const MAX_LINKS: usize = 40;

/// Whose folders a layer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Folders {
    /// Somebody made them: those below the layer's place have rights of their own.
    Made,
    /// They came with files that were picked: none has rights that anybody gave.
    Passed,
}

/// A link below that a folder of a layer cannot go where it leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BlindLink {
    /// Where the layer has a folder.
    pub(crate) folder: RelPath,
    /// Why it cannot be where the link leads.
    pub(crate) why: &'static str,
}

/// A layer as it is over `below`; `top` is the uppermost place that is of it and no folder on the way there, `None` the root. Gives that
/// place as it is then.
pub(crate) fn over(
    mut layer: Directory,
    top: Option<RelPath>,
    folders: Folders,
    below: &Directory,
) -> Result<(Directory, Option<RelPath>), BlindLink> {
    let mut top = top;
    if below.is_empty() {
        return Ok((layer, top));
    }
    // Each turn takes a link out of some path, so there is an end.
    while let Some(folder) = on_link(&layer, below) {
        let place = lead(below, &folder)?;
        let moved = layer.subtree(&folder).expect("it was found there");
        layer.remove(&folder);
        let parents = Metadata::root_owned(0o755);
        let moved = match &place {
            None => moved,
            Some(place) => {
                let mut whole = Directory::root();
                whole.graft(place, moved, &parents).expect("the tree is empty");
                whole
            }
        };
        let rule = &mut |_: &RelPath, _: &Node, _: &Node| MergeRule::KeepNew;
        layer.merge(&moved, rule).expect("nothing is refused");
        top = match top {
            Some(top) if top == folder => place,
            Some(top) => Some(match (top.strip_prefix(&folder), place) {
                (None, _) => top,
                (Some(rest), None) => rest,
                (Some(rest), Some(place)) => place.join_path(&rest),
            }),
            None => None,
        };
    }
    layer.metadata = below.metadata.clone();
    let met: Vec<(RelPath, Metadata)> = layer
        .walk()
        .filter(|(path, node)| match (node, folders, &top) {
            (Node::Directory(_), Folders::Passed, _) => true,
            (Node::Directory(_), Folders::Made, Some(top)) => top.strip_prefix(path).is_some() || top == path,
            _ => false,
        })
        .filter_map(|(path, _)| Some((path.clone(), below.get_directory(&path)?.metadata.clone())))
        .collect();
    for (path, metadata) in met {
        layer.set_directory_metadata(&path, metadata);
    }
    Ok((layer, top))
}

/// The first folder of a layer where a link is below.
fn on_link(layer: &Directory, below: &Directory) -> Option<RelPath> {
    let mut folders = layer.walk().filter(|(_, node)| matches!(node, Node::Directory(_))).map(|(path, _)| path);
    folders.find(|path| matches!(below.get(path), Some(Node::Symlink { .. })))
}

/// Where the links at a path lead, as the kernel would follow them within the root; `None` is the root itself. Nothing need be there.
fn lead(below: &Directory, path: &RelPath) -> Result<Option<RelPath>, BlindLink> {
    let blind = |why| BlindLink { folder: path.clone(), why };
    let mut left: Vec<Vec<u8>> = path.components().rev().map(<[u8]>::to_vec).collect();
    let (mut at, mut links): (Vec<Vec<u8>>, usize) = (Vec::new(), 0);
    while let Some(component) = left.pop() {
        match &component[..] {
            b"" | b"." => continue,
            b".." => {
                at.pop();
                continue;
            }
            _ => at.push(component),
        }
        let here = RelPath::new(at.join(&b'/')).map_err(|_| blind("that leads to no path"))?;
        match below.get(&here) {
            Some(Node::Symlink { target, .. }) => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(blind("that leads in a circle"));
                }
                at.pop();
                if target.first() == Some(&b'/') {
                    at.clear();
                }
                left.extend(target.split(|byte| *byte == b'/').rev().map(<[u8]>::to_vec));
            }
            Some(Node::Directory(_)) | None => {}
            Some(_) => return Err(blind("that leads to something other than a folder")),
        }
    }
    if at.is_empty() {
        return Ok(None);
    }
    RelPath::new(at.join(&b'/')).map(Some).map_err(|_| blind("that leads to no path"))
}

#[cfg(test)]
mod tests {
    use cas_blob::Descriptor;
    use cas_digest::DigestFunction;

    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::new(text).expect("it is a path")
    }

    /// Lines `d MODE UID PATH`, `f PATH` and `l PATH TARGET`.
    fn tree(lines: &[&str]) -> Directory {
        let mut tree = Directory::root();
        let parents = Metadata::root_owned(0o755);
        for line in lines {
            let words: Vec<&str> = line.split(' ').collect();
            let (at, node) = match words[..] {
                ["d", mode, uid, at] => {
                    let mode = u32::from_str_radix(mode, 8).expect("it is octal");
                    let metadata = Metadata { uid: uid.parse().expect("a number"), ..Metadata::root_owned(mode) };
                    (at, Node::Directory(Directory::new(metadata).into()))
                }
                ["f", at] => (at, Node::file(Descriptor::of(DigestFunction::Blake3, at.as_bytes()), 0o644)),
                ["l", at, target] => (at, Node::symlink(target)),
                ["h", at, target] => (at, Node::Link { target: path(target) }),
                _ => panic!("{line}"),
            };
            tree.insert(&path(at), node, &parents).expect("nothing is in the way");
        }
        tree
    }

    fn lines(tree: &Directory) -> Vec<String> {
        let line = |(path, node): (RelPath, &Node)| match node {
            Node::Directory(folder) => format!("d {:o} {} {path}", folder.metadata.mode, folder.metadata.uid),
            Node::Link { target } => format!("h {path} {target}"),
            Node::Symlink { target, .. } => format!("l {path} {}", String::from_utf8_lossy(target)),
            _ => format!("f {path}"),
        };
        tree.walk().map(line).collect()
    }

    #[test]
    fn folders_below_keep_what_they_are_and_links_lead_on() {
        use Folders::{Made, Passed};
        let below = tree(&[
            "d 1777 0 tmp",
            "d 700 0 root",
            "d 755 1000 home/node",
            "d 755 0 usr/bin",
            "l bin usr/bin",
            "l lib /usr/lib",
            "l up ../..",
            "l var/run ../run",
            "f usr/file",
            "l file usr/file",
            "l a b",
            "l b a",
        ]);
        type Told<'a> = (&'a [&'a str], Option<&'a str>);
        type Row<'a> = (&'a [&'a str], Option<&'a str>, Folders, Result<Told<'a>, &'a str>);
        let rows: &[Row<'_>] = &[
            // On the way to the place, and the place itself.
            (&["d 755 0 tmp", "f tmp/x"], Some("tmp"), Made, Ok((&["d 1777 0 tmp", "f tmp/x"], Some("tmp")))),
            (
                &["d 755 0 root", "d 750 0 root/x", "f root/x/f"],
                Some("root/x"),
                Made,
                Ok((&["d 700 0 root", "d 750 0 root/x", "f root/x/f"], Some("root/x"))),
            ),
            (
                &["d 755 0 home", "d 755 0 home/node", "f home/node/f"],
                Some("home/node/f"),
                Made,
                Ok((&["d 755 0 home", "d 755 1000 home/node", "f home/node/f"], Some("home/node/f"))),
            ),
            // Below it somebody has made folders, or nobody has.
            (&["d 755 0 tmp", "f tmp/x"], None, Made, Ok((&["d 755 0 tmp", "f tmp/x"], None))),
            (&["d 755 0 tmp", "f tmp/x"], None, Passed, Ok((&["d 1777 0 tmp", "f tmp/x"], None))),
            // Links.
            (
                &["d 755 0 bin", "f bin/x", "h bin/y bin/x"],
                Some("bin"),
                Made,
                Ok((&["d 755 0 usr", "d 755 0 usr/bin", "f usr/bin/x", "h usr/bin/y usr/bin/x"], Some("usr/bin"))),
            ),
            (
                &["d 755 0 lib", "d 750 0 lib/x", "f lib/x/f"],
                Some("lib/x"),
                Made,
                Ok((&["d 755 0 usr", "d 755 0 usr/lib", "d 750 0 usr/lib/x", "f usr/lib/x/f"], Some("usr/lib/x"))),
            ),
            (
                &["d 755 0 var", "d 755 0 var/run", "f var/run/f"],
                None,
                Made,
                Ok((&["d 755 0 run", "f run/f", "d 755 0 var"], None)),
            ),
            (&["d 755 0 up", "d 700 0 up/tmp"], Some("up"), Passed, Ok((&["d 1777 0 tmp"], None))),
            // A link that is no folder's place is taken over.
            (&["f bin"], Some("bin"), Made, Ok((&["f bin"], Some("bin")))),
            (&["d 755 0 file", "f file/x"], Some("file"), Made, Err("something other than a folder")),
            (&["d 755 0 a", "f a/x"], Some("a"), Made, Err("in a circle")),
        ];
        for (layer, top, folders, expected) in rows {
            let found = over(tree(layer), top.map(path), *folders, &below);
            match (found, expected) {
                (Ok((tree, top)), Ok((expected, place))) => {
                    assert_eq!(lines(&tree), *expected, "{layer:?}");
                    assert_eq!(top, place.map(path), "{layer:?}");
                }
                (Err(error), Err(why)) => assert!(error.why.contains(why), "{layer:?}: {error:?}"),
                (found, _) => panic!("{layer:?}: {found:?}"),
            }
        }
    }
}
