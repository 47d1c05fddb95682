//! The simulator: its updates against its truth, and whether its markets behave as markets do.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tictac_ingest::envelope::{Body, Envelope};
use tictac_ingest::native::NativeReader;
use tictac_ingest::simulator::recording::Recording;
use tictac_ingest::simulator::{Config, Simulator, TruthMarket, ticks};
use tictac_ingest::update::{StopScope, Update};
use tictac_proto::model::fields::Kind;
use tictac_proto::model::{
    Book, Field, MarketField, MarketId, MarketStatus, SelectionField, SelectionStatus, Side, Value,
};

const START: i64 = 1_764_038_400_000;

/// What a chain does with updates, in its plainest form.
#[derive(Default)]
struct Books(BTreeMap<MarketId, Book>);

impl Books {
    fn take(&mut self, update: &Update) {
        match update {
            Update::Image { market, book } => {
                self.0.insert(Arc::clone(market), (**book).clone());
            }
            Update::Change { market, delta, rollback } => {
                assert!(!rollback && !delta.is_empty(), "an empty change of {market}");
                self.0.get_mut(market).expect("an image comes before changes").apply(delta, 1);
            }
            Update::Stop { event, scope, .. } => {
                let mut hit = 0;
                for (id, book) in &mut self.0 {
                    let named = match scope {
                        StopScope::Event => true,
                        StopScope::Types(types) => {
                            types.iter().any(|t| book.fields.text(MarketField::Type) == Some(&**t))
                        }
                        StopScope::Markets(markets) => markets.contains(id),
                    };
                    if named
                        && book.fields.text(MarketField::Event) == Some(event)
                        && !book.status().is_terminal()
                    {
                        book.set(MarketField::Status, MarketStatus::Suspended.code());
                        hit += 1;
                    }
                }
                assert!(hit > 0, "a stop of {event} that stops nothing");
            }
            Update::Gone { market } => {
                let book = self.0.remove(market).expect("only a known market goes");
                assert!(book.status().is_terminal(), "{market} went as {:?}", book.status());
            }
        }
    }

    fn compare(&self, simulator: &Simulator) {
        let truth: BTreeMap<_, _> = simulator.truth().collect();
        assert!(truth.keys().copied().eq(self.0.keys()), "markets differ");
        for (id, market) in truth {
            if let Some(what) = market.differs(&self.0[id]) {
                panic!("{id}: {what}");
            }
        }
    }
}

/// What a market on its own must be at any time.
fn check(id: &str, market: &TruthMarket, before: Option<&TruthMarket>) {
    let ladder = market.int(MarketField::Kind) == Some(Kind::Ladder.code());
    let open = market.status() == MarketStatus::Open;
    for (key, selection) in &market.selections {
        let removed = selection.int(SelectionField::Status) != Some(SelectionStatus::Active.code());
        for side in [Side::Back, Side::Lay] {
            assert!(ladder || selection.ladder(side).is_empty(), "{id}: a ladder in a fixed market");
            assert!(
                selection.ladder(side).len() <= 18,
                "{id} {key:?}: {} levels",
                selection.ladder(side).len()
            );
            assert!(
                open && !removed || selection.ladder(side).is_empty(),
                "{id} {key:?}: offers while not open"
            );
        }
        for side in Side::ALL {
            for (price, size) in selection.ladder(side) {
                assert!(ticks::index(*price).is_some(), "{id}: {price} is no tick");
                assert!(*size > 0, "{id}: size {size}");
            }
        }
        if let (Some(back), Some(lay)) = (selection.best_back(), selection.best_lay()) {
            assert!(back.0 < lay.0, "{id} {key:?}: crossed {back:?} {lay:?}");
        }
        let traded: i64 = selection.ladder(Side::Traded).values().sum();
        assert_eq!(traded, selection.int(SelectionField::Volume).unwrap_or(0), "{id} {key:?}");
    }
    let volumes: i64 = market.selections.values().filter_map(|s| s.int(SelectionField::Volume)).sum();
    assert_eq!(volumes, market.int(MarketField::Matched).unwrap_or(0), "{id}");
    if let Some(before) = before {
        let both = before.status() == MarketStatus::Suspended && market.status() == MarketStatus::Suspended;
        let same_stop = before.text(MarketField::Reason) == market.text(MarketField::Reason);
        let prices = |m: &TruthMarket| m.selections.values().map(|s| s.ladders.clone()).collect::<Vec<_>>();
        assert!(!both || !same_stop || prices(before) == prices(market), "{id}: prices move while suspended");
        assert!(!before.status().is_terminal() || market.status().is_terminal(), "{id}: came back");
    }
    if market.status().is_terminal() {
        let winners = market.selections.values();
        let won = |s: &&tictac_ingest::simulator::TruthSelection| {
            s.int(SelectionField::Status) == Some(SelectionStatus::Winner.code())
        };
        assert_eq!(
            winners.filter(won).count() as i64,
            market.int(MarketField::Winners).expect("set"),
            "{id}"
        );
    }
}

