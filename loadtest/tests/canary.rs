//! The canary in a running gateway: it compares what clients get with what the source says, and a book that is wrong makes the
//! gateway not ready; how long stops take and how old signs of life are is measured.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use support::{Publisher, SOON, book, level, memory, start};
use tictac_gateway::admin;
use tictac_gateway::gateway::Gateway;
use tictac_loadtest::request::get;
use tictac_loadtest::websocket::WsClient;
use tictac_proto::model::{MarketStatus, Side, View};
use tictac_proto::wire::{Codec, Conflate, Resume};

/// Goes on with prices until it is seen.
async fn until(publisher: &mut Publisher, right: bool, what: &str, mut seen: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + SOON;
    let mut size = 0;
    while !seen().await {
        assert!(tokio::time::Instant::now() < deadline, "{what} does not come");
        size += 1;
        publisher.change_with_checksum("1.1", level(1, Side::Back, 300, 1 + size % 7), right).await;
        publisher.alive().await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn compared(gateway: &Gateway, found: &str) -> u64 {
    gateway.metrics.canary.with_label_values(&["source", found]).get()
}

/// The admin port of a gateway, as its program serves it.
fn serve_admin(gateway: &Gateway) -> String {
    let listener = admin::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (metrics, readiness) = (gateway.metrics.clone(), gateway.readiness.clone());
    tokio::spawn(admin::serve(listener, metrics, readiness, gateway.canary.clone(), gateway.stopping()));
    address
}

/// Whether the gateway says that it is ready; else what it says.
async fn is_ready(admin: &str) -> Result<(), String> {
    let answer = get(admin, "/readyz", &[]).await.unwrap();
    if answer.status == 200 { Ok(()) } else { Err(answer.body) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_book_makes_the_gateway_not_ready_until_it_is_right() {
    let log = memory();
    let mut publisher = Publisher::new(log.clone()).await;
    publisher.image("1.1", book("e1", "football")).await;
    let (gateway, _) = start(log, &[]);
    let admin = serve_admin(&gateway);
    until(&mut publisher, true, "a comparison", async || compared(&gateway, "right") > 3).await;
    assert_eq!((compared(&gateway, "wrong"), gateway.canary.borrow().trouble.clone()), (0, None));
    assert!(gateway.metrics.canary.with_label_values(&["frame", "right"]).get() > 0);
    until(&mut publisher, true, "ready", async || is_ready(&admin).await.is_ok()).await;

    let says_why = async || is_ready(&admin).await.is_err_and(|why| why.contains("such as 1.1"));
    until(&mut publisher, false, "the wrong book", says_why).await;
    assert!(compared(&gateway, "wrong") > 0);
    until(&mut publisher, true, "the right book", async || is_ready(&admin).await.is_ok()).await;
    tokio::task::spawn_blocking(|| gateway.stop().unwrap()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_is_measured_to_the_socket_and_signs_of_life_by_hop() {
    let log = memory();
    let mut publisher = Publisher::new(log.clone()).await;
    publisher.image("1.1", book("e1", "football")).await;
    let (gateway, address) = start(log, &[]);
    let mut client = WsClient::connect(&address, Codec::Json, "").await.unwrap();
    client.subscribe(&["1.1".into()], View::All, Conflate::Auto, Resume::default()).await.unwrap();
    client.until(SOON, "the book", |f| f.counts.snapshots > 0).await.unwrap();
    let before = gateway.metrics.stop_seconds.get_sample_count();
    publisher.change("1.1", support::status(MarketStatus::Suspended)).await;
    client.until(SOON, "the stop", |f| f.counts.stops > 0).await.unwrap();
    let deadline = tokio::time::Instant::now() + SOON;
    while gateway.metrics.stop_seconds.get_sample_count() == before {
        assert!(tokio::time::Instant::now() < deadline, "the stop is not measured");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(gateway.metrics.stop_seconds.get_sample_sum() < 5.0, "seconds, not milliseconds");

    publisher.alive().await;
    // Nobody says anything any more: the age of the last sign of life grows.
    let age = |hop: &str| gateway.metrics.age.with_label_values(&[hop]).get();
    while age("ingest") < 300 || age("source") < 300 {
        assert!(tokio::time::Instant::now() < deadline, "{} {}", age("ingest"), age("source"));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    publisher.alive().await;
    while age("ingest") > 300 || age("source") > 300 {
        assert!(tokio::time::Instant::now() < deadline, "{} {}", age("ingest"), age("source"));
        publisher.alive().await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(get(&address, "/v1/time", &[]).await.unwrap().status, 200);
    tokio::task::spawn_blocking(|| gateway.stop().unwrap()).await.unwrap();
}
