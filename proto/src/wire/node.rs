//! A decoded message: a small borrowed tree, the same for both codecs.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};

use super::keys::Key;
use crate::limits::{MAX_DEPTH, MAX_INT};

/// Why a message can't be read: where and what.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{why}", if at.is_empty() { String::new() } else { format!("`{at}`: ") })]
pub struct DecodeError {
    /// The key at fault, empty for the message as a whole.
    pub at: String,
    /// What is wrong with which value.
    pub why: String,
}

impl DecodeError {
    /// An error at a key.
    pub fn new(at: impl Into<String>, why: impl Into<String>) -> Self {
        Self { at: at.into(), why: why.into() }
    }
}

/// A key of a map: a number in MessagePack, a name in JSON or where the key is data.
#[derive(Debug, Clone, PartialEq)]
pub enum NodeKey<'a> {
    /// A number.
    Code(i64),
    /// A name.
    Name(Cow<'a, str>),
}

impl NodeKey<'_> {
    /// Whether this is the key with that number or name.
    #[must_use]
    pub fn is(&self, code: u8, name: &str) -> bool {
        match self {
            Self::Code(c) => *c == i64::from(code),
            Self::Name(n) => n == name,
        }
    }
}

/// A decoded value. Booleans are 0 and 1.
#[derive(Debug, Clone, PartialEq)]
pub enum Node<'a> {
    /// Null.
    Null,
    /// An integer below 2^53 in magnitude.
    Int(i64),
    /// A text.
    Text(Cow<'a, str>),
    /// An array.
    List(Vec<Node<'a>>),
    /// A map, in the order of the input.
    Map(Vec<(NodeKey<'a>, Node<'a>)>),
}

impl<'a> Node<'a> {
    /// The value of a message's key; `None` where absent.
    #[must_use]
    pub fn get(&self, key: Key) -> Option<&Node<'a>> {
        match self {
            Self::Map(entries) => {
                entries.iter().find(|(k, _)| k.is(key.code(), key.name())).map(|(_, value)| value)
            }
            _ => None,
        }
    }

    /// The value of a key that must be there.
    ///
    /// # Errors
    /// If it is not.
    pub fn need(&self, key: Key) -> Result<&Node<'a>, DecodeError> {
        self.get(key).ok_or_else(|| DecodeError::new(key.name(), "is missing"))
    }

    /// The integer; `at` names it in the error.
    ///
    /// # Errors
    /// If it is none.
    pub fn int(&self, at: &str) -> Result<i64, DecodeError> {
        match self {
            Self::Int(v) => Ok(*v),
            other => Err(DecodeError::new(at, format!("expected an integer, got {other}"))),
        }
    }

    /// The boolean.
    ///
    /// # Errors
    /// If it is neither a boolean nor 0 or 1.
    pub fn flag(&self, at: &str) -> Result<bool, DecodeError> {
        match self.int(at)? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(DecodeError::new(at, format!("expected a boolean or 0 or 1, got {other}"))),
        }
    }

    /// The integer, not negative.
    ///
    /// # Errors
    /// If it is none or negative.
    pub fn uint(&self, at: &str) -> Result<u64, DecodeError> {
        let v = self.int(at)?;
        u64::try_from(v).map_err(|_| DecodeError::new(at, format!("{v} is negative")))
    }

    /// The text.
    ///
    /// # Errors
    /// If it is none.
    pub fn text(&self, at: &str) -> Result<&str, DecodeError> {
        match self {
            Self::Text(v) => Ok(v),
            other => Err(DecodeError::new(at, format!("expected a text, got {other}"))),
        }
    }

    /// The items of an array.
    ///
    /// # Errors
    /// If it is none.
    pub fn items(&self, at: &str) -> Result<&[Node<'a>], DecodeError> {
        match self {
            Self::List(items) => Ok(items),
            other => Err(DecodeError::new(at, format!("expected an array, got {other}"))),
        }
    }

    /// The entries of a map.
    ///
    /// # Errors
    /// If it is none.
    pub fn entries(&self, at: &str) -> Result<&[(NodeKey<'a>, Node<'a>)], DecodeError> {
        match self {
            Self::Map(entries) => Ok(entries),
            other => Err(DecodeError::new(at, format!("expected an object, got {other}"))),
        }
    }

    /// The code of an enumeration, given by code or by name.
    ///
    /// # Errors
    /// If it is neither an integer nor one of the names.
    pub fn code(&self, at: &str, names: &[&str]) -> Result<i64, DecodeError> {
        match self {
            Self::Int(v) => Ok(*v),
            Self::Text(name) => match names.iter().position(|n| n == name) {
                Some(code) => Ok(code as i64),
                None => Err(DecodeError::new(at, format!("{name:?} is none of {}", names.join(", ")))),
            },
            other => Err(DecodeError::new(at, format!("expected one of {}, got {other}", names.join(", ")))),
        }
    }
}

