//! Codecs: a frame per group, and what stands before and after the frames.
//!
//! The bytes are a contract (docs/formats/layer.md, Codecs): a frame depends on its group and the codec's id alone. The
//! encoders' crates are pinned exactly, and golden digests in the tests fail when one changes its output.

use std::io::{self, Write};

use cas_blob::OpenBlob;
use flate2::{Compress, Compression, FlushCompress, Status};

use crate::seekable::{self, Seekable};
use crate::{ContentIndex, Group, copy_pieces};

/// How an archive is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// Not at all.
    Identity,
    /// Layers for every client there is.
    Gzip6,
    /// npm tarballs.
    Gzip9,
    /// Layers: smaller, and faster in both directions.
    Zstd3,
    /// zstd:chunked: podman and CRI-O fetch single files of it.
    ZstdChunked3,
    /// eStargz: containerd's snapshotter fetches single files of it.
    Stargz6,
}

/// What the trailer of an archive needs to know of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameSummary {
    /// Uncompressed length in bytes.
    pub length: u64,
    /// CRC-32 of the uncompressed bytes.
    pub crc32: u32,
}

/// Room for one step of the deflate encoder.
const BUFFER_BYTES: usize = 64 << 10;

impl Codec {
    const ALL: [Self; 6] = [Self::Identity, Self::Gzip6, Self::Gzip9, Self::Zstd3, Self::ZstdChunked3, Self::Stargz6];

    /// The codec's id: which encoder in which version, level and layout made the bytes.
    #[must_use]
    pub const fn id(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Gzip6 => "gzip/zlib-rs-0.6.8/6/flush-v1",
            Self::Gzip9 => "gzip/zlib-rs-0.6.8/9/flush-v1",
            Self::Zstd3 => "zstd/1.5.7/3/frames-v1",
            Self::ZstdChunked3 => "zstd-chunked/1.5.7/3/chunks-v2",
            Self::Stargz6 => "estargz/zlib-rs-0.6.8/6/chunks-v1",
        }
    }

    /// The codec with this id.
    #[must_use]
    pub fn from_id(id: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|codec| codec.id() == id)
    }

    /// What stands before the first frame.
    #[must_use]
    pub const fn header(self) -> &'static [u8] {
        match self {
            Self::Identity | Self::Zstd3 | Self::ZstdChunked3 | Self::Stargz6 => &[],
            Self::Gzip6 => &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255],
            Self::Gzip9 => &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 2, 255],
        }
    }

    /// What stands after the last frame.
    #[must_use]
    pub fn trailer(self, frames: &[FrameSummary]) -> Vec<u8> {
        match self {
            Self::Identity | Self::Zstd3 | Self::ZstdChunked3 | Self::Stargz6 => Vec::new(),
            Self::Gzip6 | Self::Gzip9 => {
                let mut crc = crc32fast::Hasher::new();
                let mut length = 0u64;
                for frame in frames {
                    crc.combine(&crc32fast::Hasher::new_with_initial_len(frame.crc32, frame.length));
                    length = length.wrapping_add(frame.length);
                }
                // The final block, empty, with fixed codes; then the member's trailer (RFC 1952, 2.3.1).
                let mut bytes = vec![0x03, 0x00];
                bytes.extend_from_slice(&crc.finalize().to_le_bytes());
                let low = u32::try_from(length & u64::from(u32::MAX)).expect("it is masked");
                bytes.extend_from_slice(&low.to_le_bytes());
                bytes
            }
        }
    }

    /// Whether layers have a table of contents, and contents of groups an index.
    #[must_use]
    pub const fn has_contents(self) -> bool {
        self.seekable().is_some()
    }

    const fn seekable(self) -> Option<Seekable> {
        match self {
            Self::ZstdChunked3 => Some(Seekable::Zstd),
            Self::Stargz6 => Some(Seekable::Gzip),
            Self::Identity | Self::Gzip6 | Self::Gzip9 | Self::Zstd3 => None,
        }
    }

    /// Writes the compressed bytes of a group, with contents from `place`.
    ///
    /// # Errors
    ///
    /// As [`copy_pieces`], and what the encoder says.
    pub fn encode<W: Write>(self, group: &Group, place: &dyn OpenBlob, sink: W) -> io::Result<(W, Encoded)> {
        if let Some(seekable) = self.seekable() {
            let (sink, summary, contents) = seekable::encode(seekable, group, place, sink)?;
            return Ok((sink, Encoded { summary, contents }));
        }
        let mut encoder = self.encoder(sink, group.size())?;
        copy_pieces(group.pieces(), place, &mut encoder)?;
        let (sink, summary) = encoder.finish()?;
        Ok((sink, Encoded { summary, contents: Vec::new() }))
    }

    /// Starts a frame of exactly `length` uncompressed bytes.
    ///
    /// # Errors
    ///
    /// When the encoder cannot be made for want of memory; and for a codec that needs to know where contents begin.
    pub fn encoder<W: Write>(self, sink: W, length: u64) -> io::Result<Encoder<W>> {
        let inner = match self {
            Self::Identity => Inner::Identity(sink),
            Self::Gzip6 => Inner::deflate(sink, 6),
            Self::Gzip9 => Inner::deflate(sink, 9),
            Self::Zstd3 => {
                let mut encoder = zstd::stream::write::Encoder::new(sink, 3)?;
                encoder.include_checksum(true)?;
                encoder.include_contentsize(true)?;
                encoder.set_pledged_src_size(Some(length))?;
                Inner::Zstd(encoder)
            }
            Self::ZstdChunked3 | Self::Stargz6 => {
                return Err(io::Error::other(format!("`{}` compresses groups alone", self.id())));
            }
        };
        Ok(Encoder { inner, crc: crc32fast::Hasher::new(), expected: length, length: 0 })
    }
}

