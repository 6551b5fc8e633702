import assert from 'node:assert/strict';
import { beforeEach, test } from 'node:test';

import { Floor } from '../../../web/static/js/ui/elements/floor.js';

let floor;
beforeEach(() => (floor = new Floor()));

test('the first to speak has the floor at once', () => {
  floor.hear(['a', 'b'], 0);
  assert.equal(floor.holder, 'a');
});

test('a cough takes nobody’s place', () => {
  floor.hear(['a'], 0);
  floor.hear(['b', 'a'], 10_000);
  floor.hear(['a', 'b'], 10_500);
  assert.equal(floor.settle(20_000), null);
  assert.equal(floor.holder, 'a');
});

test('whoever goes on speaking gets it, without another word from the server', () => {
  floor.hear(['a'], 0);
  floor.hear(['b'], 10_000);
  assert.equal(floor.holder, 'a');
  assert.equal(floor.settle(10_500), 1000);
  floor.settle(11_500);
  assert.equal(floor.holder, 'b');
});

test('two who speak by turns do not chase each other', () => {
  const holders = [];
  for (let now = 0; now < 30_000; now += 500) {
    floor.hear([Math.floor(now / 2000) % 2 ? 'a' : 'b'], now);
    if (floor.holder !== holders.at(-1)) holders.push(floor.holder);
  }
  assert.ok(holders.length <= 30 / 4 + 1, String(holders.length));
});

test('silence changes nothing, and who is gone has no floor', () => {
  floor.hear(['a'], 0);
  floor.hear([], 5000);
  assert.equal(floor.settle(60_000), null);
  assert.equal(floor.holder, 'a');
  floor.drop('a');
  assert.equal(floor.holder, null);
  floor.hear(['b'], 60_000);
  assert.equal(floor.holder, 'b');
});
