// The picture that a job begins from: put into the composer, dropped on the page,
// pasted, or taken from a job. It stays when the task changes.

import * as api from './api.js';

class Source extends EventTarget {
  /** The picture as the server stored it, {sha256, name, url, width, height, generation}, or null. */
  picture = null;
  /** The area to be made anew, a PNG as a Blob of which white is the area, or null. */
  mask = null;

  #taking = 0; // number of the picture that was taken last

  /** Uploads a file and takes it. Throws what the gateway has against it. */
  async upload(file) {
    const number = ++this.#taking;
    const stored = await api.upload(file, file.name);
    const info = await api.artifactInfo(stored.sha256);
    if (number === this.#taking) this.#set({ ...stored, ...info, url: stored.url, name: file.name || stored.name });
  }

  /** Takes an artifact of a job. */
  take(artifact) {
    this.#taking++;
    this.#set(artifact);
  }

  /** Takes the picture that a job began from, as far as the server still has it. */
  async takeStored(sha256) {
    const number = ++this.#taking;
    const info = await api.artifactInfo(sha256);
    if (number === this.#taking) this.#set({ ...info, url: api.artifactPath(sha256) });
  }

  clear() {
    this.#taking++;
    this.#set(null);
  }

  /** Keeps what was painted; null is nothing. */
  paint(mask) {
    this.mask = mask;
    this.dispatchEvent(new Event('mask'));
  }

  /** The input's members for a task of that schema; what was painted is uploaded first. */
  async members(schema) {
    const members = {};
    if (schema.properties?.image === undefined || !this.picture) return members;
    members.image = this.picture.sha256;
    if (schema.properties.mask !== undefined && this.mask) {
      members.mask = (await api.upload(this.mask, 'mask.png')).sha256;
    }
    return members;
  }

  #set(picture) {
    this.picture = picture;
    this.mask = null;
    this.dispatchEvent(new Event('change'));
  }
}

/** The page's picture. */
export const source = new Source();

/** The first picture among what was dropped or pasted, or null. */
export const pictureIn = (transfer) =>
  [...(transfer?.files ?? [])].find((file) => file.type.startsWith('image/')) ?? null;
