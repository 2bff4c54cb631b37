// <stream-text>: a text that grows. New text is added behind the old without
// touching it, so that a selection, the scroll position and the layout stay.

import { h } from '../dom.js';

class StreamText extends HTMLElement {
  #lead = h('span', { class: 'lead' });
  #body = h('span', { class: 'body' });
  #caret = h('span', { class: 'caret', 'aria-hidden': 'true' });
  #shown = document.createTextNode('');

  connectedCallback() {
    if (this.#body.isConnected) return;
    this.#body.append(this.#shown);
    this.append(this.#lead, this.#body, this.#caret);
  }

  /** The text that the model was given to continue. */
  set lead(text) {
    if (this.#lead.textContent !== text) this.#lead.textContent = text;
  }

  /** Shows the text; live says that more is to come. */
  update(text, live) {
    const shown = this.#shown.data;
    if (text.startsWith(shown)) {
      if (text.length > shown.length) this.#shown.appendData(text.slice(shown.length));
    } else {
      this.#shown.data = text;
    }
    this.classList.toggle('live', live);
  }
}

customElements.define('stream-text', StreamText);
