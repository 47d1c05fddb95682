//! Cases about positions, gaps, stops, feeds and checksums.

use serde_json::json;

use super::*;

pub(super) fn positions() -> Vec<Case> {
    vec![
        case("snapshot", "The first snapshot is taken.", vec![snap(5, 10)]),
        case("delta next", "p is my position.", vec![snap(5, 10), price(5, 10, 11)]),
        case(
            "delta overlapping",
            "p below mine, s above: applied, since values are absolute.",
            vec![snap(5, 10), price(5, 10, 12), price(5, 9, 14)],
        ),
        case(
            "delta merged",
            "One step over many numbers, from far below mine.",
            vec![
                snap(5, 10),
                delta(
                    5,
                    1,
                    5_000_000_000,
                    json!({"d": {"matched": 9}, "r": [[1, 0, {"b": [[200, 1], [201, 2]]}]]}),
                ),
            ],
        ),
        case("delta old", "s below mine: dropped.", vec![snap(5, 10), price(5, 7, 9)]),
        case("delta again", "s is mine: dropped.", vec![snap(5, 10), price(5, 10, 11), price(5, 10, 11)]),
        case(
            "delta ahead",
            "p above mine: gap; the book is kept and is not tradable.",
            vec![snap(5, 10), price(5, 11, 12)],
        ),
        case("delta of a lower epoch", "Dropped, whatever its numbers.", vec![snap(5, 10), price(4, 10, 99)]),
        case(
            "delta of a higher epoch",
            "Gap: only a snapshot leads into an epoch.",
            vec![snap(5, 10), price(6, 10, 11), snap(6, 11), price(6, 11, 12)],
        ),
        case(
            "delta before everything",
            "Nothing held: gap, then a snapshot starts.",
            vec![price(5, 10, 11), snap(5, 11), price(5, 11, 12)],
        ),
        case(
            "gap stays until a snapshot",
            "In a gap even a delta that would fit is not applied; an old one is still dropped.",
            vec![
                snap(5, 10),
                price(5, 12, 13),
                price(5, 10, 14),
                price(5, 8, 10),
                price(4, 1, 99),
                price(5, 14, 15),
                snap(5, 15),
                price(5, 15, 16),
            ],
        ),
        case(
            "gap of a higher epoch, then the lower goes on",
            "A gap stays a gap.",
            vec![snap(5, 10), price(6, 10, 11), price(5, 10, 11)],
        ),
        case(
            "gap told",
            "The gateway says so itself.",
            vec![snap(5, 10), gap([5, 10], [5, 20]), price(5, 10, 20), snap(5, 20)],
        ),
        case(
            "gap told before everything",
            "Nothing is held; a snapshot starts all the same.",
            vec![gap([5, 1], [5, 20]), snap(5, 20)],
        ),
        case(
            "snapshot newer",
            "Replaces; nothing of the old book stays.",
            vec![
                snap(5, 10),
                snap_of(0, 5, 20, json!({"status": "open"}), json!([[3, 0, {"b": [[300, 1]]}]])),
            ],
        ),
        case(
            "snapshot at my position",
            "Replaces.",
            vec![snap(5, 10), snap_of(0, 5, 10, json!({"status": "suspended"}), json!([]))],
        ),
        case(
            "snapshot older",
            "Dropped.",
            vec![snap(5, 10), snap_of(0, 5, 9, json!({"status": "suspended"}), json!([]))],
        ),
        case("snapshot of a lower epoch", "Dropped, whatever its number.", vec![snap(5, 10), snap(4, 99)]),
        case(
            "snapshot of a higher epoch",
            "Replaces, though its number is lower.",
            vec![snap(5, 10), snap(6, 3), price(6, 3, 4), price(5, 10, 11)],
        ),
        case(
            "snapshot older in a gap",
            "Dropped, and the gap stays; one at my position closes it.",
            vec![snap(5, 10), price(5, 11, 12), snap(5, 9), price(5, 10, 12), snap(5, 10), price(5, 10, 11)],
        ),
        case(
            "positions beyond 2^32",
            "And up to 2^53 - 1.",
            vec![
                snap(1_806_336_000_000_007, 4_294_967_295),
                price(1_806_336_000_000_007, 4_294_967_295, 4_294_967_296),
                price(1_806_336_000_000_007, 4_294_967_296, 9_007_199_254_740_991),
                price(1_806_336_000_001_031, 1, 2),
            ],
        ),
        case(
            "gone",
            "The book is forgotten; a delta then finds nothing.",
            vec![snap(5, 10), stop(5, 4), gone(5, 11), price(5, 11, 12)],
        ),
        case(
            "gone, then back",
            "A snapshot starts anew, also at a lower position: the shard may be another.",
            vec![snap(5, 10), price(5, 11, 12), gone(5, 12), snap(5, 2), price(5, 2, 3)],
        ),
    ]
}

