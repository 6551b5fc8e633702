import assert from 'node:assert/strict';
import { beforeEach, describe, test } from 'node:test';

import { Devices } from '../../../web/static/js/rtc/devices.js';
import { loudness } from '../../../web/static/js/rtc/level.js';
import { FakeTrack, FakeMediaStream, fakePlatform, settle, silent } from './fakes.js';

/** A computer: what is plugged in, and how the browser and the person answer. */
class FakeMediaDevices extends EventTarget {
  plugged = [
    { kind: 'audioinput', deviceId: 'mic', label: 'Micro' },
    { kind: 'audioinput', deviceId: 'mic2', label: 'Casque' },
    { kind: 'videoinput', deviceId: 'cam', label: 'Caméra' },
    { kind: 'audiooutput', deviceId: 'out', label: 'Haut-parleur' },
  ];
  asked = [];
  /** @type {(constraints: object) => Error | null} */
  refuse = () => null;

  async enumerateDevices() {
    return this.plugged;
  }

  async getUserMedia(constraints) {
    this.asked.push(constraints);
    await settle();
    const refusal = this.refuse(constraints);
    if (refusal) throw refusal;
    const tracks = [];
    for (const [kind, input] of [['audio', 'audioinput'], ['video', 'videoinput']]) {
      if (!constraints[kind]) continue;
      const exact = constraints[kind].deviceId?.exact;
      const device = this.plugged.find((candidate) => candidate.kind === input && (!exact || candidate.deviceId === exact));
      if (!device) throw new DOMException('', exact ? 'OverconstrainedError' : 'NotFoundError');
      tracks.push(new FakeTrack(kind, device.label, device.deviceId));
    }
    return new FakeMediaStream(tracks);
  }

  unplug(deviceId) {
    this.plugged = this.plugged.filter((device) => device.deviceId !== deviceId);
    this.dispatchEvent(new Event('devicechange'));
  }

  plug(device) {
    this.plugged.push(device);
    this.dispatchEvent(new Event('devicechange'));
  }
}

let platform, mediaDevices, environment, permissions, events, devices;

beforeEach(() => {
  platform = fakePlatform();
  mediaDevices = new FakeMediaDevices();
  environment = new EventTarget();
  permissions = { camera: 'granted', microphone: 'granted' };
  events = [];
  devices = make();
});

function make(options = {}) {
  const made = new Devices({
    mediaDevices,
    permissions: { query: async ({ name }) => ({ state: permissions[name] }) },
    isSecureContext: true,
    environment,
    log: silent,
    platform,
    ...options,
  });
  for (const type of ['state', 'changed', 'interrupted', 'restored', 'level']) {
    made.addEventListener(type, ({ detail }) => events.push({ type, ...detail }));
  }
  return made;
}

const both = { audio: true, video: true };
const fail = (name, message = '') => new DOMException(message, name);
const heard = (type) => events.filter((event) => event.type === type).map(({ type: _, ...facts }) => facts);

/** Long enough for a chain of questions to the browser. */
async function patience() {
  for (let i = 0; i < 20; i++) await settle();
}

