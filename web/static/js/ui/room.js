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

/** Nobody reads "one moment" for longer without wondering; the library goes on trying. */
const UNREACHABLE_MS = 10_000;

/** How soon a full room is tried again. */
const FULL_RETRY_MS = 5000;

const HAVE_JOINED = new Set(['admitted', 'joined']);

class Room {
  /** @param {PageData} page */
  constructor(page) {
    const parameters = new URLSearchParams(location.search);
    this.page = page;
    this.words = new Words(page.language, page.catalogue);
    this.words.render(document);
    this.views = new Views(this.words);
    /** The link's secret; another one after a transfer. */
    this.secret = location.hash.slice(1);
    const place = () => `${page.tenant.slug}/${this.secret}`;
    /** Names of the devices that the person has switched off, or `all`: a reload switches nothing on. */
    this.off = tabStorage('off', place);
    this.client = new Client({
      url: `${location.origin.replace(/^http/, 'ws')}/ws`,
      tenant: page.tenant.slug,
      secret: this.secret,
      language: page.language,
      storage: tabStorage('resume', place),
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
      copy: copyAddress,
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
    this.equipment.addEventListener('change', () => {
      this.rememberOff();
      this.writeBanner();
    });
    find('.skip').addEventListener('click', (event) => {
      event.preventDefault(); // the fragment is the secret
      this.views.heading().focus();
    });
    addEventListener('hashchange', () => location.reload()); // another link, in the same tab

    this.problems.addEventListener('shown', (event) => {
      const { code, message } = /** @type {CustomEvent} */ (event).detail;
      this.host?.error(code, message);
    });
    client.addEventListener('state', (event) => void this.onState(/** @type {CustomEvent} */ (event).detail));
    client.addEventListener('signalling', () => this.writeBanner());
    client.addEventListener('told', (event) => this.onTold(/** @type {CustomEvent} */ (event).detail.text));
    client.addEventListener('occupied', () => this.onOccupied());
    client.addEventListener('transferred', (event) => this.onTransferred(/** @type {CustomEvent} */ (event).detail.secret));
    client.addEventListener('refused', (event) => this.onRefused(/** @type {CustomEvent} */ (event).detail));
    client.addEventListener('ended', (event) => this.onEnded(/** @type {CustomEvent} */ (event).detail));
    client.addEventListener('problem', (event) => {
      const { code, message } = /** @type {CustomEvent} */ (event).detail;
      this.mention(this.words.has(`error.${code}`) ? this.words.say(`error.${code}`) : message);
      if (code === 'room_full') setTimeout(() => this.entered && client.state === 'admitted' && client.join(), FULL_RETRY_MS);
    });
  }

  start() {
    if (!globalThis.RTCPeerConnection) return this.problems.show({ code: 'unsupported' });
    if (!globalThis.isSecureContext) return this.problems.show({ code: 'insecure_context' });
    this.client.connect();
    setTimeout(() => {
      if (this.views.current === 'connecting') this.problems.show({ code: 'dead', retry: true }); // trying goes on
    }, UNREACHABLE_MS);
  }

  /** @param {{state: string, place?: number | null, expected?: boolean, reason?: string}} detail */
  async onState({ state, place, expected, reason }) {
    const { client, lobby, views } = this;
    if (client.self) lobby.setSelf(client.self);
    if (state === 'connecting') return;
    if (this.end?.by === 'self' && state !== 'left') return; // said before the server knew that they left
    if (state === 'waiting') {
      lobby.setStanding({ place: place ?? null, expected: expected ?? false });
      if (reason) lobby.hear(reason, this.words.say('waiting.sent_back'));
      this.entered = true;
      queueMicrotask(() => client.join()); // as soon as they are admitted, without another click
      if (views.current !== 'waiting') this.consultation.clear();
      views.show('waiting');
      stayAwake(true);
      await this.reopen();
    } else if (HAVE_JOINED.has(state)) {
      if (state === 'joined') {
        this.entered = true;
        this.showCall();
        await this.reopen();
      } else if (this.isStranded()) await this.greet();
    } else if (state === 'arrived') {
      if (this.isStranded()) await this.greet();
    } else if (state === 'left') {
      if (this.end || views.current === 'call' || views.current === 'waiting') this.showEnd(this.end ?? { by: 'self', reason: reason ?? '' });
      else if (views.current === 'connecting') await this.greet();
    }
  }

  /** Whether the view on show is about the way in, which is open now; steps to allow a device stay until they are done. */
  isStranded() {
    const { current, main } = this.views;
    return !this.entered && (current === 'connecting' || (current === 'problem' && !isDeviceTrouble(main.dataset.code ?? '')));
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
    const off = this.off.get()?.split(' ') ?? [];
    this.without = off.includes('all');
    if (this.without) return;
    if (off.includes('microphone')) await this.devices.setEnabled('audio', false);
    await this.equipment.ask(!off.includes('camera'));
  }

  /** Note for `reopen` what the person does not want to be on. */
  rememberOff() {
    if (this.devices.opened) this.without = false; // changed their mind
    if (!this.entered) return;
    const { microphone, camera } = this.equipment.media;
    if (this.devices.opened) this.off.set([microphone === 'off' && 'microphone', camera === 'off' && 'camera'].filter(Boolean).join(' '));
    else if (this.without) this.off.set('all');
  }

  enter() {
    this.entered = true;
    this.asked = true;
    this.rememberOff();
    this.client.join();
  }

  showCall() {
    this.end = null;
    this.lobby.forget();
    if (this.views.current === 'call') this.consultation.write();
    else this.consultation.enter();
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
    this.putAway();
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
    this.entered = false;
    this.putAway();
    if (detail.code === 'room_ended') return this.showEnd({ by: 'before', reason: detail.reason });
    this.problems.show(detail);
    const opensInMs = detail.code === 'link_not_yet' ? new Date(detail.reason).getTime() - Date.now() : NaN;
    if (opensInMs < TIMER_LIMIT_MS) setTimeout(() => this.client.connect(), Math.max(opensInMs, 0) + 1000);
  }

  /** The seat is in use on another device; here nothing goes on until the person says so. */
  onOccupied() {
    this.putAway();
    this.problems.show({ code: 'occupied' });
  }

  /** Camera and microphone off, nothing of the others left on the page; on the way back in, they are opened again. */
  putAway() {
    this.consultation.clear();
    this.equipment.stop();
    stayAwake(false);
    this.asked = this.without;
  }

  /** The link of the new room takes the place of the old one, also for a reload. @param {string} secret */
  onTransferred(secret) {
    this.secret = secret;
    history.replaceState(history.state, '', `#${secret}`);
  }

  retry() {
    if (isDeviceTrouble(this.views.main.dataset.code ?? '')) void this.allow();
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
    if (!sentence && inside && client.signalling === 'reconnecting') sentence = words.say('banner.reconnecting');
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

/** Whether a problem is about camera or microphone. @param {string} code */
function isDeviceTrouble(code) {
  return code.startsWith('permission') || code.startsWith('device');
}

/** Whether the clipboard has taken the address of this page: over plain HTTP and in some frames there is none. */
async function copyAddress() {
  try {
    await navigator.clipboard.writeText(location.href);
    return true;
  } catch {
    return false;
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

document.documentElement.toggleAttribute('data-started', true); // every module was understood: unsupported.js is not needed
new Room(JSON.parse(document.getElementById('page')?.textContent ?? '{}')).start();
