// <connection-banner>: says that the server is not heard, and that it is again.

import { connection } from '../connection.js';
import { button, h, icon } from '../dom.js';
import { t } from '../i18n.js';
import { View } from './view.js';

const patience = 300; // milliseconds of loss that nobody needs to know of
const relief = 2_500; // milliseconds for which the good news stays

class ConnectionBanner extends View {
  #timer = null;

  mount() {
    this.setAttribute('role', 'status');
    this.listen(connection, 'change', () => this.#later(connection.lost ? patience : 0));
    this.#show();
  }

  unmount() {
    clearTimeout(this.#timer);
  }

  #later(milliseconds) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#show(), milliseconds);
  }

  #show() {
    const was = this.dataset.state;
    if (connection.lost) {
      if (was === 'lost') return;
      this.dataset.state = 'lost';
      this.replaceChildren(icon('alert'),
        h('p', {}, h('strong', {}, t('lost.title')), ' ', t('lost.detail')),
        button({ label: t('lost.now'), onClick: () => connection.hurry() }));
    } else if (was === 'lost') {
      this.dataset.state = 'healed';
      this.replaceChildren(icon('check'), h('p', {}, t('lost.healed')));
      this.#later(relief);
    } else {
      delete this.dataset.state;
      this.replaceChildren();
    }
  }
}

customElements.define('connection-banner', ConnectionBanner);
