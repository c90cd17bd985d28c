//! Dates: seconds since 1970, and RFC 3339 in UTC as Intel's documents and people write them.

use core::time::Duration;

use x509_cert::der::DateTime;

/// Reads `2026-11-26T10:00:00Z`, or `2026-11-26`, or seconds since 1970.
pub fn parse(text: &str) -> Option<u64> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok();
    }
    let moment = match text.len() {
        10 => format!("{text}T00:00:00Z").parse::<DateTime>(),
        _ => text.parse::<DateTime>(),
    };
    Some(moment.ok()?.unix_duration().as_secs())
}

/// Writes `2026-11-26T10:00:00Z`; seconds since 1970 where no date has that form.
pub fn format(seconds: u64) -> String {
    match DateTime::from_unix_duration(Duration::from_secs(seconds)) {
        Ok(moment) => moment.to_string(),
        Err(_) => format!("{seconds} s after 1970"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_have_three_spellings() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2026-11-26", 1_795_651_200),
            ("2026-11-26T00:00:01Z", 1_795_651_201),
            ("1795651200", 1_795_651_200),
        ] {
            assert_eq!(parse(text), Some(seconds), "{text}");
        }
        assert_eq!(format(1_795_651_201), "2026-11-26T00:00:01Z");
        assert_eq!(format(u64::MAX), format!("{} s after 1970", u64::MAX));
        for text in [
            "",
            "yesterday",
            "2026-13-01",
            "-5",
            "+5",
            "2026-11-26T00:00:00+01:00",
            "99999999999999999999",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
