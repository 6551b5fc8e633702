// @ts-check
/**
 * The pictures of the others: one tile each, in a grid that follows their number (consultation.css), the speaker large where it is crowded.
 *
 * A second device of somebody (a dermatoscope, another camera) has a tile of its own, named after them.
 */

import { copy, find, initials, write } from '../dom.js';
import { Floor } from './floor.js';
import { Screen } from './screen.js';

/** From here on the grid is one large picture and many small ones. */
const MANY = 7;

/** @typedef {{peerId: string, source: string, tile: HTMLElement, screen: Screen}} Place `source`: '' for the person's browser */

/**
 * Dispatches `blocked` when the browser refuses to play sound before a click, `played` when it plays again, and `size` {peerId, source, size}
 * when a picture is shown larger or smaller (in pixels of the screen; null: not at all).
 */
export class Tiles extends EventTarget {
  /**
   * @param {HTMLElement} root
   * @param {import('../i18n.js').Words} words
   */
  constructor(root, words) {
    super();
    this.root = root;
    this.words = words;
    /** @type {Map<string, Place>} */
    this.places = new Map();
    /** Peers whose browser is not the one that the server vouched for. @type {Set<string>} */
    this.untrusted = new Set();
    this.floor = new Floor();
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.floorTimer = undefined;
    /** Shown large until somebody speaks. */
    this.host = '';
    this.observer = new ResizeObserver((entries) => {
      for (const { target } of entries) this.measure(/** @type {HTMLElement} */ (target).dataset.place ?? '');
    });
    document.addEventListener('visibilitychange', () => {
      for (const key of this.places.keys()) this.measure(key);
    });
  }

  /**
   * Draw one person, new or changed.
   *
   * @param {import('../../rtc/peer.js').Peer} peer
   */
  draw(peer) {
    const { tile, screen } = this.place(peer.id, '');
    if (peer.stream) screen.show(peer.stream);
    const name = this.personName(peer);
    if (peer.role === 'clinician') this.host ||= peer.id;
    this.writeName(tile, screen, name);
    write(find('.initials', tile), initials(name));
    const dark = peer.camera !== 'on';
    tile.toggleAttribute('data-dark', dark);
    write(find('[data-blank-words]', tile), dark ? this.words.say(`blank.camera_${peer.camera}`) : '');
    find('[data-muted]', tile).hidden = peer.microphone === 'on';
    const words = this.interruption(peer);
    const line = find('[data-words]', tile);
    write(line, words);
    line.hidden = !words;
    for (const place of this.devicesOf(peer.id)) this.writeDevice(place, name);
  }

  /**
   * A device of theirs beside their browser sends this now; null: nothing any more.
   *
   * @param {string} peerId
   * @param {string} source
   * @param {MediaStream | null} stream
   */
  drawDevice(peerId, source, stream) {
    if (stream === null) this.discard(keyOf(peerId, source));
    else {
      const place = this.place(peerId, source);
      place.screen.show(stream);
      place.tile.toggleAttribute('data-dark', stream.getVideoTracks().length === 0);
      find('[data-muted]', place.tile).hidden = true;
    }
    for (const place of this.devicesOf(peerId)) this.writeDevice(place, this.nameOf(peerId));
  }

  /**
   * What keeps this person from being seen and heard now, in words; '' when nothing does.
   *
   * @param {import('../../rtc/peer.js').Peer} peer
   */
  interruption(peer) {
    const name = this.personName(peer);
    if (this.untrusted.has(peer.id)) return this.words.say('call.peer_untrusted', { name });
    if (peer.connection === 'reconnecting') return this.words.say('call.peer_reconnecting', { name });
    if (peer.media === 'connecting') return this.words.say('call.peer_connecting', { name });
    if (peer.media === 'interrupted') return this.words.say('call.peer_interrupted', { name });
    if (peer.media === 'failed') return this.words.say('call.peer_failed', { name });
    if (peer.microphone === 'interrupted') return this.words.say('call.peer_microphone_taken', { name });
    return '';
  }

  /**
   * The name on a tile, also of somebody who has just gone.
   *
   * @param {string} id
   */
  nameOf(id) {
    return this.places.get(id)?.tile.querySelector('[data-name]')?.textContent ?? '';
  }

