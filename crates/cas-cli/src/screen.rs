//! What goes on, at the bottom of a terminal: one line for the whole, and some for the steps that run, longest first.
//!
//! The cursor rests on the first column of the block's first line, and is never hidden. So a program that is killed leaves a
//! block that the shell's prompt takes the place of, a window that changes its size moves cursor and block together, and whoever
//! prints clears the block without knowing how tall it was. Every print of `cas` on standard error goes through [`print`], which
//! does that; the block comes back with the next tick.
//!
//! Not here: what is counted (`progress`), results and errors (`render`).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::termios::tcgetwinsize;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::commands::variable;

/// Time between two drawings: faster than that nobody reads.
const TICK: Duration = Duration::from_millis(100);
/// Most lines for steps.
const MAX_STEPS: usize = 8;
/// Part of the window's height that lines for steps may take.
const STEPS_PART: usize = 3;
/// The window, where the terminal does not say its size.
const USUAL: Size = Size { columns: 80, rows: 24 };
/// Clears from the cursor to the end of the screen.
const CLEAR: &str = "\r\x1b[J";

/// Whether a block is on the screen. Held while something is written, so that lines of several threads do not mix.
static IS_DRAWN: Mutex<bool> = Mutex::new(false);

/// The size of a window, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Size {
    columns: usize,
    rows: usize,
}

/// What is going on.
#[derive(Debug)]
struct State {
    begun: Instant,
    total: usize,
    done: usize,
    cached: usize,
    running: BTreeMap<String, Instant>,
    is_over: bool,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    over: Condvar,
}

/// A block that is redrawn by a thread of its own until it is dropped or told to rest.
#[derive(Debug)]
pub(crate) struct Screen {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Screen {
    /// Begins a block, if standard error is a terminal that can have one and nobody asked for plain lines.
    pub(crate) fn start() -> Option<Self> {
        let can_move = variable("TERM").is_some_and(|term| term != "dumb");
        if !io::stderr().is_terminal() || !can_move || variable("CI").is_some() {
            return None;
        }
        let is_coloured = variable("NO_COLOR").is_none();
        let begun = Instant::now();
        let state = State { begun, total: 0, done: 0, cached: 0, running: BTreeMap::new(), is_over: false };
        let shared = Arc::new(Shared { state: Mutex::new(state), over: Condvar::new() });
        let own = Arc::clone(&shared);
        let thread = std::thread::Builder::new().spawn(move || own.redraw(is_coloured));
        // A machine that has no thread left has other things to tell.
        Some(Self { shared, thread: Mutex::new(Some(thread.ok()?)) })
    }

    /// So many targets are to be built.
    pub(crate) fn planned(&self, count: usize) {
        let mut state = self.shared.state();
        (state.total, state.done) = (count, 0);
    }

    pub(crate) fn begun(&self, label: String) {
        self.shared.state().running.insert(label, Instant::now());
    }

    pub(crate) fn ended(&self, label: &str) {
        let mut state = self.shared.state();
        state.running.remove(label);
        state.done += 1;
    }

    pub(crate) fn cached(&self) {
        self.shared.state().cached += 1;
    }

    /// Takes the block away for good.
    pub(crate) fn rest(&self) {
        self.shared.state().is_over = true;
        self.shared.over.notify_all();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        // One that panicked has said so itself.
        let _ = thread.map(JoinHandle::join);
        clear();
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.rest();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn redraw(&self, is_coloured: bool) {
        let mut state = self.state();
        loop {
            let waited = self.over.wait_timeout_while(state, TICK, |state| !state.is_over);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            if state.is_over {
                return;
            }
            let lines = state.lines(window(), Instant::now());
            drop(state);
            draw(&lines, is_coloured);
            state = self.state();
        }
    }
}

impl State {
    /// The lines of the block for a window of this size.
    fn lines(&self, window: Size, now: Instant) -> Vec<String> {
        // Behind the last column some terminals begin a new line.
        let width = window.columns.saturating_sub(1);
        let mut lines = vec![self.status(width, now)];
        let room = MAX_STEPS.min(window.rows / STEPS_PART);
        let mut running: Vec<(&String, Instant)> = self.running.iter().map(|(label, since)| (label, *since)).collect();
        running.sort_by_key(|(_, since)| *since);
        let count = match running.len() > room && room > 1 {
            true => room - 1,
            false => room.min(running.len()),
        };
        for (label, since) in &running[..count] {
            lines.push(step(label, now.saturating_duration_since(*since), width));
        }
        if room > 1 && running.len() > count {
            lines.push(fitting(&format!("  … and {} more", running.len() - count), width));
        }
        lines
    }

