//! One client: its socket, what it follows, and where it stands.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use socket2::SockRef;
use tictac_proto::checksum::mix;
use tictac_proto::position::Position;
use tictac_proto::wire::{Codec, Resume, Scope, Subscribe, Up};

use super::asking::{asked, known};
use super::frames::{self, Cut};
use super::judge::{Judge, Place, Seen};
use super::{Pace, Plan, Totals, Transport, events};
use crate::pulse::now_us;

/// Reads in one turn of the loop.
const READS: usize = 4;
/// What the system may receive for a client that reads slowly, bytes.
const SLOW_BUFFER: usize = 4_096;
/// The same once it reads as fast as it comes.
const FULL_BUFFER: usize = 256 * 1024;
/// Longest answer to an upgrade.
const MAX_HEAD: usize = 4_096;

/// What came of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Nothing,
    /// There is more to read.
    More,
    /// It has all that it follows, for the first time.
    Ready,
    /// The connection is gone.
    Closed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Upgrading,
    Open,
    Closed,
}

#[derive(Debug)]
pub(super) struct Held {
    pub(super) place: Place,
    pub(super) at: Position,
    in_gap: bool,
    /// It is not known yet, or not known since the last connect, where the gateway stands.
    awaited: bool,
}

#[derive(Debug)]
pub(super) struct Client {
    stream: TcpStream,
    state: State,
    is_ready: bool,
    /// It was there before.
    is_back: bool,
    begun: Instant,
    /// What is still to be sent.
    out: Vec<u8>,
    /// The beginning of a frame.
    rest: Vec<u8>,
    held: Vec<Held>,
    missing: usize,
    /// When it was sent the last frame, in time that the fleet has read.
    heard: Duration,
    /// It was told that it hears nothing.
    is_told: bool,
    /// The newest ping that was echoed, ms of the fleet's clock.
    echo: i64,
    /// When the newest heartbeat that it has read was sent, by the gateway's clock.
    beat: Option<i64>,
    /// When the newest change that it has was due, µs since 1970.
    due: i64,
    /// The judge's number of its last message.
    last: u64,
}

/// A new connection, whose answer is not waited for.
fn dialled(plan: &Plan, number: usize, registry: &Registry) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(plan.address)?;
    if plan.pace(number) != Pace::Full {
        // What the network takes for it is not to hide how slow it is.
        SockRef::from(&stream).set_recv_buffer_size(SLOW_BUFFER)?;
    }
    registry.register(&mut stream, Token(number), Interest::READABLE | Interest::WRITABLE)?;
    Ok(stream)
}

impl Client {
    pub(super) fn connect(
        plan: &Plan,
        number: usize,
        judge: &mut Judge,
        registry: &Registry,
    ) -> std::io::Result<Self> {
        let markets = plan.markets.get(number).map_or(&[][..], |markets| markets);
        let held =
            |market| Held { place: judge.place(market), at: Position::ZERO, in_gap: false, awaited: true };
        let held: Vec<Held> = markets.iter().map(held).collect();
        let out = asked(plan, &held, judge);
        Ok(Self {
            stream: dialled(plan, number, registry)?,
            state: State::Upgrading,
            is_ready: false,
            is_back: false,
            begun: Instant::now(),
            out,
            rest: Vec::new(),
            missing: held.len(),
            held,
            heard: Duration::ZERO,
            is_told: false,
            echo: 0,
            beat: None,
            due: 0,
            last: 0,
        })
    }

    /// Comes back after its connection ended, with the positions that it has.
    pub(super) fn reconnect(
        &mut self,
        plan: &Plan,
        number: usize,
        judge: &Judge,
        registry: &Registry,
    ) -> std::io::Result<()> {
        self.stream = dialled(plan, number, registry)?;
        self.held.iter_mut().for_each(|held| (held.in_gap, held.awaited) = (false, true));
        self.out = asked(plan, &self.held, judge);
        (self.rest, self.beat) = (Vec::new(), None);
        (self.state, self.begun) = (State::Upgrading, Instant::now());
        (self.is_ready, self.is_back, self.missing) = (false, true, self.held.len());
        Ok(())
    }

