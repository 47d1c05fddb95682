//! The engine against a log that is a few maps: whatever sources say, what is written holds the truth at every moment.
#![allow(clippy::unwrap_used, reason = "a test")]

mod alive;
mod ownership;
mod shelves;
mod streams;
mod switch;

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use shelves::*;
use tictac_ingest::engine::{Control, Engine, Lane, UNCONFIRMED, catalogue};
use tictac_ingest::log::Batch;
use tictac_ingest::problem::ProblemKind;
use tictac_ingest::update::{StopScope, Update};
use tictac_proto::log::{CATALOGUE, Entry, Live, What, shard_of};
use tictac_proto::model::{Book, Delta, MarketField, MarketId, MarketStatus, Value};
use tictac_proto::wire::FeedState;

#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "a test")]
enum Step {
    Say(u8, Update),
    Wait(i64),
    Write,
    Lose(u16),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0u8..2, update()).prop_map(|(s, u)| Step::Say(s, u)),
        3 => (1i64..6_000).prop_map(Step::Wait),
        3 => Just(Step::Write),
        1 => prop::sample::select(vec![0, 1, 2, 3, CATALOGUE]).prop_map(Step::Lose),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn snapshots_and_log_hold_every_book_at_every_moment(steps in prop::collection::vec(step(), 1..120)) {
        let sources: [Arc<str>; 2] = ["a".into(), "b".into()];
        let (mut shelves, mut engine, mut now) = (Shelves::default(), Engine::new(settings()), 1_000_000);
        shelves.acquire(&mut engine, now);
        for step in steps {
            let writes = matches!(step, Step::Write);
            match step {
                Step::Say(source, update) => {
                    let source = &sources[usize::from(source)];
                    prop_assert!(engine.handle_message(source, None, now));
                    engine.handle_updates(source, [update], times(now));
                }
                Step::Wait(ms) => now += ms,
                Step::Write => {}
                Step::Lose(shard) => {
                    // Whatever was under way is written or not; what waits is not.
                    if let Some(batch) = engine.take_batch(shard, now) {
                        shelves.0.entry(shard).or_default().append(batch);
                    }
                    engine.handle_lost(shard);
                }
                Step::Restart => {
                    // Losing the process loses nothing that was written.
                    shelves.acquire(&mut engine, now);
                    shelves.write(&mut engine, now);
                    let before: BTreeMap<MarketId, Book> =
                        engine.markets().map(|(m, _)| (m.clone(), engine.book(m).unwrap().clone())).collect();
                    engine = Engine::new(settings());
                    shelves.acquire(&mut engine, now);
                    let after: BTreeMap<MarketId, Book> =
                        engine.markets().map(|(m, _)| (m.clone(), engine.book(m).unwrap().clone())).collect();
                    prop_assert_eq!(before, after);
                }
            }
            engine.handle_time(now);
            if engine.shards().all(|s| engine.owns(s)) {
                shelves.write(&mut engine, now);
                shelves.check(&engine);
            } else if writes {
                shelves.acquire(&mut engine, now);
            }
        }
        shelves.acquire(&mut engine, now);
        for _ in 0..2 {
            now += 10_000;
            engine.handle_time(now);
            shelves.write(&mut engine, now);
        }
        shelves.check(&engine);
        prop_assert!(engine.is_settled());
        for (shard, shelf) in &shelves.0 {
            prop_assert!(shelf.entries.is_empty(), "shard {} is not all stored", shard);
        }
        for (id, _) in engine.markets() {
            prop_assert_eq!(engine.listed(id).unwrap(), &catalogue::project(engine.book(id).unwrap()).with_own(engine.listed(id).unwrap()));
        }
    }
}

trait WithOwn {
    fn with_own(self, listed: &Book) -> Book;
}

impl WithOwn for Book {
    /// With the two fields that a sequencer says for itself.
    fn with_own(mut self, listed: &Book) -> Book {
        for field in [MarketField::Suspensions, MarketField::Crossed] {
            self.fields.set(field, listed.fields.get(field).cloned(), 0);
        }
        self
    }
}

