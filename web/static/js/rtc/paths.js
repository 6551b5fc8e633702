/**
 * The two ways between the participants, directly and through the media server: on which of them we send, and which of them is shown.
 *
 *                    move                        everything that lives there arrives here        moved
 *     one path ───────────────→ sending on both ─────────────────────────────────────→ ready ───────────→ the other path
 *        ↑                         (the new one with at most 30 % of the rate)        new one shown      old one silent soon after
 *        └──────────────────────────────── moveCancelled ────────────────────────────────┘
 *
 * The server decides (server/signalling/topology.py); this side makes the new path before it breaks the old one, and says when it is ready.
 * What lives is read from statistics, several times a second while something changes and a few times otherwise: the same figures tell
 * the server how a direct connection fares, and at once when it dies. What is shown is chosen for each participant by `shown.js`: the
 * preferred path, unless nothing comes on it any more, so that a sudden death is survived without waiting for anybody.
 *
 * Above 500 lines, but one thing: which path is used for what, by one set of figures looked at together.
 */

import { Arrivals } from './arrivals.js';
import { KINDS } from './link.js';
import { Relay } from './relay.js';
import { PathReports } from './reports.js';
import { Shown } from './shown.js';
import { Wishes } from './wishes.js';

/**
 * @import { ClientMessage, MoveReason, Path, ServerMessage } from './messages.js'
 * @import { Kind, Peer } from './peer.js'
 * @import { RelayHost } from './relay.js'
 * @import { Size } from './wishes.js'
 */

/**
 * @typedef {Omit<RelayHost, 'onIncoming' | 'onState' | 'send'> & {
 *   peers: () => ReadonlyMap<string, Peer>,
 *   send: (message: ClientMessage) => boolean,
 *   onDevice: (peerId: string, source: string, track: MediaStreamTrack | null, stream: MediaStream | null) => void,
 *   onPath: () => void,
 * }} PathsHost
 */

/**
 * One move, for tests and for whoever looks into a call. Times are those of `platform.now`.
 * @typedef {{move: number, to: Path, reason: MoveReason, startedAt: number, readyAt: number | null, endedAt: number | null, moved: boolean}} MoveRecord
 */

/** Of the rate of the old path, while both are sent on. */
const OVERLAP_SHARE = 0.3;
/** No less than this: it crowds out nobody, and a picture that is allowed less does not move. */
const OVERLAP_BPS = 100_000;
/** A track goes on when it has since so long: one missed look in a hidden tab, where timers fire once a second. */
const GOES_ON_MS = 1000;
/**
 * A new path carries a track that has gone on for so long. A first key frame is no picture that moves: it may have spent the bits of the
 * next half second, at the rate that the new path begins with.
 * @type {Record<Kind, number>}
 */
const STEADY_MS = { audio: 100, video: 350 };
/** And its pictures come at this part of the pace of the old path's: after a key frame that was too large, an encoder leaves many out. */
const PACE_SHARE = 0.6;
/** After a reconnection, for the server to say again that the move under way still is: it does so in the same breath. */
const REPEAT_MS = 1000;
/** The media server brings nothing any more: sound and pictures of everybody stand still for so long. */
const RELAY_STANDS_STILL_MS = 2000;
/**
 * A sound that has just begun to come may wait longer before it is heard than that of the old path, and catches up soon. By more than this, the
 * change would be heard: what was just said comes once more. For so long it is waited for.
 */
const LAG_MS = 80;
const CATCH_UP_MS = 2500;
/** The old path is sent on for so long after the move: until the new picture stands on everybody's screen. */
const LINGER_MS = 1000;
/** Between two looks at the statistics: while something changes, while another path stands by, otherwise. */
const LOOK_CHANGING_MS = 120;
const LOOK_READY_MS = 350;
const LOOK_MS = 1000;
/** A look that comes later than this comes after a sleep of the whole page: what stood still meanwhile is not dead. */
const SLEPT_MS = 2500;
/** Statistics that take longer (a connection that is just being closed) are not waited for. */
const STATS_MS = 1000;
const HISTORY = 50;

