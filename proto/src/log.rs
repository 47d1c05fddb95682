//! A shard's log: what its owner writes and every gateway follows. One counter `n` orders all entries of a shard;
//! `alive` tells how far it has come, so that a lost tail is found. Encoded as MessagePack maps with the same key
//! numbers as the wire.

use std::sync::Arc;

use crate::model::{Book, Delta, MarketField, MarketId, MarketStatus, Value, View};
use crate::position::Position;
use crate::wire::{
    Codec, DecodeError, FEED_STATE, FeedState, Key, Message, Node, Times, Writer, delta_keys, read_delta,
    read_position, write_book, write_delta, write_position,
};

/// Version of what is stored and logged. A reader that meets a higher one goes stale and says so.
pub const SCHEMA: i64 = 1;

/// Which shard an event belongs to: CRC-32C of its id, modulo the number of shards.
#[must_use]
pub fn shard_of(event: &str, shards: u16) -> u16 {
    (crc32c::crc32c(event.as_bytes()) % u32::from(shards.max(1))) as u16
}

/// The catalogue's own shard, beside the numbered ones: one book without selections for each market.
pub const CATALOGUE: u16 = u16::MAX;

/// One entry of a shard's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The owner's epoch and the entry's number.
    pub at: Position,
    /// When, by hop.
    pub times: Times,
    /// What happened.
    pub what: What,
}

/// What an entry says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "the large variant is the frequent one")]
pub enum What {
    /// A market changed.
    Delta {
        /// The market.
        market: MarketId,
        /// The change.
        delta: Delta,
        /// Whether it makes something untradable: a stop for this market, to be told ahead of prices.
        stop: bool,
        /// CRC-32C of the whole book after it, with every so many entries of a market.
        checksum: Option<u32>,
    },
    /// A market's whole book: a new market, a new scale, a new epoch.
    Image {
        /// The market.
        market: MarketId,
        /// The book.
        book: Box<Book>,
        /// The market's last stop; its own position where the image itself is one.
        stop: Position,
        /// CRC-32C of the whole book.
        checksum: u32,
    },
    /// Markets are suspended at once.
    Stop {
        /// The markets.
        markets: Vec<MarketId>,
        /// Why, where the source says.
        reason: Option<Arc<str>>,
    },
    /// Nothing more comes of a market.
    Gone {
        /// The market.
        market: MarketId,
    },
}

/// The state of one source's feed, as ingest sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedReport {
    /// The source.
    pub source: Arc<str>,
    /// Its state.
    pub state: FeedState,
    /// Its last sign of life, Unix ms.
    pub as_of: i64,
}

/// How far a shard's log has come: sent regularly, through the same fenced function, not numbered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alive {
    /// The owner's epoch and the number of its last entry.
    pub at: Position,
    /// The owner's clock, Unix ms.
    pub now: i64,
    /// Every source's feed.
    pub feeds: Vec<FeedReport>,
}

/// What a shard's live channel carries.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "the large variant is the frequent one")]
pub enum Live {
    /// An entry, as it happens.
    Entry(Entry),
    /// A sign of life.
    Alive(Alive),
}

/// A market's stored snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The market.
    pub market: MarketId,
    /// Where the book stands.
    pub at: Position,
    /// The market's last stop.
    pub stop: Position,
    /// The book, stamped as of `at`.
    pub book: Box<Book>,
    /// CRC-32C of the whole book.
    pub checksum: u32,
}

/// What a stop does to one market's book, which is the same at ingest and at every gateway: an open market is
/// suspended. Empty where the market is not open.
#[must_use]
pub fn stop_delta(book: &Book, reason: Option<&Arc<str>>) -> Delta {
    let mut delta = Delta::default();
    if book.status() == MarketStatus::Open {
        let count = book.fields.int(MarketField::Suspensions).unwrap_or(0) + 1;
        delta.set(MarketField::Status, Some(Value::Int(MarketStatus::Suspended.code())));
        delta.set(MarketField::Reason, reason.map(|r| Value::Text(r.clone())));
        delta.set(MarketField::Suspensions, Some(Value::Int(count)));
    }
    delta
}

