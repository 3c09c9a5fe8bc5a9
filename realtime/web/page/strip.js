/**
 * The coded strip below a picture: a number that survives JPEG, scaling and video codecs.
 *
 * 32 cells of equal width, white is 1: 1 0, sixteen bits of the number, twelve check bits, 0 1.
 * The server reads and draws the same one (realtime/web/strip.py).
 */

/** Height of the strip that is drawn, in pixels. */
export const STRIP_PX = 16;
/** Numbers go round: they are modulo this. */
export const NUMBERS = 1 << 16;

const CELLS = 32;
/** Multiplicative hashing (D. Knuth, The Art of Computer Programming, volume 3, 1973, 6.4). */
const MULTIPLIER = 2654435761;
/** Levels (0 to 255) between black and white; less than this is no strip. */
const LEAST_CONTRAST = 64;
/** A cell this near to the middle of black and white (in parts of their distance) is neither. */
const LEAST_MARGIN = 0.2;

/**
 * @param {number} number 0 to 65535.
 * @returns {number[]} the 32 cells from the left, 1 is white.
 */
export function cellsOf(number) {
  const check = Math.imul(number, MULTIPLIER) >>> 20;
  const cells = [1, 0];
  for (let bit = 15; bit >= 0; bit--) cells.push((number >> bit) & 1);
  for (let bit = 11; bit >= 0; bit--) cells.push((check >> bit) & 1);
  cells.push(0, 1);
  return cells;
}

/**
 * Draw a number over the full width of a canvas.
 * @param {CanvasRenderingContext2D} context
 * @param {number} top_px first row of the strip.
 * @param {number} width_px
 * @param {number} number 0 to 65535.
 */
export function drawStrip(context, top_px, width_px, number) {
  const cells = cellsOf(number);
  context.fillStyle = "#000";
  context.fillRect(0, top_px, width_px, STRIP_PX);
  context.fillStyle = "#fff";
  cells.forEach((cell, i) => {
    if (!cell) return;
    const left = Math.floor((i * width_px) / CELLS);
    const right = Math.floor(((i + 1) * width_px) / CELLS);
    context.fillRect(left, top_px, right - left, STRIP_PX);
  });
}

/**
 * Read the number of a strip that may have been scaled.
 * @param {ImageData} strip RGBA, the strip and nothing else; 64 pixels wide or more.
 * @returns {number|null} null where it cannot be read.
 */
export function readStrip(strip) {
  const levels = meanLevels(strip);
  const white = (levels[0] + levels[CELLS - 1]) / 2;
  const black = (levels[1] + levels[CELLS - 2]) / 2;
  if (white - black < LEAST_CONTRAST) return null;
  let number = 0;
  const found = [];
  for (let i = 0; i < CELLS; i++) {
    const part = (levels[i] - black) / (white - black);
    if (Math.abs(part - 0.5) < LEAST_MARGIN) return null;
    found.push(part > 0.5 ? 1 : 0);
    if (i >= 2 && i < 18) number = number * 2 + found[i];
  }
  return cellsOf(number).every((cell, i) => cell === found[i]) ? number : null;
}

/**
 * @param {ImageData} strip
 * @returns {number[]} the mean green of each cell's middle: its neighbours bleed in at the borders.
 */
function meanLevels({ data, width, height }) {
  const top = Math.floor(height / 4);
  const bottom = Math.max(top + 1, height - top);
  const levels = [];
  for (let i = 0; i < CELLS; i++) {
    const left = Math.floor((i * width) / CELLS);
    const right = Math.floor(((i + 1) * width) / CELLS);
    const quarter = Math.floor((right - left) / 4);
    let sum = 0;
    let count = 0;
    for (let y = top; y < bottom; y++) {
      for (let x = left + quarter; x < right - quarter; x++) {
        sum += data[(y * width + x) * 4 + 1];
        count++;
      }
    }
    levels.push(sum / count);
  }
  return levels;
}
