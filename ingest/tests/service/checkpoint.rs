//! Books against a checkpoint of a recording.

use std::collections::BTreeMap;

use serde_json::Value as Json;
use tictac_proto::model::{Book, MarketField, MarketId, MarketStatus, SelectionField, SelectionKey, Side};

fn hundredths(json: &Json) -> i64 {
    (json.as_f64().unwrap() * 100.0).round() as i64
}

fn key(text: &str) -> SelectionKey {
    let (id, handicap) = text.split_once('/').unwrap();
    let handicap = (handicap.parse::<f64>().unwrap() * 100.0).round() as i64;
    SelectionKey { id: id.parse().unwrap(), handicap }
}

/// The first difference. Markets that the checkpoint does not know any more are not looked at.
pub(crate) fn differs(want: &Json, books: &BTreeMap<MarketId, Book>) -> Option<String> {
    let want = want.as_object().unwrap();
    assert!(!want.is_empty(), "a checkpoint without markets proves nothing");
    want.iter().find_map(|(id, want)| {
        let Some(book) = books.get(&**id) else { return Some(format!("{id} is missing")) };
        market(book, want).map(|why| format!("{id}: {why}"))
    })
}

fn market(book: &Book, want: &Json) -> Option<String> {
    let status = match book.status() {
        // The stream has one word for both.
        MarketStatus::Settled if want["status"] == "CLOSED" => "CLOSED".to_owned(),
        status => status.name().to_uppercase(),
    };
    let matched = book.fields.int(MarketField::Matched).unwrap_or(0);
    let head = (status.as_str(), book.in_play(), matched);
    let theirs = (
        want["status"].as_str().unwrap(),
        want["in_play"].as_bool().unwrap(),
        hundredths(&want["total_matched"]),
    );
    if head != theirs {
        return Some(format!("{head:?}, not {theirs:?}"));
    }
    let runners = want["runners"].as_object().unwrap();
    if runners.len() != book.selections.len() {
        return Some(format!("{} runners, not {}", book.selections.len(), runners.len()));
    }
    runners.iter().find_map(|(name, want)| {
        let Some(runner) = book.selections.get(&key(name)) else { return Some(format!("no runner {name}")) };
        let last = (!want["ltp"].is_null()).then(|| hundredths(&want["ltp"]));
        if runner.status().name().to_uppercase() != want["status"].as_str().unwrap()
            || runner.fields.int(SelectionField::Last) != last
            || runner.fields.int(SelectionField::Volume).unwrap_or(0) != hundredths(&want["tv"])
        {
            return Some(format!("{name}: {:?}, not {want}", runner.fields));
        }
        [(Side::Back, "back"), (Side::Lay, "lay"), (Side::Traded, "traded")].into_iter().find_map(
            |(side, which)| {
                let mine: Vec<(i64, i64)> = runner.ladder(side).best_first(book.best_is_high(side)).collect();
                let levels = want[which].as_array().unwrap().iter();
                let theirs: Vec<(i64, i64)> =
                    levels.map(|l| (hundredths(&l[0]), hundredths(&l[1]))).collect();
                (mine != theirs).then(|| format!("{name} {which}: {mine:?}, not {theirs:?}"))
            },
        )
    })
}