#[test]
fn books_equal_truth_and_markets_behave_for_ten_minutes() {
    let (mut goals, mut scopes) = (0, BTreeSet::new());
    for seed in 1..=3 {
        let mut simulator = Simulator::new(seed, Config::default());
        let (mut books, mut updates) = (Books::default(), Vec::new());
        let mut before: BTreeMap<MarketId, TruthMarket> = BTreeMap::new();
        let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
        let mut closed_since: BTreeMap<MarketId, i64> = BTreeMap::new();
        let (mut changes, mut gone, mut most) = (0_usize, 0, 0);
        for step in 0..=1_200 {
            let now = START + step * 500;
            updates.clear();
            simulator.advance(now, &mut updates);
            for update in &updates {
                match update {
                    Update::Change { .. } => changes += 1,
                    Update::Gone { .. } => gone += 1,
                    Update::Stop { reason, scope, .. } => {
                        *reasons.entry(reason.as_deref().expect("a reason").to_owned()).or_default() += 1;
                        scopes.insert(match scope {
                            StopScope::Event => "event",
                            StopScope::Types(_) => "types",
                            StopScope::Markets(_) => "markets",
                        });
                    }
                    Update::Image { .. } => {}
                }
                books.take(update);
            }
            books.compare(&simulator);
            let truth: BTreeMap<_, _> =
                simulator.truth().map(|(id, m)| (Arc::clone(id), m.clone())).collect();
            most = most.max(truth.len());
            for (id, market) in &truth {
                check(id, market, before.get(id));
                if market.status().is_terminal() {
                    let since = *closed_since.entry(Arc::clone(id)).or_insert(now);
                    assert!(now - since <= 46_000, "seed {seed}: {id} stays after it closed");
                }
            }
            before = truth;
        }
        let reason = |r: &str| reasons.get(r).copied().unwrap_or(0);
        assert!(reason("goal") >= 1, "seed {seed}: {reasons:?}");
        goals += reason("goal");
        assert!(
            reason("non-runner") >= 1 && reason("off") >= 2 && reason("result") >= 2,
            "seed {seed}: {reasons:?}"
        );
        assert!(reason("set over") >= 1 && reason("kick-off") >= 2, "seed {seed}: {reasons:?}");
        assert!(gone >= 10 && most <= 40, "seed {seed}: {gone} gone, {most} at most");
        let rate = changes / 600;
        assert!((80..=150).contains(&rate), "seed {seed}: {rate} changes a second");
        eprintln!("seed {seed}: {rate} changes/s, {gone} gone, at most {most} markets, {reasons:?}");
    }
    assert!(goals >= 8 && scopes.len() >= 2, "{goals} goals, {scopes:?}");
}

