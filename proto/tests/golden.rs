//! The exact bytes of every message type. A change here is a change of the protocol: `TICTAC_BLESS=1` rewrites
//! `vectors/golden.json` and `vectors/log.json`, and the diff is then to be judged.
#![allow(clippy::unwrap_used, reason = "in a test, to panic is to fail")]

use std::fmt::Write as _;
use std::path::PathBuf;

use serde_json::{Value as Json, json};
use tictac_proto::log::{Alive, Entry, FeedReport, Live, Stored, What};
use tictac_proto::model::{
    Book, Delta, LadderDelta, MarketField, SelectionField, SelectionKey, Side, Value, View,
};
use tictac_proto::position::Position;
use tictac_proto::wire::{
    Catalogue, Codec, Conflate, DeltaHead, Down, ErrorCode, FeedNews, FeedState, Heartbeat, How, Message,
    MessageType, Problem, Resume, Scope, SnapHead, Subscribe, Subscribed, Times, Up, Welcome,
};

const EPOCH: u64 = 1_806_336_000_000_007;
const TIMES: Times = Times {
    source: 1_764_000_000_000,
    received: 1_764_000_000_012,
    published: 1_764_000_000_013,
    encoded: 1_764_000_000_011,
};

fn at(seq: u64) -> Position {
    Position::new(EPOCH, seq)
}

fn change() -> Delta {
    let mut delta = Delta::default();
    delta.set(MarketField::Name, Some("Café \"<b>\" \u{2028}\u{2029}\n".into()));
    delta.set(MarketField::Status, Some(Value::Int(2)));
    delta.set(MarketField::Reason, None);
    delta.set(MarketField::InPlay, Some(Value::Int(1)));
    delta.remove(SelectionKey { id: 9, handicap: -150 });
    let selection = delta.selection_mut(SelectionKey { id: 47_972, handicap: 0 });
    selection.set(SelectionField::Status, Some(Value::Int(0)));
    selection.set(SelectionField::Last, Some(Value::Int(9_007_199_254_740_991)));
    *selection.ladder_mut(Side::Back) =
        LadderDelta { replace: false, levels: [(190, 0), (200, 125_000)].into_iter().collect() };
    *selection.ladder_mut(Side::Lay) =
        LadderDelta { replace: true, levels: [(202, 300)].into_iter().collect() };
    delta.selection_mut(SelectionKey { id: 47_973, handicap: 25 });
    delta
}

fn book() -> Book {
    let mut delta = Delta::default();
    for (field, text) in [
        (MarketField::Event, "34"),
        (MarketField::EventName, "赤 v 青"),
        (MarketField::Source, "exchange"),
        (MarketField::Currency, "GBP"),
    ] {
        delta.set(field, Some(text.into()));
    }
    for (field, value) in [
        (MarketField::Start, 1_764_003_600_000),
        (MarketField::Kind, 0),
        (MarketField::PriceKind, 0),
        (MarketField::PriceExponent, 2),
        (MarketField::SizeExponent, 2),
        (MarketField::Status, 1),
        (MarketField::InPlay, 0),
    ] {
        delta.set(field, Some(Value::Int(value)));
    }
    for (id, best) in [(1, 200), (2, 300)] {
        let selection = delta.selection_mut(SelectionKey { id, handicap: 0 });
        selection.set(SelectionField::Name, Some("Runner".into()));
        selection.set(SelectionField::Status, Some(Value::Int(0)));
        for i in 0..4 {
            selection.ladder_mut(Side::Back).set(best - i * 2, 1000 + i);
            selection.ladder_mut(Side::Lay).set(best + 2 + i * 2, 2000 + i);
            selection.ladder_mut(Side::Traded).set(best + i, 70_000);
        }
    }
    delta.selection_mut(SelectionKey { id: 3, handicap: -25 });
    let mut book = Book::default();
    book.apply(&delta, 1);
    book
}

fn snap_head(view: View, stop: Position) -> SnapHead {
    SnapHead {
        market: "1.234567".into(),
        view,
        at: at(5_000_000_123),
        stop,
        shard: 17,
        feed: FeedState::Live,
        times: TIMES,
    }
}

/// Collects cases.
#[derive(Default)]
struct Cases(Vec<Json>);

impl Cases {
    fn add(&mut self, name: &str, message: impl Message) {
        let json = String::from_utf8(Codec::Json.encode(&message)).expect("JSON is UTF-8");
        let mut hex = String::new();
        for byte in Codec::Msgpack.encode(&message) {
            write!(hex, "{byte:02x}").expect("writing to memory does not fail");
        }
        assert!(self.0.iter().all(|c| c["name"] != name), "{name} is there twice");
        self.0.push(json!({"name": name, "json": json, "msgpack_hex": hex}));
    }

