//! Root file systems from images of others: the pin of a name, the image for this machine, its layers as one tree.
//!
//! What a pinned image gives is remembered by the digest of its document, so that a build in which nothing changed needs neither
//! the image nor its origin. Who takes its layers as they are looks into none of them. Rules: docs/formats/image-root.md.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::Arc;

use cas_blob::Descriptor;
use cas_config::{Label, LockedImage};
use cas_digest::{Digest, DigestFunction, HashingReader};
use cas_oci::{
    ConfigView, Document, ImageSource, LayerBlob, LayerKind, MAX_DOCUMENT_BYTES, Manifest, TargetPlatform, choose,
};
use cas_store::{Store, StoreError};
use cas_tar::{Compression, ReadTarError, ReadTarLimits, decompress, read_layer};
use cas_tree::{Directory, Unpacking};

use crate::ahead::read_ahead;
use crate::behind::{Keep, store_behind};
use crate::image_place::{ImagePlace, open};
use crate::outline::stand_in;
use crate::platforms::{is_same, own};
use crate::{BuildError, Image, ImageLayer, Toolchain};

/// Kind of the memos that tell what a pinned image gives.
pub(crate) const ROOT_MEMO: &str = "image-root";
/// Kind of the memos that tell what layers give together.
pub(crate) const LAYERS_MEMO: &str = "image-layers";
/// Longest layer, and largest content of one.
pub(crate) const MAX_LAYER_BYTES: u64 = 64 << 30;
/// Deepest chain of documents: indexes in indexes, and the manifest.
const MAX_DEPTH: usize = 4;
/// Kind of the memos that tell the folders and links which layers give together.
pub(crate) const FOLDERS_MEMO: &str = "image-folders";
/// Layers that are fetched at once.
const PARALLEL: usize = 4;

/// A pinned image with what it gives, and where it comes from.
#[derive(Debug)]
pub(crate) struct Pinned {
    pub(crate) pin: LockedImage,
    /// Names the content of its files.
    pub(crate) function: DigestFunction,
    /// Known where somebody wants more of it than its layers.
    pub(crate) root: Option<Root>,
    pub(crate) place: ImagePlace,
}

/// What an image gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Root {
    /// Its files.
    pub(crate) tree: Descriptor,
    /// The variables of its configuration.
    pub(crate) env: BTreeMap<String, String>,
}

/// The layers of an image of others.
#[derive(Debug)]
pub(crate) struct ForeignLayers {
    pub(crate) layers: Vec<ImageLayer>,
    /// The blob of its configuration.
    pub(crate) config: Descriptor,
}

impl Root {
    /// The name of all that a step sees of it.
    fn name(&self) -> Descriptor {
        if self.env.is_empty() {
            return self.tree;
        }
        Descriptor::of(self.tree.digest.function(), &[b"image-root-1\n", &self.encode()[..]].concat())
    }

    fn encode(&self) -> Vec<u8> {
        let env = serde_json::to_string(&self.env).expect("strings have JSON");
        format!("{}\n{env}\n", self.tree).into_bytes()
    }

    /// A record that makes no sense is a miss.
    fn decode(value: &[u8]) -> Option<Self> {
        let (tree, env) = std::str::from_utf8(value).ok()?.split_once('\n')?;
        Some(Self { tree: tree.parse().ok()?, env: serde_json::from_str(env).ok()? })
    }
}

/// The tree that a record of an image names.
pub(crate) fn recorded_tree(value: &[u8]) -> Option<Descriptor> {
    Root::decode(value).map(|root| root.tree)
}

/// What `cas.lock` says of a request.
pub(crate) fn request(source: &ImageSource) -> String {
    source.to_string()
}

/// Pins what a name stands for now, which must have an image for each platform that is wanted.
pub(crate) fn resolve(
    store: &Store,
    origin: &ImagePlace,
    label: &Label,
    source: &ImageSource,
    platforms: &[TargetPlatform],
) -> Result<LockedImage, BuildError> {
    let document = origin.resolve(store).map_err(|error| match error {
        BuildError::Fs(source) => BuildError::ToolchainFile { label: label.to_string(), key: "image", source },
        other => other,
    })?;
    // What is no image for them is not pinned.
    for platform in platforms {
        image(store, origin, &document, platform)?;
    }
    Ok(LockedImage { target: label.to_string(), request: request(source), document })
}

