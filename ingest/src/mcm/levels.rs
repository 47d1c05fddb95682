//! A side that the stream sends by level (`[level, price, size]`) → changes by price. A level says what stands at a
//! position, so that moving one price moves many levels, one after the other: in between, two levels may show the same
//! price. The newer word counts then (of two of one message the better level), and the price keeps one size.

use smallvec::SmallVec;
use tictac_proto::model::LadderDelta;

use super::message::Row;

/// Most levels that a side can have: the stream offers ten.
pub(super) const MOST_LEVELS: i64 = 64;

/// What stands at one level.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Standing {
    price: i64,
    /// 0 where nothing stands there.
    size: i64,
    /// Number of the message that said so, among those of this side.
    said: u32,
}

type ByPrice = SmallVec<[(i64, i64); 10]>;

/// One side of one runner.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Levels {
    levels: SmallVec<[Standing; 10]>,
    messages: u32,
}

impl Levels {
    /// Takes in rows whose levels are all in range and adds what that changes by price.
    pub(super) fn apply(&mut self, rows: &[Row], change: &mut LadderDelta) {
        let before = self.by_price();
        self.messages = self.messages.wrapping_add(1);
        for row in rows {
            let level = row.level as usize;
            if level >= self.levels.len() {
                if row.size == 0 {
                    continue;
                }
                self.levels.resize(level + 1, Standing::default());
            }
            self.levels[level] = Standing { price: row.price, size: row.size, said: self.messages };
        }
        let after = self.by_price();
        for (price, _) in &before {
            if !after.iter().any(|l| l.0 == *price) {
                change.set(*price, 0);
            }
        }
        for level in &after {
            if !before.contains(level) {
                change.set(level.0, level.1);
            }
        }
    }

    /// Whether nothing stands anywhere.
    pub(super) fn is_empty(&self) -> bool {
        self.levels.iter().all(|l| l.size == 0)
    }

    fn by_price(&self) -> ByPrice {
        let mut prices = ByPrice::new();
        for level in self.levels.iter().filter(|l| l.size != 0) {
            let newer =
                |other: &Standing| other.size != 0 && other.price == level.price && other.said > level.said;
            if !prices.iter().any(|l| l.0 == level.price) && !self.levels.iter().any(newer) {
                prices.push((level.price, level.size));
            }
        }
        prices
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn row(level: i64, price: i64, size: i64) -> Row {
        Row { index: 0, level, price, size, at: 0 }
    }

    fn changes(levels: &mut Levels, rows: &[Row]) -> Vec<(i64, i64)> {
        let mut change = LadderDelta::default();
        levels.apply(rows, &mut change);
        change.levels.to_vec()
    }

    #[test]
    fn a_level_that_moves_down_is_deleted_by_price() {
        let mut levels = Levels::default();
        assert_eq!(changes(&mut levels, &[row(0, 200, 10), row(1, 190, 20)]), [(190, 20), (200, 10)]);
        // A better price comes in on top: everything moves by one.
        let moved = [row(0, 210, 5), row(1, 200, 10), row(2, 190, 20)];
        assert_eq!(changes(&mut levels, &moved), [(210, 5)]);
        // The best goes; the last level is deleted.
        assert_eq!(changes(&mut levels, &[row(0, 200, 10), row(1, 190, 20), row(2, 0, 0)]), [(210, 0)]);
    }

    #[test]
    fn two_levels_at_one_price_keep_the_newer_size() {
        let mut levels = Levels::default();
        changes(&mut levels, &[row(0, 200, 10), row(1, 190, 20)]);
        // 200 is gone and 190 rose to 25, but level 1 is only told in the next message.
        assert_eq!(changes(&mut levels, &[row(0, 190, 25)]), [(190, 25), (200, 0)]);
        assert_eq!(changes(&mut levels, &[row(1, 180, 30)]), [(180, 30)]);
        // The other way round: the newer word is at the worse level.
        assert_eq!(changes(&mut levels, &[row(1, 190, 7)]), [(180, 0), (190, 7)]);
        assert_eq!(changes(&mut levels, &[row(0, 0, 0)]), []);
    }

    #[test]
    fn deleting_what_is_not_there_says_nothing() {
        let mut levels = Levels::default();
        assert_eq!(changes(&mut levels, &[row(9, 0, 0), row(0, 0, 0)]), []);
        assert!(levels.is_empty());
    }

    proptest! {
        /// However levels move, the prices that were told add up to the prices that stand.
        #[test]
        fn told_changes_add_up(
            messages in prop::collection::vec(prop::collection::vec((0i64..5, 1i64..6, 0i64..4), 0..5), 0..20)
        ) {
            let mut levels = Levels::default();
            let mut told = std::collections::BTreeMap::new();
            for message in messages {
                let rows: Vec<Row> = message.iter().map(|r| row(r.0, r.1, r.2)).collect();
                for (price, size) in changes(&mut levels, &rows) {
                    told.insert(price, size);
                }
                told.retain(|_, size| *size != 0);
                let standing: std::collections::BTreeSet<i64> =
                    levels.levels.iter().filter(|l| l.size != 0).map(|l| l.price).collect();
                prop_assert!(told.keys().eq(standing.iter()));
                prop_assert!(told.iter().all(|(p, s)| levels.levels.iter().any(|l| l.price == *p && l.size == *s)));
            }
        }
    }
}
