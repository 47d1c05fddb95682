//! A core: the sessions of one socket thread and the runs they read. Pure: the thread around it (`crate::worker`)
//! moves bytes and messages. A core never waits for the hub: what it asks goes out in order and is answered in order.

mod bases;
mod news;
mod refused;
mod scopes;
mod subscriptions;
mod touched;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use foldhash::fast::RandomState;
use slab::Slab;
use smallvec::SmallVec;
use tictac_proto::log::CATALOGUE;
use tictac_proto::model::{MarketId, View};
use tictac_proto::position::Position;
use tictac_proto::run::Run;
use tictac_proto::session::{Runs, Session};
use tictac_proto::wire::{CloseCode, Conflate, Down, Problem, Resume, Scope, Subscribed, Up};

use crate::hub::{Now, RunId, RunKey, Subject, ToCore, ToHub};
use crate::rights::Rights;
use crate::wires::Wire;
use bases::Bases;
use scopes::Scopes;

pub use touched::Touched;

/// The core's number of a session.
pub type SessionId = usize;

/// What a session may have.
#[derive(Debug, Clone, Copy)]
pub struct SessionLimits {
    /// Most subscriptions (market and view) of a session, those of its scopes included.
    pub subscriptions: usize,
    /// Most scopes (events, sports).
    pub scopes: usize,
}

/// A run as a core holds it.
#[derive(Debug)]
struct Local {
    key: RunKey,
    run: Run,
    shard: u16,
    source: Arc<str>,
    /// (session, subscription).
    readers: Vec<(u32, u32)>,
    /// Whether it grew since its readers were told.
    is_fresh: bool,
}

impl Local {
    /// Who reads it: sessions, and the subscription of each.
    fn readers(&self) -> impl Iterator<Item = (SessionId, usize)> + '_ {
        self.readers.iter().map(|(session, subscription)| (*session as SessionId, *subscription as usize))
    }
}

/// A session's subscription to a market as a view.
#[derive(Debug)]
struct Held {
    subscription: u32,
    run: u32,
    /// Its place among the run's readers.
    reader: u32,
    /// Whether it was asked for by name.
    direct: bool,
    /// The scopes that hold it; apart, as most are held by name.
    scopes: Option<Box<SmallVec<[Scope; 1]>>>,
}

impl Held {
    fn hold(&mut self, scope: Option<Scope>) {
        match scope {
            None => self.direct = true,
            Some(scope) if !self.is_in(&scope) => self.scopes.get_or_insert_default().push(scope),
            Some(_) => {}
        }
    }

    fn is_in(&self, scope: &Scope) -> bool {
        self.scopes.as_ref().is_some_and(|scopes| scopes.contains(scope))
    }

    /// Lets it go; whether nothing else holds it.
    fn let_go(&mut self, scope: Option<&Scope>) -> bool {
        match scope {
            None => self.direct = false,
            Some(scope) => {
                if let Some(scopes) = &mut self.scopes {
                    scopes.retain(|s| s != scope);
                }
            }
        }
        !self.direct && self.scopes.as_ref().is_none_or(|scopes| scopes.is_empty())
    }
}

/// A connection on this core.
#[derive(Debug)]
pub struct Client {
    /// Its cursors.
    pub session: Session,
    /// Its wire.
    pub wire: Wire,
    /// What it may see.
    pub rights: Rights,
    held: HashMap<(MarketId, View), Held, RandomState>,
    opening: HashSet<(MarketId, View), RandomState>,
    scopes: Vec<scopes::Held>,
    /// Whether it was told that a scope has more markets than it may subscribe.
    overflow_told: bool,
    /// Markets that it wished and was refused: of them nothing was seen. As many as it may subscribe.
    refused: HashSet<MarketId, RandomState>,
    /// By shard, where a market of the session was last told gone: positions below it would bring the market back.
    gone: HashMap<u16, Position, RandomState>,
    /// Apart, as it is hardly ever there.
    closing: Option<Box<(CloseCode, String)>>,
}

/// Where a subscription starts.
#[derive(Debug, Clone)]
enum Start {
    /// There; `None`: with a snapshot.
    At(Option<Position>),
    /// Where the client says that it stood, be it by shard: which one that is may be known only when the run is open.
    Resume(Arc<Resume>),
}

impl Start {
    fn of(&self, market: &str, shard: u16) -> Option<Position> {
        match self {
            Self::At(from) => *from,
            Self::Resume(resume) => resume.of(market, shard),
        }
    }
}

/// A wish that waits for its run to open.
#[derive(Debug, Clone)]
struct Opening {
    session: SessionId,
    id: i64,
    conflate: Conflate,
    from: Start,
    /// The scope that wishes it; `None` where it was asked for by name.
    scope: Option<Scope>,
}

