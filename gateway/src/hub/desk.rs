//! A desk: one watched market, with the views and wires that somebody reads. Here deltas become frames.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;
use tictac_proto::checksum::checksum;
use tictac_proto::follower::Event;
use tictac_proto::log::CATALOGUE;
use tictac_proto::model::{Delta, Market, MarketField, MarketId, Since, View, ViewTracker};
use tictac_proto::position::Position;
use tictac_proto::wire::{Catalogue, DeltaHead, Down, How, SnapHead, Times};

use super::answers::reorders;
use super::{Hub, Now, Outlet, Outlets, RunId, RunKey, Subject, ToCore};
use crate::wires::Wire;

/// One watched market.
#[derive(Debug)]
pub(super) struct Desk {
    shard: u16,
    /// When the last change was at each hop; zero where none came since the desk was set up.
    times: Times,
    views: SmallVec<[ViewDesk; 2]>,
}

#[derive(Debug)]
struct ViewDesk {
    view: View,
    tracker: ViewTracker,
    /// Where the last frame brought readers: the next one starts there.
    seq: u64,
    checked: i64,
    runs: SmallVec<[(RunId, Wire); 2]>,
}

impl ViewDesk {
    fn new(view: View, market: &Market) -> Self {
        Self {
            view,
            tracker: ViewTracker::new(view, &market.book),
            seq: market.at.seq,
            checked: i64::MIN / 2,
            runs: SmallVec::new(),
        }
    }
}

/// The highest number of a run.
const MAX_RUN: RunId = u32::MAX as RunId;

fn push(cores: &mut [Vec<ToCore>], outlets: &Outlets, run: RunId, message: ToCore) {
    let mut readers = outlets.get(&run).map_or(0, |o| o.cores);
    while readers != 0 {
        let core = readers.trailing_zeros() as usize;
        readers &= readers - 1;
        cores[core].push(message.clone());
    }
}

impl Hub {
    /// Registers a core as a reader of a run, and tells it.
    pub(super) fn opened(&mut self, core: usize, key: RunKey, shard: u16, source: Arc<str>) {
        let run = match self.runs.get(&key) {
            Some(run) => *run,
            None => {
                let run = self.new_run();
                self.outlets.insert(run, Outlet { key: key.clone(), cores: 0 });
                self.runs.insert(key.clone(), run);
                self.want(shard);
                self.add_to_desk(&key, run, shard);
                run
            }
        };
        if let Some(outlet) = self.outlets.get_mut(&run) {
            outlet.cores |= 1 << core;
        }
        let head = match &key.subject {
            Subject::Catalogue => Position::new(0, self.catalogue_seq),
            Subject::Market(market, _) => self.market(market).map_or(Position::ZERO, |m| m.at),
        };
        self.cores[core].push(ToCore::Opened { key, run, shard, source, head });
        let at = self.followers.get(&shard).map_or(Position::ZERO, |w| w.follower.at());
        self.cores[core].push(ToCore::Head { shard, at, as_of: 0 });
    }

    /// A run's number that no other has: the one that was free for longest. Readers keep it in four bytes.
    fn new_run(&mut self) -> RunId {
        loop {
            let run = self.next_run;
            self.next_run = (run + 1) & MAX_RUN;
            if !self.outlets.contains_key(&run) {
                return run;
            }
        }
    }

    fn add_to_desk(&mut self, key: &RunKey, run: RunId, shard: u16) {
        let Subject::Market(id, view) = &key.subject else { return };
        let Some(market) = self.followers.get(&shard).and_then(|w| w.follower.market(id)) else { return };
        let desk = self.desks.entry(id.clone()).or_insert_with(|| Desk {
            shard,
            times: Times::default(),
            views: SmallVec::new(),
        });
        let i = desk.views.iter().position(|v| v.view == *view).unwrap_or_else(|| {
            desk.views.push(ViewDesk::new(*view, market));
            desk.views.len() - 1
        });
        desk.views[i].runs.push((run, key.wire));
    }

