// Whose key the browser sends, as far as a page may know: the key itself is in a cookie
// that no script can read.
//
// Events: "locked" when the server wants a key, "opened" when it has taken one, "known"
// whenever it has said who calls.

class Session extends EventTarget {
  locked = false;
  tenant = '';
  keyed = false; // whether the server wants keys at all

  /** Notes that the server wants a key. */
  lock() {
    if (this.locked) return;
    this.locked = true;
    this.dispatchEvent(new Event('locked'));
  }

  /** Notes who calls, as the server says. */
  open({ tenant, key_required: keyed }) {
    const { locked } = this;
    Object.assign(this, { locked: false, tenant, keyed });
    this.dispatchEvent(new Event('known'));
    if (locked) this.dispatchEvent(new Event('opened'));
  }
}

/** The page's session. */
export const session = new Session();
