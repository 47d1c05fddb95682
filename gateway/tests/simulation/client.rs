//! A simulated client: it reads the gateway's real bytes, follows each market and view with the real client core, does
//! what PROTOCOL.md tells a client to do, and checks at every message what must always hold.

use std::collections::BTreeMap;

use tictac_gateway::hub::Now;
use tictac_gateway::wires::Wire;
use tictac_proto::checksum::{digest_key, mix};
use tictac_proto::client::Outcome;
use tictac_proto::model::{MarketField, MarketId, MarketStatus, View};
use tictac_proto::position::Position;
use tictac_proto::wire::{Conflate, Down, Heartbeat, How, Resume, Scope, Subscribe, Subscribed, Up};

use crate::coverage::{Coverage, Path};
use crate::dice::Dice;
use crate::frames::{Frame, Frames};
use crate::gateway::{Place, Socket};
use crate::held::{Held, Wish};
use crate::history::{History, Violation};

pub struct Client {
    pub wire: Wire,
    pub place: Option<Place>,
    pub wishes: Vec<Wish>,
    pub held: BTreeMap<(MarketId, View), Held>,
    /// When a market is asked for again.
    retries: BTreeMap<(MarketId, View), i64>,
    frames: Frames,
    must_know: BTreeMap<MarketId, Position>,
    /// Bytes read a millisecond.
    pub speed: usize,
    next_ping: i64,
    /// When the newest heartbeat was sent that this connection brought, by the gateway's clock.
    beat: Option<i64>,
    pub connect_at: i64,
    /// Whether the next connection brings positions, and in which form.
    pub resume: bool,
    token: Vec<(u16, Position)>,
    barrier: Option<i64>,
    next_id: i64,
    /// The requests of this connection that were not left: answers name their numbers.
    asked: BTreeMap<i64, (Scope, View)>,
}

/// What a message touches beside the client.
pub struct Ear<'a> {
    pub now: Now,
    pub history: &'a mut History,
    pub cover: &'a mut Coverage,
    pub dice: &'a mut Dice,
}

impl Client {
    pub fn new(wire: Wire, wishes: Vec<Wish>, speed: usize, connect_at: i64) -> Self {
        Self {
            wire,
            place: None,
            wishes,
            held: BTreeMap::new(),
            retries: BTreeMap::new(),
            frames: Frames::new(wire),
            must_know: BTreeMap::new(),
            speed,
            next_ping: 0,
            beat: None,
            connect_at,
            resume: false,
            token: Vec::new(),
            barrier: None,
            next_id: 1,
            asked: BTreeMap::new(),
        }
    }

    pub fn is_two_way(&self) -> bool {
        self.wire != Wire::Sse
    }

    /// The connection ended.
    pub fn lost(&mut self, back_at: i64, resume: bool) {
        self.place = None;
        self.asked.clear();
        self.connect_at = back_at;
        self.resume = resume;
        self.frames = Frames::new(self.wire);
        self.must_know.clear();
        self.retries.clear();
        (self.barrier, self.beat) = (None, None);
        if !resume {
            self.held.clear();
            self.token.clear();
        }
        self.held.retain(|_, h| h.market.position().is_some());
        for held in self.held.values_mut() {
            held.market.disconnected();
            held.subscribed = false;
            held.counted = false;
            held.sent = None;
            held.asked = None;
        }
    }

    fn send(&self, socket: &mut Socket, up: &Up, ear: &mut Ear<'_>) {
        crate::tell!("{} {:?} says {up:?}", ear.now.mono, self.place);
        let bytes = self.wire.codec().encode(up);
        let node = self.wire.codec().decode(&bytes).expect("what was encoded decodes");
        let read = Up::read(&node).expect("what was encoded reads");
        assert_eq!(read, *up);
        let due = ear.now.mono + ear.dice.range(0, 15);
        let due = socket.up.back().map_or(due, |u| due.max(u.0));
        socket.up.push_back((due, read));
    }

