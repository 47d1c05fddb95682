//! Wires: how a message becomes bytes that are the same for every client of a kind, so that one encoding serves all.
//! Server frames of WebSocket are not masked, so header and payload can be shared; an SSE event is text around JSON.

use bytes::Bytes;
use tictac_proto::wire::{Codec, JsonWriter, Message, MsgpackWriter};

/// Room for the longest header of a WebSocket frame from a server.
const HEADER: usize = 10;

/// What kind of client the bytes are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Wire {
    /// WebSocket, JSON in text frames.
    WsJson,
    /// WebSocket, MessagePack in binary frames.
    WsMsgpack,
    /// Server-sent events, JSON.
    Sse,
}

impl Wire {
    /// All.
    pub const ALL: [Self; 3] = [Self::WsJson, Self::WsMsgpack, Self::Sse];

    /// The label of metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::WsJson => "ws_json",
            Self::WsMsgpack => "ws_msgpack",
            Self::Sse => "sse",
        }
    }

    /// The encoding inside.
    #[must_use]
    pub fn codec(self) -> Codec {
        match self {
            Self::WsJson | Self::Sse => Codec::Json,
            Self::WsMsgpack => Codec::Msgpack,
        }
    }

    /// A message as this wire carries it. `name` is the message type's, which SSE shows as the event's.
    #[must_use]
    pub fn frame(self, name: &str, message: impl Message) -> Bytes {
        match self {
            Self::WsJson => {
                let mut writer = JsonWriter::appending(vec![0; HEADER]);
                message.write(&mut writer);
                websocket(0x81, writer.into_bytes())
            }
            Self::WsMsgpack => {
                let mut writer = MsgpackWriter::appending(vec![0; HEADER]);
                message.write(&mut writer);
                websocket(0x82, writer.into_bytes())
            }
            Self::Sse => sse(name, None, message),
        }
    }
}

/// An SSE event, with an id where it marks a position to come back to.
#[must_use]
pub fn sse(name: &str, id: Option<&str>, message: impl Message) -> Bytes {
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(name.as_bytes());
    if let Some(id) = id {
        out.extend_from_slice(b"\nid: ");
        out.extend_from_slice(id.as_bytes());
    }
    out.extend_from_slice(b"\ndata: ");
    let mut writer = JsonWriter::appending(out);
    message.write(&mut writer);
    let mut out = writer.into_bytes();
    out.extend_from_slice(b"\n\n");
    out.into()
}

/// Puts the shortest header before a payload that starts at [`HEADER`].
fn websocket(first: u8, mut out: Vec<u8>) -> Bytes {
    let payload = out.len() - HEADER;
    let at = match payload {
        0..126 => {
            out[HEADER - 1] = payload as u8;
            HEADER - 2
        }
        126..=0xFFFF => {
            out[HEADER - 3] = 126;
            out[HEADER - 2..HEADER].copy_from_slice(&(payload as u16).to_be_bytes());
            HEADER - 4
        }
        _ => {
            out[1] = 127;
            out[2..HEADER].copy_from_slice(&(payload as u64).to_be_bytes());
            0
        }
    };
    out[at] = first;
    Bytes::from(out).slice(at..)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tictac_proto::wire::Writer;

    struct Text(usize);

    impl Message for Text {
        fn write<W: Writer>(&self, w: &mut W) {
            w.text(&"x".repeat(self.0));
        }
    }

    #[test]
    fn headers_are_the_shortest() {
        for (length, header) in [(10, 2), (123, 2), (124, 4), (65_533, 4), (65_534, 10)] {
            let frame = Wire::WsJson.frame("t", Text(length));
            assert_eq!(frame.len(), header + length + 2, "payload of {length} + 2 quotes");
            assert_eq!(frame[0], 0x81);
            assert_eq!(frame[header], b'"');
        }
    }

    #[test]
    fn an_event_names_its_type_and_may_carry_an_id() {
        assert_eq!(&Wire::Sse.frame("delta", Text(1))[..], b"event: delta\ndata: \"x\"\n\n");
        assert_eq!(&sse("hb", Some("1.2"), Text(1))[..], b"event: hb\nid: 1.2\ndata: \"x\"\n\n");
    }
}
