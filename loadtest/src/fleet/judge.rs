//! What many clients are sent, decoded once: all that follow a market in one way get the same bytes, so that whoever gets
//! them first has them checked for everybody. A client is then only a position.
//!
//! For each market and view there is one reference book, made of the frames that go on from where it is. What else comes (a
//! merged delta for one that was behind, a snapshot) must bring a client to a book that was the reference's: it is applied
//! to the reference as it was where the delta begins, and compared with the reference as it was where it ends.

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;

use foldhash::fast::RandomState;

use tictac_proto::checksum::{checksum, digest_key};
use tictac_proto::client::{ClientMarket, Outcome};
use tictac_proto::model::{Book, Delta, MarketId, View};
use tictac_proto::position::Position;
use tictac_proto::wire::{Codec, Down, Heartbeat, How};

use crate::pulse;

/// Messages that are remembered.
const REMEMBERED: usize = 262_144;
/// Books that are remembered of each market, oldest first.
const BOOKS: usize = 64;
/// Mistakes that are told in full.
const TOLD: usize = 20;

/// A followed market's number.
pub type Place = u32;

/// What a message means to a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// From a position to another; when it was due, µs since 1970, where it says so.
    Delta {
        /// Which.
        place: Place,
        /// The epoch.
        epoch: u64,
        /// Where it begins, or below.
        prev: u64,
        /// Where it ends.
        seq: u64,
        /// When the change was due.
        due: Option<i64>,
    },
    /// The whole book.
    Snapshot {
        /// Which.
        place: Place,
        /// Where.
        at: Position,
    },
    /// The client's position goes on as it is.
    Exact {
        /// Which.
        place: Place,
    },
    /// A scope was taken, the markets of which are answered one by one.
    Taken,
    /// Not tradable below a position.
    Stop {
        /// When the stop was due, µs since 1970, where it says so.
        due: Option<i64>,
    },
    /// The gateway says that something is missing.
    Gap {
        /// Which.
        place: Place,
    },
    /// The market is gone.
    Gone {
        /// Which.
        place: Place,
    },
    /// The gateway sends the client away.
    Bye(u16),
    /// The gateway refuses something.
    Refused,
    /// Nothing that a client's position depends on.
    Other,
    /// A frame of the floor.
    Floor {
        /// When it was due.
        due: i64,
    },
    /// It can't be read, or contradicts what was sent before.
    Wrong,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// Distinct messages that were decoded.
    pub decoded: u64,
    /// Deltas and snapshots whose book was compared.
    pub compared: u64,
    /// Those that began or ended where no book is remembered.
    pub not_compared: u64,
    /// Checksums that agreed.
    pub checksums: u64,
    /// How often something was wrong.
    pub wrong: u64,
    /// The first of them, for people.
    pub mistakes: Vec<String>,
}

struct Reference {
    market: MarketId,
    view: View,
    digest_key: u32,
    client: ClientMarket,
    /// Books as they were, by position.
    books: VecDeque<(Position, Book)>,
}

/// Knows what every message means.
pub struct Judge {
    codec: Codec,
    view: View,
    places: HashMap<MarketId, Place>,
    references: Vec<Reference>,
    known: HashMap<u64, Seen, RandomState>,
    order: VecDeque<u64>,
    hasher: RandomState,
    /// How heartbeats begin, but for the first byte.
    heartbeat: Vec<u8>,
    welcome: Vec<u8>,
    /// What was found.
    pub findings: Findings,
}

impl std::fmt::Debug for Judge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Judge")
            .field("codec", &self.codec)
            .field("findings", &self.findings)
            .finish_non_exhaustive()
    }
}

/// How messages of a type begin, but for the first byte, which in MessagePack tells how many fields follow.
fn beginning(encoded: &[u8], kind: &str) -> Vec<u8> {
    let at = encoded.windows(kind.len()).position(|part| part == kind.as_bytes()).unwrap_or(0);
    encoded.get(1..at + kind.len()).unwrap_or(&[]).to_vec()
}

