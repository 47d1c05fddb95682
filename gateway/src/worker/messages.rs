//! Messages of clients: read, paced, done or refused; and what the core asks the hub for them.

use tictac_proto::wire::{CloseCode, ErrorCode, Problem, Scope, Subscribe, Up};

use super::{MAX_BAD, Worker};
use crate::core::SessionId;
use crate::feed::HubInput;

impl Worker {
    /// A client's message: read, paced, done.
    pub(super) fn client_message(&mut self, id: SessionId, bytes: &[u8]) {
        let now = self.clock.now();
        let Some(conn) = self.conns.get_mut(id) else { return };
        let Some(client) = self.core.client(id) else { return };
        if let Err(refused) = conn.pace.message() {
            self.limits.count("messages");
            if refused > MAX_BAD {
                let why = format!("{} messages a second are allowed; far more came", self.settings.messages);
                self.core.close(id, CloseCode::Rate, why);
            } else {
                let why = format!("{} messages a second are allowed", self.settings.messages);
                self.refuse(id, ErrorCode::RateLimited, why, Some(1_000));
            }
            return;
        }
        let message = match client.wire.codec().decode(bytes).and_then(|node| Up::read(&node)) {
            Ok(message) => message,
            Err(error) => {
                conn.bad += 1;
                if conn.bad > MAX_BAD {
                    self.core.close(id, CloseCode::BadMessage, error.to_string());
                } else {
                    self.refuse(id, ErrorCode::BadMessage, error.to_string(), None);
                }
                return;
            }
        };
        conn.bad = 0;
        if let Up::Snapshot { market, .. } = &message {
            let refusal = if conn.pace.snapshot() {
                self.limits.snapshot(market).err().map(|r| (r.why.to_owned(), r.retry))
            } else {
                self.limits.count("snapshots");
                Some((format!("{} snapshots a second are allowed", self.settings.snapshots), 1_000))
            };
            if let Some((why, retry)) = refusal {
                self.refuse(id, ErrorCode::RateLimited, why, Some(retry));
                return;
            }
        }
        if let Up::Sub(Subscribe { scope: Scope::Markets(markets), view, .. }) = &message {
            let again = self.core.held_among(id, markets, *view);
            if (0..again).any(|_| !conn.pace.snapshot()) {
                self.limits.count("snapshots");
                let limit = self.settings.snapshots;
                let why = format!(
                    "{again} of these markets are subscribed already; {limit} snapshots a second are allowed"
                );
                self.refuse(id, ErrorCode::RateLimited, why, Some(1_000));
                return;
            }
        }
        self.core.up(id, message, now);
    }

    pub(super) fn refuse(&mut self, id: SessionId, code: ErrorCode, why: String, retry: Option<u64>) {
        self.metrics.refused.with_label_values(&[code.name()]).inc();
        self.core.refuse(id, Problem { id: None, market: None, code, why, retry, fatal: false });
    }

    /// Asks the hub what the core wants to know; what does not fit waits here, in order.
    pub(super) fn ask(&mut self) {
        self.asks.extend(self.core.take_asks().into_iter().map(HubInput::Core));
        while let Some(ask) = self.asks.pop_front() {
            if let Err(error) = self.hub.try_send(ask) {
                self.asks.push_front(error.into_inner());
                break;
            }
        }
    }
}
