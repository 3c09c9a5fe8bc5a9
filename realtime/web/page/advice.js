/** Says when a WebSocket is no good any more: pictures spend their time on the line. */

/** Milliseconds on the line (round trip less the server's own age) that are too many. */
const SLOW_LINE_MS = 300;
/** Seconds in a row after which it is no accident. */
const PATIENCE_S = 5;

export class Advice {
  #slow_s = 0;

  /**
   * Look once a second.
   * @param {{roundTrip: {p50: number|null}, serverAge: {p50: number|null}}} summary of measures.js.
   * @param {boolean} isJammed whether pictures wait in the socket.
   * @returns {boolean} whether another transport should be tried.
   */
  isBehind(summary, isJammed) {
    const line_ms = (summary.roundTrip.p50 ?? 0) - (summary.serverAge.p50 ?? 0);
    this.#slow_s = isJammed || line_ms > SLOW_LINE_MS ? this.#slow_s + 1 : 0;
    return this.#slow_s >= PATIENCE_S;
  }
}
