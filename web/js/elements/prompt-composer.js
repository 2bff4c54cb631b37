// <prompt-composer>: where a job is written: prompt, model, parameters, and the
// buttons that start and stop it. Sends "submitted" with the job.

import { Problem, Unreachable } from '../api.js';
import { conversation } from '../chat.js';
import { button, h, icon } from '../dom.js';
import { memberAt } from '../form.js';
import { magnitude } from '../format.js';
import { t, tOr } from '../i18n.js';
import { keepTaskSettings, taskSettings } from '../settings.js';
import { store } from '../store.js';
import { View } from './view.js';
import './parameter-panel.js';

const commandKey = /Mac|iPhone|iPad/.test(navigator.platform) ? '⌘' : 'Ctrl';

class PromptComposer extends View {
  #task = null;
  #running = null; // the job that Stop would cancel
  #sending = false;

  /** Shows the composer for a task of the catalog. */
  set task(task) {
    if (this.#task?.name === task.name) return;
    this.#task = task;
    if (this.isConnected) this.mount();
  }

  /** The job in view while it runs, else null. */
  set running(job) {
    this.#running = job;
    this.#refresh();
  }

  get #chat() {
    return this.#task.schema.properties?.messages !== undefined;
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
    this.message = h('p', { class: 'fault', id: 'prompt-fault', hidden: true });
    this.alert = h('p', { class: 'fault', role: 'alert', hidden: true });
    this.form = h('form', { class: 'composer', noValidate: true, 'aria-label': t('composer.form'), on: { submit: (event) => this.#submit(event) } },
      this.#parameters(),
      h('label', { class: 'visually-hidden', for: 'prompt' }, t('composer.prompt')),
      this.prompt,
      this.message,
      this.alert,
      h('div', { class: 'composer-bar' }, this.#modelChoice(settings), this.#parameterToggle(), this.#actions()));
    this.replaceChildren(this.form);
    this.listen(this.panel, 'parameters', () => this.#refresh());
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

  /** Takes over everything that a job was asked with; of a chat not the seed, which was one answer's. */
  adopt(job) {
    this.panel.adopt(job.input, this.#chat ? undefined : job.seed);
    if (this.#chat) this.panel.system = job.input.messages.find(({ role }) => role === 'system')?.content ?? '';
    keepTaskSettings(this.#task.name, { model: job.model ?? '' });
    this.model.replaceWith(this.#modelChoice(taskSettings(this.#task.name)));
    if (job.input.prompt !== undefined) this.write(job.input.prompt);
    this.#refresh();
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
    const text = this.prompt.value;
    if (text.trim() === '') {
      this.#fault(t('composer.empty'));
      this.focusPrompt();
      return;
    }
    this.#send(text);
  }

  async #send(text) {
    this.#alert('');
    this.#fault('');
    const body = this.#body(text);
    if (!body) return;
    this.#sending = true;
    this.#refresh();
    try {
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
    const own = this.#chat ? { messages: conversation.messages(text, this.panel.system) } : { prompt: text };
    const body = { task: this.#task.name, input: { ...set.input, ...own } };
    if (this.model.value) body.model = this.model.value;
    if (set.seed !== undefined && text !== '') body.seed = set.seed;
    return body;
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
    const rest = err.errors.filter(({ pointer, detail }) => !this.#place(memberAt(pointer), detail));
    if (err.errors.length === 0) return this.#alert(err.message);
    if (rest.length > 0) this.#alert(rest.map(({ pointer, detail }) => `${pointer}: ${detail}`).join('\n'));
    return undefined;
  }

  #place(member, detail) {
    if (member === 'messages' || member === 'prompt') {
      this.#fault(detail);
      return true;
    }
    if (!this.panel.complain(member, detail)) return false;
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
