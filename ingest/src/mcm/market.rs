//! One market as the reader remembers it: which ladders its sides follow, what stands at which level, and which runners
//! were seen. The book itself is the sequencer's.

use smallvec::SmallVec;
use tictac_proto::limits::MAX_SELECTIONS;
use tictac_proto::model::fields::{Kind, PriceKind, SizeKind};
use tictac_proto::model::{
    Book, Delta, LadderDelta, MarketField, MarketId, SelectionDelta, SelectionField, SelectionKey, Side,
    Value,
};

use super::definition::Definition;
use super::levels::{Levels, MOST_LEVELS};
use super::message::{Message, PLACES, RawLadder, RawMarket, RawRunner, Row, Source};
use super::report::{Place, Report};
use crate::problem::ProblemKind;

/// More rows than this are sorted at the end rather than one by one.
const MANY_ROWS: usize = 12;

impl Source {
    fn side(self) -> Side {
        match self {
            Self::Atb | Self::Batb | Self::Bdatb => Side::Back,
            Self::Atl | Self::Batl | Self::Bdatl => Side::Lay,
            Self::Trd => Side::Traded,
        }
    }

    /// Full price ladders over best levels over display levels.
    fn rank(self) -> u8 {
        match self {
            Self::Bdatb | Self::Bdatl => 0,
            Self::Batb | Self::Batl => 1,
            Self::Atb | Self::Atl | Self::Trd => 2,
        }
    }
}

/// What is remembered of a market.
#[derive(Debug)]
pub(super) struct Market {
    /// Its id, shared with every update.
    pub(super) id: MarketId,
    /// The definition's version.
    pub(super) version: Option<i64>,
    /// Number of the message that last imaged it, and where in the output its image lies.
    pub(super) imaged: (u64, usize),
    /// Number of the message that last named it.
    pub(super) named: u64,
    /// Whether the book came from elsewhere: what stands at which level is not known.
    restored: bool,
    /// Whether a ladder by level came that could not be followed for that.
    pub(super) blind: bool,
    /// Whether the scale was told.
    told: bool,
    /// Whether prices are lines, which may be negative.
    line: bool,
    /// The ladder that each side follows.
    followed: [Option<Source>; 2],
    /// Runners by key, with their sides by level where the market has such.
    runners: Vec<(SelectionKey, Option<Box<[Levels; 2]>>)>,
}

impl Market {
    /// A market that was not seen before.
    pub(super) fn new(id: MarketId) -> Self {
        Self {
            id,
            version: None,
            imaged: (0, 0),
            named: 0,
            restored: false,
            blind: false,
            told: false,
            line: false,
            followed: [None; 2],
            runners: Vec::new(),
        }
    }

    /// A market whose book is known from elsewhere.
    pub(super) fn restored(id: MarketId, book: &Book) -> Self {
        let kind = book.fields.get(MarketField::PriceKind).and_then(Value::int);
        let runners = book.selections.keys().map(|key| (*key, None)).collect();
        let line = kind == Some(PriceKind::Line.code());
        Self { restored: true, told: true, line, runners, ..Self::new(id) }
    }

    /// Forgets what an image replaces.
    pub(super) fn reset(&mut self) {
        (self.version, self.told, self.line, self.followed) = (None, false, false, [None; 2]);
        (self.restored, self.blind) = (false, false);
        self.runners.clear();
    }

    /// What a message says of the market, as a change of its book.
    pub(super) fn change(
        &mut self,
        source: &str,
        message: &Message,
        raw: &RawMarket,
        definition: Option<Definition>,
        report: &mut Report<'_, '_>,
    ) -> Delta {
        let mut delta = Delta::default();
        if let Some(definition) = definition {
            delta = definition.delta;
            self.version = definition.version.or(self.version);
            self.line = definition.line;
            let told = delta.selections.len();
            delta.selections.retain(|(key, _)| self.place(*key).is_some());
            if delta.selections.len() < told {
                let why =
                    format_args!("more than {MAX_SELECTIONS} runners with those known; the rest is left out");
                report.add(ProblemKind::TooLarge, Place::Definition(raw.index, "runners"), why, 0..0);
            }
        }
        if !self.told {
            self.told = true;
            scale(&mut delta, source, self.line);
        }
        if let Some(matched) = raw.matched {
            delta.set(MarketField::Matched, matched.map(Value::Int));
        }
        let runners = &message.runners[raw.runners.clone()];
        self.follow(message, runners, &mut delta);
        match runners {
            [] => {}
            [runner] => self.runner(message, raw.index, runner, &mut delta, report),
            // By key, so that each joins the delta at its end; the same runner's changes keep their order.
            _ => {
                let mut order: SmallVec<[u32; 64]> = (0..runners.len() as u32).collect();
                order.sort_by_key(|i| (runners[*i as usize].id, runners[*i as usize].handicap));
                delta.selections.reserve_exact(runners.len());
                for i in order {
                    self.runner(message, raw.index, &runners[i as usize], &mut delta, report);
                }
            }
        }
        delta
    }

    /// Lets each side follow the best ladder that was ever seen of it since the last image. What was taken from a lesser
    /// one before is replaced, in all runners.
    fn follow(&mut self, message: &Message, runners: &[RawRunner], delta: &mut Delta) {
        for ladder in runners.iter().flat_map(|runner| &message.ladders[runner.ladders.clone()]) {
            let side = ladder.source.side();
            if side == Side::Traded {
                continue;
            }
            let followed = &mut self.followed[side as usize];
            if followed.is_some_and(|source| source.rank() >= ladder.source.rank()) {
                continue;
            }
            if followed.replace(ladder.source).is_none() {
                continue;
            }
            for (key, levels) in &mut self.runners {
                let Some(levels) = levels else { continue };
                let levels = std::mem::take(&mut levels[side as usize]);
                if !levels.is_empty() {
                    delta.selection_mut(*key).ladder_mut(side).replace = true;
                }
            }
        }
    }

