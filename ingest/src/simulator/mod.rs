//! A market simulator: invented events whose markets look and move like real ones, for the embedded demo, for load and
//! as test data.
//!
//! Pure: the caller's time drives it, one seed and one sequence of times always give the same updates, and it keeps
//! the [`truth`] of every market in plain maps, so that it can judge the whole chain behind it. Events run faster than
//! in life (see [`Config::pace`]), so that a minute of watching shows goals, sets and finishes.
//!
//! | file | what it holds |
//! |---|---|
//! | [`truth`] | what is true of every market |
//! | [`ticks`] | the classic tick ladder, the bookmaker's fractions |
//! | `football`, `tennis`, `racing` | models: what happens and what that makes probable |
//! | `fixture` | an event and its markets: stopped, opened, closed, forgotten |
//! | `market` | one market: its truth and what is not yet said of it |
//! | `prices` | ladders around a fair price: filled, requoted, resized, traded |
//! | [`recording`], [`mcm`] | a run as lines of the native format, or of Betfair's, with the books at checkpoints |

mod chance;
mod fixture;
mod football;
mod market;
pub mod mcm;
mod names;
mod prices;
mod racing;
pub mod recording;
mod tennis;
pub mod ticks;
pub mod truth;

use std::sync::Arc;

use tictac_proto::model::MarketId;

pub use truth::{TruthMarket, TruthSelection};

use self::chance::Chance;
use self::fixture::{Fixture, Ids};
use self::football::Football;
use self::names::Names;
use self::racing::Race;
use self::tennis::Tennis;
use crate::update::Update;

/// The simulator's own step, ms: a longer time is taken in steps of this.
const STEP: i64 = 100;
/// Longest time that one call makes up for; what lies before it is skipped.
const MAX_ADVANCE: i64 = 600_000;
/// Things that happen a second at rate 1, were every event of activity 1.
const BASE_RATE: f64 = 130.0;

/// What is simulated.
#[derive(Debug, Clone)]
pub struct Config {
    /// Factor on the number of price updates; 1 is about 130 a second over all markets.
    pub rate: f64,
    /// How much faster than in life matches run; 10 plays a football match in about 11 minutes. Races run as in life.
    pub pace: f64,
    /// Football matches at a time, five markets each.
    pub football: usize,
    /// Tennis matches at a time, two markets each.
    pub tennis: usize,
    /// Races at a time, three markets each.
    pub races: usize,
    /// How long a closed market stays before it goes, ms.
    pub linger_ms: i64,
    /// What ids of markets and events begin with.
    pub prefix: Arc<str>,
    /// The source that the markets name.
    pub source: Arc<str>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            rate: 1.0,
            pace: 10.0,
            football: 3,
            tennis: 2,
            races: 3,
            linger_ms: 45_000,
            prefix: "demo".into(),
            source: "demo".into(),
        }
    }
}

/// What runs at one place of the programme.
#[derive(Debug, Clone)]
enum Course {
    Football(Football),
    Tennis(Tennis),
    Race(Race),
}

#[derive(Debug, Clone, Copy)]
enum Sport {
    Football,
    Tennis,
    Race,
}

#[derive(Debug, Clone)]
struct Running {
    sport: Sport,
    course: Course,
    fixture: Fixture,
    /// How busy the moment is; bursts come and go.
    burst: f64,
}

/// The simulator.
#[derive(Debug, Clone)]
pub struct Simulator {
    config: Config,
    chance: Chance,
    ids: Ids,
    events: Vec<Running>,
    /// Time of the last step; `None` before the first call.
    now: Option<i64>,
    races_so_far: usize,
}

impl Simulator {
    /// A simulator at its beginning.
    #[must_use]
    pub fn new(seed: u64, config: Config) -> Self {
        let mut chance = Chance::new(seed);
        let ids = Ids {
            names: Names::new(&mut chance),
            prefix: Arc::clone(&config.prefix),
            source: Arc::clone(&config.source),
            next_event: 100,
            next_market: 1_000,
            next_selection: 40_000,
            linger_ms: config.linger_ms,
        };
        Self { config, chance, ids, events: Vec::new(), now: None, races_so_far: 0 }
    }

    /// What happens up to `now_ms` (Unix milliseconds), appended to `out`. The first call says the images of all
    /// markets. A time that goes backwards changes nothing; of a leap the last ten minutes are played.
    pub fn advance(&mut self, now_ms: i64, out: &mut Vec<Update>) {
        let Some(last) = self.now else {
            self.now = Some(now_ms);
            self.begin(now_ms, out);
            return;
        };
        let mut at = last.max(now_ms.saturating_sub(MAX_ADVANCE));
        while at < now_ms {
            let dt = STEP.min(now_ms - at);
            at += dt;
            self.step(at, dt, out);
        }
        self.now = Some(at.max(last));
    }

