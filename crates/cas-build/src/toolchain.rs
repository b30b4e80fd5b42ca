//! Root file systems that steps run in: of packages, of images, of the machine, or several of them merged.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use cas_blob::{ActionLane, Descriptor};
use cas_config::LockedDebian;
use cas_digest::DigestFunction;
use cas_fetch::Fetcher;
use cas_oci::TargetPlatform;
use cas_sandbox::Cancel;
use cas_store::{Store, StoreError};
use cas_tree::{Directory, MergeRule, Node};

use crate::foreign::{ForeignLayers, Pinned};
use crate::step::StepRoot;
use crate::{BuildError, ImageLayer, Taints, debian, foreign};

/// A root file system.
#[derive(Debug)]
pub struct Toolchain {
    /// Names everything that a step sees of it.
    pub name: Descriptor,
    /// What parts of it were made with.
    pub taints: Taints,
    /// Variables that steps find, before those that all find.
    pub(crate) env: BTreeMap<String, String>,
    source: Source,
    /// Where results of steps in it are.
    lane: ActionLane,
    /// The tree, once something needed more than its name.
    tree: Mutex<Option<Arc<Directory>>>,
    /// What steps see of it, made when the first one runs.
    root: Mutex<Option<Arc<StepRoot>>>,
}

#[derive(Debug)]
enum Source {
    Debian {
        locked: LockedDebian,
        /// Roots of the archives that its packages come from.
        mirrors: Vec<String>,
        /// Whether their scripts run, and what ends them.
        scripts: Option<Cancel>,
    },
    Image(Box<Pinned>),
    Host(HostParts),
    Merged(Vec<(String, Arc<Toolchain>)>),
    /// Another one with something in it, each with the label that it comes from.
    Added(Arc<Toolchain>, Vec<(String, Directory)>),
}

/// What of the machine that builds is in a root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostParts {
    /// Folders and files that are shown where they are.
    pub(crate) paths: Vec<PathBuf>,
    /// What tells this machine from others: results are only for those that agree.
    pub(crate) identity: String,
}

impl Toolchain {
    /// The tree of pinned packages, which is looked at when more than its name is needed.
    pub(crate) fn debian(
        locked: LockedDebian,
        mirrors: Vec<String>,
        scripts: Option<Cancel>,
        name: Descriptor,
        tree: Option<Directory>,
    ) -> Self {
        Self::new(name, Source::Debian { locked, mirrors, scripts }, tree)
    }

    /// The tree of a pinned image, which is looked at when more than its name is needed.
    pub(crate) fn image(name: Descriptor, pinned: Pinned, tree: Option<Directory>) -> Self {
        let env = pinned.root.as_ref().map(|root| root.env.clone()).unwrap_or_default();
        Self { env, ..Self::new(name, Source::Image(Box::new(pinned)), tree) }
    }

    /// The same, made with more than its inputs.
    #[must_use]
    pub(crate) fn tainted(self, taints: Taints) -> Self {
        Self { taints, ..self }
    }

    /// A tree with the places at which parts of the machine are shown.
    pub(crate) fn host(name: Descriptor, parts: HostParts, tree: Directory) -> Self {
        Self::new(name, Source::Host(parts), Some(tree))
    }

    /// Several roots in one, with their labels.
    ///
    /// # Errors
    ///
    /// [`BuildError::HostMerged`]: what the machine has would hide the other roots.
    pub(crate) fn merged(parts: Vec<(String, Arc<Self>)>) -> Result<Self, BuildError> {
        if let Some((label, _)) = parts.iter().find(|(_, part)| part.host_parts().is_some()) {
            return Err(BuildError::HostMerged { label: label.clone() });
        }
        let mut text = "merged-1\n".to_owned();
        for (_, part) in &parts {
            text.push_str(&format!("{}\n", part.name));
        }
        let function = parts.first().expect("a list of toolchains is not empty").1.name.digest.function();
        let (mut taints, mut env) = (Taints::default(), BTreeMap::new());
        for (_, part) in parts.iter().rev() {
            taints.extend(&part.taints);
            // Of what several say the first one's word counts.
            env.extend(part.env.clone());
        }
        let name = Descriptor::of(function, text.as_bytes());
        Ok(Self { taints, env, ..Self::new(name, Source::Merged(parts), None) })
    }

    /// One with more in it.
    pub(crate) fn added(base: Arc<Self>, parts: Vec<(String, Directory)>, taints: Taints) -> Result<Self, BuildError> {
        let function = base.name.digest.function();
        let mut text = format!("added-1\n{}\n", base.name);
        for (_, part) in &parts {
            text.push_str(&format!("{}\n", part.encode(function).map_err(StoreError::from)?.root));
        }
        let name = Descriptor::of(function, text.as_bytes());
        let env = base.env.clone();
        Ok(Self { taints, env, ..Self::new(name, Source::Added(base, parts), None) })
    }

    fn new(name: Descriptor, source: Source, tree: Option<Directory>) -> Self {
        let lane = match &source {
            Source::Host(parts) => ActionLane::host(&parts.identity),
            Source::Debian { .. } | Source::Image(_) | Source::Merged(_) | Source::Added(..) => ActionLane::strict(),
        };
        let (taints, tree) = (Taints::default(), Mutex::new(tree.map(Arc::new)));
        Self { name, taints, env: BTreeMap::new(), source, lane, tree, root: Mutex::new(None) }
    }

    /// Number of packages that it is made of; `None` where nobody counts them.
    #[must_use]
    pub fn package_count(&self) -> Option<usize> {
        match &self.source {
            Source::Debian { locked, .. } => Some(locked.packages.len()),
            Source::Added(base, _) => base.package_count(),
            Source::Image(_) | Source::Host(_) | Source::Merged(_) => None,
        }
    }

