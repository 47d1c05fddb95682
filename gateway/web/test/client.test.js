import assert from 'node:assert/strict';
import { test } from 'node:test';
import { OddsClient } from '../client/client.js';
import { checksum } from '../client/checksum.js';
import { cursorOf } from '../client/connection.js';
import { Gateway, Market, Time, seeded } from './model.js';

function setup({ seed = 1, markets = ['m1'], ...options } = {}) {
  const time = new Time();
  const random = seeded(seed);
  const gateway = new Gateway(time, markets.map((id) => new Market(id, random)), random);
  const page = new EventTarget();
  const env = {
    WebSocket: gateway.WebSocket, EventSource: undefined, fetch: undefined, now: time.now, mono: () => time.mono,
    setTimeout: time.setTimeout, clearTimeout: time.clearTimeout, random: () => random(), window: page, document: null,
    ...options.env,
  };
  const client = new OddsClient('http://gateway', { ...options, env });
  const states = [];
  client.on('state', (e) => states.push(e.state));
  return { time, gateway, client, states, random, page, market: gateway.markets.get(markets[0]), env };
}

/** Heartbeats by themselves, as a gateway sends them. */
async function run(s, ms, step = () => {}) {
  for (let passed = 0; passed < ms; passed += 100) {
    if (passed % s.gateway.heartbeat === 0) for (const socket of s.gateway.sessions) s.gateway.beat(socket);
    step();
    await s.time.pass(100);
  }
}

const socketOf = (gateway) => [...gateway.sessions][0];

test('connects, subscribes, follows, and says what may be traded', async () => {
  const s = setup();
  const sub = s.client.market('m1', { view: 3 });
  s.client.connect();
  assert.equal(sub.tradable, false);
  await run(s, 500);
  assert.equal(socketOf(s.gateway).url, 'ws://gateway/v1/ws?catalogue=1');
  assert.deepEqual(socketOf(s.gateway).protocols, ['odds.v1.json']);
  assert.deepEqual(s.states, ['connecting', 'live']);
  assert.ok(sub.tradable && sub.tradableSelection('1/0') && !sub.tradableSelection('7/0'));
  assert.deepEqual(sub.position, [1, 1]);
  let stops = 0;
  sub.onStop(() => stops++);
  s.gateway.send(socketOf(s.gateway), { t: 'stop', m: 'm1', e: 1, s: 9 });
  await run(s, 100);
  assert.ok(stops === 1 && !sub.tradable && sub.stopped);
  s.gateway.send(socketOf(s.gateway), { t: 'feed', src: 'src', sh: 1, f: 'stale', as: 1 });
  await run(s, 100);
  assert.ok(sub.feed === 'stale' && sub.stale);
  s.client.close();
  assert.equal(s.states.at(-1), 'closed');
  await s.time.pass(10_000);
  assert.equal(s.time.timers, 0, 'nothing goes on after close');
});

test('several subscriptions of a market are one on the wire, and the last to close ends it', async () => {
  const s = setup();
  s.client.connect();
  await run(s, 200);
  const a = s.client.market('m1');
  const b = s.client.market('m1');
  await run(s, 200);
  assert.equal(s.gateway.log.filter((m) => m.t === 'sub').length, 1);
  assert.ok(a.book === b.book && b.book);
  a.close();
  await run(s, 200);
  assert.equal(s.gateway.log.filter((m) => m.t === 'unsub').length, 0);
  b.close();
  await run(s, 200);
  assert.equal(s.gateway.log.filter((m) => m.t === 'unsub').length, 1);
});

test('a silent link is stale within 2.5 heartbeats and replaced at once; the old one is not heard again', async () => {
  const s = setup();
  const sub = s.client.market('m1');
  s.client.connect();
  await run(s, 8000);
  const old = socketOf(s.gateway);
  assert.ok(sub.tradable);
  old.blackHole = true;
  await run(s, 1400);
  for (let i = 0; sub.tradable && i < 120; i++) await s.time.pass(10);
  assert.equal(sub.tradable, false);
  assert.equal(sub.book.status, 'open', 'the old book is still there to be shown as old');
  await run(s, 700);
  assert.equal(s.client.stats.connects, 2);
  assert.ok(sub.tradable);
  assert.equal(old.onmessage, null);
  const again = s.gateway.log.filter((m) => m.t === 'sub').at(-1);
  assert.deepEqual(again.from, { m1: [1, 1] }, 'it came back with its position');
});

