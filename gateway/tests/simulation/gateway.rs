//! A simulated gateway: the real hub and cores, with queues of virtual time between them, to the log and to sockets.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use tictac_gateway::core::{Core, SessionId, SessionLimits};
use tictac_gateway::hub::{FeedCommand, Hub, Now, ToCore, ToHub};
use tictac_gateway::rights::Rights;
use tictac_gateway::wires::{Wire, sse};
use tictac_ingest::log::{Snapshots, Tail};
use tictac_proto::log::Live;
use tictac_proto::model::MarketId;
use tictac_proto::position::Position;
use tictac_proto::wire::{Down, Heartbeat, Up};

use crate::coverage::{Coverage, Fault, Path};
use crate::dice::Dice;
use crate::fake_redis::ShardLog;
use crate::history::History;
use crate::ingest::{LOGS, number};

/// Heartbeats of sessions, ms.
pub const HEARTBEAT: i64 = 1_000;
const TICK: i64 = 250;

enum Item {
    Subscribed,
    Message(Bytes),
}

enum Reply {
    Tail(Tail),
    Snapshots(Snapshots),
}

/// A batch for a core, with the last stops that the hub knew of when it was made.
type Batch = (i64, Vec<ToCore>, Vec<(MarketId, Position)>);

struct CoreSlot {
    core: Core,
    inbox: VecDeque<Batch>,
    outbox: VecDeque<(i64, ToHub)>,
    /// The last stops that this core must have told.
    stops: BTreeMap<MarketId, Position>,
    passes: u64,
}

/// A session's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub gateway: usize,
    pub life: u64,
    pub core: usize,
    pub session: SessionId,
}

/// One socket as the gateway sees it.
#[derive(Debug, Default)]
pub struct Socket {
    /// Bytes in the buffers between gateway and client.
    pub buffer: VecDeque<u8>,
    pub capacity: usize,
    pub written: u64,
    /// Messages on their way up.
    pub up: VecDeque<(i64, Up)>,
    /// (offset, market, stop): what begins at or after the offset comes after the stop.
    pub marks: VecDeque<(u64, MarketId, Position)>,
    marked: BTreeMap<MarketId, Position>,
    next_beat: i64,
    merged: u64,
    lapsed: u64,
    wire: Option<Wire>,
}

/// How the faults of a stretch touch a gateway, in thousandths.
#[derive(Debug, Clone, Copy, Default)]
pub struct Weather {
    pub loss: u32,
    pub duplication: u32,
    pub reordering: u32,
    pub repair_delayed: u32,
    pub repair_failed: u32,
    pub repair_duplicated: u32,
}

pub struct Gateway {
    pub hub: Hub,
    cores: Vec<CoreSlot>,
    live: VecDeque<(i64, usize, Item)>,
    replies: Vec<(i64, usize, Reply)>,
    reads: Vec<(i64, FeedCommand)>,
    active: [bool; LOGS],
    follows: BTreeSet<usize>,
    resubscribe: Option<i64>,
    pub paused_until: i64,
    /// Nothing of the live channel arrives before this.
    pub deaf_until: i64,
    pub life: u64,
    next_tick: i64,
    pub sockets: BTreeMap<(usize, SessionId), Socket>,
    epochs: [u64; LOGS],
    pub heads: [Position; LOGS],
    stops: BTreeMap<MarketId, Position>,
    tails: u64,
    snapshots: u64,
}

fn log_of(shard: u16) -> usize {
    (0..LOGS).find(|l| number(*l) == shard).expect("only these shards are asked for")
}

impl Gateway {
    pub fn new(cores: usize, checksum_interval: i64, life: u64) -> Self {
        let slot = |number| {
            let mut core = Core::new(number, SessionLimits { subscriptions: 64, scopes: 4 });
            core.set_shards(crate::source::SHARDS);
            CoreSlot {
                core,
                inbox: VecDeque::new(),
                outbox: VecDeque::new(),
                stops: BTreeMap::new(),
                passes: 0,
            }
        };
        Self {
            hub: Hub::new(crate::source::SHARDS, cores, checksum_interval),
            cores: (0..cores).map(slot).collect(),
            live: VecDeque::new(),
            replies: Vec::new(),
            reads: Vec::new(),
            active: [false; LOGS],
            follows: BTreeSet::new(),
            resubscribe: None,
            paused_until: 0,
            deaf_until: 0,
            life,
            next_tick: 0,
            sockets: BTreeMap::new(),
            epochs: [0; LOGS],
            heads: [Position::ZERO; LOGS],
            stops: BTreeMap::new(),
            tails: 0,
            snapshots: 0,
        }
    }

