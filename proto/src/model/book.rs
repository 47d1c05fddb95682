//! Books: one market's whole state.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use super::delta::{Delta, SelectionDelta};
use super::fields::{MarketField, MarketStatus, PriceKind, SelectionField, SelectionStatus};
use super::ladder::{Ladder, Side};
use super::value::{Cells, Value};
use super::view::View;
use crate::limits::MAX_REMOVED;
use crate::position::Position;

/// A market's id as its source writes it, unique in a deployment.
pub type MarketId = Arc<str>;

/// A selection is known by its id and its handicap, in hundredths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SelectionKey {
    /// The source's selection id.
    pub id: i64,
    /// Handicap in hundredths; 0 where there is none.
    pub handicap: i64,
}

/// One selection of a book. Equality is of content.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Its fields.
    pub fields: Cells<SelectionField, { SelectionField::COUNT }>,
    /// Its ladders, by [`Side`].
    pub ladders: [Ladder; 3],
    /// Log number of its joining the book.
    joined: u64,
}

impl PartialEq for Selection {
    fn eq(&self, other: &Self) -> bool {
        self.fields == other.fields && self.ladders == other.ladders
    }
}

impl Eq for Selection {}

impl Selection {
    fn joining(stamp: u64) -> Self {
        Self { joined: stamp, ..Self::default() }
    }

    /// One ladder.
    #[must_use]
    pub fn ladder(&self, side: Side) -> &Ladder {
        &self.ladders[side as usize]
    }

    /// The status; active where none was given, hidden where it is none that this version knows.
    #[must_use]
    pub fn status(&self) -> SelectionStatus {
        match self.fields.int(SelectionField::Status) {
            None => SelectionStatus::Active,
            Some(code) => SelectionStatus::from_code(code).unwrap_or(SelectionStatus::Hidden),
        }
    }

    fn apply(&mut self, delta: &SelectionDelta, stamp: u64) {
        for (field, value) in &delta.fields {
            self.fields.set(*field, value.clone(), stamp);
        }
        for (ladder, change) in self.ladders.iter_mut().zip(&delta.ladders) {
            ladder.apply(change, stamp);
        }
    }
}

/// One market's whole state. Equality is of content; stamps, tombstones and floors do not count.
#[derive(Debug, Clone, Default)]
pub struct Book {
    /// Fields of the market.
    pub fields: Cells<MarketField, { MarketField::COUNT }>,
    /// Selections by key, which is also the canonical order.
    pub selections: BTreeMap<SelectionKey, Selection>,
    /// Selections that left, with the log number when they did.
    removed: Vec<(SelectionKey, u64)>,
    /// Bases below this are answered by a snapshot.
    floor: u64,
}

impl PartialEq for Book {
    fn eq(&self, other: &Self) -> bool {
        self.fields == other.fields && self.selections == other.selections
    }
}

impl Eq for Book {}

/// The answer to "what changed since?".
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "made one at a time and taken apart at once")]
pub enum Since {
    /// This did; empty where nothing that the view shows.
    Delta(Delta),
    /// More than is remembered: take a snapshot.
    Snapshot,
}

impl Book {
    /// The status; inactive where none was given.
    #[must_use]
    pub fn status(&self) -> MarketStatus {
        self.fields
            .int(MarketField::Status)
            .and_then(MarketStatus::from_code)
            .unwrap_or(MarketStatus::Inactive)
    }

    /// Whether the event is in play.
    #[must_use]
    pub fn in_play(&self) -> bool {
        self.fields.int(MarketField::InPlay) == Some(1)
    }

    /// Whether the best price to back is the highest.
    #[must_use]
    pub fn back_is_high(&self) -> bool {
        self.fields.int(MarketField::PriceKind) != Some(PriceKind::Probability.code())
    }

    /// Whether the best price of a side is the highest.
    #[must_use]
    pub fn best_is_high(&self, side: Side) -> bool {
        match side {
            Side::Back => self.back_is_high(),
            Side::Lay => !self.back_is_high(),
            Side::Traded => false,
        }
    }

    /// Applies a delta whole. `stamp` is its log number.
    pub fn apply(&mut self, delta: &Delta, stamp: u64) {
        self.remove(&delta.removed, stamp);
        for (field, value) in &delta.fields {
            self.fields.set(*field, value.clone(), stamp);
        }
        for (key, change) in &delta.selections {
            self.selections.entry(*key).or_insert_with(|| Selection::joining(stamp)).apply(change, stamp);
        }
    }