/// The sessions and runs of one socket thread.
#[derive(Debug)]
pub struct Core {
    number: usize,
    limits: SessionLimits,
    /// Apart each, so that the slab's spare room is small.
    clients: Slab<Box<Client>>,
    locals: HashMap<RunId, Local, RandomState>,
    runs: HashMap<RunKey, RunId, RandomState>,
    /// What was asked of the hub, with who waits for it; nobody, where they left meanwhile.
    opening: HashMap<RunKey, Vec<Opening>, RandomState>,
    bases: Bases,
    scopes: Scopes,
    heads: HashMap<u16, Position, RandomState>,
    to_hub: Vec<ToHub>,
    dirty: Vec<SessionId>,
    /// Runs that grew since their readers were told.
    fresh: Vec<RunId>,
    /// Sessions that need a base.
    needy: Vec<SessionId>,
    /// When sources said the stops that came since they were taken, Unix ms.
    stops_said: Vec<i64>,
    /// Sessions that are to be closed.
    closing: usize,
}

/// Stops whose way is measured in one pass.
const MAX_STOPS_SAID: usize = 256;

/// The runs of a core, for its sessions.
#[derive(Debug)]
pub struct LocalRuns<'a>(&'a HashMap<RunId, Local, RandomState>);

impl Runs for LocalRuns<'_> {
    fn run(&self, id: usize) -> &Run {
        &self.0[&id].run
    }
}

impl Core {
    /// When sources said the stops that came since the last call, Unix ms.
    pub fn take_stops_said(&mut self) -> Vec<i64> {
        std::mem::take(&mut self.stops_said)
    }

    /// A core without sessions.
    #[must_use]
    pub fn new(number: usize, limits: SessionLimits) -> Self {
        Self {
            number,
            limits,
            clients: Slab::new(),
            locals: HashMap::default(),
            runs: HashMap::default(),
            opening: HashMap::default(),
            bases: Bases::default(),
            scopes: Scopes::default(),
            heads: HashMap::default(),
            to_hub: Vec::new(),
            dirty: Vec::new(),
            fresh: Vec::new(),
            needy: Vec::new(),
            stops_said: Vec::new(),
            closing: 0,
        }
    }

    /// A new connection. `pause_after`: see [`Session::new`].
    pub fn connect(&mut self, wire: Wire, rights: Rights, pause_after: Option<i64>, now: Now) -> SessionId {
        self.clients.insert(Box::new(Client {
            session: Session::new(now.mono, pause_after),
            wire,
            rights,
            held: HashMap::default(),
            opening: HashSet::default(),
            scopes: Vec::new(),
            overflow_told: false,
            refused: HashSet::default(),
            gone: HashMap::default(),
            closing: None,
        }))
    }

    /// What goes out to a connection ahead of everything else.
    pub fn begin(&mut self, id: SessionId, head: Bytes) {
        if let Some(client) = self.clients.get_mut(id) {
            client.session.begin(head);
        }
    }

    /// A connection ended.
    pub fn disconnect(&mut self, id: SessionId) {
        let Some(client) = self.clients.try_remove(id).map(|client| *client) else { return };
        self.closing -= usize::from(client.closing.is_some());
        let mut all: Vec<Held> = client.held.into_values().collect();
        all.sort_unstable_by_key(|h| h.run);
        for held in all {
            self.release(id, &held);
        }
        let named = client.opening.into_iter().map(|(market, view)| Subject::Market(market, view));
        for subject in named.chain([Subject::Catalogue]) {
            if let Some(waiting) = self.opening.get_mut(&RunKey { subject, wire: client.wire }) {
                waiting.retain(|o| o.session != id);
            }
        }
        for held in &client.scopes {
            self.scopes.unfollow(held.scope(), id);
        }
    }

    /// A connection.
    #[must_use]
    pub fn client(&self, id: SessionId) -> Option<&Client> {
        self.clients.get(id).map(|client| &**client)
    }

    /// How many of these a session holds already: asking for one again by name makes a snapshot.
    #[must_use]
    pub fn held_among(&self, id: SessionId, markets: &[MarketId], view: View) -> usize {
        let held =
            |m: &&MarketId| self.clients.get(id).is_some_and(|c| c.held.contains_key(&((*m).clone(), view)));
        markets.iter().filter(held).count()
    }

    /// Every connection's number.
    #[must_use]
    pub fn sessions(&self) -> Vec<SessionId> {
        self.clients.iter().map(|(id, _)| id).collect()
    }

    /// How many connections there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.clients.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    /// What to ask the hub, in this order.
    pub fn take_asks(&mut self) -> Vec<ToHub> {
        self.collect_needs();
        std::mem::take(&mut self.to_hub)
    }

