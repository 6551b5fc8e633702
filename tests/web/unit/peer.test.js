import assert from 'node:assert/strict';
import { beforeEach, describe, test } from 'node:test';

import { Log } from '../../../web/static/js/rtc/log.js';
import { Peer } from '../../../web/static/js/rtc/peer.js';
import { FakeNetwork, FakeTrack, fakePeerConnection, fakePlatform, settle } from './fakes.js';

/**
 * Two participants and the server between them. `a` is the impolite one (a clinician), `b` the polite one.
 * What they send is delivered by `run()`, or lost while the sender or the receiver is away.
 */
class Pair {
  constructor() {
    this.platform = fakePlatform(new FakeNetwork());
    this.wire = [];
    this.warnings = [];
    /** Says which messages get lost. */
    this.lose = () => false;
    this.ends = {};
    for (const [name, other, polite] of [['a', 'b', false], ['b', 'a', true]]) this.seat(name, other, polite);
  }

  seat(name, other, polite, instance = `${name}1`) {
    const end = (this.ends[name] = {
      name,
      other,
      polite,
      instance,
      online: true,
      refreshed: 0,
      tracks: { audio: new FakeTrack('audio', `${name} audio`), video: new FakeTrack('video', `${name} video`) },
      shown: [],
      media: [],
      suspected: 0,
      asked: 0,
      sendsDirect: true,
      /** What `paths.js` does several times a second. */
      look: (preferred = 'direct', relayed = 'connecting') => end.peer.review(preferred, relayed, (track) => track.goesOn),
      // Each page has its own RTCPeerConnection class, to count its instances.
      platform: { ...this.platform, RTCPeerConnection: fakePeerConnection(this.platform.network) },
    });
    const host = {
      platform: end.platform,
      log: new Log('warning', (_, line) => this.warnings.push(line)),
      receiveOnly: false,
      tracks: end.tracks,
      iceServers: () => [{ urls: ['turn:old'] }],
      freshIceServers: async () => {
        end.refreshed += 1;
        return [{ urls: ['turn:fresh'] }];
      },
      online: () => end.online,
      send: (message) => end.online && (this.wire.push({ from: end, message }), true),
      suspectNetwork: () => (end.suspected += 1),
      askForRestart: () => (end.asked += 1),
      sendsDirect: () => end.sendsDirect,
      onTrack: (track) => end.shown.push(track),
      onLink: () => end.look(),
      onMedia: (state, reason) => end.media.push(reason ? `${state}: ${reason}` : state),
    };
    end.host = host;
    end.open = (info = {}) => {
      end.peer = new Peer(this.info(name, info), host);
      end.peer.open();
    };
    return end;
  }

  /** What `name` is told of the other end. */
  info(name, facts = {}) {
    const { other, polite } = this.ends[name];
    return { id: other, role: 'patient', name: 'Canary', connection: 'online', microphone: 'on', camera: 'on', instance: this.ends[other].instance, polite, ...facts };
  }

  open() {
    this.ends.a.open();
    this.ends.b.open();
  }

  /** Deliver until nobody says anything more. */
  async run() {
    for (let quiet = 0; quiet < 4; quiet++) {
      await settle();
      while (this.wire.length) {
        quiet = 0;
        const { from, message } = this.wire.shift();
        const to = this.ends[from.other];
        if (!to.online || this.lose(from.name, message)) continue;
        if (message.type === 'distrust') to.peer.receiveDistrust(from.instance);
        else if (message.type === 'description') to.peer.receiveDescription(from.instance, structuredClone(message.description));
        else to.peer.receiveCandidate(from.instance, structuredClone(message.candidate));
        await settle();
      }
    }
  }

  /** Let time pass, delivering. */
  async advance(ms) {
    for (let passed = 0; passed < ms; passed += 100) {
      await this.platform.clock.advance(100);
      await this.run();
    }
  }

  /** The newest RTCPeerConnection of an end. */
  connection(name) {
    return this.ends[name].platform.RTCPeerConnection.all.at(-1);
  }