fn running(now: i64) -> (Shelves, Engine, Arc<str>) {
    let (mut shelves, mut engine) = (Shelves::default(), Engine::new(settings()));
    shelves.acquire(&mut engine, now);
    (shelves, engine, "a".into())
}

#[test]
fn a_gap_makes_a_source_stale_until_every_market_is_imaged() {
    let (_, mut engine, a) = running(0);
    assert!(engine.handle_message(&a, Some(1), 0));
    engine.handle_updates(&a, [image("1.1", "e1"), image("1.2", "e2")], times(0));
    assert_eq!(engine.feed("a", 0), Some(FeedState::Live));
    assert!(!engine.handle_message(&a, Some(1), 1), "a duplicate");
    assert!(engine.handle_message(&a, Some(3), 2), "after a gap it is taken");
    assert_eq!(engine.feed("a", 2), Some(FeedState::Stale));
    let asked = engine.take_control(2);
    let markets = vec![MarketId::from("1.1"), "1.2".into()];
    assert!(asked.contains(&(a.clone(), Control::Image(markets.clone()))), "{asked:?}");
    assert!(asked.contains(&(a.clone(), Control::Taken { seq: 3, since: 3 })));
    assert_eq!(engine.take_control(3), [], "not asked and told again at once");
    let again = [(a.clone(), Control::Taken { seq: 3, since: 3 }), (a.clone(), Control::Image(markets))];
    assert_eq!(engine.take_control(2_002), again, "but after a while, since both may be lost");

    engine.handle_updates(&a, [image("1.1", "e1"), level("1.2", 210, 5)], times(3));
    assert_eq!(engine.feed("a", 3), Some(FeedState::Stale), "a change heals nothing");
    engine.handle_updates(&a, [image("1.2", "e2")], times(4));
    assert_eq!(engine.feed("a", 4), Some(FeedState::Live));
    assert!(engine.handle_message(&a, Some(1), 5), "a source that begins anew");
    assert_eq!(engine.feed("a", 5), Some(FeedState::Stale));
}

#[test]
fn silence_makes_stale_then_down_and_is_told_at_once() {
    let (_, mut engine, a) = running(0);
    engine.handle_message(&a, Some(1), 0);
    engine.handle_time(0);
    for shard in engine.shards() {
        assert_eq!(engine.take_alive(shard, 0).unwrap().0.feeds[0].state, FeedState::Live);
        assert_eq!(engine.take_alive(shard, 100), None, "one is under way");
        engine.handle_written(shard);
        assert_eq!(engine.take_alive(shard, 100), None);
        assert!(engine.take_alive(shard, 500).is_some());
        engine.handle_written(shard);
    }
    for (now, state) in [(5_000, FeedState::Live), (5_001, FeedState::Stale), (15_001, FeedState::Down)] {
        engine.take_alive(0, now - 1);
        engine.handle_written(0);
        engine.handle_time(now);
        assert_eq!(engine.feed("a", now), Some(state));
        let told = engine.take_alive(0, now).map(|alive| alive.0.feeds[0].state);
        assert_eq!(told, (state != FeedState::Live).then_some(state), "a change is told at once");
        engine.handle_written(0);
    }
    engine.handle_message(&a, Some(2), 20_000);
    assert_eq!(engine.feed("a", 20_000), Some(FeedState::Live));
}

#[test]
fn only_unsequenced_sources_suffer_from_a_break() {
    let (_, mut engine, a) = running(0);
    let b: Arc<str> = "b".into();
    engine.handle_message(&a, Some(1), 0);
    engine.handle_message(&b, None, 0);
    engine.handle_updates(&a, [image("1.1", "e1")], times(0));
    engine.handle_updates(&b, [image("1.2", "e2")], times(0));
    engine.handle_input_break();
    assert_eq!(engine.feed("a", 0), Some(FeedState::Live));
    assert_eq!(engine.feed("b", 0), Some(FeedState::Stale));
}

