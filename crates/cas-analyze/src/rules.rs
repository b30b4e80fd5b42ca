//! Which files are what, by their paths.

use cas_tree::RelPath;

/// How many bytes of every file are looked at.
pub(crate) const HEAD_BYTES: usize = 4096;

/// How much of a file's content is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// Its first 4,096 bytes.
    Head,
    /// All of it, up to [`MAX_PARSED_BYTES`](crate::MAX_PARSED_BYTES).
    Whole,
}

impl Want {
    /// How many bytes that are at most.
    #[must_use]
    pub const fn limit_bytes(self) -> u64 {
        match self {
            Self::Head => HEAD_BYTES as u64,
            Self::Whole => crate::MAX_PARSED_BYTES,
        }
    }
}

/// The text of a path; what is no UTF-8 matches no rule.
fn text(path: &RelPath) -> &str {
    std::str::from_utf8(path.as_bytes()).unwrap_or_default()
}

/// How much is asked for of the file at a path.
#[must_use]
pub fn wanted(path: &RelPath) -> Want {
    let text = text(path);
    let name = text.rsplit('/').next().unwrap_or_default();
    let is_database = text == DPKG_STATUS
        || text.strip_prefix(DPKG_INFO).is_some_and(|rest| rest.ends_with(".list"))
        || text.starts_with(DPKG_STATUS_D)
        || APK_DATABASES.contains(&text)
        || npm_folder(text).is_some()
        || text.ends_with(HIDDEN_LOCK)
        || (name == "package-lock.json" && !text.contains("node_modules/"))
        || (name == "RECORD" && text.ends_with(".dist-info/RECORD"));
    if is_database { Want::Whole } else { Want::Head }
}

/// Status of dpkg.
pub(crate) const DPKG_STATUS: &str = "var/lib/dpkg/status";
/// Lists of files of dpkg.
pub(crate) const DPKG_INFO: &str = "var/lib/dpkg/info/";
/// Status of images that have no dpkg.
pub(crate) const DPKG_STATUS_D: &str = "var/lib/dpkg/status.d/";
/// Databases of apk.
pub(crate) const APK_DATABASES: [&str; 2] = ["lib/apk/db/installed", "usr/lib/apk/db/installed"];
/// What npm notes of what it installed.
pub(crate) const HIDDEN_LOCK: &str = "node_modules/.package-lock.json";

/// The folder of the package whose `package.json` a path is.
pub(crate) fn npm_folder(text: &str) -> Option<&str> {
    let folder = text.strip_suffix("/package.json")?;
    let (parent, name) = folder.rsplit_once('/')?;
    if name.is_empty() || name.starts_with(['.', '@']) {
        return None;
    }
    let parent = match parent.rsplit_once('/') {
        Some((above, scope)) if scope.starts_with('@') => above,
        _ => parent,
    };
    (parent == "node_modules" || parent.ends_with("/node_modules")).then_some(folder)
}

/// Folders of caches at one place, and whose they are.
const CACHES: [(&str, &str); 11] = [
    ("var/lib/apt/lists/", "apt"),
    ("var/cache/apt/", "apt"),
    ("var/cache/apk/", "apk"),
    ("etc/apk/cache/", "apk"),
    ("var/cache/dnf/", "dnf"),
    ("var/cache/yum/", "dnf"),
    ("var/cache/libdnf5/", "dnf"),
    ("usr/local/cargo/registry/", "cargo"),
    ("usr/local/cargo/git/", "cargo"),
    ("usr/local/share/.cache/yarn/", "yarn"),
    ("root/.cache/pip/", "pip"),
];

/// Folders of caches in any folder.
const CACHES_ANYWHERE: [(&str, &str); 13] = [
    (".npm/_cacache/", "npm"),
    (".npm/_logs/", "npm"),
    (".cache/yarn/", "yarn"),
    (".yarn/berry/cache/", "yarn"),
    (".local/share/pnpm/store/", "pnpm"),
    (".pnpm-store/", "pnpm"),
    (".cache/pnpm/", "pnpm"),
    (".cache/pip/", "pip"),
    (".cargo/registry/", "cargo"),
    (".cargo/git/", "cargo"),
    (".cache/go-build/", "go"),
    ("go/pkg/mod/", "go"),
    ("__pycache__/", "python"),
];

/// Whether a text has a folder, at its beginning or behind a `/`.
fn has_folder(text: &str, folder: &str) -> bool {
    text.match_indices(folder).any(|(at, _)| at == 0 || text.as_bytes()[at - 1] == b'/')
}

/// Whose cache a file is of.
pub(crate) fn cache(path: &RelPath) -> Option<&'static str> {
    let text = text(path);
    let fixed = CACHES.iter().find(|(folder, _)| text.starts_with(folder));
    let found = fixed.or_else(|| CACHES_ANYWHERE.iter().find(|(folder, _)| has_folder(text, folder)));
    found.map(|(_, owner)| *owner)
}

/// Folders in which programs for version control keep what a repository has.
const REPOSITORIES: [&str; 3] = [".git", ".hg", ".svn"];

