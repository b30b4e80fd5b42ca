//! What imports of turbo and nx share: globs become paths, variables become `env_in`, and what is left is told.

use std::collections::{BTreeMap, BTreeSet};

use cas_config::is_secret_like;

use crate::InitError;
use crate::draft::{Dep, Draft, Kind, Target, add};
use crate::folder::{Folder, below, join, parent, resolve};
use crate::globs;
use crate::javascript::{Packages, config_files, tidy_scratch};
use crate::jsonc::{Document, Kind as Json, Value};
use crate::note::{NoteKind, Place};
use crate::outputs::{Guess, without_overlap};

/// Deepest folder of a package whose files inputs are tried on.
const MAX_DEPTH: usize = 16;

/// A text of a description, and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Text {
    pub(crate) text: String,
    pub(crate) place: Place,
}

/// The texts of a list. Anything else in it is told.
pub(crate) fn texts(document: &Document, value: &Value, draft: &mut Draft) -> Vec<Text> {
    let mut found = Vec::new();
    for item in value.items() {
        let place = document.place(item.at);
        match item.as_str() {
            Some(text) => found.push(Text { text: text.to_owned(), place }),
            None => draft.note_at(NoteKind::Dropped, Some(place), "this is not a string"),
        }
    }
    found
}

/// The members of an object that has to be one.
pub(crate) fn object<'a>(document: &Document, value: &'a Value, what: &str) -> Result<&'a Value, InitError> {
    if matches!(value.kind, Json::Object(_)) {
        return Ok(value);
    }
    let Place { file, line, column } = document.place(value.at);
    Err(InitError::Syntax { path: file, line, column, message: format!("{what} is not an object") })
}

/// Adds variables to those that a step gets from outside.
pub(crate) fn environment(names: &[Text], target: &mut Target, draft: &mut Draft) {
    for Text { text, place } in names {
        let mut drop =
            |why: &str| draft.note_at(NoteKind::Dropped, Some(place.clone()), format!("variable `{text}`: {why}"));
        if text.starts_with('!') || text.contains('*') {
            drop("`env_in` has whole names: add those that are meant");
        } else if text.is_empty() || text.contains(|letter: char| letter == '=' || letter.is_control()) {
            drop("this is not a name");
        } else if is_secret_like(text) {
            drop(
                "it looks like a secret, and what `env_in` passes is part of keys; name it in `secrets` of the step, which reads it from a file",
            );
        } else {
            target.env_in.insert(text.clone());
        }
    }
}

/// Sets the outputs of a target: of the globs, which often stand for all packages, those that this one makes.
///
/// Globs are those of the package.
pub(crate) fn outputs(
    folder: &Folder,
    path: &str,
    listed: &[Text],
    guess: Guess,
    target: &mut Target,
    draft: &mut Draft,
) {
    let mut candidates: Vec<(String, Place)> = Vec::new();
    for Text { text, place } in listed {
        let mut note = |kind, why: &str| draft.note_at(kind, Some(place.clone()), format!("output `{text}`: {why}"));
        if text.starts_with('!') {
            note(NoteKind::Dropped, "an output is kept whole, and nothing is left out of it");
            continue;
        }
        let Some(base) = base(text) else {
            note(NoteKind::Dropped, "an output is a folder or a file with a name in the package");
            continue;
        };
        if base.is_wider {
            note(NoteKind::Check, &format!("`{}` is kept whole", base.path));
        }
        candidates.push((base.path, place.clone()));
    }
    target.scratch.extend(guess.scratch);
    if target.kind == Kind::Test {
        for (path, place) in candidates {
            draft.note_at(NoteKind::Check, Some(place), format!("output `{path}`: what tests write is dropped"));
            add(&mut target.scratch, path);
        }
        for path in guess.outputs {
            add(&mut target.scratch, path);
        }
        tidy_scratch(target);
        return;
    }
    let overlaps = |one: &str, other: &str| below(one, other).is_some() || below(other, one).is_some();
    let mut kept: Vec<String> = Vec::new();
    if guess.outputs.is_empty() {
        kept.extend(
            candidates.iter().map(|(at, _)| at.clone()).filter(|at| folder.exists(&join(path, at)).unwrap_or(false)),
        );
        if let ([], [(only, _)]) = (kept.as_slice(), candidates.as_slice()) {
            kept.push(only.clone());
        }
    } else {
        let is_made = |at: &String| guess.outputs.iter().any(|made| overlaps(made, at));
        kept.extend(candidates.iter().map(|(at, _)| at.clone()).filter(is_made));
        kept.extend(guess.outputs.iter().cloned());
    }
    for (at, place) in candidates {
        if !kept.iter().any(|kept| overlaps(kept, &at)) {
            draft.note_at(
                NoteKind::Check,
                Some(place),
                format!("output `{at}`: written only for the packages that make it, as far as that is known"),
            );
        }
    }
    if kept.is_empty() && !listed.is_empty() {
        target.comments.push("Which of the listed outputs it makes is not known: add `outputs`.".to_owned());
    }
    target.outputs = kept;
    without_overlap(&mut target.outputs);
    tidy_scratch(target);
}