#[test]
fn the_same_seed_and_times_give_the_same_updates() {
    let run = |seed, times: &[i64]| {
        let mut simulator = Simulator::new(seed, Config::default());
        let mut updates = Vec::new();
        for time in times {
            simulator.advance(START + time, &mut updates);
        }
        updates
    };
    let times: Vec<i64> = (0..300).map(|i| i * 137).collect();
    assert_eq!(run(7, &times), run(7, &times));
    assert_ne!(run(7, &times), run(8, &times));
    // A time that goes backwards changes nothing, and a leap of a day is not played out.
    let mut simulator = Simulator::new(7, Config::default());
    let mut updates = Vec::new();
    simulator.advance(START, &mut updates);
    updates.clear();
    simulator.advance(START - 5_000, &mut updates);
    assert!(updates.is_empty());
    simulator.advance(START + 86_400_000, &mut updates);
    assert!((1_000..200_000).contains(&updates.len()), "{}", updates.len());
}

#[test]
fn the_rate_multiplies_updates() {
    let count = |rate| {
        let mut simulator = Simulator::new(3, Config { rate, ..Config::default() });
        let mut updates = Vec::new();
        simulator.advance(START, &mut updates);
        updates.clear();
        simulator.advance(START + 20_000, &mut updates);
        updates.len()
    };
    let (one, ten) = (count(1.0), count(10.0));
    assert!(ten > 6 * one && ten < 15 * one, "{one} {ten}");
}

#[test]
fn the_book_to_back_is_about_a_hundred_per_cent() {
    let mut simulator = Simulator::new(5, Config::default());
    let mut updates = Vec::new();
    let (mut sum, mut seen) = (0.0, 0);
    for step in 0..240 {
        simulator.advance(START + step * 1_000, &mut updates);
        updates.clear();
        for (_, market) in simulator.truth() {
            let winners = market.int(MarketField::Winners).expect("set") as f64;
            let active = market
                .selections
                .values()
                .filter(|s| s.int(SelectionField::Status) == Some(SelectionStatus::Active.code()));
            let best: Option<Vec<f64>> = active.map(|s| s.best_back().map(|b| 100.0 / b.0 as f64)).collect();
            let Some(best) = best.filter(|b| !b.is_empty()) else { continue };
            sum += best.iter().sum::<f64>() / winners;
            seen += 1;
        }
    }
    let mean = sum / f64::from(seen);
    assert!(seen > 1_000 && (1.0..1.03).contains(&mean), "{mean} over {seen}");
}

#[test]
fn a_native_recording_reads_back_to_the_truth() {
    let recording = Recording { seed: 11, config: Config::default(), start_ms: START, seconds: 120 };
    let mut bytes = Vec::new();
    let lines = recording.write_native(&mut bytes).expect("a vector takes all");
    let mut reader = NativeReader::new("demo".into());
    let mut books = Books::default();
    let (mut updates, mut problems) = (Vec::new(), Vec::new());
    let mut expected = 1;
    for line in bytes.split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
        let envelope = Envelope::read(line, &mut problems).expect("an envelope");
        assert_eq!(envelope.seq, Some(expected));
        expected += 1;
        let Body::Native(body) = &envelope.body else { panic!("not native") };
        reader.read(body, &mut updates, &mut problems);
        assert_eq!(problems, []);
        for update in updates.drain(..) {
            books.take(&update);
        }
    }
    assert_eq!(lines + 1, expected);
    let mut simulator = Simulator::new(11, Config::default());
    for line in 0..=1_200 {
        simulator.advance(START + line * 100, &mut updates);
    }
    books.compare(&simulator);
}

/// A reader of `mcm` as plain as can be, to hold the rendering against the checkpoints.
#[derive(Default)]
struct McmBooks(BTreeMap<String, serde_json::Value>);

