//! A gateway over real sockets, driven entry by entry.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use support::{Publisher, SOON, book, level, memory, start, status};
use tictac_gateway::wires::Wire;
use tictac_loadtest::fleet::frames;
use tictac_loadtest::request::get;
use tictac_loadtest::stream::SseClient;
use tictac_loadtest::websocket::WsClient;
use tictac_proto::model::{MarketId, MarketStatus, Side, View};
use tictac_proto::wire::{Codec, Conflate, Down, Resume, Scope};

#[tokio::test]
async fn a_change_reaches_every_view_and_codec_and_is_checked() {
    let log = memory();
    let mut publisher = Publisher::new(log.clone()).await;
    publisher.image("1.1", book("e1", "football")).await;
    let (gateway, address) = start(log, &[]);
    let market: MarketId = "1.1".into();
    let mut clients = Vec::new();
    for codec in Codec::ALL {
        for view in View::ALL {
            let mut client = WsClient::connect(&address, codec, "").await.unwrap();
            client
                .subscribe(std::slice::from_ref(&market), view, Conflate::Raw, Resume::default())
                .await
                .unwrap();
            publisher.alive().await;
            client.until(SOON, "a snapshot", |f| f.counts.snapshots == 1).await.unwrap();
            clients.push((view, client));
        }
    }
    for i in 0..30 {
        publisher.change("1.1", level(1, Side::Back, 180 + i, i % 3 * 100)).await;
    }
    publisher.stop(&["1.1"]).await;
    publisher.change("1.1", status(MarketStatus::Open)).await;
    publisher.alive().await;
    let at = publisher.position("1.1");
    for (view, client) in &mut clients {
        client.until(SOON, "the last change", |f| f.position("1.1", *view) == Some(at)).await.unwrap();
        let held = client.followed.market("1.1", *view).unwrap();
        assert_eq!(held.book().unwrap(), &view.project(publisher.book("1.1")));
        assert!(held.tradable_market(), "open again, beyond the stop");
        let counts = client.followed.counts;
        assert_eq!((counts.gaps, counts.mismatches, counts.digest_mismatches), (0, 0, 0), "{counts:?}");
        assert_eq!(counts.stops, 1);
        assert_eq!(counts.snapshots, 1);
        client.until(SOON, "a checksum", |f| f.counts.checked >= 2).await.unwrap();
        client.ping().await.unwrap();
        let before = client.followed.counts.digests;
        client.until(SOON, "a digest", |f| f.counts.digests > before).await.unwrap();
    }
    gateway.stop().unwrap();
}

#[tokio::test]
async fn a_stop_is_told_before_the_prices_that_precede_it() {
    let log = memory();
    let mut publisher = Publisher::new(log.clone()).await;
    publisher.image("1.1", book("e1", "football")).await;
    publisher.image("1.2", book("e1", "football")).await;
    let (gateway, address) = start(log, &[]);
    let mut client = WsClient::connect(&address, Codec::Json, "").await.unwrap();
    client
        .subscribe_scope(Scope::Event("e1".into()), View::Three, Conflate::Every(1000), Resume::default())
        .await
        .unwrap();
    client.until(SOON, "both snapshots", |f| f.counts.snapshots == 2).await.unwrap();
    // One delta goes out and starts the interval; what follows waits for its end, but the stop does not.
    publisher.change("1.1", level(1, Side::Back, 199, 7)).await;
    client.until(SOON, "the first delta", |f| f.counts.deltas == 1).await.unwrap();
    publisher.change("1.1", level(1, Side::Back, 199, 8)).await;
    publisher.stop(&["1.1", "1.2"]).await;
    let mut order = Vec::new();
    while order.len() < 2 {
        match client.step().await.unwrap().unwrap() {
            Down::Stop { market, .. } => {
                order.push(market.to_string());
                let held = client.followed.market(&market, View::Three).unwrap();
                assert!(!held.tradable_market(), "not tradable from the stop on");
            }
            Down::Delta(head, _) => {
                assert!(order.contains(&head.market.to_string()), "a price came before its stop")
            }
            _ => {}
        }
    }
    gateway.stop().unwrap();
}

