//! Questions at a terminal, whose answers it shows or not.

use std::os::fd::BorrowedFd;

use cas_build::BuildError;
use cas_sandbox::Cancel;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::render::Failure;
use crate::screen;

/// Longest answer.
pub(crate) const MAX_BYTES: u64 = 64 << 10;
/// How often it is asked whether to stop, in nanoseconds.
const STOP_INTERVAL: i64 = 100_000_000;

pub(crate) fn unreadable(error: impl std::fmt::Display) -> Failure {
    Failure::Usable(format!("standard input could not be read: {error}"), String::new())
}

/// What was read, without the end of its line.
pub(crate) fn line(mut bytes: Vec<u8>) -> Result<Vec<u8>, Failure> {
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Failure::Usable(format!("it is longer than {MAX_BYTES} bytes"), String::new()));
    }
    for end in [b'\n', b'\r'] {
        bytes.truncate(bytes.strip_suffix(&[end]).unwrap_or(&bytes).len());
    }
    Ok(bytes)
}

/// Whether a terminal shows what is typed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Echo {
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
pub(crate) fn ask(terminal: BorrowedFd<'_>, question: &str, echo: Echo, cancel: &Cancel) -> Result<Vec<u8>, Failure> {
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
    fn an_answer_is_all_but_the_end_of_its_line() {
        for (bytes, expected) in
            [("s3cret\n", "s3cret"), ("s3cret\r\n", "s3cret"), (" a b \n\n", " a b \n"), ("x", "x"), ("", "")]
        {
            assert_eq!(line(bytes.as_bytes().to_vec()).ok().as_deref(), Some(expected.as_bytes()));
        }
        assert!(line(vec![b'x'; 65_537]).is_err());
    }
}