    /// A core has no reader of a run any more.
    pub(super) fn close(&mut self, core: usize, run: RunId, now: Now) {
        let Some(outlet) = self.outlets.get_mut(&run) else { return };
        outlet.cores &= !(1 << core);
        if outlet.cores == 0 {
            self.forget_run(run, now);
        }
    }

    fn forget_run(&mut self, run: RunId, now: Now) {
        let Some(outlet) = self.outlets.remove(&run) else { return };
        self.runs.remove(&outlet.key);
        let Subject::Market(id, _) = &outlet.key.subject else {
            self.unwant(CATALOGUE, now);
            return;
        };
        let Some(desk) = self.desks.get_mut(id) else { return };
        let shard = desk.shard;
        for view in &mut desk.views {
            view.runs.retain(|r| r.0 != run);
        }
        desk.views.retain(|v| !v.runs.is_empty());
        if desk.views.is_empty() {
            self.desks.remove(id);
        }
        self.unwant(shard, now);
    }

    /// Turns an event of a market into frames for whoever watches it.
    ///
    /// A market may move to another shard: what its old one still says is no news of the desk, and a book of its new one
    /// ends what was followed before.
    pub(super) fn market_event(&mut self, shard: u16, event: Event, now: Now) {
        let elsewhere =
            |hub: &Self, market: &MarketId| hub.desks.get(market).is_some_and(|d| d.shard != shard);
        match event {
            Event::Changed { market, .. } | Event::Stopped { market } | Event::Gone { market, .. }
                if elsewhere(self, &market) => {}
            Event::Replaced { market, .. } if elsewhere(self, &market) => {
                let old = self.desks.get(&market).and_then(|d| self.followers.get(&d.shard));
                let at = old.map_or(Position::ZERO, |w| w.follower.at());
                self.tell_gone(&market, at, now);
            }
            Event::Changed { market, delta, stop, mut times, .. } => {
                if stop {
                    self.tell_stop(shard, &market, false, times.source);
                }
                times.encoded = now.wall;
                self.tell_change(shard, &market, &delta, stop, times, now);
            }
            Event::Stopped { market } => self.tell_stop(shard, &market, false, 0),
            Event::Replaced { market, .. } => {
                // What clients hold does not connect to the new book, and news of its feed may reach them before it
                // does: until then nothing of the old one is tradable. The last stop is at or below.
                self.tell_stop(shard, &market, true, 0);
                self.restart_desk(shard, &market);
                self.rejoin(&market);
            }
            Event::Gone { market, at } => self.tell_gone(&market, at, now),
            Event::Feed(_) | Event::NeedTail(_) | Event::NeedSnapshots => {}
        }
    }

    /// A market is here, perhaps again: scopes that lost it by its `gone`, or could not open it, get it back, even if the
    /// catalogue missed that it went and came.
    fn rejoin(&mut self, market: &MarketId) {
        if self.desks.contains_key(market) || !self.missed.remove(market) {
            return;
        }
        let Some((event, sport, since)) = self.events.get(market).cloned() else { return };
        for core in &mut self.cores {
            let (market, event, sport) = (market.clone(), event.clone(), sport.clone());
            core.push(ToCore::Joined { market, event, sport, since });
        }
    }

