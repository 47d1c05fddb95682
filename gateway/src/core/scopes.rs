//! Scopes: events and sports that sessions follow as a whole, and the core's index of which market is in which.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use foldhash::fast::RandomState;
use tictac_proto::log::shard_of;
use tictac_proto::model::{MarketId, View};
use tictac_proto::position::Position;
use tictac_proto::wire::{Conflate, Down, ErrorCode, FeedState, How, Problem, Resume, Scope, Subscribed};

use super::{Core, SessionId};

/// Which market belongs to which event and sport.
#[derive(Debug, Default)]
pub(super) struct Scopes {
    markets: HashMap<MarketId, (Arc<str>, Arc<str>), RandomState>,
    shards: u16,
}

/// A scope that a session follows.
#[derive(Debug, Clone)]
pub(super) struct Held {
    scope: Scope,
    view: View,
    id: i64,
    conflate: Conflate,
    /// Where the client came back from; each market resumes once.
    resume: Resume,
    resumed: HashSet<MarketId, RandomState>,
}

impl Held {
    /// Where a market starts that comes into the scope.
    fn from(&mut self, market: &MarketId, shard: u16) -> Option<Position> {
        let from = self.resume.of(market, shard)?;
        self.resumed.insert(market.clone()).then_some(from)
    }
}

impl Scopes {
    /// The event and sport of a market; empty where it is unknown.
    pub(super) fn of(&self, market: &str) -> (&str, &str) {
        self.markets.get(market).map_or(("", ""), |(event, sport)| (event, sport))
    }

    /// The shard of a market, by its event.
    pub(super) fn shard(&self, market: &str) -> u16 {
        self.markets.get(market).map_or(u16::MAX, |(event, _)| shard_of(event, self.shards))
    }

    pub(super) fn left(&mut self, market: &str) {
        self.markets.remove(market);
    }

    fn within(&self, scope: &Scope) -> Vec<MarketId> {
        let mut inside: Vec<MarketId> = self
            .markets
            .iter()
            .filter(|(_, of)| is_within(scope, of))
            .map(|(market, _)| market.clone())
            .collect();
        inside.sort_unstable();
        inside
    }
}

fn is_within(scope: &Scope, (event, sport): &(Arc<str>, Arc<str>)) -> bool {
    match scope {
        Scope::Markets(_) => false,
        Scope::Event(wanted) => wanted == event,
        Scope::Sport(wanted) => wanted == sport,
    }
}

impl Core {
    /// How many shards the deployment has, for positions by shard.
    pub fn set_shards(&mut self, shards: u16) {
        self.scopes.shards = shards;
    }

    pub(super) fn subscribe_scope(
        &mut self,
        id: SessionId,
        scope: Scope,
        view: View,
        request: i64,
        conflate: Conflate,
        resume: Resume,
    ) {
        let Some(client) = self.clients.get_mut(id) else { return };
        if client.scopes.iter().any(|s| s.scope == scope && s.view == view) {
            return;
        }
        if client.scopes.len() >= self.limits.scopes {
            let why = format!("{} scopes are allowed; unsubscribe one first", self.limits.scopes);
            let code = ErrorCode::TooManySubscriptions;
            self.refuse(
                id,
                Problem { id: Some(request), market: None, code, why, retry: None, fatal: false },
            );
            return;
        }
        let taken = Subscribed {
            id: request,
            market: "".into(),
            view,
            conflate,
            at: Position::ZERO,
            stop: Position::ZERO,
            shard: 0,
            source: "".into(),
            feed: FeedState::Live,
            how: How::Snap,
        };
        self.tell(id, "ok", &Down::Ok(taken));
        let resumed = HashSet::default();
        let mut held = Held { scope: scope.clone(), view, id: request, conflate, resume, resumed };
        for market in self.scopes.within(&scope) {
            let from = held.from(&market, self.scopes.shard(&market));
            self.subscribe_market(id, market, view, request, conflate, from, Some(scope.clone()));
        }
        if let Some(client) = self.clients.get_mut(id) {
            client.scopes.push(held);
        }
    }

    pub(super) fn unsubscribe_scope(&mut self, id: SessionId, scope: &Scope, view: View) {
        let Some(client) = self.clients.get_mut(id) else { return };
        let before = client.scopes.len();
        client.scopes.retain(|s| s.scope != *scope || s.view != view);
        if client.scopes.len() == before {
            return;
        }
        for market in self.scopes.within(scope) {
            self.drop_hold(id, &market, view, Some(scope));
        }
    }

    /// A market joined the catalogue, moved, or came back: sessions whose scopes it entered or left are told. Rights are
    /// asked again, as at a subscription.
    pub(super) fn joined(&mut self, market: MarketId, event: Arc<str>, sport: Arc<str>) {
        let new = (event, sport);
        let old = self.scopes.markets.insert(market.clone(), new.clone());
        let shard = self.scopes.shard(&market);
        let mut entered = Vec::new();
        let mut left = Vec::new();
        for (session, client) in &mut self.clients {
            for held in &mut client.scopes {
                let name = (market.clone(), held.view);
                let holds = client.held.get(&name).is_some_and(|h| h.scopes.contains(&held.scope));
                let was = old.as_ref().is_some_and(|of| is_within(&held.scope, of));
                let is = is_within(&held.scope, &new);
                if is && !holds {
                    let (scope, view) = (held.scope.clone(), held.view);
                    entered.push((session, scope, view, held.id, held.conflate, held.from(&market, shard)));
                } else if was && !is {
                    left.push((session, held.scope.clone(), held.view));
                }
            }
        }
        for (session, scope, view) in left {
            self.drop_hold(session, &market, view, Some(&scope));
        }
        for (session, scope, view, id, conflate, from) in entered {
            self.subscribe_market(session, market.clone(), view, id, conflate, from, Some(scope));
        }
    }
}
