//! What the simulator knows to be true, in plain maps: kept apart from books and deltas, so that it can judge them.

use std::collections::BTreeMap;

use tictac_proto::model::{
    Book, Delta, Ladder, MarketField, MarketStatus, Selection, SelectionDelta, SelectionField, SelectionKey,
    Side, Value,
};

/// One market as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TruthMarket {
    /// The fields that are set.
    pub fields: BTreeMap<MarketField, Value>,
    /// Its selections.
    pub selections: BTreeMap<SelectionKey, TruthSelection>,
}

/// One selection as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TruthSelection {
    /// The fields that are set.
    pub fields: BTreeMap<SelectionField, Value>,
    /// Its ladders by [`Side`]: size by price, none of them 0.
    pub ladders: [BTreeMap<i64, i64>; 3],
}

impl TruthSelection {
    /// One ladder.
    #[must_use]
    pub fn ladder(&self, side: Side) -> &BTreeMap<i64, i64> {
        &self.ladders[side as usize]
    }

    /// The best price and size to back.
    #[must_use]
    pub fn best_back(&self) -> Option<(i64, i64)> {
        self.ladder(Side::Back).last_key_value().map(|(p, s)| (*p, *s))
    }

    /// The best price and size to lay.
    #[must_use]
    pub fn best_lay(&self) -> Option<(i64, i64)> {
        self.ladder(Side::Lay).first_key_value().map(|(p, s)| (*p, *s))
    }

    /// An integer field.
    #[must_use]
    pub fn int(&self, field: SelectionField) -> Option<i64> {
        self.fields.get(&field).and_then(Value::int)
    }

    /// A text field.
    #[must_use]
    pub fn text(&self, field: SelectionField) -> Option<&str> {
        self.fields.get(&field).and_then(Value::text)
    }
}

impl TruthMarket {
    /// An integer field.
    #[must_use]
    pub fn int(&self, field: MarketField) -> Option<i64> {
        self.fields.get(&field).and_then(Value::int)
    }

    /// A text field.
    #[must_use]
    pub fn text(&self, field: MarketField) -> Option<&str> {
        self.fields.get(&field).and_then(Value::text)
    }

    /// The status; inactive where none is set.
    #[must_use]
    pub fn status(&self) -> MarketStatus {
        self.int(MarketField::Status).and_then(MarketStatus::from_code).unwrap_or(MarketStatus::Inactive)
    }

    /// What of a book differs, in words; `None` where nothing does. What ingest itself adds to a book (the number of
    /// suspensions, the crossed flag) is not compared.
    #[must_use]
    pub fn differs(&self, book: &Book) -> Option<String> {
        let own = |f: &MarketField| !matches!(f, MarketField::Suspensions | MarketField::Crossed);
        let fields: BTreeMap<_, _> =
            book.fields.iter().filter(|(f, _)| own(f)).map(|(f, v)| (f, v.clone())).collect();
        if fields != self.fields {
            return Some(format!("fields: book {fields:?}, truth {:?}", self.fields));
        }
        if !self.selections.keys().eq(book.selections.keys()) {
            return Some(format!("selections: book {:?}", book.selections.keys()));
        }
        self.selections.iter().find_map(|(key, truth)| {
            let selection = &book.selections[key];
            differs_selection(truth, selection).map(|what| format!("selection {key:?}: {what}"))
        })
    }

    /// The delta that makes an empty book into this.
    #[must_use]
    pub fn whole(&self) -> Delta {
        let mut delta = Delta::default();
        for (field, value) in &self.fields {
            delta.set(*field, Some(value.clone()));
        }
        for (key, selection) in &self.selections {
            let change: &mut SelectionDelta = delta.selection_mut(*key);
            for (field, value) in &selection.fields {
                change.set(*field, Some(value.clone()));
            }
            for side in Side::ALL {
                change.ladder_mut(side).levels.extend(selection.ladder(side).iter().map(|(p, s)| (*p, *s)));
            }
        }
        delta
    }
}

fn differs_selection(truth: &TruthSelection, selection: &Selection) -> Option<String> {
    let fields: BTreeMap<_, _> = selection.fields.iter().map(|(f, v)| (f, v.clone())).collect();
    if fields != truth.fields {
        return Some(format!("book {fields:?}, truth {:?}", truth.fields));
    }
    Side::ALL.into_iter().find_map(|side| {
        let ladder: &Ladder = selection.ladder(side);
        let levels: BTreeMap<i64, i64> = ladder.iter().collect();
        (levels != *truth.ladder(side))
            .then(|| format!("{side:?}: book {levels:?}, truth {:?}", truth.ladder(side)))
    })
}