    pub fn cores(&self) -> usize {
        self.cores.len()
    }

    /// What the live channel of a log brings here.
    pub fn publish(&mut self, log: usize, bytes: &Bytes, now: Now, weather: &Weather, dice: &mut Dice) {
        if !self.active[log] || now.mono < self.deaf_until || dice.chance(weather.loss) {
            return;
        }
        let due = now.mono + dice.range(0, 4);
        let due = self.live.back().map_or(due, |(last, _, _)| due.max(*last));
        self.live.push_back((due, log, Item::Message(bytes.clone())));
        if dice.chance(weather.duplication) {
            self.live.push_back((due, log, Item::Message(bytes.clone())));
        }
        if dice.chance(weather.reordering) && self.live.len() > 1 {
            let (a, b) = (self.live.len() - 1, self.live.len() - 2 - dice.below(self.live.len() - 1).min(3));
            if matches!(self.live[a].2, Item::Message(_)) && matches!(self.live[b].2, Item::Message(_)) {
                let (due_a, due_b) = (self.live[a].0, self.live[b].0);
                self.live.swap(a, b);
                self.live[a].0 = due_a;
                self.live[b].0 = due_b;
            }
        }
    }

    /// Every subscription breaks and is made anew.
    pub fn lose_subscriptions(&mut self, back_at: i64) {
        self.active = [false; LOGS];
        let shards: Vec<u16> = (0..LOGS).map(number).collect();
        self.hub.lost(&shards);
        self.live.clear();
        self.resubscribe = Some(back_at);
    }

    /// A subscription that is being made anew is made now.
    pub fn hurry(&mut self, now: Now) {
        self.resubscribe = self.resubscribe.map(|at| at.min(now.mono));
    }

    pub fn connect(&mut self, core: usize, wire: Wire, capacity: usize, now: Now) -> SessionId {
        let pause = (wire != Wire::Sse).then_some(HEARTBEAT * 5 / 2);
        let session = self.cores[core].core.connect(wire, Rights::All, pause, now);
        let socket = Socket { capacity, wire: Some(wire), next_beat: now.mono + 100, ..Socket::default() };
        self.sockets.insert((core, session), socket);
        session
    }

    pub fn disconnect(&mut self, core: usize, session: SessionId) {
        self.cores[core].core.disconnect(session);
        self.sockets.remove(&(core, session));
    }

    pub fn step(
        &mut self,
        now: Now,
        logs: &[ShardLog],
        history: &History,
        weather: &Weather,
        dice: &mut Dice,
        cover: &mut Coverage,
    ) {
        if now.mono < self.paused_until {
            return;
        }
        if self.resubscribe.is_some_and(|at| now.mono >= at) {
            self.resubscribe = None;
            for log in self.follows.clone() {
                self.subscribe(log, now, dice);
            }
        }
        self.read_logs(now, logs, weather, dice, cover);
        while self.live.front().is_some_and(|(due, ..)| *due <= now.mono) {
            let Some((_, log, item)) = self.live.pop_front() else { break };
            match item {
                Item::Subscribed => self.hub.subscribed(number(log), now),
                Item::Message(bytes) => {
                    let live = Live::decode(&bytes).expect("what was encoded decodes");
                    let alive = matches!(live, Live::Alive(_));
                    self.hub.live(number(log), live, now);
                    let commands = self.take_commands(now, dice);
                    if alive && commands > 0 {
                        cover.path(Path::LostTailFound, 1);
                    }
                }
            }
            self.hand_out(now, history, dice, cover);
        }
        for i in (0..self.replies.len()).rev() {
            if self.replies[i].0 > now.mono {
                continue;
            }
            let (_, log, reply) = self.replies.swap_remove(i);
            match reply {
                Reply::Tail(t) => self.hub.tail(number(log), t.head, t.entries, t.complete, now),
                Reply::Snapshots(s) => self.hub.snapshots(number(log), s.head, s.markets, s.entries, now),
            }
            self.hand_out(now, history, dice, cover);
        }
        for core in 0..self.cores.len() {
            while self.cores[core].outbox.front().is_some_and(|(due, _)| *due <= now.mono) {
                let Some((_, ask)) = self.cores[core].outbox.pop_front() else { break };
                self.hub.handle(ask, now);
            }
        }
        if now.mono >= self.next_tick {
            self.next_tick = now.mono + TICK;
            self.hub.tick(now);
        }
        self.hand_out(now, history, dice, cover);
        for core in 0..self.cores.len() {
            self.run_core(core, now, dice, cover);
        }
    }

