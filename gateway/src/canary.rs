//! The canary: a subscriber inside the gateway, on every core in turn. It takes what any client of a stream takes, decodes the
//! real frames, keeps books of its own, and compares them with what the source said of its book (a checksum with every 32nd
//! entry of a market) and with the checksums that the gateway sends its clients. What it finds wrong, or that it hears
//! nothing, makes the gateway not ready.
//!
//! It looks at so many markets for so long, then at the next ones, so that all shards and cores are looked at.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::ops::Bound::{Excluded, Unbounded};
use std::time::Duration;

use bytes::Bytes;
use tictac_proto::client::{ClientMarket, Outcome};
use tictac_proto::follower::Told;
use tictac_proto::model::{MarketId, View};
use tictac_proto::position::Position;
use tictac_proto::wire::{Codec, Conflate, Down, Resume, Scope, Subscribe};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::transports::sse::SseRequest;
use crate::worker::{Arrival, Tap};

/// Markets that are looked at together.
pub const MARKETS: usize = 32;
/// How long they are.
const LOOK: Duration = Duration::from_secs(10);
/// How soon it looks again after something went wrong.
const AGAIN: Duration = Duration::from_millis(500);
/// How many looks the catalogue is good for.
const CATALOGUE_EVERY: usize = 6;
/// Positions of a market that wait for the other side of a comparison.
const WAITING: usize = 64;
/// Most bytes of an event that is not complete yet.
const MAX_EVENT: usize = 8 * 1024 * 1024;
/// A wrong book that was not seen right again counts for this long after it was seen last.
const REMEMBERED: Duration = Duration::from_secs(60);
/// Markets of the catalogue that are remembered.
const MAX_KNOWN: usize = 20_000;

/// How the canary does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Why the gateway can't be trusted, if so.
    pub trouble: Option<String>,
}

/// What the canary's thread is made of.
#[derive(Debug)]
pub struct CanaryParts {
    /// Where each core takes arrivals.
    pub cores: Vec<mpsc::Sender<Arrival>>,
    /// What the source says of its books.
    pub told: mpsc::Receiver<Told>,
    /// Metrics.
    pub metrics: Metrics,
    /// Silence after which something is wrong.
    pub silence: Duration,
    /// How it does.
    pub report: watch::Sender<Report>,
    /// When to end.
    pub stop: CancellationToken,
}

/// A market that is looked at.
#[derive(Debug)]
struct Looked {
    held: ClientMarket,
    /// What the source said of positions that were not reached yet.
    told: VecDeque<(Position, u32)>,
}

/// What is looked at, and what was found. Without I/O.
#[derive(Debug)]
pub struct Canary {
    looked: HashMap<MarketId, Looked>,
    known: BTreeSet<MarketId>,
    /// The market that was looked at last.
    last: Option<MarketId>,
    pending: Vec<u8>,
    /// Markets with a wrong book, by what it was compared with, and when that was seen. Only the same comparison can say that it
    /// is right again: frames of a wrong book have checksums that agree with it.
    wrong: HashMap<(MarketId, &'static str), Instant>,
    metrics: Metrics,
}

impl Canary {
    /// One that knows nothing yet.
    #[must_use]
    pub fn new(metrics: Metrics) -> Self {
        Self {
            looked: HashMap::new(),
            known: BTreeSet::new(),
            last: None,
            pending: Vec::new(),
            wrong: HashMap::new(),
            metrics,
        }
    }

    /// Looks at the next markets from now on; those with a wrong book first.
    pub fn turn(&mut self) -> Vec<MarketId> {
        self.pending.clear();
        let wrong: BTreeSet<&MarketId> = self.wrong.keys().map(|(market, _)| market).collect();
        let mut markets: Vec<MarketId> = wrong.into_iter().take(MARKETS).cloned().collect();
        let last = self.last.take();
        let after = last.as_ref().map_or(Unbounded, Excluded);
        let round = self.known.range::<MarketId, _>((after, Unbounded)).chain(&self.known);
        for market in round.take(self.known.len()) {
            if markets.len() == MARKETS {
                break;
            }
            if !markets.contains(market) {
                markets.push(market.clone());
            }
            self.last = Some(market.clone());
        }
        let look = |market: &MarketId| {
            let held = ClientMarket::new(market.clone(), View::All);
            (market.clone(), Looked { held, told: VecDeque::new() })
        };
        self.looked = markets.iter().map(look).collect();
        markets
    }

    /// Takes in a piece of a stream.
    ///
    /// # Errors
    /// What can't be read of it.
    pub fn handle(&mut self, piece: &[u8]) -> Result<(), String> {
        self.pending.extend_from_slice(piece);
        while let Some(end) = self.pending.windows(2).position(|w| w == b"\n\n") {
            let event: Vec<u8> = self.pending.drain(..end + 2).collect();
            let text = std::str::from_utf8(&event).map_err(|error| error.to_string())?;
            for data in text.lines().filter_map(|line| line.strip_prefix("data: ")) {
                let node = Codec::Json.decode(data.as_bytes()).map_err(|error| error.to_string())?;
                self.message(&Down::read(&node).map_err(|error| error.to_string())?);
            }
        }
        if self.pending.len() > MAX_EVENT {
            return Err(format!("an event of more than {MAX_EVENT} bytes"));
        }
        Ok(())
    }

