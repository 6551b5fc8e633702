/**
 * Stand-ins for the browser: a clock that moves when told, sockets that a test plays the server of, and peer connections that follow
 * the signalling state machine of W3C WebRTC section 4.3.3 closely enough to refuse what a browser refuses.
 */

import { Log } from '../../../web/static/js/rtc/log.js';

// Node 18 has no CustomEvent; browsers and later Nodes do.
globalThis.CustomEvent ??= class CustomEvent extends Event {
  constructor(type, init) {
    super(type, init);
    this.detail = init?.detail ?? null;
  }
};

export const silent = new Log('silent');

/** Let everything that has been promised happen. */
export const settle = () => new Promise((resolve) => setImmediate(resolve));

export class FakeClock {
  time = 0;
  #timers = new Map();
  #next = 1;

  setTimeout = (job, ms) => {
    this.#timers.set(this.#next, { at: this.time + ms, job });
    return this.#next++;
  };

  clearTimeout = (timer) => void this.#timers.delete(timer);

  /** Move time, firing what is due in order. */
  async advance(ms) {
    const end = this.time + ms;
    for (;;) {
      await settle();
      const due = [...this.#timers].filter(([, { at }]) => at <= end).sort(([, a], [, b]) => a.at - b.at)[0];
      if (!due) break;
      const [timer, { at, job }] = due;
      this.#timers.delete(timer);
      this.time = Math.max(this.time, at);
      job();
    }
    this.time = end;
    await settle();
  }
}

export class FakeWebSocket {
  static all = [];
  static get last() {
    return FakeWebSocket.all.at(-1);
  }

  readyState = 0;
  sent = [];

  constructor(url) {
    this.url = url;
    FakeWebSocket.all.push(this);
  }

  send(text) {
    if (this.readyState !== 1) throw new DOMException('not open', 'InvalidStateError');
    this.sent.push(JSON.parse(text));
  }

  close() {
    this.readyState = 3;
  }

  // What the network does:

  accept() {
    this.readyState = 1;
    this.onopen?.({});
  }

  say(message) {
    this.onmessage?.({ data: typeof message === 'string' ? message : JSON.stringify(message) });
  }

  welcome(facts = {}) {
    this.accept();
    this.say({ ...WELCOME, ...facts });
  }

  drop(code = 1006) {
    this.readyState = 3;
    this.onclose?.({ code });
  }

  /** The types of what was sent. */
  get types() {
    return this.sent.map((message) => message.type);
  }
}

export const WELCOME = {
  type: 'welcome',
  version: 1,
  id: 'me',
  role: 'clinician',
  name: 'Dr Canary',
  state: 'admitted',
  resume: 'resume-1',
  language: 'fr',
  room: 'room',
  pingIntervalMs: 1500,
  deadAfterMs: 4000,
};

export class FakeMediaStream {
  #tracks;

  constructor(tracks = []) {
    this.#tracks = new Set(tracks);
  }

  getTracks() {
    return [...this.#tracks];
  }

  addTrack(track) {
    this.#tracks.add(track);
  }

  removeTrack(track) {
    this.#tracks.delete(track);
  }
}

export class FakeTrack extends EventTarget {
  enabled = true;
  muted = false;
  readyState = 'live';
  contentHint = '';
  /** Packets or frames that have arrived, as `getStats` tells. */
  arrived = 0;
  /** Seconds that all of them together have waited before they were heard. */
  waited = 0;
  static #serial = 0;
  id = `track-${++FakeTrack.#serial}`;

  constructor(kind, label = kind, deviceId = label) {
    super();
    this.kind = kind;
    this.label = label;
    this.deviceId = deviceId;
  }

  getSettings() {
    return { deviceId: this.deviceId };
  }

  stop() {
    this.readyState = 'ended';
  }

  end() {
    this.readyState = 'ended';
    this.dispatchEvent(new Event('ended'));
  }

  setMuted(muted) {
    this.muted = muted;
    this.dispatchEvent(new Event(muted ? 'mute' : 'unmute'));
  }
}

/** The wires between fake peer connections: two of them connect when each holds the other's newest description. */
export class FakeNetwork {
  byUfrag = new Map();
  /** Cut: nothing connects, and what was connected is told so. */
  up = true;

