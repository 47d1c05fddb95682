//! The parts that everything depends on are killed under a running source: the real ingest process, and Redis with all
//! that it remembers. Clients see that prices can't be trusted, then that they can again; positions never go back, and in
//! the end everybody has the source's books and trades what is open.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Instant;

use support::chain::gateway;
use support::process::Process;
use support::source::Source;
use support::watched::{Watched, clients, documents_agree, play};
use tictac_ingest::testing::RedisServer;
use tictac_proto::model::View;
use tictac_proto::wire::FeedState;
use tokio_util::sync::CancellationToken;

/// Until nobody trades anything, with a source that goes on.
async fn until_untradable(source: &mut Source, clients: &mut [Watched; 3]) {
    let done = CancellationToken::new();
    let [a, b, c] = clients;
    let none = |f: &tictac_loadtest::follow::Followed| f.markets().all(|(_, m)| !m.tradable_market());
    let hear = async {
        tokio::join!(a.until("stale", none), b.until("stale", none), c.until("stale", none));
        done.cancel();
    };
    tokio::join!(source.attend(&done), hear);
}

fn report(name: &str, clients: &[Watched; 3], source: &Source, since: Instant) {
    for client in clients {
        eprintln!("{name}: {:?}", client.followed().counts);
    }
    eprintln!("{name}: {} times imaged, {:.1} s", source.imaged, since.elapsed().as_secs_f64());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ingest_process_killed_and_restarted_is_trusted_again_after_images() {
    let since = Instant::now();
    let server = RedisServer::start().unwrap();
    let mut ingest = Process::ingest(&server);
    let (gateway, address) = gateway(&server, &["--snapshots-per-market", "100000"]);
    let mut source = Source::new(&server, 3).await;
    let mut clients = clients(&address).await;
    play(&mut source, &mut clients, 150).await;
    let heads = clients.each_ref().map(Watched::head);
    let imaged = source.imaged;

    ingest.kill();
    clients.iter_mut().for_each(|c| c.worst = FeedState::Live);
    until_untradable(&mut source, &mut clients).await;
    // What nobody hears is lost.
    source.play(50).await;
    let _ingest = Process::ingest(&server);
    play(&mut source, &mut clients, 50).await;
    for (client, head) in clients.iter().zip(heads) {
        assert!(client.worst >= FeedState::Stale, "told that the feed was {:?} at worst", client.worst);
        assert!(client.head().epoch > head.epoch, "{:?} after {head:?}", client.head());
    }
    assert!(source.imaged > imaged, "the new owner asks for images");
    documents_agree(&address, &clients[0]).await;
    report("ingest", &clients, &source, since);
    drop(clients);
    tokio::task::spawn_blocking(|| gateway.stop().unwrap()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_forgot_everything_is_filled_again() {
    let since = Instant::now();
    let mut server = RedisServer::start().unwrap();
    let _ingest = Process::ingest(&server);
    let (gateway, address) = gateway(&server, &["--snapshots-per-market", "100000"]);
    let mut source = Source::new(&server, 4).await;
    let mut clients = clients(&address).await;
    play(&mut source, &mut clients, 150).await;
    let heads = clients.each_ref().map(Watched::head);

    server.kill();
    let [a, b, c] = &mut clients;
    let none = |f: &tictac_loadtest::follow::Followed| f.markets().all(|(_, m)| !m.tradable_market());
    tokio::join!(a.until("stale", none), b.until("stale", none), c.until("stale", none));
    server.restart().unwrap();
    play(&mut source, &mut clients, 100).await;
    for (client, head) in clients.iter().zip(heads) {
        assert!(client.head().epoch > head.epoch, "{:?} after {head:?}", client.head());
        assert!(client.followed().markets().all(|(key, _)| key.1 == View::All));
    }
    documents_agree(&address, &clients[1]).await;
    report("redis", &clients, &source, since);
    drop(clients);
    tokio::task::spawn_blocking(|| gateway.stop().unwrap()).await.unwrap();
}
