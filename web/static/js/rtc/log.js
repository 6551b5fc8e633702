/**
 * A small levelled logger that cannot leak: it takes an event name and plain facts, and hides what is private.
 *
 * Never logged: names, secrets, addresses, SDP, candidates. Members with such names are replaced, long strings are cut, errors are
 * reduced to their name (their messages may quote SDP), ids are shortened as in server/ids.py.
 */

/** @typedef {'debug' | 'info' | 'warning' | 'error'} Level */
/** @typedef {Record<string, unknown>} Facts */

/** @type {readonly Level[]} */
const LEVELS = ['debug', 'info', 'warning', 'error'];

const PRIVATE = /name|secret|resume|token|credential|password|pwd|sdp|candidate|address|text|message|label|url/i;
const IDENTIFIER = /^(id|peer|from|to|participant|room|instance)$/i;
const SHORT_ID_LENGTH = 6;
const MAX_VALUE_LENGTH = 60;

export class Log {
  #threshold;
  #write;

  /**
   * @param {Level | 'silent'} [level] the least that is written
   * @param {(level: Level, line: string) => void} [write] where lines go; the console by default
   */
  constructor(level = 'warning', write = writeToConsole) {
    this.#threshold = level === 'silent' ? LEVELS.length : LEVELS.indexOf(level);
    this.#write = write;
  }

  /** @param {string} event @param {Facts} [facts] */
  debug(event, facts) {
    this.#log('debug', event, facts);
  }

  /** @param {string} event @param {Facts} [facts] */
  info(event, facts) {
    this.#log('info', event, facts);
  }

  /** @param {string} event @param {Facts} [facts] */
  warning(event, facts) {
    this.#log('warning', event, facts);
  }

  /** @param {string} event @param {Facts} [facts] */
  error(event, facts) {
    this.#log('error', event, facts);
  }

  /** @param {Level} level @param {string} event @param {Facts} [facts] */
  #log(level, event, facts = {}) {
    if (LEVELS.indexOf(level) < this.#threshold) return;
    const words = Object.entries(facts).map(([name, value]) => `${name}=${redact(name, value)}`);
    this.#write(level, ['colloque', event, ...words].join(' '));
  }
}

/**
 * Return what may be written of one fact.
 *
 * @param {string} name
 * @param {unknown} value
 * @returns {string}
 */
function redact(name, value) {
  if (IDENTIFIER.test(name)) return String(value).slice(0, SHORT_ID_LENGTH);
  if (PRIVATE.test(name)) return '(private)';
  if (value instanceof Error) return value.name;
  if (typeof value === 'number' || typeof value === 'boolean' || value == null) return String(value);
  if (typeof value === 'string') return value.length <= MAX_VALUE_LENGTH ? value : '(long)';
  return '(object)';
}

/** @param {Level} level @param {string} line */
function writeToConsole(level, line) {
  const method = level === 'warning' ? 'warn' : level;
  console[method](line);
}
