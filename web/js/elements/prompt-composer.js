// <prompt-composer>: where a job is written: prompt, picture, model, parameters, and
// the buttons that start and stop it. Sends "submitted" with the job, "task" when
// another task is wanted, "generation" to make a picture's like.

import { Problem, Unreachable } from '../api.js';
import { conversation } from '../chat.js';
import { button, h, icon } from '../dom.js';
import { membersAt } from '../form.js';
import { magnitude } from '../format.js';
import { t, tOr } from '../i18n.js';
import { keepTaskSettings, taskSettings } from '../settings.js';
import { pictureIn, source } from '../source.js';
import { store } from '../store.js';
import './parameter-panel.js';
import { takesPicture } from './picture-source.js';
import { View } from './view.js';

const commandKey = /Mac|iPhone|iPad/.test(navigator.platform) ? '⌘' : 'Ctrl';

class PromptComposer extends View {
  #task = null;
  #running = null; // the job that Stop would cancel
  #sending = false;

  /** Shows the composer for a task of the catalog. */
  set task(task) {
    if (this.#task?.name === task.name) return;
    this.#carryPrompt(task);
    this.#task = task;
    if (this.isConnected) this.mount();
  }

  /** The job in view while it runs, else null. */
  set running(job) {
    this.#running = job;
    this.#refresh();
  }

  get #chat() {
    return this.#has('messages');
  }

