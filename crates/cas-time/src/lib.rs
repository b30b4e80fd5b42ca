//! Seconds since 1970 and dates of the civil calendar, in UTC.
//!
//! Not here: clocks, and texts of times that only one format has.

mod moment;

use std::fmt;

pub use moment::parse_moment;

const SECONDS_A_DAY: i64 = 86_400;
/// Days of 400 years, after which the calendar repeats.
const DAYS_AN_ERA: i64 = 146_097;
/// Days from the first of March of the year 0 to the first of January 1970.
const DAYS_TO_1970: i64 = 719_468;

/// A second of the civil calendar (the Gregorian one, before its beginning too).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Utc {
    /// The year; 0 is 1 BC.
    pub year: i64,
    /// From 1 to 12.
    pub month: u8,
    /// From 1 on.
    pub day: u8,
    /// From 0 to 23.
    pub hour: u8,
    /// From 0 to 59.
    pub minute: u8,
    /// From 0 to 59: there are no leap seconds.
    pub second: u8,
}

impl Utc {
    /// The second that is this long after the beginning of 1970 (by Howard Hinnant's `civil_from_days`).
    #[must_use]
    pub fn from_unix(seconds: i64) -> Self {
        let (days, clock) = (seconds.div_euclid(SECONDS_A_DAY), seconds.rem_euclid(SECONDS_A_DAY));
        let shifted = days + DAYS_TO_1970;
        let (era, day_of_era) = (shifted.div_euclid(DAYS_AN_ERA), shifted.rem_euclid(DAYS_AN_ERA));
        let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        let small = |number: i64| u8::try_from(number).expect("it is a part of a date");
        Self {
            year: year_of_era + era * 400 + i64::from(month <= 2),
            month: small(month),
            day: small(day),
            hour: small(clock / 3_600),
            minute: small(clock / 60 % 60),
            second: small(clock % 60),
        }
    }

    /// Seconds since the beginning of 1970; `None` when there is no such date or time.
    #[must_use]
    pub fn to_unix(self) -> Option<i64> {
        if !(1..=12).contains(&self.month) || !(1..=days_in(self.year, self.month)).contains(&self.day) {
            return None;
        }
        if self.hour > 23 || self.minute > 59 || self.second > 59 {
            return None;
        }
        let (month, day) = (i64::from(self.month), i64::from(self.day));
        // Years begin in March here, so that a leap day is the last of its year.
        let year = self.year - i64::from(month <= 2);
        let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
        let month_from_march = if month > 2 { month - 3 } else { month + 9 };
        let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
        let day_of_era = 365 * year_of_era + year_of_era / 4 - year_of_era / 100 + day_of_year;
        let days = era.checked_mul(DAYS_AN_ERA)?.checked_add(day_of_era - DAYS_TO_1970)?;
        let clock = (i64::from(self.hour) * 60 + i64::from(self.minute)) * 60 + i64::from(self.second);
        days.checked_mul(SECONDS_A_DAY)?.checked_add(clock)
    }
}

/// As RFC 3339 has it: `1985-10-26T08:15:00Z`.
impl fmt::Display for Utc {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { year, month, day, hour, minute, second } = self;
        write!(formatter, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

/// The second as RFC 3339 has it that is this long after the beginning of 1970.
#[must_use]
pub fn rfc3339(unix_seconds: i64) -> String {
    Utc::from_unix(unix_seconds).to_string()
}

fn days_in(year: i64, month: u8) -> u8 {
    let is_leap = year.rem_euclid(4) == 0 && (year.rem_euclid(100) != 0 || year.rem_euclid(400) == 0);
    match month {
        2 => 28 + u8::from(is_leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_dates_of_the_calendar() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (499_162_500, "1985-10-26T08:15:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (-1, "1969-12-31T23:59:59Z"),
            (-62_167_219_200, "0000-01-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(seconds), expected);
            assert_eq!(Utc::from_unix(seconds).to_unix(), Some(seconds), "{expected}");
        }
    }

    #[test]
    fn every_day_has_its_date() {
        let mut last = Utc::from_unix(-200_000 * SECONDS_A_DAY);
        for day in -199_999..200_000 {
            let date = Utc::from_unix(day * SECONDS_A_DAY);
            assert!(date > last, "{date} after {last}");
            assert_eq!(date.to_unix(), Some(day * SECONDS_A_DAY), "{date}");
            last = date;
        }
    }

    #[test]
    fn what_is_no_date_has_no_seconds() {
        let date = Utc::from_unix(951_782_400);
        for wrong in [
            Utc { year: 1900, ..date },
            Utc { day: 30, ..date },
            Utc { day: 0, ..date },
            Utc { month: 0, ..date },
            Utc { month: 13, ..date },
            Utc { hour: 24, ..date },
            Utc { minute: 60, ..date },
            Utc { second: 60, ..date },
            Utc { year: i64::MAX, ..date },
        ] {
            assert_eq!(wrong.to_unix(), None, "{wrong:?}");
        }
    }
}
