//! Books, deltas and views. Everything is an integer below 2^53 or a text; a price or size is scaled by the
//! market's exponents. Books are uniform: cells by field (see [`fields`]) and ladders by price, each stamped with
//! the log number of its last change, so that the difference from any older position is one scan.

mod book;
mod delta;
pub mod fields;
mod ladder;
mod value;
mod view;

pub use book::{Book, Market, MarketId, Selection, SelectionKey, Since};
pub use delta::{Delta, FieldChanges, LadderDelta, Levels, SelectionDelta};
pub use fields::{Field, MarketField, MarketStatus, SelectionField, SelectionStatus};
pub use ladder::{Ladder, Level, Side};
pub use value::{Cell, Cells, Value};
pub use view::{View, ViewTracker};
