//! Cases about what deltas and snapshots change, and what each view shows.

use serde_json::json;

use super::*;

pub(super) fn changes() -> Vec<Case> {
    let ladder = |b: Json| selection(5, 10, 11, b);
    vec![
        case(
            "levels set, added, deleted",
            "",
            vec![
                snap(5, 10),
                ladder(
                    json!({"b": [[190, 0], [200, 7], [201, 8]], "l": [[202, 0], [203, 5]], "v": [[198, 0]]}),
                ),
            ],
        ),
        case(
            "delete of an absent level",
            "Harmless.",
            vec![snap(5, 10), ladder(json!({"b": [[150, 0]], "l": [[999, 0]]}))],
        ),
        case(
            "a side replaced",
            "What is not in it is gone.",
            vec![
                snap(5, 10),
                ladder(json!({"B": [[191, 1], [192, 2]]})),
                selection(5, 11, 12, json!({"b": [[191, 0]]})),
            ],
        ),
        case("a side replaced by nothing", "Empty.", vec![snap(5, 10), ladder(json!({"L": [], "V": []}))]),
        case(
            "all sides replaced",
            "",
            vec![snap(5, 10), ladder(json!({"B": [[1, 1]], "L": [[2, 2]], "V": [[3, 3]]}))],
        ),
        case(
            "a side replaced with a deleted level",
            "Size 0 is no level.",
            vec![snap(5, 10), ladder(json!({"B": [[190, 0], [191, 4]]}))],
        ),
        case("selection removed", "", vec![snap(5, 10), delta(5, 10, 11, json!({"x": [[1, 0]]}))]),
        case(
            "selection removed that is not there",
            "Harmless; the handicap is part of the key.",
            vec![snap(5, 10), delta(5, 10, 11, json!({"x": [[2, 0], [9, 9]]}))],
        ),
        case(
            "selection removed and added later",
            "Nothing of the old one stays.",
            vec![
                snap(5, 10),
                delta(5, 10, 11, json!({"x": [[1, 0]]})),
                selection(5, 11, 12, json!({"l": [[210, 1]]})),
            ],
        ),
        case(
            "selection removed and added in one delta",
            "x goes first.",
            vec![
                snap(5, 10),
                delta(5, 10, 11, json!({"x": [[1, 0]], "r": [[1, 0, {"name": "New", "b": [[100, 1]]}]]})),
            ],
        ),
        case(
            "selection that joins with nothing set",
            "It is there, with no fields and no levels.",
            vec![snap(5, 10), delta(5, 10, 11, json!({"r": [[7, 25, {}]]}))],
        ),
        case(
            "selections in order of id and handicap",
            "Signed numbers, not texts.",
            vec![
                snap(5, 10),
                delta(5, 10, 11, json!({"r": [[-3, 0, {}], [2, -150, {}], [2, 50, {}], [10, 0, {}]]})),
            ],
        ),
        case(
            "fields cleared",
            "Null clears; absent is unchanged.",
            vec![
                snap(5, 10),
                delta(
                    5,
                    10,
                    11,
                    json!({"d": {"name": null, "in_play": null, "venue": null}, "r": [[1, 0, {"name": null, "last": null}]]}),
                ),
            ],
        ),
        case(
            "status cleared",
            "A market without a status is not open.",
            vec![snap(5, 10), delta(5, 10, 11, json!({"d": {"status": null}})), status(5, 11, 12, "open")],
        ),
        case(
            "false and zero are set",
            "They are not the same as absent.",
            vec![
                snap(5, 10),
                delta(
                    5,
                    10,
                    11,
                    json!({"d": {"in_play": true, "crossed": false, "matched": 0, "bet_delay": 0, "reason": ""}}),
                ),
            ],
        ),
        case(
            "null in a snapshot",
            "Not set.",
            vec![snap_of(0, 5, 10, json!({"status": "open", "name": null}), json!([[1, 0, {"name": null}]]))],
        ),
        case(
            "unknown keys",
            "Ignored at every level.",
            vec![
                with(snap(5, 10), json!({"zz": [1]})),
                delta(
                    5,
                    10,
                    11,
                    json!({"zz": null, "d": {"zz": 1, "name": "x"}, "r": [[1, 0, {"zz": {"a": 1}, "last": 5}]]}),
                ),
            ],
        ),
        case(
            "delta that says nothing",
            "It moves the position only.",
            vec![snap(5, 10), delta(5, 10, 11, json!({}))],
        ),
        case(
            "texts beyond ASCII",
            "The checksum takes UTF-8.",
            vec![
                snap(5, 10),
                delta(
                    5,
                    10,
                    11,
                    json!({"d": {"name": "Übergröße <b>\u{2028}\"\\", "event_name": "東京 🐎", "venue": "\u{0}\n"}, "r": [[1, 0, {"name": "Ñandú 😀"}]]}),
                ),
            ],
        ),
        case(
            "largest integers",
            "±(2^53 - 1).",
            vec![
                snap(5, 10),
                delta(
                    5,
                    10,
                    11,
                    json!({"d": {"matched": 9_007_199_254_740_991u64, "start": -9_007_199_254_740_991i64}, "r": [[9_007_199_254_740_991u64, -9_007_199_254_740_991i64, {"b": [[9_007_199_254_740_991u64, 1]]}]]}),
                ),
            ],
        ),
        case(
            "probability",
            "Back is best at the lowest, lay at the highest price.",
            vec![
                snap_of(
                    3,
                    5,
                    10,
                    json!({"price_kind": "probability", "status": "open"}),
                    json!([[1, 0, {"b": [[4000, 1], [4100, 2], [4200, 3]], "l": [[3700, 4], [3800, 5], [3900, 6]]}]]),
                ),
                in_view(3, selection(5, 10, 11, json!({"b": [[3950, 9], [4200, 0]]}))),
            ],
        ),
        case(
            "line",
            "Back is best at the highest price, as with odds; lines may be negative.",
            vec![snap_of(
                0,
                5,
                10,
                json!({"price_kind": "line", "status": "open"}),
                json!([[1, 0, {"b": [[-150, 1], [-50, 2]], "l": [[0, 3], [50, 4]]}]]),
            )],
        ),
        case(
            "price kind changed by a snapshot",
            "The order of levels follows.",
            vec![
                snap(5, 10),
                snap_of(
                    0,
                    5,
                    11,
                    json!({"price_kind": "probability"}),
                    json!([[1, 0, {"b": [[10, 1], [20, 2]], "l": [[5, 1], [6, 2]]}]]),
                ),
            ],
        ),
        case(
            "fixed odds",
            "No ladders; prices are fields.",
            vec![
                snap_of(
                    1,
                    5,
                    10,
                    json!({"source": "house", "kind": "fixed", "status": "open", "price_exponent": 3, "each_way": 4000}),
                    json!([[1, 0, {"name": "Home", "price": 2500, "native": "6/4", "max_stake": 10000, "probability": 388_000}], [2, 0, {"price": 3100, "native": "+210"}]]),
                ),
                in_view(1, delta(5, 10, 12, json!({"r": [[1, 0, {"price": 2600, "native": null}]]}))),
            ],
        ),
        case(
            "settlement",
            "Statuses and factors of selections.",
            vec![
                snap(5, 10),
                delta(
                    5,
                    10,
                    11,
                    json!({"d": {"status": "settled"}, "r": [[1, 0, {"status": "winner", "dead_heat": 500, "certainty": 100}], [2, -50, {"status": "loser", "void_factor": 0}]]}),
                ),
            ],
        ),
    ]
}

