//! A ladder: sizes by price, each level stamped with the log number of its last change. A deleted level stays for a
//! while with size 0 (a tombstone), so that a catch-up delta can say that it went.

use super::delta::LadderDelta;
use crate::limits::{MAX_LEVELS, MAX_TOMBSTONES};

/// One of a selection's three ladders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Side {
    /// Offers that a backer can take.
    Back,
    /// Offers that a layer can take.
    Lay,
    /// Volume traded at each price.
    Traded,
}

impl Side {
    /// All three, by number.
    pub const ALL: [Self; 3] = [Self::Back, Self::Lay, Self::Traded];
}

/// A price level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Level {
    /// Scaled price.
    pub price: i64,
    /// Scaled size; 0 for a tombstone.
    pub size: i64,
    /// Log number of the last change.
    pub stamp: u64,
}

/// Sizes by price, ascending. Equality is of what is offered: stamps and tombstones do not count.
#[derive(Debug, Clone, Default)]
pub struct Ladder {
    levels: Vec<Level>,
    tombstones: usize,
    /// Changes at or below this number may have been forgotten: an older base needs the whole side.
    floor: u64,
    /// The newest stamp of any level.
    top: u64,
}

impl PartialEq for Ladder {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Ladder {}

impl Ladder {
    /// The offered levels, by ascending price.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (i64, i64)> + '_ {
        self.levels.iter().filter(|l| l.size != 0).map(|l| (l.price, l.size))
    }

    /// The offered levels, best first.
    pub fn best_first(&self, best_is_high: bool) -> impl Iterator<Item = (i64, i64)> + '_ {
        let mut levels = self.iter();
        std::iter::from_fn(move || if best_is_high { levels.next_back() } else { levels.next() })
    }

    /// The size offered at a price, 0 where none.
    #[must_use]
    pub fn size(&self, price: i64) -> i64 {
        self.levels.binary_search_by_key(&price, |l| l.price).map_or(0, |i| self.levels[i].size)
    }

    /// How many levels are offered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.levels.len() - self.tombstones
    }

    /// Whether nothing is offered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Log number of the newest change.
    #[must_use]
    pub fn top(&self) -> u64 {
        self.top
    }

    /// Sets the size at a price (0 deletes) and says whether that changed anything.
    pub fn set(&mut self, price: i64, size: i64, stamp: u64) -> bool {
        match self.levels.binary_search_by_key(&price, |l| l.price) {
            Ok(i) => {
                let level = &mut self.levels[i];
                if level.size == size {
                    return false;
                }
                self.tombstones += usize::from(size == 0);
                self.tombstones -= usize::from(level.size == 0);
                level.size = size;
                level.stamp = stamp;
            }
            Err(_) if size == 0 => return false,
            Err(i) => self.levels.insert(i, Level { price, size, stamp }),
        }
        self.top = self.top.max(stamp);
        if self.tombstones > MAX_TOMBSTONES || self.levels.len() > MAX_LEVELS {
            self.forget_tombstones();
        }
        true
    }

    /// Replaces everything; levels that stay as they are keep their stamps.
    pub fn replace(&mut self, levels: &[(i64, i64)], stamp: u64) -> bool {
        let mut changed = false;
        let keep = |p: i64| levels.binary_search_by_key(&p, |l| l.0).is_ok_and(|i| levels[i].1 != 0);
        let gone: Vec<i64> = self.iter().map(|l| l.0).filter(|p| !keep(*p)).collect();
        for price in gone {
            changed |= self.set(price, 0, stamp);
        }
        for (price, size) in levels {
            changed |= self.set(*price, *size, stamp);
        }
        changed
    }

    /// Applies a change and says whether that changed anything.
    pub fn apply(&mut self, delta: &LadderDelta, stamp: u64) -> bool {
        if delta.replace {
            return self.replace(&delta.levels, stamp);
        }
        let mut changed = false;
        for (price, size) in &delta.levels {
            changed |= self.set(*price, *size, stamp);
        }
        changed
    }

    /// What changed after `base`: levels, or the whole side where the base is older than what is remembered.
    #[must_use]
    pub fn since(&self, base: u64) -> LadderDelta {
        if self.top <= base {
            return LadderDelta::default();
        }
        if base < self.floor {
            return LadderDelta { replace: true, levels: self.iter().collect() };
        }
        let levels = self.levels.iter().filter(|l| l.stamp > base).map(|l| (l.price, l.size)).collect();
        LadderDelta { replace: false, levels }
    }

    /// Notes that a change of the past went into what is here now: its levels carry its number, those that are not here
    /// any more leave a tombstone, and what a replacement dropped is unknown.
    pub(crate) fn touch(&mut self, delta: &LadderDelta, stamp: u64) {
        for (price, _) in &delta.levels {
            match self.levels.binary_search_by_key(price, |l| l.price) {
                Ok(i) => self.levels[i].stamp = stamp,
                Err(i) => {
                    self.levels.insert(i, Level { price: *price, size: 0, stamp });
                    self.tombstones += 1;
                }
            }
        }
        if delta.replace {
            self.floor = self.floor.max(stamp);
        }
        if !delta.is_empty() {
            self.top = self.top.max(stamp);
        }
        if self.tombstones > MAX_TOMBSTONES || self.levels.len() > MAX_LEVELS {
            self.forget_tombstones();
        }
    }

    /// Forgets all tombstones: bases below the newest forgotten one get the whole side from now on.
    pub fn forget_tombstones(&mut self) {
        let newest = self.levels.iter().filter(|l| l.size == 0).map(|l| l.stamp).max();
        self.levels.retain(|l| l.size != 0);
        self.tombstones = 0;
        self.floor = self.floor.max(newest.unwrap_or(0));
    }

    /// Stamps everything as of one position and forgets what was deleted before it.
    pub fn restamp(&mut self, stamp: u64) {
        self.forget_tombstones();
        for level in &mut self.levels {
            level.stamp = stamp;
        }
        self.floor = 0;
        self.top = if self.levels.is_empty() { 0 } else { stamp };
    }
}
