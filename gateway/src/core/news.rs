//! News of the hub, carried to the sessions that it concerns.

use bytes::Bytes;
use tictac_proto::position::Position;
use tictac_proto::run::Run;
use tictac_proto::wire::CloseCode;

use super::MAX_STOPS_SAID;
use super::subscriptions::problem;
use super::{Core, Local, SessionId};
use crate::hub::{RunId, Subject, ToCore, ToHub};

impl Core {
    /// What the hub tells.
    pub fn handle(&mut self, message: ToCore) {
        match message {
            ToCore::Opened { key, run, shard, source, head } => {
                let waiting = self.opening.remove(&key).unwrap_or_default();
                if !self.locals.contains_key(&run) {
                    self.runs.insert(key.clone(), run);
                    let local = Local {
                        key,
                        run: Run::new(head),
                        shard,
                        source,
                        readers: Vec::new(),
                        is_fresh: false,
                    };
                    self.locals.insert(run, local);
                }
                for opening in waiting {
                    self.read(run, opening);
                }
                if self.locals.get(&run).is_some_and(|l| l.readers.is_empty()) {
                    self.close_local(run);
                }
            }
            ToCore::Refused { key, code, why, retry } => {
                let Subject::Market(market, view) = &key.subject else { return };
                let waiting = self.opening.remove(&key).unwrap_or_default();
                self.lacks(&waiting.iter().map(|opening| opening.session).collect(), key.wire, market);
                for opening in waiting {
                    if let Some(client) = self.clients.get_mut(opening.session) {
                        client.opening.remove(&(market.clone(), *view));
                    }
                    let problem = problem(opening.id, market, code, why.clone(), retry, false);
                    self.refuse(opening.session, problem);
                }
            }
            ToCore::Frame { run, bytes, seq, urgent } => {
                let Some(local) = self.locals.get_mut(&run) else { return };
                local.run.push(&bytes, seq, urgent);
                // Readers are told once, however many frames come before the next pass.
                if !std::mem::replace(&mut local.is_fresh, true) {
                    self.fresh.push(run);
                }
            }
            ToCore::Reset { run, head, source } => {
                let Some(local) = self.locals.get_mut(&run) else { return };
                local.source = source;
                local.run.reset(head);
                for (session, subscription) in local.readers() {
                    self.clients[session].session.notify(subscription);
                    self.dirty.push(session);
                }
            }
            ToCore::Stop { run, bytes, said } => {
                let Some(local) = self.locals.get(&run) else { return };
                if said > 0 && !local.readers.is_empty() && self.stops_said.len() < MAX_STOPS_SAID {
                    self.stops_said.push(said);
                }
                for (session, subscription) in local.readers() {
                    let cursors = &mut self.clients[session].session;
                    // Again with a base that waits: who has only subscribed an event may not know the market yet.
                    cursors.before_base(subscription, &bytes);
                    cursors.stop(subscription, bytes.clone());
                    self.dirty.push(session);
                }
            }
            ToCore::Based { .. } => self.based(message),
            ToCore::Gone { run, at, bytes } => self.gone(run, at, &bytes),
            ToCore::Feed { news, frames } => {
                let mut told: Vec<SessionId> = Vec::new();
                for local in self.locals.values() {
                    if local.shard == news.shard && local.source == news.source {
                        for (session, subscription) in local.readers() {
                            // A snapshot that waits says how the feed stood when it was made.
                            let client = &mut self.clients[session];
                            client.session.after_base(subscription, &frames[client.wire as usize]);
                            told.push(session);
                        }
                    }
                }
                told.sort_unstable();
                told.dedup();
                for session in told {
                    let wire = self.clients[session].wire;
                    self.control(session, frames[wire as usize].clone());
                }
            }
            ToCore::Head { shard, at, .. } => {
                self.heads.insert(shard, at);
            }
            ToCore::Beat => {}
            ToCore::Joined { market, event, sport, since } => self.joined(market, event, sport, since),
            ToCore::Left { market } => self.scopes.left(&market),
        }
    }

    pub(super) fn close_local(&mut self, run: RunId) {
        if let Some(local) = self.locals.remove(&run) {
            self.runs.remove(&local.key);
            self.to_hub.push(ToHub::Close { core: self.number, run });
        }
    }

    fn gone(&mut self, run: RunId, at: Position, bytes: &Bytes) {
        let Some(local) = self.locals.remove(&run) else { return };
        self.runs.remove(&local.key);
        self.bases.forget_run(run);
        let Subject::Market(market, view) = &local.key.subject else { return };
        for (session, subscription) in local.readers() {
            let client = &mut self.clients[session];
            client.held.remove(&(market.clone(), *view));
            let fits = client.session.end(subscription);
            let floor = client.gone.entry(local.shard).or_insert(at);
            *floor = at.max(*floor);
            self.control(session, bytes.clone());
            if !fits {
                self.close(session, CloseCode::Slow, "too many stops wait to be read");
            }
        }
    }
}
