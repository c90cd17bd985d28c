//! What must not be in the image: a directory of the machine it was built on, the name of a user, a date.

use std::env;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::assembly::Remap;
use crate::failure::{Failure, Result};

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Fails if the image says where, by whom or when it was built.
pub fn check(image: &[u8], remaps: &[Remap]) -> Result<()> {
    let mut traces: Vec<String> = remaps
        .iter()
        .map(|remap| remap.from.display().to_string())
        .collect();
    traces.extend(["/home/".to_owned(), "/root/".to_owned(), "/tmp/".to_owned()]);
    for name in ["USER", "LOGNAME"]
        .iter()
        .filter_map(|name| env::var(name).ok())
    {
        // The bare name may be a word; as part of a path it is a trace.
        traces.push(format!("/{name}/"));
    }
    // A build that began before midnight, or west of here.
    let now = SystemTime::now();
    for day in [now - DAY, now, now + DAY] {
        traces.extend(dates(day));
    }
    for trace in &traces {
        if let Some(offset) = find(image, trace.as_bytes()) {
            let end = image.len().min(offset + 120);
            let text = image[offset..end].utf8_chunks().next();
            return Err(Failure::new(format!(
                "the image says where, by whom or when it was built: it has {:?} at {offset:#x}",
                text.map_or("", |chunk| chunk.valid())
            )));
        }
    }
    Ok(())
}

/// A day as programs write it: ISO 8601 and the C compiler's `__DATE__`.
fn dates(time: SystemTime) -> [String; 2] {
    let days = time
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs() / DAY.as_secs());
    let (year, month, day) = civil(days);
    [
        format!("{year:04}-{month:02}-{day:02}"),
        format!("{} {day:2} {year:04}", MONTHS[month as usize - 1]),
    ]
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

fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_in_the_image_is_found() {
        let remaps = [Remap {
            from: "/srv/checkout".into(),
            to: "/x".into(),
        }];
        assert!(check(b"ab/rustc/1/library/core.rs\0/vitrine/guest", &remaps).is_ok());
        let today = dates(SystemTime::now()).map(String::into_bytes);
        for image in [
            &b"x/srv/checkout/guest/src/main.rs"[..],
            b"\xff/home/me/.cargo\xff",
            &today[0],
            &today[1],
        ] {
            let failure = check(image, &remaps).unwrap_err().to_string();
            assert!(failure.contains("where, by whom or when"), "{failure}");
        }
    }

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
