//! Which files of a package are packed: the rules of npm 12 (`npm-packlist` 11.3). Rules: docs/formats/npm.md.

use std::error::Error;

use cas_blob::Descriptor;
use cas_tree::{Directory, Node, RelPath};
use serde_json::Value;

use crate::glob::Glob;
use crate::{Manifest, in_tarball_order};

pub use crate::glob::PatternError;

/// Never packed unless a later rule says so.
const DEFAULT_RULES: [&str; 22] = [
    ".npmignore",
    ".gitignore",
    "**/.git",
    "**/.svn",
    "**/.hg",
    "**/CVS",
    "**/.git/**",
    "**/.svn/**",
    "**/.hg/**",
    "**/CVS/**",
    "/.lock-wscript",
    "/.wafpickle-*",
    "/build/config.gypi",
    "npm-debug.log",
    "**/.npmrc",
    ".*.swp",
    ".DS_Store",
    "**/.DS_Store/**",
    "._*",
    "**/._*/**",
    "*.orig",
    "/archived-packages/**",
];
/// What no other rule can change, in the package's root.
const STRICT_RULES: [&str; 17] = [
    "/.git",
    "!/package.json",
    "!/readme{,.*[^~$]}",
    "!/copying{,.*[^~$]}",
    "!/license{,.*[^~$]}",
    "!/licence{,.*[^~$]}",
    "/.git",
    "/node_modules",
    ".npmrc",
    "/package-lock.json",
    "/npm-shrinkwrap.json",
    "/yarn.lock",
    "/pnpm-lock.yaml",
    "/bun.lockb",
    "/bun.lock",
    "/.npm-extension.mjs",
    "/.npm-extension.cjs",
];
const NPM_IGNORE: &str = ".npmignore";
const GIT_IGNORE: &str = ".gitignore";

/// A file of a tarball.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackFile {
    /// Below the package.
    pub path: RelPath,
    /// `0755` for what may be executed and what `bin` names, else `0644`.
    pub mode: u32,
    /// Content.
    pub blob: Descriptor,
}

/// Why a package cannot be packed.
#[derive(Debug, thiserror::Error)]
pub enum PackError<E: Error + 'static> {
    /// A pattern of an ignore file or of `files` cannot be used.
    #[error("pattern `{pattern}` of `{file}` cannot be used")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// Where it is.
        file: String,
        /// Why not.
        source: PatternError,
    },
    /// A name that a tarball of npm cannot have.
    #[error("`{path}` is not UTF-8")]
    NotUtf8 {
        /// Where.
        path: RelPath,
    },
    /// Dependencies inside of the tarball.
    #[error("`bundleDependencies` is not supported")]
    Bundle,
    /// An ignore file could not be read.
    #[error("could not read `{file}`")]
    Read {
        /// The file.
        file: String,
        /// Why not.
        source: E,
    },
}

struct Rule {
    negated: bool,
    glob: Glob,
    is_relative: bool,
}

/// The rules of a folder, and what is above it.
struct Folder<'a> {
    parent: Option<&'a Folder<'a>>,
    name: &'a str,
    /// Later ones win.
    rules: Vec<Rule>,
    /// A rule names the folder itself: then what is above does not decide for what is in it.
    is_exact: bool,
}

