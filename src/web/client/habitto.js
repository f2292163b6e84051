// Owns the client's side of habittod's sockets: both channels, staying connected, nothing lost, nothing twice. Never
// touches the page. Enter at HabittoWebSocketClient. For browsers, and Node 22 or newer; no dependencies.

/**
 * @typedef {'property' | 'tenant'} Channel
 * @typedef {'idle' | 'connecting' | 'open' | 'waiting' | 'expired' | 'refused' | 'closed'} ConnectionState
 * `waiting`: lost, will try again. `expired`: needs a new token (`setToken`). `refused`: may not connect with it.
 * @typedef {{id: number, username: string, email: string, first_name: string, last_name: string, phone: string,
 *   user_type: string}} Person
 * @typedef {{type: string, timestamp?: string, notification_id?: string, notification_ids?: string[], all?: boolean,
 *   message?: string, code?: string, property_id?: number, property_title?: string, property_address?: string,
 *   interested_user?: Person, owner_name?: string, owner_contact?: {email: string, phone: string},
 *   match_score?: number, match_status?: string, next_steps?: string[], data?: Record<string, unknown>,
 *   unread_count?: number, skipped?: number, ack?: string, expires_at?: string}} Message
 * What the server sends; which fields are there follows from `type`.
 * @typedef {(message: any, channel?: Channel) => void} Listener
 * @typedef {string | null | undefined} Token
 * @typedef {object} Options
 * @property {string} [url] The server; by default where this module came from.
 * @property {Channel[]} [channels] Both by default.
 * @property {() => Token | Promise<Token>} [getToken] A fresh token when the old one ends; nothing: there is none. A
 *   rejection is tried again.
 * @property {() => Token | Promise<Token>} [renewToken] The same.
 * @property {'protocol' | 'query'} [tokenIn] A subprotocol (the default), which no access log shows, or `?token=`.
 * @property {Pick<Storage, 'getItem' | 'setItem' | 'removeItem'> | null} [storage] Keeps the place in each channel:
 *   localStorage by default, null for memory only.
 * @property {number} [reconnectInterval] The first wait is up to so many ms, each further one up to twice that.
 * @property {number} [maxReconnectInterval] No wait is longer, in ms.
 * @property {number} [pingInterval] Ms between pings: they find lines that are dead without knowing. 0: none.
 * @property {any} [WebSocket] Instead of the global one.
 */

const REMEMBERED_IDS = 2000;
const READS_AT_ONCE = 100;
const ACK_AFTER_MS = 100;
/** A ping that is not answered within this means a dead line. */
const SILENCE_MS = 10_000;
/** A line that lived for so long was a good one: the next wait is short again. */
const GOOD_AFTER_MS = 10_000;
/** @type {Record<number, string>} */
const ENDS = { 4401: 'expired', 4403: 'refused' };

function home() {
	const own = String(import.meta.url);
	if (/^https?:.*\/client\/habitto\.js$/.test(own)) return new URL('..', own).href;
	const page = globalThis.location?.origin ?? '';
	return page.startsWith('http') ? page : 'http://localhost:8000';
}

/** What `work` gives, or nothing where it cannot. @template T @param {() => T} work
 * @param {(why: unknown) => void} [say] */
function attempt(work, say) {
	try {
		return work();
	} catch (error) {
		say?.(error);
	}
}

/** The user a token speaks for, if it is readable. @param {string} token */
export function userOf(token) {
	return attempt(() => JSON.parse(atob(token.split('.')[1].replace(/-/g, '+').replace(/_/g, '/'))).user_id);
}

class Line {
	socket = /** @type {WebSocket | null} */ (null);
	/** @type {any} */ timer;
	/** @type {any} */ ackTimer;
	ackDue = '';
	last = '';
	established = false;
	heard = true;
	acks = false;
	attempts = 0;
	openedAt = 0;
	token = '';

	/** @param {HabittoWebSocketClient} client @param {Channel} channel */
	constructor(client, channel) {
		this.client = client;
		this.channel = channel;
		this.key = `habittod:since:${client._base.host}${client._base.pathname}:${client.userId}:${channel}`;
	}

