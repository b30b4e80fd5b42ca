//! Commands and tests: what a section says, what `[defaults]` say for it, and both together.
//!
//! A key of the target wins over that of its template (`[defaults.command.NAME]`), which wins over `[defaults]`. Variables
//! are joined one by one, lists are taken as they are.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::ops::Range;
use std::time::Duration;

use cas_tree::RelPath;
use toml::Spanned;

use crate::check::Checker;
use crate::diagnostic::Diagnostic;
use crate::label::Reference;
use crate::manifest::Located;
use crate::raw;
use crate::secret::token_in;

/// How long a step may take unless it says otherwise.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(600);
/// Longest list of toolchains.
const MAX_TOOLCHAINS: usize = 64;

/// `[command.NAME]` or `[test.NAME]`
#[derive(Clone, Debug)]
pub struct Command {
    /// The roots to run in, merged; at least one.
    pub toolchains: Vec<Located<Reference>>,
    /// What to run.
    pub run: Program,
    /// Whose outputs are inputs.
    pub deps: Vec<Located<Reference>>,
    /// Globs over the package's files; `None` for all of them.
    pub inputs: Option<Vec<String>>,
    /// Paths in the package that the step makes; none for a test.
    pub outputs: Vec<Located<RelPath>>,
    /// Paths in the package whose writes are dropped.
    pub scratch: Vec<RelPath>,
    /// Variables.
    pub env: BTreeMap<String, String>,
    /// Names of variables that are taken over from whoever builds, sorted.
    pub env_in: Vec<Box<str>>,
    /// Names of secrets that it may read, sorted. Their values are part of nothing.
    pub secrets: Vec<Box<str>>,
    /// Paths in the package that stay from one run to the next, for this target alone.
    pub cache: Vec<RelPath>,
    /// How long it may take.
    pub timeout: Duration,
    /// Memory that it is expected to need: steps run side by side as far as the machine has that much.
    pub memory_bytes: Option<u64>,
    /// Processors that it is given, and expected to use; `None` for one that it is expected to use and all that it may.
    pub cpus: Option<NonZeroU32>,
    /// Whether addresses are chosen at random when a program starts.
    pub aslr: bool,
}

/// What a step runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    /// Text for the toolchain's `/bin/sh -euc`.
    Shell(String),
    /// Program and arguments; not empty.
    Arguments(Vec<String>),
}

/// `[defaults]`: what steps need not say.
#[derive(Clone, Debug, Default)]
pub struct Defaults {
    every: Part,
    commands: BTreeMap<Box<str>, Part>,
    tests: BTreeMap<Box<str>, Part>,
}

/// What one place says of a step.
#[derive(Clone, Debug, Default)]
pub(crate) struct Part {
    toolchains: Option<Vec<Located<Reference>>>,
    run: Option<Program>,
    deps: Option<Vec<Located<Reference>>>,
    inputs: Option<Vec<String>>,
    outputs: Option<Vec<Located<RelPath>>>,
    scratch: Option<Vec<RelPath>>,
    cache: Option<Vec<Located<RelPath>>>,
    env: BTreeMap<String, String>,
    env_in: Vec<Box<str>>,
    secrets: BTreeMap<Box<str>, Range<usize>>,
    timeout: Option<Duration>,
    memory_bytes: Option<u64>,
    cpus: Option<NonZeroU32>,
    aslr: Option<bool>,
}

impl Part {
    /// This, with what it leaves open taken from `below`.
    fn over(self, below: &Self) -> Self {
        let mut env = below.env.clone();
        env.extend(self.env);
        let mut env_in = self.env_in;
        env_in.extend(below.env_in.iter().cloned());
        env_in.sort();
        env_in.dedup();
        let mut secrets = below.secrets.clone();
        secrets.extend(self.secrets);
        Self {
            toolchains: self.toolchains.or_else(|| below.toolchains.clone()),
            run: self.run.or_else(|| below.run.clone()),
            deps: self.deps.or_else(|| below.deps.clone()),
            inputs: self.inputs.or_else(|| below.inputs.clone()),
            outputs: self.outputs.or_else(|| below.outputs.clone()),
            scratch: self.scratch.or_else(|| below.scratch.clone()),
            cache: self.cache.or_else(|| below.cache.clone()),
            env,
            env_in,
            secrets,
            timeout: self.timeout.or(below.timeout),
            memory_bytes: self.memory_bytes.or(below.memory_bytes),
            cpus: self.cpus.or(below.cpus),
            aslr: self.aslr.or(below.aslr),
        }
    }
}

