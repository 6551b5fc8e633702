import assert from 'node:assert/strict';
import { beforeEach, test } from 'node:test';

import { Client } from '../../../web/static/js/rtc/client.js';
import { FakeTrack, FakeWebSocket, fakePlatform, settle, silent } from './fakes.js';

const PEER = { id: 'p', role: 'patient', name: 'Canary', connection: 'online', microphone: 'on', camera: 'on', instance: 'p1', polite: false };
const EVENTS = ['state', 'signalling', 'visitors', 'peerjoined', 'peerchanged', 'peerleft', 'track', 'media', 'occupied', 'refused', 'problem', 'told', 'transferred', 'ended', 'goingaway'];

let platform, environment, kept, client, events;

beforeEach(() => (client = makeClient()));

function makeClient(options = {}) {
  platform = fakePlatform();
  environment = new EventTarget();
  kept = null;
  events = [];
  const made = new Client({
    url: 'wss://video.example.org/ws',
    tenant: 'clinique',
    secret: 'secret',
    storage: { get: () => kept, set: (resume) => (kept = resume) },
    environment,
    log: silent,
    platform,
    ...options,
  });
  for (const type of EVENTS) made.addEventListener(type, ({ detail }) => events.push({ type, ...detail }));
  return made;
}

const socket = () => FakeWebSocket.last;
const said = (type) => socket().sent.filter((message) => message.type === type);
const heard = (type) => events.filter((event) => event.type === type);

/** Connect and be welcomed as the server does it: except for newcomers, where they stand follows the welcome. */
function welcome(facts = {}, peers = []) {
  if (client.state === 'idle') client.connect();
  socket().welcome(facts);
  const state = facts.state ?? 'admitted';
  if (state !== 'arrived') socket().say({ type: 'state', state, ...(state === 'joined' && { peers }), iceServers: [] });
}

/** Let the first offer go out, and answer it. */
async function answered() {
  await settle();
  await settle();
  const [connection] = platform.RTCPeerConnection.all;
  await connection.setRemoteDescription({ type: 'answer', sdp: connection.localDescription.sdp.replace(/u\d+/, 'theirs') });
}

test('hello tells the link secret, the instance and nothing that is not known', () => {
  client.connect();
  socket().accept();
  assert.deepEqual(socket().sent, [{ type: 'hello', version: 1, tenant: 'clinique', instance: 'instance-1', secret: 'secret' }]);
});

test('the resume secret is kept and told, also by the next page load', () => {
  welcome({ resume: 'resume-7' });
  assert.equal(kept, 'resume-7');
  environment.dispatchEvent(new Event('online'));
  socket().accept();
  assert.equal(said('hello')[0].resume, 'resume-7');
  assert.equal(said('hello')[0].instance, 'instance-1', 'the same page load');
});

test('a link without secret and without anything to resume is refused without asking', () => {
  client = makeClient({ secret: '' });
  client.connect();
  assert.equal(FakeWebSocket.all.length, 0);
  assert.equal(client.state, 'refused');
  assert.equal(heard('refused')[0].code, 'link_unknown');
});

test('patient: ready, waiting, admitted, join, each when it is time', () => {
  welcome({ role: 'patient', state: 'arrived' });
  assert.deepEqual(client.self, { id: 'me', role: 'patient', name: 'Dr Canary', room: 'room' });
  client.ready();
  assert.equal(said('ready').length, 1);
  socket().say({ type: 'state', state: 'waiting', place: 2, expected: true });
  assert.deepEqual(events.at(-1), { type: 'state', state: 'waiting', place: 2, expected: true, reason: '' });
  socket().say({ type: 'state', state: 'admitted', iceServers: [] });
  assert.equal(said('join').length, 0, 'nobody has asked to join');
  client.setMedia({ microphone: 'on', camera: 'off' });
  client.join();
  assert.deepEqual(said('join'), [{ type: 'join', microphone: 'on', camera: 'off' }]);
});

test('join() at any time: the client is taken along without another call', () => {
  welcome({ role: 'patient', state: 'arrived' });
  client.join();
  assert.equal(said('ready').length, 1);
  socket().say({ type: 'state', state: 'waiting', place: 1 });
  assert.equal(said('join').length, 0);
  socket().say({ type: 'state', state: 'admitted', iceServers: [] });
  assert.equal(said('join').length, 1);
});

test('sent back to the waiting room: the media ends and nothing joins by itself', () => {
  welcome({ state: 'admitted' });
  client.join();
  socket().say({ type: 'state', state: 'joined', peers: [PEER], iceServers: [] });
  socket().say({ type: 'state', state: 'waiting', place: 1, reason: 'Un instant' });
  assert.equal(client.peers.size, 0);
  assert.equal(platform.RTCPeerConnection.all[0].closed, true);
  assert.equal(events.at(-1).reason, 'Un instant');
  socket().say({ type: 'state', state: 'admitted', iceServers: [] });
  assert.equal(said('join').length, 1);
});

