//! Go modules and `go.work`: one build and one test over the whole of each.

use std::collections::BTreeSet;

use crate::InitError;
use crate::draft::{Draft, HOST, Kind, Target};
use crate::folder::{Folder, join, resolve};
use crate::host::Host;
use crate::jsonc::position;
use crate::note::{NoteKind, counted};

/// How deep and in how many files a program is looked for.
const MAX_DEPTH: usize = 8;
const MAX_FILES: usize = 5_000;

/// Adds the module or the workspace of modules in `path`; returns the folders of the modules.
pub(crate) fn add(folder: &Folder, host: &Host, path: &str, draft: &mut Draft) -> Result<BTreeSet<String>, InitError> {
    let work = join(path, "go.work");
    let (modules, patterns) = match folder.read(&work)? {
        Some(text) => {
            let mut modules = BTreeSet::new();
            let mut patterns = Vec::new();
            for used in uses(&work, &text)? {
                let Some(module) = resolve(path, &used) else {
                    draft.note(NoteKind::Dropped, format!("`{work}` uses `{used}`, which is outside of this folder"));
                    continue;
                };
                let relative = crate::folder::below(path, &module).unwrap_or_default();
                patterns.push(if relative.is_empty() { "./...".to_owned() } else { format!("./{relative}/...") });
                modules.insert(module);
            }
            (modules, patterns)
        }
        None => (BTreeSet::from([path.to_owned()]), vec!["./...".to_owned()]),
    };
    let at = if path.is_empty() { "the root" } else { path };
    let what = if folder.exists(&work)? { "Go workspace" } else { "Go module" };
    draft.note(NoteKind::Found, format!("{what} in {at}: {}", counted(modules.len(), "module")));
    draft.note(
        NoteKind::Hermetic,
        format!(
            "for go, in place of `[toolchain.{HOST}]`: `debian = {{ suite = \"trixie\", packages = [\"golang-go\"] }}`"
        ),
    );

    let mut env = draft.use_programs(&[("go".to_owned(), host.find("go"))]);
    env.insert("GOTOOLCHAIN".to_owned(), "local".to_owned());
    env.insert("GOPROXY".to_owned(), "off".to_owned());
    let comments = third_party(folder, host, path, &modules, &mut env, draft)?;

    let patterns = patterns.join(" ");
    let mut build = Target::new(Kind::Command, format!("go build {patterns}"));
    let mut has_program = false;
    for module in &modules {
        has_program |= self::has_program(folder, module)?;
    }
    if has_program {
        let bin = join(path, "bin");
        let name = if folder.exists(&bin)? && !folder.is_ignored(&bin, true) { "out" } else { "bin" };
        build.run = format!("mkdir -p {name} && go build -trimpath -o {name}/ {patterns}");
        build.outputs = vec![name.to_owned()];
    }
    build.comments = comments;
    let mut test = Target::new(Kind::Test, format!("go test {patterns}"));
    for target in [&mut build, &mut test] {
        target.env.clone_from(&env);
    }
    let section = draft.section(path);
    for (name, target) in [("build", build), ("test", test)] {
        let name = section.free_name(name, "go");
        section.targets.push((name, target));
    }
    Ok(modules)
}

/// Where modules come from: `vendor`, which git tracks; nothing, when none is needed; else the machine's module cache.
fn third_party(
    folder: &Folder,
    host: &Host,
    path: &str,
    modules: &BTreeSet<String>,
    env: &mut std::collections::BTreeMap<String, String>,
    draft: &mut Draft,
) -> Result<Vec<String>, InitError> {
    let vendor = join(path, "vendor/modules.txt");
    if folder.is_file(&vendor) && !folder.is_ignored(&vendor, false) {
        return Ok(Vec::new());
    }
    let mut needs_any = false;
    for module in modules {
        needs_any |= folder.is_file(&join(module, "go.sum"));
    }
    if !needs_any {
        return Ok(Vec::new());
    }
    draft.note(NoteKind::Hermetic, "`go mod vendor`, with `vendor` in git, in place of the module cache");
    let fill = "go mod download";
    let Some(cache) = host.module_cache() else {
        draft.note(
            NoteKind::Todo,
            format!("set GOMODCACHE to where `{fill}` puts modules, and add it to `paths` of `[toolchain.{HOST}]`"),
        );
        return Ok(Vec::new());
    };
    let cache = cache.display().to_string();
    draft.note(NoteKind::Todo, format!("run `{fill}`: steps read modules from `{cache}`"));
    draft.show(&cache);
    env.insert("GOMODCACHE".to_owned(), cache);
    Ok(vec!["Modules come from this machine's module cache: not hermetic.".to_owned(), format!("Fill it with: {fill}")])
}

