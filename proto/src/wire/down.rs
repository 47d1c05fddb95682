//! Messages from the gateway to a client.

use std::sync::Arc;

use super::body::{delta_keys, read_delta, read_fields, write_book, write_delta, write_fields};
use super::keys::{ErrorCode, HOW_NAMES, How, Key, MessageType, TYPE_NAMES};
use super::node::{DecodeError, Node, NodeKey};
use super::writer::Writer;
use super::{Conflate, FEED_STATE, FeedState, Message, Times};
use crate::model::{Book, Delta, FieldChanges, MarketField, MarketId, View};
use crate::position::Position;

/// What a delta says beside its changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeltaHead {
    /// The market.
    pub market: MarketId,
    /// The view.
    pub view: View,
    /// The epoch.
    pub epoch: u64,
    /// It starts from here or below.
    pub prev: u64,
    /// It ends here.
    pub seq: u64,
    /// When, by hop.
    pub times: Times,
}

/// What a snapshot says beside the book.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapHead {
    /// The market.
    pub market: MarketId,
    /// The view.
    pub view: View,
    /// Where the book stands.
    pub at: Position,
    /// The market's last stop, [`Position::ZERO`] where none.
    pub stop: Position,
    /// Its shard.
    pub shard: u16,
    /// The state of its feed.
    pub feed: FeedState,
    /// When, by hop.
    pub times: Times,
}

/// The first message of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome {
    /// Connection id.
    pub connection: String,
    /// Heartbeat interval, ms.
    pub heartbeat: u64,
    /// Gateway's clock.
    pub now: i64,
    /// Limits by name.
    pub limits: Vec<(String, i64)>,
}

/// A market was subscribed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscribed {
    /// The client's request number.
    pub id: i64,
    /// The market; empty where a scope was taken.
    pub market: MarketId,
    /// The view.
    pub view: View,
    /// The conflation in effect.
    pub conflate: Conflate,
    /// Where the market stands.
    pub at: Position,
    /// Its last stop.
    pub stop: Position,
    /// Its shard.
    pub shard: u16,
    /// Its source.
    pub source: Arc<str>,
    /// The state of its feed.
    pub feed: FeedState,
    /// How it starts.
    pub how: How,
}

/// Something was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The client's request number, where it had one.
    pub id: Option<i64>,
    /// The market, where it is about one.
    pub market: Option<MarketId>,
    /// The reason.
    pub code: ErrorCode,
    /// The value, why, and what to do.
    pub why: String,
    /// When to try again, ms.
    pub retry: Option<u64>,
    /// Whether trying again is useless.
    pub fatal: bool,
}

/// A feed's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedNews {
    /// The source.
    pub source: Arc<str>,
    /// The shard.
    pub shard: u16,
    /// Its state.
    pub state: FeedState,
    /// Its last sign of life, ms.
    pub as_of: i64,
}

/// A sign of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heartbeat {
    /// Gateway's clock.
    pub now: i64,
    /// The ping's time.
    pub echo: Option<i64>,
    /// Subscriptions with something unsent.
    pub behind: u64,
    /// Oldest sign of life among the session's sources.
    pub as_of: Option<i64>,
    /// Digest of the session's positions.
    pub digest: u32,
}

/// What there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Catalogue {
    /// Whether it replaces what was known.
    pub full: bool,
    /// Markets with the fields that changed.
    pub markets: Vec<(MarketId, FieldChanges<MarketField>)>,
    /// Markets that left.
    pub gone: Vec<MarketId>,
}

/// A message to a client.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(
    clippy::large_enum_variant,
    reason = "made for one message at a time; the hot path writes heads and deltas by reference"
)]
#[allow(missing_docs, reason = "each variant is its row of PROTOCOL.md")]
pub enum Down {
    Welcome(Welcome),
    Ok(Subscribed),
    Err(Problem),
    /// The delta is that from an empty book.
    Snap(SnapHead, Delta),
    Delta(DeltaHead, Delta),
    Stop {
        market: MarketId,
        at: Position,
        why: Option<Arc<str>>,
    },
    Feed(FeedNews),
    Gap {
        market: MarketId,
        view: View,
        from: Position,
        to: Position,
    },
    Gone {
        market: MarketId,
        at: Position,
        why: String,
    },
    Catalogue(Catalogue),
    Crc {
        market: MarketId,
        view: View,
        at: Position,
        checksum: u32,
    },
    Hb(Heartbeat),
    Bye {
        code: u16,
        why: String,
        retry: u64,
    },
}

