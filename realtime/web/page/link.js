/** The WebSocket to the server: JSON texts and pictures. */

/** A server that does not answer for so long is gone. */
const OPENS_WITHIN_MS = 8000;
/** Bytes before the JPEG of a picture that comes: five uint32, little endian. */
const HEADER_BYTES = 20;
const NO_NUMBER = 0xffffffff;

/**
 * @typedef {object} Arrived A picture that came.
 * @property {number} index number of the frame at the source; to be acknowledged.
 * @property {number|null} number the strip's number; null: none.
 * @property {number} age_ms how long the server had it.
 * @property {Blob} jpeg
 */

export class Link {
  #socket = null;
  #hooks;
  /** When the last message came, performance.now(). */
  heard_ms = 0;

  /** @param {{text: (message: object) => void, picture: (picture: Arrived) => void,
   *   closed: () => void}} hooks `closed`: an open link has gone. */
  constructor(hooks) {
    this.#hooks = hooks;
  }

  get isOpen() {
    return this.#socket?.readyState === WebSocket.OPEN;
  }

  /** Bytes that wait on this side. */
  get waitingBytes() {
    return this.#socket?.bufferedAmount ?? 0;
  }

  /** @returns {Promise<void>} rejected where the server cannot be reached. */
  open() {
    if (this.isOpen) return Promise.resolve();
    this.close();
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(`${scheme}//${location.host}/ws`);
    socket.binaryType = "arraybuffer";
    this.#socket = socket;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => socket.close(), OPENS_WITHIN_MS);
      let opened = false;
      socket.onopen = () => {
        opened = true;
        clearTimeout(timer);
        this.heard_ms = performance.now();
        resolve();
      };
      socket.onmessage = (event) => this.#hear(event.data);
      socket.onclose = () => {
        clearTimeout(timer);
        if (this.#socket !== socket) return;
        this.#socket = null;
        if (opened) this.#hooks.closed();
        else reject(new Error("the server does not answer"));
      };
    });
  }

  /** @param {object} message */
  send(message) {
    if (this.isOpen) this.#socket.send(JSON.stringify(message));
  }

  /** @param {Blob} jpeg */
  sendPicture(jpeg) {
    if (this.isOpen) this.#socket.send(jpeg);
  }

  /** Close without a word to the hooks. */
  close() {
    const socket = this.#socket;
    this.#socket = null;
    socket?.close();
  }

  #hear(data) {
    this.heard_ms = performance.now();
    if (typeof data === "string") {
      this.#hooks.text(JSON.parse(data));
      return;
    }
    if (data.byteLength <= HEADER_BYTES) return;
    const header = new DataView(data);
    const number = header.getUint32(4, true);
    this.#hooks.picture({
      index: header.getUint32(0, true),
      number: number === NO_NUMBER ? null : number,
      age_ms: header.getUint32(8, true) / 1000,
      jpeg: new Blob([new Uint8Array(data, HEADER_BYTES)], { type: "image/jpeg" }),
    });
  }
}
