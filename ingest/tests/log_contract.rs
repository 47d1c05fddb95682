//! The log's contract, held to both implementations: every test runs over the in-process log and over a real Redis.
//! Writing, fencing, reading; `log_live.rs` has the live channels, `log_redis.rs` what only Redis can meet.
#![allow(clippy::unwrap_used)]

#[macro_use]
mod log_bench;

use bytes::Bytes;
use log_bench::*;
use tictac_ingest::log::{Batch, LogError};
use tictac_ingest::stream_id::StreamId;
use tictac_proto::log::{Alive, CATALOGUE};
use tictac_proto::model::Side;
use tictac_proto::position::Position;

contract! {
    what_is_written_is_read
    a_takeover_brings_books_to_the_head
    trimming_keeps_the_truth_whole
    readers_see_whole_truth_while_the_writer_trims
    a_reading_that_a_batch_cuts_through_is_whole
    a_log_that_would_lose_changes_refuses
    garbage_is_listed
    a_tail_of_another_life_does_not_connect
    what_is_said_of_streams_is_read
}

async fn what_is_written_is_read(place: Place) {
    let (mut scribe, acquired) = Scribe::acquire(place.writer(), owner("a", 5), 3).await.unwrap();
    assert_eq!((acquired.n, acquired.epoch % 1024), (0, 5));
    assert!(acquired.markets.is_empty());
    scribe.image("m1").store("m1").image("m2").store("m2").write().await.unwrap();
    for i in 1..=20 {
        scribe.change("m1", 100 + i, i).write().await.unwrap();
    }
    let reader = place.reader();
    let tail = reader.tail(3, Position::ZERO).await.unwrap();
    assert!(tail.complete);
    assert_eq!(tail.head, scribe.at);
    assert_eq!(tail.entries.iter().map(|e| e.at.seq).collect::<Vec<_>>(), (1..=22).collect::<Vec<_>>());
    let rest = reader.tail(3, Position::new(scribe.at.epoch, 20)).await.unwrap();
    assert!(rest.complete);
    assert_eq!(rest.entries, tail.entries[20..]);
    let none = reader.tail(3, scribe.at).await.unwrap();
    assert!(none.complete && none.entries.is_empty());

    let read = reader.snapshots(3).await.unwrap();
    assert_eq!(read.head, scribe.at);
    assert!(read.unreadable.is_empty());
    assert_eq!(read.markets.len(), 2);
    assert_eq!(books_at_head(&read), expected_books(&scribe));

    // Nothing of it is any other shard's, the catalogue's included.
    for other in [0, 4, CATALOGUE] {
        assert!(reader.snapshots(other).await.unwrap().head.is_zero());
    }
    let (mut catalogue, _) = Scribe::acquire(place.writer(), owner("a", 5), CATALOGUE).await.unwrap();
    catalogue.image("m9").write().await.unwrap();
    assert_eq!(reader.tail(CATALOGUE, Position::ZERO).await.unwrap().entries.len(), 1);
}

async fn a_takeover_brings_books_to_the_head(place: Place) {
    let (mut first, _) = Scribe::acquire(place.writer(), owner("a", 1), 0).await.unwrap();
    first.image("changed").store("changed").image("silent").store("silent").image("gone").store("gone");
    first.image("stopped").store("stopped").write().await.unwrap();
    let stored = first.at;
    first
        .change("changed", 200, 5)
        .change("changed", 200, 0)
        .change("changed", 210, 6)
        .write()
        .await
        .unwrap();
    first.stop("stopped").gone("gone").image("new").change("new", 150, 9).write().await.unwrap();
    first.log.release(0, &first.owner).await.unwrap();

    let (mut second, acquired) = Scribe::acquire(place.writer(), owner("b", 2), 0).await.unwrap();
    assert!(acquired.epoch > first.at.epoch);
    assert_eq!(acquired.n, first.at.seq);
    assert!(acquired.unreadable.is_empty(), "{:?}", acquired.unreadable);
    assert_eq!(acquired.markets, first.expected());
    // The first change that no snapshot holds follows the batch with the snapshots.
    assert_eq!(acquired.covered, stored);

    second.image("changed").change("changed", 220, 1).write().await.unwrap();
    let tail = place.reader().tail(0, first.at).await.unwrap();
    assert!(tail.complete, "a new epoch connects where the last entry before it is still there");
    assert_eq!(tail.entries.len(), 2);
}

