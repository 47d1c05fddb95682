//! All of it as processes, with a proxy on every way between them: Redis, two ingests, a gateway, viewers, and a source
//! that goes on whatever happens.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tictac_ingest::testing::free_port;
use tictac_loadtest::request::get;
use tictac_proto::model::{MarketId, MarketStatus};
use tictac_proto::wire::Codec;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::viewer::{Found, Kind, Now, Shows, Viewer};
use crate::support::process::Process;
use crate::support::proxy::Proxy;
use crate::support::shards::{Shards, until_heard_by};
use crate::support::source::Source;
use crate::support::store::{Store, StoreKind};

/// How often the source says something, and how much of its time passes meanwhile.
const EVERY: Duration = Duration::from_millis(50);
/// Longest that anything may take on a busy machine.
const LONG: Duration = Duration::from_secs(60);

pub(crate) struct Stage {
    pub(crate) store: Store,
    /// The owner, then the one that stands by.
    pub(crate) ingests: [Process; 2],
    pub(crate) gateway: Process,
    pub(crate) gateway_port: u16,
    /// Between each process and its Redis, where that is one server.
    pub(crate) ways: Option<Ways>,
    pub(crate) to_gateway: Proxy,
    pub(crate) shards: Shards,
    viewers: Vec<Viewer>,
    steps: watch::Sender<u32>,
    now: watch::Receiver<Now>,
    source: JoinHandle<()>,
}

/// Proxies to the one server there is.
pub(crate) struct Ways {
    pub(crate) ingests: [Proxy; 2],
    pub(crate) gateway: Proxy,
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.source.abort();
    }
}

fn through(proxy: &Proxy) -> String {
    format!("redis://{}", proxy.address)
}

fn ingest(redis: &str) -> Process {
    Process::start_at("tictac-ingest", redis, &["run", "--stale-after-ms", "2000"])
}

async fn act(mut source: Source, mut steps: watch::Receiver<u32>, tell: watch::Sender<Now>) {
    let mut every = tokio::time::interval(EVERY);
    let mut closed: HashMap<MarketId, Instant> = HashMap::new();
    loop {
        every.tick().await;
        let count = *steps.borrow_and_update();
        source.tick(count).await;
        let truth = source.truth();
        // What is gone is not open either.
        closed.retain(|id, since| match truth.get(id) {
            Some(market) => market.status() != MarketStatus::Open,
            None => since.elapsed() < LONG * 5,
        });
        for id in tell.borrow().truth.keys().filter(|id| !truth.contains_key(*id)) {
            closed.entry(id.clone()).or_insert_with(Instant::now);
        }
        for (id, market) in &truth {
            if market.status() != MarketStatus::Open {
                closed.entry(id.clone()).or_insert_with(Instant::now);
            }
        }
        let before = (tell.borrow().spoke, tell.borrow().quiet);
        let quiet = if count == 0 { before.1 + 1 } else { 0 };
        let (truth, closed) = (Arc::new(truth), Arc::new(closed.clone()));
        tell.send_replace(Now { spoke: before.0 + 1, quiet, truth, closed });
    }
}

impl Stage {
    pub(crate) async fn new(kind: StoreKind, seed: u64) -> Self {
        let store = Store::start(kind);
        let ways = match &store {
            Store::One(server) => {
                let redis: SocketAddr = server.url().trim_start_matches("redis://").parse().unwrap();
                let ingests = [Proxy::new(redis).await, Proxy::new(redis).await];
                Some(Ways { ingests, gateway: Proxy::new(redis).await })
            }
            _ => None,
        };
        let redis = |proxy: fn(&Ways) -> &Proxy| {
            ways.as_ref().map_or_else(|| store.url(), |ways| through(proxy(ways)))
        };
        let shards = Shards::new(&store.url());
        let owner = ingest(&redis(|ways| &ways.ingests[0]));
        shards.until_newer(&shards_at_zero()).await;
        let ingests = [owner, ingest(&redis(|ways| &ways.ingests[1]))];
        until_heard_by(store.servers(), 2).await;
        let (gateway, gateway_port) = listening_gateway(&redis(|ways| &ways.gateway)).await;
        let to_gateway = Proxy::new(([127, 0, 0, 1], gateway_port).into()).await;
        let source = Source::through(store.doors(), seed).await;
        let (steps, paced) = watch::channel(1);
        let (tell, now) = watch::channel(Now::default());
        let source = tokio::spawn(act(source, paced, tell));
        let address = to_gateway.address.to_string();
        let kinds = [Kind::WebSocket(Codec::Json), Kind::WebSocket(Codec::Msgpack), Kind::Stream];
        let viewers = kinds.map(|kind| Viewer::new(kind, address.clone(), now.clone())).into();
        let mut stage = Self {
            store,
            ingests,
            gateway,
            gateway_port,
            ways,
            to_gateway,
            shards,
            viewers,
            steps,
            now,
            source,
        };
        stage.until(LONG, |shows| shows.should > 0 && shows.open == shows.should).await.unwrap();
        stage
    }

