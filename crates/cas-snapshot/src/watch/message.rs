//! What a build and a watcher say to each other: one request and one answer a connection.
//!
//! Every field has its length before it and a limit; a message that is not understood is no message, and its receiver goes
//! on as if there was no watcher. Format: docs/formats/snapshot.md, "The watcher".

use std::io::{self, Read, Write};

/// First bytes of a message, with the version of the protocol. Another version is not understood.
const MAGIC: &[u8; 8] = b"caswat01";
/// Longest message: the paths of half a million folders.
pub(crate) const MAX_MESSAGE_BYTES: u32 = 64 << 20;
/// Longest path, as in a snapshot.
const MAX_PATH_BYTES: usize = 4095;

/// A moment as one watcher counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    /// Random, of one run of a watcher.
    pub(crate) instance: [u8; 16],
    pub(crate) sequence: u64,
}

/// Which folder it is, whatever its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) device: u64,
    pub(crate) inode: u64,
}

/// A folder, by its path from the workspace's root on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) path: Box<[u8]>,
    /// `None` when it is not known well enough.
    pub(crate) identity: Option<Identity>,
}

/// A folder that may not be what it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) path: Box<[u8]>,
    /// Whether everything below it is meant, too.
    pub(crate) is_deep: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// What changed? Answered after the creation of the file `cookie` was seen.
    Changes {
        since: Option<Token>,
        cookie: Box<[u8]>,
    },
    /// Watch these as well.
    Watch(Vec<Wanted>),
    Status,
    Stop,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Changes {
        /// What is watched.
        root: Identity,
        now: Token,
        /// `None` when it is not known: everything may have changed.
        changes: Option<Vec<Change>>,
    },
    /// All but so many are watched from `now` on.
    Watching {
        now: Token,
        refused_count: u32,
    },
    Status {
        process: u32,
        folder_count: u32,
        is_limit_reached: bool,
    },
    Stopping,
}

impl Request {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self {
            Self::Changes { since, cookie } => {
                bytes.push(1);
                put_option(&mut bytes, since.as_ref(), put_token);
                put_bytes(&mut bytes, cookie);
            }
            Self::Watch(folders) => {
                bytes.push(2);
                put_count(&mut bytes, folders.len());
                for Wanted { path, identity } in folders {
                    put_bytes(&mut bytes, path);
                    put_option(&mut bytes, identity.as_ref(), put_identity);
                }
            }
            Self::Status => bytes.push(3),
            Self::Stop => bytes.push(4),
        }
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        let request = match reader.array()? {
            [1] => Self::Changes { since: reader.option(Reader::token)?, cookie: reader.path()? },
            [2] => {
                let wanted = |reader: &mut Reader<'_>| {
                    Some(Wanted { path: reader.path()?, identity: reader.option(Reader::identity)? })
                };
                Self::Watch(reader.list(wanted)?)
            }
            [3] => Self::Status,
            [4] => Self::Stop,
            _ => return None,
        };
        reader.0.is_empty().then_some(request)
    }
}

impl Answer {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self {
            Self::Changes { root, now, changes } => {
                bytes.push(1);
                put_identity(&mut bytes, root);
                put_token(&mut bytes, now);
                put_option(&mut bytes, changes.as_ref(), |bytes, changes| {
                    put_count(bytes, changes.len());
                    for Change { path, is_deep } in changes {
                        put_bytes(bytes, path);
                        bytes.push(u8::from(*is_deep));
                    }
                });
            }
            Self::Watching { now, refused_count } => {
                bytes.push(2);
                put_token(&mut bytes, now);
                bytes.extend_from_slice(&refused_count.to_le_bytes());
            }
            Self::Status { process, folder_count, is_limit_reached } => {
                bytes.push(3);
                bytes.extend_from_slice(&process.to_le_bytes());
                bytes.extend_from_slice(&folder_count.to_le_bytes());
                bytes.push(u8::from(*is_limit_reached));
            }
            Self::Stopping => bytes.push(4),
        }
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        let answer = match reader.array()? {
            [1] => {
                let change = |reader: &mut Reader<'_>| Some(Change { path: reader.path()?, is_deep: reader.flag()? });
                Self::Changes {
                    root: reader.identity()?,
                    now: reader.token()?,
                    changes: reader.option(|reader| reader.list(change))?,
                }
            }
            [2] => Self::Watching { now: reader.token()?, refused_count: reader.number()? },
            [3] => Self::Status {
                process: reader.number()?,
                folder_count: reader.number()?,
                is_limit_reached: reader.flag()?,
            },
            [4] => Self::Stopping,
            _ => return None,
        };
        reader.0.is_empty().then_some(answer)
    }
}

/// Sends a message.
pub(crate) fn send(sink: &mut impl Write, message: &[u8]) -> io::Result<()> {
    let len = u32::try_from(message.len()).ok().filter(|len| *len <= MAX_MESSAGE_BYTES);
    let len = len.ok_or(io::ErrorKind::FileTooLarge)?;
    sink.write_all(&[&MAGIC[..], &len.to_le_bytes(), message].concat())
}