test('leave hangs up, join comes back', () => {
  welcome({ state: 'joined' }, [PEER]);
  client.leave();
  assert.equal(said('leave').length, 1);
  socket().say({ type: 'state', state: 'left' });
  assert.equal(client.peers.size, 0);
  client.join();
  assert.equal(said('join').length, 1);
});

test('after a reload in the conversation the peers are there without a click, and devices are not reported before they are open', () => {
  kept = 'resume-1';
  welcome({ state: 'joined' }, [PEER]);
  assert.equal(client.state, 'joined');
  assert.equal(client.peers.get('p').stream.getTracks().length, 0);
  assert.equal(platform.RTCPeerConnection.all.length, 1);
  assert.deepEqual(said('setMedia'), []);
  client.setMedia({ microphone: 'on', camera: 'missing' });
  assert.deepEqual(said('setMedia'), [{ type: 'setMedia', microphone: 'on', camera: 'missing' }]);
});

test('a device that changes while joining, or while away, is said as soon as there is somebody to hear it', () => {
  welcome({ state: 'admitted' });
  client.setMedia({ microphone: 'on', camera: 'missing' });
  client.join();
  client.setMedia({ camera: 'on' });
  assert.deepEqual(said('setMedia'), []);
  socket().say({ type: 'state', state: 'joined', peers: [], iceServers: [] });
  assert.deepEqual(said('setMedia'), [{ type: 'setMedia', microphone: 'on', camera: 'on' }]);
  socket().drop();
  client.setMedia({ camera: 'off' });
  environment.dispatchEvent(new Event('online'));
  welcome({ state: 'joined' });
  assert.deepEqual(said('setMedia'), [{ type: 'setMedia', microphone: 'on', camera: 'off' }]);
});

test('what was asked for while offline is asked for again', () => {
  welcome({ role: 'patient', state: 'arrived' });
  socket().drop();
  client.ready();
  environment.dispatchEvent(new Event('online'));
  welcome({ role: 'patient', state: 'arrived' });
  assert.equal(said('ready').length, 1);
});

test('a command that cannot be sent now is reported, not kept', () => {
  welcome({ state: 'joined' });
  socket().drop();
  client.admit('p');
  assert.deepEqual(heard('problem'), [{ type: 'problem', code: 'offline', message: '', re: 'admit' }]);
  environment.dispatchEvent(new Event('online'));
  socket().welcome({ state: 'joined' });
  assert.deepEqual(said('admit'), []);
});

test('every command of a clinician has its message', () => {
  welcome({ state: 'joined' });
  client.admit('p');
  client.refuse('p', 'r');
  client.sendBack('p', 'r');
  client.remove('p', 'r');
  client.transfer('p', 'room-2');
  client.tell('p', 'Bientôt');
  client.endRoom('r');
  client.setLanguage('en');
  assert.deepEqual(socket().sent.slice(1), [
    { type: 'admit', participant: 'p' },
    { type: 'refuse', participant: 'p', reason: 'r' },
    { type: 'sendBack', participant: 'p', reason: 'r' },
    { type: 'remove', participant: 'p', reason: 'r' },
    { type: 'transfer', participant: 'p', room: 'room-2' },
    { type: 'tell', participant: 'p', text: 'Bientôt' },
    { type: 'endRoom', reason: 'r' },
    { type: 'setLanguage', language: 'en' },
  ]);
});

test('peers join, change and leave', () => {
  welcome({ state: 'joined' });
  socket().say({ type: 'peerJoined', peer: PEER });
  assert.equal(heard('peerjoined')[0].peer, client.peers.get('p'));
  socket().say({ type: 'peerChanged', peer: { ...PEER, camera: 'off', connection: 'reconnecting' } });
  assert.equal(client.peers.get('p').camera, 'off');
  assert.equal(client.peers.get('p').connection, 'reconnecting');
  assert.equal(heard('peerchanged').length, 1);
  socket().say({ type: 'peerLeft', id: 'p', why: 'timeout' });
  assert.deepEqual(heard('peerleft'), [{ type: 'peerleft', id: 'p', why: 'timeout' }]);
  assert.equal(platform.RTCPeerConnection.all[0].closed, true);
});

