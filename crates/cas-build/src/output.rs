//! What targets give each other.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use cas_blob::Descriptor;
use cas_config::LockedDebian;
use cas_fetch::Fetcher;
use cas_npm::{Integrity, Lockfile};
use cas_store::Store;
use cas_tar::Recipe;
use cas_tree::{Directory, RelPath};

use crate::step::StepRoot;
use crate::{BuildError, debian};

/// What a target gave, shared with those that depend on it.
#[derive(Clone, Debug)]
pub enum Output {
    /// A root file system.
    Toolchain(Arc<Toolchain>),
    /// One downloaded file.
    Download(Arc<Download>),
    /// The content of an npm package.
    Package(Arc<Package>),
    /// The packages of an npm lockfile.
    Packages(Arc<Packages>),
    /// An npm tarball.
    Tarball(Arc<Tarball>),
    /// What a step made; nothing, for a test.
    Files(Arc<Files>),
    /// An image.
    Image(Arc<Image>),
}

impl Output {
    /// The kind of target that gives it.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Toolchain(_) => "toolchain",
            Self::Download(_) | Self::Package(_) | Self::Packages(_) => "fetch",
            Self::Tarball(_) => "npm",
            Self::Files(_) => "command",
            Self::Image(_) => "image",
        }
    }
}

/// A root file system.
#[derive(Debug)]
pub struct Toolchain {
    /// Name of the tree.
    pub name: Descriptor,
    locked: LockedDebian,
    /// Root of the archive that its packages come from.
    mirror: String,
    /// The tree, once something needed more than its name.
    tree: Mutex<Option<Arc<Directory>>>,
    /// What steps see of it, made when the first one runs.
    root: Mutex<Option<Arc<StepRoot>>>,
}

impl Toolchain {
    pub(crate) fn new(locked: LockedDebian, mirror: String, name: Descriptor, tree: Option<Directory>) -> Self {
        Self { name, locked, mirror, tree: Mutex::new(tree.map(Arc::new)), root: Mutex::new(None) }
    }

    /// Number of packages that it is made of.
    #[must_use]
    pub fn package_count(&self) -> usize {
        self.locked.packages.len()
    }

    /// The whole tree, with owners and rights: what an image takes as its base. All of it is in the store then.
    pub(crate) fn tree(&self, store: &Store, fetcher: &Fetcher) -> Result<Arc<Directory>, BuildError> {
        // Held while it is looked for or made, so that it is done once.
        let mut tree = self.tree.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tree) = &*tree {
            return Ok(Arc::clone(tree));
        }
        let function = self.name.digest.function();
        let context = debian::Context { store, fetcher, function, mirror: self.mirror.clone() };
        let found = Arc::new(debian::tree(&context, &self.locked, &self.name)?);
        *tree = Some(Arc::clone(&found));
        Ok(found)
    }

    /// What steps see of it.
    pub(crate) fn step_root(
        &self,
        store: &Store,
        fetcher: &Fetcher,
        label: &str,
    ) -> Result<Arc<StepRoot>, BuildError> {
        let mut root = self.root.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(root) = &*root {
            return Ok(Arc::clone(root));
        }
        let made = Arc::new(StepRoot::new(label, &*self.tree(store, fetcher)?, self.name.digest.function())?);
        *root = Some(Arc::clone(&made));
        Ok(made)
    }
}

/// The content of an npm package.
#[derive(Debug)]
pub struct Package {
    /// Its files, without the folder that they have in the tarball.
    pub tree: Directory,
    /// Name of the tree.
    pub name: Descriptor,
}

/// The packages of an npm lockfile.
#[derive(Debug)]
pub struct Packages {
    /// What it says.
    pub lockfile: Lockfile,
    /// Its folder; `None` for the workspace's root.
    pub folder: Option<RelPath>,
    /// Its path, for errors.
    pub path: String,
    /// Trees of the packages that this machine can use, by place.
    pub trees: BTreeMap<String, Descriptor>,
    /// Name of the list of them.
    pub name: Descriptor,
    /// Name of the lockfile's bytes.
    pub lockfile_name: Descriptor,
}

/// An npm tarball.
#[derive(Debug)]
pub struct Tarball {
    /// Name of the package.
    pub name: String,
    /// Its version.
    pub version: String,
    /// As npm names it: `scope-name-1.2.3.tgz`.
    pub file_name: String,
    /// How its bytes are made.
    pub recipe: Recipe,
    /// SHA-512 of its bytes.
    pub integrity: Integrity,
    /// Its files.
    pub tree: Directory,
    /// Their paths, in the order of the tarball.
    pub paths: Vec<RelPath>,
}

/// What a step made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// With paths from the workspace's root.
    pub tree: Directory,
    /// Name of the tree.
    pub name: Descriptor,
    /// Name of the action that made it; its messages are in the store.
    pub action: Descriptor,
    /// The declared outputs, from the workspace's root.
    pub paths: Vec<RelPath>,
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
