//! `nx.json`, `project.json` and `nx` of `package.json`. Source: Nx's "nx.json", "Project Configuration" and "Inputs", 16 to 24.
//!
//! What plugins infer, and executors other than those that run a command or a script, is known to Nx alone: it is told.

use std::collections::{BTreeMap, BTreeSet};

use crate::InitError;
use crate::draft::{Dep, Draft, Kind, Target, target_name};
use crate::folder::{Folder, below, join, resolve};
use crate::host::STEP_PATH;
use crate::import::{
    Files, Inputs, Text, Uncached, environment, object, outputs, relative, shared_outputs, tell_of_root, texts,
};
use crate::javascript::{Package, Packages, Setting, is_hermetic_test, is_test_like, run_script};
use crate::jsonc::{Document, Kind as Json, Value};
use crate::note::{NoteKind, Place};
use crate::outputs::{Guess, of_script};

const FILE: &str = "nx.json";
const PROJECT: &str = "project.json";
/// How deep projects are looked for.
const MAX_DEPTH: usize = 8;
/// Longest chain of named inputs.
const MAX_NAMED: usize = 16;
/// Where the workspace is in a step.
const SOURCES: &str = "/src";

/// A project of Nx.
struct Project<'a> {
    folder: String,
    name: String,
    document: Option<&'a Document>,
    package: Option<&'a Package>,
}

/// A target's definition, key by key, nearest first.
#[derive(Clone, Default)]
struct Definition<'a> {
    layers: Vec<(&'a Document, &'a Value)>,
}

impl<'a> Definition<'a> {
    fn get(&self, key: &str) -> Option<(&'a Document, &'a Value)> {
        self.layers.iter().find_map(|(document, value)| Some((*document, value.get(key)?)))
    }

    fn text(&self, key: &str) -> Option<(&'a Document, &'a Value, &'a str)> {
        let (document, value) = self.get(key)?;
        Some((document, value, value.as_str()?))
    }

    fn option(&self, key: &str) -> Option<(&'a Document, &'a Value)> {
        self.layers.iter().find_map(|(document, value)| Some((*document, value.get("options")?.get(key)?)))
    }

    fn list(&self, key: &str) -> Option<(&'a Document, &'a [Value])> {
        let (document, value) = self.get(key)?;
        Some((document, value.items()))
    }
}

/// Adds the targets of an Nx workspace.
pub(crate) fn import(
    folder: &Folder,
    packages: &Packages,
    setting: &Setting,
    draft: &mut Draft,
) -> Result<(), InitError> {
    let root = folder.json(FILE)?.ok_or(InitError::NothingToImport { file: FILE })?;
    object(&root, &root.root, "the file")?;
    settings(&root, draft)?;
    let documents = documents(folder)?;
    let projects = projects(packages, &documents);
    let by_name: BTreeMap<&str, &str> =
        projects.iter().map(|project| (project.name.as_str(), project.folder.as_str())).collect();
    let mut setting = Setting { env: setting.env.clone(), modules: setting.modules.clone() };
    if setting.modules.is_some() {
        // As Nx runs commands: with the programs of packages.
        let path = setting.env.get("PATH").cloned().unwrap_or_else(|| STEP_PATH.join(":"));
        setting.env.insert("PATH".to_owned(), format!("{SOURCES}/node_modules/.bin:{path}"));
    }
    draft.host.is_used = true;
    let mut shared = Vec::new();
    for project in &projects {
        draft.section(&project.folder);
        if project.package.is_none() && !project.folder.is_empty() {
            draft.members.push(project.folder.clone());
            shared.push(format!("{}/**", project.folder));
        }
    }
    if !shared.is_empty() {
        draft.note(
            NoteKind::Check,
            format!(
                "projects without `package.json` became inputs of every package, and `^` does not find them, for Nx reads imports to \
                 know who needs whom: {}",
                shared.join(", ")
            ),
        );
        draft.inputs.extend(shared);
    }
    let reader = Reader { folder, packages, root: &root, setting: &setting, by_name };
    let mut files = Files::default();
    let mut uncached = Uncached::default();
    for project in &projects {
        reader.project(project, &mut files, &mut uncached, draft)?;
    }
    uncached.settle(packages, draft);
    shared_outputs(draft);
    Ok(())
}

