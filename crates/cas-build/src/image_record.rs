//! Images that the store knows by name.
//!
//! An image's record is a memo of kind `image`, keyed by its name: lines `manifest D`, `config D`, `host LABEL` for each
//! toolchain of the machine that it was made with, `platform P` where its section names platforms, `format docker` where it has Docker's
//! documents, `base TREE` where layers are of others, then for each of these `blob BLOB DIFFID MEDIATYPE ANNOTATIONS` (a JSON object), for each other one `layer
//! RECIPE TREE`. Where it is of several platforms, the line `index D` comes behind, with ` docker` where it is a list of Docker's, and then all of these lines for each of them. All
//! documents are blobs.

use std::sync::Arc;

use cas_blob::Descriptor;
use cas_oci::{ImageFormat, LayerKind, TargetPlatform};
use cas_store::Store;

use crate::{BuildError, Image, ImageIndex, ImageLayer, Taints, platforms};

/// The kind of its memo.
pub(crate) const IMAGE_MEMO: &str = "image";

/// Puts an image into the store under its name.
pub(crate) fn put(store: &Store, image: &Image) -> Result<(), BuildError> {
    Ok(store.put_memo(IMAGE_MEMO, image.reference.as_bytes(), &encode(image))?)
}

fn encode(image: &Image) -> Vec<u8> {
    let mut text = lines(image);
    if let Some(index) = &image.index {
        let format = if index.format == ImageFormat::Docker { " docker" } else { "" };
        text.push_str(&format!("index {}{format}\n", index.blob));
        index.images.iter().for_each(|image| text.push_str(&lines(image)));
    }
    text.into_bytes()
}

