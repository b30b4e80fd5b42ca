//! `cas init` and `cas import`: the proposal of `cas-init`, written or shown.
//!
//! All files are written, or none: each is complete under another name before the first one gets its own, and one that appears
//! meanwhile is left alone.

use std::io::Write;
use std::path::{Path, PathBuf};

use cas_fs::{FsError, Operation};
use cas_init::{Host, InitError, Proposal, Source, propose};
use serde_json::{Value, json};

use crate::args::{Format, Global, InitArgs};
use crate::commands::{here, variable};
use crate::exit::Exit;
use crate::render::{self, Failure};

const GITIGNORE: &str = ".gitignore";

pub(crate) fn run(global: &Global, source: Source, args: &InitArgs) -> Result<Exit, Failure> {
    let proposal = propose(&here(global), &host(), source).map_err(Failure::Init)?;
    if !args.dry_run {
        write(&proposal).map_err(Failure::Init)?;
    }
    match global.format {
        Format::Json => render::lines([document(&proposal, args.dry_run).to_string()])?,
        Format::Text => show(&proposal, args.dry_run)?,
    }
    Ok(Exit::Done)
}

/// Where this machine's programs are.
fn host() -> Host {
    let path = variable("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default();
    let folder = |name: &str| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    Host {
        path,
        home: folder("HOME"),
        rustup_home: folder("RUSTUP_HOME"),
        go_module_cache: folder("GOMODCACHE"),
        go_path: folder("GOPATH"),
    }
}

fn document(proposal: &Proposal, is_dry_run: bool) -> Value {
    let files = proposal.files.iter().map(|(path, text)| json!({ "path": path, "text": text }));
    let changed = proposal.gitignore.iter().map(|text| json!({ "path": GITIGNORE, "text": text }));
    let notes = proposal.notes.iter().map(|note| {
        let place = note.place.as_ref();
        json!({
            "kind": note.kind.word(),
            "file": place.map(|place| &place.file),
            "line": place.map(|place| place.line),
            "column": place.map(|place| place.column),
            "text": note.text,
        })
    });
    json!({
        "exit": Exit::Done.word(),
        "written": !is_dry_run,
        "files": files.chain(changed).collect::<Vec<_>>(),
        "notes": notes.collect::<Vec<_>>(),
    })
}

fn show(proposal: &Proposal, is_dry_run: bool) -> Result<(), Failure> {
    let changed = proposal.gitignore.as_ref().map(|text| (GITIGNORE, text));
    let files = proposal.files.iter().map(|(path, text)| (path.as_str(), text)).chain(changed);
    if is_dry_run {
        render::lines(files.map(|(path, text)| format!("==> {path} <==\n{text}")))?;
    } else {
        render::lines(files.map(|(path, _)| format!("wrote {path}")))?;
    }
    for note in &proposal.notes {
        render::note(&note.to_string());
    }
    Ok(())
}

/// Writes everything, or leaves the folder as it was.
fn write(proposal: &Proposal) -> Result<(), InitError> {
    let mut made = Made::default();
    let result = made.all(proposal);
    if result.is_err() {
        made.remove_files();
    }
    made.remove_temporaries();
    result
}

/// What is on disk so far.
#[derive(Default)]
struct Made {
    temporaries: Vec<PathBuf>,
    files: Vec<PathBuf>,
}

impl Made {
    fn all(&mut self, proposal: &Proposal) -> Result<(), InitError> {
        for (path, text) in &proposal.files {
            let temporary = temporary(&proposal.root.join(path));
            let mut file = cas_fs::create_new(&temporary, 0o666)?;
            self.temporaries.push(temporary.clone());
            file.write_all(text.as_bytes()).map_err(|source| FsError::new(Operation::Write, &temporary, source))?;
        }
        for path in proposal.files.keys() {
            let at = proposal.root.join(path);
            publish(&temporary(&at), &at, path)?;
            self.files.push(at);
        }
        if let Some(text) = &proposal.gitignore {
            let at = proposal.root.join(GITIGNORE);
            let mode =
                cas_fs::metadata(&at).map(|metadata| std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()));
            cas_fs::write_atomic(&at, text.as_bytes())?;
            // One that was there keeps its rights; nothing else is lost when it cannot.
            if let Ok(mode) = mode {
                let _ = cas_fs::set_mode(&at, mode & 0o7777);
            }
        }
        Ok(())
    }

    fn remove_files(&self) {
        for path in &self.files {
            // The error that led here is what the user needs to know.
            let _ = cas_fs::remove_file(path);
        }
    }

    fn remove_temporaries(&self) {
        for path in &self.temporaries {
            // Where names were moved it is gone already.
            let _ = cas_fs::remove_file(path);
        }
    }
}

