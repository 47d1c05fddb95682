//! What a client holds: books, checked by everything that the protocol gives to check them with.

use std::collections::{BTreeMap, HashMap, HashSet};

use tictac_proto::checksum::{digest_key, mix};
use tictac_proto::client::{ClientMarket, Outcome};
use tictac_proto::model::{Delta, MarketId, View};
use tictac_proto::position::Position;
use tictac_proto::wire::{Down, FeedState, How, Resume, Up};

/// How often what happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Messages of any kind.
    pub messages: u64,
    /// Snapshots taken.
    pub snapshots: u64,
    /// Deltas applied.
    pub deltas: u64,
    /// Messages that were old.
    pub dropped: u64,
    /// Gaps, declared or found.
    pub gaps: u64,
    /// Gaps that the gateway declared, be it by saying that it is behind the one before it.
    pub declared: u64,
    /// Checksums that agreed.
    pub checked: u64,
    /// Checksums that did not.
    pub mismatches: u64,
    /// Stops.
    pub stops: u64,
    /// Heartbeats whose digest agreed.
    pub digests: u64,
    /// Heartbeats whose digest did not.
    pub digest_mismatches: u64,
    /// Markets that ended.
    pub gone: u64,
    /// Refusals.
    pub errors: u64,
    /// Subscriptions that were answered by a snapshot.
    pub by_snapshot: u64,
    /// Subscriptions that went on from where the client stood: nothing was missing, or one delta brought it.
    pub resumed: u64,
}

impl Counts {
    /// Adds another client's.
    pub fn add(&mut self, other: &Self) {
        self.messages += other.messages;
        self.snapshots += other.snapshots;
        self.deltas += other.deltas;
        self.dropped += other.dropped;
        self.gaps += other.gaps;
        self.declared += other.declared;
        self.checked += other.checked;
        self.mismatches += other.mismatches;
        self.stops += other.stops;
        self.digests += other.digests;
        self.digest_mismatches += other.digest_mismatches;
        self.gone += other.gone;
        self.errors += other.errors;
        self.by_snapshot += other.by_snapshot;
        self.resumed += other.resumed;
    }
}

/// One client's markets.
#[derive(Debug, Default)]
pub struct Followed {
    markets: HashMap<(MarketId, View), ClientMarket>,
    /// Held from before this connection, which has not said yet how they go on.
    unconfirmed: HashSet<(MarketId, View)>,
    /// What happened.
    pub counts: Counts,
    /// The last refusal.
    pub last_error: Option<String>,
    /// The catalogue, where it was asked for.
    pub catalogue: BTreeMap<MarketId, Delta>,
    /// The feed states told last, by source and shard.
    pub feeds: HashMap<(String, u16), FeedState>,
    /// Gateway's time stamp of the last delta and the source's.
    pub last_times: Option<(i64, i64)>,
}

impl Followed {
    /// A client's copy of a market.
    #[must_use]
    pub fn market(&self, id: &str, view: View) -> Option<&ClientMarket> {
        self.markets.get(&(id.into(), view))
    }

    /// All markets.
    pub fn markets(&self) -> impl Iterator<Item = (&(MarketId, View), &ClientMarket)> {
        self.markets.iter()
    }

    /// The connection ended: books stay, to come back with, and nothing is tradable until each is confirmed.
    pub fn disconnected(&mut self) {
        for (name, market) in &mut self.markets {
            market.disconnected();
            self.unconfirmed.insert(name.clone());
        }
    }

    /// Registers a market before its messages come.
    pub fn expect(&mut self, id: &MarketId, view: View) {
        self.markets.entry((id.clone(), view)).or_insert_with(|| ClientMarket::new(id.clone(), view));
    }

    /// Where this client would resume.
    #[must_use]
    pub fn resume(&self) -> Resume {
        let mut resume = Resume::default();
        for ((id, _), market) in &self.markets {
            if let Some(at) = market.position() {
                resume.markets.push((id.clone(), at));
            }
        }
        resume
    }

    /// Comes back with positions by shard: each market of a shard stands at least there.
    pub fn seen_up_to(&mut self, shards: &[(u16, Position)]) {
        for market in self.markets.values_mut() {
            for (shard, at) in shards {
                market.seen_up_to(*shard, *at);
            }
        }
    }

