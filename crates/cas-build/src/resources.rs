//! What the machine has for steps that run side by side, shared out in the order in which they ask.
//!
//! A step whose turn has come waits until there is enough for it, and those behind it wait, too: nobody is passed over for
//! ever. One that needs more than there is at all runs alone.
//!
//! A step that says how many processors it uses gets as many to itself, as far as there are: so it sees the same number everywhere.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cas_config::Command;

/// What a step is expected to need when it does not say: enough for a small compiler.
const DEFAULT_MEMORY_BYTES: u64 = 256 << 20;
/// How often a waiting step looks whether the build was cancelled.
const LOOK: Duration = Duration::from_millis(50);

/// An amount of what steps use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Amount {
    pub(crate) cpus: u64,
    pub(crate) memory_bytes: u64,
}

impl Amount {
    /// What a step is expected to need.
    pub(crate) fn of(command: &Command) -> Self {
        let cpus = command.cpus.map_or(1, NonZeroU32::get).into();
        Self { cpus, memory_bytes: command.memory_bytes.unwrap_or(DEFAULT_MEMORY_BYTES) }
    }

    fn is_within(&self, total: &Self) -> bool {
        self.cpus <= total.cpus && self.memory_bytes <= total.memory_bytes
    }
}

/// What there is, and who has it.
#[derive(Debug)]
pub(crate) struct Resources {
    total: Amount,
    /// Numbers of the processors that this process may use, in the order in which they are given away.
    processors: Vec<usize>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    used: Amount,
    /// How many steps have each of the processors.
    given: Vec<usize>,
    holders: usize,
    /// Those that wait, in their order.
    queue: VecDeque<u64>,
    next: u64,
}

impl Resources {
    pub(crate) fn new(total: Amount) -> Self {
        let mut processors = cas_sandbox::processors();
        if !processors.is_empty() {
            // Another program that does the same begins with others, most likely.
            let first = std::process::id() as usize % processors.len();
            processors.rotate_left(first);
        }
        Self::over(total, processors)
    }

    fn over(total: Amount, processors: Vec<usize>) -> Self {
        let state = State { given: vec![0; processors.len()], ..State::default() };
        Self { total, processors, state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Processors for a step that wants this many, those that the fewest others have; all if there are no more. None for a step
    /// that does not say: it may use all.
    pub(crate) fn processors(&self, count: Option<NonZeroU32>) -> Processors<'_> {
        let count = count.map_or(0, |count| usize::try_from(count.get()).unwrap_or(usize::MAX));
        let mut state = self.lock();
        let mut places: Vec<usize> = (0..self.processors.len()).collect();
        places.sort_by_key(|place| state.given[*place]);
        places.truncate(count);
        places.iter().for_each(|place| state.given[*place] += 1);
        Processors { resources: self, places }
    }

    /// The memory that there is for all, if that is known.
    pub(crate) fn memory_bytes(&self) -> Option<u64> {
        Some(self.total.memory_bytes).filter(|bytes| *bytes != u64::MAX)
    }

    /// Waits for its turn; `None` when the build is cancelled meanwhile.
    pub(crate) fn take(&self, amount: Amount, is_cancelled: &dyn Fn() -> bool) -> Option<Taken<'_>> {
        let mut state = self.lock();
        let ticket = state.next;
        state.next += 1;
        state.queue.push_back(ticket);
        loop {
            let after = Amount {
                cpus: state.used.cpus.saturating_add(amount.cpus),
                memory_bytes: state.used.memory_bytes.saturating_add(amount.memory_bytes),
            };
            let is_first = state.queue.front() == Some(&ticket);
            if is_first && (state.holders == 0 || after.is_within(&self.total)) {
                state.queue.pop_front();
                state.used = after;
                state.holders += 1;
                drop(state);
                // The next one may fit beside it.
                self.changed.notify_all();
                return Some(Taken { resources: self, amount });
            }
            if is_cancelled() {
                state.queue.retain(|other| *other != ticket);
                drop(state);
                self.changed.notify_all();
                return None;
            }
            state = self.changed.wait_timeout(state, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A part of the resources, given back at the end.
#[derive(Debug)]
pub(crate) struct Taken<'a> {
    resources: &'a Resources,
    amount: Amount,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let mut state = self.resources.lock();
        state.used.cpus -= self.amount.cpus;
        state.used.memory_bytes -= self.amount.memory_bytes;
        state.holders -= 1;
        drop(state);
        self.resources.changed.notify_all();
    }
}

/// Processors of one step, given back at the end.
#[derive(Debug)]
pub(crate) struct Processors<'a> {
    resources: &'a Resources,
    places: Vec<usize>,
}

impl Processors<'_> {
    /// Their numbers, for [`cas_sandbox::Spec`].
    pub(crate) fn numbers(&self) -> Vec<usize> {
        self.places.iter().map(|place| self.resources.processors[*place]).collect()
    }
}

