//! Bad input: what one gets for it, and that nobody else loses anything. `deploy/BAD_INPUT.md` is written from what is
//! seen here; `TICTAC_BLESS=1` rewrites it, otherwise it must agree.
#![allow(clippy::unwrap_used)]

mod support;

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use support::chain::{IngestProcess, Upstream, gateway};
use support::{SOON, settings};
use tictac_ingest::testing::RedisServer;
use tictac_loadtest::request::get;
use tictac_loadtest::websocket::WsClient;
use tictac_proto::model::{MarketId, SelectionKey, Side, View};
use tictac_proto::wire::{Codec, Conflate, Down, Resume};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

const MARKET: &str = r#"{"op":"market","market":"good","event":"e","sport":"football","status":"open","selections":[{"id":1,"name":"Reds","back":[[2.0,10]]}]}"#;

/// Input to ingest: what it is, the payload as published, the source, and what the answer must name.
fn ingest_cases() -> Vec<(&'static str, Vec<u8>, &'static str, &'static str, &'static str)> {
    let text = |t: &str| t.as_bytes().to_vec();
    let change = |s: &str| text(&format!(r#"{{"op":"change","market":"good","selections":[{s}]}}"#));
    vec![
        ("JSON cut short", text(r#"{"op":"change","market":"go"#), "bad", "syntax", ""),
        ("not JSON at all", text("hello"), "bad", "syntax", ""),
        ("a text where a price belongs", change(r#"{"id":1,"last":"soon"}"#), "feed", "value", "soon"),
        ("NaN", change(r#"{"id":1,"last":NaN}"#), "feed", "syntax", ""),
        ("a negative size", change(r#"{"id":1,"back":[[2.0,-5]]}"#), "feed", "value", "-5"),
        ("a price off the scale", change(r#"{"id":1,"back":[[2.505,5]]}"#), "feed", "value", "2.505"),
        ("an unknown operation", text(r#"{"op":"explode","market":"good"}"#), "feed", "operation", "explode"),
        (
            "an unknown market",
            text(r#"{"op":"change","market":"nowhere","selections":[]}"#),
            "feed",
            "unknown_market",
            "nowhere",
        ),
        ("another source's market", text(MARKET), "bad", "foreign_market", "good"),
        ("a payload of 10 MB", vec![b'['; 10_000_000], "bad", "too_large", ""),
        (
            "an mcm line cut short",
            text(r#"{"op":"mcm","pt":1,"mc":[{"id":"1.5","rc":[{"id"#),
            "bad",
            "syntax",
            "",
        ),
    ]
}

/// Input over WebSocket: what it is, the message, what the answer's code is, and what its text must name.
fn websocket_cases() -> Vec<(&'static str, Message, &'static str, &'static str)> {
    let text = |t: &str| Message::text(t.to_owned());
    vec![
        ("not JSON at all", text("hello"), "bad_message", ""),
        ("JSON cut short", text(r#"{"t":"ping""#), "bad_message", ""),
        ("binary on a JSON connection", Message::binary(vec![0xC1, 0xFF]), "bad_message", ""),
        ("an unknown type", text(r#"{"t":"explode"}"#), "bad_message", "explode"),
        ("a message that goes down", text(r#"{"t":"snap"}"#), "bad_message", "snap"),
        ("a type missing", text(r#"{"id":1}"#), "bad_message", "`t`"),
        ("a fraction", text(r#"{"t":"ping","time":1.5}"#), "bad_message", "1.5"),
        (
            "a number beyond 2^53",
            text(r#"{"t":"ping","time":9007199254740993}"#),
            "bad_message",
            "9007199254740993",
        ),
        ("an unknown view", text(r#"{"t":"sub","id":1,"markets":["good"],"w":7}"#), "bad_message", "view"),
        (
            "an unknown conflation",
            text(r#"{"t":"sub","id":1,"markets":["good"],"w":1,"conflate":7}"#),
            "bad_message",
            "7",
        ),
        ("no market named", text(r#"{"t":"sub","id":1,"markets":[],"w":1}"#), "bad_message", "no market"),
        (
            "an id too long",
            text(&format!(r#"{{"t":"sub","id":1,"markets":["{}"],"w":1}}"#, "x".repeat(65))),
            "bad_message",
            "64",
        ),
        ("nested too deep", text(&format!("{}{}", "[".repeat(50), "]".repeat(50))), "bad_message", "deep"),
        (
            "an unknown market",
            text(r#"{"t":"sub","id":9,"markets":["nowhere"],"w":1}"#),
            "unknown_market",
            "nowhere",
        ),
        (
            "a snapshot of what is not subscribed",
            text(r#"{"t":"snapshot","m":"good","w":10}"#),
            "bad_request",
            "good",
        ),
    ]
}

const HTTP_CASES: &[(&str, &str, u16, &str)] = &[
    ("an unknown market", "/v1/markets/nowhere", 404, "nowhere"),
    ("an unknown view", "/v1/markets/good?view=7", 400, "view=7"),
    ("an unknown status", "/v1/markets?status=happy", 400, "happy"),
    ("a page too large", "/v1/markets?limit=100000", 400, "500"),
    ("a stream of nothing", "/v1/sse", 400, "nothing is asked for"),
    ("a stream with an unknown view", "/v1/sse?market=good&view=7", 400, "view=7"),
    ("a WebSocket address without an upgrade", "/v1/ws", 400, "upgrade"),
    ("an unknown page", "/nowhere", 404, "/nowhere"),
];

/// A raw WebSocket, for what no client library would send.
async fn raw(address: &str, frame: &[u8]) -> u16 {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "GET /v1/ws HTTP/1.1\r\nhost: {address}\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    while !answer.windows(4).any(|w| w == b"\r\n\r\n") {
        let n = stream.read(&mut buffer).await.unwrap();
        assert!(n > 0, "the upgrade was refused");
        answer.extend_from_slice(&buffer[..n]);
    }
    stream.write_all(frame).await.unwrap();
    let read = tokio::time::timeout(SOON, async {
        while let Ok(n @ 1..) = stream.read(&mut buffer).await {
            answer.extend_from_slice(&buffer[..n]);
        }
    });
    read.await.expect("the connection is closed");
    // The close frame is the last one: 0x88, its length, the code.
    let at = answer.iter().rposition(|b| *b == 0x88).expect("a close frame");
    u16::from_be_bytes([answer[at + 2], answer[at + 3]])
}

fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first, 0x80 | 126];
    frame.extend_from_slice(&(payload.len() as u16).to_be_bytes());
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}

async fn problem(client: &mut WsClient) -> tictac_proto::wire::Problem {
    let deadline = tokio::time::Instant::now() + SOON;
    loop {
        match tokio::time::timeout_at(deadline, client.step()).await.expect("a refusal").unwrap() {
            Some(Down::Err(problem)) => return problem,
            Some(_) => {}
            None => panic!("closed with {:?}", client.closed),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_input_is_named_and_costs_nobody_else_anything() {
    let server = RedisServer::start().unwrap();
    let ingest = IngestProcess::start(&server);
    let (gateway, address) = gateway(&server, &["--messages", "1000"]);
    let mut source = Upstream::new(&server, "feed").await;
    source.say(MARKET).await;
    source.settle().await;
    let market: MarketId = "good".into();
    let mut healthy = WsClient::connect(&address, Codec::Json, "").await.unwrap();
    healthy.subscribe(&[market], View::All, Conflate::Raw, Resume::default()).await.unwrap();
    healthy.until(SOON, "the book", |f| f.counts.snapshots == 1).await.unwrap();
    let mut document = String::from(
        "# Bad input: what one gets\n\nWritten by `loadtest/tests/bad_input.rs` from what it sees (`TICTAC_BLESS=1`). While all of this \
         happens, a client beside it keeps a right and live book.\n\n## To ingest, over Redis\n\nCounted by kind and source in \
         `tictac_ingest_problems_total`, logged, and the last hundred listed at `/problems` of the admin port with place, reason and \
         excerpt.\n\n| input | kind | said |\n|---|---|---|\n",
    );
    let client = redis::Client::open(server.url()).unwrap();
    let mut publish = client.get_multiplexed_async_connection().await.unwrap();
    for (what, payload, source, kind, names) in ingest_cases() {
        let before = ingest.problems().await.len();
        let channel = format!("odds:in:{source}");
        let heard: i64 =
            redis::cmd("PUBLISH").arg(channel).arg(payload).query_async(&mut publish).await.unwrap();
        assert!(heard > 0);
        let deadline = Instant::now() + SOON;
        let problem = loop {
            let problems = ingest.problems().await;
            if let Some(problem) = problems[before.min(problems.len())..].first() {
                break problem.clone();
            }
            assert!(Instant::now() < deadline, "{what}: nobody complained");
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        assert_eq!(problem.kind.label(), kind, "{what}: {problem}");
        assert!(problem.to_string().contains(names), "{what}: {problem} does not name {names}");
        let _ = writeln!(document, "| {what} | `{kind}` | at `{}`: {} |", problem.at, cell(&problem.why));
    }

    document.push_str("\n## To the gateway, over WebSocket\n\n| input | code | said |\n|---|---|---|\n");
    let mut bad = WsClient::connect(&address, Codec::Json, "").await.unwrap();
    for (what, message, code, names) in websocket_cases() {
        bad.send_raw(message).await.unwrap();
        let problem = problem(&mut bad).await;
        assert_eq!(problem.code.name(), code, "{what}: {problem:?}");
        assert!(problem.why.contains(names), "{what}: {} does not name {names}", problem.why);
        let _ = writeln!(document, "| {what} | `{code}` | {} |", cell(&problem.why));
        // Good messages in between: only a run of bad ones is closed.
        bad.ping().await.unwrap();
    }
    let limit = settings(&[]).message_bytes as usize;
    for (what, frame, close) in [
        ("a frame that is not masked", vec![0x81, 0x02, b'h', b'i'], 1002),
        ("text that is not UTF-8", masked(0x81, &[0xFF, 0xFE]), 1007),
        ("a message above the limit", masked(0x82, &vec![0; limit + 1]), 4413),
        ("a reserved operation code", masked(0x83, b"x"), 1002),
    ] {
        assert_eq!(raw(&address, &frame).await, close, "{what}");
        let _ = writeln!(document, "| {what} | closed with {close} | |");
    }
    let mut flood = WsClient::connect(&address, Codec::Msgpack, "").await.unwrap();
    let closed = async {
        while flood.step().await.is_ok_and(|m| m.is_some()) {
            for _ in 0..200 {
                if flood.ping().await.is_err() {
                    break;
                }
            }
        }
    };
    tokio::time::timeout(SOON, closed).await.expect("a flood is closed");
    assert!(matches!(flood.closed, None | Some(4429)), "{:?}", flood.closed);
    assert!(flood.followed.counts.errors > 0, "told before it is closed");
    document.push_str("| a flood of messages | `rate_limited`, then closed with 4429 | |\n");

    document.push_str("\n## To the gateway, over HTTP\n\n| input | status | said |\n|---|---|---|\n");
    for (what, path, status, names) in HTTP_CASES {
        let answer = get(&address, path, &[]).await.unwrap();
        assert_eq!(answer.status, *status, "{what}: {}", answer.body);
        assert!(answer.body.contains(names), "{what}: {} does not name {names}", answer.body);
        let said =
            answer.json().ok().and_then(|j| j["why"].as_str().map(str::to_owned)).unwrap_or(answer.body);
        let _ = writeln!(document, "| {what}: `{path}` | {status} | {} |", cell(&said));
    }

    // The healthy one: its book still moves, and is right.
    source.say(r#"{"op":"change","market":"good","selections":[{"id":1,"back":[[2.02,7]]}]}"#).await;
    let moved = |f: &tictac_loadtest::follow::Followed| {
        let book = f.market("good", View::All).and_then(|m| m.book());
        book.and_then(|b| b.selections.get(&SelectionKey { id: 1, handicap: 0 }))
            .is_some_and(|s| s.ladder(Side::Back).size(202) == 700 && s.ladder(Side::Back).size(200) == 1000)
    };
    healthy.until(SOON, "the change after it all", moved).await.unwrap();
    let counts = healthy.followed.counts;
    assert_eq!((counts.gaps, counts.mismatches, counts.snapshots, counts.errors), (0, 0, 1, 0), "{counts:?}");

    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/BAD_INPUT.md");
    if std::env::var_os("TICTAC_BLESS").is_some() {
        std::fs::write(&path, &document).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == document,
        "deploy/BAD_INPUT.md is not what was seen; TICTAC_BLESS=1 rewrites it\n{document}"
    );
    drop((healthy, bad, flood));
    tokio::task::spawn_blocking(|| gateway.stop().unwrap()).await.unwrap();
    ingest.stop().await;
}

/// A text as a table's cell.
fn cell(text: &str) -> String {
    text.trim().replace('|', "\\|").replace('\n', " ")
}
