import assert from 'node:assert/strict';
import { beforeEach, describe, test } from 'node:test';

import { Client } from '../../../web/static/js/rtc/client.js';
import { FakeTrack, FakeWebSocket, fakePlatform, settle, silent } from './fakes.js';

const PEER = { id: 'p', role: 'patient', name: 'Canary', connection: 'online', microphone: 'on', camera: 'on', instance: 'p1', polite: false };
const OTHER = { ...PEER, id: 'o', instance: 'o1', direct: false };
const STEP_MS = 50;
/** The link to the server is not what is tested here. */
const PATIENT = { pingIntervalMs: 1e9, deadAfterMs: 1e9 };

let platform, client, events, flowing, environment;

/** A client in the conversation. */
async function join({ peers = [PEER], path = 'direct', role = 'clinician', ...options } = {}) {
  platform = fakePlatform();
  environment = new EventTarget();
  events = [];
  flowing = new Set();
  client = new Client({ url: 'wss://video.example.org/ws', tenant: 'clinique', secret: 'secret', environment, log: silent, platform, ...options });
  for (const type of ['track', 'path', 'media', 'problem', 'speakers', 'quality']) client.addEventListener(type, ({ detail }) => events.push({ type, ...detail }));
  client.setTrack('audio', new FakeTrack('audio', 'my audio'));
  client.setTrack('video', new FakeTrack('video', 'my video'));
  client.connect();
  socket().welcome({ state: 'joined', role, ...PATIENT });
  socket().say({ type: 'state', state: 'joined', peers, iceServers: [{ urls: ['turn:x'] }], path });
  await run();
}

const socket = () => FakeWebSocket.last;
const say = (message) => socket().say(message);
const said = (type) => socket().sent.filter((message) => message.type === type);
const heard = (type) => events.filter((event) => event.type === type);
const connections = () => platform.RTCPeerConnection.all;
const peer = (id = 'p') => client.peers.get(id);

async function run() {
  for (let turn = 0; turn < 8; turn++) await settle();
}

/** Let time pass; what flows goes on arriving. */
async function pass(ms) {
  for (let passed = 0; passed < ms; passed += STEP_MS) {
    for (const track of flowing) track.arrived += 1;
    await platform.clock.advance(STEP_MS);
  }
  await run();
}

/** The other browser answers, and packets pass. */
async function connectDirect() {
  const connection = connections().find(({ channel }) => channel);
  await connection.setRemoteDescription({ type: 'answer', sdp: connection.localDescription.sdp.replace(/u\d+/, 'theirs') });
  connection.setState('connected', 'connected');
  await run();
  return connection;
}

/** The media server asks for an offer. */
async function want(audio = 1, video = 1, facts = {}) {
  say({ type: 'relayWanted', audio, video, ...facts });
  await run();
  return relay();
}

const relay = () => connections().findLast(({ channel }) => !channel);

/** The media server answers the last offer. @param owners whose media the receiving pairs carry, as `participant` or `participant/device` */
async function answer(owners = ['p'], connected = true) {
  const { connection: id } = said('relayOffer').at(-1);
  const receiving = relay().getTransceivers().filter(({ direction }) => direction === 'recvonly');
  const sections = receiving.flatMap(({ mid, kind }) => {
    const nth = receiving.filter((other) => other.kind === kind).findIndex((other) => other.mid === mid);
    const [participant, device = `transport-${participant}`] = owners[nth]?.split('/') ?? [];
    return participant ? [{ mid, kind, participant, source: `${device}:${kind}`, device: !device.startsWith('transport-') }] : [];
  });
  say({ type: 'relayAnswer', connection: id, description: { type: 'answer', sdp: `o=- 1\r\na=ice-ufrag:server\r\n` }, sections });
  await run();
  if (connected) relay().setState('connected', 'connected');
  await run();
}

const received = (connection, nth = 0) => ['audio', 'video'].map((kind) => connection.getTransceivers().filter((t) => t.kind === kind && t.direction !== 'sendonly')[nth].receiver.track);
const sending = (connection) => connection.getTransceivers().slice(0, 2).map(({ sender }) => sender.track?.label ?? null);
const encodings = (connection) => connection.getTransceivers()[1].sender.parameters.encodings;
const shown = (id = 'p') => ['audio', 'video'].map((kind) => peer(id).shown.way(kind));

