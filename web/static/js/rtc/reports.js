/**
 * How each direct connection fares, as the server is told: every 2 s, and at once when it dies or comes back. Sans-IO.
 *
 * The figures are those of the last 2 s, not averages: the server has its own patience (server/signalling/topology.py).
 */

import { readReport } from './stats.js';

/** @import { PathReport } from './messages.js' */
/** @import { Counters } from './stats.js' */

const PERIOD_MS = 2000;
/** Before it was ever alive: the server waits three seconds from the first word, and counts them when it hears another. */
const BEGINNING_PERIOD_MS = 1000;

/** Checks are sent every 2.5 s (libwebrtc) to 5 s (RFC 7675); two of them may get lost. */
const ANSWER_WITHIN_MS = 11_000;

/** @typedef {{counters: Counters, before: Counters, answeredAt: number}} Facts `before`: at the last report */

export class PathReports {
  /** @type {WeakMap<RTCPeerConnection, Facts>} */
  #facts = new WeakMap();
  /** What was said of each peer. @type {Map<string, {alive: boolean, relayAlive: boolean, at: number, lived: boolean}>} */
  #said = new Map();

  /** @param {RTCPeerConnection} connection @param {RTCStatsReport} report @param {number} now */
  sample(connection, report, now) {
    const counters = readReport(report);
    const facts = this.#facts.get(connection);
    if (facts === undefined) {
      this.#facts.set(connection, { counters, before: counters, answeredAt: now });
    } else {
      if (counters.answers === null || counters.answers !== facts.counters.answers) facts.answeredAt = now;
      facts.counters = counters;
    }
  }

  /**
   * Whether a connection that carries nothing is there all the same: somebody answers.
   *
   * @param {RTCPeerConnection | null} connection
   * @param {number} diedAt only an answer after this counts
   * @param {number} now
   */
  answersSince(connection, diedAt, now) {
    const answeredAt = (connection && this.#facts.get(connection)?.answeredAt) ?? -Infinity;
    return answeredAt > diedAt && now - answeredAt <= ANSWER_WITHIN_MS;
  }

  /** Whether the other end has answered a check. @param {RTCPeerConnection | null} connection */
  answers(connection) {
    return this.#rttMs(connection) !== null;
  }

  /**
   * The report that is due, if one is.
   *
   * @param {string} to
   * @param {RTCPeerConnection | null} connection
   * @param {RTCPeerConnection | null} relay
   * @param {boolean} alive
   * @param {boolean} relayAlive
   * @param {number} now
   * @returns {PathReport | null}
   */
  due(to, connection, relay, alive, relayAlive, now) {
    const said = this.#said.get(to);
    const lived = alive || (said?.lived ?? false);
    const same = said?.alive === alive && said.relayAlive === relayAlive;
    if (same && now - said.at < (lived ? PERIOD_MS : BEGINNING_PERIOD_MS)) return null;
    this.#said.set(to, { alive, relayAlive, at: now, lived });
    const facts = connection ? this.#facts.get(connection) : undefined;
    const rttMs = this.#rttMs(connection);
    const relayRttMs = this.#rttMs(relay);
    const route = facts?.counters.route;
    /** @type {PathReport} */
    const report = { type: 'pathReport', to, alive };
    if (facts) report.loss = lossSince(facts);
    if (rttMs !== null) report.rttMs = rttMs;
    if (route?.local === 'relay' || route?.remote === 'relay') report.turn = true;
    if (relayRttMs !== null) report.relayRttMs = relayRttMs;
    if (!relayAlive) report.relayAlive = false;
    return report;
  }

  /** The server did not hear it: say it again at the next look. @param {string} to */
  unsaid(to) {
    this.#said.delete(to);
  }

  /** @param {RTCPeerConnection | null} connection */
  #rttMs(connection) {
    const rttMs = (connection && this.#facts.get(connection)?.counters.rttMs) ?? null;
    return rttMs === null ? null : Math.min(60_000, Math.round(rttMs * 10) / 10);
  }
}

/** The worse of both directions, 0 to 1; the next report counts from here. @param {Facts} facts */
function lossSince(facts) {
  const { counters, before } = facts;
  facts.before = counters;
  const lost = Math.max(0, counters.packetsLost - before.packetsLost);
  const received = Math.max(0, counters.packetsReceived - before.packetsReceived);
  const sentLoss = counters.sentLossAt > before.sentLossAt ? counters.sentLoss : 0; // of a path that carries nothing, the last word is old
  return Math.min(1, Math.max(lost / (lost + received || 1), sentLoss));
}
