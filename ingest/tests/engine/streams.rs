//! A source's stream, read by ingests that start, stop, fall behind and take over from each other: what is in the log is
//! what the stream said, nothing of it is lost, and no book that is shown as live goes back to what it was.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use tictac_ingest::engine::{Control, Engine};
use tictac_ingest::stream_id::StreamId;
use tictac_ingest::update::{StopScope, Update};
use tictac_proto::log::CATALOGUE;
use tictac_proto::model::{MarketField, MarketId, MarketStatus, Value};
use tictac_proto::wire::FeedState;

use crate::shelves::*;

const NOW: i64 = 1_000;

fn id(entry: usize) -> StreamId {
    StreamId { ms: entry as u64 + 1, n: 0 }
}

/// An ingest: its engine, and how much of the stream it read.
struct Reader {
    engine: Engine,
    read: usize,
    source: Arc<str>,
    started: bool,
}

impl Reader {
    fn new() -> Self {
        let mut engine = Engine::new(settings());
        let source: Arc<str> = "s".into();
        engine.open_stream(&source, NOW);
        Self { engine, read: 0, source, started: false }
    }

    /// Looks at what is stored, as one that stands by does, and reads on from there.
    fn prime(&mut self, shelves: &mut Shelves) {
        for shard in self.engine.shards() {
            let shelf = shelves.0.entry(shard).or_default();
            let epoch = shelf.epoch;
            let stored = shelf.acquire(shard);
            shelf.epoch = epoch;
            self.engine.handle_primed(shard, stored, NOW);
        }
        self.start();
    }

    fn start(&mut self) {
        if !self.started {
            self.started = true;
            let starts = self.engine.start_streams();
            let at = starts[&self.source];
            self.read = usize::try_from(at.ms).unwrap();
        }
    }

    fn read(&mut self, stream: &[Update], count: usize) {
        for _ in 0..count {
            let Some(update) = stream.get(self.read) else { break };
            self.engine.handle_stream_entry(&self.source, id(self.read));
            self.read += 1;
            assert!(self.engine.handle_message(&self.source, None, NOW));
            self.engine.handle_updates(&self.source, [update.clone()], times(NOW));
        }
        let ended = self.read == stream.len();
        self.engine.handle_stream_end(&self.source, ended);
        self.engine.handle_stream_end(&self.source, ended);
    }

    fn take_over(&mut self, shelves: &mut Shelves) {
        shelves.acquire(&mut self.engine, NOW);
        self.start();
    }
}

#[derive(Debug, Clone)]
enum Step {
    /// The owner reads so much.
    Read(usize),
    /// The one that stands by does.
    Follow(usize),
    /// The owner writes all.
    Write,
    /// The owner writes one batch of one shard.
    WriteOne(u16),
    /// The owner says it is alive.
    Alive,
    /// Time passes at the owner.
    Check,
    /// The owner ends, and the one that stands by takes over; another one starts to stand by.
    Kill,
    /// All end; one starts and takes over.
    Restart,
    /// The one that stands by is replaced.
    Replace,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1usize..12).prop_map(Step::Read),
        4 => (1usize..12).prop_map(Step::Follow),
        3 => Just(Step::Write),
        3 => (0u16..5).prop_map(|s| Step::WriteOne(if s == 4 { CATALOGUE } else { s })),
        2 => Just(Step::Alive),
        3 => Just(Step::Check),
        2 => Just(Step::Kill),
        1 => Just(Step::Restart),
        1 => Just(Step::Replace),
    ]
}

/// Every update of a stream says which one it is, by the matched volume. None is terminal: after a second death within a
/// takeover what was said before the end may be read again, and a market that ended does not open again.
fn numbered(updates: Vec<Update>) -> Vec<Update> {
    let terminal = |value: Option<&Value>| {
        let status = value.and_then(Value::int).and_then(MarketStatus::from_code);
        status.is_some_and(MarketStatus::is_terminal)
    };
    let lasting = |update: &Update| match update {
        Update::Image { book, .. } => !book.status().is_terminal(),
        Update::Change { delta, .. } => !terminal(delta.get(MarketField::Status).flatten()),
        _ => true,
    };
    let number = |(i, update): (usize, Update)| match update {
        Update::Image { market, mut book } => {
            book.set(MarketField::Matched, i as i64);
            Update::Image { market, book }
        }
        Update::Change { market, mut delta, rollback } => {
            delta.set(MarketField::Matched, Some(Value::Int(i as i64)));
            Update::Change { market, delta, rollback }
        }
        other => other,
    };
    updates.into_iter().filter(lasting).enumerate().map(number).collect()
}

/// By market, the number of the last update that is in the log.
fn reached(shelves: &Shelves) -> BTreeMap<MarketId, i64> {
    let mut all = BTreeMap::new();
    for (shard, shelf) in shelves.0.iter().filter(|s| *s.0 != CATALOGUE) {
        for market in shelf.books(*shard).markets() {
            let number = market.book.fields.get(MarketField::Matched).and_then(Value::int).unwrap_or(-1);
            let highest = all.entry(market.id.clone()).or_insert(number);
            *highest = number.max(*highest);
        }
    }
    all
}

