//! What is vouched for of a feed where writing takes long.

use tictac_ingest::log::Batch;
use tictac_ingest::update::StopScope;

use super::*;

/// A shard where a market is open and written, and an engine whose calls of the log all take a while from now on.
fn open() -> (Engine, Arc<str>, u16) {
    let (mut shelves, mut engine, a) = running(0);
    engine.handle_message(&a, Some(1), 0);
    engine.handle_updates(&a, [image("1.1", "e1")], times(0));
    shelves.write(&mut engine, 0);
    let shard = shard_of("e1", settings().shards);
    assert_eq!(said(&mut engine, shard, 500), Some(FeedState::Live));
    (engine, a, shard)
}

/// An `alive`, if it is its turn, which is written at once.
fn said(engine: &mut Engine, shard: u16, now: i64) -> Option<FeedState> {
    let (alive, _) = engine.take_alive(shard, now)?;
    engine.handle_written(shard);
    Some(alive.feeds[0].state)
}

/// A batch, if there is one, which is written at once.
fn written(engine: &mut Engine, shard: u16, now: i64) -> Option<Batch> {
    let batch = engine.take_batch(shard, now)?;
    engine.handle_written(shard);
    Some(batch)
}

/// Each call takes longer than the time between two `alive`s, so that one is always due.
#[test]
fn an_alive_that_is_always_due_lets_entries_go() {
    let (mut engine, a, shard) = open();
    let mut calls = Vec::new();
    for i in 0..10 {
        let now = 1_000 + i * 600;
        engine.handle_message(&a, Some(2 + i as u64), now);
        engine.handle_updates(&a, [level("1.1", 200 + i, 5)], times(now));
        let batch = said(&mut engine, shard, now).is_none();
        assert!(!batch || written(&mut engine, shard, now).is_some());
        calls.push(batch);
    }
    assert!(calls.windows(2).all(|two| two[0] != two[1]), "they take turns: {calls:?}");
}

#[test]
fn a_stop_goes_before_an_alive_but_silences_nobody() {
    let (mut engine, a, shard) = open();
    engine.handle_message(&a, Some(2), 1_000);
    engine.handle_updates(&a, [level("1.1", 210, 5)], times(1_000));
    assert!(written(&mut engine, shard, 1_000).is_some());
    for i in 0..10 {
        let now = 1_001 + i * 100;
        engine.handle_message(&a, Some(3 + 2 * i as u64), now);
        let stop = Update::Stop { event: "e1".into(), scope: StopScope::Event, reason: None };
        engine.handle_updates(&a, [stop], times(now));
        let due = said(&mut engine, shard, now);
        assert_eq!(due.is_some(), i == 5, "{i}: due since 1000, a stop may go first until 1500");
        let batch = written(&mut engine, shard, now).expect("a stop waits");
        let first = Live::decode(&batch.entries[0]).unwrap();
        assert!(matches!(first, Live::Entry(Entry { what: What::Stop { .. }, .. })), "{first:?}");
        engine.handle_message(&a, Some(4 + 2 * i as u64), now);
        engine.handle_updates(&a, [image("1.1", "e1")], times(now));
        assert!(written(&mut engine, shard, now).is_some());
    }
}

#[test]
fn a_feed_of_which_something_waits_for_long_is_not_live() {
    let (mut engine, a, shard) = open();
    let within = settings().write_within;
    let (mut now, mut numbers) = (1_000, 2..);
    for (late, state) in [(0, FeedState::Live), (1, FeedState::Stale), (0, FeedState::Live)] {
        engine.handle_updates(&a, [level("1.1", 210, now)], times(now));
        assert!(written(&mut engine, shard, now).is_some());
        engine.handle_updates(&a, [level("1.1", 211, now)], times(now));
        now += within + late;
        engine.handle_message(&a, numbers.next(), now);
        assert_eq!(engine.feed("a", now), Some(FeedState::Live), "its source speaks");
        assert_eq!(said(&mut engine, shard, now), Some(state), "{late} ms beyond the bound");
        assert!(written(&mut engine, shard, now).is_some());
        now += 1_000;
        engine.handle_message(&a, numbers.next(), now);
        assert_eq!(said(&mut engine, shard, now), Some(FeedState::Live), "all is written");
    }
}

/// Its first `alive` may go before the images with which it begins: those who follow hold older books until then.
#[test]
fn an_epoch_begins_as_recovering_until_its_images_are_written() {
    let (mut shelves, mut engine, a) = running(0);
    engine.handle_message(&a, Some(1), 0);
    engine.handle_updates(&a, [image("1.1", "e1")], times(0));
    shelves.write(&mut engine, 0);
    let shard = shard_of("e1", settings().shards);
    engine.handle_lost(shard);
    shelves.acquire(&mut engine, 1);
    assert_eq!(engine.feed("a", 1), Some(FeedState::Live), "our own books were never out of step");
    assert_eq!(said(&mut engine, shard, 1), Some(FeedState::Recovering));
    assert!(written(&mut engine, shard, 1).is_some());
    assert_eq!(said(&mut engine, shard, 501), Some(FeedState::Live));
}

/// The entry which says that a market is gone waits for another shard's: it must not wait for ever behind `alive`s.
#[test]
fn a_market_that_moves_is_not_held_up_by_alives() {
    let (mut engine, a, shard) = open();
    let shards = settings().shards;
    let event = (2..).map(|n| format!("e{n}")).find(|event| shard_of(event, shards) != shard).unwrap();
    let there = shard_of(&event, shards);
    engine.handle_message(&a, Some(2), 1_000);
    engine.handle_updates(&a, [image("1.1", &event)], times(1_000));
    let mut gone = false;
    for i in 0..8 {
        // Whatever is due is an alive: each call takes longer than the time between two. The new shard is slower still.
        let now = 1_000 + i * 600;
        for shard in [shard, there].into_iter().take(if i % 2 == 0 { 1 } else { 2 }) {
            if said(&mut engine, shard, now).is_none() {
                let entries = written(&mut engine, shard, now).map_or(Vec::new(), |batch| batch.entries);
                gone |= entries.iter().any(|bytes| {
                    matches!(Live::decode(bytes), Ok(Live::Entry(Entry { what: What::Gone { .. }, .. })))
                });
            }
        }
    }
    assert!(gone, "it is said to be gone where it was");
}
