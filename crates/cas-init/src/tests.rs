//! Folders made here, and the whole texts that they become.

mod broken;
mod folders;
mod imports;
mod tools;

use std::path::{Path, PathBuf};

use crate::{Host, InitError, NoteKind, Proposal, Source, propose};

/// A folder with files by path.
pub(super) fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder can be made");
    for (path, text) in files {
        put(folder.path(), path, text.as_bytes());
    }
    folder
}

pub(super) fn put(root: &Path, path: &str, bytes: &[u8]) {
    let path = root.join(path);
    cas_fs::create_dir_all(path.parent().expect("it is below the root")).expect("the folder is ours");
    cas_fs::write(&path, bytes).expect("the folder is ours");
}

/// A machine without programs, so that nothing of this one is in a text.
pub(super) fn host() -> Host {
    Host { home: Some(PathBuf::from("/home/user")), ..Host::default() }
}

pub(super) fn of(files: &[(&str, &str)], source: Source) -> Result<Proposal, InitError> {
    let folder = tree(files);
    propose(folder.path(), &host(), source).inspect(check)
}

/// Every text is one that `cas-config` takes.
pub(super) fn check(proposal: &Proposal) {
    for (path, text) in &proposal.files {
        if let Err(findings) = cas_config::Manifest::parse(text) {
            panic!("{path}: {findings:?}\n{text}");
        }
    }
}

/// The files, one after another.
pub(super) fn shown(proposal: &Proposal) -> String {
    proposal.files.iter().map(|(path, text)| format!("== {path}\n{text}")).collect()
}

/// The report's lines of some kinds.
pub(super) fn notes(proposal: &Proposal, kinds: &[NoteKind]) -> String {
    proposal.notes.iter().filter(|note| kinds.contains(&note.kind)).map(|note| format!("{note}\n")).collect()
}

#[track_caller]
pub(super) fn assert_text(actual: &str, expected: &str) {
    assert!(actual == expected, "what is:\n{actual}\nwhat should be:\n{expected}");
}