export class Paths {
  #host;
  #relay;
  #arrivals = new Arrivals();
  #reports;
  #wishes;
  /** Which device of a participant is the main one. @type {Map<string, string>} */
  #mains = new Map();
  /** Other devices of participants, by `<participant>/<device>`. @type {Map<string, {peerId: string, source: string, shown: Shown}>} */
  #devices = new Map();
  /** Whose media each relayed track brought at last. @type {WeakMap<MediaStreamTrack, string>} */
  #owners = new WeakMap();

  /** @type {Path} */
  #path = 'direct';
  /** @type {MoveRecord | null} */
  #move = null;
  /** @type {MoveRecord[]} */
  #history = [];
  /** Sent on a little longer. @type {Path | null} */
  #lingering = null;
  /** @type {number | undefined} */
  #lingerTimer;
  /** While a move may be over without our knowing. @type {number | undefined} */
  #doubtTimer;
  /** @type {number | null} */
  #limitBps = null;

  /** When what should come directly last failed to come, by peer. @type {WeakMap<Peer, number>} */
  #died = new WeakMap();
  /** The same of the media server, of all peers. */
  #relayDiedAt = -Infinity;
  #running = false;
  #looking = false;
  #lookedAt = -Infinity;
  /** Before this, standing still is no sign of death: the page has slept. */
  #judgeFrom = -Infinity;
  /** @type {number | undefined} */
  #timer;

