// @ts-check
/** One native `<dialog>` for every question: it keeps the focus, closes with Escape, and the picture goes on behind it. */

import { button, find, write } from '../dom.js';

/**
 * @typedef {object} Question
 * @property {string} title
 * @property {string} text
 * @property {string} confirm words on the button that says yes
 * @property {string} [label] of a text to write; none: no text is asked
 * @property {boolean} [required] the text must not be empty
 * @property {boolean} [danger] yes cannot be undone
 */

/**
 * @param {Question} question
 * @returns {Promise<string | null>} what was written ('' when nothing was asked), null when the person thought better of it
 */
export function ask(question) {
  const dialog = /** @type {HTMLDialogElement} */ (find('[data-dialog="ask"]'));
  const input = /** @type {HTMLTextAreaElement} */ (find('textarea', dialog));
  const yes = button('confirm');
  write(find('[data-ask-title]'), question.title);
  write(find('[data-ask-text]'), question.text);
  write(yes, question.confirm);
  yes.classList.toggle('danger', question.danger ?? false);
  yes.classList.toggle('primary', !question.danger);
  find('[data-ask-field]').hidden = !question.label;
  write(find('[data-ask-label]'), question.label ?? '');
  input.value = '';
  input.required = Boolean(question.label && question.required);
  dialog.returnValue = 'cancel';
  dialog.showModal();
  (question.label ? input : yes).focus();
  return new Promise((resolve) => {
    dialog.addEventListener('close', () => resolve(dialog.returnValue === 'confirm' ? input.value.trim() : null), { once: true });
  });
}
