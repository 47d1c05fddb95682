// The board: what is offered, by sport and event. It needs the catalogue only, so that it is cheap however long it is.

import { Text, element } from './element.js';
import { compact, marketName, sportName, start } from './format.js';

const MOST = 400;
const STATUS = {
  inactive: 'Not yet open', open: 'Open', suspended: 'Suspended', closed: 'Closed', settled: 'Settled', void: 'Void',
  handed_over: 'Handed over',
};
const ENDED = new Set(['closed', 'settled', 'void']);

/** What the list shows of a catalogue, in its order. */
export function arrange(catalogue, { text, inPlay }) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  const sports = new Map();
  let count = 0;
  for (const [id, m] of catalogue) {
    if (inPlay && !m.in_play) continue;
    if (words.length) {
      const hay = `${m.event_name ?? ''} ${m.name ?? ''} ${m.competition ?? ''} ${m.sport ?? ''} ${m.venue ?? ''}`.toLowerCase();
      if (!words.every((w) => hay.includes(w))) continue;
    }
    count++;
    const sport = m.sport ?? 'Other';
    const event = m.event ?? id;
    if (!sports.has(sport)) sports.set(sport, new Map());
    const events = sports.get(sport);
    if (!events.has(event)) events.set(event, []);
    events.get(event).push([id, m]);
  }
  const first = ([, a], [, b]) => Number(ENDED.has(a.status)) - Number(ENDED.has(b.status)) || (b.matched ?? 0) - (a.matched ?? 0);
  const rank = (markets) => [
    markets.every(([, m]) => ENDED.has(m.status)) ? 2 : markets.some(([, m]) => m.in_play) ? 0 : 1,
    Math.min(...markets.map(([, m]) => m.start ?? Infinity)),
  ];
  const before = (a, b) => a[0] - b[0] || (a[1] === b[1] ? 0 : a[1] - b[1]);
  const list = [...sports].sort(([a], [b]) => a.localeCompare(b)).map(([sport, events]) => ({
    sport,
    events: [...events]
      .map(([event, markets]) => ({ event, key: rank(markets), markets: markets.sort((a, b) => (a[1].name ?? '').localeCompare(b[1].name ?? '')).sort(first) }))
      .sort((a, b) => before(a.key, b.key) || (a.event < b.event ? -1 : 1)),
  }));
  return { list, count };
}

