// The client: one connection, kept or replaced; subscriptions, counted; books, followed; and what may be traded now.
//
//   const client = new OddsClient('https://odds.example');
//   const market = client.market('1.234', { view: 3 });
//   market.onChange((book) => …);      market.tradable; market.position  // the price token of a bet
//   client.on('state', ({ state }) => …);      client.connect();
//
// Books: follower.js. Liveness and clocks: liveness.js. Sockets and streams: transport.js. Contract: proto/PROTOCOL.md.

import { mix } from './checksum.js';
import { compare } from './follower.js';
import { Liveness } from './liveness.js';
import { Channel, MarketSub, ScopeSub } from './subscription.js';
import { json, openEventStream, openWebSocket } from './transport.js';

/**
 * @typedef {'idle'|'connecting'|'live'|'stalled'|'backoff'|'closed'|'failed'} State
 * @typedef {import('./follower.js').Position} Position
 * @typedef {1|3|10|'all'} View
 * @typedef {object} Options
 * @property {('ws'|'sse')[]} [transports] in order of preference
 * @property {'json'|'msgpack'|import('./transport.js').Codec} [codec]
 * @property {() => Promise<string>|string} [auth] gives a token, once a connection
 * @property {number} [heartbeat] a wish, ms, 500–5000
 * @property {{minMs: number, maxMs: number}} [backoff]
 * @property {Partial<Environment>} [env] for tests
 * @typedef {object} Environment
 * @property {any} WebSocket @property {any} EventSource @property {any} fetch
 * @property {() => number} now wall clock, ms @property {() => number} mono monotonic clock, ms
 * @property {any} setTimeout @property {any} clearTimeout @property {() => number} random
 * @property {EventTarget|null} window @property {EventTarget & {visibilityState?: string}|null} document
 */

const NEVER = new Set([4400, 4403, 4409, 4413]);
const CONFLATE = ['auto', 250, 500, 1000];
const OPEN_MS = 5000;
const PROBE_MS = 2000;
const ASK_AGAIN_MS = 3000;
const BACK_TO_WS_MS = 300_000;
const STEADY_MS = 5000;
const SUB_MARKETS = 64;

/** @returns {Environment} */
function browser() {
  const g = /** @type {any} */ (globalThis);
  return {
    WebSocket: g.WebSocket,
    EventSource: g.EventSource,
    fetch: g.fetch?.bind(g),
    now: () => Date.now(),
    mono: () => performance.now(),
    setTimeout: g.setTimeout.bind(g),
    clearTimeout: g.clearTimeout.bind(g),
    random: Math.random,
    window: g.window ?? null,
    document: g.document ?? null,
  };
}

export class OddsClient {
  /** @type {State} */ state = 'idle';
  /** What is offered: summary fields by market id. @type {Map<string, Record<string, any>>} */ catalogue = new Map();
  stats = {
    transport: /** @type {string|null} */ (null), messages: 0, bytes: 0, gaps: 0, resyncs: 0, connects: 0,
    checksums: 0, checksumMismatches: 0, digestMismatches: 0, behind: 0,
  };
  /** When the session's quietest source was last heard, the server's Unix ms. @type {number|null} */ asOf = null;
  /** @type {Record<string, number>} */ limits = {};

  #env; #url; #options; #codec; #liveness;
  #links = /** @type {any[]} */ ([]);
  #channels = /** @type {Map<string, Channel>} */ (new Map());
  #scopes = /** @type {Set<ScopeSub>} */ (new Set());
  #feeds = /** @type {Map<string, string>} */ (new Map());
  #requests = new Map();
  #listeners = new Map();
  #ages = { at: 0, ring: new Float64Array(512), count: 0 };
  #attempt = 0; #wsFailures = 0; #fellBackAt = 0; #slow = 0; #nextId = 1;
  #session = 0; #openedAt = 0; #heardAt = 0; #welcomed = false; #wasLive = false;
  #pingedAt = -Infinity; #probe = null; #tick = { mono: 0, wall: 0 };
  #timers = { tick: null, retry: null, reopen: null };
  /** Of streams that ended, by their address. */ #cursors = new Map();
  /** When each stream's last heartbeat came, by view. */ #beats = new Map();
  #askingTime = false;
  #dirtyKeys = new Set(); #flushing = false; #digestAfter = Infinity; #digestPausedUntil = 0; #retryMs = 0;
  #wake = () => this.#onWake();

