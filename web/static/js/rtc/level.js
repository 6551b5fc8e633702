/** How loud a microphone is, ten times a second, for the person to see that it works. Nothing is ever played. */

/** @import { Platform } from './platform.js' */

const PERIOD_MS = 100;
/** Below this a room is silent to the eye; 0 dB is full scale. */
const FLOOR_DB = -60;

export class LevelMeter {
  #platform;
  #AudioContext;
  #onLevel;
  /** @type {AudioContext | null} */
  #context = null;
  /** @type {AnalyserNode | null} */
  #analyser = null;
  /** @type {MediaStreamAudioSourceNode | null} */
  #source = null;
  /** @type {number | undefined} */
  #timer;

  /**
   * @param {Platform} platform
   * @param {(new () => AudioContext) | undefined} AudioContext undefined: there is no meter, and nothing else suffers
   * @param {(level: number) => void} onLevel 0 (silence) to 1 (full scale), on a decibel scale
   */
  constructor(platform, AudioContext, onLevel) {
    this.#platform = platform;
    this.#AudioContext = AudioContext;
    this.#onLevel = onLevel;
  }

  /** Measure this track, or nothing. @param {MediaStreamTrack | null} track */
  watch(track) {
    this.#platform.clearTimeout(this.#timer);
    this.#source?.disconnect();
    this.#source = null;
    if (track === null || this.#AudioContext === undefined) return;
    try {
      this.#context ??= new this.#AudioContext();
      this.#analyser ??= Object.assign(this.#context.createAnalyser(), { fftSize: 1024 });
      this.#source = this.#context.createMediaStreamSource(new this.#platform.MediaStream([track]));
      this.#source.connect(this.#analyser); // and no further: a path to `destination` would be an echo
    } catch {
      return; // an audio device that refuses a context; the call itself does not need one
    }
    this.#tick();
  }

  /** Release the audio hardware. */
  close() {
    this.watch(null);
    this.#context?.close().catch(() => {});
    this.#context = null;
    this.#analyser = null;
  }

  #tick() {
    if (this.#context?.state === 'suspended') {
      this.#context.resume().catch(() => {}); // granted once the person has touched the page
    } else if (this.#analyser) {
      const samples = new Float32Array(this.#analyser.fftSize);
      this.#analyser.getFloatTimeDomainData(samples);
      this.#onLevel(loudness(samples));
    }
    this.#timer = this.#platform.setTimeout(() => this.#tick(), PERIOD_MS);
  }
}

/**
 * Return the loudness of samples in [-1, 1]: 0 at or below -60 dB, 1 at full scale.
 *
 * @param {Float32Array} samples
 */
export function loudness(samples) {
  let sum = 0;
  for (const sample of samples) sum += sample * sample;
  const decibels = 10 * Math.log10(sum / samples.length || Number.MIN_VALUE);
  return Math.min(1, Math.max(0, 1 - decibels / FLOOR_DB));
}
