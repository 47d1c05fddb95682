//! A worker: the thread of one core. It owns the core's sockets, writes session output straight to them when the hub
//! has news, and parks a connection only when its socket is full.

mod accept;
mod conn;
mod messages;
mod run;
mod socket;
mod tap;

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io::{ErrorKind, IoSlice};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;
use tictac_proto::session::Session;
use tictac_proto::wire::{CloseCode, Down, Heartbeat, Welcome};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

pub use accept::{Arrival, Peer, accept, listen};
pub use run::{WorkerParts, run};
pub use socket::{Asked, SocketArrival};
pub use tap::Tap;

use conn::{Conn, Conns, Sink};

use crate::core::{Core, SessionId, Touched};
use crate::feed::HubInput;
use crate::hub::Now;
use crate::limits::{Limits, Pace, Place};
use crate::metrics::Metrics;
use crate::rights::Rights;
use crate::settings::Settings;
use crate::time::Clock;
use crate::transports::{sse, ws};
use crate::wires::{self, Wire};

/// A session that is to be closed and can't be told within this is cut, ms.
const CLOSE_DEADLINE: i64 = 3_000;
/// Silence of the hub after which this core vouches for nothing, ms.
const HUB_SILENCE: i64 = 1_500;
/// How often the shared limits are swept, ms.
const SWEEP_EVERY: i64 = 5_000;
/// Unreadable or refused messages in a row after which a client is closed.
const MAX_BAD: u32 = 20;
/// Pieces up to so many bytes together are put into one.
const SCRATCH: usize = 4 * 1024;
/// Sessions that are looked at ahead of their writes.
const AHEAD: usize = 8;

/// One core's state, shared by the tasks of its thread.
pub(crate) struct Worker {
    core: Core,
    conns: Conns,
    hub: mpsc::Sender<HubInput>,
    asks: VecDeque<HubInput>,
    due: BinaryHeap<Reverse<(i64, SessionId)>>,
    settings: Arc<Settings>,
    limits: Arc<Limits>,
    metrics: Metrics,
    clock: Clock,
    /// When the hub was heard last.
    heard_hub: i64,
    /// When the shared limits are swept next; only the first worker does.
    next_sweep: i64,
    /// When sessions were told to leave, where they were.
    draining: Option<i64>,
    /// Connections' tasks: from their arrival until the client has closed, too.
    tasks: usize,
    /// What a read brings, for all connections: each is taken in at once.
    buffer: Box<[u8]>,
    /// Several small pieces, made one: so a write costs the kernel less.
    scratch: Vec<u8>,
    /// How often connections' tasks went on.
    turns: u64,
    /// A pass follows when clients were heard: what they are to be answered goes with it, in one write.
    pass_is_due: bool,
}

type Shared = Rc<RefCell<Worker>>;

fn vouches(now: i64, heard_hub: i64) -> bool {
    now - heard_hub <= HUB_SILENCE
}

/// What a heartbeat says the time is: never later than what is vouched for, whenever it gets through.
fn beat_time(now: Now, heard_hub: i64) -> i64 {
    if vouches(now.mono, heard_hub) { now.wall } else { now.wall - (now.mono - heard_hub) }
}

enum Flushed {
    Idle,
    More,
    Blocked,
    Dead,
}

impl Worker {
    fn heartbeat_ms(&self) -> i64 {
        i64::from(self.settings.heartbeat_ms)
    }

