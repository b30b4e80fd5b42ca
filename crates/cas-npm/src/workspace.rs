//! Ranges of the workspace become ranges of a registry, as pnpm rewrites them when it packs. Rules: docs/formats/npm.md.

use std::collections::BTreeMap;

use crate::DependencyKind;
use crate::json::strings_of_sections;

/// Protocols that mean nothing outside of a workspace or a machine.
const LOCAL_PROTOCOLS: [&str; 6] = ["workspace:", "catalog:", "link:", "file:", "portal:", "patch:"];

/// A package of the workspace, by the name that dependents use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkspaceMember {
    /// Its folder from the workspace's root; empty for the root.
    pub folder: String,
    /// Its version, if it has one.
    pub version: Option<String>,
}

/// Why a manifest cannot be packed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RewriteError {
    /// The workspace has no such package, or it has no version.
    #[error("`{range}` of `{name}`: the workspace has no package `{name}` with a version")]
    NoVersion {
        /// The dependency.
        name: String,
        /// Its range.
        range: String,
    },
    /// A range that nobody could install.
    #[error("`{range}` of `{name}` cannot be published")]
    Local {
        /// The dependency.
        name: String,
        /// Its range.
        range: String,
    },
}

/// The bytes of a `package.json` with `workspace:` ranges replaced. Everything else stays as it is.
///
/// `folder` is that of the package.
///
/// # Errors
///
/// [`RewriteError`], also for what else means nothing outside: `catalog:`, `link:`, `file:`, `portal:`, `patch:`.
pub fn rewrite_workspace_ranges(
    text: &str,
    folder: &str,
    members: &BTreeMap<String, WorkspaceMember>,
) -> Result<String, RewriteError> {
    let is_section = |section: &str| DependencyKind::ALL.iter().any(|kind| kind.section() == section);
    let mut rewritten = String::with_capacity(text.len());
    let mut copied = 0;
    for (section, name, place) in strings_of_sections(text, is_section) {
        let Ok(range) = serde_json::from_str::<String>(&text[place.clone()]) else { continue };
        let is_peer = section == DependencyKind::Peer.section();
        let replaced = if is_peer { peer(&name, &range, members) } else { plain(&name, &range, folder, members) }?;
        // What developers of the package need is nobody's dependency.
        let is_development = section == DependencyKind::Development.section();
        if !is_development && LOCAL_PROTOCOLS.iter().any(|protocol| replaced.starts_with(protocol)) {
            return Err(RewriteError::Local { name, range });
        }
        if replaced != range {
            rewritten.push_str(&text[copied..place.start]);
            rewritten.push_str(&serde_json::Value::String(replaced).to_string());
            copied = place.end;
        }
    }
    rewritten.push_str(&text[copied..]);
    Ok(rewritten)
}

fn version<'a>(
    name: &str,
    range: &str,
    key: &str,
    members: &'a BTreeMap<String, WorkspaceMember>,
) -> Result<&'a str, RewriteError> {
    let none = || RewriteError::NoVersion { name: name.to_owned(), range: range.to_owned() };
    members.get(key).and_then(|member| member.version.as_deref()).ok_or_else(none)
}

/// `workspace:^` → `^1.2.3`, `workspace:1.x` → `1.x`, `workspace:other@^` → `npm:other@^1.2.3`, `workspace:../x` → its version.
fn plain(
    name: &str,
    range: &str,
    folder: &str,
    members: &BTreeMap<String, WorkspaceMember>,
) -> Result<String, RewriteError> {
    let Some(rest) = range.strip_prefix("workspace:") else { return Ok(range.to_owned()) };
    if rest.starts_with("./") || rest.starts_with("../") {
        let place = resolve(folder, rest);
        let found = members.iter().find(|(_, member)| Some(&member.folder) == place.as_ref());
        let none = || RewriteError::NoVersion { name: name.to_owned(), range: range.to_owned() };
        let (other, member) = found.ok_or_else(none)?;
        let version = member.version.as_deref().ok_or_else(none)?;
        return Ok(if other == name { version.to_owned() } else { format!("npm:{other}@{version}") });
    }
    if let Some(before) = rest.strip_suffix(['^', '~', '*']) {
        let alias = before.strip_suffix('@').unwrap_or(before);
        // `>=1.*` ends so, too, and is a range as it stands.
        if alias.is_empty() || before.ends_with('@') {
            let token = rest[before.len()..].trim_start_matches('*');
            let key = if alias.is_empty() { name } else { alias };
            let version = version(name, range, key, members)?;
            return Ok(if key == name { format!("{token}{version}") } else { format!("npm:{key}@{token}{version}") });
        }
    }
    Ok(if rest.contains('@') { format!("npm:{rest}") } else { rest.to_owned() })
}

