// Whether the studio hears the gateway. Each stream reports its own state; the page
// is connected while none of them is lost.

class Connection extends EventTarget {
  #lost = new Set();

  get lost() {
    return this.#lost.size > 0;
  }

  /** Notes that a stream was lost. */
  drop(stream) {
    this.#lost.add(stream);
    this.dispatchEvent(new Event('change'));
  }

  /** Notes that a stream is heard again, or is not wanted any more. */
  restore(stream) {
    if (this.#lost.delete(stream)) this.dispatchEvent(new Event('change'));
  }

  /** Lets every lost stream try at once. */
  hurry() {
    for (const stream of this.#lost) stream.hurry();
  }
}

/** The page's connection. */
export const connection = new Connection();

addEventListener('online', () => connection.hurry());
