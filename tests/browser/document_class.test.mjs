// The class of the user's own document, byte for byte as it stands there, against the real server in a Node that has
// `WebSocket`. Run by tests/all: it needs the port that the document names.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { test } from 'node:test';

const SECRET = 'document-class-secret-0123456789abcdef0123456789';
const binary = resolve('target/debug/habittod');
const folder = mkdtempSync(join(tmpdir(), 'habittod-'));
const env = {
  ...process.env,
  HABITTOD_AUTH_SECRET: SECRET,
  HABITTOD_SERVER_LISTEN: '127.0.0.1:8000,[::1]:8000',
  HABITTOD_SERVER_ADMIN_LISTEN: '',
};

function run(...args) {
  return new Promise((done) => {
    let text = '';
    const child = spawn(binary, args, { env, cwd: folder });
    child.stdout.on('data', (bytes) => (text += bytes));
    child.on('close', () => done(text.trim()));
  });
}

async function call(method, path, token, body) {
  const answer = await fetch(`http://localhost:8000${path}`, {
    method,
    headers: { Authorization: `Bearer ${token}`, ...(body && { 'Content-Type': 'application/json' }) },
    body: body && JSON.stringify(body),
  });
  assert.ok(answer.ok, `${method} ${path}: ${answer.status}`);
  return answer.json();
}

test("the document's class works unchanged", { timeout: 30_000 }, async () => {
  const server = spawn(binary, ['serve'], { env, cwd: folder });
  try {
    await new Promise((ready) => createInterface(server.stdout).once('line', ready));
    const [service, owner, tenant] = await Promise.all([run('token', '--service'), run('token', '1'), run('token', '2')]);
    await call('PUT', '/api/users/1/', service, { username: 'maria', first_name: 'María', last_name: 'García' });
    await call('PUT', '/api/users/2/', service, { username: 'juan_perez', first_name: 'Juan', last_name: 'Perez' });
    await call('PUT', '/api/properties/123/', service, { owner: 1, type: 'departamento', address: 'Av. Siempre Viva 123' });

    globalThis.window = globalThis; // what the class asks for `Notification`
    const source = readFileSync(new URL('document_class.js', import.meta.url), 'utf8').replace(/\/\/ Uso[\s\S]*$/, '');
    const HabittoWebSocketClient = new Function(`${source}; return HabittoWebSocketClient`)();
    const client = new HabittoWebSocketClient(1, owner);
    const shown = [];
    const waiting = [];
    client.displayNotification = (notification) => (waiting.shift() ?? ((n) => shown.push(n)))(notification);
    const next = () => (shown.length ? Promise.resolve(shown.shift()) : new Promise((done) => waiting.push(done)));

    client.connect();
    await call('POST', '/api/properties/123/like/', tenant);
    const like = await next();
    assert.equal(like.title, '¡Nuevo interesado en tu propiedad!');
    assert.equal(like.body, 'Juan Perez está interesado en tu propiedad');
    await call('POST', '/api/matches/1/owner_accept/', owner);
    assert.equal((await next()).title, '¡Match Aceptado!');
    clearInterval(client.pingInterval);
    client.socket.onclose = null; // it would come back for ever
    client.disconnect();
  } finally {
    server.kill('SIGKILL');
    rmSync(folder, { recursive: true, force: true });
  }
});
