//! A tennis match, best of three sets: points are won by a server's probability, and a chain over points, games and
//! sets gives everybody's price.

use std::sync::Arc;

use tictac_proto::model::MarketField;
use tictac_proto::model::fields::Kind;

use super::chance::Chance;
use super::fixture::{Fixture, Ids};
use super::market::MarketPlan;
use crate::update::{StopScope, Update};

/// Minutes between points.
const POINT_MINUTES: f64 = 0.6;

/// A match as its model sees it; players are 0 and 1.
#[derive(Debug, Clone)]
pub(super) struct Tennis {
    names: [String; 2],
    players: [i64; 2],
    started: bool,
    over: bool,
    start: i64,
    /// Probability that each player wins a point on own service.
    serve: [f64; 2],
    server: usize,
    points: [u32; 2],
    games: [u32; 2],
    sets: [u32; 2],
    /// Minutes until the next point.
    wait: f64,
}

impl Tennis {
    pub(super) fn new(ids: &mut Ids, start: i64, playing: bool, chance: &mut Chance) -> (Self, Fixture) {
        let (one, two, tournament) = ids.names.tennis(chance);
        let mut game = Self {
            players: [ids.selection(), ids.selection()],
            started: playing,
            over: false,
            start,
            serve: [chance.between(0.56, 0.68), chance.between(0.56, 0.68)],
            server: chance.below(2),
            points: [0, 0],
            games: [0, 0],
            sets: [0, 0],
            wait: POINT_MINUTES,
            names: [one, two],
        };
        let name = format!("{} v {}", game.names[0], game.names[1]);
        let mut fixture = Fixture::new(ids, &name, "tennis", tournament, None, start);
        if playing {
            game.games = [u32::from(chance.happens(0.5)), 1];
            fixture.set_all(MarketField::InPlay, 1);
            fixture.set_all(MarketField::BetDelay, 3);
            fixture.set_all(MarketField::Score, game.score().as_str());
        }
        let (set, whole) = game.chances();
        fixture.offer(ids, game.plan("MATCH_WINNER", "Match Winner".to_owned(), 240.0, 2.2, whole), chance);
        game.offer_set(ids, &mut fixture, set, chance);
        (game, fixture)
    }

    fn plan(&self, type_: &'static str, name: String, liquidity: f64, weight: f64, first: f64) -> MarketPlan {
        let [one, two] = self.players;
        MarketPlan {
            kind: Kind::Ladder,
            type_,
            name,
            line: None,
            winners: 1,
            liquidity,
            weight,
            runners: vec![(one, self.names[0].clone(), first), (two, self.names[1].clone(), 1.0 - first)],
        }
    }

