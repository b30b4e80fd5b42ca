//! Where the parts of a repository are: `.git` files and `commondir`.
//!
//! Source: gitrepository-layout(5).

/// Longest `.git` file and `commondir` that are read: a path and a word.
pub const MAX_LINK_BYTES: u64 = 8192;

/// Why a `.git` file leads nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// It does not begin with `gitdir: `.
    #[error("it does not begin with `gitdir: `")]
    Prefix,
    /// There is no path, or none that can be opened.
    #[error("it names no path")]
    NoPath,
}

/// The path that a `.git` file names: absolute, or from the file's own folder on.
///
/// # Errors
///
/// [`LinkError`]
pub fn gitfile(content: &[u8]) -> Result<&[u8], LinkError> {
    one_path(content.strip_prefix(b"gitdir: ").ok_or(LinkError::Prefix)?)
}

/// The path that a worktree's `commondir` names: absolute, or from the file's own folder on.
///
/// # Errors
///
/// [`LinkError::NoPath`]
pub fn commondir(content: &[u8]) -> Result<&[u8], LinkError> {
    one_path(content)
}

fn one_path(mut path: &[u8]) -> Result<&[u8], LinkError> {
    while let [head @ .., b'\n' | b'\r'] = path {
        path = head;
    }
    if path.is_empty() || path.contains(&0) { Err(LinkError::NoPath) } else { Ok(path) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_name_a_path() {
        for (content, expected) in [
            (&b"gitdir: ../.git/modules/a b\n"[..], Ok(&b"../.git/modules/a b"[..])),
            (b"gitdir: /x\r\n\n", Ok(b"/x")),
            (b"gitdir: \n", Err(LinkError::NoPath)),
            (b"gitdir: a\0b", Err(LinkError::NoPath)),
            (b"gitdir:/x", Err(LinkError::Prefix)),
            (b"", Err(LinkError::Prefix)),
        ] {
            assert_eq!(gitfile(content), expected, "{}", content.escape_ascii());
        }
        assert_eq!(commondir(b"../..\n"), Ok(&b"../.."[..]));
    }
}
