import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fieldsOf, fromText, membersAt, readFields, textsOf, toText } from '../js/form.js';

const schema = {
  type: 'object',
  required: ['prompt'],
  properties: {
    prompt: { type: 'string' },
    max_tokens: { type: 'integer', minimum: 1, maximum: 4096, default: 200, description: 'How long.' },
    temperature: { $ref: '#/$defs/warmth' },
    repetition_penalty: { type: 'number', exclusiveMinimum: 0, maximum: 2 },
    stop: { type: 'array', items: { type: 'string' } },
    echo: { type: ['boolean', 'null'] },
    size: { enum: ['small', 'large'], default: 'small' },
    extra: { type: 'object' },
    name: { type: 'string', title: 'Name of it' },
  },
  $defs: { warmth: { type: 'number', minimum: 0, maximum: 2, default: 0.8 } },
};
const fields = fieldsOf(schema);
const field = (name) => fields.find((candidate) => candidate.name === name);

test('a schema becomes fields; the prompt is none of them', () => {
  assert.deepEqual(fields.map(({ name, kind }) => [name, kind]), [
    ['max_tokens', 'integer'], ['temperature', 'number'], ['repetition_penalty', 'number'], ['stop', 'lines'],
    ['echo', 'boolean'], ['size', 'choice'], ['extra', 'json'], ['name', 'text'],
  ]);
  assert.deepEqual(field('max_tokens'), {
    name: 'max_tokens', kind: 'integer', title: 'Max tokens', description: 'How long.',
    initial: 200, min: 1, max: 4096, above: false, step: 1,
  });
  assert.equal(field('temperature').initial, 0.8);
  assert.equal(field('temperature').step, 0.01);
  assert.equal(field('repetition_penalty').above, true);
  assert.equal(field('name').title, 'Name of it');
});

test('what was typed becomes a value or a fault', () => {
  const cases = [
    ['max_tokens', '12', { value: 12 }],
    ['max_tokens', ' ', { value: undefined }],
    ['max_tokens', '1.5', { fault: { key: 'fault.integer' } }],
    ['max_tokens', '0', { fault: { key: 'fault.range', min: 1, max: 4096 } }],
    ['max_tokens', 'many', { fault: { key: 'fault.number' } }],
    ['max_tokens', 'Infinity', { fault: { key: 'fault.number' } }],
    ['temperature', '0', { value: 0 }],
    ['temperature', '7', { fault: { key: 'fault.range', min: 0, max: 2 } }],
    ['repetition_penalty', '0', { fault: { key: 'fault.above', min: 0, max: 2 } }],
    ['stop', 'END\n\n\\n\\n\n\\\\n', { value: ['END', '\n\n', '\\n'] }],
    ['echo', 'true', { value: true }],
    ['echo', 'false', { value: false }],
    ['size', 'large', { value: 'large' }],
    ['extra', '{"a":1}', { value: { a: 1 } }],
    ['extra', '{a', { fault: { key: 'fault.json' } }],
    ['name', 'x y', { value: 'x y' }],
  ];
  for (const [name, text, want] of cases) assert.deepEqual(fromText(field(name), text), want, `${name}: ${text}`);
});

test('values survive the way through their texts', () => {
  const cases = [['max_tokens', 7], ['temperature', 0.35], ['stop', ['a', '\n', 'back\\slash', '\t']], ['echo', false], ['extra', { a: [1] }]];
  for (const [name, value] of cases) {
    assert.deepEqual(fromText(field(name), toText(field(name), value)), { value }, name);
  }
});

test('untouched fields stay out of the input', () => {
  assert.deepEqual(readFields(fields, { temperature: '0.5', max_tokens: '' }), { input: { temperature: 0.5 }, faults: {} });
  assert.deepEqual(Object.keys(readFields(fields, { temperature: 'warm', max_tokens: '0' }).faults), ['max_tokens', 'temperature']);
});

test('the settings of a job are taken over', () => {
  assert.deepEqual(textsOf(fields, { prompt: 'x', temperature: 0.5, stop: ['.'] }), { temperature: '0.5', stop: '.' });
});

test('an object of single values becomes a field for each', () => {
  const nested = fieldsOf({
    properties: {
      image: { type: 'string' },
      hires: { title: 'Second pass', type: 'object', properties: { scale: { type: 'number', minimum: 1, maximum: 4, default: 2 }, steps: { type: 'integer' } } },
      loras: { type: 'array', items: { type: 'object' } },
    },
  });
  assert.deepEqual(nested.map(({ name, kind, title }) => [name, kind, title]), [
    ['hires.scale', 'number', 'Second pass: scale'], ['hires.steps', 'integer', 'Second pass: steps'], ['loras', 'json', 'Loras'],
  ]);
  const { input, faults } = readFields(nested, { 'hires.scale': '1.5', 'hires.steps': 'x' });
  assert.deepEqual(input, { hires: { scale: 1.5 } });
  assert.deepEqual(Object.keys(faults), ['hires.steps']);
  assert.deepEqual(textsOf(nested, { hires: { scale: 3 } }), { 'hires.scale': '3' });
});

test('a pointer leads through members', () => {
  assert.deepEqual(membersAt('/input/stop/2'), ['stop', '2']);
  assert.deepEqual(membersAt('/input/a~1b~0c'), ['a/b~c']);
  assert.deepEqual(membersAt('/seed'), ['seed']);
  assert.deepEqual(membersAt('/input'), ['input']);
  assert.deepEqual(membersAt(''), []);
});