/// Writes many changes as a writer should: each market's snapshot now and then, saying what is covered.
async fn write_long(scribe: &mut Scribe, changes: i64) {
    let mut stored = std::collections::BTreeMap::new();
    for i in 0..changes {
        let market = format!("m{}", i % 5);
        scribe.change(&market, 100 + i % 50, i);
        stored.entry(market.clone()).or_insert(scribe.at.seq - 1);
        if i % 7 == 0 {
            scribe.store(&market);
            stored.remove(&market);
        }
        let covered = stored.values().min().copied().unwrap_or(scribe.at.seq);
        let epoch = scribe.at.epoch;
        let aged = Position::new(epoch, scribe.at.seq.saturating_sub(40));
        scribe.covered(Position::new(epoch, covered), aged).write().await.unwrap();
    }
}

async fn trimming_keeps_the_truth_whole(place: Place) {
    let (mut scribe, _) = Scribe::acquire(place.writer(), owner("a", 1), 0).await.unwrap();
    for market in ["m0", "m1", "m2", "m3", "m4", "silent"] {
        scribe.image(market).store(market);
    }
    scribe.write().await.unwrap();
    let begin = scribe.at;
    write_long(&mut scribe, 1500).await;
    let reader = place.reader();
    let old = reader.tail(0, begin).await.unwrap();
    assert!(!old.complete && old.entries.is_empty(), "{} entries", old.entries.len());
    assert_eq!(old.head, scribe.at);
    let near = reader.tail(0, Position::new(scribe.at.epoch, scribe.at.seq - 40)).await.unwrap();
    assert!(near.complete);
    assert_eq!(near.entries.len(), 40);
    let read = reader.snapshots(0).await.unwrap();
    assert!(read.entries.len() < ENTRIES + 200, "{} entries are kept", read.entries.len());
    assert_eq!(read.markets.len(), 6);
    assert_eq!(books_at_head(&read), expected_books(&scribe));
    scribe.log.release(0, &scribe.owner).await.unwrap();
    let (_, acquired) = Scribe::acquire(place.writer(), owner("b", 2), 0).await.unwrap();
    assert_eq!(acquired.markets, scribe.expected());
    assert!(acquired.unreadable.is_empty());
}

async fn readers_see_whole_truth_while_the_writer_trims(place: Place) {
    let (mut scribe, _) = Scribe::acquire(place.writer(), owner("a", 1), 0).await.unwrap();
    for market in ["m0", "m1", "m2", "m3", "m4"] {
        scribe.image(market).store(market);
    }
    scribe.write().await.unwrap();
    let reader = place.reader();
    let reading = tokio::spawn(async move {
        let mut readings = Vec::new();
        for _ in 0..30 {
            readings.push(reader.snapshots(0).await.unwrap());
            tokio::task::yield_now().await;
        }
        readings
    });
    // The truth at each number, from one long run written at the same time.
    let mut truth = std::collections::HashMap::new();
    truth.insert(scribe.at.seq, expected_books(&scribe));
    let mut covered = std::collections::BTreeMap::new();
    for i in 0..1500i64 {
        let market = format!("m{}", i % 5);
        scribe.change(&market, 100 + i % 20, i);
        covered.entry(market.clone()).or_insert(scribe.at.seq - 1);
        if i % 3 == 0 {
            scribe.store(&market);
            covered.remove(&market);
        }
        let low = covered.values().min().copied().unwrap_or(scribe.at.seq);
        let low = Position::new(scribe.at.epoch, low);
        scribe.covered(low, low).write().await.unwrap();
        scribe.alive().await.unwrap();
        truth.insert(scribe.at.seq, expected_books(&scribe));
        if i % 10 == 0 {
            tokio::task::yield_now().await;
        }
    }
    for read in reading.await.unwrap() {
        assert!(read.unreadable.is_empty(), "{:?}", read.unreadable);
        assert_eq!(books_at_head(&read), truth[&read.head.seq], "at {}", read.head);
    }
}

