//! Which packages a machine can use, by the words of `os`, `cpu` and `libc`.

use serde::Deserialize;

/// A list, or one entry of it alone.
#[derive(Deserialize)]
#[serde(untagged)]
pub(crate) enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl Default for OneOrMany {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl OneOrMany {
    /// Whether it says nothing.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::Many(many) if many.is_empty())
    }

    /// Whether the list has this machine's word.
    fn allows(&self, word: &str) -> bool {
        let list = match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        };
        let excluded = list.iter().any(|entry| entry.strip_prefix('!') == Some(word));
        let mut positive = list.iter().filter(|entry| !entry.starts_with('!')).peekable();
        !excluded && (positive.peek().is_none() || positive.any(|entry| entry == word || entry == "any"))
    }
}

/// Whether this machine can use a package.
pub(crate) fn fits(os: &OneOrMany, cpu: &OneOrMany, libc: &OneOrMany) -> bool {
    let own = if cfg!(target_arch = "aarch64") { "arm64" } else { "x64" };
    os.allows("linux") && cpu.allows(own) && libc.allows("glibc")
}
