//! Requests that should not be made.

use std::time::Duration;

use tictac_ingest::testing::RedisServer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::document::Row;
use crate::support::chain::gateway;

const WITHIN: Duration = Duration::from_secs(20);

/// One request, as bytes.
pub struct Request {
    pub input: &'static str,
    bytes: Vec<u8>,
    pub wants: Vec<&'static str>,
}

fn get(input: &'static str, path: &str, wants: &[&'static str]) -> Request {
    head(input, &format!("GET {path} HTTP/1.1"), "", wants)
}

fn head(input: &'static str, line: &str, headers: &str, wants: &[&'static str]) -> Request {
    let bytes = format!("{line}\r\nhost: x\r\n{headers}connection: close\r\n\r\n").into_bytes();
    Request { input, bytes, wants: wants.to_vec() }
}

fn upgrade(input: &'static str, change: (&str, &str), wants: &[&'static str]) -> Request {
    let headers = "upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\n\
                   sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\nsec-websocket-protocol: odds.v1.json\r\n";
    let changed = headers.replace(change.0, change.1);
    assert_ne!(headers, changed);
    let bytes = format!("GET /v1/ws HTTP/1.1\r\nhost: x\r\n{changed}\r\n").into_bytes();
    Request { input, bytes, wants: wants.to_vec() }
}

pub fn rows() -> Vec<Request> {
    let long = "x".repeat(65);
    let many: Vec<String> = (0..201).map(|i| format!("market=m{i}")).collect();
    let mut id = head(
        "`Last-Event-ID` that is no text",
        "GET /v1/sse?market=no-such HTTP/1.1",
        "",
        &["200", "`unknown_market`", "no-such"],
    );
    id.bytes = b"GET /v1/sse?market=no-such HTTP/1.1\r\nhost: x\r\nlast-event-id: \xff\xfe\r\n\r\n".to_vec();
    vec![
        get("`GET /v1/markets/no-such`", "/v1/markets/no-such", &["404", "`unknown_market`", "no-such"]),
        get(
            "`GET /v1/markets/good.1?view=2`",
            "/v1/markets/good.1?view=2",
            &["400", "`bad_request`", "view=2"],
        ),
        get(
            "a market's id of 65 bytes",
            &format!("/v1/markets/{long}"),
            &["400", "`bad_request`", "65", "64"],
        ),
        get(
            "`GET /v1/markets?status=ajar`",
            "/v1/markets?status=ajar",
            &["400", "`bad_request`", "status=ajar"],
        ),
        get("`GET /v1/markets?in_play=perhaps`", "/v1/markets?in_play=perhaps", &["400", "in_play=perhaps"]),
        get("`GET /v1/markets?limit=0`", "/v1/markets?limit=0", &["400", "limit=0", "500"]),
        get("`GET /v1/markets?limit=many`", "/v1/markets?limit=many", &["400", "limit=many"]),
        get("`GET /v1/markets?after=no-such`", "/v1/markets?after=no-such", &["400", "no-such"]),
        get("an unknown path, `/v2/markets`", "/v2/markets", &["404", "/v2/markets"]),
        get("`/../../etc/passwd`", "/../../etc/passwd", &["404"]),
        head(
            "`POST /v1/markets`",
            "POST /v1/markets HTTP/1.1",
            "content-length: 0\r\n",
            &["405", "POST", "GET"],
        ),
        head("`DELETE /v1/markets/good.1`", "DELETE /v1/markets/good.1 HTTP/1.1", "", &["405", "DELETE"]),
        head("an unknown method, `BET`", "BET /v1/markets HTTP/1.1", "", &["405", "BET"]),
        Request {
            input: "bytes that are no HTTP",
            bytes: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n".to_vec(),
            wants: vec!["400"],
        },
        head(
            "a head of 20 KB",
            "GET /v1/time HTTP/1.1",
            &format!("x-pad: {}\r\n", "x".repeat(20_000)),
            &["431"],
        ),
        get("`GET /v1/sse` that asks for nothing", "/v1/sse", &["400", "`bad_request`", "market="]),
        get("`GET /v1/sse?market=good.1&view=2`", "/v1/sse?market=good.1&view=2", &["400", "view=2"]),
        get(
            "`GET /v1/sse?market=good.1&conflate=7`",
            "/v1/sse?market=good.1&conflate=7",
            &["400", "conflate=7"],
        ),
        get("`GET /v1/sse` of a market's id of 65 bytes", &format!("/v1/sse?market={long}"), &["400", "64"]),
        get("`GET /v1/sse` of 201 markets", &format!("/v1/sse?{}", many.join("&")), &["400", "201", "200"]),
        get(
            "`GET /v1/sse?market=no-such`",
            "/v1/sse?market=no-such",
            &["200", "`unknown_market`", "no-such"],
        ),
        id,
        get("`GET /v1/ws` that is no upgrade", "/v1/ws", &["400", "`bad_request`", "upgrade", "/v1/sse"]),
        upgrade("WebSocket version 8", ("version: 13", "version: 8"), &["426", "13"]),
        upgrade(
            "a WebSocket key of 3 bytes",
            ("AAAAAAAAAAAAAAAAAAAAAA==", "AAA="),
            &["400", "sec-websocket-key"],
        ),
        upgrade(
            "an unknown subprotocol, `soap`",
            ("odds.v1.json", "soap"),
            &["400", "soap", "odds.v1.msgpack"],
        ),
    ]
}