test('pings say what was read, at once after being far behind, and prices go on', async () => {
  const s = setup();
  const sub = s.client.market('m1');
  s.client.connect();
  await run(s, 3000);
  const pings = () => s.gateway.log.filter((m) => m.t === 'ping');
  assert.equal(pings()[0].now, undefined, 'nothing was read yet');
  const last = () => pings().at(-1);
  assert.ok(last().time - last().now < 1200, 'the newest heartbeat');
  // What it is sent waits in buffers: of the pings that it goes on to send only what it has read is told.
  const socket = socketOf(s.gateway);
  const waiting = [];
  const { onmessage } = socket;
  socket.onmessage = (event) => waiting.push(event);
  const stopped = s.time.now();
  await run(s, 1400);
  assert.ok(last().time > stopped && last().now <= stopped, 'it can name only what it has read');
  socket.read -= 6000; // So long ago, for the gateway.
  s.market.change();
  s.gateway.flush();
  assert.ok(!waiting.some(({ data }) => JSON.parse(data).t === 'delta'), 'prices pause');
  const sent = pings().length;
  const late = { t: 'hb', now: s.time.now() + 3000, behind: 1, dg: s.gateway.digest(socket) };
  for (const event of waiting) onmessage(event);
  onmessage({ data: JSON.stringify(late) });
  socket.onmessage = onmessage;
  await run(s, 100);
  assert.ok(pings().length > sent && last().now === late.now, 'it says at once that it has caught up');
  for (let i = 0; i < 40 && sub.position[1] < s.market.newest.s; i++) {
    s.gateway.flush();
    await run(s, 100);
  }
  assert.equal(sub.position[1], s.market.newest.s);
});

test('nothing is tradable on a new link before the gateway said where the market stands', async () => {
  const s = setup();
  const sub = s.client.market('m1');
  s.client.connect();
  await run(s, 6000);
  s.gateway.heard = function (socket, message) {
    if (message.t === 'ping') this.send(socket, { t: 'hb', now: 0, echo: message.time }); // Live, but no `ok`.
  };
  s.gateway.drop(socketOf(s.gateway), 1012);
  await run(s, 3000);
  assert.equal(s.client.state, 'live');
  assert.equal(sub.tradable, false);
});

test('old heartbeats over a slow link do not make it live', async () => {
  const s = setup();
  const sub = s.client.market('m1');
  s.client.connect();
  await run(s, 3000);
  await run(s, 6000, () => (s.gateway.latency = Math.min(2000, s.gateway.latency + 50)));
  assert.equal(s.client.state, 'stalled');
  assert.equal(sub.tradable, false);
  assert.equal(s.client.stats.connects, 1, 'and it is not thrown away while it speaks');
});

test('a wall clock that leaps (sleep) ends freshness though the monotonic one stood still', async () => {
  const s = setup();
  const sub = s.client.market('m1');
  s.client.connect();
  await run(s, 6000);
  assert.ok(sub.tradable);
  s.time.wallSkew += 60_000;
  assert.equal(sub.tradable, false);
  await run(s, 1000);
  assert.ok(sub.tradable, 'an echo proves it again');
  assert.equal(s.client.stats.connects, 1);
  socketOf(s.gateway).blackHole = true;
  s.time.wallSkew += 60_000;
  await run(s, 2800);
  assert.equal(s.client.stats.connects, 2, 'and where none comes in 2 s, the link is replaced');
});

test('comes back with full jitter, at most 20 s, and stops where that is useless', async () => {
  const s = setup({ env: { random: () => 1 } });
  const waits = [];
  s.client.on('state', (e) => e.retryInMs !== undefined && waits.push(e.retryInMs));
  s.gateway.refuse = true;
  s.client.connect();
  await s.time.pass(120_000);
  assert.deepEqual(waits.slice(0, 8), [500, 1000, 2000, 4000, 8000, 16_000, 20_000, 20_000]);
  s.gateway.refuse = false;
  await run(s, 30_000);
  assert.equal(s.client.state, 'live');
  s.gateway.drop(socketOf(s.gateway), 4429);
  await run(s, 100);
  assert.ok(waits.at(-1) >= 5000);
  await run(s, 20_000);
  s.gateway.drop(socketOf(s.gateway), 4409);
  await run(s, 60_000);
  assert.equal(s.client.state, 'failed');
  assert.equal(s.gateway.sessions.size, 0);
});

