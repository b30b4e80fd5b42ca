//! What TypeScript's compiler writes, by its settings. Source: the TSConfig reference of TypeScript 5.9, `outDir`, `extends`,
//! `incremental`, `tsBuildInfoFile`.

use crate::InitError;
use crate::draft::Draft;
use crate::folder::{Folder, below, join, parent, resolve};
use crate::javascript::Packages;
use crate::jsonc::Value;
use crate::note::NoteKind;

/// Longest chain of `extends`.
const MAX_EXTENDS: usize = 16;

/// Settings after `extends`; paths are those of the workspace.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    pub(crate) out_dir: Option<String>,
    pub(crate) declaration_dir: Option<String>,
    pub(crate) emits: bool,
    pub(crate) build_info: Option<String>,
    /// Other configurations that `tsc -b` builds as well.
    pub(crate) references: Vec<String>,
}

#[derive(Default)]
struct Raw {
    out_dir: Option<String>,
    declaration_dir: Option<String>,
    root_dir: Option<String>,
    build_info: Option<String>,
    no_emit: Option<bool>,
    incremental: Option<bool>,
    composite: Option<bool>,
}

/// The settings of a configuration; `None` when it is not there, or cannot be read, which the report tells.
pub(crate) fn read(
    folder: &Folder,
    packages: &Packages,
    path: &str,
    draft: &mut Draft,
) -> Result<Option<Settings>, InitError> {
    let path = if folder.is_dir(path) { join(path, "tsconfig.json") } else { path.to_owned() };
    let document = match folder.json(&path) {
        Ok(Some(document)) => document,
        Ok(None) => return Ok(None),
        Err(error @ (InitError::Syntax { .. } | InitError::NotText { .. })) => {
            draft.note(NoteKind::Check, format!("{error}: what it says is not known"));
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let home = parent(&path).to_owned();
    let references = document.root.get("references").map_or(&[][..], Value::items).iter();
    let references = references.filter_map(|reference| resolve(&home, reference.text("path")?)).collect();
    let mut raw = Raw::default();
    merge(folder, packages, &home, &path, &document.root, &mut raw, 0)?;
    let emits = !raw.no_emit.unwrap_or(false);
    let composite = raw.composite.unwrap_or(false);
    let build_info = match raw.build_info {
        Some(path) => Some(path),
        None if composite || raw.incremental.unwrap_or(false) => {
            default_build_info(&path, raw.out_dir.as_deref(), raw.root_dir.as_deref())
        }
        None => None,
    };
    Ok(Some(Settings { out_dir: raw.out_dir, declaration_dir: raw.declaration_dir, emits, build_info, references }))
}

/// Beside the configuration, or in `outDir` at the place that the configuration has from `rootDir` on.
fn default_build_info(config: &str, out_dir: Option<&str>, root_dir: Option<&str>) -> Option<String> {
    let stem = config.strip_suffix(".json").unwrap_or(config);
    let name = format!("{}.tsbuildinfo", stem.rsplit('/').next().unwrap_or(stem));
    let Some(out_dir) = out_dir else { return Some(join(parent(config), &name)) };
    let Some(root_dir) = root_dir else { return Some(join(out_dir, &name)) };
    let relative = match below(root_dir, parent(config)) {
        Some(inside) => inside.to_owned(),
        None => {
            let up = below(parent(config), root_dir)?;
            vec![".."; up.split('/').count()].join("/")
        }
    };
    resolve(out_dir, &join(&relative, &name))
}

fn merge(
    folder: &Folder,
    packages: &Packages,
    home: &str,
    path: &str,
    root: &Value,
    raw: &mut Raw,
    depth: usize,
) -> Result<(), InitError> {
    if depth > MAX_EXTENDS {
        return Ok(());
    }
    // The last one of several wins, and the file itself over all of them.
    let bases: Vec<&str> = match root.get("extends") {
        Some(value) => value.strings(),
        None => Vec::new(),
    };
    for base in bases {
        let Some(at) = base_path(folder, packages, parent(path), base) else { continue };
        // A base that cannot be read is told when it is the configuration of its own package, if it ever is.
        if let Ok(Some(document)) = folder.json(&at) {
            merge(folder, packages, home, &at, &document.root, raw, depth + 1)?;
        }
    }
    let Some(options) = root.get("compilerOptions") else { return Ok(()) };
    let place = |key: &str| -> Option<String> {
        let text = options.text(key)?;
        match text.strip_prefix("${configDir}") {
            Some(rest) => resolve(home, rest.trim_start_matches('/')),
            None => resolve(parent(path), text),
        }
    };
    let set = |slot: &mut Option<String>, key: &str| *slot = place(key).or_else(|| slot.take());
    set(&mut raw.out_dir, "outDir");
    set(&mut raw.declaration_dir, "declarationDir");
    set(&mut raw.root_dir, "rootDir");
    set(&mut raw.build_info, "tsBuildInfoFile");
    let flag = |slot: &mut Option<bool>, key: &str| *slot = options.get(key).and_then(Value::as_bool).or(*slot);
    flag(&mut raw.no_emit, "noEmit");
    flag(&mut raw.incremental, "incremental");
    flag(&mut raw.composite, "composite");
    Ok(())
}

fn base_path(folder: &Folder, packages: &Packages, from: &str, base: &str) -> Option<String> {
    let path = if base.starts_with('.') {
        resolve(from, base)?
    } else {
        // A package of the workspace; one of a registry says nothing about folders here.
        let mut parts = base.splitn(if base.starts_with('@') { 3 } else { 2 }, '/');
        let name = if base.starts_with('@') {
            format!("{}/{}", parts.next()?, parts.next()?)
        } else {
            parts.next()?.to_owned()
        };
        let home = packages.by_name.get(&name)?;
        resolve(home, parts.next().unwrap_or("tsconfig.json"))?
    };
    let candidates = [path.clone(), format!("{path}.json"), join(&path, "tsconfig.json")];
    candidates.into_iter().find(|candidate| folder.is_file(candidate))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn build_info_is_where_the_compiler_puts_it() {
        for (config, out_dir, root_dir, expected) in [
            ("a/tsconfig.json", None, None, Some("a/tsconfig.tsbuildinfo")),
            ("a/tsconfig.json", Some("a/dist"), None, Some("a/dist/tsconfig.tsbuildinfo")),
            ("a/tsconfig.lib.json", Some("a/dist"), Some("a/src"), Some("a/tsconfig.lib.tsbuildinfo")),
            ("a/tsconfig.json", Some("a/dist"), Some("a"), Some("a/dist/tsconfig.tsbuildinfo")),
            ("a/tsconfig.json", Some("dist/a"), Some("b"), None),
        ] {
            assert_eq!(
                default_build_info(config, out_dir, root_dir).as_deref(),
                expected,
                "{config} {out_dir:?} {root_dir:?}"
            );
        }
    }
}
