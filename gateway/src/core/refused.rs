//! What sessions were refused: of that their clients hold nothing any more, whatever they came back with. A stream's client may
//! not know as which view it was refused, so that it holds no view of it.

use std::collections::HashSet;

use foldhash::fast::RandomState;
use tictac_proto::model::{MarketId, View};
use tictac_proto::position::Position;
use tictac_proto::session::NeedBase;

use super::{Client, Core, SessionId, Start};
use crate::hub::{RunId, RunKey, Subject, ToHub};
use crate::wires::Wire;

impl Client {
    /// Whether a market may have been refused to it: then what it came back with says nothing of that.
    pub(super) fn may_lack(&self, market: &MarketId) -> bool {
        self.overflow_told || self.refused.contains(market)
    }
}

impl Core {
    /// A market is refused to these sessions. What else of it is on its way to them begins with a snapshot.
    pub(super) fn lacks(
        &mut self,
        sessions: &HashSet<SessionId, RandomState>,
        wire: Wire,
        market: &MarketId,
    ) {
        for session in sessions {
            let Some(client) = self.clients.get_mut(*session) else { continue };
            if client.refused.len() < self.limits.subscriptions {
                client.refused.insert(market.clone());
            } else {
                client.overflow_told = true;
            }
        }
        self.collect_needs();
        for view in View::ALL {
            let key = RunKey { subject: Subject::Market(market.clone(), view), wire };
            for opening in self.opening.get_mut(&key).into_iter().flatten() {
                if sessions.contains(&opening.session) {
                    opening.from = Start::At(None);
                }
            }
            for session in sessions {
                self.base_anew(*session, market, view);
            }
        }
    }

