// The operator's page in Chromium against the real server. Run by tests/all.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { openBrowser, openPage, serve } from './harness.mjs';

test('an axis never says the same twice', { timeout: 60_000 }, async (t) => {
  const server = await serve(t, { HABITTOD_SERVER_ADMIN_LISTEN: '127.0.0.1:0' });
  const browser = await openBrowser();
  t.after(() => browser.close());
  const page = await openPage(t, browser);
  // A server that has next to nothing to do.
  await page.route('**/stats.json', async (route) => {
    const stats = await (await route.fetch()).json();
    stats.process.cpu_seconds = (stats.monotonic_us / 1e6) * 0.0012;
    await route.fulfill({ json: stats });
  });
  await page.goto(server.operator);
  const chart = page.locator('.chart').filter({ has: page.getByRole('heading', { name: 'CPU' }) });
  await chart.getByText('0.12 %').waitFor();
  const labels = await chart.locator('text[text-anchor=end]').evaluateAll((all) => all.map((each) => each.textContent).filter((text) => text.endsWith('%')));
  assert.ok(labels.length > 2 && new Set(labels).size === labels.length, `${labels}`);
  assert.deepEqual(page.complaints, []);
});
