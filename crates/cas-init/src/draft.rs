//! What will be written, before it is text.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use cas_config::is_target_name;

use crate::host::{Host, Program, step_path};
use crate::javascript::run_script;
use crate::note::{Note, NoteKind, Place};

/// Most notes of one report; a broken description could give any number.
const MAX_NOTES: usize = 1_000;
/// Name of the toolchain that is this machine.
pub(crate) const HOST: &str = "host";

/// Where a sandbox has its own files (docs/formats/host.md).
const NEVER_SHOWN: [&str; 5] = ["/dev", "/proc", "/src", "/sys", "/tmp"];

/// Something in `deps`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Dep {
    /// `^name`
    Up(String),
    /// `:name`
    Own(String),
    /// `//folder:name`
    Full(String, String),
}

impl std::fmt::Display for Dep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Up(name) => write!(f, "^{name}"),
            Self::Own(name) => write!(f, ":{name}"),
            Self::Full(folder, name) => write!(f, "//{folder}:{name}"),
        }
    }
}

/// Which section a target is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Command,
    Test,
    /// A program that does not end: no step, run by `cas run`.
    Run,
}

/// `[command.NAME]`, `[test.NAME]` or `[run.NAME]`
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) kind: Kind,
    pub(crate) run: String,
    pub(crate) deps: Vec<Dep>,
    pub(crate) inputs: Option<Vec<String>>,
    pub(crate) outputs: Vec<String>,
    pub(crate) scratch: Vec<String>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) env_in: BTreeSet<String>,
    pub(crate) timeout: Option<&'static str>,
    /// Lines above it.
    pub(crate) comments: Vec<String>,
    /// Where it comes from.
    pub(crate) place: Option<Place>,
}

impl Target {
    pub(crate) fn new(kind: Kind, run: impl Into<String>) -> Self {
        Self {
            kind,
            run: run.into(),
            deps: Vec::new(),
            inputs: None,
            outputs: Vec::new(),
            scratch: Vec::new(),
            env: BTreeMap::new(),
            env_in: BTreeSet::new(),
            timeout: None,
            comments: Vec::new(),
            place: None,
        }
    }
}

/// One `cas.toml`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Section {
    /// Lines at its end.
    pub(crate) comments: Vec<String>,
    /// Lockfiles by the name of their fetch.
    pub(crate) fetches: BTreeMap<String, String>,
    /// In the order in which they are written.
    pub(crate) targets: Vec<(String, Target)>,
}

impl Section {
    pub(crate) fn has(&self, name: &str) -> bool {
        self.targets.iter().any(|(other, _)| other == name) || self.fetches.contains_key(name)
    }

    /// A name that no target has: the plain one, else with what it belongs to.
    pub(crate) fn free_name(&self, name: &str, of: &str) -> String {
        if self.has(name) { format!("{of}-{name}") } else { name.to_owned() }
    }
}

/// `[toolchain.host]`
#[derive(Clone, Debug, Default)]
pub(crate) struct HostToolchain {
    pub(crate) is_used: bool,
    pub(crate) paths: BTreeSet<String>,
    pub(crate) probes: Vec<String>,
}

/// Everything.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    pub(crate) members: Vec<String>,
    pub(crate) inputs: BTreeSet<String>,
    pub(crate) host: HostToolchain,
    /// By folder; the root is the empty one.
    pub(crate) sections: BTreeMap<String, Section>,
    pub(crate) notes: BTreeSet<Note>,
    /// Programs that the scripts of targets call, each with the package's folder and the script.
    pub(crate) called: BTreeMap<String, BTreeSet<(String, String)>>,
}

impl Draft {
    pub(crate) fn note(&mut self, kind: NoteKind, text: impl Into<String>) {
        self.note_at(kind, None, text);
    }

    pub(crate) fn note_at(&mut self, kind: NoteKind, place: Option<Place>, text: impl Into<String>) {
        if self.notes.len() < MAX_NOTES {
            self.notes.insert(Note { kind, place, text: text.into() });
        }
    }

    pub(crate) fn section(&mut self, folder: &str) -> &mut Section {
        self.sections.entry(folder.to_owned()).or_default()
    }

    /// Adds programs to the host toolchain; returns the variables that a step needs to find them.
    pub(crate) fn use_host(&mut self, host: &Host, names: &[&str]) -> BTreeMap<String, String> {
        let found: Vec<(String, Option<Program>)> =
            names.iter().map(|name| ((*name).to_owned(), host.find(name))).collect();
        self.use_programs(&found)
    }