/// Names the root that a pinned image gives: the name is remembered, and the image looked at only where it is not.
pub(crate) fn toolchain(
    store: &Store,
    function: DigestFunction,
    origin: ImagePlace,
    pin: &LockedImage,
) -> Result<Toolchain, BuildError> {
    let known = store.memo(ROOT_MEMO, key(function, pin, &own()).as_bytes())?;
    if let Some(root) = known.and_then(|value| Root::decode(&value)) {
        return Ok(named(function, root, pin, origin, None));
    }
    let (root, tree) = make(store, function, &origin, pin, &own())?;
    Ok(named(function, root, pin, origin, Some(tree)))
}

/// The same for whoever takes its layers as they are: its document is name enough, and nothing is looked at.
pub(crate) fn base(function: DigestFunction, place: ImagePlace, pin: &LockedImage) -> Toolchain {
    Toolchain::image(pin.document, Pinned { pin: pin.clone(), function, root: None, place }, None)
}

fn named(
    function: DigestFunction,
    root: Root,
    pin: &LockedImage,
    place: ImagePlace,
    tree: Option<Directory>,
) -> Toolchain {
    Toolchain::image(root.name(), Pinned { pin: pin.clone(), function, root: Some(root), place }, tree)
}

/// The same without looking at the image: where nothing is remembered, its digest stands for it.
pub(crate) fn outline(
    store: &Store,
    function: DigestFunction,
    origin: ImagePlace,
    pin: &LockedImage,
) -> Result<Toolchain, BuildError> {
    let key = key(function, pin, &own());
    let known = store.memo(ROOT_MEMO, key.as_bytes())?.and_then(|value| Root::decode(&value));
    let root = known.unwrap_or_else(|| {
        let tree = stand_in(function, ROOT_MEMO, &key);
        Root { tree, env: BTreeMap::new() }
    });
    Ok(named(function, root, pin, origin, None))
}

/// The tree of a pinned image for this machine, whole: from the store, or unpacked again where something of it is gone.
pub(crate) fn tree(store: &Store, pinned: &Pinned) -> Result<Directory, BuildError> {
    Ok(whole(store, pinned, &own())?.1)
}

/// The name of the tree of a pinned image for a platform. All of it is in the store then.
pub(crate) fn tree_for(store: &Store, pinned: &Pinned, platform: &TargetPlatform) -> Result<Descriptor, BuildError> {
    Ok(whole(store, pinned, platform)?.0)
}

fn whole(store: &Store, pinned: &Pinned, platform: &TargetPlatform) -> Result<(Descriptor, Directory), BuildError> {
    let Pinned { pin, function, root, place } = pinned;
    let named = root.as_ref().filter(|_| is_same(platform, &own()));
    let known = match named {
        Some(root) => Some(root.tree),
        None => {
            let known = store.memo(ROOT_MEMO, key(*function, pin, platform).as_bytes())?;
            known.and_then(|value| recorded_tree(&value))
        }
    };
    if let Some(name) = known
        && let Some(tree) = store.find_tree(&name)?
    {
        return Ok((name, tree));
    }
    let (made, tree) = make(store, *function, place, pin, platform)?;
    match named {
        // The record named another one, which is corrected now: whoever went on with that name begins again.
        Some(root) if made != *root => Err(StoreError::Missing(root.tree).into()),
        _ => Ok((made.tree, tree)),
    }
}

fn key(function: DigestFunction, pin: &LockedImage, platform: &TargetPlatform) -> String {
    format!("1 {function} {platform} {}", pin.document)
}

pub(crate) fn make(
    store: &Store,
    function: DigestFunction,
    origin: &ImagePlace,
    pin: &LockedImage,
    platform: &TargetPlatform,
) -> Result<(Root, Directory), BuildError> {
    let (manifest, config) = image(store, origin, &pin.document, platform)?;
    fetch(store, origin, &manifest)?;
    let layers: Vec<(Descriptor, Digest)> =
        manifest.layers.iter().zip(&config.diff_ids).map(|(layer, diff_id)| (layer.blob, *diff_id)).collect();
    let (name, tree) = unpacked(store, function, origin, &layers)?;
    let root = Root { tree: name, env: config.env };
    store.put_memo(ROOT_MEMO, key(function, pin, platform).as_bytes(), &root.encode())?;
    Ok((root, tree))
}