    /// What it is: `debian`, `image`, `host` or `merged`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match &self.source {
            Source::Debian { .. } => "debian",
            Source::Image(_) => "image",
            Source::Host(_) => "host",
            Source::Merged(_) => "merged",
            Source::Added(base, _) => base.kind(),
        }
    }

    /// What tells the machine from others whose programs it shows; `None` for a hermetic root.
    #[must_use]
    pub fn host_identity(&self) -> Option<&str> {
        self.host_parts().map(|parts| &*parts.identity)
    }

    pub(crate) fn host_parts(&self) -> Option<&HostParts> {
        match &self.source {
            Source::Host(parts) => Some(parts),
            Source::Debian { .. } | Source::Image(_) | Source::Merged(_) | Source::Added(..) => None,
        }
    }

    /// Where results of steps in it are.
    pub(crate) fn lane(&self) -> &ActionLane {
        &self.lane
    }

    /// The whole tree, with owners and rights: what an image takes as its base. All of it is in the store then.
    pub(crate) fn tree(&self, store: &Store, fetcher: &Fetcher) -> Result<Arc<Directory>, BuildError> {
        // Held while it is looked for or made, so that it is done once.
        let mut tree = self.tree.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tree) = &*tree {
            return Ok(Arc::clone(tree));
        }
        let found = Arc::new(match &self.source {
            Source::Debian { locked, mirrors, scripts } => {
                let (function, mirrors, scripts) = (self.name.digest.function(), mirrors.clone(), scripts.clone());
                let context = debian::Context { store, fetcher, function, mirrors, scripts };
                debian::tree(&context, locked, &self.name)?
            }
            Source::Image(pinned) => foreign::tree(store, pinned)?,
            Source::Host(_) => unreachable!("it was made with its tree"),
            Source::Merged(parts) => {
                let mut whole: Option<Directory> = None;
                for (label, part) in parts {
                    let tree = part.tree(store, fetcher)?;
                    match &mut whole {
                        None => whole = Some((*tree).clone()),
                        Some(whole) => join(whole, label, &tree)?,
                    }
                }
                whole.unwrap_or_else(Directory::root)
            }
            Source::Added(base, parts) => {
                let mut whole = (*base.tree(store, fetcher)?).clone();
                for (label, part) in parts {
                    join(&mut whole, label, part)?;
                }
                whole
            }
        });
        *tree = Some(Arc::clone(&found));
        Ok(found)
    }

    /// The name of its tree, which is at hand. That of packages is the root's own; others are called by what they are made of.
    pub(crate) fn tree_name(&self, tree: &Directory) -> Result<Descriptor, BuildError> {
        match &self.source {
            Source::Debian { .. } => Ok(self.name),
            _ => Ok(tree.encode(self.name.digest.function()).map_err(StoreError::from)?.root),
        }
    }

    /// The layers of the image that it is, byte for byte; `None` for one that is something else.
    pub(crate) fn foreign_layers(
        &self,
        store: &Store,
        platform: &TargetPlatform,
    ) -> Result<Option<ForeignLayers>, BuildError> {
        match &self.source {
            Source::Image(pinned) => foreign::layers(store, pinned, platform).map(Some),
            _ => Ok(None),
        }
    }

    /// The name of what these give together, which is in the store then.
    pub(crate) fn foreign_tree(
        &self,
        store: &Store,
        platform: &TargetPlatform,
    ) -> Result<Option<Descriptor>, BuildError> {
        match &self.source {
            Source::Image(pinned) => foreign::tree_for(store, pinned, platform).map(Some),
            _ => Ok(None),
        }
    }

    /// The folders and links that these give together.
    pub(crate) fn foreign_folders(
        &self,
        store: &Store,
        function: DigestFunction,
        layers: &[ImageLayer],
    ) -> Result<Directory, BuildError> {
        match &self.source {
            Source::Image(pinned) => foreign::folders(store, function, &pinned.place, layers),
            _ => Ok(Directory::root()),
        }
    }

    /// The image that it is, or that something was added to.
    pub(crate) fn image_below(&self) -> Option<&Self> {
        match &self.source {
            Source::Image(_) => Some(self),
            Source::Added(base, _) => base.image_below(),
            Source::Debian { .. } | Source::Host(_) | Source::Merged(_) => None,
        }
    }

    /// The document of that image.
    pub(crate) fn document(&self) -> Option<&Descriptor> {
        match &self.image_below()?.source {
            Source::Image(pinned) => Some(&pinned.pin.document),
            _ => None,
        }
    }

    /// What steps see of it.
    pub(crate) fn step_root(&self, store: &Store, fetcher: &Fetcher, label: &str) -> Result<Arc<StepRoot>, BuildError> {
        let mut root = self.root.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(root) = &*root {
            return Ok(Arc::clone(root));
        }
        let made = Arc::new(StepRoot::new(label, &*self.tree(store, fetcher)?, self.name.digest.function())?);
        *root = Some(Arc::clone(&made));
        Ok(made)
    }
}

/// Adds a root to another one. Where both have something, it is the same, or they cannot be merged; of a folder's owner and
/// rights the first root's count.
fn join(whole: &mut Directory, label: &str, tree: &Directory) -> Result<(), BuildError> {
    let rule = &mut |_: &_, old: &Node, new: &Node| match (old, new) {
        (Node::Directory(_), Node::Directory(_)) => MergeRule::KeepOld,
        _ => MergeRule::Refuse,
    };
    whole
        .merge(tree, rule)
        .map_err(|conflict| BuildError::RootConflict { label: label.to_owned(), path: conflict.path })
}