fn temporary(path: &Path) -> PathBuf {
    path.with_file_name(format!(".cas.toml.{}.tmp", std::process::id()))
}

/// Gives a complete file its name, unless something has it.
fn publish(temporary: &Path, at: &Path, path: &str) -> Result<(), InitError> {
    let exists = || InitError::Exists { path: path.to_owned() };
    match cas_fs::hard_link(temporary, at) {
        Ok(()) => Ok(()),
        Err(error) if error.is_already_exists() => Err(exists()),
        // A file system without second names: looking first leaves a moment in which another could write it.
        Err(_) if cas_fs::exists(at)? => Err(exists()),
        Err(_) => Ok(cas_fs::rename(temporary, at)?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proposal(root: &Path) -> Proposal {
        let files = [("a/cas.toml", "a"), ("b/cas.toml", "b"), ("cas.toml", "root")];
        Proposal {
            root: root.to_owned(),
            files: files.into_iter().map(|(path, text)| (path.to_owned(), text.to_owned())).collect(),
            gitignore: Some("/cas-out/\n".to_owned()),
            notes: Vec::new(),
        }
    }

    fn names(root: &Path) -> Vec<String> {
        let mut names = Vec::new();
        for folder in ["", "a", "b"] {
            for entry in cas_fs::read_dir(&root.join(folder)).expect("it is there") {
                if !entry.is_dir {
                    names.push(format!("{folder}/{}", entry.name.display()));
                }
            }
        }
        names
    }

    #[test]
    fn all_files_are_written_and_nothing_else() {
        let folder = tempfile::tempdir().expect("a folder can be made");
        for name in ["a", "b"] {
            cas_fs::create_dir(&folder.path().join(name)).expect("the folder is ours");
        }
        write(&proposal(folder.path())).expect("it is free");
        assert_eq!(names(folder.path()), ["/.gitignore", "/cas.toml", "a/cas.toml", "b/cas.toml"]);
        assert_eq!(cas_fs::read(&folder.path().join("a/cas.toml")).expect("it is there"), b"a");
    }

    /// Another process wrote one after the folder was looked at; a folder disappeared.
    #[test]
    fn when_one_cannot_be_written_none_is() {
        let folder = tempfile::tempdir().expect("a folder can be made");
        cas_fs::create_dir(&folder.path().join("a")).expect("the folder is ours");
        cas_fs::create_dir(&folder.path().join("b")).expect("the folder is ours");
        cas_fs::write(&folder.path().join("b/cas.toml"), b"mine").expect("the folder is ours");
        let error = write(&proposal(folder.path())).expect_err("one is there");
        assert_eq!(error.to_string(), "`b/cas.toml` is there already, and is not overwritten");
        assert_eq!(names(folder.path()), ["b/cas.toml"]);
        assert_eq!(cas_fs::read(&folder.path().join("b/cas.toml")).expect("it is there"), b"mine");

        cas_fs::remove_tree(&folder.path().join("b")).expect("the folder is ours");
        assert!(write(&proposal(folder.path())).is_err());
        assert!(names_without_b(folder.path()).is_empty());
    }

    fn names_without_b(root: &Path) -> Vec<String> {
        cas_fs::create_dir(&root.join("b")).expect("the folder is ours");
        names(root)
    }
}