/// The layers of a pinned image for a platform as they are; all of them are in the store then, and nobody looked into them.
pub(crate) fn layers(store: &Store, pinned: &Pinned, platform: &TargetPlatform) -> Result<ForeignLayers, BuildError> {
    let origin = &pinned.place;
    let (manifest, config) = image(store, origin, &pinned.pin.document, platform)?;
    fetch(store, origin, &manifest)?;
    let pairs = manifest.layers.iter().zip(&config.diff_ids);
    let layers = pairs.map(|(layer, diff_id)| self::layer(store, origin, layer, diff_id)).collect::<Result<_, _>>()?;
    Ok(ForeignLayers { layers, config: manifest.config })
}

/// A layer of an image of others; it is in the store.
pub(crate) fn layer(
    store: &Store,
    origin: &ImagePlace,
    layer: &LayerBlob,
    diff_id: &Digest,
) -> Result<ImageLayer, BuildError> {
    let kind = match compression(store, origin, &layer.blob)? {
        Compression::None => LayerKind::Plain,
        Compression::Gzip => LayerKind::Gzip,
        Compression::Zstd => LayerKind::Zstd,
        Compression::Xz => {
            let said = format!("layer `{}` is compressed with xz, which no manifest can tell", layer.blob.digest);
            return Err(origin.damaged(said));
        }
    };
    Ok(ImageLayer::Foreign { blob: layer.blob, diff_id: *diff_id, kind, annotations: layer.annotations.clone() })
}

/// The files of those layers of an image that are of others and in the store, over each other; `None` where it has no such layer.
pub(crate) fn below(store: &Store, function: DigestFunction, image: &Image) -> Result<Option<Descriptor>, BuildError> {
    if let Some(tree) = image.base_tree {
        return Ok(Some(tree));
    }
    let layers = of_others(&image.layers);
    if layers.is_empty() {
        return Ok(None);
    }
    let origin = ImagePlace::Built(Arc::new(image.clone()));
    unpacked(store, function, &origin, &layers).map(|(name, _)| Some(name))
}

/// The folders and links of layers that are of others and in the store, over each other: all of their files where these are known. Their
/// contents are looked at by nobody, and kept nowhere.
pub(crate) fn folders(
    store: &Store,
    function: DigestFunction,
    origin: &ImagePlace,
    layers: &[ImageLayer],
) -> Result<Directory, BuildError> {
    let layers: Vec<(Descriptor, Digest)> = of_others(layers);
    if layers.is_empty() {
        return Ok(Directory::root());
    }
    let key = layers_key(function, &layers);
    for kind in [LAYERS_MEMO, FOLDERS_MEMO] {
        if let Some(name) = named_by(store, kind, &key)?
            && let Some(tree) = store.find_tree(&name)?
        {
            return Ok(tree);
        }
    }
    let mut unpacking = Unpacking::new(Directory::root());
    for (blob, diff_id) in &layers {
        unpack(store, function, origin, &mut unpacking, blob, diff_id, Contents::Passed)?;
    }
    let tree = unpacking.finish().without_files();
    let name = store.put_tree(&tree, function)?;
    store.put_memo(FOLDERS_MEMO, key.as_bytes(), name.to_string().as_bytes())?;
    Ok(tree)
}

/// Those of an image's layers that are of others.
fn of_others(layers: &[ImageLayer]) -> Vec<(Descriptor, Digest)> {
    let layers = layers.iter().filter_map(|layer| match layer {
        ImageLayer::Foreign { blob, diff_id, .. } => Some((*blob, *diff_id)),
        ImageLayer::Made { .. } => None,
    });
    layers.collect()
}

fn layers_key(function: DigestFunction, layers: &[(Descriptor, Digest)]) -> String {
    let lines: String = layers.iter().map(|(blob, diff_id)| format!("{} {diff_id}\n", blob.digest)).collect();
    format!("1 {function} {}", Digest::of(DigestFunction::Sha256, lines.as_bytes()))
}

/// What a memo names. A record that makes no sense is a miss.
fn named_by(store: &Store, kind: &str, key: &str) -> Result<Option<Descriptor>, BuildError> {
    let known = store.memo(kind, key.as_bytes())?;
    Ok(known.and_then(|value| std::str::from_utf8(&value).ok()?.parse().ok()))
}

