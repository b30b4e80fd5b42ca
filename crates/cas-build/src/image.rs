//! Images: layers, configuration and manifest, for each platform, and an index over them.
//!
//! Not here: what is below (`image_base`), which images the store knows by name (`image_record`), which platforms can be had
//! (`platforms`).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use cas_blob::Descriptor;
use cas_config::{Compression, Image as ImageTarget, Label, Owner};
use cas_digest::DigestFunction;
use cas_fetch::Fetcher;
use cas_oci::{
    ImageConfig, LayerKind, LayerReference, MAX_DOCUMENT_BYTES, TargetPlatform, encode_config, encode_image_index,
    encode_manifest,
};
use cas_store::{Store, StoreError};
use cas_tar::{Codec, Recipe};
use cas_tree::{Directory, RelPath};

use crate::accounts::{self, Accounts};
use crate::image_base::{Base, Cutting, Source, Wanted, files};
use crate::layer::{self, LayerError};
use crate::layer_cut::{self, CutPart};
use crate::over::{BlindLink, Folders, over};
use crate::stamp::stamp;
use crate::{BuildError, Image, ImageIndex, ImageLayer, Output, Taints, Workspace, image_record, part, platforms};

/// Layers that are made at the same time: together they have what one alone would have of memory.
const MOST_AT_ONCE: usize = 4;

/// Where an image is built.
pub(crate) struct Context<'a> {
    pub(crate) store: &'a Store,
    pub(crate) workspace: &'a Workspace,
    pub(crate) function: DigestFunction,
    /// Where what a toolchain lost comes from.
    pub(crate) fetcher: &'a Fetcher,
    /// Variables of whoever builds, of which git gets some.
    pub(crate) variables: &'a BTreeMap<String, String>,
}

/// What a layer is made of.
pub(crate) enum Given {
    /// Outputs of a target, with its label.
    Outputs(String, Output),
    /// Files of the image's own package, with paths from the workspace's root.
    Files(Directory),
}

/// What a target gives to a layer, before its rights are looked at.
struct LayerPart {
    from: String,
    tree: Directory,
    /// The uppermost place that is of it.
    top: Option<RelPath>,
    folders: Folders,
}

/// Builds an image. `base` is the output of what the target names, with its label, `layers` what its layers are made of, in their order.
pub(crate) fn build(
    context: &Context<'_>,
    label: &Label,
    target: &ImageTarget,
    base: Option<(String, Output)>,
    layers: Vec<Given>,
) -> Result<Image, BuildError> {
    let Context { store, workspace, .. } = *context;
    let outputs = layers.iter().filter_map(|given| match given {
        Given::Outputs(_, output) => Some(output),
        Given::Files(_) => None,
    });
    let taints = Taints::of(base.iter().map(|(_, output)| output).chain(outputs));
    let wanted = platforms::of_target(target);
    let mut parts = Vec::new();
    for (layer, given) in target.layers.iter().zip(layers) {
        let (from, (tree, top), folders) = match given {
            Given::Outputs(from, output) => {
                platforms::check_part(workspace, label, layer, &from, &output, &wanted)?;
                let role = "a layer of an image";
                let placed = part::Context { store, workspace, label, role }.placed_part(&from, &output, layer)?;
                (from, placed, Folders::Made)
            }
            Given::Files(files) => {
                let from = label.to_string();
                let placed = part::files_at(&from, &files, layer)?;
                (from, placed, Folders::Passed)
            }
        };
        parts.push(LayerPart { from, tree, top, folders });
    }
    let mut images = Vec::new();
    for platform in &wanted {
        images.push(for_platform(context, label, target, platform, base.as_ref(), &parts, &taints)?);
    }
    // The one for this machine stands for all where one image is asked for.
    let main = images.iter().position(|image| platforms::can_run(&image.platform)).unwrap_or(0);
    let mut image = images[main].clone();
    if images.len() > 1 {
        let manifests: Vec<_> = images.iter().map(|image| (image.format, &image.platform, image.manifest)).collect();
        let index = encode_image_index(target.format, &manifests, &target.annotations);
        let blob = put_document(store, "index", &label.to_string(), &index)?;
        image.index = Some(ImageIndex { blob, format: target.format, images });
    }
    image_record::put(store, &image)?;
    Ok(image)
}

