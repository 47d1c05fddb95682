// What a stream comes back with: the positions in its last event's id, and what they say of a book.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { cursorOf, positionsIn } from '../client/connection.js';
import { Follower } from '../client/follower.js';
import { openEventStream } from '../client/transport.js';

test('an id holds a position for each shard; what does not parse is passed over', () => {
  const epoch = 1838675320933785;
  assert.deepEqual([...positionsIn(`1:3.${epoch.toString(36)}.z,1ekf.1.2,rubbish,1.2`)], [[3, [epoch, 35]], [65535, [1, 2]]]);
  assert.equal(positionsIn('').size + positionsIn('2:1.1.1').size, 0);
});

test('a quiet market stands where its shard was seen to, so that the next delta connects', () => {
  const follower = new Follower('1.1', 0);
  follower.receive({ t: 'snap', m: '1.1', w: 0, e: 5, s: 10, sh: 3, f: 'live', d: {}, r: [] });
  follower.seenUpTo(undefined);
  follower.seenUpTo([4, 99]);
  assert.deepEqual(follower.position, [5, 10], 'another epoch says nothing');
  follower.seenUpTo([5, 20]);
  assert.equal(follower.receive({ t: 'delta', m: '1.1', w: 0, e: 5, p: 20, s: 25, d: { in_play: true } }), 'applied');
  follower.seenUpTo([5, 12]);
  assert.deepEqual(follower.position, [5, 25], 'it never goes back');
});

test('a cursor names each market where it stands, as the gateway reads it', () => {
  assert.equal(cursorOf([['1.234', [4503599627370496, 7]], ['a,b!50%', [3, 35]]]), '1:1.234!18ce53un18g!7,a%2cb%2150%25!3!z');
  const many = Array.from({ length: 1000 }, (_, i) => [`1.${i}`, [1, 1]]);
  const query = new URLSearchParams({ cursor: cursorOf(many, 3000) });
  assert.ok(String(query).length <= 3000 + 'cursor='.length, 'an address has an end');
  assert.equal(cursorOf(many, 0), '1:');
  assert.equal(positionsIn(cursorOf([['a.b.c', [1, 1]]])).size, 0, 'it is no position of a shard');
});

test('a market that ends takes the position along that knew it, until the next heartbeat', () => {
  const listeners = {};
  class EventSource {
    addEventListener(name, f) {
      listeners[name] = f;
    }
  }
  const link = openEventStream({ EventSource }, 'http://gateway', new URLSearchParams(), { message() {}, open() {}, closed() {} });
  const say = (message, lastEventId) => listeners[message.t]({ data: JSON.stringify(message), lastEventId });
  say({ t: 'hb', now: 1 }, '1:3.5.a');
  assert.equal(link.cursor, '1:3.5.a');
  say({ t: 'gone', m: 'm1', e: 5, s: 20 }, '1:3.5.a');
  say({ t: 'feed', src: 'x', sh: 3, f: 'live' }, '1:3.5.a');
  assert.equal(link.cursor, '', 'an event without an id repeats the last one');
  say({ t: 'hb', now: 2 }, '1:3.5.k');
  assert.equal(link.cursor, '1:3.5.k');
});