impl fmt::Display for Node<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Int(v) => write!(f, "{v}"),
            Self::Text(v) => write!(f, "{:?}", v.chars().take(40).collect::<String>()),
            Self::List(_) => f.write_str("an array"),
            Self::Map(_) => f.write_str("an object"),
        }
    }
}

/// Reads one complete JSON value.
pub(super) fn from_json(bytes: &[u8]) -> Result<Node<'_>, DecodeError> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let node = JsonNode { depth: 0 }
        .deserialize(&mut json)
        .and_then(|node| json.end().map(|()| node))
        .map_err(|e| {
            let begin = String::from_utf8_lossy(&bytes[..bytes.len().min(160)]);
            let begin: String = begin.chars().take(40).collect();
            DecodeError::new("", format!("{e} of {begin:?}"))
        })?;
    Ok(node)
}

struct JsonNode {
    depth: usize,
}

impl JsonNode {
    fn deeper<E: serde::de::Error>(&self) -> Result<Self, E> {
        if self.depth >= MAX_DEPTH {
            return Err(E::custom(format!("nested deeper than {MAX_DEPTH}")));
        }
        Ok(Self { depth: self.depth + 1 })
    }
}

impl<'de> DeserializeSeed<'de> for JsonNode {
    type Value = Node<'de>;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Node<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for JsonNode {
    type Value = Node<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("null, a boolean, an integer below 2^53, a text, an array or an object")
    }

    fn visit_unit<E>(self) -> Result<Node<'de>, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E>(self, v: bool) -> Result<Node<'de>, E> {
        Ok(Node::Int(i64::from(v)))
    }

    fn visit_i64<E: serde::de::Error>(self, v: i64) -> Result<Node<'de>, E> {
        if (-MAX_INT..=MAX_INT).contains(&v) {
            Ok(Node::Int(v))
        } else {
            Err(E::custom(format!("integer {v} is beyond 2^53")))
        }
    }

    fn visit_u64<E: serde::de::Error>(self, v: u64) -> Result<Node<'de>, E> {
        match i64::try_from(v) {
            Ok(v) => self.visit_i64(v),
            Err(_) => Err(E::custom(format!("integer {v} is beyond 2^53"))),
        }
    }

    fn visit_borrowed_str<E>(self, v: &'de str) -> Result<Node<'de>, E> {
        Ok(Node::Text(Cow::Borrowed(v)))
    }

    fn visit_str<E>(self, v: &str) -> Result<Node<'de>, E> {
        Ok(Node::Text(Cow::Owned(v.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node<'de>, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(self.deeper::<A::Error>()?)? {
            items.push(item);
        }
        Ok(Node::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node<'de>, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key_seed(self.deeper::<A::Error>()?)? {
            let Node::Text(name) = key else { return Err(A::Error::custom("a key is not a text")) };
            entries.push((NodeKey::Name(name), map.next_value_seed(self.deeper::<A::Error>()?)?));
        }
        Ok(Node::Map(entries))
    }
}
