//! Packages of npm, pnpm, yarn and bun workspaces: which there are, what they need from each other, and targets for scripts.

use std::collections::{BTreeMap, BTreeSet};

use crate::InitError;
use crate::draft::{Dep, Draft, Kind, Section, Target, add, target_name};
use crate::folder::{Folder, join, resolve};
use crate::globs;
use crate::host::Host;
use crate::jsonc::{Document, Value};
use crate::note::{NoteKind, counted};
use crate::outputs;
use crate::yaml;

/// Name of the fetch of third-party packages, and of the command that stands for it where there is none.
const NPM: &str = "npm";
const MODULES: &str = "node_modules";

/// Who installs packages here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manager {
    Npm,
    Pnpm,
    Yarn,
    Bun,
}

impl Manager {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Npm => "npm",
            Self::Pnpm => "pnpm",
            Self::Yarn => "yarn",
            Self::Bun => "bun",
        }
    }

    const fn lockfile(self) -> &'static str {
        match self {
            Self::Npm => "package-lock.json",
            Self::Pnpm => "pnpm-lock.yaml",
            Self::Yarn => "yarn.lock",
            Self::Bun => "bun.lock",
        }
    }
}

/// A folder with a `package.json`.
#[derive(Debug)]
pub(crate) struct Package {
    pub(crate) folder: String,
    pub(crate) name: Option<String>,
    pub(crate) document: Document,
    /// Name, text, place.
    pub(crate) scripts: Vec<(String, String, usize)>,
    /// Needed by whoever uses the package.
    runtime: BTreeSet<String>,
    /// Needed while it is developed.
    development: BTreeSet<String>,
}

impl Package {
    fn new(folder: &str, document: Document) -> Self {
        let root = &document.root;
        let names = |section: &str| -> Vec<String> {
            root.get(section).map_or(&[][..], Value::members).iter().map(|member| member.key.clone()).collect()
        };
        let scripts = root
            .get("scripts")
            .map_or(&[][..], Value::members)
            .iter()
            .filter_map(|member| Some((member.key.clone(), member.value.as_str()?.to_owned(), member.key_at)));
        let sections = ["dependencies", "optionalDependencies", "peerDependencies"];
        Self {
            folder: folder.to_owned(),
            name: root.text("name").map(str::to_owned),
            scripts: scripts.collect(),
            runtime: sections.into_iter().flat_map(names).collect(),
            development: names("devDependencies").into_iter().collect(),
            document,
        }
    }

    pub(crate) fn script(&self, name: &str) -> Option<&str> {
        self.scripts.iter().rev().find(|(other, ..)| other == name).map(|(_, text, _)| text.as_str())
    }

    /// Names of all that it needs, itself and while it is developed.
    pub(crate) fn dependencies(&self) -> impl Iterator<Item = &str> {
        self.runtime.iter().chain(&self.development).map(String::as_str)
    }

    pub(crate) fn depends_on(&self, name: &str) -> bool {
        self.runtime.contains(name) || self.development.contains(name)
    }
}

/// The packages of a workspace.
#[derive(Debug, Default)]
pub(crate) struct Packages {
    pub(crate) manager: Option<Manager>,
    /// The globs that the package manager has, where it has some.
    pub(crate) globs: Vec<String>,
    /// By folder; the root is the empty one.
    pub(crate) packages: BTreeMap<String, Package>,
    /// Folders by the packages' names.
    pub(crate) by_name: BTreeMap<String, String>,
    /// Names that two folders have, of which the later one counts, as in a build.
    twice: Vec<(String, String, String)>,
}

impl Packages {
    /// Looks for a `package.json` in the folder, and for those that its workspace names.
    pub(crate) fn find(folder: &Folder) -> Result<Self, InitError> {
        let mut found = Self::default();
        let Some(root) = folder.json("package.json")? else { return Ok(found) };
        let pnpm = "pnpm-workspace.yaml";
        let mut globs = match folder.read(pnpm)? {
            Some(text) => yaml::packages(pnpm, &text)?,
            None => Vec::new(),
        };
        if let Some(workspaces) = root.root.get("workspaces").filter(|_| globs.is_empty()) {
            let list = workspaces.get("packages").unwrap_or(workspaces);
            globs = list.items().iter().filter_map(Value::as_str).map(str::to_owned).collect();
        }
        found.manager = Some(manager(folder, &root)?);
        for path in globs::select(folder, &globs, "package.json")? {
            if let Some(document) = folder.json(&join(&path, "package.json"))? {
                found.packages.insert(path.clone(), Package::new(&path, document));
            }
        }
        found.globs = globs;
        found.packages.insert(String::new(), Package::new("", root));
        for package in found.packages.values() {
            let Some(name) = &package.name else { continue };
            if let Some(first) = found.by_name.insert(name.clone(), package.folder.clone()) {
                found.twice.push((name.clone(), first, package.folder.clone()));
            }
        }
        Ok(found)
    }

