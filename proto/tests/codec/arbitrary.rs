//! Random messages, log entries and books, with the values that codecs get wrong: texts that need escaping, the
//! largest integers, every combination of optional keys.

use std::sync::Arc;

use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use tictac_proto::limits::MAX_INT;
use tictac_proto::log::{Alive, Entry, FeedReport, Stored, What};
use tictac_proto::model::fields::FieldType;
use tictac_proto::model::{
    Book, Delta, Field, FieldChanges, LadderDelta, MarketField, SelectionDelta, SelectionField, SelectionKey,
    Side, Value, View,
};
use tictac_proto::position::Position;
use tictac_proto::wire::{
    Catalogue, Conflate, DeltaHead, Down, ErrorCode, FeedNews, FeedState, Heartbeat, How, Problem, Resume,
    Scope, SnapHead, Subscribe, Subscribed, Times, Up, Welcome,
};

const AWKWARD: &[char] = &[
    '<', '>', '&', '"', '\'', '\\', '/', '\0', '\u{1}', '\u{8}', '\t', '\n', '\u{c}', '\r', '\u{1f}',
    '\u{7f}', '\u{e2}', '\u{2027}', '\u{2028}', '\u{2029}', '\u{202a}', '\u{feff}', 'é', '馬', '😀', 'a',
];

pub(crate) fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => vec(select(AWKWARD), 0..12).prop_map(|v| v.into_iter().collect()),
        1 => any::<String>(),
        1 => "[a-z ]{0,80}",
    ]
}

fn shared() -> impl Strategy<Value = Arc<str>> {
    text().prop_map(Arc::from)
}

/// An id as a client may name it: 1 to 64 bytes.
fn id() -> impl Strategy<Value = Arc<str>> {
    prop_oneof!["[0-9.]{1,64}", vec(select(AWKWARD), 1..16).prop_map(|v| v.into_iter().collect::<String>())]
        .prop_map(Arc::from)
}

pub(crate) fn int() -> impl Strategy<Value = i64> {
    let edges = [
        0,
        -1,
        -32,
        -33,
        127,
        128,
        255,
        256,
        -128,
        -129,
        65_535,
        65_536,
        i64::from(i32::MIN),
        i64::from(u32::MAX),
        1 << 32,
        MAX_INT,
        -MAX_INT,
    ];
    prop_oneof![select(edges.to_vec()), -MAX_INT..=MAX_INT, -1000i64..1000]
}

fn uint() -> impl Strategy<Value = u64> {
    int().prop_map(i64::unsigned_abs)
}

fn position() -> impl Strategy<Value = Position> {
    (uint(), uint()).prop_map(|(epoch, seq)| Position::new(epoch, seq))
}

/// A stop, or none.
fn stop() -> impl Strategy<Value = Position> {
    prop_oneof![Just(Position::ZERO), position()]
}

fn times() -> impl Strategy<Value = Times> {
    let ms = || prop_oneof![Just(0i64), 0i64..1 << 45];
    (ms(), ms(), ms(), ms()).prop_map(|(source, received, published, encoded)| Times {
        source,
        received,
        published,
        encoded,
    })
}

fn value(kind: FieldType) -> BoxedStrategy<Value> {
    match kind {
        FieldType::Text => shared().prop_map(Value::Text).boxed(),
        FieldType::Bool => (0i64..=1).prop_map(Value::Int).boxed(),
        // One code more than there are names: a newer peer's code passes through.
        FieldType::Enum(names) => (0..=names.len() as i64).prop_map(Value::Int).boxed(),
        FieldType::Int => int().prop_map(Value::Int).boxed(),
    }
}

fn changes<F: Field + Ord>(clears: bool) -> impl Strategy<Value = FieldChanges<F>> {
    let change = (0..F::ALL.len()).prop_flat_map(move |i| {
        let set = value(F::ALL[i].kind());
        let value = if clears { option::of(set).boxed() } else { set.prop_map(Some).boxed() };
        (Just(i), value)
    });
    vec(change, 0..6).prop_map(|list| {
        let by_number: std::collections::BTreeMap<_, _> = list.into_iter().collect();
        by_number.into_iter().map(|(i, v)| (F::ALL[i], v)).collect()
    })
}

fn ladder() -> impl Strategy<Value = LadderDelta> {
    (any::<bool>(), btree_map(int(), prop_oneof![Just(0i64), int()], 0..6))
        .prop_map(|(replace, levels)| LadderDelta { replace, levels: levels.into_iter().collect() })
}

