/**
 * The person's camera and microphone: asked for, chosen, taken away by a phone call, unplugged, and back again.
 *
 * Drives `navigator.mediaDevices`; driven by the pages, which `client.attach(devices)`. Spec: W3C Media Capture and Streams.
 *
 * Each kind has a slot; its state is what the others are told (`TrackState`):
 *
 *     off ⇄ on ⇄ interrupted        missing: wanted, and there is none
 *
 * Camera off stops the camera, so that its light goes out; microphone off only mutes, so that the first word is not lost.
 */

import { DeviceError } from './errors.js';
import { LevelMeter } from './level.js';
import { Log } from './log.js';
import { browserPlatform } from './platform.js';

/**
 * @import { TrackState } from './messages.js'
 * @import { Platform } from './platform.js'
 */

/** @typedef {'audio' | 'video'} Kind */

/** @typedef {{id: string, label: string}} Device `label` is empty until the person has granted a device */

/**
 * @typedef {object} Slot
 * @property {MediaStreamTrack | null} track
 * @property {string | null} deviceId the one chosen; null for the default
 * @property {boolean} wanted the person takes part with this kind
 * @property {boolean} enabled not muted, not switched off
 * @property {boolean} interrupted taken away from outside
 */

/**
 * @typedef {object} DevicesOptions
 * @property {MediaDevices} [mediaDevices]
 * @property {Pick<Permissions, 'query'>} [permissions]
 * @property {boolean} [isSecureContext]
 * @property {(feature: 'camera' | 'microphone') => boolean} [allowsFeature] what the embedding page passes on
 * @property {new () => AudioContext} [AudioContext]
 * @property {EventTarget} [environment] fires `visibilitychange`, `pageshow`; the window by default
 * @property {Log} [log]
 * @property {Platform} [platform]
 */

/** @type {readonly Kind[]} */
const KINDS = ['audio', 'video'];

/** After a page comes back to the front, the system needs a moment to give an interrupted device back by itself (iOS). */
const GRACE_MS = 1000;

/**
 * Fires these events (`CustomEvent`, facts in `detail`):
 *
 * - `state` {kind, state, track}: something about a slot changed; follow this to send and to show.
 * - `level` {level}: microphone, 0 to 1, ten times a second while it runs and the browser allows.
 * - `changed` {cameras, microphones}: what is plugged in.
 * - `interrupted` {kind}: taken away by a phone call, another program, or the cable.
 * - `restored` {kind, label, switched}: it works again; `switched` when it is another device than before.
 */
export class Devices extends EventTarget {
  #mediaDevices;
  #permissions;
  #isSecureContext;
  #allowsFeature;
  #environment;
  #log;
  #platform;
  #meter;
  #stream;
  /** @type {Record<Kind, Slot>} */
  #slots = { audio: emptySlot(), video: emptySlot() };
  /** One change at a time: browsers answer overlapping `getUserMedia` calls in any order. @type {Promise<unknown>} */
  #queue = Promise.resolve();
  #watching = false;

  /** @param {DevicesOptions} [options] */
  constructor(options = {}) {
    super();
    this.#mediaDevices = options.mediaDevices ?? globalThis.navigator?.mediaDevices;
    this.#permissions = options.permissions ?? globalThis.navigator?.permissions;
    this.#isSecureContext = options.isSecureContext ?? globalThis.isSecureContext;
    this.#allowsFeature = options.allowsFeature ?? (() => true);
    this.#environment = options.environment ?? globalThis;
    this.#log = options.log ?? new Log();
    this.#platform = options.platform ?? browserPlatform();
    const AudioContext = options.AudioContext ?? globalThis.AudioContext;
    this.#meter = new LevelMeter(this.#platform, AudioContext, (level) => this.#emit('level', { level }));
    this.#stream = new this.#platform.MediaStream();
  }

  /** The tracks in use, for the self-view; always the same object. */
  get stream() {
    return this.#stream;
  }

  /** Whether anything was asked for since the start or the last `stop()`. */
  get opened() {
    return this.#watching;
  }

  /** @param {Kind} kind @returns {MediaStreamTrack | null} what there is to send now */
  track(kind) {
    return this.#slots[kind].track;
  }

  /** @param {Kind} kind @returns {TrackState} */
  state(kind) {
    const slot = this.#slots[kind];
    if (!slot.wanted || !slot.enabled) return 'off';
    if (slot.interrupted) return 'interrupted';
    return slot.track ? 'on' : 'missing';
  }

