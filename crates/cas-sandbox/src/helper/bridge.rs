//! What a sandbox without a network has of one: connections from the host's loopback, and an answer when a name is looked up.
//!
//! A process beside process 1, child of the supervisor too, in the network namespace and not in that of the processes: out of the
//! command's reach, and with threads, which the supervisor cannot have. Sockets belong to the namespace in which they were made, so
//! those that the runner has bound stay the host's, and what is connected here is the sandbox's.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Builder;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::Signal;

use super::{At, Setup};
use crate::wire::Stage;

/// Most connections at once; others wait until one has ended. Each takes two descriptors, of which most systems give 1,024.
const MAX_CONNECTIONS: usize = 256;
/// How long a program whose queue is full is waited for.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections that wait to be accepted at a port, as the standard library has it.
const BACKLOG: i32 = 128;
/// How long the end of a run waits for what the program has sent already.
const GRACE: Duration = Duration::from_secs(1);
/// Pause after what could not be accepted or received, mostly for want of descriptors or memory.
const PAUSE: Duration = Duration::from_millis(100);
/// Port of name servers.
const NAME_PORT: u16 = 53;
/// Longest question that is read: names have at most 255 bytes.
const MAX_QUESTION_BYTES: usize = 1232;
/// Bytes of a message of DNS before its question (RFC 1035, 4.1.1).
const HEADER_BYTES: usize = 12;

/// Sockets that are there before the command is.
pub(super) struct Bridge {
    names: UdpSocket,
    /// Where the first name goes that is looked up.
    told: OwnedFd,
    ports: Vec<(TcpListener, u16)>,
}

/// Where connections are counted.
#[derive(Clone)]
struct Connections(Arc<Shared>);

struct Shared {
    most: usize,
    counts: Mutex<Counts>,
    changed: Condvar,
}

#[derive(Default)]
struct Counts {
    open: usize,
    /// Those to which the program may still be sending.
    answering: usize,
}

/// The place of one connection among those that may be open, given back when it is dropped.
struct Place(Connections);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.change(|counts| counts.open -= 1);
    }
}

impl Bridge {
    /// Opens what has to be there before the command starts; in the namespace.
    pub(super) fn open(told: OwnedFd, sockets: Vec<OwnedFd>, ports: &[u16]) -> Setup<Self> {
        // A program that may not be user 0 of the host may serve at port 80 all the same: these ports are its own. Where this is
        // refused, as in containers that show `/proc/sys` read-only, the program is told so when it tries.
        let _ = cas_fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start".as_ref(), b"0");
        let names = UdpSocket::bind((Ipv4Addr::LOCALHOST, NAME_PORT)).at(Stage::Bridge)?;
        for socket in &sockets {
            // Not before, so that nobody waits at a port for a program that is still being made. Another one may have begun to meanwhile.
            rustix::net::sockopt::set_socket_reuseaddr(socket, true).at(Stage::Listen)?;
            rustix::net::listen(socket, BACKLOG).at(Stage::Listen)?;
            rustix::io::ioctl_fionbio(socket, true).at(Stage::Listen)?;
        }
        let ports = sockets.into_iter().map(TcpListener::from).zip(ports.iter().copied()).collect();
        Ok(Self { names, told, ports })
    }

    /// Does not return: serves until the other end of the lifeline is closed, by the supervisor or by its death.
    pub(super) fn serve(self, lifeline: OwnedFd) -> ! {
        // Closes at once when the supervisor is killed. It may have been before, which the lifeline tells.
        let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
        let Self { names, told, ports } = self;
        // Without a thread there is no service, and the program finds nobody: it is not to unwind into what forked it.
        let ended = |spawned: std::io::Result<std::thread::JoinHandle<()>>| {
            if spawned.is_err() {
                cas_sys::exit(1);
            }
        };
        ended(Builder::new().spawn(move || answer(&names, &mut File::from(told))));
        let connections = Connections::at_most(MAX_CONNECTIONS);
        for (listener, port) in ports {
            let connections = connections.clone();
            ended(Builder::new().spawn(move || accept(&listener, port, &connections)));
        }
        // Nothing is ever written to it.
        let _ = File::from(lifeline).read(&mut [0]);
        connections.finish();
        cas_sys::exit(0)
    }
}

impl Connections {
    fn at_most(most: usize) -> Self {
        Self(Arc::new(Shared { most, counts: Mutex::default(), changed: Condvar::new() }))
    }

    /// Waits until what the program has sent is where it belongs, though not for long.
    fn finish(&self) {
        let is_answering = |counts: &mut Counts| counts.answering > 0;
        drop(self.0.changed.wait_timeout_while(self.counts(), GRACE, is_answering));
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut self.counts());
        self.0.changed.notify_all();
    }

    /// Waits for a place, and takes it.
    fn place(&self) -> Place {
        let counts = self.0.changed.wait_while(self.counts(), |counts| counts.open >= self.0.most);
        counts.unwrap_or_else(PoisonError::into_inner).open += 1;
        Place(self.clone())
    }
}

