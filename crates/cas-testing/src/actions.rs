//! Places of results of actions: the simplest one that is right, and one that fails and dawdles.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use cas_blob::{ActionCache, ActionCacheError, ActionLane, Descriptor, Pending, Recorded};

type Key = (ActionLane, Descriptor);

/// Results in memory.
#[derive(Debug, Default)]
pub struct MemoryActions(Mutex<Results>);

#[derive(Debug, Default)]
struct Results {
    first: BTreeMap<Key, Vec<u8>>,
    differing: BTreeMap<Key, Vec<u8>>,
}

impl ActionCache for MemoryActions {
    fn find<'a>(&'a self, lane: &'a ActionLane, action: &'a Descriptor) -> Pending<'a, Option<Vec<u8>>> {
        Box::pin(async move { Ok(self.0.lock().unwrap().first.get(&(lane.clone(), *action)).cloned()) })
    }

    fn record<'a>(&'a self, lane: &'a ActionLane, action: &'a Descriptor, result: &'a [u8]) -> Pending<'a, Recorded> {
        Box::pin(async move {
            let mut results = self.0.lock().unwrap();
            let key = (lane.clone(), *action);
            let first = results.first.entry(key.clone()).or_insert_with(|| result.to_vec()).clone();
            if first == result {
                return Ok(Recorded::Own);
            }
            results.differing.insert(key, result.to_vec());
            Ok(Recorded::Other(first))
        })
    }

    fn forget<'a>(&'a self, lane: &'a ActionLane, action: &'a Descriptor, result: &'a [u8]) -> Pending<'a, ()> {
        Box::pin(async move {
            let mut results = self.0.lock().unwrap();
            let key = (lane.clone(), *action);
            if results.first.get(&key).is_some_and(|first| first == result) {
                results.first.remove(&key);
            }
            Ok(())
        })
    }

    fn differing<'a>(&'a self, lane: &'a ActionLane, action: &'a Descriptor) -> Pending<'a, Option<Vec<u8>>> {
        Box::pin(async move { Ok(self.0.lock().unwrap().differing.get(&(lane.clone(), *action)).cloned()) })
    }
}

/// Another place that fails on the way there or on the way back, and whose answers take a while.
#[derive(Debug)]
pub struct FaultyActions<C> {
    inner: C,
    state: AtomicU64,
    /// One in so many calls fails before, and as many after it was done; 0 for none.
    one_in: AtomicU64,
}

/// What the failing place says.
#[derive(Debug, thiserror::Error)]
#[error("the connection was lost")]
pub struct Lost;

impl<C: ActionCache> FaultyActions<C> {
    /// A place that does not fail yet. Equal seeds fail at equal calls.
    pub fn new(inner: C, seed: u64) -> Self {
        Self { inner, state: AtomicU64::new(seed), one_in: AtomicU64::new(0) }
    }

    /// From now on one in so many calls fails before it does anything, and as many after they did it; 0 for none.
    pub fn set_faults(&self, one_in: u64) {
        self.one_in.store(one_in, Ordering::Relaxed);
    }

    /// The place behind it.
    pub fn inner(&self) -> &C {
        &self.inner
    }

    /// SplitMix64.
    fn draw(&self) -> u64 {
        let mut value = self.state.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    fn fails(&self) -> bool {
        let one_in = self.one_in.load(Ordering::Relaxed);
        one_in > 0 && self.draw().is_multiple_of(one_in)
    }

    fn through<'a, T: Send + 'a>(&'a self, call: Pending<'a, T>) -> Pending<'a, T> {
        Box::pin(async move {
            Pause(self.draw().is_multiple_of(4)).await;
            if self.fails() {
                return Err(ActionCacheError::new(Lost));
            }
            let answer = call.await?;
            Pause(self.draw().is_multiple_of(4)).await;
            if self.fails() { Err(ActionCacheError::new(Lost)) } else { Ok(answer) }
        })
    }
}

impl<C: ActionCache> ActionCache for FaultyActions<C> {
    fn find<'a>(&'a self, lane: &'a ActionLane, action: &'a Descriptor) -> Pending<'a, Option<Vec<u8>>> {
        self.through(self.inner.find(lane, action))
    }

    fn record<'a>(&'a self, lane: &'a ActionLane, action: &'a Descriptor, result: &'a [u8]) -> Pending<'a, Recorded> {
        self.through(self.inner.record(lane, action, result))
    }

    fn forget<'a>(&'a self, lane: &'a ActionLane, action: &'a Descriptor, result: &'a [u8]) -> Pending<'a, ()> {
        self.through(self.inner.forget(lane, action, result))
    }

    fn differing<'a>(&'a self, lane: &'a ActionLane, action: &'a Descriptor) -> Pending<'a, Option<Vec<u8>>> {
        self.through(self.inner.differing(lane, action))
    }
}

/// Not ready the first time it is asked: another thread wakes whoever waits, or nobody would.
struct Pause(bool);

impl Future for Pause {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if !std::mem::take(&mut self.0) {
            return Poll::Ready(());
        }
        let waker = context.waker().clone();
        // Ends by itself at once, and nothing depends on it but the one who is woken.
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_micros(200));
            waker.wake();
        });
        Poll::Pending
    }
}
