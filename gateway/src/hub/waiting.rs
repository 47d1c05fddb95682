//! Who waits for a market: openings and questions whose shard is not here yet, each until its deadline. Kept by shard, so
//! that news of one shard costs only those who wait for it.

use std::collections::BTreeMap;

use tictac_proto::log::CATALOGUE;
use tictac_proto::model::{MarketId, View};
use tictac_proto::wire::ErrorCode;

use super::{Answer, Document, Hub, Now, RunKey, ToCore};

/// How long an opening waits for its shard, ms.
const OPEN_DEADLINE: i64 = 5_000;
/// How long a document waits for the first `alive` of a shard newly followed, ms.
const FIRST_ALIVE: i64 = 1_000;
/// Openings and questions that may wait for shards at once.
const MAX_WAITING: usize = 50_000;

/// Who waits.
#[derive(Debug)]
pub(super) enum Waiter {
    /// A core that wants a run.
    Run { core: usize, key: RunKey },
    /// A request that wants a document.
    Document { view: View, ask: u64 },
}

/// Somebody who waits, and until when.
#[derive(Debug)]
pub(super) struct Waiting {
    market: MarketId,
    deadline: i64,
    waiter: Waiter,
}

/// Everybody who waits, by the shard that they wait for; `None`: for the catalogue to know the market.
#[derive(Debug, Default)]
pub(super) struct WaitingRoom {
    groups: BTreeMap<Option<u16>, Vec<Waiting>>,
    len: usize,
    /// How often somebody was looked at.
    served: u64,
}

impl WaitingRoom {
    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    fn put(&mut self, group: Option<u16>, waiting: Waiting) {
        self.len += 1;
        self.groups.entry(group).or_default().push(waiting);
    }

    fn take(&mut self, group: Option<u16>) -> Vec<Waiting> {
        let taken = self.groups.remove(&group).unwrap_or_default();
        self.len -= taken.len();
        taken
    }
}

impl Hub {
    /// Serves somebody at once if the market is here, else follows its shard and lets them wait.
    pub(super) fn wait(&mut self, market: MarketId, waiter: Waiter, now: Now) {
        if let Some(shard) = self.shard_of_market(&market) {
            // Wanted while it waits, so that it is not let go meanwhile.
            self.want(shard);
            self.unwant(shard, now);
        }
        let waiting = Waiting { market, deadline: now.mono + OPEN_DEADLINE, waiter };
        if let Some(waiting) = self.serve(waiting, now) {
            if self.waiting.len() < MAX_WAITING {
                let group = self.shard_of_market(&waiting.market);
                self.waiting.put(group, waiting);
            } else {
                self.refuse(
                    waiting,
                    ErrorCode::NotReady,
                    "too many requests wait for the feed".into(),
                    Some(2_000),
                );
            }
        }
    }

    /// Serves who waits for this shard. News of the catalogue serves who waits for a market that it did not know.
    pub(super) fn serve_shard(&mut self, shard: u16, now: Now) {
        let group = (shard != CATALOGUE).then_some(shard);
        self.serve_group(group, now);
    }

    /// Serves everybody: those, too, whose time is up.
    pub(super) fn serve_all(&mut self, now: Now) {
        let groups: Vec<Option<u16>> = self.waiting.groups.keys().copied().collect();
        for group in groups {
            self.serve_group(group, now);
        }
    }

    fn serve_group(&mut self, group: Option<u16>, now: Now) {
        for waiting in self.waiting.take(group) {
            self.waiting.served += 1;
            if let Some(waiting) = self.serve(waiting, now) {
                let group = self.shard_of_market(&waiting.market);
                self.waiting.put(group, waiting);
            }
        }
    }

