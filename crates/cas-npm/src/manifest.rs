//! `package.json`, as far as building and packing need it.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::lockfile::clean;

/// Longest `package.json` that is read, in bytes.
pub(crate) const MAX_MANIFEST_BYTES: usize = 4 << 20;

/// What a dependency is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "npm's own names")]
pub enum DependencyKind {
    Production,
    Development,
    Optional,
    Peer,
}

impl DependencyKind {
    /// All kinds.
    pub const ALL: [Self; 4] = [Self::Production, Self::Development, Self::Optional, Self::Peer];

    /// Key of the section in `package.json`.
    #[must_use]
    pub const fn section(self) -> &'static str {
        match self {
            Self::Production => "dependencies",
            Self::Development => "devDependencies",
            Self::Optional => "optionalDependencies",
            Self::Peer => "peerDependencies",
        }
    }
}

/// A `package.json`.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// `name`
    pub name: Option<Box<str>>,
    /// `version`
    pub version: Option<Box<str>>,
    /// Whether publishing is refused.
    pub private: bool,
    /// Names and ranges by kind.
    pub dependencies: BTreeMap<DependencyKind, BTreeMap<Box<str>, Box<str>>>,
    pub(crate) document: Map<String, Value>,
}

/// Why a `package.json` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// It is longer than any real one.
    #[error("it is longer than {MAX_MANIFEST_BYTES} bytes")]
    TooLong,
    /// It is not JSON.
    #[error("it is not JSON")]
    Syntax(#[from] serde_json::Error),
    /// It is JSON of another shape.
    #[error("it is not an object")]
    Shape,
    /// A name that npm would not take.
    #[error("`{name}` is not a name of a package")]
    Name {
        /// The name.
        name: String,
    },
}

impl Manifest {
    /// Reads a `package.json`. A byte order mark is passed over, as npm does.
    ///
    /// # Errors
    ///
    /// [`ManifestError`]
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        if bytes.len() > MAX_MANIFEST_BYTES {
            return Err(ManifestError::TooLong);
        }
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let Value::Object(document) = serde_json::from_slice(bytes)? else { return Err(ManifestError::Shape) };
        let text = |key: &str| document.get(key).and_then(Value::as_str).map(Box::from);
        let name: Option<Box<str>> = text("name");
        if let Some(name) = &name
            && !is_package_name(name)
        {
            return Err(ManifestError::Name { name: name.to_string() });
        }
        let mut dependencies = BTreeMap::new();
        for kind in DependencyKind::ALL {
            let section = document.get(kind.section()).and_then(Value::as_object);
            let mut ranges: BTreeMap<Box<str>, Box<str>> = BTreeMap::new();
            for (name, range) in section.into_iter().flatten() {
                if let Some(range) = range.as_str() {
                    ranges.insert(name.as_str().into(), range.into());
                }
            }
            dependencies.insert(kind, ranges);
        }
        let private = document.get("private") == Some(&Value::Bool(true));
        Ok(Self { name, version: text("version"), private, dependencies, document })
    }

    /// Programs: name, and path in the package; those that would leave it are left out.
    #[must_use]
    pub fn programs(&self) -> BTreeMap<String, String> {
        let name = self.name.as_deref().unwrap_or_default();
        let pairs: Vec<(&str, &str)> = match self.document.get("bin") {
            Some(Value::String(path)) => vec![(name, path)],
            Some(Value::Object(bin)) => {
                bin.iter().filter_map(|(name, path)| Some((name.as_str(), path.as_str()?))).collect()
            }
            _ => Vec::new(),
        };
        pairs
            .into_iter()
            .filter_map(|(name, path)| {
                // The scope of a name is no part of a program's.
                let name = name.rsplit('/').next().unwrap_or(name);
                Some((cas_tree::Name::new(name).is_ok().then(|| name.to_owned())?, clean(path)?))
            })
            .collect()
    }

    /// Names that the package depends on in one of these ways.
    pub fn dependency_names<'a>(&'a self, kinds: &'a [DependencyKind]) -> impl Iterator<Item = &'a str> {
        kinds.iter().flat_map(|kind| self.dependencies[kind].keys().map(AsRef::as_ref))
    }
}

/// Whether `text` is a name by which a package can be installed: `name` or `@scope/name`, and nothing that leaves a folder.
pub(crate) fn is_package_name(text: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'/' | b'\\' | b'%' | b'@' | b':'))
    };
    match text.strip_prefix('@') {
        Some(scoped) => scoped.split_once('/').is_some_and(|(scope, name)| part(scope) && part(name)),
        None => part(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_building_needs_is_read_and_the_rest_passed_over() {
        let text = "\u{feff}{\"name\": \"@a/b\", \"version\": \"1.0.0\", \"private\": true, \"x\": [1],
            \"dependencies\": {\"c\": \"^1\", \"odd\": 7}, \"devDependencies\": {\"d\": \"*\"}}";
        let manifest = Manifest::parse(text.as_bytes()).expect("it is a manifest");
        assert_eq!((manifest.name.as_deref(), manifest.version.as_deref()), (Some("@a/b"), Some("1.0.0")));
        assert!(manifest.private);
        let kinds = [DependencyKind::Production, DependencyKind::Development];
        assert_eq!(manifest.dependency_names(&kinds).collect::<Vec<_>>(), ["c", "d"]);
    }

    #[test]
    fn names_that_would_leave_a_folder_are_refused() {
        for name in ["..", ".x", "a/b", "@a", "@/b", "@a/..", "@a/b/c", "a\\b", "", "a b", "\u{e9}"] {
            let text = serde_json::json!({ "name": name }).to_string();
            assert!(matches!(Manifest::parse(text.as_bytes()), Err(ManifestError::Name { .. })), "{name}");
        }
        for name in ["a", "a.b", "@a/b-c", "JSONStream", "a_b~c"] {
            let text = serde_json::json!({ "name": name }).to_string();
            assert!(Manifest::parse(text.as_bytes()).is_ok(), "{name}");
        }
        assert!(matches!(Manifest::parse(b"[]"), Err(ManifestError::Shape)));
        assert!(matches!(Manifest::parse(b"{"), Err(ManifestError::Syntax(_))));
    }
}
