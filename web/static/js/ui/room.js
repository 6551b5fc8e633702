// @ts-check
/**
 * Entry of the page: builds the client, the devices and the views, and decides which view follows from what the client says.
 *
 *     connecting → welcome → devices → waiting → call → ended        each may turn into `problem`
 */

import { Client } from '../rtc/client.js';
import { Devices } from '../rtc/devices.js';
import { stayAwake } from './awake.js';
import { Consultation } from './consultation.js';
import { all, button, find, write } from './dom.js';
import { Equipment } from './equipment.js';
import { Host } from './host.js';
import { Words } from './i18n.js';
import { Lobby } from './lobby.js';
import { Problems } from './problems.js';
import { tabStorage } from './storage.js';
import { Views } from './views.js';

/**
 * What the server wrote into the page.
 *
 * @typedef {object} PageData
 * @property {{slug: string, name: string, language: string, colour: string, logo: string}} tenant
 * @property {boolean} embed
 * @property {string[]} origins
 * @property {import('./i18n.js').Language} language
 * @property {import('./i18n.js').Catalogue} catalogue
 * @property {string} version
 */

/** Long enough to read two lines slowly. */
const PASSING_MS = 12_000;

/** The longest that a timer can run; a page that waits for its opening time longer is opened again anyway. */
const TIMER_LIMIT_MS = 2 ** 31 - 2000;

const HAVE_JOINED = new Set(['admitted', 'joined']);

class Room {
  /** @param {PageData} page */
  constructor(page) {
    const parameters = new URLSearchParams(location.search);
    this.page = page;
    this.words = new Words(page.language, page.catalogue);
    this.words.render(document);
    this.views = new Views(this.words);
    const secret = decodeURIComponent(location.hash.slice(1));
    this.client = new Client({
      url: `${location.origin.replace(/^http/, 'ws')}/ws`,
      tenant: page.tenant.slug,
      secret,
      language: page.language,
      storage: tabStorage(`${page.tenant.slug}/${secret}`),
    });
    this.devices = new Devices({ allowsFeature: allowedHere });
    this.equipment = new Equipment(this.devices);
    this.client.attach(this.devices);
    this.lobby = new Lobby(this.equipment, this.words, page.tenant.name);
    this.consultation = new Consultation(this.client, this.equipment, this.views, this.words);
    this.problems = new Problems(this.views, this.words, {
      retry: () => this.retry(),
      without: () => this.skip(),
      continue: () => this.client.takeOver(),
      copy: () => void navigator.clipboard?.writeText(location.href),
    });
    /** The page around the frame that we are in. */
    this.host = page.embed
      ? new Host({
          origins: page.origins,
          client: this.client,
          equipment: this.equipment,
          actions: { leave: () => this.leave(), setLanguage: (language) => this.useLanguage(language) },
        })
      : null;
    /** The person has said that they are ready: from now on they are taken along without another click. */
    this.entered = false;
    /** The browser was asked for the devices on this page. */
    this.asked = false;
    /** The person has chosen to go without. */
    this.without = false;
    /** @type {{by: string, reason: string} | null} */
    this.end = null;
    /** The sentence of `mention`. */
    this.passing = '';
    /** @type {number | undefined} */
    this.passingTimer = undefined;
    if (parameters.get('debug') === '1') Object.assign(globalThis, { __colloque: { client: this.client, devices: this.devices } });
    this.wire();
  }

