// The text of a running job, put together from deltas that state their place in
// bytes: repeated deltas change nothing, and one that differs begins the text anew
// from there. So a stream that is resumed or replayed leaves neither gap nor double.

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** The bytes of one text. */
export class Transcript {
  #bytes = new Uint8Array(1024);
  #length = 0;
  #early = []; // deltas beyond the end, until what lies between has come

  /** Bytes of text without a gap from the beginning. */
  get length() {
    return this.#length;
  }

  get text() {
    return decoder.decode(this.#bytes.subarray(0, this.#length));
  }

  /** Puts text at the byte offset. */
  place(text, offset) {
    this.#put(encoder.encode(text), offset);
    for (;;) {
      const index = this.#early.findIndex((delta) => delta.offset <= this.#length);
      if (index < 0) return;
      const [{ bytes, offset: start }] = this.#early.splice(index, 1);
      this.#put(bytes, start);
    }
  }

  #put(bytes, offset) {
    if (offset > this.#length) {
      this.#early.push({ bytes, offset });
      return;
    }
    const end = offset + bytes.length;
    if (this.#repeats(bytes, offset)) return;
    if (end > this.#bytes.length) {
      const grown = new Uint8Array(Math.max(end, 2 * this.#bytes.length));
      grown.set(this.#bytes.subarray(0, this.#length));
      this.#bytes = grown;
    }
    this.#bytes.set(bytes, offset);
    this.#length = end;
  }

  // Whether the text already reads so at the offset, and goes on at least as far.
  #repeats(bytes, offset) {
    if (offset + bytes.length > this.#length) return false;
    return bytes.every((byte, i) => this.#bytes[offset + i] === byte);
  }
}
