//! What goes out next, and what did: the order of a connection's bytes.

use std::collections::VecDeque;

use bytes::Bytes;
use smallvec::SmallVec;

use super::{MAX_WRITE, NeedBase, Runs, Session, advance};
use crate::position::Position;
use crate::run::Pending;
use crate::wire::Conflate;

/// Pieces planned for one write.
const MAX_PIECES: usize = 64;

/// Frames that are not merged for a client that is told as fast as it reads.
const FEW: u64 = 4;

/// What goes out, and of how many bytes it is.
pub(super) type Plan = SmallVec<[(Piece, u32); 4]>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece {
    Partial,
    Stop(u32),
    Orphan,
    Heartbeat,
    Control,
    Base(u32),
    Frames(u32),
}

impl Session {
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
            self.plan.push((Piece::Partial, size as u32));
        }
        for id in self.stops.iter().take(MAX_PIECES) {
            let Some(stop) = &self.subscriptions[*id].stop else { continue };
            self.plan.push((Piece::Stop(*id as u32), stop.len() as u32));
        }
        for frame in self.orphans.iter().flat_map(|orphans| orphans.iter()).take(MAX_PIECES) {
            self.plan.push((Piece::Orphan, frame.len() as u32));
        }
        for frame in self.control.iter().take(MAX_PIECES) {
            size += frame.len();
            self.plan.push((Piece::Control, frame.len() as u32));
        }
        let paused = self.is_paused(now);
        if self.heartbeat_due {
            // It tells where the client stands with what was written before it.
            let frame = heartbeat(self.behind(), self.echo.filter(|_| !paused), self.digest);
            self.plan.push((Piece::Heartbeat, frame.len() as u32));
            self.heartbeat = Some(frame);
        }
        if !paused {
            self.plan_subscriptions(runs, now, size);
        }
        let mut orphans = self.orphans();
        let mut controls = self.control.iter();
        let mut slices = SmallVec::new();
        for (piece, len) in &self.plan {
            slices.push(match piece {
                Piece::Partial => &self.partial[..],
                Piece::Stop(id) => {
                    self.subscriptions[*id as usize].stop.as_ref().map_or(&[][..], |stop| &stop[..])
                }
                Piece::Orphan => orphans.next().map_or(&[][..], |c| &c[..]),
                Piece::Heartbeat => self.heartbeat.as_deref().unwrap_or(&[]),
                Piece::Control => controls.next().map_or(&[][..], |c| &c[..]),
                Piece::Base(id) => {
                    self.subscriptions[*id as usize].base.as_ref().map_or(&[][..], |b| &b.frame[..])
                }
                Piece::Frames(id) => {
                    let subscription = &self.subscriptions[*id as usize];
                    let run = runs.run(subscription.run as usize);
                    subscription.cursor.map_or(&[][..], |c| run.bytes(c, *len as usize))
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
            s.due <= now
                || s.base.is_some()
                || s.cursor.is_some_and(|c| runs.run(s.run as usize).is_urgent(c))
        };
        let dirty = &mut self.dirty;
        self.later.retain(|id| {
            let ready = ready(id);
            if ready {
                dirty.push(*id as u32);
            }
            !ready
        });
        // What is served goes behind what could not be looked at yet.
        let (mut looked, mut served) = (0, SmallVec::<[u32; 4]>::new());
        for id in &self.dirty {
            if size >= MAX_WRITE || self.plan.len() >= MAX_PIECES {
                break;
            }
            looked += 1;
            let id = *id as usize;
            let s = &mut self.subscriptions[id];
            if let Some(base) = &s.base {
                size += base.frame.len();
                self.plan.push((Piece::Base(id as u32), base.frame.len() as u32));
                served.push(id as u32);
                continue;
            }
            let run = runs.run(s.run as usize);
            let Some(cursor) = s.cursor.filter(|_| !s.awaiting) else {
                s.queued = false;
                continue;
            };
            let pending = run.pending(cursor);
            let waits = matches!(s.conflate, Conflate::Every(_)) && s.due > now && !run.is_urgent(cursor);
            match pending {
                Pending::None => s.queued = false,
                Pending::Frames(_) if waits => self.later.push(id),
                Pending::Frames(n) if goes_as_it_is(s.conflate, n) => {
                    let len = run.bytes(cursor, MAX_WRITE - size.min(MAX_WRITE)).len();
                    size += len;
                    self.plan.push((Piece::Frames(id as u32), len as u32));
                    served.push(id as u32);
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
                    self.needs.push(NeedBase { subscription: id, run: s.run as usize, from: s.at });
                }
            }
        }
        self.dirty.drain(..looked);
        self.dirty.append(&mut served);
    }

    /// `written` bytes of the last plan went out. What was not begun stays as it was and is planned anew, from then
    /// newer state.
    pub fn wrote(&mut self, runs: &(impl Runs + ?Sized), mut written: usize, now: i64) {
        let mut end = self.counters.bytes;
        self.counters.bytes += written as u64;
        let plan = std::mem::take(&mut self.plan);
        for (piece, len) in &plan {
            if written == 0 {
                break;
            }
            let took = written.min(*len as usize);
            written -= took;
            end += u64::from(*len);
            match *piece {
                Piece::Partial => self.partial = self.partial.slice(took..),
                Piece::Stop(id) => {
                    let id = id as usize;
                    self.stops.retain(|s| *s != id);
                    if let Some(stop) = self.subscriptions[id].stop.take() {
                        self.keep_rest(&stop, took);
                    }
                }
                Piece::Heartbeat => {
                    self.heartbeat_due = false;
                    self.echo = None;
                    self.unseen.sent(now, end);
                    if let Some(frame) = self.heartbeat.take() {
                        self.keep_rest(&frame, took);
                    }
                }
                Piece::Orphan => {
                    if let Some(frame) = self.orphans.as_mut().and_then(|orphans| orphans.pop_front()) {
                        self.keep_rest(&frame, took);
                    }
                    self.orphans.take_if(|orphans| orphans.is_empty());
                }
                Piece::Control => {
                    if let Some(frame) = self.control.pop_front() {
                        self.keep_rest(&frame, took);
                    }
                }
                Piece::Base(id) => {
                    let s = &mut self.subscriptions[id as usize];
                    if let Some(base) = s.base.take() {
                        s.due = next_due(s.conflate, now);
                        advance(&mut self.digest, s, base.at);
                        self.keep_rest(&base.frame, took);
                    }
                }
                Piece::Frames(id) => {
                    let s = &mut self.subscriptions[id as usize];
                    let run = runs.run(s.run as usize);
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
        self.forget_served(runs);
        // A client that is not talked to keeps no room.
        if self.control.is_empty() && self.control.capacity() > 0 {
            self.control = VecDeque::new();
        }
        if self.dirty.is_empty() && self.dirty.spilled() {
            self.dirty = SmallVec::new();
        }
    }

    fn keep_rest(&mut self, frame: &Bytes, took: usize) {
        self.partial = frame.slice(took..);
    }

    /// Takes subscriptions that have nothing more before them out of the dirty list.
    fn forget_served(&mut self, runs: &(impl Runs + ?Sized)) {
        let subscriptions = &mut self.subscriptions;
        self.dirty.retain(|id| {
            let s = &mut subscriptions[*id as usize];
            let served = s.base.is_none()
                && s.cursor.is_some_and(|c| runs.run(s.run as usize).pending(c) == Pending::None);
            s.queued = !served;
            !served
        });
    }
}

/// Whether so many frames go out one by one. A merged delta has to be asked for, which for a few small frames costs everybody
/// more than it saves.
fn goes_as_it_is(conflate: Conflate, frames: u64) -> bool {
    match conflate {
        Conflate::Raw => true,
        Conflate::Auto => frames <= FEW,
        Conflate::Every(_) => frames == 1,
    }
}

fn next_due(conflate: Conflate, now: i64) -> i64 {
    match conflate {
        Conflate::Every(ms) => now + i64::from(ms),
        _ => i64::MIN,
    }
}