/// Reads until the end, or until an event stream has said what is wrong.
async fn answer(stream: &mut TcpStream) -> String {
    let mut held = Vec::new();
    let deadline = tokio::time::Instant::now() + WITHIN;
    loop {
        let text = String::from_utf8_lossy(&held);
        if text.contains("event: err") && text.ends_with("\n\n\r\n") {
            return text.into_owned();
        }
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|l| l.strip_prefix("content-length: "));
            if length.is_some_and(|length| length.parse() == Ok(body.len())) {
                return text.into_owned();
            }
        }
        match tokio::time::timeout_at(deadline, stream.read_buf(&mut held)).await {
            Ok(Ok(1..)) => {}
            _ => return String::from_utf8_lossy(&held).into_owned(),
        }
    }
}

/// An answer as the document says it.
fn said(answer: &str) -> String {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
    let status = head.lines().next().unwrap_or("").trim_start_matches("HTTP/1.1 ");
    let event = body.split("event: err\ndata: ").nth(1).map(|rest| rest.split('\n').next().unwrap_or(""));
    let json: serde_json::Value = serde_json::from_str(event.unwrap_or(body)).unwrap_or_default();
    let retry = head.lines().find_map(|l| l.strip_prefix("retry-after: "));
    let retry = retry.map_or(String::new(), |s| format!(", retry-after {s}"));
    let what = match (json["code"].as_str(), json["why"].as_str()) {
        (Some(code), Some(why)) => format!("`{code}`: {why}"),
        _ => body.trim().to_owned(),
    };
    let event = if event.is_some() { ", event `err`" } else { "" };
    let gap = if what.is_empty() { "" } else { ", " };
    format!("{status}{event}{gap}{what}{retry}")
}

impl Request {
    /// What the client gets, as the document says it.
    pub async fn get(&self, address: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // A gateway that refuses before it has read all says so in what is read.
        let _ = stream.write_all(&self.bytes).await;
        said(&answer(&mut stream).await)
    }
}

/// Connections that another gateway has no place for.
pub async fn refusals(server: &RedisServer) -> Vec<Row> {
    let mut rows = Vec::new();
    for (input, settings, wants) in [
        (
            "a connection more than one address may make in a second",
            ["--connects-per-ip", "1"],
            vec!["503", "connects_per_ip", "retry-after"],
        ),
        (
            "a connection to a full gateway",
            ["--max-connections", "0"],
            vec!["503", "max_connections", "retry-after"],
        ),
    ] {
        let (gateway, address) = gateway(server, &settings);
        let mut got = String::new();
        for _ in 0..20 {
            got = get(input, "/v1/time", &[]).get(&address).await;
            if !got.starts_with("200") {
                break;
            }
        }
        rows.push(Row { input, got, wants });
        tokio::task::spawn_blocking(|| gateway.stop().unwrap()).await.unwrap();
    }
    rows
}