    /// Whether [`Core::take_dirty`] has anybody.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        !self.dirty.is_empty() || !self.fresh.is_empty()
    }

    /// Why a session is to be closed, once what it is still owed has gone out.
    #[must_use]
    pub fn closing(&self, id: SessionId) -> Option<(CloseCode, &str)> {
        // Asked of every session in every pass, and hardly ever so.
        if self.closing == 0 {
            return None;
        }
        self.clients.get(id)?.closing.as_ref().map(|closing| (closing.0, closing.1.as_str()))
    }

    /// Marks a session to be closed.
    pub fn close(&mut self, id: SessionId, code: CloseCode, why: impl Into<String>) {
        if let Some(client) = self.clients.get_mut(id)
            && client.closing.is_none()
        {
            client.closing = Some(Box::new((code, why.into())));
            self.closing += 1;
            self.dirty.push(id);
        }
    }

    /// Queues a control frame.
    pub fn control(&mut self, id: SessionId, frame: Bytes) {
        let Some(client) = self.clients.get_mut(id) else { return };
        self.dirty.push(id);
        if !client.session.control(frame) {
            self.close(id, CloseCode::Slow, "too many answers wait to be read");
        }
    }

    /// Queues a message.
    pub fn tell(&mut self, id: SessionId, name: &str, message: &Down) {
        if let Some(client) = self.clients.get(id) {
            let frame = client.wire.frame(name, message);
            self.control(id, frame);
        }
    }

    /// A refusal, told to the client.
    pub fn refuse(&mut self, id: SessionId, problem: Problem) {
        self.tell(id, "err", &Down::Err(problem));
    }

    /// A message of a client.
    pub fn up(&mut self, id: SessionId, message: Up, now: Now) {
        match message {
            Up::Hello { .. } => {}
            Up::Ping { time, read } => {
                if let Some(client) = self.clients.get_mut(id) {
                    // It names our own clock on the wall, which may have been set back since: nobody has read the future.
                    let read = read.filter(|read| *read <= now.wall);
                    client.session.ping(time, read.map(|read| now.mono - (now.wall - read)), now.mono);
                    self.dirty.push(id);
                }
            }
            Up::Sub(subscribe) => self.subscribe(id, subscribe),
            Up::Unsub { id: _, scope, view } => self.unsubscribe(id, &scope, view),
            Up::Snapshot { market, view } => self.snapshot(id, &market, view),
        }
    }

    /// Where each shard of a session's subscriptions stands for it: the largest `n` at or below which everything that
    /// it subscribed was written. What a one-way client comes back with.
    #[must_use]
    pub fn resume_token(&self, id: SessionId) -> Vec<(u16, Position)> {
        let Some(client) = self.clients.get(id) else { return Vec::new() };
        let mut shards: SmallVec<[(u16, Position); 8]> = SmallVec::new();
        for held in client.held.values() {
            let Some(local) = self.locals.get(&(held.run as RunId)) else { continue };
            if !matches!(local.key.subject, Subject::Market(..)) || shards.iter().any(|s| s.0 == local.shard)
            {
                continue;
            }
            shards.push((local.shard, self.heads.get(&local.shard).copied().unwrap_or(Position::ZERO)));
        }
        // Of a market that is not open yet nothing was seen.
        if client.overflow_told {
            // Of which markets too many were wished is not kept: nothing is said of any shard.
            shards.clear();
        }
        for market in client.opening.iter().map(|(market, _)| market).chain(&client.refused) {
            match self.scopes.shard(market) {
                Some(shard) => shards.retain(|s| s.0 != shard),
                None => shards.clear(),
            }
        }
        for (run, at) in client.session.behind_runs(&LocalRuns(&self.locals)) {
            let Some(local) = self.locals.get(&run) else { continue };
            if let Some(shard) = shards.iter_mut().find(|s| s.0 == local.shard) {
                shard.1 = shard.1.min(at.unwrap_or(Position::ZERO));
            }
        }
        shards.retain(|s| client.gone.get(&s.0).is_none_or(|gone| *gone <= s.1));
        // What joined the catalogue later was not seen either.
        let catalogue = self.heads.get(&CATALOGUE).copied().unwrap_or(Position::ZERO);
        shards.push((CATALOGUE, catalogue));
        shards.sort_unstable();
        shards.into_iter().filter(|s| !s.1.is_zero()).collect()
    }

    /// A session with the runs it reads, to plan and to write.
    pub fn output<R>(
        &mut self,
        id: SessionId,
        f: impl FnOnce(&mut Session, Wire, &LocalRuns<'_>) -> R,
    ) -> Option<R> {
        let client = self.clients.get_mut(id)?;
        let result = f(&mut client.session, client.wire, &LocalRuns(&self.locals));
        if client.session.has_needs() {
            self.needy.push(id);
        }
        Some(result)
    }
}

/// What a subscription's first answer says.
fn subscribed(
    id: i64,
    key: &RunKey,
    local: (&Arc<str>, u16),
    conflate: Conflate,
    based: &ToCore,
    at: Position,
) -> Option<Down> {
    let (Subject::Market(market, view), ToCore::Based { how, stop, feed, .. }) = (&key.subject, based) else {
        return None;
    };
    Some(Down::Ok(Subscribed {
        id,
        market: market.clone(),
        view: *view,
        conflate,
        at,
        stop: *stop,
        shard: local.1,
        source: local.0.clone(),
        feed: *feed,
        how: *how,
    }))
}
