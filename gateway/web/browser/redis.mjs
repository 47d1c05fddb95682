// The README's walk through Redis, with its own commands as they stand there: a market is defined, its price moves on the
// page, a stop suspends it.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { browse, built, freePort, kill, start } from './process.mjs';

const README = readFileSync(new URL('../../../README.md', import.meta.url), 'utf8');

test('the README, with Redis', { timeout: 60_000 }, async (t) => {
  const [port, listen, admin, ingestAdmin] = await Promise.all([freePort(), freePort(), freePort(), freePort()]);
  const url = `redis://127.0.0.1:${port}`;
  const redis = await start('redis-server', ['--port', port, '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no'], 'Ready to accept');
  t.after(() => kill(redis));
  const ingest = await start(built('tictac-ingest'), ['--redis', url, '--admin', `127.0.0.1:${ingestAdmin}`], 'every shard is ours');
  t.after(() => kill(ingest));
  const gateway = await start(
    built('tictac-gateway'), ['--redis', url, '--listen', `127.0.0.1:${listen}`, '--admin', `127.0.0.1:${admin}`], 'board',
  );
  t.after(() => kill(gateway));

  const commands = [...README.matchAll(/^ {4}redis-cli PUBLISH (\S+) '(.+)'$/gm)].map(([, channel, message]) => [channel, message]);
  assert.ok(commands.length >= 3, 'the README defines a market, changes a price and stops the event');
  const publish = ([channel, message]) => {
    const said = spawnSync('redis-cli', ['-p', port, 'PUBLISH', channel, message], { encoding: 'utf8' });
    assert.equal(said.stdout.trim(), '1', `one ingest hears it: ${said.stderr}`);
  };
  const browser = await browse();
  t.after(() => browser.close());
  const page = await browser.newPage();

  publish(commands[0]);
  await page.goto(`http://127.0.0.1:${listen}/#/market/cup-final`);
  const table = page.locator('main table');
  await table.getByText('2.10').waitFor();
  publish(commands[1]);
  await table.getByText('2.12').first().waitFor();
  assert.equal(await table.getByText('2.10').count(), 0, 'the level that was deleted is gone');
  publish(commands[2]);
  await page.getByText(/suspended/i).first().waitFor();
});