#[test]
fn what_is_not_imaged_in_time_is_suspended_and_holds_up_nobody() {
    let (_, mut engine, a) = running(0);
    engine.handle_message(&a, None, 0);
    engine.handle_updates(&a, [image("1.1", "e1")], times(0));
    engine.handle_loss(&a);
    for now in (0..=31_000).step_by(1_000) {
        engine.handle_message(&a, None, now);
        engine.handle_time(now);
    }
    assert_eq!(engine.feed("a", 31_000), Some(FeedState::Live));
    let reason = |e: &Engine| e.book("1.1").unwrap().fields.text(MarketField::Reason).map(str::to_owned);
    assert_eq!(
        (status(&engine, "1.1"), reason(&engine)),
        (MarketStatus::Suspended, Some(UNCONFIRMED.into()))
    );
    engine.handle_updates(&a, [set("1.1", MarketField::Status, MarketStatus::Open.code())], times(31_000));
    assert_eq!(status(&engine, "1.1"), MarketStatus::Suspended, "a change does not re-open it");
    engine.handle_updates(&a, [image("1.1", "e1")], times(31_000));
    assert_eq!((status(&engine, "1.1"), reason(&engine)), (MarketStatus::Open, None));
}

#[test]
fn restored_markets_are_recovering_and_warm_ones_are_not() {
    let (mut shelves, mut engine, a) = running(0);
    engine.handle_message(&a, Some(1), 0);
    engine.handle_updates(&a, [image("1.1", "e1")], times(0));
    shelves.write(&mut engine, 0);
    let shard = shard_of("e1", 4);
    engine.handle_lost(shard);
    engine.handle_message(&a, Some(2), 1);
    engine.handle_updates(&a, [level("1.1", 220, 7)], times(1));
    let before = shelves.0[&shard].n;
    shelves.acquire(&mut engine, 1);
    shelves.write(&mut engine, 1);
    assert_eq!(engine.feed("a", 1), Some(FeedState::Live), "our own books were never out of step");
    assert!(shelves.0[&shard].n > before);
    shelves.check(&engine);

    let mut next = Engine::new(settings());
    shelves.acquire(&mut next, 2);
    assert_eq!(next.feed("a", 2), Some(FeedState::Down), "not heard yet");
    next.handle_message(&a, Some(9), 3);
    assert_eq!(next.feed("a", 3), Some(FeedState::Recovering));
    next.handle_updates(&a, [image("1.1", "e1")], times(3));
    assert_eq!(next.feed("a", 3), Some(FeedState::Live));
}

#[test]
fn a_market_that_moves_event_is_gone_there_and_imaged_here() {
    let (mut shelves, mut engine, a) = running(0);
    let (from, to) =
        ("e1", ["e2", "e3", "e4", "e5"].into_iter().find(|e| shard_of(e, 4) != shard_of("e1", 4)).unwrap());
    engine.handle_message(&a, Some(1), 0);
    engine.handle_updates(&a, [image("1.1", from)], times(0));
    shelves.write(&mut engine, 0);
    engine.handle_updates(&a, [set("1.1", MarketField::Event, to)], times(1));
    assert!(engine.take_batch(shard_of(from, 4), 1).is_none(), "gone there before it is written here");
    let new = engine.take_batch(shard_of(to, 4), 1).unwrap();
    let Ok(Live::Entry(Entry { what: What::Image { market, .. }, .. })) = Live::decode(&new.entries[0])
    else {
        panic!("no image")
    };
    assert_eq!((&*market, new.snapshots.len()), ("1.1", 1));
    engine.handle_written(shard_of(to, 4));
    let old = engine.take_batch(shard_of(from, 4), 1).unwrap();
    assert_eq!(old.gone, [MarketId::from("1.1")]);
    engine.handle_updates(
        &a,
        [Update::Stop { event: to.into(), scope: StopScope::Event, reason: None }],
        times(2),
    );
    assert_eq!(status(&engine, "1.1"), MarketStatus::Suspended, "its new event's stops name it");
}

