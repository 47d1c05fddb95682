//! One source as its messages show it: their numbers, signs of life, and which of its markets can't be trusted until
//! they are imaged again.

use std::collections::BTreeSet;

use tictac_proto::model::MarketId;
use tictac_proto::wire::FeedState;

use crate::stream_id::StreamId;

/// Messages after which `taken` is sent at once.
const TAKEN_MESSAGES: u32 = 64;
/// Else it is sent after this, ms.
const TAKEN_EVERY: i64 = 50;
/// It is said again after this, ms, while the source is heard: it may have been lost.
const TAKEN_AGAIN: i64 = 1_000;
/// A source not heard for this long, ms, waits for nothing.
const NOT_WAITING: i64 = 60_000;
/// Most markets that one request for images names.
const MAX_ASKED: usize = 256;
/// How much later than the catalogue's owner others ask for images, ms: most come by then.
const ASK_LATER: i64 = 500;

/// How a source's input reaches the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// In this process: nothing is lost and there is no silence to be judged.
    Embedded,
    /// Over a channel that may lose anything.
    Lossy,
    /// From a stream that is read on where it was left.
    Stream,
}

/// What a message's number says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sequence {
    /// It follows the one before, or there is nothing to compare.
    Next,
    /// It was here already.
    Duplicate,
    /// Something is missing before it, or the source began anew.
    Broken,
}

/// What ingest says to a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Control {
    /// All messages from `since` to `seq` are taken in. A source that sent others before `since` knows that they were not
    /// (by this ingest) and sends them again, if it can.
    Taken {
        /// Number of the last message.
        seq: u64,
        /// Number of the first one since when none is missing.
        since: u64,
    },
    /// These markets are to be imaged; where none is named all that there are.
    Image(Vec<MarketId>),
}

impl Control {
    /// The message, JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        match self {
            Self::Taken { seq, since } => {
                serde_json::json!({ "op": "taken", "seq": seq, "since": since }).to_string()
            }
            Self::Image(markets) => {
                let markets: Vec<&str> = markets.iter().map(|m| &**m).collect();
                serde_json::json!({ "op": "image", "markets": markets }).to_string()
            }
        }
    }
}

/// One source.
#[derive(Debug)]
pub struct InputTracker {
    lane: Lane,
    /// Number of the last message; `None` before the first and where unsequenced.
    seq: Option<u64>,
    /// Number of the first message since when none is missing.
    since: u64,
    /// Whether its messages have no numbers.
    unsequenced: bool,
    heard: Option<i64>,
    late: bool,
    /// Whether untrusted markets are so because input was lost, rather than because the owner is new.
    lost: bool,
    /// Markets that need an image before they can be traded, terminal ones aside.
    untrusted: BTreeSet<MarketId>,
    /// Markets that are suspended by themselves until an image comes.
    wanted: BTreeSet<MarketId>,
    /// It was just heard of: it is asked for everything, since what the log forgot nobody else knows to ask for.
    all_wanted: bool,
    /// When the source was first heard with untrusted markets.
    waiting_since: Option<i64>,
    asked: Option<i64>,
    /// Since when it waits for the images that another one may ask for.
    waits_since: Option<i64>,
    taken: Option<u64>,
    taken_at: i64,
    untold: u32,
    /// The last entry of its stream that was read.
    position: StreamId,
    /// Whether it is known where its stream is read from.
    started: bool,
    /// Whether nothing of it was missed since.
    whole: bool,
    /// How many readings must still find the end of its stream, before what is known is what it says now.
    behind: u8,
    /// Markets that were restored, while entries that they may hold already are read again.
    restored: BTreeSet<MarketId>,
    /// Whether a stop was among those.
    stopped_again: bool,
    pub(super) told: Option<FeedState>,
}

impl InputTracker {
    /// A source that has said nothing yet.
    #[must_use]
    pub fn new(lane: Lane) -> Self {
        Self {
            lane,
            seq: None,
            since: 0,
            unsequenced: false,
            heard: None,
            late: false,
            lost: false,
            untrusted: BTreeSet::new(),
            wanted: BTreeSet::new(),
            all_wanted: false,
            waiting_since: None,
            asked: None,
            waits_since: None,
            taken: None,
            taken_at: i64::MIN / 2,
            untold: 0,
            position: StreamId::ZERO,
            started: false,
            whole: false,
            behind: 0,
            restored: BTreeSet::new(),
            stopped_again: false,
            told: None,
        }
    }

