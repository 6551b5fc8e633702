/**
 * How large each received picture is shown, as the media server is told: it then sends no more than what can be seen.
 *
 * Sans-IO but for the delay: pages drag and turn, and say every size on the way.
 */

/**
 * @import { Rid, Wish } from './messages.js'
 * @import { Platform } from './platform.js'
 */

/** A window that is being dragged settles within this. */
const SETTLE_MS = 150;
/** Short side in pixels up to which an encoding is enough: of a 720 line camera, a fifth more than it has. @type {readonly {rid: Rid, pixels: number}[]} */
const ENOUGH = [
  { rid: 'q', pixels: 216 },
  { rid: 'h', pixels: 432 },
];

/** @typedef {{width: number, height: number}} Size in pixels of the screen */

/** @typedef {{picture: string, source: string}} Carried the source is another one after a reload at the other end */

/** @param {Size | null} size null: not to be seen @returns {Rid | null} */
export function ridFor(size) {
  if (size === null || size.width <= 0 || size.height <= 0) return null;
  const short = Math.min(size.width, size.height);
  return ENOUGH.find(({ pixels }) => short <= pixels)?.rid ?? 'f';
}

export class Wishes {
  #platform;
  #send;
  /** By whatever names a picture. @type {Map<string, Rid | null>} */
  #wanted = new Map();
  /** Which section carries which picture, out of which source. @type {Map<string, Carried>} */
  #sections = new Map();
  /** What the server was told, by section. @type {Map<string, Rid | null>} */
  #told = new Map();
  /** @type {number | undefined} */
  #timer;

  /** @param {Platform} platform @param {(wishes: Wish[]) => boolean} send whether it left */
  constructor(platform, send) {
    this.#platform = platform;
    this.#send = send;
  }

  /** A picture is shown this large. @param {string} picture @param {Size | null} size */
  show(picture, size) {
    const rid = ridFor(size);
    if (this.#wanted.get(picture) === rid && this.#wanted.has(picture)) return;
    this.#wanted.set(picture, rid);
    this.#platform.clearTimeout(this.#timer);
    this.#timer = this.#platform.setTimeout(() => this.#tell(), SETTLE_MS);
  }

  /** Whether a picture is to be seen, as far as is known. @param {string} picture */
  seen(picture) {
    return this.#wanted.get(picture) !== null;
  }

  /** The picture is gone. @param {string} picture */
  forget(picture) {
    this.#wanted.delete(picture);
  }

  /** The sections carry these pictures now; a wish is about one source. @param {ReadonlyMap<string, Carried>} sections by mid */
  carry(sections) {
    for (const [mid, { picture, source }] of this.#sections) {
      const now = sections.get(mid);
      if (now?.picture !== picture || now.source !== source) this.#told.delete(mid);
    }
    this.#sections = new Map(sections);
    this.#tell();
  }

  #tell() {
    this.#platform.clearTimeout(this.#timer);
    const wishes = [...this.#sections].flatMap(([mid, { picture }]) => {
      const rid = this.#wanted.get(picture);
      return rid === undefined || this.#told.get(mid) === rid ? [] : [{ mid, rid }];
    });
    if (wishes.length === 0 || !this.#send(wishes)) return;
    for (const { mid, rid } of wishes) this.#told.set(mid, rid);
  }
}
