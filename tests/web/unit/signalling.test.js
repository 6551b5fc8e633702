import assert from 'node:assert/strict';
import { beforeEach, test } from 'node:test';

import { Signalling } from '../../../web/static/js/rtc/signalling.js';
import { FakeWebSocket, fakePlatform, silent } from './fakes.js';

let platform, signalling, received, onlines;

beforeEach(() => {
  platform = fakePlatform();
  received = [];
  onlines = [];
  signalling = new Signalling({
    url: 'wss://video.example.org/ws',
    platform,
    log: silent,
    hello: () => ({ type: 'hello', version: 1, tenant: 't', instance: 'i', secret: 's' }),
    onMessage: (message) => received.push(message),
    onOnline: (online, moved) => onlines.push(online ? (moved ? 'online, moved' : 'online') : 'offline'),
  });
});

/** Be the server for a while: a ping every 1.5 s. */
async function pinging(socket, ms) {
  for (let passed = 0; passed < ms; passed += 1500) {
    await platform.clock.advance(1500);
    socket.say({ type: 'ping' });
  }
}

test('says hello first and is online with the welcome', () => {
  signalling.open();
  const socket = FakeWebSocket.last;
  assert.deepEqual(socket.sent, []);
  socket.accept();
  assert.deepEqual(socket.types, ['hello']);
  assert.equal(signalling.online, false);
  assert.equal(signalling.send({ type: 'ready' }), false, 'nothing leaves before the welcome');
  socket.welcome();
  assert.equal(signalling.online, true);
  assert.deepEqual(received.map((m) => m.type), ['welcome']);
  assert.equal(signalling.send({ type: 'ready' }), true);
});

test('answers ping from the message handler, without any timer', () => {
  signalling.open();
  FakeWebSocket.last.welcome();
  FakeWebSocket.last.say({ type: 'ping' });
  assert.deepEqual(FakeWebSocket.last.types.slice(-1), ['pong']);
  assert.deepEqual(received.map((m) => m.type), ['welcome']);
});

test('a socket that is pinged lives for ever', async () => {
  signalling.open();
  FakeWebSocket.last.welcome();
  await pinging(FakeWebSocket.last, 60_000);
  assert.equal(FakeWebSocket.all.length, 1);
  assert.equal(signalling.online, true);
});

test('silence: another socket is dialled after a missed ping, the old one is dead after 4 s', async () => {
  signalling.open();
  const first = FakeWebSocket.last;
  first.welcome();
  await platform.clock.advance(1999);
  assert.equal(FakeWebSocket.all.length, 1);
  await platform.clock.advance(10);
  assert.equal(FakeWebSocket.all.length, 2, 'dialled beside the silent one');
  assert.equal(signalling.online, true, 'which is not given up yet');
  await platform.clock.advance(1980);
  assert.equal(signalling.online, true);
  await platform.clock.advance(20);
  assert.equal(signalling.online, false);
  assert.deepEqual(onlines, ['online, moved', 'offline']);
  assert.equal(first.readyState, 3);
});

test('a false alarm keeps the old socket', async () => {
  signalling.open();
  const first = FakeWebSocket.last;
  first.welcome();
  await platform.clock.advance(2100);
  first.say({ type: 'ping' });
  FakeWebSocket.last.accept();
  assert.deepEqual(FakeWebSocket.last.sent, [], 'no hello on the second');
  assert.equal(signalling.online, true);
  assert.deepEqual(onlines, ['online, moved']);
});

test('late events of a socket that was given up are ignored', async () => {
  signalling.open();
  const first = FakeWebSocket.last;
  first.welcome();
  const { onmessage, onclose } = first;
  await platform.clock.advance(2100);
  const second = FakeWebSocket.last;
  second.welcome();
  assert.notEqual(first, second);
  onmessage({ data: JSON.stringify({ type: 'told', text: 'late' }) });
  onclose({ code: 4409 });
  assert.deepEqual(received.map((m) => m.type), ['welcome', 'welcome']);
  assert.equal(signalling.online, true);
});

test('online dials at once and replaces even a socket that speaks', async () => {
  signalling.open();
  const first = FakeWebSocket.last;
  first.welcome();
  signalling.wake(true);
  const second = FakeWebSocket.last;
  assert.notEqual(first, second);
  await platform.clock.advance(10);
  first.say({ type: 'ping' });
  second.welcome();
  assert.equal(first.readyState, 3);
  assert.deepEqual(onlines, ['online, moved', 'offline', 'online, moved']);
});

test('online does not wait for an attempt that hangs, nor for the back-off', async () => {
  signalling.open();
  signalling.wake(true);
  assert.equal(FakeWebSocket.all.length, 2);
  assert.equal(FakeWebSocket.all[0].readyState, 3);
  for (let attempt = 0; attempt < 5; attempt++) {
    FakeWebSocket.last.drop();
    await platform.clock.advance(3000);
  }
  FakeWebSocket.last.drop();
  const before = FakeWebSocket.all.length;
  signalling.wake(true);
  assert.equal(FakeWebSocket.all.length, before + 1);
});

test('a page that comes back to the front dials only when a ping is missing', async () => {
  signalling.open();
  FakeWebSocket.last.welcome();
  await platform.clock.advance(1000);
  signalling.wake(false);
  assert.equal(FakeWebSocket.all.length, 1);
  platform.clock.time += 60_000; // the machine slept: no timer fired
  signalling.wake(false);
  assert.equal(FakeWebSocket.all.length, 2);
});