    /// Whether there are packages below the root.
    pub(crate) fn is_workspace(&self) -> bool {
        self.packages.len() > 1
    }

    /// Folders of the packages that one depends on, itself or by others: what `^` stands for.
    pub(crate) fn reached(&self, folder: &str) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let Some(own) = self.packages.get(folder) else { return found };
        let mut open: Vec<&String> = own.runtime.iter().chain(&own.development).collect();
        while let Some(name) = open.pop() {
            let Some(to) = self.by_name.get(name).filter(|to| *to != folder) else { continue };
            if found.insert(to.clone())
                && let Some(package) = self.packages.get(to)
            {
                open.extend(&package.runtime);
            }
        }
        found
    }
}

fn manager(folder: &Folder, root: &Document) -> Result<Manager, InitError> {
    let all = [Manager::Pnpm, Manager::Yarn, Manager::Bun, Manager::Npm];
    if let Some(text) = root.root.text("packageManager") {
        let name = text.split('@').next().unwrap_or_default();
        if let Some(manager) = all.into_iter().find(|manager| manager.name() == name) {
            return Ok(manager);
        }
    }
    for manager in all {
        if folder.exists(manager.lockfile())? {
            return Ok(manager);
        }
    }
    Ok(if folder.exists("pnpm-workspace.yaml")? { Manager::Pnpm } else { Manager::Npm })
}

/// What scripts become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Build,
    Test,
    Check,
}

/// Scripts that are something's result, or a question with the answer yes or no. Others start servers, publish, change
/// sources, or need a network: no step.
fn role(name: &str) -> Option<Role> {
    if name.ends_with(":watch") || name.ends_with(":fix") || name.ends_with(":update") || name.contains("e2e") {
        return None;
    }
    match name.split(':').next().unwrap_or(name) {
        "build" if name == "build" => Some(Role::Build),
        "test" | "tests" => Some(Role::Test),
        "lint" | "typecheck" | "type-check" | "types-check" | "check-types" | "check" | "tsc" => Some(Role::Check),
        _ => matches!(name, "format:check" | "fmt:check" | "prettier:check" | "typecheck:test").then_some(Role::Check),
    }
}

/// Whether a name is one of a test: something that passes or fails.
pub(crate) fn is_test_like(name: &str) -> bool {
    let is_kind_of_test = name.ends_with("-test") || name.ends_with("-tests");
    matches!(role(name), Some(Role::Test | Role::Check)) || is_kind_of_test || name == "eslint" || name.contains("e2e")
}

/// Whether a name is one of a test that needs nothing but the workspace: one from end to end wants a browser, or servers.
pub(crate) fn is_hermetic_test(name: &str) -> bool {
    is_test_like(name) && !name.contains("e2e")
}

/// What `npm init` writes where there is no test.
fn is_placeholder(text: &str) -> bool {
    text.contains("no test specified")
}

/// Programs that run the scripts of all packages: what `cas` does itself.
fn orchestrator(text: &str) -> Option<&'static str> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let programs = ["turbo", "nx", "lerna", "wsrun", "lage", "rush"];
    if let Some(program) = programs.into_iter().find(|program| words.contains(program)) {
        return Some(program);
    }
    let flags = ["-ws", "--workspaces", "-r", "--recursive", "workspaces"];
    let is_manager = words.iter().any(|word| matches!(*word, "npm" | "pnpm" | "yarn"));
    (is_manager && words.iter().any(|word| flags.contains(word))).then_some("the package manager")
}

