//! What is told while a build goes on, and what is counted.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cas_build::{Event, Observer, Origin};

use crate::args::Format;
use crate::render;
use crate::screen::{self, Screen};
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
    /// Shows what goes on, where a terminal can.
    live: Option<Screen>,
    /// When it began; `None` where nobody is shown how long it took.
    begun: Option<Instant>,
    /// Labels of steps that ran.
    ran: Mutex<BTreeSet<String>>,
    cached: AtomicU64,
    ended: AtomicU64,
    saved_ms: AtomicU64,
}

impl Progress {
    pub(crate) fn with_timeline(timeline: Option<Timeline>) -> Self {
        Self { timeline, ..Self::default() }
    }

    /// Shows on the terminal what goes on, if there is one and people read it.
    pub(crate) fn on_terminal(self, format: Format) -> Self {
        let live = if format == Format::Text { Screen::start() } else { None };
        Self { begun: live.is_some().then(Instant::now), live, ..self }
    }

    fn ran(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.ran.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn counts(&self) -> Counts {
        Counts { ran: self.ran().len() as u64, cached: self.cached.load(Ordering::Relaxed) }
    }

    /// Ends what is shown.
    pub(crate) fn rest(&self) {
        if let Some(live) = &self.live {
            live.rest();
        }
    }

    /// What a terminal is told of the whole behind the counts of steps; nothing elsewhere.
    pub(crate) fn whole(&self, has_outputs: bool) -> String {
        let Some(begun) = self.begun else { return String::new() };
        let targets = match self.ended.load(Ordering::Relaxed) {
            1 => "1 target".to_owned(),
            count => format!("{count} targets"),
        };
        let saved = match self.saved_ms.load(Ordering::Relaxed) {
            0 => String::new(),
            saved => format!(", {} saved", screen::time(Duration::from_millis(saved))),
        };
        let place = if has_outputs { "; outputs are in cas-out/" } else { "" };
        format!("; {targets} in {}{saved}{place}", screen::time(begun.elapsed()))
    }
}

impl Observer for Progress {
    fn event(&self, event: Event<'_>) {
        self.notes.event(&event);
        match event {
            Event::Planned { count } => {
                // Begun anew, because the store had lost something: what ran before is not counted as cached then.
                self.ended.store(0, Ordering::Relaxed);
                self.cached.store(0, Ordering::Relaxed);
                if let Some(live) = &self.live {
                    live.planned(count);
                }
            }
            Event::Begun { label } => {
                if let Some(live) = &self.live {
                    live.begun(label.to_string());
                }
            }
            Event::Ended { label } => {
                self.ended.fetch_add(1, Ordering::Relaxed);
                if let Some(live) = &self.live {
                    live.ended(&label.to_string());
                }
            }
            Event::Saved { time } => {
                let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
                self.saved_ms.store(millis, Ordering::Relaxed);
            }
            Event::Step { label, origin: Origin::Ran { elapsed, .. } } => {
                self.ran().insert(label.to_string());
                render::note(&format!("ran {label} in {:.2} s", elapsed.as_secs_f64()));
            }
            Event::Step { label, origin: Origin::Cached } => {
                if !self.ran().contains(&label.to_string()) {
                    self.cached.fetch_add(1, Ordering::Relaxed);
                }
                if let Some(live) = &self.live {
                    live.cached();
                }
            }
            Event::Span { name, kind, started } => {
                if let Some(timeline) = &self.timeline {
                    timeline.add(name, kind, started);
                }
            }
            Event::Attempt { .. } => {}
            Event::Differs { label, paths } => {
                render::note(&format!("warning: {label} gave something else than before for the same inputs: {paths}"));
                render::note(&format!(
                    "hint: what it gave before counts; `cas build --check-repeat {label}` tells whether it repeats"
                ));
            }
            Event::Note(note) => {
                render::note(&format!("warning: {note}"));
                render::note(&format!("hint: {}", note.hint()));
            }
        }
    }
}
