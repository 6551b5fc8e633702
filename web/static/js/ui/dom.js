// @ts-check
/** The few helpers over the DOM that every module of the page uses. */

/**
 * The one element that the template promises.
 *
 * @param {string} selector
 * @param {ParentNode} [root]
 * @returns {HTMLElement}
 */
export function find(selector, root = document) {
  const element = root.querySelector(selector);
  if (!(element instanceof HTMLElement)) throw new Error(`the page lacks ${selector}`);
  return element;
}

/**
 * All elements that match.
 *
 * @param {string} selector
 * @param {ParentNode} [root]
 * @returns {HTMLElement[]}
 */
export function all(selector, root = document) {
  return /** @type {HTMLElement[]} */ ([...root.querySelectorAll(selector)]);
}

/**
 * @param {string} name the test id
 * @returns {HTMLButtonElement}
 */
export function button(name) {
  return /** @type {HTMLButtonElement} */ (find(`[data-testid="${name}"]`));
}

/**
 * A fresh copy of a `<template>`'s only element.
 *
 * @param {string} id
 * @returns {HTMLElement}
 */
export function copy(id) {
  const template = /** @type {HTMLTemplateElement} */ (find(`template#${id}`));
  return /** @type {HTMLElement} */ (template.content.firstElementChild?.cloneNode(true));
}

/**
 * Write words only when they changed, so that live regions speak once.
 *
 * @param {Element} element
 * @param {string} words
 */
export function write(element, words) {
  if (element.textContent !== words) element.textContent = words;
}

/**
 * Give a control another icon of the sprite.
 *
 * @param {Element} element
 * @param {string} name
 */
export function setIcon(element, name) {
  element.querySelector('use')?.setAttribute('href', `/static/icons/icons.svg#${name}`);
}

/**
 * The initials shown where there is no picture.
 *
 * @param {string} name
 */
export function initials(name) {
  const words = name.split(/\s+/).filter((word) => /^\p{L}/u.test(word));
  return [words[0], words.length > 1 ? words[words.length - 1] : ''].map((word) => (word ?? '').slice(0, 1).toUpperCase()).join('');
}
