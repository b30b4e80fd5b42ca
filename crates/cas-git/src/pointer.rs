//! Git LFS pointers: what stands in the place of a large file until it is downloaded.
//!
//! Source: git-lfs, docs/spec.md, "The Pointer".

/// A pointer is shorter than this: "Pointer files must be less than 1024 bytes in size".
pub const MAX_POINTER_BYTES: usize = 1024;

/// First line of a pointer. The address is a part of the format; nothing is asked of it.
const FIRST_LINE: &[u8] = b"version https://git-lfs.github.com/spec/v1\n";

/// Whether a file's whole content is a pointer.
#[must_use]
pub fn is_lfs_pointer(content: &[u8]) -> bool {
    let Some(rest) = content.strip_prefix(FIRST_LINE).filter(|_| content.len() <= MAX_POINTER_BYTES) else {
        return false;
    };
    let has = |key: &[u8], is_value: fn(&[u8]) -> bool| {
        let mut lines = rest.split(|byte| *byte == b'\n');
        lines.any(|line| line.strip_prefix(key).is_some_and(is_value))
    };
    has(b"oid sha256:", |hex| hex.len() == 64 && hex.iter().all(u8::is_ascii_hexdigit))
        && has(b"size ", |size| !size.is_empty() && size.iter().all(u8::is_ascii_digit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_have_an_oid_and_a_size() {
        let first = String::from_utf8(FIRST_LINE.to_vec()).expect("it is text");
        let oid = format!("oid sha256:{}\n", "0a".repeat(32));
        for (text, expected) in [
            (format!("{first}{oid}size 12345\n"), true),
            (format!("{first}ext-0-foo sha256:{}\n{oid}size 0\n", "0b".repeat(32)), true),
            (format!("{first}{oid}"), false),
            (format!("{first}size 5\n"), false),
            (format!("{first}oid sha256:12\nsize 5\n"), false),
            (format!("{first}{oid}size 5\n{}", "x".repeat(MAX_POINTER_BYTES)), false),
            (format!(" {first}{oid}size 5\n"), false),
            (String::new(), false),
        ] {
            assert_eq!(is_lfs_pointer(text.as_bytes()), expected, "{text}");
        }
    }
}
