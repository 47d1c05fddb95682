//! Operations of the native format, and the reader's memory of every market's scale.
//!
//! What cannot be read fails safe: a status that cannot be read suspends the market or hides the selection, and a
//! stop whose scope cannot be read stops the whole event.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;
use tictac_proto::limits::MAX_SELECTIONS;
use tictac_proto::model::fields::{Kind, PriceKind, SizeKind};
use tictac_proto::model::{
    Book, Delta, Field, MarketField, MarketId, MarketStatus, SelectionDelta, SelectionField, SelectionKey,
    SelectionStatus, Value,
};

use super::fields::{Refusal, Report, id, ladder, side, value};
use super::number::{Scale, scaled};
use super::path::Path;
use crate::node::Node;
use crate::problem::{Problem, ProblemKind};
use crate::update::{StopScope, Update};

/// Most markets whose scale a reader remembers.
pub const MAX_MARKETS: usize = 200_000;
/// Most operations of one message.
pub const MAX_OPERATIONS: usize = 65_536;
/// Most markets or types that one stop lists.
pub const MAX_STOP_LIST: usize = 1024;

/// Reads the native format of one source. (One reader a source: what one source says of a market's scale must not
/// decide how another's numbers are read.)
#[derive(Debug)]
pub struct NativeReader {
    source: Arc<str>,
    scales: HashMap<MarketId, Scale, RandomState>,
}

impl NativeReader {
    /// A reader for a source that has said nothing yet.
    #[must_use]
    pub fn new(source: Arc<str>) -> Self {
        Self { source, scales: HashMap::default() }
    }

    /// How many markets the reader knows the scale of.
    #[must_use]
    pub fn markets(&self) -> usize {
        self.scales.len()
    }

    /// Forgets a market that is gone.
    pub fn forget(&mut self, market: &str) {
        self.scales.remove(market);
    }

    /// A market's book is known from elsewhere: its numbers can be read from now on.
    pub fn restore(&mut self, market: &MarketId, book: &Book) {
        if self.scales.len() >= MAX_MARKETS && !self.scales.contains_key(market) {
            return;
        }
        let exponent = |field| book.fields.get(field).and_then(Value::int).and_then(|v| u8::try_from(v).ok());
        let scale = Scale {
            price: exponent(MarketField::PriceExponent).unwrap_or(2),
            size: exponent(MarketField::SizeExponent).unwrap_or(2),
        };
        self.scales.insert(Arc::clone(market), scale);
    }

    /// Reads one body. Every operation that can be read goes to `updates`, what cannot to `problems`; what is wrong
    /// with one item costs only that item.
    pub fn read(&mut self, body: &Node<'_>, updates: &mut Vec<Update>, problems: &mut Vec<Problem>) {
        let root = Path::root("body");
        let mut report = Report::new(problems);
        match body {
            Node::List(operations) if operations.len() > MAX_OPERATIONS => {
                let why = format!(
                    "{} operations; a message has at most {MAX_OPERATIONS}: send several",
                    operations.len()
                );
                report.add(ProblemKind::TooLarge, &root, why, &Node::Null);
            }
            Node::List(operations) => {
                for (i, operation) in operations.iter().enumerate() {
                    self.operation(operation, &root.index(i), updates, &mut report);
                }
            }
            operation => self.operation(operation, &root, updates, &mut report),
        }
        report.finish();
    }

    fn operation(
        &mut self,
        node: &Node<'_>,
        at: &Path<'_>,
        updates: &mut Vec<Update>,
        report: &mut Report<'_>,
    ) {
        if !matches!(node, Node::Map(_)) {
            let why = format!("{}; an operation is an object with \"op\"", node.kind());
            report.add(ProblemKind::Value, at, why, node);
            return;
        }
        let result = match node.get("op").and_then(Node::text) {
            Some("market") => self.market(node, at, report),
            Some("change") => self.change(node, at, report),
            Some("stop") => stop(node, at, report),
            Some("gone") => id(node.get("market"), "market").map_err(|r| ("market", r)).map(|market| {
                self.scales.remove(&market);
                Update::Gone { market }
            }),
            Some("alive") => return,
            _ => {
                let op = node.get("op").map_or_else(|| "missing".to_owned(), Node::excerpt);
                let why = format!("op is {op}; it must be market, change, stop, gone or alive");
                report.add(ProblemKind::Operation, &at.key("op"), why, node);
                return;
            }
        };
        match result {
            Ok(update) => updates.push(update),
            Err((key, (kind, why))) => report.add(kind, &at.key(key), why, node),
        }
    }

