//! Faults with real parts: a gateway process killed and restarted, a live channel that loses, repeats and swaps, an ingest
//! killed and restarted. Whatever happens, everybody ends with the source's books, and the counters say how.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use serde_json::Value as Json;
use support::SOON;
use support::chain::{IngestProcess, Upstream, gateway, reader};
use support::oracle::{from_book, from_oracle};
use support::process::Process;
use tictac_gateway::transports::sse::resume_from;
use tictac_ingest::log::LogReader;
use tictac_ingest::simulator::{Config, recording};
use tictac_ingest::testing::{Lossy, RedisServer, free_port};
use tictac_loadtest::follow::Followed;
use tictac_loadtest::request::get;
use tictac_loadtest::stream::SseClient;
use tictac_loadtest::websocket::WsClient;
use tictac_proto::model::View;
use tictac_proto::wire::{Codec, Conflate, Scope};

const LONG: Duration = Duration::from_secs(60);
const SPORTS: [&str; 3] = ["football", "tennis", "horse_racing"];

/// A simulated recording and its last checkpoint.
fn recorded(seconds: u32) -> (Vec<String>, Json) {
    let recording =
        recording::Recording { seed: 11, config: Config::default(), start_ms: 1_764_000_000_000, seconds };
    let (mut lines, mut books) = (Vec::new(), Vec::new());
    recording.write_mcm("simulated", 100_000, &mut lines, &mut books).unwrap();
    let books: Json = serde_json::from_slice(&books).unwrap();
    let lines = String::from_utf8(lines).unwrap().lines().map(str::to_owned).collect();
    (lines, books["checkpoints"].as_array().unwrap().last().unwrap()["markets"].clone())
}

fn differs(followed: &Followed, want: &Json, view: View) -> Option<String> {
    want.as_object().unwrap().iter().find_map(|(id, want)| {
        let Some(market) = followed.market(id, view) else { return Some(format!("{id} is not held")) };
        let Some(book) = market.book() else { return Some(format!("{id}: no book")) };
        let (mine, theirs) = (from_book(book, view), from_oracle(want, view));
        (mine != theirs).then(|| format!("{id}: {mine:?}, not {theirs:?}"))
    })
}

/// Whether it has a book of each market.
fn holds_all(followed: &Followed, want: &Json, view: View) -> bool {
    let has_book = |id: &String| followed.market(id, view).is_some_and(|market| market.book().is_some());
    want.as_object().unwrap().keys().all(has_book)
}

