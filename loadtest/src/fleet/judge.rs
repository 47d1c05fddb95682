//! What many clients are sent, decoded once: all that follow a market in one way get the same bytes, so that whoever gets
//! them first has them checked for everybody. A client is then only a position.
//!
//! For each market and view there is one reference book, made of the frames that go on from where it is. What else comes (a
//! merged delta for one that was behind, a snapshot) must bring a client to a book that was the reference's: it is applied
//! to the reference as it was where the delta begins, and compared with the reference as it was where it ends.

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;
use std::time::Duration;

use foldhash::fast::RandomState;

use tictac_proto::checksum::{checksum, digest_key};
use tictac_proto::client::{ClientMarket, Outcome};
use tictac_proto::model::{Book, Delta, MarketId, View};
use tictac_proto::position::Position;
use tictac_proto::wire::{Codec, Down, ErrorCode, Heartbeat, How, Problem};

use crate::pulse;

/// Messages that are remembered.
const REMEMBERED: usize = 262_144;
/// Of so many, what came after them is known too, and of so many bytes of them.
const RECENT: usize = 8_192;
const RECENT_BYTES: usize = 32 << 20;
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
    /// The gateway knows no such market.
    Unknown {
        /// Which.
        place: Place,
    },
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

impl Reference {
    /// Of too many books the oldest goes.
    fn forget(&mut self) {
        if self.books.len() > BOOKS {
            self.books.pop_front();
        }
    }
}

/// A message that came lately.
struct Recent {
    /// As it came, with what is around it.
    frame: Box<[u8]>,
    seen: Seen,
}

/// Knows what every message means.
pub struct Judge {
    codec: Codec,
    view: View,
    places: HashMap<MarketId, Place>,
    references: Vec<Reference>,
    /// By their hashes, with the number of each.
    known: HashMap<u64, (Seen, u64), RandomState>,
    order: VecDeque<u64>,
    /// The newest, as they came for the first time: others get them in the same order.
    recent: VecDeque<Recent>,
    recent_bytes: usize,
    /// How many there were.
    count: u64,
    hasher: RandomState,
    /// How heartbeats begin, but for the first byte.
    heartbeat: Vec<u8>,
    welcome: Vec<u8>,
    beat: Option<Duration>,
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
            recent: VecDeque::new(),
            recent_bytes: 0,
            count: 0,
            hasher: RandomState::default(),
            heartbeat: beginning(&codec.encode(heartbeat), "hb"),
            welcome: beginning(&welcome, "welcome"),
            beat: None,
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

    /// Where each market stands whose book is known, and its checksum there.
    #[must_use]
    pub fn stands(&self) -> HashMap<Place, (Position, u32)> {
        let stands = |(place, reference): (usize, &Reference)| {
            let (at, book) = reference.client.position().zip(reference.client.book())?;
            let place = Place::try_from(place).ok()?;
            Some((place, (at, checksum(&reference.market, book, reference.view))))
        };
        self.references.iter().enumerate().filter_map(stands).collect()
    }

    /// The checksum of a market's book as it was at a position; `None` where that is not remembered.
    #[must_use]
    pub fn checksum_at(&self, place: Place, at: Position) -> Option<u32> {
        let reference = &self.references[place as usize];
        let book = reference.books.iter().rev().find(|(is, _)| *is == at);
        book.map(|(_, book)| checksum(&reference.market, book, reference.view))
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

    /// Whether it is a welcome, which is every client's own too; the first says how often heartbeats come.
    pub fn welcome(&mut self, payload: &[u8]) -> bool {
        if payload.get(1..=self.welcome.len()) != Some(&self.welcome) {
            return false;
        }
        if self.beat.is_none()
            && let Ok(node) = self.codec.decode(payload)
            && let Ok(Down::Welcome(welcome)) = Down::read(&node)
        {
            self.beat = Some(Duration::from_millis(welcome.heartbeat));
        }
        true
    }

    /// How often heartbeats come; `None` before the first welcome.
    #[must_use]
    pub fn beat(&self) -> Option<Duration> {
        self.beat
    }

    /// What came to others after the message with this number.
    fn after(&self, last: u64) -> Option<&Recent> {
        let begin = self.count - self.recent.len() as u64;
        self.recent.get(usize::try_from((last + 1).checked_sub(begin)?).ok()?)
    }

    /// What the frame at the beginning of a buffer means, and how long it is, where it is the one that came next to others;
    /// that is so for nearly all. `last` is the number of the client's last message, from which it goes on.
    pub fn next(&self, buffer: &[u8], last: &mut u64) -> Option<(usize, Seen)> {
        let Recent { frame, seen, .. } = self.after(*last)?;
        if !buffer.starts_with(frame) {
            return None;
        }
        *last += 1;
        Some((frame.len(), *seen))
    }

    /// What a message means that may have been sent to others before: its payload, in this frame. `last` becomes its number.
    pub fn see(&mut self, frame: &[u8], payload: &[u8], last: &mut u64) -> Seen {
        let hash = self.hasher.hash_one(payload);
        if let Some((seen, number)) = self.known.get(&hash) {
            *last = *number;
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
        self.recent_bytes += frame.len();
        self.recent.push_back(Recent { frame: frame.into(), seen });
        while self.recent.len() > RECENT || self.recent_bytes > RECENT_BYTES {
            let Some(oldest) = self.recent.pop_front() else { break };
            self.recent_bytes -= oldest.frame.len();
        }
        (*last, self.count) = (self.count, self.count + 1);
        self.known.insert(hash, (seen, *last));
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
            Down::Err(Problem { code: ErrorCode::UnknownMarket, market: Some(market), .. }) => {
                Seen::Unknown { place: self.place(market) }
            }
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
            // After a repair the reference goes on there, too.
            (Down::Snap(..), Some(held)) => at > held && !reference.books.iter().any(|(is, _)| *is == at),
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
                reference.forget();
            }
            return;
        }
        let Some((from, delta)) = way else { return };
        let book_at =
            |at: Position| reference.books.iter().rev().find(|(is, _)| *is == at).map(|(_, book)| book);
        let begin = if from == Position::ZERO { Some(Book::default()) } else { book_at(from).cloned() };
        let Some(mut book) = begin else {
            self.findings.not_compared += 1;
            return;
        };
        book.apply(delta, at.seq);
        let Some(was) = book_at(at) else {
            // What a snapshot went past is told step by step by others: those steps must lead to the snapshot's book.
            if from != Position::ZERO && held.is_some_and(|held| from < at && at < held) {
                let place = reference.books.partition_point(|(is, _)| *is < at);
                reference.books.insert(place, (at, book));
                reference.forget();
            } else {
                self.findings.not_compared += 1;
            }
            return;
        };
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
mod tests;
