//! PEM blocks (RFC 7468): one in a file.

use pem_rfc7468::LineEnding;
use zeroize::Zeroizing;

use super::KeyError;
use crate::error::shown;

/// Longest file of a key that is read. Keys have a few hundred bytes; comments may stand before them.
pub const MAX_KEY_FILE_BYTES: usize = 16 << 10;

/// A block: its label and its bytes, which may be secret.
pub(super) struct Block {
    pub(super) label: String,
    pub(super) bytes: Zeroizing<Vec<u8>>,
}

/// Reads the only block of a file.
pub(super) fn read(text: &[u8]) -> Result<Block, KeyError> {
    if text.len() > MAX_KEY_FILE_BYTES {
        return Err(KeyError::TooLarge { limit: MAX_KEY_FILE_BYTES, actual: text.len() });
    }
    const BEGIN: &[u8] = b"-----BEGIN ";
    let count = text.windows(BEGIN.len()).filter(|window| *window == BEGIN).count();
    if count > 1 {
        return Err(KeyError::SeveralKeys { count });
    }
    let mut buffer = Zeroizing::new(vec![0; text.len()]);
    let pem = |source| KeyError::Pem { source };
    let (label, length) = {
        let (label, bytes) = pem_rfc7468::decode(text, &mut buffer).map_err(pem)?;
        (shown(label), bytes.len())
    };
    buffer.truncate(length);
    Ok(Block { label, bytes: buffer })
}

/// Writes a block with lines of 64 letters.
pub(super) fn write(label: &str, bytes: &[u8]) -> Zeroizing<String> {
    let text = pem_rfc7468::encode_string(label, LineEnding::LF, bytes);
    Zeroizing::new(text.expect("labels are constants, and keys are short"))
}
