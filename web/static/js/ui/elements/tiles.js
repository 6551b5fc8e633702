// @ts-check
/** The pictures of the others: one tile each, up to four, in a grid that follows the number of people. */

import { all, copy, find, initials, write } from '../dom.js';

/** Dispatches `blocked` when the browser refuses to play sound before a click, `played` when it plays again. */
export class Tiles extends EventTarget {
  /**
   * @param {HTMLElement} root
   * @param {import('../i18n.js').Words} words
   */
  constructor(root, words) {
    super();
    this.root = root;
    this.words = words;
    /** @type {Map<string, HTMLElement>} */
    this.tiles = new Map();
    /** Peers whose browser is not the one that the server vouched for. @type {Set<string>} */
    this.untrusted = new Set();
  }

  /**
   * Draw one person, new or changed.
   *
   * @param {import('../../rtc/peer.js').Peer} peer
   */
  draw(peer) {
    let tile = this.tiles.get(peer.id);
    if (!tile) {
      tile = copy('tile');
      this.words.render(tile);
      const picture = /** @type {HTMLVideoElement} */ (find('video', tile));
      picture.dataset.peer = peer.id;
      const shape = tile;
      picture.addEventListener('resize', () => shape.toggleAttribute('data-wide', picture.videoWidth > picture.videoHeight));
      this.tiles.set(peer.id, tile);
      this.root.append(tile);
    }
    const video = /** @type {HTMLVideoElement} */ (find('video', tile));
    if (peer.stream && video.srcObject !== peer.stream) {
      video.srcObject = peer.stream;
      void this.play(video);
    }
    const name = peer.name || this.words.say(`role.${peer.role}`);
    write(find('[data-name]', tile), name);
    write(find('.initials', tile), initials(name));
    video.setAttribute('aria-label', this.words.say('call.picture_of', { name }));
    const dark = peer.camera !== 'on';
    tile.toggleAttribute('data-dark', dark);
    write(find('[data-blank-words]', tile), dark ? this.words.say(`blank.camera_${peer.camera}`) : '');
    find('[data-muted]', tile).hidden = peer.microphone === 'on';
    const words = this.interruption(peer);
    const line = find('[data-words]', tile);
    write(line, words);
    line.hidden = !words;
    this.root.dataset.count = String(this.tiles.size);
  }

  /**
   * What keeps this person from being seen and heard now, in words; '' when nothing does.
   *
   * @param {import('../../rtc/peer.js').Peer} peer
   */
  interruption(peer) {
    const name = peer.name || this.words.say(`role.${peer.role}`);
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
    return this.tiles.get(id)?.querySelector('[data-name]')?.textContent ?? '';
  }

  /** @param {string} id */
  remove(id) {
    this.tiles.get(id)?.remove();
    this.tiles.delete(id);
    this.untrusted.delete(id);
    this.root.dataset.count = String(this.tiles.size);
  }

  clear() {
    for (const id of [...this.tiles.keys()]) this.remove(id);
  }

  /**
   * Play with sound; when that is refused, play the picture and ask for a click.
   *
   * @param {HTMLVideoElement} video
   */
  async play(video) {
    try {
      await video.play();
    } catch (error) {
      if (!(error instanceof DOMException) || error.name !== 'NotAllowedError') return; // a newer stream took over
      video.muted = true;
      void video.play().catch(() => undefined);
      this.dispatchEvent(new Event('blocked'));
    }
  }

  /** From within a click: let everybody be heard. */
  async hear() {
    this.dispatchEvent(new Event('played'));
    for (const video of /** @type {HTMLVideoElement[]} */ (all('video', this.root))) {
      video.muted = false;
      await this.play(video);
    }
  }
}
