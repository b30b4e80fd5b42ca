//! What is told while a build goes on, and what is counted.

use std::sync::atomic::{AtomicU64, Ordering};

use cas_build::{Event, Observer, Origin};

use crate::render;
use crate::test::Notes;
use crate::timeline::Timeline;

/// How many steps there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Steps that ran.
    pub(crate) ran: u64,
    /// Steps whose outputs were there.
    pub(crate) cached: u64,
}

/// Tells of each step that ran, on standard error, and counts.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Where spans go, if somebody wants to see them.
    pub(crate) timeline: Option<Timeline>,
    /// What is noted of each target.
    pub(crate) notes: Notes,
    ran: AtomicU64,
    cached: AtomicU64,
}

impl Progress {
    pub(crate) fn with_timeline(timeline: Option<Timeline>) -> Self {
        Self { timeline, ..Self::default() }
    }

    pub(crate) fn counts(&self) -> Counts {
        Counts { ran: self.ran.load(Ordering::Relaxed), cached: self.cached.load(Ordering::Relaxed) }
    }
}

impl Observer for Progress {
    fn event(&self, event: Event<'_>) {
        self.notes.event(&event);
        let (label, origin) = match event {
            Event::Step { label, origin } => (label, origin),
            Event::Span { name, kind, started } => {
                if let Some(timeline) = &self.timeline {
                    timeline.add(name, kind, started);
                }
                return;
            }
            Event::Attempt { .. } => return,
            Event::Note(note) => {
                render::note(&format!("warning: {note}"));
                render::note(&format!("hint: {}", note.hint()));
                return;
            }
        };
        match origin {
            Origin::Cached => {
                self.cached.fetch_add(1, Ordering::Relaxed);
            }
            Origin::Ran { elapsed, .. } => {
                self.ran.fetch_add(1, Ordering::Relaxed);
                render::note(&format!("ran {label} in {:.2} s", elapsed.as_secs_f64()));
            }
        }
    }
}
