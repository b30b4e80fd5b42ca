//! Running a step: its world, what it prints, what it leaves. Rules: docs/formats/step.md.
//!
//! Not here: whether it has to run at all, and what becomes of its outputs (`step`).

use std::path::{Path, PathBuf};
use std::time::Duration;

use cas_blob::Descriptor;
use cas_sandbox::{Ending, Outcome, Overlay, Private, SandboxError, Secret, Spec, Streams, Tier};
use cas_tree::{Directory, RelPath};

use crate::BuildError;
use crate::capture::{self, Allowed};
use crate::inputs::{Inputs, in_package};
use crate::kept::Kept;
use crate::limits;
use crate::log::Recorder;
use crate::missed::{Missed, missed};
use crate::secret::Finder;
use crate::step::{Job, SOURCE, StepRoot, failure, for_sandbox};
use crate::trial::Executed;
use crate::world::{Place, PlainCommand, World};

/// A step that failed within this time runs once more, to see what it looked for.
const MAX_SECOND_RUN: Duration = Duration::from_secs(20);
/// Each look for a file takes several times as long then.
const SECOND_RUN_FACTOR: u32 = 5;

impl Job<'_> {
    /// Runs the step; the tree that it gave is that of its package. What is left of the run is handed to `discard`.
    pub(crate) fn execute(
        &self,
        root: &StepRoot,
        inputs: &Inputs,
        key: &Descriptor,
        discard: &dyn Fn(PathBuf),
    ) -> Result<Executed, BuildError> {
        let scratch = cas_fs::temporary_dir_in(self.store.scratch(), "step-")?;
        let result = self.execute_in(root, inputs, key, &scratch);
        discard(scratch);
        let (outputs, elapsed, log) = result?;
        let in_package = match self.package() {
            None => outputs,
            // Without outputs there is nothing at the package's path.
            Some(package) => outputs.subtree(package).unwrap_or_else(Directory::root),
        };
        Ok((in_package, elapsed, log))
    }

    fn execute_in(
        &self,
        root: &StepRoot,
        inputs: &Inputs,
        key: &Descriptor,
        scratch: &Path,
    ) -> Result<Executed, BuildError> {
        let secrets = self.secrets.values(&self.label.to_string(), &self.command.secrets, self.variables)?;
        let finder = Finder::new(&secrets);
        let kept = self.kept_folders(scratch)?;
        let private = kept.private(self.package(), &self.command.cache)?;
        let mut world = match self.tier.is_whole() {
            true => self.sandbox(root, inputs, scratch, secrets.clone(), private)?.into(),
            false => self.plain(inputs, self.place()?, private)?,
        };
        world.set_limits(Some(self.command.timeout), limits::of(self.command, self.resources));
        let processors = self.resources.processors(self.command.cpus);
        world.set_processors(processors.numbers());
        let (recorder, stdout) = Recorder::start(&scratch.join("log"), finder.clone())?;
        let stderr = stdout.try_clone().map_err(BuildError::Log)?;
        let outcome = world.run(self.runner, Streams::new(stdout, stderr), self.cancel);
        drop(processors);
        let logs = self.store.logs();
        cas_fs::create_dir_all(&logs)?;
        let log = recorder.finish(&logs.join(format!("{}.log", key.digest.to_hex())))?;
        let outcome = outcome.map_err(|error| self.not_run(error))?;
        kept.settle(&outcome.ending)?;
        if let Some(how) = failure(&outcome.ending, world.limits())? {
            // Why it failed stays the answer, whatever becomes of the second run.
            let missed = self.missed(root, inputs, scratch, secrets, &outcome).unwrap_or_default();
            return Err(BuildError::Step { label: self.label.to_string(), how, log: Box::new(log), missed });
        }
        let outputs = self.output_paths();
        let dropped: Vec<RelPath> = self.command.scratch.iter().map(|path| in_package(self.package(), path)).collect();
        let allowed = Allowed {
            label: self.label.to_string(),
            package: self.package(),
            outputs: &outputs,
            scratch: &dropped,
            secrets: finder.as_ref(),
        };
        let written = world.changes();
        let written = written.map_err(|source| BuildError::Capture { label: self.label.to_string(), source })?;
        let tree = capture::outputs(self.store, key.digest.function(), &allowed, &inputs.tree, &written)?;
        Ok((tree, outcome.elapsed, log))
    }

    /// Tells whose fault it is that nothing ran, where it is the step's or its root's.
    pub(crate) fn not_run(&self, error: BuildError) -> BuildError {
        let label = self.label.to_string();
        match error {
            BuildError::Sandbox(SandboxError::Start(source)) => BuildError::NotStarted { label, source },
            BuildError::Sandbox(SandboxError::MountPoint { path }) => {
                BuildError::RootShape { label, root: self.root.to_owned(), path }
            }
            other => other,
        }
    }

    /// Fails when the tier cannot give the step what it needs.
    pub(crate) fn check_tier(&self) -> Result<(), BuildError> {
        let (label, tier) = (self.label.to_string(), self.tier);
        if tier.is_whole() {
            return Ok(());
        }
        if self.toolchain.host_parts().is_none() {
            return Err(BuildError::RootNotEntered { label, root: self.root.to_owned(), tier });
        }
        match self.command.secrets.is_empty() {
            true => Ok(()),
            false => Err(BuildError::SecretsNotHeld { label, tier }),
        }
    }

    /// The folder of the step's plain runs, once no other process uses it.
    fn place(&self) -> Result<Place, BuildError> {
        let owner = format!("{}\n{}\nplain\n", self.sources.workspace.root.display(), self.label);
        let folder = self.store.private_folder(&owner, &|| self.cancel.is_cancelled())?;
        Ok(Place::OfStep(folder.ok_or(BuildError::Interrupted)?))
    }

    /// The host as what the command will see, with its inputs written out in a folder.
    pub(crate) fn plain(&self, inputs: &Inputs, place: Place, private: Vec<Private>) -> Result<World, BuildError> {
        let inside = self.package().map(|package| PathBuf::from(package.to_string())).unwrap_or_default();
        let write = |folder: &Path| Ok(self.store.write_tree(&inputs.tree, folder)?);
        let (command, environment) = (self.arguments(), for_sandbox(self.environment()));
        let parts = self.toolchain.host_parts().filter(|_| self.tier == Tier::Landlock);
        let confined_to = parts.map(|parts| parts.paths.clone());
        let aslr = self.command.aslr;
        let command = PlainCommand { command, environment, inside, private, confined_to, aslr };
        World::plain(&self.label.to_string(), place, command, write)
    }

    /// What the command will see, with what it writes below `scratch`.
    pub(crate) fn sandbox(
        &self,
        root: &StepRoot,
        inputs: &Inputs,
        scratch: &Path,
        secrets: Vec<Secret>,
        private: Vec<Private>,
    ) -> Result<Spec, BuildError> {
        let function = self.toolchain.name.digest.function();
        let mut lowers = vec![self.written.folder(self.store, &inputs.own, function)?];
        for (name, tree) in &inputs.shared {
            lowers.push(self.store.materialize(name, tree)?);
        }
        let mut working_directory = PathBuf::from("/").join(SOURCE);
        if let Some(package) = self.package() {
            working_directory.push(package.to_string());
        }
        let root = Overlay { lowers: vec![root.folder(self.store)?], scratch: scratch.join("root") };
        Ok(Spec {
            source: Some(Overlay { lowers, scratch: scratch.join("source") }),
            host_paths: self.toolchain.host_parts().map(|parts| parts.paths.clone()).unwrap_or_default(),
            secrets,
            private,
            environment: for_sandbox(self.environment()),
            working_directory,
            aslr: self.command.aslr,
            ..Spec::new(root, self.arguments())
        })
    }

    /// Runs a step that failed once more, watched, and tells what it looked for and was not given. Nothing of that run stays.
    fn missed(
        &self,
        root: &StepRoot,
        inputs: &Inputs,
        scratch: &Path,
        secrets: Vec<Secret>,
        first: &Outcome,
    ) -> Result<Vec<Missed>, BuildError> {
        // One that is tried several times may fail for other reasons.
        let is_tried_again = self.trial.is_some_and(|trial| trial.trials.retry_count > 0);
        if !self.tier.is_whole()
            || !matches!(first.ending, Ending::Exited(_))
            || first.elapsed > MAX_SECOND_RUN
            || is_tried_again
        {
            return Ok(Vec::new());
        }
        let scratch = scratch.join("watched");
        cas_fs::create_dir(&scratch)?;
        let private = Kept::Once(scratch.join("cache")).private(self.package(), &self.command.cache)?;
        let finder = Finder::new(&secrets);
        let mut spec = self.sandbox(root, inputs, &scratch, secrets, private)?;
        let longest = MAX_SECOND_RUN.max(first.elapsed) * SECOND_RUN_FACTOR;
        spec.limits = limits::of(self.command, self.resources);
        spec.timeout = Some(self.command.timeout.min(longest));
        let processors = self.resources.processors(self.command.cpus);
        spec.processors = processors.numbers();
        let (recorder, stdout) = Recorder::start(&scratch.join("log"), finder)?;
        let stderr = stdout.try_clone().map_err(BuildError::Log)?;
        let outcome = self.runner.run_watched(&spec, Streams::new(stdout, stderr), self.cancel);
        recorder.finish(&scratch.join("printed"))?;
        let (_, looked) = outcome?;
        Ok(missed(self.sources, self.given, self.command, &inputs.tree, &looked))
    }

    /// Where the folders are that stay. To see whether a step repeats, it gets empty ones.
    pub(crate) fn kept_folders(&self, scratch: &Path) -> Result<Kept, BuildError> {
        if self.command.cache.is_empty() {
            return Ok(Kept::Nothing);
        }
        if self.check_repeat {
            return Ok(Kept::Once(scratch.join("cache")));
        }
        let owner = format!("{}\n{}\n", self.sources.workspace.root.display(), self.label);
        let folder = self.store.private_folder(&owner, &|| self.cancel.is_cancelled())?;
        Ok(Kept::Stays(folder.ok_or(BuildError::Interrupted)?))
    }
}
