//! Images: layers, configuration and manifest; and the images that the store knows by name.
//!
//! An image's record is a memo of kind `image`, keyed by its name: lines `manifest D`, `config D`, `host LABEL` for each
//! toolchain of the machine that it was made with, `base TREE` where layers are of others, then for each of these `blob BLOB DIFFID
//! MEDIATYPE ANNOTATIONS` (a JSON object), for each other one `layer RECIPE TREE`. The manifest and configuration are blobs.

use std::collections::BTreeMap;
use std::sync::Arc;

use cas_blob::Descriptor;
use cas_config::{Compression, Image as ImageTarget, Label};
use cas_digest::DigestFunction;
use cas_fetch::Fetcher;
use cas_oci::{ImageConfig, LayerKind, LayerReference, Platform, encode_config, encode_manifest};
use cas_store::Store;
use cas_tar::{Codec, Recipe};
use cas_tree::Directory;

use crate::layer::{self, LayerError};
use crate::stamp::stamp;
use crate::{BuildError, Image, ImageLayer, Output, Taints, Workspace, part};

impl Image {
    /// The files of all layers together, and the function that names them.
    pub(crate) fn tree(&self, store: &Store) -> Result<(Directory, DigestFunction), BuildError> {
        let mut tree = self.base_tree.as_ref().map_or_else(|| Ok(Directory::root()), |tree| store.load_tree(tree))?;
        let mut function = self.base_tree.map_or(DigestFunction::Blake3, |tree| tree.digest.function());
        for layer in &self.layers {
            if let ImageLayer::Made { tree: name, .. } = layer {
                function = name.digest.function();
                tree.apply_layer(&store.load_tree(name)?);
            }
        }
        Ok((tree, function))
    }
}

/// What a layer is made of.
enum Source {
    /// A tree.
    Tree { tree: Arc<Directory>, name: Descriptor, created_by: String },
    /// A layer of another image, taken as it is.
    Layer(ImageLayer),
}

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

