// @ts-check
/**
 * Who has the floor: whose picture is the large one where only one is. Calm on purpose: a cough takes nobody's place, and two people who
 * speak at once do not chase each other. Without DOM: time comes in.
 */

/** Somebody has to be the loudest for so long. */
const HOLD_MS = 1500;
/** After a change nothing changes for so long. */
const REST_MS = 4000;

export class Floor {
  /** @type {string | null} */
  #holder = null;
  /** @type {string | null} */
  #loudest = null;
  #loudestSince = 0;
  #changedAt = -Infinity;

  /** Whoever has the floor; null while nobody has spoken. */
  get holder() {
    return this.#holder;
  }

  /**
   * The media server has heard them.
   *
   * @param {readonly string[]} speakers the loudest first
   * @param {number} now milliseconds
   */
  hear(speakers, now) {
    const loudest = speakers[0] ?? null;
    if (loudest !== this.#loudest) {
      this.#loudest = loudest;
      this.#loudestSince = now;
    }
    this.settle(now);
  }

  /**
   * Time has passed.
   *
   * @param {number} now milliseconds
   * @returns {number | null} in how many milliseconds to ask again; null: not before somebody else is heard
   */
  settle(now) {
    if (this.#loudest === null || this.#loudest === this.#holder) return null;
    const at = this.#holder === null ? now : Math.max(this.#loudestSince + HOLD_MS, this.#changedAt + REST_MS);
    if (now < at) return at - now;
    this.#holder = this.#loudest;
    this.#changedAt = now;
    return null;
  }

  /** They are gone. @param {string} id */
  drop(id) {
    if (this.#loudest === id) this.#loudest = null;
    if (this.#holder === id) this.#holder = null;
  }
}
