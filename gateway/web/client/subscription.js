// Subscriptions: what a page holds of a market. Several share one channel; the last one that closes ends it.

import { selectionStatus } from './book.js';
import { digestKey } from './checksum.js';
import { Follower } from './follower.js';

/** One market in one view on the connection. */
export class Channel {
  /** Whether this connection has yet to say where the market stands: what is held may be old. */ pending = true;
  /** When a snapshot was asked for, if one is awaited. @type {number|null} */ askedAt = null;
  /** Source time of the newest data, Unix ms. @type {number|null} */ sourceTime = null;
  /** @type {{code: string, why: string, fatal: boolean}|null} */ error = null;
  /** @type {Set<MarketSub>} */ subs = new Set();

  constructor(market, view, conflate, scope) {
    Object.assign(this, { market, view, conflate, scope });
    this.key = `${market}|${view}`;
    this.digest = digestKey(market, view);
    this.follower = new Follower(market, view);
  }

  #emit(name, ...args) {
    for (const sub of [...this.subs]) sub.emit(name, ...args);
  }

  emitSync() {
    this.error = null;
    this.#emit('sync', this.follower.book);
  }
  emitChange(changed) {
    this.#emit('change', this.follower.book, changed);
  }
  emitStop(why) {
    this.#emit('stop', why);
  }
  emitGap(expected, got) {
    this.#emit('gap', expected, got);
  }
  emitState() {
    this.#emit('state');
  }
  fail(error) {
    this.error = error;
    this.#emit('state');
  }
}

/** A page's subscription of one market. */
export class MarketSub {
  #client;
  #channel;
  #listeners = new Map();

  /** @param {import('./client.js').OddsClient} client @param {any} channel */
  constructor(client, channel) {
    this.#client = client;
    this.#channel = channel;
    channel.subs.add(this);
  }

  get id() {
    return this.#channel.market;
  }
  /** What is held, live or not. @returns {Readonly<import('./book.js').Book>|null} */
  get book() {
    return this.#channel.follower.book;
  }
  /** Where it stands: the price token of a bet. @returns {Readonly<import('./follower.js').Position>|null} */
  get position() {
    return this.#channel.follower.position;
  }
  /** Whether a resync is under way: after a gap, or since the connection was replaced. */
  get resyncing() {
    const { gap, promised } = this.#channel.follower;
    return gap || promised || this.#channel.pending;
  }
  get gone() {
    return this.#channel.follower.gone;
  }
  get error() {
    return this.#channel.error;
  }
  /** Feed state of the market's source: `live`, `recovering`, `stale`, `down`. */
  get feed() {
    return this.#channel.follower.feed;
  }
  /** Whether the prices held may not be the present ones. Mere quiet is not staleness. */
  get stale() {
    return !this.book || this.resyncing || this.feed !== 'live' || !this.#client.live;
  }
  /** Whether a stop is known that the book has not caught up with. */
  get stopped() {
    return this.book?.status === 'open' && this.#channel.follower.isBehindStop;
  }
  /** Whether the market may be traded at the prices held. */
  get tradable() {
    return this.#channel.follower.tradable && !this.stale;
  }
  /** Whether a selection may. @param {string} key `<id>/<handicap>` */
  tradableSelection(key) {
    const selection = this.book?.selections.get(key);
    return !!selection && this.tradable && selectionStatus(selection) === 'active';
  }
  /** Time since the newest data left its source, ms, by the server's clock; `null` where unknown. */
  get ageMs() {
    const now = this.#client.serverNow;
    const { sourceTime } = this.#channel;
    return now === null || sourceTime === null ? null : Math.max(0, now - sourceTime);
  }

  #on(name, listener) {
    if (!this.#listeners.has(name)) this.#listeners.set(name, new Set());
    this.#listeners.get(name).add(listener);
    return () => void this.#listeners.get(name).delete(listener);
  }
  /** A snapshot came. @param {(book: import('./book.js').Book) => void} f @returns {() => void} */
  onSync(f) {
    return this.#on('sync', f);
  }
  /** A delta was applied. @param {(book: import('./book.js').Book, changed: Set<string>) => void} f @returns {() => void} */
  onChange(f) {
    return this.#on('change', f);
  }
  /** @param {(why: string) => void} f @returns {() => void} */
  onStop(f) {
    return this.#on('stop', f);
  }
  /** @param {(expected: any, got: any) => void} f @returns {() => void} */
  onGap(f) {
    return this.#on('gap', f);
  }
  /** Something else that `tradable`, `stale`, `gone` or `error` depend on may have changed. @param {() => void} f */
  onState(f) {
    return this.#on('state', f);
  }
  /** @internal */
  emit(name, ...args) {
    for (const listener of this.#listeners.get(name) ?? []) listener(...args);
  }

  close() {
    this.#listeners.clear();
    if (this.#channel.subs.delete(this)) this.#client.release(this.#channel);
  }
}

/** A page's subscription of an event or a sport: its markets come and go. */
export class ScopeSub {
  /** Whether this connection was asked. */ sent = false;
  /** @type {Map<string, MarketSub>} */ markets = new Map();
  #client;
  #listeners = new Set();

  constructor(client, what, view) {
    this.#client = client;
    this.what = what;
    this.view = view;
  }

  /** A market joined. @param {(market: MarketSub) => void} f @returns {() => void} */
  onMarket(f) {
    this.#listeners.add(f);
    for (const market of this.markets.values()) f(market);
    return () => void this.#listeners.delete(f);
  }

  /** @internal */
  joined(channel) {
    const market = new MarketSub(this.#client, channel);
    this.markets.set(channel.market, market);
    for (const listener of this.#listeners) listener(market);
  }

  close() {
    this.#listeners.clear();
    for (const market of this.markets.values()) market.close();
    this.#client.releaseScope(this);
  }
}
