//! A football match: goals come as a Poisson process that quickens towards the end; prices follow from what is left.

use tictac_proto::model::MarketField;
use tictac_proto::model::fields::Kind;

use super::chance::Chance;
use super::fixture::{Fixture, Ids};
use super::market::{Market, MarketPlan};
use crate::update::{StopScope, Update};

/// Most goals of one side that the model reckons with.
const MOST: usize = 12;
/// Correct scores run up to this.
const LISTED: usize = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Before,
    First,
    HalfTime,
    Second,
    Over,
}

/// A match as its model sees it.
#[derive(Debug, Clone)]
pub(super) struct Football {
    phase: Phase,
    start: i64,
    /// Minutes played; while half time lasts, minutes of the break.
    minute: f64,
    /// Goals expected of each side over a whole match.
    strength: [f64; 2],
    goals: [usize; 2],
    /// Minute in which the second half ends.
    full_time: f64,
    /// Minute by which somebody has scored, where the programme wants that: whoever looks at a demo for a minute
    /// should see a goal.
    due: Option<f64>,
    repriced: i64,
}

impl Football {
    pub(super) fn new(ids: &mut Ids, start: i64, minute: f64, chance: &mut Chance) -> (Self, Fixture) {
        let (home, away, league) = ids.names.football(chance);
        let strength = [chance.between(1.1, 2.1), chance.between(0.8, 1.6)];
        let mut game = Self {
            phase: if minute > 0.0 { Phase::First } else { Phase::Before },
            start,
            minute,
            strength,
            goals: [0, 0],
            full_time: 90.0 + chance.between(2.0, 5.0),
            due: (minute > 0.0).then(|| minute + chance.between(3.0, 6.0)),
            repriced: 0,
        };
        let mut fixture = Fixture::new(ids, &format!("{home} v {away}"), "football", league, None, start);
        if minute > 0.0 {
            game.goals = [chance.below(2), 0];
            fixture.set_all(MarketField::InPlay, 1);
            fixture.set_all(MarketField::BetDelay, 5);
            fixture.set_all(MarketField::Score, game.score().as_str());
            fixture.set_all(MarketField::Clock, game.clock().as_str());
        }
        for plan in game.plans(ids, &home, &away) {
            fixture.offer(ids, plan, chance);
        }
        (game, fixture)
    }

