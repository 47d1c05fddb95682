//! Messages from a client to the gateway.

use std::sync::Arc;

use smallvec::SmallVec;

use super::Message;
use super::down::{message_type, read_position};
use super::keys::{Key, MessageType, TYPE_NAMES};
use super::node::{DecodeError, Node, NodeKey};
use super::writer::Writer;
use crate::limits::MAX_ID;
use crate::model::{MarketId, View};
use crate::position::Position;

/// How often a subscription is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Conflate {
    /// Every delta, while the run holds it.
    Raw,
    /// The newest state whenever more than one delta is pending.
    #[default]
    Auto,
    /// At most once in so many ms: 100, 250, 500 or 1000.
    Every(u32),
}

impl Conflate {
    /// Reads it as a query writes it.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "raw" => Some(Self::Raw),
            "auto" => Some(Self::Auto),
            "100" | "250" | "500" | "1000" => name.parse().ok().map(Self::Every),
            _ => None,
        }
    }

    pub(super) fn write<W: Writer>(self, w: &mut W) {
        match self {
            Self::Raw => w.text("raw"),
            Self::Auto => w.text("auto"),
            Self::Every(ms) => w.int(i64::from(ms)),
        }
    }

    pub(super) fn read(node: &Node<'_>) -> Result<Self, DecodeError> {
        let wrong = |v: &Node<'_>| {
            DecodeError::new("conflate", format!("{v} is none of \"raw\", \"auto\", 100, 250, 500, 1000"))
        };
        match node.get(Key::Conflate) {
            None => Ok(Self::Auto),
            Some(v @ Node::Text(name)) => Self::from_name(name).ok_or_else(|| wrong(v)),
            Some(Node::Int(ms)) if [100, 250, 500, 1000].contains(ms) => Ok(Self::Every(*ms as u32)),
            Some(v) => Err(wrong(v)),
        }
    }

    /// The faster of two.
    #[must_use]
    pub fn faster(self, other: Self) -> Self {
        let rank = |c| match c {
            Self::Raw => 0,
            Self::Auto => 1,
            Self::Every(ms) => ms,
        };
        if rank(other) < rank(self) { other } else { self }
    }
}

/// What a subscription is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// These markets.
    Markets(Vec<MarketId>),
    /// All markets of an event, as they come and go.
    Event(Arc<str>),
    /// All markets of a sport.
    Sport(Arc<str>),
}

/// Positions that a client comes back with.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Resume {
    /// By market.
    pub markets: SmallVec<[(MarketId, Position); 1]>,
    /// By shard.
    pub shards: SmallVec<[(u16, Position); 1]>,
}

impl Resume {
    /// The position that a market resumes from, if any.
    #[must_use]
    pub fn of(&self, market: &str, shard: u16) -> Option<Position> {
        self.of_market(market).or_else(|| self.of_shard(shard))
    }

    /// The position that was given for this market.
    #[must_use]
    pub fn of_market(&self, market: &str) -> Option<Position> {
        self.markets.iter().find(|m| &*m.0 == market).map(|m| m.1)
    }

    /// The position that was given for this shard.
    #[must_use]
    pub fn of_shard(&self, shard: u16) -> Option<Position> {
        self.shards.iter().find(|s| s.0 == shard).map(|s| s.1)
    }

    /// Whether it says nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.markets.is_empty() && self.shards.is_empty()
    }
}

/// A wish to follow something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscribe {
    /// Request number, echoed.
    pub id: i64,
    /// What.
    pub scope: Scope,
    /// As which view.
    pub view: View,
    /// How often.
    pub conflate: Conflate,
    /// From where.
    pub resume: Resume,
}

/// A message from a client.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "each variant is its row of PROTOCOL.md")]
pub enum Up {
    Hello { heartbeat: Option<u64>, auth: Option<String> },
    Sub(Subscribe),
    Unsub { id: i64, scope: Scope, view: View },
    Snapshot { market: MarketId, view: View },
    Ping { time: i64, read: Option<i64> },
}

fn id_text(node: &Node<'_>, at: &str) -> Result<Arc<str>, DecodeError> {
    let text = node.text(at)?;
    if text.is_empty() || text.len() > MAX_ID {
        return Err(DecodeError::new(
            at,
            format!("an id has 1 to {MAX_ID} bytes, this one has {}", text.len()),
        ));
    }
    Ok(text.into())
}

fn scope(node: &Node<'_>) -> Result<Scope, DecodeError> {
    match (node.get(Key::Markets), node.get(Key::Event), node.get(Key::Sport)) {
        (Some(markets), None, None) => {
            let items = markets.items("markets")?;
            let ids = items.iter().map(|m| id_text(m, "markets")).collect::<Result<Vec<_>, _>>()?;
            if ids.is_empty() {
                return Err(DecodeError::new("markets", "names no market"));
            }
            Ok(Scope::Markets(ids))
        }
        (None, Some(event), None) => Ok(Scope::Event(id_text(event, "event")?)),
        (None, None, Some(sport)) => Ok(Scope::Sport(id_text(sport, "sport")?)),
        _ => Err(DecodeError::new("markets", "exactly one of `markets`, `event` and `sport` must be given")),
    }
}

fn view(node: &Node<'_>) -> Result<View, DecodeError> {
    let view = match node.get(Key::View) {
        None => return Ok(View::All),
        Some(Node::Text(name)) => View::from_name(name),
        Some(Node::Int(code)) => View::from_code(*code),
        Some(_) => None,
    };
    view.ok_or_else(|| {
        let given = node.get(Key::View).unwrap_or(&Node::Null);
        DecodeError::new("w", format!("{given} is no view: 1, 3, 10 or 0 (all) is"))
    })
}