  count(name) {
    return this.ends[name].platform.RTCPeerConnection.all.length;
  }

  bothStable() {
    for (const name of ['a', 'b']) assert.equal(this.connection(name).signalingState, 'stable', name);
    assert.equal(ufrag(this.connection('a').localDescription), ufrag(this.connection('b').remoteDescription));
    assert.equal(ufrag(this.connection('b').localDescription), ufrag(this.connection('a').remoteDescription));
  }

  /** Break the path, as seen by both. */
  disconnect(state = 'disconnected') {
    for (const name of ['a', 'b']) this.connection(name).setState(state, state);
  }
}

const ufrag = (description) => /^a=ice-ufrag:(\S+)/m.exec(description.sdp)[1];

let pair;
beforeEach(() => (pair = new Pair()));

describe('the first negotiation', () => {
  test('one offer, by the impolite side, and both are connected', async () => {
    const said = [];
    pair.lose = (from, message) => (message.type === 'description' && said.push(`${from} ${message.description.type}`), false);
    pair.open();
    await pair.run();
    assert.deepEqual(said, ['a offer', 'b answer']);
    pair.bothStable();
    assert.deepEqual(pair.ends.a.media, ['connected']);
    assert.deepEqual(pair.ends.b.media, ['connected']);
  });

  test('sections are made up front, both ways, tied together for lip-sync, with a data channel', async () => {
    pair.open();
    await pair.run();
    for (const name of ['a', 'b']) {
      const connection = pair.connection(name);
      assert.deepEqual(connection.getTransceivers().map(({ kind, direction }) => [kind, direction]), [['audio', 'sendrecv'], ['video', 'sendrecv']]);
      assert.deepEqual(connection.getTransceivers().map(({ sender }) => sender.track.label), [`${name} audio`, `${name} video`]);
      const [[audioStream], [videoStream]] = connection.getTransceivers().map(({ streams }) => streams);
      assert.ok(audioStream && audioStream === videoStream);
      assert.deepEqual(connection.channel, { label: 'colloque', negotiated: true, id: 0 });
      assert.equal(connection.configuration.bundlePolicy, 'max-bundle');
      assert.equal(connection.configuration.rtcpMuxPolicy, 'require');
      }
  });

  test('without devices the sections are there all the same, and a device needs no negotiation', async () => {
    for (const name of ['a', 'b']) pair.ends[name].tracks.video = null;
    pair.open();
    await pair.run();
    const before = pair.connection('b').localDescription;
    for (const name of ['a', 'b']) {
      pair.ends[name].tracks.video = new FakeTrack('video', 'new');
      pair.ends[name].peer.setTrack('video');
    }
    await pair.run();
    for (const name of ['a', 'b']) assert.equal(pair.connection(name).getTransceivers()[1].sender.track.label, 'new');
    assert.equal(pair.connection('b').localDescription, before);
  });

  test('an observer receives only', async () => {
    pair.ends.b.host.receiveOnly = true;
    pair.open();
    await pair.run();
    const transceivers = pair.connection('b').getTransceivers();
    assert.deepEqual(transceivers.map(({ direction, sender }) => [direction, sender.track]), [['recvonly', null], ['recvonly', null]]);
  });

  test('candidates carry the four members of RTCIceCandidateInit, follow their description, and the early ones are kept', async () => {
    pair.open();
    await settle();
    await settle();
    const [offer, ...candidates] = pair.wire.splice(0).map(({ message }) => message);
    assert.equal(offer.type, 'description');
    assert.deepEqual(Object.keys(candidates[0].candidate).sort(), ['candidate', 'sdpMLineIndex', 'sdpMid', 'usernameFragment']);
    for (const { candidate } of candidates) pair.ends.b.peer.receiveCandidate('a1', candidate);
    await settle();
    assert.deepEqual(pair.connection('b').candidates, []);
    pair.ends.b.peer.receiveDescription('a1', offer.description);
    await pair.run();
    assert.equal(pair.connection('b').candidates.length, candidates.length);
  });

  test('a lost first offer is sent again when the other end is back', async () => {
    pair.lose = () => true;
    pair.ends.a.open({ connection: 'reconnecting' });
    await pair.run();
    pair.lose = () => false;
    pair.ends.b.open();
    pair.ends.a.peer.update(pair.info('a'));
    await pair.run();
    pair.bothStable();
    assert.equal(pair.ends.b.peer.media, 'connected');
  });

  test('a lost answer is asked for again in time', async () => {
    pair.lose = (from, message) => from === 'b' && message.type === 'description';
    pair.open();
    await pair.run();
    pair.lose = () => false;
    await pair.advance(8000);
    assert.equal(pair.ends.a.peer.media, 'connected');
    assert.equal(pair.ends.b.peer.media, 'connected');
  });

  test('a description that does not apply does not stop the next one', async () => {
    pair.open();
    pair.ends.b.peer.receiveDescription('a1', { type: 'offer', sdp: 'bad' });
    await pair.run();
    await pair.advance(10_000);
    pair.bothStable();
    assert.equal(pair.ends.b.peer.media, 'connected');
  });
});

