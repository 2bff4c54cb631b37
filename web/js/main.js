// The studio's entry: follows the server and shows the page.

import { Problem, Unreachable, whoami } from './api.js';
import { h } from './dom.js';
import './elements/key-dialog.js';
import './elements/studio-app.js';
import { t } from './i18n.js';
import { session } from './session.js';
import { store } from './store.js';

// An error of the studio itself is shown, not hidden in the console.
function report(error) {
  const box = document.getElementById('error');
  box.textContent = t('problem.page', { detail: error?.message ?? String(error) });
  box.hidden = false;
}

addEventListener('error', (event) => report(event.error ?? event.message));
addEventListener('unhandledrejection', (event) => report(event.reason));

// A server that is away, or wants a key, is dealt with elsewhere.
async function introduce() {
  try {
    session.open(await whoami());
  } catch (err) {
    if (!(err instanceof Unreachable) && !(err instanceof Problem)) throw err;
  }
}

document.body.prepend(h('key-dialog'), h('studio-app'));
store.follow();
store.readCatalog();
introduce();
