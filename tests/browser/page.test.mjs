// The page in Chromium against the real server: what people see and do. Run by tests/all.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { after, before, test } from 'node:test';
import { BINARY, encoded, newTab, openBrowser, openPage, serve, token, until, violations, wire } from './harness.mjs';

const PATIENCE = { timeout: 90_000 };
let browser;
before(async () => (browser = await openBrowser()));
after(() => browser?.close());

const link = (url, user, seconds) => `${url}/#token=${token(user, seconds)}&user=${user}`;
const state = (page) => page.locator('.link').textContent();
const live = (page) => until(async () => (await state(page)) === 'En vivo', 'the page is live');
const notes = (page) => page.locator('#inbox .note');
/** Text of the page itself, apart from what is only read out. */
const shown = (page, text) => page.locator('#app').getByText(text).first().waitFor();
const texts = (page) => page.locator('#inbox .note .words').allTextContents();

/** Somebody's page, signed in and live. */
async function open(t, url, user, options = {}) {
  const page = await openPage(t, browser, options);
  await page.goto(link(url, user, options.seconds));
  if (options.locale === undefined) await live(page);
  return page;
}

test('a like arrives live, and so does the answer', PATIENCE, async (t) => {
  const server = await serve(t);
  await server.people();
  const [owner, tenant] = await Promise.all([open(t, server.url, 1), open(t, server.url, 2)]);
  const requests = [];
  for (const page of [owner, tenant]) {
    page.on('request', (request) => requests.push(request.url()));
    page.on('websocket', (socket) => requests.push(socket.url()));
  }
  await shown(owner, 'Nadie espera tu respuesta');
  await tenant.getByRole('button', { name: /^Me interesa: departamento, Av\. Siempre Viva 10/ }).click();
  await shown(tenant, 'Esperando respuesta');
  await shown(owner, 'Juan Perez se interesa por tu propiedad: departamento en Av. Siempre Viva 10');
  await until(async () => (await owner.title()) === '(1) Habitto');
  await owner.getByRole('button', { name: /^Aceptar: Juan Perez/ }).click();
  await shown(owner, 'Nadie espera tu respuesta');
  assert.equal(await owner.evaluate(() => document.activeElement.textContent), 'Solicitudes', 'the focus is kept');
  await shown(owner, '¡Match aceptado!');
  await shown(tenant, 'María García aceptó tu solicitud');
  const accepted = tenant.locator('#accepted li');
  await accepted.getByText('maria@example.com').waitFor();
  await until(async () => (await tenant.title()) === '(1) Habitto');
  await tenant.reload();
  await live(tenant);
  await accepted.getByText('María García').waitFor();

  assert.equal(await notes(tenant).count(), 1);
  assert.ok(requests.length > 5 && requests.every((url) => new URL(url).host === new URL(server.url).host), 'no foreign host');
  assert.ok(!requests.some((url) => url.includes('eyJ')), 'no token in a request line');
  assert.equal(owner.url(), `${server.url}/`, 'nor in the address bar');
  assert.deepEqual([...owner.complaints, ...tenant.complaints], []);
});

test('who withdraws may like again; whom the owner rejects may not, until he accepts', PATIENCE, async (t) => {
  const server = await serve(t);
  await server.people();
  const page = await open(t, server.url, 2);
  const card = page.locator('#homes li').filter({ hasText: 'Av. Siempre Viva 10' });
  const like = card.getByRole('button', { name: /^Me interesa/ });
  await like.click();
  await card.getByRole('button', { name: /^Ya no me interesa/ }).click();
  await like.click();
  await card.getByText('Esperando respuesta').waitFor();
  const { results } = await server.call('GET', '/api/matches/my/', 2);
  const owner = (does) => server.call('POST', `/api/matches/${results[0].id}/owner_${does}/`, 1);
  await owner('reject');
  await card.getByText('No fue aceptada').waitFor();
  // A new score is no new answer.
  await server.call('PUT', '/api/matches/', 'service', { property: 10, tenant: 2, score: 50 });
  await page.reload();
  await card.getByText('No fue aceptada').waitFor();
  assert.equal(await like.count(), 0);
  await owner('accept');
  await card.getByText('Aceptada').waitFor();
  await server.call('POST', '/api/properties/10/reject/', 2);
  await page.reload();
  await like.waitFor();

  // A rejected suggestion is told to nobody.
  const { id } = await server.call('PUT', '/api/matches/', 'service', { property: 11, tenant: 2, score: 50 });
  await server.call('POST', `/api/matches/${id}/owner_reject/`, 1);
  await page.getByRole('button', { name: /^Me interesa: .*Los Pinos/ }).click();
  await page.getByRole('alert').getByText('No fue aceptada').waitFor();
  assert.deepEqual(page.complaints, []);
});