    /// Applies the difference between two states that are `from` and `to` apart in the log. What came and went between
    /// them is in no stamp, so that from before `to` no delta serves: who stands inside that step (it followed elsewhere)
    /// would keep what went, and one whose position is of its whole shard may stand there without saying so.
    pub fn leap(&mut self, delta: &Delta, from: u64, to: u64) {
        self.apply(delta, to);
        if to > from + 1 {
            self.floor = self.floor.max(to);
        }
    }

    fn remove(&mut self, keys: &[SelectionKey], stamp: u64) {
        for key in keys {
            if self.selections.remove(key).is_some() {
                self.removed.push((*key, stamp));
            }
        }
        self.bound_removed();
    }

    fn bound_removed(&mut self) {
        if self.removed.len() > MAX_REMOVED {
            let forgotten = self.removed.drain(..self.removed.len() - MAX_REMOVED).map(|r| r.1).max();
            self.floor = self.floor.max(forgotten.unwrap_or(0));
        }
    }

    /// Applies a delta and returns what of it was a change: no-ops are dropped, and so are deletes of levels that
    /// are not there, which `absent` counts. `None` where nothing changed.
    pub fn apply_effective(&mut self, delta: Delta, stamp: u64, absent: &mut u64) -> Option<Delta> {
        let mut effective = delta;
        effective.fields.retain(|(field, value)| self.fields.get(*field) != value.as_ref());
        effective.removed.retain(|key| self.selections.contains_key(key));
        self.remove(&effective.removed, stamp);
        for (field, value) in &effective.fields {
            self.fields.set(*field, value.clone(), stamp);
        }
        let selections = &mut self.selections;
        effective.selections.retain(|(key, change)| {
            let (selection, joins) = match selections.entry(*key) {
                Entry::Occupied(entry) => (entry.into_mut(), false),
                Entry::Vacant(entry) => (entry.insert(Selection::joining(stamp)), true),
            };
            change.fields.retain(|(field, value)| {
                let changed = selection.fields.get(*field) != value.as_ref();
                if changed {
                    selection.fields.set(*field, value.clone(), stamp);
                }
                changed
            });
            for (ladder, change) in selection.ladders.iter_mut().zip(&mut change.ladders) {
                if change.replace {
                    if !ladder.replace(&change.levels, stamp) {
                        *change = super::LadderDelta::default();
                    }
                    continue;
                }
                change.levels.retain(|(price, size)| {
                    let changed = ladder.set(*price, *size, stamp);
                    *absent += u64::from(!changed && *size == 0);
                    changed
                });
            }
            joins || !change.is_empty()
        });
        (!effective.is_empty()).then_some(effective)
    }

    /// The delta that makes `self` into `later`. Empty where they are equal.
    #[must_use]
    pub fn diff(&self, later: &Self) -> Delta {
        let mut delta = Delta::default();
        for (field, cell) in later.fields.cells() {
            if self.fields.get(field) != cell.value.as_ref() {
                delta.fields.push((field, cell.value.clone()));
            }
        }
        delta.removed.extend(self.selections.keys().filter(|k| !later.selections.contains_key(k)).copied());
        let empty = Selection::default();
        for (key, new) in &later.selections {
            let old = self.selections.get(key);
            let change = diff_selection(old.unwrap_or(&empty), new);
            if old.is_none() || !change.is_empty() {
                delta.selections.push((*key, change));
            }
        }
        delta
    }

    /// What changed after `base`, as `view` shows it.
    #[must_use]
    pub fn since(&self, base: u64, view: View) -> Since {
        if base < self.floor {
            return Since::Snapshot;
        }
        let mut delta = Delta::default();
        for (field, cell) in self.fields.cells() {
            if cell.stamp > base {
                delta.fields.push((field, cell.value.clone()));
            }
        }
        for (key, stamp) in &self.removed {
            if *stamp > base {
                delta.remove(*key);
            }
        }
        for (key, selection) in &self.selections {
            let mut change = SelectionDelta::default();
            for (field, cell) in selection.fields.cells() {
                if cell.stamp > base {
                    change.fields.push((field, cell.value.clone()));
                }
            }
            for side in Side::ALL {
                let ladder = selection.ladder(side);
                *change.ladder_mut(side) = match view.depth() {
                    None => ladder.since(base),
                    Some(depth) if side != Side::Traded && ladder.top() > base => {
                        view.whole_side(ladder, depth, self.best_is_high(side))
                    }
                    Some(_) => super::LadderDelta::default(),
                };
            }
            if !change.is_empty() || selection.joined > base {
                delta.selections.push((*key, change));
            }
        }
        Since::Delta(delta)
    }

