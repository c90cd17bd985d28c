//! Dates as text.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];
/// A day.
pub const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Seconds since 1970.
pub fn now() -> u64 {
    seconds(SystemTime::now())
}

/// Today, in UTC and by ISO 8601.
pub fn today() -> String {
    let [date, _] = dates(SystemTime::now());
    date
}

/// A day as programs write it: ISO 8601 and the C compiler's `__DATE__`.
pub fn dates(time: SystemTime) -> [String; 2] {
    let (year, month, day) = civil(seconds(time) / DAY.as_secs());
    [
        format!("{year:04}-{month:02}-{day:02}"),
        format!("{} {day:2} {year:04}", MONTHS[month as usize - 1]),
    ]
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// Year, month and day of the Gregorian calendar, `days` after 1970-01-01.
fn civil(days: u64) -> (u64, u64, u64) {
    // Years that begin in March put the leap day last; eras of 400 years all have 146 097 days.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_have_their_dates() {
        for (days, date) in [
            (0, (1970, 1, 1)),
            (11_016, (2000, 2, 29)),
            (11_017, (2000, 3, 1)),
            (20_783, (2026, 11, 26)),
            (47_540, (2100, 2, 28)),
            (47_541, (2100, 3, 1)),
        ] {
            assert_eq!(civil(days), date);
        }
        let day = UNIX_EPOCH + 11_017 * DAY;
        assert_eq!(dates(day), ["2000-03-01", "Mar  1 2000"]);
    }
}