    fn connect(&mut self, wire: Wire, sink: Sink, place: Option<Arc<Place>>, counted: bool) -> SessionId {
        let now = self.clock.now();
        let two_way = !matches!(wire, Wire::Sse);
        let pause_after = two_way.then_some(self.heartbeat_ms() * 5 / 2);
        let id = self.core.connect(wire, Rights::All, pause_after, now);
        let conn = Conn {
            sink,
            blocked: false,
            next_beat: now.mono + self.heartbeat_ms(),
            blocked_since: None,
            paused_since: None,
            close_by: None,
            dead: false,
            said_bye: false,
            scheduled: None,
            pace: Pace::new(&self.settings),
            bad: 0,
            counted,
            _place: place,
        };
        self.conns.insert(id, conn);
        if counted {
            self.metrics.sessions[wire as usize].inc();
            self.metrics.opened[wire as usize].inc();
        }
        let welcome = Welcome {
            connection: format!("{:032x}", rand::random::<u128>()),
            heartbeat: u64::from(self.settings.heartbeat_ms),
            now: now.wall,
            limits: vec![
                ("subscriptions".into(), self.settings.subscriptions as i64),
                ("messages_per_second".into(), i64::from(self.settings.messages)),
                ("snapshots_per_second".into(), i64::from(self.settings.snapshots)),
                ("message_bytes".into(), i64::from(self.settings.message_bytes)),
            ],
        };
        self.core.tell(id, "welcome", &Down::Welcome(welcome));
        if self.draining.is_some() {
            self.core.close(id, CloseCode::Restart, "the gateway restarts");
        }
        id
    }

    fn disconnect(&mut self, id: SessionId) {
        let Some(client) = self.core.client(id) else { return };
        let counters = client.session.counters();
        self.metrics.merged.inc_by(counters.merged);
        self.metrics.lapsed.inc_by(counters.lapsed);
        if self.conns.get(id).is_some_and(|conn| conn.paused_since.is_some()) {
            self.metrics.paused.dec();
        }
        if self.conns.get(id).is_some_and(|conn| conn.counted) {
            self.metrics.sessions[client.wire as usize].dec();
            let code = self.core.closing(id).map_or(1000, |(code, _)| code.code());
            self.metrics.closed.with_label_values(&[&code.to_string()]).inc();
        }
        self.core.disconnect(id);
        self.conns.remove(id);
        self.ask();
    }

    /// Writes to whoever was touched: by its own message, or by its time.
    fn flush_touched(&mut self) {
        let (touched, stops) = (self.core.take_touched(), self.core.take_stops_said());
        self.flush_all(&touched, |_| {});
        self.measure_stops(stops);
    }

    /// Writes what they have to each; `between` is called now and then.
    fn flush_all(&mut self, all: &[Touched], mut between: impl FnMut(&mut Self)) {
        let mut rest = all.iter().skip(1);
        for some in all.chunks(AHEAD) {
            self.core.look_ahead(some);
            self.conns.look_ahead(some.iter().map(|due| due.session()));
            let now = self.clock.mono();
            for due in some {
                self.core.tell_news(*due);
                // It has all its news.
                if rest.next().is_none_or(|next| next.session() != due.session()) {
                    self.flush_at(due.session(), now);
                }
            }
            between(self);
        }
        self.ask();
    }

    fn flush(&mut self, id: SessionId) {
        self.flush_at(id, self.clock.mono());
    }

    fn flush_at(&mut self, id: SessionId, now: i64) {
        self.finish_closing(id, now);
        let Some(conn) = self.conns.get_mut(id) else { return };
        let Sink::Socket(line) = &conn.sink else {
            conn.wake();
            return;
        };
        if conn.blocked || conn.dead {
            return;
        }
        let line = line.clone();
        loop {
            match self.write_once(id, &line.stream, now) {
                Flushed::More => {}
                Flushed::Idle => {
                    self.schedule(id, now);
                    self.end_if_closing(id);
                    return;
                }
                Flushed::Blocked => {
                    if let Some(conn) = self.conns.get_mut(id) {
                        conn.blocked_since.get_or_insert(now);
                        conn.blocked = true;
                        conn.wake();
                    }
                    return;
                }
                Flushed::Dead => {
                    self.kill(id);
                    return;
                }
            }
        }
    }

    fn vouches(&self, now: i64) -> bool {
        vouches(now, self.heard_hub)
    }

    fn kill(&mut self, id: SessionId) {
        if let Some(conn) = self.conns.get_mut(id) {
            conn.kill();
        }
    }