    fn market(&mut self, node: &Node<'_>, at: &Path<'_>, report: &mut Report<'_>) -> Outcome {
        let market = id(node.get("market"), "market").map_err(|r| ("market", r))?;
        if self.scales.len() >= MAX_MARKETS && !self.scales.contains_key(&market) {
            let why = format!(
                "{MAX_MARKETS} markets of this source are known; send op gone for those that are over"
            );
            return Err(("market", (ProblemKind::TooLarge, why)));
        }
        // A stop of its event has to find it, so that a market whose event cannot be read is not read at all.
        if let Some(given) = given(node, "event") {
            id(Some(given), "event").map_err(|r| ("event", r))?;
        }
        let mut delta = Delta::default();
        defaults(&mut delta, &market, &self.source);
        // All other numbers are read by these, so that a market whose scale cannot be read is not read at all.
        for field in MarketField::ALL.iter().copied().filter(|f| f.is_scale()) {
            let Some(given) = given(node, field.name()) else { continue };
            let read = value(field, given, Scale::default()).map_err(|r| (field.name(), r))?;
            delta.set(field, read);
        }
        let scale = Scale {
            price: exponent(&delta, MarketField::PriceExponent),
            size: exponent(&delta, MarketField::SizeExponent),
        };
        market_fields(node, scale, true, at, &mut delta, report);
        selections(node, scale, true, at, &mut delta, report)?;
        let mut book = Book::default();
        book.apply(&delta, 0);
        self.scales.insert(Arc::clone(&market), scale);
        Ok(Update::Image { market, book: Box::new(book) })
    }

    fn change(&mut self, node: &Node<'_>, at: &Path<'_>, report: &mut Report<'_>) -> Outcome {
        let market = id(node.get("market"), "market").map_err(|r| ("market", r))?;
        let Some(scale) = self.scales.get(&market).copied() else {
            let why = format!("market {market} is not known here; send op market first");
            return Err(("market", (ProblemKind::UnknownMarket, why)));
        };
        for (field, known) in
            [(MarketField::PriceExponent, scale.price), (MarketField::SizeExponent, scale.size)]
        {
            let Some(given) = node.get(field.name()) else { continue };
            let same = matches!(value(field, given, scale), Ok(Some(Value::Int(v))) if v == i64::from(known));
            if !same {
                let why = format!(
                    "{} cannot become {} by a change (it is {known}); send op market with the new scale",
                    field.name(),
                    given.excerpt()
                );
                return Err((field.name(), (ProblemKind::Value, why)));
            }
        }
        let rollback = match node.get("rollback") {
            None | Some(Node::Null) => false,
            Some(Node::Bool(v)) => *v,
            Some(other) => {
                let why = format!("{}; rollback must be true or false", other.kind());
                report.add(ProblemKind::Value, &at.key("rollback"), why, other);
                false
            }
        };
        let mut delta = Delta::default();
        market_fields(node, scale, false, at, &mut delta, report);
        selections(node, scale, false, at, &mut delta, report)?;
        Ok(Update::Change { market, delta, rollback })
    }
}

/// A member that is there and not null.
fn given<'n>(node: &'n Node<'_>, key: &str) -> Option<&'n Node<'n>> {
    node.get(key).filter(|n| **n != Node::Null)
}

