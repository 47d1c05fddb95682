//! A feed for measuring: markets whose changes are each due at an exact time, whatever happens to those before them, and
//! carry that time as a size, µs since 1970. How late a client hears of one is so known without an agreement about
//! anything, and waiting is not left out (no coordinated omission); of changes that were merged only the newest counts.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tictac_ingest::update::{StopScope, Update};
use tictac_proto::model::{
    Book, Delta, MarketField, MarketId, MarketStatus, SelectionField, SelectionKey, Side,
};

/// The source's name.
pub const SOURCE: &str = "pulse";
/// Sizes from here on are times.
const SINCE_2020: i64 = 1_577_836_800_000_000;
/// Best price of each side, and how many levels there are.
const BEST: i64 = 200;
const LEVELS: i64 = 10;
/// Those that change: within every view but the shallowest.
const MOVING: u64 = 3;

/// Now, µs since 1970.
#[must_use]
pub fn now_us() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_micros()).unwrap_or(i64::MAX)
}

/// A market's id.
#[must_use]
pub fn market(number: usize) -> MarketId {
    format!("pulse-{number:05}").as_str().into()
}

fn event(number: usize) -> String {
    format!("pulse-e{number:05}")
}

/// A market as it begins: one event each, two selections, ten levels a side.
#[must_use]
pub fn image(number: usize) -> Update {
    let mut book = Book::default();
    let event = event(number);
    for (field, text) in [
        (MarketField::Event, event.as_str()),
        (MarketField::EventName, "Pulse"),
        (MarketField::Sport, "pulse"),
        (MarketField::Name, "Match odds"),
    ] {
        book.set(field, text);
    }
    book.set(MarketField::Status, MarketStatus::Open.code());
    book.set(MarketField::PriceExponent, 2);
    book.set(MarketField::SizeExponent, 2);
    book.set(MarketField::InPlay, 0);
    let mut delta = Delta::default();
    for id in [1, 2] {
        let selection = delta.selection_mut(SelectionKey { id, handicap: 0 });
        selection.set(SelectionField::Name, Some(if id == 1 { "Tic" } else { "Tac" }.into()));
        for level in 0..LEVELS {
            selection.ladder_mut(Side::Back).set(BEST - level, 1_000 + level);
            selection.ladder_mut(Side::Lay).set(BEST + 2 + level, 1_000 + level);
        }
    }
    book.apply(&delta, 0);
    Update::Image { market: market(number), book: Box::new(book) }
}

/// The time that a change of such a market was due, µs since 1970; `None` where it is another's.
#[must_use]
pub fn due_of(delta: &Delta) -> Option<i64> {
    let back = delta.selections.iter().flat_map(|(_, s)| s.ladder(Side::Back).levels.iter());
    back.map(|(_, size)| *size).filter(|size| *size > SINCE_2020).max()
}

/// How the reason of a stop begins, which then says when it was due.
const STOP: &str = "pulse ";

/// A stop of a market that was due then.
#[must_use]
pub fn stop(number: usize, due: i64) -> Update {
    let (event, reason) = (event(number), format!("{STOP}{due}"));
    Update::Stop {
        event: event.as_str().into(),
        scope: StopScope::Event,
        reason: Some(reason.as_str().into()),
    }
}

/// The market is open again.
#[must_use]
pub fn open(number: usize) -> Update {
    let mut delta = Delta::default();
    delta.set(MarketField::Status, Some(MarketStatus::Open.code().into()));
    Update::Change { market: market(number), delta, rollback: false }
}

/// The time that a stop was due by its reason, µs since 1970; `None` where it is another's.
#[must_use]
pub fn due_of_stop(reason: &str) -> Option<i64> {
    reason.strip_prefix(STOP)?.parse().ok()
}

/// What is due when.
#[derive(Debug)]
pub struct Pulse {
    begun: i64,
    /// µs between two.
    gap: f64,
    count: u64,
    end: u64,
    /// Sums of the markets' weights.
    weights: Vec<f64>,
    dice: SmallRng,
}