/// Root, toolchain, packages and whose files others see: what `cas init` and every import share.
pub(crate) fn lay_out(
    folder: &Folder,
    host: &Host,
    packages: &Packages,
    draft: &mut Draft,
) -> Result<Setting, InitError> {
    let Some(manager) = packages.manager else { return Ok(Setting::default()) };
    let count = packages.packages.len() - 1;
    let what = if packages.is_workspace() {
        format!("{} workspace with {}", manager.name(), counted(count, "package"))
    } else {
        "package.json".to_owned()
    };
    draft.note(NoteKind::Found, what);
    for (name, first, second) in &packages.twice {
        draft.note(
            NoteKind::Check,
            format!("`{first}` and `{second}` are both named `{name}`: dependencies on it mean the second one"),
        );
    }
    let folders: BTreeSet<String> = packages.packages.keys().filter(|folder| !folder.is_empty()).cloned().collect();
    draft.members.extend(globs::members(&packages.globs, &folders));
    for folder in &folders {
        draft.section(folder);
    }
    let mut programs = vec!["node", "npm"];
    if manager == Manager::Yarn && is_plug_and_play(folder)? {
        programs.push("yarn");
        draft.note(
            NoteKind::Todo,
            "yarn's Plug'n'Play keeps packages where steps do not see them: write `nodeLinker: node-modules` into `.yarnrc.yml`",
        );
    }
    let env = draft.use_host(host, &programs);
    draft.note(
        NoteKind::Hermetic,
        "in place of `[toolchain.host]`: `debian = { suite = \"trixie\", packages = [\"nodejs\", \"npm\"] }`, the same bytes on every machine",
    );
    let modules = third_party(folder, packages, manager, draft)?;
    for name in root_files(folder)? {
        draft.inputs.insert(name);
    }
    Ok(Setting { env, modules })
}

/// The script that by custom runs until somebody ends it.
const SERVER: &str = "dev";

/// What all targets of JavaScript get.
#[derive(Debug, Default)]
pub(crate) struct Setting {
    pub(crate) env: BTreeMap<String, String>,
    /// Where third-party packages come from.
    pub(crate) modules: Option<Dep>,
}

fn is_plug_and_play(folder: &Folder) -> Result<bool, InitError> {
    if folder.exists(".pnp.cjs")? || folder.exists(".pnp.js")? {
        return Ok(true);
    }
    // Yarn from version 2 on, which has this file, and with nothing said.
    Ok(folder.read(".yarnrc.yml")?.is_some_and(|text| !text.contains("nodeLinker")) && !folder.exists(MODULES)?)
}

/// The fetch of the lockfile; else, where `cas` reads no such lockfile, a command that copies what is installed.
fn third_party(
    folder: &Folder,
    packages: &Packages,
    manager: Manager,
    draft: &mut Draft,
) -> Result<Option<Dep>, InitError> {
    let lockfile = manager.lockfile();
    let needs_any =
        packages.packages.values().any(|package| !package.runtime.is_empty() || !package.development.is_empty());
    if matches!(manager, Manager::Npm | Manager::Pnpm) {
        if folder.exists(lockfile)? {
            draft.section("").fetches.insert(NPM.to_owned(), lockfile.to_owned());
            return Ok(Some(Dep::Full(String::new(), NPM.to_owned())));
        }
        if needs_any {
            let command = match manager {
                Manager::Pnpm => "pnpm install --lockfile-only",
                _ => "npm install --package-lock-only",
            };
            draft.note(
                NoteKind::Todo,
                format!(
                    "there is no `{lockfile}`: run `{command}`, and add `[fetch.{NPM}]` with `lockfile = \"{lockfile}\"`, \
                     and `//:{NPM}` to `deps`"
                ),
            );
        }
        return Ok(None);
    }
    if !needs_any {
        return Ok(None);
    }
    let fill = format!("{} install", manager.name());
    let mut target = Target::new(Kind::Command, format!("cp -a \"{}\" .", folder.at(MODULES).display()));
    target.inputs = Some(
        [lockfile, "package.json"].iter().filter(|name| folder.is_file(name)).map(|name| (*name).to_owned()).collect(),
    );
    target.outputs = vec![MODULES.to_owned()];
    target.comments = vec![
        format!("What `{fill}` installed on this machine: cas does not read {lockfile} yet. Not hermetic."),
        format!("Fill it with: {fill}"),
    ];
    draft.show(&folder.at(MODULES).display().to_string());
    draft.section("").targets.push((MODULES.to_owned(), target));
    draft.note(NoteKind::Todo, format!("run `{fill}`: `//:{MODULES}` copies what it installs"));
    draft.note(
        NoteKind::Hermetic,
        format!("a `package-lock.json` or `pnpm-lock.yaml`, which cas fetches itself, in place of `//:{MODULES}`"),
    );
    Ok(Some(Dep::Full(String::new(), MODULES.to_owned())))
}

