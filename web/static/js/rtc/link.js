/**
 * One RTCPeerConnection to another browser: its sections, made up front so that no change of device negotiates again, and its
 * negotiation. A `Peer` has one for as long as the page loads at both ends last.
 */

import { Encoder } from './encoder.js';
import { Negotiation } from './negotiation.js';

/**
 * @import { IceServer, Peer as PeerInfo } from './messages.js'
 * @import { Kind, PeerHost } from './peer.js'
 */

/** TURN credentials live for 600 s. A first negotiation is not made slower for the sake of younger ones; a restart takes new ones. */
export const FIRST_CREDENTIALS_MS = 240_000;
export const RESTART_CREDENTIALS_MS = 20_000;

/** @type {readonly Kind[]} */
export const KINDS = ['audio', 'video'];

export class Link {
  #host;
  /** The sections that carry our tracks. @type {Partial<Record<Kind, RTCRtpTransceiver>>} */
  #sections = {};
  /** Ties our sound to our picture for lip-sync; its tracks are the sections' business. */
  #streamOut;
  /** @type {Encoder | null} */
  #encoder = null;
  #sending;
  /** @type {number | null} */
  #limitBps = null;
  /** Theirs, in the order in which they came. @type {MediaStreamTrack[]} */
  tracks = [];
  wasConnected = false;
  /** Of the other end's last description. @type {string | null} */
  remoteSession = null;

  /**
   * @param {PeerInfo} info
   * @param {PeerHost} host
   * @param {boolean} sending whether our tracks go this way
   * @param {{onTrack: (track: MediaStreamTrack) => void, onState: () => void}} events
   */
  constructor({ id, polite }, host, sending, { onTrack, onState }) {
    this.#host = host;
    this.#sending = sending;
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

  /** Whether packets pass. */
  get connected() {
    return this.connection.connectionState === 'connected';
  }

  /** @param {Kind} kind */
  sendTrack(kind) {
    void this.#sections[kind]?.sender.replaceTrack(this.#outgoing(kind));
  }

  /**
   * Send our tracks this way, or hold the connection without them.
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
    for (const kind of KINDS) this.sendTrack(kind);
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
      this.#use(
        kind,
        this.connection.addTransceiver(this.#outgoing(kind) ?? kind, {
          direction: this.#host.receiveOnly ? 'recvonly' : 'sendrecv',
          streams: [this.#streamOut],
        }),
      );
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
      this.#use(kind, section);
      section.direction = this.#host.receiveOnly ? 'recvonly' : 'sendrecv';
      section.sender.setStreams(this.#streamOut);
      await section.sender.replaceTrack(this.#outgoing(kind));
    }
  }

  /** @param {Kind} kind @param {RTCRtpTransceiver} section */
  #use(kind, section) {
    this.#sections[kind] = section;
    if (kind !== 'video' || this.#host.receiveOnly) return;
    this.#encoder = new Encoder(section.sender, this.#host.log);
    if (this.#limitBps !== null) void this.#encoder.limit(this.#limitBps);
  }

  /** @param {Kind} kind */
  #outgoing(kind) {
    return this.#host.receiveOnly || !this.#sending ? null : this.#host.tracks[kind];
  }
}