    fn plans(&self, ids: &mut Ids, home: &str, away: &str) -> Vec<MarketPlan> {
        let (one, two, draw) = (ids.selection(), ids.selection(), ids.selection());
        let three = |names: [&str; 3], type_: &'static str| {
            let p = self.probabilities(type_);
            vec![
                (one, names[0].to_owned(), p[0]),
                (two, names[1].to_owned(), p[1]),
                (draw, names[2].to_owned(), p[2]),
            ]
        };
        let mut two_way = |names: [&str; 2], type_: &'static str| {
            let p = self.probabilities(type_);
            names.iter().zip(p).map(|(n, p)| (ids.selection(), (*n).to_owned(), p)).collect()
        };
        let plan = |type_, name: &str, liquidity, weight, runners| MarketPlan {
            kind: Kind::Ladder,
            type_,
            name: name.to_owned(),
            line: None,
            winners: 1,
            liquidity,
            weight,
            runners,
        };
        let goals = two_way(["Under 2.5 Goals", "Over 2.5 Goals"], "OVER_UNDER_25");
        let both = two_way(["Yes", "No"], "BOTH_TEAMS_TO_SCORE");
        let scores = score_names().into_iter().zip(self.probabilities("CORRECT_SCORE"));
        let scores = scores.map(|(name, p)| (ids.selection(), name, p)).collect();
        let odds = three([home, away, "The Draw"], "MATCH_ODDS");
        let house = three([home, away, "Draw"], "FIXED_MATCH_RESULT");
        vec![
            plan("MATCH_ODDS", "Match Odds", 320.0, 3.0, odds),
            MarketPlan {
                line: Some("2.5".to_owned()),
                ..plan("OVER_UNDER_25", "Over/Under 2.5 Goals", 140.0, 1.6, goals)
            },
            plan("BOTH_TEAMS_TO_SCORE", "Both Teams To Score", 60.0, 0.8, both),
            plan("CORRECT_SCORE", "Correct Score", 25.0, 1.2, scores),
            MarketPlan { kind: Kind::Fixed, ..plan("FIXED_MATCH_RESULT", "Match Result", 0.0, 0.3, house) },
        ]
    }

    pub(super) fn activity(&self) -> f64 {
        match self.phase {
            Phase::Before => 0.6,
            Phase::First | Phase::Second => 1.5,
            Phase::HalfTime => 0.5,
            Phase::Over => 0.0,
        }
    }

    /// One step of `minutes` of the match (and of the way to it).
    pub(super) fn step(
        &mut self,
        fixture: &mut Fixture,
        now: i64,
        minutes: f64,
        chance: &mut Chance,
        out: &mut Vec<Update>,
    ) {
        match self.phase {
            Phase::Before if now >= self.start => {
                self.phase = Phase::First;
                fixture.set_all(MarketField::InPlay, 1);
                fixture.set_all(MarketField::BetDelay, 5);
                fixture.set_all(MarketField::Score, "0-0");
                fixture.set_all(MarketField::Clock, "1'");
                fixture.stop(StopScope::Event, "kick-off", now + chance.whole(2_000, 4_000), out);
            }
            Phase::Before | Phase::Over => {}
            Phase::HalfTime => {
                self.minute += minutes;
                if self.minute >= 15.0 {
                    (self.phase, self.minute) = (Phase::Second, 45.0);
                }
            }
            Phase::First | Phase::Second => self.play(fixture, now, minutes, chance, out),
        }
        if self.phase != Phase::Over && now - self.repriced >= 1_000 {
            self.repriced = now;
            self.reprice(fixture);
            if self.phase != Phase::Before {
                fixture.set_all(MarketField::Clock, self.clock().as_str());
            }
        }
    }

    fn play(
        &mut self,
        fixture: &mut Fixture,
        now: i64,
        minutes: f64,
        chance: &mut Chance,
        out: &mut Vec<Update>,
    ) {
        self.minute += minutes;
        // More goals fall late than early.
        let urgency = 0.8 + 0.4 * (self.minute / 90.0).min(1.0);
        for side in 0..2 {
            let due = self.due.is_some_and(|due| self.minute >= due);
            let scores = due || chance.happens(self.strength[side] * urgency * minutes / 90.0);
            if scores && !fixture.is_stopped() {
                self.due = None;
                self.goals[side] += 1;
                fixture.stop(StopScope::Event, "goal", now + chance.whole(4_000, 9_000), out);
                fixture.set_all(MarketField::Score, self.score().as_str());
                self.reprice(fixture);
                self.close_decided(fixture, now);
            }
        }
        if self.phase == Phase::First && self.minute >= 46.0 {
            (self.phase, self.minute) = (Phase::HalfTime, 0.0);
        } else if self.phase == Phase::Second && self.minute >= self.full_time && !fixture.is_stopped() {
            self.phase = Phase::Over;
            fixture.stop(StopScope::Event, "full time", now, out);
            fixture.set_all(MarketField::Clock, "FT");
            let result = self.clone();
            fixture.close(now, |_| true, |market, i| result.won(market, i));
        }
    }

    /// Markets whose result no later goal can change.
    fn close_decided(&self, fixture: &mut Fixture, now: i64) {
        let over = self.goals[0] + self.goals[1] >= 3;
        let both = self.goals[0] > 0 && self.goals[1] > 0;
        fixture.close(
            now,
            |m| (over && m.type_is("OVER_UNDER_25")) || (both && m.type_is("BOTH_TEAMS_TO_SCORE")),
            |market, i| self.won(market, i),
        );
    }

    fn won(&self, market: &Market, i: usize) -> bool {
        let type_ = market.truth.text(MarketField::Type).unwrap_or_default();
        outcome(type_, self.goals) == i
    }

    fn reprice(&self, fixture: &mut Fixture) {
        for market in fixture.markets.iter_mut().filter(|m| m.is_live()) {
            let type_ = market.truth.text(MarketField::Type).unwrap_or_default().to_owned();
            for (quote, p) in market.quotes.iter_mut().zip(self.probabilities(&type_)) {
                quote.model = p;
            }
        }
    }

    /// Probability of each selection of a market type, from the goals that are still to come.
    fn probabilities(&self, type_: &str) -> Vec<f64> {
        let played = match self.phase {
            Phase::Before => 0.0,
            Phase::HalfTime => 45.0,
            _ => self.minute,
        };
        let left = ((self.full_time - played) / self.full_time).max(0.004);
        let coming = self.strength.map(|s| poisson(s * left));
        let mut sums = vec![0.0; selections_of(type_)];
        for (more_home, p_home) in coming[0].iter().enumerate() {
            for (more_away, p_away) in coming[1].iter().enumerate() {
                let end = [self.goals[0] + more_home, self.goals[1] + more_away];
                sums[outcome(type_, end)] += p_home * p_away;
            }
        }
        sums
    }

    fn score(&self) -> String {
        format!("{}-{}", self.goals[0], self.goals[1])
    }

    #[allow(clippy::cast_possible_truncation, reason = "minutes")]
    fn clock(&self) -> String {
        match self.phase {
            Phase::HalfTime => "HT".to_owned(),
            Phase::First if self.minute >= 45.0 => "45+'".to_owned(),
            Phase::Second if self.minute >= 90.0 => "90+'".to_owned(),
            _ => format!("{}'", self.minute as i64 + 1),
        }
    }
}

