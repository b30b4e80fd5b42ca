//! What steps need of the machine and may not find: programs that scripts call, a version of Node, paths of this machine alone.
//!
//! Nothing is run. A program is looked for on `PATH`, in `node_modules/.bin`, and among the dependencies; one that is nowhere is
//! told, for then the first build would. Shells' own words and what every system has are not looked for.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use nodejs_semver::{Range, Version};

use crate::InitError;
use crate::draft::Draft;
use crate::folder::{Folder, join};
use crate::host::{Host, Program, STEP_PATH};
use crate::javascript::{Package, Packages, is_left_at_root};
use crate::jsonc::Value;
use crate::note::NoteKind;

/// Words of shells, and programs that every system with a shell has, in order.
const USUAL: [&str; 77] = [
    "[", "[[", "awk", "basename", "bash", "cat", "cd", "chmod", "cmp", "command", "cp", "cut", "date", "diff",
    "dirname", "do", "done", "echo", "elif", "else", "env", "esac", "eval", "exec", "exit", "export", "expr", "false",
    "fi", "find", "for", "grep", "gzip", "head", "if", "install", "kill", "ln", "ls", "mkdir", "mktemp", "mv", "node",
    "npm", "npx", "printf", "pwd", "read", "realpath", "rm", "rmdir", "sed", "set", "sh", "shift", "sleep", "sort",
    "source", "tail", "tar", "tee", "test", "then", "time", "touch", "tr", "trap", "true", "uname", "uniq", "unset",
    "until", "wait", "wc", "which", "while", "xargs",
];
/// Programs whose package has another name, with that.
const OF_PACKAGES: [(&str, &str); 24] = [
    ("astro-check", "@astrojs/check"),
    ("attw", "@arethetypeswrong/cli"),
    ("babel", "@babel/cli"),
    ("biome", "@biomejs/biome"),
    ("changeset", "@changesets/cli"),
    ("dotenv", "dotenv-cli"),
    ("graphql-codegen", "@graphql-codegen/cli"),
    ("api-extractor", "@microsoft/api-extractor"),
    ("nest", "@nestjs/cli"),
    ("ng", "@angular/cli"),
    ("ng-packagr", "ng-packagr"),
    ("npm-run-all2", "npm-run-all2"),
    ("playwright", "@playwright/test"),
    ("react-router", "@react-router/dev"),
    ("remix", "@remix-run/dev"),
    ("run-p", "npm-run-all"),
    ("run-s", "npm-run-all"),
    ("svelte-package", "@sveltejs/package"),
    ("svelte-kit", "@sveltejs/kit"),
    ("swc", "@swc/cli"),
    ("tailwindcss", "@tailwindcss/cli"),
    ("tsc", "typescript"),
    ("tsgo", "@typescript/native-preview"),
    ("wtr", "@web/test-runner"),
];

/// Looks at all that.
pub(crate) fn remark(folder: &Folder, host: &Host, packages: &Packages, draft: &mut Draft) -> Result<(), InitError> {
    programs(folder, host, packages, draft);
    root_scripts(packages, draft);
    node(host, packages, draft);
    places(draft);
    Ok(())
}

/// Tells of programs that the scripts of targets call and that steps would not find.
fn programs(folder: &Folder, host: &Host, packages: &Packages, draft: &mut Draft) {
    let called: BTreeMap<String, BTreeSet<(String, String)>> = std::mem::take(&mut draft.called);
    for (program, callers) in called {
        let Some((at, script)) = callers.first() else { continue };
        let whose = if at.is_empty() { String::new() } else { format!(" of `{at}`") };
        let more = if callers.len() > 1 { format!(" and {} more", callers.len() - 1) } else { String::new() };
        let is_a_name = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.' | '+' | '@');
        let is_given = callers.iter().all(|(at, _)| is_of_packages(folder, packages, at, &program));
        if USUAL.contains(&&*program) || !program.chars().all(is_a_name) || program.starts_with('-') || is_given {
            continue;
        }
        match host.find(&program) {
            None => draft.note(
                NoteKind::Todo,
                format!(
                    "`{program}`, which the script `{script}`{whose}{more} calls, is neither on this machine's PATH nor a \
                     dependency: install it, or add it to `devDependencies`"
                ),
            ),
            Some(found) if is_manager(&program) && !is_of_corepack(&found, &program) => {
                draft.show_to(&program, &found, &callers);
            }
            Some(found) if is_of_corepack(&found, &program) => draft.note(
                NoteKind::Todo,
                format!(
                    "`{program}`, which the script `{script}`{whose}{more} calls, is the one of corepack, which downloads it: \
                     install it with `npm install --global {program}`, or add it to `devDependencies`"
                ),
            ),
            Some(found) if !found.is_on_step_path() => draft.note(
                NoteKind::Todo,
                format!(
                    "`{program}`, which the script `{script}`{whose}{more} calls, is in `{}`: add that to `paths` of \
                     `[toolchain.host]`, and to `PATH` in `env`",
                    found.folder.display()
                ),
            ),
            Some(_) => {}
        }
    }
}

