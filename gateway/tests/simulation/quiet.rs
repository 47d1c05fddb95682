//! Quiet points of a run: faults end, and everything must agree; a last change that is lost must be found, and silence seen,
//! within their bounds.

use crate::coverage::Fault;
use crate::gateway::Weather;
use crate::history::Violation;
use crate::ingest::{LOGS, number};
use crate::world::World;

/// How long a quiet point may take to be reached: the deadline of an unanswered repair, and what follows it.
const SETTLE: i64 = 12_000;

impl World {
    /// Faults end, and everything must come to agree.
    pub fn quiet(&mut self) -> Result<(), Violation> {
        self.calm();
        let deadline = self.now.mono + SETTLE;
        loop {
            for _ in 0..4 {
                self.pass(40)?;
            }
            match self.agreed() {
                Ok(()) => return Ok(()),
                Err(violation) if self.now.mono >= deadline => return Err(violation),
                Err(_) => {}
            }
        }
    }

    fn calm(&mut self) {
        self.weather = Weather::default();
        self.unknown = 0;
        self.faults.clear();
        for ingest in &mut self.ingests {
            ingest.paused_until = 0;
        }
        for gateway in &mut self.gateways {
            gateway.paused_until = 0;
            gateway.deaf_until = 0;
            gateway.hurry(self.now);
        }
        for client in &mut self.clients {
            client.speed = 100_000;
        }
    }

    /// One last change gets lost on its way to a gateway: within one `alive` it must be found.
    pub fn lose_the_tail(&mut self) -> Result<(), Violation> {
        self.cover.fault(Fault::LostTail);
        let g = self.dice.below(self.gateways.len());
        // One that still waits for a repair, of a shard that nobody reads, stands at the head by chance.
        let follows: [bool; LOGS] = std::array::from_fn(|log| self.gateways[g].hub.is_following(number(log)));
        for _ in 0..2 {
            let message = self.sources.step(&mut self.dice);
            for ingest in &mut self.ingests {
                ingest.inbox.push_back((self.now.mono, message.clone()));
            }
        }
        self.gateways[g].deaf_until = self.now.mono + 5;
        self.pass(1)?;
        // One interval of `alive`, the reading of the log, and the way to the clients.
        for _ in 0..30 {
            self.pass(20)?;
        }
        for (log, shard) in self.logs.iter().enumerate() {
            let at = self.gateways[g].heads[log];
            let kept = self.gateways[g].hub.market_count(number(log)).is_some();
            if at != shard.head() && kept && follows[log] {
                let what = format!("shard {log} at {}, gateway at {at}", shard.head());
                return Err(Violation::new("8: lost tail", what));
            }
        }
        self.quiet()
    }

    /// Nothing comes to a gateway any more, though its clients hear it: within the bound they must know.
    pub fn fall_silent(&mut self) -> Result<(), Violation> {
        let g = self.dice.below(self.gateways.len());
        self.gateways[g].deaf_until = i64::MAX;
        // 1.5 s since the last `alive`, the tick that sees it, and the way to the client.
        for _ in 0..95 {
            self.pass(20)?;
        }
        for client in &self.clients {
            let Some(place) = client.place.filter(|p| p.gateway == g) else { continue };
            for (key, held) in &client.held {
                if held.subscribed && held.market.tradable_market() {
                    let what = format!("{key:?} on {place:?} tradable behind a silent feed");
                    return Err(Violation::new("6: silence", what));
                }
            }
        }
        self.gateways[g].deaf_until = 0;
        self.quiet()
    }
}
