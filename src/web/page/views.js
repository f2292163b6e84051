// Owns the pieces of the page as elements. Text only ever becomes text. Never calls the server. Enter at `el`, `fill`.
import { ago, describe, nameOf, price, t } from './texts.js';

/** Strokes on a 24 × 24 grid. */
const ICONS = {
	bell: 'M6 16V11a6 6 0 0 1 12 0v5l1.5 2h-15zM10 20.5a2.2 2.2 0 0 0 4 0',
	heart: 'M12 20S3.5 15 3.5 9.2A4.6 4.6 0 0 1 12 7a4.6 4.6 0 0 1 8.5 2.2C20.5 15 12 20 12 20z',
	check: 'M4.5 12.5 10 18 19.5 7',
	cross: 'M6 6l12 12M18 6 6 18',
	home: 'M4 11 12 4l8 7v8.5a.5.5 0 0 1-.5.5H14v-6h-4v6H4.5a.5.5 0 0 1-.5-.5z',
	key: 'M14.5 9.5m-5 0a5 5 0 1 0 10 0a5 5 0 1 0-10 0M11 13l-7 7M6.5 17.5 9 20',
	out: 'M10 4.5H5.5v15H10M9.5 12h10m-4-4 4 4-4 4',
	info: 'M12 11v6M12 7.2v.3M12 12m-9 0a9 9 0 1 0 18 0a9 9 0 1 0-18 0',
};

export function icon(name) {
	const [svg, path] = ['svg', 'path'].map((tag) => document.createElementNS('http://www.w3.org/2000/svg', tag));
	svg.setAttribute('viewBox', '0 0 24 24');
	svg.setAttribute('class', 'icon');
	svg.ariaHidden = 'true';
	path.setAttribute('d', ICONS[name]);
	svg.append(path);
	return svg;
}

/** `tag.class`, attributes and listeners (`onclick`, …) if any, children; what is false or empty is left out. */
export function el(what, ...rest) {
	const [tag, ...classes] = what.split('.');
	const element = document.createElement(tag);
	if (classes.length) element.className = classes.join(' ');
	const isPlain = rest[0] && Object.getPrototypeOf(rest[0]) === Object.prototype;
	for (const [name, value] of Object.entries(isPlain ? rest.shift() : {})) {
		if (typeof value === 'function') element.addEventListener(name.slice(2), value);
		else element.setAttribute(name, value);
	}
	element.append(...rest.filter(Boolean));
	return element;
}

/**
 * Makes a list show these items: what stays the same keeps its element, and with it the focus; `mend` is for what
 * changes in place. Where the focused element goes, the next item's takes over, or the heading.
 */
export function fill(list, items, make, mend = () => {}) {
	const rows = [...list.children];
	const focused = rows.findIndex((row) => row.contains(document.activeElement));
	const old = new Map(rows.map((row) => [row.dataset.is, row]));
	const next = items.map((item) => {
		const row = old.get(item.is) ?? make(item);
		row.dataset.is = item.is;
		mend(row, item);
		return row;
	});
	for (const row of rows) if (!next.includes(row)) row.remove();
	next.forEach((row, at) => list.children[at] === row || list.insertBefore(row, list.children[at] ?? null));
	if (focused < 0 || list.contains(document.activeElement)) return;
	const near = [...next.splice(focused), ...next.reverse()];
	const heir = (what) => near.map((row) => row.querySelector(what)).find(Boolean);
	(heir('button') ?? heir('a, summary') ?? list.closest('section').querySelector('h2')).focus();
}

export const bones = () => el('div.bones', { 'aria-hidden': 'true' }, ...[1, 2, 3].map(() => el('span.bone')));

/** A section with a heading, a list, and what stands there while it is empty, loading or broken. */
export function section(id, title, symbol, empty, emptyMore) {
	const by = { 'aria-labelledby': `${id}-title` };
	const heading = el('h2', { id: `${id}-title`, tabindex: -1 }, title);
	const [tools, list, stand] = [el('div'), el('ul.list', by), el('div', bones())];
	let further;
	const more = el('button.quiet.more', { hidden: '', onclick: async () => {
		const seen = list.children.length;
		await further();
		const first = list.children[seen];
		first?.setAttribute('tabindex', -1);
		first?.focus();
	} }, t.more);
	const root = el('section.panel', { id, ...by, 'aria-busy': 'true' }, el('header', heading, tools), list, stand, more);
	const settle = (...what) => {
		root.removeAttribute('aria-busy');
		stand.replaceChildren(...what);
	};
	return {
		root, heading, tools, list,
		/** The list, or (by the style sheet) the words for none; `next` where there is more. */
		loaded(next) {
			settle(el('div.blank', icon(symbol), el('p.strong', empty), el('p', emptyMore)));
			further = next;
			more.hidden = !next;
		},
		broken(why, again) {
			const retry = () => (stand.replaceChildren(bones()), again());
			settle(el('div.blank', { role: 'alert' }, icon('info'), el('p.strong', why), el('button.quiet', { onclick: retry }, t.again)));
		},
	};
}

