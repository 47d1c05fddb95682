//! What is made of a run's figures: a table for a terminal, JSON for programs, and a page with plots.

pub mod json;
pub mod page;
pub mod plot;
pub mod table;
pub mod units;
