//! Targets by name alone: what each would be made of, with nothing run, fetched or packed.
//!
//! The engine goes through the graph as for a build. Where an output is in the store it is used; where it is not, a stand-in
//! is, whose name is that of everything that the output would be made of. So a target's name differs between two states of a
//! workspace whenever anything that it is made of does, and does not where what it depends on gives the same in both.
//!
//! Not here: the two states (`since`), what a step's name is made of (`inputs`, `step`).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use cas_blob::Descriptor;
use cas_config::{
    Addition, Fetch, Image as ImageTarget, ImageSource, Label, LayerSource, LockfileKind, RootSource, Run, TargetKind,
};
use cas_digest::{Digest, DigestFunction};
use cas_npm::{DependencyKind, Part};
use cas_oci::ImageFormat;
use cas_tree::Directory;

use crate::artifact_outline::no_artifact;
use crate::builder::Shared;
use crate::cargo::Registries;
use crate::debian::Context;
use crate::graph::TargetId;
use crate::inputs::in_package;
use crate::npm::{Registry, folders_above, ignore_files};
use crate::step::Job;
use crate::trace::Trace;
use crate::{
    BuildError, Builder, Download, Files, Image, Output, Package, Taints, Toolchain, debian, foreign, modules, part,
    platforms, stamp,
};

/// What is known of a target without building it.
#[derive(Clone, Debug)]
pub(crate) struct Outlined {
    /// Names everything that it is made of.
    pub(crate) name: Digest,
    /// Whether its outputs are known, or what they are is pinned.
    pub(crate) is_known: bool,
    /// Whether that goes for everything that it depends on, so that its name is that of a build.
    pub(crate) is_exact: bool,
    /// The action of a step whose outputs are known.
    pub(crate) action: Option<Descriptor>,
    /// Why it would not be built.
    pub(crate) failure: Option<String>,
}

/// What is known of the targets of a graph.
#[derive(Debug, Default)]
pub(crate) struct Outlines {
    pub(crate) known: Mutex<BTreeMap<TargetId, Outlined>>,
    /// What git has where the working tree has nothing.
    pub(crate) absent: String,
    /// Paths of files that may differ from those of the other state.
    pub(crate) differing: Vec<Vec<u8>>,
}

/// A name that stands for what nobody has: equal for what is made of the same, and the name of nothing else.
pub(crate) fn stand_in(function: DigestFunction, kind: &str, what: &str) -> Descriptor {
    Descriptor::of(function, format!("stand-in\n{kind}\n{what}").as_bytes())
}

/// What an outline found of a target that is no step.
pub(crate) struct Found {
    pub(crate) output: Output,
    pub(crate) name: Digest,
    pub(crate) words: Trace,
    pub(crate) is_known: bool,
}

impl Outlines {
    pub(crate) fn into_map(self) -> BTreeMap<TargetId, Outlined> {
        self.known.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a target that fails may hide: it fails before its files are looked at.
    fn hidden(&self, label: &Label, has_shared_inputs: bool) -> String {
        let is_below = |path: &&Vec<u8>| {
            let package = label.package.as_ref().filter(|_| !has_shared_inputs);
            package.is_none_or(|package| {
                path.strip_prefix(package.as_bytes()).is_some_and(|rest| rest.first() == Some(&b'/'))
            })
        };
        let differing = self.differing.iter().filter(is_below).map(|path| String::from_utf8_lossy(path));
        differing.fold(self.absent.clone(), |text, path| format!("{text}{path}\n"))
    }

    fn add(&self, target: TargetId, outlined: Outlined) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(target, outlined);
    }

    /// Whether the outputs of everything that a target depends on are known.
    fn are_known(&self, mut needs: impl Iterator<Item = TargetId>) -> bool {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        needs.all(|need| known.get(&need).is_some_and(|outlined| outlined.is_known))
    }

