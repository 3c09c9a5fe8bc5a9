/** What the page measures of itself: round trips, pictures shown, sent and dropped. */

/** Seconds that are remembered. */
const REMEMBERED_S = 30;
/** Seconds over which figures are taken unless asked otherwise. */
export const RECENT_S = 2;

/**
 * @param {number[]} values
 * @param {number} part 0 to 1.
 * @returns {number|null} the percentile (nearest rank); null of nothing.
 */
export function percentile(values, part) {
  if (!values.length) return null;
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.max(0, Math.ceil(part * sorted.length) - 1))];
}

/** Values of the last seconds. */
class Recent {
  #items = [];

  /** @param {number} value @param {number} now_ms */
  add(value, now_ms) {
    this.#items.push([now_ms, value]);
    if (this.#items[0][0] < now_ms - REMEMBERED_S * 2000) this.#forget(now_ms);
  }

  /** @param {number} seconds @param {number} now_ms @returns {number[]} */
  values(seconds, now_ms) {
    const items = this.#items;
    let first = items.length;
    while (first > 0 && items[first - 1][0] > now_ms - seconds * 1000) first--;
    return items.slice(first).map((item) => item[1]);
  }

  #forget(now_ms) {
    this.#items = this.#items.filter((item) => item[0] > now_ms - REMEMBERED_S * 1000);
  }
}

/** All measures of what runs now; a new one for each start. */
export class Measures {
  sent = 0;
  /** Camera frames that were not sent because newer ones came first. */
  dropped = 0;
  shown = 0;
  #began_ms = performance.now();
  #roundTrips = new Recent();
  #serverAges = new Recent();
  #showings = new Recent();

  /**
   * A translated picture is on the screen.
   * @param {number} now_ms
   * @param {number|null} roundTrip_ms from the camera's frame to now.
   * @param {number|null} serverAge_ms how long the server had it.
   */
  addShown(now_ms, roundTrip_ms, serverAge_ms) {
    this.shown++;
    this.#showings.add(0, now_ms);
    if (roundTrip_ms !== null) this.#roundTrips.add(roundTrip_ms, now_ms);
    if (serverAge_ms !== null) this.#serverAges.add(serverAge_ms, now_ms);
  }

  /**
   * @param {number} [seconds] over how long, at most 30.
   * @returns {{fps: number, roundTrip: Figure, serverAge: Figure, shown: number, sent: number,
   *   dropped: number}} where Figure is {p50: number|null, p95: number|null, samples: number}, ms.
   */
  summary(seconds = RECENT_S) {
    const now_ms = performance.now();
    const span_s = Math.min(seconds, Math.max(0.5, (now_ms - this.#began_ms) / 1000));
    return {
      fps: this.#showings.values(span_s, now_ms).length / span_s,
      roundTrip: figure(this.#roundTrips.values(span_s, now_ms)),
      serverAge: figure(this.#serverAges.values(span_s, now_ms)),
      shown: this.shown,
      sent: this.sent,
      dropped: this.dropped,
    };
  }
}

/** @param {number[]} values */
function figure(values) {
  return { p50: percentile(values, 0.5), p95: percentile(values, 0.95), samples: values.length };
}