  wire() {
    const { client, lobby } = this;
    this.drawLanguage();
    this.views.addEventListener('view', () => this.writeBanner());
    this.devices.addEventListener('restored', (event) => {
      const { label, switched } = /** @type {CustomEvent} */ (event).detail;
      if (switched) this.views.announce(this.words.say('banner.switched', { label }));
    });
    this.words.addEventListener('change', () => {
      this.drawLanguage();
      this.writeEnd();
      this.writeBanner();
    });
    for (const control of all('[data-language]')) control.addEventListener('click', () => void this.useLanguage(this.words.language === 'fr' ? 'en' : 'fr'));
    lobby.addEventListener('allow', () => void this.allow());
    lobby.addEventListener('skip', () => this.skip());
    lobby.addEventListener('enter', () => this.enter());
    lobby.addEventListener('leave', () => this.leave());
    this.consultation.addEventListener('leave', () => this.leave());
    button('come-back').addEventListener('click', () => this.comeBack());
    this.equipment.addEventListener('change', () => this.writeBanner());

    this.problems.addEventListener('shown', (event) => {
      const { code, message } = /** @type {CustomEvent} */ (event).detail;
      this.host?.error(code, message);
    });
    client.addEventListener('state', (event) => void this.onState(/** @type {CustomEvent} */ (event).detail));
    client.addEventListener('signalling', () => this.writeBanner());
    client.addEventListener('told', (event) => this.onTold(/** @type {CustomEvent} */ (event).detail.text));
    client.addEventListener('occupied', () => this.problems.show({ code: 'occupied' }));
    client.addEventListener('refused', (event) => this.onRefused(/** @type {CustomEvent} */ (event).detail));
    client.addEventListener('ended', (event) => this.onEnded(/** @type {CustomEvent} */ (event).detail));
    client.addEventListener('problem', (event) => {
      const { code, message } = /** @type {CustomEvent} */ (event).detail;
      this.mention(this.words.has(`error.${code}`) ? this.words.say(`error.${code}`) : message);
    });
  }

  start() {
    if (!globalThis.RTCPeerConnection) return this.problems.show({ code: 'unsupported' });
    if (!globalThis.isSecureContext) return this.problems.show({ code: 'insecure_context' });
    this.client.connect();
  }

  /** @param {{state: string, place?: number | null, expected?: boolean, reason?: string}} detail */
  async onState({ state, place, expected, reason }) {
    const { client, lobby, views } = this;
    if (client.self) lobby.setSelf(client.self);
    if (state === 'connecting') return;
    if (state === 'waiting') {
      lobby.setStanding({ place: place ?? null, expected: expected ?? false });
      if (reason) lobby.hear(reason, this.words.say('waiting.sent_back'));
      this.entered = true;
      queueMicrotask(() => client.join()); // as soon as they are admitted, without another click
      this.consultation.clear();
      views.show('waiting');
      stayAwake(true);
      await this.reopen();
    } else if (HAVE_JOINED.has(state)) {
      if (state === 'joined') {
        this.entered = true;
        this.showCall();
        await this.reopen();
      } else if (!this.entered && (views.current === 'connecting' || views.current === 'problem')) await this.greet();
    } else if (state === 'arrived') {
      if (!this.entered && (views.current === 'connecting' || views.current === 'problem')) await this.greet();
    } else if (state === 'left') {
      if (this.end || views.current === 'call' || views.current === 'waiting') this.showEnd(this.end ?? { by: 'self', reason: reason ?? '' });
      else if (views.current === 'connecting') await this.greet();
    }
  }

  /** The first view with something to do: the explanation, unless a clinician's browser has allowed everything already. */
  async greet() {
    const role = this.client.self?.role;
    if (role === 'clinician' && (await this.allowedBefore())) return this.allow();
    this.views.show('welcome');
  }

  /** Whether the browser will open both devices without a question. */
  async allowedBefore() {
    try {
      const names = /** @type {PermissionName[]} */ (['camera', 'microphone']);
      const answers = await Promise.all(names.map((name) => navigator.permissions.query({ name })));
      return answers.every((answer) => answer.state === 'granted');
    } catch {
      return false; // this browser does not tell
    }
  }

  async allow() {
    if (this.client.self?.role === 'observer') return this.enter();
    this.asked = true;
    this.without = false;
    this.lobby.prompting(true);
    const code = await this.equipment.ask();
    this.lobby.prompting(false);
    if (code && !this.entered) this.problems.show({ code });
    else this.showDevices();
  }

  skip() {
    this.without = true;
    this.showDevices();
  }

  showDevices() {
    if (this.entered) return;
    this.views.show('devices');
  }

  /** After a reload the person was already in: open what they had allowed, without asking them anything. */
  async reopen() {
    if (this.asked || this.client.self?.role === 'observer') return;
    this.asked = true;
    await this.equipment.ask();
  }

  enter() {
    this.entered = true;
    this.asked = true;
    this.client.join();
  }

  showCall() {
    this.end = null;
    this.lobby.forget();
    this.consultation.enter();
    this.views.show('call');
    stayAwake(true);
  }

  leave() {
    this.end = { by: 'self', reason: '' };
    this.client.leave();
    this.showEnd(this.end);
  }

