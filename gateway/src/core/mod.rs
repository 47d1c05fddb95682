//! A core: the sessions of one socket thread and the runs they read. Pure: the thread around it (`crate::worker`)
//! moves bytes and messages. A core never waits for the hub: what it asks goes out in order and is answered in order.

mod bases;
mod scopes;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use foldhash::fast::RandomState;
use slab::Slab;
use smallvec::SmallVec;
use tictac_proto::checksum::digest_key;
use tictac_proto::log::CATALOGUE;
use tictac_proto::model::{MarketId, View};
use tictac_proto::position::Position;
use tictac_proto::run::Run;
use tictac_proto::session::{Runs, Session};
use tictac_proto::wire::{
    CloseCode, Conflate, Down, ErrorCode, Problem, Resume, Scope, Subscribe, Subscribed, Up,
};

use crate::hub::{Now, RunId, RunKey, Subject, ToCore, ToHub};
use crate::rights::Rights;
use crate::wires::Wire;
use bases::Bases;
use scopes::Scopes;

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
    readers: Vec<(SessionId, usize)>,
}

/// A session's subscription to a market as a view.
#[derive(Debug)]
struct Held {
    subscription: usize,
    run: RunId,
    /// Its place among the run's readers.
    reader: usize,
    /// Whether it was asked for by name.
    direct: bool,
    /// The scopes that hold it.
    scopes: SmallVec<[Scope; 1]>,
}

impl Held {
    fn hold(&mut self, scope: Option<Scope>) {
        match scope {
            None => self.direct = true,
            Some(scope) if !self.scopes.contains(&scope) => self.scopes.push(scope),
            Some(_) => {}
        }
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
    /// By shard, where a market of the session was last told gone: positions below it would bring the market back.
    gone: HashMap<u16, Position, RandomState>,
    closing: Option<(CloseCode, String)>,
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
    clients: Slab<Client>,
    locals: HashMap<RunId, Local, RandomState>,
    runs: HashMap<RunKey, RunId, RandomState>,
    /// What was asked of the hub, with who waits for it; nobody, where they left meanwhile.
    opening: HashMap<RunKey, Vec<Opening>, RandomState>,
    bases: Bases,
    scopes: Scopes,
    heads: HashMap<u16, Position, RandomState>,
    to_hub: Vec<ToHub>,
    dirty: Vec<SessionId>,
    /// Sessions that need a base.
    needy: Vec<SessionId>,
}

struct LocalRuns<'a>(&'a HashMap<RunId, Local, RandomState>);

impl Runs for LocalRuns<'_> {
    fn run(&self, id: usize) -> &Run {
        &self.0[&id].run
    }
}

