// Executes the vectors that the Rust core executes, too: one truth for fields, following and the digest.

import assert from 'node:assert/strict';
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { test } from 'node:test';
import { Book } from '../client/book.js';
import { canonical, checksum, digestKey, mix } from '../client/checksum.js';
import * as fields from '../client/fields.js';
import { Follower } from '../client/follower.js';
import { msgpack } from '../client/msgpack.js';

const DIRECTORY = new URL('../../../proto/vectors/', import.meta.url);
const files = existsSync(DIRECTORY) ? readdirSync(DIRECTORY).filter((f) => f.endsWith('.json')).sort() : [];
const load = (file) => JSON.parse(readFileSync(new URL(file, DIRECTORY), 'utf8'));

const position = (p) => (p ? [p[0], p[1]] : null);

/** Types as words: an enumeration is `enum`, or its list of names where the vector gives it. */
function typed(type, as) {
  if (!Array.isArray(type)) return type;
  return typeof as === 'string' ? 'enum' : Array.isArray(as) ? type : { enum: type };
}

const RUNNERS = {
  'fields.json'(t, vector) {
    const { market, selection, enums } = vector;
    for (const [rows, table, name] of [[market, fields.MARKET_FIELDS, 'market'], [selection, fields.SELECTION_FIELDS, 'selection']]) {
      assert.deepEqual(table.map(([n]) => n), rows.map(([n]) => n), `${name}: names, in the order of their numbers`);
      rows.forEach(([n, type], i) => assert.deepEqual(typed(table[i][1], type), type, `${name}.${n}: type`));
    }
    const tables = { feed: fields.FEED_STATE, status: fields.MARKET_STATUS };
    for (const [name, names] of Object.entries(enums)) {
      assert.deepEqual(tables[name] ?? fields[name.toUpperCase()], names, `${name}: names, in the order of their codes`);
    }
  },

  async 'follow.json'(t, { cases }) {
    for (const { name, market, view, messages, expect } of cases) {
      await t.test(name, () => {
        assert.equal(messages.length, expect.length, 'one expectation a message');
        const follower = new Follower(market, view);
        messages.forEach((message, i) => {
          const result = follower.receive(message);
          const got = {
            result, position: position(follower.position), stop: position(follower.stop), crc: follower.checksum(),
            tradable_market: follower.tradable,
          };
          assert.deepEqual(got, { ...got, ...expect[i] }, `after message ${i}: ${JSON.stringify(message)}`);
          for (const key of Object.keys(expect[i])) assert.ok(key in got, `this runner does not know "${key}"`);
        });
      });
    }
  },

  'digest.json'(t, { cases }) {
    assert.ok(cases.length, 'cases');
    for (const { positions, digest } of cases) {
      const sum = positions.reduce((total, [market, view, seq]) => (total + mix(digestKey(market, view), seq)) >>> 0, 0);
      assert.equal(sum, digest, JSON.stringify(positions));
    }
  },

  'checksum.json'(t, { cases }) {
    assert.ok(cases.length, 'cases');
    for (const { name, snap, view, canonical: text, crc } of cases) {
      const book = Book.from(snap);
      assert.equal(canonical(snap.m, view, book), text, name);
      assert.equal(checksum(snap.m, view, book), crc, name);
    }
  },

  async 'golden.json'(t, { cases }) {
    for (const { name, json, msgpack_hex } of cases) {
      await t.test(name, () => {
        const message = JSON.parse(json);
        const up = ['hello', 'sub', 'unsub', 'snapshot', 'ping'].includes(message.t);
        if (up) assert.equal(Buffer.from(msgpack.encode(message)).toString('hex'), msgpack_hex);
        else assert.deepEqual(msgpack.decode(Buffer.from(msgpack_hex, 'hex')), message);
      });
    }
  },
};

/** What only servers read. */
const SERVERS = ['log.json'];

for (const [file, run] of Object.entries(RUNNERS)) {
  test(`vectors: ${file}`, async (t) => {
    assert.ok(files.includes(file), `${new URL(file, DIRECTORY).pathname} is missing: it belongs beside proto/PROTOCOL.md`);
    await run(t, load(file));
  });
}

test('no vector is left out', () => {
  assert.deepEqual(files.filter((f) => !RUNNERS[f] && !SERVERS.includes(f)), [], 'files that no runner executes');
});
