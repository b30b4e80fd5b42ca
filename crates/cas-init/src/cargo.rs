//! Cargo workspaces and packages: one build and one test over the whole of each.

use std::collections::{BTreeMap, BTreeSet};

use toml::{Table, Value};

use crate::InitError;
use crate::draft::{Dep, Draft, HOST, Kind, Target};
use crate::folder::{Folder, join};
use crate::globs;
use crate::host::Host;
use crate::jsonc::position;
use crate::note::{NoteKind, counted};

const MANIFEST: &str = "Cargo.toml";
const LOCKFILE: &str = "Cargo.lock";
/// Name of the fetch.
const CRATES: &str = "crates";
/// Longest `Cargo.lock` that is looked into, in bytes.
const MAX_LOCKFILE_BYTES: u64 = 16 << 20;

/// Adds what a `Cargo.toml` in `path` describes; returns the folders of the packages in it.
pub(crate) fn add(folder: &Folder, host: &Host, path: &str, draft: &mut Draft) -> Result<BTreeSet<String>, InitError> {
    let Some(manifest) = read(folder, &join(path, MANIFEST))? else { return Ok(BTreeSet::new()) };
    let packages = packages(folder, path, &manifest)?;
    let mut binaries = BTreeSet::new();
    for (at, manifest) in &packages {
        binaries.extend(self::binaries(folder, at, manifest)?);
    }
    let what = if manifest.contains_key("workspace") { "Cargo workspace" } else { "Cargo package" };
    let at = if path.is_empty() { "the root" } else { path };
    draft.note(
        NoteKind::Found,
        format!("{what} in {at}: {}, {}", counted(packages.len(), "package"), counted(binaries.len(), "program")),
    );

    let channel = channel(folder, path)?;
    let env =
        draft.use_programs(&[("cargo".to_owned(), host.cargo(channel.as_deref())), ("cc".to_owned(), host.find("cc"))]);
    draft.note(
        NoteKind::Hermetic,
        format!(
            "for cargo, in place of `[toolchain.{HOST}]`: `debian = {{ suite = \"trixie\", packages = [\"cargo\"] }}`"
        ),
    );
    let fetch = lockfile(folder, path, draft)?;
    let mut build = Target::new(Kind::Command, "cargo build --release --workspace --locked --offline");
    if writes_elsewhere(folder, path)? {
        build.comments.push(
            "`.cargo/config.toml` moves what cargo makes: add `outputs`, and what to drop to `scratch`.".to_owned(),
        );
    } else {
        build.outputs = binaries.iter().map(|name| format!("target/release/{name}")).collect();
    }
    let mut test = Target::new(Kind::Test, "cargo test --workspace --locked --offline");
    for target in [&mut build, &mut test] {
        target.deps.extend(fetch.clone());
        target.scratch.push("target".to_owned());
        target.env.clone_from(&env);
        target.timeout = Some("30m");
    }
    let section = draft.section(path);
    for (name, target) in [("build", build), ("test", test)] {
        let name = section.free_name(name, "cargo");
        section.targets.push((name, target));
    }
    Ok(packages.into_keys().collect())
}

fn read(folder: &Folder, path: &str) -> Result<Option<Table>, InitError> {
    let Some(text) = folder.read(path)? else { return Ok(None) };
    match text.parse::<Table>() {
        Ok(table) => Ok(Some(table)),
        Err(error) => {
            let (line, column) = position(&text, error.span().map_or(0, |span| span.start));
            let message = error.message().replace('\n', "; ");
            Err(InitError::Syntax { path: path.to_owned(), line, column, message })
        }
    }
}

/// The packages by folder: the one of the root, and those that `members` selects.
fn packages(folder: &Folder, path: &str, root: &Table) -> Result<BTreeMap<String, Table>, InitError> {
    let mut found = BTreeMap::new();
    if root.contains_key("package") {
        found.insert(path.to_owned(), root.clone());
    }
    let Some(workspace) = root.get("workspace").and_then(Value::as_table) else { return Ok(found) };
    let texts = |key: &str| -> Vec<String> {
        let items = workspace.get(key).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        items.iter().filter_map(Value::as_str).map(|text| join(path, globs::tidy(text))).collect()
    };
    let excluded = texts("exclude");
    for at in globs::select(folder, &texts("members"), MANIFEST)? {
        let is_excluded = excluded.iter().any(|excluded| crate::folder::below(excluded, &at).is_some());
        if !is_excluded && let Some(manifest) = read(folder, &join(&at, MANIFEST))? {
            found.insert(at, manifest);
        }
    }
    Ok(found)
}

