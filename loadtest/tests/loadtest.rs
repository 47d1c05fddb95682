//! The tester as people run it: the built program against a gateway, by a scenario. It says that all is right where it is, with
//! figures for programs and a page for people, and fails where a byte on the way is another.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;
use std::process::Output;
use std::time::Duration;

use serde_json::Value as Json;
use support::{Publisher, book, level, memory, start, status};
use tempfile::TempDir;
use tictac_gateway::gateway::Gateway;
use tictac_proto::model::{MarketStatus, Side};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// How long a run of a few seconds may take on a machine that is busy with others.
const WITHIN: Duration = Duration::from_secs(90);
const MARKETS: [&str; 4] = ["1.1", "1.2", "1.3", "1.4"];

/// A gateway whose markets change all the time, until it is dropped.
struct Lively {
    gateway: Option<Gateway>,
    address: String,
    end: CancellationToken,
}

impl Drop for Lively {
    fn drop(&mut self) {
        self.end.cancel();
        if let Some(gateway) = self.gateway.take() {
            gateway.stop().unwrap();
        }
    }
}

async fn lively() -> Lively {
    let log = memory();
    let mut publisher = Publisher::new(log.clone()).await;
    for (number, market) in MARKETS.iter().enumerate() {
        publisher.image(market, book(&format!("e{}", number / 2), "football")).await;
    }
    let (gateway, address) = start(log, &["--connects-per-ip", "100000", "--cores", "1"]);
    let end = CancellationToken::new();
    let ended = end.clone();
    tokio::spawn(async move {
        let mut pause = tokio::time::interval(Duration::from_millis(5));
        for turn in 0_i64.. {
            tokio::select! {
                _ = pause.tick() => {}
                () = ended.cancelled() => break,
            }
            let market = MARKETS[usize::try_from(turn).unwrap() % MARKETS.len()];
            match turn % 200 {
                150 => {
                    publisher.stop(&[market]).await;
                    publisher.change(market, status(MarketStatus::Suspended)).await;
                }
                170 => {
                    for market in MARKETS {
                        publisher.change(market, status(MarketStatus::Open)).await;
                    }
                }
                _ => publisher.change(market, level(1, Side::Back, 190 + turn % 10, 500 + turn)).await,
            }
            if turn % 40 == 0 {
                publisher.alive().await;
            }
        }
    });
    Lively { gateway: Some(gateway), address, end }
}

async fn run(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_tictac-loadtest"));
    command.current_dir(folder).args(arguments).kill_on_drop(true);
    tokio::time::timeout(WITHIN, command.output()).await.expect("it does not end").unwrap()
}