test('a bye says when to come back; a slow consumer comes back with more conflation', async () => {
  const s = setup({ env: { random: () => 0 } });
  s.client.market('m1');
  s.client.connect();
  await run(s, 6000);
  const events = [];
  s.client.on('state', (e) => events.push(e));
  s.gateway.send(socketOf(s.gateway), { t: 'bye', code: 1012, why: 'restart', retry: 700 });
  await run(s, 400);
  assert.deepEqual([events[0].state, events[0].code, events[0].retryInMs], ['backoff', 1012, 700]);
  await run(s, 6000);
  s.gateway.drop(socketOf(s.gateway), 4290);
  await run(s, 1000);
  assert.equal(s.gateway.log.filter((m) => m.t === 'sub').at(-1).conflate, 250);
});

test('a checksum or a digest that differs asks for snapshots and does not disconnect', async () => {
  const s = setup();
  const sub = s.client.market('m1', { view: 10 });
  s.client.connect();
  await run(s, 3000);
  const good = checksum('m1', 10, s.market.expected(10));
  s.gateway.send(socketOf(s.gateway), { t: 'crc', m: 'm1', w: 10, e: 1, s: 1, c: good });
  await run(s, 100);
  assert.deepEqual([s.client.stats.checksums, s.client.stats.checksumMismatches], [1, 0]);
  s.gateway.send(socketOf(s.gateway), { t: 'crc', m: 'm1', w: 10, e: 1, s: 1, c: 1 });
  await s.time.pass(30);
  assert.equal(sub.tradable, false);
  await run(s, 300);
  assert.equal(s.client.stats.checksumMismatches, 1);
  assert.equal(s.gateway.log.filter((m) => m.t === 'snapshot').length, 1);
  assert.ok(sub.tradable);
  assert.equal(s.client.stats.digestMismatches, 0);
  while (!s.market.delta(10, s.market.history[0])) s.market.change();
  for (const key of socketOf(s.gateway).cursors.keys()) socketOf(s.gateway).cursors.set(key, s.market.newest); // Sent, they say.
  await run(s, 1500);
  assert.equal(s.client.stats.digestMismatches, 1);
  assert.deepEqual(sub.position, [s.market.newest.e, s.market.newest.s]);
  assert.equal(s.client.stats.connects, 1);
});

test('what the gateway does not know is told to the subscription', async () => {
  const s = setup();
  const sub = s.client.market('nothing');
  const errors = [];
  s.client.on('error', (e) => errors.push(e.code));
  s.client.connect();
  await run(s, 500);
  assert.deepEqual(errors, ['unknown_market']);
  assert.equal(sub.error.code, 'unknown_market');
});

test('the catalogue: full replaces, a change merges, gone goes', async () => {
  const s = setup();
  s.client.connect();
  await run(s, 200);
  const say = (m) => s.gateway.send(socketOf(s.gateway), { t: 'catalogue', ...m });
  say({ full: true, markets: [['a', { name: 'A', status: 'open', reason: 'x' }], ['b', { name: 'B' }]] });
  say({ full: false, markets: [['a', { status: 'suspended', reason: null }]], gone: ['b'] });
  await run(s, 100);
  assert.deepEqual([...s.client.catalogue], [['a', { name: 'A', status: 'suspended' }]]);
  say({ full: true, markets: [['c', {}]] });
  await run(s, 100);
  assert.deepEqual([...s.client.catalogue.keys()], ['c']);
});

