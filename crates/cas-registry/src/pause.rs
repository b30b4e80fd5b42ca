//! How long a server wants to be left alone.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cas_time::Utc;

/// Units of durations, as Go writes them.
const UNITS: [(&str, f64); 6] = [("ns", 1e-9), ("us", 1e-6), ("µs", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0)];
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// What `Retry-After` says (RFC 9110, 10.2.3: seconds or a date), else what stands behind a word in a message.
pub(crate) fn told(header: Option<&str>, message: &str, word: Option<&str>, now: SystemTime) -> Option<Duration> {
    header.and_then(|text| seconds(text.trim()).or_else(|| until(text.trim(), now))).or_else(|| {
        let lower = message.to_ascii_lowercase();
        let (_, rest) = lower.split_once(word?)?;
        duration(rest.split_whitespace().next()?.trim_end_matches([',', ';', '.']))
    })
}

fn seconds(text: &str) -> Option<Duration> {
    text.parse().ok().map(Duration::from_secs)
}

/// `10.3ms`, `1m30s`, or seconds without a unit.
fn duration(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let (mut rest, mut total) = (text, 0.0);
    while !rest.is_empty() {
        let end = rest.find(|character: char| !character.is_ascii_digit() && character != '.')?;
        let (number, behind) = rest.split_at(end);
        let (behind, factor) = UNITS.iter().find_map(|(unit, factor)| Some((behind.strip_prefix(unit)?, factor)))?;
        total += number.parse::<f64>().ok()? * factor;
        rest = behind;
    }
    Duration::try_from_secs_f64(total).ok()
}

/// The time up to a date (RFC 9110, 5.6.7, the form that is to be written): `Sun, 06 Nov 1994 08:49:37 GMT`.
fn until(text: &str, now: SystemTime) -> Option<Duration> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let [_, day, month, year, clock, "GMT"] = words[..] else { return None };
    let parts: Vec<u8> = clock.split(':').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    let [hour, minute, second] = parts[..] else { return None };
    let month = u8::try_from(MONTHS.iter().position(|name| *name == month)? + 1).ok()?;
    let date = Utc { year: year.parse().ok()?, month, day: day.parse().ok()?, hour, minute, second };
    let now = i64::try_from(now.duration_since(UNIX_EPOCH).ok()?.as_secs()).ok()?;
    Some(Duration::from_secs(u64::try_from(date.to_unix()? - now).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_read_where_servers_write_them() {
        let now = UNIX_EPOCH + Duration::from_secs(784_111_777);
        for (header, message, expected) in [
            (Some("7"), "", Some(Duration::from_secs(7))),
            (Some(" 0 "), "", Some(Duration::ZERO)),
            (Some("Sun, 06 Nov 1994 08:49:47 GMT"), "", Some(Duration::from_secs(10))),
            (Some("Sun, 06 Nov 1994 08:49:27 GMT"), "", Some(Duration::ZERO)),
            (Some("soon"), "", None),
            (Some("soon"), ": TOOMANYREQUESTS retry-after: 2s", Some(Duration::from_secs(2))),
            (None, ": TOOMANYREQUESTS retry-after: 10.3ms, allowed: 44000/minute", Some(Duration::from_micros(10_300))),
            (None, ": TOOMANYREQUESTS Retry-After: 1m30s", Some(Duration::from_secs(90))),
            (None, ": TOOMANYREQUESTS retry-after: 3", Some(Duration::from_secs(3))),
            (None, ": TOOMANYREQUESTS retry-after: -3", None),
            (None, ": TOOMANYREQUESTS retry-after: 1x", None),
            (None, "", None),
        ] {
            let found = told(header, message, Some("retry-after:"), now);
            assert_eq!(
                found.map(|found| found.as_micros()),
                expected.map(|found| found.as_micros()),
                "{header:?} {message}"
            );
        }
    }
}