  /** @param {Kind} kind @returns {string} the device in use, or ''; for the device lists */
  deviceId(kind) {
    return this.#slots[kind].track?.getSettings().deviceId ?? '';
  }

  /**
   * Ask for microphone and camera, in one question. When only one of them can be had, the other is had alone.
   *
   * @param {{audio: boolean, video: boolean}} wanted
   * @returns {Promise<{audio: DeviceError | null, video: DeviceError | null}>} what could not be had
   * @throws {DeviceError} when nothing of what was asked for can be had
   */
  open({ audio, video }) {
    return this.#inTurn(async () => {
      this.#slots.audio.wanted = audio;
      this.#slots.video.wanted = video;
      for (const kind of KINDS) if (!this.#slots[kind].wanted) this.#release(kind);
      this.#watch();
      const wanted = KINDS.filter((kind) => this.#slots[kind].wanted);
      const errors = await this.#acquire(wanted);
      const failed = wanted.filter((kind) => errors[kind]);
      for (const kind of failed) this.#release(kind);
      const first = failed.length === wanted.length && failed[0] ? errors[failed[0]] : null;
      if (first) throw failed.length === 2 ? new DeviceError(first.code, 'both', first.message) : first;
      return errors;
    });
  }

  /**
   * Use another device. The one in use goes on when the new one cannot be had.
   *
   * @param {Kind} kind
   * @param {string} deviceId
   * @throws {DeviceError}
   */
  select(kind, deviceId) {
    return this.#inTurn(async () => {
      const slot = this.#slots[kind];
      const before = slot.deviceId;
      slot.wanted = true;
      slot.deviceId = deviceId;
      this.#watch();
      if (kind === 'video' && !slot.enabled) return; // it starts when the camera is switched on
      const error = (await this.#acquire([kind]))[kind];
      if (error) {
        slot.deviceId = before;
        throw error;
      }
    });
  }

  /** What is plugged in. @returns {Promise<{cameras: Device[], microphones: Device[], speakers: Device[]}>} */
  async list() {
    const devices = (await this.#mediaDevices?.enumerateDevices()) ?? [];
    /** @param {MediaDeviceKind} kind */
    const ofKind = (kind) =>
      devices.filter((device) => device.kind === kind).map((device) => ({ id: device.deviceId, label: device.label }));
    return { cameras: ofKind('videoinput'), microphones: ofKind('audioinput'), speakers: ofKind('audiooutput') };
  }

  /**
   * Mute or unmute the microphone; switch the camera off or on.
   *
   * @param {Kind} kind
   * @param {boolean} on
   * @throws {DeviceError} when the camera cannot be had again
   */
  setEnabled(kind, on) {
    const slot = this.#slots[kind];
    slot.enabled = on;
    if (kind === 'audio') {
      if (slot.track) slot.track.enabled = on; // at once: nobody waits to be muted
      this.#changed(kind);
    }
    return this.#inTurn(async () => {
      if (slot.enabled !== on) return; // changed again while waiting for the turn
      if (on) {
        slot.wanted = true;
        this.#watch();
        const error = slot.track ? null : (await this.#acquire([kind]))[kind];
        if (error) {
          this.#changed(kind);
          throw error;
        }
      } else if (kind === 'video') {
        this.#release(kind);
      }
    });
  }

  /** Release both devices. `open()` starts again. */
  stop() {
    this.#mediaDevices?.removeEventListener('devicechange', this.#onDeviceChange);
    for (const type of RETURNING_EVENTS) this.#environment.removeEventListener(type, this.#onReturn);
    this.#watching = false;
    for (const kind of KINDS) {
      this.#slots[kind].wanted = false;
      this.#release(kind);
    }
    this.#meter.close();
  }

  // -- having a device --------------------------------------------------------------------------------------------------

  /**
   * Get these kinds, together if possible, and put them to use.
   *
   * @param {Kind[]} kinds
   * @returns {Promise<Record<Kind, DeviceError | null>>}
   */
  async #acquire(kinds) {
    /** @type {Record<Kind, DeviceError | null>} */
    const errors = { audio: null, video: null };
    if (kinds.length === 0) return errors;
    try {
      await this.#take(kinds);
    } catch (error) {
      for (const kind of kinds) errors[kind] = await this.#classify(error, kind);
      const sameAnswer = errors.audio?.code === errors.video?.code && FINAL.has(errors.audio?.code);
      if (kinds.length > 1 && !sameAnswer) {
        for (const kind of kinds) {
          const code = errors[kind]?.code;
          if (!FINAL.has(code) || code === 'permission_dismissed') errors[kind] = (await this.#acquire([kind]))[kind];
        }
      }
    }
    return errors;
  }

  /** One question to the browser, loosened until it fits the hardware. @param {Kind[]} kinds */
  async #take(kinds) {
    if (!this.#mediaDevices) throw new TypeError('no mediaDevices');
    /** @type {MediaStream | undefined} */
    let stream;
    for (const looseness of [0, 1, 2]) {
      try {
        stream = await this.#mediaDevices.getUserMedia(this.#constraints(kinds, looseness));
        break;
      } catch (error) {
        // An exact device that is gone is Overconstrained in Chromium and Firefox, NotFound in Safari.
        const loosens = nameOf(error) === 'OverconstrainedError' || (nameOf(error) === 'NotFoundError' && kinds.some((kind) => this.#slots[kind].deviceId));
        if (!loosens || looseness === 2) throw error;
      }
    }
    const tracks = stream?.getTracks() ?? [];
    for (const track of tracks) this.#adopt(/** @type {Kind} */ (track.kind), track);
    for (const track of tracks) this.#changed(/** @type {Kind} */ (track.kind)); // only now: nobody is told of half a change
  }

  /**
   * @param {Kind[]} kinds
   * @param {number} looseness 0: the chosen device and a good picture; 1: any device; 2: anything at all
   * @returns {MediaStreamConstraints}
   */
  #constraints(kinds, looseness) {
    /** @type {MediaStreamConstraints} */
    const constraints = {};
    for (const kind of kinds) {
      const { deviceId } = this.#slots[kind];
      const device = deviceId !== null && looseness === 0 ? { deviceId: { exact: deviceId } } : kind === 'video' ? { facingMode: 'user' } : {};
      constraints[kind] = looseness === 2 ? true : { ...WISHES[kind], ...device };
    }
    return constraints;
  }

  /** @param {Kind} kind @param {MediaStreamTrack} track */
  #adopt(kind, track) {
    const slot = this.#slots[kind];
    this.#drop(slot);
    if (!slot.wanted || (kind === 'video' && !slot.enabled)) {
      track.stop(); // switched off while the browser was asking
      return;
    }
    slot.track = track;
    slot.interrupted = track.muted;
    track.enabled = slot.enabled;
    track.addEventListener('ended', () => this.#onEnded(kind, track));
    track.addEventListener('mute', () => this.#onMute(kind, track, true));
    track.addEventListener('unmute', () => this.#onMute(kind, track, false));
    this.#stream.addTrack(track);
    if (kind === 'audio') this.#meter.watch(track);
  }

  /** @param {Kind} kind */
  #release(kind) {
    const slot = this.#slots[kind];
    slot.interrupted = false;
    this.#drop(slot);
    if (kind === 'audio') this.#meter.watch(null);
    this.#changed(kind);
  }

  /** @param {Slot} slot */
  #drop(slot) {
    if (!slot.track) return;
    this.#stream.removeTrack(slot.track);
    slot.track.stop();
    slot.track = null;
  }

  // -- losing it, and having it back ------------------------------------------------------------------------------------

  /** Unplugged, or taken for good. @param {Kind} kind @param {MediaStreamTrack} track */
  #onEnded(kind, track) {
    const slot = this.#slots[kind];
    if (slot.track !== track) return;
    const label = track.label;
    slot.interrupted = true;
    this.#drop(slot);
    this.#changed(kind);
    this.#emit('interrupted', { kind });
    void this.#recover(kind, label);
  }

  /** @param {Kind} kind @param {MediaStreamTrack} track @param {boolean} muted */
  #onMute(kind, track, muted) {
    const slot = this.#slots[kind];
    if (slot.track !== track || slot.interrupted === muted) return;
    slot.interrupted = muted;
    this.#changed(kind);
    if (muted) this.#emit('interrupted', { kind });
    else this.#emit('restored', { kind, label: track.label, switched: false });
  }

  /**
   * Try to have a lost device back, or the default one in its place; fails silently until the next occasion.
   *
   * @param {Kind} kind
   * @param {string} labelBefore
   */
  #recover(kind, labelBefore) {
    return this.#inTurn(async () => {
      const slot = this.#slots[kind];
      const works = slot.track !== null && !slot.interrupted;
      if (!slot.wanted || !slot.enabled || works) return;
      const error = (await this.#acquire([kind]))[kind];
      const { track } = this.#slots[kind];
      if (error || !track || track.muted) {
        this.#log.info('device_not_back', { kind, code: error?.code });
        return;
      }
      this.#emit('restored', { kind, label: track.label, switched: track.label !== labelBefore });
    });
  }

  #onDeviceChange = async () => {
    const { cameras, microphones } = await this.list();
    this.#emit('changed', { cameras, microphones });
    if (microphones.length) void this.#recover('audio', this.#slots.audio.track?.label ?? '');
    if (cameras.length) void this.#recover('video', this.#slots.video.track?.label ?? '');
  };

  /** The page is in front again, perhaps after a phone call: what the system has not given back by now, ask for. */
  #onReturn = () => {
    this.#platform.setTimeout(() => {
      for (const kind of KINDS) if (this.#slots[kind].interrupted) void this.#recover(kind, this.#slots[kind].track?.label ?? '');
    }, GRACE_MS);
  };

  #watch() {
    if (this.#watching) return;
    this.#watching = true;
    this.#mediaDevices?.addEventListener('devicechange', this.#onDeviceChange);
    for (const type of RETURNING_EVENTS) this.#environment.addEventListener(type, this.#onReturn);
  }

  // -- telling ----------------------------------------------------------------------------------------------------------

  /** @param {unknown} error @param {Kind} kind @returns {Promise<DeviceError>} */
  async #classify(error, kind) {
    const name = nameOf(error);
    const text = error instanceof Error ? error.message : '';
    this.#log.info('device_error', { kind, error: name });
    if (!this.#mediaDevices) return new DeviceError(this.#isSecureContext ? 'unsupported' : 'insecure_context', kind, name);
    if (name === 'NotAllowedError' || name === 'SecurityError' || name === 'PermissionDeniedError') {
      if (!this.#allowsFeature(FEATURES[kind])) return new DeviceError('permission_blocked_by_page', kind, name);
      if (/system/i.test(text)) return new DeviceError('permission_blocked_by_system', kind, name); // Chromium
      const answer = await this.#permission(kind);
      const open = answer === 'prompt' || answer === 'granted' || (answer === null && /dismissed/i.test(text));
      return new DeviceError(open ? 'permission_dismissed' : 'permission_denied', kind, name);
    }
    if (name === 'NotFoundError' || name === 'DevicesNotFoundError' || name === 'OverconstrainedError') return new DeviceError('device_missing', kind, name);
    if (name === 'TypeError' || name === 'NotSupportedError') return new DeviceError('unsupported', kind, name);
    // NotReadableError, AbortError, TrackStartError and whatever a driver invents: it is there and does not start.
    return new DeviceError('device_busy', kind, name);
  }

  /** What the browser has kept of the person's answer; null where it does not say (Firefox, old Safari). @param {Kind} kind */
  async #permission(kind) {
    try {
      const name = /** @type {PermissionName} */ (FEATURES[kind]);
      return (await this.#permissions?.query({ name }))?.state ?? null;
    } catch {
      return null;
    }
  }

  /** @template T @param {() => Promise<T>} job @returns {Promise<T>} */
  #inTurn(job) {
    const result = this.#queue.then(job);
    this.#queue = result.catch(() => {});
    return result;
  }

  /** @param {Kind} kind */
  #changed(kind) {
    this.#emit('state', { kind, state: this.state(kind), track: this.#slots[kind].track });
  }

  /** @param {string} type @param {object} detail */
  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