/// Every batch changes and stores every market and lets the log forget all: whatever was read before a batch and is put
/// together with what was read after it shows.
async fn a_reading_that_a_batch_cuts_through_is_whole(place: Place) {
    const MARKETS: u64 = 300;
    let names: Vec<String> = (0..MARKETS).map(|i| format!("m{i}")).collect();
    let (mut scribe, _) = Scribe::acquire(place.writer(), owner("a", 1), 0).await.unwrap();
    for name in &names {
        scribe.image(name).store(name);
    }
    scribe.covered(scribe.at, scribe.at).write().await.unwrap();
    let reader = place.reader();
    let (counted, mut whole) = tokio::sync::watch::channel(0);
    let reading = tokio::spawn(async move {
        while !counted.is_closed() {
            match reader.snapshots(0).await {
                Ok(read) => {
                    assert_eq!(read.head.seq % MARKETS, 0);
                    let round = (read.head.seq / MARKETS - 1) as i64;
                    let books = books_at_head(&read);
                    assert_eq!(books.len() as u64, MARKETS);
                    for (market, book) in books {
                        let size = book.selections.get(&key(7)).map_or(0, |s| s.ladder(Side::Back).size(100));
                        assert_eq!(size, round, "{market} at {}", read.head);
                    }
                    counted.send_modify(|count| *count += 1);
                }
                // Cut through in each of its attempts, and said so.
                Err(LogError::Unexpected(why)) => assert!(why.contains("would not connect"), "{why}"),
                Err(error) => panic!("{error}"),
            }
            tokio::task::yield_now().await;
        }
    });
    for round in 1..=60 {
        for name in &names {
            scribe.change(name, 100, round).store(name);
        }
        scribe.covered(scribe.at, scribe.at).write().await.unwrap();
        if round % 4 == 0 {
            // Give the reader the time for a reading now and then, and go on in the midst of its next.
            let target = *whole.borrow() + 1;
            if whole.wait_for(|count| *count >= target).await.is_err() {
                break;
            }
        }
    }
    drop(whole);
    reading.await.unwrap();
}

async fn a_log_that_would_lose_changes_refuses(place: Place) {
    let (mut scribe, _) = Scribe::acquire(place.writer(), owner("a", 1), 0).await.unwrap();
    scribe.image("m").write().await.unwrap();
    for i in 1..ENTRIES as i64 {
        scribe.change("m", 100 + i, i);
    }
    scribe.write().await.unwrap();
    let before = place.dump(0).await;
    let at = scribe.at;
    let refused = scribe.change("m", 1, 1).write().await.unwrap_err();
    assert!(matches!(refused, LogError::Full { uncovered: 301, capacity: 300, .. }), "{refused}");
    assert_eq!(place.dump(0).await, before);
    // The remedy that the error names: a snapshot, and saying so.
    scribe.at = at;
    scribe.batch.first = at.seq + 1;
    scribe.change("m", 1, 1).store("m");
    let all = scribe.at;
    scribe.covered(all, Position::ZERO).write().await.unwrap();
}

