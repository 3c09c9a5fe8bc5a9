/** The camera of this device, in a hidden <video>. */

/** What went wrong with a camera: `kind` is a key of CAMERA_PROBLEMS in words.js. */
export class CameraError extends Error {
  /** @param {string} kind @param {string} [detail] */
  constructor(kind, detail = "") {
    super(detail);
    this.kind = kind;
  }
}

const KINDS = {
  NotAllowedError: "denied",
  SecurityError: "denied",
  NotFoundError: "missing",
  OverconstrainedError: "missing",
  NotReadableError: "busy",
  AbortError: "busy",
};

export class Camera {
  #stream = null;
  /** Counts openings: one that was overtaken must not take its camera. */
  #opening = 0;
  /** Called when the camera is unplugged or taken away. */
  onEnded = () => {};
  /** Called when its pictures change their size: a phone was turned. */
  onTurned = () => {};

  /** @param {HTMLVideoElement} video */
  constructor(video) {
    this.video = video;
    video.addEventListener("resize", () => {
      if (this.isOpen) this.onTurned();
    });
  }

  get isOpen() {
    return this.#track?.readyState === "live";
  }

  /** @returns {[number, number]} width and height of its pictures, in pixels. */
  get size() {
    return [this.video.videoWidth, this.video.videoHeight];
  }

  get #track() {
    return this.#stream?.getVideoTracks()[0];
  }

  /** The id of the camera that is open; "" where none is. */
  get id() {
    return this.#track?.getSettings().deviceId ?? "";
  }

  /** Whether it looks at the person in front of the screen, as far as is known. */
  get facesUser() {
    const facing = this.#track?.getSettings().facingMode;
    return facing !== "environment" && !/\b(back|rear)\b/i.test(this.#track?.label ?? "");
  }

  /**
   * Open a camera; one that is open is closed first.
   * @param {{id?: string, facing?: "user"|"environment", longSide_px: number}} wish
   * @throws {CameraError}
   */
  async open({ id, facing, longSide_px }) {
    this.close();
    if (!window.isSecureContext || !navigator.mediaDevices?.getUserMedia) {
      throw new CameraError("insecure");
    }
    const video = { ...sizeWish(longSide_px), frameRate: { ideal: 30 } };
    if (id) video.deviceId = { exact: id };
    else video.facingMode = { ideal: facing ?? "user" };
    const mine = this.#opening;
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video, audio: false });
    } catch (error) {
      // A camera that was remembered may be gone: any other one is better than none.
      if (id && ["OverconstrainedError", "NotFoundError"].includes(error.name)) {
        return this.open({ facing, longSide_px });
      }
      throw new CameraError(KINDS[error.name] ?? "other", error.message || error.name);
    }
    if (mine !== this.#opening) {
      stream.getTracks().forEach((track) => track.stop());
      throw new CameraError("overtaken");
    }
    this.#stream = stream;
    this.#track.addEventListener("ended", () => this.onEnded());
    this.video.srcObject = this.#stream;
    await this.video.play().catch((error) => {
      throw new CameraError("other", error.message);
    });
  }

  /** Ask an open camera for another size; one that cannot keeps its own. */
  async ask(longSide_px) {
    await this.#track?.applyConstraints(sizeWish(longSide_px)).catch(() => {});
  }

  close() {
    this.#opening++;
    this.#stream?.getTracks().forEach((track) => track.stop());
    this.#stream = null;
    this.video.srcObject = null;
  }
}

/** @returns {Promise<{id: string, name: string}[]>} cameras; named only after permission. */
export async function listCameras() {
  const devices = (await navigator.mediaDevices?.enumerateDevices?.()) ?? [];
  return devices
    .filter((device) => device.kind === "videoinput" && device.deviceId)
    .map((device, i) => ({ id: device.deviceId, name: device.label || `Camera ${i + 1}` }));
}

/**
 * Call back for each new frame of a video.
 * @param {HTMLVideoElement} video
 * @param {(now_ms: number) => void} callback gets performance.now().
 * @returns {() => void} stops it.
 */
export function everyFrame(video, callback) {
  let handle = 0;
  let time_s = -1;
  const exact = "requestVideoFrameCallback" in video;
  const next = () => {
    handle = exact ? video.requestVideoFrameCallback(step) : requestAnimationFrame(step);
  };
  const step = () => {
    next();
    if (!exact && (video.currentTime === time_s || video.readyState < 2)) return;
    time_s = video.currentTime;
    callback(performance.now());
  };
  next();
  return () => (exact ? video.cancelVideoFrameCallback(handle) : cancelAnimationFrame(handle));
}

/**
 * The size of the pictures that are sent: the camera's shape, never larger than it gives.
 * @param {number} longSide_px
 * @param {[number, number]} camera width and height.
 * @param {[number, number]} most the server's largest, either way round.
 * @returns {[number, number]} even width and height.
 */
export function pictureSize(longSide_px, [width, height], most) {
  const long = Math.max(...most);
  const short = Math.min(...most);
  const scale = Math.min(
    1,
    longSide_px / Math.max(width, height),
    long / Math.max(width, height),
    short / Math.min(width, height),
  );
  const even = (side) => Math.max(16, Math.round((side * scale) / 2) * 2);
  return [even(width), even(height)];
}

function sizeWish(longSide_px) {
  return {
    width: { ideal: longSide_px },
    height: { ideal: Math.round((longSide_px * 9) / 16) },
    // The camera's own shape: a browser would crop what stands upright. We scale ourselves.
    resizeMode: { ideal: "none" },
  };
}
