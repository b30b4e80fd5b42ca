//! Steps: their key, looking for what they gave before, running them. Rules: docs/formats/step.md.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cas_action::{EncodedStep, Projection, Step, encode_result, project};
use cas_blob::{ActionCache, ActionLane, Descriptor};
use cas_config::{Command, Label, Program};
use cas_digest::DigestFunction;
use cas_fetch::Fetcher;
use cas_sandbox::{Cancel, Ending, Limits, Runner, SandboxError, Tier};
use cas_snapshot::Picked;
use cas_store::Store;
use cas_tree::{Directory, EPOCH_SECONDS, Metadata, Name, Node, RelPath};

use crate::complete::Complete;
use crate::event::{Event, Observer};
use crate::inputs::{Given, Inputs, Plan, Sources, WrittenInputs, in_package};
use crate::limits;
use crate::log::Log;
use crate::resources::{Amount, Resources};
use crate::results::{Results, Whole, differing_paths, in_place};
use crate::secret::SecretSources;
use crate::trace::Trace;
use crate::trial::{Executed, Trial};
use crate::why::TRACE_MEMO;
use crate::{BuildError, Files, Taints, Toolchain};

/// Where programs are looked for.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// What every command finds in its environment.
const ENVIRONMENT: [(&str, &str); 6] =
    [("PATH", PATH), ("HOME", "/tmp"), ("TMPDIR", "/tmp"), ("LANG", "C.UTF-8"), ("LC_ALL", "C.UTF-8"), ("TZ", "UTC")];
/// The folder of the sources in the input root.
pub(crate) const SOURCE: &str = "src";
/// Folders that every sandbox has. The key of a step does not tell what a root has in the place of its sources.
const PLACES: [&str; 3] = ["dev", "proc", SOURCE];
/// Kind of the memos that lead from what a step is made of to its action. The number is that of the rules of inputs.
const STATIC_NAME: &str = "step-2";
/// Platform property of steps that see programs of the machine: only machines with an equal one may run them.
const HOST_PROPERTY: &str = "cas-host";
/// Platform property of steps that ran with less than the whole sandbox: the name of the tier.
const SANDBOX_PROPERTY: &str = "cas-sandbox";
/// Platform property of steps that read secrets: their names. Only who has values for them can run such a step.
const SECRETS_PROPERTY: &str = "cas-secrets";
/// Platform property of steps that may leave files which are no outputs: their paths in the package, a line each.
const SCRATCH_PROPERTY: &str = "cas-scratch";
/// Platform property of steps that keep folders from one run to the next: their paths in the package, a line each.
const CACHE_PROPERTY: &str = "cas-cache";
/// Platform property of steps that say how many processors they use: they see that many.
const CPUS_PROPERTY: &str = "cas-cpus";
/// Platform property of steps whose programs have the same addresses in each run: `off`.
const ASLR_PROPERTY: &str = "cas-aslr";

/// A toolchain as steps see it: no owners, no rights but the one to execute, no attributes, no links between files.
#[derive(Debug)]
pub(crate) struct StepRoot {
    name: Descriptor,
    tree: Directory,
    projection: Projection,
    /// Where it is written out; held while that is done, so that it is done once.
    folder: Mutex<Option<PathBuf>>,
    /// Whether its messages are in the store.
    is_kept: Mutex<bool>,
}

/// A root without what it has in `/dev`: the sandbox has one of its own, and images have devices there that no step can have.
pub(crate) fn without_devices(tree: &Directory) -> Directory {
    let (mut tree, path) = (tree.clone(), RelPath::new("dev").expect("it is a name"));
    if let Some(folder) = tree.get_directory(&path).filter(|folder| !folder.is_empty()) {
        let empty = Node::Directory(Arc::new(Directory::new(folder.metadata.clone())));
        tree.insert(&path, empty, &Metadata::root_owned(0o755)).expect("it is in the root");
    }
    tree
}