  /**
   * Who speaks, the loudest first.
   *
   * @param {readonly string[]} participants
   */
  hearSpeakers(participants) {
    this.floor.hear(participants.filter((id) => this.places.has(id)), performance.now());
    this.settleFloor();
  }

  /** Everybody who has a tile. */
  get people() {
    return [...this.places.values()].flatMap(({ peerId, source }) => (source === '' ? peerId : []));
  }

  /** @param {string} id */
  remove(id) {
    for (const { source } of this.devicesOf(id)) this.discard(keyOf(id, source));
    this.discard(id);
    this.untrusted.delete(id);
    this.floor.drop(id);
    if (this.host === id) this.host = '';
    this.arrange();
  }

  clear() {
    for (const id of this.people) this.remove(id);
  }

  /** From within a click: let everybody be heard. */
  async hear() {
    this.dispatchEvent(new Event('played'));
    for (const { screen } of this.places.values()) await screen.hear();
  }

  // -- places -----------------------------------------------------------------------------------------------------------

  /**
   * @param {string} peerId
   * @param {string} source
   * @returns {Place}
   */
  place(peerId, source) {
    const key = keyOf(peerId, source);
    const known = this.places.get(key);
    if (known) return known;
    const tile = copy('tile');
    tile.dataset.place = key;
    this.words.render(tile);
    const screen = new Screen(/** @type {HTMLVideoElement} */ (find('video', tile)), key);
    screen.addEventListener('shape', () => tile.toggleAttribute('data-wide', screen.element.videoWidth > screen.element.videoHeight));
    screen.addEventListener('blocked', () => this.dispatchEvent(new Event('blocked')));
    const place = { peerId, source, tile, screen };
    this.places.set(key, place);
    this.root.append(tile);
    this.observer.observe(tile);
    this.arrange();
    return place;
  }

  /** @param {string} key */
  discard(key) {
    const place = this.places.get(key);
    if (!place) return;
    this.observer.unobserve(place.tile);
    place.screen.close();
    place.tile.remove();
    this.places.delete(key);
    this.arrange();
  }

  /** Their tiles beside the one of their browser. @param {string} peerId */
  devicesOf(peerId) {
    return [...this.places.values()].filter((place) => place.peerId === peerId && place.source !== '');
  }

  /** How many there are, and who is large where that matters. */
  arrange() {
    this.root.dataset.count = String(Math.min(this.places.size, MANY));
    const people = this.people;
    const large = [this.floor.holder ?? '', this.host, people[0] ?? ''].find((id) => this.places.has(id));
    for (const [key, { tile, peerId, source }] of this.places) {
      tile.toggleAttribute('data-large', key === large);
      tile.toggleAttribute('data-speaking', source === '' && peerId === this.floor.holder && people.length > 1);
    }
  }

  settleFloor() {
    clearTimeout(this.floorTimer);
    const waitMs = this.floor.settle(performance.now());
    if (waitMs !== null) this.floorTimer = setTimeout(() => this.settleFloor(), waitMs);
    this.arrange();
  }

  /** Say how large a picture is. @param {string} key */
  measure(key) {
    const place = this.places.get(key);
    if (!place) return;
    const { peerId, source, tile } = place;
    const scale = globalThis.devicePixelRatio || 1;
    const seen = !document.hidden && tile.clientWidth > 0;
    const size = seen ? { width: tile.clientWidth * scale, height: tile.clientHeight * scale } : null;
    this.dispatchEvent(new CustomEvent('size', { detail: { peerId, source, size } }));
  }

  /** @param {{name: string, role: string}} person */
  personName(person) {
    return person.name || this.words.say(`role.${person.role}`);
  }

  /** @param {HTMLElement} tile @param {Screen} screen @param {string} name */
  writeName(tile, screen, name) {
    write(find('[data-name]', tile), name);
    screen.element.setAttribute('aria-label', this.words.say('call.picture_of', { name }));
  }

  /** @param {Place} place @param {string} person */
  writeDevice({ peerId, source, tile, screen }, person) {
    const number = this.devicesOf(peerId).findIndex((place) => place.source === source) + 2;
    this.writeName(tile, screen, this.words.say('call.device', { name: person, number }));
    write(find('.initials', tile), initials(person));
  }
}

/** @param {string} peerId @param {string} source */
function keyOf(peerId, source) {
  return source === '' ? peerId : `${peerId}/${source}`;
}