describe('asking', () => {
  test('both in one question, with what speech and a consultation need', async () => {
    assert.deepEqual(await devices.open(both), { audio: null, video: null });
    assert.equal(mediaDevices.asked.length, 1);
    const [{ audio, video }] = mediaDevices.asked;
    assert.deepEqual(audio, { echoCancellation: true, noiseSuppression: true, autoGainControl: true });
    assert.deepEqual([video.width, video.height, video.frameRate.ideal], [{ ideal: 1280 }, { ideal: 720 }, 30]);
    assert.deepEqual([devices.state('audio'), devices.state('video')], ['on', 'on']);
    assert.deepEqual(devices.stream.getTracks().map(({ kind }) => kind), ['audio', 'video']);
    assert.equal(devices.deviceId('video'), 'cam');
  });

  test('nobody is told of half a change', async () => {
    devices.addEventListener('state', () => assert.deepEqual([devices.state('audio'), devices.state('video')], ['on', 'on']));
    await devices.open(both);
    assert.equal(heard('state').length, 2);
  });

  test('nothing is on before it is asked for', () => {
    assert.deepEqual([devices.state('audio'), devices.state('video'), devices.opened], ['off', 'off', false]);
    assert.deepEqual(mediaDevices.asked, []);
  });

  for (const [absent, kind, other] of [['cam', 'video', 'audio'], [/^mic/, 'audio', 'video']]) {
    test(`no ${kind} device: the other one alone`, async () => {
      mediaDevices.plugged = mediaDevices.plugged.filter(({ deviceId }) => !deviceId.match(absent));
      const errors = await devices.open(both);
      assert.equal(errors[kind].code, 'device_missing');
      assert.equal(errors[kind].kind, kind);
      assert.equal(errors[other], null);
      assert.deepEqual([devices.state(kind), devices.state(other)], ['missing', 'on']);
    });
  }

  test('a camera that another program holds: the microphone alone', async () => {
    mediaDevices.refuse = ({ video }) => (video ? fail('NotReadableError') : null);
    const { audio, video } = await devices.open(both);
    assert.deepEqual([audio, video.code], [null, 'device_busy']);
    assert.equal(devices.state('audio'), 'on');
  });

  test('a camera that is refused: the microphone alone, without asking for the camera again', async () => {
    permissions.camera = 'denied';
    mediaDevices.refuse = ({ video }) => (video ? fail('NotAllowedError') : null);
    const { audio, video } = await devices.open(both);
    assert.deepEqual([audio, video.code], [null, 'permission_denied']);
    assert.equal(mediaDevices.asked.length, 2);
  });

  test('a camera too modest for the wishes is taken as it is', async () => {
    mediaDevices.refuse = ({ video }) => (video?.width ? fail('OverconstrainedError') : null);
    await devices.open(both);
    assert.equal(devices.state('video'), 'on');
  });

  test('questions do not overlap', async () => {
    const first = devices.open(both);
    const second = devices.select('audio', 'mic2');
    await Promise.all([first, second]);
    assert.equal(devices.deviceId('audio'), 'mic2');
    assert.equal(devices.stream.getTracks().length, 2);
  });
});

describe('refused', () => {
  for (const [code, error, setting] of [
    ['permission_denied', fail('NotAllowedError', 'Permission denied'), { camera: 'denied', microphone: 'denied' }],
    ['permission_dismissed', fail('NotAllowedError', 'Permission dismissed'), { camera: 'prompt', microphone: 'prompt' }],
    ['permission_blocked_by_system', fail('NotAllowedError', 'Permission denied by system'), {}],
    ['device_missing', fail('NotFoundError'), {}],
    ['device_busy', fail('AbortError'), {}],
    ['device_busy', fail('TrackStartError'), {}],
    ['unsupported', new TypeError('x'), {}],
  ]) {
    test(`${error.name} "${error.message}" is ${code}`, async () => {
      Object.assign(permissions, setting);
      mediaDevices.refuse = () => error;
      await assert.rejects(devices.open(both), { name: 'DeviceError', code, kind: 'both' });
      assert.deepEqual([devices.state('audio'), devices.state('video')], ['missing', 'missing']);
      if (code.startsWith('permission')) assert.equal(mediaDevices.asked.length, 1, 'one answer is enough');
    });
  }

  test('where the browser does not say what it has kept, its words decide', async () => {
    devices = make({ permissions: { query: async () => Promise.reject(new TypeError('camera is not a PermissionName')) } });
    mediaDevices.refuse = () => fail('NotAllowedError', 'The request is not allowed by the user agent.');
    await assert.rejects(devices.open(both), { code: 'permission_denied' });
  });

  test('the embedding page does not pass the devices on', async () => {
    devices = make({ allowsFeature: () => false });
    mediaDevices.refuse = () => fail('NotAllowedError');
    await assert.rejects(devices.open(both), { code: 'permission_blocked_by_page' });
  });

  for (const [secure, code] of [[false, 'insecure_context'], [true, 'unsupported']]) {
    test(`no mediaDevices, ${secure ? 'secure' : 'insecure'}: ${code}`, async () => {
      devices = make({ mediaDevices: null, isSecureContext: secure });
      await assert.rejects(devices.open(both), { code });
      assert.deepEqual(await devices.list(), { cameras: [], microphones: [], speakers: [] });
    });
  }

  test('asking again after a refusal works', async () => {
    mediaDevices.refuse = () => fail('NotReadableError');
    await assert.rejects(devices.open(both));
    mediaDevices.refuse = () => null;
    await devices.open(both);
    assert.equal(devices.state('video'), 'on');
  });
});