  meet(connection) {
    const other = this.byUfrag.get(ufragOf(connection.remoteDescription));
    const mutual = other && this.up && ufragOf(other.remoteDescription) === ufragOf(connection.localDescription);
    if (!mutual || connection.signalingState !== 'stable' || other.signalingState !== 'stable') return;
    for (const end of [connection, other]) end.setState('connected', 'connected');
  }
}

const ufragOf = (description) => /^a=ice-ufrag:(\S+)/m.exec(description?.sdp ?? '')?.[1];

let serial = 0;

export function fakePeerConnection(network) {
  return class FakePeerConnection {
    static all = [];

    signalingState = 'stable';
    iceConnectionState = 'new';
    connectionState = 'new';
    localDescription = null;
    remoteDescription = null;
    #before = null;
    #session = ++serial;
    #version = 0;
    #ufrag = null;
    #needsNegotiation = false;
    #restartWanted = false;
    #transceivers = [];
    candidates = [];
    sentBytes = 0;
    /** Checks that the other end has answered; undefined: not counted. */
    answers = undefined;
    /** What the other end says of what we send. */
    remoteReport = null;
    closed = false;

    constructor(configuration) {
      this.configuration = configuration;
      FakePeerConnection.all.push(this);
    }

    addTransceiver(trackOrKind, { direction, streams, sendEncodings }) {
      const kind = typeof trackOrKind === 'string' ? trackOrKind : trackOrKind.kind;
      const transceiver = this.#transceiver(kind, direction);
      transceiver.sender.track = typeof trackOrKind === 'string' ? null : trackOrKind;
      transceiver.streams = streams;
      if (sendEncodings) transceiver.sender.parameters = { encodings: structuredClone(sendEncodings) };
      this.#needNegotiation();
      return transceiver;
    }

    createDataChannel(label, options) {
      this.channel = { label, ...options };
      this.#needNegotiation();
      return this.channel;
    }

    getTransceivers() {
      return this.#transceivers;
    }

    setConfiguration(configuration) {
      this.configuration = configuration;
    }

    /** What `sentBytes`, `remoteReport` and the tracks' `arrived` say; the path itself takes 20 ms. */
    async getStats() {
      const entries = [{ id: 'pair', type: 'candidate-pair', selected: true, ...(this.connectionState === 'connected' && { currentRoundTripTime: 0.02 }), responsesReceived: this.answers }];
      entries.push({ id: 'out', type: 'outbound-rtp', kind: 'video', bytesSent: this.sentBytes });
      if (this.remoteReport) entries.push({ id: 'remote', type: 'remote-inbound-rtp', ...this.remoteReport });
      for (const { kind, receiver } of this.#transceivers) {
        const { id, arrived, waited } = receiver.track;
        entries.push({ id: `in-${id}`, type: 'inbound-rtp', kind, trackIdentifier: id, packetsReceived: arrived, framesDecoded: arrived, bytesReceived: arrived, jitterBufferDelay: waited, jitterBufferEmittedCount: arrived });
      }
      return new Map(entries.map((entry) => [entry.id, entry]));
    }

    restartIce() {
      if (this.localDescription === null) return;
      this.#restartWanted = true;
      this.#needNegotiation();
    }

    async setLocalDescription(description) {
      await null;
      if (this.closed) throw new DOMException('closed', 'InvalidStateError');
      if (description?.type === 'rollback') return this.#rollback();
      const type = this.signalingState === 'have-remote-offer' ? 'answer' : 'offer';
      if (this.#restartWanted && type === 'offer') {
        this.#ufrag = null;
        this.#restartWanted = false;
      }
      this.#ufrag ??= `u${++serial}`;
      for (const [index, transceiver] of this.#transceivers.entries()) transceiver.mid ??= String(index);
      network.byUfrag.set(this.#ufrag, this);
      const kinds = this.#transceivers.map(({ kind }) => `m=${kind} 9 UDP/TLS/RTP/SAVPF 96\r\n`).join('');
      const sdp = `v=0\r\no=- ${this.#session} ${++this.#version} IN IP4 127.0.0.1\r\na=ice-ufrag:${this.#ufrag}\r\n${kinds}`;
      if (type === 'offer') {
        if (this.signalingState === 'stable') this.#before = this.localDescription; // another offer may follow an unanswered one
        else if (this.signalingState !== 'have-local-offer') throw new DOMException(this.signalingState, 'InvalidStateError');
        this.signalingState = 'have-local-offer';
      } else {
        this.#becomeStable();
      }
      this.localDescription = { type, sdp };
      this.#gather();
      network.meet(this);
    }

    async setRemoteDescription({ type, sdp }) {
      await null;
      if (this.closed) throw new DOMException('closed', 'InvalidStateError');
      if (sdp === 'bad') throw new DOMException('a line of it', 'InvalidAccessError');
      if (type === 'answer' && this.signalingState !== 'have-local-offer') throw new DOMException(this.signalingState, 'InvalidStateError');
      if (type === 'offer' && this.signalingState === 'have-local-offer') this.#rollback();
      const before = ufragOf(this.remoteDescription);
      this.remoteDescription = { type, sdp };
      if (type === 'offer') {
        this.signalingState = 'have-remote-offer';
        if (before !== undefined && before !== ufragOf({ sdp })) {
          this.#ufrag = null; // RFC 8445: an ICE restart is mutual
          this.#restartWanted = false;
        }
        for (const [, kind] of sdp.matchAll(/^m=(\w+)/gm)) {
          if (this.#transceivers.some((transceiver) => transceiver.kind === kind)) continue;
          this.#transceiver(kind, 'recvonly');
        }
        this.#announce();
      } else {
        this.#announce();
        this.#becomeStable();
        network.meet(this);
      }
    }

    async addIceCandidate(candidate) {
      await null;
      if (this.remoteDescription === null) throw new DOMException('no remote description', 'InvalidStateError');
      if (candidate.usernameFragment !== ufragOf(this.remoteDescription)) throw new DOMException('unknown ufrag', 'OperationError');
      this.candidates.push(candidate);
    }

    close() {
      this.closed = true;
      this.signalingState = 'closed';
    }

    // What the network does:

    setState(ice, connection) {
      if (this.closed || (this.iceConnectionState === ice && this.connectionState === connection)) return;
      this.iceConnectionState = ice;
      this.connectionState = connection;
      this.oniceconnectionstatechange?.({});
    }

    #transceiver(kind, direction) {
      const sender = {
        track: null,
        parameters: { encodings: [{}] },
        getParameters: () => structuredClone(sender.parameters),
        setParameters: async (parameters) => void (sender.parameters = parameters),
        replaceTrack: async (track) => void (sender.track = track),
        setStreams: (...streams) => void (transceiver.streams = streams),
      };
      const track = new FakeTrack(kind, `remote ${kind}`);
      track.muted = true;
      const setCodecPreferences = (codecs) => void (transceiver.codecs = codecs);
      const transceiver = { kind, mid: null, setCodecPreferences, direction, sender, receiver: { track }, announced: false, streams: [] };
      this.#transceivers.push(transceiver);
      return transceiver;
    }

    #announce() {
      for (const transceiver of this.#transceivers) {
        if (!transceiver.announced) this.ontrack?.({ track: transceiver.receiver.track, transceiver });
        transceiver.announced = true;
      }
    }

    #rollback() {
      if (this.signalingState !== 'have-local-offer') throw new DOMException(this.signalingState, 'InvalidStateError');
      this.localDescription = this.#before;
      this.signalingState = 'stable';
      if (this.#before !== null) this.#ufrag = ufragOf(this.#before);
      this.#needNegotiation();
    }

    #becomeStable() {
      this.signalingState = 'stable';
      this.#needsNegotiation = false;
      if (this.#restartWanted) this.#needNegotiation();
    }

    #needNegotiation() {
      this.#needsNegotiation = true;
      setImmediate(() => {
        if (this.#needsNegotiation && this.signalingState === 'stable') this.onnegotiationneeded?.({});
      });
    }

    #gather() {
      const usernameFragment = this.#ufrag;
      setImmediate(() => {
        const candidate = { candidate: `candidate:${usernameFragment}`, sdpMid: '0', sdpMLineIndex: 0, usernameFragment, foundation: 'x' };
        this.onicecandidate?.({ candidate });
        this.onicecandidate?.({ candidate: null });
      });
    }
  };
}

/** A whole `Platform`, with its clock. */
export function fakePlatform(network = new FakeNetwork()) {
  FakeWebSocket.all = [];
  const clock = new FakeClock();
  let uuids = 0;
  return {
    clock,
    network,
    now: () => clock.time,
    setTimeout: clock.setTimeout,
    clearTimeout: clock.clearTimeout,
    random: () => 0.999,
    randomUUID: () => `instance-${++uuids}`,
    WebSocket: FakeWebSocket,
    RTCPeerConnection: fakePeerConnection(network),
    MediaStream: FakeMediaStream,
    codecs: () => [],
    efficientCodecs: async () => [],
  };
}
