//! A page of somebody: a client that comes back whenever it loses its connection, and shows a price as tradable only as
//! the protocol allows. Everything that it would show wrongly is counted.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tictac_gateway::transports::sse::resume_from;
use tictac_loadtest::follow::Followed;
use tictac_loadtest::stream::SseClient;
use tictac_loadtest::websocket::WsClient;
use tictac_proto::model::{MarketId, MarketStatus, View};
use tictac_proto::position::Position;
use tictac_proto::wire::{Codec, Conflate, Down, Resume, Scope};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{interval, sleep, timeout};

use crate::support::source::Truth;
use crate::support::watched::SPORTS;

/// A connection whose last sign of life is older shows itself as stale: 2.5 heartbeats.
const FRESH: Duration = Duration::from_millis(2_500);
/// A price may stand as open for so long after its source closed it: the longest bound of one hop, and a second for a busy
/// machine. Beyond it, it is a stale open.
pub(crate) const OPEN_FOR: Duration = Duration::from_millis(3_500);
/// A connection that brings nothing for so long is given up.
const GIVE_UP: Duration = Duration::from_secs(6);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What is true, and since when each market is not open any more.
#[derive(Debug, Clone, Default)]
pub(crate) struct Now {
    /// How often the source spoke so far, and how often since it says nothing new.
    pub(crate) spoke: u64,
    pub(crate) quiet: u64,
    pub(crate) truth: Arc<Truth>,
    pub(crate) closed: Arc<HashMap<MarketId, Instant>>,
}

/// What a viewer found wrong.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) wrong: u64,
    pub(crate) stale_open: u64,
    pub(crate) undeclared: u64,
}

/// What a viewer shows.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Shows {
    /// How many markets can be traded.
    pub(crate) open: usize,
    /// How many markets are open in truth.
    pub(crate) should: usize,
    /// Whether every book is as its source has it, and open iff it is.
    pub(crate) is_true: bool,
    pub(crate) found: Found,
}

pub(crate) struct Viewer {
    pub(crate) shows: watch::Receiver<Shows>,
    task: JoinHandle<()>,
}

impl Drop for Viewer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How it connects.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    WebSocket(Codec),
    Stream,
}

impl Viewer {
    pub(crate) fn new(kind: Kind, address: String, now: watch::Receiver<Now>) -> Self {
        let (tell, shows) = watch::channel(Shows::default());
        let state = State {
            highest: HashMap::new(),
            counted: (0, 0),
            found: Found::default(),
            stale: HashMap::new(),
            now,
            tell,
        };
        Self { shows, task: tokio::spawn(state.run(kind, address)) }
    }
}

struct State {
    highest: HashMap<MarketId, Position>,
    /// Mismatches and undeclared gaps that are counted already.
    counted: (u64, u64),
    found: Found,
    /// Markets that were counted as open for too long, until they are not any more.
    stale: HashMap<MarketId, ()>,
    now: watch::Receiver<Now>,
    tell: watch::Sender<Shows>,
}

enum Client {
    WebSocket(Box<WsClient>, Instant),
    Stream(Box<SseClient>, Instant),
}

impl Client {
    async fn connect(kind: Kind, address: &str, resume: Resume, id: Option<&str>) -> anyhow::Result<Self> {
        let connected = Instant::now();
        match kind {
            Kind::WebSocket(codec) => {
                let mut client = WsClient::connect(address, codec, "").await?;
                for sport in SPORTS {
                    let scope = Scope::Sport(sport.into());
                    client.subscribe_scope(scope, View::All, Conflate::Auto, resume.clone()).await?;
                }
                client.ping().await?;
                Ok(Self::WebSocket(Box::new(client), connected))
            }
            Kind::Stream => {
                let query = format!("sport={}&view=all", SPORTS.join("&sport="));
                let client = SseClient::connect(address, &query, id).await?;
                Ok(Self::Stream(Box::new(client), connected))
            }
        }
    }

    fn followed(&mut self) -> &mut Followed {
        match self {
            Self::WebSocket(client, _) => &mut client.followed,
            Self::Stream(client, _) => &mut client.followed,
        }
    }

