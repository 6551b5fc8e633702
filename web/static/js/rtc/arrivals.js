/**
 * What arrives and what leaves, from `getStats`: when each received track was last seen to go on, and at what rate video is sent.
 *
 * `muted` and `unmute` of a track do not tell: they follow the first packet or the signalling, a picture may stand still all the same.
 * So a sound is counted by its packets, a picture by its decoded frames. Sans-IO: reports and time come in.
 *
 * Spec: W3C Identifiers for WebRTC's Statistics API, `inbound-rtp` and `outbound-rtp`.
 */

/** Rates are taken over at least this long. */
const RATE_OVER_MS = 1000;

/** @typedef {{count: number, at: number}} Progress */

export class Arrivals {
  /** By track; a track that never went on is not here, or has `at` -Infinity. @type {WeakMap<MediaStreamTrack, Progress>} */
  #received = new WeakMap();
  /** @type {WeakMap<RTCPeerConnection, {bytes: number, at: number, bps: number}>} */
  #sent = new WeakMap();

  /**
   * @param {RTCPeerConnection} connection
   * @param {RTCStatsReport} report of it
   * @param {number} now milliseconds
   */
  sample(connection, report, now) {
    const tracks = new Map(connection.getTransceivers().map(({ receiver }) => [receiver.track.id, receiver.track]));
    let sentBytes = 0;
    report.forEach((entry) => {
      if (entry.type === 'outbound-rtp' && entry.kind === 'video') sentBytes += entry.bytesSent ?? 0;
      const track = entry.type === 'inbound-rtp' ? tracks.get(entry.trackIdentifier) : undefined;
      if (track) this.#count(track, (entry.kind === 'video' ? entry.framesDecoded : entry.packetsReceived) ?? 0, now);
    });
    this.#measure(connection, sentBytes, now);
  }

  /** How long ago this track was last seen to go on, in milliseconds; Infinity when never. @param {MediaStreamTrack | null} track @param {number} now */
  age(track, now) {
    return now - ((track && this.#received.get(track)?.at) ?? -Infinity);
  }

  /** Video sent through this connection, in bits per second; 0 until known. @param {RTCPeerConnection} connection */
  sentBps(connection) {
    return this.#sent.get(connection)?.bps ?? 0;
  }

  /** What this track brings from now on is somebody else's. @param {MediaStreamTrack} track */
  forget(track) {
    const known = this.#received.get(track);
    if (known) known.at = -Infinity;
  }

  /** @param {MediaStreamTrack} track @param {number} count @param {number} now */
  #count(track, count, now) {
    const known = this.#received.get(track);
    if (known === undefined) this.#received.set(track, { count, at: count > 0 ? now : -Infinity });
    else if (count !== known.count) Object.assign(known, { count, at: now });
  }

  /** @param {RTCPeerConnection} connection @param {number} bytes @param {number} now */
  #measure(connection, bytes, now) {
    const before = this.#sent.get(connection);
    if (before === undefined || bytes < before.bytes) this.#sent.set(connection, { bytes, at: now, bps: 0 });
    else if (now - before.at >= RATE_OVER_MS) this.#sent.set(connection, { bytes, at: now, bps: ((bytes - before.bytes) * 8000) / (now - before.at) });
  }
}
