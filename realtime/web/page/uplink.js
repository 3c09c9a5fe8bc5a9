/** The camera's pictures to the server as JPEG: the freshest wins, nothing queues. */

/** Pictures on their way at a time: being encoded, sent, translated, on the way back. */
const UNDER_WAY = 3;
/** A picture that did not return for so long was dropped on the way. */
const LOST_AFTER_MS = 2000;
/** What a server needs at most besides translating, and some camera frame's time. */
const LEAD_MS = 45;
/** How much the latest value counts in a running mean. */
const LATEST = 0.3;
/** Bytes that may wait in the socket before another picture is added. */
const FREE_WAITING_BYTES = 32_768;

export class Uplink {
  /** JPEG quality, 1 to 100. */
  quality = 80;
  #shots;
  #video;
  #link;
  #measures;
  #keepJpeg;
  /** @type {{number: number, at_ms: number}[]} oldest first. */
  #underWay = [];
  /** Running means: between two pictures that return; of a round trip, what is not the server's. */
  #interval_ms = 0;
  #line_ms = 0;
  #returned_ms = 0;
  #fresh_ms = null;
  #encoding = false;
  #closed = false;
  #lastBytes = 0;

  /**
   * @param {{shots: import("./shots.js").Shots, video: HTMLVideoElement,
   *   link: import("./link.js").Link, measures: import("./measures.js").Measures,
   *   keepJpeg: boolean}} parts
   */
  constructor({ shots, video, link, measures, keepJpeg }) {
    this.#shots = shots;
    this.#video = video;
    this.#link = link;
    this.#measures = measures;
    this.#keepJpeg = keepJpeg;
  }

  /** The camera has a new frame. @param {number} now_ms */
  offer(now_ms) {
    if (this.#fresh_ms !== null) this.#measures.dropped++;
    this.#fresh_ms = now_ms;
    this.#pump();
  }

  /**
   * A picture came back: it and older ones are no longer under way.
   * @param {number|null} number of its strip.
   * @param {number} age_ms how long the server had it.
   */
  returned(number, age_ms) {
    // Without a number: the oldest one, so that the pictures go on.
    const place = number === null ? 0 : this.#underWay.findIndex((item) => item.number === number);
    if (place >= 0) {
      const now_ms = performance.now();
      const { at_ms } = this.#underWay[place];
      this.#line_ms += LATEST * (Math.max(0, now_ms - at_ms - age_ms) - this.#line_ms);
      const interval_ms = Math.min(LOST_AFTER_MS, now_ms - this.#returned_ms);
      if (this.#returned_ms) this.#interval_ms += LATEST * (interval_ms - this.#interval_ms);
      this.#returned_ms = now_ms;
      this.#underWay.splice(0, place + 1);
    }
    this.#pump();
  }

  /**
   * How long to wait after a picture returned while another one is under way: what is sent earlier
   * to a slow server only waits there, and grows old.
   */
  get #hold_ms() {
    return this.#interval_ms - this.#line_ms - LEAD_MS;
  }

  /** Whether the line is so slow that pictures wait in the socket. */
  get isJammed() {
    return this.#link.waitingBytes > Math.max(FREE_WAITING_BYTES, this.#lastBytes / 2);
  }

  close() {
    this.#closed = true;
  }

  #pump() {
    if (this.#closed || this.#encoding || this.#fresh_ms === null || this.isJammed) return;
    const now_ms = performance.now();
    while (this.#underWay.length && now_ms - this.#underWay[0].at_ms > LOST_AFTER_MS) {
      this.#underWay.shift();
    }
    const isSlow = this.#hold_ms > 0;
    if (this.#underWay.length >= (isSlow ? UNDER_WAY - 1 : UNDER_WAY)) return;
    if (isSlow && this.#underWay.length && now_ms - this.#returned_ms < this.#hold_ms) return;
    const shot = this.#shots.take(this.#video, this.#fresh_ms);
    this.#fresh_ms = null;
    this.#encoding = true;
    const entry = { number: shot.number, at_ms: now_ms };
    this.#underWay.push(entry);
    shot.canvas.toBlob((jpeg) => this.#encoded(shot, jpeg), "image/jpeg", this.quality / 100);
  }

  #encoded(shot, jpeg) {
    this.#encoding = false;
    if (this.#closed || jpeg === null) return;
    if (this.#keepJpeg) shot.jpeg = jpeg;
    this.#lastBytes = jpeg.size;
    this.#measures.sent++;
    this.#link.sendPicture(jpeg);
    this.#pump();
  }
}