	/** In storage that is full or forbidden: in memory alone. @param {string} id */
	keep(id) {
		const storage = this.client._storage;
		this.last = id;
		attempt(() => (id ? storage?.setItem(this.key, id) : storage?.removeItem(this.key)));
	}

	open() {
		const { client } = this;
		clearTimeout(this.timer);
		this.timer = undefined;
		if (this.socket || client._stopped) return;
		this.token = client.token;
		const whose = userOf(this.token);
		if (whose && `${whose}` !== `${client.userId}`) return client._stop('refused', 'token of another user');
		const url = new URL(client._base);
		url.protocol = url.protocol.replace('http', 'ws');
		url.pathname = `${url.pathname.replace(/\/$/, '')}/ws/${this.channel}-notifications/${client.userId}/`;
		// This object's own place, else what an earlier page left.
		const since = this.last || attempt(() => client._storage?.getItem(this.key));
		if (since) url.searchParams.set('since', since);
		// Only these characters may stand in a subprotocol.
		const inProtocol = client._tokenIn === 'protocol' && /^[\w.~+-]+$/.test(this.token);
		if (!inProtocol) url.searchParams.set('token', this.token);
		/** @type {WebSocket} */
		const socket = new client._WebSocket(url.href, inProtocol ? ['bearer', this.token] : []);
		this.socket = socket;
		this.openedAt = 0;
		socket.onopen = () => {
			this.openedAt = Date.now();
			client.startPingInterval();
		};
		socket.onmessage = (event) => {
			this.heard = true;
			client._receive(this, event.data);
		};
		socket.onclose = (event) => this.lost(event.code);
		// Node does not say `close` where there was no handshake.
		socket.onerror = () => this.openedAt || this.lost(1006);
		client._tell();
	}

	/** @param {object} message */
	send(message) {
		const open = this.socket?.readyState === 1;
		if (open) this.socket?.send(JSON.stringify(message));
		return open;
	}

	auth() {
		const { token, _stopped } = this.client;
		if (this.send({ type: 'auth', token })) this.token = token;
		else if (!this.socket && !_stopped) this.again();
	}

	/** Comes back at once, but not time after time. */
	again() {
		if (this.attempts <= 1) this.open();
		else this.later();
	}

	/** Lets go of the socket, whatever it may still say. */
	drop() {
		const { socket } = this;
		clearTimeout(this.timer);
		clearTimeout(this.ackTimer);
		this.timer = undefined;
		this.ack();
		this.socket = null;
		this.established = false;
		if (!socket) return;
		socket.onopen = socket.onmessage = socket.onclose = socket.onerror = null;
		socket.close();
	}

	/** @param {number} code */
	async lost(code) {
		const { client, openedAt, token } = this;
		this.drop();
		if (openedAt && Date.now() - openedAt > GOOD_AFTER_MS) this.attempts = 0;
		this.attempts += 1;
		let why = ENDS[code];
		// A browser does not tell why a handshake failed: ask, now and then.
		if (!openedAt && this.attempts % 4 === 1) {
			why = await client._probe(token);
			if (client._stopped || this.socket) return;
		}
		if (why === 'refused') client._stop(why, 'user not accepted');
		else if (why === 'expired') this.renew();
		else this.later();
	}

	/** Waits between nothing and the whole of an interval that doubles, so that clients do not come back together. */
	later(then = () => this.open()) {
		const { reconnectInterval, maxReconnectInterval } = this.client;
		const most = Math.min(maxReconnectInterval, reconnectInterval * 2 ** Math.min(this.attempts - 1, 20));
		clearTimeout(this.timer);
		this.timer = setTimeout(then, Math.random() * most);
		this.client._tell();
	}

	/** Comes back with a new token, or not at all. */
	async renew() {
		const { client, token } = this;
		client._tell();
		try {
			if (client.token === token) await client._renew();
		} catch {
			if (!client._stopped) this.later(() => this.renew());
			return;
		}
		if (client._stopped || this.socket) return;
		if (client.token === token) client._stop('expired', 'token expired');
		else this.again();
	}

