//! Headers as npm's archiver writes them (`node-tar` 7.5 with `portable`), which is not the shortest form of ustar.
//!
//! Numbers have one digit less than their field and a space before the NUL, unless they need that digit. The owner's
//! fields are empty. A name of 100 bytes or more goes to `prefix` from its last folder on. What is not ASCII or does not
//! fit is cut in the field and whole in an extended header, with time and size. Format: docs/formats/layer.md.

use cas_tree::EPOCH_SECONDS;

use crate::header::{BLOCK_BYTES, pad, record};

const NAME_BYTES: usize = 100;
const PREFIX_BYTES: usize = 155;
const MAX_SIZE: u64 = 0o77_777_777_777;

/// The blocks before the content of a file.
pub(crate) fn header(path: &str, mode: u32, size: u64) -> Vec<u8> {
    let (block, needs_extension) = block(path, mode, size, b'0');
    if !needs_extension {
        return block.to_vec();
    }
    let size_text = size.to_string();
    let body: Vec<u8> = [
        record(b"path", path.as_bytes()),
        record(b"mtime", EPOCH_SECONDS.to_string().as_bytes()),
        record(b"size", size_text.as_bytes()),
    ]
    .concat();
    let base = path.rsplit('/').next().unwrap_or(path);
    let name = cut(&format!("PaxHeader/{base}"), NAME_BYTES - 1);
    let mut bytes = self::block(&name, 0o644, body.len() as u64, b'x').0.to_vec();
    bytes.extend_from_slice(&body);
    pad(&mut bytes, body.len() as u64);
    bytes.extend_from_slice(&block);
    bytes
}

/// A header, and whether it tells less than all.
fn block(path: &str, mode: u32, size: u64, type_flag: u8) -> ([u8; BLOCK_BYTES], bool) {
    let mut block = [0; BLOCK_BYTES];
    let (name, prefix, was_cut) = split(path);
    let mut needs_extension = was_cut || size > MAX_SIZE;
    needs_extension |= text(&mut block[..NAME_BYTES], &name);
    number(&mut block[100..108], mode.into());
    if size > MAX_SIZE {
        // GNU's form: the first bit says that the rest is binary.
        block[124] = 0x80;
        block[128..136].copy_from_slice(&size.to_be_bytes());
    } else {
        number(&mut block[124..136], size);
    }
    number(&mut block[136..148], EPOCH_SECONDS.into());
    block[156] = type_flag;
    block[257..265].copy_from_slice(b"ustar\x0000");
    number(&mut block[329..337], 0);
    number(&mut block[337..345], 0);
    needs_extension |= text(&mut block[345..500], &prefix);
    // The sum is over the header with spaces in its own field.
    let sum = block.iter().map(|byte| u64::from(*byte)).sum::<u64>() + 8 * u64::from(b' ');
    number(&mut block[148..156], sum);
    (block, needs_extension)
}

/// Octal digits: two less than the field with a space and a NUL, or one less with a NUL.
fn number(field: &mut [u8], value: u64) {
    let digits = format!("{value:o}");
    let text =
        if digits.len() + 1 == field.len() { digits } else { format!("{digits:0>width$} ", width = field.len() - 2) };
    field[..text.len()].copy_from_slice(text.as_bytes());
}

/// Writes as many whole characters as fit; whether the text is not told by that alone.
fn text(field: &mut [u8], text: &str) -> bool {
    let mut end = text.len().min(field.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    field[..end].copy_from_slice(&text.as_bytes()[..end]);
    let units = text.encode_utf16().count();
    units != text.len() || units > field.len()
}

/// The first units of UTF-16, as JavaScript cuts strings.
fn cut(text: &str, units: usize) -> String {
    String::from_utf16_lossy(&text.encode_utf16().take(units).collect::<Vec<_>>())
}

/// Name, prefix, and whether the name had to be cut.
fn split(path: &str) -> (String, String, bool) {
    if path.len() < NAME_BYTES {
        return (path.to_owned(), String::new(), false);
    }
    let mut at = path.rfind('/');
    while let Some(slash) = at {
        let (prefix, name) = (&path[..slash], &path[slash + 1..]);
        if prefix.len() <= PREFIX_BYTES {
            return match name.len() <= NAME_BYTES {
                true => (name.to_owned(), prefix.to_owned(), false),
                false => (cut(name, NAME_BYTES - 1), prefix.to_owned(), true),
            };
        }
        at = prefix.rfind('/');
    }
    (cut(path, NAME_BYTES - 1), String::new(), true)
}
