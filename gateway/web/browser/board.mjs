// The board in Chromium, against the real binary with its own feed: markets appear within a second of the page, prices
// move, a stop shows, and a gateway that dies and comes back is told from one that lives.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { browse, built, freePort, kill, start } from './process.mjs';

/** A gateway with its own feed. */
const gatewayOn = (port, admin) =>
  start(built('tictac-gateway'), ['--listen', `127.0.0.1:${port}`, '--admin', `127.0.0.1:${admin}`, '--rate', '3'], 'board');

test('the board', { timeout: 120_000 }, async (t) => {
  const [port, admin] = [await freePort(), await freePort()];
  let gateway = await gatewayOn(port, admin);
  t.after(() => kill(gateway));
  const browser = await browse();
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
    await kill(gateway);
    await page.locator('#connection:not([data-state="live"])').waitFor({ timeout: 10_000 });
    errors.length = 0;
    gateway = await gatewayOn(port, admin);
    await page.locator('#connection[data-state="live"]').waitFor({ timeout: 30_000 });
    await page.locator('main table').waitFor();
  });

  assert.deepEqual(errors.filter((e) => !/WebSocket|ERR_CONNECTION|Failed to load/.test(e)), []);
});
