// Owns what the tests of browser things share: a running server, tokens, a wire that can be cut, a browser that
// complains. Never asserts what a test is about. Enter at `serve`, `wire`, `openBrowser`.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createHmac, pbkdf2Sync } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { createInterface } from 'node:readline';

const SECRET = 'browser-tests-secret-0123456789abcdef0123456789';
export const TOOLS = process.env.TEST_TOOLS ?? join(process.env.TMPDIR ?? '/tmp', 'habittod-test-tools');
/** Packages that tests/all installs. */
export const require = createRequire(join(TOOLS, 'package.json'));
export const BINARY = resolve('target/debug/habittod');

const base64 = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');

/** A token of a user (or the backend), good for so many seconds. */
export function token(user, seconds = 3600) {
  const claims = { exp: Date.now() / 1000 + seconds, ...(user === 'service' ? { scope: 'service' } : { user_id: String(user) }) };
  const signed = `${base64({ alg: 'HS256', typ: 'JWT' })}.${base64(claims)}`;
  return `${signed}.${createHmac('sha256', SECRET).update(signed).digest('base64url')}`;
}

/** A password in Django's format; one round is enough for a test. */
export const encoded = (password) => `pbkdf2_sha256$1$salt$${pbkdf2Sync(password, 'salt', 1, 32, 'sha256').toString('base64')}`;

/** A server of its own for a test; ends with it. */
export async function serve(t, settings = {}) {
  const folder = mkdtempSync(join(tmpdir(), 'habittod-'));
  const env = {
    ...process.env,
    HABITTOD_AUTH_SECRET: SECRET,
    HABITTOD_SERVER_LISTEN: '127.0.0.1:0',
    HABITTOD_SERVER_ADMIN_LISTEN: '',
    HABITTOD_LIMITS_REQUESTS_PER_SECOND: '0',
    ...settings,
  };
  const server = spawn(BINARY, ['serve'], { env, cwd: folder, stdio: ['ignore', 'pipe', 'inherit'] });
  t.after(() => {
    server.kill('SIGKILL');
    rmSync(folder, { recursive: true, force: true });
  });
  const lines = createInterface(server.stdout);
  const first = await new Promise((line, ended) => lines.once('line', line).once('close', () => ended(new Error('the server did not start'))));
  const { listen, admin } = JSON.parse(first);
  const [host, port] = listen[0].split(':');
  const url = `http://${host}:${port}`;

  /** One call as somebody; gives back `data`. */
  async function call(method, path, by, body) {
    const answer = await fetch(url + path, {
      method,
      headers: { Authorization: `Bearer ${token(by)}`, ...(body && { 'Content-Type': 'application/json' }) },
      body: body && JSON.stringify(body),
    });
    assert.ok(answer.ok, `${method} ${path}: ${answer.status}`);
    return (await answer.json()).data;
  }
  return {
    url,
    port: Number(port),
    operator: `http://${admin}/`,
    call,
    like: (tenant, home) => call('POST', `/api/properties/${home}/like/`, tenant),
    /** María (1) lets two flats, Juan (2) and Ana (3) look for one. */
    async people(password) {
      const users = [[1, 'maria', 'María', 'García', 'propietario'], [2, 'juan_perez', 'Juan', 'Perez', 'inquilino'], [3, 'ana', 'Ana', 'Rojas', 'inquilino']];
      for (const [id, username, first_name, last_name, user_type] of users) {
        const user = { username, first_name, last_name, user_type, email: `${username}@example.com`, phone: '+591 70000000', ...(password && { password }) };
        await call('PUT', `/api/users/${id}/`, 'service', user);
      }
      for (const [id, address] of [[10, 'Av. Siempre Viva 10'], [11, 'Calle Los Pinos 11']]) {
        await call('PUT', `/api/properties/${id}/`, 'service', { owner: 1, type: 'departamento', address, price: 2500, bedrooms: 2 });
      }
    },
    /** A notification in the backend's own words. */
    tell: (user, message, channel = 'property', more = {}) => call('POST', '/api/notifications/', 'service', { user, channel, message, ...more }),
  };
}

/** A wire to the server's port that can be cut and mended; counts the handshakes that went over it. */
export async function wire(t, port) {
  const open = new Set();
  const state = { whole: true, handshakes: 0 };
  const server = net.createServer((near) => {
    if (!state.whole) return near.destroy();
    const far = net.connect(port, '127.0.0.1');
    for (const [one, other] of [[near, far], [far, near]]) {
      open.add(one);
      one.on('error', () => {});
      one.on('close', () => {
        open.delete(one);
        other.destroy();
      });
      one.pipe(other);
    }
    near.on('data', (bytes) => (state.handshakes += bytes.toString('latin1').startsWith('GET /ws/') ? 1 : 0));
  });
  await new Promise((done) => server.listen(0, '127.0.0.1', done));
  t.after(() => {
    server.close();
    for (const end of open) end.destroy();
  });
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    cut() {
      state.whole = false;
      for (const end of open) end.destroy();
    },
    mend: () => (state.whole = true),
    handshakes: () => state.handshakes,
  };
}

/** Waits until `look` gives something true, and gives that back. */
export async function until(look, what = String(look)) {
  for (const deadline = Date.now() + 20_000; Date.now() < deadline; ) {
    const found = await look();
    if (found) return found;
    await new Promise((later) => setTimeout(later, 20));
  }
  assert.fail(`in vain: ${what}`);
}

/** Debian's Chromium, without what would call home. */
export async function openBrowser(...further) {
  const { chromium } = require('playwright-core');
  return chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
      '--disable-component-update', '--disable-sync', ...further],
  });
}

/** A page of somebody's own browser profile; whatever it complains about lands in `complaints`. */
export async function openPage(t, browser, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, locale: 'es-BO', ...options });
  t.after(() => context.close());
  return newTab(context);
}

export async function newTab(context) {
  const page = await context.newPage();
  page.complaints = [];
  page.on('console', (said) => ['error', 'warning'].includes(said.type()) && page.complaints.push(said.text()));
  page.on('pageerror', (error) => page.complaints.push(String(error)));
  return page;
}

/** What axe-core has against a page and its frames. */
export async function violations(page) {
  const source = readFileSync(require.resolve('axe-core'), 'utf8');
  const found = [];
  for (const frame of page.frames()) {
    await frame.evaluate(source);
    const { violations } = await frame.evaluate(() => globalThis.axe.run(document, { iframes: false, resultTypes: ['violations'] }));
    found.push(...violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html.slice(0, 120)).join(' | ')}`));
  }
  return found;
}