    fn tell_change(
        &mut self,
        shard: u16,
        id: &MarketId,
        delta: &Delta,
        urgent: bool,
        times: Times,
        now: Now,
    ) {
        let Some(desk) = self.desks.get_mut(id) else { return };
        desk.times = times;
        let Some(market) = self.followers.get(&shard).and_then(|w| w.follower.market(id)) else { return };
        for view in &mut desk.views {
            let step = match view.view {
                View::All => Some(delta.clone()),
                _ => view.tracker.step(&market.book, delta),
            };
            let Some(step) = step else { continue };
            let head = DeltaHead {
                market: id.clone(),
                view: view.view,
                epoch: market.at.epoch,
                prev: view.seq,
                seq: market.at.seq,
                times,
            };
            view.seq = market.at.seq;
            let check = (now.mono - view.checked >= self.checksum_interval).then(|| {
                view.checked = now.mono;
                let checksum = checksum(id, &market.book, view.view);
                Down::Crc { market: id.clone(), view: view.view, at: market.at, checksum }
            });
            for (run, wire) in &view.runs {
                let mut bytes = wire.frame("delta", (&head, &step));
                if let Some(check) = &check {
                    bytes = joined([bytes, wire.frame("crc", check)]);
                }
                let frame = ToCore::Frame { run: *run, bytes, seq: head.seq, urgent };
                push(&mut self.cores, &self.outlets, *run, frame);
            }
        }
    }

    /// Tells a stop ahead of everything: the market's last one, or, where its book was replaced, where it stands.
    fn tell_stop(&mut self, shard: u16, id: &MarketId, replaced: bool, said: i64) {
        let Some(desk) = self.desks.get(id) else { return };
        let Some(market) = self.followers.get(&shard).and_then(|w| w.follower.market(id)) else { return };
        let why = market.book.fields.text(MarketField::Reason).map(Into::into);
        let at = if replaced { market.at } else { market.stop };
        let message = Down::Stop { market: id.clone(), at, why };
        for (run, wire) in desk.views.iter().flat_map(|v| &v.runs) {
            let stop = ToCore::Stop { run: *run, bytes: wire.frame("stop", &message), said };
            push(&mut self.cores, &self.outlets, *run, stop);
        }
    }

    fn restart_desk(&mut self, shard: u16, id: &MarketId) {
        let Some(desk) = self.desks.get_mut(id) else { return };
        let Some(market) = self.followers.get(&shard).and_then(|w| w.follower.market(id)) else { return };
        let source: Arc<str> = market.book.fields.text(MarketField::Source).unwrap_or("").into();
        for view in &mut desk.views {
            view.tracker = ViewTracker::new(view.view, &market.book);
            view.seq = market.at.seq;
            for (run, _) in &view.runs {
                let reset = ToCore::Reset { run: *run, head: market.at, source: source.clone() };
                push(&mut self.cores, &self.outlets, *run, reset);
            }
        }
    }

    fn tell_gone(&mut self, id: &MarketId, at: Position, now: Now) {
        let Some(desk) = self.desks.get(id) else { return };
        let was = desk.shard;
        if self.events.contains_key(id) {
            self.missed.insert(id.clone());
        }
        let message = Down::Gone { market: id.clone(), at, why: "the market has ended".into() };
        let runs: Vec<_> = desk.views.iter().flat_map(|v| v.runs.iter().copied()).collect();
        for (run, wire) in runs {
            let gone = ToCore::Gone { run, at, bytes: wire.frame("gone", &message) };
            push(&mut self.cores, &self.outlets, run, gone);
            self.forget_run(run, now);
        }
        // It is somewhere else already, or nobody follows where it will be: who opens it follows that shard.
        let shard = self.shard_of_market(id);
        let here =
            shard.and_then(|s| self.followers.get(&s)).is_some_and(|w| w.follower.market(id).is_some());
        if here || shard.is_some_and(|s| s != was) {
            self.rejoin(id);
        }
    }