/// The image of one platform.
fn for_platform(
    context: &Context<'_>,
    label: &Label,
    target: &ImageTarget,
    platform: &TargetPlatform,
    base: Option<&(String, Output)>,
    parts: &[LayerPart],
    taints: &Taints,
) -> Result<Image, BuildError> {
    let Context { store, workspace, function, .. } = *context;
    let user = target.config.user.as_ref().map(|user| Owner::parse(user).expect("it was checked with the text"));
    // All that is asked of the files below: what lies over them hides what is there.
    let owners = target.layers.iter().filter_map(|layer| layer.rights.owner.as_ref());
    let wants_files = owners.chain(&user).any(accounts::has_names);
    // A file at the root is on the way of nothing.
    let has_folders = |part: &LayerPart| part.tree.entries().any(|(_, node)| node.as_directory().is_some());
    let wanted = Wanted { files: wants_files, folders: parts.iter().any(has_folders) };
    let Base { mut sources, tree: base_tree, inherited, mut below } = Base::of(context, label, base, platform, wanted)?;
    for (layer_index, (layer, part)) in target.layers.iter().zip(parts).enumerate() {
        let LayerPart { from, tree, top, folders } = part;
        let (mut tree, top) =
            over(tree.clone(), top.clone(), *folders, &below).map_err(|BlindLink { folder, why }| {
                BuildError::BlindLink { label: label.to_string(), layer_index, folder: folder.to_string(), why }
            })?;
        let owner = match &layer.rights.owner {
            None => None,
            Some(owner) => {
                let place = || format!("layer {} (`{from}`)", layer_index + 1);
                Some(numbers(context, label, place, owner, base_tree.as_ref(), &sources, Some(&tree))?)
            }
        };
        accounts::give(&mut tree, top.as_ref(), &layer.rights, owner);
        if layer_index + 1 < parts.len() {
            below.apply_layer(&tree);
        }
        let name = tree.encode(function).map_err(StoreError::from)?.root;
        let cutting = if layer.is_whole { Cutting::Whole } else { Cutting::Layer };
        sources.push(Source::Tree { tree: Arc::new(tree), name, created_by: format!("cas {from}"), cutting });
    }
    if let Some(owner) = &user {
        numbers(context, label, || "`config`".to_owned(), owner, base_tree.as_ref(), &sources, None)?;
    }
    let (references, made) = described(store, label, platform, target, sources)?;
    let own = &target.config;
    let mut config = ImageConfig {
        user: own.user.clone(),
        exposed_ports: own.expose.clone(),
        env: own.env.clone(),
        entrypoint: own.entrypoint.clone(),
        cmd: own.cmd.clone(),
        volumes: own.volumes.clone(),
        working_dir: own.workdir.clone(),
        labels: own.labels.clone(),
        stop_signal: own.stop_signal.clone(),
        healthcheck: own.healthcheck.clone(),
        created: None,
    }
    .over(inherited.config);
    stamp(workspace, context.variables, label, target, &mut config)?;
    let config = encode_config(platform, &config, &inherited.history, &references);
    let config = put_document(store, "configuration", &label.to_string(), &config)?;
    let manifest = encode_manifest(target.format, &config, &references, &target.annotations);
    let manifest = manifest.ok_or_else(|| BuildError::LayerFormat { label: label.to_string() })?;
    Ok(Image {
        reference: label.to_string(),
        manifest: put_document(store, "manifest", &label.to_string(), &manifest)?,
        config,
        format: target.format,
        platform: platform.clone(),
        layers: made,
        base_tree,
        taints: taints.clone(),
        index: None,
    })
}