    /// The outputs of a step, or what stands for them.
    pub(crate) fn step(
        &self,
        target: TargetId,
        job: &Job<'_>,
        static_name: &Descriptor,
        shared: &Shared<'_>,
    ) -> Result<Output, BuildError> {
        let is_exact = self.are_known(shared.graph.needs(target).targets());
        // A name with a stand-in in it is in no store.
        let known = if is_exact { job.remembered(static_name)? } else { None };
        let action = known.as_ref().map(|files| files.action);
        let is_empty = job.command.outputs.is_empty();
        let name = static_name.digest;
        let is_known = known.is_some() || is_empty;
        self.add(target, Outlined { name, is_known, is_exact, action, failure: None });
        let files = match known {
            Some(files) => files,
            None => {
                let tree = Directory::root();
                // Without outputs it is known what it gives.
                let name = match is_empty {
                    true => tree.encode(name.function()).map_err(cas_store::StoreError::from)?.root,
                    false => stand_in(name.function(), "step", &static_name.to_string()),
                };
                Files::new(tree, name, *static_name, job.output_paths(), job.taints())
            }
        };
        Ok(Output::Files(Arc::new(files)))
    }
}

/// Tells what a step is made of: itself, and the nearest of what it depends on.
pub(crate) fn words_of_step(
    target: TargetId,
    job: &Job<'_>,
    shared: &Shared<'_>,
    words: &Mutex<BTreeMap<TargetId, Trace>>,
) -> Result<Output, BuildError> {
    let mut trace = job.own_trace(&job.plan.picked)?;
    job.sources.trace_nearest(&mut trace, job.given)?;
    // `node_modules` are made for it, also where `inputs` leave it out.
    let manifest = job.sources.manifest(job.label.package.as_ref())?;
    trace.add_files(job.sources.snapshot.listing(&manifest)?);
    words.lock().unwrap_or_else(PoisonError::into_inner).insert(target, trace);
    Ok(shared.output(target).1)
}

/// Whether an error is the user's: a build would end with it, too. Others are of the store or of this moment.
fn is_of_target(error: &BuildError) -> bool {
    !matches!(error, BuildError::Store(_) | BuildError::Keep { .. } | BuildError::Interrupted | BuildError::Revision(_))
}