    /// A new connection is open: everything that the client wants is asked for.
    pub fn connected(&mut self, place: Place, socket: &mut Socket, ear: &mut Ear<'_>) {
        self.place = Some(place);
        self.next_ping = ear.now.mono;
        let by_shard = self.resume && (!self.is_two_way() || ear.dice.chance(300)) && !self.token.is_empty();
        if self.resume && !self.is_two_way() && !by_shard {
            self.held.clear();
        }
        // A market in a gap has no position to come back with.
        self.held.retain(|_, h| !h.market.in_gap());
        if by_shard {
            for held in self.held.values_mut() {
                for (shard, at) in &self.token {
                    held.market.seen_up_to(*shard, *at);
                }
            }
        }
        for wish in self.wishes.clone() {
            let mut resume = Resume::default();
            if self.resume && by_shard {
                resume.shards = self.token.iter().copied().collect();
            } else if self.resume {
                let mine = self.held.iter().filter(|(key, _)| key.1 == wish.view);
                resume.markets =
                    mine.filter_map(|(key, h)| Some((key.0.clone(), h.market.position()?))).collect();
            }
            self.ask(&wish, resume, socket, ear);
        }
    }

    pub fn ask(&mut self, wish: &Wish, mut resume: Resume, socket: &mut Socket, ear: &mut Ear<'_>) {
        let id = self.next_id;
        self.next_id += 1;
        self.asked.insert(id, (wish.scope.clone(), wish.view));
        if let Scope::Markets(markets) = &wish.scope {
            for market in markets {
                let held = self
                    .held
                    .entry((market.clone(), wish.view))
                    .or_insert_with(|| Held::new(market, wish.view));
                let known = resume.of(market, held.market.shard().unwrap_or(u16::MAX - 1)).is_some();
                held.resumed = known;
                if held.market.position().is_none() {
                    // A position that stands for nothing here must not be claimed.
                    resume.shards.clear();
                    held.resumed = false;
                }
            }
            if resume.shards.is_empty() && resume.markets.is_empty() {
                for market in markets {
                    if let Some(held) = self.held.get_mut(&(market.clone(), wish.view)) {
                        held.resumed = false;
                    }
                }
            }
        } else {
            for (key, held) in &mut self.held {
                held.resumed |= resume.of(&key.0, held.market.shard().unwrap_or(u16::MAX - 1)).is_some();
            }
        }
        let (scope, view, conflate) = (wish.scope.clone(), wish.view, wish.conflate);
        self.send(socket, &Up::Sub(Subscribe { id, scope, view, conflate, resume }), ear);
    }

    /// Leaves a wish, and what is only held for it.
    pub fn leave(&mut self, i: usize, socket: &mut Socket, ear: &mut Ear<'_>) {
        let wish = self.wishes.remove(i);
        let (scope, view) = (wish.scope, wish.view);
        self.asked.retain(|_, asked| asked.0 != scope || asked.1 != view);
        // What waits to be asked for again by name is held by nothing but the scope.
        let retries = &self.retries;
        self.held.retain(|(market, of), _| *of != view || !retries.contains_key(&(market.clone(), *of)));
        self.forget_left();
        let wishes = &self.wishes;
        self.retries.retain(|(market, view), _| {
            let named = |w: &Wish| matches!(&w.scope, Scope::Markets(markets) if markets.contains(market));
            wishes.iter().any(|w| w.view == *view && named(w))
        });
        self.send(socket, &Up::Unsub { id: self.next_id, scope, view }, ear);
        // Pings of one millisecond differ, so that the echo tells which was heard.
        let time = ear.now.mono * 2 + 1;
        self.barrier = Some(time);
        self.send(socket, &Up::Ping { time, read: self.beat }, ear);
    }

    /// Forgets what no wish asks for. A market that has no book yet may be of any event.
    fn forget_left(&mut self) {
        let wishes = &self.wishes;
        self.held.retain(|(market, view), held| {
            let event = held.market.book().and_then(|b| b.fields.text(MarketField::Event));
            wishes.iter().filter(|w| w.view == *view).any(|w| match &w.scope {
                Scope::Markets(markets) => markets.contains(market),
                Scope::Event(wanted) => event.is_none_or(|e| *e == **wanted),
                Scope::Sport(_) => true,
            })
        });
    }