    fn write_once(&mut self, id: SessionId, stream: &TcpStream, now: i64) -> Flushed {
        let token = self.token(id);
        // An echo says that what was sent is fresh: without the hub nobody can.
        let (vouches, heard_hub, clock) = (self.vouches(now), self.heard_hub, self.clock);
        let (scratch, mut sent, mut told) = (&mut self.scratch, 0, false);
        let flushed = self.core.output(id, |session, wire, runs| {
            let beats = session.beats();
            let chunks = session.plan(runs, now, |behind, echo, digest| {
                let echo = echo.filter(|_| vouches);
                let now = beat_time(clock.now(), heard_hub);
                let beat = Down::Hb(Heartbeat { now, echo, behind, as_of: None, digest });
                match &token {
                    None => wire.frame("hb", beat),
                    Some(token) => wires::sse("hb", Some(token), beat),
                }
            });
            let total: usize = chunks.iter().map(|c| c.len()).sum();
            let tried = match &chunks[..] {
                _ if total == 0 => return Flushed::Idle,
                // A plain send costs the kernel less.
                [one] => conn::send(stream, one),
                few if total <= SCRATCH => {
                    scratch.clear();
                    few.iter().for_each(|chunk| scratch.extend_from_slice(chunk));
                    conn::send(stream, scratch)
                }
                more => {
                    let slices: SmallVec<[IoSlice<'_>; 8]> = more.iter().map(|c| IoSlice::new(c)).collect();
                    stream.try_write_vectored(&slices)
                }
            };
            let written = match tried {
                Ok(0) => return Flushed::Dead,
                Ok(n) => n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Flushed::Blocked,
                Err(_) => return Flushed::Dead,
            };
            drop(chunks);
            session.wrote(runs, written, now);
            (sent, told) = (written, beats && !session.beats());
            match (written == total, session.has_output()) {
                (false, _) => Flushed::Blocked,
                (true, true) => Flushed::More,
                (true, false) => Flushed::Idle,
            }
        });
        self.metrics.bytes.inc_by(sent as u64);
        if told {
            self.told(id, now);
            self.count_paused(id, now);
        }
        flushed.unwrap_or(Flushed::Dead)
    }

    /// A heartbeat was written: the next one is due so much later.
    fn told(&mut self, id: SessionId, now: i64) {
        let one_way = self.core.client(id).is_some_and(|client| client.wire == Wire::Sse);
        let beat = self.heartbeat_ms();
        if let Some(conn) = self.conns.get_mut(id) {
            // Who pings once an interval is told by the answers.
            conn.next_beat = now + if one_way { beat } else { beat + beat / 4 };
        }
    }

    /// Counts the session among those whose prices pause, or no longer.
    fn count_paused(&mut self, id: SessionId, now: i64) {
        let paused = self.core.client(id).is_some_and(|client| client.session.is_paused(now));
        let Some(conn) = self.conns.get_mut(id) else { return };
        match (conn.paused_since, paused) {
            (None, true) => {
                conn.paused_since = Some(now);
                self.metrics.paused.inc();
            }
            (Some(_), false) => {
                conn.paused_since = None;
                self.metrics.paused.dec();
            }
            _ => {}
        }
    }

    /// The id that the next heartbeat of a stream carries, if one is due.
    fn token(&self, id: SessionId) -> Option<String> {
        let beats = self.core.client(id).is_some_and(|c| c.wire == Wire::Sse && c.session.beats());
        beats.then(|| sse::token(&self.core.resume_token(id)))
    }

    /// Everything that a tap can be given now, as one piece; `None` where there is nothing.
    fn next_piece(&mut self, id: SessionId) -> Option<Bytes> {
        let now = self.clock.now();
        let token = self.token(id);
        let time = beat_time(now, self.heard_hub);
        let piece = self.core.output(id, |session, _, runs| {
            let chunks = session.plan(runs, now.mono, |behind, echo, digest| {
                let beat = Heartbeat { now: time, echo, behind, as_of: None, digest };
                wires::sse("hb", token.as_deref(), Down::Hb(beat))
            });
            let piece: Vec<u8> = chunks.concat();
            let written = piece.len();
            drop(chunks);
            session.wrote(runs, written, now.mono);
            Bytes::from(piece)
        })?;
        self.metrics.bytes.inc_by(piece.len() as u64);
        self.schedule(id, now.mono);
        self.ask();
        (!piece.is_empty()).then_some(piece)
    }

    /// Remembers when a conflation interval ends.
    fn schedule(&mut self, id: SessionId, now: i64) {
        // A paused session has nothing to plan: its client's ping flushes it.
        let session = self.core.client(id).map(|c| &c.session).filter(|s| !s.is_paused(now));
        let (Some(due), Some(conn)) = (session.and_then(Session::next_due), self.conns.get_mut(id)) else {
            return;
        };
        if conn.scheduled.is_none_or(|scheduled| due < scheduled) {
            conn.scheduled = Some(due);
            self.due.push(Reverse((due, id)));
        }
    }

    /// Tells a session that is to be closed, once.
    fn finish_closing(&mut self, id: SessionId, now: i64) {
        let Some((code, why)) = self.core.closing(id).map(|(c, w)| (c, w.to_owned())) else { return };
        let Some(conn) = self.conns.get_mut(id) else { return };
        if conn.close_by.is_some() {
            return;
        }
        conn.close_by = Some(now + CLOSE_DEADLINE);
        let retry = match code {
            CloseCode::Restart => rand::random_range(100..5_000),
            CloseCode::Slow | CloseCode::Rate => 5_000,
            _ => 0,
        };
        self.core.tell(id, "bye", &Down::Bye { code: code.code(), why: why.clone(), retry });
        if matches!(self.core.client(id).map(|c| c.wire), Some(Wire::WsJson | Wire::WsMsgpack)) {
            self.core.control(id, ws::close_frame(code, &why));
        }
    }

    fn end_if_closing(&mut self, id: SessionId) {
        if let Some(conn) = self.conns.get_mut(id).filter(|c| c.close_by.is_some()) {
            conn.said_bye = true;
            self.kill(id);
        }
    }

    /// Bounds of time: heartbeats, conflation intervals, idle and stuck clients.
    fn tick(&mut self) {
        let now = self.clock.now().mono;
        let mut ended = Vec::new();
        while self.due.peek().is_some_and(|Reverse((due, _))| *due <= now) {
            let Some(Reverse((due, id))) = self.due.pop() else { break };
            if let Some(conn) = self.conns.get_mut(id).filter(|c| c.scheduled == Some(due)) {
                conn.scheduled = None;
                ended.push(id);
            }
        }
        for id in ended {
            self.flush(id);
        }
        if now >= self.next_sweep {
            self.next_sweep = now + SWEEP_EVERY;
            self.limits.sweep();
        }
        let beat = self.heartbeat_ms();
        let slow = i64::from(self.settings.slow_ms);
        let (mut stuck, mut beats, mut waiting) = (Vec::new(), Vec::new(), Vec::new());
        let mut blocked = Vec::new();
        for (id, conn) in self.conns.iter_mut() {
            if conn.close_by.is_some_and(|by| now > by) {
                conn.kill();
            } else if conn.blocked_since.is_some_and(|since| now - since > slow) {
                stuck.push(id);
            } else if now >= conn.next_beat {
                conn.next_beat = now + beat;
                beats.push(id);
            } else if conn.paused_since.is_some_and(|since| now - since > slow) {
                waiting.push(id);
            } else if conn.blocked && conn.paused_since.is_none() {
                // It gets no heartbeat with which it would be counted.
                blocked.push(id);
            }
        }
        for id in blocked {
            self.count_paused(id, now);
        }
        for id in waiting {
            // One that is silent is idle, which is another matter.
            if self.core.client(id).is_some_and(|client| !client.session.is_silent(now)) {
                self.core.close(id, CloseCode::Slow, "what it was sent was not read for too long");
            }
        }
        for id in stuck {
            self.core.close(id, CloseCode::Slow, "nothing was taken for too long");
            self.finish_closing(id, now);
        }
        for id in beats {
            self.beat(id, now);
        }
        self.flush_touched();
    }

    fn beat(&mut self, id: SessionId, now: i64) {
        let idle = self.heartbeat_ms() * 30;
        let Some(client) = self.core.client(id) else { return };
        if client.wire != Wire::Sse && now - client.session.heard() > idle {
            self.core.close(id, CloseCode::Idle, "no ping was heard for 30 heartbeats");
        } else if client.wire != Wire::Sse || self.vouches(now) {
            self.core.output(id, |session, _, _| session.beat());
        }
        self.flush(id);
    }
}