const time = (iso) => el('time', { datetime: iso }, ago(iso));

/** Lets every time on the page be true again. */
export function tick() {
	for (const at of document.querySelectorAll('time')) at.textContent = ago(at.dateTime);
}

function contact({ email, phone }) {
	return (email || phone) && el('p.contact',
		email && el('a', { href: `mailto:${encodeURIComponent(email).replace('%40', '@')}` }, email),
		phone && el('a', { href: `tel:${phone.replace(/[^\d+]/g, '')}` }, phone));
}

/** A coloured field, the same for the same id. */
function hue(kind, id, inside) {
	const made = el(`span.${kind}`, { 'aria-hidden': 'true' }, inside);
	made.style.setProperty('--hue', id * 70);
	return made;
}

const SYMBOLS = { __proto__: null, property_like: 'heart', match_accepted: 'check', match_accepted_by_owner: 'key', match_rejected_by_owner: 'cross' };

/** A line of the inbox, unread: its frame, and what its row in REST adds. */
export function note(row, read) {
	const { title, body, steps, ...people } = describe(row);
	const { type } = row.data;
	return el('li.note.unread', { 'data-kind': type },
		el('span.symbol', icon(SYMBOLS[type] ?? 'info')),
		el('div.grow',
			el('p.strong', el('span.hidden', `${t.isUnread}: `), title),
			el('p.words', body),
			contact(people),
			steps[0] && el('details', el('summary', t.next), el('ol', ...steps.map((step) => el('li', step)))),
			el('p.small', time(row.created_at))),
		el('button.dot', { title: t.markRead, 'aria-label': `${t.markRead}: ${title}, ${body}`, onclick: () => read(row.notification_id) }));
}

/** What is open in it stays so. */
export function markAsRead(made) {
	made.classList.remove('unread');
	for (const part of made.querySelectorAll('.dot, .hidden')) part.remove();
}

/** A button that does one thing at a time. `about`: for who does not see what stands beside it. */
function button(label, symbol, kind, about, act) {
	const made = el(`button.${kind}`, { 'aria-label': `${label}: ${about}` }, icon(symbol), label);
	made.addEventListener('click', async () => {
		if (made.ariaDisabled) return;
		made.ariaDisabled = 'true';
		await act();
		made.ariaDisabled = null;
	});
	return made;
}

export function request({ match, property: home, interested_user: user }, act) {
	const [name, what] = [nameOf(user), `${home.type} · ${home.address}`];
	const about = `${name}, ${what}`;
	return el('li.card.request',
		el('div.row',
			hue('face', user.id, [...name][0].toUpperCase()),
			el('div.grow',
				el('p', el('span.strong', name), ` ${t.wants}`),
				el('p.words', what),
				el('p.small', match.score > 0 && el('span.pill', t.fit(Math.round(match.score))), time(match.updated_at)))),
		el('div.acts',
			button(t.accept, 'check', 'main', about, () => act('accept')),
			button(t.reject, 'cross', 'quiet', about, () => act('reject'))));
}

/** A home to like. `status`: of the tenant's match. */
export function property(home, status, act) {
	const about = `${home.type}, ${home.address}`;
	const told = { pending: t.pending, accepted: t.isAccepted, rejected: t.isRejected }[status];
	return el('li.card.property',
		hue('picture', home.id, icon('home')),
		el('div.inside',
			el('h3', home.type),
			el('p.words', home.bedrooms > 0 && `${t.bedrooms(home.bedrooms)} · `, home.address),
			home.price > 0 && el('p.price', el('b', price(home.price, home.currency)), ` ${t.perMonth}`),
			el('div.acts',
				told ? el(`span.pill.${status}`, told) : button(t.like, 'heart', 'main', about, () => act('like')),
				status === 'pending' && button(t.undo, 'cross', 'quiet', about, () => act('reject')))));
}

/** A home that the tenant may have. `frame`: what the owner's yes said. */
export function accepted(match, frame = {}) {
	return el('li.card.row',
		hue('face', match.subject_id, icon('key')),
		el('div.grow',
			el('p.strong', match.property_title),
			el('p.words', frame.owner_name),
			contact(frame.owner_contact ?? {}),
			el('p.small', time(match.updated_at))));
}
