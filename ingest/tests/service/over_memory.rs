//! Over the in-process log.

use std::net::SocketAddr;

use tictac_ingest::admin::{Admin, serve};
use tictac_ingest::embedded::Embedded;
use tictac_ingest::log::{LogReader, LogWriter, MemoryLog, MemorySettings};
use tictac_ingest::pacing::Speed;
use tictac_ingest::service::{Ingest, Input, Settings};
use tictac_ingest::simulator::recording::Recording;
use tictac_ingest::simulator::{Config, Simulator};
use tictac_proto::wire::FeedState;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::follow::Gateway;

fn settings() -> Settings {
    let mut settings = Settings::new().unwrap();
    settings.engine.shards = 8;
    settings.engine.log_capacity = 16_384;
    settings
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_has_what_the_simulator_means() {
    let log = MemoryLog::new(MemorySettings { entries: 16_384, ..MemorySettings::default() });
    let (ingest, _) = Ingest::start(settings(), LogWriter::from(log.clone()), CancellationToken::new());
    let mut gateway = Gateway::new(&LogReader::from(log), 8);
    gateway.until("every shard is followed", Gateway::all_following).await;
    let mut simulator = Simulator::new(7, Config { rate: 5.0, ..Config::default() });
    for step in 0..600 {
        let mut updates = Vec::new();
        let at = 1_764_000_000_000 + step * 200;
        simulator.advance(at, &mut updates);
        ingest.input().send(Input::Updates { source: "demo".into(), updates, at }).await.unwrap();
    }
    let same = |gateway: &Gateway| {
        let (books, listed) = (gateway.books(), gateway.listed());
        let mut count = 0;
        let right = simulator.truth().all(|(id, truth)| {
            count += 1;
            listed.contains_key(id) && books.get(id).is_some_and(|book| truth.differs(book).is_none())
        });
        right && count == books.len() && count == listed.len()
    };
    gateway.until("books are the simulator's", same).await;
    gateway.until("the feed is live", |g| g.feed("demo") == FeedState::Live).await;
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_simulator_is_followed() {
    let cancel = CancellationToken::new();
    let (reader, running) = Embedded::simulator(1, 10.0).unwrap().with_shards(4).start(cancel.clone());
    let mut gateway = Gateway::new(&reader, 4);
    gateway
        .until("its markets move", |g| {
            g.feed("demo") == FeedState::Live
                && g.followers.values().map(|f| f.counters().applied).sum::<u64>() > 500
        })
        .await;
    assert_eq!(gateway.books().len(), gateway.listed().len());
    // As the admin port does at a scrape: gauges are as of the moment they are asked for.
    let metrics = running.metrics().clone();
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis() as i64;
    running.window().look(move |engine| metrics.observe(engine, now)).await.unwrap();
    let text = running.metrics().render();
    assert!(text.contains("tictac_ingest_feed_state{source=\"demo\"} 0"), "{text}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_embedded_recording_ends_in_its_books() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("run.mcm");
    let (mut lines, mut checkpoints) = (Vec::new(), Vec::new());
    let config = Config { rate: 2.0, ..Config::default() };
    let recording = Recording { seed: 11, config, start_ms: 1_764_000_000_000, seconds: 60 };
    recording.write_mcm("run.mcm", 1_000_000, &mut lines, &mut checkpoints).unwrap();
    std::fs::write(&path, lines).unwrap();
    let expected: serde_json::Value = serde_json::from_slice(&checkpoints).unwrap();
    let last = expected["checkpoints"].as_array().unwrap().last().unwrap()["markets"].clone();

    let embedded = Embedded::replay(path, Speed::Max).unwrap().with_shards(4);
    let (reader, running) = embedded.start(CancellationToken::new());
    let mut gateway = Gateway::new(&reader, 4);
    gateway
        .until("the books are the recording's", |g| {
            g.all_following() && crate::checkpoint::differs(&last, &g.books()).is_none()
        })
        .await;

    let listener = tictac_ingest::admin::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let log = MemoryLog::default().into();
    let admin = Admin { metrics: running.metrics().clone(), window: running.window(), log };
    let cancel = CancellationToken::new();
    let port = tokio::spawn(serve(listener, admin, cancel.clone()));
    for (path, status, body) in [
        ("/readyz", "200", "owner of all 5 shards"),
        ("/healthz", "200", "ok"),
        ("/metrics", "200", "tictac_ingest_shards_owned 5"),
        ("/problems", "200", "[]"),
        ("/else", "404", "/metrics"),
    ] {
        let answer = get(address, path).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")) && answer.contains(body),
            "{path}: {answer}"
        );
    }
    running.stop().await;
    assert!(
        get(address, "/healthz").await.starts_with("HTTP/1.1 503"),
        "an engine that ended is not healthy"
    );
    cancel.cancel();
    port.await.unwrap();
}

pub(crate) async fn get(address: SocketAddr, path: &str) -> String {
    ask(address, &format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")).await
}

pub(crate) async fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}
