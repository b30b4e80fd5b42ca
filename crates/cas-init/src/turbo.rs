//! `turbo.json`: tasks of version 2 and pipelines of version 1. Source: Turborepo's "Configuring turbo.json", 2.x and 1.x, and
//! "Package Configurations".

use std::collections::{BTreeMap, BTreeSet};

use crate::InitError;
use crate::draft::{Dep, Draft, Kind, Target, target_name};
use crate::folder::{Folder, join};
use crate::import::{Files, Inputs, Text, Uncached, environment, object, outputs, shared_outputs, tell_of_root, texts};
use crate::javascript::{Package, Packages, Setting, is_hermetic_test, is_test_like, run_script};
use crate::jsonc::{Document, Value};
use crate::note::NoteKind;
use crate::outputs::of_script;

const FILES: [&str; 2] = ["turbo.json", "turbo.jsonc"];
/// Everything that turbo takes by itself.
const DEFAULT: &str = "$TURBO_DEFAULT$";
/// The root of the workspace.
const ROOT: &str = "$TURBO_ROOT$";
/// What the wider definition has.
const EXTENDS: &str = "$TURBO_EXTENDS$";

/// Settings of turbo itself that a step has no use for, and that nobody misses.
const PASSED: [&str; 3] = ["$schema", "extends", "description"];

/// A task with what each key holds, and where.
#[derive(Clone, Default)]
struct Task<'a> {
    keys: BTreeMap<&'a str, Vec<(&'a Document, &'a Value)>>,
}

impl<'a> Task<'a> {
    /// Lays a definition over this one, key by key.
    fn lay(&mut self, document: &'a Document, value: &'a Value) {
        for member in value.members() {
            let is_more = member.value.items().iter().any(|item| item.as_str() == Some(EXTENDS));
            let slot = self.keys.entry(member.key.as_str()).or_default();
            if !is_more {
                slot.clear();
            }
            slot.push((document, &member.value));
        }
    }

    fn list(&self, key: &str, draft: &mut Draft) -> Vec<Text> {
        let values = self.keys.get(key).map_or(&[][..], Vec::as_slice);
        let mut found: Vec<Text> = values.iter().flat_map(|(document, value)| texts(document, value, draft)).collect();
        found.retain(|text| text.text != EXTENDS);
        found
    }

    fn flag(&self, key: &str) -> Option<(&'a Document, &'a Value, bool)> {
        let (document, value) = *self.keys.get(key)?.last()?;
        Some((document, value, value.as_bool()?))
    }
}

/// Adds the tasks of `turbo.json` files.
pub(crate) fn import(
    folder: &Folder,
    packages: &Packages,
    setting: &Setting,
    draft: &mut Draft,
) -> Result<(), InitError> {
    let root = read(folder, "")?.ok_or(InitError::NothingToImport { file: FILES[0] })?;
    let root_tasks = tasks(&root)?;
    let global = globals(folder, &root, draft)?;
    let mut own = BTreeMap::new();
    for path in packages.packages.keys().filter(|path| !path.is_empty()) {
        if let Some(document) = read(folder, path)? {
            own.insert(path.clone(), document);
        }
    }
    let mut used = BTreeSet::new();
    let mut uncached = Uncached::default();
    let mut files = Files::default();
    for package in packages.packages.values() {
        let document = own.get(&package.folder);
        let own_tasks = match document {
            Some(document) => {
                own_settings(document, draft);
                tasks(document)?
            }
            None => Tasks::new(),
        };
        let definitions =
            Definitions { package, root: &root, root_tasks: &root_tasks, document, own_tasks: &own_tasks };
        for (name, task) in definitions.with_scripts(&mut used) {
            let at = Where { folder, packages, definitions: &definitions, package, name };
            at.carry(&task, &global, setting, &mut files, &mut uncached, draft)?;
        }
    }
    for key in root_tasks.keys().filter(|key| !used.contains(**key)) {
        let place = root_place(&root, key);
        draft.note_at(NoteKind::Dropped, place, format!("task `{key}`: no package has such a script"));
    }
    uncached.settle(packages, draft);
    shared_outputs(draft);
    Ok(())
}

fn read(folder: &Folder, path: &str) -> Result<Option<Document>, InitError> {
    for name in FILES {
        if let Some(document) = folder.json(&join(path, name))? {
            object(&document, &document.root, "the file")?;
            return Ok(Some(document));
        }
    }
    Ok(None)
}

/// The tasks by name.
type Tasks<'a> = BTreeMap<&'a str, &'a Value>;

fn tasks(document: &Document) -> Result<Tasks<'_>, InitError> {
    let mut found = Tasks::new();
    for key in ["pipeline", "tasks"] {
        let Some(value) = document.root.get(key) else { continue };
        for member in object(document, value, &format!("`{key}`"))?.members() {
            found.insert(&member.key, object(document, &member.value, &format!("task `{}`", member.key))?);
        }
    }
    Ok(found)
}

