//! The session: what one connection is still to be sent. It holds cursors, not queues: stops go first, then control
//! frames, then for each subscription either its base (a snapshot or a merged delta) or what its run holds beyond the
//! cursor. Whatever the transport, it asks [`Session::plan`] for the next bytes and tells [`Session::wrote`] how many
//! went out.

use std::collections::VecDeque;

use bytes::Bytes;
use slab::Slab;
use smallvec::SmallVec;

use crate::checksum::mix;
use crate::position::Position;
use crate::run::{Cursor, Pending, Run};
use crate::wire::Conflate;

/// Control frames that may wait. A client that makes more of them without reading is closed.
pub const MAX_CONTROL: usize = 1_024;
/// Bytes planned for one write.
pub const MAX_WRITE: usize = 128 * 1024;
/// Pieces planned for one write.
const MAX_PIECES: usize = 64;

/// Finds a run by the number that a subscription holds.
pub trait Runs {
    /// The run.
    fn run(&self, id: usize) -> &Run;
}

impl<R: Runs + ?Sized> Runs for &R {
    fn run(&self, id: usize) -> &Run {
        (**self).run(id)
    }
}

impl Runs for Slab<Run> {
    fn run(&self, id: usize) -> &Run {
        &self[id]
    }
}

/// A subscription's base: what brings the client to where the run's head stood when it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base {
    /// The frame; empty where the client stands there already.
    pub frame: Bytes,
    /// Where it brings the client.
    pub at: Position,
}

#[derive(Debug)]
struct Subscription {
    run: usize,
    digest_key: Option<u32>,
    conflate: Conflate,
    /// Where the client stands; `None` before its first base.
    at: Option<Position>,
    cursor: Option<Cursor>,
    base: Option<Base>,
    awaiting: bool,
    /// Whether the base that is awaited may be a delta.
    awaits_delta: bool,
    /// A snapshot is wanted after it.
    rebase: bool,
    /// In `dirty` or in `later`.
    queued: bool,
    due: i64,
    stop: Option<Bytes>,
}

/// A subscription needs a base from where the client stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NeedBase {
    /// The subscription.
    pub subscription: usize,
    /// Its run.
    pub run: usize,
    /// Where the client stands; `None`: nowhere.
    pub from: Option<Position>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece {
    Partial,
    Stop(usize),
    Orphan,
    Heartbeat,
    Control,
    Base(usize),
    Frames(usize),
}

/// What a session counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SessionCounters {
    /// Frames that were skipped because a merged delta took their place.
    pub merged: u64,
    /// Bases asked for because the run no longer reached back.
    pub lapsed: u64,
    /// Bytes written.
    pub bytes: u64,
}

/// One connection's cursors.
#[derive(Debug)]
pub struct Session {
    subscriptions: Slab<Subscription>,
    dirty: VecDeque<usize>,
    /// Waiting for their conflation interval.
    later: Vec<usize>,
    stops: VecDeque<usize>,
    /// Stops whose subscription ended before they went out.
    orphans: VecDeque<Bytes>,
    control: VecDeque<Bytes>,
    partial: Bytes,
    heartbeat: Option<Bytes>,
    heartbeat_due: bool,
    echo: Option<i64>,
    needs: Vec<NeedBase>,
    plan: SmallVec<[(Piece, usize); 8]>,
    digest: u32,
    heard: i64,
    /// For two-way transports: silence of the client after which prices pause, ms.
    pause_after: Option<i64>,
    counters: SessionCounters,
}

impl Session {
    /// A session of a client that was heard now. `pause_after`: how long a two-way client may be silent before prices
    /// pause (stops and heartbeats never do); `None` for one-way transports.
    #[must_use]
    pub fn new(now: i64, pause_after: Option<i64>) -> Self {
        Self {
            subscriptions: Slab::new(),
            dirty: VecDeque::new(),
            later: Vec::new(),
            stops: VecDeque::new(),
            orphans: VecDeque::new(),
            control: VecDeque::new(),
            partial: Bytes::new(),
            heartbeat: None,
            heartbeat_due: false,
            echo: None,
            needs: Vec::new(),
            plan: SmallVec::new(),
            digest: 0,
            heard: now,
            pause_after,
            counters: SessionCounters::default(),
        }
    }

