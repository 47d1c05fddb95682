//! A source that says something all the time, and clients of it on every wire that must never notice what others do.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use tictac_ingest::testing::RedisServer;
use tictac_loadtest::follow::Followed;
use tictac_loadtest::request::get;
use tictac_loadtest::stream::SseClient;
use tictac_loadtest::websocket::WsClient;
use tictac_proto::model::{MarketId, SelectionKey, Side, View};
use tictac_proto::wire::{Codec, Conflate, Down, FeedState, Resume};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::now_ms;

/// The market that is followed.
pub const MARKET: &str = "good.1";
/// How many markets the source has: one more than a client may subscribe.
pub const MARKETS: usize = crate::SUBSCRIPTIONS + 1;
/// How often it changes.
const PULSE: Duration = Duration::from_millis(40);
/// How soon a change must be seen; a busy machine is given much.
const WITHIN: Duration = Duration::from_secs(10);

/// The newest pulse in a client's book.
fn pulse_of(followed: &Followed, view: View) -> i64 {
    let book = followed.market(MARKET, view).and_then(|m| m.book());
    let selection = book.and_then(|b| b.selections.get(&SelectionKey { id: 1, handicap: 0 }));
    selection.and_then(|s| view.levels(s.ladder(Side::Back), true).next()).map_or(0, |level| level.1 / 100)
}

/// What must hold after every message.
fn check(followed: &Followed, view: View, message: &Down) {
    if let Down::Feed(news) = message {
        assert!(&*news.source != "good" || news.state == FeedState::Live, "the feed is {:?}", news.state);
    }
    let counts = followed.counts;
    let bad = (counts.gaps, counts.mismatches, counts.digest_mismatches, counts.errors, counts.stops);
    assert_eq!(bad, (0, 0, 0, 0, 0), "{counts:?} {:?}", followed.last_error);
    assert!(counts.snapshots <= 1, "a second snapshot: {counts:?}");
    if let Some(market) = followed.market(MARKET, view).filter(|m| m.book().is_some()) {
        assert!(market.tradable_market(), "not tradable after {message:?}");
    }
}

pub struct Healthy {
    published: Arc<AtomicI64>,
    clients: Vec<(JoinHandle<u64>, watch::Receiver<i64>)>,
    source: JoinHandle<()>,
    stop: CancellationToken,
}

async fn publish(redis: &mut MultiplexedConnection, seq: &AtomicU64, body: &str) {
    let seq = seq.fetch_add(1, Ordering::Relaxed) + 1;
    let envelope = format!("{{\"src\":\"good\",\"seq\":{seq},\"ts\":{},\"body\":{body}}}", now_ms());
    redis::cmd("PUBLISH").arg("odds:in:good").arg(envelope).query_async::<i64>(redis).await.unwrap();
}

impl Healthy {
    pub async fn start(server: &RedisServer, address: &str) -> Self {
        let client = redis::Client::open(server.url()).unwrap();
        let mut redis = client.get_multiplexed_async_connection().await.unwrap();
        let (published, stop) = (Arc::new(AtomicI64::new(0)), CancellationToken::new());
        let seq = AtomicU64::new(0);
        // Whatever is said before somebody listens is lost: images are said until the first market is there.
        let deadline = tokio::time::Instant::now() + WITHIN;
        while get(address, &format!("/v1/markets/{MARKET}"), &[]).await.unwrap().status != 200 {
            assert!(tokio::time::Instant::now() < deadline, "the healthy market did not come");
            for i in 1..=MARKETS {
                let body = format!(
                    "{{\"op\":\"market\",\"market\":\"good.{i}\",\"event\":\"good-event\",\"sport\":\"football\",\
                     \"selections\":[{{\"id\":1,\"back\":[[2,1]]}},{{\"id\":2,\"lay\":[[3,1]]}}]}}"
                );
                publish(&mut redis, &seq, &body).await;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let source = tokio::spawn({
            let (published, stop) = (published.clone(), stop.clone());
            async move {
                let mut pulse = tokio::time::interval(PULSE);
                while !stop.is_cancelled() {
                    pulse.tick().await;
                    let n = published.load(Ordering::Relaxed) + 1;
                    let body = format!(
                        "{{\"op\":\"change\",\"market\":\"{MARKET}\",\"selections\":[{{\"id\":1,\"back\":[[2,{n}]],\
                         \"traded\":[[2,{n}]]}}]}}"
                    );
                    publish(&mut redis, &seq, &body).await;
                    published.store(n, Ordering::Release);
                }
            }
        });
        let mut clients = Vec::new();
        for (codec, view, conflate) in
            [(Codec::Json, View::All, Conflate::Raw), (Codec::Msgpack, View::Three, Conflate::Auto)]
        {
            let mut client = WsClient::connect(address, codec, "").await.unwrap();
            let market = MarketId::from(MARKET);
            client.subscribe(&[market], view, conflate, Resume::default()).await.unwrap();
            let (seen, newest) = watch::channel(0);
            let stop = stop.clone();
            let task = tokio::spawn(async move {
                while !stop.is_cancelled() {
                    let message = client.step().await.unwrap().expect("the connection stays open");
                    check(&client.followed, view, &message);
                    seen.send_replace(pulse_of(&client.followed, view));
                }
                assert!(client.followed.counts.checked > 0, "no checksum came");
                client.followed.counts.messages
            });
            clients.push((task, newest));
        }
        let query = format!("market={MARKET}&view=all&conflate=raw");
        let mut sse = SseClient::connect(address, &query, None).await.unwrap();
        let (seen, newest) = watch::channel(0);
        let ended = stop.clone();
        let task = tokio::spawn(async move {
            while !ended.is_cancelled() {
                let message = sse.step().await.unwrap().expect("the stream goes on");
                check(&sse.followed, View::All, &message);
                seen.send_replace(pulse_of(&sse.followed, View::All));
            }
            sse.followed.counts.messages
        });
        clients.push((task, newest));
        Self { published, clients, source, stop }
    }

    /// Something that is said from now on is seen by everyone.
    pub async fn goes_on(&self, after: &str) {
        let next = self.published.load(Ordering::Acquire) + 1;
        for (i, (task, newest)) in self.clients.iter().enumerate() {
            let mut newest = newest.clone();
            let seen = tokio::time::timeout(WITHIN, newest.wait_for(|n| *n >= next)).await;
            assert!(
                matches!(seen, Ok(Ok(_))),
                "after {after:?} client {i} does not go on (ended: {})",
                task.is_finished()
            );
        }
    }

    /// Ends; how many messages the clients took.
    pub async fn finish(self, address: &str) -> u64 {
        let document = get(address, &format!("/v1/markets/{MARKET}"), &[]).await.unwrap().json().unwrap();
        assert_eq!((&document["feed"], &document["status"]), (&"live".into(), &"open".into()));
        self.stop.cancel();
        self.source.await.unwrap();
        let mut messages = 0;
        for (client, _) in self.clients {
            messages += client.await.unwrap();
        }
        messages
    }
}
