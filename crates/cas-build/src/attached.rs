//! A step with the streams of whoever asked for it: it finds what it finds in a build, and nothing of it is kept.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use cas_config::{Command, Label};
use cas_sandbox::{Ending, Limits, Outcome, Streams};
use cas_tree::Directory;

use crate::builder::{Aim, Builder};
use crate::graph::{Graph, TargetId};
use crate::inputs::Inputs;
use crate::step::{Job, StepRoot};
use crate::trial::with_arguments;
use crate::world::Place;
use crate::{BuildError, Files};

/// What to run of a target, and how.
#[derive(Debug)]
pub struct Program {
    /// What runs in the place of its command; `None` for that itself.
    pub instead: Option<Vec<String>>,
    /// Arguments behind those of its command, or of what is in its place.
    pub arguments: Vec<String>,
    /// Variables over those of its section.
    pub env: BTreeMap<String, String>,
    /// Where its streams go.
    pub streams: Streams,
}

/// The step that is run.
#[derive(Debug)]
pub(crate) struct Attached {
    pub(crate) target: TargetId,
    instead: Option<Vec<String>>,
    arguments: Vec<String>,
    env: BTreeMap<String, String>,
    streams: Mutex<Option<Streams>>,
    ending: Mutex<Option<Ending>>,
}

impl Builder<'_> {
    /// Runs the command of a command, a test or a program for the sandbox, without a limit of time. What it needs is built
    /// first; what it writes is gone afterwards.
    ///
    /// # Errors
    ///
    /// As for [`Builder::build`], and the failures of targets that it needs; [`BuildError::Role`] for another kind of target.
    pub fn run(&self, label: &Label, program: Program) -> Result<Ending, BuildError> {
        let graph = Graph::new(self.workspace, std::slice::from_ref(label))?;
        let target = graph.find(label).ok_or_else(|| self.workspace.unknown(label))?;
        let snapshot = self.snapshot(&graph)?;
        let (lock, steps) = (Mutex::new(self.workspace.lock.clone()), Mutex::new(Vec::new()));
        let Program { instead, arguments, env, streams } = program;
        let attached =
            Attached { target, instead, arguments, env, streams: Mutex::new(Some(streams)), ending: Mutex::default() };
        let asked = BTreeSet::new();
        let finished = self.go(&graph, snapshot.as_ref(), &asked, &lock, &steps, Aim::Attached(&attached));
        if let Some(snapshot) = &snapshot {
            // What cannot be written down is read again next time.
            let _ = snapshot.save();
        }
        let ending = attached.ending.into_inner().unwrap_or_else(PoisonError::into_inner);
        match (ending, finished.errors.into_iter().next()) {
            (_, Some((_, error))) => Err(error),
            (Some(ending), None) => Ok(ending),
            (None, None) if self.cancel.is_cancelled() => Err(BuildError::Interrupted),
            (None, None) => {
                let kind = graph.target(target).kind.name();
                Err(BuildError::Role { label: label.to_string(), kind, role: "run" })
            }
        }
    }
}

impl Attached {
    /// The command of the target with what is added to it.
    pub(crate) fn command(&self, command: &Command) -> Command {
        let mut longer = match &self.instead {
            Some(instead) => {
                let run = cas_config::Program::Arguments(instead.clone());
                with_arguments(&Command { run, ..command.clone() }, &self.arguments)
            }
            None => with_arguments(command, &self.arguments),
        };
        longer.env_in.retain(|name| !self.env.contains_key(&**name));
        longer.env.extend(self.env.clone());
        longer
    }
}

impl Job<'_> {
    /// Runs the step with the streams that were handed over; it gives nothing.
    pub(crate) fn run_attached(&self, attached: &Attached) -> Result<Files, BuildError> {
        let streams = attached.streams.lock().unwrap_or_else(PoisonError::into_inner).take();
        let streams = streams.expect("a target is built once");
        self.check_tier()?;
        let root = self.step_root()?;
        let inputs = self.sources.of_step(self.command, self.given, &self.plan)?;
        self.sources.keep(&inputs.picked)?;
        let scratch = cas_fs::temporary_dir_in(self.store.scratch(), "run-")?;
        let outcome = self.run_in(&root, &inputs, &scratch, streams);
        let removed = cas_fs::remove_tree(&scratch);
        let ending = outcome?.ending;
        removed?;
        *attached.ending.lock().unwrap_or_else(PoisonError::into_inner) = Some(ending);
        self.files(self.toolchain.name, &Directory::root())
    }

    fn run_in(
        &self,
        root: &StepRoot,
        inputs: &Inputs,
        scratch: &Path,
        streams: Streams,
    ) -> Result<Outcome, BuildError> {
        let secrets = self.secrets.values(&self.label.to_string(), &self.command.secrets, self.variables)?;
        let kept = self.kept_folders(scratch)?;
        let private = kept.private(self.package(), &self.command.cache)?;
        let mut world = match self.tier.is_whole() {
            true => self.sandbox(root, inputs, scratch, secrets, private)?.into(),
            false => self.plain(inputs, Place::Once(scratch.join("plain")), private)?,
        };
        // Whoever runs it ends it.
        world.set_limits(None, Limits::default());
        let processors = self.resources.processors(self.command.cpus);
        world.set_processors(processors.numbers());
        let outcome = world.run(self.runner, streams, self.cancel).map_err(|error| self.not_run(error))?;
        kept.settle(&outcome.ending)?;
        Ok(outcome)
    }
}
