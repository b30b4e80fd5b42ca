//! The places that hold results of actions.
//!
//! A result is an encoded `ActionResult` (docs/formats/step.md); a place keeps bytes and does not look into them. Whether what
//! a result names can be had is for whoever found it to see.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

use cas_digest::{Digest, DigestFunction};

use crate::Descriptor;

/// A name space of action results with its own writers. Results of weaker sandboxes never meet those of the strict one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ActionLane(String);

impl ActionLane {
    /// Results of steps that ran in the strict sandbox.
    #[must_use]
    pub fn strict() -> Self {
        Self("strict".to_owned())
    }

    /// Results of steps that saw the programs of a machine which `identity` tells from others.
    #[must_use]
    pub fn host(identity: &str) -> Self {
        Self(format!("host:{}", Digest::of(DigestFunction::Blake3, identity.as_bytes()).to_hex()))
    }

    /// Results of the same steps, made with state that earlier runs left. They are for this store alone.
    #[must_use]
    pub fn incremental(self) -> Self {
        Self(format!("incremental:{}", self.0))
    }

    /// Results of the same steps, made with less of a sandbox, whose name this is. Never to be taken for those of the whole one.
    #[must_use]
    pub fn weaker(self, tier: &str) -> Self {
        Self(format!("{tier}:{}", self.0))
    }

    /// Its name: no spaces, no control characters.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ActionLane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What may take a while, because the place may be behind a network. Dropped before its end, it may or may not have happened.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = Result<T, ActionCacheError>> + Send + 'a>>;

/// A place that holds results of actions.
///
/// The first result that is recorded for an action counts, in each lane by itself. Several tasks, and several processes, may
/// do all of this at once: all of them learn the same first result. A call that fails did what it was asked for, or nothing.
pub trait ActionCache: fmt::Debug + Send + Sync {
    /// The recorded result of an action.
    fn find<'a>(&'a self, lane: &'a ActionLane, action: &'a Descriptor) -> Pending<'a, Option<Vec<u8>>>;

    /// Records the result of an action, unless one is there. One that differs from it is kept beside it, as evidence that
    /// the action does not repeat; of several the last.
    fn record<'a>(&'a self, lane: &'a ActionLane, action: &'a Descriptor, result: &'a [u8]) -> Pending<'a, Recorded>;

    /// Forgets the result of an action if it is this one, because what it names is gone. Another one stays.
    fn forget<'a>(&'a self, lane: &'a ActionLane, action: &'a Descriptor, result: &'a [u8]) -> Pending<'a, ()>;

    /// The last result that differed from the recorded one.
    fn differing<'a>(&'a self, lane: &'a ActionLane, action: &'a Descriptor) -> Pending<'a, Option<Vec<u8>>>;
}

/// What became of a result that was to be recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// It counts: it was the first, or the first one was equal.
    Own,
    /// This one was there before.
    Other(Vec<u8>),
}

/// Why a place of results could not do it.
#[derive(Debug, thiserror::Error)]
#[error("the action cache failed")]
pub struct ActionCacheError(#[source] Box<dyn std::error::Error + Send + Sync>);

impl ActionCacheError {
    /// With what the place says.
    pub fn new(source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self(Box::new(source))
    }

    /// What the place says, if that is an `E`; else the error as it was.
    ///
    /// # Errors
    ///
    /// The error itself, when its source is another one.
    pub fn downcast<E: std::error::Error + 'static>(self) -> Result<E, Self> {
        self.0.downcast().map(|source| *source).map_err(Self)
    }
}

/// Waits for what may take a while, on this thread. Whoever answers wakes it; nothing here needs a runtime.
///
/// # Errors
///
/// What the place says.
pub fn wait<T>(mut pending: Pending<'_, T>) -> Result<T, ActionCacheError> {
    struct Unpark(Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    // Most answers are there at once.
    if let Poll::Ready(answer) = pending.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        return answer;
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    loop {
        if let Poll::Ready(answer) = pending.as_mut().poll(&mut Context::from_waker(&waker)) {
            return answer;
        }
        std::thread::park();
    }
}
