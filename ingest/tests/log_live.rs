//! The live channels' part of the log's contract, held to both implementations.
#![allow(clippy::unwrap_used)]

#[macro_use]
mod log_bench;

use std::time::{Duration, Instant};

use bytes::Bytes;
use log_bench::*;
use tictac_ingest::log::LiveEvent;
use tictac_proto::log::Live;
use tictac_proto::model::{MarketField, Value};
use tictac_proto::position::Position;

contract! {
    live_comes_in_order
    overload_drops_and_the_tail_repairs
    every_follow_is_answered
    every_byte_survives
}

async fn live_comes_in_order(place: Place) {
    let (handle, mut events) = place.reader().live(1000);
    for shard in [1, 2] {
        handle.follow(shard);
        subscribed(&mut events, shard).await;
    }
    let (mut one, _) = Scribe::acquire(place.writer(), owner("a", 1), 1).await.unwrap();
    let (mut two, _) = Scribe::acquire(place.writer(), owner("a", 1), 2).await.unwrap();
    let (mut three, _) = Scribe::acquire(place.writer(), owner("a", 1), 3).await.unwrap();
    one.image("m");
    two.image("n");
    three.image("unfollowed").write().await.unwrap();
    for i in 0..50 {
        one.change("m", 100 + i, 1);
        two.change("n", 100 + i, 1);
        if i % 3 == 0 {
            one.write().await.unwrap();
            two.write().await.unwrap();
        }
    }
    one.write().await.unwrap();
    two.write().await.unwrap();
    one.alive().await.unwrap();
    two.alive().await.unwrap();
    let (mut seen, mut said) = ([0, 0], 0);
    while said < 2 {
        let (shard, bytes) = next_message(&mut events).await;
        match Live::decode(&bytes).unwrap() {
            Live::Entry(entry) => {
                let last = &mut seen[usize::from(shard) - 1];
                assert_eq!(entry.at.seq, *last + 1);
                *last = entry.at.seq;
            }
            Live::Alive(alive) => {
                assert_eq!(alive.at, if shard == 1 { one.at } else { two.at });
                assert_eq!(seen[usize::from(shard) - 1], 51, "all that was before it");
                said += 1;
            }
        }
    }
    assert_eq!(seen, [51, 51]);
    handle.unfollow(1);
    handle.follow(3);
    subscribed(&mut events, 3).await;
    // Shard 2's sign of life comes after all that could still come of shard 1.
    one.change("m", 99, 1).write().await.unwrap();
    two.alive().await.unwrap();
    loop {
        let (shard, bytes) = next_message(&mut events).await;
        if let Live::Alive(_) = Live::decode(&bytes).unwrap() {
            assert_eq!(shard, 2);
            break;
        }
        assert_eq!(shard, 1, "only shard 1's last words may still be on their way");
    }
    assert_eq!(handle.dropped(), 0);
}

async fn overload_drops_and_the_tail_repairs(place: Place) {
    let (handle, mut events) = place.reader().live(10);
    handle.follow(0);
    subscribed(&mut events, 0).await;
    let (mut scribe, _) = Scribe::acquire(place.writer(), owner("a", 1), 0).await.unwrap();
    scribe.image("m");
    for i in 1..100 {
        scribe.change("m", 100 + i, i);
    }
    scribe.write().await.unwrap();
    let begun = Instant::now();
    while handle.dropped() < 90 {
        assert!(begun.elapsed() < Duration::from_secs(10), "{} were dropped", handle.dropped());
        tokio::task::yield_now().await;
    }
    let mut last = Position::ZERO;
    for _ in 0..10 {
        let (_, bytes) = next_message(&mut events).await;
        let Live::Entry(entry) = Live::decode(&bytes).unwrap() else { panic!("an entry was expected") };
        last = entry.at;
    }
    assert_eq!(last.seq, 10);
    scribe.alive().await.unwrap();
    let (_, bytes) = next_message(&mut events).await;
    let Live::Alive(alive) = Live::decode(&bytes).unwrap() else { panic!("a sign of life was expected") };
    assert_eq!(alive.at.seq, 100);
    let tail = place.reader().tail(0, last).await.unwrap();
    assert!(tail.complete);
    assert_eq!(tail.entries.len(), 90);
    assert_eq!(handle.dropped(), 90);
}

async fn every_follow_is_answered(place: Place) {
    let (handle, mut events) = place.reader().live(1);
    // More confirmations than fit at once: none is lost.
    for shard in 0..600 {
        handle.follow(shard);
    }
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < 600 {
        match next(&mut events).await {
            LiveEvent::Subscribed { shard } => assert!(seen.insert(shard), "{shard} twice"),
            other => panic!("{other:?}"),
        }
    }
    handle.follow(5);
    subscribed(&mut events, 5).await;
    handle.unfollow(5);
    handle.follow(5);
    subscribed(&mut events, 5).await;
    drop(handle);
    let end = tokio::time::timeout(Duration::from_secs(10), events.recv()).await;
    assert!(end.unwrap().is_none(), "the channel closes with the handle");
}

async fn every_byte_survives(place: Place) {
    let (handle, mut events) = place.reader().live(1000);
    handle.follow(0);
    subscribed(&mut events, 0).await;
    let (mut scribe, _) = Scribe::acquire(place.writer(), owner("a", 1), 0).await.unwrap();
    // Every ASCII character and some beyond in a text, every byte in the varying lengths and numbers of MessagePack.
    let all: String = (0..128u8).map(char::from).chain("ÿ\u{80}\u{2028}€🏇".chars()).collect();
    scribe.image("m").delta("m", text_delta(&all));
    for i in 0..256 {
        scribe.change("m", 1 + i, (i << 40) | (i << 16) | i);
    }
    scribe.store("m").write().await.unwrap();
    let sent = scribe.expected();
    let tail = place.reader().tail(0, Position::ZERO).await.unwrap();
    assert_eq!(tail.entries.len(), 258);
    let read = place.reader().snapshots(0).await.unwrap();
    assert_eq!(read.markets, sent);
    assert_eq!(read.markets[0].book.fields.get(MarketField::Reason), Some(&Value::Text(all.as_str().into())));

    // And raw, over the live channel: whatever the bytes are.
    let raw: Bytes = (0..=255u8).collect::<Vec<_>>().into();
    scribe.batch.entries.push(raw.clone());
    scribe.at.seq += 1;
    scribe.write().await.unwrap();
    loop {
        let (_, bytes) = next_message(&mut events).await;
        if bytes == raw {
            break;
        }
        Live::decode(&bytes).unwrap();
    }
    assert_eq!(handle.dropped(), 0);
}
