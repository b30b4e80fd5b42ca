//! Layers: recipes of archives, made by `assemble`, kept by what they are made of, and written out.

use std::io::{self, Write};
use std::sync::Arc;

use cas_blob::{Descriptor, OpenBlob};
use cas_store::{Store, StoreError};
use cas_tar::{Codec, LANDMARK, Profile, Recipe};
use cas_tree::Directory;

use crate::BuildError;
use crate::assemble::{Assembled, Holds, assemble};
use crate::layer_states::LayerStates;

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

impl LayerError {
    /// With words for what a layer cannot tell.
    pub(crate) fn or(self, entry: impl FnOnce(cas_tar::EntryError) -> BuildError) -> BuildError {
        match self {
            Self::Entry(error) => entry(error),
            Self::Build(error) => error,
        }
    }
}

/// The recipe of the layer that holds `tree`, named `name`, and the recipe's own name. `place` says which layer of which image it
/// is: what was there before may have begun alike.
///
/// `at_once` is how many are made at the same time: each takes its share of processors and memory.
pub(crate) fn build(
    store: &Store,
    tree: &dyn Fn() -> Result<Arc<Directory>, StoreError>,
    name: &Descriptor,
    codec: Codec,
    place: &str,
    at_once: usize,
) -> Result<(Descriptor, Recipe), LayerError> {
    if let Some(known) = known(store, name, codec)? {
        return Ok(known);
    }
    let tree = tree()?;
    let holds = match codec {
        Codec::Stargz6 => Holds::StargzTree(&tree, store.put_bytes(name.digest.function(), LANDMARK)?),
        _ => Holds::Tree(&tree),
    };
    let (recipe_name, recipe) = recipe(store, Profile::Layer1, codec, name, holds, Some(place), at_once)?;
    // The tree is kept with its recipe: what runs an image needs it.
    store.put_tree(&tree, name.digest.function())?;
    store.put_memo("layer", key(name, codec).as_bytes(), recipe_name.to_string().as_bytes())?;
    Ok((recipe_name, recipe))
}

fn key(name: &Descriptor, codec: Codec) -> String {
    format!("{} {} {name}", Profile::Layer1.name(), codec.id())
}

/// The layer of a tree, if it was made before and all of it is here.
pub(crate) fn known(
    store: &Store,
    name: &Descriptor,
    codec: Codec,
) -> Result<Option<(Descriptor, Recipe)>, BuildError> {
    let Some(value) = store.memo("layer", key(name, codec).as_bytes())? else { return Ok(None) };
    let Some(name) = std::str::from_utf8(&value).ok().and_then(|text| text.parse().ok()) else { return Ok(None) };
    Ok(find(store, &name)?.map(|recipe| (name, recipe)))
}

/// Whether a recipe is that of a layer which this store made, and hashed on the way.
pub(crate) fn is_made_here(store: &Store, name: &Descriptor, recipe: &Recipe) -> Result<bool, BuildError> {
    let value = store.memo("layer", key(&recipe.tree, recipe.codec).as_bytes())?;
    Ok(recipe.profile == Profile::Layer1 && value.is_some_and(|value| value == name.to_string().as_bytes()))
}

/// Makes an archive, and the recipe that holds it.
pub(crate) fn recipe(
    store: &Store,
    profile: Profile,
    codec: Codec,
    tree: &Descriptor,
    holds: Holds<'_>,
    place: Option<&str>,
    at_once: usize,
) -> Result<(Descriptor, Recipe), LayerError> {
    let function = tree.digest.function();
    // Frames are named by the function, so states of another one are of no use.
    let place = place.map(|place| format!("{function} {place}"));
    let place = place.as_deref();
    let before = place.map_or(Ok(None), |place| LayerStates::find(store, profile, codec, place))?;
    let Assembled { tar, blob, frames, tail, states } =
        assemble(store, function, codec, holds, before.as_ref(), at_once)?;
    if let Some(place) = place {
        states.keep(store, profile, codec, place)?;
    }
    let recipe = Recipe { profile, codec, tree: *tree, tar, blob, frames, tail };
    Ok((store.put_bytes(function, &recipe.encode())?, recipe))
}

/// Loads a recipe all of whose frames are here.
pub(crate) fn find(store: &Store, name: &Descriptor) -> Result<Option<Recipe>, BuildError> {
    if !store.contains(name)? {
        return Ok(None);
    }
    let Ok(recipe) = Recipe::decode(&store.load(name, MAX_RECIPE_BYTES)?) else { return Ok(None) };
    let tail = recipe.tail.iter().map(|tail| tail.blob);
    let blobs: Vec<Descriptor> = recipe.frames.iter().map(|frame| frame.blob).chain(tail).collect();
    Ok(store.contain(&blobs)?.iter().all(|is_here| *is_here).then_some(recipe))
}

/// Writes the compressed bytes of an archive.
pub(crate) fn write(store: &Store, recipe: &Recipe, sink: &mut dyn Write) -> Result<(), BuildError> {
    sink.write_all(recipe.codec.header()).map_err(BuildError::Compress)?;
    let copy = |blob: &Descriptor, sink: &mut dyn Write| {
        let mut source = store.open_blob(blob).map_err(cas_store::StoreError::from)?;
        io::copy(&mut source, sink).map(drop).map_err(BuildError::Compress)
    };
    recipe.frames.iter().try_for_each(|frame| copy(&frame.blob, sink))?;
    sink.write_all(&recipe.trailer()).map_err(BuildError::Compress)?;
    recipe.tail.iter().try_for_each(|tail| copy(&tail.blob, sink))
}