/// What is told of one platform.
fn lines(image: &Image) -> String {
    let mut text = format!("manifest {}\nconfig {}\n", image.manifest, image.config);
    text.push_str(&taint_lines(&image.taints));
    if image.platform != platforms::plain() {
        text.push_str(&format!("platform {}\n", image.platform));
    }
    if image.format == ImageFormat::Docker {
        text.push_str("format docker\n");
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
    text
}

/// The image that a record tells of.
pub(crate) fn decode(reference: &str, record: &[u8]) -> Option<Image> {
    let lines: Vec<&str> = std::str::from_utf8(record).ok()?.lines().collect();
    let Some(at) = lines.iter().position(|line| line.starts_with("index ")) else { return one(reference, &lines) };
    let (own, rest) = lines.split_at(at);
    let (blob, rest) = rest.split_first()?;
    let blob = blob.strip_prefix("index ")?;
    let (blob, format) = match blob.strip_suffix(" docker") {
        Some(blob) => (blob, ImageFormat::Docker),
        None => (blob, ImageFormat::Oci),
    };
    let blob: Descriptor = blob.parse().ok()?;
    let starts: Vec<usize> = (0..rest.len()).filter(|at| rest[*at].starts_with("manifest ")).collect();
    let ends = starts.iter().skip(1).copied().chain([rest.len()]);
    let images: Option<Vec<Image>> =
        starts.iter().zip(ends).map(|(from, to)| one(reference, &rest[*from..to])).collect();
    let images = images.filter(|images| !images.is_empty())?;
    Some(Image { index: Some(ImageIndex { blob, format, images }), ..one(reference, own)? })
}

/// What is told of one platform.
fn one(reference: &str, lines: &[&str]) -> Option<Image> {
    let mut lines = lines.iter();
    let manifest: Descriptor = lines.next()?.strip_prefix("manifest ")?.parse().ok()?;
    let config: Descriptor = lines.next()?.strip_prefix("config ")?.parse().ok()?;
    let mut image = Image {
        reference: reference.to_owned(),
        manifest,
        config,
        format: ImageFormat::Oci,
        platform: platforms::plain(),
        layers: Vec::new(),
        base_tree: None,
        taints: Taints::default(),
        index: None,
    };
    for line in lines {
        let (word, rest) = line.split_once(' ')?;
        match word {
            "base" => image.base_tree = Some(rest.parse().ok()?),
            // Images of others are for whatever platform they say.
            "platform" => image.platform = TargetPlatform::from_words(rest)?,
            "format" if rest == "docker" => image.format = ImageFormat::Docker,
            "blob" => {
                let mut words = rest.splitn(4, ' ');
                let (blob, diff_id) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
                let kind = LayerKind::of(words.next()?)?;
                // Records had none once.
                let annotations =
                    words.next().map_or(Some(Default::default()), |text| serde_json::from_str(text).ok())?;
                image.layers.push(ImageLayer::Foreign { blob, diff_id, kind, annotations });
            }
            "layer" => {
                let (recipe, tree) = rest.split_once(' ')?;
                image.layers.push(ImageLayer::Made { recipe: recipe.parse().ok()?, tree: tree.parse().ok()? });
            }
            word => read_taint(word, rest, &mut image.taints)?,
        }
    }
    Some(image)
}

/// What something was made with beside its inputs.
pub(crate) fn taint_lines(taints: &Taints) -> String {
    let kinds = [("host", &taints.hosts), ("incremental", &taints.incremental), ("sandbox", &taints.sandboxes)];
    kinds.into_iter().flat_map(|(word, names)| names.iter().map(move |name| format!("{word} {name}\n"))).collect()
}

/// Reads a line of these; `None` for another one.
pub(crate) fn read_taint(word: &str, name: &str, taints: &mut Taints) -> Option<()> {
    let names = match word {
        "host" => &mut taints.hosts,
        "incremental" => &mut taints.incremental,
        "sandbox" => &mut taints.sandboxes,
        _ => return None,
    };
    names.insert(name.to_owned());
    Some(())
}

/// The image of this name in the store: a full label, as `//apps/web:image`.
///
/// # Errors
///
/// [`BuildError::UnknownImage`], and what the store says.
pub fn find_image(store: &Store, name: &str) -> Result<Arc<Image>, BuildError> {
    let record = store.memo(IMAGE_MEMO, name.as_bytes())?;
    let image = record.and_then(|record| decode(name, &record));
    image.map(Arc::new).ok_or_else(|| BuildError::UnknownImage { name: name.to_owned() })
}

/// The images in the store, by name.
///
/// # Errors
///
/// What the store says.
pub fn list_images(store: &Store) -> Result<Vec<Image>, BuildError> {
    let records = store.memos(IMAGE_MEMO)?;
    // A record that makes no sense names no image.
    Ok(records.iter().filter_map(|(name, record)| decode(std::str::from_utf8(name).ok()?, record)).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use cas_digest::DigestFunction;

    use super::*;

    #[test]
    fn records_are_read_as_they_were_written() {
        let of = |text: &str| Descriptor::of(DigestFunction::Blake3, text.as_bytes());
        let annotations = std::collections::BTreeMap::from([(
            "a key".to_owned(),
            "a value
of two lines"
                .to_owned(),
        )]);
        let (blob, diff_id) = (of("b"), of("d").digest);
        let foreign = ImageLayer::Foreign { blob, diff_id, kind: LayerKind::Zstd, annotations };
        let layers = vec![foreign, ImageLayer::Made { recipe: of("r"), tree: of("t") }];
        let hosts = BTreeSet::from(["//:host".to_owned()]);
        let sandboxes = BTreeSet::from(["none".to_owned()]);
        let taints = Taints { hosts, incremental: BTreeSet::from(["//a:b".to_owned()]), sandboxes };
        let image = Image {
            reference: "//:x".to_owned(),
            manifest: of("m"),
            config: of("c"),
            format: ImageFormat::Docker,
            platform: platforms::plain(),
            layers,
            base_tree: Some(of("base")),
            taints,
            index: None,
        };
        let record = encode(&image);
        assert_eq!(decode("//:x", &record).as_ref(), Some(&image));
        assert_eq!(decode("//:x", &record[..record.len() - 4]), None);
        let other = Image {
            manifest: of("other"),
            platform: "linux/riscv64".parse().expect("it is one"),
            layers: Vec::new(),
            base_tree: None,
            ..image.clone()
        };
        let index = ImageIndex { blob: of("i"), format: ImageFormat::Docker, images: vec![image.clone(), other] };
        let several = Image { index: Some(index), ..image };
        assert_eq!(decode("//:x", &encode(&several)), Some(several));
    }
}
