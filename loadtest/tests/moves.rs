//! A client takes its positions to another gateway and to another transport, and is served what it lacks: exact deltas.
#![allow(clippy::unwrap_used)]

mod support;

use support::chain::{IngestProcess, gateway};
use support::source::Source;
use support::watched::{LONG, SPORTS};
use tictac_gateway::gateway::Gateway;
use tictac_gateway::transports::sse::market_cursor;
use tictac_ingest::testing::RedisServer;
use tictac_loadtest::follow::Followed;
use tictac_loadtest::stream::SseClient;
use tictac_loadtest::websocket::WsClient;
use tictac_proto::model::{MarketId, View};
use tictac_proto::wire::{Codec, Conflate, Scope};

async fn websocket(address: &str, codec: Codec, held: Followed) -> WsClient {
    let mut client = WsClient::connect(address, codec, "").await.unwrap();
    client.followed = held;
    client.followed.disconnected();
    for sport in SPORTS {
        let resume = client.followed.resume();
        client.subscribe_scope(Scope::Sport(sport.into()), View::All, Conflate::Raw, resume).await.unwrap();
    }
    client
}

/// Nothing was taken anew, nothing was missed, and everything is as its source has it.
fn exact(name: &str, followed: &Followed, source: &Source, markets: usize, snapshots: u64) {
    let counts = followed.counts;
    eprintln!("{name}: {counts:?}");
    assert_eq!((counts.mismatches, counts.gaps, counts.digest_mismatches), (0, 0, 0), "{name}");
    assert_eq!(counts.snapshots, snapshots, "{name}: no snapshot more than before");
    assert_eq!(followed.markets().count(), markets, "{name}");
    for (id, truth) in &source.truth() {
        let market = followed.market(id, View::All).unwrap();
        assert_eq!(truth.differs(market.book().unwrap()), None, "{name}: {id}");
    }
}

async fn stop(gateways: [Gateway; 2]) {
    for gateway in gateways {
        tokio::task::spawn_blocking(|| gateway.stop().unwrap()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn positions_hold_on_another_gateway_and_on_another_transport() {
    let server = RedisServer::start().unwrap();
    let ingest = IngestProcess::start(&server);
    let ((one, first), (two, second)) = (gateway(&server, &[]), gateway(&server, &[]));
    let mut source = Source::new(&server, 9).await;
    let all = |source: &Source| {
        let truth = source.truth();
        move |f: &Followed| {
            truth.iter().all(|(id, t)| {
                let book = f.market(id, View::All).and_then(|m| m.book());
                book.is_some_and(|book| t.differs(book).is_none())
            })
        }
    };
    source.play(50).await;
    let mut client = websocket(&first, Codec::Msgpack, Followed::default()).await;
    client.until(LONG, "books", all(&source)).await.unwrap();
    let (markets, snapshots) = (client.followed.markets().count(), client.followed.counts.snapshots);
    assert!(markets > 10, "{markets} markets");

    // To the other gateway, which nobody has asked for these shards before.
    source.play(20).await;
    let mut client = websocket(&second, Codec::Json, client.followed).await;
    source.play(20).await;
    client.until(LONG, "books", all(&source)).await.unwrap();
    exact("another gateway", &client.followed, &source, markets, snapshots);
    assert_eq!(client.followed.counts.resumed as usize, markets, "each goes on");

    // Back to the first one, as a stream, by what its cursor says of each market.
    source.play(20).await;
    let mut held = client.followed;
    held.disconnected();
    let ids: Vec<MarketId> = held.markets().map(|(key, _)| key.0.clone()).collect();
    let query = format!("market={}&view=all&conflate=raw", ids.join(","));
    let mut stream =
        SseClient::connect(&first, &query, Some(&market_cursor(&held.resume().markets))).await.unwrap();
    stream.followed = held;
    source.play(20).await;
    let done = all(&source);
    let deadline = tokio::time::Instant::now() + LONG;
    while !done(&stream.followed) {
        tokio::time::timeout_at(deadline, stream.step()).await.unwrap().unwrap().unwrap();
    }
    exact("another transport", &stream.followed, &source, markets, snapshots);
    assert_eq!(stream.followed.counts.resumed as usize, 2 * markets, "each goes on");
    drop(stream);
    stop([one, two]).await;
    ingest.stop().await;
}