const DELTA: i64 = 0;
const IMAGE: i64 = 1;
const STOP: i64 = 2;
const GONE: i64 = 3;
const ALIVE: i64 = 4;

fn head<W: Writer>(w: &mut W, kind: i64, at: Position, keys: usize) {
    w.map(3 + keys);
    w.key(Key::Type);
    w.int(kind);
    w.key(Key::Epoch);
    w.uint(at.epoch);
    w.key(Key::Seq);
    w.uint(at.seq);
}

impl Message for Entry {
    fn write<W: Writer>(&self, w: &mut W) {
        match &self.what {
            What::Delta { market, delta, stop, checksum } => {
                let keys = 2 + usize::from(*stop) + usize::from(checksum.is_some()) + delta_keys(delta);
                head(w, DELTA, self.at, keys);
                w.key(Key::Market);
                w.text(market);
                self.times.write(w);
                if *stop {
                    w.key(Key::Stop);
                    w.int(1);
                }
                if let Some(checksum) = checksum {
                    w.key(Key::Checksum);
                    w.int(i64::from(*checksum));
                }
                write_delta(w, delta);
            }
            What::Image { market, book, stop, checksum } => {
                head(w, IMAGE, self.at, 6);
                w.key(Key::Market);
                w.text(market);
                self.times.write(w);
                w.key(Key::Stop);
                write_position(w, *stop);
                w.key(Key::Checksum);
                w.int(i64::from(*checksum));
                write_book(w, book, View::All);
            }
            What::Stop { markets, reason } => {
                head(w, STOP, self.at, 2 + usize::from(reason.is_some()));
                self.times.write(w);
                w.key(Key::Markets);
                w.array(markets.len());
                for market in markets {
                    w.text(market);
                }
                w.end_array();
                if let Some(reason) = reason {
                    w.key(Key::Why);
                    w.text(reason);
                }
            }
            What::Gone { market } => {
                head(w, GONE, self.at, 2);
                w.key(Key::Market);
                w.text(market);
                self.times.write(w);
            }
        }
        w.end_map();
    }
}

impl Message for Alive {
    fn write<W: Writer>(&self, w: &mut W) {
        head(w, ALIVE, self.at, 2);
        w.key(Key::Now);
        w.int(self.now);
        w.key(Key::Feed);
        w.array(self.feeds.len());
        for feed in &self.feeds {
            w.array(3);
            w.text(&feed.source);
            w.int(feed.state as i64);
            w.int(feed.as_of);
            w.end_array();
        }
        w.end_array();
        w.end_map();
    }
}

impl Message for Stored {
    fn write<W: Writer>(&self, w: &mut W) {
        StoredRef {
            market: &self.market,
            at: self.at,
            stop: self.stop,
            book: &self.book,
            checksum: self.checksum,
        }
        .write(w);
    }
}

/// A snapshot to be stored, borrowed from whoever holds the book.
#[derive(Debug, Clone, Copy)]
pub struct StoredRef<'a> {
    /// The market.
    pub market: &'a MarketId,
    /// Where the book stands.
    pub at: Position,
    /// The market's last stop.
    pub stop: Position,
    /// The book.
    pub book: &'a Book,
    /// CRC-32C of the whole book.
    pub checksum: u32,
}

impl Message for StoredRef<'_> {
    fn write<W: Writer>(&self, w: &mut W) {
        w.map(8);
        w.key(Key::Version);
        w.int(SCHEMA);
        w.key(Key::Market);
        w.text(self.market);
        w.key(Key::Epoch);
        w.uint(self.at.epoch);
        w.key(Key::Seq);
        w.uint(self.at.seq);
        w.key(Key::Stop);
        write_position(w, self.stop);
        w.key(Key::Checksum);
        w.int(i64::from(self.checksum));
        write_book(w, self.book, View::All);
        w.end_map();
    }
}

