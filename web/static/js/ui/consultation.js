// @ts-check
/** The conversation: the others' pictures, one's own, the controls, the quality in words, and the clinician's list. */

import { all, button, find, setIcon, write } from './dom.js';
import { ask } from './elements/ask.js';
import { DevicePicker } from './elements/device-picker.js';
import { People } from './elements/people.js';
import { playChime } from './elements/sounds.js';
import { Tiles } from './elements/tiles.js';

/** @typedef {'good' | 'limited' | 'bad' | 'lost'} Level */
const ORDER = /** @type {Level[]} */ (['good', 'limited', 'bad', 'lost']);

/** Whether the list stands beside the picture instead of over it (consultation.css). */
const wide = () => matchMedia('(min-width: 60rem)').matches;

/** What the protocol takes for a room's number (messages.py); anything else would end the connection. */
const ROOM_ID = /^[\w-]{1,64}$/;

/** Whether there is something to ask the browser for. @param {import('../rtc/messages.js').TrackState} state */
const lacks = (state) => state === 'missing' || state === 'interrupted';

/** Dispatches `leave` when the person hangs up. */
export class Consultation extends EventTarget {
  /**
   * @param {import('../rtc/client.js').Client} client
   * @param {import('./equipment.js').Equipment} equipment
   * @param {import('./views.js').Views} views
   * @param {import('./i18n.js').Words} words
   */
  constructor(client, equipment, views, words) {
    super();
    this.client = client;
    this.equipment = equipment;
    this.views = views;
    this.words = words;
    this.view = find('[data-view="call"]');
    this.tiles = new Tiles(find('[data-tiles]'), words);
    this.people = new People(find('[data-people]'), words);
    this.settings = /** @type {HTMLDialogElement} */ (find('[data-dialog="settings"]'));
    new DevicePicker(find('[data-picker]', this.settings), equipment, words);
    /** Quality of each pair. @type {Map<string, Level>} */
    this.levels = new Map();
    /** Who was waiting at the last update, so that an arrival is announced once. @type {Set<string>} */
    this.waiting = new Set();
    this.choices = { chime: true, shortcuts: true, self: true };
    this.wireControls();
    this.wireClient();
    this.write();
  }

  wireControls() {
    button('toggle-microphone').addEventListener('click', () => void this.toggle('audio'));
    button('toggle-camera').addEventListener('click', () => void this.toggle('video'));
    button('leave').addEventListener('click', () => this.dispatchEvent(new Event('leave')));
    button('end-for-all').addEventListener('click', () => void this.endForAll());
    button('unmute-audio').addEventListener('click', () => void this.tiles.hear());
    button('people').addEventListener('click', () => this.showPeople(this.view.dataset.people !== 'open'));
    find('[data-close-people]').addEventListener('click', () => this.hidePeople());
    find('[data-alone-people]').addEventListener('click', () => {
      this.showPeople(true);
      find('[data-visitors] [data-testid="admit"]').focus();
    });
    for (const opener of all('[data-open-settings]')) opener.addEventListener('click', () => this.settings.showModal());
    find('[data-ask-devices]').addEventListener('click', () => void this.equipment.ask());
    for (const box of /** @type {HTMLInputElement[]} */ (all('[data-choice]'))) {
      box.addEventListener('change', () => {
        this.choices[/** @type {keyof Consultation['choices']} */ (box.dataset.choice)] = box.checked;
        this.write();
      });
    }
    const screen = button('fullscreen');
    screen.hidden = !document.fullscreenEnabled;
    screen.addEventListener('click', () => {
      if (document.fullscreenElement) void document.exitFullscreen();
      else void find('[data-shell]').requestFullscreen().catch(() => (screen.hidden = true));
    });
    document.addEventListener('fullscreenchange', () => this.write());
    document.addEventListener('keydown', (event) => this.onKey(event));
    this.tiles.addEventListener('blocked', () => (button('unmute-audio').hidden = false));
    this.tiles.addEventListener('played', () => (button('unmute-audio').hidden = true));
    this.people.addEventListener('act', (event) => void this.act(/** @type {CustomEvent} */ (event).detail));
    this.equipment.addEventListener('change', () => this.write());
    this.words.addEventListener('change', () => this.write());
  }

