//! A horse race: strengths make the prices; a runner may be withdrawn; after the off the leaders shorten quickly.

use tictac_proto::model::fields::Kind;
use tictac_proto::model::{MarketField, SelectionField, SelectionStatus};

use super::chance::Chance;
use super::fixture::{Fixture, Ids};
use super::market::MarketPlan;
use crate::update::{StopScope, Update};

/// How many places are paid.
const PLACES: usize = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Before,
    Running,
    Over,
}

/// A race as its model sees it.
#[derive(Debug, Clone)]
pub(super) struct Race {
    phase: Phase,
    off: i64,
    /// When a runner is withdrawn, where one will be.
    withdrawal: Option<i64>,
    /// Log strength by runner; withdrawn ones have none.
    strength: Vec<Option<f64>>,
    /// How far ahead of expectation, in the measure of strength.
    lead: Vec<f64>,
    /// Length of the race in ms.
    length: i64,
    repriced: i64,
}

impl Race {
    pub(super) fn new(
        ids: &mut Ids,
        now: i64,
        off: i64,
        non_runner: bool,
        chance: &mut Chance,
    ) -> (Self, Fixture) {
        let runners = usize::try_from(chance.whole(8, 14)).unwrap_or(8);
        let (course, horses) = ids.names.race(runners);
        let race = Self {
            phase: Phase::Before,
            off,
            withdrawal: non_runner.then(|| now + (off - now) * chance.whole(25, 75) / 100),
            strength: (0..runners).map(|_| Some(0.9 * chance.normal())).collect(),
            lead: vec![0.0; runners],
            length: chance.whole(45_000, 80_000),
            repriced: now,
        };
        let furlongs = race.length / 12_000 + 1;
        let name = format!("{course} {furlongs}f Hcap");
        let mut fixture = Fixture::new(ids, &name, "horse_racing", course, Some(course), off);
        let horses: Vec<(i64, String)> = horses.into_iter().map(|h| (ids.selection(), h)).collect();
        let (win, place) = race.chances();
        let with = |p: &[f64]| horses.iter().zip(p).map(|((id, name), p)| (*id, name.clone(), *p)).collect();
        let plan = |type_, name: &str, winners, liquidity, weight, runners| MarketPlan {
            kind: Kind::Ladder,
            type_,
            name: name.to_owned(),
            line: None,
            winners,
            liquidity,
            weight,
            runners,
        };
        fixture.offer(ids, plan("WIN", "To Win", 1, 130.0, 3.0, with(&win)), chance);
        let places = i64::try_from(PLACES).unwrap_or(3);
        fixture.offer(ids, plan("PLACE", "To Be Placed", places, 45.0, 1.2, with(&place)), chance);
        let house = plan("FIXED_WIN", "Win or Each Way", 1, 0.0, 0.4, with(&win));
        let house = fixture.offer(ids, MarketPlan { kind: Kind::Fixed, ..house }, chance);
        house.set(MarketField::EachWay, 5_000);
        race.adjustments(&mut fixture);
        (race, fixture)
    }

    pub(super) fn activity(&self, now: i64) -> f64 {
        match self.phase {
            Phase::Running => 3.0,
            Phase::Over => 0.0,
            // Most of the money comes in the last minutes.
            Phase::Before if self.off - now < 60_000 => 1.8,
            Phase::Before => 0.8,
        }
    }

    pub(super) fn step(
        &mut self,
        fixture: &mut Fixture,
        now: i64,
        dt: i64,
        chance: &mut Chance,
        out: &mut Vec<Update>,
    ) {
        match self.phase {
            Phase::Before => {
                if self.withdrawal.is_some_and(|at| now >= at) && !fixture.is_stopped() {
                    self.withdrawal = None;
                    self.withdraw(fixture, now, chance, out);
                }
                if now >= self.off && !fixture.is_stopped() {
                    self.start(fixture, now, chance, out);
                }
            }
            Phase::Running => self.run(fixture, now, dt, chance, out),
            Phase::Over => {}
        }
    }

    fn withdraw(&mut self, fixture: &mut Fixture, now: i64, chance: &mut Chance, out: &mut Vec<Update>) {
        let (win, _) = self.chances();
        // Neither the favourite nor an outsider that nobody would notice.
        let mut order: Vec<usize> = (0..win.len()).collect();
        order.sort_by(|a, b| win[*b].total_cmp(&win[*a]));
        let runner = order[1 + chance.below(win.len() / 2)];
        fixture.stop(StopScope::Event, "non-runner", now + chance.whole(3_000, 6_000), out);
        self.strength[runner] = None;
        for market in &mut fixture.markets {
            let key = market.quotes[runner].key;
            market.set_runner(key, SelectionField::Status, SelectionStatus::Removed.code());
            market.quotes[runner].model = 0.0;
            market.next_version();
        }
        self.reprice(fixture);
        self.adjustments(fixture);
    }

    /// Reduction factors: a runner's share of the win market in per cent, were it to be withdrawn.
    fn adjustments(&self, fixture: &mut Fixture) {
        let (win, _) = self.chances();
        for market in fixture.markets.iter_mut().filter(|m| m.kind == Kind::Ladder) {
            for (i, share) in win.iter().enumerate() {
                if self.strength[i].is_some() {
                    #[allow(clippy::cast_possible_truncation, reason = "at most 10,000")]
                    let hundredths = (share * 10_000.0).round() as i64;
                    let key = market.quotes[i].key;
                    market.set_runner(key, SelectionField::Adjustment, hundredths * 10);
                }
            }
        }
    }