describe('glare', () => {
  beforeEach(async () => {
    pair.open();
    await pair.run();
  });

  test('when offers cross, the polite side rolls back and answers, the impolite side ignores', async () => {
    for (const name of ['a', 'b']) pair.connection(name).restartIce();
    for (let i = 0; i < 5; i++) await settle();
    const offers = pair.wire.filter(({ message }) => message.description?.type === 'offer').map(({ from }) => from.name);
    assert.deepEqual(offers.sort(), ['a', 'b'], 'they do cross');
    await pair.run();
    pair.bothStable();
    assert.equal(pair.count('a'), 1);
    assert.equal(pair.count('b'), 1);
  });

  test('an impolite offer that got lost is said again when the polite one offers', async () => {
    pair.lose = (from) => from === 'a';
    pair.ends.a.peer.weAreBack(true);
    await pair.run();
    assert.equal(pair.connection('a').signalingState, 'have-local-offer');
    pair.lose = () => false;
    pair.connection('b').restartIce();
    await pair.run();
    pair.bothStable();
  });

  test('an answer to an offer that was taken back is ignored', async () => {
    const answer = { ...pair.connection('b').localDescription };
    pair.ends.a.peer.receiveDescription('b1', answer);
    await pair.run();
    pair.bothStable();
    assert.deepEqual(pair.warnings, []);
  });
});

