//! A core whose hub says nothing: what was sent may be old, so that the core vouches for nothing, however its clients are
//! connected and whenever they came. Here the core is real and the hub is this test.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use tictac_gateway::feed::HubInput;
use tictac_gateway::http::HttpState;
use tictac_gateway::limits::Limits;
use tictac_gateway::metrics::Metrics;
use tictac_gateway::settings::Settings;
use tictac_gateway::time::Clock;
use tictac_gateway::worker::{self, WorkerParts};
use tictac_loadtest::stream::SseClient;
use tictac_loadtest::websocket::WsClient;
use tictac_proto::wire::{Codec, Down};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

/// How long a core believes a hub that says nothing, and what looking at it takes.
const SILENCE: Duration = Duration::from_millis(1_500 + 200);
const HEARTBEAT: Duration = Duration::from_millis(500);

/// A core on a thread of its own; whether its hub beats is what the channel says.
fn core(stop: &CancellationToken) -> (String, watch::Sender<bool>, std::thread::JoinHandle<()>) {
    let settings =
        Settings::parse_from(["tictac-gateway", "--listen", "127.0.0.1:0", "--heartbeat-ms", "500"]);
    let settings = Arc::new(settings);
    let metrics = Metrics::new();
    let limits = Limits::new(&settings, metrics.clone());
    let clock = Clock::default();
    let listener = worker::listen(settings.listen, 1).unwrap().remove(0);
    let address = listener.local_addr().unwrap().to_string();
    let (hub, mut asks) = mpsc::channel::<HubInput>(64);
    let (arrivals_sender, arrivals) = mpsc::channel(64);
    let (say, news) = mpsc::channel(64);
    let (beats, beating) = watch::channel(true);
    let state = HttpState {
        settings: settings.clone(),
        limits: limits.clone(),
        clock,
        hub: hub.clone(),
        arrivals: arrivals_sender,
    };
    let parts =
        WorkerParts { number: 0, settings, limits, metrics, clock, hub, news, arrivals, stop: stop.clone() };
    let stop = stop.clone();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async move {
            tokio::task::spawn_local(worker::accept(listener, state, stop));
            tokio::task::spawn_local(async move {
                let mut every = tokio::time::interval(Duration::from_millis(100));
                loop {
                    tokio::select! {
                        _ = every.tick() => if *beating.borrow() { say.send(Vec::new()).await.unwrap() },
                        Some(_) = asks.recv() => {}
                    }
                }
            });
            worker::run(parts).await;
        });
    });
    (address, beats, thread)
}

/// How old what a client was told last is, after it listened for a while; `None` where it was told nothing.
async fn websocket_age(client: &mut WsClient, time: Duration) -> Option<Duration> {
    let (until, mut newest) = (Instant::now() + time, None);
    client.ping().await.unwrap();
    while let Ok(message) = tokio::time::timeout_at(until, client.step()).await {
        let Down::Hb(heartbeat) = message.unwrap().expect("it stays open") else { continue };
        if heartbeat.echo.is_some() {
            newest = Some(Instant::now());
        }
    }
    newest.map(|at| at.elapsed())
}

/// The same of a stream, by the time that heartbeats say.
async fn stream_age(client: &mut SseClient, time: Duration) -> Option<Duration> {
    let (until, mut newest) = (Instant::now() + time, None);
    while let Ok(message) = tokio::time::timeout_at(until, client.step()).await {
        let Down::Hb(heartbeat) = message.unwrap().expect("it stays open") else { continue };
        newest = newest.max(Some(heartbeat.now));
    }
    newest.map(|at| Duration::from_millis(support::now_ms().saturating_sub(at as u64)))
}

#[tokio::test]
async fn a_core_vouches_for_nothing_without_the_hub() {
    let stop = CancellationToken::new();
    let (address, beats, thread) = core(&stop);
    let mut socket = WsClient::connect(&address, Codec::Json, "").await.unwrap();
    let mut stream = SseClient::connect(&address, "market=1.1", None).await.unwrap();
    let look = HEARTBEAT * 3;
    for _ in 0..2 {
        beats.send_replace(true);
        let (by_socket, by_stream) =
            tokio::join!(websocket_age(&mut socket, look), stream_age(&mut stream, look));
        assert!(by_socket.is_some_and(|age| age < look), "{by_socket:?}");
        assert!(by_stream.is_some_and(|age| age < look), "{by_stream:?}");

        beats.send_replace(false);
        let silent = Instant::now();
        let (by_socket, by_stream) =
            tokio::join!(websocket_age(&mut socket, SILENCE), stream_age(&mut stream, SILENCE));
        assert!(
            by_socket.is_some() && by_stream.is_some(),
            "for a moment it may be late: {by_socket:?} {by_stream:?}"
        );
        let (by_socket, by_stream) =
            tokio::join!(websocket_age(&mut socket, look), stream_age(&mut stream, look));
        assert_eq!((by_socket, by_stream), (None, None), "nothing of an age is told");
        // Who comes now is told how old it is.
        let mut late = SseClient::connect(&address, "market=1.1", None).await.unwrap();
        let age = timeout(support::SOON, stream_age(&mut late, HEARTBEAT))
            .await
            .unwrap()
            .expect("its first heartbeat");
        let least = silent.elapsed() - HEARTBEAT;
        assert!(age >= least, "{age:?} old, though nothing was heard for {least:?}");
        let mut late = WsClient::connect(&address, Codec::Msgpack, "").await.unwrap();
        assert_eq!(websocket_age(&mut late, HEARTBEAT).await, None);
    }
    stop.cancel();
    drop((socket, stream));
    tokio::task::spawn_blocking(|| thread.join().unwrap()).await.unwrap();
}