    /// Serves somebody if it can be decided now; gives them back if not.
    fn serve(&mut self, waiting: Waiting, now: Now) -> Option<Waiting> {
        let catalogue = self.followers.get(&CATALOGUE).is_some_and(|w| w.follower.has_books());
        let Some(shard) = self.shard_of_market(&waiting.market) else {
            if catalogue {
                let why =
                    format!("market {:?} is not in the catalogue: see GET /v1/markets", &*waiting.market);
                self.refuse(waiting, ErrorCode::UnknownMarket, why, None);
                return None;
            }
            return self.unless_late(waiting, now);
        };
        if !self.followers.contains_key(&shard) {
            self.want(shard);
            self.unwant(shard, now);
        }
        let here = self.followers.get(&shard).is_some_and(|w| {
            // A document can't be corrected later: it waits for the first sign of life of a shard newly followed.
            let document = matches!(waiting.waiter, Waiter::Document { .. });
            let heard =
                w.follower.heard().is_some() || waiting.deadline - now.mono < OPEN_DEADLINE - FIRST_ALIVE;
            w.follower.market(&waiting.market).is_some() && (heard || !document)
        });
        if !here {
            return self.unless_late(waiting, now);
        }
        match waiting.waiter {
            Waiter::Run { core, key } => {
                let source = self.feed_of(shard, &waiting.market, now).source;
                self.opened(core, key, shard, source);
            }
            Waiter::Document { view, ask } => {
                let feed = self.feed_of(shard, &waiting.market, now);
                if let Some(market) = self.market(&waiting.market) {
                    let document = Document::new(market, view, &feed, now);
                    self.answers.push((ask, Answer::Document(document)));
                }
            }
        }
        None
    }

    fn unless_late(&mut self, waiting: Waiting, now: Now) -> Option<Waiting> {
        if now.mono < waiting.deadline {
            return Some(waiting);
        }
        let why = format!("the feed of market {:?} is not there: the gateway keeps trying", &*waiting.market);
        self.refuse(waiting, ErrorCode::NotReady, why, Some(2_000));
        None
    }

