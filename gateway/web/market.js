// One market's page: a table of runners and prices, and, over it, whatever says that they are not to be had.

import { selectionStatus } from './client/book.js';
import { Text, element } from './element.js';
import { ago, compact, marketName, price, size, sportName, start } from './format.js';

const FLASH_MS = 450;
const SWEEP_MS = 100;
const DEPTH = 3;
const SELECTION = { removed: 'Non-runner', winner: 'Winner', loser: 'Lost', placed: 'Placed', void: 'Void' };
const OVERLAY = {
  inactive: 'Not yet open', suspended: 'Suspended', closed: 'Closed', settled: 'Settled', void: 'Void',
  handed_over: 'Handed over',
};
const ENDED = new Set(['closed', 'settled', 'void']);

/** Marks cells for a moment: a class each, one timer for all, no animation. */
class Flashes {
  #until = new Map();
  #timer = null;
  hit(cell, name) {
    const was = this.#until.get(cell);
    if (was && was.name !== name) cell.classList.remove(was.name);
    if (!was || was.name !== name) cell.classList.add(name);
    this.#until.set(cell, { name, at: performance.now() + FLASH_MS });
    this.#timer ??= setTimeout(() => this.#sweep(), SWEEP_MS);
  }
  #sweep() {
    const now = performance.now();
    for (const [cell, { name, at }] of this.#until) {
      if (at > now) continue;
      cell.classList.remove(name);
      this.#until.delete(cell);
    }
    this.#timer = this.#until.size ? setTimeout(() => this.#sweep(), SWEEP_MS) : null;
  }
  clear() {
    for (const [cell, { name }] of this.#until) cell.classList.remove(name);
    this.#until.clear();
    clearTimeout(this.#timer);
    this.#timer = null;
  }
}

export class MarketPage {
  /**
   * @param {import('./client/client.js').OddsClient} client @param {string} id
   * @param {(text: string) => void} announce
   */
  constructor(client, id, announce) {
    this.client = client;
    this.id = id;
    this.announce = announce;
    this.flashes = new Flashes();
    this.rows = new Map();
    this.dirty = new Set();
    this.paused = false;
    this.said = '';
    this.#frame();
    this.sub = client.market(id, { view: DEPTH });
    this.sub.onSync(() => {
      this.rebuild = true;
      this.flashes.clear();
    });
    this.sub.onChange((book, changed) => {
      for (const key of changed) this.dirty.add(key);
    });
  }

  #frame() {
    const t = (this.texts = {
      event: new Text(), name: new Text(), meta: new Text(), clock: new Text(), score: new Text(), matched: new Text(),
      changed: new Text(), overlay: new Text(), reason: new Text(), chip: new Text(), delay: new Text(), backBook: new Text(), layBook: new Text(), ticket: new Text(),
    });
    this.live = element('span', { class: 'live', hidden: true }, 'In-play');
    this.delay = element('span', { class: 'chip', hidden: true }, t.delay.node);
    this.crossed = element('span', { class: 'chip', 'data-status': 'suspended', hidden: true }, 'Prices cross');
    this.pause = element('button', { type: 'button', class: 'toggle', 'aria-pressed': 'false' }, 'Pause');
    this.pause.addEventListener('click', () => {
      this.paused = !this.paused;
      this.pause.setAttribute('aria-pressed', String(this.paused));
      this.pause.textContent = this.paused ? 'Resume' : 'Pause';
      this.rebuild ||= !this.paused;
    });
    this.chip = element('span', { class: 'age', hidden: true }, t.chip.node);
    this.overlay = element('div', { class: 'overlay', hidden: true },
      element('div', {}, element('strong', {}, t.overlay.node), element('span', {}, t.reason.node)));
    this.head = element('thead');
    this.body = element('tbody', { 'aria-live': 'off' });
    this.table = element('table', { class: 'grid' }, element('caption', { class: 'visually-hidden' }, 'Prices'), this.head, this.body);
    this.wrap = element('div', { class: 'prices' }, this.table, this.overlay);
    this.notice = element('div', { class: 'empty', hidden: true });
    this.loading = element('div', { class: 'empty', 'aria-busy': 'true' }, ...[0, 1, 2, 3, 4, 5].map(() => element('div', { class: 'skeleton' })));
    this.root = element('article', { class: 'market' },
      element('nav', {}, element('a', { href: '#/', class: 'back-link' }, element('span', { 'aria-hidden': 'true' }, '‹'), ' All markets')),
      element('header', { class: 'title' },
        element('div', {},
          element('p', { class: 'meta' }, t.meta.node),
          element('h1', {}, t.event.node),
          element('p', { class: 'sub' }, element('b', {}, t.name.node), this.live, element('span', { class: 'clock' }, t.clock.node), this.delay, this.crossed)),
        element('div', { class: 'score' }, t.score.node)),
      element('div', { class: 'tools' },
        element('span', { class: 'figure' }, element('small', {}, 'Matched'), element('b', {}, t.matched.node)),
        element('span', { class: 'figure' }, element('small', {}, 'Last change'), element('b', {}, t.changed.node)),
        element('span', { class: 'figure wide' }, element('small', {}, 'Price token'), element('b', { class: 'token' }, t.ticket.node)),
        element('span', { class: 'spring' }), this.chip, this.pause),
      this.loading, this.notice, this.wrap);
    this.wrap.hidden = true;
  }

  /** Once a frame: what changed, into text nodes that are there already. */
  flush() {
    const { sub } = this;
    const { book } = sub;
    const drawn = !!book || this.rows.size > 0; // A market that is gone leaves its last picture.
    this.#states();
    this.loading.hidden = drawn || !!sub.error || sub.gone;
    this.wrap.hidden = !drawn;
    if (!book || this.paused) return;
    if (this.rebuild) this.#build(book);
    else for (const key of this.dirty) if (key !== 'market' && !this.#row(book, key)) { this.#build(book); break; }
    if (this.rebuild || this.dirty.size) this.#market(book);
    this.rebuild = false;
    this.dirty.clear();
  }

  /** Twice a second or so: ages. */
  tick() {
    const { ageMs, book } = this.sub;
    this.texts.changed.set(book ? (ageMs === null ? '–' : `${ago(ageMs)} ago`) : '–');
    this.#states();
  }

  #build(book) {
    const fixed = book.fields.kind === 'fixed';
    this.fixed = fixed;
    const side = (name, n) => element('th', { scope: 'col', class: `${name} l${n}` }, n === 1 ? element('span', {}, name === 'back' ? 'Back' : 'Lay') : '',
      n === 1 ? element('small', {}, (name === 'back' ? this.texts.backBook : this.texts.layBook).node) : '');
    this.table.className = fixed ? 'grid fixed' : 'grid';
    this.head.replaceChildren(element('tr', {}, element('th', { scope: 'col', class: 'runner' }, 'Selection'),
      ...(fixed
        ? [element('th', { scope: 'col', class: 'price' }, 'Price'), element('th', { scope: 'col', class: 'last' }, 'As quoted'), element('th', { scope: 'col', class: 'volume' }, 'Max stake')]
        : [...[3, 2, 1].map((n) => side('back', n)), ...[1, 2, 3].map((n) => side('lay', n)),
          element('th', { scope: 'col', class: 'last' }, 'Last'), element('th', { scope: 'col', class: 'volume' }, 'Matched')])));
    this.rows.clear();
    const ordered = book.inOrder().filter((s) => selectionStatus(s) !== 'hidden')
      .sort((a, b) => (a.fields.sort ?? 1e9) - (b.fields.sort ?? 1e9));
    const bodies = ordered.map((selection) => {
      const row = this.#newRow(fixed);
      this.rows.set(selection.key, row);
      this.#fill(book, selection, row, false);
      return row.tr;
    });
    this.body.replaceChildren(...bodies);
  }

  #newRow(fixed) {
    const texts = { name: new Text(), note: new Text(), last: new Text(), volume: new Text() };
    const cells = [];
    const cell = (name) => {
      const c = { p: new Text(), s: new Text(), value: null, td: null };
      c.td = element('td', { class: name }, element('span', { class: 'p' }, c.p.node), element('span', { class: 's' }, c.s.node));
      cells.push(c);
      return c.td;
    };
    const note = element('span', { class: 'note' }, texts.note.node);
    const tr = element('tr', {},
      element('th', { scope: 'row', class: 'runner' }, element('span', { class: 'name' }, texts.name.node), note),
      ...(fixed ? [cell('price')] : ['back l3', 'back l2', 'back l1', 'lay l1', 'lay l2', 'lay l3'].map(cell)),
      element('td', { class: 'last' }, texts.last.node), element('td', { class: 'volume' }, texts.volume.node));
    return { tr, texts, cells };
  }

  /** Says whether the row is in the table as it should be. */
  #row(book, key) {
    const selection = book.selections.get(key);
    const row = this.rows.get(key);
    const shown = selection && selectionStatus(selection) !== 'hidden';
    if (!shown || !row) return !shown && !row;
    if (selection.fields.sort !== row.sort) return false;
    this.#fill(book, selection, row, true);
    return true;
  }

  #fill(book, selection, row, flash) {
    const { fields } = selection;
    const status = selectionStatus(selection);
    row.sort = fields.sort;
    row.texts.name.set([fields.name ?? selection.key, selection.handicap ? signed(selection.handicap / 100) : ''].filter(Boolean).join(' '));
    const reduction = status === 'removed' && fields.adjustment ? ` −${fields.adjustment / 1000}%` : '';
    row.texts.note.set((SELECTION[status] ?? '') + reduction);
    row.tr.dataset.status = status;
    if (this.fixed) {
      this.#cell(row.cells[0], fields.price === undefined ? null : [fields.price, null], book, flash);
      row.texts.last.set(fields.native ?? '');
      row.texts.volume.set(compact(fields.max_stake, book.fields));
      return;
    }
    const back = book.best(selection, 'back', DEPTH);
    const lay = book.best(selection, 'lay', DEPTH);
    for (let i = 0; i < DEPTH; i++) {
      this.#cell(row.cells[DEPTH - 1 - i], back[i], book, flash);
      this.#cell(row.cells[DEPTH + i], lay[i], book, flash);
    }
    row.texts.last.set(price(fields.last ?? fields.sp, book.fields));
    row.texts.volume.set(compact(fields.volume, book.fields));
  }

  #cell(cell, level, book, flash) {
    const was = cell.value;
    cell.value = level ?? null;
    const moved = cell.p.set(level ? price(level[0], book.fields) : '');
    const resized = cell.s.set(level && level[1] !== null ? size(level[1], book.fields) : '');
    if (!flash || !(moved || resized) || !level) return;
    this.flashes.hit(cell.td, !moved || !was ? 'hit' : level[0] > was[0] ? 'up' : 'down');
  }

  #market(book) {
    const { fields } = book;
    const { texts: t, client } = this;
    t.event.set(fields.event_name ?? fields.name ?? this.id);
    t.name.set(marketName(fields));
    t.meta.set([fields.sport && sportName(fields.sport), fields.competition, fields.venue, start(fields.start, client.serverNow ?? Date.now())].filter(Boolean).join('  ·  '));
    t.clock.set(fields.clock ?? '');
    t.score.set(fields.score ?? '');
    t.matched.set(fields.matched ? compact(fields.matched, fields) : '–');
    t.delay.set(fields.bet_delay ? `${fields.bet_delay} s delay` : '');
    const ended = ENDED.has(book.status);
    this.delay.hidden = !fields.bet_delay || ended;
    this.live.hidden = !fields.in_play || ended;
    this.crossed.hidden = !fields.crossed;
    t.ticket.set(this.sub.position?.join('-') ?? '–');
    document.title = `${t.name.get()} – ${t.event.get()} · tictac`;
    if (this.fixed || fields.price_kind === 'line') return void (t.backBook.set(''), t.layBook.set(''));
    const scale = 10 ** (fields.price_exponent ?? 0);
    for (const [side, text] of /** @type {const} */ ([['back', t.backBook], ['lay', t.layBook]])) {
      let sum = 0;
      let whole = true;
      for (const selection of book.selections.values()) {
        if (selectionStatus(selection) !== 'active') continue;
        const best = book.best(selection, side, 1)[0];
        if (!best) whole = false;
        else sum += fields.price_kind === 'probability' ? best[0] / scale : scale / best[0];
      }
      text.set(whole && sum ? `${((100 * sum) / (fields.winners || 1)).toFixed(1)}%` : '');
    }
  }

  /** What must not be missed: each state has words, a look and (where it matters) an announcement. */
  #states() {
    const { sub, client, texts: t } = this;
    const { book } = sub;
    if (book) this.last = book.status;
    const status = book?.status ?? this.last;
    const ended = ENDED.has(status) || sub.gone;
    const offline = !client.live;
    let overlay = '';
    let reason = '';
    if (sub.gone) overlay = OVERLAY[status] && ended ? OVERLAY[status] : 'Ended';
    else if (sub.stopped) overlay = OVERLAY.suspended;
    else if (book && status !== 'open') [overlay, reason] = [OVERLAY[status] ?? status, book.fields.reason ?? ''];
    let chip = '';
    if (this.paused) chip = 'Paused: prices stand still';
    else if (book && !ended) {
      const quiet = client.serverNow !== null && client.asOf !== null && client.asOf > 1e12 ? client.serverNow - client.asOf : sub.ageMs;
      if (offline) chip = sub.ageMs === null ? 'Not live' : `Not live · ${ago(sub.ageMs)} old`;
      else if (sub.resyncing) chip = 'Resyncing';
      else if (sub.feed !== 'live') chip = `Source ${sub.feed} · ${ago(quiet)} old`;
    }
    const stale = !!chip;
    t.overlay.set(overlay);
    t.reason.set(reason);
    t.chip.set(chip);
    this.overlay.hidden = !overlay;
    this.chip.hidden = !chip;
    this.wrap.classList.toggle('stale', stale);
    this.wrap.classList.toggle('barred', !!overlay);
    this.wrap.classList.toggle('ended', ended);
    this.body.inert = !sub.tradable && !ended;
    const drawn = !!book || this.rows.size > 0;
    const missing = sub.error && !drawn;
    this.notice.hidden = !missing && !(sub.gone && !drawn);
    if (missing) {
      this.notice.replaceChildren(element('h2', {}, sub.error.code === 'unknown_market' ? 'There is no such market' : 'This market cannot be shown'), element('p', {}, sub.error.why));
    } else if (sub.gone && !drawn) this.notice.replaceChildren(element('h2', {}, 'This market has ended'));
    const say = [overlay, book?.fields.in_play && !ended ? 'in play' : '', stale && !this.paused ? 'prices are not live' : ''].filter(Boolean).join(', ');
    if (say !== this.said && book) {
      this.said = say;
      this.announce(`${t.name.get()}: ${say || 'open'}`);
    }
  }

  close() {
    this.flashes.clear();
    this.sub.close();
  }
}

function signed(value) {
  return value > 0 ? `+${value}` : `−${-value}`;
}