  wireClient() {
    const { client } = this;
    client.addEventListener('peerjoined', (event) => {
      const { peer } = /** @type {CustomEvent} */ (event).detail;
      this.views.announce(this.words.say('call.joined', { name: this.nameOf(peer) }));
      this.write();
    });
    client.addEventListener('peerchanged', () => this.write());
    client.addEventListener('track', (event) => {
      const { peerId, source, stream } = /** @type {CustomEvent} */ (event).detail;
      if (source) this.tiles.drawDevice(peerId, source, stream);
      else this.write();
    });
    client.addEventListener('speakers', (event) => this.tiles.hearSpeakers(/** @type {CustomEvent} */ (event).detail.participants));
    this.tiles.addEventListener('size', (event) => {
      const { peerId, source, size } = /** @type {CustomEvent} */ (event).detail;
      client.showSize(peerId, source, size);
    });
    client.addEventListener('peerleft', (event) => {
      const { id, why } = /** @type {CustomEvent} */ (event).detail;
      const name = this.tiles.nameOf(id);
      // The client also closes everybody when it is us who go: by then it is no longer `joined`.
      queueMicrotask(() => client.state === 'joined' && this.views.announce(this.words.say(why === 'left' ? 'call.left' : 'call.gone', { name })));
      this.tiles.remove(id);
      this.levels.delete(id);
      this.write();
    });
    client.addEventListener('media', (event) => {
      const { peerId, state, reason } = /** @type {CustomEvent} */ (event).detail;
      if (reason === 'untrusted') {
        this.tiles.untrusted.add(peerId);
        this.views.announce(this.words.say('call.peer_untrusted', { name: this.tiles.nameOf(peerId) }), 'assertive');
      } else if (state === 'connected') this.tiles.untrusted.delete(peerId);
      this.write();
    });
    client.addEventListener('quality', (event) => {
      const { peerId, level } = /** @type {CustomEvent} */ (event).detail;
      this.levels.set(peerId, level);
      this.write();
    });
    client.addEventListener('visitors', (event) => this.onVisitors(/** @type {CustomEvent} */ (event).detail.visitors));
  }

  /** Entering: the list is open where there is room for it. */
  enter() {
    this.showPeople(this.client.self?.role === 'clinician' && wide());
    this.write();
  }

  /** Leaving: nothing of the others stays on the page. */
  clear() {
    this.tiles.clear();
    this.levels.clear();
    for (const dialog of /** @type {HTMLDialogElement[]} */ (all('dialog[open]'))) dialog.close();
    if (document.fullscreenElement) void document.exitFullscreen();
  }

  /** All that depends on the moment. */
  write() {
    const { words, equipment, client } = this;
    for (const peer of client.peers.values()) this.tiles.draw(peer);
    for (const id of this.tiles.people) if (!client.peers.has(id)) this.tiles.remove(id);
    this.people.showPresent([...client.peers.values()]);
    this.control('toggle-microphone', 'microphone', equipment.media.microphone);
    this.control('toggle-camera', 'camera', equipment.media.camera);
    const full = Boolean(document.fullscreenElement);
    setIcon(button('fullscreen'), full ? 'fullscreen-exit' : 'fullscreen');
    write(find('span', button('fullscreen')), words.say(full ? 'call.fullscreen_exit' : 'call.fullscreen'));
    find('[data-self-view]').hidden = !this.choices.self || client.self?.role === 'observer';
    const room = find('[data-room]');
    room.hidden = !client.self;
    write(room, client.self ? `${words.say('people.room')} : ${client.self.room}` : '');
    const nothing = !equipment.devices.opened; // chosen before the call, and free to change their mind
    find('[data-ask-devices]').hidden = !nothing && !lacks(equipment.media.camera) && !lacks(equipment.media.microphone);
    this.writeAlone();
    this.writeQuality();
  }

  writeAlone() {
    const { words, client } = this;
    const alone = client.peers.size === 0;
    const clinician = client.self?.role === 'clinician';
    const waiting = this.waiting.size;
    find('[data-alone]').hidden = !alone;
    write(find('[data-alone-words]'), words.say(!clinician ? 'call.alone' : waiting ? 'call.somebody_waits' : 'call.nobody_yet'));
    write(find('[data-alone-hint]'), words.say(!clinician ? 'call.alone_hint' : waiting ? 'call.somebody_waits_hint' : 'call.nobody_yet_hint'));
    find('[data-alone-people]').hidden = !(clinician && waiting);
    const badge = find('[data-waiting-count]');
    badge.hidden = !waiting;
    write(badge, String(waiting));
    this.views.retitle(clinician && waiting ? `(${waiting}) ` : '');
  }

  writeQuality() {
    const levels = [...this.levels].filter(([id]) => this.client.peers.has(id)).map(([, level]) => level);
    const line = find('[data-testid="quality"]');
    line.hidden = levels.length === 0;
    const worst = levels.reduce((a, b) => (ORDER.indexOf(a) > ORDER.indexOf(b) ? a : b), 'good');
    line.dataset.level = worst;
    setIcon(line, `signal-${worst}`);
    write(find('[data-quality-words]'), levels.length ? this.words.say(`quality.${worst}`) : '');
  }

