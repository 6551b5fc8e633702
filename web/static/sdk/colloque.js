// @ts-check
/**
 * The consultation room in a page of somebody else's: an iframe, a handshake, events out, commands in.
 *
 * Documented in colloque.d.ts. The other half, inside the frame, is `js/ui/host.js`; the envelope is the same in both:
 *
 *     host → room   {colloque: 1, type: 'connect'}                               sent until answered, after every load of the frame
 *     room → host   {colloque: 1, type: 'connected'}                             then the events that tell where things stand
 *     room → host   {colloque: 1, type: 'event', name, detail}
 *     host → room   {colloque: 1, type: 'command', id, name, argument}
 *     room → host   {colloque: 1, type: 'result', id, code, message}             `code` '' when carried out
 *
 * The room says nothing before a page of a listed origin has said `connect`, so that no message ever goes to an unknown window.
 */

/** @import { Language, MountOptions, Room as RoomInterface, RoomEvents } from './colloque.d.ts' */

const VERSION = 1;
const CONNECT_EVERY_MS = 500;
const UNREACHABLE_MS = 15_000;
const COMMAND_TIMEOUT_MS = 10_000;

/** What the room needs of the page around it (Permissions Policy), for its own origin only. */
const FEATURES = ['camera', 'microphone', 'display-capture', 'autoplay', 'fullscreen', 'picture-in-picture', 'screen-wake-lock', 'speaker-selection'];

/** A command that was not carried out; `code` says why. */
export class CommandError extends Error {
  /**
   * @param {string} code
   * @param {string} message
   */
  constructor(code, message) {
    super(message);
    this.name = 'CommandError';
    this.code = code;
  }
}

/** @implements {RoomInterface} */
class Room {
  #origin;
  #connected = false;
  #destroyed = false;
  #commands = 0;
  /** @type {Map<number, {resolve: () => void, reject: (error: CommandError) => void, timer: ReturnType<typeof setTimeout>}>} */
  #waiting = new Map();
  /** @type {Map<string, Set<(detail: any) => void>>} */
  #listeners = new Map();
  /** @type {ReturnType<typeof setInterval> | undefined} */
  #connecting;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #deadline;