	/** @param {string} id covers all before it */
	ackSoon(id) {
		if (!this.ackDue) this.ackTimer = setTimeout(() => this.ack(), ACK_AFTER_MS);
		this.ackDue = id;
	}

	ack() {
		if (this.ackDue) this.send({ type: 'ack', notification_id: this.ackDue });
		this.ackDue = '';
	}

	/** Whether anything still comes: asks, and gives the line up if nothing does. */
	check() {
		if (!this.established) return;
		const { socket } = this;
		this.heard = false;
		this.send({ type: 'ping' });
		setTimeout(() => this.socket === socket && !this.heard && this.lost(1006), SILENCE_MS);
	}
}

/** A user's notifications, live. Made as the class of the API document is, and used the same way. */
export class HabittoWebSocketClient {
	/** The unread notifications of this user, both channels, as the server last said. */
	unreadCount = 0;
	state = /** @type {ConnectionState} */ ('idle');
	/** @type {any} */ pingInterval;
	_stopped = /** @type {ConnectionState | ''} */ ('idle');
	_listeners = /** @type {Map<string, Set<Listener>>} */ (new Map());
	_seen = /** @type {Set<string>} */ (new Set());
	/** Marks that the server has not confirmed. */
	_reads = /** @type {Set<string>} */ (new Set());
	_readAll = false;
	_renewing = /** @type {Promise<void> | null} */ (null);
	/** @type {any} */ _renewTimer;
	_renewedAt = 0;
	_probing = /** @type {Promise<string> | null} */ (null);

	/**
	 * @param {number | string} userId
	 * @param {string} token
	 * @param {Options} [options]
	 */
	constructor(userId, token, options = {}) {
		this.userId = userId;
		this.token = token;
		this.reconnectInterval = options.reconnectInterval ?? 1000;
		this.maxReconnectInterval = options.maxReconnectInterval ?? 30_000;
		this._pingEvery = options.pingInterval ?? 30_000;
		this._base = new URL(options.url ?? home());
		this._base.protocol = this._base.protocol.replace('ws', 'http');
		this._tokenIn = options.tokenIn ?? 'protocol';
		this._getToken = options.getToken ?? options.renewToken;
		this._storage = options.storage === undefined ? attempt(() => globalThis.localStorage) : options.storage;
		this._WebSocket = options.WebSocket ?? globalThis.WebSocket;
		const channels = options.channels ?? /** @type {Channel[]} */ (['property', 'tenant']);
		this._lines = channels.map((channel) => new Line(this, channel));
		this._online = () => this._lines.forEach((line) => (line.timer ? line.open() : line.check()));
		this._offline = () => this._lines.forEach((line) => line.check());
	}

	/** The first channel's socket, while there is one. */
	get socket() {
		return this._lines[0]?.socket ?? null;
	}

	get isConnected() {
		return this.state === 'open';
	}

	connect() {
		if (!this._WebSocket) throw new TypeError('No WebSocket here: pass one as options.WebSocket.');
		if (!this._stopped) return;
		this._stopped = '';
		globalThis.addEventListener?.('online', this._online);
		globalThis.addEventListener?.('offline', this._offline);
		for (const line of this._lines) {
			line.attempts = 0;
			line.open();
		}
	}

	/** Ends it; `connect` begins anew where it was. */
	disconnect() {
		this._stop('closed');
	}

	/** Uses another token of the same user, on open sockets at once. @param {string} token */
	setToken(token) {
		if (!token || token === this.token) return;
		this.token = token;
		this._renewedAt = Date.now();
		clearTimeout(this._renewTimer);
		if (/expired|refused/.test(this._stopped)) return this.connect();
		for (const line of this._lines) line.auth();
	}

	/**
	 * Calls `fn` for each message of this type: the server's own types, or `notification` (each one, once), `message`
	 * (everything), `state` (`{state, reason?}`), `unread` (`{unread_count}`).
	 * @param {string} type
	 * @param {Listener} fn
	 * @returns {() => void} takes it off again
	 */
	on(type, fn) {
		const fns = this._listeners.get(type) ?? new Set();
		this._listeners.set(type, fns.add(fn));
		return () => this.off(type, fn);
	}