fn resume(node: &Node<'_>) -> Result<Resume, DecodeError> {
    let mut resume = Resume::default();
    if let Some(from) = node.get(Key::From) {
        for (market, position) in from.entries("from")? {
            let NodeKey::Name(market) = market else {
                return Err(DecodeError::new("from", "its keys are market ids"));
            };
            resume.markets.push((market.as_ref().into(), read_position(position, "from")?));
        }
    }
    if let Some(shards) = node.get(Key::Shards) {
        for item in shards.items("shards")? {
            let [shard, epoch, n] = item.items("shards")? else {
                return Err(DecodeError::new("shards", "expected [shard, epoch, n]"));
            };
            let shard = u16::try_from(shard.int("shards")?)
                .map_err(|_| DecodeError::new("shards", format!("{shard} is no shard")))?;
            resume.shards.push((shard, Position::new(epoch.uint("shards")?, n.uint("shards")?)));
        }
    }
    Ok(resume)
}

impl Up {
    /// Reads a message from a client.
    ///
    /// # Errors
    /// If a key is missing or has the wrong type, or the message is not one of a client's.
    pub fn read(node: &Node<'_>) -> Result<Self, DecodeError> {
        Ok(match message_type(node)? {
            MessageType::Hello => Self::Hello {
                heartbeat: node.get(Key::Heartbeat).map(|v| v.uint("hb")).transpose()?,
                auth: node.get(Key::Auth).map(|v| v.text("auth")).transpose()?.map(str::to_owned),
            },
            MessageType::Sub => Self::Sub(Subscribe {
                id: node.need(Key::Id)?.int("id")?,
                scope: scope(node)?,
                view: view(node)?,
                conflate: Conflate::read(node)?,
                resume: resume(node)?,
            }),
            MessageType::Unsub => {
                Self::Unsub { id: node.need(Key::Id)?.int("id")?, scope: scope(node)?, view: view(node)? }
            }
            MessageType::Snapshot => {
                Self::Snapshot { market: id_text(node.need(Key::Market)?, "m")?, view: view(node)? }
            }
            MessageType::Ping => Self::Ping {
                time: node.need(Key::Time)?.int("time")?,
                read: node.get(Key::Now).map(|v| v.int("now")).transpose()?,
            },
            other => return Err(DecodeError::new("t", format!("`{}` goes down, not up", other.name()))),
        })
    }
}

fn write_scope<W: Writer>(w: &mut W, scope: &Scope) {
    match scope {
        Scope::Markets(markets) => {
            w.key(Key::Markets);
            w.array(markets.len());
            for market in markets {
                w.text(market);
            }
            w.end_array();
        }
        Scope::Event(event) => {
            w.key(Key::Event);
            w.text(event);
        }
        Scope::Sport(sport) => {
            w.key(Key::Sport);
            w.text(sport);
        }
    }
}

fn write_resume<W: Writer>(w: &mut W, resume: &Resume) {
    if !resume.markets.is_empty() {
        w.key(Key::From);
        w.map(resume.markets.len());
        for (market, at) in &resume.markets {
            w.text_key(market);
            w.array(2);
            w.uint(at.epoch);
            w.uint(at.seq);
            w.end_array();
        }
        w.end_map();
    }
    if !resume.shards.is_empty() {
        w.key(Key::Shards);
        w.array(resume.shards.len());
        for (shard, at) in &resume.shards {
            w.array(3);
            w.uint(u64::from(*shard));
            w.uint(at.epoch);
            w.uint(at.seq);
            w.end_array();
        }
        w.end_array();
    }
}

impl Message for Up {
    fn write<W: Writer>(&self, w: &mut W) {
        let start = |w: &mut W, kind: MessageType, keys: usize| {
            w.map(keys + 1);
            w.key(Key::Type);
            w.code(i64::from(kind.code()), TYPE_NAMES);
        };
        match self {
            Self::Hello { heartbeat, auth } => {
                start(
                    w,
                    MessageType::Hello,
                    1 + usize::from(heartbeat.is_some()) + usize::from(auth.is_some()),
                );
                w.key(Key::Version);
                w.int(1);
                if let Some(heartbeat) = heartbeat {
                    w.key(Key::Heartbeat);
                    w.uint(*heartbeat);
                }
                if let Some(auth) = auth {
                    w.key(Key::Auth);
                    w.text(auth);
                }
            }
            Self::Sub(sub) => {
                let resume =
                    usize::from(!sub.resume.markets.is_empty()) + usize::from(!sub.resume.shards.is_empty());
                start(w, MessageType::Sub, 4 + resume);
                w.key(Key::Id);
                w.int(sub.id);
                write_scope(w, &sub.scope);
                w.key(Key::View);
                w.int(sub.view.code());
                w.key(Key::Conflate);
                sub.conflate.write(w);
                write_resume(w, &sub.resume);
            }
            Self::Unsub { id, scope, view } => {
                start(w, MessageType::Unsub, 3);
                w.key(Key::Id);
                w.int(*id);
                write_scope(w, scope);
                w.key(Key::View);
                w.int(view.code());
            }
            Self::Snapshot { market, view } => {
                start(w, MessageType::Snapshot, 2);
                w.key(Key::Market);
                w.text(market);
                w.key(Key::View);
                w.int(view.code());
            }
            Self::Ping { time, read } => {
                start(w, MessageType::Ping, 1 + usize::from(read.is_some()));
                w.key(Key::Time);
                w.int(*time);
                if let Some(read) = read {
                    w.key(Key::Now);
                    w.int(*read);
                }
            }
        }
        w.end_map();
    }
}
