import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Backoff } from '../../../web/static/js/rtc/backoff.js';

/** Waits of the first attempts, with the longest of the jitter. */
function waits(backoff, count) {
  return Array.from({ length: count }, () => (backoff.begin(), backoff.waitMs()));
}

test('fast at first, then patient', () => {
  const backoff = new Backoff(() => 1);
  assert.deepEqual(waits(backoff, 6), [0, 250, 500, 1000, 2000, 2000]);
  assert.equal(waits(backoff, 40).at(-1), 5000);
});

test('in the first minute no wait is longer than 2 s, so that a network that is back is found within seconds', () => {
  const backoff = new Backoff(() => 1);
  let total = 0;
  while (total < 45_000) {
    const [wait] = waits(backoff, 1);
    assert.ok(wait <= 2000, `waited ${wait} ms after ${total} ms`);
    total += wait + 1;
  }
});

test('jitter spreads over half of the wait', () => {
  const early = new Backoff(() => 0);
  assert.deepEqual(waits(early, 4), [0, 125, 250, 500]);
});

test('attempts hang briefly first, and longer on a network that needs it', () => {
  const backoff = new Backoff();
  const hangs = Array.from({ length: 9 }, () => backoff.begin());
  assert.deepEqual(hangs, [2500, 2500, 2500, 2500, 2500, 4000, 6000, 10_000, 10_000]);
});

test('success starts over', () => {
  const backoff = new Backoff(() => 1);
  waits(backoff, 10);
  backoff.reset();
  assert.equal(backoff.attempts, 0);
  assert.deepEqual(waits(backoff, 2), [0, 250]);
});
