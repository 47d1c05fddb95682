//! The session: what one connection is still to be sent. It holds cursors, not queues: stops go first, then control
//! frames, then for each subscription either its base (a snapshot or a merged delta) or what its run holds beyond the
//! cursor. Whatever the transport, it asks [`Session::plan`] for the next bytes and tells [`Session::wrote`] how many
//! went out.

mod plan;
mod unseen;

use std::collections::VecDeque;

use bytes::Bytes;
use slab::Slab;
use smallvec::SmallVec;

use plan::Plan;
use unseen::Unseen;

pub use unseen::MAX_UNSEEN;

use crate::checksum::mix;
use crate::position::Position;
use crate::run::{Cursor, Pending, Run};
use crate::wire::Conflate;

/// Control frames that may wait. A client that makes more of them without reading is closed.
pub const MAX_CONTROL: usize = 1_024;
/// Prices of one-way transports never pause.
const NEVER: i64 = i64::MAX;
/// Bytes planned for one write.
pub const MAX_WRITE: usize = 128 * 1024;

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
    run: u32,
    digest_key: Option<u32>,
    conflate: Conflate,
    /// Where the client stands; `None` before its first base.
    at: Option<Position>,
    cursor: Option<Cursor>,
    /// Apart, as most of the time there is none: there are millions of subscriptions.
    base: Option<Box<Base>>,
    awaiting: bool,
    /// Whether the base that is awaited may be a delta.
    awaits_delta: bool,
    /// A snapshot is wanted after it.
    rebase: bool,
    /// In `dirty` or in `later`.
    queued: bool,
    due: i64,
    stop: Option<Box<Bytes>>,
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
    /// What to look at next, in this order; in place, as every delivery goes through it.
    dirty: SmallVec<[u32; 4]>,
    /// Waiting for their conflation interval.
    later: Vec<usize>,
    stops: VecDeque<usize>,
    /// Stops whose subscription ended before they went out.
    #[expect(clippy::box_collection, reason = "hardly ever any, and there are many sessions")]
    orphans: Option<Box<VecDeque<Bytes>>>,
    control: VecDeque<Bytes>,
    partial: Bytes,
    heartbeat: Option<Bytes>,
    heartbeat_due: bool,
    echo: Option<i64>,
    needs: Vec<NeedBase>,
    plan: Plan,
    digest: u32,
    heard: i64,
    /// Of two-way transports: silence of the client after which prices pause, ms. `NEVER` of others.
    pause_after: i64,
    unseen: Unseen,
    counters: SessionCounters,
}

impl Session {
    /// A session of a client that was heard now. `pause_after`: how long a two-way client may be silent before prices
    /// pause (stops and heartbeats never do), and half of how old the newest heartbeat may be that it has read; `None` for
    /// one-way transports.
    #[must_use]
    pub fn new(now: i64, pause_after: Option<i64>) -> Self {
        Self {
            subscriptions: Slab::new(),
            dirty: SmallVec::new(),
            later: Vec::new(),
            stops: VecDeque::new(),
            orphans: None,
            control: VecDeque::new(),
            partial: Bytes::new(),
            heartbeat: None,
            heartbeat_due: false,
            echo: None,
            needs: Vec::new(),
            plan: Plan::new(),
            digest: 0,
            heard: now,
            pause_after: pause_after.unwrap_or(NEVER),
            unseen: Unseen::new(now),
            counters: SessionCounters::default(),
        }
    }

    /// What goes out ahead of everything else, stops included: the answer that opens a connection.
    pub fn begin(&mut self, head: Bytes) {
        self.partial = head;
    }