/// Probabilities of 0, 1, 2 … goals of a mean.
fn poisson(mean: f64) -> [f64; MOST] {
    let mut all = [0.0; MOST];
    let mut p = (-mean).exp();
    for (k, slot) in (1_u32..).zip(&mut all) {
        *slot = p;
        p *= mean / f64::from(k);
    }
    all
}

fn selections_of(type_: &str) -> usize {
    match type_ {
        "OVER_UNDER_25" | "BOTH_TEAMS_TO_SCORE" => 2,
        "CORRECT_SCORE" => (LISTED + 1) * (LISTED + 1) + 3,
        _ => 3,
    }
}

/// Index of the selection that a final score makes win.
fn outcome(type_: &str, [home, away]: [usize; 2]) -> usize {
    match type_ {
        "OVER_UNDER_25" => usize::from(home + away >= 3),
        "BOTH_TEAMS_TO_SCORE" => usize::from(home == 0 || away == 0),
        "CORRECT_SCORE" if home <= LISTED && away <= LISTED => home * (LISTED + 1) + away,
        "CORRECT_SCORE" => (LISTED + 1) * (LISTED + 1) + three_way(home, away),
        _ => three_way(home, away),
    }
}

fn three_way(home: usize, away: usize) -> usize {
    match home.cmp(&away) {
        std::cmp::Ordering::Greater => 0,
        std::cmp::Ordering::Less => 1,
        std::cmp::Ordering::Equal => 2,
    }
}

fn score_names() -> Vec<String> {
    let listed = (0..=LISTED).flat_map(|home| (0..=LISTED).map(move |away| format!("{home} - {away}")));
    let others = ["Any Other Home Win", "Any Other Away Win", "Any Other Draw"];
    listed.chain(others.map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_add_up_and_a_goal_moves_them() {
        let mut game = Football {
            phase: Phase::Second,
            start: 0,
            minute: 60.0,
            strength: [1.5, 1.1],
            goals: [0, 0],
            full_time: 93.0,
            due: None,
            repriced: 0,
        };
        for type_ in ["MATCH_ODDS", "OVER_UNDER_25", "BOTH_TEAMS_TO_SCORE", "CORRECT_SCORE"] {
            let sum: f64 = game.probabilities(type_).iter().sum();
            assert!((sum - 1.0).abs() < 1e-6, "{type_}: {sum}");
        }
        let before = game.probabilities("MATCH_ODDS");
        game.goals = [1, 0];
        let after = game.probabilities("MATCH_ODDS");
        assert!(after[0] > before[0] + 0.2 && after[1] < before[1], "{before:?} {after:?}");
        assert_eq!(score_names().len(), selections_of("CORRECT_SCORE"));
    }
}