/// Whether a program is one that people have for all their work, beside Node, and that scripts use for calling each other.
fn is_manager(program: &str) -> bool {
    matches!(program, "pnpm" | "yarn" | "bun")
}

/// Whether what is on `PATH` only chooses and fetches the program.
fn is_of_corepack(found: &Program, name: &str) -> bool {
    let file = cas_fs::canonicalize(&found.folder.join(name));
    file.is_ok_and(|file| file.components().any(|part| part.as_os_str() == "corepack"))
}

/// Whether a package's dependencies, or the root's, bring a program.
fn is_of_packages(folder: &Folder, packages: &Packages, at: &str, program: &str) -> bool {
    let other = OF_PACKAGES.iter().find(|(name, _)| *name == program).map(|(_, package)| *package);
    let brings = |package: &Package| {
        let is_own = package.script(program).is_some();
        // A package that others have as a dependency may bring programs of any name; most have its own.
        let is_like = package.dependencies().any(|name| name.rsplit('/').next() == Some(program));
        is_own || is_like || other.is_some_and(|other| package.depends_on(other))
    };
    [at, ""].iter().any(|at| {
        let is_installed = folder.is_file(&join(at, &format!("node_modules/.bin/{program}")));
        is_installed || packages.packages.get(*at).is_some_and(brings)
    })
}

/// Lists scripts of a workspace's root that became nothing and of which nothing was said.
fn root_scripts(packages: &Packages, draft: &mut Draft) {
    let Some(root) = packages.packages.get("").filter(|_| packages.is_workspace()) else { return };
    let section = draft.sections.get("");
    let is_target = |name: &str| {
        let own = crate::draft::target_name(name);
        own.is_some_and(|own| section.is_some_and(|section| section.has(&own)))
    };
    let left: Vec<&(String, String, usize)> =
        root.scripts.iter().filter(|(name, text, _)| is_left_at_root(name, text) && !is_target(name)).collect();
    let Some((_, _, at)) = left.first() else { return };
    let place = root.document.place(*at);
    let names: Vec<String> = left.iter().map(|(name, ..)| format!("`{name}`")).collect();
    let are = if names.len() == 1 { "is no target" } else { "are no targets" };
    draft.note_at(NoteKind::Dropped, Some(place), format!("{} of the root {are}", names.join(", ")));
}

/// Compares what packages want of Node with what is there, as far as that can be seen without running it.
fn node(host: &Host, packages: &Packages, draft: &mut Draft) {
    let there = host.node_version();
    let mut told = BTreeSet::new();
    for package in packages.packages.values() {
        let wanted = package.document.root.get("engines").and_then(|engines| engines.get("node"));
        let Some(text) = wanted.and_then(Value::as_str).filter(|text| !matches!(text.trim(), "" | "*")) else {
            continue;
        };
        let version = there.as_deref().and_then(|text| Version::parse(text).ok());
        let fits = version.zip(Range::parse(text).ok()).map(|(version, range)| range.satisfies(&version));
        if fits == Some(true) || !told.insert(text.to_owned()) {
            continue;
        }
        let place = wanted.map(|value| package.document.place(value.at));
        let (kind, text) = match (fits, &there) {
            (Some(false), Some(there)) => {
                (NoteKind::Todo, format!("Node `{text}` is wanted, and this machine has {there}: install another one"))
            }
            _ => (
                NoteKind::Check,
                format!(
                    "Node `{text}` is wanted: see what `node --version` says here, and which one the toolchain has"
                ),
            ),
        };
        draft.note_at(kind, place, text);
    }
}

/// Says which places of this machine are in what is written.
fn places(draft: &mut Draft) {
    let is_own = |path: &&String| !STEP_PATH.iter().any(|folder| Path::new(path).starts_with(folder));
    let paths: Vec<String> = draft.host.paths.iter().filter(is_own).map(|path| format!("`{path}`")).collect();
    if !paths.is_empty() {
        draft.note(
            NoteKind::Check,
            format!(
                "`cas.toml` names places of this machine: {}; on another one they are elsewhere, so change them there, or use a \
                 toolchain of packages",
                paths.join(", ")
            ),
        );
    }
}
