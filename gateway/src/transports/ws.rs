//! WebSocket: the handshake's answer, and a bounded reader of client frames. What goes out is shared frames written
//! straight to the socket; only control replies (pong, close) come from here.

use std::io::{self, Read, Write};

use bytes::Bytes;
use tictac_proto::wire::CloseCode;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode as WsCloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig, WebSocketContext};
use tokio_tungstenite::tungstenite::{Error, Message, error::CapacityError};

use crate::wires::Wire;

/// The subprotocols, best first.
const SUBPROTOCOLS: [(&str, Wire); 2] =
    [("odds.v1.msgpack", Wire::WsMsgpack), ("odds.v1.json", Wire::WsJson)];

/// Picks the subprotocol: the client's first that is known. A client that names none speaks JSON and is told none.
///
/// # Errors
/// If the client names some, and none is known.
pub fn choose_subprotocol(offered: Option<&str>) -> Result<(Option<&'static str>, Wire), String> {
    let Some(offered) = offered else { return Ok((None, Wire::WsJson)) };
    let known = |name: &str| SUBPROTOCOLS.iter().find(|(known, _)| *known == name.trim());
    match offered.split(',').find_map(known) {
        Some((name, wire)) => Ok((Some(name), *wire)),
        None => Err(format!(
            "none of the subprotocols {:?} is known: offer odds.v1.json or odds.v1.msgpack",
            offered.chars().take(100).collect::<String>()
        )),
    }
}

/// What a client sent.
#[derive(Debug)]
pub enum Incoming {
    /// A text message.
    Text(Bytes),
    /// A binary message.
    Binary(Bytes),
    /// It closes; the reply is in [`Reader::take_output`].
    Close,
}

/// Why the connection can't go on.
#[derive(Debug)]
pub struct Broken {
    /// What to close with.
    pub code: CloseCode,
    /// Why.
    pub why: String,
}

#[derive(Debug, Default)]
struct Pipe {
    input: Vec<u8>,
    read: usize,
    output: Vec<u8>,
}

impl Read for Pipe {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let rest = &self.input[self.read..];
        if rest.is_empty() {
            self.input.clear();
            self.read = 0;
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let n = rest.len().min(buf.len());
        buf[..n].copy_from_slice(&rest[..n]);
        self.read += n;
        Ok(n)
    }
}

impl Write for Pipe {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.output.extend_from_slice(buf);
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads client frames from bytes, without a socket.
#[derive(Debug)]
pub struct Reader {
    context: WebSocketContext,
    pipe: Pipe,
}

impl Reader {
    /// A reader that refuses messages above `max_message` bytes.
    #[must_use]
    pub fn new(max_message: usize) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(256)
            .write_buffer_size(0)
            .max_write_buffer_size(8 * 1024)
            .max_message_size(Some(max_message))
            .max_frame_size(Some(max_message));
        Self { context: WebSocketContext::new(Role::Server, Some(config)), pipe: Pipe::default() }
    }

    /// Takes in what the socket gave.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.pipe.input.extend_from_slice(bytes);
    }

    /// The next message, if it is whole.
    ///
    /// # Errors
    /// If the bytes break the protocol or a limit.
    #[allow(clippy::should_implement_trait, reason = "it may fail, and go on after None")]
    pub fn next(&mut self) -> Result<Option<Incoming>, Broken> {
        loop {
            match self.context.read(&mut self.pipe) {
                Ok(Message::Text(text)) => return Ok(Some(Incoming::Text(text.into()))),
                Ok(Message::Binary(bytes)) => return Ok(Some(Incoming::Binary(bytes))),
                Ok(Message::Close(_)) => {
                    self.push_replies();
                    return Ok(Some(Incoming::Close));
                }
                Ok(_) => self.push_replies(),
                Err(Error::Io(e)) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(Error::ConnectionClosed | Error::AlreadyClosed) => return Ok(Some(Incoming::Close)),
                Err(error) => return Err(broken(&error)),
            }
        }
    }

    fn push_replies(&mut self) {
        // It writes to memory, which takes everything; a closing handshake ends with an error that says so.
        let _ = self.context.flush(&mut self.pipe);
    }

    /// Control replies to send.
    pub fn take_output(&mut self) -> Option<Bytes> {
        (!self.pipe.output.is_empty()).then(|| std::mem::take(&mut self.pipe.output).into())
    }
}

