// <studio-app>: the page as a whole: header, stage, composer, jobs, and the routes
// between them. Routes: #/new/<task> begins something, #/jobs/<id> shows a job.

import { logout } from '../api.js';
import { conversation } from '../chat.js';
import { button, h, icon } from '../dom.js';
import { examplesFor } from '../examples.js';
import { language, speak, t, tOr } from '../i18n.js';
import { recall, remember } from '../settings.js';
import { session } from '../session.js';
import { store } from '../store.js';
import { ended } from '../watch.js';
import './chat-view.js';
import './connection-banner.js';
import './job-list.js';
import './job-view.js';
import { taskTitle } from './parts.js';
import './prompt-composer.js';
import { View } from './view.js';

const narrow = matchMedia('(max-width: 60rem)');
const taskIcons = { 'text.complete': 'write', 'text.chat': 'chat', 'image.generate': 'picture' };
const nearEnd = 120; // pixels from the end within which the stage follows the text

class StudioApp extends View {
  #route = null;
  #following = true;

  mount() {
    document.documentElement.lang = language() === 'zh' ? 'zh-Hans' : 'en';
    this.nav = h('nav', { class: 'tasks', 'aria-label': t('app.tasks') });
    this.stage = h('main', { class: 'stage', id: 'stage', tabIndex: 0 });
    this.composer = h('prompt-composer');
    this.jobs = h('job-list');
    this.aside = h('aside', { class: 'side', id: 'side', 'aria-label': t('jobs.title') },
      h('header', { class: 'side-head' }, h('h2', {}, t('jobs.title')),
        button({ icon: 'close', title: t('jobs.close'), kind: 'bare narrow-only', onClick: () => this.aside.hidePopover() })),
      this.jobs);
    const centre = h('div', { class: 'centre' }, this.stage, this.composer);
    this.replaceChildren(this.#header(), h('connection-banner'), h('div', { class: 'columns' }, centre, this.aside));
    this.#route = null;
    this.#listen();
    this.#dock();
    this.#navigate();
  }

  #listen() {
    this.listen(window, 'hashchange', () => this.#navigate());
    this.listen(narrow, 'change', () => this.#dock());
    this.listen(store, 'catalog', () => this.#catalogChanged());
    this.listen(session, 'known', () => this.#drawExit());
    this.listen(session, 'opened', () => this.#navigate());
    this.listen(this, 'submitted', ({ detail }) => this.#submitted(detail.job));
    this.listen(this, 'running', ({ detail }) => { this.composer.running = detail.job; });
    this.listen(this, 'shown', ({ detail }) => this.#shown(detail.job));
    this.listen(this, 'adopt', ({ detail }) => this.#adopt(detail.job));
    this.listen(this, 'resume', ({ detail }) => this.#resume(detail.job));
    this.listen(this, 'again', () => this.composer.answerAgain());
    this.listen(this, 'task', ({ detail }) => this.#turnTo(detail.name));
    this.listen(this, 'generation', ({ detail }) => this.#adopt(detail));
    this.listen(this, 'dragover', (event) => pictureOver(event) && event.preventDefault());
    this.listen(this, 'drop', (event) => this.#drop(event));
    this.listen(this, 'drawn', () => this.#follow());
    this.listen(conversation, 'change', () => this.#conversationChanged());
    this.listen(this.stage, 'scroll', () => {
      this.#following = this.stage.scrollHeight - this.stage.scrollTop - this.stage.clientHeight < nearEnd;
    });
  }

  #header() {
    const other = language() === 'zh' ? 'en' : 'zh';
    const skip = (event) => { event.preventDefault(); this.composer.focusPrompt(); };
    this.exit = button({ icon: 'exit', kind: 'quiet', onClick: async () => { await logout(); location.reload(); } });
    this.#drawExit();
    return h('header', { class: 'top' },
      h('a', { class: 'skip', href: '#prompt', on: { click: skip } }, t('app.skip')),
      h('a', { class: 'brand', href: '#/', 'aria-label': t('app.name') },
        h('img', { src: 'icon.svg', alt: '', width: 28, height: 28 }), h('span', {}, t('app.name'))),
      this.nav,
      button({
        icon: 'globe', label: t('app.language'), title: t('app.language.title'), lang: other, kind: 'quiet language',
        onClick: () => { speak(other); this.replaceWith(h('studio-app')); },
      }),
      this.exit,
      button({ icon: 'jobs', title: t('jobs.open'), kind: 'quiet narrow-only', onClick: () => { this.#dock(); this.aside.togglePopover(); } }));
  }

  // Where no key is wanted there is nothing to leave.
  #drawExit() {
    const title = t('key.exit', { tenant: session.tenant });
    this.exit.hidden = !session.keyed;
    this.exit.title = title;
    this.exit.setAttribute('aria-label', title);
  }

  // On a narrow screen the jobs are a drawer over the page.
  #dock() {
    this.aside.popover = narrow.matches ? 'auto' : null;
  }

  #catalogChanged() {
    this.#drawTasks();
    const begun = this.#route.job ? undefined : store.task(this.#route.task);
    if (this.#route.waiting) this.#navigate();
    else if (begun && (this.stage.querySelector('.hero .fault') || store.lacksModel(begun))) this.#drawBeginning(begun);
    else if (this.#route.job && store.job(this.#route.job)) this.#shown(store.job(this.#route.job));
  }

  #drawTasks() {
    const current = pageOf(this.#route?.task ?? '');
    this.nav.replaceChildren(...store.tasks.filter(({ name }) => pageOf(name) === name).map((task) => h('a', {
      href: `#/new/${task.name}`, title: task.description, 'aria-current': task.name === current ? 'page' : undefined,
    }, icon(taskIcons[task.name] ?? 'task'), h('span', {}, taskTitle(task)))));
  }

  // Goes on with another task in the same composer; a job in view stays.
  #turnTo(name) {
    const task = store.task(name);
    if (!task) return;
    if (this.#route.job) this.composer.task = task;
    else location.hash = `#/new/${name}`;
  }

  // A picture that is dropped where none is asked for begins a new one.
  #drop(event) {
    if (!pictureOver(event)) return;
    event.preventDefault();
    const task = store.tasks.find(({ name }) => name.startsWith('image.'));
    if (!task) return;
    if (this.composer.hidden || !this.composer.drop(event)) {
      this.#begin(task);
      this.composer.drop(event);
      history.replaceState(null, '', `#/new/${task.name}`);
    }
  }

  #navigate() {
    const [, kind, name] = /^#\/(new|jobs)\/([^/]+)$/.exec(location.hash) ?? [];
    if (this.aside.matches(':popover-open')) this.aside.hidePopover();
    this.composer.running = null;
    this.#following = true;
    if (kind === 'jobs') this.#showJob(name);
    else if (store.tasks.length === 0) this.#wait();
    else this.#begin(store.task(name) ?? store.task(recall('task', '')) ?? store.tasks[0]);
    this.jobs.current = kind === 'jobs' ? name : '';
    this.#drawTasks();
  }

  #wait() {
    this.#route = { waiting: true };
    this.composer.hidden = true;
    this.stage.dataset.kind = 'empty';
    document.title = t('app.name');
    const title = store.ready ? t('app.noworker') : t('app.loading');
    this.stage.replaceChildren(h('div', { class: 'empty-state' }, h('h2', {}, title), store.ready && h('p', {}, t('app.noworker.detail'))));
  }

  #showJob(id) {
    this.#route = { job: id };
    this.stage.dataset.kind = 'job';
    this.composer.hidden = true;
    this.stage.replaceChildren(h('job-view', { 'data-id': id }));
  }

  // The composer serves the task of the job that is shown; a chat goes on elsewhere.
  #shown(job) {
    const task = store.task(job.task);
    this.composer.running = ended(job) ? null : job;
    if (this.#route.task === job.task || !task) return;
    this.#route.task = job.task;
    this.composer.hidden = isChat(task);
    this.composer.task = task;
    this.#drawTasks();
  }

  #begin(task) {
    remember('task', task.name);
    this.#route = { task: task.name };
    this.composer.hidden = false;
    this.composer.task = task;
    document.title = `${taskTitle(task)} · ${t('app.name')}`;
    this.#drawBeginning(task);
    if (!narrow.matches) this.composer.focusPrompt(); // there it would call the keyboard up
  }

  #drawBeginning(task) {
    if (isChat(task) && conversation.turns.length > 0) {
      this.stage.dataset.kind = 'chat';
      this.stage.replaceChildren(h('div', { class: 'chat-head' },
        h('h1', { class: 'visually-hidden' }, taskTitle(task)),
        button({ icon: 'plus', label: t('composer.new'), onClick: () => conversation.clear() })), h('chat-view'));
      return;
    }
    this.stage.dataset.kind = 'empty';
    const examples = examplesFor(task.name, language());
    this.stage.replaceChildren(h('div', { class: 'hero' },
      h('img', { src: 'icon.svg', alt: '', width: 64, height: 64 }),
      h('h1', {}, tOr(`hero.${task.name}`, t('hero.other'))),
      h('p', {}, tOr(`hero.${task.name}.detail`, task.description)),
      store.models.length > 0 && store.lacksModel(task) && h('p', { class: 'fault' }, t('hero.nomodel')),
      examples.length > 0 && h('section', { class: 'examples', 'aria-label': t('hero.examples') },
        examples.map((text) => h('button', { type: 'button', on: { click: () => this.composer.write(text) } }, text)))));
  }

  // The stage turns from the empty state to the conversation and back.
  #conversationChanged() {
    const task = store.task(this.#route?.task);
    if (this.#route?.job || !task || !isChat(task)) return;
    const drawn = this.stage.dataset.kind === 'chat';
    if (drawn !== conversation.turns.length > 0) this.#drawBeginning(task);
    this.#following = true;
    this.#follow();
  }

  #submitted(job) {
    if (job.input.messages && !this.#route.job) return;
    location.hash = `#/jobs/${job.id}`;
  }

  #adopt(job) {
    const task = store.task(job.task);
    if (!task) return;
    this.composer.task = task;
    this.composer.adopt(job);
    if (!this.#route.job) this.#turnTo(task.name);
  }

  #resume(job) {
    this.#adopt(job);
    conversation.resume(job);
    location.hash = `#/new/${job.task}`;
  }

  // Keeps the end of a growing text in view, unless the reader has scrolled away.
  #follow() {
    if (this.#following) this.stage.scrollTop = this.stage.scrollHeight;
  }
}

// The task whose page another is part of: all that make pictures share one.
const pageOf = (name) => (name.startsWith('image.') ? store.tasks.find((task) => task.name.startsWith('image.'))?.name : name);

// Whether files are dragged over the page: which, is told only when they are dropped.
const pictureOver = (event) => [...(event.dataTransfer?.types ?? [])].includes('Files');

// Whether a task is a conversation.
const isChat = (task) => task.schema.properties?.messages !== undefined;

customElements.define('studio-app', StudioApp);