  /** @param {{by: string, reason: string}} detail */
  onEnded(detail) {
    this.showEnd(detail);
  }

  /** @param {{by: string, reason: string}} end */
  showEnd(end) {
    this.end = end;
    if (end.by !== 'self') this.host?.ended(end);
    this.entered = false;
    this.consultation.clear();
    this.equipment.stop();
    stayAwake(false);
    this.writeEnd();
    this.views.show('ended');
  }

  writeEnd() {
    if (!this.end) return;
    const { by, reason } = this.end;
    const { words } = this;
    write(find('[data-ended-title]'), words.say(by === 'self' ? 'ended.title_self' : 'ended.title'));
    write(find('[data-ended-text]'), words.say(by === 'clinician' && this.client.self?.role === 'clinician' ? 'ended_by.you' : `ended_by.${by}`));
    write(find('[data-ended-aside]'), words.say(by === 'self' ? 'ended.aside_self' : 'ended.aside'));
    const quote = find('[data-view="ended"] [data-reason]');
    write(quote, reason);
    quote.hidden = !reason;
    button('come-back').hidden = by !== 'self';
    this.views.retitle();
  }

  comeBack() {
    this.end = null;
    this.asked = this.without;
    this.entered = true;
    void this.reopen();
    this.client.join();
  }

  /** @param {{code: string, message: string, reason: string, retry: boolean}} detail */
  onRefused(detail) {
    if (detail.retry && this.entered) return this.writeBanner(); // the client comes back by itself
    this.consultation.clear();
    this.equipment.stop();
    stayAwake(false);
    if (detail.code === 'room_ended') return this.showEnd({ by: 'before', reason: detail.reason });
    this.asked = this.without;
    this.problems.show(detail);
    const opensInMs = detail.code === 'link_not_yet' ? new Date(detail.reason).getTime() - Date.now() : NaN;
    if (opensInMs < TIMER_LIMIT_MS) setTimeout(() => this.client.connect(), Math.max(opensInMs, 0) + 1000);
  }

  retry() {
    const code = this.views.main.dataset.code ?? '';
    if (code.startsWith('permission') || code.startsWith('device')) void this.allow();
    else location.reload();
  }

  /** @param {string} text */
  onTold(text) {
    this.lobby.hear(text, this.words.say('waiting.message_from'));
  }

  /**
   * Say in the banner that something was asked for and not done, for as long as it takes to read it.
   *
   * @param {string} sentence
   */
  mention(sentence) {
    this.passing = sentence;
    this.writeBanner();
    clearTimeout(this.passingTimer);
    this.passingTimer = setTimeout(() => {
      this.passing = '';
      this.writeBanner();
    }, PASSING_MS);
  }

  /** One calm line, the most important thing first; the picture is never hidden. */
  writeBanner() {
    const { words, equipment, client } = this;
    const inside = ['waiting', 'call', 'devices'].includes(this.views.current);
    const { microphone, camera } = equipment.media;
    let sentence = this.passing;
    if (inside && client.signalling === 'reconnecting') sentence = words.say('banner.reconnecting');
    else if (inside && microphone === 'interrupted' && camera === 'interrupted') sentence = words.say('banner.both_interrupted');
    else if (inside && microphone === 'interrupted') sentence = words.say('banner.microphone_interrupted');
    else if (inside && camera === 'interrupted') sentence = words.say('banner.camera_interrupted');
    this.views.banner(sentence);
  }

  drawLanguage() {
    const other = this.words.language === 'fr' ? 'en' : 'fr';
    for (const control of all('[data-language]')) {
      control.lang = other;
      control.textContent = other === 'fr' ? 'Français' : 'English';
    }
  }

  /** @param {import('./i18n.js').Language} language */
  async useLanguage(language) {
    try {
      await this.words.use(language);
    } catch {
      return this.mention(this.words.say('error.offline'));
    }
    this.client.setLanguage(language);
  }
}

/**
 * Whether the page that embeds this one passes the device on.
 *
 * @param {string} feature
 */
function allowedHere(feature) {
  const policy = /** @type {{featurePolicy?: {allowsFeature(feature: string): boolean}}} */ (document).featurePolicy;
  return policy?.allowsFeature(feature) ?? true;
}

new Room(JSON.parse(document.getElementById('page')?.textContent ?? '{}')).start();
