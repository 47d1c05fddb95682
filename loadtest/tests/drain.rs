//! A gateway that is told to stop: it is not ready from then on, tells every client when to come back, waits for them until a
//! deadline, and exits with 0. Whoever comes back elsewhere with positions has missed nothing.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use support::SOON;
use support::chain::{IngestProcess, gateway};
use support::process::Process;
use support::source::Source;
use support::watched::{LONG, SPORTS};
use tictac_ingest::testing::{RedisServer, free_port};
use tictac_loadtest::follow::Followed;
use tictac_loadtest::request::get;
use tictac_loadtest::websocket::WsClient;
use tictac_proto::model::View;
use tictac_proto::wire::{CloseCode, Codec, Conflate, Down, Scope};

/// How long a gateway may take whose clients go when they are told.
const DEADLINE: Duration = Duration::from_secs(2);

fn free_ports() -> (u16, u16) {
    (free_port().unwrap(), free_port().unwrap())
}

/// Until `/readyz` answers with this status.
async fn until_ready(admin: &str, status: u16) {
    let mut looks = tokio::time::interval(Duration::from_millis(10));
    let deadline = Instant::now() + SOON;
    while get(admin, "/readyz", &[]).await.map_or(0, |answer| answer.status) != status {
        assert!(Instant::now() < deadline, "/readyz does not answer {status}");
        looks.tick().await;
    }
}

async fn follow(address: &str, codec: Codec, mut held: Followed) -> WsClient {
    held.disconnected();
    let mut client = WsClient::connect(address, codec, "").await.unwrap();
    client.followed = held;
    for sport in SPORTS {
        let resume = client.followed.resume();
        client.subscribe_scope(Scope::Sport(sport.into()), View::All, Conflate::Raw, resume).await.unwrap();
    }
    client
}

/// Until a client has what its source has.
async fn in_step(client: &mut WsClient, source: &Source) {
    let truth = source.truth();
    let has = |f: &Followed| {
        truth.iter().all(|(id, t)| {
            f.market(id, View::All).and_then(|m| m.book()).is_some_and(|book| t.differs(book).is_none())
        })
    };
    client.until(LONG, "the source's books", has).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_stops_sends_its_clients_elsewhere_and_they_miss_nothing() {
    let server = RedisServer::start().unwrap();
    let ingest = IngestProcess::start(&server);
    let (port, admin) = free_ports();
    let mut old = Process::gateway_with_admin(&server, port, admin);
    let (address, admin) = (format!("127.0.0.1:{port}"), format!("127.0.0.1:{admin}"));
    let (gateway, other) = gateway(&server, &[]);
    let mut source = Source::new(&server, 12).await;
    until_ready(&admin, 200).await;
    let mut clients = Vec::new();
    for i in 0..6 {
        let codec = if i % 2 == 0 { Codec::Json } else { Codec::Msgpack };
        clients.push(follow(&address, codec, Followed::default()).await);
    }
    source.play(30).await;
    for client in &mut clients {
        in_step(client, &source).await;
    }

    old.signal("TERM");
    // Nobody new is sent here, and who is here is still served.
    until_ready(&admin, 503).await;
    source.play(10).await;
    in_step(&mut clients[0], &source).await;
    old.signal("TERM");
    let told = Instant::now();
    let mut retries = Vec::new();
    let mut held = Vec::new();
    for mut client in clients {
        while let Ok(Some(message)) = client.step().await {
            if let Down::Bye { code, retry, .. } = message {
                assert_eq!(code, CloseCode::Restart.code());
                retries.push(retry);
            }
        }
        assert_eq!(client.closed, Some(CloseCode::Restart.code()));
        held.push((client.codec(), client.followed));
    }
    assert_eq!(retries.len(), 6, "everybody is told when to come back");
    assert!(retries.iter().all(|ms| (100..=5_000).contains(ms)), "{retries:?}");
    retries.sort_unstable();
    retries.dedup();
    assert!(retries.len() > 1, "not all at once: {retries:?}");

    let ended = tokio::time::timeout(LONG, tokio::task::spawn_blocking(move || old.wait()));
    assert_eq!(ended.await.expect("it ends").unwrap(), Some(0));
    support::took("every client gone and the process ended", told.elapsed(), DEADLINE);

    source.play(30).await;
    for (codec, followed) in held {
        let (snapshots, markets) = (followed.counts.snapshots, followed.markets().count());
        let mut client = follow(&other, codec, followed).await;
        in_step(&mut client, &source).await;
        let counts = client.followed.counts;
        assert_eq!((counts.snapshots, counts.gaps, counts.mismatches), (snapshots, 0, 0), "{counts:?}");
        assert_eq!(counts.resumed as usize, markets, "{counts:?}");
    }
    tokio::task::spawn_blocking(|| gateway.stop().unwrap()).await.unwrap();
    ingest.stop().await;
}
