// The pages: one client, two views of it (the board at `#/`, a market at `#/market/<id>`), one frame loop.
// `?transport=sse` and `?codec=msgpack` choose how the feed comes; `?gateway=` where from.

import { Board } from './board.js';
import { OddsClient } from './client/client.js';
import { Text, element } from './element.js';
import { ago, bytes } from './format.js';
import { MarketPage } from './market.js';

const query = new URLSearchParams(location.search);
const $ = (id) => /** @type {any} */ (document.getElementById(id));
const transport = query.get('transport');
const client = new OddsClient(query.get('gateway') ?? location.origin, {
  ...(transport && { transports: [transport] }),
  codec: query.get('codec') === 'msgpack' ? 'msgpack' : 'json',
});
const filter = { text: '', inPlay: false };
const board = new Board(client, filter);
let page = /** @type {any} */ (board);
let scrolled = 0;

// ---- announcements: politely, and not each flicker

let toSay = '';
let sayTimer = null;
function announce(text) {
  toSay = text;
  sayTimer ??= setTimeout(() => {
    sayTimer = null;
    $('announce').textContent = toSay;
  }, 2000);
}

// ---- where we are

function route() {
  const id = /^#\/market\/(.+)$/.exec(location.hash)?.[1];
  if (location.hash === '#main') return;
  if (page === board) scrolled = scrollY;
  page.close();
  page = id ? new MarketPage(client, decodeURIComponent(id), announce) : board;
  if (!id) document.title = 'tictac · live odds';
  document.body.dataset.page = id ? 'market' : 'board';
  board.invalidate();
  if (page.tick) page.tick();
  page.flush();
  $('main').replaceChildren(page.root);
  scrollTo(0, id ? 0 : scrolled);
  if (id) $('main').focus({ preventScroll: true });
}
addEventListener('hashchange', route);

// ---- the bar

$('search').addEventListener('input', () => {
  filter.text = $('search').value;
  if (page !== board) location.hash = '#/';
  board.invalidate();
});
document.querySelector('.search').addEventListener('submit', (event) => {
  event.preventDefault();
  board.root.querySelector('a[data-market]')?.focus();
});
$('inplay').addEventListener('click', () => {
  filter.inPlay = !filter.inPlay;
  $('inplay').setAttribute('aria-pressed', String(filter.inPlay));
  board.invalidate();
});
addEventListener('keydown', (event) => {
  const typing = event.target === $('search');
  if (event.key === '/' && !typing) {
    event.preventDefault();
    $('search').focus();
  } else if (event.key === 'Escape') {
    if (typing && filter.text) {
      $('search').value = filter.text = '';
      board.invalidate();
    } else if (page !== board) location.hash = '#/';
  } else if (event.key === 'ArrowDown' && page === board && (typing || event.target === document.body)) {
    event.preventDefault();
    board.root.querySelector('a[data-market]')?.focus();
  }
});

// ---- the connection

const WORDS = { idle: 'Idle', connecting: 'Connecting', live: 'Live', stalled: 'Stalled', backoff: 'Offline', closed: 'Closed', failed: 'Refused' };
let wasLive = false;
let downSince = performance.now();
let lastReason = '';
client.on('state', ({ state, reason, code }) => {
  if (state === 'live') wasLive = true;
  if (state !== 'live' && $('connection').dataset.state === 'live') downSince = performance.now();
  if (state === 'backoff' || state === 'failed') lastReason = reason || (code ? `code ${code}` : '');
  $('connection').dataset.state = state;
  $('connection').lastElementChild.textContent = WORDS[state];
  banner();
  if (wasLive) announce(state === 'live' ? 'Connection restored' : 'Connection lost: prices are not live');
});
client.on('catalogue', ({ changed, full }) => {
  board.known = true;
  board.invalidate(full ? null : changed);
});

function banner() {
  const { state } = client;
  const down = performance.now() - downSince;
  let text = '';
  if (state === 'failed') text = `The gateway refused the connection${lastReason ? `: ${lastReason}` : ''}. Reload to try again.`;
  else if (state === 'stalled') text = 'Connection stalled. Prices shown are not live.';
  else if (state !== 'live' && (wasLive || down > 4000)) text = wasLive ? 'Connection lost, reconnecting. Prices shown are not live.' : 'No connection to the gateway yet; trying again.';
  if ($('banner').textContent !== text) $('banner').textContent = text;
  $('banner').hidden = !text;
  document.body.classList.toggle('offline', !!text);
}

// ---- the footer

const figures = new Map();
for (const [name, label, title] of [
  ['transport', '', 'How the feed comes'], ['rtt', 'RTT', 'Round trip to the gateway'],
  ['age', 'Data age', 'Source to here, clock corrected: median and 99th percentile'],
  ['gaps', 'Gaps', 'Losses of continuity'], ['resyncs', 'Resyncs', 'Snapshots that replaced a book'],
  ['checks', 'Checksums', 'Matched / compared'], ['bytes', 'Received', 'Data since the page was opened'],
]) {
  const text = new Text();
  figures.set(name, text);
  $('status').append(element('span', { title, class: `f-${name}` }, label ? element('small', {}, label) : '', element('b', {}, text.node)));
}

function footer() {
  const s = client.stats;
  figures.get('transport').set(s.transport === 'sse' ? 'Event stream' : s.transport === 'ws' ? 'WebSocket' : '–');
  figures.get('rtt').set(s.rtt === null ? '–' : ago(s.rtt));
  figures.get('age').set(s.ageP50 === null ? '–' : `${ago(s.ageP50)} / ${ago(s.ageP99)}`);
  figures.get('gaps').set(String(s.gaps));
  figures.get('resyncs').set(String(s.resyncs));
  figures.get('checks').set(`${s.checksums - s.checksumMismatches}/${s.checksums}`);
  figures.get('bytes').set(bytes(s.bytes));
}

// ---- time: a frame for what changed, a slow tick for ages

function frame() {
  page.flush();
  requestAnimationFrame(frame);
}
setInterval(() => {
  page.tick?.();
  banner();
  footer();
}, 250);

route();
footer();
client.connect();
requestAnimationFrame(frame);