impl McmBooks {
    fn take(&mut self, message: &serde_json::Value) {
        assert_eq!(message["op"], "mcm");
        for mc in message["mc"].as_array().expect("changes") {
            let id = mc["id"].as_str().expect("an id").to_owned();
            if mc["img"] == true {
                self.0.insert(id.clone(), serde_json::json!({"total_matched": 0, "runners": {}}));
            }
            let book = self.0.get_mut(&id).expect("an image comes first");
            let definition = &mc["marketDefinition"];
            if definition.is_object() {
                book["status"] = definition["status"].clone();
                book["in_play"] = definition["inPlay"].clone();
                for runner in definition["runners"].as_array().expect("runners") {
                    let key = format!("{}/0", runner["id"]);
                    let book = &mut book["runners"][&key];
                    if book.is_null() {
                        *book =
                            serde_json::json!({"ltp": null, "tv": 0, "back": [], "lay": [], "traded": []});
                    }
                    book["status"] = runner["status"].clone();
                }
            }
            if mc["tv"].is_number() {
                book["total_matched"] = mc["tv"].clone();
            }
            for rc in mc["rc"].as_array().into_iter().flatten() {
                let book = &mut book["runners"][&format!("{}/0", rc["id"])];
                for (name, field) in [("ltp", "ltp"), ("tv", "tv")] {
                    if rc[name].is_number() {
                        book[field] = rc[name].clone();
                    }
                }
                for (name, field) in [("atb", "back"), ("atl", "lay"), ("trd", "traded")] {
                    for level in rc[name].as_array().into_iter().flatten() {
                        let ladder = book[field].as_array_mut().expect("a ladder");
                        ladder.retain(|l| l[0] != level[0]);
                        if level[1].as_f64() != Some(0.0) {
                            ladder.push(level.clone());
                        }
                        ladder.sort_by(|a, b| {
                            let (a, b) = (a[0].as_f64().expect("a price"), b[0].as_f64().expect("a price"));
                            if field == "back" { b.total_cmp(&a) } else { a.total_cmp(&b) }
                        });
                    }
                }
            }
        }
    }
}

#[test]
fn an_mcm_recording_reads_back_to_its_checkpoints() {
    let recording = Recording { seed: 12, config: Config::default(), start_ms: START, seconds: 200 };
    let (mut bytes, mut checkpoints) = (Vec::new(), Vec::new());
    let lines =
        recording.write_mcm("simulated.mcm", 400, &mut bytes, &mut checkpoints).expect("vectors take all");
    let all: serde_json::Value = serde_json::from_slice(&checkpoints).expect("json");
    assert_eq!(all["lines"], lines);
    let mut due = all["checkpoints"].as_array().expect("checkpoints").iter().peekable();
    assert!(due.len() >= 4, "{}", due.len());
    let mut books = McmBooks::default();
    let mut compared = 0;
    for (line, message) in (1_u64..).zip(bytes.split(|b| *b == b'\n').filter(|l| !l.is_empty())) {
        books.take(&serde_json::from_slice(message).expect("json"));
        if due.peek().is_some_and(|c| c["line"] == line) {
            let checkpoint = due.next().expect("peeked");
            for (id, market) in checkpoint["markets"].as_object().expect("markets") {
                assert_eq!(&books.0[id], market, "line {line}, market {id}");
                compared += 1;
            }
        }
    }
    assert!(due.next().is_none() && compared >= 80, "{compared}");
}

#[test]
fn every_market_says_what_it_is() {
    let mut simulator = Simulator::new(1, Config::default());
    let mut updates = Vec::new();
    simulator.advance(START, &mut updates);
    assert!((25..=30).contains(&updates.len()), "{}", updates.len());
    assert!(updates.iter().all(|u| matches!(u, Update::Image { .. })));
    let mut sports = BTreeSet::new();
    for (_, market) in simulator.truth() {
        for field in [
            MarketField::Event,
            MarketField::EventName,
            MarketField::Sport,
            MarketField::Competition,
            MarketField::Start,
            MarketField::Source,
            MarketField::Type,
            MarketField::Name,
            MarketField::Winners,
        ] {
            assert!(market.fields.contains_key(&field), "{}", field.name());
        }
        sports.insert(market.text(MarketField::Sport).expect("set").to_owned());
        if market.int(MarketField::Kind) == Some(Kind::Fixed.code()) {
            for selection in market.selections.values() {
                assert!(selection.int(SelectionField::Price).is_some_and(|p| p > 100));
                assert!(matches!(selection.fields.get(&SelectionField::Native), Some(Value::Text(_))));
            }
        }
    }
    assert_eq!(sports.len(), 3);
    assert!(simulator.truth().any(|(_, m)| m.int(MarketField::InPlay) == Some(1)));
}
