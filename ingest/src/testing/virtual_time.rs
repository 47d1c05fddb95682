//! Virtual time and seeded chance for everything on one thread, so that a simulation of the real service is fast and can be
//! run again.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::ReusableBoxFuture;

use crate::clock::Steady;

thread_local! {
    /// The runtime's time at the beginning, and the Unix time (ms) that it stands for.
    static BEGAN: Cell<Option<(Instant, i64)>> = const { Cell::new(None) };
    static STEADY: RefCell<Steady> = RefCell::new(Steady::default());
    static SEEDED: RefCell<Option<SmallRng>> = const { RefCell::new(None) };
}

/// From now on this thread's clocks go with its runtime's time, which is to be paused, and its chance comes from a seed; until
/// the guard is dropped.
#[must_use]
pub fn begin(seed: u64, unix_ms: i64) -> VirtualTime {
    BEGAN.set(Some((Instant::now(), unix_ms)));
    STEADY.set(Steady::default());
    SEEDED.set(Some(SmallRng::seed_from_u64(seed)));
    VirtualTime { _private: () }
}

/// A thread that lives in virtual time.
#[derive(Debug)]
pub struct VirtualTime {
    _private: (),
}

impl VirtualTime {
    /// The clock on the wall is set: by so many ms. Time goes on as before.
    pub fn jump(&self, ms: i64) {
        BEGAN.set(BEGAN.get().map(|(at, unix)| (at, unix + ms)));
    }
}

impl Drop for VirtualTime {
    fn drop(&mut self) {
        BEGAN.set(None);
        SEEDED.set(None);
    }
}

/// The Unix time in ms, where this thread's is virtual.
pub(crate) fn now() -> Option<i64> {
    let (at, unix) = BEGAN.get()?;
    let passed = at.elapsed();
    let wall = unix * 1_000 + i64::try_from(passed.as_micros()).unwrap_or(i64::MAX);
    Some(STEADY.with_borrow_mut(|steady| steady.read(passed, wall)))
}

/// Chance, where this thread's comes from a seed.
pub(crate) fn random() -> Option<SmallRng> {
    SEEDED.with_borrow_mut(|seeded| seeded.as_mut().map(|rng| SmallRng::seed_from_u64(rng.random())))
}

/// A task that can be stopped as a process can: nothing of it runs, and its timers are late when it goes on.
pub(crate) struct Pausable<F> {
    task: Pin<Box<F>>,
    pause: watch::Receiver<bool>,
    changed: ReusableBoxFuture<'static, ()>,
}

async fn change(mut pause: watch::Receiver<bool>) {
    // Nobody can pause it any more: nothing changes.
    if pause.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

impl<F: Future> Pausable<F> {
    pub(crate) fn new(task: F, pause: watch::Receiver<bool>) -> Self {
        let changed = ReusableBoxFuture::new(change(pause.clone()));
        Self { task: Box::pin(task), pause, changed }
    }
}

impl<F: Future> Future for Pausable<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        loop {
            if !*self.pause.borrow_and_update()
                && let Poll::Ready(done) = self.task.as_mut().poll(context)
            {
                return Poll::Ready(done);
            }
            ready!(self.changed.poll(context));
            let next = change(self.pause.clone());
            self.changed.set(next);
        }
    }
}
