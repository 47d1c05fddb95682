//! Invented names.

use super::chance::Chance;

const PLACES: [&str; 28] = [
    "Ashcombe",
    "Thornwick",
    "Marbury",
    "Kelsford",
    "Dunmere",
    "Harrowgate Park",
    "Oldbrook",
    "Stanmoor",
    "Penhallow",
    "Wexcliffe",
    "Brackley Vale",
    "Eastholme",
    "Carrowdale",
    "Tarnside",
    "Millhaven",
    "Rookhope",
    "Langstrand",
    "Velmora",
    "Castrello",
    "Norrvik",
    "Sandhaven",
    "Westerby",
    "Linfold",
    "Aldermoor",
    "Greystoke Bay",
    "Fenwick Cross",
    "Corvale",
    "Haldane",
];
const SUFFIXES: [&str; 8] = ["", "", " United", " City", " Rovers", " Athletic", " Town", " Albion"];
const LEAGUES: [&str; 3] = ["Northern Premier", "Coastal Championship", "Meridian League One"];
const TOURNAMENTS: [&str; 3] = ["Port Elmar Open", "Sandhaven Challenger", "Velmora Masters"];
const INITIALS: [&str; 14] = ["A", "B", "C", "D", "E", "F", "G", "J", "K", "L", "M", "N", "S", "T"];
const PLAYERS: [&str; 24] = [
    "Marchetti",
    "Oduya",
    "Lindqvist",
    "Sandoval",
    "Kerrigan",
    "Petrosyan",
    "Halloran",
    "Vasquez-Ruiz",
    "Tanaka",
    "Brandt",
    "Moreau",
    "Kowalczyk",
    "Ferreira",
    "Novakova",
    "Iversen",
    "Castellan",
    "Dragic",
    "Yilmaz",
    "Abara",
    "Sorensen",
    "Whitlock",
    "Rossetti",
    "Zelenka",
    "Okonjo",
];
const COURSES: [&str; 8] = [
    "Thornwick",
    "Marbury Downs",
    "Kelsford Park",
    "Oldbrook",
    "Wexcliffe",
    "Tarnside",
    "Linfold",
    "Rookhope",
];
const FIRST: [&str; 24] = [
    "Silver",
    "Midnight",
    "Copper",
    "Wandering",
    "Royal",
    "Quiet",
    "Northern",
    "Crimson",
    "Lucky",
    "Stormy",
    "Golden",
    "Velvet",
    "Rambling",
    "Distant",
    "Iron",
    "Merry",
    "Hidden",
    "Bold",
    "Amber",
    "Whistling",
    "Second",
    "Broken",
    "Flying",
    "Old",
];
const SECOND: [&str; 24] = [
    "Harbour",
    "Fiddler",
    "Lantern",
    "Sixpence",
    "Meadow",
    "Tempest",
    "Orchard",
    "Sovereign",
    "Magpie",
    "Compass",
    "Ballad",
    "Drummer",
    "Heather",
    "Sailor",
    "Promise",
    "Thunder",
    "Parade",
    "Bramble",
    "Ember",
    "Postman",
    "Falcon",
    "Anthem",
    "Ridge",
    "Tailor",
];

/// Deals names in a shuffled order, so that none comes back while it is still in use.
#[derive(Debug, Clone)]
pub(super) struct Names {
    places: Deck,
    players: Deck,
    courses: Deck,
    first: Deck,
    second: Deck,
}

/// A shuffled order that is dealt round and round.
#[derive(Debug, Clone)]
struct Deck {
    order: Vec<&'static str>,
    next: usize,
}

impl Deck {
    fn new(names: &[&'static str], chance: &mut Chance) -> Self {
        let mut order = names.to_vec();
        chance.shuffle(&mut order);
        // An odd number, so that the second time round makes other pairs than the first.
        if order.len().is_multiple_of(2) {
            order.pop();
        }
        Self { order, next: 0 }
    }

    fn deal(&mut self) -> &'static str {
        let name = self.order[self.next % self.order.len()];
        self.next += 1;
        name
    }
}

impl Names {
    pub(super) fn new(chance: &mut Chance) -> Self {
        Self {
            places: Deck::new(&PLACES, chance),
            players: Deck::new(&PLAYERS, chance),
            courses: Deck::new(&COURSES, chance),
            first: Deck::new(&FIRST, chance),
            second: Deck::new(&SECOND[1..], chance),
        }
    }

    /// Two football teams and their league.
    pub(super) fn football(&mut self, chance: &mut Chance) -> (String, String, &'static str) {
        let mut team = || format!("{}{}", self.places.deal(), chance.pick::<&str>(&SUFFIXES));
        (team(), team(), *chance.pick::<&'static str>(&LEAGUES))
    }

    /// Two tennis players and their tournament.
    pub(super) fn tennis(&mut self, chance: &mut Chance) -> (String, String, &'static str) {
        let mut player = || format!("{} {}", chance.pick::<&str>(&INITIALS), self.players.deal());
        (player(), player(), *chance.pick::<&'static str>(&TOURNAMENTS))
    }

    /// A race course and its runners, at most 20, no two of which share a word.
    pub(super) fn race(&mut self, runners: usize) -> (&'static str, Vec<String>) {
        // Every race starts the pairs elsewhere, or the second time round they would be the same horses.
        self.second.next += 3;
        let names = (0..runners).map(|_| format!("{} {}", self.first.deal(), self.second.deal()));
        (self.courses.deal(), names.collect())
    }
}
