//! What is below the layers of an image: those of a base byte for byte, its files, and what its configuration gives.

use std::sync::Arc;

use cas_blob::Descriptor;
use cas_config::Label;
use cas_digest::DigestFunction;
use cas_oci::{Inherited, MAX_DOCUMENT_BYTES, TargetPlatform};
use cas_store::Store;
use cas_tree::Directory;

use crate::image::Context;
use crate::image_place::ImagePlace;
use crate::{BuildError, Image, ImageLayer, Output, foreign};

/// What a tree is to the layers that it may be cut into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cutting {
    /// The root below all others.
    Root,
    /// A layer of the image's own.
    Layer,
    /// It is one layer, because somebody said so.
    Whole,
}

/// A layer, before it is told of in a manifest.
#[derive(Clone)]
pub(crate) enum Source {
    /// A tree.
    Tree { tree: Arc<Directory>, name: Descriptor, created_by: String, cutting: Cutting },
    /// A layer of another image, taken as it is.
    Layer(ImageLayer),
}

/// What somebody asks of the files of a base.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    /// All of them.
    pub(crate) files: bool,
    /// Its folders and links.
    pub(crate) folders: bool,
}

/// A base.
pub(crate) struct Base {
    /// The lowest layers.
    pub(crate) sources: Vec<Source>,
    /// What those of others give together, where somebody asked for it.
    pub(crate) tree: Option<Descriptor>,
    /// What its configuration gives.
    pub(crate) inherited: Inherited,
    /// What is below the image's own layers, where somebody asked for it: folders and links, perhaps files.
    pub(crate) below: Directory,
}

impl Base {
    /// Takes apart what an image is based on, as it is for a platform. Layers of others are unpacked where their files are wanted.
    pub(crate) fn of(
        context: &Context<'_>,
        label: &Label,
        base: Option<&(String, Output)>,
        platform: &TargetPlatform,
        wanted: Wanted,
    ) -> Result<Self, BuildError> {
        let store = context.store;
        match base {
            None => {
                let (sources, inherited) = (Vec::new(), Inherited::default());
                Ok(Self { sources, tree: None, inherited, below: Directory::root() })
            }
            Some((from, Output::Toolchain(toolchain))) => {
                if toolchain.host_identity().is_some() {
                    let role = "the base of an image: it shows programs of this machine";
                    return Err(BuildError::Role { label: from.clone(), kind: "toolchain", role });
                }
                // Whoever has the image already needs none of its layers again.
                if let Some(foreign) = toolchain.foreign_layers(store, platform)? {
                    let inherited = inherited(store, &foreign.config, foreign.layers.len())?;
                    let tree = if wanted.files { toolchain.foreign_tree(store, platform)? } else { None };
                    let below = match wanted.folders {
                        true => toolchain.foreign_folders(store, context.function, &foreign.layers)?,
                        false => Directory::root(),
                    };
                    let sources = foreign.layers.into_iter().map(Source::Layer).collect();
                    return Ok(Self { sources, tree, inherited, below });
                }
                // With something added it is one layer, so it has no history; what it runs is what the image runs.
                let below = toolchain.image_below().map(|image| image.foreign_layers(store, platform)).transpose()?;
                let inherited = match below.flatten() {
                    Some(foreign) => Inherited { history: Vec::new(), ..inherited(store, &foreign.config, 0)? },
                    None => Inherited::default(),
                };
                let tree = toolchain.tree(store, context.fetcher)?;
                let name = toolchain.tree_name(&tree)?;
                let below = if wanted.folders { Directory::clone(&tree) } else { Directory::root() };
                let source = Source::Tree { tree, name, created_by: format!("cas {from}"), cutting: Cutting::Root };
                Ok(Self { sources: vec![source], tree: None, inherited, below })
            }
            Some((from, Output::Image(image))) => {
                let image = image.for_platform(platform).ok_or_else(|| BuildError::ForeignPlatform {
                    label: label.to_string(),
                    platform: platform.to_string(),
                    why: format!("its base `{from}` is not"),
                })?;
                let sources: Vec<Source> = image.layers.iter().cloned().map(Source::Layer).collect();
                let inherited = inherited(store, &image.config, sources.len())?;
                let tree = if wanted.files { foreign::below(store, context.function, image)? } else { image.base_tree };
                let below = if wanted.folders { folders(store, context.function, image)? } else { Directory::root() };
                Ok(Self { sources, tree, inherited, below })
            }
            Some((from, output)) => {
                let role = "the base of an image";
                Err(BuildError::Role { label: from.clone(), kind: output.kind(), role })
            }
        }
    }
}

/// The folders and links of an image, perhaps with files.
fn folders(store: &Store, function: DigestFunction, image: &Image) -> Result<Directory, BuildError> {
    let origin = ImagePlace::Built(Arc::new(image.clone()));
    let mut tree = foreign::folders(store, function, &origin, &image.layers)?;
    for layer in &image.layers {
        if let ImageLayer::Made { tree: name, .. } = layer {
            tree.apply_layer(&store.load_tree(name)?);
        }
    }
    Ok(tree)
}

fn inherited(store: &Store, config: &Descriptor, layer_count: usize) -> Result<Inherited, BuildError> {
    let failed = |error| BuildError::Image { place: config.digest.to_string(), source: Box::new(error) };
    let mut inherited = Inherited::parse(&store.load(config, MAX_DOCUMENT_BYTES)?).map_err(failed)?;
    inherited.fit_history(layer_count);
    Ok(inherited)
}

impl Image {
    /// What names it: the index over all of its platforms, or its manifest.
    #[must_use]
    pub fn document(&self) -> &Descriptor {
        self.index.as_ref().map_or(&self.manifest, |index| &index.blob)
    }

    /// Media type of that.
    #[must_use]
    pub const fn media_type(&self) -> &'static str {
        match &self.index {
            Some(index) => index.format.index_media_type(),
            None => self.format.manifest_media_type(),
        }
    }

    /// The files of all layers together, and the function that names them.
    pub(crate) fn tree(&self, store: &Store) -> Result<(Directory, DigestFunction), BuildError> {
        let function = self.layers.iter().rev().find_map(|layer| match layer {
            ImageLayer::Made { tree, .. } => Some(tree.digest.function()),
            ImageLayer::Foreign { .. } => None,
        });
        let function = function.or(self.base_tree.map(|tree| tree.digest.function()));
        let function = function.unwrap_or(DigestFunction::Blake3);
        let layers: Vec<Source> = self.layers.iter().cloned().map(Source::Layer).collect();
        let base = foreign::below(store, function, self)?;
        Ok((files(store, base.as_ref(), &layers)?, function))
    }
}

/// The files of a base of others and of layers over it, the lowest first.
pub(crate) fn files(store: &Store, base: Option<&Descriptor>, layers: &[Source]) -> Result<Directory, BuildError> {
    let mut tree = base.map_or_else(|| Ok(Directory::root()), |tree| store.load_tree(tree))?;
    for layer in layers {
        match layer {
            Source::Tree { tree: layer, .. } => tree.apply_layer(layer),
            Source::Layer(ImageLayer::Made { tree: name, .. }) => tree.apply_layer(&store.load_tree(name)?),
            // They are what the base is of.
            Source::Layer(ImageLayer::Foreign { .. }) => {}
        }
    }
    Ok(tree)
}