impl Drop for Processors<'_> {
    fn drop(&mut self) {
        let mut state = self.resources.lock();
        self.places.iter().for_each(|place| state.given[*place] -= 1);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    use super::*;

    const NEVER: fn() -> bool = || false;

    #[test]
    fn together_they_never_have_more_than_there_is() {
        let total = Amount { cpus: 4, memory_bytes: 100 };
        let resources = Resources::new(total);
        let (now, most) = (AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for number in 0..16 {
                let (resources, now, most) = (&resources, &now, &most);
                scope.spawn(move || {
                    let memory_bytes = 20 + number % 3 * 20;
                    let taken = resources.take(Amount { cpus: 1, memory_bytes }, &NEVER).expect("nobody cancels");
                    most.fetch_max(now.fetch_add(memory_bytes, Ordering::SeqCst) + memory_bytes, Ordering::SeqCst);
                    std::thread::sleep(Duration::from_millis(2));
                    now.fetch_sub(memory_bytes, Ordering::SeqCst);
                    drop(taken);
                });
            }
        });
        assert!((60..=100).contains(&most.into_inner()));
        assert_eq!(resources.lock().used, Amount::default());
    }

    #[test]
    fn what_is_larger_than_everything_runs_alone() {
        let resources = Resources::new(Amount { cpus: 2, memory_bytes: 10 });
        let large = resources.take(Amount { cpus: 9, memory_bytes: 99 }, &NEVER).expect("nobody else is there");
        let is_done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let _small = resources.take(Amount { cpus: 1, memory_bytes: 1 }, &NEVER).expect("nobody cancels");
                assert!(is_done.load(Ordering::SeqCst), "it ran beside the large one");
            });
            std::thread::sleep(Duration::from_millis(20));
            is_done.store(true, Ordering::SeqCst);
            drop(large);
        });
    }

    #[test]
    fn a_cancelled_wait_leaves_the_queue() {
        let resources = Resources::new(Amount { cpus: 1, memory_bytes: 1 });
        let one = Amount { cpus: 1, memory_bytes: 1 };
        let held = resources.take(one, &NEVER).expect("nobody else is there");
        assert!(resources.take(one, &|| true).is_none());
        drop(held);
        assert!(resources.take(one, &NEVER).is_some());
    }

    #[test]
    fn steps_get_processors_that_the_fewest_others_have() {
        let resources = Resources::over(Amount { cpus: 4, memory_bytes: 1 }, vec![6, 7, 0, 1]);
        let of = |count| resources.processors(NonZeroU32::new(count));
        let (one, two) = (of(1), of(2));
        assert_eq!((one.numbers(), two.numbers()), (vec![6], vec![7, 0]));
        drop(one);
        assert_eq!(of(2).numbers(), [6, 1], "what was given back is free");
        assert_eq!(of(9).numbers().len(), 4, "there are no more");
        assert_eq!(resources.processors(None).numbers(), [0; 0]);
        drop(two);
        assert_eq!(resources.lock().given, [0; 4]);
    }
}
