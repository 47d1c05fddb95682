// Follows one market in one view: keeps the book on the chain of positions, or says that it cannot. No clock, no I/O.
// Twin of `proto/src/client.rs`; `proto/vectors/follow.json` holds both to PROTOCOL.md §3–§5.

import { Book } from './book.js';
import { checksum } from './checksum.js';

/** @typedef {[epoch: number, seq: number]} Position */
/**
 * What became of a message. `gap` and `mismatch` ask for a snapshot.
 * @typedef {'applied'|'dropped'|'gap'|'replaced'|'stopped'|'checked'|'mismatch'|'noted'} Result
 */

/** Orders positions; `null` comes first. @param {Position|null} a @param {Position|null} b */
export function compare(a, b) {
  if (!a || !b) return (a ? 1 : 0) - (b ? 1 : 0);
  return a[0] - b[0] || a[1] - b[1];
}

export class Follower {
  /** @type {Book|null} */ book = null;
  /** @type {Position|null} where the book stands */ position = null;
  /** @type {Position|null} the highest stop that named the market */ stop = null;
  /** Whether continuity is lost: the book is kept, shown as not live, until a `snap`. */
  gap = false;
  /** Whether the market ended. */
  gone = false;
  /** @type {Position|null} where an `ok` said that the book will stand */ promisedAt = null;
  /** @type {number|null} */ shard = null;
  /** The source that `ok` named, for markets whose book names none. @type {string|null} */ source = null;
  /** @type {string} feed state of the market's source */ feed = 'live';
  /** @type {Set<string>} what the last applied delta touched, see `Book.apply` */ changed = new Set();

  /** @param {string} market @param {number} view 1, 3, 10, or 0 for all */
  constructor(market, view) {
    this.market = market;
    this.view = view;
  }

  /** Whether an `ok` promised something newer that has not come yet. */
  get promised() {
    return compare(this.position, this.promisedAt) < 0;
  }

  /** Takes in a stop's position. @param {Position|null|undefined} stop @returns {boolean} whether it is a higher one */
  raise(stop) {
    if (!stop || compare(stop, this.stop) <= 0) return false;
    this.stop = [stop[0], stop[1]];
    return true;
  }

  /** Takes in a message that names this market (and, where it has one, this view). @param {any} message @returns {Result} */
  receive(message) {
    switch (message.t) {
      case 'snap':
        return this.#snap(message);
      case 'delta':
        return this.#delta(message);
      case 'stop':
        return this.raise([message.e, message.s]) ? 'stopped' : 'dropped';
      case 'ok':
        return this.#taken(message);
      case 'feed':
        if (message.sh === this.shard && message.src === (this.book?.fields.source ?? this.source)) this.feed = message.f;
        return 'noted';
      case 'gap':
        return this.#lose();
      case 'gone':
        return this.#end();
      case 'crc':
        return this.#check(message);
      default:
        return 'dropped';
    }
  }

  #snap(message) {
    this.raise(message.st);
    const at = /** @type {Position} */ ([message.e, message.s]);
    if (compare(at, this.position) < 0) return 'dropped';
    this.book = Book.from(message);
    this.position = at;
    this.gap = this.gone = false;
    this.shard = message.sh;
    this.feed = message.f;
    return 'replaced';
  }

  #delta(message) {
    const { e, p, s } = message;
    if (!this.book || !this.position) return this.#lose();
    const [epoch, seq] = this.position;
    if (e < epoch || (e === epoch && s <= seq)) return 'dropped';
    if (this.gap || e > epoch || p > seq) return this.#lose();
    this.changed = this.book.apply(message);
    this.position = [e, s];
    return 'applied';
  }

  #check({ e, s, c }) {
    if (!this.book || this.gap || compare([e, s], this.position) !== 0) return 'noted';
    if (this.checksum() === c) return 'checked';
    this.gap = true;
    return /** @type {Result} */ ('mismatch');
  }

  #taken({ st, sh, src, f, how, e, s }) {
    this.raise(st);
    this.shard = sh;
    this.source = src;
    this.feed = f;
    this.promisedAt = how === 'exact' ? null : [e, s];
    // A gateway behind the one before it: what it sends next may leap over where this book is.
    if (this.position && compare([e, s], this.position) < 0) return this.#lose();
    return /** @type {Result} */ ('noted');
  }

  #lose() {
    this.gap = true;
    return /** @type {Result} */ ('gap');
  }

  /** The book and its gap are forgotten, the stop is not; a later `snap` starts anew, wherever it stands. */
  #end() {
    this.book = this.position = null;
    this.gap = false;
    this.gone = true;
    return /** @type {Result} */ ('noted');
  }

  /** Comes back with a position of its shard, up to which everything was seen: the book is the book there, too.
   * @param {Position|undefined} seen */
  seenUpTo(seen) {
    if (seen && this.position && seen[0] === this.position[0] && seen[1] > this.position[1]) this.position = [seen[0], seen[1]];
  }

  /** CRC-32C of the view that is held; `null` where none is. @returns {number|null} */
  checksum() {
    return this.book && checksum(this.market, this.view, this.book);
  }

  /** The connection ended: the book stays, to come back with, but nothing says how the feed stands. */
  disconnected() {
    this.feed = 'down';
  }

  /** Whether a stop is known that the book has not caught up with. */
  get isBehindStop() {
    return compare(this.position, this.stop) < 0;
  }

  /** Whether bets on the market can be meant, the connection's liveness aside (PROTOCOL.md §4). @returns {boolean} */
  get tradable() {
    const current = !this.gap && !this.promised && !this.isBehindStop;
    return this.book?.status === 'open' && this.feed === 'live' && current;
  }
}