/// What `[defaults]` say for one step.
pub(crate) struct Template<'a> {
    kind: &'static str,
    own: Option<&'a Part>,
    every: &'a Part,
    /// Whether it has a root to run in.
    has_root: bool,
}

impl Defaults {
    pub(crate) fn command(&self, name: &str) -> Template<'_> {
        Template { kind: "command", own: self.commands.get(name), every: &self.every, has_root: true }
    }

    pub(crate) fn test(&self, name: &str) -> Template<'_> {
        Template { kind: "test", own: self.tests.get(name), every: &self.every, has_root: true }
    }

    pub(crate) fn run(&self, is_live: bool) -> Template<'_> {
        Template { kind: "run", own: None, every: &self.every, has_root: !is_live }
    }
}

impl Checker {
    pub(crate) fn defaults(&mut self, section: raw::Defaults) -> Defaults {
        let raw::Defaults { toolchain, scratch, env, env_in, timeout, memory, cpus, aslr, command, test } = section;
        // What these are good for is for one step to say.
        let (run, deps, inputs, outputs, cache, secrets) = (None, None, None, None, None, Vec::new());
        let every = raw::Step {
            toolchain,
            run,
            deps,
            inputs,
            outputs,
            scratch,
            cache,
            env,
            env_in,
            secrets,
            timeout,
            memory,
            cpus,
            aslr,
        };
        let every = self.part(every);
        let mut templates = |table: BTreeMap<raw::Text, Spanned<raw::Step>>| -> BTreeMap<Box<str>, Part> {
            table
                .into_iter()
                .map(|(name, section)| (name.into_inner().into(), self.part(section.into_inner())))
                .collect()
        };
        Defaults { every, commands: templates(command), tests: templates(test) }
    }

    /// A step with what `[defaults]` say for it.
    pub(crate) fn command(
        &mut self,
        name: &raw::Text,
        section: Spanned<raw::Step>,
        template: Template<'_>,
    ) -> Option<Command> {
        let findings_before = self.count();
        let mut part = self.part(section.into_inner());
        if let Some(own) = template.own {
            part = part.over(own);
        }
        let mut part = part.over(template.every);
        if !template.has_root {
            part.toolchains = Some(Vec::new());
        }
        let kind = template.kind;
        let mut missing = |key: &str| {
            let message = format!("`{key}` is missing");
            let hint = match kind {
                "run" => "write it here".to_owned(),
                _ => format!("write it here or in `[defaults.{kind}.{}]`", name.get_ref()),
            };
            self.report(Diagnostic::new(message, name.span()).with_hint(hint));
        };
        if part.toolchains.is_none() {
            missing("toolchain");
        }
        if part.run.is_none() {
            missing("run");
        }
        self.check_secrets(&part);
        self.check_cache(&part);
        if self.count() > findings_before {
            return None;
        }
        Some(Command {
            toolchains: part.toolchains?,
            run: part.run?,
            deps: part.deps.unwrap_or_default(),
            inputs: part.inputs,
            outputs: part.outputs.unwrap_or_default(),
            scratch: part.scratch.unwrap_or_default(),
            env: part.env,
            env_in: part.env_in,
            secrets: part.secrets.into_keys().collect(),
            cache: part.cache.unwrap_or_default().into_iter().map(|path| path.value).collect(),
            timeout: part.timeout.unwrap_or(DEFAULT_TIMEOUT),
            memory_bytes: part.memory_bytes,
            cpus: part.cpus,
            aslr: part.aslr.unwrap_or(true),
        })
    }

    /// A secret shows nowhere else: neither as a variable, nor in what stays.
    fn check_secrets(&mut self, part: &Part) {
        for (name, span) in &part.secrets {
            let is_variable = part.env.contains_key(&**name) || part.env_in.contains(name);
            if is_variable {
                let message = format!("`{name}` is a secret and a variable");
                let hint = "the step reads it from `/run/secrets`; remove it from `env` and `env_in`";
                self.report(Diagnostic::new(message, span.clone()).with_hint(hint));
            }
            if part.cache.as_ref().is_some_and(|paths| !paths.is_empty()) {
                let message = "a step with secrets has no `cache`, in which they could stay";
                self.report(Diagnostic::new(message, span.clone()).with_hint("use `scratch`, or part the step"));
                break;
            }
        }
    }

