// @ts-check
/**
 * The person's camera and microphone, as the page sees them: asked for, chosen, switched, and shown to the person themselves.
 *
 * `Devices` talks to the browser and `Client` follows it (`attach`); this is what the buttons and the pictures hang on.
 */

import { all } from './dom.js';

/** @import { TrackState } from '../rtc/messages.js' */
/** @import { Kind } from '../rtc/devices.js' */

/** Fires `change` whenever something here reads differently. */
export class Equipment extends EventTarget {
  /** @param {import('../rtc/devices.js').Devices} devices */
  constructor(devices) {
    super();
    this.devices = devices;
    /** The last DeviceError code that left something missing, '' when all is well. */
    this.trouble = '';
    devices.addEventListener('state', () => this.show());
    this.show();
  }

  /** @returns {{microphone: TrackState, camera: TrackState}} */
  get media() {
    return { microphone: this.devices.state('audio'), camera: this.devices.state('video') };
  }

  /**
   * Ask the browser for both, in one question.
   *
   * @param {boolean} [video] false: not for the camera, which stays off
   * @returns {Promise<string>} '' when at least one was had, otherwise the DeviceError code
   */
  async ask(video = true) {
    return this.attempt(async () => {
      const failed = await this.devices.open({ audio: true, video });
      this.trouble = failed.audio?.code ?? failed.video?.code ?? '';
    });
  }

  /**
   * Take another camera or microphone.
   *
   * @param {Kind} kind
   * @param {string} deviceId
   */
  select(kind, deviceId) {
    return this.attempt(() => this.devices.select(kind, deviceId));
  }

  /**
   * Mute or unmute, show or hide.
   *
   * @param {Kind} kind
   */
  toggle(kind) {
    return this.attempt(() => this.devices.setEnabled(kind, this.devices.state(kind) === 'off'));
  }

  /**
   * @param {() => Promise<void>} job
   * @returns {Promise<string>} '' or the code of the DeviceError
   */
  async attempt(job) {
    this.trouble = '';
    let code = '';
    try {
      await job();
    } catch (error) {
      if (!(error instanceof Error) || !('code' in error)) throw error;
      code = this.trouble = String(error.code);
    }
    this.show();
    return code;
  }

  /** Give the devices back to the computer: their lights go out. */
  stop() {
    this.devices.stop();
  }

  show() {
    const dark = this.media.camera !== 'on';
    // Not before there is a picture: an element with an empty stream keeps the page from ever being loaded.
    const stream = this.devices.track('video') ? this.devices.stream : null;
    for (const video of /** @type {HTMLVideoElement[]} */ (all('video[data-self]'))) {
      if (video.srcObject !== stream) video.srcObject = stream;
    }
    for (const figure of all('[data-preview], [data-self-view]')) figure.toggleAttribute('data-dark', dark);
    this.dispatchEvent(new Event('change'));
  }
}
