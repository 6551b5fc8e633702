/**
 * Perfect negotiation of one RTCPeerConnection: offers, answers, rollback, candidates. Driven by `peer.js`; knows nobody's name.
 *
 * Spec: RFC 9429 section 4.1.10 (rollback), W3C WebRTC section 10.7 (perfect negotiation example), RFC 8838 (trickle ICE).
 *
 * Everything runs in one queue, one step at a time. So an offer meets the connection either in `stable` or in `have-local-offer`, never in
 * between, and the flags of the W3C example (`makingOffer`, `isSettingRemoteAnswerPending`) are not needed. What remains of it: when two
 * offers cross, the polite side takes its own back and answers, the impolite side ignores the other's. The very first offer is the
 * impolite side's, so that the two do not cross at every start.
 *
 * Crossing offers are the safety net, not the plan: in Chromium 156 a rollback of a later offer ends the incoming video for good (the receive
 * stream is made anew without its sink). So `peer.js` has only the impolite side offer, and the polite side asks for it.
 */

/**
 * @import { IceCandidate, SessionDescription } from './messages.js'
 * @import { Log } from './log.js'
 */

/** Candidates kept until their description arrives: more than a browser with every interface and relay has. */
const MAX_EARLY_CANDIDATES = 200;

/**
 * @typedef {object} NegotiationOptions
 * @property {RTCPeerConnection} connection
 * @property {boolean} polite
 * @property {Log} log
 * @property {(description: SessionDescription) => void} sendDescription
 * @property {(candidate: IceCandidate) => void} sendCandidate
 * @property {(type: 'offer' | 'answer') => Promise<void>} prepare called before each of our descriptions is made; for an answer, the
 *   sections of the offer are there already
 */

export class Negotiation {
  #connection;
  #polite;
  #log;
  #sendDescription;
  #prepare;
  /** @type {Promise<void>} */
  #queue = Promise.resolve();
  #stopped = false;
  /** @type {IceCandidate[]} */
  #early = [];

  /** @param {NegotiationOptions} options */
  constructor({ connection, polite, log, sendDescription, sendCandidate, prepare }) {
    this.#connection = connection;
    this.#polite = polite;
    this.#log = log;
    this.#sendDescription = sendDescription;
    this.#prepare = prepare;
    connection.onnegotiationneeded = () => this.#enqueue('offer', () => this.#offer());
    connection.onicecandidate = ({ candidate }) => {
      // Through the queue, so that it follows its description: an unknown candidate would be thrown away at the other end.
      if (candidate) this.#enqueue('candidate', async () => sendCandidate(plain(candidate)));
    };
  }

  /** Take an offer or answer from the other end. @param {SessionDescription} description */
  receiveDescription(description) {
    this.#enqueue('description', () => this.#take(description));
  }

  /** Take a candidate from the other end. @param {IceCandidate} candidate */
  receiveCandidate(candidate) {
    this.#enqueue('remote_candidate', () => this.#add(candidate));
  }

  /**
   * Restart ICE (RFC 8445 section 2.4). An offer that waits for its answer is not taken back, only sent again: an answer on its way would
   * be taken for one to the next offer. The restart follows the answer.
   */
  restart() {
    this.#enqueue('restart', async () => {
      this.#connection.restartIce();
      if (this.#connection.signalingState === 'have-local-offer') this.#sendLocal();
    });
  }

  /** Send an offer again that found nobody at the other end. */
  resend() {
    this.#enqueue('resend', async () => {
      if (this.#connection.signalingState === 'have-local-offer') this.#sendLocal();
    });
  }

  /** Say and hear nothing more; what is still in the queue is dropped. The connection itself goes on. */
  stop() {
    this.#stopped = true;
    this.#connection.onnegotiationneeded = this.#connection.onicecandidate = null;
  }

  async #offer() {
    if (this.#connection.signalingState !== 'stable') return; // it is asked for again once stable
    if (this.#polite && this.#connection.remoteDescription === null) return;
    await this.#prepare('offer');
    await this.#connection.setLocalDescription();
    this.#sendLocal();
  }

  /** @param {SessionDescription} description */
  async #take(description) {
    const connection = this.#connection;
    const stable = connection.signalingState === 'stable';
    if (description.type === 'offer' && !stable && !this.#polite) {
      this.#log.debug('offer_ignored');
      this.#sendLocal(); // ours may have been lost on a dead socket; twice does no harm
      return;
    }
    if (description.type === 'answer' && stable) {
      this.#log.debug('answer_too_late'); // to an offer that was taken back
      return;
    }
    await connection.setRemoteDescription(description); // takes our own offer back, if there is one
    for (const candidate of this.#early.splice(0)) await this.#add(candidate);
    if (description.type === 'offer') {
      await this.#prepare('answer');
      await connection.setLocalDescription();
      this.#sendLocal();
    }
  }

  /** @param {IceCandidate} candidate */
  async #add(candidate) {
    if (this.#connection.remoteDescription === null) {
      if (this.#early.length < MAX_EARLY_CANDIDATES) this.#early.push(candidate);
      return;
    }
    try {
      await this.#connection.addIceCandidate(candidate);
    } catch (error) {
      this.#log.debug('candidate_dropped', { error }); // of an offer we ignored, or of a generation that is over
    }
  }

  #sendLocal() {
    const description = this.#connection.localDescription;
    if (description?.type === 'offer' || description?.type === 'answer') {
      this.#sendDescription({ type: description.type, sdp: description.sdp });
    }
  }

  /** @param {string} step @param {() => Promise<void>} job */
  #enqueue(step, job) {
    this.#queue = this.#queue.then(async () => {
      if (this.#stopped) return;
      try {
        await job();
      } catch (error) {
        // A description that does not apply: the other end's trouble or an attack. `peer.js` sees that nothing connects.
        if (!this.#stopped) this.#log.warning('negotiation_failed', { step, error });
      }
    });
  }
}

/** The members of RTCIceCandidateInit and nothing that a browser adds. @param {RTCIceCandidate} candidate @returns {IceCandidate} */
function plain({ candidate, sdpMid, sdpMLineIndex, usernameFragment }) {
  return { candidate, sdpMid, sdpMLineIndex, usernameFragment };
}
