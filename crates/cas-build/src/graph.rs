//! What is to be built: targets by number, each with what it needs.
//!
//! Numbers are positions among all targets of the workspace in the order of their labels. `^name` is kept short: a target
//! waits for the nearest targets of that name, and for what is behind them only where they do not wait for it themselves.
//! So the graph grows with the dependencies that packages name, not with all that they reach.

use std::collections::{BTreeMap, HashMap, HashSet};

use cas_config::{Addition, ImageRoot, Label, Reference, RootSource, Target, TargetKind, Toolchain};
use cas_npm::DependencyKind::{Development, Optional, Peer, Production};
use cas_tree::RelPath;

use crate::{BuildError, Workspace};

/// Number of a target.
pub(crate) type TargetId = u32;

/// The packages of a workspace and how they depend on each other, by number.
#[derive(Debug)]
struct Packages<'a> {
    numbers: HashMap<Option<&'a RelPath>, usize>,
    /// What each package names in its `package.json`, and the part of it that others need who depend on the package.
    links: Vec<Links>,
}

#[derive(Debug, Default)]
struct Links {
    has_manifest: bool,
    all: Vec<usize>,
    runtime: Vec<usize>,
}

/// Targets and what they need.
#[derive(Debug)]
pub(crate) struct Graph<'a> {
    workspace: &'a Workspace,
    labels: Vec<Label>,
    targets: Vec<&'a Target>,
    /// First target of each package, and behind the last one the number of all.
    first: Vec<TargetId>,
    packages: Packages<'a>,
    /// Of those that are to be built.
    needs: Vec<Option<Needs>>,
}

/// What one target needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Needs {
    /// What it names, in the order of its section: toolchains, or the base, before others.
    pub(crate) named: Vec<TargetId>,
    /// For each `^name`.
    pub(crate) every: Vec<Every>,
}

/// What `^name` stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Every {
    pub(crate) name: Box<str>,
    /// In their order.
    pub(crate) edges: Vec<Edge>,
}

/// A target of a package that is depended on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Edge {
    pub(crate) target: TargetId,
    /// Whether the target itself waits for those of the same name that its package depends on.
    pub(crate) is_deep: bool,
}

impl Needs {
    /// All targets that have to be finished before.
    pub(crate) fn targets(&self) -> impl Iterator<Item = TargetId> + '_ {
        let every = self.every.iter().flat_map(|every| every.edges.iter().map(|edge| edge.target));
        self.named.iter().copied().chain(every)
    }
}

impl<'a> Graph<'a> {
    /// The targets `labels`, with all that they need.
    ///
    /// # Errors
    ///
    /// [`BuildError::UnknownTarget`], [`BuildError::NoManifest`], [`BuildError::Cycle`].
    pub(crate) fn new(workspace: &'a Workspace, labels: &[Label]) -> Result<Self, BuildError> {
        let packages = Packages::new(workspace);
        let (mut all, mut targets, mut first) = (Vec::new(), Vec::new(), Vec::new());
        for (folder, package) in &workspace.packages {
            first.push(number(all.len()));
            for (name, target) in &package.manifest.targets {
                all.push(Label { package: folder.clone(), name: name.clone() });
                targets.push(target);
            }
        }
        first.push(number(all.len()));
        let needs = vec![None; all.len()];
        let mut graph = Self { workspace, labels: all, targets, first, packages, needs };
        for label in labels {
            let target = graph.find(label).ok_or_else(|| workspace.unknown(label))?;
            graph.add(target)?;
        }
        Ok(graph)
    }

    /// Adds a target with all that it needs.
    fn add(&mut self, target: TargetId) -> Result<(), BuildError> {
        if self.needs[target as usize].is_some() {
            return Ok(());
        }
        // The way from the target to the current one, each with the needs that are still to be looked at.
        let mut way: Vec<(TargetId, Vec<TargetId>)> = Vec::new();
        let mut on_way = HashSet::from([target]);
        way.push((target, self.resolve(target)?));
        while let Some((current, open)) = way.last_mut() {
            let Some(next) = open.pop() else {
                on_way.remove(current);
                way.pop();
                continue;
            };
            if on_way.contains(&next) {
                let from = way.iter().position(|(target, _)| *target == next).unwrap_or(0);
                let cycle = way[from..].iter().map(|(target, _)| self.label(*target).to_string());
                return Err(BuildError::Cycle { cycle: cycle.chain([self.label(next).to_string()]).collect() });
            }
            if self.needs[next as usize].is_none() {
                way.push((next, self.resolve(next)?));
                on_way.insert(next);
            }
        }
        Ok(())
    }