async fn garbage_is_listed(place: Place) {
    let (mut scribe, _) = Scribe::acquire(place.writer(), owner("a", 1), 0).await.unwrap();
    scribe
        .image("good")
        .store("good")
        .image("bad")
        .store("bad")
        .image("other")
        .store("other")
        .write()
        .await
        .unwrap();
    let wrong = scribe.books["good"].encode();
    let mut flipped = scribe.books["bad"].clone();
    flipped.checksum ^= 1;
    scribe.batch.snapshots = vec![
        ("bad".into(), Bytes::from_static(b"\xff\x00 garbage")),
        ("empty".into(), Bytes::new()),
        ("misnamed".into(), wrong.into()),
        ("other".into(), {
            let mut s = scribe.books["other"].clone();
            s.checksum ^= 1;
            s.encode().into()
        }),
    ];
    scribe.covered(scribe.at, scribe.at).write().await.unwrap();
    let read = place.reader().snapshots(0).await.unwrap();
    let names = |list: &[(tictac_proto::model::MarketId, String)]| {
        list.iter().map(|(market, _)| market.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(names(&read.unreadable), ["bad", "empty", "misnamed", "other"]);
    assert!(read.unreadable.iter().all(|(_, why)| !why.is_empty()));
    assert_eq!(read.markets.len(), 1);
    scribe.log.release(0, &scribe.owner).await.unwrap();
    let (_, acquired) = Scribe::acquire(place.writer(), owner("b", 1), 0).await.unwrap();
    assert!(acquired.markets.iter().any(|stored| &*stored.market == "good"));
    for name in ["empty", "misnamed"] {
        assert!(names(&acquired.unreadable).contains(&name.to_string()), "{:?}", acquired.unreadable);
    }
}

async fn a_tail_of_another_life_does_not_connect(place: Place) {
    let writer = place.writer();
    let (mut first, _) = Scribe::acquire(writer.clone(), owner("a", 1), 0).await.unwrap();
    first.image("m").change("m", 100, 1).change("m", 101, 1).write().await.unwrap();
    place.forget();
    let again = writer.acquire(0, &owner("a", 1), first.at.epoch, NOW).await.unwrap();
    let at = Position::new(again.epoch, 0);
    let mut second = Scribe { at, books: Default::default(), batch: Batch::default(), ..first };
    second.batch = Batch { epoch: at.epoch, first: 1, ..Batch::default() };
    second.image("m").change("m", 1, 1).change("m", 2, 1).change("m", 3, 1).write().await.unwrap();
    let reader = place.reader();
    // The same number in an older epoch is another entry.
    for seq in 0..5 {
        let old = Position::new(at.epoch - 1024, seq.max(1));
        let tail = reader.tail(0, old).await.unwrap();
        assert!(!tail.complete && tail.entries.is_empty(), "after {old}");
    }
    assert!(reader.tail(0, Position::new(at.epoch, 2)).await.unwrap().complete);
    let ahead = reader.tail(0, Position::new(at.epoch, 9)).await.unwrap();
    assert!(!ahead.complete && ahead.head == second.at);
}

async fn what_is_said_of_streams_is_read(place: Place) {
    let writer = place.writer();
    let (mut scribe, acquired) = Scribe::acquire(writer.clone(), owner("a", 1), 0).await.unwrap();
    assert!(acquired.resume.is_empty());
    scribe.image("m").store("m");
    scribe.batch.resume =
        vec![("s".into(), StreamId { ms: 7, n: 1 }), ("t".into(), StreamId { ms: 9, n: 0 })];
    scribe.write().await.unwrap();
    let said = Alive { at: scribe.at, now: 0, feeds: Vec::new() };
    writer.alive(0, &scribe.owner, said, vec![("s".into(), StreamId { ms: 8, n: 0 })]).await.unwrap();

    // Whoever stands by may look, and disturbs nobody.
    let looked = writer.look(0).await.unwrap();
    assert_eq!(Position::new(looked.epoch, looked.n), scribe.at);
    let expected = [("s".into(), StreamId { ms: 8, n: 0 }), ("t".into(), StreamId { ms: 9, n: 0 })];
    assert_eq!(looked.resume, expected.clone().into());
    assert_eq!(looked.markets.len(), 1);
    scribe.change("m", 300, 1).write().await.unwrap();
    writer.release(0, &scribe.owner).await.unwrap();
    let (_, acquired) = Scribe::acquire(writer, owner("b", 2), 0).await.unwrap();
    assert_eq!(acquired.resume, expected.into());
}
