// @ts-check
/**
 * Every refusal and every trouble: a title, a sentence, sometimes numbered steps, and always a way out.
 *
 * The words are `title.<code>` and `error.<code>` in the catalogue; this module says which buttons go with which code.
 */

import { find, write } from './dom.js';

/** @typedef {'retry' | 'without' | 'continue' | 'copy'} Way */

/** What can be done about it, the main way first. Codes that are not here have none but calling the clinic. */
/** @type {Record<string, Way[]>} */
const WAYS = {
  link_not_yet: ['retry'],
  occupied: ['continue'],
  taken_over: ['continue'],
  permission_denied: ['retry', 'without'],
  permission_dismissed: ['retry', 'without'],
  permission_blocked_by_system: ['retry', 'without'],
  permission_blocked_by_page: ['retry', 'without'],
  device_missing: ['retry', 'without'],
  device_busy: ['retry', 'without'],
  insecure_context: ['copy'],
  unsupported: ['copy'],
  hello_timeout: ['retry'],
  dead: ['retry'],
  slow_reader: ['retry'],
  going_away: ['retry'],
  internal: ['retry'],
  rate_limited: ['retry'],
  too_many_connections: ['retry'],
  bad_message: ['retry'],
  bad_order: ['retry'],
  too_large: ['retry'],
  version_unsupported: ['retry'],
};

/** Where help is to be found, when it is not the clinic that can give it. @type {Record<string, string>} */
const ASIDES = {
  occupied: '',
  taken_over: '',
  permission_denied: 'problem.ask_relative',
  permission_dismissed: 'problem.ask_relative',
  permission_blocked_by_system: 'problem.ask_relative',
  device_missing: 'problem.ask_relative',
  device_busy: 'problem.ask_relative',
};

/**
 * Which browser this is, as far as the way to its permissions goes.
 *
 * @param {string} agent `navigator.userAgent`
 * @param {boolean} touch whether the screen is touched: an iPad calls itself a Mac
 */
export function browserFamily(agent, touch) {
  if (/FBAN|FBAV|Instagram|Line\/|GSA\/|; wv\)|MicroMessenger|Snapchat/.test(agent)) return 'in_app';
  const apple = /iPhone|iPad|iPod/.test(agent) || (/Macintosh/.test(agent) && touch);
  if (apple) return /CriOS|FxiOS|EdgiOS/.test(agent) ? 'ios_other' : 'ios_safari';
  if (/Firefox\//.test(agent)) return 'firefox';
  if (/Android/.test(agent)) return 'android';
  if (/Chrome\//.test(agent)) return 'chrome';
  if (/Safari\//.test(agent)) return 'safari';
  return 'other';
}

/**
 * @typedef {object} Trouble
 * @property {string} code
 * @property {string} [message] the server's own sentence
 * @property {boolean} [retry] the client tries again by itself
 * @property {string} [reason] what the clinician wrote, or the opening time of a link that is too early
 */

/** Dispatches `shown` {code, message}: the words are those that the person reads. */
export class Problems extends EventTarget {
  /**
   * @param {import('./views.js').Views} views
   * @param {import('./i18n.js').Words} words
   * @param {Record<Exclude<Way, 'copy'>, () => void> & {copy: () => Promise<boolean>}} ways `copy`: whether the clipboard has taken it
   */
  constructor(views, words, ways) {
    super();
    this.views = views;
    this.words = words;
    this.ways = ways;
    /** @type {Trouble | null} */
    this.trouble = null;
    words.addEventListener('change', () => this.trouble && views.current === 'problem' && this.write(this.trouble));
  }

  /**
   * Show a trouble in place of everything else.
   *
   * @param {Trouble} trouble
   */
  show(trouble) {
    this.trouble = trouble;
    this.write(trouble);
    this.views.show('problem', trouble.code);
    const message = find('[data-problem-text]').textContent ?? '';
    this.dispatchEvent(new CustomEvent('shown', { detail: { code: trouble.code, message } }));
  }

  /** @param {Trouble} trouble */
  write({ code, message, reason, retry }) {
    const { words } = this;
    const view = find('[data-view="problem"]');
    const opens = code === 'link_not_yet' && reason ? new Date(reason) : null;
    const known = words.has(`error.${code}`);
    write(find('[data-problem-title]'), words.say(words.has(`title.${code}`) ? `title.${code}` : 'title.trouble'));
    let text = known ? words.say(`error.${code}`) : message || words.say('error.internal');
    if (opens && !Number.isNaN(opens.getTime())) text = words.say('problem.opens_at', { when: words.moment(opens) });
    write(find('[data-problem-text]'), text);
    const quote = find('[data-reason]', view);
    quote.hidden = !reason || Boolean(opens);
    write(quote, opens ? '' : (reason ?? ''));
    this.steps(code);
    const actions = (WAYS[code] ?? []).map((way, index) => this.action(way, index === 0));
    find('[data-problem-actions]').replaceChildren(...actions);
    const aside = retry || opens ? 'problem.by_itself' : (ASIDES[code] ?? 'problem.call_clinic');
    write(find('[data-problem-aside]'), aside && words.say(aside));
  }

  /** @param {string} code */
  steps(code) {
    const list = find('[data-problem-steps]');
    const family = browserFamily(navigator.userAgent, navigator.maxTouchPoints > 1);
    const key = code === 'permission_denied' ? `permission.${family}` : `steps.${code}`;
    const steps = this.words.has(key) ? this.words.say(key).split('\n') : [];
    list.replaceChildren(
      ...steps.map((step) => {
        const item = document.createElement('li');
        item.textContent = step;
        return item;
      }),
    );
    list.hidden = !steps.length;
  }

  /**
   * @param {Way} way
   * @param {boolean} main
   */
  action(way, main) {
    const button = document.createElement('button');
    button.type = 'button';
    button.className = main ? 'button primary' : 'button text';
    button.dataset.testid = { retry: 'retry', without: 'continue-without', continue: 'continue-here', copy: 'copy-link' }[way];
    button.textContent = this.words.say(`way.${way}`);
    button.addEventListener('click', async () => {
      const done = await this.ways[way]();
      if (way === 'copy') button.textContent = this.words.say(done ? 'problem.copied' : 'problem.not_copied');
    });
    return button;
  }
}
