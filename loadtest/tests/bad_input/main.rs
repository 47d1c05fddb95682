//! Bad input of every kind, from both ends, against a whole chain over a real Redis: each row of the tables says what is
//! sent and what one gets, and after each row healthy clients beside it must have gone on, live and without a gap. What
//! one gets is also a document, `deploy/BAD_INPUT.md`; it is written anew with TICTAC_BLESS=1.
#![allow(clippy::unwrap_used, unreachable_pub, reason = "a test in several files")]

#[path = "../support/mod.rs"]
mod support;

mod document;
mod healthy;
mod http;
mod redis_input;
mod socket;
mod websocket;

use document::{Document, Row};
use healthy::Healthy;
use support::chain::{IngestProcess, gateway};
use tictac_ingest::testing::RedisServer;

/// Subscriptions that a client of this test may have.
const SUBSCRIPTIONS: usize = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_input_is_named_and_costs_nobody_else_anything() {
    let server = RedisServer::start().unwrap();
    let ingest = IngestProcess::start(&server);
    let subscriptions = SUBSCRIPTIONS.to_string();
    let (gateway, address) =
        gateway(&server, &["--connects-per-ip", "100000", "--subscriptions", &subscriptions]);
    let healthy = Healthy::start(&server, &address).await;
    let mut document = Document::default();

    let mut redis = redis_input::Sender::new(&server, ingest.window()).await;
    for row in redis_input::rows() {
        let got = redis.get(&row).await;
        document.add("Redis", row.input, &got, &row.wants);
        healthy.goes_on(row.input).await;
    }
    redis.is_stale_until_imaged(&address).await;
    healthy.goes_on("the other source's image").await;
    for row in websocket::rows() {
        let got = row.get(&address).await;
        document.add("WebSocket", row.input, &got, &row.wants);
        healthy.goes_on(row.input).await;
    }
    for row in http::rows() {
        let got = row.get(&address).await;
        document.add("HTTP", row.input, &got, &row.wants);
        healthy.goes_on(row.input).await;
    }
    for row in http::refusals(&server).await {
        let Row { input, got, wants } = row;
        document.add("HTTP", input, &got, &wants);
        healthy.goes_on(input).await;
    }

    let (messages, rows) = (healthy.finish(&address).await, document.len());
    eprintln!("{rows} rows; the healthy clients took {messages} messages meanwhile");
    document.check();
    tokio::task::spawn_blocking(|| gateway.stop().unwrap()).await.unwrap();
    ingest.stop().await;
}