/// Puts a document of an image that is made here into the store, unless nobody would read it.
pub(crate) fn put_document(
    store: &Store,
    what: &'static str,
    name: &str,
    bytes: &[u8],
) -> Result<Descriptor, BuildError> {
    match bytes.len() as u64 > MAX_DOCUMENT_BYTES {
        true => Err(BuildError::DocumentTooLong { what, name: name.to_owned(), bytes: bytes.len() }),
        false => Ok(store.put_bytes(DigestFunction::Sha256, bytes)?),
    }
}

/// The numbers of an owner: names as the layers so far know them, and the layer that is at work.
fn numbers(
    context: &Context<'_>,
    label: &Label,
    place: impl Fn() -> String,
    owner: &Owner,
    base: Option<&Descriptor>,
    below: &[Source],
    own: Option<&Directory>,
) -> Result<(u32, u32), BuildError> {
    let mut known = Accounts::default();
    if accounts::has_names(owner) {
        let mut files = files(context.store, base, below)?;
        if let Some(own) = own {
            files.apply_layer(own);
        }
        known = Accounts::of(context.store, &files)?;
    }
    known.numbers(owner).map_err(|unknown| BuildError::UnknownAccount {
        label: label.to_string(),
        place: place(),
        kind: unknown.kind,
        name: unknown.name,
    })
}

/// A layer that is to be made.
struct Planned {
    /// Which entry of the image it is of.
    layer_index: usize,
    /// Which layer it is, so that the next one there is known to go on from it.
    place: String,
    tree: Descriptor,
    origin: Origin,
    created_by: String,
}

/// Where the tree of a planned layer comes from.
enum Origin {
    /// It is at hand.
    Loaded(Arc<Directory>),
    /// The store, where it is since the tree of this name was cut for so many layers.
    CutOf(Descriptor, usize),
}

/// Layers as documents name them and as the store has them; trees are cut, and their layers made.
fn described(
    store: &Store,
    label: &Label,
    platform: &TargetPlatform,
    target: &ImageTarget,
    sources: Vec<Source>,
) -> Result<(Vec<LayerReference>, Vec<ImageLayer>), BuildError> {
    let budgets = layer_cut::budgets(target.max_layers, &sources);
    // `None` stands for the next one of those that are to be made.
    let (mut order, mut planned) = (Vec::new(), Vec::new());
    for (layer_index, (source, budget)) in sources.into_iter().zip(budgets).enumerate() {
        let (tree, name, created_by) = match source {
            Source::Layer(layer) => {
                order.push(Some(layer));
                continue;
            }
            Source::Tree { tree, name, created_by, .. } => (tree, name, created_by),
        };
        let place = format!("{label} {platform} {layer_index}");
        let parts = layer_cut::parts(store, &tree, &name, budget)?;
        order.extend(parts.iter().map(|_| None));
        if parts.len() == 1 {
            planned.push(Planned { layer_index, place, tree: name, origin: Origin::Loaded(tree), created_by });
            continue;
        }
        for CutPart { name: part, tree } in parts {
            let (place, created_by) = (format!("{place} {part}"), format!("{created_by} ({part})"));
            planned.push(Planned { layer_index, place, tree, origin: Origin::CutOf(name, budget), created_by });
        }
    }
    let made_here = make(store, label, codec(target.compression), &planned)?;
    let mut made_here = planned.into_iter().zip(made_here);
    let (mut references, mut made) = (Vec::new(), Vec::new());
    for layer in order {
        let (layer, recipe, created_by) = match layer {
            None => {
                let (Planned { tree, created_by, .. }, (recipe_name, recipe)) =
                    made_here.next().expect("every planned layer was made");
                (ImageLayer::Made { recipe: recipe_name, tree }, recipe, created_by)
            }
            Some(ImageLayer::Made { recipe, tree }) => {
                let found = layer::find(store, &recipe)?.ok_or(BuildError::Record { what: recipe })?;
                (ImageLayer::Made { recipe, tree }, found, format!("cas layer {}", tree.digest))
            }
            Some(ImageLayer::Foreign { blob, diff_id, kind, annotations }) => {
                let created_by = format!("layer {}", blob.digest);
                references.push(LayerReference { kind, blob, diff_id, created_by, annotations: annotations.clone() });
                made.push(ImageLayer::Foreign { blob, diff_id, kind, annotations });
                continue;
            }
        };
        references.push(reference(&recipe, created_by));
        made.push(layer);
    }
    Ok((references, made))
}

