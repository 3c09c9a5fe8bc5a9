/** One run with the camera of this device: up as JPEG or WebRTC, and back to the stage. */

import { everyFrame } from "./camera.js";
import { Downlink } from "./downlink.js";
import { Peer } from "./peer.js";
import { Shots } from "./shots.js";
import { Uplink } from "./uplink.js";

export class OwnCamera {
  /** {number, sent, returned}: the last picture and what became of it; kept for debugging only. */
  pair = null;
  #parts;
  #shots;
  #stopFrames;
  #uplink = null;
  #downlink = null;
  #peer = null;
  #after = null;
  /** What the stage shows now: its canvas must not be drawn to. */
  #shot = null;
  #bitmap = null;
  #number = null;

  /**
   * @param {{camera: import("./camera.js").Camera, link: import("./link.js").Link,
   *   stage: import("./stage.js").Stage, measures: import("./measures.js").Measures,
   *   size: [number, number], quality: number, transport: "websocket"|"webrtc",
   *   returned: HTMLVideoElement, debug: boolean, onPeerFailed: (reason: string) => void}} parts
   */
  constructor(parts) {
    this.#parts = parts;
    const { camera, link, size, quality, transport, measures, debug, stage } = parts;
    this.#shots = new Shots(size);
    stage.resize(...size);
    if (transport === "webrtc") {
      this.#openPeer();
    } else {
      this.#uplink = new Uplink({
        shots: this.#shots,
        video: camera.video,
        link,
        measures,
        keepJpeg: debug,
      });
      this.#uplink.quality = quality;
      this.#downlink = new Downlink(link, (bitmap, picture) => this.#show(bitmap, picture));
    }
    this.#stopFrames = everyFrame(camera.video, (now_ms) => this.#offer(now_ms));
  }

  /** Whether the line up is too slow for the pictures. */
  get isJammed() {
    return this.#uplink?.isJammed ?? false;
  }

  /** @param {import("./link.js").Arrived} picture */
  picture(picture) {
    this.#uplink?.returned(picture.number, picture.age_ms);
    this.#downlink?.take(picture);
  }

  /** @param {number} quality 30 to 95. */
  setQuality(quality) {
    if (this.#uplink) this.#uplink.quality = quality;
  }

  /** @param {string} sdp of the server, after our offer. */
  answer(sdp) {
    this.#peer?.answer(sdp).catch((error) => this.#parts.onPeerFailed(error.message));
  }

  close() {
    this.#stopFrames();
    this.#uplink?.close();
    this.#downlink?.close();
    this.#peer?.close();
  }

  #offer(now_ms) {
    if (document.hidden) return;
    if (this.#uplink) {
      this.#uplink.offer(now_ms);
    } else if (this.#peer) {
      this.#peer.send(this.#shots.take(this.#parts.camera.video, now_ms).canvas);
      this.#parts.measures.sent++;
    }
  }

  /** Draw what came by WebSocket. */
  #show(bitmap, picture) {
    const shot = this.#shots.claim(picture.number);
    const after = { after: bitmap, afterPart: [0, 0, bitmap.width, bitmap.height] };
    const roundTrip_ms = this.#draw(after, shot, picture.age_ms);
    this.#bitmap?.close();
    this.#bitmap = bitmap;
    if (this.#parts.debug && shot?.jpeg) {
      this.pair = { number: shot.number, sent: shot.jpeg, returned: picture.jpeg };
    }
    return roundTrip_ms;
  }

  #draw(after, shot, serverAge_ms) {
    const { stage, size, measures } = this.#parts;
    const before = (shot ?? this.#shot)?.canvas ?? null;
    stage.show({ ...after, before, beforePart: [0, 0, ...size] });
    const now_ms = performance.now();
    const roundTrip_ms = shot ? now_ms - shot.at_ms : null;
    measures.addShown(now_ms, roundTrip_ms, serverAge_ms);
    if (shot) {
      if (this.#shot) this.#shots.free(this.#shot);
      this.#shot = shot;
    }
    return roundTrip_ms;
  }

  async #openPeer() {
    const { size, returned, link, onPeerFailed } = this.#parts;
    this.#after = document.createElement("canvas");
    [this.#after.width, this.#after.height] = size;
    const context = this.#after.getContext("2d", { alpha: false });
    this.#peer = new Peer({
      size,
      video: returned,
      onFailed: onPeerFailed,
      onPicture: (number, part) => {
        if (number !== null && number === this.#number) return;
        this.#number = number;
        // A copy: the video runs on while somebody drags the split.
        context.drawImage(returned, ...part, 0, 0, ...size);
        const after = { after: this.#after, afterPart: [0, 0, ...size] };
        const roundTrip_ms = this.#draw(after, this.#shots.claim(number), null);
        if (roundTrip_ms === null) return;
        link.send({ type: "shown", index: 0, round_trip_ms: Math.round(roundTrip_ms * 10) / 10 });
      },
    });
    try {
      link.send({ type: "offer", sdp: await this.#peer.offer() });
    } catch (error) {
      onPeerFailed(error.message);
    }
  }
}