/// Builds an image. `base` and `layers` are the outputs of what the target names, with their labels, in its order.
pub(crate) fn build(
    context: &Context<'_>,
    label: &Label,
    target: &ImageTarget,
    base: Option<(String, Output)>,
    layers: Vec<(String, Output)>,
) -> Result<Image, BuildError> {
    let Context { store, workspace, function, .. } = *context;
    let codec = match target.compression {
        Compression::Gzip => Codec::Gzip6,
        Compression::Zstd => Codec::Zstd3,
        Compression::None => Codec::Identity,
        Compression::ZstdChunked => Codec::ZstdChunked3,
        Compression::Stargz => Codec::Stargz6,
    };
    let taints = Taints::of(base.iter().chain(&layers).map(|(_, output)| output));
    let (mut sources, mut base_tree) = (Vec::new(), None);
    match base {
        None => {}
        Some((from, Output::Toolchain(toolchain))) => {
            if toolchain.host_identity().is_some() {
                let role = "the base of an image: it shows programs of this machine";
                return Err(BuildError::Role { label: from, kind: "toolchain", role });
            }
            let tree = toolchain.tree(store, context.fetcher)?;
            match toolchain.foreign_layers(store)? {
                // Whoever has the image already needs none of them again.
                Some((name, layers)) => {
                    base_tree = Some(name);
                    sources.extend(layers.into_iter().map(Source::Layer));
                }
                None => sources.push(Source::Tree { tree, name: toolchain.name, created_by: format!("cas {from}") }),
            }
        }
        Some((_, Output::Image(image))) => {
            base_tree = image.base_tree;
            sources.extend(image.layers.iter().cloned().map(Source::Layer));
        }
        Some((from, output)) => {
            return Err(BuildError::Role { label: from, kind: output.kind(), role: "the base of an image" });
        }
    }
    for (layer, (from, output)) in target.layers.iter().zip(layers) {
        let role = "a layer of an image";
        let tree = part::Context { store, workspace, label, role }.part(&from, &output, layer)?;
        let name = tree.encode(function).map_err(cas_store::StoreError::from)?.root;
        sources.push(Source::Tree { tree: Arc::new(tree), name, created_by: format!("cas {from}") });
    }
    let (mut references, mut made) = (Vec::new(), Vec::new());
    for (layer_index, source) in sources.into_iter().enumerate() {
        let (layer, recipe, created_by) = match source {
            Source::Layer(layer) => match &layer {
                ImageLayer::Foreign { blob, diff_id, kind, annotations } => {
                    let (blob, diff_id, kind, annotations) = (*blob, *diff_id, *kind, annotations.clone());
                    let created_by = format!("layer {}", blob.digest);
                    references.push(LayerReference { kind, blob, diff_id, created_by, annotations });
                    made.push(layer);
                    continue;
                }
                ImageLayer::Made { recipe, tree } => {
                    let found = layer::find(store, recipe)?.ok_or(BuildError::Record { what: *recipe })?;
                    let created_by = format!("cas layer {}", tree.digest);
                    (layer, found, created_by)
                }
            },
            Source::Tree { tree, name, created_by } => {
                let place = format!("{label} {layer_index}");
                let built = layer::build(store, &tree, &name, codec, &place);
                let (recipe_name, recipe) = built.map_err(|error| match error {
                    LayerError::Entry(source) => BuildError::Layer { label: label.to_string(), layer_index, source },
                    LayerError::Build(error) => error,
                })?;
                (ImageLayer::Made { recipe: recipe_name, tree: name }, recipe, created_by)
            }
        };
        references.push(reference(&recipe, created_by));
        made.push(layer);
    }
    let mut config = ImageConfig {
        user: target.config.user.clone(),
        exposed_ports: target.config.expose.clone(),
        env: target.config.env.clone(),
        entrypoint: target.config.entrypoint.clone(),
        cmd: target.config.cmd.clone(),
        working_dir: target.config.workdir.clone(),
        labels: target.config.labels.clone(),
        created: None,
    };
    stamp(workspace, context.variables, label, target, &mut config)?;
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let platform = Platform { architecture: architecture.to_owned(), os: "linux".to_owned() };
    let config = store.put_bytes(DigestFunction::Sha256, &encode_config(&platform, &config, &references))?;
    let manifest = store.put_bytes(DigestFunction::Sha256, &encode_manifest(&config, &references))?;
    let image = Image { reference: label.to_string(), manifest, config, layers: made, base_tree, taints };
    store.put_memo("image", image.reference.as_bytes(), &encode(&image))?;
    Ok(image)
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

fn encode(image: &Image) -> Vec<u8> {
    let mut text = format!("manifest {}\nconfig {}\n", image.manifest, image.config);
    for host in &image.taints.hosts {
        text.push_str(&format!("host {host}\n"));
    }
    for step in &image.taints.incremental {
        text.push_str(&format!("incremental {step}\n"));
    }
    for tier in &image.taints.sandboxes {
        text.push_str(&format!("sandbox {tier}\n"));
    }
    if let Some(tree) = &image.base_tree {
        text.push_str(&format!("base {tree}\n"));
    }
    for layer in &image.layers {
        text.push_str(&match layer {
            ImageLayer::Made { recipe, tree } => format!("layer {recipe} {tree}\n"),
            ImageLayer::Foreign { blob, diff_id, kind, annotations } => {
                let annotations = serde_json::to_string(annotations).expect("strings have JSON");
                format!("blob {blob} {diff_id} {} {annotations}\n", kind.media_type())
            }
        });
    }
    text.into_bytes()
}

/// The image that a record tells of.
pub(crate) fn decode(reference: &str, record: &[u8]) -> Option<Image> {
    let mut lines = std::str::from_utf8(record).ok()?.lines();
    let manifest: Descriptor = lines.next()?.strip_prefix("manifest ")?.parse().ok()?;
    let config: Descriptor = lines.next()?.strip_prefix("config ")?.parse().ok()?;
    let (mut layers, mut taints, mut base_tree) = (Vec::new(), Taints::default(), None);
    for line in lines {
        if let Some(tree) = line.strip_prefix("base ") {
            base_tree = Some(tree.parse().ok()?);
            continue;
        }
        if let Some(layer) = line.strip_prefix("blob ") {
            let mut words = layer.splitn(4, ' ');
            let (blob, diff_id) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
            let kind = LayerKind::of(words.next()?)?;
            let annotations = serde_json::from_str(words.next()?).ok()?;
            layers.push(ImageLayer::Foreign { blob, diff_id, kind, annotations });
            continue;
        }
        if let Some(host) = line.strip_prefix("host ") {
            taints.hosts.insert(host.to_owned());
            continue;
        }
        if let Some(step) = line.strip_prefix("incremental ") {
            taints.incremental.insert(step.to_owned());
            continue;
        }
        if let Some(tier) = line.strip_prefix("sandbox ") {
            taints.sandboxes.insert(tier.to_owned());
            continue;
        }
        let (recipe, tree) = line.strip_prefix("layer ")?.split_once(' ')?;
        layers.push(ImageLayer::Made { recipe: recipe.parse().ok()?, tree: tree.parse().ok()? });
    }
    Some(Image { reference: reference.to_owned(), manifest, config, layers, base_tree, taints })
}

/// The image of this name in the store: a full label, as `//apps/web:image`.
///
/// # Errors
///
/// [`BuildError::UnknownImage`], and what the store says.
pub fn find_image(store: &Store, name: &str) -> Result<Arc<Image>, BuildError> {
    let record = store.memo("image", name.as_bytes())?;
    let image = record.and_then(|record| decode(name, &record));
    image.map(Arc::new).ok_or_else(|| BuildError::UnknownImage { name: name.to_owned() })
}

/// The images in the store, by name.
///
/// # Errors
///
/// What the store says.
pub fn list_images(store: &Store) -> Result<Vec<Image>, BuildError> {
    let records = store.memos("image")?;
    // A record that makes no sense names no image.
    Ok(records.iter().filter_map(|(name, record)| decode(std::str::from_utf8(name).ok()?, record)).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn records_are_read_as_they_were_written() {
        let of = |text: &str| Descriptor::of(DigestFunction::Blake3, text.as_bytes());
        let annotations = BTreeMap::from([("a key".to_owned(), "a value\nof two lines".to_owned())]);
        let foreign =
            ImageLayer::Foreign { blob: of("b"), diff_id: of("d").digest, kind: LayerKind::Zstd, annotations };
        let layers = vec![foreign, ImageLayer::Made { recipe: of("r"), tree: of("t") }];
        let base_tree = Some(of("base"));
        let hosts = BTreeSet::from(["//:host".to_owned()]);
        let sandboxes = BTreeSet::from(["none".to_owned()]);
        let taints = Taints { hosts, incremental: BTreeSet::from(["//a:b".to_owned()]), sandboxes };
        let image =
            Image { reference: "//:x".to_owned(), manifest: of("m"), config: of("c"), layers, base_tree, taints };
        let record = encode(&image);
        assert_eq!(decode("//:x", &record), Some(image));
        assert_eq!(decode("//:x", &record[..record.len() - 4]), None);
    }
}