/// The files of the tarball in its order.
///
/// `files` is everything that the package has, its outputs too. `outer` are the rules of folders above it: the text of the
/// `.npmignore`, else `.gitignore`, of each from the workspace's root on. `read` gives the content of an ignore file.
///
/// # Errors
///
/// [`PackError`]
pub fn packed_files<E: Error + 'static>(
    manifest: &Manifest,
    files: &Directory,
    outer: &[String],
    read: &mut dyn FnMut(&Descriptor) -> Result<Vec<u8>, E>,
) -> Result<Vec<PackFile>, PackError<E>> {
    let bundled = ["bundleDependencies", "bundledDependencies"].iter().filter_map(|key| manifest.document.get(*key));
    for value in bundled {
        let is_empty = match value {
            Value::Array(names) => names.is_empty(),
            Value::Object(names) => names.is_empty(),
            Value::Bool(all) => !all,
            _ => true,
        };
        if !is_empty {
            return Err(PackError::Bundle);
        }
    }
    let bins = bins(manifest, files);
    let mut rules = Vec::new();
    for line in DEFAULT_RULES {
        add(&mut rules, line, "the default rules")?;
    }
    for text in outer {
        add_text(&mut rules, text, "an ignore file above the package")?;
    }
    match manifest.document.get("files").and_then(Value::as_array) {
        Some(entries) => {
            add(&mut rules, "*", "package.json")?;
            for entry in entries.iter().filter_map(Value::as_str) {
                add_entry(&mut rules, entry, files)?;
            }
        }
        None => add_ignore_file(&mut rules, files, "", read)?,
    }
    for line in STRICT_RULES {
        add(&mut rules, line, "the strict rules")?;
    }
    let text = |key: &str| manifest.document.get(key).and_then(Value::as_str);
    for path in ["browser", "main"].into_iter().filter_map(text).chain(bins.iter().map(String::as_str)) {
        if !path.is_empty() {
            add(&mut rules, &format!("!/{path}"), "package.json")?;
        }
    }
    if let Some(patches) = manifest.document.get("patchedDependencies").and_then(Value::as_object) {
        for path in patches.values().filter_map(Value::as_str) {
            let path = path.strip_prefix("./").unwrap_or(path);
            add(&mut rules, &format!("/{}", path.trim_matches('/')), "package.json")?;
        }
    }
    let root = Folder { parent: None, name: "", rules, is_exact: false };
    let mut found = Vec::new();
    walk(&root, files, files, None, read, &mut found)?;
    let mut packed = Vec::with_capacity(found.len());
    for (path, mode, blob) in found {
        let text = text_of(&path)?;
        let mode = if mode & 0o100 != 0 || bins.contains(&text) { 0o755 } else { 0o644 };
        packed.push((text, PackFile { path, mode, blob }));
    }
    Ok(in_tarball_order(packed, |(text, _)| text).into_iter().map(|(_, file)| file).collect())
}

/// The files that `bin` and `directories.bin` name, below the package.
fn bins(manifest: &Manifest, files: &Directory) -> Vec<String> {
    let clean = |path: &str| {
        let mut parts: Vec<&str> = Vec::new();
        for part in path.split('/') {
            match part {
                "" | "." => {}
                ".." => {
                    parts.pop();
                }
                part => parts.push(part),
            }
        }
        parts.join("/")
    };
    match manifest.document.get("bin") {
        Some(Value::String(path)) => return vec![clean(path)],
        Some(Value::Object(paths)) => return paths.values().filter_map(Value::as_str).map(clean).collect(),
        _ => {}
    }
    let folder = manifest.document.get("directories").and_then(|value| value.get("bin")).and_then(Value::as_str);
    let Some(folder) = folder.and_then(|folder| RelPath::new(clean(folder)).ok()) else { return Vec::new() };
    let Some(directory) = files.get_directory(&folder) else { return Vec::new() };
    let is_file = |node: &Node| matches!(node, Node::File { .. } | Node::Link { .. });
    directory.walk().filter(|(_, node)| is_file(node)).map(|(path, _)| folder.join_path(&path).to_string()).collect()
}

fn add<E: Error>(rules: &mut Vec<Rule>, line: &str, file: &str) -> Result<(), PackError<E>> {
    let bare = line.trim_start_matches('!');
    let negated = (line.len() - bare.len()) % 2 == 1;
    let glob = Glob::of_ignore_file(bare).map_err(|source| PackError::Pattern {
        pattern: line.to_owned(),
        file: file.to_owned(),
        source,
    })?;
    let is_relative = glob.is_relative();
    rules.push(Rule { negated, glob, is_relative });
    Ok(())
}

fn add_text<E: Error>(rules: &mut Vec<Rule>, text: &str, file: &str) -> Result<(), PackError<E>> {
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        add(rules, line, file)?;
    }
    Ok(())
}

/// An entry of `files`: whatever it names is packed, or with `!` is not.
fn add_entry<E: Error>(rules: &mut Vec<Rule>, entry: &str, files: &Directory) -> Result<(), PackError<E>> {
    let bare = entry.trim_start_matches('!');
    let sign = if bare.len() == entry.len() { "!" } else { "" };
    let bare = bare.strip_prefix("./").or_else(|| bare.strip_prefix('/')).unwrap_or(bare).trim_end_matches('/');
    if bare.is_empty() {
        return Ok(());
    }
    // A pattern that cannot be read selects nothing, as with npm.
    let Ok(glob) = Glob::of_paths(bare) else { return Ok(()) };
    // What ends with `/**` is also the folder itself.
    let folder = bare.strip_suffix("/**").and_then(|folder| Glob::of_paths(folder).ok());
    for (path, node) in files.walk() {
        let text = text_of(&path)?;
        if !glob.matches(&text, false) && !folder.as_ref().is_some_and(|folder| folder.matches(&text, false)) {
            continue;
        }
        let literal = escaped(&text);
        match node {
            Node::Directory(_) => {
                add(rules, &format!("{sign}/{literal}"), "package.json")?;
                add(rules, &format!("{sign}/{literal}/**"), "package.json")?;
            }
            Node::File { .. } | Node::Link { .. } => add(rules, &format!("{sign}/{literal}"), "package.json")?,
            _ => {}
        }
    }
    Ok(())
}