/// The tree that layers in the store give together, and its name, which is remembered. All of it is in the store then.
fn unpacked(
    store: &Store,
    function: DigestFunction,
    origin: &ImagePlace,
    layers: &[(Descriptor, Digest)],
) -> Result<(Descriptor, Directory), BuildError> {
    let key = layers_key(function, layers);
    if let Some(name) = named_by(store, LAYERS_MEMO, &key)?
        && let Some(tree) = store.find_tree(&name)?
    {
        return Ok((name, tree));
    }
    let mut unpacking = Unpacking::new(Directory::root());
    for (blob, diff_id) in layers {
        unpack(store, function, origin, &mut unpacking, blob, diff_id, Contents::Kept)?;
    }
    let tree = unpacking.finish();
    let name = store.put_tree(&tree, function)?;
    store.put_memo(LAYERS_MEMO, key.as_bytes(), name.to_string().as_bytes())?;
    Ok((name, tree))
}

/// How a layer of a kind is compressed.
pub(crate) const fn compression_of(kind: LayerKind) -> Compression {
    match kind {
        LayerKind::Plain => Compression::None,
        LayerKind::Gzip => Compression::Gzip,
        LayerKind::Zstd => Compression::Zstd,
    }
}

/// How a layer is compressed, by its first bytes: media types are wrong now and then.
fn compression(store: &Store, origin: &ImagePlace, blob: &Descriptor) -> Result<Compression, BuildError> {
    let mut head = Vec::new();
    let read = open(store, blob)?.take(6).read_to_end(&mut head);
    read.map_err(|error| origin.damaged(format!("layer `{}`: {error}", blob.digest)))?;
    Ok(Compression::detect(&head))
}

/// The image for a platform.
fn image(
    store: &Store,
    origin: &ImagePlace,
    document: &Descriptor,
    wanted: &TargetPlatform,
) -> Result<(Manifest, ConfigView), BuildError> {
    let (_, manifest, config) = chosen(store, origin, document, wanted)?;
    if !config.platform.runs_where(wanted) {
        return Err(BuildError::Platform {
            place: origin.place(),
            wanted: wanted.to_string(),
            known: vec![config.platform.to_string()],
        });
    }
    Ok((manifest, config))
}

/// The image that a document is, or that it names for a platform, with the name of its manifest. A document that is the
/// manifest of an image itself is taken whatever it is for.
pub(crate) fn chosen(
    store: &Store,
    origin: &ImagePlace,
    document: &Descriptor,
    wanted: &TargetPlatform,
) -> Result<(Descriptor, Manifest, ConfigView), BuildError> {
    let failed = |error| BuildError::Image { place: origin.place(), source: Box::new(error) };
    let load = |blob: &Descriptor| -> Result<Vec<u8>, BuildError> {
        origin.document(store, blob)?;
        Ok(store.load(blob, MAX_DOCUMENT_BYTES)?)
    };
    let (mut blob, mut media_type, mut is_told) = (*document, String::new(), false);
    for _ in 0..MAX_DEPTH {
        let named = Some(&*media_type).filter(|text| !text.is_empty());
        match Document::parse(&load(&blob)?, named).map_err(failed)? {
            Document::Manifest(manifest) => {
                origin.blob(store, &checked(origin, &manifest.config)?)?;
                let config = ConfigView::parse(&store.load(&manifest.config, MAX_DOCUMENT_BYTES)?).map_err(failed)?;
                if manifest.layers.len() != config.diff_ids.len() {
                    let (layers, ids) = (manifest.layers.len(), config.diff_ids.len());
                    return Err(origin.damaged(format!("its manifest has {layers} layers, its configuration {ids}")));
                }
                // Whatever an image is for, it is that which the index says.
                if is_told && !config.platform.runs_where(wanted) {
                    let known = vec![config.platform.to_string()];
                    return Err(BuildError::Platform { place: origin.place(), wanted: wanted.to_string(), known });
                }
                return Ok((blob, manifest, config));
            }
            Document::Index(items) => {
                let found = choose(&items, wanted).ok_or_else(|| {
                    let known =
                        items.iter().filter(|item| !item.is_attestation).filter_map(|item| item.platform.as_ref());
                    let known = known.map(ToString::to_string).collect();
                    BuildError::Platform { place: origin.place(), wanted: wanted.to_string(), known }
                })?;
                blob = found.blob;
                media_type.clone_from(&found.media_type);
                is_told = found.platform.is_some();
            }
        }
    }
    Err(origin.damaged(format!("it has more than {MAX_DEPTH} documents in each other")))
}

/// A configuration is a document too.
pub(crate) fn checked(origin: &ImagePlace, config: &Descriptor) -> Result<Descriptor, BuildError> {
    match config.size > MAX_DOCUMENT_BYTES {
        true => Err(origin.damaged(format!("its configuration is longer than {MAX_DOCUMENT_BYTES} bytes"))),
        false => Ok(*config),
    }
}