fn start<W: Writer>(w: &mut W, kind: MessageType, keys: usize) {
    w.map(keys + 1);
    w.key(Key::Type);
    w.code(i64::from(kind.code()), TYPE_NAMES);
}

/// Writes `[epoch, seq]`.
pub(crate) fn write_position<W: Writer>(w: &mut W, at: Position) {
    w.array(2);
    w.uint(at.epoch);
    w.uint(at.seq);
    w.end_array();
}

impl DeltaHead {
    /// Writes a delta message.
    pub fn write<W: Writer>(&self, w: &mut W, delta: &Delta) {
        start(w, MessageType::Delta, 6 + delta_keys(delta));
        w.key(Key::Market);
        w.text(&self.market);
        w.key(Key::View);
        w.int(self.view.code());
        w.key(Key::Epoch);
        w.uint(self.epoch);
        w.key(Key::Prev);
        w.uint(self.prev);
        w.key(Key::Seq);
        w.uint(self.seq);
        self.times.write(w);
        write_delta(w, delta);
        w.end_map();
    }
}

impl Message for (&DeltaHead, &Delta) {
    fn write<W: Writer>(&self, w: &mut W) {
        self.0.write(w, self.1);
    }
}

impl SnapHead {
    fn head<W: Writer>(&self, w: &mut W, keys: usize) {
        start(w, MessageType::Snap, 7 + usize::from(!self.stop.is_zero()) + keys);
        w.key(Key::Market);
        w.text(&self.market);
        w.key(Key::View);
        w.int(self.view.code());
        w.key(Key::Epoch);
        w.uint(self.at.epoch);
        w.key(Key::Seq);
        w.uint(self.at.seq);
        if !self.stop.is_zero() {
            w.key(Key::Stop);
            write_position(w, self.stop);
        }
        w.key(Key::Shard);
        w.uint(u64::from(self.shard));
        w.key(Key::Feed);
        w.code(self.feed as i64, FEED_STATE);
        self.times.write(w);
    }

    /// Writes a snapshot message of a book as the head's view shows it.
    pub fn write<W: Writer>(&self, w: &mut W, book: &Book) {
        self.head(w, 2);
        write_book(w, book, self.view);
        w.end_map();
    }
}

impl Message for (&SnapHead, &Book) {
    fn write<W: Writer>(&self, w: &mut W) {
        self.0.write(w, self.1);
    }
}

impl Message for Down {
    fn write<W: Writer>(&self, w: &mut W) {
        match self {
            Self::Snap(head, delta) => {
                head.head(w, delta_keys(delta));
                write_delta(w, delta);
            }
            Self::Delta(head, delta) => return head.write(w, delta),
            Self::Welcome(m) => write_welcome(w, m),
            Self::Ok(m) => write_ok(w, m),
            Self::Err(m) => write_err(w, m),
            Self::Stop { market, at, why } => {
                start(w, MessageType::Stop, 3 + usize::from(why.is_some()));
                write_at(w, market, None, *at);
                if let Some(why) = why {
                    w.key(Key::Why);
                    w.text(why);
                }
            }
            Self::Feed(m) => {
                start(w, MessageType::Feed, 4);
                w.key(Key::Source);
                w.text(&m.source);
                w.key(Key::Shard);
                w.uint(u64::from(m.shard));
                w.key(Key::Feed);
                w.code(m.state as i64, FEED_STATE);
                w.key(Key::AsOf);
                w.int(m.as_of);
            }
            Self::Gap { market, view, from, to } => {
                start(w, MessageType::Gap, 4);
                w.key(Key::Market);
                w.text(market);
                w.key(Key::View);
                w.int(view.code());
                w.key(Key::From);
                write_position(w, *from);
                w.key(Key::To);
                write_position(w, *to);
            }
            Self::Gone { market, at, why } => {
                start(w, MessageType::Gone, 4);
                write_at(w, market, None, *at);
                w.key(Key::Why);
                w.text(why);
            }
            Self::Catalogue(m) => write_catalogue(w, m),
            Self::Crc { market, view, at, checksum } => {
                start(w, MessageType::Crc, 5);
                write_at(w, market, Some(*view), *at);
                w.key(Key::Checksum);
                w.int(i64::from(*checksum));
            }
            Self::Hb(m) => write_hb(w, m),
            Self::Bye { code, why, retry } => {
                start(w, MessageType::Bye, 3);
                w.key(Key::Code);
                w.int(i64::from(*code));
                w.key(Key::Why);
                w.text(why);
                w.key(Key::Retry);
                w.uint(*retry);
            }
        }
        w.end_map();
    }
}

