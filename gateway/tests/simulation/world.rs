//! One run: sources → two ingests → the fake log → gateways → clients, in virtual time, from one seed.
//!
//! A run is a few stretches. Each has faults of its own and ends with a quiet point, where everything must agree.

use std::collections::VecDeque;

use tictac_gateway::hub::Now;
use tictac_gateway::wires::Wire;
use tictac_proto::model::View;
use tictac_proto::wire::{Conflate, Scope};

use crate::client::{Client, Ear};
use crate::coverage::{Coverage, Fault};
use crate::dice::Dice;
use crate::fake_redis::ShardLog;
use crate::gateway::{Gateway, Place, Socket, Weather};
use crate::held::Wish;
use crate::history::{History, Violation};
use crate::ingest::{Around, Ingest, LOGS, Published, number};
use crate::source::{SOURCES, Sources};

/// Updates of a run, quiet points apart.
pub const UPDATES: usize = 520;
const STRETCHES: usize = 4;

pub struct World {
    pub dice: Dice,
    pub now: Now,
    pub sources: Sources,
    pub logs: Vec<ShardLog>,
    replica: Vec<ShardLog>,
    pub ingests: Vec<Ingest>,
    wanted: [usize; LOGS],
    /// The highest epoch that any owner of a log ever had.
    epochs: [u64; LOGS],
    /// Pending answers to ingests that asked for everything: (due, ingest, source).
    images: VecDeque<(i64, usize, usize)>,
    pub gateways: Vec<Gateway>,
    pub clients: Vec<Client>,
    pub history: History,
    pub cover: Coverage,
    pub weather: Weather,
    pub unknown: u32,
    pub faults: Vec<Fault>,
    lives: u64,
    checksum_interval: i64,
    nobody: Socket,
    pub updates: u64,
}

