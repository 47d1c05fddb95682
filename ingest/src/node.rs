//! A message as a tree, the same for JSON and MessagePack, so that a reader is written once.
//!
//! Bounds: what nests deeper than [`MAX_DEPTH`] below the root becomes [`Node::Deep`] (skipped, not built), a message
//! of more than [`MAX_NODES`] values is refused, and no length that the input claims is believed before it is read.

use std::borrow::Cow;
use std::fmt;
use std::io::ErrorKind;

use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use tictac_proto::limits::MAX_DEPTH;

use crate::problem::{Problem, ProblemKind};

/// Most values that one message may hold.
pub const MAX_NODES: usize = 1 << 21;

/// How deep a MessagePack value that nobody reads may nest before the message counts as unreadable.
const MAX_SKIPPED_DEPTH: usize = 64;

/// Said by the visitor and recognised by [`Node::from_json`] and [`Node::from_msgpack`].
const TOO_MANY: &str = "too many values in one message";

/// One value of a message.
#[derive(Debug, Clone, PartialEq)]
pub enum Node<'a> {
    /// Null.
    Null,
    /// A truth value.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A double, or an integer beyond 64 bits with sign.
    Float(f64),
    /// A single-precision number (MessagePack only).
    Single(f32),
    /// A text.
    Text(Cow<'a, str>),
    /// Bytes (MessagePack only).
    Bytes(Cow<'a, [u8]>),
    /// An array.
    List(Vec<Node<'a>>),
    /// An object, in the order of the message. The last of equal keys counts.
    Map(Vec<(Cow<'a, str>, Node<'a>)>),
    /// Something nested too deep, or of a type that has no use here (MessagePack extensions).
    Deep,
}

impl<'a> Node<'a> {
    /// Reads a JSON document.
    ///
    /// # Errors
    /// [`ProblemKind::Syntax`] where it is not JSON, [`ProblemKind::TooLarge`] above [`MAX_NODES`].
    pub fn from_json(bytes: &'a [u8]) -> Result<Self, Problem> {
        let mut count = 0;
        let mut reader = serde_json::Deserializer::from_slice(bytes);
        Seed { depth: 0, count: &mut count }
            .deserialize(&mut reader)
            .and_then(|node| reader.end().map(|()| node))
            .map_err(|e| unreadable("JSON", &e.to_string(), bytes))
    }

    /// Reads a MessagePack document.
    ///
    /// # Errors
    /// [`ProblemKind::Syntax`] where it is not MessagePack, [`ProblemKind::TooLarge`] above [`MAX_NODES`].
    pub fn from_msgpack(bytes: &'a [u8]) -> Result<Self, Problem> {
        let mut count = 0;
        let mut reader = rmp_serde::Deserializer::from_read_ref(bytes);
        reader.set_max_depth(MAX_SKIPPED_DEPTH);
        let node = Seed { depth: 0, count: &mut count }
            .deserialize(&mut reader)
            .map_err(|e| unreadable("MessagePack", &e.to_string(), bytes))?;
        // Reading another marker fails this way only where no byte is left.
        match IgnoredAny::deserialize(&mut reader) {
            Err(rmp_serde::decode::Error::InvalidMarkerRead(e)) if e.kind() == ErrorKind::UnexpectedEof => {
                Ok(node)
            }
            _ => Err(unreadable("MessagePack", "more bytes follow the message", bytes)),
        }
    }

    /// A member of an object; `None` where absent or where this is no object.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Map(members) => members.iter().rev().find(|m| m.0 == key).map(|m| &m.1),
            _ => None,
        }
    }

    /// The text, where it is one.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// What it is, for an error.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a truth value",
            Self::Int(_) => "an integer",
            Self::Float(_) | Self::Single(_) => "a number",
            Self::Text(_) => "a text",
            Self::Bytes(_) => "bytes",
            Self::List(_) => "an array",
            Self::Map(_) => "an object",
            Self::Deep => "nested too deep or of an unknown type",
        }
    }

    /// The value's beginning as text, for an error.
    #[must_use]
    pub fn excerpt(&self) -> String {
        let mut shown = String::new();
        self.show(&mut shown);
        shown
    }

    fn show(&self, out: &mut String) {
        use fmt::Write as _;
        if out.len() > 120 {
            return;
        }
        // Writing to a String cannot fail.
        let _ = match self {
            Self::Null => write!(out, "null"),
            Self::Bool(v) => write!(out, "{v}"),
            Self::Int(v) => write!(out, "{v}"),
            Self::Float(v) => write!(out, "{v:?}"),
            Self::Single(v) => write!(out, "{v:?}"),
            Self::Text(v) => write!(out, "\"{}\"", v.chars().take(120).collect::<String>()),
            Self::Bytes(v) => write!(out, "<{} bytes>", v.len()),
            Self::Deep => write!(out, "…"),
            Self::List(items) => {
                out.push('[');
                for (i, item) in items.iter().take(40).enumerate() {
                    out.push_str(if i == 0 { "" } else { "," });
                    item.show(out);
                }
                out.push(']');
                Ok(())
            }
            Self::Map(members) => {
                out.push('{');
                for (i, (key, value)) in members.iter().take(40).enumerate() {
                    let key: String = key.chars().take(40).collect();
                    let _ = write!(out, "{}\"{key}\":", if i == 0 { "" } else { "," });
                    value.show(out);
                }
                out.push('}');
                Ok(())
            }
        };
    }
}