describe('choosing', () => {
  beforeEach(() => devices.open(both));

  test('another microphone replaces the first, which is released', async () => {
    const before = devices.track('audio');
    await devices.select('audio', 'mic2');
    assert.equal(devices.deviceId('audio'), 'mic2');
    assert.equal(before.readyState, 'ended');
    assert.ok(!devices.stream.getTracks().includes(before));
  });

  test('one that cannot be had leaves the first in use', async () => {
    mediaDevices.refuse = () => fail('NotReadableError');
    const before = devices.track('audio');
    await assert.rejects(devices.select('audio', 'mic2'), { code: 'device_busy' });
    assert.equal(devices.track('audio'), before);
    assert.equal(devices.state('audio'), 'on');
    mediaDevices.refuse = () => null;
    before.end();
    await patience();
    assert.equal(devices.deviceId('audio'), 'mic', 'nor is it remembered');
  });

  test('what is plugged in', async () => {
    assert.deepEqual(await devices.list(), {
      cameras: [{ id: 'cam', label: 'Caméra' }],
      microphones: [{ id: 'mic', label: 'Micro' }, { id: 'mic2', label: 'Casque' }],
      speakers: [{ id: 'out', label: 'Haut-parleur' }],
    });
  });

  test('muting is immediate and keeps the microphone', () => {
    void devices.setEnabled('audio', false);
    assert.equal(devices.track('audio').enabled, false);
    assert.equal(devices.track('audio').readyState, 'live');
    assert.equal(devices.state('audio'), 'off');
    void devices.setEnabled('audio', true);
    assert.equal(devices.track('audio').enabled, true);
    assert.equal(devices.state('audio'), 'on');
  });

  test('a muted microphone stays muted on another device', async () => {
    await devices.setEnabled('audio', false);
    await devices.select('audio', 'mic2');
    assert.equal(devices.track('audio').enabled, false);
    assert.equal(devices.state('audio'), 'off');
  });

  test('camera off puts its light out; on takes it again', async () => {
    const before = devices.track('video');
    await devices.setEnabled('video', false);
    assert.equal(before.readyState, 'ended');
    assert.deepEqual([devices.track('video'), devices.state('video')], [null, 'off']);
    await devices.setEnabled('video', true);
    assert.equal(devices.state('video'), 'on');
  });

  test('a camera that does not come on again says why', async () => {
    await devices.setEnabled('video', false);
    mediaDevices.refuse = () => fail('NotReadableError');
    await assert.rejects(devices.setEnabled('video', true), { code: 'device_busy' });
    assert.equal(devices.state('video'), 'missing');
  });

  test('off, on and off again ends off', async () => {
    await Promise.all([devices.setEnabled('video', false), devices.setEnabled('video', true), devices.setEnabled('video', false)]);
    assert.deepEqual([devices.track('video'), devices.state('video')], [null, 'off']);
    assert.equal(mediaDevices.asked.length, 1, 'and the light never flashes');
  });

  test('stop releases everything and hears nothing more', () => {
    const tracks = devices.stream.getTracks();
    devices.stop();
    assert.deepEqual(tracks.map(({ readyState }) => readyState), ['ended', 'ended']);
    assert.deepEqual(devices.stream.getTracks(), []);
    events.length = 0;
    mediaDevices.dispatchEvent(new Event('devicechange'));
    assert.deepEqual(events, []);
  });
});

