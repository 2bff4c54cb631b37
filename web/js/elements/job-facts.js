// <job-facts>: everything that is recorded about a job: with what it was asked, how
// long it took, by whom it was done.

import { h } from '../dom.js';
import { between, duration, moment, number } from '../format.js';
import { t, tOr } from '../i18n.js';
import { store } from '../store.js';
import { taskTitle } from './parts.js';

const written = new Set(['prompt', 'messages']);

class JobFacts extends HTMLElement {
  #open = false;

  /** Shows the facts of a job and its pace. */
  show(job, pace) {
    const details = h('details', { class: 'facts', open: this.#open, on: { toggle: () => { this.#open = details.open; } } },
      h('summary', {}, t('job.facts')),
      list(facts(job, pace)),
      h('h3', {}, t('composer.parameters')),
      list(parameters(job)),
      job.failures?.length > 0 && h('h3', {}, t('job.failures')),
      h('ul', {}, (job.failures ?? []).map(({ attempt, worker, reason }) => h('li', {}, t('job.failure', { n: attempt, worker, reason })))));
    this.replaceChildren(details);
  }
}

const list = (entries) => h('dl', {}, entries
  .filter(([, value]) => value !== null && value !== undefined && value !== false && value !== '')
  .map(([term, value]) => h('div', {}, h('dt', {}, term), h('dd', {}, value))));

function facts(job, pace) {
  const { usage, meta } = job.result ?? {};
  const waited = between(job.created, job.started);
  const ran = between(job.started, job.finished);
  return [
    [t('fact.seed'), String(job.seed)],
    [t('fact.model'), meta?.model ?? job.model],
    [t('fact.task'), taskTitle(store.task(job.task) ?? { name: job.task })],
    [t('fact.created'), moment(job.created)],
    [t('fact.waited'), waited === null ? null : duration(Math.max(0, waited))],
    [t('fact.first'), pace.first === null ? null : duration(pace.first)],
    [t('fact.ran'), ran === null ? null : duration(Math.max(0, ran))],
    [t('fact.rate'), pace.rate === null ? null : t('stat.rate', { n: number(pace.rate, 1) })],
    [t('fact.tokens'), usage?.output_tokens !== undefined && t('fact.tokens.value', { in: number(usage.input_tokens ?? 0), out: number(usage.output_tokens ?? 0) })],
    [t('fact.finish'), meta?.finish_reason && tOr(`fact.finish.${meta.finish_reason}`, meta.finish_reason)],
    [t('fact.dropped'), meta?.dropped_messages],
    [t('fact.attempts'), job.attempts > 1 ? job.attempts : null],
    [t('fact.priority'), job.priority === 'normal' ? null : job.priority],
    [t('fact.tags'), job.tags?.join(', ')],
    [t('fact.worker'), job.worker],
    [t('fact.retry_of'), job.retry_of && h('a', { href: `#/jobs/${job.retry_of}` }, h('code', {}, job.retry_of))],
    [t('fact.id'), h('code', {}, job.id)],
  ];
}

// The parameters as the model used them, or until it has told, as they were asked.
function parameters(job) {
  const used = job.result?.meta?.parameters ?? job.input;
  return Object.entries(used)
    .filter(([name]) => !written.has(name))
    .map(([name, value]) => [tOr(`param.${name}`, name), typeof value === 'string' ? value : JSON.stringify(value)]);
}

customElements.define('job-facts', JobFacts);