/// Whether a market came to an event after a stop of it.
fn joined_a_stopped_event(stream: &[Update], market: &MarketId) -> bool {
    let mut stopped = BTreeSet::new();
    let mut joined = false;
    for update in stream {
        match update {
            Update::Stop { event, .. } => {
                stopped.insert(event.to_string());
            }
            Update::Image { market: m, book } if m == market => {
                joined |= book.fields.text(MarketField::Event).is_some_and(|event| stopped.contains(event));
            }
            Update::Change { market: m, delta, .. } if m == market => {
                let event = delta.get(MarketField::Event).flatten().and_then(Value::text);
                joined |= event.is_some_and(|event| stopped.contains(event));
            }
            _ => {}
        }
    }
    joined
}

fn alive(reader: &mut Reader, shelves: &mut Shelves, now: i64) {
    for shard in reader.engine.shards() {
        if let Some((_, resume)) = reader.engine.take_alive(shard, now) {
            shelves.0.entry(shard).or_default().resume.extend(resume);
            reader.engine.handle_written(shard);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn nothing_of_a_stream_is_lost_and_no_book_goes_back(
        updates in prop::collection::vec(update(), 1..120),
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let stream = numbered(updates);
        let mut shelves = Shelves::default();
        let mut owner = Reader::new();
        owner.take_over(&mut shelves);
        let mut standby = Reader::new();
        standby.prime(&mut shelves);
        let mut before = reached(&shelves);
        let mut now = NOW;
        for step in steps {
            match step {
                Step::Read(count) => owner.read(&stream, count),
                Step::Follow(count) => standby.read(&stream, count),
                Step::Write => shelves.write(&mut owner.engine, NOW),
                Step::WriteOne(shard) => {
                    shelves.write_one(&mut owner.engine, shard, NOW);
                }
                Step::Alive => {
                    now += 500;
                    alive(&mut owner, &mut shelves, now);
                }
                Step::Check => owner.engine.handle_time(NOW),
                Step::Kill => {
                    owner = std::mem::replace(&mut standby, Reader::new());
                    owner.take_over(&mut shelves);
                    standby.prime(&mut shelves);
                }
                Step::Restart => {
                    owner = Reader::new();
                    owner.take_over(&mut shelves);
                }
                Step::Replace => {
                    standby = Reader::new();
                    standby.prime(&mut shelves);
                }
            }
            // While a stream is behind, and until all that was read is written, its feed is recovering: nobody trades on
            // what is said then.
            if owner.read < stream.len() || owner.engine.backlog() > 0 {
                continue;
            }
            let after = reached(&shelves);
            for (market, number) in &before {
                if let Some(later) = after.get(market) {
                    prop_assert!(later >= number, "{market} went from {number} back to {later}");
                }
            }
            before = after;
        }
        let mut reference = Reader::new();
        reference.take_over(&mut Shelves::default());
        reference.read(&stream, stream.len());

        owner.read(&stream, stream.len());
        // What was taken over before the log said how far it is has to be imaged.
        for (_, control) in owner.engine.take_control(now) {
            let Control::Image(markets) = control else { continue };
            for market in markets {
                let Some(book) = reference.engine.book(&market) else { continue };
                let image = Update::Image { market, book: Box::new(book.clone()) };
                owner.engine.handle_stream_entry(&owner.source, id(stream.len()));
                owner.engine.handle_updates(&owner.source, [image], times(NOW));
            }
        }
        shelves.write(&mut owner.engine, NOW);
        shelves.check(&owner.engine);
        prop_assert!(owner.engine.is_warm(), "something waits for an image");
        // A sign of life, lest all was said to others.
        owner.engine.handle_message(&owner.source, None, NOW);
        prop_assert_eq!(owner.engine.feed("s", NOW), Some(FeedState::Live));

        prop_assert_eq!(owner.engine.len(), reference.engine.len());
        for (market, _) in reference.engine.markets() {
            let (mut book, mut truth) =
                (owner.engine.book(market).cloned().unwrap(), reference.engine.book(market).cloned().unwrap());
            // Where entries were applied again, suspensions were counted again; and the stop of an event is applied again
            // to a market that joined it only later. That may suspend it once too often, and never opens it.
            let mut ignored = vec![MarketField::Suspensions];
            if joined_a_stopped_event(&stream, market) {
                ignored.push(MarketField::Reason);
                if book.status() == MarketStatus::Suspended {
                    ignored.push(MarketField::Status);
                }
            }
            for field in ignored {
                book.fields.set(field, None, 0);
                truth.fields.set(field, None, 0);
            }
            prop_assert_eq!(book, truth, "{}", market);
        }
    }
}

/// The stop of its event finds it elsewhere when it is read again, and the opening before it is read again, too.
#[test]
fn a_market_that_left_a_stopped_event_is_not_opened_by_what_is_read_again() {
    let stream = [
        image("1.1", "e4"),
        set("1.1", MarketField::Status, MarketStatus::Open.code()),
        Update::Stop { event: "e4".into(), scope: StopScope::Event, reason: Some("goal".into()) },
        set("1.1", MarketField::Event, "e1"),
    ];
    let mut shelves = Shelves::default();
    let mut owner = Reader::new();
    owner.take_over(&mut shelves);
    owner.read(&stream, 1);
    shelves.write(&mut owner.engine, NOW);
    // A cut begins here, and is written.
    owner.engine.handle_time(NOW);
    owner.engine.handle_time(NOW);
    owner.read(&stream, 3);
    alive(&mut owner, &mut shelves, NOW + 500);
    shelves.write(&mut owner.engine, NOW);
    assert_eq!(status(&owner.engine, "1.1"), MarketStatus::Suspended);

    let mut next = Reader::new();
    next.take_over(&mut shelves);
    assert_eq!(next.read, 1, "what came after the cut is read again");
    next.read(&stream, 3);
    assert_eq!(status(&next.engine, "1.1"), MarketStatus::Suspended);
    let asked = next.engine.take_control(NOW).into_iter().map(|c| c.1);
    assert!(asked.into_iter().any(|c| c == Control::Image(vec!["1.1".into()])), "only an image opens it");
    next.engine.handle_updates(&next.source, [image("1.1", "e1")], times(NOW));
    assert_eq!(status(&next.engine, "1.1"), MarketStatus::Open);
}

#[test]
fn a_stream_that_is_behind_is_recovering_until_its_end_is_read() {
    let mut shelves = Shelves::default();
    let mut reader = Reader::new();
    reader.take_over(&mut shelves);
    let stream = [image("1.1", "e1"), level("1.1", 210, 5)];
    reader.engine.handle_stream_entry(&reader.source, id(0));
    reader.engine.handle_message(&reader.source, None, NOW);
    assert_eq!(reader.engine.feed("s", NOW), Some(FeedState::Recovering));
    reader.read(&stream, 2);
    assert_eq!(reader.engine.feed("s", NOW), Some(FeedState::Live));
    reader.engine.handle_stream_reset(&reader.source);
    assert_eq!(reader.engine.feed("s", NOW), Some(FeedState::Stale), "what it held is lost");
}

#[test]
fn a_position_is_logged_only_when_every_shard_holds_what_came_before_it() {
    let mut shelves = Shelves::default();
    let mut reader = Reader::new();
    reader.take_over(&mut shelves);
    let stream = [image("1.1", "e1"), image("1.2", "e3"), level("1.2", 210, 5)];
    let shard = |event| tictac_proto::log::shard_of(event, 4);
    let mut now = NOW;
    let mut resumes = |reader: &mut Reader, shelves: &mut Shelves| {
        now += 500;
        reader.engine.handle_time(NOW);
        alive(reader, shelves, now);
        shelves.0[&shard("e1")].resume.get("s").copied()
    };
    reader.read(&stream, 2);
    assert_eq!(resumes(&mut reader, &mut shelves), None);
    shelves.write_one(&mut reader.engine, shard("e1"), NOW);
    shelves.write_one(&mut reader.engine, CATALOGUE, NOW);
    reader.read(&stream, 1);
    assert_eq!(resumes(&mut reader, &mut shelves), None, "the other shard's image waits");
    shelves.write_one(&mut reader.engine, shard("e3"), NOW);
    assert_eq!(resumes(&mut reader, &mut shelves), Some(id(1)), "as of when the cut began");
    shelves.write(&mut reader.engine, NOW);
    resumes(&mut reader, &mut shelves);
    assert_eq!(resumes(&mut reader, &mut shelves), Some(id(2)));
}

#[test]
fn a_feed_is_called_live_only_after_what_made_it_so_is_written() {
    let mut shelves = Shelves::default();
    let mut reader = Reader::new();
    reader.take_over(&mut shelves);
    let shard = tictac_proto::log::shard_of("e1", 4);
    let mut now = NOW;
    let mut said = |reader: &mut Reader| {
        now += 500;
        let (alive, _) = reader.engine.take_alive(shard, now).unwrap();
        reader.engine.handle_written(shard);
        alive.feeds[0].state
    };
    reader.read(&[image("1.1", "e1"), level("1.1", 210, 5), level("1.1", 210, 6)], 2);
    assert_eq!(said(&mut reader), FeedState::Recovering);
    assert!(shelves.write_one(&mut reader.engine, shard, NOW));
    reader.read(&[image("1.1", "e1"), level("1.1", 210, 5), level("1.1", 210, 6)], 1);
    assert_eq!(reader.engine.feed("s", NOW), Some(FeedState::Live));
    assert_eq!(said(&mut reader), FeedState::Recovering, "the last price is not written");
    assert!(shelves.write_one(&mut reader.engine, shard, NOW));
    // More that waits does not hold it up.
    reader.engine.handle_updates(&reader.source, [level("1.1", 210, 7)], times(NOW));
    assert_eq!(said(&mut reader), FeedState::Live);
    assert!(shelves.write_one(&mut reader.engine, shard, NOW));
    reader.engine.handle_stream_end("s", false);
    assert_eq!(said(&mut reader), FeedState::Recovering, "what gets worse is said at once");
}