fn selection_key() -> impl Strategy<Value = SelectionKey> {
    (int(), int()).prop_map(|(id, handicap)| SelectionKey { id, handicap })
}

fn selection() -> impl Strategy<Value = SelectionDelta> {
    (changes::<SelectionField>(true), [ladder(), ladder(), ladder()])
        .prop_map(|(fields, ladders)| SelectionDelta { fields, ladders })
}

pub(crate) fn delta() -> impl Strategy<Value = Delta> {
    (
        changes::<MarketField>(true),
        btree_set(selection_key(), 0..3),
        btree_map(selection_key(), selection(), 0..4),
    )
        .prop_map(|(fields, removed, selections)| Delta {
            fields,
            removed: removed.into_iter().collect(),
            selections: selections.into_iter().collect(),
        })
}

/// A book with deeper ladders than any view shows, and prices of either kind.
pub(crate) fn book() -> impl Strategy<Value = Book> {
    let deep = || {
        btree_map(100i64..160, 1i64..1000, 0..16)
            .prop_map(|l| LadderDelta { replace: false, levels: l.into_iter().collect() })
    };
    let joined = (changes::<SelectionField>(false), [deep(), deep(), deep()])
        .prop_map(|(fields, ladders)| SelectionDelta { fields, ladders });
    (changes::<MarketField>(false), btree_map(selection_key(), joined, 0..4), 0i64..3).prop_map(
        |(fields, selections, kind)| {
            let mut delta =
                Delta { fields, selections: selections.into_iter().collect(), ..Delta::default() };
            delta.set(MarketField::PriceKind, Some(Value::Int(kind)));
            let mut book = Book::default();
            book.apply(&delta, 1);
            // Deleted levels are remembered in the book, and must show in nothing that is written.
            for selection in book.selections.values_mut() {
                let best = selection.ladder(Side::Back).iter().next();
                if let Some((price, _)) = best {
                    selection.ladders[Side::Back as usize].set(price, 0, 2);
                }
            }
            book
        },
    )
}

fn view() -> impl Strategy<Value = View> {
    select(View::ALL.to_vec())
}

fn feed_state() -> impl Strategy<Value = FeedState> {
    select(FeedState::ALL.to_vec())
}

fn conflate() -> impl Strategy<Value = Conflate> {
    prop_oneof![
        Just(Conflate::Raw),
        Just(Conflate::Auto),
        select(vec![100, 250, 500, 1000]).prop_map(Conflate::Every)
    ]
}

pub(crate) fn snap_head() -> impl Strategy<Value = SnapHead> {
    (shared(), view(), position(), stop(), any::<u16>(), feed_state(), times()).prop_map(
        |(market, view, at, stop, shard, feed, times)| SnapHead {
            market,
            view,
            at,
            stop,
            shard,
            feed,
            times,
        },
    )
}

fn subscribed() -> impl Strategy<Value = Down> {
    let market = (id(), position(), stop(), any::<u16>(), shared(), feed_state(), select(How::ALL.to_vec()));
    (int(), view(), conflate(), option::of(market)).prop_map(|(id, view, conflate, market)| {
        let (market, at, stop, shard, source, feed, how) = market.unwrap_or_else(|| {
            let none: Arc<str> = "".into();
            (none.clone(), Position::ZERO, Position::ZERO, 0, none, FeedState::Live, How::Snap)
        });
        Down::Ok(Subscribed { id, market, view, conflate, at, stop, shard, source, feed, how })
    })
}

fn problem() -> impl Strategy<Value = Down> {
    (
        option::of(int()),
        option::of(shared()),
        select(ErrorCode::ALL.to_vec()),
        text(),
        option::of(uint()),
        any::<bool>(),
    )
        .prop_map(|(id, market, code, why, retry, fatal)| {
            Down::Err(Problem { id, market, code, why, retry, fatal })
        })
}