    fn message(&mut self, message: &Down) {
        let market = match message {
            Down::Snap(head, _) => &head.market,
            Down::Delta(head, _) => &head.market,
            Down::Crc { market, .. } | Down::Gap { market, .. } | Down::Stop { market, .. } => market,
            Down::Ok(ok) => &ok.market,
            Down::Gone { market, .. } => {
                self.looked.remove(market);
                self.wrong.retain(|(wrong, _), _| wrong != market);
                return;
            }
            Down::Catalogue(news) => {
                if news.full {
                    self.known.clear();
                }
                for (id, _) in &news.markets {
                    if self.known.len() < MAX_KNOWN {
                        self.known.insert(id.clone());
                    }
                }
                for id in &news.gone {
                    self.known.remove(id);
                }
                return;
            }
            _ => return,
        };
        let Some(looked) = self.looked.get_mut(market) else { return };
        let market = market.clone();
        match looked.held.handle(message) {
            Outcome::Checked => self.right("frame", &market),
            Outcome::Mismatch => self.mismatch("frame", &market),
            Outcome::Applied | Outcome::Replaced => self.compare(&market),
            _ => {}
        }
    }

    /// The source said what its book is at a position.
    pub fn told(&mut self, told: Told) {
        let Some(looked) = self.looked.get_mut(&told.market) else { return };
        if looked.told.len() == WAITING {
            looked.told.pop_front();
        }
        looked.told.push_back((told.at, told.checksum));
        self.compare(&told.market);
    }

    /// Compares where both sides are at the same position.
    fn compare(&mut self, market: &MarketId) {
        let Some(looked) = self.looked.get_mut(market) else { return };
        let Some(at) = looked.held.position().filter(|_| !looked.held.in_gap()) else { return };
        // What was told of positions that were passed, merged into a later one, says nothing any more.
        while looked.told.front().is_some_and(|told| told.0 < at) {
            looked.told.pop_front();
        }
        let Some((_, checksum)) = looked.told.pop_front_if(|told| told.0 == at) else { return };
        if looked.held.checksum() == Some(checksum) {
            self.right("source", market);
        } else {
            self.mismatch("source", market);
        }
    }

    fn right(&mut self, what: &'static str, market: &MarketId) {
        self.metrics.canary.with_label_values(&[what, "right"]).inc();
        self.wrong.remove(&(market.clone(), what));
    }

    fn mismatch(&mut self, what: &'static str, market: &MarketId) {
        self.metrics.canary.with_label_values(&[what, "wrong"]).inc();
        tracing::error!(%market, what, "the canary's book is wrong");
        self.wrong.insert((market.clone(), what), Instant::now());
    }

    /// Why the gateway can't be trusted, if so.
    pub fn trouble(&mut self) -> Option<String> {
        self.wrong.retain(|_, seen| seen.elapsed() < REMEMBERED);
        let markets: BTreeSet<&MarketId> = self.wrong.keys().map(|(market, _)| market).collect();
        let market = markets.first()?;
        Some(format!("the canary's book of {} market(s) is wrong, such as {market}", markets.len()))
    }
}

/// Looks until it is told to stop.
pub async fn run(parts: CanaryParts) {
    let CanaryParts { cores, mut told, metrics, silence, report, stop } = parts;
    let mut canary = Canary::new(metrics.clone());
    let mut turn = 0;
    while !stop.is_cancelled() {
        let markets = canary.turn();
        let blind = markets.is_empty();
        let until = Instant::now() + LOOK;
        let core = &cores[turn % cores.len()];
        turn += 1;
        let (body, mut pieces) = mpsc::channel::<Bytes>(1);
        let subscriptions = if markets.is_empty() { Vec::new() } else { vec![subscribe(markets)] };
        // The whole catalogue is long: now and then is enough to know what there is.
        let catalogue = blind || turn % CATALOGUE_EVERY == 0;
        let request = SseRequest { subscriptions, catalogue };
        let arrival = Arrival::Tap(Tap { request, body });
        let arrived = timeout(silence, core.send(arrival)).await;
        let mut trouble = (!matches!(arrived, Ok(Ok(()))))
            .then(|| format!("core {} takes no arrivals", (turn - 1) % cores.len()));
        let mut heard = Instant::now();
        while trouble.is_none() {
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep_until(until) => break,
                Some(told) = told.recv() => canary.told(told),
                piece = timeout(silence, pieces.recv()) => match piece {
                    Ok(Some(piece)) => {
                        heard = Instant::now();
                        trouble = canary.handle(&piece).err().map(|why| format!("the canary can't read: {why}"));
                    }
                    // The core ended it: it stops, or it will say why to the next one.
                    Ok(None) => {
                        tokio::time::sleep(AGAIN).await;
                        break;
                    }
                    Err(_) => trouble = Some(format!("the canary heard nothing for {:?}", heard.elapsed())),
                },
            }
            let wrong = canary.trouble();
            tell(&report, &metrics, trouble.clone().or(wrong));
            // The catalogue is there: now there is something to look at.
            if blind && !canary.known.is_empty() {
                break;
            }
        }
        if let Some(why) = trouble {
            tell(&report, &metrics, Some(why));
            // A core that is stuck is not asked again at once.
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(AGAIN) => {}
            }
        }
    }
}

