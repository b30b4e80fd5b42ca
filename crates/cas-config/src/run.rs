//! `[run.NAME]`: programs that people start, such as servers for development. Nothing is built of them.

use toml::Spanned;

use crate::check::Checker;
use crate::diagnostic::Diagnostic;
use crate::raw;
use crate::step::{Command, Defaults};

/// `[run.NAME]`
#[derive(Clone, Debug)]
pub struct Run {
    /// What it runs, and with what. It has no toolchain when it is live.
    pub command: Command,
    /// Whether it runs in the workspace itself, with the user's programs, and not in the sandbox.
    pub is_live: bool,
}

impl Checker {
    /// A `[run.NAME]` with what `[defaults]` say for it.
    pub(crate) fn run_section(
        &mut self,
        name: &raw::Text,
        section: Spanned<raw::RunSection>,
        defaults: &Defaults,
    ) -> Option<Run> {
        let span = section.span();
        let raw::RunSection { toolchain, run, deps, env, env_in, live } = section.into_inner();
        let is_live = live.unwrap_or(true);
        if let Some(toolchain) = toolchain.as_ref().filter(|_| is_live) {
            let finding = Diagnostic::new("`toolchain` is for programs that run in the sandbox", toolchain.span());
            self.report(
                finding.with_hint("write `live = false`, or remove it: a live program runs with the user's own"),
            );
        }
        let step = raw::Step { toolchain, run, deps, env, env_in, ..raw::Step::default() };
        let command = self.command(name, Spanned::new(span, step), defaults.run(is_live))?;
        Some(Run { command, is_live })
    }
}

#[cfg(test)]
mod tests {
    use crate::manifest::{Manifest, TargetKind};
    use crate::step::Program;

    use super::*;

    fn parse(text: &str) -> Result<Run, Vec<Diagnostic>> {
        let text = format!("[workspace]\n[defaults]\ntoolchain = \":t\"\nenv = {{ A = \"1\" }}\n{text}");
        match &Manifest::parse(&text)?.targets["dev"].kind {
            TargetKind::Run(run) => Ok(run.clone()),
            other => panic!("it is a {}", other.name()),
        }
    }

    #[test]
    fn a_live_program_has_no_toolchain_and_another_one_needs_it() {
        let live = parse("[run.dev]\nrun = \"vite\"\ndeps = [\"^build\"]\nenv = { B = \"2\" }").expect("it is right");
        assert!(live.is_live && live.command.toolchains.is_empty());
        assert_eq!((live.command.env.len(), live.command.deps.len()), (2, 1));
        let boxed = parse("[run.dev]\nrun = [\"node\", \"x\"]\nlive = false").expect("it is right");
        assert!(!boxed.is_live && boxed.command.toolchains.len() == 1, "the one of the defaults");
        assert_eq!(boxed.command.run, Program::Arguments(vec!["node".to_owned(), "x".to_owned()]));
        for (text, message) in [
            ("[run.dev]", "`run` is missing"),
            ("[run.dev]\nrun = \"x\"\ntoolchain = \":u\"", "`toolchain` is for programs that run in the sandbox"),
            ("[run.dev]\nrun = \"x\"\noutputs = [\"y\"]", "unknown key `outputs`"),
            ("[run.dev]\nrun = \"x\"\n[test.dev]\nrun = \"x\"", "`dev` is the name of a test and of a run"),
        ] {
            assert_eq!(parse(text).expect_err("it is wrong")[0].message, message, "{text}");
        }
    }
}
