//! Decimal numbers as text → integers scaled by a power of ten, exactly: a price of `1.01` is 101 at two places, with no
//! float on the way.

use tictac_proto::limits::MAX_INT;

/// A number of the line, scaled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Number {
    /// Exactly so much, or so near (a millionth of the last place) that the rest is a float's noise.
    Exact(i64),
    /// It has more decimals than the scale; this is the nearest.
    Rounded(i64),
    /// Beyond 2^53 when scaled.
    TooLarge,
}

const POWERS: [u64; 20] = {
    let mut powers = [1u64; 20];
    let mut i = 1;
    while i < 20 {
        powers[i] = powers[i - 1] * 10;
        i += 1;
    }
    powers
};

/// Reads the JSON number at the start of `bytes`, scaled by 10^`places` (at most 8), and says how long it is. `None`
/// where no JSON number stands there.
#[inline]
pub(super) fn parse(bytes: &[u8], places: u32) -> Option<(Number, usize)> {
    let negative = bytes.first() == Some(&b'-');
    let start = usize::from(negative);
    let mut at = start;
    let mut mantissa = 0u64;
    while let Some(digit) = digit(bytes, at) {
        // Eighteen digits never overflow; longer numbers take the slow way.
        mantissa = mantissa.wrapping_mul(10).wrapping_add(digit);
        at += 1;
    }
    let whole = at - start;
    if whole == 0 || (whole > 1 && bytes[start] == b'0') {
        return None;
    }
    let mut fraction = 0;
    if bytes.get(at) == Some(&b'.') {
        at += 1;
        let first = at;
        while let Some(digit) = digit(bytes, at) {
            mantissa = mantissa.wrapping_mul(10).wrapping_add(digit);
            at += 1;
        }
        fraction = at - first;
        if fraction == 0 {
            return None;
        }
    }
    let exponent = matches!(bytes.get(at), Some(b'e' | b'E'));
    let number = if !exponent && whole + fraction <= 18 {
        scale(mantissa, i64::from(places) - fraction as i64)
    } else {
        let (number, length) = slow(bytes, start, places)?;
        at = length;
        number
    };
    let signed = |v: i64| if negative { -v } else { v };
    Some((
        match number {
            Number::Exact(v) => Number::Exact(signed(v)),
            Number::Rounded(v) => Number::Rounded(signed(v)),
            Number::TooLarge => Number::TooLarge,
        },
        at,
    ))
}

#[inline]
fn digit(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at).map(|b| b.wrapping_sub(b'0')).filter(|d| *d < 10).map(u64::from)
}

/// Numbers with an exponent or more than eighteen digits. The grammar up to the exponent is already known to hold.
#[cold]
fn slow(bytes: &[u8], start: usize, places: u32) -> Option<(Number, usize)> {
    let mut at = start;
    let (mut mantissa, mut shift, mut after_point) = (0u64, i64::from(places), false);
    loop {
        if bytes.get(at) == Some(&b'.') {
            after_point = true;
        } else if let Some(digit) = digit(bytes, at) {
            if mantissa < POWERS[17] {
                mantissa = mantissa * 10 + digit;
                shift -= i64::from(after_point);
            } else {
                shift += i64::from(!after_point);
            }
        } else {
            break;
        }
        at += 1;
    }
    if matches!(bytes.get(at), Some(b'e' | b'E')) {
        at += 1;
        let down = bytes.get(at) == Some(&b'-');
        at += usize::from(matches!(bytes.get(at), Some(b'+' | b'-')));
        let first = at;
        let mut exponent = 0i64;
        while let Some(digit) = digit(bytes, at) {
            exponent = (exponent * 10 + digit as i64).min(1_000_000);
            at += 1;
        }
        if at == first {
            return None;
        }
        shift += if down { -exponent } else { exponent };
    }
    Some((scale(mantissa, shift), at))
}

/// `mantissa` × 10^`shift`, to the nearest integer, halves away from zero.
#[inline]
fn scale(mantissa: u64, shift: i64) -> Number {
    if mantissa == 0 {
        return Number::Exact(0);
    }
    if shift >= 0 {
        let power = usize::try_from(shift).ok().and_then(|s| POWERS.get(s));
        return match power.and_then(|p| mantissa.checked_mul(*p)) {
            Some(v) if v <= MAX_INT as u64 => Number::Exact(v as i64),
            _ => Number::TooLarge,
        };
    }
    let Some(&power) = usize::try_from(-shift).ok().and_then(|s| POWERS.get(s)) else {
        return Number::Rounded(0);
    };
    let (whole, rest) = (mantissa / power, mantissa % power);
    let value = whole + u64::from(rest >= power - rest);
    if value > MAX_INT as u64 {
        return Number::TooLarge;
    }
    let millionths = u128::from(rest) * 1_000_000 / u128::from(power);
    if rest == 0 || (power > 1_000_000 && (millionths == 0 || millionths == 999_999)) {
        Number::Exact(value as i64)
    } else {
        Number::Rounded(value as i64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at_two(text: &str) -> Option<Number> {
        parse(text.as_bytes(), 2).filter(|p| p.1 == text.len()).map(|p| p.0)
    }

    #[test]
    fn known_numbers() {
        let exact = [
            ("1.01", 101),
            ("0", 0),
            ("-4", -400),
            ("-0.25", -25),
            ("1000", 100_000),
            ("2.50", 250),
            ("2.5000", 250),
            ("1e3", 100_000),
            ("1.5E-1", 15),
            ("101.80999999999999", 10_181),
            ("0.30000000000000004", 30),
            ("1.1000000000000001e7", 1_100_000_000),
            ("0e999999999", 0),
            ("90071992547409.91", MAX_INT),
            ("12.340000000000000000000001", 1234),
        ];
        for (text, want) in exact {
            assert_eq!(at_two(text), Some(Number::Exact(want)), "{text}");
        }
        for (text, want) in
            [("1.005", 101), ("-1.005", -101), ("1.2610804758204543", 126), ("1e-30", 0), ("1.004", 100)]
        {
            assert_eq!(at_two(text), Some(Number::Rounded(want)), "{text}");
        }
        for text in ["90071992547409.92", "1e300", "99999999999999999999999999", "1e99999999999999999999"] {
            assert_eq!(at_two(text), Some(Number::TooLarge), "{text}");
        }
        for text in ["", "-", "01", "1.", ".5", "1e", "1e+", "x"] {
            assert_eq!(at_two(text), None, "{text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]
        /// What a float would give, where a float is still good enough to tell.
        #[test]
        fn two_decimals_are_the_floats_hundredths(hundredths in -100_000_000_000i64..100_000_000_000) {
            let value = hundredths as f64 / 100.0;
            prop_assert_eq!(at_two(&format!("{value}")), Some(Number::Exact(hundredths)));
            prop_assert_eq!(at_two(&format!("{value:e}")), Some(Number::Exact(hundredths)));
            prop_assert_eq!((value * 100.0).round() as i64, hundredths);
        }
    }
}
