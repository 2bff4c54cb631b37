import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';

const root = new URL('..', import.meta.url).pathname;
const page = readFileSync(join(root, 'index.html'), 'utf8');
const files = (folder) => readdirSync(join(root, folder), { recursive: true }).map((name) => `${folder}/${name}`);

test('the page loads every module and style sheet at once', () => {
  const linked = [...page.matchAll(/(?:href|src)="((?:js|css)\/[^"]+)"/g)].map(([, path]) => path).sort();
  assert.deepEqual(linked, [...files('js'), ...files('css')].filter((name) => /\.(js|css)$/.test(name)).sort());
});

test('the page keeps to the content security policy', () => {
  assert.doesNotMatch(page, /<style|style=|\son\w+=|<script(?![^>]*\ssrc=)|https?:/);
  for (const name of files('js').filter((path) => path.endsWith('.js'))) {
    const source = readFileSync(join(root, name), 'utf8');
    assert.doesNotMatch(source, /innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|setAttribute\('style'/, name);
  }
});

test('every module says what it owns, and none is long', () => {
  for (const name of files('js').filter((path) => path.endsWith('.js'))) {
    const lines = readFileSync(join(root, name), 'utf8').split('\n');
    assert.match(lines[0], /^\/\/ /, name);
    assert.ok(lines.length < 400, `${name} has ${lines.length} lines`);
  }
});
