import assert from 'node:assert/strict';
import { beforeEach, test } from 'node:test';

import { Wishes, ridFor } from '../../../web/static/js/rtc/wishes.js';
import { fakePlatform } from './fakes.js';

let platform, online, sent, wishes;

beforeEach(() => {
  platform = fakePlatform();
  online = true;
  sent = [];
  wishes = new Wishes(platform, (list) => online && (sent.push(list), true));
});

const carry = (pictures, load = '1') => new Map(Object.entries(pictures).map(([mid, picture]) => [mid, { picture, source: `${picture}${load}:1` }]));

test('the encoding follows the short side of what is seen', () => {
  assert.equal(ridFor({ width: 160, height: 90 }), 'q');
  assert.equal(ridFor({ width: 384, height: 216 }), 'q');
  assert.equal(ridFor({ width: 640, height: 360 }), 'h');
  assert.equal(ridFor({ width: 1280, height: 720 }), 'f');
  assert.equal(ridFor({ width: 360, height: 740 }), 'h', 'an upright phone');
  assert.equal(ridFor({ width: 0, height: 0 }), null);
  assert.equal(ridFor(null), null);
});

test('said once, when the sizes have settled, by section', async () => {
  wishes.carry(carry({ 2: 'p' }));
  assert.deepEqual(sent, [], 'nothing is known of its size');
  for (const width of [100, 500, 900]) wishes.show('p', { width, height: width });
  assert.deepEqual(sent, []);
  await platform.clock.advance(200);
  assert.deepEqual(sent, [[{ mid: '2', rid: 'f' }]]);
  wishes.show('p', { width: 901, height: 901 });
  await platform.clock.advance(200);
  assert.equal(sent.length, 1, 'nothing new');
  wishes.show('p', null);
  await platform.clock.advance(200);
  assert.deepEqual(sent.at(-1), [{ mid: '2', rid: null }]);
  assert.equal(wishes.seen('p'), false);
});

test('a section that carries somebody else is told anew; what could not be sent is sent later', async () => {
  wishes.show('p', { width: 1280, height: 720 });
  wishes.show('q', { width: 160, height: 90 });
  online = false;
  wishes.carry(carry({ 2: 'p' }));
  assert.deepEqual(sent, []);
  online = true;
  wishes.carry(carry({ 2: 'p' }));
  assert.deepEqual(sent, [[{ mid: '2', rid: 'f' }]]);
  wishes.carry(carry({ 2: 'q', 4: 'p' }));
  assert.deepEqual(sent.at(-1), [{ mid: '2', rid: 'q' }, { mid: '4', rid: 'f' }]);
  wishes.carry(new Map());
  wishes.carry(carry({ 2: 'q' }));
  assert.deepEqual(sent.at(-1), [{ mid: '2', rid: 'q' }], 'another connection');
});

test('after a reload at the other end the same section is told again', async () => {
  wishes.show('p', { width: 160, height: 90 });
  await platform.clock.advance(200);
  wishes.carry(carry({ 2: 'p' }));
  wishes.carry(carry({ 2: 'p' }));
  assert.equal(sent.length, 1);
  wishes.carry(carry({ 2: 'p' }, '2'));
  assert.deepEqual(sent, [[{ mid: '2', rid: 'q' }], [{ mid: '2', rid: 'q' }]]);
});
