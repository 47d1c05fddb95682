//! The catalogue as `GET /v1/markets` shows it: filtered, sorted by sport, start, event and id, in pages.

use bytes::Bytes;
use tictac_proto::log::CATALOGUE;
use tictac_proto::model::{FieldChanges, Market, MarketField, MarketId, MarketStatus, Value};
use tictac_proto::wire::{JsonWriter, Writer};

use super::Hub;

/// Most markets of one page.
pub const MAX_PAGE: usize = 500;

/// Which markets are asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MarketFilter {
    /// Only of this sport.
    pub sport: Option<String>,
    /// Only of this event.
    pub event: Option<String>,
    /// Only with this status.
    pub status: Option<MarketStatus>,
    /// Only in play, or only not.
    pub in_play: Option<bool>,
    /// Those after this id in the order of the list.
    pub after: Option<String>,
    /// At most so many.
    pub limit: usize,
}

/// A page of the catalogue.
#[derive(Debug, Clone)]
pub struct Listing {
    /// The JSON body: `{"markets":[…],"next":id or null,"total":n}`.
    pub body: Bytes,
}

fn rank(market: &Market) -> (&str, i64, &str, &str) {
    let fields = &market.book.fields;
    (
        fields.text(MarketField::Sport).unwrap_or(""),
        fields.int(MarketField::Start).unwrap_or(0),
        fields.text(MarketField::Event).unwrap_or(""),
        &market.id,
    )
}

impl MarketFilter {
    fn takes(&self, market: &Market) -> bool {
        let fields = &market.book.fields;
        let is = |wanted: &Option<String>, field| match wanted {
            Some(wanted) => fields.text(field) == Some(wanted.as_str()),
            None => true,
        };
        is(&self.sport, MarketField::Sport)
            && is(&self.event, MarketField::Event)
            && self.status.is_none_or(|s| market.book.status() == s)
            && self.in_play.is_none_or(|p| market.book.in_play() == p)
    }
}

impl Hub {
    /// A page of the catalogue; `None` where the market to go on after is not in the list any more.
    pub(super) fn list(&mut self, filter: &MarketFilter) -> Option<Listing> {
        let order = self.order.take().unwrap_or_else(|| self.ordered());
        let catalogue = self.followers.get(&CATALOGUE).map(|w| &w.follower);
        let market = |id: &MarketId| catalogue.and_then(|f| f.market(id));
        let markets: Vec<&Market> = order.iter().filter_map(market).filter(|m| filter.takes(m)).collect();
        let listing = page(&markets, filter);
        self.order = Some(order);
        listing
    }

    fn ordered(&self) -> Vec<MarketId> {
        let mut markets: Vec<&Market> = self.catalogue().collect();
        markets.sort_by(|a, b| rank(a).cmp(&rank(b)));
        markets.into_iter().map(|m| m.id.clone()).collect()
    }
}

/// Whether a change of these fields moves a market in the list.
pub(super) fn reorders(fields: &FieldChanges<MarketField>) -> bool {
    fields.iter().any(|(f, _)| matches!(f, MarketField::Sport | MarketField::Start | MarketField::Event))
}

fn page(markets: &[&Market], filter: &MarketFilter) -> Option<Listing> {
    let total = markets.len();
    let skip = match &filter.after {
        Some(after) => markets.iter().position(|m| *m.id == **after)? + 1,
        None => 0,
    };
    let limit = filter.limit.clamp(1, MAX_PAGE);
    let page = &markets[skip.min(total)..(skip + limit).min(total)];
    let mut w = JsonWriter::default();
    w.map(0);
    w.field(0, "markets");
    w.array(0);
    for market in page {
        write(&mut w, market);
    }
    w.end_array();
    w.field(0, "next");
    match page.last() {
        Some(last) if skip + page.len() < total => w.text(&last.id),
        _ => w.null(),
    }
    w.field(0, "total");
    w.uint(total as u64);
    w.end_map();
    Some(Listing { body: w.into_bytes().into() })
}

fn write(w: &mut JsonWriter, market: &Market) {
    w.map(0);
    w.field(0, "id");
    w.text(&market.id);
    let fields = &market.book.fields;
    for (field, name) in [
        (MarketField::Event, "event"),
        (MarketField::EventName, "event_name"),
        (MarketField::Sport, "sport"),
        (MarketField::Competition, "competition"),
        (MarketField::Start, "start"),
        (MarketField::Name, "name"),
        (MarketField::Type, "type"),
        (MarketField::Score, "score"),
        (MarketField::Clock, "clock"),
        (MarketField::Matched, "matched"),
        (MarketField::SizeExponent, "size_exponent"),
    ] {
        w.field(0, name);
        match fields.get(field) {
            Some(Value::Int(v)) => w.int(*v),
            Some(Value::Text(v)) => w.text(v),
            None => w.null(),
        }
    }
    w.field(0, "status");
    w.text(market.book.status().name());
    w.field(0, "in_play");
    w.flag(market.book.in_play());
    w.end_map();
}
