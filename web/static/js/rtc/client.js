/**
 * One participant's seat in one room: the facade of the library, driven by the pages, without DOM.
 *
 * The road: `client.js` → `signalling.js` (the WebSocket) → `peer.js` (one other participant) → `link.js`, `negotiation.js` (its
 * RTCPeerConnection); and for what goes through the media server: `client.js` → `paths.js` → `relay.js`.
 *
 *                     ready()            admitted by a clinician        join()
 *     idle → connecting → arrived ─────→ waiting ─────────────→ admitted ─────→ joined ──leave()──→ left ──join()──→ joined
 *                            any of them → refused | ended
 *
 * The states from `arrived` to `left` are the server's; the client only remembers what the person asked for (`#wants`) and asks again
 * after a reconnection, so that nobody has to click twice. While the signalling is down the conversation goes on: it is between the
 * browsers.
 *
 * Above 500 lines, but one thing: the commands and events of one seat, as the pages know them.
 */

import { Log } from './log.js';
import { Paths } from './paths.js';
import { Peer } from './peer.js';
import { browserPlatform } from './platform.js';
import { PROTOCOL_VERSION, Signalling } from './signalling.js';
import { StatsPoller } from './stats.js';

/**
 * @import { ClientMessage, IceServer, Language, Peer as PeerInfo, Role, ServerMessage, State, TrackState, Visitor } from './messages.js'
 * @import { Devices } from './devices.js'
 * @import { Platform } from './platform.js'
 */

/** @typedef {'idle' | 'connecting' | State | 'refused' | 'ended'} ClientState */

/**
 * Where the resume secret is kept. The pages keep it in `sessionStorage` (when allowed) and `history.state`, apart for each link.
 * @typedef {object} ResumeStorage
 * @property {() => string | null} get
 * @property {(resume: string | null) => void} set
 */

/**
 * @typedef {object} ClientOptions
 * @property {string} url WebSocket address, `wss://video.example.org/ws`
 * @property {string} tenant from the page's path
 * @property {string | null} secret from the URL fragment; null after a reload that kept only the resume secret
 * @property {string} [instance] names this page load; a random one by default
 * @property {Language} [language] in which the server's sentences come; the tenant's by default
 * @property {ResumeStorage} [storage] memory only by default: a reload then asks "continue here?"
 * @property {EventTarget} [environment] fires `online`, `visibilitychange`, `pageshow`; the window by default
 * @property {Log} [log]
 * @property {Platform} [platform] the browser's parts; replaced in tests
 */

/** Without an answer, go on with the servers we have: a running allocation outlives its credentials. */
const ICE_SERVERS_TIMEOUT_MS = 1000;
/** After a restart of the server, until everybody has found it again; it spreads them over less. */
const CONFIRM_PEERS_MS = 15_000;

/**
 * Fires these events (`CustomEvent`, facts in `detail`):
 *
 * - `state` {state, place, expected, reason}: where you stand; `place` and `expected` while waiting. Fired again when they change.
 * - `signalling` {online}: the link to the server; the conversation goes on without it.
 * - `visitors` {visitors}: to clinicians, everybody who is not in the conversation.
 * - `peerjoined`, `peerchanged` {peer}: the `Peer`, in `peers` already. `peerleft` {id, why}.
 * - `track` {peerId, source, track, stream}: what is shown of a peer gained this track. `stream` is another object when a track was replaced:
 *   play it beside the one before until it has a picture. `source` is '' for the peer's browser; another device of theirs (a second camera)
 *   has a name and a stream of its own, and is gone with `track` null.
 * - `path` {path, move}: where media goes, `direct` or `relayed`, and the move that is under way or null; nobody needs to be told.
 * - `speakers` {participants}: who speaks, the loudest first; only while media is relayed.
 * - `media` {peerId, state, reason}: see `Peer.media`; reason `untrusted` when the other end is not who the server vouched for.
 * - `quality` {peerId, level, rttMs, loss}: every 2 s, from stats.js.
 * - `occupied` {}: the seat is in use on another device; ask, then `takeOver()`.
 * - `refused` {code, message, reason, retry}: with `retry` the client tries again by itself.
 * - `problem` {code, message, re}: the last message of type `re` was not carried out; code `offline` when it was not even sent.
 * - `told` {text}: a sentence from the clinician. `transferred` {secret}: to another room, where the client goes by itself.
 * - `ended` {by, reason}: for everybody. `goingaway` {retryAfterMs}: the server restarts, the client comes back by itself.
 */