#[tokio::test]
async fn sse_resumes_where_it_left_and_documents_agree() {
    let log = memory();
    let mut publisher = Publisher::new(log.clone()).await;
    publisher.image("1.1", book("e1", "football")).await;
    let (gateway, address) = start(log, &[]);
    let mut client = SseClient::connect(&address, "market=1.1&view=all&conflate=raw", None).await.unwrap();
    while client.followed.counts.snapshots == 0 {
        client.step().await.unwrap().unwrap();
    }
    publisher.alive().await;
    publisher.change("1.1", level(2, Side::Lay, 210, 5)).await;
    let at = publisher.position("1.1");
    while client.followed.position("1.1", View::All) != Some(at)
        || client.last_event_id.as_deref().is_none_or(|i| i.len() < 3)
    {
        client.step().await.unwrap().unwrap();
    }
    assert!(client.retry.is_some_and(|r| (1000..=5000).contains(&r)));
    // The id of a heartbeat that follows the last change.
    let beats = client.followed.counts.digests;
    while client.followed.counts.digests < beats + 2 {
        publisher.alive().await;
        client.step().await.unwrap().unwrap();
    }
    let id = client.last_event_id.clone().unwrap();
    drop(client);
    publisher.change("1.1", level(2, Side::Lay, 211, 6)).await;
    let mut back = SseClient::connect(&address, "market=1.1&view=all", Some(&id)).await.unwrap();
    let delta = loop {
        match back.step().await.unwrap().unwrap() {
            Down::Delta(head, _) => break head,
            Down::Snap(..) => panic!("a snapshot where a delta does"),
            _ => {}
        }
    };
    assert_eq!((delta.prev, delta.seq), (at.seq, publisher.position("1.1").seq));

    let document = get(&address, "/v1/markets/1.1?view=3", &[]).await.unwrap();
    assert_eq!(document.status, 200, "{}", document.body);
    let json = document.json().unwrap();
    assert_eq!(json["seq"], publisher.position("1.1").seq);
    assert_eq!(json["selections"][0]["back"][0], serde_json::json!([199, 1009]));
    assert_eq!(json["selections"][0]["back"].as_array().unwrap().len(), 3);
    assert!(json["selections"][0].get("traded").is_none());
    assert!(document.header("x-fresh-ms").is_some());
    let tag = format!("if-none-match: {}", document.header("etag").unwrap());
    assert_eq!(get(&address, "/v1/markets/1.1?view=3", &[&tag]).await.unwrap().status, 304);
    let missing = get(&address, "/v1/markets/9.9", &[]).await.unwrap();
    assert_eq!((missing.status, missing.json().unwrap()["code"].as_str()), (404, Some("unknown_market")));
    let list = get(&address, "/v1/markets?sport=football", &[]).await.unwrap().json().unwrap();
    assert_eq!((list["total"].as_u64(), list["markets"][0]["id"].as_str()), (Some(1), Some("1.1")));
    gateway.stop().unwrap();
}

#[tokio::test]
async fn a_client_that_falls_silent_costs_its_core_nothing() {
    let log = memory();
    let mut publisher = Publisher::new(log.clone()).await;
    publisher.image("1.1", book("e1", "football")).await;
    let (gateway, address) = start(log, &["--cores", "1", "--heartbeat-ms", "500"]);
    let market: MarketId = "1.1".into();
    // It has a change waiting for its interval when its silence pauses it.
    let mut silent = WsClient::connect(&address, Codec::Json, "").await.unwrap();
    silent
        .subscribe(std::slice::from_ref(&market), View::All, Conflate::Every(1000), Resume::default())
        .await
        .unwrap();
    silent.until(SOON, "a snapshot", |f| f.counts.snapshots == 1).await.unwrap();
    let mut healthy = WsClient::connect(&address, Codec::Json, "").await.unwrap();
    healthy
        .subscribe(std::slice::from_ref(&market), View::All, Conflate::Raw, Resume::default())
        .await
        .unwrap();
    healthy.until(SOON, "a snapshot", |f| f.counts.snapshots == 1).await.unwrap();
    for i in 0..8 {
        publisher.change("1.1", level(1, Side::Back, 150 + i, 100)).await;
        publisher.alive().await;
        let beats = healthy.followed.counts.digests;
        healthy.until(SOON, "a heartbeat", |f| f.counts.digests > beats).await.unwrap();
    }
    let at = publisher.position("1.1");
    healthy.until(SOON, "every change", |f| f.position("1.1", View::All) == Some(at)).await.unwrap();
    // Heard again, it is served again.
    silent.ping().await.unwrap();
    silent.until(SOON, "the newest state", |f| f.position("1.1", View::All) == Some(at)).await.unwrap();
    assert_eq!(silent.followed.counts.gaps, 0);
    gateway.stop().unwrap();
}