fn said(output: &Output) -> String {
    format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn scenario(folder: &TempDir, address: &str) {
    let text = format!(
        r#"
url = "ws://{address}"
seconds = 3
ramp = 500
json = "figures.json"
report = "page.html"

[[clients]]
name = "crowd"
count = 40
pick = "zipf"
markets = 2
view = 3

[[clients]]
name = "desk"
count = 10
codec = "msgpack"
pick = "event"
"#
    );
    std::fs::write(folder.path().join("evening.toml"), text).unwrap();
}

/// Every key of a document, wherever it stands.
fn keys(json: &Json, into: &mut std::collections::BTreeSet<String>) {
    match json {
        Json::Object(fields) => {
            for (key, value) in fields {
                into.insert(key.clone());
                keys(value, into);
            }
        }
        Json::Array(items) => items.iter().for_each(|item| keys(item, into)),
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scenario_passes_with_figures_and_a_page() {
    let lively = lively().await;
    let folder = TempDir::new().unwrap();
    scenario(&folder, &lively.address);
    let output = run(folder.path(), &["evening.toml"]).await;
    let said = said(&output);
    assert!(output.status.success(), "{said}");
    for part in ["PASSED", "every book is right", "crowd", "desk", "latency p99.9", "gaps, undeclared"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!said.contains('\x1b'), "nothing is painted where nobody looks: {said}");

    let text = std::fs::read_to_string(folder.path().join("figures.json")).unwrap();
    let json: Json = serde_json::from_str(&text).unwrap();
    assert_eq!((&json["passed"], &json["name"]), (&true.into(), &"evening".into()), "{text}");
    assert_eq!(json["groups"].as_array().map(Vec::len), Some(2));
    assert_eq!((&json["all"]["clients"], &json["all"]["ready"]), (&50.into(), &50.into()));
    assert_eq!(json["points"].as_array().map(Vec::len), Some(3));
    assert_eq!(json["latency_from"], "reference");
    assert!(json["all"]["deliveries"].as_u64() > Some(1_000), "{text}");
    assert!(json["all"]["digests"].as_u64() > Some(50), "{text}");
    assert!(json["all"]["checksums"].as_u64() > Some(50), "{text}");
    assert!(json["documents"]["equal"].as_u64() >= Some(4), "{text}");
    assert!(json["reference"]["stops"].as_u64() > Some(0), "{text}");
    assert!(json["reference"]["latency"]["p99_ms"].as_f64().is_some(), "{text}");
    let documented = include_str!("../README.md");
    let mut all = std::collections::BTreeSet::new();
    keys(&json, &mut all);
    for key in all {
        assert!(documented.contains(&format!("`{key}`")), "{key} is not documented");
    }

    let page = std::fs::read_to_string(folder.path().join("page.html")).unwrap();
    assert_eq!(page.matches("<svg").count(), 3, "latency, deliveries and p99 over time");
    assert_eq!(page.matches("class=\"curve\"").count(), 3);
    assert!(page.contains("PASSED") && page.contains("crowd") && page.contains("Zipf"));
}

#[tokio::test]
async fn who_is_not_there_or_can_t_be_used_is_named() {
    let folder = TempDir::new().unwrap();
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let output = run(folder.path(), &[&format!("ws://{free}")]).await;
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains(&free.to_string()), "{}", said(&output));
    for (arguments, part) in [
        (&["ws://127.0.0.1:1", "--transport", "sse"][..], "--transport sse"),
        (&["nowhere.toml"], "nowhere.toml"),
        (&[], "ws://host:port"),
    ] {
        let output = run(folder.path(), arguments).await;
        assert_eq!(output.status.code(), Some(64), "{}", said(&output));
        assert!(said(&output).contains(part), "{}", said(&output));
    }
}

/// Passes everything on, but for what `spoil` changes of what comes from the gateway: a document, or a WebSocket's frames.
async fn spoiling(gateway: String, spoil: fn(&mut [u8], bool)) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let gateway = gateway.clone();
            tokio::spawn(async move {
                let Ok(server) = TcpStream::connect(gateway).await else { return };
                let (mut from_client, mut to_client) = client.into_split();
                let (mut from_server, mut to_server) = server.into_split();
                // Each ends when one side closes.
                tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
                let (mut buffer, mut is_document) = (vec![0; 64 * 1024], false);
                while let Ok(count @ 1..) = from_server.read(&mut buffer).await {
                    is_document |= buffer.starts_with(b"HTTP/1.1 200");
                    spoil(&mut buffer[..count], is_document);
                    if to_client.write_all(&buffer[..count]).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    address
}

fn find(bytes: &[u8], what: &str) -> Option<usize> {
    bytes.windows(what.len()).position(|part| part == what.as_bytes())
}

/// Another last digit for every checksum of a whole message.
fn other_checksums(bytes: &mut [u8], _: bool) {
    let mut from = 0;
    while let Some(at) = find(&bytes[from..], "\"t\":\"crc\"") {
        from += at + 1;
        let Some(end) = bytes[from..].iter().position(|byte| *byte == b'}') else { return };
        let Some(key) = find(&bytes[from..from + end], "\"c\":") else { continue };
        let digits = from + key + 4;
        let count = bytes[digits..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let last = &mut bytes[digits + count - 1];
        *last = if *last == b'9' { b'8' } else { *last + 1 };
    }
}

/// Another document, of the same length.
fn other_documents(bytes: &mut [u8], is_document: bool) {
    if is_document {
        in_play(bytes);
    }
}

/// Another book, of the same length.
fn other_books(bytes: &mut [u8], is_document: bool) {
    if !is_document {
        in_play(bytes);
    }
}

/// No document, though the clients follow its market.
fn no_documents(bytes: &mut [u8], is_document: bool) {
    if is_document && bytes.starts_with(b"HTTP/1.1 200") {
        bytes[9..12].copy_from_slice(b"404");
    }
}

fn in_play(bytes: &mut [u8]) {
    while let Some(at) = find(bytes, "\"in_play\":false") {
        bytes[at..at + 15].copy_from_slice(b"\"in_play\":true ");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_on_the_way_fails_the_run() {
    let lively = lively().await;
    for (spoil, part) in [
        (other_checksums as fn(&mut [u8], bool), "the gateway says"),
        (other_books, "the gateway says"),
        (no_documents, "were not told that it is gone"),
        (other_documents, "books were not found to be those of GET /v1/markets/{id}"),
    ] {
        let address = spoiling(lively.address.clone(), spoil).await;
        let folder = TempDir::new().unwrap();
        let url = format!("ws://{address}");
        let arguments = [
            &url,
            "--clients",
            "5",
            "--ramp",
            "100",
            "--seconds",
            "2",
            "--json",
            "f.json",
            "--report",
            "p.html",
        ];
        let output = run(folder.path(), &arguments).await;
        let said = said(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("FAILED") && said.contains(part), "{said}");
        let text = std::fs::read_to_string(folder.path().join("f.json")).unwrap();
        let json: Json = serde_json::from_str(&text).unwrap();
        assert_eq!(json["passed"], false, "{text}");
        assert!(json["problems"].as_array().is_some_and(|problems| !problems.is_empty()), "{text}");
        let page = std::fs::read_to_string(folder.path().join("p.html")).unwrap();
        assert!(page.contains("FAILED") && page.contains("What was wrong"));
    }
}

/// Passes everything on, but what one of the clients is sent once it has its books.
async fn withholding(gateway: String, from: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let mut number = 0;
        while let Ok((client, _)) = listener.accept().await {
            let (gateway, is_held_up) = (gateway.clone(), number == from);
            number += 1;
            tokio::spawn(async move {
                let Ok(server) = TcpStream::connect(gateway).await else { return };
                let (mut from_client, mut to_client) = client.into_split();
                let (mut from_server, mut to_server) = server.into_split();
                // Each ends when one side closes.
                tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
                let (mut buffer, begun) = (vec![0; 64 * 1024], std::time::Instant::now());
                while let Ok(count @ 1..) = from_server.read(&mut buffer).await {
                    if is_held_up && begun.elapsed() > Duration::from_secs(1) {
                        continue;
                    }
                    if to_client.write_all(&buffer[..count]).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_client_that_is_not_served_fails_the_run() {
    let lively = lively().await;
    // The first connection asks for the catalogue, then the clients come.
    let address = withholding(lively.address.clone(), 3).await;
    let folder = TempDir::new().unwrap();
    let url = format!("ws://{address}");
    let output = run(folder.path(), &[&url, "--clients", "5", "--ramp", "100", "--seconds", "3"]).await;
    let said = said(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("FAILED") && said.contains("client 2 "), "{said}");
}
