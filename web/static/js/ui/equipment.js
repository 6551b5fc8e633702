// @ts-check
/**
 * The person's camera and microphone, as the page sees them: what was asked for, what there is, what is wrong.
 *
 * `Devices` talks to the browser, `Client` to the others; this is where the two meet and the pictures of oneself are fed.
 */

import { all } from './dom.js';

/** @typedef {import('../rtc/messages.js').TrackState} TrackState */
/** @typedef {'audio' | 'video'} Kind */

const MEMBER = /** @type {const} */ ({ audio: 'microphone', video: 'camera' });

/** Dispatches `change` whenever something here reads differently. */
export class Equipment extends EventTarget {
  /**
   * @param {import('../rtc/devices.js').Devices} devices
   * @param {import('../rtc/client.js').Client} client
   */
  constructor(devices, client) {
    super();
    this.devices = devices;
    this.client = client;
    /** @type {{microphone: TrackState, camera: TrackState}} */
    this.media = { microphone: 'missing', camera: 'missing' };
    /** The last DeviceError code that left something missing, '' when all is well. */
    this.trouble = '';
    devices.addEventListener('interrupted', (event) => this.onBreak(/** @type {CustomEvent} */ (event).detail.kind));
    devices.addEventListener('restored', (event) => this.onRestored(/** @type {CustomEvent} */ (event).detail.kind));
  }

  /**
   * Ask the browser for both; when one cannot be had, for the other alone.
   *
   * @returns {Promise<string>} '' when at least one was opened, otherwise the DeviceError code
   */
  async ask() {
    this.trouble = '';
    const attempts = [
      { audio: true, video: true },
      { audio: true, video: false },
      { audio: false, video: true },
    ];
    for (const wanted of attempts) {
      try {
        await this.devices.open(wanted);
        this.publish();
        return '';
      } catch (error) {
        const code = /** @type {{code?: string}} */ (error).code ?? 'device_busy';
        this.trouble ||= code;
        if (!['device_missing', 'device_busy'].includes(code)) break;
      }
    }
    this.publish();
    return this.trouble;
  }

  /**
   * Take another camera or microphone.
   *
   * @param {Kind} kind
   * @param {string} deviceId
   * @returns {Promise<string>} '' or the DeviceError code
   */
  async select(kind, deviceId) {
    this.trouble = '';
    try {
      await this.devices.select(kind, deviceId);
    } catch (error) {
      this.trouble = /** @type {{code?: string}} */ (error).code ?? 'device_busy';
    }
    this.publish();
    return this.trouble;
  }

  /**
   * Mute or unmute, show or hide.
   *
   * @param {Kind} kind
   */
  toggle(kind) {
    const member = MEMBER[kind];
    if (this.media[member] === 'missing') return;
    const on = this.media[member] === 'off';
    this.devices.setEnabled(kind, on);
    this.media[member] = on ? 'on' : 'off';
    this.tell();
  }

  /** Give the devices back to the computer: their lights go out. */
  stop() {
    this.devices.stop();
    this.publish();
  }

  /** @param {Kind} kind */
  track(kind) {
    return this.devices.stream?.getTracks().find((track) => track.kind === kind && track.readyState === 'live') ?? null;
  }

  /** After the set of tracks changed: to the others, to the pictures of oneself, to whoever listens. */
  publish() {
    for (const kind of /** @type {const} */ (['audio', 'video'])) {
      const track = this.track(kind);
      this.client.setTrack(kind, track);
      this.media[MEMBER[kind]] = !track ? 'missing' : track.enabled ? 'on' : 'off';
    }
    this.tell();
  }

  tell() {
    this.client.setMedia(this.media);
    const camera = this.media.camera === 'on';
    const picture = this.track('video');
    for (const video of /** @type {HTMLVideoElement[]} */ (all('video[data-self]'))) {
      const shown = /** @type {MediaStream | null} */ (video.srcObject)?.getTracks()[0] ?? null;
      if (shown !== picture) video.srcObject = picture ? new MediaStream([picture]) : null;
    }
    for (const figure of all('[data-preview], [data-self-view]')) figure.toggleAttribute('data-dark', !camera);
    this.dispatchEvent(new Event('change'));
  }

  /** @param {Kind} kind */
  onBreak(kind) {
    this.media[MEMBER[kind]] = 'interrupted';
    this.tell();
  }

  /** @param {Kind} kind */
  onRestored(kind) {
    const track = this.track(kind);
    this.client.setTrack(kind, track);
    this.media[MEMBER[kind]] = track?.enabled ? 'on' : 'off';
    this.tell();
  }
}