    /// It takes another's place, as if it had never been there.
    pub(super) fn replaces(self) -> Self {
        Self { is_back: true, ..self }
    }

    /// Whether it has all that it follows.
    pub(super) fn is_ready(&self) -> bool {
        self.is_ready
    }

    /// Ends its connection, as a network does: without a word. Whether there was one.
    pub(super) fn cut(&mut self) -> bool {
        // It is to be as if it had never been: what is not sent is lost, and what has come is not read.
        self.close() == Step::Closed
    }

    /// The socket may take more.
    pub(super) fn writable(&mut self, plan: &Plan) -> Step {
        if self.state == State::Upgrading && self.rest.is_empty() {
            // Fails only where the socket is closed already.
            let _ = self.stream.set_nodelay(!plan.floor);
        }
        self.send()
    }

    fn send(&mut self) -> Step {
        while !self.out.is_empty() && self.state != State::Closed {
            match self.stream.write(&self.out) {
                Ok(count) => drop(self.out.drain(..count)),
                Err(error)
                    if error.kind() == ErrorKind::WouldBlock || error.kind() == ErrorKind::NotConnected =>
                {
                    return Step::Nothing;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return self.close(),
            }
        }
        if self.out.is_empty() {
            self.out = Vec::new();
        }
        Step::Nothing
    }

    fn say(&mut self, plan: &Plan, message: &Up) -> Step {
        frames::push(&mut self.out, plan.codec == Codec::Json, &plan.codec.encode(message));
        self.send()
    }

    pub(super) fn ping(&mut self, plan: &Plan, time: i64) -> Step {
        // One that has not taken the last ones would only be sent more of them.
        if self.state != State::Open || !self.out.is_empty() || plan.transport == Transport::Sse {
            return Step::Nothing;
        }
        self.say(plan, &Up::Ping { time, read: self.beat })
    }

    fn close(&mut self) -> Step {
        if std::mem::replace(&mut self.state, State::Closed) == State::Closed {
            return Step::Nothing;
        }
        // Fails only where it is closed already.
        let _ = self.stream.shutdown(Shutdown::Both);
        Step::Closed
    }

    /// Reads and takes in what there is, at most so many bytes.
    pub(super) fn read(
        &mut self,
        plan: &Plan,
        buffer: &mut [u8],
        most: usize,
        judge: &mut Judge,
        totals: &mut Totals,
    ) -> Step {
        let mut left = most;
        if self.state == State::Closed {
            return Step::Nothing;
        }
        let was_ready = self.is_ready;
        for _ in 0..READS {
            let kept = self.rest.len();
            buffer[..kept].copy_from_slice(&self.rest);
            let room = kept.saturating_add(left).min(buffer.len());
            if room == kept {
                return self.turned(was_ready, totals);
            }
            let count = match self.stream.read(&mut buffer[kept..room]) {
                Ok(0) => return self.close(),
                Ok(count) => count,
                Err(error)
                    if error.kind() == ErrorKind::WouldBlock || error.kind() == ErrorKind::NotConnected =>
                {
                    return self.turned(was_ready, totals);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return self.close(),
            };
            left -= count.min(left);
            totals.bytes += count as u64;
            totals.reads += 1;
            let filled = &buffer[..kept + count];
            let Some(taken) = self.take(plan, filled, judge, totals) else { return self.close() };
            self.rest.clear();
            self.rest.extend_from_slice(&filled[taken..]);
            if self.rest.capacity() > 4_096 && self.rest.len() < 256 {
                self.rest.shrink_to_fit();
            }
            if self.rest.len() >= buffer.len() {
                judge.mistake(|| "a frame larger than any that a gateway sends".into());
                return self.close();
            }
        }
        match self.turned(was_ready, totals) {
            Step::Nothing => Step::More,
            other => other,
        }
    }

    fn turned(&self, was_ready: bool, totals: &mut Totals) -> Step {
        if was_ready || !self.is_ready {
            return Step::Nothing;
        }
        totals.ready.saturating_record(u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX));
        Step::Ready
    }

    /// Takes in whole frames; how many bytes those were, or `None` where the connection is to be closed.
    fn take(&mut self, plan: &Plan, filled: &[u8], judge: &mut Judge, totals: &mut Totals) -> Option<usize> {
        let mut taken = 0;
        if self.state == State::Upgrading {
            let Some(end) = filled.windows(4).position(|four| four == b"\r\n\r\n") else {
                return (filled.len() < MAX_HEAD).then_some(0);
            };
            let expected: &[u8] = if self.streams(plan) { b"HTTP/1.1 200" } else { b"HTTP/1.1 101" };
            if !filled.starts_with(expected) {
                judge.mistake(|| format!("not let in: {}", String::from_utf8_lossy(&filled[..end.min(200)])));
                return None;
            }
            totals.answered += 1;
            (taken, self.state) = (end + 4, State::Open);
            self.opened(plan, judge);
        }
        let (now, streams) = (now_us(), self.streams(plan));
        loop {
            if let Some((length, seen)) = judge.next(&filled[taken..], &mut self.last) {
                taken += length;
                totals.frames += 1;
                self.saw(seen, now, judge, totals);
                continue;
            }
            match if streams { events::cut(&filled[taken..]) } else { frames::cut(&filled[taken..]) } {
                Cut::Data(payload, length) => {
                    let frame = &filled[taken..taken + length];
                    taken += length;
                    totals.frames += 1;
                    self.handle(frame, payload, now, judge, totals);
                }
                Cut::Control(8, payload, _) => {
                    let code = payload.get(..2).map_or(1005, |code| u16::from_be_bytes([code[0], code[1]]));
                    judge.mistake(|| format!("closed with {code}"));
                    return None;
                }
                Cut::Control(_, _, length) => taken += length,
                Cut::More => return Some(taken),
                Cut::Bad(why) => {
                    judge.mistake(|| why.into());
                    return None;
                }
            }
        }
    }

    /// It hears events, and says nothing more.
    fn streams(&self, plan: &Plan) -> bool {
        plan.transport == Transport::Sse && !plan.floor
    }

    fn opened(&mut self, plan: &Plan, judge: &Judge) {
        if plan.floor {
            self.is_ready = true;
            return;
        }
        if self.streams(plan) {
            return;
        }
        let markets = self.held.iter().map(|held| judge.market(held.place).clone()).collect();
        let subscribe = Subscribe {
            id: 1,
            scope: Scope::Markets(markets),
            view: plan.view,
            conflate: plan.conflate,
            resume: Resume { markets: known(&self.held, judge).into(), ..Resume::default() },
        };
        // A connection that breaks meanwhile is found broken when it is read.
        let _ = self.say(plan, &Up::Sub(subscribe));
    }

    fn handle(&mut self, frame: &[u8], payload: &[u8], now: i64, judge: &mut Judge, totals: &mut Totals) {
        if let Some(heartbeat) = judge.heartbeat(payload) {
            self.beat = Some(heartbeat.now);
            self.echo = heartbeat.echo.map_or(self.echo, |echo| echo.max(self.echo));
            let share = |held: &Held| mix(judge.digest_key(held.place), held.at.seq);
            let known = self.held.iter().filter(|held| !held.awaited);
            let digest = known.map(share).fold(0, u32::wrapping_add);
            if digest == heartbeat.digest {
                totals.digests += 1;
            } else {
                totals.wrong_digests += 1;
                judge.mistake(|| format!("a digest of {}, the gateway says {}", digest, heartbeat.digest));
            }
            return;
        }
        if judge.welcome(payload) {
            return;
        }
        let seen = judge.see(frame, payload, &mut self.last);
        self.saw(seen, now, judge, totals);
    }

    fn saw(&mut self, seen: Seen, now: i64, judge: &mut Judge, totals: &mut Totals) {
        match seen {
            Seen::Delta { place, epoch, prev, seq, due } => {
                let Some(held) = self.held.iter_mut().find(|held| held.place == place) else { return };
                if epoch == held.at.epoch && seq <= held.at.seq {
                    totals.old += 1;
                } else if epoch == held.at.epoch && prev <= held.at.seq && !held.in_gap {
                    held.at.seq = seq;
                    totals.deltas += 1;
                    if let Some(due) = due {
                        self.due = due.max(self.due);
                        if let Some(us) = totals.early.checked(now - due) {
                            totals.latency.saturating_record(us);
                        }
                    }
                    if held.awaited {
                        totals.caught_up += 1;
                        self.settle(place);
                    }
                } else if !held.in_gap {
                    held.in_gap = true;
                    totals.undeclared += 1;
                    let at = held.at;
                    judge.mistake(|| format!("a gap that was not declared: from {at} to {epoch}-{prev}"));
                }
            }
            Seen::Snapshot { place, at } => {
                totals.snapshots += 1;
                if let Some(held) = self.held.iter_mut().find(|held| held.place == place) {
                    (held.at, held.in_gap) = (at.max(held.at), false);
                }
                self.settle(place);
            }
            Seen::Exact { place } => {
                totals.exact += 1;
                self.settle(place);
            }
            Seen::Stop { due } => {
                if let Some(us) = due.and_then(|due| totals.early.checked(now - due)) {
                    totals.stops.saturating_record(us);
                }
            }
            Seen::Gap { place } => {
                totals.declared += 1;
                if let Some(held) = self.held.iter_mut().find(|held| held.place == place) {
                    held.in_gap = true;
                }
            }
            Seen::Floor { due } => {
                totals.deltas += 1;
                if let Some(us) = totals.early.checked(now - due) {
                    totals.latency.saturating_record(us);
                }
            }
            Seen::Gone { place } => self.lose(place),
            // It went while nobody was there to hear it.
            Seen::Unknown { place } if self.is_back => self.lose(place),
            Seen::Unknown { place } => {
                let market = judge.market(place).clone();
                judge.mistake(|| format!("refused: the gateway has no market {market}"));
            }
            Seen::Bye(code) => judge.mistake(|| format!("sent away with {code}")),
            Seen::Taken | Seen::Refused | Seen::Other | Seen::Wrong => {}
        }
    }

    /// How old its newest echo is at this time of the fleet's clock, and how old the newest change that it has, both in ms.
    pub(super) fn ages(&self, now: i64) -> (i64, i64) {
        (now - self.echo, (now_us() - self.due) / 1_000)
    }

    /// It reads as fast as it comes from now on.
    pub(super) fn widen(&self) {
        // Where it fails it takes longer.
        let _ = SockRef::from(&self.stream).set_recv_buffer_size(FULL_BUFFER);
    }

    /// It was sent something, at this time that the fleet has read.
    pub(super) fn heard(&mut self, ran: Duration) {
        self.heard = ran;
    }

    /// For how long nothing has come, where that is longer than the bound and is told for the first time.
    pub(super) fn fell_silent(&mut self, ran: Duration, bound: Duration) -> Option<Duration> {
        let silent = ran.saturating_sub(self.heard);
        let news = self.state == State::Open && silent > bound && !self.is_told;
        self.is_told |= news;
        news.then_some(silent)
    }

    /// The markets that it follows and where it stands with each; none once its connection is gone, which is told otherwise.
    pub(super) fn stands(&self) -> impl Iterator<Item = (Place, Position)> {
        let held = if self.state == State::Closed { &[] } else { &self.held[..] };
        held.iter().map(|held| (held.place, held.at))
    }

    /// How many of its books are not the newest.
    pub(super) fn behind(&self, judge: &Judge) -> usize {
        let newest = |held: &&Held| judge.newest(held.place).is_none_or(|(at, _)| at <= held.at);
        self.held.len() - self.held.iter().filter(newest).count()
    }

    /// A market is gone.
    fn lose(&mut self, place: Place) {
        self.settle(place);
        self.held.retain(|held| held.place != place);
    }

    /// It is known where the gateway stands with a market.
    fn settle(&mut self, place: Place) {
        let held = self.held.iter_mut().find(|held| held.place == place);
        if held.is_some_and(|held| std::mem::take(&mut held.awaited)) {
            self.missing -= 1;
            self.is_ready = self.missing == 0;
        }
    }
}
