//! A tree that is edited between two builds, so that no state of it comes twice.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::super::count;
use crate::run::Failure;

/// Files beside the middle one whose modes are changed.
const MODES: usize = 200;

pub(super) struct Tree {
    pub(super) folder: PathBuf,
    /// What it had before any edit.
    pub(super) files: u64,
    pub(super) bytes: u64,
    /// The regular files around the middle of the whole list that nobody may execute.
    middle: Vec<PathBuf>,
    edits: usize,
    next_mode: usize,
}

impl Tree {
    pub(super) fn new(folder: &Path) -> Result<Self, Failure> {
        let (files, bytes) = count(folder)?;
        let mut plain = Vec::new();
        collect(folder, &mut plain)?;
        plain.sort();
        let half = plain.len() / 2;
        let middle: Vec<PathBuf> = plain.into_iter().skip(half).take(MODES).collect();
        if middle.len() < 2 {
            return Err(format!("{} has too few files", folder.display()).into());
        }
        Ok(Self { folder: folder.to_owned(), files, bytes, middle, edits: 0, next_mode: 1 })
    }

    /// The file in the middle, which is changed.
    pub(super) fn middle(&self) -> &Path {
        &self.middle[0]
    }

    /// Changes the file in the middle; its size may change too, since others look at nothing else.
    pub(super) fn change(&mut self) -> Result<(), Failure> {
        self.edits += 1;
        let mut bytes = fs::read(&self.middle[0])?;
        bytes.extend_from_slice(format!("edit {}\n", self.edits).as_bytes());
        fs::write(&self.middle[0], bytes)?;
        Ok(())
    }

    /// Adds a file beside it.
    pub(super) fn add(&mut self) -> Result<(), Failure> {
        self.edits += 1;
        let mut name = self.middle[0].file_name().unwrap_or_default().to_owned();
        name.push(format!(".added-{}", self.edits));
        fs::write(self.middle[0].with_file_name(name), format!("added by edit {}\n", self.edits))?;
        Ok(())
    }

    /// Lets the next of the files around the middle be executed.
    pub(super) fn mode(&mut self) -> Result<(), Failure> {
        let path = self.middle.get(self.next_mode).ok_or("there are too few files to change the mode of")?;
        self.next_mode += 1;
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
        Ok(())
    }
}

fn collect(folder: &Path, plain: &mut Vec<PathBuf>) -> Result<(), Failure> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            collect(&entry.path(), plain)?;
        } else if kind.is_file() {
            let metadata = entry.metadata()?;
            if metadata.permissions().mode() & 0o111 == 0 && metadata.len() > 0 {
                plain.push(entry.path());
            }
        }
    }
    Ok(())
}