export class Client extends EventTarget {
  #tenant;
  #secret;
  #instance;
  #language;
  #storage;
  #environment;
  #log;
  #platform;
  #signalling;
  #poller;
  #paths;

  /** @type {ClientState} */
  #state = 'idle';
  /** What the person asked for last, for as long as the server has not granted it. @type {'waiting' | 'joined' | 'left' | null} */
  #wants = null;
  /** @type {{id: string, role: Role, name: string, room: string} | null} */
  #self = null;
  #takeOver = false;
  /** @type {Map<string, Peer>} */
  #peers = new Map();
  /** @type {Visitor[]} */
  #visitors = [];
  /** @type {{audio: MediaStreamTrack | null, video: MediaStreamTrack | null}} */
  #tracks = { audio: null, video: null };
  /** Null until told: after a reload, the others keep what they knew. @type {{microphone: TrackState, camera: TrackState} | null} */
  #media = null;
  /** @type {IceServer[]} */
  #iceServers = [];
  #iceServersAt = -Infinity;
  /** @type {(() => void)[]} */
  #iceServersWaiters = [];
  /** Whether the network may have changed since the peers last heard of us. */
  #moved = false;
  /** A new socket is opened for the sake of a peer, who is told by it that we are here: the network is the same. */
  #asking = false;
  /** Peers whom a restarted server does not know again yet, though we hear them. @type {Set<string>} */
  #unconfirmed = new Set();