/// The folders of `use`. Source: "Go Modules Reference", go.work files.
fn uses(path: &str, text: &str) -> Result<Vec<String>, InitError> {
    let mut found = Vec::new();
    let mut is_inside = false;
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let at = start;
        start += line.len();
        let line = line.split("//").next().unwrap_or_default().trim();
        let rest = if is_inside {
            Some(line)
        } else {
            line.strip_prefix("use").filter(|rest| rest.starts_with([' ', '\t', '(', '"']))
        };
        let Some(rest) = rest.map(str::trim).filter(|rest| !rest.is_empty()) else { continue };
        match rest {
            "(" if !is_inside => is_inside = true,
            ")" if is_inside => is_inside = false,
            word => {
                let inside = word.strip_prefix(['"', '`']).map_or(Some(word), |rest| rest.strip_suffix(['"', '`']));
                match inside.filter(|word| !word.is_empty() && !word.contains(['"', '`', ' ', '(', ')'])) {
                    Some(word) => found.push(word.to_owned()),
                    None => {
                        let (line, column) = position(text, at);
                        let message = "a folder was expected after `use`".to_owned();
                        return Err(InitError::Syntax { path: path.to_owned(), line, column, message });
                    }
                }
            }
        }
    }
    Ok(found)
}

/// Whether a module has a `package main`.
fn has_program(folder: &Folder, module: &str) -> Result<bool, InitError> {
    let mut is_found = false;
    let mut count = 0;
    folder.walk(module, MAX_DEPTH, &mut |path, entries| {
        let is_other = path != module && entries.iter().any(|entry| entry.name == "go.mod");
        if is_found
            || is_other
            || path.rsplit('/').next().is_some_and(|name| name == "testdata" || name.starts_with('_'))
        {
            return Ok(false);
        }
        for entry in entries.iter().filter(|entry| !entry.is_dir && is_source(&entry.name)) {
            count += 1;
            if count > MAX_FILES {
                return Ok(false);
            }
            // A file that is longer, or no text, is no reason to fail.
            let text = folder.read(&join(path, &entry.name)).ok().flatten().unwrap_or_default();
            let is_left_out =
                text.lines().any(|line| line.starts_with("//go:build ignore") || line.starts_with("// +build ignore"));
            is_found |= !is_left_out
                && text.lines().any(|line| line.split("//").next().unwrap_or_default().trim() == "package main");
        }
        Ok(!is_found)
    })?;
    Ok(is_found)
}

fn is_source(name: &str) -> bool {
    name.strip_suffix(".go").is_some_and(|stem| !stem.ends_with("_test") && !stem.starts_with(['_', '.']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uses_are_read_in_both_forms() {
        for (text, expected) in [
            ("go 1.22\nuse ./a // x\nuse (\n\t./b\n\t\"./c\"\n)\nreplace x => ./d\n", "./a ./b ./c"),
            ("use(\n)\nuser ./x\n", ""),
            ("", ""),
        ] {
            assert_eq!(uses("go.work", text).expect("it is right").join(" "), expected, "{text}");
        }
        let error = uses("go.work", "go 1\nuse ./a ./b\n").expect_err("it is wrong");
        assert_eq!(error.to_string(), "`go.work`, line 2, column 1: a folder was expected after `use`");
    }
}