/// A slow phone's pings arrive on time, while what it is sent waits in buffers that hold minutes of it.
#[tokio::test]
async fn who_pings_and_reads_nothing_is_sent_no_more_prices() {
    let log = memory();
    let mut publisher = Publisher::new(log.clone()).await;
    publisher.image("1.1", book("e1", "football")).await;
    let (gateway, address) = start(log, &["--cores", "1", "--heartbeat-ms", "500"]);
    let market: MarketId = "1.1".into();
    let mut clients = Vec::new();
    for conflate in [Conflate::Raw, Conflate::Auto] {
        let mut client = WsClient::connect(&address, Codec::Json, "").await.unwrap();
        client
            .subscribe(std::slice::from_ref(&market), View::All, conflate, Resume::default())
            .await
            .unwrap();
        client.until(SOON, "a snapshot", |f| f.counts.snapshots == 1).await.unwrap();
        clients.push(client);
    }
    let (mut slow, mut healthy) = (clients.pop().unwrap(), clients.pop().unwrap());
    let (begun, mut size) = (Instant::now(), 0);
    let mut after_pause = 0;
    let mut paused_at = publisher.position("1.1");
    // More than a client that is told as fast as it reads is sent one by one.
    while after_pause < 6 {
        assert!(begun.elapsed() < SOON, "prices pause");
        size += 1;
        publisher.change("1.1", level(1, Side::Back, 150, size)).await;
        publisher.alive().await;
        slow.ping().await.unwrap();
        let beats = healthy.followed.counts.digests;
        healthy.until(SOON, "a heartbeat", |f| f.counts.digests > beats).await.unwrap();
        match gateway.metrics.paused.get() {
            0 => paused_at = publisher.position("1.1"),
            1 => after_pause += 1,
            many => panic!("{many} sessions pause"),
        }
    }
    assert!(begun.elapsed() > Duration::from_millis(2_500), "not before five intervals");
    let newest = publisher.position("1.1");
    healthy.until(SOON, "every change", |f| f.position("1.1", View::All) == Some(newest)).await.unwrap();
    let all = healthy.followed.counts.deltas;
    assert_eq!(all, size as u64, "nobody else waits");
    drop(healthy);
    // Now it reads what waited, says so, and is told the rest in one.
    let (mut last, mut echoes) = (None, 0);
    while slow.followed.position("1.1", View::All) != Some(newest) {
        assert!(begun.elapsed() < SOON + SOON, "it catches up");
        match slow.step().await.unwrap() {
            Some(Down::Delta(head, _)) => last = Some((head.prev, head.seq)),
            Some(Down::Hb(heartbeat)) => echoes += i64::from(heartbeat.echo.is_some()),
            _ => {}
        }
    }
    let (prev, at) = last.unwrap();
    assert!(prev <= paused_at.seq + 1 && at == newest.seq, "{prev} to {at}, paused at {paused_at}");
    assert!(echoes < size, "what it held was called fresh: {echoes} of {size} pings were echoed");
    assert_eq!(slow.followed.counts.gaps, 0);
    assert!(slow.followed.counts.deltas + 3 <= all, "{:?}", slow.followed.counts);
    let beats = slow.followed.counts.digests;
    slow.until(SOON, "a digest that agrees", |f| f.counts.digests > beats + 1).await.unwrap();
    assert_eq!((slow.followed.counts.digest_mismatches, gateway.metrics.paused.get()), (0, 0));
    gateway.stop().unwrap();
}