  /**
   * @param {Element} element
   * @param {MountOptions} options
   */
  constructor(element, options) {
    const url = roomAddress(options.url, options.language);
    this.#origin = url.origin;
    this.iframe = document.createElement('iframe');
    this.iframe.allow = [...FEATURES, ...(options.allow ?? [])].map((feature) => `${feature} ${url.origin}`).join('; ');
    this.iframe.allowFullscreen = true;
    this.iframe.referrerPolicy = 'no-referrer';
    this.iframe.title = options.title ?? (options.language === 'en' ? 'Video consultation' : 'Téléconsultation');
    Object.assign(this.iframe.style, { width: '100%', height: '100%', border: '0', display: 'block' });
    this.iframe.addEventListener('load', () => this.#connect());
    addEventListener('message', this.#onMessage);
    this.iframe.src = url.href;
    this.#expectAnswer();
    element.append(this.iframe);
  }

  /**
   * @template {keyof RoomEvents} Name
   * @param {Name} name
   * @param {(detail: RoomEvents[Name]) => void} listener
   */
  on(name, listener) {
    const listeners = this.#listeners.get(name) ?? new Set();
    this.#listeners.set(name, listeners.add(listener));
    return () => void listeners.delete(listener);
  }

  /** @param {boolean} on */
  setMicrophone(on) {
    return this.#command('setMicrophone', on);
  }

  /** @param {boolean} on */
  setCamera(on) {
    return this.#command('setCamera', on);
  }

  leave() {
    return this.#command('leave', null);
  }

  /** @param {string} participant */
  admit(participant) {
    return this.#command('admit', participant);
  }

  /** @param {string} [reason] */
  endRoom(reason = '') {
    return this.#command('endRoom', reason);
  }

  /** @param {Language} language */
  setLanguage(language) {
    return this.#command('setLanguage', language);
  }

  destroy() {
    if (this.#destroyed) return;
    this.#destroyed = true;
    this.#connected = false;
    removeEventListener('message', this.#onMessage);
    clearInterval(this.#connecting);
    clearTimeout(this.#deadline);
    this.iframe.remove();
    for (const id of [...this.#waiting.keys()]) this.#settle(id, 'destroyed', 'the room was removed from the page');
    this.#listeners.clear();
  }

  /** After a load of the frame: the page in it is new and knows nobody. */
  #connect() {
    if (this.#destroyed) return;
    this.#connected = false;
    clearInterval(this.#connecting);
    this.#expectAnswer();
    const connect = () => this.#post({ type: 'connect' });
    this.#connecting = setInterval(connect, CONNECT_EVERY_MS);
    connect();
  }

  #expectAnswer() {
    clearTimeout(this.#deadline);
    this.#deadline = setTimeout(() => {
      clearInterval(this.#connecting);
      const message = `${this.#origin} does not answer: is ${location.origin} in the clinic's list of embedding origins?`;
      this.#emit('error', { code: 'unreachable', message });
    }, UNREACHABLE_MS);
  }

  /** @param {MessageEvent} event */
  #onMessage = (event) => {
    if (event.origin !== this.#origin || event.source !== this.iframe.contentWindow) return;
    const message = event.data;
    if (typeof message !== 'object' || message === null || message.colloque !== VERSION) return;
    if (message.type === 'connected') {
      this.#connected = true;
      clearInterval(this.#connecting);
      clearTimeout(this.#deadline);
    } else if (message.type === 'event') {
      this.#emit(message.name, message.detail);
    } else if (message.type === 'result') {
      this.#settle(message.id, message.code, message.message);
    }
  };

  /**
   * @param {string} name
   * @param {unknown} detail
   */
  #emit(name, detail) {
    for (const listener of [...(this.#listeners.get(name) ?? [])]) {
      try {
        listener(detail);
      } catch (error) {
        reportError(error); // a listener that throws must not keep the others from hearing
      }
    }
  }

  /**
   * @param {string} name
   * @param {unknown} argument
   * @returns {Promise<void>}
   */
  #command(name, argument) {
    if (this.#destroyed) return Promise.reject(new CommandError('destroyed', 'the room was removed from the page'));
    if (!this.#connected) return Promise.reject(new CommandError('not_ready', 'wait for the event "ready"'));
    const id = ++this.#commands;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => this.#settle(id, 'timeout', `${name}: no answer from the room`), COMMAND_TIMEOUT_MS);
      this.#waiting.set(id, { resolve, reject, timer });
      this.#post({ type: 'command', id, name, argument });
    });
  }

  /**
   * @param {number} id
   * @param {string} code '' when it was carried out
   * @param {string} message
   */
  #settle(id, code, message) {
    const command = this.#waiting.get(id);
    if (!command) return;
    this.#waiting.delete(id);
    clearTimeout(command.timer);
    if (code) command.reject(new CommandError(code, message));
    else command.resolve();
  }

  /** @param {object} message */
  #post(message) {
    this.iframe.contentWindow?.postMessage({ colloque: VERSION, ...message }, this.#origin);
  }
}

/**
 * @param {string} link
 * @param {Language | undefined} language
 */
function roomAddress(link, language) {
  const url = new URL(link, location.href);
  const path = /^\/t\/([^/]+)\/(?:r|embed)$/.exec(url.pathname);
  if (!path || !/^https?:$/.test(url.protocol) || url.hash.length < 2) {
    throw new TypeError("url: a participant's link, https://.../t/<tenant>/r#<secret>");
  }
  url.pathname = `/t/${path[1]}/embed`;
  if (language) url.searchParams.set('lang', language);
  return url;
}

export const Colloque = {
  /**
   * @param {Element} element
   * @param {MountOptions} options
   * @returns {RoomInterface}
   */
  mount(element, options) {
    if (!(element instanceof Element)) throw new TypeError('element: an element of this page, to put the room into');
    return new Room(element, options);
  },
};