test("the backend's own words: title, line breaks, any name for their kind", PATIENCE, async (t) => {
  const server = await serve(t);
  await server.people();
  const page = await open(t, server.url, 1);
  await shown(page, 'Todavía no hay avisos');
  for (const notification_type of ['__proto__', 'constructor', 'toString']) {
    await server.tell(1, `uno\ndos de ${notification_type}`, 'property', { notification_type, title: 'Mantenimiento' });
    await until(async () => (await page.locator('#said').textContent()) === `Nuevo aviso: Mantenimiento uno\ndos de ${notification_type}`);
  }
  assert.equal(await page.locator('#inbox .strong').getByText('Mantenimiento').count(), 3);
  assert.equal(await page.locator('.note path[d^=M]').count(), 3, 'each has a picture');
  const heights = await page.locator('.note .words').evaluateAll((all) => all.map((each) => each.offsetHeight / parseFloat(getComputedStyle(each).lineHeight)));
  assert.ok(heights.every((lines) => Math.round(lines) === 2), `${heights}`);
  assert.deepEqual(page.complaints, []);
});

test('away and back: nothing lost, nothing twice, and it says so', PATIENCE, async (t) => {
  const server = await serve(t);
  await server.people();
  const line = await wire(t, server.port);
  const page = await open(t, line.url, 1);
  await shown(page, 'Todavía no hay avisos');
  await server.tell(1, 'before');
  await shown(page, 'before');
  assert.ok(!(await page.getByText('Todavía no hay avisos').isVisible()));
  line.cut();
  await until(async () => /Reconectando/.test(await state(page)));
  for (const message of ['one', 'two', 'three']) await server.tell(1, message, 'tenant');
  line.mend();
  await live(page);
  await until(async () => (await notes(page).count()) === 4 && (await page.title()) === '(4) Habitto');
  assert.deepEqual(await texts(page), ['three', 'two', 'one', 'before']);
});

test('two tabs agree on what is read', PATIENCE, async (t) => {
  const server = await serve(t);
  await server.people();
  const one = await open(t, server.url, 1);
  const two = await newTab(one.context());
  await two.goto(link(server.url, 1));
  await live(two);
  for (const message of ['a', 'b', 'c']) await server.tell(1, message);
  for (const page of [one, two]) await until(async () => (await page.title()) === '(3) Habitto');
  await one.getByRole('button', { name: /^Marcar como leído: .*b$/ }).click();
  for (const page of [one, two]) {
    await until(async () => (await page.title()) === '(2) Habitto');
    assert.equal(await page.locator('.note.unread').count(), 2);
  }
  await two.getByRole('button', { name: 'Marcar todo como leído' }).click();
  for (const page of [one, two]) await until(async () => (await page.title()) === 'Habitto' && !(await page.locator('.note.unread').count()));
  assert.equal((await server.call('GET', '/api/notifications/my/', 1)).unread_count, 0);
  assert.deepEqual([...one.complaints, ...two.complaints], []);
});