describe('the network changes', () => {
  beforeEach(async () => {
    pair.open();
    await pair.run();
    for (const name of ['a', 'b']) pair.ends[name].media.length = pair.ends[name].refreshed = 0;
  });

  /** Tell an end what the server says when the other one opens a new socket. */
  const reattached = (name) => pair.ends[name].peer.update(pair.info(name), true);

  for (const mover of ['a', 'b']) {
    test(`${mover} moves: ICE restarts with fresh servers on both sides, on the same connection, without crossing offers`, async () => {
      const before = ufrag(pair.connection('a').localDescription);
      const said = [];
      pair.lose = (from, message) => (message.type === 'description' && said.push(`${from} ${message.description.type}`), false);
      pair.ends[mover].peer.weAreBack(true);
      reattached(mover === 'a' ? 'b' : 'a');
      await pair.run();
      pair.bothStable();
      assert.deepEqual(said, ['a offer', 'b answer']);
      assert.notEqual(ufrag(pair.connection('a').localDescription), before);
      for (const name of ['a', 'b']) {
        assert.equal(pair.ends[name].refreshed, 1);
        assert.deepEqual(pair.connection(name).configuration.iceServers, [{ urls: ['turn:fresh'] }]);
        assert.equal(pair.connection(name).configuration.iceCandidatePoolSize, 1, 'or setConfiguration would refuse');
        assert.equal(pair.count(name), 1);
      }
    });
  }

  test('the other end was away: the impolite side restarts, the polite side waits', async () => {
    const before = ufrag(pair.connection('a').localDescription);
    pair.ends.b.peer.update(pair.info('b', { connection: 'reconnecting' }), true);
    pair.ends.b.peer.update(pair.info('b'), true);
    await pair.run();
    assert.equal(ufrag(pair.connection('a').localDescription), before);
    pair.ends.a.peer.update(pair.info('a', { connection: 'reconnecting' }), true);
    pair.ends.a.peer.update(pair.info('a'), true);
    await pair.run();
    assert.notEqual(ufrag(pair.connection('a').localDescription), before);
    pair.bothStable();
  });

  test('a restart offer that went to a dead socket is sent again when they are back, not made anew', async () => {
    pair.lose = (from) => from === 'a';
    pair.ends.a.peer.weAreBack(true);
    await pair.run();
    const offer = pair.connection('a').localDescription;
    assert.equal(offer.type, 'offer');
    pair.lose = () => false;
    reattached('a');
    await pair.run();
    assert.equal(pair.connection('a').localDescription, offer);
    pair.bothStable();
  });

  test('moving while an offer waits: it is sent again, nothing is rolled back, and the restart follows the answer', async () => {
    pair.lose = (from) => from === 'a';
    pair.ends.a.peer.weAreBack(true);
    await pair.run();
    const offer = pair.connection('a').localDescription;
    pair.lose = () => false;
    const said = [];
    pair.lose = (from, message) => (message.type === 'description' && said.push([from, ufrag(message.description)]), false);
    pair.connection('a').setLocalDescription = new Proxy(pair.connection('a').setLocalDescription, {
      apply: (method, connection, [description]) => (assert.notEqual(description?.type, 'rollback'), Reflect.apply(method, connection, [description])),
    });
    pair.ends.a.peer.weAreBack(true);
    await pair.run();
    assert.deepEqual(said.map(([from]) => from), ['a', 'b', 'a', 'b']);
    assert.equal(said[0][1], ufrag(offer));
    assert.notEqual(said[2][1], ufrag(offer));
    pair.bothStable();
  });

  test('a camera that goes off, or a list of everybody, restarts nothing', async () => {
    const before = pair.connection('a').localDescription;
    pair.ends.a.peer.update(pair.info('a', { camera: 'off' }), true);
    pair.ends.a.peer.update(pair.info('a', { camera: 'off' }));
    await pair.run();
    assert.equal(pair.connection('a').localDescription, before);
  });

  test('the polite side asks when it sees nobody act', async () => {
    pair.lose = () => true;
    pair.disconnect();
    await pair.advance(2900);
    assert.equal(pair.ends.b.asked, 0);
    await pair.advance(200);
    assert.equal(pair.ends.b.asked, 1);
    assert.equal(pair.connection('b').signalingState, 'stable', 'and does not offer');
  });

  test('disconnected for 1.5 s: restart; shorter: none; the signalling is suspected too', async () => {
    pair.disconnect();
    assert.deepEqual(pair.ends.a.media, ['interrupted']);
    assert.equal(pair.ends.a.suspected, 1);
    await pair.advance(1400);
    assert.equal(pair.ends.a.refreshed, 0);
    await pair.advance(200);
    assert.equal(pair.ends.a.refreshed, 1);
    assert.equal(pair.ends.b.asked, 0, 'the polite side leaves it to the other');
    assert.deepEqual(pair.ends.a.media, ['interrupted', 'connected']);
  });

  test('a shadow that passes restarts nothing', async () => {
    pair.disconnect();
    await pair.advance(1000);
    for (const name of ['a', 'b']) pair.connection(name).setState('connected', 'connected');
    await pair.advance(10_000);
    assert.equal(pair.ends.a.refreshed, 0);
    assert.deepEqual(pair.ends.a.media, ['interrupted', 'connected']);
  });

  test('failed: restart at once', async () => {
    pair.disconnect('failed');
    await pair.advance(100);
    assert.equal(pair.ends.a.refreshed, 1);
    assert.equal(pair.ends.a.peer.media, 'connected');
  });

  test('no offer goes into the void while a server link is down, and being back is the occasion', async () => {
    pair.ends.a.online = false;
    pair.disconnect('failed');
    await pair.advance(20_000);
    assert.equal(pair.connection('a').signalingState, 'stable');
    pair.ends.a.online = true;
    pair.ends.a.peer.weAreBack(true);
    await pair.run();
    assert.equal(pair.ends.a.peer.media, 'connected');
  });

  test('restarts that do not help: a new connection is made, and media has failed', async () => {
    pair.platform.network.up = false;
    pair.disconnect('failed');
    await pair.advance(14_000);
    assert.equal(pair.count('a'), 2);
    assert.equal(pair.count('b'), 2, 'the other end sees the new session and makes one too');
    assert.deepEqual(pair.ends.a.media, ['interrupted', 'failed: unreachable']);
    pair.platform.network.up = true;
    await pair.advance(8000);
    assert.equal(pair.ends.a.peer.media, 'connected');
    assert.equal(pair.ends.b.peer.media, 'connected');
  });

  test('the server restarted and the network is the same: nothing is disturbed', async () => {
    const before = pair.connection('a').localDescription;
    pair.ends.a.peer.weAreBack(false);
    await pair.run();
    assert.equal(pair.connection('a').localDescription, before);
  });
});