/// Programs that a build makes whatever features are on. Source: The Cargo Book, "Cargo Targets".
fn binaries(folder: &Folder, path: &str, manifest: &Table) -> Result<BTreeSet<String>, InitError> {
    let mut names = BTreeSet::new();
    let Some(package) = manifest.get("package").and_then(Value::as_table) else { return Ok(names) };
    if package.get("autobins").and_then(Value::as_bool) != Some(false) {
        let own = package.get("name").and_then(Value::as_str);
        if folder.is_file(&join(path, "src/main.rs")) {
            names.extend(own.map(str::to_owned));
        }
        let bin = join(path, "src/bin");
        for entry in folder.list(&bin)? {
            if entry.is_dir && folder.is_file(&join(&join(&bin, &entry.name), "main.rs")) {
                names.insert(entry.name);
            } else if let Some(name) = entry.name.strip_suffix(".rs").filter(|_| !entry.is_dir) {
                names.insert(name.to_owned());
            }
        }
    }
    for bin in manifest.get("bin").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_table) {
        let Some(name) = bin.get("name").and_then(Value::as_str) else { continue };
        // What is named here stands in for what was found of that file.
        if let Some(file) = bin.get("path").and_then(Value::as_str) {
            let own = package.get("name").and_then(Value::as_str).filter(|_| globs::tidy(file) == "src/main.rs");
            let stem = globs::tidy(file).strip_prefix("src/bin/").and_then(|rest| rest.strip_suffix(".rs"));
            own.or(stem).map(|found| names.remove(found));
        }
        if bin.contains_key("required-features") {
            names.remove(name);
        } else {
            names.insert(name.to_owned());
        }
    }
    names.retain(|name| !name.is_empty() && !name.contains(['/', '\0']) && name != "." && name != "..");
    Ok(names)
}

fn channel(folder: &Folder, path: &str) -> Result<Option<String>, InitError> {
    for name in ["rust-toolchain.toml", "rust-toolchain"] {
        if let Some(text) = folder.read(&join(path, name))? {
            let table: Option<Table> = text.parse().ok();
            let channel = table.as_ref().and_then(|table| table.get("toolchain")?.get("channel")?.as_str());
            let plain =
                text.lines().next().map(str::trim).filter(|line| !line.is_empty() && !line.contains(['[', '=']));
            return Ok(channel.or(plain).map(str::to_owned));
        }
    }
    Ok(None)
}

fn writes_elsewhere(folder: &Folder, path: &str) -> Result<bool, InitError> {
    for name in [".cargo/config.toml", ".cargo/config"] {
        if let Some(text) = folder.read(&join(path, name))?
            && (text.contains("target-dir")
                || text.contains("build-dir")
                || text.lines().any(|line| line.trim_start().starts_with("target =")))
        {
            return Ok(true);
        }
    }
    Ok(false)
}

fn lockfile(folder: &Folder, path: &str, draft: &mut Draft) -> Result<Option<Dep>, InitError> {
    let at = join(path, LOCKFILE);
    let Some(text) = folder.read_up_to(&at, MAX_LOCKFILE_BYTES)? else {
        draft.note(
            NoteKind::Todo,
            format!("there is no `{at}`: run `cargo generate-lockfile`, then `[fetch.{CRATES}]` fetches what it pins"),
        );
        return Ok(None);
    };
    if folder.is_ignored(&at, false) {
        draft.note(
            NoteKind::Todo,
            format!("git ignores `{at}`, so that steps do not see it: remove it from `.gitignore`"),
        );
    }
    if text.contains("source = \"git+") {
        draft.note(NoteKind::Check, format!("`{at}` has packages from git, which are not fetched"));
    }
    if !text.contains("source = \"registry+") && !text.contains("source = \"sparse+") {
        return Ok(None);
    }
    draft.section(path).fetches.insert(CRATES.to_owned(), LOCKFILE.to_owned());
    Ok(Some(Dep::Own(CRATES.to_owned())))
}
