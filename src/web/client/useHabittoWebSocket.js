// Owns the React hook of the API document, on top of the client. Never renders. Enter at useHabittoWebSocket. React is
// the application's own: a bare specifier, for its bundler or import map.
import { useCallback, useEffect, useRef, useState } from 'react';
import { HabittoWebSocketClient } from './habitto.js';

/** @typedef {import('./habitto.js').Message} Message */

/** Notifications kept for rendering; older ones are in REST. */
const KEPT = 500;

/**
 * @param {number | string | null | undefined} userId
 * @param {string | null | undefined} token A new one is used on the open sockets.
 * @param {import('./habitto.js').Options} [options] Read when a user's connection begins.
 */
export const useHabittoWebSocket = (userId, token, options) => {
	const [notifications, setNotifications] = useState(/** @type {Message[]} */ ([]));
	const [state, setState] = useState(/** @type {import('./habitto.js').ConnectionState} */ ('idle'));
	const client = useRef(/** @type {HabittoWebSocketClient | null} */ (null));
	const latest = useRef({ token, options });
	latest.current = { token, options };
	const ready = Boolean(userId && token);

	useEffect(() => {
		if (!ready) return;
		const own = new HabittoWebSocketClient(userId ?? '', latest.current.token ?? '', latest.current.options);
		own.handleMessage = () => {}; // showing is the application's part
		own.on('notification', (data) => setNotifications((before) => [...before, data].slice(-KEPT)));
		own.on('state', (change) => setState(change.state));
		client.current = own;
		own.connect();
		return () => {
			client.current = null;
			own.disconnect();
			setNotifications([]);
		};
	}, [userId, ready]);

	useEffect(() => {
		if (token) client.current?.setToken(token);
	}, [token]);

	const markAsRead = useCallback((/** @type {string | string[]} */ ids) => client.current?.markRead(ids), []);
	const markAllAsRead = useCallback(() => client.current?.markAllRead(), []);

	return { notifications, isConnected: state === 'open', markAsRead, markAllAsRead, state };
};

export default useHabittoWebSocket;