fn tell(report: &watch::Sender<Report>, metrics: &Metrics, trouble: Option<String>) {
    metrics.canary_trouble.set(i64::from(trouble.is_some()));
    report.send_if_modified(|report| {
        let news = report.trouble != trouble;
        if news {
            if let Some(why) = &trouble {
                tracing::error!(why, "not ready");
            }
            report.trouble = trouble;
        }
        news
    });
}

fn subscribe(markets: Vec<MarketId>) -> Subscribe {
    Subscribe {
        id: 0,
        scope: Scope::Markets(markets),
        view: View::All,
        conflate: Conflate::Auto,
        resume: Resume::default(),
    }
}

#[cfg(test)]
mod tests {
    use tictac_proto::checksum::checksum;
    use tictac_proto::model::Book;
    use tictac_proto::wire::{FeedState, SnapHead, Times};

    use super::*;
    use crate::wires;

    fn looking() -> Canary {
        let mut canary = Canary::new(Metrics::new());
        canary.known = ["m".into()].into();
        assert_eq!(canary.turn(), [MarketId::from("m")]);
        canary
    }

    fn snapshot(seq: u64) -> (Bytes, u32) {
        let mut book = Book::default();
        book.set(tictac_proto::model::MarketField::Matched, seq as i64);
        let head = SnapHead {
            market: "m".into(),
            view: View::All,
            at: Position::new(1, seq),
            stop: Position::ZERO,
            feed: FeedState::Live,
            shard: 0,
            times: Times::default(),
        };
        (wires::sse("snap", None, (&head, &book)), checksum(&"m".into(), &book, View::All))
    }

    #[test]
    fn a_book_that_is_not_the_sources_is_trouble_until_it_is_right() {
        let mut canary = looking();
        let (bytes, right) = snapshot(5);
        let at = Position::new(1, 5);
        // In pieces, and whichever side comes first.
        canary.handle(&bytes[..10]).unwrap();
        canary.handle(&bytes[10..]).unwrap();
        canary.told(Told { market: "m".into(), at, checksum: right });
        assert_eq!(canary.trouble(), None);
        assert_eq!(canary.metrics.canary.with_label_values(&["source", "right"]).get(), 1);
        canary.told(Told { market: "m".into(), at: Position::new(1, 6), checksum: right });
        canary.handle(&snapshot(6).0).unwrap();
        assert!(canary.trouble().unwrap().contains("such as m"));
        // It is looked at again, first of all.
        canary.known = (0..100).map(|i| format!("other{i}").as_str().into()).collect();
        assert_eq!(canary.turn()[0], MarketId::from("m"));
        let (bytes, right) = snapshot(7);
        canary.handle(&bytes).unwrap();
        canary.told(Told { market: "m".into(), at: Position::new(1, 7), checksum: right });
        assert_eq!(canary.trouble(), None);
    }

    #[test]
    fn a_book_that_the_source_finds_wrong_is_not_made_right_by_its_own_frames() {
        let mut canary = looking();
        let (bytes, checksum) = snapshot(5);
        let at = Position::new(1, 5);
        canary.told(Told { market: "m".into(), at, checksum: checksum + 1 });
        canary.handle(&bytes).unwrap();
        let crc = Down::Crc { market: "m".into(), view: View::All, at, checksum };
        canary.message(&crc);
        assert_eq!(canary.metrics.canary.with_label_values(&["frame", "right"]).get(), 1);
        assert!(canary.trouble().is_some(), "the gateway agrees with itself, not with the source");
        canary.message(&Down::Gone { market: "m".into(), at, why: "ended".into() });
        assert_eq!(canary.trouble(), None);
    }

    #[test]
    fn what_was_passed_is_not_compared_and_nothing_grows() {
        let mut canary = looking();
        for seq in 0..1_000 {
            canary.told(Told { market: "m".into(), at: Position::new(1, seq), checksum: 0 });
            canary.told(Told { market: "unknown".into(), at: Position::new(1, seq), checksum: 0 });
        }
        assert_eq!(canary.looked["m"].told.len(), WAITING);
        canary.handle(&snapshot(2_000).0).unwrap();
        assert!(canary.looked["m"].told.is_empty());
        assert_eq!(canary.trouble(), None);
        assert!(canary.handle(b"data: nonsense\n\n").is_err());
        assert!(canary.handle(&vec![b'x'; MAX_EVENT + 1]).is_err());
    }

    #[test]
    fn all_markets_have_their_turn() {
        let mut canary = Canary::new(Metrics::new());
        canary.known = (0..100).map(|i| i.to_string().as_str().into()).collect();
        let mut seen = std::collections::HashSet::new();
        for _ in 0..4 {
            seen.extend(canary.turn());
        }
        assert_eq!(seen.len(), 100);
    }
}
