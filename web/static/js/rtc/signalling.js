/**
 * The link to the server: one WebSocket at a time, replaced as soon as it may be dead, never waited for.
 *
 *     closed ──open()──→ dialling ──socket open: hello──→ greeting ──welcome──→ online
 *                          ↑  ↑                              │                    │ silent for one ping: dial another beside it;
 *                          │  └── hangs, fails, closes ──────┘                    │ whichever speaks first is kept
 *                          └───────────── dead, closed, `online` event ───────────┘
 *
 * Driven by `client.js`. The server pings; the answer leaves from the message handler, because timers of hidden tabs are throttled and
 * message events are not. Late events of a socket that was given up are ignored. Messages sent while offline are dropped: state is
 * derived again on resumption, and the peers renegotiate.
 */

import { Backoff } from './backoff.js';

/**
 * @import { ClientMessage, ServerMessage } from './messages.js'
 * @import { Log } from './log.js'
 * @import { Platform } from './platform.js'
 */

/** `VERSION` in server/signalling/messages.py. */
export const PROTOCOL_VERSION = 1;

/** Until the welcome says otherwise. */
const DEFAULT_PING_INTERVAL_MS = 1500;
const DEFAULT_DEAD_AFTER_MS = 4000;
/** A ping this much late is missing rather than slow: as long as a radio takes to wake, and a retransmission. */
const PING_SLACK_MS = 500;
/** After a refusal because of too much: haste would make it worse. */
const RETRY_REFUSAL_MS = 3000;
const TOO_MUCH = new Set(['rate_limited', 'too_many_connections']);

/** `MAX_MESSAGE_BYTES` in server/signalling/messages.py: the server closes the socket on anything larger. */
const MAX_MESSAGE_BYTES = 65_536;
/** When it did so, or something on the way did: the same message may be said again by whoever wanted it said. */
const CLOSED_TOO_LARGE = 1009;
const TOO_LARGE_WAITS_MS = [0, 2000, 5000, 15_000, 60_000];

/** Close codes after which the same secret is not tried again, when the `refused` before them was lost. See PROTOCOL.md. */
const TERMINAL_CLOSE_CODES = new Map([
  [4400, 'bad_message'],
  [4401, 'link_unknown'],
  [4403, 'removed'],
  [4409, 'taken_over'],
  [4410, 'room_ended'],
]);

/**
 * @typedef {object} SignallingOptions
 * @property {string} url
 * @property {Platform} platform
 * @property {Log} log
 * @property {() => ClientMessage} hello makes the first message of each socket
 * @property {(message: ServerMessage) => void} onMessage everything but `ping`
 * @property {(online: boolean, networkMayHaveChanged: boolean) => void} onOnline before the `welcome` that made it so is given
 */

export class Signalling {
  #url;
  #platform;
  #log;
  #hello;
  #onMessage;
  #onOnline;
  #backoff;

  #wanted = false;
  /** Welcomed. @type {WebSocket | null} */
  #live = null;
  /** Dialled, not yet welcomed; may stand beside a live one that has gone silent. @type {WebSocket | null} */
  #attempt = null;
  #attemptAt = -Infinity;
  /** The network is known to have changed: the attempt replaces the live socket even if that one speaks again. */
  #attemptReplaces = false;
  #heardAt = -Infinity;
  /** The server said when to come back; also says that the network was fine. */
  #comeBackAt = -Infinity;
  #serverWentAway = false;
  /** Messages that closed the socket. */
  #tooLarge = 0;
  #pingIntervalMs = DEFAULT_PING_INTERVAL_MS;
  #deadAfterMs = DEFAULT_DEAD_AFTER_MS;
  /** @type {number | undefined} */
  #dialTimer;
  /** @type {number | undefined} */
  #hangTimer;
  /** @type {number | undefined} */
  #silenceTimer;

  /** @param {SignallingOptions} options */
  constructor({ url, platform, log, hello, onMessage, onOnline }) {
    this.#url = url;
    this.#platform = platform;
    this.#log = log;
    this.#hello = hello;
    this.#onMessage = onMessage;
    this.#onOnline = onOnline;
    this.#backoff = new Backoff(platform.random);
  }