/** Two people, direct, with the connection to the media server standing by. */
async function directAndWarm() {
  await join();
  const direct = await connectDirect();
  await want();
  await answer();
  for (const track of received(direct)) flowing.add(track);
  await pass(2000);
  return { direct, relayed: relay() };
}

describe('the connection to the media server', () => {
  beforeEach(() => join());

  test('our own sections first, three encodings of which the full one is active, then what is wanted; nothing is sent', async () => {
    const connection = await want(2, 2);
    const sections = connection.getTransceivers();
    assert.deepEqual(
      sections.map(({ kind, direction }) => `${kind} ${direction}`),
      ['audio sendonly', 'video sendonly', 'audio recvonly', 'video recvonly', 'audio recvonly', 'video recvonly'],
    );
    assert.deepEqual(
      encodings(connection).map(({ rid, scaleResolutionDownBy, active }) => [rid, scaleResolutionDownBy, active]),
      [['q', 4, false], ['h', 2, false], ['f', 1, true]],
    );
    assert.deepEqual(sending(connection), [null, null]);
    assert.equal(connection.configuration.bundlePolicy, 'max-bundle');
    assert.deepEqual(connection.configuration.iceServers, [{ urls: ['turn:x'] }]);
    const [offer] = said('relayOffer');
    assert.equal(offer.description.type, 'offer');
    assert.equal('efficient' in offer, false);
    assert.deepEqual(Object.keys(offer).sort(), ['connection', 'description', 'type']);
  });

  test('what the device encodes in hardware is told', async () => {
    platform.efficientCodecs = async () => ['H264'];
    await want();
    assert.deepEqual(said('relayOffer')[0].efficient, ['H264']);
  });

  test('more sections: the same connection, another offer; one at a time', async () => {
    const connection = await want(1, 1);
    await want(3, 2);
    assert.equal(said('relayOffer').length, 1, 'the first one is not answered yet');
    await answer();
    assert.equal(said('relayOffer').length, 2);
    assert.equal(relay(), connection);
    assert.equal(said('relayOffer')[0].connection, said('relayOffer')[1].connection);
    const receiving = connection.getTransceivers().filter(({ direction }) => direction === 'recvonly');
    assert.deepEqual(receiving.map(({ kind }) => kind), ['audio', 'video', 'audio', 'video', 'audio']);
    await answer();
    await want(1, 1);
    await answer();
    assert.equal(connection.getTransceivers().length, 7, 'sections are not taken back');
  });

  test('fresh: a new connection with another name, and the old one is closed', async () => {
    const before = await want();
    await answer();
    const after = await want(1, 1, { fresh: true });
    assert.notEqual(after, before);
    assert.equal(before.closed, true);
    assert.notEqual(said('relayOffer')[0].connection, said('relayOffer')[1].connection);
  });

  test('the answer to a connection that is gone changes nothing', async () => {
    await want();
    const { connection } = said('relayOffer')[0];
    await want(1, 1, { fresh: true });
    say({ type: 'relayAnswer', connection, description: { type: 'answer', sdp: 'a=ice-ufrag:server\r\n' }, sections: [] });
    await run();
    assert.equal(relay().signalingState, 'have-local-offer');
  });

  test('the encodings that are watched', async () => {
    const connection = await want();
    await answer();
    say({ type: 'encode', rids: ['q', 'h', 'f'] });
    await run();
    assert.deepEqual(encodings(connection).map(({ active }) => active), [true, true, true]);
    say({ type: 'encode', rids: [] });
    await run();
    assert.deepEqual(encodings(connection).map(({ active }) => active), [false, false, false]);
  });

  test('an observer sends nothing and makes no section for it', async () => {
    await join({ role: 'observer', path: 'relayed' });
    const connection = await want(0, 0);
    assert.deepEqual(connection.getTransceivers().map(({ kind, direction }) => `${kind} ${direction}`), ['audio recvonly']);
  });

  test('the network changes: ICE restarts on the same connection', async () => {
    const connection = await want();
    await answer();
    const before = connection.localDescription.sdp;
    environment.dispatchEvent(new Event('online'));
    socket().welcome({ state: 'joined', ...PATIENT });
    say({ type: 'state', state: 'joined', peers: [PEER], path: 'direct' });
    await run();
    assert.equal(relay(), connection);
    assert.equal(said('relayOffer').length, 1, 'on the new socket');
    assert.notEqual(/ufrag:(\S+)/.exec(connection.localDescription.sdp)[1], /ufrag:(\S+)/.exec(before)[1]);
  });

  test('a socket that is opened for the sake of a peer restarts nothing that works', async () => {
    await join({ peers: [{ ...PEER, polite: true }] });
    const connection = await want();
    await answer();
    const before = connection.localDescription.sdp;
    const sockets = FakeWebSocket.all.length;
    await pass(8000);
    assert.equal(FakeWebSocket.all.length, sockets + 1, 'nothing comes directly: the polite side asks');
    socket().welcome({ state: 'joined', ...PATIENT });
    say({ type: 'state', state: 'joined', peers: [{ ...PEER, polite: true }], path: 'direct' });
    await run();
    assert.equal(connection.localDescription.sdp, before);
    assert.deepEqual(said('relayOffer'), []);
  });

  test('an offer that went to a dead socket is said again', async () => {
    await want();
    await answer();
    await want(2, 2);
    const lost = said('relayOffer').at(-1);
    environment.dispatchEvent(new Event('online'));
    socket().welcome({ state: 'joined', ...PATIENT });
    say({ type: 'state', state: 'joined', peers: [PEER], path: 'direct' });
    await run();
    assert.deepEqual(said('relayOffer')[0], lost);
  });

  test('interrupted: restarts, then another connection, later and later', async () => {
    const connection = await want();
    await answer();
    connection.setState('disconnected', 'disconnected');
    await pass(1600);
    assert.equal(said('relayOffer').length, 2, 'an ICE restart');
    await pass(14_000);
    assert.equal(connection.closed, true);
    assert.notEqual(relay(), connection);
    const tries = said('relayOffer').length;
    await answer(['p']);
    await pass(20_000);
    assert.equal(said('relayOffer').length, tries, 'connected: nothing more to try');
  });

  test('a server that restarted knows nothing of the connection', async () => {
    const connection = await want();
    await answer();
    say({ type: 'goingAway', retryAfterMs: 10 });
    await pass(100);
    client.join();
    socket().welcome({ state: 'admitted', ...PATIENT });
    say({ type: 'state', state: 'admitted', iceServers: [] });
    assert.equal(connection.closed, true);
    say({ type: 'state', state: 'joined', peers: [PEER], path: 'direct' });
    await want();
    assert.notEqual(relay(), connection);
  });

  test('only what the media server forwards is named, in every section; a browser that cannot name any is left alone', async () => {
    const codec = (mimeType, sdpFmtpLine) => ({ mimeType, sdpFmtpLine });
    const all = { audio: [codec('audio/opus'), codec('audio/PCMU')], video: [codec('video/VP8'), codec('video/rtx'), codec('video/ulpfec')] };
    platform.codecs = (kind) => all[kind];
    const connection = await want(1, 1);
    const named = () => connection.getTransceivers().map(({ codecs }) => codecs?.map(({ mimeType }) => mimeType).join(' '));
    assert.deepEqual(named(), ['audio/opus', 'video/VP8 video/rtx', 'audio/opus', 'video/VP8 video/rtx']);
    platform.codecs = () => [];
    await answer();
    await want(2, 2);
    assert.deepEqual(named().slice(4), [undefined, undefined]);
  });

  test('an offer that no message can hold is not sent: what is connected stays, and is offered again later', async () => {
    const connection = await want();
    await answer();
    const { setLocalDescription } = connection;
    connection.setLocalDescription = async () => {
      await setLocalDescription.call(connection);
      connection.localDescription.sdp += 'x'.repeat(65_536);
    };
    await want(2, 2);
    assert.equal(said('relayOffer').length, 1);
    assert.equal(connection.closed, false);
    connection.setLocalDescription = setLocalDescription;
    await pass(5000);
    assert.equal(said('relayOffer').length, 2);
  });

  test('another offer is refused: what is connected stays, and is offered again, later and later', async () => {
    const connection = await want();
    await answer();
    await want(2, 2);
    const times = [];
    for (let refused = 0; refused < 4; refused++) {
      times.push(platform.clock.time);
      say({ type: 'problem', code: 'bad_sdp', message: '', re: 'relayOffer' });
      const before = said('relayOffer').length;
      while (said('relayOffer').length === before) {
        await pass(STEP_MS);
        assert.ok(platform.clock.time - times.at(-1) < 70_000, 'never again');
      }
    }
    times.push(platform.clock.time);
    const late = times.slice(1).map((at, nth) => (at - times[nth]) / 1000 - [2, 5, 15, 60][nth]);
    assert.ok(late.every((seconds) => seconds > -0.1 && seconds < 1.2), String(late)); // younger credentials may take a second
    assert.equal(relay(), connection);
    assert.equal(connection.closed, false);
    assert.equal(client.paths.relayed, 'connected');
    await answer(['p']);
    assert.equal(connection.signalingState, 'stable');
    assert.deepEqual(peer().shown.coming('audio', 'relayed'), received(connection)[0]);
  });

  test('a refusal that crosses the answer changes nothing', async () => {
    const connection = await want();
    await answer();
    say({ type: 'problem', code: 'bad_sdp', message: '', re: 'relayOffer' });
    await pass(5000);
    assert.equal(relay(), connection);
    assert.equal(said('relayOffer').length, 1);
  });

  test('somebody else than the media server answers: told once, and tried again after minutes', async () => {
    await want();
    await answer(['p'], false);
    relay().setState('connected', 'failed');
    say({ type: 'problem', code: 'relay_untrusted', message: '', re: 'relayOffer' });
    await want(1, 1, { fresh: true });
    await pass(50_000);
    assert.equal(said('relayOffer').length, 1);
    for (let tries = 2; tries <= 4; tries++) {
      await pass(tries === 2 ? 11_000 : 300_000);
      await answer(['p'], false);
      say({ type: 'problem', code: 'relay_untrusted', message: '', re: 'relayOffer' });
      await run();
    }
    assert.ok(said('relayOffer').length <= 4, String(said('relayOffer').length));
    assert.deepEqual(heard('problem').map(({ code }) => code), ['relay_untrusted']);
  });

  test('a refused offer is nobody’s problem but ours', async () => {
    await want();
    say({ type: 'problem', code: 'not_permitted', message: '', re: 'relayOffer' });
    await pass(30_000);
    assert.equal(said('relayOffer').length, 1);
    assert.deepEqual(heard('problem'), []);
  });
});

