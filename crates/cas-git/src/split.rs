//! A split index: most entries lie in `sharedindex.<checksum>`, and `index` says what is different.
//!
//! Source: git's Documentation/gitformat-index.adoc, "Split index".

use std::ops::Range;

use crate::index::Reader;
use crate::{Index, IndexError, ObjectFormat, ewah};

/// The extension `link`.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    base: Vec<u8>,
    deleted: Vec<Range<u32>>,
    replaced: Vec<Range<u32>>,
}

impl Link {
    /// `None` when nothing is shared.
    pub(crate) fn decode(content: &[u8], format: ObjectFormat) -> Result<Option<Self>, IndexError> {
        let mut reader = Reader { bytes: content, at: 0 };
        let base = reader.take(format.id_len(), "the extension `link`")?.to_vec();
        if base.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        if reader.at == content.len() {
            return Ok(Some(Self { base, deleted: Vec::new(), replaced: Vec::new() }));
        }
        let deleted = ewah::decode(&mut reader)?;
        let replaced = ewah::decode(&mut reader)?;
        if reader.at != content.len() {
            return Err(IndexError::Link { problem: "something follows the bitmaps" });
        }
        Ok(Some(Self { base, deleted, replaced }))
    }
}

/// Changes to the index in another file.
#[derive(Clone, Debug)]
pub struct SplitIndex {
    /// Those that replace one of the shared index, by position, then those that are new, by path.
    changes: Index,
    link: Link,
    replaced_count: usize,
}

impl SplitIndex {
    pub(crate) fn new(changes: Index, link: Link) -> Result<Self, IndexError> {
        let replaced_count = link.replaced.iter().map(|range| (range.end - range.start) as usize).sum();
        if replaced_count > changes.len() {
            return Err(IndexError::Link { problem: "it replaces more entries than it has" });
        }
        if changes.entries().skip(replaced_count).any(|entry| entry.path.is_empty()) {
            return Err(IndexError::Link { problem: "a new entry has no path" });
        }
        changes.in_order(replaced_count)?;
        Ok(Self { changes, link, replaced_count })
    }

    /// Name of the shared index, in the folder of this one.
    #[must_use]
    pub fn base_name(&self) -> String {
        let hex: String = self.link.base.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("sharedindex.{hex}")
    }

    /// The whole index, given the shared one.
    ///
    /// # Errors
    ///
    /// [`IndexError::Link`] when the changes are not those of this shared index.
    pub fn over(&self, base: &Index) -> Result<Index, IndexError> {
        let mut whole = Index::default();
        let mut deleted = Positions::new(&self.link.deleted);
        let mut replaced = Positions::new(&self.link.replaced);
        let mut replacements = 0..self.replaced_count;
        let mut added = (self.replaced_count..self.changes.len()).peekable();
        for (position, old) in base.entries().enumerate() {
            let is_deleted = deleted.has(position);
            // A replacement that is deleted as well takes its place all the same.
            let replacement = if replaced.has(position) { replacements.next() } else { None };
            let new = match replacement {
                Some(replacement) => {
                    let new = self.changes.entry(replacement);
                    if !new.path.is_empty() && new.path != old.path {
                        return Err(IndexError::Link { problem: "a replaced entry has another path" });
                    }
                    new
                }
                None => old,
            };
            let key = (old.path, new.stage);
            let mut is_covered = false;
            while let Some(entry) = added.peek().map(|position| self.changes.entry(*position)) {
                let order = (entry.path, entry.stage).cmp(&key);
                if order.is_gt() {
                    break;
                }
                is_covered |= order.is_eq();
                whole.push(&entry, entry.path);
                added.next();
            }
            if !is_deleted && !is_covered {
                whole.push(&new, old.path);
            }
        }
        for position in added {
            let entry = self.changes.entry(position);
            whole.push(&entry, entry.path);
        }
        if deleted.is_beyond(base.len()) || replaced.is_beyond(base.len()) {
            return Err(IndexError::Link { problem: "a bitmap goes past the shared index" });
        }
        whole.in_order(0)?;
        Ok(whole)
    }
}

/// Asks ranges for positions that only grow.
struct Positions<'a> {
    ranges: &'a [Range<u32>],
}

impl<'a> Positions<'a> {
    fn new(ranges: &'a [Range<u32>]) -> Self {
        Self { ranges }
    }

    fn has(&mut self, position: usize) -> bool {
        while let [first, rest @ ..] = self.ranges {
            if position < first.end as usize {
                return position >= first.start as usize;
            }
            self.ranges = rest;
        }
        false
    }

    fn is_beyond(&self, len: usize) -> bool {
        self.ranges.last().is_some_and(|last| last.end as usize > len)
    }
}
