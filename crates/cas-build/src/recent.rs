//! What was made last, for whoever asks for the same next: steps of a package mostly read the same files.
//!
//! Keys are compared whole, so nothing can be taken for something else. Trees that share parts compare fast.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

/// Values that are kept. Targets of one package run one after the other, a few of them at once.
const KEPT: usize = 8;

/// A function's last values.
#[derive(Debug)]
pub(crate) struct Recent<K, V>(Mutex<VecDeque<(K, V)>>);

impl<K, V> Default for Recent<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Clone + Eq, V: Clone> Recent<K, V> {
    /// The value for a key: one of the last ones, else what `make` makes. Two threads may make it at once.
    pub(crate) fn get_or<E>(&self, key: &K, make: impl FnOnce() -> Result<V, E>) -> Result<V, E> {
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, value)) = lock().iter().find(|(known, _)| known == key) {
            return Ok(value.clone());
        }
        let value = make()?;
        let mut kept = lock();
        kept.truncate(KEPT - 1);
        kept.push_front((key.clone(), value.clone()));
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_made_last_is_made_once_and_errors_are_not_kept() {
        let recent = Recent::default();
        let get = |key: usize| recent.get_or(&key, || Ok::<_, ()>(format!("made {key}")));
        let again = |key: usize| recent.get_or(&key, || Err(()));
        assert_eq!(again(1), Err(()));
        assert_eq!(get(1).as_deref(), Ok("made 1"));
        assert_eq!(again(1).as_deref(), Ok("made 1"));
        for key in 2..=KEPT {
            get(key).expect("it is made");
        }
        assert_eq!(again(1).as_deref(), Ok("made 1"), "as many are kept");
        get(KEPT + 1).expect("it is made");
        assert_eq!(again(1), Err(()), "the oldest one has left");
        assert_eq!(again(2).as_deref(), Ok("made 2"));
    }
}