impl Judge {
    /// For clients that all follow markets in this codec and view.
    #[must_use]
    pub fn new(codec: Codec, view: View) -> Self {
        let heartbeat = Down::Hb(Heartbeat { now: 0, echo: None, behind: 0, as_of: None, digest: 0 });
        let welcome = codec.encode(Down::Welcome(tictac_proto::wire::Welcome {
            connection: String::new(),
            heartbeat: 0,
            now: 0,
            limits: Vec::new(),
        }));
        Self {
            codec,
            view,
            places: HashMap::new(),
            references: Vec::new(),
            known: HashMap::default(),
            order: VecDeque::new(),
            hasher: RandomState::default(),
            heartbeat: beginning(&codec.encode(heartbeat), "hb"),
            welcome: beginning(&welcome, "welcome"),
            findings: Findings::default(),
        }
    }

    /// The number of a market.
    pub fn place(&mut self, market: &MarketId) -> Place {
        if let Some(place) = self.places.get(market) {
            return *place;
        }
        let place = Place::try_from(self.references.len()).unwrap_or(Place::MAX);
        self.places.insert(market.clone(), place);
        self.references.push(Reference {
            market: market.clone(),
            view: self.view,
            digest_key: digest_key(market, self.view),
            client: ClientMarket::new(market.clone(), self.view),
            books: VecDeque::new(),
        });
        place
    }

    /// The market of a number.
    #[must_use]
    pub fn market(&self, place: Place) -> &MarketId {
        &self.references[place as usize].market
    }

    /// Its share of a digest.
    #[must_use]
    pub fn digest_key(&self, place: Place) -> u32 {
        self.references[place as usize].digest_key
    }

    /// The newest book, and where it stands.
    #[must_use]
    pub fn newest(&self, place: Place) -> Option<(Position, &Book)> {
        let client = &self.references[place as usize].client;
        client.position().zip(client.book())
    }

    /// A heartbeat, which is every client's own; `None` where the message is none.
    #[must_use]
    pub fn heartbeat(&self, payload: &[u8]) -> Option<Heartbeat> {
        if payload.get(1..=self.heartbeat.len()) != Some(&self.heartbeat) {
            return None;
        }
        match Down::read(&self.codec.decode(payload).ok()?).ok()? {
            Down::Hb(heartbeat) => Some(heartbeat),
            _ => None,
        }
    }

    /// Whether it is a welcome, which is every client's own too.
    #[must_use]
    pub fn is_welcome(&self, payload: &[u8]) -> bool {
        payload.get(1..=self.welcome.len()) == Some(&self.welcome)
    }

    /// What a message means that may have been sent to others before.
    pub fn see(&mut self, payload: &[u8]) -> Seen {
        let hash = self.hasher.hash_one(payload);
        if let Some(seen) = self.known.get(&hash) {
            return *seen;
        }
        let seen = self.decode(payload);
        self.findings.decoded += 1;
        if self.order.len() == REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        self.order.push_back(hash);
        self.known.insert(hash, seen);
        seen
    }

    /// Notes a mistake.
    pub fn mistake(&mut self, what: impl FnOnce() -> String) {
        self.findings.wrong += 1;
        if self.findings.mistakes.len() < TOLD {
            self.findings.mistakes.push(what());
        }
    }

    fn decode(&mut self, payload: &[u8]) -> Seen {
        if let Some(due) = crate::floor::due_of(payload) {
            return Seen::Floor { due };
        }
        let message = self
            .codec
            .decode(payload)
            .map_err(|error| error.to_string())
            .and_then(|node| Down::read(&node).map_err(|error| error.to_string()));
        match message {
            Ok(message) => self.judge(&message),
            Err(error) => {
                self.mistake(|| {
                    format!("a message can't be read: {error}: {:.200}", String::from_utf8_lossy(payload))
                });
                Seen::Wrong
            }
        }
    }

