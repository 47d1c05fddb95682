//! A market as `GET /v1/markets/{id}` shows it.

use bytes::Bytes;
use tictac_proto::log::FeedReport;
use tictac_proto::model::fields::Kind;
use tictac_proto::model::{
    Book, Cells, Field, Market, MarketField, Selection, SelectionField, Side, Value, View,
};
use tictac_proto::position::Position;
use tictac_proto::wire::{FeedState, JsonWriter, Writer};

use super::Now;

/// A market's body and what goes into headers.
#[derive(Debug, Clone)]
pub struct Document {
    /// The JSON body.
    pub body: Bytes,
    /// Where the market stands.
    pub at: Position,
    /// Its last stop.
    pub stop: Position,
    /// The state of its feed.
    pub feed: FeedState,
    /// The source's last sign of life, Unix ms.
    pub as_of: i64,
    /// How old that is, ms.
    pub fresh_ms: i64,
    /// The view.
    pub view: View,
}

impl Document {
    /// Renders a market.
    #[must_use]
    pub fn new(market: &Market, view: View, feed: &FeedReport, now: Now) -> Self {
        let mut w = JsonWriter::default();
        write(&mut w, market, view, feed.state);
        Self {
            body: w.into_bytes().into(),
            at: market.at,
            stop: market.stop,
            feed: feed.state,
            as_of: feed.as_of,
            fresh_ms: (now.wall - feed.as_of).max(0),
            view,
        }
    }

    /// The entity tag: position, feed state, stop and view.
    #[must_use]
    pub fn etag(&self) -> String {
        format!("\"{}.{}.{}.{}\"", self.at, self.feed.name(), self.stop, self.view.code())
    }
}

fn optional<F: Field, const N: usize>(w: &mut JsonWriter, cells: &Cells<F, N>, field: F) {
    w.field(0, field.name());
    match cells.get(field) {
        Some(Value::Text(v)) => w.text(v),
        Some(Value::Int(v)) => w.int(*v),
        None => w.null(),
    }
}

fn number<F: Field, const N: usize>(w: &mut JsonWriter, cells: &Cells<F, N>, field: F) {
    w.field(0, field.name());
    w.int(cells.int(field).unwrap_or(0));
}

fn position(w: &mut JsonWriter, at: Position) {
    w.array(2);
    w.uint(at.epoch);
    w.uint(at.seq);
    w.end_array();
}

fn write(w: &mut JsonWriter, market: &Market, view: View, feed: FeedState) {
    let book = &market.book;
    let fields = &book.fields;
    let fixed = fields.int(MarketField::Kind) == Some(Kind::Fixed.code());
    w.map(0);
    w.field(0, "id");
    w.text(&market.id);
    optional(w, fields, MarketField::Event);
    for field in [MarketField::EventName, MarketField::Sport, MarketField::Competition, MarketField::Start] {
        optional(w, fields, field);
    }
    for field in [MarketField::Score, MarketField::Clock, MarketField::Source, MarketField::Name] {
        optional(w, fields, field);
    }
    optional(w, fields, MarketField::Type);
    w.field(0, "kind");
    w.text(if fixed { "fixed" } else { "ladder" });
    w.field(0, "status");
    w.text(book.status().name());
    optional(w, fields, MarketField::Reason);
    w.field(0, "in_play");
    w.flag(book.in_play());
    w.field(0, "crossed");
    w.flag(fields.int(MarketField::Crossed) == Some(1));
    number(w, fields, MarketField::BetDelay);
    number(w, fields, MarketField::Matched);
    number(w, fields, MarketField::Suspensions);
    w.field(0, "feed");
    w.text(feed.name());
    w.field(0, "epoch");
    w.uint(market.at.epoch);
    w.field(0, "seq");
    w.uint(market.at.seq);
    w.field(0, "stop");
    if market.stop.is_zero() {
        w.null()
    } else {
        position(w, market.stop)
    }
    number(w, fields, MarketField::PriceExponent);
    number(w, fields, MarketField::SizeExponent);
    optional(w, fields, MarketField::Currency);
    w.field(0, "selections");
    w.array(0);
    for (key, selection) in &book.selections {
        w.map(0);
        w.field(0, "id");
        w.int(key.id);
        w.field(0, "handicap");
        w.int(key.handicap);
        write_selection(w, book, selection, view, fixed);
        w.end_map();
    }
    w.end_array();
    w.end_map();
}

fn write_selection(w: &mut JsonWriter, book: &Book, selection: &Selection, view: View, fixed: bool) {
    let fields = &selection.fields;
    optional(w, fields, SelectionField::Name);
    w.field(0, "status");
    w.text(selection.status().name());
    optional(w, fields, SelectionField::Last);
    number(w, fields, SelectionField::Volume);
    for field in [SelectionField::SpNear, SelectionField::SpFar, SelectionField::Sp] {
        if fields.get(field).is_some() {
            optional(w, fields, field);
        }
    }
    if fixed {
        for field in [SelectionField::Price, SelectionField::Native, SelectionField::MaxStake] {
            optional(w, fields, field);
        }
        return;
    }
    for (side, name) in Side::ALL.into_iter().zip(["back", "lay", "traded"]) {
        if !view.shows(side) {
            continue;
        }
        w.field(0, name);
        w.array(0);
        for (price, size) in view.levels(selection.ladder(side), book.best_is_high(side)) {
            w.array(2);
            w.int(price);
            w.int(size);
            w.end_array();
        }
        w.end_array();
    }
}
