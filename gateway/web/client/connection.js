// One connection, kept or replaced: which transport, when to come back, whether what comes is live. It knows nothing of
// markets: its owner is told when it opens, speaks and ends.

import { Liveness } from './liveness.js';
import { json, openEventStream, openWebSocket } from './transport.js';

/**
 * @typedef {'idle'|'connecting'|'live'|'stalled'|'backoff'|'closed'|'failed'} State
 * @typedef {object} Environment what the browser gives; tests give their own
 * @property {any} WebSocket @property {any} EventSource @property {any} fetch
 * @property {() => number} now wall clock, ms @property {() => number} mono monotonic clock, ms
 * @property {any} setTimeout @property {any} clearTimeout @property {() => number} random
 * @property {EventTarget|null} window @property {EventTarget & {visibilityState?: string}|null} document
 * @typedef {object} Owner
 * @property {(message: any, bytes: number) => void} message
 * @property {(twoWay: boolean) => void} welcomed the server spoke first on a new link
 * @property {() => void} down whatever this link promised is void
 * @property {(event: {state: State, prev: State}) => void} state
 * @property {(time: number) => void} pinged
 * @property {() => void} tick about twice a heartbeat
 * @property {() => Map<number, {query: URLSearchParams, whole: boolean, held: [string, [number, number]][]}>} streams by view, for a one-way
 *   transport: what it asks for, whether every market is held in step, and where those stand
 * @property {(view: number, positions: Map<number, [number, number]>) => void} seenUpTo what a stream comes back with
 */

/** Positions by shard in an event's id (PROTOCOL.md §6). @param {string} id @returns {Map<number, [number, number]>} */
export function positionsIn(id) {
  const parts = id.startsWith('1:') ? id.slice(2).split(',') : [];
  const numbers = parts.map((part) => part.split('.').map((n) => (/^[0-9a-z]+$/.test(n) ? parseInt(n, 36) : NaN)));
  return new Map(numbers.filter((n) => n.length === 3 && n.every(Number.isSafeInteger)).map(([s, e, n]) => [s, [e, n]]));
}

/** Where each market stands, for a stream that takes over from another transport; what does not fit starts with a snapshot.
 * @param {[string, [number, number]][]} held */
export function cursorOf(held, room = MAX_CURSOR) {
  let cursor = '1:';
  let size = encodeURIComponent(cursor).length;
  for (const [market, at] of held) {
    const part = [market.replace(/[%,!]/g, (c) => `%${c.charCodeAt(0).toString(16)}`), ...at.map((n) => n.toString(36))].join('!');
    // As the address carries it, where `!` and `,` take three bytes.
    size += encodeURIComponent(part).replace(/!/g, '%21').length + 3;
    if (size > room) break;
    cursor += cursor.length > 2 ? `,${part}` : part;
  }
  return cursor;
}

/** Closes after which trying again is useless (PROTOCOL.md §7). */
const NEVER = new Set([4400, 4403, 4409, 4413]);
/** An address should stay below what proxies take. */
const MAX_CURSOR = 6000;
const OPEN_MS = 5000;
const PROBE_MS = 2000;
const STEADY_MS = 5000;
const SLEPT_MS = 10_000;
const BACK_TO_FIRST_MS = 300_000;

/** @returns {Environment} */
function browser() {
  const g = /** @type {any} */ (globalThis);
  return {
    WebSocket: g.WebSocket, EventSource: g.EventSource, fetch: g.fetch?.bind(g),
    now: () => Date.now(), mono: () => performance.now(), random: Math.random,
    setTimeout: g.setTimeout.bind(g), clearTimeout: g.clearTimeout.bind(g),
    window: g.window ?? null, document: g.document ?? null,
  };
}

export class Connection {
  /** @type {State} */ state = 'idle';
  /** @type {'ws'|'sse'|null} */ transport = null;
  connects = 0;
  /** Whether the server said welcome on this link. */ isWelcome = false;
  /** @type {Environment} */ env;
  /** @type {Liveness} */ liveness;

