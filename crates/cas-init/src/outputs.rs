//! What a script makes, as far as it is certain: settings of the compiler, defaults of programs that the script runs, and paths
//! that `package.json` publishes and git ignores.
//!
//! A script is text for a shell and could do anything. Its commands are looked at one by one, through `npm run` and the like; a
//! command that is not known adds nothing. So a guess can lack something, and then the step's error names it.

use std::collections::BTreeSet;

use crate::InitError;
use crate::draft::{Draft, add};
use crate::folder::{Folder, below, join, resolve};
use crate::javascript::{Package, Packages};
use crate::jsonc::Value;
use crate::tsconfig;

/// How deep scripts may call scripts, and configurations refer to configurations.
const MAX_DEPTH: usize = 8;
/// Most commands of one script that are looked at.
const MAX_COMMANDS: usize = 256;

/// Most published paths of one package that are looked at.
const MAX_PUBLISHED: usize = 1_000;

/// What is known of a script; paths are those of the package.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Guess {
    pub(crate) outputs: Vec<String>,
    pub(crate) scratch: Vec<String>,
}

struct Reader<'a> {
    folder: &'a Folder,
    packages: &'a Packages,
    package: &'a Package,
    draft: &'a mut Draft,
    guess: Guess,
    /// Those that the script calls, itself or by other scripts.
    programs: BTreeSet<String>,
    seen: BTreeSet<String>,
    command_count: usize,
}

/// What a script of a package makes, and in the draft which programs it calls; `publishes` when it is the one that makes what the package publishes.
pub(crate) fn of_script(
    folder: &Folder,
    packages: &Packages,
    package: &Package,
    script: &str,
    publishes: bool,
    draft: &mut Draft,
) -> Result<Guess, InitError> {
    let mut reader = Reader {
        folder,
        packages,
        package,
        draft,
        guess: Guess::default(),
        programs: BTreeSet::new(),
        seen: BTreeSet::new(),
        command_count: 0,
    };
    reader.script(script, 0)?;
    let (mut guess, programs) = (reader.guess, reader.programs);
    for program in programs {
        draft.called.entry(program).or_default().insert((package.folder.clone(), script.to_owned()));
    }
    if publishes {
        for path in ignored_and_published(folder, package) {
            if !guess.outputs.iter().any(|output| below(output, &path).is_some()) {
                guess.outputs.push(path);
            }
        }
    } else if folder.is_ignored(&join(&package.folder, "coverage"), true) {
        add(&mut guess.scratch, "coverage");
    }
    without_overlap(&mut guess.outputs);
    Ok(guess)
}

/// Leaves out what is in another one.
pub(crate) fn without_overlap(paths: &mut Vec<String>) {
    paths.sort();
    paths.dedup();
    let all = paths.clone();
    paths.retain(|path| !all.iter().any(|other| other != path && below(other, path).is_some()));
}

/// Paths by which others use a package: of `main`, `exports`, `files` and their like.
pub(crate) fn published(package: &Package) -> Vec<String> {
    let keys = ["main", "module", "types", "typings", "browser", "exports", "bin", "style", "files"];
    let values = keys.iter().filter_map(|key| package.document.root.get(key));
    let texts = values.flat_map(Value::strings).filter(|text| !text.starts_with(['!', '#', '@']));
    texts.take(MAX_PUBLISHED).map(str::to_owned).collect()
}

/// The folders at the top of what is published, where git ignores them: they are made.
fn ignored_and_published(folder: &Folder, package: &Package) -> Vec<String> {
    let mut found = Vec::new();
    for text in published(package) {
        let Some(path) = resolve("", &text) else { continue };
        let mut parts = path.splitn(2, '/');
        let top = parts.next().unwrap_or_default();
        let is_plain = !top.is_empty() && !top.contains(['*', '{', '[', '?']) && top != "node_modules";
        let is_folder = parts.next().is_some() || text.ends_with('/') || !top.contains('.');
        if is_plain && folder.is_ignored(&join(&package.folder, top), is_folder) {
            add(&mut found, top);
        }
    }
    found
}

