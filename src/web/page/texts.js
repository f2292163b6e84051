// Owns every word of the page, in Spanish and English, and how a notification reads. Never touches the document.
// Enter at `t` and `describe`.

const WORDS = {
	title: 'Habitto|Habitto',
	tagline: 'Interesados, respuestas y avisos, en vivo.|Interest, answers and news, live.',
	skip: 'Ir al contenido|Skip to content',
	signIn: 'Iniciar sesión|Sign in',
	username: 'Usuario|Username',
	password: 'Contraseña|Password',
	badLogin: 'El usuario o la contraseña no son correctos.|The username or the password is wrong.',
	noLogin: 'Aquí no se usa contraseña: abre tu enlace.|No passwords here: open your link.',
	needBoth: 'Escribe tu usuario y tu contraseña.|Enter your username and your password.',
	ended: 'Tu sesión terminó. Inicia sesión de nuevo.|Your session has ended. Sign in again.',
	badLink: 'Este enlace no sirve.|This link does not work.',
	refused: 'Esta cuenta no puede conectarse.|This account may not connect.',
	signOut: 'Salir|Sign out',
	allow: 'Activar avisos|Turn on alerts',
	denied: 'El navegador bloquea los avisos.|The browser blocks alerts.',
	open: 'En vivo|Live',
	connecting: 'Conectando…|Connecting…',
	waiting: 'Reconectando…|Reconnecting…',
	owner: 'Propietario|Owner',
	tenant: 'Inquilino|Tenant',
	agent: 'Agente|Agent',
	inbox: 'Avisos|Inbox',
	unread: [(n) => `${n} sin leer`, (n) => `${n} unread`],
	isUnread: 'Sin leer|Unread',
	markRead: 'Marcar como leído|Mark as read',
	markAll: 'Marcar todo como leído|Mark all as read',
	noNotes: 'Todavía no hay avisos|Nothing here yet',
	noNotesMore: 'Lo que pase aparecerá aquí al instante.|What happens appears here at once.',
	requests: 'Solicitudes|Requests',
	noRequests: 'Nadie espera tu respuesta|Nobody is waiting for you',
	noRequestsMore: 'Quien se interese por tus propiedades aparecerá aquí.|Whoever likes your homes appears here.',
	accept: 'Aceptar|Accept',
	reject: 'Rechazar|Reject',
	wants: 'se interesa por|wants',
	fit: [(n) => `${n} % de afinidad`, (n) => `${n}% match`],
	homes: 'Propiedades|Homes',
	noHomes: 'No hay propiedades disponibles|No homes available',
	noHomesMore: 'Vuelve pronto: las nuevas aparecen aquí.|Come back soon: new ones appear here.',
	like: 'Me interesa|I like it',
	undo: 'Ya no me interesa|Not any more',
	pending: 'Esperando respuesta|Waiting for an answer',
	isAccepted: 'Aceptada|Accepted',
	isRejected: 'No fue aceptada|Not accepted',
	accepted: 'Aceptadas|Accepted',
	noAccepted: 'Ninguna por ahora|None so far',
	noAcceptedMore: 'Aquí verás los datos de quien te acepte.|Whoever accepts you can be reached here.',
	bedrooms: [(n) => (n === 1 ? '1 dormitorio' : `${n} dormitorios`), (n) => (n === 1 ? '1 bedroom' : `${n} bedrooms`)],
	perMonth: 'al mes|a month',
	next: 'Próximos pasos|Next steps',
	more: 'Ver más|Show more',
	failed: 'No se pudo cargar.|Could not be loaded.',
	actFailed: 'No se pudo hacer. Inténtalo de nuevo.|That did not work. Try again.',
	slow: 'Demasiadas solicitudes: espera un momento.|Too many requests: wait a moment.',
	again: 'Reintentar|Try again',
	arrived: 'Nuevo aviso|New',
	sideBySide: 'Demostración: los dos lados a la vez|Demo: both sides at once',
	ownersView: "Vista del propietario|Owner's view",
	tenantsView: "Vista del inquilino|Tenant's view",
	someone: 'Alguien|Somebody',
	didReject: 'Solicitud rechazada|Request rejected',
	didUndo: 'Interés retirado|Interest withdrawn',
};

/** A title, and a text about somebody and a home. */
const KINDS = {
	__proto__: null,
	property_like: ['¡Nuevo interesado en tu propiedad!|{who} se interesa por tu propiedad: {home}', 'Somebody likes your home!|{who} is interested in {home}'],
	match_accepted: ['¡Match aceptado!|Se aceptó una solicitud para {home}', 'It is a match!|A request for {home} was accepted'],
	match_accepted_by_owner: ['¡Tu solicitud fue aceptada!|{who} aceptó tu solicitud para {home}', 'Your request was accepted!|{who} accepted your request for {home}'],
	match_rejected_by_owner: ['Tu solicitud fue rechazada|Tu solicitud para {home} fue rechazada', 'Your request was rejected|Your request for {home} was rejected'],
};

/** The server writes these in Spanish, always the same three. */
const STEPS = {
	match_accepted: ['Contact the tenant to arrange a visit', 'Check the documents', 'Arrange the signing of the contract'],
	match_accepted_by_owner: ['Contact the owner to arrange a visit', 'Prepare the documents', 'Agree on a moving date'],
};

export const language =
	navigator.languages.map((tag) => tag.slice(0, 2).toLowerCase()).find((tag) => ['es', 'en'].includes(tag)) ?? 'es';
const english = Number(language === 'en');
export const t = Object.fromEntries(Object.entries(WORDS).map(([name, both]) => [name, (both.split?.('|') ?? both)[english]]));

export function nameOf({ first_name = '', last_name = '', username }) {
	return `${first_name} ${last_name}`.trim() || username || t.someone;
}

/** How a notification reads: its row in REST, or what of it came live. */
export function describe({ data: frame, title: given = t.title }) {
	const { type, interested_user: person, owner_name, owner_contact, property_title: home = '', next_steps = [] } = frame;
	const words = { who: person ? nameOf(person) : owner_name || t.someone, home };
	const [title, body] = KINDS[type]?.[english].split('|') ?? [given];
	return {
		title,
		// At once: a name may hold what looks like a place for another.
		body: body?.replace(/{(who|home)}/g, (_, what) => words[what]) ?? frame.message ?? '',
		...(person ?? (type === 'match_accepted_by_owner' ? owner_contact : {})),
		steps: english && next_steps[0] ? (STEPS[type] ?? next_steps) : next_steps,
	};
}

const relative = new Intl.RelativeTimeFormat(language, { numeric: 'auto', style: 'short' });
const date = new Intl.DateTimeFormat(language, { day: 'numeric', month: 'short', hour: '2-digit', minute: '2-digit' });
const money = new Intl.NumberFormat(language, { maximumFractionDigits: 0 });

export function ago(iso) {
	const minutes = Math.round((Date.parse(iso) - Date.now()) / 60_000);
	if (minutes > -1) return relative.format(0, 'second');
	if (minutes > -60) return relative.format(minutes, 'minute');
	if (minutes > -24 * 60) return relative.format(Math.round(minutes / 60), 'hour');
	return date.format(new Date(iso));
}

export function price(amount, currency) {
	return `${typeof currency === 'string' ? currency : 'Bs'} ${money.format(amount)}`;
}
