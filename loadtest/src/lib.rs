//! tictac-loadtest: clients that keep and check books, for load and for tests.
//!
//! [`follow::Followed`] is what any client holds; [`websocket`] and [`stream`] bring it messages over real sockets;
//! [`request`] fetches documents to compare with. [`faults`] makes the table of what was injected and survived,
//! and [`guards`] takes the guards out of the code to see that their tests fail.
//!
//! A [`scenario`] says which clients there are and what they follow, from [`settings`] or a file; [`load`] runs it, and [`report`]
//! makes a table, JSON and a page of what came of it.
//!
//! For measuring there are thousands of clients on one thread ([`fleet`]), changes that are due at exact times ([`pulse`]), the
//! gateway ([`serve`]), alone or with all that comes before it ([`published`]), and the least program that could do its job
//! ([`floor`]) as processes that are told what to bring ([`orders`]), and their turns ([`bench`]).

pub mod bench;
pub mod commands;
pub mod compare;
pub mod faults;
pub mod fleet;
pub mod floor;
pub mod follow;
pub mod guards;
pub mod load;
pub mod logged;
pub mod orders;
pub mod progress;
pub mod published;
pub mod pulse;
pub mod report;
pub mod request;
pub mod scenario;
pub mod serve;
pub mod settings;
pub mod stream;
pub mod websocket;
