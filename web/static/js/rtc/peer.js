/**
 * One other participant: their place in the conversation, and the direct connection to them, through reloads and network changes.
 *
 * A `Peer` lasts as long as the participant is in the conversation; a `Link` (one RTCPeerConnection) as long as the page loads at both
 * ends do, and as long as the server wants a direct connection. When the other end reloads, a new link is made and the old picture stays
 * until the new one has frames. The impolite side makes all the offers (see negotiation.js): it restarts ICE, and makes a new link when
 * restarts do not help. The polite side follows. When it was the one that moved, or when nothing happens, it asks by opening a new socket
 * to the server, which tells the impolite side. While the media server carries what the two say, there is no haste: the polite side does
 * not ask, the impolite one tries seldom.
 *
 * Their sound and picture may also come through the media server: `paths.js` brings those tracks, and decides; `shown.js` chooses.
 */

import { KINDS, Link } from './link.js';
import { Shown } from './shown.js';

/**
 * @import { Candidate, Describe, Distrust, IceCandidate, IceServer, Path, Peer as PeerInfo, Role, SessionDescription, TrackState } from './messages.js'
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
 * @property {() => boolean} sendsDirect whether our tracks go directly now
 * @property {(track: MediaStreamTrack) => void} onTrack what is shown has gained this track, see `Peer.stream`
 * @property {() => void} onLink the direct connection, or what it brings, has changed: `review` is due
 * @property {(state: MediaState, reason: MediaReason) => void} onMedia
 */

/** libwebrtc says `disconnected` after 2.5 s without an answer; a passing shadow of Wi-Fi heals by itself within this. */
const DISCONNECTED_MS = 1500;
/** Offer, answer, checks and DTLS over a bad mobile network; libwebrtc itself says `failed` only after 15 s. */
const CONNECT_MS = 6000;
/** The longest wait while everything comes through the media server: it doubles with each attempt. */
const CARRIED_MS = 60_000;
/** The polite side waits this much longer, so that mostly one side acts. */
const POLITE_MS = 1500;
/** Restarts that do not help, before a new RTCPeerConnection is tried. */
const RESTARTS_PER_LINK = 2;
/** By then the old picture of a peer who reloaded is no longer worth keeping. */
const KEEP_PICTURE_MS = 10_000;

export class Peer {
  #info;
  #host;
  #shown;
  /** @type {Link | null} */
  #link = null;
  /** The link of the page load before, for its picture. @type {Link | null} */
  #previous = null;
  /** @type {number | undefined} */
  #previousTimer;
  /** @type {number | undefined} */
  #watchdog;
  /** Of the direct connection. @type {MediaState} */
  #direct = 'connecting';
  /** Of their sound and picture, whichever way they come. @type {MediaState} */
  #media = 'connecting';
  #untrusted = false;
  /** Since something was last connected. */
  #restarts = 0;
  /** Whether their sound and picture come through the media server, or would. */
  #carried = false;
  /** Attempts since it is so, and since something was last connected. */
  #attempts = 0;

