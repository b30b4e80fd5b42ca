//! What a user should know of files that are legal inputs: they are likely to be others on another machine.
//!
//! Nothing is read for it but `.gitattributes` files: a pointer of Git LFS is recognised when its content is read, names that
//! differ by case only when a folder is listed, and both are remembered in the stat cache.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use cas_fs::{FsError, Operation};
use cas_git::{Attributes, Config, Setting};
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use rustix::fs::OFlags;

use crate::cache::{Kind, Name};
use crate::record::Class;
use crate::slot::Slot;
use crate::snapshot::{FileAt, Picked};
use crate::walk::{find, join, open_below};
use crate::{Snapshot, SnapshotError};

const GITATTRIBUTES: &[u8] = b".gitattributes";
/// Longest `.gitattributes` that is read.
const MAX_ATTRIBUTES_BYTES: u64 = 4 << 20;

/// Something about files that were selected. Paths are from the workspace's root on; one file stands for all of its kind.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Note {
    /// A file holds the pointer of Git LFS and not what it points at.
    Pointer {
        /// The file.
        path: Vec<u8>,
        /// How many others there are.
        others: usize,
    },
    /// git writes a file otherwise than it is committed, as settings say.
    Converted {
        /// The file.
        path: Vec<u8>,
        /// What says so: an attribute with its file, or a setting.
        rule: String,
    },
    /// Names in one folder differ by case only.
    Twins {
        /// The first by bytes.
        one: Vec<u8>,
        /// The other one.
        other: Vec<u8>,
        /// How many other pairs there are.
        others: usize,
    },
    /// A `.git` file leads to no repository, so that nothing is known to be tracked.
    Lost {
        /// The file.
        path: PathBuf,
    },
}

impl Note {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Pointer { .. } => "`git lfs pull` downloads what it stands for",
            Self::Converted { .. } => {
                "`* -text` or `* text eol=lf` in `.gitattributes` gives every machine the same bytes"
            }
            Self::Twins { .. } => "rename one of them: file systems of macOS and Windows hold only one",
            Self::Lost { .. } => "files that git tracks in spite of a `.gitignore` are left out without it",
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = String::from_utf8_lossy;
        let more = |others: usize| if others > 0 { format!(" (and {others} more)") } else { String::new() };
        match self {
            Self::Pointer { path, others } => {
                write!(f, "`{}` is a Git LFS pointer, not the file it stands for{}", show(path), more(*others))
            }
            Self::Converted { path, rule } => {
                write!(f, "`{}` can hold other bytes on another machine, because of {rule}", show(path))
            }
            Self::Twins { one, other, others } => {
                write!(f, "`{}` and `{}` differ by case only{}", show(one), show(other), more(*others))
            }
            Self::Lost { path } => write!(f, "`{}` leads to no git repository", path.display()),
        }
    }
}

impl Snapshot {
    /// What should be known of the files that were selected so far, at most one note of a kind but for lost repositories.
    ///
    /// Takes a pass over the selected files, and one over the patterns where attributes convert.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Fs`] when a `.gitattributes` cannot be read.
    pub fn notes(&self) -> Result<Vec<Note>, SnapshotError> {
        let mut notes: Vec<Note> = self.tracked.lost.iter().map(|path| Note::Lost { path: path.clone() }).collect();
        notes.extend(self.twins());
        if self.tracked.repositories().next().is_some() {
            let selected = (0u32..).zip(&self.selected).filter(|(_, flag)| flag.load(Ordering::Relaxed));
            let selected = Picked(selected.map(|(index, _)| index).collect());
            let has_pointers: Vec<bool> = self.folders.iter().map(Slot::has_pointers).collect();
            let may_be_pointer = |index: &u32| has_pointers[self.files[*index as usize].folder as usize];
            let in_question = Picked(selected.0.iter().copied().filter(may_be_pointer).collect());
            let mut pointers = Vec::new();
            self.each(&in_question, |folder, name, kind| {
                if matches!(kind, Kind::File(held) if held.is_pointer) {
                    pointers.push(join(folder, name));
                }
            });
            let is_converting = |config: &Config| newline(config).is_some();
            let is_configured = self.tracked.repositories().any(|repository| is_converting(&repository.config));
            let rules = AllAttributes::read(self)?;
            let is_lfs = |path: &Vec<u8>| rules.value(path, "filter").is_some_and(|(value, _)| *value == lfs());
            let mut pointers = pointers.into_iter().filter(is_lfs);
            if let Some(path) = pointers.next() {
                notes.push(Note::Pointer { path, others: pointers.count() });
            }
            if is_configured || rules.has_converting() {
                let is_regular = |file: &FileAt| {
                    let folder = self.folders[file.folder as usize].read();
                    matches!(folder.names[file.name as usize].kind, Kind::File(_))
                };
                let files = selected.0.iter().map(|index| self.files[*index as usize]);
                let mut paths = files.filter(is_regular).map(|file| self.path_bytes(file));
                notes.extend(paths.find_map(|path| {
                    let rule = rules.converts(&path, &self.tracked.repository(&path)?.config)?;
                    // What git does not track it does not write either.
                    self.tracked.has(&path, false).then_some(Note::Converted { path, rule })
                }));
            }
        }
        Ok(notes)
    }