	/** @param {string} type @param {Listener} fn */
	off(type, fn) {
		this._listeners.get(type)?.delete(fn);
	}

	/**
	 * Marks as read. Without a connection, or if the server does not confirm it, it is sent again at the next connect.
	 * @param {string | string[]} ids
	 */
	markRead(ids) {
		const list = [...new Set(typeof ids === 'string' ? [ids] : ids)];
		for (const id of list) if (this._reads.size < REMEMBERED_IDS) this._reads.add(id);
		this._sendReads(list);
	}

	/** Marks everything of this user as read, on both channels. */
	markAllRead() {
		this._readAll = true;
		this._sendAny({ type: 'mark_read', all: true });
	}

	/** The document's handler: shows what people should see. Override it, or listen with `on`. @param {Message} data */
	handleMessage(data) {
		const { type, message = '', property_title: body = '' } = data;
		if (type === 'property_like') this.showPropertyLikeNotification(data);
		else if (type === 'match_accepted') this.showMatchAcceptedNotification(data);
		else if (type === 'match_accepted_by_owner') this.showMatchAcceptedByOwnerNotification(data);
		else if (type === 'match_rejected_by_owner') this.displayNotification({ title: 'Tu solicitud fue rechazada', body, data });
		else if (type === 'error') console.warn('habittod:', data.code, message);
		else if (data.notification_id && message) this.displayNotification({ title: 'Habitto', body: message, data });
	}

	/** @param {Message} data */
	showPropertyLikeNotification(data) {
		const who = data.interested_user;
		const name = `${who?.first_name ?? ''} ${who?.last_name ?? ''}`.trim() || who?.username || 'Alguien';
		this.displayNotification({ title: '¡Nuevo interesado en tu propiedad!', body: `${name} está interesado en tu propiedad`, data });
	}

	/** @param {Message} data */
	showMatchAcceptedNotification(data) {
		this.displayNotification({ title: '¡Match Aceptado!', body: 'Has aceptado un match exitosamente', data });
	}

	/** @param {Message} data */
	showMatchAcceptedByOwnerNotification(data) {
		const body = `El propietario ${data.owner_name} aceptó tu solicitud para ${data.property_title}`;
		this.displayNotification({ title: '¡Tu solicitud fue aceptada!', body, data });
	}

	/** Shows a browser notification where the person has allowed them.
	 * @param {{title: string, body: string, data: Message}} shown */
	displayNotification({ title, body, data }) {
		if (globalThis.Notification?.permission !== 'granted') return;
		// Some phones allow them to service workers only.
		attempt(() => (new Notification(title, { body, data, tag: data.notification_id }).onclick = () => window.focus()));
	}

	startPingInterval() {
		// Timers take what is no number, or more than 31 bits, for "at once".
		const every = this._pingEvery;
		if (every > 0 && every < 2 ** 31) this.pingInterval ??= setInterval(this._offline, every);
	}

	stopPingInterval() {
		clearInterval(this.pingInterval);
		this.pingInterval = undefined;
	}

	/** @param {ConnectionState} state @param {string} [reason] */
	_stop(state, reason) {
		if (this._stopped === state) return;
		this._stopped = state;
		clearTimeout(this._renewTimer);
		this.stopPingInterval();
		globalThis.removeEventListener?.('online', this._online);
		globalThis.removeEventListener?.('offline', this._offline);
		for (const line of this._lines) line.drop();
		this._tell(reason);
	}

	/** Says so if the state of all lines together has changed. @param {string} [reason] */
	_tell(reason) {
		const waits = this._lines.some((line) => line.timer);
		const isOpen = this._lines.every((line) => line.established);
		const state = this._stopped || (isOpen ? 'open' : waits ? 'waiting' : 'connecting');
		if (state === this.state) return;
		this.state = state;
		this._emit('state', { state, reason });
	}

	/** A listener's mistake must not stop the others, nor the receipts.
	 * @param {string} type @param {any} message @param {Channel} [channel] */
	_emit(type, message, channel) {
		for (const fn of [...(this._listeners.get(type) ?? [])]) attempt(() => fn(message, channel), console.error);
	}