  /** @param {string} url the gateway, `https://host` @param {Options} [options] */
  constructor(url, options = {}) {
    this.#url = url.replace(/\/$/, '');
    this.#options = { transports: ['ws', 'sse'], backoff: { minMs: 500, maxMs: 20_000 }, ...options };
    this.#env = { ...browser(), ...options.env };
    this.#codec = options.codec ?? 'json';
    this.#liveness = new Liveness(this.#env);
  }

  // ---- what a page uses

  connect() {
    if (!['idle', 'closed', 'failed'].includes(this.state)) return;
    const { window, document } = this.#env;
    for (const name of ['online', 'pageshow']) window?.addEventListener(name, this.#wake);
    for (const name of ['visibilitychange', 'resume']) document?.addEventListener(name, this.#wake);
    this.#attempt = this.#wsFailures = 0;
    this.#env.clearTimeout(this.#timers.tick);
    this.#mark();
    this.#open();
    this.#onTick();
  }

  close() {
    const { window, document } = this.#env;
    for (const name of ['online', 'pageshow']) window?.removeEventListener(name, this.#wake);
    for (const name of ['visibilitychange', 'resume']) document?.removeEventListener(name, this.#wake);
    this.#hangUp();
    for (const name in this.#timers) this.#env.clearTimeout(this.#timers[name]);
    this.#set('closed');
  }

  /** Replaces the connection now. */
  reconnect() {
    if (this.state === 'closed' || this.state === 'idle') return this.connect();
    this.#attempt = 0;
    this.#open();
  }

  /**
   * Subscribes to a market, or joins a subscription that is there.
   * @param {string} id @param {{view?: View, conflate?: 'raw'|'auto'|number, from?: Position}} [options]
   */
  market(id, options = {}) {
    const view = options.view === 'all' ? 0 : options.view ?? 3;
    return new MarketSub(this, this.#channel(id, view, options.conflate));
  }

  /** Subscribes to all markets of an event or a sport. @param {{event?: string, sport?: string}} what @param {{view?: View}} [options] */
  scope(what, options = {}) {
    const view = options.view === 'all' ? 0 : options.view ?? 3;
    const scope = new ScopeSub(this, what.event !== undefined ? { event: what.event } : { sport: what.sport }, view);
    this.#scopes.add(scope);
    this.#changed();
    return scope;
  }

  /**
   * `state` {state, prev, code?, reason?, retryInMs?}; `catalogue` {full, changed, gone}; `feed` {source, shard, feed};
   * `heartbeat` {}; `error` {code, why, market?, fatal}.
   * @param {string} name @param {(event: any) => void} listener @returns {() => void} takes the listener away
   */
  on(name, listener) {
    if (!this.#listeners.has(name)) this.#listeners.set(name, new Set());
    this.#listeners.get(name).add(listener);
    return () => this.#listeners.get(name).delete(listener);
  }

  /** Whether the connection is live now. */
  get live() {
    if (!this.#welcomed || !this.#liveness.live) return false;
    const oldest = this.#env.mono() - 2.5 * this.#liveness.interval;
    return [...this.#beats.values()].every((at) => at >= oldest);
  }

  /** Newest round trip, ms. */
  get rtt() {
    return this.#liveness.rtt;
  }

  /** Age of the newest proof that the connection is live, ms. */
  get connectionAge() {
    return this.#liveness.age;
  }

  /** The server's clock as far as known, Unix ms; `null` before the first measurement. */
  get serverNow() {
    return this.#liveness.synced ? this.#liveness.serverNow() : null;
  }

  /** How old data was on arrival, source to here, clock corrected: ms at the median and the 99th percentile. */
  get dataAge() {
    const { ring, count } = this.#ages;
    const sorted = ring.slice(0, Math.min(count, ring.length)).sort();
    const at = (q) => (sorted.length ? sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))] : null);
    return { p50: at(0.5), p99: at(0.99) };
  }

  // ---- for subscriptions

  /** @returns {string} the feed state of a channel's source */
  feedOf(channel) {
    return this.#feeds.get(`${channel.source}|${channel.shard}`) ?? channel.feed ?? 'down';
  }

  /** @internal */
  release(channel) {
    if (channel.subs.size || channel.scope || this.#channels.get(channel.key) !== channel) return;
    this.#channels.delete(channel.key);
    if (!channel.follower.gone) this.#send({ t: 'unsub', id: this.#nextId++, markets: [channel.market], w: channel.view });
    this.#digestAfter = Infinity;
  }

  /** @internal */
  releaseScope(scope) {
    if (!this.#scopes.delete(scope)) return;
    this.#send({ t: 'unsub', id: this.#nextId++, ...scope.what, w: scope.view });
    for (const channel of this.#channels.values()) {
      if (channel.scope !== scope) continue;
      channel.scope = null;
      if (!channel.subs.size) this.#channels.delete(channel.key);
      else this.#dirty(channel);
    }
    this.#digestAfter = Infinity;
    this.#reopenStreams();
  }

  #channel(id, view, conflate, scope = null) {
    const key = `${id}|${view}`;
    let channel = this.#channels.get(key);
    if (!channel) {
      channel = new Channel(id, view, conflate ?? 'auto', scope);
      this.#channels.set(key, channel);
      if (!scope) this.#dirty(channel);
    }
    return channel;
  }

  #dirty(channel) {
    this.#dirtyKeys.add(channel);
    this.#changed();
  }

  /** New subscriptions of one turn go up together. */
  #changed() {
    if (this.#flushing) return;
    this.#flushing = true;
    queueMicrotask(() => {
      this.#flushing = false;
      if (this.#links[0]?.kind === 'sse') return this.#reopenStreams();
      if (!this.#welcomed) return;
      this.#subscribe([...this.#dirtyKeys].filter((c) => this.#channels.get(c.key) === c));
      this.#subscribeScopes([...this.#scopes].filter((s) => !s.sent));
    });
  }

  #subscribe(channels) {
    this.#dirtyKeys.clear();
    const groups = new Map();
    for (const channel of channels) {
      const conflate = this.#conflate(channel.conflate);
      const name = `${channel.view}|${conflate}`;
      if (!groups.has(name)) groups.set(name, []);
      groups.get(name).push(channel);
    }
    for (const group of groups.values()) {
      for (let i = 0; i < group.length; i += SUB_MARKETS) {
        const part = group.slice(i, i + SUB_MARKETS);
        this.#request(part, { markets: part.map((c) => c.market), w: part[0].view, conflate: this.#conflate(part[0].conflate) });
      }
    }
  }

  #subscribeScopes(scopes) {
    for (const scope of scopes) {
      scope.sent = true;
      const held = [...this.#channels.values()].filter((c) => c.scope === scope).slice(0, SUB_MARKETS);
      this.#request(held, { ...scope.what, w: scope.view, conflate: this.#conflate('auto') }, scope);
    }
  }

  #request(channels, body, scope = null) {
    const id = this.#nextId++;
    const from = {};
    for (const { follower, market } of channels) {
      if (follower.book && !follower.gap) from[market] = follower.position;
    }
    const message = { t: 'sub', id, ...body };
    if (Object.keys(from).length) message.from = from;
    this.#requests.set(id, { scope, channels });
    this.#digestAfter = Infinity;
    this.#send(message);
  }

  /** After a close for slowness, no faster than this. */
  #conflate(wish) {
    const floor = CONFLATE[Math.min(this.#slow, CONFLATE.length - 1)];
    if (floor === 'auto') return wish;
    return typeof wish === 'number' ? Math.max(wish, /** @type {number} */ (floor)) : floor;
  }

  // ---- the connection

  #send(message) {
    return !!this.#welcomed && !!this.#links[0]?.send?.(message);
  }

  #hangUp() {
    this.#session++;
    for (const link of this.#links) link.close();
    if (this.#links.length) this.#cursors = new Map(this.#links.filter((l) => l.cursor).map((l) => [l.query, l.cursor]));
    this.#links = [];
    this.#beats.clear();
    this.#welcomed = this.#wasLive = false;
    this.#probe = null;
    this.#liveness.reset();
    this.#requests.clear();
    this.#feeds.clear();
    this.#digestAfter = Infinity;
    for (const scope of this.#scopes) scope.sent = false;
    for (const channel of this.#channels.values()) Object.assign(channel, { pending: true, taken: false, askedAt: null });
    this.#env.clearTimeout(this.#timers.retry);
    this.#env.clearTimeout(this.#timers.reopen);
  }

  async #open() {
    this.#hangUp();
    const session = this.#session;
    this.#openedAt = this.#heardAt = this.#env.mono();
    this.#set('connecting');
    this.stats.connects++;
    const kind = this.#choose();
    this.stats.transport = kind;
    try {
      if (kind === 'sse') return this.#openStreams(this.#cursors);
      const codec = typeof this.#codec === 'object' ? this.#codec : this.#codec === 'msgpack' ? (await import('./msgpack.js')).msgpack : json;
      const auth = await this.#options.auth?.();
      if (session !== this.#session) return;
      const hello = { t: 'hello', v: 1, ...(auth && { auth }), ...(this.#options.heartbeat && { hb: this.#options.heartbeat }) };
      const link = openWebSocket(this.#env, this.#url, codec, this.#sink(session, () => link.send?.(hello)));
      this.#links = [link];
    } catch (error) {
      if (session === this.#session) this.#lost(1006, String(error));
    }
  }

  #choose() {
    const transports = this.#options.transports.filter((t) => (t === 'ws' ? this.#env.WebSocket : this.#env.EventSource));
    if (this.#fellBackAt && this.#env.mono() - this.#fellBackAt > BACK_TO_WS_MS) this.#wsFailures = this.#fellBackAt = 0;
    if (this.#wsFailures >= 2 && transports.length > 1) {
      this.#fellBackAt ||= this.#env.mono();
      return transports[1];
    }
    return transports[0] ?? 'ws';
  }

  #sink(session, open, view = -1) {
    const mine = () => session === this.#session;
    return {
      open: () => mine() && open?.(),
      message: (message, bytes) => {
        if (!mine()) return;
        if (view >= 0 && message.t === 'hb') this.#beats.set(view, this.#env.mono());
        this.#receive(message, bytes);
      },
      closed: (code, reason) => mine() && this.#lost(code, reason),
    };
  }

  /** One stream for each view that is wanted: a stream's address is its subscription. */
  #openStreams(cursors = new Map()) {
    if (!this.#liveness.synced || !this.live) this.#askTime();
    const views = new Map([...this.#channels.values()].filter((c) => !c.scope).map((c) => [c.view, []]));
    for (const scope of this.#scopes) views.set(scope.view, []);
    if (!views.size) views.set(3, []);
    for (const channel of this.#channels.values()) if (!channel.scope) views.get(channel.view).push(channel);
    for (const [view, channels] of views) {
      const query = new URLSearchParams();
      for (const channel of channels) query.append('market', channel.market);
      for (const scope of this.#scopes) {
        if (scope.view !== view) continue;
        for (const name in scope.what) query.append(name, scope.what[name]);
      }
      query.set('view', view === 0 ? 'all' : String(view));
      const floor = this.#conflate('auto');
      if (floor !== 'auto') query.set('conflate', String(floor));
      const address = String(query);
      const whole = [...this.#channels.values()].every((c) => c.view !== view || (c.follower.book && !c.follower.gap));
      if (whole && cursors.has(address)) query.set('cursor', cursors.get(address));
      const link = openEventStream(this.#env, this.#url, query, this.#sink(this.#session, null, view));
      this.#beats.set(view, this.#env.mono());
      this.#links.push(Object.assign(link, { query: address }));
    }
    this.#dirtyKeys.clear();
    this.#heardAt = this.#env.mono();
  }

  /** The set of subscriptions changed, or a book is broken: other streams, from snapshots, a moment later. */
  #reopenStreams(delay = 30) {
    if (this.#links[0]?.kind !== 'sse') return;
    this.#env.clearTimeout(this.#timers.reopen);
    this.#timers.reopen = this.#env.setTimeout(() => {
      if (this.#links[0]?.kind !== 'sse') return;
      for (const link of this.#links) link.close();
      this.#links = [];
      this.#beats.clear();
      this.#session++;
      for (const channel of this.#channels.values()) Object.assign(channel, { pending: true, taken: false, askedAt: null });
      this.#openStreams();
    }, delay);
  }

  async #askTime() {
    if (this.#askingTime) return;
    this.#askingTime = true;
    const { mono } = this.#env;
    const sent = mono();
    try {
      const answer = await (await this.#env.fetch(`${this.#url}/v1/time`, { cache: 'no-store' })).json();
      const now = typeof answer === 'number' ? answer : answer.now;
      if (Number.isFinite(now)) this.#liveness.measured(mono() - sent, now);
    } catch {
      // The stream's own failure is what is told; the next tick asks again.
    } finally {
      this.#askingTime = false;
    }
  }

  #lost(code, reason) {
    const steady = this.#welcomed && this.#env.mono() - this.#openedAt > STEADY_MS;
    if (!this.#welcomed && this.stats.transport === 'ws') this.#wsFailures++;
    this.#hangUp();
    if (NEVER.has(code)) return this.#set('failed', { code, reason });
    if (steady) this.#attempt = 0;
    if (code === 4290) this.#slow++;
    const { minMs, maxMs } = this.#options.backoff;
    let wait = this.#env.random() * Math.min(maxMs, minMs * 2 ** this.#attempt);
    if (code === 4408 && steady) wait = 0;
    if (code === 1002 || code === 1007 || code === 4429) wait += 5000;
    wait += this.#retryMs;
    this.#retryMs = 0;
    this.#attempt = Math.min(this.#attempt + 1, 16);
    this.#set('backoff', { code, reason, retryInMs: Math.round(wait) });
    this.#timers.retry = this.#env.setTimeout(() => this.#open(), wait);
  }

  /** The link is dead, whatever its `readyState` says: another one at once, by backoff if that was tried just now. */
  #replace(reason) {
    if (!this.#welcomed || this.#env.mono() - this.#openedAt < STEADY_MS) return this.#lost(1006, reason);
    this.#attempt = 0;
    this.#open();
  }

  get #isUp() {
    return this.state === 'connecting' || this.state === 'live' || this.state === 'stalled';
  }

  // ---- time

  #mark() {
    this.#tick = { mono: this.#env.mono(), wall: this.#env.now() };
  }

  #onTick() {
    this.#timers.tick = this.#env.setTimeout(() => this.#onTick(), this.#liveness.interval / 2);
    const { mono, wall } = this.#tick;
    const slept = Math.max(this.#env.mono() - mono, this.#env.now() - wall) > 10_000;
    this.#mark();
    if (!this.#isUp) return void (slept && this.#onWake());
    if (slept) this.#onWake();
    else if (this.#env.mono() - this.#pingedAt >= this.#liveness.interval * 0.95) this.#ping();
    if (this.#links[0]?.kind === 'sse' && !this.live) void this.#askTime();
    for (const channel of this.#channels.values()) {
      if (channel.askedAt !== null && this.#env.mono() - channel.askedAt > ASK_AGAIN_MS) this.#ask(channel);
    }
    this.#check();
  }

  #ping() {
    if (!this.#welcomed || !this.#links[0]?.send) return;
    this.#pingedAt = this.#env.mono();
    const time = this.#liveness.ping();
    if (this.#digestAfter === Infinity) this.#digestAfter = time;
    this.#send({ t: 'ping', time });
  }

  #onWake() {
    if (this.#env.document?.visibilityState === 'hidden') return;
    if (this.state === 'backoff') return this.#open();
    if (!this.#welcomed || this.#probe) return;
    this.#probe = { at: this.#env.mono() };
    this.#ping();
    this.#env.setTimeout(() => this.#check(), PROBE_MS + 1);
  }

  /** Is the connection live, and worth keeping? */
  #check() {
    if (!this.#isUp) return;
    const now = this.#env.mono();
    const bound = 2.5 * this.#liveness.interval;
    if (!this.#welcomed) return now - this.#openedAt > OPEN_MS ? this.#lost(1006, 'open but silent') : undefined;
    if (this.#probe) {
      if (this.#heardAt > this.#probe.at) this.#probe = null;
      else if (now - this.#probe.at > PROBE_MS) return this.#replace('no answer after waking up');
    }
    if (this.live) {
      this.#wasLive = true;
      return this.#set('live');
    }
    if (this.#wasLive) this.#set('stalled');
    const silent = now - this.#heardAt;
    // Old heartbeats that still come mean a slow link, which a new one would not cure at once.
    if (silent > bound || (this.#wasLive ? this.#liveness.age : now - this.#openedAt) > 4 * bound) this.#replace('no sign of life');
  }

  #set(state, more = {}) {
    if (state === this.state) return;
    const prev = this.state;
    this.state = state;
    this.#emit('state', { state, prev, transport: this.stats.transport, ...more });
  }

  #emit(name, event) {
    for (const listener of this.#listeners.get(name) ?? []) listener(event);
  }

  // ---- messages

  #receive(message, bytes) {
    this.stats.messages++;
    this.stats.bytes += bytes;
    this.#heardAt = this.#env.mono();
    switch (message.t) {
      case 'welcome':
        return this.#welcome(message);
      case 'hb':
        return this.#heartbeat(message);
      case 'ok':
        return this.#taken(message);
      case 'feed':
        return this.#feed(message.src, message.sh, message.f);
      case 'catalogue':
        return this.#listed(message);
      case 'err':
        return this.#refused(message);
      case 'bye':
        this.#retryMs = message.retry ?? 0;
        return this.#lost(message.code ?? 1012, message.why ?? '');
      case 'stop':
        for (const channel of this.#channels.values()) if (channel.market === message.m) this.#follow(channel, message);
        return;
      case 'gone':
        for (const channel of [...this.#channels.values()]) if (channel.market === message.m) this.#follow(channel, message);
        return;
      default: {
        const channel = this.#channels.get(`${message.m}|${message.w}`);
        if (channel) this.#follow(channel, message);
      }
    }
  }

  #welcome({ hb, limits }) {
    const first = !this.#welcomed;
    if (hb) this.#liveness.interval = hb;
    this.limits = limits ?? {};
    this.#welcomed = true;
    this.#wsFailures = this.stats.transport === 'ws' ? 0 : this.#wsFailures;
    if (!first || !this.#links[0]?.send) return;
    this.#subscribe([...this.#channels.values()].filter((c) => !c.scope));
    this.#subscribeScopes([...this.#scopes]);
    this.#ping();
  }

  #heartbeat({ now, echo, behind, as, dg }) {
    const oneWay = !this.#links[0]?.send;
    if (oneWay) this.#liveness.heard(now);
    else if (echo !== undefined) this.#liveness.echo(echo, now);
    this.stats.behind = behind ?? 0;
    this.asOf = as ?? null;
    if (!oneWay && echo !== undefined && echo >= this.#digestAfter) this.#compareDigest(dg);
    // A hidden tab's timers are throttled, its messages are not.
    if (echo === undefined && this.#env.mono() - this.#pingedAt >= this.#liveness.interval * 0.95) this.#ping();
    this.#check();
    this.#emit('heartbeat', {});
  }

  #compareDigest(theirs) {
    let mine = 0;
    for (const { follower, pending, digest } of this.#channels.values()) {
      if (follower.gap || pending) return;
      if (follower.position && !follower.gone) mine = (mine + mix(digest, follower.position[1])) >>> 0;
    }
    if (theirs === undefined || mine === theirs || this.#env.mono() < this.#digestPausedUntil) return;
    this.stats.digestMismatches++;
    this.#digestPausedUntil = this.#env.mono() + 10_000;
    for (const channel of this.#channels.values()) {
      channel.follower.gap = true;
      this.#gapped(channel);
    }
  }

  #taken(message) {
    const request = this.#requests.get(message.id);
    if (message.m === undefined) return;
    const key = `${message.m}|${message.w}`;
    const scope = request?.scope && this.#scopes.has(request.scope) ? request.scope : this.#scopeFor(message);
    if (!this.#channels.has(key) && !scope) return;
    const channel = this.#channel(message.m, message.w, undefined, scope);
    channel.source = message.src;
    channel.shard = message.sh;
    this.#feed(message.src, message.sh, message.f);
    channel.follower.receive(message);
    channel.target = [message.e, message.s];
    channel.taken = true;
    if (message.how === 'exact' || (channel.follower.book && compare(channel.follower.position, channel.target) >= 0)) {
      channel.pending = false;
    }
    if (scope && !scope.markets.has(channel.market)) scope.joined(channel);
    channel.emitState();
  }

  /** On a one-way transport no request number says what a market belongs to. */
  #scopeFor(message) {
    if (this.#links[0]?.send) return null;
    return [...this.#scopes].find((s) => s.view === message.w) ?? null;
  }

  #feed(source, shard, feed) {
    const key = `${source}|${shard}`;
    if (this.#feeds.get(key) === feed) return;
    this.#feeds.set(key, feed);
    this.#emit('feed', { source, shard, feed });
    for (const channel of this.#channels.values()) {
      if (channel.source === source && channel.shard === shard) channel.emitState();
    }
  }

  #refused({ id, m, code, why, retry, fatal }) {
    const request = this.#requests.get(id);
    this.#emit('error', { code, why, market: m, fatal: !!fatal });
    const asked = request?.channels ?? [...this.#channels.values()];
    const channels = m === undefined && request ? asked : asked.filter((c) => c.market === m);
    for (const channel of channels) channel.fail({ code, why, fatal: !!fatal });
    if (fatal || !retry || !request) return;
    const session = this.#session;
    this.#env.setTimeout(() => {
      if (session !== this.#session) return;
      if (request.scope) this.#subscribeScopes([request.scope].filter((s) => this.#scopes.has(s)));
      else this.#subscribe(channels.filter((c) => this.#channels.get(c.key) === c));
    }, retry * (1 + this.#env.random()));
  }

  #listed({ full, markets, gone }) {
    const changed = new Set();
    if (full) this.catalogue.clear();
    for (const [id, fields] of markets ?? []) {
      const held = this.catalogue.get(id) ?? {};
      for (const name in fields) {
        if (fields[name] === null) delete held[name];
        else held[name] = fields[name];
      }
      this.catalogue.set(id, held);
      changed.add(id);
    }
    for (const id of gone ?? []) this.catalogue.delete(id);
    this.#emit('catalogue', { full: !!full, changed, gone: gone ?? [] });
  }

  #follow(channel, message) {
    const { follower } = channel;
    const { position: from, gap: wasGap } = follower;
    const result = follower.receive(message);
    if (message.t === 'crc' && result !== 'dropped') {
      this.stats.checksums++;
      if (result === 'gap') this.stats.checksumMismatches++;
    }
    if (message.ts && (result === 'applied' || result === 'replaced')) this.#aged(channel, message.ts);
    if (result === 'replaced') {
      if (from) this.stats.resyncs++;
      channel.pending = false;
      channel.askedAt = null;
      channel.source = follower.book?.fields.source ?? channel.source;
      channel.shard = message.sh ?? channel.shard;
      channel.feed = message.f;
      channel.emitSync();
    } else if (result === 'applied' && message.t === 'delta') {
      if (channel.taken) channel.pending = false;
      channel.emitChange(follower.changed);
    } else if (result === 'applied' && message.t === 'stop') {
      channel.emitStop(message.why ?? '');
    } else if (result === 'gap' && !wasGap) {
      channel.emitGap(from, message.t === 'gap' ? message.to : [message.e, message.s]);
      this.#gapped(channel, message.t === 'gap');
    } else if (message.t === 'gone') {
      this.#channels.delete(channel.key);
      for (const scope of this.#scopes) scope.markets.delete(channel.market);
      channel.emitState();
    }
  }

  /** Continuity is lost; where the server said so, a snapshot is on its way already. */
  #gapped(channel, announced = false) {
    if (channel.follower.book) this.stats.gaps++;
    // The snapshot of a subscription that has just begun is on its way, too.
    if (announced || (channel.pending && !channel.follower.book)) channel.askedAt ??= this.#env.mono();
    else if (channel.askedAt === null) this.#ask(channel);
    channel.emitState();
  }

  #ask(channel) {
    channel.askedAt = this.#env.mono();
    if (this.#links[0]?.send) this.#send({ t: 'snapshot', m: channel.market, w: channel.view });
    else this.#reopenStreams(200 + this.#env.random() * 800);
  }

  #aged(channel, ts) {
    channel.sourceTime = ts[0];
    if (!this.#liveness.synced || typeof ts[0] !== 'number') return;
    const { ring } = this.#ages;
    ring[this.#ages.count++ % ring.length] = Math.max(0, this.#liveness.serverNow() - ts[0]);
  }
}
