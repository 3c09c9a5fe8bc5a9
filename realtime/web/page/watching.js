/** One run of watching a session: pictures come, nothing is sent. */

import { Downlink } from "./downlink.js";

const PING_EVERY_MS = 2000;
const PINGS_KEPT = 5;
/** A small file of the page: the WebSocket's own pings are not visible to pages. */
const PING_ADDRESS = "/page/icon.svg";

export class Watching {
  isJammed = false;
  pair = null;
  #stage;
  #measures;
  #downlink;
  #isDouble;
  #bitmap = null;
  #pings;
  #timer;

  /**
   * @param {{link: import("./link.js").Link, stage: import("./stage.js").Stage,
   *   measures: import("./measures.js").Measures, view: "filtered"|"side-by-side",
   *   pings: number[]}} parts `pings`: the latest round trips, of the run before too: the way is
   *   the same.
   */
  constructor({ link, stage, measures, view, pings }) {
    this.#stage = stage;
    this.#measures = measures;
    this.#isDouble = view === "side-by-side";
    this.#pings = pings;
    this.#downlink = new Downlink(link, (bitmap, picture) => this.#show(bitmap, picture));
    this.#timer = setInterval(() => this.#ping(), PING_EVERY_MS);
    this.#ping();
  }

  /** Half of the quickest request and its answer of late, in milliseconds; null while unknown. */
  get way_ms() {
    // The slower ones waited for this computer or other requests, not for the line.
    return this.#pings.length > 1 ? Math.min(...this.#pings) / 2 : null;
  }

  /** @param {import("./link.js").Arrived} picture */
  picture(picture) {
    this.#downlink.take(picture);
  }

  close() {
    clearInterval(this.#timer);
    this.#downlink.close();
  }

  #show(bitmap, picture) {
    const { height } = bitmap;
    const width = this.#isDouble ? Math.floor(bitmap.width / 2) : bitmap.width;
    this.#stage.resize(width, height);
    this.#stage.show({
      after: bitmap,
      afterPart: [bitmap.width - width, 0, width, height],
      before: this.#isDouble ? bitmap : null,
      beforePart: [0, 0, width, height],
    });
    this.#measures.addShown(performance.now(), null, picture.age_ms);
    this.#bitmap?.close();
    this.#bitmap = bitmap;
    return null;
  }

  async #ping() {
    if (document.hidden) return;
    const began_ms = performance.now();
    try {
      await (await fetch(PING_ADDRESS, { cache: "no-store" })).arrayBuffer();
    } catch {
      return; // the socket will tell
    }
    this.#pings.push(performance.now() - began_ms);
    if (this.#pings.length > PINGS_KEPT) this.#pings.shift();
  }
}