    fn check_cache(&mut self, part: &Part) {
        let cache = part.cache.as_deref().unwrap_or_default();
        let overlaps = |one: &RelPath, other: &RelPath| {
            one == other || one.strip_prefix(other).is_some() || other.strip_prefix(one).is_some()
        };
        for (position, path) in cache.iter().enumerate() {
            let outputs = part.outputs.iter().flatten().map(|output| ("output", &output.value));
            let others = cache[..position].iter().map(|other| ("other one", &other.value));
            if let Some((what, other)) = outputs.chain(others).find(|(_, other)| overlaps(&path.value, other)) {
                let message = format!("cache `{}` and the {what} `{other}` overlap", path.value);
                self.report(Diagnostic::new(message, path.span.clone()));
            }
        }
    }

    fn part(&mut self, section: raw::Step) -> Part {
        let run = section.run.map(|run| self.program(run));
        let toolchains = section.toolchain.map(|toolchain| {
            let span = toolchain.span();
            let texts = toolchain.into_inner().into_vec();
            if texts.is_empty() || texts.len() > MAX_TOOLCHAINS {
                let message = format!("`toolchain` names {} roots", texts.len());
                let hint = format!("name at least one and at most {MAX_TOOLCHAINS}");
                self.report(Diagnostic::new(message, span.clone()).with_hint(hint));
            }
            texts.iter().filter_map(|text| self.one_reference(text, span.clone())).collect()
        });
        let deps = section.deps.map(|deps| deps.iter().filter_map(|text| self.located(text)).collect());
        let outputs = section.outputs.map(|outputs| self.outputs(&outputs));
        let scratch = section.scratch.map(|paths| paths.iter().filter_map(|text| self.path(text)).collect());
        let cache = section.cache.map(|paths| {
            let located = |text: &raw::Text| Some(Located { value: self.path(text)?, span: text.span() });
            paths.iter().filter_map(located).collect()
        });
        let secrets = section.secrets.iter().filter_map(|name| self.secret(name)).collect();
        let env = self.environment(section.env);
        let mut env_in: Vec<Box<str>> = Vec::new();
        for name in section.env_in {
            self.variable(&name);
            if name.get_ref().contains(char::is_whitespace) {
                self.report(Diagnostic::new(format!("`{}` is not a variable", name.get_ref()), name.span()));
            }
            env_in.push(name.into_inner().into());
        }
        Part {
            toolchains,
            run,
            deps,
            inputs: section.inputs,
            outputs,
            scratch,
            cache,
            env,
            env_in,
            secrets,
            timeout: section.timeout.map(|text| self.timeout(&text)),
            memory_bytes: section.memory.and_then(|text| self.memory(&text)),
            cpus: section.cpus.and_then(|count| {
                let number = NonZeroU32::new(*count.get_ref());
                if number.is_none() {
                    self.report(Diagnostic::new("a step uses at least one processor", count.span()));
                }
                number
            }),
            aslr: section.aslr,
        }
    }

    fn program(&mut self, run: Spanned<raw::Run>) -> Program {
        let span = run.span();
        let run = match run.into_inner() {
            raw::Run::Shell(text) => Program::Shell(text),
            raw::Run::Program(arguments) => Program::Arguments(arguments),
        };
        let is_empty = match &run {
            Program::Shell(text) => text.trim().is_empty(),
            Program::Arguments(arguments) => arguments.first().is_none_or(String::is_empty),
        };
        if is_empty {
            self.report(Diagnostic::new("`run` is empty", span));
        }
        run
    }

