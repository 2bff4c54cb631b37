// <mask-painter>: a dialog in which the area of a picture is painted that is to be
// made anew. Keyboard: the area can be set to all of the picture or to nothing.

import { button, h } from '../dom.js';
import { t } from '../i18n.js';
import { source } from '../source.js';

const firstBrush = 0.08; // width of the brush, of the picture's longer side
const paint = '#e0218a'; // seen on any picture; the mask itself is white

class MaskPainter extends HTMLElement {
  #brush = firstBrush;
  #erase = false;
  #last = null; // where the brush was, in pixels of the picture

  /** Opens the dialog for the picture at hand. */
  open() {
    const { width, height, url } = source.picture;
    this.canvas = h('canvas', { width, height, class: 'mask', 'aria-label': t('mask.canvas'), role: 'img' });
    this.context = this.canvas.getContext('2d');
    this.canvas.addEventListener('pointerdown', (event) => this.#begin(event));
    this.canvas.addEventListener('pointermove', (event) => this.#move(event));
    this.canvas.addEventListener('pointerup', () => { this.#last = null; });
    const size = h('input', {
      type: 'range', min: '1', max: '30', value: String(100 * this.#brush), 'aria-label': t('mask.brush'),
      on: { input: () => { this.#brush = size.value / 100; } },
    });
    this.dialog = h('dialog', { class: 'painter', 'aria-label': t('mask.title'), on: { close: () => this.remove() } },
      h('p', { class: 'hint' }, t('mask.detail')),
      h('div', { class: 'easel', vars: { '--ratio': `${width} / ${height}` } }, h('img', { src: url, alt: '' }), this.canvas),
      h('div', { class: 'painter-bar' },
        h('label', { class: 'brush' }, h('span', {}, t('mask.brush')), size),
        this.#eraser(),
        button({ label: t('mask.all'), onClick: () => this.#fill(true) }),
        button({ label: t('mask.none'), onClick: () => this.#fill(false) }),
        h('span', { class: 'actions' },
          button({ label: t('mask.cancel'), onClick: () => this.dialog.close() }),
          button({ label: t('mask.done'), kind: 'primary', onClick: () => this.#keep() }))));
    this.replaceChildren(this.dialog);
    document.body.append(this);
    this.dialog.showModal();
    this.#restore();
  }

  #eraser() {
    const toggle = button({ icon: 'eraser', label: t('mask.erase'), 'aria-pressed': 'false', onClick: () => {
      this.#erase = !this.#erase;
      toggle.setAttribute('aria-pressed', String(this.#erase));
    } });
    return toggle;
  }

  // Shows again what was painted before: white on black becomes paint on nothing.
  async #restore() {
    if (!source.mask) return;
    const picture = await createImageBitmap(source.mask);
    this.context.drawImage(picture, 0, 0);
    const pixels = this.context.getImageData(0, 0, this.canvas.width, this.canvas.height);
    for (let i = 0; i < pixels.data.length; i += 4) pixels.data[i + 3] = pixels.data[i];
    this.context.putImageData(pixels, 0, 0);
    this.#tint(this.context, paint);
  }

  #fill(all) {
    const { width, height } = this.canvas;
    this.context.globalCompositeOperation = 'source-over';
    this.context.clearRect(0, 0, width, height);
    if (!all) return;
    this.context.fillStyle = paint;
    this.context.fillRect(0, 0, width, height);
  }

  #begin(event) {
    if (event.button !== 0) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.#last = this.#place(event);
    this.#stroke(this.#last);
  }

  #move(event) {
    if (this.#last) for (const step of event.getCoalescedEvents()) this.#stroke(this.#place(step));
  }

  #place({ clientX, clientY }) {
    const box = this.canvas.getBoundingClientRect();
    return {
      x: ((clientX - box.left) / box.width) * this.canvas.width,
      y: ((clientY - box.top) / box.height) * this.canvas.height,
    };
  }

  #stroke(to) {
    const { context, canvas } = this;
    context.globalCompositeOperation = this.#erase ? 'destination-out' : 'source-over';
    context.strokeStyle = paint;
    context.lineWidth = this.#brush * Math.max(canvas.width, canvas.height);
    context.lineCap = 'round';
    context.beginPath();
    context.moveTo(this.#last.x, this.#last.y);
    context.lineTo(to.x, to.y);
    context.stroke();
    this.#last = to;
  }

  // Gives all that is painted one colour.
  #tint(context, colour) {
    context.globalCompositeOperation = 'source-in';
    context.fillStyle = colour;
    context.fillRect(0, 0, context.canvas.width, context.canvas.height);
  }

  async #keep() {
    source.paint(await this.#mask());
    this.dialog.close();
  }

  // The painted area in white on black, or null if nothing is painted.
  async #mask() {
    const { width, height } = this.canvas;
    const { data } = this.context.getImageData(0, 0, width, height);
    if (!data.some((value, i) => i % 4 === 3 && value > 0)) return null;
    const sheet = h('canvas', { width, height });
    const context = sheet.getContext('2d');
    context.drawImage(this.canvas, 0, 0);
    this.#tint(context, '#fff');
    context.globalCompositeOperation = 'destination-over';
    context.fillStyle = '#000';
    context.fillRect(0, 0, width, height);
    return new Promise((resolve) => { sheet.toBlob(resolve, 'image/png'); });
  }
}

customElements.define('mask-painter', MaskPainter);
