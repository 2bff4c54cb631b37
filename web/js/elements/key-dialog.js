// <key-dialog>: asks for a key when the server wants one, over whatever is in view.

import { login } from '../api.js';
import { button, h } from '../dom.js';
import { t } from '../i18n.js';
import { session } from '../session.js';
import { explain } from './parts.js';
import { View } from './view.js';

class KeyDialog extends View {
  mount() {
    this.listen(session, 'locked', () => this.#ask());
  }

  #ask() {
    this.key = h('input', {
      id: 'key', type: 'password', required: true, autocomplete: 'current-password', placeholder: 'hk_…', 'aria-describedby': 'key-fault',
    });
    this.fault = h('p', { class: 'fault', id: 'key-fault', role: 'alert' });
    this.dialog = h('dialog', { class: 'key-dialog', 'aria-labelledby': 'key-title', on: { cancel: (event) => event.preventDefault() } },
      h('form', { on: { submit: (event) => this.#enter(event) } },
        h('h2', { id: 'key-title' }, t('key.title')),
        h('p', { class: 'hint' }, t('key.detail')),
        h('label', { for: 'key' }, t('key.label')),
        this.key, this.fault,
        button({ label: t('key.enter'), kind: 'primary', type: 'submit' })));
    this.replaceChildren(this.dialog);
    this.dialog.showModal();
  }

  async #enter(event) {
    event.preventDefault();
    this.fault.textContent = '';
    try {
      const who = await login(this.key.value.trim());
      this.replaceChildren();
      session.open(who);
    } catch (err) {
      this.fault.textContent = explain(err).detail;
      this.key.select();
    }
  }
}

customElements.define('key-dialog', KeyDialog);