    /// Compares with the file of that name, which `TICTAC_BLESS=1` writes first.
    fn compare(self, name: &str, about: &str) {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("vectors/{name}.json"));
        if std::env::var_os("TICTAC_BLESS").is_some() {
            let lines: Vec<String> = self.0.iter().map(Json::to_string).collect();
            let (name, about, lines) = (json!(name), json!(about), lines.join(",\n"));
            let text = format!("{{\n\"name\": {name},\n\"about\": {about},\n\"cases\": [\n{lines}\n]\n}}\n");
            std::fs::write(&path, text).unwrap();
        }
        let text = std::fs::read_to_string(&path)
            .unwrap_or_else(|e| panic!("{}: {e}; TICTAC_BLESS=1 writes it", path.display()));
        let held: Json = serde_json::from_str(&text).unwrap();
        let held = held["cases"].as_array().expect("a list of cases");
        for (held, case) in held.iter().zip(&self.0) {
            assert_eq!(held, case);
        }
        assert_eq!(held.len(), self.0.len(), "number of cases");
    }

    /// Adds a message of a client after reading it back.
    fn up(&mut self, name: &str, message: &Up) {
        for codec in Codec::ALL {
            assert_eq!(&Up::read(&codec.decode(&codec.encode(message)).unwrap()).unwrap(), message);
        }
        self.add(name, message);
    }

    /// Adds a message of the gateway after reading it back.
    fn down(&mut self, name: &str, message: &Down) {
        for codec in Codec::ALL {
            assert_eq!(&Down::read(&codec.decode(&codec.encode(message)).unwrap()).unwrap(), message);
        }
        self.add(name, message);
    }
}

fn up(cases: &mut Cases) {
    cases.up("hello", &Up::Hello { heartbeat: None, auth: None });
    cases.up("hello with everything", &Up::Hello { heartbeat: Some(1000), auth: Some("ticket".into()) });
    let markets = Scope::Markets(vec!["1.234567".into(), "1.234568".into()]);
    cases.up(
        "sub to markets",
        &Up::Sub(Subscribe {
            id: 1,
            scope: markets.clone(),
            view: View::Three,
            conflate: Conflate::Auto,
            resume: Resume::default(),
        }),
    );
    let resume = Resume {
        markets: [("1.234567".into(), at(41))].into_iter().collect(),
        shards: [(17, at(5_000_000_122)), (0, at(0))].into_iter().collect(),
    };
    cases.up(
        "sub to an event, with positions",
        &Up::Sub(Subscribe {
            id: 2,
            scope: Scope::Event("34".into()),
            view: View::All,
            conflate: Conflate::Raw,
            resume,
        }),
    );
    cases.up(
        "sub to a sport, every 250 ms",
        &Up::Sub(Subscribe {
            id: 3,
            scope: Scope::Sport("horse racing".into()),
            view: View::One,
            conflate: Conflate::Every(250),
            resume: Resume::default(),
        }),
    );
    cases.up("unsub", &Up::Unsub { id: 4, scope: markets, view: View::Ten });
    cases.up("snapshot", &Up::Snapshot { market: "1.234567".into(), view: View::Three });
    cases.up("ping", &Up::Ping { time: -5, read: None });
    cases.up("ping: read", &Up::Ping { time: 77, read: Some(1_764_000_000_123) });
}

fn session(cases: &mut Cases) {
    cases.down(
        "welcome",
        &Down::Welcome(Welcome {
            connection: "c-1".into(),
            heartbeat: 1000,
            now: 1_764_000_000_000,
            limits: vec![("subscriptions".into(), 1000), ("message_bytes".into(), 16_384)],
        }),
    );
    let subscribed = Subscribed {
        id: 1,
        market: "1.234567".into(),
        view: View::Three,
        conflate: Conflate::Auto,
        at: at(41),
        stop: at(40),
        shard: 17,
        source: "exchange".into(),
        feed: FeedState::Recovering,
        how: How::Delta,
    };
    cases.down("ok", &Down::Ok(subscribed.clone()));
    cases.down("ok without a stop", &Down::Ok(Subscribed { stop: Position::ZERO, ..subscribed }));
    cases.down(
        "ok to a scope",
        &Down::Ok(Subscribed {
            id: 2,
            market: "".into(),
            view: View::All,
            conflate: Conflate::Every(1000),
            at: Position::ZERO,
            stop: Position::ZERO,
            shard: 0,
            source: "".into(),
            feed: FeedState::Live,
            how: How::Snap,
        }),
    );
    let problem = Problem {
        id: Some(1),
        market: Some("1.9".into()),
        code: ErrorCode::UnknownMarket,
        why: "market 1.9 is not known here: ask the catalogue".into(),
        retry: Some(5000),
        fatal: false,
    };
    cases.down("err", &Down::Err(problem.clone()));
    cases.down(
        "err without the optional keys",
        &Down::Err(Problem { id: None, market: None, retry: None, fatal: true, ..problem }),
    );
    let heartbeat = Heartbeat { now: 1_764_000_000_000, echo: None, behind: 0, as_of: None, digest: 0 };
    cases.down("hb", &Down::Hb(heartbeat));
    cases.down(
        "hb with everything",
        &Down::Hb(Heartbeat {
            echo: Some(123),
            behind: 3,
            as_of: Some(1_763_999_999_700),
            digest: u32::MAX,
            ..heartbeat
        }),
    );
    cases.down("bye", &Down::Bye { code: 1012, why: "restart".into(), retry: 1500 });
}