fn settings(root: &Document, draft: &mut Draft) -> Result<(), InitError> {
    for member in root.root.members() {
        let place = Some(root.place(member.key_at));
        match member.key.as_str() {
            "$schema" => {}
            key @ ("targetDefaults" | "namedInputs") => {
                object(root, &member.value, &format!("`{key}`"))?;
            }
            "plugins" => {
                draft.note_at(
                    NoteKind::Dropped,
                    place,
                    "`plugins`: targets that they infer are not known; those of scripts are carried",
                );
            }
            key => draft.note_at(NoteKind::Dropped, place, format!("`{key}` is a setting of Nx itself")),
        }
    }
    Ok(())
}

/// Every `project.json`, by folder.
fn documents(folder: &Folder) -> Result<BTreeMap<String, Document>, InitError> {
    let mut paths = Vec::new();
    folder.walk("", MAX_DEPTH, &mut |path, entries| {
        if entries.iter().any(|entry| !entry.is_dir && entry.name == PROJECT) {
            paths.push(path.to_owned());
        }
        Ok(true)
    })?;
    if paths.len() > crate::globs::MAX_PACKAGES {
        return Err(InitError::TooMany { what: "projects", limit: crate::globs::MAX_PACKAGES });
    }
    let mut documents = BTreeMap::new();
    for path in paths {
        if let Some(document) = folder.json(&join(&path, PROJECT))? {
            object(&document, &document.root, "the file")?;
            documents.insert(path, document);
        }
    }
    Ok(documents)
}

fn projects<'a>(packages: &'a Packages, documents: &'a BTreeMap<String, Document>) -> Vec<Project<'a>> {
    let folders: BTreeSet<&String> = packages.packages.keys().chain(documents.keys()).collect();
    let mut projects = Vec::new();
    for folder in folders {
        let document = documents.get(folder);
        let package = packages.packages.get(folder);
        let nx = package.and_then(|package| package.document.root.get("nx"));
        // The root's `package.json` is a project only if something says so.
        if folder.is_empty() && document.is_none() && nx.is_none() && packages.is_workspace() {
            continue;
        }
        let name = document.and_then(|document| document.root.text("name"));
        let name = name.or_else(|| nx?.text("name")).or_else(|| package?.name.as_deref());
        let name = name.unwrap_or_else(|| folder.rsplit('/').next().unwrap_or_default()).to_owned();
        projects.push(Project { folder: folder.clone(), name, document, package });
    }
    projects
}

struct Reader<'a> {
    folder: &'a Folder,
    packages: &'a Packages,
    root: &'a Document,
    setting: &'a Setting,
    by_name: BTreeMap<&'a str, &'a str>,
}

/// What a target runs.
struct Run {
    text: String,
    guess: Guess,
    env: BTreeMap<String, String>,
}

impl<'a> Reader<'a> {
    fn project(
        &self,
        project: &Project<'a>,
        files: &mut Files,
        uncached: &mut Uncached,
        draft: &mut Draft,
    ) -> Result<(), InitError> {
        let nx = project.package.and_then(|package| Some((&package.document, package.document.root.get("nx")?)));
        let own: Vec<(&Document, &Value)> = project
            .document
            .and_then(|document| {
                Some((document, document.root.get("targets").or_else(|| document.root.get("architect"))?))
            })
            .into_iter()
            .chain(nx.and_then(|(document, nx)| Some((document, nx.get("targets")?))))
            .collect();
        let mut names: Vec<(&str, Place)> = Vec::new();
        let mut seen = BTreeSet::new();
        for (document, targets) in &own {
            for member in object(document, targets, "`targets`")?.members() {
                if seen.insert(member.key.as_str()) {
                    names.push((&member.key, document.place(member.key_at)));
                }
            }
        }
        if let Some(package) = project
            .package
            .filter(|package| !package.folder.is_empty() || project.document.is_some() || !self.packages.is_workspace())
        {
            let included = nx.and_then(|(_, nx)| nx.get("includedScripts")).map(Value::strings);
            for (script, _, at) in &package.scripts {
                let is_included = included.as_ref().is_none_or(|included| included.contains(&script.as_str()));
                if is_included && !is_lifecycle(script) && seen.insert(script) {
                    names.push((script, package.document.place(*at)));
                }
            }
        }
        let implicit = self.implicit(project, nx, draft);
        for (name, place) in names {
            let definition = self.definition(&own, name);
            self.target(project, name, place, &definition, &implicit, files, uncached, draft)?;
        }
        Ok(())
    }

