// The client module in Node against the real server: what it promises about reconnects, places, duplicates, receipts
// and tokens. Run by tests/all.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { HabittoWebSocketClient } from '../../src/web/client/habitto.js';
import { serve, token, until, wire } from './harness.mjs';

const PATIENCE = { timeout: 60_000 };

/** Storage as a browser has it. */
function memory() {
  const map = new Map();
  return { map, getItem: (key) => map.get(key) ?? null, setItem: (key, value) => map.set(key, value), removeItem: (key) => map.delete(key) };
}

/** A client that notes what it hears, and ends with the test. */
function listen(t, url, user, options = {}, access = token(user)) {
  const client = new HabittoWebSocketClient(user, access, { url, storage: memory(), reconnectInterval: 5, maxReconnectInterval: 20, ...options });
  client.handleMessage = () => {};
  client.heard = [];
  client.states = [];
  client.on('notification', (data) => client.heard.push(data.message ?? data.type));
  client.on('state', ({ state }) => client.states.push(state));
  t.after(() => client.disconnect());
  client.connect();
  return client;
}

test('both channels come through one object', PATIENCE, async (t) => {
  const server = await serve(t);
  await server.people();
  const [owner, tenant] = [listen(t, server.url, 1), listen(t, server.url, 2)];
  const seen = [];
  owner.on('property_like', (data, channel) => seen.push([data.interested_user.username, channel]));
  tenant.on('match_accepted_by_owner', (data, channel) => seen.push([data.owner_name, channel]));
  await until(() => owner.isConnected && tenant.isConnected);
  const { match_id } = await server.like(2, 10);
  await until(() => seen.length === 1);
  await server.call('POST', `/api/matches/${match_id}/owner_accept/`, 1);
  await until(() => seen.length === 2 && owner.heard.length === 2);
  assert.deepEqual(seen, [['juan_perez', 'property'], ['María García', 'tenant']]);
  assert.deepEqual(owner.heard, ['property_like', 'match_accepted']);
});

test('over a cut wire nothing is lost and nothing comes twice', PATIENCE, async (t) => {
  const server = await serve(t);
  const line = await wire(t, server.port);
  const client = listen(t, line.url, 1);
  client.on('notification', () => {
    if (client.heard.length === 1) throw new Error('a listener that fails');
  });
  const errors = t.mock.method(console, 'error', () => {});
  const expected = [];
  for (let round = 0; round < 3; round += 1) {
    await until(() => client.isConnected);
    for (const when of ['before', 'while away']) {
      if (when === 'while away') {
        await until(() => client.heard.length === expected.length);
        line.cut();
        await until(() => !client.isConnected);
      }
      for (let n = 0; n < 5; n += 1) {
        const [message, channel] = [`${round} ${when} ${n}`, n % 2 ? 'property' : 'tenant'];
        await server.tell(1, message, channel);
        expected.push(message);
      }
    }
    line.mend();
    await until(() => client.heard.length === expected.length);
  }
  assert.deepEqual(client.heard.toSorted(), expected.toSorted());
  const property = (list) => list.filter((message) => Number(message.at(-1)) % 2);
  assert.deepEqual(property(client.heard), property(expected), 'in order');
  assert.equal(errors.mock.callCount(), 1);
});

test('a new object goes on where the last one was, and an unknown place is no loss', PATIENCE, async (t) => {
  const server = await serve(t);
  const storage = memory();
  const first = listen(t, server.url, 1, { storage });
  await until(() => first.isConnected);
  await server.tell(1, 'one');
  await until(() => first.heard.length === 1);
  first.disconnect();
  await server.tell(1, 'two');
  // Somebody else's socket takes it first: an ordinary replay would not bring it any more.
  const other = listen(t, server.url, 1);
  await until(() => other.heard.includes('two'));
  await until(async () => (await server.call('GET', '/api/notifications/?is_read=false', 1)).results.every((row) => row.delivered_at));
  const second = listen(t, server.url, 1, { storage });
  await until(() => second.heard.length === 1);
  assert.deepEqual(second.heard, ['two']);
  assert.equal(storage.map.size, 1, 'the tenant channel has no place yet');
  second.disconnect();
  other.disconnect();

  await server.tell(1, 'three');
  storage.setItem([...storage.map.keys()][0], '550e8400-e29b-41d4-a716-446655440000');
  const third = listen(t, server.url, 1, { storage });
  await until(() => third.heard.length === 1);
  assert.deepEqual(third.heard, ['three']);
});