    /// As [`Self::use_host`], for programs that were looked for already.
    pub(crate) fn use_programs(&mut self, programs: &[(String, Option<Program>)]) -> BTreeMap<String, String> {
        self.host.is_used = true;
        for (name, program) in programs {
            let Some(program) = program else {
                self.note(
                    NoteKind::Todo,
                    format!(
                        "`{name}` is not on this machine's PATH: install it, and see that `[toolchain.host]` shows it"
                    ),
                );
                let probe = version_probe(name, name);
                self.add_probe(probe);
                continue;
            };
            for path in &program.paths {
                self.show(path);
            }
            let probe = version_probe(name, &program.word(name));
            self.add_probe(probe);
        }
        let found: Vec<&Program> = programs.iter().filter_map(|(_, program)| program.as_ref()).collect();
        step_path(&found).map(|path| ("PATH".to_owned(), path)).into_iter().collect()
    }

    /// Adds a program to the host toolchain, for the targets of some scripts: by the folders of the packages and the scripts' names.
    pub(crate) fn show_to(&mut self, name: &str, program: &Program, callers: &BTreeSet<(String, String)>) {
        self.use_programs(&[(name.to_owned(), Some(program.clone()))]);
        let Some(path) = step_path(&[program]) else { return };
        for (folder, script) in callers {
            let run = run_script(script);
            let targets = self.section(folder).targets.iter_mut();
            for (_, target) in targets.filter(|(_, target)| target.run == run) {
                let value = target.env.entry("PATH".to_owned()).or_insert_with(|| path.clone());
                if !value.split(':').any(|folder| program.folder == Path::new(folder)) {
                    *value = format!("{}:{value}", program.folder.display());
                }
            }
        }
    }

    /// Adds a place of the machine to those that steps see; tells where none can be seen.
    pub(crate) fn show(&mut self, path: &str) {
        if NEVER_SHOWN.iter().any(|root| Path::new(path).starts_with(root)) {
            self.note(
                NoteKind::Todo,
                format!("`{path}` is where steps have files of their own, so they do not see it: move it elsewhere"),
            );
        } else if !self.host.paths.iter().any(|shown| Path::new(path).starts_with(shown)) {
            self.host.paths.retain(|shown| !Path::new(shown).starts_with(path));
            self.host.paths.insert(path.to_owned());
        }
    }

    fn add_probe(&mut self, probe: String) {
        if !self.host.probes.contains(&probe) {
            self.host.probes.push(probe);
        }
    }
}

fn version_probe(name: &str, word: &str) -> String {
    let argument = if name == "go" { "version" } else { "--version" };
    let is_plain = word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-+@".contains(&byte));
    if is_plain { format!("{word} {argument}") } else { format!("'{}' {argument}", word.replace('\'', "'\\''")) }
}

/// A name of a target made of another tool's; `None` when nothing would be left.
pub(crate) fn target_name(text: &str) -> Option<String> {
    let is_fine = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.');
    let name: String = text.chars().map(|letter| if is_fine(letter) { letter } else { '-' }).collect();
    let name = name.trim_start_matches(['-', '_', '.']).to_owned();
    is_target_name(&name).then_some(name)
}

/// Adds a text if it is not there yet.
pub(crate) fn add(list: &mut Vec<String>, text: impl Into<String>) {
    let text = text.into();
    if !list.contains(&text) {
        list.push(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_of_a_sandbox_itself_are_told_and_not_shown() {
        let mut draft = Draft::default();
        for path in ["/opt/x", "/tmp/x", "/src", "/srcs", "/dev/x"] {
            draft.show(path);
        }
        assert_eq!(draft.host.paths.iter().map(String::as_str).collect::<Vec<_>>(), ["/opt/x", "/srcs"]);
        assert_eq!(draft.notes.len(), 3);
    }

    #[test]
    fn names_of_targets_are_made_of_others() {
        for (text, expected) in [
            ("test:unit", Some("test-unit")),
            ("a b/c", Some("a-b-c")),
            ("_x", Some("x")),
            ("---", None),
            ("", None),
            ("\u{e9}", None),
        ] {
            assert_eq!(target_name(text).as_deref(), expected, "{text}");
        }
    }
}
