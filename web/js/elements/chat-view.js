// <chat-view>: the conversation in hand, with the answer that is being written. Sends
// "running" with the job while an answer is written, "again" for another answer.

import { announceEnd, Narrator } from '../announce.js';
import { conversation } from '../chat.js';
import { button, h } from '../dom.js';
import { t } from '../i18n.js';
import { store } from '../store.js';
import { Watch } from '../watch.js';
import { copyButton, explain, paceLine, problemBox } from './parts.js';
import './stream-text.js';
import { View } from './view.js';

class ChatView extends View {
  #watch = null;
  #narrator = new Narrator();
  #frame = 0;
  #answer = null; // {text, pace, trouble} of the turn that is being written

  mount() {
    this.listen(conversation, 'change', () => this.#draw());
    this.#draw();
  }

  unmount() {
    this.#watch?.close();
    this.#watch = null;
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
  }

  #draw() {
    const { turns, pending } = conversation;
    this.#answer = null;
    this.replaceChildren(h('div', { class: 'conversation' }, turns.map((turn, i) => this.#turn(turn, i === turns.length - 1))));
    if (pending) this.#follow(pending.job);
    else this.#release();
    this.send('drawn');
  }

  #turn(turn, last) {
    const text = h('stream-text');
    const pace = h('p', { class: 'pace' });
    const trouble = h('div', {});
    const mine = turn.role === 'user';
    const section = h('section', { class: 'turn', 'data-role': turn.role },
      h('h2', {}, t(mine ? 'chat.you' : 'chat.model')), text, trouble,
      !mine && h('footer', {}, pace, this.#actions(turn, last)));
    if (turn.state === 'pending') this.#answer = { text, pace, trouble };
    if (turn.state === 'canceled') pace.textContent = t('chat.stopped');
    if (turn.state === 'failed') trouble.append(problemBox(t('problem.job'), { detail: turn.problem ?? '' }));
    text.update(turn.content, turn.state === 'pending');
    return section;
  }

  #actions(turn, last) {
    if (turn.state === 'pending') return [];
    return [
      turn.content !== '' && copyButton(() => turn.content),
      last && button({ icon: 'retry', label: t(turn.state === 'failed' ? 'job.retry' : 'chat.again'), onClick: () => this.send('again') }),
      turn.job && h('a', { class: 'button quiet', href: `#/jobs/${turn.job}` }, h('span', {}, t('chat.details'))),
    ].filter(Boolean);
  }

  // Follows the job of the answer that is being written.
  #follow(id) {
    if (this.#watch?.id === id) return this.#later();
    this.#release();
    const watch = new Watch(id);
    this.#watch = watch;
    this.listen(watch, 'change', () => this.#later());
    this.listen(watch, 'end', () => this.#settle(watch));
    watch.open();
    return undefined;
  }

  #release() {
    this.#watch?.close();
    this.#watch = null;
    this.send('running', { job: null });
  }

  #later() {
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      this.#write();
    });
  }

  #write() {
    const { job, texts, pace } = this.#watch ?? {};
    if (!job || !this.#answer) return;
    this.send('running', { job: this.#watch.running ? job : null });
    this.#answer.text.update(texts[0], true);
    this.#answer.pace.textContent = job.state === 'queued' ? t('job.waiting') : paceLine(pace, true) || t('job.starting');
    this.#narrator.follow(texts[0]);
    this.send('drawn');
  }

  #settle(watch) {
    const { job, problem, texts } = watch;
    if (watch !== this.#watch) return;
    if (!job) {
      conversation.settle(watch.id, 'failed', '', problem ? explain(problem).detail : '');
      return;
    }
    store.put(job);
    announceEnd(job);
    conversation.settle(job.id, job.state, texts[0], job.problem?.detail);
  }
}

customElements.define('chat-view', ChatView);
