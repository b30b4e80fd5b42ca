//! `--trace FILE`: when what happened, in the format of Chrome's trace viewer and Perfetto.
//!
//! Source: Trace Event Format, "Complete Events": `ph` is `X`, times are microseconds, `tid` tells threads apart.

use std::cell::Cell;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use cas_fs::FsError;
use serde_json::{Value, json};

/// What happened since it was made.
#[derive(Debug)]
pub(crate) struct Timeline {
    begun: Instant,
    spans: Mutex<Vec<Value>>,
}

impl Timeline {
    pub(crate) fn new() -> Self {
        Self { begun: Instant::now(), spans: Mutex::default() }
    }

    /// Notes what this thread did from `started` until now.
    pub(crate) fn add(&self, name: &str, kind: &str, started: Instant) {
        let micros = |duration: std::time::Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let span = json!({
            "name": name,
            "cat": kind,
            "ph": "X",
            "ts": micros(started.saturating_duration_since(self.begun)),
            "dur": micros(started.elapsed()),
            "pid": 1,
            "tid": thread(),
        });
        self.spans.lock().unwrap_or_else(PoisonError::into_inner).push(span);
    }

    /// Writes it down.
    pub(crate) fn write(&self, path: &Path) -> Result<(), FsError> {
        let spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
        cas_fs::replace(path, json!({ "traceEvents": *spans, "displayTimeUnit": "ms" }).to_string().as_bytes())
    }
}

/// A small number of its own for each thread, in the order in which they are first seen.
fn thread() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    thread_local! {
        static OWN: Cell<u64> = const { Cell::new(0) };
    }
    OWN.with(|own| {
        if own.get() == 0 {
            own.set(NEXT.fetch_add(1, Ordering::Relaxed));
        }
        own.get()
    })
}
