//! A client over a real WebSocket.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use futures_util::{SinkExt, StreamExt};
use tictac_proto::model::{MarketId, View};
use tictac_proto::wire::{Codec, Conflate, Down, Resume, Scope, Subscribe, Up};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::follow::Followed;

/// A connected client and what it holds.
#[derive(Debug)]
pub struct WsClient {
    socket: WebSocketStream<TcpStream>,
    codec: Codec,
    started: Instant,
    last_ping: Instant,
    /// When the newest heartbeat that it read was sent, by the gateway's clock.
    beat: Option<i64>,
    /// The one that its last ping named.
    told: Option<i64>,
    /// The gateway's heartbeat interval, ms.
    interval: i64,
    next_id: i64,
    /// What it holds.
    pub followed: Followed,
    /// The close code, once closed.
    pub closed: Option<u16>,
}

impl WsClient {
    /// Connects to `ws://host:port/v1/ws`, adding `query`.
    ///
    /// # Errors
    /// If the gateway can't be reached or refuses.
    pub async fn connect(address: &str, codec: Codec, query: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await.with_context(|| format!("connecting to {address}"))?;
        stream.set_nodelay(true)?;
        let mut request = format!("ws://{address}/v1/ws{query}").into_client_request()?;
        let name = match codec {
            Codec::Json => "odds.v1.json",
            Codec::Msgpack => "odds.v1.msgpack",
        };
        request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static(name));
        let (socket, _) = client_async(request, stream).await.context("the WebSocket handshake failed")?;
        let now = Instant::now();
        let followed = Followed::default();
        Ok(Self {
            socket,
            codec,
            started: now,
            last_ping: now,
            beat: None,
            told: None,
            interval: 1_000,
            next_id: 0,
            followed,
            closed: None,
        })
    }

    /// Sends a message.
    ///
    /// # Errors
    /// If the connection is gone.
    pub async fn send(&mut self, message: &Up) -> anyhow::Result<()> {
        let bytes = self.codec.encode(message);
        let message = match self.codec {
            Codec::Json => Message::Text(String::from_utf8(bytes)?.into()),
            Codec::Msgpack => Message::Binary(bytes.into()),
        };
        Ok(self.socket.send(message).await?)
    }

    /// Sends something that the protocol does not foresee.
    ///
    /// # Errors
    /// If the connection is gone.
    pub async fn send_raw(&mut self, message: Message) -> anyhow::Result<()> {
        Ok(self.socket.send(message).await?)
    }

    /// Subscribes to markets.
    ///
    /// # Errors
    /// If the connection is gone.
    pub async fn subscribe(
        &mut self,
        markets: &[MarketId],
        view: View,
        conflate: Conflate,
        resume: Resume,
    ) -> anyhow::Result<()> {
        for market in markets {
            self.followed.expect(market, view);
        }
        self.subscribe_scope(Scope::Markets(markets.to_vec()), view, conflate, resume).await
    }

    /// Subscribes to a scope.
    ///
    /// # Errors
    /// If the connection is gone.
    pub async fn subscribe_scope(
        &mut self,
        scope: Scope,
        view: View,
        conflate: Conflate,
        resume: Resume,
    ) -> anyhow::Result<()> {
        self.next_id += 1;
        let id = self.next_id;
        self.send(&Up::Sub(Subscribe { id, scope, view, conflate, resume })).await
    }

    /// The encoding it speaks.
    #[must_use]
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// Waits for one message, takes it in, answers it; `None` once closed. Pings once a second meanwhile.
    ///
    /// # Errors
    /// If the connection breaks or a message can't be read.
    pub async fn step(&mut self) -> anyhow::Result<Option<Down>> {
        loop {
            let due = (self.last_ping + Duration::from_millis(900)).saturating_duration_since(Instant::now());
            let message = tokio::select! {
                message = self.socket.next() => message,
                () = tokio::time::sleep(due) => {
                    self.ping().await?;
                    continue;
                }
            };
            let bytes = match message {
                Some(Ok(Message::Text(text))) => text.as_bytes().to_vec(),
                Some(Ok(Message::Binary(bytes))) => bytes.to_vec(),
                Some(Ok(Message::Close(frame))) => {
                    self.closed = Some(frame.map_or(1005, |f| u16::from(f.code)));
                    return Ok(None);
                }
                Some(Ok(_)) => continue,
                Some(Err(error)) => bail!("the connection broke: {error}"),
                None => return Ok(None),
            };
            let down = Down::read(&self.codec.decode(&bytes)?)?;
            match &down {
                Down::Welcome(welcome) => self.interval = i64::try_from(welcome.heartbeat)?,
                Down::Hb(heartbeat) => {
                    self.beat = Some(heartbeat.now);
                    // It was far behind, and is no more.
                    if heartbeat.now - *self.told.get_or_insert(heartbeat.now) > 2 * self.interval {
                        self.ping().await?;
                    }
                }
                _ => {}
            }
            for answer in self.followed.handle(&down) {
                self.send(&answer).await?;
            }
            return Ok(Some(down));
        }
    }

    /// Pings.
    ///
    /// # Errors
    /// If the connection is gone.
    pub async fn ping(&mut self) -> anyhow::Result<()> {
        self.last_ping = Instant::now();
        self.told = self.beat;
        let time = self.started.elapsed().as_millis() as i64;
        self.send(&Up::Ping { time, read: self.beat }).await
    }

    /// Steps until `done` says so.
    ///
    /// # Errors
    /// If that takes longer than `within`, or the connection ends first.
    pub async fn until(
        &mut self,
        within: Duration,
        what: &str,
        mut done: impl FnMut(&Followed) -> bool,
    ) -> anyhow::Result<()> {
        let deadline = tokio::time::Instant::now() + within;
        while !done(&self.followed) {
            match tokio::time::timeout_at(deadline, self.step()).await {
                Ok(Ok(Some(_))) => {}
                Ok(Ok(None)) => bail!("closed with {:?} while waiting for {what}", self.closed),
                Ok(Err(error)) => return Err(error.context(format!("while waiting for {what}"))),
                Err(_) => bail!("{what} did not come within {within:?}; {:?}", self.followed.counts),
            }
        }
        Ok(())
    }
}
