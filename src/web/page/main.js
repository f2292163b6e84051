// Owns what the page does: signing in, both sides' sections, the live inbox. Never makes an element's insides
// (`views.js`) nor a token (`session.js`). Enter at `start`.
import { HabittoWebSocketClient, userOf } from '../client/habitto.js';
import { BASE, Session, recall, remember, takeFragment } from './session.js';
import { describe, language, nameOf, t } from './texts.js';
import { accepted, bones, el, fill, icon, markAsRead, note, property, request, section, tick } from './views.js';

const PAGE = 20;
const HOMES = 12;
const app = document.getElementById('app');
const said = document.getElementById('said');
const logo = (size) => el('img', { src: 'page/icon.svg', alt: '', width: size, height: size });

/** Ends the view that is shown. */
let leave = () => {};

/** For whoever listens to the page instead of seeing it. */
function say(what) {
	said.textContent = '';
	requestAnimationFrame(() => (said.textContent = what));
}

const wordsFor = (error, otherwise) => (error.status === 429 ? t.slow : otherwise);

/** One run of `work` at a time; however often it is asked for meanwhile, one more follows. */
function inTurn(work) {
	let last = Promise.resolve();
	let next = null;
	return () =>
		(next ??= last.then(() => {
			next = null;
			return (last = work());
		}));
}

function show(kind, ...children) {
	leave();
	leave = () => {};
	document.title = t.title;
	app.className = kind;
	app.replaceChildren(...children);
}

function start() {
	document.documentElement.lang = language;
	const held = takeFragment() ?? recall();
	if (held?.owner) sideBySide(held);
	else if (!held?.access) signedOut();
	else if (/^\d+$/.test(userOf(held.access))) signedIn(new Session(held));
	else signedOut(t.badLink);
}

/** The form; `why`: what ended the session. */
function signedOut(why = '') {
	remember(null);
	const alert = el('p.alert', { role: 'alert', id: 'alert' }, why);
	const field = (name, type, autocomplete) =>
		el('p.field', el('label', { for: name }, t[name]),
			el('input', { id: name, name, type, autocomplete, autocapitalize: 'none', maxlength: 150, 'aria-describedby': 'alert' }));
	const submit = el('button.main.wide', t.signIn);
	const form = el('form', { method: 'post' }, field('username', 'text', 'username'), field('password', 'password', 'current-password'), alert, submit);
	const { username, password } = form.elements;
	form.addEventListener('submit', async (event) => {
		event.preventDefault();
		if (submit.ariaDisabled) return;
		if (!username.value || !password.value) {
			alert.textContent = t.needBoth;
			return (username.value ? password : username).focus();
		}
		submit.ariaDisabled = 'true';
		alert.textContent = '';
		try {
			signedIn(await Session.signIn(username.value.trim(), password.value));
		} catch (error) {
			alert.textContent = { 400: t.badLogin, 401: t.badLogin, 404: t.noLogin }[error.status] ?? wordsFor(error, t.actFailed);
			submit.ariaDisabled = null;
			password.select();
		}
	});
	show('gate', el('main.login', logo(56), el('h1', t.title), el('p.words', t.tagline), form));
	if (window === window.top) username.focus();
}

function sideBySide(held) {
	remember(held);
	const frame = (name, title) => el('iframe', { name, title, src: `./#token=${encodeURIComponent(held[name])}` });
	show('both', el('main.frames', el('h1.hidden', t.sideBySide), frame('owner', t.ownersView), frame('tenant', t.tenantsView)));
}