/// In `peerDependencies` a range may have several parts: `workspace:^ || ^1.0.0`.
fn peer(name: &str, range: &str, members: &BTreeMap<String, WorkspaceMember>) -> Result<String, RewriteError> {
    let Some((before, rest)) = range.split_once("workspace:") else { return Ok(range.to_owned()) };
    let operators = [">=", "<=", ">", "<", "^", "~", "*"];
    let operator = operators.into_iter().find(|operator| rest.starts_with(operator)).unwrap_or_default();
    let after = &rest[operator.len()..];
    if after.starts_with(|c: char| c.is_ascii_digit() || matches!(c, 'x' | 'X')) {
        return Ok(format!("{before}{rest}"));
    }
    let version = version(name, range, name, members)?;
    Ok(format!("{before}{}{version}{after}", operator.trim_start_matches('*')))
}

/// A relative path from a folder, both below the workspace.
pub(crate) fn resolve(folder: &str, relative: &str) -> Option<String> {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in relative.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewrite(section: &str, name: &str, range: &str) -> Result<String, RewriteError> {
        let member = |folder: &str, version: Option<&str>| WorkspaceMember {
            folder: folder.to_owned(),
            version: version.map(str::to_owned),
        };
        let members = BTreeMap::from([
            ("@a/ui".to_owned(), member("libs/ui", Some("1.2.3"))),
            ("none".to_owned(), member("libs/none", None)),
        ]);
        let text = format!("{{\n\t\"{section}\":{{ \"{name}\" : \"{range}\"}}}}\n");
        let rewritten = rewrite_workspace_ranges(&text, "apps/web", &members)?;
        let start = format!("{{\n\t\"{section}\":{{ \"{name}\" : \"");
        let end = "\"}}\n";
        Ok(rewritten.strip_prefix(&start).and_then(|rest| rest.strip_suffix(end)).expect("the rest stays").to_owned())
    }

    #[test]
    fn ranges_become_those_that_pnpm_writes() {
        for (name, range, expected) in [
            ("@a/ui", "workspace:*", "1.2.3"),
            ("@a/ui", "workspace:^", "^1.2.3"),
            ("@a/ui", "workspace:~", "~1.2.3"),
            ("@a/ui", "workspace:^1.0.0", "^1.0.0"),
            ("@a/ui", "workspace:>=1.*", ">=1.*"),
            ("other", "workspace:@a/ui@^", "npm:@a/ui@^1.2.3"),
            ("other", "workspace:@a/ui@*", "npm:@a/ui@1.2.3"),
            ("other", "workspace:@a/ui@1.x", "npm:@a/ui@1.x"),
            ("@a/ui", "workspace:../../libs/ui", "1.2.3"),
            ("other", "workspace:../../libs/ui", "npm:@a/ui@1.2.3"),
            ("x", "^1.0.0", "^1.0.0"),
        ] {
            assert_eq!(rewrite("dependencies", name, range).as_deref(), Ok(expected), "{name} {range}");
        }
        for (range, expected) in [
            ("workspace:^", "^1.2.3"),
            ("workspace:*", "1.2.3"),
            ("workspace:>=", ">=1.2.3"),
            ("workspace:^ || ^0.9.0", "^1.2.3 || ^0.9.0"),
            ("workspace:^1.0.0", "^1.0.0"),
            ("1 || workspace:>1.x", "1 || >1.x"),
        ] {
            assert_eq!(rewrite("peerDependencies", "@a/ui", range).as_deref(), Ok(expected), "{range}");
        }
    }

    #[test]
    fn what_nobody_could_install_is_refused() {
        for (name, range) in [("none", "workspace:*"), ("missing", "workspace:^"), ("x", "workspace:../../../up")] {
            assert!(matches!(rewrite("dependencies", name, range), Err(RewriteError::NoVersion { .. })), "{range}");
        }
        for range in ["catalog:", "link:../x", "file:../x", "portal:x", "patch:x"] {
            assert!(matches!(rewrite("optionalDependencies", "x", range), Err(RewriteError::Local { .. })), "{range}");
            assert!(rewrite("devDependencies", "x", range).is_ok());
        }
    }
}