describe('a move', () => {
  let direct, relayed;
  beforeEach(async () => ({ direct, relayed } = await directAndWarm()));

  /** What our picture takes on a path, from now on. */
  async function spend(connection, bps) {
    for (let second = 0; second < 3; second++) {
      connection.sentBytes += bps / 8;
      await pass(1000);
    }
  }

  test('sends on both paths, the new one at 30 % of the rate, and waits for what lives', async () => {
    await spend(direct, 1_200_000);
    assert.deepEqual([sending(direct), sending(relayed)], [['my audio', 'my video'], [null, null]]);
    say({ type: 'move', move: 7, to: 'relayed', reason: 'policy' });
    await run();
    assert.deepEqual([sending(direct), sending(relayed)], [['my audio', 'my video'], ['my audio', 'my video']]);
    const { maxBitrate } = encodings(relayed)[2];
    assert.ok(maxBitrate <= 360_000 && maxBitrate > 300_000, String(maxBitrate));
    await pass(1000);
    assert.deepEqual(said('moveReady'), [], 'nothing arrives there yet');
    const [audio, video] = received(relayed);
    flowing.add(audio);
    await pass(500);
    assert.deepEqual(said('moveReady'), [], 'the picture does not');
    assert.deepEqual(shown(), ['direct', 'direct']);
    video.arrived += 1;
    await pass(1000);
    assert.deepEqual(said('moveReady'), [], 'one picture is none that moves');
    for (let picture = 0; picture < 6; picture++) {
      video.arrived += 1;
      await pass(200);
    }
    assert.deepEqual(said('moveReady'), [], 'one in four is not the pace of the old path');
    flowing.add(video);
    await pass(700);
    assert.deepEqual(said('moveReady'), [{ type: 'moveReady', move: 7 }], 'once');
    assert.deepEqual(shown(), ['relayed', 'relayed']);
    assert.deepEqual(sending(direct), ['my audio', 'my video'], 'the others may not be ready');

    say({ type: 'moved', move: 7, path: 'relayed' });
    await run();
    assert.equal(encodings(relayed)[2].maxBitrate, 2_500_000, 'the limit is lifted at once');
    assert.deepEqual(sending(direct), ['my audio', 'my video'], 'the last pictures are still needed');
    await pass(1100);
    assert.deepEqual(sending(direct), [null, null]);
    assert.equal(client.paths.path, 'relayed');
    assert.deepEqual(client.paths.history.map(({ move, to, moved }) => [move, to, moved]), [[7, 'relayed', true]]);
    assert.deepEqual(heard('path').map(({ path, move }) => [path, move?.move ?? null]).slice(-2), [['direct', 7], ['relayed', null]]);
  });

  test('a sound that waits much longer than that of the old path catches up first, but not for ever', async () => {
    for (const [waitsS, patienceMs] of [[0.2, 2600], [0.05, 0]]) {
      ({ direct, relayed } = await directAndWarm());
      say({ type: 'move', move: 1, to: 'relayed', reason: 'policy' });
      const [audio, video] = received(relayed);
      flowing.add(video);
      for (let passed = 0; passed < 1000; passed += STEP_MS) {
        audio.arrived += 1;
        audio.waited += waitsS;
        await pass(STEP_MS);
      }
      assert.equal(said('moveReady').length, patienceMs > 0 ? 0 : 1, `${waitsS} s`);
      flowing.add(audio);
      for (let passed = 0; passed < patienceMs; passed += STEP_MS) {
        audio.waited += waitsS;
        await pass(STEP_MS);
      }
      assert.equal(said('moveReady').length, 1, 'in the end');
    }
  });

  test('and back', async () => {
    say({ type: 'move', move: 1, to: 'relayed', reason: 'policy' });
    for (const track of received(relayed)) flowing.add(track);
    await pass(700);
    say({ type: 'moved', move: 1, path: 'relayed' });
    await pass(1100);
    for (const track of received(direct)) flowing.delete(track);
    await spend(relayed, 1_000_000);
    say({ type: 'move', move: 2, to: 'direct', reason: 'recovered' });
    await run();
    const { maxBitrate } = encodings(direct)[0];
    assert.ok(maxBitrate <= 300_000 && maxBitrate > 270_000, String(maxBitrate));
    assert.deepEqual(sending(direct), ['my audio', 'my video']);
    await pass(2000);
    assert.deepEqual(said('moveReady').map(({ move }) => move), [1]);
    for (const track of received(direct)) flowing.add(track);
    await pass(700);
    assert.deepEqual(said('moveReady').map(({ move }) => move), [1, 2]);
    assert.deepEqual(shown(), ['direct', 'direct']);
    say({ type: 'moved', move: 2, path: 'direct' });
    await pass(1100);
    assert.deepEqual([sending(direct), sending(relayed)], [['my audio', 'my video'], [null, null]]);
    assert.equal('maxBitrate' in encodings(direct)[0], false);
  });

  test('cancelled: the old path is shown again, nothing is sent on the new one', async () => {
    say({ type: 'move', move: 3, to: 'relayed', reason: 'quality' });
    for (const track of received(relayed)) flowing.add(track);
    await pass(700);
    assert.deepEqual(shown(), ['relayed', 'relayed']);
    say({ type: 'moveCancelled', move: 3, path: 'direct' });
    await run();
    assert.deepEqual(shown(), ['direct', 'direct']);
    assert.deepEqual([sending(direct), sending(relayed)], [['my audio', 'my video'], [null, null]]);
    assert.equal(client.paths.move, null);
  });

  test('a camera that is off and a picture that nobody sees are not waited for', async () => {
    const [audio, video] = received(direct);
    flowing.delete(video);
    await pass(1500);
    say({ type: 'move', move: 1, to: 'relayed', reason: 'policy' });
    flowing.add(received(relayed)[0]);
    await pass(500);
    assert.equal(said('moveReady').length, 1, 'camera off');
    say({ type: 'moveCancelled', move: 1, path: 'direct' });

    flowing.add(video);
    flowing.add(audio);
    await pass(1000);
    client.showSize('p', '', null);
    await pass(1000);
    say({ type: 'move', move: 2, to: 'relayed', reason: 'policy' });
    await pass(500);
    assert.equal(said('moveReady').length, 2, 'out of sight');
  });

  test('nothing lives: connected, and the other end has answered a check', async () => {
    flowing.clear();
    await pass(2000);
    relayed.setState('disconnected', 'disconnected');
    say({ type: 'move', move: 1, to: 'relayed', reason: 'policy' });
    await pass(1000);
    assert.deepEqual(said('moveReady'), []);
    relayed.setState('connected', 'connected');
    await pass(500);
    assert.equal(said('moveReady').length, 1);
  });

  test('no connection to the media server to be had: the move fails', async () => {
    say({ type: 'move', move: 4, to: 'relayed', reason: 'policy' });
    relayed.setState('connected', 'failed');
    await run();
    assert.deepEqual(said('moveFailed'), [{ type: 'moveFailed', move: 4 }]);
  });

  test('a hidden tab: timers are slow, messages wake it up', async () => {
    say({ type: 'move', move: 1, to: 'relayed', reason: 'policy' });
    for (const track of received(relayed)) track.arrived = 1;
    platform.clock.time += 500; // time passes, no timer fires
    for (const track of [...received(relayed), ...received(direct)]) track.arrived += 1;
    say({ type: 'speakers', participants: [] });
    await platform.clock.advance(0);
    await run();
    platform.clock.time += 500;
    for (const track of [...received(relayed), ...received(direct)]) track.arrived += 1;
    say({ type: 'speakers', participants: [] });
    await platform.clock.advance(0);
    await run();
    assert.equal(said('moveReady').length, 1);
  });

  /** Our socket is another one; the room is still on the old path. */
  async function comeBack() {
    environment.dispatchEvent(new Event('online'));
    socket().welcome({ state: 'joined', ...PATIENT });
    say({ type: 'state', state: 'joined', peers: [PEER], path: 'direct' });
  }

  test('back from a dead socket in the middle of it: it goes on, and what is shown is not taken away', async () => {
    const moving = { type: 'move', move: 1, to: 'relayed', reason: 'policy' };
    say(moving);
    for (const track of received(relayed)) flowing.add(track);
    await pass(700);
    const taken = [];
    const [sound] = relayed.getTransceivers();
    const { replaceTrack } = sound.sender;
    sound.sender.replaceTrack = async (track) => (taken.push(track), replaceTrack(track));
    await comeBack();
    say(moving);
    await pass(2000);
    assert.deepEqual(taken, []);
    assert.deepEqual(shown(), ['relayed', 'relayed']);
    assert.deepEqual(said('moveReady'), [{ type: 'moveReady', move: 1 }], 'said again, on the new socket');
    assert.equal(client.paths.history.length, 1);
    say({ type: 'moved', move: 1, path: 'relayed' });
    assert.equal(client.paths.path, 'relayed');
  });

  test('back from a dead socket, and it was cancelled meanwhile: nobody says so, and it is over', async () => {
    say({ type: 'move', move: 1, to: 'relayed', reason: 'policy' });
    await pass(500);
    await comeBack();
    await pass(1100);
    assert.equal(client.paths.move, null);
    assert.equal(client.paths.path, 'direct');
    assert.deepEqual(sending(relayed), [null, null]);
    say({ type: 'move', move: 2, to: 'relayed', reason: 'policy' });
    assert.equal(client.paths.move.move, 2);
  });

  test('back from a dead socket: the server says where the room is', async () => {
    say({ type: 'move', move: 1, to: 'relayed', reason: 'policy' });
    environment.dispatchEvent(new Event('online'));
    socket().welcome({ state: 'joined', ...PATIENT });
    say({ type: 'state', state: 'joined', peers: [PEER], path: 'relayed' });
    await run();
    assert.equal(client.paths.path, 'relayed');
    assert.equal(client.paths.move, null);
    assert.deepEqual(sending(relayed), ['my audio', 'my video']);
    assert.equal(encodings(relayed)[2].maxBitrate, 2_500_000);
  });
});