    fn ping(&mut self, socket: &mut Socket, ear: &mut Ear<'_>) {
        if self.is_two_way() && ear.now.mono >= self.next_ping {
            self.next_ping = ear.now.mono + crate::gateway::HEARTBEAT;
            self.send(socket, &Up::Ping { time: ear.now.mono * 2, read: self.beat }, ear);
        }
    }

    /// Reads what the socket brought, pings, asks again where it must. `Ok(true)`: it wants to connect anew.
    pub fn step(&mut self, elapsed: i64, socket: &mut Socket, ear: &mut Ear<'_>) -> Result<bool, Violation> {
        let count = socket.buffer.len().min(self.speed.saturating_mul(elapsed as usize));
        self.frames.take(socket.buffer.drain(..count));
        let mut again = false;
        while let Some((start, frame)) = self.frames.next()? {
            while socket.marks.front().is_some_and(|(offset, ..)| *offset <= start) {
                let Some((_, market, stop)) = socket.marks.pop_front() else { break };
                self.must_know.insert(market, stop);
            }
            again |= self.take_in(frame, socket, ear)?;
        }
        self.ping(socket, ear);
        let now = ear.now.mono;
        let retries: Vec<_> = self.retries.iter().filter(|r| *r.1 <= now).map(|r| r.0.clone()).collect();
        for (market, view) in retries {
            if !ear.history.listed.contains(&market) {
                continue;
            }
            self.retries.remove(&(market.clone(), view));
            if !self.is_two_way() {
                // A one-way client asks by connecting anew.
                return Ok(true);
            }
            let conflate = Conflate::Auto;
            let wish = Wish { scope: Scope::Markets(vec![market]), view, conflate };
            self.ask(&wish, Resume::default(), socket, ear);
        }
        // A gap that nothing closed.
        let open: Vec<_> = self
            .held
            .iter()
            .filter(|(_, h)| h.subscribed && h.market.in_gap() && h.asked.is_none_or(|a| now - a > 1_000))
            .map(|(key, _)| key.clone())
            .collect();
        for key in open {
            again |= self.want_snapshot(&key, socket, ear);
        }
        Ok(again)
    }

    /// Asks for a snapshot; a one-way client must connect anew instead.
    pub fn want_snapshot(&mut self, key: &(MarketId, View), socket: &mut Socket, ear: &mut Ear<'_>) -> bool {
        if !self.is_two_way() {
            return true;
        }
        ear.cover.path(Path::ClientSnapshot, 1);
        if let Some(held) = self.held.get_mut(key) {
            held.asked = Some(ear.now.mono);
        }
        self.send(socket, &Up::Snapshot { market: key.0.clone(), view: key.1 }, ear);
        false
    }