    fn outputs(&mut self, texts: &[raw::Text]) -> Vec<Located<RelPath>> {
        let mut outputs: Vec<Located<RelPath>> = Vec::new();
        for text in texts {
            let Some(value) = self.path(text) else { continue };
            if text.get_ref().contains('*') {
                let finding =
                    Diagnostic::new(format!("`{}` is a glob, and outputs are paths", text.get_ref()), text.span());
                self.report(finding.with_hint("name the folder, or each file"));
            }
            let overlaps = |other: &Located<RelPath>| {
                value == other.value
                    || value.strip_prefix(&other.value).is_some()
                    || other.value.strip_prefix(&value).is_some()
            };
            if let Some(other) = outputs.iter().find(|other| overlaps(other)) {
                let message = format!("outputs `{}` and `{value}` overlap", other.value);
                self.report(Diagnostic::new(message, text.span()));
            }
            outputs.push(Located { value, span: text.span() });
        }
        outputs
    }

    pub(crate) fn environment(&mut self, env: BTreeMap<raw::Text, String>) -> BTreeMap<String, String> {
        env.into_iter()
            .map(|(name, value)| {
                self.variable(&name);
                if value.contains('\0') {
                    let message = format!("the value of `{}` has a NUL byte", name.get_ref());
                    self.report(Diagnostic::new(message, name.span()));
                }
                if let Some(kind) = token_in(&value) {
                    let message = format!("the value of `{}` looks like {kind}", name.get_ref());
                    let hint = "what `env` says is part of keys and is kept in plain text: remove it from the file, make it invalid where it was issued, and pass a new one with `secrets`";
                    self.report(Diagnostic::new(message, name.span()).with_hint(hint));
                }
                (name.into_inner(), value)
            })
            .collect()
    }

    fn variable(&mut self, name: &raw::Text) {
        if name.get_ref().is_empty() || name.get_ref().contains(['=', '\0']) {
            self.report(Diagnostic::new(format!("`{}` is not a variable", name.get_ref()), name.span()));
        }
    }

    /// Names are those of variables, because that is where values come from, and of files.
    fn secret(&mut self, name: &raw::Text) -> Option<(Box<str>, Range<usize>)> {
        let text = name.get_ref().as_str();
        let is_name = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            && text.bytes().next().is_some_and(|first| !first.is_ascii_digit());
        if is_name {
            return Some((text.into(), name.span()));
        }
        let finding = Diagnostic::new(format!("`{text}` is not a name of a secret"), name.span());
        self.report(finding.with_hint("use letters, digits and `_`, as in `NPM_TOKEN`"));
        None
    }

    pub(crate) fn timeout(&mut self, text: &raw::Text) -> Duration {
        let parsed = with_unit(text.get_ref(), &[("s", 1), ("m", 60), ("h", 3600)]);
        parsed.map_or_else(
            || {
                let finding = Diagnostic::new(format!("`{}` is not a time", text.get_ref()), text.span());
                self.report(finding.with_hint("write `90s`, `10m` or `2h`"));
                DEFAULT_TIMEOUT
            },
            Duration::from_secs,
        )
    }

    fn memory(&mut self, text: &raw::Text) -> Option<u64> {
        let parsed = with_unit(text.get_ref(), &[("MiB", 1 << 20), ("GiB", 1 << 30)]);
        if parsed.is_none() {
            let finding = Diagnostic::new(format!("`{}` is not an amount of memory", text.get_ref()), text.span());
            self.report(finding.with_hint("write `512MiB` or `2GiB`"));
        }
        parsed
    }
}

/// A whole number with one of the units; `None` for zero and for what is too large.
pub(crate) fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let (number, factor) =
        units.iter().find_map(|(unit, factor)| text.strip_suffix(unit).map(|number| (number, *factor)))?;
    number.bytes().all(|byte| byte.is_ascii_digit()).then_some(())?;
    number.parse::<u64>().ok()?.checked_mul(factor).filter(|value| *value > 0)
}

#[cfg(test)]
mod tests {
    use crate::manifest::{Manifest, TargetKind};

    use super::*;

    const ROOT: &str = r#"
[workspace]
members = ["libs/*"]
[defaults]
toolchain = ["//:node", ":tools"]
env = { A = "root", B = "root" }
env_in = ["CHANNEL"]
cpus = 2
[defaults.command.build]
run = "npm run build"
deps = ["^build"]
outputs = ["dist"]
env = { B = "template", C = "template" }
memory = "1GiB"
[command.own]
run = "true"
"#;