test('signing in by form, and staying signed in', PATIENCE, async (t) => {
  // The server tells a socket 30 s before its token ends: here a moment after it was made.
  const server = await serve(t, { HABITTOD_AUTH_ACCESS_TTL: '33s' });
  await server.people(encoded('correcta'));
  const page = await openPage(t, browser);
  const sockets = [];
  page.on('websocket', (socket) => sockets.push(socket.url()));
  await page.goto(server.url);
  const alert = page.getByRole('alert');
  await page.keyboard.press('Enter');
  await until(async () => (await alert.textContent()) === 'Escribe tu usuario y tu contraseña.');
  await page.keyboard.type('maria');
  await page.keyboard.press('Tab');
  await page.keyboard.type('falsa');
  await page.keyboard.press('Enter');
  await until(async () => (await alert.textContent()) === 'El usuario o la contraseña no son correctos.');
  assert.equal(page.complaints.splice(0).length, 1, 'the browser notes the 401');
  await page.keyboard.type('correcta'); // over the selected wrong one
  await page.keyboard.press('Enter');
  await live(page);
  const held = () => page.evaluate(() => sessionStorage.getItem('habittod:session:'));
  const first = await held();
  await until(async () => (await held()) !== first, 'the tokens are renewed');
  await server.tell(1, 'after');
  await shown(page, 'after');
  assert.equal(sockets.length, 2, 'on the same sockets');
  await page.reload();
  await live(page);
  await page.getByRole('button', { name: 'Salir' }).click();
  await page.getByLabel('Usuario').waitFor();
  assert.equal(await held(), 'null');
  assert.deepEqual(page.complaints, []);
});

test('where no passwords are used, the form says so', PATIENCE, async (t) => {
  const server = await serve(t, { HABITTOD_AUTH_LOGIN: 'false' });
  const page = await openPage(t, browser);
  await page.goto(server.url);
  await page.getByLabel('Usuario').fill('maria');
  await page.getByLabel('Contraseña').fill('x');
  await page.getByRole('button', { name: 'Iniciar sesión' }).click();
  await shown(page, 'Aquí no se usa contraseña: abre tu enlace.');
});

test('an ended session says so, and a new link begins another', PATIENCE, async (t) => {
  const server = await serve(t);
  await server.people();
  const page = await openPage(t, browser);
  await page.goto(link(server.url, 1, 3));
  await shown(page, 'Tu sesión terminó. Inicia sesión de nuevo.');
  await page.goto(link(server.url, 2));
  await live(page);
  await shown(page, 'Juan Perez');
  await page.getByRole('button', { name: 'Salir' }).click();
  await page.getByRole('button', { name: 'Iniciar sesión' }).waitFor();
  await page.reload();
  await page.getByRole('button', { name: 'Iniciar sesión' }).waitFor();
});

test('a link that names nobody opens no sockets', PATIENCE, async (t) => {
  const server = await serve(t);
  const page = await openPage(t, browser);
  const sockets = [];
  page.on('websocket', (socket) => sockets.push(socket.url()));
  for (const access of ['xyz', token('service')]) {
    await page.goto(`${server.url}/#token=${access}`);
    await shown(page, 'Este enlace no sirve.');
    await page.getByLabel('Usuario').fill('');
  }
  assert.deepEqual([sockets, page.complaints], [[], []]);
});

test('a server that cannot answer is told and asked again', PATIENCE, async (t) => {
  const server = await serve(t);
  await server.people();
  const page = await openPage(t, browser);
  await page.route('**/api/notifications/?*', (route) => route.abort(), { times: 1 });
  await page.route('**/api/matches/**', (route) => route.fulfill({ status: 503, body: '{}' }), { times: 1 });
  await page.goto(link(server.url, 1));
  for (const section of ['#inbox', '#requests']) {
    await page.locator(section).getByText('No se pudo cargar.').waitFor();
    await page.locator(section).getByRole('button', { name: 'Reintentar' }).click();
  }
  await shown(page, 'Todavía no hay avisos');
  await shown(page, 'Nadie espera tu respuesta');
});

test('whatever people are called, it is text', PATIENCE, async (t) => {
  const server = await serve(t);
  await server.people();
  const name = '<img src=x onerror=alert(1)>';
  await server.call('PUT', '/api/users/2/', 'service', { username: 'x', first_name: name, email: '"><script>@x', user_type: 'inquilino' });
  const page = await open(t, server.url, 1);
  await server.like(2, 10);
  await shown(page, `${name} se interesa por tu propiedad`);
  assert.equal(await page.locator('main img').count(), 0);
  assert.deepEqual(page.complaints, []);
});