    /// The digest of what is held.
    #[must_use]
    pub fn digest(&self) -> u32 {
        let share = |((id, view), market): (&(MarketId, View), &ClientMarket)| {
            market.position().map_or(0, |at| mix(digest_key(id, *view), at.seq))
        };
        self.markets.iter().map(share).fold(0, u32::wrapping_add)
    }

    /// Takes a message in; gives what to send back, such as a wish for a snapshot.
    pub fn handle(&mut self, message: &Down) -> Vec<Up> {
        self.counts.messages += 1;
        let mut answers = Vec::new();
        let of = match message {
            Down::Snap(head, _) => Some((head.market.clone(), head.view)),
            Down::Delta(head, _) => {
                self.last_times = Some((head.times.source, head.times.encoded));
                Some((head.market.clone(), head.view))
            }
            Down::Crc { market, view, .. } | Down::Gap { market, view, .. } => Some((market.clone(), *view)),
            Down::Ok(ok) if !ok.market.is_empty() => {
                match ok.how {
                    How::Snap => self.counts.by_snapshot += 1,
                    How::Delta | How::Exact => self.counts.resumed += 1,
                }
                self.unconfirmed.remove(&(ok.market.clone(), ok.view));
                Some((ok.market.clone(), ok.view))
            }
            _ => None,
        };
        if let Some(name) = of {
            if matches!(message, Down::Snap(..) | Down::Ok(_)) {
                self.expect(&name.0, name.1);
            }
            let Some(market) = self.markets.get_mut(&name) else { return answers };
            let was_in_gap = market.in_gap();
            match market.handle(message) {
                Outcome::Applied => self.counts.deltas += 1,
                Outcome::Replaced => self.counts.snapshots += 1,
                Outcome::Dropped => self.counts.dropped += 1,
                Outcome::Checked => self.counts.checked += 1,
                Outcome::Gap if matches!(message, Down::Gap { .. }) => {
                    self.counts.gaps += 1;
                    self.counts.declared += 1;
                }
                // A gateway that says where it stands, and is behind the one before it, has told.
                Outcome::Gap if matches!(message, Down::Ok(_)) => {
                    self.counts.gaps += 1;
                    self.counts.declared += 1;
                    if !was_in_gap {
                        answers.push(Up::Snapshot { market: name.0, view: name.1 });
                    }
                }
                outcome @ (Outcome::Gap | Outcome::Mismatch) => {
                    self.counts.gaps += u64::from(outcome == Outcome::Gap);
                    self.counts.mismatches += u64::from(outcome == Outcome::Mismatch);
                    if !was_in_gap {
                        answers.push(Up::Snapshot { market: name.0, view: name.1 });
                    }
                }
                Outcome::Stopped | Outcome::Noted => {}
            }
            return answers;
        }
        match message {
            Down::Stop { market, .. } => {
                self.counts.stops += 1;
                for view in View::ALL {
                    if let Some(held) = self.markets.get_mut(&(market.clone(), view)) {
                        held.handle(message);
                    }
                }
            }
            Down::Feed(news) => {
                self.feeds.insert((news.source.to_string(), news.shard), news.state);
                for held in self.markets.values_mut() {
                    held.handle(message);
                }
            }
            Down::Gone { market, .. } => {
                self.counts.gone += 1;
                for view in View::ALL {
                    self.markets.remove(&(market.clone(), view));
                    self.unconfirmed.remove(&(market.clone(), view));
                }
            }
            // A gateway's digest is of what it sent; what is held from before the connection is in it once it is confirmed.
            Down::Hb(_) if !self.unconfirmed.is_empty() => {}
            Down::Hb(hb) => {
                if hb.digest == self.digest() {
                    self.counts.digests += 1;
                } else {
                    self.counts.digest_mismatches += 1;
                }
            }
            Down::Err(problem) => {
                self.counts.errors += 1;
                self.last_error = Some(problem.why.clone());
            }
            Down::Catalogue(news) => {
                if news.full {
                    self.catalogue.clear();
                }
                for (id, fields) in &news.markets {
                    let change = Delta { fields: fields.clone(), ..Delta::default() };
                    self.catalogue.entry(id.clone()).or_default().merge(&change);
                }
                for id in &news.gone {
                    self.catalogue.remove(id);
                }
            }
            _ => {}
        }
        answers
    }

    /// The lowest position among all markets, for waiting.
    #[must_use]
    pub fn position(&self, id: &str, view: View) -> Option<Position> {
        self.market(id, view).and_then(ClientMarket::position)
    }
}
