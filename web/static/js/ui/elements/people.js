// @ts-check
/** The clinician's list: who waits and since when, who is in the consultation, and what can be done with each. */

import { all, copy, find, write } from '../dom.js';

/** @typedef {'admit' | 'tell' | 'refuse' | 'transfer' | 'sendBack' | 'remove'} Act */

/** Dispatches `act` with {act, id, name} in `detail`. */
export class People extends EventTarget {
  /**
   * @param {HTMLElement} root
   * @param {import('../i18n.js').Words} words
   */
  constructor(root, words) {
    super();
    this.root = root;
    this.words = words;
    /** @type {(import('../../rtc/messages.js').Visitor & {since: number})[]} `since`: on the clock of `performance.now()` */
    this.visitors = [];
    root.addEventListener('click', (event) => this.onClick(event));
    root.addEventListener('keydown', (event) => {
      const open = root.querySelector('details[open]');
      if (event.key !== 'Escape' || !open) return;
      event.stopPropagation();
      open.removeAttribute('open');
      find('summary', open).focus();
    });
    words.addEventListener('change', () => this.draw());
    setInterval(() => this.tick(), 10_000);
  }

  /**
   * Replace the list of those who are not in the conversation.
   *
   * @param {import('../../rtc/messages.js').Visitor[]} visitors
   */
  show(visitors) {
    this.visitors = visitors.map((visitor) => ({ ...visitor, since: performance.now() - visitor.sinceMs }));
    this.draw();
  }

  draw() {
    const list = find('[data-visitors]', this.root);
    this.sync(list, 'visitor', this.visitors, (row, visitor) => {
      find('[data-testid="admit"]', row).hidden = !['arrived', 'waiting'].includes(visitor.state);
      row.dataset.waiting = String(visitor.state === 'waiting');
    });
    this.tick();
    find('[data-nobody-waiting]', this.root).hidden = this.visitors.length > 0;
  }

  /**
   * Replace the list of those who are in it.
   *
   * @param {import('../../rtc/peer.js').Peer[]} peers
   */
  showPresent(peers) {
    find('[data-nobody-present]', this.root).hidden = peers.length > 0;
    this.sync(find('[data-present]', this.root), 'present', peers, (row, peer) => {
      const words = [this.words.say(`role.${peer.role}`)];
      if (peer.connection === 'reconnecting') words.push(this.words.say('visitor.reconnecting'));
      else {
        words.push(this.words.say(`people.microphone_${peer.microphone}`));
        words.push(this.words.say(`people.camera_${peer.camera}`));
      }
      write(find('[data-detail]', row), words.join(' · '));
      find('details', row).hidden = peer.role === 'clinician';
    });
  }

  /** The minutes pass. */
  tick() {
    for (const visitor of this.visitors) {
      const row = this.root.querySelector(`[data-visitors] [data-participant="${CSS.escape(visitor.id)}"]`);
      if (row) write(find('[data-detail]', row), this.detail(visitor));
    }
  }

  /** @param {import('../../rtc/messages.js').Visitor & {since: number}} visitor */
  detail(visitor) {
    const minutes = Math.floor((performance.now() - visitor.since) / 60_000);
    const state = visitor.connection === 'reconnecting' ? 'reconnecting' : visitor.state;
    const since = minutes < 1 ? this.words.say('people.just_now') : this.words.say('people.minutes', { minutes });
    return `${this.words.say(`role.${visitor.role}`)} · ${this.words.say(`visitor.${state}`)} ${since}`;
  }

  /**
   * Rows are kept while their person stays, so that the focus and an open menu survive an update.
   *
   * @template {{id: string, role: string, name: string}} T
   * @param {HTMLElement} list
   * @param {string} template
   * @param {T[]} people
   * @param {(row: HTMLElement, person: T) => void} fill
   */
  sync(list, template, people, fill) {
    const focused = list.contains(document.activeElement);
    const kept = new Map(all('[data-participant]', list).map((row) => [row.dataset.participant, row]));
    let place = /** @type {ChildNode | null} */ (list.firstChild);
    for (const person of people) {
      const name = person.name || this.words.say(`role.${person.role}`);
      let row = kept.get(person.id);
      kept.delete(person.id);
      if (!row) {
        row = copy(template);
        row.dataset.participant = person.id;
        this.words.render(row);
      }
      write(find('[data-name]', row), name);
      for (const action of all('[data-act="admit"]', row)) action.setAttribute('aria-label', this.words.say('people.admit_name', { name }));
      for (const summary of all('summary', row)) summary.setAttribute('aria-label', this.words.say('people.more_name', { name }));
      fill(row, person);
      if (place === row) place = row.nextSibling;
      else list.insertBefore(row, place);
    }
    for (const row of kept.values()) row.remove();
    if (focused && !list.contains(document.activeElement)) find('h2', this.root).focus();
  }

  /** @param {Event} event */
  onClick(event) {
    const target = /** @type {HTMLElement} */ (event.target).closest('[data-act]');
    if (!(target instanceof HTMLElement)) return;
    const row = /** @type {HTMLElement} */ (target.closest('[data-participant]'));
    const menu = target.closest('details');
    menu?.removeAttribute('open');
    menu?.querySelector('summary')?.focus(); // where a dialog gives the focus back to
    const detail = { act: /** @type {Act} */ (target.dataset.act), id: row.dataset.participant ?? '', name: find('[data-name]', row).textContent ?? '' };
    this.dispatchEvent(new CustomEvent('act', { detail }));
  }
}