describe('losing and having back', () => {
  beforeEach(async () => {
    await devices.open(both);
    events.length = 0;
  });

  test('an unplugged microphone: the other one takes over, and it is told', async () => {
    mediaDevices.unplug('mic');
    devices.track('audio').end();
    await patience();
    assert.equal(devices.deviceId('audio'), 'mic2');
    assert.deepEqual(heard('interrupted'), [{ kind: 'audio' }]);
    assert.deepEqual(heard('restored'), [{ kind: 'audio', label: 'Casque', switched: true }]);
    assert.equal(devices.state('audio'), 'on');
  });

  test('an unplugged camera comes back when it is plugged in again', async () => {
    mediaDevices.unplug('cam');
    devices.track('video').end();
    await patience();
    assert.equal(devices.state('video'), 'interrupted');
    assert.equal(devices.track('video'), null);
    mediaDevices.plug({ kind: 'videoinput', deviceId: 'cam', label: 'Caméra' });
    await patience();
    assert.equal(devices.state('video'), 'on');
    assert.equal(heard('changed').at(-1).cameras.length, 1);
    assert.equal(heard('restored').length, 1);
  });

  test('a phone call mutes the track; the end of it restores it', () => {
    devices.track('audio').setMuted(true);
    assert.equal(devices.state('audio'), 'interrupted');
    devices.track('audio').setMuted(false);
    assert.equal(devices.state('audio'), 'on');
    assert.deepEqual(heard('restored'), [{ kind: 'audio', label: 'Micro', switched: false }]);
  });

  test('a phone call after which the system gives nothing back: asked for again when the page returns', async () => {
    const before = devices.track('audio');
    before.setMuted(true);
    environment.dispatchEvent(new Event('visibilitychange'));
    await platform.clock.advance(999);
    assert.equal(devices.track('audio'), before, 'a moment for the system to do it by itself');
    await platform.clock.advance(2);
    await patience();
    assert.notEqual(devices.track('audio'), before);
    assert.equal(devices.state('audio'), 'on');
  });

  test('returning disturbs nothing that works', async () => {
    const tracks = devices.stream.getTracks();
    environment.dispatchEvent(new Event('pageshow'));
    await platform.clock.advance(5000);
    await patience();
    assert.deepEqual(devices.stream.getTracks(), tracks);
  });

  test('a device that was missing from the start is taken when it is plugged in', async () => {
    devices.stop();
    mediaDevices.unplug('cam');
    await devices.open(both);
    assert.equal(devices.state('video'), 'missing');
    mediaDevices.plug({ kind: 'videoinput', deviceId: 'cam2', label: 'Webcam' });
    await patience();
    assert.equal(devices.state('video'), 'on');
  });

  test('plugging something in does not switch a camera on that is off', async () => {
    await devices.setEnabled('video', false);
    mediaDevices.plug({ kind: 'videoinput', deviceId: 'cam2', label: 'Webcam' });
    await patience();
    assert.deepEqual([devices.track('video'), devices.state('video')], [null, 'off']);
  });
});

describe('level', () => {
  class FakeAudioContext {
    static made = [];
    state = 'running';
    connections = [];
    amplitude = 0.1;

    constructor() {
      FakeAudioContext.made.push(this);
    }

    createAnalyser() {
      return { fftSize: 0, getFloatTimeDomainData: (samples) => samples.fill(this.amplitude) };
    }

    createMediaStreamSource(stream) {
      return { connect: (node) => this.connections.push([stream.getTracks()[0].label, node]), disconnect: () => this.connections.pop() };
    }

    async resume() {
      this.resumed = true;
    }

    async close() {
      this.state = 'closed';
    }
  }

  test('ten times a second, on the microphone in use, into nothing that plays', async () => {
    devices = make({ AudioContext: FakeAudioContext });
    await devices.open(both);
    await platform.clock.advance(1000);
    assert.equal(heard('level').length, 11);
    assert.ok(Math.abs(heard('level')[0].level - 2 / 3) < 0.01, 'a tenth of full scale is -20 dB');
    const context = FakeAudioContext.made.at(-1);
    assert.deepEqual(context.connections.map(([label]) => label), ['Micro']);
    assert.ok('getFloatTimeDomainData' in context.connections[0][1]);
    await devices.select('audio', 'mic2');
    assert.deepEqual(context.connections.map(([label]) => label), ['Casque']);
    devices.stop();
    assert.equal(context.state, 'closed');
    events.length = 0;
    await platform.clock.advance(1000);
    assert.deepEqual(events, []);
  });

  test('a context that may not run yet says nothing and is asked again', async () => {
    devices = make({ AudioContext: FakeAudioContext });
    await devices.open(both);
    const context = FakeAudioContext.made.at(-1);
    context.state = 'suspended';
    events.length = 0;
    await platform.clock.advance(300);
    assert.deepEqual(heard('level'), []);
    assert.equal(context.resumed, true);
  });

  test('without an AudioContext everything else works', async () => {
    devices = make({ AudioContext: class { constructor() { throw fail('NotSupportedError'); } } });
    await devices.open(both);
    assert.equal(devices.state('audio'), 'on');
  });

  test('loudness: silence is 0, full scale is 1', () => {
    assert.equal(loudness(new Float32Array(8)), 0);
    assert.equal(loudness(new Float32Array(8).fill(1)), 1);
    assert.equal(loudness(new Float32Array(8).fill(0.0001)), 0);
  });
});

test('switched on without having been opened before: they are watched like any other, and a device that comes back is used', async () => {
  assert.equal(devices.opened, false);
  await devices.setEnabled('audio', true);
  assert.equal(devices.opened, true);
  assert.equal(devices.state('audio'), 'on');
  mediaDevices.unplug('mic');
  devices.track('audio').end();
  await settle();
  await settle();
  assert.equal(devices.track('audio')?.label, 'Casque');
});
