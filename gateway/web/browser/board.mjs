// The board in Chromium, against the real binary with its own feed: markets appear within a second of the page, prices
// move, a stop shows, and a gateway that dies and comes back is told from one that lives.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtempSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { chromium } from 'playwright-core';

const BINARY = process.env.TICTAC_GATEWAY ?? new URL('../../../target/debug/tictac-gateway', import.meta.url).pathname;
const CHROMIUM = process.env.CHROMIUM ?? '/usr/bin/chromium';
const FLAGS = [
  '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync',
];

function freePort() {
  return new Promise((resolve) => {
    const server = net.createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}

/** Starts a gateway and resolves once it has printed its address. */
function start(port, admin) {
  return new Promise((resolve, reject) => {
    const child = spawn(BINARY, ['--listen', `127.0.0.1:${port}`, '--admin', `127.0.0.1:${admin}`, '--rate', '3'], {
      stdio: ['ignore', 'pipe', 'inherit'],
      env: { ...process.env, TICTAC_LOG_FILTER: 'warn' },
    });
    child.once('error', reject);
    child.once('exit', (code) => reject(new Error(`the gateway ended with ${code}`)));
    child.stdout.on('data', (text) => String(text).includes('board') && resolve(child));
  });
}

const stopped = (child) => new Promise((resolve) => child.once('exit', resolve));

test('the board', { timeout: 120_000 }, async (t) => {
  const [port, admin] = [await freePort(), await freePort()];
  let gateway = await start(port, admin);
  t.after(() => gateway.kill('SIGKILL'));
  const browser = await chromium.launchPersistentContext(mkdtempSync(join(tmpdir(), 'board-')), {
    executablePath: CHROMIUM,
    args: FLAGS,
    viewport: { width: 1280, height: 900 },
  });
  t.after(() => browser.close());
  const page = await browser.newPage();
  const errors = [];
  page.on('pageerror', (error) => errors.push(error.message));
  page.on('console', (message) => message.type() === 'error' && errors.push(message.text()));

  await t.test('lists sports, events and markets', async () => {
    await page.goto(`http://127.0.0.1:${port}/`);
    await page.getByText('Match Odds').first().waitFor();
    assert.match(await page.locator('#connection').innerText(), /live/i);
    assert.ok((await page.locator('main a[href^="#/market/"]').count()) > 20, 'dozens of markets');
  });

  await t.test('a market shows three prices a side, and they move', async () => {
    await page.goto(`http://127.0.0.1:${port}/#/market/demo-1001`);
    const table = page.locator('main table');
    await table.waitFor();
    const before = await table.innerText();
    await page.waitForFunction((text) => document.querySelector('main table').innerText !== text, before);
    // What the page shows is what the gateway says at the same position.
    const shown = await page.evaluate(async () => {
      const response = await fetch('/v1/markets/demo-1001?view=3');
      return { market: await response.json(), rows: document.querySelectorAll('main table tbody tr').length };
    });
    assert.equal(shown.rows, shown.market.selections.length);
    assert.ok(shown.market.selections.every((s) => s.back.length <= 3 && s.traded === undefined));
  });

  await t.test('a goal suspends the market where it can not be missed', async () => {
    // The match that is under way at the start has a goal within about forty seconds.
    await page.getByText(/suspended/i).first().waitFor({ timeout: 75_000 });
  });

  await t.test('a gateway that dies shows, and its return too', async () => {
    gateway.removeAllListeners('exit');
    gateway.kill('SIGKILL');
    await stopped(gateway);
    await page.locator('#connection:not([data-state="live"])').waitFor({ timeout: 10_000 });
    errors.length = 0;
    gateway = await start(port, admin);
    await page.locator('#connection[data-state="live"]').waitFor({ timeout: 30_000 });
    await page.locator('main table').waitFor();
  });

  assert.deepEqual(errors.filter((e) => !/WebSocket|ERR_CONNECTION|Failed to load/.test(e)), []);
});
