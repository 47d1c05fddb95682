//! Recorded markets through the whole chain over a real Redis. At each checkpoint the books at ingest, at `GET /v1/markets/{id}`, in a
//! WebSocket client of each codec, in one of a depth view and in an SSE client are what an independent client computes
//! from the same lines; every client took one snapshot a market and then only deltas, each with its checksum.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value as Json;
use support::SOON;
use support::chain::{IngestProcess, Upstream, gateway};
use support::oracle::{from_book, from_document, from_oracle};
use tictac_ingest::recording::Recording;
use tictac_ingest::simulator::{Config, recording};
use tictac_ingest::testing::RedisServer;
use tictac_loadtest::follow::Followed;
use tictac_loadtest::request::get;
use tictac_loadtest::stream::SseClient;
use tictac_loadtest::websocket::WsClient;
use tictac_proto::model::View;
use tictac_proto::wire::{Codec, Conflate, Resume, Scope};

/// Longest that one stretch between checkpoints may take on a busy machine.
const STRETCH: Duration = Duration::from_secs(120);

/// The first difference between a client's books and the oracle's.
fn differs(followed: &Followed, want: &Json, view: View) -> Option<String> {
    want.as_object().unwrap().iter().find_map(|(id, want)| {
        let Some(book) = followed.market(id, view).and_then(|m| m.book()) else {
            return Some(format!("{id}: no book"));
        };
        let (mine, theirs) = (from_book(book, view), from_oracle(want, view));
        (mine != theirs).then(|| format!("{id}: {mine:?}, not {theirs:?}"))
    })
}

async fn until_ws(client: &mut WsClient, published: &AtomicBool, want: &Json, view: View) {
    // Books are compared only once all is published: before that they can't be right.
    let reached = client
        .until(STRETCH, "the checkpoint", |f| {
            published.load(Ordering::Acquire) && differs(f, want, view).is_none()
        })
        .await;
    if let Err(error) = reached {
        panic!("{error:#}: {:?}", differs(&client.followed, want, view));
    }
}

async fn until_sse(client: &mut SseClient, published: &AtomicBool, want: &Json) {
    let deadline = tokio::time::Instant::now() + STRETCH;
    while !published.load(Ordering::Acquire) || differs(&client.followed, want, View::All).is_some() {
        let step = tokio::time::timeout_at(deadline, client.step()).await;
        let step = step
            .unwrap_or_else(|_| panic!("the checkpoint: {:?}", differs(&client.followed, want, View::All)));
        step.unwrap().expect("the stream goes on");
    }
}

async fn until_document(address: &str, want: &Json) {
    let deadline = Instant::now() + SOON;
    for (id, want) in want.as_object().unwrap() {
        let theirs = from_oracle(want, View::All);
        loop {
            let document = get(address, &format!("/v1/markets/{id}?view=all"), &[]).await.unwrap();
            assert_eq!(document.status, 200, "{id}: {}", document.body);
            let mine = from_document(&document.json().unwrap());
            if mine == theirs {
                break;
            }
            assert!(Instant::now() < deadline, "{id}: {mine:?}, not {theirs:?}");
        }
    }
}

async fn sports(address: &str) -> BTreeSet<String> {
    let deadline = Instant::now() + SOON;
    loop {
        let list = get(address, "/v1/markets?limit=500", &[]).await.unwrap().json().unwrap();
        let markets = list["markets"].as_array().map_or(&[][..], |m| m);
        if !markets.is_empty() {
            return markets.iter().filter_map(|m| m["sport"].as_str().map(str::to_owned)).collect();
        }
        assert!(Instant::now() < deadline, "no market came");
    }
}

