//! Messages from the gateway to a client, read.

use std::sync::Arc;

use super::{Catalogue, DeltaHead, Down, FeedNews, Heartbeat, Problem, SnapHead, Subscribed, Welcome};
use crate::model::{MarketId, View};
use crate::position::Position;
use crate::wire::body::{read_delta, read_fields};
use crate::wire::keys::{ErrorCode, HOW_NAMES, How, Key, MessageType};
use crate::wire::node::{DecodeError, Node, NodeKey};
use crate::wire::{Conflate, FEED_STATE, FeedState, Times};

fn market(node: &Node<'_>) -> Result<MarketId, DecodeError> {
    Ok(node.need(Key::Market)?.text("m")?.into())
}

fn view(node: &Node<'_>) -> Result<View, DecodeError> {
    let code = node.need(Key::View)?.int("w")?;
    View::from_code(code).ok_or_else(|| DecodeError::new("w", format!("{code} is no view: 0, 1, 3 or 10 is")))
}

/// The type of a message.
pub(in crate::wire) fn message_type(node: &Node<'_>) -> Result<MessageType, DecodeError> {
    match node.need(Key::Type)? {
        Node::Int(code) => MessageType::from_code(*code)
            .ok_or_else(|| DecodeError::new("t", format!("{code} is no message type"))),
        Node::Text(name) => MessageType::from_name(name)
            .ok_or_else(|| DecodeError::new("t", format!("{name:?} is no message type"))),
        other => Err(DecodeError::new("t", format!("expected a message type, got {other}"))),
    }
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
