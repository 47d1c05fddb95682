//! Prices around a fair one: ladders that are filled, requoted, resized and traded, and a bookmaker's own prices.

use smallvec::SmallVec;
use tictac_proto::model::fields::Kind;
use tictac_proto::model::{MarketField, SelectionField, SelectionKey, SelectionStatus, Side};

use super::chance::Chance;
use super::market::{Market, Quote};
use super::ticks::{CLASSIC, COUNT, at_or_below, fraction, index};

/// Fewest and most levels that a side is filled to.
const DEPTH: (i64, i64) = (6, 15);
/// The bookmaker's margin, as a factor on probabilities.
const MARGIN: f64 = 1.07;

impl Market {
    /// Prices every selection anew: at first, and when a market opens again.
    pub(super) fn price_all(&mut self, chance: &mut Chance) {
        for i in 0..self.quotes.len() {
            self.quotes[i].mood = 0.05 * chance.normal();
            self.quotes[i].gap = self.some_gap(chance);
            self.quotes[i].depth = usize::try_from(chance.whole(DEPTH.0, DEPTH.1)).unwrap_or(6);
        }
        for i in 0..self.quotes.len() {
            match self.kind {
                Kind::Ladder => self.requote(i, true, chance),
                Kind::Fixed => self.reprice_fixed(i),
            }
        }
    }

    /// Trades of the past, so that a market does not begin as if nobody had ever bet on it.
    pub(super) fn trade_history(&mut self, chance: &mut Chance) {
        if self.kind == Kind::Fixed {
            return;
        }
        for i in 0..self.quotes.len() {
            let key = self.quotes[i].key;
            let fair = self.fair(i);
            if !(0.002..0.98).contains(&fair) {
                continue;
            }
            let center = at_or_below(1.0 / fair);
            for _ in 0..chance.whole(4, 14) {
                #[allow(clippy::cast_possible_truncation, reason = "a few ticks")]
                let away = (3.0 * chance.normal()) as isize;
                let tick = center.saturating_add_signed(away).min(COUNT - 1);
                let size = chance.stake(self.liquidity * (0.3 + 6.0 * fair));
                self.record_trade(key, CLASSIC[tick], size);
            }
        }
    }

    /// Something happens in an open market: on one selection, often on a second.
    pub(super) fn act(&mut self, chance: &mut Chance) {
        if !self.is_open() || self.quotes.is_empty() {
            return;
        }
        self.act_on_one(chance);
        if chance.happens(0.35) {
            self.act_on_one(chance);
        }
        self.withdraw_stale(chance);
    }

    /// After a point or a furlong prices are wrong that nobody has touched yet: who offers them is quick to move.
    fn withdraw_stale(&mut self, chance: &mut Chance) {
        if self.kind == Kind::Fixed {
            return;
        }
        for (i, fair) in self.fairs().into_iter().enumerate() {
            let key = self.quotes[i].key;
            if self.runner_status(key) != SelectionStatus::Active || !(0.0011..=0.988).contains(&fair) {
                continue;
            }
            let tick = at_or_below(1.0 / fair);
            let best = |side| self.nth(key, side, 0).and_then(|(price, _)| index(price));
            let back_is_high = best(Side::Back).is_none_or(|best| best > tick + 1 || best + 3 < tick);
            let lay_is_low = best(Side::Lay).is_none_or(|best| best < tick || best > tick + 4);
            if back_is_high || lay_is_low {
                self.requote(i, false, chance);
            }
        }
    }

    fn act_on_one(&mut self, chance: &mut Chance) {
        let i = self.somebody(chance);
        let key = self.quotes[i].key;
        if self.runner_status(key) != SelectionStatus::Active {
            return;
        }
        let mood = &mut self.quotes[i].mood;
        *mood = (0.99 * *mood + 0.006 * chance.normal()).clamp(-0.4, 0.4);
        if self.kind == Kind::Fixed {
            self.reprice_fixed(i);
            return;
        }
        if chance.happens(0.03) {
            self.quotes[i].gap = self.some_gap(chance);
        }
        match chance.unit() {
            x if x < 0.45 => self.resize(i, chance),
            x if x < 0.62 => self.trade(i, chance),
            x if x < 0.80 => self.cancel(key, chance),
            _ => {}
        }
        self.requote(i, false, chance);
    }

    /// A gap between the best prices: seldom any where much is offered, up to three ticks where little is.
    fn some_gap(&self, chance: &mut Chance) -> usize {
        match self.liquidity {
            l if l > 100.0 => usize::from(chance.happens(0.1)),
            l if l > 40.0 => chance.below(2),
            _ => chance.below(4),
        }
    }