impl Reader<'_> {
    fn script(&mut self, name: &str, depth: usize) -> Result<(), InitError> {
        for name in [format!("pre{name}"), name.to_owned(), format!("post{name}")] {
            if depth > MAX_DEPTH || !self.seen.insert(name.clone()) {
                continue;
            }
            let Some(text) = self.package.script(&name).map(str::to_owned) else { continue };
            for command in text.split(['&', ';', '|', '\n']) {
                self.command_count += 1;
                if self.command_count > MAX_COMMANDS {
                    return Ok(());
                }
                let words: Vec<&str> =
                    command.split_whitespace().map(|word| word.trim_matches(['"', '\'', '(', ')', '`'])).collect();
                self.command(&words, depth)?;
            }
        }
        Ok(())
    }

    fn command(&mut self, words: &[&str], depth: usize) -> Result<(), InitError> {
        let mut words = words;
        // Variables, and programs that run the one behind them.
        while let Some((first, rest)) = words.split_first() {
            let is_prefix =
                matches!(*first, "cross-env" | "npx" | "pnpx" | "bunx" | "dotenv" | "env" | "--" | "exec" | "")
                    || (first.contains('=') && !first.starts_with('-'));
            if !is_prefix {
                break;
            }
            words = rest;
        }
        let Some((program, arguments)) = words.split_first() else { return Ok(()) };
        self.programs.insert((*program).to_owned());
        match *program {
            "npm" | "pnpm" | "yarn" | "bun" => return self.manager(arguments, depth),
            "run-s" | "run-p" | "npm-run-all" | "npm-run-all2" | "concurrently" => {
                for argument in arguments {
                    let name = argument.strip_prefix("npm:").unwrap_or(argument);
                    self.scripts_like(name, depth)?;
                }
            }
            "tsc" | "vue-tsc" | "tspc" | "tsgo" => self.compiler(arguments)?,
            // The other two write types and what they remember to the same folder.
            "next" if matches!(arguments.first(), Some(&("build" | "typegen" | "lint"))) => self.next(),
            "nest" if arguments.first() == Some(&"build") => {
                for config in ["tsconfig.build.json", "tsconfig.json"] {
                    if self.configuration(config, false, 0)? {
                        break;
                    }
                }
            }
            other => self.program(other, arguments),
        }
        Ok(())
    }

    fn manager(&mut self, arguments: &[&str], depth: usize) -> Result<(), InitError> {
        match arguments {
            ["run" | "run-script", name, ..] => self.script(name, depth + 1),
            ["exec" | "x" | "dlx", rest @ ..] => self.command(rest, depth + 1),
            ["test" | "t", ..] => self.script("test", depth + 1),
            [name, ..] if !name.starts_with('-') && self.package.script(name).is_some() => self.script(name, depth + 1),
            // Yarn and pnpm run programs of packages by their names.
            [_, ..] if depth < MAX_DEPTH && !arguments[0].starts_with('-') => self.command(arguments, depth + 1),
            _ => Ok(()),
        }
    }

    /// Scripts by name, or by a beginning with `*`.
    fn scripts_like(&mut self, name: &str, depth: usize) -> Result<(), InitError> {
        let Some((before, _)) = name.split_once('*') else { return self.script(name, depth + 1) };
        let names: Vec<String> = self.package.scripts.iter().map(|(name, ..)| name.clone()).collect();
        for name in names.iter().filter(|name| !before.is_empty() && name.starts_with(before)) {
            self.script(name, depth + 1)?;
        }
        Ok(())
    }

    /// Adds a path of the workspace, if it is in the package.
    fn output_at(&mut self, path: &str) {
        if let Some(inside) = below(&self.package.folder, path).filter(|inside| !inside.is_empty()) {
            self.guess.outputs.push(inside.to_owned());
        }
    }

    /// Adds a path that is relative to the package.
    fn output(&mut self, path: &str) {
        if let Some(path) = resolve(&self.package.folder, path) {
            self.output_at(&path);
        }
    }

    fn scratch_at(&mut self, path: &str) {
        if let Some(inside) = below(&self.package.folder, path).filter(|inside| !inside.is_empty()) {
            add(&mut self.guess.scratch, inside);
        }
    }

    fn compiler(&mut self, arguments: &[&str]) -> Result<(), InitError> {
        let is_build = arguments.iter().any(|word| matches!(*word, "-b" | "--build"));
        let emits = !arguments.contains(&"--noEmit");
        if arguments.iter().any(|word| matches!(*word, "-v" | "--version" | "-w" | "--watch" | "--clean")) {
            return Ok(());
        }
        let given = option(arguments, &["--outDir", "--outdir", "--declarationDir"]);
        if let Some(path) = given {
            self.output(path);
        }
        if is_build {
            let named: Vec<&&str> = arguments.iter().filter(|word| !word.starts_with('-')).collect();
            if named.is_empty() {
                self.configuration("tsconfig.json", true, 0)?;
            }
            for path in named {
                self.configuration(path, true, 0)?;
            }
            return Ok(());
        }
        let project = option(arguments, &["-p", "--project"]).unwrap_or("tsconfig.json");
        let before = self.guess.outputs.clone();
        self.configuration(project, false, 0)?;
        if given.is_some() || !emits {
            self.guess.outputs = before;
        }
        Ok(())
    }

    /// What a `tsconfig.json`, relative to the package, says; whether it is there.
    fn configuration(&mut self, path: &str, is_build: bool, depth: usize) -> Result<bool, InitError> {
        let Some(path) = resolve(&self.package.folder, path) else { return Ok(false) };
        self.configuration_at(&path, is_build, depth)
    }

    fn configuration_at(&mut self, path: &str, is_build: bool, depth: usize) -> Result<bool, InitError> {
        let Some(settings) = tsconfig::read(self.folder, self.packages, path, self.draft)? else { return Ok(false) };
        if settings.emits {
            for path in [&settings.out_dir, &settings.declaration_dir].into_iter().flatten() {
                self.output_at(path);
            }
        }
        // The folder itself, where it is one that nothing else would make.
        match &settings.build_info {
            Some(path) if path.contains("node_modules/") => self.scratch_at(crate::folder::parent(path)),
            Some(path) => self.scratch_at(path),
            None => {}
        }
        if is_build && depth < MAX_DEPTH {
            for reference in &settings.references {
                if below(&self.package.folder, reference).is_some() && self.seen.insert(format!("\0{reference}")) {
                    self.configuration_at(reference, true, depth + 1)?;
                }
            }
        }
        Ok(true)
    }

    fn next(&mut self) {
        let text = self.config_text(&["next.config"]);
        if text.contains("distDir") {
            return;
        }
        self.output(".next");
        if text.contains("output") && (text.contains("'export'") || text.contains("\"export\"")) {
            self.output("out");
        }
        let types = join(&self.package.folder, "next-env.d.ts");
        if !self.folder.is_file(&types) || self.folder.is_ignored(&types, false) {
            self.scratch_at(&types);
        }
    }

    /// Programs with a folder for what they make: an option, a setting, a default.
    fn program(&mut self, program: &str, arguments: &[&str]) {
        let is_build = arguments.first() == Some(&"build");
        let is_plain_vite = ![
            "@sveltejs/kit",
            "@remix-run/dev",
            "@react-router/dev",
            "@builder.io/qwik",
            "@tanstack/react-start",
            "vitepress",
        ]
        .iter()
        .any(|name| self.package.depends_on(name));
        let (options, configs, default): (&[&str], &[&str], Option<&str>) = match program {
            "vite" if is_build && is_plain_vite => (&["--outDir"], &["vite.config"], Some("dist")),
            "tsup" | "tsdown" => (&["-d", "--out-dir"], &["tsup.config", "tsdown.config"], Some("dist")),
            "unbuild" => (&[], &["build.config"], Some("dist")),
            "react-scripts" if is_build => (&[], &[], Some("build")),
            "remix" | "react-router" if is_build => (&[], &["react-router.config", "remix.config"], Some("build")),
            "astro" if is_build => (&["--outDir"], &["astro.config"], Some("dist")),
            "nuxt" | "nuxi" if is_build => (&[], &["nuxt.config"], Some(".output")),
            "docusaurus" if is_build => (&["--out-dir"], &[], Some("build")),
            "gatsby" if is_build => (&[], &[], Some("public")),
            "storybook" if is_build => (&["-o", "--output-dir"], &[], Some("storybook-static")),
            "babel" | "swc" => (&["-d", "--out-dir", "-o", "--out-file"], &[], None),
            "esbuild" => (&["--outdir", "--outfile"], &[], None),
            "rollup" => (&["-d", "--dir", "-o", "--file"], &[], None),
            "webpack" | "webpack-cli" => (&["-o", "--output-path"], &[], None),
            "parcel" if is_build => (&["--dist-dir"], &[], Some("dist")),
            _ => return,
        };
        for (name, path) in [("nuxt", ".nuxt"), ("docusaurus", ".docusaurus"), ("parcel", ".parcel-cache")] {
            if program == name {
                self.scratch_at(&join(&self.package.folder, path));
            }
        }
        if let Some(path) = option(arguments, options) {
            self.output(path);
            return;
        }
        let text = self.config_text(configs);
        match literal(&text, &["outDir", "buildDirectory"]) {
            Setting::No => {
                if let Some(path) = default {
                    self.output(path);
                }
            }
            Setting::Text(path) => self.output(&path),
            // Computed: only running it would tell.
            Setting::Unclear => {}
        }
    }

    /// The texts of the package's configurations of these names, whatever their ending.
    fn config_text(&self, names: &[&str]) -> String {
        let mut text = String::new();
        for name in names {
            for end in ["js", "mjs", "cjs", "ts", "mts", "cts"] {
                let path = join(&self.package.folder, &format!("{name}.{end}"));
                // One that is not text says nothing here, and the program will tell.
                text.push_str(&self.folder.read(&path).ok().flatten().unwrap_or_default());
            }
        }
        text
    }
}

