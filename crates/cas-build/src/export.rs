//! Writing images out: as a layout folder, or as an archive of one.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use cas_blob::{Descriptor, OpenBlob};
use cas_digest::DigestFunction;
use cas_oci::{IndexEntry, LAYOUT_FILE, encode_index, parse_index};
use cas_store::{Store, StoreError};
use cas_tar::{LayerPlan, Recipe, copy_pieces};
use cas_tree::{Directory, Metadata, Node, RelPath};

use crate::{BuildError, Image, ImageLayer, Tarball, layer};

/// Longest `index.json` that is added to.
const MAX_INDEX_BYTES: u64 = 4 << 20;

/// Where an image is written to, in skopeo's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// `oci:FOLDER[:TAG]`
    Layout {
        /// The folder, made if missing.
        folder: PathBuf,
        /// The tag in its index.
        tag: String,
    },
    /// `oci-archive:FILE[:TAG]`
    Archive {
        /// The file, replaced.
        file: PathBuf,
        /// The tag in its index.
        tag: String,
    },
}

/// Text that is not a destination.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a destination: write `oci:FOLDER[:TAG]` or `oci-archive:FILE[:TAG]`")]
pub struct DestinationError {
    /// The text.
    pub text: String,
}

impl FromStr for Destination {
    type Err = DestinationError;

    fn from_str(text: &str) -> Result<Self, DestinationError> {
        let wrong = || DestinationError { text: text.to_owned() };
        let (transport, rest) = text.split_once(':').ok_or_else(wrong)?;
        let (path, tag) = rest.rsplit_once(':').unwrap_or((rest, "image"));
        let tag_is_fine = !tag.is_empty()
            && tag.len() <= 128
            && tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'));
        if path.is_empty() || !tag_is_fine {
            return Err(wrong());
        }
        match transport {
            "oci" => Ok(Self::Layout { folder: path.into(), tag: tag.to_owned() }),
            "oci-archive" => Ok(Self::Archive { file: path.into(), tag: tag.to_owned() }),
            _ => Err(wrong()),
        }
    }
}

/// Writes an image out. In a layout that is there already, blobs that it has are left and other tags stay.
///
/// # Errors
///
/// [`BuildError::Record`] when part of the image is gone, [`BuildError::Fs`], [`BuildError::Store`].
pub fn export_image(store: &Store, image: &Image, destination: &Destination) -> Result<(), BuildError> {
    match destination {
        Destination::Layout { folder, tag } => layout(store, image, folder, tag),
        Destination::Archive { file, tag } => archive(store, image, file, tag),
    }
}

/// Writes a tarball into a folder, under the name that npm gives it; returns its path. A file of that name is replaced.
///
/// # Errors
///
/// [`BuildError::Fs`], [`BuildError::Store`].
pub fn write_tarball(store: &Store, tarball: &Tarball, folder: &Path) -> Result<PathBuf, BuildError> {
    cas_fs::create_dir_all(folder)?;
    let path = folder.join(&tarball.file_name);
    let temporary = cas_fs::temporary_dir_in(folder, ".cas-")?;
    let part = temporary.join("tarball");
    let written = (|| -> Result<(), BuildError> {
        let mut writer = std::io::BufWriter::new(cas_fs::create_new(&part, 0o644)?);
        layer::write(store, &tarball.recipe, &mut writer)?;
        writer.flush().map_err(BuildError::Compress)?;
        Ok(cas_fs::rename(&part, &path)?)
    })();
    let removed = cas_fs::remove_tree(&temporary);
    written?;
    removed?;
    Ok(path)
}

/// The bytes of a tarball as one blob, named with the function of its tree.
pub(crate) fn tarball_blob(store: &Store, tarball: &Tarball) -> Result<Descriptor, BuildError> {
    keep_whole(store, &tarball.recipe)?;
    Ok(store.name_with(tarball.recipe.tree.digest.function(), &tarball.recipe.blob)?)
}

/// Keeps the bytes of an archive as one blob, for those who cannot read recipes.
pub(crate) fn keep_whole(store: &Store, recipe: &Recipe) -> Result<(), BuildError> {
    if store.contains(&recipe.blob)? {
        return Ok(());
    }
    let folder = cas_fs::temporary_dir_in(store.scratch(), "archive-")?;
    let kept = (|| -> Result<(), BuildError> {
        let path = folder.join("part");
        let mut part = std::io::BufWriter::new(cas_fs::create_new(&path, 0o600)?);
        layer::write(store, recipe, &mut part)?;
        part.flush().map_err(BuildError::Compress)?;
        drop(part);
        store.put_expected(&mut cas_fs::open(&path)?, &recipe.blob)?;
        Ok(())
    })();
    cas_fs::remove_tree(&folder)?;
    kept
}

