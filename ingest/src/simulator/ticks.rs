//! The tick ladders that prices stand on: the exchange's classic one, and the bookmaker's fractions.

/// Upper bound and increment of each segment of the classic ladder, in hundredths; it begins at 1.01.
const SEGMENTS: [(i64, i64); 10] = [
    (200, 1),
    (300, 2),
    (400, 5),
    (600, 10),
    (1_000, 20),
    (2_000, 50),
    (3_000, 100),
    (5_000, 200),
    (10_000, 500),
    (100_000, 1_000),
];

/// How many prices the classic ladder has.
pub const COUNT: usize = 350;

/// The classic ladder, in hundredths, ascending.
pub const CLASSIC: [i64; COUNT] = classic();

const fn classic() -> [i64; COUNT] {
    let mut ticks = [0; COUNT];
    let (mut price, mut segment, mut i) = (101, 0, 0);
    while i < COUNT {
        ticks[i] = price;
        if price >= SEGMENTS[segment].0 && segment + 1 < SEGMENTS.len() {
            segment += 1;
        }
        price += SEGMENTS[segment].1;
        i += 1;
    }
    ticks
}

/// The highest tick at or below a decimal price; the lowest tick where there is none.
#[must_use]
pub fn at_or_below(price: f64) -> usize {
    // Half a thousandth more, so that a price that is a tick is found as that tick.
    let above = CLASSIC.partition_point(|tick| {
        #[allow(clippy::cast_precision_loss, reason = "at most 100,000")]
        let tick = *tick as f64;
        tick <= price * 100.0 + 0.05
    });
    above.saturating_sub(1)
}

/// The index of a price, where it is on the classic ladder.
#[must_use]
pub fn index(price: i64) -> Option<usize> {
    CLASSIC.binary_search(&price).ok()
}

/// Fractions that a bookmaker shows, ascending.
const FRACTIONS: [(i64, i64); 76] = [
    (1, 500),
    (1, 200),
    (1, 100),
    (1, 66),
    (1, 50),
    (1, 40),
    (1, 33),
    (1, 25),
    (1, 20),
    (1, 16),
    (1, 14),
    (1, 12),
    (1, 10),
    (1, 9),
    (1, 8),
    (1, 7),
    (1, 6),
    (1, 5),
    (2, 9),
    (1, 4),
    (2, 7),
    (3, 10),
    (1, 3),
    (4, 11),
    (2, 5),
    (4, 9),
    (1, 2),
    (8, 15),
    (4, 7),
    (8, 13),
    (4, 6),
    (8, 11),
    (4, 5),
    (5, 6),
    (10, 11),
    (1, 1),
    (11, 10),
    (6, 5),
    (5, 4),
    (11, 8),
    (6, 4),
    (13, 8),
    (7, 4),
    (15, 8),
    (2, 1),
    (9, 4),
    (5, 2),
    (11, 4),
    (3, 1),
    (10, 3),
    (7, 2),
    (4, 1),
    (9, 2),
    (5, 1),
    (11, 2),
    (6, 1),
    (13, 2),
    (7, 1),
    (15, 2),
    (8, 1),
    (9, 1),
    (10, 1),
    (11, 1),
    (12, 1),
    (14, 1),
    (16, 1),
    (18, 1),
    (20, 1),
    (25, 1),
    (33, 1),
    (40, 1),
    (50, 1),
    (66, 1),
    (100, 1),
    (200, 1),
    (500, 1),
];

/// The bookmaker's price nearest below a decimal one: hundredths, and as it is written.
#[must_use]
pub fn fraction(price: f64) -> (i64, String) {
    #[allow(clippy::cast_precision_loss, reason = "small numbers")]
    let above = FRACTIONS.partition_point(|(n, d)| *n as f64 / *d as f64 <= price - 1.0);
    let (n, d) = FRACTIONS[above.saturating_sub(1)];
    // 1 + n/d in hundredths, rounded half up.
    let hundredths = (200 * (n + d) + d) / (2 * d);
    (hundredths, if n == d { "Evens".to_owned() } else { format!("{n}/{d}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_classic_ladder_has_its_landmarks() {
        assert_eq!((CLASSIC[0], CLASSIC[99], CLASSIC[100]), (101, 200, 202));
        assert_eq!((CLASSIC[149], CLASSIC[150]), (300, 305));
        assert_eq!((CLASSIC[COUNT - 2], CLASSIC[COUNT - 1]), (99_000, 100_000));
        assert!(CLASSIC.windows(2).all(|w| w[0] < w[1]));
        assert_eq!(CLASSIC[at_or_below(2.019)], 200);
        assert_eq!(CLASSIC[at_or_below(2.02)], 202);
        assert_eq!(CLASSIC[at_or_below(1e9)], 100_000);
        assert_eq!(at_or_below(0.0), 0);
    }

    #[test]
    fn fractions_ascend_and_are_worded() {
        assert!(FRACTIONS.windows(2).all(|w| w[0].0 * w[1].1 < w[1].0 * w[0].1));
        assert_eq!(fraction(3.5), (350, "5/2".to_owned()));
        assert_eq!(fraction(2.05), (200, "Evens".to_owned()));
        assert_eq!(fraction(1.7), (167, "4/6".to_owned()));
        assert_eq!(fraction(1.0), (100, "1/500".to_owned()));
    }
}