    fn step(manifest: &Manifest, name: &str) -> Command {
        match &manifest.targets[name].kind {
            TargetKind::Command(command) | TargetKind::Test(command) => command.clone(),
            other => panic!("{name} is a {}", other.name()),
        }
    }

    #[test]
    fn a_target_wins_over_its_template_and_that_over_what_holds_for_all() {
        let root = Manifest::parse(ROOT).expect("it is right");
        assert_eq!(step(&root, "own").toolchains.len(), 2, "the root itself has them too");
        let member = "[command.build]\nenv = { C = \"own\" }\nenv_in = [\"ALPHA\"]\n[test.unit]\nrun = \"x\"\ntoolchain = \":t\"";
        let member = Manifest::parse_member(member, &root.defaults).expect("it is right");
        let build = step(&member, "build");
        assert_eq!(build.run, Program::Shell("npm run build".to_owned()));
        assert_eq!((build.outputs.len(), build.deps.len(), build.toolchains.len()), (1, 1, 2));
        let env: Vec<(&str, &str)> = build.env.iter().map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!(env, [("A", "root"), ("B", "template"), ("C", "own")]);
        assert_eq!(build.env_in, ["ALPHA".into(), "CHANNEL".into()] as [Box<str>; 2]);
        assert_eq!((build.memory_bytes, build.cpus), (Some(1 << 30), NonZeroU32::new(2)));
        // A test has no template here: of a command's it takes nothing.
        let unit = step(&member, "unit");
        assert_eq!((unit.outputs.len(), unit.toolchains.len(), unit.memory_bytes), (0, 1, None));
    }

    #[test]
    fn mistakes_have_their_place() {
        let root = Manifest::parse(ROOT).expect("it is right");
        for (text, place, message) in [
            ("[command.x]", "x", "`run` is missing"),
            ("[command.build]\nmemory = \"1G\"", "\"1G\"", "`1G` is not an amount of memory"),
            (
                "[command.build]\nmemory = \"99999999999999GiB\"",
                "\"99999999999999GiB\"",
                "`99999999999999GiB` is not an amount of memory",
            ),
            ("[command.build]\ncpus = 0", "0", "a step uses at least one processor"),
            ("[command.build]\ntoolchain = []", "[]", "`toolchain` names 0 roots"),
            ("[command.build]\nenv_in = [\"A=B\"]", "\"A=B\"", "`A=B` is not a variable"),
            ("[command.build]\noutputs = [\"o*\"]", "\"o*\"", "`o*` is a glob, and outputs are paths"),
            ("[command.build]\nenv_in = [\"A B\"]", "\"A B\"", "`A B` is not a variable"),
            ("[command.build]\nsecrets = [\"A-B\"]", "\"A-B\"", "`A-B` is not a name of a secret"),
            ("[command.build]\nsecrets = [\"CHANNEL\"]", "\"CHANNEL\"", "`CHANNEL` is a secret and a variable"),
            (
                "[command.build]\nsecrets = [\"TOKEN\"]\ncache = [\"target\"]",
                "\"TOKEN\"",
                "a step with secrets has no `cache`, in which they could stay",
            ),
            ("[command.build]\ncache = [\"dist/x\"]", "\"dist/x\"", "cache `dist/x` and the output `dist` overlap"),
            ("[command.build]\ncache = [\"a\", \"a/b\"]", "\"a/b\"", "cache `a/b` and the other one `a` overlap"),
            ("[test.x]\nrun = \"x\"\noutputs = [\"a\"]", "\"a\"", "a test has no outputs"),
            ("[toolchain.x]", "[toolchain.x]", "a toolchain is one of `debian`, `image` and `host`"),
            ("[toolchain.x]\nhost = { paths = [\"/\"] }", "\"/\"", "the whole root of the machine cannot be shown"),
        ] {
            let findings = Manifest::parse_member(text, &root.defaults).expect_err("it is wrong");
            let at = findings[0].span.clone().map(|span| &text[span]).unwrap_or_default();
            assert_eq!((at, findings[0].message.as_str()), (place, message), "{text}");
        }
        let text = "[defaults]\ncpus = 1";
        let findings = Manifest::parse_member(text, &root.defaults).expect_err("only the root has defaults");
        assert_eq!(findings[0].message, "`[defaults]` is for the root of the workspace");
    }
}
