//! What the maintainer scripts of Debian's packages would have made, as far as programs need it.
//!
//! Scripts are not run, so this table stands in for them: directories, files, copies, and the links of
//! `update-alternatives`. Each row applies only where the name is free, and a link or copy only where what it names is
//! there, so the table takes nothing away from what packages ship. It belongs to `format_version` 1: a change changes the
//! digests of toolchains. docs/formats/debian.md lists it; a test compares the two.
//!
//! Not here, because it costs more than it gives in a build: the cache of the dynamic linker (Debian's has the directories
//! of its architecture built in), compiled Python, indexes of manuals and icons, the bundle of certificates.

use cas_blob::Descriptor;
use cas_digest::DigestFunction;
use cas_tree::{Directory, EditError, Metadata, Node, RelPath};

/// Directories that have to be, with their modes.
const DIRECTORIES: [(&str, u32); 22] = [
    ("dev", 0o755),
    ("etc", 0o755),
    ("home", 0o755),
    ("mnt", 0o755),
    ("opt", 0o755),
    ("proc", 0o755),
    ("root", 0o700),
    ("run", 0o755),
    ("run/lock", 0o1777),
    ("src", 0o755),
    ("srv", 0o755),
    ("sys", 0o755),
    ("tmp", 0o1777),
    ("usr/local/bin", 0o755),
    ("usr/local/etc", 0o755),
    ("usr/local/include", 0o755),
    ("usr/local/lib", 0o755),
    ("usr/local/sbin", 0o755),
    ("usr/local/share", 0o755),
    ("usr/local/src", 0o755),
    ("var/log", 0o755),
    ("var/tmp", 0o1777),
];

/// Directories that packages ship empty and scripts turn into links.
const REPLACED_DIRECTORIES: [(&str, &str); 2] = [("var/lock", "/run/lock"), ("var/run", "/run")];

/// The users of Debian's base-passwd with their numbers, and one to build as.
const PASSWD: &str = "\
root:*:0:0:root:/root:/bin/bash
daemon:*:1:1:daemon:/usr/sbin:/usr/sbin/nologin
bin:*:2:2:bin:/bin:/usr/sbin/nologin
sys:*:3:3:sys:/dev:/usr/sbin/nologin
sync:*:4:65534:sync:/bin:/bin/sync
games:*:5:60:games:/usr/games:/usr/sbin/nologin
man:*:6:12:man:/var/cache/man:/usr/sbin/nologin
lp:*:7:7:lp:/var/spool/lpd:/usr/sbin/nologin
mail:*:8:8:mail:/var/mail:/usr/sbin/nologin
news:*:9:9:news:/var/spool/news:/usr/sbin/nologin
uucp:*:10:10:uucp:/var/spool/uucp:/usr/sbin/nologin
proxy:*:13:13:proxy:/bin:/usr/sbin/nologin
www-data:*:33:33:www-data:/var/www:/usr/sbin/nologin
backup:*:34:34:backup:/var/backups:/usr/sbin/nologin
list:*:38:38:Mailing List Manager:/var/list:/usr/sbin/nologin
irc:*:39:39:ircd:/run/ircd:/usr/sbin/nologin
_apt:*:42:65534::/nonexistent:/usr/sbin/nologin
build:*:1000:1000:build:/tmp:/bin/sh
nobody:*:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
";

/// The groups of Debian's base-passwd with their numbers, and one to build as.
const GROUP: &str = "\
root:*:0:
daemon:*:1:
bin:*:2:
sys:*:3:
adm:*:4:
tty:*:5:
disk:*:6:
lp:*:7:
mail:*:8:
news:*:9:
uucp:*:10:
man:*:12:
proxy:*:13:
kmem:*:15:
dialout:*:20:
fax:*:21:
voice:*:22:
cdrom:*:24:
floppy:*:25:
tape:*:26:
sudo:*:27:
audio:*:29:
dip:*:30:
www-data:*:33:
backup:*:34:
operator:*:37:
list:*:38:
irc:*:39:
src:*:40:
shadow:*:42:
utmp:*:43:
video:*:44:
sasl:*:45:
plugdev:*:46:
staff:*:50:
games:*:60:
users:*:100:
build:*:1000:
nogroup:*:65534:
";

/// Where names are looked up: without this file the C library asks a resolver for the host's own name, too.
const NSSWITCH: &str = "\
passwd: files
group: files
shadow: files
gshadow: files
hosts: files dns
networks: files
protocols: files
services: files
ethers: files
rpc: files
";

const HOSTS: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n";

