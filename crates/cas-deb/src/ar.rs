//! The container of a `.deb`: an `ar` archive with the members that deb(5) prescribes.
//!
//! Read as a stream and in order, so that a package is never held in memory: `debian-binary`, `control.tar*`,
//! `data.tar*`, and members whose names begin with `_`, which are skipped. What follows `data.tar*` is not looked at, as
//! deb(5) asks. A member that ends early is an error of the reader, never a short file.
//!
//! Not here: taking the members apart; their compression is named, and decoders belong to the caller.

use std::io::{self, Read};

/// First bytes of every `ar` archive.
const MAGIC: &[u8; 8] = b"!<arch>\n";
/// Length of the header of a member.
const HEADER_BYTES: usize = 60;
/// Longest `debian-binary`: it holds a version like `2.0`, and lines to ignore may follow.
const MAX_VERSION_BYTES: u64 = 256;
/// Largest compressed control archive. Real ones have kilobytes; the limit only keeps a caller that buffers it safe.
const MAX_CONTROL_BYTES: u64 = 64 << 20;
/// Members before `data.tar*`: the two required ones, and room for those that deb(5) lets others add.
const MAX_MEMBERS: u32 = 16;

/// Why bytes are not a Debian package.
#[derive(Debug, thiserror::Error)]
pub enum DebError {
    /// The bytes do not begin as an `ar` archive does.
    #[error("not a Debian package: it does not begin with `!<arch>`")]
    NotAnArchive,
    /// A member's header is damaged.
    #[error("damaged header of member {member_index} at byte {offset}: {part}")]
    Header {
        /// Number of the member, from 0.
        member_index: u32,
        /// Where in the package the header begins.
        offset: u64,
        /// The part of the header that is wrong.
        part: HeaderPart,
    },
    /// The package ends inside of a member or its header.
    #[error("package ends at byte {offset}, inside of a member")]
    Truncated {
        /// How many bytes there were.
        offset: u64,
    },
    /// Members are missing, doubled, unknown or in another order than deb(5) prescribes.
    #[error("found member `{found}` where `{expected}` has to be")]
    Member {
        /// What deb(5) prescribes.
        expected: &'static str,
        /// What is there.
        found: String,
    },
    /// The package ends before a required member.
    #[error("package has no member `{expected}`")]
    Missing {
        /// The member.
        expected: &'static str,
    },
    /// `debian-binary` names another major version than 2, or none.
    #[error("package has format version `{found}`, not `2.x`")]
    Version {
        /// Its first line.
        found: String,
    },
    /// A member is larger than such a member may be.
    #[error("member `{member}` has {size} bytes, more than the {limit_bytes} allowed")]
    TooLarge {
        /// The member.
        member: String,
        /// What its header says.
        size: u64,
        /// The limit.
        limit_bytes: u64,
    },
    /// The source failed.
    #[error("could not read the package")]
    Read(#[source] io::Error),
}

/// What is wrong in a member's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderPart {
    /// The two bytes that end every header.
    End,
    /// The size is not a decimal number.
    Size,
    /// The name is empty or not ASCII.
    Name,
}

impl std::fmt::Display for HeaderPart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::End => "no end mark",
            Self::Size => "the size is not a number",
            Self::Name => "the name is empty or not ASCII",
        })
    }
}

/// Which of the two archives of a package a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberKind {
    /// `control.tar*`: the control file and maintainer scripts.
    Control,
    /// `data.tar*`: the files.
    Data,
}

/// How a member is compressed, by the ending of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// `.tar`
    None,
    /// `.tar.gz`
    Gzip,
    /// `.tar.xz`
    Xz,
    /// `.tar.zst`
    Zstd,
}

/// Reads the members of a package, in order.
#[derive(Debug)]
pub struct DebReader<R> {
    source: R,
    offset: u64,
    /// Bytes of the current member and its padding that were not read yet.
    remaining: u64,
    padding: u64,
    member_index: u32,
    expected: Option<MemberKind>,
}

/// The control or data archive of a package, still compressed.
#[derive(Debug)]
pub struct Member<'reader, R> {
    /// Which archive it is.
    pub kind: MemberKind,
    /// How it is compressed.
    pub compression: Compression,
    /// Number of bytes that it gives.
    pub size: u64,
    reader: &'reader mut DebReader<R>,
}

struct Header {
    name: String,
    size: u64,
}