    fn twins(&self) -> Option<Note> {
        let mut pairs = self.folders.iter().flat_map(|slot| {
            let files = slot.files.start as usize..slot.files.end as usize;
            let is_selected = || self.selected[files].iter().any(|flag| flag.load(Ordering::Relaxed));
            if slot.has_twins() && is_selected() { pairs(&slot.path, &slot.read().names) } else { Vec::new() }
        });
        let (one, other) = pairs.next()?;
        Some(Note::Twins { one, other, others: pairs.count() })
    }
}

/// Whether names that belong to the workspace differ by case only.
pub(crate) fn has_twins(names: &[Name]) -> bool {
    let mut seen = BTreeSet::new();
    // Names without upper case are their own folded form, so only the others are worth a search.
    let folded = names.iter().filter(|name| is_there(name)).filter_map(|name| {
        let folded = fold(&name.name);
        (folded != *name.name).then_some(folded)
    });
    folded.into_iter().any(|folded| {
        find(names, &folded).is_some_and(|kind| !matches!(kind, Kind::Ignored { .. })) || !seen.insert(folded)
    })
}

fn pairs(folder: &[u8], names: &[Name]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut first: BTreeMap<Vec<u8>, &[u8]> = BTreeMap::new();
    let mut pairs = Vec::new();
    for name in names.iter().filter(|name| is_there(name)) {
        match first.entry(fold(&name.name)) {
            std::collections::btree_map::Entry::Occupied(one) => {
                pairs.push((join(folder, one.get()), join(folder, &name.name)));
            }
            std::collections::btree_map::Entry::Vacant(slot) => {
                slot.insert(&name.name);
            }
        }
    }
    pairs
}

fn is_there(name: &Name) -> bool {
    !matches!(name.kind, Kind::Ignored { .. })
}

/// A name in lower case; ASCII alone when it is not UTF-8. Normal forms of Unicode are not looked at.
fn fold(name: &[u8]) -> Vec<u8> {
    match std::str::from_utf8(name) {
        Ok(text) if !text.is_ascii() => text.to_lowercase().into_bytes(),
        _ => name.to_ascii_lowercase(),
    }
}

fn lfs() -> Setting {
    Setting::Value("lfs".to_owned())
}

/// The setting that makes git write CRLF, as the config has it.
fn newline(config: &Config) -> Option<&'static str> {
    if config.is_true("core", "autocrlf") == Some(true) {
        return Some("core.autocrlf=true");
    }
    let is_crlf = config.get("core", "eol").is_some_and(|eol| eol.eq_ignore_ascii_case(b"crlf"));
    is_crlf.then_some("core.eol=crlf")
}

struct Line {
    matcher: Gitignore,
    attributes: Vec<(String, Setting)>,
}

/// The attributes of a workspace: for each folder with a `.gitattributes`, its lines.
struct AllAttributes {
    folders: BTreeMap<Box<[u8]>, Vec<Line>>,
}

