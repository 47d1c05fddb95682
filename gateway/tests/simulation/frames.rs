//! The other end of a wire: bytes as they come, in any pieces, back to messages.

use tictac_gateway::wires::Wire;
use tictac_proto::position::Position;
use tictac_proto::wire::Down;

use crate::history::Violation;

/// A message, with the positions that an event's id carried.
pub struct Frame {
    pub down: Down,
    pub token: Option<Vec<(u16, Position)>>,
}

/// Bytes that are not yet a whole message.
pub struct Frames {
    wire: Wire,
    bytes: Vec<u8>,
    /// Offset of `bytes[used]` in the connection.
    start: u64,
    used: usize,
}

fn broken(what: impl std::fmt::Display) -> Violation {
    Violation::new("3: bytes", what.to_string())
}

impl Frames {
    pub fn new(wire: Wire) -> Self {
        Self { wire, bytes: Vec::new(), start: 0, used: 0 }
    }

    pub fn take(&mut self, bytes: impl Iterator<Item = u8>) {
        self.bytes.drain(..self.used);
        self.used = 0;
        self.bytes.extend(bytes);
    }

    /// The next whole message with the offset where it began.
    pub fn next(&mut self) -> Result<Option<(u64, Frame)>, Violation> {
        let rest = &self.bytes[self.used..];
        let parsed = match self.wire {
            Wire::Sse => event(rest)?,
            wire => websocket(rest, wire)?,
        };
        let Some((length, payload, token)) = parsed else { return Ok(None) };
        let node = self.wire.codec().decode(payload).map_err(broken)?;
        let down = Down::read(&node).map_err(broken)?;
        let start = self.start;
        self.start += length as u64;
        self.used += length;
        Ok(Some((start, Frame { down, token })))
    }
}

type Parsed<'a> = Option<(usize, &'a [u8], Option<Vec<(u16, Position)>>)>;

fn websocket(bytes: &[u8], wire: Wire) -> Result<Parsed<'_>, Violation> {
    let [first, length, ..] = bytes else { return Ok(None) };
    let expected = if wire == Wire::WsJson { 0x81 } else { 0x82 };
    if *first != expected {
        return Err(broken(format!("a frame begins with {first:#x}")));
    }
    let (header, length) = match *length {
        126 if bytes.len() >= 4 => (4, usize::from(u16::from_be_bytes([bytes[2], bytes[3]]))),
        126 => return Ok(None),
        127 => return Err(broken("a frame of more than 64 KiB")),
        short => (2, usize::from(short)),
    };
    let Some(payload) = bytes.get(header..header + length) else { return Ok(None) };
    Ok(Some((header + length, payload, None)))
}

fn event(bytes: &[u8]) -> Result<Parsed<'_>, Violation> {
    let Some(end) = bytes.windows(2).position(|w| w == b"\n\n") else { return Ok(None) };
    let mut data = None;
    let mut token = None;
    for line in bytes[..end].split(|b| *b == b'\n') {
        if let Some(rest) = line.strip_prefix(b"data: ") {
            data = Some(rest);
        } else if let Some(rest) = line.strip_prefix(b"id: ") {
            token = Some(read_token(std::str::from_utf8(rest).map_err(broken)?)?);
        } else if !line.starts_with(b"event: ") {
            return Err(broken(format!("a line {:?}", String::from_utf8_lossy(line))));
        }
    }
    let data = data.ok_or_else(|| broken("an event without data"))?;
    Ok(Some((end + 2, data, token)))
}

fn read_token(text: &str) -> Result<Vec<(u16, Position)>, Violation> {
    let mut token = Vec::new();
    for part in text.split('-').filter(|p| !p.is_empty()) {
        let mut numbers = part.split('.').map(|n| n.parse::<u64>().map_err(broken));
        let mut next = || numbers.next().unwrap_or_else(|| Err(broken("a short token")));
        let (shard, epoch, n) = (next()?, next()?, next()?);
        token.push((shard as u16, Position::new(epoch, n)));
    }
    Ok(token)
}
