//! What the judge says of messages.
#![allow(clippy::unwrap_used)]

use super::*;
use tictac_proto::model::{MarketField, SelectionKey, Side};
use tictac_proto::wire::{DeltaHead, FeedState, SnapHead, Times};

const EPOCH: u64 = 5;

fn level(price: i64, size: i64) -> Delta {
    let mut delta = Delta::default();
    delta.selection_mut(SelectionKey { id: 1, handicap: 0 }).ladder_mut(Side::Back).set(price, size);
    delta
}

fn snapshot(seq: u64) -> Down {
    let head = SnapHead {
        market: "m".into(),
        view: View::All,
        at: Position::new(EPOCH, seq),
        stop: Position::ZERO,
        shard: 1,
        feed: FeedState::Live,
        times: Times::default(),
    };
    let mut delta = level(200, 5);
    delta.set(MarketField::Status, Some(0.into()));
    Down::Snap(head, delta)
}

fn delta(prev: u64, seq: u64, delta: Delta) -> Down {
    let (market, view) = ("m".into(), View::All);
    Down::Delta(DeltaHead { market, view, epoch: EPOCH, prev, seq, times: Times::default() }, delta)
}

fn see(judge: &mut Judge, message: &Down) -> Seen {
    let payload = judge.codec.encode(message);
    judge.see(&payload, &payload, &mut 0)
}

/// A judge that has seen a snapshot and two changes.
fn after_two(codec: Codec) -> Judge {
    let mut judge = Judge::new(codec, View::All);
    assert!(matches!(see(&mut judge, &snapshot(10)), Seen::Snapshot { place: 0, .. }));
    for (prev, seq, size) in [(10, 12, 6), (12, 13, 7)] {
        let seen = see(&mut judge, &delta(prev, seq, level(200, size)));
        assert_eq!(seen, Seen::Delta { place: 0, epoch: EPOCH, prev, seq, due: None });
    }
    judge
}

#[test]
fn what_was_seen_is_not_decoded_again() {
    for codec in [Codec::Json, Codec::Msgpack] {
        let mut judge = after_two(codec);
        let decoded = judge.findings.decoded;
        see(&mut judge, &delta(12, 13, level(200, 7)));
        assert_eq!((judge.findings.decoded, decoded, judge.findings.wrong), (3, 3, 0));
    }
}

#[test]
fn a_merged_delta_must_lead_to_the_book_that_steps_led_to() {
    for (size, wrong) in [(7, 0), (6, 1)] {
        let mut judge = after_two(Codec::Json);
        see(&mut judge, &delta(10, 13, level(200, size)));
        assert_eq!(
            (judge.findings.wrong, judge.findings.compared),
            (wrong, 1 - wrong),
            "{:?}",
            judge.findings
        );
    }
}

#[test]
fn a_checksum_is_that_of_the_book_there() {
    let mut judge = after_two(Codec::Msgpack);
    let right = checksum(&"m".into(), judge.newest(0).unwrap().1, View::All);
    for (seq, said, wrong) in [(13, right, 0), (13, right ^ 1, 1), (12, right, 2)] {
        let at = Position::new(EPOCH, seq);
        see(&mut judge, &Down::Crc { market: "m".into(), view: View::All, at, checksum: said });
        assert_eq!(judge.findings.wrong, wrong);
    }
    assert_eq!(judge.findings.checksums, 1);
}

#[test]
fn what_nobody_can_read_is_wrong_and_a_heartbeat_is_its_client_s() {
    let mut judge = Judge::new(Codec::Json, View::All);
    assert_eq!(judge.see(b"#", b"{\"t\":\"delta\"", &mut 0), Seen::Wrong);
    assert_eq!(judge.findings.wrong, 1);
    let heartbeat = Heartbeat { now: 1, echo: Some(2), behind: 3, as_of: None, digest: 4 };
    for codec in [Codec::Json, Codec::Msgpack] {
        let judge = Judge::new(codec, View::All);
        assert_eq!(judge.heartbeat(&codec.encode(Down::Hb(heartbeat))).map(|hb| hb.digest), Some(4));
        assert_eq!(judge.heartbeat(&codec.encode(snapshot(1))), None);
    }
}

#[test]
fn after_a_repair_the_reference_goes_on_at_the_snapshot() {
    let mut judge = after_two(Codec::Json);
    see(
        &mut judge,
        &Down::Gap {
            market: "m".into(),
            view: View::All,
            from: Position::new(EPOCH, 13),
            to: Position::new(EPOCH, 20),
        },
    );
    see(&mut judge, &snapshot(20));
    assert_eq!(judge.newest(0).unwrap().0, Position::new(EPOCH, 20));
    see(&mut judge, &delta(20, 21, level(200, 8)));
    see(&mut judge, &delta(21, 22, level(200, 9)));
    assert_eq!((judge.findings.not_compared, judge.findings.wrong), (0, 0));
    // A merged message is compared again.
    see(&mut judge, &delta(20, 22, level(200, 8)));
    assert_eq!(judge.findings.wrong, 1, "{:?}", judge.findings);
}

#[test]
fn steps_that_a_snapshot_went_past_must_lead_to_its_book() {
    for (size, wrong) in [(5, 0), (6, 1)] {
        let mut judge = after_two(Codec::Json);
        // It has size 5, and is the newcomer's before the others are sent what led there.
        see(&mut judge, &snapshot(15));
        see(&mut judge, &delta(13, 14, level(200, 8)));
        let mut last = level(200, size);
        last.set(MarketField::Status, Some(0.into()));
        see(&mut judge, &delta(14, 15, last));
        assert_eq!(
            (judge.findings.compared, judge.findings.wrong),
            (1 - wrong, wrong),
            "{:?}",
            judge.findings
        );
    }
}

#[test]
fn the_same_means_the_same_to_whoever_gets_it_in_whatever_order() {
    let mut judge = Judge::new(Codec::Json, View::All);
    let stop = |n: u64| Down::Gap {
        market: format!("m{n}").as_str().into(),
        view: View::All,
        from: Position::ZERO,
        to: Position::new(EPOCH, n),
    };
    let payloads: Vec<_> = (0..20_000).map(|n| judge.codec.encode(stop(n))).collect();
    let frame = |at: usize| [b"#", &payloads[at][..]].concat();
    let mut last = 0;
    let first: Vec<Seen> = (0..20_000).map(|at| judge.see(&frame(at), &payloads[at], &mut last)).collect();
    assert_eq!((judge.findings.decoded, last), (20_000, 19_999));
    for (begin, step) in [(0, 1), (19_000, 1), (15_000, 7), (3, 1_000)] {
        let mut last = 0;
        for at in (begin..20_000).step_by(step) {
            assert_eq!((judge.see(&frame(at), &payloads[at], &mut last), last), (first[at], at as u64));
        }
    }
    // In a row, with something else behind it, a piece of it, and another than comes next.
    let mut last = 15_000;
    for (at, seen) in first.iter().enumerate().take(19_999).skip(15_001) {
        let buffer = [frame(at), frame(at + 1)].concat();
        assert_eq!(judge.next(&buffer[..frame(at).len() - 1], &mut last), None);
        assert_eq!(judge.next(&frame(at + 1), &mut last), None);
        assert_eq!(judge.next(&buffer, &mut last), Some((frame(at).len(), *seen)));
    }
    assert_eq!(judge.next(&frame(100), &mut 99), None, "too long ago");
    assert_eq!(judge.findings.decoded, 20_000, "each was read once");
    assert!(judge.recent.len() <= RECENT);
}