    /// Makes a base: nothing where the client stands there already, one delta where the stamps reach back, else a
    /// snapshot, with the gap declared if the client held something.
    pub(super) fn base(&mut self, core: usize, run: RunId, from: Option<Position>, now: Now) {
        let Some(outlet) = self.outlets.get(&run) else { return };
        let wire = outlet.key.wire;
        let (id, view) = match &outlet.key.subject {
            Subject::Market(id, view) => (id.clone(), *view),
            Subject::Catalogue => {
                let frame = self.catalogue_frame(wire);
                let at = Position::new(0, self.catalogue_seq);
                let state = tictac_proto::wire::FeedState::Live;
                let stop = Position::ZERO;
                self.cores[core].push(ToCore::Based {
                    run,
                    from,
                    frame,
                    at,
                    how: How::Snap,
                    stop,
                    feed: state,
                });
                return;
            }
        };
        let Some(desk) = self.desks.get(&id) else { return };
        let (shard, desk_times) = (desk.shard, desk.times);
        // The run's next frame starts here: a client below it must be brought up to it, even by an empty delta.
        let run_from = desk.views.iter().find(|v| v.view == view).map_or(0, |v| v.seq);
        let feed = self.told_feed_of(shard, &id, now);
        let Some(follower) = self.followers.get(&shard).map(|w| &w.follower) else { return };
        let Some(market) = follower.market(&id) else { return };
        let since = match from {
            // It followed a gateway that was ahead of this one. What comes here next may be the difference of two
            // snapshots, which holds for no state in between: it waits in a gap until this gateway is there.
            Some(from) if from > follower.at() => None,
            // A position by shard is ahead of markets that have been quiet since: nothing is missing.
            Some(from) if from.epoch == market.at.epoch && from.seq >= market.at.seq => {
                Some(Delta::default())
            }
            Some(from) if from.epoch == market.at.epoch => match market.book.since(from.seq, view) {
                Since::Delta(delta) => Some(delta),
                Since::Snapshot => None,
            },
            _ => None,
        };
        let times = Times { encoded: now.wall, ..desk_times };
        let (how, frame, at) = match (since, from) {
            (Some(delta), Some(from)) if delta.is_empty() && from.seq >= run_from => {
                (How::Exact, Bytes::new(), from)
            }
            (Some(delta), Some(from)) => {
                let head = DeltaHead {
                    market: id.clone(),
                    view,
                    epoch: market.at.epoch,
                    prev: from.seq,
                    seq: market.at.seq,
                    times,
                };
                (How::Delta, wire.frame("delta", (&head, &delta)), market.at)
            }
            (_, from) => {
                let head = SnapHead {
                    market: id.clone(),
                    view,
                    at: market.at,
                    stop: market.stop,
                    shard,
                    feed,
                    times,
                };
                let snap = wire.frame("snap", (&head, &market.book));
                let frame = match from {
                    Some(from) => {
                        let gap = Down::Gap { market: id.clone(), view, from, to: market.at };
                        joined([wire.frame("gap", &gap), snap])
                    }
                    None => snap,
                };
                (How::Snap, frame, market.at)
            }
        };
        let frame = if frame.is_empty() || self.checksum_interval > 0 {
            frame
        } else {
            let checksum = checksum(&id, &market.book, view);
            let check = Down::Crc { market: id.clone(), view, at: market.at, checksum };
            joined([frame, wire.frame("crc", &check)])
        };
        self.cores[core].push(ToCore::Based { run, from, frame, at, how, stop: market.stop, feed });
    }

