//! One client: its socket, what it follows, and where it stands.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::time::Instant;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use tictac_proto::checksum::mix;
use tictac_proto::position::Position;
use tictac_proto::wire::{Codec, Resume, Scope, Subscribe, Up};

use super::frames::{self, Cut};
use super::judge::{Judge, Place, Seen};
use super::{Plan, Totals};
use crate::pulse::now_us;

/// Reads in one turn of the loop.
const READS: usize = 4;
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
struct Held {
    place: Place,
    at: Position,
    stop: Position,
    in_gap: bool,
}

#[derive(Debug)]
pub(super) struct Client {
    stream: TcpStream,
    state: State,
    is_ready: bool,
    begun: Instant,
    /// What is still to be sent.
    out: Vec<u8>,
    /// The beginning of a frame.
    rest: Vec<u8>,
    held: Vec<Held>,
    missing: usize,
}

impl Client {
    pub(super) fn connect(
        plan: &Plan,
        number: usize,
        judge: &mut Judge,
        registry: &Registry,
    ) -> std::io::Result<Self> {
        let mut stream = TcpStream::connect(plan.address)?;
        registry.register(&mut stream, Token(number), Interest::READABLE | Interest::WRITABLE)?;
        let markets = plan.markets.get(number).map_or(&[][..], |markets| markets);
        let held: Vec<Held> = markets
            .iter()
            .map(|market| Held {
                place: judge.place(market),
                at: Position::ZERO,
                stop: Position::ZERO,
                in_gap: false,
            })
            .collect();
        let protocol = match plan.codec {
            Codec::Json => "odds.v1.json",
            Codec::Msgpack => "odds.v1.msgpack",
        };
        // The key is not random: nobody caches here, and a server may not care.
        let out = format!(
            "GET /v1/ws HTTP/1.1\r\nhost: {}\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGljdGFjdGljdGFjdGljdA==\r\nsec-websocket-protocol: {protocol}\r\n\r\n",
            plan.address
        );
        Ok(Self {
            stream,
            state: State::Upgrading,
            is_ready: false,
            begun: Instant::now(),
            out: out.into_bytes(),
            rest: Vec::new(),
            missing: held.len(),
            held,
        })
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
        if self.state != State::Open || !self.out.is_empty() {
            return Step::Nothing;
        }
        self.say(plan, &Up::Ping { time })
    }

    fn close(&mut self) -> Step {
        if std::mem::replace(&mut self.state, State::Closed) == State::Closed {
            return Step::Nothing;
        }
        // Fails only where it is closed already.
        let _ = self.stream.shutdown(Shutdown::Both);
        Step::Closed
    }

    /// Reads and takes in what there is.
    pub(super) fn read(
        &mut self,
        plan: &Plan,
        buffer: &mut [u8],
        judge: &mut Judge,
        totals: &mut Totals,
    ) -> Step {
        if self.state == State::Closed {
            return Step::Nothing;
        }
        let was_ready = self.is_ready;
        for _ in 0..READS {
            let kept = self.rest.len();
            buffer[..kept].copy_from_slice(&self.rest);
            let count = match self.stream.read(&mut buffer[kept..]) {
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
            if !filled.starts_with(b"HTTP/1.1 101") {
                judge.mistake(|| format!("not let in: {}", String::from_utf8_lossy(&filled[..end.min(200)])));
                return None;
            }
            (taken, self.state) = (end + 4, State::Open);
            self.opened(plan, judge);
        }
        let now = now_us();
        loop {
            match frames::cut(&filled[taken..]) {
                Cut::Data(payload, length) => {
                    taken += length;
                    totals.frames += 1;
                    self.handle(payload, now, judge, totals);
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

    fn opened(&mut self, plan: &Plan, judge: &Judge) {
        if plan.floor {
            self.is_ready = true;
            return;
        }
        let markets = self.held.iter().map(|held| judge.market(held.place).clone()).collect();
        let subscribe = Subscribe {
            id: 1,
            scope: Scope::Markets(markets),
            view: plan.view,
            conflate: plan.conflate,
            resume: Resume::default(),
        };
        // A connection that breaks meanwhile is found broken when it is read.
        let _ = self.say(plan, &Up::Sub(subscribe));
    }

    fn handle(&mut self, payload: &[u8], now: i64, judge: &mut Judge, totals: &mut Totals) {
        if let Some(heartbeat) = judge.heartbeat(payload) {
            let share = |held: &Held| mix(judge.digest_key(held.place), held.at.seq);
            let known = self.held.iter().filter(|held| !held.at.is_zero());
            let digest = known.map(share).fold(0, u32::wrapping_add);
            if digest == heartbeat.digest {
                totals.digests += 1;
            } else {
                totals.wrong_digests += 1;
                judge.mistake(|| format!("a digest of {}, the gateway says {}", digest, heartbeat.digest));
            }
            return;
        }
        if judge.is_welcome(payload) {
            return;
        }
        match judge.see(payload) {
            Seen::Delta { place, epoch, prev, seq, due } => {
                let Some(held) = self.held.iter_mut().find(|held| held.place == place) else { return };
                if epoch == held.at.epoch && seq <= held.at.seq {
                    totals.old += 1;
                } else if epoch == held.at.epoch && prev <= held.at.seq && !held.in_gap {
                    held.at.seq = seq;
                    totals.deltas += 1;
                    if let Some(due) = due {
                        totals.latency.saturating_record(u64::try_from(now - due).unwrap_or(0));
                    }
                } else if !held.in_gap {
                    held.in_gap = true;
                    totals.undeclared += 1;
                    let at = held.at;
                    judge.mistake(|| format!("a gap that was not declared: from {at} to {epoch}-{prev}"));
                }
            }
            Seen::Snapshot { place, at, stop } => {
                totals.snapshots += 1;
                if let Some(held) = self.held.iter_mut().find(|held| held.place == place) {
                    if held.at.is_zero() {
                        self.missing -= 1;
                        self.is_ready = self.missing == 0;
                    }
                    (held.at, held.in_gap) = (at.max(held.at), false);
                    held.stop = stop.max(held.stop);
                }
            }
            Seen::Answer { place, stop, .. } | Seen::Stop { place, at: stop } => {
                if let Some(held) = self.held.iter_mut().find(|held| held.place == place) {
                    held.stop = stop.max(held.stop);
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
                totals.latency.saturating_record(u64::try_from(now - due).unwrap_or(0));
            }
            Seen::Gone { place } => self.held.retain(|held| held.place != place),
            Seen::Bye(code) => judge.mistake(|| format!("sent away with {code}")),
            Seen::Taken | Seen::Refused | Seen::Other | Seen::Wrong => {}
        }
    }
}
