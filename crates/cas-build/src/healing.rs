//! Doing something again when the store turns out to have lost what it said to have.

use cas_store::{Depth, Store};

use crate::{BuildError, complete};

/// How often something is done when the store turns out to have lost what it said to have.
const ATTEMPTS: usize = 4;

/// Does something again when an object turned out to be damaged on the way: it was moved aside, so that it is made or
/// fetched again. Before the last attempt the whole store is looked at.
///
/// # Errors
///
/// What the last attempt says, and [`BuildError::Store`] when the store cannot be looked at.
pub fn healing<T, E: From<BuildError>>(
    store: &Store,
    is_cancelled: &dyn Fn() -> bool,
    work: &mut dyn FnMut() -> Result<T, E>,
    is_loss: &dyn Fn(&Result<T, E>) -> bool,
) -> Result<T, E> {
    for attempt in 1..ATTEMPTS {
        let result = work();
        if !is_loss(&result) || is_cancelled() {
            return result;
        }
        complete::forget(store);
        if attempt + 1 == ATTEMPTS {
            store.check(Depth::Full).map_err(BuildError::from)?;
        }
    }
    work()
}