impl StepRoot {
    /// What steps see of a toolchain's tree.
    pub(crate) fn new(label: &str, tree: &Directory, function: DigestFunction) -> Result<Self, BuildError> {
        let failed = |source| BuildError::Project { label: label.to_owned(), source };
        let tree = &without_devices(tree);
        for name in PLACES {
            let path = RelPath::new(name).expect("it is a name");
            if tree.get(&path).is_some_and(|node| !matches!(node, Node::Directory(_))) {
                return Err(SandboxError::MountPoint { path: Path::new("/").join(name) }.into());
            }
        }
        let projection = project(tree, function).map_err(failed)?;
        let view = view(tree, tree);
        let name = view.encode(function).map_err(cas_store::StoreError::from)?.root;
        Ok(Self { name, tree: view, projection, folder: Mutex::new(None), is_kept: Mutex::new(false) })
    }

    /// Keeps its messages, once.
    fn keep(&self, store: &Store) -> Result<(), BuildError> {
        let mut is_kept = self.is_kept.lock().unwrap_or_else(PoisonError::into_inner);
        if !*is_kept {
            keep(store, &self.projection)?;
            *is_kept = true;
        }
        Ok(())
    }

    pub(crate) fn folder(&self, store: &Store) -> Result<PathBuf, BuildError> {
        let mut folder = self.folder.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(folder) = &*folder {
            return Ok(folder.clone());
        }
        let path = store.materialize(&self.name, &self.tree)?;
        *folder = Some(path.clone());
        Ok(path)
    }
}

/// Keeps the messages of a projection, so that an action can be sent elsewhere or run again from the store alone.
fn keep(store: &Store, projection: &Projection) -> Result<(), BuildError> {
    for (name, bytes) in &projection.directories {
        if !store.contains(name)? {
            store.put_bytes(name.digest.function(), bytes)?;
        }
    }
    Ok(())
}

/// Trees are at most 1,024 directories deep, so recursion is bounded.
fn view(top: &Directory, directory: &Directory) -> Directory {
    let mut seen = Directory::new(Metadata::root_owned(0o755));
    for (name, node) in directory.entries() {
        let node = match node {
            Node::Directory(child) => Node::Directory(Arc::new(view(top, child))),
            Node::Symlink { target, .. } => Node::symlink(target),
            node => match top.file_of(node) {
                Some((metadata, blob)) => Node::file(blob, if metadata.mode & 0o100 != 0 { 0o755 } else { 0o644 }),
                None => continue,
            },
        };
        seen.insert(&RelPath::from(name.clone()), node, &Metadata::root_owned(0o755)).expect("names are there once");
    }
    seen
}

/// What every command finds in its environment, before anything is added.
pub(crate) fn base_environment() -> BTreeMap<String, String> {
    ENVIRONMENT.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// An environment as the sandbox takes it.
pub(crate) fn for_sandbox(environment: BTreeMap<String, String>) -> BTreeMap<OsString, OsString> {
    environment.into_iter().map(|(name, value)| (name.into(), value.into())).collect()
}

/// How a command failed; `None` for one that did not.
///
/// # Errors
///
/// [`BuildError::Interrupted`] when the build was cancelled.
pub(crate) fn failure(
    ending: &Ending,
    (timeout, limits): (Option<Duration>, &Limits),
) -> Result<Option<String>, BuildError> {
    Ok(match ending {
        Ending::Exited(0) => None,
        Ending::Exited(code) => Some(format!("exit code {code}")),
        Ending::Signalled(signal) => Some(format!("signal {signal}")),
        Ending::TimedOut => Some(format!("it ran longer than {} s", timeout.unwrap_or_default().as_secs())),
        Ending::OverLimit(limit) => Some(limits::told(*limit, limits)),
        Ending::Cancelled => return Err(BuildError::Interrupted),
    })
}

/// How a step got its outputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// An equal step gave them before.
    Cached,
    /// It ran.
    Ran {
        /// How long it took.
        elapsed: Duration,
        /// What it printed.
        log: Log,
        /// How often it failed before, as a test that is tried again.
        failure_count: u32,
    },
}