describe('a direct connection', () => {
  let direct, relayed;
  beforeEach(async () => ({ direct, relayed } = await directAndWarm()));

  test('is reported every 2 s, with what the server decides by', async () => {
    const before = said('pathReport').length;
    await pass(8000);
    const reports = said('pathReport').slice(before);
    assert.equal(reports.length, 4);
    assert.deepEqual(reports[0], { type: 'pathReport', to: 'p', alive: true, loss: 0, rttMs: 20, relayRttMs: 20 });
  });

  test('that dies is reported at once, and what comes through the media server is shown without a word', async () => {
    await pass(1000);
    flowing.clear();
    const at = platform.clock.time;
    while (said('pathReport').at(-1).alive) {
      await pass(STEP_MS);
      assert.ok(platform.clock.time - at < 2000, 'not noticed');
    }
    assert.ok(platform.clock.time - at <= 1500, `noticed after ${platform.clock.time - at} ms`);
    say({ type: 'move', move: 1, to: 'relayed', reason: 'failure' });
    await run();
    assert.equal(encodings(relayed)[2].maxBitrate, 2_500_000, 'nothing to be careful with');
    for (const track of received(relayed)) flowing.add(track);
    await pass(200);
    assert.deepEqual(shown(), ['relayed', 'relayed']);
    for (const track of received(direct)) flowing.add(track);
    await pass(500);
    assert.equal(said('pathReport').at(-1).alive, true);
  });

  test('that died and carries nothing any more is alive again when somebody answers there', async () => {
    direct.answers = 10;
    await pass(1000);
    flowing.clear();
    await pass(1500);
    assert.equal(said('pathReport').at(-1).alive, false);
    say({ type: 'moved', move: 1, path: 'relayed' });
    await pass(5000);
    assert.equal(said('pathReport').at(-1).alive, false, 'ICE has not noticed yet');
    direct.answers += 1;
    await pass(1000);
    assert.equal(said('pathReport').at(-1).alive, true);
    await pass(12_000);
    assert.equal(said('pathReport').at(-1).alive, false, 'nobody answers any more');
  });

  test('is not dead when their devices are off, or when the page has slept', async () => {
    flowing.clear();
    say({ type: 'peerChanged', peer: { ...PEER, microphone: 'off', camera: 'off' } });
    await pass(5000);
    assert.ok(said('pathReport').every(({ alive }) => alive));
    say({ type: 'peerChanged', peer: PEER });
    for (const track of received(direct)) flowing.add(track);
    await pass(1000);
    platform.clock.time += 60_000;
    await pass(3000);
    assert.ok(said('pathReport').every(({ alive }) => alive));
  });

  test('the loss of what we send counts while it is reported, and is forgotten when nothing is', async () => {
    direct.remoteReport = { fractionLost: 0.2, timestamp: 1 };
    await pass(2000);
    assert.equal(said('pathReport').at(-1).loss, 0.2);
    await pass(2000);
    assert.equal(said('pathReport').at(-1).loss, 0);
  });

  test('statistics that never come do not stop the watch', async () => {
    relayed.getStats = () => new Promise(() => {});
    const before = said('pathReport').length;
    await pass(8000);
    assert.ok(said('pathReport').length - before >= 3);
  });

  test('that never comes about is reported from the beginning, every second: the server has the patience', async () => {
    await join();
    await want();
    await answer();
    await pass(4100);
    const reports = said('pathReport');
    assert.ok(reports.length >= 4, String(reports.length));
    assert.ok(reports.every(({ alive, to }) => !alive && to === 'p'));
    await connectDirect();
    await pass(500);
    assert.equal(said('pathReport').at(-1).alive, true);
  });

  test('to somebody whom the server does not hear is not called dead before it was there', async () => {
    await join({ peers: [{ ...PEER, connection: 'reconnecting' }] });
    await pass(5000);
    assert.deepEqual(said('pathReport'), []);
  });

  test('is dead when ICE says so', async () => {
    direct.setState('disconnected', 'disconnected');
    await pass(500);
    assert.equal(said('pathReport').at(-1).alive, false);
  });
});

