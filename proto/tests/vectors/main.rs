//! The vectors that clients in other languages run: made by an independent interpreter of PROTOCOL.md, compared with
//! the files in `vectors/`, and run against this crate. `TICTAC_BLESS=1` rewrites the files.
#![allow(clippy::unwrap_used, reason = "in a test, to panic is to fail")]

mod cases;
mod interpreter;

use std::path::PathBuf;

use serde_json::{Value as Json, json};
use tictac_proto::checksum;
use tictac_proto::client::{ClientMarket, Outcome};
use tictac_proto::model::fields::{FieldType, KIND, MARKET_STATUS, PRICE_KIND, SELECTION_STATUS, SIZE_KIND};
use tictac_proto::model::{Book, Field, MarketField, MarketId, SelectionField, View};
use tictac_proto::position::Position;
use tictac_proto::wire::{Codec, Down, FEED_STATE};

use interpreter::{ENUMS, Follower, Held, MARKET, SELECTION, crc32c, digest};

/// Compares with a file of vectors, which `TICTAC_BLESS=1` writes first. Every item of a list has a line of its own.
fn compare(name: &str, about: &str, parts: Vec<(&str, Vec<Json>)>) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("vectors/{name}.json"));
    if std::env::var_os("TICTAC_BLESS").is_some() {
        let mut text = format!("{{\n\"name\": {},\n\"about\": {}", json!(name), json!(about));
        for (part, items) in &parts {
            let lines: Vec<String> = items.iter().map(Json::to_string).collect();
            text += &format!(",\n{}: [\n{}\n]", json!(part), lines.join(",\n"));
        }
        std::fs::write(&path, text + "\n}\n").unwrap();
    }
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|e| panic!("{}: {e}; TICTAC_BLESS=1 writes it", path.display()));
    let held: Json = serde_json::from_str(&text).unwrap();
    for (part, items) in &parts {
        let held = held[part].as_array().expect("a list");
        for (held, item) in held.iter().zip(items) {
            assert_eq!(held, item, "{name}: {part}");
        }
        assert_eq!(held.len(), items.len(), "{name}: length of {part}");
    }
}

fn read(message: &Json) -> Down {
    let text = message.to_string();
    let read = Down::read(&Codec::Json.decode(text.as_bytes()).unwrap()).expect(&text);
    let again = Codec::Msgpack.encode(&read);
    assert_eq!(Down::read(&Codec::Msgpack.decode(&again).unwrap()).unwrap(), read);
    read
}

fn name_of(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Applied => "applied",
        Outcome::Dropped => "dropped",
        Outcome::Gap => "gap",
        Outcome::Replaced => "replaced",
        Outcome::Stopped => "stopped",
        Outcome::Checked => "checked",
        Outcome::Mismatch => "mismatch",
        Outcome::Noted => "noted",
    }
}

fn as_pair(at: Position) -> [u64; 2] {
    [at.epoch, at.seq]
}

/// Puts the number in where a case says that the checksum is right or wrong.
fn fill_in(message: &mut Json, follower: &Follower) {
    let c = match message["c"].as_str() {
        Some("right") => follower.crc().unwrap_or(0),
        Some("wrong") => follower.crc().unwrap_or(0) ^ 1,
        _ => return,
    };
    message["c"] = json!(c);
}

#[test]
fn follow() {
    let mut list: Vec<Json> = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    for case in cases::all() {
        let name = case.name;
        let view = case.messages.iter().find_map(|m| m["w"].as_u64()).expect("a message that names the view");
        let mut interpreter = Follower::new("1.23", view);
        let mut client = ClientMarket::new("1.23".into(), View::from_code(view as i64).unwrap());
        let (mut messages, mut expectations) = (case.messages, Vec::new());
        for (i, message) in messages.iter_mut().enumerate() {
            fill_in(message, &interpreter);
            let expect = interpreter.expect(message);
            seen.insert(expect["result"].as_str().unwrap().to_owned());
            let result = name_of(client.handle(&read(message)));
            let stop = Some(client.stop()).filter(|s| !s.is_zero());
            let got = json!({
                "result": result,
                "position": client.position().map(as_pair),
                "stop": stop.map(as_pair),
                "crc": client.checksum(),
                "tradable_market": client.tradable_market(),
            });
            assert_eq!(got, expect, "{name}: message {i} {message}");
            expectations.push(expect);
        }
        assert!(!list.iter().any(|c| c["name"] == name), "{name} is there twice");
        list.push(json!({"name": name, "about": case.about, "market": "1.23", "view": view,
            "messages": messages, "expect": expectations}));
    }
    assert!(list.len() >= 40, "{} cases", list.len());
    assert_eq!(seen.len(), 8, "every result is expected somewhere: {seen:?}");
    let about = "One market and view as a client follows it: after each message what it did, and what is held. \
        The connection is live.";
    compare("follow", about, vec![("cases", list)]);
}

