// <job-view>: one job: its text or pictures as they come, how it fares, and what can
// be done with it. Sends "shown" with the job in each of its states, "drawn" when its
// text has grown, "adopt" to use its settings, "resume" to go on with its conversation.

import { announceEnd, Narrator } from '../announce.js';
import { button, downloadText, h } from '../dom.js';
import { ago } from '../format.js';
import { t } from '../i18n.js';
import { store } from '../store.js';
import { ended, Watch } from '../watch.js';
import './job-facts.js';
import { copyButton, deleteButton, explain, makesPictures, paceLine, problemBox, stateChip, taskTitle } from './parts.js';
import './picture-grid.js';
import './stream-text.js';
import { View } from './view.js';

class JobView extends View {
  #watch = null;
  #narrator = new Narrator();
  #frame = 0;
  #revision = -1;
  #texts = [];

  mount() {
    this.head = h('header', { class: 'job-head' });
    this.bar = h('progress', { class: 'bar', 'aria-label': t('stat.progress') });
    this.pace = h('p', { class: 'pace' });
    this.page = h('div', { class: 'page' });
    this.trouble = h('div', {});
    this.facts = h('job-facts');
    this.replaceChildren(h('article', { class: 'job' }, this.head, this.page, this.trouble,
      h('div', { class: 'fare' }, this.bar, this.pace), this.facts));
    this.#revision = -1;
    this.#texts = [];
    this.pictures = null;
    this.#watch = new Watch(this.dataset.id);
    this.listen(this.#watch, 'change', () => this.#later());
    this.listen(this.#watch, 'end', () => this.#watch.job && announceEnd(this.#watch.job));
    this.#watch.open();
  }

  unmount() {
    this.#watch.close();
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
  }

  // Draws once a frame, however many tokens came.
  #later() {
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      this.#draw();
    });
  }

  #draw() {
    const { job, problem } = this.#watch;
    if (problem) return this.#missing(problem);
    if (!job) return undefined;
    if (job.revision !== this.#revision) this.#drawState(job);
    if (makesPictures(job)) this.#drawPictures(job);
    else this.#drawText(job);
    const { pace, running } = this.#watch;
    this.pace.textContent = this.#paceText(job, pace);
    this.bar.hidden = !running;
    if (pace.total && job.state === 'running') {
      this.bar.max = pace.total;
      this.bar.value = Math.min(pace.step, pace.total);
    } else {
      this.bar.removeAttribute('value');
    }
    this.#revision = job.revision;
    if (running && !makesPictures(job)) this.send('drawn');
    return undefined;
  }

  #paceText(job, pace) {
    if (job.state === 'queued') return t('job.waiting');
    const begun = makesPictures(job) ? pace.step : pace.first;
    if (job.state === 'running' && begun === null) return t(makesPictures(job) ? 'job.loading' : 'job.starting');
    return paceLine(pace, this.#watch.running, makesPictures(job) ? 'steps' : 'tokens');
  }

  #drawState(job) {
    const when = h('time', { dateTime: job.created }, ago(job.created));
    this.head.replaceChildren(
      h('h1', { class: 'visually-hidden' }, titleOf(job)),
      h('p', { class: 'job-title' }, stateChip(job.state), h('span', {}, taskTitle(store.task(job.task) ?? { name: job.task })), when),
      h('div', { class: 'actions' }, this.#actions(job)));
    this.trouble.replaceChildren(...(job.problem ? [problemBox(t('problem.job'), job.problem)] : []));
    this.facts.show(job, this.#watch.pace);
    document.title = `${titleOf(job)} · ${t('app.name')}`;
    this.send('shown', { job });
  }

  #actions(job) {
    const act = (work) => async () => {
      try {
        await work();
      } catch (err) {
        this.trouble.replaceChildren(problemBox(t('problem.job'), explain(err)));
      }
    };
    const text = () => this.#whole(job);
    return [
      written(job) && copyButton(text),
      written(job) && button({ icon: 'download', label: t('job.download'), onClick: () => downloadText(`${job.id}.txt`, text()) }),
      !ended(job) && button({ icon: 'stop', label: t('job.cancel'), onClick: act(() => store.cancel(job.id)) }),
      (job.state === 'failed' || job.state === 'canceled') && button({
        icon: 'retry', label: t('job.retry'), onClick: act(async () => this.send('submitted', { job: await store.retry(job.id) })),
      }),
      job.input.messages
        ? ended(job) && button({ icon: 'chat', label: t('job.continue'), onClick: () => this.send('resume', { job }) })
        : button({ icon: 'reuse', label: t('job.reuse'), onClick: () => this.send('adopt', { job }) }),
      ended(job) && deleteButton(act(async () => { await store.remove(job.id); location.hash = '#/'; })),
    ].filter(Boolean);
  }

  // What the page shows as text: the beginning that was given, and what came of it.
  #whole(job) {
    return this.#watch.texts.map((text) => lead(job) + text).join('\n\n');
  }

  #drawText(job) {
    const { texts, running } = this.#watch;
    if (this.#texts.length !== texts.length || this.page.childElementCount === 0) {
      this.#texts = texts.map(() => h('stream-text'));
      this.page.replaceChildren(...messages(job), ...this.#texts.map((element, i) => h('section', { class: 'version' },
        texts.length > 1 && h('h2', {}, t('job.version', { n: i + 1 })), element)));
    }
    texts.forEach((text, i) => {
      this.#texts[i].lead = lead(job);
      this.#texts[i].update(text, running);
    });
    const empty = !running && texts.every((text) => text === '');
    this.page.classList.toggle('empty', empty);
    this.page.dataset.empty = empty ? t('job.nothing') : '';
    if (running) this.#narrator.follow(texts[0]);
  }

  #drawPictures(job) {
    if (!this.pictures) {
      this.pictures = h('picture-grid');
      this.page.classList.add('pictures');
      this.page.replaceChildren(...[job.input.prompt && h('p', { class: 'said' }, job.input.prompt), this.pictures].filter(Boolean));
    }
    this.pictures.update(this.#watch);
  }

  #missing(problem) {
    const gone = problem.status === 404;
    this.replaceChildren(h('div', { class: 'empty-state' },
      h('h2', {}, gone ? t('job.missing') : t('problem.job')),
      h('p', {}, gone ? t('job.missing.detail') : problem.message),
      h('a', { class: 'button primary', href: '#/' }, t('app.home'))));
  }
}

// Whether a job has a text to take away.
const written = (job) => job.state === 'succeeded' && !makesPictures(job);

// The beginning that the model continues, unless the result repeats it itself.
const lead = (job) => (job.input.echo ? '' : job.input.prompt ?? '');

const titleOf = (job) => (job.input.prompt ?? job.input.messages?.at(-1)?.content ?? job.task).trim().slice(0, 60);

// The messages that a chat job answers.
const messages = (job) => (job.input.messages ?? []).map(({ role, content }) =>
  h('section', { class: 'turn', 'data-role': role },
    h('h2', {}, t(role === 'user' ? 'chat.you' : role === 'system' ? 'chat.system' : 'chat.model')),
    h('p', { class: 'said' }, content)));

customElements.define('job-view', JobView);
