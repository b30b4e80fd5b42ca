//! What changed when, as one watcher counts: pure bookkeeping over paths.

use std::collections::BTreeMap;

use super::message::{Change, Token};

/// Most folders that are remembered as changed. Beyond it everything counts as changed, as after lost events.
const MAX_CHANGES: usize = 1 << 17;

/// Which folders changed since which moment.
#[derive(Debug)]
pub(crate) struct Journal {
    instance: [u8; 16],
    /// What is marked now has this number; a token that is given out has it, too, and ends it.
    sequence: u64,
    /// Tokens from before this one know nothing: events were lost since.
    floor: u64,
    /// When a folder changed last, and when all that is below it did.
    changed: BTreeMap<Box<[u8]>, Mark>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    own: u64,
    deep: u64,
}

impl Journal {
    pub(crate) fn new(instance: [u8; 16]) -> Self {
        Self { instance, sequence: 1, floor: 1, changed: BTreeMap::new() }
    }

    /// Notes that the folder is not what it was; with `is_deep` nothing below it is, either.
    pub(crate) fn mark(&mut self, path: &[u8], is_deep: bool) {
        if self.changed.len() >= MAX_CHANGES && !self.changed.contains_key(path) {
            self.lose();
            return;
        }
        let mark = self.changed.entry(path.into()).or_default();
        mark.own = self.sequence;
        if is_deep {
            mark.deep = self.sequence;
        }
    }

    /// Notes that anything may have changed.
    pub(crate) fn lose(&mut self) {
        self.floor = self.sequence;
        self.changed.clear();
    }

    /// A token for this moment: whatever is marked from here on is after it.
    pub(crate) fn now(&mut self) -> Token {
        let token = Token { instance: self.instance, sequence: self.sequence };
        self.sequence += 1;
        token
    }

    /// What changed after a token was given out. `None` when that is not known.
    pub(crate) fn since(&self, token: &Token) -> Option<Vec<Change>> {
        if token.instance != self.instance || token.sequence < self.floor || token.sequence >= self.sequence {
            return None;
        }
        let changed = self.changed.iter().filter(|(_, mark)| mark.own > token.sequence);
        Some(changed.map(|(path, mark)| Change { path: path.clone(), is_deep: mark.deep > token.sequence }).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(changes: Option<Vec<Change>>) -> Option<Vec<(String, bool)>> {
        let text = |change: Change| (String::from_utf8_lossy(&change.path).into_owned(), change.is_deep);
        changes.map(|changes| changes.into_iter().map(text).collect())
    }

    #[test]
    fn each_token_sees_what_came_after_it() {
        let mut journal = Journal::new([1; 16]);
        journal.mark(b"before", false);
        let first = journal.now();
        assert_eq!(texts(journal.since(&first)), Some(vec![]));
        journal.mark(b"a", true);
        let second = journal.now();
        journal.mark(b"a", false);
        journal.mark(b"b", false);
        assert_eq!(texts(journal.since(&first)), Some(vec![("a".into(), true), ("b".into(), false)]));
        assert_eq!(texts(journal.since(&second)), Some(vec![("a".into(), false), ("b".into(), false)]));
    }

    #[test]
    fn tokens_of_others_from_before_a_loss_and_from_the_future_know_nothing() {
        let mut journal = Journal::new([1; 16]);
        let before = journal.now();
        journal.lose();
        assert_eq!(journal.since(&before), None);
        let after = journal.now();
        assert_eq!(texts(journal.since(&after)), Some(vec![]));
        assert_eq!(journal.since(&Token { instance: [2; 16], ..after }), None);
        assert_eq!(journal.since(&Token { sequence: after.sequence + 1, ..after }), None);
        for index in 0..=MAX_CHANGES {
            journal.mark(index.to_string().as_bytes(), false);
        }
        assert_eq!(journal.since(&after), None);
    }
}
