//! Plans of archives of others: their bytes as they are, cut into groups.
//!
//! Compressed again, a planned archive gives the same uncompressed bytes, so its diffID stays; but for eStargz, which adds entries.

use std::error::Error;
use std::io::{self, BufReader, Read};

use cas_blob::Descriptor;

use crate::entries::Entries;
use crate::plan::Builder;
use crate::read::MAX_ENTRIES;
use crate::{LayerPlan, ReadTarError, ReadTarLimits, stargz};

/// What may follow the end of an archive and stay in memory.
const MAX_REST_BYTES: u64 = 1 << 20;
/// Headers of one entry, with those that extend it.
const MAX_ENTRY_HEADER_BYTES: usize = 16 << 20;
/// Headers and padding, all of which are in memory.
const MAX_HEADER_BYTES: u64 = 512 << 20;
const BUFFER_BYTES: usize = 64 << 10;

/// What becomes of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScanForm {
    /// Every byte stays.
    Whole,
    /// As eStargz has it: its landmark first, and no end; entries with names of its own go. The name is that of the bytes
    /// [`LANDMARK`](crate::LANDMARK).
    Stargz(Descriptor),
}

impl LayerPlan {
    /// Plans an archive of others. `keep` stores a content as it is in the archive and names it.
    ///
    /// # Errors
    ///
    /// [`ReadTarError`]
    pub fn scan<E: Error + 'static>(
        source: &mut dyn Read,
        limits: ReadTarLimits,
        form: ScanForm,
        keep: &mut dyn FnMut(&mut dyn Read) -> Result<Descriptor, E>,
    ) -> Result<Self, ReadTarError<E>> {
        let mut builder = Builder::default();
        if let ScanForm::Stargz(blob) = form {
            stargz::landmark(&mut builder, blob);
        }
        let recorder = Recorder { inner: BufReader::with_capacity(BUFFER_BYTES, source), raw: Vec::new() };
        let mut entries = Entries::new(recorder);
        let (mut count, mut left, mut header_bytes) = (0, limits.content_bytes, 0u64);
        let mut is_kept = true;
        let archive = ReadTarError::Archive;
        loop {
            entries.finish_entry().map_err(archive)?;
            let padding = std::mem::take(&mut entries.source().raw);
            if is_kept {
                builder.tail(&padding);
            }
            let Some(entry) = entries.next_entry().map_err(archive)? else { break };
            count += 1;
            if count > MAX_ENTRIES {
                return Err(ReadTarError::TooLarge { limit: MAX_ENTRIES, unit: "entries" });
            }
            let header = std::mem::take(&mut entries.source().raw);
            header_bytes += (header.len() + padding.len()) as u64;
            if header_bytes > MAX_HEADER_BYTES {
                return Err(ReadTarError::TooLarge { limit: MAX_HEADER_BYTES, unit: "bytes of headers" });
            }
            let name = clean(&entry.name);
            is_kept = form == ScanForm::Whole || !stargz::OWN_NAMES.iter().any(|own| own.as_bytes() == name);
            let size = entries.left();
            left = left
                .checked_sub(size)
                .ok_or(ReadTarError::TooLarge { limit: limits.content_bytes, unit: "bytes of content" })?;
            if !is_kept {
                let skipped =
                    io::copy(&mut (&mut entries.source().inner).take(size), &mut io::sink()).map_err(archive)?;
                if skipped != size {
                    return Err(archive(io::ErrorKind::UnexpectedEof.into()));
                }
                entries.took_rest();
                continue;
            }
            let content = match size {
                0 => None,
                size => {
                    let mut content = (&mut entries.source().inner).take(size);
                    let kept = keep(&mut content);
                    let blob = kept.map_err(|source| ReadTarError::Keep {
                        path: String::from_utf8_lossy(&entry.name).into_owned(),
                        source,
                    })?;
                    if blob.size != size || content.limit() > 0 {
                        return Err(archive(io::ErrorKind::UnexpectedEof.into()));
                    }
                    entries.took_rest();
                    Some(blob)
                }
            };
            builder.open(name, &header, content);
        }
        if form != ScanForm::Whole {
            builder.align();
        } else {
            let Recorder { inner, raw } = entries.source();
            builder.tail(raw);
            let mut rest = Vec::new();
            inner.take(MAX_REST_BYTES).read_to_end(&mut rest).map_err(archive)?;
            builder.tail(&rest);
            if rest.len() as u64 == MAX_REST_BYTES {
                let mut more = inner.take(limits.content_bytes + 1);
                let path = "what follows the end".to_owned();
                let blob = keep(&mut more).map_err(|source| ReadTarError::Keep { path, source })?;
                if blob.size > limits.content_bytes {
                    return Err(ReadTarError::TooLarge { limit: limits.content_bytes, unit: "bytes of content" });
                }
                if blob.size > 0 {
                    builder.rest(blob);
                }
            }
        }
        Ok(builder.finish())
    }
}

/// A name as trees have it, so that groups of equal archives are cut alike.
fn clean(name: &[u8]) -> &[u8] {
    let mut name = name;
    while let Some(rest) = name.strip_prefix(b"./").or_else(|| name.strip_prefix(b"/")) {
        name = rest;
    }
    while let Some(rest) = name.strip_suffix(b"/") {
        name = rest;
    }
    name
}

/// Keeps what is read of headers and padding.
struct Recorder<R> {
    inner: R,
    raw: Vec<u8>,
}

impl<R: Read> Read for Recorder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        if self.raw.len() + count > MAX_ENTRY_HEADER_BYTES {
            let said = format!("an entry has headers of more than {MAX_ENTRY_HEADER_BYTES} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, said));
        }
        self.raw.extend_from_slice(&buffer[..count]);
        Ok(count)
    }
}
