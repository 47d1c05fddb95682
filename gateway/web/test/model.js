// What the tests share: a clock that only moves when told, a server that keeps a market's history, and the wire between.

import { Book } from '../client/book.js';
import { digestKey, mix } from '../client/checksum.js';
import { read } from '../client/msgpack.js';

/** A seeded generator: numbers in [0, 1). */
export function seeded(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Virtual time: two clocks and timers. */
export class Time {
  mono = 0;
  wallSkew = 1_764_000_000_000;
  #timers = new Map();
  #id = 0;
  setTimeout = (run, ms = 0) => (this.#timers.set(++this.#id, { run, at: this.mono + Math.max(0, ms) }), this.#id);
  clearTimeout = (id) => void this.#timers.delete(id);
  now = () => this.mono + this.wallSkew;
  get timers() {
    return this.#timers.size;
  }
  /** Runs what is due within `ms`, letting promises settle in between. */
  async pass(ms) {
    const end = this.mono + ms;
    for (;;) {
      for (let i = 0; i < 6; i++) await null;
      let next = null;
      for (const [id, timer] of this.#timers) if (timer.at <= end && (!next || timer.at < next.at)) next = { id, ...timer };
      if (!next) break;
      this.#timers.delete(next.id);
      this.mono = Math.max(this.mono, next.at);
      next.run();
    }
    this.mono = end;
  }
}

const pick = (random, list) => list[Math.floor(random() * list.length)];
const copy = (value) => JSON.parse(JSON.stringify(value));

/** A plain book: `{d: fields, r: {key: {id, handicap, fields, b, l, v}}}`, ladders as `{price: size}`. */
function freshBook(id) {
  const selection = (n) => ({ id: n, handicap: 0, fields: { name: `Runner ${n}`, status: 'active' }, b: { 200: 5 }, l: { 210: 5 }, v: {} });
  return {
    d: { event: 'e1', source: 'src', name: id, kind: 'ladder', price_exponent: 2, size_exponent: 2, status: 'open', suspensions: 0 },
    r: { '1/0': selection(1), '2/0': selection(2) },
  };
}

function top(ladder, side, view) {
  const levels = Object.entries(ladder).map(([p, s]) => [Number(p), s]).sort((a, b) => a[0] - b[0]);
  if (!view || side === 'v') return levels;
  return side === 'b' ? levels.slice(-view) : levels.slice(0, view);
}

/** The wire form of a view of a plain book. */
export function image(book, view) {
  const r = Object.values(book.r).sort((a, b) => a.id - b.id || a.handicap - b.handicap);
  return {
    d: { ...book.d },
    r: r.map((s) => {
      const out = { ...s.fields };
      for (const side of view ? ['b', 'l'] : ['b', 'l', 'v']) out[side.toUpperCase()] = top(s[side], side, view);
      return [s.id, s.handicap, out];
    }),
  };
}

function changes(old, now) {
  const out = {};
  for (const name of new Set([...Object.keys(old), ...Object.keys(now)])) if (old[name] !== now[name]) out[name] = now[name] ?? null;
  return out;
}

/** What makes one plain book into another, as a view shows it; `null` where nothing. */
export function difference(old, now, view) {
  const delta = {};
  const d = changes(old.d, now.d);
  if (Object.keys(d).length) delta.d = d;
  const x = Object.keys(old.r).filter((k) => !now.r[k]).map((k) => k.split('/').map(Number));
  if (x.length) delta.x = x;
  const r = [];
  for (const [key, s] of Object.entries(now.r)) {
    const was = old.r[key] ?? { fields: {}, b: {}, l: {}, v: {} };
    const out = changes(was.fields, s.fields);
    for (const side of view ? ['b', 'l'] : ['b', 'l', 'v']) {
      const levels = changes(Object.fromEntries(top(was[side], side, view)), Object.fromEntries(top(s[side], side, view)));
      const list = Object.entries(levels).map(([p, size]) => [Number(p), size ?? 0]).sort((a, b) => a[0] - b[0]);
      if (list.length) out[side] = list;
    }
    if (!old.r[key] || Object.keys(out).length) r.push([s.id, s.handicap, out]);
  }
  if (r.length) delta.r = r.sort((a, b) => a[0] - b[0] || a[1] - b[1]);
  return Object.keys(delta).length ? delta : null;
}

/** Two deltas' content as one: applying it is applying both in turn. */
function merged(first, then) {
  if (!first) return then;
  const keyOf = ([id, handicap]) => `${id}/${handicap}`;
  const left = new Map([...(first.x ?? []), ...(then.x ?? [])].map((k) => [keyOf(k), k]));
  const r = new Map((first.r ?? []).filter((c) => !(then.x ?? []).some((k) => keyOf(k) === keyOf(c))).map((c) => [keyOf(c), c]));
  for (const [id, handicap, change] of then.r ?? []) {
    const out = { ...r.get(`${id}/${handicap}`)?.[2], ...change };
    for (const side of ['b', 'l', 'v']) {
      const levels = new Map([...(r.get(`${id}/${handicap}`)?.[2][side] ?? []), ...(change[side] ?? [])]);
      if (levels.size) out[side] = [...levels].sort((a, b) => a[0] - b[0]);
    }
    r.set(`${id}/${handicap}`, [id, handicap, out]);
  }
  return { d: { ...first.d, ...then.d }, x: [...left.values()], r: [...r.values()] };
}

/** A market with its whole history: what the truth was at each position. */
export class Market {
  epoch = 1;
  stop = null;
  constructor(id, random) {
    this.id = id;
    this.random = random;
    this.book = freshBook(id);
    this.seq = 1;
    this.history = [{ e: 1, s: 1, book: copy(this.book) }];
  }
  get newest() {
    return this.history[this.history.length - 1];
  }
  at(e, s) {
    return this.history.find((h) => h.e === e && h.s === s);
  }
  /** One random change. Says whether it is a stop. */
  change() {
    const { random, book } = this;
    const before = book.d.status;
    const what = random();
    if (what < 0.08) book.d.status = book.d.status === 'open' ? 'suspended' : 'open';
    else if (what < 0.12) {
      const key = pick(random, ['3/0', '3/-25', '2/0']);
      if (book.r[key]) delete book.r[key];
      else {
        const [id, handicap] = key.split('/').map(Number);
        book.r[key] = { id, handicap, fields: { name: `Läufer ${key}` }, b: {}, l: {}, v: {} };
      }
    } else if (what < 0.2) book.d.matched = Math.floor(random() * 1e9);
    else if (what < 0.24) book.d.reason = book.d.reason ? undefined : 'goal';
    else {
      const s = pick(random, Object.values(book.r));
      const side = pick(random, ['b', 'l', 'v']);
      const price = { b: 190, l: 206, v: 190 }[side] + Math.floor(random() * 14);
      if (random() < 0.4) delete s[side][price];
      else s[side][price] = 1 + Math.floor(random() * 900);
    }
    this.book = copy(book);
    this.seq += 1 + Math.floor(random() * 3);
    this.history.push({ e: this.epoch, s: this.seq, book: copy(this.book) });
    const stops = before === 'open' && this.book.d.status !== 'open';
    if (stops) this.stop = [this.epoch, this.seq];
    return stops;
  }
  /** Another owner: a higher epoch, and what the old one said last is forgotten now and then. */
  takeOver() {
    this.epoch += 1;
    this.seq += 1;
    this.history.push({ e: this.epoch, s: this.seq, book: copy(this.book) });
    this.stop = [this.epoch, this.seq];
  }
  snap(view, at = this.newest) {
    const st = this.stop && { st: this.stop };
    return { t: 'snap', m: this.id, w: view, e: at.e, s: at.s, ...st, sh: 1, f: 'live', ts: [1, 0, 0, 0], ...image(at.book, view) };
  }
  /**
   * From one position of this epoch to another; `null` where the view shows no change. Built of every step in between,
   * not of the two ends: a client that stands between them must learn of what came and went.
   */
  delta(view, from, to = this.newest) {
    const steps = [];
    for (let i = this.history.indexOf(from); i < this.history.indexOf(to); i++) {
      const step = difference(this.history[i].book, this.history[i + 1].book, view);
      if (step) steps.push(step);
    }
    const content = steps.reduce(merged, null);
    return content && { t: 'delta', m: this.id, w: view, e: to.e, p: from.s, s: to.s, ts: [1, 0, 0, 0], ...content };
  }
  /** The book that a client must hold at a position. */
  expected(view, at = this.newest) {
    return Book.from(image(at.book, view));
  }
}

/** A gateway with markets, its sockets and a network that can be cut without anyone being told. */
export class Gateway {
  sessions = new Set();
  refuse = false;
  muted = false;
  heartbeat = 1000;
  log = /** @type {any[]} */ ([]);
  constructor(time, markets, random) {
    Object.assign(this, { time, markets: new Map(markets.map((m) => [m.id, m])), random, latency: 20 });
    const gateway = this;
    this.WebSocket = class {
      readyState = 0;
      constructor(url, protocols) {
        Object.assign(this, { url, protocols });
        gateway.time.setTimeout(() => gateway.open(this), gateway.latency);
      }
      send(data) {
        if (this.blackHole) return;
        gateway.time.setTimeout(() => gateway.heard(this, typeof data === 'string' ? JSON.parse(data) : read(data)), gateway.latency);
      }
      close() {
        this.readyState = 2; // A dead link says nothing for a minute.
        gateway.sessions.delete(this);
      }
    };
  }
  open(socket) {
    if (socket.readyState) return;
    if (this.refuse) return this.drop(socket, 1006);
    socket.readyState = 1;
    socket.cursors = new Map();
    socket.read = this.time.now();
    this.sessions.add(socket);
    socket.onopen?.({});
    if (!this.muted) this.send(socket, { t: 'welcome', v: 1, conn: 'c', hb: this.heartbeat, now: this.time.now(), limits: {} });
  }
  drop(socket, code) {
    this.sessions.delete(socket);
    socket.readyState = 3;
    this.time.setTimeout(() => socket.onclose?.({ code, reason: '' }), 1);
  }
  send(socket, message) {
    if (socket.blackHole) return;
    const data = JSON.stringify(message);
    this.time.setTimeout(() => socket.readyState === 1 && !socket.blackHole && socket.onmessage?.({ data }), this.latency);
  }
  digest(socket) {
    let sum = 0;
    for (const [key, at] of socket.cursors) sum = (sum + mix(digestKey(...key.split('|')), at.s)) >>> 0;
    return sum;
  }
  heard(socket, message) {
    if (!this.sessions.has(socket)) return;
    this.log.push(message);
    if (message.t === 'ping') {
      socket.read = message.now ?? socket.read;
      this.beat(socket, message.time);
    }
    if (message.t === 'unsub') for (const m of message.markets ?? []) socket.cursors.delete(`${m}|${message.w}`);
    if (message.t === 'snapshot') {
      const market = this.markets.get(message.m);
      socket.cursors.set(`${message.m}|${message.w}`, market.newest);
      this.send(socket, market.snap(message.w));
    }
    if (message.t !== 'sub') return;
    for (const id of message.markets) {
      const market = this.markets.get(id);
      if (!market) {
        this.send(socket, { t: 'err', id: message.id, m: id, code: 'unknown_market', why: `no market ${id}`, fatal: true });
        continue;
      }
      const { newest } = market;
      const from = message.from?.[id];
      const base = from && from[0] === newest.e && market.at(...from);
      const delta = base && market.delta(message.w, base);
      const how = !base ? 'snap' : delta ? 'delta' : 'exact';
      const st = market.stop && { st: market.stop };
      this.send(socket, { t: 'ok', id: message.id, m: id, w: message.w, conflate: 'auto', e: newest.e, s: how === 'exact' ? base.s : newest.s, ...st, sh: 1, src: 'src', f: 'live', how });
      socket.cursors.set(`${id}|${message.w}`, how === 'exact' ? base : newest);
      if (how !== 'exact') this.send(socket, how === 'snap' ? market.snap(message.w) : delta);
    }
  }
  beat(socket, echo) {
    this.send(socket, { t: 'hb', now: this.time.now(), ...(echo !== undefined && { echo }), behind: 0, dg: this.digest(socket) });
  }
  /** Publishes what changed to every session: stops ahead, then steps that may be conflated. */
  flush(stopped = null) {
    for (const socket of this.sessions) {
      if (stopped) this.send(socket, { t: 'stop', m: stopped.id, e: stopped.stop[0], s: stopped.stop[1], why: 'suspended' });
      // Who has not said that it reads is told nothing but stops and heartbeats.
      if (this.time.now() - socket.read > 5 * this.heartbeat) continue;
      for (const [key, from] of socket.cursors) {
        const [id, view] = key.split('|');
        const market = this.markets.get(id);
        if (this.random() < 0.3 || from === market.newest) continue; // Later, merged with what follows.
        const to = market.newest;
        const message = from.e === to.e ? market.delta(Number(view), from) : market.snap(Number(view));
        if (!message) continue;
        socket.cursors.set(key, to);
        this.send(socket, message);
      }
    }
  }
}
