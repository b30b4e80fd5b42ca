//! From labels to outputs.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use cas_blob::{ActionCache, Descriptor};
use cas_config::{
    Addition, Command, Fetch, ImageSource, Label, LayerSource, Lock, LockedDebian, LockedImage, LockedNpm,
    LockedPackage, LockfileKind, NpmPackage, RootSource, TargetKind,
};
use cas_fetch::Fetcher;
use cas_oci::TargetPlatform;
use cas_sandbox::{Cancel, Runner, Tier};
use cas_snapshot::{Options, Snapshot, Trust};
use cas_store::Store;
use cas_tree::{Directory, Metadata, Node};
use rayon::prelude::*;

use crate::attached::Attached;
use crate::cargo::Registries;
use crate::complete::Complete;
use crate::debian::{self, Context};
use crate::download::{fetch_pinned, file_name};
use crate::event::{Event, Observer};
use crate::graph::{Graph, TargetId};
use crate::healing::healing;
use crate::history::{self, History, history_folder};
use crate::image_place::{ImagePlace, ImageRegistries};
use crate::inputs::{Given, Known, Sources, WrittenInputs, in_package};
use crate::needs::keep_locked;
use crate::npm::{self, Registry};
use crate::outline::{Outlines, words_of_step};
use crate::platforms::Wanted;
use crate::resources::{Amount, Resources};
use crate::schedule::Values;
use crate::step::Job;
use crate::trace::Trace;
use crate::trial::{Trial, Trials, with_arguments};
use crate::{
    BuildError, Download, LOCK_FILE, Origin, Output, SecretSources, Taints, Toolchain, Workspace, foreign, host, image,
    modules, part, platforms, roles, schedule, times,
};

/// What a build may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It may add what `cas.lock` lacks.
    Normal,
    /// A lock that would change is an error.
    Locked,
    /// Everything is resolved anew.
    Update,
}

/// What a build gave.
#[derive(Debug, Default)]
pub struct Built {
    /// The outputs of the targets asked for.
    pub outputs: BTreeMap<Label, Output>,
    /// Why targets have none. What depends on them was not tried.
    pub failures: BTreeMap<Label, BuildError>,
    /// What was asked for and not tried, because something before it failed.
    pub untried: Vec<Label>,
    /// Whether `cas.lock` has new entries.
    pub lock_changed: bool,
}

/// What of targets is there.
pub(crate) struct Examined<'a> {
    pub(crate) graph: Graph<'a>,
    /// What has its outputs.
    pub(crate) values: BTreeSet<TargetId>,
    /// What the steps among them are made of, by label.
    pub(crate) made_of: BTreeMap<String, Descriptor>,
    pub(crate) errors: BTreeMap<TargetId, BuildError>,
}

/// Labels of those that were asked for that a line of the log names.
const MAX_LOGGED_LABELS: usize = 20;

/// What the targets of one build share.
pub(crate) struct Shared<'a> {
    pub(crate) graph: &'a Graph<'a>,
    pub(crate) values: &'a Values<Output>,
    known: &'a Known,
    lock: &'a Mutex<Lock>,
    snapshot: Option<&'a Snapshot>,
    written: &'a WrittenInputs,
    asked: &'a BTreeSet<TargetId>,
    merged: &'a Mutex<BTreeMap<String, Arc<Toolchain>>>,
    resources: &'a Resources,
    runner: &'a Runner,
    complete: &'a Complete,
    /// What was done, for the history.
    steps: &'a Mutex<Vec<history::Built>>,
    aim: Aim<'a>,
}

