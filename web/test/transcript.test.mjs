import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Transcript } from '../js/transcript.js';

const bytes = (text) => new TextEncoder().encode(text).length;

// Cuts text into deltas of n characters with their offsets in bytes.
function deltas(text, n) {
  const chars = [...text];
  const result = [];
  for (let i = 0, offset = 0; i < chars.length; i += n) {
    const part = chars.slice(i, i + n).join('');
    result.push([part, offset]);
    offset += bytes(part);
  }
  return result;
}

const poem = '秋夜凉风起，\nwind — “é” 🌙';

test('deltas in order make the text', () => {
  for (const n of [1, 2, 5]) {
    const transcript = new Transcript();
    for (const [text, offset] of deltas(poem, n)) transcript.place(text, offset);
    assert.equal(transcript.text, poem);
    assert.equal(transcript.length, bytes(poem));
  }
});

test('a replay neither doubles nor shortens what is there', () => {
  const transcript = new Transcript();
  for (const [text, offset] of deltas(poem, 3)) transcript.place(text, offset);
  for (const [text, offset] of deltas(poem, 2)) {
    transcript.place(text, offset);
    assert.equal(transcript.text, poem);
  }
});

test('a replay cut differently goes on beyond the end', () => {
  const transcript = new Transcript();
  for (const [text, offset] of deltas(poem, 2).slice(0, 3)) transcript.place(text, offset);
  for (const [text, offset] of deltas(poem, 5)) transcript.place(text, offset);
  assert.equal(transcript.text, poem);
});

test('text that differs replaces what followed', () => {
  const transcript = new Transcript();
  transcript.place('one two three', 0);
  transcript.place('2', 4);
  assert.equal(transcript.text, 'one 2');
  transcript.place(' III', 5);
  assert.equal(transcript.text, 'one 2 III');
});

test('deltas that come too early wait for the gap to close', () => {
  const transcript = new Transcript();
  const [first, second, third] = deltas('abcdef', 2);
  transcript.place(...third);
  transcript.place(...second);
  assert.equal(transcript.text, '');
  transcript.place(...first);
  assert.equal(transcript.text, 'abcdef');
});

test('long texts are kept whole', () => {
  const transcript = new Transcript();
  const long = poem.repeat(500);
  for (const [text, offset] of deltas(long, 7)) transcript.place(text, offset);
  assert.equal(transcript.text, long);
});