    /// One message; what it proves of when it was sent.
    async fn step(&mut self) -> anyhow::Result<Option<Option<Instant>>> {
        let (message, since) = match self {
            Self::WebSocket(client, since) => (client.step().await?, *since),
            Self::Stream(client, since) => (client.step().await?, *since),
        };
        let Some(message) = message else { return Ok(None) };
        let Down::Hb(heartbeat) = &message else { return Ok(Some(None)) };
        Ok(Some(match self {
            // The time of a ping is the client's own clock since it connected.
            Self::WebSocket(..) => heartbeat.echo.map(|ms| since + Duration::from_millis(ms.max(0) as u64)),
            Self::Stream(..) => {
                let age = (crate::support::now_ms() as i64 - heartbeat.now).max(0) as u64;
                Instant::now().checked_sub(Duration::from_millis(age))
            }
        }))
    }
}

impl State {
    async fn run(mut self, kind: Kind, address: String) {
        let mut held = Followed::default();
        let mut id: Option<String> = None;
        loop {
            let connect = Client::connect(kind, &address, held.resume(), id.as_deref());
            let Ok(Ok(mut client)) = timeout(GIVE_UP, connect).await else {
                self.look(&held, None);
                sleep(Duration::from_millis(50)).await;
                continue;
            };
            *client.followed() = std::mem::take(&mut held);
            if matches!(client, Client::Stream(..)) {
                client.followed().seen_up_to(&resume_from(id.as_deref()).shards);
            }
            self.connection(&mut client).await;
            if let Client::Stream(client, _) = &client {
                id = client.last_event_id.clone();
            }
            held = std::mem::take(client.followed());
            held.disconnected();
            self.look(&held, None);
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Follows one connection until it ends.
    async fn connection(&mut self, client: &mut Client) {
        let mut fresh = None;
        let mut heard = Instant::now();
        let mut looks = interval(LOOK_EVERY);
        loop {
            tokio::select! {
                biased;
                _ = looks.tick() => {
                    let followed = std::mem::take(client.followed());
                    self.look(&followed, fresh);
                    *client.followed() = followed;
                    if heard.elapsed() > GIVE_UP {
                        return;
                    }
                }
                step = client.step() => match step {
                    Ok(Some(proof)) => {
                        heard = Instant::now();
                        fresh = proof.or(fresh);
                        let followed = std::mem::take(client.followed());
                        self.check(&followed);
                        *client.followed() = followed;
                    }
                    Ok(None) | Err(_) => return,
                },
            }
        }
    }

    /// What a message must never bring.
    fn check(&mut self, followed: &Followed) {
        let counts = followed.counts;
        let counted =
            std::mem::replace(&mut self.counted, (counts.mismatches, counts.gaps - counts.declared));
        self.found.wrong += self.counted.0.saturating_sub(counted.0);
        self.found.undeclared += self.counted.1.saturating_sub(counted.1);
        for ((id, _), market) in followed.markets() {
            let Some(at) = market.position() else { continue };
            let highest = self.highest.entry(id.clone()).or_insert(at);
            self.found.wrong += u64::from(at < *highest);
            *highest = at.max(*highest);
        }
    }

    /// Counts a market that is shown as open for too long after its source closed it, once for each time.
    fn judge(&mut self, id: &MarketId, open: bool, now: &Now) {
        let too_long = open && now.closed.get(id).is_some_and(|since| since.elapsed() > OPEN_FOR);
        if !too_long {
            self.stale.remove(id);
        } else if self.stale.insert(id.clone(), ()).is_none() {
            self.found.stale_open += 1;
        }
    }

    /// What is shown now, and whether it may be.
    fn look(&mut self, followed: &Followed, fresh: Option<Instant>) {
        let is_fresh = fresh.is_some_and(|at| at.elapsed() <= FRESH);
        let now = self.now.borrow_and_update().clone();
        let mut shows = Shows { is_true: is_fresh, ..Shows::default() };
        for (id, truth) in &*now.truth {
            let market = followed.market(id, View::All);
            let open = is_fresh && market.is_some_and(|m| m.tradable_market());
            let should = truth.status() == MarketStatus::Open;
            shows.open += usize::from(open);
            shows.should += usize::from(should);
            let same = market.and_then(|m| m.book()).is_some_and(|book| truth.differs(book).is_none());
            shows.is_true &= same && open == should;
            self.judge(id, open, &now);
        }
        // What its source does not have any more is not to be traded either.
        for ((id, _), market) in followed.markets().filter(|m| !now.truth.contains_key(&m.0.0)) {
            let open = is_fresh && market.tradable_market();
            shows.is_true &= !open;
            self.judge(id, open, &now);
        }
        shows.found = self.found;
        self.tell.send_replace(shows);
    }
}
