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

/** Seen to stand still for so long, a track has to prove itself anew. */
const PAUSE_MS = 600;

/** A pace is taken over about so long: half a dozen pictures of a camera in the dark. */
const PACE_OVER_MS = 400;

/**
 * `since`: it has gone on without a pause since then; Infinity when it does not. `looks`: counts of the last `PACE_OVER_MS`, the oldest first.
 * @typedef {{count: number, at: number, since: number, looks: {count: number, at: number}[]}} Progress
 */

/** Of a sound: how long what was played lately had waited in the jitter buffer; `waitedS` and `played` are the browser's sums. */
/** @typedef {{waitedS: number, played: number, delayMs: number | null}} Waiting */

export class Arrivals {
  /** By track; a track that never went on is not here, or has `at` -Infinity. @type {WeakMap<MediaStreamTrack, Progress>} */
  #received = new WeakMap();
  /** @type {WeakMap<MediaStreamTrack, Waiting>} */
  #waiting = new WeakMap();
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
      if (track && entry.kind === 'audio') this.#wait(track, entry.jitterBufferDelay ?? 0, entry.jitterBufferEmittedCount ?? 0);
      if (track) this.#count(track, (entry.kind === 'video' ? entry.framesDecoded : entry.packetsReceived) ?? 0, now);
    });
    this.#measure(connection, sentBytes, now);
  }

  /** How long ago this track was last seen to go on, in milliseconds; Infinity when never. @param {MediaStreamTrack | null} track @param {number} now */
  age(track, now) {
    return now - ((track && this.#received.get(track)?.at) ?? -Infinity);
  }

  /** For how long this track has gone on without a pause, in milliseconds; 0 when it does not. @param {MediaStreamTrack | null} track */
  steadyMs(track) {
    const known = track && this.#received.get(track);
    return known ? Math.max(0, known.at - known.since) : 0;
  }

  /** How many frames or packets a second this track has brought lately; 0 until known. @param {MediaStreamTrack | null} track */
  pace(track) {
    const looks = (track && this.#received.get(track)?.looks) ?? [];
    const [first, last] = [looks[0], looks.at(-1)];
    return first && last && last.at > first.at ? ((last.count - first.count) * 1000) / (last.at - first.at) : 0;
  }

  /** How long a sound waits in the jitter buffer before it is heard, in milliseconds; null until known. @param {MediaStreamTrack | null} track */
  delayMs(track) {
    return (track && this.#waiting.get(track)?.delayMs) ?? null;
  }

  /** Video sent through this connection, in bits per second; 0 until known. @param {RTCPeerConnection} connection */
  sentBps(connection) {
    return this.#sent.get(connection)?.bps ?? 0;
  }

  /** What this track brings from now on is somebody else's. @param {MediaStreamTrack} track */
  forget(track) {
    const known = this.#received.get(track);
    if (known) Object.assign(known, { at: -Infinity, since: Infinity, looks: [] });
  }

  /** @param {MediaStreamTrack} track @param {number} count @param {number} now */
  #count(track, count, now) {
    const known = this.#received.get(track);
    const looks = [...(known?.looks ?? []), { count, at: now }];
    while (looks.length > 2 && now - (looks[1]?.at ?? now) >= PACE_OVER_MS) looks.shift();
    if (known === undefined) {
      this.#received.set(track, { count, at: count > 0 ? now : -Infinity, since: count > 0 ? now : Infinity, looks });
      return;
    }
    known.looks = looks;
    if (count !== known.count) Object.assign(known, { count, at: now, since: Math.min(known.since, now) });
    else if (now - known.at > PAUSE_MS) known.since = Infinity;
  }

  /** @param {MediaStreamTrack} track @param {number} waitedS @param {number} played */
  #wait(track, waitedS, played) {
    const known = this.#waiting.get(track);
    const delayMs = known && played > known.played ? ((waitedS - known.waitedS) * 1000) / (played - known.played) : (known?.delayMs ?? null);
    this.#waiting.set(track, { waitedS, played, delayMs });
  }

  /** @param {RTCPeerConnection} connection @param {number} bytes @param {number} now */
  #measure(connection, bytes, now) {
    const before = this.#sent.get(connection);
    if (before === undefined || bytes < before.bytes) this.#sent.set(connection, { bytes, at: now, bps: 0 });
    else if (now - before.at >= RATE_OVER_MS) this.#sent.set(connection, { bytes, at: now, bps: ((bytes - before.bytes) * 8000) / (now - before.at) });
  }
}
