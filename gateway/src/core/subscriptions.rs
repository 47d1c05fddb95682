//! Subscriptions of sessions: what they wish, what waits for its run to open, and what they read.

use std::collections::HashSet;
use std::sync::Arc;

use tictac_proto::checksum::digest_key;
use tictac_proto::model::{MarketId, View};
use tictac_proto::wire::{Conflate, ErrorCode, Problem, Scope, Subscribe};

use super::{Core, Held, Opening, SessionId, Start};
use crate::hub::{RunId, RunKey, Subject, ToHub};

impl Core {
    /// Subscribes a session to the catalogue.
    pub fn subscribe_catalogue(&mut self, id: SessionId) {
        let Some(client) = self.clients.get(id) else { return };
        let key = RunKey { subject: Subject::Catalogue, wire: client.wire };
        let opening =
            Opening { session: id, id: 0, conflate: Conflate::Raw, from: Start::At(None), scope: None };
        self.open(key, opening);
    }

    pub(super) fn subscribe(&mut self, id: SessionId, subscribe: Subscribe) {
        let Subscribe { id: request, scope, view, conflate, resume } = subscribe;
        match scope {
            Scope::Markets(markets) => {
                let resume = Arc::new(resume);
                if let Some(client) = self.clients.get_mut(id) {
                    let room = self.limits.subscriptions.saturating_sub(client.session.len());
                    // Whoever invents names gets no room for them.
                    let known = markets.iter().filter(|market| self.scopes.shard(market).is_some()).count();
                    client.session.reserve(known.min(room));
                }
                for market in markets {
                    let from = Start::Resume(resume.clone());
                    self.subscribe_market(id, market, view, request, conflate, from, None);
                }
            }
            scope => self.subscribe_scope(id, scope, view, request, conflate, resume),
        }
    }

    #[allow(clippy::too_many_arguments, reason = "one row of a subscribe request")]
    pub(super) fn subscribe_market(
        &mut self,
        id: SessionId,
        market: MarketId,
        view: View,
        request: i64,
        conflate: Conflate,
        from: Start,
        scope: Option<Scope>,
    ) {
        let Some(client) = self.clients.get_mut(id) else { return };
        let (event, sport) = self.scopes.of(&market);
        if !client.rights.allows(&market, event, sport) {
            if scope.is_none() {
                let why = format!("this connection may not see market {market:?}");
                let wire = client.wire;
                self.lacks(&HashSet::from_iter([id]), wire, &market);
                self.refuse(id, problem(request, &market, ErrorCode::Forbidden, why, None, true));
            }
            return;
        }
        let key = RunKey { subject: Subject::Market(market.clone(), view), wire: client.wire };
        let opening = Opening { session: id, id: request, conflate, from, scope };
        if let Some(run) = client.held.get(&(market.clone(), view)).map(|h| h.run as RunId) {
            self.read(run, opening);
            return;
        }
        if client.opening.contains(&(market.clone(), view)) {
            self.open(key, opening);
            return;
        }
        if client.held.len() + client.opening.len() >= self.limits.subscriptions {
            // Of a scope's markets only the first that does not fit is told: thousands may follow.
            if opening.scope.is_some() && std::mem::replace(&mut client.overflow_told, true) {
                return;
            }
            let limit = self.limits.subscriptions;
            let why = format!("{limit} subscriptions are allowed; unsubscribe something first");
            if opening.scope.is_none() {
                self.lacks(&HashSet::from_iter([id]), key.wire, &market);
            }
            self.refuse(id, problem(request, &market, ErrorCode::TooManySubscriptions, why, None, false));
            return;
        }
        client.opening.insert((market, view));
        self.open(key, opening);
    }

    pub(super) fn open(&mut self, key: RunKey, opening: Opening) {
        if let Some(run) = self.runs.get(&key).copied() {
            self.read(run, opening);
            return;
        }
        // Asked once, however many come and go until the answer: a second answer could cross a close.
        let waiting = self.opening.entry(key.clone()).or_insert_with(|| {
            self.to_hub.push(ToHub::Open { core: self.number, key });
            Vec::new()
        });
        let same = |o: &Opening| o.session == opening.session && o.scope == opening.scope;
        if opening.scope.is_some() && waiting.iter().any(same) {
            // News of a market that is being opened is no new wish: the first one knows where the client comes from.
            return;
        }
        waiting.retain(|o| !same(o));
        waiting.push(opening);
    }

