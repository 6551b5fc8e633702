/**
 * What is shown of one source (a participant's browser, or another device of theirs): one sound and one picture, each from the best way
 * that it comes.
 *
 * The same sound may come directly, through the media server, and from the page load before a reload. The preferred way wins as soon
 * as it goes on; a way that has stopped loses to one that goes on; when nothing goes on, what is shown stays for as long as its way exists.
 *
 * A stream never loses a track: a media element whose stream changes its picture under it may stand still (Chromium). The first sound
 * and the first picture join the stream that is there; any change after that makes a new stream, to be played beside the old one until it
 * has a picture.
 */

/**
 * @import { Path } from './messages.js'
 * @import { Kind } from './peer.js'
 * @import { Platform } from './platform.js'
 */

/** @typedef {Path | 'before'} Way `before`: the direct connection of the page load before */

/** @type {readonly Kind[]} */
const KINDS = ['audio', 'video'];

export class Shown {
  #platform;
  #stream;
  /** @type {Record<Kind, Map<Way, MediaStreamTrack>>} */
  #ways = { audio: new Map(), video: new Map() };
  /** @type {Record<Kind, MediaStreamTrack | null>} */
  #tracks = { audio: null, video: null };

  /** @param {Platform} platform */
  constructor(platform) {
    this.#platform = platform;
    this.#stream = new platform.MediaStream();
  }

  /** Their sound and picture; another object once a track is replaced. */
  get stream() {
    return this.#stream;
  }

  /** @param {Kind} kind @returns {MediaStreamTrack | null} */
  track(kind) {
    return this.#tracks[kind];
  }

  /** @param {Kind} kind @param {Way} way @returns {MediaStreamTrack | null} */
  coming(kind, way) {
    return this.#ways[kind].get(way) ?? null;
  }

  /** By which way what is shown comes; null when nothing is. @param {Kind} kind @returns {Way | null} */
  way(kind) {
    for (const [way, track] of this.#ways[kind]) if (track === this.#tracks[kind]) return way;
    return null;
  }

  /** @param {Kind} kind @param {Way} way @param {MediaStreamTrack | null} track */
  set(kind, way, track) {
    if (track === null) this.#ways[kind].delete(way);
    else this.#ways[kind].set(way, track);
  }

  /** What came directly comes from the page load before, from now on. */
  supersede() {
    for (const kind of KINDS) {
      const direct = this.coming(kind, 'direct');
      if (direct !== null) this.set(kind, 'before', direct);
      this.set(kind, 'direct', null);
    }
  }

  /**
   * Choose again.
   *
   * @param {Path} preferred
   * @param {(track: MediaStreamTrack) => boolean} goesOn
   * @returns {MediaStreamTrack[]} those that were not shown before
   */
  review(preferred, goesOn) {
    /** @type {MediaStreamTrack[]} */
    const fresh = [];
    let replaced = false;
    for (const kind of KINDS) {
      const track = this.#choose(kind, preferred, goesOn);
      if (track === null || track === this.#tracks[kind]) continue;
      replaced ||= this.#tracks[kind] !== null;
      this.#tracks[kind] = track;
      fresh.push(track);
    }
    if (replaced) this.#stream = new this.#platform.MediaStream(KINDS.flatMap((kind) => this.#tracks[kind] ?? []));
    else for (const track of fresh) this.#stream.addTrack(track);
    return fresh;
  }

  /** @param {Kind} kind @param {Path} preferred @param {(track: MediaStreamTrack) => boolean} goesOn */
  #choose(kind, preferred, goesOn) {
    const shown = this.#tracks[kind];
    const ways = this.#ways[kind];
    /** @type {Way[]} */
    const order = [preferred, preferred === 'direct' ? 'relayed' : 'direct', 'before'];
    const coming = order.flatMap((way) => ways.get(way) ?? []);
    const stays = shown !== null && coming.includes(shown) ? shown : (coming[0] ?? shown);
    return coming.find(goesOn) ?? stays;
  }
}
