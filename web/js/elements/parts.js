// Small parts that several elements show: the chip of a state, the pace of a job,
// a problem in plain words, buttons that confirm.

import { Problem, Unreachable } from '../api.js';
import { button, copyText, h, icon } from '../dom.js';
import { duration, number } from '../format.js';
import { t, tOr } from '../i18n.js';

/** A state as a coloured chip. */
export const stateChip = (state) => h('span', { class: 'chip', 'data-state': state }, t(`state.${state}`));

/** A task's name in the studio's language. */
export const taskTitle = (task) => tOr(`task.${task.name}`, task.title ?? task.name);

/** Whether pictures are what a job makes. */
export const makesPictures = (job) => job.task.startsWith('image.');

/** The pace of a job in one line, in tokens or steps; while it runs with what is left. */
export function paceLine({ rate, first, step, total, eta }, running, unit = 'tokens') {
  const parts = [];
  if (running && step !== null && total) parts.push(t(`stat.of.${unit}`, { n: number(step), total: number(total) }));
  else if (step !== null) parts.push(t(`stat.${unit}`, { n: number(step) }));
  if (rate !== null) parts.push(t('stat.rate', { n: number(rate, rate < 10 ? 1 : 0) }));
  if (first !== null) parts.push(t('stat.first', { d: duration(first) }));
  if (running && eta) parts.push(t('stat.left', { d: duration(eta) }));
  return parts.join(' · ');
}

/** A problem as a box; {code, detail, errors} as jobs and the API state it. */
export function problemBox(title, { detail, errors = [] }) {
  return h('div', { class: 'problem', role: 'alert' }, icon('alert'),
    h('div', {},
      h('strong', {}, title),
      h('p', {}, detail),
      errors.length > 0 && h('ul', {}, errors.map((error) => h('li', {}, h('code', {}, error.pointer), ' ', error.detail)))));
}

/** What to say about an error of the API; other errors are thrown on. */
export function explain(err) {
  if (err instanceof Unreachable) return { detail: t('problem.unreachable') };
  if (err instanceof Problem) return { detail: err.message, errors: err.errors };
  throw err;
}

/** A button that copies what text() returns, and says so. */
export function copyButton(text) {
  const self = button({ icon: 'copy', label: t('job.copy'), onClick: async () => {
    await copyText(text());
    self.replaceChildren(icon('check'), h('span', {}, t('job.copied')));
    setTimeout(() => self.replaceChildren(icon('copy'), h('span', {}, t('job.copy'))), 1600);
  } });
  return self;
}

/** A delete button that asks once more before it acts. */
export function deleteButton(act) {
  const rest = () => { self.classList.remove('danger'); self.replaceChildren(icon('trash'), h('span', {}, t('job.delete'))); };
  const self = button({ icon: 'trash', label: t('job.delete'), onClick: () => {
    if (self.classList.contains('danger')) return act();
    self.classList.add('danger');
    self.replaceChildren(icon('trash'), h('span', {}, t('job.delete.confirm')));
    setTimeout(rest, 4000);
    return undefined;
  } });
  return self;
}
