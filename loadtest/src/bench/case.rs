//! What is measured, case by case.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tictac_proto::model::MarketId;
use tictac_proto::wire::{Codec, Conflate};

use crate::fleet::Transport;
use crate::pulse;

/// What is done with the clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// They are told of changes.
    FanOut,
    /// The same, from a PUBLISH on: what a source, Redis and reading the source's format add.
    Published,
    /// The same, more and more of them: what one delivery costs.
    Growth,
    /// They are there: what one costs in memory.
    Idle,
    /// One in twenty reads slowly, and one nothing at all: what that costs the others.
    Slow,
    /// All are cut at once and come back with their positions.
    Storm,
    /// Clients leave and others come, for long.
    Churn,
}

/// What is measured.
#[derive(Debug, Clone)]
pub struct Case {
    /// What is done.
    pub kind: Kind,
    /// For people.
    pub name: String,
    /// How many clients.
    pub clients: usize,
    /// Markets that there are.
    pub markets: usize,
    /// Markets that each client follows.
    pub each: usize,
    /// Zipf's exponent, of changes and of what is followed.
    pub skew: f64,
    /// Changes a second, of all markets together.
    pub rate: f64,
    /// For how long.
    pub seconds: f64,
    /// How the clients are connected.
    pub transport: Transport,
    /// The encoding.
    pub codec: Codec,
    /// How often each client wants to hear.
    pub conflate: Conflate,
}

impl Case {
    /// Sums of the markets' shares, of changes and of what is followed.
    fn sums(&self) -> Vec<f64> {
        let mut sum = 0.0;
        let add = |rank: usize| {
            sum += (rank as f64).powf(-self.skew);
            sum
        };
        (1..=self.markets).map(add).collect()
    }

    /// How many clients one change goes to, on average.
    #[must_use]
    pub fn deliveries(&self) -> f64 {
        let mut followers = std::collections::HashMap::<MarketId, f64>::new();
        for market in self.follows().into_iter().flatten() {
            *followers.entry(market).or_default() += 1.0;
        }
        let (sums, mut before) = (self.sums(), 0.0);
        let all = sums.last().copied().unwrap_or(1.0);
        let of = |(number, sum): (usize, &f64)| {
            let share = (sum - std::mem::replace(&mut before, *sum)) / all;
            share * followers.get(&pulse::market(number)).copied().unwrap_or(0.0)
        };
        sums.iter().enumerate().map(of).sum()
    }

    /// What each client follows: as many different markets, the first ones more often.
    #[must_use]
    pub fn follows(&self) -> Vec<Vec<MarketId>> {
        let mut dice = SmallRng::seed_from_u64(7);
        let sums = self.sums();
        let sum = sums.last().copied().unwrap_or(1.0);
        let some = |dice: &mut SmallRng| {
            let mut chosen = Vec::with_capacity(self.each);
            while chosen.len() < self.each.min(self.markets) {
                let number = sums.partition_point(|s| *s <= dice.random_range(0.0..sum));
                if !chosen.contains(&number) {
                    chosen.push(number);
                }
            }
            chosen.into_iter().map(pulse::market).collect()
        };
        (0..self.clients).map(|_| some(&mut dice)).collect()
    }
}

/// A number for people.
#[must_use]
pub fn short(n: f64) -> String {
    match n {
        n if n >= 1e6 => format!("{:.1}M", n / 1e6),
        n if n >= 1e3 => format!("{:.0}k", n / 1e3),
        n => format!("{n:.0}"),
    }
}

fn hot(clients: usize, deliveries: f64) -> Case {
    Case {
        kind: Kind::FanOut,
        name: format!("hot {clients} × {}/s", short(deliveries)),
        clients,
        markets: 1,
        each: 1,
        skew: 0.0,
        rate: deliveries / clients as f64,
        seconds: 5.0,
        transport: Transport::Ws,
        codec: Codec::Json,
        conflate: Conflate::Raw,
    }
}

fn zipf(name: &str, transport: Transport, codec: Codec) -> Case {
    Case {
        name: format!("zipf 1000 × 20 of 2000, {name}"),
        markets: 2_000,
        each: 20,
        skew: 1.0,
        rate: 2_000.0,
        transport,
        codec,
        ..hot(1_000, 0.0)
    }
}

/// Everything that can be measured.
#[must_use]
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for clients in [1_000, 5_000] {
        for deliveries in [20_000.0, 100_000.0, 250_000.0, 1e6, 5e6] {
            cases.push(hot(clients, deliveries));
        }
    }
    cases.push(zipf("json", Transport::Ws, Codec::Json));
    cases.push(zipf("msgpack", Transport::Ws, Codec::Msgpack));
    cases.push(zipf("sse", Transport::Sse, Codec::Json));
    let published = |name: &str, case: Case| Case { kind: Kind::Published, name: name.into(), ..case };
    cases.push(published("PUBLISH to 1000 × 20k/s", hot(1_000, 20_000.0)));
    cases.push(published("PUBLISH to 1000 × 100k/s", hot(1_000, 100_000.0)));
    cases.push(published("PUBLISH to 1000 × 20 of 2000", zipf("json", Transport::Ws, Codec::Json)));
    let idle = Case { kind: Kind::Idle, name: "idle 5000".into(), ..hot(5_000, 0.0) };
    let many =
        Case { name: "idle 5000 × 20 of 2000".into(), markets: 2_000, each: 20, skew: 1.0, ..idle.clone() };
    cases.extend([idle, many]);
    cases.push(Case {
        kind: Kind::Slow,
        name: "slow 500 of 10000".into(),
        rate: 5.0,
        conflate: Conflate::Auto,
        ..hot(10_000, 0.0)
    });
    cases.push(Case {
        kind: Kind::Storm,
        name: "storm 5000 × 5 of 500".into(),
        markets: 500,
        each: 5,
        skew: 1.0,
        rate: 500.0,
        conflate: Conflate::Auto,
        ..hot(5_000, 0.0)
    });
    cases.push(Case {
        kind: Kind::Churn,
        name: "churn 2000 × 10 of 500".into(),
        markets: 500,
        each: 10,
        skew: 1.0,
        rate: 500.0,
        conflate: Conflate::Auto,
        ..hot(2_000, 0.0)
    });
    for clients in [10, 100, 1_000, 10_000] {
        let name = format!("grow to {clients} clients");
        let rate = 100.0;
        cases.push(Case { kind: Kind::Growth, name, rate, ..hot(clients, 0.0) });
    }
    // Each market has twenty followers, and each client twenty markets where there are as many.
    for markets in [1, 20, 100, 1_000, 5_000] {
        let (each, clients) = (markets.min(20), markets.max(20));
        let (name, rate) = (format!("grow to {markets} markets"), 5_000.0);
        cases.push(Case { kind: Kind::Growth, name, markets, each, rate, ..hot(clients, 0.0) });
    }
    cases
}
