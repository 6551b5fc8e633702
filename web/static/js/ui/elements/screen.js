// @ts-check
/**
 * One person's picture and sound in a tile. A new stream is played behind the one that is seen, silent, until it has a picture; then both
 * change places. So there is no black frame and no pause when the way changes by which somebody comes.
 *
 * The element that is seen is the one with `data-peer`; for the length of a change there is another, behind it and without.
 */

/** Without a picture by then (a camera that is off, a tab in the background), the sound does not wait any longer. */
const PATIENCE_MS = 800;
/** The sound before goes on for so long under the new one: a gap is heard, this is not. */
const FADE_MS = 20;

/** Dispatches `blocked` when the browser refuses to play sound before a click, `shape` when the picture's proportions change. */
export class Screen extends EventTarget {
  /** @type {HTMLVideoElement | null} */
  #next = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;

  /**
   * @param {HTMLVideoElement} element in its tile
   * @param {string} name for `data-peer`
   */
  constructor(element, name) {
    super();
    /** The one that is seen. */
    this.element = element;
    this.name = name;
    element.dataset.peer = name;
    this.#watchShape(element);
  }

  /** @param {MediaStream} stream */
  show(stream) {
    const front = this.element;
    if (front.srcObject === stream || this.#next?.srcObject === stream) return;
    this.#forgetNext();
    if (front.srcObject === null) {
      front.srcObject = stream;
      void this.play();
      return;
    }
    const next = /** @type {HTMLVideoElement} */ (front.cloneNode(false));
    delete next.dataset.peer;
    next.setAttribute('aria-hidden', 'true');
    next.muted = true;
    next.srcObject = stream;
    this.#next = next;
    front.before(next); // behind: later siblings are painted above
    void next.play().catch(() => undefined);
    const ready = () => this.#next === next && this.#change();
    if (stream.getVideoTracks().length && 'requestVideoFrameCallback' in next) next.requestVideoFrameCallback(ready);
    else next.addEventListener('playing', ready, { once: true });
    this.#timer = setTimeout(ready, PATIENCE_MS);
  }

  /** Play with sound; when that is refused, play the picture and ask for a click. */
  async play() {
    const { element } = this;
    try {
      await element.play();
    } catch (error) {
      if (!(error instanceof DOMException) || error.name !== 'NotAllowedError') return; // a newer stream took over
      element.muted = true;
      void element.play().catch(() => undefined);
      this.dispatchEvent(new Event('blocked'));
    }
  }

  /** From within a click. */
  async hear() {
    this.element.muted = false;
    await this.play();
  }

  close() {
    this.#forgetNext();
    this.element.srcObject = null;
  }

  #change() {
    const [before, next] = [this.element, /** @type {HTMLVideoElement} */ (this.#next)];
    clearTimeout(this.#timer);
    this.#next = null;
    this.element = next;
    next.setAttribute('aria-label', before.getAttribute('aria-label') ?? '');
    next.removeAttribute('aria-hidden');
    next.dataset.peer = this.name;
    delete before.dataset.peer;
    next.muted = before.muted;
    before.hidden = true;
    setTimeout(() => retire(before), FADE_MS);
    this.#watchShape(next);
    this.dispatchEvent(new Event('shape'));
    if (next.paused) void this.play(); // sound that this browser lets nobody start
  }

  #forgetNext() {
    clearTimeout(this.#timer);
    if (this.#next === null) return;
    retire(this.#next);
    this.#next = null;
  }

  /** @param {HTMLVideoElement} element */
  #watchShape(element) {
    element.addEventListener('resize', () => element === this.element && this.dispatchEvent(new Event('shape')));
  }
}

/** @param {HTMLVideoElement} element that is not needed any more */
function retire(element) {
  element.srcObject = null;
  element.remove();
}
