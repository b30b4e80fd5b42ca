//! `Range` of requests for blobs (RFC 9110, 14.2), and `Content-Range` of pieces of uploads (OCI distribution-spec 1.1, "Pushing a blob in chunks").

/// What a request wants of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// All of it: nothing else was said, or something that need not be understood.
    Whole,
    /// The bytes from the first to the second one, both included.
    Part(u64, u64),
    /// Bytes that it does not have.
    Nothing,
}

/// Reads `Range` for a blob of `size` bytes.
pub(crate) fn wanted(header: Option<&str>, size: u64) -> Wanted {
    let Some(range) = header.and_then(|header| header.trim().strip_prefix("bytes=")) else { return Wanted::Whole };
    let Some((first, last)) = range.split_once('-').map(|(first, last)| (first.trim(), last.trim())) else {
        return Wanted::Whole;
    };
    if first.is_empty() {
        return match number(last) {
            Some(0) => Wanted::Nothing,
            Some(_) if size == 0 => Wanted::Nothing,
            Some(count) => Wanted::Part(size.saturating_sub(count), size - 1),
            None => Wanted::Whole,
        };
    }
    let Some(first) = number(first) else { return Wanted::Whole };
    let last = if last.is_empty() { Some(u64::MAX) } else { number(last) };
    match last {
        None => Wanted::Whole,
        // It may be ignored or refused; whoever sent it wants no whole blob.
        Some(last) if last < first => Wanted::Nothing,
        Some(_) if first >= size => Wanted::Nothing,
        Some(last) => Wanted::Part(first, last.min(size - 1)),
    }
}

/// Reads `Content-Range` of a piece: the first byte, and how many there are.
pub(crate) fn piece(header: &str) -> Option<(u64, u64)> {
    let range = header.trim();
    let range = range.strip_prefix("bytes").map_or(range, |range| range.trim_start_matches(['=', ' ']));
    let range = range.split('/').next().unwrap_or_default();
    let (first, last) = range.split_once('-')?;
    let (first, last) = (number(first.trim())?, number(last.trim())?);
    Some((first, last.checked_sub(first)?.checked_add(1)?))
}

/// Digits alone: no sign.
fn number(text: &str) -> Option<u64> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_those_of_the_specification() {
        for (header, size, expected) in [
            ("bytes=0-", 10, Wanted::Part(0, 9)),
            ("bytes=0-0", 10, Wanted::Part(0, 0)),
            ("bytes=5-99", 10, Wanted::Part(5, 9)),
            ("bytes=9-9", 10, Wanted::Part(9, 9)),
            ("bytes=10-", 10, Wanted::Nothing),
            ("bytes=0-", 0, Wanted::Nothing),
            ("bytes=-3", 10, Wanted::Part(7, 9)),
            ("bytes=-30", 10, Wanted::Part(0, 9)),
            ("bytes=-0", 10, Wanted::Nothing),
            ("bytes=-1", 0, Wanted::Nothing),
            ("bytes=5-4", 10, Wanted::Nothing),
            ("bytes=0-1,3-4", 10, Wanted::Whole),
            ("bytes=+1-2", 10, Wanted::Whole),
            ("bytes=a-b", 10, Wanted::Whole),
            ("bytes=", 10, Wanted::Whole),
            ("bytes=99999999999999999999-", 10, Wanted::Whole),
            ("lines=0-1", 10, Wanted::Whole),
        ] {
            assert_eq!(wanted(Some(header), size), expected, "{header} of {size}");
        }
        assert_eq!(wanted(None, 10), Wanted::Whole);
    }

    #[test]
    fn pieces_say_where_they_begin() {
        for (header, expected) in [
            ("0-9", Some((0, 10))),
            ("10-10", Some((10, 1))),
            ("bytes 0-9/*", Some((0, 10))),
            ("bytes=0-9", Some((0, 10))),
            ("0-18446744073709551615", None),
            ("9-0", None),
            ("-9", None),
            ("0-", None),
            ("", None),
            ("0-+1", None),
        ] {
            assert_eq!(piece(header), expected, "{header}");
        }
    }
}
