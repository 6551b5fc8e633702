/**
 * One other participant: their place in the conversation, and the RTCPeerConnection to them, through reloads and network changes.
 *
 * A `Peer` lasts as long as the participant is in the conversation; a `Link` (one RTCPeerConnection) as long as the page loads at both
 * ends do. When the other end reloads, a new link is made and the old picture stays until the new one has frames. The impolite
 * side makes all the offers (see negotiation.js): it restarts ICE, and makes a new link when restarts do not help. The polite side follows.
 * When it was the one that moved, or when nothing happens, it asks by opening a new socket to the server, which tells the impolite side.
 */

import { Negotiation } from './negotiation.js';

/**
 * @import { Candidate, Describe, Distrust, IceCandidate, IceServer, Peer as PeerInfo, Role, SessionDescription, TrackState } from './messages.js'
 * @import { Log } from './log.js'
 * @import { Platform } from './platform.js'
 */

/** @typedef {'audio' | 'video'} Kind */
/** @typedef {'connecting' | 'connected' | 'interrupted' | 'failed'} MediaState */

/** Why media failed: nothing gets through, or the other end is not the one that the server vouched for (RFC 8827 section 6.5). */
/** @typedef {'' | 'unreachable' | 'untrusted'} MediaReason */

/**
 * What a peer needs from the client.
 * @typedef {object} PeerHost
 * @property {Platform} platform
 * @property {Log} log
 * @property {boolean} receiveOnly we are an observer
 * @property {Readonly<Record<Kind, MediaStreamTrack | null>>} tracks ours, as they are now
 * @property {() => IceServer[]} iceServers
 * @property {(maxAgeMs: number) => Promise<IceServer[]>} freshIceServers
 * @property {() => boolean} online whether the server hears us
 * @property {(message: Describe | Candidate | Distrust) => boolean} send
 * @property {() => void} suspectNetwork the link to the server may be dead as well
 * @property {() => void} askForRestart have the other end told that we are here, perhaps elsewhere
 * @property {(track: MediaStreamTrack) => void} onTrack
 * @property {(state: MediaState, reason: MediaReason) => void} onMedia
 */

/** libwebrtc says `disconnected` after 2.5 s without an answer; a passing shadow of Wi-Fi heals by itself within this. */
const DISCONNECTED_MS = 1500;
/** Offer, answer, checks and DTLS over a bad mobile network; libwebrtc itself says `failed` only after 15 s. */
const CONNECT_MS = 6000;
/** The polite side waits this much longer, so that mostly one side acts. */
const POLITE_MS = 1500;
/** Restarts that do not help, before a new RTCPeerConnection is tried. */
const RESTARTS_PER_LINK = 2;
/** TURN credentials live for 600 s. A first negotiation is not made slower for the sake of younger ones; a restart takes new ones. */
const FIRST_CREDENTIALS_MS = 240_000;
const RESTART_CREDENTIALS_MS = 20_000;
/** By then the old picture of a peer who reloaded is no longer worth keeping. */
const KEEP_PICTURE_MS = 10_000;

export class Peer {
  #info;
  #host;
  #stream;
  /** @type {Link | null} */
  #link = null;
  /** The link of the page load before, for its picture. @type {Link | null} */
  #previous = null;
  /** @type {number | undefined} */
  #previousTimer;
  /** @type {number | undefined} */
  #watchdog;
  /** @type {MediaState} */
  #media = 'connecting';
  /** Since something was last connected. */
  #restarts = 0;

  /** @param {PeerInfo} info @param {PeerHost} host */
  constructor(info, host) {
    this.#info = info;
    this.#host = host;
    this.#stream = new host.platform.MediaStream();
  }

  get id() {
    return this.#info.id;
  }

  /** @returns {Role} */
  get role() {
    return this.#info.role;
  }

  get name() {
    return this.#info.name;
  }

  /** Whether the server hears them. @returns {'online' | 'reconnecting'} */
  get connection() {
    return this.#info.connection;
  }

  /** @returns {TrackState} */
  get microphone() {
    return this.#info.microphone;
  }

  /** @returns {TrackState} */
  get camera() {
    return this.#info.camera;
  }

  get instance() {
    return this.#info.instance;
  }

