//! Groups whose files can be read one by one: frames that begin at files and at chunks of long ones.
//!
//! zstd:chunked ends a frame before and behind each chunk, eStargz begins a gzip member at each. What a reader needs to know of a
//! group is its [`ContentIndex`]es, which are kept beside its bytes. Not here: tables of contents (`chunked`, `stargz`).

use std::io::{self, Read, Write};
use std::sync::OnceLock;

use cas_blob::OpenBlob;
use cas_digest::{Digest, DigestFunction, Sha256};
use flate2::{Compress, Compression, FlushCompress};

use crate::codec::deflate;
use crate::{FrameSummary, Group, Piece};

/// Files up to this size are one chunk of zstd:chunked; it is the shortest one of longer files, but for the last.
const MIN_CHUNK_BYTES: usize = 1 << 20;
/// Longest chunk.
const MAX_CHUNK_BYTES: usize = 4 << 20;
/// A chunk ends where these bits of the rolling sum are zero: one position in a million.
const CHUNK_MASK: u64 = 0xf_ffff << 44;
/// Bytes that the rolling sum depends on: each shifts it by one bit.
const WINDOW_BYTES: usize = 64;
/// How much a frame of zstd:chunked is compressed, and one of up to [`SHORT_BYTES`].
const LEVEL: i32 = 3;
const SHORT_LEVEL: i32 = 6;
/// Frames up to this size are most of all files and few of all bytes: more work for them is little work.
const SHORT_BYTES: usize = 16 << 10;
/// gzip's header without a name and a time (RFC 1952, 2.3).
const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
/// CRC-64 as Go's `hash/crc64` has it for `ISO`.
const CRC64: crc::Crc<u64, crc::Table<16>> = crc::Crc::<u64, crc::Table<16>>::new(&crc::CRC_64_GO_ISO);

/// How frames of a group begin and end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seekable {
    /// Frames of zstd: one for what stands before a chunk, one for the chunk.
    Zstd,
    /// Members of gzip: one from each chunk to the next one.
    Gzip,
}

/// Where the content of a file is in the bytes of its group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContentIndex {
    /// SHA-256 of the content.
    pub sha256: Digest,
    /// CRC-64 of the content, with the polynomial of ISO 3309.
    pub crc64: u64,
    /// In order; at least one.
    pub chunks: Vec<ChunkIndex>,
}

/// Part of a content that can be read by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkIndex {
    /// Its bytes when they are not compressed.
    pub size: u64,
    /// Where its frame begins, from the group's first byte.
    pub start: u64,
    /// Where its last frame ends.
    pub end: u64,
    /// SHA-256 of it.
    pub sha256: Digest,
}

impl ContentIndex {
    /// Length of the content.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.chunks.iter().map(|chunk| chunk.size).sum()
    }

    /// The text that keeps the contents of a group.
    #[must_use]
    pub fn encode(contents: &[Self]) -> Vec<u8> {
        let mut text = String::from("cas-contents 1\n");
        for content in contents {
            text.push_str(&format!("content {} {:016x}\n", content.sha256.to_hex(), content.crc64));
            for ChunkIndex { size, start, end, sha256 } in &content.chunks {
                text.push_str(&format!("chunk {size} {start} {end} {}\n", sha256.to_hex()));
            }
        }
        text.into_bytes()
    }

    /// Reads what [`ContentIndex::encode`] wrote; `None` for anything else.
    #[must_use]
    pub fn decode(text: &[u8]) -> Option<Vec<Self>> {
        let mut lines = std::str::from_utf8(text).ok()?.strip_suffix('\n')?.split('\n');
        (lines.next()? == "cas-contents 1").then_some(())?;
        let digest = |hex: &str| format!("sha256:{hex}").parse().ok();
        let mut contents: Vec<Self> = Vec::new();
        for line in lines {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["content", sha256, crc64] => {
                    let crc64 = u64::from_str_radix(crc64, 16).ok()?;
                    contents.push(Self { sha256: digest(sha256)?, crc64, chunks: Vec::new() });
                }
                ["chunk", size, start, end, sha256] => {
                    let (start, end): (u64, u64) = (start.parse().ok()?, end.parse().ok()?);
                    (start < end).then_some(())?;
                    let chunk = ChunkIndex { size: size.parse().ok()?, start, end, sha256: digest(sha256)? };
                    contents.last_mut()?.chunks.push(chunk);
                }
                _ => return None,
            }
        }
        contents.iter().all(|content| !content.chunks.is_empty()).then_some(contents)
    }
}