fn broken(error: &Error) -> Broken {
    let code = match error {
        Error::Capacity(CapacityError::MessageTooLong { .. }) => CloseCode::TooBig,
        Error::Utf8(_) => CloseCode::InvalidText,
        _ => CloseCode::Protocol,
    };
    Broken { code, why: error.to_string() }
}

/// A close frame.
#[must_use]
pub fn close_frame(code: CloseCode, why: &str) -> Bytes {
    let mut end = why.len().min(123);
    while !why.is_char_boundary(end) {
        end -= 1;
    }
    let frame = CloseFrame { code: WsCloseCode::from(code.code()), reason: why[..end].into() };
    let mut payload = u16::from(frame.code).to_be_bytes().to_vec();
    payload.extend_from_slice(frame.reason.as_bytes());
    let mut out = vec![0x88, payload.len() as u8];
    out.append(&mut payload);
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = vec![first];
        match payload.len() {
            n @ 0..126 => out.push(0x80 | n as u8),
            n => {
                out.push(0x80 | 126);
                out.extend_from_slice(&(n as u16).to_be_bytes());
            }
        }
        out.extend_from_slice(&[1, 2, 3, 4]);
        out.extend(payload.iter().enumerate().map(|(i, b)| b ^ [1, 2, 3, 4][i % 4]));
        out
    }

    #[test]
    fn messages_come_whole_from_any_cut() {
        let mut bytes = masked(0x81, b"{\"t\":\"ping\"}");
        bytes.extend(masked(0x89, b"hi"));
        bytes.extend(masked(0x82, b"\x80"));
        for cut in 0..bytes.len() {
            let mut reader = Reader::new(1024);
            let mut seen = Vec::new();
            for part in [&bytes[..cut], &bytes[cut..]] {
                reader.feed(part);
                while let Some(message) = reader.next().unwrap() {
                    seen.push(match message {
                        Incoming::Text(t) => t.to_vec(),
                        Incoming::Binary(b) => b.to_vec(),
                        Incoming::Close => panic!("nobody closed"),
                    });
                }
            }
            assert_eq!(seen, [b"{\"t\":\"ping\"}".to_vec(), b"\x80".to_vec()], "cut at {cut}");
            assert_eq!(&reader.take_output().unwrap()[..], b"\x8a\x02hi", "the ping is answered");
        }
    }

    #[test]
    fn what_breaks_the_protocol_or_a_limit_is_named() {
        for (bytes, code) in [
            (vec![0x81, 0x02, b'h', b'i'], CloseCode::Protocol),
            (masked(0x81, &[0xFF, 0xFE]), CloseCode::InvalidText),
            (masked(0x81, &[b'x'; 2000]), CloseCode::TooBig),
            (masked(0xF1, b"x"), CloseCode::Protocol),
        ] {
            let mut reader = Reader::new(1024);
            reader.feed(&bytes);
            let broken = reader.next().unwrap_err();
            assert_eq!(broken.code, code, "{}", broken.why);
        }
    }

    #[test]
    fn a_close_is_answered() {
        let mut reader = Reader::new(1024);
        reader.feed(&masked(0x88, &1000u16.to_be_bytes()));
        assert!(matches!(reader.next().unwrap(), Some(Incoming::Close)));
        assert_eq!(&reader.take_output().unwrap()[..], [0x88, 2, 0x03, 0xE8]);
    }

    #[test]
    fn subprotocols_are_chosen_in_the_clients_order() {
        assert_eq!(choose_subprotocol(None).unwrap().1, Wire::WsJson);
        assert_eq!(
            choose_subprotocol(Some("x, odds.v1.json, odds.v1.msgpack")).unwrap().0,
            Some("odds.v1.json")
        );
        assert_eq!(choose_subprotocol(Some("odds.v1.msgpack")).unwrap().1, Wire::WsMsgpack);
        assert!(choose_subprotocol(Some("soap")).is_err());
    }

    #[test]
    fn a_close_frame_fits() {
        let frame = close_frame(CloseCode::Slow, &"é".repeat(200));
        assert!(frame.len() <= 127);
        assert_eq!(&frame[2..4], &4290u16.to_be_bytes());
        assert!(std::str::from_utf8(&frame[4..]).is_ok());
    }
}
