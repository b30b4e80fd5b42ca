//! Groups on their way to workers, and what workers made of them, in order.
//!
//! Groups are planned as workers take them, so that headers of a large tree are never in memory together. Bytes in flight are bounded.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use cas_tar::{EntryError, Group};

use crate::BuildError;
use crate::frame::{Compressed, IN_MEMORY_BYTES};
use crate::layer::LayerError;

/// The groups of an archive, as they are planned.
pub(crate) type Groups<'a> = Box<dyn Iterator<Item = Result<Group, EntryError>> + Send + 'a>;

/// What a worker does with a group.
pub(crate) type Make<'a> = dyn Fn(&Group) -> Result<Compressed, BuildError> + Sync + 'a;

/// Groups that wait for workers, and what workers made of them.
pub(crate) struct Line<'a> {
    /// Most uncompressed bytes of groups that are being worked on, or wait to be digested.
    most_bytes: u64,
    state: Mutex<LineState<'a>>,
    moved: Condvar,
}

struct LineState<'a> {
    groups: Groups<'a>,
    /// The next group, where it waits for room.
    waiting: Option<Group>,
    /// How many were taken by workers.
    taken: usize,
    /// No group follows those.
    is_planned: bool,
    in_flight_bytes: u64,
    /// Groups that are too long for memory: whoever digests need not wait for their frames.
    long: BTreeMap<usize, Arc<Group>>,
    made: BTreeMap<usize, (u64, Result<Compressed, LayerError>)>,
    is_over: bool,
}

/// What comes next.
pub(crate) enum Next {
    /// A group whose frame is still being made; what was made of it comes when it is asked for again.
    Long(Arc<Group>),
    /// A group that was compressed.
    Made(Box<Compressed>),
}

/// Tells workers that nobody waits for them any more.
pub(crate) struct Stop<'a, 'b>(pub(crate) &'a Line<'b>);

impl Drop for Stop<'_, '_> {
    fn drop(&mut self) {
        self.0.lock().is_over = true;
        self.0.moved.notify_all();
    }
}

/// What a group counts for: the bytes that it has in memory.
fn weight(group: &Group) -> u64 {
    Some(group.size()).filter(|size| *size <= IN_MEMORY_BYTES).unwrap_or(0)
}

impl<'a> Line<'a> {
    /// `first` comes before `groups`.
    pub(crate) fn new(first: Option<Group>, groups: Groups<'a>, most_bytes: u64) -> Self {
        let state = LineState {
            groups,
            waiting: first,
            taken: 0,
            is_planned: false,
            in_flight_bytes: 0,
            long: BTreeMap::new(),
            made: BTreeMap::new(),
            is_over: false,
        };
        Self { most_bytes, state: Mutex::new(state), moved: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, LineState<'a>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes groups until there are no more.
    pub(crate) fn work(&self, make: &Make<'_>) {
        // Should it panic, nobody waits for ever.
        let stop = Stop(self);
        while let Some((index, group)) = self.next_group() {
            let made = make(&group).map_err(LayerError::Build);
            self.lock().made.insert(index, (weight(&group), made));
            self.moved.notify_all();
        }
        std::mem::forget(stop);
    }

    /// The next group, once there is room for it, and its place.
    fn next_group(&self) -> Option<(usize, Arc<Group>)> {
        let mut state = self.lock();
        loop {
            if state.is_over || (state.is_planned && state.waiting.is_none()) {
                return None;
            }
            if state.waiting.is_none() {
                match state.groups.next() {
                    Some(Ok(group)) => state.waiting = Some(group),
                    end => {
                        state.is_planned = true;
                        if let Some(Err(error)) = end {
                            let index = state.taken;
                            state.taken += 1;
                            state.made.insert(index, (0, Err(LayerError::Entry(error))));
                        }
                        self.moved.notify_all();
                        return None;
                    }
                }
            }
            let weight = state.waiting.as_ref().map_or(0, weight);
            if state.in_flight_bytes == 0 || state.in_flight_bytes + weight <= self.most_bytes {
                let group = Arc::new(state.waiting.take()?);
                let index = state.taken;
                state.taken += 1;
                state.in_flight_bytes += weight;
                if group.size() > IN_MEMORY_BYTES {
                    state.long.insert(index, Arc::clone(&group));
                    self.moved.notify_all();
                }
                return Some((index, group));
            }
            state = self.moved.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits for what became of a group, and lets the next ones in; `None` behind the last one.
    pub(crate) fn take(&self, index: usize) -> Result<Option<Next>, LayerError> {
        let mut state = self.lock();
        loop {
            if let Some(group) = state.long.remove(&index) {
                return Ok(Some(Next::Long(group)));
            }
            if let Some((weight, made)) = state.made.remove(&index) {
                state.in_flight_bytes -= weight;
                self.moved.notify_all();
                return made.map(|made| Some(Next::Made(Box::new(made))));
            }
            if state.is_planned && state.waiting.is_none() && index >= state.taken {
                return Ok(None);
            }
            assert!(!state.is_over, "a thread that compresses panicked");
            state = self.moved.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