/// Plays lines up to each checkpoint and compares there.
async fn play(name: &str, lines: &[String], checkpoints: &[Json]) {
    let started = Instant::now();
    let server = RedisServer::start().unwrap();
    let ingest = IngestProcess::start(&server);
    // Comparing asks for many documents from one address.
    let (gateway, address) =
        gateway(&server, &["--connects-per-ip", "100000", "--snapshots-per-market", "100000"]);
    let mut upstream = Upstream::new(&server, "exchange").await;
    upstream.say(&lines[0]).await;
    upstream.settle().await;
    let sports = sports(&address).await;
    let mut clients = Vec::new();
    for (codec, view, conflate) in [
        (Codec::Json, View::All, Conflate::Raw),
        (Codec::Msgpack, View::All, Conflate::Raw),
        (Codec::Msgpack, View::Three, Conflate::Auto),
    ] {
        let mut client = WsClient::connect(&address, codec, "").await.unwrap();
        for sport in &sports {
            let scope = Scope::Sport(sport.as_str().into());
            client.subscribe_scope(scope, view, conflate, Resume::default()).await.unwrap();
        }
        clients.push((client, view));
    }
    let query: Vec<String> = sports.iter().map(|s| format!("sport={s}")).collect();
    let query = format!("{}&view=all&conflate=raw", query.join("&"));
    let mut sse = SseClient::connect(&address, &query, None).await.unwrap();

    let mut sent = 1;
    for checkpoint in checkpoints {
        let to = checkpoint["line"].as_u64().unwrap() as usize;
        let want = &checkpoint["markets"];
        assert!(!want.as_object().unwrap().is_empty(), "a checkpoint without markets proves nothing");
        let published = AtomicBool::new(false);
        let [(json, _), (msgpack, _), (three, _)] = &mut clients[..] else { panic!("three clients") };
        let publish = async {
            for line in &lines[sent..to.max(sent)] {
                upstream.say(line).await;
            }
            upstream.settle().await;
            published.store(true, Ordering::Release);
        };
        tokio::join!(
            publish,
            until_ws(json, &published, want, View::All),
            until_ws(msgpack, &published, want, View::All),
            until_ws(three, &published, want, View::Three),
            until_sse(&mut sse, &published, want),
        );
        until_document(&address, want).await;
        for (id, want) in want.as_object().unwrap() {
            let book = ingest.book(id).await.unwrap_or_else(|| panic!("{id} is not at ingest"));
            assert_eq!(from_book(&book, View::All), from_oracle(want, View::All), "{id} at ingest");
        }
        sent = to.max(sent);
    }
    let markets = checkpoints.last().unwrap()["markets"].as_object().unwrap().len() as u64;
    let everyone = clients.iter().map(|(c, v)| (&c.followed, *v)).chain([(&sse.followed, View::All)]);
    let mut deltas = Vec::new();
    for (followed, view) in everyone {
        let counts = followed.counts;
        let held = followed.markets().count() as u64;
        assert!(held >= markets, "{name}: {held} markets are held, {markets} were checked");
        assert_eq!(
            counts.snapshots,
            held + counts.gone,
            "{name} view {view:?}: one snapshot a market: {counts:?}"
        );
        assert_eq!(
            (counts.gaps, counts.mismatches, counts.digest_mismatches),
            (0, 0, 0),
            "{name}: {counts:?}"
        );
        assert!(counts.checked >= counts.deltas, "{name}: a checksum after every delta: {counts:?}");
        deltas.push(counts.deltas);
    }
    eprintln!(
        "{name}: {} lines, {} checkpoints, {markets} markets, {deltas:?} deltas by client, {:.1} s",
        lines.len(),
        checkpoints.len(),
        started.elapsed().as_secs_f64()
    );
    drop(sse);
    drop(clients);
    tokio::task::spawn_blocking(|| gateway.stop().unwrap()).await.unwrap();
    ingest.stop().await;
}

fn read(path: &Path) -> (Vec<String>, Vec<Json>) {
    let mut recording = Recording::open(path).unwrap();
    let mut lines = Vec::new();
    while let Some(line) = recording.next_line().unwrap() {
        lines.push(String::from_utf8(line.to_vec()).unwrap().trim_end().to_owned());
    }
    let books = path.to_string_lossy().replace(".mcm.bz2", ".books.json");
    let books: Json = serde_json::from_slice(&std::fs::read(books).unwrap()).unwrap();
    (lines, books["checkpoints"].as_array().unwrap().clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_markets_are_the_same_everywhere() {
    let Some(folder) = std::env::var_os("TICTAC_RECORDINGS").filter(|f| !f.is_empty()) else {
        eprintln!(
            "NOT run on real markets: set TICTAC_RECORDINGS to a folder of *.mcm.bz2 with *.books.json"
        );
        return;
    };
    let mut paths: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().ends_with(".mcm.bz2"))
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "TICTAC_RECORDINGS has no *.mcm.bz2");
    for path in paths {
        let (lines, checkpoints) = read(&path);
        play(&path.file_name().unwrap().to_string_lossy(), &lines, &checkpoints).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn simulated_markets_are_the_same_everywhere() {
    let recording = recording::Recording {
        seed: 5,
        config: Config::default(),
        start_ms: 1_764_000_000_000,
        seconds: 120,
    };
    let (mut lines, mut books) = (Vec::new(), Vec::new());
    recording.write_mcm("simulated", 250, &mut lines, &mut books).unwrap();
    let lines: Vec<String> = String::from_utf8(lines).unwrap().lines().map(str::to_owned).collect();
    let books: Json = serde_json::from_slice(&books).unwrap();
    play("simulated", &lines, books["checkpoints"].as_array().unwrap()).await;
}
