//! What the hot path must not do: allocate for a delivery. How many instructions it takes is in `examples/delivery_cost.rs`.
#![allow(unreachable_pub, missing_docs, reason = "a test binary has no callers outside")]

#[path = "../examples/delivery/mod.rs"]
mod delivery;

use std::alloc::System;

use delivery::World;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Of each change there are lists of who is told and what grew; they are as many however many clients there are.
const ALLOCATIONS_A_CHANGE: usize = 16;

// One test: others would allocate beside it.
#[test]
fn a_delivery_allocates_nothing() {
    for (clients, markets, each) in [(1_000, 1, 1), (100, 1, 1), (500, 500, 20)] {
        let mut world = World::new(clients, markets, each);
        // Queues find their size.
        world.steady(2 * markets);
        let region = Region::new(ALLOCATOR);
        let work = world.steady(markets.max(100));
        let allocations = region.change().allocations;
        let followers = (clients * each / markets) as u64;
        assert_eq!(work.deliveries, work.changes * followers);
        assert_eq!(work.bytes, work.deliveries * 150, "everybody is sent every change, once");
        let most = work.changes as usize * ALLOCATIONS_A_CHANGE;
        assert!(
            allocations <= most,
            "{allocations} allocations of {} changes to {followers} each",
            work.changes
        );
    }
}