/// The value of an option, as the next word or behind `=` or `:`.
fn option<'a>(arguments: &[&'a str], names: &[&str]) -> Option<&'a str> {
    for (index, word) in arguments.iter().enumerate() {
        for name in names {
            if word == name {
                return arguments.get(index + 1).copied().filter(|value| !value.starts_with('-'));
            }
            if let Some(value) = word.strip_prefix(name).and_then(|rest| rest.strip_prefix('=')) {
                return Some(value.trim_matches(['"', '\'']));
            }
        }
    }
    None
}

#[derive(Debug, PartialEq, Eq)]
enum Setting {
    No,
    Text(String),
    Unclear,
}

/// The string that a program's text gives a key, if it is one string, written out, and the same wherever it is.
fn literal(text: &str, keys: &[&str]) -> Setting {
    let mut found = Setting::No;
    for key in keys {
        for (at, _) in text.match_indices(key) {
            let rest = text[at + key.len()..].trim_start_matches(['"', '\'']).trim_start();
            let value = rest.strip_prefix(':').map(str::trim_start).and_then(|rest| {
                let quote = rest.chars().next().filter(|quote| matches!(quote, '"' | '\''))?;
                let (value, after) = rest[1..].split_once(quote)?;
                (!after.trim_start().starts_with(['+', '.'])).then(|| value.to_owned())
            });
            match (value, &found) {
                (Some(value), Setting::No) => found = Setting::Text(value),
                (Some(value), Setting::Text(known)) if value == *known => {}
                _ => return Setting::Unclear,
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_count_when_they_are_written_out() {
        for (text, expected) in [
            ("export default {}", Setting::No),
            ("{ build: { outDir: 'build' } }", Setting::Text("build".to_owned())),
            ("{ \"outDir\" : \"../x\", }", Setting::Text("../x".to_owned())),
            ("{ outDir: resolve('x') }", Setting::Unclear),
            ("{ outDir: 'a' + b }", Setting::Unclear),
            ("{ outDir: 'a' }, { outDir: 'b' }", Setting::Unclear),
            ("const outDir = 1", Setting::Unclear),
        ] {
            assert_eq!(literal(text, &["outDir"]), expected, "{text}");
        }
    }
}