export class Board {
  /** @param {import('./client/client.js').OddsClient} client @param {{text: string, inPlay: boolean}} filter */
  constructor(client, filter) {
    this.client = client;
    this.filter = filter;
    this.root = element('div', { class: 'board' });
    this.rows = new Map();
    this.events = new Map();
    this.signature = null;
    this.changed = new Set();
    this.root.addEventListener('keydown', (event) => this.#onKey(event));
  }

  /** Something may have changed: draw it in the next frame. */
  invalidate(changed = null) {
    if (changed) for (const id of changed) this.changed.add(id);
    this.dirty = true;
  }

  flush() {
    if (!this.dirty) return;
    this.dirty = false;
    const { catalogue } = this.client;
    const { list, count } = arrange(catalogue, this.filter);
    const signature = list.map((s) => `${s.sport}:${s.events.map((e) => `${e.event}=${e.markets.map((m) => m[0])}`)}`).join('\n') + `|${this.known}`;
    if (signature !== this.signature) {
      this.signature = signature;
      this.#build(list, count);
    } else {
      for (const id of this.changed) if (catalogue.has(id)) this.#update(id, catalogue.get(id));
    }
    this.changed.clear();
  }

  #build(list, count) {
    const focused = /** @type {HTMLElement|null} */ (document.activeElement)?.dataset?.market;
    this.rows.clear();
    this.events.clear();
    const parts = [];
    let room = MOST;
    for (const { sport, events } of list) {
      if (room <= 0) break;
      const total = events.reduce((n, e) => n + e.markets.length, 0);
      const section = element('section', { class: 'sport', 'aria-label': sport },
        element('h2', {}, sportName(sport), element('span', { class: 'count' }, `${total} ${total === 1 ? 'market' : 'markets'}`)));
      for (const { event, markets } of events) {
        if (room <= 0) break;
        section.append(this.#event(event, markets.slice(0, room)));
        room -= markets.length;
      }
      parts.push(section);
    }
    if (room < 0 || (count > MOST && room <= 0)) parts.push(element('p', { class: 'note' }, `${count} markets match; the first ${MOST} are shown. Search to narrow the list.`));
    if (!count) parts.push(this.#empty());
    this.root.replaceChildren(...parts);
    if (focused) this.rows.get(focused)?.link.focus();
  }

  #empty() {
    if (!this.known) {
      return element('div', { class: 'empty', 'aria-busy': 'true' }, ...[0, 1, 2, 3, 4].map(() => element('div', { class: 'skeleton' })));
    }
    const { text, inPlay } = this.filter;
    const filtered = text || inPlay;
    return element('div', { class: 'empty' },
      element('h2', {}, filtered ? 'No market matches' : 'No markets yet'),
      element('p', {}, filtered ? 'Try fewer words, or show markets that are not in play, too.' : 'Markets appear here as soon as a source offers them.'));
  }

  #event(id, markets) {
    const m = markets[0][1];
    const texts = { clock: new Text(), score: new Text() };
    const card = element('article', { class: 'event' },
      element('header', {},
        element('div', { class: 'when' }, element('span', { class: 'live' }, 'In-play'), element('span', { class: 'clock' }, texts.clock.node)),
        element('div', { class: 'what' },
          element('h3', {}, m.event_name ?? m.name ?? id),
          element('p', {}, [m.competition, m.venue].filter(Boolean).join(' · '))),
        element('div', { class: 'score' }, texts.score.node)),
      element('ul', {}, ...markets.map(([market, fields]) => this.#row(market, fields, id))));
    this.events.set(id, { card, texts, markets: markets.map(([market]) => market) });
    this.#updateEvent(id);
    return card;
  }

  #row(id, fields, event) {
    const texts = { name: new Text(), status: new Text(), matched: new Text() };
    const status = element('span', { class: 'chip' }, texts.status.node);
    const link = element('a', { href: `#/market/${encodeURIComponent(id)}`, 'data-market': id },
      element('span', { class: 'name' }, texts.name.node), status, element('span', { class: 'matched' }, texts.matched.node),
      element('span', { class: 'go', 'aria-hidden': 'true' }, '›'));
    const row = { link, status, texts, event };
    this.rows.set(id, row);
    this.#update(id, fields);
    return element('li', {}, link);
  }

  #update(id, m) {
    const row = this.rows.get(id);
    if (!row) return;
    row.texts.name.set(marketName(m, id));
    const status = m.status ?? 'inactive';
    row.texts.status.set(STATUS[status] ?? status);
    row.status.dataset.status = status;
    row.texts.matched.set(m.matched ? compact(m.matched, m) : '');
    this.#updateEvent(row.event);
  }

  #updateEvent(id) {
    const event = this.events.get(id);
    if (!event) return;
    const fields = event.markets.map((m) => this.client.catalogue.get(m)).filter(Boolean);
    const m = fields.find((f) => f.in_play) ?? fields[0] ?? {};
    event.card.classList.toggle('in-play', !!m.in_play);
    event.texts.clock.set(m.in_play ? m.clock ?? '' : m.clock ?? start(m.start, this.client.serverNow ?? Date.now()));
    event.texts.score.set(m.score ?? '');
  }

  #onKey(event) {
    const step = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1 }[event.key];
    if (!step || event.ctrlKey || event.metaKey || event.altKey) return;
    const links = [...this.root.querySelectorAll('a[data-market]')];
    const at = links.indexOf(document.activeElement);
    const next = links[Math.max(0, Math.min(links.length - 1, at + step))];
    next?.focus();
    event.preventDefault();
  }

  close() {}
}
