//! The one place that asks for the time.

use std::time::{SystemTime, UNIX_EPOCH};

/// Unix milliseconds; 0 on a clock set before 1970.
#[must_use]
pub fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
}

/// A time as people write it, UTC: `2026-11-25 17:30:00`.
#[must_use]
pub fn shown(ms: i64) -> String {
    let (days, seconds) = (ms.div_euclid(86_400_000), ms.rem_euclid(86_400_000) / 1_000);
    // Days since 0000-03-01, in years that begin in March: then leap days come last.
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

#[cfg(test)]
mod tests {
    use super::shown;

    #[test]
    fn times_are_shown_as_dates() {
        assert_eq!(shown(0), "1970-01-01 00:00:00");
        assert_eq!(shown(1_764_091_845_123), "2025-11-25 17:30:45");
        assert_eq!(shown(1_709_164_800_000), "2024-02-29 00:00:00");
        assert_eq!(shown(-1), "1969-12-31 23:59:59");
    }
}