impl<R: Read> DebReader<R> {
    /// Begins to read a package, as far as its format version.
    ///
    /// # Errors
    ///
    /// [`DebError`] when it is not a package of format 2.
    pub fn new(source: R) -> Result<Self, DebError> {
        let mut reader =
            Self { source, offset: 0, remaining: 0, padding: 0, member_index: 0, expected: Some(MemberKind::Control) };
        let mut magic = [0; MAGIC.len()];
        match reader.fill(&mut magic)? {
            count if count == MAGIC.len() && magic == *MAGIC => {}
            _ => return Err(DebError::NotAnArchive),
        }
        let expected = "debian-binary";
        let header = reader.header()?.ok_or(DebError::Missing { expected })?;
        if header.name != expected {
            return Err(DebError::Member { expected, found: header.name });
        }
        if header.size > MAX_VERSION_BYTES {
            return Err(DebError::TooLarge { member: header.name, size: header.size, limit_bytes: MAX_VERSION_BYTES });
        }
        let mut content = vec![0; usize::try_from(header.size).expect("at most 256")];
        if reader.fill(&mut content)? < content.len() {
            return Err(DebError::Truncated { offset: reader.offset });
        }
        reader.remaining = 0;
        let line = content.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let minor = line.strip_prefix(b"2.").unwrap_or_default();
        if minor.is_empty() || !minor.iter().all(u8::is_ascii_digit) {
            return Err(DebError::Version { found: String::from_utf8_lossy(line).into_owned() });
        }
        Ok(reader)
    }

    /// Goes to the next archive: first the control, then the data archive, then `None`.
    ///
    /// What was not read of the one before is skipped.
    ///
    /// # Errors
    ///
    /// [`DebError`] when the package is damaged, or lacks one of the two.
    pub fn next_member(&mut self) -> Result<Option<Member<'_, R>>, DebError> {
        let Some(kind) = self.expected else { return Ok(None) };
        let expected = match kind {
            MemberKind::Control => "control.tar",
            MemberKind::Data => "data.tar",
        };
        let (header, compression) = loop {
            self.skip_rest()?;
            let header = self.header()?.ok_or(DebError::Missing { expected })?;
            if header.name.starts_with('_') && self.member_index <= MAX_MEMBERS {
                continue;
            }
            let compression = header.name.strip_prefix(expected).and_then(|ending| match ending {
                "" => Some(Compression::None),
                ".gz" => Some(Compression::Gzip),
                ".xz" => Some(Compression::Xz),
                ".zst" => Some(Compression::Zstd),
                _ => None,
            });
            match compression {
                Some(compression) => break (header, compression),
                None => return Err(DebError::Member { expected, found: header.name }),
            }
        };
        if kind == MemberKind::Control && header.size > MAX_CONTROL_BYTES {
            return Err(DebError::TooLarge { member: header.name, size: header.size, limit_bytes: MAX_CONTROL_BYTES });
        }
        self.expected = match kind {
            MemberKind::Control => Some(MemberKind::Data),
            MemberKind::Data => None,
        };
        Ok(Some(Member { kind, compression, size: header.size, reader: self }))
    }

    /// Reads a header; `None` where the package ends before one.
    fn header(&mut self) -> Result<Option<Header>, DebError> {
        let offset = self.offset;
        let mut header = [0; HEADER_BYTES];
        match self.fill(&mut header)? {
            0 => return Ok(None),
            HEADER_BYTES => {}
            _ => return Err(DebError::Truncated { offset: self.offset }),
        }
        let damaged = |part| DebError::Header { member_index: self.member_index, offset, part };
        if &header[58..] != b"`\n" {
            return Err(damaged(HeaderPart::End));
        }
        let size = header[48..58].trim_ascii_end();
        if size.is_empty() || !size.iter().all(u8::is_ascii_digit) {
            return Err(damaged(HeaderPart::Size));
        }
        let size = size.iter().fold(0, |size: u64, digit| size * 10 + u64::from(digit - b'0'));
        // System V `ar` ends names with a slash, deb(5) allows both forms.
        let name = header[..16].trim_ascii_end();
        let name = name.strip_suffix(b"/").unwrap_or(name);
        if name.is_empty() || !name.iter().all(u8::is_ascii_graphic) {
            return Err(damaged(HeaderPart::Name));
        }
        self.member_index += 1;
        self.remaining = size;
        self.padding = size % 2;
        Ok(Some(Header { name: String::from_utf8_lossy(name).into_owned(), size }))
    }

    /// Skips what is left of the current member, and its padding.
    fn skip_rest(&mut self) -> Result<(), DebError> {
        let count = self.remaining + self.padding;
        let skipped = io::copy(&mut self.source.by_ref().take(count), &mut io::sink()).map_err(DebError::Read)?;
        self.offset += skipped;
        if skipped < count {
            return Err(DebError::Truncated { offset: self.offset });
        }
        (self.remaining, self.padding) = (0, 0);
        Ok(())
    }

    /// Reads until the buffer is full or the source ends.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, DebError> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.source.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(DebError::Read(error)),
            }
        }
        self.offset += filled as u64;
        Ok(filled)
    }
}

