//! For which platforms an image can be made here: what runs, runs on this machine, and what it gives is of this machine.
//!
//! What is only fetched or put together is the same for all of them. Rules: docs/formats/cas-toml.md.

use std::collections::BTreeSet;

use cas_config::{Image as ImageTarget, ImageLayer, ImageRoot, Label, RootSource, TargetKind, Toolchain};
use cas_npm::Part;
use cas_oci::TargetPlatform;

use crate::graph::{Graph, TargetId};
use crate::{BuildError, Image, Output, Workspace, modules};

/// The platform of this program, in Go's words, with its variant.
pub(crate) fn own() -> TargetPlatform {
    let (architecture, variant) = if cfg!(target_arch = "aarch64") { ("arm64", "v8") } else { ("amd64", "") };
    TargetPlatform { os: "linux".to_owned(), architecture: architecture.to_owned(), variant: variant.to_owned() }
}

/// What an image says that names no platform.
pub(crate) fn plain() -> TargetPlatform {
    TargetPlatform { variant: String::new(), ..own() }
}

/// Whether programs for a platform run here.
pub(crate) fn can_run(platform: &TargetPlatform) -> bool {
    let own = own();
    (&platform.os, &platform.architecture) == (&own.os, &own.architecture)
}

/// What an image of the workspace is for.
pub(crate) fn of_target(image: &ImageTarget) -> Vec<TargetPlatform> {
    if image.platforms.is_empty() { vec![plain()] } else { image.platforms.clone() }
}

/// Whether two texts mean one platform.
pub(crate) fn is_same(one: &TargetPlatform, other: &TargetPlatform) -> bool {
    one.normalized() == other.normalized()
}

/// What a build wants of a toolchain that is an image of others.
pub(crate) struct Wanted {
    /// Whether anything wants its files, and not its layers alone.
    pub(crate) files: bool,
    /// What it is wanted for.
    pub(crate) platforms: Vec<TargetPlatform>,
}

impl Wanted {
    /// What others do with a toolchain. Where nothing but images is over it, and it is `changed` by no addition, its files are not
    /// wanted; a toolchain that is asked for alone is wanted whole.
    pub(crate) fn of(graph: &Graph<'_>, toolchain: TargetId, changed: bool) -> Self {
        let (mut files, mut platforms): (bool, Vec<TargetPlatform>) = (changed, Vec::new());
        for (target, _) in graph.to_build().iter().filter(|(_, needs)| needs.contains(&toolchain)) {
            match &graph.target(*target).kind {
                TargetKind::Image(image) if image.base.is_some() && graph.needs(*target).named[0] == toolchain => {
                    for platform in of_target(image) {
                        if !platforms.contains(&platform) {
                            platforms.push(platform);
                        }
                    }
                }
                _ => files = true,
            }
        }
        files |= platforms.is_empty();
        if files {
            platforms.insert(0, own());
        }
        Self { files, platforms }
    }
}

impl Image {
    /// The image for a platform, if there is one.
    #[must_use]
    pub fn for_platform(&self, platform: &TargetPlatform) -> Option<&Self> {
        self.all_platforms().find(|image| is_same(&image.platform, platform))
    }

    /// The image for a platform that somebody asks for.
    ///
    /// # Errors
    ///
    /// [`BuildError::Platform`]
    pub fn of_platform(&self, wanted: &TargetPlatform) -> Result<&Self, BuildError> {
        self.for_platform(wanted).ok_or_else(|| BuildError::Platform {
            place: self.reference.clone(),
            wanted: wanted.to_string(),
            known: self.all_platforms().map(|image| image.platform.to_string()).collect(),
        })
    }

    /// The images of all platforms, in the order of the index.
    pub fn all_platforms(&self) -> impl Iterator<Item = &Self> {
        let (own, all) = match &self.index {
            Some(index) => (None, &index.images[..]),
            None => (Some(self), &[][..]),
        };
        own.into_iter().chain(all)
    }
}

/// Fails, before anything is built, when an image is to be for a platform that what it is made of cannot be had for.
pub(crate) fn check(graph: &Graph<'_>) -> Result<(), BuildError> {
    for target in graph.to_build().into_keys() {
        let TargetKind::Image(image) = &graph.target(target).kind else { continue };
        for platform in image.platforms.iter().filter(|platform| !can_run(platform)) {
            if let Some(why) = obstacle(graph, target, image, platform) {
                let (label, platform) = (graph.label(target).to_string(), platform.to_string());
                return Err(BuildError::ForeignPlatform { label, platform, why });
            }
        }
    }
    Ok(())
}

/// Why an image cannot be made for a platform.
fn obstacle(graph: &Graph<'_>, target: TargetId, image: &ImageTarget, platform: &TargetPlatform) -> Option<String> {
    let mut named = graph.needs(target).named.iter().copied();
    if let Some(base) = image.base.as_ref().and_then(|_| named.next()) {
        let label = graph.label(base);
        match &graph.target(base).kind {
            TargetKind::Toolchain(Toolchain::Image(ImageRoot { source: RootSource::Place(_), add }))
                if add.is_empty() => {}
            TargetKind::Toolchain(Toolchain::Image(ImageRoot { source: RootSource::Target(_), .. })) => {
                return Some(format!("its base `{label}` is a root of this machine (name the image itself as `base`)"));
            }
            TargetKind::Toolchain(_) => {
                return Some(format!("its base `{label}` is a root of this machine ({})", own()));
            }
            TargetKind::Image(below) => {
                let known = of_target(below);
                if !known.iter().any(|known| is_same(known, platform)) {
                    let known: Vec<String> = known.iter().map(ToString::to_string).collect();
                    return Some(format!("its base `{label}` is for {} alone", known.join(", ")));
                }
            }
            // It is no base at all, which is told when it is built.
            _ => {}
        }
    }
    let (mut seen, mut open): (BTreeSet<TargetId>, Vec<TargetId>) = (BTreeSet::new(), named.collect());
    while let Some(next) = open.pop() {
        if !seen.insert(next) {
            continue;
        }
        let kind = &graph.target(next).kind;
        if matches!(kind, TargetKind::Command(_) | TargetKind::Test(_)) {
            let (label, kind) = (graph.label(next), kind.name());
            return Some(format!("`{label}` is a {kind}, which runs on this machine ({}) alone", own()));
        }
        open.extend(graph.needs(next).targets());
    }
    None
}

/// Fails for packages of a lockfile that are of this machine's processor, where an image is for another one.
pub(crate) fn check_part(
    workspace: &Workspace,
    label: &Label,
    layer: &ImageLayer,
    from: &str,
    output: &Output,
    wanted: &[TargetPlatform],
) -> Result<(), BuildError> {
    let Output::Packages(packages) = output else { return Ok(()) };
    let Some(platform) = wanted.iter().find(|platform| !can_run(platform)) else { return Ok(()) };
    let part = if layer.production { Part::Production } else { Part::All };
    match modules::bound(packages, workspace, label, part)? {
        None => Ok(()),
        Some(name) => {
            let why = format!("`{from}` has `{name}`, which is for some processors alone");
            Err(BuildError::ForeignPlatform { label: label.to_string(), platform: platform.to_string(), why })
        }
    }
}
