//! Bounded delivery to one follower. Whoever delivers never waits: a message that does not fit is dropped and counted,
//! which the follower sees as a gap. That a subscription is confirmed, or lost, must not be dropped: it is owed, and
//! what is owed goes out before any later message, as soon as there is room.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::LiveEvent;

/// One follower's channel.
#[derive(Debug, Clone)]
pub(crate) struct Outbox {
    shared: Arc<Shared>,
    /// With the last clone the channel closes.
    _end: Arc<DropGuard>,
}

#[derive(Debug)]
struct Shared {
    sender: mpsc::Sender<LiveEvent>,
    owed: Mutex<Owed>,
    wake: Notify,
    dropped: AtomicU64,
}

/// At most one loss and one confirmation for each shard.
#[derive(Debug, Default)]
struct Owed {
    lost: BTreeSet<u16>,
    /// Why the last of them was.
    reason: String,
    confirmed: BTreeSet<u16>,
}

impl Owed {
    fn next(&mut self) -> Option<LiveEvent> {
        if !self.lost.is_empty() {
            let shards = std::mem::take(&mut self.lost).into_iter().collect();
            return Some(LiveEvent::Lost { shards, reason: std::mem::take(&mut self.reason) });
        }
        self.confirmed.pop_first().map(|shard| LiveEvent::Subscribed { shard })
    }

    fn put_back(&mut self, event: LiveEvent) {
        match event {
            LiveEvent::Lost { shards, reason } => {
                self.lost.extend(shards);
                self.reason = reason;
            }
            LiveEvent::Subscribed { shard } => {
                self.confirmed.insert(shard);
            }
            LiveEvent::Message { .. } => {}
        }
    }

    fn is_empty(&self) -> bool {
        self.lost.is_empty() && self.confirmed.is_empty()
    }
}

impl Outbox {
    /// A follower's channel of a capacity in messages, and its receiving end. Needs a running Tokio.
    pub(crate) fn new(capacity: usize) -> (Self, mpsc::Receiver<LiveEvent>) {
        let (sender, receiver) = mpsc::channel(capacity.max(1));
        let shared = Arc::new(Shared {
            sender,
            owed: Mutex::default(),
            wake: Notify::new(),
            dropped: AtomicU64::new(0),
        });
        let end = CancellationToken::new();
        let paying = end.clone().run_until_cancelled_owned(pay(shared.clone()));
        tokio::spawn(paying);
        (Self { shared, _end: Arc::new(end.drop_guard()) }, receiver)
    }

    /// Delivers a message, or drops and counts it.
    pub(crate) fn message(&self, shard: u16, bytes: Bytes) {
        let mut owed = self.shared.owed.lock().unwrap_or_else(PoisonError::into_inner);
        self.shared.flush(&mut owed);
        let sent =
            owed.is_empty() && self.shared.sender.try_send(LiveEvent::Message { shard, bytes }).is_ok();
        if !sent {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Tells that a shard's subscription is confirmed.
    pub(crate) fn confirmed(&self, shard: u16) {
        let mut owed = self.shared.owed.lock().unwrap_or_else(PoisonError::into_inner);
        owed.confirmed.insert(shard);
        self.shared.flush(&mut owed);
    }

    /// Tells that subscriptions are lost: confirmations of them that are still owed are void.
    pub(crate) fn lost(&self, shards: impl IntoIterator<Item = u16>, reason: String) {
        let mut owed = self.shared.owed.lock().unwrap_or_else(PoisonError::into_inner);
        for shard in shards {
            owed.confirmed.remove(&shard);
            owed.lost.insert(shard);
        }
        owed.reason = reason;
        self.shared.flush(&mut owed);
    }

    /// Withdraws what is still owed of a shard.
    pub(crate) fn forget(&self, shard: u16) {
        let mut owed = self.shared.owed.lock().unwrap_or_else(PoisonError::into_inner);
        owed.confirmed.remove(&shard);
        owed.lost.remove(&shard);
    }

    /// Messages dropped so far.
    pub(crate) fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    /// Waits until the receiving end is gone.
    pub(crate) async fn closed(&self) {
        self.shared.sender.closed().await;
    }

    /// Whether both are the same follower's.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }
}

impl Shared {
    fn flush(&self, owed: &mut Owed) {
        while let Some(event) = owed.next() {
            match self.sender.try_send(event) {
                Ok(()) => {}
                Err(TrySendError::Full(event)) => {
                    owed.put_back(event);
                    self.wake.notify_one();
                    return;
                }
                Err(TrySendError::Closed(_)) => return,
            }
        }
    }
}

/// Delivers what is owed once there is room, until the receiving end is gone.
async fn pay(shared: Arc<Shared>) {
    loop {
        tokio::select! {
            () = shared.sender.closed() => return,
            () = shared.wake.notified() => {}
        }
        let Ok(permit) = shared.sender.reserve().await else { return };
        let mut owed = shared.owed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(event) = owed.next() {
            permit.send(event);
        }
        shared.flush(&mut owed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_owed_comes_before_later_messages() {
        let (outbox, mut receiver) = Outbox::new(1);
        outbox.message(1, Bytes::from_static(b"a"));
        outbox.message(1, Bytes::from_static(b"b"));
        outbox.confirmed(1);
        outbox.confirmed(3);
        outbox.lost([1, 2], "cut".into());
        outbox.confirmed(2);
        outbox.message(2, Bytes::from_static(b"c"));
        assert_eq!(outbox.dropped(), 2);
        assert!(matches!(receiver.recv().await, Some(LiveEvent::Message { shard: 1, .. })));
        let Some(LiveEvent::Lost { shards, reason }) = receiver.recv().await else { panic!() };
        assert_eq!((shards, reason.as_str()), (vec![1, 2], "cut"));
        assert!(matches!(receiver.recv().await, Some(LiveEvent::Subscribed { shard: 2 })));
        assert!(matches!(receiver.recv().await, Some(LiveEvent::Subscribed { shard: 3 })));
        outbox.message(2, Bytes::from_static(b"d"));
        assert!(matches!(receiver.recv().await, Some(LiveEvent::Message { shard: 2, .. })));
        assert_eq!(outbox.dropped(), 2);
        drop(outbox);
        assert!(receiver.recv().await.is_none());
    }
}
