// @ts-check
/**
 * The embedded room's side of the SDK: tells the page around the frame what happens, and does what it asks. See sdk/colloque.js.
 *
 * A message counts only when it comes from the window around this one and from an origin in the clinic's list; until such a page has
 * said `connect`, nothing is sent to anybody. Our messages name that one origin as their target: a page that was navigated away
 * does not get them.
 */

/**
 * @import { Client } from '../rtc/client.js'
 * @import { Equipment } from './equipment.js'
 * @import { RoomEvents } from '../../sdk/colloque.d.ts'
 */

const VERSION = 1;

/**
 * What only the page can do.
 *
 * @typedef {object} Actions
 * @property {() => void} leave
 * @property {(language: import('./i18n.js').Language) => Promise<void>} setLanguage
 */

/** @typedef {{code: string, message: string}} Result `code` is '' when the command was carried out */

const DONE = Object.freeze({ code: '', message: '' });

export class Host {
  /** The one that said `connect`; '' before. */
  #origin = '';

  /**
   * @param {object} parts
   * @param {string[]} parts.origins the clinic's list of embedding origins
   * @param {Client} parts.client
   * @param {Equipment} parts.equipment
   * @param {Actions} parts.actions
   * @param {Window} [parts.window] this one; another in tests
   */
  constructor({ origins, client, equipment, actions, window = globalThis.window }) {
    this.origins = new Set(origins);
    this.client = client;
    this.equipment = equipment;
    this.actions = actions;
    this.window = window;
    /** Whose link this is has been told. */
    this.introduced = false;
    /** The last event of each kind that tells how things stand, for a page that connects later. @type {Map<string, unknown>} */
    this.standing = new Map();
    window.addEventListener('message', (event) => void this.#onMessage(event));
    this.#listen();
  }

  /**
   * Something keeps the person from going on.
   *
   * @param {string} code
   * @param {string} message in the person's language
   */
  error(code, message) {
    this.#tell('error', { code, message });
  }

  /**
   * The consultation is over, or was over before this person came.
   *
   * @param {{by: string, reason: string}} end
   */
  ended({ by, reason }) {
    const who = /** @type {RoomEvents['ended']['by']} */ (by);
    this.#tell('ended', { by: who, reason });
  }

  #listen() {
    const { client, equipment } = this;
    /** @type {(type: string, listener: (detail: any) => void) => void} */
    const on = (type, listener) => client.addEventListener(type, (event) => listener(/** @type {CustomEvent} */ (event).detail));
    on('state', (detail) => this.#onState(detail));
    on('visitors', ({ visitors }) => this.#tell('visitors', { visitors }));
    on('peerjoined', ({ peer }) => this.#tell('peerjoined', { peer: { id: peer.id, role: peer.role, name: peer.name } }));
    on('peerleft', ({ id, why }) => this.#tell('peerleft', { id, why }));
    on('quality', ({ peerId, level, rttMs, loss }) => this.#tell('quality', { peer: peerId, level, rttMs, loss }));
    equipment.addEventListener('change', () => this.#tell('media', { ...equipment.media }));
  }

  /** @param {{state: string, place: number | null, expected: boolean, reason: string}} detail */
  #onState({ state, place, expected, reason }) {
    const { self } = this.client;
    if (self && !this.introduced && state !== 'connecting') {
      this.introduced = true;
      this.#tell('ready', { participant: { id: self.id, role: self.role, name: self.name } });
    }
    if (state === 'waiting') this.#tell('waiting', { place, expected });
    else if (state === 'admitted' || state === 'joined') this.#tell(state, {});
    else if (state === 'left') this.#tell('left', { reason });
  }

  /** @param {MessageEvent} event */
  async #onMessage(event) {
    if (event.source !== this.window.parent || event.source === this.window || !this.origins.has(event.origin)) return;
    const message = event.data;
    if (typeof message !== 'object' || message === null || message.colloque !== VERSION) return;
    if (message.type === 'connect') {
      const again = this.#origin === event.origin;
      this.#origin = event.origin;
      this.#post({ type: 'connected' });
      if (!again) this.#recount();
    } else if (message.type === 'command' && this.#origin === event.origin) {
      const result = await this.#carryOut(message.name, message.argument);
      this.#post({ type: 'result', id: message.id, ...result });
    }
  }

  /** Tell a page that has just connected how things stand. */
  #recount() {
    for (const [name, detail] of this.standing) this.#post({ type: 'event', name, detail });
    for (const { id, role, name } of this.client.peers.values()) {
      this.#post({ type: 'event', name: 'peerjoined', detail: { peer: { id, role, name } } });
    }
  }

  /**
   * @param {unknown} name
   * @param {unknown} argument
   * @returns {Promise<Result>}
   */
  async #carryOut(name, argument) {
    const { client } = this;
    switch (name) {
      case 'setMicrophone':
        return this.#setDevice('audio', argument);
      case 'setCamera':
        return this.#setDevice('video', argument);
      case 'leave':
        this.actions.leave();
        return DONE;
      case 'setLanguage':
        if (argument !== 'fr' && argument !== 'en') return refusal('bad_argument', 'setLanguage: "fr" or "en"');
        await this.actions.setLanguage(argument);
        return DONE;
      case 'admit':
        if (typeof argument !== 'string') return refusal('bad_argument', "admit: a visitor's id");
        return this.#asClinician(() => client.admit(argument));
      case 'endRoom':
        if (typeof argument !== 'string' || argument.length > 500) return refusal('bad_argument', 'endRoom: at most 500 characters');
        return this.#asClinician(() => client.endRoom(argument));
      default:
        return refusal('bad_argument', 'no such command');
    }
  }

  /**
   * @param {'audio' | 'video'} kind
   * @param {unknown} on
   * @returns {Result}
   */
  #setDevice(kind, on) {
    if (typeof on !== 'boolean') return refusal('bad_argument', 'true or false');
    const now = this.equipment.media[kind === 'audio' ? 'microphone' : 'camera'];
    if (now !== 'on' && now !== 'off') return refusal('not_available', `the ${kind} device is ${now}`);
    if ((now === 'on') !== on) this.equipment.toggle(kind);
    return DONE;
  }

  /**
   * @param {() => void} act
   * @returns {Result}
   */
  #asClinician(act) {
    if (this.client.self?.role !== 'clinician') return refusal('not_permitted', 'only a clinician may');
    if (this.client.signalling !== 'online') return refusal('not_ready', 'the room is reconnecting');
    act();
    return DONE;
  }

  /**
   * @template {keyof RoomEvents} Name
   * @param {Name} name
   * @param {RoomEvents[Name]} detail
   */
  #tell(name, detail) {
    if (STANDINGS.has(name)) for (const other of STANDINGS) this.standing.delete(other);
    if (LASTING.has(name)) this.standing.set(name, detail);
    this.#post({ type: 'event', name, detail });
  }

  /** @param {object} message */
  #post(message) {
    if (this.#origin) this.window.parent.postMessage({ colloque: VERSION, ...message }, this.#origin);
  }
}

/** Where the person stands: each of these ends the others. @type {ReadonlySet<string>} */
const STANDINGS = new Set(['waiting', 'admitted', 'joined', 'left', 'ended', 'error']);
/** @type {ReadonlySet<string>} */
const LASTING = new Set(['ready', 'media', 'visitors', ...STANDINGS]);

/**
 * @param {string} code
 * @param {string} message for the developer of the page around
 * @returns {Result}
 */
function refusal(code, message) {
  return { code, message };
}
