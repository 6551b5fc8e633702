// @ts-check
/** Keeps the screen on while somebody waits or talks: a locked phone stops its camera. */

/** @type {WakeLockSentinel | null} */
let lock = null;
let wanted = false;

async function take() {
  if (!wanted || lock || document.visibilityState !== 'visible' || !('wakeLock' in navigator)) return;
  try {
    lock = await navigator.wakeLock.request('screen');
    lock.addEventListener('release', () => (lock = null));
  } catch {
    // Low battery or not allowed in this frame: the screen follows its own settings.
  }
}

document.addEventListener('visibilitychange', () => void take());

/** @param {boolean} on */
export function stayAwake(on) {
  wanted = on;
  if (on) void take();
  else void lock?.release();
}