    /// Finds out what a target needs.
    fn resolve(&mut self, target: TargetId) -> Result<Vec<TargetId>, BuildError> {
        let label = &self.labels[target as usize];
        let mut needs = Needs::default();
        for reference in references(self.targets[target as usize]) {
            match reference {
                Reference::Dependencies(name) => needs.every.push(self.every(label, name)?),
                one => {
                    let found = self.workspace.resolve(label.package.as_ref(), one)?;
                    needs.named.push(self.find(&found).expect("it was resolved"));
                }
            }
        }
        let targets = needs.targets().collect();
        self.needs[target as usize] = Some(needs);
        Ok(targets)
    }

    /// What `^name` means in the package of `label`: the nearest targets of that name, and those behind them that they do
    /// not wait for themselves.
    fn every(&self, label: &Label, name: &str) -> Result<Every, BuildError> {
        let package = self.packages.numbers[&label.package.as_ref()];
        if !self.packages.links[package].has_manifest {
            return Err(BuildError::NoManifest { label: label.to_string(), name: name.to_owned() });
        }
        let mut edges = self.edges(package, name, &self.packages.links[package].all);
        edges.sort_unstable();
        Ok(Every { name: name.into(), edges })
    }

    fn edges(&self, package: usize, name: &str, links: &[usize]) -> Vec<Edge> {
        let mut edges = Vec::new();
        let mut seen = HashSet::from([package]);
        let mut open = links.to_vec();
        while let Some(next) = open.pop() {
            if !seen.insert(next) {
                continue;
            }
            let target = self.of_package(next, name);
            let is_deep = target.is_some_and(|target| self.is_deep(target, name));
            edges.extend(target.map(|target| Edge { target, is_deep }));
            if !is_deep {
                open.extend(&self.packages.links[next].runtime);
            }
        }
        edges
    }

    fn is_deep(&self, target: TargetId, name: &str) -> bool {
        let is_same = |reference: &Reference| matches!(reference, Reference::Dependencies(own) if **own == *name);
        references(self.targets[target as usize]).any(is_same)
    }

    /// What is behind a target of which others say that they wait for all with its name: as it is needed by them.
    pub(crate) fn behind(&self, target: TargetId) -> Vec<Edge> {
        let label = self.label(target);
        let package = self.packages.numbers[&label.package.as_ref()];
        let mut edges = self.edges(package, &label.name, &self.packages.links[package].runtime);
        edges.sort_unstable();
        edges
    }

    /// Everything that `^name` stands for in a package, however far away, in order.
    pub(crate) fn reach(&self, label: &Label, name: &str) -> Vec<TargetId> {
        let package = self.packages.numbers[&label.package.as_ref()];
        let mut found = Vec::new();
        let mut seen = HashSet::from([package]);
        let mut open = self.packages.links[package].all.clone();
        while let Some(next) = open.pop() {
            if seen.insert(next) {
                found.extend(self.of_package(next, name));
                open.extend(&self.packages.links[next].runtime);
            }
        }
        found.sort_unstable();
        found
    }

    fn of_package(&self, package: usize, name: &str) -> Option<TargetId> {
        let range = self.first[package] as usize..self.first[package + 1] as usize;
        let at = self.labels[range.clone()].binary_search_by(|label| (*label.name).cmp(name)).ok()?;
        Some(number(range.start + at))
    }

    /// Number of a label's target.
    pub(crate) fn find(&self, label: &Label) -> Option<TargetId> {
        self.of_package(*self.packages.numbers.get(&label.package.as_ref())?, &label.name)
    }

    pub(crate) fn label(&self, target: TargetId) -> &Label {
        &self.labels[target as usize]
    }

    pub(crate) fn target(&self, target: TargetId) -> &'a Target {
        self.targets[target as usize]
    }

    /// Whether a target is to be built.
    pub(crate) fn holds(&self, target: TargetId) -> bool {
        self.needs[target as usize].is_some()
    }

    /// What a target needs that is to be built.
    pub(crate) fn needs(&self, target: TargetId) -> &Needs {
        self.needs[target as usize].as_ref().expect("it is to be built")
    }

    /// Kinds of the targets that are to be built.
    pub(crate) fn kinds(&self) -> impl Iterator<Item = &'a TargetKind> {
        let kinds = self.needs.iter().zip(&self.targets);
        kinds.filter(|(needs, _)| needs.is_some()).map(|(_, target)| &target.kind)
    }

    /// The targets that are to be built, with all that has to be finished before each.
    pub(crate) fn to_build(&self) -> BTreeMap<TargetId, Vec<TargetId>> {
        let needs = (0..).zip(&self.needs);
        needs.filter_map(|(target, needs)| Some((target, needs.as_ref()?.targets().collect()))).collect()
    }
}

