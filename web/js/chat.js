// The conversation in hand. It lives in this browser; each answer is a job that was
// given the whole history, so any chat job can be taken up again as a conversation.

import { recall, remember } from './settings.js';

/**
 * A list of turns {role, content, job?, state?, problem?}. An answer of the assistant names its
 * job, and its state is pending until the job has ended, then the job's state.
 */
export class Conversation extends EventTarget {
  turns;
  #name;

  constructor(name = 'conversation') {
    super();
    this.#name = name;
    this.turns = recall(name, []);
  }

  /** The turn that is being answered, or undefined. */
  get pending() {
    return this.turns.find((turn) => turn.state === 'pending');
  }

  /**
   * The messages to send so that the model answers text, after what was said before.
   * Without text, it answers the last message again.
   */
  messages(text, system) {
    const before = text === '' ? this.#withoutAnswer() : this.turns;
    return [
      ...(system === '' ? [] : [{ role: 'system', content: system }]),
      ...before.filter((turn) => turn.content !== '').map(({ role, content }) => ({ role, content })),
      ...(text === '' ? [] : [{ role: 'user', content: text }]),
    ];
  }

  /** Adds what was said and the place of the answer that the job will give; without text, a new answer. */
  ask(text, job) {
    if (text === '') this.turns = this.#withoutAnswer();
    else this.turns.push({ role: 'user', content: text });
    this.turns.push({ role: 'assistant', content: '', job, state: 'pending' });
    this.#keep();
  }

  #withoutAnswer() {
    return this.turns.at(-1)?.role === 'assistant' ? this.turns.slice(0, -1) : this.turns;
  }

  /** Notes how the job ended, what it wrote until then, and why it failed. */
  settle(job, state, content, problem) {
    const turn = this.turns.find((candidate) => candidate.job === job);
    if (!turn || turn.state === state) return;
    Object.assign(turn, { state, content, problem });
    this.#keep();
  }

  /** Takes up the conversation that a chat job was part of. */
  resume(job) {
    this.turns = job.input.messages.filter(({ role }) => role !== 'system').map(({ role, content }) => ({ role, content }));
    const text = job.result?.text ?? '';
    if (text) this.turns.push({ role: 'assistant', content: text, job: job.id, state: job.state });
    this.#keep();
  }

  clear() {
    this.turns = [];
    this.#keep();
  }

  #keep() {
    remember(this.#name, this.turns);
    this.dispatchEvent(new Event('change'));
  }
}

/** The page's conversation. */
export const conversation = new Conversation();
