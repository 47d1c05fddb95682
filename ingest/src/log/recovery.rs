//! What was read of a shard, put together: snapshots plus tail → the whole truth at the head. Pure; both
//! implementations read in their own way and meet here.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use tictac_proto::checksum::checksum;
use tictac_proto::log::{Entry, Live, Stored, What, stop_delta};
use tictac_proto::model::{MarketId, View};
use tictac_proto::position::Position;

use super::{Acquired, LogError, Snapshots, Tail};
use crate::stream_id::StreamId;

/// A log entry as it is stored.
#[derive(Debug, Clone)]
pub(crate) struct RawEntry {
    pub(crate) at: Position,
    pub(crate) bytes: Bytes,
}

impl RawEntry {
    fn decode(&self) -> Result<Entry, String> {
        match Live::decode(&self.bytes) {
            Ok(Live::Entry(entry)) if entry.at == self.at => Ok(entry),
            Ok(Live::Entry(entry)) => Err(format!("entry {} calls itself {}", self.at, entry.at)),
            Ok(Live::Alive(_)) => Err(format!("entry {} is a sign of life, which is never logged", self.at)),
            Err(error) => Err(format!("entry {} can't be read: {error}", self.at)),
        }
    }
}

fn decode_all(log: &[RawEntry]) -> Result<Vec<Entry>, LogError> {
    log.iter().map(|raw| raw.decode().map_err(LogError::Unexpected)).collect()
}

/// Whether every entry follows the one before it.
pub(crate) fn is_gapless(log: &[RawEntry]) -> bool {
    log.windows(2).all(|pair| pair[1].at.seq == pair[0].at.seq + 1 && pair[1].at.epoch >= pair[0].at.epoch)
}

/// Takes from `log`, read from `after` on (itself included where it is still there), what comes after it. `None` where
/// that does not connect.
///
/// It connects if the entry `after` itself is there; else only within one epoch: after a failover the new owner may
/// have written its own entry of that number, and it may be trimmed already.
pub(crate) fn connect(after: Position, head: Position, mut log: Vec<RawEntry>) -> Option<Vec<RawEntry>> {
    let present = log.first().is_some_and(|first| first.at == after);
    if present {
        log.remove(0);
    }
    let connects = match log.first() {
        None => head == after || present && head.seq == after.seq,
        Some(first) => {
            first.at.seq == after.seq + 1 && (present || after.is_zero() || first.at.epoch == after.epoch)
        }
    };
    (connects && is_gapless(&log)).then_some(log)
}

/// The answer to "what is after this position?".
pub(crate) fn tail(after: Position, head: Position, log: Vec<RawEntry>) -> Result<Tail, LogError> {
    let Some(log) = connect(after, head, log) else {
        return Ok(Tail { head, entries: Vec::new(), complete: false });
    };
    let head = log.last().map_or(head, |last| last.at.max(head));
    Ok(Tail { head, entries: decode_all(&log)?, complete: true })
}

/// All that a shard holds: the log without a gap, up to the head, and the snapshots, which the log makes whole.
#[derive(Debug, Default)]
pub(crate) struct Holdings {
    pub(crate) head: Position,
    /// `None` where a market is listed and its snapshot is not there.
    pub(crate) snapshots: Vec<(MarketId, Option<Bytes>)>,
    pub(crate) log: Vec<RawEntry>,
}

fn decode_snapshot(market: &MarketId, bytes: &[u8]) -> Result<Stored, String> {
    let stored = Stored::decode(bytes).map_err(|error| error.to_string())?;
    if stored.market != *market {
        return Err(format!("the snapshot is of market {}", stored.market));
    }
    let found = checksum(market, &stored.book, View::All);
    if found != stored.checksum {
        return Err(format!("the snapshot's checksum is {}, its book's {found}", stored.checksum));
    }
    Ok(stored)
}

const MISSING: &str = "the market is listed, its snapshot is not there";

impl Holdings {
    /// As a gateway wants it: older books, and the entries that bring them up to the head.
    pub(crate) fn into_snapshots(self) -> Result<Snapshots, LogError> {
        let entries = decode_all(&self.log)?;
        let gone = |market: &MarketId| {
            entries.iter().any(|e| matches!(&e.what, What::Gone { market: m } if m == market))
        };
        let mut markets = Vec::new();
        let mut unreadable = Vec::new();
        for (market, bytes) in self.snapshots {
            match bytes.map(|bytes| decode_snapshot(&market, &bytes)) {
                Some(Ok(stored)) => markets.push(stored),
                Some(Err(why)) => unreadable.push((market, why)),
                // Deleted between listing and reading: then the log says so.
                None if gone(&market) => {}
                None => unreadable.push((market, MISSING.into())),
            }
        }
        Ok(Snapshots { head: self.head, markets, entries, unreadable })
    }

