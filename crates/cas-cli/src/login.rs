//! `cas login` and `cas logout`.
//!
//! A password comes from a pipe or from a terminal that does not show it; never from the command line, which others can read. Nothing
//! that is printed holds it.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;

use cas_build::BuildError;
use cas_oci::Reference;
use cas_registry::{Client, Login, drop_login, keep_login};
use cas_sandbox::Cancel;
use cas_sync::SyncError;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use serde_json::json;

use crate::args::Global;
use crate::args_remote::{LoginArgs, LogoutArgs};
use crate::commands::{cancel_on_signals, in_here, logins, print, text};
use crate::exit::Exit;
use crate::render::{self, Failure};
use crate::screen;

/// Longest name or password.
const MAX_BYTES: u64 = 64 << 10;
/// How often it is asked whether to stop, in nanoseconds.
const STOP_INTERVAL: i64 = 100_000_000;

pub(crate) fn login(global: &Global, args: &LoginArgs) -> Result<Exit, Failure> {
    let host = host(&args.host)?;
    let files = files(global, args.authfile.as_ref());
    let signals = cancel_on_signals()?;
    if args.password_stdin && args.user.is_none() {
        let hint = "name the account: `--user USER`";
        return Err(Failure::Usable("`--password-stdin` takes the password alone".to_owned(), hint.to_owned()));
    }
    if !args.password_stdin && !std::io::stdin().is_terminal() {
        let hint = "`--password-stdin` takes it from a pipe";
        return Err(Failure::Usable("there is no terminal to ask for the password at".to_owned(), hint.to_owned()));
    }
    let user = match &args.user {
        Some(user) => user.clone(),
        None => ask(&format!("User of {host}: "), Echo::On, &signals.0)?,
    };
    // The first colon ends the name wherever both are written together (RFC 7617, 2).
    if user.is_empty() || user.contains(|character: char| character == ':' || character.is_control()) {
        return Err(Failure::Usable(
            "that is no name of a user".to_owned(),
            "it is not empty, and has no colon".to_owned(),
        ));
    }
    let password = match args.password_stdin {
        true => piped()?,
        false => ask(&format!("Password of {user} for {host}: "), Echo::Off, &signals.0)?,
    };
    if password.is_empty() {
        return Err(Failure::Usable("the password is empty".to_owned(), "nothing was changed".to_owned()));
    }
    let switch = signals.0.clone();
    let client = Client::new(Vec::new(), BTreeMap::new()).until(move || switch.is_cancelled());
    let login = Login::Password { user: user.clone(), password: password.clone() };
    let is_checked = match cas_sync::try_login(&client, &host, &login) {
        Ok(is_checked) => is_checked,
        // A push has other advice.
        Err(SyncError::Registry(error)) => return Err(error.into()),
        Err(other) => return Err(Failure::Sync(other)),
    };
    let keeper = keep_login(&files, &host, &user, &password)?;
    let rows = [json!({ "host": host, "user": user, "kept": keeper.to_string(), "checked": is_checked })];
    print(global, &rows, |row| {
        format!("{} is logged in to {}: {}", text(&row["user"]), text(&row["host"]), text(&row["kept"]))
    })?;
    if !is_checked {
        render::note(&format!("`{host}` asks nobody who they are, so nothing says whether the password is right"));
    }
    Ok(Exit::Done)
}

pub(crate) fn logout(global: &Global, args: &LogoutArgs) -> Result<Exit, Failure> {
    let host = host(&args.host)?;
    let dropped = drop_login(&files(global, args.authfile.as_ref()), &host)?;
    if dropped.is_empty() {
        let hint = "logins for parts of a host, as `HOST/TEAM`, stay; the files are those that docker and podman use";
        return Err(Failure::Usable(format!("nobody is logged in to `{host}`"), hint.to_owned()));
    }
    let rows: Vec<_> = dropped.iter().map(|keeper| json!({ "host": host, "dropped": keeper.to_string() })).collect();
    print(global, &rows, |row| format!("{} is gone from {}", text(&row["host"]), text(&row["dropped"])))?;
    Ok(Exit::Done)
}

/// A host, with a port or not, and nothing behind it.
fn host(text: &str) -> Result<String, Failure> {
    let name = text.strip_prefix("docker://").unwrap_or(text);
    let parsed = format!("{name}/x:x").parse::<Reference>().ok().filter(|_| !name.contains('/'));
    parsed.map(|parsed| parsed.repository.host).ok_or_else(|| {
        let hint = "write it as names of images have it: `ghcr.io`, `docker.io`, `localhost:5000`";
        // What stands before an `@` may be a password.
        let shown = text.rsplit('@').next().unwrap_or_default();
        Failure::Usable(format!("`{shown}` is no host of a registry"), hint.to_owned())
    })
}