/// Writes the frames of a group.
pub(crate) fn encode<W: Write>(
    seekable: Seekable,
    group: &Group,
    place: &dyn OpenBlob,
    sink: W,
) -> io::Result<(W, FrameSummary, Vec<ContentIndex>)> {
    let mut frames = Frames::new(seekable, sink)?;
    let (mut contents, mut buffer) = (Vec::new(), Vec::new());
    for piece in group.pieces() {
        let blob = match piece {
            Piece::Bytes(bytes) => {
                frames.add(bytes)?;
                continue;
            }
            Piece::Content(blob) => blob,
        };
        let content = place.open_blob(blob).map_err(|error| io::Error::new(io::ErrorKind::NotFound, error))?;
        let mut content = content.take(blob.size + 1);
        let (mut whole, mut crc64, mut size) = (Sha256::new(), CRC64.digest(), 0);
        let mut chunks: Vec<ChunkIndex> = Vec::new();
        buffer.clear();
        loop {
            let wanted = MAX_CHUNK_BYTES - buffer.len();
            (&mut content).take(wanted as u64).read_to_end(&mut buffer)?;
            if buffer.is_empty() {
                break;
            }
            let length = match seekable {
                Seekable::Zstd => cut(&buffer, blob.size),
                Seekable::Gzip => buffer.len(),
            };
            let chunk = &buffer[..length];
            crc64.update(chunk);
            let sha256 = Digest::of(DigestFunction::Sha256, chunk);
            if (length as u64) < blob.size {
                whole.update(chunk);
            }
            let (start, end) = frames.chunk(chunk)?;
            chunks.push(ChunkIndex { size: length as u64, start, end, sha256 });
            size += length as u64;
            buffer.drain(..length);
        }
        if size != blob.size || chunks.is_empty() {
            return Err(io::Error::other(format!("content `{blob}` has another length")));
        }
        let sha256 = if chunks.len() == 1 { chunks[0].sha256 } else { whole.finish() };
        contents.push((sha256, crc64.finalize(), chunks));
    }
    let (sink, summary) = frames.finish()?;
    let contents = contents.into_iter().map(|(sha256, crc64, chunks)| ContentIndex { sha256, crc64, chunks });
    Ok((sink, summary, contents.collect()))
}

/// Where the first chunk of what is left of a content ends: behind the byte at which the rolling sum says so, or at the longest one.
fn cut(bytes: &[u8], content_size: u64) -> usize {
    if content_size <= MIN_CHUNK_BYTES as u64 || bytes.len() <= MIN_CHUNK_BYTES {
        return bytes.len();
    }
    let table = rolling_table();
    let mut sum = 0u64;
    for byte in &bytes[MIN_CHUNK_BYTES - WINDOW_BYTES..MIN_CHUNK_BYTES] {
        sum = (sum << 1).wrapping_add(table[usize::from(*byte)]);
    }
    for (at, byte) in bytes.iter().enumerate().skip(MIN_CHUNK_BYTES) {
        if sum & CHUNK_MASK == 0 {
            return at;
        }
        sum = (sum << 1).wrapping_add(table[usize::from(*byte)]);
    }
    bytes.len()
}

/// A number for each byte: the first eight of the BLAKE3 digest of that byte, little-endian.
fn rolling_table() -> &'static [u64; 256] {
    static TABLE: OnceLock<[u64; 256]> = OnceLock::new();
    TABLE.get_or_init(|| {
        std::array::from_fn(|byte| {
            let byte = u8::try_from(byte).expect("there are 256");
            let digest = Digest::of(DigestFunction::Blake3, &[byte]);
            u64::from_le_bytes(digest.value()[..8].try_into().expect("it has 32 bytes"))
        })
    })
}