    /// So many subscriptions come next.
    pub fn reserve(&mut self, subscriptions: usize) {
        self.subscriptions.reserve_exact(subscriptions);
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
            run: run as u32,
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
        self.dirty.retain(|s| *s as usize != id);
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
            self.orphans.get_or_insert_default().push_back(*stop);
        }
        self.orphans().len() <= MAX_CONTROL
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
            self.needs.push(NeedBase { subscription: id, run: subscription.run as usize, from: None });
        }
        subscription.cursor = Some(run.end());
        if base.frame.is_empty() {
            advance(&mut self.digest, subscription, base.at);
        } else {
            subscription.base = Some(Box::new(base));
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
        self.needs.push(NeedBase { subscription: id, run: subscription.run as usize, from: None });
    }

    /// The subscription's run has something new.
    pub fn notify(&mut self, id: usize) {
        let Some(subscription) = self.subscriptions.get_mut(id) else { return };
        if !subscription.queued {
            subscription.queued = true;
            self.dirty.push(id as u32);
        }
    }

    /// A stop for the subscription's market, which goes ahead of everything. A newer one takes an older one's place.
    pub fn stop(&mut self, id: usize, frame: Bytes) {
        let Some(subscription) = self.subscriptions.get_mut(id) else { return };
        if subscription.stop.replace(Box::new(frame)).is_none() {
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

    /// The client pinged: it is heard, and gets a heartbeat that echoes `time`. The newest heartbeat that it has read was
    /// sent at `read`.
    pub fn ping(&mut self, time: i64, read: Option<i64>, now: i64) {
        self.heard = now;
        if let Some(read) = read {
            self.unseen.read(read);
        }
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

    /// Whether the client said nothing for so long that its prices are paused.
    #[must_use]
    pub fn is_silent(&self, now: i64) -> bool {
        self.pause_after != NEVER && now - self.heard > self.pause_after
    }

    /// Whether prices are paused because the client is silent, or has not read what it was sent. It gets no echo then, either:
    /// what it holds is old.
    #[must_use]
    pub fn is_paused(&self, now: i64) -> bool {
        self.is_silent(now)
            || self.pause_after != NEVER
                && (self.unseen.age(now) > 2 * self.pause_after
                    || self.unseen.bytes(self.counters.bytes) > MAX_UNSEEN)
    }

    fn orphans(&self) -> impl ExactSizeIterator<Item = &Bytes> {
        static NONE: VecDeque<Bytes> = VecDeque::new();
        self.orphans.as_deref().unwrap_or(&NONE).iter()
    }

    /// Subscriptions that need a base, to be asked for and answered by [`Session::base`].
    pub fn needs(&mut self) -> Vec<NeedBase> {
        std::mem::take(&mut self.needs)
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

    /// The runs of subscriptions that are behind, be it that they were not told of it yet, with where the client stands.
    pub fn behind_runs<'a>(
        &'a self,
        runs: &'a (impl Runs + ?Sized),
    ) -> impl Iterator<Item = (usize, Option<Position>)> + 'a {
        let unread = |s: &Subscription| s.cursor.map(|c| runs.run(s.run as usize).pending(c));
        let behind = move |s: &&Subscription| s.queued || s.awaiting || unread(s) != Some(Pending::None);
        self.subscriptions.iter().map(|(_, s)| s).filter(behind).map(|s| (s.run as usize, s.at))
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

    /// Reads a little of everything that notifying and planning will read, so that it is near by then. The value means nothing.
    #[must_use]
    pub fn look_ahead(&self, subscription: usize) -> usize {
        let next = self.subscriptions.get(subscription).map_or(0, |s| {
            let (at, cursor) = (s.at.map_or(0, |at| at.seq as usize), usize::from(s.cursor.is_some()));
            at + cursor
                + s.run as usize
                + usize::from(s.queued)
                + usize::from(s.base.is_some())
                + s.due as usize
        });
        let queues = self.partial.len() + self.stops.len() + self.orphans().len() + self.control.len();
        let rest = self.later.len() + self.needs.len() + self.plan.len() + usize::from(self.heartbeat_due);
        let heard = (self.heard ^ self.unseen.age(0)) as usize ^ self.counters.bytes as usize;
        next.wrapping_add(queues + rest + self.dirty.len()) ^ heard
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
            || self.orphans.is_some()
            || !self.control.is_empty()
            || self.heartbeat_due
            || !self.dirty.is_empty()
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