  /** @param {ClientOptions} options */
  constructor(options) {
    super();
    this.#tenant = options.tenant;
    this.#secret = options.secret || null;
    this.#language = options.language ?? null;
    this.#storage = options.storage ?? memoryStorage();
    this.#environment = options.environment ?? globalThis;
    this.#log = options.log ?? new Log();
    this.#platform = options.platform ?? browserPlatform();
    this.#instance = options.instance ?? this.#platform.randomUUID();
    this.#signalling = new Signalling({
      url: options.url,
      platform: this.#platform,
      log: this.#log,
      hello: () => this.#hello(),
      onMessage: (message) => this.#receive(message),
      onOnline: (online, networkMayHaveChanged) => this.#onOnline(online, networkMayHaveChanged),
    });
    this.#paths = new Paths({
      platform: this.#platform,
      log: this.#log,
      receiveOnly: () => this.#self?.role === 'observer',
      tracks: this.#tracks,
      iceServers: () => this.#iceServers,
      freshIceServers: (maxAgeMs) => this.#freshIceServers(maxAgeMs),
      online: () => this.#signalling.online,
      send: (message) => this.#state === 'joined' && this.#signalling.send(message),
      suspectNetwork: () => this.#signalling.suspect(),
      peers: () => this.#peers,
      onDevice: (peerId, source, track, stream) => this.#emit('track', { peerId, source, track, stream }),
      onUntrusted: () => this.#emit('problem', { code: 'relay_untrusted', message: '', re: 'relayOffer' }),
      onPath: () => this.#emit('path', { path: this.#paths.path, move: this.#paths.move }),
    });
    this.#poller = new StatsPoller(
      this.#platform,
      () => this.#peers.values(),
      (peer) => this.#paths.stats(peer),
      (quality) => this.#emit('quality', quality),
    );
  }

  // -- what is known ---------------------------------------------------------------------------------------------------

  /** @returns {ClientState} */
  get state() {
    return this.#state;
  }

  /** Who the server says you are; null before the welcome. */
  get self() {
    return this.#self;
  }

  /** Everybody else in the conversation, by id. @returns {ReadonlyMap<string, Peer>} */
  get peers() {
    return this.#peers;
  }

  /** To clinicians: everybody who is not in the conversation. @returns {readonly Visitor[]} */
  get visitors() {
    return this.#visitors;
  }

  /** @returns {'online' | 'reconnecting'} */
  get signalling() {
    return this.#signalling.online ? 'online' : 'reconnecting';
  }

  /** Where media goes, as the server said last. */
  get path() {
    return this.#paths.path;
  }

  /**
   * What moves, and how the connection to the media server is: `paths.move`, `.preferred`, `.relayed`, `.history`.
   * By which path something of a peer is shown: `peers.get(id).shown.way('video')`.
   */
  get paths() {
    return this.#paths;
  }

  /** What the others are told of your devices. @returns {Readonly<{microphone: TrackState, camera: TrackState}>} */
  get media() {
    return this.#media ?? { microphone: 'missing', camera: 'missing' };
  }

  // -- for everybody ---------------------------------------------------------------------------------------------------

  /** Open the signalling and say hello. Ends in `state`, `occupied` or `refused`; keeps trying while the network is down. */
  connect() {
    if (this.#state !== 'idle' && this.#state !== 'refused') return;
    if (this.#secret === null && this.#storage.get() === null) {
      this.#onRefused('link_unknown', '', '', false); // a link without its secret: nothing to ask the server
      return;
    }
    this.#setState('connecting');
    for (const type of WAKING_EVENTS) this.#environment.addEventListener(type, this.#onWake);
    this.#signalling.open();
  }

  /** Take the seat from the other device, after `occupied`. */
  takeOver() {
    this.#takeOver = true;
    if (this.#state === 'idle' || this.#state === 'refused') this.connect();
    else this.#signalling.open();
  }

  /** Stop everything, without leaving: the seat stays yours, the others see "reconnecting". The client may `connect()` again. */
  close() {
    this.#stop();
    this.#setState('idle');
  }

  /** Devices are chosen: go to the waiting room (clinicians: straight to `admitted`). */
  ready() {
    this.#want('waiting');
  }

  /** Enter the conversation, once admitted; also comes back after `leave()`. */
  join() {
    this.#want('joined');
  }

  /** Hang up. The seat is kept; `join()` comes back. */
  leave() {
    this.#want('left');
  }

  /**
   * Say what the others hear or see of you. No renegotiation: the sections are there from the first offer.
   *
   * @param {'audio' | 'video'} kind
   * @param {MediaStreamTrack | null} track null for nothing; the client does not stop the track it had
   */
  setTrack(kind, track) {
    if (track !== null && kind === 'video' && track.contentHint === '') track.contentHint = 'motion';
    this.#tracks[kind] = track;
    for (const peer of this.#peers.values()) peer.setTrack(kind);
    this.#paths.setTrack(kind);
  }

  /**
   * How large a picture is on the screen, for the media server to send no more than that.
   *
   * @param {string} peerId
   * @param {string} source '' for the peer's browser, otherwise as in `track`
   * @param {import('./wishes.js').Size | null} size in pixels of the screen; null: it is not to be seen
   */
  showSize(peerId, source, size) {
    this.#paths.show(peerId, source, size);
  }

  /** Tell the others what your devices do. @param {Partial<{microphone: TrackState, camera: TrackState}>} media */
  setMedia(media) {
    const before = this.#media;
    this.#media = { ...this.media, ...media };
    if (before?.microphone !== this.#media.microphone || before?.camera !== this.#media.camera) this.#tellMedia();
  }

  /**
   * Send what these devices give and say what they do, now and whenever it changes.
   *
   * @param {Devices} devices
   */
  attach(devices) {
    const follow = () => {
      for (const kind of /** @type {const} */ (['audio', 'video'])) {
        const track = devices.track(kind);
        if (this.#tracks[kind] !== track) this.setTrack(kind, track);
      }
      this.setMedia({ microphone: devices.state('audio'), camera: devices.state('video') });
    };
    devices.addEventListener('state', follow);
    if (devices.opened) follow();
  }

  /** The language of the server's sentences from now on. @param {Language} language */
  setLanguage(language) {
    this.#language = language;
    if (this.#signalling.online) this.#signalling.send({ type: 'setLanguage', language });
  }

  /** Find new network paths to everybody, without hiding the picture. Happens by itself when the network changes. */
  restartIce() {
    this.#asking = false;
    this.#signalling.wake(true); // the others restart towards us, or we towards them, once we are back
  }

  /** Start over with everybody, in the same seat, as a reload does: the last thing to try when sound or picture stays away. */
  rejoin() {
    this.#instance = this.#platform.randomUUID();
    this.#closePeers();
    if (this.#state === 'joined') this.#wants = 'joined';
    this.#signalling.open();
  }

  // -- for clinicians ---------------------------------------------------------------------------------------------------

  /** Let a visitor into the conversation. @param {string} participant */
  admit(participant) {
    this.#command({ type: 'admit', participant });
  }

  /** A visitor will not be let in, and is told why. @param {string} participant @param {string} [reason] */
  refuse(participant, reason = '') {
    this.#command({ type: 'refuse', participant, reason });
  }

  /** Return somebody to the waiting room. @param {string} participant @param {string} [reason] */
  sendBack(participant, reason = '') {
    this.#command({ type: 'sendBack', participant, reason });
  }

  /** End somebody's presence; their seat is closed. @param {string} participant @param {string} [reason] */
  remove(participant, reason = '') {
    this.#command({ type: 'remove', participant, reason });
  }

  /** Move somebody to another room of the same tenant. @param {string} participant @param {string} room */
  transfer(participant, room) {
    this.#command({ type: 'transfer', participant, room });
  }

  /** A sentence to somebody in the waiting room. @param {string} participant @param {string} text */
  tell(participant, text) {
    this.#command({ type: 'tell', participant, text });
  }

  /** End the consultation for everybody. @param {string} [reason] */
  endRoom(reason = '') {
    this.#command({ type: 'endRoom', reason });
  }

  // -- outgoing ---------------------------------------------------------------------------------------------------------

  /** @returns {ClientMessage} */
  #hello() {
    const resume = this.#storage.get();
    return {
      type: 'hello',
      version: PROTOCOL_VERSION,
      tenant: this.#tenant,
      instance: this.#instance,
      ...(this.#secret !== null && { secret: this.#secret }),
      ...(resume !== null && { resume }),
      ...(this.#takeOver && { takeOver: true }),
      ...(this.#language !== null && { language: this.#language }),
    };
  }

  /** Send now or say that it was not: a command that arrives minutes later would surprise everybody. @param {ClientMessage} message */
  #command(message) {
    if (!this.#signalling.send(message)) this.#emit('problem', { code: 'offline', message: '', re: message.type });
  }

  /** @param {'waiting' | 'joined' | 'left'} wish */
  #want(wish) {
    this.#wants = wish;
    this.#pursue();
  }

  /** Ask the server for what the person wants, if it is the server's turn to grant it. */
  #pursue() {
    const message = nextStep(this.#wants, this.#state, this.media);
    if (message === null || !this.#signalling.online) return;
    this.#signalling.send(message);
  }

  /** While offline or outside, not: the next `join` or resumption says it. */
  #tellMedia() {
    if (this.#state === 'joined' && this.#media !== null) this.#signalling.send({ type: 'setMedia', ...this.#media });
  }

  // -- incoming ---------------------------------------------------------------------------------------------------------

  /** @param {ServerMessage} message */
  #receive(message) {
    if (this.#paths.receive(message)) return;
    switch (message.type) {
      case 'peerCandidate':
        this.#peers.get(message.from)?.receiveCandidate(message.instance, message.candidate);
        break;
      case 'peerDescription':
        this.#peers.get(message.from)?.receiveDescription(message.instance, message.description);
        break;
      case 'peerDistrusts':
        this.#peers.get(message.from)?.receiveDistrust(message.instance);
        break;
      case 'welcome':
        this.#self = { id: message.id, role: message.role, name: message.name, room: message.room };
        this.#takeOver = false;
        this.#storage.set(message.resume);
        if (message.state === 'arrived') this.#onState({ type: 'state', state: 'arrived' }); // otherwise `state` follows
        break;
      case 'state':
        this.#onState(message);
        break;
      case 'peerJoined':
        this.#updatePeer(message.peer);
        break;
      case 'peerChanged':
        this.#updatePeer(message.peer, true);
        break;
      case 'peerLeft':
        this.#dropPeer(message.id, message.why);
        break;
      case 'iceServers':
        this.#takeIceServers(message.iceServers);
        break;
      case 'speakers':
        this.#emit('speakers', { participants: message.participants });
        break;
      case 'visitors':
        this.#visitors = message.visitors;
        this.#emit('visitors', { visitors: this.#visitors });
        break;
      case 'told':
        this.#emit('told', { text: message.text });
        break;
      case 'problem':
        this.#onProblem(message);
        break;
      case 'occupied':
        this.#signalling.close();
        this.#closePeers(); // taken while we were away
        if (this.#state !== 'connecting') this.#setState('connecting');
        this.#emit('occupied', {});
        break;
      case 'refused':
        this.#onRefused(message.code, message.message, message.reason ?? '', message.retry ?? false);
        break;
      case 'transferred':
        this.#onTransferred(message.secret);
        break;
      case 'roomEnded':
        this.#stop();
        this.#storage.set(null);
        this.#setState('ended', { reason: message.reason ?? '' });
        this.#emit('ended', { by: message.by, reason: message.reason ?? '' });
        break;
      case 'goingAway':
        this.#emit('goingaway', { retryAfterMs: message.retryAfterMs });
        break;
    }
  }

  /** @param {Extract<ServerMessage, {type: 'state'}>} message */
  #onState(message) {
    if (message.iceServers) this.#takeIceServers(message.iceServers);
    if (message.state === 'waiting' && (this.#state === 'joined' || this.#state === 'admitted')) this.#wants = 'waiting'; // sent back
    // A server that restarted takes us for somebody who left: the conversation goes on while we join again.
    const resuming = message.state === 'admitted' && this.#wants === 'joined';
    if (message.state !== 'joined' && !resuming) this.#closePeers();
    if (resuming) this.#paths.forgetRelay();
    this.#setState(message.state, { place: message.place ?? null, expected: message.expected ?? false, reason: message.reason ?? '' });
    if (message.state === 'joined') {
      const moved = this.#moved;
      this.#paths.start(message.path ?? 'direct'); // before the peers: what they are sent depends on it
      this.#updatePeers(message.peers ?? []);
      this.#paths.weAreBack(moved);
      this.#poller.start();
      this.#tellMedia(); // it may have changed since the `join`, or while we were away
    }
    this.#pursue();
  }

  /** The whole list, after joining or resuming. @param {PeerInfo[]} infos */
  #updatePeers(infos) {
    const moved = this.#moved;
    this.#moved = false;
    const present = new Set(infos.map((info) => info.id));
    for (const peer of [...this.#peers.values()]) {
      if (present.has(peer.id)) continue;
      if (peer.media !== 'connected') this.#dropPeer(peer.id, 'left');
      else this.#unconfirmed.add(peer.id); // the server has restarted, and they have not come back to it yet
    }
    if (this.#unconfirmed.size > 0) this.#platform.setTimeout(() => this.#dropUnconfirmed(), CONFIRM_PEERS_MS);
    for (const info of infos) {
      const kept = this.#peers.get(info.id)?.instance === info.instance;
      this.#updatePeer(info);
      if (kept) this.#peers.get(info.id)?.weAreBack(moved);
    }
  }

  #dropUnconfirmed() {
    for (const id of this.#unconfirmed) this.#dropPeer(id, 'left');
    this.#unconfirmed.clear();
  }

  /** @param {PeerInfo} info @param {boolean} [news] see `Peer.update` */
  #updatePeer(info, news = false) {
    this.#unconfirmed.delete(info.id);
    const known = this.#peers.get(info.id);
    if (known) {
      known.update(info, news);
      this.#emit('peerchanged', { peer: known });
      return;
    }
    const peer = new Peer(info, {
      platform: this.#platform,
      log: this.#log,
      receiveOnly: this.#self?.role === 'observer',
      tracks: this.#tracks,
      iceServers: () => this.#iceServers,
      freshIceServers: (maxAgeMs) => this.#freshIceServers(maxAgeMs),
      online: () => this.#signalling.online,
      send: (message) => this.#signalling.send(message),
      suspectNetwork: () => this.#signalling.suspect(),
      askForRestart: () => this.#askForRestart(),
      sendsDirect: () => this.#paths.sendsDirect,
      onTrack: (track) => this.#emit('track', { peerId: info.id, source: '', track, stream: peer.stream }),
      onLink: () => this.#paths.review(),
      onMedia: (state, reason) => this.#emit('media', { peerId: info.id, state, reason }),
    });
    this.#peers.set(info.id, peer);
    this.#emit('peerjoined', { peer });
    peer.open();
    this.#paths.assign(); // the media server may have been first
  }

  /** @param {string} id @param {string} why */
  #dropPeer(id, why) {
    const peer = this.#peers.get(id);
    if (!peer) return;
    this.#peers.delete(id);
    peer.close();
    this.#paths.drop(id);
    this.#emit('peerleft', { id, why });
  }

  /** @param {Extract<ServerMessage, {type: 'problem'}>} problem */
  #onProblem({ code, message, re }) {
    this.#log.info('problem', { code, re });
    // A candidate that crosses somebody's departure on the wire is nobody's problem.
    const crossing = (re === 'candidate' || re === 'description' || re === 'distrust') && code !== 'bad_sdp';
    if (re === 'relayOffer') this.#paths.refuse(code); // the person can do nothing about it, and what is direct goes on
    else if (!crossing && !QUIET.has(re)) this.#emit('problem', { code, message, re });
  }

  /** @param {string} code @param {string} message @param {string} reason @param {boolean} retry */
  #onRefused(code, message, reason, retry) {
    this.#log.info('refused', { code, retry });
    if (!retry) {
      this.#stop();
      this.#storage.set(null);
      this.#setState('refused', { reason });
    }
    this.#emit('refused', { code, message, reason, retry });
  }

  /** @param {string} secret */
  #onTransferred(secret) {
    this.#closePeers();
    this.#secret = secret;
    this.#storage.set(null);
    if (this.#wants === 'joined') this.#wants = 'waiting';
    this.#setState('connecting');
    this.#emit('transferred', { secret });
    this.#signalling.open();
  }

  // -- the network ------------------------------------------------------------------------------------------------------

  /** @param {boolean} online @param {boolean} networkMayHaveChanged */
  #onOnline(online, networkMayHaveChanged) {
    if (online) {
      if (networkMayHaveChanged && !this.#asking) this.#moved = true;
      this.#asking = false;
    }
    this.#emit('signalling', { online });
  }

  #askForRestart() {
    if (!this.#signalling.online) return;
    this.#asking = true;
    this.#signalling.wake(true);
  }

  /** @param {Event} event */
  #onWake = (event) => {
    if (event.type === 'online') this.#asking = false;
    this.#signalling.wake(event.type === 'online');
  };

  /** @param {IceServer[]} iceServers */
  #takeIceServers(iceServers) {
    this.#iceServers = iceServers;
    this.#iceServersAt = this.#platform.now();
    for (const resolve of this.#iceServersWaiters.splice(0)) resolve();
  }

  /** @param {number} maxAgeMs @returns {Promise<IceServer[]>} servers with credentials this young, or after 1 s those we have */
  async #freshIceServers(maxAgeMs) {
    if (this.#platform.now() - this.#iceServersAt > maxAgeMs) {
      await new Promise((resolve) => {
        if (this.#iceServersWaiters.length === 0) this.#signalling.send({ type: 'refreshIceServers' });
        this.#iceServersWaiters.push(() => resolve(undefined));
        this.#platform.setTimeout(() => resolve(undefined), ICE_SERVERS_TIMEOUT_MS);
      });
    }
    return this.#iceServers;
  }

  // -- the end ----------------------------------------------------------------------------------------------------------

  #stop() {
    for (const type of WAKING_EVENTS) this.#environment.removeEventListener(type, this.#onWake);
    this.#signalling.close();
    this.#closePeers();
    this.#wants = null;
    this.#takeOver = false;
    this.#visitors = [];
  }

  #closePeers() {
    this.#poller.stop();
    this.#paths.stop();
    for (const id of [...this.#peers.keys()]) this.#dropPeer(id, 'left');
  }

  /** @param {ClientState} state @param {{place?: number | null, expected?: boolean, reason?: string}} [facts] */
  #setState(state, facts = {}) {
    if (state !== this.#state) this.#log.info('state', { state });
    this.#state = state;
    this.#emit('state', { state, place: facts.place ?? null, expected: facts.expected ?? false, reason: facts.reason ?? '' });
  }

  /** @param {string} type @param {object} detail */
  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

/** After which the link to the server may be dead without anybody having said so. `visibilitychange` bubbles to the window. */
const WAKING_EVENTS = ['online', 'visibilitychange', 'pageshow'];

/** What is said without anybody having asked for it: no sentence for people when it crosses something on the wire. */
const QUIET = new Set(['wishes', 'pathReport', 'moveReady', 'moveFailed']);

/** @type {ReadonlySet<ClientState>} */
const PRESENT = new Set(['arrived', 'waiting', 'admitted', 'joined']);

/**
 * Return the message that brings the server's state closer to what the person wants, or null when it is not ours to move.
 *
 * @param {'waiting' | 'joined' | 'left' | null} wants
 * @param {ClientState} state
 * @param {{microphone: TrackState, camera: TrackState}} media
 * @returns {ClientMessage | null}
 */
function nextStep(wants, state, media) {
  if (wants === 'left') return PRESENT.has(state) ? { type: 'leave' } : null;
  if (wants !== null && state === 'arrived') return { type: 'ready' };
  if (wants === 'joined' && (state === 'admitted' || state === 'left')) return { type: 'join', ...media };
  return null;
}

/** @returns {ResumeStorage} */
function memoryStorage() {
  /** @type {string | null} */
  let kept = null;
  return { get: () => kept, set: (resume) => void (kept = resume) };
}