impl<'a> Packages<'a> {
    fn new(workspace: &'a Workspace) -> Self {
        let numbers: HashMap<_, _> = workspace.packages.keys().map(Option::as_ref).zip(0..).collect();
        let manifests = || workspace.packages.values().map(|package| package.npm.as_ref());
        let by_name: HashMap<&str, usize> = (0..)
            .zip(manifests())
            .filter_map(|(number, manifest)| Some((manifest?.name.as_deref()?, number)))
            .collect();
        let links = manifests().map(|manifest| {
            let Some(manifest) = manifest else { return Links::default() };
            let named =
                |kinds: &[_]| manifest.dependency_names(kinds).filter_map(|name| by_name.get(name).copied()).collect();
            Links {
                has_manifest: true,
                all: named(&[Production, Development, Optional, Peer]),
                runtime: named(&[Production, Optional, Peer]),
            }
        });
        let links = links.collect();
        Self { numbers, links }
    }
}

/// Targets with all that they need, each with what it needs itself, in order.
///
/// # Errors
///
/// As for [`crate::Builder::build`], of the graph.
pub fn needs_of(workspace: &Workspace, labels: &[Label]) -> Result<BTreeMap<Label, Vec<Label>>, BuildError> {
    let graph = Graph::new(workspace, labels)?;
    let named = |mut targets: Vec<TargetId>| {
        targets.sort_unstable();
        targets.dedup();
        targets.into_iter().map(|target| graph.label(target).clone()).collect()
    };
    Ok(graph.to_build().into_iter().map(|(target, needs)| (graph.label(target).clone(), named(needs))).collect())
}

/// What a target names in its `deps`, and all that its `^name`s stand for; not its toolchains.
///
/// # Errors
///
/// As for [`needs_of`].
pub fn deps_of(workspace: &Workspace, label: &Label) -> Result<Vec<Label>, BuildError> {
    let graph = Graph::new(workspace, std::slice::from_ref(label))?;
    let target = graph.find(label).ok_or_else(|| workspace.unknown(label))?;
    let needs = graph.needs(target);
    let toolchain_count = match &graph.target(target).kind {
        TargetKind::Command(command) | TargetKind::Test(command) => command.toolchains.len(),
        TargetKind::Run(run) => run.command.toolchains.len(),
        _ => 0,
    };
    let reach = needs.every.iter().flat_map(|every| graph.reach(label, &every.name));
    let mut deps: Vec<TargetId> = needs.named.iter().skip(toolchain_count).copied().chain(reach).collect();
    deps.sort_unstable();
    deps.dedup();
    Ok(deps.into_iter().map(|target| graph.label(target).clone()).collect())
}

/// What a target's section names, in order.
fn references(target: &Target) -> impl Iterator<Item = &Reference> {
    let (steps, image, npm) = match &target.kind {
        TargetKind::Toolchain(_) | TargetKind::Fetch(_) | TargetKind::Artifact(_) => (None, None, None),
        TargetKind::Command(command) | TargetKind::Test(command) => (Some(command), None, None),
        TargetKind::Image(image) => (None, Some(image), None),
        TargetKind::Npm(npm) => (None, None, Some(npm)),
        TargetKind::Run(run) => (Some(&run.command), None, None),
    };
    let steps = steps.into_iter().flat_map(|command| command.toolchains.iter().chain(&command.deps));
    let image = image
        .into_iter()
        .flat_map(|image| image.base.iter().chain(image.layers.iter().filter_map(|layer| layer.from.outputs())));
    let npm = npm.into_iter().flat_map(|npm| &npm.from);
    let toolchain = match &target.kind {
        TargetKind::Toolchain(Toolchain::Debian(debian)) => Some(&debian.add),
        TargetKind::Toolchain(Toolchain::Image(image)) => Some(&image.add),
        _ => None,
    };
    let root = match &target.kind {
        TargetKind::Toolchain(Toolchain::Image(ImageRoot { source: RootSource::Target(reference), .. })) => {
            Some(reference)
        }
        _ => None,
    };
    let artifact = match &target.kind {
        TargetKind::Artifact(artifact) => Some(artifact),
        _ => None,
    };
    let artifact = artifact.into_iter().flat_map(|artifact| artifact.references());
    let added = toolchain.into_iter().flatten().filter_map(|addition| match addition {
        Addition::Outputs(outputs) => outputs.from.outputs(),
        Addition::Link { .. } => None,
    });
    steps.chain(image).chain(npm).chain(artifact).chain(root).chain(added).map(|reference| &reference.value)
}

fn number(len: usize) -> TargetId {
    TargetId::try_from(len).expect("a workspace has fewer than 2^32 targets")
}
