//! A client of either kind, watched after every message: positions never go back, no checksum is wrong, and no gap is
//! found that was not declared.

use std::collections::HashMap;
use std::sync::OnceLock;
use std::time::Duration;

use tictac_loadtest::follow::Followed;
use tictac_loadtest::request::get;
use tictac_loadtest::stream::SseClient;
use tictac_loadtest::websocket::WsClient;
use tictac_proto::model::{MarketId, MarketStatus, View};
use tictac_proto::position::Position;
use tictac_proto::wire::{Codec, Conflate, FeedState, Resume, Scope};

use tokio_util::sync::CancellationToken;

use super::source::{Source, Truth};

/// Longest that anything may take on a busy machine.
pub const LONG: Duration = Duration::from_secs(60);
pub const SPORTS: [&str; 3] = ["football", "tennis", "horse_racing"];

enum Client {
    WebSocket(Box<WsClient>),
    Stream(Box<SseClient>),
}

pub struct Watched {
    client: Client,
    highest: HashMap<MarketId, Position>,
    /// The worst feed state that was told since this was set to live.
    pub worst: FeedState,
}

impl Watched {
    fn new(client: Client) -> Self {
        Self { client, highest: HashMap::new(), worst: FeedState::Live }
    }

    /// A WebSocket client of everything.
    pub async fn websocket(address: &str, codec: Codec) -> Self {
        let mut client = WsClient::connect(address, codec, "").await.unwrap();
        for sport in SPORTS {
            let scope = Scope::Sport(sport.into());
            client.subscribe_scope(scope, View::All, Conflate::Auto, Resume::default()).await.unwrap();
        }
        Self::new(Client::WebSocket(Box::new(client)))
    }

    /// A stream of everything.
    pub async fn stream(address: &str) -> Self {
        let query = format!("sport={}&view=all", SPORTS.join("&sport="));
        Self::new(Client::Stream(Box::new(SseClient::connect(address, &query, None).await.unwrap())))
    }

    pub fn followed(&self) -> &Followed {
        match &self.client {
            Client::WebSocket(client) => &client.followed,
            Client::Stream(client) => &client.followed,
        }
    }

    async fn step(&mut self) {
        let message = match &mut self.client {
            Client::WebSocket(client) => client.step().await,
            Client::Stream(client) => client.step().await,
        };
        message.unwrap().expect("the connection stays open");
        let followed = match &self.client {
            Client::WebSocket(client) => &client.followed,
            Client::Stream(client) => &client.followed,
        };
        let counts = followed.counts;
        assert_eq!((counts.mismatches, counts.gaps - counts.declared), (0, 0), "{counts:?}");
        for ((id, view), market) in followed.markets() {
            assert_eq!(*view, View::All);
            let Some(at) = market.position() else { continue };
            let highest = self.highest.entry(id.clone()).or_insert(at);
            assert!(at >= *highest, "{id} went back from {highest:?} to {at:?}");
            *highest = at;
        }
        if let Some(worst) = followed.feeds.values().max() {
            self.worst = self.worst.max(*worst);
        }
    }

    /// Takes messages until `done`.
    pub async fn until(&mut self, what: &str, mut done: impl FnMut(&Followed) -> bool) {
        let deadline = tokio::time::Instant::now() + LONG;
        while !done(self.followed()) {
            let step = tokio::time::timeout_at(deadline, self.step()).await;
            assert!(step.is_ok(), "{what} did not come: {:?}", self.followed().counts);
        }
    }

    /// Takes messages until the goal is set and reached: each market as its source has it, and to be traded iff open.
    pub async fn until_true(&mut self, goal: &OnceLock<Truth>) {
        let deadline = tokio::time::Instant::now() + LONG;
        loop {
            let left = goal.get().map(|truth| differs(self.followed(), truth));
            if left == Some(None) {
                return;
            }
            let step = tokio::time::timeout_at(deadline, self.step()).await;
            assert!(step.is_ok(), "{:?}: {left:?}", self.followed().counts);
        }
    }

    /// The highest position of all.
    pub fn head(&self) -> Position {
        self.highest.values().copied().max().unwrap_or(Position::ZERO)
    }
}

/// The first market that is not as its source has it.
fn differs(followed: &Followed, truth: &Truth) -> Option<String> {
    truth.iter().find_map(|(id, truth)| {
        let Some(market) = followed.market(id, View::All) else { return Some(format!("{id} is not held")) };
        let Some(book) = market.book() else { return Some(format!("{id}: no book")) };
        if let Some(what) = truth.differs(book) {
            return Some(format!("{id}: {what}"));
        }
        let open = truth.status() == MarketStatus::Open;
        (market.tradable_market() != open).then(|| format!("{id}: open {open}, but not as tradable"))
    })
}

/// One of each kind.
pub async fn clients(address: &str) -> [Watched; 3] {
    [
        Watched::websocket(address, Codec::Json).await,
        Watched::websocket(address, Codec::Msgpack).await,
        Watched::stream(address).await,
    ]
}

/// Lets so much happen, until everybody has it.
pub async fn play(source: &mut Source, clients: &mut [Watched; 3], steps: u32) {
    let (goal, done) = (OnceLock::new(), CancellationToken::new());
    let [a, b, c] = clients;
    let tell = async {
        source.play(steps).await;
        goal.set(source.truth()).unwrap();
        source.attend(&done).await;
    };
    let hear = async {
        tokio::join!(a.until_true(&goal), b.until_true(&goal), c.until_true(&goal));
        done.cancel();
    };
    tokio::join!(tell, hear);
}

/// Every document is what the clients have.
pub async fn documents_agree(address: &str, client: &Watched) {
    for ((id, view), market) in client.followed().markets() {
        let Some(book) = market.book() else { continue };
        let document = get(address, &format!("/v1/markets/{id}"), &[]).await.unwrap();
        assert_eq!(document.status, 200, "{id}: {}", document.body);
        tictac_loadtest::compare::compare(&document.json().unwrap(), book, *view).unwrap();
    }
}
