// @ts-check
/** The page's own sounds, made by the browser: nothing is downloaded. */

/** @type {AudioContext | null} */
let context = null;

/**
 * Play notes one after the other, each with a soft start and end.
 *
 * @param {[frequencyHz: number, seconds: number][]} notes
 * @param {number} loudness 0 to 1
 */
async function play(notes, loudness) {
  context ??= new AudioContext();
  await context.resume();
  let at = context.currentTime + 0.02;
  for (const [frequency, seconds] of notes) {
    const tone = new OscillatorNode(context, { type: 'sine', frequency });
    const gain = new GainNode(context, { gain: 0 });
    gain.gain.setValueAtTime(0, at);
    gain.gain.linearRampToValueAtTime(loudness, at + 0.03);
    gain.gain.exponentialRampToValueAtTime(0.001, at + seconds);
    tone.connect(gain).connect(context.destination);
    tone.start(at);
    tone.stop(at + seconds);
    at += seconds * 0.7;
  }
  const left = (at - context.currentTime) * 1000;
  await new Promise((done) => setTimeout(done, left));
}

/** A short melody to try the speakers, loud enough for a person who hears badly. */
export function playMelody() {
  return play([[523.25, 0.5], [659.25, 0.5], [783.99, 0.5], [1046.5, 0.9]], 0.35);
}

/** Two soft notes: somebody is in the waiting room. */
export function playChime() {
  return play([[659.25, 0.5], [523.25, 0.8]], 0.12);
}
