// The studio's entry: follows the server and shows the page.

import { h } from './dom.js';
import './elements/studio-app.js';
import { t } from './i18n.js';
import { store } from './store.js';

// An error of the studio itself is shown, not hidden in the console.
function report(error) {
  const box = document.getElementById('error');
  box.textContent = t('problem.page', { detail: error?.message ?? String(error) });
  box.hidden = false;
}

addEventListener('error', (event) => report(event.error ?? event.message));
addEventListener('unhandledrejection', (event) => report(event.reason));

store.follow();
store.readCatalog();
document.body.prepend(h('studio-app'));