async fn connect(address: &str, codec: Codec, view: View, held: Followed) -> WsClient {
    let deadline = Instant::now() + SOON;
    let mut client = loop {
        match WsClient::connect(address, codec, "").await {
            Ok(client) => break client,
            Err(error) => assert!(Instant::now() < deadline, "{error:#}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    client.followed = held;
    for sport in SPORTS {
        let resume = client.followed.resume();
        let scope = Scope::Sport(sport.into());
        client.subscribe_scope(scope, view, Conflate::Auto, resume).await.unwrap();
    }
    client
}

async fn until(client: &mut WsClient, want: &Json, view: View) {
    let reached = client.until(LONG, "the source's books", |f| differs(f, want, view).is_none()).await;
    if let Err(error) = reached {
        panic!("{error:#}: {:?}", differs(&client.followed, want, view));
    }
}

async fn until_listed(address: &str) {
    let deadline = Instant::now() + SOON;
    loop {
        if let Ok(list) = get(address, "/v1/markets?limit=500", &[]).await
            && list.json().is_ok_and(|j| j["total"].as_u64().unwrap_or(0) > 0)
        {
            return;
        }
        assert!(Instant::now() < deadline, "no market came");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_killed_in_the_middle_costs_nobody_anything() {
    let (lines, want) = recorded(60);
    let server = RedisServer::start().unwrap();
    let ingest = IngestProcess::start(&server);
    let port = free_port().unwrap();
    let address = format!("127.0.0.1:{port}");
    let mut process = Process::gateway(&server, port);
    let mut upstream = Upstream::new(&server, "exchange").await;
    upstream.say(&lines[0]).await;
    upstream.settle().await;
    until_listed(&address).await;

    let mut all = connect(&address, Codec::Msgpack, View::All, Followed::default()).await;
    let mut three = connect(&address, Codec::Json, View::Three, Followed::default()).await;
    let query = format!("sport={}&view=all", SPORTS.join("&sport="));
    let mut sse = SseClient::connect(&address, &query, None).await.unwrap();
    let half = lines.len() / 2;
    for line in &lines[1..half] {
        upstream.say(line).await;
    }
    upstream.settle().await;
    // Everyone holds every market, and the stream's client has an id that says where. How many changes were merged on the way
    // is the machine's affair.
    all.until(LONG, "books", |f| holds_all(f, &want, View::All)).await.unwrap();
    three.until(LONG, "books", |f| holds_all(f, &want, View::Three)).await.unwrap();
    let id_says_all = |sse: &SseClient| {
        let resume = resume_from(sse.last_event_id.as_deref());
        sse.followed.markets().all(|(_, m)| m.shard().is_some_and(|shard| resume.of_shard(shard).is_some()))
    };
    while !holds_all(&sse.followed, &want, View::All) || !id_says_all(&sse) {
        sse.step().await.unwrap().unwrap();
    }

    process.kill();
    let mut before = Vec::new();
    for followed in [&mut all.followed, &mut three.followed, &mut sse.followed] {
        followed.disconnected();
        before.push(followed.counts);
    }
    for line in &lines[half..half + 100] {
        upstream.say(line).await;
    }
    let mut process = Process::gateway(&server, port);
    until_listed(&address).await;
    let mut all = connect(&address, Codec::Msgpack, View::All, all.followed).await;
    let mut three = connect(&address, Codec::Json, View::Three, three.followed).await;
    let (id, held) = (sse.last_event_id.clone(), sse.followed);
    let mut sse = SseClient::connect(&address, &query, id.as_deref()).await.unwrap();
    sse.followed = held;
    sse.followed.seen_up_to(&resume_from(id.as_deref()).shards);
    for line in &lines[half + 100..] {
        upstream.say(line).await;
    }
    upstream.settle().await;
    until(&mut all, &want, View::All).await;
    until(&mut three, &want, View::Three).await;
    let deadline = tokio::time::Instant::now() + LONG;
    while differs(&sse.followed, &want, View::All).is_some() {
        let step = tokio::time::timeout_at(deadline, sse.step()).await;
        step.unwrap_or_else(|_| panic!("{:?}", differs(&sse.followed, &want, View::All))).unwrap().unwrap();
    }
    for (name, counts, before) in [
        ("all", all.followed.counts, before[0]),
        ("three", three.followed.counts, before[1]),
        ("sse", sse.followed.counts, before[2]),
    ] {
        eprintln!(
            "{name}: {} snapshots before the kill, {} after; {} went on from where they stood; {counts:?}",
            before.snapshots,
            counts.snapshots - before.snapshots,
            counts.resumed
        );
        assert_eq!(
            (counts.mismatches, counts.gaps, counts.digest_mismatches),
            (0, 0, 0),
            "{name}: {counts:?}"
        );
        // The log reaches back to before the kill: the new gateway serves what is missing, and nothing anew.
        assert_eq!(counts.snapshots, before.snapshots, "{name}: {counts:?}");
        assert_eq!(counts.resumed, before.snapshots, "{name}: {counts:?}");
        assert!(counts.deltas > before.deltas, "{name}: something was missing: {counts:?}");
    }
    process.kill();
    ingest.stop().await;
}

fn series(text: &str, name: &str) -> f64 {
    let line = text.lines().find(|l| l.starts_with(name)).unwrap_or_else(|| panic!("{name} is not exported"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_live_channel_that_loses_repeats_and_swaps_is_repaired() {
    let (lines, want) = recorded(60);
    let server = RedisServer::start().unwrap();
    let ingest = IngestProcess::start(&server);
    let lossy = LogReader::Lossy(Box::new(Lossy { reader: reader(&server), percent: 1.0, seed: 7 }));
    let (gateway, address) = support::start(lossy, &[]);
    let mut upstream = Upstream::new(&server, "exchange").await;
    upstream.say(&lines[0]).await;
    upstream.settle().await;
    until_listed(&address).await;
    let mut client = connect(&address, Codec::Msgpack, View::All, Followed::default()).await;
    let publish = async {
        // A few at a time: what is lost while a repair is under way makes no gap of its own.
        for lines in lines[1..].chunks(5) {
            for line in lines {
                upstream.say(line).await;
            }
            upstream.settle().await;
        }
    };
    tokio::join!(publish, until(&mut client, &want, View::All));
    let counts = client.followed.counts;
    assert_eq!((counts.mismatches, counts.digest_mismatches), (0, 0), "{counts:?}");
    assert_eq!(counts.gaps, counts.declared, "no client finds a gap that was not declared: {counts:?}");
    let metrics = String::from_utf8(gateway.metrics.text()).unwrap();
    let found = |event| series(&metrics, &format!("tictac_follower_events{{event=\"{event}\"}}"));
    let (gaps, tails, duplicates) = (found("gap"), found("tail"), found("duplicate"));
    eprintln!("{gaps} gaps, {tails} repairs from the log, {duplicates} duplicates; client {counts:?}");
    assert!(gaps > 10.0 && tails > 10.0 && duplicates > 10.0, "{gaps} {tails} {duplicates}");
    assert_eq!(found("checksum_mismatch"), 0.0);
    tokio::task::spawn_blocking(|| gateway.stop().unwrap()).await.unwrap();
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ingest_killed_and_restarted_goes_on_from_its_snapshots() {
    let (lines, want) = recorded(40);
    let server = RedisServer::start().unwrap();
    let ingest = IngestProcess::start(&server);
    let (gateway, address) = gateway(&server, &[]);
    let mut upstream = Upstream::new(&server, "exchange").await;
    let half = lines.len() / 2;
    for line in &lines[..half] {
        upstream.say(line).await;
    }
    upstream.settle().await;
    until_listed(&address).await;
    let mut client = connect(&address, Codec::Json, View::All, Followed::default()).await;
    client.until(LONG, "books", |f| f.counts.snapshots > 10).await.unwrap();
    let before: Vec<_> = client.followed.markets().map(|(key, m)| (key.clone(), m.position())).collect();
    let epoch = before.iter().filter_map(|b| b.1).map(|at| at.epoch).max().unwrap();

    ingest.kill();
    let ingest = IngestProcess::start(&server);
    client
        .until(LONG, "a new epoch", |f| {
            f.markets()
                .all(|(_, m)| m.position().is_some_and(|at| at.epoch > epoch) || m.position().is_none())
        })
        .await
        .unwrap();
    for (key, at) in &before {
        let now = client.followed.market(&key.0, key.1).and_then(|m| m.position());
        assert!(now.is_none() || now >= *at, "{key:?} went back from {at:?} to {now:?}");
    }
    // What was not imaged by its source since is not tradable: the new owner can't know what it missed.
    assert!(
        client.followed.markets().all(|(_, m)| !m.tradable_market()),
        "nothing is tradable before it is confirmed"
    );
    let mut again = Upstream::resume(&server, upstream).await;
    for line in &lines[half..] {
        again.say(line).await;
    }
    again.settle().await;
    until(&mut client, &want, View::All).await;
    let counts = client.followed.counts;
    assert_eq!((counts.mismatches, counts.gaps - counts.declared), (0, 0), "{counts:?}");
    tokio::task::spawn_blocking(|| gateway.stop().unwrap()).await.unwrap();
    ingest.stop().await;
}