fn accept(listener: &TcpListener, port: u16, connections: &Connections) {
    loop {
        // A place that is kept for nobody would be missed at other ports.
        if poll(&mut [PollFd::new(listener, PollFlags::IN)], None).is_err() {
            std::thread::sleep(PAUSE);
            continue;
        }
        let place = connections.place();
        let Ok((outside, _)) = listener.accept() else {
            drop(place);
            std::thread::sleep(PAUSE);
            continue;
        };
        if Builder::new().spawn(move || pass(place, outside, port)).is_err() {
            std::thread::sleep(PAUSE);
        }
    }
}

/// Connects to the program, and passes bytes both ways until both have ended.
fn pass(place: Place, outside: TcpStream, port: u16) {
    // A program that does not listen yet, or no more, or whose queue stays full: whoever asked is told by the end of the connection.
    let connect = |address: IpAddr| TcpStream::connect_timeout(&SocketAddr::new(address, port), CONNECT_TIMEOUT);
    let Ok(inside) = connect(Ipv4Addr::LOCALHOST.into()).or_else(|_| connect(Ipv6Addr::LOCALHOST.into())) else {
        return;
    };
    let connections = &place.0;
    connections.change(|counts| counts.answering += 1);
    std::thread::scope(|scope| {
        if Builder::new().spawn_scoped(scope, || copy(&outside, &inside)).is_ok() {
            copy(&inside, &outside);
        }
        connections.change(|counts| counts.answering -= 1);
    });
    // Before the next one takes the place.
    drop((outside, inside));
    drop(place);
}

/// Passes bytes one way, and that there are no more. Where one side is gone the other one is told.
fn copy(mut from: &TcpStream, mut to: &TcpStream) {
    // Either may be closed already.
    if io::copy(&mut from, &mut to).is_ok() {
        let _ = to.shutdown(Shutdown::Write);
    } else {
        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    }
}

/// Says of every name that there is no such one, and tells the first.
///
/// `SERVFAIL` would be nearer to the truth, but musl's resolver asks again and again then, for ten seconds.
fn answer(socket: &UdpSocket, told: &mut File) {
    let mut has_told = false;
    let mut bytes = [0; MAX_QUESTION_BYTES];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut bytes) else {
            std::thread::sleep(PAUSE);
            continue;
        };
        let Some((name, end)) = question(&bytes[..length]) else { continue };
        if !has_told {
            // It is for a hint.
            has_told = told.write_all(name.as_bytes()).is_ok();
        }
        let mut reply = bytes[..end].to_vec();
        // An answer, with the wish for recursion as it was; recursion is available, no such name; one question and nothing else.
        reply[2] = 0x80 | (reply[2] & 0x79);
        reply[3] = 0x83;
        reply[4..HEADER_BYTES].copy_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
        let _ = socket.send_to(&reply, from);
    }
}

/// The name that is asked for, as text, and where the question ends (RFC 1035, 4.1.2).
fn question(message: &[u8]) -> Option<(String, usize)> {
    if message.len() <= HEADER_BYTES || message[2] & 0x80 != 0 || message[4..6] != [0, 1] {
        return None;
    }
    let (mut at, mut labels) = (HEADER_BYTES, Vec::new());
    loop {
        let length = usize::from(*message.get(at)?);
        at += 1;
        if length == 0 {
            let end = at + 4;
            return (end <= message.len()).then(|| (labels.join("."), end));
        }
        // Two bits say that the rest is elsewhere, which a question has no use for.
        let label = message.get(at..at + length).filter(|_| length < 64)?;
        let is_plain = label.iter().all(u8::is_ascii_graphic);
        labels.push(if is_plain { String::from_utf8_lossy(label).into_owned() } else { "?".to_owned() });
        at += length;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    /// However many wait, no more are in their places than there are.
    #[test]
    fn places_are_taken_by_as_many_as_there_are() {
        const MOST: usize = 4;
        let connections = Connections::at_most(MOST);
        let taken = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let place = connections.place();
                        assert!(taken.fetch_add(1, Ordering::SeqCst) < MOST);
                        std::thread::yield_now();
                        taken.fetch_sub(1, Ordering::SeqCst);
                        drop(place);
                    }
                });
            }
        });
        assert_eq!(connections.counts().open, 0);
    }

    #[test]
    fn names_are_read_from_questions_alone() {
        let header = |flags: u8| [&[7, 7, flags, 0, 0, 1][..], &[0; 6]].concat();
        let with = |flags, rest: &[u8]| [&header(flags), rest].concat();
        for (message, expected) in [
            (with(1, b"\x07example\x03org\0\0\x01\0\x01"), Some(("example.org", 29))),
            (with(1, b"\x07example\0\0\x01\0\x01more"), Some(("example", 25))),
            (with(1, b"\x03a\x1bb\0\0\x01\0\x01"), Some(("?", 21))),
            (with(1, b"\0\0\x02\0\x01"), Some(("", 17))),
            (with(0x81, b"\x07example\0\0\x01\0\x01"), None), // an answer
            (with(1, b"\x07example\0\0\x01"), None),
            (with(1, b"\x07exa"), None),
            (with(1, b"\xc0\x0c\0\x01\0\x01"), None),
            (header(1), None),
            (Vec::new(), None),
        ] {
            let expected = expected.map(|(name, end)| (name.to_owned(), end));
            assert_eq!(question(&message), expected, "{message:?}");
        }
    }
}
