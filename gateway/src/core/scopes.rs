//! Scopes: events and sports that sessions follow as a whole, and the core's index of which market is in which.

use std::collections::HashMap;
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
    resume: Resume,
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
        client.scopes.push(Held {
            scope: scope.clone(),
            view,
            id: request,
            conflate,
            resume: resume.clone(),
        });
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
        for market in self.scopes.within(&scope) {
            let from = resume.of(&market, self.scopes.shard(&market));
            self.subscribe_market(id, market, view, request, conflate, from, true);
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
            self.drop_hold(id, &market, view, true);
        }
    }

    /// A market joined the catalogue, or moved: sessions whose scopes it entered or left are told. Rights are asked
    /// again, as at a subscription.
    pub(super) fn joined(&mut self, market: MarketId, event: Arc<str>, sport: Arc<str>) {
        let new = (event, sport);
        let old = self.scopes.markets.insert(market.clone(), new.clone());
        let mut entered = Vec::new();
        let mut left = Vec::new();
        for (session, client) in &self.clients {
            for held in &client.scopes {
                let was = old.as_ref().is_some_and(|of| is_within(&held.scope, of));
                let is = is_within(&held.scope, &new);
                if is && !was {
                    entered.push((session, held.clone()));
                } else if was && !is {
                    left.push((session, held.view));
                }
            }
        }
        for (session, view) in left {
            self.drop_hold(session, &market, view, true);
        }
        for (session, held) in entered {
            let from = held.resume.of(&market, self.scopes.shard(&market));
            self.subscribe_market(session, market.clone(), held.view, held.id, held.conflate, from, true);
        }
    }
}
