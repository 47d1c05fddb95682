//! What an owner owes to whoever follows the log: that nothing is lost between it, its predecessor and a log that falls back.

use tictac_ingest::engine::Engine;
use tictac_ingest::update::Update;
use tictac_proto::log::{CATALOGUE, Live, What};
use tictac_proto::model::{MarketField, MarketId};
use tictac_proto::wire::FeedState;

use crate::running;
use crate::shelves::*;

#[test]
fn an_epoch_that_others_wrote_under_is_never_gone_below() {
    let (_, mut engine, _) = running(0);
    let own = engine.seen_epoch(0);
    engine.handle_epoch(0, own + 5_000);
    engine.handle_epoch(0, own + 1);
    assert_eq!((engine.seen_epoch(0), engine.seen_epoch(1)), (own + 5_000, own));
}

/// A failover that loses a batch of snapshots alone would go unseen, and the log be trimmed as if they were stored.
#[test]
fn snapshots_alone_take_a_number() {
    let (mut shelves, mut engine, a) = running(0);
    assert!(engine.handle_message(&a, Some(1), 0));
    engine.handle_updates(&a, [image("1.1", "e1")], times(0));
    shelves.write(&mut engine, 0);
    engine.handle_updates(&a, [set("1.1", MarketField::Matched, 7)], times(1));
    shelves.write(&mut engine, 1);
    let shard = engine.shards().find(|s| *s != CATALOGUE && engine.written(*s).seq > 1).unwrap();
    let before = engine.written(shard);
    // Later the changed market is stored, and nothing else is there to be said.
    let batch = engine.take_batch(shard, 10_000).unwrap();
    assert_eq!((batch.snapshots.len(), batch.entries.len(), batch.first), (1, 1, before.seq + 1));
    engine.handle_written(shard);
    assert!(engine.written(shard) > before);
}

/// Who reads the snapshots between a takeover and its first batch has the market, and must hear that it is gone.
#[test]
fn what_a_new_owner_does_not_have_is_said_to_be_gone() {
    let (mut shelves, mut engine, a) = running(0);
    engine.handle_updates(&a, [image("1.1", "e1")], times(0));
    shelves.write(&mut engine, 0);
    // The one that stands by hears that it is over; the log does not.
    let mut next = Engine::new(settings());
    next.handle_updates(&a, [image("1.1", "e1"), Update::Gone { market: "1.1".into() }], times(1));
    shelves.acquire(&mut next, 2);
    let id: MarketId = "1.1".into();
    let mut gone = 0;
    for shard in next.shards() {
        let kept = shelves.0[&shard].stored.contains_key(&id);
        while let Some(batch) = next.take_batch(shard, 2) {
            let is_gone = |bytes: &bytes::Bytes| {
                let Ok(Live::Entry(entry)) = Live::decode(bytes) else { panic!("no entry") };
                matches!(&entry.what, What::Gone { market } if *market == id)
            };
            gone += u32::from(kept && batch.entries.iter().any(is_gone));
            shelves.0.get_mut(&shard).unwrap().append(batch);
            next.handle_written(shard);
        }
        assert!(!shelves.0[&shard].stored.contains_key(&id));
    }
    assert_eq!(gone, 2, "in its shard and in the catalogue");
}

/// The same where the shard was lost with the `gone` under way.
#[test]
fn a_gone_that_was_under_way_when_the_shard_was_lost_is_not_forgotten() {
    let (mut shelves, mut engine, a) = running(0);
    engine.handle_updates(&a, [image("1.1", "e1")], times(0));
    shelves.write(&mut engine, 0);
    engine.handle_updates(&a, [Update::Gone { market: "1.1".into() }], times(1));
    let id: MarketId = "1.1".into();
    for shard in engine.shards() {
        if engine.take_batch(shard, 1).is_some() {
            engine.handle_lost(shard);
        }
    }
    shelves.acquire(&mut engine, 2);
    assert!(engine.book(&id).is_none(), "it does not come back");
    shelves.write(&mut engine, 2);
    assert!(shelves.0.values().all(|shelf| !shelf.stored.contains_key(&id)));
}

#[test]
fn nothing_is_live_while_what_an_operator_did_may_have_been_missed() {
    let (_, mut engine, a) = running(0);
    assert!(engine.handle_message(&a, Some(1), 0));
    engine.handle_updates(&a, [image("1.1", "e1")], times(0));
    engine.handle_blind(true);
    assert_eq!(engine.feed("a", 1), Some(FeedState::Recovering));
    assert!(engine.feeds(1).iter().all(|feed| feed.state == FeedState::Recovering));
    engine.handle_blind(false);
    assert_eq!(engine.feed("a", 1), Some(FeedState::Live));
}
