// A stand-in for a gateway, to look at the pages: `node test/dev-server.mjs [port]`. Invented markets that move, over
// WebSocket or an event stream. Not the product: no resume, no bounds, one view.
// GET /dev/{stale,live,mute,talk,drop,suspend,open} changes what it does.

import { createHash } from 'node:crypto';
import { createServer } from 'node:http';
import { readFile } from 'node:fs/promises';
import { extname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';
import { checksum, digestKey, mix } from '../client/checksum.js';
import { Book } from '../client/book.js';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const TYPES = { '.html': 'text/html', '.js': 'text/javascript', '.mjs': 'text/javascript', '.css': 'text/css', '.svg': 'image/svg+xml' };
const EPOCH = 1_806_336_000_001;
let seq = 1000;
let feed = 'live';
let muted = false;
const clients = new Set();
const markets = new Map();
const rand = (n) => Math.floor(Math.random() * n);

function ladder(mid) {
  const tick = mid < 200 ? 1 : mid < 300 ? 2 : mid < 400 ? 5 : mid < 600 ? 10 : mid < 1000 ? 20 : mid < 2000 ? 50 : 100;
  const at = Math.round(mid / tick) * tick;
  const side = (sign) => [1, 2, 3].map((i) => [at + sign * tick * i, 200 + rand(250_000)]).sort((a, b) => a[0] - b[0]);
  return { B: side(-1), L: side(1) };
}

function add(id, d, names, { status = 'open', fixed, results } = {}) {
  const market = { id, mids: new Map(), d: { kind: fixed ? 'fixed' : 'ladder', price_kind: 'odds', price_exponent: 2, size_kind: 'stake', size_exponent: 2, currency: 'GBP', source: 'dev', winners: 1, matched: rand(9e8), bet_delay: d.in_play ? 5 : 0, status, ...d }, r: [] };
  names.forEach(([name, mid], i) => {
    market.mids.set(i + 1, mid);
    const fields = { name, sort: i + 1, status: results?.[i] ?? 'active' };
    if (fixed) Object.assign(fields, { price: mid, native: `${mid / 100 - 1}/1`, max_stake: 50_000 });
    else if (fields.status !== 'removed') Object.assign(fields, { last: mid, volume: rand(3e8), ...ladder(mid) });
    else fields.adjustment = 8500;
    market.r.push([i + 1, 0, fields]);
  });
  market.seq = ++seq;
  market.book = Book.from(market);
  markets.set(id, market);
}

const soon = (m) => Date.now() + m * 60_000;
const football = { event: 'f1', event_name: 'Northwick v Harrow Vale', sport: 'Football', competition: 'Premier Division', start: soon(-62), in_play: true, score: '2 – 1', clock: '61:24' };
add('1.101', { ...football, name: 'Match odds' }, [['Northwick', 134], ['Harrow Vale', 1150], ['The draw', 520]]);
add('1.102', { ...football, name: 'Over/under 3.5 goals' }, [['Under 3.5 goals', 186], ['Over 3.5 goals', 216]]);
add('1.103', { ...football, name: 'Both teams to score' }, [['Yes', 101], ['No', 2000]], { status: 'settled', results: ['winner', 'loser'] });
const second = { event: 'f2', event_name: 'Calder Rovers v Seaton', sport: 'Football', competition: 'Premier Division', start: soon(48) };
add('1.104', { ...second, name: 'Match odds' }, [['Calder Rovers', 242], ['Seaton', 310], ['The draw', 345]]);
add('1.105', { ...second, name: 'First goalscorer' }, [['J. Okafor', 550], ['M. Lindqvist', 700], ['D. Pryce', 900], ['No goalscorer', 1200]], { fixed: true });
const race = { event: 'h1', event_name: '15:40 Wexcombe', sport: 'Horse racing', competition: '2m 3f handicap hurdle', venue: 'Wexcombe', start: soon(6) };
const runners = [['Paper Lantern', 345], ['Quiet Harbour', 510], ['Tollgate Lad', 680], ['Marigold Row', 920], ['Second Post', 1150], ['Kestrel Point', 1450], ['Old Sixpence', 2100], ['Brook Farm Boy', 3600], ['Windmill Hill', 5500]];
add('1.201', { ...race, name: 'Win' }, runners, { results: Array(7).fill('active').concat('removed') });
add('1.202', { ...race, name: 'Place', winners: 3 }, runners.map(([n, p]) => [n, 100 + Math.round((p - 100) / 4)]), { status: 'suspended' });
const tennis = { event: 't1', event_name: 'Ferreira v Halvorsen', sport: 'Tennis', competition: 'Lisbon, semi-final', start: soon(-95), in_play: true, score: '6–4 3–6 2–1', clock: 'Set 3' };
add('1.301', { ...tennis, name: 'Match odds' }, [['L. Ferreira', 178], ['A. Halvorsen', 226]]);
add('1.302', { event: 't2', event_name: 'Sato v Brandt', sport: 'Tennis', competition: 'Lisbon, semi-final', start: soon(190), name: 'Match odds' }, [['K. Sato', 152], ['P. Brandt', 288]]);

const SUMMARY = ['event', 'event_name', 'sport', 'competition', 'venue', 'start', 'score', 'clock', 'type', 'name', 'line', 'kind', 'price_kind', 'price_exponent', 'size_exponent', 'currency', 'status', 'in_play', 'matched'];
const summary = (m) => [m.id, Object.fromEntries(SUMMARY.filter((k) => m.book.fields[k] !== undefined).map((k) => [k, m.book.fields[k]]))];
const stamps = () => [Date.now() - 35 - rand(30), 12, 8, 3];
const say = (c, m) => !muted && c.send(m);

function snap(c, id) {
  const m = markets.get(id);
  const r = m.book.inOrder().map((s) => [s.id, s.handicap, { ...s.fields, B: s.back, L: s.lay }]);
  c.at.set(id, m.seq);
  say(c, { t: 'snap', m: id, w: 3, e: EPOCH, s: m.seq, sh: 1, f: feed, ts: stamps(), d: m.book.fields, r });
}

function take(c, id, request) {
  if (!markets.has(id)) return say(c, { t: 'err', id: request, m: id, code: 'unknown_market', why: `No market has the id ${id}.`, fatal: true });
  say(c, { t: 'ok', id: request, m: id, w: 3, conflate: 'auto', e: EPOCH, s: markets.get(id).seq, sh: 1, src: 'dev', f: feed, how: 'snap' });
  snap(c, id);
}

function beat(c, echo) {
  let dg = 0;
  for (const [id, s] of c.at) dg = (dg + mix(digestKey(id, 3), s)) >>> 0;
  say(c, { t: 'hb', now: Date.now(), echo, behind: 0, as: feed === 'live' ? Date.now() - 200 : c.asOf, dg });
  if (feed === 'live') c.asOf = Date.now();
}

function welcome(send) {
  const c = { send, at: new Map(), asOf: Date.now() };
  clients.add(c);
  say(c, { t: 'welcome', v: 1, conn: 'dev', hb: 1000, now: Date.now(), limits: {} });
  say(c, { t: 'catalogue', full: true, markets: [...markets.values()].map(summary), gone: [] });
  return c;
}

function change(m, delta) {
  const p = m.seq;
  m.seq = ++seq;
  m.book.apply(delta);
  const stops = delta.d?.status === 'suspended';
  for (const c of clients) {
    if (!c.at.has(m.id)) continue;
    if (stops) say(c, { t: 'stop', m: m.id, e: EPOCH, s: m.seq, why: 'suspended' });
    c.at.set(m.id, m.seq);
    say(c, { t: 'delta', m: m.id, w: 3, e: EPOCH, p, s: m.seq, ts: stamps(), ...delta });
    if (m.seq % 32 === 0) say(c, { t: 'crc', m: m.id, w: 3, e: EPOCH, s: m.seq, c: checksum(m.id, 3, m.book) });
  }
  if (delta.d) for (const c of clients) say(c, { t: 'catalogue', full: false, markets: [[m.id, delta.d]], gone: [] });
}

setInterval(() => {
  if (feed !== 'live') return;
  for (const m of markets.values()) {
    if (m.book.status !== 'open') continue;
    const s = [...m.book.selections.values()][rand(m.book.selections.size)];
    if (s.fields.status !== 'active') continue;
    const mid = Math.max(104, Math.round(m.mids.get(s.id) * (0.985 + Math.random() * 0.03)));
    if (m.d.kind === 'fixed') Math.random() < 0.1 && change(m, { r: [[s.id, 0, { price: mid, native: null }]] });
    else change(m, { r: [[s.id, 0, { last: mid, volume: (s.fields.volume ?? 0) + rand(90_000), ...ladder(mid) }]], ...(Math.random() < 0.1 && { d: { matched: m.book.fields.matched + rand(200_000) } }) });
  }
}, 250);
setInterval(() => clients.forEach((c) => beat(c)), 1000);

const COMMANDS = {
  stale: () => ((feed = 'stale'), clients.forEach((c) => say(c, { t: 'feed', src: 'dev', sh: 1, f: 'stale', as: Date.now() }))),
  live: () => ((feed = 'live'), clients.forEach((c) => say(c, { t: 'feed', src: 'dev', sh: 1, f: 'live', as: Date.now() }))),
  mute: () => (muted = true),
  talk: () => (muted = false),
  drop: () => clients.forEach((c) => c.end()),
  suspend: () => change(markets.get('1.101'), { d: { status: 'suspended', reason: 'VAR check' } }),
  open: () => change(markets.get('1.101'), { d: { status: 'open', reason: null } }),
};

const server = createServer(async (request, response) => {
  const url = new URL(request.url, 'http://dev');
  if (url.pathname === '/v1/time') return response.end(JSON.stringify({ now: Date.now() }));
  if (url.pathname.startsWith('/dev/')) return COMMANDS[url.pathname.slice(5)]?.(), response.end('ok');
  if (url.pathname === '/v1/sse') {
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    const c = welcome((m) => response.write(`event: ${m.t}\n${m.t === 'hb' ? 'id: c1\n' : ''}data: ${JSON.stringify(m)}\n\n`));
    c.end = () => response.end();
    for (const id of url.searchParams.getAll('market')) take(c, id);
    beat(c);
    return request.on('close', () => clients.delete(c));
  }
  try {
    const path = normalize(url.pathname === '/' ? '/index.html' : url.pathname);
    const body = await readFile(join(ROOT, path));
    response.writeHead(200, { 'content-type': TYPES[extname(path)] ?? 'text/plain', 'content-security-policy': "default-src 'self'", 'cache-control': 'no-cache' });
    response.end(body);
  } catch {
    response.writeHead(404).end('not here');
  }
});

server.on('upgrade', (request, socket) => {
  const accept = createHash('sha1').update(`${request.headers['sec-websocket-key']}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64');
  socket.write(`HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\nSec-WebSocket-Protocol: odds.v1.json\r\n\r\n`);
  const c = welcome((m) => {
    const data = Buffer.from(JSON.stringify(m));
    const head = data.length < 126 ? Buffer.from([0x81, data.length]) : Buffer.from([0x81, 126, data.length >> 8, data.length & 255]);
    socket.write(Buffer.concat([head, data]));
  });
  c.end = () => socket.destroy();
  let held = Buffer.alloc(0);
  socket.on('data', (chunk) => {
    held = Buffer.concat([held, chunk]);
    for (;;) {
      if (held.length < 2) return;
      const long = (held[1] & 127) === 126;
      const length = long ? held.readUInt16BE(2) : held[1] & 127;
      const start = long ? 8 : 6;
      if (held.length < start + length) return;
      const body = Buffer.from(held.subarray(start, start + length)).map((b, i) => b ^ held[start - 4 + (i & 3)]);
      const op = held[0] & 15;
      held = held.subarray(start + length);
      if (op === 8) return socket.end();
      if (op === 1) heard(JSON.parse(body));
    }
  });
  const heard = (m) => {
    if (m.t === 'ping') beat(c, m.time);
    if (m.t === 'sub') for (const id of m.markets ?? []) take(c, id, m.id);
    if (m.t === 'unsub') for (const id of m.markets ?? []) c.at.delete(id);
    if (m.t === 'snapshot') snap(c, m.m);
  };
  socket.on('close', () => clients.delete(c));
  socket.on('error', () => clients.delete(c));
});

server.listen(Number(process.argv[2] ?? 0), '127.0.0.1', () => console.log(`http://127.0.0.1:${server.address().port}/`));