describe('the other end is not whom the server vouched for', () => {
  test('DTLS fails over a working path: untrusted, and no retry', async () => {
    pair.platform.network.up = false;
    pair.open();
    await pair.run();
    pair.connection('a').setState('connected', 'connecting');
    pair.connection('a').setState('connected', 'failed');
    assert.deepEqual(pair.ends.a.media, ['failed: untrusted']);
    assert.equal(pair.connection('a').closed, true);
    await pair.run();
    assert.deepEqual(pair.ends.b.media, ['failed: untrusted'], 'they are told');
    assert.equal(pair.connection('b').closed, true);
    const before = pair.connection('a').localDescription;
    await pair.advance(30_000);
    assert.equal(pair.connection('a').localDescription, before);
  });
});

describe('the other end reloads', () => {
  beforeEach(async () => {
    pair.open();
    await pair.run();
  });

  for (const [reloads, stays] of [['a', 'b'], ['b', 'a']]) {
    test(`${reloads} reloads: a new connection; the old picture stays until the new one has frames`, async () => {
      const old = pair.connection(stays);
      const stream = pair.ends[stays].peer.stream;
      const [audio, video] = stream.getTracks();
      pair.seat(reloads, stays, reloads === 'b', `${reloads}2`);
      pair.ends[reloads].open();
      pair.ends[stays].peer.update(pair.info(stays));
      await pair.run();
      pair.bothStable();
      assert.equal(pair.count(stays), 2);
      assert.equal(pair.ends[stays].peer.media, 'connected');
      assert.equal(pair.ends[stays].peer.stream, stream, 'no frames yet');
      assert.equal(old.closed, false);
      assert.deepEqual(old.getTransceivers().map(({ sender }) => sender.track), [null, null], 'nothing is sent to a dead page');
      const [newAudio, newVideo] = pair.connection(stays).getTransceivers().map(({ receiver }) => receiver.track);
      newVideo.setMuted(false);
      pair.ends[stays].look();
      assert.equal(pair.ends[stays].peer.stream, stream, 'the first packet is not a picture');
      newVideo.goesOn = true;
      pair.ends[stays].look();
      const half = pair.ends[stays].peer.stream;
      assert.deepEqual(half.getTracks(), [audio, newVideo]);
      assert.equal(old.closed, false);
      newAudio.goesOn = true;
      pair.ends[stays].look();
      assert.deepEqual(pair.ends[stays].peer.stream.getTracks(), [newAudio, newVideo]);
      assert.deepEqual(stream.getTracks(), [audio, video], 'a stream that is played never loses a track');
      assert.equal(old.closed, true);
    });
  }

  test('without frames the old picture goes after 10 s', async () => {
    const [old] = pair.ends.a.peer.stream.getTracks();
    pair.seat('b', 'a', true, 'b2');
    pair.ends.b.open();
    pair.ends.a.peer.update(pair.info('a'));
    await pair.advance(10_100);
    assert.ok(!pair.ends.a.peer.stream.getTracks().includes(old));
    assert.equal(pair.ends.a.platform.RTCPeerConnection.all[0].closed, true);
  });

  test('signals of the page load before are ignored', async () => {
    const offer = { ...pair.connection('a').localDescription, type: 'offer' };
    pair.seat('a', 'b', false, 'a2');
    pair.ends.a.open();
    pair.ends.b.peer.update(pair.info('b'));
    pair.ends.b.peer.receiveDescription('a1', offer);
    pair.ends.b.peer.receiveCandidate('a1', { candidate: 'candidate:old', usernameFragment: 'old' });
    await pair.run();
    pair.bothStable();
    assert.equal(pair.ends.b.peer.media, 'connected');
    assert.equal(pair.count('b'), 2, 'one for each page load');
  });

  test('closing the peer closes every connection and stops every timer', async () => {
    pair.seat('b', 'a', true, 'b2');
    pair.ends.b.open();
    pair.ends.a.peer.update(pair.info('a'));
    pair.ends.a.peer.close();
    pair.ends.b.peer.close();
    await pair.advance(30_000);
    assert.deepEqual(pair.ends.a.platform.RTCPeerConnection.all.map(({ closed }) => closed), [true, true]);
    assert.deepEqual(pair.ends.a.peer.connections, []);
  });
});

