//! tictac-loadtest: clients that keep and check books, for load and for tests.
//!
//! [`follow::Followed`] is what any client holds; [`websocket`] and [`stream`] bring it messages over real sockets;
//! [`request`] fetches documents to compare with. [`faults`] makes the table of what was injected and survived.

pub mod compare;
pub mod faults;
pub mod follow;
pub mod request;
pub mod settings;
pub mod stream;
pub mod websocket;