    /// Folders of projects that one depends on by `implicitDependencies`.
    fn implicit(&self, project: &Project<'a>, nx: Option<(&'a Document, &'a Value)>, draft: &mut Draft) -> Vec<String> {
        let mut found = Vec::new();
        let sources = project.document.map(|document| (document, &document.root)).into_iter().chain(nx);
        for (document, value) in sources {
            let Some(list) = value.get("implicitDependencies") else { continue };
            for Text { text, place } in texts(document, list, draft) {
                match self.by_name.get(text.as_str()) {
                    Some(to) => found.push((*to).to_owned()),
                    None => draft.note_at(
                        NoteKind::Dropped,
                        Some(place),
                        format!("implicit dependency `{text}`: no such project"),
                    ),
                }
            }
        }
        found
    }

    /// Project, then defaults: those of the executor, else those of the name.
    fn definition(&self, own: &[(&'a Document, &'a Value)], name: &str) -> Definition<'a> {
        let mut definition = Definition::default();
        for (document, targets) in own {
            definition.layers.extend(targets.get(name).map(|value| (*document, value)));
        }
        if let Some(defaults) = self.root.root.get("targetDefaults") {
            let executor = definition.text("executor").map(|(.., executor)| executor);
            let found = executor.and_then(|executor| defaults.get(executor)).or_else(|| defaults.get(name));
            definition.layers.extend(found.map(|value| (self.root, value)));
        }
        definition
    }

    #[expect(clippy::too_many_arguments, reason = "one target, with all that an import collects")]
    fn target(
        &self,
        project: &Project<'a>,
        name: &str,
        place: Place,
        definition: &Definition<'a>,
        implicit: &[String],
        files: &mut Files,
        uncached: &mut Uncached,
        draft: &mut Draft,
    ) -> Result<(), InitError> {
        let drop = |draft: &mut Draft, why: &str| {
            draft.note_at(
                NoteKind::Dropped,
                Some(place.clone()),
                format!("target `{name}` of `{}`: {why}", project.name),
            );
        };
        let is_server = ["serve", "dev", "start", "preview", "watch"]
            .iter()
            .any(|word| name.split(['-', ':']).any(|part| part == *word));
        let flag = |key: &str| definition.get(key).and_then(|(_, value)| value.as_bool());
        if flag("continuous") == Some(true) || is_server {
            drop(draft, "it does not end, and is no step");
            return Ok(());
        }
        if name.split(['-', ':']).next() == Some("clean") {
            drop(draft, "it removes what others make, and a step starts without that");
            return Ok(());
        }
        let Some(own) = target_name(name).filter(|own| !draft.section(&project.folder).has(own)) else {
            drop(draft, "its name is taken, or none can be made of it");
            return Ok(());
        };
        let Some(run) = self.run(project, name, definition, &place, draft)? else { return Ok(()) };
        for (document, value) in &definition.layers {
            for member in value.members() {
                let text = match member.key.as_str() {
                    "configurations" | "defaultConfiguration" => {
                        "configurations are not carried: the options are those of no configuration"
                    }
                    "parallelism" | "syncGenerators" => "cas has nothing like it",
                    _ => continue,
                };
                draft.note_at(
                    NoteKind::Dropped,
                    Some(document.place(member.key_at)),
                    format!("`{}`: {text}", member.key),
                );
            }
        }
        let kind = if is_test_like(name) { Kind::Test } else { Kind::Command };
        let mut target = Target::new(kind, run.text);
        target.place = Some(place.clone());
        target.env.clone_from(&self.setting.env);
        target.env.extend(run.env);
        let listed = self.outputs(project, definition, draft);
        outputs(self.folder, &project.folder, &listed, run.guess, &mut target, draft);
        let inputs = self.inputs(project, definition, &mut target, draft);
        files.inputs(self.folder, &project.folder, inputs, &mut target, draft)?;
        self.deps(definition, implicit, &mut target, draft);
        tell_of_root(&project.folder, &own, self.packages, &target, draft);
        target.deps.extend(self.setting.modules.clone());
        if flag("cache") == Some(false) {
            uncached.add(&project.folder, &own, is_hermetic_test(name), !listed.is_empty(), place, draft);
        }
        draft.section(&project.folder).targets.push((own, target));
        Ok(())
    }

    /// The command line of a target; `None`, and told, when only Nx could run it.
    fn run(
        &self,
        project: &Project<'a>,
        name: &str,
        definition: &Definition<'a>,
        place: &Place,
        draft: &mut Draft,
    ) -> Result<Option<Run>, InitError> {
        let mut drop = |place: &Place, why: String| {
            let text = format!("target `{name}` of `{}`: {why}", project.name);
            draft.note_at(NoteKind::Dropped, Some(place.clone()), text);
        };
        let executor = definition.text("executor").map(|(document, value, text)| (document.place(value.at), text));
        let script = match &executor {
            _ if definition.get("command").is_some() => None,
            None => Some(name),
            Some((_, text)) if text.ends_with(":run-script") => {
                Some(definition.option("script").and_then(|(_, value)| value.as_str()).unwrap_or(name))
            }
            Some((_, text)) if text.ends_with(":run-commands") => None,
            Some((place, text)) if text.ends_with(":noop") => {
                drop(place, format!("`{text}` does nothing: let others depend on what it depends on"));
                return Ok(None);
            }
            Some((place, text)) => {
                drop(
                    place,
                    format!("only Nx knows what `{text}` runs; add a target with the command line that it stands for"),
                );
                return Ok(None);
            }
        };
        if let Some(script) = script {
            let Some(package) = project.package.filter(|package| package.script(script).is_some()) else {
                drop(place, format!("there is no script `{script}`, so that a plugin of Nx knows it alone"));
                return Ok(None);
            };
            let guess = of_script(self.folder, self.packages, package, script, name == "build", draft)?;
            return Ok(Some(Run { text: run_script(script), guess, env: BTreeMap::new() }));
        }
        let Some(text) = self.commands(project, definition, draft) else {
            draft.note_at(
                NoteKind::Dropped,
                Some(place.clone()),
                format!("target `{name}` of `{}`: it has no command", project.name),
            );
            return Ok(None);
        };
        let mut env = BTreeMap::new();
        if let Some((document, value)) = definition.option("env") {
            for member in value.members() {
                match member.value.as_str() {
                    Some(text)
                        if !member.key.is_empty() && !member.key.contains(['=', '\0']) && !text.contains('\0') =>
                    {
                        env.insert(member.key.clone(), text.to_owned());
                    }
                    _ => {
                        draft.note_at(NoteKind::Dropped, Some(document.place(member.key_at)), "this is not a variable")
                    }
                }
            }
        }
        Ok(Some(Run { text, guess: Guess::default(), env }))
    }

    /// Commands of `nx:run-commands`, one after another, in their folder.
    fn commands(&self, project: &Project<'a>, definition: &Definition<'a>, draft: &mut Draft) -> Option<String> {
        let mut commands: Vec<&str> = Vec::new();
        for found in [definition.get("command"), definition.option("command"), definition.option("commands")] {
            let Some((_, value)) = found else { continue };
            match &value.kind {
                Json::String(text) => commands.push(text),
                Json::Array(items) => {
                    commands.extend(items.iter().filter_map(|item| item.as_str().or_else(|| item.text("command"))));
                }
                _ => {}
            }
            if !commands.is_empty() {
                break;
            }
        }
        if commands.is_empty() {
            return None;
        }
        if commands.len() > 1 && definition.option("parallel").and_then(|(_, value)| value.as_bool()) != Some(false) {
            let place = definition.option("commands").map(|(document, value)| document.place(value.at));
            draft.note_at(NoteKind::Check, place, "these commands run one after another, not at once");
        }
        let mut text = commands.iter().map(|command| interpolate(command, project)).collect::<Vec<_>>().join(" && ");
        if let Some((document, value)) = definition.option("args") {
            match &value.kind {
                Json::String(arguments) if commands.len() == 1 => {
                    text = format!("{text} {}", interpolate(arguments, project))
                }
                _ => {
                    draft.note_at(NoteKind::Dropped, Some(document.place(value.at)), "`args`: add them to the command")
                }
            }
        }
        if text.contains("{args.") {
            let place = definition.get("options").map(|(document, value)| document.place(value.at));
            draft.note_at(
                NoteKind::Check,
                place,
                "`{args.…}` stands for arguments of Nx's command line: put their values in its place",
            );
        }
        // Nx runs commands at the root unless it is told another folder.
        let cwd = definition.option("cwd").and_then(|(_, value)| value.as_str()).map(|cwd| interpolate(cwd, project));
        let cwd = match cwd.as_deref() {
            Some(cwd) => resolve("", cwd.strip_prefix(SOURCES).unwrap_or(cwd).trim_start_matches('/'))?,
            None => String::new(),
        };
        let way = relative(&project.folder, &cwd);
        Some(if way == "." { text } else { format!("cd {way} && {text}") })
    }

    fn outputs(&self, project: &Project<'a>, definition: &Definition<'a>, draft: &mut Draft) -> Vec<Text> {
        let mut found = Vec::new();
        let Some((document, items)) = definition.list("outputs") else { return found };
        for item in items {
            let place = document.place(item.at);
            let Some(text) = item.as_str() else { continue };
            let (sign, rest) = text.strip_prefix('!').map_or(("", text), |rest| ("!", rest));
            let mut rest = rest.to_owned();
            if let Some(key) = rest.strip_prefix("{options.").and_then(|rest| rest.strip_suffix('}')) {
                let option = definition.option(key).and_then(|(_, value)| value.as_str());
                let Some(option) = option else {
                    draft.note_at(NoteKind::Dropped, Some(place), format!("output `{text}`: there is no such option"));
                    continue;
                };
                rest = option.to_owned();
            }
            let at_root = if let Some(inside) = rest.strip_prefix("{projectRoot}") {
                join(&project.folder, inside.trim_start_matches('/'))
            } else {
                let rest = rest.strip_prefix("{workspaceRoot}").unwrap_or(&rest);
                interpolate(rest.trim_start_matches('/'), project)
            };
            match below(&project.folder, at_root.trim_end_matches('/')).filter(|inside| !inside.is_empty()) {
                Some(inside) => found.push(Text { text: format!("{sign}{inside}"), place }),
                None => draft.note_at(
                    NoteKind::Dropped,
                    Some(place),
                    format!("output `{text}`: it is not in the project's folder, and outputs are; let the command write into it"),
                ),
            }
        }
        found
    }

    fn inputs(
        &self,
        project: &Project<'a>,
        definition: &Definition<'a>,
        target: &mut Target,
        draft: &mut Draft,
    ) -> Inputs {
        let mut inputs = Inputs::default();
        let Some((document, items)) = definition.list("inputs") else { return inputs };
        let mut seen = BTreeSet::new();
        for item in items {
            self.input(project, document, item, &mut inputs, &mut seen, 0, target, draft);
        }
        inputs
    }

    #[expect(clippy::too_many_arguments, reason = "one entry, with all that it may add to")]
    fn input(
        &self,
        project: &Project<'a>,
        document: &'a Document,
        item: &'a Value,
        inputs: &mut Inputs,
        seen: &mut BTreeSet<&'a str>,
        depth: usize,
        target: &mut Target,
        draft: &mut Draft,
    ) {
        let place = document.place(item.at);
        if depth > MAX_NAMED {
            return;
        }
        let text = match (&item.kind, item.members().first()) {
            (Json::String(text), _) => text.as_str(),
            (_, Some(member)) => match member.key.as_str() {
                "fileset" => member.value.as_str().unwrap_or_default(),
                // The files of dependencies reach a step as their outputs.
                "dependentTasksOutputFiles" => return,
                "env" => {
                    let names = [Text { text: member.value.as_str().unwrap_or_default().to_owned(), place }];
                    environment(&names, target, draft);
                    return;
                }
                _ => match (item.text("input"), item.get("projects").or_else(|| item.get("dependencies"))) {
                    (Some(name), None) => name,
                    (Some(_), Some(_)) => return,
                    _ if member.key == "runtime" => {
                        let text =
                            "`runtime`: add the command to `probe` of the toolchain, whose output is in every key";
                        draft.note_at(NoteKind::Dropped, Some(place), text);
                        return;
                    }
                    _ => {
                        draft.note_at(
                            NoteKind::Dropped,
                            Some(place),
                            format!("input `{}`: cas has nothing like it", member.key),
                        );
                        return;
                    }
                },
            },
            _ => return,
        };
        // What dependencies give reaches a step as their outputs.
        if text.starts_with('^') {
            return;
        }
        let (sign, rest) = text.strip_prefix('!').map_or(("", text), |rest| ("!", rest));
        if let Some(inside) = rest.strip_prefix("{projectRoot}") {
            let glob = inside.trim_start_matches('/');
            if sign.is_empty() && matches!(glob, "" | "**" | "**/*" | "**/**") {
                inputs.is_everything = true;
            } else {
                inputs.globs.push(Text { text: format!("{sign}{glob}"), place });
            }
        } else if let Some(inside) = rest.strip_prefix("{workspaceRoot}") {
            let text = format!("{sign}{}", interpolate(inside.trim_start_matches('/'), project));
            inputs.workspace.push(Text { text, place });
        } else if let Some((document, named)) = self.named(project, rest).filter(|_| sign.is_empty()) {
            // A name that is in itself, or twice, adds nothing.
            if seen.insert(rest) {
                for item in named.items() {
                    self.input(project, document, item, inputs, seen, depth + 1, target, draft);
                }
            }
        } else if rest == "default" {
            inputs.is_everything = true;
        } else {
            draft.note_at(NoteKind::Dropped, Some(place), format!("input `{text}`: there are no inputs of this name"));
        }
    }

    fn named(&self, project: &Project<'a>, name: &str) -> Option<(&'a Document, &'a Value)> {
        let own = project.document.map(|document| (document, &document.root));
        let nx = project.package.and_then(|package| Some((&package.document, package.document.root.get("nx")?)));
        let all = own.into_iter().chain(nx).chain([(self.root, &self.root.root)]);
        all.into_iter().find_map(|(document, value)| Some((document, value.get("namedInputs")?.get(name)?)))
    }

    fn deps(&self, definition: &Definition<'a>, implicit: &[String], target: &mut Target, draft: &mut Draft) {
        let Some((document, items)) = definition.list("dependsOn") else { return };
        for item in items {
            let place = document.place(item.at);
            let mut drop =
                |why: &str| draft.note_at(NoteKind::Dropped, Some(place.clone()), format!("dependency: {why}"));
            let (text, scope) = match item.as_str() {
                Some(text) => (text, None),
                None => match item.text("target") {
                    Some(text) => (text, item.get("projects").or_else(|| item.get("dependencies"))),
                    None => {
                        drop("it names no target");
                        continue;
                    }
                },
            };
            if item.text("params") == Some("forward") {
                drop("`params`: arguments of Nx's command line");
            }
            let (is_up, name) = text.strip_prefix('^').map_or((false, text), |rest| (true, rest));
            let (project, name) = match name.rsplit_once(':').filter(|(project, _)| self.by_name.contains_key(project))
            {
                Some((project, name)) => (Some(project), name),
                None => (None, name),
            };
            let Some(name) = target_name(name).filter(|_| !name.contains('*')) else {
                drop(&format!("`{text}` cannot be the name of a target"));
                continue;
            };
            let scopes: Vec<&str> = scope.map(Value::strings).unwrap_or_default();
            let is_up = is_up || scope.is_some_and(|scope| scope.as_bool() == Some(true)) || scopes == ["dependencies"];
            if is_up {
                target.deps.push(Dep::Up(name.clone()));
                target.deps.extend(implicit.iter().map(|to| Dep::Full(to.clone(), name.clone())));
                continue;
            }
            let named: Vec<&str> = project
                .into_iter()
                .chain(scopes.into_iter().filter(|scope| !matches!(*scope, "self" | "{self}")))
                .collect();
            if named.is_empty() {
                target.deps.push(Dep::Own(name));
                continue;
            }
            for project in named {
                match self.by_name.get(project) {
                    Some(to) => target.deps.push(Dep::Full((*to).to_owned(), name.clone())),
                    None => drop(&format!("there is no project `{project}`")),
                }
            }
        }
    }
}

/// Scripts that npm runs by itself.
fn is_lifecycle(name: &str) -> bool {
    matches!(
        name,
        "prepare" | "prepublishOnly" | "preinstall" | "install" | "postinstall" | "prepack" | "postpack" | "nx"
    )
}

fn interpolate(text: &str, project: &Project<'_>) -> String {
    let root = if project.folder.is_empty() { "." } else { &project.folder };
    text.replace("{projectRoot}", root).replace("{projectName}", &project.name).replace("{workspaceRoot}", SOURCES)
}