const RETURNING_EVENTS = ['visibilitychange', 'pageshow'];

/** @type {Record<Kind, 'microphone' | 'camera'>} */
const FEATURES = { audio: 'microphone', video: 'camera' };

/**
 * Answers to a question about both devices after which asking about one alone would be nagging, or useless. (When only the other device is
 * the reason, this one reads as dismissed: then it is asked for alone.)
 * @type {ReadonlySet<string | undefined>}
 */
const FINAL = new Set(['permission_denied', 'permission_dismissed', 'permission_blocked_by_system', 'permission_blocked_by_page', 'unsupported', 'insecure_context']);

/** @type {Record<Kind, MediaTrackConstraints>} */
const WISHES = {
  audio: { echoCancellation: true, noiseSuppression: true, autoGainControl: true },
  // Enough to judge a skin lesion or a gait; every phone and webcam of the last ten years has it.
  video: { width: { ideal: 1280 }, height: { ideal: 720 }, frameRate: { ideal: 30, max: 30 } },
};

/** @returns {Slot} */
function emptySlot() {
  return { track: null, deviceId: null, wanted: false, enabled: true, interrupted: false };
}

/** @param {unknown} error */
function nameOf(error) {
  return error instanceof Error || error instanceof DOMException ? error.name : 'Error';
}