impl World {
    pub fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let now = Now { mono: 1_000, wall: 1_700_000_000_000 };
        let (sources, first) = Sources::new(&mut dice);
        let logs: Vec<ShardLog> = (0..LOGS).map(|l| ShardLog::new(number(l))).collect();
        let checksum_interval = if dice.chance(100) { 5_000 } else { 0 };
        let gateways = (0..dice.range(1, 3))
            .map(|life| Gateway::new(dice.range(1, 3) as usize, checksum_interval, life as u64))
            .collect();
        let mut world = Self {
            now,
            sources,
            replica: logs.clone(),
            logs,
            ingests: (0..2).map(Ingest::new).collect(),
            wanted: [0; LOGS],
            epochs: [0; LOGS],
            images: VecDeque::new(),
            gateways,
            clients: Vec::new(),
            history: History::default(),
            cover: Coverage::default(),
            weather: Weather::default(),
            unknown: 0,
            faults: Vec::new(),
            lives: 10,
            checksum_interval,
            nobody: Socket::default(),
            updates: 0,
            dice,
        };
        drop(first);
        for ingest in 0..2 {
            world.warm(ingest, 0);
        }
        for _ in 0..world.dice.range(2, 5) {
            world.join(false);
        }
        world
    }

    /// Every source tells an ingest all that it has.
    fn warm(&mut self, ingest: usize, after: i64) {
        for source in 0..SOURCES.len() {
            self.images.push_back((self.now.mono + after, ingest, source));
        }
    }

    fn join(&mut self, late: bool) {
        let dice = &mut self.dice;
        let wire = *dice.pick(&Wire::ALL);
        let mut wishes = Vec::new();
        let conflates = [
            Conflate::Raw,
            Conflate::Raw,
            Conflate::Auto,
            Conflate::Auto,
            Conflate::Every(100),
            Conflate::Every(500),
        ];
        if dice.chance(400) {
            let scope = if dice.chance(300) {
                Scope::Sport("race".into())
            } else {
                Scope::Event(dice.pick(&self.sources.events).as_str().into())
            };
            let (view, conflate) = (*dice.pick(&View::ALL), *dice.pick(&conflates));
            wishes.push(Wish { scope, view, conflate });
        }
        let ids: Vec<_> = self.sources.markets.keys().cloned().collect();
        for _ in 0..dice.range(1, 4) {
            let scope = Scope::Markets(vec![dice.pick(&ids).clone()]);
            let (view, conflate) = (*dice.pick(&View::ALL), *dice.pick(&conflates));
            if !wishes.iter().any(|w| w.scope == scope && w.view == view) {
                wishes.push(Wish { scope, view, conflate });
            }
        }
        let slow = self.faults.contains(&Fault::SlowClient) && dice.chance(600);
        let speed = if slow { dice.range(1, 20) as usize } else { 100_000 };
        let at = self.now.mono + dice.range(0, 300);
        if late {
            self.cover.fault(Fault::LateJoin);
        }
        self.clients.push(Client::new(wire, wishes, speed, at));
    }

    /// Time goes on, and with it everything that waits.
    pub fn pass(&mut self, elapsed: i64) -> Result<(), Violation> {
        self.now.mono += elapsed;
        self.now.wall += elapsed;
        if self.history.listed.len() != self.sources.markets.len()
            || !self.sources.markets.keys().eq(self.history.listed.iter())
        {
            self.history.listed = self.sources.markets.keys().cloned().collect();
        }
        while self.images.front().is_some_and(|i| i.0 <= self.now.mono) {
            let Some((_, ingest, source)) = self.images.pop_front() else { break };
            let message = self.sources.all_of(source);
            self.ingests[ingest].inbox.push_back((self.now.mono, message));
        }
        for log in 0..LOGS {
            for ingest in &mut self.ingests {
                ingest.heard(log, self.epochs[log]);
            }
        }
        for i in 0..self.ingests.len() {
            let mut around = Around {
                now: self.now,
                logs: &mut self.logs,
                history: &mut self.history,
                dice: &mut self.dice,
                wanted: std::array::from_fn(|log| self.wanted[log] == i),
                unknown: self.unknown,
                unknowns: 0,
            };
            let published = self.ingests[i].step(&mut around)?;
            if around.unknowns > 0 {
                self.cover.fault(Fault::UnknownOutcome);
            }
            self.publish(published);
            // Whatever the log may forget next: who heard of an epoch remembers it.
            for (epoch, log) in self.epochs.iter_mut().zip(&self.logs) {
                *epoch = (*epoch).max(log.head().epoch);
            }
        }
        for gateway in &mut self.gateways {
            gateway.step(self.now, &self.logs, &self.history, &self.weather, &mut self.dice, &mut self.cover);
        }
        for i in 0..self.clients.len() {
            self.run_client(i, elapsed)?;
        }
        Ok(())
    }

    fn publish(&mut self, published: Published) {
        for (log, bytes) in published {
            for gateway in &mut self.gateways {
                gateway.publish(log, &bytes, self.now, &self.weather, &mut self.dice);
            }
        }
    }

    fn run_client(&mut self, i: usize, elapsed: i64) -> Result<(), Violation> {
        let client = &mut self.clients[i];
        let mut ear =
            Ear { now: self.now, history: &mut self.history, cover: &mut self.cover, dice: &mut self.dice };
        match client.place {
            None => {
                if ear.now.mono < client.connect_at {
                    return Ok(());
                }
                let number = ear.dice.below(self.gateways.len());
                let gateway = &mut self.gateways[number];
                if ear.now.mono < gateway.paused_until {
                    return Ok(());
                }
                let core = ear.dice.below(gateway.cores());
                let capacity =
                    if client.speed < 1_000 { ear.dice.range(300, 3_000) as usize } else { 60_000 };
                let session = gateway.connect(core, client.wire, capacity, ear.now);
                let place = Place { gateway: number, life: gateway.life, core, session };
                let socket = gateway.sockets.get_mut(&(core, session)).expect("just connected");
                client.connected(place, socket, &mut ear);
            }
            Some(place) => {
                let gateway = &mut self.gateways[place.gateway];
                if gateway.life != place.life {
                    let (after, resume) = (ear.dice.range(0, 500), ear.dice.chance(700));
                    client.lost(ear.now.mono + after, resume);
                    return Ok(());
                }
                let key = (place.core, place.session);
                let socket = gateway.sockets.get_mut(&key).unwrap_or(&mut self.nobody);
                if client.step(elapsed, socket, &mut ear)? {
                    gateway.disconnect(place.core, place.session);
                    let at = (ear.now.mono + 100).max(client.connect_at);
                    client.lost(at, false);
                }
            }
        }
        Ok(())
    }

    /// Ends a client's connection; it comes back.
    fn cut(&mut self, i: usize, resume: bool) {
        let Some(place) = self.clients[i].place else { return };
        if self.gateways[place.gateway].life == place.life {
            self.gateways[place.gateway].disconnect(place.core, place.session);
        }
        let after = self.dice.range(0, 1_500);
        self.clients[i].lost(self.now.mono + after, resume);
    }

    /// A whole run.
    pub fn run(mut self) -> Result<Coverage, Violation> {
        self.quiet()?;
        for _ in 0..STRETCHES {
            self.choose_faults();
            for _ in 0..UPDATES / STRETCHES {
                let message = self.sources.step(&mut self.dice);
                self.updates += 1;
                for ingest in 0..self.ingests.len() {
                    let due = self.now.mono + self.dice.range(0, 5);
                    let inbox = &mut self.ingests[ingest].inbox;
                    let due = inbox.back().map_or(due, |m| due.max(m.0));
                    inbox.push_back((due, message.clone()));
                }
                self.trouble();
                let elapsed =
                    if self.dice.chance(100) { self.dice.range(50, 400) } else { self.dice.range(1, 20) };
                self.pass(elapsed)?;
            }
            let ended = self.now.mono;
            self.quiet()?;
            self.cover.converged(self.now.mono - ended);
            // Whatever went wrong, who comes back now has missed nothing.
            let client = self.dice.below(self.clients.len());
            self.cut(client, true);
            self.quiet()?;
            self.lose_the_tail()?;
            if self.dice.chance(250) {
                self.fall_silent()?;
            }
            self.cover.quiet();
        }
        Ok(self.cover)
    }

    fn choose_faults(&mut self) {
        let mut faults = Vec::new();
        for _ in 0..self.dice.range(1, 5) {
            faults.push(*self.dice.pick(Fault::ALL));
        }
        let has = |f| faults.contains(&f);
        let rate = |f, rate| if has(f) { rate } else { 0 };
        self.weather = Weather {
            loss: rate(Fault::Loss, 60),
            duplication: rate(Fault::Duplication, 60),
            reordering: rate(Fault::Reordering, 60),
            repair_delayed: rate(Fault::RepairDelayed, 400),
            repair_failed: rate(Fault::RepairFailed, 300),
            repair_duplicated: rate(Fault::RepairDuplicated, 400),
        };
        self.unknown = rate(Fault::UnknownOutcome, 40);
        for fault in [Fault::Loss, Fault::Duplication, Fault::Reordering] {
            if has(fault) {
                self.cover.fault(fault);
            }
        }
        if has(Fault::SlowClient) {
            self.cover.fault(Fault::SlowClient);
            for i in 0..self.clients.len() {
                if self.dice.chance(600) {
                    self.clients[i].speed = self.dice.range(1, 20) as usize;
                    // A small buffer comes with the next connection.
                    let resume = self.dice.chance(700);
                    self.cut(i, resume);
                }
            }
        }
        self.faults = faults;
    }

    /// What may go wrong between two updates.
    fn trouble(&mut self) {
        // A replica that is behind takes over when a failover comes.
        if self.dice.chance(50) {
            self.replica = self.logs.clone();
        }
        // What every run does now and then, whatever its faults.
        if !self.clients.is_empty() && self.dice.chance(15) {
            self.change_wishes();
        }
        if !self.dice.chance(60) {
            return;
        }
        let fault = *self.dice.pick(&self.faults.clone());
        let g = self.dice.below(self.gateways.len());
        let i = self.dice.below(self.ingests.len());
        match fault {
            Fault::LostTail => {
                self.cover.fault(fault);
                self.gateways[g].deaf_until = self.now.mono + self.dice.range(20, 1_200);
            }
            Fault::Failover if self.dice.chance(300) => {
                self.cover.fault(fault);
                self.logs = self.replica.clone();
            }
            Fault::Amnesia if self.dice.chance(200) => {
                self.cover.fault(fault);
                self.logs = (0..LOGS).map(|l| ShardLog::new(number(l))).collect();
                self.replica = self.logs.clone();
            }
            Fault::TwoOwners => {
                self.cover.fault(fault);
                let log = self.dice.below(LOGS);
                let old = self.wanted[log];
                self.wanted[log] = 1 - old;
                if self.dice.chance(600) {
                    self.ingests[old].paused_until = self.now.mono + self.dice.range(10, 600);
                }
            }
            Fault::Pause => {
                self.cover.fault(fault);
                let long = self.now.mono + self.dice.range(200, 4_000);
                if self.dice.chance(500) {
                    self.gateways[g].paused_until = long;
                } else {
                    self.ingests[i].paused_until = long;
                }
            }
            Fault::ClockJump => {
                self.cover.fault(fault);
                self.now.wall += self.dice.range(-4_000_000, 4_000_000);
                if self.dice.chance(300) {
                    // A machine that slept: the monotonic clock went on, nobody ran.
                    self.now.mono += self.dice.range(1_000, 8_000);
                }
            }
            Fault::Reconnect => {
                self.cover.fault(fault);
                if !self.clients.is_empty() {
                    let client = self.dice.below(self.clients.len());
                    let resume = self.dice.chance(750);
                    self.cut(client, resume);
                }
            }
            Fault::LateJoin if self.clients.len() < 7 => self.join(true),
            Fault::GatewayRestart if self.dice.chance(300) => {
                self.cover.fault(fault);
                self.lives += 1;
                let cores = self.gateways[g].cores();
                self.gateways[g] = Gateway::new(cores, self.checksum_interval, self.lives);
            }
            Fault::IngestRestart if self.dice.chance(300) => {
                self.cover.fault(fault);
                self.lives += 1;
                self.ingests[i].restart(self.lives);
                self.images.retain(|image| image.1 != i);
                let after = self.dice.range(20, 800);
                self.warm(i, after);
                self.images.make_contiguous().sort_unstable();
            }
            Fault::SubscriptionLost => {
                self.cover.fault(fault);
                let back = self.now.mono + self.dice.range(5, 2_500);
                self.gateways[g].lose_subscriptions(back);
            }
            _ => {}
        }
    }

    fn change_wishes(&mut self) {
        let i = self.dice.below(self.clients.len());
        let Some(place) = self.clients[i].place else { return };
        let gateway = &mut self.gateways[place.gateway];
        if gateway.life != place.life || !self.clients[i].is_two_way() {
            return;
        }
        let Some(socket) = gateway.sockets.get_mut(&(place.core, place.session)) else { return };
        let mut ear =
            Ear { now: self.now, history: &mut self.history, cover: &mut self.cover, dice: &mut self.dice };
        let client = &mut self.clients[i];
        match ear.dice.below(3) {
            0 if client.wishes.len() > 1 => {
                let wish = ear.dice.below(client.wishes.len());
                client.leave(wish, socket, &mut ear);
            }
            1 if client.wishes.len() < 6 => {
                let ids: Vec<_> = self.sources.markets.keys().cloned().collect();
                let wish = Wish {
                    scope: Scope::Markets(vec![ear.dice.pick(&ids).clone()]),
                    view: *ear.dice.pick(&View::ALL),
                    conflate: *ear.dice.pick(&[Conflate::Raw, Conflate::Auto, Conflate::Every(250)]),
                };
                if client.wishes.iter().any(|w| w.scope == wish.scope && w.view == wish.view) {
                    return;
                }
                client.wishes.push(wish.clone());
                client.ask(&wish, tictac_proto::wire::Resume::default(), socket, &mut ear);
            }
            _ => {
                let keys: Vec<_> =
                    client.held.iter().filter(|(_, h)| h.subscribed).map(|(k, _)| k.clone()).collect();
                if !keys.is_empty() {
                    let key = ear.dice.pick(&keys).clone();
                    client.want_snapshot(&key, socket, &mut ear);
                }
            }
        }
    }
}
