/** What the library takes from the browser, in one place, so that tests can stand in for clock, network and media. */

/**
 * @typedef {object} Platform
 * @property {() => number} now monotonic milliseconds
 * @property {(job: () => void, ms: number) => number} setTimeout
 * @property {(timer: number | undefined) => void} clearTimeout
 * @property {() => number} random uniform in [0, 1)
 * @property {() => string} randomUUID
 * @property {new (url: string) => WebSocket} WebSocket
 * @property {new (configuration?: RTCConfiguration) => RTCPeerConnection} RTCPeerConnection
 * @property {new (tracks?: MediaStreamTrack[]) => MediaStream} MediaStream
 * @property {(kind: 'audio' | 'video') => RTCRtpCodec[]} codecs what can be received, and named in `setCodecPreferences`; empty where that is not known
 * @property {() => Promise<string[]>} efficientCodecs video codecs that this device encodes in hardware, by their registered names
 */

/**
 * Return the browser's own parts. Browsers without WebRTC get as far as the first peer: check `supported()` before.
 *
 * @returns {Platform}
 */
export function browserPlatform() {
  return {
    now: () => performance.now(),
    setTimeout: (job, ms) => globalThis.setTimeout(job, ms),
    clearTimeout: (timer) => globalThis.clearTimeout(timer),
    random: Math.random,
    randomUUID: () => (crypto.randomUUID ? crypto.randomUUID() : hexadecimal(crypto.getRandomValues(new Uint8Array(16)))),
    WebSocket: globalThis.WebSocket,
    RTCPeerConnection: globalThis.RTCPeerConnection,
    MediaStream: globalThis.MediaStream,
    codecs: (kind) => globalThis.RTCRtpReceiver?.getCapabilities?.(kind)?.codecs ?? [],
    efficientCodecs,
  };
}

/** What a consultation sends; Media Capabilities (W3C) says whether a chip does it. Only H.264 is of interest: VP8 is the default anyway. */
async function efficientCodecs() {
  try {
    const answer = await navigator.mediaCapabilities.encodingInfo({
      type: 'webrtc',
      video: { contentType: 'video/h264;level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f', width: 1280, height: 720, bitrate: 1_500_000, framerate: 30 },
    });
    return answer.supported && answer.powerEfficient ? ['H264'] : [];
  } catch {
    return []; // this browser does not tell
  }
}

/** Whether this browser can hold a conversation at all (WebKitGTK and some in-app browsers cannot). */
export function supported() {
  return typeof globalThis.RTCPeerConnection === 'function' && typeof globalThis.WebSocket === 'function';
}

/** `crypto.randomUUID` exists only on HTTPS and localhost; the demo over plain HTTP must still explain itself. @param {Uint8Array} bytes */
function hexadecimal(bytes) {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}