    fn judge(&mut self, message: &Down) -> Seen {
        match message {
            Down::Delta(head, delta) => {
                let place = self.place(&head.market);
                let (from, at) = (Position::new(head.epoch, head.prev), Position::new(head.epoch, head.seq));
                self.compare(place, message, Some((from, delta)), at);
                Seen::Delta {
                    place,
                    epoch: head.epoch,
                    prev: head.prev,
                    seq: head.seq,
                    due: pulse::due_of(delta),
                }
            }
            Down::Snap(head, delta) => {
                let place = self.place(&head.market);
                self.compare(place, message, Some((Position::ZERO, delta)), head.at);
                Seen::Snapshot { place, at: head.at }
            }
            Down::Ok(ok) if ok.market.is_empty() => Seen::Taken,
            Down::Ok(ok) if ok.how == How::Exact => Seen::Exact { place: self.place(&ok.market) },
            // What was missed comes next.
            Down::Ok(_) => Seen::Other,
            Down::Stop { market, why, .. } => {
                let place = self.place(market);
                self.references[place as usize].client.handle(message);
                Seen::Stop { due: why.as_deref().and_then(pulse::due_of_stop) }
            }
            Down::Crc { market, at, checksum: said, .. } => {
                let place = self.place(market);
                let reference = &self.references[place as usize];
                let book = reference.books.iter().rev().find(|(position, _)| position == at);
                match book.map(|(_, book)| checksum(market, book, reference.view)) {
                    Some(is) if is == *said => self.findings.checksums += 1,
                    Some(is) => {
                        self.mistake(|| format!("{market} at {at}: checksum {is}, the gateway says {said}"));
                        return Seen::Wrong;
                    }
                    None => self.findings.not_compared += 1,
                }
                Seen::Other
            }
            Down::Gap { market, .. } => Seen::Gap { place: self.place(market) },
            Down::Gone { market, .. } => Seen::Gone { place: self.place(market) },
            Down::Bye { code, .. } => Seen::Bye(*code),
            Down::Err(problem) => {
                self.mistake(|| format!("refused: {}", problem.why));
                Seen::Refused
            }
            _ => Seen::Other,
        }
    }

