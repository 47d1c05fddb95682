//! The sources' channel over a real Redis, behind a proxy that goes on answering and brings nothing any more.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::net::SocketAddr;
use std::time::Duration;

use tictac_ingest::log::RedisSettings;
use tictac_ingest::redis_input;
use tictac_ingest::service::{Input, Settings};
use tictac_ingest::testing::RedisServer;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

const SOON: Duration = Duration::from_secs(10);

/// A way to a server. Connections with a subscription that were made before it was told to be deaf bring nothing after
/// that, and stay open.
struct Way {
    address: SocketAddr,
    /// How often it was told.
    deaf: watch::Sender<u32>,
}

impl Way {
    async fn to(server: &RedisServer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, target) = (listener.local_addr().unwrap(), ("127.0.0.1", server.port()));
        let (deaf, told) = watch::channel(0);
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                tokio::spawn(connect(client, TcpStream::connect(target).await.unwrap(), told.clone()));
            }
        });
        Self { address, deaf }
    }
}

async fn connect(client: TcpStream, server: TcpStream, deaf: watch::Receiver<u32>) {
    let since = *deaf.borrow();
    let (subscribes, subscribed) = watch::channel(false);
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let up = async move {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = from_client.read(&mut buffer).await {
            if buffer[..count].windows(9).any(|word| word == b"SUBSCRIBE") {
                subscribes.send_replace(true);
            }
            to_server.write_all(&buffer[..count]).await.unwrap();
        }
    };
    let down = async move {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = from_server.read(&mut buffer).await {
            if *subscribed.borrow() && *deaf.borrow() > since {
                break;
            }
            if to_client.write_all(&buffer[..count]).await.is_err() {
                return;
            }
        }
        // What else the server says goes nowhere.
        let _ = copy(&mut from_server, &mut tokio::io::sink()).await;
        drop(to_client);
    };
    tokio::select! {
        () = up => {}
        () = down => {}
    }
}

/// Publishes as a source does until ingest hears it.
async fn heard(server: &RedisServer, inputs: &mut mpsc::Receiver<Input>) {
    let hear = async {
        loop {
            server.command(&[b"PUBLISH", b"odds:in:a", b"{}"]).unwrap();
            let input = timeout(Duration::from_millis(50), inputs.recv()).await;
            if matches!(input, Ok(Some(Input::Message { .. }))) {
                return;
            }
        }
    };
    timeout(SOON, hear).await.expect("it hears the sources");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sources_channel_that_is_deaf_is_made_anew() {
    let server = RedisServer::start().unwrap();
    let way = Way::to(&server).await;
    let (input, mut inputs) = mpsc::channel(1_000);
    let (_control, controls) = mpsc::channel(1);
    let cancel = CancellationToken::new();
    let settings = RedisSettings::new(format!("redis://{}", way.address));
    let metrics = Settings::new().unwrap().metrics;
    tokio::spawn(redis_input::run(settings, controls, input, metrics, cancel.clone()));
    heard(&server, &mut inputs).await;

    way.deaf.send_modify(|times| *times += 1);
    let broken = async { while !matches!(inputs.recv().await, Some(Input::Broken)) {} };
    timeout(SOON, broken).await.expect("it finds that it hears nothing");
    heard(&server, &mut inputs).await;
    cancel.cancel();
}
