//! The follower's handle on its live channel.

use super::memory::MemoryFollower;
use super::redis_live::RedisFollower;

/// Says which shards the live channel brings. Every [`follow`](Self::follow) is answered by one
/// [`Subscribed`](super::LiveEvent::Subscribed), unless it is taken back before. Dropping the handle, or the receiver,
/// ends the following.
#[derive(Debug)]
pub struct LiveHandle {
    pub(super) follower: Follower,
}

#[derive(Debug)]
pub(super) enum Follower {
    Memory(MemoryFollower),
    Redis(RedisFollower),
}

impl LiveHandle {
    /// Follows a shard.
    pub fn follow(&self, shard: u16) {
        match &self.follower {
            Follower::Memory(follower) => follower.follow(shard),
            Follower::Redis(follower) => follower.follow(shard),
        }
    }

    /// Follows a shard no longer. Messages that are on their way may still come.
    pub fn unfollow(&self, shard: u16) {
        match &self.follower {
            Follower::Memory(follower) => follower.unfollow(shard),
            Follower::Redis(follower) => follower.unfollow(shard),
        }
    }

    /// Messages dropped so far because the receiver did not keep up.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        match &self.follower {
            Follower::Memory(follower) => follower.dropped(),
            Follower::Redis(follower) => follower.dropped(),
        }
    }
}
