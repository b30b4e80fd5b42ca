//! Packs: many blobs one after the other, each with its names. Format: docs/formats/inputs.md.
//!
//! Nothing is compressed or compared here: whoever stores what comes compares it with its names.

use std::io::{self, BufRead, Read, Write};

use cas_blob::Descriptor;
use cas_digest::Digest;

/// What an artifact with the inputs of a build is.
pub const INPUTS_ARTIFACT_TYPE: &str = "application/vnd.cas.inputs.v1";
/// What its configuration is.
pub const INPUTS_CONFIG_MEDIA_TYPE: &str = "application/vnd.cas.inputs.config.v1+json";
/// What its layers are.
pub const PACK_MEDIA_TYPE: &str = "application/vnd.cas.blobs.v1+zstd";

const HEADER: &[u8] = b"cas blobs 1\n";
const MAX_LINE_BYTES: u64 = 1 << 10;

/// A blob of a pack by its names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PackEntry {
    /// Its name.
    pub blob: Descriptor,
    /// Further digests of it.
    pub digests: Vec<Digest>,
}

impl PackEntry {
    fn line(&self) -> String {
        let digests: String = self.digests.iter().map(|digest| format!(" {digest}")).collect();
        format!("{}{digests}\n", self.blob)
    }
}

/// How long the pack of some blobs is.
#[must_use]
pub fn pack_length(entries: &[PackEntry]) -> u64 {
    entries.iter().map(|entry| entry.line().len() as u64 + entry.blob.size).sum::<u64>() + HEADER.len() as u64
}

/// Writes a pack; `open` gives the bytes of each blob.
///
/// # Errors
///
/// What either side says; [`io::ErrorKind::InvalidData`] where a blob has another length.
pub fn write_pack<R: Read>(
    entries: &[PackEntry],
    mut open: impl FnMut(&Descriptor) -> io::Result<R>,
    sink: &mut dyn Write,
) -> io::Result<()> {
    sink.write_all(HEADER)?;
    for entry in entries {
        sink.write_all(entry.line().as_bytes())?;
        if io::copy(&mut open(&entry.blob)?, sink)? != entry.blob.size {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("`{}` has another length", entry.blob)));
        }
    }
    Ok(())
}

/// Reads a pack: `take` gets each blob with its names, and is to read it to its end.
///
/// # Errors
///
/// [`io::ErrorKind::InvalidData`] for what is no pack, and what `take` says.
pub fn read_pack<E: From<io::Error>>(
    source: &mut dyn BufRead,
    mut take: impl FnMut(&PackEntry, &mut dyn Read) -> Result<(), E>,
) -> Result<(), E> {
    let damaged = |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("it is no pack of blobs: {what}"));
    let mut header = Vec::new();
    source.take(HEADER.len() as u64).read_to_end(&mut header)?;
    if header != HEADER {
        return Err(damaged("it begins otherwise").into());
    }
    loop {
        let mut line = Vec::new();
        source.take(MAX_LINE_BYTES).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Ok(());
        }
        let text = line.strip_suffix(b"\n").and_then(|line| std::str::from_utf8(line).ok());
        let mut words = text.ok_or_else(|| damaged("a line has no end"))?.split(' ');
        let blob = words.next().and_then(|word| word.parse().ok()).ok_or_else(|| damaged("a name is none"))?;
        let digests: Result<Vec<Digest>, _> = words.map(str::parse).collect();
        let entry = PackEntry { blob, digests: digests.map_err(|_| damaged("a digest is none"))? };
        let mut content = source.take(blob.size);
        take(&entry, &mut content)?;
        if content.limit() > 0 {
            return Err(damaged("it ends within a blob").into());
        }
    }
}

#[cfg(test)]
mod tests {
    use cas_digest::DigestFunction;

    use super::*;

    fn entry(bytes: &[u8]) -> PackEntry {
        PackEntry {
            blob: Descriptor::of(DigestFunction::Blake3, bytes),
            digests: vec![Digest::of(DigestFunction::Sha256, bytes)],
        }
    }

    type Found = Vec<(PackEntry, Vec<u8>)>;

    fn read(mut bytes: &[u8]) -> io::Result<Found> {
        let mut found = Vec::new();
        read_pack(&mut bytes, |entry, content| {
            let mut bytes = Vec::new();
            content.read_to_end(&mut bytes)?;
            found.push((entry.clone(), bytes));
            Ok::<_, io::Error>(())
        })?;
        Ok(found)
    }

    #[test]
    fn what_is_written_is_read_and_nothing_else_is() {
        let contents: [&[u8]; 3] = [b"one", b"", b"two\nblake3:00/3\n"];
        let entries = contents.map(entry);
        let mut pack = Vec::new();
        let open = |blob: &Descriptor| {
            let found = contents.iter().find(|bytes| Descriptor::of(DigestFunction::Blake3, bytes) == *blob);
            found.copied().ok_or_else(|| io::ErrorKind::NotFound.into())
        };
        write_pack(&entries, open, &mut pack).expect("all is there");
        assert_eq!(pack.len() as u64, pack_length(&entries));
        let expected: Found = entries.iter().cloned().zip(contents.map(<[u8]>::to_vec)).collect();
        assert_eq!(read(&pack).expect("it was written"), expected);
        assert_eq!(read(HEADER).expect("it has nothing"), []);
        // Every beginning of it is damaged, but for one that ends between two blobs.
        let whole: Vec<u64> = (0..=entries.len()).map(|count| pack_length(&entries[..count])).collect();
        for length in 0..pack.len() {
            assert_eq!(read(&pack[..length]).is_ok(), whole.contains(&(length as u64)), "{length}");
        }
        for wrong in ["cas blobs 2\n", "cas blobs 1\nx\n", "cas blobs 1\nblake3:00/3\n", "cas blobs 1\n\n"] {
            assert!(read(wrong.as_bytes()).is_err(), "{wrong}");
        }
        let long = format!("cas blobs 1\n{}\n", "x".repeat(2000));
        assert!(read(long.as_bytes()).is_err());
    }
}
