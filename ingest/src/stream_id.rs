//! Ids of a Redis Stream's entries: where a source's stream is read on.

use std::fmt;
use std::str::FromStr;

/// Unix milliseconds of the Redis that took the entry in, and a number among those of one millisecond. Ordered as the
/// entries are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct StreamId {
    /// Unix ms.
    pub ms: u64,
    /// Number within the millisecond.
    pub n: u64,
}

impl StreamId {
    /// Before every entry.
    pub const ZERO: Self = Self { ms: 0, n: 0 };
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.n)
    }
}

impl FromStr for StreamId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let strange =
            || format!("{text:?} is no stream id: two numbers with a hyphen, such as 1764038400000-0");
        let (ms, n) = text.split_once('-').ok_or_else(strange)?;
        Ok(Self { ms: ms.parse().map_err(|_| strange())?, n: n.parse().map_err(|_| strange())? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_ordered_as_numbers_and_read_back() {
        let (small, large) = ("9-10".parse::<StreamId>().unwrap(), "10-9".parse::<StreamId>().unwrap());
        assert!(StreamId::ZERO < small && small < large);
        assert_eq!(large.to_string().parse(), Ok(large));
        assert!("17".parse::<StreamId>().unwrap_err().contains("such as"));
    }
}
