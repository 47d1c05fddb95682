//! Deltas. Absent = unchanged, null = cleared, value = replaced; a ladder level is absolute and size 0 deletes it.
//! Because every value is absolute, overlap is safe: a delta that starts before a book's position does no harm.
//!
//! Laws (property tests hold them): `apply(x, diff(x, y)) = y`; `diff(x, x)` is empty;
//! `apply(apply(x, a), b) = apply(x, merge(a, b))`; `merge` is associative.

use smallvec::SmallVec;

use super::book::SelectionKey;
use super::fields::{MarketField, SelectionField};
use super::ladder::Side;
use super::value::Value;

/// `(price, size)` of a ladder's levels. Six without the heap: on recorded markets few changes have more.
pub type Levels = SmallVec<[(i64, i64); 6]>;

/// Changed fields, by ascending number; `None` clears.
pub type FieldChanges<F> = SmallVec<[(F, Option<Value>); 2]>;

/// A change of one market's book.
///
/// Applied whole: first `removed`, then `fields`, then `selections`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Delta {
    /// Changed fields of the market.
    pub fields: FieldChanges<MarketField>,
    /// Selections that leave the book.
    pub removed: SmallVec<[SelectionKey; 1]>,
    /// Changed selections, by ascending key; one that is not in the book joins it.
    pub selections: SmallVec<[(SelectionKey, SelectionDelta); 1]>,
}

/// A change of one selection.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SelectionDelta {
    /// Changed fields.
    pub fields: FieldChanges<SelectionField>,
    /// Changes of the three ladders, by [`Side`].
    pub ladders: [LadderDelta; 3],
}

/// A change of one ladder.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LadderDelta {
    /// Whether `levels` is all that is left, rather than what changed.
    pub replace: bool,
    /// `(price, size)` by ascending price; size 0 deletes.
    pub levels: Levels,
}

impl LadderDelta {
    /// Whether it says nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.replace && self.levels.is_empty()
    }

    /// Sets one level, keeping the order.
    pub fn set(&mut self, price: i64, size: i64) {
        match self.levels.binary_search_by_key(&price, |l| l.0) {
            Ok(i) => self.levels[i].1 = size,
            Err(i) => self.levels.insert(i, (price, size)),
        }
    }

    fn merge(&mut self, later: &Self) {
        if later.replace {
            self.clone_from(later);
            return;
        }
        for (price, size) in &later.levels {
            self.set(*price, *size);
        }
        if self.replace {
            self.levels.retain(|l| l.1 != 0);
        }
    }
}

/// Sets one field among changes, keeping the order of the table.
pub(crate) fn set_field<F: Copy + Ord>(changes: &mut FieldChanges<F>, field: F, value: Option<Value>) {
    match changes.binary_search_by_key(&field, |c| c.0) {
        Ok(i) => changes[i].1 = value,
        Err(i) => changes.insert(i, (field, value)),
    }
}

impl SelectionDelta {
    /// Whether it says nothing. (A selection that joins with nothing set still says something in a [`Delta`].)
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty() && self.ladders.iter().all(LadderDelta::is_empty)
    }

    /// Sets a field.
    pub fn set(&mut self, field: SelectionField, value: Option<Value>) {
        set_field(&mut self.fields, field, value);
    }

    /// The change of one ladder.
    #[must_use]
    pub fn ladder(&self, side: Side) -> &LadderDelta {
        &self.ladders[side as usize]
    }

    /// The change of one ladder, to be written.
    pub fn ladder_mut(&mut self, side: Side) -> &mut LadderDelta {
        &mut self.ladders[side as usize]
    }

    fn merge(&mut self, later: &Self) {
        for (field, value) in &later.fields {
            self.set(*field, value.clone());
        }
        for (mine, theirs) in self.ladders.iter_mut().zip(&later.ladders) {
            mine.merge(theirs);
        }
    }
}

impl Delta {
    /// Whether it says nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty() && self.removed.is_empty() && self.selections.is_empty()
    }

    /// Sets a field of the market.
    pub fn set(&mut self, field: MarketField, value: Option<Value>) {
        set_field(&mut self.fields, field, value);
    }

    /// What the delta says of a field: `None` where it says nothing, `Some(None)` where it clears it.
    #[must_use]
    pub fn get(&self, field: MarketField) -> Option<Option<&Value>> {
        self.fields.iter().find(|c| c.0 == field).map(|c| c.1.as_ref())
    }

    /// The change of one selection, joined to the delta where it is not yet in it.
    pub fn selection_mut(&mut self, key: SelectionKey) -> &mut SelectionDelta {
        let i = match self.selections.binary_search_by_key(&key, |s| s.0) {
            Ok(i) => i,
            Err(i) => {
                self.selections.insert(i, (key, SelectionDelta::default()));
                i
            }
        };
        &mut self.selections[i].1
    }

    /// Removes a selection.
    pub fn remove(&mut self, key: SelectionKey) {
        self.selections.retain(|s| s.0 != key);
        if let Err(i) = self.removed.binary_search(&key) {
            self.removed.insert(i, key);
        }
    }

    /// Takes in a later delta: applying the result is applying both in turn.
    pub fn merge(&mut self, later: &Self) {
        for (field, value) in &later.fields {
            self.set(*field, value.clone());
        }
        for key in &later.removed {
            self.remove(*key);
        }
        for (key, change) in &later.selections {
            self.selection_mut(*key).merge(change);
        }
    }
}
