//! Scopes: events and sports that sessions follow as a whole, and the core's index of which market is in which.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use foldhash::fast::RandomState;
use smallvec::SmallVec;
use tictac_proto::log::{CATALOGUE, shard_of};
use tictac_proto::model::{MarketId, View};
use tictac_proto::position::Position;
use tictac_proto::wire::{Conflate, Down, ErrorCode, FeedState, How, Problem, Resume, Scope, Subscribed};

use super::{Core, Local, SessionId, Start};
use crate::hub::{RunKey, Subject};
use crate::wires::Wire;

/// Which market belongs to which event and sport.
#[derive(Debug, Default)]
pub(super) struct Scopes {
    markets: HashMap<MarketId, (Arc<str>, Arc<str>), RandomState>,
    /// Where the catalogue stood when each market came.
    since: HashMap<MarketId, Position, RandomState>,
    /// Who follows each scope, in how many views.
    followers: HashMap<Scope, HashMap<SessionId, u8, RandomState>, RandomState>,
    shards: u16,
}

/// A scope that a session follows.
#[derive(Debug, Clone)]
pub(super) struct Held {
    scope: Scope,
    view: View,
    id: i64,
    conflate: Conflate,
    /// Where the client came back from, by shard and by market; each market resumes once.
    shards: SmallVec<[(u16, Position); 1]>,
    markets: HashMap<MarketId, Position, RandomState>,
    resumed: HashSet<MarketId, RandomState>,
}

impl Held {
    /// The scope.
    pub(super) fn scope(&self) -> &Scope {
        &self.scope
    }

    /// Where a market starts that comes into the scope. A position of its shard says something of it only if the client
    /// had it: if it was in the catalogue when the client's positions were taken.
    fn from(&mut self, market: &MarketId, shard: u16, since: Position) -> Option<Position> {
        let of_shard = |shard| self.shards.iter().find(|s| s.0 == shard).map(|s| s.1);
        let had = of_shard(CATALOGUE).is_some_and(|catalogue| since <= catalogue);
        let from = self.markets.get(market).copied().or_else(|| of_shard(shard).filter(|_| had))?;
        self.resumed.insert(market.clone()).then_some(from)
    }