    fn subscribe(&mut self, log: usize, now: Now, dice: &mut Dice) {
        self.active[log] = true;
        let due = now.mono + dice.range(0, 20);
        let due = self.live.back().map_or(due, |(last, _, _)| due.max(*last));
        self.live.push_back((due, log, Item::Subscribed));
    }

    fn take_commands(&mut self, now: Now, dice: &mut Dice) -> usize {
        let commands = self.hub.take_commands();
        let count = commands.len();
        for command in commands {
            match command {
                FeedCommand::Follow(shard) => {
                    let log = log_of(shard);
                    self.follows.insert(log);
                    if self.resubscribe.is_none() {
                        self.subscribe(log, now, dice);
                    }
                }
                FeedCommand::Unfollow(shard) => {
                    let log = log_of(shard);
                    self.follows.remove(&log);
                    self.active[log] = false;
                }
                read => self.reads.push((now.mono + dice.range(0, 10), read)),
            }
        }
        count
    }

    fn read_logs(
        &mut self,
        now: Now,
        logs: &[ShardLog],
        weather: &Weather,
        dice: &mut Dice,
        cover: &mut Coverage,
    ) {
        let (ready, waiting) = std::mem::take(&mut self.reads).into_iter().partition(|r| r.0 <= now.mono);
        self.reads = waiting;
        let ready: Vec<_> = ready;
        for (_, read) in ready {
            if dice.chance(weather.repair_failed) {
                crate::tell!("{} gateway {} can't read {read:?}", now.mono, self.life);
                cover.fault(Fault::RepairFailed);
                continue;
            }
            let twice = dice.chance(weather.repair_duplicated);
            if twice {
                cover.fault(Fault::RepairDuplicated);
            }
            for _ in 0..1 + usize::from(twice) {
                let mut due = now.mono + dice.range(0, 10);
                if dice.chance(weather.repair_delayed) {
                    cover.fault(Fault::RepairDelayed);
                    due += dice.range(50, 4_000);
                }
                crate::tell!("{} gateway {} answers {read:?} at {due}", now.mono, self.life);
                match read {
                    FeedCommand::Tail(shard, after) => {
                        let log = log_of(shard);
                        self.replies.push((due, log, Reply::Tail(logs[log].tail(after))));
                    }
                    FeedCommand::Snapshots(shard) => {
                        let log = log_of(shard);
                        self.replies.push((due, log, Reply::Snapshots(logs[log].snapshots())));
                    }
                    FeedCommand::Follow(_) | FeedCommand::Unfollow(_) => {}
                }
            }
        }
    }

    /// Moves what the hub has to say towards the cores.
    fn hand_out(&mut self, now: Now, history: &History, dice: &mut Dice, cover: &mut Coverage) {
        self.take_commands(now, dice);
        let counters = self.hub.counters();
        cover.path(Path::Tail, counters.tails.saturating_sub(self.tails));
        cover.path(Path::Snapshots, counters.snapshots.saturating_sub(self.snapshots));
        (self.tails, self.snapshots) = (counters.tails, counters.snapshots);
        for core in 0..self.cores.len() {
            let messages = self.hub.take_for_core(core);
            if messages.is_empty() {
                continue;
            }
            for message in &messages {
                crate::tell!("{} gateway {} core {core}: {message:?}", now.mono, self.life);
                if let ToCore::Head { shard, at, .. } = message {
                    let log = log_of(*shard);
                    if at.epoch > self.epochs[log] {
                        cover.path(Path::NewEpoch, u64::from(self.epochs[log] > 0));
                        self.epochs[log] = at.epoch;
                    }
                    self.heads[log] = *at;
                }
            }
            // All that the hub's books have taken in, it knows the stops of.
            let mut raised = Vec::new();
            for market in self.hub.catalogue().map(|m| m.id.clone()).collect::<BTreeSet<_>>() {
                let Some(held) = self.hub.market(&market) else { continue };
                // A stop of an older epoch is over: the new owner's image says what holds, and is a stop where it must.
                let stop = history.stop_at(&market, held.at);
                let stop = if stop.epoch == held.at.epoch { stop } else { Position::ZERO };
                let told = self.stops.entry(market.clone()).or_insert(Position::ZERO);
                if stop > *told {
                    *told = stop;
                }
                raised.push((market, *told));
            }
            let slot = &mut self.cores[core];
            let due = now.mono + dice.range(0, 3);
            let due = slot.inbox.back().map_or(due, |b| due.max(b.0));
            slot.inbox.push_back((due, messages, raised));
        }
    }

