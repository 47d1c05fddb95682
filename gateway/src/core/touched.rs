//! Who may have something to send: whom something was queued for, and the readers of runs that grew.

use super::{Core, SessionId};

/// A session that may have something to send, and the subscription whose run grew, where it is that: it is told of it
/// right before it is written to, when it is near anyway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Touched {
    session: u32,
    /// `NO_NEWS` where it has something else to send.
    subscription: u32,
}

const NO_NEWS: u32 = u32::MAX;

impl Touched {
    /// The session.
    #[must_use]
    pub fn session(self) -> SessionId {
        self.session as SessionId
    }
}

fn in_order(mut touched: Vec<Touched>) -> Vec<Touched> {
    touched.sort_unstable();
    touched.dedup();
    touched
}

impl Core {
    /// Sessions that may have something to send since the last call, in their order, the readers of runs that grew included:
    /// each is to be told with [`Core::tell_news`] before it is planned.
    pub fn take_dirty(&mut self) -> Vec<Touched> {
        let fresh = std::mem::take(&mut self.fresh);
        let readers = fresh.iter().filter_map(|run| Some(self.locals.get(run)?.readers.len())).sum();
        let mut touched = self.queued(readers);
        for run in fresh {
            let Some(local) = self.locals.get_mut(&run) else { continue };
            local.is_fresh = false;
            let news = local.readers.iter().map(|&(session, subscription)| Touched { session, subscription });
            touched.extend(news);
        }
        in_order(touched)
    }

    /// The same, without those whose runs grew: they are told with the next [`Core::take_dirty`].
    pub fn take_touched(&mut self) -> Vec<Touched> {
        in_order(self.queued(0))
    }

    /// Whom something was queued for; there is room for others.
    fn queued(&mut self, others: usize) -> Vec<Touched> {
        let mut touched = Vec::with_capacity(self.dirty.len() + others);
        touched.extend(self.dirty.drain(..).map(|id| Touched { session: id as u32, subscription: NO_NEWS }));
        touched
    }

    /// Tells a session that the run of a subscription grew, where that is why it was touched.
    pub fn tell_news(&mut self, touched: Touched) {
        if touched.subscription != NO_NEWS
            && let Some(client) = self.clients.get_mut(touched.session())
        {
            client.session.notify(touched.subscription as usize);
        }
    }

    /// Looks at what [`Core::output`] will need, of sessions that come next: each is far apart in memory, and what several
    /// wait for is waited for once.
    pub fn look_ahead(&self, next: &[Touched]) {
        let mut before = None;
        for touched in next {
            // Several subscriptions of one are near each other.
            if before.replace(touched.session) == Some(touched.session) {
                continue;
            }
            if let Some(client) = self.clients.get(touched.session()) {
                let near = client.session.look_ahead(touched.subscription as usize);
                std::hint::black_box((near, client.wire));
            }
        }
    }
}
