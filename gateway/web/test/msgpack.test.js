import assert from 'node:assert/strict';
import { test } from 'node:test';
import { msgpack, read, write } from '../client/msgpack.js';

const hex = (text) => Uint8Array.from(text.match(/../g), (b) => parseInt(b, 16));

test('integers, texts and lists of every width survive', () => {
  const ints = [0, 1, 127, 128, 255, 256, 65_535, 65_536, 2 ** 32 - 1, 2 ** 32, 2 ** 53 - 1, -1, -32, -33, -129, -40_000, -(2 ** 31), -(2 ** 31) - 1, -(2 ** 53) + 1];
  const values = [...ints, null, true, false, 1.5, '', 'ä', 'x'.repeat(31), 'x'.repeat(32), 'x'.repeat(300), 'x'.repeat(70_000), [], Array(16).fill(1)];
  for (const value of values) assert.deepEqual(read(write(value)), value);
  assert.deepEqual(read(write(new Map([[1, [2, new Map([['k', -5]])]]]))), new Map([[1, [2, new Map([['k', -5]])]]]));
});

test('bytes of the specification are read', () => {
  assert.deepEqual(read(hex('82a7636f6d70616374c3a6736368656d6100')), new Map([['compact', true], ['schema', 0]]));
  assert.equal(read(hex('d3ffe0000000000001')), -(2 ** 53) + 1);
  assert.equal(read(hex('cf001fffffffffffff')), 2 ** 53 - 1);
  assert.deepEqual(read(hex('9301ff00').slice(0, 4)), [1, -1, 0]);
  assert.throws(() => read(hex('92ff')), RangeError);
  assert.throws(() => read(hex('a561')), RangeError);
  assert.throws(() => read(hex('0101')), RangeError);
});

test('a delta by numbers is the delta by names', () => {
  const wire = write(new Map([
    [0, 20], [1, '1.5'], [2, 3], [3, 7], [4, 99], [5, 101], [99, 'unknown'],
    [7, new Map([[22, 2], [24, 1], [23, null], [10, 'Final'], [77, 1]])],
    [9, [[5, 0]]],
    [8, [[12, -50, new Map([[2, 0], [4, 202], [16, [[202, 5]]], [21, []], [30, 1]])]]],
  ]));
  assert.deepEqual(msgpack.decode(wire), {
    t: 'delta', m: '1.5', w: 3, e: 7, p: 99, s: 101, d: { status: 'suspended', in_play: true, reason: null, name: 'Final' },
    x: [[5, 0]], r: [[12, -50, { status: 'active', last: 202, b: [[202, 5]], L: [] }]],
  });
  const ok = msgpack.decode(write(new Map([[0, 17], [12, 2], [36, 2]])));
  assert.deepEqual(ok, { t: 'ok', f: 'stale', how: 'exact' });
  const list = msgpack.decode(write(new Map([[0, 25], [37, true], [32, [['a', new Map([[2, 'Tennis'], [22, 1]])]]]])));
  assert.deepEqual(list, { t: 'catalogue', full: true, markets: [['a', { sport: 'Tennis', status: 'open' }]] });
});

test('what goes up has numbers for names', () => {
  const sub = read(msgpack.encode({ t: 'sub', id: 3, markets: ['a'], w: 0, conflate: 'auto', from: { a: [2 ** 40, 5] } }));
  assert.deepEqual(sub, new Map([[0, 1], [18, 3], [32, ['a']], [2, 0], [31, 'auto'], [19, new Map([['a', [2 ** 40, 5]]])]]));
  assert.deepEqual(read(msgpack.encode({ t: 'ping', time: 5 })), new Map([[0, 4], [39, 5]]));
  assert.equal(msgpack.decode(write(new Map([[0, 16]]))).t, 'welcome');
  assert.equal(msgpack.decode(write(new Map([[0, 28]]))).t, 'bye');
});
