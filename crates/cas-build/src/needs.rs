//! What the rows of the store's index need to be of use, and what a workspace and an image keep.
//!
//! The store decides what leaves; what its rows mean is known here. A row of a kind that this version does not know needs
//! nothing, so what it names may leave, and whoever uses it finds that out.

use std::path::Path;

use cas_action::decode_result;
use cas_blob::Descriptor;
use cas_digest::{Digest, DigestFunction};
use cas_store::{Keep, Load, Row, Store, StoreError};
use cas_tar::Recipe;
use cas_tree::Node;

use crate::artifact_record::{ARTIFACT_MEMO, decode as decode_artifact};
use crate::debian_index::INDEX_MEMO;
use crate::foreign::recorded_tree;
use crate::image_record::decode as decode_image;
use crate::layer_cut::{CUT_MEMO, list_needs};
use crate::layer_states::STATES_MEMO;
use crate::{Artifact, ArtifactPart, BuildError, Image, ImageLayer, LOCK_FILE, Workspace};

/// What a row of the index needs in the store, for [`cas_store::StoreOptions::needs`].
///
/// # Errors
///
/// What `load` says.
pub fn row_needs(row: &Row, load: &mut Load<'_>) -> Result<Option<Vec<Keep>>, StoreError> {
    match row {
        Row::Action { key, result, .. } => of_result(key.digest.function(), result, load),
        Row::Memo { kind, value, key } => {
            let text = std::str::from_utf8(value).unwrap_or_default();
            match kind.as_str() {
                "image" => match decode_image(&String::from_utf8_lossy(key), value) {
                    Some(image) => of_image(&image, load),
                    None => Ok(None),
                },
                ARTIFACT_MEMO => match decode_artifact(&String::from_utf8_lossy(key), value) {
                    Some(artifact) => of_artifact(&artifact, load),
                    None => Ok(None),
                },
                "layer" => match text.parse() {
                    Ok(recipe) => of_recipe(&recipe, load),
                    Err(_) => Ok(None),
                },
                "debian-tree"
                | "npm-package"
                | "cargo-crate"
                | crate::foreign::LAYERS_MEMO
                | crate::foreign::FOLDERS_MEMO => Ok(text.parse().ok().map(|tree| vec![Keep::Tree(tree)])),
                crate::foreign::ROOT_MEMO => Ok(recorded_tree(value).map(|tree| vec![Keep::Tree(tree)])),
                "debian-package" => Ok(text.split_once('\n').and_then(|(tree, blob)| {
                    Some(vec![Keep::Tree(tree.parse().ok()?), Keep::Blob(blob.parse().ok()?)])
                })),
                "download" | "trace-1" | INDEX_MEMO | STATES_MEMO => {
                    Ok(text.parse().ok().map(|blob| vec![Keep::Blob(blob)]))
                }
                CUT_MEMO => match text.parse::<Descriptor>() {
                    Ok(list) => Ok(load(&list)?.and_then(|bytes| list_needs(&list, &bytes))),
                    Err(_) => Ok(None),
                },
                kind if kind.starts_with("frame ") => {
                    // The frame, its checksum, and the index of contents where there is one.
                    let mut words = text.split(' ');
                    let names = [words.next(), words.nth(1)];
                    Ok(names.into_iter().flatten().map(|name| name.parse().ok().map(Keep::Blob)).collect())
                }
                _ => Ok(Some(Vec::new())),
            }
        }
    }
}

/// The trees that a result names, and the content of their files.
fn of_result(function: DigestFunction, result: &[u8], load: &mut Load<'_>) -> Result<Option<Vec<Keep>>, StoreError> {
    let mut keeps = Vec::new();
    let decoded = decode_result(result, function, &mut |tree| match load(tree)? {
        Some(bytes) => {
            keeps.push(Keep::Blob(*tree));
            Ok(bytes)
        }
        None => Err(StoreError::Missing(*tree)),
    });
    let outputs = match decoded {
        Ok(outputs) => outputs,
        // Only a failure to read says nothing about the row.
        Err(cas_action::DecodeResultError::Load { source, .. }) if !matches!(source, StoreError::Missing(_)) => {
            return Err(source);
        }
        Err(_) => return Ok(None),
    };
    keeps.extend(outputs.walk().filter_map(|(_, node)| match node {
        Node::File { blob, .. } => Some(Keep::Blob(*blob)),
        _ => None,
    }));
    Ok(Some(keeps))
}