fn unreadable(format: &str, error: &str, bytes: &[u8]) -> Problem {
    if error.contains(TOO_MANY) {
        let why = format!("more than {MAX_NODES} values in one message; send several smaller ones");
        return Problem::new(ProblemKind::TooLarge, "message", why, bytes);
    }
    let why = format!("not readable as {format} ({error}); send one whole JSON or MessagePack document");
    Problem::new(ProblemKind::Syntax, "message", why, bytes)
}

/// Builds a node at one depth; counts all of them.
struct Seed<'c> {
    depth: usize,
    count: &'c mut usize,
}

impl Seed<'_> {
    fn deeper(&mut self) -> Seed<'_> {
        Seed { depth: self.depth + 1, count: self.count }
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Node<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node<'de>, D::Error> {
        *self.count += 1;
        if *self.count > MAX_NODES {
            return Err(D::Error::custom(TOO_MANY));
        }
        if self.depth > MAX_DEPTH {
            return deserializer.deserialize_any(Shallow);
        }
        deserializer.deserialize_any(self)
    }
}

macro_rules! scalars {
    () => {
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a value")
        }
        fn visit_unit<E>(self) -> Result<Node<'de>, E> {
            Ok(Node::Null)
        }
        fn visit_none<E>(self) -> Result<Node<'de>, E> {
            Ok(Node::Null)
        }
        fn visit_bool<E>(self, v: bool) -> Result<Node<'de>, E> {
            Ok(Node::Bool(v))
        }
        fn visit_i64<E>(self, v: i64) -> Result<Node<'de>, E> {
            Ok(Node::Int(v))
        }
        fn visit_u64<E>(self, v: u64) -> Result<Node<'de>, E> {
            #[allow(clippy::cast_precision_loss, reason = "it is beyond every limit anyway")]
            Ok(i64::try_from(v).map_or(Node::Float(v as f64), Node::Int))
        }
        fn visit_f32<E>(self, v: f32) -> Result<Node<'de>, E> {
            Ok(Node::Single(v))
        }
        fn visit_f64<E>(self, v: f64) -> Result<Node<'de>, E> {
            Ok(Node::Float(v))
        }
        fn visit_str<E>(self, v: &str) -> Result<Node<'de>, E> {
            Ok(Node::Text(Cow::Owned(v.to_owned())))
        }
        fn visit_borrowed_str<E>(self, v: &'de str) -> Result<Node<'de>, E> {
            Ok(Node::Text(Cow::Borrowed(v)))
        }
        fn visit_bytes<E>(self, v: &[u8]) -> Result<Node<'de>, E> {
            Ok(Node::Bytes(Cow::Owned(v.to_owned())))
        }
        fn visit_borrowed_bytes<E>(self, v: &'de [u8]) -> Result<Node<'de>, E> {
            Ok(Node::Bytes(Cow::Borrowed(v)))
        }
        fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<Node<'de>, D::Error> {
            inner.deserialize_ignored_any(IgnoredAny).map(|_| Node::Deep)
        }
    };
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Node<'de>;
    scalars!();

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<Node<'de>, A::Error> {
        let mut list = Vec::with_capacity(items.size_hint().unwrap_or(0).min(64));
        while let Some(item) = items.next_element_seed(self.deeper())? {
            list.push(item);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<Node<'de>, A::Error> {
        let mut map = Vec::with_capacity(members.size_hint().unwrap_or(0).min(64));
        while let Some(key) = members.next_key_seed(self.deeper())? {
            let value = members.next_value_seed(self.deeper())?;
            // Keys that are no texts name nothing that is known.
            if let Node::Text(key) = key {
                map.push((key, value));
            }
        }
        Ok(Node::Map(map))
    }
}

/// Below the depth that is built: scalars as they are, anything else skipped.
struct Shallow;

impl<'de> Visitor<'de> for Shallow {
    type Value = Node<'de>;
    scalars!();

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node<'de>, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Node::Deep)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Node<'de>, A::Error> {
        while members.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Node::Deep)
    }
}
