//! Changes that came before they were made, which only clocks that differ can bring about.

/// How many there were, and how much too early.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Early {
    /// How many.
    pub count: u64,
    /// The one that came earliest, µs before it was made.
    pub most_us: u64,
}

impl Early {
    /// A time on the way, µs; `None` where it is none because it was below zero, which is counted.
    pub fn checked(&mut self, us: i64) -> Option<u64> {
        let taken = u64::try_from(us).ok();
        if taken.is_none() {
            self.add(Self { count: 1, most_us: us.unsigned_abs() });
        }
        taken
    }

    /// Adds others.
    pub fn add(&mut self, other: Self) {
        self.count += other.count;
        self.most_us = self.most_us.max(other.most_us);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_before_it_was_made_is_counted_and_no_latency() {
        let mut early = Early::default();
        assert_eq!((early.checked(5), early.checked(0)), (Some(5), Some(0)));
        assert_eq!((early.checked(-7_000), early.checked(-3)), (None, None));
        assert_eq!(early, Early { count: 2, most_us: 7_000 });
    }
}
