/**
 * What one video sender may use: which encodings are active, and how many bits. Spec: W3C WebRTC section 5.2, `setParameters`.
 *
 * `relay.js` and `link.js` say what they want as often as they like; the browser gets it one change at a time.
 */

/**
 * @import { Rid } from './messages.js'
 * @import { Log } from './log.js'
 */

/** How a limit is shared by the encodings that are active; about what each needs beside the others. @type {Readonly<Record<string, number>>} */
const SHARES = { q: 0.1, h: 0.3, f: 0.6 };

/**
 * Bits per second of each encoding without a limit. Chromium's own ceilings for one of several encodings are far below those for the only
 * one (at 640x360 700 against 1700 kbit/s): the picture would be worse for going through the media server.
 * @type {Readonly<Record<string, number>>}
 */
const CEILINGS_BPS = { q: 150_000, h: 500_000, f: 2_500_000 };

export class Encoder {
  #sender;
  #log;
  /** Null: all. @type {readonly Rid[] | null} */
  #rids = null;
  /** Bits per second for all encodings together; null: as the browser sees fit. @type {number | null} */
  #limitBps = null;
  #stale = false;
  /** @type {Promise<void> | null} */
  #applying = null;

  /** @param {RTCRtpSender} sender @param {Log} log */
  constructor(sender, log) {
    this.#sender = sender;
    this.#log = log;
  }

  /**
   * Send these encodings and no others; those that the sender was not made with do not count.
   *
   * @param {readonly Rid[]} rids
   */
  encode(rids) {
    this.#rids = rids;
    return this.apply();
  }

  /** Send no more than this in all; null lifts the limit. @param {number | null} bps */
  limit(bps) {
    this.#limitBps = bps;
    return this.apply();
  }

  /** Hand on what is wanted; also after a negotiation, before which some browsers know no encodings. @returns {Promise<void>} when it is in force */
  apply() {
    this.#stale = true;
    this.#applying ??= this.#run().finally(() => (this.#applying = null));
    return this.#applying;
  }

  async #run() {
    while (this.#stale) {
      this.#stale = false;
      const parameters = this.#sender.getParameters();
      if (!parameters.encodings?.length) return;
      this.#change(/** @type {RTCRtpSendParameters & {degradationPreference?: string}} */ (parameters));
      try {
        await this.#sender.setParameters(parameters);
      } catch (error) {
        this.#log.info('parameters_refused', { error }); // a negotiation came between; it calls `apply` again
      }
    }
  }

  /** @param {RTCRtpSendParameters & {degradationPreference?: string}} parameters */
  #change(parameters) {
    const { encodings } = parameters;
    for (const encoding of encodings) {
      if (this.#rids !== null && encoding.rid) encoding.active = this.#rids.includes(/** @type {Rid} */ (encoding.rid));
    }
    const active = encodings.filter((encoding) => encoding.active !== false);
    const whole = active.reduce((sum, { rid }) => sum + (SHARES[rid ?? ''] ?? 1), 0);
    for (const encoding of encodings) {
      const ceilingBps = CEILINGS_BPS[encoding.rid ?? ''];
      if (this.#limitBps !== null) encoding.maxBitrate = Math.round((this.#limitBps * (SHARES[encoding.rid ?? ''] ?? 1)) / (whole || 1));
      else if (ceilingBps !== undefined) encoding.maxBitrate = ceilingBps;
      else delete encoding.maxBitrate;
    }
    // A limit lasts a second: a smaller picture would take several to grow again, so the encoder is to coarsen it instead.
    if (this.#limitBps === null) delete parameters.degradationPreference;
    else parameters.degradationPreference = 'maintain-resolution';
  }
}