impl<R: Read> Read for Member<'_, R> {
    /// Reads compressed bytes; a package that ends early is [`io::ErrorKind::UnexpectedEof`].
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let reader = &mut *self.reader;
        let limit = usize::try_from(reader.remaining).unwrap_or(usize::MAX).min(buffer.len());
        if limit == 0 {
            return Ok(0);
        }
        let count = reader.source.read(&mut buffer[..limit])?;
        if count == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, DebError::Truncated { offset: reader.offset }));
        }
        reader.remaining -= count as u64;
        reader.offset += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, content: &[u8]) -> Vec<u8> {
        let mut bytes =
            format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 100_644, content.len()).into_bytes();
        bytes.extend_from_slice(content);
        if content.len() % 2 == 1 {
            bytes.push(b'\n');
        }
        bytes
    }

    fn deb(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        for (name, content) in members {
            bytes.extend(member(name, content));
        }
        bytes
    }

    /// Names, compressions and contents of what a reader gives; the error in its words.
    fn read(bytes: &[u8]) -> Result<Vec<(MemberKind, Compression, Vec<u8>)>, String> {
        let mut found = Vec::new();
        let mut reader = DebReader::new(bytes).map_err(|error| error.to_string())?;
        while let Some(mut member) = reader.next_member().map_err(|error| error.to_string())? {
            let mut content = Vec::new();
            member.read_to_end(&mut content).map_err(|error| error.to_string())?;
            assert_eq!(content.len() as u64, member.size);
            found.push((member.kind, member.compression, content));
        }
        Ok(found)
    }

    const VERSION: (&str, &[u8]) = ("debian-binary", b"2.0\n");

    #[test]
    fn the_two_archives_are_given_in_order() {
        let bytes = deb(&[
            VERSION,
            ("_gpgorigin", b"signature"),
            ("control.tar.zst/", b"odd"),
            ("data.tar", b"files"),
            ("anything", b"is ignored here"),
        ]);
        assert_eq!(
            read(&bytes),
            Ok(vec![
                (MemberKind::Control, Compression::Zstd, b"odd".to_vec()),
                (MemberKind::Data, Compression::None, b"files".to_vec()),
            ])
        );
    }

    #[test]
    fn a_member_that_was_not_read_is_skipped() {
        let bytes = deb(&[VERSION, ("control.tar.gz", &[7; 1001]), ("data.tar.xz", b"files")]);
        let mut reader = DebReader::new(&bytes[..]).expect("it is a package");
        reader.next_member().expect("whole").expect("there");
        let mut data = reader.next_member().expect("whole").expect("there");
        let mut content = String::new();
        data.read_to_string(&mut content).expect("whole");
        assert_eq!((data.kind, data.compression, content.as_str()), (MemberKind::Data, Compression::Xz, "files"));
        assert!(reader.next_member().expect("nothing follows").is_none());
    }

    #[test]
    fn damage_is_named() {
        let good = deb(&[VERSION, ("control.tar.xz", b"control"), ("data.tar.xz", b"files")]);
        let changed = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            bytes
        };
        for (bytes, message) in [
            (Vec::new(), "not a Debian package: it does not begin with `!<arch>`"),
            (b"PK\x03\x04 a zip file".to_vec(), "not a Debian package: it does not begin with `!<arch>`"),
            (deb(&[]), "package has no member `debian-binary`"),
            (deb(&[("control.tar", b"")]), "found member `control.tar` where `debian-binary` has to be"),
            (deb(&[("debian-binary", b"3.0\n")]), "package has format version `3.0`, not `2.x`"),
            (deb(&[("debian-binary", b"")]), "package has format version ``, not `2.x`"),
            (
                deb(&[("debian-binary", &[b'2'; 300])]),
                "member `debian-binary` has 300 bytes, more than the 256 allowed",
            ),
            (deb(&[VERSION]), "package has no member `control.tar`"),
            (deb(&[VERSION, ("data.tar", b"")]), "found member `data.tar` where `control.tar` has to be"),
            (deb(&[VERSION, ("control.tar", b"")]), "package has no member `data.tar`"),
            (
                deb(&[VERSION, ("control.tar", b""), ("control.tar", b"")]),
                "found member `control.tar` where `data.tar` has to be",
            ),
            (
                deb(&[VERSION, ("control.tar.lzma", b"")]),
                "found member `control.tar.lzma` where `control.tar` has to be",
            ),
            (changed(8 + 58, b'x'), "damaged header of member 0 at byte 8: no end mark"),
            (changed(8 + 48, b'-'), "damaged header of member 0 at byte 8: the size is not a number"),
            (changed(8 + 49, b'9'), "damaged header of member 1 at byte 118: no end mark"),
            (changed(8, b' '), "damaged header of member 0 at byte 8: the name is empty or not ASCII"),
            (good[..good.len() - 3].to_vec(), "package ends at byte 203, inside of a member"),
            (good[..80].to_vec(), "package ends at byte 80, inside of a member"),
        ] {
            assert_eq!(read(&bytes), Err(message.to_owned()), "{:?}", String::from_utf8_lossy(&bytes));
        }
    }
}