    fn offer_set<'f>(
        &self,
        ids: &mut Ids,
        fixture: &'f mut Fixture,
        first: f64,
        chance: &mut Chance,
    ) -> &'f mut super::market::Market {
        let number = self.sets[0] + self.sets[1] + 1;
        let mut plan = self.plan("SET_WINNER", format!("Set {number} Winner"), 70.0, 1.0, first);
        plan.line = Some(number.to_string());
        fixture.offer(ids, plan, chance)
    }

    pub(super) fn activity(&self) -> f64 {
        match (self.over, self.started) {
            (true, _) => 0.0,
            (_, true) => 1.5,
            _ => 0.6,
        }
    }

    pub(super) fn step(
        &mut self,
        ids: &mut Ids,
        fixture: &mut Fixture,
        now: i64,
        minutes: f64,
        chance: &mut Chance,
        out: &mut Vec<Update>,
    ) {
        if self.over || (!self.started && now < self.start) {
            return;
        }
        if !self.started {
            self.started = true;
            fixture.set_all(MarketField::InPlay, 1);
            fixture.set_all(MarketField::BetDelay, 3);
            fixture.stop(StopScope::Event, "first service", now + 2_000, out);
        }
        self.wait -= minutes;
        if self.wait > 0.0 || fixture.is_stopped() {
            return;
        }
        self.wait = POINT_MINUTES * chance.between(0.7, 1.5);
        let to_server = chance.happens(self.serve[self.server]);
        let set_over = self.point(if to_server { self.server } else { 1 - self.server });
        if set_over {
            self.end_of_set(ids, fixture, now, chance, out);
        }
        if !self.over {
            let (set, whole) = self.chances();
            for market in fixture.markets.iter_mut().filter(|m| m.is_live()) {
                let first = if market.type_is("SET_WINNER") { set } else { whole };
                market.quotes[0].model = first;
                market.quotes[1].model = 1.0 - first;
            }
        }
        fixture.set_all(MarketField::Score, self.score().as_str());
    }

    fn end_of_set(
        &mut self,
        ids: &mut Ids,
        fixture: &mut Fixture,
        now: i64,
        chance: &mut Chance,
        out: &mut Vec<Update>,
    ) {
        let winner = usize::from(self.games[1] > self.games[0]);
        let match_over = self.sets[winner] == 2;
        let sets: Vec<_> =
            fixture.markets.iter().filter(|m| m.is_live() && m.type_is("SET_WINNER")).collect();
        let scope = if match_over {
            StopScope::Event
        } else if chance.happens(0.5) {
            StopScope::Markets(sets.iter().map(|m| Arc::clone(&m.id)).collect())
        } else {
            StopScope::Types(vec!["SET_WINNER".into(), "MATCH_WINNER".into()])
        };
        fixture.stop(scope, if match_over { "match over" } else { "set over" }, now + 3_000, out);
        fixture.close(now, |m| match_over || m.type_is("SET_WINNER"), |_, i| i == winner);
        self.over = match_over;
        if !match_over {
            self.games = [0, 0];
            let (set, _) = self.chances();
            // What is said of the market so far is its image.
            out.push(self.offer_set(ids, fixture, set, chance).image());
        }
    }

    /// Counts a point; whether it ended the set. The games stand until the next set begins.
    fn point(&mut self, winner: usize) -> bool {
        let tie_break = self.games == [6, 6];
        self.points[winner] += 1;
        let (mine, theirs) = (self.points[winner], self.points[1 - winner]);
        if tie_break && (mine + theirs) % 2 == 1 {
            self.server = 1 - self.server;
        }
        if mine < if tie_break { 7 } else { 4 } || mine < theirs + 2 {
            return false;
        }
        self.points = [0, 0];
        self.games[winner] += 1;
        self.server = 1 - self.server;
        let (mine, theirs) = (self.games[winner], self.games[1 - winner]);
        let over = mine == 7 || (mine == 6 && theirs <= 4);
        self.sets[winner] += u32::from(over);
        over
    }

    /// Probability that player 0 wins the set that is played, and the match.
    fn chances(&self) -> (f64, f64) {
        let hold = self.serve.map(|p| race(p, 4, 0, 0));
        // A game that player 0 wins: own service held, or the other's broken.
        let wins_serving = |server: usize| if server == 0 { hold[0] } else { 1.0 - hold[1] };
        let average = f64::midpoint(self.serve[0], 1.0 - self.serve[1]);
        let tie = race(average, 7, 0, 0);
        let from = |games, server| set_from(games, server, &wins_serving, tie);
        let [a, b] = self.games;
        let set = if self.games == [6, 6] {
            race(average, 7, self.points[0], self.points[1])
        } else {
            let p = self.serve[self.server];
            let p = if self.server == 0 { p } else { 1.0 - p };
            let game = race(p, 4, self.points[0], self.points[1]);
            game * from([a + 1, b], 1 - self.server) + (1.0 - game) * from([a, b + 1], 1 - self.server)
        };
        let fresh = f64::midpoint(from([0, 0], 0), from([0, 0], 1));
        let whole = match self.sets {
            [0, 0] => set * (fresh + (1.0 - fresh) * fresh) + (1.0 - set) * fresh * fresh,
            [1, 0] => set + (1.0 - set) * fresh,
            [0, 1] => set * fresh,
            [one, two] if one == two => set,
            [one, two] => f64::from(u8::from(one > two)),
        };
        (set.clamp(0.0, 1.0), whole.clamp(0.0, 1.0))
    }

    fn score(&self) -> String {
        let points = |side: usize| {
            let (mine, theirs) = (self.points[side], self.points[1 - side]);
            if self.games == [6, 6] {
                return mine.to_string();
            }
            match (mine, theirs) {
                (0, _) => "0".to_owned(),
                (1, _) => "15".to_owned(),
                (2, _) => "30".to_owned(),
                (m, t) if m > t && m > 3 => "A".to_owned(),
                _ => "40".to_owned(),
            }
        };
        let [sets, games] = [self.sets, self.games];
        format!("{}-{} {}-{} {}:{}", sets[0], sets[1], games[0], games[1], points(0), points(1))
    }
}

/// Probability of being first to `to` points and two ahead, from `mine` to `theirs`, winning each with `p`.
fn race(p: f64, to: u32, mine: u32, theirs: u32) -> f64 {
    if mine >= to && mine >= theirs + 2 {
        return 1.0;
    }
    if theirs >= to && theirs >= mine + 2 {
        return 0.0;
    }
    let level = p * p / (p * p + (1.0 - p) * (1.0 - p));
    if mine >= to - 1 && theirs >= to - 1 {
        return match mine.cmp(&theirs) {
            std::cmp::Ordering::Equal => level,
            std::cmp::Ordering::Greater => p + (1.0 - p) * level,
            std::cmp::Ordering::Less => p * level,
        };
    }
    p * race(p, to, mine + 1, theirs) + (1.0 - p) * race(p, to, mine, theirs + 1)
}

/// Probability that player 0 wins a set from these games on.
fn set_from(games: [u32; 2], server: usize, wins: &impl Fn(usize) -> f64, tie: f64) -> f64 {
    match games {
        [7, _] => 1.0,
        [_, 7] => 0.0,
        [6, b] if b <= 4 => 1.0,
        [a, 6] if a <= 4 => 0.0,
        [6, 6] => tie,
        [a, b] => {
            let p = wins(server);
            p * set_from([a + 1, b], 1 - server, wins, tie)
                + (1.0 - p) * set_from([a, b + 1], 1 - server, wins, tie)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_players_have_equal_chances_and_a_lead_helps() {
        assert!((race(0.5, 4, 0, 0) - 0.5).abs() < 1e-12);
        assert!((race(0.62, 4, 0, 0) - 0.7759).abs() < 1e-3, "a known value of the hold probability");
        let even = set_from([0, 0], 0, &|s| if s == 0 { 0.8 } else { 0.2 }, 0.5);
        assert!((even - 0.5).abs() < 1e-9, "{even}");
        let ahead = set_from([3, 1], 0, &|s| if s == 0 { 0.8 } else { 0.2 }, 0.5);
        assert!(ahead > 0.7, "{ahead}");
    }
}