/// A recipe, its frames and its tree.
fn of_recipe(name: &Descriptor, load: &mut Load<'_>) -> Result<Option<Vec<Keep>>, StoreError> {
    let Some(bytes) = load(name)? else { return Ok(None) };
    let Ok(recipe) = Recipe::decode(&bytes) else { return Ok(None) };
    let mut keeps = vec![Keep::Blob(*name), Keep::Tree(recipe.tree)];
    keeps.extend(recipe.frames.iter().map(|frame| Keep::Blob(frame.blob)));
    keeps.extend(recipe.tail.iter().map(|tail| Keep::Blob(tail.blob)));
    Ok(Some(keeps))
}

fn of_image(image: &Image, load: &mut Load<'_>) -> Result<Option<Vec<Keep>>, StoreError> {
    let mut keeps = vec![Keep::Blob(image.manifest), Keep::Blob(image.config)];
    keeps.extend(image.base_tree.map(Keep::Tree));
    for layer in &image.layers {
        match layer {
            ImageLayer::Made { recipe, tree } => {
                let Some(more) = of_recipe(recipe, load)? else { return Ok(None) };
                keeps.extend(more);
                keeps.push(Keep::Tree(*tree));
            }
            ImageLayer::Foreign { blob, .. } => keeps.push(Keep::Blob(*blob)),
        }
    }
    if let Some(index) = &image.index {
        keeps.push(Keep::Blob(index.blob));
        for image in &index.images {
            let Some(more) = of_image(image, load)? else { return Ok(None) };
            keeps.extend(more);
        }
    }
    Ok(Some(keeps))
}

fn of_artifact(artifact: &Artifact, load: &mut Load<'_>) -> Result<Option<Vec<Keep>>, StoreError> {
    let mut keeps = vec![Keep::Blob(artifact.manifest), Keep::Blob(artifact.config)];
    for part in &artifact.parts {
        match part {
            ArtifactPart::File(blob) => keeps.push(Keep::Blob(*blob)),
            ArtifactPart::Folder { recipe, tree } => {
                let Some(more) = of_recipe(recipe, load)? else { return Ok(None) };
                keeps.extend(more);
                keeps.push(Keep::Tree(*tree));
            }
        }
    }
    Ok(Some(keeps))
}

/// Everything that an image needs to be run and written out.
///
/// # Errors
///
/// [`BuildError::Record`] when a recipe of it is gone.
pub fn image_keeps(store: &Store, image: &Image) -> Result<Vec<Keep>, BuildError> {
    of_image(image, &mut |blob| loaded(store, blob))?.ok_or(BuildError::Record { what: image.manifest })
}

/// Everything that an artifact needs to be written out.
///
/// # Errors
///
/// As for [`image_keeps`].
pub fn artifact_keeps(store: &Store, artifact: &Artifact) -> Result<Vec<Keep>, BuildError> {
    of_artifact(artifact, &mut |blob| loaded(store, blob))?.ok_or(BuildError::Record { what: artifact.manifest })
}

fn loaded(store: &Store, blob: &Descriptor) -> Result<Option<Vec<u8>>, StoreError> {
    if store.contains(blob)? { store.load(blob, u64::from(u32::MAX)).map(Some) } else { Ok(None) }
}

/// Keeps what `cas.lock` pins and the store has, for as long as the lock is there; unless just that is kept already.
pub(crate) fn keep_locked(store: &Store, workspace: &Workspace, lock: &cas_config::Lock) -> Result<(), BuildError> {
    use std::os::unix::ffi::OsStrExt;
    let path = workspace.root.join(LOCK_FILE);
    let name = lock_pin_name(&workspace.root);
    let key = path.as_os_str().as_bytes();
    let mut keeps = Vec::new();
    for package in lock.debian.iter().flat_map(|entry| &entry.packages) {
        // What another architecture needs may never have been fetched.
        if store.contains(&package.blob)? {
            keeps.push(Keep::Blob(package.blob));
        }
    }
    for image in &lock.image {
        if store.contains(&image.document)? {
            keeps.push(Keep::Blob(image.document));
        }
    }
    keeps.sort_unstable();
    keeps.dedup();
    let text: String = keeps.iter().map(|keep| format!("{}\n", keep.blob())).collect();
    let digest = Digest::of(DigestFunction::Blake3, text.as_bytes());
    let is_known = store.memo("lock", key)?.is_some_and(|known| known == digest.value());
    if is_known && store.has_pin(&name)? != keeps.is_empty() {
        return Ok(());
    }
    if keeps.is_empty() {
        store.unpin(&name)?;
    } else {
        store.pin_while(&name, &keeps, Some(path.clone()))?;
    }
    Ok(store.put_memo("lock", key, digest.value())?)
}

