//! Instants as the stream writes them, `2025-05-09T19:00:00.000Z` → Unix milliseconds.

/// Milliseconds since 1970 of an ISO 8601 instant in UTC, with or without a fraction; `None` where it is not one.
pub(super) fn unix_ms(text: &str) -> Option<i64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let [year, month, day] = fields(date, '-', [4, 2, 2])?;
    let (clock, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let [hour, minute, second] = fields(clock, ':', [2, 2, 2])?;
    if !(1..=12).contains(&month) || !(1..=days_of(year, month)).contains(&day) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 59 || fraction.is_empty() || fraction.len() > 9 {
        return None;
    }
    let mut millis = 0;
    for i in 0..3 {
        millis =
            millis * 10 + i64::from(char::from(*fraction.as_bytes().get(i).unwrap_or(&b'0')).to_digit(10)?);
    }
    Some((((days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second) * 1000 + millis)
}

fn fields(text: &str, separator: char, widths: [usize; 3]) -> Option<[i64; 3]> {
    let mut parts = text.split(separator);
    let mut values = [0; 3];
    for (value, width) in values.iter_mut().zip(widths) {
        let part = parts.next()?;
        if part.len() != width || !part.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        *value = part.parse().ok()?;
    }
    parts.next().is_none().then_some(values)
}

fn days_of(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 in the Gregorian calendar: whole 400-year cycles, counted from March so that the leap day
/// ends a year.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::unix_ms;

    #[test]
    fn known_instants() {
        let known = [
            ("1970-01-01T00:00:00.000Z", 0),
            ("2025-05-09T19:00:00.000Z", 1_746_817_200_000),
            ("2024-02-29T23:59:59.5Z", 1_709_251_199_500),
            ("2016-10-01T06:00:00Z", 1_475_301_600_000),
            ("1969-12-31T23:59:59.999Z", -1),
        ];
        for (text, want) in known {
            assert_eq!(unix_ms(text), Some(want), "{text}");
        }
        for text in [
            "",
            "2025-05-09",
            "2025-02-29T00:00:00Z",
            "2025-13-01T00:00:00Z",
            "2025-05-09T24:00:00Z",
            "2025-05-09T19:00:00+01:00",
            "2025-5-9T19:00:00Z",
            "+025-05-09T19:00:00Z",
            "2025-05-09T19:00:00.Z",
            "2025-05-09T19:00:00.x0Z",
        ] {
            assert_eq!(unix_ms(text), None, "{text}");
        }
    }
}
