//! The frame of a clear-signed message: RFC 9580, section 7.
//!
//! Only what was signed comes out. The frame is taken more strictly than the RFC asks: nothing may stand before or after
//! it, the only armor header is `Hash`, and the text holds no control characters, of which a lone carriage return would be
//! hashed as the end of a line and read as none. So no two readers can see different texts in one message.
//!
//! Not here: whether a signature is good ([`crate::Keyring`]).

use std::io::{BufReader, Read};

use pgp::armor::{BlockType, Dearmor, DearmorOptions};
use pgp::packet::{Packet, PacketParser, Signature};

const MESSAGE: &str = "-----BEGIN PGP SIGNED MESSAGE-----";
const SIGNATURE: &str = "-----BEGIN PGP SIGNATURE-----";
const END: &str = "-----END PGP SIGNATURE-----";

/// Longest message. Debian's have 150 KB, Ubuntu's 270 KB.
const MAX_MESSAGE_BYTES: usize = 16 << 20;
/// Longest block of signatures; one with a 4,096-bit RSA key has a kilobyte.
const MAX_ARMOR_BYTES: usize = 256 << 10;
/// Most signatures of a message. Debian's have two or three; each costs the check against a key.
const MAX_SIGNATURES: usize = 32;

/// A clear-signed message with its frame taken off.
pub(crate) struct Cleartext {
    /// What was signed, with `\n` after each line.
    pub(crate) text: String,
    /// The bytes that the signatures are over: lines with `\r\n` between them.
    pub(crate) signed: Vec<u8>,
    pub(crate) signatures: Vec<Signature>,
}

/// Why a text is not a clear-signed message.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// It does not begin as one.
    #[error("it does not begin with `{MESSAGE}`")]
    Beginning,
    /// A line is not what has to stand there.
    #[error("line {line} is not {expected}")]
    Line {
        /// Number of the line, from 1.
        line: usize,
        /// What has to be there.
        expected: &'static str,
    },
    /// It ends before its frame does.
    #[error("it ends before `{END}`")]
    Truncated,
    /// It is longer than a message may be.
    #[error("it is longer than {MAX_MESSAGE_BYTES} bytes, or its signatures than {MAX_ARMOR_BYTES}")]
    TooLong,
    /// It is not UTF-8.
    #[error("it is not UTF-8")]
    NotUtf8,
    /// The signature block cannot be decoded.
    #[error("the signature block is damaged")]
    Armor(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The signature block holds no signature, something else, or too many.
    #[error("the signature block does not hold between 1 and {MAX_SIGNATURES} signatures")]
    Signatures,
}

impl Cleartext {
    pub(crate) fn decode(message: &[u8]) -> Result<Self, FrameError> {
        if message.len() > MAX_MESSAGE_BYTES {
            return Err(FrameError::TooLong);
        }
        let message = str::from_utf8(message).map_err(|_| FrameError::NotUtf8)?;
        let mut lines = message
            .split_inclusive('\n')
            .map(|line| line.strip_suffix('\n').unwrap_or(line))
            .map(|line| line.strip_suffix('\r').unwrap_or(line))
            .enumerate();
        if lines.next().is_none_or(|(_, line)| line != MESSAGE) {
            return Err(FrameError::Beginning);
        }
        loop {
            let (index, line) = lines.next().ok_or(FrameError::Truncated)?;
            if line.trim_ascii().is_empty() {
                break;
            }
            if !line.starts_with("Hash: ") {
                return Err(FrameError::Line { line: index + 1, expected: "a `Hash` header or empty" });
            }
        }
        let mut text = String::with_capacity(message.len());
        loop {
            let (index, line) = lines.next().ok_or(FrameError::Truncated)?;
            if line == SIGNATURE {
                break;
            }
            let unescaped = match line.strip_prefix("- ") {
                Some(unescaped) => unescaped,
                None if line.starts_with('-') => {
                    return Err(FrameError::Line { line: index + 1, expected: "text with its dashes escaped" });
                }
                None => line,
            };
            let signed = unescaped.trim_end_matches([' ', '\t']);
            if signed.chars().any(|character| character.is_control() && character != '\t') {
                return Err(FrameError::Line { line: index + 1, expected: "text without control characters" });
            }
            text.push_str(signed);
            text.push('\n');
        }
        let mut armor = format!("{SIGNATURE}\n");
        loop {
            let (_, line) = lines.next().ok_or(FrameError::Truncated)?;
            armor.push_str(line);
            armor.push('\n');
            if armor.len() > MAX_ARMOR_BYTES {
                return Err(FrameError::TooLong);
            }
            if line == END {
                break;
            }
        }
        if let Some((index, _)) = lines.find(|(_, line)| !line.trim_ascii().is_empty()) {
            return Err(FrameError::Line { line: index + 1, expected: "empty, as all after the signature" });
        }
        // The end of the last line belongs to the frame.
        let signed = text.strip_suffix('\n').unwrap_or_default().replace('\n', "\r\n").into_bytes();
        Ok(Self { text, signed, signatures: signatures(&armor)? })
    }
}

fn signatures(armor: &str) -> Result<Vec<Signature>, FrameError> {
    let damaged = |error: pgp::errors::Error| FrameError::Armor(Box::new(error));
    let mut dearmor = Dearmor::with_options(armor.as_bytes(), DearmorOptions::new().set_limit(MAX_ARMOR_BYTES));
    dearmor.read_header().map_err(damaged)?;
    if dearmor.typ != Some(BlockType::Signature) {
        return Err(FrameError::Signatures);
    }
    let mut packets = Vec::new();
    // Read whole first, so that damage at the end does not pass for a shorter list of signatures.
    dearmor.read_to_end(&mut packets).map_err(|error| FrameError::Armor(Box::new(error)))?;
    let mut signatures = Vec::new();
    for packet in PacketParser::new(BufReader::new(&packets[..])) {
        match packet.map_err(damaged)? {
            Packet::Signature(signature) if signatures.len() < MAX_SIGNATURES => signatures.push(signature),
            _ => return Err(FrameError::Signatures),
        }
    }
    if signatures.is_empty() {
        return Err(FrameError::Signatures);
    }
    Ok(signatures)
}
