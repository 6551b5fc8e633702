/**
 * The connection to the media server: one RTCPeerConnection for what we send to everybody and what everybody sends to us.
 *
 * We always offer, when the server asks for it (`relayWanted`): first with our own sound and picture, then with as many receiving sections
 * as it needs; its answer says whose media each of them carries. Driven by `paths.js`, which decides when something is sent.
 *
 *     want() → offer → receiveAnswer() → connecting → connected ⇄ interrupted (ICE restart)
 *                ↑                                       └─ restarts do not help, or `fresh` ─→ failed ─→ a new connection, with back-off
 *                └──────────────────────────────────────────────────────────────────────────────────────────┘
 *
 * What works is kept: when another offer of a connection that was answered before is refused, the connection goes on as it is, and
 * offers again later. The refused offer is not taken back (a rollback ends incoming video, see negotiation.js) but replaced by the next.
 *
 * The server is ICE-lite: it learns our addresses from our checks, so that none are sent (RFC 8445 section 7.3.1.3). The camera has three
 * encodings from the first offer, because they cannot be added later; in a room of two only the full one is active.
 *
 * Spec: RFC 9429 section 5, RFC 8853 (simulcast), W3C WebRTC section 5.1 (`sendEncodings`).
 */

import { forwarded } from './codecs.js';
import { Encoder } from './encoder.js';
import { FIRST_CREDENTIALS_MS, KINDS, RESTART_CREDENTIALS_MS } from './link.js';
import { fits } from './signalling.js';

/**
 * @import { IceServer, RelayAnswer, RelayOffer, Rid, Section } from './messages.js'
 * @import { Log } from './log.js'
 * @import { Kind, MediaState } from './peer.js'
 * @import { Platform } from './platform.js'
 */

/**
 * @typedef {object} RelayHost
 * @property {Platform} platform
 * @property {Log} log
 * @property {() => boolean} receiveOnly we are an observer
 * @property {Readonly<Record<Kind, MediaStreamTrack | null>>} tracks ours, as they are now
 * @property {() => IceServer[]} iceServers
 * @property {(maxAgeMs: number) => Promise<IceServer[]>} freshIceServers
 * @property {() => boolean} online whether the server hears us
 * @property {(message: RelayOffer) => boolean} send
 * @property {() => void} suspectNetwork the link to the server may be dead as well
 * @property {() => void} onIncoming `incoming` is another
 * @property {() => void} onUntrusted who answers is not the media server that signalling named; told once, though it is tried again
 * @property {(state: MediaState) => void} onState `failed`: this connection is given up, another one follows
 */

/**
 * What one receiving section carries.
 * @typedef {Section & {track: MediaStreamTrack}} Incoming
 */

/** As for a direct connection (peer.js). */
const DISCONNECTED_MS = 1500;
const CONNECT_MS = 6000;
const RESTARTS_PER_CONNECTION = 2;
/** Waits before another connection is tried; the last one is repeated. */
const RETRY_MS = [500, 1000, 2000, 5000, 10_000];
/** The same when another offer on a connection that works was refused. */
const REFUSED_MS = [2000, 5000, 15_000, 60_000];
/** The same when who answers is not the media server: whoever stands in between stands there for a while. */
const UNTRUSTED_MS = [60_000, 120_000, 300_000];
/** Quarter, half and full (RFC 8853): Chromium wants the small ones first, and `f` only where the picture is large enough for three. */
const ENCODINGS = /** @type {const} */ ([
  { rid: 'q', scaleResolutionDownBy: 4 },
  { rid: 'h', scaleResolutionDownBy: 2 },
  { rid: 'f', scaleResolutionDownBy: 1 },
]);

export class Relay {
  #host;
  /** @type {RTCPeerConnection | null} */
  #connection = null;
  /** Names the connection to the server. */
  #id = '';
  /** @type {Partial<Record<Kind, RTCRtpTransceiver>>} */
  #own = {};
  /** @type {Encoder | null} */
  #encoder = null;
  #wanted = { audio: 0, video: 0 };
  #offerDue = false;
  #offering = false;
  #sending = false;
  /** @type {number | null} */
  #limitBps = null;
  /** @type {readonly Rid[]} */
  #rids = ['f'];
  /** @type {readonly Incoming[]} */
  #incoming = [];
  /** @type {MediaState} */
  #state = 'connecting';
  #restarts = 0;
  #failures = 0;
  /** Whether this connection was ever connected. */
  #lived = false;
  /** The offer that waits for its answer will not get one. */
  #offerRefused = false;
  #refusals = 0;
  /** How often, since something was last connected, somebody else answered than the media server. */
  #strangers = 0;
  /** @type {number | undefined} */
  #watchdog;
  /** @type {number | undefined} */
  #retryTimer;
  /** @type {Promise<string[]> | null} */
  #efficient = null;

