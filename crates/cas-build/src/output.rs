//! What targets give each other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, OnceLock};

use cas_blob::Descriptor;
use cas_digest::Digest;
use cas_npm::{Integrity, ModulesLock, Programs};
use cas_oci::{ImageFormat, LayerKind, TargetPlatform};
use cas_store::{Store, StoreError};
use cas_tar::Recipe;
use cas_tree::{Directory, RelPath};

use crate::complete::Entry;
use crate::modules::Subset;
use crate::results::{decode, in_place};
use crate::{BuildError, Toolchain};

/// What a target gave, shared with those that depend on it.
#[derive(Clone, Debug)]
pub enum Output {
    /// A root file system.
    Toolchain(Arc<Toolchain>),
    /// One downloaded file.
    Download(Arc<Download>),
    /// The content of an npm package.
    Package(Arc<Package>),
    /// The packages of a lockfile of npm or pnpm.
    Packages(Arc<Packages>),
    /// The crates of a lockfile of cargo.
    Crates(Arc<Crates>),
    /// An npm tarball.
    Tarball(Arc<Tarball>),
    /// What a step made; nothing, for a test.
    Files(Arc<Files>),
    /// An image.
    Image(Arc<Image>),
    /// Files that are no image.
    Artifact(Arc<Artifact>),
}

impl Output {
    /// The kind of target that gives it.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Toolchain(_) => "toolchain",
            Self::Download(_) | Self::Package(_) | Self::Packages(_) | Self::Crates(_) => "fetch",
            Self::Tarball(_) => "npm",
            Self::Files(_) => "command",
            Self::Image(_) => "image",
            Self::Artifact(_) => "artifact",
        }
    }

    /// What it was made with that is not part of its inputs; `None` for kinds that are always hermetic.
    #[must_use]
    pub fn taints(&self) -> Option<&Taints> {
        match self {
            Self::Tarball(tarball) => Some(&tarball.taints),
            Self::Files(files) => Some(&files.taints),
            Self::Image(image) => Some(&image.taints),
            Self::Artifact(artifact) => Some(&artifact.taints),
            Self::Toolchain(toolchain) => Some(&toolchain.taints),
            Self::Download(_) | Self::Package(_) | Self::Packages(_) | Self::Crates(_) => None,
        }
    }
}

/// What an output was made with that is not part of its inputs, itself or by what it is made of. Empty for what is hermetic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taints {
    /// Labels of toolchains with programs of the machine.
    pub hosts: BTreeSet<String>,
    /// Labels of steps that kept state from earlier runs.
    pub incremental: BTreeSet<String>,
    /// Names of the weaker tiers of the sandbox that steps ran in.
    pub sandboxes: BTreeSet<String>,
}

