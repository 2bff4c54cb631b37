import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { once } from 'node:events';
import { test } from 'node:test';
import { EventParser, EventStream } from '../js/events.js';

function parse(...chunks) {
  const events = [];
  const parser = new EventParser();
  for (const chunk of chunks) parser.push(chunk, (event) => events.push(event));
  return { events, lastId: parser.lastId };
}

test('an event has an id, a type and data', () => {
  const { events } = parse('id: 7\nevent: token\ndata: {"a":1}\n\n');
  assert.deepEqual(events, [{ id: '7', type: 'token', data: '{"a":1}' }]);
});

test('comments, retry times and unknown fields are no events', () => {
  assert.deepEqual(parse(': ping\n\nretry: 1000\n\nfoo: bar\n\n').events, []);
});

test('lines of data are joined, and only one space is taken off', () => {
  const { events } = parse('data:a\ndata:  b\ndata\n\n');
  assert.equal(events[0].data, 'a\n b\n');
});

test('an id holds until the next one, and counts only with a complete event', () => {
  const { events, lastId } = parse('id: 1\ndata: a\n\ndata: b\n\nid: 2\ndata: c\n');
  assert.deepEqual(events.map(({ id }) => id), ['1', '1']);
  assert.equal(lastId, '1');
});

test('the stream may break anywhere, and lines may end in any way', () => {
  const wire = 'id: 1\r\nevent: x\r\ndata: 一\r\n\r\nid: 2\rdata: b\r\rid: 3\ndata: c\n\n';
  const whole = parse(wire).events;
  assert.equal(whole.length, 3);
  for (let cut = 0; cut <= wire.length; cut++) {
    assert.deepEqual(parse(wire.slice(0, cut), wire.slice(cut)).events, whole, `cut at ${cut}`);
  }
  assert.deepEqual(parse(...wire).events, whole, 'cut everywhere');
});

// Serves each connection with the next answer and notes its Last-Event-ID.
async function serve(t, answers) {
  const seen = [];
  const server = createServer((request, response) => {
    seen.push(request.headers['last-event-id'] ?? '');
    answers[Math.min(seen.length, answers.length) - 1](response);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => {
    server.close();
    server.closeAllConnections();
  });
  return { url: `http://127.0.0.1:${server.address().port}/`, seen };
}

const events = (text) => (response) => {
  response.writeHead(200, { 'Content-Type': 'text/event-stream' });
  response.end(text);
};

test('a stream that is cut resumes behind the last event, and ends with 204', async (t) => {
  const { url, seen } = await serve(t, [
    events('id: 5\ndata: "a"\n\nid: 6\ndata: "b"\n\nid: 7\ndata: "lost in the mid'),
    events('id: 7\ndata: "c"\n\n'),
    (response) => response.writeHead(204).end(),
  ]);
  const got = [];
  const log = [];
  const problem = await new Promise((resolve) => {
    new EventStream(url, {
      onEvent: (data, id) => got.push([id, data]),
      onOpen: (resumed) => log.push(resumed ? 'resumed' : 'opened'),
      onLost: () => log.push('lost'),
      onEnd: resolve,
    }).open();
  });
  assert.equal(problem, null);
  assert.deepEqual(got, [['5', 'a'], ['6', 'b'], ['7', 'c']]);
  assert.deepEqual(seen, ['', '6', '7']);
  assert.deepEqual(log, ['opened', 'lost', 'resumed', 'lost']);
});

test('a server that fails is asked again, one that refuses is not', async (t) => {
  const { url, seen } = await serve(t, [
    (response) => response.writeHead(503).end(),
    (response) => response.writeHead(404, { 'Content-Type': 'application/problem+json' }).end('{"code":"not_found","detail":"gone"}'),
  ]);
  const problem = await new Promise((resolve) => {
    new EventStream(url, { onEvent: () => {}, onEnd: resolve }).open();
  });
  assert.equal(seen.length, 2);
  assert.equal(problem.status, 404);
  assert.equal(problem.code, 'not_found');
});

test('a closed stream is silent, and goes on where it was when opened again', async (t) => {
  let abandoned;
  const gone = new Promise((resolve) => { abandoned = resolve; });
  const { url, seen } = await serve(t, [
    (response) => {
      response.on('close', abandoned);
      response.writeHead(200, { 'Content-Type': 'text/event-stream' });
      response.write('id: 1\ndata: 1\n\n');
    },
    (response) => {
      response.writeHead(200, { 'Content-Type': 'text/event-stream' });
      gone.then(() => response.write('id: 2\ndata: 2\n\n'));
    },
  ]);
  const got = [];
  await new Promise((resolve) => {
    const stream = new EventStream(url, {
      onEvent: (data) => {
        got.push(data);
        stream.close();
        if (data === 1) stream.open();
        else resolve();
      },
      onLost: () => assert.fail('a stream that was closed is not lost'),
    });
    stream.open();
  });
  assert.deepEqual(got, [1, 2]);
  assert.deepEqual(seen, ['', '1']);
});