  // Whether the task's input has the member.
  #has(member) {
    return this.#task.schema.properties?.[member] !== undefined;
  }

  // What is said of a picture stays when something else is to be done with it.
  #carryPrompt(task) {
    const prompt = this.prompt?.value ?? '';
    if (prompt !== '' && [this.#task, task].every(({ name }) => name.startsWith('image.'))) keepTaskSettings(task.name, { prompt });
  }

  mount() {
    if (!this.#task) return;
    const settings = taskSettings(this.#task.name);
    this.panel = h('parameter-panel');
    this.panel.task = this.#task;
    this.prompt = h('textarea', {
      id: 'prompt', class: 'prompt', rows: 1, value: settings.prompt,
      placeholder: tOr(`composer.placeholder.${this.#task.name}`, t('composer.placeholder.other')),
      'aria-describedby': 'prompt-fault',
      on: {
        input: () => { keepTaskSettings(this.#task.name, { prompt: this.prompt.value }); this.#fault(''); },
        keydown: (event) => this.#key(event),
      },
    });
    this.prompt.hidden = !this.#has('prompt') && !this.#chat;
    this.picture = h('picture-source');
    this.picture.task = this.#task;
    this.message = h('p', { class: 'fault', id: 'prompt-fault', hidden: true });
    this.alert = h('p', { class: 'fault', role: 'alert', hidden: true });
    this.form = h('form', { class: 'composer', noValidate: true, 'aria-label': t('composer.form'), on: { submit: (event) => this.#submit(event) } },
      this.#parameters(),
      h('label', { class: 'visually-hidden', for: 'prompt' }, t('composer.prompt')),
      this.prompt,
      this.picture,
      this.message,
      this.alert,
      h('div', { class: 'composer-bar' }, this.#modelChoice(settings), this.#parameterToggle(), this.#actions()));
    this.replaceChildren(this.form);
    this.listen(this.panel, 'parameters', () => this.#refresh());
    this.listen(this.form, 'paste', (event) => this.#take(event, event.clipboardData));
    this.listen(store, 'catalog', () => this.model.replaceWith(this.#modelChoice(taskSettings(this.#task.name))));
    this.#refresh();
  }

  /** Puts the cursor into the prompt. */
  focusPrompt() {
    this.prompt?.focus({ preventScroll: true });
  }

  /** Writes text into the prompt. */
  write(text) {
    this.prompt.value = text;
    this.prompt.dispatchEvent(new Event('input'));
    this.focusPrompt();
  }

  /** Takes a picture that was dropped on the page. Returns whether the task can use one. */
  drop(event) {
    return this.#take(event, event.dataTransfer);
  }

  #take(event, transfer) {
    const file = pictureIn(transfer);
    if (!file || !this.#task.name.startsWith('image.')) return false;
    event.preventDefault();
    this.picture.take(file);
    return true;
  }

  /** Takes over everything that a job was asked with; of a chat not the seed, which was one answer's. */
  adopt(job) {
    this.#adoptPicture(job.input.image);
    this.panel.adopt(job.input, this.#chat ? undefined : job.seed);
    if (this.#chat) this.panel.system = job.input.messages.find(({ role }) => role === 'system')?.content ?? '';
    keepTaskSettings(this.#task.name, { model: job.model ?? '' });
    this.model.replaceWith(this.#modelChoice(taskSettings(this.#task.name)));
    if (job.input.prompt !== undefined) this.write(job.input.prompt);
    this.#refresh();
  }

  async #adoptPicture(sha256) {
    if (!sha256 || sha256 === source.picture?.sha256) return;
    try {
      await source.takeStored(sha256);
    } catch (err) {
      this.#complain(err);
    }
  }

  /** Asks for another answer to what the conversation says last. */
  answerAgain() {
    this.#send('');
  }

  #parameters() {
    this.sheet = h('section', { class: 'sheet', id: 'parameters', 'aria-label': t('composer.parameters'), hidden: true },
      this.panel,
      button({ icon: 'reset', label: t('parameters.reset'), onClick: () => this.panel.reset() }));
    return this.sheet;
  }

  #parameterToggle() {
    this.count = h('span', { class: 'count', hidden: true });
    const toggle = button({
      icon: 'sliders', label: t('composer.parameters'), 'aria-expanded': 'false', 'aria-controls': 'parameters',
      onClick: () => this.#open(this.sheet.hidden),
    });
    toggle.append(this.count);
    this.toggle = toggle;
    return toggle;
  }

  #open(open) {
    this.sheet.hidden = !open;
    this.toggle.setAttribute('aria-expanded', String(open));
  }

  #modelChoice({ model }) {
    const models = store.modelsFor(this.#task.name);
    const initial = models.find(({ id }) => id === this.#task.model);
    const name = ({ id, parameters }) => (parameters ? `${id} · ${magnitude(parameters)}` : id);
    const select = h('select', {
      'aria-label': t('composer.model'), title: t('composer.model'),
      on: { change: () => keepTaskSettings(this.#task.name, { model: select.value }) },
    }, h('option', { value: '' }, initial ? name(initial) : t('composer.model.default')),
    models.filter((candidate) => candidate !== initial).map((candidate) => h('option', { value: candidate.id }, name(candidate))));
    select.value = models.some(({ id }) => id === model) && model !== initial?.id ? model : '';
    this.model = select;
    return select;
  }

  #actions() {
    this.stop = button({ icon: 'stop', label: t('composer.stop'), kind: 'stop', onClick: () => this.#cancel() });
    this.go = h('button', {
      type: 'submit', class: 'button primary', title: t('composer.shortcut', { key: commandKey }),
    }, icon('send'), h('span', {}, t(this.#chat ? 'composer.send' : 'composer.generate')));
    return h('span', { class: 'actions' }, this.stop, this.go);
  }

  #refresh() {
    if (!this.form) return;
    const changed = this.panel.changed;
    this.count.hidden = changed === 0;
    this.count.textContent = String(changed);
    this.count.title = t('composer.changed', { n: changed });
    this.stop.hidden = this.#running === null;
    this.go.disabled = this.#sending || (this.#chat && this.#running !== null);
  }

  #key(event) {
    if (event.key !== 'Enter' || event.isComposing) return;
    const command = event.ctrlKey || event.metaKey;
    if (!command && (!this.#chat || event.shiftKey)) return;
    event.preventDefault();
    if (!this.go.disabled) this.form.requestSubmit();
  }

  #submit(event) {
    event.preventDefault();
    const text = this.prompt.hidden ? '' : this.prompt.value;
    const missing = this.#missing(text);
    if (missing) {
      this.#fault(missing);
      this.focusPrompt();
      return;
    }
    this.#send(text);
  }

  // What must be there before anything can be asked for, or ''.
  #missing(text) {
    const prompted = this.#chat || this.#task.schema.required?.includes('prompt');
    if (prompted && text.trim() === '') return t('composer.empty');
    return takesPicture(this.#task) && !source.picture ? t('source.missing') : '';
  }

  async #send(text) {
    this.#alert('');
    this.#fault('');
    const body = this.#body(text);
    if (!body) return;
    this.#sending = true;
    this.#refresh();
    try {
      Object.assign(body.input, await source.members(this.#task.schema));
      const job = await store.submit(body);
      if (this.#chat) {
        conversation.ask(text, job.id);
        if (text !== '') this.#clearPrompt();
      }
      this.send('submitted', { job });
    } catch (err) {
      this.#complain(err);
    } finally {
      this.#sending = false;
      this.#refresh();
    }
  }

  // The body of the job, or null after showing what is wrong with it. Another answer
  // to the same message, without text, takes a seed of its own.
  #body(text) {
    const set = this.panel.read();
    if (!set) {
      this.#open(true);
      this.querySelector('[aria-invalid="true"]')?.focus();
      return null;
    }
    const body = { task: this.#task.name, input: { ...set.input, ...this.#words(text) } };
    if (this.model.value) body.model = this.model.value;
    if (set.seed !== undefined && (text !== '' || !this.#chat)) body.seed = set.seed;
    return body;
  }

  #words(text) {
    if (this.#chat) return { messages: conversation.messages(text, this.panel.system) };
    return text === '' ? {} : { prompt: text };
  }

  #clearPrompt() {
    this.prompt.value = '';
    keepTaskSettings(this.#task.name, { prompt: '' });
  }

  async #cancel() {
    try {
      await store.cancel(this.#running.id);
    } catch (err) {
      this.#complain(err);
    }
  }

  // Shows each part of a problem at the field it points to, and the rest above the bar.
  #complain(err) {
    if (err instanceof Unreachable) return this.#alert(t('problem.unreachable'));
    if (!(err instanceof Problem)) throw err;
    const rest = err.errors.filter(({ pointer, detail }) => !this.#place(membersAt(pointer), detail));
    if (err.errors.length === 0) return this.#alert(err.message);
    if (rest.length > 0) this.#alert(rest.map(({ pointer, detail }) => `${pointer}: ${detail}`).join('\n'));
    return undefined;
  }

  #place(members, detail) {
    if (['messages', 'prompt', 'image', 'mask'].includes(members[0])) {
      this.#fault(detail);
      return true;
    }
    if (![members.join('.'), members[0]].some((name) => this.panel.complain(name, detail))) return false;
    this.#open(true);
    return true;
  }

  #fault(text) {
    this.message.textContent = text;
    this.message.hidden = text === '';
    this.prompt.setAttribute('aria-invalid', String(text !== ''));
  }

  #alert(text) {
    this.alert.textContent = text;
    this.alert.hidden = text === '';
  }
}

customElements.define('prompt-composer', PromptComposer);
