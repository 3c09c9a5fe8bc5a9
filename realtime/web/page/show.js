/** What runs: states, the talk with the server, and how it comes back when something breaks. */

import { Advice } from "./advice.js";
import { CameraError, pictureSize } from "./camera.js";
import { Link } from "./link.js";
import { Measures } from "./measures.js";
import { OwnCamera } from "./own_camera.js";
import { Watching } from "./watching.js";
import * as words from "./words.js";

/** Seconds before each try to reach a server that has gone; then the last one again and again. */
const RETRY_AFTER_S = [1, 2, 4, 8, 10];
/** The server speaks twice a second: after so long without a word the line is dead. */
const SILENCE_MS = 8000;
const CROSSFADE_MS = 200;
/** A server that ends a session and then the line within this time is being stopped. */
const STOPS_WITHIN_MS = 10_000;
/** A phone that is being turned has settled after this. */
const TURNED_AFTER_MS = 400;

export class Show {
  /** A key of STATES in words.js. */
  state = "idle";
  /** @type {null|{kind: "camera"}|{kind: "watch", session: string}} what the person wants. */
  wanted = null;
  /** The server's "started" message, while it runs. */
  info = null;
  /** The server's latest short stats. */
  stats = null;
  /** @type {words.Problem|null} why it does not run. */
  problem = null;
  filter = "";
  /** The filter that is being opened; "" where none is. */
  pending = "";
  /** What the server lets us do. */
  server = { maxSize: [1920, 1080], transports: ["websocket"] };
  /** While it starts: whether the person may have to allow the camera first. */
  asksForCamera = false;
  /** Of what runs now. */
  transport = "websocket";
  measures = new Measures();
  run = null;
  #parts;
  #link;
  /** Width and height of the pictures that are sent, in pixels. */
  #sent = [0, 0];
  #advice = new Advice();
  /** Round trips of small requests, in milliseconds; while the line stays, they hold. */
  #pings = [];
  #autoTransport = "websocket";
  #turn = 0;
  #tries = 0;
  #retryTimer = 0;
  #turnedTimer = 0;
  #endedUnseen = false;
  #ended_ms = -Infinity;
  /** WebRTC was tried and did not get through: not again by itself. */
  #peerFails = false;