  /** Whether the server has welcomed us and has been heard since. */
  get online() {
    return this.#live !== null;
  }

  /** Dial now, on a new socket, with a new hello; whatever was there before is given up. */
  open() {
    this.#wanted = true;
    this.#comeBackAt = -Infinity;
    this.#dropLive();
    this.#backoff.reset();
    this.#dial();
  }

  /** Stop, without a word to the server: leaving is a message of its own. */
  close() {
    this.#wanted = false;
    this.#platform.clearTimeout(this.#dialTimer);
    this.#dropAttempt();
    this.#dropLive();
  }

  /**
   * Send one message, if the server can be reached.
   *
   * @param {ClientMessage} message
   * @returns {boolean} whether it left
   */
  send(message) {
    if (this.#live?.readyState !== OPEN) return false;
    const text = JSON.stringify(message);
    if (!fits(text)) {
      this.#log.warning('message_too_large', { message: message.type });
      return false;
    }
    this.#live.send(text);
    return true;
  }

  /**
   * Something outside hints that the socket may be dead.
   *
   * @param {boolean} networkChanged certain (`online`), or only possible (the page was hidden or frozen)
   */
  wake(networkChanged) {
    if (!this.#wanted) return;
    if (networkChanged) {
      this.#backoff.reset();
      this.#dial({ replaces: true });
    } else if (this.#live === null && this.#attempt === null) {
      this.#dial();
    } else {
      this.suspect();
    }
  }

  /** The conversation has trouble too: if the server has missed a ping as well, dial beside the silent socket. */
  suspect() {
    if (this.#live !== null && this.#attempt === null && this.#silentMs() > this.#pingIntervalMs + PING_SLACK_MS) this.#dial();
  }

  // -- dialling ---------------------------------------------------------------------------------------------------------

  #dial({ replaces = false } = {}) {
    this.#platform.clearTimeout(this.#dialTimer);
    this.#dropAttempt();
    const hangMs = this.#backoff.begin();
    const socket = new this.#platform.WebSocket(this.#url);
    this.#attempt = socket;
    this.#attemptAt = this.#platform.now();
    this.#attemptReplaces = replaces;
    this.#log.debug('dial', { attempt: this.#backoff.attempts });
    socket.onopen = () => this.#onOpen(socket);
    socket.onmessage = (event) => this.#onText(socket, event.data);
    socket.onclose = (event) => this.#onClose(socket, event.code);
    this.#hangTimer = this.#platform.setTimeout(() => {
      this.#log.info('dial_hangs');
      this.#dropAttempt();
      this.#dialLater();
    }, hangMs);
  }

  #dialLater() {
    if (!this.#wanted || this.#attempt !== null) return;
    this.#platform.clearTimeout(this.#dialTimer);
    const now = this.#platform.now();
    const at = Math.max(this.#attemptAt + this.#backoff.waitMs(), this.#comeBackAt);
    this.#dialTimer = this.#platform.setTimeout(() => {
      if (this.#live === null) this.#dial();
      else this.suspect();
    }, Math.max(0, at - now));
  }

