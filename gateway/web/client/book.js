// A market's book as one view shows it: fields, selections, ladders; and how snapshots and deltas change it.

import { MARKET_TYPES, SELECTION_TYPES } from './fields.js';

/** @typedef {[price: number, size: number]} Level scaled integers */
/** @typedef {'back'|'lay'|'traded'} Side */
/**
 * @typedef {object} Selection
 * @property {string} key `<id>/<handicap>` @property {number} id @property {number} handicap hundredths
 * @property {Record<string, import('./fields.js').FieldValue>} fields those that are set
 * @property {Level[]} back by ascending price @property {Level[]} lay @property {Level[]} traded
 */

/** In a message: what changes a side's levels, and what replaces the side. */
const SIDES = /** @type {[string, string, Side][]} */ ([['b', 'B', 'back'], ['l', 'L', 'lay'], ['v', 'V', 'traded']]);

/** Absent = unchanged, null = cleared, value = replaced. Says whether anything was named. */
function setFields(held, changes, types) {
  let named = false;
  for (const name in changes) {
    if (!types.has(name)) continue;
    if (changes[name] === null) delete held[name];
    else held[name] = changes[name];
    named = true;
  }
  return named;
}

/** Sets the size at a price, 0 deletes. @param {Level[]} ladder @param {number} price @param {number} size */
function setLevel(ladder, price, size) {
  let low = 0;
  for (let high = ladder.length; low < high; ) {
    const middle = (low + high) >> 1;
    if (ladder[middle][0] < price) low = middle + 1;
    else high = middle;
  }
  const found = low < ladder.length && ladder[low][0] === price;
  if (size === 0) found && ladder.splice(low, 1);
  else if (found) ladder[low] = [price, size];
  else ladder.splice(low, 0, [price, size]);
}

export class Book {
  /** @type {Record<string, any>} the market's fields that are set */
  fields = {};
  /** @type {Map<string, Selection>} by `<id>/<handicap>` */
  selections = new Map();
  /** @type {Selection[]|null} */
  #ordered = null;

  /** A book from a `snap`. @param {{d?: object, r?: any[]}} message */
  static from(message) {
    const book = new Book();
    book.apply(message);
    return book;
  }

  /**
   * Applies a delta's content whole. Nothing may be shown in between, hence no callbacks.
   * @param {{d?: object|null, x?: any[], r?: any[]}} message
   * @returns {Set<string>} keys of the selections that were touched, and `market` where a field of the market was
   */
  apply({ d, x, r }) {
    /** @type {Set<string>} */
    const changed = new Set();
    for (const [id, handicap] of x ?? []) {
      const key = `${id}/${handicap}`;
      if (this.selections.delete(key)) changed.add(key);
      this.#ordered = null;
    }
    if (d && setFields(this.fields, d, MARKET_TYPES)) changed.add('market');
    for (const [id, handicap, change] of r ?? []) {
      const key = `${id}/${handicap}`;
      let selection = this.selections.get(key);
      if (!selection) {
        selection = { key, id, handicap, fields: {}, back: [], lay: [], traded: [] };
        this.selections.set(key, selection);
        this.#ordered = null;
      }
      setFields(selection.fields, change, SELECTION_TYPES);
      for (const [some, all, side] of SIDES) {
        if (change[all]) selection[side] = [];
        for (const level of change[all] ?? []) setLevel(selection[side], level[0], level[1]);
        for (const level of change[some] ?? []) setLevel(selection[side], level[0], level[1]);
      }
      changed.add(key);
    }
    return changed;
  }

  /** Selections by (id, handicap). @returns {Selection[]} */
  inOrder() {
    return (this.#ordered ??= [...this.selections.values()].sort((a, b) => a.id - b.id || a.handicap - b.handicap));
  }

  /** The status; inactive where none was given. @returns {string} */
  get status() {
    return this.fields.status ?? 'inactive';
  }

  /**
   * Best levels first; traded by ascending price.
   * @param {Selection} selection @param {Side} side @param {number} [count] @returns {Level[]}
   */
  best(selection, side, count = Infinity) {
    const ladder = selection[side];
    const high = side !== 'traded' && (side === 'back') === (this.fields.price_kind !== 'probability');
    return high ? ladder.slice(Math.max(0, ladder.length - count)).reverse() : ladder.slice(0, count);
  }
}

/** The status of a selection; active where none was given. @param {Selection} selection @returns {string} */
export function selectionStatus(selection) {
  return /** @type {string} */ (selection.fields.status ?? 'active');
}