test('where WebSocket fails twice before the first message, an event stream takes over', async () => {
  const streams = [];
  class EventSource {
    listeners = {};
    constructor(url) {
      this.url = url;
      streams.push(this);
    }
    addEventListener(name, f) {
      this.listeners[name] = f;
    }
    say(message, lastEventId = '') {
      this.listeners[message.t]({ data: JSON.stringify(message), lastEventId });
    }
    close() {
      this.closed = true;
    }
  }
  const s = setup({ env: { EventSource, fetch: async () => ({ json: async () => ({ now: s.time.now() + 5000 }) }) } });
  s.gateway.muted = true; // Open but silent, as behind a proxy that buffers.
  const sub = s.client.market('m1', { view: 3 });
  s.client.connect();
  for (let i = 0; !streams.length && i < 150; i++) await s.time.pass(100);
  assert.equal(streams.length, 1);
  assert.equal(streams[0].url, 'http://gateway/v1/sse?catalogue=1&market=m1&view=3');
  const stream = streams[0];
  stream.say({ t: 'welcome', v: 1, hb: 1000, now: s.time.now() + 5000, limits: {} });
  stream.say(s.market.snap(3));
  assert.equal(sub.tradable, false, 'a way down needs a heartbeat, too');
  stream.say({ t: 'hb', now: s.time.now() + 5000, behind: 0, dg: 0 }, 'cursor-1');
  assert.ok(sub.tradable);
  stream.say({ t: 'hb', now: s.time.now() + 5000 - 2600, behind: 0, dg: 0 });
  assert.equal(sub.tradable, false, 'an old heartbeat that comes late proves nothing');
  stream.say({ t: 'hb', now: s.time.now() + 5000, behind: 0, dg: 0 }, 'cursor-2');
  stream.onerror();
  assert.ok(stream.closed && !sub.tradable);
  await s.time.pass(2500);
  assert.equal(streams[1].url, 'http://gateway/v1/sse?catalogue=1&market=m1&view=3&cursor=cursor-2');
  s.client.market('m2', { view: 3 });
  await s.time.pass(50);
  const { e, s: n } = s.market.snap(3);
  const held = encodeURIComponent(cursorOf([['m1', [e, n]]])).replace('!', '%21').replace('!', '%21');
  const other = `http://gateway/v1/sse?catalogue=1&market=m1&market=m2&view=3&cursor=${held}`;
  assert.equal(streams[2].url, other, 'the one that is held goes on, the other one starts with a snapshot');
});

test('the msgpack codec is chosen by its subprotocol', async () => {
  const s = setup({ codec: 'msgpack' });
  s.gateway.muted = true;
  s.client.connect();
  await import('../client/msgpack.js'); // Loaded in real time, whatever the clock says.
  await new Promise((resolve) => setImmediate(resolve));
  await s.time.pass(100);
  assert.deepEqual(socketOf(s.gateway).protocols, ['odds.v1.msgpack']);
  assert.equal(socketOf(s.gateway).binaryType, 'arraybuffer');
  assert.deepEqual(s.gateway.log, [new Map([[0, 0], [27, 1]])]);
});

test('through cuts, black holes, restarts and takeovers: never tradable past a stop, never long, and equal at the end', async () => {
  for (let seed = 1; seed <= 40; seed++) {
    const s = setup({ seed, markets: ['m1', 'm2', 'm3'] });
    const subs = ['m1', 'm2', 'm3'].map((id, i) => s.client.market(id, { view: [0, 1, 3][i] === 0 ? 'all' : [0, 1, 3][i] }));
    s.client.connect();
    const closedSince = new Map();
    let traded = 0;
    for (let step = 0; step < 400; step++) {
      const market = s.gateway.markets.get(['m1', 'm2', 'm3'][Math.floor(s.random() * 3)]);
      const what = s.random();
      const socket = socketOf(s.gateway);
      if (what < 0.01 && socket) socket.blackHole = true;
      else if (what < 0.02 && socket) s.gateway.drop(socket, 1006);
      else if (what < 0.03) {
        market.takeOver();
        s.gateway.flush(market);
      } else if (what < 0.035) s.time.wallSkew += (s.random() - 0.5) * 40_000;
      else if (what < 0.6) s.gateway.flush(market.change() ? market : null);
      if (step % 10 === 0) for (const open of s.gateway.sessions) s.gateway.beat(open);
      await s.time.pass(100);
      for (const { id, tradable, position } of subs) {
        const truth = s.gateway.markets.get(id);
        if (truth.book.d.status === 'open') closedSince.delete(id);
        else if (!closedSince.has(id)) closedSince.set(id, s.time.mono);
        if (!tradable) continue;
        traded++;
        assert.equal(truth.at(...position).book.d.status, 'open', `seed ${seed} step ${step}: traded in a closed state`);
        const late = s.time.mono - (closedSince.get(id) ?? s.time.mono);
        assert.ok(late <= 2700, `seed ${seed} step ${step}: ${id} closed ${late} ms ago and still tradable`);
      }
    }
    assert.ok(traded > 100, `seed ${seed}: hardly ever tradable (${traded})`);
    await run(s, 25_000, () => s.gateway.flush());
    for (const sub of subs) {
      const market = s.gateway.markets.get(sub.id);
      const view = [0, 1, 3][subs.indexOf(sub)];
      assert.equal(sub.stale, false, `seed ${seed}: ${sub.id} stale at the end`);
      assert.equal(checksum(sub.id, view, sub.book), checksum(sub.id, view, market.expected(view)), `seed ${seed}: ${sub.id} differs`);
    }
    assert.equal(s.client.stats.digestMismatches, 0, `seed ${seed}`);
    s.client.close();
  }
});