/// A group that was compressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// What the trailer needs of it.
    pub summary: FrameSummary,
    /// Where its contents are, for a codec that has a table of them.
    pub contents: Vec<ContentIndex>,
}

/// Compresses a frame. [`Encoder::finish`] must be called.
pub struct Encoder<W: Write> {
    inner: Inner<W>,
    crc: crc32fast::Hasher,
    expected: u64,
    length: u64,
}

enum Inner<W: Write> {
    Identity(W),
    Deflate(Box<Deflate<W>>),
    Zstd(zstd::stream::write::Encoder<'static, W>),
}

struct Deflate<W> {
    sink: W,
    state: Compress,
}

impl<W: Write> Inner<W> {
    fn deflate(sink: W, level: u32) -> Self {
        let state = Compress::new(Compression::new(level), false);
        Self::Deflate(Box::new(Deflate { sink, state }))
    }
}

/// Gives bytes to an encoder, and what comes out to `sink`.
pub(crate) fn deflate(
    state: &mut Compress,
    mut input: &[u8],
    flush: FlushCompress,
    sink: &mut dyn Write,
) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(BUFFER_BYTES);
    loop {
        let before = state.total_in();
        buffer.clear();
        let status = state.compress_vec(input, &mut buffer, flush).map_err(io::Error::other)?;
        let taken = usize::try_from(state.total_in() - before).expect("it is part of a slice");
        input = &input[taken..];
        sink.write_all(&buffer)?;
        let is_done = match flush {
            FlushCompress::Finish => status == Status::StreamEnd,
            // A full buffer says that more is to come, also with nothing left to take in.
            _ => input.is_empty() && buffer.len() < buffer.capacity(),
        };
        if is_done || (taken == 0 && buffer.is_empty()) {
            return Ok(());
        }
    }
}

impl<W: Write> Encoder<W> {
    /// Ends the frame and gives back the sink.
    ///
    /// # Errors
    ///
    /// When writing fails, or the frame did not get the announced number of bytes.
    pub fn finish(self) -> io::Result<(W, FrameSummary)> {
        if self.length != self.expected {
            return Err(io::Error::other(format!("frame of {} bytes got {}", self.expected, self.length)));
        }
        let sink = match self.inner {
            Inner::Identity(sink) => sink,
            Inner::Deflate(mut deflate) => {
                // A full flush ends on a byte and forgets what was before, so that frames can stand side by side.
                self::deflate(&mut deflate.state, &[], FlushCompress::Full, &mut deflate.sink)?;
                deflate.sink
            }
            Inner::Zstd(encoder) => encoder.finish()?,
        };
        Ok((sink, FrameSummary { length: self.length, crc32: self.crc.finalize() }))
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.inner {
            Inner::Identity(sink) => sink.write_all(bytes)?,
            Inner::Deflate(deflate) => {
                let Deflate { sink, state } = &mut **deflate;
                self::deflate(state, bytes, FlushCompress::None, sink)?;
            }
            Inner::Zstd(encoder) => encoder.write_all(bytes)?,
        }
        self.crc.update(bytes);
        self.length += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<W: Write> std::fmt::Debug for Encoder<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder")
            .field("expected", &self.expected)
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}