impl Pulse {
    /// So many changes a second from a moment on, for so long, over so many markets; `skew` is the exponent of Zipf's law, 0
    /// for an equal share of each.
    #[must_use]
    pub fn new(begun: i64, rate: f64, time: Duration, markets: usize, skew: f64) -> Self {
        let mut sum = 0.0;
        let weights = (1..=markets.max(1)).map(|rank| {
            sum += (rank as f64).powf(-skew);
            sum
        });
        let weights = weights.collect();
        let end = (rate * time.as_secs_f64()).round() as u64;
        Self { begun, gap: 1e6 / rate, count: 0, end, weights, dice: SmallRng::seed_from_u64(1) }
    }

    /// When the next is due; `None` where there is no more.
    #[must_use]
    pub fn next_due(&self) -> Option<i64> {
        (self.count < self.end).then(|| self.begun + (self.count as f64 * self.gap) as i64)
    }

    /// All that is due by now, with the market's number and the time of each.
    pub fn take_due(&mut self, now: i64, out: &mut VecDeque<(usize, i64)>) {
        while let Some(due) = self.next_due().filter(|due| *due <= now) {
            self.count += 1;
            let all = self.weights.last().copied().unwrap_or(0.0);
            let at = self.dice.random_range(0.0..all);
            out.push_back((self.weights.partition_point(|sum| *sum <= at), due));
        }
    }

    /// How many there were so far.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }
}

/// A change that was due then, with so many other levels.
#[must_use]
pub fn change(number: usize, due: i64, count: u64, width: usize) -> Update {
    let mut delta = Delta::default();
    let selection = delta.selection_mut(SelectionKey { id: 1, handicap: 0 });
    let level = i64::try_from(count % MOVING).unwrap_or(0);
    selection.ladder_mut(Side::Back).set(BEST - level, due);
    for price in (BEST..).take(width) {
        selection.ladder_mut(Side::Traded).set(price, 1_000 + i64::try_from(count).unwrap_or(0));
    }
    Update::Change { market: market(number), delta, rollback: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_change_is_due_at_its_time_whenever_it_is_asked_for() {
        let mut pulse = Pulse::new(1_000_000, 2_000.0, Duration::from_secs(1), 3, 0.0);
        let mut out = VecDeque::new();
        pulse.take_due(1_000_000, &mut out);
        pulse.take_due(1_250_000, &mut out);
        assert_eq!(out.len(), 501);
        pulse.take_due(9_000_000, &mut out);
        assert_eq!((out.len(), pulse.count(), pulse.next_due()), (2_000, 2_000, None));
        assert!(
            out.iter()
                .enumerate()
                .all(|(i, (market, due))| *market < 3 && *due == 1_000_000 + 500 * i as i64)
        );
    }

    #[test]
    fn zipf_prefers_the_first() {
        let mut pulse = Pulse::new(0, 10_000.0, Duration::from_secs(1), 100, 1.0);
        let mut out = VecDeque::new();
        pulse.take_due(1_000_000, &mut out);
        let of = |number| out.iter().filter(|(market, _)| *market == number).count();
        // The first has a share of 1 / (1 + 1/2 + … + 1/100) = 19 %.
        assert!((1_700..2_150).contains(&of(0)), "{}", of(0));
        assert!(of(0) > of(1) && of(1) > of(10) && of(99) < 60);
    }

    #[test]
    fn a_change_says_when_it_was_due_and_an_image_nothing() {
        let Update::Change { delta, .. } = change(1, 1_795_656_390_185_123, 7, 2) else { panic!() };
        assert_eq!(due_of(&delta), Some(1_795_656_390_185_123));
        let Update::Image { book, .. } = image(1) else { panic!() };
        assert_eq!(due_of(&Book::default().diff(&book)), None);
    }
}
