import assert from 'node:assert/strict';
import { test } from 'node:test';

import { DeviceError } from '../../../web/static/js/rtc/errors.js';
import { Log } from '../../../web/static/js/rtc/log.js';

function lines(level, write) {
  const written = [];
  write(new Log(level, (_, line) => written.push(line)));
  return written;
}

test('nothing private is written, whatever is passed', () => {
  const canary = 'canary-7f3a';
  const [line] = lines('debug', (log) =>
    log.info('event', {
      name: canary,
      secret: canary,
      resume: canary,
      username: canary,
      credential: canary,
      sdp: canary,
      candidate: canary,
      text: canary,
      deviceLabel: canary,
      url: canary,
      error: new Error(canary),
      anything: { deep: canary },
      long: canary.repeat(10),
    }),
  );
  assert.ok(!line.includes(canary), line);
  assert.match(line, /error=Error/);
});

test('ids are shortened, plain facts are kept', () => {
  assert.deepEqual(lines('debug', (log) => log.debug('dial', { peer: 'abcdefghijkl', attempt: 3, moved: true, code: 'taken_over' })), [
    'colloque dial peer=abcdef attempt=3 moved=true code=taken_over',
  ]);
});

test('levels', () => {
  const all = (log) => ['debug', 'info', 'warning', 'error'].forEach((level) => log[level](level));
  assert.deepEqual(lines('warning', all), ['colloque warning', 'colloque error']);
  assert.deepEqual(lines('silent', all), []);
});

test('errors have a stable code and say their kind', () => {
  const error = new DeviceError('device_busy', 'video', 'NotReadableError');
  assert.equal(error.code, 'device_busy');
  assert.equal(error.kind, 'video');
  assert.equal(error.name, 'DeviceError');
});
