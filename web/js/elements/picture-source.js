// <picture-source>: the picture that the composer begins from: how it comes in, what
// is to be done with it, and which part of it. Sends "task" with the name of the task
// that was chosen, "generation" with how the picture was made, to make it again.

import { button, h } from '../dom.js';
import { number } from '../format.js';
import { t } from '../i18n.js';
import { source } from '../source.js';
import { store } from '../store.js';
import './mask-painter.js';
import { explain, taskTitle } from './parts.js';
import { View } from './view.js';

class PictureSource extends View {
  #task = null;

  /** The task of the composer. */
  set task(task) {
    this.#task = task;
    if (this.isConnected) this.#draw();
  }

  mount() {
    this.file = h('input', {
      type: 'file', accept: 'image/*', class: 'visually-hidden', tabIndex: -1, 'aria-hidden': 'true',
      on: { change: () => { this.take(this.file.files[0]); this.file.value = ''; } },
    });
    this.fault = h('p', { class: 'fault', role: 'alert', hidden: true });
    this.listen(source, 'change', () => this.#draw());
    this.listen(source, 'mask', () => this.#painted());
    this.#draw();
  }

  /** Takes a file that was chosen, dropped or pasted. */
  async take(file) {
    if (!file) return;
    this.#complain('');
    this.classList.add('busy');
    try {
      await source.upload(file);
      if (!takesPicture(this.#task)) this.send('task', { name: first('image.edit', 'image.upscale') });
    } catch (err) {
      this.#complain(explain(err).detail);
    } finally {
      this.classList.remove('busy');
    }
  }

  #draw() {
    this.hidden = !this.#task?.name.startsWith('image.');
    if (this.hidden) return;
    const shown = source.picture && takesPicture(this.#task);
    this.replaceChildren(this.file, shown ? this.#shown(source.picture) : this.#invitation(), this.fault);
  }

  #invitation() {
    return button({ icon: 'picture', label: t('source.add'), title: t('source.add.detail'), onClick: () => this.file.click() });
  }

  #shown(picture) {
    const made = picture.generation;
    return h('div', { class: 'source' },
      h('span', { class: 'source-picture' }, h('img', { src: picture.url, alt: t('source.picture', { name: picture.name ?? '' }) })),
      h('div', { class: 'source-about' },
        h('p', { class: 'hint' }, [picture.name, picture.width && t('picture.size', { w: number(picture.width), h: number(picture.height) })].filter(Boolean).join(' · ')),
        h('div', { class: 'source-bar' }, this.#choice(),
          this.#task.schema.properties.mask && button({
            icon: 'brush', label: t(source.mask ? 'mask.change' : 'mask.open'), onClick: () => h('mask-painter').open(),
          }),
          made?.input && button({ icon: 'reuse', label: t('source.generation'), title: t('source.generation.detail'), onClick: () => this.send('generation', made) }),
          button({ icon: 'close', title: t('source.remove'), kind: 'bare', onClick: () => this.#remove() }))));
  }

  // What is to be done with the picture, of what the workers can do.
  #choice() {
    const select = h('select', { 'aria-label': t('source.task'), on: { change: () => this.send('task', { name: select.value }) } },
      store.tasks.filter(takesPicture).map((task) => h('option', { value: task.name }, taskTitle(task))));
    select.value = this.#task.name;
    return select;
  }

  // An area that was painted is for the task that paints anew.
  #painted() {
    if (source.mask && !this.#task.schema.properties.mask) this.send('task', { name: 'image.inpaint' });
    else this.#draw();
  }

  #remove() {
    source.clear();
    this.send('task', { name: first('image.generate', this.#task.name) });
  }

  #complain(text) {
    this.fault.textContent = text;
    this.fault.hidden = text === '';
  }
}

/** Whether a task begins from a picture. */
export const takesPicture = (task) => task?.schema.properties?.image !== undefined;

// The first of the tasks that some worker does.
const first = (...names) => names.find((name) => store.task(name)) ?? names[0];

customElements.define('picture-source', PictureSource);