/// Makes layers, several at once; in their order.
fn make(
    store: &Store,
    label: &Label,
    codec: Codec,
    planned: &[Planned],
) -> Result<Vec<(Descriptor, Recipe)>, BuildError> {
    let one = |at_once: usize, planned: &Planned| {
        let Planned { layer_index, place, tree: name, origin, .. } = planned;
        let tree = || match origin {
            Origin::Loaded(tree) => Ok(Arc::clone(tree)),
            Origin::CutOf(..) => store.load_tree(name).map(Arc::new),
        };
        layer::build(store, &tree, name, codec, place, at_once).map_err(|error| match (error, origin) {
            (LayerError::Entry(source), _) => {
                BuildError::Layer { label: label.to_string(), layer_index: *layer_index, source }
            }
            (LayerError::Build(BuildError::Store(error @ StoreError::Missing(_))), Origin::CutOf(whole, most)) => {
                // Part of what was cut before is gone: the next attempt cuts anew.
                layer_cut::forget(store, whole, *most).err().unwrap_or(BuildError::Store(error))
            }
            (LayerError::Build(error), _) => error,
        })
    };
    // What is known is looked up by one.
    let mut made = Vec::new();
    for planned in planned {
        made.push(layer::known(store, &planned.tree, codec)?);
    }
    let missing: Vec<usize> = (0..made.len()).filter(|number| made[*number].is_none()).collect();
    let at_once = thread::available_parallelism().map_or(1, usize::from).min(MOST_AT_ONCE).min(missing.len());
    let next = AtomicUsize::new(0);
    let results = Mutex::new(BTreeMap::new());
    let work = || {
        while let Some(number) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
            let result = one(at_once, &planned[*number]);
            let is_failed = result.is_err();
            results.lock().unwrap_or_else(PoisonError::into_inner).insert(*number, result);
            if is_failed {
                next.store(missing.len(), Ordering::Relaxed);
            }
        }
    };
    thread::scope(|scope| {
        // A machine that has no room for more threads has enough with this one.
        let _others: Vec<_> = (1..at_once).map(|_| thread::Builder::new().spawn_scoped(scope, work)).collect();
        work();
    });
    for (number, result) in results.into_inner().unwrap_or_else(PoisonError::into_inner) {
        made[number] = Some(result?);
    }
    Ok(made.into_iter().map(|layer| layer.expect("none failed, so all were made")).collect())
}

/// The codec of layers.
pub(crate) const fn codec(compression: Compression) -> Codec {
    match compression {
        Compression::Gzip => Codec::Gzip6,
        Compression::Zstd => Codec::Zstd3,
        Compression::None => Codec::Identity,
        Compression::ZstdChunked => Codec::ZstdChunked3,
        Compression::Stargz => Codec::Stargz6,
    }
}

/// How a manifest and a configuration name a layer made here.
pub(crate) fn reference(recipe: &Recipe, created_by: String) -> LayerReference {
    let kind = match recipe.codec {
        Codec::Identity => LayerKind::Plain,
        Codec::Gzip6 | Codec::Gzip9 | Codec::Stargz6 => LayerKind::Gzip,
        Codec::Zstd3 | Codec::ZstdChunked3 => LayerKind::Zstd,
    };
    let annotations = recipe.tail.as_ref().map(|tail| tail.annotations.clone()).unwrap_or_default();
    LayerReference { kind, blob: recipe.blob, diff_id: recipe.tar.digest, created_by, annotations }
}