#[test]
fn messages_about_other_markets_and_views_are_dropped() {
    let mut client = ClientMarket::new("1.23".into(), View::All);
    assert_eq!(client.handle(&read(&cases::snap(5, 10))), Outcome::Replaced);
    for case in cases::all() {
        for (key, value) in [("m", json!("1.24")), ("w", json!(1))] {
            for mut message in case.messages.clone() {
                if message.get(key).is_none() {
                    continue;
                }
                message[key] = value.clone();
                if message["t"] == "crc" {
                    message["c"] = json!(0);
                }
                assert_eq!(client.handle(&read(&message)), Outcome::Dropped, "{message}");
            }
        }
    }
    assert!(client.tradable_market() && client.stop().is_zero());
    assert_eq!(client.position(), Some(Position::new(5, 10)));
}

#[test]
fn fields() {
    let table = |fields: &[(&str, &str)]| fields.iter().map(|f| json!([f.0, f.1])).collect::<Vec<_>>();
    fn own<F: Field>() -> Vec<Json> {
        let kind = |f: &F| match f.kind() {
            FieldType::Int => "int",
            FieldType::Bool => "bool",
            FieldType::Text => "text",
            FieldType::Enum(_) => "enum",
        };
        F::ALL.iter().map(|f| json!([f.name(), kind(f)])).collect()
    }
    assert_eq!(table(MARKET), own::<MarketField>());
    assert_eq!(table(SELECTION), own::<SelectionField>());
    let enums = json!({"status": MARKET_STATUS, "selection_status": SELECTION_STATUS, "kind": KIND,
        "price_kind": PRICE_KIND, "size_kind": SIZE_KIND, "feed": FEED_STATE});
    let written: serde_json::Map<_, _> =
        ENUMS.iter().map(|(name, names)| ((*name).to_owned(), json!(names))).collect();
    assert_eq!(Json::Object(written), enums);

    let about = "The tables of fields, by number, with their types, and of enumerations, by code.";
    let file = json!({"name": "fields", "about": about, "market": table(MARKET), "selection": table(SELECTION),
        "enums": enums});
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("vectors/fields.json");
    if std::env::var_os("TICTAC_BLESS").is_some() {
        std::fs::write(&path, format!("{file:#}\n")).unwrap();
    }
    let text = std::fs::read_to_string(&path).expect("vectors/fields.json; TICTAC_BLESS=1 writes it");
    assert_eq!(serde_json::from_str::<Json>(&text).unwrap(), file);
}

/// The document lists the tables in prose: the same names in the same order.
#[test]
fn the_document_lists_the_same_fields_and_names() {
    let document = include_str!("../../PROTOCOL.md").replace('\n', " ");
    for table in [MARKET, SELECTION] {
        let names: Vec<String> = table.iter().map(|f| format!("`{}`", f.0)).collect();
        assert!(document.contains(&names.join(" ")), "{names:?}");
    }
    for (name, names) in ENUMS.iter().filter(|e| e.0 != "feed") {
        assert!(document.contains(&names.join(", ")), "{name}: {names:?}");
    }
}

#[test]
fn digests() {
    const BIG: u64 = 9_007_199_254_740_991;
    let lists: [&[(&str, u64, u64)]; 9] = [
        &[],
        &[("1.23", 0, 0)],
        &[("1.23", 0, 1)],
        &[("1.23", 3, 4_294_967_295)],
        &[("1.23", 3, 4_294_967_296)],
        &[("1.23", 10, BIG)],
        &[("1.23", 1, 7), ("1.23", 3, 7), ("1.23", 10, 7), ("1.23", 0, 7)],
        &[("1.23", 0, 5_000_000_000), ("1.24", 0, 5_000_000_001), ("sr:match:9", 1, 3)],
        &[("märkt", 0, 2), ("馬", 1, BIG - 1)],
    ];
    let mut list = Vec::new();
    for positions in lists {
        let owned: Vec<_> = positions.iter().map(|p| (p.0.to_owned(), p.1, p.2)).collect();
        let expected = digest(&owned);
        let own = positions.iter().fold(0u32, |sum, (market, view, seq)| {
            let key = checksum::digest_key(market, View::from_code(*view as i64).unwrap());
            sum.wrapping_add(checksum::mix(key, *seq))
        });
        assert_eq!(own, expected, "{positions:?}");
        list.push(json!({"positions": positions, "digest": expected}));
    }
    compare("digest", "Positions [market, view, seq] of a session and their digest.", vec![("cases", list)]);
}

#[test]
fn checksums() {
    // The check value that everyone's CRC-32C has.
    assert_eq!(crc32c(b"123456789"), 0xE306_9283);
    let mut list = Vec::new();
    for (name, snap) in cases::snapshots() {
        let (market, view) = (snap["m"].as_str().unwrap(), snap["w"].as_u64().unwrap());
        let mut held = Held::default();
        held.apply(&snap);
        let canonical = held.canonical(market, view);
        let crc = crc32c(canonical.as_bytes());
        let Down::Snap(head, delta) = read(&snap) else { panic!("{name} is no snapshot") };
        let mut book = Book::default();
        book.apply(&delta, 1);
        let mut own = Vec::new();
        checksum::canonical(&mut own, &MarketId::from(market), &book, head.view);
        assert_eq!(String::from_utf8(own).unwrap(), canonical, "{name}");
        assert_eq!(checksum::checksum(&head.market, &book, head.view), crc, "{name}");
        list.push(json!({"name": name, "snap": snap, "view": view, "canonical": canonical, "crc": crc}));
    }
    compare("checksum", "Snapshots, their canonical form and its CRC-32C.", vec![("cases", list)]);
}