/// Files at the root by which tools in packages are configured. Nothing that may hold a token.
fn root_files(folder: &Folder) -> Result<Vec<String>, InitError> {
    Ok(config_files(folder, "")?.into_iter().chain(["package.json".to_owned()]).collect())
}

/// Names in a folder that tools look for.
pub(crate) fn config_files(folder: &Folder, path: &str) -> Result<Vec<String>, InitError> {
    const EXACT: [&str; 12] = [
        ".babelrc",
        ".browserslistrc",
        ".editorconfig",
        ".eslintignore",
        ".prettierignore",
        ".swcrc",
        "biome.json",
        "biome.jsonc",
        "deno.json",
        "jsconfig.json",
        "pnpm-workspace.yaml",
        "svelte.config.js",
    ];
    const BEFORE: [&str; 15] = [
        ".eslintrc",
        ".prettierrc",
        ".stylelintrc",
        "babel.config.",
        "eslint.config.",
        "jest.",
        "next.config.",
        "postcss.config.",
        "prettier.config.",
        "rollup.config.",
        "tailwind.config.",
        "tsconfig.",
        "tsup.config.",
        "vite.",
        "vitest.",
    ];
    let is_config = |name: &str| {
        let is_json = std::path::Path::new(name).extension().is_some_and(|end| end == "json");
        EXACT.contains(&name)
            || (name.starts_with("tsconfig") && is_json)
            || BEFORE.iter().any(|before| name.starts_with(before))
    };
    let entries = folder.list(path)?;
    let names = entries.into_iter().filter(|entry| !entry.is_dir && is_config(&entry.name)).map(|entry| entry.name);
    Ok(names.filter(|name| !folder.is_ignored(&join(path, name), false)).collect())
}

/// The command line of a script.
pub(crate) fn run_script(name: &str) -> String {
    let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:/".contains(&byte));
    if is_plain { format!("npm run {name}") } else { format!("npm run '{}'", name.replace('\'', "'\\''")) }
}

/// Targets for the scripts of all packages.
pub(crate) fn targets(
    folder: &Folder,
    packages: &Packages,
    setting: &Setting,
    draft: &mut Draft,
) -> Result<(), InitError> {
    for package in packages.packages.values() {
        if package.folder.is_empty() && packages.is_workspace() {
            root_scripts(package, draft);
            continue;
        }
        let mut carried = BTreeSet::new();
        let mut section = draft.sections.remove(&package.folder).unwrap_or_default();
        let has_build = package.script("build").is_some_and(|text| orchestrator(text).is_none());
        let mut scripts: Vec<&(String, String, usize)> = package.scripts.iter().collect();
        // The build first, then tests, each in the file's order.
        scripts.sort_by_key(|(name, ..)| role(name).map_or(3, |role| role as usize));
        for (name, text, at) in scripts {
            let role = role(name).filter(|_| !is_placeholder(text) && orchestrator(text).is_none());
            let own = target_name(name).filter(|own| !section.has(own));
            let (Some(role), Some(own)) = (role, own) else { continue };
            carried.insert(name.as_str());
            let place = package.document.place(*at);
            let mut target = script_target(folder, packages, package, name, role == Role::Build, draft)?;
            target.place = Some(place);
            if role == Role::Test && has_build {
                target.deps.push(Dep::Own("build".to_owned()));
            }
            target.deps.push(Dep::Up("build".to_owned()));
            target.deps.extend(setting.modules.clone());
            target.env.clone_from(&setting.env);
            section.targets.push((own, target));
        }
        if package.script(SERVER).is_some_and(|text| orchestrator(text).is_none()) && !section.has(SERVER) {
            let mut target = Target::new(Kind::Run, run_script(SERVER));
            target.deps.push(Dep::Up("build".to_owned()));
            section.targets.push((SERVER.to_owned(), target));
            carried.insert(SERVER);
        }
        let names = package.scripts.iter().map(|(name, ..)| name.as_str());
        let left: Vec<&str> = names.filter(|name| !carried.contains(name)).collect();
        if !left.is_empty() {
            section.comments.push(format!("Scripts of package.json that are no target: {}.", left.join(", ")));
        }
        draft.sections.insert(package.folder.clone(), section);
    }
    Ok(())
}

