// @ts-check
/**
 * Words: one catalogue per language, flat keys, `{placeholders}`.
 *
 * Static words sit in the page as `data-t="key"` (text) and `data-t-label="key"` (accessible name); `render` fills them.
 * What depends on the moment is written by its owner, again on every `change` event.
 */

/** @typedef {'fr' | 'en'} Language */
/** @typedef {Record<string, string>} Catalogue */

export class Words extends EventTarget {
  /**
   * @param {Language} language
   * @param {Catalogue} catalogue
   */
  constructor(language, catalogue) {
    super();
    this.language = language;
    this.catalogue = catalogue;
  }

  /**
   * One sentence.
   *
   * @param {string} key
   * @param {Record<string, string | number>} [values] for the placeholders
   */
  say(key, values = {}) {
    const sentence = this.catalogue[key] ?? key;
    return sentence.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
  }

  /**
   * Whether the catalogue has words for a key that was made up from a code.
   *
   * @param {string} key
   */
  has(key) {
    return key in this.catalogue;
  }

  /**
   * Fill every `data-t` and `data-t-label` below a node.
   *
   * @param {ParentNode} root
   */
  render(root) {
    for (const element of root.querySelectorAll('[data-t]')) element.textContent = this.say(element.getAttribute('data-t') ?? '');
    for (const element of root.querySelectorAll('[data-t-label]')) {
      element.setAttribute('aria-label', this.say(element.getAttribute('data-t-label') ?? ''));
    }
  }

  /**
   * Change the language of the page, without leaving it.
   *
   * @param {Language} language
   * @throws {TypeError} when the catalogue cannot be fetched; the page stays as it was
   */
  async use(language) {
    const answer = await fetch(`/catalogue/${language}.json`);
    if (!answer.ok) throw new TypeError(`catalogue ${language}: ${answer.status}`);
    this.catalogue = await answer.json();
    this.language = language;
    document.documentElement.lang = language;
    this.render(document);
    for (const template of document.querySelectorAll('template')) this.render(template.content);
    this.dispatchEvent(new Event('change'));
  }

  /**
   * A day and time in the person's own time zone, in words.
   *
   * @param {Date} when
   */
  moment(when) {
    const locale = this.language === 'fr' ? 'fr-FR' : 'en-GB';
    return new Intl.DateTimeFormat(locale, { weekday: 'long', day: 'numeric', month: 'long', hour: 'numeric', minute: '2-digit' }).format(when);
  }
}
