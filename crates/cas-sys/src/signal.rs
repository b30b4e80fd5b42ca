//! Signals by the names that images have for them.

use std::io;

use rustix::process::Pid;

/// The first real-time signal that the C library leaves to programs; images mean this one, whatever library they have.
const FIRST_REAL_TIME: i32 = 34;
/// The last one.
const LAST: i32 = 64;
/// Names without `SIG`.
const NAMES: [(&str, i32); 32] = [
    ("ABRT", libc::SIGABRT),
    ("ALRM", libc::SIGALRM),
    ("BUS", libc::SIGBUS),
    ("CHLD", libc::SIGCHLD),
    ("CLD", libc::SIGCHLD),
    ("CONT", libc::SIGCONT),
    ("FPE", libc::SIGFPE),
    ("HUP", libc::SIGHUP),
    ("ILL", libc::SIGILL),
    ("INT", libc::SIGINT),
    ("IO", libc::SIGIO),
    ("IOT", libc::SIGABRT),
    ("KILL", libc::SIGKILL),
    ("PIPE", libc::SIGPIPE),
    ("POLL", libc::SIGIO),
    ("PROF", libc::SIGPROF),
    ("PWR", libc::SIGPWR),
    ("QUIT", libc::SIGQUIT),
    ("SEGV", libc::SIGSEGV),
    ("STOP", libc::SIGSTOP),
    ("SYS", libc::SIGSYS),
    ("TERM", libc::SIGTERM),
    ("TRAP", libc::SIGTRAP),
    ("TSTP", libc::SIGTSTP),
    ("TTIN", libc::SIGTTIN),
    ("TTOU", libc::SIGTTOU),
    ("URG", libc::SIGURG),
    ("USR1", libc::SIGUSR1),
    ("USR2", libc::SIGUSR2),
    ("VTALRM", libc::SIGVTALRM),
    ("WINCH", libc::SIGWINCH),
    ("XCPU", libc::SIGXCPU),
];

/// The number of a signal that is given as images have it: a name with or without `SIG`, `SIGRTMIN+N`, `SIGRTMAX-N`, or a number.
#[must_use]
pub fn signal_number(text: &str) -> Option<i32> {
    let text = text.trim().to_ascii_uppercase();
    let name = text.strip_prefix("SIG").unwrap_or(&text);
    let real_time = |rest: &str, sign: char| match rest {
        "" => Some(0),
        rest => rest.strip_prefix(sign)?.parse::<u8>().ok().map(i32::from),
    };
    let number = if let Some(rest) = name.strip_prefix("RTMIN") {
        FIRST_REAL_TIME + real_time(rest, '+')?
    } else if let Some(rest) = name.strip_prefix("RTMAX") {
        Some(LAST - real_time(rest, '-')?).filter(|number| *number >= FIRST_REAL_TIME)?
    } else if let Some((_, number)) = NAMES.iter().find(|(known, _)| *known == name) {
        *number
    } else {
        text.parse().ok()?
    };
    (1..=LAST).contains(&number).then_some(number)
}

/// Sends a signal to a process by its number, also one that has no name.
///
/// # Errors
///
/// What the system says.
pub fn send_signal(process: Pid, number: i32) -> io::Result<()> {
    // SAFETY: it takes numbers alone, and the kernel refuses what is no signal.
    crate::check(unsafe { libc::kill(process.as_raw_pid(), number) }.into())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_read_as_images_have_them() {
        for (text, expected) in [
            ("SIGTERM", Some(15)),
            ("TERM", Some(15)),
            ("sigquit", Some(3)),
            ("SIGWINCH", Some(28)),
            ("9", Some(9)),
            ("64", Some(64)),
            ("SIGRTMIN", Some(34)),
            ("SIGRTMIN+3", Some(37)),
            ("RTMAX-2", Some(62)),
            ("SIGRTMIN+31", None),
            ("SIGRTMAX-31", None),
            ("SIGRTMIN3", None),
            ("65", None),
            ("0", None),
            ("-1", None),
            ("", None),
            ("SIG", None),
            ("SIG9", None),
        ] {
            assert_eq!(signal_number(text), expected, "{text}");
        }
    }
}