    /// Makes a session a reader of an open run.
    pub(super) fn read(&mut self, run: RunId, opening: Opening) {
        let Some(local) = self.locals.get_mut(&run) else { return };
        let Some(client) = self.clients.get_mut(opening.session) else { return };
        let (digest, named) = match &local.key.subject {
            Subject::Market(market, view) => (Some(digest_key(market, *view)), Some((market.clone(), *view))),
            Subject::Catalogue => (None, None),
        };
        if let Some(held) = named.as_ref().and_then(|named| client.held.get_mut(named)) {
            // One cursor for overlapping wishes; the fastest rate wins.
            let by_name = opening.scope.is_none();
            held.hold(opening.scope);
            let subscription = held.subscription as usize;
            let faster = client.session.conflate(subscription).unwrap_or_default().faster(opening.conflate);
            client.session.set_conflate(subscription, faster);
            if by_name {
                // Asked for again by name: answered with where it stands, by a fresh snapshot.
                self.bases.ok_for(run, opening.session, subscription, opening.id, faster);
                client.session.rebase(subscription);
                self.needy.push(opening.session);
            }
            return;
        }
        let from = named.as_ref().and_then(|(market, _)| opening.from.of(market, local.shard));
        let subscription = client.session.subscribe(run, digest, opening.conflate, from);
        let reader = local.readers.len() as u32;
        local.readers.push((opening.session as u32, subscription as u32));
        let holds = |direct| Held {
            subscription: subscription as u32,
            run: run as u32,
            reader,
            direct,
            scopes: None,
        };
        match named {
            Some(named) => {
                client.opening.remove(&named);
                if client.opening.is_empty() {
                    client.opening = HashSet::default();
                }
                if client.refused.remove(&named.0) {
                    client.scopes.iter_mut().for_each(|scope| scope.starts_anew(&named.0));
                }
                let mut held = holds(false);
                held.hold(opening.scope);
                client.held.insert(named, held);
                self.bases.ok_for(run, opening.session, subscription, opening.id, opening.conflate);
            }
            None => {
                client.held.insert(local.key.name(), holds(true));
            }
        }
        self.dirty.push(opening.session);
        self.needy.push(opening.session);
    }

    pub(super) fn unsubscribe(&mut self, id: SessionId, scope: &Scope, view: View) {
        match scope {
            Scope::Markets(markets) => {
                for market in markets {
                    self.drop_hold(id, market, view, None);
                }
            }
            scope => self.unsubscribe_scope(id, scope, view),
        }
    }

    pub(super) fn drop_hold(&mut self, id: SessionId, market: &MarketId, view: View, scope: Option<&Scope>) {
        let Some(client) = self.clients.get_mut(id) else { return };
        let name = (market.clone(), view);
        if client.opening.contains(&name) {
            let key = RunKey { subject: Subject::Market(market.clone(), view), wire: client.wire };
            let waiting = self.opening.get_mut(&key);
            let wanted = waiting.is_some_and(|waiting| {
                waiting.retain(|o| o.session != id || o.scope.as_ref() != scope);
                waiting.iter().any(|o| o.session == id)
            });
            if !wanted {
                client.opening.remove(&name);
            }
        }
        let Some(held) = client.held.get_mut(&name) else { return };
        if !held.let_go(scope) {
            return;
        }
        if let Some(held) = client.held.remove(&name) {
            client.session.unsubscribe(held.subscription as usize);
            self.release(id, &held);
        }
    }

    /// A session reads a run no more. The last reader takes its place.
    pub(super) fn release(&mut self, session: SessionId, held: &Held) {
        let (run, reader) = (held.run as RunId, held.reader as usize);
        self.bases.forget(run, session, held.subscription as usize);
        let Some(local) = self.locals.get_mut(&run) else { return };
        debug_assert_eq!(local.readers.get(reader), Some(&(session as u32, held.subscription)));
        local.readers.swap_remove(reader);
        if let Some((moved, _)) = local.readers.get(reader)
            && let Some(other) =
                self.clients.get_mut(*moved as SessionId).and_then(|c| c.held.get_mut(&local.key.name()))
        {
            other.reader = held.reader;
        }
        if local.readers.is_empty() {
            self.bases.forget_run(run);
            self.close_local(run);
        }
    }

    pub(super) fn snapshot(&mut self, id: SessionId, market: &MarketId, view: View) {
        let Some(client) = self.clients.get_mut(id) else { return };
        match client.held.get(&(market.clone(), view)) {
            Some(held) => {
                client.session.rebase(held.subscription as usize);
                self.needy.push(id);
            }
            // Its first snapshot is under way.
            None if client.opening.contains(&(market.clone(), view)) => {}
            None => {
                let why = format!(
                    "market {market:?} is not subscribed with view {}: send `sub` first",
                    view.code()
                );
                let unasked = problem(0, market, ErrorCode::BadRequest, why, None, false);
                self.refuse(id, Problem { id: None, ..unasked });
            }
        }
    }
}

pub(super) fn problem(
    id: i64,
    market: &MarketId,
    code: ErrorCode,
    why: String,
    retry: Option<u64>,
    fatal: bool,
) -> Problem {
    Problem { id: Some(id), market: Some(market.clone()), code, why, retry, fatal }
}