fn layout(store: &Store, image: &Image, folder: &Path, tag: &str) -> Result<(), BuildError> {
    let blobs = folder.join("blobs/sha256");
    cas_fs::create_dir_all(&blobs)?;
    let whole = |blob: &Descriptor| {
        place(&blobs, blob, &mut |file| {
            let mut source = store.open_blob(blob).map_err(StoreError::from)?;
            std::io::copy(&mut source, file).map_err(BuildError::Compress)?;
            Ok(())
        })
    };
    for layer in &image.layers {
        match layer {
            ImageLayer::Made { recipe, .. } => {
                let recipe = layer::find(store, recipe)?.ok_or(BuildError::Record { what: *recipe })?;
                place(&blobs, &recipe.blob, &mut |file| layer::write(store, &recipe, file))?;
            }
            ImageLayer::Foreign { blob, .. } => whole(blob)?,
        }
    }
    whole(&image.config)?;
    whole(&image.manifest)?;
    let index = folder.join("index.json");
    let mut entries = match cas_fs::read_limited(&index, MAX_INDEX_BYTES) {
        // An index that is not one is replaced: its blobs stay.
        Ok(bytes) => parse_index(&bytes).unwrap_or_default(),
        Err(error) if error.is_not_found() => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    entries.retain(|entry| entry.tag.as_deref() != Some(tag));
    entries.push(IndexEntry::new(tag, &image.manifest));
    cas_fs::write_atomic(&folder.join("oci-layout"), LAYOUT_FILE)?;
    // Last, so that whoever reads the index finds everything.
    cas_fs::write_atomic(&index, &encode_index(&entries))?;
    Ok(())
}

/// Writes a blob under its digest, unless one of its size is there.
fn place(
    blobs: &Path,
    blob: &Descriptor,
    write: &mut dyn FnMut(&mut dyn Write) -> Result<(), BuildError>,
) -> Result<(), BuildError> {
    let path = blobs.join(blob.digest.to_hex());
    match cas_fs::symlink_metadata(&path) {
        Ok(metadata) if metadata.is_file() && metadata.len() == blob.size => return Ok(()),
        Ok(_) => {}
        Err(error) if error.is_not_found() => {}
        Err(error) => return Err(error.into()),
    }
    let temporary = cas_fs::temporary_dir_in(blobs, ".tmp-")?;
    let part = temporary.join("blob");
    let result = (|| {
        let file = cas_fs::create_new(&part, 0o644)?;
        let mut writer =
            cas_digest::HashingWriter::new(std::io::BufWriter::with_capacity(1 << 20, file), &[DigestFunction::Sha256]);
        write(&mut writer)?;
        let (writer, digests, size) = writer.finish();
        writer.into_inner().map_err(|error| BuildError::Compress(error.into_error()))?;
        if digests[0] != blob.digest || size != blob.size {
            return Err(BuildError::Record { what: *blob });
        }
        cas_fs::rename(&part, &path)?;
        Ok(())
    })();
    cas_fs::remove_tree(&temporary)?;
    result
}

fn archive(store: &Store, image: &Image, file: &Path, tag: &str) -> Result<(), BuildError> {
    // The layout as a tree: its tar has the normal form of layers, so the archive repeats as well.
    let mut tree = Directory::root();
    let parents = Metadata::root_owned(0o755);
    let mut add = |path: String, blob: Descriptor| {
        let path = RelPath::new(path).expect("digests and fixed names are paths");
        tree.insert(&path, Node::file(blob, 0o644), &parents).expect("no name is below a file");
    };
    let named = |blob: &Descriptor| format!("blobs/sha256/{}", blob.digest.to_hex());
    for layer in &image.layers {
        match layer {
            ImageLayer::Made { recipe, .. } => {
                let recipe = layer::find(store, recipe)?.ok_or(BuildError::Record { what: *recipe })?;
                keep_whole(store, &recipe)?;
                add(named(&recipe.blob), recipe.blob);
            }
            ImageLayer::Foreign { blob, .. } => add(named(blob), *blob),
        }
    }
    add(named(&image.config), image.config);
    add(named(&image.manifest), image.manifest);
    let index = encode_index(&[IndexEntry::new(tag, &image.manifest)]);
    add("index.json".to_owned(), store.put_bytes(DigestFunction::Sha256, &index)?);
    add("oci-layout".to_owned(), store.put_bytes(DigestFunction::Sha256, LAYOUT_FILE)?);
    let plan = LayerPlan::new(&tree).expect("the tree has plain names alone");
    let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let temporary = cas_fs::temporary_dir_in(parent, ".tmp-")?;
    let part = temporary.join("archive");
    let result = (|| {
        let mut writer = std::io::BufWriter::with_capacity(1 << 20, cas_fs::create_new(&part, 0o644)?);
        for group in &plan.groups {
            copy_pieces(group.pieces(), store, &mut writer).map_err(BuildError::Compress)?;
        }
        writer.into_inner().map_err(|error| BuildError::Compress(error.into_error()))?;
        cas_fs::rename(&part, file)?;
        Ok(())
    })();
    cas_fs::remove_tree(&temporary)?;
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_are_parsed() {
        let layout = |folder: &str, tag: &str| Destination::Layout { folder: folder.into(), tag: tag.to_owned() };
        assert_eq!("oci:out".parse(), Ok(layout("out", "image")));
        assert_eq!("oci:a/b:v1".parse(), Ok(layout("a/b", "v1")));
        assert!(matches!("oci-archive:x.tar:1".parse(), Ok(Destination::Archive { .. })));
        for text in ["", "oci", "oci:", "docker:x", "oci:x:", "oci:x:a b", "oci::t"] {
            assert!(text.parse::<Destination>().is_err(), "{text:?}");
        }
    }
}
