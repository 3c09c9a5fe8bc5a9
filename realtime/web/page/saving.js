/** Snapshots and recordings of what is shown, saved by this browser. */

/** The first one that the browser can write: MP4 plays everywhere, WebM nearly. */
const FORMATS = [
  ["video/mp4;codecs=avc1.42E01F", "mp4"],
  ["video/mp4;codecs=avc1", "mp4"],
  ["video/webm;codecs=vp9", "webm"],
  ["video/webm;codecs=vp8", "webm"],
  ["video/webm", "webm"],
];
const CHUNK_MS = 1000;
/** A clean picture at 640x360, and in proportion. */
const BITS_PER_PIXEL_S = 12;
/** The browser has read a file long before. */
const FORGET_FILE_MS = 60_000;

/**
 * @param {HTMLCanvasElement} canvas
 * @param {string} filter for the name of the file.
 * @returns {Promise<string>} the name of the file.
 */
export async function saveSnapshot(canvas, filter) {
  const png = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  return save(png, filter, "png");
}

/** Records a canvas; one recording at a time. */
export class Recording {
  #recorder = null;
  #began_ms = 0;
  /** Called when it begins and when it is over, with the name of the file then. */
  onChange = (_fileName) => {};

  /** @param {HTMLCanvasElement} canvas */
  constructor(canvas) {
    this.canvas = canvas;
  }

  get isPossible() {
    return "captureStream" in this.canvas && this.#format !== undefined;
  }

  get isRunning() {
    return this.#recorder !== null;
  }

  get seconds() {
    return this.isRunning ? (performance.now() - this.#began_ms) / 1000 : 0;
  }

  get #format() {
    return FORMATS.find(([type]) => window.MediaRecorder?.isTypeSupported(type));
  }

  /** @param {string} filter for the name of the file. */
  start(filter) {
    const [mimeType, suffix] = this.#format;
    const { width, height } = this.canvas;
    const stream = this.canvas.captureStream(30);
    const recorder = new MediaRecorder(stream, {
      mimeType,
      videoBitsPerSecond: Math.max(1_000_000, width * height * BITS_PER_PIXEL_S),
    });
    const chunks = [];
    recorder.ondataavailable = (event) => event.data.size && chunks.push(event.data);
    recorder.onstop = () => {
      stream.getTracks().forEach((track) => track.stop());
      this.#recorder = null;
      const file = new Blob(chunks, { type: mimeType.split(";")[0] });
      this.onChange(file.size ? save(file, filter, suffix) : "");
    };
    recorder.start(CHUNK_MS);
    this.#recorder = recorder;
    this.#began_ms = performance.now();
    this.onChange("");
  }

  /** End and save it, if one runs. */
  stop() {
    if (this.#recorder?.state === "recording") this.#recorder.stop();
  }
}

function save(blob, filter, suffix) {
  const now = new Date();
  const two = (number) => String(number).padStart(2, "0");
  const day = `${now.getFullYear()}${two(now.getMonth() + 1)}${two(now.getDate())}`;
  const time = `${two(now.getHours())}${two(now.getMinutes())}${two(now.getSeconds())}`;
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = `pix2live-${filter || "picture"}-${day}-${time}.${suffix}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), FORGET_FILE_MS);
  return link.download;
}
