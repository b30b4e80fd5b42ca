//! A folder of a snapshot, as far as it is known: its record while nothing else is asked for, all of it from then on.
//!
//! Not here: when a record may stand for a folder (`walk`).

use std::borrow::Cow;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{OnceLock, PoisonError, RwLock, RwLockReadGuard};

use cas_digest::DigestFunction;

use crate::cache::{Content, Folder, Kind, Written};
use crate::record::{Class, Entry, Record, encode};
use crate::stamp::Stamp;
use crate::walk::{Visited, find};

/// What a walk found of a folder.
#[derive(Debug)]
pub(crate) enum Known {
    /// It is what its record says.
    Record(Record),
    // In a box, because most folders are records: a third of the memory.
    Folder(Box<Folder>),
}

impl Known {
    pub(crate) fn stamp(&self) -> Option<Stamp> {
        match self {
            Self::Record(record) => record.stamp(),
            Self::Folder(folder) => folder.stamp,
        }
    }

    /// The folders in it, in their order, with their positions among the names.
    pub(crate) fn directories(&self) -> impl Iterator<Item = (u32, Entry<'_>)> {
        let (record, folder) = match self {
            Self::Record(record) => (Some(record), None),
            Self::Folder(folder) => (None, Some(folder)),
        };
        let names = folder.into_iter().flat_map(|folder| (0..).zip(folder.names.iter().map(Entry::from)));
        let directories = names.filter(|(_, entry)| entry.class == Class::Directory);
        record.into_iter().flat_map(Record::directories).chain(directories)
    }

    pub(crate) fn name_count(&self) -> u32 {
        match self {
            Self::Record(record) => record.name_count(),
            Self::Folder(folder) => u32::try_from(folder.names.len()).expect("a folder has fewer than 2^32 names"),
        }
    }

    /// Calls `with` with the position of each of these names that is not left out.
    pub(crate) fn each_kept(&self, mut names: Range<u32>, mut with: impl FnMut(u32)) {
        match self {
            Self::Record(record) => {
                let left_out = record.left_out();
                let first = left_out.partition_point(|index| *index < names.start);
                for index in left_out[first..].iter().copied().take_while(|index| *index < names.end) {
                    (names.start..index).for_each(&mut with);
                    names.start = index + 1;
                }
                names.for_each(with);
            }
            Self::Folder(folder) => {
                let is_kept = |index: &u32| !matches!(folder.names[*index as usize].kind, Kind::Ignored { .. });
                names.filter(is_kept).for_each(with);
            }
        }
    }
}

/// A folder of the workspace.
#[derive(Debug)]
pub(crate) struct Slot {
    /// From the root on; empty for the root.
    pub(crate) path: Box<[u8]>,
    /// What the cache holds of it, which is right unless it is changed.
    record: Option<Record>,
    /// Made of the record when it is asked for.
    folder: OnceLock<Box<RwLock<Folder>>>,
    /// Whether its record has to be written.
    is_changed: AtomicBool,
    /// The files in it and below it.
    pub(crate) files: Range<u32>,
    /// Number of those in it.
    pub(crate) own_count: u32,
}

impl Slot {
    pub(crate) fn new(visited: Visited, files: Range<u32>, own_count: u32) -> Self {
        let (record, folder) = match visited.folder {
            Known::Record(record) => (Some(record), OnceLock::new()),
            Known::Folder(folder) => (None, OnceLock::from(Box::new(RwLock::new(*folder)))),
        };
        Self { path: visited.path, record, folder, is_changed: AtomicBool::new(visited.is_changed), files, own_count }
    }

    fn folder(&self) -> &RwLock<Folder> {
        let made = || self.record.as_ref().expect("it has a record or all that is known").folder();
        self.folder.get_or_init(|| Box::new(RwLock::new(made())))
    }

    /// All of it.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Folder> {
        self.folder().read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes it, so that its record has to be written.
    pub(crate) fn change(&self, with: impl FnOnce(&mut Folder)) {
        with(&mut self.folder().write().unwrap_or_else(PoisonError::into_inner));
        self.is_changed.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_changed(&self) -> bool {
        self.is_changed.load(Ordering::Relaxed)
    }

    /// What is known of it.
    pub(crate) fn known(&self) -> Known {
        match self.record() {
            Some(record) => Known::Record(record.clone()),
            None => Known::Folder(Box::new(self.read().clone())),
        }
    }

    /// The record, while it is right.
    fn record(&self) -> Option<&Record> {
        self.record.as_ref().filter(|_| !self.is_changed())
    }

    /// What it is remembered by: its path and record.
    pub(crate) fn written(&self, function: DigestFunction) -> Written<'_> {
        let record = match self.record() {
            Some(record) => Cow::Borrowed(record.bytes()),
            None => Cow::Owned(encode(&self.read(), function)),
        };
        (&self.path, record)
    }

    /// The recorded digest of what all its files and links hold.
    pub(crate) fn digest(&self) -> Option<Content> {
        self.record().and_then(Record::digest)
    }

    /// What a name in it is.
    pub(crate) fn class(&self, name: &[u8]) -> Option<Class> {
        match self.record() {
            Some(record) => record.find(name).map(|entry| entry.class),
            None => find(&self.read().names, name).map(Class::from),
        }
    }

    pub(crate) fn has_twins(&self) -> bool {
        self.record().map_or_else(|| self.read().has_twins, Record::has_twins)
    }

    /// Whether a file in it is a pointer of Git LFS.
    pub(crate) fn has_pointers(&self) -> bool {
        let is_pointer = |kind: &Kind| matches!(kind, Kind::File(held) if held.is_pointer);
        let look = || self.read().names.iter().any(|name| is_pointer(&name.kind));
        self.record().map_or_else(look, Record::has_pointers)
    }
}
