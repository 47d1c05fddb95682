//! Decimals and scaled integers, exactly.
//!
//! A double names a decimal exactly as long as no two decimals of the scale share it, which holds up to 10^15 on the
//! scale; what is larger has to come as an integer or a text.

use std::fmt::Write as _;

use tictac_proto::limits::MAX_INT;

use crate::node::Node;

/// Powers of ten up to the highest exponent in use (millionths; prices and sizes have at most 8).
const POWERS: [i64; 10] =
    [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000];
/// Scaled integers from here on are not safe in a double.
const MAX_FROM_DOUBLE: f64 = 1e15;
/// The same for single precision.
const MAX_FROM_SINGLE: f64 = 1e6;

/// The decimals of a market's prices and sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scale {
    /// Decimals of a price, 0 to 8.
    pub price: u8,
    /// Decimals of a size, 0 to 8.
    pub size: u8,
}

impl Default for Scale {
    fn default() -> Self {
        Self { price: 2, size: 2 }
    }
}

/// The value times `10^exponent`.
///
/// # Errors
/// Why not, with the value, ready to be shown.
pub fn scaled(node: &Node<'_>, exponent: u8) -> Result<i64, String> {
    let power = POWERS[usize::from(exponent).min(POWERS.len() - 1)];
    match node {
        Node::Int(n) => n
            .checked_mul(power)
            .filter(|n| n.abs() <= MAX_INT)
            .ok_or_else(|| too_large(&node.excerpt(), exponent)),
        Node::Float(value) => from_double(*value, power, exponent, MAX_FROM_DOUBLE, |n, p| n / p == *value),
        #[allow(clippy::cast_possible_truncation, reason = "compared in the precision that came")]
        Node::Single(value) => {
            from_double(f64::from(*value), power, exponent, MAX_FROM_SINGLE, |n, p| (n / p) as f32 == *value)
        }
        Node::Text(text) => from_text(text, exponent),
        other => Err(format!(
            "{} is {}; it must be a decimal number or a text that holds one",
            other.excerpt(),
            other.kind()
        )),
    }
}

fn from_double(
    value: f64,
    power: i64,
    exponent: u8,
    limit: f64,
    same: impl Fn(f64, f64) -> bool,
) -> Result<i64, String> {
    if !value.is_finite() {
        return Err(format!("{value} is no number; leave the field out, or send null to clear it"));
    }
    #[allow(clippy::cast_precision_loss, reason = "powers up to 10^9 are exact")]
    let power = power as f64;
    let whole = (value * power).round();
    #[allow(clippy::cast_precision_loss, reason = "the limit itself is exact")]
    if whole.abs() > MAX_INT as f64 {
        return Err(too_large(&format!("{value:?}"), exponent));
    }
    // Division rounds correctly, so this holds only for the double nearest to the decimal.
    if !same(whole, power) {
        return Err(off_scale(&format!("{value:?}"), exponent));
    }
    if whole.abs() >= limit {
        return Err(format!(
            "{value:?} has more digits than its floating-point type holds exactly; send it as a text or an integer"
        ));
    }
    #[allow(clippy::cast_possible_truncation, reason = "whole, and below 2^53")]
    Ok(whole as i64)
}

fn from_text(text: &str, exponent: u8) -> Result<i64, String> {
    let shown: String = text.chars().take(40).collect();
    let no_decimal = || format!("\"{shown}\" is no decimal number; write digits, such as 2.5");
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !all_digits(whole) || !all_digits(fraction) || digits.ends_with('.') {
        return Err(no_decimal());
    }
    let fraction = fraction.trim_end_matches('0');
    if fraction.len() > usize::from(exponent) {
        return Err(off_scale(&shown, exponent));
    }
    let padding = usize::from(exponent) - fraction.len();
    let mut value: i64 = 0;
    for digit in whole.bytes().chain(fraction.bytes()).chain(std::iter::repeat_n(b'0', padding)) {
        value = value
            .checked_mul(10)
            .and_then(|v| v.checked_add(i64::from(digit - b'0')))
            .filter(|v| *v <= MAX_INT)
            .ok_or_else(|| too_large(&shown, exponent))?;
    }
    Ok(if negative { -value } else { value })
}