pub(super) fn views() -> Vec<Case> {
    let of = |view: u64, back: Json, lay: Json| {
        snap_of(view, 5, 10, json!({"status": "open"}), json!([[1, 0, {"b": back, "l": lay}]]))
    };
    let ten: Vec<_> = (0..10).map(|i| json!([200 + i, 1 + i])).collect();
    let lay: Vec<_> = (0..10).map(|i| json!([212 + i, 1 + i])).collect();
    vec![
        case(
            "view 1",
            "A level that leaves the view is deleted by name.",
            vec![
                of(1, json!([[200, 5]]), json!([[202, 6]])),
                in_view(1, selection(5, 10, 11, json!({"b": [[200, 0], [201, 3]]}))),
            ],
        ),
        case(
            "view 3",
            "",
            vec![
                of(3, json!([[198, 1], [199, 2], [200, 5]]), json!([[202, 6], [203, 7]])),
                in_view(3, selection(5, 10, 11, json!({"b": [[198, 0], [201, 3]], "l": [[204, 1]]}))),
                in_view(3, selection(5, 10, 13, json!({"B": [[190, 1]]}))),
            ],
        ),
        case(
            "view 10",
            "",
            vec![
                of(10, json!(ten), json!(lay)),
                in_view(10, selection(5, 10, 11, json!({"b": [[200, 0], [210, 3]], "l": [[212, 0]]}))),
            ],
        ),
        case(
            "view 0",
            "Traded volume by ascending price.",
            vec![snap(5, 10), selection(5, 10, 11, json!({"v": [[150, 1], [250, 2], [198, 45]]}))],
        ),
    ]
}