impl AllAttributes {
    fn read(snapshot: &Snapshot) -> Result<Self, SnapshotError> {
        let has_file = |slot: &&Slot| slot.class(GITATTRIBUTES) == Some(Class::File);
        let mut folders = BTreeMap::new();
        for slot in snapshot.folders.iter().filter(has_file) {
            let at = snapshot.root.at(&join(&slot.path, GITATTRIBUTES));
            let descriptor = snapshot.root.folder(&slot.path)?;
            let file = open_below(descriptor.as_fd(), GITATTRIBUTES, OFlags::RDONLY)
                .map_err(|error| FsError::new(Operation::Open, &at, error.into()))?;
            let mut text = Vec::new();
            File::from(file)
                .take(MAX_ATTRIBUTES_BYTES)
                .read_to_end(&mut text)
                .map_err(|error| FsError::new(Operation::Read, &at, error))?;
            let lines = Attributes::parse(&text).lines.into_iter().filter_map(|line| {
                let mut builder = GitignoreBuilder::new(Path::new(OsStr::from_bytes(&slot.path)));
                // git passes over a pattern that is none, too.
                builder.add_line(None, &line.pattern).ok()?;
                Some(Line { matcher: builder.build().ok()?, attributes: line.attributes })
            });
            folders.insert(slot.path.clone(), lines.collect());
        }
        Ok(Self { folders })
    }

    fn has_converting(&self) -> bool {
        self.folders.values().flatten().flat_map(|line| &line.attributes).any(|(name, setting)| {
            match (name.as_str(), setting) {
                ("eol", Setting::Value(eol)) => eol == "crlf",
                ("ident", Setting::Set) | ("working-tree-encoding", Setting::Value(_)) => true,
                ("filter", Setting::Value(_)) => *setting != lfs(),
                _ => false,
            }
        })
    }

    /// What holds for an attribute of a file, and the folder whose file says so.
    fn value(&self, path: &[u8], wanted: &str) -> Option<(&Setting, &[u8])> {
        let as_path = Path::new(OsStr::from_bytes(path));
        let folders = (0..path.len()).rev().filter(|at| path[*at] == b'/').map(|at| &path[..at]);
        for folder in folders.chain([&b""[..]]) {
            let Some((folder, lines)) = self.folders.get_key_value(folder) else { continue };
            for line in lines.iter().rev() {
                let setting = line.attributes.iter().rev().find(|(name, _)| name == wanted).map(|(_, setting)| setting);
                if let Some(setting) = setting.filter(|_| line.matcher.matched(as_path, false).is_ignore()) {
                    return Some((setting, folder));
                }
            }
        }
        None
    }

    /// What makes git write a file otherwise than it is committed.
    fn converts(&self, path: &[u8], config: &Config) -> Option<String> {
        let rule = |text: String, folder: &[u8]| {
            let file = join(folder, GITATTRIBUTES);
            Some(format!("`{text}` in `{}`", String::from_utf8_lossy(&file)))
        };
        if let Some((Setting::Value(name), folder)) = self.value(path, "working-tree-encoding") {
            return rule(format!("working-tree-encoding={name}"), folder);
        }
        match self.value(path, "filter") {
            Some((setting @ Setting::Value(name), folder)) if *setting != lfs() => {
                return rule(format!("filter={name}"), folder);
            }
            _ => {}
        }
        if let Some((Setting::Set, folder)) = self.value(path, "ident") {
            return rule("ident".to_owned(), folder);
        }
        let text = self.value(path, "text").map(|(setting, _)| setting);
        if text == Some(&Setting::Unset) {
            return None;
        }
        match self.value(path, "eol") {
            Some((Setting::Value(eol), folder)) if eol == "crlf" => return rule("eol=crlf".to_owned(), folder),
            Some((Setting::Value(eol), _)) if eol == "lf" => return None,
            _ => {}
        }
        let setting = newline(config)?;
        let is_text = matches!(text, Some(Setting::Set | Setting::Value(_)));
        (is_text || setting.starts_with("core.autocrlf")).then(|| format!("`{setting}` in the repository's config"))
    }
}
