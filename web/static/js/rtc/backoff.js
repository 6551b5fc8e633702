/**
 * How long to wait before the next attempt, and how long to let an attempt hang: fast at first, then patient, spread at random.
 *
 * A network that comes back must be found within seconds, so in the first minute no wait is longer than 2 s and no attempt hangs
 * longer than one lost SYN costs. Later, a page left open on a dead network asks little of anybody.
 */

/** Waits between the starts of attempts, in milliseconds. A first failure is often a race with the network: retry at once. */
const EARLY_WAITS_MS = [0, 250, 500, 1000];
const WAIT_MS = 2000;
const LATE_WAIT_MS = 5000;
/** About one minute of attempts. */
const LATE_AFTER_ATTEMPTS = 30;

/** Longer than the first retransmission of a SYN (1 s, RFC 6298) and a slow handshake, short enough to try again soon. */
const HANG_MS = 2500;
/** A very slow network (1 s each way, five round trips to the welcome) must get through in the end. */
const HANGS_MS = [HANG_MS, HANG_MS, HANG_MS, HANG_MS, HANG_MS, 4000, 6000];
const MAX_HANG_MS = 10_000;

export class Backoff {
  #attempts = 0;
  #random;

  /** @param {() => number} [random] uniform in [0, 1) */
  constructor(random = Math.random) {
    this.#random = random;
  }

  /** Attempts since the last success. */
  get attempts() {
    return this.#attempts;
  }

  /** Count one more attempt. @returns {number} how long to let it hang, in milliseconds */
  begin() {
    return HANGS_MS[this.#attempts++] ?? MAX_HANG_MS;
  }

  /** How long to wait now, from the start of the attempt before, in milliseconds. */
  waitMs() {
    const longest = EARLY_WAITS_MS[Math.max(0, this.#attempts - 1)] ?? (this.#attempts < LATE_AFTER_ATTEMPTS ? WAIT_MS : LATE_WAIT_MS);
    // Between half and all of it: whoever lost the same server does not come back in the same instant.
    return longest * (0.5 + this.#random() / 2);
  }

  /** Start over: something succeeded, or the network changed. */
  reset() {
    this.#attempts = 0;
  }
}
