//! Bases that sessions wait for: asked for once for all that stand at the same place, answered to all of them.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use tictac_proto::position::Position;
use tictac_proto::session::{Base, NeedBase};
use tictac_proto::wire::Conflate;

use super::{Core, SessionId, subscribed};
use crate::hub::{RunId, ToCore, ToHub};

/// Different bases of one run that are asked for at once; beyond it a lower base serves.
const MAX_BASES: usize = 8;

#[derive(Debug)]
struct Waiter {
    session: SessionId,
    subscription: usize,
    from: Option<Position>,
}

/// A base that was asked for, and everyone whom it will serve.
type Asked = (Option<Position>, Vec<Waiter>);

/// Who waits for which base, and who is still owed an `ok`.
#[derive(Debug, Default)]
pub(super) struct Bases {
    waiting: HashMap<RunId, Vec<Asked>, RandomState>,
    oks: HashMap<(RunId, SessionId, usize), (i64, Conflate), RandomState>,
}

impl Bases {
    /// The subscription's next base comes with an `ok` to this request.
    pub(super) fn ok_for(
        &mut self,
        run: RunId,
        session: SessionId,
        subscription: usize,
        id: i64,
        conflate: Conflate,
    ) {
        self.oks.insert((run, session, subscription), (id, conflate));
    }

    /// Registers a wish; returns what to ask the hub, if nobody asked that yet. `head`: where the run stands; a client
    /// ahead of it is answered alone, since what brings others to the head would leap over where it is.
    pub(super) fn want(
        &mut self,
        session: SessionId,
        need: NeedBase,
        head: Position,
    ) -> Option<Option<Position>> {
        let waiting = self.waiting.entry(need.run).or_default();
        let waiter = Waiter { session, subscription: need.subscription, from: need.from };
        if let Some((_, waiters)) = waiting.iter_mut().find(|(from, _)| *from == need.from) {
            waiters.push(waiter);
            return None;
        }
        if waiting.len() >= MAX_BASES && need.from.is_some_and(|from| from <= head) {
            // Any base at or below serves, since overlap is safe; the snapshot serves everyone.
            let lower = waiting
                .iter_mut()
                .filter(|(from, _)| {
                    from.is_none_or(|f| need.from.is_some_and(|n| f.epoch == n.epoch && f <= n))
                })
                .max_by_key(|(from, _)| *from);
            if let Some((_, waiters)) = lower {
                waiters.push(waiter);
                return None;
            }
        }
        waiting.push((need.from, vec![waiter]));
        Some(need.from)
    }

    /// Whether a subscription that is owed its `ok` waits for a base that goes on from somewhere. It does not wait for it any more.
    pub(super) fn waits_for_delta(&mut self, run: RunId, session: SessionId, subscription: usize) -> bool {
        let owed = self.oks.contains_key(&(run, session, subscription));
        let Some(waiting) = self.waiting.get_mut(&run).filter(|_| owed) else { return false };
        let is = |w: &Waiter| (w.session, w.subscription) == (session, subscription) && w.from.is_some();
        let mut found = false;
        for (_, waiters) in waiting {
            let before = waiters.len();
            waiters.retain(|waiter| !is(waiter));
            found |= waiters.len() < before;
        }
        found
    }

    pub(super) fn forget(&mut self, run: RunId, session: SessionId, subscription: usize) {
        self.oks.remove(&(run, session, subscription));
        if let Some(waiting) = self.waiting.get_mut(&run) {
            for (_, waiters) in waiting.iter_mut() {
                waiters.retain(|w| (w.session, w.subscription) != (session, subscription));
            }
        }
    }

    pub(super) fn forget_run(&mut self, run: RunId) {
        self.waiting.remove(&run);
        self.oks.retain(|key, _| key.0 != run);
    }
}

impl Core {
    /// Turns sessions' needs into questions.
    pub(super) fn collect_needs(&mut self) {
        for session in std::mem::take(&mut self.needy) {
            let Some(client) = self.clients.get_mut(session) else { continue };
            for need in client.session.needs() {
                let head = self.locals.get(&need.run).map_or(Position::ZERO, |l| l.run.head());
                if let Some(from) = self.bases.want(session, need, head) {
                    self.to_hub.push(ToHub::Base { core: self.number, run: need.run, from });
                }
            }
        }
    }

    /// A base has come: everyone who waits for it gets it, with an `ok` where one is owed.
    pub(super) fn based(&mut self, based: ToCore) {
        let ToCore::Based { run, from, frame, at, .. } = &based else { return };
        let Some(waiting) = self.bases.waiting.get_mut(run) else { return };
        let Some(i) = waiting.iter().position(|(f, _)| f == from) else { return };
        let (_, waiters) = waiting.swap_remove(i);
        if waiting.is_empty() {
            self.bases.waiting.remove(run);
        }
        for waiter in waiters {
            let Some(local) = self.locals.get(run) else { return };
            // A lower base than its own may have served: the client does not go back.
            let at = waiter.from.filter(|f| f.epoch == at.epoch).map_or(*at, |f| f.max(*at));
            if let Some((id, conflate)) = self.bases.oks.remove(&(*run, waiter.session, waiter.subscription))
                && let Some(ok) =
                    subscribed(id, &local.key, (&local.source, local.shard), conflate, &based, at)
            {
                self.tell(waiter.session, "ok", &ok);
            }
            let Some(local) = self.locals.get(run) else { return };
            let Some(client) = self.clients.get_mut(waiter.session) else { continue };
            client.session.base(waiter.subscription, Base { frame: frame.clone(), at }, &local.run);
            if client.session.has_needs() {
                self.needy.push(waiter.session);
            }
            self.dirty.push(waiter.session);
        }
    }
}