/// Writes frames one after another.
struct Frames<W: Write> {
    encoder: FrameEncoder,
    sink: W,
    written: u64,
    crc: crc32fast::Hasher,
    length: u64,
}

enum FrameEncoder {
    Zstd(Box<zstd::bulk::Compressor<'static>>),
    Gzip(Box<Member>),
}

/// A member of gzip that may be open.
struct Member {
    state: Compress,
    crc: crc32fast::Hasher,
    length: u64,
    is_open: bool,
}

impl<W: Write> Frames<W> {
    fn new(seekable: Seekable, sink: W) -> io::Result<Self> {
        let encoder = match seekable {
            Seekable::Zstd => {
                let mut encoder = zstd::bulk::Compressor::new(LEVEL)?;
                // Digests are of contents and of the whole; those who read single files compare them.
                encoder.include_checksum(false)?;
                encoder.include_contentsize(true)?;
                FrameEncoder::Zstd(Box::new(encoder))
            }
            Seekable::Gzip => {
                let state = Compress::new(Compression::new(6), false);
                let crc = crc32fast::Hasher::new();
                FrameEncoder::Gzip(Box::new(Member { state, crc, length: 0, is_open: false }))
            }
        };
        Ok(Self { encoder, sink, written: 0, crc: crc32fast::Hasher::new(), length: 0 })
    }

    /// A chunk: where its frame begins, and where the bytes end that hold it.
    fn chunk(&mut self, bytes: &[u8]) -> io::Result<(u64, u64)> {
        self.end_member()?;
        let start = self.written;
        self.add(bytes)?;
        // A member goes on with what follows; its header alone makes the end come after the start.
        Ok((start, self.written))
    }

    /// Adds to the frame that is open, or begins one.
    fn add(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.crc.update(bytes);
        self.length += bytes.len() as u64;
        let Self { encoder, sink, written, .. } = self;
        match encoder {
            FrameEncoder::Zstd(encoder) => {
                encoder.set_compression_level(if bytes.len() <= SHORT_BYTES { SHORT_LEVEL } else { LEVEL })?;
                let frame = encoder.compress(bytes)?;
                sink.write_all(&frame)?;
                *written += frame.len() as u64;
                Ok(())
            }
            FrameEncoder::Gzip(member) => {
                let mut sink = Counted { sink, written };
                if !member.is_open {
                    sink.write_all(&GZIP_HEADER)?;
                    member.is_open = true;
                }
                member.crc.update(bytes);
                member.length += bytes.len() as u64;
                deflate(&mut member.state, bytes, FlushCompress::None, &mut sink)
            }
        }
    }

    fn end_member(&mut self) -> io::Result<()> {
        let Self { encoder, sink, written, .. } = self;
        match encoder {
            FrameEncoder::Gzip(member) if member.is_open => member.end(&mut Counted { sink, written }),
            _ => Ok(()),
        }
    }

    fn finish(mut self) -> io::Result<(W, FrameSummary)> {
        self.end_member()?;
        Ok((self.sink, FrameSummary { length: self.length, crc32: self.crc.finalize() }))
    }
}

impl Member {
    fn end(&mut self, sink: &mut dyn Write) -> io::Result<()> {
        deflate(&mut self.state, &[], FlushCompress::Finish, sink)?;
        let low = u32::try_from(self.length & u64::from(u32::MAX)).expect("it is masked");
        let crc = std::mem::take(&mut self.crc);
        sink.write_all(&crc.finalize().to_le_bytes())?;
        sink.write_all(&low.to_le_bytes())?;
        self.state.reset();
        (self.length, self.is_open) = (0, false);
        Ok(())
    }
}

/// One member of gzip that holds what `write` writes.
pub(crate) fn gzip_member(
    sink: &mut dyn Write,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    struct Open<'a>(Member, &'a mut dyn Write);
    impl Write for Open<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.crc.update(bytes);
            self.0.length += bytes.len() as u64;
            deflate(&mut self.0.state, bytes, FlushCompress::None, self.1)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    sink.write_all(&GZIP_HEADER)?;
    let state = Compress::new(Compression::new(6), false);
    let mut open = Open(Member { state, crc: crc32fast::Hasher::new(), length: 0, is_open: true }, sink);
    write(&mut open)?;
    open.0.end(open.1)
}