/// The folder of a repository that a file is in.
pub(crate) fn repository(path: &RelPath) -> Option<&str> {
    let text = text(path);
    let mut end = 0;
    for part in text.split('/') {
        end += part.len();
        if end < text.len() && REPOSITORIES.contains(&part) {
            return Some(&text[..end]);
        }
        end += 1;
    }
    None
}

/// Packages of compilers and what goes with them.
const BUILD_TOOLS: [&str; 25] = [
    "autoconf",
    "automake",
    "binutils",
    "bison",
    "build-base",
    "build-essential",
    "cargo",
    "clang",
    "cmake",
    "cpp",
    "flex",
    "g++",
    "gcc",
    "git",
    "go",
    "golang",
    "libtool",
    "llvm",
    "make",
    "mercurial",
    "ninja-build",
    "pkg-config",
    "pkgconf",
    "rustc",
    "subversion",
];

/// Folders of compilers that no package owns.
const TOOL_FOLDERS: [&str; 3] = ["usr/local/go/", "usr/local/rustup/", "usr/local/cargo/"];

/// Whether a package of Debian or apk is for building alone.
pub(crate) fn is_build_package(name: &str) -> bool {
    let is_versioned = |rest: &str| {
        rest.strip_prefix('-').unwrap_or(rest).bytes().next().is_some_and(|byte| byte.is_ascii_digit())
            && rest.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'-' | b'.'))
    };
    name.ends_with("-dev")
        || BUILD_TOOLS
            .iter()
            .any(|tool| name.strip_prefix(tool).is_some_and(|rest| rest.is_empty() || is_versioned(rest)))
}

/// The folder of a compiler that a file is in.
pub(crate) fn tool_folder(path: &RelPath) -> Option<&'static str> {
    let text = text(path);
    TOOL_FOLDERS.into_iter().find(|folder| text.starts_with(folder)).map(|folder| folder.trim_end_matches('/'))
}

/// Which kind of documentation a file is.
pub(crate) fn documentation(path: &RelPath) -> Option<&'static str> {
    let rest = text(path).strip_prefix("usr/share/")?;
    let (folder, below) = rest.split_once('/')?;
    let kind = ["doc", "man", "info", "locale", "gtk-doc", "help"].into_iter().find(|kind| *kind == folder)?;
    let is_licence = kind == "doc" && below.split_once('/').is_some_and(|(_, name)| name == "copyright");
    (!is_licence).then_some(kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::new(text).expect("it is a path")
    }

    #[test]
    fn files_are_what_their_paths_say() {
        for (text, expected) in [
            ("var/lib/apt/lists/deb.debian.org_x", Some("apt")),
            ("var/cache/apt/archives/x.deb", Some("apt")),
            ("var/lib/apt/extended_states", None),
            ("srv/var/cache/apt/pkgcache.bin", None),
            ("root/.npm/_cacache/content-v2/x", Some("npm")),
            (".npm/_logs/x", Some("npm")),
            ("home/a/x.npm/_cacache/y", None),
            ("usr/lib/python3/__pycache__/x.pyc", Some("python")),
            ("root/go/pkg/mod/x", Some("go")),
            ("root/cargo/pkg/mod/x", None),
            ("var/cache/apt", None),
        ] {
            assert_eq!(cache(&path(text)), expected, "{text}");
        }
        for (text, expected) in [
            ("usr/share/doc/gcc/changelog.gz", Some("doc")),
            ("usr/share/doc/gcc/copyright", None),
            ("usr/share/doc/gcc/x/copyright", Some("doc")),
            ("usr/share/man/man1/x.1", Some("man")),
            ("usr/share/zoneinfo/UTC", None),
            ("usr/share/man", None),
        ] {
            assert_eq!(documentation(&path(text)), expected, "{text}");
        }
        for (text, expected) in [
            ("app/.git/HEAD", Some("app/.git")),
            (".svn/x", Some(".svn")),
            ("a/.hg/store/.git/x", Some("a/.hg")),
            // A file that leads to a repository elsewhere, and what only begins so.
            ("app/.git", None),
            ("app/.github/x", None),
            ("app/x.git/HEAD", None),
        ] {
            assert_eq!(repository(&path(text)), expected, "{text}");
        }
        for (text, expected) in [
            ("app/node_modules/a/package.json", Some("app/node_modules/a")),
            ("node_modules/@s/a/package.json", Some("node_modules/@s/a")),
            ("node_modules/a/lib/package.json", None),
            ("node_modules/@s/package.json", None),
            ("app/package.json", None),
            ("x_node_modules/a/package.json", None),
        ] {
            assert_eq!(npm_folder(text), expected, "{text}");
        }
    }

    #[test]
    fn packages_for_building_are_known_by_their_names() {
        for (name, expected) in [
            ("gcc", true),
            ("gcc-12", true),
            ("gcc-12-base", false),
            ("g++-4.9", true),
            ("libc6-dev", true),
            ("musl-dev", true),
            ("git", true),
            ("gitolite", false),
            ("golang-1.21", true),
            ("golang-1.21-doc", false),
            ("llvm14", true),
            ("makedev", false),
            ("libgcc-s1", false),
            ("go", true),
            ("gosu", false),
        ] {
            assert_eq!(is_build_package(name), expected, "{name}");
        }
    }
}
