// The client module and the React hooks (the document's own, byte for byte, and ours) in pages of another origin, with
// React from npm and no bundler but for React itself. Run by tests/all.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import http from 'node:http';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { TOOLS, openBrowser, openPage, require, serve, token, until, wire } from './harness.mjs';

const PATIENCE = { timeout: 60_000 };
let browser;
before(async () => (browser = await openBrowser()));
after(() => browser?.close());

/** A site of somebody else's: path → text. */
async function site(t, files) {
  const server = http.createServer((request, answer) => {
    const path = new URL(request.url, 'http://h').pathname;
    const type = path.endsWith('.js') ? 'text/javascript' : 'text/html';
    answer.writeHead(path in files ? 200 : 204, { 'Content-Type': `${type}; charset=utf-8` }).end(files[path]);
  });
  await new Promise((done) => server.listen(0, '127.0.0.1', done));
  t.after(() => server.close().closeAllConnections());
  return `http://127.0.0.1:${server.address().port}`;
}

test('a page of another origin imports the client and is served by it', PATIENCE, async (t) => {
  const server = await serve(t);
  await server.people();
  const origin = await site(t, { '/': '<!doctype html><title>another</title>' });
  const page = await openPage(t, browser);
  await page.goto(origin);
  await page.evaluate(
    async ([url, access]) => {
      const { HabittoWebSocketClient } = await import(`${url}/client/habitto.js`);
      const client = (globalThis.client = new HabittoWebSocketClient(1, access));
      globalThis.shown = [];
      client.displayNotification = ({ title, body }) => globalThis.shown.push(`${title} ${body}`);
      client.connect();
    },
    [server.url, token(1)],
  );
  await server.like(2, 10);
  await until(() => page.evaluate(() => globalThis.shown.length > 0));
  assert.deepEqual(await page.evaluate(() => globalThis.shown), ['¡Nuevo interesado en tu propiedad! Juan Perez está interesado en tu propiedad']);
  assert.equal(await page.evaluate(() => Object.keys(localStorage).length), 1, 'its place is kept');
  assert.deepEqual(page.complaints, []);
});

test('an origin that is not allowed gets nothing', PATIENCE, async (t) => {
  const server = await serve(t, { HABITTOD_SERVER_ALLOWED_ORIGINS: 'https://app.example' });
  const origin = await site(t, { '/': '<!doctype html><title>another</title>' });
  const page = await openPage(t, browser);
  await page.goto(origin);
  const outcome = await page.evaluate((url) => import(`${url}/client/habitto.js`).then(() => 'imported', () => 'refused'), server.url);
  assert.equal(outcome, 'refused');
});

/** A page that renders what a hook gives, and marks the first notification as read when it is clicked. */
async function hookPage(t, hook, hookFiles, user, browser) {
  const bundle = require('esbuild').buildSync({
    stdin: {
      contents: `import React from 'react'; import { createRoot } from 'react-dom/client';
        export const { createElement, StrictMode, useCallback, useEffect, useRef, useState } = React; export { createRoot };`,
      resolveDir: TOOLS,
    },
    bundle: true, format: 'esm', write: false, minify: true, nodePaths: [join(TOOLS, 'node_modules')],
    define: { 'process.env.NODE_ENV': '"production"' },
  });
  const origin = await site(t, {
    '/': `<!doctype html><html lang="en"><title>hook</title><div id="root"></div>
      <script type="importmap">{"imports": {"react": "/react.js"}}</script>
      <script type="module" src="/app.js"></script></html>`,
    '/react.js': bundle.outputFiles[0].text,
    '/app.js': `import { createElement as h, createRoot } from 'react';
      import useHabittoWebSocket from '${hook}';
      const App = () => {
        const { notifications, isConnected, markAsRead } = useHabittoWebSocket(${user}, '${token(user)}');
        return h('main', { onClick: () => markAsRead(notifications[0].notification_id) },
          h('p', { id: 'state' }, String(isConnected)), h('ul', null, notifications.map((n) => h('li', { key: n.notification_id }, n.type))));
      };
      createRoot(document.getElementById('root')).render(h(App));`,
    ...hookFiles,
  });
  const page = await openPage(t, browser);
  await page.goto(origin);
  await until(async () => (await page.locator('#state').textContent()) === 'true');
  return page;
}

async function hookWorks(server, page) {
  await server.like(2, 10);
  await page.getByText('property_like').waitFor();
  const { match_id } = await server.like(2, 10);
  await server.call('POST', `/api/matches/${match_id}/owner_accept/`, 1);
  await page.getByText('match_accepted').waitFor();
  await page.locator('main').click();
  await until(async () => (await server.call('GET', '/api/notifications/my/', 1)).unread_count === 1);
  assert.deepEqual(await page.locator('li').allTextContents(), ['property_like', 'match_accepted']);
  assert.deepEqual(page.complaints, []);
}

test("the document's hook works unchanged", PATIENCE, async (t) => {
  const server = await serve(t);
  await server.people();
  const source = readFileSync(new URL('document_hook.js', import.meta.url), 'utf8');
  // The document names localhost:8000; whatever is there on this machine, this browser goes elsewhere.
  const elsewhere = await openBrowser(`--host-resolver-rules=MAP localhost:8000 127.0.0.1:${server.port}`);
  t.after(() => elsewhere.close());
  await hookWorks(server, await hookPage(t, '/hook.js', { '/hook.js': source }, 1, elsewhere));
});

test('so does ours, and it comes back', PATIENCE, async (t) => {
  const server = await serve(t);
  await server.people();
  const line = await wire(t, server.port);
  const page = await hookPage(t, `${line.url}/client/useHabittoWebSocket.js`, {}, 1, browser);
  await hookWorks(server, page);
  line.cut();
  await until(async () => (await page.locator('#state').textContent()) === 'false');
  await server.tell(1, 'meanwhile', 'tenant');
  line.mend();
  await page.getByText('general').waitFor();
  assert.equal(await page.locator('li').count(), 3);
});