/// Every message that goes down.
pub(crate) fn down() -> impl Strategy<Value = Down> {
    let welcome = (text(), uint(), int(), btree_map(text(), int(), 0..4)).prop_map(
        |(connection, heartbeat, now, limits)| {
            Down::Welcome(Welcome { connection, heartbeat, now, limits: limits.into_iter().collect() })
        },
    );
    let delta_message = (shared(), view(), uint(), uint(), uint(), times(), delta()).prop_map(
        |(market, view, epoch, prev, seq, times, delta)| {
            Down::Delta(DeltaHead { market, view, epoch, prev, seq, times }, delta)
        },
    );
    let catalogue = (any::<bool>(), vec((shared(), changes::<MarketField>(true)), 0..3), vec(shared(), 0..3))
        .prop_map(|(full, markets, gone)| Down::Catalogue(Catalogue { full, markets, gone }));
    prop_oneof![
        welcome,
        subscribed(),
        problem(),
        (snap_head(), delta()).prop_map(|(head, delta)| Down::Snap(head, delta)),
        delta_message,
        (shared(), position(), option::of(shared())).prop_map(|(market, at, why)| Down::Stop {
            market,
            at,
            why
        }),
        (shared(), any::<u16>(), feed_state(), int()).prop_map(|(source, shard, state, as_of)| {
            Down::Feed(FeedNews { source, shard, state, as_of })
        }),
        (shared(), view(), position(), position()).prop_map(|(market, view, from, to)| Down::Gap {
            market,
            view,
            from,
            to
        }),
        (shared(), position(), text()).prop_map(|(market, at, why)| Down::Gone { market, at, why }),
        catalogue,
        (shared(), view(), position(), any::<u32>()).prop_map(|(market, view, at, checksum)| Down::Crc {
            market,
            view,
            at,
            checksum
        }),
        (int(), option::of(int()), uint(), option::of(int()), any::<u32>()).prop_map(
            |(now, echo, behind, as_of, digest)| Down::Hb(Heartbeat { now, echo, behind, as_of, digest })
        ),
        (any::<u16>(), text(), uint()).prop_map(|(code, why, retry)| Down::Bye { code, why, retry }),
    ]
}

/// Every message that goes up.
pub(crate) fn up() -> impl Strategy<Value = Up> {
    let scope = || {
        prop_oneof![
            vec(id(), 1..4).prop_map(Scope::Markets),
            id().prop_map(Scope::Event),
            id().prop_map(Scope::Sport)
        ]
    };
    let resume = (btree_map(shared(), position(), 0..3), btree_map(any::<u16>(), position(), 0..3)).prop_map(
        |(markets, shards)| Resume {
            markets: markets.into_iter().collect(),
            shards: shards.into_iter().collect(),
        },
    );
    prop_oneof![
        (option::of(uint()), option::of(text())).prop_map(|(heartbeat, auth)| Up::Hello { heartbeat, auth }),
        (int(), scope(), view(), conflate(), resume).prop_map(|(id, scope, view, conflate, resume)| Up::Sub(
            Subscribe { id, scope, view, conflate, resume }
        )),
        (int(), scope(), view()).prop_map(|(id, scope, view)| Up::Unsub { id, scope, view }),
        (id(), view()).prop_map(|(market, view)| Up::Snapshot { market, view }),
        (int(), option::of(int())).prop_map(|(time, read)| Up::Ping { time, read }),
    ]
}

pub(crate) fn entry() -> impl Strategy<Value = Entry> {
    let what = prop_oneof![
        (shared(), delta(), any::<bool>(), option::of(any::<u32>()))
            .prop_map(|(market, delta, stop, checksum)| What::Delta { market, delta, stop, checksum }),
        (shared(), book(), stop(), any::<u32>()).prop_map(|(market, book, stop, checksum)| What::Image {
            market,
            book: Box::new(book),
            stop,
            checksum
        }),
        (vec(shared(), 0..4), option::of(shared()))
            .prop_map(|(markets, reason)| What::Stop { markets, reason }),
        shared().prop_map(|market| What::Gone { market }),
    ];
    (position(), times(), what).prop_map(|(at, times, what)| Entry { at, times, what })
}

pub(crate) fn alive() -> impl Strategy<Value = Alive> {
    let report = (shared(), feed_state(), int()).prop_map(|(source, state, as_of)| FeedReport {
        source,
        state,
        as_of,
    });
    (position(), int(), vec(report, 0..4)).prop_map(|(at, now, feeds)| Alive { at, now, feeds })
}

pub(crate) fn stored() -> impl Strategy<Value = Stored> {
    (shared(), position(), stop(), book(), any::<u32>()).prop_map(|(market, at, stop, book, checksum)| {
        Stored { market, at, stop, book: Box::new(book), checksum }
    })
}