  #url; #options;
  /** @type {Owner} */ #owner;
  #links = /** @type {any[]} */ ([]);
  #session = 0; #attempt = 0; #openedAt = 0; #heardAt = 0; #wasLive = false; #staleAt = 0;
  #failures = 0; #fellBackAt = 0;
  #pingedAt = -Infinity; #probedAt = /** @type {number|null} */ (null); #seen = { mono: 0, wall: 0 };
  /** The server's time of the newest heartbeat that this link brought, and of the one that was told last. */
  #beat = /** @type {number|undefined} */ (undefined); #told = Infinity;
  #retryMs = 0; #askingTime = false;
  #timers = { tick: null, retry: null, reopen: null };
  /** Of streams that ended, by their address. */ #cursors = new Map();
  /** When each stream's last heartbeat came, by view. */ #beats = new Map();
  #wake = () => this.#onWake();

  /** @param {string} url @param {any} options @param {Owner} owner */
  constructor(url, options, owner) {
    this.#url = url.replace(/\/$/, '');
    this.#options = { transports: ['ws', 'sse'], codec: 'json', ...options };
    this.#owner = owner;
    this.env = { ...browser(), ...options.env };
    this.liveness = new Liveness(this.env);
  }

  connect() {
    if (!['idle', 'closed', 'failed'].includes(this.state)) return;
    this.#listen('addEventListener');
    this.#attempt = this.#failures = 0;
    this.env.clearTimeout(this.#timers.tick);
    this.#note();
    void this.#open();
    this.#onTick();
  }

  close() {
    this.#listen('removeEventListener');
    this.#hangUp();
    this.env.clearTimeout(this.#timers.tick);
    this.#set('closed');
  }

  /** Another link, now. */
  reconnect() {
    if (!this.isUp && this.state !== 'backoff') return this.connect();
    this.#attempt = 0;
    void this.#open();
  }

  /** Whether what comes is fresh (PROTOCOL.md §4). */
  get live() {
    if (!this.isWelcome || !this.liveness.live) return false;
    const oldest = this.env.mono() - 2.5 * this.liveness.interval;
    return [...this.#beats.values()].every((at) => at >= oldest);
  }

  get isUp() {
    return this.state === 'connecting' || this.state === 'live' || this.state === 'stalled';
  }

  /** Whether there is a way up. */
  get twoWay() {
    return !!this.#links[0]?.send;
  }

  /** @param {any} message @returns {boolean} whether it went out */
  send(message) {
    return this.isWelcome && !!this.#links[0]?.send?.(message);
  }

  /** One way: the subscriptions changed or a book is broken, so other streams, a moment later. */
  reopenStreams(delayMs = 30) {
    if (this.#links[0]?.kind !== 'sse') return;
    this.env.clearTimeout(this.#timers.reopen);
    this.#timers.reopen = this.env.setTimeout(() => {
      this.#endLinks();
      this.#cursors.clear();
      this.#owner.down();
      this.#openStreams();
    }, delayMs);
  }

  #listen(how) {
    const { window, document } = this.env;
    for (const name of ['online', 'pageshow']) window?.[how](name, this.#wake);
    for (const name of ['visibilitychange', 'resume']) document?.[how](name, this.#wake);
  }

  #endLinks() {
    this.#session++;
    for (const link of this.#links) link.close();
    this.#links = [];
    this.#beats.clear();
  }

  #hangUp() {
    if (this.#links.length) this.#cursors = new Map(this.#links.filter((l) => l.cursor).map((l) => [l.query, l.cursor]));
    this.#endLinks();
    this.isWelcome = this.#wasLive = false;
    this.#probedAt = null;
    this.#staleAt = 0;
    this.liveness.reset();
    [this.#beat, this.#told] = [undefined, Infinity];
    this.env.clearTimeout(this.#timers.retry);
    this.env.clearTimeout(this.#timers.reopen);
    this.#owner.down();
  }

  async #open() {
    this.#hangUp();
    const session = this.#session;
    this.#openedAt = this.#heardAt = this.env.mono();
    this.connects++;
    this.transport = this.#choose();
    this.#set('connecting');
    try {
      if (this.transport === 'sse') return this.#openStreams();
      const { codec, auth, heartbeat } = this.#options;
      const format = typeof codec === 'object' ? codec : codec === 'msgpack' ? (await import('./msgpack.js')).msgpack : json;
      const token = auth && (await auth());
      if (session !== this.#session) return;
      const hello = { t: 'hello', v: 1, ...(token && { auth: token }), ...(heartbeat && { hb: heartbeat }) };
      const link = openWebSocket(this.env, this.#url, format, this.#sink(-1, () => link.send?.(hello)));
      this.#links = [link];
    } catch (error) {
      if (session === this.#session) this.#lost(1006, String(error));
    }
  }

  #choose() {
    const { env } = this;
    const [first, second] = this.#options.transports.filter((t) => (t === 'ws' ? env.WebSocket : env.EventSource));
    if (this.#fellBackAt && env.mono() - this.#fellBackAt > BACK_TO_FIRST_MS) this.#failures = this.#fellBackAt = 0;
    if (this.#failures < 2 || !second) return first ?? 'ws';
    this.#fellBackAt ||= env.mono();
    return second;
  }

  #sink(view, open = () => {}) {
    const session = this.#session;
    const mine = () => session === this.#session;
    return {
      open: () => mine() && open(),
      message: (message, bytes) => {
        if (!mine()) return;
        if (view >= 0 && message.t === 'hb') this.#beats.set(view, this.env.mono());
        this.#receive(message, bytes);
      },
      closed: (code, reason) => mine() && this.#lost(code, reason),
    };
  }

  /** One stream for each view that is wanted: a stream's address is its subscription. */
  #openStreams() {
    if (!this.live) void this.#askTime();
    for (const [view, { query, whole, held }] of this.#owner.streams()) {
      const address = String(query);
      if (whole && this.#cursors.has(address)) {
        query.set('cursor', this.#cursors.get(address));
        this.#owner.seenUpTo(view, positionsIn(this.#cursors.get(address)));
      } else if (held.length) {
        const cursor = cursorOf(held, MAX_CURSOR - address.length);
        if (cursor.length > 2) query.set('cursor', cursor);
      }
      const link = openEventStream(this.env, this.#url, query, this.#sink(view));
      this.#links.push(Object.assign(link, { query: address }));
      this.#beats.set(view, this.env.mono());
    }
    this.#heardAt = this.env.mono();
  }

  async #askTime() {
    if (this.#askingTime) return;
    this.#askingTime = true;
    const sent = this.env.mono();
    try {
      const answer = await (await this.env.fetch(`${this.#url}/v1/time`, { cache: 'no-store' })).json();
      const now = typeof answer === 'number' ? answer : answer.now;
      if (Number.isFinite(now)) this.liveness.measured(this.env.mono() - sent, now);
    } catch {
      // The stream's own failure is what is told; the next tick asks again.
    } finally {
      this.#askingTime = false;
    }
  }

  #lost(code, reason) {
    const { env } = this;
    const steady = this.isWelcome && env.mono() - this.#openedAt > STEADY_MS;
    if (!this.isWelcome && this.transport === this.#options.transports[0]) this.#failures++;
    this.#hangUp();
    if (NEVER.has(code)) return this.#set('failed', { code, reason });
    if (steady) this.#attempt = 0;
    const { minMs, maxMs } = { minMs: 500, maxMs: 20_000, ...this.#options.backoff };
    let wait = env.random() * Math.min(maxMs, minMs * 2 ** this.#attempt);
    if (code === 4408 && steady) wait = 0;
    if (code === 1002 || code === 1007 || code === 4429) wait += 5000;
    wait += this.#retryMs;
    this.#retryMs = 0;
    this.#attempt = Math.min(this.#attempt + 1, 16);
    this.#set('backoff', { code, reason, retryInMs: Math.round(wait) });
    if (this.state === 'backoff') this.#timers.retry = env.setTimeout(() => void this.#open(), wait);
  }

  /** The link is dead, whatever its `readyState` says: another one at once, by backoff if that was tried just now. */
  #replace(reason) {
    if (!this.isWelcome || this.env.mono() - this.#openedAt < STEADY_MS) return this.#lost(1006, reason);
    this.#attempt = 0;
    void this.#open();
  }

  #receive(message, bytes) {
    this.#heardAt = this.env.mono();
    if (message.t === 'bye') {
      this.#retryMs = message.retry ?? 0;
      return this.#lost(message.code ?? 1012, message.why ?? '');
    }
    if (message.t === 'welcome') {
      if (message.hb) this.liveness.interval = message.hb;
      this.isWelcome = true;
      if (this.transport === this.#options.transports[0]) this.#failures = 0;
    }
    if (message.t === 'hb') {
      if (!this.twoWay) this.liveness.heard(message.now);
      else if (message.echo !== undefined) this.liveness.echo(message.echo, message.now);
      this.#beat = message.now;
      if (this.#told === Infinity) this.#told = message.now;
      // A hidden tab's timers are throttled, its messages are not. And whoever was far behind says at once that it is no more:
      // it may be sent no prices until then.
      if (this.twoWay && ((message.echo === undefined && this.#isPingDue) || this.#beat - this.#told > 2 * this.liveness.interval)) this.#ping();
    }
    this.#owner.message(message, bytes);
    if (message.t === 'welcome' && this.twoWay) {
      this.#owner.welcomed(true);
      this.#ping();
    }
    if (message.t === 'hb') this.#check();
  }

  // ---- time

  #note() {
    this.#seen = { mono: this.env.mono(), wall: this.env.now() };
  }

  #onTick() {
    this.#timers.tick = this.env.setTimeout(() => this.#onTick(), this.liveness.interval / 2);
    const slept = Math.max(this.env.mono() - this.#seen.mono, this.env.now() - this.#seen.wall) > SLEPT_MS;
    this.#note();
    if (slept) this.#onWake();
    if (!this.isUp) return;
    if (this.#isPingDue) this.#ping();
    if (this.transport === 'sse' && !this.live) void this.#askTime();
    this.#owner.tick();
    this.#check();
  }

  get #isPingDue() {
    return this.env.mono() - this.#pingedAt >= this.liveness.interval * 0.95;
  }

  #ping() {
    if (!this.isWelcome || !this.twoWay) return;
    this.#pingedAt = this.env.mono();
    const time = this.liveness.ping();
    this.#owner.pinged(time);
    this.#told = this.#beat ?? Infinity;
    this.send({ t: 'ping', time, ...(this.#beat !== undefined && { now: this.#beat }) });
  }

  /** The computer slept, the page was hidden, the network came back: is anyone still there? */
  #onWake() {
    if (this.env.document?.visibilityState === 'hidden') return;
    if (this.state === 'backoff') return void this.#open();
    if (!this.isWelcome || this.#probedAt !== null) return;
    this.#probedAt = this.env.mono();
    this.#ping();
    this.env.setTimeout(() => this.#check(), PROBE_MS + 1);
  }

  #check() {
    if (!this.isUp) return;
    const now = this.env.mono();
    const bound = 2.5 * this.liveness.interval;
    if (!this.isWelcome) {
      if (now - this.#openedAt > OPEN_MS) this.#lost(1006, 'open but silent');
      return;
    }
    if (this.#probedAt !== null) {
      if (this.#heardAt > this.#probedAt) this.#probedAt = null;
      else if (now - this.#probedAt > PROBE_MS) return this.#replace('no answer after waking up');
    }
    if (this.live) {
      this.#wasLive = true;
      this.#staleAt = 0;
      return this.#set('live');
    }
    this.#staleAt ||= now;
    if (this.#wasLive) this.#set('stalled');
    // Old heartbeats that still come mean a slow link, which another one would not cure at once.
    if (now - this.#heardAt > bound || now - this.#staleAt > 4 * bound) this.#replace('no sign of life');
  }

  #set(state, more = {}) {
    if (state === this.state) return;
    const prev = this.state;
    this.state = state;
    this.#owner.state({ state, prev, ...more });
  }
}
