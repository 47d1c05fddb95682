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
use tictac_gateway::wires::Wire;
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
        (&["ws://127.0.0.1:1", "--transport", "sse", "--msgpack"][..], "--transport sse"),
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

/// Runs a scenario against a lively gateway. What it finds must be right; its figures, its page, and what it said.
async fn passes(lively: &Lively, text: &str) -> (Json, String, String) {
    let folder = TempDir::new().unwrap();
    let top =
        format!("url = \"ws://{}\"\nramp = 500\njson = \"f.json\"\nreport = \"p.html\"\n", lively.address);
    std::fs::write(folder.path().join("s.toml"), top + text).unwrap();
    let output = run(folder.path(), &["s.toml"]).await;
    let said = said(&output);
    assert!(output.status.success(), "{said}");
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    let json: Json = serde_json::from_str(&read("f.json")).unwrap();
    assert_eq!(
        (&json["all"]["mistakes"], &json["all"]["connections_lost"]),
        (&0.into(), &0.into()),
        "{said}"
    );
    assert_eq!(json["all"]["ready"], json["all"]["clients"], "{said}");
    assert!(json["documents"]["equal"].as_u64() > Some(0), "{said}");
    (json, read("p.html"), said)
}

fn count(group: &Json, key: &str) -> u64 {
    group[key].as_u64().unwrap_or_else(|| panic!("{key}: {group}"))
}

fn opened(lively: &Lively, wire: Wire) -> u64 {
    let at = Wire::ALL.iter().position(|is| *is == wire).unwrap();
    lively.gateway.as_ref().unwrap().metrics.opened[at].get()
}

const TWO_EACH: &str = "
[[clients]]
name = \"pages\"
codec = \"msgpack\"
count = 20
markets = 2
[[clients]]
name = \"streams\"
transport = \"sse\"
count = 20
markets = 2
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_are_served_as_sockets_are() {
    let lively = lively().await;
    let (json, page, said) = passes(&lively, &format!("seconds = 2\n{TWO_EACH}")).await;
    assert_eq!(opened(&lively, Wire::Sse), 20);
    for group in [&json["groups"][0], &json["groups"][1]] {
        // Both follow half of two hundred changes a second.
        assert!(count(group, "deliveries") > 500 && count(group, "digests") > 20, "{group}");
        assert!(count(group, "snapshots") >= 40 && count(group, "checksums") > 0, "{group}");
        assert_eq!((count(group, "cut"), &group["storm_back_s"]), (0, &Json::Null), "{group}");
    }
    assert!(page.contains("server-sent events"));
    for part in ["markets resumed", "storm, all back"] {
        assert!(!said.contains(part) && !page.contains(part), "nobody was cut: {said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_and_goes_while_it_is_measured_is_right_all_the_time() {
    let lively = lively().await;
    let (json, page, said) = passes(&lively, &format!("seconds = 3\nchurn = 15\n{TWO_EACH}")).await;
    for group in [&json["groups"][0], &json["groups"][1]] {
        let cut = count(group, "cut");
        assert!((10..=45).contains(&cut), "fifteen a second at most: {group}");
        // Some came back with their positions, the others as new clients.
        assert!(count(group, "resumed") > 0 && count(group, "snapshots") > 40, "{group}");
        assert!(count(group, "snapshots") + count(group, "resumed") >= 2 * (20 + cut), "{group}");
        assert_eq!(group["storm_back_s"], Json::Null, "{group}");
    }
    let cut = count(&json["all"], "cut");
    let sessions = opened(&lively, Wire::Sse) + opened(&lively, Wire::WsMsgpack);
    // One more that is looked at closely.
    assert!(sessions > 40 + cut, "{sessions} sessions, {cut} cut");
    for part in ["markets resumed", "15 leave and come back each second"] {
        assert!(page.contains(part), "{part}");
    }
    assert!(said.contains("markets resumed") && !said.contains("storm"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_storm_all_come_back_to_where_they_were() {
    let lively = lively().await;
    let (json, page, said) = passes(&lively, &format!("seconds = 3\nstorm_at = 1\n{TWO_EACH}")).await;
    for group in [&json["groups"][0], &json["groups"][1], &json["all"]] {
        let clients = count(group, "clients");
        assert_eq!(count(group, "cut"), clients, "{group}");
        assert!(count(group, "snapshots") + count(group, "resumed") >= 4 * clients, "{group}");
        assert!(count(group, "resumed") > clients, "not whole books again: {group}");
        let (answered, back) = (group["storm_answered_s"].as_f64(), group["storm_back_s"].as_f64());
        assert!(answered > Some(0.0) && back >= answered, "{group}");
    }
    assert!(opened(&lively, Wire::Sse) == 40, "each twice");
    for part in ["storm, all answered", "storm, all back"] {
        assert!(said.contains(part) && page.contains(part), "{part}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_reads_slowly_gets_less_and_comes_to_the_same_books() {
    let lively = lively().await;
    let text = "seconds = 3
pick = \"hot\"
[[clients]]
name = \"fast\"
count = 5
[[clients]]
name = \"slow\"
count = 5
read = \"2KB/s\"
[[clients]]
name = \"slow streams\"
count = 5
transport = \"sse\"
read = \"2KB/s\"
";
    let (json, page, said) = passes(&lively, text).await;
    let fast = &json["groups"][0];
    for slow in [&json["groups"][1], &json["groups"][2]] {
        let most = 5.0 * 2_000.0 * (slow["measured_s"].as_f64().unwrap() + 0.5);
        assert!(count(slow, "bytes") > 5_000 && count(slow, "bytes") as f64 <= most, "{slow}");
        assert!(count(slow, "deliveries") * 2 < count(fast, "deliveries"), "{slow} {fast}");
        assert!(count(slow, "deliveries") > 0 && count(slow, "digests") > 0, "{slow}");
    }
    // Of each group, one market.
    assert_eq!(json["documents"]["equal"], 3, "{said}");
    assert!(page.contains("each reads 2.00 kB a second"));
}