    /// A selection, the favourites more often.
    fn somebody(&self, chance: &mut Chance) -> usize {
        let total: f64 = self.quotes.iter().map(|q| q.model.max(0.0).sqrt()).sum();
        let mut at = chance.unit() * total;
        for (i, quote) in self.quotes.iter().enumerate() {
            at -= quote.model.max(0.0).sqrt();
            if at <= 0.0 {
                return i;
            }
        }
        self.quotes.len() - 1
    }

    /// The crowd's probability of a selection.
    fn fair(&self, i: usize) -> f64 {
        self.fairs()[i]
    }

    /// The crowd's probabilities of all selections; they add up to the number of winners.
    fn fairs(&self) -> SmallVec<[f64; 20]> {
        let crowd = |q: &Quote| {
            let model = q.model.clamp(0.0, 1.0);
            let odds = model / (1.0 - model).max(1e-9) * q.mood.exp();
            odds / (1.0 + odds)
        };
        let mut all: SmallVec<[f64; 20]> = self.quotes.iter().map(crowd).collect();
        let factor = self.winners / all.iter().sum::<f64>().max(1e-9);
        for p in &mut all {
            *p = (*p * factor).clamp(0.0, 1.0);
        }
        all
    }

    /// Moves the offers of a selection to where its fair price is, and fills them up: whole, or by a level or two.
    fn requote(&mut self, i: usize, whole: bool, chance: &mut Chance) {
        let key = self.quotes[i].key;
        if self.runner_status(key) != SelectionStatus::Active {
            return;
        }
        let fair = self.fair(i);
        // Beyond either end of the ladder only one side is left.
        let (back, lay) = match fair {
            f if f < 0.0011 => (None, Some(COUNT - 1)),
            f if f > 0.988 => (None, Some(0)),
            f => {
                let back = at_or_below(1.0 / f).min(COUNT - 2);
                (Some(back), Some((back + 1 + self.quotes[i].gap).min(COUNT - 1)))
            }
        };
        self.side_to(key, Side::Back, back, whole, chance);
        self.side_to(key, Side::Lay, lay, whole, chance);
        let depth = self.quotes[i].depth;
        if let Some(back) = back {
            self.fill(key, Side::Back, back, depth, whole, chance);
        }
        if let Some(lay) = lay {
            self.fill(key, Side::Lay, lay, depth, whole, chance);
        }
    }

    /// Takes away what stands beyond the best price that a side may have.
    fn side_to(
        &mut self,
        key: SelectionKey,
        side: Side,
        best: Option<usize>,
        whole: bool,
        chance: &mut Chance,
    ) {
        let Some(ladder) = self.truth.selections.get(&key).map(|s| s.ladder(side)) else { return };
        let beyond: Vec<i64> = match (best, side) {
            (None, _) => ladder.keys().copied().collect(),
            (Some(best), Side::Back) => ladder.range(CLASSIC[best] + 1..).map(|l| *l.0).collect(),
            (Some(best), _) => ladder.range(..CLASSIC[best]).map(|l| *l.0).collect(),
        };
        for price in beyond {
            self.level(key, side, price, 0);
        }
        // The furthest offers are withdrawn one at a time.
        let Some(ladder) = self.truth.selections.get(&key).map(|s| s.ladder(side)) else { return };
        if !whole && ladder.len() > usize::try_from(DEPTH.1).unwrap_or(15) {
            let nth = 1 + chance.below(3);
            let far = if side == Side::Back { ladder.keys().nth(nth) } else { ladder.keys().rev().nth(nth) };
            if let Some(price) = far.copied() {
                self.level(key, side, price, 0);
            }
        }
    }

    fn fill(
        &mut self,
        key: SelectionKey,
        side: Side,
        best: usize,
        depth: usize,
        whole: bool,
        chance: &mut Chance,
    ) {
        let at = |away: usize| match side {
            Side::Back => best.checked_sub(away),
            _ => Some(best + away).filter(|t| *t < COUNT),
        };
        let mut left = if whole { depth } else { 2 };
        let mut tries = 4 * left;
        let mut away = 0;
        while left > 0 && tries > 0 {
            tries -= 1;
            let Some(ladder) = self.truth.selections.get(&key).map(|s| s.ladder(side)) else { return };
            if ladder.len() >= depth && ladder.contains_key(&CLASSIC[best]) {
                return;
            }
            if let Some(tick) = at(away)
                && !ladder.contains_key(&CLASSIC[tick])
            {
                let size = self.offer(away, chance);
                self.level(key, side, CLASSIC[tick], size);
                left -= 1;
            }
            // Near the best price every tick is offered, further away there are gaps.
            away = if whole {
                away + 1 + if away < 3 { 0 } else { chance.below(3) }
            } else {
                chance.below(depth + depth / 2)
            };
        }
    }

