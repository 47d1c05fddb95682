//! Writing and reading MessagePack.

use std::borrow::Cow;

use super::node::{DecodeError, Node, NodeKey};
use super::writer::Writer;
use crate::limits::{MAX_DEPTH, MAX_INT};

/// Writes MessagePack into a buffer.
#[derive(Debug, Default)]
pub struct MsgpackWriter {
    out: Vec<u8>,
}

impl MsgpackWriter {
    /// The bytes written.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.out
    }

    /// Starts over with a buffer, keeping its capacity.
    #[must_use]
    pub fn with_buffer(mut out: Vec<u8>) -> Self {
        out.clear();
        Self { out }
    }

    /// Appends to a buffer that already holds something, such as a frame's header.
    #[must_use]
    pub fn appending(out: Vec<u8>) -> Self {
        Self { out }
    }
}

const VEC: &str = "writing to memory does not fail";

impl Writer for MsgpackWriter {
    fn map(&mut self, len: usize) {
        rmp::encode::write_map_len(&mut self.out, len as u32).expect(VEC);
    }

    fn end_map(&mut self) {}

    fn field(&mut self, code: u8, _name: &'static str) {
        rmp::encode::write_uint(&mut self.out, u64::from(code)).expect(VEC);
    }

    fn text_key(&mut self, key: &str) {
        self.text(key);
    }

    fn array(&mut self, len: usize) {
        rmp::encode::write_array_len(&mut self.out, len as u32).expect(VEC);
    }

    fn end_array(&mut self) {}

    fn int(&mut self, value: i64) {
        rmp::encode::write_sint(&mut self.out, value).expect(VEC);
    }

    fn text(&mut self, value: &str) {
        rmp::encode::write_str(&mut self.out, value).expect(VEC);
    }

    fn flag(&mut self, value: bool) {
        self.int(i64::from(value));
    }

    fn code(&mut self, code: i64, _names: &'static [&'static str]) {
        self.int(code);
    }

    fn null(&mut self) {
        rmp::encode::write_nil(&mut self.out).expect(VEC);
    }
}

/// Reads one complete value.
pub(super) fn read(bytes: &[u8]) -> Result<Node<'_>, DecodeError> {
    let mut reader = Reader { rest: bytes, len: bytes.len(), start: 0 };
    let node = reader.value(0).and_then(|node| {
        reader.start = reader.len - reader.rest.len();
        if reader.rest.is_empty() {
            Ok(node)
        } else {
            Err(DecodeError::new("", "bytes after the end of the message"))
        }
    });
    node.map_err(|e| DecodeError::new("", format!("{} at byte {}", e.why, reader.start)))
}

struct Reader<'a> {
    rest: &'a [u8],
    len: usize,
    /// Where the value being read starts, for errors.
    start: usize,
}

/// Items reserved before the first is read. More are added as they come, so that lengths announced at every level of
/// nesting cannot reserve many times what the input could hold.
const RESERVED: usize = 32;

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], DecodeError> {
        if n > self.rest.len() {
            return Err(DecodeError::new("", "the value is cut short"));
        }
        let (taken, rest) = self.rest.split_at(n);
        self.rest = rest;
        Ok(taken)
    }

    fn big(&mut self, n: usize) -> Result<u64, DecodeError> {
        Ok(self.take(n)?.iter().fold(0, |v, b| v << 8 | u64::from(*b)))
    }

    fn signed(&mut self, n: usize) -> Result<i64, DecodeError> {
        let shift = 64 - 8 * n as u32;
        Ok(((self.big(n)? << shift) as i64) >> shift)
    }

    fn value(&mut self, depth: usize) -> Result<Node<'a>, DecodeError> {
        self.start = self.len - self.rest.len();
        let marker = self.take(1)?[0];
        let int = |v: i64| {
            if (-MAX_INT..=MAX_INT).contains(&v) {
                Ok(Node::Int(v))
            } else {
                Err(DecodeError::new("", format!("integer {v} is beyond 2^53")))
            }
        };
        match marker {
            0x00..=0x7F => int(i64::from(marker)),
            0xE0..=0xFF => int(i64::from(marker as i8)),
            0x80..=0x8F => self.map(usize::from(marker & 15), depth),
            0x90..=0x9F => self.list(usize::from(marker & 15), depth),
            0xA0..=0xBF => self.text(usize::from(marker & 31)),
            0xC0 => Ok(Node::Null),
            0xC2 => Ok(Node::Int(0)),
            0xC3 => Ok(Node::Int(1)),
            0xCC..=0xCE => int(self.big(1 << (marker - 0xCC))? as i64),
            0xCF => {
                let v = self.big(8)?;
                match i64::try_from(v) {
                    Ok(v) => int(v),
                    Err(_) => Err(DecodeError::new("", format!("integer {v} is beyond 2^53"))),
                }
            }
            0xD0..=0xD3 => int(self.signed(1 << (marker - 0xD0))?),
            0xD9..=0xDB => {
                let n = self.big(1 << (marker - 0xD9))? as usize;
                self.text(n)
            }
            0xDC | 0xDD => {
                let n = self.big(2 << (marker - 0xDC))? as usize;
                self.list(n, depth)
            }
            0xDE | 0xDF => {
                let n = self.big(2 << (marker - 0xDE))? as usize;
                self.map(n, depth)
            }
            other => Err(DecodeError::new(
                "",
                format!(
                    "type 0x{other:02x} has no place here: only nil, booleans, integers, texts, arrays and maps do"
                ),
            )),
        }
    }

    fn text(&mut self, n: usize) -> Result<Node<'a>, DecodeError> {
        match std::str::from_utf8(self.take(n)?) {
            Ok(text) => Ok(Node::Text(Cow::Borrowed(text))),
            Err(_) => Err(DecodeError::new("", "a text is not UTF-8")),
        }
    }

    /// Every item takes so many bytes at least: a length that the rest can't hold is refused before anything is
    /// reserved.
    fn room(&self, n: usize, least: usize, depth: usize) -> Result<usize, DecodeError> {
        if depth >= MAX_DEPTH {
            return Err(DecodeError::new("", format!("nested deeper than {MAX_DEPTH}")));
        }
        if n > self.rest.len() / least {
            return Err(DecodeError::new("", format!("{n} items are announced, too few bytes follow")));
        }
        Ok(n.min(RESERVED))
    }

    fn list(&mut self, n: usize, depth: usize) -> Result<Node<'a>, DecodeError> {
        let mut items = Vec::with_capacity(self.room(n, 1, depth)?);
        for _ in 0..n {
            items.push(self.value(depth + 1)?);
        }
        Ok(Node::List(items))
    }

    fn map(&mut self, n: usize, depth: usize) -> Result<Node<'a>, DecodeError> {
        let mut entries = Vec::with_capacity(self.room(n, 2, depth)?);
        for _ in 0..n {
            let key = match self.value(depth + 1)? {
                Node::Int(v) => NodeKey::Code(v),
                Node::Text(v) => NodeKey::Name(v),
                _ => return Err(DecodeError::new("", "a map key is neither an integer nor a text")),
            };
            entries.push((key, self.value(depth + 1)?));
        }
        Ok(Node::Map(entries))
    }
}
