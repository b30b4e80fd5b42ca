//! Undoing compression of foreign bytes, within limits.

use std::io::{self, Read};

/// Memory that an xz decoder may use: the largest preset's dictionary is 64 MiB.
const XZ_MEMORY_BYTES: u64 = 128 << 20;
/// Windows of zstd up to 128 MiB are read, as `zstd -d` does without `--long`.
const ZSTD_WINDOW_LOG: u32 = 27;

/// How bytes are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the formats' own names")]
pub enum Compression {
    None,
    Gzip,
    Xz,
    Zstd,
}

impl Compression {
    /// Tells the compression by the first bytes; six are enough.
    #[must_use]
    pub fn detect(head: &[u8]) -> Self {
        match head {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            // Frames and skippable frames (RFC 8878, 3.1).
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::None,
        }
    }
}

/// Reads what `source` holds compressed, all its members or frames, and at most `limit_bytes` of it.
///
/// # Errors
///
/// When a decoder cannot be made for want of memory. Damage and too many bytes are errors of the reader.
pub fn decompress<'a>(
    source: impl Read + Send + 'a,
    compression: Compression,
    limit_bytes: u64,
) -> io::Result<Box<dyn Read + Send + 'a>> {
    let reader: Box<dyn Read + Send + 'a> = match compression {
        Compression::None => Box::new(source),
        Compression::Gzip => Box::new(flate2::read::MultiGzDecoder::new(source)),
        Compression::Xz => {
            let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY_BYTES, liblzma::stream::CONCATENATED)
                .map_err(io::Error::other)?;
            Box::new(liblzma::read::XzDecoder::new_stream(source, stream))
        }
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::new(source)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG)?;
            Box::new(decoder)
        }
    };
    Ok(Box::new(Limited { reader, left: limit_bytes, limit_bytes }))
}

struct Limited<R> {
    reader: R,
    left: u64,
    limit_bytes: u64,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.left = self.left.checked_sub(count as u64).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("holds more than {} bytes, the limit of its use here", self.limit_bytes),
            )
        })?;
        Ok(count)
    }
}