    /// Adds a subscription to a run. It asks for its base from `resume` at once.
    pub fn subscribe(
        &mut self,
        run: usize,
        digest_key: Option<u32>,
        conflate: Conflate,
        resume: Option<Position>,
    ) -> usize {
        let subscription = self.subscriptions.insert(Subscription {
            run,
            digest_key,
            conflate,
            at: None,
            cursor: None,
            base: None,
            awaiting: true,
            awaits_delta: resume.is_some(),
            rebase: false,
            queued: false,
            due: i64::MIN,
            stop: None,
        });
        self.needs.push(NeedBase { subscription, run, from: resume });
        subscription
    }

    /// Removes a subscription.
    pub fn unsubscribe(&mut self, id: usize) {
        let Some(subscription) = self.subscriptions.try_remove(id) else { return };
        if let (Some(key), Some(at)) = (subscription.digest_key, subscription.at) {
            self.digest = self.digest.wrapping_sub(mix(key, at.seq));
        }
        self.dirty.retain(|s| *s != id);
        self.later.retain(|s| *s != id);
        self.stops.retain(|s| *s != id);
        self.needs.retain(|n| n.subscription != id);
    }

    /// Removes a subscription whose market ended. A stop that still waits goes out all the same, ahead of everything:
    /// until the client reads that the market is gone, it holds prices. `false` where too many wait.
    #[must_use]
    pub fn end(&mut self, id: usize) -> bool {
        let stop = self.subscriptions.get_mut(id).and_then(|s| s.stop.take());
        self.unsubscribe(id);
        if let Some(stop) = stop {
            self.orphans.push_back(stop);
        }
        self.orphans.len() <= MAX_CONTROL
    }