    fn refuse(&mut self, waiting: Waiting, code: ErrorCode, why: String, retry: Option<u64>) {
        match waiting.waiter {
            Waiter::Run { core, key } => {
                if self.events.contains_key(&waiting.market) {
                    self.missed.insert(waiting.market);
                }
                self.cores[core].push(ToCore::Refused { key, code, why, retry });
            }
            Waiter::Document { ask, .. } => self.answers.push((ask, Answer::Refused { code, why, retry })),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::Subject;
    use crate::wires::Wire;
    use tictac_proto::checksum::checksum;
    use tictac_proto::log::{Stored, shard_of};
    use tictac_proto::model::{Book, MarketField};
    use tictac_proto::position::Position;

    const SHARDS: u16 = 2;
    const HEAD: Position = Position { epoch: 1, seq: 9 };

    fn at(mono: i64) -> Now {
        Now { mono, wall: mono }
    }

    /// An event of each shard.
    fn events() -> [String; 2] {
        [0, 1].map(|shard| (0..).map(|i| format!("e{i}")).find(|e| shard_of(e, SHARDS) == shard).unwrap())
    }

    fn stored(market: &str, event: &str) -> Stored {
        let mut book = Book::default();
        book.set(MarketField::Event, event);
        book.set(MarketField::Sport, "race");
        let checksum = checksum(&market.into(), &book, View::All);
        Stored { market: market.into(), at: HEAD, stop: Position::ZERO, book: Box::new(book), checksum }
    }

    /// A hub that knows of a market in each shard, and whose shards are not here yet.
    fn hub() -> Hub {
        let mut hub = Hub::new(SHARDS, 1, 0);
        hub.subscribed(CATALOGUE, at(0));
        let [a, b] = events();
        hub.snapshots(CATALOGUE, HEAD, vec![stored("a", &a), stored("b", &b)], Vec::new(), at(0));
        hub.take_for_core(0);
        hub
    }

    fn open(hub: &mut Hub, market: &str, now: i64) {
        let key = RunKey { subject: Subject::Market(market.into(), View::All), wire: Wire::Sse };
        hub.handle(crate::hub::ToHub::Open { core: 0, key }, at(now));
    }

    fn arrive(hub: &mut Hub, shard: u16, market: &str, now: i64) -> Vec<ToCore> {
        hub.subscribed(shard, at(now));
        hub.snapshots(shard, HEAD, vec![stored(market, &events()[shard as usize])], Vec::new(), at(now));
        hub.take_for_core(0)
    }

    fn joins(news: &[ToCore]) -> usize {
        news.iter().filter(|n| matches!(n, ToCore::Joined { .. })).count()
    }

    #[test]
    fn news_of_a_shard_looks_only_at_who_waits_for_it() {
        let mut hub = hub();
        for _ in 0..100 {
            open(&mut hub, "a", 0);
        }
        open(&mut hub, "b", 0);
        let news = arrive(&mut hub, 1, "b", 10);
        assert_eq!(news.iter().filter(|n| matches!(n, ToCore::Opened { .. })).count(), 1);
        assert!(hub.waiting.served < 10, "{} were looked at", hub.waiting.served);
        assert_eq!(hub.waiting.len(), 100);
        let news = arrive(&mut hub, 0, "a", 20);
        assert_eq!(news.iter().filter(|n| matches!(n, ToCore::Opened { .. })).count(), 100);
        assert_eq!(hub.waiting.len(), 0);
    }

    #[test]
    fn scopes_are_told_again_only_of_what_they_missed() {
        let mut hub = hub();
        let news = arrive(&mut hub, 1, "b", 0);
        assert_eq!(joins(&news), 0, "nobody missed it");
        open(&mut hub, "a", 0);
        hub.tick(at(OPEN_DEADLINE));
        let news = hub.take_for_core(0);
        assert!(news.iter().any(|n| matches!(n, ToCore::Refused { code: ErrorCode::NotReady, .. })));
        let news = arrive(&mut hub, 0, "a", OPEN_DEADLINE + 10);
        assert_eq!(joins(&news), 1, "its opening was refused");
        assert!(hub.missed.is_empty());
    }

    #[test]
    fn a_market_that_moves_to_another_shard_is_followed_there() {
        let gone = |news: &[ToCore]| news.iter().filter(|n| matches!(n, ToCore::Gone { .. })).count();
        let shard_opened = |news: &[ToCore]| {
            news.iter().find_map(|n| match n {
                ToCore::Opened { shard, .. } => Some(*shard),
                _ => None,
            })
        };
        let mut hub = hub();
        open(&mut hub, "a", 0);
        open(&mut hub, "b", 0);
        assert_eq!(shard_opened(&arrive(&mut hub, 0, "a", 1)), Some(0));
        // Its image in the new shard comes first of all: what was followed ends, and whoever follows a scope is told anew.
        let news = arrive(&mut hub, 1, "a", 2);
        assert_eq!((gone(&news), joins(&news)), (1, 1), "{news:?}");
        // The catalogue follows.
        let later = Position::new(1, 10);
        let moved = Stored { at: later, ..stored("a", &events()[1]) };
        hub.snapshots(CATALOGUE, later, vec![moved, stored("b", &events()[1])], Vec::new(), at(3));
        assert_eq!(joins(&hub.take_for_core(0)), 1);
        open(&mut hub, "a", 4);
        assert_eq!(shard_opened(&hub.take_for_core(0)), Some(1));
        // What its old shard says at last is no news of it.
        hub.subscribed(0, at(5));
        hub.snapshots(0, later, Vec::new(), Vec::new(), at(5));
        assert_eq!(gone(&hub.take_for_core(0)), 0);
    }

    #[test]
    fn who_lost_a_market_by_its_old_shard_is_told_where_it_is() {
        let mut hub = hub();
        open(&mut hub, "a", 0);
        arrive(&mut hub, 0, "a", 1);
        let later = Position::new(1, 10);
        let moved = Stored { at: later, ..stored("a", &events()[1]) };
        hub.subscribed(CATALOGUE, at(2));
        hub.snapshots(CATALOGUE, later, vec![moved, stored("b", &events()[1])], Vec::new(), at(2));
        hub.take_for_core(0);
        // Nobody follows the new shard: the old one's `gone` is told, and then that the market is there.
        hub.subscribed(0, at(3));
        hub.snapshots(0, later, Vec::new(), Vec::new(), at(3));
        let news = hub.take_for_core(0);
        let order: Vec<bool> = news
            .iter()
            .filter(|n| matches!(n, ToCore::Gone { .. } | ToCore::Joined { .. }))
            .map(|n| matches!(n, ToCore::Joined { .. }))
            .collect();
        assert_eq!(order, [false, true], "{news:?}");
    }

    #[test]
    fn a_market_that_the_catalogue_does_not_know_is_waited_for_until_the_catalogue_comes() {
        let mut hub = Hub::new(SHARDS, 1, 0);
        open(&mut hub, "a", 0);
        open(&mut hub, "nowhere", 0);
        assert_eq!(hub.waiting.len(), 2);
        hub.subscribed(CATALOGUE, at(1));
        hub.snapshots(CATALOGUE, HEAD, vec![stored("a", &events()[0])], Vec::new(), at(1));
        let news = hub.take_for_core(0);
        assert!(news.iter().any(|n| matches!(n, ToCore::Refused { code: ErrorCode::UnknownMarket, .. })));
        let news = arrive(&mut hub, 0, "a", 2);
        assert!(news.iter().any(|n| matches!(n, ToCore::Opened { .. })));
    }
}