test('it acknowledges where the server asks for it, also what it has seen', PATIENCE, async (t) => {
  const server = await serve(t, { HABITTOD_DELIVERY_ACK: 'client' });
  const client = listen(t, server.url, 1);
  await until(() => client.isConnected);
  for (const message of ['a', 'b', 'c']) await server.tell(1, message);
  const delivered = async () => (await server.call('GET', '/api/notifications/', 1)).results.map((row) => row.delivered_at !== null);
  await until(async () => (await delivered()).every(Boolean));
  assert.equal((await delivered()).length, 3);
});

test('marks made without a connection are kept and sent', PATIENCE, async (t) => {
  const server = await serve(t);
  const line = await wire(t, server.port);
  const client = listen(t, line.url, 1);
  const ids = [];
  client.on('notification', (data) => ids.push(data.notification_id));
  await until(() => client.isConnected);
  for (const message of ['a', 'b', 'c']) await server.tell(1, message);
  await until(() => ids.length === 3);
  line.cut();
  await until(() => !client.isConnected);
  client.markRead(ids[0]);
  client.markRead([ids[1], ids[1]]);
  await Promise.resolve();
  line.mend();
  const unread = async () => (await server.call('GET', '/api/notifications/my/', 1)).unread_count;
  await until(async () => (await unread()) === 1);
  await until(() => client.unreadCount === 1);
  client.markAllRead();
  await until(() => client.unreadCount === 0);
  assert.equal(await unread(), 0);
});

test('a token that ends is renewed on the open sockets, once for both', PATIENCE, async (t) => {
  const server = await serve(t);
  const line = await wire(t, server.port);
  let asked = 0;
  const getToken = async () => ((asked += 1), token(1));
  const client = listen(t, line.url, 1, { getToken }, token(1, 20));
  let renewed = 0;
  client.on('auth_ok', () => (renewed += 1));
  await until(() => renewed === 2);
  assert.deepEqual([asked, line.handshakes(), client.state], [1, 2, 'open']);
});

test('without a new token it stays away, and comes back with one', PATIENCE, async (t) => {
  const server = await serve(t);
  const line = await wire(t, server.port);
  const client = listen(t, line.url, 1, {}, token(1, 1.5));
  await until(() => client.state === 'expired');
  const before = line.handshakes();
  await server.tell(1, 'meanwhile');
  client.setToken(token(1, -5)); // refused at the handshake, which a browser does not say
  await until(() => client.states.filter((state) => state === 'expired').length === 2);
  assert.ok(line.handshakes() <= before + 2, 'one try a channel');
  client.setToken(token(1));
  await until(() => client.heard.length === 1);
  assert.equal(client.state, 'open');
});

test('a user who may not connect does not try again', PATIENCE, async (t) => {
  const server = await serve(t);
  await server.people();
  const line = await wire(t, server.port);
  const client = listen(t, line.url, 1);
  await until(() => client.isConnected);
  await server.call('PUT', '/api/users/1/', 'service', { username: 'maria', is_active: false });
  await until(() => client.state === 'refused');
  const again = listen(t, line.url, 1);
  await until(() => again.state === 'refused');
  const stranger = listen(t, line.url, 2, {}, token(3));
  assert.equal(stranger.state, 'refused', 'seen without asking');
  assert.equal(line.handshakes(), 4);
  stranger.setToken(token(2)); // an application may learn the user before the token
  await until(() => stranger.isConnected);
});

test('waits are random up to an interval that doubles up to a limit; going online ends them', (t) => {
  t.mock.timers.enable({ apis: ['setTimeout', 'setInterval', 'Date'], now: 1 });
  t.mock.method(Math, 'random', () => 0.5);
  const made = [];
  class Dead {
    constructor() {
      made.push(this);
    }
    close() {}
  }
  const options = { WebSocket: Dead, channels: ['tenant'], reconnectInterval: 100, maxReconnectInterval: 1000, storage: null };
  const client = new HabittoWebSocketClient(1, 't', { ...options, url: 'http://127.0.0.1:9' });
  const hooks = {};
  globalThis.addEventListener = (name, fn) => (hooks[name] = fn);
  globalThis.removeEventListener = (name) => delete hooks[name];
  t.after(() => {
    delete globalThis.addEventListener;
    delete globalThis.removeEventListener;
  });
  client.connect();
  for (const wait of [50, 100, 200, 400, 500, 500]) {
    made.at(-1).onopen();
    made.at(-1).onclose({ code: 1013 });
    const count = made.length;
    t.mock.timers.tick(wait - 1);
    assert.equal(made.length, count, `not before ${wait} ms`);
    t.mock.timers.tick(1);
    assert.equal(made.length, count + 1, `after ${wait} ms`);
  }
  made.at(-1).onopen();
  made.at(-1).onclose({ code: 1006 });
  const count = made.length;
  hooks.online();
  assert.equal(made.length, count + 1);
  made.at(-1).onopen();
  made.at(-1).onclose({ code: 4403 });
  assert.deepEqual([client.state, Object.keys(hooks)], ['refused', []]);
});