fn root_place(root: &Document, task: &str) -> Option<crate::note::Place> {
    let sections = ["tasks", "pipeline"].into_iter().filter_map(|key| root.root.get(key));
    let member = sections.flat_map(Value::members).find(|member| member.key == task)?;
    Some(root.place(member.key_at))
}

/// What holds for all tasks.
struct Global {
    environment: Vec<Text>,
}

fn globals(folder: &Folder, root: &Document, draft: &mut Draft) -> Result<Global, InitError> {
    let mut environment = Vec::new();
    for member in root.root.members() {
        let place = Some(root.place(member.key_at));
        match member.key.as_str() {
            "tasks" | "pipeline" => {}
            key if PASSED.contains(&key) => {}
            "globalEnv" | "globalPassThroughEnv" => environment.extend(texts(root, &member.value, draft)),
            "globalDependencies" => {
                let mut all = texts(root, &member.value, draft);
                for glob in &mut all {
                    if let Some(rest) = glob.text.strip_prefix(ROOT) {
                        glob.text = rest.trim_start_matches('/').to_owned();
                    }
                }
                let mut none = Target::new(Kind::Command, "");
                let inputs = Inputs { workspace: all, ..Inputs::default() };
                Files::default().inputs(folder, "", inputs, &mut none, draft)?;
            }
            key => draft.note_at(NoteKind::Dropped, place, format!("`{key}` is a setting of turbo itself")),
        }
    }
    Ok(Global { environment })
}

fn own_settings(document: &Document, draft: &mut Draft) {
    for member in document.root.members() {
        let place = Some(document.place(member.key_at));
        match member.key.as_str() {
            "tasks" | "pipeline" => {}
            "extends" => {
                for base in texts(document, &member.value, draft).into_iter().filter(|base| base.text != "//") {
                    let text = format!(
                        "`extends` of `{}`: the root's tasks are carried, not those of other packages",
                        base.text
                    );
                    draft.note_at(NoteKind::Dropped, Some(base.place), text);
                }
            }
            key if PASSED.contains(&key) => {}
            key => draft.note_at(NoteKind::Dropped, place, format!("`{key}` is a setting of turbo itself")),
        }
    }
}

/// What is said of the tasks of one package.
struct Definitions<'a> {
    package: &'a Package,
    root: &'a Document,
    root_tasks: &'a Tasks<'a>,
    /// The package's own file, and its tasks.
    document: Option<&'a Document>,
    own_tasks: &'a Tasks<'a>,
}

impl<'a> Definitions<'a> {
    /// The tasks whose names the package's scripts have.
    fn with_scripts(&self, used: &mut BTreeSet<String>) -> Vec<(&'a str, Task<'a>)> {
        let mut seen = BTreeSet::new();
        let names = self.package.scripts.iter().map(|(script, ..)| script.as_str());
        names.filter(|name| seen.insert(*name)).filter_map(|name| Some((name, self.task(name, used)?))).collect()
    }

    /// A task, from the widest definition to the nearest.
    fn task(&self, name: &str, used: &mut BTreeSet<String>) -> Option<Task<'a>> {
        let is_root = self.package.folder.is_empty();
        let package = if is_root { "//" } else { self.package.name.as_deref().unwrap_or_default() };
        let mut task = Task::default();
        // A definition for one package stands in the place of the one for all.
        let one = self.root_tasks.get_key_value(format!("{package}#{name}").as_str());
        let all = self.root_tasks.get_key_value(name).filter(|_| !is_root);
        used.extend([one, all].into_iter().flatten().map(|(key, _)| (*key).to_owned()));
        let wide = one.or(all);
        if let Some((_, value)) = wide {
            task.lay(self.root, value);
        }
        let own = self.own_tasks.get(name).or_else(|| self.own_tasks.get(format!("{package}#{name}").as_str()));
        let own = self.document.zip(own);
        if let Some((document, value)) = own {
            if value.get("extends").and_then(Value::as_bool) == Some(false) {
                task = Task::default();
            }
            task.lay(document, value);
        }
        (wide.is_some() || own.is_some()).then_some(task)
    }
}

/// A task of a package.
struct Where<'a> {
    folder: &'a Folder,
    packages: &'a Packages,
    definitions: &'a Definitions<'a>,
    package: &'a Package,
    name: &'a str,
}