struct Base {
    path: String,
    is_wider: bool,
}

/// The folder or file that a glob stands for.
fn base(glob: &str) -> Option<Base> {
    if glob.contains('\0') || glob.starts_with(['/', '$', '{']) {
        return None;
    }
    let mut fixed = Vec::new();
    let mut rest: Vec<&str> = Vec::new();
    for part in globs::tidy(glob).split('/') {
        if rest.is_empty() && !part.contains(['*', '?', '[', '{', '\\']) {
            fixed.push(part);
        } else {
            rest.push(part);
        }
    }
    let path = resolve("", &fixed.join("/")).filter(|path| !path.is_empty())?;
    let is_wider = !matches!(rest.as_slice(), [] | ["**"] | ["**", "*" | "**"]);
    Some(Base { path, is_wider })
}

/// Which files a target sees, as globs of the package.
#[derive(Debug, Default)]
pub(crate) struct Inputs {
    pub(crate) is_everything: bool,
    pub(crate) globs: Vec<Text>,
    /// Globs of the workspace.
    pub(crate) workspace: Vec<Text>,
}

/// The files of packages, as far as inputs were tried on them.
#[derive(Default)]
pub(crate) struct Files(BTreeMap<String, Vec<String>>);

impl Files {
    /// Sets the inputs of a target: those globs that select something, and what tools are configured by.
    pub(crate) fn inputs(
        &mut self,
        folder: &Folder,
        path: &str,
        inputs: Inputs,
        target: &mut Target,
        draft: &mut Draft,
    ) -> Result<(), InitError> {
        for Text { text, place } in inputs.workspace {
            if globs::matcher(globs::tidy(&text)).is_none() || text.starts_with('!') || text.is_empty() {
                draft.note_at(
                    NoteKind::Dropped,
                    Some(place),
                    format!("input `{text}`: not a glob of files at the root"),
                );
                continue;
            }
            let at = globs::tidy(&text).to_owned();
            if draft.inputs.insert(at) {
                draft.note_at(
                    NoteKind::Check,
                    Some(place),
                    format!("input `{text}`: part of every package's inputs, in `[workspace] inputs`"),
                );
            }
        }
        if inputs.globs.iter().any(|glob| glob.text.starts_with('!')) {
            for Text { text, place } in inputs.globs.iter().filter(|glob| glob.text.starts_with('!')) {
                draft.note_at(
                    NoteKind::Dropped,
                    Some(place.clone()),
                    format!("input `{text}`: nothing is left out of inputs"),
                );
            }
        }
        let globs: Vec<&Text> = inputs.globs.iter().filter(|glob| !glob.text.starts_with('!')).collect();
        if inputs.is_everything || globs.is_empty() {
            return Ok(());
        }
        let files = self.of(folder, path, draft)?;
        let mut kept = Vec::new();
        for Text { text, place } in globs {
            let glob = globs::tidy(text);
            let matchers = (globs::matcher(glob), globs::matcher(&format!("{glob}/**")));
            let (Some(own), Some(below)) = matchers else {
                draft.note_at(
                    NoteKind::Dropped,
                    Some(place.clone()),
                    format!("input `{text}`: not a glob that cas has"),
                );
                continue;
            };
            if glob.starts_with("..") || glob.starts_with('/') {
                draft.note_at(
                    NoteKind::Dropped,
                    Some(place.clone()),
                    format!("input `{text}`: outside of the package"),
                );
                continue;
            }
            // One that selects nothing is an error of a build; turbo and nx write globs for all packages.
            if files.iter().any(|file| own.is_match(file) || below.is_match(file)) {
                add(&mut kept, glob);
            }
        }
        if kept.is_empty() {
            return Ok(());
        }
        // Here a file that is no input is not there, so what tools read by themselves has to be one.
        for name in config_files(folder, path)?.into_iter().chain(["package.json".to_owned()]) {
            if folder.is_file(&join(path, &name)) {
                add(&mut kept, name);
            }
        }
        target.inputs = Some(kept);
        Ok(())
    }

    fn of(&mut self, folder: &Folder, path: &str, draft: &Draft) -> Result<&[String], InitError> {
        if !self.0.contains_key(path) {
            let mut files = Vec::new();
            folder.walk(path, MAX_DEPTH, &mut |at, entries| {
                if at != path && draft.sections.contains_key(at) {
                    return Ok(false);
                }
                for entry in entries.iter().filter(|entry| !entry.is_dir) {
                    let file = join(at, &entry.name);
                    if !folder.is_ignored(&file, false) {
                        files.extend(below(path, &file).map(str::to_owned));
                    }
                }
                Ok(true)
            })?;
            self.0.insert(path.to_owned(), files);
        }
        Ok(&self.0[path])
    }
}

/// Tasks that the other tool does not cache: carried only if they are tests, have outputs, or something that is carried waits for
/// them.
#[derive(Default)]
pub(crate) struct Uncached(BTreeMap<(String, String), Place>);

