//! WebSocket: the handshake's answer, and a bounded reader of client frames. What goes out is shared frames written
//! straight to the socket; only control replies (pong, close) come from here.

mod reader;

use bytes::Bytes;
use tictac_proto::wire::CloseCode;

pub use reader::{Broken, Incoming, Reader};

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

/// A close frame.
#[must_use]
pub fn close_frame(code: CloseCode, why: &str) -> Bytes {
    let mut end = why.len().min(123);
    while !why.is_char_boundary(end) {
        end -= 1;
    }
    let mut out = vec![0x88, 2 + end as u8];
    out.extend_from_slice(&code.code().to_be_bytes());
    out.extend_from_slice(&why.as_bytes()[..end]);
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

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