    /// As an owner wants it: books at the head.
    pub(crate) fn recover(self) -> Recovered {
        let mut recovery = Recovery::default();
        for (market, bytes) in self.snapshots {
            match bytes.map(|bytes| decode_snapshot(&market, &bytes)) {
                Some(Ok(stored)) => recovery.hold(stored),
                Some(Err(why)) => recovery.lose(&market, why),
                None => recovery.lose(&market, MISSING.into()),
            }
        }
        recovery.stored = recovery.held.keys().chain(recovery.lost.keys()).cloned().collect();
        recovery.previous = self.log.first().map_or(self.head, |first| before(first.at));
        for raw in &self.log {
            match raw.decode() {
                Ok(entry) => recovery.apply(&entry),
                Err(why) => recovery.lose_older(raw.at, &why),
            }
            recovery.previous = raw.at;
        }
        Recovered {
            markets: recovery.books(),
            unreadable: recovery.lost.into_iter().collect(),
            covered: recovery.uncovered.into_values().min().unwrap_or(self.head),
        }
    }
}

fn before(at: Position) -> Position {
    Position::new(at.epoch, at.seq.saturating_sub(1))
}

/// What an owner starts from.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) markets: Vec<Stored>,
    pub(crate) unreadable: Vec<(MarketId, String)>,
    pub(crate) covered: Position,
}

impl Recovered {
    /// For whoever owns the shard from `at` on, or looks at it there.
    pub(crate) fn into_acquired(self, at: Position, resume: BTreeMap<Arc<str>, StreamId>) -> Acquired {
        Acquired {
            epoch: at.epoch,
            n: at.seq,
            markets: self.markets,
            unreadable: self.unreadable,
            covered: self.covered,
            resume,
        }
    }
}

/// Books on their way to the head. A market is held or lost, not both.
#[derive(Debug, Default)]
struct Recovery {
    held: HashMap<MarketId, Held>,
    lost: BTreeMap<MarketId, String>,
    /// Markets that came with a snapshot, readable or not.
    stored: HashSet<MarketId>,
    /// By market: where the log stood before the first change that its snapshot does not hold.
    uncovered: HashMap<MarketId, Position>,
    /// Where the log stood before the entry that is being applied.
    previous: Position,
}

#[derive(Debug)]
struct Held {
    stored: Stored,
    changed: bool,
}

impl Recovery {
    fn hold(&mut self, stored: Stored) {
        self.lost.remove(&stored.market);
        self.held.insert(stored.market.clone(), Held { stored, changed: false });
    }

    fn lose(&mut self, market: &MarketId, why: String) {
        self.held.remove(market);
        self.lost.insert(market.clone(), why);
    }

    /// An entry that can't be read may have been of any market that is older than it.
    fn lose_older(&mut self, at: Position, why: &str) {
        let older: Vec<MarketId> =
            self.held.values().filter(|h| h.stored.at < at).map(|h| h.stored.market.clone()).collect();
        for market in &older {
            self.lose(market, why.into());
            self.uncover(market);
        }
    }

    /// The entry that is being applied is in no snapshot.
    fn uncover(&mut self, market: &MarketId) {
        self.uncovered.entry(market.clone()).or_insert(self.previous);
    }

    /// Applies an entry to the markets that are older than it.
    fn apply(&mut self, entry: &Entry) {
        match &entry.what {
            What::Delta { market, delta, stop, checksum: expected } => {
                let Some(held) = self.held.get_mut(market) else {
                    self.lost
                        .entry(market.clone())
                        .or_insert_with(|| "the log changes it, and holds no book".into());
                    self.uncover(market);
                    return;
                };
                let stored = &mut held.stored;
                if entry.at <= stored.at {
                    return;
                }
                if entry.at.epoch != stored.at.epoch {
                    let why =
                        format!("its book is at {}, the change at {} of another epoch", stored.at, entry.at);
                    self.lose(market, why);
                    self.uncover(market);
                    return;
                }
                stored.book.apply(delta, entry.at.seq);
                stored.at = entry.at;
                if *stop {
                    stored.stop = entry.at;
                }
                held.changed = true;
                if let Some(expected) = expected {
                    let found = checksum(market, &stored.book, View::All);
                    if found != *expected {
                        self.lose(market, format!("at {} its checksum is {found}, not {expected}", entry.at));
                    }
                }
                self.uncover(market);
            }
            What::Image { market, book, stop, checksum } => {
                if self.held.get(market).is_none_or(|held| entry.at > held.stored.at) {
                    let (id, book) = (market.clone(), book.clone());
                    self.hold(Stored { market: id, at: entry.at, stop: *stop, book, checksum: *checksum });
                    self.uncover(market);
                }
            }
            What::Stop { markets, reason } => {
                for market in markets {
                    let Some(held) = self.held.get_mut(market) else { continue };
                    let stored = &mut held.stored;
                    // Measured against the last stop too: one of another epoch raises the stop and leaves the book's
                    // position, so that nothing of that epoch applies to it before an image.
                    if entry.at <= stored.at || entry.at <= stored.stop {
                        continue;
                    }
                    stored.book.apply(&stop_delta(&stored.book, reason.as_ref()), entry.at.seq);
                    stored.stop = entry.at;
                    if entry.at.epoch == stored.at.epoch {
                        stored.at = entry.at;
                    }
                    held.changed = true;
                    self.uncover(market);
                }
            }
            What::Gone { market } => {
                if self.held.get(market).is_some_and(|held| entry.at <= held.stored.at) {
                    return;
                }
                self.held.remove(market);
                self.lost.remove(market);
                if self.stored.contains(market) {
                    // Its snapshot would come back if the log forgot this entry.
                    self.uncover(market);
                } else {
                    self.uncovered.remove(market);
                }
            }
        }
    }