fn market(cases: &mut Cases) {
    let id: tictac_proto::model::MarketId = "1.234567".into();
    for view in View::ALL {
        cases.add(&format!("snap of view {}", view.code()), (&snap_head(view, at(90)), &book()));
    }
    cases.add(
        "snap of an empty book without a stop",
        (&snap_head(View::Ten, Position::ZERO), &Book::default()),
    );
    let head =
        DeltaHead { market: id.clone(), view: View::All, epoch: EPOCH, prev: 41, seq: 42, times: TIMES };
    cases.down("delta", &Down::Delta(head.clone(), change()));
    cases.down("delta without changes", &Down::Delta(head, Delta::default()));
    cases.down("stop", &Down::Stop { market: id.clone(), at: at(43), why: None });
    cases
        .down("stop with a reason", &Down::Stop { market: id.clone(), at: at(43), why: Some("goal".into()) });
    for state in FeedState::ALL {
        cases.down(
            &format!("feed {}", state.name()),
            &Down::Feed(FeedNews { source: "exchange".into(), shard: 17, state, as_of: 1_764_000_000_000 }),
        );
    }
    cases.down(
        "gap",
        &Down::Gap { market: id.clone(), view: View::One, from: at(41), to: Position::new(EPOCH + 1024, 42) },
    );
    cases.down("gone", &Down::Gone { market: id.clone(), at: at(99), why: "settled".into() });
    cases.down(
        "catalogue",
        &Down::Catalogue(Catalogue {
            full: true,
            markets: vec![(id.clone(), change().fields), ("1.2".into(), Default::default())],
            gone: vec!["1.1".into()],
        }),
    );
    cases.down("crc", &Down::Crc { market: id, view: View::Three, at: at(42), checksum: u32::MAX });
}

fn log(cases: &mut Cases) {
    let market: tictac_proto::model::MarketId = "1.234567".into();
    let entries = [
        (
            "log: delta",
            What::Delta { market: market.clone(), delta: change(), stop: true, checksum: Some(u32::MAX) },
        ),
        (
            "log: delta without the optional keys",
            What::Delta { market: market.clone(), delta: change(), stop: false, checksum: None },
        ),
        (
            "log: image",
            What::Image { market: market.clone(), book: Box::new(book()), stop: at(7), checksum: 1 },
        ),
        (
            "log: stop",
            What::Stop { markets: vec![market.clone(), "1.2".into()], reason: Some("goal".into()) },
        ),
        ("log: stop without a reason", What::Stop { markets: vec![market.clone()], reason: None }),
        ("log: gone", What::Gone { market: market.clone() }),
    ];
    for (name, what) in entries {
        let entry = Entry { at: at(77), times: TIMES, what };
        assert_eq!(Live::decode(&entry.encode()), Ok(Live::Entry(entry.clone())));
        cases.add(name, &entry);
    }
    let feeds = vec![FeedReport { source: "exchange".into(), state: FeedState::Stale, as_of: 5 }];
    cases.add("log: alive", &Alive { at: at(77), now: 1_764_000_000_000, feeds });
    cases.add(
        "log: stored snapshot",
        &Stored { market, at: at(77), stop: at(7), book: Box::new(book()), checksum: 1 },
    );
}

#[test]
fn bytes_are_as_they_always_were() {
    let mut cases = Cases::default();
    up(&mut cases);
    session(&mut cases);
    market(&mut cases);
    for kind in MessageType::ALL {
        let start = format!("{{\"t\":\"{}\"", kind.name());
        assert!(
            cases.0.iter().any(|c| c["json"].as_str().unwrap().starts_with(&start)),
            "no case of {}",
            kind.name()
        );
    }
    cases.compare("golden", "The exact bytes of every message, in both encodings.");
}

#[test]
fn the_log_is_written_as_it_always_was() {
    let mut cases = Cases::default();
    log(&mut cases);
    cases.compare(
        "log",
        "The exact bytes of the log's entries and of stored snapshots; JSON is only for reading.",
    );
}
