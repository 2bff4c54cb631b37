// <job-list>: the jobs, newest first, live, by state, page by page.

import { jobs as readJobs } from '../api.js';
import { button, h } from '../dom.js';
import { ago } from '../format.js';
import { t } from '../i18n.js';
import { recall, remember } from '../settings.js';
import { store } from '../store.js';
import { explain, makesPictures, problemBox, stateChip, taskTitle } from './parts.js';
import { View } from './view.js';

const states = ['queued', 'running', 'succeeded', 'failed', 'canceled'];
const pageSize = 30;
const clock = 30_000; // milliseconds between two looks at how long ago a job was

class JobList extends View {
  #filter = '';
  #floor = ''; // id of the oldest job loaded; '' when all are
  #loaded = false;
  #timer = null;
  #rows = new Map(); // id → {row, key}

  /** Marks the job that is open. */
  set current(id) {
    this.dataset.current = id;
    for (const [key, { row }] of this.#rows) mark(row, key === id);
  }

  mount() {
    this.#filter = recall('filter', '');
    this.#rows.clear();
    this.list = h('ol', { class: 'jobs', role: 'list' });
    this.note = h('div', { class: 'jobs-note' });
    this.more = button({ label: t('jobs.more'), hidden: true, onClick: () => this.#load(this.#floor) });
    this.replaceChildren(this.#filters(), this.list, this.note, this.more);
    this.listen(store, 'jobs', () => this.#draw());
    this.listen(store, 'opened', () => this.#load(''));
    this.listen(store, 'catalog', () => { this.#rows.clear(); this.#draw(); });
    this.#timer = setInterval(() => this.#draw(), clock);
    this.#load('');
  }

  unmount() {
    clearInterval(this.#timer);
  }

  #filters() {
    const choice = (value, label) => {
      const input = h('input', { type: 'radio', name: 'state', value, checked: value === this.#filter });
      return h('label', { class: 'filter', 'data-state': value }, input, h('span', {}, label));
    };
    return h('fieldset', { class: 'filters', on: { change: (event) => this.#choose(event.target.value) } },
      h('legend', { class: 'visually-hidden' }, t('jobs.filter')),
      choice('', t('jobs.filter.all')), states.map((state) => choice(state, t(`state.${state}`))));
  }

  #choose(filter) {
    this.#filter = filter;
    remember('filter', filter);
    this.#loaded = false;
    this.#load('');
  }

  // Reads the page behind the job of id after, or the first one.
  async #load(after) {
    const filter = this.#filter;
    try {
      const page = await readJobs({ state: filter, after, limit: pageSize });
      if (filter !== this.#filter) return;
      if (after === '' && filter === '') this.#forget(page.data, page.has_more);
      this.#floor = page.has_more ? page.data.at(-1).id : '';
      this.#loaded = true;
      store.put(...page.data);
      this.#draw();
    } catch (err) {
      this.note.replaceChildren(problemBox(t('jobs.title'), explain(err)));
    }
  }

  // Drops what the server does not list any more between the newest and the oldest of
  // its first page. Pages by state do not tell: a job may just have changed its state.
  #forget(data, hasMore) {
    if (data.length === 0) return;
    const ids = new Set(data.map(({ id }) => id));
    const [newest, oldest] = [data[0].id, hasMore ? data.at(-1).id : ''];
    for (const { id } of store.list((job) => job.id <= newest && job.id >= oldest)) {
      if (!ids.has(id)) store.drop(id);
    }
  }

  #shown(job) {
    return (this.#filter === '' || job.state === this.#filter) && job.id >= this.#floor;
  }

  #draw() {
    const shown = store.list((job) => this.#shown(job));
    const rows = shown.map((job) => this.#row(job));
    const kept = new Set(shown.map(({ id }) => id));
    for (const id of this.#rows.keys()) if (!kept.has(id)) this.#rows.delete(id);
    reconcile(this.list, rows);
    this.more.hidden = this.#floor === '';
    this.note.replaceChildren(...(shown.length === 0 && this.#loaded ? this.#empty() : []));
  }

  #empty() {
    if (this.#filter !== '') return [h('p', { class: 'hint' }, t('jobs.none'))];
    return [h('strong', {}, t('jobs.empty')), h('p', { class: 'hint' }, t('jobs.empty.detail'))];
  }

  // The row of a job; the same element as long as nothing that it shows has changed.
  #row(job) {
    const when = ago(job.created);
    const key = `${job.revision} ${when}`;
    let entry = this.#rows.get(job.id);
    if (entry?.key !== key) {
      entry = { row: entry?.row ?? h('li', {}), key };
      fill(entry.row, job, when);
      mark(entry.row, job.id === this.dataset.current);
      this.#rows.set(job.id, entry);
    }
    const bar = entry.row.querySelector('progress');
    if (bar && job.progress?.total) {
      bar.max = job.progress.total;
      bar.value = Math.min(job.progress.step, job.progress.total);
    }
    return entry.row;
  }
}

function fill(row, job, when) {
  const picture = thumbnail(job);
  const link = h('a', { href: `#/jobs/${job.id}`, class: `job-link${picture ? ' pictured' : ''}` },
    picture,
    h('span', { class: 'job-name' }, nameOf(job)),
    h('span', { class: 'job-meta' }, stateChip(job.state),
      h('span', {}, taskTitle(store.task(job.task) ?? { name: job.task })), h('time', { dateTime: job.created }, when)),
    job.state === 'running' && h('progress', { class: 'bar', 'aria-label': t('stat.progress') }));
  const focused = row.contains(document.activeElement);
  row.replaceChildren(link);
  if (focused) link.focus({ preventScroll: true });
}

function mark(row, current) {
  if (current) row.firstElementChild.setAttribute('aria-current', 'page');
  else row.firstElementChild.removeAttribute('aria-current');
}

// A small view of what a job made, if it is a picture.
function thumbnail(job) {
  const artifact = makesPictures(job) && job.result?.artifacts?.[0];
  return artifact && h('img', { class: 'thumbnail', src: artifact.url, alt: '', loading: 'lazy', decoding: 'async', width: 48, height: 48 });
}

const nameOf = (job) => (job.input.prompt ?? job.input.messages?.at(-1)?.content ?? '').trim().slice(0, 160)
  || taskTitle(store.task(job.task) ?? { name: job.task });

// Makes rows the children of list, moving only those that are not in place.
function reconcile(list, rows) {
  rows.forEach((row, i) => {
    if (list.children[i] !== row) list.insertBefore(row, list.children[i] ?? null);
  });
  while (list.children.length > rows.length) list.lastElementChild.remove();
}

customElements.define('job-list', JobList);