pub(super) fn stops() -> Vec<Case> {
    let stopped = |e: u64, s: u64, st: [u64; 2]| with(snap(e, s), json!({"st": st}));
    vec![
        case(
            "stop ahead of prices",
            "Not tradable until my position reaches it.",
            vec![
                snap(5, 10),
                stop(5, 12),
                price(5, 10, 11),
                status(5, 11, 12, "suspended"),
                status(5, 12, 13, "open"),
            ],
        ),
        case("stop behind my position", "It is raised and changes nothing.", vec![snap(5, 10), stop(5, 8)]),
        case("stop at my position", "Reached.", vec![snap(5, 10), stop(5, 10)]),
        case(
            "stop not higher",
            "Dropped.",
            vec![snap(5, 10), stop(5, 12), stop(5, 11), stop(5, 12), stop(4, 99)],
        ),
        case("stop before the snapshot", "It counts.", vec![stop(5, 12), snap(5, 10), price(5, 10, 12)]),
        case(
            "stop of a higher epoch",
            "No position of mine reaches it.",
            vec![snap(5, 10), stop(6, 1), price(5, 10, 999), snap(6, 1)],
        ),
        case(
            "stop in a snapshot",
            "Raised, above the snapshot's own position too.",
            vec![stopped(5, 10, [5, 13]), price(5, 10, 12), price(5, 12, 13)],
        ),
        case(
            "stop in a snapshot, lower",
            "The highest stays.",
            vec![stop(5, 20), stopped(5, 10, [5, 3]), snap(5, 20)],
        ),
        case(
            "stop in a snapshot that is dropped",
            "Raised all the same: a stop is no part of the book.",
            vec![snap(5, 10), stopped(5, 9, [5, 12])],
        ),
        case(
            "stop in ok",
            "Raised.",
            vec![snap(5, 10), with(ok(5, 12, "delta", "live"), json!({"st": [5, 12]})), price(5, 10, 12)],
        ),
        case(
            "stop outlives gone",
            "And an epoch's end.",
            vec![snap(5, 10), stop(5, 12), gone(5, 11), snap(5, 11), snap(6, 1)],
        ),
        case(
            "stop in a gap",
            "Raised.",
            vec![snap(5, 10), price(5, 11, 12), stop(5, 14), snap(5, 13), price(5, 13, 14)],
        ),
    ]
}

pub(super) fn feeds() -> Vec<Case> {
    vec![
        case(
            "status opens and closes",
            "",
            vec![
                snap(5, 10),
                status(5, 10, 11, "suspended"),
                status(5, 11, 12, "open"),
                status(5, 12, 13, "closed"),
                status(5, 13, 14, "handed_over"),
            ],
        ),
        case(
            "feed states",
            "Tradable only while live.",
            vec![
                snap(5, 10),
                feed("exchange", 3, "stale"),
                feed("exchange", 3, "down"),
                feed("exchange", 3, "recovering"),
                feed("exchange", 3, "live"),
            ],
        ),
        case(
            "feed in a snapshot",
            "",
            vec![
                with(snap(5, 10), json!({"f": "recovering"})),
                price(5, 10, 11),
                feed("exchange", 3, "live"),
            ],
        ),
        case(
            "feed by a later snapshot",
            "The last word counts.",
            vec![snap(5, 10), feed("exchange", 3, "stale"), snap(5, 11)],
        ),
        case(
            "feed in a snapshot that is dropped",
            "Not taken.",
            vec![snap(5, 10), feed("exchange", 3, "stale"), snap(5, 9)],
        ),
        case(
            "feed of another source or shard",
            "Not this market's.",
            vec![
                snap(5, 10),
                feed("other", 3, "down"),
                feed("exchange", 4, "down"),
                feed("exchange", 3, "stale"),
                feed("exchange", 4, "live"),
            ],
        ),
        case(
            "feed of a market that names no source",
            "The source of its ok counts.",
            vec![
                ok(5, 10, "snap", "live"),
                snap_of(0, 5, 10, json!({"status": "open"}), json!([])),
                feed("other", 3, "down"),
                feed("exchange", 3, "down"),
            ],
        ),
        case(
            "feed in ok",
            "A resumed market learns its feed's state there.",
            vec![snap(5, 10), ok(5, 10, "exact", "stale"), feed("exchange", 3, "live")],
        ),
        case(
            "an ok by a delta that brings nothing new",
            "A lower base may serve a client that stands at its end already: nothing more is promised.",
            vec![snap(5, 10), ok(5, 10, "delta", "live"), price(5, 9, 10), price(5, 10, 11)],
        ),
        case(
            "an ok that promises more than the next delta brings",
            "Not tradable before the book stands where the ok said.",
            vec![snap(5, 10), ok(5, 12, "delta", "live"), price(5, 10, 11), price(5, 11, 12)],
        ),
        case(
            "feed in a gap",
            "It is remembered for the time after.",
            vec![
                snap(5, 10),
                price(5, 11, 12),
                feed("exchange", 3, "down"),
                snap_of(0, 4, 99, json!({}), json!([])),
                feed("exchange", 3, "live"),
                snap(5, 12),
            ],
        ),
    ]
}

pub(super) fn checksums() -> Vec<Case> {
    vec![
        case("crc agrees", "", vec![snap(5, 10), crc(5, 10, "right"), price(5, 10, 11), crc(5, 11, "right")]),
        case(
            "crc differs",
            "A gap until the next snapshot.",
            vec![
                snap(5, 10),
                crc(5, 10, "wrong"),
                price(5, 10, 11),
                snap(5, 10),
                crc(5, 10, "right"),
                price(5, 10, 11),
            ],
        ),
        case(
            "crc of another position",
            "Not compared.",
            vec![
                snap(5, 10),
                crc(5, 9, "wrong"),
                crc(5, 11, "wrong"),
                crc(4, 10, "wrong"),
                crc(6, 10, "wrong"),
                price(5, 10, 11),
            ],
        ),
        case("crc before everything", "Not compared.", vec![crc(5, 10, "wrong"), snap(5, 10)]),
        case(
            "crc in a gap",
            "Not compared: a snapshot is asked for already.",
            vec![
                snap(5, 10),
                crc(5, 10, "wrong"),
                crc(5, 10, "wrong"),
                crc(5, 10, "right"),
                price(5, 10, 11),
                snap(5, 11),
            ],
        ),
        case("crc after gone", "Not compared.", vec![snap(5, 10), gone(5, 11), crc(5, 10, "right")]),
    ]
}
