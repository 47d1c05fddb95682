//! Whether every client is served: none is without a frame for long, and each comes to where the others were.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tictac_proto::model::View;
use tictac_proto::position::Position;

use super::judge::Place;
use super::{Fleet, Pace};

/// A turn that took longer than this was a pause of this process, which nobody else is to blame for.
const LONGEST_TURN: Duration = Duration::from_millis(100);
/// How often silent clients are looked for.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A gateway may owe less than the plan takes for granted: so many heartbeats are waited for at least.
const HEARTBEATS: u32 = 5;

/// How long a fleet has read, without the pauses of the process.
#[derive(Debug, Default)]
pub(super) struct Clock {
    turned: Option<Instant>,
    ran: Duration,
    looked: Duration,
}

impl Clock {
    /// A turn is over.
    pub(super) fn turned(&mut self) {
        let now = Instant::now();
        if let Some(before) = self.turned.replace(now) {
            self.ran += (now - before).min(LONGEST_TURN);
        }
    }

    pub(super) fn ran(&self) -> Duration {
        self.ran
    }
}

/// A market's position and checksum that every client is to come to.
type Marks = HashMap<Place, (Position, u32)>;

impl Fleet {
    /// A client that hears nothing for long is not served, and its page shows itself stale.
    pub(super) fn look_for_silent(&mut self) {
        let Some(bound) = self.plan.silence else { return };
        let ran = self.clock.ran();
        if ran - self.clock.looked < LOOK_EVERY {
            return;
        }
        self.clock.looked = ran;
        let bound = bound.max(self.judge.beat().unwrap_or_default() * HEARTBEATS);
        for (number, client) in self.clients.iter_mut().enumerate() {
            let is_slow = self.paced.is_kept() && self.plan.pace(number) != Pace::Full;
            if !is_slow && let Some(silent) = client.fell_silent(ran, bound) {
                self.judge.mistake(|| {
                    format!("client {number} heard nothing for {silent:.1?}, be it a heartbeat: is it still served?")
                });
            }
        }
    }

    /// Reads on until every client has come to where the newest book of each market is now, for so long at most. Who has not
    /// by then is a mistake.
    ///
    /// # Errors
    /// If the event queue fails.
    pub fn catch_up(&mut self, within: Duration) -> anyhow::Result<()> {
        let marks = self.judge.stands();
        let end = self.clock.ran() + within;
        let mut behind = self.stragglers(&marks);
        // In time that it has read, so that a pause of this process is not the gateway's.
        while !behind.is_empty() && self.clock.ran() < end {
            self.turn(Duration::from_millis(5))?;
            behind = self.stragglers(&marks);
        }
        for (number, place, is) in behind {
            let market = self.judge.market(place).clone();
            let (mark, _) = marks[&place];
            self.judge.mistake(|| {
                format!(
                    "client {number} stands at {is} with {market}, and others were at {mark} {within:?} before: is it still served?"
                )
            });
        }
        Ok(())
    }

    /// Clients that have not come to a mark: which, with which market, and where they stand.
    fn stragglers(&self, marks: &Marks) -> Vec<(usize, Place, Position)> {
        let mut behind = Vec::new();
        for (number, client) in self.clients.iter().enumerate() {
            if self.is_slow(number) {
                continue;
            }
            for (place, is) in client.stands() {
                if marks.get(&place).is_some_and(|(mark, sum)| is < *mark && !self.looks_so(place, is, *sum))
                {
                    behind.push((number, place, is));
                }
            }
        }
        behind
    }

    /// Whether a client's book looks as it does at the mark. With a depth, what was changed and changed back again between two
    /// deltas of a client is no news to it, and it stays where it was; with whole books every change brings it on.
    fn looks_so(&self, place: Place, at: Position, sum: u32) -> bool {
        self.plan.view != View::All && self.judge.checksum_at(place, at) == Some(sum)
    }
}
