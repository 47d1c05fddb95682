// The client: subscriptions, counted; books, followed; the catalogue; and what may be traded now.
//
//   const client = new OddsClient('https://odds.example');
//   const market = client.market('1.234', { view: 3 });
//   market.onChange((book) => …);      market.tradable; market.position  // the price token of a bet
//   client.on('state', ({ state }) => …);      client.connect();
//
// The connection: connection.js. Liveness and clocks: liveness.js. Sockets and streams: transport.js. A market's chain of
// positions: follower.js. What a page holds: subscription.js. The contract: proto/PROTOCOL.md.

import { mix } from './checksum.js';
import { Connection } from './connection.js';
import { Channel, MarketSub, ScopeSub } from './subscription.js';

/**
 * @typedef {import('./follower.js').Position} Position
 * @typedef {1|3|10|'all'} View
 * @typedef {object} Options
 * @property {('ws'|'sse')[]} [transports] in order of preference
 * @property {'json'|'msgpack'|import('./transport.js').Codec} [codec]
 * @property {() => Promise<string>|string} [auth] gives a token, once a connection
 * @property {number} [heartbeat] a wish, ms, 500–5000
 * @property {{minMs?: number, maxMs?: number}} [backoff] full jitter between 0 and these
 * @property {Partial<import('./connection.js').Environment>} [env] for tests
 */

const CONFLATE = ['auto', 250, 500, 1000];
const SLOW_CONSUMER = 4290;
const ASK_AGAIN_MS = 3000;
const DIGEST_PAUSE_MS = 10_000;
const SUB_MARKETS = 64;

/** @param {{view?: View}} options */
const viewOf = ({ view = 3 }) => (view === 'all' ? 0 : view);

export class OddsClient {
  /** What is offered: summary fields by market id. @type {Map<string, Record<string, any>>} */ catalogue = new Map();
  /** When the session's quietest source was last heard, the server's Unix ms. @type {number|null} */ asOf = null;
  /** @type {Record<string, number>} */ limits = {};

  #link;
  #counts = { messages: 0, bytes: 0, gaps: 0, resyncs: 0, checksums: 0, checksumMismatches: 0, digestMismatches: 0, behind: 0 };
  #channels = /** @type {Map<string, Channel>} */ (new Map());
  #scopes = /** @type {Set<ScopeSub>} */ (new Set());
  #requests = /** @type {Map<number, {scope: ScopeSub|null, channels: Channel[]}>} */ (new Map());
  #listeners = new Map();
  #ages = { ring: new Float64Array(512), count: 0 };
  #slow = 0; #nextId = 1;
  #unsent = /** @type {Set<Channel>} */ (new Set()); #flushing = false;
  /** Digests count from the answer to this ping on: it was sent after the last change of subscriptions. */
  #digestAfter = Infinity; #digestPausedUntil = 0;

  /** @param {string} url the gateway, `https://host` @param {Options} [options] */
  constructor(url, options = {}) {
    this.#link = new Connection(url, options, {
      message: (message, bytes) => this.#receive(message, bytes),
      welcomed: () => {
        this.#subscribe([...this.#channels.values()].filter((c) => !c.scope));
        this.#subscribeScopes([...this.#scopes]);
      },
      down: () => this.#down(),
      state: (event) => this.#stateChanged(event),
      pinged: (time) => {
        if (this.#digestAfter === Infinity) this.#digestAfter = time;
      },
      tick: () => this.#askAgain(),
      streams: () => this.#streams(),
      seenUpTo: (view, positions) => {
        for (const { follower } of this.#channels.values()) if (follower.view === view) follower.seenUpTo(positions.get(follower.shard));
      },
    });
  }

  // ---- what a page uses

  connect() {
    this.#link.connect();
  }

  close() {
    this.#link.close();
  }

  /** Replaces the connection now. */
  reconnect() {
    this.#link.reconnect();
  }

  /** @returns {import('./connection.js').State} */
  get state() {
    return this.#link.state;
  }