fn files(global: &Global, named: Option<&PathBuf>) -> Vec<PathBuf> {
    named.map_or_else(logins, |path| vec![in_here(global, path)])
}

fn unreadable(error: impl std::fmt::Display) -> Failure {
    Failure::Usable(format!("standard input could not be read: {error}"), String::new())
}

/// What a pipe gives, without the end of its last line.
fn piped() -> Result<String, Failure> {
    let mut bytes = Vec::new();
    std::io::stdin().lock().take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    line(bytes)
}

fn line(bytes: Vec<u8>) -> Result<String, Failure> {
    let too_long = || Failure::Usable(format!("it is longer than {MAX_BYTES} bytes"), String::new());
    let text = if bytes.len() as u64 > MAX_BYTES { return Err(too_long()) } else { String::from_utf8(bytes) };
    let text = text.map_err(|_| unreadable("it is no text"))?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
}

/// Whether a terminal shows what is typed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Echo {
    On,
    Off,
}

/// A terminal that shows nothing of what is typed, until this ends.
struct Hidden<'a> {
    terminal: BorrowedFd<'a>,
    before: Termios,
}

impl<'a> Hidden<'a> {
    fn new(terminal: BorrowedFd<'a>) -> rustix::io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        // The end of the line is shown, so that what comes next begins a new one.
        quiet.local_modes.insert(LocalModes::ECHONL | LocalModes::ICANON | LocalModes::ISIG);
        // What was typed before is not meant for this.
        tcsetattr(terminal, OptionalActions::Flush, &quiet)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Hidden<'_> {
    fn drop(&mut self) {
        // A terminal that is gone has nothing to show.
        let _ = tcsetattr(self.terminal, OptionalActions::Now, &self.before);
    }
}

/// Asks whoever sits at the terminal, as long as nothing ends the program.
fn ask(question: &str, echo: Echo, cancel: &Cancel) -> Result<String, Failure> {
    let stdin = std::io::stdin();
    let terminal = stdin.as_fd();
    let _hidden = match echo {
        Echo::Off => Some(Hidden::new(terminal).map_err(unreadable)?),
        Echo::On => None,
    };
    screen::print(question);
    let mut bytes = Vec::new();
    while bytes.last() != Some(&b'\n') && bytes.len() as u64 <= MAX_BYTES {
        if cancel.is_cancelled() {
            screen::print("\n");
            return Err(BuildError::Interrupted.into());
        }
        let pause = Timespec { tv_sec: 0, tv_nsec: STOP_INTERVAL };
        let mut waiting = [PollFd::new(&terminal, PollFlags::IN)];
        match poll(&mut waiting, Some(&pause)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => continue,
            other => other.map_err(unreadable)?,
        };
        // A byte at a time, so that the next question has what follows the line.
        let mut byte = [0];
        match rustix::io::read(terminal, &mut byte) {
            Ok(0) => break,
            Ok(_) => bytes.push(byte[0]),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(unreadable(error)),
        }
    }
    line(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_those_of_names() {
        for (text, expected) in [
            ("ghcr.io", Some("ghcr.io")),
            ("docker.io", Some("docker.io")),
            ("index.docker.io", Some("docker.io")),
            ("localhost:5000", Some("localhost:5000")),
            ("docker://ghcr.io", Some("ghcr.io")),
            ("ghcr.io/team", None),
            ("https://ghcr.io", None),
            ("ghcr", None),
            ("", None),
            ("me:s3cret@ghcr.io", None),
        ] {
            let found = host(text);
            assert!(!format!("{found:?}").contains("s3cret"), "{found:?}");
            assert_eq!(found.ok().as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn a_password_is_all_but_the_end_of_its_line() {
        for (bytes, expected) in
            [("s3cret\n", "s3cret"), ("s3cret\r\n", "s3cret"), (" a b \n\n", " a b \n"), ("x", "x"), ("", "")]
        {
            assert_eq!(line(bytes.as_bytes().to_vec()).ok().as_deref(), Some(expected));
        }
        assert!(line(vec![0xff]).is_err() && line(vec![b'x'; 65_537]).is_err());
    }
}
