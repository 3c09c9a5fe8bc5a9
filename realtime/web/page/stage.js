/** The visible canvas: the translated picture; left of the split, the camera's of that moment. */

/**
 * @typedef {object} Scene What is to be seen; all rectangles are [x, y, width, height] in pixels.
 * @property {CanvasImageSource} after
 * @property {number[]} afterPart
 * @property {CanvasImageSource|null} before
 * @property {number[]} [beforePart]
 */

export class Stage {
  /** Whether the camera's picture is shown left of the split. */
  compare = false;
  /** Whether both are mirrored. */
  mirror = false;
  /** Where the split is: 0 (left border) to 1. */
  split = 0.5;
  /** Called when the size has changed. */
  onResized = () => {};
  /** @type {Scene|null} */
  #scene = null;
  #context;

  /** @param {HTMLCanvasElement} canvas @param {HTMLElement} frame gets --aspect. */
  constructor(canvas, frame) {
    this.canvas = canvas;
    this.frame = frame;
    this.#context = canvas.getContext("2d", { alpha: false });
  }

  /** Whether there is anything to be seen. */
  get isEmpty() {
    return this.#scene === null;
  }

  /** @param {number} width @param {number} height pixels of one picture. */
  resize(width, height) {
    this.frame.style.setProperty("--aspect", String(width / height));
    if (this.canvas.width === width && this.canvas.height === height) return;
    this.canvas.width = width;
    this.canvas.height = height;
    this.onResized();
    this.redraw();
  }

  /** @param {Scene} scene; what it holds must stay as it is until the next one. */
  show(scene) {
    this.#scene = scene;
    this.redraw();
  }

  /** Forget the picture. */
  clear() {
    this.#scene = null;
    this.redraw();
  }

  redraw() {
    const { width, height } = this.canvas;
    const context = this.#context;
    if (!this.#scene) {
      context.fillStyle = "#000";
      context.fillRect(0, 0, width, height);
      return;
    }
    const { after, afterPart, before, beforePart } = this.#scene;
    this.#draw(after, afterPart);
    const edge = Math.round(this.split * width);
    if (!this.compare || !before || edge <= 0) return;
    context.save();
    context.beginPath();
    context.rect(0, 0, edge, height);
    context.clip();
    this.#draw(before, beforePart);
    context.restore();
  }

  #draw(image, part) {
    const { width, height } = this.canvas;
    if (this.mirror) this.#context.setTransform(-1, 0, 0, 1, width, 0);
    this.#context.drawImage(image, ...part, 0, 0, width, height);
    this.#context.setTransform(1, 0, 0, 1, 0, 0);
  }
}