  /**
   * @param {string} name
   * @param {'microphone' | 'camera'} device
   * @param {import('../rtc/messages.js').TrackState} state
   */
  control(name, device, state) {
    const control = button(name);
    control.dataset.media = state;
    setIcon(control, state === 'on' ? device : `${device}-off`);
    const how = state === 'on' || state === 'off' ? state : 'missing';
    const words = this.words.say(`control.${device}_${how}`);
    write(find('span', control), words);
    // The words that are seen come first, so that somebody who speaks to the computer can name the button.
    control.setAttribute('aria-label', `${words}. ${this.words.say(how === 'missing' ? 'call.open_settings' : `control.turn_${device}_${how}`)}`);
  }

  /** @param {'audio' | 'video'} kind */
  async toggle(kind) {
    const device = kind === 'audio' ? 'microphone' : 'camera';
    if (this.equipment.media[device] === 'missing' || this.equipment.media[device] === 'interrupted') return this.settings.showModal();
    const code = await this.equipment.toggle(kind);
    const state = this.equipment.media[device];
    if (code) this.settings.showModal();
    else if (state === 'on' || state === 'off') this.views.announce(this.words.say(`control.${device}_is_${state}`));
  }

  /** @param {KeyboardEvent} event */
  onKey(event) {
    if (this.views.current !== 'call') return;
    if (event.key === 'Escape' && this.view.dataset.people === 'open' && !document.querySelector('dialog[open]') && !wide()) {
      this.hidePeople();
      return;
    }
    const typing = /** @type {HTMLElement} */ (event.target).closest?.('input, select, textarea, dialog');
    if (typing || !this.choices.shortcuts || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    if (this.client.self?.role === 'observer') return;
    if (event.key.toLowerCase() === 'm') void this.toggle('audio');
    if (event.key.toLowerCase() === 'v') void this.toggle('video');
  }

  hidePeople() {
    this.showPeople(false);
    button('people').focus();
  }

  /** @param {boolean} open */
  showPeople(open) {
    this.view.dataset.people = open ? 'open' : 'closed';
    button('people').setAttribute('aria-expanded', String(open));
    if (open && this.views.current === 'call' && !wide()) find('[data-close-people]').focus();
  }

  /** @param {import('../rtc/messages.js').Visitor[]} visitors */
  onVisitors(visitors) {
    this.people.show(visitors);
    const waiting = new Set(visitors.filter((visitor) => visitor.state === 'waiting').map((visitor) => visitor.id));
    const fresh = visitors.filter((visitor) => waiting.has(visitor.id) && !this.waiting.has(visitor.id));
    this.waiting = waiting;
    this.writeAlone();
    if (!fresh.length) return;
    this.views.announce(this.words.say('people.arrived', { name: fresh.map((visitor) => this.nameOf(visitor)).join(', ') }));
    if (this.choices.chime) void playChime().catch(() => undefined);
  }

  /** @param {{name: string, role: string}} person */
  nameOf(person) {
    return person.name || this.words.say(`role.${person.role}`);
  }

  /** @param {{act: import('./elements/people.js').Act, id: string, name: string}} wish */
  async act({ act, id, name }) {
    const { client, words } = this;
    if (act === 'admit') {
      client.admit(id);
      if (!wide()) this.hidePeople();
      return;
    }
    const question = {
      title: words.say(`ask.${act}_title`, { name }),
      text: words.say(`ask.${act}_text`, { name }),
      confirm: words.say(`ask.${act}_confirm`),
      label: words.say(`ask.${act}_label`),
      required: act === 'tell' || act === 'transfer',
      danger: act === 'refuse' || act === 'remove',
    };
    const text = await ask(question);
    if (text === null || (question.required && !text)) return;
    if (act === 'transfer' && !ROOM_ID.test(text)) {
      client.dispatchEvent(new CustomEvent('problem', { detail: { code: 'unknown_room', message: '', re: 'transfer' } }));
      return;
    }
    if (act === 'tell') client.tell(id, text);
    else if (act === 'refuse') client.refuse(id, text);
    else if (act === 'transfer') client.transfer(id, text);
    else if (act === 'sendBack') client.sendBack(id, text);
    else client.remove(id, text);
    if (act === 'tell' && client.signalling === 'online') this.views.announce(words.say('people.told', { name }));
  }

  async endForAll() {
    const { words } = this;
    const answer = await ask({ title: words.say('ask.end_title'), text: words.say('ask.end_text'), confirm: words.say('ask.end_confirm'), danger: true });
    if (answer !== null) this.client.endRoom('');
  }
}
