/** Pictures from the server to the stage: decoded one at a time, the newest first. */

export class Downlink {
  #link;
  #show;
  #waiting = null;
  #decoding = false;
  #closed = false;

  /**
   * @param {import("./link.js").Link} link
   * @param {(bitmap: ImageBitmap, picture: import("./link.js").Arrived) => number|null} show
   *   draws it; returns the round trip in milliseconds where it is known.
   */
  constructor(link, show) {
    this.#link = link;
    this.#show = show;
    this.#onVisible = () => {
      if (!document.hidden) this.#decode();
    };
    document.addEventListener("visibilitychange", this.#onVisible);
  }

  #onVisible;

  /** @param {import("./link.js").Arrived} picture */
  take(picture) {
    if (this.#waiting) this.#shown(this.#waiting, null);
    this.#waiting = picture;
    this.#decode();
  }

  close() {
    this.#closed = true;
    document.removeEventListener("visibilitychange", this.#onVisible);
  }

  async #decode() {
    // Nobody looks: what is not acknowledged holds the server back.
    if (this.#decoding || this.#closed || document.hidden) return;
    this.#decoding = true;
    while (this.#waiting && !this.#closed) {
      const picture = this.#waiting;
      this.#waiting = null;
      let roundTrip_ms = null;
      try {
        const bitmap = await createImageBitmap(picture.jpeg);
        if (this.#closed) bitmap.close();
        else roundTrip_ms = this.#show(bitmap, picture);
      } catch {
        // A broken picture is a lost one; the next one comes.
      }
      this.#shown(picture, roundTrip_ms);
    }
    this.#decoding = false;
  }

  #shown(picture, roundTrip_ms) {
    if (this.#closed) return;
    const measured = roundTrip_ms === null ? null : Math.round(roundTrip_ms * 10) / 10;
    this.#link.send({ type: "shown", index: picture.index, round_trip_ms: measured });
  }
}