    /// A size for an offer some ticks away from the best: the third or so is the thickest.
    #[allow(clippy::cast_precision_loss, reason = "a few ticks")]
    fn offer(&self, away: usize, chance: &mut Chance) -> i64 {
        let shape = (0.5 + 0.35 * away.min(3) as f64) * (-0.09 * away as f64).exp();
        chance.stake(self.liquidity * shape)
    }

    fn resize(&mut self, i: usize, chance: &mut Chance) {
        let key = self.quotes[i].key;
        let side = if chance.happens(0.5) { Side::Back } else { Side::Lay };
        // The nearer to the best, the more often.
        let rank = chance.below(1 + chance.clone().below(8));
        if let Some((price, size)) = self.nth(key, side, rank) {
            let new = match chance.unit() {
                x if x < 0.35 => size + chance.stake(self.liquidity / 6.0),
                x if x < 0.70 && size > 600 => size - chance.whole(1, size * 2 / 3),
                _ => self.offer(rank, chance),
            };
            self.level(key, side, price, new);
        }
    }

    fn cancel(&mut self, key: SelectionKey, chance: &mut Chance) {
        let side = if chance.happens(0.5) { Side::Back } else { Side::Lay };
        let rank = 1 + chance.below(10);
        if let Some((price, _)) = self.nth(key, side, rank) {
            self.level(key, side, price, 0);
        }
    }

    /// Somebody takes what is offered: now and then more than the best level holds.
    fn trade(&mut self, i: usize, chance: &mut Chance) {
        let key = self.quotes[i].key;
        let side = if chance.happens(0.5) { Side::Back } else { Side::Lay };
        let mut wanted = chance.stake(self.liquidity * 0.5);
        for _ in 0..4 {
            let Some((price, size)) = self.nth(key, side, 0) else { return };
            let taken = wanted.min(size);
            self.level(key, side, price, size - taken);
            self.record_trade(key, price, taken);
            wanted -= taken;
            if wanted < 200 {
                break;
            }
        }
        // Backers shorten a price, layers lengthen it.
        self.quotes[i].mood += if side == Side::Back { 0.002 } else { -0.002 };
    }

    fn record_trade(&mut self, key: SelectionKey, price: i64, size: i64) {
        let Some(selection) = self.truth.selections.get(&key) else { return };
        let volume = selection.int(SelectionField::Volume).unwrap_or(0) + size;
        let traded = selection.ladder(Side::Traded).get(&price).copied().unwrap_or(0) + size;
        let matched = self.truth.int(MarketField::Matched).unwrap_or(0) + size;
        debug_assert!(index(price).is_some(), "trades happen at ticks");
        self.level(key, Side::Traded, price, traded);
        self.set_runner(key, SelectionField::Last, price);
        self.set_runner(key, SelectionField::Volume, volume);
        self.set(MarketField::Matched, matched);
    }

    /// The offer of a rank, best first.
    fn nth(&self, key: SelectionKey, side: Side, rank: usize) -> Option<(i64, i64)> {
        let ladder = self.truth.selections.get(&key)?.ladder(side);
        let level = if side == Side::Back { ladder.iter().nth_back(rank) } else { ladder.iter().nth(rank) };
        level.map(|(price, size)| (*price, *size))
    }

    fn reprice_fixed(&mut self, i: usize) {
        let key = self.quotes[i].key;
        if self.runner_status(key) != SelectionStatus::Active {
            return;
        }
        let fair = self.fair(i).max(0.0005);
        let (price, native) = fraction(MARGIN.recip() / fair);
        let truth = self.truth.selections.get(&key).and_then(|s| s.int(SelectionField::Price));
        if truth == Some(price) {
            return;
        }
        #[allow(clippy::cast_possible_truncation, reason = "at most a million")]
        let probability = (fair.min(1.0) * 1e6) as i64;
        self.set_runner(key, SelectionField::Price, price);
        self.set_runner(key, SelectionField::Native, native.as_str());
        self.set_runner(key, SelectionField::Probability, probability);
        // The longer the price, the less is taken: the house risks about the same.
        self.set_runner(
            key,
            SelectionField::MaxStake,
            (50_000_000 / price).clamp(1_000, 250_000) / 1_000 * 1_000,
        );
    }
}