/// How far targets are taken.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Aim<'a> {
    /// Until they have their outputs.
    Outputs,
    /// The same, but for one step that gives nothing and has the streams of whoever asked for it.
    Attached(&'a Attached),
    /// As far as no step has to run.
    Look,
    /// As far as their names, with stand-ins for outputs that nobody has.
    Outline(&'a Outlines),
    /// As for an outline, that there is; what each is made of is told in words.
    Words(&'a Mutex<BTreeMap<TargetId, Trace>>),
}

impl Shared<'_> {
    /// What a target gave that another one needs, with its label.
    pub(crate) fn output(&self, target: TargetId) -> (String, Output) {
        (self.graph.label(target).to_string(), self.values.get(target).clone())
    }

    /// The root of a step, from those that it names, each once; steps that name the same ones share it.
    fn root(&self, mut roots: Vec<(String, Arc<Toolchain>)>) -> Result<(String, Arc<Toolchain>), BuildError> {
        let mut seen = BTreeSet::new();
        roots.retain(|(label, _)| seen.insert(label.clone()));
        if roots.len() == 1
            && let Some((label, toolchain)) = roots.pop()
        {
            return Ok((label, toolchain));
        }
        let labels = roots.iter().map(|(label, _)| &**label).collect::<Vec<_>>().join(" and ");
        let mut merged = self.merged.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = merged.get(&labels) {
            return Ok((labels, Arc::clone(known)));
        }
        let made = Arc::new(Toolchain::merged(roots)?);
        merged.insert(labels.clone(), Arc::clone(&made));
        Ok((labels, made))
    }
}

/// Builds targets of a workspace.
#[derive(Debug)]
pub struct Builder<'a> {
    /// What is built.
    pub workspace: &'a Workspace,
    /// Where results are.
    pub store: &'a Store,
    /// Where results of steps are found and recorded; what they name is in the store.
    pub actions: &'a dyn ActionCache,
    /// Where missing inputs come from.
    pub fetcher: &'a Fetcher,
    /// Where missing images come from.
    pub registries: Arc<ImageRegistries>,
    /// Targets at once.
    pub jobs: NonZeroUsize,
    /// Memory that steps may use together; `None` when nobody knows what the machine has.
    pub memory_bytes: Option<u64>,
    /// What may change.
    pub mode: Mode,
    /// Labels and names of packages that an update is of; all, when there are none.
    pub only: BTreeSet<String>,
    /// Whether packages are pinned and fetched alone, and their scripts left for whoever builds.
    pub pins_only: bool,
    /// Whether a failure leaves what does not depend on it to be built.
    pub keep_going: bool,
    /// Whether steps run although their outputs are known, and twice if they are not, to see whether they repeat.
    pub check_repeat: bool,
    /// How much of a sandbox steps get.
    pub tier: Tier,
    /// How the tests are run that were asked for.
    pub trials: Trials,
    /// Whose times of files are believed.
    pub trust: Trust,
    /// Who is told what happens.
    pub observer: &'a dyn Observer,
    /// Variables of whoever builds, of which steps may take some over.
    pub variables: BTreeMap<String, String>,
    /// Where values of secrets come from, beside variables.
    pub secrets: SecretSources,
    /// Texts of apt's sources, for the mirror.
    pub apt_sources: Vec<String>,
    /// Address of the npm registry, without a slash at its end.
    pub npm_registry: String,
    /// Cargo's own folder, whose configuration may name mirrors.
    pub cargo_home: Option<PathBuf>,
    /// The time, in seconds since 1970: only to see whether a suite's index has expired.
    pub now_unix_seconds: u64,
    /// Ends the build.
    pub cancel: Cancel,
}