    /// As much of the whole as fits: what is left out first is what the other lines tell as well.
    fn status(&self, width: usize, now: Instant) -> String {
        let Self { done, total, cached, .. } = self;
        let (running, elapsed) = (self.running.len(), time(now.saturating_duration_since(self.begun)));
        let whole = format!("[{done}/{total}]");
        let texts = [
            format!("{whole} running {running}, cached {cached}, {elapsed}"),
            format!("{whole} running {running}, {elapsed}"),
            format!("{whole} {elapsed}"),
        ];
        texts.into_iter().find(|text| text.width() <= width).unwrap_or_else(|| fitting(&whole, width))
    }
}

/// A step with its time. Of a label that is too long the end is shown, which tells more than its beginning.
fn step(label: &str, elapsed: Duration, width: usize) -> String {
    let (label, elapsed) = (printable(label), time(elapsed));
    let room = width.saturating_sub(elapsed.width() + 3);
    if label.width() <= room {
        return format!("  {label} {elapsed}");
    }
    let mut end = String::new();
    let mut left = room.saturating_sub(1);
    for letter in label.chars().rev() {
        let Some(rest) = left.checked_sub(letter.width().unwrap_or(0)) else { break };
        left = rest;
        end.insert(0, letter);
    }
    fitting(&format!("  …{end} {elapsed}"), width)
}

/// The beginning of a text that is at most so wide.
fn fitting(text: &str, width: usize) -> String {
    let mut left = width;
    let fits = |letter: &char| match left.checked_sub(letter.width().unwrap_or(0)) {
        Some(rest) => {
            left = rest;
            true
        }
        None => false,
    };
    text.chars().take_while(fits).collect()
}

/// A duration as people say it.
pub(crate) fn time(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{:.1} s", duration.as_secs_f64()),
        60..3600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min", seconds / 3600, seconds / 60 % 60),
    }
}

/// A text without what moves the cursor of whoever reads it here, or turns the order of letters; lines stay lines.
pub(crate) fn printable(text: &str) -> String {
    let turns =
        |letter: char| matches!(letter, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars().filter(|letter| matches!(letter, '\n' | '\t') || !(letter.is_control() || turns(*letter))).collect()
}

fn window() -> Size {
    match tcgetwinsize(io::stderr()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => {
            Size { columns: usize::from(size.ws_col), rows: usize::from(size.ws_row) }
        }
        _ => USUAL,
    }
}

/// Draws the block, and leaves the cursor at its beginning.
fn draw(lines: &[String], is_coloured: bool) {
    let mut frame = String::from(CLEAR);
    for (index, line) in lines.iter().enumerate() {
        match (index, is_coloured) {
            (0, true) => frame.push_str(&format!("\x1b[1m{line}\x1b[0m")),
            (0, false) => frame.push_str(line),
            _ => frame.push_str(&format!("\r\n{line}")),
        }
    }
    if lines.len() > 1 {
        write!(frame, "\x1b[{}A", lines.len() - 1).expect("a text takes every text");
    }
    frame.push('\r');
    let mut is_drawn = IS_DRAWN.lock().unwrap_or_else(PoisonError::into_inner);
    // Where standard error is closed there is nobody to tell; as below.
    let _ = io::stderr().lock().write_all(frame.as_bytes());
    *is_drawn = true;
}

/// Takes the block off the screen, until it is drawn again.
pub(crate) fn clear() {
    print("");
}

/// Prints on standard error, above the block.
pub(crate) fn print(text: &str) {
    let mut is_drawn = IS_DRAWN.lock().unwrap_or_else(PoisonError::into_inner);
    let before = if std::mem::take(&mut *is_drawn) { CLEAR } else { "" };
    let _ = io::stderr().lock().write_all(format!("{before}{text}").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(labels: impl IntoIterator<Item = (String, u64)>, now: Instant) -> State {
        let ago = |millis| now.checked_sub(Duration::from_millis(millis)).expect("the machine runs for longer");
        let running = labels.into_iter().map(|(label, millis)| (label, ago(millis))).collect();
        State { begun: ago(12_340), total: 120, done: 7, cached: 3, running, is_over: false }
    }

    fn lines(labels: &[(&str, u64)], columns: usize, rows: usize) -> Vec<String> {
        let now = Instant::now();
        let labels = labels.iter().map(|(label, millis)| ((*label).to_owned(), *millis));
        state(labels, now).lines(Size { columns, rows }, now)
    }

    #[test]
    fn the_longest_step_is_first() {
        assert_eq!(
            lines(&[("//a:x", 200), ("//b:x", 70_000)], 80, 24),
            ["[7/120] running 2, cached 3, 12.3 s", "  //b:x 1 min 10 s", "  //a:x 0.2 s"]
        );
    }

    #[test]
    fn narrow_windows_show_what_matters() {
        assert_eq!(lines(&[("//apps/web/deep/down:build", 1_500)], 20, 24), ["[7/120] 12.3 s", "  …down:build 1.5 s"]);
        assert_eq!(lines(&[("//apps/web:build", 1_500)], 8, 24)[0], "[7/120]");
        for columns in 0..60 {
            for line in lines(&[("//apps/w\u{5bbd}\u{5bbd}b:build", 1_500), ("//:a", 3)], columns, 24) {
                assert!(line.width() < columns.max(1), "{columns}: {line}");
            }
        }
    }

    #[test]
    fn of_many_steps_a_few_are_shown() {
        let now = Instant::now();
        let many = || (0..100).map(|number| (format!("//p{number}:x"), 1_000 + number));
        for (rows, expected) in [(60, 9), (24, 9), (12, 5), (5, 2), (2, 1)] {
            let lines = state(many(), now).lines(Size { columns: 80, rows }, now);
            assert_eq!(lines.len(), expected, "{rows} rows: {lines:?}");
        }
        let lines = state(many(), now).lines(Size { columns: 80, rows: 24 }, now);
        assert_eq!((&*lines[1], &*lines[8]), ("  //p99:x 1.1 s", "  … and 93 more"));
    }

    #[test]
    fn nothing_of_a_label_moves_the_cursor() {
        assert_eq!(printable("a\u{1b}[2J\rb\u{202e}c\u{7}\u{9b}\n"), "a[2Jbc\n");
        assert_eq!(lines(&[("//a\u{1b}[1A:x", 0)], 80, 24)[1], "  //a[1A:x 0.0 s");
    }
}