fn write_at<W: Writer>(w: &mut W, market: &str, view: Option<View>, at: Position) {
    w.key(Key::Market);
    w.text(market);
    if let Some(view) = view {
        w.key(Key::View);
        w.int(view.code());
    }
    w.key(Key::Epoch);
    w.uint(at.epoch);
    w.key(Key::Seq);
    w.uint(at.seq);
}

fn write_welcome<W: Writer>(w: &mut W, m: &Welcome) {
    start(w, MessageType::Welcome, 5);
    w.key(Key::Version);
    w.int(1);
    w.key(Key::Connection);
    w.text(&m.connection);
    w.key(Key::Heartbeat);
    w.uint(m.heartbeat);
    w.key(Key::Now);
    w.int(m.now);
    w.key(Key::Limits);
    w.map(m.limits.len());
    for (name, limit) in &m.limits {
        w.text_key(name);
        w.int(*limit);
    }
    w.end_map();
}

fn write_ok<W: Writer>(w: &mut W, m: &Subscribed) {
    if m.market.is_empty() {
        start(w, MessageType::Ok, 3);
    } else {
        start(w, MessageType::Ok, 9 + usize::from(!m.stop.is_zero()) + 1);
    }
    w.key(Key::Id);
    w.int(m.id);
    if m.market.is_empty() {
        w.key(Key::View);
        w.int(m.view.code());
    } else {
        write_at(w, &m.market, Some(m.view), m.at);
        if !m.stop.is_zero() {
            w.key(Key::Stop);
            write_position(w, m.stop);
        }
        w.key(Key::Shard);
        w.uint(u64::from(m.shard));
        w.key(Key::Source);
        w.text(&m.source);
        w.key(Key::Feed);
        w.code(m.feed as i64, FEED_STATE);
        w.key(Key::How);
        w.code(i64::from(m.how.code()), HOW_NAMES);
    }
    w.key(Key::Conflate);
    m.conflate.write(w);
}

fn write_err<W: Writer>(w: &mut W, m: &Problem) {
    let optional = [m.id.is_some(), m.market.is_some(), m.retry.is_some()];
    start(w, MessageType::Err, 3 + optional.iter().filter(|o| **o).count());
    if let Some(id) = m.id {
        w.key(Key::Id);
        w.int(id);
    }
    if let Some(market) = &m.market {
        w.key(Key::Market);
        w.text(market);
    }
    w.key(Key::Code);
    w.text(m.code.name());
    w.key(Key::Why);
    w.text(&m.why);
    if let Some(retry) = m.retry {
        w.key(Key::Retry);
        w.uint(retry);
    }
    w.key(Key::Fatal);
    w.flag(m.fatal);
}

fn write_catalogue<W: Writer>(w: &mut W, m: &Catalogue) {
    start(w, MessageType::Catalogue, 3);
    w.key(Key::Full);
    w.flag(m.full);
    w.key(Key::Markets);
    w.array(m.markets.len());
    for (market, fields) in &m.markets {
        w.array(2);
        w.text(market);
        write_fields(w, fields);
        w.end_array();
    }
    w.end_array();
    w.key(Key::Gone);
    w.array(m.gone.len());
    for market in &m.gone {
        w.text(market);
    }
    w.end_array();
}

fn write_hb<W: Writer>(w: &mut W, m: &Heartbeat) {
    start(w, MessageType::Hb, 3 + usize::from(m.echo.is_some()) + usize::from(m.as_of.is_some()));
    w.key(Key::Now);
    w.int(m.now);
    if let Some(echo) = m.echo {
        w.key(Key::Echo);
        w.int(echo);
    }
    w.key(Key::Behind);
    w.uint(m.behind);
    if let Some(as_of) = m.as_of {
        w.key(Key::AsOf);
        w.int(as_of);
    }
    w.key(Key::Digest);
    w.int(i64::from(m.digest));
}

/// The type of a message.
pub(super) fn message_type(node: &Node<'_>) -> Result<MessageType, DecodeError> {
    match node.need(Key::Type)? {
        Node::Int(code) => MessageType::from_code(*code)
            .ok_or_else(|| DecodeError::new("t", format!("{code} is no message type"))),
        Node::Text(name) => MessageType::from_name(name)
            .ok_or_else(|| DecodeError::new("t", format!("{name:?} is no message type"))),
        other => Err(DecodeError::new("t", format!("expected a message type, got {other}"))),
    }
}

