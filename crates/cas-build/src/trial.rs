//! Tests that were asked for: run although they passed, tried several times, given arguments. Rules: docs/formats/step.md.
//!
//! Not here: which targets those are (`builder`), and what is kept of a test that passed (`step`).

use std::time::Instant;

use cas_config::{Command, Program};

use crate::event::Event;
use crate::step::Job;
use crate::{BuildError, Log};

/// What a shell calls itself without a name: so it is the same with arguments and without.
const SHELL: &str = "/bin/sh";
/// Where a shell's text has its arguments.
const ALL_ARGUMENTS: [&str; 2] = ["$@", "${@"];

/// How the tests are run that were asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trials {
    /// Whether they run although an equal one passed before.
    pub rerun: bool,
    /// How often one that fails is run again.
    pub retry_count: u32,
    /// What is added to their commands.
    pub arguments: Vec<String>,
}

/// A test that was asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trial<'a> {
    pub(crate) trials: &'a Trials,
}

/// What a step gave that ran: its tree, how long it took, what it printed.
pub(crate) type Executed = (cas_tree::Directory, std::time::Duration, Log);

impl Job<'_> {
    /// Runs the step as often as it may be tried; returns with what it gave how often it failed before.
    ///
    /// `passed_before` tells that an equal one did.
    pub(crate) fn tried(
        &self,
        passed_before: bool,
        run: &dyn Fn() -> Result<Executed, BuildError>,
    ) -> Result<(Executed, u32), BuildError> {
        let Some(Trial { trials }) = self.trial else { return Ok((run()?, 0)) };
        let mut failure_count = 0;
        loop {
            let started = Instant::now();
            let error = match run() {
                Ok(done) => return Ok((done, failure_count)),
                Err(error) => error,
            };
            // Whatever else goes wrong is not the test's doing, or would go wrong again.
            if !matches!(error, BuildError::Step { .. }) {
                return Err(error);
            }
            let is_last = failure_count == trials.retry_count;
            let (label, elapsed) = (self.label, started.elapsed());
            self.observer.event(Event::Attempt { label, elapsed, error: &error, is_last, passed_before });
            if is_last {
                return Err(error);
            }
            failure_count += 1;
        }
    }
}

/// What runs for a program with arguments behind its own. The text of a shell has them in the place of `$@`, or at its end.
#[must_use]
pub fn command_line(program: &Program, arguments: &[String]) -> Vec<String> {
    let own = match program {
        Program::Arguments(own) => own.clone(),
        Program::Shell(text) if arguments.is_empty() => vec![SHELL.to_owned(), "-euc".to_owned(), text.clone()],
        Program::Shell(text) => {
            // A text that says itself where its arguments go is left as it is.
            let has_place = ALL_ARGUMENTS.iter().any(|place| text.contains(place));
            let text = if has_place { text.clone() } else { format!("{} \"$@\"", text.trim_end()) };
            vec![SHELL.to_owned(), "-euc".to_owned(), text, SHELL.to_owned()]
        }
    };
    [&own[..], arguments].concat()
}

/// A command with arguments behind its own.
pub(crate) fn with_arguments(command: &Command, arguments: &[String]) -> Command {
    Command { run: Program::Arguments(command_line(&command.run, arguments)), ..command.clone() }
}
