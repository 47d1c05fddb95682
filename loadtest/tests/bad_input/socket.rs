//! A WebSocket client that may break every rule: frames are made by hand.

use std::time::Duration;

use tictac_proto::wire::{Codec, Down};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What the gateway sent.
#[allow(clippy::large_enum_variant, reason = "one at a time")]
pub enum Got {
    Message(Down),
    Close(u16, String),
    End,
}

pub struct Socket {
    stream: TcpStream,
    codec: Codec,
    held: Vec<u8>,
}

/// A frame's bytes; `first` has the FIN bit and the opcode.
pub fn frame(first: u8, payload: &[u8], masked: bool) -> Vec<u8> {
    let mask = if masked { 0x80 } else { 0 };
    let mut out = vec![first];
    match payload.len() {
        n @ 0..126 => out.push(mask | n as u8),
        n @ 126..65_536 => {
            out.push(mask | 126);
            out.extend_from_slice(&(n as u16).to_be_bytes());
        }
        n => {
            out.push(mask | 127);
            out.extend_from_slice(&(n as u64).to_be_bytes());
        }
    }
    if masked {
        let key = [7, 11, 13, 17];
        out.extend_from_slice(&key);
        out.extend(payload.iter().enumerate().map(|(i, b)| b ^ key[i % 4]));
    } else {
        out.extend_from_slice(payload);
    }
    out
}

impl Socket {
    pub async fn open(address: &str, codec: Codec) -> Self {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let name = match codec {
            Codec::Json => "odds.v1.json",
            Codec::Msgpack => "odds.v1.msgpack",
        };
        let request = format!(
            "GET /v1/ws HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\n\
             sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\nsec-websocket-protocol: {name}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut held = Vec::new();
        let end = loop {
            assert!(stream.read_buf(&mut held).await.unwrap() > 0, "the handshake is answered");
            if let Some(end) = held.windows(4).position(|w| w == b"\r\n\r\n") {
                break end + 4;
            }
        };
        assert!(held.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&held));
        held.drain(..end);
        Self { stream, codec, held }
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        // A gateway that has closed already says so in what is read.
        let _ = self.stream.write_all(bytes).await;
    }

    fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let (first, short) = (*self.held.first()?, usize::from(*self.held.get(1)? & 0x7F));
        let (length, start) = match short {
            126 => (usize::from(u16::from_be_bytes(self.held.get(2..4)?.try_into().ok()?)), 4),
            127 => (u64::from_be_bytes(self.held.get(2..10)?.try_into().ok()?) as usize, 10),
            n => (n, 2),
        };
        let payload = self.held.get(start..start + length)?.to_vec();
        self.held.drain(..start + length);
        Some((first & 0x0F, payload))
    }

    /// What comes next; `None` after `within`.
    pub async fn next(&mut self, within: Duration) -> Option<Got> {
        let deadline = tokio::time::Instant::now() + within;
        loop {
            match self.frame() {
                Some((8, payload)) => {
                    let code = payload.get(..2).map_or(1005, |c| u16::from_be_bytes([c[0], c[1]]));
                    let why = String::from_utf8_lossy(payload.get(2..).unwrap_or_default()).into_owned();
                    return Some(Got::Close(code, why));
                }
                Some((1 | 2, payload)) => {
                    let node = self.codec.decode(&payload).unwrap();
                    return Some(Got::Message(Down::read(&node).unwrap()));
                }
                Some(_) => continue,
                None => {}
            }
            match tokio::time::timeout_at(deadline, self.stream.read_buf(&mut self.held)).await {
                Ok(Ok(1..)) => {}
                Ok(_) => return Some(Got::End),
                Err(_) => return None,
            }
        }
    }
}