/// Files that scripts write, with mode `0644`.
const FILES: [(&str, &str); 4] =
    [("etc/group", GROUP), ("etc/hosts", HOSTS), ("etc/nsswitch.conf", NSSWITCH), ("etc/passwd", PASSWD)];

/// Files that scripts copy: to where, and from where.
const COPIES: [(&str, &str); 3] = [
    ("etc/profile", "usr/share/base-files/profile"),
    ("root/.bashrc", "usr/share/base-files/dot.bashrc"),
    ("root/.profile", "usr/share/base-files/dot.profile"),
];

/// What `update-alternatives` would link: a name in `/usr/bin` unless it has a path, and programs by falling priority.
const ALTERNATIVES: [(&str, &[&str]); 39] = [
    ("aclocal", &["aclocal-1.16"]),
    ("automake", &["automake-1.16"]),
    ("awk", &["gawk", "mawk", "original-awk"]),
    ("c++", &["g++", "clang++"]),
    ("c89", &["c89-gcc", "clang"]),
    ("c99", &["c99-gcc", "clang"]),
    ("cc", &["gcc", "clang", "tcc"]),
    ("editor", &["nano", "vim.basic", "vim.tiny", "ed"]),
    ("ex", &["vim.basic", "vim.tiny"]),
    ("f77", &["gfortran"]),
    ("f95", &["gfortran"]),
    ("fakeroot", &["fakeroot-sysv", "fakeroot-tcp"]),
    ("js", &["nodejs"]),
    ("lua", &["lua5.4"]),
    ("luac", &["luac5.4"]),
    ("lzcat", &["xzcat"]),
    ("lzcmp", &["xzcmp"]),
    ("lzdiff", &["xzdiff"]),
    ("lzegrep", &["xzegrep"]),
    ("lzfgrep", &["xzfgrep"]),
    ("lzgrep", &["xzgrep"]),
    ("lzless", &["xzless"]),
    ("lzma", &["xz"]),
    ("lzmore", &["xzmore"]),
    ("nawk", &["gawk", "mawk", "original-awk"]),
    ("nc", &["nc.openbsd", "nc.traditional"]),
    ("netcat", &["nc.openbsd", "nc.traditional"]),
    ("pager", &["less", "more"]),
    ("pico", &["nano"]),
    ("rview", &["vim.basic", "vim.tiny"]),
    ("unlzma", &["unxz"]),
    ("usr/lib/cpp", &["usr/bin/cpp"]),
    ("usr/sbin/rmt", &["usr/sbin/rmt-tar"]),
    ("vi", &["vim.basic", "vim.tiny"]),
    ("view", &["vim.basic", "vim.tiny"]),
    ("vim", &["vim.basic"]),
    ("vimdiff", &["vim.basic"]),
    ("which", &["which.debianutils"]),
    ("yacc", &["bison.yacc", "byacc"]),
];

/// A file that is new in the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddedFile {
    /// Its content's name, as it is in the tree.
    pub blob: Descriptor,
    /// The content, which the caller stores.
    pub content: &'static str,
}

/// A row of the table cannot be applied: a file is where a directory has to be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("could not add `{path}` to the tree of packages")]
pub struct FixUpError {
    /// What was to be added.
    pub path: RelPath,
    /// What is in the way.
    pub source: EditError,
}

/// Adds what maintainer scripts would have made. `function` names the new files' contents.
///
/// The names are looked for as a merged `/usr` has them, so apply [`crate::merge`] first. Doing it twice adds nothing.
///
/// # Errors
///
/// [`FixUpError`]
pub fn fix_up(tree: &mut Directory, function: DigestFunction) -> Result<Vec<AddedFile>, FixUpError> {
    let mut added = Vec::new();
    for (at, mode) in DIRECTORIES {
        add(tree, at, || Some(Node::Directory(Directory::new(Metadata::root_owned(mode)).into())))?;
    }
    for (at, target) in REPLACED_DIRECTORIES {
        let path = path(at);
        if tree.get_directory(&path).is_some_and(|directory| directory.is_empty()) {
            tree.remove(&path);
        }
        add(tree, at, || Some(Node::symlink(target)))?;
    }
    for (at, content) in FILES {
        let blob = Descriptor::of(function, content.as_bytes());
        if add(tree, at, || Some(Node::file(blob, 0o644)))? {
            added.push(AddedFile { blob, content });
        }
    }
    for (at, from) in COPIES {
        let copy = tree.get_file(&path(from)).map(|(metadata, blob)| Node::File { metadata: metadata.clone(), blob });
        add(tree, at, || copy)?;
    }
    for (name, programs) in ALTERNATIVES {
        let found = programs.iter().find(|program| tree.get(&path(&in_bin(program))).is_some());
        add(tree, &in_bin(name), || found.map(|program| Node::symlink(link_text(name, program))))?;
    }
    Ok(added)
}