#[tokio::test]
async fn who_pings_and_never_reads_is_closed_as_slow() {
    let log = memory();
    let mut publisher = Publisher::new(log.clone()).await;
    publisher.image("1.1", book("e1", "football")).await;
    let (gateway, address) = start(log, &["--cores", "1", "--heartbeat-ms", "500", "--slow-ms", "1000"]);
    let mut slow = WsClient::connect(&address, Codec::Json, "").await.unwrap();
    let mut healthy = WsClient::connect(&address, Codec::Json, "").await.unwrap();
    let (begun, slow_closed) = (Instant::now(), || gateway.metrics.closed.with_label_values(&["4290"]).get());
    while slow_closed() == 0 {
        assert!(begun.elapsed() < SOON, "it is closed");
        slow.ping().await.unwrap();
        healthy.ping().await.unwrap();
        let beats = healthy.followed.counts.digests;
        healthy.until(SOON, "a heartbeat", |f| f.counts.digests > beats).await.unwrap();
    }
    assert!(begun.elapsed() > Duration::from_millis(3_500), "not before five intervals and a second");
    while slow.step().await.unwrap().is_some() {}
    assert_eq!(slow.closed, Some(4290));
    healthy.ping().await.unwrap();
    let beats = healthy.followed.counts.digests;
    healthy.until(SOON, "a heartbeat", |f| f.counts.digests > beats).await.unwrap();
    gateway.stop().unwrap();
}

/// What a client says while it is told to go must not turn the goodbye into a reset.
#[tokio::test]
async fn the_goodbye_arrives_though_the_client_is_talking() {
    let log = memory();
    let mut publisher = Publisher::new(log.clone()).await;
    publisher.image("1.1", book("e1", "football")).await;
    let (gateway, address) = start(log, &["--messages", "10000"]);
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(WsClient::connect(&address, Codec::Json, "").await.unwrap());
    }
    let stopped = tokio::task::spawn_blocking(move || gateway.stop());
    for _ in 0..50 {
        for client in &mut clients {
            // Where the gateway has closed already this is what it throws away.
            let _ = client.ping().await;
        }
    }
    for (at, client) in clients.iter_mut().enumerate() {
        loop {
            match client.step().await {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(error) => panic!("client {at}, closed {:?}: {error}", client.closed),
            }
        }
        assert_eq!(client.closed, Some(1012));
    }
    drop(clients);
    tokio::time::timeout(SOON, stopped).await.expect("it ends").unwrap().unwrap();
}

/// A browser may ask for a stream over a connection that it had asked for something else before. What was answered goes out
/// first, also where it waits for room.
#[tokio::test]
async fn a_stream_follows_what_was_asked_before_it_over_the_same_connection() {
    let log = memory();
    let mut publisher = Publisher::new(log.clone()).await;
    publisher.image("1.1", book("e1", "football")).await;
    let (gateway, address) = start(log, &["--send-buffer=4096"]);
    // With some of these, answers wait in the gateway when it reads of the stream.
    for documents in (0..60).step_by(6) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(2_048).unwrap();
        let mut socket = socket.connect(address.parse().unwrap()).await.unwrap();
        let mut asked = "GET /v1/markets HTTP/1.1\r\nhost: x\r\n\r\n".repeat(documents);
        asked.push_str("GET /v1/sse?market=1.1 HTTP/1.1\r\nhost: x\r\n\r\n");
        socket.write_all(asked.as_bytes()).await.unwrap();
        // Nothing is read until the stream has begun, which it must not while answers wait: then after a moment.
        let streams = gateway.metrics.opened[Wire::Sse as usize].get() + 1;
        let begun = Instant::now();
        while gateway.metrics.opened[Wire::Sse as usize].get() < streams
            && begun.elapsed() < Duration::from_millis(50)
        {
            tokio::task::yield_now().await;
        }
        let mut text = Vec::new();
        let snapshot = async {
            while !text.windows(11).any(|some| some == b"event: snap") {
                assert!(socket.read_buf(&mut text).await.unwrap() > 0, "it ended");
            }
        };
        tokio::time::timeout(SOON, snapshot).await.expect("a snapshot");
        let text = String::from_utf8(text).unwrap();
        let heads: Vec<usize> = text.match_indices("HTTP/1.1 200 OK\r\n").map(|(at, _)| at).collect();
        assert_eq!(heads.len(), documents + 1);
        let (before, stream) = text.split_at(heads[documents]);
        assert_eq!(before.matches("\"markets\"").count(), documents, "each with its body");
        assert!(stream.contains("content-type: text/event-stream\r\n") && !before.contains("event: "));
        let order = ["retry: ", "event: welcome", "event: snap"].map(|part| stream.find(part));
        assert!(order.is_sorted() && order[0].is_some(), "{order:?}");
    }
    gateway.stop().unwrap();
}