/// Name of the pin of a workspace's lock.
fn lock_pin_name(root: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    let digest = Digest::of(DigestFunction::Blake3, root.as_os_str().as_bytes());
    format!("lock/{}", &digest.to_hex()[..32])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each kind of memo that this crate writes is known here: a new one must say what it needs.
    #[test]
    fn every_kind_of_memo_says_what_it_needs() {
        let blob = Descriptor::of(DigestFunction::Blake3, b"blob");
        let recipe = Descriptor::of(DigestFunction::Blake3, b"recipe");
        let mut none = |_: &Descriptor| -> Result<Option<Vec<u8>>, StoreError> { Ok(None) };
        let mut needs = |kind: &str, value: String| {
            let row = Row::Memo { kind: kind.to_owned(), key: b"key".to_vec(), value: value.into_bytes() };
            row_needs(&row, &mut none).expect("nothing is read")
        };
        assert_eq!(needs("debian-tree", blob.to_string()), Some(vec![Keep::Tree(blob)]));
        assert_eq!(needs("npm-package", blob.to_string()), Some(vec![Keep::Tree(blob)]));
        assert_eq!(needs("cargo-crate", blob.to_string()), Some(vec![Keep::Tree(blob)]));
        assert_eq!(needs("image-root", format!("{blob}\n{{}}\n")), Some(vec![Keep::Tree(blob)]));
        assert_eq!(needs("image-layers", blob.to_string()), Some(vec![Keep::Tree(blob)]));
        assert_eq!(needs("download", blob.to_string()), Some(vec![Keep::Blob(blob)]));
        assert_eq!(needs("debian-index", blob.to_string()), Some(vec![Keep::Blob(blob)]));
        assert_eq!(needs("trace-1", blob.to_string()), Some(vec![Keep::Blob(blob)]));
        assert_eq!(needs("frame zstd blake3", format!("{blob} 00000000")), Some(vec![Keep::Blob(blob)]));
        let with_contents = format!("{blob} 00000000 {recipe}");
        assert_eq!(needs("frame zstd blake3", with_contents), Some(vec![Keep::Blob(blob), Keep::Blob(recipe)]));
        assert_eq!(needs("layer-states", blob.to_string()), Some(vec![Keep::Blob(blob)]));
        let both = format!("{blob}\n{recipe}");
        assert_eq!(needs("debian-package", both), Some(vec![Keep::Tree(blob), Keep::Blob(recipe)]));
        // A recipe that is gone makes its rows useless.
        assert_eq!(needs("layer", recipe.to_string()), None);
        assert_eq!(needs("image", format!("manifest {blob}\nconfig {blob}\nlayer {recipe} {blob}\n")), None);
        let artifact = |part: &str| format!("manifest {blob}\ntype a/b\nconfig {blob}\n{part}\n");
        let all = [blob, blob, recipe].map(Keep::Blob).to_vec();
        assert_eq!(needs(ARTIFACT_MEMO, artifact(&format!("file {recipe}"))), Some(all));
        assert_eq!(needs(ARTIFACT_MEMO, artifact(&format!("folder {recipe} {blob}"))), None);
        for kind in [
            ARTIFACT_MEMO,
            "debian-tree",
            "npm-package",
            "cargo-crate",
            "download",
            "layer",
            "image",
            "frame x",
            "debian-package",
            "debian-index",
            "image-root",
            "image-layers",
            "layer-states",
            CUT_MEMO,
        ] {
            assert_eq!(needs(kind, "nonsense".to_owned()), None, "{kind}");
        }
        assert_eq!(needs("step-1", "anything".to_owned()), Some(Vec::new()));
        // Names of programs stand in the row itself.
        assert_eq!(needs("npm-programs", "{}".to_owned()), Some(Vec::new()));
    }
}
