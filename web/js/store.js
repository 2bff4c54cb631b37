// What the studio knows of the server: the tasks and models on offer, and the jobs,
// kept current by the stream of all events. Elements listen; nobody polls.
//
// Events: "opened" when the stream is heard (again), "catalog" when tasks or models
// were read, "jobs" when any job changed.

import * as api from './api.js';
import { connection } from './connection.js';
import { EventStream } from './events.js';
import { session } from './session.js';

// Tasks in the order in which people look for them; others follow as the server lists them.
const order = ['text.complete', 'text.chat', 'image.generate', 'image.edit', 'image.inpaint', 'image.variation', 'image.upscale'];

const tellEvery = 50; // milliseconds
const catalogRetry = 2_000; // milliseconds until a server without workers is asked again
const modelRetry = 15_000; // until one is that has no model for something

class Store extends EventTarget {
  tasks = [];
  models = [];
  ready = false; // whether tasks and models have been read once

  #jobs = new Map();
  #deleted = new Set();
  #telling = null; // timer of the next "jobs"
  #asking = null; // timer of the next look at the catalog

  /** Begins to follow the server, as long as the page is seen. */
  follow() {
    const stream = new EventStream('/v1/events', {
      onEvent: (event) => this.#apply(event),
      onOpen: () => {
        connection.restore(stream);
        this.readCatalog();
        this.dispatchEvent(new Event('opened'));
      },
      onLost: () => connection.drop(stream),
      onEnd: () => connection.restore(stream),
    });
    stream.open();
    session.addEventListener('opened', () => { // it ended when the server asked for a key
      if (!document.hidden) stream.open();
      this.readCatalog();
    });
    // A browser opens six connections to a server at most, so pages in the
    // background leave theirs to the one in front and catch up when seen again.
    document.addEventListener('visibilitychange', () => {
      if (document.hidden) {
        stream.close();
        connection.restore(stream);
      } else {
        stream.open();
      }
    });
  }

  /** Reads what can be made and by which models, until workers have told all that is missing. */
  async readCatalog() {
    let tasks = [];
    let models = [];
    try {
      [tasks, models] = await Promise.all([api.tasks(), api.models()]);
      this.#offer(tasks, models);
    } catch (err) {
      if (!(err instanceof api.Unreachable) && !(err instanceof api.Problem)) throw err;
    }
    clearTimeout(this.#asking);
    const none = tasks.length === 0 || models.length === 0;
    if (none || this.tasks.some((task) => this.lacksModel(task))) {
      this.#asking = setTimeout(() => this.readCatalog(), none ? catalogRetry : modelRetry);
    }
  }

  // Workers that are only starting again do not empty the page.
  #offer(tasks, models) {
    this.ready = true;
    if (tasks.length > 0) {
      const drawn = tasks.filter(hasForm);
      const known = order.map((name) => drawn.find((task) => task.name === name)).filter(Boolean);
      this.tasks = [...known, ...drawn.filter((task) => !known.includes(task))];
      if (models.length > 0) this.models = models;
    }
    this.dispatchEvent(new Event('catalog'));
  }

  /** The task of that name, or undefined. */
  task(name) {
    return this.tasks.find((task) => task.name === name);
  }

  /** The models that serve a task. */
  modelsFor(task) {
    return this.models.filter((model) => model.tasks?.includes(task));
  }

  /** Whether a task that only models can do has none. */
  lacksModel(task) {
    return task.schema.properties?.prompt !== undefined && this.modelsFor(task.name).length === 0;
  }

  /** The job, as far as it is known here. */
  job(id) {
    return this.#jobs.get(id);
  }

  /** The known jobs that keep(job) accepts, newest first. */
  list(keep) {
    return [...this.#jobs.values()].filter(keep).sort((a, b) => (a.id < b.id ? 1 : -1));
  }

  /** Takes in jobs as the server told them; an older revision never replaces a newer. */
  put(...jobs) {
    let changed = false;
    for (const job of jobs) {
      const known = this.#jobs.get(job.id);
      if (this.#deleted.has(job.id) || (known && known.revision > job.revision)) continue;
      this.#jobs.set(job.id, { ...job, progress: job.progress ?? known?.progress });
      changed = true;
    }
    if (changed) this.#changed();
  }

  /** Forgets a job that the server has deleted. */
  drop(id) {
    this.#deleted.add(id);
    if (this.#jobs.delete(id)) this.#changed();
  }

  /** Submits a job and returns it. */
  async submit(body) {
    return this.#known(await api.submit(body));
  }

  /** Cancels a job and returns it as it ended; one that had ended already stays so. */
  async cancel(id) {
    try {
      return this.#known(await api.cancel(id));
    } catch (err) {
      if (err instanceof api.Problem && err.status === 409) return this.#known(await api.job(id));
      throw err;
    }
  }

  /** Submits a failed or canceled job's request again and returns the new job. */
  async retry(id) {
    return this.#known(await api.retry(id));
  }

  /** Deletes an ended job. */
  async remove(id) {
    await api.remove(id);
    this.drop(id);
  }

  #known(job) {
    this.put(job);
    return job;
  }

  #apply(event) {
    if (event.job) {
      this.put(event.job);
      return;
    }
    const job = this.#jobs.get(event.job_id);
    if (!job || !event.progress || job.state !== 'running') return;
    job.progress = event.progress;
    this.#changed();
  }

  // Tells in short intervals, however many events come.
  #changed() {
    if (this.#telling) return;
    this.#telling = setTimeout(() => {
      this.#telling = null;
      this.dispatchEvent(new Event('jobs'));
    }, tellEvery);
  }
}

/** The page's store. */
export const store = new Store();

// Whether the studio has a form for a task: those that begin with a prompt, a
// conversation or a picture. Others, as text.embed, are for programs, and so is
// image.adjust, whose input is itself a program.
function hasForm({ schema }) {
  const { prompt, messages, image, operations } = schema.properties ?? {};
  return (prompt ?? messages ?? image) !== undefined && operations === undefined;
}
