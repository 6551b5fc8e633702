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
  };
}

/** Whether this browser can hold a conversation at all (WebKitGTK and some in-app browsers cannot). */
export function supported() {
  return typeof globalThis.RTCPeerConnection === 'function' && typeof globalThis.WebSocket === 'function';
}

/** `crypto.randomUUID` exists only on HTTPS and localhost; the demo over plain HTTP must still explain itself. @param {Uint8Array} bytes */
function hexadecimal(bytes) {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}
