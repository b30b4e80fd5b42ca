//! What a terminal shows while a build goes on: a real pseudo terminal, and another project's interpreter that draws its screen.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::num::NonZero;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::Home;

/// How long something that must come is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// A program on a terminal.
pub(crate) struct Terminal {
    pub(crate) master: File,
    child: Child,
    shown: Arc<Mutex<Shown>>,
    reader: JoinHandle<()>,
}

struct Shown {
    bytes: Vec<u8>,
    screen: vt100::Parser,
}

impl Terminal {
    /// Runs the program on a terminal of this size; the terminal controls it, so that Ctrl-C reaches it.
    pub(crate) fn start(
        home: &Home,
        arguments: &[&str],
        (columns, rows): (u16, u16),
        variables: &[(&str, &str)],
    ) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = PathBuf::from(ptsname(&master, Vec::new()).unwrap().into_string().unwrap());
        resize(&master, columns, rows);
        let side = || OpenOptions::new().read(true).write(true).open(&name).unwrap();
        let mut command = Command::new("setsid");
        command.arg("--ctty").arg(env!("CARGO_BIN_EXE_cas")).args(arguments).current_dir(home.workspace()).env_clear();
        command.env("PATH", "/usr/bin:/bin").env("CAS_HOME", home.folder.path().join("store"));
        command.envs(variables.iter().copied());
        let child = command.stdin(side()).stdout(side()).stderr(side()).spawn().unwrap();
        // The command holds the other side open: only without it does the terminal end with the program.
        drop(command);
        let shown = Shown { bytes: Vec::new(), screen: vt100::Parser::new(size(rows), size(columns), 0) };
        let shown = Arc::new(Mutex::new(shown));
        let master = File::from(master);
        let (mut from, into) = (master.try_clone().unwrap(), Arc::clone(&shown));
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // The end of the program is an error of the terminal.
            while let Some(count) = from.read(&mut buffer).ok().filter(|count| *count > 0) {
                let mut shown = into.lock().unwrap();
                shown.bytes.extend_from_slice(&buffer[..count]);
                shown.screen.process(&buffer[..count]);
            }
        });
        Self { master, child, shown, reader }
    }

    /// The screen as soon as it satisfies a condition.
    pub(crate) fn wait_for(&self, what: &str, condition: impl Fn(&str) -> bool) -> String {
        let started = Instant::now();
        loop {
            let screen = self.shown.lock().unwrap().screen.screen().contents();
            if condition(&screen) {
                return screen;
            }
            assert!(started.elapsed() < PATIENCE, "no {what}:\n{screen}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits for the end: its exit code, the last screen, all bytes.
    pub(crate) fn end(mut self) -> (Option<i32>, String, String) {
        let code = self.child.wait().unwrap().code();
        self.reader.join().unwrap();
        let shown = self.shown.lock().unwrap();
        let screen = shown.screen.screen();
        assert!(!screen.hide_cursor(), "the cursor is there");
        assert_eq!(screen.cursor_position().1, 0, "and begins a line:\n{}", screen.contents());
        (code, screen.contents(), String::from_utf8_lossy(&shown.bytes).into_owned())
    }
}

fn size(count: u16) -> NonZero<u16> {
    NonZero::new(count).unwrap()
}

fn resize(terminal: impl AsFd, columns: u16, rows: u16) {
    tcsetwinsize(terminal, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
}

pub(crate) const XTERM: (&str, &str) = ("TERM", "xterm");

fn sleepers(count: usize, seconds: &str) -> Option<Home> {
    let step = |number| format!("[test.step-{number}]\ntoolchain = \":sh\"\nrun = \"sleep {seconds} # {number}\"\n");
    let steps: String = (0..count).map(step).collect();
    Home::with_busybox(&format!("[workspace]\n{steps}"), &[])
}

#[test]
fn a_terminal_shows_what_runs_and_then_what_was_done() {
    let Some(home) = sleepers(3, "1") else { return };
    let terminal = Terminal::start(&home, &["test", "--jobs", "3"], (80, 24), &[XTERM]);
    let screen = terminal.wait_for("three steps", |screen| screen.contains("running 3,"));
    let status = screen.lines().position(|line| line.starts_with("[1/4] running 3, cached 0, ")).unwrap();
    let steps: Vec<&str> = screen.lines().skip(status + 1).collect();
    assert!(steps.len() == 3 && steps.iter().all(|line| line.starts_with("  //:step-")), "{screen}");
    let (code, screen, bytes) = terminal.end();
    assert_eq!(code, Some(0), "{screen}");
    assert!(!screen.contains("running"), "the block is gone:\n{screen}");
    assert_eq!(screen.matches("ran //:step-").count(), 3, "{screen}");
    let is_left =
        |line: &str| line.starts_with("  //:") || (line.starts_with("ran ") && line.matches(" s").count() > 1);
    assert!(!screen.lines().any(is_left), "{screen}");
    let last = screen.lines().last().unwrap();
    assert!(last.starts_with("3 steps ran, 0 were cached; 4 targets in ") && !last.contains("saved"), "{screen}");
    assert!(bytes.contains("\u{1b}[1m[1/4]"), "the status stands out");
    // What was there is told with the time that it took.
    let (_, screen, _) = Terminal::start(&home, &["test"], (120, 24), &[XTERM]).end();
    let last = screen.lines().last().unwrap();
    assert!(last.starts_with("0 steps ran, 3 were cached; 4 targets in ") && last.ends_with(" s saved"), "{screen}");
    let saved: f64 = last.split(", ").last().unwrap().trim_end_matches(" s saved").parse().unwrap();
    assert!((3.0..30.0).contains(&saved), "{last}");
}

#[test]
fn outputs_are_told_with_their_place() {
    let make = "[workspace]\n[command.x]\ntoolchain = \":sh\"\nrun = \"touch x\"\noutputs = [\"x\"]\n";
    let Some(home) = Home::with_busybox(make, &[]) else { return };
    let (code, screen, _) = Terminal::start(&home, &["build", ":x"], (120, 24), &[XTERM]).end();
    assert_eq!(code, Some(0), "{screen}");
    assert!(screen.lines().last().unwrap().ends_with("; outputs are in cas-out/"), "{screen}");
}

#[test]
fn a_window_that_gets_narrow_stays_readable() {
    let Some(home) = sleepers(2, "3") else { return };
    let terminal = Terminal::start(&home, &["test", "--jobs", "2"], (60, 24), &[XTERM]);
    terminal.wait_for("two steps", |screen| screen.contains("running 2,"));
    resize(&terminal.master, 20, 24);
    terminal.shown.lock().unwrap().screen.screen_mut().set_size(size(24), size(20));
    let screen = terminal.wait_for("narrow status", |screen| {
        screen.lines().any(|line| line.starts_with("[1/3] ") && line.ends_with(" s") && !line.contains("running"))
    });
    let steps = screen.lines().filter(|line| line.starts_with("  //:step-")).count();
    assert_eq!(steps, 2, "{screen}");
    assert_eq!(terminal.end().0, Some(0));
}

#[test]
fn of_many_steps_at_once_a_few_are_shown() {
    let Some(home) = sleepers(40, "2") else { return };
    let terminal = Terminal::start(&home, &["test", "--jobs", "40"], (80, 24), &[XTERM]);
    let screen = terminal.wait_for("forty steps", |screen| screen.contains("running 40,"));
    let block: Vec<&str> = screen.lines().skip_while(|line| !line.starts_with('[')).collect();
    assert_eq!((block.len(), block[8]), (9, "  … and 33 more"), "{screen}");
    let (code, screen, _) = terminal.end();
    assert_eq!(code, Some(0), "{screen}");
    assert!(!screen.contains("more"), "{screen}");
}

/// Ten frames a second are drawn at most, whatever happens.
#[test]
fn a_block_is_drawn_seldom() {
    let Some(home) = sleepers(1, "2") else { return };
    let started = Instant::now();
    let (_, _, bytes) = Terminal::start(&home, &["test"], (80, 24), &[XTERM]).end();
    let frames = bytes.matches("\u{1b}[J").count();
    let most = usize::try_from(started.elapsed().as_millis() / 100).unwrap() + 5;
    assert!((10..most).contains(&frames), "{frames} frames, at most {most}");
}

#[test]
fn ctrl_c_leaves_a_clean_terminal() {
    let Some(home) = sleepers(2, "60") else { return };
    let mut terminal = Terminal::start(&home, &["test", "--jobs", "2"], (80, 24), &[XTERM]);
    terminal.wait_for("two steps", |screen| screen.contains("running 2,"));
    terminal.master.write_all(b"\x03").unwrap();
    let (code, screen, _) = terminal.end();
    assert_eq!(code, Some(130), "{screen}");
    let is_clean = !screen.contains("running") && !screen.contains("//:step");
    assert!(is_clean && screen.lines().any(|line| line == "error: interrupted"), "{screen}");
}

#[test]
fn who_wants_plain_lines_gets_them() {
    let plain: [&[(&str, &str)]; 3] = [&[("TERM", "dumb")], &[XTERM, ("CI", "true")], &[]];
    for variables in plain {
        let Some(home) = sleepers(1, "1") else { return };
        let (code, screen, bytes) = Terminal::start(&home, &["test"], (80, 24), variables).end();
        assert_eq!((code, bytes.contains('\u{1b}')), (Some(0), false), "{variables:?}: {bytes:?}");
        assert_eq!(screen.lines().last(), Some("1 step ran, 0 were cached"), "{variables:?}");
    }
    let Some(home) = sleepers(1, "1") else { return };
    let (_, _, bytes) = Terminal::start(&home, &["test", "--format", "json"], (200, 24), &[XTERM]).end();
    assert!(!bytes.contains('\u{1b}') && bytes.contains("{\"exit\":\"done\""), "{bytes:?}");
    let (_, _, bytes) =
        Terminal::start(&home, &["test", "--check-repeat"], (80, 24), &[XTERM, ("NO_COLOR", "1")]).end();
    assert!(bytes.contains("\u{1b}[J") && !bytes.contains("\u{1b}[1m"), "{bytes:?}");
}

/// A folder's name is a label's part.
#[test]
fn names_do_not_move_the_cursor() {
    let Some(home) = Home::with_busybox("[workspace]\nmembers = [\"*\"]\n", &[]) else { return };
    let step = "[test.x]\ntoolchain = \"//:sh\"\nrun = \"sleep 1\"\n";
    home.write("a\u{1b}[2Jb/cas.toml", step);
    let terminal = Terminal::start(&home, &["test"], (80, 24), &[XTERM]);
    terminal.wait_for("its name", |screen| screen.contains("  //a[2Jb:x"));
    let (_, screen, bytes) = terminal.end();
    assert!(screen.contains("ran //a[2Jb:x in") && !bytes.contains("\u{1b}[2J"), "{bytes:?}");
}