async function signedIn(session) {
	let rows = [];
	let unread = 0;
	let many = PAGE;
	let over = false;
	/** What is to be loaded anew when one of these notifications comes. */
	const parts = new Map();

	const link = el('p.link', { role: 'status' }, t.connecting);
	const count = el('span.count', { hidden: '' });
	const bell = el('a.bell', { href: '#inbox' }, icon('bell'), count);
	const who = el('p.who');
	const allow = el('button.quiet.allow', { onclick: askForAlerts }, t.allow);
	const out = el('button.quiet.out', { 'aria-label': t.signOut, onclick: () => signedOut() }, icon('out'), el('span', t.signOut));
	const alert = el('p.alert.bar', { role: 'alert' });
	const inbox = section('inbox', t.inbox, 'bell', t.noNotes, t.noNotesMore);
	const markAll = el('button.text', { hidden: '', onclick: readAll }, t.markAll);
	const work = el('div.work', el('div.panel.waits', bones()));
	inbox.tools.append(markAll);
	show('home',
		el('a.skip', { href: '#work' }, t.skip),
		el('header.top', el('h1', logo(32), el('span', t.title)), who, link, el('div.push', allow, bell, out)),
		alert,
		el('main', { id: 'work', tabindex: -1 }, work, inbox.root));
	showAlerts();
	setUnread(0);

	const client = new HabittoWebSocketClient(session.user, session.access, {
		url: BASE.href,
		getToken: () => session.renew(),
		storage: null, // what a reload may have missed is in the inbox that it loads
	});
	client.handleMessage = () => {};
	session.renewed = (access) => client.setToken(access);
	const ticking = setInterval(tick, 30_000);
	const recount = inTurn(() => session.call('notifications/my/').then((my) => setUnread(my.unread_count), failed));
	const loadInbox = part([inbox], [], load);
	const loadAll = () => document.hidden || parts.forEach((on, reload) => reload());
	document.addEventListener('visibilitychange', loadAll);
	leave = () => {
		over = true;
		client.disconnect();
		clearInterval(ticking);
		document.removeEventListener('visibilitychange', loadAll);
	};

	let wasOpen = false;
	client.on('state', ({ state }) => {
		if (over) return;
		if (state === 'expired') return signedOut(t.ended);
		if (state === 'refused') return signedOut(t.refused);
		link.dataset.state = state;
		link.textContent = t[state];
		if (state === 'open' && wasOpen) loadAll();
		wasOpen ||= state === 'open';
	});
	client.on('unread', ({ unread_count }) => setUnread(unread_count));
	client.on('notification_read', ({ all, notification_id, notification_ids = [notification_id] }) => haveRead(!all && notification_ids));
	client.on('notification', async (data) => {
		const { type, notification_id, timestamp: created_at } = data;
		const isIt = (row) => row.notification_id === notification_id;
		for (const [reload, on] of parts) if (on.includes(type)) reload();
		if (rows.some(isIt)) return recount();
		const live = { notification_id, data, is_read: false, created_at };
		rows.unshift(live);
		showInbox();
		// The title that the backend gave it is in REST alone.
		if (data.property_id) recount();
		else await loadInbox();
		if (!over) announce(rows.find(isIt) ?? live);
	});

	/** A call that failed: a session that is over ends the view. */
	function failed(error) {
		if (!over && error.status === 401) signedOut(error.message.startsWith('user_') ? t.refused : t.ended);
	}

	function setUnread(n) {
		if (over) return;
		unread = n;
		count.textContent = n > 99 ? '99+' : n;
		count.hidden = markAll.hidden = !n;
		bell.ariaLabel = `${t.inbox}: ${t.unread(n)}`;
		document.title = n ? `(${n}) ${t.title}` : t.title;
	}

	function showInbox() {
		const items = rows.map((row) => ({ is: `${row.notification_id} ${describe(row).title}`, row }));
		fill(inbox.list, items, ({ row }) => note(row, readOne), (made, { row }) => row.is_read && markAsRead(made));
	}

	/** These, or all. */
	function haveRead(ids) {
		for (const row of rows) row.is_read ||= !ids || ids.includes(row.notification_id);
		showInbox();
	}

	function readOne(id) {
		client.markRead(id);
		setUnread(Math.max(0, unread - 1));
		haveRead([id]);
	}

	function readAll() {
		client.markAllRead();
		inbox.heading.focus();
		setUnread(0);
		haveRead();
	}

	async function load() {
		const { results, next } = await session.call(`notifications/?page_size=${many}`);
		if (over) return;
		// What came live while the answer was on its way is newer than all of it.
		const newest = results[0]?.created_at ?? '';
		const ids = results.map((row) => row.notification_id);
		rows = [...rows.filter((row) => row.created_at >= newest && !ids.includes(row.notification_id)), ...results];
		showInbox();
		inbox.loaded(next && many < 100 && (() => ((many += PAGE), loadInbox())));
		recount();
	}

	function announce(row) {
		const { title, body } = describe(row);
		say(`${t.arrived}: ${title} ${body}`);
		if (!document.hasFocus()) client.displayNotification({ title, body, data: row.data });
	}

	async function askForAlerts() {
		if ((await Notification.requestPermission()) === 'denied') alert.textContent = t.denied;
		showAlerts();
	}

	function showAlerts() {
		allow.hidden = (globalThis.Notification?.permission ?? 'granted') === 'granted';
	}

	async function act(path, done, reload) {
		alert.textContent = '';
		try {
			const { status } = await session.call(path, 'POST');
			// A no that the inbox did not tell.
			if (status === 'rejected' && path.endsWith('/like/')) alert.textContent = t.isRejected;
			else say(done);
		} catch (error) {
			alert.textContent = wordsFor(error, t.actFailed);
			failed(error);
		}
		await reload();
	}

	/** Loads a part of the page: when called, and whenever one of these notifications comes. */
	function part(sections, on, work) {
		let loaded = false;
		const reload = inTurn(async () => {
			try {
				await work();
				loaded = true;
			} catch (error) {
				if (!loaded) for (const each of sections) each.broken(wordsFor(error, t.failed), reload);
				failed(error);
			}
		});
		parts.set(reload, on);
		return reload;
	}

	function requests() {
		const asked = section('requests', t.requests, 'heart', t.noRequests, t.noRequestsMore);
		const reload = part([asked], ['property_like', 'match_accepted'], async () => {
			const { count, results } = await session.call('matches/pending_requests/?page_size=50');
			const items = results.map((entry) => ({ is: `${entry.match.id} ${entry.match.updated_at}`, entry }));
			fill(asked.list, items, ({ entry }) =>
				request(entry, (what) => act(`matches/${entry.match.id}/owner_${what}/`, what === 'accept' ? t.isAccepted : t.didReject, reload)));
			asked.tools.replaceChildren(...(count ? [el('span.pill', count)] : []));
			asked.loaded();
		});
		return reload().then(() => [asked.root]);
	}

	function homes() {
		const yes = section('accepted', t.accepted, 'key', t.noAccepted, t.noAcceptedMore);
		const all = section('homes', t.homes, 'home', t.noHomes, t.noHomesMore);
		const kinds = ['match_accepted_by_owner', 'match_rejected_by_owner'];
		let many = HOMES;
		const reload = part([yes, all], kinds, async () => {
			const [{ results, next }, mine, ...told] = await Promise.all([
				session.call(`properties/?page_size=${many}`),
				session.call('matches/my/?page_size=100'),
				...kinds.map((kind) => session.call(`notifications/?type=${kind}&page_size=100`)),
			]);
			const [yesOf, noOf] = told.map((page) => (id) => page.results.find((row) => row.data.property_id === id));
			// The tenant's own no is none; the owner's stands until his yes.
			const isOpen = ({ status, subject_id: id }) => status === 'rejected' && !(noOf(id)?.id > (yesOf(id)?.id ?? 0));
			const matches = new Map(mine.results.map((match) => [match.subject_id, isOpen(match) ? 'open' : match.status]));
			const items = results
				.filter(({ owner, agent }) => ![owner, agent].includes(Number(session.user)))
				.map((home) => ({ is: `${matches.get(home.id)} ${JSON.stringify(home)}`, home }));
			fill(all.list, items, ({ home }) =>
				property(home, matches.get(home.id), (what) => act(`properties/${home.id}/${what}/`, what === 'like' ? t.pending : t.didUndo, reload)));
			all.loaded(next && many < 96 && (() => ((many += HOMES), reload())));
			const got = mine.results.filter((match) => match.status === 'accepted');
			fill(yes.list, got.map((match) => ({ is: `${match.id} ${match.updated_at}`, match })), ({ match }) =>
				accepted(match, yesOf(match.subject_id)?.data));
			yes.loaded();
		});
		return reload().then(() => [yes.root, all.root]);
	}

	/** Who this is follows from the directory; where it does not say, both sides are shown. */
	async function sides() {
		const me = (await session.call('users/me/').catch(failed)) ?? {};
		if (over) return;
		const [agent, keeper, seeker] = [/agen/i, /propiet|dueñ|owner|landlord/i, /inqui|tenant/i].map((is) => is.test(me.user_type));
		const name = me.id ? nameOf(me) : `#${session.user}`;
		who.append(el('span.strong', { title: name }, name),
			el('span.small', agent ? t.agent : keeper ? t.owner : seeker ? t.tenant : ''));
		const shown = await Promise.all([seeker ? [] : requests(), keeper || agent ? [] : homes()]);
		work.replaceChildren(...shown.flat());
	}

	client.connect();
	await Promise.all([loadInbox(), sides()]);
}

addEventListener('hashchange', () => /(token|owner)=/.test(location.hash) && start());
start();