fn too_large(value: &str, exponent: u8) -> String {
    format!(
        "{value} is beyond 2^53 at exponent {exponent}; send a smaller value, or the market with a smaller exponent"
    )
}

fn off_scale(value: &str, exponent: u8) -> String {
    format!(
        "{value} is off the market's scale (exponent {exponent}); round it to {exponent} decimals, or send the market with a larger exponent"
    )
}

/// Appends `value / 10^exponent` as a JSON value: a number, or a text where a double would not hold it.
pub fn write_scaled(value: i64, exponent: u8, out: &mut String) {
    let power = POWERS[usize::from(exponent).min(POWERS.len() - 1)].unsigned_abs();
    let magnitude = value.unsigned_abs();
    #[allow(clippy::cast_precision_loss, reason = "compared with a far smaller limit")]
    let quote = if magnitude as f64 >= MAX_FROM_DOUBLE { "\"" } else { "" };
    let sign = if value < 0 { "-" } else { "" };
    let (whole, fraction) = (magnitude / power, magnitude % power);
    // Writing to a String cannot fail.
    let _ = write!(out, "{quote}{sign}{whole}");
    if fraction != 0 {
        let digits = format!("{fraction:0width$}", width = usize::from(exponent));
        let _ = write!(out, ".{}", digits.trim_end_matches('0'));
    }
    out.push_str(quote);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str, exponent: u8) -> Result<i64, String> {
        scaled(&Node::from_json(text.as_bytes()).unwrap(), exponent)
    }

    #[test]
    fn decimals_are_exact_or_refused() {
        assert_eq!(json("2.5", 2), Ok(250));
        assert_eq!(json("1.01", 2), Ok(101));
        assert_eq!(json("\"1.010\"", 2), Ok(101));
        assert_eq!(json("-0.25", 2), Ok(-25));
        assert_eq!(json("\"-0.25\"", 2), Ok(-25));
        assert_eq!(json("1e2", 2), Ok(10_000));
        assert_eq!(json("9007199254740991", 0), Ok(MAX_INT));
        assert_eq!(json("\"90071992547409.91\"", 2), Ok(MAX_INT));
        assert_eq!(scaled(&Node::Single(2.1), 2), Ok(210));
        for (text, word) in [
            ("2.505", "off the market's scale"),
            ("\"2.505\"", "off the market's scale"),
            ("0.30000000000000004", "off the market's scale"),
            ("9007199254740992", "beyond 2^53"),
            ("1e300", "beyond 2^53"),
            ("\"90071992547409.92\"", "beyond 2^53"),
            ("90071992547409.91", "digits"),
            ("\"\"", "no decimal"),
            ("\"1.\"", "no decimal"),
            ("\"1e5\"", "no decimal"),
            ("\"NaN\"", "no decimal"),
            ("true", "truth value"),
        ] {
            let why = json(text, 2).unwrap_err();
            assert!(why.contains(word), "{text}: {why}");
        }
        assert!(scaled(&Node::Float(f64::NAN), 2).unwrap_err().contains("no number"));
        assert!(scaled(&Node::Float(f64::INFINITY), 2).unwrap_err().contains("no number"));
    }

    #[test]
    fn every_hundredth_up_to_the_highest_price_comes_back() {
        for value in 0..=100_000 {
            let mut text = String::new();
            write_scaled(value, 2, &mut text);
            assert_eq!(json(&text, 2), Ok(value), "{text}");
        }
        for value in [MAX_INT, -MAX_INT, 999_999_999_999_999, 1_000_000_000_000_000] {
            for exponent in [0, 2, 8] {
                let mut text = String::new();
                write_scaled(value, exponent, &mut text);
                assert_eq!(json(&text, exponent), Ok(value), "{text}");
            }
        }
    }
}
