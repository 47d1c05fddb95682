//! Messages from the gateway to a client, written.

use super::{Catalogue, DeltaHead, Down, Heartbeat, Problem, SnapHead, Subscribed, Welcome};
use crate::model::{Book, Delta, View};
use crate::position::Position;
use crate::wire::body::{delta_keys, write_book, write_delta, write_fields};
use crate::wire::keys::{HOW_NAMES, Key, MessageType, TYPE_NAMES};
use crate::wire::writer::Writer;
use crate::wire::{FEED_STATE, Message};

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