/// Everything that a step is made of.
pub(crate) struct Job<'a> {
    pub(crate) store: &'a Store,
    /// Where results are.
    pub(crate) actions: &'a dyn ActionCache,
    /// Results that are known to be complete.
    pub(crate) complete: &'a Complete,
    /// Who is told what happens.
    pub(crate) observer: &'a dyn Observer,
    /// Where what a toolchain lost comes from.
    pub(crate) fetcher: &'a Fetcher,
    pub(crate) cancel: &'a Cancel,
    pub(crate) label: &'a Label,
    pub(crate) command: &'a Command,
    /// Label of the toolchain.
    pub(crate) root: &'a str,
    pub(crate) toolchain: &'a Toolchain,
    /// Variables of whoever builds, of which a step may take some over.
    pub(crate) variables: &'a BTreeMap<String, String>,
    pub(crate) secrets: &'a SecretSources,
    pub(crate) sources: &'a Sources<'a>,
    /// What it depends on.
    pub(crate) given: &'a Given<'a>,
    /// What its inputs are made of.
    pub(crate) plan: Plan,
    pub(crate) written: &'a WrittenInputs,
    /// How much of a sandbox it gets.
    pub(crate) tier: Tier,
    /// Whether it runs although its outputs are known, and twice if they are not, to see whether they are the same.
    pub(crate) check_repeat: bool,
    /// For a test that was asked for.
    pub(crate) trial: Option<Trial<'a>>,
    /// What the machine has for all steps.
    pub(crate) resources: &'a Resources,
    /// What starts sandboxes.
    pub(crate) runner: &'a Runner,
}