fn market(node: &Node<'_>) -> Result<MarketId, DecodeError> {
    Ok(node.need(Key::Market)?.text("m")?.into())
}

fn view(node: &Node<'_>) -> Result<View, DecodeError> {
    let code = node.need(Key::View)?.int("w")?;
    View::from_code(code).ok_or_else(|| DecodeError::new("w", format!("{code} is no view: 0, 1, 3 or 10 is")))
}

/// Reads `[epoch, seq]`.
pub(crate) fn read_position(node: &Node<'_>, at: &str) -> Result<Position, DecodeError> {
    match node.items(at)? {
        [epoch, seq] => Ok(Position::new(epoch.uint(at)?, seq.uint(at)?)),
        _ => Err(DecodeError::new(at, "expected [epoch, seq]")),
    }
}

fn optional_position(node: &Node<'_>, key: Key) -> Result<Position, DecodeError> {
    node.get(key).map_or(Ok(Position::ZERO), |p| read_position(p, key.name()))
}

fn at(node: &Node<'_>) -> Result<Position, DecodeError> {
    Ok(Position::new(node.need(Key::Epoch)?.uint("e")?, node.need(Key::Seq)?.uint("s")?))
}

fn shard(node: &Node<'_>) -> Result<u16, DecodeError> {
    let v = node.need(Key::Shard)?.int("sh")?;
    u16::try_from(v).map_err(|_| DecodeError::new("sh", format!("{v} is no shard")))
}

fn feed(node: &Node<'_>) -> Result<FeedState, DecodeError> {
    let code = node.need(Key::Feed)?.code("f", FEED_STATE)?;
    FeedState::from_code(code).ok_or_else(|| DecodeError::new("f", format!("{code} is no feed state")))
}

fn text(node: &Node<'_>, key: Key) -> Result<String, DecodeError> {
    Ok(node.need(key)?.text(key.name())?.to_owned())
}

fn optional_int(node: &Node<'_>, key: Key) -> Result<Option<i64>, DecodeError> {
    node.get(key).map(|v| v.int(key.name())).transpose()
}

fn close_code(node: &Node<'_>) -> Result<u16, DecodeError> {
    let v = node.need(Key::Code)?.int("code")?;
    u16::try_from(v).map_err(|_| DecodeError::new("code", format!("{v} is no close code")))
}

fn checksum(node: &Node<'_>, key: Key) -> Result<u32, DecodeError> {
    let v = node.need(key)?.int(key.name())?;
    u32::try_from(v).map_err(|_| DecodeError::new(key.name(), format!("{v} is not below 2^32")))
}

impl Down {
    /// Reads a message from the gateway.
    ///
    /// # Errors
    /// If a key is missing or has the wrong type, or the message is not one of the gateway's.
    pub fn read(node: &Node<'_>) -> Result<Self, DecodeError> {
        Ok(match message_type(node)? {
            MessageType::Welcome => Self::Welcome(Welcome {
                connection: text(node, Key::Connection)?,
                heartbeat: node.need(Key::Heartbeat)?.uint("hb")?,
                now: node.need(Key::Now)?.int("now")?,
                limits: read_limits(node)?,
            }),
            MessageType::Ok => Self::Ok(read_ok(node)?),
            MessageType::Err => Self::Err(read_err(node)?),
            MessageType::Snap => Self::Snap(
                SnapHead {
                    market: market(node)?,
                    view: view(node)?,
                    at: at(node)?,
                    stop: optional_position(node, Key::Stop)?,
                    shard: shard(node)?,
                    feed: feed(node)?,
                    times: Times::read(node)?,
                },
                read_delta(node)?,
            ),
            MessageType::Delta => Self::Delta(
                DeltaHead {
                    market: market(node)?,
                    view: view(node)?,
                    epoch: node.need(Key::Epoch)?.uint("e")?,
                    prev: node.need(Key::Prev)?.uint("p")?,
                    seq: node.need(Key::Seq)?.uint("s")?,
                    times: Times::read(node)?,
                },
                read_delta(node)?,
            ),
            MessageType::Stop => {
                let why = node.get(Key::Why).map(|w| w.text("why")).transpose()?.map(Arc::from);
                Self::Stop { market: market(node)?, at: at(node)?, why }
            }
            MessageType::Feed => Self::Feed(FeedNews {
                source: node.need(Key::Source)?.text("src")?.into(),
                shard: shard(node)?,
                state: feed(node)?,
                as_of: node.need(Key::AsOf)?.int("as")?,
            }),
            MessageType::Gap => Self::Gap {
                market: market(node)?,
                view: view(node)?,
                from: read_position(node.need(Key::From)?, "from")?,
                to: read_position(node.need(Key::To)?, "to")?,
            },
            MessageType::Gone => {
                Self::Gone { market: market(node)?, at: at(node)?, why: text(node, Key::Why)? }
            }
            MessageType::Catalogue => Self::Catalogue(read_catalogue(node)?),
            MessageType::Crc => Self::Crc {
                market: market(node)?,
                view: view(node)?,
                at: at(node)?,
                checksum: checksum(node, Key::Checksum)?,
            },
            MessageType::Hb => Self::Hb(Heartbeat {
                now: node.need(Key::Now)?.int("now")?,
                echo: optional_int(node, Key::Echo)?,
                behind: node.need(Key::Behind)?.uint("behind")?,
                as_of: optional_int(node, Key::AsOf)?,
                digest: checksum(node, Key::Digest)?,
            }),
            MessageType::Bye => Self::Bye {
                code: close_code(node)?,
                why: text(node, Key::Why)?,
                retry: node.need(Key::Retry)?.uint("retry")?,
            },
            other => return Err(DecodeError::new("t", format!("`{}` goes up, not down", other.name()))),
        })
    }
}