    /// Every market as it is now.
    pub fn truth(&self) -> impl Iterator<Item = (&MarketId, &TruthMarket)> {
        self.events.iter().flat_map(|e| &e.fixture.markets).map(|m| (&m.id, &m.truth))
    }

    /// The image of every market as it is now, for a sink that has lost track.
    pub fn images(&mut self, out: &mut Vec<Update>) {
        for running in &mut self.events {
            out.extend(running.fixture.markets.iter_mut().map(market::Market::image));
        }
    }

    fn begin(&mut self, now: i64, out: &mut Vec<Update>) {
        let programme = std::iter::repeat_n(Sport::Football, self.config.football)
            .chain(std::iter::repeat_n(Sport::Tennis, self.config.tennis))
            .chain(std::iter::repeat_n(Sport::Race, self.config.races));
        let mut place = [0_i64; 3];
        for sport in programme.collect::<Vec<_>>() {
            let nth = place[sport as usize];
            place[sport as usize] += 1;
            let running = self.create(sport, now, nth, true);
            self.events.push(running);
        }
        self.images(out);
    }

    /// A new event. At the beginning the first of each sport is under way or about to be, the others come later.
    fn create(&mut self, sport: Sport, now: i64, nth: i64, beginning: bool) -> Running {
        let (ids, chance) = (&mut self.ids, &mut self.chance);
        let under_way = beginning && nth == 0;
        let soon = |first: i64, each: i64| now + first + each * if beginning { nth } else { 1 };
        let (course, fixture) = match sport {
            Sport::Football => {
                let minute = if under_way { chance.between(12.0, 30.0) } else { 0.0 };
                #[allow(clippy::cast_possible_truncation, reason = "minutes")]
                let start = if under_way { now - minute as i64 * 60_000 } else { soon(0, 75_000) };
                let (course, fixture) = Football::new(ids, start, minute, chance);
                (Course::Football(course), fixture)
            }
            Sport::Tennis => {
                let start = if under_way { now - 300_000 } else { soon(20_000, 40_000) };
                let (course, fixture) = Tennis::new(ids, start, under_way, chance);
                (Course::Tennis(course), fixture)
            }
            Sport::Race => {
                // Every other race has a non-runner, the first among them.
                let non_runner = self.races_so_far.is_multiple_of(2);
                self.races_so_far += 1;
                let off = soon(55_000, 80_000) + chance.whole(0, 20_000);
                let (course, fixture) = Race::new(ids, now, off, non_runner, chance);
                (Course::Race(course), fixture)
            }
        };
        Running { sport, course, fixture, burst: 1.0 }
    }

    fn step(&mut self, now: i64, dt: i64, out: &mut Vec<Update>) {
        #[allow(clippy::cast_precision_loss, reason = "milliseconds")]
        let seconds = dt as f64 / 1_000.0;
        let minutes = seconds * self.config.pace / 60.0;
        let mut over = Vec::new();
        for (place, running) in self.events.iter_mut().enumerate() {
            let (fixture, chance) = (&mut running.fixture, &mut self.chance);
            fixture.resume(now, chance);
            let activity = match &mut running.course {
                Course::Football(football) => {
                    football.step(fixture, now, minutes, chance, out);
                    football.activity()
                }
                Course::Tennis(tennis) => {
                    tennis.step(&mut self.ids, fixture, now, minutes, chance, out);
                    tennis.activity()
                }
                Course::Race(race) => {
                    race.step(fixture, now, dt, chance, out);
                    race.activity(now)
                }
            };
            fixture.flush(out);
            // Calm and busy spells of a second or so each.
            if chance.happens(seconds / 1.5) {
                running.burst =
                    if chance.happens(0.25) { chance.between(2.0, 4.0) } else { chance.between(0.2, 0.9) };
            }
            let per_event = BASE_RATE / 8.0 * self.config.rate * activity * running.burst;
            act(fixture, chance.count(per_event * seconds * 0.8), chance, out);
            fixture.expire(now, out);
            if fixture.markets.is_empty() {
                over.push(place);
            }
        }
        for place in over {
            let running = self.create(self.events[place].sport, now, 0, false);
            self.events[place] = running;
            let markets = &mut self.events[place].fixture.markets;
            out.extend(markets.iter_mut().map(market::Market::image));
        }
    }
}

/// So many things happen in markets of an event, by their weights.
fn act(fixture: &mut Fixture, count: usize, chance: &mut Chance, out: &mut Vec<Update>) {
    let total: f64 = fixture.markets.iter().filter(|m| m.is_open()).map(|m| m.weight).sum();
    if total <= 0.0 {
        return;
    }
    for _ in 0..count {
        let mut at = chance.unit() * total;
        for market in fixture.markets.iter_mut().filter(|m| m.is_open()) {
            at -= market.weight;
            if at <= 0.0 {
                market.act(chance);
                market.flush(out);
                break;
            }
        }
    }
}