impl Core {
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
            needy: Vec::new(),
        }
    }

    /// A new connection. `pause_after`: see [`Session::new`].
    pub fn connect(&mut self, wire: Wire, rights: Rights, pause_after: Option<i64>, now: Now) -> SessionId {
        self.clients.insert(Client {
            session: Session::new(now.mono, pause_after),
            wire,
            rights,
            held: HashMap::default(),
            opening: HashSet::default(),
            scopes: Vec::new(),
            overflow_told: false,
            gone: HashMap::default(),
            closing: None,
        })
    }

    /// A connection ended.
    pub fn disconnect(&mut self, id: SessionId) {
        let Some(client) = self.clients.try_remove(id) else { return };
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
        self.clients.get(id)
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

    /// Sessions that may have something to send since the last call.
    pub fn take_dirty(&mut self) -> Vec<SessionId> {
        let mut dirty = std::mem::take(&mut self.dirty);
        dirty.sort_unstable();
        dirty.dedup();
        dirty
    }

    /// Why a session is to be closed, once what it is still owed has gone out.
    #[must_use]
    pub fn closing(&self, id: SessionId) -> Option<(CloseCode, &str)> {
        self.clients.get(id)?.closing.as_ref().map(|(code, why)| (*code, why.as_str()))
    }

    /// Marks a session to be closed.
    pub fn close(&mut self, id: SessionId, code: CloseCode, why: impl Into<String>) {
        if let Some(client) = self.clients.get_mut(id)
            && client.closing.is_none()
        {
            client.closing = Some((code, why.into()));
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
            Up::Ping { time } => {
                if let Some(client) = self.clients.get_mut(id) {
                    client.session.ping(time, now.mono);
                    self.dirty.push(id);
                }
            }
            Up::Sub(subscribe) => self.subscribe(id, subscribe),
            Up::Unsub { id: _, scope, view } => self.unsubscribe(id, &scope, view),
            Up::Snapshot { market, view } => self.snapshot(id, &market, view),
        }
    }

    /// Subscribes a session to the catalogue.
    pub fn subscribe_catalogue(&mut self, id: SessionId) {
        let Some(client) = self.clients.get(id) else { return };
        let key = RunKey { subject: Subject::Catalogue, wire: client.wire };
        let opening =
            Opening { session: id, id: 0, conflate: Conflate::Raw, from: Start::At(None), scope: None };
        self.open(key, opening);
    }

    fn subscribe(&mut self, id: SessionId, subscribe: Subscribe) {
        let Subscribe { id: request, scope, view, conflate, resume } = subscribe;
        match scope {
            Scope::Markets(markets) => {
                let resume = Arc::new(resume);
                for market in markets {
                    let from = Start::Resume(resume.clone());
                    self.subscribe_market(id, market, view, request, conflate, from, None);
                }
            }
            scope => self.subscribe_scope(id, scope, view, request, conflate, resume),
        }
    }

    #[allow(clippy::too_many_arguments, reason = "one row of a subscribe request")]
    fn subscribe_market(
        &mut self,
        id: SessionId,
        market: MarketId,
        view: View,
        request: i64,
        conflate: Conflate,
        from: Start,
        scope: Option<Scope>,
    ) {
        let Some(client) = self.clients.get_mut(id) else { return };
        let (event, sport) = self.scopes.of(&market);
        if !client.rights.allows(&market, event, sport) {
            if scope.is_none() {
                let why = format!("this connection may not see market {market:?}");
                self.refuse(id, problem(request, &market, ErrorCode::Forbidden, why, None, true));
            }
            return;
        }
        let key = RunKey { subject: Subject::Market(market.clone(), view), wire: client.wire };
        let opening = Opening { session: id, id: request, conflate, from, scope };
        if let Some(run) = client.held.get(&(market.clone(), view)).map(|h| h.run) {
            self.read(run, opening);
            return;
        }
        if client.opening.contains(&(market.clone(), view)) {
            self.open(key, opening);
            return;
        }
        if client.held.len() + client.opening.len() >= self.limits.subscriptions {
            // Of a scope's markets only the first that does not fit is told: thousands may follow.
            if opening.scope.is_some() && std::mem::replace(&mut client.overflow_told, true) {
                return;
            }
            let limit = self.limits.subscriptions;
            let why = format!("{limit} subscriptions are allowed; unsubscribe something first");
            self.refuse(id, problem(request, &market, ErrorCode::TooManySubscriptions, why, None, false));
            return;
        }
        client.opening.insert((market, view));
        self.open(key, opening);
    }

    fn open(&mut self, key: RunKey, opening: Opening) {
        if let Some(run) = self.runs.get(&key).copied() {
            self.read(run, opening);
            return;
        }
        // Asked once, however many come and go until the answer: a second answer could cross a close.
        let waiting = self.opening.entry(key.clone()).or_insert_with(|| {
            self.to_hub.push(ToHub::Open { core: self.number, key });
            Vec::new()
        });
        let same = |o: &Opening| o.session == opening.session && o.scope == opening.scope;
        if opening.scope.is_some() && waiting.iter().any(same) {
            // News of a market that is being opened is no new wish: the first one knows where the client comes from.
            return;
        }
        waiting.retain(|o| !same(o));
        waiting.push(opening);
    }

    /// Makes a session a reader of an open run.
    fn read(&mut self, run: RunId, opening: Opening) {
        let Some(local) = self.locals.get_mut(&run) else { return };
        let Some(client) = self.clients.get_mut(opening.session) else { return };
        let (digest, named) = match &local.key.subject {
            Subject::Market(market, view) => (Some(digest_key(market, *view)), Some((market.clone(), *view))),
            Subject::Catalogue => (None, None),
        };
        if let Some(held) = named.as_ref().and_then(|named| client.held.get_mut(named)) {
            // One cursor for overlapping wishes; the fastest rate wins.
            let by_name = opening.scope.is_none();
            held.hold(opening.scope);
            let subscription = held.subscription;
            let faster = client.session.conflate(subscription).unwrap_or_default().faster(opening.conflate);
            client.session.set_conflate(subscription, faster);
            if by_name {
                // Asked for again by name: answered with where it stands, by a fresh snapshot.
                self.bases.ok_for(run, opening.session, subscription, opening.id, faster);
                client.session.rebase(subscription);
                self.needy.push(opening.session);
            }
            return;
        }
        let from = named.as_ref().and_then(|(market, _)| opening.from.of(market, local.shard));
        let subscription = client.session.subscribe(run, digest, opening.conflate, from);
        let reader = local.readers.len();
        local.readers.push((opening.session, subscription));
        match named {
            Some(named) => {
                client.opening.remove(&named);
                let mut held = Held { subscription, run, reader, direct: false, scopes: SmallVec::new() };
                held.hold(opening.scope);
                client.held.insert(named, held);
                self.bases.ok_for(run, opening.session, subscription, opening.id, opening.conflate);
            }
            None => {
                let held = Held { subscription, run, reader, direct: true, scopes: SmallVec::new() };
                client.held.insert(local.key.name(), held);
            }
        }
        self.dirty.push(opening.session);
        self.needy.push(opening.session);
    }

    fn unsubscribe(&mut self, id: SessionId, scope: &Scope, view: View) {
        match scope {
            Scope::Markets(markets) => {
                for market in markets {
                    self.drop_hold(id, market, view, None);
                }
            }
            scope => self.unsubscribe_scope(id, scope, view),
        }
    }

    fn drop_hold(&mut self, id: SessionId, market: &MarketId, view: View, scope: Option<&Scope>) {
        let Some(client) = self.clients.get_mut(id) else { return };
        let name = (market.clone(), view);
        if client.opening.contains(&name) {
            let key = RunKey { subject: Subject::Market(market.clone(), view), wire: client.wire };
            let waiting = self.opening.get_mut(&key);
            let wanted = waiting.is_some_and(|waiting| {
                waiting.retain(|o| o.session != id || o.scope.as_ref() != scope);
                waiting.iter().any(|o| o.session == id)
            });
            if !wanted {
                client.opening.remove(&name);
            }
        }
        let Some(held) = client.held.get_mut(&name) else { return };
        match scope {
            Some(scope) => held.scopes.retain(|s| s != scope),
            None => held.direct = false,
        }
        if held.direct || !held.scopes.is_empty() {
            return;
        }
        if let Some(held) = client.held.remove(&name) {
            client.session.unsubscribe(held.subscription);
            self.release(id, &held);
        }
    }

    /// A session reads a run no more. The last reader takes its place.
    fn release(&mut self, session: SessionId, held: &Held) {
        let run = held.run;
        self.bases.forget(run, session, held.subscription);
        let Some(local) = self.locals.get_mut(&run) else { return };
        debug_assert_eq!(local.readers.get(held.reader), Some(&(session, held.subscription)));
        local.readers.swap_remove(held.reader);
        if let Some((moved, _)) = local.readers.get(held.reader)
            && let Some(other) = self.clients.get_mut(*moved).and_then(|c| c.held.get_mut(&local.key.name()))
        {
            other.reader = held.reader;
        }
        if local.readers.is_empty() {
            self.bases.forget_run(run);
            self.close_local(run);
        }
    }

    fn snapshot(&mut self, id: SessionId, market: &MarketId, view: View) {
        let Some(client) = self.clients.get_mut(id) else { return };
        match client.held.get(&(market.clone(), view)) {
            Some(held) => {
                client.session.rebase(held.subscription);
                self.needy.push(id);
            }
            // Its first snapshot is under way.
            None if client.opening.contains(&(market.clone(), view)) => {}
            None => {
                let why = format!(
                    "market {market:?} is not subscribed with view {}: send `sub` first",
                    view.code()
                );
                let unasked = problem(0, market, ErrorCode::BadRequest, why, None, false);
                self.refuse(id, Problem { id: None, ..unasked });
            }
        }
    }

    /// What the hub tells.
    pub fn handle(&mut self, message: ToCore) {
        match message {
            ToCore::Opened { key, run, shard, source, head } => {
                let waiting = self.opening.remove(&key).unwrap_or_default();
                if !self.locals.contains_key(&run) {
                    self.runs.insert(key.clone(), run);
                    let local = Local { key, run: Run::new(head), shard, source, readers: Vec::new() };
                    self.locals.insert(run, local);
                }
                for opening in waiting {
                    self.read(run, opening);
                }
                if self.locals.get(&run).is_some_and(|l| l.readers.is_empty()) {
                    self.close_local(run);
                }
            }
            ToCore::Refused { key, code, why, retry } => {
                let Subject::Market(market, view) = &key.subject else { return };
                for opening in self.opening.remove(&key).unwrap_or_default() {
                    if let Some(client) = self.clients.get_mut(opening.session) {
                        client.opening.remove(&(market.clone(), *view));
                    }
                    let problem = problem(opening.id, market, code, why.clone(), retry, false);
                    self.refuse(opening.session, problem);
                }
            }
            ToCore::Frame { run, bytes, seq, urgent } => {
                let Some(local) = self.locals.get_mut(&run) else { return };
                local.run.push(&bytes, seq, urgent);
                for (session, subscription) in &local.readers {
                    self.clients[*session].session.notify(*subscription);
                    self.dirty.push(*session);
                }
            }
            ToCore::Reset { run, head } => {
                let Some(local) = self.locals.get_mut(&run) else { return };
                local.run.reset(head);
                for (session, subscription) in &local.readers {
                    self.clients[*session].session.notify(*subscription);
                    self.dirty.push(*session);
                }
            }
            ToCore::Stop { run, bytes } => {
                let Some(local) = self.locals.get(&run) else { return };
                for (session, subscription) in &local.readers {
                    let cursors = &mut self.clients[*session].session;
                    // Again with a base that waits: who has only subscribed an event may not know the market yet.
                    cursors.before_base(*subscription, &bytes);
                    cursors.stop(*subscription, bytes.clone());
                    self.dirty.push(*session);
                }
            }
            ToCore::Based { .. } => self.based(message),
            ToCore::Gone { run, at, bytes } => self.gone(run, at, &bytes),
            ToCore::Feed { news, frames } => {
                let mut told: Vec<SessionId> = Vec::new();
                for local in self.locals.values() {
                    if local.shard == news.shard && local.source == news.source {
                        for (session, subscription) in &local.readers {
                            // A snapshot that waits says how the feed stood when it was made.
                            let client = &mut self.clients[*session];
                            client.session.after_base(*subscription, &frames[client.wire as usize]);
                            told.push(*session);
                        }
                    }
                }
                told.sort_unstable();
                told.dedup();
                for session in told {
                    let wire = self.clients[session].wire;
                    self.control(session, frames[wire as usize].clone());
                }
            }
            ToCore::Head { shard, at, .. } => {
                self.heads.insert(shard, at);
            }
            ToCore::Beat => {}
            ToCore::Joined { market, event, sport, since } => self.joined(market, event, sport, since),
            ToCore::Left { market } => self.scopes.left(&market),
        }
    }

    fn close_local(&mut self, run: RunId) {
        if let Some(local) = self.locals.remove(&run) {
            self.runs.remove(&local.key);
            self.to_hub.push(ToHub::Close { core: self.number, run });
        }
    }

    fn gone(&mut self, run: RunId, at: Position, bytes: &Bytes) {
        let Some(local) = self.locals.remove(&run) else { return };
        self.runs.remove(&local.key);
        self.bases.forget_run(run);
        let Subject::Market(market, view) = &local.key.subject else { return };
        for (session, subscription) in local.readers {
            let client = &mut self.clients[session];
            client.held.remove(&(market.clone(), *view));
            let fits = client.session.end(subscription);
            let floor = client.gone.entry(local.shard).or_insert(at);
            *floor = at.max(*floor);
            self.control(session, bytes.clone());
            if !fits {
                self.close(session, CloseCode::Slow, "too many stops wait to be read");
            }
        }
    }

    /// Where each shard of a session's subscriptions stands for it: the largest `n` at or below which everything that
    /// it subscribed was written. What a one-way client comes back with.
    #[must_use]
    pub fn resume_token(&self, id: SessionId) -> Vec<(u16, Position)> {
        let Some(client) = self.clients.get(id) else { return Vec::new() };
        let mut shards: SmallVec<[(u16, Position); 8]> = SmallVec::new();
        for held in client.held.values() {
            let Some(local) = self.locals.get(&held.run) else { continue };
            if !matches!(local.key.subject, Subject::Market(..)) || shards.iter().any(|s| s.0 == local.shard)
            {
                continue;
            }
            shards.push((local.shard, self.heads.get(&local.shard).copied().unwrap_or(Position::ZERO)));
        }
        // Of a market that is not open yet nothing was seen.
        for (market, _) in &client.opening {
            match self.scopes.shard(market) {
                Some(shard) => shards.retain(|s| s.0 != shard),
                None => shards.clear(),
            }
        }
        for (run, at) in client.session.behind_runs() {
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
    pub fn output<R>(&mut self, id: SessionId, f: impl FnOnce(&mut Session, &dyn Runs) -> R) -> Option<R> {
        let client = self.clients.get_mut(id)?;
        let result = f(&mut client.session, &LocalRuns(&self.locals));
        if client.session.has_needs() {
            self.needy.push(id);
        }
        Some(result)
    }
}

fn problem(
    id: i64,
    market: &MarketId,
    code: ErrorCode,
    why: String,
    retry: Option<u64>,
    fatal: bool,
) -> Problem {
    Problem { id: Some(id), market: Some(market.clone()), code, why, retry, fatal }
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