    /// How many subscriptions there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.subscriptions.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.subscriptions.is_empty()
    }

    /// Changes how often a subscription is told.
    pub fn set_conflate(&mut self, id: usize, conflate: Conflate) {
        if let Some(subscription) = self.subscriptions.get_mut(id) {
            subscription.conflate = conflate;
        }
    }

    /// How often a subscription is told.
    #[must_use]
    pub fn conflate(&self, id: usize) -> Option<Conflate> {
        self.subscriptions.get(id).map(|s| s.conflate)
    }

    /// Where the client stands with a subscription, as far as was written.
    #[must_use]
    pub fn position(&self, id: usize) -> Option<Position> {
        self.subscriptions.get(id).and_then(|s| s.at)
    }

    /// The subscription's base has come; `run` is its run as it stood then.
    pub fn base(&mut self, id: usize, base: Base, run: &Run) {
        let Some(subscription) = self.subscriptions.get_mut(id) else { return };
        subscription.awaiting = std::mem::take(&mut subscription.rebase);
        subscription.awaits_delta = false;
        if subscription.awaiting {
            self.needs.push(NeedBase { subscription: id, run: subscription.run, from: None });
        }
        subscription.cursor = Some(run.end());
        if base.frame.is_empty() {
            advance(&mut self.digest, subscription, base.at);
        } else {
            subscription.base = Some(base);
            self.notify(id);
        }
    }

    /// What a base that still waits must not undo: it goes out once more, after it.
    pub fn after_base(&mut self, id: usize, frame: &Bytes) {
        if let Some(base) = self.subscriptions.get_mut(id).and_then(|s| s.base.as_mut()) {
            base.frame = [&base.frame[..], &frame[..]].concat().into();
        }
    }

    /// What must be known before a base that still waits is read: it goes out again, right ahead of it.
    pub fn before_base(&mut self, id: usize, frame: &Bytes) {
        if let Some(base) = self.subscriptions.get_mut(id).and_then(|s| s.base.as_mut()) {
            base.frame = [&frame[..], &base.frame[..]].concat().into();
        }
    }

    /// A fresh base is wanted, whatever the client holds: it asked for a snapshot.
    pub fn rebase(&mut self, id: usize) {
        let Some(subscription) = self.subscriptions.get_mut(id) else { return };
        if subscription.awaiting {
            // What is on its way may be a delta, which a client in a gap does not take: ask again after it.
            subscription.rebase = subscription.awaits_delta;
            return;
        }
        subscription.awaiting = true;
        subscription.awaits_delta = false;
        self.needs.push(NeedBase { subscription: id, run: subscription.run, from: None });
    }

    /// The subscription's run has something new.
    pub fn notify(&mut self, id: usize) {
        let Some(subscription) = self.subscriptions.get_mut(id) else { return };
        if !subscription.queued {
            subscription.queued = true;
            self.dirty.push_back(id);
        }
    }

    /// A stop for the subscription's market, which goes ahead of everything. A newer one takes an older one's place.
    pub fn stop(&mut self, id: usize, frame: Bytes) {
        let Some(subscription) = self.subscriptions.get_mut(id) else { return };
        if subscription.stop.replace(frame).is_none() {
            self.stops.push_back(id);
        }
    }

    /// A control frame. `false` where too many wait already: the client must be closed.
    #[must_use]
    pub fn control(&mut self, frame: Bytes) -> bool {
        if self.control.len() >= MAX_CONTROL {
            return false;
        }
        self.control.push_back(frame);
        true
    }

    /// The client pinged: it is heard, and gets a heartbeat that echoes `time`.
    pub fn ping(&mut self, time: i64, now: i64) {
        self.heard = now;
        self.echo = Some(time);
        self.heartbeat_due = true;
    }

    /// A heartbeat is due by itself.
    pub fn beat(&mut self) {
        self.heartbeat_due = true;
    }

    /// When the client was heard last.
    #[must_use]
    pub fn heard(&self) -> i64 {
        self.heard
    }

    /// Whether prices are paused because the client is silent.
    #[must_use]
    pub fn is_paused(&self, now: i64) -> bool {
        self.pause_after.is_some_and(|after| now - self.heard > after)
    }

    /// Subscriptions that need a base, to be asked for and answered by [`Session::base`].
    pub fn needs(&mut self) -> std::vec::Drain<'_, NeedBase> {
        self.needs.drain(..)
    }

    /// Whether some subscription needs a base.
    #[must_use]
    pub fn has_needs(&self) -> bool {
        !self.needs.is_empty()
    }

    /// Subscriptions that are not where their run is.
    #[must_use]
    pub fn behind(&self) -> u64 {
        let awaiting = self.subscriptions.iter().filter(|(_, s)| s.awaiting && !s.queued).count();
        (self.dirty.len() + self.later.len() + awaiting) as u64
    }

    /// The runs of subscriptions that are behind, with where the client stands.
    pub fn behind_runs(&self) -> impl Iterator<Item = (usize, Option<Position>)> + '_ {
        self.subscriptions.iter().filter(|(_, s)| s.queued || s.awaiting).map(|(_, s)| (s.run, s.at))
    }

    /// The digest of where the client stands.
    #[must_use]
    pub fn digest(&self) -> u32 {
        self.digest
    }

    /// Counters so far.
    #[must_use]
    pub fn counters(&self) -> SessionCounters {
        self.counters
    }

    /// Whether a heartbeat goes out with the next plan.
    #[must_use]
    pub fn beats(&self) -> bool {
        self.heartbeat_due
    }

    /// When to plan again although nothing is new: a conflation interval ends.
    #[must_use]
    pub fn next_due(&self) -> Option<i64> {
        self.later.iter().map(|id| self.subscriptions[*id].due).min()
    }

    /// Decides what goes out next and gives it as slices; empty where there is nothing. `heartbeat` encodes one.
    pub fn plan<'a>(
        &'a mut self,
        runs: &'a (impl Runs + ?Sized),
        now: i64,
        heartbeat: impl FnOnce(u64, Option<i64>, u32) -> Bytes,
    ) -> SmallVec<[&'a [u8]; 8]> {
        self.plan.clear();
        let mut size = self.partial.len();
        if size > 0 {
            self.plan.push((Piece::Partial, size));
        }
        for id in self.stops.iter().take(MAX_PIECES) {
            let Some(stop) = &self.subscriptions[*id].stop else { continue };
            self.plan.push((Piece::Stop(*id), stop.len()));
        }
        for frame in self.orphans.iter().take(MAX_PIECES) {
            self.plan.push((Piece::Orphan, frame.len()));
        }
        for frame in self.control.iter().take(MAX_PIECES) {
            size += frame.len();
            self.plan.push((Piece::Control, frame.len()));
        }
        if self.heartbeat_due {
            // It tells where the client stands with what was written before it.
            let frame = heartbeat(self.behind(), self.echo, self.digest);
            self.plan.push((Piece::Heartbeat, frame.len()));
            self.heartbeat = Some(frame);
        }
        if !self.is_paused(now) {
            self.plan_subscriptions(runs, now, size);
        }
        let mut orphans = self.orphans.iter();
        let mut controls = self.control.iter();
        let mut slices = SmallVec::new();
        for (piece, len) in &self.plan {
            slices.push(match piece {
                Piece::Partial => &self.partial[..],
                Piece::Stop(id) => self.subscriptions[*id].stop.as_deref().unwrap_or(&[]),
                Piece::Orphan => orphans.next().map_or(&[][..], |c| &c[..]),
                Piece::Heartbeat => self.heartbeat.as_deref().unwrap_or(&[]),
                Piece::Control => controls.next().map_or(&[][..], |c| &c[..]),
                Piece::Base(id) => self.subscriptions[*id].base.as_ref().map_or(&[][..], |b| &b.frame[..]),
                Piece::Frames(id) => {
                    let subscription = &self.subscriptions[*id];
                    subscription.cursor.map_or(&[][..], |c| runs.run(subscription.run).bytes(c, *len))
                }
            });
        }
        slices
    }

    fn plan_subscriptions(&mut self, runs: &(impl Runs + ?Sized), now: i64, mut size: usize) {
        // Those whose interval has ended, or that have something that must not wait, join the others.
        let subscriptions = &self.subscriptions;
        let ready = |id: &usize| {
            let s = &subscriptions[*id];
            s.due <= now || s.base.is_some() || s.cursor.is_some_and(|c| runs.run(s.run).is_urgent(c))
        };
        let dirty = &mut self.dirty;
        self.later.retain(|id| {
            let ready = ready(id);
            if ready {
                dirty.push_back(*id);
            }
            !ready
        });
        for _ in 0..self.dirty.len() {
            if size >= MAX_WRITE || self.plan.len() >= MAX_PIECES {
                break;
            }
            let Some(id) = self.dirty.pop_front() else { break };
            let s = &mut self.subscriptions[id];
            if let Some(base) = &s.base {
                size += base.frame.len();
                self.plan.push((Piece::Base(id), base.frame.len()));
                self.dirty.push_back(id);
                continue;
            }
            let run = runs.run(s.run);
            let Some(cursor) = s.cursor.filter(|_| !s.awaiting) else {
                s.queued = false;
                continue;
            };
            let pending = run.pending(cursor);
            let waits = matches!(s.conflate, Conflate::Every(_)) && s.due > now && !run.is_urgent(cursor);
            match pending {
                Pending::None => s.queued = false,
                Pending::Frames(_) if waits => self.later.push(id),
                Pending::Frames(n) if n == 1 || s.conflate == Conflate::Raw => {
                    let len = run.bytes(cursor, MAX_WRITE - size.min(MAX_WRITE)).len();
                    size += len;
                    self.plan.push((Piece::Frames(id), len));
                    self.dirty.push_back(id);
                }
                Pending::Frames(_) | Pending::Lapsed => {
                    if let Pending::Frames(n) = pending {
                        self.counters.merged += n - 1;
                    } else {
                        self.counters.lapsed += 1;
                    }
                    s.awaiting = true;
                    s.awaits_delta = true;
                    s.queued = false;
                    self.needs.push(NeedBase { subscription: id, run: s.run, from: s.at });
                }
            }
        }
    }

    /// `written` bytes of the last plan went out. What was not begun stays as it was and is planned anew, from then
    /// newer state.
    pub fn wrote(&mut self, runs: &(impl Runs + ?Sized), mut written: usize, now: i64) {
        self.counters.bytes += written as u64;
        let plan = std::mem::take(&mut self.plan);
        for (piece, len) in &plan {
            if written == 0 {
                break;
            }
            let took = written.min(*len);
            written -= took;
            match *piece {
                Piece::Partial => self.partial = self.partial.slice(took..),
                Piece::Stop(id) => {
                    self.stops.retain(|s| *s != id);
                    if let Some(stop) = self.subscriptions[id].stop.take() {
                        self.keep_rest(&stop, took);
                    }
                }
                Piece::Heartbeat => {
                    self.heartbeat_due = false;
                    self.echo = None;
                    if let Some(frame) = self.heartbeat.take() {
                        self.keep_rest(&frame, took);
                    }
                }
                Piece::Orphan => {
                    if let Some(frame) = self.orphans.pop_front() {
                        self.keep_rest(&frame, took);
                    }
                }
                Piece::Control => {
                    if let Some(frame) = self.control.pop_front() {
                        self.keep_rest(&frame, took);
                    }
                }
                Piece::Base(id) => {
                    let s = &mut self.subscriptions[id];
                    if let Some(base) = s.base.take() {
                        s.due = next_due(s.conflate, now);
                        advance(&mut self.digest, s, base.at);
                        self.keep_rest(&base.frame, took);
                    }
                }
                Piece::Frames(id) => {
                    let s = &mut self.subscriptions[id];
                    let run = runs.run(s.run);
                    if let (Some(cursor), Some(at)) = (s.cursor, s.at) {
                        let (cursor, seq, rest) = run.advance(cursor, took);
                        s.cursor = Some(cursor);
                        s.due = next_due(s.conflate, now);
                        self.partial = Bytes::copy_from_slice(rest);
                        // A client may stand ahead of its gateway: it drops what it has, and does not go back.
                        advance(&mut self.digest, s, Position::new(at.epoch, seq.max(at.seq)));
                    }
                }
            }
        }
        // The plan's buffer is kept for the next one.
        self.plan = plan;
        self.plan.clear();
        self.forget_served(runs);
    }

    fn keep_rest(&mut self, frame: &Bytes, took: usize) {
        self.partial = frame.slice(took..);
    }

    /// Takes subscriptions that have nothing more before them out of the dirty list.
    fn forget_served(&mut self, runs: &(impl Runs + ?Sized)) {
        let subscriptions = &mut self.subscriptions;
        self.dirty.retain(|id| {
            let s = &mut subscriptions[*id];
            let served =
                s.base.is_none() && s.cursor.is_some_and(|c| runs.run(s.run).pending(c) == Pending::None);
            s.queued = !served;
            !served
        });
    }

    /// Bytes of a frame that was begun: they go out before anything else.
    #[must_use]
    pub fn unfinished(&self) -> usize {
        self.partial.len()
    }

    /// Whether anything is waiting to go out, as far as is known without planning.
    #[must_use]
    pub fn has_output(&self) -> bool {
        !self.partial.is_empty()
            || !self.stops.is_empty()
            || !self.orphans.is_empty()
            || !self.control.is_empty()
            || self.heartbeat_due
            || !self.dirty.is_empty()
    }
}

fn next_due(conflate: Conflate, now: i64) -> i64 {
    match conflate {
        Conflate::Every(ms) => now + i64::from(ms),
        _ => i64::MIN,
    }
}

fn advance(digest: &mut u32, subscription: &mut Subscription, at: Position) {
    if let Some(key) = subscription.digest_key {
        if let Some(before) = subscription.at {
            *digest = digest.wrapping_sub(mix(key, before.seq));
        }
        *digest = digest.wrapping_add(mix(key, at.seq));
    }
    subscription.at = Some(at);
}