/// A path as a pattern for itself.
fn escaped(path: &str) -> String {
    let mut text = String::with_capacity(path.len());
    for c in path.chars() {
        if matches!(c, '*' | '?' | '[' | ']' | '{' | '}' | '\\' | '(' | ')' | '!' | '+' | '@') {
            text.push('\\');
        }
        text.push(c);
    }
    text
}

/// The ignore file of a folder: `.npmignore`, else `.gitignore`.
fn add_ignore_file<E: Error>(
    rules: &mut Vec<Rule>,
    folder: &Directory,
    at: &str,
    read: &mut dyn FnMut(&Descriptor) -> Result<Vec<u8>, E>,
) -> Result<(), PackError<E>> {
    for name in [NPM_IGNORE, GIT_IGNORE] {
        if let Some(Node::File { blob, .. }) = folder.entry(name.as_bytes()) {
            let file = format!("{at}{name}");
            let bytes = read(blob).map_err(|source| PackError::Read { file: file.clone(), source })?;
            return add_text(rules, &String::from_utf8_lossy(&bytes), &file);
        }
    }
    Ok(())
}

fn text_of<E: Error>(path: &RelPath) -> Result<String, PackError<E>> {
    String::from_utf8(path.as_bytes().to_vec()).map_err(|_| PackError::NotUtf8 { path: path.clone() })
}

/// Trees are at most 1,024 directories deep, so recursion is bounded.
fn walk<E: Error + 'static>(
    folder: &Folder<'_>,
    top: &Directory,
    directory: &Directory,
    at: Option<&RelPath>,
    read: &mut dyn FnMut(&Descriptor) -> Result<Vec<u8>, E>,
    found: &mut Vec<(RelPath, u32, Descriptor)>,
) -> Result<(), PackError<E>> {
    for (name, node) in directory.entries() {
        let path = at.map_or_else(|| RelPath::from(name.clone()), |at| at.join(name));
        let Ok(text) = std::str::from_utf8(name.as_bytes()) else { return Err(PackError::NotUtf8 { path }) };
        // Archives of npm have no such names.
        if text.contains('*') {
            continue;
        }
        let as_file = folder.includes(text, false, None);
        match node {
            Node::Directory(child) => {
                if !as_file && !folder.includes(text, true, None) {
                    continue;
                }
                if !folder.includes(text, true, None) {
                    continue;
                }
                let mut rules = Vec::new();
                for line in DEFAULT_RULES {
                    add(&mut rules, line, "the default rules")?;
                }
                add_ignore_file(&mut rules, child, &format!("{path}/"), read)?;
                add(&mut rules, "/.git", "the strict rules")?;
                let is_exact = as_file || folder.includes(&format!("{text}/"), false, None);
                let below = Folder { parent: Some(folder), name: text, rules, is_exact };
                walk(&below, top, child, Some(&path), read, found)?;
            }
            Node::File { .. } | Node::Link { .. } if as_file => {
                if let Some((metadata, blob)) = top.file_of(node) {
                    found.push((path, metadata.mode, blob));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

impl Folder<'_> {
    /// Whether `entry`, a path from this folder on, is packed; with `partial`, whether something below it may be.
    fn includes(&self, entry: &str, partial: bool, base_name: Option<&str>) -> bool {
        let mut included = true;
        if let Some(parent) = self.parent {
            let above = format!("{}/{entry}", self.name);
            included = parent.includes(&above, partial, Some(base_name.unwrap_or(entry)));
            if !included && !self.is_exact {
                return false;
            }
        }
        let rooted = format!("/{entry}");
        for rule in &self.rules {
            // Only a rule that would change the answer is looked at.
            if rule.negated == included {
                continue;
            }
            let matches = |path: &str, partial: bool| rule.glob.matches(path, partial);
            let as_folder = |path: &str, rooted: &str| {
                matches(&format!("{rooted}/"), false)
                    || matches(&format!("{path}/"), false)
                    || (rule.negated && (matches(rooted, true) || matches(path, true)))
            };
            let by_base_name = |name: &str| rule.is_relative && as_folder(name, &format!("/{name}"));
            let hit = matches(&rooted, false)
                || matches(entry, false)
                || (partial && (as_folder(entry, &rooted) || base_name.is_some_and(by_base_name)));
            if hit {
                included = rule.negated;
            }
        }
        included
    }
}
