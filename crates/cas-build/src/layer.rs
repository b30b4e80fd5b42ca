//! Layers: the frames of a tree's tar, made in parallel, kept, and used again.

use std::io::{self, Read, Write};

use cas_blob::{Descriptor, OpenBlob};
use cas_digest::{DigestFunction, HashingWriter};
use cas_store::Store;
use cas_tar::{Codec, Frame, FrameSummary, Group, LayerPlan, Profile, Recipe, copy_pieces};
use cas_tree::Directory;
use rayon::prelude::*;

use crate::BuildError;

/// A group up to this size is compressed in memory, a larger one by way of a file.
const IN_MEMORY_BYTES: u64 = 8 << 20;
/// Longest recipe that is read.
const MAX_RECIPE_BYTES: u64 = 64 << 20;

/// Why a layer could not be made.
pub(crate) enum LayerError {
    /// The tree holds what a layer cannot tell.
    Entry(cas_tar::EntryError),
    /// Anything else.
    Build(BuildError),
}

impl<E: Into<BuildError>> From<E> for LayerError {
    fn from(error: E) -> Self {
        Self::Build(error.into())
    }
}

/// The recipe of the layer that holds `tree`, named `name`, and the recipe's own name.
pub(crate) fn build(
    store: &Store,
    tree: &Directory,
    name: &Descriptor,
    codec: Codec,
) -> Result<(Descriptor, Recipe), LayerError> {
    let function = name.digest.function();
    let key = format!("{} {} {name}", Profile::Layer1.name(), codec.id());
    if let Some(value) = store.memo("layer", key.as_bytes())?
        && let Some(recipe_name) = std::str::from_utf8(&value).ok().and_then(|text| text.parse().ok())
        && let Some(recipe) = find(store, &recipe_name)?
    {
        return Ok((recipe_name, recipe));
    }
    let plan = LayerPlan::new(tree).map_err(LayerError::Entry)?;
    let (recipe_name, recipe) = assemble(store, Profile::Layer1, codec, name, &plan)?;
    // The tree is kept with its recipe: what runs an image needs it.
    store.put_tree(tree, function)?;
    store.put_memo("layer", key.as_bytes(), recipe_name.to_string().as_bytes())?;
    Ok((recipe_name, recipe))
}

/// Makes the frames of a plan, and the recipe that holds them.
pub(crate) fn assemble(
    store: &Store,
    profile: Profile,
    codec: Codec,
    tree: &Descriptor,
    plan: &LayerPlan,
) -> Result<(Descriptor, Recipe), BuildError> {
    let function = tree.digest.function();
    let (frames, tar) = rayon::join(
        || plan.groups.par_iter().map(|group| frame(store, function, codec, group)).collect::<Result<Vec<_>, _>>(),
        || digest_of_tar(store, plan),
    );
    let (frames, tar) = (frames?, tar?);
    let mut recipe = Recipe { profile, codec, tree: *tree, tar, blob: tar, frames };
    let mut writer = HashingWriter::new(io::sink(), &[DigestFunction::Sha256]);
    write(store, &recipe, &mut writer)?;
    let (_, digests, size) = writer.finish();
    recipe.blob = Descriptor { digest: digests[0], size };
    Ok((store.put_bytes(function, &recipe.encode())?, recipe))
}

/// Loads a recipe all of whose frames are here.
pub(crate) fn find(store: &Store, name: &Descriptor) -> Result<Option<Recipe>, BuildError> {
    if !store.contains(name)? {
        return Ok(None);
    }
    let Ok(recipe) = Recipe::decode(&store.load(name, MAX_RECIPE_BYTES)?) else { return Ok(None) };
    for frame in &recipe.frames {
        if !store.contains(&frame.blob)? {
            return Ok(None);
        }
    }
    Ok(Some(recipe))
}

/// Writes the compressed bytes of a layer.
pub(crate) fn write(store: &Store, recipe: &Recipe, sink: &mut dyn Write) -> Result<(), BuildError> {
    sink.write_all(recipe.codec.header()).map_err(BuildError::Compress)?;
    for frame in &recipe.frames {
        let mut source = store.open_blob(&frame.blob).map_err(cas_store::StoreError::from)?;
        io::copy(&mut source, sink).map_err(BuildError::Compress)?;
    }
    sink.write_all(&recipe.trailer()).map_err(BuildError::Compress)
}

fn digest_of_tar(store: &Store, plan: &LayerPlan) -> Result<Descriptor, BuildError> {
    let mut writer = HashingWriter::new(io::sink(), &[DigestFunction::Sha256]);
    for group in &plan.groups {
        copy_pieces(group.pieces(), store, &mut writer).map_err(BuildError::Compress)?;
    }
    let (_, digests, size) = writer.finish();
    Ok(Descriptor { digest: digests[0], size })
}

fn frame(store: &Store, function: DigestFunction, codec: Codec, group: &Group) -> Result<Frame, BuildError> {
    let kind = format!("frame {} {function}", codec.id());
    let key = group.key();
    if let Some(value) = store.memo(&kind, key.value())?
        && let Some(frame) = parse(&value, group.size())
        && store.contains(&frame.blob)?
    {
        return Ok(frame);
    }
    let (blob, summary) = if group.size() <= IN_MEMORY_BYTES {
        let (bytes, summary) = encode(store, codec, group, Vec::new())?;
        (store.put_bytes(function, &bytes)?, summary)
    } else {
        // Another image may be at the same group, with this codec or another one.
        let folder = cas_fs::temporary_dir_in(store.scratch(), "frame-")?;
        let result = encode_by_file(store, function, codec, group, &folder.join("part"));
        // Made or not, the file has served; what stays goes with the process's folder.
        let _ = cas_fs::remove_tree(&folder);
        result?
    };
    store.put_memo(&kind, key.value(), format!("{blob} {:08x}", summary.crc32).as_bytes())?;
    Ok(Frame { blob, summary })
}

fn parse(value: &[u8], length: u64) -> Option<Frame> {
    let (blob, crc) = std::str::from_utf8(value).ok()?.split_once(' ')?;
    let crc32 = u32::from_str_radix(crc, 16).ok()?;
    Some(Frame { blob: blob.parse().ok()?, summary: FrameSummary { length, crc32 } })
}

fn encode<W: Write>(store: &Store, codec: Codec, group: &Group, sink: W) -> Result<(W, FrameSummary), BuildError> {
    let mut encoder = codec.encoder(sink, group.size()).map_err(BuildError::Compress)?;
    copy_pieces(group.pieces(), store, &mut encoder).map_err(BuildError::Compress)?;
    encoder.finish().map_err(BuildError::Compress)
}

fn encode_by_file(
    store: &Store,
    function: DigestFunction,
    codec: Codec,
    group: &Group,
    path: &std::path::Path,
) -> Result<(Descriptor, FrameSummary), BuildError> {
    let file = cas_fs::create_new(path, 0o600)?;
    let (writer, summary) = encode(store, codec, group, io::BufWriter::with_capacity(1 << 20, file))?;
    drop(writer.into_inner().map_err(|error| BuildError::Compress(error.into_error()))?);
    let mut source: Box<dyn Read> = Box::new(cas_fs::open(path)?);
    Ok((store.put(function, &mut source)?, summary))
}