/// The target of a script, with what is known of its outputs.
pub(crate) fn script_target(
    folder: &Folder,
    packages: &Packages,
    package: &Package,
    script: &str,
    is_command: bool,
    draft: &mut Draft,
) -> Result<Target, InitError> {
    let guess = outputs::of_script(folder, packages, package, script, is_command, draft)?;
    let kind = if is_command { Kind::Command } else { Kind::Test };
    let mut target = Target::new(kind, run_script(script));
    target.scratch = guess.scratch;
    if is_command {
        target.outputs = guess.outputs;
        if target.outputs.is_empty() {
            target
                .comments
                .push("What it makes is not known: add `outputs`, the folders or files in the package.".to_owned());
        }
    } else {
        // A test has no outputs; what it writes on the way is dropped.
        for output in guess.outputs {
            add(&mut target.scratch, output);
        }
    }
    tidy_scratch(&mut target);
    Ok(target)
}

/// Leaves out what is in an output, or in another entry.
pub(crate) fn tidy_scratch(target: &mut Target) {
    let is_within = |path: &str, other: &str| crate::folder::below(other, path).is_some();
    let all = target.scratch.clone();
    let outputs = target.outputs.clone();
    target.scratch.retain(|path| {
        !outputs.iter().any(|output| is_within(path, output))
            && !all.iter().any(|other| other != path && is_within(path, other))
    });
    target.scratch.sort();
}

/// Whether nothing is said of a script of a workspace's root where targets are made: it is no build and no test, and is not run
/// by what runs the scripts of all packages.
pub(crate) fn is_left_at_root(name: &str, text: &str) -> bool {
    role(name).is_none() && orchestrator(text).is_none()
}

fn root_scripts(package: &Package, draft: &mut Draft) {
    for (name, text, at) in package.scripts.iter().filter(|(name, ..)| role(name).is_some()) {
        let place = package.document.place(*at);
        let text = match orchestrator(text) {
            Some(program) => format!("`{name}` runs {program}: `cas build` and `cas test` do that"),
            None => format!("`{name}` of the root is no target: in a step it would see the root's own files alone"),
        };
        draft.note_at(NoteKind::Dropped, Some(place), text);
    }
}

/// Adds the sources that other packages use as they are to the inputs of all: packages that nothing builds, and what built
/// ones publish beside their outputs.
pub(crate) fn share_sources(folder: &Folder, packages: &Packages, draft: &mut Draft) {
    let mut used = BTreeSet::new();
    for package in packages.packages.values() {
        let names = package.runtime.iter().chain(&package.development);
        used.extend(
            names.filter_map(|name| packages.by_name.get(name)).filter(|to| !to.is_empty() && **to != package.folder),
        );
    }
    let mut shared = Vec::new();
    for path in used {
        let Some(package) = packages.packages.get(path) else { continue };
        let outputs: Vec<String> = draft.sections.get(path).map_or_else(Vec::new, |section: &Section| {
            section.targets.iter().flat_map(|(_, target)| target.outputs.clone()).collect()
        });
        let is_built = draft
            .sections
            .get(path)
            .is_some_and(|section| section.targets.iter().any(|(_, target)| target.kind == Kind::Command));
        if !is_built {
            shared.push(format!("{path}/**"));
            continue;
        }
        for entry in outputs::published(package) {
            let Some(entry) = resolve("", &entry).filter(|entry| !entry.is_empty()) else { continue };
            if outputs.iter().any(|output| crate::folder::below(output, &entry).is_some()) {
                continue;
            }
            let top = entry.split('/').next().unwrap_or_default().to_owned();
            let at = join(path, &top);
            if top.contains(['*', '{', '[', '?'])
                || folder.is_ignored(&join(path, &entry), false)
                || top == "package.json"
            {
                continue;
            }
            if folder.is_dir(&at) {
                shared.push(format!("{at}/**"));
            } else if folder.is_file(&at) {
                shared.push(at);
            }
        }
    }
    shared.sort();
    shared.dedup();
    if !shared.is_empty() {
        draft.note(
            NoteKind::Check,
            format!(
                "sources that other packages use as they are became inputs of every package: {}; a build with outputs in their \
                 packages would make that finer",
                shared.join(", ")
            ),
        );
    }
    draft.inputs.extend(shared);
}