fn read_limits(node: &Node<'_>) -> Result<Vec<(String, i64)>, DecodeError> {
    let mut limits = Vec::new();
    for (name, limit) in node.need(Key::Limits)?.entries("limits")? {
        if let NodeKey::Name(name) = name {
            limits.push((name.to_string(), limit.int("limits")?));
        }
    }
    Ok(limits)
}

fn read_ok(node: &Node<'_>) -> Result<Subscribed, DecodeError> {
    let taken = Subscribed {
        id: node.need(Key::Id)?.int("id")?,
        market: "".into(),
        view: view(node)?,
        conflate: Conflate::read(node)?,
        at: Position::ZERO,
        stop: Position::ZERO,
        shard: 0,
        source: "".into(),
        feed: FeedState::Live,
        how: How::Snap,
    };
    // Without a market a scope was taken, and the other keys say nothing.
    if node.get(Key::Market).is_none() {
        return Ok(taken);
    }
    let market = market(node)?;
    if market.is_empty() {
        return Err(DecodeError::new("m", "is empty: a scope's `ok` has no `m`"));
    }
    let how = node.need(Key::How)?;
    Ok(Subscribed {
        market,
        at: at(node)?,
        stop: optional_position(node, Key::Stop)?,
        shard: shard(node)?,
        source: node.need(Key::Source)?.text("src")?.into(),
        feed: feed(node)?,
        how: How::from_code(how.code("how", HOW_NAMES)?)
            .ok_or_else(|| DecodeError::new("how", format!("{how} is none of {}", HOW_NAMES.join(", "))))?,
        ..taken
    })
}

fn read_err(node: &Node<'_>) -> Result<Problem, DecodeError> {
    let code = text(node, Key::Code)?;
    Ok(Problem {
        id: optional_int(node, Key::Id)?,
        market: node.get(Key::Market).map(|m| m.text("m")).transpose()?.map(Arc::from),
        code: ErrorCode::from_name(&code)
            .ok_or_else(|| DecodeError::new("code", format!("{code:?} is unknown")))?,
        why: text(node, Key::Why)?,
        retry: node.get(Key::Retry).map(|r| r.uint("retry")).transpose()?,
        fatal: node.need(Key::Fatal)?.flag("fatal")?,
    })
}

fn read_catalogue(node: &Node<'_>) -> Result<Catalogue, DecodeError> {
    let mut markets = Vec::new();
    for item in node.need(Key::Markets)?.items("markets")? {
        match item.items("markets")? {
            [market, fields] => markets.push((market.text("markets")?.into(), read_fields(fields)?)),
            _ => return Err(DecodeError::new("markets", "expected [market, {fields}]")),
        }
    }
    let gone = node.need(Key::Gone)?.items("gone")?;
    Ok(Catalogue {
        full: node.need(Key::Full)?.flag("full")?,
        markets,
        gone: gone.iter().map(|m| Ok(m.text("gone")?.into())).collect::<Result<_, DecodeError>>()?,
    })
}