/// A client that knows what it wants need not wait for the answer to its upgrade.
#[tokio::test]
async fn what_is_said_right_after_an_upgrade_is_heard() {
    let log = memory();
    let mut publisher = Publisher::new(log.clone()).await;
    publisher.image("1.1", book("e1", "football")).await;
    let (gateway, address) = start(log, &[]);
    let mut socket = TcpStream::connect(&address).await.unwrap();
    let mut request = b"GET /v1/ws HTTP/1.1\r\nhost: x\r\nconnection: keep-alive, Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGljdGFjdGljdGFjdGljdA==\r\n\r\n".to_vec();
    frames::push(&mut request, true, br#"{"t":"sub","id":1,"markets":["1.1"],"view":"all"}"#);
    socket.write_all(&request).await.unwrap();
    let mut text = Vec::new();
    let snapshot = async {
        while !text.windows(10).any(|some| some == br#""t":"snap""#) {
            assert!(socket.read_buf(&mut text).await.unwrap() > 0, "{}", String::from_utf8_lossy(&text));
        }
    };
    tokio::time::timeout(SOON, snapshot).await.expect("a snapshot");
    assert!(text.starts_with(b"HTTP/1.1 101 Switching Protocols\r\n"));
    gateway.stop().unwrap();
}

/// A WebSocket has no body and no HTTP/1.0, a stream no body either; a list of a header may come in several lines.
#[tokio::test]
async fn what_can_t_go_on_over_its_socket_is_refused_and_ended() {
    const UPGRADE: &str =
        "upgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGljdGFjdGljdGFjdGljdA==\r\n";
    let log = memory();
    let mut publisher = Publisher::new(log.clone()).await;
    publisher.image("1.1", book("e1", "football")).await;
    let (gateway, address) = start(log, &[]);
    let close = [0x88, 0x80, 0, 0, 0, 0];
    for (request, after, status) in [
        (
            format!("GET /v1/ws HTTP/1.0\r\nhost: x\r\nconnection: upgrade\r\n{UPGRADE}\r\n"),
            &[][..],
            "400 Bad Request",
        ),
        (
            format!(
                "GET /v1/ws HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\ncontent-length: 6\r\n{UPGRADE}\r\n"
            ),
            &close,
            "400 Bad Request",
        ),
        (
            "GET /v1/sse?market=1.1 HTTP/1.1\r\nhost: x\r\ncontent-length: 6\r\n\r\n".into(),
            &close,
            "400 Bad Request",
        ),
        // It ends by its own goodbye, which came with the request.
        (
            format!(
                "GET /v1/ws HTTP/1.1\r\nhost: x\r\nconnection: keep-alive\r\nconnection: upgrade\r\n{UPGRADE}\r\n"
            ),
            &close,
            "101 Switching Protocols",
        ),
    ] {
        let mut socket = TcpStream::connect(&address).await.unwrap();
        socket.write_all(request.as_bytes()).await.unwrap();
        socket.write_all(after).await.unwrap();
        let mut answer = Vec::new();
        tokio::time::timeout(SOON, socket.read_to_end(&mut answer)).await.expect("an end").unwrap();
        let head = String::from_utf8_lossy(&answer);
        assert!(head.split("\r\n").next().unwrap().ends_with(status), "{request} → {head}");
    }
    gateway.stop().unwrap();
}

#[tokio::test]
async fn stopping_tells_clients_when_to_come_back_and_ends() {
    let log = memory();
    let mut publisher = Publisher::new(log.clone()).await;
    publisher.image("1.1", book("e1", "football")).await;
    let (gateway, address) = start(log, &[]);
    let mut told = WsClient::connect(&address, Codec::Json, "").await.unwrap();
    let _unread = SseClient::connect(&address, "market=1.1", None).await.unwrap();
    told.until(SOON, "a heartbeat", |f| f.counts.messages > 0).await.unwrap();
    let stopped = tokio::task::spawn_blocking(move || gateway.stop());
    let mut bye = None;
    while let Some(message) = told.step().await.unwrap() {
        if let Down::Bye { code, retry, .. } = message {
            bye = Some((code, retry));
        }
    }
    let (code, retry) = bye.expect("a goodbye");
    assert!(code == 1012 && (100..5000).contains(&retry), "{code} {retry}");
    assert_eq!(told.closed, Some(1012));
    tokio::time::timeout(SOON, stopped).await.expect("it ends").unwrap().unwrap();
}
