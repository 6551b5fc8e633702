// @ts-check
/**
 * One page, several views: sections that are swapped, never navigated to, so that the camera, the calls and the person's
 * click survive. Each change moves the focus to the heading, so that a screen reader reads where one is.
 */

import { all, find, write } from './dom.js';

/** @typedef {'connecting' | 'welcome' | 'devices' | 'waiting' | 'call' | 'ended' | 'problem'} ViewName */

export class Views extends EventTarget {
  /** @param {import('./i18n.js').Words} words */
  constructor(words) {
    super();
    this.words = words;
    this.main = find('main');
    this.clinic = document.title;
    this.marker = '';
    /** @type {ViewName} */
    this.current = 'connecting';
    words.addEventListener('change', () => this.retitle());
  }

  /**
   * Show a view; nothing happens when it is there already.
   *
   * @param {ViewName} name
   * @param {string} [code] of a problem
   */
  show(name, code = '') {
    if (this.current === name && (this.main.dataset.code ?? '') === code) return;
    this.current = name;
    this.main.dataset.state = name;
    document.body.dataset.state = name;
    if (code) this.main.dataset.code = code;
    else delete this.main.dataset.code;
    for (const view of all('[data-view]')) view.hidden = view.dataset.view !== name;
    this.dispatchEvent(new CustomEvent('view', { detail: { name, code } }));
    this.retitle();
    scrollTo(0, 0);
    this.heading().focus({ preventScroll: true });
  }

  /** The heading of the view on show. */
  heading() {
    return find(`[data-view="${this.current}"] h1`);
  }

  /**
   * The title of the tab: the marker ("(1) " when somebody waits), the view, the clinic.
   *
   * @param {string} [marker]
   */
  retitle(marker = this.marker) {
    this.marker = marker;
    const heading = this.heading().textContent;
    document.title = marker + [heading, this.clinic].filter(Boolean).join(' · ');
  }

  /**
   * Say something to those who cannot see the page.
   *
   * @param {string} sentence
   * @param {'polite' | 'assertive'} [manners]
   */
  announce(sentence, manners = 'polite') {
    const region = find(`[data-live="${manners}"]`);
    region.textContent = '';
    requestAnimationFrame(() => (region.textContent = sentence));
  }

  /**
   * The calm line above everything; an empty sentence takes it away. It never covers the picture.
   *
   * @param {string} sentence
   */
  banner(sentence) {
    write(find('[data-banner]'), sentence);
  }
}
