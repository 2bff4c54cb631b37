// The gateway's HTTP API: requests, answers, and problems (RFC 9457) as errors.

import { session } from './session.js';

/** An error that the gateway explained. `errors` is a list of {pointer, detail}. */
export class Problem extends Error {
  constructor({ title, status = 0, detail, code = 'unknown', errors = [] }) {
    super(detail || title || `HTTP ${status}`);
    this.name = 'Problem';
    this.status = status;
    this.code = code;
    this.errors = errors;
  }
}

/** The gateway could not be reached at all. */
export class Unreachable extends Error {
  constructor(cause) {
    super('The server cannot be reached.', { cause });
    this.name = 'Unreachable';
  }
}

/** Returns the problem that an unsuccessful response states. */
export async function problemOf(response) {
  if (response.status === 401) session.lock();
  try {
    return new Problem({ ...(await response.json()), status: response.status });
  } catch {
    return new Problem({ status: response.status, title: response.statusText });
  }
}

// A body that is a Blob is sent as it is, any other as JSON.
async function request(method, path, { body, headers = {}, signal } = {}) {
  const plain = body === undefined || body instanceof Blob;
  let response;
  try {
    response = await fetch(path, {
      method,
      headers: plain ? headers : { 'Content-Type': 'application/json', ...headers },
      body: plain ? body : JSON.stringify(body),
      signal,
    });
  } catch (cause) {
    if (signal?.aborted) throw cause;
    throw new Unreachable(cause);
  }
  if (!response.ok) throw await problemOf(response);
  return response.status === 204 ? null : response.json();
}

/** Path of a job, with a verb or the events behind it. */
export const jobPath = (id, verb) => `/v1/jobs/${encodeURIComponent(id)}${verb ? `/${verb}` : ''}`;

/** Path of an artifact's bytes. */
export const artifactPath = (sha256) => `/v1/artifacts/${encodeURIComponent(sha256)}`;

/** Whose key the browser sends: {tenant, key_required, …}. */
export const whoami = () => request('GET', '/v1/session');

/** Has the browser keep a key, and returns whose it is. */
export const login = (key) => request('POST', '/v1/session', { body: { key } });

/** Has the browser forget the key. */
export const logout = () => request('DELETE', '/v1/session');

export const tasks = async () => (await request('GET', '/v1/tasks')).data;
export const models = async () => (await request('GET', '/v1/models')).data;
export const job = (id) => request('GET', jobPath(id));
export const cancel = (id) => request('POST', jobPath(id, 'cancel'));
export const retry = (id) => request('POST', jobPath(id, 'retry'));
export const remove = (id) => request('DELETE', jobPath(id));

/** What can be told of an artifact: size, and how it was made if the file says so. */
export const artifactInfo = (sha256) => request('GET', `${artifactPath(sha256)}/info`);

/** Stores a file and returns the artifact: {sha256, media_type, size, name, url}. */
export const upload = (blob, name) => request('POST', '/v1/uploads', {
  body: blob,
  headers: {
    'Content-Type': blob.type || 'application/octet-stream',
    'Content-Disposition': `attachment; filename*=UTF-8''${encoded(name || 'picture')}`,
  },
});

// RFC 5987 wants some characters encoded that encodeURIComponent leaves as they are.
const encoded = (name) => encodeURIComponent(name).replace(/['()*]/g, (c) => `%${c.charCodeAt(0).toString(16)}`);

/** One page of jobs, newest first: {data, has_more, next}. */
export function jobs({ state, after, limit = 30 } = {}) {
  const query = new URLSearchParams({ limit });
  if (state) query.set('state', state);
  if (after) query.set('after', after);
  return request('GET', `/v1/jobs?${query}`);
}

/**
 * Submits a job and returns it. A request whose answer was lost is sent again under
 * the same idempotency key, so that it cannot become two jobs.
 */
export async function submit(body) {
  const headers = { 'Idempotency-Key': randomKey() };
  for (let attempt = 1; ; attempt++) {
    try {
      return await request('POST', '/v1/jobs', { body, headers });
    } catch (err) {
      if (!(err instanceof Unreachable) || attempt === 3) throw err;
      await new Promise((resolve) => setTimeout(resolve, 400 * attempt));
    }
  }
}

function randomKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}
