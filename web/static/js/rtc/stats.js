/**
 * The quality of the path to each peer, in words, from `getStats` every 2 s. Spec: W3C Identifiers for WebRTC's Statistics API.
 *
 *     report ──read()──→ counters ──differences──→ loss, rtt ──averaged──→ thresholds with hysteresis ──→ good | limited | bad
 *                                  └── no bytes for 3 s although they send ─────────────────────────────→ lost
 */

/**
 * @import { Peer } from './peer.js'
 * @import { Platform } from './platform.js'
 */

/** @typedef {'good' | 'limited' | 'bad' | 'lost'} Level */

/**
 * Statistics of the connection by which somebody is received, and which tracks in them are theirs; undefined: all of them.
 * @typedef {{connection: RTCPeerConnection, report: RTCStatsReport, tracks: Set<string> | undefined}} Received
 */

/**
 * @typedef {object} Quality
 * @property {Level} level
 * @property {number | null} rttMs averaged; null until known
 * @property {number} loss averaged, the worse of both directions, 0 to 1
 * @property {number} framesDecoded since the connection was made
 * @property {number} audioLevel of what is received, 0 to 1
 * @property {Route | null} route
 */

/**
 * The candidate pair in use.
 * @typedef {{local: string, remote: string, protocol: string, relayProtocol: string}} Route
 */

/**
 * @typedef {object} Counters
 * @property {number} packetsReceived
 * @property {number} packetsLost
 * @property {number} bytesReceived
 * @property {number} framesDecoded
 * @property {number} audioLevel
 * @property {number} sentLoss fraction, as the other end reports it
 * @property {number} sentLossAt when it was reported last; it says nothing about later
 * @property {number | null} rttMs
 * @property {number | null} answers grows with every check that the other end answers; null where the browser does not count them
 * @property {Route | null} route
 */

const PERIOD_MS = 2000;
/** Jitsi says LOST after 3 s without media. */
const LOST_AFTER_MS = 3000;
/** Weight of the newest sample: about 10 s of memory, so that a word does not flicker. */
const WEIGHT = 0.35;

/** Where the word changes: pre-call verdicts of Daily. @type {readonly {level: 'limited' | 'bad', loss: number, rttMs: number}[]} */
const THRESHOLDS = [
  { level: 'bad', loss: 0.1, rttMs: 600 },
  { level: 'limited', loss: 0.05, rttMs: 300 },
];
/** A better word needs to be this far inside its range. */
const HYSTERESIS = 0.8;

/** Ask every peer for its statistics, in turn with the clock. */
export class StatsPoller {
  #platform;
  #peers;
  #stats;
  #onQuality;
  /** @type {WeakMap<Peer, QualityMeter>} */
  #meters = new WeakMap();
  /** @type {number | undefined} */
  #timer;

  /**
   * @param {Platform} platform
   * @param {() => Iterable<Peer>} peers
   * @param {(peer: Peer) => Promise<Received> | null} stats of the path on which they are received
   * @param {(quality: Quality & {peerId: string}) => void} onQuality
   */
  constructor(platform, peers, stats, onQuality) {
    this.#platform = platform;
    this.#peers = peers;
    this.#stats = stats;
    this.#onQuality = onQuality;
  }

  /** Does nothing when it runs already. */
  start() {
    this.#timer ??= this.#platform.setTimeout(() => this.#tick(), PERIOD_MS);
  }

  stop() {
    this.#platform.clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  #tick() {
    for (const peer of this.#peers()) if (peer.media !== 'connecting') void this.#measure(peer);
    this.#timer = this.#platform.setTimeout(() => this.#tick(), PERIOD_MS);
  }

  /** @param {Peer} peer */
  async #measure(peer) {
    const answer = await this.#stats(peer);
    if (answer === null || this.#timer === undefined) return;
    let meter = this.#meters.get(peer);
    if (meter === undefined) this.#meters.set(peer, (meter = new QualityMeter()));
    const sends = peer.microphone === 'on' || peer.camera === 'on';
    this.#onQuality({ peerId: peer.id, ...meter.sample(readReport(answer.report, answer.tracks), sends, this.#platform.now(), answer.connection) });
  }
}

/** One peer's averages. Sans-IO: counters and time come in, a verdict goes out. */
export class QualityMeter {
  /** @type {Counters | null} */
  #before = null;
  /** Whose counters those are. @type {object | null} */
  #connection = null;
  #heardAt = -Infinity;
  #loss = 0;
  /** @type {number | null} */
  #rttMs = null;
  /** @type {Level} */
  #level = 'good';