    /// The books, by market.
    fn books(&mut self) -> Vec<Stored> {
        let mut books: Vec<Stored> = self
            .held
            .drain()
            .map(|(market, held)| {
                let mut stored = held.stored;
                if held.changed {
                    stored.checksum = checksum(&market, &stored.book, View::All);
                }
                stored
            })
            .collect();
        books.sort_by(|a, b| a.market.cmp(&b.market));
        books
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(at: &[(u64, u64)]) -> Vec<RawEntry> {
        at.iter().map(|(e, s)| RawEntry { at: Position::new(*e, *s), bytes: Bytes::new() }).collect()
    }

    fn connects(after: (u64, u64), head: (u64, u64), read: &[(u64, u64)]) -> Option<usize> {
        let position = |(epoch, seq)| Position::new(epoch, seq);
        connect(position(after), position(head), log(read)).map(|rest| rest.len())
    }

    #[test]
    fn a_tail_connects_or_says_that_it_does_not() {
        assert_eq!(connects((1, 3), (1, 5), &[(1, 4), (1, 5)]), Some(2), "trimmed up to the position");
        assert_eq!(connects((1, 3), (1, 5), &[(1, 3), (1, 4), (1, 5)]), Some(2));
        assert_eq!(connects((1, 3), (1, 5), &[(1, 5)]), None, "trimmed beyond it");
        assert_eq!(connects((1, 3), (1, 6), &[(1, 4), (1, 6)]), None, "a gap");
        assert_eq!(connects((1, 3), (1, 5), &[]), None, "the log is gone");
        assert_eq!(connects((1, 3), (1, 3), &[]), Some(0));
        assert_eq!(connects((0, 0), (0, 0), &[]), Some(0));
        assert_eq!(connects((0, 0), (1, 1), &[(1, 1)]), Some(1));
        assert_eq!(connects((0, 0), (1, 2), &[(1, 2)]), None);
    }

    #[test]
    fn a_new_epoch_connects_only_through_the_entry_itself() {
        assert_eq!(connects((1, 3), (2, 5), &[(1, 3), (2, 4), (2, 5)]), Some(2));
        // The new owner may have written its own entry 3, which is trimmed by now.
        assert_eq!(connects((1, 3), (2, 5), &[(2, 4), (2, 5)]), None);
        assert_eq!(connects((1, 3), (2, 4), &[(2, 3), (2, 4)]), None);
        assert_eq!(connects((1, 3), (2, 3), &[(1, 3)]), Some(0), "taken over, nothing written yet");
        assert_eq!(connects((1, 3), (2, 3), &[]), None);
        assert_eq!(connects((1, 3), (1, 2), &[]), None, "a replica that had not heard of it");
    }

    #[test]
    fn an_entry_that_cannot_be_read_loses_only_what_is_older() {
        let book = |at| {
            let stored = Stored {
                market: format!("m{at}").as_str().into(),
                at: Position::new(1, at),
                stop: Position::ZERO,
                book: Box::default(),
                checksum: 0,
            };
            let checksum = checksum(&stored.market, &stored.book, View::All);
            (stored.market.clone(), Some(Stored { checksum, ..stored }.encode().into()))
        };
        let head = Position::new(1, 3);
        let snapshots = vec![book(1), book(3)];
        let recovered =
            Holdings { head, snapshots: snapshots.clone(), log: log(&[(1, 2), (1, 3)]) }.recover();
        assert_eq!(recovered.markets.iter().map(|s| &*s.market).collect::<Vec<_>>(), ["m3"]);
        assert_eq!(recovered.unreadable.iter().map(|u| &*u.0).collect::<Vec<_>>(), ["m1"]);
        assert_eq!(recovered.covered, Position::new(1, 1));
        let refused = Holdings { head, snapshots, log: log(&[(1, 2), (1, 3)]) }.into_snapshots();
        assert!(matches!(refused, Err(LogError::Unexpected(_))), "a reader goes stale and says so");
    }
}
