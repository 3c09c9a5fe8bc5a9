/** WebRTC both ways: for lossy and far networks. The strip carries the pictures' numbers. */

import { everyFrame } from "./camera.js";
import { STRIP_PX, readStrip } from "./strip.js";

/** Without a picture for so long after the answer, there is no way through. */
const FIRST_PICTURE_WITHIN_MS = 10_000;
const CANDIDATES_WITHIN_MS = 3000;
/** Width in which the strip is read: eight columns a cell. */
const READ_PX = 256;
/** Bits a pixel and second that a clean picture may take. */
const BITS_PER_PIXEL_S = 6;

export class Peer {
  #connection = new RTCPeerConnection({ iceServers: [] });
  #sending = document.createElement("canvas");
  #sendingContext = this.#sending.getContext("2d", { alpha: false });
  #reading = document.createElement("canvas");
  #readingContext;
  #video;
  #size;
  #onFailed;
  #stopFrames = () => {};
  #timer = 0;
  #closed = false;

  /**
   * @param {{size: [number, number], video: HTMLVideoElement,
   *   onPicture: (number: number|null, part: number[]) => void,
   *   onFailed: (reason: string) => void}} parts `video` gets what returns; `part` is where in it
   *   the picture is, [x, y, width, height] in pixels.
   */
  constructor({ size, video, onPicture, onFailed }) {
    this.#size = size;
    this.#video = video;
    this.#onFailed = onFailed;
    [this.#sending.width, this.#sending.height] = [size[0], size[1] + STRIP_PX];
    [this.#reading.width, this.#reading.height] = [READ_PX, STRIP_PX];
    this.#readingContext = this.#reading.getContext("2d", {
      alpha: false,
      willReadFrequently: true,
    });
    this.#connection.ontrack = (event) => this.#receive(event, onPicture);
    this.#connection.onconnectionstatechange = () => {
      if (this.#connection.connectionState === "failed") this.#fail("the connection has failed");
    };
  }

  /** @returns {Promise<string>} the offer, with all candidates in it. */
  async offer() {
    const connection = this.#connection;
    const stream = this.#sending.captureStream();
    const [track] = stream.getVideoTracks();
    track.contentHint = "motion";
    const sender = connection.addTrack(track, stream);
    await connection.setLocalDescription(await connection.createOffer());
    await this.#keepResolution(sender);
    await candidates(connection);
    return connection.localDescription.sdp;
  }

  /** @param {string} sdp of the server. */
  async answer(sdp) {
    await this.#connection.setRemoteDescription({ type: "answer", sdp });
    const late = () => this.#fail("no picture came back");
    if (!this.#closed) this.#timer = setTimeout(late, FIRST_PICTURE_WITHIN_MS);
  }

  /** Send a picture. @param {HTMLCanvasElement} canvas with its strip. */
  send(canvas) {
    this.#sendingContext.drawImage(canvas, 0, 0);
  }

  close() {
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#stopFrames();
    this.#connection.close();
    this.#sending.width = this.#sending.height = 0;
    this.#video.srcObject = null;
  }

  #fail(reason) {
    if (this.#closed) return;
    this.close();
    this.#onFailed(reason);
  }

  async #keepResolution(sender) {
    const parameters = sender.getParameters();
    parameters.degradationPreference = "maintain-resolution";
    for (const encoding of parameters.encodings ?? []) {
      encoding.maxBitrate = Math.round(this.#size[0] * this.#size[1] * BITS_PER_PIXEL_S);
    }
    await sender.setParameters(parameters).catch(() => {}); // not every browser can
  }

  #receive(event, onPicture) {
    event.receiver.jitterBufferTarget = 0;
    const video = this.#video;
    video.srcObject = event.streams[0] ?? new MediaStream([event.track]);
    video.play().catch(() => {});
    const [, height] = this.#size;
    this.#stopFrames = everyFrame(video, () => {
      clearTimeout(this.#timer);
      const { videoWidth, videoHeight } = video;
      const rows = (videoHeight * height) / (height + STRIP_PX);
      const strip = [0, rows, videoWidth, videoHeight - rows];
      this.#readingContext.drawImage(video, ...strip, 0, 0, READ_PX, STRIP_PX);
      const number = readStrip(this.#readingContext.getImageData(0, 0, READ_PX, STRIP_PX));
      onPicture(number, [0, 0, videoWidth, Math.floor(rows)]);
    });
  }
}

/** Wait for the candidates: they are few where no server is asked. */
function candidates(connection) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, CANDIDATES_WITHIN_MS);
    const look = () => {
      if (connection.iceGatheringState !== "complete") return;
      clearTimeout(timer);
      resolve();
    };
    connection.addEventListener("icegatheringstatechange", look);
    look();
  });
}