    fn take_in(&mut self, frame: Frame, socket: &mut Socket, ear: &mut Ear<'_>) -> Result<bool, Violation> {
        if let Some(token) = frame.token {
            self.token = token;
        }
        let down = frame.down;
        crate::tell!("{} {:?} hears {down:?}", ear.now.mono, self.place);
        match &down {
            Down::Hb(heartbeat) => self.heartbeat(heartbeat)?,
            Down::Ok(ok) => self.subscribed(ok, &down, ear)?,
            Down::Err(problem) => {
                let Some(market) = problem.market.clone() else { return Ok(false) };
                let due = ear.now.mono + problem.retry.unwrap_or(400).min(600) as i64;
                // The same market as another view, or in a scope, is another wish.
                let of = problem.id.and_then(|id| self.asked.get(&id).map(|a| a.1));
                for view in View::ALL.into_iter().filter(|view| of.is_none_or(|of| of == *view)) {
                    let key = (market.clone(), view);
                    let waits = self.held.get(&key).is_some_and(|h| !h.subscribed);
                    if waits {
                        self.held.remove(&key);
                    }
                    // Also where a scope holds it meanwhile: the wish by name is one of its own.
                    let named = self.wishes.iter().any(|w| {
                        w.view == view && matches!(&w.scope, Scope::Markets(m) if m.contains(&market))
                    });
                    if named {
                        self.retries.insert(key, due);
                    }
                }
            }
            Down::Gone { market, at, .. } => {
                for view in View::ALL {
                    let key = (market.clone(), view);
                    // What is forgotten is not held as of a position below its end.
                    let shard = self.held.get(&key).and_then(|h| h.market.shard());
                    self.token.retain(|(of, seen)| Some(*of) != shard || *seen >= *at);
                    let named = self.wishes.iter().any(|w| {
                        w.view == view && matches!(&w.scope, Scope::Markets(m) if m.contains(market))
                    });
                    if self.held.remove(&key).is_some() && named {
                        self.retries.insert(key, ear.now.mono + 300);
                    }
                }
            }
            Down::Snap(head, _) => return self.follow(&(head.market.clone(), head.view), &down, socket, ear),
            Down::Delta(head, _) => {
                return self.follow(&(head.market.clone(), head.view), &down, socket, ear);
            }
            Down::Crc { market, view, .. } | Down::Gap { market, view, .. } => {
                return self.follow(&(market.clone(), *view), &down, socket, ear);
            }
            Down::Stop { market, .. } => {
                for view in View::ALL {
                    self.follow(&(market.clone(), view), &down, socket, ear)?;
                }
            }
            Down::Feed(_) => {
                for key in self.held.keys().cloned().collect::<Vec<_>>() {
                    self.follow(&key, &down, socket, ear)?;
                }
            }
            Down::Welcome(_) | Down::Catalogue(_) | Down::Bye { .. } => {}
        }
        Ok(false)
    }

    fn subscribed(&mut self, ok: &Subscribed, down: &Down, ear: &mut Ear<'_>) -> Result<(), Violation> {
        if ok.market.is_empty() {
            return Ok(());
        }
        let key = (ok.market.clone(), ok.view);
        let left = self.is_two_way() && !self.asked.contains_key(&ok.id);
        let scoped =
            !left && self.wishes.iter().any(|w| w.view == ok.view && !matches!(w.scope, Scope::Markets(_)));
        if scoped {
            self.held.entry(key.clone()).or_insert_with(|| Held::new(&ok.market, ok.view));
        }
        // One that was left meanwhile has nobody to hear it.
        let Some(held) = self.held.get_mut(&key) else { return Ok(()) };
        if !held.subscribed {
            held.subscribed = true;
            ear.cover.path(
                match ok.how {
                    How::Exact => Path::ResumeExact,
                    How::Delta => Path::ResumeDelta,
                    How::Snap => Path::ResumeSnap,
                },
                u64::from(held.resumed),
            );
            if ok.how != How::Snap && held.market.position().is_none() {
                let what = format!("{key:?} holds nothing and was answered {:?}", ok.how);
                return Err(Violation::new("9: resume", what));
            }
            if ok.how == How::Exact {
                held.counted = true;
                held.sent = Some(ok.at);
            }
        }
        held.market.handle(down);
        held.stop_heard = held.stop_heard.max(ok.stop);
        self.check(&key, ear)
    }

    fn heartbeat(&mut self, heartbeat: &Heartbeat) -> Result<(), Violation> {
        self.beat = Some(heartbeat.now);
        if let (Some(barrier), Some(echo)) = (self.barrier, heartbeat.echo)
            && echo >= barrier
        {
            self.barrier = None;
            // What was still on its way when it was left has told by now which event it is of.
            self.forget_left();
        }
        if self.barrier.is_some() || self.held.values().any(|h| h.subscribed && h.market.in_gap()) {
            return Ok(());
        }
        let mut mine: u32 = 0;
        for ((market, view), held) in self.held.iter().filter(|(_, h)| h.counted) {
            if let Some(at) = held.sent {
                mine = mine.wrapping_add(mix(digest_key(market, *view), at.seq));
            }
        }
        if mine == heartbeat.digest {
            return Ok(());
        }
        let held: Vec<_> =
            self.held.iter().map(|(k, h)| (k, h.counted, h.subscribed, h.market.position())).collect();
        Err(Violation::new("9: digest", format!("{:08x}, mine {mine:08x}: {held:?}", heartbeat.digest)))
    }

