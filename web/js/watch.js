// One job under observation: its record, the text and the pictures it has made so far,
// and its pace. All figures come from the times of the events, so a page that was reloaded
// in the middle shows the same as one that was there from the beginning.

import { connection } from './connection.js';
import { EventStream } from './events.js';
import { jobPath, job as readJob, Problem } from './api.js';
import { store } from './store.js';
import { Transcript } from './transcript.js';

const terminal = new Set(['succeeded', 'failed', 'canceled']);

/** Whether a job has ended. */
export const ended = (job) => terminal.has(job.state);

/** Watches a job. Dispatches "change" after every event, and "end" once it has ended. */
export class Watch extends EventTarget {
  /** The job, or null until it is known. */
  job = null;
  /** Why the job cannot be watched, or null. */
  problem = null;

  /** The id of the job. */
  id;

  #stream = null;
  #closed = false;
  #texts = new Map(); // choice → Transcript
  #artifacts = []; // announced so far
  #preview = ''; // of the picture that is being made, as the URL of its data
  #first = null; // {time, step} of the first token
  #last = null; // of the latest one

  constructor(id) {
    super();
    this.id = id;
  }

  /** Begins. A job that runs, or that ended without a result, is read from its events. */
  async open() {
    try {
      this.job = store.job(this.id) ?? await readJob(this.id);
    } catch (err) {
      if (err instanceof Problem && err.status < 500) return this.#fail(err);
      // The stream below goes on trying, and its events carry the job.
    }
    if (this.#closed) return undefined;
    if (this.job) store.put(this.job);
    if (this.job?.state === 'succeeded') return this.#finish();
    this.#emit();
    this.#stream = new EventStream(jobPath(this.id, 'events'), {
      onEvent: (event) => this.#apply(event),
      onOpen: () => connection.restore(this.#stream),
      onLost: () => connection.drop(this.#stream),
      onEnd: (problem) => {
        connection.restore(this.#stream);
        if (problem && !this.job) this.#fail(problem);
        else this.#finish();
      },
    });
    this.#stream.open();
    return undefined;
  }

  /** Ends the observation; the job goes on. */
  close() {
    this.#closed = true;
    if (!this.#stream) return;
    this.#stream.close();
    connection.restore(this.#stream);
  }

  get running() {
    return this.job !== null && !ended(this.job);
  }

  /** The texts written so far, one a choice. */
  get texts() {
    const result = this.job?.result;
    if (result?.meta?.choices?.length > 1) {
      return [...result.meta.choices].sort((a, b) => a.index - b.index).map((choice) => choice.text);
    }
    if (result) return [result.text ?? ''];
    if (this.#texts.size === 0) return [''];
    return [...this.#texts.keys()].sort((a, b) => a - b).map((choice) => this.#texts.get(choice).text);
  }

  /** The artifacts that are ready. */
  get artifacts() {
    return this.job?.result?.artifacts ?? this.#artifacts;
  }

  /** What can be seen of the picture that is being made, as a URL, or ''. */
  get preview() {
    return this.running ? this.#preview : '';
  }

  /**
   * The pace: {rate} in tokens a second, {first} seconds to the first token, {step,
   * total, eta}; each null until it is known.
   */
  get pace() {
    const { job } = this;
    const meta = job?.result?.meta;
    const progress = job?.progress;
    return {
      rate: meta?.tokens_per_second ?? this.#rate(),
      first: meta?.time_to_first_token ?? this.#wait(),
      step: job?.result?.usage?.output_tokens ?? progress?.step ?? null,
      total: progress?.total ?? null,
      eta: progress?.eta ?? null,
    };
  }

  #rate() {
    const seconds = this.#last ? (this.#last.time - this.#first.time) / 1000 : 0;
    return seconds > 0.2 ? (this.#last.step - this.#first.step) / seconds : null;
  }

  #wait() {
    if (!this.#first || !this.job?.started) return null;
    return Math.max(0, (this.#first.time - Date.parse(this.job.started)) / 1000);
  }

  #apply(event) {
    if (event.job) {
      this.job = event.job;
      store.put(event.job);
    }
    if (event.type === 'started') {
      this.#first = null;
      this.#last = null;
      this.#artifacts = [];
      this.#preview = '';
    }
    if (event.preview) this.#preview = event.preview;
    if (event.artifact) {
      this.#artifacts = [...this.#artifacts, event.artifact];
      this.#preview = '';
    }
    if (event.progress && this.job) this.job = { ...this.job, progress: event.progress };
    if (event.delta) this.#place(event);
    if (this.job && ended(this.job)) {
      this.close();
      this.#finish();
    } else {
      this.#emit();
    }
  }

  #place({ delta, time, progress }) {
    const choice = delta.choice ?? 0;
    if (!this.#texts.has(choice)) this.#texts.set(choice, new Transcript());
    this.#texts.get(choice).place(delta.text, delta.offset);
    if (!progress) return;
    this.#last = { time: Date.parse(time), step: progress.step };
    this.#first ??= this.#last;
  }

  #fail(problem) {
    this.problem = problem;
    this.#finish();
  }

  #finish() {
    this.#emit();
    this.dispatchEvent(new Event('end'));
  }

  #emit() {
    this.dispatchEvent(new Event('change'));
  }
}
