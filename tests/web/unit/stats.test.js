import assert from 'node:assert/strict';
import { test } from 'node:test';

import { QualityMeter, StatsPoller, readReport } from '../../../web/static/js/rtc/stats.js';
import { fakePlatform } from './fakes.js';

/** A path with this loss and delay, sampled every 2 s. */
class Path {
  meter = new QualityMeter();
  now = 0;
  received = 0;
  lost = 0;

  run(seconds, { loss = 0, rttMs = 20, sends = true, silent = false, sentLoss = 0 } = {}) {
    let quality;
    for (let passed = 0; passed < seconds; passed += 2) {
      this.now += 2000;
      if (!silent) {
        this.received += 1000 * (1 - loss);
        this.lost += 1000 * loss;
      }
      quality = this.meter.sample(
        { packetsReceived: this.received, packetsLost: this.lost, bytesReceived: this.received * 1000, framesDecoded: 1, audioLevel: 0.5, sentLoss, sentLossAt: this.now, rttMs, answers: null, route: null },
        sends,
        this.now,
      );
    }
    return quality;
  }
}

for (const [level, facts] of [
  ['good', { loss: 0.04, rttMs: 290 }],
  ['limited', { loss: 0.06 }],
  ['limited', { rttMs: 310 }],
  ['bad', { loss: 0.11 }],
  ['bad', { rttMs: 610 }],
  ['bad', { sentLoss: 0.2 }],
]) {
  test(`${JSON.stringify(facts)} is ${level}`, () => assert.equal(new Path().run(60, facts).level, level));
}

test('one bad sample does not change the word', () => {
  const path = new Path();
  path.run(20);
  assert.equal(path.run(2, { loss: 0.12 }).level, 'good');
});

test('hovering around a threshold does not flicker', () => {
  const path = new Path();
  path.run(60, { loss: 0.055 });
  assert.equal(path.run(20, { loss: 0.045 }).level, 'limited', 'below, not clearly');
  assert.equal(path.run(20, { loss: 0.02 }).level, 'good');
});

test('lost after 3 s without a byte while they send; not when their devices are off', () => {
  const path = new Path();
  path.run(20);
  assert.equal(path.run(2, { silent: true }).level, 'good');
  assert.equal(path.run(2, { silent: true }).level, 'lost');
  assert.equal(path.run(2).level, 'good');
  assert.equal(path.run(20, { silent: true, sends: false }).level, 'good');
});

test('a new connection counts from zero without a spike', () => {
  const path = new Path();
  path.run(20, { loss: 0.02 });
  path.received = path.lost = 0;
  assert.ok(path.run(2).loss < 0.03);
  path.run(2, { silent: true });
  path.received = path.lost = -500;
  assert.equal(path.run(2).level, 'good', 'fewer bytes than before are bytes all the same');
});

test('another connection with more bytes and fewer packets counts for itself', () => {
  const meter = new QualityMeter();
  const counters = { packetsReceived: 0, packetsLost: 0, bytesReceived: 0, framesDecoded: 1, audioLevel: 0, sentLoss: 0, sentLossAt: 0, rttMs: 20, answers: null, route: null };
  const [direct, relayed] = [{}, {}];
  meter.sample({ ...counters, packetsReceived: 5000, bytesReceived: 1e6 }, true, 0, direct);
  meter.sample({ ...counters, packetsReceived: 6000, bytesReceived: 2e6 }, true, 2000, direct);
  assert.equal(meter.sample({ ...counters, packetsReceived: 5600, packetsLost: 500, bytesReceived: 3e6 }, true, 4000, relayed).loss, 0);
  assert.ok(meter.sample({ ...counters, packetsReceived: 6500, packetsLost: 600, bytesReceived: 4e6 }, true, 6000, relayed).loss > 0);
});

test('figures are read from the reports of both families of browsers', () => {
  const rtp = [
    { type: 'inbound-rtp', id: 'a', packetsReceived: 10, packetsLost: 1, bytesReceived: 100, audioLevel: 0.3 },
    { type: 'inbound-rtp', id: 'v', packetsReceived: 20, packetsLost: 2, bytesReceived: 200, framesDecoded: 7 },
    { type: 'remote-inbound-rtp', id: 'r', fractionLost: 0.25, roundTripTime: 0.1, timestamp: 5000 },
    { type: 'local-candidate', id: 'l', candidateType: 'relay', protocol: 'udp', relayProtocol: 'tls' },
    { type: 'remote-candidate', id: 'm', candidateType: 'srflx' },
  ];
  const pair = { type: 'candidate-pair', id: 'p', localCandidateId: 'l', remoteCandidateId: 'm', currentRoundTripTime: 0.05, responsesReceived: 7 };
  const report = (entries) => new Map(entries.map((entry) => [entry.id, entry]));
  const expected = {
    packetsReceived: 30,
    packetsLost: 3,
    bytesReceived: 300,
    framesDecoded: 7,
    audioLevel: 0.3,
    sentLoss: 0.25,
    sentLossAt: 5000,
    rttMs: 50,
    answers: 7,
    route: { local: 'relay', remote: 'srflx', protocol: 'udp', relayProtocol: 'tls' },
  };
  assert.deepEqual(readReport(report([...rtp, pair, { type: 'transport', id: 't', selectedCandidatePairId: 'p' }])), expected);
  assert.deepEqual(readReport(report([...rtp, { ...pair, selected: true }])), expected);
  assert.equal(readReport(report(rtp)).rttMs, 100, 'without a pair, what the other end reports');
});

test('through the media server only the tracks of one participant count as received from them', () => {
  const entry = (id, bytesReceived) => [id, { type: 'inbound-rtp', id, trackIdentifier: id, bytesReceived }];
  const report = new Map([entry('theirs', 100), entry('others', 1000)]);
  assert.equal(readReport(report, new Set(['theirs'])).bytesReceived, 100);
  assert.equal(readReport(report).bytesReceived, 1100);
});

test('every peer that has media is asked every 2 s, until stopped', async () => {
  const platform = fakePlatform();
  const qualities = [];
  const peer = (id, media) => ({ id, media, microphone: 'on', camera: 'on' });
  const stats = async () => ({ connection: null, report: new Map(), tracks: undefined });
  const poller = new StatsPoller(platform, () => [peer('p', 'connected'), peer('q', 'connecting')], stats, (quality) => qualities.push(quality.peerId));
  poller.start();
  poller.start();
  await platform.clock.advance(4100);
  assert.deepEqual(qualities, ['p', 'p']);
  poller.stop();
  await platform.clock.advance(10_000);
  assert.equal(qualities.length, 2);
});