  /**
   * @param {{camera: import("./camera.js").Camera, stage: import("./stage.js").Stage,
   *   returned: HTMLVideoElement, settings: object, debug: boolean, onChange: () => void,
   *   onNote: (text: string) => void}} parts `onNote`: something to be said aloud and kept.
   */
  constructor(parts) {
    this.#parts = parts;
    this.#link = new Link({
      text: (message) => this.#hear(message),
      picture: (picture) => this.run?.picture(picture),
      closed: () => this.#gone(),
    });
    parts.camera.onEnded = () => this.#halt("ended", words.CAMERA_LOST);
    parts.camera.onTurned = () => this.#turned();
    setInterval(() => this.#look(), 1000);
    document.addEventListener("visibilitychange", () => this.#seen());
    window.addEventListener("online", () => this.state === "reconnecting" && this.retry());
  }

  startCamera() {
    this.wanted = { kind: "camera" };
    this.#autoTransport = "websocket";
    this.#begin();
  }

  /** @param {string} session its id. */
  watch(session) {
    this.wanted = { kind: "watch", session };
    this.#parts.camera.close();
    this.#begin();
  }

  stop() {
    this.wanted = null;
    this.#link.send({ type: "stop" });
    this.#parts.stage.clear();
    this.#halt("idle", null);
  }

  /** Try again what was wanted. */
  retry() {
    if (this.wanted) this.#begin();
  }

  /** Start again with other settings, if it runs; the last picture stays until the next comes. */
  restart() {
    if (["starting", "live", "watching"].includes(this.state)) this.#begin();
  }

  /** Show why nothing can be started. @param {words.Problem} problem */
  fail(problem) {
    this.#halt("failed", problem);
  }

  /** @param {string} name of a filter. */
  switchFilter(name) {
    if (!this.info) {
      this.filter = name;
      this.#changed();
      return;
    }
    this.pending = name === this.filter ? "" : name;
    const crossfade_ms = this.#parts.settings.crossfade ? CROSSFADE_MS : 0;
    this.#link.send({ type: "switch", filter: name, crossfade_ms });
    this.#changed();
  }

  /** @param {number} quality of JPEG, both ways. */
  setQuality(quality) {
    if (this.wanted?.kind !== "camera" || !this.info) return;
    this.run?.setQuality(quality);
    this.#link.send({ type: "quality", quality });
  }

  #changed() {
    this.#parts.onChange();
  }

  #set(state, problem = null) {
    this.state = state;
    this.problem = problem;
    this.#changed();
  }

  #closeRun() {
    clearTimeout(this.#retryTimer);
    clearTimeout(this.#turnedTimer);
    this.#turn++;
    this.run?.close();
    this.run = null;
    this.info = null;
    this.stats = null;
    this.pending = "";
  }

  /** Nothing runs any more, and the camera's light goes out. */
  #halt(state, problem) {
    const ranHere = this.info !== null;
    this.#closeRun();
    this.#parts.camera.close();
    if (ranHere) this.#link.send({ type: "stop" });
    this.#set(state, problem);
  }

  async #begin() {
    this.#closeRun();
    const turn = this.#turn;
    const { wanted } = this;
    this.asksForCamera = wanted.kind === "camera" && !this.#parts.camera.isOpen;
    this.#set("starting");
    try {
      if (wanted.kind === "camera") await this.#openCamera();
      if (turn !== this.#turn) return;
      await this.#link.open();
    } catch (error) {
      if (turn !== this.#turn) return;
      if (error instanceof CameraError) this.#halt("failed", words.cameraProblem(error));
      else this.#gone();
      return;
    }
    if (turn !== this.#turn) return;
    this.asksForCamera = false;
    this.measures = new Measures();
    this.#link.send({ type: "stop" });
    this.#link.send(wanted.kind === "camera" ? this.#startMessage() : this.#watchMessage());
    this.#changed();
  }

  async #openCamera() {
    const { camera, settings } = this.#parts;
    const { longSide_px } = settings;
    if (camera.isOpen && (!settings.camera || camera.id === settings.camera)) {
      await camera.ask(longSide_px);
    } else {
      await camera.open({ id: settings.camera, facing: settings.facing, longSide_px });
    }
  }

  get #size() {
    const { camera, settings } = this.#parts;
    return pictureSize(settings.longSide_px, camera.size, this.server.maxSize);
  }

  #startMessage() {
    const { settings } = this.#parts;
    this.#sent = this.#size;
    const [width, height] = this.#sent;
    this.transport = settings.transport === "auto" ? this.#autoTransport : settings.transport;
    return {
      type: "start",
      width,
      height,
      ...(this.filter && { filter: this.filter }),
      quality: settings.quality,
      strip: true,
      transport: this.transport,
    };
  }

  #watchMessage() {
    const view = this.#parts.stage.compare ? "side-by-side" : "filtered";
    this.transport = "websocket";
    return { type: "watch", session: this.wanted.session, view };
  }

  #hear(message) {
    const { type, what } = message;
    if (["started", "full"].includes(type) || what === "start" || what === "watch") {
      // What is asked for anew is not answered twice, but an answer may have been on its way: the
      // last one counts.
      const mayCome = type === "started" && this.run !== null;
      if (this.state !== "starting" && !mayCome) return;
      if (type === "started") this.#started(message);
      else if (type === "full") this.#halt("full", words.fullProblem(message));
      else this.#halt("failed", words.startProblem(message.error, what));
    } else if (!this.info) {
      return; // of what was left
    } else if (type === "stats") {
      this.stats = message;
      this.#runs(message.filter);
    } else if (type === "switched") {
      this.#runs(message.filter);
    } else if (type === "answer") {
      this.run.answer(message.sdp);
    } else if (type === "ended") {
      this.#endedUnseen = document.hidden;
      this.#ended_ms = performance.now();
      this.#halt("ended", words.endedProblem(message.reason, this.wanted.kind));
    } else if (type === "failed" && (what === "offer" || what === "peer")) {
      this.#peerFailed(message.error);
    } else if (type === "failed") {
      if (what === "switch") this.pending = "";
      this.#parts.onNote(message.error);
      this.#changed();
    }
  }

  /** @param {string} filter that the server says runs now. */
  #runs(filter) {
    if (filter === this.pending) this.pending = "";
    this.filter = filter;
    this.#changed();
  }

  #started(info) {
    const { camera, stage, settings, returned, debug } = this.#parts;
    const isCamera = this.wanted.kind === "camera";
    const link = this.#link;
    const { measures } = this;
    this.run?.close();
    this.#tries = 0;
    this.#advice = new Advice();
    this.info = info;
    this.filter = info.filter;
    if (isCamera) {
      this.run = new OwnCamera({
        ...{ camera, link, stage, measures, returned, debug },
        size: this.#sent,
        quality: settings.quality,
        transport: this.transport,
        onPeerFailed: (reason) => this.#peerFailed(reason),
      });
    } else {
      if (info.size?.length === 2) stage.resize(...info.size);
      const view = stage.compare ? "side-by-side" : "filtered";
      this.run = new Watching({ link, stage, measures, view, pings: this.#pings });
    }
    this.#set(isCamera ? "live" : "watching");
  }

  /** WebRTC does not get through: the WebSocket goes on, if the person leaves it to us. */
  #peerFailed(reason) {
    if (this.transport !== "webrtc" || !this.info) return;
    if (this.#parts.settings.transport === "auto") {
      this.#parts.onNote(`WebRTC did not work (${reason}); back to the WebSocket.`);
      this.#autoTransport = "websocket";
      this.#peerFails = true;
      this.restart();
    } else {
      const text = "Choose another transport under Settings, or try again.";
      this.#halt("failed", { title: "WebRTC does not get through", text, detail: reason });
    }
  }

  /** The link has gone, or could not be opened. */
  #gone() {
    // A server that is stopped ends its sessions first.
    const isStopping = performance.now() - this.#ended_ms < STOPS_WITHIN_MS;
    if (!this.wanted || ["failed", "full"].includes(this.state)) return;
    if (this.state === "ended" && !isStopping) return;
    this.#closeRun();
    this.#pings = [];
    const seconds = RETRY_AFTER_S[Math.min(this.#tries++, RETRY_AFTER_S.length - 1)];
    this.#set("reconnecting", words.goneProblem(seconds));
    this.#retryTimer = setTimeout(() => this.retry(), seconds * 1000);
  }

  #turned() {
    clearTimeout(this.#turnedTimer);
    this.#turnedTimer = setTimeout(() => {
      if (this.state === "live" && this.#size.join() !== this.#sent.join()) this.restart();
    }, TURNED_AFTER_MS);
  }

  /** Once a second: is the line dead or slow? */
  #look() {
    if (!this.run || document.hidden) return;
    if (performance.now() - this.#link.heard_ms > SILENCE_MS) {
      this.#link.close();
      this.#gone();
      return;
    }
    const { settings, onNote } = this.#parts;
    const mayChange = settings.transport === "auto" && this.server.transports.includes("webrtc");
    if (this.state !== "live" || this.transport !== "websocket") return;
    const isBehind = this.#advice.isBehind(this.measures.summary(), this.run.isJammed);
    if (!isBehind || !mayChange || this.#peerFails) return;
    onNote("The WebSocket falls behind: changing to WebRTC.");
    this.#autoTransport = "webrtc";
    this.restart();
  }

  /** The page can be seen again. */
  #seen() {
    if (document.hidden) return;
    this.#link.heard_ms = performance.now();
    if (this.state === "reconnecting" || (this.state === "ended" && this.#endedUnseen)) {
      this.#endedUnseen = false;
      this.retry();
    }
  }
}
