//! The tables of fields: one place that names every field of a market and a selection, its number in MessagePack,
//! its key in JSON and its type. Codecs, diff, checksum and the browser client all follow these tables, so that a
//! new field is one line here (and in `web/client/fields.js`, which a vector compares with this table).

use std::fmt::Debug;

/// The type of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldType {
    /// An integer below 2^53.
    Int,
    /// 0 or 1; `true` and `false` in JSON.
    Bool,
    /// A text.
    Text,
    /// An integer in MessagePack, one of these names in JSON.
    Enum(&'static [&'static str]),
}

/// A field of one of the tables.
pub trait Field: Copy + Eq + Debug + 'static {
    /// The whole table, in the order of its numbers.
    const ALL: &'static [Self];
    /// The field's number: its key in MessagePack and in the canonical form.
    fn index(self) -> usize;
    /// The field's key in JSON.
    fn name(self) -> &'static str;
    /// The field's type.
    fn kind(self) -> FieldType;

    /// The field with this number.
    fn from_index(index: usize) -> Option<Self> {
        Self::ALL.get(index).copied()
    }

    /// The field with this key.
    fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|f| f.name() == name)
    }
}

macro_rules! fields {
    ($(#[$doc:meta])* $table:ident { $($(#[$fdoc:meta])* $variant:ident = $name:literal : $kind:expr,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum $table { $($(#[$fdoc])* $variant,)* }

        impl $table {
            /// How many fields the table has.
            pub const COUNT: usize = [$(Self::$variant),*].len();
        }

        impl Field for $table {
            const ALL: &'static [Self] = &[$(Self::$variant),*];
            fn index(self) -> usize { self as usize }
            fn name(self) -> &'static str { match self { $(Self::$variant => $name),* } }
            fn kind(self) -> FieldType { match self { $(Self::$variant => $kind),* } }
        }
    };
}

macro_rules! codes {
    ($(#[$doc:meta])* $name:ident, $names:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum $name { $($(#[$vdoc])* $variant,)* }

        #[doc = concat!("The names of [`", stringify!($name), "`], by code.")]
        pub const $names: &[&str] = &[$($text),*];

        impl $name {
            /// All, by code.
            pub const ALL: &[Self] = &[$(Self::$variant),*];
            /// The name, as JSON has it.
            #[must_use]
            pub fn name(self) -> &'static str { $names[self as usize] }
            /// The code, as MessagePack has it.
            #[must_use]
            pub fn code(self) -> i64 { self as i64 }
            /// The one with this code.
            #[must_use]
            pub fn from_code(code: i64) -> Option<Self> {
                usize::try_from(code).ok().and_then(|c| Self::ALL.get(c).copied())
            }
            /// The one with this name.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                $names.iter().position(|n| *n == name).map(|i| Self::ALL[i])
            }
        }
    };
}

codes! {
    /// The status of a market.
    MarketStatus, MARKET_STATUS {
        /// Not yet offered.
        Inactive = "inactive",
        /// Bets are taken.
        Open = "open",
        /// Bets are not taken now.
        Suspended = "suspended",
        /// No more bets; not yet settled.
        Closed = "closed",
        /// Results are final.
        Settled = "settled",
        /// All bets are void.
        Void = "void",
        /// Another producer goes on with it.
        HandedOver = "handed_over",
    }
}

impl MarketStatus {
    /// Whether nothing more is expected of the market.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Closed | Self::Settled | Self::Void)
    }
}

codes! {
    /// The status of a selection.
    SelectionStatus, SELECTION_STATUS {
        /// Can be bet on.
        Active = "active",
        /// Withdrawn (a non-runner).
        Removed = "removed",
        /// Won.
        Winner = "winner",
        /// Lost.
        Loser = "loser",
        /// Placed.
        Placed = "placed",
        /// Void.
        Void = "void",
        /// Not shown, not bet on.
        Hidden = "hidden",
    }
}

codes! {
    /// What a selection's prices are.
    Kind, KIND {
        /// Ladders of offers on both sides.
        Ladder = "ladder",
        /// One price, set by the house.
        Fixed = "fixed",
    }
}

codes! {
    /// What a price means.
    PriceKind, PRICE_KIND {
        /// Decimal odds: the best price to back is the highest.
        Odds = "odds",
        /// Probability: the best price to back is the lowest.
        Probability = "probability",
        /// The line itself; backing is selling, so the best price to back is the highest.
        Line = "line",
    }
}

