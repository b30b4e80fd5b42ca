//! What a `Cargo.toml` says of its package's version.

use toml::Value;

/// The version of the package of a `Cargo.toml`, which may be that of its workspace; `None` where neither says one.
///
/// `workspace` is the text of the `Cargo.toml` of the workspace's root, if it is another one. What is no TOML says nothing here:
/// cargo tells that better.
#[must_use]
pub fn package_version(text: &str, workspace: Option<&str>) -> Option<String> {
    let manifest: Value = toml::from_str(text).ok()?;
    match manifest.get("package")?.get("version")? {
        Value::String(version) => Some(version.clone()),
        inherited if inherited.get("workspace") == Some(&Value::Boolean(true)) => {
            let root = match workspace {
                Some(text) => toml::from_str(text).ok()?,
                None => manifest,
            };
            root.get("workspace")?.get("package")?.get("version")?.as_str().map(str::to_owned)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_may_be_that_of_the_workspace() {
        let own = "[package]\nname = \"a\"\nversion = \"1.2.3\"\n";
        let inherited = "[package]\nname = \"a\"\nversion.workspace = true\n";
        let root = "[workspace.package]\nversion = \"2.0.0\"\n";
        assert_eq!(package_version(own, Some(root)).as_deref(), Some("1.2.3"));
        assert_eq!(package_version(inherited, Some(root)).as_deref(), Some("2.0.0"));
        assert_eq!(package_version(&format!("{inherited}{root}"), None).as_deref(), Some("2.0.0"));
        assert_eq!(package_version(inherited, None), None);
        assert_eq!(package_version("[workspace]\n", None), None);
        assert_eq!(package_version("no toml", None), None);
    }
}
