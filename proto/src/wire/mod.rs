//! Messages between client and gateway, and the encodings that they and the log share. One schema, two codecs: every
//! message is written once against [`Writer`] and read once from a [`Node`], so that JSON and MessagePack can't drift
//! apart. `PROTOCOL.md` holds the tables.

mod body;
mod down;
mod json;
mod keys;
mod msgpack;
mod node;
mod up;
mod writer;

pub(crate) use body::delta_keys;
pub use body::{read_delta, read_fields, write_book, write_delta, write_fields};
pub use down::{Catalogue, DeltaHead, Down, FeedNews, Heartbeat, Problem, SnapHead, Subscribed, Welcome};
pub(crate) use down::{read_position, write_position};
pub use json::JsonWriter;
pub use keys::{CloseCode, ErrorCode, How, Key, MessageType};
pub use msgpack::MsgpackWriter;
pub use node::{DecodeError, Node};
pub use up::{Conflate, Resume, Scope, Subscribe, Up};
pub use writer::Writer;

use crate::limits::MAX_INT;

/// Which encoding a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Codec {
    /// JSON.
    Json,
    /// MessagePack.
    Msgpack,
}

impl Codec {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Json, Self::Msgpack];

    /// Encodes one message.
    #[must_use]
    pub fn encode(self, write: impl Message) -> Vec<u8> {
        match self {
            Self::Json => {
                let mut writer = JsonWriter::default();
                write.write(&mut writer);
                writer.into_bytes()
            }
            Self::Msgpack => {
                let mut writer = MsgpackWriter::default();
                write.write(&mut writer);
                writer.into_bytes()
            }
        }
    }

    /// Reads one message into a tree.
    ///
    /// # Errors
    /// If the bytes are not one complete value of the codec, nest too deep, or hold a number that is not an integer
    /// below 2^53.
    pub fn decode(self, bytes: &[u8]) -> Result<Node<'_>, DecodeError> {
        match self {
            Self::Json => node::from_json(bytes),
            Self::Msgpack => msgpack::read(bytes),
        }
    }
}

/// Something that can be written with any codec.
pub trait Message {
    /// Writes it.
    fn write<W: Writer>(&self, writer: &mut W);
}

impl<M: Message + ?Sized> Message for &M {
    fn write<W: Writer>(&self, writer: &mut W) {
        (**self).write(writer);
    }
}

/// A feed's state, worst last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(u8)]
pub enum FeedState {
    /// Heard lately.
    #[default]
    Live,
    /// A new owner is still warming its books.
    Recovering,
    /// Not heard within the bound.
    Stale,
    /// Not heard for several bounds.
    Down,
}

/// The names of [`FeedState`], by code.
pub const FEED_STATE: &[&str] = &["live", "recovering", "stale", "down"];

impl FeedState {
    /// All, by code.
    pub const ALL: [Self; 4] = [Self::Live, Self::Recovering, Self::Stale, Self::Down];

    /// The name in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        FEED_STATE[self as usize]
    }

    /// The state with this code.
    #[must_use]
    pub fn from_code(code: i64) -> Option<Self> {
        usize::try_from(code).ok().and_then(|c| Self::ALL.get(c).copied())
    }
}

/// When a change happened at each hop, Unix ms; 0 where unknown. For measuring, never for order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Times {
    /// The source published it.
    pub source: i64,
    /// Ingest received it.
    pub received: i64,
    /// Ingest published it.
    pub published: i64,
    /// The gateway encoded it.
    pub encoded: i64,
}

impl Times {
    pub(crate) fn write<W: Writer>(&self, w: &mut W) {
        // A clock that is far off must not make an integer that no reader takes: the difference is cut instead.
        let hop = |later: i64, earlier: i64| later.saturating_sub(earlier).clamp(-MAX_INT, MAX_INT);
        w.key(Key::Times);
        w.array(4);
        w.int(self.source.clamp(-MAX_INT, MAX_INT));
        w.int(hop(self.received, self.source));
        w.int(hop(self.published, self.received));
        w.int(hop(self.encoded, self.published));
        w.end_array();
    }

    pub(crate) fn read(node: &Node<'_>) -> Result<Self, DecodeError> {
        let Some(list) = node.get(Key::Times) else { return Ok(Self::default()) };
        let mut sum = 0;
        let mut hops = [0; 4];
        for (hop, item) in hops.iter_mut().zip(list.items("ts")?) {
            sum += item.int("ts")?;
            *hop = sum;
        }
        let [source, received, published, encoded] = hops;
        Ok(Self { source, received, published, encoded })
    }
}