codes! {
    /// What a size means.
    SizeKind, SIZE_KIND {
        /// The backer's stake.
        Stake = "stake",
        /// What the backer receives.
        Payout = "payout",
        /// A number of contracts.
        Contracts = "contracts",
    }
}

use FieldType::{Bool, Enum, Int, Text};

fields! {
    /// The fields of a market. Definition first, state after it.
    MarketField {
        /// Event id.
        Event = "event": Text,
        /// Event name.
        EventName = "event_name": Text,
        /// Sport.
        Sport = "sport": Text,
        /// Competition.
        Competition = "competition": Text,
        /// Venue.
        Venue = "venue": Text,
        /// Start, Unix milliseconds.
        Start = "start": Int,
        /// The event's score, as the source words it.
        Score = "score": Text,
        /// The event's clock, as the source words it.
        Clock = "clock": Text,
        /// The source that owns the market.
        Source = "source": Text,
        /// Market type.
        Type = "type": Text,
        /// Market name.
        Name = "name": Text,
        /// Line or other specifiers.
        Line = "line": Text,
        /// Ladder or fixed odds. A change travels as a snapshot.
        Kind = "kind": Enum(KIND),
        /// What a price means. A change travels as a snapshot.
        PriceKind = "price_kind": Enum(PRICE_KIND),
        /// Decimals of a price: value = integer / 10^exponent. A change travels as a snapshot.
        PriceExponent = "price_exponent": Int,
        /// What a size means. A change travels as a snapshot.
        SizeKind = "size_kind": Enum(SIZE_KIND),
        /// Decimals of a size. A change travels as a snapshot.
        SizeExponent = "size_exponent": Int,
        /// Currency of sizes. A change travels as a snapshot.
        Currency = "currency": Text,
        /// Tick ladder: `classic`, `finest`, or `line:<min>:<max>:<step>` in scaled integers.
        Ticks = "ticks": Text,
        /// How many selections can win.
        Winners = "winners": Int,
        /// Each-way divisor, in thousandths.
        EachWay = "each_way": Int,
        /// The source's version of the definition; need not rise.
        Version = "version": Int,
        /// Status.
        Status = "status": Enum(MARKET_STATUS),
        /// Why it is suspended or void, where the source says.
        Reason = "reason": Text,
        /// Whether the event is in play.
        InPlay = "in_play": Bool,
        /// Seconds that a bet is held before it is matched.
        BetDelay = "bet_delay": Int,
        /// Matched volume, a scaled size.
        Matched = "matched": Int,
        /// How often the market left `open` so far.
        Suspensions = "suspensions": Int,
        /// Whether some selection's best prices cross.
        Crossed = "crossed": Bool,
    }
}

impl MarketField {
    /// Whether the field is part of the market's scale: a change replaces the book by a snapshot.
    #[must_use]
    pub fn is_scale(self) -> bool {
        matches!(
            self,
            Self::Kind
                | Self::PriceKind
                | Self::PriceExponent
                | Self::SizeKind
                | Self::SizeExponent
                | Self::Currency
        )
    }
}

fields! {
    /// The fields of a selection, but for its ladders.
    SelectionField {
        /// Name.
        Name = "name": Text,
        /// Sort order.
        Sort = "sort": Int,
        /// Status.
        Status = "status": Enum(SELECTION_STATUS),
        /// Reduction factor, in thousandths.
        Adjustment = "adjustment": Int,
        /// Last price traded, a scaled price.
        Last = "last": Int,
        /// Volume traded, a scaled size.
        Volume = "volume": Int,
        /// Projected starting price from near bets, a scaled price.
        SpNear = "sp_near": Int,
        /// Projected starting price from all bets, a scaled price.
        SpFar = "sp_far": Int,
        /// Starting price, a scaled price.
        Sp = "sp": Int,
        /// Fixed odds: the price.
        Price = "price": Int,
        /// Fixed odds: the price as the source words it (`5/2`, `+250`).
        Native = "native": Text,
        /// Fixed odds: largest stake taken, a scaled size.
        MaxStake = "max_stake": Int,
        /// Fixed odds: probability in millionths.
        Probability = "probability": Int,
        /// Settlement: void share in thousandths.
        VoidFactor = "void_factor": Int,
        /// Settlement: dead-heat factor in thousandths.
        DeadHeat = "dead_heat": Int,
        /// Settlement: how sure the outcome is, in per cent.
        Certainty = "certainty": Int,
    }
}
