//! The catalogue: of every market the fields that the market list needs, as a book without selections, in a shard of its
//! own that every gateway follows.

use tictac_proto::model::{Book, Delta, MarketField};

/// The fields that a catalogue's book has.
pub const FIELDS: &[MarketField] = &[
    MarketField::Event,
    MarketField::EventName,
    MarketField::Sport,
    MarketField::Competition,
    MarketField::Venue,
    MarketField::Start,
    MarketField::Score,
    MarketField::Clock,
    MarketField::Source,
    MarketField::Type,
    MarketField::Name,
    MarketField::Line,
    MarketField::Kind,
    MarketField::PriceKind,
    MarketField::PriceExponent,
    MarketField::SizeKind,
    MarketField::SizeExponent,
    MarketField::Currency,
    MarketField::Winners,
    MarketField::Status,
    MarketField::Reason,
    MarketField::InPlay,
    MarketField::Matched,
];

/// What a change touches of the catalogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Touch {
    /// Nothing.
    Nothing,
    /// Matched volume, which can wait.
    Matched,
    /// More than that.
    More,
}

/// What a change touches of the catalogue.
pub(super) fn touch(delta: &Delta) -> Touch {
    let mut touch = Touch::Nothing;
    for (field, _) in &delta.fields {
        if *field == MarketField::Matched {
            touch = touch.max(Touch::Matched);
        } else if FIELDS.contains(field) {
            return Touch::More;
        }
    }
    touch
}

/// A market's book as the catalogue has it.
#[must_use]
pub fn project(book: &Book) -> Book {
    let mut seen = Book::default();
    for field in FIELDS {
        seen.fields.set(*field, book.fields.get(*field).cloned(), 0);
    }
    seen
}

/// What makes the catalogue's book into the projection of `book`.
pub(super) fn step(held: &Book, book: &Book) -> Delta {
    let mut delta = Delta::default();
    for field in FIELDS {
        let value = book.fields.get(*field);
        if held.fields.get(*field) != value {
            delta.set(*field, value.cloned());
        }
    }
    delta
}
