//! Views: what of a book a client sees, and the tracker that turns a market's deltas into a depth view's deltas.

use std::collections::BTreeMap;

use smallvec::SmallVec;

use super::book::{Book, Selection, SelectionKey};
use super::delta::{Delta, LadderDelta, Levels, SelectionDelta};
use super::ladder::{Ladder, Side};
use crate::guard::{Guard, on};

/// A projection of a book: so many best levels of back and lay without the traded ladder, or everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum View {
    /// Everything, the traded ladder included. 0 on the wire.
    All,
    /// Best prices.
    One,
    /// Three levels.
    Three,
    /// Ten levels.
    Ten,
}

impl View {
    /// All four.
    pub const ALL: [Self; 4] = [Self::All, Self::One, Self::Three, Self::Ten];

    /// The depth; `None` for everything.
    #[must_use]
    pub fn depth(self) -> Option<usize> {
        match self {
            Self::All => None,
            Self::One => Some(1),
            Self::Three => Some(3),
            Self::Ten => Some(10),
        }
    }

    /// The number on the wire: the depth, 0 for everything.
    #[must_use]
    pub fn code(self) -> i64 {
        self.depth().map_or(0, |d| d as i64)
    }

    /// The view with this number.
    #[must_use]
    pub fn from_code(code: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|v| v.code() == code)
    }

    /// The view as a query writes it: `1`, `3`, `10`, `all`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "all" | "0" => Some(Self::All),
            "1" => Some(Self::One),
            "3" => Some(Self::Three),
            "10" => Some(Self::Ten),
            _ => None,
        }
    }

    /// Whether the view shows a side at all.
    #[must_use]
    pub fn shows(self, side: Side) -> bool {
        self == Self::All || side != Side::Traded
    }

    /// What the view shows of a side, best first.
    pub fn levels(self, ladder: &Ladder, best_is_high: bool) -> impl Iterator<Item = (i64, i64)> + '_ {
        ladder.best_first(best_is_high).take(self.depth().unwrap_or(usize::MAX))
    }

    pub(super) fn whole_side(self, ladder: &Ladder, depth: usize, best_is_high: bool) -> LadderDelta {
        let mut levels: Levels = ladder.best_first(best_is_high).take(depth).collect();
        if best_is_high {
            levels.reverse();
        }
        LadderDelta { replace: on(Guard::ViewDeletes), levels }
    }

    /// The book as this view shows it.
    #[must_use]
    pub fn project(self, book: &Book) -> Book {
        let Some(depth) = self.depth() else { return book.clone() };
        let mut seen = Book::default();
        seen.fields = book.fields.clone();
        for (key, selection) in &book.selections {
            let mut shown = Selection::default();
            shown.fields = selection.fields.clone();
            for side in [Side::Back, Side::Lay] {
                let top = self.whole_side(selection.ladder(side), depth, book.best_is_high(side));
                shown.ladders[side as usize].apply(&top, 0);
            }
            seen.selections.insert(*key, shown);
        }
        seen
    }
}

type Top = SmallVec<[(i64, i64); 10]>;

/// Follows a market's book at a depth and says what each delta changes in what the view shows, so that levels that
/// leave the depth are deleted explicitly.
#[derive(Debug, Clone)]
pub struct ViewTracker {
    view: View,
    shown: BTreeMap<SelectionKey, [Top; 2]>,
}

impl ViewTracker {
    /// A tracker that starts from a book.
    #[must_use]
    pub fn new(view: View, book: &Book) -> Self {
        let mut tracker = Self { view, shown: BTreeMap::new() };
        if view != View::All {
            for (key, selection) in &book.selections {
                let tops = [Side::Back, Side::Lay].map(|side| tracker.top(book, selection, side));
                tracker.shown.insert(*key, tops);
            }
        }
        tracker
    }

    fn top(&self, book: &Book, selection: &Selection, side: Side) -> Top {
        self.view.levels(selection.ladder(side), book.best_is_high(side)).collect()
    }

    /// What `delta`, just applied to `book`, changes in the view; `None` where it does not touch it.
    pub fn step(&mut self, book: &Book, delta: &Delta) -> Option<Delta> {
        let mut seen =
            Delta { fields: delta.fields.clone(), removed: delta.removed.clone(), ..Delta::default() };
        for key in &delta.removed {
            self.shown.remove(key);
        }
        for (key, change) in &delta.selections {
            let Some(selection) = book.selections.get(key) else { continue };
            let mut step = SelectionDelta { fields: change.fields.clone(), ..SelectionDelta::default() };
            let joins = !self.shown.contains_key(key);
            for side in [Side::Back, Side::Lay] {
                if change.ladder(side).is_empty() {
                    continue;
                }
                let new = self.top(book, selection, side);
                let old = &mut self.shown.entry(*key).or_default()[side as usize];
                let levels = step.ladder_mut(side);
                for (price, _) in old.iter() {
                    let gone = on(Guard::ViewDeletes) || selection.ladder(side).size(*price) == 0;
                    if gone && !new.iter().any(|l| l.0 == *price) {
                        levels.set(*price, 0);
                    }
                }
                for level in &new {
                    if !old.contains(level) {
                        levels.set(level.0, level.1);
                    }
                }
                *old = new;
            }
            if joins {
                self.shown.entry(*key).or_default();
            }
            if joins || !step.is_empty() {
                seen.selections.push((*key, step));
            }
        }
        (!seen.is_empty()).then_some(seen)
    }
}