    /// Makes the book a snapshot as of one log number: everything carries it, and older bases need a snapshot.
    pub fn restamp(&mut self, stamp: u64) {
        self.removed.clear();
        self.floor = stamp;
        self.fields.restamp(stamp);
        for selection in self.selections.values_mut() {
            selection.joined = stamp;
            selection.fields.restamp(stamp);
            for ladder in &mut selection.ladders {
                ladder.restamp(stamp);
            }
        }
    }

    /// Notes a change of the past that went into this book, after [`Self::restamp`] with where the first of them starts:
    /// from then on the book answers [`Self::since`] as one that was changed step by step. In the log's order.
    pub fn touch(&mut self, delta: &Delta, stamp: u64) {
        for key in &delta.removed {
            self.removed.retain(|r| r.0 != *key);
            self.removed.push((*key, stamp));
        }
        self.bound_removed();
        for (field, _) in &delta.fields {
            self.fields.touch(*field, stamp);
        }
        for (key, change) in &delta.selections {
            let Some(selection) = self.selections.get_mut(key) else { continue };
            // Its first mention may have been its joining; to say so of one that was there does no harm.
            let removed = self.removed.iter().find(|r| r.0 == *key).map_or(0, |r| r.1);
            if selection.joined <= self.floor.max(removed) {
                selection.joined = stamp;
            }
            for (field, _) in &change.fields {
                selection.fields.touch(*field, stamp);
            }
            for (ladder, change) in selection.ladders.iter_mut().zip(&change.ladders) {
                ladder.touch(change, stamp);
            }
        }
    }

    /// Whether the best prices of a selection cross.
    #[must_use]
    pub fn is_crossed(&self, selection: &Selection) -> bool {
        let best = |side| selection.ladder(side).best_first(self.best_is_high(side)).next();
        match (best(Side::Back), best(Side::Lay)) {
            (Some((back, _)), Some((lay, _))) if self.back_is_high() => back >= lay,
            (Some((back, _)), Some((lay, _))) => back <= lay,
            _ => false,
        }
    }

    /// Sets a field of the market, for building books by hand.
    pub fn set(&mut self, field: MarketField, value: impl Into<Value>) {
        self.fields.set(field, Some(value.into()), 0);
    }
}

fn diff_selection(old: &Selection, new: &Selection) -> SelectionDelta {
    let mut change = SelectionDelta::default();
    for (field, cell) in new.fields.cells() {
        if old.fields.get(field) != cell.value.as_ref() {
            change.fields.push((field, cell.value.clone()));
        }
    }
    for side in Side::ALL {
        let (old, new) = (old.ladder(side), new.ladder(side));
        let levels = &mut change.ladder_mut(side).levels;
        levels.extend(old.iter().filter(|l| new.size(l.0) == 0).map(|l| (l.0, 0)));
        levels.extend(new.iter().filter(|l| old.size(l.0) != l.1));
        levels.sort_unstable();
    }
    change
}

/// A market as whoever follows it holds it: the book, where it stands, and the last stop that named it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Market {
    /// Its id.
    pub id: MarketId,
    /// Its book.
    pub book: Book,
    /// Where the book stands.
    pub at: Position,
    /// The last stop that named the market; [`Position::ZERO`] where none did.
    pub stop: Position,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn before_the_end_of_a_leap_only_a_snapshot_serves() {
        let key = SelectionKey { id: 1, handicap: 0 };
        let with = |size| {
            let mut delta = Delta::default();
            delta.selection_mut(key).ladder_mut(Side::Back).set(100, size);
            delta
        };
        let mut book = Book::default();
        book.apply(&with(5), 10);
        // At 12 the level went, at 18 it was back as before: the difference of 10 and 20 does not show it.
        let mut later = book.clone();
        later.apply(&with(0), 12);
        later.apply(&with(5), 18);
        let delta = book.diff(&later);
        book.leap(&delta, 10, 20);
        assert_eq!(book.since(15, View::All), Since::Snapshot);
        // It may stand at 15: a position of its shard says only that all up to there was seen.
        assert_eq!(book.since(10, View::All), Since::Snapshot);
        assert_eq!(book.since(20, View::All), Since::Delta(Delta::default()));
        // One entry is no leap.
        book.leap(&Delta::default(), 20, 21);
        assert_eq!(book.since(20, View::All), Since::Delta(Delta::default()));
    }
}
