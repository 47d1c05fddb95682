//! Clients that read slowly: so many bytes a second, in small sips, whatever is there.

use std::time::{Duration, Instant};

use super::{Fleet, Pace};

/// Sips a second.
const SIPS: f64 = 5.0;

/// How clients that read slowly stand: a client takes itself to be live as long as its newest echo is within the bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slowness {
    /// Those that know that they are behind.
    pub aware: usize,
    /// Those that take themselves to be live and hold what is older than that allows.
    pub deceived: usize,
    /// Of the newest echo, ms, of half of them at most.
    pub echo_age: i64,
    /// Of the newest change that they have, ms, of half of them at most.
    pub data_age: i64,
}

/// Whose turn it is to read a little.
#[derive(Debug, Default)]
pub(super) struct Paced {
    since: Option<Instant>,
    /// Those that read so many bytes in each sip.
    clients: Vec<(usize, usize)>,
    taken: usize,
}

impl Paced {
    /// Whether paces are kept.
    pub(super) fn is_kept(&self) -> bool {
        self.since.is_some()
    }
}

impl Fleet {
    /// From now on each reads as fast as the plan says, no faster.
    pub fn keep_pace(&mut self) {
        let sip = |number: usize| match self.plan.pace(number) {
            Pace::Bytes(bytes) => Some((number, ((f64::from(bytes) / SIPS) as usize).max(1))),
            Pace::Full | Pace::Nothing => None,
        };
        self.paced.clients = (0..self.plan.clients).filter_map(sip).collect();
        self.paced.since = Some(Instant::now());
        self.paced.taken = 0;
    }

    /// From now on each reads as fast as it comes. What waits for those that read slowly was told by the system once, and
    /// is not told again: each of them is read once.
    pub fn full_pace(&mut self) {
        if !self.paced.is_kept() {
            return;
        }
        let ran = self.clock.ran();
        for (number, client) in self.clients.iter_mut().enumerate() {
            if self.plan.pace(number) != Pace::Full {
                client.widen();
                client.heard(ran);
                self.again.push_back(number);
            }
        }
        self.paced = Paced::default();
    }

    /// Whether a client reads more slowly than it could, now.
    pub(super) fn is_slow(&self, number: usize) -> bool {
        self.paced.is_kept() && self.plan.pace(number) != Pace::Full
    }

    /// How those that read slowly stand.
    #[must_use]
    pub fn slowness(&self, bound: Duration) -> Slowness {
        let (now, bound) = (self.time(), i64::try_from(bound.as_millis()).unwrap_or(i64::MAX));
        let mut ages: Vec<(i64, i64)> = Vec::new();
        for (number, client) in self.clients.iter().enumerate() {
            if self.plan.pace(number) != Pace::Full {
                ages.push(client.ages(now));
            }
        }
        let median = |mut all: Vec<i64>| {
            all.sort_unstable();
            all.get(all.len() / 2).copied().unwrap_or(0)
        };
        Slowness {
            aware: ages.iter().filter(|(echo, _)| *echo > bound).count(),
            deceived: ages.iter().filter(|(echo, data)| *echo <= bound && *data > bound + echo).count(),
            echo_age: median(ages.iter().map(|(echo, _)| *echo).collect()),
            data_age: median(ages.iter().map(|(_, data)| *data).collect()),
        }
    }

    /// Sips that are due, all of them evenly.
    pub(super) fn read_slowly(&mut self) {
        let Some(since) = self.paced.since else { return };
        let count = self.paced.clients.len();
        let due = (since.elapsed().as_secs_f64() * SIPS * count as f64) as usize;
        while self.paced.taken < due {
            let (number, bytes) = self.paced.clients[self.paced.taken % count];
            self.paced.taken += 1;
            let Some(client) = self.clients.get_mut(number) else { continue };
            let step = client.read(&self.plan, &mut self.buffer, bytes, &mut self.judge, &mut self.slow);
            self.took(number, step);
        }
    }
}