  /** Their sound and picture; always the same object, whatever happens to the network. */
  get stream() {
    return this.#stream;
  }

  /**
   * `interrupted`: it worked and will again, the last picture stays. `failed`: several ways were tried; trying goes on, unless untrusted.
   * @returns {MediaState}
   */
  get media() {
    return this.#media;
  }

  /** @returns {Promise<RTCStatsReport> | null} */
  stats() {
    return this.#link?.connection.getStats() ?? null;
  }

  /** Begin; `onTrack` may be called from here on. */
  open() {
    this.#openLink();
  }

  /**
   * The server knows something of them.
   *
   * @param {PeerInfo} info
   * @param {boolean} [news] something has happened: when nothing reads differently, it is that they have opened a new socket
   */
  update(info, news = false) {
    const before = this.#info;
    this.#info = info;
    if (info.instance !== before.instance) {
      this.#restarts = 0;
      this.#openLink();
    } else if (info.connection === 'online' && (before.connection === 'reconnecting' || (news && isSame(info, before)))) {
      this.#theyAreBack();
    }
  }

  /**
   * We were away.
   *
   * @param {boolean} moved our network may be another
   */
  weAreBack(moved) {
    if (this.#info.polite) {
      if (this.#media !== 'connected') this.#watch(CONNECT_MS); // they were told, and offer
    } else if (moved || this.#media !== 'connected') {
      this.#restart();
    } else {
      this.#link?.negotiation.resend();
    }
  }

  /** What we sent them meanwhile is lost, and their network may be another. */
  #theyAreBack() {
    if (this.#info.polite) return;
    if (this.#link?.connection.signalingState === 'have-local-offer') this.#link.negotiation.resend();
    else this.#restart();
  }

  /** Our track of this kind is another now. @param {Kind} kind */
  setTrack(kind) {
    this.#link?.sendTrack(kind);
  }

  /** @param {string} instance @param {SessionDescription} description */
  receiveDescription(instance, description) {
    if (instance !== this.#info.instance || this.#link === null) return;
    const session = sessionId(description.sdp);
    if (this.#link.remoteSession !== null && session !== this.#link.remoteSession) {
      this.#openLink(); // they made a new RTCPeerConnection, so do we
      if (description.type === 'answer') return; // our new one makes its own offer
    }
    this.#link.remoteSession = session;
    this.#link.negotiation.receiveDescription(description);
  }

  /** @param {string} instance @param {IceCandidate} candidate */
  receiveCandidate(instance, candidate) {
    if (instance === this.#info.instance) this.#link?.negotiation.receiveCandidate(candidate);
  }

  /** They refuse our certificate: what connects us is not what the server carried. @param {string} instance */
  receiveDistrust(instance) {
    if (instance === this.#info.instance) this.#onUntrusted();
  }

  /** Close everything; the stream keeps its dead tracks, so that the last picture does not flash. */
  close() {
    this.#closePrevious();
    this.#host.platform.clearTimeout(this.#watchdog);
    this.#link?.close();
    this.#link = null;
  }

  // -- links ------------------------------------------------------------------------------------------------------------

  #openLink() {
    const before = this.#link;
    this.#closePrevious();
    if (before !== null) {
      before.keepOnlyPicture();
      this.#previous = before;
      this.#previousTimer = this.#host.platform.setTimeout(() => this.#adoptAll(), KEEP_PICTURE_MS);
    }
    /** @type {Link} */
    const link = new Link(this.#info, this.#host, {
      onTrack: (track) => this.#onTrack(link, track),
      onState: () => this.#onLinkState(link),
    });
    this.#link = link;
    if (before !== null && this.#media === 'connected') this.#setMedia('interrupted');
    this.#watch(CONNECT_MS);
  }

  /** @param {Link} link @param {MediaStreamTrack} track */
  #onTrack(link, track) {
    if (link !== this.#link) return;
    if (this.#previous === null || !track.muted) {
      this.#adopt(track);
      return;
    }
    track.addEventListener('unmute', () => link === this.#link && this.#adopt(track), { once: true });
  }

  /** Show this track in place of the one of its kind before. @param {MediaStreamTrack} track */
  #adopt(track) {
    if (this.#stream.getTracks().includes(track)) return;
    for (const old of this.#stream.getTracks()) if (old.kind === track.kind) this.#stream.removeTrack(old);
    this.#stream.addTrack(track);
    this.#host.onTrack(track);
    if (this.#link?.tracks.every((other) => this.#stream.getTracks().includes(other))) this.#closePrevious();
  }

  #adoptAll() {
    for (const track of this.#link?.tracks ?? []) this.#adopt(track);
    this.#closePrevious();
  }

  #closePrevious() {
    this.#host.platform.clearTimeout(this.#previousTimer);
    this.#previous?.close();
    this.#previous = null;
  }

  // -- getting through --------------------------------------------------------------------------------------------------

  /** @param {Link} link */
  #onLinkState(link) {
    if (link !== this.#link) return;
    const { iceConnectionState: ice, connectionState } = link.connection;
    this.#host.log.debug('link_state', { peer: this.id, ice, connection: connectionState });
    const iceWorks = ice === 'connected' || ice === 'completed';
    if (connectionState === 'connected') {
      link.wasConnected = true;
      this.#restarts = 0;
      this.#host.platform.clearTimeout(this.#watchdog);
      this.#setMedia('connected');
    } else if (connectionState === 'failed' && iceWorks && !link.wasConnected) {
      // DTLS failed although packets pass: the fingerprint in the SDP is not that of whoever answers (ASVS 17.2.8). They may not notice:
      // with DTLS 1.3 their handshake is over before our check.
      this.#host.send({ type: 'distrust', to: this.id });
      this.#onUntrusted();
    } else if (ice === 'disconnected' || ice === 'failed') {
      if (this.#media === 'connected') this.#setMedia('interrupted');
      this.#host.suspectNetwork();
      this.#watch(ice === 'failed' ? 0 : DISCONNECTED_MS);
    }
  }

  /** No media, and no retry: the next attempt would meet the same stranger. A reload of either page starts over. */
  #onUntrusted() {
    this.#host.platform.clearTimeout(this.#watchdog);
    this.#link?.close();
    this.#link = null;
    this.#setMedia('failed', 'untrusted');
  }

  /** Act if nothing is connected by then. @param {number} ms */
  #watch(ms) {
    const { platform } = this.#host;
    platform.clearTimeout(this.#watchdog);
    this.#watchdog = platform.setTimeout(() => this.#onWatchdog(), ms + (this.#info.polite ? POLITE_MS : 0));
  }

  #onWatchdog() {
    this.#watch(CONNECT_MS);
    if (!this.#canNegotiate()) return; // being back is another occasion
    if (this.#restarts >= RESTARTS_PER_LINK) {
      this.#setMedia('failed', 'unreachable');
      this.#restarts = 0;
      if (!this.#info.polite) {
        this.#host.log.info('new_link', { peer: this.id });
        this.#openLink();
        return;
      }
    }
    this.#restarts += 1;
    if (this.#info.polite) this.#host.askForRestart();
    else this.#restart();
  }

  #restart() {
    if (!this.#canNegotiate()) return;
    this.#host.log.info('ice_restart', { peer: this.id });
    this.#link?.negotiation.restart();
    if (this.#media !== 'connected') this.#watch(CONNECT_MS);
  }

  /** An offer into the void would block the next one. */
  #canNegotiate() {
    return this.#host.online() && this.#info.connection === 'online';
  }

  /** @param {MediaState} state @param {MediaReason} [reason] */
  #setMedia(state, reason = '') {
    if (state === this.#media) return;
    this.#media = state;
    this.#host.onMedia(state, reason);
  }
}

/** One RTCPeerConnection: its sections, made up front so that no change of device negotiates again, and its negotiation. */
class Link {
  #host;
  /** The sections that carry our tracks. @type {Partial<Record<Kind, RTCRtpTransceiver>>} */
  #sections = {};
  /** Ties our sound to our picture for lip-sync; its tracks are the sections' business. */
  #streamOut;
  /** @type {MediaStreamTrack[]} */
  tracks = [];
  wasConnected = false;
  /** Of the other end's last description. @type {string | null} */
  remoteSession = null;

  /**
   * @param {PeerInfo} info
   * @param {PeerHost} host
   * @param {{onTrack: (track: MediaStreamTrack) => void, onState: () => void}} events
   */
  constructor({ id, polite }, host, { onTrack, onState }) {
    this.#host = host;
    this.#streamOut = new host.platform.MediaStream();
    const connection = new host.platform.RTCPeerConnection(this.configuration(host.iceServers()));
    this.connection = connection;
    this.negotiation = new Negotiation({
      connection,
      polite,
      log: host.log,
      sendDescription: (description) => host.send({ type: 'description', to: id, description }),
      sendCandidate: (candidate) => host.send({ type: 'candidate', to: id, candidate }),
      prepare: (type) => this.#prepare(type),
    });
    connection.ontrack = ({ track }) => {
      this.tracks.push(track);
      onTrack(track);
    };
    connection.onconnectionstatechange = connection.oniceconnectionstatechange = onState;
    this.channel = connection.createDataChannel('colloque', { negotiated: true, id: 0 });
    if (!polite) this.#makeSections();
  }

  /** @param {IceServer[]} iceServers @returns {RTCConfiguration} */
  configuration(iceServers) {
    // One candidate gathered ahead: the answering side has its addresses ready when the offer comes.
    return { iceServers: /** @type {RTCIceServer[]} */ (iceServers), bundlePolicy: 'max-bundle', rtcpMuxPolicy: 'require', iceCandidatePoolSize: 1 };
  }

  /** @param {Kind} kind */
  sendTrack(kind) {
    void this.#sections[kind]?.sender.replaceTrack(this.#outgoing(kind));
  }

  /** The other end is gone: say and send nothing, but let the tracks live. */
  keepOnlyPicture() {
    this.connection.ontrack = this.connection.onconnectionstatechange = this.connection.oniceconnectionstatechange = null;
    this.negotiation.stop();
    for (const section of Object.values(this.#sections)) void section.sender.replaceTrack(null);
  }

  close() {
    this.connection.ontrack = this.connection.onconnectionstatechange = this.connection.oniceconnectionstatechange = null;
    this.negotiation.stop();
    this.connection.close();
  }

  /** The offering side. */
  #makeSections() {
    for (const kind of KINDS) {
      this.#sections[kind] = this.connection.addTransceiver(this.#outgoing(kind) ?? kind, {
        direction: this.#host.receiveOnly ? 'recvonly' : 'sendrecv',
        streams: [this.#streamOut],
      });
    }
  }

  /**
   * New credentials first (RFC 8445: gathering follows the description); running allocations are left alone.
   *
   * @param {'offer' | 'answer'} type
   */
  async #prepare(type) {
    const first = this.connection.localDescription === null;
    const iceServers = await this.#host.freshIceServers(first ? FIRST_CREDENTIALS_MS : RESTART_CREDENTIALS_MS);
    this.connection.setConfiguration(this.configuration(iceServers));
    if (type === 'answer') await this.#joinSections();
  }

  /** The answering side: the offer has made the sections, with nothing of ours in them (RFC 9429 section 5.10). */
  async #joinSections() {
    for (const kind of KINDS) {
      const section = this.connection.getTransceivers().find(({ receiver }) => receiver.track.kind === kind);
      if (section === undefined || this.#sections[kind] === section) continue;
      this.#sections[kind] = section;
      section.direction = this.#host.receiveOnly ? 'recvonly' : 'sendrecv';
      section.sender.setStreams(this.#streamOut);
      await section.sender.replaceTrack(this.#outgoing(kind));
    }
  }

  /** @param {Kind} kind */
  #outgoing(kind) {
    return this.#host.receiveOnly ? null : this.#host.tracks[kind];
  }
}

/** @type {readonly Kind[]} */
const KINDS = ['audio', 'video'];

/** The session id of the origin line (RFC 8866 section 5.2): the same for the life of an RTCPeerConnection. @param {string} sdp */
function sessionId(sdp) {
  return /^o=\S+ (\S+)/m.exec(sdp)?.[1] ?? null;
}

/** Whether nothing that can change reads differently. @param {PeerInfo} one @param {PeerInfo} other */
function isSame(one, other) {
  return one.connection === other.connection && one.microphone === other.microphone && one.camera === other.camera;
}
