// What is said to people who listen to the page: whole sentences now and then, not
// every token, in one polite live region.

import { number } from './format.js';
import { t } from './i18n.js';

const pause = 4_000; // milliseconds between two parts of a text

let region = null;

/** Says text when the listener is free. */
export function announce(text) {
  region ??= document.getElementById('announcer');
  region.textContent = text;
}

/** Says how a job ended. */
export function announceEnd(job) {
  if (job.state === 'succeeded') announce(done(job.result ?? {}));
  if (job.state === 'failed') announce(t('announce.failed', { detail: job.problem?.detail }));
  if (job.state === 'canceled') announce(t('announce.canceled'));
}

const done = ({ artifacts, usage }) => (artifacts?.length > 0
  ? t('announce.done.pictures', { n: number(artifacts.length) })
  : t('announce.done', { n: number(usage?.output_tokens ?? 0) }));

/** Where the last whole sentence of text ends, or from if none does behind it. */
export function sentenceEnd(text, from) {
  const part = text.slice(from);
  const match = /^[\s\S]*(?:[.!?…]["'”’)]*(?=\s)|[。！？；][”’」』]*|\n)/u.exec(part);
  return match ? from + match[0].length : from;
}

/** Reads a growing text aloud in whole sentences. */
export class Narrator {
  #said = 0;
  #next = 0;

  /** Says what is new, if a sentence of it is complete and the last one is a while ago. */
  follow(text, now = performance.now()) {
    if (text.length < this.#said) this.#said = 0;
    if (now < this.#next) return;
    const end = sentenceEnd(text, this.#said);
    if (end === this.#said) return;
    announce(text.slice(this.#said, end));
    this.#said = end;
    this.#next = now + pause;
  }
}
