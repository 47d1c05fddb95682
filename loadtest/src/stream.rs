//! A client over server-sent events: plain HTTP/1.1, a body that ends with the connection, lines.

use anyhow::{Context, bail};
use tictac_proto::wire::{Codec, Down};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::follow::Followed;

/// A connected client and what it holds.
#[derive(Debug)]
pub struct SseClient {
    reader: BufReader<TcpStream>,
    pending: Vec<u8>,
    /// What it holds.
    pub followed: Followed,
    /// The last event's id.
    pub last_event_id: Option<String>,
    /// What the server asked to wait before coming back, ms.
    pub retry: Option<u64>,
}

impl SseClient {
    /// Opens `http://address/v1/sse?query`.
    ///
    /// # Errors
    /// If the gateway can't be reached or does not answer with an event stream.
    pub async fn connect(address: &str, query: &str, last_event_id: Option<&str>) -> anyhow::Result<Self> {
        let mut stream =
            TcpStream::connect(address).await.with_context(|| format!("connecting to {address}"))?;
        let resume = last_event_id.map_or(String::new(), |id| format!("last-event-id: {id}\r\n"));
        let request = format!("GET /v1/sse?{query} HTTP/1.1\r\nhost: {address}\r\n{resume}\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut reader = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head).await? == 0 {
                bail!("the answer ended within its head: {head:?}");
            }
        }
        if !head.starts_with("HTTP/1.1 200") || !head.to_lowercase().contains("text/event-stream") {
            bail!("no event stream: {head}");
        }
        let followed = Followed::default();
        Ok(Self { reader, pending: Vec::new(), followed, last_event_id: None, retry: None })
    }

    /// Waits for one message and takes it in; `None` at the end of the stream. Whoever stops waiting loses nothing.
    ///
    /// # Errors
    /// If the connection breaks or an event can't be read.
    pub async fn step(&mut self) -> anyhow::Result<Option<Down>> {
        loop {
            if let Some(end) = self.pending.windows(2).position(|w| w == b"\n\n") {
                let event: Vec<u8> = self.pending.drain(..end + 2).collect();
                if let Some(down) = self.event(std::str::from_utf8(&event)?)? {
                    self.followed.handle(&down);
                    return Ok(Some(down));
                }
                continue;
            }
            // Whoever stops waiting here loses nothing.
            if self.reader.read_buf(&mut self.pending).await? == 0 {
                return Ok(None);
            }
        }
    }

    fn event(&mut self, text: &str) -> anyhow::Result<Option<Down>> {
        let mut down = None;
        for line in text.lines() {
            let (field, value) = line.split_once(": ").unwrap_or((line, ""));
            match field {
                "id" => self.last_event_id = Some(value.to_owned()),
                "retry" => self.retry = value.parse().ok(),
                "data" => down = Some(Down::read(&Codec::Json.decode(value.as_bytes())?)?),
                _ => {}
            }
        }
        Ok(down)
    }
}