impl Builder<'_> {
    /// Builds the targets and what they need.
    ///
    /// # Errors
    ///
    /// What is wrong with the graph, the workspace or the lock as a whole; the failures of targets are in the result, and
    /// what other targets gave is kept in the store.
    pub fn build(&self, labels: &[Label]) -> Result<Built, BuildError> {
        healing(self.store, &|| self.cancel.is_cancelled(), &mut || self.attempt(labels), &|built| match built {
            Ok(built) => built.failures.values().any(BuildError::is_loss),
            Err(error) => error.is_loss(),
        })
    }

    fn attempt(&self, labels: &[Label]) -> Result<Built, BuildError> {
        let started = Instant::now();
        let graph = Graph::new(self.workspace, labels)?;
        roles::check(&graph)?;
        platforms::check(&graph)?;
        self.done("graph", started);
        let started = Instant::now();
        let snapshot = self.snapshot(&graph)?;
        self.done("snapshot", started);
        let started = Instant::now();
        let asked: BTreeSet<TargetId> = labels.iter().filter_map(|label| graph.find(label)).collect();
        let (lock, steps) = (Mutex::new(self.workspace.lock.clone()), Mutex::new(Vec::new()));
        let finished = self.go(&graph, snapshot.as_ref(), &asked, &lock, &steps, Aim::Outputs);
        self.done("targets", started);
        let started = Instant::now();
        let lock = lock.into_inner().unwrap_or_else(PoisonError::into_inner);
        // What was resolved stays resolved, also when another target failed.
        let lock_changed = lock != self.workspace.lock;
        if lock_changed {
            cas_fs::write_atomic(&self.workspace.root.join(LOCK_FILE), lock.to_text().as_bytes())?;
        }
        keep_locked(self.store, self.workspace, &lock)?;
        if self.cancel.is_cancelled() {
            return Err(BuildError::Interrupted);
        }
        if let Some(snapshot) = &snapshot {
            // What cannot be written down is read again next time.
            let _ = snapshot.save();
            for note in snapshot.notes()? {
                self.observer.event(Event::Note(&note));
            }
            // Each result belongs to the inputs that it was made of, but together they may be of no one state of the workspace.
            snapshot.verify_unchanged()?;
        }
        let steps = steps.into_inner().unwrap_or_else(PoisonError::into_inner);
        let labels: Vec<String> = labels.iter().map(ToString::to_string).take(MAX_LOGGED_LABELS).collect();
        let about =
            serde_json::json!({ "at": self.now_unix_seconds, "targets": labels, "failed": finished.errors.len() });
        // A history that cannot be written is told of by nobody who asks it.
        let _ = History::open(self.store, &self.workspace.root).record(&steps, about);
        self.observer.event(Event::Saved { time: times::record(self.store, &self.workspace.root, &steps) });
        self.done("records", started);
        let is_tried =
            |target: &&TargetId| finished.values.contains_key(target) || finished.errors.contains_key(target);
        let untried =
            asked.iter().filter(|target| !is_tried(target)).map(|target| graph.label(*target).clone()).collect();
        let outputs = finished.values.into_iter().filter(|(target, _)| asked.contains(target));
        let failures = finished.errors.into_iter();
        Ok(Built {
            outputs: outputs.map(|(target, output)| (graph.label(target).clone(), output)).collect(),
            failures: failures.map(|(target, error)| (graph.label(target).clone(), error)).collect(),
            untried,
            lock_changed,
        })
    }

    /// Tells that a part of the build is done.
    fn done(&self, name: &str, started: Instant) {
        self.observer.event(Event::Span { name, kind: "build", started });
    }

    /// The files of the workspace, if any of what is to be built reads them.
    pub(crate) fn snapshot(&self, graph: &Graph<'_>) -> Result<Option<Snapshot>, BuildError> {
        let reads_files = |kind: &TargetKind| match kind {
            TargetKind::Command(_)
            | TargetKind::Test(_)
            | TargetKind::Npm(_)
            | TargetKind::Run(_)
            | TargetKind::Fetch(Fetch::Lockfile(_)) => true,
            TargetKind::Image(image) => image.layers.iter().any(|layer| layer.from.outputs().is_none()),
            TargetKind::Artifact(artifact) => artifact.sources().any(|source| source.outputs().is_none()),
            TargetKind::Fetch(_) | TargetKind::Toolchain(_) => false,
        };
        if graph.kinds().any(reads_files) { self.whole_snapshot().map(Some) } else { Ok(None) }
    }

    /// The files of the workspace.
    pub(crate) fn whole_snapshot(&self) -> Result<Snapshot, BuildError> {
        let (caches, watchers) = (self.store.scans(), self.store.watchers());
        let function = self.workspace.section.digest_function;
        let options = Options { function, trust: self.trust, caches: Some(&caches), watchers: Some(&watchers) };
        Ok(Snapshot::take(&self.workspace.root, &options)?)
    }

    /// Builds what is in the graph, as far as the aim says.
    pub(crate) fn go(
        &self,
        graph: &Graph<'_>,
        snapshot: Option<&Snapshot>,
        asked: &BTreeSet<TargetId>,
        lock: &Mutex<Lock>,
        steps: &Mutex<Vec<history::Built>>,
        aim: Aim<'_>,
    ) -> schedule::Finished<Output, BuildError> {
        let (written, merged, known) = (&WrittenInputs::default(), &Mutex::default(), &Known::default());
        let cpus = self.jobs.get() as u64;
        let resources = &Resources::new(Amount { cpus, memory_bytes: self.memory_bytes.unwrap_or(u64::MAX) });
        let runner = &Runner::this_program();
        let (folder, function) =
            (history_folder(self.store, &self.workspace.root), self.workspace.section.digest_function);
        let complete = Complete::open(self.store, folder, function, self.now_unix_seconds);
        let stop = || self.cancel.is_cancelled();
        let keep_going = self.keep_going || !matches!(aim, Aim::Outputs | Aim::Attached(_));
        let to_build = graph.to_build();
        self.observer.event(Event::Planned { count: to_build.len() });
        let finished = schedule::run(&to_build, self.jobs, keep_going, &stop, &|target, values| {
            let complete = &complete;
            self.observer.event(Event::Begun { label: graph.label(target) });
            let shared = Shared {
                graph,
                values,
                known,
                lock,
                snapshot,
                written,
                asked,
                merged,
                resources,
                runner,
                complete,
                steps,
                aim,
            };
            let started = Instant::now();
            let result = match aim {
                Aim::Outputs | Aim::Attached(_) | Aim::Look => self.one(target, &shared),
                Aim::Outline(outlines) => self.outline(target, &shared, outlines),
                Aim::Words(words) => self.words(target, &shared, words),
            };
            let (name, kind) = (graph.label(target).to_string(), graph.target(target).kind.name());
            self.observer.event(Event::Span { name: &name, kind, started });
            self.observer.event(Event::Ended { label: graph.label(target) });
            result
        });
        complete.save(self.store);
        finished
    }

    /// Tells what targets are made of whose needs have values.
    pub(crate) fn all_words(
        &self,
        graph: &Graph<'_>,
        snapshot: &Snapshot,
        lock: &Mutex<Lock>,
        values: &Values<Output>,
        targets: &[TargetId],
        words: &Mutex<BTreeMap<TargetId, Trace>>,
    ) -> Result<(), BuildError> {
        let (written, merged, known) = (&WrittenInputs::default(), &Mutex::default(), &Known::default());
        let (asked, steps) = (&BTreeSet::new(), &Mutex::default());
        let resources = &Resources::new(Amount { cpus: 1, memory_bytes: u64::MAX });
        let runner = &Runner::this_program();
        let (snapshot, aim) = (Some(snapshot), Aim::Words(words));
        let complete = &Complete::none();
        let shared = Shared {
            graph,
            values,
            known,
            lock,
            snapshot,
            written,
            asked,
            merged,
            resources,
            runner,
            complete,
            steps,
            aim,
        };
        targets.par_iter().try_for_each(|target| self.words(*target, &shared, words).map(drop))
    }

    /// What of these targets is there, without running anything.
    pub(crate) fn examine(&self, labels: &[Label]) -> Result<Examined<'_>, BuildError> {
        let graph = Graph::new(self.workspace, labels)?;
        let snapshot = self.snapshot(&graph)?;
        let (lock, steps) = (Mutex::new(self.workspace.lock.clone()), Mutex::new(Vec::new()));
        let finished = self.go(&graph, snapshot.as_ref(), &BTreeSet::new(), &lock, &steps, Aim::Look);
        if let Some(snapshot) = &snapshot {
            // As after a build.
            let _ = snapshot.save();
        }
        let steps = steps.into_inner().unwrap_or_else(PoisonError::into_inner);
        let made_of = steps.into_iter().map(|step| (step.label, step.static_name)).collect();
        Ok(Examined { graph, values: finished.values.into_keys().collect(), made_of, errors: finished.errors })
    }

    fn one(&self, target: TargetId, shared: &Shared<'_>) -> Result<Output, BuildError> {
        let Shared { graph, lock, .. } = *shared;
        let label = graph.label(target);
        match &graph.target(target).kind {
            TargetKind::Toolchain(toolchain) => {
                let function = self.workspace.section.digest_function;
                let toolchain = match toolchain {
                    cas_config::Toolchain::Debian(debian) => {
                        let mirror = |archive: &cas_config::DebianArchive| {
                            let own = archive.mirror.clone();
                            own.or_else(|| cas_fetch::debian_mirror(&self.apt_sources, &archive.suite))
                                .unwrap_or_else(|| cas_fetch::defaults::debian(&archive.suite).to_owned())
                        };
                        let mirrors = debian.archives.iter().map(mirror).collect();
                        let scripts = debian.configure.then(|| self.cancel.clone());
                        let context = Context { store: self.store, fetcher: self.fetcher, function, mirrors, scripts };
                        let locked = self.locked(&context, label, debian, lock)?;
                        if self.pins_only && debian.configure {
                            return Ok(Output::Toolchain(Arc::new(debian::fetched(&context, locked)?)));
                        }
                        let base = debian::toolchain(&context, locked)?;
                        self.with_additions(Arc::new(base), target, &debian.add, shared)?
                    }
                    cas_config::Toolchain::Image(image) => {
                        // Where all is pinned, nothing but the workspace tells what it is for.
                        let whole = if self.pins_only { self.whole_graph() } else { None };
                        let wanted = Wanted::of(whole.as_ref().unwrap_or(graph), target, !image.add.is_empty());
                        let toolchain = |place: ImagePlace, pin: &LockedImage| match wanted.files {
                            true => foreign::toolchain(self.store, function, place, pin),
                            false => Ok(foreign::base(function, place, pin)),
                        };
                        let base = match &image.source {
                            RootSource::Place(source) => {
                                let place = self.image_place(label, source);
                                let pin = self.locked_image(&place, label, source, &wanted.platforms)?;
                                let toolchain = toolchain(place, &pin)?;
                                // An image that is refused leaves no pin.
                                pin_image(pin, lock);
                                toolchain
                            }
                            RootSource::Target(_) => {
                                let (from, output) = shared.output(graph.needs(target).named[0]);
                                let Output::Image(image) = output else {
                                    let (kind, role) = (output.kind(), "the image of a toolchain");
                                    return Err(BuildError::Role { label: from, kind, role });
                                };
                                let (document, request) = (image.manifest, String::new());
                                let pin = LockedImage { target: from, request, document };
                                let place = ImagePlace::Built(Arc::clone(&image));
                                toolchain(place, &pin)?.tainted(image.taints.clone())
                            }
                        };
                        if !wanted.files {
                            if shared.asked.contains(&target) {
                                for platform in &wanted.platforms {
                                    base.foreign_layers(self.store, platform)?;
                                }
                            }
                            return Ok(Output::Toolchain(Arc::new(base)));
                        }
                        self.with_additions(Arc::new(base), target, &image.add, shared)?
                    }
                    cas_config::Toolchain::Host(host) => Arc::new(self.host_toolchain(label, host)?),
                };
                // What others need of it is looked at when they do; what was asked for is there afterwards.
                if shared.asked.contains(&target) {
                    toolchain.tree(self.store, self.fetcher)?;
                }
                Ok(Output::Toolchain(toolchain))
            }
            TargetKind::Fetch(Fetch::Url { url, digest }) => self.download(&url.value, *digest),
            TargetKind::Image(image) => {
                // In the order of its section: the base, then the layers.
                let mut outputs = graph.needs(target).named.iter().map(|need| shared.output(*need));
                let base = image.base.as_ref().and_then(|_| outputs.next());
                let mut layers = Vec::new();
                for layer in &image.layers {
                    layers.push(match &layer.from {
                        LayerSource::Outputs(_) => {
                            let (from, output) = outputs.next().expect("each has a need");
                            image::Given::Outputs(from, output)
                        }
                        LayerSource::Files(patterns) => {
                            let sources = self.sources(shared);
                            let picked = sources.own_picked(label.package.as_ref(), patterns, &layer.exclude)?;
                            image::Given::Files(sources.kept(&picked)?)
                        }
                    });
                }
                let function = self.workspace.section.digest_function;
                let (store, fetcher) = (self.store, self.fetcher);
                let (workspace, variables) = (self.workspace, &self.variables);
                let context = image::Context { store, workspace, function, fetcher, variables };
                Ok(Output::Image(Arc::new(image::build(&context, label, image, base, layers)?)))
            }
            TargetKind::Artifact(artifact) => Ok(Output::Artifact(Arc::new(self.artifact(target, artifact, shared)?))),
            TargetKind::Command(command) | TargetKind::Test(command) => self.step(target, command, shared),
            TargetKind::Run(run) if matches!(shared.aim, Aim::Attached(attached) if attached.target == target) => {
                self.step(target, &run.command, shared)
            }
            TargetKind::Run(_) => {
                Err(BuildError::Role { label: label.to_string(), kind: "run", role: "built: `cas run` runs it" })
            }
            TargetKind::Fetch(Fetch::Npm(package)) => {
                let registry = self.registry();
                let locked = self.locked_npm(&registry, label, &package.value, lock)?;
                Ok(Output::Package(Arc::new(registry.pinned(&locked)?)))
            }
            TargetKind::Fetch(Fetch::Lockfile(path)) => {
                let sources = self.sources(shared);
                let path = in_package(label.package.as_ref(), &path.value);
                match LockfileKind::of(&path).ok_or_else(|| BuildError::LockfileName { path: path.to_string() })? {
                    LockfileKind::Cargo => {
                        let registries = Registries::new(&sources, self.fetcher, self.cargo_home.as_deref(), &path)?;
                        Ok(Output::Crates(Arc::new(registries.crates(label, &path)?)))
                    }
                    kind => Ok(Output::Packages(Arc::new(modules::packages(&self.registry(), &sources, kind, &path)?))),
                }
            }
            TargetKind::Npm(_) => {
                let mut outputs = Vec::new();
                let taints = Taints::of(graph.needs(target).targets().map(|need| shared.values.get(need)));
                for need in graph.needs(target).targets() {
                    let (need, output) = shared.output(need);
                    match output {
                        Output::Files(files) => outputs.push(files.tree(self.store)?.clone()),
                        other => {
                            let role = "packed";
                            return Err(BuildError::Role { label: need, kind: other.kind(), role });
                        }
                    }
                }
                Ok(Output::Tarball(Arc::new(npm::pack(&self.sources(shared), label, &outputs, taints)?)))
            }
        }
    }

    /// The programs of this machine as a root.
    pub(crate) fn host_toolchain(&self, label: &Label, host: &cas_config::Host) -> Result<Toolchain, BuildError> {
        let (store, tier, cancel) = (self.store, self.tier, &self.cancel);
        let (label, function) = (&*label.to_string(), self.workspace.section.digest_function);
        host::toolchain(&host::Context { store, function, label, tier, cancel }, host)
    }

    /// A root with what its section adds.
    pub(crate) fn with_additions(
        &self,
        base: Arc<Toolchain>,
        target: TargetId,
        additions: &[Addition],
        shared: &Shared<'_>,
    ) -> Result<Arc<Toolchain>, BuildError> {
        if additions.is_empty() {
            return Ok(base);
        }
        let label = shared.graph.label(target);
        let context =
            part::Context { store: self.store, workspace: self.workspace, label, role: "part of a toolchain" };
        // In the order of the section, behind the image where there is one.
        let own_count = additions.iter().filter(|addition| matches!(addition, Addition::Outputs(_))).count();
        let named = &shared.graph.needs(target).named;
        let mut outputs = named[named.len() - own_count..].iter().map(|need| shared.output(*need));
        let (mut parts, mut taints) = (Vec::new(), base.taints.clone());
        for addition in additions {
            match addition {
                Addition::Outputs(wanted) => {
                    let (from, output) = outputs.next().expect("each has a need");
                    taints.extend(&Taints::of([&output]));
                    let part = context.part(&from, &output, wanted)?;
                    parts.push((from, part));
                }
                Addition::Link { at, target } => {
                    let mut tree = Directory::root();
                    let node = Node::symlink(target.as_bytes());
                    tree.insert(at, node, &Metadata::root_owned(0o755)).expect("the tree is empty");
                    parts.push((label.to_string(), tree));
                }
            }
        }
        Ok(Arc::new(Toolchain::added(base, parts, taints)?))
    }

    pub(crate) fn registry(&self) -> Registry<'_> {
        let function = self.workspace.section.digest_function;
        let (store, fetcher, address) = (self.store, self.fetcher, &*self.npm_registry);
        Registry { store, fetcher, function, address, is_outline: false }
    }

    pub(crate) fn sources<'a>(&'a self, shared: &Shared<'a>) -> Sources<'a> {
        let snapshot = shared.snapshot.expect("it was taken for targets that read files");
        Sources { workspace: self.workspace, snapshot, store: self.store, known: shared.known }
    }

    pub(crate) fn step(&self, target: TargetId, command: &Command, shared: &Shared<'_>) -> Result<Output, BuildError> {
        let (graph, values) = (shared.graph, shared.values);
        let (label, needs) = (graph.label(target), graph.needs(target));
        let is_trial = matches!(graph.target(target).kind, TargetKind::Test(_)) && shared.asked.contains(&target);
        let has_arguments = is_trial && !self.trials.arguments.is_empty();
        let attached = match shared.aim {
            Aim::Attached(attached) if attached.target == target => Some(attached),
            _ => None,
        };
        let longer = match attached {
            Some(attached) => Some(attached.command(command)),
            None => has_arguments.then(|| with_arguments(command, &self.trials.arguments)),
        };
        let command = longer.as_ref().unwrap_or(command);
        // Toolchains are named first.
        let (toolchains, named) = needs.named.split_at(command.toolchains.len());
        let mut roots = Vec::new();
        for root in toolchains {
            match shared.output(*root) {
                (root, Output::Toolchain(toolchain)) => roots.push((root, toolchain)),
                (root, _) => {
                    let kind = graph.target(toolchains[roots.len()]).kind.name();
                    return Err(BuildError::Role { label: root, kind, role: "the toolchain of a step" });
                }
            }
        }
        let mut named: Vec<TargetId> = named.iter().copied().filter(|need| !toolchains.contains(need)).collect();
        named.sort_unstable();
        named.dedup();
        let given = &Given { graph, values, label, named, every: &needs.every };
        let sources = &self.sources(shared);
        let (root, toolchain) = shared.root(roots)?;
        let plan = sources.plan(command, given)?;
        let (toolchain, variables, secrets) = (&*toolchain, &self.variables, &self.secrets);
        let (written, resources, runner) = (shared.written, shared.resources, shared.runner);
        let (store, fetcher, cancel) = (self.store, self.fetcher, &self.cancel);
        let (actions, observer) = (self.actions, self.observer);
        let root = &*root;
        let job = Job {
            store,
            actions,
            complete: shared.complete,
            observer,
            fetcher,
            cancel,
            label,
            command,
            root,
            toolchain,
            variables,
            secrets,
            sources,
            given,
            plan,
            written,
            tier: self.tier,
            check_repeat: self.check_repeat,
            trial: is_trial.then_some(Trial { trials: &self.trials }),
            resources,
            runner,
        };
        if let Some(attached) = attached {
            return Ok(Output::Files(Arc::new(job.run_attached(attached)?)));
        }
        let static_name = job.static_name();
        let done = match shared.aim {
            Aim::Outputs | Aim::Attached(_) => job.run(&static_name),
            Aim::Look => job.look(&static_name).map(|files| (files, Origin::Cached)),
            Aim::Outline(outlines) => return outlines.step(target, &job, &static_name, shared),
            Aim::Words(words) => return words_of_step(target, &job, shared, words),
        };
        let is_dry = matches!(shared.aim, Aim::Look);
        let (action, ran_ms) = match &done {
            Ok((files, Origin::Ran { elapsed, .. })) => {
                (Some(files.action), Some(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)))
            }
            Ok((files, Origin::Cached)) => (Some(files.action), None),
            Err(_) => (None, None),
        };
        // A step that would run is told of by its error; and one with arguments of today is not what the target is made of.
        if (done.is_ok() || !is_dry) && !has_arguments {
            let lane = job.lane().name().to_owned();
            let step = history::Built { label: label.to_string(), lane, static_name, action, ran_ms };
            shared.steps.lock().unwrap_or_else(PoisonError::into_inner).push(step);
        }
        let (files, origin) = done?;
        if !is_dry {
            self.observer.event(Event::Step { label, origin: &origin });
        }
        Ok(Output::Files(Arc::new(files)))
    }

    /// The pins of a toolchain, resolved where they are missing or stale.
    fn locked(
        &self,
        context: &Context<'_>,
        label: &Label,
        debian: &cas_config::Debian,
        lock: &Mutex<Lock>,
    ) -> Result<LockedDebian, BuildError> {
        let target = label.to_string();
        let is_ours = |entry: &LockedDebian| entry.target == target && entry.architecture == debian::architecture();
        let before = self.workspace.lock.debian.iter().find(|entry| is_ours(entry));
        let found = before.filter(|entry| entry.request == debian::request(debian));
        let mut kept = Vec::new();
        if let Some(entry) = found {
            let (moving, staying): (Vec<LockedPackage>, Vec<LockedPackage>) =
                entry.packages.iter().cloned().partition(|package| self.only.contains(&package.name));
            let is_whole = self.is_updated(&target);
            if self.mode != Mode::Update || !is_whole && moving.is_empty() {
                return Ok(entry.clone());
            }
            if !is_whole {
                kept = staying;
            }
        }
        if self.mode == Mode::Locked {
            return Err(BuildError::LockStale { entry: format!("`{target}`") });
        }
        if let Some(as_of) = &debian.as_of
            && as_of.value > self.now_unix_seconds
        {
            let message = "this moment is still to come";
            return Err(self.workspace.wrong(label, as_of.span.clone(), message, "name the moment of the snapshot"));
        }
        let root = &self.workspace.root;
        let entry = debian::resolve(context, root, label, debian, before, &kept, self.now_unix_seconds)?;
        let mut lock = lock.lock().unwrap_or_else(PoisonError::into_inner);
        lock.debian.retain(|entry| !is_ours(entry));
        lock.debian.push(entry.clone());
        lock.debian.sort_by(|a, b| (&a.target, &a.architecture).cmp(&(&b.target, &b.architecture)));
        Ok(entry)
    }

    fn download(&self, url: &str, digest: cas_digest::Digest) -> Result<Output, BuildError> {
        let file_name = file_name(url);
        let function = self.workspace.section.digest_function;
        let blob = fetch_pinned(self.store, self.fetcher, function, url, digest)?;
        Ok(Output::Download(Arc::new(Download { blob, file_name })))
    }

    /// The graph of all targets, unless one of them is not in order: whoever builds that one is told.
    fn whole_graph(&self) -> Option<Graph<'_>> {
        let labels: Vec<Label> = self.workspace.targets().map(|(label, _)| label).collect();
        Graph::new(self.workspace, &labels).ok()
    }

    /// Whether an update is of all that a target has pinned.
    fn is_updated(&self, target: &str) -> bool {
        self.only.is_empty() || self.only.contains(target)
    }

    /// Where an image is that a package names.
    pub(crate) fn image_place(&self, label: &Label, source: &ImageSource) -> ImagePlace {
        ImagePlace::new(source, &crate::workspace::at(&self.workspace.root, label.package.as_ref()), &self.registries)
    }

    /// The pin of an image, resolved where it is missing or stale.
    fn locked_image(
        &self,
        origin: &ImagePlace,
        label: &Label,
        source: &ImageSource,
        platforms: &[TargetPlatform],
    ) -> Result<LockedImage, BuildError> {
        let target = label.to_string();
        let found = self.workspace.lock.image.iter().find(|entry| entry.target == target);
        if let Some(entry) = found
            && entry.request == foreign::request(source)
            && !(self.mode == Mode::Update && self.is_updated(&target))
        {
            return Ok(entry.clone());
        }
        if self.mode == Mode::Locked {
            return Err(BuildError::LockStale { entry: format!("`{target}`") });
        }
        foreign::resolve(self.store, origin, label, source, platforms)
    }

    /// The pin of an npm package, resolved where it is missing or stale.
    fn locked_npm(
        &self,
        registry: &Registry<'_>,
        label: &Label,
        package: &NpmPackage,
        lock: &Mutex<Lock>,
    ) -> Result<LockedNpm, BuildError> {
        let target = label.to_string();
        let found = self.workspace.lock.npm.iter().find(|entry| entry.target == target);
        if let Some(entry) = found
            && entry.request == format!("{}@{}", package.name, package.version)
            && !(self.mode == Mode::Update && self.is_updated(&target))
        {
            return Ok(entry.clone());
        }
        if self.mode == Mode::Locked {
            return Err(BuildError::LockStale { entry: format!("`{target}`") });
        }
        let entry = registry.resolve(&target, package)?;
        let mut lock = lock.lock().unwrap_or_else(PoisonError::into_inner);
        lock.npm.retain(|other| other.target != target);
        lock.npm.push(entry.clone());
        lock.npm.sort_by(|a, b| a.target.cmp(&b.target));
        Ok(entry)
    }
}

/// Pins an image in the place of what its target had before.
fn pin_image(entry: LockedImage, lock: &Mutex<Lock>) {
    let mut lock = lock.lock().unwrap_or_else(PoisonError::into_inner);
    if lock.image.contains(&entry) {
        return;
    }
    lock.image.retain(|other| other.target != entry.target);
    lock.image.push(entry);
    lock.image.sort_by(|a, b| a.target.cmp(&b.target));
}