/// Adds a node where nothing is; whether it did.
pub(crate) fn add(tree: &mut Directory, at: &str, node: impl FnOnce() -> Option<Node>) -> Result<bool, FixUpError> {
    let path = path(at);
    if tree.get(&path).is_some() {
        return Ok(false);
    }
    let Some(node) = node() else { return Ok(false) };
    match tree.insert(&path, node, &Metadata::root_owned(0o755)) {
        Ok(()) => Ok(true),
        Err(source) => Err(FixUpError { path, source }),
    }
}

fn path(text: &str) -> RelPath {
    RelPath::new(text).expect("the table holds paths")
}

fn in_bin(name: &str) -> String {
    if name.contains('/') { name.to_owned() } else { format!("usr/bin/{name}") }
}

/// The program's name where it is beside the link, else its path.
fn link_text(name: &str, program: &str) -> String {
    if program.contains('/') || name.contains('/') { format!("/{}", in_bin(program)) } else { program.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[&str]) -> Directory {
        let mut tree = Directory::root();
        for file in files {
            let blob = Descriptor::of(DigestFunction::Blake3, file.as_bytes());
            tree.insert(&path(file), Node::file(blob, 0o755), &Metadata::root_owned(0o755))
                .expect("nothing is in the way");
        }
        tree
    }

    fn target(tree: &Directory, at: &str) -> Option<String> {
        match tree.get(&path(at)) {
            Some(Node::Symlink { target, .. }) => Some(String::from_utf8_lossy(target).into_owned()),
            _ => None,
        }
    }

    #[test]
    fn alternatives_take_the_first_program_that_is_there() {
        let mut tree = tree(&["usr/bin/mawk", "usr/bin/original-awk", "usr/bin/gcc", "usr/bin/vi", "usr/bin/cpp"]);
        fix_up(&mut tree, DigestFunction::Blake3).expect("nothing is in the way");
        assert_eq!(target(&tree, "usr/bin/awk").as_deref(), Some("mawk"));
        assert_eq!(target(&tree, "usr/bin/cc").as_deref(), Some("gcc"));
        assert_eq!(target(&tree, "usr/lib/cpp").as_deref(), Some("/usr/bin/cpp"));
        assert_eq!(target(&tree, "usr/bin/vi"), None, "what a package ships stays");
        assert!(tree.get(&path("usr/bin/c++")).is_none(), "no link to nothing");
    }

    #[test]
    fn doing_it_twice_adds_nothing() {
        let mut tree = tree(&["usr/share/base-files/profile"]);
        tree.insert(&path("var/run"), Node::Directory(Directory::root().into()), &Metadata::root_owned(0o755))
            .expect("free");
        let added = fix_up(&mut tree, DigestFunction::Blake3).expect("nothing is in the way");
        assert_eq!(added.len(), 4);
        assert_eq!(target(&tree, "var/run").as_deref(), Some("/run"));
        assert_eq!(tree.get_directory(&path("tmp")).expect("made").metadata.mode, 0o1777);
        assert_eq!(tree.get_file(&path("etc/profile")), tree.get_file(&path("usr/share/base-files/profile")));
        let once = tree.clone();
        assert_eq!(fix_up(&mut tree, DigestFunction::Blake3).expect("nothing is in the way"), []);
        assert_eq!(tree, once);
    }

    #[test]
    fn a_file_in_the_place_of_a_directory_is_an_error() {
        let error = fix_up(&mut tree(&["usr/local"]), DigestFunction::Blake3).expect_err("a file is in the way");
        assert_eq!(error.to_string(), "could not add `usr/local/bin` to the tree of packages");
    }

    #[test]
    fn the_page_lists_the_table() {
        let page = include_str!("../../../docs/formats/debian.md");
        for (directory, mode) in DIRECTORIES {
            let mode = format!("- `{mode:04o}`:");
            let line = page.lines().find(|line| line.starts_with(&mode)).expect("the mode has a line");
            assert!(line.contains(&format!("`{directory}`")), "{directory}");
        }
        for (link, target) in REPLACED_DIRECTORIES {
            assert!(page.contains(&format!("`{link}` → `{target}`")), "{link}");
        }
        for (file, _) in FILES {
            assert!(page.contains(&format!("`{file}`")), "{file}");
        }
        for (name, programs) in ALTERNATIVES {
            let programs: Vec<String> = programs.iter().map(|program| format!("`{program}`")).collect();
            let row = format!("| `{name}` | {} |", programs.join(" "));
            assert!(page.contains(&row), "{row}");
        }
    }
}