  /**
   * @param {Counters} counters
   * @param {boolean} remoteSends whether the other end says that a device is on
   * @param {number} now milliseconds
   * @param {object | null} [connection] whose counters these are; each counts for itself
   * @returns {Quality}
   */
  sample(counters, remoteSends, now, connection = null) {
    const before = this.#before;
    // Fewer bytes: an RTCPeerConnection that was made anew, or a track that somebody else has now.
    const restarted = before === null || connection !== this.#connection || counters.bytesReceived < before.bytesReceived;
    this.#before = counters;
    this.#connection = connection;
    if (restarted || counters.bytesReceived > before.bytesReceived) this.#heardAt = now;
    if (!restarted) {
      const lost = Math.max(0, counters.packetsLost - before.packetsLost);
      const received = Math.max(0, counters.packetsReceived - before.packetsReceived);
      const loss = Math.max(lost / (lost + received || 1), counters.sentLoss);
      this.#loss += WEIGHT * (loss - this.#loss);
    }
    if (counters.rttMs !== null) this.#rttMs = this.#rttMs === null ? counters.rttMs : this.#rttMs + WEIGHT * (counters.rttMs - this.#rttMs);
    this.#level = remoteSends && now - this.#heardAt >= LOST_AFTER_MS ? 'lost' : this.#verdict();
    return {
      level: this.#level,
      rttMs: this.#rttMs === null ? null : Math.round(this.#rttMs),
      loss: this.#loss,
      framesDecoded: counters.framesDecoded,
      audioLevel: counters.audioLevel,
      route: counters.route,
    };
  }

  /** @returns {Level} */
  #verdict() {
    for (const { level, loss, rttMs } of THRESHOLDS) {
      const leaving = this.#level === level || (level === 'limited' && this.#level === 'bad');
      const scale = leaving ? HYSTERESIS : 1;
      if (this.#loss >= loss * scale || (this.#rttMs ?? 0) >= rttMs * scale) return level;
    }
    return 'good';
  }
}

/**
 * Sum up what the verdict needs. Firefox has no `transport` statistics: there the selected pair says so itself.
 *
 * @param {RTCStatsReport} report
 * @param {ReadonlySet<string>} [tracks] only these count as received; all by default
 * @returns {Counters}
 */
export function readReport(report, tracks) {
  /** @type {Counters} */
  const counters = { packetsReceived: 0, packetsLost: 0, bytesReceived: 0, framesDecoded: 0, audioLevel: 0, sentLoss: 0, sentLossAt: 0, rttMs: null, answers: null, route: null };
  /** @type {string | undefined} */
  let pairId;
  report.forEach((entry) => {
    if (entry.type === 'inbound-rtp') {
      if (tracks !== undefined && !tracks.has(entry.trackIdentifier)) return;
      counters.packetsReceived += entry.packetsReceived ?? 0;
      counters.packetsLost += entry.packetsLost ?? 0;
      counters.bytesReceived += entry.bytesReceived ?? 0;
      counters.framesDecoded += entry.framesDecoded ?? 0;
      counters.audioLevel = Math.max(counters.audioLevel, entry.audioLevel ?? 0);
    } else if (entry.type === 'remote-inbound-rtp') {
      counters.sentLoss = Math.max(counters.sentLoss, entry.fractionLost ?? 0);
      counters.sentLossAt = Math.max(counters.sentLossAt, entry.timestamp ?? 0);
      if (entry.roundTripTime !== undefined) counters.rttMs = entry.roundTripTime * 1000;
    } else if (entry.type === 'transport') {
      pairId = entry.selectedCandidatePairId;
    } else if (entry.type === 'candidate-pair' && entry.selected) {
      pairId ??= entry.id;
    }
  });
  const pair = pairId === undefined ? undefined : report.get(pairId);
  if (pair) {
    const local = report.get(pair.localCandidateId);
    const remote = report.get(pair.remoteCandidateId);
    counters.route = {
      local: local?.candidateType ?? '',
      remote: remote?.candidateType ?? '',
      protocol: local?.protocol ?? '',
      relayProtocol: local?.relayProtocol ?? '',
    };
    counters.answers = pair.responsesReceived ?? pair.lastPacketReceivedTimestamp ?? null;
    // Measured by every check; the reports of the other end may be seconds old.
    if (pair.currentRoundTripTime !== undefined) counters.rttMs = pair.currentRoundTripTime * 1000;
  }
  return counters;
}
