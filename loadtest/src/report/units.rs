//! Numbers as people read them.

/// Three figures and a factor: `41.2 k`.
#[must_use]
pub fn count(number: f64) -> String {
    scaled(number, &["", " k", " M", " G"])
}

/// Bytes, by thousands: `6.13 MB`.
#[must_use]
pub fn bytes(number: f64) -> String {
    scaled(number, &[" B", " kB", " MB", " GB", " TB"])
}

fn scaled(mut number: f64, units: &[&str]) -> String {
    let mut unit = 0;
    while number.abs() >= 999.5 && unit + 1 < units.len() {
        number /= 1e3;
        unit += 1;
    }
    // What is counted one by one has no fraction.
    let digits = if unit == 0 && number.fract() == 0.0 { 0 } else { digits(number) };
    format!("{number:.digits$}{}", units[unit])
}

fn digits(number: f64) -> usize {
    match number.abs() {
        n if n < 9.995 => 2,
        n if n < 99.95 => 1,
        _ => 0,
    }
}

/// Milliseconds, or µs or s where those are shorter: `3.20 ms`.
#[must_use]
pub fn ms(number: f64) -> String {
    let (number, unit) = match number {
        n if n >= 10_000.0 => (n / 1e3, "s"),
        n if n < 1.0 && n > 0.0 => (n * 1e3, "µs"),
        n => (n, "ms"),
    };
    let digits = if unit == "µs" { 0 } else { digits(number) };
    format!("{number:.digits$} {unit}")
}

/// A share in percent.
#[must_use]
pub fn percent(share: f64) -> String {
    format!("{:.0} %", 100.0 * share)
}

/// With a space between thousands: `1 234 567`.
#[must_use]
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            // One that no line is broken at.
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// A moment in UTC, from ms since 1970: `2026-11-26 08:30:00 UTC`.
#[must_use]
pub fn utc(ms: u64) -> String {
    let (days, seconds) = (ms / 86_400_000, ms / 1_000 % 86_400);
    // Days from 1 March of year 0, so that a leap day is the last of its year (Howard Hinnant's civil_from_days).
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    format!(
        "{year}-{month:02}-{day:02} {:02}:{:02}:{:02} UTC",
        seconds / 3_600,
        seconds / 60 % 60,
        seconds % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_figures() {
        for (number, text) in
            [(0.0, "0"), (7.0, "7"), (999.0, "999"), (1_000.0, "1.00 k"), (41_234.0, "41.2 k")]
        {
            assert_eq!(count(number), text);
        }
        assert_eq!(count(5_000_000.0), "5.00 M");
        assert_eq!(count(999_900.0), "1.00 M");
        assert_eq!(bytes(6_130_000.0), "6.13 MB");
        assert_eq!(bytes(0.0), "0 B");
        for (number, text) in [(0.0, "0.00 ms"), (0.25, "250 µs"), (3.2, "3.20 ms"), (12_000.0, "12.0 s")] {
            assert_eq!(ms(number), text);
        }
        assert_eq!(grouped(1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!(grouped(12), "12");
    }

    #[test]
    fn a_moment_is_told_in_utc() {
        assert_eq!(utc(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(utc(1_709_210_096_000), "2024-02-29 12:34:56 UTC");
        assert_eq!(utc(1_795_682_096_999), "2026-11-26 08:34:56 UTC");
    }
}