    /// Whether it is read from a stream.
    #[must_use]
    pub fn is_stream(&self) -> bool {
        self.lane == Lane::Stream
    }

    /// It is read from a stream from now on.
    pub fn open_stream(&mut self) {
        self.lane = Lane::Stream;
        self.seek_end();
    }

    /// Its stream must be read to the end before what is known can be trusted: there are two readings to come, since the
    /// next one may have been answered already.
    pub fn seek_end(&mut self) {
        self.behind = 2;
    }

    /// Its stream is read from here on.
    pub fn start_stream(&mut self, start: StreamId) {
        (self.position, self.started, self.whole) = (start, true, true);
    }

    /// Whether nothing of its stream was missed since it was begun to be read.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.is_stream() && self.whole
    }

    /// Whether it is known where its stream is read from.
    #[must_use]
    pub fn is_started(&self) -> bool {
        self.started
    }

    /// The last entry of its stream that was read.
    #[must_use]
    pub fn stream_position(&self) -> StreamId {
        self.position
    }

    /// An entry of its stream was read.
    pub fn set_stream_position(&mut self, id: StreamId) {
        self.position = id;
    }

    /// Its stream was read, to the end or not.
    pub fn handle_stream_end(&mut self, reached: bool) {
        self.behind = if reached { self.behind.saturating_sub(1) } else { self.behind.max(1) };
        if self.behind == 0 {
            (self.restored, self.stopped_again) = (BTreeSet::new(), false);
        }
    }

    /// A market's book came from the log, and may be further than what is read of the stream next.
    pub fn note_restored(&mut self, market: MarketId) {
        if self.is_stream() && self.behind > 0 {
            self.restored.insert(market);
        }
    }

    /// A stop was read.
    pub fn note_stop(&mut self) {
        self.stopped_again |= !self.restored.is_empty();
    }

    /// Whether a stop that was read again may have been of this market, and was not taken for its: it stood elsewhere by then.
    #[must_use]
    pub fn may_have_missed_a_stop(&self, market: &str) -> bool {
        self.stopped_again && self.restored.contains(market)
    }

    /// Whether its markets are known as they are now.
    #[must_use]
    pub fn is_warm(&self) -> bool {
        self.untrusted.is_empty() && self.behind == 0
    }

    /// A message came in.
    pub fn hear(&mut self, seq: Option<u64>, now: i64) -> Sequence {
        self.all_wanted |= self.heard.is_none() && self.lane == Lane::Lossy;
        self.heard = Some(now);
        self.unsequenced = seq.is_none();
        let before = std::mem::replace(&mut self.seq, seq);
        if seq.is_some() {
            self.untold += 1;
        }
        let sequence = match (before, seq) {
            (Some(before), Some(seq)) if seq == before => Sequence::Duplicate,
            (Some(before), Some(seq)) if seq == before + 1 => Sequence::Next,
            (Some(_), Some(_)) => Sequence::Broken,
            // A source that stops or starts to number its messages: nothing shows that none is missing.
            (Some(_), None) => Sequence::Broken,
            (None, _) => Sequence::Next,
        };
        if before.is_none() || sequence == Sequence::Broken {
            self.since = seq.unwrap_or(0);
        }
        sequence
    }

    /// Whether a break of the subscription may have lost something that no number will show.
    #[must_use]
    pub fn is_unsequenced(&self) -> bool {
        self.lane == Lane::Lossy && self.heard.is_some() && self.unsequenced
    }

    /// The source says that its data are late, or not any more.
    pub fn set_late(&mut self, late: bool) {
        self.late = late;
    }

    /// Input was lost: these markets need images.
    pub fn lose(&mut self, markets: impl Iterator<Item = MarketId>) {
        if self.lane == Lane::Embedded {
            return;
        }
        (self.lost, self.whole) = (true, false);
        self.distrust(markets);
    }

    /// These markets need images.
    pub fn distrust(&mut self, markets: impl Iterator<Item = MarketId>) {
        self.untrusted.extend(markets);
        self.waiting_since = None;
        self.asked = None;
    }

    /// One market needs an image, and the others don't suffer from that.
    pub fn want(&mut self, market: MarketId) {
        self.wanted.insert(market);
        self.asked = None;
    }

    /// A market was imaged, or is over or gone.
    pub fn trust(&mut self, market: &str) {
        self.wanted.remove(market);
        self.restored.remove(market);
        if self.untrusted.remove(market) && self.untrusted.is_empty() {
            self.lost = false;
            self.waiting_since = None;
        }
    }

    /// Markets that need images.
    #[must_use]
    pub fn untrusted(&self) -> &BTreeSet<MarketId> {
        &self.untrusted
    }

    /// Number of the last message.
    #[must_use]
    pub fn seq(&self) -> Option<u64> {
        self.seq
    }

    /// Last sign of life, Unix ms; 0 where there was none.
    #[must_use]
    pub fn as_of(&self, now: i64) -> i64 {
        if self.lane == Lane::Embedded { now } else { self.heard.unwrap_or(0) }
    }

    /// The feed's state.
    #[must_use]
    pub fn state(&self, now: i64, stale_after: i64) -> FeedState {
        let heard = match (self.lane, self.heard) {
            (Lane::Embedded, _) => FeedState::Live,
            // A clock that was set back is no silence.
            (_, Some(heard)) if now - heard <= stale_after => FeedState::Live,
            (_, Some(heard)) if now - heard <= 3 * stale_after => FeedState::Stale,
            _ => FeedState::Down,
        };
        let trust = match (self.untrusted.is_empty(), self.lost) {
            (true, _) => FeedState::Live,
            (false, false) => FeedState::Recovering,
            (false, true) => FeedState::Stale,
        };
        let late = if self.late { FeedState::Stale } else { FeedState::Live };
        let behind = if self.behind > 0 { FeedState::Recovering } else { FeedState::Live };
        heard.max(trust).max(late).max(behind)
    }

    /// Markets whose images the source owes for too long, though it is heard: they are given up.
    pub fn overdue(&mut self, now: i64, patience: i64, stale_after: i64) -> Vec<MarketId> {
        let heard = self.heard.is_some_and(|heard| now - heard <= stale_after);
        if self.untrusted.is_empty() || !heard {
            self.waiting_since = None;
            return Vec::new();
        }
        let since = *self.waiting_since.get_or_insert(now);
        if now - since < patience {
            return Vec::new();
        }
        self.waiting_since = None;
        self.lost = false;
        std::mem::take(&mut self.untrusted).into_iter().collect()
    }

    fn taken_is_due(&self, seq: u64, now: i64) -> bool {
        let since = now.saturating_sub(self.taken_at);
        if self.taken != Some(seq) {
            // A clock that was set back keeps nothing back.
            return self.untold >= TAKEN_MESSAGES || !(0..TAKEN_EVERY).contains(&since);
        }
        since >= TAKEN_AGAIN && self.heard.is_some_and(|heard| now - heard < NOT_WAITING)
    }

    /// What is to be said to the source now. `leads`: by the catalogue's owner. `hold` keeps back what would make it send
    /// more.
    pub fn control(&mut self, now: i64, every: i64, leads: bool, hold: bool, out: &mut Vec<Control>) {
        if self.lane == Lane::Embedded {
            return;
        }
        // Held back, what was said last is said again: it is a sign of life.
        if leads
            && let Some(seq) = if hold { self.taken } else { self.seq }
            && self.taken_is_due(seq, now)
        {
            out.push(Control::Taken { seq, since: self.since.min(seq) });
            (self.taken, self.taken_at, self.untold) = (Some(seq), now, 0);
        }
        let wants = self.all_wanted || !self.untrusted.is_empty() || !self.wanted.is_empty();
        let due = self.asked.is_none_or(|asked| now.abs_diff(asked) >= every.unsigned_abs());
        // Who does not lead waits once, however much more it needs meanwhile.
        let waits = wants && due && !leads && self.asked.is_none() && {
            let since = *self.waits_since.get_or_insert(now);
            (0..ASK_LATER).contains(&(now - since))
        };
        if !wants {
            self.waits_since = None;
        }
        if wants && due && !waits {
            (self.asked, self.waits_since) = (Some(now), None);
            if std::mem::take(&mut self.all_wanted) {
                out.push(Control::Image(Vec::new()));
            }
            let all: Vec<MarketId> = self.untrusted.union(&self.wanted).cloned().collect();
            out.extend(all.chunks(MAX_ASKED).map(|part| Control::Image(part.to_vec())));
        }
    }
}