    /// Goes on with the reference, or compares what comes out with how it was.
    fn compare(&mut self, place: Place, message: &Down, way: Option<(Position, &Delta)>, at: Position) {
        let reference = &mut self.references[place as usize];
        let held = reference.client.position();
        let goes_on = match (message, held) {
            (Down::Snap(..), None) => true,
            (Down::Snap(..), Some(held)) => at.epoch > held.epoch,
            (Down::Delta(head, _), Some(held)) => {
                held.epoch == head.epoch && head.prev <= held.seq && head.seq > held.seq
            }
            _ => false,
        };
        if goes_on {
            let outcome = reference.client.handle(message);
            if matches!(outcome, Outcome::Applied | Outcome::Replaced)
                && let Some(book) = reference.client.book()
            {
                reference.books.push_back((at, book.clone()));
                if reference.books.len() > BOOKS {
                    reference.books.pop_front();
                }
            }
            return;
        }
        let Some((from, delta)) = way else { return };
        let book_at =
            |at: Position| reference.books.iter().rev().find(|(is, _)| *is == at).map(|(_, book)| book);
        let begin = if from == Position::ZERO { Some(Book::default()) } else { book_at(from).cloned() };
        let (Some(mut book), Some(was)) = (begin, book_at(at)) else {
            self.findings.not_compared += 1;
            return;
        };
        book.apply(delta, at.seq);
        let (is, should) = (
            checksum(&reference.market, &book, reference.view),
            checksum(&reference.market, was, reference.view),
        );
        if is == should {
            self.findings.compared += 1;
        } else {
            let what = format!(
                "{} from {from} to {at}: another book than the one that was told step by step",
                reference.market
            );
            self.mistake(|| what);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tictac_proto::model::{MarketField, SelectionKey, Side};
    use tictac_proto::wire::{DeltaHead, FeedState, SnapHead, Times};

    const EPOCH: u64 = 5;

    fn level(price: i64, size: i64) -> Delta {
        let mut delta = Delta::default();
        delta.selection_mut(SelectionKey { id: 1, handicap: 0 }).ladder_mut(Side::Back).set(price, size);
        delta
    }

    fn snapshot(seq: u64) -> Down {
        let head = SnapHead {
            market: "m".into(),
            view: View::All,
            at: Position::new(EPOCH, seq),
            stop: Position::ZERO,
            shard: 1,
            feed: FeedState::Live,
            times: Times::default(),
        };
        let mut delta = level(200, 5);
        delta.set(MarketField::Status, Some(0.into()));
        Down::Snap(head, delta)
    }

    fn delta(prev: u64, seq: u64, delta: Delta) -> Down {
        let (market, view) = ("m".into(), View::All);
        Down::Delta(DeltaHead { market, view, epoch: EPOCH, prev, seq, times: Times::default() }, delta)
    }

    fn see(judge: &mut Judge, message: &Down) -> Seen {
        judge.see(&judge.codec.encode(message))
    }

    /// A judge that has seen a snapshot and two changes.
    fn after_two(codec: Codec) -> Judge {
        let mut judge = Judge::new(codec, View::All);
        assert!(matches!(see(&mut judge, &snapshot(10)), Seen::Snapshot { place: 0, .. }));
        for (prev, seq, size) in [(10, 12, 6), (12, 13, 7)] {
            let seen = see(&mut judge, &delta(prev, seq, level(200, size)));
            assert_eq!(seen, Seen::Delta { place: 0, epoch: EPOCH, prev, seq, due: None });
        }
        judge
    }

    #[test]
    fn what_was_seen_is_not_decoded_again() {
        for codec in [Codec::Json, Codec::Msgpack] {
            let mut judge = after_two(codec);
            let decoded = judge.findings.decoded;
            see(&mut judge, &delta(12, 13, level(200, 7)));
            assert_eq!((judge.findings.decoded, decoded, judge.findings.wrong), (3, 3, 0));
        }
    }

    #[test]
    fn a_merged_delta_must_lead_to_the_book_that_steps_led_to() {
        for (size, wrong) in [(7, 0), (6, 1)] {
            let mut judge = after_two(Codec::Json);
            see(&mut judge, &delta(10, 13, level(200, size)));
            assert_eq!(
                (judge.findings.wrong, judge.findings.compared),
                (wrong, 1 - wrong),
                "{:?}",
                judge.findings
            );
        }
    }

    #[test]
    fn a_checksum_is_that_of_the_book_there() {
        let mut judge = after_two(Codec::Msgpack);
        let right = checksum(&"m".into(), judge.newest(0).unwrap().1, View::All);
        for (seq, said, wrong) in [(13, right, 0), (13, right ^ 1, 1), (12, right, 2)] {
            let at = Position::new(EPOCH, seq);
            see(&mut judge, &Down::Crc { market: "m".into(), view: View::All, at, checksum: said });
            assert_eq!(judge.findings.wrong, wrong);
        }
        assert_eq!(judge.findings.checksums, 1);
    }

    #[test]
    fn what_nobody_can_read_is_wrong_and_a_heartbeat_is_its_client_s() {
        let mut judge = Judge::new(Codec::Json, View::All);
        assert_eq!(judge.see(b"{\"t\":\"delta\""), Seen::Wrong);
        assert_eq!(judge.findings.wrong, 1);
        let heartbeat = Heartbeat { now: 1, echo: Some(2), behind: 3, as_of: None, digest: 4 };
        for codec in [Codec::Json, Codec::Msgpack] {
            let judge = Judge::new(codec, View::All);
            assert_eq!(judge.heartbeat(&codec.encode(Down::Hb(heartbeat))).map(|hb| hb.digest), Some(4));
            assert_eq!(judge.heartbeat(&codec.encode(snapshot(1))), None);
        }
    }
}
