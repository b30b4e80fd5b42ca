//! What targets give each other.

use std::sync::Arc;

use cas_blob::Descriptor;
use cas_tree::Directory;

/// What a target gave, shared with those that depend on it.
#[derive(Clone, Debug)]
pub enum Output {
    /// A root file system.
    Toolchain(Arc<Toolchain>),
    /// One downloaded file.
    Download(Arc<Download>),
    /// An image.
    Image(Arc<Image>),
}

/// A root file system.
#[derive(Debug)]
pub struct Toolchain {
    /// The whole tree, with owners and rights: what an image takes as its base.
    pub tree: Directory,
    /// Name of the tree.
    pub name: Descriptor,
    /// Number of packages that it is made of.
    pub package_count: usize,
}

/// One downloaded file.
#[derive(Debug)]
pub struct Download {
    /// Its content.
    pub blob: Descriptor,
    /// Last part of its address.
    pub file_name: String,
}

/// An image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Name in the store: the label of its target.
    pub reference: String,
    /// The manifest's blob.
    pub manifest: Descriptor,
    /// The configuration's blob.
    pub config: Descriptor,
    /// The layers, lowest first.
    pub layers: Vec<ImageLayer>,
}

/// A layer of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageLayer {
    /// How the layer's bytes are made.
    pub recipe: Descriptor,
    /// The tree that it holds.
    pub tree: Descriptor,
}
