// @ts-check
/** Before the conversation: the explanation, the choice of devices, the waiting room. */

import { all, button, find, write } from './dom.js';
import { DevicePicker } from './elements/device-picker.js';

/** Dispatches `allow`, `skip`, `enter` and `leave`: what the person decided. */
export class Lobby extends EventTarget {
  /**
   * @param {import('./equipment.js').Equipment} equipment
   * @param {import('./i18n.js').Words} words
   * @param {string} clinic its name
   */
  constructor(equipment, words, clinic) {
    super();
    this.equipment = equipment;
    this.words = words;
    this.clinic = clinic;
    /** @type {{role: string, name: string}} */
    this.self = { role: 'patient', name: '' };
    /** @type {{expected: boolean, place: number | null}} */
    this.standing = { expected: false, place: null };
    this.picker = new DevicePicker(find('[data-view="devices"] [data-picker]'), equipment, words);
    this.on(button('allow-devices'), 'allow');
    this.on(button('skip-camera'), 'skip');
    this.on(button('enter-waiting'), 'enter');
    this.on(button('join'), 'enter');
    this.on(find('[data-leave-waiting]'), 'leave');
    equipment.addEventListener('change', () => this.write());
    words.addEventListener('change', () => this.write());
    this.write();
  }

  /**
   * @param {HTMLElement} element
   * @param {string} what
   */
  on(element, what) {
    element.addEventListener('click', () => this.dispatchEvent(new Event(what)));
  }

  /**
   * Who the person is, once the server has said so.
   *
   * @param {{role: string, name: string}} self
   */
  setSelf(self) {
    this.self = self;
    document.body.dataset.role = self.role;
    const clinician = self.role === 'clinician';
    for (const element of all('[data-clinician]:not([data-alone-people])')) element.hidden = !clinician;
    for (const element of all('[data-patient]')) element.hidden = clinician;
    for (const element of all('[data-speaks]')) element.hidden = self.role === 'observer' || (clinician && element.matches('[data-patient]'));
    this.write();
  }

  /** @param {boolean} on while the browser is asking */
  prompting(on) {
    write(find('[data-prompting]'), on ? this.words.say('welcome.prompting') : '');
    button('allow-devices').disabled = on;
  }

  /**
   * In the waiting room.
   *
   * @param {{expected: boolean, place: number | null}} standing
   */
  setStanding(standing) {
    this.standing = standing;
    this.write();
  }

  /**
   * A sentence from the clinician.
   *
   * @param {string} text
   * @param {string} title whose words these are
   */
  hear(text, title) {
    const message = document.createElement('div');
    message.className = 'message';
    const head = document.createElement('strong');
    head.textContent = title;
    const body = document.createElement('p');
    body.textContent = text;
    message.append(head, body);
    find('[data-messages]').replaceChildren(message);
  }

  forget() {
    find('[data-messages]').replaceChildren();
  }

  /** All that depends on the moment. */
  write() {
    const { words, self, standing } = this;
    const kind = self.role === 'clinician' ? 'clinician' : self.role === 'observer' ? 'observer' : 'patient';
    write(find('[data-greeting]'), self.name ? words.say('welcome.greeting_name', { name: self.name }) : words.say('welcome.greeting'));
    write(find('span', button('allow-devices')), words.say(kind === 'observer' ? 'welcome.continue' : 'welcome.allow'));
    write(find('[data-welcome-lead]'), words.say(`welcome.lead_${kind}`, { clinic: this.clinic }));
    write(find('[data-expected]'), words.say(standing.expected ? 'waiting.expected' : 'waiting.not_arrived'));
    const before = (standing.place ?? 1) - 1;
    const place = before < 1 ? 'waiting.next' : before === 1 ? 'waiting.one_before' : 'waiting.several_before';
    write(find('[data-place]'), words.say(place, { number: before }));
    const notice = this.notice();
    for (const element of all('[data-device-notice]')) {
      element.hidden = !notice;
      write(find('span', element), notice ? words.say(notice) : '');
    }
  }

  /** What the others will miss, as a key of the catalogue; '' when nothing. */
  notice() {
    const { media, trouble } = this.equipment;
    if (media.camera === 'missing' && media.microphone === 'missing') return 'notice.neither';
    if (!trouble) return '';
    const cause = trouble === 'device_busy' ? 'device_busy' : 'device_missing';
    if (media.camera === 'missing') return `notice.${cause}_camera`;
    if (media.microphone === 'missing') return `notice.${cause}_microphone`;
    return 'notice.not_taken';
  }
}