	/** @param {Line} line @param {unknown} text */
	_receive(line, text) {
		/** @type {Message | undefined} */
		const data = attempt(() => JSON.parse(String(text)));
		if (typeof data?.type !== 'string') return;
		this._heed(line, data);
		const id = data.type === 'notification_read' || data.type === 'error' ? undefined : data.notification_id;
		if (!id || this._isNew(id)) {
			attempt(() => this.handleMessage(data), console.error);
			// What the backend names a notification must not pass for an event of ours.
			const types = new Set(/^(state|unread)$/.test(data.type) ? [] : [data.type]).add('message');
			for (const type of id ? types.add('notification') : types) this._emit(type, data, line.channel);
		}
		if (id && line.socket) {
			line.keep(id);
			if (line.acks) line.ackSoon(id);
		}
	}

	/** What a message means to the client itself. @param {Line} line @param {Message} data */
	_heed(line, { type, code, all, ack, unread_count, notification_id, notification_ids, expires_at }) {
		if (type === 'connection_established') {
			line.established = true;
			line.acks = ack === 'client';
			if (this._readAll) line.send({ type: 'mark_read', all: true });
			else this._sendReads([...this._reads]);
			this._tell();
		} else if (type === 'token_expiring') {
			if (line.token !== this.token) line.auth();
			else this._renewInTime(expires_at);
		} else if (code === 'since_unknown') line.keep('');
		if (type === 'notification_read' || code === 'not_found') {
			for (const id of notification_ids ?? [notification_id ?? '']) this._reads.delete(id);
		}
		if (all) {
			this._readAll = false;
			this._reads.clear();
		}
		if (typeof unread_count === 'number') {
			this.unreadCount = unread_count;
			this._emit('unread', { unread_count }, line.channel);
		}
	}

	/** @param {string} id */
	_isNew(id) {
		if (this._seen.has(id)) return false;
		this._seen.add(id);
		if (this._seen.size > REMEMBERED_IDS) for (const oldest of this._seen) return this._seen.delete(oldest);
		return true;
	}

	/** @param {string[]} ids */
	_sendReads(ids) {
		for (let at = 0; at < ids.length; at += READS_AT_ONCE) {
			const some = ids.slice(at, at + READS_AT_ONCE);
			this._sendAny({ type: 'mark_read', ...(some[1] ? { notification_ids: some } : { notification_id: some[0] }) });
		}
	}

	/** Either channel's socket takes it. @param {object} message */
	_sendAny(message) {
		return this._lines.some((line) => line.established && line.send(message));
	}

	/** At once, but half-way to its end where the token is as good as new. @param {string} [end] */
	_renewInTime(end = '') {
		const half = Math.min(Date.parse(end) - Date.now(), 30_000) / 2;
		clearTimeout(this._renewTimer);
		this._renewTimer = setTimeout(
			() => this._renew().catch(() => {}), // asked again when it has expired
			this._renewedAt + Math.max(half, 1000) - Date.now(),
		);
	}

	/** A fresh token, if there is a way to one; asked for once, however many need it. @returns {Promise<void>} */
	_renew() {
		this._renewing ??= Promise.resolve()
			.then(() => this._getToken?.())
			.then((token) => this.setToken(token ?? ''))
			.finally(() => (this._renewing = null));
		return this._renewing;
	}

	/** Why a handshake fails: `expired`, `refused`, or nothing that lasts. @param {string} token */
	_probe(token) {
		const url = `${this._base.href.replace(/\/$/, '')}/api/notifications/my/`;
		this._probing ??= (async () => {
			const answer = await fetch(url, { headers: { Authorization: `Bearer ${token}` }, cache: 'no-store' });
			if (answer.status !== 401) return answer.status === 403 ? 'refused' : '';
			return (await answer.json()).data?.code?.startsWith('user_') ? 'refused' : 'expired';
		})()
			.catch(() => '')
			.finally(() => (this._probing = null));
		return this._probing;
	}
}

export default HabittoWebSocketClient;