describe('the relayed path beside a direct connection', () => {
  let direct, relayed;
  beforeEach(async () => {
    ({ direct, relayed } = await directAndWarm());
    direct.answers = relayed.answers = 1;
    say({ type: 'move', move: 1, to: 'relayed', reason: 'policy' });
    for (const track of received(relayed)) flowing.add(track);
    await pass(700);
    say({ type: 'moved', move: 1, path: 'relayed' });
    for (const track of received(direct)) flowing.delete(track);
    await pass(3000);
  });

  const lastReport = () => said('pathReport').at(-1);

  test('that dies is reported with the direct one, after two seconds; and when somebody answers there again', async () => {
    assert.equal('relayAlive' in lastReport(), false);
    flowing.clear();
    await pass(1500);
    assert.equal('relayAlive' in lastReport(), false, 'a stumble');
    await pass(1200);
    assert.deepEqual([lastReport().alive, lastReport().relayAlive], [true, false]);
    say({ type: 'move', move: 2, to: 'direct', reason: 'failure' });
    for (const track of received(direct)) flowing.add(track);
    await pass(700);
    assert.equal(said('moveReady').at(-1).move, 2);
    say({ type: 'moved', move: 2, path: 'direct' });
    await pass(3000);
    assert.equal(lastReport().relayAlive, false);
    relayed.answers += 1;
    await pass(1000);
    assert.equal('relayAlive' in lastReport(), false);
  });

  test('is dead when ICE says so, and not when nobody sends', async () => {
    say({ type: 'peerChanged', peer: { ...PEER, microphone: 'off', camera: 'off' } });
    flowing.clear();
    await pass(5000);
    assert.equal('relayAlive' in lastReport(), false);
    relayed.setState('disconnected', 'disconnected');
    await pass(500);
    assert.equal(lastReport().relayAlive, false);
  });
});