/// Brings the layers of an image here, some at once.
pub(crate) fn fetch(store: &Store, origin: &ImagePlace, manifest: &Manifest) -> Result<(), BuildError> {
    let mut missing: Vec<Descriptor> = Vec::new();
    for layer in &manifest.layers {
        if layer.blob.size > MAX_LAYER_BYTES {
            let said = format!("layer `{}` is longer than {MAX_LAYER_BYTES} bytes", layer.blob.digest);
            return Err(origin.damaged(said));
        }
        if !missing.contains(&layer.blob) && !store.contains(&layer.blob)? {
            missing.push(layer.blob);
        }
    }
    // An archive is read whole for the first one.
    if matches!(origin, ImagePlace::Archive { .. }) {
        return missing.iter().try_for_each(|blob| origin.blob(store, blob));
    }
    let next = std::sync::Mutex::new(missing.into_iter());
    let work = || loop {
        let blob = next.lock().unwrap_or_else(std::sync::PoisonError::into_inner).next();
        let Some(blob) = blob else { return Ok(()) };
        origin.blob(store, &blob)?;
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..PARALLEL).map(|_| scope.spawn(work)).collect();
        // The first failure in their order.
        threads.into_iter().try_for_each(|thread| thread.join().expect("no thread panics"))
    })
}

/// What becomes of the contents of a layer's files.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Contents {
    /// They are in the store.
    Kept,
    /// They are passed over: the files are none that anybody could read.
    Passed,
}

/// Puts a layer over what is below it, and compares its bytes with what the configuration says of them.
fn unpack(
    store: &Store,
    function: DigestFunction,
    origin: &ImagePlace,
    unpacking: &mut Unpacking,
    blob: &Descriptor,
    diff_id: &Digest,
    contents: Contents,
) -> Result<(), BuildError> {
    let failed = |said: String| origin.damaged(format!("layer `{}`: {said}", blob.digest));
    let compressed = open(store, blob)?;
    // Headers and padding of very many small files can be longer than what is in them.
    let limit = MAX_LAYER_BYTES.saturating_mul(2);
    let bytes =
        decompress(compressed, compression(store, origin, blob)?, limit).map_err(|error| failed(error.to_string()))?;
    let bytes = HashingReader::new(bytes, &[diff_id.function()]);
    let limits = ReadTarLimits { content_bytes: MAX_LAYER_BYTES };
    let digests = std::thread::scope(|scope| {
        // Decompressing and digesting take as long as storing what is in there.
        let (mut bytes, thread) = read_ahead(scope, bytes);
        let mut read = |keep: Keep<'_>| {
            read_layer(unpacking, &mut bytes, limits, keep).map_err(|error| match error {
                // The layer is in order; the store is full, or fails.
                ReadTarError::Keep { path, source } if !matches!(source, StoreError::Source(_)) => {
                    BuildError::Keep { path: format!("{path} of {}", blob.digest), source }
                }
                error => {
                    let (place, layer) = (origin.place(), blob.digest.to_string());
                    BuildError::ForeignLayer { place, layer, source: Box::new(error) }
                }
            })
        };
        match contents {
            Contents::Kept => store_behind(store, function, read)?,
            Contents::Passed => read(&mut |content| {
                let size = io::copy(content, &mut io::sink()).map_err(StoreError::Source)?;
                Ok(Descriptor { size, ..Descriptor::empty(function) })
            })?,
        }
        io::copy(&mut bytes, &mut io::sink()).map_err(|error| failed(error.to_string()))?;
        let (digests, _) = thread.join().expect("reading does not panic").finish();
        Ok::<_, BuildError>(digests)
    })?;
    if digests[0] != *diff_id {
        return Err(failed(format!("its uncompressed bytes are `{}`, and were to be `{diff_id}`", digests[0])));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_as_they_were_written() {
        let tree = Descriptor::of(DigestFunction::Blake3, b"tree");
        let bare = Root { tree, env: BTreeMap::new() };
        let env = BTreeMap::from([("A".to_owned(), "1\n2".to_owned())]);
        let root = Root { tree, env };
        for root in [&bare, &root] {
            assert_eq!(Root::decode(&root.encode()).as_ref(), Some(root));
        }
        assert_eq!(bare.name(), tree);
        assert_ne!(root.name(), tree);
        assert_eq!(Root::decode(b"nonsense"), None);
        assert_eq!(recorded_tree(&root.encode()), Some(tree));
    }
}
