//! Running a step: its world, what it prints, what it leaves. Rules: docs/formats/step.md.
//!
//! Not here: whether it has to run at all, and what becomes of its outputs (`step`).

use std::path::{Path, PathBuf};
use std::time::Duration;

use cas_blob::Descriptor;
use cas_sandbox::{Ending, Outcome, Overlay, Private, Runner, Secret, Spec, Streams};
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

/// A step that failed within this time runs once more, to see what it looked for.
const MAX_SECOND_RUN: Duration = Duration::from_secs(20);
/// Each look for a file takes several times as long then.
const SECOND_RUN_FACTOR: u32 = 5;

impl Job<'_> {
    /// Runs the step; the tree that it gave is that of its package.
    pub(crate) fn execute(&self, root: &StepRoot, inputs: &Inputs, key: &Descriptor) -> Result<Executed, BuildError> {
        let scratch = cas_fs::temporary_dir_in(self.store.scratch(), "step-")?;
        let result = self.execute_in(root, inputs, key, &scratch);
        let removed = cas_fs::remove_tree(&scratch);
        let (outputs, elapsed, log) = result?;
        removed?;
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
        let processors = self.resources.processors(self.command.cpus);
        let mut spec = self.world(root, inputs, scratch, secrets.clone(), private)?;
        spec.processors = processors.numbers();
        let (recorder, stdout) = Recorder::start(&scratch.join("log"), finder.clone())?;
        let stderr = stdout.try_clone().map_err(BuildError::Log)?;
        let outcome = Runner::this_program().run(&spec, Streams::new(stdout, stderr), self.cancel);
        drop(processors);
        let logs = self.store.logs();
        cas_fs::create_dir_all(&logs)?;
        let log = recorder.finish(&logs.join(format!("{}.log", key.digest.to_hex())))?;
        let outcome = outcome.map_err(|error| match error {
            cas_sandbox::SandboxError::Start(source) => {
                BuildError::NotStarted { label: self.label.to_string(), source }
            }
            other => other.into(),
        })?;
        kept.settle(&outcome.ending)?;
        if let Some(how) = failure(&outcome.ending, &spec)? {
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
        let upper = spec.source.as_ref().expect("a step has sources").upper();
        let tree = capture::outputs(self.store, key.digest.function(), &allowed, &inputs.tree, &upper)?;
        Ok((tree, outcome.elapsed, log))
    }

    /// What the command will see, with what it writes below `scratch`.
    pub(crate) fn world(
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
            timeout: Some(self.command.timeout),
            limits: limits::of(self.command, self.resources),
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
        if !matches!(first.ending, Ending::Exited(_)) || first.elapsed > MAX_SECOND_RUN || is_tried_again {
            return Ok(Vec::new());
        }
        let scratch = scratch.join("watched");
        cas_fs::create_dir(&scratch)?;
        let private = Kept::Once(scratch.join("cache")).private(self.package(), &self.command.cache)?;
        let finder = Finder::new(&secrets);
        let mut spec = self.world(root, inputs, &scratch, secrets, private)?;
        let longest = MAX_SECOND_RUN.max(first.elapsed) * SECOND_RUN_FACTOR;
        spec.timeout = Some(self.command.timeout.min(longest));
        let processors = self.resources.processors(self.command.cpus);
        spec.processors = processors.numbers();
        let (recorder, stdout) = Recorder::start(&scratch.join("log"), finder)?;
        let stderr = stdout.try_clone().map_err(BuildError::Log)?;
        let outcome = Runner::this_program().run_watched(&spec, Streams::new(stdout, stderr), self.cancel);
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
