//! The laws of deltas, over random books and histories.

use proptest::prelude::*;
use tictac_proto::checksum::checksum;
use tictac_proto::model::{
    Book, Delta, LadderDelta, MarketField, MarketId, SelectionField, SelectionKey, Side, Since, Value, View,
    ViewTracker,
};

fn value() -> impl Strategy<Value = Option<Value>> {
    prop_oneof![
        Just(None),
        (0i64..4).prop_map(|v| Some(Value::Int(v))),
        "[a-c]".prop_map(|t| Some(Value::Text(t.as_str().into()))),
    ]
}

fn ladder() -> impl Strategy<Value = LadderDelta> {
    (prop::bool::weighted(0.1), prop::collection::btree_map(100i64..116, 0i64..3, 0..5))
        .prop_map(|(replace, levels)| LadderDelta { replace, levels: levels.into_iter().collect() })
}

fn key() -> impl Strategy<Value = SelectionKey> {
    (1i64..4, prop_oneof![Just(0i64), Just(-25i64)]).prop_map(|(id, handicap)| SelectionKey { id, handicap })
}

fn delta() -> impl Strategy<Value = Delta> {
    let selection = (
        prop::collection::vec((0usize..3, value()), 0..3),
        prop::collection::vec((0usize..3, ladder()), 0..3),
    );
    (
        prop::collection::vec((0usize..3, value()), 0..3),
        prop::collection::vec(key(), 0..2),
        prop::collection::vec((key(), selection), 0..3),
    )
        .prop_map(|(fields, removed, selections)| {
            let mut delta = Delta::default();
            for (i, v) in fields {
                delta.set([MarketField::Status, MarketField::Name, MarketField::Matched][i], v);
            }
            for key in removed {
                delta.remove(key);
            }
            for (key, (fields, ladders)) in selections {
                let change = delta.selection_mut(key);
                for (i, v) in fields {
                    change.set([SelectionField::Name, SelectionField::Last, SelectionField::Status][i], v);
                }
                for (i, l) in ladders {
                    *change.ladder_mut(Side::ALL[i]) = l;
                }
            }
            delta
        })
}

fn history(max: usize) -> impl Strategy<Value = Vec<Delta>> {
    prop::collection::vec(delta(), 1..max)
}

fn built(history: &[Delta]) -> Book {
    let mut book = Book::default();
    for (i, d) in history.iter().enumerate() {
        book.apply(d, i as u64 + 1);
    }
    book
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn diff_then_apply_gives_the_later_book(a in history(8), b in history(8)) {
        let (old, new) = (built(&a), built(&b));
        let mut book = old.clone();
        book.apply(&old.diff(&new), 99);
        prop_assert_eq!(&book, &new);
        prop_assert!(new.diff(&new).is_empty());
    }

    #[test]
    fn merge_is_applying_in_turn_and_associative(base in history(6), a in delta(), b in delta(), c in delta()) {
        let mut in_turn = built(&base);
        for d in [&a, &b, &c] {
            in_turn.apply(d, 50);
        }
        let mut left = a.clone();
        left.merge(&b);
        left.merge(&c);
        let mut right_part = b.clone();
        right_part.merge(&c);
        let mut right = a.clone();
        right.merge(&right_part);
        for merged in [left, right] {
            let mut at_once = built(&base);
            at_once.apply(&merged, 50);
            prop_assert_eq!(&at_once, &in_turn);
        }
    }

    #[test]
    fn effective_changes_are_the_changes(base in history(8), d in delta()) {
        let (mut by_delta, mut by_effective) = (built(&base), built(&base));
        by_delta.apply(&d, 60);
        let before = by_effective.clone();
        let effective = by_effective.apply_effective(d, 60, &mut 0);
        prop_assert_eq!(&by_delta, &by_effective);
        prop_assert_eq!(effective.is_none(), before == by_effective && effective.is_none());
        if let Some(effective) = effective {
            let mut again = before;
            again.apply(&effective, 60);
            prop_assert_eq!(&again, &by_effective);
            // What was just applied is no change any more, but for selections that it takes out and puts in anew.
            if effective.removed.is_empty() {
                prop_assert_eq!(by_effective.apply_effective(effective, 61, &mut 0), None);
            }
        } else {
            prop_assert_eq!(&before, &by_effective);
        }
    }

    #[test]
    fn since_any_base_gives_every_view(h in history(14), cut in 0usize..14) {
        let cut = cut.min(h.len());
        let whole = built(&h);
        let older = built(&h[..cut]);
        for view in View::ALL {
            // Any base at or below the client's position serves it.
            for base in cut.saturating_sub(2)..=cut {
                let mut seen = view.project(&older);
                match whole.since(base as u64, view) {
                    Since::Delta(delta) => seen.apply(&delta, h.len() as u64),
                    Since::Snapshot => prop_assert!(false, "nothing was forgotten"),
                }
                prop_assert_eq!(&seen, &view.project(&whole), "view {:?} base {}", view, base);
            }
        }
    }

    #[test]
    fn a_snapshot_with_the_log_before_it_serves_as_one_that_was_followed(
        h in history(14), start in 0usize..14, base in 0usize..14,
    ) {
        let start = start.min(h.len());
        let mut snapshot = built(&h);
        snapshot.restamp(start as u64);
        for (i, d) in h.iter().enumerate().skip(start) {
            snapshot.touch(d, i as u64 + 1);
        }
        prop_assert_eq!(&snapshot, &built(&h), "no content is touched");
        let base = base.min(h.len());
        for view in View::ALL {
            let mut seen = view.project(&built(&h[..base]));
            match snapshot.since(base as u64, view) {
                Since::Delta(delta) => {
                    prop_assert!(base >= start);
                    seen.apply(&delta, h.len() as u64);
                    prop_assert_eq!(&seen, &view.project(&snapshot), "view {:?} base {}", view, base);
                }
                Since::Snapshot => prop_assert!(base < start),
            }
        }
    }

    #[test]
    fn a_tracked_view_is_the_projected_book(h in history(14)) {
        let id = MarketId::from("1.1");
        for view in View::ALL {
            if view == View::All { continue; }
            let mut book = Book::default();
            let mut tracker = ViewTracker::new(view, &book);
            let mut seen = view.project(&book);
            for (i, d) in h.iter().enumerate() {
                let stamp = i as u64 + 1;
                if let Some(effective) = book.apply_effective(d.clone(), stamp, &mut 0)
                    && let Some(step) = tracker.step(&book, &effective) {
                    seen.apply(&step, stamp);
                }
                prop_assert_eq!(&seen, &view.project(&book));
                prop_assert_eq!(checksum(&id, &seen, view), checksum(&id, &book, view));
            }
        }
    }

    #[test]
    fn forgetting_tombstones_costs_bytes_not_truth(h in history(14), cut in 0usize..14, forget in 0usize..14) {
        let cut = cut.min(h.len());
        let mut whole = Book::default();
        for (i, d) in h.iter().enumerate() {
            whole.apply(d, i as u64 + 1);
            if i == forget {
                for ladder in whole.selections.values_mut().flat_map(|s| &mut s.ladders) {
                    ladder.forget_tombstones();
                }
            }
        }
        let mut seen = built(&h[..cut]);
        if let Since::Delta(delta) = whole.since(cut as u64, View::All) {
            seen.apply(&delta, 99);
        }
        prop_assert_eq!(seen, whole);
    }
}