test('the conversation outlives the socket, and ICE restarts when the network may have changed', async () => {
  welcome({ state: 'joined' }, [PEER]);
  await answered();
  const [connection] = platform.RTCPeerConnection.all;
  const { localDescription } = connection;
  socket().drop();
  assert.deepEqual(heard('signalling').map(({ online }) => online), [true, false]);
  assert.equal(client.state, 'joined');
  assert.equal(connection.closed, false);
  await platform.clock.advance(60_000);
  socket().accept();
  socket().welcome({ state: 'joined' });
  socket().say({ type: 'state', state: 'joined', peers: [PEER], iceServers: [{ urls: ['turn:new'] }] });
  await settle();
  await settle();
  await settle();
  assert.equal(platform.RTCPeerConnection.all.length, 1);
  assert.notEqual(connection.localDescription, localDescription);
  assert.deepEqual(connection.configuration.iceServers, [{ urls: ['turn:new'] }]);
  assert.deepEqual(said('refreshIceServers'), [], 'those that came with the state are fresh');
});

test('ICE servers are refreshed before a restart, and an answer that does not come does not stop it', async () => {
  welcome({ state: 'joined' }, [PEER]);
  await answered();
  await platform.clock.advance(60_000);
  environment.dispatchEvent(new Event('online')); // the pings of this test's server do not come
  socket().welcome({ state: 'joined' });
  socket().say({ type: 'state', state: 'joined', peers: [PEER] });
  for (let i = 0; i < 4; i++) await settle();
  assert.equal(said('refreshIceServers').length, 1);
  assert.equal(said('description').length, 0);
  await platform.clock.advance(1001);
  await settle();
  assert.equal(said('description').length, 1);
});

test('a server that restarts does not end the conversation', async () => {
  welcome({ state: 'joined' }, [PEER]);
  client.join();
  const [connection] = platform.RTCPeerConnection.all;
  connection.setState('connected', 'connected');
  socket().say({ type: 'goingAway', retryAfterMs: 500 });
  await platform.clock.advance(600);
  welcome({ state: 'admitted' });
  assert.equal(said('join').length, 1);
  socket().say({ type: 'state', state: 'joined', peers: [], iceServers: [] });
  assert.equal(client.peers.size, 1, 'they have not come back to the server yet');
  socket().say({ type: 'peerJoined', peer: PEER });
  for (let i = 0; i < 12; i++) {
    await platform.clock.advance(1500);
    socket().say({ type: 'ping' });
  }
  assert.equal(client.peers.size, 1);
  assert.equal(connection.closed, false);
  assert.deepEqual(heard('peerleft'), []);
});

test('who does not come back to a restarted server has left', async () => {
  welcome({ state: 'joined' }, [PEER]);
  client.join();
  platform.RTCPeerConnection.all[0].setState('connected', 'connected');
  socket().say({ type: 'goingAway', retryAfterMs: 500 });
  await platform.clock.advance(600);
  welcome({ state: 'admitted' });
  socket().say({ type: 'state', state: 'joined', peers: [], iceServers: [] });
  for (let i = 0; i < 11; i++) {
    await platform.clock.advance(1500);
    socket().say({ type: 'ping' });
  }
  assert.equal(client.peers.size, 0);
});

test('occupied: asks, then takes over with a hello that says so', () => {
  client.connect();
  socket().accept();
  socket().say({ type: 'occupied' });
  assert.equal(heard('occupied').length, 1);
  assert.equal(socket().readyState, 3, 'nothing is held open while the person thinks');
  client.takeOver();
  socket().accept();
  assert.equal(said('hello')[0].takeOver, true);
  socket().say({ ...WELCOME_BACK });
  assert.equal(client.state, 'arrived');
  environment.dispatchEvent(new Event('online'));
  socket().accept();
  assert.equal(said('hello')[0].takeOver, undefined, 'taken once');
});

const WELCOME_BACK = { type: 'welcome', version: 1, id: 'me', role: 'patient', name: '', state: 'arrived', resume: 'r', language: 'fr', room: 'room', pingIntervalMs: 1500, deadAfterMs: 4000 };

test('taken over from here: refused, and the way back is takeOver()', async () => {
  welcome({ state: 'joined' }, [PEER]);
  socket().say({ type: 'refused', code: 'taken_over', message: 'Ouvert ailleurs.' });
  socket().drop(4409);
  assert.equal(client.state, 'refused');
  assert.deepEqual(heard('refused'), [{ type: 'refused', code: 'taken_over', message: 'Ouvert ailleurs.', reason: '', retry: false }]);
  assert.equal(kept, null);
  assert.equal(client.peers.size, 0);
  environment.dispatchEvent(new Event('online'));
  await platform.clock.advance(60_000);
  assert.equal(FakeWebSocket.all.length, 1, 'the two devices do not fight for the seat');
  client.takeOver();
  socket().accept();
  assert.equal(said('hello')[0].takeOver, true);
});