/// An update, or which member of the operation made it impossible and why.
type Outcome = Result<Update, (&'static str, Refusal)>;

/// What a market is where the source does not say.
fn defaults(delta: &mut Delta, market: &MarketId, source: &Arc<str>) {
    let scale = Scale::default();
    // A market without an event is an event of its own.
    delta.set(MarketField::Event, Some(Value::Text(Arc::clone(market))));
    delta.set(MarketField::Source, Some(Value::Text(Arc::clone(source))));
    delta.set(MarketField::Kind, Some(Value::Int(Kind::Ladder.code())));
    delta.set(MarketField::PriceKind, Some(Value::Int(PriceKind::Odds.code())));
    delta.set(MarketField::PriceExponent, Some(Value::Int(i64::from(scale.price))));
    delta.set(MarketField::SizeKind, Some(Value::Int(SizeKind::Stake.code())));
    delta.set(MarketField::SizeExponent, Some(Value::Int(i64::from(scale.size))));
    delta.set(MarketField::Currency, Some("GBP".into()));
    delta.set(MarketField::Status, Some(Value::Int(MarketStatus::Open.code())));
}

fn exponent(delta: &Delta, field: MarketField) -> u8 {
    let value = delta.get(field).flatten().and_then(Value::int);
    value.and_then(|v| u8::try_from(v).ok()).unwrap_or(2)
}

/// Every member of an operation that names a field of a market, but for the scale and the source.
fn market_fields(
    node: &Node<'_>,
    scale: Scale,
    image: bool,
    at: &Path<'_>,
    delta: &mut Delta,
    report: &mut Report<'_>,
) {
    let Node::Map(members) = node else { return };
    for (key, given) in members {
        let Some(field) = MarketField::from_name(key) else { continue };
        // The exponents are read before; the source is who sends, whatever it says.
        if matches!(field, MarketField::PriceExponent | MarketField::SizeExponent | MarketField::Source) {
            continue;
        }
        // An image's event and scale keep their defaults where null is given.
        if image && *given == Node::Null && (field.is_scale() || field == MarketField::Event) {
            continue;
        }
        let read = match (field, given) {
            (MarketField::Event, given) if *given != Node::Null => {
                id(Some(given), "event").map(|event| Some(Value::Text(event)))
            }
            _ => value(field, given, scale),
        };
        match read {
            Ok(read) => delta.set(field, read),
            Err((kind, mut why)) => {
                if field == MarketField::Status {
                    why.push_str("; the market is suspended until a status that can be read comes");
                    delta.set(field, Some(Value::Int(MarketStatus::Suspended.code())));
                }
                report.add(kind, &at.key(key), why, given);
            }
        }
    }
}

fn selections(
    node: &Node<'_>,
    scale: Scale,
    image: bool,
    at: &Path<'_>,
    delta: &mut Delta,
    report: &mut Report<'_>,
) -> Result<(), (&'static str, Refusal)> {
    let at = at.key("selections");
    let list = match given(node, "selections") {
        None => return Ok(()),
        Some(Node::List(list)) => list,
        Some(other) => {
            report.add(
                ProblemKind::Value,
                &at,
                format!("{}; selections must be an array", other.kind()),
                other,
            );
            return Ok(());
        }
    };
    if list.len() > MAX_SELECTIONS {
        let why = format!("{} selections; a market has at most {MAX_SELECTIONS}", list.len());
        return Err(("selections", (ProblemKind::TooLarge, why)));
    }
    for (i, item) in list.iter().enumerate() {
        let at = at.index(i);
        match key(item) {
            Ok(key) if item.get("remove") == Some(&Node::Bool(true)) => delta.remove(key),
            Ok(key) => selection(item, scale, image, &at, delta.selection_mut(key), report),
            Err((member, why)) => report.add(ProblemKind::Value, &at.key(member), why, item),
        }
    }
    Ok(())
}

fn key(node: &Node<'_>) -> Result<SelectionKey, (&'static str, String)> {
    let id = node.get("id").ok_or_else(|| "no id; every selection needs one, an integer".to_owned());
    let id = id.and_then(|n| scaled(n, 0)).map_err(|why| ("id", why))?;
    let handicap = match node.get("handicap") {
        None | Some(Node::Null) => 0,
        Some(given) => scaled(given, 2).map_err(|why| ("handicap", why))?,
    };
    Ok(SelectionKey { id, handicap })
}

fn selection(
    node: &Node<'_>,
    scale: Scale,
    image: bool,
    at: &Path<'_>,
    change: &mut SelectionDelta,
    report: &mut Report<'_>,
) {
    let Node::Map(members) = node else { return };
    if image {
        change.set(SelectionField::Status, Some(Value::Int(SelectionStatus::Active.code())));
    }
    for (key, given) in members {
        let at = at.key(key);
        if let Some(side) = side(key) {
            if let Some(read) = ladder(given, scale, &at, report) {
                *change.ladder_mut(side) = read;
            }
            continue;
        }
        let Some(field) = SelectionField::from_name(key) else { continue };
        match value(field, given, scale) {
            Ok(read) => change.set(field, read),
            Err((kind, mut why)) => {
                if field == SelectionField::Status {
                    why.push_str("; the selection is hidden until a status that can be read comes");
                    change.set(field, Some(Value::Int(SelectionStatus::Hidden.code())));
                }
                report.add(kind, &at, why, given);
            }
        }
    }
}

/// A stop. Where its scope cannot be read it stops the whole event: too much is the safe side.
fn stop(node: &Node<'_>, at: &Path<'_>, report: &mut Report<'_>) -> Outcome {
    let event = id(node.get("event"), "event").map_err(|r| ("event", r))?;
    let reason = match node.get("reason") {
        None => None,
        Some(given) => match value(MarketField::Reason, given, Scale::default()) {
            Ok(read) => read.as_ref().and_then(Value::text).map(Arc::from),
            Err((kind, why)) => {
                report.add(kind, &at.key("reason"), why, given);
                None
            }
        },
    };
    let (markets, types) = (given(node, "markets"), given(node, "types"));
    let scope = match (markets, types) {
        (None, None) => StopScope::Event,
        (Some(given), None) => list(given, &at.key("markets"), report, |n| id(Some(n), "market"))
            .map_or(StopScope::Event, StopScope::Markets),
        (None, Some(given)) => list(given, &at.key("types"), report, |n| {
            value(MarketField::Type, n, Scale::default()).and_then(|v| {
                let text = v.as_ref().and_then(Value::text).map(Arc::from);
                text.ok_or_else(|| (ProblemKind::Value, "null is no market type".to_owned()))
            })
        })
        .map_or(StopScope::Event, StopScope::Types),
        (Some(_), Some(_)) => {
            let why = "both markets and types; send one of them (the whole event is stopped)";
            report.add(ProblemKind::Value, at, why, node);
            StopScope::Event
        }
    };
    Ok(Update::Stop { event, scope, reason })
}

/// A list in a stop, or `None` if any of it cannot be read.
fn list<T>(
    node: &Node<'_>,
    at: &Path<'_>,
    report: &mut Report<'_>,
    read: impl Fn(&Node<'_>) -> Result<T, Refusal>,
) -> Option<Vec<T>> {
    let Node::List(items) = node else {
        let why = format!("{}; it must be an array (the whole event is stopped)", node.kind());
        report.add(ProblemKind::Value, at, why, node);
        return None;
    };
    if items.is_empty() || items.len() > MAX_STOP_LIST {
        let why =
            format!("{} entries; a list has 1 to {MAX_STOP_LIST} (the whole event is stopped)", items.len());
        report.add(ProblemKind::Value, at, why, node);
        return None;
    }
    let mut all = Some(Vec::with_capacity(items.len()));
    for (i, item) in items.iter().enumerate() {
        match read(item) {
            Ok(entry) => {
                if let Some(all) = &mut all {
                    all.push(entry);
                }
            }
            Err((kind, why)) => {
                report.add(kind, &at.index(i), format!("{why} (the whole event is stopped)"), item);
                all = None;
            }
        }
    }
    all
}
