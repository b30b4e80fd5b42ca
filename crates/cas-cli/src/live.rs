//! A program outside of the sandbox, in a process group of its own: it gets the signals and the terminal, and with it ends
//! whatever it started.
//!
//! Whatever it started and left is given to this process by the kernel, which is why nothing else may be a child of it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{
    Pid, Signal, WaitOptions, WaitStatus, getpgrp, getpid, kill_current_process_group, kill_process,
    kill_process_group, set_child_subreaper, wait,
};
use rustix::termios::{tcgetpgrp, tcsetpgrp};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM};

use crate::commands::{SIGNAL_BASE, variable};
use crate::signals::Signals;

/// How long a program that is told to end may take, and what it leaves behind.
const GRACE: Duration = Duration::from_secs(10);
const REST_GRACE: Duration = Duration::from_secs(2);
/// How often it is looked whether what was left behind has ended.
const LOOK: Duration = Duration::from_millis(10);

/// What to run.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) command_line: Vec<String>,
    pub(crate) folder: PathBuf,
    /// Over the user's environment.
    pub(crate) env: BTreeMap<String, String>,
    /// Folders where programs are looked for first.
    pub(crate) program_folders: Vec<PathBuf>,
}

impl Live {
    /// Runs it to its end; returns its exit code, or 128 and the number of the signal that ended it.
    pub(crate) fn run(&self) -> io::Result<i32> {
        let signals = Signals::listen(&[SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGCHLD])?;
        set_child_subreaper(Some(getpid()))?;
        let (program, arguments) = self.command_line.split_first().expect("a program has a name");
        let mut command = Command::new(program);
        command.args(arguments).current_dir(&self.folder).envs(&self.env).env("PATH", self.path()).process_group(0);
        let child = command.spawn()?;
        let child = Pid::from_child(&child);
        let terminal = Terminal::give_to(child)?;
        let code = attend(&signals, child, &terminal);
        terminal.take_back();
        clear(child)?;
        code
    }

    fn path(&self) -> OsString {
        let own = self.env.get("PATH").map(OsString::from).or_else(|| variable("PATH")).unwrap_or_default();
        let folders = self.program_folders.iter().cloned().chain(std::env::split_paths(&own));
        // A folder with a colon in its name cannot be named there.
        std::env::join_paths(folders.filter(|folder| !folder.to_string_lossy().contains(':'))).unwrap_or(own)
    }
}

/// The folders of programs of `node_modules` from a package's up to the workspace's root.
pub(crate) fn program_folders(root: &Path, package: &Path) -> Vec<PathBuf> {
    let above = package.ancestors().take_while(|folder| folder.starts_with(root));
    above.map(|folder| folder.join("node_modules/.bin")).collect()
}

/// Waits for the end of the program, and hands signals on.
fn attend(signals: &Signals, child: Pid, terminal: &Terminal) -> io::Result<i32> {
    let mut deadline: Option<Instant> = None;
    loop {
        while let Some((process, status)) = wait(WaitOptions::NOHANG | WaitOptions::UNTRACED)? {
            match ended(status) {
                // One that the program left behind.
                _ if process != child => {}
                Some(code) => return Ok(code),
                None => terminal.pause(child)?,
            }
        }
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            tell(child, Signal::KILL);
            deadline = None;
        }
        for signal in signals.wait(None, left)?.signals {
            let signal = match signal {
                SIGINT => Signal::INT,
                SIGQUIT => Signal::QUIT,
                SIGHUP => Signal::HUP,
                SIGTERM => Signal::TERM,
                _ => continue,
            };
            // Whoever asks a program to end does not wait for ever; whoever types Ctrl-C can do it again.
            if matches!(signal, Signal::TERM | Signal::HUP) {
                deadline.get_or_insert(Instant::now() + GRACE);
            }
            tell(child, signal);
        }
    }
}

fn tell(group: Pid, signal: Signal) {
    // It may have ended this moment.
    let _ = kill_process_group(group, signal);
}

/// The code of a program that has ended; `None` for one that is stopped.
fn ended(status: WaitStatus) -> Option<i32> {
    status.exit_status().or_else(|| Some(SIGNAL_BASE + status.terminating_signal()?))
}

/// The terminal, if this process has it.
struct Terminal {
    own: Option<Pid>,
}

impl Terminal {
    /// Lets a process group read the terminal and get its signals.
    fn give_to(group: Pid) -> io::Result<Self> {
        let own = getpgrp();
        let stdin = io::stdin();
        let is_ours = stdin.is_terminal() && tcgetpgrp(&stdin).is_ok_and(|owner| owner == own);
        if !is_ours {
            return Ok(Self { own: None });
        }
        // From now on this process is in the background, where taking the terminal would stop it.
        cas_sys::ignore_terminal_output_signal()?;
        let terminal = Self { own: Some(own) };
        terminal.give(group);
        Ok(terminal)
    }

    fn give(&self, group: Pid) {
        if self.own.is_some() {
            // A terminal that is gone needs no owner.
            let _ = tcsetpgrp(io::stdin(), group);
            // It may have tried to read before.
            tell(group, Signal::CONT);
        }
    }

    fn take_back(&self) {
        if let Some(own) = self.own {
            // As above.
            let _ = tcsetpgrp(io::stdin(), own);
        }
    }

    /// The program was stopped, by Ctrl-Z for instance: this process stops, too, and goes on with it.
    fn pause(&self, group: Pid) -> io::Result<()> {
        if self.own.is_some() {
            self.take_back();
            kill_current_process_group(Signal::STOP)?;
            self.give(group);
        }
        Ok(())
    }
}

/// Ends everything that the program left behind: first politely, then at once.
fn clear(group: Pid) -> io::Result<()> {
    let deadline = Instant::now() + REST_GRACE;
    let mut told: Vec<Pid> = Vec::new();
    tell(group, Signal::TERM);
    loop {
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some(_)) => {}
                Ok(None) => break,
                // No child is left.
                Err(rustix::io::Errno::CHILD) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        let is_over = Instant::now() >= deadline;
        for child in children()? {
            if is_over {
                let _ = kill_process(child, Signal::KILL);
            } else if !told.contains(&child) {
                told.push(child);
                let _ = kill_process(child, Signal::TERM);
            }
        }
        std::thread::sleep(LOOK);
    }
}

/// The processes whose parent this one is.
fn children() -> io::Result<Vec<Pid>> {
    let own = getpid().as_raw_nonzero().get().to_string();
    let mut found = Vec::new();
    for entry in cas_fs::read_dir(Path::new("/proc")).map_err(|error| error.source)? {
        let Some(number) = entry.name.to_str().and_then(|name| name.parse().ok()) else { continue };
        let stat = Path::new("/proc").join(&entry.name).join("stat");
        // Its name, in brackets, can have anything in it; behind it are the state and the parent. It may be gone.
        let Ok(text) = cas_fs::read(&stat) else { continue };
        let text = String::from_utf8_lossy(&text);
        let parent = text.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1));
        if parent == Some(&own) {
            found.extend(Pid::from_raw(number));
        }
    }
    Ok(found)
}
