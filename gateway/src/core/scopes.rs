//! Scopes: events and sports that sessions follow as a whole, and the core's index of which market is in which.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use foldhash::fast::RandomState;
use tictac_proto::log::{CATALOGUE, shard_of};
use tictac_proto::model::{MarketId, View};
use tictac_proto::position::Position;
use tictac_proto::wire::{Conflate, Down, ErrorCode, FeedState, How, Problem, Resume, Scope, Subscribed};

use super::{Core, SessionId, Start};

/// Which market belongs to which event and sport.
#[derive(Debug, Default)]
pub(super) struct Scopes {
    markets: HashMap<MarketId, (Arc<str>, Arc<str>), RandomState>,
    /// Where the catalogue stood when each market came.
    since: HashMap<MarketId, Position, RandomState>,
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
    /// Where a market starts that comes into the scope. A position of its shard says something of it only if the client
    /// had it: if it was in the catalogue when the client's positions were taken.
    fn from(&mut self, market: &MarketId, shard: u16, since: Position) -> Option<Position> {
        let had = self.resume.of_shard(CATALOGUE).is_some_and(|catalogue| since <= catalogue);
        let by_shard = || self.resume.of_shard(shard).filter(|_| had);
        let from = self.resume.of_market(market).or_else(by_shard)?;
        self.resumed.insert(market.clone()).then_some(from)
    }
}

impl Scopes {
    /// The event and sport of a market; empty where it is unknown.
    pub(super) fn of(&self, market: &str) -> (&str, &str) {
        self.markets.get(market).map_or(("", ""), |(event, sport)| (event, sport))
    }

    /// The shard of a market, by its event; `None` where the market is unknown.
    pub(super) fn shard(&self, market: &str) -> Option<u16> {
        self.markets.get(market).map(|(event, _)| shard_of(event, self.shards))
    }

    /// Where the catalogue stood when a market came.
    fn since(&self, market: &str) -> Position {
        self.since.get(market).copied().unwrap_or(Position::new(u64::MAX, 0))
    }

    pub(super) fn left(&mut self, market: &str) {
        self.markets.remove(market);
        self.since.remove(market);
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
            let Some(shard) = self.scopes.shard(&market) else { continue };
            let from = Start::At(held.from(&market, shard, self.scopes.since(&market)));
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
        // Asked of what the session holds: the catalogue may already have lost a market that is still followed.
        let holds = |held: &super::Held| held.scopes.contains(scope);
        let followed = client.held.iter().filter(|(_, held)| holds(held)).map(|(name, _)| name);
        let mut markets: Vec<MarketId> = followed
            .chain(&client.opening)
            .filter(|(_, of)| *of == view)
            .map(|(market, _)| market.clone())
            .collect();
        markets.sort_unstable();
        for market in markets {
            self.drop_hold(id, &market, view, Some(scope));
        }
    }

    /// A market joined the catalogue, moved, or came back: sessions whose scopes it entered or left are told. Rights are
    /// asked again, as at a subscription.
    pub(super) fn joined(&mut self, market: MarketId, event: Arc<str>, sport: Arc<str>, since: Position) {
        let new = (event, sport);
        self.scopes.markets.insert(market.clone(), new.clone());
        self.scopes.since.insert(market.clone(), since);
        let shard = shard_of(&new.0, self.scopes.shards);
        let mut entered = Vec::new();
        let mut left = Vec::new();
        for (session, client) in &mut self.clients {
            for held in &mut client.scopes {
                let name = (market.clone(), held.view);
                let holds = client.held.get(&name).is_some_and(|h| h.scopes.contains(&held.scope));
                let is = is_within(&held.scope, &new);
                if is && !holds {
                    let (scope, view) = (held.scope.clone(), held.view);
                    entered.push((
                        session,
                        scope,
                        view,
                        held.id,
                        held.conflate,
                        held.from(&market, shard, since),
                    ));
                } else if !is && (holds || client.opening.contains(&name)) {
                    // Also where it left the catalogue in between, and came back elsewhere.
                    left.push((session, held.scope.clone(), held.view));
                }
            }
        }
        for (session, scope, view) in left {
            self.drop_hold(session, &market, view, Some(&scope));
        }
        for (session, scope, view, id, conflate, from) in entered {
            self.subscribe_market(session, market.clone(), view, id, conflate, Start::At(from), Some(scope));
        }
    }
}