test('a seat that was taken while we were away: asks, and the conversation here is over', () => {
  welcome({ state: 'joined' }, [PEER]);
  socket().drop();
  environment.dispatchEvent(new Event('online'));
  socket().accept();
  socket().say({ type: 'occupied' });
  assert.equal(heard('occupied').length, 1);
  assert.equal(client.peers.size, 0);
  assert.equal(client.state, 'connecting');
});

test('a refusal that may be retried is', async () => {
  client.connect();
  socket().accept();
  socket().say({ type: 'refused', code: 'rate_limited', message: '', retry: true });
  socket().drop(4429);
  assert.equal(client.state, 'connecting');
  await platform.clock.advance(5000);
  welcome({ state: 'arrived' });
  assert.equal(client.state, 'arrived');
});

test('transferred: says hello in the other room with the new secret only', () => {
  kept = 'resume-old';
  welcome({ role: 'patient', state: 'joined' }, [PEER]);
  client.join();
  socket().say({ type: 'transferred', secret: 'secret-2' });
  assert.deepEqual(heard('transferred'), [{ type: 'transferred', secret: 'secret-2' }]);
  assert.equal(client.peers.size, 0);
  assert.equal(client.state, 'connecting');
  socket().accept();
  assert.deepEqual(said('hello')[0], { type: 'hello', version: 1, tenant: 'clinique', instance: 'instance-1', secret: 'secret-2' });
  socket().say({ ...WELCOME_BACK });
  assert.equal(said('ready').length, 1, 'devices are chosen already');
});

test('the room ends for everybody', () => {
  welcome({ state: 'joined' }, [PEER]);
  socket().say({ type: 'roomEnded', by: 'clinician', reason: 'Au revoir' });
  assert.equal(client.state, 'ended');
  assert.deepEqual(heard('ended'), [{ type: 'ended', by: 'clinician', reason: 'Au revoir' }]);
  assert.equal(kept, null);
  assert.equal(platform.RTCPeerConnection.all[0].closed, true);
});

test('rejoin starts over with everybody as another instance', () => {
  welcome({ state: 'joined' }, [PEER]);
  client.rejoin();
  assert.equal(platform.RTCPeerConnection.all[0].closed, true);
  welcome({ state: 'joined' }, [PEER]);
  assert.equal(said('hello')[0].instance, 'instance-2');
  assert.equal(platform.RTCPeerConnection.all.length, 2);
});

test('a message that crosses a departure is nobody’s problem; a bad description is', () => {
  welcome({ state: 'joined' });
  socket().say({ type: 'problem', code: 'unknown_participant', message: 'x', re: 'candidate' });
  socket().say({ type: 'problem', code: 'bad_sdp', message: 'x', re: 'description' });
  socket().say({ type: 'problem', code: 'room_full', message: 'x', re: 'join' });
  assert.deepEqual(heard('problem').map(({ code }) => code), ['bad_sdp', 'room_full']);
});

test('clinicians see who waits; visitors hear what is told', () => {
  const visitors = [{ id: 'v', role: 'patient', name: 'Canary', state: 'waiting', connection: 'online', sinceMs: 0 }];
  welcome();
  socket().say({ type: 'visitors', visitors });
  assert.deepEqual(client.visitors, visitors);
  socket().say({ type: 'told', text: 'Dix minutes' });
  assert.equal(heard('told')[0].text, 'Dix minutes');
});

test('tracks and devices: what is attached is sent, and said', () => {
  welcome({ state: 'joined' }, [PEER]);
  const devices = Object.assign(new EventTarget(), {
    opened: false,
    tracks: { audio: null, video: null },
    track: (kind) => devices.tracks[kind],
    state: (kind) => (devices.tracks[kind] ? 'on' : 'missing'),
  });
  client.attach(devices);
  assert.deepEqual(said('setMedia'), []);
  devices.tracks.video = new FakeTrack('video');
  devices.dispatchEvent(new Event('state'));
  const [, video] = platform.RTCPeerConnection.all[0].getTransceivers();
  assert.equal(video.sender.track, devices.tracks.video);
  assert.equal(devices.tracks.video.contentHint, 'motion');
  assert.deepEqual(said('setMedia'), [{ type: 'setMedia', microphone: 'missing', camera: 'on' }]);
  assert.deepEqual(client.media, { microphone: 'missing', camera: 'on' });
});

test('close stops everything, keeps the resume secret, and connect starts again', async () => {
  welcome({ state: 'joined' }, [PEER]);
  client.close();
  assert.equal(client.state, 'idle');
  assert.equal(client.peers.size, 0);
  environment.dispatchEvent(new Event('online'));
  await platform.clock.advance(60_000);
  assert.equal(FakeWebSocket.all.length, 1);
  client.connect();
  socket().accept();
  assert.equal(said('hello')[0].resume, 'resume-1');
});
