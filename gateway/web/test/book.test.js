import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Book } from '../client/book.js';
import { canonical, checksum, crc32c, digestKey, mix } from '../client/checksum.js';
import { Follower, compare } from '../client/follower.js';
import { Market, seeded } from './model.js';

const SNAP = {
  t: 'snap', m: '1.5', w: 3, e: 7, s: 100, sh: 0, f: 'live', ts: [1, 0, 0, 0],
  d: { name: 'Final', kind: 'ladder', price_kind: 'odds', status: 'open', in_play: true, unheard_of: 1 },
  r: [[12, 0, { name: 'B', B: [[200, 5], [202, 6]], L: [[204, 7]] }], [9, 50, { name: 'Ä', status: 'removed' }], [9, -50, {}]],
};

test('CRC-32C has the check value of its definition', () => {
  assert.equal(crc32c('123456789'), 0xe3069283);
  assert.equal(crc32c(''), 0);
  assert.equal(crc32c(new Uint8Array(32)), 0x8a9136aa); // RFC 3720, B.4
});

test('the canonical form is in order of numbers, keys and best prices', () => {
  const book = Book.from(SNAP);
  const fields = `10~${crc32c('Final')};12=0;13=0;22=1;24=1;`;
  assert.equal(
    canonical('1.5', 3, book),
    `1.5|3|${fields}[9/-50|b:l:][9/50|0~${crc32c('Ä')};2=1;b:l:][12/0|0~${crc32c('B')};b:202@6,200@5,l:204@7,]`,
  );
  assert.match(canonical('1.5', 0, book), /l:204@7,v:\]$/);
  book.apply({ d: { price_kind: 'probability' } });
  assert.match(canonical('1.5', 3, book), /b:200@5,202@6,l:204@7,\]$/);
});

test('the digest mixes both halves of a sequence number', () => {
  const key = digestKey('1.5', 3);
  assert.equal(key, crc32c('1.5|3'));
  assert.notEqual(mix(key, 5), mix(key, 5 + 2 ** 32));
  assert.equal(mix(0, 0), 0);
  // By hand, in exact arithmetic.
  const exact = (k, seq) => {
    const m = 0xffffffffn;
    let h = BigInt(k) ^ (((seq & m) * 0x9e3779b1n) & m) ^ (((seq >> 32n) * 0x85ebca77n) & m);
    h = ((h ^ (h >> 16n)) * 0x85ebca6bn) & m;
    h = ((h ^ (h >> 13n)) * 0xc2b2ae35n) & m;
    return Number(h ^ (h >> 16n));
  };
  for (const seq of [1n, 4294967295n, 4294967296n, 9007199254740991n]) assert.equal(mix(key, Number(seq)), exact(key, seq));
});

test('absent leaves, null clears, a value replaces, size 0 deletes, a capital replaces the side', () => {
  const book = Book.from(SNAP);
  const changed = book.apply({
    d: { reason: 'goal', in_play: null, __proto__: null },
    x: [[9, 50], [77, 0]],
    r: [[12, 0, { b: [[200, 0], [201, 9], [203, 0]], L: [[206, 1]] }], [5, 0, { name: 'New' }]],
  });
  assert.deepEqual([...changed].sort(), ['12/0', '5/0', '9/50', 'market']);
  assert.equal(book.fields.reason, 'goal');
  assert.ok(!('in_play' in book.fields) && !('unheard_of' in book.fields));
  assert.equal(book.fields.status, 'open');
  assert.deepEqual(book.selections.get('12/0').back, [[201, 9], [202, 6]]);
  assert.deepEqual(book.selections.get('12/0').lay, [[206, 1]]);
  assert.deepEqual(book.inOrder().map((s) => s.key), ['5/0', '9/-50', '12/0']);
});

test('a selection that leaves and joins again in one delta starts empty', () => {
  const book = Book.from(SNAP);
  book.apply({ x: [[12, 0]], r: [[12, 0, { name: 'Again' }]] });
  assert.deepEqual(book.selections.get('12/0').back, []);
});

test('the chain of positions: drop, apply, gap, replace', () => {
  const f = new Follower('1.5', 3);
  const delta = (e, p, s) => ({ t: 'delta', m: '1.5', w: 3, e, p, s, d: { matched: s } });
  assert.equal(f.receive(delta(7, 99, 100)), 'gap', 'nothing is held');
  assert.equal(f.receive(SNAP), 'replaced');
  assert.equal(f.receive(delta(6, 100, 101)), 'dropped');
  assert.equal(f.receive(delta(7, 90, 100)), 'dropped');
  assert.equal(f.receive(delta(7, 90, 105)), 'applied');
  assert.deepEqual(f.position, [7, 105]);
  assert.ok(f.tradable);
  assert.equal(f.receive(delta(7, 106, 107)), 'gap');
  assert.ok(!f.tradable && f.book.fields.matched === 105, 'the old book stays, untradable');
  assert.equal(f.receive(delta(7, 105, 108)), 'gap', 'nothing is applied until a snapshot');
  assert.equal(f.position[1], 105);
  assert.equal(f.receive({ ...SNAP, s: 104 }), 'dropped');
  assert.ok(f.gap);
  assert.equal(f.receive({ ...SNAP, s: 108 }), 'replaced');
  assert.ok(!('matched' in f.book.fields), 'a snapshot replaces, it does not merge');
  assert.equal(f.receive(delta(8, 100, 109)), 'gap');
  assert.equal(f.receive({ ...SNAP, e: 8, s: 1 }), 'replaced');
});