    fn run_core(&mut self, core: usize, now: Now, dice: &mut Dice, cover: &mut Coverage) {
        let slot = &mut self.cores[core];
        // In every other step some news come only during the pass.
        slot.passes += 1;
        let early = if slot.passes.is_multiple_of(2) { usize::MAX } else { slot.inbox.len() / 2 };
        for _ in 0..early {
            if !slot.take_news(now) {
                break;
            }
        }
        for ((at, session), socket) in &mut self.sockets {
            if *at != core {
                continue;
            }
            while socket.up.front().is_some_and(|(due, _)| *due <= now.mono) {
                let Some((_, up)) = socket.up.pop_front() else { break };
                slot.core.up(*session, up, now);
            }
        }
        for _ in 0..2 {
            for ask in slot.core.take_asks() {
                let due = now.mono + dice.range(0, 3);
                let due = slot.outbox.back().map_or(due, |o| due.max(o.0));
                slot.outbox.push_back((due, ask));
            }
            let touched = slot.core.take_dirty();
            for ((at, session), socket) in &mut self.sockets {
                if *at == core {
                    // Each is told of its news right before it is written to; others come in meanwhile.
                    for news in touched.iter().filter(|touched| touched.session() == *session) {
                        slot.core.tell_news(*news);
                    }
                    write(&mut slot.core, *session, socket, &slot.stops, now, dice, cover);
                    slot.take_news(now);
                }
            }
        }
    }
}

impl CoreSlot {
    /// Takes in the next batch of news that has come; whether there was one.
    fn take_news(&mut self, now: Now) -> bool {
        if self.inbox.front().is_none_or(|(due, ..)| *due > now.mono) {
            return false;
        }
        let Some((_, messages, stops)) = self.inbox.pop_front() else { return false };
        for message in messages {
            self.core.handle(message);
        }
        for (market, stop) in stops {
            let told = self.stops.entry(market).or_insert(Position::ZERO);
            *told = stop.max(*told);
        }
        true
    }
}

/// Writes as much as the socket takes, cut anywhere.
fn write(
    core: &mut Core,
    id: SessionId,
    socket: &mut Socket,
    stops: &BTreeMap<MarketId, Position>,
    now: Now,
    dice: &mut Dice,
    cover: &mut Coverage,
) {
    let Some(client) = core.client(id) else { return };
    let next = socket.written + client.session.unfinished() as u64;
    for (market, stop) in stops {
        let marked = socket.marked.entry(market.clone()).or_insert(Position::ZERO);
        if *stop > *marked {
            *marked = *stop;
            socket.marks.push_back((next, market.clone(), *stop));
        }
    }
    let beat = now.mono >= socket.next_beat;
    if beat {
        socket.next_beat = now.mono + HEARTBEAT;
    }
    let space = socket.capacity.saturating_sub(socket.buffer.len());
    let token = (socket.wire == Some(Wire::Sse)).then(|| core.resume_token(id));
    let wire = socket.wire.expect("a socket has a wire");
    core.output(id, |session, _, runs| {
        if beat {
            session.beat();
        }
        if space == 0 || !session.has_output() && session.next_due().is_none_or(|due| due > now.mono) {
            return;
        }
        let slices = session.plan(runs, now.mono, |behind, echo, digest| {
            let heartbeat = Heartbeat { now: now.wall, echo, behind, as_of: None, digest };
            match &token {
                Some(token) => {
                    let parts: Vec<String> =
                        token.iter().map(|(s, at)| format!("{s}.{}.{}", at.epoch, at.seq)).collect();
                    sse("hb", Some(&parts.join("-")), Down::Hb(heartbeat))
                }
                None => wire.frame("hb", Down::Hb(heartbeat)),
            }
        });
        let bytes: Vec<u8> = slices.concat();
        drop(slices);
        if session.next_due().is_some() {
            cover.path(Path::Interval, 1);
        }
        let mut took = bytes.len().min(space);
        if took > 1 && dice.chance(250) {
            took = 1 + dice.below(took);
        }
        if took < bytes.len() {
            cover.path(Path::Merged, 0);
        }
        socket.buffer.extend(&bytes[..took]);
        socket.written += took as u64;
        session.wrote(runs, took, now.mono);
        let counters = session.counters();
        cover.path(Path::Merged, u64::from(counters.merged > socket.merged));
        cover.path(Path::Lapsed, counters.lapsed - socket.lapsed);
        (socket.merged, socket.lapsed) = (counters.merged, counters.lapsed);
    });
}
