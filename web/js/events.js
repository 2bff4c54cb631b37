// Server-sent events that survive the loss of the connection: a parser of the wire
// format (WHATWG HTML § 9.2) and a stream that resumes behind the last event it saw.

import { Problem, problemOf } from './api.js';

/** Parses an event stream from chunks of text that may break anywhere. */
export class EventParser {
  #rest = '';
  #data = [];
  #type = '';
  #skipLF = false;

  /** The id of the last event that was complete. */
  lastId = '';
  #pendingId = '';

  /** Calls onEvent({id, type, data}) for each event completed by chunk. */
  push(chunk, onEvent) {
    let text = this.#rest + chunk;
    if (this.#skipLF && text.startsWith('\n')) text = text.slice(1);
    if (text !== '') this.#skipLF = false;
    let start = 0;
    for (let i = 0; i < text.length; i++) {
      const char = text[i];
      if (char !== '\n' && char !== '\r') continue;
      this.#line(text.slice(start, i), onEvent);
      if (char === '\r') {
        if (text[i + 1] === '\n') i++;
        else if (i + 1 === text.length) this.#skipLF = true;
      }
      start = i + 1;
    }
    this.#rest = text.slice(start);
  }

  #line(line, onEvent) {
    if (line === '') return this.#dispatch(onEvent);
    const colon = line.indexOf(':');
    if (colon === 0) return undefined; // a comment: the heartbeat
    const field = colon < 0 ? line : line.slice(0, colon);
    let value = colon < 0 ? '' : line.slice(colon + 1);
    if (value.startsWith(' ')) value = value.slice(1);
    if (field === 'data') this.#data.push(value);
    else if (field === 'event') this.#type = value;
    else if (field === 'id' && !value.includes('\0')) this.#pendingId = value;
    return undefined;
  }

  #dispatch(onEvent) {
    this.lastId = this.#pendingId;
    const event = { id: this.lastId, type: this.#type || 'message', data: this.#data.join('\n') };
    const complete = this.#data.length > 0;
    this.#data = [];
    this.#type = '';
    if (complete) onEvent(event);
  }
}

const firstRetry = 400; // milliseconds before the first attempt to connect again
const lastRetry = 5_000;
const silence = 40_000; // heartbeats come every 15 s: after this long the line is dead

/**
 * A stream of events at a URL. It connects, reconnects with Last-Event-ID after any
 * loss, and ends when the server says so with 204, or with an error status that a
 * repetition cannot mend.
 *
 * Handlers: onEvent(event, id), onOpen(resumed), onLost(), onEnd(problem or null).
 */
export class EventStream {
  #url;
  #handlers;
  #lastId = '';
  #life = null; // from open to close
  #wake = null;

  constructor(url, handlers) {
    this.#url = url;
    this.#handlers = handlers;
  }

  /** Connects, behind the last event seen so far. */
  open() {
    if (this.#life) return;
    this.#life = new AbortController();
    this.#run(this.#life.signal);
  }

  /** Disconnects; open connects again. */
  close() {
    this.#life?.abort();
    this.#life = null;
    this.#wake?.();
  }

  /** Tries at once instead of waiting for the next attempt. */
  hurry() {
    this.#wake?.();
  }

  // Connects again and again, until the signal or the server ends it.
  async #run(signal) {
    for (let wait = firstRetry; ; wait = Math.min(wait * 2, lastRetry)) {
      let over = false;
      let problem = null;
      try {
        over = await this.#read(signal, () => { wait = firstRetry; });
      } catch (err) {
        problem = err instanceof Problem && err.status < 500 && err.status !== 429 ? err : null;
      }
      if (signal.aborted) return;
      if (over || problem) {
        this.close();
        this.#handlers.onEnd?.(problem);
        return;
      }
      this.#handlers.onLost?.();
      await this.#pause(wait * (0.75 + Math.random() / 2));
      if (signal.aborted) return;
    }
  }

  // Reads one connection to its end. Returns whether the stream itself is over.
  async #read(signal, onOpen) {
    const watchdog = new AbortController();
    const bark = () => watchdog.abort();
    let timer = setTimeout(bark, silence);
    const headers = { Accept: 'text/event-stream' };
    if (this.#lastId) headers['Last-Event-ID'] = this.#lastId;
    try {
      const response = await fetch(this.#url, {
        headers, cache: 'no-store', signal: AbortSignal.any([signal, watchdog.signal]),
      });
      if (response.status === 204) return true;
      if (!response.ok) throw await problemOf(response);
      onOpen();
      this.#handlers.onOpen?.(this.#lastId !== '');
      const parser = new EventParser();
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const { value, done } = await reader.read();
        if (done) return false;
        clearTimeout(timer);
        timer = setTimeout(bark, silence);
        parser.push(value, (event) => signal.aborted || this.#deliver(event));
      }
    } finally {
      clearTimeout(timer);
    }
  }

  // Hands an event on. A fault of the handler is no fault of the connection.
  #deliver({ id, data }) {
    if (id) this.#lastId = id;
    try {
      this.#handlers.onEvent(JSON.parse(data), id);
    } catch (err) {
      queueMicrotask(() => { throw err; });
    }
  }

  #pause(milliseconds) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, milliseconds);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}
