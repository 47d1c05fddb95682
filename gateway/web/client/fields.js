// The tables of fields: names, types and, by their places, numbers. Twin of `proto/src/model/fields.rs`; the vector
// `fields.json` compares the two. Enumerations and booleans travel and are held by name; `codeOf` gives their integers.

export const MARKET_STATUS = ['inactive', 'open', 'suspended', 'closed', 'settled', 'void', 'handed_over'];
export const SELECTION_STATUS = ['active', 'removed', 'winner', 'loser', 'placed', 'void', 'hidden'];
export const KIND = ['ladder', 'fixed'];
export const PRICE_KIND = ['odds', 'probability', 'line'];
export const SIZE_KIND = ['stake', 'payout', 'contracts'];
export const FEED_STATE = ['live', 'recovering', 'stale', 'down'];
export const HOW = ['snap', 'delta', 'exact'];

/** @typedef {'int'|'bool'|'text'|string[]} FieldType an array is an enumeration */
/** @typedef {number|string|boolean} FieldValue */

/** Fields of a market; a field's number is its place. @type {[string, FieldType][]} */
export const MARKET_FIELDS = [
  ['event', 'text'], ['event_name', 'text'], ['sport', 'text'], ['competition', 'text'], ['venue', 'text'],
  ['start', 'int'], ['score', 'text'], ['clock', 'text'], ['source', 'text'], ['type', 'text'], ['name', 'text'],
  ['line', 'text'], ['kind', KIND], ['price_kind', PRICE_KIND], ['price_exponent', 'int'], ['size_kind', SIZE_KIND],
  ['size_exponent', 'int'], ['currency', 'text'], ['ticks', 'text'], ['winners', 'int'], ['each_way', 'int'],
  ['version', 'int'], ['status', MARKET_STATUS], ['reason', 'text'], ['in_play', 'bool'], ['bet_delay', 'int'],
  ['matched', 'int'], ['suspensions', 'int'], ['crossed', 'bool'],
];

/** Fields of a selection, but for its ladders. @type {[string, FieldType][]} */
export const SELECTION_FIELDS = [
  ['name', 'text'], ['sort', 'int'], ['status', SELECTION_STATUS], ['adjustment', 'int'], ['last', 'int'],
  ['volume', 'int'], ['sp_near', 'int'], ['sp_far', 'int'], ['sp', 'int'], ['price', 'int'], ['native', 'text'],
  ['max_stake', 'int'], ['probability', 'int'], ['void_factor', 'int'], ['dead_heat', 'int'], ['certainty', 'int'],
];

/** Types by name. */
export const MARKET_TYPES = new Map(MARKET_FIELDS);
export const SELECTION_TYPES = new Map(SELECTION_FIELDS);

/**
 * The integer that stands for a value that is not a text.
 * @param {FieldType} type @param {FieldValue} value @returns {number}
 */
export function codeOf(type, value) {
  return Array.isArray(type) ? type.indexOf(/** @type {string} */ (value)) : Number(value);
}