  /** @param {RelayHost} host */
  constructor(host) {
    this.#host = host;
  }

  /** Null before the server wants one. */
  get connection() {
    return this.#connection;
  }

  /** @returns {MediaState} */
  get state() {
    return this.#state;
  }

  /** What arrives, as the last answer said. */
  get incoming() {
    return this.#incoming;
  }

  /**
   * The server wants an offer.
   *
   * @param {{audio: number, video: number, fresh?: boolean}} wanted receiving sections, at least
   */
  want({ audio, video, fresh = false }) {
    this.#wanted = { audio: Math.max(audio, this.#wanted.audio), video: Math.max(video, this.#wanted.video) };
    if (this.#strangers > 0 && this.#connection === null) return; // in time
    if (this.#connection === null || fresh) this.#open();
    else this.#offer();
  }

  /** @param {RelayAnswer} answer */
  async receiveAnswer({ connection: id, description, sections }) {
    const connection = this.#connection;
    if (connection === null || id !== this.#id || connection.signalingState !== 'have-local-offer') return;
    try {
      await connection.setRemoteDescription(description);
    } catch (error) {
      this.#host.log.warning('relay_answer_failed', { error });
      if (connection === this.#connection) this.#giveUp();
      return;
    }
    if (connection !== this.#connection) return;
    this.#refusals = 0;
    if (this.#state !== 'connected') this.#watch(CONNECT_MS);
    void this.#encoder?.apply();
    const tracks = new Map(connection.getTransceivers().map(({ mid, receiver }) => [mid, receiver.track]));
    this.#incoming = sections.flatMap((section) => {
      const track = tracks.get(section.mid);
      return track ? [{ ...section, track }] : [];
    });
    this.#host.onIncoming();
    if (this.#offerDue) this.#offer();
  }

  /** The server does not take our offer. @param {boolean} final another one would be refused as well */
  refuse(final) {
    const connection = this.#connection;
    if (connection === null || (this.#lived && connection.signalingState !== 'have-local-offer')) return;
    if (this.#lived) this.#keep();
    else this.#giveUp();
    if (final) this.#host.platform.clearTimeout(this.#retryTimer);
  }

  /** Who answers is not the media server that signalling named: said once, and tried again much later. */
  distrust() {
    if (this.#connection === null) return;
    if (this.#strangers === 0) this.#host.onUntrusted();
    this.#strangers += 1;
    this.#giveUp(UNTRUSTED_MS[Math.min(this.#strangers, UNTRUSTED_MS.length) - 1]);
  }

  /** Which encodings of the camera are watched. @param {readonly Rid[]} rids */
  encode(rids) {
    this.#rids = rids;
    void this.#encoder?.encode(rids);
  }

  /** Our track of this kind is another now. @param {Kind} kind */
  setTrack(kind) {
    void this.#own[kind]?.sender.replaceTrack(this.#outgoing(kind));
  }

  /**
   * Send our tracks through the media server, or only hold the connection.
   *
   * @param {boolean} sending
   * @param {number | null} limitBps of the picture
   */
  async send(sending, limitBps) {
    const limited = limitBps !== this.#limitBps;
    this.#limitBps = limitBps;
    if (limited) await this.#encoder?.limit(limitBps);
    if (sending === this.#sending) return;
    this.#sending = sending;
    for (const kind of KINDS) this.setTrack(kind);
  }

  /** We were away. @param {boolean} moved our network may be another */
  weAreBack(moved) {
    if (this.#connection === null) return;
    if (moved || this.#state !== 'connected') this.#restart();
    else this.#resend();
  }

  /** For good, or until `want` again. */
  close() {
    this.#host.platform.clearTimeout(this.#retryTimer);
    this.#drop();
    this.#state = 'connecting';
    this.#wanted = { audio: 0, video: 0 };
    this.#failures = this.#refusals = this.#strangers = 0;
    this.#sending = false;
    this.#limitBps = null;
    this.#rids = ['f'];
  }

  // -- the connection ---------------------------------------------------------------------------------------------------

  #open() {
    const { platform } = this.#host;
    platform.clearTimeout(this.#retryTimer);
    this.#drop();
    if (this.#state === 'connected') this.#setState('interrupted');
    const connection = new platform.RTCPeerConnection(this.#configuration(this.#host.iceServers()));
    this.#connection = connection;
    this.#id = platform.randomUUID();
    this.#restarts = 0;
    connection.onconnectionstatechange = connection.oniceconnectionstatechange = () => this.#onState(connection);
    if (!this.#host.receiveOnly()) this.#makeOwnSections(connection);
    this.#offer();
  }

  /** @param {RTCPeerConnection} connection */
  #makeOwnSections(connection) {
    const streams = [new this.#host.platform.MediaStream()]; // ties sound to picture for lip-sync
    const [audio, video] = [this.#outgoing('audio'), this.#outgoing('video')];
    this.#own.audio = connection.addTransceiver(audio ?? 'audio', { direction: 'sendonly', streams });
    const sendEncodings = ENCODINGS.map((encoding) => ({ ...encoding, active: this.#rids.includes(encoding.rid) }));
    this.#own.video = connection.addTransceiver(video ?? 'video', { direction: 'sendonly', streams, sendEncodings });
    for (const kind of KINDS) this.#nameCodecs(this.#own[kind], kind);
    this.#encoder = new Encoder(this.#own.video.sender, this.#host.log);
    void this.#encoder.encode(this.#rids);
    void this.#encoder.limit(this.#limitBps);
  }

  /** @param {RTCPeerConnection} connection */
  #makeReceivingSections(connection) {
    const present = { audio: 0, video: 0 };
    for (const section of connection.getTransceivers()) {
      if (Object.values(this.#own).includes(section)) continue;
      present[/** @type {Kind} */ (section.receiver.track.kind)] += 1;
    }
    const least = this.#host.receiveOnly() ? 1 : 0; // an offer needs a section
    const wanted = { audio: Math.max(this.#wanted.audio, least), video: this.#wanted.video };
    for (let pair = 0; pair < Math.max(wanted.audio, wanted.video); pair++) {
      for (const kind of KINDS) {
        if (pair >= present[kind] && pair < wanted[kind]) this.#nameCodecs(connection.addTransceiver(kind, { direction: 'recvonly' }), kind);
      }
    }
  }

  /** Only what the media server forwards, so that the offer stays small. @param {RTCRtpTransceiver | undefined} section @param {Kind} kind */
  #nameCodecs(section, kind) {
    const codecs = forwarded(kind, this.#host.platform.codecs(kind));
    if (codecs.length === 0) return;
    try {
      section?.setCodecPreferences?.(codecs);
    } catch (error) {
      this.#host.log.info('codecs_refused', { error }); // the offer is larger than it need be
    }
  }

  #drop() {
    const connection = this.#connection;
    this.#host.platform.clearTimeout(this.#watchdog);
    this.#connection = null;
    this.#own = {};
    this.#encoder = null;
    this.#offerDue = this.#offering = this.#offerRefused = this.#lived = false;
    this.#incoming = [];
    if (connection === null) return;
    connection.onconnectionstatechange = connection.oniceconnectionstatechange = null;
    connection.close();
    this.#host.onIncoming();
  }

  /** @param {IceServer[]} iceServers @returns {RTCConfiguration} */
  #configuration(iceServers) {
    return { iceServers: /** @type {RTCIceServer[]} */ (iceServers), bundlePolicy: 'max-bundle', rtcpMuxPolicy: 'require' };
  }

  // -- offers -----------------------------------------------------------------------------------------------------------

  /** Offer now, or as soon as the offer before is answered. */
  #offer() {
    this.#offerDue = true;
    if (!this.#offering) void this.#makeOffers();
  }

  async #makeOffers() {
    const connection = this.#connection;
    this.#offering = true;
    try {
      while (this.#offerDue && connection !== null && connection === this.#connection && this.#mayOffer(connection)) {
        this.#offerDue = false;
        const first = connection.localDescription === null;
        const iceServers = await this.#host.freshIceServers(first ? FIRST_CREDENTIALS_MS : RESTART_CREDENTIALS_MS);
        if (connection !== this.#connection) return;
        connection.setConfiguration(this.#configuration(iceServers));
        this.#makeReceivingSections(connection);
        this.#efficient ??= this.#host.platform.efficientCodecs();
        await this.#efficient;
        await connection.setLocalDescription();
        if (connection !== this.#connection) return;
        this.#offerRefused = false;
        await this.#resend();
      }
    } catch (error) {
      this.#host.log.warning('relay_offer_failed', { error });
      if (connection === this.#connection) this.#giveUp();
    } finally {
      if (connection === this.#connection) this.#offering = false;
    }
  }

  /** @param {RTCPeerConnection} connection */
  #mayOffer({ signalingState }) {
    return signalingState === 'stable' || (signalingState === 'have-local-offer' && this.#offerRefused);
  }

  /** Our offer was refused, the connection goes on; another offer follows. */
  #keep() {
    const { platform } = this.#host;
    const waitMs = REFUSED_MS[Math.min(this.#refusals, REFUSED_MS.length - 1)] ?? 0;
    this.#host.log.info('relay_offer_refused', { waitMs });
    this.#refusals += 1;
    this.#offerRefused = true;
    platform.clearTimeout(this.#retryTimer);
    this.#retryTimer = platform.setTimeout(() => this.#offer(), waitMs * (0.5 + platform.random() / 2));
  }

  /** Say the offer that waits for its answer, again if need be: twice does no harm. */
  async #resend() {
    const connection = this.#connection;
    const description = connection?.localDescription;
    if (connection?.signalingState !== 'have-local-offer' || description?.type !== 'offer' || this.#offerRefused) return;
    const efficient = (await this.#efficient) ?? [];
    if (connection !== this.#connection) return;
    const { sdp } = description;
    /** @type {RelayOffer} */
    const message = { type: 'relayOffer', connection: this.#id, description: { type: 'offer', sdp }, ...(efficient.length > 0 && { efficient }) };
    if (fits(JSON.stringify(message))) {
      this.#host.send(message);
    } else {
      this.#host.log.warning('relay_offer_too_large', { sections: connection.getTransceivers().length });
      this.refuse(false);
    }
  }

  // -- getting through --------------------------------------------------------------------------------------------------

  /** @param {RTCPeerConnection} connection */
  #onState(connection) {
    if (connection !== this.#connection) return;
    const { iceConnectionState: ice, connectionState } = connection;
    this.#host.log.debug('relay_state', { ice, connection: connectionState });
    if (connectionState === 'connected') {
      this.#restarts = this.#failures = this.#strangers = 0;
      this.#lived = true;
      this.#host.platform.clearTimeout(this.#watchdog);
      this.#setState('connected');
    } else if (connectionState === 'failed' && (ice === 'connected' || ice === 'completed')) {
      // DTLS: the certificate is not the one that the server's answer named (RFC 8827 section 6.5).
      if (this.#lived) this.#giveUp();
      else this.distrust();
    } else if (ice === 'disconnected' || ice === 'failed') {
      if (this.#state === 'connected') this.#setState('interrupted');
      this.#host.suspectNetwork();
      this.#watch(ice === 'failed' ? 0 : DISCONNECTED_MS);
    }
  }

  /** Act if nothing is connected by then. @param {number} ms */
  #watch(ms) {
    const { platform } = this.#host;
    platform.clearTimeout(this.#watchdog);
    this.#watchdog = platform.setTimeout(() => this.#onWatchdog(), ms);
  }

  #onWatchdog() {
    if (this.#restarts >= RESTARTS_PER_CONNECTION) return this.#giveUp();
    this.#watch(CONNECT_MS);
    if (!this.#host.online()) return; // being back is another occasion
    this.#restarts += 1;
    this.#restart();
  }

  #restart() {
    this.#host.log.info('relay_ice_restart');
    this.#connection?.restartIce();
    void this.#resend(); // an offer that waits is answered first, the restart follows
    this.#offer();
  }

  /** This connection will not do; another one follows. @param {number} [waitMs] */
  #giveUp(waitMs = RETRY_MS[Math.min(this.#failures, RETRY_MS.length - 1)] ?? 0) {
    const { platform } = this.#host;
    this.#failures += 1;
    this.#drop();
    this.#setState('failed');
    platform.clearTimeout(this.#retryTimer);
    this.#retryTimer = platform.setTimeout(() => this.#retry(), waitMs * (0.5 + platform.random() / 2));
  }

  #retry() {
    if (this.#host.online()) this.#open();
    else this.#retryTimer = this.#host.platform.setTimeout(() => this.#retry(), RETRY_MS[0] ?? 0);
  }

  /** @param {MediaState} state */
  #setState(state) {
    if (state === this.#state) return;
    this.#state = state;
    this.#host.onState(state);
  }

  /** @param {Kind} kind */
  #outgoing(kind) {
    return this.#sending ? this.#host.tracks[kind] : null;
  }
}
