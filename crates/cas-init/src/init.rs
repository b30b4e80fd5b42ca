//! From a folder to a proposal.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::draft::Draft;
use crate::folder::{Folder, below};
use crate::host::Host;
use crate::javascript::Packages;
use crate::note::{Note, NoteKind, counted};
use crate::{InitError, cargo, cycles, go, javascript, nx, plain, render, tools, turbo};

/// Folder of what builds write, by its name in a `.gitignore`.
const IGNORED: &str = "/cas-out/";
/// How deep modules and crates are looked for that no workspace names.
const MAX_DEPTH: usize = 4;

/// Where targets come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// What is in the folder.
    Folder,
    /// `turbo.json`
    Turbo,
    /// `nx.json` and `project.json`
    Nx,
}

/// What could be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// The folder, absolute.
    pub root: PathBuf,
    /// Texts of new `cas.toml` files, by path from the folder on.
    pub files: BTreeMap<String, String>,
    /// What the folder's `.gitignore` would hold, when it has to change.
    pub gitignore: Option<String>,
    /// The report, by kind.
    pub notes: Vec<Note>,
}

/// Looks at a folder and says what its `cas.toml` files could be. Writes nothing, runs nothing.
///
/// # Errors
///
/// [`InitError`]: a `cas.toml` where one would be written, a file of a description that is broken, the system's errors.
pub fn propose(root: &Path, host: &Host, source: Source) -> Result<Proposal, InitError> {
    let folder = Folder::new(root)?;
    let mut draft = Draft::default();
    let packages = Packages::find(&folder)?;
    let setting = javascript::lay_out(&folder, host, &packages, &mut draft)?;
    match source {
        Source::Folder => {
            if packages.manager.is_some() {
                javascript::targets(&folder, &packages, &setting, &mut draft)?;
            }
            others(&folder, host, &packages, &mut draft)?;
            if draft.sections.is_empty() {
                plain::add(&folder, &mut draft)?;
            }
        }
        Source::Turbo => turbo::import(&folder, &packages, &setting, &mut draft)?,
        Source::Nx => nx::import(&folder, &packages, &setting, &mut draft)?,
    }
    draft.section("");
    cycles::settle(&mut draft, &packages);
    if source != Source::Folder {
        cycles::close(&mut draft, &packages);
    }
    javascript::share_sources(&folder, &packages, &mut draft);
    tools::remark(&folder, host, &packages, &mut draft)?;
    remark(&mut draft);
    let files = render::texts(&draft)?;
    for path in files.keys() {
        if folder.exists(path)? {
            return Err(InitError::Exists { path: path.clone() });
        }
    }
    let gitignore = gitignore(&folder)?;
    let notes = draft.notes.into_iter().collect();
    Ok(Proposal { root: folder.root().to_owned(), files, gitignore, notes })
}

/// Crates and Go modules: those of the root, and those below it that belong to no workspace above them.
fn others(folder: &Folder, host: &Host, packages: &Packages, draft: &mut Draft) -> Result<(), InitError> {
    let mut crates = BTreeSet::new();
    let mut modules = BTreeSet::new();
    folder.walk("", MAX_DEPTH, &mut |path, entries| {
        let has = |name: &str| entries.iter().any(|entry| !entry.is_dir && entry.name == name);
        let is_new = |known: &BTreeSet<String>| !known.iter().any(|known| below(known, path).is_some());
        if has("Cargo.toml") && is_new(&crates) {
            crates.insert(path.to_owned());
        }
        if has("go.work") && is_new(&modules) {
            modules.insert(path.to_owned());
        }
        if has("go.mod") && !modules.iter().any(|known| path == known) {
            modules.insert(path.to_owned());
        }
        Ok(true)
    })?;
    let mut parts = BTreeMap::new();
    for path in crates {
        let folders = cargo::add(folder, host, &path, draft)?;
        parts.insert((path, "cargo"), folders);
    }
    let mut used: BTreeSet<String> = BTreeSet::new();
    for path in modules {
        if !used.contains(&path) {
            let folders = go::add(folder, host, &path, draft)?;
            used.extend(folders.iter().filter(|folder| **folder != path).cloned());
            parts.insert((path, "go"), folders);
        }
    }
    let folders: Vec<String> = draft.sections.keys().filter(|folder| !folder.is_empty()).cloned().collect();
    for path in &folders {
        if !packages.packages.contains_key(path) {
            draft.members.push(path.clone());
        }
    }
    // A step of a workspace sees the files of its own package; its parts in other packages are inputs of all.
    for ((path, what), parts) in parts {
        for part in parts.iter().filter(|part| **part != path) {
            let owner = folders.iter().find(|folder| **folder != path && below(folder, part).is_some());
            if owner.is_some() {
                draft.inputs.insert(format!("{part}/**"));
                draft.note(
                    NoteKind::Check,
                    format!("`{part}` is part of two packages: its files are inputs of all, for {what}"),
                );
            }
        }
    }
    Ok(())
}

/// What is to be said of the targets, now that they are known.
fn remark(draft: &mut Draft) {
    let mut count = 0;
    let mut notes = Vec::new();
    for (folder, section) in &draft.sections {
        for (name, target) in &section.targets {
            count += 1;
            let is_open = target.comments.iter().any(|line| line.contains("add `outputs`"));
            if is_open {
                let text = format!(
                    "`//{folder}:{name}`: what it makes is not known; build it once, and add what it names to `outputs`"
                );
                notes.push((NoteKind::Check, target.place.clone(), text));
            }
        }
    }
    for (kind, place, text) in notes {
        draft.note_at(kind, place, text);
    }
    draft.note(NoteKind::Found, format!("{} in {}", counted(count, "target"), counted(draft.sections.len(), "file")));
    if count == 0 {
        draft.note(
            NoteKind::Todo,
            "nothing here says what builds make: add targets; comments in `cas.toml` may show how",
        );
    }
    for (_, section) in draft.sections.iter_mut().filter(|(folder, _)| !folder.is_empty()) {
        if section.targets.is_empty() && section.comments.is_empty() && section.fetches.is_empty() {
            section.comments.push("No targets: this file makes the folder a package of the workspace.".to_owned());
        }
    }
    if draft.host.is_used {
        draft.note(
            NoteKind::Hermetic,
            "steps run with this machine's programs, so results are kept in a lane of their own: another machine makes its own ones",
        );
    }
}

/// The `.gitignore` with the folder of outputs, when there is a repository that does not ignore it.
fn gitignore(folder: &Folder) -> Result<Option<String>, InitError> {
    let mut is_repository = false;
    for at in folder.root().ancestors() {
        if cas_fs::exists(&at.join(".git"))? {
            is_repository = true;
            break;
        }
    }
    if !is_repository || folder.is_ignored("cas-out", true) {
        return Ok(None);
    }
    let mut text = folder.read(".gitignore")?.unwrap_or_default();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str(IGNORED);
    text.push('\n');
    Ok(Some(text))
}