impl Taints {
    /// Those of all of some outputs.
    pub(crate) fn of<'a>(outputs: impl IntoIterator<Item = &'a Output>) -> Self {
        let mut all = Self::default();
        for taints in outputs.into_iter().filter_map(Output::taints) {
            all.extend(taints);
        }
        all
    }

    pub(crate) fn extend(&mut self, other: &Self) {
        self.hosts.extend(other.hosts.iter().cloned());
        self.incremental.extend(other.incremental.iter().cloned());
        self.sandboxes.extend(other.sandboxes.iter().cloned());
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

/// The packages of a lockfile of npm or pnpm.
#[derive(Debug)]
pub struct Packages {
    /// What it says.
    pub lockfile: ModulesLock,
    /// Its folder; `None` for the workspace's root.
    pub folder: Option<RelPath>,
    /// Its path, for errors.
    pub path: String,
    /// Trees of the packages that this machine can use, by key.
    pub trees: BTreeMap<String, Descriptor>,
    /// Programs that the lockfile itself does not name.
    pub programs: Programs,
    /// Name of the list of trees.
    pub name: Descriptor,
    /// What packages of the workspace reach, as far as it was asked for.
    pub(crate) subsets: Mutex<BTreeMap<Option<RelPath>, Arc<Subset>>>,
}

/// The crates of a lockfile of cargo.
#[derive(Debug)]
pub struct Crates {
    /// Where the folder of all crates is, from the workspace's root.
    pub folder: RelPath,
    /// Trees of the crates by the name of their folder.
    pub trees: BTreeMap<String, Descriptor>,
    /// The configuration that leads cargo to the folder: path and content.
    pub config: (RelPath, Descriptor),
    /// The lockfile.
    pub lockfile: (RelPath, Descriptor),
    /// Name of all that.
    pub name: Descriptor,
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
    /// What it was made with beside its inputs.
    pub taints: Taints,
}

/// What a step made.
#[derive(Clone, Debug)]
pub struct Files {
    /// With paths from the workspace's root; not there yet where nobody asked for it.
    tree: OnceLock<Directory>,
    /// The result that it is decoded from, and where the outputs are; `None` where the tree is there.
    encoded: Option<(Arc<[u8]>, Option<RelPath>)>,
    /// Name of the tree.
    pub name: Descriptor,
    /// Name of the action that made it; its messages are in the store.
    pub action: Descriptor,
    /// The declared outputs, from the workspace's root.
    pub paths: Vec<RelPath>,
    /// What it was made with beside its inputs.
    pub taints: Taints,
}

impl Files {
    pub(crate) fn new(
        tree: Directory,
        name: Descriptor,
        action: Descriptor,
        paths: Vec<RelPath>,
        taints: Taints,
    ) -> Self {
        Self { tree: OnceLock::from(tree), encoded: None, name, action, paths, taints }
    }

    /// Those of a result that was found complete, which is decoded when somebody asks for the tree.
    pub(crate) fn encoded(entry: &Entry, package: Option<RelPath>, paths: Vec<RelPath>, taints: Taints) -> Self {
        let encoded = Some((Arc::clone(&entry.result), package));
        Self { tree: OnceLock::new(), encoded, name: entry.tree, action: entry.action, paths, taints }
    }

    /// The tree, with paths from the workspace's root.
    ///
    /// # Errors
    ///
    /// [`BuildError::Store`] when something of it left the store since it was found.
    pub fn tree(&self, store: &Store) -> Result<&Directory, BuildError> {
        if let (None, Some((result, package))) = (self.tree.get(), &self.encoded) {
            let function = self.name.digest.function();
            let whole = decode(store, result, function)?.ok_or(StoreError::Missing(self.action))?;
            let tree = in_place(package.as_ref(), &whole.outputs)?;
            let _ = self.tree.set(tree);
        }
        Ok(self.tree.get().expect("it was there or is set"))
    }
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
    /// Whose documents these are.
    pub format: ImageFormat,
    /// What it is for.
    pub platform: TargetPlatform,
    /// The layers, lowest first; those of others come before those made here.
    pub layers: Vec<ImageLayer>,
    /// What the layers of others give together, where somebody looked into them.
    pub base_tree: Option<Descriptor>,
    /// What it was made with beside its inputs.
    pub taints: Taints,
    /// Where it is for several platforms, all of them; the other fields tell of the one for this machine, or of the first one.
    pub index: Option<ImageIndex>,
}

/// An image for several platforms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageIndex {
    /// The index's blob.
    pub blob: Descriptor,
    /// Whose document that is.
    pub format: ImageFormat,
    /// The images in its order, without an index of their own.
    pub images: Vec<Image>,
}

/// Files that are no image, with a manifest that says what they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    /// Name in the store: the label of its target.
    pub reference: String,
    /// What it is: a media type.
    pub artifact_type: String,
    /// The manifest's blob.
    pub manifest: Descriptor,
    /// The configuration's blob.
    pub config: Descriptor,
    /// The files, in the order of the manifest.
    pub parts: Vec<ArtifactPart>,
    /// What it was made with beside its inputs.
    pub taints: Taints,
}

/// A file of an artifact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArtifactPart {
    /// As it is.
    File(Descriptor),
    /// A folder, packed.
    Folder {
        /// How the bytes are made.
        recipe: Descriptor,
        /// The tree that they hold.
        tree: Descriptor,
    },
}

/// A layer of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageLayer {
    /// Made here.
    Made {
        /// How the layer's bytes are made.
        recipe: Descriptor,
        /// The tree that it holds.
        tree: Descriptor,
    },
    /// Of an image of others, byte for byte.
    Foreign {
        /// Its bytes.
        blob: Descriptor,
        /// Digest of its uncompressed bytes.
        diff_id: Digest,
        /// How it is compressed.
        kind: LayerKind,
        /// What its descriptor tells beside that.
        annotations: BTreeMap<String, String>,
    },
}
