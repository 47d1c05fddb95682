//! A live channel that loses, repeats and swaps messages.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::sync::mpsc;

use crate::log::{LiveEvent, LiveHandle, LogReader};

/// A reader whose live channel is worse than Redis's: of a hundred messages so many are lost, repeated, and swapped with
/// the next, each by itself. Subscriptions and breaks are told as they are.
#[derive(Debug, Clone)]
pub struct Lossy {
    /// What reads.
    pub reader: LogReader,
    /// Per cent of each fault.
    pub percent: f64,
    /// For the same faults again.
    pub seed: u64,
}

impl Lossy {
    pub(crate) fn live(&self, capacity: usize) -> (LiveHandle, mpsc::Receiver<LiveEvent>) {
        let (handle, mut events) = self.reader.live(capacity);
        let (sender, receiver) = mpsc::channel(capacity);
        let (mut dice, share) = (SmallRng::seed_from_u64(self.seed), self.percent / 100.0);
        tokio::spawn(async move {
            let mut held: Option<LiveEvent> = None;
            while let Some(event) = events.recv().await {
                let mut out = Vec::with_capacity(3);
                if matches!(event, LiveEvent::Message { .. }) {
                    if dice.random_bool(share) {
                        continue;
                    }
                    if held.is_none() && dice.random_bool(share) {
                        held = Some(event);
                        continue;
                    }
                    if dice.random_bool(share) {
                        out.push(event.clone());
                    }
                }
                out.push(event);
                out.extend(held.take());
                for event in out {
                    if sender.send(event).await.is_err() {
                        return;
                    }
                }
            }
        });
        (handle, receiver)
    }
}