    fn start(&mut self, fixture: &mut Fixture, now: i64, chance: &mut Chance, out: &mut Vec<Update>) {
        self.phase = Phase::Running;
        self.repriced = now;
        // Starting prices: the last that was traded.
        for market in fixture.markets.iter_mut().filter(|m| m.type_is("WIN")) {
            for i in 0..market.quotes.len() {
                let key = market.quotes[i].key;
                let last = market.truth.selections.get(&key).and_then(|s| s.int(SelectionField::Last));
                if let (Some(last), SelectionStatus::Active) = (last, market.runner_status(key)) {
                    market.set_runner(key, SelectionField::Sp, last);
                }
            }
        }
        fixture.set_all(MarketField::InPlay, 1);
        fixture.set_all(MarketField::BetDelay, 1);
        fixture.stop(StopScope::Event, "off", now + chance.whole(1_500, 3_000), out);
    }

    fn run(&mut self, fixture: &mut Fixture, now: i64, dt: i64, chance: &mut Chance, out: &mut Vec<Update>) {
        #[allow(clippy::cast_precision_loss, reason = "milliseconds")]
        let share = dt as f64 / self.length as f64;
        for lead in &mut self.lead {
            *lead += 2.2 * share.sqrt() * chance.normal();
        }
        if now - self.repriced >= 500 {
            self.repriced = now;
            self.reprice(fixture);
        }
        if now >= self.off + self.length && !fixture.is_stopped() {
            self.phase = Phase::Over;
            fixture.stop(StopScope::Event, "result", now, out);
            let order = self.order(1.0);
            fixture.close(
                now,
                |_| true,
                |market, i| {
                    let first = if market.type_is("PLACE") { PLACES } else { 1 };
                    order.iter().take(first).any(|o| *o == i)
                },
            );
        }
    }

    /// Runners by how they stand when `progress` of the race is run.
    fn order(&self, progress: f64) -> Vec<usize> {
        let mut order: Vec<usize> =
            (0..self.strength.len()).filter(|i| self.strength[*i].is_some()).collect();
        order.sort_by(|a, b| self.standing(*b, progress).total_cmp(&self.standing(*a, progress)));
        order
    }

    fn standing(&self, i: usize, progress: f64) -> f64 {
        self.strength[i].unwrap_or(f64::NEG_INFINITY) * (1.0 - 0.6 * progress) + self.lead[i]
    }

    fn reprice(&self, fixture: &mut Fixture) {
        let (win, place) = self.chances();
        for market in fixture.markets.iter_mut().filter(|m| m.is_live()) {
            let chances = if market.type_is("PLACE") { &place } else { &win };
            for (quote, p) in market.quotes.iter_mut().zip(chances) {
                quote.model = *p;
            }
        }
    }

    /// Probabilities to win and to be placed (Harville's formula), 0 for who is withdrawn.
    fn chances(&self) -> (Vec<f64>, Vec<f64>) {
        #[allow(clippy::cast_precision_loss, reason = "milliseconds")]
        let progress = match self.phase {
            Phase::Before => 0.0,
            _ => ((self.repriced - self.off) as f64 / self.length as f64).clamp(0.0, 1.0),
        };
        // The less is left to run, the more a lead decides.
        let sharpness = 1.0 + 7.0 * progress * progress;
        let weight = |i: usize| match self.strength[i] {
            None => 0.0,
            Some(_) => (sharpness * self.standing(i, progress)).clamp(-60.0, 60.0).exp(),
        };
        let weights: Vec<f64> = (0..self.strength.len()).map(weight).collect();
        let total: f64 = weights.iter().sum();
        let win: Vec<f64> = weights.iter().map(|w| w / total).collect();
        let mut place = win.clone();
        for (first, p_first) in win.iter().enumerate() {
            for (second, p_second) in win.iter().enumerate().filter(|s| s.0 != first) {
                let left = (1.0 - p_first).max(1e-12);
                let two = p_first * p_second / left;
                place[second] += two;
                let left = (left - p_second).max(1e-12);
                for (third, p_third) in win.iter().enumerate().filter(|t| t.0 != first && t.0 != second) {
                    place[third] += two * p_third / left;
                }
            }
        }
        (win, place.into_iter().map(|p| p.min(1.0)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chances_add_up_and_a_withdrawn_runner_has_none() {
        let mut race = Race {
            phase: Phase::Before,
            off: 0,
            withdrawal: None,
            strength: vec![Some(0.5), Some(0.0), Some(-0.3), Some(1.0), Some(0.2)],
            lead: vec![0.0; 5],
            length: 60_000,
            repriced: 0,
        };
        let sums = |race: &Race| {
            let (win, place) = race.chances();
            (win.iter().sum::<f64>(), place.iter().sum::<f64>())
        };
        let (win, place) = sums(&race);
        assert!((win - 1.0).abs() < 1e-9 && (place - 3.0).abs() < 1e-6, "{win} {place}");
        race.strength[3] = None;
        assert!((sums(&race).0 - 1.0).abs() < 1e-9);
        assert!(race.chances().0[3] == 0.0);
        race.phase = Phase::Running;
        race.repriced = 59_000;
        race.lead[2] = 2.0;
        assert!(race.chances().0[2] > 0.9);
    }
}