/// Receives a message, as long as `is_in_time` says.
///
/// Memory grows with what arrives, not with what is announced.
pub(crate) fn receive(source: &mut impl Read, is_in_time: impl Fn() -> bool) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 64 << 10];
    loop {
        let wanted = match bytes.get(..HEAD_BYTES) {
            None => HEAD_BYTES - bytes.len(),
            Some(head) => {
                let (magic, len) = head.split_at(MAGIC.len());
                let len = u32::from_le_bytes(len.try_into().expect("the head has four more bytes"));
                if magic != MAGIC || len > MAX_MESSAGE_BYTES {
                    return Err(io::ErrorKind::InvalidData.into());
                }
                HEAD_BYTES + len as usize - bytes.len()
            }
        };
        if wanted == 0 {
            return Ok(bytes.split_off(HEAD_BYTES));
        }
        if !is_in_time() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let len = wanted.min(buffer.len());
        match source.read(&mut buffer[..len]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Magic and length.
const HEAD_BYTES: usize = 12;

fn put_count(bytes: &mut Vec<u8>, count: usize) {
    // What is longer is refused when it is sent.
    bytes.extend_from_slice(&u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes());
}

fn put_bytes(bytes: &mut Vec<u8>, value: &[u8]) {
    put_count(bytes, value.len());
    bytes.extend_from_slice(value);
}

fn put_option<T>(bytes: &mut Vec<u8>, value: Option<&T>, put: impl Fn(&mut Vec<u8>, &T)) {
    bytes.push(u8::from(value.is_some()));
    if let Some(value) = value {
        put(bytes, value);
    }
}

fn put_token(bytes: &mut Vec<u8>, token: &Token) {
    bytes.extend_from_slice(&token.instance);
    bytes.extend_from_slice(&token.sequence.to_le_bytes());
}

fn put_identity(bytes: &mut Vec<u8>, identity: &Identity) {
    bytes.extend_from_slice(&identity.device.to_le_bytes());
    bytes.extend_from_slice(&identity.inode.to_le_bytes());
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn number(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.array()?))
    }

    fn flag(&mut self) -> Option<bool> {
        match self.array()? {
            [0] => Some(false),
            [1] => Some(true),
            _ => None,
        }
    }

    fn path(&mut self) -> Option<Box<[u8]>> {
        let len = usize::try_from(self.number()?).ok().filter(|len| *len <= MAX_PATH_BYTES)?;
        Some(self.take(len)?.into())
    }

    fn token(&mut self) -> Option<Token> {
        Some(Token { instance: self.array()?, sequence: u64::from_le_bytes(self.array()?) })
    }

    fn identity(&mut self) -> Option<Identity> {
        Some(Identity { device: u64::from_le_bytes(self.array()?), inode: u64::from_le_bytes(self.array()?) })
    }

    fn option<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<Option<T>> {
        Some(if self.flag()? { Some(read(self)?) } else { None })
    }

    /// The list grows as it is read: a wrong count asks for no memory.
    fn list<T>(&mut self, read: impl Fn(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = self.number()?;
        let mut list = Vec::new();
        for _ in 0..count {
            list.push(read(self)?);
        }
        Some(list)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Box<[u8]> {
        text.as_bytes().into()
    }

    const TOKEN: Token = Token { instance: [7; 16], sequence: 1 << 40 };
    const IDENTITY: Identity = Identity { device: 3, inode: u64::MAX };

    #[test]
    fn messages_say_the_same_after_the_way() {
        for request in [
            Request::Changes { since: None, cookie: path("cookie-1") },
            Request::Changes { since: Some(TOKEN), cookie: path("") },
            Request::Watch(vec![
                Wanted { path: path(""), identity: Some(IDENTITY) },
                Wanted { path: path("a/b"), identity: None },
            ]),
            Request::Status,
            Request::Stop,
        ] {
            let mut wire = Vec::new();
            send(&mut wire, &request.encode()).expect("memory has room");
            let received = receive(&mut &wire[..], || true).expect("it is whole");
            assert_eq!(Request::decode(&received), Some(request));
        }
        for answer in [
            Answer::Changes { root: IDENTITY, now: TOKEN, changes: None },
            Answer::Changes {
                root: IDENTITY,
                now: TOKEN,
                changes: Some(vec![Change { path: path("a"), is_deep: true }]),
            },
            Answer::Watching { now: TOKEN, refused_count: 9 },
            Answer::Status { process: 1, folder_count: 2, is_limit_reached: true },
            Answer::Stopping,
        ] {
            let bytes = answer.encode();
            for end in 0..bytes.len() {
                assert_eq!(Answer::decode(&bytes[..end]), None, "cut to {end}");
            }
            assert_eq!(Answer::decode(&bytes), Some(answer));
        }
    }

    #[test]
    fn a_wrong_length_or_version_is_no_message() {
        let mut wire = Vec::new();
        send(&mut wire, &Request::Status.encode()).expect("memory has room");
        for (at, byte) in [(0, b'x'), (7, b'2'), (11, 0xff)] {
            let mut damaged = wire.clone();
            damaged[at] = byte;
            assert!(receive(&mut &damaged[..], || true).is_err(), "byte {at}");
        }
        assert!(receive(&mut &wire[..wire.len() - 1], || true).is_err());
        assert!(receive(&mut &wire[..], || false).is_err());
        assert_eq!(Request::decode(&[2, 0xff, 0xff, 0xff, 0xff]), None);
    }
}
