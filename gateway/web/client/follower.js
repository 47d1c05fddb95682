// Follows one market in one view: keeps the book on the chain of positions, or says that it cannot. No clock, no I/O.
// Twin of the Rust follower; `proto/vectors/follow.json` holds both to PROTOCOL.md §3–§5.

import { Book } from './book.js';
import { checksum } from './checksum.js';

/** @typedef {[epoch: number, seq: number]} Position */
/** @typedef {'applied'|'dropped'|'gap'|'replaced'} Result what became of a message */

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
  /** Checksums that did not match. */
  mismatches = 0;
  /** @type {Set<string>} what the last applied delta touched, see `Book.apply` */ changed = new Set();

  /** @param {string} market @param {number} view 1, 3, 10, or 0 for all */
  constructor(market, view) {
    this.market = market;
    this.view = view;
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
        return this.raise([message.e, message.s]) ? 'applied' : 'dropped';
      case 'ok':
        return this.raise(message.st) ? 'applied' : 'dropped';
      case 'gap':
        return this.#lose();
      case 'gone':
        this.gone = true;
        return 'applied';
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
    this.gap = false;
    this.gone = false;
    return 'replaced';
  }

  #delta(message) {
    const { e, p, s } = message;
    const [epoch, seq] = this.position ?? [0, 0];
    if (e < epoch) return 'dropped';
    if (e > epoch) return this.#lose();
    if (s <= seq) return 'dropped';
    if (p > seq) return this.#lose();
    if (this.gap || !this.book) return 'dropped';
    this.changed = this.book.apply(message);
    this.position = [e, s];
    return 'applied';
  }

  #check({ e, s, c }) {
    if (!this.book || this.gap || compare([e, s], this.position) !== 0) return 'dropped';
    if (this.checksum() === c) return 'applied';
    this.mismatches++;
    return this.#lose();
  }

  #lose() {
    this.gap = true;
    return /** @type {Result} */ ('gap');
  }

  /** CRC-32C of the view that is held; `null` where none is. @returns {number|null} */
  checksum() {
    return this.book && checksum(this.market, this.view, this.book);
  }

  /** The market's part of PROTOCOL.md §4: everything but connection and feed. @returns {boolean} */
  get tradable() {
    return (
      !!this.book && this.book.status === 'open' && !this.gap && !this.gone && compare(this.position, this.stop) >= 0
    );
  }
}
