// @ts-check
/**
 * What a clinic's own software does to show a consultation: mount the room, listen, command.
 *
 * A real one gets the link from its server, which mints it with its API key (POST /api/v1/rooms/<room>/links); here it is pasted.
 */

const colloque = document.querySelector('meta[name="colloque"]')?.getAttribute('content') ?? '';
/** @type {typeof import('../static/sdk/colloque.d.ts')} */
const { Colloque } = await import(`${colloque}/static/sdk/colloque.js`);

/** @typedef {'setMicrophone' | 'setCamera' | 'leave' | 'endRoom' | 'admit'} Command */

/** @type {(selector: string) => HTMLElement} */
const find = (selector) => /** @type {any} */ (document.querySelector(selector));

/** @type {import('../static/sdk/colloque.d.ts').Room | null} */
let room = null;

find('#open').addEventListener('submit', (event) => {
  event.preventDefault();
  const link = /** @type {HTMLInputElement} */ (find('#link'));
  try {
    if (new URL(link.value).origin !== colloque) throw new TypeError(`Ce lien n’est pas de ${colloque}.`);
    room?.destroy();
    room = Colloque.mount(find('#room'), { url: link.value, language: 'fr' });
  } catch (error) {
    find('#refusal').textContent = error instanceof Error ? error.message : String(error);
    return;
  }
  find('#refusal').textContent = '';
  link.value = ''; // the link is a key: it does not stay on the screen
  listen(room);
});

/** @param {import('../static/sdk/colloque.d.ts').Room} room */
function listen(room) {
  room.on('ready', ({ participant }) => note('ready', participant.role));
  room.on('waiting', ({ place, expected }) => note('waiting', `${place ?? ''} ${expected ? 'attendu' : ''}`));
  room.on('admitted', () => note('admitted'));
  room.on('joined', () => note('joined'));
  room.on('left', ({ reason }) => note('left', reason));
  room.on('peerjoined', ({ peer }) => note('peerjoined', peer.name));
  room.on('peerleft', ({ why }) => note('peerleft', why));
  room.on('media', ({ microphone, camera }) => note('media', `${microphone} ${camera}`));
  room.on('quality', ({ level }) => (find('#room').dataset.quality = level));
  room.on('error', ({ code, message }) => note('error', `${code} ${message}`));
  room.on('ended', ({ by }) => note('ended', by));
  room.on('visitors', ({ visitors }) => showVisitors(visitors));
}

for (const control of /** @type {NodeListOf<HTMLButtonElement>} */ (document.querySelectorAll('[data-command]'))) {
  control.addEventListener('click', () => {
    const name = /** @type {Command} */ (control.dataset.command);
    order(name, control.dataset.argument === undefined ? undefined : JSON.parse(control.dataset.argument));
  });
}

/**
 * @param {Command} name
 * @param {any} [argument]
 */
function order(name, argument) {
  const commands = /** @type {Record<Command, (argument: unknown) => Promise<void>> | null} */ (/** @type {unknown} */ (room));
  commands?.[name](argument).then(
    () => note('done', name),
    (error) => note('refused', `${name} ${error.code}`),
  );
}

/** @param {import('../static/sdk/colloque.d.ts').Visitor[]} visitors */
function showVisitors(visitors) {
  const waiting = visitors.filter((visitor) => visitor.state === 'waiting');
  const rows = waiting.map((visitor) => {
    const row = document.createElement('li');
    const admit = document.createElement('button');
    admit.type = 'button';
    admit.textContent = 'Faire entrer';
    admit.addEventListener('click', () => order('admit', visitor.id));
    row.append(visitor.name || 'Sans nom', admit);
    return row;
  });
  const nobody = document.createElement('li');
  nobody.textContent = 'Personne n’attend.';
  find('#visitors').replaceChildren(...(rows.length ? rows : [nobody]));
}

/**
 * @param {string} what
 * @param {string} [more]
 */
function note(what, more = '') {
  const line = document.createElement('li');
  line.dataset.what = what;
  line.textContent = `${what} ${more}`.trim();
  find('#journal').append(line);
}

export {};
