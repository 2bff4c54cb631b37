import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Conversation } from '../js/chat.js';

test('each message carries the whole history', () => {
  const talk = new Conversation();
  assert.deepEqual(talk.messages('Hello', ''), [{ role: 'user', content: 'Hello' }]);
  talk.ask('Hello', 'J1');
  assert.equal(talk.pending.job, 'J1');
  talk.settle('J1', 'succeeded', 'Hi.');
  assert.equal(talk.pending, undefined);
  assert.deepEqual(talk.messages('And?', 'Be kind.'), [
    { role: 'system', content: 'Be kind.' },
    { role: 'user', content: 'Hello' },
    { role: 'assistant', content: 'Hi.' },
    { role: 'user', content: 'And?' },
  ]);
});

test('another answer takes the place of the last', () => {
  const talk = new Conversation();
  talk.ask('Hello', 'J1');
  talk.settle('J1', 'canceled', 'H');
  assert.deepEqual(talk.messages('', ''), [{ role: 'user', content: 'Hello' }]);
  talk.ask('', 'J2');
  assert.deepEqual(talk.turns.map(({ role, job }) => [role, job]), [['user', undefined], ['assistant', 'J2']]);
});

test('an answer that failed leaves no empty message', () => {
  const talk = new Conversation();
  talk.ask('Hello', 'J1');
  talk.settle('J1', 'failed', '', 'No memory.');
  assert.equal(talk.turns[1].problem, 'No memory.');
  assert.deepEqual(talk.messages('Again', '').map(({ role }) => role), ['user', 'user']);
});

test('a chat job can be taken up again', () => {
  const talk = new Conversation();
  talk.resume({
    id: 'J9', state: 'succeeded', result: { text: 'Hi.' },
    input: { messages: [{ role: 'system', content: 's' }, { role: 'user', content: 'Hello' }] },
  });
  assert.deepEqual(talk.messages('And?', '').map(({ content }) => content), ['Hello', 'Hi.', 'And?']);
});