impl Builder<'_> {
    /// What a target is made of, by name, and what it gives or what stands for that.
    pub(crate) fn outline(
        &self,
        target: TargetId,
        shared: &Shared<'_>,
        outlines: &Outlines,
    ) -> Result<Output, BuildError> {
        let needs = || shared.graph.needs(target).targets();
        let made = match &shared.graph.target(target).kind {
            TargetKind::Command(command) | TargetKind::Test(command) => self.step(target, command, shared),
            _ => self.found(target, shared).map(|Found { output, name, is_known, .. }| {
                let is_exact = is_known && outlines.are_known(needs());
                outlines.add(target, Outlined { name, is_known: is_exact, is_exact, action: None, failure: None });
                output
            }),
        };
        match made {
            Err(error) if is_of_target(&error) => {
                let failure = told(&error);
                let function = self.workspace.section.digest_function;
                let has_shared_inputs = !self.workspace.section.inputs.is_empty();
                let hidden = outlines.hidden(shared.graph.label(target), has_shared_inputs);
                let definition = format!("{failure}\n{:?}\n{hidden}", self.definition(target, shared));
                let name = stand_in(function, "failure", &definition);
                outlines.add(
                    target,
                    Outlined {
                        name: name.digest,
                        is_known: false,
                        is_exact: false,
                        action: None,
                        failure: Some(failure),
                    },
                );
                Ok(self.failed(target, shared, name))
            }
            other => other,
        }
    }

    /// What a step says of itself, without places of its text.
    fn definition(&self, target: TargetId, shared: &Shared<'_>) -> Vec<String> {
        let (TargetKind::Command(command) | TargetKind::Test(command)) = &shared.graph.target(target).kind else {
            return Vec::new();
        };
        let outputs = command.outputs.iter().map(|output| output.value.to_string());
        let named = command.toolchains.iter().chain(&command.deps).map(|reference| format!("{:?}", reference.value));
        let rest = [
            format!("{:?}", command.run),
            format!("{:?}", command.inputs),
            format!("{:?}", command.env),
            format!("{:?}", command.env_in),
            format!("{:?}", command.timeout),
        ];
        outputs.chain(named).chain(rest).collect()
    }

    /// What stands for the outputs of a target that would fail.
    fn failed(&self, target: TargetId, shared: &Shared<'_>, name: Descriptor) -> Output {
        let label = shared.graph.label(target);
        let tree = Directory::root();
        match &shared.graph.target(target).kind {
            TargetKind::Toolchain(_) => Output::Toolchain(Arc::new(no_toolchain(name))),
            TargetKind::Command(command) | TargetKind::Test(command) | TargetKind::Run(Run { command, .. }) => {
                let package = label.package.as_ref();
                let paths = command.outputs.iter().map(|output| in_package(package, &output.value)).collect();
                Output::Files(Arc::new(Files::new(tree, name, name, paths, Taints::default())))
            }
            TargetKind::Image(_) => Output::Image(Arc::new(no_image(label, name))),
            TargetKind::Artifact(_) => Output::Artifact(Arc::new(no_artifact(label, name))),
            TargetKind::Fetch(_) | TargetKind::Npm(_) => Output::Package(Arc::new(Package { tree, name })),
        }
    }

    /// Tells what a target is made of.
    pub(crate) fn words(
        &self,
        target: TargetId,
        shared: &Shared<'_>,
        words: &Mutex<BTreeMap<TargetId, Trace>>,
    ) -> Result<Output, BuildError> {
        match &shared.graph.target(target).kind {
            TargetKind::Command(command) | TargetKind::Test(command) => self.step(target, command, shared),
            _ => {
                let found = self.found(target, shared)?;
                words.lock().unwrap_or_else(PoisonError::into_inner).insert(target, found.words);
                Ok(found.output)
            }
        }
    }

    /// What is known of a target that is no step.
    fn found(&self, target: TargetId, shared: &Shared<'_>) -> Result<Found, BuildError> {
        let function = self.workspace.section.digest_function;
        let label = shared.graph.label(target);
        match &shared.graph.target(target).kind {
            TargetKind::Toolchain(cas_config::Toolchain::Debian(debian)) => {
                let found = self.debian(label, debian)?;
                self.outlined_additions(target, found, &debian.add, shared)
            }
            TargetKind::Toolchain(cas_config::Toolchain::Image(image)) => {
                let found = match &image.source {
                    RootSource::Place(source) => self.pinned_image(label, source)?,
                    RootSource::Target(_) => {
                        let (from, output) = shared.output(shared.graph.needs(target).named[0]);
                        let mut words = Trace::default();
                        words.add("image", "", &from);
                        words.add("dependency", from, whole_name(&output));
                        let name = stand_in(function, "image-root", &name_of(function, &words).to_string());
                        let taints = output.taints().cloned().unwrap_or_default();
                        let made = no_toolchain(name).tainted(taints);
                        Found { output: Output::Toolchain(Arc::new(made)), name: name.digest, words, is_known: false }
                    }
                };
                self.outlined_additions(target, found, &image.add, shared)
            }
            TargetKind::Toolchain(cas_config::Toolchain::Host(host)) => {
                let made = self.host_toolchain(label, host)?;
                let mut words = Trace::default();
                words.add("host", "", made.host_identity().unwrap_or_default());
                words.add("paths", "", host.paths.join(" "));
                let name = made.name.digest;
                Ok(Found { output: Output::Toolchain(Arc::new(made)), name, words, is_known: true })
            }
            // What it runs with; its sources are live, or are looked at when it runs.
            TargetKind::Run(run) => {
                let mut words = Trace::default();
                words.add("run", "", format!("{:?} {:?} {:?}", run.command.run, run.command.env, run.command.env_in));
                for need in shared.graph.needs(target).targets() {
                    let (need, output) = shared.output(need);
                    words.add("dependency", need, whole_name(&output));
                }
                let name = name_of(function, &words);
                let output = self.failed(target, shared, stand_in(function, "run", &name.to_string()));
                Ok(Found { output, name, words, is_known: true })
            }
            TargetKind::Fetch(Fetch::Url { url, digest }) => self.pinned_file(&url.value, *digest),
            TargetKind::Fetch(Fetch::Npm(package)) => self.pinned_package(label, &package.value),
            TargetKind::Fetch(Fetch::Lockfile(path)) => {
                let sources = self.sources(shared);
                let path = in_package(label.package.as_ref(), &path.value);
                let none = || BuildError::LockfileName { path: path.to_string() };
                let (output, name) = match LockfileKind::of(&path).ok_or_else(none)? {
                    LockfileKind::Cargo => {
                        let home = self.cargo_home.as_deref();
                        let registries = Registries::new(&sources, self.fetcher, home, &path)?.outlined();
                        let crates = registries.crates(label, &path)?;
                        let name = crates.name;
                        (Output::Crates(Arc::new(crates)), name)
                    }
                    kind => {
                        let packages = modules::packages(&self.outlined_registry(), &sources, kind, &path)?;
                        let name = packages.name;
                        (Output::Packages(Arc::new(packages)), name)
                    }
                };
                let mut words = Trace::default();
                words.add("lockfile", path.to_string(), name.to_string());
                Ok(Found { output, name: name.digest, words, is_known: true })
            }
            TargetKind::Image(image) => self.outlined_image(target, image, shared),
            TargetKind::Artifact(artifact) => self.outlined_artifact(target, artifact, shared),
            TargetKind::Npm(_) => self.outlined_tarball(target, shared),
            TargetKind::Command(_) | TargetKind::Test(_) => unreachable!("steps go another way"),
        }
    }

    fn outlined_registry(&self) -> Registry<'_> {
        Registry { is_outline: true, ..self.registry() }
    }

    fn debian(&self, label: &Label, debian: &cas_config::Debian) -> Result<Found, BuildError> {
        let function = self.workspace.section.digest_function;
        let request = debian::request(debian);
        let target = label.to_string();
        let mut words = Trace::default();
        words.add("request", "", &request);
        let is_ours = |entry: &&cas_config::LockedDebian| {
            entry.target == target && entry.architecture == debian::architecture() && entry.request == request
        };
        let made = match self.workspace.lock.debian.iter().find(is_ours) {
            Some(entry) => {
                for package in &entry.packages {
                    words.add("pin", &package.name, package.blob.to_string());
                }
                let (store, fetcher) = (self.store, self.fetcher);
                let scripts = debian.configure.then(|| self.cancel.clone());
                debian::outline(&Context { store, fetcher, function, mirrors: Vec::new(), scripts }, entry.clone())?
            }
            None => no_toolchain(stand_in(function, "unpinned", &request)),
        };
        let name = made.name.digest;
        Ok(Found { output: Output::Toolchain(Arc::new(made)), name, words, is_known: true })
    }

    fn pinned_image(&self, label: &Label, source: &ImageSource) -> Result<Found, BuildError> {
        let function = self.workspace.section.digest_function;
        let (request, target) = (foreign::request(source), label.to_string());
        let mut words = Trace::default();
        words.add("request", "", &request);
        let pins = &self.workspace.lock.image;
        let made = match pins.iter().find(|entry| entry.target == target && entry.request == request) {
            Some(pin) => {
                words.add("pin", "", pin.document.to_string());
                foreign::outline(self.store, function, self.image_place(label, source), pin)?
            }
            None => no_toolchain(stand_in(function, "unpinned", &request)),
        };
        let name = made.name.digest;
        Ok(Found { output: Output::Toolchain(Arc::new(made)), name, words, is_known: true })
    }

    /// A root with what its section adds: as in a build where all of that is known, else a name that stands for it.
    fn outlined_additions(
        &self,
        target: TargetId,
        found: Found,
        additions: &[Addition],
        shared: &Shared<'_>,
    ) -> Result<Found, BuildError> {
        if additions.is_empty() {
            return Ok(found);
        }
        let function = self.workspace.section.digest_function;
        let mut words = found.words;
        for (index, addition) in additions.iter().enumerate() {
            let what = match addition {
                Addition::Outputs(wanted) => format!("{:?} {:?}", wanted.path, wanted.to),
                Addition::Link { at, target } => format!("{at} leads to {target}"),
            };
            words.add("add", index.to_string(), what);
        }
        let outputs: Vec<(String, Output)> =
            shared.graph.needs(target).named.iter().map(|need| shared.output(*need)).collect();
        for (from, output) in &outputs {
            words.add("dependency", from, whole_name(output));
        }
        let has_tree = |(_, output): &(String, Output)| match output {
            Output::Files(files) => files.tree(self.store).map(|tree| !tree.is_empty()),
            Output::Package(package) => Ok(!package.tree.is_empty()),
            Output::Download(_) | Output::Packages(_) => Ok(true),
            _ => Ok(false),
        };
        let have_trees: Result<Vec<bool>, BuildError> = outputs.iter().map(has_tree).collect();
        let made = match found.output {
            Output::Toolchain(base) if have_trees?.into_iter().all(|has_tree| has_tree) => {
                self.with_additions(base, target, additions, shared)?
            }
            _ => Arc::new(no_toolchain(stand_in(function, "toolchain", &name_of(function, &words).to_string()))),
        };
        let name = made.name.digest;
        Ok(Found { output: Output::Toolchain(made), name, words, is_known: true })
    }

    fn pinned_file(&self, url: &str, digest: Digest) -> Result<Found, BuildError> {
        let function = self.workspace.section.digest_function;
        let pin = digest.to_string();
        let stored = crate::download::stored(self.store, function, digest)?;
        let blob = stored.unwrap_or_else(|| stand_in(function, "download", &pin));
        let file_name = crate::download::file_name(url);
        let mut words = Trace::default();
        words.add("pin", "", pin);
        words.add("file name", "", &file_name);
        let output = Output::Download(Arc::new(Download { blob, file_name }));
        Ok(Found { output, name: name_of(function, &words), words, is_known: true })
    }

    fn pinned_package(&self, label: &Label, package: &cas_config::NpmPackage) -> Result<Found, BuildError> {
        let function = self.workspace.section.digest_function;
        let (target, request) = (label.to_string(), format!("{}@{}", package.name, package.version));
        let mut words = Trace::default();
        words.add("request", "", &request);
        let entries = &self.workspace.lock.npm;
        let entry = entries.iter().find(|entry| entry.target == target && entry.request == request);
        let name = match entry {
            None => stand_in(function, "unpinned", &request),
            Some(entry) => {
                words.add("pin", "", &entry.integrity);
                let damaged = |error| BuildError::Package { package: request.clone(), source: Box::new(error) };
                let integrity: cas_npm::Integrity = entry.integrity.parse().map_err(damaged)?;
                self.outlined_registry().package(&request, "", &integrity)?
            }
        };
        let tree = self.store.find_tree(&name)?.unwrap_or_else(Directory::root);
        let output = Output::Package(Arc::new(Package { tree, name }));
        Ok(Found { output, name: name.digest, words, is_known: true })
    }

    fn outlined_image(&self, target: TargetId, image: &ImageTarget, shared: &Shared<'_>) -> Result<Found, BuildError> {
        let function = self.workspace.section.digest_function;
        let label = shared.graph.label(target);
        let mut words = Trace::default();
        words.add("compression", "", format!("{:?}", image.compression));
        words.add("format", "", format!("{:?}", image.format));
        words.add("config", "", format!("{:?}", image.config));
        words.add("max layers", "", image.max_layers.to_string());
        words.add("platforms", "", image.platforms.iter().map(|platform| format!("{platform} ")).collect::<String>());
        words.add("annotations", "", format!("{:?}", image.annotations));
        if !image.stamp.is_empty() {
            words.extend(stamp::words(&self.sources(shared), &self.variables, label, &image.stamp)?);
        }
        let mut outputs = shared.graph.needs(target).named.iter().map(|need| shared.output(*need));
        let mut taints = Taints::default();
        // One target may be in several layers, with other parts of it.
        let mut parts: BTreeMap<String, String> = BTreeMap::new();
        if let Some((from, output)) = image.base.as_ref().and_then(|_| outputs.next()) {
            taints.extend(&Taints::of([&output]));
            words.add("base", "", &from);
            // What it runs is inherited, and is no part of its files.
            if let Output::Toolchain(toolchain) = &output
                && let Some(document) = toolchain.document()
            {
                words.add("base", "document", document.to_string());
            }
            parts.insert(from, whole_name(&output));
        }
        for (index, layer) in image.layers.iter().enumerate() {
            let rest = format!("{:?} {:?} {} {:?}", layer.path, layer.to, layer.production, layer.rights);
            let rest = if layer.is_whole { format!("{rest} whole") } else { rest };
            let rest = if layer.exclude.is_empty() { rest } else { format!("{rest} without {:?}", layer.exclude) };
            let (from, output) = match &layer.from {
                LayerSource::Outputs(_) => outputs.next().expect("each has a need"),
                LayerSource::Files(patterns) => {
                    let sources = self.sources(shared);
                    let picked = sources.own_picked(label.package.as_ref(), patterns, &layer.exclude)?;
                    words.add("layer", index.to_string(), format!("files {patterns:?} {rest}"));
                    words.add_files(sources.snapshot.listing(&picked)?);
                    continue;
                }
            };
            taints.extend(&Taints::of([&output]));
            words.add("layer", index.to_string(), format!("{from} {rest}"));
            let part = match &output {
                Output::Files(files) if !files.tree(self.store)?.is_empty() => {
                    part::files_at(&from, files.tree(self.store)?, layer)?
                        .0
                        .encode(function)
                        .map_err(cas_store::StoreError::from)?
                        .root
                        .to_string()
                }
                Output::Packages(packages) => {
                    let part = if layer.production { Part::Production } else { Part::All };
                    modules::portable_name(packages, self.workspace, label, part)?.to_string()
                }
                other => whole_name(other),
            };
            parts.entry(from).or_default().push_str(&format!("{part} "));
        }
        for (from, parts) in parts {
            words.add("dependency", from, parts);
        }
        let name = name_of(function, &words);
        let stands = Image { taints, ..no_image(label, stand_in(function, "image", &name.to_string())) };
        Ok(Found { output: Output::Image(Arc::new(stands)), name, words, is_known: true })
    }

    /// A tarball by all that it may be packed of: what is left out of it is known when it is packed.
    fn outlined_tarball(&self, target: TargetId, shared: &Shared<'_>) -> Result<Found, BuildError> {
        let function = self.workspace.section.digest_function;
        let (label, sources) = (shared.graph.label(target), self.sources(shared));
        let package = label.package.as_ref();
        let mut words = Trace::default();
        for need in shared.graph.needs(target).targets() {
            let (need, output) = shared.output(need);
            words.add("dependency", need, whole_name(&output));
        }
        words.add_files(sources.snapshot.listing(&sources.package_files(package, None)?)?);
        match package {
            None => {
                let others = self.workspace.packages.keys().flatten().map(|folder| format!("{folder}\n"));
                words.add("packages", "", others.collect::<String>());
            }
            Some(package) => {
                for folder in folders_above(package) {
                    let picked = sources.snapshot.pick(&ignore_files(folder.as_ref()))?;
                    words.add_files(sources.snapshot.listing(&picked)?);
                }
            }
        }
        let members = self.workspace.npm_members();
        let manifest = self.workspace.packages.get(&label.package).and_then(|package| package.npm.as_ref());
        let kinds =
            [DependencyKind::Production, DependencyKind::Development, DependencyKind::Optional, DependencyKind::Peer];
        for name in manifest.into_iter().flat_map(|manifest| manifest.dependency_names(&kinds)) {
            if let Some(member) = members.get(name) {
                words.add("version of", name, format!("{:?}", member.version));
            }
        }
        let name = name_of(function, &words);
        let tree = Directory::root();
        let stands = Package { tree, name: stand_in(function, "tarball", &name.to_string()) };
        Ok(Found { output: Output::Package(Arc::new(stands)), name, words, is_known: false })
    }
}