  /** @param {PeerInfo} info @param {PeerHost} host */
  constructor(info, host) {
    this.#info = info;
    this.#host = host;
    this.#shown = new Shown(host.platform);
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

  /** Their sound and picture; another object once one of its tracks is replaced, see shown.js. */
  get stream() {
    return this.#shown.stream;
  }

  /** What comes, by which way, and what of it is shown. */
  get shown() {
    return this.#shown;
  }

  /**
   * `interrupted`: it worked and will again, the last picture stays. `failed`: several ways were tried; trying goes on, unless untrusted.
   * @returns {MediaState}
   */
  get media() {
    return this.#media;
  }

  /** The direct connection: whether packets pass, and whether there is one at all. @returns {MediaState | 'none'} */
  get direct() {
    return this.#link === null && !this.#untrusted ? 'none' : this.#direct;
  }

  /** Direct connections that bring tracks, the newest first. @returns {RTCPeerConnection[]} */
  get connections() {
    return [this.#link, this.#previous].flatMap((link) => link?.connection ?? []);
  }

  /** Whether a picture of the page load before is kept. */
  get keeps() {
    return this.#previous !== null;
  }

  /** Begin; `onTrack` may be called from here on. */
  open() {
    if (this.#wantsLink()) this.#openLink();
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
      this.#restarts = this.#attempts = 0;
      this.#untrusted = false;
      if (this.#wantsLink()) this.#openLink();
      else this.#closeLink();
    } else if (!this.#wantsLink()) {
      this.#closeLink();
    } else if (this.#link === null && before.direct === false) {
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
    if (this.#link === null) return;
    if (moved) this.#attempts = 0;
    if (this.#info.polite) {
      if (this.#direct !== 'connected') this.#watch(CONNECT_MS); // they were told, and offer
    } else if (moved || this.#direct !== 'connected') {
      this.#restart();
    } else {
      this.#link?.negotiation.resend();
    }
  }

  /** What we sent them meanwhile is lost, and their network may be another. */
  #theyAreBack() {
    if (this.#info.polite) return;
    this.#attempts = 0;
    if (this.#link?.connection.signalingState === 'have-local-offer') this.#link.negotiation.resend();
    else this.#restart();
  }

  /** Our track of this kind is another now. @param {Kind} kind */
  setTrack(kind) {
    this.#link?.sendTrack(kind);
  }

  /**
   * Send our tracks directly, or only hold the connection.
   *
   * @param {boolean} sending
   * @param {number | null} limitBps of the picture
   */
  send(sending, limitBps) {
    void this.#link?.send(sending, limitBps);
  }

  /** What the media server brings of this kind; null for nothing. @param {Kind} kind @param {MediaStreamTrack | null} track */
  setRelayed(kind, track) {
    this.#shown.set(kind, 'relayed', track);
  }

  /**
   * Choose again what is shown, and say how it goes.
   *
   * @param {Path} preferred
   * @param {MediaState} relayed how the connection to the media server goes
   * @param {(track: MediaStreamTrack) => boolean} goesOn
   */
  review(preferred, relayed, goesOn) {
    for (const track of this.#shown.review(preferred, goesOn)) this.#host.onTrack(track);
    const replaced = this.#previous?.tracks.every((track) => this.#shown.track(/** @type {Kind} */ (track.kind)) !== track);
    if (replaced && this.#link !== null && this.#link.tracks.length > 0) this.#closePrevious();
    const goes = KINDS.some((kind) => {
      const track = this.#shown.track(kind);
      return track !== null && goesOn(track);
    });
    const state = preferred === 'direct' ? this.#direct : relayed;
    this.#carry(preferred === 'relayed' && relayed === 'connected');
    if (preferred === 'direct' && this.#untrusted) this.#setMedia('failed', 'untrusted');
    else this.#setMedia(goes ? 'connected' : state, state === 'failed' && !goes ? 'unreachable' : '');
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
    this.#closeLink();
  }

  // -- links ------------------------------------------------------------------------------------------------------------

  #wantsLink() {
    return this.#info.direct !== false;
  }

  #openLink() {
    const before = this.#link;
    this.#closePrevious();
    if (before !== null) {
      before.keepOnlyPicture();
      this.#shown.supersede();
      this.#previous = before;
      this.#previousTimer = this.#host.platform.setTimeout(() => this.#closePrevious(), KEEP_PICTURE_MS);
    }
    /** @type {Link} */
    const link = new Link(this.#info, this.#host, this.#host.sendsDirect(), {
      onTrack: (track) => this.#onTrack(link, track),
      onState: () => this.#onLinkState(link),
    });
    this.#link = link;
    if (before !== null) this.#setDirect(this.#direct === 'connected' ? 'interrupted' : this.#direct);
    this.#watch(this.#patienceMs());
  }

  /** Theirs stays the stream; what came directly no longer does. */
  #closeLink() {
    this.#host.platform.clearTimeout(this.#watchdog);
    if (this.#link === null) return;
    this.#link.close();
    this.#link = null;
    this.#restarts = 0;
    for (const kind of KINDS) this.#shown.set(kind, 'direct', null);
    this.#direct = 'connecting';
    this.#host.onLink();
  }

  /** @param {Link} link @param {MediaStreamTrack} track */
  #onTrack(link, track) {
    if (link !== this.#link) return;
    this.#shown.set(/** @type {Kind} */ (track.kind), 'direct', track);
    this.#host.onLink();
  }

  #closePrevious() {
    this.#host.platform.clearTimeout(this.#previousTimer);
    if (this.#previous === null) return;
    this.#previous.close();
    this.#previous = null;
    for (const kind of KINDS) this.#shown.set(kind, 'before', null);
    this.#host.onLink();
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
      this.#restarts = this.#attempts = 0;
      this.#host.platform.clearTimeout(this.#watchdog);
      this.#setDirect('connected');
    } else if (connectionState === 'failed' && iceWorks && !link.wasConnected) {
      // DTLS failed although packets pass: the fingerprint in the SDP is not that of whoever answers (ASVS 17.2.8). They may not notice:
      // with DTLS 1.3 their handshake is over before our check.
      this.#host.send({ type: 'distrust', to: this.id });
      this.#onUntrusted();
    } else if (ice === 'disconnected' || ice === 'failed') {
      if (this.#direct === 'connected') this.#setDirect('interrupted');
      this.#host.suspectNetwork();
      if (this.#attempts === 0) this.#watch(ice === 'failed' ? 0 : DISCONNECTED_MS); // otherwise it is an attempt that fails, the next one has its time
    }
  }

  /** No media, and no retry: the next attempt would meet the same stranger. A reload of either page starts over. */
  #onUntrusted() {
    this.#host.platform.clearTimeout(this.#watchdog);
    this.#link?.close();
    this.#link = null;
    this.#untrusted = true;
    this.#setDirect('failed');
  }

  /** Act if nothing is connected by then. @param {number} ms */
  #watch(ms) {
    const { platform } = this.#host;
    platform.clearTimeout(this.#watchdog);
    this.#watchdog = platform.setTimeout(() => this.#onWatchdog(), ms + (this.#info.polite ? POLITE_MS : 0));
  }

  /** @param {boolean} carried */
  #carry(carried) {
    if (carried === this.#carried) return;
    this.#carried = carried;
    this.#attempts = 0;
    if (!carried && this.#link !== null && this.#direct !== 'connected') this.#watch(CONNECT_MS); // in haste again
  }

  #onWatchdog() {
    if (this.#carried) this.#attempts += 1;
    this.#watch(this.#patienceMs());
    if (this.#carried && this.#info.polite) return; // the other side tries too, and offers
    if (!this.#canNegotiate()) return; // being back is another occasion
    if (this.#restarts >= RESTARTS_PER_LINK) {
      this.#setDirect('failed');
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

  /** How long an attempt may take. */
  #patienceMs() {
    return Math.min(CARRIED_MS, CONNECT_MS * 2 ** this.#attempts);
  }

  #restart() {
    if (!this.#canNegotiate()) return;
    this.#host.log.info('ice_restart', { peer: this.id });
    this.#link?.negotiation.restart();
    if (this.#direct !== 'connected') this.#watch(this.#patienceMs());
  }

  /** An offer into the void would block the next one. */
  #canNegotiate() {
    return this.#host.online() && this.#info.connection === 'online';
  }

  /** @param {MediaState} state */
  #setDirect(state) {
    this.#direct = state;
    this.#host.onLink();
  }

  /** @param {MediaState} state @param {MediaReason} reason */
  #setMedia(state, reason) {
    if (state === this.#media) return;
    this.#media = state;
    this.#host.onMedia(state, reason);
  }
}

/** The session id of the origin line (RFC 8866 section 5.2): the same for the life of an RTCPeerConnection. @param {string} sdp */
function sessionId(sdp) {
  return /^o=\S+ (\S+)/m.exec(sdp)?.[1] ?? null;
}

/** Whether nothing that can change reads differently. @param {PeerInfo} one @param {PeerInfo} other */
function isSame(one, other) {
  return one.connection === other.connection && one.microphone === other.microphone && one.camera === other.camera;
}
