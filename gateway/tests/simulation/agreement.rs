//! What must be so at a quiet point: one truth at source, ingest, every gateway and every client, at every view.

use std::collections::BTreeSet;

use tictac_proto::log::shard_of;
use tictac_proto::model::{Book, MarketField, MarketId, MarketStatus, Value, View};
use tictac_proto::wire::Scope;

use crate::client::Client;
use crate::history::Violation;
use crate::ingest::{LOGS, number};
use crate::source::{SHARDS, Truth};
use crate::world::World;

fn diverged(what: impl Into<String>) -> Violation {
    Violation::new("1: convergence", what)
}

impl World {
    /// Whether everything agrees.
    pub fn agreed(&self) -> Result<(), Violation> {
        for log in 0..LOGS {
            let owners: Vec<_> = self.ingests.iter().filter(|i| i.owns(log)).collect();
            let [owner] = owners[..] else {
                return Err(diverged(format!("log {log} has {} owners", owners.len())));
            };
            if owner.head(log) != self.logs[log].head() || !owner.is_settled() {
                return Err(diverged(format!("log {log}: {} ≠ {}", owner.head(log), self.logs[log].head())));
            }
        }
        for (id, truth) in &self.sources.markets {
            let log = shard_of(&truth.event, SHARDS) as usize;
            let owner = self.ingests.iter().find(|i| i.owns(log)).expect("checked above");
            let held = owner.book(log, id).ok_or_else(|| diverged(format!("ingest lacks {id}")))?;
            let truth = whole(truth, held);
            if *held != truth {
                return Err(diverged(format!("ingest's {id}: {:?}", held.diff(&truth))));
            }
            for (g, gateway) in self.gateways.iter().enumerate() {
                if let Some(market) = gateway.hub.market(id)
                    && market.book != truth
                {
                    return Err(diverged(format!("gateway {g}'s {id}: {:?}", market.book.diff(&truth))));
                }
            }
            for (c, client) in self.clients.iter().enumerate() {
                if client.place.is_none() {
                    return Err(diverged(format!("client {c} is not connected")));
                }
                for view in View::ALL.into_iter().filter(|v| wants(client, id, &self.sources.markets[id], *v))
                {
                    self.client_agrees(c, id, view, &truth)?;
                }
            }
        }
        for gateway in &self.gateways {
            for (log, shard) in self.logs.iter().enumerate() {
                let (at, head) = (gateway.heads[log], shard.head());
                if at != head && gateway.hub.market_count(number(log)).is_some() {
                    return Err(diverged(format!("log {log} at {head}, gateway at {at}")));
                }
            }
            let known: BTreeSet<MarketId> = gateway.hub.catalogue().map(|m| m.id.clone()).collect();
            if known != self.sources.markets.keys().cloned().collect() {
                return Err(diverged(format!("catalogue {known:?}")));
            }
        }
        for (c, client) in self.clients.iter().enumerate() {
            let gone = |m: &MarketId| !self.sources.markets.contains_key(m);
            let ghost =
                client.held.iter().find(|(k, h)| gone(&k.0) && h.subscribed && h.market.book().is_some());
            if let Some((key, _)) = ghost {
                return Err(diverged(format!("client {c} still shows {key:?}")));
            }
        }
        Ok(())
    }

    fn client_agrees(&self, c: usize, id: &MarketId, view: View, truth: &Book) -> Result<(), Violation> {
        let key = (id.clone(), view);
        let place = || format!("client {c} ({:?}) {id} view {}", self.clients[c].wire, view.code());
        let held = self.clients[c].held.get(&key).ok_or_else(|| diverged(format!("{} missing", place())))?;
        let Some(book) = held.market.book() else {
            return Err(diverged(format!("{} has no book, subscribed {}", place(), held.subscribed)));
        };
        let seen = view.project(truth);
        if *book != seen {
            return Err(diverged(format!(
                "{} at {:?}: {:?}",
                place(),
                held.market.position(),
                book.diff(&seen)
            )));
        }
        let open = truth.status() == MarketStatus::Open;
        if held.market.tradable_market() != open || !held.subscribed {
            let what = format!("{} tradable {}, open {open}: {:?}", place(), !open, held.market.in_gap());
            return Err(Violation::new("1: tradable at quiet", what));
        }
        Ok(())
    }
}

/// The truth with what only the sequencer says: how often it was suspended is taken over, crossing is worked out.
fn whole(truth: &Truth, held: &Book) -> Book {
    let mut book = truth.book();
    let suspensions = held.fields.get(MarketField::Suspensions).cloned();
    book.fields.set(MarketField::Suspensions, suspensions, 0);
    book.fields.set(MarketField::Crossed, Some(Value::Int(i64::from(truth.is_crossed()))), 0);
    book
}

fn wants(client: &Client, id: &MarketId, truth: &Truth, view: View) -> bool {
    client.wishes.iter().filter(|w| w.view == view).any(|w| match &w.scope {
        Scope::Markets(markets) => markets.contains(id),
        Scope::Event(event) => **event == *truth.event,
        Scope::Sport(_) => true,
    })
}