/// Names all of an output.
pub(crate) fn whole_name(output: &Output) -> String {
    match output {
        Output::Toolchain(toolchain) => toolchain.name.to_string(),
        Output::Download(download) => format!("{} {}", download.blob, download.file_name),
        Output::Package(package) => package.name.to_string(),
        Output::Packages(packages) => packages.name.to_string(),
        Output::Crates(crates) => crates.name.to_string(),
        Output::Tarball(tarball) => tarball.recipe.blob.to_string(),
        Output::Files(files) => files.name.to_string(),
        Output::Image(image) => image.document().to_string(),
        Output::Artifact(artifact) => artifact.manifest.to_string(),
    }
}

pub(crate) fn name_of(function: DigestFunction, words: &Trace) -> Digest {
    Digest::of(function, words.to_text().as_bytes())
}

/// A toolchain that is a name and nothing else.
fn no_toolchain(name: Descriptor) -> Toolchain {
    let locked = cas_config::LockedDebian {
        target: String::new(),
        request: String::new(),
        architecture: debian::architecture().to_owned(),
        release_dates: vec![0],
        packages: Vec::new(),
    };
    Toolchain::debian(locked, Vec::new(), None, name, None)
}

/// An image that is a name and nothing else.
fn no_image(label: &Label, name: Descriptor) -> Image {
    Image {
        reference: label.to_string(),
        manifest: name,
        config: name,
        format: ImageFormat::Oci,
        platform: platforms::plain(),
        layers: Vec::new(),
        base_tree: None,
        taints: Taints::default(),
        index: None,
    }
}

/// An error with its causes on one line.
fn told(error: &BuildError) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        let more = cause.to_string();
        // Errors that stand for their cause would tell it twice.
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        next = cause.source();
    }
    text
}
