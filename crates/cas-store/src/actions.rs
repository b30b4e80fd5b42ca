//! The store as a place of results of actions: plain functions over the index, and the adapter to the trait.

use std::future::ready;

use cas_blob::{ActionCache, ActionCacheError, ActionLane, Descriptor, Pending, Recorded};

use crate::{Store, StoreError};

/// Kind of the memos of results that differ from the recorded one.
const DIFFERING: &str = "differing-2";

impl Store {
    /// The recorded result of an action, encoded.
    ///
    /// # Errors
    ///
    /// [`StoreError::Index`]
    pub fn action_result(&self, lane: &ActionLane, action: &Descriptor) -> Result<Option<Vec<u8>>, StoreError> {
        self.index.action(lane, action)
    }

    /// Records the result of an action, unless one is there; one that differs from that is kept beside it.
    ///
    /// # Errors
    ///
    /// [`StoreError::Index`]
    pub fn record_action_result(
        &self,
        lane: &ActionLane,
        action: &Descriptor,
        result: &[u8],
    ) -> Result<Recorded, StoreError> {
        loop {
            if self.index.put_action(lane, action, result)? {
                return Ok(Recorded::Own);
            }
            match self.index.action(lane, action)? {
                Some(first) if first == result => return Ok(Recorded::Own),
                Some(first) => {
                    self.index.put_memo(DIFFERING, differing_key(lane, action).as_bytes(), result)?;
                    return Ok(Recorded::Other(first));
                }
                // Another process forgot it in between.
                None => {}
            }
        }
    }

    /// Forgets the result of an action if it is this one, because what it names is gone.
    ///
    /// # Errors
    ///
    /// [`StoreError::Index`]
    pub fn forget_action_result(
        &self,
        lane: &ActionLane,
        action: &Descriptor,
        result: &[u8],
    ) -> Result<(), StoreError> {
        self.index.remove_action(lane, action, result)
    }

    /// The last result of an action that differed from the recorded one.
    ///
    /// # Errors
    ///
    /// [`StoreError::Index`]
    pub fn differing_action_result(
        &self,
        lane: &ActionLane,
        action: &Descriptor,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        self.index.memo(DIFFERING, differing_key(lane, action).as_bytes())
    }
}

fn differing_key(lane: &ActionLane, action: &Descriptor) -> String {
    format!("{lane} {action}")
}

/// All of it is there at once.
fn done<'a, T: Send + 'a>(result: Result<T, StoreError>) -> Pending<'a, T> {
    Box::pin(ready(result.map_err(ActionCacheError::new)))
}

impl ActionCache for Store {
    fn find<'a>(&'a self, lane: &'a ActionLane, action: &'a Descriptor) -> Pending<'a, Option<Vec<u8>>> {
        done(self.action_result(lane, action))
    }

    fn record<'a>(&'a self, lane: &'a ActionLane, action: &'a Descriptor, result: &'a [u8]) -> Pending<'a, Recorded> {
        done(self.record_action_result(lane, action, result))
    }

    fn forget<'a>(&'a self, lane: &'a ActionLane, action: &'a Descriptor, result: &'a [u8]) -> Pending<'a, ()> {
        done(self.forget_action_result(lane, action, result))
    }

    fn differing<'a>(&'a self, lane: &'a ActionLane, action: &'a Descriptor) -> Pending<'a, Option<Vec<u8>>> {
        done(self.differing_action_result(lane, action))
    }
}
