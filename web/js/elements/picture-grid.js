// <picture-grid>: the pictures of a job: those that are ready, the one that is being
// made as it can be seen so far, and places for the others.

import { button, h, icon } from '../dom.js';
import { t } from '../i18n.js';
import { source } from '../source.js';
import { store } from '../store.js';

class PictureGrid extends HTMLElement {
  #cells = []; // {key, element}

  /** Draws the pictures of a watch. */
  update({ job, artifacts, preview, running }) {
    const count = running ? Math.max(job.input.n ?? 1, artifacts.length) : artifacts.length;
    const cells = Array.from({ length: count }, (_, i) => {
      const seed = job.result?.meta?.seeds?.[i];
      if (artifacts[i]) return this.#cell(i, `${artifacts[i].sha256} ${seed}`, () => ready(job, artifacts[i], seed));
      const live = i === artifacts.length && preview;
      const cell = this.#cell(i, live ? 'live' : 'waiting', () => coming(job, live));
      if (live) cell.element.querySelector('img').src = preview;
      return cell;
    });
    if (cells.some((cell, i) => cell !== this.#cells[i]) || cells.length !== this.#cells.length) {
      this.#cells = cells;
      this.replaceChildren(...cells.map(({ element }) => element));
    }
  }

  // The cell of that place, the same one as long as its key stays.
  #cell(i, key, draw) {
    return this.#cells[i]?.key === key ? this.#cells[i] : { key, element: draw() };
  }
}

function ready(job, artifact, seed) {
  const about = job.input.prompt?.trim() || artifact.name;
  return h('figure', { class: 'picture', vars: ratio(artifact) },
    h('a', { href: artifact.url, target: '_blank', rel: 'noopener', class: 'picture-frame', title: t('picture.open') },
      h('img', { src: artifact.url, alt: about, width: artifact.width, height: artifact.height, decoding: 'async' })),
    h('figcaption', {},
      h('span', { class: 'hint' }, [t('picture.size', { w: artifact.width, h: artifact.height }), seed !== undefined && t('picture.seed', { seed })].filter(Boolean).join(' · ')),
      h('span', { class: 'actions' },
        h('a', { class: 'button bare', href: artifact.url, download: artifact.name || '', title: t('job.download'), 'aria-label': t('job.download') }, icon('download')),
        ['image.edit', 'image.inpaint', 'image.variation', 'image.upscale'].filter((name) => store.task(name)).map((name) => button({
          icon: followUps[name], title: t(`picture.${name}`), kind: 'bare',
          onClick: () => { source.take(artifact); location.hash = `#/new/${name}`; },
        })))));
}

const followUps = { 'image.edit': 'write', 'image.inpaint': 'brush', 'image.variation': 'dice', 'image.upscale': 'grow' };

// A picture that is being made, or waits to be.
const coming = (job, live) => h('figure', { class: `picture ${live ? 'live' : 'waiting'}`, vars: ratio(job.input) },
  h('span', { class: 'picture-frame' }, live && h('img', { alt: t('picture.preview') })));

const ratio = ({ width, height }) => (width && height ? { '--ratio': `${width} / ${height}` } : {});

customElements.define('picture-grid', PictureGrid);
