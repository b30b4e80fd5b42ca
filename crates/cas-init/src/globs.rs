//! Folders of a workspace by the globs of package managers.

use std::collections::BTreeSet;

use globset::{GlobBuilder, GlobMatcher};

use crate::InitError;
use crate::folder::{Folder, join};

/// Most packages that a workspace may have.
pub(crate) const MAX_PACKAGES: usize = 10_000;
/// How deep `**` looks.
const MAX_DEPTH: usize = 12;

/// The folders with a file `file` that the globs select; those with `!` in front leave folders out.
pub(crate) fn select(folder: &Folder, globs: &[String], file: &str) -> Result<BTreeSet<String>, InitError> {
    let mut found = BTreeSet::new();
    for glob in globs {
        let (is_negated, glob) = match glob.strip_prefix('!') {
            Some(rest) => (true, rest),
            None => (false, glob.as_str()),
        };
        let glob = tidy(glob);
        if is_negated {
            if let Some(matcher) = matcher(glob) {
                found.retain(|path: &String| !matcher.is_match(path));
            }
            continue;
        }
        found.extend(one(folder, glob, file)?);
        if found.len() > MAX_PACKAGES {
            return Err(InitError::TooMany { what: "packages", limit: MAX_PACKAGES });
        }
    }
    Ok(found)
}

/// Without `./` before it and `/` after it.
pub(crate) fn tidy(glob: &str) -> &str {
    glob.strip_prefix("./").unwrap_or(glob).trim_end_matches('/')
}

pub(crate) fn matcher(glob: &str) -> Option<GlobMatcher> {
    GlobBuilder::new(glob)
        .literal_separator(true)
        .backslash_escape(true)
        .build()
        .ok()
        .map(|glob| glob.compile_matcher())
}

/// Part by part, so that only folders are read that can matter; from the first `**` on everything below.
fn one(folder: &Folder, glob: &str, file: &str) -> Result<Vec<String>, InitError> {
    let parts: Vec<&str> = glob.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    if parts.contains(&"..") {
        return Ok(Vec::new());
    }
    let mut found = vec![String::new()];
    for part in &parts {
        if *part == "**" {
            return deep(folder, &found, glob, file);
        }
        let mut next = Vec::new();
        if part.contains(['*', '?', '[', '{', '\\']) {
            let Some(matcher) = matcher(part) else { return Ok(Vec::new()) };
            for parent in &found {
                for entry in folder.list(parent)? {
                    let is_passed = entry.name.starts_with('.') || entry.name == "node_modules";
                    if !is_passed && matcher.is_match(&entry.name) {
                        next.push(join(parent, &entry.name));
                    }
                }
            }
        } else {
            next.extend(found.iter().map(|parent| join(parent, part)));
        }
        next.retain(|path| folder.is_dir(path));
        if next.len() > MAX_PACKAGES {
            return Err(InitError::TooMany { what: "folders for a glob", limit: MAX_PACKAGES });
        }
        found = next;
    }
    found.retain(|path| !path.is_empty() && folder.is_file(&join(path, file)));
    Ok(found)
}

fn deep(folder: &Folder, from: &[String], glob: &str, file: &str) -> Result<Vec<String>, InitError> {
    let mut found = Vec::new();
    let Some(matcher) = matcher(glob) else { return Ok(found) };
    for from in from {
        folder.walk(from, MAX_DEPTH, &mut |path, entries| {
            let is_there = entries.iter().any(|entry| !entry.is_dir && entry.name == file);
            if is_there && !path.is_empty() && matcher.is_match(path) {
                found.push(path.to_owned());
            }
            Ok(true)
        })?;
    }
    Ok(found)
}

/// The globs for `[workspace] members`: those of the package manager as far as `cas.toml` has them, else the folders.
pub(crate) fn members(globs: &[String], folders: &BTreeSet<String>) -> Vec<String> {
    let mut members = Vec::new();
    let mut open: BTreeSet<&String> = folders.iter().collect();
    for glob in globs.iter().map(|glob| tidy(glob)) {
        // Not hidden folders, no `**`, no negation; brackets and braces may mean other things elsewhere.
        let is_plain = glob.split('/').all(|part| !part.is_empty() && !part.starts_with('.') && part != "**")
            && !glob.contains(['!', '[', '\\', '{', '(']);
        let Some(matcher) = matcher(glob).filter(|_| is_plain) else { continue };
        let before = open.len();
        open.retain(|path| !matcher.is_match(path));
        if open.len() < before {
            members.push(glob.to_owned());
        }
    }
    members.extend(open.into_iter().cloned());
    members
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_stay_where_cas_has_them() {
        let folders: BTreeSet<String> =
            ["apps/a", "libs/x/y", "libs/z", "one"].iter().map(|text| (*text).to_owned()).collect();
        let globs: Vec<String> =
            ["./apps/*", "libs/**", "one/", "!libs/q", "none/*"].iter().map(|text| (*text).to_owned()).collect();
        assert_eq!(members(&globs, &folders), ["apps/*", "one", "libs/x/y", "libs/z"]);
    }
}
