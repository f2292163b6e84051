// Owns who is signed in: tokens from a form or a link, kept for this tab only, renewed when they end; calls to the API.
// Never shows anything. Enter at Session.
import { userOf } from '../client/habitto.js';

/** The server, wherever a proxy has put it. */
export const BASE = new URL('.', document.baseURI);
/** Each frame of the side-by-side view is somebody else. */
const KEY = `habittod:session:${window.name}`;

/** What the link brought, taken out of the address bar at once. */
export function takeFragment() {
	const { token: access, owner, tenant } = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
	if (!access && !(owner && tenant)) return null;
	history.replaceState(null, '', location.pathname + location.search);
	return access ? { access } : { owner, tenant };
}

export function recall() {
	try {
		return JSON.parse(sessionStorage.getItem(KEY));
	} catch {
		return null;
	}
}

export function remember(held) {
	try {
		sessionStorage.setItem(KEY, JSON.stringify(held));
	} catch {
		// This tab works; it just forgets at a reload.
	}
}

/** What is not done is an error with the answer's `status`, 0 for no answer, and its code as `message`. */
async function ask(path, request) {
	const answer = await fetch(new URL(path, BASE), { ...request, cache: 'no-store', credentials: 'omit' }).catch(() => null);
	const { data, message } = (await answer?.json().catch(() => null)) ?? {};
	if (answer?.ok) return data;
	throw Object.assign(new Error(data?.code ?? message), { status: answer?.status ?? 0 });
}

const send = (path, body) =>
	ask(path, { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) });

export class Session {
	/** Told each new access token. */
	renewed = () => {};

	constructor(tokens) {
		this.user = userOf(tokens.access);
		this.keep(tokens);
	}

	static async signIn(username, password) {
		return new Session(await send('api/login/', { username, password }));
	}

	keep({ access, refresh }) {
		Object.assign(this, { access, refresh });
		remember({ access, refresh });
	}

	/** A new access token, or null where there is no way to one. A refresh token works once: one call at a time. */
	renew() {
		this.renewing ??= this.exchange().finally(() => (this.renewing = null));
		return this.renewing;
	}

	async exchange() {
		if (!this.refresh) return null;
		try {
			this.keep(await send('api/refresh/', { refresh: this.refresh }));
		} catch (error) {
			if (error.status === 400 || error.status === 401) return null;
			throw error;
		}
		this.renewed(this.access);
		return this.access;
	}

	/** Below `api/`. A token that has ended is renewed, once. */
	async call(path, method = 'GET') {
		const once = () => ask(`api/${path}`, { method, headers: { Authorization: `Bearer ${this.access}` } });
		try {
			return await once();
		} catch (error) {
			if (error.status !== 401 || error.message.startsWith('user_') || !(await this.renew())) throw error;
			return once();
		}
	}
}
