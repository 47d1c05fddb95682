// The MessagePack codec: the same messages as the JSON one, with numbers for names. An entry of its own, loaded only by
// clients that ask for `codec: 'msgpack'`.

import { FEED_STATE, HOW, MARKET_FIELDS, SELECTION_FIELDS } from './fields.js';

const KEYS = ('t m w e p s ts d r x st sh f src code why retry fatal id from to now echo behind as dg c v conn hb limits ' +
  'conflate markets event sport auth how full gone time shards').split(' ');
const TYPES = ['hello', 'sub', 'unsub', 'snapshot', 'ping'];
TYPES[16] = 'welcome';
TYPES.push('ok', 'err', 'snap', 'delta', 'stop', 'feed', 'gap', 'gone', 'catalogue', 'crc', 'hb', 'bye');
const LADDERS = { 16: 'b', 17: 'l', 18: 'v', 20: 'B', 21: 'L', 22: 'V' };
const NUMBERS = new Map(KEYS.map((name, number) => [name, number]));

/** Reads one value; maps become `Map`, since their keys are numbers. @param {ArrayBuffer|Uint8Array} data */
export function read(data) {
  const bytes = data instanceof Uint8Array ? data : new Uint8Array(data);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const utf8 = new TextDecoder();
  let at = 0;
  const take = (count, get) => {
    const value = get(at);
    at += count;
    return value;
  };
  const u8 = () => take(1, (i) => view.getUint8(i));
  const u16 = () => take(2, (i) => view.getUint16(i));
  const u32 = () => take(4, (i) => view.getUint32(i));
  const raw = (count) => {
    if (at + count > bytes.length) throw new RangeError('MessagePack: cut short');
    return take(count, (i) => bytes.subarray(i, i + count));
  };
  const text = (count) => utf8.decode(raw(count));
  const list = (count) => {
    const out = [];
    while (count-- > 0) out.push(value());
    return out;
  };
  const map = (count) => {
    const out = new Map();
    while (count-- > 0) out.set(value(), value());
    return out;
  };
  function value() {
    const tag = u8();
    if (tag < 0x80) return tag;
    if (tag < 0x90) return map(tag & 15);
    if (tag < 0xa0) return list(tag & 15);
    if (tag < 0xc0) return text(tag & 31);
    if (tag >= 0xe0) return tag - 256;
    switch (tag) {
      case 0xc0: return null;
      case 0xc2: return false;
      case 0xc3: return true;
      case 0xc4: return raw(u8());
      case 0xc5: return raw(u16());
      case 0xc6: return raw(u32());
      case 0xca: return take(4, (i) => view.getFloat32(i));
      case 0xcb: return take(8, (i) => view.getFloat64(i));
      case 0xcc: return u8();
      case 0xcd: return u16();
      case 0xce: return u32();
      case 0xcf: return u32() * 2 ** 32 + u32();
      case 0xd0: return take(1, (i) => view.getInt8(i));
      case 0xd1: return take(2, (i) => view.getInt16(i));
      case 0xd2: return take(4, (i) => view.getInt32(i));
      case 0xd3: return take(4, (i) => view.getInt32(i)) * 2 ** 32 + u32();
      case 0xd9: return text(u8());
      case 0xda: return text(u16());
      case 0xdb: return text(u32());
      case 0xdc: return list(u16());
      case 0xdd: return list(u32());
      case 0xde: return map(u16());
      case 0xdf: return map(u32());
      default: throw new RangeError(`MessagePack: tag ${tag} is not part of the protocol`);
    }
  }
  const out = value();
  if (at !== bytes.length) throw new RangeError('MessagePack: bytes after the message');
  return out;
}

/** Writes one value; `Map` and plain objects become maps. @param {any} root @returns {Uint8Array} */
export function write(root) {
  const out = [];
  const big = (number, count) => {
    for (let i = count - 1; i >= 0; i--) out.push(Math.floor(number / 2 ** (8 * i)) & 255);
  };
  const head = (count, small, max, tag8, tag16) => {
    if (count <= max) out.push(small | count);
    else if (count < 256 && tag8) out.push(tag8, count);
    else if (count < 65_536) out.push(tag16), big(count, 2);
    else out.push(tag16 + 1), big(count, 4);
  };
  const number = (n) => {
    if (!Number.isSafeInteger(n)) {
      const bytes = new Uint8Array(9);
      bytes[0] = 0xcb;
      new DataView(bytes.buffer).setFloat64(1, n);
      out.push(...bytes);
    } else if (n >= 0) {
      if (n < 128) out.push(n);
      else if (n < 256) out.push(0xcc, n);
      else if (n < 65_536) out.push(0xcd), big(n, 2);
      else if (n < 2 ** 32) out.push(0xce), big(n, 4);
      else out.push(0xcf), big(n, 8);
    } else if (n >= -32) out.push(n & 255);
    else if (n >= -(2 ** 31)) out.push(0xd2), big(n >>> 0, 4);
    else out.push(0xd3), big(Math.floor(n / 2 ** 32) >>> 0, 4), big(n >>> 0, 4);
  };
  const value = (v) => {
    if (v === null || v === undefined) out.push(0xc0);
    else if (typeof v === 'boolean') out.push(v ? 0xc3 : 0xc2);
    else if (typeof v === 'number') number(v);
    else if (typeof v === 'string') {
      const bytes = new TextEncoder().encode(v);
      head(bytes.length, 0xa0, 31, 0xd9, 0xda);
      for (const byte of bytes) out.push(byte);
    } else if (Array.isArray(v)) {
      head(v.length, 0x90, 15, 0, 0xdc);
      v.forEach(value);
    } else {
      const entries = v instanceof Map ? [...v] : Object.entries(v);
      head(entries.length, 0x80, 15, 0, 0xde);
      for (const [k, x] of entries) value(k), value(x);
    }
  };
  value(root);
  return Uint8Array.from(out);
}

function named(map, table) {
  const out = {};
  for (const [number, value] of map) {
    const field = table[number];
    if (!field) {
      if (table === SELECTION_FIELDS && LADDERS[number]) out[LADDERS[number]] = value;
      continue;
    }
    const [name, type] = field;
    out[name] = value === null ? null : Array.isArray(type) ? type[value] : type === 'bool' ? !!value : value;
  }
  return out;
}

/** @type {import('./transport.js').Codec} */
export const msgpack = {
  protocol: 'odds.v1.msgpack',
  binary: true,

  encode(message) {
    const out = new Map();
    for (const name in message) {
      if (NUMBERS.has(name)) out.set(NUMBERS.get(name), name === 't' ? TYPES.indexOf(message.t) : message[name]);
    }
    return write(out);
  },

  decode(data) {
    const message = /** @type {any} */ ({});
    for (const [number, value] of read(data)) if (KEYS[number]) message[KEYS[number]] = value;
    message.t = TYPES[message.t];
    if (message.d) message.d = named(message.d, MARKET_FIELDS);
    if (message.r) message.r = message.r.map(([id, handicap, fields]) => [id, handicap, named(fields, SELECTION_FIELDS)]);
    if (message.f !== undefined) message.f = FEED_STATE[message.f];
    if (message.how !== undefined) message.how = HOW[message.how];
    for (const flag of ['fatal', 'full']) if (flag in message) message[flag] = !!message[flag];
    if (message.limits) message.limits = Object.fromEntries(message.limits);
    if (message.t === 'catalogue') message.markets = message.markets?.map(([id, fields]) => [id, named(fields, MARKET_FIELDS)]);
    return message;
  },
};
