import assert from 'node:assert/strict';
import { test } from 'node:test';
import { sentenceEnd } from '../js/announce.js';

test('a text is announced in whole sentences', () => {
  const cases = [
    ['Once upon', 0, 0],
    ['Once upon a time. The', 0, 17],
    ['"Yes!" she said', 0, 6],
    ['One. Two. Thr', 4, 9],
    ['秋夜凉风起，空山落叶声。孤', 0, 12],
    ['line\nnext', 0, 5],
    ['3.14 is', 0, 0],
  ];
  for (const [text, from, want] of cases) assert.equal(sentenceEnd(text, from), want, text);
});
