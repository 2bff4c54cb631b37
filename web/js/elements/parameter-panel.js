// <parameter-panel>: the form of a task's parameters, drawn from its JSON Schema, and
// of the seed. A field that nobody touched stays out of the job, so that the model's
// own default holds; touched ones can be reset. Sends "parameters" after each change.

import { button, h } from '../dom.js';
import { fieldsOf, readFields, textsOf } from '../form.js';
import { number } from '../format.js';
import { t, tOr } from '../i18n.js';
import { keepTaskSettings, taskSettings } from '../settings.js';
import { View } from './view.js';

// The seed is a field of every job, and no part of the input.
const seedField = { name: 'seed', kind: 'integer', title: 'Seed', description: '', min: 0, max: Number.MAX_SAFE_INTEGER, above: false };

class ParameterPanel extends View {
  #task = null;
  #fields = []; // with the seed as the first
  #texts = {};
  #rows = new Map(); // name → {row, show(text), fault(message)}

  /** The task whose parameters are edited, as GET /v1/tasks describes it. */
  set task(task) {
    this.#task = task;
    this.#fields = [seedField, ...fieldsOf(task.schema)];
    this.#texts = { ...taskSettings(task.name).texts };
    if (this.isConnected) this.mount();
  }

  mount() {
    if (!this.#task) return;
    this.#rows.clear();
    const system = this.#task.schema.properties?.messages ? [this.#systemRow()] : [];
    this.replaceChildren(...system, ...this.#fields.map((field) => this.#row(field)));
  }

  /** How many parameters differ from their default. */
  get changed() {
    return this.#fields.filter((field) => (this.#texts[field.name] ?? '') !== '').length;
  }

  /** What the system message says, for tasks that are conversations. */
  get system() {
    return taskSettings(this.#task.name).system.trim();
  }

  set system(text) {
    keepTaskSettings(this.#task.name, { system: text });
    this.querySelector('#parameter-system').value = text;
  }

  /** What is set, as {input, seed}, or null after showing what is wrong with it. */
  read() {
    const { input, faults } = readFields(this.#fields, this.#texts);
    for (const [name, { fault }] of this.#rows) {
      fault(faults[name] ? t(faults[name].key, faults[name]) : '');
    }
    const { seed, ...rest } = input;
    return Object.keys(faults).length > 0 ? null : { input: rest, seed };
  }

  /** Shows the server's complaint at the parameter. Returns whether there is such a one. */
  complain(name, detail) {
    const row = this.#rows.get(name);
    row?.fault(detail);
    return row !== undefined;
  }

  /** Takes over a job's parameters and its seed; undefined is none. */
  adopt(input, seed) {
    this.#texts = textsOf(this.#fields, { ...input, seed });
    this.#keep();
    for (const field of this.#fields) this.#rows.get(field.name)?.show(this.#texts[field.name] ?? '');
  }

  /** Goes back to the defaults. */
  reset() {
    this.adopt({}, undefined);
  }

  #keep() {
    keepTaskSettings(this.#task.name, { texts: this.#texts });
    this.send('parameters');
  }

  #set(field, text) {
    this.#texts[field.name] = text;
    this.#keep();
  }

  #row(field) {
    const id = `parameter-${field.name}`;
    const title = tOr(`param.${field.name}`, field.title);
    const detail = tOr(`param.${field.name}.detail`, field.description);
    const message = h('p', { class: 'fault', id: `${id}-fault`, hidden: true });
    const controls = this.#controls(field, id, title);
    const reset = button({
      icon: 'reset', title: t('parameters.reset.one', { name: title }), kind: 'bare',
      onClick: () => { this.#set(field, ''); show(''); fault(''); controls.main.focus(); },
    });
    const row = h('div', { class: `parameter ${field.kind}` },
      h('div', { class: 'parameter-head' }, h('label', { for: id }, title), reset, ...controls.head),
      ...controls.body,
      detail && h('p', { class: 'hint', id: `${id}-hint` }, detail),
      message);
    controls.main.setAttribute('aria-describedby', `${detail ? `${id}-hint ` : ''}${id}-fault`);
    const show = (text) => {
      controls.show(text);
      row.classList.toggle('changed', text !== '');
      reset.disabled = text === '';
    };
    const fault = (text) => {
      message.textContent = text;
      message.hidden = text === '';
      controls.main.setAttribute('aria-invalid', String(text !== ''));
    };
    row.addEventListener('input', (event) => {
      const text = controls.text(event.target);
      this.#set(field, text);
      show(text);
      fault('');
    });
    show(this.#texts[field.name] ?? '');
    this.#rows.set(field.name, { row, show, fault });
    return row;
  }

  // Controls of a field: {head, body} to draw, the main one to label, show(text), and
  // text(target) to read what was typed.
  #controls(field, id, title) {
    if (field === seedField) return this.#seedControls(id);
    switch (field.kind) {
      case 'number':
      case 'integer':
        return numberControls(field, id, title);
      case 'boolean': {
        const main = h('input', { type: 'checkbox', id, class: 'switch', role: 'switch' });
        const show = (text) => { main.checked = text === '' ? field.initial === true : text === 'true'; };
        return { head: [main], body: [], main, show, text: () => String(main.checked) };
      }
      case 'choice': {
        const unset = h('option', { value: '' }, field.initial === undefined ? t('parameters.unset') : `${field.initial} (${t('parameters.default')})`);
        const main = h('select', { id }, unset, field.options.map((option) => h('option', { value: String(option) }, String(option))));
        return { head: [], body: [main], main, show: (text) => { main.value = text; }, text: () => main.value };
      }
      default: {
        const main = h('textarea', { id, rows: field.kind === 'text' ? 1 : 2, spellcheck: false, placeholder: t('parameters.unset') });
        return { head: [], body: [main], ...typed(main) };
      }
    }
  }

  #seedControls(id) {
    const main = h('input', {
      type: 'text', inputMode: 'numeric', id, class: 'seed', autocomplete: 'off', placeholder: t('parameters.seed.random'),
    });
    const roll = button({ icon: 'dice', title: t('parameters.seed.roll'), kind: 'bare dice', onClick: () => {
      main.value = String(crypto.getRandomValues(new Uint32Array(1))[0]);
      main.dispatchEvent(new Event('input', { bubbles: true }));
    } });
    return { head: [roll, main], body: [], ...typed(main) };
  }

  #systemRow() {
    const main = h('textarea', {
      id: 'parameter-system', rows: 2, value: this.system, 'aria-describedby': 'parameter-system-hint',
      on: { input: () => keepTaskSettings(this.#task.name, { system: main.value }) },
    });
    return h('div', { class: 'parameter wide' },
      h('div', { class: 'parameter-head' }, h('label', { for: main.id }, t('parameters.system'))),
      main,
      h('p', { class: 'hint', id: 'parameter-system-hint' }, t('parameters.system.detail')));
  }
}

// How a control is read and shown whose value is its text.
const typed = (main) => ({ main, show: (text) => { if (main.value !== text) main.value = text; }, text: () => main.value });

// A number field, with a slider beside it where the schema bounds it on both sides.
function numberControls(field, id, title) {
  const main = h('input', {
    type: 'text', inputMode: field.kind === 'integer' ? 'numeric' : 'decimal', id, autocomplete: 'off',
    placeholder: field.initial === undefined ? t('parameters.unset') : number(field.initial, 4),
  });
  if (field.min === undefined || field.max === undefined) {
    return { head: [main], body: [], ...typed(main) };
  }
  const slider = h('input', {
    type: 'range', min: String(field.min), max: String(field.max), step: String(field.step),
    'aria-label': t('parameters.slider', { name: title }),
  });
  const show = (text) => {
    if (main.value !== text) main.value = text;
    const value = Number(text === '' ? field.initial ?? field.min : text);
    slider.value = String(value);
    slider.style.setProperty('--fill', `${(100 * (slider.value - field.min)) / (field.max - field.min)}%`);
  };
  const text = (target) => (target === slider && field.above && slider.value === String(field.min) ? String(field.step) : target.value);
  return { head: [main], body: [slider], main, show, text };
}

customElements.define('parameter-panel', ParameterPanel);
