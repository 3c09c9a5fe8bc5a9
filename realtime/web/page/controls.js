/** Everything that can be pressed or set: the tools below the picture, and the settings. */

import { listCameras, pictureSize } from "./camera.js";
import { makeFullScreen } from "./full_screen.js";
import { press, setText } from "./panel.js";
import { Recording, saveSnapshot } from "./saving.js";
import { keepSettings } from "./settings.js";

/** A slider that is being dragged tells the server only where it rests. */
const SETTLED_MS = 200;

export class Controls {
  #find;
  #show;
  #stage;
  #camera;
  #settings;
  #say;
  #recording;
  /** What is chosen while watching lasts as long as the page; for the own camera it is kept. */
  #watching = { compare: false, mirror: false };

  /**
   * @param {{find: (id: string) => HTMLElement, show: import("./show.js").Show,
   *   stage: import("./stage.js").Stage, camera: import("./camera.js").Camera, settings: object,
   *   say: (text: string) => void}} parts
   */
  constructor({ find, show, stage, camera, settings, say }) {
    this.#find = find;
    this.#show = show;
    this.#stage = stage;
    this.#camera = camera;
    this.#settings = settings;
    this.#say = say;
    this.#recording = new Recording(stage.canvas);
    this.#recording.onChange = (file) => this.#recorded(file);
    stage.onResized = () => this.#recording.stop();
    this.#connectTools();
    this.#connectSettings();
    this.fillCameras();
  }

  get #isWatching() {
    return this.#show.wanted?.kind === "watch";
  }

  /** Take over what is chosen for what runs now; before it starts, and whenever it changes. */
  apply() {
    const { compare, mirror } = this.#isWatching ? this.#watching : this.#settings;
    this.#stage.compare = compare ?? true;
    this.#stage.mirror = mirror ?? this.#camera.facesUser;
  }

  /** Show what is chosen. */
  render() {
    const find = this.#find;
    const runs = this.#show.run !== null;
    this.apply();
    press(find("compare"), this.#stage.compare);
    press(find("mirror"), this.#stage.mirror);
    this.#stage.frame.classList.toggle("split", runs && this.#stage.compare);
    find("split").hidden = !runs || !this.#stage.compare;
    find("record").hidden = !this.#recording.isPossible;
    if (!runs && this.#show.state !== "starting") this.#recording.stop();
    find("transport").querySelector("[value=webrtc]").disabled =
      !this.#show.server.transports.includes("webrtc");
    this.#nameSizes();
  }

  /** Once or twice a second. */
  tick() {
    const seconds = Math.floor(this.#recording.seconds);
    const clock = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
    setText(this.#find("record-word"), this.#recording.isRunning ? clock : "Record");
  }

  /** List the cameras; after permission they have names. */
  async fillCameras() {
    const cameras = await listCameras().catch(() => []);
    const picker = this.#find("camera-picker");
    this.#find("flip").hidden = cameras.length < 2;
    if (!cameras.length) return;
    const current = this.#camera.id || this.#settings.camera;
    picker.replaceChildren(...cameras.map(({ id, name }) => new Option(name, id)));
    picker.value = cameras.some(({ id }) => id === current) ? current : cameras[0].id;
    picker.disabled = false;
  }

  #keep(changes) {
    Object.assign(this.#settings, changes);
    keepSettings(this.#settings);
  }

  #toggle(key) {
    const chosen = { [key]: !this.#stage[key] };
    if (this.#isWatching) Object.assign(this.#watching, chosen);
    else this.#keep(chosen);
    this.render();
    this.#stage.redraw();
    // Who compares while watching needs both pictures from the server.
    if (key === "compare" && this.#isWatching) this.#show.restart();
  }

  #connectTools() {
    const find = this.#find;
    const onClick = (id, action) => find(id).addEventListener("click", action);
    onClick("compare", () => this.#toggle("compare"));
    onClick("mirror", () => this.#toggle("mirror"));
    onClick("flip", () => this.#flip());
    onClick("stop", () => this.#show.stop());
    onClick("snapshot", async () => {
      this.#say(`Saved ${await saveSnapshot(this.#stage.canvas, this.#show.filter)}.`);
    });
    onClick("record", () => {
      if (this.#recording.isRunning) this.#recording.stop();
      else this.#recording.start(this.#show.filter);
    });
    makeFullScreen(find, this.#say);
  }

  #recorded(file) {
    press(this.#find("record"), this.#recording.isRunning);
    this.tick();
    if (this.#recording.isRunning) this.#say("Recording what is shown.");
    else this.#say(file ? `Saved ${file}.` : "Nothing was recorded.");
  }

  /** The other side of a phone, or the next camera. */
  #flip() {
    const facing = this.#camera.video.srcObject?.getVideoTracks()[0]?.getSettings().facingMode;
    if (facing === "user" || facing === "environment") {
      this.#keep({ camera: "", facing: facing === "user" ? "environment" : "user", mirror: null });
    } else {
      const picker = this.#find("camera-picker");
      picker.selectedIndex = (picker.selectedIndex + 1) % picker.length;
      this.#keep({ camera: picker.value });
    }
    this.#camera.close();
    this.#show.restart();
  }

  #connectSettings() {
    const find = this.#find;
    const settings = this.#settings;
    const onChange = (id, action) => find(id).addEventListener("change", action);
    find("size").value = String(settings.longSide_px);
    find("quality").value = String(settings.quality);
    setText(find("quality-value"), find("quality").value);
    find("transport").value = settings.transport;
    find("crossfade").checked = settings.crossfade;
    onChange("camera-picker", ({ target }) => {
      this.#keep({ camera: target.value, mirror: null });
      this.#show.restart();
    });
    onChange("size", ({ target }) => {
      this.#keep({ longSide_px: Number(target.value) });
      this.#show.restart();
    });
    onChange("transport", ({ target }) => {
      this.#keep({ transport: target.value });
      this.#show.restart();
    });
    onChange("crossfade", ({ target }) => this.#keep({ crossfade: target.checked }));
    let timer = 0;
    find("quality").addEventListener("input", ({ target }) => {
      setText(find("quality-value"), target.value);
      clearTimeout(timer);
      timer = setTimeout(() => {
        this.#keep({ quality: Number(target.value) });
        this.#show.setQuality(settings.quality);
      }, SETTLED_MS);
    });
  }

  /** The sizes that the open camera gives, in its own shape. */
  #nameSizes() {
    const [width, height] = this.#camera.size;
    if (!width || !this.#camera.isOpen) return;
    for (const option of this.#find("size").options) {
      const wished_px = Number(option.value);
      const scale = wished_px / Math.max(width, height);
      const shape = [width * scale, height * scale];
      const size = pictureSize(wished_px, shape, this.#show.server.maxSize);
      setText(option, size.join(" × "));
    }
  }
}