#[test]
fn a_standby_that_came_late_does_not_publish_its_half_of_a_book() {
    let (mut shelves, mut owner, a) = running(0);
    owner.handle_message(&a, Some(1), 0);
    owner.handle_updates(&a, [image("1.1", "e1"), level("1.1", 220, 7)], times(0));
    shelves.write(&mut owner, 0);

    // What it hears first of the market is a new definition.
    let mut standby = Engine::new(settings());
    standby.handle_message(&a, Some(2), 1);
    let mut delta = Delta::default();
    delta.set(MarketField::Kind, Some(Value::Int(0)));
    delta.set(MarketField::Event, Some(Value::Text("e1".into())));
    delta.set(MarketField::Status, Some(Value::Int(MarketStatus::Open.code())));
    let half = Update::Change { market: "1.1".into(), delta, rollback: false };
    standby.handle_updates(&a, [half.clone()], times(1));
    assert!(standby.book("1.1").unwrap().selections.is_empty());
    assert_eq!(standby.take_control(1), [], "it says nothing to sources");

    shelves.acquire(&mut standby, 2);
    shelves.write(&mut standby, 2);
    assert_eq!(standby.book("1.1"), owner.book("1.1"));
    assert_eq!(standby.feed("a", 2), Some(FeedState::Recovering));
    shelves.check(&standby);

    // Where nothing is stored it is all there is.
    let (mut empty, mut first) = (Shelves::default(), Engine::new(settings()));
    first.handle_message(&a, Some(2), 1);
    first.handle_updates(&a, [half], times(1));
    empty.acquire(&mut first, 2);
    assert_eq!(first.feed("a", 2), Some(FeedState::Live));
}

#[test]
fn a_market_has_one_source() {
    let (_, mut engine, a) = running(0);
    let b: Arc<str> = "b".into();
    engine.handle_message(&a, None, 0);
    engine.handle_message(&b, None, 0);
    engine.handle_updates(&a, [image("1.1", "e1")], times(0));
    let stop = Update::Stop { event: "e1".into(), scope: StopScope::Event, reason: None };
    let tries = [
        image("1.1", "e2"),
        image("1.1", "e1"),
        level("1.1", 1, 1),
        Update::Gone { market: "1.1".into() },
        stop,
    ];
    engine.handle_updates(&b, tries, times(1));
    assert_eq!(engine.problems().count("b", ProblemKind::ForeignMarket), 4);
    assert_eq!(engine.problems().last().count(), 4);
    assert_eq!(engine.book("1.1").unwrap().fields.text(MarketField::Event), Some("e1"));
    assert_eq!(status(&engine, "1.1"), MarketStatus::Open);
    engine.handle_updates(&b, [level("1.9", 1, 1)], times(1));
    assert_eq!(engine.problems().count("b", ProblemKind::UnknownMarket), 1);
}

#[test]
fn terminal_markets_go_after_a_while_unless_rolled_back() {
    let (mut shelves, mut engine, a) = running(0);
    let closed = MarketStatus::Settled.code();
    engine.handle_message(&a, None, 0);
    engine.handle_updates(&a, [image("1.1", "e1"), image("1.2", "e1")], times(0));
    engine.handle_updates(
        &a,
        [set("1.1", MarketField::Status, closed), set("1.2", MarketField::Status, closed)],
        times(10),
    );
    engine.handle_updates(&a, [image("1.2", "e1")], times(11));
    assert_eq!(engine.problems().count("a", ProblemKind::Terminal), 1);
    let mut delta = Delta::default();
    delta.set(MarketField::Status, Some(Value::Int(MarketStatus::Open.code())));
    engine.handle_updates(&a, [Update::Change { market: "1.2".into(), delta, rollback: true }], times(12));
    shelves.write(&mut engine, 12);
    engine.handle_time(600_009);
    assert_eq!(engine.len(), 2);
    engine.handle_time(600_010);
    assert_eq!(engine.take_forgotten(), [(a.clone(), MarketId::from("1.1"))]);
    shelves.write(&mut engine, 600_010);
    shelves.check(&engine);
    assert_eq!(engine.markets().map(|m| &**m.0).collect::<Vec<_>>(), ["1.2"]);
    assert!(!shelves.0[&shard_of("e1", 4)].stored.contains_key("1.1"), "its snapshot is deleted");
}