test('a stop bars until the book is at or past it, from wherever it is heard', () => {
  const f = new Follower('1.5', 3);
  f.receive(SNAP);
  assert.equal(f.receive({ t: 'stop', m: '1.5', e: 7, s: 103 }), 'stopped');
  assert.equal(f.receive({ t: 'stop', m: '1.5', e: 7, s: 102 }), 'dropped');
  f.receive({ t: 'delta', e: 7, p: 100, s: 102, d: { matched: 1 } });
  assert.ok(!f.tradable);
  f.receive({ t: 'delta', e: 7, p: 102, s: 104, d: { suspensions: 1 } });
  assert.ok(f.tradable);
  f.receive({ ...SNAP, s: 90, st: [7, 110] });
  assert.ok(!f.tradable, 'the stop of a dropped snapshot counts');
  f.receive({ ...SNAP, s: 110 });
  assert.ok(f.tradable);
  f.receive({ t: 'ok', e: 8, s: 1, st: [8, 1] });
  assert.ok(!f.tradable);
});

test('a checksum is compared at equal position only', () => {
  const f = new Follower('1.5', 3);
  f.receive(SNAP);
  const c = checksum('1.5', 3, f.book);
  assert.equal(f.receive({ t: 'crc', e: 7, s: 100, c }), 'checked');
  assert.equal(f.receive({ t: 'crc', e: 7, s: 101, c: 1 }), 'noted');
  assert.ok(!f.gap);
  assert.equal(f.receive({ t: 'crc', e: 7, s: 100, c: c ^ 1 }), 'mismatch');
  assert.ok(f.gap);
});

test('whatever a wire does, a follower shows a state that existed, and converges', () => {
  let applied = 0;
  for (let seed = 1; seed <= 300; seed++) {
    const random = seeded(seed);
    const view = [0, 1, 3, 10][seed % 4];
    const market = new Market('1.5', random);
    const f = new Follower('1.5', view);
    f.receive(market.snap(view));
    let air = [];
    let stopHeard = null;
    const check = () => {
      const truth = market.at(...f.position);
      if (!f.gap) assert.equal(f.checksum(), checksum('1.5', view, market.expected(view, truth)), `seed ${seed}`);
      if (f.tradable) {
        assert.ok(compare(f.position, stopHeard) >= 0, `seed ${seed}: tradable before a stop that was heard`);
        assert.equal(truth.book.d.status, 'open');
      }
    };
    const hear = (message) => {
      if (message.t === 'stop' && compare([message.e, message.s], stopHeard) > 0) stopHeard = [message.e, message.s];
      applied += f.receive(message) === 'applied' ? 1 : 0;
      check();
      if (f.gap && random() < 0.5) air.push(market.snap(view, random() < 0.3 ? market.history[market.history.length >> 1] : undefined));
    };
    for (let step = 0; step < 120; step++) {
      const { length } = market.history;
      const base = market.history[Math.max(0, length - 1 - (random() < 0.2 ? Math.floor(random() * 4) : 0))];
      if (random() < 0.02) {
        market.takeOver();
        air.push({ t: 'stop', m: '1.5', e: market.epoch, s: market.seq });
        if (random() < 0.7) air.push(market.snap(view));
      } else {
        if (market.change()) air.push({ t: 'stop', m: '1.5', e: market.epoch, s: market.seq });
        const message = base.e === market.epoch && market.delta(view, base);
        if (message) air.push(message);
      }
      if (random() < 0.15) air = air.filter(() => random() > 0.2); // lost
      if (random() < 0.1 && air.length) air.push(air[Math.floor(random() * air.length)]); // twice
      if (random() < 0.1) air.sort(() => random() - 0.5); // out of order
      while (air.length && random() < 0.8) hear(air.shift());
    }
    while (air.length) hear(air.shift());
    hear(market.snap(view));
    assert.equal(f.gap, false);
    assert.equal(f.checksum(), checksum('1.5', view, market.expected(view)), `seed ${seed}`);
    assert.equal(f.tradable, market.book.d.status === 'open');
  }
  assert.ok(applied > 3000, `the wires let hardly anything through: ${applied}`);
});
