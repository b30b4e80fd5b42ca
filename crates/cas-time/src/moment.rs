//! Moments as RFC 3339 has them, in UTC alone: a date, which is its first second, or a date and a time.

use crate::Utc;

/// Seconds since 1970 of `2026-08-01` or `2026-08-01T12:30:00Z`; `None` for all else, for a leap second, and before 1970.
#[must_use]
pub fn parse_moment(text: &str) -> Option<u64> {
    let (date, time) = match text.split_once('T') {
        Some((date, time)) => (date, time.strip_suffix('Z')?),
        None => (text, "00:00:00"),
    };
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let [hour, minute, second] = numbers(time, ':', [2, 2, 2])?;
    let small = |number: u64| u8::try_from(number).ok();
    let moment = Utc {
        year: i64::try_from(year).ok()?,
        month: small(month)?,
        day: small(day)?,
        hour: small(hour)?,
        minute: small(minute)?,
        second: small(second)?,
    };
    u64::try_from(moment.to_unix()?).ok()
}

/// Three numbers of as many digits, and nothing else.
fn numbers(text: &str, between: char, widths: [usize; 3]) -> Option<[u64; 3]> {
    let mut parts = text.split(between);
    let mut found = [0; 3];
    for (number, width) in found.iter_mut().zip(widths) {
        let part = parts.next()?;
        if part.len() != width || !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        *number = part.parse().ok()?;
    }
    parts.next().is_none().then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_dates_or_times_in_utc() {
        for (text, expected) in [
            ("1970-01-01", Some(0)),
            ("2026-07-11T10:16:37Z", Some(1_783_764_997)),
            ("2024-02-29T23:59:59Z", Some(1_709_251_199)),
            ("2024-03-01", Some(1_709_251_200)),
            ("2024-03-01T00:00:00Z", Some(1_709_251_200)),
            ("2000-02-29", Some(951_782_400)),
            ("9999-12-31T23:59:59Z", Some(253_402_300_799)),
            ("1969-12-31", None),
            ("0000-01-01", None),
            ("2023-02-29", None),
            ("2100-02-29", None),
            ("2026-04-31", None),
            ("2026-13-01", None),
            ("2026-00-01", None),
            ("2026-08-00", None),
            ("2026-8-1", None),
            ("02026-08-01", None),
            ("+026-08-01", None),
            ("2026-08-01T", None),
            ("2026-08-01Z", None),
            ("2026-08-01T12:30Z", None),
            ("2026-08-01T12:30:00", None),
            ("2026-08-01T12:30:00.5Z", None),
            ("2026-08-01T12:30:00+02:00", None),
            ("2026-08-01T24:00:00Z", None),
            ("2026-08-01T12:60:00Z", None),
            ("2026-08-01T23:59:60Z", None),
            ("2026-08-01 12:30:00Z", None),
            ("2026-08-01-02", None),
            ("20260801T000000Z", None),
            (" 2026-08-01", None),
            ("\u{664}026-08-01", None),
            ("yesterday", None),
            ("", None),
        ] {
            assert_eq!(parse_moment(text), expected, "{text}");
        }
    }
}
