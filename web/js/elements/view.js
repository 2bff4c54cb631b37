// The base of the studio's elements: they draw into the page itself, and whatever
// they listen to is let go when they leave it.

export class View extends HTMLElement {
  #life = null;

  connectedCallback() {
    this.#life = new AbortController();
    this.mount();
  }

  disconnectedCallback() {
    this.#life.abort();
    this.unmount();
  }

  /** Draws the element. */
  mount() {}

  /** Lets go of what listen does not cover. */
  unmount() {}

  /** Listens until the element leaves the page. */
  listen(target, type, listener) {
    target.addEventListener(type, listener, { signal: this.#life.signal });
  }

  /** Sends an event to the elements around. */
  send(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail, bubbles: true }));
  }
}
