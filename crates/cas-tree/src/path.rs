//! Names and paths that cannot leave their root.

use std::borrow::Borrow;
use std::fmt;

/// Longest name of an entry in bytes: the limit of every Linux file system.
const MAX_NAME: usize = 255;
/// Longest path in bytes: Linux's `PATH_MAX`.
const MAX_PATH: usize = 4096;

/// Why some bytes are not a path inside a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RelPathError {
    /// There is nothing.
    #[error("path is empty")]
    Empty,
    /// It begins with `/`.
    #[error("path is absolute")]
    Absolute,
    /// A component is `.` or `..`.
    #[error("path has a `.` or `..` component")]
    DotComponent,
    /// Two `/` follow each other, or one stands at the end.
    #[error("path has an empty component")]
    EmptyComponent,
    /// It holds a NUL byte.
    #[error("path holds a NUL byte")]
    Nul,
    /// A component is longer than 255 bytes, or the whole longer than 4,096.
    #[error("path is longer than a file system allows")]
    TooLong,
}

/// Name of an entry in a directory: 1–255 bytes without `/` and NUL, neither `.` nor `..`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Box<[u8]>);

impl Name {
    /// Takes bytes as a name.
    ///
    /// # Errors
    ///
    /// [`RelPathError`] when they are not one; a `/` inside makes it [`RelPathError::Absolute`].
    pub fn new(bytes: impl AsRef<[u8]>) -> Result<Self, RelPathError> {
        let bytes = bytes.as_ref();
        if bytes.contains(&b'/') {
            return Err(RelPathError::Absolute);
        }
        check_component(bytes, RelPathError::Empty)?;
        Ok(Self(bytes.into()))
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

fn check_component(bytes: &[u8], empty: RelPathError) -> Result<(), RelPathError> {
    match bytes {
        [] => Err(empty),
        b"." | b".." => Err(RelPathError::DotComponent),
        _ if bytes.contains(&0) => Err(RelPathError::Nul),
        _ if bytes.len() > MAX_NAME => Err(RelPathError::TooLong),
        _ => Ok(()),
    }
}

impl Borrow<[u8]> for Name {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

/// Path of an entry, relative to the root of its tree, which it cannot leave.
///
/// Ordered as trees are walked: component by component, so `a/b` comes before `a.b`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RelPath(Box<[u8]>);

impl RelPath {
    /// Takes bytes as a path.
    ///
    /// # Errors
    ///
    /// [`RelPathError`] when they are not one.
    pub fn new(bytes: impl AsRef<[u8]>) -> Result<Self, RelPathError> {
        let bytes = bytes.as_ref();
        match bytes.first() {
            None => return Err(RelPathError::Empty),
            Some(b'/') => return Err(RelPathError::Absolute),
            Some(_) if bytes.len() > MAX_PATH => return Err(RelPathError::TooLong),
            Some(_) => {}
        }
        for component in bytes.split(|b| *b == b'/') {
            check_component(component, RelPathError::EmptyComponent)?;
        }
        Ok(Self(bytes.into()))
    }

    /// The bytes, with `/` between the components.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The components from the root on. There is at least one.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|b| *b == b'/')
    }

    /// The last component.
    #[must_use]
    pub fn name(&self) -> Name {
        let last = self.components().next_back().expect("a path has a component");
        Name(last.into())
    }

    /// The path without its last component; `None` at the root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        let end = self.0.iter().rposition(|b| *b == b'/')?;
        Some(Self(self.0[..end].into()))
    }

    /// This path and one more component.
    #[must_use]
    pub fn join(&self, name: &Name) -> Self {
        Self([&self.0, b"/".as_slice(), name.as_bytes()].concat().into())
    }

    /// This path, and `below` under it.
    #[must_use]
    pub fn join_path(&self, below: &Self) -> Self {
        Self([&self.0, b"/".as_slice(), &below.0].concat().into())
    }

    /// What remains of this path below `prefix`; `None` when it is not below.
    #[must_use]
    pub fn strip_prefix(&self, prefix: &Self) -> Option<Self> {
        let rest = self.0.strip_prefix(prefix.as_bytes())?.strip_prefix(b"/")?;
        Some(Self(rest.into()))
    }
}

impl From<Name> for RelPath {
    fn from(name: Name) -> Self {
        Self(name.0)
    }
}

impl PartialOrd for RelPath {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for RelPath {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.components().cmp(other.components())
    }
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Archives and materialised roots have no check of their own, so each way out of the root must stop here.
    #[test]
    fn paths_stay_inside_their_root() {
        use RelPathError::*;
        let long = "x".repeat(256);
        for (text, expected) in [
            ("usr/bin/env", Ok(())),
            ("..data/token", Ok(())), // a name may begin with dots
            ("", Err(Empty)),
            ("/etc/passwd", Err(Absolute)),
            ("a/../../etc", Err(DotComponent)),
            ("./a", Err(DotComponent)),
            ("a//b", Err(EmptyComponent)),
            ("a/", Err(EmptyComponent)),
            ("a\0b", Err(Nul)),
            (long.as_str(), Err(TooLong)),
        ] {
            assert_eq!(RelPath::new(text).map(drop), expected, "{text:?}");
        }
        assert_eq!(Name::new("a/b"), Err(Absolute));
    }

    #[test]
    fn paths_are_ordered_by_components() {
        let mut paths = ["dir.d", "dir/file", "dir", "dir-x"].map(|text| RelPath::new(text).expect("a path"));
        paths.sort();
        assert_eq!(paths.map(|path| path.to_string()), ["dir", "dir/file", "dir-x", "dir.d"]);
    }

    #[test]
    fn prefixes_are_whole_components() {
        let path = |text: &str| RelPath::new(text).expect("a path");
        assert_eq!(path("usr/bin/env").strip_prefix(&path("usr")), Some(path("bin/env")));
        assert_eq!(path("usr2/bin").strip_prefix(&path("usr")), None);
        assert_eq!(path("usr").parent(), None);
        assert_eq!(path("usr/bin").parent(), Some(path("usr")));
    }
}