describe('a relayed room', () => {
  test('sends at once, without a limit, and holds direct connections without tracks', async () => {
    await join({ path: 'relayed', peers: [PEER, OTHER] });
    const connection = await want(2, 2);
    assert.deepEqual(sending(connection), ['my audio', 'my video']);
    assert.equal(connections().filter(({ channel }) => channel).length, 1, 'none to the one the server wants none to');
    assert.deepEqual(sending(connections().find(({ channel }) => channel)), [null, null]);
    await answer(['p', 'o']);
    assert.deepEqual(peer('o').stream.getTracks(), received(connection, 1));
    assert.equal(peer('o').media, 'connected');
  });

  test('the media server may know somebody before we do, and a section changes hands', async () => {
    await join({ path: 'relayed', peers: [] });
    const connection = await want(1, 1);
    await answer(['p']);
    say({ type: 'peerJoined', peer: { ...PEER, direct: false } });
    assert.deepEqual(peer().stream.getTracks(), received(connection));
    say({ type: 'peerLeft', id: 'p', why: 'left' });
    say({ type: 'peerJoined', peer: OTHER });
    await want(1, 1);
    await answer(['o']);
    assert.deepEqual(peer('o').stream.getTracks(), received(connection));
  });

  test('another device of theirs has a stream of its own, and goes', async () => {
    await join({ path: 'relayed', peers: [{ ...PEER, direct: false }] });
    const connection = await want(2, 2);
    await answer(['p', 'p/dermatoscope']);
    assert.deepEqual(peer().stream.getTracks(), received(connection, 0));
    const gained = heard('track').filter(({ source }) => source !== '');
    assert.deepEqual(gained.map(({ peerId, source, track }) => [peerId, source, track.kind]), [['p', 'dermatoscope', 'audio'], ['p', 'dermatoscope', 'video']]);
    assert.deepEqual(gained.at(-1).stream.getTracks(), received(connection, 1));
    client.showSize('p', 'dermatoscope', { width: 1280, height: 720 });
    await pass(300);
    assert.deepEqual(said('wishes').at(-1).wishes.map(({ rid }) => rid), ['f']);
    await want(2, 2);
    await answer(['p']);
    assert.deepEqual(heard('track').at(-1), { type: 'track', peerId: 'p', source: 'dermatoscope', track: null, stream: null });
  });

  test('the browser is the main one, whichever section it comes in; a device is while there is no browser', async () => {
    await join({ path: 'relayed', peers: [{ ...PEER, direct: false }] });
    const connection = await want(2, 2);
    await answer(['p', 'p/dermatoscope']);
    await want(2, 2);
    await answer(['p/dermatoscope', undefined]); // their page is loading anew
    await want(2, 2);
    await answer(['p/dermatoscope', 'p/transport-p2']);
    for (const track of received(connection, 1)) flowing.add(track);
    await pass(500);
    assert.deepEqual(peer().stream.getTracks(), received(connection, 1));
    const device = heard('track').findLast(({ source, track }) => source === 'dermatoscope' && track !== null);
    assert.deepEqual(device.stream.getTracks(), received(connection, 0));
  });

  test('a connection that is replaced: what was shown stays until the new one brings it', async () => {
    await join({ path: 'relayed', peers: [{ ...PEER, direct: false }] });
    await want();
    await answer();
    const { stream } = peer();
    await want(1, 1, { fresh: true });
    assert.equal(peer().stream, stream);
    await answer();
    assert.deepEqual(peer().stream.getTracks(), received(relay()));
    assert.notEqual(peer().stream, stream);
  });

  test('a camera that is switched on is sent there too; who speaks is told', async () => {
    await join({ path: 'relayed' });
    const connection = await want();
    client.setTrack('video', new FakeTrack('video', 'another'));
    assert.deepEqual(sending(connection), ['my audio', 'another']);
    say({ type: 'speakers', participants: ['p', 'me'] });
    assert.deepEqual(heard('speakers')[0].participants, ['p', 'me']);
  });

  test('leaving ends it', async () => {
    await join({ path: 'relayed' });
    const connection = await want();
    await answer();
    client.leave();
    say({ type: 'state', state: 'left' });
    assert.equal(connection.closed, true);
    const before = said('pathReport').length + said('relayOffer').length;
    await pass(10_000);
    assert.equal(said('pathReport').length + said('relayOffer').length, before);
  });
});