test('somebody the directory does not know sees both sides', PATIENCE, async (t) => {
  const server = await serve(t);
  await server.people();
  const page = await openPage(t, browser, { locale: 'en-GB' });
  await page.goto(link(server.url, 9));
  for (const heading of ['Requests', 'Accepted', 'Homes', 'Inbox']) await page.getByRole('heading', { name: heading }).waitFor();
  assert.equal(await page.evaluate(() => document.documentElement.lang), 'en');
});

test('browser notifications are asked for by a click, and come when nobody looks', PATIENCE, async (t) => {
  const server = await serve(t);
  await server.people();
  const page = await openPage(t, browser);
  await page.addInitScript(() => {
    globalThis.shown = [];
    class Notification {
      static permission = 'default';
      static async requestPermission() {
        return (Notification.permission = 'granted');
      }
      constructor(title, options) {
        globalThis.shown.push(`${title} ${options.body}`);
      }
    }
    globalThis.Notification = Notification;
    document.hasFocus = () => false;
  });
  await page.goto(link(server.url, 1));
  await live(page);
  await server.tell(1, 'early');
  await shown(page, 'early');
  await page.getByRole('button', { name: 'Activar avisos' }).click();
  await page.getByRole('button', { name: 'Activar avisos' }).waitFor({ state: 'hidden' });
  await server.like(2, 10);
  await until(() => page.evaluate(() => globalThis.shown.length === 1));
  assert.deepEqual(await page.evaluate(() => globalThis.shown), ['¡Nuevo interesado en tu propiedad! Juan Perez se interesa por tu propiedad: departamento en Av. Siempre Viva 10']);
});

test('the keyboard reaches everything and the layout keeps still', PATIENCE, async (t) => {
  const server = await serve(t);
  await server.people();
  await server.like(2, 10);
  await server.like(3, 11);
  const page = await openPage(t, browser, { viewport: { width: 390, height: 844 } });
  await page.addInitScript(() => {
    globalThis.shifted = 0;
    new PerformanceObserver((list) => {
      for (const entry of list.getEntries()) if (!entry.hadRecentInput) globalThis.shifted += entry.value;
    }).observe({ type: 'layout-shift', buffered: true });
  });
  await page.goto(link(server.url, 1));
  await live(page);
  await page.locator('#requests li').nth(1).waitFor();
  await notes(page).nth(1).waitFor();
  assert.ok((await page.evaluate(() => globalThis.shifted)) < 0.1, 'no layout jump');
  assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), 'fits a phone');
  const reached = [];
  for (let n = 0; n < 20 && !reached.some((label) => label?.startsWith('Rechazar')); n += 1) {
    await page.keyboard.press('Tab');
    reached.push(await page.evaluate(() => document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent));
  }
  assert.equal(reached[0], 'Ir al contenido');
  await page.keyboard.press('Enter');
  await until(async () => (await page.locator('#requests li').count()) === 1);
  assert.match(await page.evaluate(() => document.activeElement.getAttribute('aria-label')), /^Aceptar: /, 'on to the next one');
});

test('the focus stays where one reads on', PATIENCE, async (t) => {
  const server = await serve(t);
  await server.people();
  for (let n = 20; n < 33; n += 1) await server.call('PUT', `/api/properties/${n}/`, 'service', { owner: 1, type: 'casa', address: `Calle ${n}` });
  const { match_id } = await server.like(2, 10);
  await server.call('POST', `/api/matches/${match_id}/owner_accept/`, 1);
  for (let n = 0; n < 25; n += 1) await server.tell(2, `nota ${n}`);
  const page = await open(t, server.url, 2);
  const focused = (what) => page.evaluate(what);
  for (const [id, first] of [['inbox', 20], ['homes', 12]]) {
    await page.locator(`#${id} .more`).click();
    await page.locator(`#${id} li`).nth(first).waitFor();
    await until(() => page.evaluate(([id, first]) => document.activeElement === document.querySelectorAll(`#${id} li`)[first], [id, first]));
  }
  const dot = (n) => page.getByRole('button', { name: new RegExp(`^Marcar como leído: .*nota ${n}$`) });
  await dot(24).press('Enter');
  assert.match(await focused(() => document.activeElement.getAttribute('aria-label')), /nota 23$/);
  await dot(0).press('Enter');
  await page.locator('.note').last().getByText('Próximos pasos').click();
  await page.locator('.note').last().getByRole('button').press('Enter');
  assert.match(await focused(() => document.activeElement.getAttribute('aria-label')), /nota 1$/);
  assert.ok(await page.locator('.note').last().locator('details').evaluate((details) => details.open));
  assert.equal(await page.locator('.note.unread').count(), 23);
});