  /** @param {PathsHost} host */
  constructor(host) {
    this.#host = host;
    this.#reports = new PathReports();
    this.#wishes = new Wishes(host.platform, (wishes) => host.send({ type: 'wishes', wishes }));
    this.#relay = new Relay({
      ...host,
      onIncoming: () => this.assign(),
      onState: () => this.#onRelayState(),
    });
  }

  /** Where media goes, as the server said last. @returns {Path} */
  get path() {
    return this.#path;
  }

  /** The move that is under way; null when none is. @returns {Readonly<MoveRecord> | null} */
  get move() {
    return this.#move;
  }

  /** The last moves, the newest at the end. @returns {readonly MoveRecord[]} */
  get history() {
    return this.#history;
  }

  /** How the connection to the media server goes; null when there is none. */
  get relayed() {
    return this.#relay.connection === null ? null : this.#relay.state;
  }

  /** The path whose sound and picture are shown when both arrive. @returns {Path} */
  get preferred() {
    return this.#move?.readyAt != null ? this.#move.to : this.#path;
  }

  get sendsDirect() {
    return this.#sends('direct');
  }

  // -- driven by the client ---------------------------------------------------------------------------------------------

  /** Joined, or back: media goes this way; a move that is under way is told next. @param {Path} path */
  start(path) {
    const move = this.#move;
    if (move === null) this.#setPath(path);
    else if (move.to === path) this.#endMove(path, true);
    else this.#doubt();
    this.#running = true;
    this.#look(true);
  }

  /** Out of the conversation. */
  stop() {
    this.#running = false;
    const { platform } = this.#host;
    platform.clearTimeout(this.#timer);
    platform.clearTimeout(this.#lingerTimer);
    platform.clearTimeout(this.#doubtTimer);
    this.#move = this.#lingering = this.#limitBps = null;
    this.#path = 'direct';
    this.#relay.close();
  }

  /** The media server's end is gone with the server that we had: begin anew when it asks. */
  forgetRelay() {
    if (this.#move !== null) this.#endMove(this.#path, false); // another server counts its moves anew
    this.#relay.close();
    this.#apply();
  }

  /** We were away. @param {boolean} moved our network may be another */
  weAreBack(moved) {
    this.#relay.weAreBack(moved);
    this.#wishes.carry(new Map());
    this.assign();
  }

  /** @param {Kind} kind */
  setTrack(kind) {
    this.#relay.setTrack(kind);
  }

  /**
   * A message that is about paths.
   *
   * @param {ServerMessage} message
   * @returns {boolean} whether it was one
   */
  receive(message) {
    switch (message.type) {
      case 'relayWanted':
        this.#relay.want(message);
        break;
      case 'relayAnswer':
        void this.#relay.receiveAnswer(message);
        break;
      case 'encode':
        this.#relay.encode(message.rids);
        break;
      case 'move':
        this.#begin(message.move, message.to, message.reason);
        break;
      case 'moved':
        this.#endMove(message.path, true);
        break;
      case 'moveCancelled':
        this.#endMove(message.path, false);
        break;
      default:
        if (this.#changing()) this.#look(); // a hidden tab wakes up for messages, not for timers
        return false;
    }
    this.#look();
    return true;
  }

  /** The offer was refused. @param {string} code */
  refuse(code) {
    if (code === 'relay_untrusted') this.#relay.distrust();
    else this.#relay.refuse(code === 'not_permitted');
  }

  /**
   * How large a picture is shown.
   *
   * @param {string} peerId
   * @param {string} source '' for the participant's browser
   * @param {Size | null} size null: not at all
   */
  show(peerId, source, size) {
    this.#wishes.show(pictureOf(peerId, source), size);
  }

  /** Somebody is gone. @param {string} peerId */
  drop(peerId) {
    this.#mains.delete(peerId);
    this.#wishes.forget(pictureOf(peerId, ''));
    for (const [key, device] of this.#devices) if (device.peerId === peerId) this.#dropDevice(key, device);
  }

  /** Bring what the media server sends to the participants it belongs to; those that it knows before us follow when they join. */
  assign() {
    const peers = this.#host.peers();
    /** @type {Map<string, import('./wishes.js').Carried>} */
    const carried = new Map();
    /** @type {Map<string, Partial<Record<Kind, MediaStreamTrack>>>} */
    const byPicture = new Map();
    this.#chooseMains();
    for (const { mid, participant, kind, source, track } of this.#relay.incoming) {
      const device = deviceOf(source);
      const picture = pictureOf(participant, this.#mains.get(participant) === device ? '' : device);
      if (kind === 'video') carried.set(mid, { picture, source });
      byPicture.set(picture, { ...byPicture.get(picture), [kind]: track });
      const owner = `${participant}/${source}`;
      if (this.#owners.get(track) !== owner) this.#arrivals.forget(track);
      this.#owners.set(track, owner);
      if (picture !== pictureOf(participant, '') && !this.#devices.has(picture) && peers.has(participant)) {
        this.#devices.set(picture, { peerId: participant, source: device, shown: new Shown(this.#host.platform) });
      }
    }
    for (const peer of peers.values()) {
      for (const kind of KINDS) peer.setRelayed(kind, byPicture.get(pictureOf(peer.id, ''))?.[kind] ?? null);
    }
    for (const [picture, device] of this.#devices) {
      const tracks = byPicture.get(picture);
      if (tracks === undefined) this.#dropDevice(picture, device);
      else for (const kind of KINDS) device.shown.set(kind, 'relayed', tracks[kind] ?? null);
    }
    this.#wishes.carry(carried);
    this.review();
  }

  /** The main one is the participant's browser; of somebody who is here with devices alone, the first of them, for as long as it is there. */
  #chooseMains() {
    const { incoming } = this.#relay;
    for (const { participant, source } of incoming) {
      const main = this.#mains.get(participant);
      if (!incoming.some((section) => section.participant === participant && deviceOf(section.source) === main)) this.#mains.set(participant, deviceOf(source));
    }
    for (const { participant, source, device } of incoming) if (!device) this.#mains.set(participant, deviceOf(source));
  }

  /**
   * The statistics that tell how a participant is received, and which tracks in them are theirs.
   *
   * @param {Peer} peer
   * @returns {Promise<import('./stats.js').Received> | null}
   */
  stats(peer) {
    const relayed = this.preferred === 'relayed' || peer.connections.length === 0;
    const connection = relayed ? this.#relay.connection : peer.connections[0];
    if (!connection) return null;
    const tracks = relayed ? new Set(KINDS.flatMap((kind) => peer.shown.coming(kind, 'relayed')?.id ?? [])) : undefined;
    return connection.getStats().then((report) => ({ connection, report, tracks }));
  }

  /** Choose again what is shown of everybody. */
  review() {
    const now = this.#host.platform.now();
    /** @param {MediaStreamTrack} track */
    const goesOn = (track) => this.#arrivals.age(track, now) <= GOES_ON_MS;
    for (const peer of this.#host.peers().values()) peer.review(this.preferred, this.#relay.state, goesOn);
    for (const { peerId, source, shown } of this.#devices.values()) {
      for (const track of shown.review('relayed', goesOn)) this.#host.onDevice(peerId, source, track, shown.stream);
    }
  }

  // -- moves ------------------------------------------------------------------------------------------------------------

  /** @param {number} move @param {Path} to @param {MoveReason} reason */
  #begin(move, to, reason) {
    const startedAt = this.#host.platform.now();
    this.#host.platform.clearTimeout(this.#doubtTimer);
    const before = this.#move;
    if (before?.move === move && before.to === to) {
      if (before.readyAt !== null) this.#host.send({ type: 'moveReady', move }); // it may have been lost
      return;
    }
    if (before !== null) before.endedAt = startedAt;
    this.#host.log.info('move', { move, to, reason });
    this.#move = { move, to, reason, startedAt, readyAt: null, endedAt: null, moved: false };
    this.#history = [...this.#history, this.#move].slice(-HISTORY);
    // Nothing to be careful with when nothing gets through.
    this.#limitBps = reason === 'failure' ? null : Math.max(OVERLAP_BPS, Math.round(OVERLAP_SHARE * this.#sentBps()));
    this.#apply();
    this.#host.onPath();
    if (to === 'relayed' && this.#relay.connection !== null && this.#relay.state === 'failed') this.#fail();
  }

  /** We were away in the middle of a move: it goes on, if the server says it again. */
  #doubt() {
    const { platform } = this.#host;
    platform.clearTimeout(this.#doubtTimer);
    this.#doubtTimer = platform.setTimeout(() => this.#endMove(this.#path, false), REPEAT_MS);
  }

  /** What the path of now takes for our picture. */
  #sentBps() {
    const connections = this.#path === 'relayed' ? [this.#relay.connection] : [...this.#host.peers().values()].map((peer) => peer.connections[0]);
    return Math.max(0, ...connections.map((connection) => (connection ? this.#arrivals.sentBps(connection) : 0)));
  }

  /** @param {Path} path @param {boolean} moved */
  #endMove(path, moved) {
    const move = this.#move;
    this.#host.platform.clearTimeout(this.#doubtTimer);
    if (move !== null) Object.assign(move, { endedAt: this.#host.platform.now(), moved });
    this.#move = null;
    this.#limitBps = null;
    this.#host.log.info(moved ? 'moved' : 'move_cancelled', { path });
    this.#linger(moved && path !== this.#path ? this.#path : null);
    this.#setPath(path);
  }

  /** @param {Path | null} path */
  #linger(path) {
    const { platform } = this.#host;
    platform.clearTimeout(this.#lingerTimer);
    this.#lingering = path;
    if (path === null) return;
    this.#lingerTimer = platform.setTimeout(() => {
      this.#lingering = null;
      this.#apply();
    }, LINGER_MS);
  }

  /** @param {Path} path */
  #setPath(path) {
    this.#path = path;
    this.#apply();
    this.review();
    this.#host.onPath();
  }

  /** @param {Path} path */
  #sends(path) {
    return this.#path === path || this.#move?.to === path || this.#lingering === path;
  }

  /** Send where we should. */
  #apply() {
    /** @param {Path} path */
    const limit = (path) => (this.#path !== path && this.#move?.to === path ? this.#limitBps : null);
    void this.#relay.send(this.#sends('relayed'), limit('relayed'));
    for (const peer of this.#host.peers().values()) peer.send(this.#sends('direct'), limit('direct'));
  }

  /** Show the new path once all that lives on the old one arrives there too. */
  #advance() {
    const move = this.#move;
    if (move === null || move.readyAt !== null || !this.#isReady(move.to)) return;
    move.readyAt = this.#host.platform.now();
    this.review();
    this.#host.log.info('move_ready', { move: move.move, ms: Math.round(move.readyAt - move.startedAt) });
    this.#host.send({ type: 'moveReady', move: move.move });
  }

  /** @param {Path} to */
  #isReady(to) {
    const now = this.#host.platform.now();
    const from = to === 'direct' ? 'relayed' : 'direct';
    if (to === 'relayed' && !(this.#relay.state === 'connected' && this.#reports.answers(this.#relay.connection))) return false;
    for (const peer of this.#host.peers().values()) {
      if (to === 'direct' && peer.direct !== 'none' && peer.direct !== 'connected') return false;
      for (const kind of KINDS) {
        if (kind === 'video' && !this.#wishes.seen(pictureOf(peer.id, ''))) continue;
        const [before, next] = [peer.shown.coming(kind, from), peer.shown.coming(kind, to)];
        if (this.#arrivals.age(before, now) > GOES_ON_MS) continue;
        if (this.#arrivals.steadyMs(next) < STEADY_MS[kind]) return false;
        if (kind === 'audio' && this.#lags(before, next, now)) return false;
        if (kind === 'video' && this.#arrivals.pace(next) < PACE_SHARE * this.#arrivals.pace(before)) return false;
      }
    }
    return true;
  }

  /** Whether the sound of the new path is still too late. @param {MediaStreamTrack | null} before @param {MediaStreamTrack | null} next @param {number} now */
  #lags(before, next, now) {
    const [was, is] = [this.#arrivals.delayMs(before), this.#arrivals.delayMs(next)];
    if (was === null || is === null || this.#move === null || this.#move.reason === 'failure') return false;
    return is > was + LAG_MS && now - this.#move.startedAt < CATCH_UP_MS;
  }

  #fail() {
    if (this.#move === null || this.#move.to !== 'relayed' || this.#move.readyAt !== null) return;
    this.#host.send({ type: 'moveFailed', move: this.#move.move });
  }

  #onRelayState() {
    if (this.#relay.state === 'failed') this.#fail();
    if (this.#relay.state === 'connected') this.#apply();
    this.review();
  }

  // -- looking ----------------------------------------------------------------------------------------------------------

  /** Whether something is about to change: then every look counts. */
  #changing() {
    if (this.#move !== null) return true;
    for (const peer of this.#host.peers().values()) if (peer.keeps) return true;
    return false;
  }

  /** Look now, or soon. @param {boolean} [anew] the clock begins here */
  #look(anew = false) {
    const { platform } = this.#host;
    if (!this.#running || this.#looking) return;
    platform.clearTimeout(this.#timer);
    const period = this.#changing() ? LOOK_CHANGING_MS : this.#relay.connection !== null ? LOOK_READY_MS : LOOK_MS;
    const waitMs = anew ? period : Math.max(0, this.#lookedAt + period - platform.now());
    if (anew) this.#lookedAt = platform.now();
    this.#timer = platform.setTimeout(() => void this.#lookNow(), waitMs);
  }

  async #lookNow() {
    const { platform } = this.#host;
    if (this.#looking) return;
    this.#looking = true;
    const begunAt = platform.now();
    if (begunAt - this.#lookedAt > SLEPT_MS) this.#judgeFrom = begunAt + GOES_ON_MS;
    this.#lookedAt = begunAt;
    try {
      const peers = [...this.#host.peers().values()];
      const relay = this.#relay.connection;
      const connections = [...(relay === null ? [] : [relay]), ...peers.flatMap((peer) => peer.connections)];
      const late = new Promise((resolve) => platform.setTimeout(() => resolve(undefined), STATS_MS));
      await Promise.race([late, Promise.all(connections.map((connection) => this.#sample(connection)))]);
    } finally {
      this.#looking = false;
    }
    if (!this.#running) return;
    this.review();
    this.#advance();
    this.#report();
    this.#look();
  }

  /** @param {RTCPeerConnection} connection */
  async #sample(connection) {
    try {
      const report = await connection.getStats();
      const now = this.#host.platform.now();
      this.#arrivals.sample(connection, report, now);
      this.#reports.sample(connection, report, now);
    } catch (error) {
      this.#host.log.debug('stats_failed', { error }); // closed meanwhile
    }
  }

  /** Tell the server how the direct connections fare. */
  #report() {
    const now = this.#host.platform.now();
    const relayAlive = this.#isRelayAlive(now);
    for (const peer of this.#host.peers().values()) {
      const [connection] = peer.connections;
      const alive = this.#isAlive(peer, now);
      if (alive === null || (connection === undefined && alive)) continue;
      const message = this.#reports.due(peer.id, connection ?? null, this.#relay.connection, alive, relayAlive, now);
      if (message !== null && !this.#host.send(message)) this.#reports.unsaid(peer.id);
    }
  }

  /** Whether what should come directly does come; null when nothing can be said yet. @param {Peer} peer @param {number} now */
  #isAlive(peer, now) {
    const { direct } = peer;
    if (direct === 'none') return null;
    if (direct === 'connecting') return peer.connection === 'online' ? false : null; // the server has the patience (server/signalling/links.py)
    if (direct !== 'connected') return false;
    if (now < this.#judgeFrom) return true;
    if (!this.#expects(peer, 'direct')) return this.#reports.answersSince(peer.connections[0] ?? null, this.#died.get(peer) ?? -Infinity, now);
    const ages = KINDS.map((kind) => this.#arrivals.age(peer.shown.coming(kind, 'direct'), now));
    // What has never come is not dead, but on its way: the ICE state tells of that.
    const alive = ages.every((age) => age === Infinity) || ages.some((age) => age <= GOES_ON_MS);
    if (!alive) this.#died.set(peer, now);
    return alive;
  }

  /** Whether what should come through the media server does come, as far as can be said. @param {number} now */
  #isRelayAlive(now) {
    const { connection, state } = this.#relay;
    if (state === 'connecting' || now < this.#judgeFrom) return true;
    if (state !== 'connected') return false;
    const expected = [...this.#host.peers().values()].filter((peer) => this.#expects(peer, 'relayed'));
    const ages = expected.flatMap((peer) => KINDS.map((kind) => this.#arrivals.age(peer.shown.coming(kind, 'relayed'), now))).filter(Number.isFinite);
    if (ages.length === 0) return this.#relayDiedAt === -Infinity || this.#reports.answersSince(connection, this.#relayDiedAt, now);
    const alive = ages.some((age) => age <= RELAY_STANDS_STILL_MS);
    this.#relayDiedAt = alive ? -Infinity : now;
    return alive;
  }

  /** Whether something of theirs should come by a path. @param {Peer} peer @param {Path} path */
  #expects(peer, path) {
    return this.#path === path && peer.connection === 'online' && (peer.microphone === 'on' || peer.camera === 'on');
  }

  /** @param {string} picture @param {{peerId: string, source: string}} device */
  #dropDevice(picture, { peerId, source }) {
    this.#devices.delete(picture);
    this.#wishes.forget(picture);
    this.#host.onDevice(peerId, source, null, null);
  }
}

/** What names a picture: whose, and of which device. @param {string} peerId @param {string} source */
function pictureOf(peerId, source) {
  return source === '' ? peerId : `${peerId}/${source}`;
}

/** A source is named after the transport that brings it, which is one device: `<transport>:<mid>`. @param {string} source */
function deviceOf(source) {
  const end = source.lastIndexOf(':');
  return end < 0 ? source : source.slice(0, end);
}