test('an attempt that hangs is abandoned after 2.5 s and made again', async () => {
  signalling.open();
  await platform.clock.advance(2499);
  assert.equal(FakeWebSocket.all.length, 1);
  await platform.clock.advance(2);
  assert.equal(FakeWebSocket.all.length, 2);
  assert.equal(FakeWebSocket.all[0].readyState, 3);
});

test('an attempt that opens and is never welcomed is abandoned too', async () => {
  signalling.open();
  FakeWebSocket.last.accept();
  await platform.clock.advance(2501);
  assert.equal(FakeWebSocket.all.length, 2);
});

/** Play a network that is away for 10 s from now on, then back; return how long after that we are online. */
async function recovery(fail) {
  signalling.open();
  FakeWebSocket.last.welcome();
  let known = FakeWebSocket.all.length;
  for (let passed = 0; passed < 10_000; passed += 50) {
    await platform.clock.advance(50);
    for (; known < FakeWebSocket.all.length; known++) fail(FakeWebSocket.all[known]);
  }
  const back = platform.clock.time;
  while (!signalling.online && platform.clock.time < back + 20_000) {
    await platform.clock.advance(50);
    for (; known < FakeWebSocket.all.length; known++) FakeWebSocket.all[known].welcome();
  }
  return platform.clock.time - back;
}

test('a cut of 10 s in which packets vanish is over within 3 s', async () => {
  const took = await recovery(() => {});
  assert.ok(took <= 3000, `${took} ms`);
});

test('a cut of 10 s in which connections are refused is over within 3 s', async () => {
  const took = await recovery((socket) => socket.drop());
  assert.ok(took <= 3000, `${took} ms`);
});

test('goingAway: comes back when told, not before, and the network has not changed', async () => {
  signalling.open();
  FakeWebSocket.last.welcome();
  FakeWebSocket.last.say({ type: 'goingAway', retryAfterMs: 1700 });
  assert.equal(signalling.online, false);
  await platform.clock.advance(1699);
  assert.equal(FakeWebSocket.all.length, 1);
  await platform.clock.advance(2);
  assert.equal(FakeWebSocket.all.length, 2);
  FakeWebSocket.last.welcome();
  assert.deepEqual(onlines, ['online, moved', 'offline', 'online']);
});

test('a refusal that may be retried is, but not in haste', async () => {
  signalling.open();
  FakeWebSocket.last.accept();
  FakeWebSocket.last.say({ type: 'refused', code: 'rate_limited', message: '', retry: true });
  FakeWebSocket.last.drop(4429);
  await platform.clock.advance(2900);
  assert.equal(FakeWebSocket.all.length, 1);
  await platform.clock.advance(200);
  assert.equal(FakeWebSocket.all.length, 2);
});

test('displaced by a late hello of our own: back at once', async () => {
  signalling.open();
  FakeWebSocket.last.welcome();
  FakeWebSocket.last.say({ type: 'refused', code: 'dead', message: '', retry: true });
  FakeWebSocket.last.drop(4408);
  await platform.clock.advance(1);
  assert.equal(FakeWebSocket.all.length, 2);
});

test('a terminal close code is a refusal even when the message was lost', () => {
  signalling.open();
  FakeWebSocket.last.accept();
  FakeWebSocket.last.drop(4409);
  assert.deepEqual(received, [{ type: 'refused', code: 'taken_over', message: '' }]);
});

test('close is final', async () => {
  signalling.open();
  FakeWebSocket.last.welcome();
  signalling.close();
  signalling.wake(true);
  await platform.clock.advance(60_000);
  assert.equal(FakeWebSocket.all.length, 1);
  assert.equal(FakeWebSocket.last.readyState, 3);
});

test('what is no message is ignored', () => {
  signalling.open();
  FakeWebSocket.last.welcome();
  for (const text of ['', '{', 'null', '[]', '7', '{"type": 7}']) FakeWebSocket.last.say(text);
  FakeWebSocket.last.onmessage({ data: new ArrayBuffer(4) });
  assert.deepEqual(received.map((m) => m.type), ['welcome']);
  assert.equal(signalling.online, true);
});

test('a message that the server would close the socket on is not sent', () => {
  signalling.open();
  FakeWebSocket.last.welcome();
  assert.equal(signalling.send({ type: 'told', text: 'é'.repeat(32_760) }), false);
  assert.equal(signalling.send({ type: 'told', text: 'e'.repeat(65_500) }), true);
  assert.deepEqual(FakeWebSocket.last.types.slice(-1), ['told']);
});

test('a socket that is closed for a large message is dialled again later and later, although each is welcomed', async () => {
  signalling.open();
  for (let closed = 0; closed < 4; closed++) {
    FakeWebSocket.last.welcome();
    FakeWebSocket.last.drop(1009);
    await platform.clock.advance([100, 2100, 5100, 15_100][closed]);
    assert.equal(FakeWebSocket.all.length, closed + 2);
  }
  FakeWebSocket.last.welcome();
  FakeWebSocket.last.drop(1009);
  await platform.clock.advance(59_000);
  assert.equal(FakeWebSocket.all.length, 5);
});