impl Where<'_> {
    fn carry(
        &self,
        task: &Task<'_>,
        global: &Global,
        setting: &Setting,
        files: &mut Files,
        uncached: &mut Uncached,
        draft: &mut Draft,
    ) -> Result<(), InitError> {
        let Self { folder, packages, package, name, .. } = self;
        let path = package.folder.as_str();
        if let Some((document, value, true)) = task.flag("persistent") {
            let place = document.place(value.at);
            match target_name(name).filter(|own| !draft.section(path).has(own)) {
                Some(own) => {
                    let mut target = Target::new(Kind::Run, run_script(name));
                    target.place = Some(place);
                    self.deps(task, &mut target, draft);
                    draft.section(path).targets.push((own, target));
                }
                None => draft.note_at(NoteKind::Dropped, Some(place), format!("`{name}` does not end: it is no step")),
            }
            return Ok(());
        }
        for (key, values) in &task.keys {
            let is_known =
                matches!(*key, "dependsOn" | "outputs" | "inputs" | "env" | "passThroughEnv" | "cache" | "persistent")
                    || PASSED.contains(key);
            for (document, value) in values.iter().filter(|_| !is_known) {
                let text = format!("`{key}`: cas has nothing like it");
                draft.note_at(NoteKind::Dropped, Some(document.place(value.at)), text);
            }
        }
        let own = target_name(name).filter(|own| !draft.section(path).has(own));
        let script = package.scripts.iter().find(|(script, ..)| script == name);
        let place = script.map(|(.., at)| package.document.place(*at));
        let Some(own) = own else {
            let text = format!("task `{name}`: its name as a target is taken, or none can be made of it");
            draft.note_at(NoteKind::Dropped, place, text);
            return Ok(());
        };
        let kind = if is_test_like(name) { Kind::Test } else { Kind::Command };
        let mut target = Target::new(kind, run_script(name));
        target.place = place;
        target.env.clone_from(&setting.env);
        let guess = of_script(folder, packages, package, name, *name == "build", draft)?;
        outputs(folder, path, &task.list("outputs", draft), guess, &mut target, draft);
        self.inputs(task, files, &mut target, draft)?;
        self.deps(task, &mut target, draft);
        tell_of_root(path, &own, packages, &target, draft);
        target.deps.extend(setting.modules.clone());
        environment(&global.environment, &mut target, draft);
        environment(&task.list("env", draft), &mut target, draft);
        environment(&task.list("passThroughEnv", draft), &mut target, draft);
        if let Some((document, value, false)) = task.flag("cache") {
            let has_outputs = task.list("outputs", draft).iter().any(|output| !output.text.starts_with('!'));
            uncached.add(path, &own, is_hermetic_test(name), has_outputs, document.place(value.at), draft);
        }
        draft.section(path).targets.push((own, target));
        Ok(())
    }

    fn inputs(
        &self,
        task: &Task<'_>,
        files: &mut Files,
        target: &mut Target,
        draft: &mut Draft,
    ) -> Result<(), InitError> {
        let mut inputs = Inputs::default();
        for mut glob in task.list("inputs", draft) {
            let (sign, rest) = match glob.text.strip_prefix('!') {
                Some(rest) => ("!", rest),
                None => ("", glob.text.as_str()),
            };
            if rest == DEFAULT {
                inputs.is_everything = true;
            } else if let Some(at_root) = rest.strip_prefix(ROOT) {
                glob.text = format!("{sign}{}", at_root.trim_start_matches('/'));
                inputs.workspace.push(glob);
            } else {
                inputs.globs.push(glob);
            }
        }
        files.inputs(self.folder, &self.package.folder, inputs, target, draft)
    }

    fn deps(&self, task: &Task<'_>, target: &mut Target, draft: &mut Draft) {
        let mut open = task.list("dependsOn", draft);
        open.reverse();
        let mut passed = BTreeSet::new();
        while let Some(dep) = open.pop() {
            let (text, place) = (dep.text.as_str(), Some(dep.place.clone()));
            if let Some(name) = text.strip_prefix('$') {
                // Version 1 wrote variables here.
                environment(&[Text { text: name.to_owned(), place: dep.place }], target, draft);
                continue;
            }
            let named = |name: &str| target_name(name);
            let found = match (text.strip_prefix('^'), text.split_once('#')) {
                (Some(name), _) => named(name).map(Dep::Up),
                (None, Some(("//", name))) => named(name).map(|name| Dep::Full(String::new(), name)),
                (None, Some((package, name))) => {
                    let Some(to) = self.packages.by_name.get(package) else {
                        draft.note_at(NoteKind::Dropped, place, format!("`{text}`: there is no package `{package}`"));
                        continue;
                    };
                    named(name).map(|name| Dep::Full(to.clone(), name))
                }
                // In a package without that script, turbo goes on to what the task would wait for.
                (None, None) if self.package.script(text).is_none() => {
                    if let Some(task) = self.definitions.task(text, &mut BTreeSet::new())
                        && passed.insert(text.to_owned())
                    {
                        open.extend(task.list("dependsOn", draft).into_iter().rev());
                    }
                    continue;
                }
                (None, None) => named(text).map(Dep::Own),
            };
            match found {
                Some(found) => target.deps.push(found),
                None => draft.note_at(NoteKind::Dropped, place, format!("`{text}` cannot be the name of a target")),
            }
        }
    }
}