    /// Keeps the index of markets and tells catalogue readers and cores what came, changed or left.
    pub(super) fn catalogue_event(&mut self, event: Event) {
        let (changed, gone) = match event {
            Event::Changed { market, delta, .. } => (Some((market, delta.fields)), None),
            Event::Replaced { market, .. } => {
                let whole = self.whole_entry(&market);
                (Some((market, whole)), None)
            }
            Event::Gone { market, .. } => (None, Some(market)),
            _ => return,
        };
        self.catalogue_seq += 1;
        if gone.is_some() || changed.as_ref().is_some_and(|(_, fields)| reorders(fields)) {
            self.order = None;
        }
        if let Some((market, fields)) = &changed {
            let moved = fields.iter().any(|(f, _)| matches!(f, MarketField::Event | MarketField::Sport));
            let event = self.catalogue_field(market, MarketField::Event);
            let sport = self.catalogue_field(market, MarketField::Sport);
            let told = self.events.get(market);
            // A new epoch tells every market anew: cores need to know only what moved.
            if moved && told.is_none_or(|(e, s, _)| *e != event || *s != sport) {
                let catalogue = self.followers.get(&CATALOGUE).and_then(|w| w.follower.market(market));
                // Since when it is in this event and sport, whatever else was said of it later.
                let since = catalogue.map_or(Position::ZERO, |m| {
                    let stamp = |field| m.book.fields.stamp(field);
                    Position::new(m.at.epoch, stamp(MarketField::Event).max(stamp(MarketField::Sport)))
                });
                self.events.insert(market.clone(), (event.clone(), sport.clone(), since));
                for core in &mut self.cores {
                    let (market, event, sport) = (market.clone(), event.clone(), sport.clone());
                    core.push(ToCore::Joined { market, event, sport, since });
                }
            }
        }
        if let Some(market) = &gone {
            self.events.remove(market);
            self.missed.remove(market);
            for core in &mut self.cores {
                core.push(ToCore::Left { market: market.clone() });
            }
        }
        let message = Down::Catalogue(Catalogue {
            full: false,
            markets: changed.into_iter().collect(),
            gone: gone.into_iter().collect(),
        });
        for wire in Wire::ALL {
            let Some(run) = self.runs.get(&RunKey { subject: Subject::Catalogue, wire }) else { continue };
            let bytes = wire.frame("catalogue", &message);
            let frame = ToCore::Frame { run: *run, bytes, seq: self.catalogue_seq, urgent: false };
            push(&mut self.cores, &self.outlets, *run, frame);
        }
    }

    fn whole_entry(&self, market: &str) -> tictac_proto::model::FieldChanges<MarketField> {
        let market = self.followers.get(&CATALOGUE).and_then(|w| w.follower.market(market));
        market.map(|m| m.book.fields.iter().map(|(f, v)| (f, Some(v.clone()))).collect()).unwrap_or_default()
    }

    /// The whole catalogue for a wire, made once as long as nothing changes.
    fn catalogue_frame(&mut self, wire: Wire) -> Bytes {
        let seq = self.catalogue_seq;
        if let Some((_, frame)) = self.catalogue_frames[wire as usize].as_ref().filter(|f| f.0 == seq) {
            return frame.clone();
        }
        let frame = wire.frame("catalogue", Down::Catalogue(self.whole_catalogue()));
        self.catalogue_frames[wire as usize] = Some((seq, frame.clone()));
        frame
    }

    fn whole_catalogue(&self) -> Catalogue {
        let mut markets: Vec<_> = self.catalogue().map(|m| (m.id.clone(), self.whole_entry(&m.id))).collect();
        markets.sort_by(|a, b| a.0.cmp(&b.0));
        Catalogue { full: true, markets, gone: Vec::new() }
    }
}

fn joined(frames: [Bytes; 2]) -> Bytes {
    let mut all = BytesMut::with_capacity(frames.iter().map(Bytes::len).sum());
    for frame in frames {
        all.extend_from_slice(&frame);
    }
    all.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wires::Wire;

    #[test]
    fn numbers_of_runs_begin_anew_and_meet_none_that_is_read() {
        let mut hub = Hub::new(1, 1, 0);
        let open = |hub: &mut Hub, market: &str| {
            let subject = Subject::Market(market.into(), View::All);
            hub.opened(0, RunKey { subject, wire: Wire::Sse }, 0, "a".into());
            let told = hub.take_for_core(0);
            told.iter().find_map(|m| if let ToCore::Opened { run, .. } = m { Some(*run) } else { None })
        };
        assert_eq!(open(&mut hub, "1.1"), Some(0));
        hub.next_run = MAX_RUN;
        assert_eq!(open(&mut hub, "1.2"), Some(MAX_RUN));
        assert_eq!(open(&mut hub, "1.3"), Some(1), "the first is read still");
    }
}