    /// What was not answered yet is answered with a snapshot.
    fn base_anew(&mut self, session: SessionId, market: &MarketId, view: View) {
        let Some(client) = self.clients.get(session) else { return };
        let Some(held) = client.held.get(&(market.clone(), view)) else { return };
        let (run, subscription) = (held.run as RunId, held.subscription as usize);
        if !self.bases.waits_for_delta(run, session, subscription) {
            return;
        }
        let head = self.locals.get(&run).map_or(Position::ZERO, |local| local.run.head());
        let need = NeedBase { subscription, run, from: None };
        if let Some(from) = self.bases.want(session, need, head) {
            self.to_hub.push(ToHub::Base { core: self.number, run, from });
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tictac_proto::wire::{Conflate, ErrorCode, FeedState, How, Resume, Scope, Subscribe, Up};

    use super::*;
    use crate::core::SessionLimits;
    use crate::hub::{Now, ToCore};
    use crate::rights::Rights;

    const NOW: Now = Now { mono: 0, wall: 0 };

    fn at(n: u64) -> Position {
        Position::new(5, n)
    }

    fn core(subscriptions: usize) -> Core {
        let mut core = Core::new(0, SessionLimits { subscriptions, scopes: 4 });
        core.set_shards(1);
        for market in ["a", "b"] {
            let (market, event, sport) = (market.into(), "e".into(), "race".into());
            core.handle(ToCore::Joined { market, event, sport, since: at(1) });
        }
        core.handle(ToCore::Head { shard: 0, at: at(4), as_of: 0 });
        core
    }

    fn connect(core: &mut Core) -> SessionId {
        core.connect(Wire::Sse, Rights::All, None, NOW)
    }

    /// It was at position 3 of everything.
    fn wish(core: &mut Core, session: SessionId, scope: Scope, view: View) {
        let shards = [(0, at(3)), (tictac_proto::log::CATALOGUE, at(9))].into_iter().collect();
        let resume = Resume { shards, ..Resume::default() };
        core.up(session, Up::Sub(Subscribe { id: 1, scope, view, conflate: Conflate::Raw, resume }), NOW);
    }

    fn named(market: &str) -> Scope {
        Scope::Markets(vec![market.into()])
    }

    fn key(market: &str, view: View) -> RunKey {
        RunKey { subject: Subject::Market(market.into(), view), wire: Wire::Sse }
    }

    fn open(core: &mut Core, market: &str, view: View, run: RunId) {
        let (key, source) = (key(market, view), "north".into());
        core.handle(ToCore::Opened { key, run, shard: 0, source, head: at(4) });
    }

    fn refuse(core: &mut Core, market: &str, view: View) {
        let (code, why) = (ErrorCode::NotReady, "not yet".to_string());
        core.handle(ToCore::Refused { key: key(market, view), code, why, retry: None });
    }

    /// From where bases were asked for.
    fn asked(core: &mut Core) -> Vec<Option<Position>> {
        let asks = core.take_asks().into_iter();
        asks.filter_map(|ask| if let ToHub::Base { from, .. } = ask { Some(from) } else { None }).collect()
    }

    fn based(core: &mut Core, run: RunId, from: Option<Position>, how: How) {
        let (frame, stop, feed) = (Bytes::from_static(b"<base>"), Position::ZERO, FeedState::Live);
        core.handle(ToCore::Based { run, from, frame, at: at(4), how, stop, feed });
    }

    fn sent(core: &mut Core, session: SessionId) -> String {
        let text = core.output(session, |session, _, runs| {
            let chunks = session.plan(runs, 0, |_, _, _| Bytes::new());
            let bytes: Vec<u8> = chunks.iter().flat_map(|chunk| chunk.to_vec()).collect();
            drop(chunks);
            session.wrote(runs, bytes.len(), 0);
            bytes
        });
        String::from_utf8_lossy(&text.unwrap_or_default()).into_owned()
    }

    #[test]
    fn a_view_whose_base_is_on_its_way_is_answered_with_a_snapshot() {
        let mut core = core(4);
        let (other, session) = (connect(&mut core), connect(&mut core));
        wish(&mut core, other, named("a"), View::Ten);
        open(&mut core, "a", View::Ten, 7);
        wish(&mut core, session, named("a"), View::Ten);
        wish(&mut core, session, named("a"), View::All);
        assert_eq!(asked(&mut core), [Some(at(3))], "both at once: its run was open");
        refuse(&mut core, "a", View::All);
        assert_eq!(asked(&mut core), [None]);
        based(&mut core, 7, Some(at(3)), How::Delta);
        assert!(sent(&mut core, other).contains(r#""how":"delta""#), "nothing was refused to it");
        let text = sent(&mut core, session);
        assert!(text.contains("not_ready") && !text.contains(r#""how""#), "{text}");
        based(&mut core, 7, None, How::Snap);
        let text = sent(&mut core, session);
        assert!(text.contains(r#""how":"snap""#), "{text}");
    }

    #[test]
    fn a_scope_that_is_wished_after_a_refusal_starts_it_with_a_snapshot() {
        for refused in [false, true] {
            let mut core = core(4);
            let session = connect(&mut core);
            wish(&mut core, session, named("a"), View::All);
            if refused {
                refuse(&mut core, "a", View::All);
            } else {
                open(&mut core, "a", View::All, 6);
                assert_eq!(asked(&mut core), [Some(at(3))]);
            }
            wish(&mut core, session, Scope::Event("e".into()), View::Three);
            open(&mut core, "a", View::Three, 7);
            open(&mut core, "b", View::Three, 8);
            let a = if refused { None } else { Some(at(3)) };
            assert_eq!(asked(&mut core), [a, Some(at(3))], "refused: {refused}");
        }
    }

    #[test]
    fn no_token_says_that_a_market_was_seen_for_which_there_was_no_room() {
        let mut core = core(1);
        let session = connect(&mut core);
        wish(&mut core, session, named("a"), View::All);
        open(&mut core, "a", View::All, 7);
        assert_eq!(asked(&mut core), [Some(at(3))]);
        based(&mut core, 7, Some(at(3)), How::Delta);
        let of_shard = |core: &Core| core.resume_token(session).iter().any(|(shard, _)| *shard == 0);
        sent(&mut core, session);
        assert!(of_shard(&core));
        wish(&mut core, session, named("b"), View::All);
        assert!(sent(&mut core, session).contains("too_many_subscriptions"));
        assert!(!of_shard(&core));
    }
}