#[test]
fn matched_volume_is_listed_once_a_second_and_the_rest_at_once() {
    let (mut shelves, mut engine, a) = running(0);
    engine.handle_message(&a, None, 0);
    engine.handle_updates(&a, [image("1.1", "e1")], times(0));
    shelves.write(&mut engine, 0);
    let listed = |e: &Engine| e.listed("1.1").unwrap().fields.int(MarketField::Matched);
    for now in 1..=2_500 {
        engine.handle_updates(&a, [set("1.1", MarketField::Matched, now)], times(now));
        engine.handle_time(now);
    }
    assert_eq!(listed(&engine), Some(2_000));
    let batch = engine.take_batch(CATALOGUE, 2_500).unwrap();
    assert_eq!(batch.entries.len(), 2);
    engine.handle_time(3_000);
    assert_eq!(listed(&engine), Some(2_500), "the last one is told in its time");
    engine.handle_updates(
        &a,
        [set("1.1", MarketField::Status, MarketStatus::Suspended.code())],
        times(3_001),
    );
    assert_eq!(engine.listed("1.1").unwrap().status(), MarketStatus::Suspended);
}

#[test]
fn a_burst_is_cut_and_stored_before_the_log_must_forget() {
    let (mut shelves, mut engine, a) = running(0);
    engine.add_source(&a, Lane::Embedded, 0);
    engine.handle_updates(&a, [image("1.1", "e1"), image("1.2", "e1")], times(0));
    let shard = shard_of("e1", 4);
    shelves.write(&mut engine, 0);
    for i in 0..28_000 {
        engine.handle_updates(
            &a,
            [level(if i % 3 == 0 { "1.1" } else { "1.2" }, 200 + i % 50, 1 + i)],
            times(1),
        );
    }
    let mut batches = 0;
    while let Some(batch) = engine.take_batch(shard, 1) {
        assert!(batch.entries.len() <= 1_024);
        let uncovered = batch.last_number() - batch.covered.seq;
        assert!(uncovered <= settings().log_capacity, "{uncovered} changes are in no snapshot");
        shelves.0.get_mut(&shard).unwrap().append(batch);
        engine.handle_written(shard);
        batches += 1;
    }
    assert!(batches >= 28);
    shelves.write(&mut engine, 1);
    shelves.check(&engine);
}

trait LastNumber {
    fn last_number(&self) -> u64;
}

impl LastNumber for Batch {
    fn last_number(&self) -> u64 {
        self.first + self.entries.len() as u64 - 1
    }
}

#[test]
fn a_log_that_is_away_too_long_costs_an_epoch_and_no_book() {
    let (mut shelves, mut engine, a) = running(0);
    engine.add_source(&a, Lane::Embedded, 0);
    engine.handle_updates(&a, [image("1.1", "e1")], times(0));
    let shard = shard_of("e1", 4);
    for i in 0..50_000 {
        engine.handle_updates(&a, [level("1.1", 200 + i % 50, 1 + i)], times(1));
    }
    assert!(!engine.owns(shard), "what waits is bounded");
    shelves.acquire(&mut engine, 2);
    shelves.write(&mut engine, 2);
    shelves.check(&engine);
}

#[test]
fn what_is_not_imaged_holds_up_nobody_though_its_shard_is_somebody_elses() {
    let (mut shelves, mut engine, a) = running(0);
    engine.handle_message(&a, Some(1), 0);
    engine.handle_updates(&a, [image("1.1", "e1"), image("1.2", "e3")], times(0));
    shelves.write(&mut engine, 0);
    // Two own the shards together, and both lost something; one market is gone at its source, which nobody heard.
    engine.handle_lost(shard_of("e1", 4));
    engine.handle_message(&a, Some(3), 1);
    engine.handle_updates(&a, [image("1.2", "e3")], times(1));
    assert_eq!(engine.feed("a", 1), Some(FeedState::Stale), "1.1 may come");
    for second in 0..=32 {
        let now = second * 1_000;
        engine.handle_message(&a, Some(4 + second as u64), now);
        engine.handle_time(now);
    }
    assert_eq!(engine.feed("a", 32_000), Some(FeedState::Live), "1.2 is traded");
    assert_eq!(status(&engine, "1.1"), MarketStatus::Suspended, "as whoever owns it says");
}
