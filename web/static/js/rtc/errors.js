/**
 * What can go wrong in the library, as errors with stable codes.
 *
 *     ColloqueError          `code` is for programs and never changes; the sentence for people is `error.<code>` in the catalogue
 *     ├── DeviceError        camera and microphone
 *     └── StateError         our own misuse of our own code: a bug to fix, never an input to handle
 *
 * Refusals by the server are not exceptions: they arrive as `refused` and `problem` events of the client.
 */

/** Root of everything the library throws on purpose. */
export class ColloqueError extends Error {
  /**
   * @param {string} code stable, for programs
   * @param {string} [detail] for the developer; holds no name, token, address or SDP
   */
  constructor(code, detail = '') {
    super(detail ? `${code}: ${detail}` : code);
    this.name = new.target.name;
    this.code = code;
  }
}

/**
 * - `permission_denied`: the person, or a policy, said no, and the browser remembers it.
 * - `permission_dismissed`: the question was closed without an answer: asking again helps.
 * - `permission_blocked_by_system`: the operating system keeps the browser from the device.
 * - `permission_blocked_by_page`: the embedding page does not pass the device on (`allow="camera; microphone"`).
 * - `device_missing`: there is none, or the one asked for is gone.
 * - `device_busy`: another program holds it, or it failed to start.
 * - `insecure_context`: the page is not on HTTPS or localhost.
 * - `unsupported`: this browser has no camera interface (an in-app browser, for instance).
 * @typedef {'permission_denied' | 'permission_dismissed' | 'permission_blocked_by_system' | 'permission_blocked_by_page'
 *   | 'device_missing' | 'device_busy' | 'insecure_context' | 'unsupported'} DeviceErrorCode
 */

/** A camera or microphone that cannot be had. */
export class DeviceError extends ColloqueError {
  /**
   * @param {DeviceErrorCode} code
   * @param {'audio' | 'video' | 'both'} kind what was asked for
   * @param {string} [detail] the browser's error name
   */
  constructor(code, kind, detail = '') {
    super(code, detail);
    /** @type {DeviceErrorCode} */
    this.code = code;
    this.kind = kind;
  }
}

/** A method was called where it makes no sense, for instance `join()` before `connect()`. */
export class StateError extends ColloqueError {
  /** @param {string} detail */
  constructor(detail) {
    super('invalid_state', detail);
  }
}