    fn runner(
        &mut self,
        message: &Message,
        mc: u32,
        raw: &RawRunner,
        delta: &mut Delta,
        report: &mut Report<'_, '_>,
    ) {
        let ladders = &message.ladders[raw.ladders.clone()];
        if ladders.is_empty() && [raw.last, raw.volume, raw.near, raw.far].iter().all(Option::is_none) {
            return;
        }
        let key = SelectionKey { id: raw.id, handicap: raw.handicap };
        let Some(known) = self.place(key) else {
            let why = format_args!("more than {MAX_SELECTIONS} runners; this one is left out");
            report.add(ProblemKind::TooLarge, Place::Change(mc, raw.index, ""), why, 0..0);
            return;
        };
        let change = delta.selection_mut(key);
        let prices = [
            ("ltp", SelectionField::Last, raw.last),
            ("spn", SelectionField::SpNear, raw.near),
            ("spf", SelectionField::SpFar, raw.far),
        ];
        if let Some(volume) = raw.volume {
            change.set(SelectionField::Volume, volume.map(Value::Int));
        }
        for (name, field, said) in prices {
            match said {
                Some(Some(price)) if price < 0 && !self.line => {
                    let why = format_args!("a price can't be negative ({price} hundredths); it is left out");
                    report.value(Place::Change(mc, raw.index, name), why, 0..0);
                }
                Some(price) => change.set(field, price.map(Value::Int)),
                None => {}
            }
        }
        for ladder in ladders {
            let rows = &message.rows[ladder.rows.clone()];
            self.ladder(known, mc, raw.index, ladder, rows, change, report);
        }
    }

    #[allow(clippy::too_many_arguments, reason = "the place in the message is two of them")]
    fn ladder(
        &mut self,
        known: usize,
        mc: u32,
        rc: u32,
        ladder: &RawLadder,
        rows: &[Row],
        change: &mut SelectionDelta,
        report: &mut Report<'_, '_>,
    ) {
        let (source, side) = (ladder.source, ladder.source.side());
        if side != Side::Traded && self.followed[side as usize] != Some(source) {
            return;
        }
        if source.by_level() && self.restored {
            self.blind = true;
            return;
        }
        let line = self.line;
        let bad = |row: &Row| {
            let level = source.by_level() && !(0..MOST_LEVELS).contains(&row.level);
            // A level is deleted as [level, 0, 0].
            let price = row.price <= 0 && !line && !(source.by_level() && row.size == 0);
            level || price
        };
        let mut kept: SmallVec<[Row; 16]>;
        let mut rows = rows;
        if rows.iter().any(bad) {
            for row in rows.iter().filter(|row| bad(row)) {
                let why = format_args!(
                    "a price above 0 (and a level from 0 to {}) was expected; the row is left out",
                    MOST_LEVELS - 1
                );
                let at = row.at as usize..row.at as usize + 24;
                report.value(Place::Row(mc, rc, source.key(), row.index), why, at);
            }
            kept = rows.iter().copied().collect();
            kept.retain(|row| !bad(row));
            rows = &kept;
        }
        let to = change.ladder_mut(side);
        if source.by_level() {
            self.runners[known].1.get_or_insert_default()[side as usize].apply(rows, to);
        } else {
            set_all(to, rows);
        }
    }

    /// Where a runner is, joining it; `None` where there are too many.
    fn place(&mut self, key: SelectionKey) -> Option<usize> {
        match self.runners.binary_search_by_key(&key, |r| r.0) {
            Ok(i) => Some(i),
            Err(_) if self.runners.len() == MAX_SELECTIONS => None,
            Err(i) => {
                self.runners.insert(i, (key, None));
                Some(i)
            }
        }
    }
}

/// Sets prices to sizes; of one price's rows the last counts.
fn set_all(ladder: &mut LadderDelta, rows: &[Row]) {
    if rows.len() <= MANY_ROWS || !ladder.levels.is_empty() {
        for row in rows {
            match ladder.levels.last() {
                Some(last) if last.0 >= row.price => ladder.set(row.price, row.size),
                _ => ladder.levels.push((row.price, row.size)),
            }
        }
        return;
    }
    // Last first, so that the stable sort leaves it at the head of its price.
    ladder.levels.extend(rows.iter().rev().map(|row| (row.price, row.size)));
    ladder.levels.sort_by_key(|l| l.0);
    ladder.levels.dedup_by_key(|l| l.0);
}

/// What the stream never says because it is always so. Told with the first word of a market, so that a definition which
/// comes later changes no scale.
fn scale(delta: &mut Delta, source: &str, line: bool) {
    let price_kind = if line { PriceKind::Line } else { PriceKind::Odds };
    delta.set(MarketField::Source, Some(source.into()));
    delta.set(MarketField::Kind, Some(Value::Int(Kind::Ladder.code())));
    delta.set(MarketField::PriceKind, Some(Value::Int(price_kind.code())));
    delta.set(MarketField::PriceExponent, Some(Value::Int(i64::from(PLACES))));
    delta.set(MarketField::SizeKind, Some(Value::Int(SizeKind::Stake.code())));
    delta.set(MarketField::SizeExponent, Some(Value::Int(i64::from(PLACES))));
    delta.set(MarketField::Currency, Some("GBP".into()));
}