describe('beside the media server', () => {
  test('while the path is relayed nothing is sent directly, and the connection is held', async () => {
    pair.ends.a.sendsDirect = pair.ends.b.sendsDirect = false;
    pair.open();
    await pair.run();
    for (const name of ['a', 'b']) {
      assert.equal(pair.ends[name].peer.direct, 'connected');
      assert.deepEqual(pair.connection(name).getTransceivers().map(({ sender }) => sender.track), [null, null]);
    }
    pair.ends.a.peer.send(true, 360_000);
    await pair.run();
    const [audio, video] = pair.connection('a').getTransceivers().map(({ sender }) => sender);
    assert.deepEqual([audio.track.label, video.track.label], ['a audio', 'a video']);
    assert.equal(video.parameters.encodings[0].maxBitrate, 360_000);
    assert.equal(video.parameters.degradationPreference, 'maintain-resolution');
    pair.ends.a.peer.send(true, null);
    await pair.run();
    assert.equal('maxBitrate' in video.parameters.encodings[0], false);
    assert.equal('degradationPreference' in video.parameters, false);
    pair.ends.a.peer.send(false, null);
    await pair.run();
    assert.deepEqual([audio.track, video.track], [null, null]);
  });

  test('the limit is in force before the track is sent', async () => {
    pair.ends.a.sendsDirect = false;
    pair.open();
    await pair.run();
    const { sender } = pair.connection('a').getTransceivers()[1];
    const said = [];
    const { setParameters, replaceTrack } = sender;
    sender.setParameters = (parameters) => (said.push('limit'), setParameters(parameters));
    sender.replaceTrack = (track) => (said.push('track'), replaceTrack(track));
    pair.ends.a.peer.send(true, 100_000);
    await pair.run();
    assert.deepEqual(said, ['limit', 'track']);
  });

  test('the server wants no direct connection, then one', async () => {
    pair.ends.a.open({ direct: false });
    pair.ends.b.open({ direct: false });
    await pair.run();
    assert.equal(pair.count('a'), 0);
    assert.equal(pair.ends.a.peer.direct, 'none');
    for (const name of ['b', 'a']) pair.ends[name].peer.update(pair.info(name, { direct: true }));
    await pair.run();
    assert.equal(pair.ends.a.peer.direct, 'connected');
    for (const name of ['b', 'a']) pair.ends[name].peer.update(pair.info(name, { direct: false }));
    assert.equal(pair.connection('a').closed, true);
    await pair.advance(30_000);
    assert.equal(pair.count('a'), 1, 'and nobody tries to have it back');
  });

  test('shown is what goes on: the preferred path first, the other one when it stops, none of them rather than nothing', async () => {
    pair.open();
    await pair.run();
    const { peer, look } = pair.ends.a;
    const [audio, video] = peer.stream.getTracks();
    const relayed = { audio: new FakeTrack('audio'), video: new FakeTrack('video') };
    for (const kind of ['audio', 'video']) peer.setRelayed(kind, relayed[kind]);
    audio.goesOn = video.goesOn = true;
    look();
    assert.deepEqual(peer.stream.getTracks(), [audio, video]);
    relayed.audio.goesOn = relayed.video.goesOn = true;
    look();
    assert.deepEqual(peer.stream.getTracks(), [audio, video], 'both go on: the preferred path');
    look('relayed', 'connected');
    assert.deepEqual(peer.stream.getTracks(), [relayed.audio, relayed.video]);
    assert.equal(peer.shown.way('video'), 'relayed');
    look();
    assert.deepEqual(peer.stream.getTracks(), [audio, video], 'a move that is cancelled');
    audio.goesOn = video.goesOn = false;
    look();
    assert.deepEqual(peer.stream.getTracks(), [relayed.audio, relayed.video], 'a sudden death');
    relayed.audio.goesOn = relayed.video.goesOn = false;
    look();
    assert.deepEqual(peer.stream.getTracks(), [relayed.audio, relayed.video]);
  });

  /** Nothing passes directly, for three minutes. */
  async function hopeless(preferred, relayed) {
    pair.platform.network.up = false;
    for (const end of Object.values(pair.ends)) end.host.onLink = () => end.look(preferred, relayed);
    pair.open();
    const offers = [];
    pair.lose = (from, message) => (message.description?.type === 'offer' && offers.push(pair.platform.clock.time), false);
    for (let second = 0; second < 180; second++) {
      for (const end of Object.values(pair.ends)) end.look(preferred, relayed);
      await pair.advance(1000);
    }
    return offers;
  }

  test('while the media server carries, what is impossible directly is tried seldom, and nobody is asked', async () => {
    const offers = await hopeless('relayed', 'connected');
    assert.ok(offers.length <= 7, `offers in three minutes, at ${offers}`);
    assert.ok(pair.count('a') <= 3, `${pair.count('a')} connections`);
    assert.equal(pair.ends.b.asked, 0);
    const waits = offers.map((at, nth) => at - (offers[nth - 1] ?? 0));
    assert.ok(waits.at(-1) >= 59_000 && waits.at(-1) <= 61_000, String(waits));
    pair.platform.network.up = true;
    await pair.advance(61_000);
    assert.equal(pair.ends.a.peer.direct, 'connected', 'and found when it is possible');
  });

  test('when the media server no longer carries, there is haste again', async () => {
    await hopeless('relayed', 'connected');
    pair.platform.network.up = true;
    for (const end of Object.values(pair.ends)) {
      end.host.onLink = () => end.look('relayed', 'interrupted');
      end.look('relayed', 'interrupted');
    }
    await pair.advance(8000);
    assert.equal(pair.ends.a.peer.direct, 'connected');
  });

  test('media says how the way that is used goes', async () => {
    pair.ends.a.open({ direct: false });
    const { peer, look, media } = pair.ends.a;
    look('relayed', 'connecting');
    look('relayed', 'connected');
    look('relayed', 'interrupted');
    assert.deepEqual(media, ['connected', 'interrupted']);
    const track = Object.assign(new FakeTrack('audio'), { goesOn: true });
    peer.setRelayed('audio', track);
    look('direct', 'interrupted');
    assert.equal(peer.media, 'connected', 'what goes on is not interrupted');
  });
});
