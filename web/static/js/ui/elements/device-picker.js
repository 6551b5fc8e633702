// @ts-check
/** Choice of camera and microphone, the microphone's level in a bar and in words, and a sound to try the speakers. */

import { all, find, write } from '../dom.js';
import { playMelody } from './sounds.js';

const HEARD = 0.3;
/** Level, 0 to 1 over 60 dB, above which a voice was heard: speech at arm's length gives 0.4 to 0.7, a quiet room 0.1. */
const SILENT_AFTER_MS = 6000;
/** How long a silent microphone is given before advice: people read first and speak then. */

export class DevicePicker {
  /**
   * @param {HTMLElement} root
   * @param {import('../equipment.js').Equipment} equipment
   * @param {import('../i18n.js').Words} words
   */
  constructor(root, equipment, words) {
    this.root = root;
    this.equipment = equipment;
    this.words = words;
    this.heardAt = 0;
    this.openedAt = 0;
    for (const [name, kind] of /** @type {const} */ ([['camera', 'video'], ['microphone', 'audio']])) {
      const select = this.select(name);
      select.addEventListener('change', () => void equipment.select(kind, select.value));
    }
    find('[data-test-sound]', root).addEventListener('click', () => void this.testSound());
    equipment.addEventListener('change', () => void this.refresh());
    equipment.devices.addEventListener('changed', () => void this.refresh());
    equipment.devices.addEventListener('level', (event) => this.onLevel(/** @type {CustomEvent} */ (event).detail.level));
    words.addEventListener('change', () => void this.refresh());
  }

  /**
   * @param {'camera' | 'microphone'} name
   * @returns {HTMLSelectElement}
   */
  select(name) {
    return /** @type {HTMLSelectElement} */ (find(`[data-select="${name}"]`, this.root));
  }

  /** Read the list of devices again. */
  async refresh() {
    const { cameras, microphones } = await this.equipment.devices.list();
    this.fill('camera', cameras, this.equipment.devices.deviceId('video'));
    this.fill('microphone', microphones, this.equipment.devices.deviceId('audio'));
    const microphone = this.equipment.media.microphone;
    if (microphone === 'on') this.openedAt ||= performance.now();
    else this.openedAt = this.heardAt = 0;
    this.speak();
  }

  /**
   * @param {'camera' | 'microphone'} name
   * @param {import('../../rtc/devices.js').Device[]} devices
   * @param {string} current
   */
  fill(name, devices, current) {
    const select = this.select(name);
    const options = devices.map((device, index) => {
      const option = document.createElement('option');
      option.value = device.id;
      option.textContent = device.label || this.words.say(`unnamed.${name}`, { number: index + 1 });
      return option;
    });
    if (!options.length) {
      const none = document.createElement('option');
      none.textContent = this.words.say(`absent.${name}`);
      options.push(none);
    }
    select.replaceChildren(...options);
    select.disabled = !devices.length;
    if (devices.some((device) => device.id === current)) select.value = current;
  }

  /** @param {number} level */
  onLevel(level) {
    if (!this.root.offsetParent) return;
    const now = performance.now();
    if (level > HEARD) this.heardAt = now;
    find('[data-level] span', this.root).style.setProperty('--level', String(level));
    this.speak();
  }

  /** What the level means, in words. */
  speak() {
    const { microphone } = this.equipment.media;
    const silentFor = performance.now() - Math.max(this.heardAt, this.openedAt);
    let key = 'devices.speak';
    if (microphone === 'missing') key = 'devices.cannot_be_heard';
    else if (microphone === 'off') key = 'devices.microphone_off';
    else if (this.heardAt && silentFor < SILENT_AFTER_MS) key = 'devices.heard';
    else if (this.openedAt && silentFor > SILENT_AFTER_MS) key = 'devices.silent';
    find('[data-level]', this.root).dataset.heard = String(key === 'devices.heard');
    write(find('[data-level-words]', this.root), this.words.say(key));
  }

  async testSound() {
    for (const hint of all('[data-sound-words]', this.root)) write(hint, this.words.say('devices.sound_playing'));
    await playMelody();
    for (const hint of all('[data-sound-words]', this.root)) write(hint, this.words.say('devices.sound_played'));
  }
}