impl Uncached {
    /// Takes note of a task. A test, and what has outputs, is a step all the same: many are not cached because the other tool cannot
    /// see all that they use, and a step has nothing else.
    pub(crate) fn add(
        &mut self,
        folder: &str,
        name: &str,
        is_test: bool,
        has_outputs: bool,
        place: Place,
        draft: &mut Draft,
    ) {
        let why = match (is_test, has_outputs) {
            (true, _) => "it is a test, so it is a step",
            (false, true) => "it has outputs, so it is a step",
            (false, false) => {
                self.0.insert((folder.to_owned(), name.to_owned()), place);
                return;
            }
        };
        draft.note_at(NoteKind::Check, Some(place), format!("`cache: false`: {why}, and runs when its inputs change"));
    }

    pub(crate) fn settle(self, packages: &Packages, draft: &mut Draft) {
        let mut needed: BTreeSet<(String, String)> = BTreeSet::new();
        let mut open: Vec<(String, String)> = Vec::new();
        for (folder, section) in &draft.sections {
            let names = section.targets.iter().map(|(name, _)| (folder.clone(), name.clone()));
            open.extend(names.filter(|key| !self.0.contains_key(key)));
        }
        while let Some((folder, name)) = open.pop() {
            let Some(section) = draft.sections.get(&folder) else { continue };
            let Some((_, target)) = section.targets.iter().find(|(own, _)| *own == name) else { continue };
            for dep in &target.deps {
                let all: Vec<(String, String)> = match dep {
                    Dep::Own(name) => vec![(folder.clone(), name.clone())],
                    Dep::Full(folder, name) => vec![(folder.clone(), name.clone())],
                    Dep::Up(name) => {
                        packages.reached(&folder).into_iter().map(|folder| (folder, name.clone())).collect()
                    }
                };
                for key in all {
                    if self.0.contains_key(&key) && needed.insert(key.clone()) {
                        open.push(key);
                    }
                }
            }
        }
        for (key, place) in self.0 {
            if needed.contains(&key) {
                draft.note_at(
                    NoteKind::Check,
                    Some(place),
                    "`cache: false`: others wait for it, so it is a step, and runs when its inputs change",
                );
                continue;
            }
            let text = format!("`{}` is not cached: such tasks act on something outside, and a step cannot", key.1);
            draft.note_at(NoteKind::Dropped, Some(place), text);
            if let Some(section) = draft.sections.get_mut(&key.0) {
                section.targets.retain(|(name, _)| *name != key.1);
            }
        }
    }
}

/// Tells that commands of one package have a common output, of which a build could keep one only.
pub(crate) fn shared_outputs(draft: &mut Draft) {
    let mut notes = Vec::new();
    for (folder, section) in &draft.sections {
        let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
        for (name, target) in &section.targets {
            for output in &target.outputs {
                if let Some(other) = seen.insert(output, name) {
                    notes.push((
                        target.place.clone(),
                        format!("`//{folder}:{other}` and `//{folder}:{name}` both make `{output}`"),
                    ));
                }
            }
        }
    }
    for (place, text) in notes {
        draft.note_at(NoteKind::Check, place, text);
    }
}

/// Tells that a target of the root does not see the packages below it, as it does with other tools.
pub(crate) fn tell_of_root(path: &str, name: &str, packages: &Packages, target: &Target, draft: &mut Draft) {
    if path.is_empty() && packages.is_workspace() {
        let text = format!("`//:{name}` sees the root's own files, and none of packages: give packages such a target");
        draft.note_at(NoteKind::Check, target.place.clone(), text);
    }
}

/// A path as it is from a folder: with `..` where it has to be.
pub(crate) fn relative(from: &str, to: &str) -> String {
    let mut up = Vec::new();
    let mut at = from;
    while below(at, to).is_none() {
        up.push("..");
        at = parent(at);
    }
    let rest = below(at, to).unwrap_or_default();
    if rest.is_empty() {
        return if up.is_empty() { ".".to_owned() } else { up.join("/") };
    }
    up.push(rest);
    up.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_of_outputs_become_folders() {
        for (glob, expected) in [
            ("dist/**", Some(("dist", false))),
            ("./dist/", Some(("dist", false))),
            ("dist/**/*", Some(("dist", false))),
            ("a/b.js", Some(("a/b.js", false))),
            ("dist/*", Some(("dist", true))),
            ("dist/**/*.js", Some(("dist", true))),
            ("*.tsbuildinfo", None),
            ("**/dist", None),
            ("../x/**", None),
            ("/x", None),
            ("$TURBO_ROOT$/x", None),
            ("", None),
        ] {
            let found = base(glob).map(|base| (base.path, base.is_wider));
            assert_eq!(found.as_ref().map(|(path, wider)| (path.as_str(), *wider)), expected, "{glob}");
        }
    }

    #[test]
    fn relative_paths_lead_back() {
        for (from, to, expected) in
            [("a/b", "", "../.."), ("a/b", "a/b", "."), ("a/b", "a/c/d", "../c/d"), ("", "x", "x"), ("", "", ".")]
        {
            assert_eq!(relative(from, to), expected, "{from} {to}");
        }
    }
}