  /** @param {WebSocket} socket */
  #onOpen(socket) {
    if (socket !== this.#attempt) return;
    if (this.#live !== null && !this.#attemptReplaces && this.#heardAt > this.#attemptAt) {
      this.#log.debug('false_alarm');
      this.#dropAttempt();
      this.#backoff.reset();
      return;
    }
    this.#dropLive();
    socket.send(JSON.stringify(this.#hello()));
  }

  /** @param {WebSocket} socket @param {unknown} data */
  #onText(socket, data) {
    if (socket !== this.#live && socket !== this.#attempt) return;
    if (socket === this.#live) this.#heardAt = this.#platform.now();
    const message = parse(data);
    if (message === null) {
      this.#log.warning('bad_server_message');
    } else if (message.type === 'ping') {
      socket.send(PONG);
    } else {
      if (message.type === 'welcome') this.#onWelcome(socket, message);
      if (message.type === 'goingAway') this.#onGoingAway(message.retryAfterMs);
      if (message.type === 'refused' && TOO_MUCH.has(message.code)) this.#comeBackAt = this.#platform.now() + RETRY_REFUSAL_MS;
      this.#onMessage(message);
    }
  }

  /** @param {WebSocket} socket @param {Extract<ServerMessage, {type: 'welcome'}>} welcome */
  #onWelcome(socket, welcome) {
    if (socket !== this.#attempt) return;
    this.#platform.clearTimeout(this.#hangTimer);
    this.#attempt = null;
    this.#live = socket;
    this.#heardAt = this.#platform.now();
    this.#pingIntervalMs = welcome.pingIntervalMs;
    this.#deadAfterMs = welcome.deadAfterMs;
    this.#backoff.reset();
    this.#watchSilence();
    const networkMayHaveChanged = !this.#serverWentAway;
    this.#serverWentAway = false;
    this.#onOnline(true, networkMayHaveChanged);
  }

  /** @param {number} retryAfterMs */
  #onGoingAway(retryAfterMs) {
    this.#serverWentAway = true;
    this.#comeBackAt = this.#platform.now() + retryAfterMs;
    this.#dropAttempt();
    this.#dropLive();
    this.#dialLater();
  }

  /** @param {WebSocket} socket @param {number} code */
  #onClose(socket, code) {
    if (socket !== this.#live && socket !== this.#attempt) return;
    this.#log.info('socket_closed', { code });
    if (code === CLOSED_TOO_LARGE) {
      const waitMs = TOO_LARGE_WAITS_MS[Math.min(this.#tooLarge++, TOO_LARGE_WAITS_MS.length - 1)] ?? 0;
      this.#comeBackAt = this.#platform.now() + waitMs;
    }
    if (socket === this.#live) this.#dropLive();
    else this.#dropAttempt();
    const refusal = TERMINAL_CLOSE_CODES.get(code);
    if (refusal !== undefined) this.#onMessage({ type: 'refused', code: refusal, message: '' });
    this.#dialLater();
  }

  // -- silence ----------------------------------------------------------------------------------------------------------

  #silentMs() {
    return this.#platform.now() - this.#heardAt;
  }

  /** Wake up when the next ping is overdue, then when the socket counts as dead. */
  #watchSilence() {
    this.#platform.clearTimeout(this.#silenceTimer);
    if (this.#live === null) return;
    const silentMs = this.#silentMs();
    if (silentMs >= this.#deadAfterMs) {
      this.#log.info('socket_dead');
      this.#dropLive();
      this.#dialLater();
      return;
    }
    this.suspect();
    const overdueMs = this.#pingIntervalMs + PING_SLACK_MS + 1;
    const nextMs = silentMs < overdueMs ? overdueMs : this.#deadAfterMs;
    this.#silenceTimer = this.#platform.setTimeout(() => this.#watchSilence(), nextMs - silentMs);
  }

  // -- giving up --------------------------------------------------------------------------------------------------------

  #dropAttempt() {
    this.#platform.clearTimeout(this.#hangTimer);
    const socket = this.#attempt;
    this.#attempt = null;
    if (socket !== null) discard(socket);
  }

  #dropLive() {
    this.#platform.clearTimeout(this.#silenceTimer);
    const socket = this.#live;
    this.#live = null;
    if (socket === null) return;
    discard(socket);
    this.#onOnline(false, false);
  }
}

/**
 * Whether the server takes a message of this size.
 *
 * @param {string} text
 */
export function fits(text) {
  return text.length * 3 <= MAX_MESSAGE_BYTES || new TextEncoder().encode(text).length <= MAX_MESSAGE_BYTES;
}

/** `WebSocket.OPEN`, which a stand-in need not have. */
const OPEN = 1;
const PONG = JSON.stringify({ type: 'pong' });

/** Close without waiting: the closing handshake of a dead path takes a minute. @param {WebSocket} socket */
function discard(socket) {
  socket.onopen = socket.onmessage = socket.onclose = null;
  socket.close(1000);
}

/**
 * Read one message of the server; null for anything that is none.
 *
 * @param {unknown} data
 * @returns {ServerMessage | null}
 */
function parse(data) {
  if (typeof data !== 'string') return null;
  try {
    const message = JSON.parse(data);
    return typeof message?.type === 'string' ? message : null;
  } catch {
    return null;
  }
}
