// The canonical form of a view, its CRC-32C, and the digest of a session's positions. Twin of `proto/src/checksum.rs`.

import { MARKET_FIELDS, SELECTION_FIELDS, codeOf } from './fields.js';

const TABLE = new Uint32Array(256).map((_, n) => {
  for (let k = 0; k < 8; k++) n = n & 1 ? (n >>> 1) ^ 0x82f63b78 : n >>> 1;
  return n;
});
const utf8 = new TextEncoder();

/** CRC-32C (Castagnoli) of bytes, or of a text's UTF-8. @param {Uint8Array|string} data @returns {number} */
export function crc32c(data) {
  const bytes = typeof data === 'string' ? utf8.encode(data) : data;
  let crc = ~0;
  for (let i = 0; i < bytes.length; i++) crc = TABLE[(crc ^ bytes[i]) & 255] ^ (crc >>> 8);
  return ~crc >>> 0;
}

function fields(table, held) {
  let out = '';
  for (let number = 0; number < table.length; number++) {
    const [name, type] = table[number];
    const value = held[name];
    if (value !== undefined) out += type === 'text' ? `${number}~${crc32c(value)};` : `${number}=${codeOf(type, value)};`;
  }
  return out;
}

/**
 * The canonical form of a view of a book. A view that was already projected gives the same text.
 * @param {string} market @param {number} view 1, 3, 10, or 0 for all @param {import('./book.js').Book} book
 * @returns {string}
 */
export function canonical(market, view, book) {
  let out = `${market}|${view}|${fields(MARKET_FIELDS, book.fields)}`;
  for (const selection of book.inOrder()) {
    out += `[${selection.id}/${selection.handicap}|${fields(SELECTION_FIELDS, selection.fields)}`;
    for (const side of view ? ['back', 'lay'] : ['back', 'lay', 'traded']) {
      out += `${side[0] === 't' ? 'v' : side[0]}:`;
      for (const [price, size] of book.best(selection, side, view || Infinity)) out += `${price}@${size},`;
    }
    out += ']';
  }
  return out;
}

/** CRC-32C of the canonical form. @param {string} market @param {number} view @param {import('./book.js').Book} book */
export function checksum(market, view, book) {
  return crc32c(canonical(market, view, book));
}

/** A subscription's constant part of the digest. @param {string} market @param {number} view */
export function digestKey(market, view) {
  return crc32c(`${market}|${view}`);
}

/** One subscription's share of the digest, which is the sum of all modulo 2^32. @param {number} key @param {number} seq */
export function mix(key, seq) {
  let h = key ^ Math.imul(seq % 2 ** 32, 0x9e3779b1) ^ Math.imul(Math.floor(seq / 2 ** 32), 0x85ebca77);
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}
