//! Groups of entries, and the bytes that they stand for.

use std::io::{self, Read, Write};

use cas_blob::{Descriptor, OpenBlob};
use cas_digest::{Digest, DigestFunction, Hasher};

/// Part of an archive's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Headers and padding.
    Bytes(Vec<u8>),
    /// The content of a file.
    Content(Descriptor),
}

/// Whole entries of an archive that share a frame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    pieces: Vec<Piece>,
    size: u64,
}

impl Group {
    /// What the group holds, in order.
    #[must_use]
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// Uncompressed length in bytes.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Name of what the group holds: equal keys, equal bytes.
    #[must_use]
    pub fn key(&self) -> Digest {
        let mut hasher = Hasher::new(DigestFunction::Blake3);
        for piece in &self.pieces {
            match piece {
                Piece::Bytes(bytes) => {
                    hasher.update(&[0]);
                    hasher.update(&(bytes.len() as u64).to_le_bytes());
                    hasher.update(bytes);
                }
                Piece::Content(blob) => {
                    let text = blob.to_string();
                    hasher.update(&[1]);
                    hasher.update(&(text.len() as u64).to_le_bytes());
                    hasher.update(text.as_bytes());
                }
            }
        }
        hasher.finish()
    }

    pub(crate) fn push_bytes(&mut self, bytes: &[u8]) {
        self.size += bytes.len() as u64;
        match self.pieces.last_mut() {
            Some(Piece::Bytes(last)) => last.extend_from_slice(bytes),
            _ if bytes.is_empty() => {}
            _ => self.pieces.push(Piece::Bytes(bytes.to_vec())),
        }
    }

    pub(crate) fn push_content(&mut self, blob: Descriptor) {
        if blob.size > 0 {
            self.size += blob.size;
            self.pieces.push(Piece::Content(blob));
        }
    }
}

/// Writes the bytes that pieces stand for, with contents from `place`.
///
/// # Errors
///
/// What reading a content or writing gave. A content that is not in `place` is an error of kind `NotFound`.
pub fn copy_pieces(pieces: &[Piece], place: &dyn OpenBlob, sink: &mut dyn Write) -> io::Result<()> {
    for piece in pieces {
        match piece {
            Piece::Bytes(bytes) => sink.write_all(bytes)?,
            Piece::Content(blob) => {
                let content = place.open_blob(blob).map_err(|error| io::Error::new(io::ErrorKind::NotFound, error))?;
                // A place checks its bytes; the size is checked here as well, because headers announced it.
                let copied = io::copy(&mut content.take(blob.size + 1), sink)?;
                if copied != blob.size {
                    return Err(io::Error::other(format!("content `{blob}` has another length")));
                }
            }
        }
    }
    Ok(())
}