    /// A message about a market and view that is followed.
    fn follow(
        &mut self,
        key: &(MarketId, View),
        down: &Down,
        socket: &mut Socket,
        ear: &mut Ear<'_>,
    ) -> Result<bool, Violation> {
        let Some(held) = self.held.get_mut(key) else { return Ok(false) };
        let before = held.market.position();
        // What was under way when it was left, and asked for again, is no news of the new wish.
        if before.is_none() && !held.subscribed && matches!(down, Down::Delta(..) | Down::Crc { .. }) {
            return Ok(false);
        }
        let status = held.market.book().map(|b| b.status());
        let gap = held.market.in_gap();
        let outcome = held.market.handle(down);
        let place = || format!("{} view {} at {before:?}, gap {gap}: {down:?}", key.0, key.1.code());
        match (down, outcome) {
            (Down::Delta(..), Outcome::Gap) if !gap => {
                return Err(Violation::new("3: no undeclared gap", place()));
            }
            (_, Outcome::Mismatch) => return Err(Violation::new("3: checksum", place())),
            (Down::Crc { market, view, at, checksum }, Outcome::Checked) => {
                ear.history.agree(market, *view, *at, *checksum)?;
            }
            (Down::Stop { at, .. }, _) => held.stop_heard = held.stop_heard.max(*at),
            (Down::Snap(head, _), _) => {
                held.sent = Some(head.at);
                held.stop_heard = held.stop_heard.max(head.stop);
                held.asked = None;
                // An `ok` comes ahead of all that the gateway counts: without one it is the rest of a wish that was left.
                held.counted |= held.subscribed;
            }
            (Down::Delta(head, _), _) => {
                held.counted |= held.subscribed;
                held.sent = held.sent.max(Some(Position::new(head.epoch, head.seq)));
            }
            _ => {}
        }
        let after = held.market.position();
        if after < before {
            return Err(Violation::new("2: positions rise", place()));
        }
        let next = held.market.book().map(|b| b.status());
        if let (Some(was), Some(is), Some(from), Some(to)) = (status, next, before, after)
            && was.is_terminal()
            && !is.is_terminal()
            && !ear.history.reopened_within(&key.0, from, to)
        {
            return Err(Violation::new("11: terminal", place()));
        }
        let ask = outcome == Outcome::Gap && matches!(down, Down::Delta(..)) && held.asked.is_none();
        self.check(key, ear)?;
        Ok(ask && self.want_snapshot(key, socket, ear))
    }

    /// What must hold of a market after every message.
    fn check(&self, key: &(MarketId, View), ear: &Ear<'_>) -> Result<(), Violation> {
        let Some(held) = self.held.get(key) else { return Ok(()) };
        let Some(at) = held.market.position() else { return Ok(()) };
        if !held.subscribed || !held.market.tradable_market() {
            return Ok(());
        }
        let where_ = format!("{} view {} tradable at {at}", key.0, key.1.code());
        if at < held.stop_heard {
            return Err(Violation::new("4: stop barrier", format!("{where_}, stop {}", held.stop_heard)));
        }
        if held.market.book().map(|b| b.status()) != Some(MarketStatus::Open) {
            return Err(Violation::new("4: status", where_));
        }
        if !ear.history.was_open(&key.0, at) {
            return Err(Violation::new("4: was not open", where_));
        }
        match self.must_know.get(&key.0) {
            Some(stop) if at < *stop => {
                Err(Violation::new("4: price ahead of a stop", format!("{where_}, gateway knew {stop}")))
            }
            _ => Ok(()),
        }
    }
}