struct Counted<'a, W> {
    sink: &'a mut W,
    written: &'a mut u64,
}

impl<W: Write> Write for Counted<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.sink.write(bytes)?;
        *self.written += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is cut depends on the bytes around alone: after an insertion the old chunks come again.
    #[test]
    fn chunks_find_their_borders_again() {
        let mut state = 1u32;
        let bytes: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        })
        .take(24 << 20)
        .collect();
        let chunks = |mut bytes: &[u8]| {
            let mut found = Vec::new();
            while !bytes.is_empty() {
                let length = cut(&bytes[..bytes.len().min(MAX_CHUNK_BYTES)], 24 << 20);
                found.push(Digest::of(DigestFunction::Blake3, &bytes[..length]));
                bytes = &bytes[length..];
            }
            found
        };
        let before = chunks(&bytes);
        let mut changed = bytes.clone();
        changed.splice(5 << 20..5 << 20, *b"inserted");
        let after = chunks(&changed);
        let kept = after.iter().filter(|chunk| before.contains(chunk)).count();
        assert!(before.len() > 8, "{} chunks", before.len());
        assert!(kept + 3 >= before.len(), "{kept} of {}", before.len());
    }

    #[test]
    fn short_frames_get_more_effort_and_none_has_a_checksum() {
        let text: Vec<u8> =
            (0u32..).flat_map(|number| format!("{} ", number * number % 991).into_bytes()).take(99_999).collect();
        for (length, level) in [(1, SHORT_LEVEL), (SHORT_BYTES, SHORT_LEVEL), (SHORT_BYTES + 1, LEVEL), (99_999, LEVEL)]
        {
            let mut frames = Frames::new(Seekable::Zstd, Vec::new()).expect("there is memory");
            // What was compressed before it has no part in a frame.
            frames.add(b"first").expect("it is in memory");
            let (start, end) = frames.chunk(&text[..length]).expect("it is in memory");
            let (bytes, _) = frames.finish().expect("it is in memory");
            let frame =
                &bytes[usize::try_from(start).expect("it is short")..usize::try_from(end).expect("it is short")];
            assert_eq!(frame, zstd::bulk::compress(&text[..length], level).expect("there is memory"), "{length}");
            // RFC 8878, 3.1.1.1.1: the flag of a checksum.
            assert_eq!(frame[4] & 4, 0, "{length}");
        }
    }

    #[test]
    fn kept_contents_are_read_as_they_were_written() {
        let digest = |text: &str| Digest::of(DigestFunction::Sha256, text.as_bytes());
        let chunk = |start| ChunkIndex { size: 7, start, end: start + 5, sha256: digest("c") };
        let contents = vec![
            ContentIndex { sha256: digest("a"), crc64: 1, chunks: vec![chunk(0)] },
            ContentIndex { sha256: digest("b"), crc64: u64::MAX, chunks: vec![chunk(10), chunk(15)] },
        ];
        let text = ContentIndex::encode(&contents);
        assert_eq!(ContentIndex::decode(&text), Some(contents));
        assert_eq!(ContentIndex::decode(&ContentIndex::encode(&[])), Some(Vec::new()));
        assert_eq!(ContentIndex::decode(&text[..text.len() - 1]), None);
        assert_eq!(ContentIndex::decode(b"cas-contents 1\nchunk 1 0 1 00\n"), None);
        assert_eq!(ContentIndex::decode(b"cas-contents 1\ncontent 00 00\n"), None);
    }
}