/** Sockets that a test plays the server of. */
function fakes() {
  const made = [];
  class Fake {
    readyState = 1;
    sent = [];
    constructor() {
      made.push(this);
    }
    send(text) {
      this.sent.push(JSON.parse(text));
    }
    close() {}
    say(message) {
      this.onmessage({ data: JSON.stringify(message) });
    }
    establish() {
      this.onopen();
      this.say({ type: 'connection_established' });
    }
  }
  return { made, options: { url: 'http://127.0.0.1:9', WebSocket: Fake, channels: ['property'], storage: null } };
}
const settled = () => new Promise(setImmediate);

test('while a new token is awaited it does not pass for connected, and takes one that comes another way', async (t) => {
  const { made, options } = fakes();
  const client = new HabittoWebSocketClient(1, token(1), { ...options, getToken: () => new Promise(() => {}) });
  t.after(() => client.disconnect());
  client.connect();
  made[0].establish();
  assert.equal(client.state, 'open');
  made[0].onclose({ code: 4401 });
  assert.deepEqual([client.state, client.isConnected, made.length], ['connecting', false, 1]);
  await settled();
  client.setToken(token(1, 7200));
  assert.equal(made.length, 2);
  made[1].establish();
  assert.equal(client.state, 'open');
});

test('tokens that live short are renewed half-way to their end, on the same socket', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout', 'setInterval', 'Date'], now: 1_000_000 });
  const { made, options } = fakes();
  let asked = 0;
  const client = new HabittoWebSocketClient(1, 't', { ...options, pingInterval: 0, getToken: async () => `t${(asked += 1)}` });
  t.after(() => client.disconnect());
  client.connect();
  made[0].establish();
  const expiring = (ms) => made[0].say({ type: 'token_expiring', expires_at: new Date(Date.now() + ms).toISOString() });
  const after = async (ms) => {
    t.mock.timers.tick(ms);
    await settled();
    return asked;
  };
  expiring(20_000);
  assert.equal(await after(1), 1, 'of this one no age is known');
  for (const round of [1, 2, 3]) {
    expiring(20_000);
    assert.equal(await after(9_999), round);
    assert.equal(await after(1), round + 1);
  }
  expiring(-60_000); // this clock is ahead
  assert.equal(await after(999), 4);
  assert.equal(await after(1), 5);
  assert.deepEqual([made.length, made[0].sent.map((message) => message.token)], [1, ['t1', 't2', 't3', 't4', 't5']]);
});

test('pings are sent at a time that timers can keep, or not at all', (t) => {
  t.mock.timers.enable({ apis: ['setTimeout', 'setInterval'] });
  for (const [pingInterval, sent] of [[0, 0], [-1, 0], [NaN, 0], [Infinity, 0], [2 ** 31, 0], [400, 2]]) {
    const { made, options } = fakes();
    const client = new HabittoWebSocketClient(1, 't', { ...options, pingInterval });
    client.connect();
    made[0].establish();
    t.mock.timers.tick(1000);
    assert.equal(made[0].sent.length, sent, `${pingInterval}`);
    client.disconnect();
  }
});

test('what comes twice is told once, and acknowledged all the same', (t) => {
  t.mock.timers.enable({ apis: ['setTimeout', 'setInterval'] });
  const { made, options } = fakes();
  const client = new HabittoWebSocketClient(1, 't', options);
  client.handleMessage = () => {};
  const heard = [];
  client.on('notification', ({ notification_id }) => heard.push(notification_id));
  client.on('unread', () => heard.push('unread'));
  client.connect();
  const [socket] = made;
  socket.onopen();
  socket.say({ type: 'connection_established', ack: 'client' });
  for (const id of ['a', 'b', 'a']) {
    socket.say({ type: 'unread', notification_id: id, message: 'named like an event of ours' });
    t.mock.timers.tick(100);
  }
  for (const odd of ['null', '5', '{', '{"type":1}']) socket.onmessage({ data: odd });
  assert.deepEqual(heard, ['a', 'b']);
  assert.deepEqual(socket.sent.map(({ type, notification_id }) => `${type} ${notification_id}`), ['ack a', 'ack b', 'ack a']);
  client.markRead(Array.from({ length: 150 }, (_, n) => String(n)));
  assert.deepEqual(socket.sent.slice(3).map((message) => message.notification_ids.length), [100, 50]);
  client.disconnect();
});

test('the ids it has seen are bounded', () => {
  const client = new HabittoWebSocketClient(1, 't', { url: 'http://127.0.0.1:9', storage: null });
  for (let n = 0; n < 5000; n += 1) assert.ok(client._isNew(String(n)));
  assert.ok(client._seen.size <= 2000 && !client._isNew('4999'));
});
