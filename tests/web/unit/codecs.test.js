import assert from 'node:assert/strict';
import { test } from 'node:test';

import { forwarded } from '../../../web/static/js/rtc/codecs.js';

/** `RTCRtpReceiver.getCapabilities` of Chromium 156. */
const AUDIO = read([
  ['audio/opus', 'minptime=10;useinbandfec=1'],
  ['audio/red'],
  ['audio/G722'],
  ['audio/PCMU'],
  ['audio/PCMA'],
  ['audio/CN'],
  ['audio/telephone-event'],
  ['audio/telephone-event'],
]);
const VIDEO = read([
  ['video/VP8'],
  ['video/rtx'],
  ['video/VP9', 'profile-id=0'],
  ['video/VP9', 'profile-id=2'],
  ['video/VP9', 'profile-id=1'],
  ['video/VP9', 'profile-id=3'],
  ['video/H264', 'level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42001f'],
  ['video/H264', 'level-asymmetry-allowed=1;packetization-mode=0;profile-level-id=42001f'],
  ['video/H264', 'level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f'],
  ['video/H264', 'level-asymmetry-allowed=1;packetization-mode=0;profile-level-id=42e01f'],
  ['video/H264', 'level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=4d001f'],
  ['video/H264', 'level-asymmetry-allowed=1;packetization-mode=0;profile-level-id=4d001f'],
  ['video/H264', 'level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=f4001f'],
  ['video/H264', 'level-asymmetry-allowed=1;packetization-mode=0;profile-level-id=f4001f'],
  ['video/AV1', 'level-idx=5;profile=0;tier=0'],
  ['video/AV1', 'level-idx=5;profile=1;tier=0'],
  ['video/red'],
  ['video/ulpfec'],
  ['video/flexfec-03', 'repair-window=10000000'],
]);

function read(codecs) {
  return codecs.map(([mimeType, sdpFmtpLine]) => ({ mimeType, clockRate: 90_000, ...(sdpFmtpLine && { sdpFmtpLine }) }));
}

const named = (kind, codecs) => forwarded(kind, codecs).map(({ mimeType, sdpFmtpLine }) => [mimeType.split('/')[1], /profile-level-id=(\w+)/.exec(sdpFmtpLine)?.[1]].filter(Boolean).join(' '));

test('Chromium: each profile once, no redundancy that the media server does not know', () => {
  assert.deepEqual(named('audio', AUDIO), ['opus', 'red']);
  assert.deepEqual(named('video', VIDEO), ['VP8', 'rtx', 'VP9', 'H264 42e01f', 'H264 4d001f', 'AV1']);
  assert.deepEqual(forwarded('video', VIDEO).filter((codec) => !VIDEO.includes(codec)), [], 'the very objects, as `setCodecPreferences` wants them');
});

test('the order is the browser’s', () => {
  assert.deepEqual(named('video', [...VIDEO].reverse()), named('video', VIDEO).reverse());
});

test('a browser that says no formats names its codecs all the same; one that knows none of ours names nothing', () => {
  assert.deepEqual(named('video', read([['video/VP8'], ['video/VP9'], ['video/AV1']])), ['VP8', 'VP9', 'AV1']);
  assert.deepEqual(named('video', read([['video/H265', 'profile-id=1']])), []);
});
