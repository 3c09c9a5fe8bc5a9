/** Pictures of the camera that are under way, each with its number: the before of what returns. */

import { NUMBERS, STRIP_PX, drawStrip } from "./strip.js";

/** More than this are never kept; WebRTC has several in its buffers. */
const MOST = 16;

/**
 * @typedef {object} Shot
 * @property {number} number of its strip.
 * @property {number} at_ms performance.now() when the camera gave it.
 * @property {HTMLCanvasElement} canvas the picture, and the strip below it.
 * @property {CanvasRenderingContext2D} context
 * @property {Blob|null} jpeg what was sent; kept for debugging only.
 */

export class Shots {
  #next = Math.floor(Math.random() * NUMBERS);
  /** @type {Map<number, Shot>} in the order in which they were taken. */
  #underWay = new Map();
  #free = [];
  #size;

  /** @param {[number, number]} size of the picture without the strip, in pixels. */
  constructor(size) {
    this.#size = size;
  }

  /**
   * Take a picture of what the video shows.
   * @param {HTMLVideoElement} video
   * @param {number} at_ms
   * @returns {Shot}
   */
  take(video, at_ms) {
    const [width, height] = this.#size;
    if (this.#underWay.size >= MOST) {
      const [oldest] = this.#underWay.values();
      this.#underWay.delete(oldest.number);
      this.#free.push(oldest);
    }
    const shot = this.#free.pop() ?? this.#make();
    shot.number = this.#next;
    shot.at_ms = at_ms;
    shot.jpeg = null;
    this.#next = (this.#next + 1) % NUMBERS;
    shot.context.drawImage(video, 0, 0, width, height);
    drawStrip(shot.context, height, width, shot.number);
    this.#underWay.set(shot.number, shot);
    return shot;
  }

  /**
   * Take out the one that came back; older ones are forgotten. Give it back with `free`.
   * @param {number|null} number
   * @returns {Shot|null} null where it is not known (any more).
   */
  claim(number) {
    const shot = this.#underWay.get(number);
    if (!shot) return null;
    for (const older of this.#underWay.values()) {
      this.#underWay.delete(older.number);
      if (older === shot) break;
      this.#free.push(older);
    }
    return shot;
  }

  /** @param {Shot} shot one that is no longer shown. */
  free(shot) {
    this.#free.push(shot);
  }

  #make() {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [this.#size[0], this.#size[1] + STRIP_PX];
    return { number: 0, at_ms: 0, canvas, context: canvas.getContext("2d", { alpha: false }) };
  }
}
