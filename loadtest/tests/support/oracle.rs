//! Books as an independent client has them, in one comparable form for every place where we have them.

use std::collections::BTreeMap;

use serde_json::Value as Json;
use tictac_proto::model::{Book, MarketField, SelectionField, Side, View};

type Levels = Vec<(i64, i64)>;

/// Status, last, volume, back, lay, traded.
type Runner = (String, Option<i64>, i64, Levels, Levels, Levels);

/// A market, comparable.
#[derive(Debug, PartialEq, Eq)]
pub struct Plain {
    pub status: String,
    pub in_play: bool,
    pub matched: i64,
    /// By (id, handicap in hundredths).
    pub runners: BTreeMap<(i64, i64), Runner>,
}

fn hundredths(json: &Json) -> i64 {
    (json.as_f64().unwrap() * 100.0).round() as i64
}

fn cut(levels: impl Iterator<Item = (i64, i64)>, view: View, side: Side) -> Levels {
    if !view.shows(side) {
        return Vec::new();
    }
    levels.take(view.depth().unwrap_or(usize::MAX)).collect()
}

/// The oracle's market, as a view shows it. The stream has one word for closed and settled.
pub fn from_oracle(want: &Json, view: View) -> Plain {
    let side = |runner: &Json, name: &str, side: Side| {
        let levels = runner[name].as_array().unwrap().iter();
        cut(levels.map(|l| (hundredths(&l[0]), hundredths(&l[1]))), view, side)
    };
    let runners = want["runners"].as_object().unwrap().iter().map(|(name, runner)| {
        let (id, handicap) = name.split_once('/').unwrap();
        let handicap = (handicap.parse::<f64>().unwrap() * 100.0).round() as i64;
        let last = (!runner["ltp"].is_null()).then(|| hundredths(&runner["ltp"]));
        let plain = (
            runner["status"].as_str().unwrap().to_lowercase(),
            last,
            hundredths(&runner["tv"]),
            side(runner, "back", Side::Back),
            side(runner, "lay", Side::Lay),
            side(runner, "traded", Side::Traded),
        );
        ((id.parse().unwrap(), handicap), plain)
    });
    Plain {
        status: want["status"].as_str().unwrap().to_lowercase(),
        in_play: want["in_play"].as_bool().unwrap(),
        matched: hundredths(&want["total_matched"]),
        runners: runners.collect(),
    }
}

fn settled_is_closed(status: &str) -> String {
    if status == "settled" { "closed".into() } else { status.into() }
}

/// A client's book.
pub fn from_book(book: &Book, view: View) -> Plain {
    let runners = book.selections.iter().map(|(key, selection)| {
        let side = |side: Side| cut(view.levels(selection.ladder(side), book.best_is_high(side)), view, side);
        let plain = (
            selection.status().name().to_owned(),
            selection.fields.int(SelectionField::Last),
            selection.fields.int(SelectionField::Volume).unwrap_or(0),
            side(Side::Back),
            side(Side::Lay),
            side(Side::Traded),
        );
        ((key.id, key.handicap), plain)
    });
    Plain {
        status: settled_is_closed(book.status().name()),
        in_play: book.in_play(),
        matched: book.fields.int(MarketField::Matched).unwrap_or(0),
        runners: runners.collect(),
    }
}

/// The body of `GET /v1/markets/{id}`.
pub fn from_document(json: &Json) -> Plain {
    let side = |selection: &Json, name: &str| -> Levels {
        let levels = selection[name].as_array().map_or(&[][..], |l| l);
        levels.iter().map(|l| (l[0].as_i64().unwrap(), l[1].as_i64().unwrap())).collect()
    };
    let runners = json["selections"].as_array().unwrap().iter().map(|selection| {
        let plain = (
            selection["status"].as_str().unwrap().to_owned(),
            selection["last"].as_i64(),
            selection["volume"].as_i64().unwrap(),
            side(selection, "back"),
            side(selection, "lay"),
            side(selection, "traded"),
        );
        ((selection["id"].as_i64().unwrap(), selection["handicap"].as_i64().unwrap()), plain)
    });
    Plain {
        status: settled_is_closed(json["status"].as_str().unwrap()),
        in_play: json["in_play"].as_bool().unwrap(),
        matched: json["matched"].as_i64().unwrap(),
        runners: runners.collect(),
    }
}