test('labels and the header hold on a phone', PATIENCE, async (t) => {
  const server = await serve(t);
  await server.people();
  const last_name = 'de los Ángeles Inmaculada Fernández-Villaverde y Ruiz de Alarcón';
  await server.call('PUT', '/api/users/1/', 'service', { username: 'maria', first_name: 'María', last_name, user_type: 'propietario' });
  await server.like(2, 10);
  const page = await open(t, server.url, 1, { viewport: { width: 375, height: 800 } });
  await page.locator('#requests li').waitFor();
  for (const width of [375, 360, 320]) {
    await page.setViewportSize({ width, height: 800 });
    const [top, ...labels] = await page.locator('.top, #requests .acts button').evaluateAll((all) => all.map((each) => each.offsetHeight));
    assert.ok(top < 110 && labels.length === 2 && labels.every((height) => height < 45), `${width}: ${top}, ${labels}`);
    assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), `fits ${width}`);
  }
  assert.equal(await page.locator('.who .strong').getAttribute('title'), `María ${last_name}`);
});

for (const colorScheme of ['light', 'dark']) {
  test(`axe has nothing against any view, ${colorScheme}`, PATIENCE, async (t) => {
    const server = await serve(t);
    await server.people();
    await server.like(3, 10);
    const { match_id } = await server.like(2, 11);
    await server.call('POST', `/api/matches/${match_id}/owner_accept/`, 1);
    await server.tell(2, 'hola', 'tenant');
    const page = await openPage(t, browser, { colorScheme, reducedMotion: 'reduce' });
    await page.goto(server.url);
    await page.getByLabel('Usuario').waitFor();
    assert.deepEqual(await violations(page), [], 'signed out');
    for (const [user, what] of [[1, '#requests li'], [2, '#accepted li']]) {
      await page.goto(link(server.url, user));
      await page.locator(what).first().waitFor();
      await notes(page).first().waitFor();
      await live(page);
      assert.deepEqual(await violations(page), [], `user ${user}`);
    }
    await page.goto(`${server.url}/#owner=${token(1)}&tenant=${token(2)}`);
    await page.frameLocator('iframe[name=owner]').locator('#requests li').first().waitFor();
    await page.frameLocator('iframe[name=tenant]').locator('#accepted li').first().waitFor();
    assert.deepEqual(await violations(page), [], 'side by side');
    assert.deepEqual(page.complaints, []);
  });
}

test("the demo's links show both sides, and something goes on", PATIENCE, async (t) => {
  const demo = spawn(BINARY, ['demo', '--listen', '127.0.0.1:0'], { stdio: ['ignore', 'pipe', 'inherit'] });
  t.after(() => demo.kill() && once(demo, 'exit')); // it takes its folder with it
  let [both, owner] = [];
  for await (const line of createInterface(demo.stdout)) {
    both ??= /http:\S+#owner=\S+/.exec(line)?.[0];
    owner ??= /http:\S+#token=\S+/.exec(line)?.[0];
    if (owner) break;
  }
  const page = await openPage(t, browser);
  await page.goto(both);
  const [left, right] = ['owner', 'tenant'].map((name) => page.frameLocator(`iframe[name=${name}]`));
  await left.locator('#inbox .note').first().waitFor({ timeout: 20_000 });
  await left.getByText('María García').waitFor();
  await right.getByRole('button', { name: /^Me interesa: departamento, Av\. Siempre Viva 123/ }).click();
  await left.getByRole('button', { name: /^Aceptar: Juan Perez/ }).click();
  await right.locator('#accepted').getByText('María García').waitFor();
  assert.equal(page.url(), both.split('#')[0]);
  await page.reload();
  await right.locator('#accepted').getByText('María García').waitFor();
  const alone = await openPage(t, browser);
  await alone.goto(owner);
  await live(alone);
  assert.deepEqual([...page.complaints, ...alone.complaints], []);
});
