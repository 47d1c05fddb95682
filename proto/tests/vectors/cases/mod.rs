//! The cases of `follow.json`, by hand: what a client is told. A `crc` message's `c` is `"right"` or `"wrong"` here;
//! the interpreter puts the number in.

mod content;
mod position;

use serde_json::{Value as Json, json};

pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) messages: Vec<Json>,
}

/// Adds or replaces keys of a message.
fn with(mut message: Json, more: Json) -> Json {
    let keys = message.as_object_mut().expect("a message");
    keys.extend(more.as_object().expect("keys").clone());
    message
}

pub(crate) fn snap_of(view: u64, e: u64, s: u64, d: Json, r: Json) -> Json {
    json!({"t": "snap", "m": "1.23", "w": view, "e": e, "s": s, "sh": 3, "f": "live",
        "ts": [1_764_000_000_000u64, 2, 1, 1], "d": d, "r": r})
}

/// An open market of two selections, everything shown.
pub(crate) fn snap(e: u64, s: u64) -> Json {
    snap_of(
        0,
        e,
        s,
        json!({"source": "exchange", "name": "Winner", "kind": "ladder", "price_kind": "odds",
            "price_exponent": 2, "status": "open", "in_play": false}),
        json!([
            [1, 0, {"name": "One", "status": "active",
                "b": [[190, 500], [195, 70], [200, 1000]], "l": [[202, 300], [204, 10]], "v": [[198, 44], [200, 90]]}],
            [2, -50, {"name": "Two", "status": "active", "b": [[180, 20]], "l": [[182, 30]]}],
        ]),
    )
}

fn delta(e: u64, p: u64, s: u64, changes: Json) -> Json {
    let head = json!({"t": "delta", "m": "1.23", "w": 0, "e": e, "p": p, "s": s,
        "ts": [1_764_000_000_100u64, 2, 1, 1]});
    with(head, changes)
}

/// A change of selection 1's best back price.
fn price(e: u64, p: u64, s: u64) -> Json {
    delta(e, p, s, json!({"r": [[1, 0, {"b": [[200, s]]}]]}))
}

fn status(e: u64, p: u64, s: u64, status: &str) -> Json {
    delta(e, p, s, json!({"d": {"status": status}}))
}

fn selection(e: u64, p: u64, s: u64, change: Json) -> Json {
    delta(e, p, s, json!({"r": [[1, 0, change]]}))
}

fn stop(e: u64, s: u64) -> Json {
    json!({"t": "stop", "m": "1.23", "e": e, "s": s})
}

fn crc(e: u64, s: u64, c: &str) -> Json {
    json!({"t": "crc", "m": "1.23", "w": 0, "e": e, "s": s, "c": c})
}

fn feed(source: &str, shard: u64, state: &str) -> Json {
    json!({"t": "feed", "src": source, "sh": shard, "f": state, "as": 1_764_000_000_000u64})
}

fn gap(from: [u64; 2], to: [u64; 2]) -> Json {
    json!({"t": "gap", "m": "1.23", "w": 0, "from": from, "to": to})
}

fn gone(e: u64, s: u64) -> Json {
    json!({"t": "gone", "m": "1.23", "e": e, "s": s, "why": "settled"})
}

fn ok(e: u64, s: u64, how: &str, state: &str) -> Json {
    json!({"t": "ok", "id": 1, "m": "1.23", "w": 0, "conflate": "auto", "e": e, "s": s, "sh": 3,
        "src": "exchange", "f": state, "how": how})
}

fn case(name: &'static str, about: &'static str, messages: Vec<Json>) -> Case {
    Case { name, about, messages }
}

fn in_view(view: u64, message: Json) -> Json {
    with(message, json!({"w": view}))
}

/// All of them.
pub(crate) fn all() -> Vec<Case> {
    [
        position::positions(),
        content::changes(),
        content::views(),
        position::stops(),
        position::feeds(),
        position::checksums(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Snapshots for `checksum.json`, by name.
pub(crate) fn snapshots() -> Vec<(String, Json)> {
    let mut list: Vec<_> = all()
        .iter()
        .filter_map(|c| Some((c.name.to_owned(), c.messages.iter().find(|m| m["t"] == "snap")?.clone())))
        .filter(|(name, _)| {
            [
                "snapshot",
                "null in a snapshot",
                "probability",
                "line",
                "fixed odds",
                "view 1",
                "view 3",
                "view 10",
            ]
            .contains(&name.as_str())
        })
        .collect();
    let none = snap_of(10, 5, 10, json!({}), json!([]));
    let bare = snap_of(
        3,
        5,
        10,
        json!({"in_play": false, "matched": 0, "reason": ""}),
        json!([[1, 0, {}], [1, 25, {}], [-1, 0, {}]]),
    );
    let texts = snap_of(
        0,
        5,
        10,
        json!({"name": "Übergröße <b>\u{2028}", "event_name": "東京 🐎"}),
        json!([[1, 0, {"name": "😀"}]]),
    );
    let fields = snap_of(
        0,
        5,
        10,
        json!({"event": "e", "event_name": "E", "sport": "s", "competition": "c", "venue": "v", "start": -1, "score": "1-0",
            "clock": "90", "source": "x", "type": "WIN", "name": "n", "line": "2.5", "kind": "fixed", "price_kind": "line",
            "price_exponent": 2, "size_kind": "contracts", "size_exponent": 0, "currency": "EUR", "ticks": "classic",
            "winners": 1, "each_way": 4000, "version": 9_007_199_254_740_991u64, "status": "handed_over", "reason": "r",
            "in_play": true, "bet_delay": 5, "matched": 1, "suspensions": 2, "crossed": true}),
        json!([[1, 0, {"name": "n", "sort": 1, "status": "hidden", "adjustment": 1, "last": 2, "volume": 3, "sp_near": 4,
            "sp_far": 5, "sp": 6, "price": 7, "native": "5/2", "max_stake": 8, "probability": 9, "void_factor": 10,
            "dead_heat": 11, "certainty": 12, "b": [[1, 1]], "l": [[2, 2]], "v": [[3, 3]]}]]),
    );
    for (name, snap) in
        [("nothing", none), ("bare selections", bare), ("texts", texts), ("every field", fields)]
    {
        list.push((name.to_owned(), snap));
    }
    list
}
