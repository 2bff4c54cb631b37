import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { examplesFor } from '../js/examples.js';
import { speak, t, tOr } from '../js/i18n.js';
import { en } from '../js/messages/en.js';
import { zh } from '../js/messages/zh.js';

const variables = (message) => (message.match(/\{\w+\}/g) ?? []).sort();

test('both languages say the same things with the same variables', () => {
  assert.deepEqual(Object.keys(zh), Object.keys(en));
  for (const key of Object.keys(en)) assert.deepEqual(variables(zh[key]), variables(en[key]), key);
});

test('a message is found in the language spoken', () => {
  speak('zh');
  assert.equal(t('composer.changed', { n: 2 }), '已改 2 项');
  speak('en');
  assert.equal(t('composer.changed', { n: 2 }), '2 changed');
  assert.equal(tOr('param.unheard_of', 'Unheard of'), 'Unheard of');
});

test('every message is used, and every one that is used exists', () => {
  const root = new URL('../js', import.meta.url).pathname;
  const source = readdirSync(root, { recursive: true })
    .filter((name) => name.endsWith('.js') && !name.startsWith('messages'))
    .map((name) => readFileSync(join(root, name), 'utf8')).join('\n');
  const fixed = new Set([...source.matchAll(/['`]([a-z]+(?:\.[a-z_]+)+)['`]/g)].map(([, key]) => key));
  const built = [...source.matchAll(/`([a-z]+(?:\.[a-z_]+)*\.)\$\{/g)].map(([, prefix]) => prefix);
  for (const key of Object.keys(en)) {
    assert.ok(fixed.has(key) || built.some((prefix) => key.startsWith(prefix)), `${key} is not used`);
  }
  for (const [, key] of source.matchAll(/\bt\('([^']+)'/g)) assert.ok(key in en, `${key} is missing`);
});

test('three examples a task and language', () => {
  for (const task of ['text.complete', 'text.chat', 'image.generate']) {
    for (const language of ['en', 'zh']) assert.equal(examplesFor(task, language).length, 3);
  }
  assert.deepEqual(examplesFor('video.generate', 'en'), []);
});