    /// A market does not resume from where the client came back from.
    pub(super) fn starts_anew(&mut self, market: &MarketId) {
        self.resumed.insert(market.clone());
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

    fn follow(&mut self, scope: &Scope, session: SessionId) {
        *self.followers.entry(scope.clone()).or_default().entry(session).or_default() += 1;
    }

    /// A session follows a scope in one view less.
    pub(super) fn unfollow(&mut self, scope: &Scope, session: SessionId) {
        let Some(followers) = self.followers.get_mut(scope) else { return };
        let Some(views) = followers.get_mut(&session) else { return };
        *views -= 1;
        if *views == 0 {
            followers.remove(&session);
        }
        if followers.is_empty() {
            self.followers.remove(scope);
        }
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
            // Wished again: what was refused of it before is tried again.
            let refused = std::mem::take(&mut client.refused);
            for market in refused {
                if self.scopes.markets.get(&market).is_some_and(|of| is_within(&scope, of)) {
                    let (from, scope) = (Start::At(None), Some(scope.clone()));
                    self.subscribe_market(id, market, view, request, conflate, from, scope);
                } else if let Some(client) = self.clients.get_mut(id) {
                    client.refused.insert(market);
                }
            }
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
        let Resume { markets, shards } = resume;
        let markets = markets.into_iter().collect();
        let mut held = Held { scope: scope.clone(), view, id: request, conflate, shards, markets, resumed };
        for market in self.scopes.within(&scope) {
            let Some(shard) = self.scopes.shard(&market) else { continue };
            if self.clients.get(id).is_some_and(|client| client.may_lack(&market)) {
                held.starts_anew(&market);
            }
            let from = Start::At(held.from(&market, shard, self.scopes.since(&market)));
            self.subscribe_market(id, market, view, request, conflate, from, Some(scope.clone()));
        }
        self.scopes.follow(&held.scope, id);
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
        self.scopes.unfollow(scope, id);
        // Asked of what the session holds: the catalogue may already have lost a market that is still followed.
        let holds = |held: &super::Held| held.is_in(scope);
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

    /// Who may have to enter or leave a market: followers of where it is, and whoever reads or opens it, be it by a scope
    /// that it was in before.
    fn concerned(&self, market: &MarketId, (event, sport): &(Arc<str>, Arc<str>)) -> Vec<SessionId> {
        let scopes = [Scope::Event(event.clone()), Scope::Sport(sport.clone())];
        let followers = scopes.iter().filter_map(|scope| self.scopes.followers.get(scope));
        let mut sessions: Vec<SessionId> = followers.flat_map(HashMap::keys).copied().collect();
        for (view, wire) in View::ALL.into_iter().flat_map(|view| Wire::ALL.map(|wire| (view, wire))) {
            let key = RunKey { subject: Subject::Market(market.clone(), view), wire };
            let local = self.runs.get(&key).and_then(|run| self.locals.get(run));
            sessions.extend(local.into_iter().flat_map(Local::readers).map(|r| r.0));
            sessions.extend(self.opening.get(&key).into_iter().flatten().map(|o| o.session));
        }
        sessions.sort_unstable();
        sessions.dedup();
        sessions
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
        for session in self.concerned(&market, &new) {
            let Some(client) = self.clients.get_mut(session) else { continue };
            let lacks = client.may_lack(&market);
            for held in &mut client.scopes {
                let name = (market.clone(), held.view);
                let holds = client.held.get(&name).is_some_and(|h| h.is_in(&held.scope));
                let is = is_within(&held.scope, &new);
                if is && !holds {
                    if lacks {
                        held.starts_anew(&market);
                    }
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
    fn a_market_that_joins_concerns_only_who_follows_where_it_is_or_was() {
        let (mut core, first) = following();
        let all = |core: &Core, event: &str| core.concerned(&"m".into(), &(event.into(), "race".into()));
        let others: Vec<SessionId> = (0..10)
            .map(|_| {
                let id = core.connect(Wire::Sse, Rights::All, None, NOW);
                let (scope, view, resume) = (Scope::Event("other".into()), View::All, Resume::default());
                let up = Subscribe { id: 1, scope, view, conflate: Conflate::Raw, resume };
                core.up(id, Up::Sub(up), NOW);
                id
            })
            .collect();
        assert_eq!(all(&core, "e"), [first]);
        // Who opens or reads it is asked, too, wherever it goes.
        assert_eq!(all(&core, "nowhere"), [first]);
        opened(&mut core);
        assert_eq!(all(&core, "nowhere"), [first]);
        assert_eq!(all(&core, "other").len(), 11);
        for id in others {
            core.disconnect(id);
        }
        core.disconnect(first);
        assert!(core.scopes.followers.is_empty(), "nobody follows anything");
    }

    #[test]
    fn readers_leave_in_any_order() {
        let (mut core, first) = following();
        opened(&mut core);
        let ids: Vec<SessionId> = (0..5)
            .map(|_| {
                let id = core.connect(Wire::WsJson, Rights::All, None, NOW);
                let (scope, view) = (Scope::Markets(vec!["m".into()]), View::All);
                let up = Subscribe { id: 1, scope, view, conflate: Conflate::Raw, resume: Resume::default() };
                core.up(id, Up::Sub(up), NOW);
                id
            })
            .chain([first])
            .collect();
        for (left, i) in [2, 0, 5, 4, 1].into_iter().enumerate() {
            core.disconnect(ids[i]);
            assert_eq!(core.locals[&RUN].readers.len(), 5 - left);
            assert!(!closed(&mut core));
        }
        let last: Vec<SessionId> = core.locals[&RUN].readers().map(|r| r.0).collect();
        assert_eq!(last, [ids[3]]);
        core.disconnect(ids[3]);
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

    /// Where the market starts, as which view, after what happened to a client that came back from position 3 of all and
    /// follows the event `e`, and the market `m` in it by name as two views, before the catalogue is known.
    fn starts(refuse: bool, steps: &[View]) -> Vec<Option<Position>> {
        let at = |n| Position::new(5, n);
        let mut core = Core::new(0, SessionLimits { subscriptions: 4, scopes: 4 });
        core.set_shards(1);
        let id = core.connect(Wire::Sse, Rights::All, None, NOW);
        let named = || Scope::Markets(vec!["m".into()]);
        let wishes = [(Scope::Event("e".into()), View::Ten), (named(), View::All), (named(), View::Three)];
        for (n, (scope, view)) in (1..).zip(wishes) {
            let shards = [(0, at(3)), (CATALOGUE, at(9))].into_iter().collect();
            let resume = Resume { shards, ..Resume::default() };
            core.up(id, Up::Sub(Subscribe { id: n, scope, view, conflate: Conflate::Raw, resume }), NOW);
        }
        let key = |view| RunKey { subject: Subject::Market("m".into(), view), wire: Wire::Sse };
        if refuse {
            let (code, why) = (ErrorCode::NotReady, "not yet".to_string());
            core.handle(ToCore::Refused { key: key(View::All), code, why, retry: None });
        }
        for (run, view) in steps.iter().enumerate() {
            if *view == View::Ten {
                let (market, event, sport) = ("m".into(), "e".into(), "race".into());
                core.handle(ToCore::Joined { market, event, sport, since: at(1) });
            }
            let source = "north".into();
            core.handle(ToCore::Opened { key: key(*view), run, shard: 0, source, head: at(4) });
        }
        let asks = core.take_asks().into_iter();
        asks.filter_map(|ask| if let ToHub::Base { from, .. } = ask { Some(from) } else { None }).collect()
    }

    #[test]
    fn what_was_refused_by_name_starts_with_a_snapshot_whoever_wishes_it_next() {
        let from = Some(Position::new(5, 3));
        assert_eq!(starts(false, &[View::All, View::Three, View::Ten]), [from, from, from]);
        // The stream's client can't say as which view it was refused, and holds none of them any more.
        assert_eq!(starts(true, &[View::Three]), [None], "another view by name");
        assert_eq!(starts(true, &[View::Ten]), [None], "the event, once the catalogue is known");
        assert_eq!(
            starts(true, &[View::Three, View::Ten]),
            [None, None],
            "the event, after another view was read"
        );
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