    /// One of the ingests is told to stop and ends; a new one takes its place, until it is as good as the owner.
    pub(crate) async fn replace_ingest(&mut self, which: usize) {
        self.ingests[which].signal("TERM");
        let code = tokio::task::block_in_place(|| self.ingests[which].wait());
        assert_eq!(code, Some(0), "an ingest that was told to stop");
        let admin = format!("127.0.0.1:{}", free_port().unwrap());
        let redis = self.ways.as_ref().map_or_else(|| self.store.url(), |ways| through(&ways.ingests[which]));
        let arguments = ["run", "--stale-after-ms", "2000", "--admin", &admin];
        self.ingests[which] = Process::start_at("tictac-ingest", &redis, &arguments);
        let ready = async {
            while get(&admin, "/readyz", &[]).await.map_or(0, |answer| answer.status) != 200 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(LONG, ready).await.expect("it is warm in time");
    }

    pub(crate) fn restart_gateway(&mut self) {
        let redis = self.ways.as_ref().map_or_else(|| self.store.url(), |ways| through(&ways.gateway));
        self.gateway = start_gateway(&redis, self.gateway_port);
    }

    /// Until every viewer shows it; how long that took, `None` where it does not come.
    pub(crate) async fn until(
        &mut self,
        within: Duration,
        shown: impl Fn(&Shows) -> bool,
    ) -> Option<Duration> {
        let since = Instant::now();
        let all = async {
            // All at once: each may come and go while others are waited for.
            while !self.viewers.iter().all(|v| shown(&v.shows.borrow())) {
                let changed = self.viewers.iter_mut().map(|v| Box::pin(v.shows.changed()));
                let (ended, ..) = futures_util::future::select_all(changed).await;
                ended.expect("viewers don't end");
            }
        };
        tokio::time::timeout(within, all).await.ok().map(|()| since.elapsed())
    }

    /// Waits until the source has spoken so often again.
    pub(crate) async fn goes_on(&mut self, times: u64) {
        let until = self.now.borrow().spoke + times;
        self.now.wait_for(|now| now.spoke >= until).await.expect("the source goes on");
    }

    /// The source says nothing new from now on: whether every viewer has all of it within a time.
    pub(crate) async fn settles(&mut self, within: Duration) -> bool {
        self.steps.send_replace(0);
        // From then on the truth is the last one.
        self.now.wait_for(|now| now.quiet > 1).await.expect("the source goes on");
        self.until(within, |shows| shows.is_true).await.is_some()
    }

    /// What viewers found wrong so far.
    pub(crate) fn found(&self) -> Found {
        self.viewers.iter().fold(Found::default(), |sum, viewer| {
            let found = viewer.shows.borrow().found;
            Found {
                wrong: sum.wrong + found.wrong,
                stale_open: sum.stale_open + found.stale_open,
                undeclared: sum.undeclared + found.undeclared,
            }
        })
    }

    /// How many markets anybody can trade.
    pub(crate) fn open(&self) -> usize {
        self.viewers.iter().map(|v| v.shows.borrow().open).sum()
    }
}

fn shards_at_zero() -> Vec<u64> {
    vec![0; usize::from(crate::support::SHARDS) + 1]
}

/// A gateway that listens. Between finding a port free and its taking it, somebody else may: then it ends at once.
async fn listening_gateway(redis: &str) -> (Process, u16) {
    for _ in 0..5 {
        let port = free_port().unwrap();
        let mut gateway = start_gateway(redis, port);
        let deadline = Instant::now() + LONG;
        while !gateway.has_ended() {
            if TcpStream::connect(("127.0.0.1", port)).await.is_ok() && !gateway.has_ended() {
                return (gateway, port);
            }
            assert!(Instant::now() < deadline, "a gateway that does not listen");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    panic!("no port for a gateway: five were taken meanwhile");
}

fn start_gateway(redis: &str, port: u16) -> Process {
    let listen = format!("127.0.0.1:{port}");
    let arguments = [
        "--listen",
        &listen,
        "--checksum-ms",
        "0",
        "--connects-per-ip",
        "10000",
        "--requests-per-ip",
        "10000",
        "--snapshots-per-market",
        "100000",
    ];
    Process::start_at("tictac-gateway", redis, &arguments)
}