impl Job<'_> {
    pub(crate) fn package(&self) -> Option<&RelPath> {
        self.label.package.as_ref()
    }

    pub(crate) fn arguments(&self) -> Vec<String> {
        match &self.command.run {
            Program::Shell(text) => vec!["/bin/sh".to_owned(), "-euc".to_owned(), text.clone()],
            Program::Arguments(arguments) => arguments.clone(),
        }
    }

    pub(crate) fn environment(&self) -> BTreeMap<String, String> {
        let mut environment = base_environment();
        environment.extend(self.toolchain.env.clone());
        environment.insert("SOURCE_DATE_EPOCH".to_owned(), EPOCH_SECONDS.to_string());
        environment.extend(self.command.env.clone());
        // What the builder's environment lacks is as `env` says, or not there.
        let taken = self.command.env_in.iter().filter_map(|name| self.variables.get_key_value(&**name));
        environment.extend(taken.map(|(name, value)| (name.clone(), value.clone())));
        environment
    }

    /// What it sees of its toolchain.
    pub(crate) fn step_root(&self) -> Result<Arc<StepRoot>, BuildError> {
        self.toolchain.step_root(self.store, self.fetcher, self.root).map_err(|error| self.not_run(error))
    }

    /// The step as an action, whose name is the key; and what of its input root the toolchain's projection lacks.
    fn encode(&self, root: &StepRoot, inputs: &Inputs) -> Result<(EncodedStep, Projection), BuildError> {
        let function = root.name.digest.function();
        let failed = |source| BuildError::Project { label: self.label.to_string(), source };
        let sources = self.sources.projected(&inputs.tree, function).map_err(failed)?;
        let whole = root.projection.with(&Name::new(SOURCE).expect("it is a name"), &sources).map_err(failed)?;
        Ok((self.step(whole.root).encode(), whole))
    }

    /// The step over an input root.
    fn step(&self, input_root: Descriptor) -> Step {
        let lane = self.toolchain.lane();
        let secrets = Some(self.command.secrets.join(",")).filter(|names| !names.is_empty());
        let listed = |paths: &[RelPath]| {
            let sorted: BTreeSet<String> = paths.iter().map(ToString::to_string).collect();
            Some(sorted.into_iter().collect::<Vec<_>>().join("\n")).filter(|list| !list.is_empty())
        };
        let (scratch, cache) = (listed(&self.command.scratch), listed(&self.command.cache));
        let cpus = self.command.cpus.map(|count| count.to_string());
        let isa = if cfg!(target_arch = "aarch64") { "aarch64" } else { "x86-64" };
        Step {
            arguments: self.arguments(),
            environment: self.environment(),
            working_directory: match self.package() {
                None => SOURCE.to_owned(),
                Some(package) => format!("{SOURCE}/{package}"),
            },
            output_paths: self.command.outputs.iter().map(|output| output.value.to_string()).collect(),
            platform: [("OSFamily", "linux"), ("ISA", isa)]
                .into_iter()
                .chain(self.toolchain.host_parts().map(|_| (HOST_PROPERTY, lane.name())))
                .chain((!self.tier.is_whole()).then(|| (SANDBOX_PROPERTY, self.tier.name())))
                .chain(secrets.as_deref().map(|names| (SECRETS_PROPERTY, names)))
                .chain(scratch.as_deref().map(|paths| (SCRATCH_PROPERTY, paths)))
                .chain(cache.as_deref().map(|paths| (CACHE_PROPERTY, paths)))
                .chain(cpus.as_deref().map(|count| (CPUS_PROPERTY, count)))
                .chain((!self.command.aslr).then_some((ASLR_PROPERTY, "off")))
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            input_root,
            timeout_seconds: u32::try_from(self.command.timeout.as_secs()).unwrap_or(u32::MAX),
        }
    }

    /// Where its results are.
    fn results(&self) -> Results<'_> {
        let Self { actions, store, .. } = *self;
        Results { actions, store, lane: self.lane(), function: self.toolchain.name.digest.function() }
    }

    /// The name space of its results.
    pub(crate) fn lane(&self) -> ActionLane {
        let lane = self.toolchain.lane().clone();
        let lane = if self.tier.is_whole() { lane } else { lane.weaker(self.tier.name()) };
        if self.command.cache.is_empty() { lane } else { lane.incremental() }
    }

    /// Names everything that the action is made of, without making it: equal names mean equal actions.
    pub(crate) fn static_name(&self) -> Descriptor {
        let function = self.toolchain.name.digest.function();
        // In the place of the input root stands what it would be made of. No action has this name: its root is no directory.
        let parts = format!("{STATIC_NAME} {} {}", self.toolchain.name, self.plan.name);
        self.step(Descriptor::of(function, parts.as_bytes())).encode().action.0
    }

    /// The outputs of the action that an equal step led to before, if all of them are here.
    pub(crate) fn remembered(&self, static_name: &Descriptor) -> Result<Option<Files>, BuildError> {
        if let Some(entry) = self.complete.get(static_name) {
            #[cfg(debug_assertions)]
            self.check_static_name(&entry.action)?;
            let package = self.package().cloned();
            return Ok(Some(Files::encoded(entry, package, self.output_paths(), self.taints())));
        }
        let known = self.store.memo(STATIC_NAME, static_name.to_string().as_bytes())?;
        let key = known.and_then(|value| std::str::from_utf8(&value).ok()?.parse::<Descriptor>().ok());
        let Some(key) = key else { return Ok(None) };
        let Some(whole) = self.results().find(&key)? else { return Ok(None) };
        #[cfg(debug_assertions)]
        self.check_static_name(&key)?;
        self.found(static_name, key, &whole).map(Some)
    }

    /// The outputs of a result, which is noted as complete.
    fn found(&self, static_name: &Descriptor, action: Descriptor, whole: &Whole) -> Result<Files, BuildError> {
        let files = self.files(action, &whole.outputs)?;
        self.complete.add(*static_name, action, files.name, whole);
        Ok(files)
    }

    /// Every build of the tests is a proof that the static name leaves nothing out.
    #[cfg(debug_assertions)]
    fn check_static_name(&self, key: &Descriptor) -> Result<(), BuildError> {
        let root = self.step_root()?;
        let inputs = self.sources.of_step(self.command, self.given, &self.plan)?;
        let actual = self.encode(&root, &inputs)?.0.action.0;
        assert_eq!(actual, *key, "the static name of `{}` leaves something out", self.label);
        Ok(())
    }

    /// The outputs of the step as it is, if they are there; else what it is made of.
    pub(crate) fn look(&self, static_name: &Descriptor) -> Result<Files, BuildError> {
        if let Some(files) = self.remembered(static_name)? {
            return Ok(files);
        }
        let inputs = self.sources.of_step(self.command, self.given, &self.plan)?;
        let trace = Box::new(self.trace(&inputs)?);
        Err(BuildError::WouldRun { label: self.label.to_string(), trace })
    }

    /// What it is made of, in words.
    fn trace(&self, inputs: &Inputs) -> Result<Trace, BuildError> {
        let mut trace = self.own_trace(&inputs.picked)?;
        self.sources.trace_needs(&mut trace, self.given)?;
        Ok(trace)
    }

    /// The same without what it depends on, of these files.
    pub(crate) fn own_trace(&self, picked: &Picked) -> Result<Trace, BuildError> {
        let mut trace = Trace::default();
        trace.add("rules", "", STATIC_NAME);
        trace.add("toolchain", self.root, self.toolchain.name.to_string());
        if let Some(identity) = self.toolchain.host_identity() {
            trace.add("host", self.root, identity);
        }
        if !self.tier.is_whole() {
            trace.add("sandbox", "", self.tier.name());
        }
        trace.add("run", "", serde_json::json!(self.arguments()).to_string());
        trace.add("timeout", "", format!("{} s", self.command.timeout.as_secs()));
        if let Some(count) = self.command.cpus {
            trace.add("cpus", "", count.to_string());
        }
        if !self.command.aslr {
            trace.add("aslr", "", "off");
        }
        for (name, value) in self.environment() {
            trace.add("env", name, value);
        }
        for name in &self.command.secrets {
            trace.add("secret", name.to_string(), "");
        }
        for path in &self.command.cache {
            trace.add("cache", path.to_string(), "");
        }
        for path in &self.command.scratch {
            trace.add("scratch", path.to_string(), "");
        }
        for output in &self.command.outputs {
            trace.add("output", output.value.to_string(), "");
        }
        trace.extend(Trace::clone(&*self.sources.listed(picked)?));
        Ok(trace)
    }

    fn keep_trace(&self, static_name: &Descriptor, inputs: &Inputs) -> Result<(), BuildError> {
        let trace = self.trace(inputs)?.to_text();
        let blob = self.store.put_bytes(static_name.digest.function(), trace.as_bytes())?;
        Ok(self.store.put_memo(TRACE_MEMO, static_name.to_string().as_bytes(), blob.to_string().as_bytes())?)
    }

    /// Whether it runs although its outputs are known.
    fn runs_anyway(&self) -> bool {
        self.check_repeat || self.trial.is_some_and(|trial| trial.trials.rerun)
    }

    /// The outputs, from the cache or by running.
    pub(crate) fn run(&self, static_name: &Descriptor) -> Result<(Files, Origin), BuildError> {
        if !self.runs_anyway()
            && let Some(files) = self.remembered(static_name)?
        {
            return Ok((files, Origin::Cached));
        }
        self.check_tier()?;
        let function = self.toolchain.name.digest.function();
        let root = self.step_root()?;
        let inputs = self.sources.of_step(self.command, self.given, &self.plan)?;
        let (encoded, input_root) = self.encode(&root, &inputs)?;
        let key = encoded.action.0;
        self.store.put_memo(STATIC_NAME, static_name.to_string().as_bytes(), key.to_string().as_bytes())?;
        let results = self.results();
        // Another target or another process may be at it: then its result is waited for. Shares of the machine are taken
        // afterwards, so that whoever waits here holds none.
        let is_cancelled = || self.cancel.is_cancelled();
        let work = self.store.work_on(&key, &is_cancelled)?.ok_or(BuildError::Interrupted)?;
        let known = results.find_or_forget(&key)?;
        if let Some(outputs) = &known
            && !self.runs_anyway()
        {
            self.keep_trace(static_name, &inputs)?;
            return Ok((self.found(static_name, key, outputs)?, Origin::Cached));
        }
        self.sources.keep(&inputs.picked)?;
        let keep_action = || -> Result<(), BuildError> {
            self.keep_trace(static_name, &inputs)?;
            root.keep(self.store)?;
            keep(self.store, &input_root)?;
            for (_, bytes) in [&encoded.action, &encoded.command] {
                self.store.put_bytes(function, bytes)?;
            }
            Ok(())
        };
        let not_removed = Mutex::new(None);
        let done = std::thread::scope(|scope| -> Result<_, BuildError> {
            // The step does not wait for what is kept about it, nor what comes next for its scratch folders to be gone.
            let keeping = scope.spawn(keep_action);
            let discard = |scratch: PathBuf| {
                let not_removed = &not_removed;
                scope.spawn(move || {
                    if let Err(error) = cas_fs::remove_tree(&scratch) {
                        not_removed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                    }
                });
            };
            let (executed, failure_count) = self.executed(&root, &inputs, &key, known, &discard)?;
            keeping.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            self.recorded(static_name, key, executed, failure_count)
        })?;
        drop(work);
        match not_removed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error.into()),
            None => Ok(done),
        }
    }

    /// What the step gives when it runs, as often as it has to, and how often it failed before.
    fn executed(
        &self,
        root: &StepRoot,
        inputs: &Inputs,
        key: &Descriptor,
        known: Option<Whole>,
        discard: &dyn Fn(PathBuf),
    ) -> Result<(Executed, u32), BuildError> {
        let is_cancelled = || self.cancel.is_cancelled();
        let _share = self.resources.take(Amount::of(self.command), &is_cancelled).ok_or(BuildError::Interrupted)?;
        let run = || self.execute(root, inputs, key, discard);
        let (executed, failure_count) = self.tried(known.is_some(), &run)?;
        if self.check_repeat {
            let before = match known {
                Some(known) => known.outputs,
                None => run()?.0,
            };
            if let Some(paths) = differing_paths(&before, &executed.0) {
                return Err(BuildError::NotRepeatable { label: self.label.to_string(), paths });
            }
        }
        Ok((executed, failure_count))
    }

    /// Makes what the step gave its result, unless it failed first.
    fn recorded(
        &self,
        static_name: &Descriptor,
        key: Descriptor,
        (in_package, elapsed, log): Executed,
        failure_count: u32,
    ) -> Result<(Files, Origin), BuildError> {
        if failure_count > 0 {
            // That it passes is as true as that it fails: whoever asks next finds out again.
            return Ok((self.files(key, &in_package)?, Origin::Ran { elapsed, log, failure_count }));
        }
        let paths: Vec<RelPath> = self.command.outputs.iter().map(|output| output.value.clone()).collect();
        let failed = |source| BuildError::Unportable { label: self.label.to_string(), source };
        let result = encode_result(&in_package, &paths, key.digest.function()).map_err(failed)?;
        let (whole, differing) = self.results().record(&key, &in_package, &result)?;
        if let Some(paths) = &differing {
            self.observer.event(Event::Differs { label: self.label, paths });
        }
        Ok((self.found(static_name, key, &whole)?, Origin::Ran { elapsed, log, failure_count }))
    }

    pub(crate) fn files(&self, action: Descriptor, outputs: &Directory) -> Result<Files, BuildError> {
        let tree = in_place(self.package(), outputs)?;
        let name = tree.encode(self.toolchain.name.digest.function()).map_err(cas_store::StoreError::from)?.root;
        Ok(Files::new(tree, name, action, self.output_paths(), self.taints()))
    }

    /// What it is made with beside its inputs.
    pub(crate) fn taints(&self) -> Taints {
        let mut taints = self.given.taints();
        taints.extend(&self.toolchain.taints);
        if self.toolchain.host_parts().is_some() {
            taints.hosts.insert(self.root.to_owned());
        }
        if !self.tier.is_whole() {
            taints.sandboxes.insert(self.tier.name().to_owned());
        }
        if !self.command.cache.is_empty() {
            taints.incremental.insert(self.label.to_string());
        }
        taints
    }

    pub(crate) fn output_paths(&self) -> Vec<RelPath> {
        self.command.outputs.iter().map(|output| in_package(self.package(), &output.value)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key does not tell, because the sources are merged over what the root has there.
    #[test]
    fn a_root_with_a_link_in_the_place_of_the_sources_is_refused() {
        let function = DigestFunction::Blake3;
        let with = |name: &str, node: Node| {
            let mut tree = Directory::root();
            let path = RelPath::new(name).expect("it is a path");
            tree.insert(&path, node, &Metadata::root_owned(0o755)).expect("the tree is empty");
            StepRoot::new("//:root", &tree, function)
        };
        let folder = || Node::Directory(Arc::new(Directory::new(Metadata::root_owned(0o755))));
        for name in PLACES {
            assert!(with(name, folder()).is_ok());
            let refused = with(name, Node::symlink(&b"usr"[..])).expect_err("it would lead elsewhere");
            assert!(
                matches!(refused, BuildError::Sandbox(SandboxError::MountPoint { path }) if path == Path::new("/").join(name))
            );
        }
        assert!(with("srv", Node::symlink(&b"usr"[..])).is_ok());
    }
}