  /** Counters since the start, and how things are. */
  get stats() {
    const { transport, connects, liveness } = this.#link;
    const { p50, p99 } = this.dataAge;
    return { ...this.#counts, transport, connects, rtt: liveness.rtt, ageP50: p50, ageP99: p99 };
  }

  /**
   * Subscribes to a market, or joins a subscription that is there.
   * @param {string} id @param {{view?: View, conflate?: 'raw'|'auto'|number}} [options]
   */
  market(id, options = {}) {
    return new MarketSub(this, this.#channel(id, viewOf(options), options.conflate));
  }

  /** Subscribes to all markets of an event or a sport. @param {{event?: string, sport?: string}} what @param {{view?: View}} [options] */
  scope(what, options = {}) {
    const scope = new ScopeSub(this, what.event !== undefined ? { event: what.event } : { sport: what.sport }, viewOf(options));
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
    return this.#link.live;
  }

  /** Age of the newest proof that the connection is live, ms. */
  get connectionAge() {
    return this.#link.liveness.age;
  }

  /** The server's clock as far as known, Unix ms; `null` before the first measurement. */
  get serverNow() {
    return this.#link.liveness.synced ? this.#link.liveness.serverNow() : null;
  }

  /** How old data was on arrival, source to here, clock corrected: ms at the median and the 99th percentile. */
  get dataAge() {
    const { ring, count } = this.#ages;
    const sorted = ring.slice(0, Math.min(count, ring.length)).sort();
    const at = (q) => (sorted.length ? sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))] : null);
    return { p50: at(0.5), p99: at(0.99) };
  }

  // ---- for subscriptions

  /** @internal */
  release(channel) {
    if (channel.subs.size || channel.scope || this.#channels.get(channel.key) !== channel) return;
    this.#channels.delete(channel.key);
    if (!channel.follower.gone) this.#link.send({ t: 'unsub', id: this.#nextId++, markets: [channel.market], w: channel.view });
    this.#digestAfter = Infinity;
  }

  /** @internal */
  releaseScope(scope) {
    if (!this.#scopes.delete(scope)) return;
    this.#link.send({ t: 'unsub', id: this.#nextId++, ...scope.what, w: scope.view });
    for (const channel of this.#channels.values()) {
      if (channel.scope !== scope) continue;
      channel.scope = null;
      if (!channel.subs.size) this.#channels.delete(channel.key);
      else this.#dirty(channel);
    }
    this.#digestAfter = Infinity;
    this.#link.reopenStreams();
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
    this.#unsent.add(channel);
    this.#changed();
  }

  /** New subscriptions of one turn go up together. */
  #changed() {
    if (this.#flushing) return;
    this.#flushing = true;
    queueMicrotask(() => {
      this.#flushing = false;
      const scopes = [...this.#scopes].filter((scope) => !scope.sent);
      if (!this.#unsent.size && !scopes.length) return; // The connection opened meanwhile and took them.
      if (!this.#link.twoWay) return this.#link.reopenStreams();
      if (!this.#link.isWelcome) return;
      this.#subscribe([...this.#unsent].filter((c) => this.#channels.get(c.key) === c));
      this.#subscribeScopes(scopes);
    });
  }

  #subscribe(channels) {
    this.#unsent.clear();
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
    this.#link.send(message);
  }

  /** After a close for slowness, no faster than this. */
  #conflate(wish) {
    const floor = CONFLATE[Math.min(this.#slow, CONFLATE.length - 1)];
    if (floor === 'auto') return wish;
    return typeof wish === 'number' ? Math.max(wish, /** @type {number} */ (floor)) : floor;
  }

  // ---- the connection's owner

  #down() {
    this.#requests.clear();
    this.#digestAfter = Infinity;
    for (const scope of this.#scopes) scope.sent = false;
    for (const channel of this.#channels.values()) {
      channel.pending = true;
      channel.askedAt = null;
      channel.follower.disconnected();
    }
  }

  #stateChanged(event) {
    if (event.code === SLOW_CONSUMER) this.#slow++;
    this.#emit('state', { ...event, transport: this.#link.transport });
    for (const channel of this.#channels.values()) channel.emitState();
  }

  #askAgain() {
    const { env } = this.#link;
    for (const channel of this.#channels.values()) {
      if (channel.askedAt !== null && env.mono() - channel.askedAt > ASK_AGAIN_MS) this.#ask(channel);
    }
  }

  #streams() {
    const views = new Map();
    const stream = (view) => {
      if (!views.has(view)) views.set(view, { query: new URLSearchParams(), whole: true, held: [] });
      return views.get(view);
    };
    for (const channel of this.#channels.values()) {
      const { query } = stream(channel.view);
      if (!channel.scope) query.append('market', channel.market);
      if (!channel.follower.book || channel.follower.gap) stream(channel.view).whole = false;
      else if (channel.follower.position) stream(channel.view).held.push([channel.market, channel.follower.position]);
    }
    for (const scope of this.#scopes) {
      scope.sent = true;
      for (const name in scope.what) stream(scope.view).query.append(name, scope.what[name]);
    }
    if (!views.size) stream(3);
    for (const [view, { query }] of views) {
      query.set('view', view === 0 ? 'all' : String(view));
      if (this.#slow) query.set('conflate', String(this.#conflate('auto')));
    }
    this.#unsent.clear();
    return views;
  }

  #emit(name, event) {
    for (const listener of this.#listeners.get(name) ?? []) listener(event);
  }

  // ---- messages

  #receive(message, bytes) {
    this.#counts.messages++;
    this.#counts.bytes += bytes;
    switch (message.t) {
      case 'welcome':
        this.limits = message.limits ?? {};
        return;
      case 'hb':
        return this.#heartbeat(message);
      case 'ok':
        return this.#taken(message);
      case 'feed':
        return this.#feed(message);
      case 'catalogue':
        return this.#listed(message);
      case 'err':
        return this.#refused(message);
      case 'stop':
      case 'gone':
        for (const channel of [...this.#channels.values()]) if (channel.market === message.m) this.#follow(channel, message);
        return;
      default: {
        const channel = this.#channels.get(`${message.m}|${message.w}`);
        if (channel) this.#follow(channel, message);
      }
    }
  }

  #heartbeat({ echo, behind, as, dg }) {
    this.#counts.behind = behind ?? 0;
    this.asOf = as ?? null;
    if (echo !== undefined && echo >= this.#digestAfter) this.#compareDigest(dg);
    this.#emit('heartbeat', {});
  }

  #compareDigest(theirs) {
    let mine = 0;
    for (const { follower, pending, digest } of this.#channels.values()) {
      if (follower.gap || follower.promised || pending) return;
      if (follower.position && !follower.gone) mine = (mine + mix(digest, follower.position[1])) >>> 0;
    }
    if (theirs === undefined || mine === theirs || this.#link.env.mono() < this.#digestPausedUntil) return;
    this.#counts.digestMismatches++;
    this.#digestPausedUntil = this.#link.env.mono() + DIGEST_PAUSE_MS;
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
    channel.follower.receive(message);
    channel.pending = false;
    if (request && !request.scope) {
      request.channels = request.channels.filter((c) => c !== channel);
      if (!request.channels.length) this.#requests.delete(message.id);
    }
    if (scope && !scope.markets.has(channel.market)) scope.joined(channel);
    channel.emitState();
  }

  /** On a one-way transport no request number says what a market belongs to. */
  #scopeFor(message) {
    if (this.#link.twoWay) return null;
    return [...this.#scopes].find((s) => s.view === message.w) ?? null;
  }

  #feed(message) {
    this.#emit('feed', { source: message.src, shard: message.sh, feed: message.f });
    for (const channel of this.#channels.values()) {
      const { feed } = channel.follower;
      channel.follower.receive(message);
      if (channel.follower.feed !== feed) channel.emitState();
    }
  }

  #refused({ id, m, code, why, retry, fatal }) {
    const request = this.#requests.get(id);
    this.#emit('error', { code, why, market: m, fatal: !!fatal });
    const asked = request?.channels ?? [...this.#channels.values()];
    const channels = m === undefined && request ? asked : asked.filter((c) => c.market === m);
    for (const channel of channels) channel.fail({ code, why, fatal: !!fatal });
    if (fatal || !retry || !request) return;
    this.#link.env.setTimeout(() => {
      if (this.#requests.get(/** @type {number} */ (id)) !== request) return;
      this.#requests.delete(/** @type {number} */ (id));
      if (request.scope) this.#subscribeScopes([request.scope].filter((s) => this.#scopes.has(s)));
      else this.#subscribe(channels.filter((c) => this.#channels.get(c.key) === c));
    }, retry * (1 + this.#link.env.random()));
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
    if (message.ts?.[0] && (result === 'applied' || result === 'replaced')) {
      channel.sourceTime = message.ts[0];
      // A snapshot is as old as the market's last change, which says nothing of the way here.
      if (message.t === 'delta') this.#aged(message.ts[0]);
    }
    if (result === 'replaced') {
      if (from) this.#counts.resyncs++;
      channel.pending = false;
      channel.askedAt = null;
      channel.emitSync();
    } else if (result === 'applied') {
      channel.emitChange(follower.changed);
    } else if (result === 'stopped') {
      channel.emitStop(message.why ?? '');
    } else if (result === 'checked') {
      this.#counts.checksums++;
    } else if (result === 'mismatch') {
      this.#counts.checksums++;
      this.#counts.checksumMismatches++;
      this.#gapped(channel);
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
    if (channel.follower.book) this.#counts.gaps++;
    // The snapshot of a subscription that has just begun is on its way, too.
    if (announced || (channel.pending && !channel.follower.book)) channel.askedAt ??= this.#link.env.mono();
    else if (channel.askedAt === null) this.#ask(channel);
    channel.emitState();
  }

  #ask(channel) {
    channel.askedAt = this.#link.env.mono();
    if (this.#link.twoWay) this.#link.send({ t: 'snapshot', m: channel.market, w: channel.view });
    else this.#link.reopenStreams(200 + this.#link.env.random() * 800);
  }

  #aged(sourceTime) {
    if (!this.#link.liveness.synced) return;
    const { ring } = this.#ages;
    ring[this.#ages.count++ % ring.length] = Math.max(0, this.#link.liveness.serverNow() - sourceTime);
  }
}