fn market(node: &Node<'_>) -> Result<MarketId, DecodeError> {
    Ok(node.need(Key::Market)?.text("m")?.into())
}

fn at(node: &Node<'_>) -> Result<Position, DecodeError> {
    Ok(Position::new(node.need(Key::Epoch)?.uint("e")?, node.need(Key::Seq)?.uint("s")?))
}

fn read_checksum(node: &Node<'_>) -> Result<u32, DecodeError> {
    let v = node.int("c")?;
    u32::try_from(v).map_err(|_| DecodeError::new("c", format!("{v} is not below 2^32")))
}

fn read_book(node: &Node<'_>, at: Position) -> Result<Box<Book>, DecodeError> {
    let mut book = Box::<Book>::default();
    book.apply(&read_delta(node)?, at.seq);
    book.restamp(at.seq);
    Ok(book)
}

impl Entry {
    /// The entry's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        Codec::Msgpack.encode(self)
    }
}

impl Alive {
    /// The message's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        Codec::Msgpack.encode(self)
    }
}

impl Live {
    /// Reads what a live channel or a log brought.
    ///
    /// # Errors
    /// If the bytes are not an entry or an alive of this schema.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let node = Codec::Msgpack.decode(bytes)?;
        let at = at(&node)?;
        let kind = node.need(Key::Type)?.int("t")?;
        if kind == ALIVE {
            let mut feeds = Vec::new();
            for feed in node.need(Key::Feed)?.items("f")? {
                let [source, state, as_of] = feed.items("f")? else {
                    return Err(DecodeError::new("f", "expected [source, state, as_of]"));
                };
                let state = FeedState::from_code(state.code("f", FEED_STATE)?)
                    .ok_or_else(|| DecodeError::new("f", format!("{state} is no feed state")))?;
                feeds.push(FeedReport { source: source.text("f")?.into(), state, as_of: as_of.int("f")? });
            }
            return Ok(Self::Alive(Alive { at, now: node.need(Key::Now)?.int("now")?, feeds }));
        }
        let what = match kind {
            DELTA => What::Delta {
                market: market(&node)?,
                delta: read_delta(&node)?,
                stop: node.get(Key::Stop).is_some(),
                checksum: node.get(Key::Checksum).map(read_checksum).transpose()?,
            },
            IMAGE => What::Image {
                market: market(&node)?,
                book: read_book(&node, at)?,
                stop: read_position(node.need(Key::Stop)?, "st")?,
                checksum: read_checksum(node.need(Key::Checksum)?)?,
            },
            STOP => {
                let markets = node.need(Key::Markets)?.items("markets")?;
                What::Stop {
                    markets: markets
                        .iter()
                        .map(|m| Ok(m.text("markets")?.into()))
                        .collect::<Result<_, DecodeError>>()?,
                    reason: node.get(Key::Why).map(|w| w.text("why")).transpose()?.map(Arc::from),
                }
            }
            GONE => What::Gone { market: market(&node)? },
            other => {
                return Err(DecodeError::new(
                    "t",
                    format!("{other} is no kind of log entry of schema {SCHEMA}"),
                ));
            }
        };
        Ok(Self::Entry(Entry { at, times: Times::read(&node)?, what }))
    }
}

impl Stored {
    /// The snapshot's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        Codec::Msgpack.encode(self)
    }

    /// Reads a stored snapshot.
    ///
    /// # Errors
    /// If the bytes are not a snapshot of this schema.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let node = Codec::Msgpack.decode(bytes)?;
        let version = node.need(Key::Version)?.int("v")?;
        if version != SCHEMA {
            return Err(DecodeError::new(
                "v",
                format!("stored with schema {version}, this program reads {SCHEMA}: upgrade it"),
            ));
        }
        let at = at(&node)?;
        Ok(Self {
            market: market(&node)?,
            at,
            stop: read_position(node.need(Key::Stop)?, "st")?,
            book: read_book(&node, at)?,
            checksum: read_checksum(node.need(Key::Checksum)?)?,
        })
    }
}