#[cfg(test)]
mod tests {
    use tictac_proto::wire::{Subscribe, Up};

    use super::*;
    use crate::core::SessionLimits;
    use crate::hub::{Now, RunKey, Subject, ToCore, ToHub};
    use crate::rights::Rights;
    use crate::wires::Wire;

    const NOW: Now = Now { mono: 0, wall: 0 };
    const RUN: usize = 7;

    fn joined(core: &mut Core, event: &str) {
        let (market, event, sport) = ("m".into(), event.into(), "race".into());
        core.handle(ToCore::Joined { market, event, sport, since: Position::ZERO });
    }

    fn opened(core: &mut Core) {
        let key = RunKey { subject: Subject::Market("m".into(), View::All), wire: Wire::WsJson };
        core.handle(ToCore::Opened { key, run: RUN, shard: 0, source: "north".into(), head: Position::ZERO });
    }

    /// A core whose one session follows the event `e` with the market `m` in it, which the hub was asked to open.
    fn following() -> (Core, SessionId) {
        let mut core = Core::new(0, SessionLimits { subscriptions: 4, scopes: 4 });
        core.set_shards(1);
        joined(&mut core, "e");
        let id = core.connect(Wire::WsJson, Rights::All, None, NOW);
        let (scope, view, resume) = (Scope::Event("e".into()), View::All, Resume::default());
        let up = Up::Sub(Subscribe { id: 1, scope, view, conflate: Conflate::Raw, resume });
        core.up(id, up, NOW);
        (core, id)
    }

    fn subscriptions(core: &Core, id: SessionId) -> usize {
        core.client(id).map_or(0, |client| client.session.len())
    }

    fn closed(core: &mut Core) -> bool {
        core.take_asks().iter().any(|ask| matches!(ask, ToHub::Close { run: RUN, .. }))
    }

    fn leave(core: &mut Core, id: SessionId) {
        core.up(id, Up::Unsub { id: 2, scope: Scope::Event("e".into()), view: View::All }, NOW);
    }

    #[test]
    fn leaving_a_scope_leaves_a_market_that_the_catalogue_lost_first() {
        let (mut core, id) = following();
        opened(&mut core);
        assert_eq!(subscriptions(&core, id), 1);
        core.handle(ToCore::Left { market: "m".into() });
        assert_eq!(subscriptions(&core, id), 1, "its own log has not said that it is gone");
        leave(&mut core, id);
        assert_eq!(subscriptions(&core, id), 0);
        assert!(closed(&mut core));
    }

    #[test]
    fn leaving_a_scope_leaves_a_market_that_is_only_being_opened() {
        let (mut core, id) = following();
        core.handle(ToCore::Left { market: "m".into() });
        leave(&mut core, id);
        opened(&mut core);
        assert_eq!(subscriptions(&core, id), 0);
        assert!(closed(&mut core));
    }

    #[test]
    fn a_market_that_left_the_catalogue_and_came_back_elsewhere_leaves_the_scope() {
        let (mut core, id) = following();
        opened(&mut core);
        core.handle(ToCore::Left { market: "m".into() });
        joined(&mut core, "e");
        assert_eq!(subscriptions(&core, id), 1, "it came back to where it was");
        core.handle(ToCore::Left { market: "m".into() });
        joined(&mut core, "elsewhere");
        assert_eq!(subscriptions(&core, id), 0);
        assert!(closed(&mut core));
    }
}
