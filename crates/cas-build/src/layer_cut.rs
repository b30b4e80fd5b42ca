//! The parts that the trees of an image are cut into, kept by what they were cut from. Rules: docs/formats/cut.md.
//!
//! Not here: which file goes into which part (`cas-analyze`).

use std::collections::BTreeMap;
use std::sync::Arc;

use cas_analyze::{MAX_PARSED_BYTES, cut, layers_for, shares, telling};
use cas_blob::Descriptor;
use cas_store::{Keep, Store};
use cas_tree::Directory;

use crate::BuildError;
use crate::image_base::{Cutting, Source};

/// Kind of the memos: the number is that of the rules.
pub(crate) const CUT_MEMO: &str = "cut-2";
/// Most bytes that are read of all files that tell of packages; what comes after them tells nothing.
const MAX_TOLD_BYTES: u64 = 256 << 20;
/// Longest list of parts that is read.
const MAX_LIST_BYTES: u64 = 1 << 20;

/// A part of a tree that becomes a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CutPart {
    /// What it is called; empty where it is the whole tree.
    pub(crate) name: String,
    pub(crate) tree: Descriptor,
}

/// How many layers each of an image's sources gets at most; those that are layers already get one.
pub(crate) fn budgets(most: usize, sources: &[Source]) -> Vec<usize> {
    let wanted = |source: &Source, kind: Cutting| match source {
        Source::Tree { tree, cutting, .. } if *cutting == kind => Some(layers_for(tree)),
        _ => None,
    };
    let root = sources.iter().find_map(|source| wanted(source, Cutting::Root));
    let own: Vec<usize> = sources.iter().filter_map(|source| wanted(source, Cutting::Layer)).collect();
    let below = sources.len() - own.len() - usize::from(root.is_some());
    let (root, own) = shares(most, below, root, &own);
    let mut own = own.into_iter();
    let budget = |source: &Source| match source {
        Source::Tree { cutting: Cutting::Root, .. } => root,
        Source::Tree { cutting: Cutting::Layer, .. } => own.next().unwrap_or(1),
        Source::Tree { cutting: Cutting::Whole, .. } | Source::Layer(_) => 1,
    };
    sources.iter().map(budget).collect()
}

/// Cuts the tree named `name` into at most so many parts, which are in the store then.
pub(crate) fn parts(
    store: &Store,
    tree: &Arc<Directory>,
    name: &Descriptor,
    most: usize,
) -> Result<Vec<CutPart>, BuildError> {
    let whole = || vec![CutPart { name: String::new(), tree: *name }];
    // Without it the files are not asked for at all.
    if most < 2 {
        return Ok(whole());
    }
    let key = key(name, most);
    if let Some(known) = find(store, &key)? {
        return Ok(known);
    }
    let (mut contents, mut told_bytes) = (BTreeMap::new(), 0);
    for (path, blob) in telling(tree) {
        if blob.size <= MAX_PARSED_BYTES && told_bytes + blob.size <= MAX_TOLD_BYTES {
            told_bytes += blob.size;
            contents.insert(path, store.load(&blob, MAX_PARSED_BYTES)?);
        }
    }
    let function = name.digest.function();
    let mut parts = Vec::new();
    for (name, tree) in cut(tree, contents, most) {
        parts.push(CutPart { name, tree: store.put_tree(&tree, function)? });
    }
    let list: String = parts.iter().map(|part| format!("{} {}\n", part.tree, part.name)).collect();
    // What has a name with a line break in it is cut anew each time.
    if decode(&list).as_ref() == Some(&parts) {
        let list = store.put_bytes(function, list.as_bytes())?;
        store.put_memo(CUT_MEMO, key.as_bytes(), list.to_string().as_bytes())?;
    }
    Ok(parts)
}

fn key(name: &Descriptor, most: usize) -> String {
    format!("{most} {name}")
}

/// Forgets what a tree was cut into: something of a part left the store.
pub(crate) fn forget(store: &Store, name: &Descriptor, most: usize) -> Result<(), BuildError> {
    Ok(store.put_memo(CUT_MEMO, key(name, most).as_bytes(), b"")?)
}

/// What a list of parts needs, for whoever frees room.
pub(crate) fn list_needs(list: &Descriptor, bytes: &[u8]) -> Option<Vec<Keep>> {
    let parts = decode(std::str::from_utf8(bytes).ok()?)?;
    Some(std::iter::once(Keep::Blob(*list)).chain(parts.into_iter().map(|part| Keep::Tree(part.tree))).collect())
}

/// What the tree was cut into before, if the parts are still here.
fn find(store: &Store, key: &str) -> Result<Option<Vec<CutPart>>, BuildError> {
    let Some(value) = store.memo(CUT_MEMO, key.as_bytes())? else { return Ok(None) };
    let name = std::str::from_utf8(&value).ok().and_then(|text| text.parse::<Descriptor>().ok());
    let Some(name) = name.filter(|name| name.size <= MAX_LIST_BYTES) else { return Ok(None) };
    if !store.contains(&name)? {
        return Ok(None);
    }
    let list = String::from_utf8(store.load(&name, MAX_LIST_BYTES)?).unwrap_or_default();
    let Some(parts) = decode(&list) else { return Ok(None) };
    let trees: Vec<Descriptor> = parts.iter().map(|part| part.tree).collect();
    Ok(store.contain(&trees)?.into_iter().all(|is_here| is_here).then_some(parts))
}

fn decode(list: &str) -> Option<Vec<CutPart>> {
    let lines = list.strip_suffix('\n')?.split('\n');
    lines
        .map(|line| {
            let (tree, name) = line.split_once(' ')?;
            Some(CutPart { name: name.to_owned(), tree: tree.parse().ok()? })
        })
        .collect()
}
